"""Infinite-horizon Gramians of large sparse networks with few inputs, as Z Z'.

Alternating directions (ADI) build Z block by block; what is left of the Lyapunov equation is known
all along (Benner, Kürschner & Saak 2013, Electron. Trans. Numer. Anal. 40:341-362). For symmetric
A, whose best shifts are known (Wachspress 1966; here by elliptic functions) and whose shifted
systems conjugate gradients solve.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse, special
from torch import Tensor

from clinode.errors import ArgumentError, SolverError
from clinode.system import Values

from .gramian import check_eigenvalues, real_numbers
from .lanczos import n_rows
from .sparse import SparseWeights, is_symmetric, read_sparse, spectrum_ends

MOST_SHIFTS = 60


@dataclass(frozen=True, eq=False)
class LowRankGramian:
    """W = Z Z' to a known residual.

    Attributes:
        factor: Z, (state, rank).
        residual: No less than |A Z Z' + Z Z' A' + B B'| / |B B'|, spectral norms.
        error_bound: Of |W - Z Z'|, spectral norm: residual over twice the slowest decay rate.
        n_products: Products of A with blocks of vectors that it took.
        statement: In words.
    """

    factor: Float[Tensor, "state rank"]
    residual: float
    error_bound: float
    n_products: int
    statement: str

    @property
    def rank(self) -> int:
        """Columns of Z."""
        return self.factor.shape[1]

    def diagonal(self) -> Float[Tensor, " state"]:
        """Diagonal of Z Z'."""
        return self.factor.square().sum(1)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words, for JSON; without Z."""
        return {
            "rank": self.rank,
            "trace": float(self.diagonal().sum()),
            "residual": self.residual,
            "error_bound": self.error_bound,
            "n_products": self.n_products,
            "statement": self.statement,
        }


def low_rank_gramian(A: SparseWeights, B: Values, *, tolerance: float = 1e-8) -> LowRankGramian:
    """Z with A Z Z' + Z Z' A' = -B B' to the tolerance, for a large sparse symmetric stable A.

    Args:
        A: Sparse (state, state) of SciPy or torch, symmetric, per time unit; `sparse_dynamics`
            makes it from weights.
        B: (state, input), few inputs.
        tolerance: Largest residual, relative to |B B'|; 1e-12 or more.

    Raises:
        ArgumentError: Matrices that do not fit each other or are not finite, an A that is directed
            or not stable.
        SolverError: The residual stays above the tolerance.

    Example:
        >>> found = low_rank_gramian(sparse.csr_array([[-2.0]]), [[1.0]])
        >>> round(float(found.diagonal()[0]), 6)
        0.25
    """
    matrix, _ = read_sparse(A)
    inputs = _checked_inputs(B, n_rows(matrix))
    if not 1e-12 <= tolerance < 1:
        raise ArgumentError(f"tolerance must lie between 1e-12 and 1, got {tolerance}")
    if not is_symmetric(matrix):
        raise ArgumentError(
            "a low-rank Gramian is for undirected networks, and this A is not symmetric",
            fix="controllability_gramian of the dense matrix, up to a few thousand states",
        )
    low, high = spectrum_ends(matrix, tolerance=1e-3)
    ends = torch.tensor([low, high], dtype=torch.float64)
    check_eigenvalues(ends, ends.abs().max())
    size = float(np.linalg.norm(inputs, 2) ** 2)
    if size == 0:
        return LowRankGramian(torch.zeros(len(inputs), 0).double(), 0.0, 0.0, 0, "no input acts")
    shifts = _shifts(-high, -low, tolerance / 2)
    factor, left, n_products = _alternate(matrix, inputs, shifts, tolerance)
    residual = left / size
    if residual > tolerance:
        raise SolverError(
            f"a factor of rank {factor.shape[1]} leaves a residual of {residual:.1e}, "
            f"{tolerance:.0e} was asked for",
            fix="raise tolerance",
        )
    statement = (
        f"low-rank ADI, {len(shifts)} shifts for decay rates {-high:.4g} to {-low:.4g}, "
        f"rank {factor.shape[1]}, residual {residual:.1e}"
    )
    bound = residual * size / (-2 * high)
    return LowRankGramian(torch.from_numpy(factor), residual, bound, n_products, statement)


def _checked_inputs(B: Values, n: int) -> np.ndarray:
    given: Any = B.detach().cpu() if isinstance(B, Tensor) else B
    made = real_numbers(given.toarray() if sparse.issparse(given) else given, "B").numpy()
    if made.ndim != 2 or made.shape[0] != n:
        raise ArgumentError(f"B has shape {made.shape}, expected {n} rows, one for each state")
    if not np.isfinite(made).all():
        raise ArgumentError("B has entries that are not finite")
    return made


def _shifts(slow: float, fast: float, tolerance: float) -> np.ndarray:
    """As few as make prod ((x - p) / (x + p))^2 <= tolerance for slow <= x <= fast, largest first.

    The product has its largest value at both ends and in between, wherever it turns.
    """
    ratio = min(slow / fast, 1.0)
    quarter = special.ellipkm1(ratio**2)
    for count in range(1, MOST_SHIFTS + 1):
        places = (2 * np.arange(count) + 1) * quarter / (2 * count)
        shifts = np.sort(fast * special.ellipj(places, 1 - ratio**2)[2])[::-1]
        if np.prod((slow - shifts) / (slow + shifts)) ** 2 <= tolerance:
            return shifts
    raise SolverError(
        f"decay rates from {slow:.2g} to {fast:.2g} take more than {MOST_SHIFTS} shifts",
        fix="raise tolerance, or move the network away from the edge of stability",
    )


def _alternate(
    A: sparse.csr_array, B: np.ndarray, shifts: np.ndarray, tolerance: float
) -> tuple[np.ndarray, float, int]:
    """Z, a bound of the residual of its Lyapunov equation, and how many products it took.

    Exact solves would leave left left'; what each lets stand, rest, adds
    2 p (rest V' + V rest') to it.
    """
    left = B.copy()
    allowed = 0.1 * tolerance * float(np.linalg.norm(B)) / len(shifts)
    blocks, n_products, inexact = [], 0, 0.0
    for p in shifts:
        V, rest, count = _solve_shifted(A, float(p), left, allowed)
        left -= 2 * p * V
        inexact += 4 * p * float(np.linalg.norm(V)) * rest
        blocks.append(math.sqrt(2 * p) * V)
        n_products += count
    remains = float(np.linalg.norm(left.T @ left, 2))
    return np.concatenate(blocks, axis=1), remains + inexact, n_products


def _solve_shifted(
    A: sparse.csr_array, p: float, right: np.ndarray, tolerance: float
) -> tuple[np.ndarray, float, int]:
    """V with (p - A) V = right by conjugate gradients, a column each, all products together.

    With the norm of what is left and the number of products.
    """
    V = np.zeros_like(right)
    rest, direction = right.copy(), right.copy()
    squared = np.einsum("ij,ij->j", rest, rest)
    for count in range(10 * MOST_SHIFTS):
        norm = math.sqrt(squared.sum())
        if norm <= tolerance:
            return V, norm, count
        product = p * direction
        product -= A @ direction
        curvature = np.einsum("ij,ij->j", direction, product)
        length = np.divide(squared, curvature, out=np.zeros_like(squared), where=curvature > 0)
        V += length * direction
        product *= length
        rest -= product
        before, squared = squared, np.einsum("ij,ij->j", rest, rest)
        direction *= np.divide(squared, before, out=np.zeros_like(before), where=before > 0)
        direction += rest
    raise SolverError("conjugate gradients did not arrive: decay rates are too far apart")
