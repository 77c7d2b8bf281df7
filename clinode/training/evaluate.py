"""How good a run is on a cohort: its metrics, the baselines beside them, subgroups, the decoder.

Everything carries an interval over subjects (over groups of subjects where the cohort has them),
and model and baselines are compared on the same resamples. What has no value says why.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from clinode.cohort import Cohort, Forecast, PackedRecords
from clinode.errors import CheckpointError
from clinode.evaluation import (
    Baselines,
    ClassificationEvaluation,
    ForecastBaselines,
    ForecastEvaluation,
    Predicted,
    evaluate_classification,
    evaluate_forecast,
)
from clinode.sequence import in_batches
from clinode.statistics import Estimate, bootstrap
from clinode.training.histories import read_histories
from clinode.training.run import Run, mean_and_spread

SMALLEST_CELL = 11  # subjects; smaller groups are neither shown nor derivable
OLD_AGE = 65.0  # years
_SHOWN_OF_SUBGROUPS = ("auroc", "auprc", "brier", "ece")


class _Resampling(TypedDict):
    n_resamples: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found.

    Args:
        result: Metrics, baselines and differences.
        subgroups: One row a subgroup; None where a cell is too small to be shown.
        next_observation: Error of the decoder on what is measured next, beside carrying the last
            value forward; mean squared, standardised.
        n_trained_on: Subjects of the cohort that the run was trained or tuned on; 0 is right.
    """

    result: ClassificationEvaluation | ForecastEvaluation
    subgroups: tuple[dict[str, Any], ...]
    next_observation: Mapping[str, Estimate]
    n_trained_on: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: each metric by name, then `baselines`, `difference`, `subgroups` and more."""
        return {
            **self.result.to_dict(),
            "subgroups": [
                {key: _plain(value) for key, value in row.items()} for row in self.subgroups
            ],
            "next_observation": {k: v.to_dict() for k, v in self.next_observation.items()},
            "n_trained_on": self.n_trained_on,
        }

    def to_pandas(self) -> pd.DataFrame:
        """One row a metric of the model, a baseline or a difference; of a forecast, by variable."""
        return self.result.to_pandas()


def evaluate(run: Run, cohort: Cohort, *, n_resamples: int = 1000, seed: int = 0) -> Evaluation:
    """Measures a run, and the baselines stored with it, on a cohort.

    Args:
        run: What to measure.
        cohort: With the outcome, or with observations after the prediction times.
        n_resamples: Bootstrap resamples for the intervals.
        seed: Of the resamples.

    Raises:
        SchemaError: The cohort has unknown variables, or lacks the outcome.
    """
    records = run.records(cohort, with_targets=True)
    units = np.asarray(cohort.groups)[records.subject_index]
    options = _Resampling(n_resamples=n_resamples, seed=seed)
    if isinstance(run.task, Forecast):
        result = _evaluate_forecast(run, cohort, records, units, options)
        subgroups = ()
    else:
        result, subgroups = _evaluate_classification(run, cohort, records, units, options)
    return Evaluation(
        result=result,
        subgroups=subgroups,
        next_observation=_evaluate_decoder(run, cohort, records, options),
        n_trained_on=int(np.isin(cohort.subjects, run.parts["subject_id"].to_numpy()).sum()),
    )


def _evaluate_classification(
    run: Run, cohort: Cohort, records: PackedRecords, units: np.ndarray, options: _Resampling
) -> tuple[ClassificationEvaluation, tuple[dict[str, Any], ...]]:
    if records.target is None or not isinstance(run.baselines, Baselines):
        raise CheckpointError("the run holds baselines of another task", where=run.folder.name)
    outcome, probability = records.target[:, 0], expit(run.logits(records))
    result = evaluate_classification(
        outcome,
        probability,
        run.baselines.predict(read_histories(cohort, records)),
        subjects=units,
        **options,
    )
    rows = []
    for name, levels in _subgroup_levels(cohort).items():
        level_of_record = levels[records.subject_index]
        known = ~np.isnan(outcome)
        own = []
        for level in sorted(set(level_of_record[known])):
            held = known & (level_of_record == level)
            part = evaluate_classification(
                outcome[held], probability[held], subjects=units[held], **options
            )
            own.append(_subgroup_row(f"{name}: {level}", part))
        rows.extend(_hide_small(own))
    return result, tuple(rows)


def _subgroup_row(group: str, part: ClassificationEvaluation) -> dict[str, Any]:
    metrics = {name: part.metrics[name] for name in _SHOWN_OF_SUBGROUPS}
    return {"group": group, "n": part.n_records, "n_events": part.n_positive, **metrics}


def _hide_small(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Levels of one subgroup without any count from 1 to 10, shown or derivable from the others.

    Where positives or negatives are few the metrics go too: they are noise, and tell the count.
    Where one count alone would be hidden the total gives it away, so that of the next smallest
    level is hidden as well; its metrics stay.
    """
    n = np.array([row["n"] for row in rows])
    events = np.array([row["n_events"] for row in rows])
    few = np.minimum(events, n - events) < SMALLEST_CELL
    hide_n = _with_company(n < SMALLEST_CELL, n)
    hide_events = _with_company(hide_n | few, np.minimum(events, n - events))
    hidden = []
    for position, row in enumerate(rows):
        shown = dict(row)
        if hide_n[position]:
            shown["n"] = None
        if hide_events[position]:
            shown["n_events"] = None
        if few[position]:
            shown |= dict.fromkeys(_SHOWN_OF_SUBGROUPS)
        hidden.append(shown)
    return hidden


