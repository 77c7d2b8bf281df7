"""Bounds of e_i' f(A) e_i for a large sparse symmetric A, from products of A with vectors.

Lanczos' recurrence from e_i finds the nodes of Gauss' rule for the measure that A has at i. Where
all derivatives of f are positive below the end b of the spectrum, Gauss' rule is a lower bound, and
that of Radau with a node at b an upper one; where they alternate, the node stands at the other end
(Golub & Meurant 2010, Matrices, Moments and Quadrature, ch. 6).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from clinode.errors import SolverError

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Part:
    """A function whose derivatives have one sign, or alternate, and the end where Radau's node is.

    Args:
        function: Of the eigenvalues.
        end: No less than the largest eigenvalue where the derivatives are positive, no more than
            the smallest where they alternate in sign.
    """

    function: Function
    end: float


def quadrature_bounds(
    A: sparse.csr_array,
    nodes: np.ndarray,
    parts: Sequence[Part],
    *,
    tolerance: float,
    most_steps: int = 400,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Lower and upper bounds of e_i' f(A) e_i for f the sum of the parts, and the steps taken.

    Orthogonality that the recurrence loses to rounding delays the bounds but leaves them valid (it
    is that of a larger matrix with eigenvalues near those of A: Greenbaum 1989, Linear Algebra
    Appl. 113:7-63). Rounding of the rules themselves is added to both.

    Args:
        A: Symmetric.
        nodes: Positions i; all are taken along together.
        parts: Of f.
        tolerance: Width of the bounds, relative, at which to stop.
        most_steps: Of the recurrence.

    Raises:
        SolverError: The bounds are wider after that many steps.
    """
    recurrence = _Recurrence(A, nodes)
    pivots = [np.ones(len(nodes)) for _ in parts]
    low = high = np.full(len(nodes), np.nan)
    for k in range(1, most_steps + 1):
        recurrence.advance()
        alpha, beta = recurrence.diagonal[-1], recurrence.below[-1]
        before = recurrence.below[-2] if k > 1 else np.zeros(len(nodes))
        pivots = [
            alpha - part.end - before**2 / pivot for part, pivot in zip(parts, pivots, strict=True)
        ]
        if k % 4 and k > 16 and k < most_steps:
            continue  # eigenvalues of the larger Jacobi matrices take time
        low = sum(recurrence.rule(part.function) for part in parts)
        high = sum(
            recurrence.rule(part.function, part.end + beta**2 / pivot)
            for part, pivot in zip(parts, pivots, strict=True)
        )
        rounding = 8 * k * np.finfo(float).eps * np.abs(high)
        low, high = np.minimum(low, high) - rounding, np.maximum(low, high) + rounding
        if (high - low <= tolerance * np.abs(low)).all():
            return low, high, k
    raise SolverError(
        f"the bounds are {np.max((high - low) / np.abs(low)):.1e} wide, relative, after "
        f"{most_steps} steps of Lanczos",
        fix="raise tolerance, or keep A further from the edge of stability",
    )


def n_rows(A: sparse.csr_array) -> int:
    """How many rows a sparse matrix has."""
    return len(A.indptr) - 1


class _Recurrence:
    """Lanczos' three-term recurrence from several unit vectors at once, without its vectors."""

    def __init__(self, A: sparse.csr_array, nodes: np.ndarray):
        self.A = A
        self.current = np.zeros((n_rows(A), len(nodes)))
        self.current[nodes, np.arange(len(nodes))] = 1.0
        self.previous = np.zeros_like(self.current)
        self.diagonal: list[np.ndarray] = []
        self.below: list[np.ndarray] = []
        self.size = np.full(len(nodes), np.finfo(float).tiny)

    def advance(self) -> None:
        """One product with A: the next diagonal entry and the one below it."""
        following = self.A @ self.current
        alpha = np.einsum("ij,ij->j", self.current, following)
        if self.below:
            self.previous *= self.below[-1]
            following -= self.previous
        np.multiply(self.current, alpha, out=self.previous)
        following -= self.previous
        beta = np.sqrt(np.einsum("ij,ij->j", following, following))
        self.size = np.maximum(self.size, np.hypot(alpha, beta))
        beta[beta <= 1e-14 * self.size] = 0.0  # what A makes of e_i is exhausted: the rule is exact
        following *= np.divide(1.0, beta, out=np.zeros_like(beta), where=beta > 0)
        self.previous, self.current = self.current, following
        if self.below:  # where the recurrence has ended, an entry that changes nothing
            alpha = np.where(self.below[-1] == 0, self.diagonal[0], alpha)
        self.diagonal.append(alpha)
        self.below.append(beta)

    def rule(self, function: Function, last: np.ndarray | None = None) -> np.ndarray:
        """Gauss' rule; with a last diagonal entry, that of Radau."""
        diagonal = self.diagonal if last is None else [*self.diagonal, last]
        below = self.below[:-1] if last is None else self.below
        n = len(diagonal)
        matrix = np.zeros((len(self.size), n, n))
        matrix[:, range(n), range(n)] = np.stack(diagonal, axis=1)
        if n > 1:
            matrix[:, range(1, n), range(n - 1)] = np.stack(below, axis=1)
        points, vectors = np.linalg.eigh(matrix)
        weights = vectors[:, 0] ** 2
        return (weights * np.where(weights > 0, function(points), 0.0)).sum(1)
