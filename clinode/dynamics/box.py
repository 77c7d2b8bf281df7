"""The box of states that a search covers: named, checked, with room for unknown ranges."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import System, flat_names

from .field import members_named, names_of, nearest

Side = Sequence[float | int]  # (low, high)
Box = Mapping[str, Side] | Sequence[Side] | np.ndarray | Tensor
FARTHEST = 1000.0  # around the default of a state that nobody gave a range


class SearchBox:
    """Where a search starts, and where what it finds is kept.

    Args:
        system: Its states' ranges are used where the box says nothing.
        box: See `find_equilibria`.
        angles: States that are angles; they are wrapped into their first turn.

    Attributes:
        low, high: (state,), the box of starts; of a state without a range, -+ FARTHEST.
        low_kept, high_kept: (state,), the box of what is kept, infinite where nothing is known.
        scale: (state,), widths; 1 without a range.
        angles: As given.

    Raises:
        ArgumentError: A name that no state has, a box of another length, a side that is not
            finite and increasing.
    """

    def __init__(self, system: System, box: Box | None, angles: tuple[int, ...] = ()):
        ranges = [q.range for q in system.states for _ in q.names]
        given = parse_box(system, box)
        sides = [g or r for g, r in zip(given, ranges, strict=True)]
        self.middle = np.array([q.default or 0.0 for q in system.states for _ in q.names])
        self.known = np.array([side is not None for side in sides])
        chosen = np.array([g is not None for g in given])
        low, high = np.array([side or (-1.0, 1.0) for side in sides], dtype=np.float64).T
        self.scale = np.where(self.known, high - low, 1.0)
        self.low = np.where(self.known, low, self.middle - FARTHEST)
        self.high = np.where(self.known, high, self.middle + FARTHEST)
        room = np.where(chosen, 1e-9, 1.0) * self.scale  # a declared range is no wall
        self.low_kept = np.where(self.known, low - room, -math.inf)
        self.high_kept = np.where(self.known, high + room, math.inf)
        self.angles = angles
        for i in angles:
            self.low_kept[i], self.high_kept[i] = -math.inf, math.inf

    def place(self, draw: np.ndarray) -> np.ndarray:
        """Points of the unit cube, (point, state), in the box: evenly, or evenly in the logarithm
        of the distance from the default where no range is known.
        """
        far = np.sinh((2 * draw - 1) * math.asinh(FARTHEST))
        return np.where(self.known, self.low + (self.high - self.low) * draw, self.middle + far)

    def wrap(self, x: np.ndarray) -> np.ndarray:
        """Angles into [low, low + 2 pi)."""
        wrapped = x.copy()
        for i in self.angles:
            start = self.low[i] if self.known[i] else -math.pi
            turned = np.mod(x[:, i] - start, 2 * math.pi)
            wrapped[:, i] = start + np.where(turned > 2 * math.pi - 1e-9, 0.0, turned)
        return wrapped

    def holds(self, x: np.ndarray) -> np.ndarray:
        """Which rows are kept."""
        return np.all((x >= self.low_kept) & (x <= self.high_kept), axis=-1)

    def distance(self, x: np.ndarray) -> np.ndarray:
        """(row,): how far outside of what is kept, in scales; 0 inside."""
        beyond = np.maximum(self.low_kept - x, x - self.high_kept) / self.scale
        return np.maximum(beyond, 0.0).max(axis=-1)


def parse_box(system: System, box: Box | None) -> list[tuple[float, float] | None]:
    """A (low, high) for each state, None where the box says nothing."""
    names = flat_names(system.states)
    if box is None:
        return [None] * len(names)
    if isinstance(box, Mapping):
        sides: list[tuple[float, float] | None] = [None] * len(names)
        for name, side in box.items():
            for i in state_members(system, name):
                sides[i] = _side(name, side)
        return sides
    rows = np.asarray(box, dtype=np.float64)
    if rows.shape != (len(names), 2):
        raise ArgumentError(
            f"box has shape {rows.shape}, expected a (low, high) for each of {len(names)} states",
            fix="a mapping {state: (low, high)} may leave states out",
        )
    return [_side(name, side) for name, side in zip(names, rows.tolist(), strict=True)]


def state_members(system: System, name: str) -> list[int]:
    """Positions on the state axis that a state's, block's or member's name means.

    Raises:
        ArgumentError: There is none; the nearest is offered.
    """
    offset = 0
    for quantity in system.states:
        members = members_named(quantity, name)
        if members:
            return [offset + i for i in members]
        offset += quantity.size
    known = names_of(system.states)
    raise ArgumentError(f"{type(system).__name__} has no state '{name}': {nearest(name, known)}")


def _side(name: str, side: Side) -> tuple[float, float]:
    low, high = (float(end) for end in side)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ArgumentError(f"box of '{name}' must be finite with low < high, got ({low}, {high})")
    return low, high
