"""The way of an optimal transfer, by the closed form where there is one; and when to believe it."""

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from clinode.system import LinearSystem, Signal

from .ball_gramian import exact_matrix
from .energy import Energy, log10_of, relative_error
from .full_control import multiple_of_identity, symmetric_modes
from .optimal_certified import certified_optimum
from .optimal_modes import ModalPath, modal_path
from .optimal_path import Cost, SweptPath, swept_path
from .square_root import gauss_legendre
from .transfers import Array, Transfers

SAFETY = 8.0  # of errors that are estimated, not proven
PANEL = 4.0  # rate times time that 16 quadrature nodes are taken on
MOST_BALLS = 16  # pairs that ball arithmetic takes on


class Way:
    """The paths of all pairs, by the closed form where there is one."""

    def __init__(
        self,
        linear: LinearSystem,
        transfers: Transfers,
        cost: Cost,
        reference: Signal | Array | None,
    ):
        self.linear, self.transfers, self.cost = linear, transfers, cost
        self.reference = reference
        self.is_map = transfers.is_map
        self.horizon = transfers.horizon
        self.u_rest = linear.u0.detach().double().cpu().numpy()
        self.knots = _knots(reference, self.horizon)
        self.found = np.zeros(len(transfers.starts), dtype=bool)  # until judged
        starts, ends = transfers.moved_starts, transfers.moved_ends
        self.path: ModalPath | SweptPath
        if self._is_modal():
            r = reference if isinstance(reference, np.ndarray) else np.zeros_like(starts)
            weight = float(cost.S[0, 0]) / cost.rho
            self.path = modal_path(cost.A, cost.B, starts, ends, r, self.horizon, weight)
        else:
            length = transfers.n_steps if transfers.n_steps is not None else self.horizon
            self.path = swept_path(cost, starts, ends, float(length), reference)

    def _is_modal(self) -> bool:
        S, transfers = self.cost.S, self.transfers
        alike = np.array_equal(S, S[0, 0] * np.eye(len(S)))
        plain = alike and not transfers.is_map and not isinstance(self.reference, Signal)
        square = transfers.B.shape[0] <= transfers.B.shape[1]
        return (
            plain and square and transfers.is_symmetric and bool(multiple_of_identity(transfers.B))
        )

    def measured(self) -> tuple[Array, Array, Array, Array, str]:
        """Energies, costs, relative errors, reach errors, and the route."""
        ends = self.transfers.moved_ends
        if isinstance(self.path, ModalPath):
            return *self._measured_modes(self.path), "closed form in float64"
        parts = self.path.integrals()
        energy, rho = parts.by_input.sum(axis=1), self.cost.rho
        whole = rho * energy + parts.distance
        reach = parts.mismatch + np.finfo(float).eps * np.linalg.norm(ends, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = np.abs(whole - parts.boundary) / np.minimum(whole, rho * energy)
        error = SAFETY * (gap + ends.shape[1] * np.finfo(float).eps)
        return energy, whole, np.where(energy > 0, error, 0.0), reach, "doubling in float64"

    def _measured_modes(self, path: ModalPath) -> tuple[Array, Array, Array, Array]:
        energy, distance = path.energies(), path.squared_distances()
        S, rho, n = self.cost.S[0, 0], self.cost.rho, self.transfers.n_states
        whole = rho * energy + S * distance
        _, _, off, skewed = symmetric_modes(self.transfers.A)
        # a disturbance dA z costs 2 |q| |dA z| to first order, with q = -rho v / b
        with np.errstate(divide="ignore", invalid="ignore"):
            first = np.sqrt(path.squared_states() / (energy * path.gain))
        error = SAFETY * (off * first + skewed + n * np.finfo(float).eps)
        sizes = np.linalg.norm(self.transfers.moved_ends, axis=1)
        return energy, whole, np.where(energy > 0, error, 0.0), skewed * sizes

    def at(self, times: Array) -> tuple[Array, Array]:
        """Absolute states and inputs, (pair, time, ...)."""
        scale = (self.transfers.n_steps or 1.0) / self.horizon if self.is_map else 1.0
        states, inputs = self.path.at(times * scale)
        return states + self.transfers.rest, inputs + self.u_rest

    def inputs_at(self, t: torch.Tensor) -> torch.Tensor:
        """Absolute inputs at times of any shape that broadcasts against the batch axes."""
        shape = self.transfers.shape
        distinct, inverse = np.unique(t.detach().cpu().numpy(), return_inverse=True)
        inside = np.clip(distinct, 0.0, self.horizon)
        _, inputs = self.at(inside)  # (pair, time, input)
        inputs = np.where((distinct > self.horizon)[:, None], self.u_rest, inputs)
        whole = np.broadcast_shapes(tuple(t.shape), shape)
        pairs = np.broadcast_to(np.arange(math.prod(shape)).reshape(shape), whole)
        which = np.broadcast_to(inverse.reshape(t.shape), whole)
        return torch.from_numpy(inputs[pairs, which])

    def by_input(self) -> Array:
        """(pair, input), integral of each input's squared deviation."""
        if isinstance(self.path, SweptPath):
            return self.path.integrals().by_input
        nodes, weights = gauss_legendre(16)
        panels = max(1, math.ceil(float(self.path.rates.max(initial=0.0)) * self.horizon / PANEL))
        h = self.horizon / panels
        total = np.zeros((len(self.transfers.starts), self.transfers.B.shape[1]))
        for k in range(panels):
            _, inputs = self.path.at((k + nodes) * h)
            total += h * np.einsum("t,pti->pi", weights, inputs**2)
        return total


@dataclass(frozen=True)
class Judgement:
    """What `OptimalEnergy` reports, one entry a pair."""

    value: Array
    log10: Array
    cost: Array
    bound: Array
    reach_error: Array
    verdict: Array
    route: Array


def judged(way: Way, minimum: Energy, rtol: float, deadline: float) -> Judgement:
    """The paths beside the least energies: what is believed, what balls must settle."""
    energy, whole, error, reach, route = way.measured()
    known = np.where(np.isfinite(minimum.bound), minimum.bound, 0.0).reshape(-1)
    least = minimum.value.reshape(-1) / (1 + known)
    unreachable = (minimum.verdict == "unreachable").reshape(-1)
    sizes = np.linalg.norm(way.transfers.moved_ends, axis=1)
    ends = (reach <= rtol * sizes) | (reach <= way.transfers.rounding)
    with np.errstate(invalid="ignore", divide="ignore"):
        sound = ends & (error <= rtol) & (energy * (1 + rtol) >= least) & np.isfinite(energy)
        sound &= ~unreachable
        log10 = np.where(sound, np.log10(energy), minimum.log10.reshape(-1))
    way.found = sound
    judgement = Judgement(
        value=np.where(sound, energy, least),
        log10=log10,
        cost=np.where(sound, whole, way.cost.rho * least),
        bound=np.where(sound, error, np.where(unreachable, 0.0, math.inf)),
        reach_error=np.where(sound, reach, minimum.reach_error.reshape(-1)),
        verdict=np.where(sound, "reliable", np.where(unreachable, "unreachable", "lower bound")),
        route=np.where(sound, route, np.where(unreachable, "exact span", "least energy")),
    )
    judgement = replace(
        judgement,
        verdict=judgement.verdict.astype(object),
        route=judgement.route.astype(object),
    )
    for pair in np.flatnonzero(~sound & ~unreachable)[:MOST_BALLS]:
        _settle(judgement, way, int(pair), rtol, deadline)
    return judgement


def _settle(judgement: Judgement, way: Way, pair: int, rtol: float, deadline: float) -> None:
    """What ball arithmetic knows of a pair, where it knows it."""
    if way.is_map or isinstance(way.reference, Signal) or time.monotonic() > deadline:
        return
    part = way.transfers
    rest = exact_matrix(part.rest[:, None])
    start = exact_matrix(part.starts[pair][:, None]) - rest
    end = exact_matrix(part.ends[pair][:, None]) - rest
    r = np.zeros(part.n_states) if way.reference is None else way.reference[pair]
    ball = certified_optimum(
        way.cost,
        start,
        end,
        exact_matrix(r[:, None]),
        part.horizon,
        rtol=rtol,
        deadline=deadline,
    )
    if ball is None:
        return
    judgement.value[pair], judgement.cost[pair] = float(ball.energy.mid()), float(ball.cost.mid())
    judgement.log10[pair] = log10_of(ball.energy)
    judgement.bound[pair] = max(relative_error(ball.energy), relative_error(ball.cost))
    judgement.reach_error[pair] = 0.0
    judgement.verdict[pair], judgement.route[pair] = "reliable", "Hamiltonian in balls"


def _knots(reference: Signal | Array | None, horizon: float) -> list[float]:
    if not isinstance(reference, Signal):
        return []
    breaks = reference.breakpoints.flatten().tolist()
    return [t for t in breaks if 0 < t < horizon]
