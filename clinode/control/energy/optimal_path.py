"""Optimal transfers of any linear system by doubling, stable over any horizon.

Cost: integral of (z - r)'S(z - r) + rho |v|^2, states z' = A z + B v, costate q, v = -B'q / rho.
A stretch of time maps (z at its start, q at its end) to (z at its end, q at its start): in these
variables nothing grows, unlike exp of the Hamiltonian matrix, whose large and small parts lose each
other. Two stretches join by one solve with 1 + G H, both never negative (the structure-preserving
doubling of Anderson 1978, Int. J. Control 28:295-306); over a long horizon H and G settle at the
solutions of the two Riccati equations, so stable and antistable parts are apart by themselves.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import scipy.linalg
import torch

from clinode.errors import SolverError
from clinode.system import Signal

from .square_root import gauss_legendre
from .transfers import Array

SHORT = 0.5  # |Hamiltonian| h of a leaf
NODES = 6  # of quadrature on a leaf: error below 1e-15
MOST_LEAVES = 2**13


@dataclass(frozen=True, eq=False)
class Cost:
    """The matrices of the problem: A, B, S and rho."""

    A: Array
    B: Array
    S: Array
    rho: float
    is_map: bool = False


@dataclass(frozen=True, eq=False)
class Stretch:
    """z(end) = F z(start) - G q(end) + a, q(start) = H z(start) + F' q(end) + b."""

    F: Array
    G: Array
    H: Array


@dataclass(frozen=True, eq=False)
class Leaf:
    """A short stretch, and what happens inside.

    Attributes:
        stretch: Its map.
        duration: h; 1 of a map.
        hamiltonian: Of (z, q).
        flows: (node, 2 state, 2 state), exp(M t) at the nodes.
        forced: (node + 1, 2 state, 2 state), what a reference r + s t adds at the nodes and the
            end, for r and for s; empty where there is none.
    """

    stretch: Stretch
    duration: float
    hamiltonian: Array
    flows: Array
    forced: Array


@dataclass(frozen=True, eq=False)
class SweptPath:
    """Optimal paths of any number of pairs, at the ends of leaves.

    Attributes:
        cost: The problem.
        leaves: In order of time.
        times: (leaf + 1,).
        states: (leaf + 1, state, pair), deviations.
        costates: Likewise.
        references: (leaf, 2 state, pair), value and slope of the reference on each leaf; None where
            it is zero.
    """

    cost: Cost
    leaves: list[Leaf]
    times: Array
    states: Array
    costates: Array
    references: Array | None

    def integrals(self) -> "Integrals":
        """The parts of the cost."""
        return _integrals_of_map(self) if self.cost.is_map else _integrals(self)

    def at(self, times: Array) -> tuple[Array, Array]:
        """Deviations of states and inputs, (pair, time, state) and (pair, time, input)."""
        n = len(self.cost.A)
        back = -self.cost.B.T / self.cost.rho
        if self.cost.is_map:  # no input acts after the last step
            steps = np.rint(times).astype(int)
            last = (steps == len(self.leaves))[:, None, None]
            following = np.where(last, 0.0, self.costates[np.minimum(steps + 1, len(self.leaves))])
            return self.states[steps].transpose(2, 0, 1), (back @ following).transpose(2, 0, 1)
        points = np.stack([self._at(t) for t in np.asarray(times, dtype=float)])
        states, inputs = points[:, :n], back @ points[:, n:]
        return states.transpose(2, 0, 1), inputs.transpose(2, 0, 1)

    def _at(self, t: float) -> Array:
        """State and costate, (2 state, pair)."""
        i = int(np.searchsorted(self.times[1:-1], t, side="right"))
        point, M = np.concatenate([self.states[i], self.costates[i]]), self.leaves[i].hamiltonian
        if self.references is None:
            return scipy.linalg.expm(M * (t - self.times[i])) @ point
        whole = scipy.linalg.expm(_with_reference(M, self.cost.S) * (t - self.times[i]))
        return whole[: len(M)] @ np.concatenate([point, self.references[i]])


@dataclass(frozen=True)
class Integrals:
    """Parts of the cost, (pair,), and what they should agree with."""

    by_input: Array  # (pair, input), integral of v_i^2
    distance: Array  # of (z - r)'S(z - r)
    boundary: Array  # the whole cost, from both ends of the costate
    mismatch: Array  # largest jump of the state between leaves, relative to the largest state


