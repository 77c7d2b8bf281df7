"""What a fit and its run do for `Interpolate`: values within the window, from both sides."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from clinode.cohort import Cohort, PackedRecords
from clinode.errors import ArgumentError, SchemaError
from clinode.evaluation import ForecastEvaluation, Predicted, SplitConformal, evaluate_forecast
from clinode.evaluation.forecast import COVERAGE
from clinode.evaluation.interpolation_baselines import (
    InterpolationBaselines,
    fit_interpolation_baselines,
)
from clinode.training.forecasting import (
    N_FORECAST_TIMES,
    calibrate_intervals,
    factors,
    forecast_moments,
    mixed_queries,
    mixture,
    moments_table,
    observed_forecasts,
)
from clinode.training.histories import read_hidden, read_histories
from clinode.training.intervals import set_aside
from clinode.training.task_work import Resampling, TaskWork, baselines_of

if TYPE_CHECKING:
    from clinode.training.run import Run


class InterpolationWork(TaskWork):
    """Interpolations: the mean and the variance of the equal mixture of the members."""

    baselines = InterpolationBaselines

    def __init__(self, level: float = COVERAGE):
        self.level = level

    def with_level(self, level: float | None) -> "InterpolationWork":
        return self if level is None else InterpolationWork(level)

    def set_aside(self, tune: Cohort) -> tuple[Cohort, Cohort | None]:
        return set_aside(tune)

    def calibrate(
        self, members: "Sequence[Run]", tune: Cohort | None, aside: Cohort | None
    ) -> tuple[SplitConformal | None, dict[str, Any] | None]:
        return calibrate_intervals(members, tune, aside)

    def check_targets(self, part: str, cohort: Cohort, records: PackedRecords) -> None:
        if len(read_hidden(cohort, records).value) == 0:
            raise SchemaError(
                f"no record of the {part} part has a hidden observation by its prediction time",
                fix="hide a larger fraction, or give a later prediction time (at=)",
            )

    def fit_baselines(
        self, cohort: Cohort, records: PackedRecords, seed: int
    ) -> InterpolationBaselines:
        histories = read_histories(cohort, records, standardised=True)
        asked = read_hidden(cohort, records)
        return fit_interpolation_baselines(
            histories, asked.record, asked.variable, asked.time, asked.value
        )

    def predict(
        self,
        members: "Sequence[Run]",
        records: PackedRecords,
        hours_after: Sequence[float] | None,
    ) -> pd.DataFrame:
        hours = _hours_within(records.schema.window, hours_after)
        moments = [forecast_moments(run, records, hours) for run in members]
        return moments_table(records, hours, *mixture(moments), factors(members[0], self.level))

    def evaluate(
        self,
        members: "Sequence[Run]",
        cohort: Cohort,
        records: PackedRecords,
        units: np.ndarray,
        options: Resampling,
    ) -> tuple[ForecastEvaluation, tuple[dict[str, Any], ...]]:
        baselines = baselines_of(members[0], InterpolationBaselines)
        asked = mixed_queries(members, records)
        target, mean, spread, record, variable, time = (
            asked[c].to_numpy() for c in ("target", "mean", "spread", "record", "variable", "time")
        )
        histories = read_histories(cohort, records, standardised=True)
        half = factors(members[0], COVERAGE)[variable] * spread
        result = evaluate_forecast(
            target,
            variable,
            Predicted(mean=mean, spread=spread, low=mean - half, high=mean + half),
            baselines.predict(histories, record, variable, time),
            names=records.schema.variables,
            subjects=units[record],
            **options,
        )
        return result, ()

    def observed(self, run: "Run", part: str, cohort: Cohort) -> pd.DataFrame:
        table = observed_forecasts(run, cohort)
        table.insert(2, "split", part)
        return table


def _hours_within(window: float, hours_after: Sequence[float] | None) -> np.ndarray:
    """The asked hours, by default 12 equal steps of the window up to the prediction time."""
    if hours_after is None:
        return -window * np.arange(N_FORECAST_TIMES - 1, -1, -1) / N_FORECAST_TIMES
    hours = np.asarray(hours_after, dtype=np.float64)
    if hours.ndim != 1 or len(hours) == 0 or not (np.isfinite(hours) & (hours <= 0)).all():
        raise ArgumentError(
            "hours_after of an interpolation lie before the prediction time: 0 or negative hours"
        )
    return hours
