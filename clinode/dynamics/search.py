"""The search for all roots of a field in a box, for every member of a batch at once.

Corners first where structure allows, then random starts, then deflation and the segments between
known roots, until a round brings nothing new. `newton` has the methods, `equilibria` the results.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from .box import SearchBox
from .cooperation import Structure, find_structure, relax
from .field import MAX_ELEMENTS, Field
from .newton import Rows, damped_newton, distinct, polish, pseudo_transient

MANY_STATES = 20  # beyond it random starts come in waves, and deflation does not pay
N_ROUNDS = 6
N_DEFLATED = 32  # starts a round
NEAREST = 1e-4  # of the box: how near to a known root others are looked for
ROOMS = (0.01, 1.0)  # parts of the room around the box through which its flow may be kept in
MOST_OUTSIDE = 8  # roots outside of the box that are kept
SO_MANY = 50  # roots after which no more are looked for between them: they may be a continuum


class Search:
    """One search.

    Args:
        field: Without parameters; flattened where its constants have batch axes.
        box: Where to search.
        n_starts: Random starts for each member, at most; 0 where the corners are enough.
        fast: Indices of states declared fast, or None.

    Attributes:
        roots: One array (root, state) a member, those in the box.
        outside: Likewise, those met on the way outside of it, the `MOST_OUTSIDE` nearest.
        expected_index: For each member the sum of sign det(-J) over all roots, None if unknown.
        n_tried: Starts for each member.
    """

    def __init__(self, field: Field, box: SearchBox, n_starts: int, fast: np.ndarray | None):
        self.field, self.box, self.n_starts = field, box, n_starts
        self.n_states = field.n_states
        self.is_large = self.n_states > MANY_STATES
        self.members = np.arange(math.prod(field.batch_shape))
        self.roots = [np.empty((0, self.n_states)) for _ in self.members]
        self.outside = [np.empty((0, self.n_states)) for _ in self.members]
        self.n_tried = 0
        self._everything = np.arange(self.n_states)
        self._signs: dict[tuple[int, bytes], int] = {}
        self._sobol = torch.quasirandom.SobolEngine(self.n_states, scramble=True, seed=0)
        self._random = np.random.default_rng(0)
        self.expected_index = self._expected_index()
        self.structure = self._find_structure(fast)

    def run(self) -> None:
        """Fill `roots`."""
        if self.structure is not None:
            self._from_corners(self.structure)
        if self.is_large and self.n_starts:
            self._at_other_paces()
        left, wave, members = self.n_starts, 16 if self.is_large else self.n_starts, self.members
        if self.is_large:
            left, members = left - 3, self.members[~self._is_consistent()]
        while left > 0 and len(members):
            before = self._counts()
            wave = min(wave, left)
            self._from_starts(members, wave)
            self._look_between(members)
            left, wave = left - wave, 2 * wave
            grows = (self._counts() > before) | (before == 0)
            members = self.members[grows & ~self._is_consistent()][: None if self.is_large else 0]

    def index_sum(self, member: int) -> int:
        """Sum of sign det(-J) over the roots of a member, those in the region where it matters."""
        return self._index_sums([member])[0]

    def _index_sums(self, members: Sequence[int]) -> list[int]:
        """For each of these members; one Jacobian and determinant a root, once."""
        fresh = [
            (m, x) for m in members for x in self.roots[m] if (m, x.tobytes()) not in self._signs
        ]
        if fresh:
            owner = np.array([m for m, _ in fresh])
            _, jacobian = self._rows(np.stack([x for _, x in fresh]), owner).jacobian()
            signs, _ = torch.linalg.slogdet(torch.as_tensor(-jacobian))
            keys = [(m, x.tobytes()) for m, x in fresh]
            self._signs |= dict(zip(keys, signs.int().tolist(), strict=True))
        return [
            sum(self._signs[m, x.tobytes()] for x in self.roots[m] if self._counts_in_sum(m, x))
            for m in members
        ]

    def _counts_in_sum(self, member: int, x: np.ndarray) -> bool:
        if self.expected_index[member] is None:
            return True
        inside = (x >= self.low - 1e-9) & (x <= self.high + 1e-9)
        inside[list(self.box.angles)] = True
        return bool(inside.all())

    def _from_corners(self, structure: Structure) -> None:
        low, high = self.box.low, self.box.high
        corners = np.repeat(np.stack([low, high]), len(self.members), axis=0)
        rows = self._rows(corners, np.tile(self.members, 2))
        for n_steps in (600, 2400):
            rows = rows.at(relax(rows, structure, low, high, n_steps=n_steps))
            rows = rows.take(~self._add(rows.x, rows.owner))
            if not len(rows):
                break
        else:
            x, arrived = damped_newton(rows, max_iterations=20)
            self._add(x[arrived], rows.owner[arrived])
        self.n_tried += 2

    def _at_other_paces(self) -> None:
        """From the middle and the corners with each block of states at rest in turn."""
        low, high = self.box.low, self.box.high
        blocks = self._blocks()
        for start in ((low + high) / 2, low, high)[: self.n_starts]:
            for block in blocks if len(blocks) > 1 else [self._everything[:0]]:
                members = self.members[self._counts() == 0]
                if not len(members):
                    return
                pace = np.ones(self.n_states)
                pace[block] = 0.0
                rows = self._rows(np.tile(start, (len(members), 1)), members)
                x, arrived = pseudo_transient(rows, pace, max_iterations=40)
                self._add(x[arrived], members[arrived])
            self.n_tried += 1

    def _from_starts(self, members: np.ndarray, n_starts: int) -> None:
        starts = np.repeat(self._draw(n_starts), len(members), axis=0)
        rows = self._rows(starts, np.tile(members, n_starts))
        x, arrived = damped_newton(rows)
        for pace in (1.0,) if self.is_large else (1.0, -1.0):
            stuck = np.flatnonzero(~arrived)
            if len(stuck):
                x[stuck], arrived[stuck] = pseudo_transient(rows.take(stuck), pace)
        self._add(x[arrived], rows.owner[arrived])
        self.n_tried += n_starts

    def _look_between(self, members: np.ndarray) -> None:
        """Deflate what is known and start between known roots, until a round brings nothing."""
        for _ in range(N_ROUNDS):
            before = self._counts()
            starts = [self._between(member) for member in members.tolist()]
            if not self.is_large:
                fresh = self._draw(min(self.n_starts, N_DEFLATED))
                around = [self._around(member) for member in members.tolist()]
                parts = zip(starts, around, strict=True)
                starts = [np.concatenate([points, near, fresh]) for points, near in parts]
            owner = np.repeat(members, [len(points) for points in starts])
            rows = self._rows(np.concatenate(starts), owner)
            x, arrived = damped_newton(rows)
            self._add(x[arrived], owner[arrived])
            if not self.is_large:
                x, arrived = damped_newton(rows, known=self._known()[owner])
                self._add(x[arrived], owner[arrived])
            counts = self._counts()
            goes_on = counts > before
            if not self.is_large:
                goes_on |= ~self._is_consistent() & (counts > 0)
            members = members[(goes_on & (counts < SO_MANY))[members]]
            if not len(members):
                return

    def _between(self, member: int) -> np.ndarray:
        """Points on the segments between pairs of known roots."""
        known = self.roots[member][:12]
        pairs = [(a, b) for i, a in enumerate(known) for b in known[i + 1 :]]
        weights = (0.5, 0.25, 0.75) if len(pairs) < 10 else (0.5,)
        points = [a + w * (b - a) for a, b in pairs for w in weights]
        return np.array(points).reshape(-1, self.n_states)

    def _around(self, member: int) -> np.ndarray:
        """Points around known roots, at distances of every size: others may crowd in a corner."""
        known = self.roots[member]
        n = min(self.n_starts, N_DEFLATED + 2 * len(known)) if len(known) else 0
        draw = self._sobol.draw(n).double().numpy()
        size = NEAREST ** self._random.random((n, 1))
        root = known[self._random.integers(max(len(known), 1), size=n)]
        return root + size * (2 * draw - 1) * self.box.scale

    def _known(self) -> np.ndarray:
        """Roots as (member, root, state), NaN where a member has fewer."""
        known = np.full((len(self.members), max(1, *self._counts(), 0), self.n_states), np.nan)
        for member, found in enumerate(self.roots):
            known[member, : len(found)] = found
        return known

    def _add(self, x: np.ndarray, owner: np.ndarray) -> np.ndarray:
        """Polish candidates and keep new roots in the box; which of them are roots."""
        x, is_root = polish(self._rows(x, owner))
        x = self.box.wrap(x)
        inside = is_root & self.box.holds(x)
        for kept, where in ((self.roots, inside), (self.outside, is_root & ~inside)):
            for member in np.unique(owner[where]):
                both = np.concatenate([kept[member], x[where & (owner == member)]])
                kept[member] = both[distinct(both, self.box.scale)]
        for member, found in enumerate(self.outside):
            nearest = np.argsort(self.box.distance(found), kind="stable")
            self.outside[member] = found[nearest[:MOST_OUTSIDE]]
        return is_root

    def _rows(self, x: np.ndarray, owner: np.ndarray) -> Rows:
        return Rows(self.field, x, owner, self.box.scale)

    def _draw(self, n: int) -> np.ndarray:
        return self.box.place(self._sobol.draw(n).double().numpy())

    def _counts(self) -> np.ndarray:
        return np.array([len(found) for found in self.roots])

    def _is_consistent(self) -> np.ndarray:
        sums = self._index_sums(self.members.tolist())
        fits = [e is None or e == s for e, s in zip(self.expected_index, sums, strict=True)]
        return np.array(fits) & (self._counts() > 0)

    def _expected_index(self) -> list[int | None]:
        """1 where the flow points into the region at every place tried on its faces.

        The region is the box, wider by part of the room that is kept around it for states through
        whose faces the flow leaves. With an angle the sum is 0, the Euler characteristic of a
        cylinder.
        """
        box = self.box
        self.low, self.high = box.low.copy(), box.high.copy()
        walls = np.array([i not in box.angles and box.known[i] for i in range(self.n_states)])
        if not (walls | np.isin(np.arange(self.n_states), box.angles)).all():
            return [None for _ in self.members]
        entering = self._enters(walls)
        for part in ROOMS:
            leaking = ~entering.all(axis=0)
            if not leaking.any():
                break
            for side, kept in ((self.low, box.low_kept), (self.high, box.high_kept)):
                side[leaking] += part * (kept - side)[leaking]
            entering = self._enters(walls)
        return [int(not box.angles) if inward else None for inward in np.all(entering, axis=1)]

    def _enters(self, walls: np.ndarray) -> np.ndarray:
        """Whether the flow enters through both faces of each state, (member, state)."""
        every, n_each = self.members, 1 if self.is_large else 16
        draw = torch.quasirandom.SobolEngine(self.n_states, scramble=True, seed=1)
        enters = np.ones((len(every), self.n_states), dtype=bool)
        for i in np.flatnonzero(walls):
            for side, sign in ((self.low, 1.0), (self.high, -1.0)):
                places = self.low + (self.high - self.low) * draw.draw(n_each).double().numpy()
                places[:, i] = side[i]
                rows = self._rows(np.repeat(places, len(every), axis=0), np.tile(every, n_each))
                entering = sign * rows.value()[:, i] > 0
                enters[:, i] &= entering.reshape(n_each, -1).all(axis=0)
        return enters

    def _find_structure(self, fast: np.ndarray | None) -> Structure | None:
        if not self.box.known.all() or self.box.angles:
            return None
        everything, blocks = self._everything, self._blocks()
        if fast is not None:
            candidates = [fast]
        else:
            rest = [np.setdiff1d(everything, block) for block in blocks]
            candidates = [everything[:0], *blocks, *(rest if len(blocks) > 2 else [])]
        if fast is None and not self.is_large:
            return None  # random starts cost less there
        n_members, at_once = len(self.members), MAX_ELEMENTS // self.n_states**2
        n_samples = max(4 if n_members < 16 else 1, min(64 // n_members, at_once))
        places = np.repeat(self._draw(n_samples), len(self.members), axis=0)
        _, jacobian = self._rows(places, np.tile(self.members, n_samples)).jacobian()
        unscaled = jacobian * self.box.scale[:, None] / self.box.scale
        return find_structure(unscaled, candidates)

    def _blocks(self) -> list[np.ndarray]:
        """Indices of the states of each declared quantity."""
        ends = np.cumsum([quantity.size for quantity in self.field.system.states])
        return np.split(self._everything, ends[:-1])
