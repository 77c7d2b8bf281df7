"""Following a curve of solutions by pseudo-arclength, whatever it consists of.

A curve knows how to bring a guess back onto itself and what to say about a point; here is how to
walk along it with steps that fit, and how to find where a test function vanishes between two
points. Unknowns are scaled: distance along the curve is the Euclidean one (or the curve's own).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_ITERATIONS = 10


@dataclass(frozen=True, eq=False)
class CurvePoint:
    """A point of a curve.

    Attributes:
        y: (unknown,), scaled.
        tangent: (unknown,), of length 1, in the direction of travel.
        iterations: Newton steps that it took.
        report: What the curve says about it.
    """

    y: np.ndarray
    tangent: np.ndarray
    iterations: int
    report: Any


class Curve(ABC):
    """A one-dimensional set of solutions."""

    @abstractmethod
    def correct(self, guess: np.ndarray, tangent: np.ndarray) -> CurvePoint | None:
        """The solution in the plane through the guess across the tangent; None if none is near."""

    def inner(self, a: np.ndarray, b: np.ndarray) -> float:
        """The inner product that measures distance along the curve."""
        return float(a @ b)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How far a walk steps, in scaled arclength."""

    first: float = 0.01
    smallest: float = 1e-8
    largest: float = 0.05
    sharpest_turn: float = 0.93  # cosine between the tangents at both ends of a step
    few_iterations: int = 3  # with no more than these, and little turning, steps grow


class Walk:
    """A walk along a curve: attempt a step, then accept it or ask for a shorter one."""

    def __init__(self, curve: Curve, start: CurvePoint, steps: Steps):
        self.curve, self.steps, self.here, self.step = curve, steps, start, steps.first

    def attempt(self) -> CurvePoint | None:
        """The next point, not yet accepted; None where no step is small enough."""
        while self.step >= self.steps.smallest:
            there = along(self.curve, self.here, self.step)
            if there is not None:
                turn = self.curve.inner(there.tangent, self.here.tangent)
                if turn >= self.steps.sharpest_turn:
                    return there
            self.step /= 2
        return None

    def shorten(self) -> bool:
        """Ask for a step of half the length; False where it is already too short for that."""
        self.step /= 2
        return self.step >= self.steps.smallest

    def accept(self, there: CurvePoint) -> None:
        """Move on."""
        turn = self.curve.inner(there.tangent, self.here.tangent)
        few, sharpest = self.steps.few_iterations, self.steps.sharpest_turn
        if there.iterations <= few and turn > 1 - (1 - sharpest) / 4:
            self.step = min(1.6 * self.step, self.steps.largest)
        elif there.iterations > few + 2:
            self.step /= 1.6
        self.here = there


def along(curve: Curve, start: CurvePoint, distance: float) -> CurvePoint | None:
    """The point of the curve this far along the tangent at `start`."""
    return curve.correct(start.y + distance * start.tangent, start.tangent)


def locate(
    curve: Curve,
    start: CurvePoint,
    distance: float,
    test: Callable[[CurvePoint], float],
    *,
    tolerance: float = 1e-10,
) -> CurvePoint | None:
    """The point within this distance of `start` where a test changes sign.

    Regula falsi with the Illinois safeguard (Dowell & Jarratt 1971, BIT 11:168).
    """
    end = along(curve, start, distance)
    if end is None:
        return None
    a, b, at_a, at_b = 0.0, distance, test(start), test(end)
    if at_a * at_b > 0:
        return None
    best = start if abs(at_a) < abs(at_b) else end
    for _ in range(40):
        middle = b - at_b * (b - a) / (at_b - at_a) if at_b != at_a else (a + b) / 2
        if not min(a, b) < middle < max(a, b):
            middle = (a + b) / 2
        point = along(curve, start, middle)
        if point is None:  # exactly on a point where branches cross, where no tangent is one
            middle += 1e-3 * (b - middle)
            point = along(curve, start, middle)
        if point is None:
            return None
        best, value = point, test(point)
        if value * at_b <= 0:
            a, at_a = b, at_b
        else:
            at_a /= 2
        moved, b, at_b = abs(b - middle), middle, value
        if value == 0 or moved < tolerance or abs(b - a) < tolerance:
            break
    return best


class DenseCurve(Curve):
    """A curve given by k equations for k + 1 unknowns, few enough for dense algebra."""

    @abstractmethod
    def equations(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residual (k,) and its Jacobian (k, k + 1)."""

    @abstractmethod
    def report(self, y: np.ndarray, tangent: np.ndarray, jacobian: np.ndarray) -> Any:
        """What there is to say about a point."""

    def correct(self, guess: np.ndarray, tangent: np.ndarray) -> CurvePoint | None:
        """Newton's method on the equations and the plane."""
        y, last = guess, np.inf
        for iteration in range(1, MAX_ITERATIONS + 1):
            found = self.equations_or_none(y)
            if found is None:
                return None
            residual, jacobian = found
            matrix = np.vstack([jacobian, tangent])
            plane = tangent @ (y - guess)
            step = solve_or_none(matrix, -np.append(residual, plane))
            if step is None or not np.isfinite(step).all():
                return None
            length = np.abs(step).max()
            if length > 2 * last or length > 1.0:
                return None
            y, last = y + step, length
            if length < 1e-10:
                ahead = solve_or_none(matrix, np.append(np.zeros(len(residual)), 1.0))
                if ahead is None:
                    return None
                ahead = ahead / np.linalg.norm(ahead)
                return CurvePoint(y, ahead, iteration, self.report(y, ahead, jacobian))
        return None

    def equations_or_none(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """The equations; None where they cannot be evaluated: not finite, or borders that fail."""
        try:
            residual, jacobian = self.equations(y)
        except np.linalg.LinAlgError:
            return None
        return (residual, jacobian) if np.isfinite(jacobian).all() else None

    def first_point(self, y: np.ndarray, direction: np.ndarray) -> CurvePoint | None:
        """A point near y, its tangent along the curve on the side of `direction`."""
        found = self.equations_or_none(y)
        if found is None:
            return None
        tangent = np.linalg.svd(found[1])[2][-1]
        tangent = tangent * (1.0 if tangent @ direction >= 0 else -1.0)
        return self.correct(y, tangent)


def solve_or_none(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray | None:
    """The solution of a linear system; None where the matrix is exactly singular."""
    try:
        return np.linalg.solve(matrix, vector)
    except np.linalg.LinAlgError:
        return None
