"""Why modes are out of reach, in words and by name."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .kalman import Block, Decomposition, Pair
from .structure import find_dilations, reachable
from .symmetry import Permutation, Symmetry, holds_exactly

SHOWN = 5  # names in a sentence; the record has all
DULL = 1e-6  # part of its largest value elsewhere at which an entry counts as nearly saturated
PARTAKES = 0.01  # share of a left eigenvector from which a state counts as part of a mode
CLOSE = 1e-6  # relative distance of eigenvalues that count as one in words


@dataclass(frozen=True)
class Words:
    """What to say of inputs that move, or of outputs that show (the dual)."""

    ports: str
    done: str
    able: str


MOVED = Words("inputs", "reached", "controllable")
SEEN = Words("outputs", "seen", "observable")


@dataclass(frozen=True)
class Names:
    """Flat names of the states, the region of each, and names of the inputs (or outputs)."""

    states: tuple[str, ...]
    regions: tuple[str, ...]
    ports: tuple[str, ...]


@dataclass(frozen=True)
class Reason:
    """Why some modes are out of reach.

    Attributes:
        kind: "no inputs", "no path", "saturation", "symmetry", "equal input" (no permutation, but
            classes that receive the same), "structural" (fewer drivers than driven),
            "repeated eigenvalue" (more often than there are inputs), "cancellation" (influences
            add up to zero), "weak path" (a gain below rounding: out of reach in practice only). Of
            observability, "no outputs" and "equal output" likewise.
        text: A sentence.
        n_modes: How many modes it puts out of reach.
        regions: The regions concerned (names of states that belong to none): those swapped, silent,
            without a path, driven together, or where the modes live.
        states: The states concerned.
        pairs: Of a symmetry that swaps in pairs, the regions of each.
        is_exact: Whether it holds exactly, not only within the tolerance.
    """

    kind: str
    text: str
    n_modes: int
    regions: tuple[str, ...]
    states: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    is_exact: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain words and numbers, for JSON."""
        return {
            "kind": self.kind,
            "text": self.text,
            "n_modes": self.n_modes,
            "regions": list(self.regions),
            "states": list(self.states),
            "pairs": [list(pair) for pair in self.pairs],
            "is_exact": self.is_exact,
        }


def explain(
    found: Decomposition, pair: Pair, names: Names, words: Words
) -> tuple[tuple[Reason, ...], dict[str, tuple[str, ...]]]:
    """Reasons, and for each kind of block the kind of reason of each of its modes."""
    told = _Told(found, pair, names, words)
    reasons: list[Reason] = []
    kinds: dict[str, tuple[str, ...]] = {}
    for block in reversed(found.blocks):
        own, each = told.of_block(block)
        reasons += own
        kinds[block.kind] = each
    return tuple(reasons), kinds


