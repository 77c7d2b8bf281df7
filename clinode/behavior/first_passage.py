"""When the state of a diffusion first leaves an interval, whose ends may move.

The forward (Fokker-Planck) equation of any `System` with one state and noise, on coordinates that
move with the bounds, so that collapsing ones stay on the grid. Finite volumes with exponentially
fitted fluxes keep probability and its sign (Scharfetter & Gummel 1969, IEEE Trans. Electron Devices
16:64-77); steps are Crank and Nicolson's after a few implicit ones that damp the point start.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.behavior.response_times import ResponseModel, Responses, parameter
from clinode.errors import ArgumentError
from clinode.system import System, Values

DAMPED = 4  # implicit steps at the start, of half the size
Bound = Callable[[Tensor], Tensor]


class FirstPassage(ResponseModel):
    """Choice 1 at the upper bound, 0 at the lower one; time in the system's unit, told as seconds.

    Solved once, when made. The densities have gradients in the constants of the system, the start
    and whatever the bounds close over.

    Args:
        system: A flow of one state with noise, without inputs or with inputs at 0.
        lower, upper: Numbers, or functions of time (a tensor) that give tensors.
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
        """Log density, interpolated between steps; -inf before any mass has arrived.

        Raises:
            ArgumentError: A time beyond the horizon.
        """
        middle = (self.times[1:] + self.times[:-1]) / 2
        return torch.log(self._at(rt, choice, middle, self.density).clamp(min=0.0))

    def cdf(self, rt: Values, choice: Values = 1.0) -> Float[Tensor, "*trial"]:
        """Probability of this choice by this time.

        Raises:
            ArgumentError: A time beyond the horizon.
        """
        return self._at(rt, choice, self.times, self.reached)

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

    def _at(self, rt: Values, choice: Values, knots: Tensor, curve: Tensor) -> Tensor:
        t = torch.as_tensor(rt, dtype=torch.float64) - self.non_decision
        if bool((t.detach() > self.horizon * (1 + 1e-12)).any()):
            raise ArgumentError(
                f"times reach beyond the horizon of {self.horizon:g}",
                fix="make it with a longer horizon",
            )
        t, chosen = torch.broadcast_tensors(t, torch.as_tensor(choice, dtype=torch.float64))
        place = torch.searchsorted(knots, t.detach().contiguous()).clamp(1, len(knots) - 1)
        share = (t - knots[place - 1]) / (knots[place] - knots[place - 1])
        side = (chosen > 0.5).long()
        at = curve[side, place - 1] * (1 - share) + curve[side, place] * share
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
        """Times (step + 1,), densities (2, step) between them, probabilities (2, step + 1)."""
        size = self.horizon / m
        steps = [size / 2] * DAMPED + [size] * (m - DAMPED // 2)
        low, high = (bound(torch.zeros((), dtype=torch.float64)) for bound in self._bounds)
        y = (self.start - low) / (high - low)
        centers = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        # a point mass shared by two cells, so that its mean is where it should be
        mass = torch.clamp(1 - (centers - y).abs() * n, min=0.0)
        mass = mass / mass.sum()
        eye = torch.eye(n, dtype=torch.float64)
        now, times, lost = 0.0, [0.0], [[], []]
        before = None
        for k, step in enumerate(steps):
            after, exits = self._generator(now + step, n)
            if k < DAMPED:
                new = torch.linalg.solve(eye - step * after, mass)
                gone = exits @ new * step
            else:
                if before is None:
                    before = self._generator(now, n)
                half = mass + step / 2 * (before[0] @ mass)
                new = torch.linalg.solve(eye - step / 2 * after, half)
                gone = (before[1] @ mass + exits @ new) * (step / 2)
                before = (after, exits)
            for side in (0, 1):
                lost[side].append(gone[side])
            mass, now = new, now + step
            times.append(now)
        grid = torch.tensor(times, dtype=torch.float64)
        each = torch.stack([torch.stack(side) for side in lost])
        reached = torch.cat([torch.zeros(2, 1, dtype=torch.float64), each.cumsum(dim=1)], dim=1)
        return grid, each / grid.diff(), reached

    def _generator(self, t: float, n: int) -> tuple[Tensor, Tensor]:
        """d mass / dt = G mass at a time, and what leaves at either end: (2, cell)."""
        time = torch.tensor(t, dtype=torch.float64)
        (low, low_speed), (high, high_speed) = (_with_slope(bound, time) for bound in self._bounds)
        width, h = high - low, 1 / n
        faces = torch.arange(n + 1, dtype=torch.float64) / n
        centers = (faces[1:] + faces[:-1]) / 2
        drift = self._field((low + width * faces).unsqueeze(1), time)
        drift = (drift - low_speed - faces * (high_speed - low_speed)) / width
        spread = self._spread((low + width * centers).unsqueeze(1), time) / width**2
        at_faces = torch.cat([spread[:1], (spread[1:] + spread[:-1]) / 2, spread[-1:]])
        peclet = drift / at_faces * h
        inner = peclet[1:-1]
        forward, back = _bernoulli(-inner) / h**2, _bernoulli(inner) / h**2
        # cells lose to the right `forward` of r = D mass, and to the left `back`
        out_left = 2 * _bernoulli(peclet[:1] / 2) / h**2
        out_right = 2 * _bernoulli(-peclet[-1:] / 2) / h**2
        leaves = torch.cat([forward, out_right]) + torch.cat([out_left, back])
        G = torch.diag(-leaves * spread)
        G = G + torch.diag(forward * spread[:-1], -1) + torch.diag(back * spread[1:], 1)
        nothing = torch.zeros(n - 1, dtype=torch.float64)
        left = torch.cat([out_left * spread[:1], nothing])
        right = torch.cat([nothing, out_right * spread[-1:]])
        return G, torch.stack([left, right])

    def _field(self, x: Tensor, t: Tensor) -> Tensor:
        u = torch.zeros(self.system.n_inputs, dtype=torch.float64)
        return self.system.vector_field(t, x, u.expand(len(x), -1)).double().squeeze(-1)

    def _spread(self, x: Tensor, t: Tensor) -> Tensor:
        """Half the squared noise."""
        u = torch.zeros(self.system.n_inputs, dtype=torch.float64)
        shown = self._noise(t, x, u.expand(len(x), -1)).double().flatten(1)
        return (shown**2).sum(dim=1) / 2


def _as_function(bound: float | int | Tensor | Bound) -> Bound:
    if callable(bound):
        return lambda t: torch.as_tensor(bound(t), dtype=torch.float64).reshape(())
    level = torch.as_tensor(bound, dtype=torch.float64).reshape(())
    return lambda t: level + 0 * t


def _with_slope(bound: Bound, time: Tensor) -> tuple[Tensor, Tensor]:
    one = torch.ones((), dtype=torch.float64)
    value, slope = torch.func.jvp(bound, (time,), (one,))[:2]
    return value, slope


def _bernoulli(x: Tensor) -> Tensor:
    """x / (exp(x) - 1)."""
    small = x.abs() < 1e-4
    safe = torch.where(small, 1.0, x)
    return torch.where(small, 1 - x / 2 + x**2 / 12, safe / torch.expm1(safe))
