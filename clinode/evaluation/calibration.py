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
_RESAMPLES_AT_ONCE = 64  # keeps the temporaries of a Newton step in the processor's cache
_MOST_STEPS = 100
_TOLERANCE = 1e-9


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
    mass, positive, predicted = _bins(table, n_bins)
    return ratio(np.abs(positive - predicted).sum(axis=1), mass.sum(axis=1))


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
    scored = ScoredRecords.sort(outcome, probability)
    mass, positive, predicted = (part[0] for part in _bins(scored.count_once(), n_bins))
    subjects = np.arange(len(outcome)) if subjects is None else subjects
    rows = []
    for held, n, n_positive, total in zip(
        np.array_split(subjects[scored.order], n_bins), mass, positive, predicted, strict=True
    ):
        if n > 0:
            n_subjects = len(np.unique(held))
            low, high = wilson_interval(round(n_positive / n * n_subjects), n_subjects, level)
            rows.append((round(n), total / n, n_positive / n, low, high))
    return pd.DataFrame(rows, columns=["n", "predicted", "observed", "low", "high"])


def _bins(table: ScoreTable, n_bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mass, positives and sum of predictions of each bin, (resample, bin) each."""
    everyone = table.positive + table.negative
    running = [
        np.cumsum(part, axis=1) for part in (everyone, table.positive, everyone * table.score)
    ]
    edges = _edges(running[0][:, -1], n_bins)
    sums = np.empty((3, len(everyone), n_bins))
    for position in range(len(everyone)):  # np.interp has no batches
        mass = np.concatenate([[0.0], running[0][position]])
        for part in range(3):
            total = np.concatenate([[0.0], running[part][position]])
            sums[part, position] = np.diff(np.interp(edges[position], mass, total))
    return sums[0], sums[1], sums[2]


def _edges(total: np.ndarray, n_bins: int) -> np.ndarray:
    """Boundaries in records, as `numpy.array_split` sets them: the first bins take the rest."""
    bins = np.arange(n_bins + 1)
    size, rest = np.divmod(total[:, None], n_bins)
    return size * bins + np.minimum(bins, rest)


def _recalibrate(table: ScoreTable, exists: np.ndarray, *, with_slope: bool) -> np.ndarray:
    """Slope, or intercept at slope 1, of the logistic regression of the outcome on the logit."""
    found = np.full(len(exists), np.nan)
    if len(table.score) and (table.score[0] <= 0 or table.score[-1] >= 1):
        return found
    resamples = np.flatnonzero(exists)
    for begin in range(0, len(resamples), _RESAMPLES_AT_ONCE):
        block = resamples[begin : begin + _RESAMPLES_AT_ONCE]
        part = ScoreTable(table.score, table.positive[block], table.negative[block])
        found[block] = _newton(part, with_slope=with_slope)
    return found


def _newton(table: ScoreTable, *, with_slope: bool) -> np.ndarray:
    x = logit(table.score)
    x = x - (x[0] + x[-1]) / 2 if with_slope else x
    everyone, farthest = table.positive + table.negative, np.abs(x).max()
    intercept, slope = np.zeros(len(everyone)), np.ones(len(everyone))
    reach = np.full(len(everyone), np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):  # saturated risks: NaN, not converged
        for _ in range(_MOST_STEPS):
            risk = expit(intercept[:, None] + slope[:, None] * x)
            weight = everyone * risk * (1 - risk)
            residual = table.positive - everyone * risk
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
            if not (reach >= _TOLERANCE).any():
                break
    return np.where(reach < _TOLERANCE, slope if with_slope else intercept, np.nan)


def _share_of_step(reach: np.ndarray) -> np.ndarray:
    """Share of a Newton step that is sure to descend, where it moves logits by at most `reach`.

    The logistic loss is self-concordant in the sense of Bach 2010 (Electron. J. Stat. 4:384), so
    log(1 + d) / d of the step minimises a bound on it: global convergence without a line search.
    """
    return np.log1p(reach) / np.maximum(reach, 1e-300)
