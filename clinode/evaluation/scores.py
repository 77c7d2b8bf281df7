"""Outcomes counted by score: all that a metric of a binary prediction needs to know.

Discrimination and calibration depend on the records only through how many positives and negatives
hold each distinct score. Sorting once and counting with the weights of a resample therefore gives
every metric of every bootstrap resample, exactly, ties included.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Counts = Float[np.ndarray, "resample score"]
PerResample = Float[np.ndarray, " resample"]


@dataclass(frozen=True)
class ScoreTable:
    """Positives and negatives at each distinct score, one row a resample.

    Args:
        score: Distinct, ascending.
        positive: Number of positives at each score.
        negative: Number of negatives at each score.
    """

    score: Float[np.ndarray, " score"]
    positive: Counts
    negative: Counts

    @property
    def n_positive(self) -> PerResample:
        """Positives in each resample."""
        return self.positive.sum(axis=1)

    @property
    def n_negative(self) -> PerResample:
        """Negatives in each resample."""
        return self.negative.sum(axis=1)

    @property
    def has_both(self) -> np.ndarray:
        """Whether a resample has positives and negatives."""
        return (self.n_positive > 0) & (self.n_negative > 0)


@dataclass(frozen=True)
class ScoredRecords:
    """Records sorted by their score, to be counted with any weights.

    Args:
        order: Positions of the records, by ascending score.
        start: Where each distinct score begins in that order.
        score: The distinct scores.
        outcome: 0 or 1 of each record, in that order.
    """

    order: Int[np.ndarray, " record"]
    start: Int[np.ndarray, " score"]
    score: Float[np.ndarray, " score"]
    outcome: Float[np.ndarray, " record"]

    @classmethod
    def sort(
        cls, outcome: Float[np.ndarray, " record"], score: Float[np.ndarray, " record"]
    ) -> "ScoredRecords":
        """Sort records by score."""
        order = np.argsort(score, kind="stable")
        ascending = score[order].astype(np.float64)
        start = np.flatnonzero(np.diff(ascending, prepend=np.nan) != 0)
        return cls(order, start, ascending[start], outcome[order].astype(np.float64))

    def count(self, weight: Float[np.ndarray, "resample record"]) -> ScoreTable:
        """Positives and negatives at each score, each record counted `weight` times."""
        weight = weight[:, self.order]
        positive = weight * self.outcome
        if len(self.start) < len(self.order):
            weight = np.add.reduceat(weight, self.start, axis=1)
            positive = np.add.reduceat(positive, self.start, axis=1)
        return ScoreTable(self.score, positive, weight - positive)

    def count_once(self) -> ScoreTable:
        """Positives and negatives at each score in the sample as it is."""
        return self.count(np.ones((1, len(self.order))))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotients; NaN where there is nothing to divide by."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), np.nan)
