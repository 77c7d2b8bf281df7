"""Energies d* P^-1 d of a positive definite matrix of balls, by elimination.

P = L D L*, with the largest remaining pivot first: the energy is a sum of |y_k|^2 / D_k, and any of
its first terms are a lower bound, the energy of matching that many coordinates. So balls too wide
to go on still leave a certain answer. Where P is Cauchy-like, P_jk = (u_j J u_k*) / (s_j + s_k*),
the columns come from the few generators u, and a step costs O(n) (Gohberg, Kailath & Olshevsky
1995, Math. Comp. 64:1557-1576).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flint import acb, arb

Ball = arb | acb
Row = Sequence[Ball]


@dataclass(frozen=True)
class Eliminated:
    """What an elimination leaves.

    Attributes:
        rank: How many pivots are certainly positive.
        energies: One ball a column of d: the sum over these pivots, a lower bound where the rank
            is not full.
    """

    rank: int
    energies: list[arb]


def eliminate(matrix: Sequence[Row], aims: Sequence[Row]) -> Eliminated:
    """Energies of the columns of `aims` for a Hermitian matrix given by its rows.

    Args:
        matrix: Rows; only entries on and below the diagonal are read.
        aims: One row a coordinate, one entry a column.
    """
    rows = [list(row[: i + 1]) for i, row in enumerate(matrix)]  # lower triangle
    diagonal = [row.pop().real for row in rows]

    def column(k: int, left: list[int]) -> Row:
        return [rows[j][k] if j > k else conjugate(rows[k][j]) for j in left]

    def update(k: int, left: list[int], ratios: Row, pivots: Row) -> None:
        scaled = dict(zip(left, ratios, strict=True))
        conjugated = [conjugate(p) for p in pivots]
        for j in left:
            ratio, row = scaled[j], rows[j]
            for i, p in zip(left, conjugated, strict=True):
                if i >= j:
                    break
                row[i] = row[i] - ratio * p

    return _eliminate(diagonal, aims, column, update)


def eliminate_cauchy(
    generators: Sequence[Row],
    signs: Sequence[int],
    nodes: Row,
    diagonal: Sequence[arb],
    aims: Sequence[Row],
) -> Eliminated:
    """The same for P_jk = sum_i signs_i u_ji u_ki* / (s_j + s_k*), none of whose denominators is 0.

    Args:
        generators: Rows u_j.
        signs: 1 or -1, one a generator.
        nodes: s_j.
        diagonal: P_jj.
        aims: One row a coordinate, one entry a column.
    """
    rows = [list(row) for row in generators]

    def column(k: int, left: list[int]) -> Row:
        signed = [s * conjugate(u) for s, u in zip(signs, rows[k], strict=True)]
        node = conjugate(nodes[k])
        return [_dot(rows[j], signed) / (nodes[j] + node) for j in left]

    def update(k: int, left: list[int], ratios: Row, pivots: Row) -> None:
        top = rows[k]
        for j, ratio in zip(left, ratios, strict=True):
            rows[j] = [u - ratio * t for u, t in zip(rows[j], top, strict=True)]

    return _eliminate(diagonal, aims, column, update)


def _eliminate(
    given: Sequence[arb],
    rights: Sequence[Row],
    column: Callable[[int, list[int]], Row],
    update: Callable[[int, list[int], Row, Row], None],
) -> Eliminated:
    diagonal, aims = list(given), [list(row) for row in rights]
    energies = [arb(0)] * (len(aims[0]) if aims else 0)
    left = list(range(len(diagonal)))
    rank = 0
    while left:
        k = max(left, key=lambda j: diagonal[j].lower())
        pivot = diagonal[k]
        if not pivot > 0:
            break
        left.remove(k)
        energies = [e + squared(y) / pivot for e, y in zip(energies, aims[k], strict=True)]
        rank += 1
        entries = column(k, left)
        ratios = [entry / pivot for entry in entries]
        for j, ratio, entry in zip(left, ratios, entries, strict=True):
            diagonal[j] = diagonal[j] - (ratio * conjugate(entry)).real
            aims[j] = [y - ratio * top for y, top in zip(aims[j], aims[k], strict=True)]
        update(k, left, ratios, entries)
    return Eliminated(rank, energies)


def _dot(left: Row, right: Row) -> Ball:
    total = left[0] * right[0]
    for a, b in zip(left[1:], right[1:], strict=True):
        total = total + a * b
    return total


def conjugate(x: Ball) -> Ball:
    """The complex conjugate."""
    return x if isinstance(x, arb) else x.conjugate()


def squared(x: Ball) -> arb:
    """|x|^2."""
    return x * x if isinstance(x, arb) else x.real * x.real + x.imag * x.imag
