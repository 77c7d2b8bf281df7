"""Symmetries of a linear network that its inputs share, found by color refinement.

States that receive the same from every class of states, and the same inputs, move alike when they
start alike: what distinguishes them is never reached (an equitable, or balanced, partition;
Golubitsky & Stewart 2006, Bull. Am. Math. Soc. 43:305-364). An automorphism, a permutation P of the
states with P A P' = A and P B = B, is the usual cause, and names what is swapped. Both are found up
to a relative difference of entries, and then told apart from those that hold exactly.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

MOST_SEARCHES = 2000  # refinements spent on permutations; classes left over are named as a whole

Colors = Int[np.ndarray, " state"]
Permutation = Int[np.ndarray, " state"]


@dataclass(frozen=True, eq=False)
class Symmetry:
    """What a linear network has in common with itself.

    Attributes:
        cells: (state,), the class of each state in the coarsest equitable partition that the inputs
            allow.
        orbits: (state,), classes of states that the permutations found carry into each other; each
            lies within a cell.
        permutations: Automorphisms; state i moves to permutation[i].
        is_exact: Whether the cells are equitable exactly, not only within the tolerance.
    """

    cells: Colors
    orbits: Colors
    permutations: tuple[Permutation, ...]
    is_exact: bool


def find_symmetry(
    A: Float[np.ndarray, "state state"], B: Float[np.ndarray, "state input"], tolerance: float
) -> Symmetry:
    """Equitable cells, and the permutations behind them.

    Args:
        A: State matrix, entry (i, j) from j to i.
        B: Input matrix.
        tolerance: Relative difference up to which two entries, or sums of them, count as equal.
    """
    start = np.zeros(len(A), dtype=np.int64)
    for column in B.T:
        start = _split(start, column, tolerance * np.abs(column))
    cells = _refine(start, [A], tolerance)
    if cells.max(initial=-1) + 1 == len(A):
        return Symmetry(cells, cells, (), True)
    orbits, permutations = _Search(A, B, tolerance).run(start)
    is_exact = all(holds_exactly(permutation, A, B) for permutation in permutations)
    if not is_exact or orbits.max() > cells.max():
        is_exact = _is_equitable(A, B, cells)
    return Symmetry(cells, orbits, permutations, is_exact)


def holds_exactly(
    permutation: Permutation,
    A: Float[np.ndarray, "state state"],
    B: Float[np.ndarray, "state input"],
) -> bool:
    """Whether P A P' = A and P B = B bit by bit."""
    moved = A[permutation][:, permutation]
    return np.array_equal(moved, A) and np.array_equal(B[permutation], B)


