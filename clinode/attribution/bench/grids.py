"""Irregular records as a network on an hourly grid sees them, and three ways to explain it.

The network reads, hour by hour, the last value of each variable, whether it was measured in this
hour, and how long ago. A method that knows grids only explains the filled cells, most of which
nobody measured. The same network is a function of the measurements: what a fill passes on is
credited to the measurement it came from ("events"), and a measurement can be taken away
("deletion"), which refills what came after it.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from clinode.attribution.bench.problem import Problem, of_each


def filled(
    value: Float[Tensor, "row hour variable"], present: Bool[Tensor, "row hour variable"]
) -> Float[Tensor, "row hour channel"]:
    """Channels of the grid: last value (0 before the first), measured now, time since (0..1)."""
    n_hours = value.shape[1]
    hour = torch.arange(n_hours).reshape(1, -1, 1)
    last = torch.cummax(torch.where(present, hour, -1), dim=1).values
    carried = value.gather(1, last.clamp(min=0))
    carried = torch.where(last >= 0, carried, 0.0)
    since = torch.where(last >= 0, (hour - last) / n_hours, 1.0)
    return torch.cat([carried, present.to(value), since.to(value)], dim=2)


def event_views(
    name: str,
    about: str,
    network: nn.Module,
    value: Float[np.ndarray, "subject hour variable"],
    truth: Bool[np.ndarray, "subject hour variable"],
    facts: dict[str, float],
    readouts: Sequence[Callable[[Tensor], Tensor]],
) -> dict[str, Problem]:
    """The network as a function of measurements ("events"), of which were made ("deletion"), and of
    the filled grid ("grid").

    Args:
        name: Of the set.
        about: What is explained.
        network: Channels of `filled` -> (row, hour, output).
        value: Measurements, NaN where there is none.
        truth: Which matter.
        facts: Told beside the scores.
        readouts: Of each subject, what the network answers -> one number a row.
    """
    measured = ~np.isnan(value)
    held = torch.from_numpy(np.nan_to_num(value))
    masks = torch.from_numpy(measured)
    n_variables = value.shape[2]
    grid = filled(held, masks)
    cells = torch.stack([grid[..., :n_variables], grid[..., n_variables : 2 * n_variables]], dim=1)
    since = grid[..., 2 * n_variables :]

    def of_values(row: int) -> Callable[[Tensor], Tensor]:
        return lambda x: readouts[row](network(filled(x, masks[row].expand(x.shape))))

    def of_presence(row: int) -> Callable[[Tensor], Tensor]:
        def answer(x: Tensor) -> Tensor:
            present = masks[row] & (x > 0.5)
            return readouts[row](network(filled(held[row].expand(x.shape), present)))

        return answer

    def of_grid(row: int) -> Callable[[Tensor], Tensor]:
        def answer(x: Tensor) -> Tensor:
            gap = since[row].expand(x[:, 0].shape)
            return readouts[row](network(torch.cat([x[:, 0], x[:, 1], gap], dim=2)))

        return answer

    subjects = range(len(value))
    nothing = torch.zeros(1, dtype=torch.float64)
    told = {"about": about, "baseline": nothing, "truth": truth, "measured": measured}
    return {
        "events": Problem(
            name=name, x=held, pieces=of_each([of_values(row) for row in subjects]),
            facts=facts, **told,
        ),
        "deletion": Problem(
            name=name, x=masks.double(),
            pieces=of_each([of_presence(row) for row in subjects]),
            facts=facts, **told,
        ),
        "grid": Problem(
            name=name, x=cells, pieces=of_each([of_grid(row) for row in subjects]),
            facts=facts, summed=True, **told,
        ),
    }  # fmt: skip
