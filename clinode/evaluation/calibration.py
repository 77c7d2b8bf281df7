"""Whether probabilities mean what they say: recalibration slope and intercept, ECE, the curve.

Slope and intercept follow Van Calster et al. 2019 (BMC Medicine 17:230): the slope is that of a
logistic regression of the outcome on the logit of the prediction (1 is right, below 1 is too
extreme); the intercept is calibration in the large, fitted with that slope held at 1 (0 is right,
below 0 overestimates risk).
"""

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped
from scipy.special import expit, logit

from clinode.errors import ArgumentError
from clinode.evaluation.scores import PerResample, ScoredRecords, ScoreTable, ratio
from clinode.statistics import wilson_interval

N_BINS = 10
_COUNTS_AT_ONCE = 2**17  # keeps the temporaries of a Newton step in the processor's cache
_MOST_STEPS = 100
_LAST_STEP = 1e-6  # on the logit; steps shrink quadratically, so the next would be some 1e-12


def calibration_slope(table: ScoreTable) -> PerResample:
    """Slope of the outcome on the logit of the prediction, by maximum likelihood.

    NaN where there is no finite one: one class, one score, scores that separate the classes, or a
    probability of exactly 0 or 1.
    """
    n_positive, n_negative = table.positive > 0, table.negative > 0
    lowest = np.stack([np.argmax(n_positive, axis=1), np.argmax(n_negative, axis=1)])
    last = len(table.score) - 1
    highest = last - np.stack(
        [np.argmax(n_positive[:, ::-1], axis=1), np.argmax(n_negative[:, ::-1], axis=1)]
    )
    overlap = (lowest < highest[::-1]).all(axis=0)
    return _recalibrate(table, table.has_both & overlap, with_slope=True)


def calibration_intercept(table: ScoreTable) -> PerResample:
    """Shift of the logit that makes the mean prediction right: calibration in the large.

    NaN with one class or a probability of exactly 0 or 1.
    """
    return _recalibrate(table, table.has_both, with_slope=False)


def ece(table: ScoreTable, n_bins: int = N_BINS) -> PerResample:
    """Expected calibration error: mean |observed - predicted| over bins of equal mass.

    Bins are those of `numpy.array_split` on the sorted predictions; records with equal predictions
    that a boundary divides are shared out in proportion, so their order does not matter. Noise
    alone makes it positive, the more so the fewer records a bin has.
    """
    everyone = table.positive + table.negative
    mass, excess = _bins(everyone, [everyone, table.positive - everyone * table.score], n_bins)
    return ratio(np.abs(excess).sum(axis=1), mass.sum(axis=1))


def recenter(value: float, resampled: Float[np.ndarray, " resample"]) -> np.ndarray:
    """Resampled ECEs around the value: resampling adds noise, and noise adds to an ECE."""
    return np.maximum(resampled - resampled.mean() + value, 0.0)


def calibration_curve(
    outcome: Float[np.ndarray, " record"],
    probability: Float[np.ndarray, " record"],
    subjects: Shaped[np.ndarray, " record"] | None = None,
    *,
    n_bins: int = N_BINS,
    level: float = 0.95,
) -> pd.DataFrame:
    """Observed against predicted in bins of equal mass, the bins of `ece`.

    Args:
        outcome: 0 or 1.
        probability: Predicted.
        subjects: Whose record each is; the records themselves by default.
        n_bins: Bins without a record are left out.
        level: Of the Wilson interval. A bin counts its subjects, not its records, where a subject
            has several: wide rather than narrow.

    Returns:
        One row a bin: n, predicted, observed, low, high.

    Raises:
        ArgumentError: `n_bins` is not positive.
    """
    if n_bins < 1:
        raise ArgumentError(f"n_bins must be at least 1, got {n_bins}")
    columns = ["n", "predicted", "observed", "low", "high"]
    if not len(outcome):
        return pd.DataFrame(columns=columns, dtype=np.float64)
    scored = ScoredRecords.sort(outcome, probability)
    table = scored.count_once()
    everyone = table.positive + table.negative
    mass, positive, predicted = (
        binned[0]
        for binned in _bins(everyone, [everyone, table.positive, everyone * table.score], n_bins)
    )
    subjects = np.arange(len(outcome)) if subjects is None else subjects
    rows = []
    for held, n, n_positive, total in zip(
        np.array_split(subjects[scored.order], n_bins), mass, positive, predicted, strict=True
    ):
        if n > 0:
            n_subjects = len(np.unique(held))
            low, high = wilson_interval(round(n_positive / n * n_subjects), n_subjects, level)
            rows.append((round(n), total / n, n_positive / n, low, high))
    return pd.DataFrame(rows, columns=columns)


