"""Records in groups of rising risk, none of which has few with or without the outcome.

What a curve shows at full resolution is single subjects: every step of a ROC curve is one. Groups
of at least so many subjects on both sides give the same curves, with every count and every
difference of two counts large enough to be shown.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from clinode.errors import ArgumentError
from clinode.evaluation.disclosure import SMALLEST_CELL
from clinode.statistics import wilson_interval

MOST_GROUPS = 20


def risk_groups(
    outcome: Float[np.ndarray, " record"],
    probability: Float[np.ndarray, " record"],
    subjects: Shaped[np.ndarray, " record"] | None = None,
    *,
    at: float | None = None,
    most: int = MOST_GROUPS,
    fewest: int = SMALLEST_CELL,
    level: float = 0.95,
) -> pd.DataFrame:
    """Groups of about equal size by predicted risk, equal risks together.

    Args:
        outcome: 0 or 1.
        probability: Predicted.
        subjects: Whose record each is; the records themselves by default.
        at: A threshold that no group crosses, unless one side of it has too few.
        most: Groups, at most.
        fewest: Subjects with the outcome, and without it, that each group has at least.
        level: Of the Wilson interval, which counts subjects, not records: wide rather than narrow.

    Returns:
        One row a group, lowest risk first: start (its lowest probability), n, positive (records),
        predicted, observed, low, high. Empty where even one group would be too small.

    Raises:
        ArgumentError: `most` or `fewest` is not positive, or lengths disagree.
    """
    if most < 1 or fewest < 1:
        raise ArgumentError("most and fewest must be at least 1")
    subjects = np.arange(len(outcome)) if subjects is None else subjects
    if not len(outcome) == len(probability) == len(subjects):
        raise ArgumentError("outcome, probability and subjects must have one length")
    order = np.argsort(-probability, kind="stable")
    parts = [order]
    if at is not None:
        above = probability[order] >= at
        parts = [order[above], order[~above]]
    size = max(1, len(order) // most)
    groups = [g for part in parts for g in _cut(part, outcome, probability, subjects, size, fewest)]
    groups = _joined(groups, outcome, subjects, fewest)
    rows = []
    for group in reversed(groups):
        known = outcome[group]
        n_subjects = len(np.unique(subjects[group]))
        share = float(known.mean())
        low, high = wilson_interval(round(share * n_subjects), n_subjects, level)
        predicted = float(probability[group].mean())
        start = float(probability[group].min())
        rows.append((start, len(group), int(known.sum()), predicted, share, low, high))
    columns = ["start", "n", "positive", "predicted", "observed", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def operating_points(groups: pd.DataFrame) -> pd.DataFrame:
    """What an alert from the start of each group upwards finds: the corners of ROC and PR curves.

    Args:
        groups: Of `risk_groups`.

    Returns:
        One row a group, lowest threshold first: threshold, sensitivity, specificity, ppv, alerts
        (share of the records). The first row raises an alert for every record.
    """
    positive = groups["positive"].to_numpy(dtype=np.float64)
    negative = groups["n"].to_numpy(dtype=np.float64) - positive
    found, alarms = np.cumsum(positive[::-1])[::-1], np.cumsum(negative[::-1])[::-1]
    return pd.DataFrame(
        {
            "threshold": groups["start"].to_numpy(dtype=np.float64),
            "sensitivity": found / positive.sum(),
            "specificity": 1 - alarms / negative.sum(),
            "ppv": found / (found + alarms),
            "alerts": (found + alarms) / (positive.sum() + negative.sum()),
        }
    )


def _cut(
    part: np.ndarray,
    outcome: np.ndarray,
    probability: np.ndarray,
    subjects: np.ndarray,
    size: int,
    fewest: int,
) -> list[np.ndarray]:
    """A part, sorted by falling risk, cut as soon as a group is large enough; the rest is last."""
    risk = probability[part]
    ends = np.flatnonzero(np.diff(risk, append=-1.0) != 0) + 1  # equal risks stay together
    found, start = [], 0
    for end in ends:
        group = part[start:end]
        if len(group) >= size and _is_large(group, outcome, subjects, fewest):
            found.append(group)
            start = end
    if start < len(part):
        found.append(part[start:])
    return found


def _joined(
    groups: list[np.ndarray], outcome: np.ndarray, subjects: np.ndarray, fewest: int
) -> list[np.ndarray]:
    """Groups that are too small joined with the one before, the first with the one behind."""
    found: list[np.ndarray] = []
    for group in groups:
        if found and not (
            _is_large(group, outcome, subjects, fewest)
            and _is_large(found[-1], outcome, subjects, fewest)
        ):
            found[-1] = np.concatenate([found[-1], group])
        else:
            found.append(group)
    return [group for group in found if _is_large(group, outcome, subjects, fewest)]


def _is_large(group: np.ndarray, outcome: np.ndarray, subjects: np.ndarray, fewest: int) -> bool:
    had = outcome[group] == 1
    if min(had.sum(), (~had).sum()) < fewest:
        return False
    whose = subjects[group]
    return min(len(np.unique(whose[had])), len(np.unique(whose[~had]))) >= fewest
