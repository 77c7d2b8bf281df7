"""Quadratic costs of states or outputs, as a caller gives them, and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Quantity, Values, positions

Named = Values | Mapping[str, float]

ROUNDING = 1e-10  # relative; asymmetry and negative eigenvalues below it are rounding


@dataclass(frozen=True, eq=False)
class StateCost:
    """(x - target)' weight (x - target), of the states.

    Args:
        weight: (state, state), positive semidefinite; a number for all states alike; or numbers by
            name of a state or block, the others zero.
        target: (state,), absolute; or numbers by name, the others zero. By default the operating
            point of a `LinearSystem`, zero else.
    """

    weight: Named
    target: Named | None = None


@dataclass(frozen=True, eq=False)
class OutputCost:
    """(y - target)' weight (y - target), of the outputs y = `system.output`; else a `StateCost`."""

    weight: Named
    target: Named | None = None


@dataclass(frozen=True, eq=False)
class Quadratic:
    """A cost as tensors: weight (place, place), target (place,), of the outputs or the states."""

    weight: Tensor
    target: Tensor | None
    of_outputs: bool


def semidefinite(what: str, given: Values, n: int) -> Tensor:
    """A symmetric positive semidefinite matrix (n, n); a number stands for a multiple of 1."""
    matrix = torch.as_tensor(given, dtype=torch.float64)
    if matrix.ndim == 0:
        matrix = matrix * torch.eye(n, dtype=torch.float64)
    if matrix.shape != (n, n):
        raise ArgumentError(f"{what} has shape {tuple(matrix.shape)}, expected {(n, n)}")
    if not matrix.isfinite().all():
        raise ArgumentError(f"{what} has entries that are not finite")
    values = matrix.detach()
    size = max(float(values.abs().max()) if n else 0.0, np.finfo(float).tiny)
    if n and float((values - values.T).abs().max()) > ROUNDING * size:
        raise ArgumentError(f"{what} is not symmetric", fix="give (M + M') / 2")
    lowest = float(torch.linalg.eigvalsh(values)[0]) if n else 0.0
    if lowest < -ROUNDING * size:
        raise ArgumentError(
            f"{what} is not positive semidefinite: its lowest eigenvalue is {lowest:.3g}"
        )
    return (matrix + matrix.T) / 2


def vector(what: str, given: Values, n: int, finite: bool = True) -> Tensor:
    """A vector (n,); a number stands for n of it."""
    made = torch.as_tensor(given, dtype=torch.float64)
    made = made.expand(n) if made.ndim == 0 else made
    if made.shape != (n,) or (finite and not made.isfinite().all()):
        raise ArgumentError(f"{what} has shape {tuple(made.shape)}, expected {n} numbers")
    return made


def by_name(given: Mapping[str, float], quantities: Sequence[Quantity], word: str) -> Tensor:
    """Numbers by name as a vector, zero where no name is given."""
    values = torch.zeros(sum(q.size for q in quantities), dtype=torch.float64)
    for name, value in given.items():
        values[positions(quantities, name, word)] = value
    return values
