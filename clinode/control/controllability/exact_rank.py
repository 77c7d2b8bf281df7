"""The dimension that inputs reach, in exact arithmetic: float64 entries are exact rationals.

The rank of [B, AB, A^2 B, ...] modulo a prime is never above the true rank. Full rank modulo one
prime is therefore a proof; a deficient rank is not, but a prime of 61 bits divides a nonzero minor
of a few hundred states with a probability below 1e-9, and two are asked. No rounding is involved,
so this works where the rank of the floating-point matrix says nothing.
"""

import flint
import numpy as np
from jaxtyping import Bool, Float

PRIMES = (2**61 - 1, 2**61 - 31)
MOST_STATES = 800  # seconds of work; beyond it takes minutes
FEW_BITS = 26  # half of a float64: what has no more was written down, not computed


def exact_dimension(
    A: Float[np.ndarray, "state state"], B: Float[np.ndarray, "state input"], most: int
) -> int:
    """Dimension of the controllable subspace of the matrices exactly as they are stored.

    Args:
        A: State matrix.
        B: Input matrix.
        most: A proved upper bound, the number of states if there is no better one.

    Returns:
        The dimension. Proved where it equals `most`; else a proved lower bound that is below the
        dimension with a probability of less than 1e-18.
    """
    best = 0
    for prime in PRIMES:
        a, b = (_residues(_modulo(M, prime), M.shape, prime) for M in (A, B))
        best = max(best, _growth(a, b, len(A)))
        if best == most:
            break
    return best


def generic_dimension(
    A: Bool[np.ndarray, "state state"], B: Bool[np.ndarray, "state input"], seed: int = 0
) -> int:
    """Dimension for almost all values of the entries that are not zero.

    By random values modulo a prime: never above the truth, and below it with a probability of 1e-15
    (Schwartz & Zippel). Hosoe 1980 (IEEE Trans. Autom. Control 25:1192-1196) is what it computes.
    """
    random = np.random.default_rng(seed)
    values = [random.integers(1, 2**60, size=pattern.shape) * pattern for pattern in (A, B)]
    a, b = (_residues(value.ravel().tolist(), value.shape, PRIMES[0]) for value in values)
    return _growth(a, b, len(A))


def has_few_bits(*matrices: Float[np.ndarray, "..."]) -> bool:
    """Whether every entry has at most half the bits of a float64, as written-down numbers have."""
    for matrix in matrices:
        mantissa, _ = np.frexp(matrix)
        scaled = mantissa * 2.0**FEW_BITS
        if (scaled != np.rint(scaled)).any():
            return False
    return True


def _growth(A: flint.nmod_mat, B: flint.nmod_mat, n: int) -> int:
    """Rank of [B, AB, ...] by doubling: rows K_2j = [K_j; K_j P], P = A'^j, until none is new."""
    rows, rank = _independent_rows(B.transpose())
    power = A.transpose()
    while 0 < rank < n:
        rows, grown = _independent_rows(_stacked(rows, rows * power, rank))
        if grown == rank:
            break
        rank = grown
        power = power * power
    return rank


def _independent_rows(matrix: flint.nmod_mat) -> tuple[flint.nmod_mat, int]:
    reduced, rank = matrix.rref()
    keep = [int(i == j) for i in range(rank) for j in range(matrix.nrows())]
    return flint.nmod_mat(rank, matrix.nrows(), keep, matrix.modulus()) * reduced, rank


def _stacked(upper: flint.nmod_mat, lower: flint.nmod_mat, rank: int) -> flint.nmod_mat:
    """One above the other, by products with unit matrices, which stay inside the library."""
    prime = upper.modulus()
    unit = [int(i == j) for i in range(rank) for j in range(rank)]
    zero = [0] * rank**2
    into_upper = flint.nmod_mat(2 * rank, rank, unit + zero, prime)
    into_lower = flint.nmod_mat(2 * rank, rank, zero + unit, prime)
    return into_upper * upper + into_lower * lower


def _residues(values: list[int], shape: tuple[int, ...], prime: int) -> flint.nmod_mat:
    rows, columns = shape
    return flint.nmod_mat(rows, columns, values, prime)


def _modulo(matrix: np.ndarray, prime: int) -> list[int]:
    """Each entry m 2^e modulo a prime: exact, whatever the exponent."""
    mantissa, exponent = np.frexp(matrix.ravel())
    whole = (mantissa * 2.0**53).astype(np.int64)  # exact: 53 bits
    powers = {int(e): pow(2, int(e) - 53, prime) for e in np.unique(exponent)}
    pairs = zip(whole.tolist(), exponent.tolist(), strict=True)
    return [m * powers[e] % prime for m, e in pairs]
