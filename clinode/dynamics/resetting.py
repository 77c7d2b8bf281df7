"""Firing of neurons that reset: their cycles pass through an event, so they are simulated.

The flow between events has the equilibria; where rest is not lost to a bifurcation of theirs, it is
lost to the threshold itself.
"""

import math
from typing import Any

import numpy as np
import torch
from scipy.optimize import root_scalar

from clinode.errors import SolverError
from clinode.system import Event, System

from .branch import Branch, Origin, SpecialPoint, scalar
from .field import Field, held_at, scales
from .recurrence import crossing_time
from .simulate import simulate
from .singular import newton

LEVELS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of the span above the onset, where firing is timed
NEARER = (1e-7, 1e-6)  # at a fold, whose square root is met late
RTOL = 1e-6
RTOL_NEARER = 1e-8  # the error of a step must be small against how far the fold is
DOUBLINGS = 10  # of the duration, until the last two intervals agree
MANY = 60  # intervals after which those that do not agree are taken for irregular
AGREED = 0.005  # relative difference of the last two intervals
PUSH = 0.02  # scales, off an equilibrium that repels


def resets(system: System) -> tuple[Event, ...]:
    """Events that move or hold the state, so that its cycles are not those of the flow."""
    return tuple(event for event in system.events if event.reset is not None or event.held)


def threshold_point(
    system: System, u: Any, equilibria: Branch, lost: SpecialPoint | None
) -> SpecialPoint | None:
    """Where rest reaches a threshold, if it does so before it is lost otherwise."""
    end = len(equilibria)
    if lost is not None:
        here = np.append(lost.state.detach().numpy(), float(lost.value.detach()))
        there = np.column_stack([equilibria.states, equilibria.values])
        end = int(np.argmin(np.linalg.norm((there - here) / np.ptp(there, axis=0), axis=1))) + 1
    found = []
    for event in resets(system):
        points = zip(equilibria.values[:end], equilibria.states[:end], strict=True)
        guards = [_guard(event, system, u, equilibria.parameter, p, x) for p, x in points]
        rises = np.array(guards) * (event.direction or 1)
        crossed = np.flatnonzero((rises[:-1] < 0) & (rises[1:] >= 0))
        if len(crossed):
            found.append((int(crossed[0]), event))
    if not found:
        return None
    index, event = min(found, key=lambda one: one[0])
    return _located(system, u, equilibria, index, event)


def _guard(event: Event, system: System, u: Any, parameter: str, p: float, x: np.ndarray) -> float:
    there, _ = held_at(system, u, parameter, float(p))
    with torch.no_grad():
        return float(event.guard(there, 0.0, torch.tensor(x)))


def _located(
    system: System, u: Any, equilibria: Branch, index: int, event: Event
) -> SpecialPoint | None:
    dynamics = Field(system, u, [equilibria.parameter])
    states, values = equilibria.states[index : index + 2], equilibria.values[index : index + 2]

    def rest(share: float) -> tuple[float, np.ndarray]:
        p = float(values[0] + share * (values[1] - values[0]))
        x = newton(dynamics.fixed([p]).jacobian, states[0] + share * (states[1] - states[0]))
        if x is None:
            raise SolverError("rest was lost where it reaches its threshold")
        return p, x

    def above(share: float) -> float:
        return _guard(event, system, u, equilibria.parameter, *rest(share))

    try:
        share = float(root_scalar(above, bracket=(0.0, 1.0), xtol=1e-13).root)
        p, x = rest(share)
    except (SolverError, ValueError):  # no rest at all, or no change of sign, between the points
        return None
    return SpecialPoint(
        kind="threshold",
        value=scalar(p),
        state=torch.tensor(x),
        values={equilibria.parameter: p},
        origin=Origin(system, dynamics.live_u, equilibria.parameter, np.empty((0, len(x) + 1))),
    )


def firing_periods(
    system: System, parameter: str, u: Any, lost: SpecialPoint, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals between the events of regular firing at levels above the end of rest.

    Args:
        system: One that resets.
        parameter: An input or constant.
        u: Its inputs.
        lost: Where rest ends.
        width: Of the span that the levels are parts of.

    Returns:
        The parameter (level,), from the onset outward, and the interval (level,); only levels at
        which it fires regularly.
    """
    value = float(lost.value.detach())
    at_onset = Field(system, u, [parameter]).fixed([value])
    x = lost.state.detach()
    duration = max(10.0 * crossing_time(at_onset, x.numpy()), _slowest(at_onset, lost))
    start = x + PUSH * torch.tensor(scales(system.states))
    levels, rtol = (NEARER + LEVELS, RTOL_NEARER) if lost.kind == "fold" else (LEVELS, RTOL)
    p = value + width * np.array(levels)
    held = [held_at(system, u, parameter, one) for one in p]
    if all(there is system for there, _ in held):  # an input: all levels at once
        together = [(system, torch.stack([given.broadcast_to(system.n_inputs)
                                          for _, given in held]))]  # fmt: skip
    else:
        together = [(there, given[None]) for there, given in held]
    found = [_intervals(there, given, start, duration, rtol) for there, given in together]
    periods = np.concatenate(found)
    regular = np.isfinite(periods)
    return p[regular], periods[regular]


def _slowest(at_onset: Field, lost: SpecialPoint) -> float:
    """The slowest time constant of the flow where rest ends, but for one that diverges there."""
    x = lost.state.detach().numpy()
    rates = np.sort(np.abs(np.linalg.eigvals(at_onset.jacobian(x[None])[1][0])))
    rates = rates[int(lost.kind not in ("hopf", "threshold")) :]
    return 1.0 / float(rates[0]) if len(rates) else 0.0


def _intervals(
    system: System, u: torch.Tensor, start: torch.Tensor, duration: float, rtol: float
) -> np.ndarray:
    """The last interval between events for each row of inputs; NaN where no two agree."""
    names = [event.name for event in resets(system)]
    moments: list[list[float]] = [[] for _ in range(len(u))]
    periods = np.full(len(u), np.nan)
    x, elapsed, rows = start.expand(len(u), -1), 0.0, np.arange(len(u))
    for _ in range(DOUBLINGS):
        with torch.no_grad():
            path = simulate(
                system, x, [0.0, duration], u[rows], rtol=rtol, atol=1e-3 * rtol, keep_failed=True
            )
        fired = path.events[path.events["name"].isin(names)]
        for row, time in zip(fired["trajectory"], fired["time"], strict=True):
            moments[rows[int(row)]].append(elapsed + float(time))
        for row in rows:
            intervals = np.diff(moments[row][-3:])
            if len(intervals) == 2 and math.isclose(*intervals, rel_tol=AGREED):
                periods[row] = intervals[-1]
        x = path.states[..., -1, :]
        elapsed, duration = elapsed + duration, 2 * duration
        undecided = np.isnan(periods[rows]) & (path.status == "ok")
        undecided &= np.array([len(moments[row]) <= MANY for row in rows])
        x, rows = x[torch.as_tensor(undecided)], rows[undecided]
        if not len(rows):
            break
    return periods
