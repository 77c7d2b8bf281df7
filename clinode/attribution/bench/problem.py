"""What a set asks: a function, the inputs it is explained at, and the cells known to matter.

Every method, clinode's and a peer's, is given the same `Problem` and gives back one number a cell.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clinode.errors import ArgumentError


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """A function with inputs of which it is known what matters.

    Args:
        name: Of the set.
        about: What is explained, in a few words.
        pieces: Rows of x with the function that is explained at them, x (n, ...) -> (n,); together
            all rows, in order.
        x: The inputs, a row a subject.
        baseline: What they are compared with, broadcast to `x`.
        truth: Which cells matter, of the shape of x.
        measured: Cells of x that somebody measured; None where all are.
        exact: The attributions in closed form, where there is one.
        summed: Whether axis 1 of x holds several entries of each cell (its value, its mask), whose
            attributions are summed; then truth and measured lack that axis.
        facts: Numbers worth telling beside the scores, such as how well a network predicts.
    """

    name: str
    about: str
    pieces: tuple[tuple[slice, Callable[[Tensor], Tensor]], ...]
    x: Float[Tensor, "subject ..."]
    baseline: Tensor
    truth: Bool[np.ndarray, "subject ..."]
    measured: Bool[np.ndarray, "subject ..."] | None = None
    exact: Float[np.ndarray, "subject ..."] | None = None
    summed: bool = False
    facts: dict[str, float] | None = None

    def __post_init__(self):
        shape = tuple(self.x.shape)
        if self.summed:
            shape = (shape[0], *shape[2:])
        if self.truth.shape != shape:
            raise ArgumentError(
                f"the truth of {self.name!r} has the shape {self.truth.shape}, its cells {shape}"
            )
        if not self.truth.any():
            raise ArgumentError(f"nothing matters in {self.name!r}: its truth is empty")

    @property
    def reference(self) -> Tensor:
        """The baseline of every row, of the shape of x."""
        return torch.broadcast_to(self.baseline, self.x.shape).to(self.x)

    def of_cells(self, values: np.ndarray) -> np.ndarray:
        """Attributions of the entries of x as those of cells."""
        return values.sum(axis=1) if self.summed else values


def of_all(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple:
    """One function for all subjects."""
    return ((slice(0, len(x)), function),)


def of_each(functions: Sequence[Callable[[Tensor], Tensor]]) -> tuple:
    """A function for each subject."""
    return tuple((slice(row, row + 1), function) for row, function in enumerate(functions))
