"""A classifier held against the baselines: every metric, its interval, and the paired difference.

All of it on the same resamples of subjects. A metric that has no value says why instead.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from clinode.errors import ArgumentError
from clinode.evaluation.calibration import calibration_intercept, calibration_slope, ece
from clinode.evaluation.metrics import auprc, auroc, brier
from clinode.evaluation.scores import PerResample, ScoredRecords, ScoreTable
from clinode.statistics import Bootstrap, Estimate, bootstrap, percentile_interval

METRICS: dict[str, Callable[[ScoreTable], PerResample]] = {
    "auroc": auroc,
    "auprc": auprc,
    "brier": brier,
    "calibration_slope": calibration_slope,
    "calibration_intercept": calibration_intercept,
    "ece": ece,
}
MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class ClassificationEvaluation:
    """Metrics of a model and of its baselines, and model minus baseline, by name of the metric.

    Args:
        metrics: Of the model.
        baselines: Of each baseline.
        difference: Model minus each baseline, on the same resamples.
        n_records: Records with a known outcome.
        n_unknown: Records left out because theirs is not known.
        n_subjects: Subjects of the records with a known outcome: the units of the intervals.
        n_positive: Positive records.
    """

    metrics: dict[str, Estimate]
    baselines: dict[str, dict[str, Estimate]]
    difference: dict[str, dict[str, Estimate]]
    n_records: int
    n_unknown: int
    n_subjects: int
    n_positive: int

    def to_dict(self) -> dict[str, Any]:
        """The metrics by name, `baselines`, `difference` and the counts; ready for JSON."""
        return {
            **_to_dict(self.metrics),
            "baselines": {name: _to_dict(held) for name, held in self.baselines.items()},
            "difference": {name: _to_dict(held) for name, held in self.difference.items()},
            "n_records": self.n_records,
            "n_unknown": self.n_unknown,
            "n_subjects": self.n_subjects,
            "n_positive": self.n_positive,
        }

    def to_pandas(self) -> pd.DataFrame:
        """One row a metric of the model, of a baseline ("of" names which), or of a difference."""
        rows = [("model", "", self.metrics)]
        rows += [("baseline", name, held) for name, held in self.baselines.items()]
        rows += [("difference", name, held) for name, held in self.difference.items()]
        return pd.DataFrame(
            [
                {"kind": kind, "of": name, "metric": metric, **vars(estimate)}
                for kind, name, held in rows
                for metric, estimate in held.items()
            ]
        )


def evaluate_classification(
    outcome: Float[np.ndarray, " record"],
    probability: Float[np.ndarray, " record"],
    baselines: Mapping[str, np.ndarray] | None = None,
    *,
    subjects: Shaped[np.ndarray, " record"] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> ClassificationEvaluation:
    """All `METRICS` of a model and of its baselines.

    Intervals are percentiles over resamples of subjects. Resampling adds noise of its own to the
    ECE, which is a mean of absolute values; its resamples are moved back by their mean excess, so
    that the interval lies around the value.

    Args:
        outcome: 0, 1, or NaN where unknown; those records are left out and counted.
        probability: Of the model, in [0, 1].
        baselines: By name, the same of each baseline.
        subjects: Whose record each is; the records themselves by default.
        n_resamples: Bootstrap resamples.
        seed: Of the resamples.
        level: Of the intervals.

    Raises:
        ArgumentError: An outcome other than 0, 1 and NaN, a probability outside [0, 1], lengths
            that disagree, or a baseline named "model".

    Example:
        >>> result = evaluate_classification(
        ...     np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.35, 0.8]), n_resamples=10
        ... )
        >>> result.metrics["auroc"].value
        0.75
    """
    if MODEL in (baselines or {}):
        raise ArgumentError(f"a baseline cannot be named {MODEL!r}")
    predictions = {MODEL: probability, **(baselines or {})}
    subjects = np.arange(len(outcome)) if subjects is None else subjects
    is_known = _check(outcome, predictions, subjects)
    outcome, subjects = outcome[is_known], subjects[is_known]
    scored = {
        name: ScoredRecords.sort(outcome, held[is_known]) for name, held in predictions.items()
    }
    statistics = {
        f"{metric} {name}": _of_weights(compute, records)
        for name, records in scored.items()
        for metric, compute in METRICS.items()
    }
    sample = bootstrap(statistics, subjects, n_resamples=n_resamples, seed=seed)
    reasons = {name: _why_undefined(records) for name, records in scored.items()}
    estimates = {
        name: {m: _estimate(sample, m, name, level, reasons[name][m]) for m in METRICS}
        for name in scored
    }
    own = estimates.pop(MODEL)
    return ClassificationEvaluation(
        metrics=own,
        baselines=estimates,
        difference={
            name: {m: _difference(sample, m, name, level, reasons) for m in METRICS}
            for name in estimates
        },
        n_records=len(outcome),
        n_unknown=int((~is_known).sum()),
        n_subjects=len(np.unique(subjects)),
        n_positive=int(outcome.sum()),
    )


def _check(
    outcome: np.ndarray, predictions: Mapping[str, np.ndarray], subjects: np.ndarray
) -> np.ndarray:
    """Which outcomes are known."""
    is_known = ~np.isnan(outcome)
    if not np.isin(outcome[is_known], (0.0, 1.0)).all():
        raise ArgumentError("a binary outcome must be 0, 1 or missing")
    for name, held in {"subjects": subjects, **predictions}.items():
        if len(held) != len(outcome):
            raise ArgumentError(f"{len(outcome)} outcomes, but {len(held)} of {name!r}")
    for name, held in predictions.items():
        n_wrong = int((~((held >= 0) & (held <= 1))).sum())
        if n_wrong:
            raise ArgumentError(
                f"{n_wrong} predictions of {name!r} are not probabilities in [0, 1]"
            )
    return is_known


def _of_weights(
    metric: Callable[[ScoreTable], PerResample], records: ScoredRecords
) -> Callable[[Float[np.ndarray, "resample record"]], PerResample]:
    return lambda weights: metric(records.count(weights))


def _estimate(sample: Bootstrap, metric: str, name: str, level: float, why: str) -> Estimate:
    key = f"{metric} {name}"
    value, resampled = sample.value[key], sample.resampled[key]
    if metric == "ece":
        resampled = np.maximum(_recenter(value, resampled), 0.0)
    return percentile_interval(value, resampled, level=level, why=why)


def _difference(
    sample: Bootstrap, metric: str, name: str, level: float, reasons: dict[str, dict[str, str]]
) -> Estimate:
    own, other = f"{metric} {MODEL}", f"{metric} {name}"
    value = sample.value[own] - sample.value[other]
    resampled = sample.resampled[own] - sample.resampled[other]
    if metric == "ece":
        resampled = _recenter(value, resampled)
    blamed = MODEL if np.isnan(sample.value[own]) else name
    why = f"{blamed}: {reasons[blamed][metric]}"
    return percentile_interval(value, resampled, level=level, why=why)


def _recenter(value: float, resampled: np.ndarray) -> np.ndarray:
    """Take off the bias that resampling adds to a statistic that is biased by noise."""
    return resampled - resampled.mean() + value


def _why_undefined(records: ScoredRecords) -> dict[str, str]:
    """What to say of each metric, should it have no value."""
    if not len(records.outcome):
        return dict.fromkeys(METRICS, "no record has a known outcome")
    table = records.count_once()
    if not table.has_both[0]:
        missing = "no positives" if table.n_positive[0] == 0 else "no negatives"
        return dict.fromkeys(METRICS, missing)
    reasons = dict.fromkeys(METRICS, "the fit did not converge")
    if len(table.score) == 1:
        reasons["calibration_slope"] = "every prediction is the same"
    elif table.score[0] > 0 and table.score[-1] < 1:
        reasons["calibration_slope"] = "the predictions separate the two classes"
    if table.score[0] <= 0 or table.score[-1] >= 1:
        extreme = "a probability of exactly 0 or 1 has no logit"
        reasons |= {"calibration_slope": extreme, "calibration_intercept": extreme}
    return reasons


def _to_dict(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.to_dict() for name, estimate in estimates.items()}
