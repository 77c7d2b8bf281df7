"""How well scores rank and how near probabilities are: AUROC, AUPRC, Brier score.

Each metric is a function of outcomes counted by score (`clinode.evaluation.scores`), exact with
ties, for many bootstrap resamples at once; NaN where a resample has no value. What says so in
words, with intervals, is `clinode.evaluation.classification`.
"""

import numpy as np

from clinode.evaluation.scores import PerResample, ScoreTable, ratio


def auroc(table: ScoreTable) -> PerResample:
    """Chance that a positive scores above a negative, ties counted half; NaN with one class."""
    below = np.cumsum(table.negative, axis=1) - 0.5 * table.negative
    return ratio((table.positive * below).sum(axis=1), table.n_positive * table.n_negative)


def auprc(table: ScoreTable) -> PerResample:
    """Average precision: mean, over the positives, of the precision at their own score.

    The step-wise sum of scikit-learn's `average_precision_score`, without interpolation (Davis &
    Goadrich 2006, ICML). Its chance level is the prevalence. NaN with one class.
    """
    caught = np.cumsum(table.positive[:, ::-1], axis=1)
    alarms = caught + np.cumsum(table.negative[:, ::-1], axis=1)
    precision = caught / np.maximum(alarms, 1e-300)  # nobody drawn at these scores: 0 caught
    total = (table.positive[:, ::-1] * precision).sum(axis=1)
    return np.where(table.n_negative > 0, ratio(total, table.n_positive), np.nan)


def brier(table: ScoreTable) -> PerResample:
    """Mean squared distance of the probability from the outcome (Brier 1950)."""
    total = table.positive @ (1 - table.score) ** 2 + table.negative @ table.score**2
    return ratio(total, table.n_positive + table.n_negative)
