"""How good predicted incidences are when follow-up is censored and causes compete.

At a horizon a record is a case if it had an event of the cause by then, and a control if not,
because nothing or something else happened. Who was lost before is neither, and those like it who
were not count for it (`Censoring`). With one cause these are the usual cumulative and dynamic
measures. Everything is a function of weights, for the bootstrap.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from clinode.errors import ArgumentError
from clinode.evaluation.survival_curves import Censoring, FollowUp, aalen_johansen
from clinode.statistics import Bootstrap, Estimate, WeightedStatistic, bootstrap

MODEL = "model"
N_GRID = 24  # points of the integrated Brier score
PAIRS_AT_ONCE = 2**22
Weights = Float[np.ndarray, "resample record"]
PerResample = Float[np.ndarray, " resample"]


def time_dependent_auc(
    followed: FollowUp,
    censoring: Censoring,
    risk: Float[np.ndarray, " record"],
    hour: float,
    cause: int,
    weights: Weights,
) -> PerResample:
    """Chance that a case by the hour has a higher risk than a control, ties counted half.

    Blanche et al. 2013, Stat. Med. 32:5381-5397, whose second kind of controls these are: all that
    are free of the cause at the hour. NaN without a case, a control, or anybody watched so long.
    """
    case, control = _cases(followed, censoring, hour, cause, weights)
    level, place = np.unique(risk, return_inverse=True)
    order = np.argsort(place, kind="stable")
    start = np.searchsorted(place[order], np.arange(len(level)))
    case, control = (np.add.reduceat(part[:, order], start, axis=1) for part in (case, control))
    below = np.cumsum(control, axis=1) - 0.5 * control
    return _ratio((case * below).sum(axis=1), case.sum(axis=1) * control.sum(axis=1))


def brier(
    followed: FollowUp,
    censoring: Censoring,
    risk: Float[np.ndarray, " record"],
    hour: float,
    cause: int,
    weights: Weights,
) -> PerResample:
    """Mean squared distance of the incidence by the hour from what came (Graf et al. 1999).

    Stat. Med. 18:2529-2545, with weights for censoring, and competing events as controls.
    """
    case, control = _cases(followed, censoring, hour, cause, weights)
    total = case @ (1 - risk) ** 2 + control @ risk**2
    return _ratio(total, weights.sum(axis=1))


def integrated_brier(
    followed: FollowUp,
    censoring: Censoring,
    risk: Float[np.ndarray, "record hour"],
    hours: Float[np.ndarray, " hour"],
    cause: int,
    weights: Weights,
) -> PerResample:
    """Mean of `brier` over the time up to the last of the hours, by the trapezoidal rule from 0."""
    held = [np.zeros(len(weights))]
    for column, hour in zip(risk.T, hours, strict=True):
        held.append(brier(followed, censoring, column, float(hour), cause, weights))
    return np.trapezoid(np.stack(held), np.concatenate([[0.0], hours]), axis=0) / hours[-1]


def concordance(
    followed: FollowUp,
    risk: Float[np.ndarray, " record"],
    cause: int,
    weights: Weights,
    *,
    censoring: Censoring | None = None,
    until: float = np.inf,
) -> PerResample:
    """Chance that of two records the one with the earlier event of the cause has the higher risk.

    A pair counts where one has the event at t and the other is known to have come later, or never:
    it was still watched behind t (or lost at t), or had an event of another cause (Wolbers et al.
    2009, Epidemiology 20:555-561). Ties of the risk count half. Without `censoring` as Harrell has
    it, which leans with the censoring; with it, pairs have the weights of Uno et al. (2011, Stat.
    Med. 30:1105-1117) and of Wolbers et al. (2014, Biostatistics 15:526-539).

    Args:
        followed: The sample.
        risk: Higher where the event is expected sooner.
        cause: Which one.
        weights: Of the records in each resample.
        censoring: Of the sample, to weigh pairs by.
        until: Hours; only events before it count.
    """
    end, kind = followed.end, followed.cause
    case = np.flatnonzero((kind == cause) & (end < until))
    inverse = np.ones_like(weights) if censoring is None else censoring.at_end(weights)
    agreed, counted = np.zeros(len(weights)), np.zeros(len(weights))
    step = max(1, PAIRS_AT_ONCE // max(len(end), 1))
    for start in range(0, len(case), step):
        i = case[start : start + step]
        later = end > end[i, None]
        later |= (end == end[i, None]) & (kind == 0)
        elsewhere = (kind > 0) & (kind != cause) & ~later
        higher = np.where(risk[i, None] > risk, 1.0, np.where(risk[i, None] == risk, 0.5, 0.0))
        own, of_pair = weights[:, i] * inverse[:, i], inverse[:, i]
        for pair, other, scale in (
            (later, weights, of_pair),
            (elsewhere, weights * inverse, 1.0),
        ):
            agreed += ((other @ (pair * higher).T) * own * scale).sum(axis=1)
            counted += ((other @ pair.T.astype(np.float64)) * own * scale).sum(axis=1)
    return _ratio(agreed, counted)


@dataclass(frozen=True, kw_only=True)
class CauseEvaluation:
    """Metrics of one cause: of the model, of each baseline, and model minus baseline."""

    metrics: dict[str, Estimate]
    baselines: dict[str, dict[str, Estimate]]
    difference: dict[str, dict[str, Estimate]]
    n_events: int

    def to_dict(self) -> dict[str, Any]:
        """The metrics by name, `baselines`, `difference` and the number of events."""
        return {
            **_to_dict(self.metrics),
            "baselines": {name: _to_dict(held) for name, held in self.baselines.items()},
            "difference": {name: _to_dict(held) for name, held in self.difference.items()},
            "n_events": self.n_events,
        }


@dataclass(frozen=True, kw_only=True)
class SurvivalEvaluation:
    """What `evaluate_survival` found.

    Args:
        causes: Of each cause, in order.
        horizon: Hours at which `auc`, `brier` and the calibration are taken, and by whose incidence
            records are ranked.
        n_records: Records that were measured.
        n_unknown: Left out: nothing is known of them behind their prediction time.
        n_late: Left out: they were watched only from some time after it on.
        n_subjects: Units of the intervals.
        n_censored: Records whose follow-up ended without an event.
    """

    causes: tuple[CauseEvaluation, ...]
    horizon: float
    n_records: int
    n_unknown: int
    n_late: int
    n_subjects: int
    n_censored: int

    def to_dict(self) -> dict[str, Any]:
        """All of the first cause at the top, each of the others under `causes`; for JSON."""
        return {
            **self.causes[0].to_dict(),
            "causes": {
                str(number): held.to_dict() for number, held in enumerate(self.causes[1:], start=2)
            },
            "horizon": self.horizon,
            "n_records": self.n_records,
            "n_unknown": self.n_unknown,
            "n_late": self.n_late,
            "n_subjects": self.n_subjects,
            "n_censored": self.n_censored,
        }

    def to_pandas(self) -> pd.DataFrame:
        """One row a metric of the model, of a baseline ("of" names which), or of a difference."""
        rows = [
            {"cause": number, "kind": kind, "of": name, "metric": metric, **vars(estimate)}
            for number, held in enumerate(self.causes, start=1)
            for kind, table in (
                ("model", {"": held.metrics}),
                ("baseline", held.baselines),
                ("difference", held.difference),
            )
            for name, metrics in table.items()
            for metric, estimate in metrics.items()
        ]
        return pd.DataFrame(rows)


Incidence = Callable[[Float[np.ndarray, " hour"]], Float[np.ndarray, "record hour cause"]]


def evaluate_survival(
    end: Float[np.ndarray, " record"],
    cause: Float[np.ndarray, " record"],
    predictions: Mapping[str, Incidence],
    *,
    horizons: tuple[float, ...],
    n_causes: int,
    entry: Float[np.ndarray, " record"] | None = None,
    subjects: Shaped[np.ndarray, " record"] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> SurvivalEvaluation:
    """Time-dependent AUC, Brier scores, concordance and calibration, each cause by itself.

    Of each cause: `auc` and `brier` at the middle horizon, `auc_<h>h` at the others,
    `integrated_brier` up to the last one, `concordance` (Harrell) and `concordance_ipcw` (Uno, up
    to the last horizon), and `observed_minus_expected`: incidence by the middle horizon as Aalen
    and Johansen have it less the mean that was predicted.

    Records that were watched only from some time after their prediction time are left out and
    counted: whether something had come before is not known of their likes.

    Args:
        end: Hours after the prediction time; NaN where nothing is known.
        cause: 0 where follow-up ended without an event, else 1, 2, ...; NaN where nothing is known.
        predictions: By name, with "model" among them: what gives the incidences at asked hours.
        horizons: Hours, ascending.
        n_causes: Causes 1 to this number.
        entry: Hours after the prediction time from which a record was watched; 0 by default.
        subjects: Whose record each is; the records themselves by default.
        n_resamples: Bootstrap resamples.
        seed: Of the resamples.

    Raises:
        ArgumentError: No prediction is the model's, or an incidence is no probability.
    """
    if MODEL not in predictions:
        raise ArgumentError(f"one of the predictions must be named {MODEL!r}")
    subjects = np.arange(len(end)) if subjects is None else subjects
    entry = np.zeros(len(end)) if entry is None else entry
    known = ~np.isnan(end)
    early = known & (entry <= 0)
    followed = FollowUp(
        end=end[early], cause=cause[early].astype(np.int64), entry=np.zeros(int(early.sum()))
    )
    grid = horizons[-1] * np.arange(1, N_GRID + 1) / N_GRID
    hours = np.concatenate([horizons, grid])
    held = {name: _checked(name, ask(hours)[early]) for name, ask in predictions.items()}
    units = subjects[early]
    causes = tuple(
        _evaluate_cause(
            followed,
            held,
            k + 1,
            horizons=horizons,
            grid=grid,
            resample=lambda statistics: bootstrap(
                statistics, units, n_resamples=n_resamples, seed=seed
            ),
        )
        for k in range(n_causes)
    )
    return SurvivalEvaluation(
        causes=causes,
        horizon=horizons[len(horizons) // 2],
        n_records=len(followed),
        n_unknown=int((~known).sum()),
        n_late=int((known & ~early).sum()),
        n_subjects=len(np.unique(units)),
        n_censored=int((followed.cause == 0).sum()),
    )


def _evaluate_cause(
    followed: FollowUp,
    held: Mapping[str, np.ndarray],
    cause: int,
    *,
    horizons: tuple[float, ...],
    grid: np.ndarray,
    resample: Callable[[Mapping[str, WeightedStatistic]], Bootstrap],
) -> CauseEvaluation:
    n, middle, censoring = len(horizons), len(horizons) // 2, Censoring(followed)
    horizon, last = horizons[middle], horizons[-1]
    statistics: dict[str, WeightedStatistic] = {}
    for name, incidence in held.items():
        own = incidence[:, :, cause - 1]
        at_horizon = own[:, middle]
        for position, hour in enumerate(horizons):
            metric = "auc" if position == middle else f"auc_{hour:g}h"
            statistics[f"{metric} {name}"] = lambda w, r=own[:, position], h=hour: (
                time_dependent_auc(followed, censoring, r, h, cause, w)
            )
        statistics[f"brier {name}"] = lambda w, r=at_horizon: brier(
            followed, censoring, r, horizon, cause, w
        )
        statistics[f"integrated_brier {name}"] = lambda w, r=own[:, n:]: integrated_brier(
            followed, censoring, r, grid, cause, w
        )
        statistics[f"concordance {name}"] = lambda w, r=at_horizon: concordance(
            followed, r, cause, w
        )
        statistics[f"concordance_ipcw {name}"] = lambda w, r=at_horizon: concordance(
            followed, r, cause, w, censoring=censoring, until=last
        )
        statistics[f"observed_minus_expected {name}"] = lambda w, r=at_horizon: (
            aalen_johansen(followed, np.array([horizon]), cause, w)[:, 0, cause - 1]
            - (w @ r) / w.sum(axis=1)
        )
    sample = resample(statistics)
    metrics = [key.split(" ")[0] for key in statistics if key.endswith(f" {MODEL}")]
    why = _why_undefined(followed, cause, horizons)
    estimates = {
        name: {m: sample.estimate(f"{m} {name}", why=why) for m in metrics} for name in held
    }
    own = estimates.pop(MODEL)
    return CauseEvaluation(
        metrics=own,
        baselines=estimates,
        difference={
            name: {m: _difference(sample, m, name, why) for m in metrics} for name in estimates
        },
        n_events=int((followed.cause == cause).sum()),
    )


def _difference(sample: Bootstrap, metric: str, name: str, why: str) -> Estimate:
    return sample.difference(f"{metric} {MODEL}", f"{metric} {name}", why=why)


def _cases(
    followed: FollowUp, censoring: Censoring, hour: float, cause: int, weights: Weights
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the records as cases, and as controls."""
    ended = followed.end <= hour
    by_then = weights * censoring.at_end(weights) * (ended & (followed.cause > 0))
    beyond = weights * censoring.at(weights, hour) * ~ended
    is_case = followed.cause == cause
    return np.where(is_case, by_then, 0.0), np.where(is_case, 0.0, by_then) + beyond


def _why_undefined(followed: FollowUp, cause: int, horizons: tuple[float, ...]) -> str:
    if not len(followed):
        return "no record was watched from its prediction time on"
    if not ((followed.cause == cause) & (followed.end <= horizons[0])).any():
        return "no event of this cause by the horizon"
    if followed.end.max() < horizons[-1]:
        return "nobody was watched as long as the horizon"
    return "nobody is left to compare with"


def _checked(name: str, incidence: np.ndarray) -> np.ndarray:
    wrong = ~((incidence >= 0) & (incidence <= 1 + 1e-6))
    if wrong.any():
        raise ArgumentError(f"{int(wrong.sum())} incidences of {name!r} are no probabilities")
    return incidence


def _ratio(total: np.ndarray, count: np.ndarray) -> PerResample:
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def _to_dict(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.to_dict() for name, estimate in estimates.items()}
