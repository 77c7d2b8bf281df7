"""The period of a trajectory that returns to where it was."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from clinode.errors import SolverError

from .field import Field, bounds_or_unit, scales
from .simulate import simulate

SAMPLES = 1000  # of one window
WINDOWS = 14  # each twice as long as the one before
NEAR = 0.02  # of the orbit's extent: a return
FAR = 1e6  # scales: gone
AT_REST = 1e-7  # of the box, in the whole of the last window


@dataclass(frozen=True, eq=False)
class Return:
    """One round of a trajectory.

    Attributes:
        period: Estimated.
        times: (time,), of one round, from 0.
        states: (time, state).
        winding: (state,), whole turns of angles.
    """

    period: float
    times: np.ndarray
    states: np.ndarray
    winding: np.ndarray


def find_recurrence(dynamics: Field, x: np.ndarray, period: float | None) -> Return:
    """Simulate until the trajectory has come back close to where it was.

    Args:
        dynamics: A field without parameters.
        x: (state,), where to start.
        period: If known: then one round is simulated and taken as it is, close or not, which may
            lead to an unstable cycle.

    Raises:
        SolverError: The trajectory comes to rest, grows without bound, or does not return.
    """
    system = dynamics.system
    angles = np.zeros(len(x))
    angles[list(dynamics.angles)] = 2 * math.pi
    if period is not None:
        times, states = _run(dynamics, x, period)
        turns = np.where(angles > 0, np.round((states[-1] - x) / np.where(angles, angles, 1)), 0)
        return Return(period, times, states, turns * angles)
    size = scales(system.states)
    low, high = bounds_or_unit(system.states)
    places = low + (high - low) * np.random.default_rng(0).random((32, len(x)))
    speeds = np.abs(dynamics.value(np.vstack([places, x])) / size).max(axis=1)
    window = 20.0 / max(float(np.median(speeds[np.isfinite(speeds)])), 1e-12)
    for _ in range(WINDOWS):
        times, states = _run(dynamics, x, window)
        if np.abs(states / size).max() > FAR:
            raise SolverError(
                "the trajectory grows without bound",
                where=type(system).__name__,
                fix="start elsewhere",
            )
        if (np.ptp(states[len(states) // 2 :], axis=0) / size).max() < AT_REST:
            raise SolverError(
                "the trajectory comes to rest, so there is no cycle to find from there",
                where=type(system).__name__,
                fix="start elsewhere, or follow cycles from a Hopf point",
            )
        found = _last_round(times, states, size, angles)
        if found is not None:
            return found
        x, window = states[-1], 2 * window
    raise SolverError(
        f"the trajectory did not return to itself within {window:.4g} {system.time_unit}",
        where=type(system).__name__,
        fix="give a start near the cycle, or its period",
    )


def _run(dynamics: Field, x: np.ndarray, duration: float) -> tuple[np.ndarray, np.ndarray]:
    times = np.linspace(0.0, duration, SAMPLES + 1)
    with torch.no_grad():
        path = simulate(dynamics.system, x, times, dynamics.u, rtol=1e-5, atol=1e-8)
    return times, path.states.numpy()


def _last_round(
    times: np.ndarray, states: np.ndarray, size: np.ndarray, angles: np.ndarray
) -> Return | None:
    """The last round of a trajectory whose last two rounds agree."""
    gap = (states - states[-1]) / size
    turned = np.where(angles > 0, np.round(gap * size / np.where(angles, angles, 1.0)), 0.0)
    gap = np.linalg.norm(gap - turned * angles / size, axis=1)
    extent = gap.max()
    is_low = (gap[1:-1] <= gap[:-2]) & (gap[1:-1] < gap[2:]) & (gap[1:-1] < NEAR * extent)
    lows = np.flatnonzero(is_low) + 1
    # Samples that never left the neighbourhood of the last one are no return.
    away = np.flatnonzero(gap > 0.1 * extent)
    lows = lows[lows < away[-1]] if len(away) else lows[:0]
    if len(lows) < 2:
        return None
    last, before = lows[-1], lows[-2]
    first, second = times[-1] - times[last], times[last] - times[before]
    if abs(first - second) > 0.02 * first or not (away > last).any():
        return None
    winding = -turned[last] * angles
    return Return(first, times[last:] - times[last], states[last:], winding)
