"""What a fit and its run do for `Classify`: log odds of an outcome, beside trivial models."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from clinode.cohort import Classify, Cohort, PackedRecords
from clinode.errors import SchemaError
from clinode.evaluation import (
    Baselines,
    Recalibration,
    evaluate_classification,
    fit_baselines,
)
from clinode.evaluation.labels import LabelBaselines, evaluate_labels
from clinode.sequence import in_batches
from clinode.training.histories import read_histories
from clinode.training.subgroups import evaluate_subgroups
from clinode.training.task_work import Resampling, Result, TaskWork, baselines_of, refuse_hours

if TYPE_CHECKING:
    from clinode.training.run import Run

_BATCH = 256


class RiskBaselines:
    """The baselines of one outcome, or of several labels."""

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray]) -> Baselines | LabelBaselines:
        """What `to_arrays` of either gave."""
        kind = LabelBaselines if any(":" in name for name in arrays) else Baselines
        return kind.from_arrays(arrays)


class ClassificationWork(TaskWork):
    """Risks: the mean of the members' log odds counts."""

    baselines = RiskBaselines

    def check_targets(self, part: str, cohort: Cohort, records: PackedRecords) -> None:
        for name, outcome in zip(_labels(records), _outcomes(records).T, strict=True):
            known = outcome[~np.isnan(outcome)]
            if len(known) == 0:
                raise SchemaError(
                    f"no record of the {part} part has a known {name!r}",
                    where="outcomes",
                    fix="check that the outcomes table names the same subjects as the observations",
                )
            if part == "training" and len(np.unique(known)) < 2:
                raise SchemaError(
                    f"all {len(known)} known values of {name!r} in the training part are "
                    f"{known[0]:g}: one class cannot be told from another",
                    where="outcomes",
                    fix="check the outcome column, or train on more subjects",
                )

    def fit_baselines(
        self, cohort: Cohort, records: PackedRecords, seed: int
    ) -> Baselines | LabelBaselines:
        histories = read_histories(cohort, records)
        fitted = tuple(
            fit_baselines(
                histories,
                outcome,
                log=np.array([t == "log" for t in records.schema.transform], dtype=bool),
                subjects=pd.factorize(cohort.groups)[0][records.subject_index],
                seed=seed,
            )
            for outcome in _outcomes(records).T
        )
        return fitted[0] if len(fitted) == 1 else LabelBaselines(of=fitted)

    def predict(
        self,
        members: "Sequence[Run]",
        records: PackedRecords,
        hours_after: Sequence[float] | None,
    ) -> pd.DataFrame:
        refuse_hours(hours_after)
        others = _labels(records)[1:]
        logit = _answers(members, records)
        table = records.instances.assign(logit=logit[:, 0])
        for position, label in enumerate(others, start=1):
            table[f"logit_{label}"] = logit[:, position]
        for position, label in enumerate(others, start=1):
            table[f"probability_{label}"] = expit(logit[:, position])
        return table.assign(probability=expit(logit[:, 0]))

    def evaluate(
        self,
        members: "Sequence[Run]",
        cohort: Cohort,
        records: PackedRecords,
        units: np.ndarray,
        options: Resampling,
    ) -> tuple[Result, tuple[dict[str, Any], ...]]:
        labels = _labels(records)
        outcome, probability = _outcomes(records), expit(_answers(members, records))
        histories = read_histories(cohort, records)
        subject = records.subject_index
        if len(labels) == 1:
            result = evaluate_classification(
                outcome[:, 0],
                probability[:, 0],
                baselines_of(members[0], Baselines).predict(histories),
                subjects=units,
                **options,
            )
            return result, evaluate_subgroups(
                cohort, subject, outcome[:, 0], probability[:, 0], units, options
            )
        result = evaluate_labels(
            outcome,
            probability,
            baselines_of(members[0], LabelBaselines).predict(histories),
            labels=labels,
            subjects=units,
            **options,
        )
        groups = [
            {"outcome": label, **row}
            for k, label in enumerate(labels)
            for row in evaluate_subgroups(
                cohort, subject, outcome[:, k], probability[:, k], units, options
            )
        ]
        return result, tuple(groups)

    def observed(self, run: "Run", part: str, cohort: Cohort) -> pd.DataFrame:
        table = run.predict(cohort)
        records = run.records(cohort, with_targets=True)
        table.insert(2, "split", part)
        for position, (label, outcome) in enumerate(
            zip(_labels(records), _outcomes(records).T, strict=True)
        ):
            name = "outcome" if position == 0 else f"outcome_{label}"
            table.insert(3 + position, name, outcome)
        return table


def logits(run: "Run", records: PackedRecords) -> np.ndarray:
    """The model's own log odds of the first label of each record, (record,) float64."""
    return _label_logits(run, records)[:, 0]


def mean_logits(members: "Sequence[Run]", records: PackedRecords) -> np.ndarray:
    """Mean log odds of the first label over the members, (record,) float64."""
    return _mean_logits(members, records)[:, 0]


def _label_logits(run: "Run", records: PackedRecords) -> np.ndarray:
    """Log odds of each label of each record, (record, label) float64."""
    found = np.empty((len(records), len(_labels(records))))
    with torch.no_grad():
        for batch in in_batches(records, _BATCH):
            readout = run.model(batch.to(run.device))
            found[batch.subject.numpy()] = readout.value.double().cpu().numpy()
    return found


def _mean_logits(members: "Sequence[Run]", records: PackedRecords) -> np.ndarray:
    return np.mean([_label_logits(run, records) for run in members], axis=0)


def _answers(members: "Sequence[Run]", records: PackedRecords) -> np.ndarray:
    """What is said in the end: the mean log odds, the first label recalibrated where that was."""
    logit, calibration = _mean_logits(members, records), members[0].calibration
    if isinstance(calibration, Recalibration):
        logit[:, 0] = calibration.apply(logit[:, 0])
    return logit


def _labels(records: PackedRecords) -> tuple[str, ...]:
    return cast(Classify, records.task).labels


def _outcomes(records: PackedRecords) -> np.ndarray:
    """0, 1 or NaN of each label of each record, (record, label)."""
    n_labels = len(_labels(records))
    if records.target is None:
        return np.full((len(records), n_labels), np.nan)
    return records.target[:, :n_labels]
