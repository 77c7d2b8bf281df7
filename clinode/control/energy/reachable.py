"""How near inputs of bounded amplitude come to a target.

Where the least energy of a transfer is beyond any stimulus, this is the answer that helps: the
nearest state that inputs within |u_i - u_op| <= a_i reach in the horizon, and how far from the
target it stays. Inputs are constant on pieces, a bounded least-squares problem; its dual bounds the
distance from below for every input, piecewise constant or not, and pieces are split where the
optimal input switches until the two bounds meet.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg
import torch

from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Signal, Values

from .square_root import gauss_legendre
from .transfers import Array, Transfers, state_transfers

PIECES = 64  # to begin with
MOST_PIECES = 1024
MOST_STEPS = 100  # of the interior point method
RIDGE = 1e-13  # on squared inputs, in units where the drift is 1 off
SMALLEST_PRICE = 1e-17  # times slack, at which the method stops
REACHED = 1e-6  # of the distance to go, below which a target counts as reached
NODES = 8  # at which a switching function is looked at inside a piece


@dataclass(frozen=True, eq=False)
class Reachable:
    """The nearest that bounded inputs come to targets, one entry a pair, (*batch).

    Attributes:
        distance: From the target to the nearest state found.
        lower: No input within the bounds comes nearer than this.
        drift_distance: From the target to where the system drifts by itself.
        states: (*batch, state), the nearest states found, absolute.
        verdict: "reached", to 1e-6 of the way; "out of reach", where `lower` is positive and
            the distance is right to the tolerance asked for; or "undecided".
        edges: Of each pair, the times between pieces.
        values: Of each pair, (piece, input), absolute inputs.
    """

    distance: np.ndarray
    lower: np.ndarray
    drift_distance: np.ndarray
    states: np.ndarray
    verdict: np.ndarray
    edges: list[Array]
    values: list[Array]

    def to_signal(self, pair: int = 0) -> Signal:
        """The inputs of one pair, counted over batch axes in C order, as steps.

        After the horizon the last value holds.
        """
        return Signal(self.edges[pair][:-1], self.values[pair], "previous")

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and words, for JSON."""
        names = ("distance", "lower", "drift_distance", "states", "verdict")
        return {name: getattr(self, name).tolist() for name in names}

    def to_pandas(self) -> pd.DataFrame:
        """One row a pair, over several batch axes in C order."""
        names = ("distance", "lower", "drift_distance", "verdict")
        return pd.DataFrame({name: getattr(self, name).reshape(-1) for name in names})


def reachable_distance(
    linear: LinearSystem,
    x0: Values,
    target: Values,
    horizon: float | int = 1.0,
    *,
    amplitude: Values,
    one_sided: bool = False,
    rtol: float = 1e-4,
) -> Reachable:
    """The nearest to the target that inputs of bounded amplitude steer in the horizon.

    Args:
        linear: In continuous time, or a map.
        x0: (..., state), absolute; one number stands for all states.
        target: (..., state), absolute; batch axes broadcast.
        horizon: T, finite, in time units.
        amplitude: Largest |u_i - u_op|, one number or (input,).
        one_sided: Whether inputs may not fall below u_op.
        rtol: Largest difference of distance and lower bound, relative to `drift_distance`.

    Raises:
        ArgumentError: As `control_energy`; an infinite horizon, an amplitude that is not positive.

    Example:
        >>> mass = LinearSystem([[0.0, 1.0], [0.0, 0.0]], [[0.0], [1.0]])
        >>> near = reachable_distance(mass, 0.0, [1.0, 0.0], 2.0, amplitude=1.0)  # speed up, brake
        >>> print(f"{near.verdict}, {near.distance < 1e-6}")
        reached, True
    """
    transfers = state_transfers(linear, x0, target, horizon)
    if transfers.is_endless:
        raise ArgumentError("a reachable distance needs a finite horizon")
    bound = _amplitude(amplitude, transfers.B.shape[1])
    rest = linear.u0.detach().double().cpu().numpy()
    found = [
        _nearest(transfers, start, end, bound, one_sided, rtol)
        for start, end in zip(transfers.moved_starts, transfers.moved_ends, strict=True)
    ]
    shape, n = transfers.shape, transfers.n_states
    columns = [
        np.array(column).reshape(shape) for column in zip(*(f.row for f in found), strict=True)
    ]
    states = np.array([f.state for f in found]).reshape(*shape, n) + transfers.rest
    distance, lower, drift = columns
    verdict = np.full(shape, "undecided", dtype=object)
    size = np.maximum(drift, np.linalg.norm(transfers.moved_ends, axis=1).reshape(shape))
    verdict[(lower > 0) & (distance - lower <= rtol * drift)] = "out of reach"
    verdict[distance <= REACHED * size] = "reached"
    values = [f.values + rest for f in found]
    return Reachable(distance, lower, drift, states, verdict, [f.edges for f in found], values)


