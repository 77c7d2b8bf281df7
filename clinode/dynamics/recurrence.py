"""The period of a trajectory that returns to where it was."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.integrate import solve_ivp

from clinode.errors import SolverError

from .field import Field, bounds_or_unit, scales

FEWEST_STEPS = 400  # of one trajectory, so that no round is stepped over
WINDOWS = 14  # each twice as long as the one before
NEAR = 0.02  # of the orbit's extent: a return
ALIKE = 0.03  # how far the extents of the last two rounds may differ
SMALLEST = 1e-5  # scales: rounds below it are the solver's error
FAR = 1e6  # scales: gone
MAX_EVALUATIONS = 60_000  # of the field, of one trajectory
AT_REST = SMALLEST  # in the whole second half of a window


@dataclass(frozen=True, eq=False)
class Path:
    """A trajectory at the steps of its solver.

    Attributes:
        times: (time,).
        states: (time, state).
        stayed: False where it ended early, beyond FAR.
    """

    times: np.ndarray
    states: np.ndarray
    stayed: bool

    def is_at_rest(self, size: np.ndarray, tolerance: float) -> bool:
        """Whether nothing moved any more in its second half."""
        late = self.states[np.searchsorted(self.times, self.times[-1] / 2) - 1 :]
        return bool((np.ptp(late, axis=0) / size).max() < tolerance)


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
    turn = whole_turns(dynamics)
    if period is not None:
        round_ = _round(dynamics, x, period, np.zeros(len(x)))
        turns = np.round((round_.states[-1] - x) / np.where(turn > 0, turn, np.inf))
        return Return(period, round_.times, round_.states, turns * turn)
    size = scales(system.states)
    window = 20.0 * crossing_time(dynamics, x)
    for _ in range(WINDOWS):
        path = _stayed(dynamics, trace(dynamics, x, window))
        if path.is_at_rest(size, AT_REST):
            raise SolverError(
                "the trajectory comes to rest, so there is no cycle to find from there",
                where=type(system).__name__,
                fix="start elsewhere, or follow cycles from a Hopf point",
            )
        found = last_round(path, size, turn)
        if found is not None:
            return _round(dynamics, *found)
        x, window = path.states[-1], 2 * window
    raise SolverError(
        f"the trajectory did not return to itself within {window:.4g} {system.time_unit}",
        where=type(system).__name__,
        fix="give a start near the cycle, or its period",
    )


def whole_turns(dynamics: Field) -> np.ndarray:
    """(state,): 2 pi for angles, else 0."""
    turn = np.zeros(dynamics.n_states)
    turn[list(dynamics.angles)] = 2 * math.pi
    return turn


def trace(dynamics: Field, x: np.ndarray, duration: float, times: np.ndarray | None = None) -> Path:
    """A trajectory, by default at the steps that its solver takes.

    LSODA (Petzold 1983, SIAM J. Sci. Stat. Comput. 4:136), which turns implicit where a fast
    variable asks for it.

    Raises:
        SolverError: No step is short enough, or the budget of evaluations is spent.
    """
    size, spent = scales(dynamics.system.states), 0

    def rate(t: float, y: np.ndarray) -> np.ndarray:
        nonlocal spent
        spent += 1
        if spent > MAX_EVALUATIONS:
            raise _Spent
        value = dynamics.value(y * size) / size
        return np.where(np.isfinite(value), value, 0.0)

    def beyond(t: float, y: np.ndarray) -> float:
        return float(FAR - np.abs(y).max())

    beyond.terminal = True  # type: ignore[attr-defined]
    name, unit = type(dynamics.system).__name__, dynamics.system.time_unit
    try:
        solved = solve_ivp(
            rate, (0.0, duration), x / size, "LSODA", events=beyond, rtol=1e-6, atol=1e-9,
            max_step=duration / FEWEST_STEPS,
        )  # fmt: skip
    except _Spent:
        raise SolverError(
            f"a trajectory over {duration:.4g} {unit} took more than {MAX_EVALUATIONS} evaluations",
            where=name,
            fix="start elsewhere, or nearer to the cycle and with its period",
        ) from None
    if solved.status < 0:
        problem = f"a trajectory could not be solved: {solved.message}"
        raise SolverError(problem, where=name, fix="start elsewhere")
    return Path(solved.t, solved.y.T * size, solved.status == 0)


class _Spent(Exception):
    """The budget of evaluations is spent."""


def last_round(
    path: Path, size: np.ndarray, turn: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray] | None:
    """Start, period and winding of the last round, where the last two rounds agree.

    Rounds are told apart where the trajectory is slow: steps lie close together there, however
    fast the rest is. Between steps the trajectory is taken as straight.
    """
    if len(path.times) < 12:
        return None
    moved, passed = np.diff(path.states, axis=0) / size, np.diff(path.times)
    late = 3 * len(passed) // 4
    end = late + int(np.argmin(np.linalg.norm(moved[late:], axis=1) / passed[late:])) + 1
    times, states, moved = path.times[:end], path.states[:end], moved[: end - 1]
    gap = states - states[-1]
    turned = np.round(gap / np.where(turn > 0, turn, np.inf))
    gap = (gap - turned * turn) / size
    share = -(gap[:-1] * moved).sum(axis=1) / np.maximum((moved**2).sum(axis=1), 1e-300)
    share = np.clip(share, 0.0, 1.0)
    near = np.linalg.norm(gap[:-1] + share[:, None] * moved, axis=1)
    distance = np.linalg.norm(gap, axis=1)
    extent = distance.max()
    is_low = (near[1:-1] <= near[:-2]) & (near[1:-1] < near[2:]) & (near[1:-1] < NEAR * extent)
    lows = np.flatnonzero(is_low) + 1
    # What never left the neighbourhood of the last state is no return.
    away = np.flatnonzero(distance > 0.1 * extent)
    lows = lows[lows < away[-1]] if len(away) else lows[:0]
    if len(lows) < 2:
        return None
    before, last = lows[-2:]
    moments = times[lows[-2:]] + share[lows[-2:]] * (times[lows[-2:] + 1] - times[lows[-2:]])
    first, second = times[-1] - moments[1], moments[1] - moments[0]
    if abs(first - second) > 0.02 * first:
        return None
    # Spirals into a focus come back as well, but smaller each time.
    winding = -turned[last + 1] * turn
    extents = [
        np.where(winding != 0, np.abs(winding), np.ptp(states[a:b], axis=0)) / size
        for a, b in ((before, last), (last, end))
    ]
    extent = extents[1].max()
    if extent < SMALLEST or np.abs(extents[0] - extents[1]).max() > ALIKE * extent:
        return None
    # It begins half a round from where it is slowest, since there the flow has hardly a direction,
    # and where it is fastest a mistake along it grows most.
    half = last + int(np.searchsorted(times[last:], times[-1] - first / 2))
    return states[half], float(first), winding


def crossing_time(dynamics: Field, x: np.ndarray) -> float:
    """What it takes to cross the box at the speed that is typical of it."""
    low, high = bounds_or_unit(dynamics.system.states)
    size = scales(dynamics.system.states)
    places = low + (high - low) * np.random.default_rng(0).random((32, len(x)))
    speeds = np.abs(dynamics.value(np.vstack([places, x])) / size).max(axis=1)
    return 1.0 / max(float(np.median(speeds[np.isfinite(speeds)])), 1e-12)


def _round(dynamics: Field, x: np.ndarray, period: float, winding: np.ndarray) -> Return:
    """One round, at the solver's steps."""
    path = _stayed(dynamics, trace(dynamics, x, period))
    return Return(period, path.times, path.states, winding)


def _stayed(dynamics: Field, path: Path) -> Path:
    if not path.stayed:
        raise SolverError(
            "the trajectory grows without bound",
            where=type(dynamics.system).__name__,
            fix="start elsewhere",
        )
    return path
