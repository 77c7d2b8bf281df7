"""The Kalman decomposition of a linear system, block by block, each block with its cause.

Axes are taken away while something unreachable can be named, what is exact first: states that no
path reaches, states that are silent at this operating point, what a symmetry hides. The rest is
judged in floating point (`modes`), the exact dimension beside it. In these axes

    A = [[A_reached, *, *], [0, A_1, *], [0, 0, A_2]],   B = [B_reached, 0, 0],

each later block moves by itself and by those after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Complex, Float
from scipy.linalg import LinAlgError, solve_sylvester
from scipy.optimize import linear_sum_assignment

from .exact_rank import MOST_STATES, exact_dimension, has_few_bits
from .modes import EPSILON, Judgement, judge_modes, spectrum
from .structure import reachable
from .symmetry import Symmetry, cell_basis, find_symmetry

WIDER = (10.0, 100.0, 1e3, 1e4)  # multiples of the tolerance tried where more must be unreached
MOST_TRIED = 150  # states up to which they are tried
NEAR = 1e-9  # distance up to which directions found so are taken
STEEP = 1e6  # continuation of an eigenvector beyond which its eigenvalue is shared

Matrix = Float[np.ndarray, "state state"]
Inputs = Float[np.ndarray, "state input"]


@dataclass(frozen=True, eq=False)
class Pair:
    """A and B, and what is known of them beside their entries.

    Attributes:
        A: State matrix.
        B: Input matrix.
        state_units: Unit of each state; those of one unit share a scale.
        input_units: Unit of each input.
        is_map: Whether A is a map.
        largest_A, largest_B: Absolute values of the entries, or what they are elsewhere if larger.
        tolerance: Relative accuracy of the entries.
    """

    A: Matrix
    B: Inputs
    state_units: tuple[str, ...]
    input_units: tuple[str, ...]
    is_map: bool
    largest_A: Float[np.ndarray, "state state"]
    largest_B: Float[np.ndarray, "state input"]
    tolerance: float

    def silent(
        self, part: float
    ) -> tuple[Bool[np.ndarray, "state state"], Bool[np.ndarray, "state input"]]:
        """Entries of A and B that are at most this part of what they are elsewhere."""
        pairs = (self.A, self.largest_A), (self.B, self.largest_B)
        A, B = ((np.abs(a) <= part * b) & (b > 0) for a, b in pairs)
        return A, B

    def alive(self) -> tuple[Matrix, Inputs]:
        """A and B without the entries that are as good as zero here and not elsewhere."""
        A, B = self.silent(self.tolerance)
        nothing = np.abs(self.A) <= self.tolerance * np.abs(self.A).max(initial=0.0)
        return np.where(A & nothing, 0.0, self.A), np.where(B, 0.0, self.B)


@dataclass(frozen=True, eq=False)
class Block:
    """Axes that move by themselves and by later blocks, and their modes.

    Attributes:
        kind: "reached", "numerical", "symmetry", "saturation" or "no path".
        axes: (state, axis), orthonormal.
        eigenvalues: (axis,).
        noise: (axis,), how far the tolerance moves each.
        left: (state, axis), left eigenvectors of A, of length 1.
        is_reached: (axis,), True, False or None where it is undecided.
        causes: (axis,), of what is reached and of the numerical block as judged; else "".
    """

    kind: str
    axes: Float[np.ndarray, "state axis"]
    eigenvalues: Complex[np.ndarray, " axis"]
    noise: Float[np.ndarray, " axis"]
    left: Complex[np.ndarray, "state axis"]
    is_reached: tuple[bool | None, ...]
    causes: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many axes it has."""
        return self.axes.shape[1]

    @property
    def is_plain(self) -> bool:
        """Whether all of it is reached, and not only in theory."""
        return all(self.is_reached) and not any(self.causes)


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Blocks of a linear system, what is reached first.

    Attributes:
        blocks: Those that have axes.
        inside: (state,), which states a path reaches.
        symmetry: Of the states inside.
        dimension: Of what is reached; None where it is undecided.
        exact: Dimension for the matrices exactly as stored; None beyond MOST_STATES states.
        is_proved: Whether that one is proved, not only as good as certain.
        distance: Relative change of A and B that makes the unreached directions exactly so.
    """

    blocks: tuple[Block, ...]
    inside: Bool[np.ndarray, " state"]
    symmetry: Symmetry
    dimension: int | None
    exact: int | None
    is_proved: bool
    distance: float


def decompose(pair: Pair) -> Decomposition:
    """What the inputs reach and what not, with the cause of each block."""
    A, B = pair.alive()
    is_whole = np.array_equal(A, pair.A) and np.array_equal(B, pair.B)
    inside = reachable(A != 0, B != 0)
    never = ~reachable(pair.largest_A > 0, pair.largest_B > 0)
    inner = replace(
        pair,
        A=A[inside][:, inside],
        B=B[inside],
        largest_A=pair.largest_A[inside][:, inside],
        largest_B=pair.largest_B[inside],
        state_units=tuple(u for u, keep in zip(pair.state_units, inside, strict=True) if keep),
    )
    tolerance = max(pair.tolerance, 4 * len(A) * EPSILON)
    symmetry = find_symmetry(inner.A, inner.B, tolerance)
    even, odd = cell_basis(symmetry.cells)
    most = even.shape[1] if is_whole and symmetry.is_exact else None
    exact, is_proved = _exactly(pair, most)
    reached, hidden, judgement = _in_floats(inner, even, exact if is_whole else None)
    into = np.eye(len(A))[:, inside]
    axes = {
        "reached": into @ reached,
        "numerical": into @ hidden,
        "symmetry": into @ odd,
        "saturation": np.eye(len(A))[:, ~inside & ~never],
        "no path": np.eye(len(A))[:, never],
    }
    blocks = _with_modes(A, axes, judgement, tolerance)
    dimension = _dimension(blocks, exact, [pair.A, pair.B])
    if dimension is not None:
        blocks = _settled(blocks, dimension)
    named = [block.axes for block in blocks if block.kind not in ("reached", "numerical")]
    together = np.concatenate([np.zeros((len(A), 0)), *named], axis=1)
    distance = max(judgement.distance, _defect(pair, together))
    return Decomposition(blocks, inside, symmetry, dimension, exact, is_proved, distance)


def _defect(pair: Pair, axes: np.ndarray) -> float:
    """How far axes are from being left-invariant and unmoved, relative to A and B."""
    rows = axes.T @ pair.A
    parts = [(rows - (rows @ axes) @ axes.T, pair.A), (axes.T @ pair.B, pair.B)]
    return float(max(np.linalg.norm(a) / (np.linalg.norm(b) or 1.0) for a, b in parts))


def _exactly(pair: Pair, most: int | None) -> tuple[int | None, bool]:
    """The dimension of the matrices as stored, and whether it is proved."""
    inside = reachable(pair.A != 0, pair.B != 0)
    if inside.sum() > MOST_STATES:
        return None, False
    most = int(inside.sum()) if most is None else most
    found = exact_dimension(pair.A[inside][:, inside], pair.B[inside], most)
    return found, found == most


def _in_floats(
    pair: Pair, even: np.ndarray, exact: int | None
) -> tuple[np.ndarray, np.ndarray, Judgement]:
    """Axes reached and not, of what is the same on each cell."""
    A, B = even.T @ pair.A @ even, even.T @ pair.B
    if not len(A):
        nothing = np.zeros((0, 0))
        return even, even, Judgement(np.zeros(0, complex), (), (), nothing, 0.0)
    units = [pair.state_units[int(np.argmax(column > 0))] for column in even.T]
    scale = unit_scales(A, units)
    A, B = A * scale / scale[:, None], _unit_inputs(B / scale[:, None], pair.input_units)
    judgement = judge_modes(A, B, pair.tolerance, is_map=pair.is_map, exact=exact)
    if exact is not None and len(A) - judgement.unreached.shape[1] > exact:
        judgement = _wider(A, B, pair, exact) or judgement
    count = judgement.unreached.shape[1]
    turned, _ = np.linalg.qr(judgement.unreached / scale[:, None], mode="complete")
    return even @ turned[:, count:], even @ turned[:, :count], judgement


def _wider(A: Matrix, B: Inputs, pair: Pair, exact: int) -> Judgement | None:
    """A judgement with a larger tolerance that finds what exact arithmetic says is there."""
    for factor in WIDER if len(A) <= MOST_TRIED else ():
        found = judge_modes(A, B, factor * pair.tolerance, is_map=pair.is_map, exact=exact)
        if len(A) - found.unreached.shape[1] == exact and found.distance <= NEAR:
            return found
    return None


def _dimension(
    blocks: Sequence[Block], exact: int | None, matrices: list[np.ndarray]
) -> int | None:
    """What is reached, by floats and exact arithmetic together; None where they leave doubt.

    Exact arithmetic answers for the entries as stored. Where floats are in doubt, that settles a
    deficiency, which rounding does not make; full rank it settles where the entries have so few
    bits that they were written down rather than computed.
    """
    statuses = [s for block in blocks for s in block.is_reached]
    most = len(statuses) - statuses.count(False)
    if exact is not None and exact < most:
        return exact
    if None not in statuses:
        return most
    is_deficient = exact is not None and exact == most < len(statuses)
    is_written = exact is not None and exact >= most and has_few_bits(*matrices)
    return most if is_deficient or is_written else None


def _settled(blocks: tuple[Block, ...], dimension: int) -> tuple[Block, ...]:
    """Modes in doubt are reached where the dimension leaves no other possibility."""
    settled = []
    for block in blocks:
        if block.kind == "reached" and block.size == dimension:
            block = replace(block, is_reached=(True,) * block.size)
        elif block.kind == "reached":
            block = replace(block, is_reached=(None,) * block.size)
        settled.append(block)
    return tuple(settled)


def _with_modes(
    A: Matrix, axes: dict[str, np.ndarray], judgement: Judgement, tolerance: float
) -> tuple[Block, ...]:
    blocks = []
    size = float(np.linalg.norm(A))
    kinds = [kind for kind, columns in axes.items() if columns.shape[1]]
    for i, kind in enumerate(kinds):
        own = axes[kind]
        later = [axes[k] for k in kinds[i + 1 :]]
        rest = np.concatenate([np.zeros((len(A), 0)), *later], axis=1)
        inner = own.T @ A @ own
        if np.array_equal(A, A.T):
            inner = (inner + inner.T) / 2
        eigenvalues, vectors, noise = spectrum(inner, tolerance, size)
        left = _continued(A, own, rest, eigenvalues, vectors)
        wanted = None if kind == "reached" else False
        statuses, causes = (wanted,) * len(inner), ("",) * len(inner)
        if kind in ("reached", "numerical"):
            statuses, causes = _as_judged(judgement, eigenvalues, kind == "numerical")
        blocks.append(Block(kind, own, eigenvalues, noise, left, statuses, causes))
    return tuple(blocks)


def _as_judged(
    judgement: Judgement, eigenvalues: np.ndarray, unreached: bool
) -> tuple[tuple[bool | None, ...], tuple[str, ...]]:
    """Status and cause of each eigenvalue of a block, from the nearest one judged."""
    keep = [k for k, s in enumerate(judgement.is_reached) if (s is False) == unreached]
    rows, columns = linear_sum_assignment(
        np.abs(eigenvalues[:, None] - judgement.eigenvalues[keep])
    )
    match = {int(i): keep[int(j)] for i, j in zip(rows, columns, strict=True)}
    order = [match[i] for i in range(len(eigenvalues))]
    statuses = tuple(judgement.is_reached[k] for k in order)
    return statuses, tuple(judgement.causes[k] for k in order)


def _continued(
    A: Matrix, own: np.ndarray, rest: np.ndarray, eigenvalues: np.ndarray, vectors: np.ndarray
) -> Complex[np.ndarray, "state axis"]:
    """Left eigenvectors of a block as ones of A: z' (A_rest - lambda) = -y' A_block,rest.

    Where a later block has the same eigenvalue there may be none; the block's part is then kept.
    """
    left = own @ vectors
    coupling = vectors.conj().T @ (own.T @ A @ rest)
    if np.linalg.norm(coupling) <= len(A) * EPSILON * np.linalg.norm(A):
        return left
    try:
        further = solve_sylvester(-np.diag(eigenvalues), rest.T @ A @ rest + 0j, -coupling)
    except LinAlgError:
        return left
    further[~(np.abs(further).max(axis=1) <= STEEP)] = 0.0
    left = left + rest @ further.conj().T
    return left / np.linalg.norm(left, axis=0)


def unit_scales(A: Matrix, units: Sequence[str]) -> Float[np.ndarray, " state"]:
    """A power of two for each state, one for all of a unit, that balances blocks of units.

    Osborne's iteration on the sizes of the blocks; a unit without coupling to others keeps 1.
    """
    names = sorted(set(units))
    scale = np.ones(len(A))
    if len(names) == 1:
        return scale
    members = [np.array([u == name for u in units]) for name in names]
    for _ in range(50):
        changed = False
        for own in members:
            scaled = A * scale / scale[:, None]
            row = np.linalg.norm(scaled[own][:, ~own])
            column = np.linalg.norm(scaled[~own][:, own])
            if row == 0 or column == 0:
                continue
            step = 2.0 ** np.round(np.log2(row / column) / 2)
            changed |= step != 1.0
            scale[own] *= step
        if not changed:
            break
    return scale


def _unit_inputs(B: Inputs, units: Sequence[str]) -> Inputs:
    """B with the inputs of each unit scaled together to size 1."""
    scaled = B.copy()
    for unit in set(units):
        own = np.array([u == unit for u in units])
        size = np.linalg.norm(B[:, own], 2)
        if size > 0:
            scaled[:, own] /= size
    return scaled