def _with_company(hidden: np.ndarray, count: np.ndarray) -> np.ndarray:
    if hidden.sum() != 1 or len(hidden) == 1:
        return hidden
    others = np.where(hidden, np.iinfo(np.int64).max, count)
    return hidden | (np.arange(len(hidden)) == int(np.argmin(others)))


def _subgroup_levels(cohort: Cohort) -> dict[str, np.ndarray]:
    """By label, the level of each subject: two of age, those of binary and categorical statics."""
    found = {}
    for variable in cohort.schema.statics:
        if cohort.statics is None or variable.name not in cohort.statics.columns:
            continue
        column = cohort.statics[variable.name]
        if variable.name.lower() == "age":
            old = column.to_numpy(dtype=np.float64, na_value=np.nan)
            words = np.where(old < OLD_AGE, f"below {OLD_AGE:g}", f"{OLD_AGE:g} and above")
            levels = np.where(np.isnan(old), "missing", words)
        elif variable.kind in ("binary", "categorical"):
            words = {number: word for word, number in reversed(variable.words)}  # the first word
            levels = np.array([_level(value, words) for value in column], dtype=object)
        else:
            continue
        label = variable.label or variable.name
        if variable.words:
            label = label.partition(" (")[0]  # what the numbers mean is said by the words
        found[label] = levels.astype(object)
    return found


def _level(value: Any, words: Mapping[float, str]) -> str:
    if pd.isna(value):
        return "missing"
    if isinstance(value, int | float):
        return words.get(float(value), f"{value:g}")
    return str(value)


def _evaluate_forecast(
    run: Run, cohort: Cohort, records: PackedRecords, units: np.ndarray, options: _Resampling
) -> ForecastEvaluation:
    if not isinstance(run.baselines, ForecastBaselines):
        raise CheckpointError("the run holds baselines of another task", where=run.folder.name)
    asked = forecast_queries(run, records)
    histories = read_histories(cohort, records, standardised=True)
    record, variable = asked["record"].to_numpy(), asked["variable"].to_numpy()
    return evaluate_forecast(
        asked["target"].to_numpy(),
        variable,
        Predicted(mean=asked["mean"].to_numpy(), spread=asked["spread"].to_numpy()),
        run.baselines.predict(histories, record, variable),
        names=run.schema.variables,
        subjects=units[record],
        **options,
    )


