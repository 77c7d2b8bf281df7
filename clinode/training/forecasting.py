"""What a fit and its run do for `Forecast`: values of every variable, with intervals."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from clinode.cohort import Cohort, PackedRecords, Preprocessor
from clinode.errors import ArgumentError, SchemaError
from clinode.evaluation import (
    ForecastBaselines,
    ForecastEvaluation,
    Predicted,
    evaluate_forecast,
    fit_forecast_baselines,
)
from clinode.sequence import Readout, in_batches
from clinode.training.histories import read_histories, read_queries
from clinode.training.task_work import Resampling, TaskWork, baselines_of

if TYPE_CHECKING:
    from clinode.training.run import Run

N_FORECAST_TIMES = 12
_NORMAL_QUANTILE = 1.6448536269514722  # of 95 %: both bounds of a 90 % interval
_BATCH = 256


class ForecastWork(TaskWork):
    """Forecasts: the mean and the variance of the equal mixture of the members' distributions."""

    baselines = ForecastBaselines

    def check_targets(self, part: str, cohort: Cohort, records: PackedRecords) -> None:
        if len(read_queries(cohort, records, records.task.reach).value) == 0:
            raise SchemaError(
                f"no record of the {part} part has an observation within "
                f"{records.task.reach:g} h after its prediction time",
                fix="give an earlier prediction time (at=), or a longer horizon",
            )

    def fit_baselines(self, cohort: Cohort, records: PackedRecords, seed: int) -> ForecastBaselines:
        histories = read_histories(cohort, records, standardised=True)
        queries = read_queries(cohort, records, records.task.reach)
        return fit_forecast_baselines(histories, queries.record, queries.variable, queries.value)

    def predict(
        self,
        members: "Sequence[Run]",
        records: PackedRecords,
        hours_after: Sequence[float] | None,
    ) -> pd.DataFrame:
        hours = forecast_hours(records.task.reach, hours_after)
        moments = [forecast_moments(run, records, hours) for run in members]
        return moments_table(records, hours, *mixture(moments))

    def evaluate(
        self,
        members: "Sequence[Run]",
        cohort: Cohort,
        records: PackedRecords,
        units: np.ndarray,
        options: Resampling,
    ) -> tuple[ForecastEvaluation, tuple[dict[str, Any], ...]]:
        baselines = baselines_of(members[0], ForecastBaselines)
        tables = [forecast_queries(run, records) for run in members]
        mean, spread = mixture([(t["mean"].to_numpy(), t["spread"].to_numpy()) for t in tables])
        record, variable = tables[0]["record"].to_numpy(), tables[0]["variable"].to_numpy()
        histories = read_histories(cohort, records, standardised=True)
        result = evaluate_forecast(
            tables[0]["target"].to_numpy(),
            variable,
            Predicted(mean=mean, spread=spread),
            baselines.predict(histories, record, variable),
            names=records.schema.variables,
            subjects=units[record],
            **options,
        )
        return result, ()

    def observed(self, run: "Run", part: str, cohort: Cohort) -> pd.DataFrame:
        table = observed_forecasts(run, cohort)
        table.insert(2, "split", part)
        return table


def forecast_moments(
    run: "Run", records: PackedRecords, hours: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, standardised, (record, hour, variable), of forecasts.

    Args:
        run: Whom to ask.
        records: As `Run.records` gives them.
        hours: Hours after each prediction time.
    """
    shape = (len(records), len(hours), len(run.schema.variables))
    mean, spread = np.empty(shape), np.empty(shape)
    with torch.no_grad():
        for start in range(0, len(records), _BATCH):
            rows = np.arange(start, min(start + _BATCH, len(records)))
            batch = records.batch(rows, device=run.device, query_after=hours)
            own_mean, own_spread = mean_and_spread(run.model(batch))
            rows = batch.subject.cpu().numpy()
            mean[rows], spread[rows] = own_mean.cpu().numpy(), own_spread.cpu().numpy()
    return mean, spread


def moments_table(
    records: PackedRecords, hours: np.ndarray, mean: np.ndarray, spread: np.ndarray
) -> pd.DataFrame:
    """The table that `predict` gives, of moments as `forecast_moments` gives them."""
    record, hour, variable = (part.ravel() for part in np.indices(mean.shape))
    instances = records.instances.iloc[record].reset_index(drop=True)
    return instances.assign(
        time=instances["prediction_time"] + hours[hour],
        variable=pd.Categorical.from_codes(variable, list(records.schema.variables)),
        **intervals(records.schema, variable, mean.ravel(), spread.ravel()),
    )


def intervals(
    schema: Preprocessor, variable: np.ndarray, mean: np.ndarray, spread: np.ndarray
) -> dict[str, np.ndarray]:
    """Mean and 90 % interval in original units of forecasts on the standardised scale."""
    bounds = {
        "value": mean,
        "low": mean - _NORMAL_QUANTILE * spread,
        "high": mean + _NORMAL_QUANTILE * spread,
    }
    return {name: schema.restore(variable, bound) for name, bound in bounds.items()}


def forecast_queries(run: "Run", records: PackedRecords) -> pd.DataFrame:
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


def observed_forecasts(run: "Run", cohort: Cohort) -> pd.DataFrame:
    """Forecasts at the later observations of a cohort, in original units.

    Returns:
        subject_id, prediction_time, time (h), variable, observed, value, low, high (90 % interval).
    """
    records = run.records(cohort, with_targets=True)
    asked = forecast_queries(run, records)
    variable = asked["variable"].to_numpy()
    held = intervals(run.schema, variable, asked["mean"].to_numpy(), asked["spread"].to_numpy())
    instances = records.instances.iloc[asked["record"]].reset_index(drop=True)
    return instances.assign(
        time=asked["time"],
        variable=pd.Categorical.from_codes(variable, list(run.schema.variables)),
        observed=run.schema.restore(variable, asked["target"].to_numpy()),
        **held,
    )


def mean_and_spread(readout: Readout) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a forecast on the standardised scale, float64."""
    if readout.log_variance is None:
        raise ArgumentError("the model forecasts without an interval (its readout has no variance)")
    return readout.value.double(), torch.exp(0.5 * readout.log_variance.double())


def forecast_hours(horizon: float, hours_after: Sequence[float] | None) -> np.ndarray:
    """The asked hours after a prediction time, by default 12 equal steps to the horizon."""
    if hours_after is None:
        return horizon * np.arange(1, N_FORECAST_TIMES + 1) / N_FORECAST_TIMES
    hours = np.asarray(hours_after, dtype=np.float64)
    if hours.ndim != 1 or len(hours) == 0 or not (np.isfinite(hours) & (hours > 0)).all():
        raise ArgumentError("hours_after must be a list of positive hours")
    return hours


def mixture(moments: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of an equal mixture: Var = E[var] + Var[mean]."""
    if len(moments) == 1:
        return moments[0]  # as they are, to the last bit
    means, spreads = (np.stack(part) for part in zip(*moments, strict=True))
    return means.mean(0), np.sqrt((spreads**2).mean(0) + means.var(0))
