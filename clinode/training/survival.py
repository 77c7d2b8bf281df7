"""What a fit and its run do for `Survive`: incidences of each cause, beside trivial models."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch

from clinode.cohort import Cohort, Intervals, PackedRecords, Survive, cumulative_incidence
from clinode.errors import ArgumentError, SchemaError
from clinode.evaluation.survival import SurvivalEvaluation, evaluate_survival
from clinode.evaluation.survival_baselines import SurvivalBaselines, fit_survival_baselines
from clinode.sequence import in_batches
from clinode.training.histories import read_histories
from clinode.training.task_work import Resampling, TaskWork, baselines_of

if TYPE_CHECKING:
    from clinode.training.run import Run

_BATCH = 256


class SurvivalWork(TaskWork):
    """Cumulative incidences: the mean of the members' incidences counts."""

    baselines = SurvivalBaselines

    def check_targets(self, part: str, cohort: Cohort, records: PackedRecords) -> None:
        target = _target(records)
        if np.isnan(target[:, 1]).all():
            raise SchemaError(
                f"no record of the {part} part is followed behind its prediction time",
                where="outcomes",
                fix="give an earlier landmark, or check that the outcomes name the same subjects",
            )
        cast(Survive, records.task).check_causes(target, intervals_of(records))

    def fit_baselines(self, cohort: Cohort, records: PackedRecords, seed: int) -> SurvivalBaselines:
        return fit_survival_baselines(
            read_histories(cohort, records),
            records.prediction_time,
            _target(records),
            intervals_of(records),
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
        intervals = intervals_of(records)
        hours = intervals.check_horizons(hours_after)
        incidence = incidences(members, records, np.array(hours))
        columns: dict[str, np.ndarray] = {}
        for place, hour in enumerate(hours):
            columns[f"survival_{hour:g}h"] = 1 - incidence[:, place].sum(axis=1)
            for cause in range(intervals.n_causes):
                columns[f"incidence_{cause + 1}_{hour:g}h"] = incidence[:, place, cause]
        columns["probability"] = incidence[:, len(hours) // 2, 0]
        return pd.concat([records.instances, pd.DataFrame(columns)], axis=1)

    def evaluate(
        self,
        members: "Sequence[Run]",
        cohort: Cohort,
        records: PackedRecords,
        units: np.ndarray,
        options: Resampling,
    ) -> tuple[SurvivalEvaluation, tuple[dict[str, Any], ...]]:
        intervals, target = intervals_of(records), _target(records)
        cast(Survive, records.task).check_causes(target, intervals)
        fitted = baselines_of(members[0], SurvivalBaselines)
        histories = read_histories(cohort, records)
        predictions = {"model": lambda hours: incidences(members, records, hours)}
        for name in ("aalen_johansen", "pooled_logistic"):
            predictions[name] = lambda hours, name=name: fitted.predict(
                histories, records.prediction_time, hours
            )[name]
        result = evaluate_survival(
            target[:, 1],
            target[:, 2],
            predictions,
            horizons=intervals.horizons,
            n_causes=intervals.n_causes,
            entry=target[:, 0],
            subjects=units,
            **options,
        )
        return result, ()

    def observed(self, run: "Run", part: str, cohort: Cohort) -> pd.DataFrame:
        table = run.predict(cohort)
        target = _target(run.records(cohort, with_targets=True))
        table.insert(2, "split", part)
        for place, name in enumerate(("entry", "end", "cause")):
            table.insert(3 + place, name, target[:, place])
        return table


def incidences(members: "Sequence[Run]", records: PackedRecords, hours: np.ndarray) -> np.ndarray:
    """Mean cumulative incidence over the members, (record, hour, cause) float64.

    Args:
        members: Runs of one task and one schema.
        records: As `Run.records` gives them.
        hours: After each prediction time, none behind the last interval.
    """
    intervals = intervals_of(records)
    total = np.zeros((len(records), len(hours), intervals.n_causes))
    asked = torch.from_numpy(np.asarray(hours, dtype=np.float64))
    with torch.no_grad():
        for run in members:
            for batch in in_batches(records, _BATCH):
                odds = run.model(batch.to(run.device)).value.double().cpu()
                found = cumulative_incidence(odds, intervals, asked)
                total[batch.subject.numpy()] += found.numpy()
    return total / len(members)


def intervals_of(records: PackedRecords) -> Intervals:
    """The intervals of the schema.

    Raises:
        ArgumentError: It was fitted for a task without follow-up.
    """
    if records.schema.intervals is None:
        raise ArgumentError("the schema was fitted for a task without follow-up")
    return records.schema.intervals


def _target(records: PackedRecords) -> np.ndarray:
    """Hours of entry and end after the prediction time, and the cause; NaN where unknown."""
    return np.full((len(records), 3), np.nan) if records.target is None else records.target
