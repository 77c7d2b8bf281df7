"""Systems whose field reads the past, by fixed steps: x'(t) = f(t, x(t), u(t), x(t - tau)).

Between two steps the past is the cubic through both states and slopes, so the order of the method
is kept up to four. What is not smooth at the start comes back after every delay, one derivative
smoother each time; steps end at these times while they matter and are few (Bellen & Zennaro 2003,
Numerical Methods for Delay Differential Equations, ch. 2). A delay of zero reads the present.

With noise, dx = f(t, x(t), u, x(t - tau)) dt + g(t, x(t), u) dW in the sense of Ito, the schemes
are "euler" (Buckwar 2000, J. Comput. Appl. Math. 125:297-307) and "heun" as in
`clinode.dynamics.stochastic`; the past is then a line between two steps. Noise does not read the
past.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Past, System, delay_times

from .adaptive import flattened, shaped
from .fixed_step import FIXED_STEP, jump_steps, march, step_grid
from .runge_kutta import hermite_curve, interpolate
from .solvers import Limits, Problem, Solution
from .stochastic import N_DRIFTS, SCHEMES, Noise, Wiener, check_noise

Rate = Callable[[float, Tensor], Tensor]  # at a fraction of the step
Take = Callable[[int, Tensor, Rate, Tensor, Tensor], tuple[Tensor, ...]]
History = Callable[[Tensor], Tensor]  # times (...) not after the start -> states (..., state)

ECHOES = 4  # times that a kink comes back before it is too smooth to matter
SIDE = 1e-6  # of half a step: how far inside it a time is looked up that lies at its end
MAX_ECHOES = 256  # breakpoints of one trajectory; with more, steps end where they end


def solve_delayed(
    system: System,
    problem: Problem,
    *,
    step: float,
    method: str = "rk4",
    history: History | None = None,
    generator: torch.Generator | None = None,
    limits: Limits | None = None,
) -> Solution:
    """Explicit Runge-Kutta with steps of at most `step` and an interpolated past; differentiable.

    With a generator the system's noise is drawn, as in `clinode.dynamics.stochastic`.

    Args:
        system: With `delays`, whose times are positive or zero.
        problem: What to solve.
        step: Largest step, in time units; not above the shortest delay.
        method: A key of `clinode.dynamics.fixed_step.FIXED_STEP`.
        history: States before the start; the initial state by default.
        generator: Gives the key of the noise; None for the flow alone.
        limits: Wall time.

    Raises:
        ArgumentError: A step above the shortest delay.
    """
    flat = flattened(system, problem)
    memory = _Memory(flat, history)
    shortest = memory.shortest()
    if step > shortest * (1 + 1e-9):
        raise ArgumentError(
            f"a step of {step:g} reaches beyond the shortest delay of {type(system).__name__}, "
            f"{shortest:g} {system.time_unit}",
            fix="give a step that is not longer than that",
        )
    signal = flat.signal
    if generator is None:
        take, n_rates = _along_flow(method), FIXED_STEP[method][1] + 1
    else:
        take, n_rates = _with_noise(flat, method, generator), N_DRIFTS[method]
    grid = step_grid(flat.times, memory.kinks(), step)
    memory.nodes = grid.nodes.expand(len(flat.x0), -1).contiguous()

    def advance(k: int, start: Tensor, width: Tensor, x: Tensor) -> Tensor:
        middle = start + width / 2

        def rate(fraction: float, x: Tensor) -> Tensor:
            t = (start + fraction * width).expand(len(x))
            u = signal(t, within=middle.expand(len(x))).to(x.dtype)
            return flat.field(t, x, u, memory.past(t, x, middle))

        memory.open(k)
        after, *slopes = take(k, start, rate, width.to(x.dtype).expand(len(x)).unsqueeze(-1), x)
        memory.append(width.expand(len(x)), x, after, *slopes)
        return after

    jumps = jump_steps(signal, grid)
    solution = march(advance, flat, grid, n_rates, limits or Limits(), jumps)
    return shaped(solution, problem.batch)


def _along_flow(method: str) -> Take:
    """A step of the flow: its end, and the slopes at both ends."""
    one_step, _ = FIXED_STEP[method]

    def take(k: int, start: Tensor, rate: Rate, h: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        slopes = []

        def noted(fraction: float, x: Tensor) -> Tensor:
            slopes.append(rate(fraction, x))
            return slopes[-1]

        after = one_step(noted, h, x)
        return after, slopes[0], rate(1.0, after)

    return take


def _with_noise(flat: Problem, method: str, generator: torch.Generator) -> Take:
    """A step with noise: its end, and twice the slope of the line to it."""
    check_noise(flat, method)
    noise, signal, rows = cast(Noise, flat.system.noise), flat.signal, len(flat.x0)
    key = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    wiener = Wiener(key, torch.arange(rows, device=flat.x0.device))

    def take(k: int, start: Tensor, rate: Rate, h: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        begin, width = start.expand(rows), h.squeeze(-1).to(start.dtype)

        def spread(fraction: float, x: Tensor) -> Tensor:
            t = begin + fraction * width
            return noise(t, x, signal(t, within=begin + width / 2).to(x.dtype))

        g = spread(0.0, x)
        dW = h.sqrt() * wiener(k, g.shape[-1], x.dtype)
        after = SCHEMES[method](rate, spread, h, x, g, dW)
        line = (after - x) / torch.where(h > 0, h, 1.0)
        return after, line, line

    return take


class _Memory:
    """The steps taken so far, as far back as a delay reaches.

    Args:
        flat: The problem, with one batch axis.
        history: States before the start.
    """

    def __init__(self, flat: Problem, history: History | None):
        self.flat, self.history = flat, history
        system, n = flat.system, len(flat.x0)
        declared = {quantity.name for quantity in system.constants}
        names = {delay.state: delay.times for delay in system.delays}
        sizes = {quantity.name: quantity.size for quantity in system.states}
        self.lags: dict[str, Tensor] = {}  # (row, *d, size), times float64
        for state, times in delay_times(system).items():
            times = times.detach().double()
            if names[state] not in declared:
                times = times.unsqueeze(0)
            shape = (n, *times.shape[1:-1], sizes[state])
            self.lags[state] = (times if times.ndim > 1 else times.unsqueeze(0)).expand(shape)
        self.start = flat.times[..., 0].expand(n)
        self.longest = max(float(lag.max()) for lag in self.lags.values())
        self.nodes = torch.empty(0)
        self.steps: list[tuple[Tensor, ...]] = []
        self.first = 0  # number of the oldest step that is kept
        self.window: tuple[Tensor, ...] = ()

    def shortest(self) -> float:
        """The shortest delay that is not zero; infinity where all are."""
        positive = [lag[lag > 0] for lag in self.lags.values()]
        return min((float(lag.min()) for lag in positive if len(lag)), default=torch.inf)

    def kinks(self) -> Tensor:
        """Breakpoints of the input, and the echoes of these and of the start."""
        n, flat = len(self.start), self.flat
        breaks = flat.signal.breakpoints.to(flat.times)
        breaks = breaks.expand(n, breaks.shape[-1])
        lags = torch.cat([lag.reshape(n, -1) for lag in self.lags.values()], dim=-1)
        distinct = lags.unique(dim=-1)
        sources = torch.cat([self.start.unsqueeze(-1), breaks], dim=-1)
        if ECHOES * sources.shape[-1] * distinct.shape[-1] > MAX_ECHOES:
            return breaks
        times = torch.arange(1, ECHOES + 1, device=lags.device)
        echoes = (distinct.unsqueeze(-1) * times).reshape(n, 1, -1)
        echoes = (sources.unsqueeze(-1) + echoes).reshape(n, -1)
        return torch.cat([breaks, echoes], dim=-1).sort(dim=-1).values

    def open(self, k: int) -> None:
        """Make the past of step k ready: forget what no delay reaches, and stack the rest."""
        reach = self.nodes[:, k] - self.longest
        while self.steps and (self.nodes[:, self.first + 1] < reach).all():
            del self.steps[0]
            self.first += 1
        self.window = tuple(torch.stack(part, dim=1) for part in zip(*self.steps, strict=True))

    def append(self, width: Tensor, *ends: Tensor) -> None:
        """Keep a step: its width, the states at both ends, the slopes there."""
        self.steps.append((width, *ends))

    def past(self, t: Tensor, x: Tensor, middle: Tensor) -> Past:
        """The delayed states as the field reads them at time t of the step around `middle`.

        Where the past jumps or bends just a delay ago, both ends of a step see its own side of it.
        """
        inward = SIDE * (middle - t)
        found, place = {}, 0
        for quantity in self.flat.system.states:
            block = slice(place, place + quantity.size)
            place += quantity.size
            if quantity.name in self.lags:
                found[quantity.name] = self._block(t, x, self.lags[quantity.name], block, inward)
        return found

    def _block(self, t: Tensor, x: Tensor, lag: Tensor, block: slice, inward: Tensor) -> Tensor:
        n, size = len(t), lag.shape[-1]
        flat = lag.reshape(n, -1, size)
        when = t.reshape(n, 1, 1) - flat
        value = self._before(when, block).to(x.dtype)
        if self.steps:
            side = when + inward.reshape(-1, 1, 1)
            known = self._known(when, side, block)
            value = torch.where(side > self.start.reshape(n, 1, 1), known, value)
        present = x[:, block].unsqueeze(1).expand(value.shape)
        return torch.where(flat == 0, present, value).reshape(lag.shape)

    def _before(self, when: Tensor, block: slice) -> Tensor:
        """States before the start at (row, delay, member)."""
        if self.history is None:
            return self.flat.x0[:, block].unsqueeze(1).expand(when.shape)
        early = torch.minimum(when, self.start.reshape(-1, 1, 1))
        return self.history(early)[..., block].diagonal(dim1=-2, dim2=-1)

    def _known(self, when: Tensor, side: Tensor, block: slice) -> Tensor:
        """States between start and now at (row, delay, member), by the step around `side`."""
        n, latest = len(when), self.first + len(self.steps) - 1
        step = torch.searchsorted(self.nodes, side.reshape(n, -1), right=True) - 1
        step = step.reshape(when.shape).clamp(self.first, latest)
        begin = self.nodes.gather(-1, step.reshape(n, -1)).reshape(when.shape)
        place = step - self.first
        width = self.window[0].gather(1, place.reshape(n, -1)).reshape(when.shape)
        x, after, slope, last = (part[..., block].gather(1, place) for part in self.window[1:])
        safe = torch.where(width > 0, width, 1.0)
        theta = ((when - begin) / safe).clamp(-SIDE, 1 + SIDE)
        x, after, slope, last = (part.unsqueeze(-1) for part in (x, after, slope, last))
        curve = hermite_curve(safe, x, after, (slope, last))
        return interpolate(theta, x, after, curve).squeeze(-1)
