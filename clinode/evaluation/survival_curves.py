"""Survival and incidence of a sample without any model, and the weights that undo censoring.

Kaplan and Meier (1958, JASA 53:457-481) and Aalen and Johansen (1978, Scand. J. Stat. 5:141-150):
at each distinct time, those who have an event among those still watched. Everything is a function
of weights (resample, record), so that one sort serves all bootstrap resamples.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Integer

from clinode.errors import ArgumentError


@dataclass(frozen=True, eq=False)
class FollowUp:
    """How long each record was watched, and how that ended.

    Args:
        end: Hours after the prediction time.
        cause: 0 where it ended without an event, else 1, 2, ...
        entry: Hours after the prediction time from which it was watched; before the end.

    Raises:
        ArgumentError: Lengths disagree, an end is not after its entry or not finite, an entry is
            negative, or a cause is no whole number from 0 on.
    """

    end: Float[np.ndarray, " record"]
    cause: Integer[np.ndarray, " record"]
    entry: Float[np.ndarray, " record"]

    def __post_init__(self):
        if not len(self.end) == len(self.cause) == len(self.entry):
            raise ArgumentError("end, cause and entry must have one number a record")
        wrong = ~(np.isfinite(self.end) & (self.end > self.entry) & (self.entry >= 0))
        if wrong.any():
            raise ArgumentError(
                f"{int(wrong.sum())} records do not end at a finite time after their entry"
            )
        if (self.cause < 0).any():
            raise ArgumentError("causes must be 0 (censored), 1, 2, ...")

    def __len__(self) -> int:
        return len(self.end)

    @cached_property
    def times(self) -> Float[np.ndarray, " time"]:
        """The distinct ends, ascending."""
        return np.unique(self.end)

    @cached_property
    def _place(self) -> tuple[np.ndarray, np.ndarray]:
        """Records in order of their ends, and where each distinct time begins among them."""
        order = np.argsort(self.end, kind="stable")
        return order, np.searchsorted(self.end[order], self.times)

    @cached_property
    def _entered(self) -> tuple[np.ndarray, np.ndarray]:
        """Records in order of their entries, and how many enter before each distinct time."""
        order = np.argsort(self.entry, kind="stable")
        return order, np.searchsorted(self.entry[order], self.times, side="left")

    def _totals(self, weights: np.ndarray) -> Float[np.ndarray, "resample time"]:
        order, start = self._place
        return np.add.reduceat(weights[:, order], start, axis=1)

    def events(
        self, weights: Float[np.ndarray, "resample record"], cause: int
    ) -> Float[np.ndarray, "resample time"]:
        """Weight of the events of a cause (0: of the censored) at each distinct time."""
        return self._totals(weights * (self.cause == cause))

    def at_risk(
        self, weights: Float[np.ndarray, "resample record"]
    ) -> Float[np.ndarray, "resample time"]:
        """Weight of those who are watched just before each distinct time: entered, not yet ended.

        Who enters at a time is watched from just behind it on.
        """
        ended = np.cumsum(self._totals(weights), axis=1) - self._totals(weights)
        order, n_before = self._entered
        inward = np.cumsum(weights[:, order], axis=1)
        inward = np.concatenate([np.zeros((len(weights), 1)), inward], axis=1)
        return inward[:, n_before] - ended


def aalen_johansen(
    followed: FollowUp,
    hours: Float[np.ndarray, " hour"],
    n_causes: int,
    weights: Float[np.ndarray, "resample record"] | None = None,
) -> Float[np.ndarray, "resample hour cause"]:
    """Cumulative incidence of each cause by these hours; 1 - their sum is Kaplan and Meier's curve.

    NaN behind the last time that anybody was watched, unless everybody had an event by then.

    Args:
        followed: The sample, entries included.
        hours: After the prediction time.
        n_causes: Causes 1 to this number.
        weights: Of the records in each resample; once and equally by default.

    Example:
        >>> sample = FollowUp(np.array([1.0, 2.0, 3.0]), np.array([1, 0, 2]), np.zeros(3))
        >>> aalen_johansen(sample, np.array([1.0, 3.0]), 2)[0].round(3).tolist()
        [[0.333, 0.0], [0.333, 0.667]]
    """
    if not len(followed):
        return np.full((1 if weights is None else len(weights), len(hours), n_causes), np.nan)
    weights = np.ones((1, len(followed))) if weights is None else weights
    risk = followed.at_risk(weights)
    safe = np.where(risk > 0, risk, 1.0)
    rates = np.stack([followed.events(weights, k + 1) / safe for k in range(n_causes)], axis=2)
    survival = np.cumprod(1.0 - rates.sum(axis=2), axis=1)
    before = np.concatenate([np.ones((len(weights), 1)), survival[:, :-1]], axis=1)
    incidence = np.cumsum(before[:, :, None] * rates, axis=1)
    incidence = np.concatenate([np.zeros((len(weights), 1, n_causes)), incidence], axis=1)
    place = np.searchsorted(followed.times, hours, side="right")
    found = incidence[:, place]
    is_gone = (hours > followed.times[-1])[None, :] & (survival[:, -1:] > 1e-12)
    return np.where(is_gone[:, :, None], np.nan, found)


def still_watched(
    followed: FollowUp, weights: Float[np.ndarray, "resample record"]
) -> Float[np.ndarray, "resample time_plus_one"]:
    """Chance not to have been censored by each distinct time, 1 before the first: G.

    Kaplan and Meier's curve with the roles of events and censoring exchanged. At a tie events come
    first: who has one cannot be lost at that time.
    """
    has_event = weights * (followed.cause > 0)
    risk = followed.at_risk(weights) - followed._totals(has_event)
    lost = followed.events(weights, 0)
    kept = np.cumprod(1.0 - lost / np.where(risk > 0, risk, 1.0), axis=1)
    return np.concatenate([np.ones((len(weights), 1)), kept], axis=1)


@dataclass(eq=False)
class Censoring:
    """Inverse chances to be still watched, which make up for those who were lost.

    They hold where being lost tells nothing of what would have come (Robins and Finkelstein 2000,
    Biometrics 56:779-788). Estimated anew on each resample.
    """

    followed: FollowUp
    _latest: tuple[np.ndarray, np.ndarray] | None = None

    def _kept(self, weights: np.ndarray) -> np.ndarray:
        # every statistic of a bootstrap is asked with the same weights, one after the other
        if self._latest is None or self._latest[0] is not weights:
            self._latest = (weights, still_watched(self.followed, weights))
        return self._latest[1]

    def at_end(
        self, weights: Float[np.ndarray, "resample record"]
    ) -> Float[np.ndarray, "resample record"]:
        """1 / G just before the end of each record; 0 for one that a resample has none like of."""
        place = np.searchsorted(self.followed.times, self.followed.end)
        return _inverse(self._kept(weights)[:, place], none=0.0)

    def at(
        self, weights: Float[np.ndarray, "resample record"], hour: float
    ) -> Float[np.ndarray, "resample one"]:
        """1 / G at an hour; NaN behind the last end, where it is not known."""
        if hour > self.followed.times[-1]:
            return np.full((len(weights), 1), np.nan)
        place = int(np.searchsorted(self.followed.times, hour, side="right"))
        return _inverse(self._kept(weights)[:, place : place + 1], none=np.nan)


def _inverse(chance: np.ndarray, none: float) -> np.ndarray:
    return np.divide(1.0, chance, out=np.full(chance.shape, none), where=chance > 0)
