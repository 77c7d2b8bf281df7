"""Modes of a matrix in ball arithmetic, without computing an eigenvector.

A of float64 numbers is an integer matrix over a power of two, so its characteristic polynomial is
known exactly. Its roots are refined all at once by Weierstrass's iteration, whose corrections also
enclose them (Smith 1970, J. ACM 17:674-680). The rows c' adj(l - A) = sum_k q_k(l) c'A^k, with the
polynomials q_k of Horner's scheme, are then left eigenvectors of A, for any row c: modal
coordinates of any state cost one small product. All of it is certified, at any precision, for
symmetric and directed A alike; only a repeated eigenvalue has no such row of its own.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations, pairwise

import numpy as np
from flint import acb, acb_mat, arb, arb_mat, ctx, fmpz_mat

from .transfers import Array

Ball = arb | acb
MOST_SCALE_BITS = 400  # entries that differ by more powers of two make huge integers
SPARE_BITS = 40
MOST_ROUNDS = 60


@dataclass(frozen=True, eq=False)
class Modes:
    """Certified eigenvalues, all simple, and left eigenvectors of a matrix.

    Attributes:
        values: Eigenvalues; balls are real where A is symmetric.
        horner: (mode, k) values of the polynomials q_k.
        krylov: (k, state) rows c'A^k.
        precision: Bits that they were computed with.
    """

    values: list[Ball]
    horner: arb_mat | acb_mat
    krylov: arb_mat
    precision: int

    def coordinates(self, states: arb_mat) -> Sequence[Sequence[Ball]]:
        """Of columns (state, column): one row a mode, in the scale of its left eigenvector."""
        old, ctx.prec = ctx.prec, self.precision
        try:
            return (self.horner * (self.krylov * states)).tolist()
        finally:
            ctx.prec = old


class Spectrum:
    """The characteristic polynomial of a float64 matrix, and its roots as far as they are known.

    Args:
        A: (state, state), finite.
        polynomial: Coefficients, lowest first, of the integer matrix 2^scale (A - middle 1).
        numbers: The entries of that matrix.
        scale: See there.
        middle: By how much the spectrum is shifted, so that coefficients stay small.
        lost: Bits that a value of the polynomial near a root loses to cancellation.
        start: Approximate roots, shifted.
    """

    def __init__(
        self,
        polynomial: list[int],
        numbers: list[int],
        scale: int,
        middle: float,
        lost: int,
        start: Array,
    ):
        self.polynomial = polynomial
        self.numbers = numbers
        self.scale = scale
        self.middle = middle
        self.lost = lost
        self.is_real = not np.iscomplexobj(start)
        self.roots: list[Ball] = [arb(float(x)) if self.is_real else acb(complex(x)) for x in start]
        self.good = 40  # bits to which the roots are right

    def modes(self, bits: int) -> Modes | None:
        """Modes whose eigenvalues and coordinates are good to about that many bits.

        None where rounding cannot tell all the eigenvalues apart.
        """
        old = ctx.prec
        try:
            ctx.prec = precision = bits + 2 * self.lost + SPARE_BITS
            enclosed = self._refine(bits + self.lost)
            if enclosed is None:
                return None
            horner = _horner(self._coefficients(), enclosed)
            krylov = _krylov(self.numbers, self.scale, len(enclosed))
            values = [root + self.middle for root in enclosed]
        finally:
            ctx.prec = old
        return Modes(values, horner, krylov, precision)

    def _coefficients(self) -> list[arb]:
        n = len(self.polynomial) - 1
        return [arb(c) * arb(2) ** (-self.scale * (n - k)) for k, c in enumerate(self.polynomial)]

    def _refine(self, bits: int) -> list[Ball] | None:
        """Disjoint balls around the roots, each with exactly one in it."""
        whole = ctx.prec
        try:
            for _ in range(MOST_ROUNDS):
                ctx.prec = min(whole, 2 * self.good + 2 * self.lost + SPARE_BITS)
                steps = _corrections(self._coefficients(), self.roots)
                size = _log2_largest(steps)
                if not size < 0:
                    return None
                if size < -bits:
                    return _enclosed(self.roots, steps, self.is_real)
                self.roots = [(z - s).mid() for z, s in zip(self.roots, steps, strict=True)]
                self.good = max(self.good, int(-2 * size) - 4)
        finally:
            ctx.prec = whole
        return None


@functools.lru_cache(maxsize=4)
def spectrum_of(entries: bytes, n: int) -> Spectrum | None:
    """The spectrum of a float64 matrix given by its bytes.

    None where its eigenvalues are not simple to float64, or its entries differ too much in size.
    """
    A = np.frombuffer(entries).reshape(n, n)
    integers = scaled_integers(A)
    if integers is None:
        return None
    numbers, scale = integers
    middle = round(float(np.trace(A)) / n * 16) / 16 if scale >= 4 else 0.0
    for i in range(n):
        numbers[i * n + i] -= round(math.ldexp(middle, scale))
    is_symmetric = np.array_equal(A, A.T)
    start = (np.linalg.eigvalsh(A) if is_symmetric else np.linalg.eigvals(A)) - middle
    lost = _lost_bits(start)
    if lost is None:
        return None
    polynomial = [int(c) for c in fmpz_mat(n, n, numbers).charpoly().coeffs()]
    return Spectrum(polynomial, numbers, scale, middle, lost, start)


def scaled_integers(
    A: Array, most_bits: float | int = MOST_SCALE_BITS
) -> tuple[list[int], int] | None:
    """The entries of A as integers over 2^scale; None where they differ too much in size."""
    mantissas, exponents = np.frexp(A.ravel())
    whole = (mantissas * 2.0**53).astype(np.int64)
    low = [int(w & -w).bit_length() - 1 if w else 0 for w in whole]
    powers = [int(e) - 53 for e in exponents]
    needed = [-(p + z) for w, p, z in zip(whole, powers, low, strict=True) if w]
    scale = max([0, *needed])
    if max(scale, *powers, 0) > most_bits:
        return None
    shifts = [scale + p for p in powers]
    numbers = [int(w) << s if s >= 0 else int(w) >> -s for w, s in zip(whole, shifts, strict=True)]
    return numbers, scale


def _lost_bits(roots: Array) -> int | None:
    """By how many bits the polynomial near a root falls short of its largest term, at most.

    None where two roots are too close for float64 to start from.
    """
    n = len(roots)
    distances = np.abs(roots[:, None] - roots[None, :])
    distances[np.diag_indices(n)] = 1.0
    if not (distances > 1e-12 * (1 + np.abs(roots))[:, None]).all():
        return None
    apart = np.log2(distances).sum(axis=1)
    size = np.abs(roots)
    terms = np.array([np.log2(size + s).sum() for s in np.maximum(size, 1e-3)])
    return int(max(0.0, float((terms - apart).max()))) + n.bit_length()


def _corrections(coefficients: list[arb], roots: list[Ball]) -> list[Ball]:
    """chi(z_j) / prod (z_j - z_i): how far each root is off, to first order."""
    found = []
    for j, z in enumerate(roots):
        value, apart = coefficients[-1], arb(1)
        for c in reversed(coefficients[:-1]):
            value = value * z + c
        for i, other in enumerate(roots):
            if i != j:
                apart = apart * (z - other)
        found.append(value / apart)
    return found


def _log2_largest(balls: list[Ball]) -> float:
    """log2 of the largest absolute value that any of them may have; NaN where there is none."""
    sizes = [abs(ball).upper() for ball in balls]
    if not all(size.is_finite() for size in sizes):
        return math.nan
    logs = [float(size.log()) / math.log(2) for size in sizes if size != 0]
    return max(logs, default=-math.inf)


def _enclosed(roots: list[Ball], steps: list[Ball], is_real: bool) -> list[Ball] | None:
    """The discs of radius n |step|: each that no other touches holds exactly one root."""
    n = len(roots)
    radii = [(abs(step) * n).upper() for step in steps]
    order = sorted(range(n), key=lambda j: float(roots[j].real.mid()))
    for i, j in pairwise(order) if is_real else combinations(order, 2):
        if not abs(roots[i] - roots[j]) > radii[i] + radii[j]:
            return None
    if is_real:
        return [arb(z.real.mid(), r) for z, r in zip(roots, radii, strict=True)]
    return [acb(arb(z.real, r), arb(z.imag, r)) for z, r in zip(roots, radii, strict=True)]


def _horner(coefficients: list[arb], roots: list[Ball]) -> arb_mat | acb_mat:
    """q_k(l) = sum_(i > k) c_i l^(i - k - 1), for every root l."""
    n = len(roots)
    rows = []
    for root in roots:
        row = [root * 0 + 1]
        for c in reversed(coefficients[1:-1]):
            row.append(row[-1] * root + c)
        rows.append(row[::-1])
    entries = list(chain.from_iterable(rows))
    return (arb_mat if isinstance(roots[0], arb) else acb_mat)(n, n, entries)


def _krylov(numbers: list[int], scale: int, n: int) -> arb_mat:
    """Rows c'A^k for k < n, with a fixed c that no structure of a network is likely to share."""
    unit = arb(2) ** -scale
    transposed = arb_mat(n, n, [arb(x) * unit for x in numbers]).transpose()
    seed = np.random.default_rng(20).integers(1, 2**20, size=n)
    vector = arb_mat(n, 1, [int(x) for x in seed])
    rows = []
    for _ in range(n):
        rows += vector.entries()
        vector = transposed * vector
    return arb_mat(n, n, rows)
