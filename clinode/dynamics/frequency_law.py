"""How the frequency of a cycle depends on a parameter where its branch ends.

Near a saddle-node on the cycle the period grows as p - p* ~ T^-2, f ~ sqrt(p - p*); near an orbit
homoclinic to a saddle as p - p* ~ exp(-lambda T), f ~ -lambda / log(p - p*); elsewhere it stays
finite. Which of the first two holds is told by how the parameter's steps shrink, so that p* need
not be known.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

GROWN = 3.0  # times the shortest period: below it the period is taken to stay finite
RESOLVED = 1e-10  # of the parameter's extent: smaller steps are rounding
N_TAIL = 8  # cycles nearest the end that are fitted
SATURATES = 0.5  # a growth of the period, per factor of distance, below this of that before


@dataclass(frozen=True, eq=False)
class FrequencyLaw:
    """The law that a branch of cycles follows at one of its ends.

    Attributes:
        kind: "sqrt", "log" or "finite".
        frequency: At the end, in cycles per time unit: 0 of the first two.
        coefficient: K of f = K sqrt(p - p*), or lambda of f = -lambda / log(p - p*); None if
            finite.
        exponent: m of p - p* ~ T^-m as fitted: 2 for a square root; None of the others.
        misfit: Root mean square of what the law leaves of log |dp|; 0 if finite.
    """

    kind: str
    frequency: float
    coefficient: float | None = None
    exponent: float | None = None
    misfit: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return dict(vars(self))


def fit_frequency_law(
    values: np.ndarray, periods: np.ndarray, end: float | None = None
) -> FrequencyLaw | None:
    """The law of cycles that come closer and closer to the end of their branch.

    Args:
        values: (cycle,), the parameter, from the end of the branch outward.
        periods: (cycle,).
        end: The parameter at the end, if it is known. A period that grows less and less in the
            logarithm of the distance from it stays finite.

    Returns:
        The law; None where the period grows but neither law fits better than by a factor of 2 in
        |dp|, or where fewer than 4 cycles tell.
    """
    values, periods = np.asarray(values), np.asarray(periods)
    if periods[0] < GROWN * periods.min():
        return FrequencyLaw("finite", 1.0 / float(periods[0]))
    if end is not None and len(values) > 2:
        away, grown = np.abs(values[:3] - end), -np.diff(periods[:3])
        per_factor = grown / np.diff(np.log(away))
        if 0 < per_factor[0] < SATURATES * per_factor[1]:
            limit = periods[0] + grown[0] * away[0] / (away[1] - away[0])
            return FrequencyLaw("finite", 1.0 / float(limit))
    long, short, moved = _tail(values, periods)
    if len(moved) < 3:
        return None
    power = _fit(
        lambda m: np.log((short / short[0]) ** -m - (long / short[0]) ** -m), moved, 0.2, 20.0
    )
    rate_scale = 1.0 / float(np.median(short))
    decay = _fit(
        lambda rate: -rate * (short - short[0]) + np.log(-np.expm1(-rate * (long - short))),
        moved,
        1e-3 * rate_scale,
        300 * rate_scale,
    )
    if min(power[1], decay[1]) > math.log(2):
        return None
    if power[1] > decay[1]:
        return FrequencyLaw("log", 0.0, decay[0], misfit=decay[1])
    # p - p* = (K T)^-2, its difference between two cycles known
    spans = np.exp(moved)
    squares = spans / (short**-2.0 - long**-2.0)
    coefficient = 1.0 / math.sqrt(float(np.exp(np.log(squares[: len(squares) // 2 + 1]).mean())))
    return FrequencyLaw("sqrt", 0.0, coefficient, exponent=power[0], misfit=power[1])


def _tail(values: np.ndarray, periods: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Longer and shorter period, and log |dp|, of neighbours nearest the end that still move."""
    rising = np.flatnonzero(np.diff(periods) >= 0)
    n = int(rising[0]) + 1 if len(rising) else len(periods)
    long, short, steps = periods[: n - 1], periods[1:n], np.abs(np.diff(values[:n]))
    kept = (steps > RESOLVED * np.ptp(values)) & (short > 1.2 * periods.min())
    long, short, steps = (part[kept][:N_TAIL] for part in (long, short, steps))
    return long, short, np.log(steps)


def _fit(
    shape: Callable[[float], np.ndarray], moved: np.ndarray, low: float, high: float
) -> tuple[float, float]:
    """The rate in (low, high) for which log |dp| - shape(rate) is most nearly constant."""

    def misfit(log_rate: float) -> float:
        rest = moved - shape(math.exp(log_rate))
        return float(rest.std()) if np.isfinite(rest).all() else math.inf

    grid = np.linspace(math.log(low), math.log(high), 200)
    costs = np.array([misfit(one) for one in grid])
    best = int(np.argmin(costs))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    found = minimize_scalar(misfit, bounds=around, method="bounded", options={"xatol": 1e-10})
    return math.exp(float(found.x)), float(found.fun)