def swept_path(
    cost: Cost, starts: Array, ends: Array, horizon: float, reference: Signal | Array | None
) -> SweptPath:
    """Optimal paths between deviations (pair, state).

    Args:
        cost: The problem.
        starts: z(0).
        ends: z(T).
        horizon: T, or the number of steps of a map.
        reference: Deviations: (pair, state), constant; or over time; None for zero.

    Raises:
        SolverError: So stiff, or so long, that the path needs too many leaves.
    """
    grid = _grid(cost, horizon, reference)
    references = _references(reference, grid, len(starts))
    leaves = _leaves(cost, np.diff(grid), references is not None)
    sources = None
    if references is not None:
        sources = [_source(leaf, r, cost) for leaf, r in zip(leaves, references, strict=True)]
    tree = _Tree(leaves, sources)
    states, costates = tree.solve(starts.T, ends.T)
    return SweptPath(cost, leaves, grid, states, costates, references)


def hamiltonian(cost: Cost) -> Array:
    """[[A, -B B' / rho], [-S, -A']]."""
    top = np.concatenate([cost.A, -cost.B @ cost.B.T / cost.rho], axis=1)
    return np.concatenate([top, np.concatenate([-cost.S, -cost.A.T], axis=1)])


def _grid(cost: Cost, horizon: float, reference: Signal | Array | None) -> Array:
    """Times between leaves: a knot of the reference is always one of them."""
    if cost.is_map:
        if horizon > MOST_LEAVES:
            _refuse(horizon)
        return np.arange(horizon + 1)
    A, S, rho = cost.A, cost.S, cost.rho
    pull = math.sqrt(np.linalg.norm(cost.B @ cost.B.T, 2) * np.linalg.norm(S, 2) / rho)
    shortest = SHORT / max(np.linalg.norm(A, 2) + pull, 1e-300)
    if not horizon / shortest <= MOST_LEAVES:
        _refuse(float(horizon / shortest))
    knots = np.array([0.0, horizon])
    if isinstance(reference, Signal):
        breaks = reference.breakpoints.flatten().double().numpy()
        knots = np.unique(np.concatenate([knots, breaks[(breaks > 0) & (breaks < horizon)]]))
    pieces = [
        np.linspace(a, b, 2 ** max(0, math.ceil(math.log2((b - a) / shortest))), endpoint=False)
        for a, b in pairwise(knots)
    ]
    return np.concatenate([*pieces, [horizon]])


def _refuse(leaves: float) -> None:
    raise SolverError(
        f"an optimal path of {leaves:.1e} time constants or steps is longer than {MOST_LEAVES}",
        fix="a shorter horizon, or a system without its fastest states",
    )


def _references(reference: Signal | Array | None, grid: Array, n_pairs: int) -> Array | None:
    if reference is None:
        return None
    if not isinstance(reference, Signal):
        if not reference.any():
            return None
        level = np.concatenate([reference.T, np.zeros_like(reference.T)])
        return np.broadcast_to(level, (len(grid) - 1, *level.shape))
    middle = torch.from_numpy((grid[:-1] + grid[1:]) / 2)
    begin = reference(torch.from_numpy(grid[:-1].copy()), within=middle).double().numpy()
    end = reference(torch.from_numpy(grid[1:].copy()), within=middle).double().numpy()
    slope = (end - begin) / np.diff(grid)[:, None]
    both = np.concatenate([begin, slope], axis=1)[:, :, None]
    return np.broadcast_to(both, (*both.shape[:2], n_pairs))


def _leaves(cost: Cost, durations: Array, is_forced: bool) -> list[Leaf]:
    made: dict[float, Leaf] = {}
    leaves = []
    for h in durations:
        key = float(f"{h:.12e}")  # equal up to rounding of the grid
        if key not in made:
            made[key] = _map_leaf(cost) if cost.is_map else _leaf(cost, float(h), is_forced)
        leaves.append(made[key])
    return leaves


def _map_leaf(cost: Cost) -> Leaf:
    G = cost.B @ cost.B.T / cost.rho
    nothing = np.zeros((0, 0, 0))
    return Leaf(Stretch(cost.A, G, cost.S), 1.0, np.zeros((0, 0)), nothing, nothing)