class _Told:
    """Sentences about the blocks of one decomposition."""

    def __init__(self, found: Decomposition, pair: Pair, names: Names, words: Words):
        self.found, self.pair, self.names, self.words = found, pair, names, words

    def of_block(self, block: Block) -> tuple[list[Reason], tuple[str, ...]]:
        if block.kind == "no path":
            return self._no_path(block)
        if block.kind == "saturation":
            return self._saturation(block)
        if block.kind == "symmetry":
            return self._symmetry(block)
        if block.kind == "numerical":
            return self._numerical(block)
        return self._weakly_reached(block)

    def _reason(self, kind: str, text: str, n_modes: int, states: Sequence[int], **more) -> Reason:
        regions = tuple(dict.fromkeys(self.names.regions[i] for i in states))
        named = tuple(self.names.states[i] for i in states)
        return Reason(kind, text, n_modes, regions, named, **more)

    def _no_path(self, block: Block) -> tuple[list[Reason], tuple[str, ...]]:
        words, states = self.words, np.flatnonzero(block.axes.any(axis=1)).tolist()
        regions = listing(dict.fromkeys(self.names.regions[i] for i in states))
        if not self.names.ports:
            kind, text = f"no {words.ports}", f"there are no {words.ports}"
        elif not self.pair.largest_B.any():
            kind, text = "no path", f"the {words.ports} are connected to nothing"
        elif words is MOVED:
            kind, text = "no path", f"no path leads from the inputs to {regions}"
        else:
            kind, text = "no path", f"no path leads from {regions} to the outputs"
        return [self._reason(kind, text, block.size, states)], (kind,) * block.size

    def _saturation(self, block: Block) -> tuple[list[Reason], tuple[str, ...]]:
        states = np.flatnonzero(block.axes.any(axis=1))
        reason = self._silenced(states, block.size, self.pair.tolerance)
        return [reason], ("saturation",) * block.size

    def _silenced(self, states: np.ndarray, n_modes: int, part: float) -> Reason:
        """States out of reach because entries are at most this part of what they are elsewhere."""
        silent_A, silent_B = self.pair.silent(part)
        outside = ~np.isin(np.arange(len(silent_A)), states)
        silenced = silent_A[states][:, outside].any(axis=1) | silent_B[states].any(axis=1)
        silent, behind = states[silenced].tolist(), states[~silenced].tolist()
        where = listing(dict.fromkeys(self.names.regions[i] for i in silent))
        if self.words is MOVED:
            text = f"{where}: saturated at this operating point, so that no influence passes on"
        else:
            text = f"what leads on from {where} is saturated at this operating point"
        regions = dict.fromkeys(self.names.regions[i] for i in behind)
        regions = [name for name in regions if name not in {self.names.regions[i] for i in silent}]
        if regions:
            text += f"; with it {listing(regions)}"
        return self._reason(
            "saturation", text, n_modes, [*silent, *behind], is_exact=part <= self.pair.tolerance
        )

    def _symmetry(self, block: Block) -> tuple[list[Reason], tuple[str, ...]]:
        inside, symmetry = np.flatnonzero(self.found.inside), self.found.symmetry
        reasons = [self._swapped(inside, group) for group in _independent(symmetry.permutations)]
        alike = "equal input" if self.words is MOVED else "equal output"
        extra = int(symmetry.orbits.max()) - int(symmetry.cells.max())
        if extra:
            reasons.append(self._alike(inside, symmetry, extra, alike))
        # A mode of permutations sums to zero over each orbit, one of mere equality over each cell.
        orbit = np.zeros((int(symmetry.orbits.max()) + 1, len(inside)))
        orbit[symmetry.orbits, np.arange(len(inside))] = 1.0
        sums = np.linalg.norm(orbit @ block.left[inside], axis=0)
        sizes = np.linalg.norm(block.left[inside], axis=0)
        kinds = np.where((sums <= CLOSE * sizes) | (extra == 0), "symmetry", alike)
        return reasons, tuple(kinds.tolist())

    def _swapped(self, inside: np.ndarray, group: list[Permutation]) -> Reason:
        pair = self.pair
        A, B = pair.A[inside][:, inside], pair.B[inside]
        moved = np.unique(np.concatenate([np.flatnonzero(p != np.arange(len(p))) for p in group]))
        states = inside[moved].tolist()
        orbits = np.unique(self.found.symmetry.orbits[moved])
        pairs: tuple[tuple[str, str], ...] = ()
        if len(group) == 1 and (group[0][group[0]] == np.arange(len(group[0]))).all():
            p, regions = group[0], self.names.regions
            swapped = [(regions[inside[i]], regions[inside[p[i]]]) for i in moved if i < p[i]]
            pairs = tuple(dict.fromkeys(two for two in swapped if two[0] != two[1]))
        n_modes = len(moved) - len(orbits)
        regions = dict.fromkeys(self.names.regions[i] for i in states)
        if pairs:
            who = f"swapping {listing([f'{a} and {b}' for a, b in pairs])}"
        elif len(regions) == 1:
            who = f"permuting the states of {listing(regions)}"
        else:
            who = f"permuting {listing(regions)}"
        kept = f"leaves the network and its {self.words.ports} as they are"
        text = f"{who} {kept}: what tells them apart cannot be {self.words.done}"
        is_exact = all(holds_exactly(p, A, B) for p in group)
        return self._reason("symmetry", text, n_modes, states, pairs=pairs, is_exact=is_exact)

    def _alike(self, inside: np.ndarray, symmetry: Symmetry, extra: int, kind: str) -> Reason:
        first = {int(c): int(o) for c, o in zip(symmetry.cells, symmetry.orbits, strict=True)}
        mixed = [symmetry.orbits[i] != first[int(c)] for i, c in enumerate(symmetry.cells)]
        cells = np.unique(symmetry.cells[np.array(mixed)])
        states = inside[np.isin(symmetry.cells, cells)].tolist()
        regions = listing(dict.fromkeys(self.names.regions[i] for i in states))
        verb = "receive" if self.words is MOVED else "send"
        text = f"{regions} {verb} the same in sum, though no permutation of them is a symmetry"
        return self._reason(kind, text, extra, states, is_exact=symmetry.is_exact)

    def _numerical(self, block: Block) -> tuple[list[Reason], tuple[str, ...]]:
        kinds = np.array(block.causes, dtype=object)
        kinds[self._are_weak(block) & (kinds == "cancellation")] = "weak path"
        kinds[self._are_dull(block) & (kinds == "weak path")] = "saturation"
        dilations = self._dilations()
        still = sum(len(d) - k for d, k in dilations)
        for k in np.flatnonzero(np.abs(block.eigenvalues) <= block.noise):
            share = np.abs(block.left[:, k]) ** 2
            if still and any(share[d].sum() > 1 - PARTAKES for d, _ in dilations):
                kinds[k], still = "structural", still - 1
        reasons = [
            self._of_modes(kind, block, np.flatnonzero(kinds == kind), dilations)
            for kind in dict.fromkeys(kinds)
        ]
        return reasons, tuple(kinds)

    def _weakly_reached(self, block: Block) -> tuple[list[Reason], tuple[str, ...]]:
        kinds = np.array(block.causes, dtype=object)
        kinds[self._are_dull(block) & (kinds == "weak path")] = "saturation"
        reasons = [
            self._of_modes(kind, block, np.flatnonzero(kinds == kind), [])
            for kind in dict.fromkeys(kinds)
            if kind
        ]
        return reasons, tuple(kinds)

    def _are_weak(self, block: Block) -> np.ndarray:
        """Modes of states that no path of entries above rounding reaches."""
        pair = self.pair
        size, gain = np.abs(pair.A).max(initial=0.0), np.abs(pair.B).max(initial=0.0)
        return self._lie_beyond(
            block, np.abs(pair.A) > pair.tolerance * size, np.abs(pair.B) > pair.tolerance * gain
        )

    def _are_dull(self, block: Block) -> np.ndarray:
        """Modes of states that no path reaches but those of nearly saturated entries."""
        silent_A, silent_B = self.pair.silent(DULL)
        return self._lie_beyond(
            block, (self.pair.A != 0) & ~silent_A, (self.pair.B != 0) & ~silent_B
        )

    def _lie_beyond(self, block: Block, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """Modes of the states that these connections do not reach."""
        reached = reachable(A, B)
        return (np.abs(block.left[reached]) ** 2).sum(axis=0) < CLOSE**2

    def _dilations(self) -> list[tuple[list[int], int]]:
        """Driven states, and how many drive them, among classes of equal states."""
        inside, cells = np.flatnonzero(self.found.inside), self.found.symmetry.cells
        members = np.zeros((int(cells.max(initial=-1)) + 1, len(inside)), dtype=int)
        members[cells, np.arange(len(inside))] = 1
        A, B = (matrix != 0 for matrix in self.pair.alive())
        A = members @ A[inside][:, inside].astype(int) @ members.T > 0
        B = members @ B[inside].astype(int) > 0
        found = []
        for one in find_dilations(A, B):
            driven = inside[np.isin(cells, one.states)].tolist()
            found.append((driven, len(driven) - len(one.states) + len(one.sources + one.inputs)))
        return found

    def _of_modes(
        self, kind: str, block: Block, modes: np.ndarray, dilations: list[tuple[list[int], int]]
    ) -> Reason:
        words = self.words
        if kind == "saturation":
            states = np.flatnonzero((np.abs(block.left[:, modes]) ** 2).max(axis=1) >= PARTAKES)
            return self._silenced(states, len(modes), DULL)
        share = (np.abs(block.left[:, modes]) ** 2).max(axis=1)
        states = np.flatnonzero(share >= PARTAKES).tolist()
        if kind == "structural":
            states = sorted({i for d, _ in dilations for i in d})
        regions = listing(dict.fromkeys(self.names.regions[i] for i in states))
        text = {
            "structural": f"too few others drive {regions}, whatever the weights",
            "repeated eigenvalue": f"an eigenvalue has more independent modes, in {regions}, than "
            f"there are {words.ports} ({len(self.names.ports)})",
            "weak path": f"a path leads to {regions}, but its gain is below rounding",
            "cancellation": f"influences of the inputs on modes of {regions} add up to zero",
        }
        if words is SEEN:
            text["structural"] = f"{regions} show in too few others, whatever the weights"
            text["weak path"] = f"a path leads from {regions}, but its gain is below rounding"
            text["cancellation"] = f"modes of {regions} add up to zero in the outputs"
        return self._reason(kind, text[kind], len(modes), states, is_exact=kind == "structural")


def listing(names: Iterable[str]) -> str:
    """Up to SHOWN names, and how many more."""
    names = list(names)
    if len(names) > SHOWN:
        return f"{', '.join(names[:SHOWN])} and {len(names) - SHOWN} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _independent(permutations: Sequence[Permutation]) -> list[list[Permutation]]:
    """Permutations grouped so that no state is moved by two groups."""
    groups: list[tuple[set[int], list[Permutation]]] = []
    for permutation in permutations:
        moved = set(np.flatnonzero(permutation != np.arange(len(permutation))).tolist())
        touching = [group for group in groups if group[0] & moved]
        for group in touching:
            groups.remove(group)
        states = moved.union(*(group[0] for group in touching))
        groups.append((states, [p for group in touching for p in group[1]] + [permutation]))
    return [members for _, members in groups]
