"""What a stimulus is to reach: values of named states or outputs, and how far away they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.dynamics.equilibria import Equilibrium
from clinode.dynamics.field import names_of, nearest, scales
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity, System, positions

Target = Any  # (state,) numbers, values by name, or an Equilibrium


@dataclass(frozen=True, eq=False)
class Goal:
    """Values that chosen states and outputs are to have.

    Attributes:
        names: Flat names.
        units: Of each.
        values: Wanted, (target,).
        states: Positions of those that are states.
        outputs: Positions of those that are outputs; states come first.
        scales: What a distance is measured in: 1 where all units are the same, else the widths of
            the quantities' ranges.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    values: Float[Tensor, " target"]
    states: tuple[int, ...]
    outputs: tuple[int, ...]
    scales: Float[Tensor, " target"]

    def read(
        self, system: System, x: Float[Tensor, "*batch state"], u: Float[Tensor, " input"]
    ) -> Float[Tensor, "*batch target"]:
        """The quantities aimed at, in a state, under the resting input."""
        parts = []
        if self.states:
            parts.append(x[..., list(self.states)])
        if self.outputs:
            parts.append(system.output(0.0, x, u)[..., list(self.outputs)])
        return torch.cat(parts, dim=-1)

    def miss(self, values: Float[Tensor, "*batch target"]) -> Float[Tensor, "*batch target"]:
        """What is missing from what is wanted, in scales."""
        return (values - self.values) / self.scales

    def rows(self, linear: LinearSystem) -> Float[Tensor, "target state"]:
        """How the quantities move with the states to first order, in scales."""
        parts = [torch.eye(linear.n_states, dtype=torch.float64)[list(self.states)]]
        parts.append(linear.C.detach().double()[list(self.outputs)])
        return torch.cat(parts) / self.scales.unsqueeze(-1)


def goal_of(system: System, target: Target) -> Goal:
    """A target as a `Goal`.

    Args:
        system: Whose states and outputs are aimed at.
        target: (state,) values for all states; values by name of a state or an output, flat or of a
            block; or an equilibrium. Of a learned system only outputs are aimed at.

    Raises:
        ArgumentError: Unknown names, a state of a learned system, another number of values, values
            that are not finite, quantities of different units without ranges.
    """
    if isinstance(target, Equilibrium):
        if not system.latent:
            target = target.state.detach()
        else:
            target = dict(zip(system.output_names, target.output.tolist(), strict=True))
    if isinstance(target, Mapping):
        chosen = _named(system, target)
    else:
        values = _numbers(target, "target")
        if system.latent:
            raise ArgumentError(
                "the states of a learned system have arbitrary coordinates, so they are no target",
                fix="name outputs: {'MAP': 75.0}",
            )
        if values.shape != (system.n_states,):
            raise ArgumentError(
                f"target has shape {tuple(values.shape)}, expected ({system.n_states},) states, or "
                "values by name"
            )
        chosen = [("state", i, value) for i, value in enumerate(values.tolist())]
    goal = _goal(system, chosen)
    if not goal.values.isfinite().all():
        raise ArgumentError("target has values that are not finite")
    return goal


def _named(system: System, target: Mapping[str, Any]) -> list[tuple[str, int, float]]:
    """(state or output, position, value) of each quantity named."""
    if not target:
        raise ArgumentError("target names nothing", fix="{'E:lh_precuneus': 0.3}")
    found: dict[tuple[str, int], float] = {}
    for name, value in target.items():
        role, places = places_of(system, str(name))
        values = _numbers(value, f"the target of '{name}'")
        if values.ndim > 1 or values.numel() not in (1, len(places)):
            raise ArgumentError(
                f"the target of '{name}' has shape {tuple(values.shape)}, expected one number or "
                f"{len(places)}"
            )
        values = values.expand(len(places)).tolist()
        found |= {(role, place): one for place, one in zip(places, values, strict=True)}
    return [(role, place, value) for (role, place), value in found.items()]


def _numbers(values: Any, what: str) -> Tensor:
    try:
        return torch.as_tensor(values, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(
            f"{what} must be numbers, got {type(values).__name__}",
            fix="a state, values by name such as {'E:lh_precuneus': 0.3}, or an equilibrium",
        ) from None


def places_of(system: System, name: str) -> tuple[str, list[int]]:
    """("state" or "output", positions) of a flat name or a block; states go before outputs.

    Raises:
        ArgumentError: An unknown name, the nearest is offered; a state of a learned system.
    """
    kinds: list[tuple[str, Sequence[Quantity]]] = [("output", system.outputs)]
    if not system.latent:
        kinds.insert(0, ("state", system.states))
    elif name in names_of(system.states):
        raise ArgumentError(
            f"'{name}' is a state of a learned system, whose coordinates are arbitrary",
            fix="aim at an output: " + nearest(name, names_of(system.outputs)),
        )
    for role, quantities in kinds:
        if name in names_of(quantities):
            return role, positions(quantities, name, role)
    known = list(dict.fromkeys(one for _, quantities in kinds for one in names_of(quantities)))
    raise ArgumentError(
        f"{type(system).__name__} has no state or output '{name}': {nearest(name, known)}"
    )


def _goal(system: System, chosen: list[tuple[str, int, float]]) -> Goal:
    chosen = sorted(chosen, key=lambda one: (one[0] != "state", one[1]))
    flat = {
        "state": [(n, q) for q in system.states for n in q.names],
        "output": [(n, q) for q in system.outputs for n in q.names],
    }
    named = [flat[role][place] for role, place, _ in chosen]
    units = tuple(q.unit for _, q in named)
    widths = [1.0] * len(named)
    if len(set(units)) > 1:
        without = [name for name, q in named if q.range is None]
        if without:
            raise ArgumentError(
                f"the targets have different units and '{without[0]}' no range to compare it by",
                fix="aim at quantities of one unit, or give their Quantity a range",
            )
        widths = [float(scales((q,))[0]) for _, q in named]
    return Goal(
        names=tuple(name for name, _ in named),
        units=units,
        values=torch.tensor([value for _, _, value in chosen], dtype=torch.float64),
        states=tuple(place for role, place, _ in chosen if role == "state"),
        outputs=tuple(place for role, place, _ in chosen if role == "output"),
        scales=torch.tensor(widths, dtype=torch.float64),
    )
