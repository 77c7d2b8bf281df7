"""The past of a compiled loop: delays that are whole steps, read from a table of states.

The table holds the delayed states of a few trajectories at one step after the other, trajectories
innermost, so that a sum over sources reads whole vectors of them. It is as long as the longest
delay and one call of the loop; between calls its end is moved to its beginning.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clinode.system import System, delay_times, positions

from .compiled_trace import NotCompiled
from .delays import History
from .solvers import Problem

WHOLE = 1e-6  # of a step: what a delay may be off


@dataclass(frozen=True, eq=False)
class Lags:
    """Delays in steps.

    Attributes:
        slots: Steps that are kept before the present one, and that one.
        sizes: Of the delayed states.
        numbers: Of the delayed states among all.
        places: By delayed state, (member, *axes of its delays, turned round): where the value that
            is read stands among the rows of the table at the first step; `size` further on at each
            next.
        width: Of every step.
        history: States before the start; the initial state by default.
    """

    slots: int
    sizes: dict[str, int]
    numbers: dict[str, int]
    places: dict[str, Tensor]
    width: float
    history: History | None

    def table(self, flat: Problem, name: str, rows: Tensor, further: int) -> Tensor:
        """States up to the start of these trajectories, and room for further steps.

        Args:
            flat: What is solved.
            name: Of the delayed state.
            rows: Which trajectories.
            further: Steps of a call.

        Returns:
            (slots and further steps, size, row).
        """
        block, size = _block(flat.system, name), self.sizes[name]
        made = flat.x0.new_empty(self.slots + further, size, len(rows))
        made[: self.slots] = flat.x0[rows][:, block].T
        if self.history is not None and self.slots > 1:
            back = torch.arange(1 - self.slots, 0, device=rows.device).double() * self.width
            times = (flat.times[..., 0] + back).unsqueeze(-1).expand(-1, len(flat.x0))
            made[: self.slots - 1] = (
                self.history(times)[:, rows][..., block].movedim(-1, 1).to(made)
            )
        return made


def lags_of(
    flat: Problem, widths: Sequence[float] | Tensor, history: History | None
) -> Lags | None:
    """The delays of a system in steps of these widths; None where there are none.

    Raises:
        NotCompiled: Steps that differ, delays that are no whole steps or that differ between
            trajectories.
    """
    system = flat.system
    if not system.delays:
        return None
    widths = torch.as_tensor(widths)
    width = float(widths.mean())
    if (widths - width).abs().max() > WHOLE * width:
        raise NotCompiled("its steps are not all of one width: output times are no whole steps")
    steps: dict[str, Tensor] = {}
    sizes = {quantity.name: quantity.size for quantity in system.states}
    declared = {quantity.name for quantity in system.constants}
    for delay in system.delays:
        times = delay_times(system)[delay.state].detach().double()
        if delay.times in declared and times.ndim > 1:
            raise NotCompiled("its delays differ between trajectories")
        lag = times / width
        if (lag - lag.round()).abs().max() > WHOLE:
            raise NotCompiled("its delays are no whole multiples of the step")
        steps[delay.state] = lag.round().long().expand(*times.shape[:-1], sizes[delay.state])
    slots = 1 + max(int(lag.max()) for lag in steps.values())
    places = {}
    for name, lag in steps.items():
        member = torch.arange(sizes[name], device=lag.device)
        place = (slots - 1 - lag) * sizes[name] + member
        places[name] = place.permute(*reversed(range(place.ndim))).contiguous()
    numbers = {quantity.name: i for i, quantity in enumerate(system.states)}
    return Lags(
        slots,
        {name: sizes[name] for name in steps},
        {name: numbers[name] for name in steps},
        places,
        width,
        history,
    )


def move_on(table: Tensor, n_steps: int, further: int) -> None:
    """What is still seen after so many steps, to the beginning of a table with room for further."""
    slots = len(table) - further
    table[:slots] = table[n_steps : n_steps + slots].clone()


def _block(system: System, name: str) -> slice:
    place = positions(system.states, name, "state")
    return slice(place[0], place[-1] + 1)
