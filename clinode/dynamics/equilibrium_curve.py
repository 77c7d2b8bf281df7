"""The curve of equilibria over one parameter, where to get onto it, what is known of its points.

Pseudo-arclength in scaled variables y = (x / widths, p / span).
"""

import math
from dataclasses import dataclass

import numpy as np

from clinode.errors import ArgumentError, SolverError
from clinode.system import System

from .arclength import DenseCurve
from .box import SearchBox, Side
from .equilibria import sort_eigenvalues
from .field import Eigenvalues, Field, ScaledField, scales
from .search import Search

N_STARTS = 32  # of the search for a first equilibrium


@dataclass(frozen=True, eq=False)
class EquilibriumReport:
    """What is known of a point on a branch of equilibria.

    Attributes:
        eigenvalues: The least stable first.
        n_unstable: How many have a positive real part.
        hopf: Changes sign where two eigenvalues add up to zero.
        sign, log_determinant: Of the bordered Jacobian, which is singular where branches cross.
    """

    eigenvalues: Eigenvalues
    n_unstable: int
    hopf: float
    sign: float
    log_determinant: float

    def determinant(self, reference: float) -> float:
        """Of the bordered Jacobian, relative to one whose logarithm is given."""
        return self.sign * math.exp(min(self.log_determinant - reference, 50.0))


class EquilibriumCurve(DenseCurve):
    """Equilibria over one parameter, y = (x, p) in scales.

    Args:
        dynamics: A field with one parameter.
        x: An equilibrium on the curve: sets the scale of states without a range.
        span: Of the parameter; its width is the scale.
    """

    def __init__(self, dynamics: Field, x: np.ndarray, span: tuple[float, float]):
        scale = np.append(state_scales(dynamics.system, x), span[1] - span[0])
        self.field = ScaledField(dynamics, scale)

    def equations(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.field.jacobian(y)

    def report(self, y: np.ndarray, tangent: np.ndarray, jacobian: np.ndarray) -> EquilibriumReport:
        eigenvalues = sort_eigenvalues(np.linalg.eigvals(jacobian[:, :-1]).astype(np.complex128))
        sign, log = np.linalg.slogdet(np.vstack([jacobian, tangent]))
        n_unstable = int((eigenvalues.real > 0).sum())
        return EquilibriumReport(
            eigenvalues, n_unstable, pair_test(eigenvalues), float(sign), float(log)
        )


def state_scales(system: System, x: np.ndarray) -> np.ndarray:
    """Widths of the states' ranges; of a state without one, its size at x, at least 1."""
    declared = np.array([q.range is not None for q in system.states for _ in q.names])
    return np.where(declared, scales(system.states), np.maximum(1.0, np.abs(x)))


def pair_test(eigenvalues: Eigenvalues) -> float:
    """Smallest sum of two eigenvalues that may vanish, with the sign of the product of all.

    Sums of a complex eigenvalue with any but its conjugate come in conjugate pairs, whose product
    is positive.
    """
    real = eigenvalues[eigenvalues.imag == 0].real
    pairs = (real[:, None] + real)[np.triu_indices(len(real), 1)]
    sums = np.concatenate([2 * eigenvalues[eigenvalues.imag > 0].real, pairs])
    return float(np.prod(np.sign(sums)) * np.abs(sums).min(initial=np.inf)) if len(sums) else 1.0


def nearest_pair(eigenvalues: np.ndarray) -> float:
    """w^2 of the two eigenvalues whose sum is nearest zero: their product."""
    sums = np.abs(eigenvalues[:, None] + eigenvalues)
    sums[np.tril_indices(len(eigenvalues))] = np.inf
    i, j = np.unravel_index(np.argmin(sums), sums.shape)
    return float((eigenvalues[i] * eigenvalues[j]).real)


def checked_span(span: Side) -> tuple[float, float]:
    """A span of a parameter as floats.

    Raises:
        ArgumentError: It is not finite and increasing.
    """
    low, high = (float(end) for end in span)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ArgumentError(f"span must be finite with low < high, got ({low}, {high})")
    return low, high


def span_passed(
    p: float, span: tuple[float, float], scale: float, slack: float = 1e-12
) -> float | None:
    """The end of the span that a scaled parameter has passed, scaled; None inside."""
    low, high = span[0] / scale, span[1] / scale
    if p < low - slack:
        return low
    return high if p > high + slack else None


def first_equilibrium(dynamics: Field, span: tuple[float, float]) -> tuple[np.ndarray, float]:
    """An equilibrium on the span: at its low end, else its high end, else between."""
    tried = [*span, *np.linspace(*span, 9)[1:-1].tolist()]
    for p in tried:
        at = dynamics.fixed([p])
        search = Search(at, SearchBox(at.system, None, at.angles), N_STARTS, None)
        search.run()
        roots = np.reshape(search.roots[0], (-1, at.n_states))
        jacobians = at.jacobian(roots)[1]
        smooth = np.isfinite(jacobians).all(axis=(1, 2))
        if smooth.any():
            growth = np.linalg.eigvals(jacobians[smooth]).real.max(axis=1)
            return roots[smooth][int(np.argmax(growth < 0))], p
    raise SolverError(
        f"no equilibrium was found at {len(tried)} values of '{dynamics.parameters[0]}' from "
        f"{span[0]:.6g} to {span[1]:.6g}",
        where=type(dynamics.system).__name__,
        fix="widen the span or the states' ranges, or follow cycles instead",
    )