@dataclass(frozen=True)
class _Nearest:
    row: tuple[float, float, float]  # distance, lower, drift distance
    state: Array
    edges: Array
    values: Array


def _nearest(
    transfers: Transfers, start: Array, end: Array, bound: Array, one_sided: bool, rtol: float
) -> _Nearest:
    system = _Pieces(transfers)
    edges = system.first_edges()
    drift = system.drift(start)
    aim = end - drift
    size = float(np.linalg.norm(aim))
    best_lower = 0.0
    while True:
        effects = system.effects(edges) * bound  # (piece, state, input)
        G = effects.transpose(1, 0, 2).reshape(len(aim), -1)
        low = 0.0 if one_sided else -1.0
        w = _bounded(G, aim, low)
        left = aim - G @ w
        distance = float(np.linalg.norm(left))
        switches = np.zeros(len(edges) - 1, dtype=bool)
        if distance > 0:
            support, switches = system.support(edges, effects, left / distance, bound, one_sided)
            best_lower = max(best_lower, float(left @ aim) / distance - support)
        values = w.reshape(len(edges) - 1, -1) * bound
        row = (distance, max(best_lower, 0.0), size)
        is_done = distance - best_lower <= rtol * size or distance <= REACHED * size / 10
        edges_now, edges = edges, system.split(edges, switches)
        if is_done or len(edges) == len(edges_now) or len(edges) > MOST_PIECES:
            return _Nearest(row, end - left, edges_now * system.unit, values)


def _bounded(G: Array, aim: Array, low: float) -> Array:
    """w within [low, 1] that brings G w nearest to the aim: an interior point method.

    Mehrotra's predictor and corrector (1992, SIAM J. Optim. 2:575-601). The Newton matrix is
    diagonal plus G'G, so a step costs one solve of the size of the aim.
    """
    size = float(np.linalg.norm(aim))
    if not G.size or size == 0:
        return np.clip(np.zeros(G.shape[1]), low, 1.0)
    G, d = G / size, aim / size
    free = np.linalg.lstsq(G, d, rcond=1e-13)[0]
    if low <= free.min() and free.max() <= 1:
        return free
    w = np.full(G.shape[1], (low + 1) / 2)
    below = above = np.full(len(w), max(1e-3, float(np.abs(G.T @ d).max())))  # prices of bounds
    for _ in range(MOST_STEPS):
        moved = _stepped(G, d, low, w, below, above)
        if moved is None:
            break
        w, below, above = moved
    return np.clip(w, low, 1.0)


def _stepped(
    G: Array, d: Array, low: float, w: Array, below: Array, above: Array
) -> tuple[Array, Array, Array] | None:
    """Inputs and the prices of their bounds after one step; None where the method has arrived."""
    under, over = w - low, 1.0 - w
    slope = G.T @ (G @ w - d) + RIDGE * w - below + above
    mean = float(below @ under + above @ over) / (2 * len(w))
    if mean < SMALLEST_PRICE and np.abs(slope).max() < 1e-12:
        return None
    weight = below / under + above / over + RIDGE
    inverse = scipy.linalg.cho_factor(np.eye(len(d)) + (G / weight) @ G.T, check_finite=False)

    def direction(center_low: Array, center_high: Array) -> tuple[Array, Array, Array]:
        """Of inputs and of both prices."""
        right = -slope + center_low / under - below - center_high / over + above
        step = _newton_step(G, weight, inverse, right)
        on_below = center_low / under - below - below / under * step
        on_above = center_high / over - above + above / over * step
        return step, on_below, on_above

    def rooms(step: Array, on_below: Array, on_above: Array) -> tuple[float, float]:
        """How far inputs and prices may go that way."""
        room = min(_room(under, step), _room(over, -step))
        return room, min(_room(below, on_below), _room(above, on_above))

    step, on_below, on_above = direction(np.zeros(len(w)), np.zeros(len(w)))
    room, price_room = rooms(step, on_below, on_above)
    ahead = (below + price_room * on_below) @ (under + room * step)
    ahead += (above + price_room * on_above) @ (over - room * step)
    goal = (float(ahead) / (2 * len(w)) / mean) ** 3 * mean
    step, on_below, on_above = direction(goal - step * on_below, goal + step * on_above)
    room, price_room = rooms(step, on_below, on_above)
    below = below + 0.995 * price_room * on_below
    above = above + 0.995 * price_room * on_above
    return w + 0.995 * room * step, below, above


def _newton_step(G: Array, weight: Array, inverse: tuple[Array, bool], right: Array) -> Array:
    """Solves (diag(weight) + G'G) step = right by the small inverse, of 1 + G (G / weight)'.

    Refined: the two terms of a free input nearly cancel.
    """
    step = np.zeros(len(weight))
    for _ in range(3):
        left = (right - weight * step - G.T @ (G @ step)) / weight
        step = step + left - (G.T @ scipy.linalg.cho_solve(inverse, G @ left)) / weight
    return step


