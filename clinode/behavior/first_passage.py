"""When the state of a diffusion first leaves an interval, whose ends may move.

The forward (Fokker-Planck) equation of any `System` with one state and noise, on coordinates that
move with the bounds, so that collapsing ones stay on the grid. Finite volumes with exponentially
fitted fluxes keep probability and its sign (Scharfetter & Gummel 1969, IEEE Trans. Electron Devices
16:64-77); steps are Crank and Nicolson's after a few implicit ones that damp the point start.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import get_lapack_funcs
from torch import Tensor

from clinode.behavior.response_times import ResponseModel, Responses, parameter
from clinode.errors import ArgumentError
from clinode.system import System, Values

(_dgtsv,) = get_lapack_funcs(("gtsv",), dtype=np.float64)
DAMPED = 4  # implicit steps at the start, of half the size
Bound = Callable[[Tensor], Tensor]


class FirstPassage(ResponseModel):
    """Choice 1 at the upper bound, 0 at the lower one; time in the system's unit, told as seconds.

    Solved once, when made. The densities have gradients in the constants of the system, the start
    and whatever the bounds close over.

    Args:
        system: A flow of one state with noise, without inputs or with inputs at 0.
        lower, upper: Numbers, or functions of time (a tensor), made of torch's operations.
        start: Between the bounds at time 0.
        horizon: Until when densities are known; later ones are refused.
        non_decision: Time before the diffusion begins.
        n_places: Cells between the bounds.
        n_times: Steps to the horizon.

    Raises:
        ArgumentError: A system with other states or without noise, bounds that cross or that the
            start is not between, sizes that are not positive.

    Example:
        >>> from clinode.behavior.wiener import Wiener
        >>> evidence = Wiener(drift=1.0)
        >>> model = FirstPassage(
        ...     evidence, 0.0, 2.0, start=1.0, horizon=6.0, n_places=40, n_times=60
        ... )
        >>> round(float(model.cdf(6.0, 1.0)), 2)
        0.88
    """

    def __init__(
        self,
        system: System,
        lower: float | int | Tensor | Bound,
        upper: float | int | Tensor | Bound,
        *,
        start: Values,
        horizon: float,
        non_decision: Values = 0.0,
        n_places: int = 160,
        n_times: int = 400,
    ):
        if system.n_states != 1 or system.noise is None:
            raise ArgumentError(
                f"{type(system).__name__} must have one state and noise", fix="reduce it to one"
            )
        if not (horizon > 0 and math.isfinite(horizon)) or n_places < 8 or n_times < 8:
            raise ArgumentError("horizon must be positive, with at least 8 places and 8 times")
        self.system, self._noise = system, system.noise
        self.horizon = float(horizon)
        self.non_decision = parameter("non_decision", non_decision, -1e-300)
        self.start = parameter("start", start)
        self._bounds = (_as_function(lower), _as_function(upper))
        self._check_bounds(n_times)
        self.times, self.density, self.reached = self._solved(n_places, n_times)

    def log_prob(self, rt: Values, choice: Values = 1.0) -> Float[Tensor, "*trial"]:
        """Log density, of rates of leaving at each step; -inf before any mass has arrived.

        Raises:
            ArgumentError: A time beyond the horizon.
        """
        return torch.log(self._at(rt, choice, self.density))

    def cdf(self, rt: Values, choice: Values = 1.0) -> Float[Tensor, "*trial"]:
        """Probability of this choice by this time.

        Raises:
            ArgumentError: A time beyond the horizon.
        """
        return self._at(rt, choice, self.reached)

    def sample(self, n: int, generator: torch.Generator) -> Responses:
        """n decisions; infinite where none is made within the horizon."""
        with torch.no_grad():
            u = torch.rand(n, generator=generator, dtype=torch.float64)
            ends = self.reached[:, -1]
            upper = u >= ends[0]
            undecided = u >= ends.sum()
            level = torch.where(upper, u - ends[0], u)
            rt = torch.empty_like(u)
            for side in (0, 1):
                own = upper == bool(side)
                curve = self.reached[side].contiguous()
                place = torch.searchsorted(curve, level[own].contiguous()).clamp(1, len(curve) - 1)
                gap = (curve[place] - curve[place - 1]).clamp(min=1e-300)
                share = ((level[own] - curve[place - 1]) / gap).clamp(0, 1)
                rt[own] = self.times[place - 1] + share * (
                    self.times[place] - self.times[place - 1]
                )
            rt = torch.where(undecided, math.inf, rt + self.non_decision)
        return Responses(rt, (upper & ~undecided).double())

    def _at(self, rt: Values, choice: Values, curve: Tensor) -> Tensor:
        """Between steps by cubics that rise and fall where the curve does, so never below 0."""
        t = torch.as_tensor(rt, dtype=torch.float64) - self.non_decision
        if bool((t.detach() > self.horizon * (1 + 1e-12)).any()):
            raise ArgumentError(
                f"times reach beyond the horizon of {self.horizon:g}",
                fix="make it with a longer horizon",
            )
        t, chosen = torch.broadcast_tensors(t, torch.as_tensor(choice, dtype=torch.float64))
        knots, side = self.times, (chosen > 0.5).long()
        after = torch.searchsorted(knots, t.detach().contiguous()).clamp(1, len(knots) - 1)
        width = knots[after] - knots[after - 1]
        y = (t - knots[after - 1]) / width
        slope = _gentle_slopes(knots, curve)
        low, high = curve[side, after - 1], curve[side, after]
        bend = (1 - y) * slope[side, after - 1] - y * slope[side, after]
        share = y**2 * (3 - 2 * y)
        at = low * (1 - share) + high * share + width * y * (1 - y) * bend
        return torch.where(t > 0, at.clamp(min=0.0), 0.0)

    def _check_bounds(self, n_times: int) -> None:
        times = torch.linspace(0, self.horizon, n_times + 1, dtype=torch.float64)
        low, high = (torch.stack([bound(t) for t in times]).detach() for bound in self._bounds)
        if not bool((low < high).all()):
            raise ArgumentError(
                "the bounds cross or meet within the horizon",
                fix="shorten the horizon, or let them collapse to a positive distance",
            )
        if not float(low[0]) < float(self.start.detach()) < float(high[0]):
            raise ArgumentError("the start must lie between the bounds at time 0")

    def _solved(self, n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
        """Times (step + 1,); densities and probabilities at them, (2, step + 1)."""
        half = self.horizon / m / 2
        steps = torch.full((m + DAMPED // 2,), 2 * half, dtype=torch.float64)
        steps[:DAMPED] = half
        nothing = torch.zeros(1, dtype=torch.float64)
        times = torch.cat([nothing, steps.cumsum(dim=0)])
        low, high = (bound(nothing[0]) for bound in self._bounds)
        y = (self.start - low) / (high - low)
        centers = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        # a point mass shared by two cells, so that its mean is where it should be
        mass = torch.clamp(1 - (centers - y).abs() * n, min=0.0)
        below, at, above, exits = self._generators(times[1:], n)
        # half a step of Crank and Nicolson's leads to the same matrix as an implicit one of half
        masses = _Swept.apply(mass / mass.sum(), -half * below, 1 - half * at, -half * above)
        leaving = torch.stack([masses[:, 0], masses[:, -1]]) * exits
        before = torch.cat([leaving[:, :DAMPED], leaving[:, DAMPED - 1 : -1]], dim=1)
        lost = (before + leaving) / 2 * steps
        reached = torch.cat([nothing.expand(2, 1), lost.cumsum(dim=1)], dim=1)
        return times, torch.cat([nothing.expand(2, 1), leaving], dim=1), reached

    def _generators(self, times: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """d mass / dt = G mass: diagonals of G at each time, and rates of leaving (2, time)."""
        (low, low_speed), (high, high_speed) = (_with_slope(one, times) for one in self._bounds)
        width, h = high - low, 1 / n
        faces = torch.arange(n + 1, dtype=torch.float64) / n
        centers = (faces[1:] + faces[:-1]) / 2
        drift = self._field(low + width * faces, times)
        drift = (drift - low_speed - faces * (high_speed - low_speed)) / width
        spread = self._spread(low + width * centers, times) / width**2
        between = (spread[:, 1:] + spread[:, :-1]) / 2
        at_faces = torch.cat([spread[:, :1], between, spread[:, -1:]], dim=1)
        peclet = drift / at_faces * h
        inner = peclet[:, 1:-1]
        # cells lose to the right `forward` of r = D mass, and to the left `back`
        back = _bernoulli(inner) / h**2
        forward = back + inner / h**2  # of -inner
        out_left = 2 * _bernoulli(peclet[:, :1] / 2) / h**2
        out_right = 2 * _bernoulli(-peclet[:, -1:] / 2) / h**2
        leaves = torch.cat([forward, out_right], dim=1) + torch.cat([out_left, back], dim=1)
        exits = torch.cat([out_left * spread[:, :1], out_right * spread[:, -1:]], dim=1)
        return forward * spread[:, :-1], -leaves * spread, back * spread[:, 1:], exits.T

    def _field(self, x: Tensor, times: Tensor) -> Tensor:
        """(time, place) of the flow at places of each time."""
        u = torch.zeros(x.shape[1], self.system.n_inputs, dtype=torch.float64)

        def at(t: Tensor, x: Tensor) -> Tensor:
            return self.system.vector_field(t, x.unsqueeze(1), u).double().squeeze(-1)

        return torch.func.vmap(at)(times, x)

    def _spread(self, x: Tensor, times: Tensor) -> Tensor:
        """Half the squared noise, the same."""
        u = torch.zeros(x.shape[1], self.system.n_inputs, dtype=torch.float64)

        def at(t: Tensor, x: Tensor) -> Tensor:
            shown = self._noise(t, x.unsqueeze(1), u).double().flatten(1)
            return (shown**2).sum(dim=1) / 2

        return torch.func.vmap(at)(times, x)


class _Swept(torch.autograd.Function):
    """Masses (step, cell) after each step: M_k x_k = r_{k-1}, M_k tridiagonal.

    r is the mass before an implicit step; before one of Crank and Nicolson's it is
    (2 - M_k) x_k = 2 x_k - r_{k-1}. Slopes are the same sweep backwards, with M transposed.
    """

    @staticmethod
    def forward(mass: Tensor, below: Tensor, at: Tensor, above: Tensor) -> Tensor:
        lower, middle, upper = (x.detach().numpy() for x in (below, at, above))
        given = mass.detach().numpy()
        found = np.empty_like(middle)
        for k in range(len(found)):
            found[k] = _dgtsv(lower[k], middle[k], upper[k], given)[3]
            given = found[k] if k + 1 < DAMPED else 2 * found[k] - given
        return torch.from_numpy(found)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, ...]:
        mass, below, at, above, found = ctx.saved_tensors
        if torch.is_grad_enabled():  # slopes of slopes are asked for: step by step, under autograd
            return torch.func.vjp(swept_densely, mass, below, at, above)[1](slopes[0])
        lower, middle, upper = (x.numpy() for x in (below, at, above))
        asked = slopes[0].numpy()
        pulls, given = np.empty_like(middle), np.zeros_like(middle[0])
        for k in reversed(range(len(pulls))):
            is_damped = k + 1 < DAMPED
            total = asked[k] + (given if is_damped else 2 * given)
            pulls[k] = _dgtsv(upper[k], middle[k], lower[k], total)[3]
            given = pulls[k] if is_damped else pulls[k] - given
        pulled = torch.from_numpy(pulls)
        return (
            torch.from_numpy(given),
            -pulled[:, 1:] * found[:, :-1],
            -pulled * found,
            -pulled[:, :-1] * found[:, 1:],
        )


def swept_densely(mass: Tensor, below: Tensor, at: Tensor, above: Tensor) -> Tensor:
    """The same with whole matrices, by torch's own operations: slow, with slopes of any order."""
    M = torch.diag_embed(below, -1) + torch.diag_embed(at) + torch.diag_embed(above, 1)
    given, found = mass, []
    for k, one in enumerate(M):
        found.append(torch.linalg.solve(one, given))
        given = found[-1] if k + 1 < DAMPED else 2 * found[-1] - given
    return torch.stack(found)


