"""Where a linear system rests: at one state, along a continuum, or nowhere. Nothing is searched."""

from dataclasses import dataclass

import numpy as np

from .field import Field


@dataclass(frozen=True)
class LinearRest:
    """The answer of linear algebra.

    Attributes:
        x: (root, state): the state of rest, or the one of a continuum nearest to a given state; no
            row where there is none.
        nullity: Dimension of the continuum; 0 where the Jacobian is regular.
    """

    x: np.ndarray
    nullity: int

    @property
    def words(self) -> str:
        """As told to a person."""
        if not self.nullity:
            return "1, unique: the Jacobian of a linear system is the same everywhere, and regular"
        singular = f"the Jacobian is singular, with a null space of dimension {self.nullity}, and"
        if len(self.x):
            return f"1 of a continuum: {singular} the constant drift lies in its range"
        return f"none: {singular} the constant drift does not lie in its range, so no state rests"


def linear_rest(dynamics: Field, near: np.ndarray, scale: np.ndarray) -> LinearRest:
    """The states x at which J x + f(0) = 0, of a field that is linear, one member.

    Singular values below rounding of the largest count as zero, as in a numerical rank; lengths
    are measured in the scales, (state,).
    """
    value, jacobian = dynamics.jacobian(near[None])
    J, f = jacobian[0] * scale / scale[:, None], value[0] / scale
    left, sizes, right = np.linalg.svd(J)
    rank = int((sizes > len(sizes) * np.finfo(np.float64).eps * sizes.max(initial=0.0)).sum())
    part = left.T @ f
    rest = float(np.abs(part[rank:]).max(initial=0.0))
    nullity = len(sizes) - rank
    if rest > 1e-10 * max(float(np.abs(part).max()), 1e-300):
        return LinearRest(np.empty((0, len(near))), nullity)
    step = right[:rank].T @ (part[:rank] / sizes[:rank])
    x = near - scale * step
    for _ in range(2):  # a state far from `near` needs what its first step lost to rounding
        part = left.T @ (dynamics.value(x[None])[0] / scale)
        x = x - scale * (right[:rank].T @ (part[:rank] / sizes[:rank]))
    return LinearRest(x[None], nullity)
