"""What inputs span exactly: the space of A^j B over the rational numbers that float64 numbers are.

No rank by rounding. Modulo a prime the rank can only be smaller, so full rank there is a proof.
Where it is not full, the relations that the reachable states obey are lifted to rational numbers
and checked exactly: a mirror symmetry, a region without a path, a silent input show as x_3 = x_17.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
from flint import arb, fmpq, fmpq_mat, fmpz, fmpz_mat, nmod_mat

from .ball_gramian import ball_gramian
from .ball_modes import scaled_integers
from .transfers import Array, Transfers

MOST_PRIMES = 256  # relations with numbers beyond 256 * 62 / 2 bits are not looked for
MOST_MODULAR = 5e8  # n^3 times the primes, unless they are few
DRIFT_BITS = 512  # to which drifts are known that relations are checked on
MOST_CHECKED = 2e9  # multiplications in the exact check


@dataclass(frozen=True)
class Span:
    """The space that targets can be moved in.

    Attributes:
        rank: Its dimension; where not proven, the dimension modulo a prime.
        free: Positions of targets that can be chosen freely.
        bound: The other positions.
        relations: (bound, free): bound targets = relations @ free targets; None where unknown.
    """

    rank: int
    free: list[int]
    bound: list[int]
    relations: fmpq_mat | None

    @property
    def is_proven(self) -> bool:
        """Whether the dimension is certain."""
        return not self.bound or self.relations is not None

    @property
    def weights(self) -> list[list[fmpq]]:
        """The relations as rows.

        Raises:
            ValueError: They are not known.
        """
        if self.relations is None:
            raise ValueError("the relations are not known")
        return self.relations.tolist() if self.free else [[] for _ in self.bound]

    @property
    def rows(self) -> fmpq_mat:
        """(bound, target): each row times what inputs reach is zero."""
        table = [[fmpq(0)] * (len(self.free) + len(self.bound)) for _ in self.bound]
        for i, b in enumerate(self.bound):
            table[i][b] = fmpq(1)
            for f, weight in zip(self.free, self.weights[i], strict=True):
                table[i][f] = -weight
        return fmpq_mat(table)

    def residual(self, ends: list[list[fmpq]]) -> list[list[fmpq]]:
        """By how much ends (target, pair) miss the relations: (bound, pair)."""
        return (self.rows * fmpq_mat(ends)).tolist()

    def distances(self, ends: Array) -> Array:
        """How far ends (pair, target) are from the space, in float64."""
        if not self.bound or self.relations is None:
            return np.zeros(len(ends))
        rows = [[float(arb(q).mid()) for q in row] for row in self.rows.tolist()]
        Q, _ = np.linalg.qr(np.array(rows).T)
        return np.linalg.norm(ends @ Q, axis=1)

    def is_conserved(self, transfers: Transfers) -> bool:
        """Whether what a state misses the relations by never changes by itself."""
        if transfers.readout is not None:
            return False
        numbers, scale = _integers(transfers.A)
        n = transfers.n_states
        for i in range(n if transfers.is_map else 0):
            numbers[i * n + i] -= 1 << scale
        Q, _ = self.rows.numer_denom()
        return _is_zero(Q * fmpz_mat(n, n, numbers))


def reachable_span(transfers: Transfers) -> Span:
    """The span of C A^j B (C = 1 where targets are states) over the steps of the horizon."""
    n_targets = transfers.ends.shape[1]
    if not transfers.B.any():
        return Span(0, [], list(range(n_targets)), fmpq_mat(n_targets, 0))
    numbers = _Integers.of(transfers)
    modulus, combined = 1, {}
    free: list[int] | None = None
    span = Span(0, [], [], None)
    most = min(MOST_PRIMES, max(4, int(MOST_MODULAR / transfers.n_states**3)))
    for k, prime in enumerate(islice(_primes(), most), start=1):
        found, entries = _modulo(numbers, transfers, prime)
        if len(found) == n_targets:
            return Span(n_targets, found, [], None)
        if found != free:  # the first prime, or one of the two is unlucky: begin anew
            free, modulus, combined = found, 1, {}
        combined = {k: _crt(combined.get(k, 0), modulus, v, prime) for k, v in entries.items()}
        modulus *= prime
        bound = [i for i in range(n_targets) if i not in set(found)]
        is_time = k & (k - 1) == 0  # 1, 2, 4, 8, ...
        relations = _lifted(combined, modulus, found, bound) if is_time else None
        span = Span(len(found), found, bound, relations)
        if relations is not None and _holds(span, numbers, transfers):
            return span
    return Span(span.rank, span.free, span.bound, None)


def relations_kept(transfers: Transfers, span: Span) -> tuple[list[bool], list[bool], Array]:
    """Of each pair: whether it certainly misses the span, certainly lies in it, and its aim."""
    resting = np.full(len(transfers.ends), transfers.is_endless)
    resting |= (transfers.starts == transfers.rest).all(axis=1)
    end_off = _off(span, transfers.ends, transfers.end_rest)
    if resting.all():
        return end_off, [not off for off in end_off], transfers.moved_ends
    start_off = [True] * len(resting)
    if transfers.readout is None and not transfers.is_short:
        start_off = _off(span, transfers.starts, transfers.rest)
    if span.is_conserved(transfers):
        end_off = _off(span, transfers.ends, transfers.starts)  # at rest both are the same
        return end_off, [not off for off in end_off], transfers.ends - transfers.starts
    _, balls = ball_gramian(transfers, DRIFT_BITS)
    rows = balls.tolist()
    aims = np.array([[float(x.mid()) for x in row] for row in rows]).reshape(len(rows), -1).T
    gap_off = _gaps(span, rows)
    misses = [e if r else g for e, g, r in zip(end_off, gap_off, resting, strict=True)]
    still = resting | ~np.array(start_off)
    meets = [not e and bool(s) for e, s in zip(end_off, still, strict=True)]
    return misses, meets, aims


def _off(span: Span, states: Array, origin: Array) -> list[bool]:
    """Whether the difference of states breaks a relation, exactly."""
    exact = _fractions(states) - _fractions(np.broadcast_to(origin, states.shape))
    missed = span.residual(exact.T.tolist())
    return [any(row[i] != 0 for row in missed) for i in range(len(states))]


def _fractions(values: Array) -> Array:
    made = [fmpq(*float(x).as_integer_ratio()) for x in values.ravel()]
    return np.array([*made, None], dtype=object)[:-1].reshape(values.shape)


def _gaps(span: Span, rows: list[list[arb]]) -> list[bool]:
    """Whether balls (target, pair) certainly break a relation."""
    broken = [False] * (len(rows[0]) if rows else 0)
    for b, weights in zip(span.bound, span.weights, strict=True):
        for pair in range(len(broken)):
            gap = rows[b][pair]
            for f, weight in zip(span.free, weights, strict=True):
                gap = gap - rows[f][pair] * arb(weight)
            broken[pair] = broken[pair] or not gap.contains(0)
    return broken


@dataclass(frozen=True)
class _Integers:
    """The matrices times powers of two, which no span depends on."""

    A: list[int]
    B: list[int]
    C: list[int] | None

    @staticmethod
    def of(transfers: Transfers) -> "_Integers":
        C = transfers.readout
        C_integers = None if C is None else _integers(C)[0]
        return _Integers(_integers(transfers.A)[0], _integers(transfers.B)[0], C_integers)


def _integers(matrix: Array) -> tuple[list[int], int]:
    made = scaled_integers(matrix, most_bits=math.inf)
    assert made is not None  # any float64 is an integer over a power of two
    return made


def _primes() -> Iterator[int]:
    for candidate in count(2**62 - 57, -2):
        if fmpz(candidate).is_prime():
            yield candidate


def _n_powers(transfers: Transfers) -> int:
    n = transfers.n_states
    return n if transfers.n_steps is None else int(min(n, transfers.n_steps))


def _modulo(
    numbers: _Integers, transfers: Transfers, prime: int
) -> tuple[list[int], dict[tuple[int, int], int]]:
    """Free positions and relations modulo a prime, from the reduced echelon form of the span."""
    n, m = transfers.B.shape
    A = nmod_mat(n, n, [x % prime for x in numbers.A], prime)
    rows = nmod_mat(n, m, [x % prime for x in numbers.B], prime).transpose()
    powers = _n_powers(transfers)
    rows = _reduced(rows)[0]
    if powers == n:
        step = A.transpose()
        while True:  # powers 0 .. 2^i - 1, until another as many add nothing
            larger = _reduced(_stacked(rows, rows * step, prime))[0]
            if larger.nrows() == rows.nrows():
                break
            rows, step = larger, step * step
    else:
        step = A.transpose()
        block = rows
        for _ in range(1, powers):
            block = block * step
            rows = _reduced(_stacked(rows, block, prime))[0]
    if numbers.C is not None:
        k = len(transfers.readout) if transfers.readout is not None else 0
        rows = rows * nmod_mat(k, n, [x % prime for x in numbers.C], prime).transpose()
    reduced, free = _reduced(rows)
    n_targets = reduced.ncols()
    bound = [i for i in range(n_targets) if i not in set(free)]
    return free, {(i, j): int(reduced[j, b]) for i, b in enumerate(bound) for j in range(len(free))}


def _stacked(top: nmod_mat, bottom: nmod_mat, prime: int) -> nmod_mat:
    rows, columns = top.nrows() + bottom.nrows(), top.ncols()
    return nmod_mat(rows, columns, [int(x) for x in top.entries() + bottom.entries()], prime)


def _reduced(matrix: nmod_mat) -> tuple[nmod_mat, list[int]]:
    """The rows of the reduced echelon form that are not zero, and their pivots."""
    reduced, rank = matrix.rref()
    columns = reduced.ncols()
    entries = [int(x) for x in reduced.entries()[: rank * columns]]
    pivots = [next(j for j in range(columns) if entries[i * columns + j]) for i in range(rank)]
    return nmod_mat(rank, columns, entries, matrix.modulus()), pivots


def _crt(a: int, modulus: int, b: int, prime: int) -> int:
    return a + modulus * ((b - a) * pow(modulus, -1, prime) % prime)


def _lifted(
    combined: dict[tuple[int, int], int], modulus: int, free: list[int], bound: list[int]
) -> fmpq_mat | None:
    """Rational numbers with numerators and denominators below sqrt(modulus / 2)."""
    largest = math.isqrt(modulus // 2)
    table = [[fmpq(0)] * len(free) for _ in bound]
    for (i, j), residue in combined.items():
        a, b, x, y = modulus, residue, 0, 1
        while b > largest:
            q = a // b
            a, b, x, y = b, a - q * b, y, x - q * y
        if not 0 < abs(y) <= largest or math.gcd(b, abs(y)) != 1:
            return None
        table[i][j] = fmpq(b, y)
    return fmpq_mat(table) if bound and free else fmpq_mat(len(bound), len(free))


def _holds(span: Span, numbers: _Integers, transfers: Transfers) -> bool:
    """Whether every A^j B obeys the relations, exactly."""
    n, m = transfers.B.shape
    rows, bound = span.rows, span.bound
    Q, _ = rows.numer_denom()
    A, B = fmpz_mat(n, n, numbers.A), fmpz_mat(n, m, numbers.B)
    if numbers.C is None and _n_powers(transfers) == n:
        # QB = 0, and QA again a combination of the rows of Q: that of its entries at `bound`
        if not _is_zero(Q * B):
            return False
        moved = fmpq_mat(Q * A)
        weights = fmpq_mat([[moved[i, b] for b in bound] for i in range(len(bound))])
        return moved == weights * rows
    left = Q if numbers.C is None else Q * fmpz_mat(rows.ncols(), n, numbers.C)
    if n**2 * len(bound) * _n_powers(transfers) > MOST_CHECKED:
        return False
    for _ in range(_n_powers(transfers)):
        if not _is_zero(left * B):
            return False
        left = left * A
    return True


def _is_zero(matrix: fmpz_mat) -> bool:
    return all(x == 0 for x in matrix.entries())
