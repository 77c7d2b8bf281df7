"""A forecast held against the baselines: errors by variable and pooled, coverage, likelihood.

A query is one later observation: a subject, a variable, its value. Errors are on the scale that the
values come in; the mean over variables weighs a rare laboratory value like a heart rate, so values
should be standardised.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Integer, Shaped

from clinode.errors import ArgumentError
from clinode.evaluation.scores import ratio
from clinode.statistics import Bootstrap, Estimate, bootstrap

COVERAGE = 0.9
MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What was forecast for each query.

    Args:
        mean: Expected value.
        spread: Standard deviation, positive; without it there is no likelihood.
        low, high: Interval meant to hold `COVERAGE` of the values; that of a normal distribution
            by default.

    Raises:
        ArgumentError: Lengths disagree, a spread is not positive, or only one end is given.
    """

    mean: Float[np.ndarray, " query"]
    spread: Float[np.ndarray, " query"] | None = None
    low: Float[np.ndarray, " query"] | None = None
    high: Float[np.ndarray, " query"] | None = None

    def __post_init__(self):
        if (self.low is None) != (self.high is None):
            raise ArgumentError("an interval needs both ends")
        if not np.isfinite(self.mean).all():
            raise ArgumentError("forecasts must be finite")
        for name in ("spread", "low", "high"):
            part = getattr(self, name)
            if part is not None and len(part) != len(self.mean):
                raise ArgumentError(f"{len(self.mean)} forecasts, but {len(part)} of {name!r}")
        if self.spread is not None and not (self.spread > 0).all():
            raise ArgumentError("every spread must be positive")

    def errors(self, target: np.ndarray) -> dict[str, np.ndarray]:
        """Contributions of each query to the metrics that these forecasts allow."""
        error = self.mean - target
        parts = {"mse": error**2, "mae": np.abs(error)}
        half = (
            None if self.spread is None else NormalDist().inv_cdf((1 + COVERAGE) / 2) * self.spread
        )
        if self.low is not None and self.high is not None:
            parts["coverage"] = ((self.low <= target) & (target <= self.high)).astype(np.float64)
        elif half is not None:
            parts["coverage"] = (np.abs(error) <= half).astype(np.float64)
        if self.spread is not None:
            squares = (error / self.spread) ** 2 + np.log(2 * math.pi * self.spread**2)
            parts["nll"] = 0.5 * squares
        return parts


@dataclass(frozen=True, kw_only=True)
class ForecastEvaluation:
    """Metrics of a forecast and of its baselines, and model minus baseline.

    Names are `mse`, `mae`, `coverage` (of the 90 % interval) and `nll` (Gaussian, in nats), each
    pooled over queries, and `mse_by_variable`, ... for the mean over variables of the same.

    Args:
        metrics: Of the model.
        baselines: Of each baseline.
        difference: Model minus each baseline, on the same resamples of subjects.
        variables: Metrics by variable and forecaster ("model" or the name of a baseline); with
            intervals for the model.
        variable_queries: Number of queries by variable.
        n_queries: Later observations that were forecast.
        n_subjects: Whose they are: the units of the intervals.
    """

    metrics: dict[str, Estimate]
    baselines: dict[str, dict[str, Estimate]]
    difference: dict[str, dict[str, Estimate]]
    variables: dict[str, dict[str, dict[str, Estimate]]]
    variable_queries: dict[str, int]
    n_queries: int
    n_subjects: int

    def to_dict(self) -> dict[str, Any]:
        """The metrics by name, `baselines`, `difference`, `variables` and the counts; for JSON."""
        variables = {
            variable: {
                "n_queries": self.variable_queries[variable],
                **{name: _to_dict(estimates) for name, estimates in held.items()},
            }
            for variable, held in self.variables.items()
        }
        return {
            **_to_dict(self.metrics),
            "baselines": {name: _to_dict(held) for name, held in self.baselines.items()},
            "difference": {name: _to_dict(held) for name, held in self.difference.items()},
            "variables": variables,
            "n_queries": self.n_queries,
            "n_subjects": self.n_subjects,
        }

    def to_pandas(self) -> pd.DataFrame:
        """One row a variable, forecaster and metric, with its number of queries."""
        return pd.DataFrame(
            [
                {
                    "variable": variable,
                    "n_queries": self.variable_queries[variable],
                    "forecaster": forecaster,
                    "metric": metric,
                    **vars(estimate),
                }
                for variable, held in self.variables.items()
                for forecaster, estimates in held.items()
                for metric, estimate in estimates.items()
            ]
        )


