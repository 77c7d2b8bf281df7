"""Whether one region reaches every mode of a network, by arithmetic modulo primes.

Weights in double precision are integers times a power of two, so the space spanned by e_i, W e_i,
W^2 e_i, ... has an exact dimension that no tolerance decides. It is the degree of the recurrence
that the numbers u' W^k e_i obey (Berlekamp & Massey; Wiedemann 1986, IEEE Trans. Inf. Theory
32:54-62), here modulo a prime. A prime or a vector u can only make the degree smaller, so a full
one is a proof. Where two primes and two random vectors agree upon less, the chance that they are
wrong is below 1e-9 for a region of a thousand.
"""

import numpy as np

PRIMES = (2**31 - 1, 2147483629)


def reaches_all(W: np.ndarray, nodes: np.ndarray, seed: int = 0) -> np.ndarray:
    """Whether an input at each of these regions alone reaches all modes of x' = W x.

    Args:
        W: (region, region), finite, up to about a thousand regions.
        nodes: Positions of regions.
        seed: Of the random vectors.

    Returns:
        (node,), boolean.

    Example:
        >>> path = np.diag(np.ones(2), 1) + np.diag(np.ones(2), -1)
        >>> reaches_all(path, np.arange(3)).tolist()
        [True, False, True]
    """
    rng = np.random.default_rng(seed)
    proven = np.zeros(len(nodes), dtype=bool)
    for prime in PRIMES:
        terms = _sequences(_residues(W, prime), prime, rng)
        anywhere = (terms * rng.integers(1, prime, len(W)) % prime).sum(1) % prime
        if _recurrence_degree(anywhere, prime) < len(W):
            continue  # no input vector whatever reaches all: an eigenvalue has two eigenvectors
        for k in np.flatnonzero(~proven):
            proven[k] = _recurrence_degree(terms[:, nodes[k]], prime) == len(W)
    return proven


def _residues(W: np.ndarray, prime: int) -> np.ndarray:
    """W times a power of two that makes it integer, modulo a prime."""
    mantissa, exponent = np.frexp(W)
    integers = np.ldexp(mantissa, 53).astype(np.int64)
    shift = np.where(integers != 0, exponent, exponent.max())
    shift = shift - shift.min()
    powers = np.array([pow(2, k, prime) for k in range(int(shift.max()) + 1)])
    return (integers % prime) * powers[shift] % prime


def _sequences(W: np.ndarray, prime: int, rng: np.random.Generator) -> np.ndarray:
    """(2 n, region): u' W^k modulo a prime, for a random u.

    Numbers below 2^31 go in two halves, so that sums of their products are exact in double
    precision.
    """
    n = len(W)
    halves = np.concatenate([W >> 16, W & 0xFFFF], axis=1).astype(np.float64)
    terms = np.empty((2 * n, n), dtype=np.int64)
    terms[0] = rng.integers(1, prime, n)
    for k in range(1, 2 * n):
        row = np.stack([terms[k - 1] >> 16, terms[k - 1] & 0xFFFF]).astype(np.float64)
        (high, middle), (other, low) = (row @ halves).astype(np.int64).reshape(2, 2, n) % prime
        middle = (middle + other) % prime
        terms[k] = ((high * 2**16 + middle) % prime * 2**16 + low) % prime
    return terms


def _recurrence_degree(terms: np.ndarray, prime: int) -> int:
    """Length of the shortest linear recurrence of a sequence (Massey 1969)."""
    size = len(terms) // 2 + 2
    current, previous = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    current[0] = previous[0] = 1
    degree, gap, last = 0, 1, 1
    for k in range(len(terms)):
        used = current[: degree + 1] * terms[k - degree : k + 1][::-1] % prime
        discrepancy = int(used.sum() % prime)
        if discrepancy == 0:
            gap += 1
            continue
        factor = discrepancy * pow(last, -1, prime) % prime
        moved = current.copy()
        if gap < size:
            moved[gap:] = (moved[gap:] - factor * previous[: size - gap]) % prime
        if 2 * degree <= k:
            degree, previous, last, gap = k + 1 - degree, current, discrepancy, 1
        else:
            gap += 1
        current = moved
    return degree