def _leaf(cost: Cost, h: float, is_forced: bool) -> Leaf:
    n, M = len(cost.A), hamiltonian(cost)
    nodes = [*(gauss_legendre(NODES)[0] * h), h]
    if is_forced:
        whole = [scipy.linalg.expm(_with_reference(M, cost.S) * t)[: 2 * n] for t in nodes]
        forced = np.stack([E[:, 2 * n :] for E in whole])
    else:
        whole = [scipy.linalg.expm(M * t) for t in nodes]
        forced = np.zeros((0, 0, 0))
    flows = np.stack([E[:, : 2 * n] for E in whole])
    end = flows[-1]
    back = np.linalg.inv(end[n:, n:])  # well conditioned: h is short
    G = -end[:n, n:] @ back
    H = -back @ end[n:, :n]
    F = end[:n, :n] + end[:n, n:] @ H
    return Leaf(Stretch(F, (G + G.T) / 2, (H + H.T) / 2), h, M, flows, forced)


def _with_reference(M: Array, S: Array) -> Array:
    """The Hamiltonian beside a reference r' = s, s' = 0, which pulls on the costate by S r."""
    n = len(S)
    whole = np.zeros((4 * n, 4 * n))
    whole[: 2 * n, : 2 * n] = M
    whole[n : 2 * n, 2 * n : 3 * n] = S
    whole[2 * n : 3 * n, 3 * n :] = np.eye(n)
    return whole


def _source(leaf: Leaf, reference: Array, cost: Cost) -> tuple[Array, Array]:
    """a and b of a leaf."""
    n = len(cost.A)
    if cost.is_map:
        return np.zeros_like(reference[:n]), -cost.S @ reference[:n]
    added, end = leaf.forced[-1] @ reference, leaf.flows[-1]
    b = -np.linalg.solve(end[n:, n:], added[n:])
    return added[:n] + end[:n, n:] @ b, b


@dataclass(eq=False)
class _Node:
    """Two neighboring stretches as one."""

    stretch: Stretch
    a: Array | None
    b: Array | None
    first: "_Node | None" = None
    second: "_Node | None" = None
    solve: Array | None = None  # (1 + G1 H2)^-1


@dataclass(eq=False)
class _Tree:
    """Leaves joined pairwise up to the whole horizon, and the way back down."""

    leaves: list[Leaf]
    sources: list[tuple[Array, Array]] | None
    joined: dict[tuple[int, int], tuple[Stretch, Array]] = field(default_factory=dict)

    def solve(self, start: Array, end: Array) -> tuple[Array, Array]:
        """States and costates between leaves, (leaf + 1, state, pair)."""
        root = self._built(0, len(self.leaves))
        whole = root.stretch
        gap = whole.F @ start - end
        if root.a is not None:
            gap = gap + root.a
        last = _symmetric_solve(whole.G, gap)
        states, costates = [start], []
        self._down(root, start, last, states, costates)
        states.append(end)
        first = whole.H @ start + whole.F.T @ last
        costates = [first if root.b is None else first + root.b, *costates, last]
        return np.stack(states), np.stack(costates)

    def _built(self, begin: int, stop: int) -> _Node:
        if stop - begin == 1:
            a, b = (None, None) if self.sources is None else self.sources[begin]
            return _Node(self.leaves[begin].stretch, a, b)
        middle = (begin + stop) // 2
        first, second = self._built(begin, middle), self._built(middle, stop)
        one, two = first.stretch, second.stretch
        key = (id(one), id(two))
        if key not in self.joined:
            self.joined[key] = _joined(one, two)
        stretch, solve = self.joined[key]
        a = b = None
        if first.a is not None and second.a is not None:
            z = solve @ (first.a - one.G @ second.b)
            a, b = two.F @ z + second.a, first.b + one.F.T @ (two.H @ z + second.b)
        return _Node(stretch, a, b, first, second, solve)

    def _down(
        self, node: _Node, z: Array, q: Array, states: list[Array], costates: list[Array]
    ) -> None:
        """Appends what lies strictly inside, for z at the start and q at the end."""
        if node.first is None or node.second is None or node.solve is None:
            return
        one, two = node.first.stretch, node.second.stretch
        pull = two.F.T @ q
        if node.second.b is not None:
            pull = pull + node.second.b
        push = one.F @ z - one.G @ pull
        if node.first.a is not None:
            push = push + node.first.a
        z_middle = node.solve @ push
        q_middle = two.H @ z_middle + pull
        self._down(node.first, z, q_middle, states, costates)
        states.append(z_middle)
        costates.append(q_middle)
        self._down(node.second, z_middle, q, states, costates)


