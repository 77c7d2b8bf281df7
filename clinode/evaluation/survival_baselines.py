"""The bars that every survival model stands beside: everybody's incidence, and a pooled logistic.

Both are fitted on the training part and live on as arrays. The first tells nobody apart. The second
is a discrete-time hazard (Singer and Willett 1993, J. Educ. Stat. 18:155-195): one logistic
regression, multinomial where causes compete, over all (record, interval) pairs, on the last values,
whether there are any, the statics, the landmark and the interval.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from sklearn.linear_model import LogisticRegression

from clinode.cohort.follow_up import Intervals, cumulative_incidence, log_likelihood
from clinode.errors import ArgumentError, CheckpointError
from clinode.evaluation.histories import STATISTICS, Histories, summarize
from clinode.evaluation.survival_curves import FollowUp, aalen_johansen

PRIOR_VARIANCES = (0.003, 0.03, 0.3)
UNTUNED_VARIANCE = 0.03  # where a fold would lack a cause
INTERVAL_SCALE = 5.0  # intervals are penalised little: their level is not to shrink
MAX_DEVIATIONS = 5.0
NEVER = -20.0  # log odds of a cause without an event in a fold
N_FOLDS = 3


@dataclass(frozen=True, kw_only=True)
class SurvivalBaselines:
    """Fitted baselines of survival.

    Args:
        intervals: Those of the schema.
        log: Variables taken as log(x + 0.1).
        times: Hours at which the training part had an end.
        incidence: Of each cause by these hours.
        mean, scale: Of the features: last values, statics, landmark.
        coefficient: Of standardised features, flags and intervals, one row a cause.
        intercept: One a cause.
    """

    intervals: Intervals
    log: Bool[np.ndarray, " variable"]
    times: Float[np.ndarray, " time"]
    incidence: Float[np.ndarray, "time cause"]
    mean: Float[np.ndarray, " feature"]
    scale: Float[np.ndarray, " feature"]
    coefficient: Float[np.ndarray, "cause column"]
    intercept: Float[np.ndarray, " cause"]

    def predict(
        self,
        histories: Histories,
        landmark: Float[np.ndarray, " record"],
        hours: Float[np.ndarray, " hour"],
    ) -> dict[str, Float[np.ndarray, "record hour cause"]]:
        """Incidence of each cause by these hours, by each baseline.

        Raises:
            ArgumentError: The records have other variables or statics than those of the training.
        """
        features = _features(histories, landmark, self.log)
        if features.shape[1] != len(self.mean):
            raise ArgumentError(
                f"the baselines were fitted on {len(self.mean)} features, but the records have "
                f"{features.shape[1]}"
            )
        place = np.searchsorted(self.times, hours, side="right")
        start = np.zeros((1, self.incidence.shape[1]))
        common = np.concatenate([start, self.incidence])[place]
        design = _design(features, self.mean, self.scale)
        odds = _odds(design, self.coefficient, self.intercept, len(self.intervals.ends))
        pooled = cumulative_incidence(torch.from_numpy(odds), self.intervals, torch.tensor(hours))
        return {
            "aalen_johansen": np.broadcast_to(common, (len(histories), *common.shape)),
            "pooled_logistic": pooled.numpy(),
        }

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything there is to store, by name and contiguous, as a safetensors file needs it."""
        own = {name: value for name, value in vars(self).items() if name != "intervals"}
        own |= {
            "ends": np.array(self.intervals.ends),
            "horizons": np.array(self.intervals.horizons),
        }
        return {name: np.ascontiguousarray(array) for name, array in own.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "SurvivalBaselines":
        """The inverse of `to_arrays`.

        Raises:
            CheckpointError: An array is missing.
        """
        held = dict(arrays)
        try:
            intervals = Intervals(
                ends=tuple(held.pop("ends").tolist()),
                n_causes=len(held["intercept"]),
                horizons=tuple(held.pop("horizons").tolist()),
            )
            return cls(intervals=intervals, **held)
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"the stored baselines are incomplete: {error}") from None


def fit_survival_baselines(
    histories: Histories,
    landmark: Float[np.ndarray, " record"],
    target: Float[np.ndarray, "record three"],
    intervals: Intervals,
    *,
    log: Bool[np.ndarray, " variable"],
    subjects: Integer[np.ndarray, " record"],
    seed: int = 0,
) -> SurvivalBaselines:
    """Fit both on the training part.

    Args:
        histories: What was measured of the training records.
        landmark: Their prediction times, hours.
        target: Hours of entry and end after it, and the cause; NaN where not known, left out.
        intervals: Of follow-up.
        log: Variables taken as log(x + 0.1).
        subjects: Whose record each is; folds keep them together.
        seed: Of the folds.
    """
    known = ~np.isnan(target[:, 1])
    features, target, subjects = (
        part[known] for part in (_features(histories, landmark, log), target, subjects)
    )
    entry, end, cause = target[:, 0], target[:, 1], target[:, 2].astype(np.int64)
    followed = FollowUp(end=end, cause=cause, entry=entry)
    seen = np.isfinite(features)
    filled = np.where(seen, features, 0.0)
    n_seen = np.maximum(seen.sum(axis=0), 1)
    mean = filled.sum(axis=0) / n_seen
    spread = np.sqrt((np.where(seen, features - mean, 0.0) ** 2).sum(axis=0) / n_seen)
    scale = np.where(spread > 0, spread, 1.0)
    design = _design(features, mean, scale)
    pairs = _Pairs.expand(entry, end, cause, intervals)
    fold = _folds(subjects, seed)
    variance = _choose_variance(design, pairs, fold, (entry, end, cause), intervals)
    coefficient, intercept = _fit(design, pairs, np.ones(len(end), dtype=bool), variance, intervals)
    return SurvivalBaselines(
        intervals=intervals,
        log=log,
        times=followed.times,
        incidence=aalen_johansen(followed, followed.times, intervals.n_causes)[0],
        mean=mean,
        scale=scale,
        coefficient=coefficient,
        intercept=intercept,
    )


