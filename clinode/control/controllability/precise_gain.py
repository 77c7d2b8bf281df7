"""The gain of one mode in many digits, and what relative changes of the entries do to it.

In double precision a gain below 1e-16 of what it is made of is rounding, whether the mode is out of
reach or only far from it: along a chain the gain is a product of the couplings, tiny but as certain
as they are. To first order a change dA, dB moves the gain w' B by w' dA Z + w' dB, Z the reduced
resolvent of B; in enough digits that tells the two apart.
"""

import numpy as np
from flint import acb, acb_mat, ctx
from jaxtyping import Complex, Float

BITS = (320, 1100)  # more where the gain may be smaller than the fewer show
STEPS = 4  # of Rayleigh's iteration from double precision; each trebles the digits
MOST_WORK = 5e6  # modes times cubed states: some seconds


def precise_gain(
    A: Float[np.ndarray, "state state"],
    B: Float[np.ndarray, "state input"],
    eigenvalue: complex | float,
    left: Complex[np.ndarray, " state"],
    right: Complex[np.ndarray, " state"],
) -> tuple[float, float]:
    """|w' B| for w of length 1, and a bound of its change for relative changes of 1 of all entries.

    Args:
        A: State matrix.
        B: Input matrix.
        eigenvalue: A simple eigenvalue of A, to double precision.
        left: Its left eigenvector w, w* A = eigenvalue w*.
        right: Its right eigenvector.

    Raises:
        ZeroDivisionError: The eigenvalue is not simple.
    """
    gain, change, value = 0.0, 0.0, complex(eigenvalue)
    for bits in BITS:
        with ctx.workprec(bits):
            gain, change = _in_balls(A, B, value, left, right, 2.0 ** (-bits * 3 // 4))
        if gain > 2.0 ** (-bits * 7 // 10) * np.abs(B).max():
            return gain, change
    return 0.0, change


def _in_balls(
    A: np.ndarray,
    B: np.ndarray,
    eigenvalue: complex,
    left: np.ndarray,
    right: np.ndarray,
    offset: float,
) -> tuple[float, float]:
    a, b = acb_mat(A.tolist()), acb_mat(B.tolist())
    unit = acb_mat(np.eye(len(A)).tolist())
    row, column, value = _column(left.conj()), _column(right), acb(eigenvalue)
    beside = acb(np.abs(A).max()) * offset  # an exact eigenvalue would divide by zero
    for _ in range(STEPS):
        shifted = a - unit * (value + beside)
        column = _scaled(shifted.solve(column, algorithm="approx"))
        row = _scaled(shifted.transpose().solve(row, algorithm="approx"))
        across = row.transpose()
        value = ((across * a * column)[0, 0] / (across * column)[0, 0]).mid()
    # (lambda - A) Z = B - v w' B / (w' v), w' Z = 0
    pairs = zip((unit * value - a).tolist(), column.tolist(), strict=True)
    bordered = acb_mat([*([*line, v[0]] for line, v in pairs), [*row.transpose().tolist()[0], 0]])
    padded = acb_mat([*b.tolist(), [0] * b.ncols()])
    resolvent = _sizes(bordered.solve(padded, algorithm="approx"))[:-1]
    w, gains = _sizes(row)[:, 0], _sizes(row.transpose() * b)[0]
    moved = w @ np.abs(A) @ resolvent + w @ np.abs(B)
    length = np.linalg.norm(w)
    return float(np.linalg.norm(gains) / length), float(np.linalg.norm(moved) / length)


def _column(vector: np.ndarray) -> acb_mat:
    return acb_mat([[complex(x)] for x in vector])


def _scaled(vector: acb_mat) -> acb_mat:
    """With its largest entry of size about 1, without the radius."""
    largest = float(_sizes(vector).max())
    return acb_mat([[(x[0] / largest).mid()] for x in vector.tolist()])


def _sizes(matrix: acb_mat) -> Float[np.ndarray, "row column"]:
    """Absolute values, rounded to double precision."""
    return np.array([[float(abs(x).mid()) for x in line] for line in matrix.tolist()])
