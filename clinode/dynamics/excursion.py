"""Where the flow goes from a saddle-node: back to it, to a cycle, to another rest, or away."""

from dataclasses import dataclass

import numpy as np

from .field import Field, ScaledField, scales
from .newton import Rows, polish
from .recurrence import AT_REST, Path, last_round, trace, whole_turns
from .singular import null_vectors, pad

START = 0.02  # scales from the saddle-node along its unstable direction
BACK = 0.5 * START  # a trajectory this near, on the stable side, has come back
AWAY = 3 * START
WINDOWS = 8  # each twice as long as the one before
SETTLED = 1e-3  # scales: how far the error of the solver may drive a trajectory from its rest

RETURNS, CYCLES, RESTS, ESCAPES, UNKNOWN = "returns", "cycles", "rests", "escapes", "unknown"


@dataclass(frozen=True, eq=False)
class Excursion:
    """What became of a trajectory that left a saddle-node.

    Attributes:
        verdict: RETURNS to it on its stable side; CYCLES elsewhere; RESTS elsewhere; ESCAPES
            without bound; UNKNOWN after the longest window.
        end: (state,), where it was last.
    """

    verdict: str
    end: np.ndarray


def leave_saddle_node(dynamics: Field, x: np.ndarray) -> Excursion:
    """Follow the unstable manifold of a saddle-node.

    Along its null vector the flow is s' = b s^2: it leaves on the side where b s > 0, and whatever
    comes near on the other side is caught.

    Args:
        dynamics: A field without parameters, at the fold.
        x: (state,), the saddle-node.

    Raises:
        SolverError: As `recurrence.trace`.
    """
    size = scales(dynamics.system.states)
    scaled = ScaledField(dynamics, size)
    y = x / size
    v, w = null_vectors(scaled.jacobian(y)[1])
    b = 0.5 * float(scaled.gradient(y, w, pad(v, len(y))) @ v)
    v = v * np.sign(b)
    turn = whole_turns(dynamics)
    window, here, been_away = 3.0 / (abs(b) * START), x + START * v * size, False
    for _ in range(WINDOWS):
        path = trace(dynamics, here, window)
        here, window = path.states[-1], 2 * window
        if not path.stayed:
            return Excursion(ESCAPES, here)
        gap = path.states - x
        gap = (gap - turn * np.round(gap / np.where(turn > 0, turn, np.inf))) / size
        distance = np.linalg.norm(gap, axis=1)
        left = np.flatnonzero(distance > AWAY)
        been_away, later = been_away or len(left) > 0, slice(left[0] if len(left) else 0, None)
        caught = (distance[later] < BACK) & (gap[later] @ w * np.sign(b) < 0)
        if been_away and caught.any():
            return Excursion(RETURNS, here)
        if path.is_at_rest(size, AT_REST) or (been_away and _is_settled(dynamics, path, size)):
            return Excursion(RESTS, here)
        if been_away and last_round(path, size, turn) is not None:
            return Excursion(CYCLES, here)
    return Excursion(UNKNOWN, here)


def _is_settled(dynamics: Field, path: Path, size: np.ndarray) -> bool:
    """Whether its second half stays at an equilibrium that is stable by its eigenvalues.

    About a focus that is weakly damped the error of each step outlives many steps: the trajectory
    keeps going round it for ever, a thousand times farther out than the tolerance.
    """
    if not path.is_at_rest(size, SETTLED):
        return False
    here = path.states[-1:]
    root, is_root = polish(Rows(dynamics, here, np.zeros(1, dtype=int), size))
    if not is_root[0] or np.abs((root - here) / size).max() > SETTLED:
        return False
    eigenvalues = np.linalg.eigvals(dynamics.jacobian(root)[1][0])
    return bool((eigenvalues.real < 0).all())