@dataclass(frozen=True)
class _Pairs:
    """Records in the intervals in which they were watched, and what came of each there."""

    record: np.ndarray
    interval: np.ndarray
    cause: np.ndarray
    weight: np.ndarray  # share of the interval that was watched; 1 with an event

    @staticmethod
    def expand(
        entry: np.ndarray, end: np.ndarray, cause: np.ndarray, intervals: Intervals
    ) -> "_Pairs":
        left, entered = (
            intervals.share_until(torch.from_numpy(hours)).numpy() for hours in (end, entry)
        )
        watched = np.maximum(left - entered, 0.0)
        outcome = np.zeros(watched.shape, dtype=np.int64)
        has_event = (cause > 0) & (end <= intervals.ends[-1])
        held = intervals.interval_of(torch.from_numpy(end)).numpy()
        outcome[np.flatnonzero(has_event), held[has_event]] = cause[has_event]
        watched[outcome > 0] = 1.0
        record, interval = np.nonzero(watched)
        return _Pairs(record, interval, outcome[record, interval], watched[record, interval])


def _fit(
    design: np.ndarray, pairs: _Pairs, used: np.ndarray, variance: float, intervals: Intervals
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and intercept of each cause against coming through."""
    take = used[pairs.record]
    record, interval = pairs.record[take], pairs.interval[take]
    n_intervals = len(intervals.ends)
    columns = np.hstack([design[record], INTERVAL_SCALE * np.eye(n_intervals)[interval]])
    # half a record at the mean comes through, so that coming through is there to be told apart
    columns = np.vstack([columns, columns.mean(axis=0)])
    cause, weight = np.append(pairs.cause[take], 0), np.append(pairs.weight[take], 0.5)
    model = LogisticRegression(C=variance, max_iter=2000).fit(columns, cause, sample_weight=weight)
    coefficient = np.zeros((intervals.n_causes, columns.shape[1]))
    intercept = np.full(intervals.n_causes, NEVER)
    classes = model.classes_.tolist()
    if len(classes) == 2:
        coefficient[classes[1] - 1], intercept[classes[1] - 1] = model.coef_[0], model.intercept_[0]
        return coefficient, intercept
    for position, kind in enumerate(classes[1:], start=1):
        coefficient[kind - 1] = model.coef_[position] - model.coef_[0]
        intercept[kind - 1] = model.intercept_[position] - model.intercept_[0]
    return coefficient, intercept


def _choose_variance(
    design: np.ndarray,
    pairs: _Pairs,
    fold: np.ndarray,
    followed: tuple[np.ndarray, np.ndarray, np.ndarray],
    intervals: Intervals,
) -> float:
    """Prior variance of the coefficients with the likeliest follow-up out of fold."""
    wanted = set(range(intervals.n_causes + 1))
    if any(set(pairs.cause[fold[pairs.record] != f].tolist()) != wanted for f in range(N_FOLDS)):
        return UNTUNED_VARIANCE
    entry, end, cause = (torch.from_numpy(part) for part in followed)
    found = []
    for variance in PRIOR_VARIANCES:
        total = 0.0
        for f in range(N_FOLDS):
            held = torch.from_numpy(fold == f)
            fitted = _fit(design, pairs, fold != f, variance, intervals)
            odds = torch.from_numpy(_odds(design[fold == f], *fitted, len(intervals.ends)))
            total += float(
                log_likelihood(odds, intervals, entry[held], end[held], cause[held]).sum()
            )
        found.append(total)
    return PRIOR_VARIANCES[int(np.argmax(found))]


def _odds(
    design: np.ndarray, coefficient: np.ndarray, intercept: np.ndarray, n_intervals: int
) -> Float[np.ndarray, "record interval cause"]:
    own = design @ coefficient[:, :-n_intervals].T + intercept
    return own[:, None, :] + INTERVAL_SCALE * coefficient[:, -n_intervals:].T[None]


def _features(
    histories: Histories, landmark: np.ndarray, log: np.ndarray
) -> Float[np.ndarray, "record feature"]:
    last = summarize(histories, log)[:, STATISTICS.index("last")]
    return np.hstack([last, histories.static, landmark[:, None]])


def _design(features: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    seen = np.isfinite(features)
    deviation = np.clip((features - mean) / scale, -MAX_DEVIATIONS, MAX_DEVIATIONS)
    return np.hstack([np.where(seen, deviation, 0.0), seen])


def _folds(subjects: np.ndarray, seed: int) -> np.ndarray:
    """Folds over whole subjects, of equal size."""
    subject, position = np.unique(subjects, return_inverse=True)
    return np.random.default_rng(seed).permutation(len(subject))[position] % N_FOLDS
