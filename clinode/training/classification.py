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
    ClassificationEvaluation,
    evaluate_classification,
    fit_baselines,
)
from clinode.sequence import in_batches
from clinode.training.histories import read_histories
from clinode.training.subgroups import evaluate_subgroups
from clinode.training.task_work import Resampling, TaskWork, baselines_of, refuse_hours

if TYPE_CHECKING:
    from clinode.training.run import Run

_BATCH = 256


class ClassificationWork(TaskWork):
    """Risks: the mean of the members' log odds counts."""

    baselines = Baselines

    def check_targets(self, part: str, cohort: Cohort, records: PackedRecords) -> None:
        name = cast(Classify, records.task).outcome
        outcome = _outcome(records)[records.trainable]
        if len(outcome) == 0:
            raise SchemaError(
                f"no record of the {part} part has a known {name!r}",
                where="outcomes",
                fix="check that the outcomes table names the same subjects as the observations",
            )
        if part == "training" and len(np.unique(outcome)) < 2:
            raise SchemaError(
                f"all {len(outcome)} known values of {name!r} in the training part are "
                f"{outcome[0]:g}: one class cannot be told from another",
                where="outcomes",
                fix="check the outcome column, or train on more subjects",
            )

    def fit_baselines(self, cohort: Cohort, records: PackedRecords, seed: int) -> Baselines:
        return fit_baselines(
            read_histories(cohort, records),
            _outcome(records),
            log=np.array([t == "log" for t in records.schema.transform], dtype=bool),
            subjects=pd.factorize(cohort.groups)[0][records.subject_index],
            seed=seed,
        )

    def predict(
        self,
        members: "Sequence[Run]",
        records: PackedRecords,
        hours_after: Sequence[float] | None,
    ) -> pd.DataFrame:
        refuse_hours(hours_after)
        logit = mean_logits(members, records)
        return records.instances.assign(logit=logit, probability=expit(logit))

    def evaluate(
        self,
        members: "Sequence[Run]",
        cohort: Cohort,
        records: PackedRecords,
        units: np.ndarray,
        options: Resampling,
    ) -> tuple[ClassificationEvaluation, tuple[dict[str, Any], ...]]:
        baselines = baselines_of(members[0], Baselines)
        outcome, probability = _outcome(records), expit(mean_logits(members, records))
        result = evaluate_classification(
            outcome,
            probability,
            baselines.predict(read_histories(cohort, records)),
            subjects=units,
            **options,
        )
        groups = evaluate_subgroups(
            cohort, records.subject_index, outcome, probability, units, options
        )
        return result, groups

    def observed(self, run: "Run", part: str, cohort: Cohort) -> pd.DataFrame:
        table = run.predict(cohort)
        table.insert(2, "split", part)
        table.insert(3, "outcome", _outcome(run.records(cohort, with_targets=True)))
        return table


def logits(run: "Run", records: PackedRecords) -> np.ndarray:
    """Log odds of the outcome of each record, (record,) float64."""
    found = np.empty(len(records))
    with torch.no_grad():
        for batch in in_batches(records, _BATCH):
            readout = run.model(batch.to(run.device))
            found[batch.subject.numpy()] = readout.value[:, 0].double().cpu().numpy()
    return found


def mean_logits(members: "Sequence[Run]", records: PackedRecords) -> np.ndarray:
    """Mean log odds over the members, (record,) float64."""
    return np.mean([logits(run, records) for run in members], axis=0)


def _outcome(records: PackedRecords) -> np.ndarray:
    """0, 1 or NaN of each record."""
    if records.target is None:
        return np.full(len(records), np.nan)
    return records.target[:, 0]