def smooth_calibration(
    outcome: Float[np.ndarray, " record"],
    probability: Float[np.ndarray, " record"],
    at: Float[np.ndarray, " place"],
    *,
    span: float = 0.75,
) -> Float[np.ndarray, " place"]:
    """Observed frequency as a smooth function of the prediction: a local line at each place.

    Each line is fitted to the nearest share of the records with tricube weights (Cleveland 1979,
    J. Am. Stat. Assoc. 74:829-836, without its robust steps) and kept within [0, 1].

    Args:
        outcome: 0 or 1.
        probability: Predicted.
        at: Predictions at which the curve is wanted.
        span: Share of the records that each line sees.

    Returns:
        NaN where there are fewer than three records.

    Raises:
        ArgumentError: `span` is not inside (0, 1].
    """
    if not 0 < span <= 1:
        raise ArgumentError(f"span must be inside (0, 1], got {span}")
    n_near = max(3, int(np.ceil(span * len(outcome))))
    if len(outcome) < 3:
        return np.full(len(at), np.nan)
    found = np.empty(len(at))
    for k, place in enumerate(at):
        distance = np.abs(probability - place)
        reach = max(float(np.partition(distance, n_near - 1)[n_near - 1]), 1e-12)
        weight = np.clip(1 - (distance / (reach * (1 + 1e-9))) ** 3, 0, None) ** 3
        center = weight @ probability / weight.sum()
        level, x = weight @ outcome / weight.sum(), probability - center
        spread = weight @ x**2
        slope = weight @ (x * outcome) / spread if spread > 1e-12 * weight.sum() else 0.0
        found[k] = level + slope * (place - center)
    return np.clip(found, 0.0, 1.0)


def _bins(everyone: np.ndarray, parts: list[np.ndarray], n_bins: int) -> list[np.ndarray]:
    """Sums of each part over bins of equal mass, (resample, bin) each; scores are shared out."""
    mass = np.cumsum(everyone, axis=1)
    edges = _edges(mass[:, -1], n_bins)
    reached = np.stack([np.searchsorted(*pair) for pair in zip(mass, edges, strict=True)])
    reached = np.minimum(reached, mass.shape[1] - 1)
    held = np.take_along_axis(everyone, reached, axis=1)
    missing = np.take_along_axis(mass, reached, axis=1) - edges  # of the score that an edge divides
    share = np.where(held > 0, missing / np.where(held > 0, held, 1), 0)
    sums = []
    for part in parts:
        running = np.take_along_axis(np.cumsum(part, axis=1), reached, axis=1)
        sums.append(np.diff(running - share * np.take_along_axis(part, reached, axis=1), axis=1))
    return sums


def _edges(total: np.ndarray, n_bins: int) -> np.ndarray:
    """Boundaries in records, as `numpy.array_split` sets them: the first bins take the rest."""
    bins = np.arange(n_bins + 1)
    size, rest = np.divmod(total[:, None], n_bins)
    return size * bins + np.minimum(bins, rest)


def _recalibrate(table: ScoreTable, exists: np.ndarray, *, with_slope: bool) -> np.ndarray:
    """Slope, or intercept at slope 1, of the logistic regression of the outcome on the logit."""
    found = np.full(len(exists), np.nan)
    if not exists.any() or table.score[0] <= 0 or table.score[-1] >= 1:
        return found
    resamples = np.flatnonzero(exists)
    # what fits all resamples together is a few steps from each
    together = (part[resamples].sum(axis=0)[None] for part in (table.positive, table.negative))
    start = _newton(ScoreTable(table.score, *together), (0.0, 1.0), with_slope=with_slope)[:, 0]
    at_once = max(1, _COUNTS_AT_ONCE // len(table.score))
    for begin in range(0, len(resamples), at_once):
        block = resamples[begin : begin + at_once]
        part = ScoreTable(table.score, table.positive[block], table.negative[block])
        found[block] = _newton(part, tuple(start), with_slope=with_slope)[int(with_slope)]
    return found


def _newton(table: ScoreTable, start: tuple[float, float], *, with_slope: bool) -> np.ndarray:
    """Intercepts and slopes, (2, resample), from one start; NaN where it did not converge."""
    x = logit(table.score)
    x = x - (x[0] + x[-1]) / 2 if with_slope else x
    everyone, farthest = table.positive + table.negative, np.abs(x).max()
    intercept, slope = (np.full(len(everyone), value) for value in start)
    reach = np.full(len(everyone), np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):  # saturated risks: NaN, not converged
        for _ in range(_MOST_STEPS):
            risk = expit(intercept[:, None] + slope[:, None] * x)
            expected = everyone * risk
            weight = expected * (1 - risk)
            residual = table.positive - expected
            excess, total = residual.sum(axis=1), weight.sum(axis=1)
            slope_step = center = np.zeros(len(everyone))
            if with_slope:
                center = (weight @ x) / total
                spread = (weight * (x - center[:, None]) ** 2).sum(axis=1)
                slope_step = (residual @ x - center * excess) / spread
            intercept_step = excess / total - center * slope_step
            reach = np.abs(intercept_step) + np.abs(slope_step) * farthest
            share = _share_of_step(reach)
            intercept, slope = intercept + share * intercept_step, slope + share * slope_step
            if not (reach >= _LAST_STEP).any():
                break
    return np.where(reach < _LAST_STEP, [intercept, slope], np.nan)


def _share_of_step(reach: np.ndarray) -> np.ndarray:
    """Share of a Newton step that is sure to descend, where it moves logits by at most `reach`.

    The logistic loss is self-concordant in the sense of Bach 2010 (Electron. J. Stat. 4:384), so
    log(1 + d) / d of the step minimises a bound on it: global convergence without a line search.
    """
    return np.log1p(reach) / np.maximum(reach, 1e-300)