def forecast_queries(run: Run, records: PackedRecords) -> pd.DataFrame:
    """Every observation within the horizon beside its forecast, on the standardised scale.

    Variables that were constant in the training part (a flag that is only ever 1) are left out:
    they have no spread to be wrong by, and would flatter the mean over variables.

    Returns:
        record, time (h), variable (position), target, mean, spread; by record, time, variable.
    """
    parts = []
    varies = torch.from_numpy(np.less(run.schema.low, run.schema.high)).to(run.device)
    with torch.no_grad():
        for batch in in_batches(records):
            batch = batch.to(run.device)
            if batch.target_mask is None or batch.query_time is None or batch.target is None:
                continue
            mean, spread = mean_and_spread(run.model(batch))
            subject, query, variable = (batch.target_mask & varies).nonzero(as_tuple=True)
            where = (subject, query, variable)
            columns = {
                "record": batch.subject[subject],
                "time": batch.query_time[subject, query],
                "variable": variable,
                "target": batch.target[where].double(),
                "mean": mean[where],
                "spread": spread[where],
            }
            parts.append(pd.DataFrame({k: v.cpu().numpy() for k, v in columns.items()}))
    table = pd.concat(parts, ignore_index=True)
    return table.sort_values(["record", "time", "variable"], ignore_index=True)


def observed_forecasts(run: Run, cohort: Cohort) -> pd.DataFrame:
    """Forecasts at the later observations of a cohort, in original units.

    Returns:
        subject_id, prediction_time, time (h), variable, observed, value, low, high (90 % interval).
    """
    records = run.records(cohort, with_targets=True)
    asked = forecast_queries(run, records)
    variable = asked["variable"].to_numpy()
    held = run.intervals(variable, asked["mean"].to_numpy(), asked["spread"].to_numpy())
    instances = records.instances.iloc[asked["record"]].reset_index(drop=True)
    return instances.assign(
        time=asked["time"],
        variable=pd.Categorical.from_codes(variable, list(run.schema.variables)),
        observed=run.schema.restore(variable, asked["target"].to_numpy()),
        **held,
    )


def _evaluate_decoder(
    run: Run, cohort: Cohort, records: PackedRecords, options: _Resampling
) -> dict[str, Estimate]:
    """Mean squared error of what the model expects next, over the measured values.

    Rows of a subject are read once, up to its last prediction time. Beside it: the last value
    carried forward, the training mean where there is none.
    """
    error = np.zeros((2, len(cohort.subjects)))
    count = np.zeros(len(cohort.subjects))
    last = np.flatnonzero(np.diff(records.subject_index, append=-1))
    order = last[np.argsort(-records.lengths[last], kind="stable")]
    with torch.no_grad():
        for start in range(0, len(order), 256):
            batch = records.batch(order[start : start + 256], device=run.device)
            subject = records.subject_index[batch.subject.cpu().numpy()]
            expected = (run.model(batch).next_observation, batch.carried)
            for position, guess in enumerate(expected):
                square = torch.where(batch.mask, (guess - batch.value).double().square(), 0.0)
                held = square.new_zeros(len(batch)).index_add(0, batch.row_subject, square.sum(1))
                error[position, subject] = held.cpu().numpy()
            counted = batch.mask.sum(1).double()
            held = counted.new_zeros(len(batch)).index_add(0, batch.row_subject, counted)
            count[subject] = held.cpu().numpy()
    names = ("model", "carried_forward")
    if not count.sum():
        return dict.fromkeys((*names, "difference"), Estimate.undefined("nothing was measured"))
    statistics = {name: _ratio_of(error[k], count) for k, name in enumerate(names)}
    sample = bootstrap(statistics, np.asarray(cohort.groups), **options)
    return {
        **{name: sample.estimate(name) for name in names},
        "difference": sample.difference(*names),
    }


def _ratio_of(total: np.ndarray, count: np.ndarray):
    def ratio(weights: np.ndarray) -> np.ndarray:
        counted = weights @ count
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(counted > 0, (weights @ total) / counted, np.nan)

    return ratio


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, Estimate) else value