def _room(values: Array, change: Array) -> float:
    """How far along the change all values stay positive, at most 1."""
    falls = change < 0
    return float(min(1.0, (-values[falls] / change[falls]).min(initial=1.0)))


class _Pieces:
    """What inputs on pieces of time do to the state at the horizon."""

    def __init__(self, transfers: Transfers):
        self.A, self.B = transfers.A, transfers.B
        self.is_map = transfers.is_map
        self.n_steps = int(transfers.n_steps or 0)
        self.horizon = float(self.n_steps) if self.is_map else transfers.horizon
        self.unit = transfers.horizon / self.horizon
        self.smallest = self.horizon * 2.0**-30

    def first_edges(self) -> Array:
        """Edges of equal pieces; of a map its steps."""
        return np.linspace(0.0, self.horizon, (self.n_steps if self.is_map else PIECES) + 1)

    def drift(self, start: Array) -> Array:
        """Where the start goes by itself."""
        if self.is_map:
            return np.linalg.matrix_power(self.A, self.n_steps) @ start
        return scipy.linalg.expm(self.A * self.horizon) @ start

    @functools.cache  # noqa: B019  (pieces have few lengths, and this object is short-lived)
    def _piece(self, h: float) -> tuple[Array, Array, Array]:
        """exp(A h), its integral times B, and exp(A t) B at the nodes t from the end of a piece."""
        if self.is_map:
            return self.A, self.B, self.B[None]
        n, m = self.B.shape
        whole = np.zeros((n + m, n + m))
        whole[:n, :n], whole[:n, n:] = self.A, self.B
        E = scipy.linalg.expm(whole * h)
        places = np.array([0.0, *gauss_legendre(NODES)[0], 1.0]) * h
        inside = np.stack([scipy.linalg.expm(self.A * t) @ self.B for t in places])
        return E[:n, :n], E[:n, n:], inside

    def _lengths(self, edges: Array) -> list[float]:
        return [float(f"{h:.10e}") for h in np.diff(edges)]  # halves are equal up to rounding

    def effects(self, edges: Array) -> Array:
        """(piece, state, input), of a unit input on one piece."""
        found, onward = [], np.eye(len(self.A))
        for h in reversed(self._lengths(edges)):
            flow, effect, _ = self._piece(h)
            found.append(onward @ effect)
            onward = onward @ flow
        return np.stack(found[::-1])

    def support(
        self, edges: Array, effects: Array, p: Array, bound: Array, one_sided: bool
    ) -> tuple[float, Array]:
        """The most that any input within the bounds moves along p, and where it switches.

        On a piece where the switching function B'exp(A'(T - t))p keeps its sign, at the nodes, its
        integral is that of the piece; elsewhere Cauchy and Schwarz bound it.
        """
        total, switches = 0.0, np.zeros(len(edges) - 1, dtype=bool)
        weights = gauss_legendre(NODES)[1]
        onward = p
        for k, h in zip(
            reversed(range(len(edges) - 1)), reversed(self._lengths(edges)), strict=True
        ):
            flow, _, inside = self._piece(h)
            seen = inside.transpose(0, 2, 1) @ onward  # (node, input)
            whole = p @ effects[k]
            changes = (seen.min(axis=0) < 0) & (seen.max(axis=0) > 0)
            if one_sided:
                most = np.maximum(whole, 0.0)
                square = np.maximum(seen, 0.0) ** 2
            else:
                most, square = np.abs(whole), seen**2
            if not self.is_map:
                spread = bound * np.sqrt(h * h * (weights @ square[1:-1]))
                most = np.where(changes, spread, most)
            total += float(most.sum())
            switches[k] = bool(changes.any())
            onward = flow.T @ onward
        return total, switches

    def split(self, edges: Array, switches: Array) -> Array:
        """Pieces with a switch, and their neighbors, in halves."""
        if self.is_map:
            return edges
        near = switches.copy()
        near[1:] |= switches[:-1]
        near[:-1] |= switches[1:]
        near &= np.diff(edges) > self.smallest
        middle = (edges[:-1] + edges[1:])[near] / 2
        return np.sort(np.concatenate([edges, middle]))


def _amplitude(given: Values, n_inputs: int) -> Array:
    made = given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else given
    bound = np.asarray(made, dtype=np.float64)
    if bound.ndim > 1 or (bound.ndim == 1 and len(bound) != n_inputs):
        raise ArgumentError(
            f"amplitude has shape {bound.shape}, expected a number or ({n_inputs},)"
        )
    if not (np.isfinite(bound) & (bound > 0)).all():
        raise ArgumentError(
            "amplitude must be positive and finite",
            fix="leave an input that must stay silent out of the linear system",
        )
    return np.broadcast_to(bound, (n_inputs,)).copy()
