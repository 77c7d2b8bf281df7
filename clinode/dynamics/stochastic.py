"""Stochastic systems, dx = f(t, x, u) dt + g(t, x, u) dW in the sense of Ito, by fixed steps.

"euler": Euler-Maruyama, strong order 1/2 (1 for additive noise), weak order 1. "heun": the
Stratonovich form of the same equation, f - 1/2 sum_j (dg_j/dx) g_j, by Heun's method: strong order
1 where the noise commutes, 1/2 else, and second order in the drift. "milstein": strong order 1,
for noise that commutes and only for that: additive, one source, or diagonal where the noise of a
state depends on that state alone. Kloeden & Platen 1992, Numerical Solution of Stochastic
Differential Equations, chapters 10 and 11; Ruemelin 1982 (SIAM J. Numer. Anal. 19:604-613).
Derivatives of g are exact.

The normal number of trajectory i, step k and source j is a function of one key, drawn from the
given generator, and of (i, k, j): the noise of a trajectory depends on its place in the batch, not
on how many mates it has or what they do, and the first trajectories of a large batch are those of
a small one. The key of one call is independent of that of the next.

Events happen at the end of the step in which their guard was crossed. A threshold that noise
crosses between two looks is missed, so that rates of noisy threshold crossing are too low by a part
that falls with the square root of the step.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import System

from .adaptive import flattened, shaped, wants_gradient
from .events import Guards
from .fixed_step import jump_steps, march, step_grid
from .record import Record
from .rosenbrock import derivatives
from .solvers import Limits, Problem, Solution, Status, select

Noise = Callable[..., Tensor]  # (t, x, u)
Part = Callable[[float, Tensor], Tensor]  # drift or noise at a fraction of the step

STOCHASTIC = ("euler", "heun", "milstein")

GOLDEN = -0x61C8864680B583EB  # 2^64 / golden ratio, as a signed number
MULTIPLIERS = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)


class Wiener:
    """Standard normal numbers by trajectory, step and source.

    A counter-based generator: the finalizer of SplitMix64 (Steele, Lea & Flood 2014, OOPSLA) over
    a counter, one stream a trajectory; the inverse error function makes the numbers normal.

    Args:
        key: Of all streams.
        trajectory: Number of each stream, (row).
    """

    def __init__(self, key: int, trajectory: Tensor):
        self.streams = _mixed(_mixed(trajectory * GOLDEN + key) + GOLDEN)

    def __call__(self, step: int, n_sources: int, dtype: torch.dtype) -> Tensor:
        """(row, source), the same whenever it is asked for."""
        source = torch.arange(n_sources, device=self.streams.device)
        counter = step * n_sources + source + 1
        bits = _mixed(self.streams.unsqueeze(-1) + counter * GOLDEN)
        uniform = (((bits >> 11) & (2**53 - 1)).double() + 0.5) * 2.0**-53
        return (math.sqrt(2) * torch.erfinv(2 * uniform - 1)).to(dtype)


def _mixed(z: Tensor) -> Tensor:
    # >> on signed numbers drags the sign along, so the bits that come in from the left are cleared
    z = (z ^ ((z >> 30) & (2**34 - 1))) * MULTIPLIERS[0]
    z = (z ^ ((z >> 27) & (2**37 - 1))) * MULTIPLIERS[1]
    return z ^ ((z >> 31) & (2**33 - 1))


def solve_stochastic(
    system: System,
    problem: Problem,
    *,
    step: float,
    method: str = "euler",
    generator: torch.Generator,
    limits: Limits | None = None,
) -> Solution:
    """One path of each trajectory; differentiable, with the noise held fixed.

    Args:
        system: With `noise`.
        problem: What to solve.
        step: Largest step, in time units.
        method: One of `STOCHASTIC`.
        generator: Gives the key of the noise.
        limits: Wall time.

    Raises:
        ArgumentError: Noise of a wrong shape; noise that does not commute, for "milstein".
    """
    flat, limits = flattened(system, problem), limits or Limits()
    device = flat.x0.device
    key = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    everyone = torch.arange(len(flat.x0), device=device)
    solution = _solve(flat, everyone, key, step, method, limits)
    good = solution.status == Status.OK
    if not good.all() and good.any() and torch.is_grad_enabled() and wants_gradient(flat):
        # Zero times infinity in the backward pass of a failed path is NaN: leave them out.
        part = _solve(select(flat.system, flat, good), everyone[good], key, step, method, Limits())
        states = solution.states.detach().clone()
        states[good] = part.states
        solution = replace(solution, states=states)
    return shaped(solution, problem.batch)


def _solve(
    flat: Problem, who: Tensor, key: int, step: float, method: str, limits: Limits
) -> Solution:
    """The paths of the trajectories `who` of the whole batch."""
    scheme, signal, system = SCHEMES[method], flat.signal, flat.system
    noise = cast(Noise, system.noise)
    grid = step_grid(flat.times, signal.breakpoints.to(flat.times), step)
    wiener = Wiener(key, who)
    jumps = _Jumps(system, flat) if system.events else None
    check_noise(flat, method)

    def advance(k: int, start: Tensor, width: Tensor, x: Tensor) -> Tensor:
        middle = start + width / 2
        ends = [signal(t, within=middle).to(x.dtype) for t in (start, start + width)]
        free = None if jumps is None else jumps.guards.free(start.expand(len(x)))

        def drift(fraction: float, x: Tensor) -> Tensor:
            return system(start + fraction * width, x, ends[round(fraction)])

        def spread(fraction: float, x: Tensor) -> Tensor:
            return noise(start + fraction * width, x, ends[round(fraction)])

        h = width.to(x.dtype).expand(len(x)).unsqueeze(-1)
        g = spread(0.0, x)
        n_sources = g.shape[-1]
        dW = h.sqrt() * wiener(k, n_sources, x.dtype)
        after = scheme(drift, spread, h, x, g, dW)
        return after if free is None else torch.where(free, after, x)

    settle = None if jumps is None else jumps.settle
    jumped = jump_steps(signal, grid)
    solution = march(advance, flat, grid, N_DRIFTS[method], limits, jumped, settle)
    return solution if jumps is None else replace(solution, events=jumps.record.happenings())


def _euler(drift: Part, spread: Part, h: Tensor, x: Tensor, g: Tensor, dW: Tensor) -> Tensor:
    return x + h * drift(0.0, x) + _times(g, dW)


def _heun(drift: Part, spread: Part, h: Tensor, x: Tensor, g: Tensor, dW: Tensor) -> Tensor:
    f = drift(0.0, x) - _correction(lambda y: spread(0.0, y), x, g)
    guess = x + h * f + _times(g, dW)
    there = spread(1.0, guess)
    end = drift(1.0, guess) - _correction(lambda y: spread(1.0, y), guess, there)
    return x + h / 2 * (f + end) + (_times(g, dW) + _times(there, dW)) / 2


def _milstein(drift: Part, spread: Part, h: Tensor, x: Tensor, g: Tensor, dW: Tensor) -> Tensor:
    after = x + h * drift(0.0, x) + _times(g, dW)
    if g.ndim == x.ndim:
        return after + _own(lambda y: spread(0.0, y), x) * g * (dW**2 - h) / 2
    both = _along_each(lambda y: spread(0.0, y), x, g)
    products = dW.unsqueeze(-1) * dW.unsqueeze(-2) - torch.diag_embed(h.expand_as(dW))
    return after + torch.einsum("jril,rjl->ri", both, products) / 2


SCHEMES = {"euler": _euler, "heun": _heun, "milstein": _milstein}
N_DRIFTS = {"euler": 1, "heun": 2, "milstein": 1}  # evaluations of the field a step


def _times(g: Tensor, dW: Tensor) -> Tensor:
    """g dW, g diagonal (row, state) or (row, state, source)."""
    return g * dW if g.ndim == dW.ndim else (g @ dW.unsqueeze(-1)).squeeze(-1)


def _correction(spread: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> Tensor:
    """1/2 sum_j (dg_j/dx) g_j: what the Stratonovich drift lacks to the one of Ito."""
    if g.ndim == x.ndim:
        return _own(spread, x) * g / 2
    return _along_each(spread, x, g).diagonal(dim1=0, dim2=-1).sum(dim=-1) / 2


def _own(spread: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """dg_i/dx_i of diagonal noise, (row, state)."""
    jacobian, _ = derivatives(lambda t, y: spread(y), x.new_zeros(len(x)).double(), x)
    return jacobian.diagonal(dim1=-2, dim2=-1)


def _along_each(spread: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> Tensor:
    """(dg_l/dx) g_j: (source j, row, state, source l)."""
    directions = g.movedim(-1, 0).contiguous()
    states = x.repeat(len(directions), 1, 1)
    return torch.func.jvp(spread, (states,), (directions,))[1]


def check_noise(flat: Problem, method: str) -> None:
    """Refuse noise of a wrong shape, and for "milstein" noise that does not commute."""
    system, x = flat.system, flat.x0.detach()
    noise, name = cast(Noise, system.noise), type(system).__name__
    t = flat.times[..., 0].expand(len(x))
    u = flat.signal(t).to(x.dtype).detach()

    with torch.no_grad():
        g = noise(t, x, u)
    fits = g.shape == x.shape or (g.ndim == x.ndim + 1 and g.shape[:-1] == x.shape)
    if not fits:
        raise ArgumentError(
            f"the noise of {name} has shape {tuple(g.shape)}, expected (..., {x.shape[-1]}), "
            f"diagonal, or (..., {x.shape[-1]}, sources)"
        )
    if method != "milstein":
        return
    if g.ndim == x.ndim:
        jacobian, _ = derivatives(lambda s, y: noise(s, y, u), t, x)
        apart = jacobian - torch.diag_embed(jacobian.diagonal(dim1=-2, dim2=-1))
        commutes = not (apart * g.unsqueeze(-2)).abs().gt(1e-9 * jacobian.abs().max()).any()
    else:
        both = _along_each(lambda y: noise(t, y, u), x, g)
        gap = both - both.transpose(0, -1)
        commutes = not gap.abs().gt(1e-9 * both.abs().max()).any()
    if not commutes:
        raise ArgumentError(
            f"the noise of {name} does not commute, so that 'milstein' would not have its order",
            fix="method='euler' or 'heun', which have strong order 1/2 then",
        )


class _Jumps:
    """Events at the ends of steps."""

    def __init__(self, system: System, flat: Problem):
        self.system = system
        t = flat.times[..., 0].expand(len(flat.x0)).contiguous()
        self.guards = Guards(system, t)
        self.record = Record(len(flat.x0), len(system.events), t.device)
        self.rows = torch.arange(len(t), device=t.device)
        sign = self.guards.look(system, t, flat.x0).detach().sign().long()
        beyond = self.guards.resets & (sign * self.guards.direction > 0)
        self.guards.side = torch.where(beyond, 0, sign)  # it happens at the first look

    def settle(self, t: Tensor, x: Tensor, arrived: Tensor) -> Tensor:
        """The states after the events of those that arrived at t."""
        guards, t = self.guards, t.expand(len(x))
        sign = guards.look(self.system, t, x).detach().sign().long()
        resting = guards.release > t.unsqueeze(-1)
        sense = torch.where(guards.direction == 0, -guards.side, guards.direction)
        crossed = (sense * guards.side < 0) & (sense * sign >= 0)
        # A state that is beyond the guard of a reset when it is looked at again has crossed it.
        missed = (guards.side == 0) & guards.resets & (guards.direction != 0) & (sense * sign > 0)
        happens = (crossed | missed) & ~resting & arrived.unsqueeze(-1)
        if happens.any():
            some = happens.any(dim=-1)
            self.record.event(self.rows[some], t[some], happens[some], 0)
            x = guards.apply(self.system, t, x, torch.zeros_like(t), happens)
            sign = guards.look(self.system, t, x).detach().sign().long()
            resting = guards.release > t.unsqueeze(-1)
        side = torch.where(resting, 0, torch.where(sign == 0, guards.side, sign))
        guards.side = torch.where(arrived.unsqueeze(-1), side, guards.side)
        return x