def cell_basis(cells: Colors) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal bases of what is constant on each cell, and of what sums to zero on each.

    Returns:
        (state, cell) and (state, state - cell).
    """
    n, n_cells = len(cells), int(cells.max(initial=-1)) + 1
    even = np.zeros((n, n_cells))
    even[np.arange(n), cells] = 1.0
    even /= np.sqrt(even.sum(axis=0))
    odd = np.zeros((n, n - n_cells))
    column = 0
    for cell in range(n_cells):
        members = np.flatnonzero(cells == cell)
        for k in range(1, len(members)):  # Helmert: the first k together against the next
            odd[members[:k], column] = 1.0
            odd[members[k], column] = -k
            odd[:, column] /= math.sqrt(k * (k + 1))
            column += 1
    return even, odd


def _split(colors: Colors, values: np.ndarray, slack: np.ndarray) -> Colors:
    """Colors split where values differ by more than their slack, numbered by (color, value)."""
    order = np.lexsort((values, colors))
    color, value, room = colors[order], values[order], slack[order]
    apart = np.diff(value) > np.maximum(room[1:], room[:-1])
    number = np.concatenate([[0], np.cumsum(apart | (np.diff(color) > 0))])
    split = np.empty_like(colors)
    split[order] = number
    return split


def _refine(colors: Colors, matrices: list[np.ndarray], tolerance: float) -> Colors:
    """The coarsest refinement in which equal colors receive equal sums from every color.

    For each matrix its rows are summed over each color. What it does depends on values only, not
    on the order of states, so that two refinements can be compared color by color.
    """
    fresh = np.unique(colors)
    while len(fresh):
        members = (colors[:, None] == fresh).astype(np.float64)
        old = colors
        for matrix in matrices:
            sums, sizes = matrix @ members, np.abs(matrix) @ members
            for k in range(len(fresh)):
                colors = _split(colors, sums[:, k], tolerance * sizes[:, k])
                if colors.max() + 1 == len(colors):
                    return colors
        n_parts = np.zeros(int(old.max()) + 1, dtype=np.int64)
        parents = np.zeros(int(colors.max()) + 1, dtype=np.int64)
        parents[colors] = old
        np.add.at(n_parts, parents, 1)
        fresh = np.flatnonzero(n_parts[parents] > 1)
    return colors


def _is_equitable(A: np.ndarray, B: np.ndarray, cells: Colors) -> bool:
    """Whether sums into each cell agree exactly, as rationals, and so do inputs."""
    n_cells = int(cells.max(initial=-1)) + 1
    groups = [np.flatnonzero(cells == cell) for cell in range(n_cells)]
    for group in groups:
        first, others = group[0], group[1:]
        if len(others) and not (B[others] == B[first]).all():
            return False
        for source in groups if len(others) else ():
            block = np.sort(A[group][:, source], axis=1)
            for row in block[1:][(block[1:] != block[0]).any(axis=1)]:
                # fsum rounds once: it is zero exactly where the two sums are equal
                if math.fsum([*row.tolist(), *(-block[0]).tolist()]) != 0.0:
                    return False
    return True


class _Search:
    """Permutations by individualization: color one state apart, and ask what follows."""

    def __init__(self, A: np.ndarray, B: np.ndarray, tolerance: float):
        self.A, self.B, self.tolerance = A, B, tolerance
        # Squares tell sets of weights apart that have the same sum.
        self.matrices = [A, A.T.copy(), A * np.abs(A)]
        self.left = MOST_SEARCHES

    def run(self, colors: Colors) -> tuple[Colors, tuple[Permutation, ...]]:
        """Orbits, and the permutations that make them."""
        colors = _refine(colors, self.matrices, self.tolerance)
        orbits = np.arange(len(colors))
        found: list[Permutation] = []
        counts = np.bincount(colors)
        for cell in np.argsort(counts, kind="stable"):
            members = np.flatnonzero(colors == cell)
            heads: list[int] = []  # one state of each orbit met in this cell
            for state in members.tolist():
                if any(orbits[head] == orbits[state] for head in heads):
                    continue
                for head in heads:
                    permutation = self._carry(colors, head, state)
                    if permutation is not None:
                        found.append(permutation)
                        orbits = _joined(orbits, permutation)
                        break
                else:
                    heads.append(state)
        _, orbits = np.unique(orbits, return_inverse=True)
        return orbits, tuple(found)

    def _carry(self, colors: Colors, one: int, other: int) -> Permutation | None:
        """An automorphism that moves `one` to `other`, or None."""
        swap = np.arange(len(colors))
        swap[[one, other]] = other, one
        if self._holds(swap):
            return swap
        return self._extend(self._apart(colors, one), self._apart(colors, other))

    def _apart(self, colors: Colors, state: int) -> Colors:
        self.left -= 1
        alone = np.zeros(len(colors))
        alone[state] = 1.0
        return _refine(_split(colors, alone, np.zeros_like(alone)), self.matrices, self.tolerance)

    def _extend(self, left: Colors, right: Colors) -> Permutation | None:
        sizes = np.bincount(left)
        if not np.array_equal(sizes, np.bincount(right)):
            return None
        permutation = _matched(left, right)
        if self._holds(permutation):
            return permutation
        open_cells = np.flatnonzero(sizes > 1)
        if not len(open_cells):
            return None
        cell = open_cells[np.argmin(sizes[open_cells])]
        here = self._apart(left, int(np.flatnonzero(left == cell)[0]))
        for state in np.flatnonzero(right == cell).tolist():
            if self.left <= 0:
                return None
            permutation = self._extend(here, self._apart(right, state))
            if permutation is not None:
                return permutation
        return None

    def _holds(self, permutation: Permutation) -> bool:
        moved = np.flatnonzero(permutation != np.arange(len(permutation)))
        to = permutation[moved]
        pairs = [
            (self.B[to], self.B[moved]),
            (self.A[to][:, permutation], self.A[moved]),
            (self.A[:, to][permutation], self.A[:, moved]),
        ]
        return all(
            (np.abs(a - b) <= self.tolerance * np.maximum(np.abs(a), np.abs(b))).all()
            for a, b in pairs
        )


def _matched(left: Colors, right: Colors) -> Permutation:
    """Members of each color to members of the same color: themselves where they can stay."""
    permutation = np.empty(len(left), dtype=np.int64)
    stays = left == right
    permutation[stays] = np.flatnonzero(stays)
    moves = np.flatnonzero(~stays)
    source = moves[np.argsort(left[moves], kind="stable")]
    target = moves[np.argsort(right[moves], kind="stable")]
    if np.array_equal(left[source], right[target]):
        permutation[source] = target
    else:  # a color has other stayers on either side: match without regard to who could stay
        permutation[np.argsort(left, kind="stable")] = np.argsort(right, kind="stable")
    return permutation


def _joined(orbits: Colors, permutation: Permutation) -> Colors:
    """Orbits with each state and its image together."""
    orbits = orbits.copy()
    for i in np.flatnonzero(permutation != np.arange(len(permutation))).tolist():
        a, b = orbits[i], orbits[permutation[i]]
        if a != b:
            orbits[orbits == max(a, b)] = min(a, b)
    return orbits
