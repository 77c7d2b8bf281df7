"""The Popov-Belevitch-Hautus test as a distance: how far a mode is from being unreachable.

A mode lambda with left eigenvector w is unreachable exactly where w' B = 0, that is where
[A - lambda I, B] loses rank. Its least singular value is the size of the smallest change of (A, B)
after which lambda is an unreachable mode (Eising 1984, Syst. Control Lett. 4:263-264); ranks of
[B, AB, ...] say nothing in floating point.
"""

import math

import numpy as np
from jaxtyping import Complex, Float
from scipy.linalg import LinAlgError, lapack, schur, solve_triangular

ITERATIONS = 200
SETTLED = 1e-6  # relative change of a singular value at which an iteration stops
ROUGH = 0.02  # relative error that is left then where two singular values lie close together
MOST_EXACT = 8  # points at which the full decomposition is made, of those that are rivals
HUGE = 1e150  # growth in one iteration at which the least singular value is zero
BLOCK = 32  # of LAPACK

Matrix = Float[np.ndarray, "..."] | Complex[np.ndarray, "..."]


def controllability_margin(
    A: Float[np.ndarray, "state state"],
    B: Float[np.ndarray, "state input"],
    eigenvalues: Complex[np.ndarray, " state"],
    left: Complex[np.ndarray, "state mode"],
) -> float:
    """min over the eigenvalues of A of the least singular value of [A - lambda I, B].

    A mode is left out where a lower bound from the eigenvectors already exceeds another's value.

    Args:
        A: State matrix.
        B: Input matrix.
        eigenvalues: Of A.
        left: Left eigenvectors as columns, of length 1, in the same order.
    """
    upper = np.imag(eigenvalues) >= 0  # of a conjugate pair one is enough
    lower = _lower_bounds(B, eigenvalues, left)[upper]
    points = eigenvalues[upper]
    test = _Test(A, B)
    values = np.full(len(points), math.inf)
    for k in np.argsort(lower, kind="stable"):
        if lower[k] >= values.min():
            break
        values[k] = test.least(complex(points[k]))
    rivals = np.argsort(values)[:MOST_EXACT]
    rivals = rivals[values[rivals] <= (1 + ROUGH) * values.min()]
    return min(_exactly(A, B, complex(points[k]))[0] for k in rivals)


def least_singular_values(
    A: Matrix, B: Matrix, points: Complex[np.ndarray, " point"] | Float[np.ndarray, " point"]
) -> Float[np.ndarray, " point"]:
    """Least singular value of [A - lambda I, B] at each point, to about SETTLED."""
    test = _Test(A, B)
    return np.array([test.least(complex(point)) for point in points])


def least_singular_vector(A: Matrix, B: Matrix, point: complex | float) -> tuple[float, np.ndarray]:
    """The least singular value of [A - lambda I, B] near a point, and its left vector.

    Point and vector are improved in turn, w against the best w for lambda = w' A w, which only
    lowers the value; real where the pair and the point are.
    """
    value, vector = _exactly(A, B, complex(point))
    for _ in range(ITERATIONS):
        point = complex(vector.conj() @ A @ vector)
        lower, better = _exactly(A, B, point)
        if not lower < (1 - SETTLED) * value:
            break
        value, vector = lower, better
    return value, vector


def _exactly(A: Matrix, B: Matrix, point: complex) -> tuple[float, np.ndarray]:
    shift = point if np.iscomplexobj(A) or point.imag else point.real
    pencil = np.concatenate([A - shift * np.eye(len(A)), B], axis=1)
    left, values, _ = np.linalg.svd(pencil, full_matrices=False)
    return float(values[-1]), left[:, -1]


def _lower_bounds(B: np.ndarray, eigenvalues: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Of the least singular value at each eigenvalue, from the eigenvectors.

    With y' = c' W', |y' (A - lambda_k)| >= smin(W) d_k |c without c_k|, d_k the distance to the
    next eigenvalue, and |y' B| >= |c_k| g_k - |c without c_k| |G|, g_k the rows of G = W' B: what
    is left is the least singular value of a 2 x 2 matrix.
    """
    sizes = np.linalg.svd(left, compute_uv=False)
    gain = left.conj().T @ B
    own, all_gains = np.linalg.norm(gain, axis=1), np.linalg.norm(gain)
    distance = np.abs(eigenvalues[:, None] - eigenvalues)
    np.fill_diagonal(distance, math.inf)
    apart = sizes[-1] * distance.min(axis=1)
    apart = np.where(np.isfinite(apart), apart, sizes[-1])  # one state alone
    size = np.sqrt(own**2 + all_gains**2 + apart**2)
    bound = np.divide(own * apart, size, out=np.zeros_like(size), where=size > 0)
    return np.where(len(eigenvalues) > 1, bound, own) / sizes[0]


class _Test:
    """Least singular values of [A - lambda I, B] for many lambda, after one Schur form.

    With A* = Z S Z*, the pencil's adjoint is S - conj(lambda) I over B* Z: a triangle over as many
    rows as there are inputs, whose QR costs the square of the number of states.
    """

    def __init__(self, A: Matrix, B: Matrix):
        if np.array_equal(A, A.conj().T):
            values, self.axes = np.linalg.eigh(A)
            self.triangle = np.diag(values)
        else:
            self.triangle, self.axes = schur(A.conj().T, output="complex", check_finite=False)[:2]
        self.rows = B.conj().T @ self.axes
        self.unit = np.eye(len(A))
        self.start = np.random.default_rng(0).normal(size=len(A))

    def least(self, point: complex) -> float:
        triangle, rows = self.triangle - np.conj(point) * self.unit, self.rows
        factor = lapack.dtpqrt  # pyright: ignore[reportAttributeAccessIssue]
        if point.imag or np.iscomplexobj(self.triangle) or np.iscomplexobj(rows):
            rows, factor = rows.astype(complex), lapack.ztpqrt  # pyright: ignore[reportAttributeAccessIssue]
        triangle = triangle.astype(rows.dtype) if np.iscomplexobj(rows) else np.real(triangle)
        if len(rows):
            triangle = factor(0, min(BLOCK, len(triangle)), triangle, rows)[0]
        return _least_of_triangle(triangle, self.start)


def _least_of_triangle(triangle: np.ndarray, start: np.ndarray) -> float:
    """Least singular value of an upper triangle by inverse iteration on R* R."""
    if np.abs(np.diag(triangle)).min() == 0.0:
        return 0.0
    vector, value = start / np.linalg.norm(start), math.inf
    for _ in range(ITERATIONS):
        try:
            half = solve_triangular(triangle, vector, trans="C", check_finite=False)  # pyright: ignore[reportArgumentType]
            vector = solve_triangular(triangle, half, check_finite=False)
        except LinAlgError:
            return 0.0
        largest = float(np.abs(vector).max())
        if not largest < HUGE:
            return 0.0
        before, growth = value, float(np.linalg.norm(vector))
        value = 1 / math.sqrt(growth)
        if before - value <= SETTLED * value:
            break
        vector = vector / growth
    return value