def _gentle_slopes(knots: Tensor, curve: Tensor) -> Tensor:
    """Harmonic means of neighbouring slopes, 0 at turns (Fritsch & Butland 1984)."""
    step, rise = knots.diff(), curve.diff(dim=1) / knots.diff()
    before, after = rise[:, :-1], rise[:, 1:]
    same = before * after > 0
    ahead = (step[:-1] + 2 * step[1:]) / (3 * (step[:-1] + step[1:]))
    mixed = torch.where(same, (1 - ahead) * before + ahead * after, 1.0)
    inner = torch.where(same, before * after, 0.0) / mixed
    return torch.cat([torch.zeros_like(rise[:, :1]), inner, rise[:, -1:]], dim=1)


def _as_function(bound: float | int | Tensor | Bound) -> Bound:
    if callable(bound):
        return lambda t: torch.as_tensor(bound(t), dtype=torch.float64).reshape(())
    level = torch.as_tensor(bound, dtype=torch.float64).reshape(())
    return lambda t: level + 0 * t


def _with_slope(bound: Bound, times: Tensor) -> tuple[Tensor, Tensor]:
    """(time, 1) of a bound and its speed."""

    def both(t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.jvp(bound, (t,), (torch.ones_like(t),))[:2]

    try:
        level, speed = torch.func.vmap(both)(times)
    except RuntimeError as wrong:
        raise ArgumentError(
            "a bound must be made of torch's operations on its time",
            fix="write torch.exp(t) for math.exp(t), and torch.where for if",
        ) from wrong
    return level.unsqueeze(1), speed.unsqueeze(1)


def _bernoulli(x: Tensor) -> Tensor:
    """x / (exp(x) - 1)."""
    small = x.abs() < 1e-4
    safe = torch.where(small, 1.0, x)
    return torch.where(small, 1 - x / 2 + x**2 / 12, safe / torch.expm1(safe))