def _joined(one: Stretch, two: Stretch) -> tuple[Stretch, Array]:
    n = len(one.F)
    solve = np.linalg.inv(np.eye(n) + one.G @ two.H)
    F = two.F @ solve @ one.F
    G = two.G + two.F @ (solve @ one.G) @ two.F.T
    H = one.H + one.F.T @ (two.H @ solve) @ one.F
    return Stretch(F, (G + G.T) / 2, (H + H.T) / 2), solve


def _symmetric_solve(G: Array, right: Array) -> Array:
    """G^-1 right in the eigenvectors of G; what rounding cannot tell from zero stays out."""
    values, vectors = np.linalg.eigh(G)
    floor = len(G) * np.finfo(float).eps * max(float(values[-1]), 0.0)
    inverse = np.where(values > floor, 1 / np.where(values > floor, values, 1.0), 0.0)
    return vectors @ (inverse[:, None] * (vectors.T @ right))


def _integrals(path: SweptPath) -> Integrals:
    cost, n, n_pairs = path.cost, len(path.cost.A), path.states.shape[2]
    weights = gauss_legendre(NODES)[1]
    nodes = gauss_legendre(NODES)[0]
    by_input = np.zeros((cost.B.shape[1], n_pairs))
    distance, pulled, mismatch = np.zeros(n_pairs), np.zeros(n_pairs), np.zeros(n_pairs)
    for i, leaf in enumerate(path.leaves):
        point = np.concatenate([path.states[i], path.costates[i]])
        inside = leaf.flows @ point
        reference = None if path.references is None else path.references[i]
        if reference is not None:
            inside = inside + leaf.forced @ reference
        v = cost.B.T @ inside[:-1, n:] / cost.rho
        by_input += leaf.duration * np.einsum("j,jip->ip", weights, v**2)
        z = inside[:-1, :n]
        if reference is not None:
            r = reference[:n] + nodes[:, None, None] * leaf.duration * reference[n:]
            pulled += leaf.duration * np.einsum("j,jip,jip->p", weights, z - r, cost.S @ r)
            z = z - r
        distance += leaf.duration * np.einsum("j,jip,jip->p", weights, z, cost.S @ z)
        jump = np.linalg.norm(inside[-1, :n] - path.states[i + 1], axis=0)
        mismatch = np.maximum(mismatch, jump)
    return _put_together(path, by_input, distance, pulled, mismatch)


def _integrals_of_map(path: SweptPath) -> Integrals:
    cost, n = path.cost, len(path.cost.A)
    v = -np.einsum("ni,knp->kip", cost.B, path.costates[1:]) / cost.rho
    z = path.states[:-1]
    pulled = np.zeros(z.shape[2])
    following = np.einsum("ij,kjp->kip", cost.A, z) + np.einsum("ni,kip->knp", cost.B, v)
    mismatch = np.linalg.norm(following - path.states[1:], axis=1).max(axis=0)
    if path.references is not None:
        r = path.references[:, :n]
        pulled = np.einsum("kip,ij,kjp->p", z - r, cost.S, r)
        z = z - r
    distance = np.einsum("kip,ij,kjp->p", z, cost.S, z)
    return _put_together(path, (v**2).sum(axis=0), distance, pulled, mismatch)


def _put_together(
    path: SweptPath, by_input: Array, distance: Array, pulled: Array, mismatch: Array
) -> Integrals:
    """d/dt (q'z) = -rho |v|^2 - (z - r)'S z: the ends of q'z know the cost too."""
    z, q = path.states, path.costates
    ends = (q[0] * z[0]).sum(axis=0) - (q[-1] * z[-1]).sum(axis=0)
    return Integrals(by_input.T, distance, ends - pulled, mismatch)
