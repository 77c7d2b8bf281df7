"""Connections that are silent at an operating point though the network has them.

A sigmoid far from its threshold has no slope: the target's row of the Jacobian is zero, and what a
graph of the network calls reachable is not. So the Jacobian is looked at elsewhere too: at states
and inputs near and far, those where most of it comes to life.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, jvp

from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity, System

N_POINTS = 4096  # drawn in a round
N_JACOBIANS = 16  # taken in a round, at points where rows are largest
MOST_ROUNDS = 8  # while there are states that nothing has acted on
FARTHEST = 1e3  # widths of the ranges, from the operating point
USUAL = 100.0  # times the largest entry within the ranges, beyond which an entry is not usual


@dataclass(frozen=True, eq=False)
class Sizes:
    """Largest absolute value that each entry of A, B and C takes, here or elsewhere."""

    A: Float[np.ndarray, "state state"]
    B: Float[np.ndarray, "state input"]
    C: Float[np.ndarray, "output state"]


def largest_entries(linear: LinearSystem, system: System | None) -> Sizes:
    """How large the entries of a linearization become at other states and inputs.

    What they are beyond the ranges counts no more than a hundred times what any entry is within: an
    exponential grows without bound, and says nothing about what is usual.

    Args:
        linear: Of the system, from `linearize`.
        system: The nonlinear system; without it nothing is known but the entries here.

    Raises:
        ArgumentError: The system has other states, or lacks an input or output.
    """
    here = [np.abs(_array(matrix)) for matrix in (linear.A, linear.B, linear.C)]
    if system is None:
        return Sizes(*here)
    inputs, outputs = check_names(linear, system)
    look = _Look(system, linear, inputs)
    found = look.around(0, 1.0, look.all_rows)
    caps = [USUAL * part.max(initial=0.0) for part in found]
    rows = look.all_rows
    for round_ in range(1, MOST_ROUNDS + 1):
        far = look.around(round_, FARTHEST, rows)
        found = [
            np.maximum(a, np.minimum(b, cap)) for a, b, cap in zip(found, far, caps, strict=True)
        ]
        others = found[0] - np.diag(np.diag(found[0]))
        rows = np.flatnonzero(~(others.any(axis=1) | found[1].any(axis=1)))
        if not len(rows):
            break
    kept = found[0], found[1][:, inputs], found[2][outputs]
    return Sizes(*(np.maximum(a, b) for a, b in zip(here, kept, strict=True)))


class _Look:
    """Jacobians of a system away from the point at which it was linearized."""

    def __init__(self, system: System, linear: LinearSystem, inputs: list[int]):
        self.system, self.n = system, system.n_states
        boxes = zip(_box(system.states), _box(system.inputs), strict=True)
        self.middle, self.width = (torch.cat(two) for two in boxes)
        self.middle[: self.n] = linear.x0.detach().to(self.middle)
        self.middle[[self.n + i for i in inputs]] = linear.u0.detach().to(self.middle)
        self.all_rows = np.arange(self.n + len(system.output_names))

    def around(self, seed: int, farthest: float, rows: np.ndarray) -> list[np.ndarray]:
        """Largest entries of the derivatives of the field by x and by u and of the output by x.

        Over few of many points from the ranges out to `farthest` times as far: those at which these
        rows, along random directions, are largest.
        """
        generator = torch.Generator().manual_seed(seed)
        shape = N_POINTS, len(self.middle)
        draw = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
        reach = farthest ** torch.linspace(0.0, 1.0, N_POINTS, dtype=torch.float64)
        points = self.middle + reach[:, None] * self.width * draw
        points = points.to(self.system.device, self.system.dtype)
        direction = torch.randn(shape, generator=generator, dtype=torch.float64).to(points)
        largest: list[np.ndarray] = []
        for k in self._liveliest(points, direction, rows):
            by_field, by_output = (_array(j) for j in jacrev(self._field_and_output)(points[k]))
            parts = by_field[:, : self.n], by_field[:, self.n :], by_output[:, : self.n]
            sizes = [np.nan_to_num(np.abs(part), nan=0.0, posinf=0.0) for part in parts]
            pairs = zip(largest or sizes, sizes, strict=True)
            largest = [np.maximum(a, b) for a, b in pairs]
        return largest

    def _liveliest(self, points: Tensor, direction: Tensor, rows: np.ndarray) -> list[int]:
        rates = jvp(self._field_and_output, (points,), (direction,))[1]
        rates = torch.cat([part.reshape(len(points), -1) for part in rates], dim=-1)[:, rows].abs()
        rates = torch.where(rates.isfinite(), rates, 0.0)
        shares = rates / rates.amax(dim=0).clamp(min=1e-300)
        chosen: list[int] = []
        best = torch.zeros_like(shares[0])
        for _ in range(min(N_JACOBIANS, len(rows))):  # greedily, the point that adds most
            chosen.append(int((shares - best).clamp(min=0.0).sum(dim=-1).argmax()))
            best = torch.maximum(best, shares[chosen[-1]])
        return chosen

    def _field_and_output(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, u = z[..., : self.n], z[..., self.n :]
        return self.system(0.0, x, u), self.system.output(0.0, x, u)


def _box(quantities: tuple[Quantity, ...]) -> tuple[Tensor, Tensor]:
    """Middle and half width of each range; 1 about the default where there is none."""
    sides = []
    for quantity in quantities:
        center = quantity.default or 0.0
        sides += [quantity.range or (center - 1.0, center + 1.0)] * quantity.size
    low, high = torch.tensor(sides, dtype=torch.float64).reshape(-1, 2).T
    return (low + high) / 2, (high - low) / 2


def check_names(linear: LinearSystem, system: System) -> tuple[list[int], list[int]]:
    """Where the inputs and outputs of a linearization stand in its system.

    Raises:
        ArgumentError: The system has other states, or lacks an input or output.
    """
    if linear.state_names != system.state_names:
        raise ArgumentError(
            f"the linear system has other states than {type(system).__name__}",
            fix="give the system that was linearized",
        )
    found = []
    for role in ("input", "output"):
        known = getattr(system, f"{role}_names")
        missing = [name for name in getattr(linear, f"{role}_names") if name not in known]
        if missing:
            raise ArgumentError(
                f"{type(system).__name__} has no {role} '{missing[0]}'",
                fix="give the system that was linearized",
            )
        found.append([known.index(name) for name in getattr(linear, f"{role}_names")])
    return found[0], found[1]


def _array(matrix: Tensor) -> np.ndarray:
    return matrix.detach().double().cpu().numpy()
