"""Dormand-Prince 5(4) by torchdiffeq, one trajectory at a time, watched from outside.

torchdiffeq shares its step size over a batch, so a trajectory would depend on its mates; and it
checks itself by bare asserts that print the state and vanish under `python -O`. Here each
trajectory is solved alone, between the breakpoints of its input, and every step is watched.
"""

import contextlib
import math
import time
from collections.abc import Callable

import numpy as np
import torch
import torchdiffeq
from torch import Tensor

from clinode.system import System

from .impulses import jump
from .solvers import Limits, Problem, Solution, Status, select


def solve_dopri5(
    problem: Problem, *, rtol: float = 1e-6, atol: float = 1e-9, limits: Limits | None = None
) -> Solution:
    """Dormand-Prince 5(4) of torchdiffeq for one trajectory (a problem without batch axes).

    Its steps end at the breakpoints of the input.

    Args:
        problem: What to solve; `x0` is (state,).
        rtol: Relative tolerance of one step, in the root mean square over the states.
        atol: Absolute tolerance, in the states' units.
        limits: Steps and wall time.
    """
    watched = _Watched(problem, limits or Limits())
    times = problem.times.tolist()
    breaks = problem.signal.breakpoints.tolist()
    inside = sorted({t for t in breaks if times[0] < t < times[-1]})
    ends = [*inside, times[-1]] if len(times) > 1 else []
    x, start, states = problem.x0, times[0], [problem.x0]
    status = Status.OK
    try:
        for end in ends:
            at = problem.times.new_tensor(start)
            x = jump(problem.field, problem.signal, at, x)
            outputs = [t for t in times if start < t <= end]
            found = watched.solve(x, start, end, outputs, rtol, atol)
            states += found[: len(outputs)]
            x, start = found[-1], end
    except _Stopped as stop:
        status = stop.status
        outputs = [t for t in times if start < t <= watched.reached]
        if outputs and status is not Status.WALL_TIME:
            # torchdiffeq keeps nothing of a failed call: the same steps again, up to that output.
            retry = _Watched(problem, Limits(max_steps=watched.limits.max_steps))
            with contextlib.suppress(_Stopped):
                states += retry.solve(x, start, outputs[-1], outputs, rtol, atol)
    missing = [torch.full_like(problem.x0, math.nan)] * (len(times) - len(states))
    return Solution(
        torch.stack([*states, *missing]),
        torch.tensor(status.value, device=problem.x0.device),
        problem.times.new_tensor(times[-1] if status is Status.OK else watched.reached),
        torch.tensor(watched.n_evaluations, device=problem.x0.device),
    )


def one_by_one(system: System, problem: Problem, solve: Callable[[Problem], Solution]) -> Solution:
    """A batch solved trajectory by trajectory, by a solver that knows no batches."""
    parts = [solve(select(system, problem, index)) for index in np.ndindex(*problem.batch)]
    fields = ("states", "status", "reached", "n_evaluations")
    stacked = [torch.stack([getattr(part, name) for part in parts]) for name in fields]
    return Solution(*(part.reshape((*problem.batch, *part.shape[1:])) for part in stacked))


class _Stopped(Exception):
    """Carries a status out of torchdiffeq."""

    def __init__(self, status: Status):
        super().__init__(status.words)
        self.status = status


class _Watched:
    """The field of one trajectory as torchdiffeq calls it, with every step watched."""

    def __init__(self, problem: Problem, limits: Limits):
        self.problem = problem
        self.limits = limits
        self.deadline = time.monotonic() + limits.wall_time_seconds
        self.reached = float(problem.times[0])
        self.n_evaluations = 0
        self.n_steps = 0
        self.middle = problem.times[0]

    def solve(
        self, x: Tensor, start: float, end: float, outputs: list[float], rtol: float, atol: float
    ) -> list[Tensor]:
        """States at the output times and, last, at the end of a piece without breakpoints."""
        self.middle = self.problem.times.new_tensor((start + end) / 2)
        grid = [start, *outputs] if outputs and outputs[-1] == end else [start, *outputs, end]
        t = self.problem.times.new_tensor(grid)
        states = torchdiffeq.odeint(
            self, x, t, rtol=rtol, atol=atol, method="dopri5", options={"step_t": t[-1:]}
        )
        if not isinstance(states, Tensor) or not states.isfinite().all():
            raise _Stopped(Status.NOT_FINITE)
        self.reached = end
        return list(states[1:])

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.n_evaluations += 1
        u = self.problem.signal(t, within=self.middle)
        rate = self.problem.field(t, x, u.to(x.dtype))
        if not rate.isfinite().all():
            raise _Stopped(Status.NOT_FINITE)
        return rate

    def callback_step(self, t: Tensor, x: Tensor, width: Tensor) -> None:
        """Called by torchdiffeq before each attempted step."""
        self.n_steps += 1
        if not x.isfinite().all():
            raise _Stopped(Status.NOT_FINITE)
        if not t + width > t:
            raise _Stopped(Status.STEP_UNDERFLOW)
        if self.n_steps > self.limits.max_steps:
            raise _Stopped(Status.STEP_BUDGET)
        if time.monotonic() > self.deadline:
            raise _Stopped(Status.WALL_TIME)

    def callback_accept_step(self, t: Tensor, x: Tensor, width: Tensor) -> None:
        """Called by torchdiffeq after each accepted step, with the time where it began."""
        self.reached = float((t + width).detach())
