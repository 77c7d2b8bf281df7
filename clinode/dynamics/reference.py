"""Dormand-Prince 5(4) by torchdiffeq, one trajectory at a time, watched from outside.

torchdiffeq shares its step size over a batch, so a trajectory would depend on its mates; and it
checks itself by bare asserts that print the state and vanish under `python -O`. Here each
trajectory is solved alone, between the breakpoints of its input, and every step is watched. The
reference for our own methods, and the way to its adjoint equation: gradients that store no steps,
as exact as the tolerances, also of the solution backward in time.
"""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchdiffeq
from torch import Tensor

from clinode.errors import ArgumentError, SolverError
from clinode.system import Signal, System

from .impulses import jump
from .solvers import Limits, Problem, Solution, Status, select
from .walk import HOPELESS, PATIENCE

REFERENCE = ("torchdiffeq", "torchdiffeq_adjoint")


def solve_reference(
    system: System,
    problem: Problem,
    *,
    method: str = "torchdiffeq",
    rtol: float = 1e-6,
    atol: float = 1e-9,
    limits: Limits | None = None,
) -> Solution:
    """A batch by the Dormand-Prince 5(4) of torchdiffeq, one trajectory after the other.

    Args:
        system: Whose field is solved.
        problem: What to solve.
        method: One of `REFERENCE`; the adjoint differs in its gradients only.
        rtol: Relative tolerance of one step, in the root mean square over the states.
        atol: Absolute tolerance, in the states' units.
        limits: Steps of each, and wall time of all.

    Raises:
        ArgumentError: Tolerances that are not positive.
    """
    if not (rtol >= 0 and atol >= 0 and rtol + atol > 0):
        raise ArgumentError(f"tolerances must be positive, got rtol {rtol} and atol {atol}")
    limits = limits or Limits()
    deadline = time.monotonic() + limits.wall_time_seconds
    solve: Any = torchdiffeq.odeint if method == "torchdiffeq" else torchdiffeq.odeint_adjoint
    parts = []
    for index in np.ndindex(*problem.batch):
        left = max(deadline - time.monotonic(), 1e-9)
        own = Limits(max_steps=limits.max_steps, wall_time_seconds=left)
        parts.append(_solve_one(select(system, problem, index), solve, rtol, atol, own))

    def stacked(name: str) -> Tensor:
        each = torch.stack([getattr(part, name) for part in parts])
        return each.reshape((*problem.batch, *each.shape[1:]))

    return Solution(
        stacked("states"), stacked("status"), stacked("reached"), stacked("n_evaluations")
    )


def _solve_one(
    problem: Problem, integrate: Callable[..., Any], rtol: float, atol: float, limits: Limits
) -> Solution:
    """One trajectory (a problem without batch axes), piece by piece between its breakpoints."""
    watched = _Watched(problem, integrate, limits)
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
            retry = _Watched(problem, integrate, Limits(max_steps=limits.max_steps))
            with contextlib.suppress(_Stopped):
                states += retry.solve(x, start, outputs[-1], outputs, rtol, atol)
    missing = [torch.full_like(problem.x0, math.nan)] * (len(times) - len(states))
    return Solution(
        torch.stack([*states, *missing]),
        torch.tensor(status.value, device=problem.x0.device),
        problem.times.new_tensor(times[-1] if status is Status.OK else watched.reached),
        torch.tensor(watched.n_evaluations, device=problem.x0.device),
    )


class _Stopped(SolverError):
    """Carries a status out of torchdiffeq; an error to the caller where its adjoint meets it."""

    def __init__(self, status: Status):
        super().__init__(f"the solution of the adjoint equation ended: {status.words}")
        self.status = status


class _Watched:
    """The field of one trajectory as torchdiffeq calls it, with every step watched."""

    def __init__(self, problem: Problem, integrate: Callable[..., Any], limits: Limits):
        self.problem = problem
        self.integrate = integrate
        self.limits = limits
        self.deadline = time.monotonic() + limits.wall_time_seconds
        self.reached = float(problem.times[0])
        self.n_evaluations = 0
        self.n_steps = 0  # since `since`, the last output time behind
        self.since = self.reached
        self.times = problem.times.tolist()
        self.middle = problem.times[0]

    def solve(
        self, x: Tensor, start: float, end: float, outputs: list[float], rtol: float, atol: float
    ) -> list[Tensor]:
        """States at the output times and, last, at the end of a piece without breakpoints."""
        self.middle = self.problem.times.new_tensor((start + end) / 2)
        grid = [start, *outputs] if outputs and outputs[-1] == end else [start, *outputs, end]
        t = self.problem.times.new_tensor(grid)
        options = {"rtol": rtol, "atol": atol, "method": "dopri5", "options": {"step_t": t[-1:]}}
        if self.integrate is not torchdiffeq.odeint:
            options["adjoint_params"] = self._live()
        states = self.integrate(self, x, t, **options)
        if not isinstance(states, Tensor) or not states.isfinite().all():
            raise _Stopped(Status.NOT_FINITE)
        self.reached = end
        return list(states[1:])

    def _live(self) -> tuple[Tensor, ...]:
        """What the gradient is taken with respect to, besides the start."""
        system, signal = self.problem.field, self.problem.signal
        tensors = [*system.parameters(), *system.buffers()] if isinstance(system, System) else []
        if isinstance(signal, Signal):
            tensors.append(signal.values)
        return tuple(tensor for tensor in tensors if tensor.requires_grad)

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
        if self.n_steps > self.limits.max_steps or self._is_hopeless():
            raise _Stopped(Status.STEP_BUDGET)
        if time.monotonic() > self.deadline:
            raise _Stopped(Status.WALL_TIME)

    def _is_hopeless(self) -> bool:
        """Whether the rest of the way to the next output would take many times the budget."""
        left = min((t for t in self.times if t > self.reached), default=self.reached) - self.reached
        allowed = HOPELESS * self.limits.max_steps * (self.reached - self.since)
        return self.n_steps > PATIENCE and left * self.n_steps > allowed

    def callback_accept_step(self, t: Tensor, x: Tensor, width: Tensor) -> None:
        """Called by torchdiffeq after each accepted step, with the time where it began."""
        before, self.reached = self.reached, float((t + width).detach())
        behind = [t for t in self.times if before < t <= self.reached]
        if behind:
            self.since, self.n_steps = behind[-1], 0