def evaluate_forecast(
    target: Float[np.ndarray, " query"],
    variable: Integer[np.ndarray, " query"],
    predicted: Predicted,
    baselines: Mapping[str, Predicted] | None = None,
    *,
    names: tuple[str, ...],
    subjects: Shaped[np.ndarray, " query"],
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> ForecastEvaluation:
    """Errors, coverage and likelihood of a forecast and of its baselines.

    A resample in which nobody has a variable takes its mean over the others.

    Args:
        target: Observed values, finite.
        variable: Position in `names` of the variable of each query.
        predicted: Of the model.
        baselines: By name, of each baseline.
        names: Of the variables; those without a query are left out of every mean.
        subjects: Whose each query is.
        n_resamples: Bootstrap resamples of subjects.
        seed: Of the resamples.
        level: Of the bootstrap intervals.

    Raises:
        ArgumentError: Lengths disagree, a target is not finite, a variable is out of range, or a
            baseline is named "model".
    """
    if MODEL in (baselines or {}):
        raise ArgumentError(f"a baseline cannot be named {MODEL!r}")
    forecasts = {MODEL: predicted, **(baselines or {})}
    _check(target, variable, forecasts, names, subjects)
    subject, position = np.unique(subjects, return_inverse=True)
    cells = _Cells(position * len(names) + variable, (len(subject), len(names)))
    n_queries = cells.total(np.ones(len(target)))
    totals = {
        name: {metric: cells.total(part) for metric, part in held.errors(target).items()}
        for name, held in forecasts.items()
    }
    statistics = _statistics(totals, n_queries)
    sample = bootstrap(statistics, np.arange(len(subject)), n_resamples=n_resamples, seed=seed)
    metrics = {
        name: [full for m in held for full in (m, f"{m}_by_variable")]
        for name, held in totals.items()
    }
    why = "there is no query"
    estimates = {
        name: {m: sample.estimate(f"{m} {name}", level=level, why=why) for m in own}
        for name, own in metrics.items()
    }
    own = estimates.pop(MODEL)
    return ForecastEvaluation(
        metrics=own,
        baselines=estimates,
        difference={
            name: {
                m: sample.difference(f"{m} {MODEL}", f"{m} {name}", level=level, why=why)
                for m in metrics[MODEL]
                if m in metrics[name]
            }
            for name in estimates
        },
        variables=_variables(sample, totals, n_queries.sum(axis=0), names, level),
        variable_queries=dict(zip(names, map(int, n_queries.sum(axis=0)), strict=True)),
        n_queries=len(target),
        n_subjects=len(subject),
    )


@dataclass(frozen=True)
class _Cells:
    """Sums over the queries of each subject and variable."""

    cell: np.ndarray
    shape: tuple[int, int]

    def total(self, part: np.ndarray) -> np.ndarray:
        flat = np.bincount(self.cell, weights=part, minlength=math.prod(self.shape))
        return flat.reshape(self.shape)


def _statistics(
    totals: dict[str, dict[str, np.ndarray]], n_queries: np.ndarray
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Every metric of every forecaster, and of the model by variable, as functions of weights."""
    statistics = {}
    for name, held in totals.items():
        for metric, total in held.items():
            statistics[f"{metric} {name}"] = _pooled(total.sum(axis=1), n_queries.sum(axis=1))
            statistics[f"{metric}_by_variable {name}"] = _by_variable(total, n_queries)
    for metric, total in totals[MODEL].items():
        for v in range(n_queries.shape[1]):
            statistics[f"{metric} variable {v}"] = _pooled(total[:, v], n_queries[:, v])
    return statistics


def _pooled(total: np.ndarray, count: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda weights: ratio(weights @ total, weights @ count)


def _by_variable(total: np.ndarray, count: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    def mean(weights: np.ndarray) -> np.ndarray:
        means = ratio(weights @ total, weights @ count)
        has_any = np.isfinite(means)
        return ratio(np.where(has_any, means, 0.0).sum(axis=1), has_any.sum(axis=1))

    return mean


def _variables(
    sample: Bootstrap,
    totals: dict[str, dict[str, np.ndarray]],
    n_queries: np.ndarray,
    names: tuple[str, ...],
    level: float,
) -> dict[str, dict[str, dict[str, Estimate]]]:
    def estimate(v: int, forecaster: str, metric: str) -> Estimate:
        if not n_queries[v]:
            return Estimate.undefined("it is never observed later")
        if forecaster == MODEL:
            return sample.estimate(f"{metric} variable {v}", level=level)
        mean = float(totals[forecaster][metric][:, v].sum() / n_queries[v])
        return Estimate(mean, math.nan, math.nan, "no interval: given for the model only")

    return {
        variable: {
            forecaster: {metric: estimate(v, forecaster, metric) for metric in held}
            for forecaster, held in totals.items()
        }
        for v, variable in enumerate(names)
    }


def _check(
    target: np.ndarray,
    variable: np.ndarray,
    forecasts: Mapping[str, Predicted],
    names: tuple[str, ...],
    subjects: np.ndarray,
) -> None:
    lengths = {"variable": len(variable), "subjects": len(subjects)}
    lengths |= {name: len(held.mean) for name, held in forecasts.items()}
    for name, length in lengths.items():
        if length != len(target):
            raise ArgumentError(f"{len(target)} targets, but {length} of {name!r}")
    if not np.isfinite(target).all():
        raise ArgumentError("targets must be finite: what was not observed is not asked for")
    if len(variable) and not (0 <= variable.min() and variable.max() < len(names)):
        raise ArgumentError(f"variable positions must lie in 0..{len(names) - 1}")


def _to_dict(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.to_dict() for name, estimate in estimates.items()}
