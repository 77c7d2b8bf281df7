"""What inputs cannot reach in a small linear system, by orthogonal transformations alone.

The staircase (Van Dooren 1981, IEEE Trans. Autom. Control 26:111-129) takes what the inputs reach
at once, then what that reaches, and so on; each rank is that of a block against a threshold, so
what it leaves is unreachable in a system as near as the threshold. It may miss: a long chain of
modest blocks can be as near to unreachable without any block being small. So what it takes for
reachable is tested mode by mode as well (`hautus`), and what fails is taken out.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float

from .hautus import least_singular_values, least_singular_vector

DOUBT = 100.0  # between a threshold and this multiple of it nothing is decided
MOST_POINTS = 150  # at which a block is tested; of a larger one not all, and it stays undecided
MOST_WORK = 2e7  # directions taken out one by one, times the cubed size
PHASE = 1e-6  # relative size of a part of a vector below which it is rounding

Matrix = Float[np.ndarray, "..."] | Complex[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class Split:
    """A linear system in orthonormal axes: what is reached first, then what is not.

    Attributes:
        axes: (state, state), orthonormal columns.
        n_reached: How many of them are reached.
        is_decided: Whether no rank and no distance lay near its threshold.
    """

    axes: Matrix
    n_reached: int
    is_decided: bool

    def conjugate(self) -> "Split":
        """The same of the conjugate system."""
        return Split(self.axes.conj(), self.n_reached, self.is_decided)

    @property
    def unreached(self) -> Matrix:
        """Orthonormal left-invariant directions that the inputs do not move."""
        return self.axes[:, self.n_reached :]

    @property
    def reached(self) -> Matrix:
        """Orthonormal directions that they do."""
        return self.axes[:, : self.n_reached]


def split_reached(A: Matrix, B: Matrix, *, of_A: float, of_B: float) -> Split:
    """Reached and unreached directions of dx/dt = A x + B u.

    Args:
        A: (state, state).
        B: (state, input).
        of_A: Size below which a block of A counts as zero.
        of_B: Size below which a block of B does.
    """
    axes, n, is_decided = _staircase(A, B, of_A, of_B)
    rounds = max(1, int(MOST_WORK / max(1, len(A)) ** 3))
    while n:
        if rounds == 0:
            return Split(axes, n, False)
        rounds -= 1
        a, b = (axes[:, :n].conj().T @ M for M in (A @ axes[:, :n], B))
        worst, vector = _weakest(a / of_A, b / of_B)
        if worst > 1.0:
            is_decided = is_decided and worst >= DOUBT and n <= MOST_POINTS
            break
        lost = _directions(vector, real=not np.iscomplexobj(axes))
        axes = axes.copy()
        axes[:, :n] = axes[:, :n] @ _with_last(lost)
        n -= lost.shape[1]
    return Split(axes, n, is_decided)


def _staircase(A: Matrix, B: Matrix, of_A: float, of_B: float) -> tuple[Matrix, int, bool]:
    dtype = np.result_type(A, B, np.float64)
    moved, axes = A.astype(dtype), np.eye(len(A), dtype=dtype)
    block, limit, n_reached = B.astype(dtype), of_B, 0
    is_decided = True
    while n_reached < len(A):
        left, sizes, _ = np.linalg.svd(block, full_matrices=False)
        rank = int((sizes > limit).sum())
        is_decided = is_decided and not ((sizes > limit) & (sizes < DOUBT * limit)).any()
        if rank == 0:
            break
        _turn(moved, axes, n_reached, left[:, :rank].copy())
        before, n_reached = n_reached, n_reached + rank
        block, limit = moved[n_reached:, before:n_reached], of_A
    return axes, n_reached, is_decided


def _turn(moved: np.ndarray, axes: np.ndarray, start: int, vectors: np.ndarray) -> None:
    """Make orthonormal vectors of the axes from `start` on the first of them, by reflections."""
    for j in range(vectors.shape[1]):
        mirror = vectors[j:, j].copy()
        phase = mirror[0] / abs(mirror[0]) if mirror[0] else 1.0
        mirror[0] += phase * np.linalg.norm(mirror)
        mirror /= np.linalg.norm(mirror)
        k = start + j
        vectors[j:] -= 2 * np.outer(mirror, mirror.conj() @ vectors[j:])
        moved[k:] -= 2 * np.outer(mirror, mirror.conj() @ moved[k:])
        moved[:, k:] -= 2 * np.outer(moved[:, k:] @ mirror, mirror.conj())
        axes[:, k:] -= 2 * np.outer(axes[:, k:] @ mirror, mirror.conj())


def _weakest(A: Matrix, B: Matrix) -> tuple[float, np.ndarray]:
    """Least singular value of [A - lambda, B] over the eigenvalues and their mean, its vector."""
    eigenvalues = np.linalg.eigvals(A)
    if len(eigenvalues) > MOST_POINTS:
        keep = np.linspace(0, len(eigenvalues) - 1, MOST_POINTS).astype(int)
        eigenvalues = eigenvalues[np.argsort(eigenvalues.real)][keep]
    points = np.append(eigenvalues, np.trace(A) / len(A))
    values = least_singular_values(A, B, points)
    return least_singular_vector(A, B, complex(points[np.argmin(values)]))


def _directions(vector: np.ndarray, real: bool) -> np.ndarray:
    """The vector as one column; of a real system its real span, two where it has a phase."""
    if not real or not np.iscomplexobj(vector):
        return vector[:, None]
    parts = np.stack([np.real(vector), np.imag(vector)], axis=1)
    left, sizes, _ = np.linalg.svd(parts, full_matrices=False)
    return left[:, sizes > PHASE * sizes[0]]


def _with_last(vectors: np.ndarray) -> np.ndarray:
    """Orthonormal axes of which the last are the vectors."""
    full, _ = np.linalg.qr(vectors, mode="complete")
    return np.roll(full, -vectors.shape[1], axis=1)
