"""What a fit and its run do for `Forecast`: values of every variable, with intervals."""

from collections.abc import Sequence
from statistics import NormalDist
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
    SplitConformal,
    evaluate_forecast,
    fit_conformal,
    fit_forecast_baselines,
)
from clinode.evaluation.forecast import COVERAGE
from clinode.sequence import Readout, in_batches
from clinode.training.histories import read_histories, read_queries
from clinode.training.intervals import describe_intervals, set_aside
from clinode.training.task_work import Resampling, TaskWork, baselines_of

if TYPE_CHECKING:
    from clinode.training.run import Run

N_FORECAST_TIMES = 12
_BATCH = 256


class ForecastWork(TaskWork):
    """Forecasts: the mean and the variance of the equal mixture of the members' distributions."""

    baselines = ForecastBaselines

    def __init__(self, level: float = COVERAGE):
        self.level = level

    def with_level(self, level: float | None) -> "ForecastWork":
        return self if level is None else ForecastWork(level)

    def set_aside(self, tune: Cohort) -> tuple[Cohort, Cohort | None]:
        return set_aside(tune)

    def calibrate(
        self, members: "Sequence[Run]", tune: Cohort | None, aside: Cohort | None
    ) -> tuple[SplitConformal | None, dict[str, Any] | None]:
        return calibrate_intervals(members, tune, aside)

    def check_targets(self, part: str, cohort: Cohort, records: PackedRecords) -> None:
        if len(read_queries(cohort, records, records.task.reach).value) == 0:
            raise SchemaError(
                f"no record of the {part} part has an observation within "
                f"{records.task.reach:g} h after its prediction time",
                fix="give an earlier prediction time (at=), or a longer horizon",
            )

    def trained_on(self, records: PackedRecords, prediction_times: int) -> PackedRecords:
        """The records at their own time, and at others evenly over half of the window before it."""
        if prediction_times == 1:
            return records
        steps = np.arange(1, prediction_times) / (prediction_times - 1)
        return records.at_earlier_times((steps * records.schema.window / 2).tolist())

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
        factor = factors(members[0], self.level)
        return moments_table(records, hours, *mixture(moments), factor)

    def evaluate(
        self,
        members: "Sequence[Run]",
        cohort: Cohort,
        records: PackedRecords,
        units: np.ndarray,
        options: Resampling,
    ) -> tuple[ForecastEvaluation, tuple[dict[str, Any], ...]]:
        baselines = baselines_of(members[0], ForecastBaselines)
        asked = mixed_queries(members, records)
        target, mean, spread, record, variable = (
            asked[c].to_numpy() for c in ("target", "mean", "spread", "record", "variable")
        )
        histories = read_histories(cohort, records, standardised=True)
        half = factors(members[0], COVERAGE)[variable] * spread
        result = evaluate_forecast(
            target,
            variable,
            Predicted(mean=mean, spread=spread, low=mean - half, high=mean + half),
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


def calibrate_intervals(
    members: "Sequence[Run]", tune: Cohort | None, aside: Cohort | None
) -> tuple[SplitConformal | None, dict[str, Any] | None]:
    """As `TaskWork.calibrate`, of tasks that answer with values: split conformal intervals."""
    calibration = None
    if aside is not None:
        asked = mixed_queries(members, members[0].records(aside, with_targets=True))
        if len(asked):
            columns = (asked[c].to_numpy() for c in ("target", "variable", "mean", "spread"))
            n_variables = len(members[0].schema.variables)
            calibration = fit_conformal(*columns, n_variables=n_variables)
    return calibration, describe_intervals(calibration, tune, aside)


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


def factors(run: "Run", level: float) -> np.ndarray:
    """By how many spreads an interval at a level reaches to either side, (variable,).

    Those of the run's calibration; without one, the quantile of a normal distribution.

    Raises:
        ArgumentError: The level is not within (0, 1).
    """
    if isinstance(run.calibration, SplitConformal):
        return run.calibration.factors(level)
    if not 0 < level < 1:
        raise ArgumentError(f"level must lie in (0, 1), got {level!r}")
    return np.full(len(run.schema.variables), NormalDist().inv_cdf((1 + level) / 2))


def moments_table(
    records: PackedRecords,
    hours: np.ndarray,
    mean: np.ndarray,
    spread: np.ndarray,
    factor: np.ndarray,
) -> pd.DataFrame:
    """The table that `predict` gives, of moments as `forecast_moments` gives them.

    `factor` is by variable, as `factors` gives it.
    """
    record, hour, variable = (part.ravel() for part in np.indices(mean.shape))
    instances = records.instances.iloc[record].reset_index(drop=True)
    return instances.assign(
        time=instances["prediction_time"] + hours[hour],
        variable=pd.Categorical.from_codes(variable, list(records.schema.variables)),
        **_bounds(records.schema, variable, mean.ravel(), factor[variable] * spread.ravel()),
    )


def in_original_units(
    records: PackedRecords, asked: pd.DataFrame, factor: np.ndarray
) -> pd.DataFrame:
    """Forecasts beside what was observed.

    Args:
        records: Whose queries they are.
        asked: As `forecast_queries` gives them.
        factor: Of each query: how many spreads its interval reaches to either side.

    Returns:
        subject_id, prediction_time, time (h), variable, observed, value, low, high.
    """
    schema, variable = records.schema, asked["variable"].to_numpy()
    mean, spread = asked["mean"].to_numpy(), asked["spread"].to_numpy()
    instances = records.instances.iloc[asked["record"]].reset_index(drop=True)
    return instances.assign(
        time=asked["time"].to_numpy(),
        variable=pd.Categorical.from_codes(variable, list(schema.variables)),
        observed=schema.restore(variable, asked["target"].to_numpy()),
        **_bounds(schema, variable, mean, factor * spread),
    )


def _bounds(
    schema: Preprocessor, variable: np.ndarray, mean: np.ndarray, half: np.ndarray
) -> dict[str, np.ndarray]:
    bounds = {"value": mean, "low": mean - half, "high": mean + half}
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


def mixed_queries(members: "Sequence[Run]", records: PackedRecords) -> pd.DataFrame:
    """`forecast_queries` of the mixture of several runs."""
    tables = [forecast_queries(run, records) for run in members]
    moments = [(table["mean"].to_numpy(), table["spread"].to_numpy()) for table in tables]
    mean, spread = mixture(moments)
    return tables[0].assign(mean=mean, spread=spread)


def observed_forecasts(run: "Run", cohort: Cohort) -> pd.DataFrame:
    """Forecasts at the later observations of a cohort, in original units.

    Returns:
        subject_id, prediction_time, time (h), variable, observed, value, low, high (90 % interval).
    """
    records = run.records(cohort, with_targets=True)
    asked = forecast_queries(run, records)
    return in_original_units(records, asked, factors(run, COVERAGE)[asked["variable"].to_numpy()])


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
