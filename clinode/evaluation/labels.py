"""Several binary outcomes of the same records: each by itself, and their macro average.

A record counts for a label where that label is known of it. The macro average of a metric is the
plain mean over labels; its interval comes from resamples of subjects that all labels share.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from clinode.errors import ArgumentError, CheckpointError
from clinode.evaluation.baselines import Baselines
from clinode.evaluation.classification import (
    METRICS,
    MODEL,
    ClassificationEvaluation,
    evaluate_classification,
)
from clinode.evaluation.histories import Histories
from clinode.evaluation.scores import ScoredRecords
from clinode.statistics import Estimate, bootstrap, percentile_interval


@dataclass(frozen=True, kw_only=True)
class LabelBaselines:
    """The baselines of each label, in the order of the labels."""

    of: tuple[Baselines, ...]

    def predict(self, histories: Histories) -> dict[str, Float[np.ndarray, "record label"]]:
        """Probability of each label for each record, by each baseline."""
        found = [held.predict(histories) for held in self.of]
        return {name: np.stack([own[name] for own in found], axis=1) for name in found[0]}

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything there is to store; the names of a label's arrays begin with its number."""
        return {
            f"{label}:{name}": array
            for label, held in enumerate(self.of)
            for name, array in held.to_arrays().items()
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "LabelBaselines":
        """The inverse of `to_arrays`.

        Raises:
            CheckpointError: An array is missing, or belongs to no label.
        """
        parts: dict[int, dict[str, np.ndarray]] = {}
        for name, array in arrays.items():
            label, mark, own = name.partition(":")
            if not mark or not label.isdecimal():
                raise CheckpointError("the stored baselines are not those of labels")
            parts.setdefault(int(label), {})[own] = array
        if sorted(parts) != list(range(len(parts))):
            raise CheckpointError("the stored baselines lack those of a label")
        return cls(of=tuple(Baselines.from_arrays(parts[label]) for label in sorted(parts)))


@dataclass(frozen=True, kw_only=True)
class LabelsEvaluation:
    """Metrics of several labels.

    Args:
        metrics: Macro averages of the model.
        baselines: Of each baseline.
        difference: Model minus each baseline, on the same resamples.
        labels: By label, all that is known of it alone.
        n_records: Records with at least one known label.
        n_subjects: Whose they are: the units of the intervals.
    """

    metrics: dict[str, Estimate]
    baselines: dict[str, dict[str, Estimate]]
    difference: dict[str, dict[str, Estimate]]
    labels: dict[str, ClassificationEvaluation]
    n_records: int
    n_subjects: int

    def to_dict(self) -> dict[str, Any]:
        """Macro averages by name, `baselines`, `difference`, `labels` and the counts; for JSON."""
        return {
            **_to_dict(self.metrics),
            "baselines": {name: _to_dict(held) for name, held in self.baselines.items()},
            "difference": {name: _to_dict(held) for name, held in self.difference.items()},
            "labels": {label: held.to_dict() for label, held in self.labels.items()},
            "n_records": self.n_records,
            "n_subjects": self.n_subjects,
        }

    def to_pandas(self) -> pd.DataFrame:
        """One row a label, kind and metric, as of one label; the label "macro" is the average."""
        rows = [("model", "", self.metrics)]
        rows += [("baseline", name, held) for name, held in self.baselines.items()]
        rows += [("difference", name, held) for name, held in self.difference.items()]
        macro = pd.DataFrame(
            [
                {"kind": kind, "of": name, "metric": metric, **vars(estimate)}
                for kind, name, held in rows
                for metric, estimate in held.items()
            ]
        )
        parts = {"macro": macro, **{k: held.to_pandas() for k, held in self.labels.items()}}
        return pd.concat(parts, names=["label"]).reset_index(level=0).reset_index(drop=True)


def evaluate_labels(
    outcome: Float[np.ndarray, "record label"],
    probability: Float[np.ndarray, "record label"],
    baselines: Mapping[str, np.ndarray],
    *,
    labels: tuple[str, ...],
    subjects: Shaped[np.ndarray, " record"],
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> LabelsEvaluation:
    """All `METRICS` of each label, and their macro averages.

    Args:
        outcome: 0, 1, or NaN where unknown.
        probability: Of the model, in [0, 1].
        baselines: By name, the same of each baseline.
        labels: Their names.
        subjects: Whose record each is.
        n_resamples: Bootstrap resamples of subjects.
        seed: Of the resamples.
        level: Of the intervals.

    Raises:
        ArgumentError: As `evaluate_classification`; or there is not one column a label.
    """
    if outcome.shape[1] != len(labels):
        raise ArgumentError(f"{len(labels)} labels, but {outcome.shape[1]} columns of outcomes")
    single = {
        label: evaluate_classification(
            outcome[:, k],
            probability[:, k],
            {name: held[:, k] for name, held in baselines.items()},
            subjects=subjects,
            n_resamples=n_resamples,
            seed=seed,
            level=level,
        )
        for k, label in enumerate(labels)
    }
    any_known = ~np.isnan(outcome).all(axis=1)
    predictions = {MODEL: probability, **baselines}
    statistics = {
        f"{metric} {name}": _macro(compute, outcome[any_known], held[any_known])
        for name, held in predictions.items()
        for metric, compute in METRICS.items()
    }
    sample = bootstrap(statistics, subjects[any_known], n_resamples=n_resamples, seed=seed)
    why = {metric: _why(metric, single) for metric in METRICS}

    def estimate(metric: str, *signed: tuple[str, float]) -> Estimate:
        value = sum(sign * sample.value[f"{metric} {name}"] for name, sign in signed)
        drawn = sum(sign * sample.resampled[f"{metric} {name}"] for name, sign in signed)
        if metric == "ece":  # resampling adds noise to a mean of absolute values: see there
            drawn = np.asarray(drawn) - np.mean(drawn) + value
        return percentile_interval(float(value), np.asarray(drawn), level=level, why=why[metric])

    return LabelsEvaluation(
        metrics={m: estimate(m, (MODEL, 1.0)) for m in METRICS},
        baselines={name: {m: estimate(m, (name, 1.0)) for m in METRICS} for name in baselines},
        difference={
            name: {m: estimate(m, (MODEL, 1.0), (name, -1.0)) for m in METRICS}
            for name in baselines
        },
        labels=single,
        n_records=int(any_known.sum()),
        n_subjects=len(np.unique(subjects[any_known])),
    )


def _macro(metric: Any, outcome: np.ndarray, probability: np.ndarray):
    """Mean over labels of a metric, each on the records whose label is known, of weights."""
    known = [np.flatnonzero(~np.isnan(column)) for column in outcome.T]
    scored = [
        ScoredRecords.sort(outcome[rows, k], probability[rows, k]) for k, rows in enumerate(known)
    ]

    def mean(weights: np.ndarray) -> np.ndarray:
        values = [
            metric(records.count(weights[:, rows]))
            for records, rows in zip(scored, known, strict=True)
        ]
        return np.mean(values, axis=0)

    return mean


def _why(metric: str, single: Mapping[str, ClassificationEvaluation]) -> str:
    """Which label has no value, and why."""
    for label, held in single.items():
        if not held.metrics[metric].is_defined:
            return f"{label}: {held.metrics[metric].verdict.removeprefix('undefined: ')}"
    return "a baseline has no value for a label"


def _to_dict(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.to_dict() for name, estimate in estimates.items()}
