"""The bars that every forecast stands beside: last value, patient mean, a ridge per variable.

Each answers "what will this variable be, any time after the prediction time?" from the variable's
own past alone. Spreads are those of the training errors, so intervals and likelihoods can be
compared too. Values may be on any scale; errors are stated on the scale that the values come in.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Integer

from clinode.errors import ArgumentError, CheckpointError, SchemaError
from clinode.evaluation.forecast import Predicted
from clinode.evaluation.histories import STATISTICS, Histories, decayed_means, summarize

NAMES = ("mean", "last_value", "patient_mean", "blend", "ridge")
LAST_SHARE = MEAN_SHARE = 0.4  # of the blend; the rest is the training mean
LEAST_SPREAD = 1e-3  # of the spread over all variables
RIDGE_PENALTY = 10.0  # in queries, on standardised statistics


@dataclass(frozen=True, kw_only=True)
class ForecastBaselines:
    """Fitted forecast baselines; predictions come as name -> `Predicted`.

    Args:
        level: Training mean of each variable's targets: the answer where nothing was measured.
        center, scale: Training mean and spread of the statistics, by variable.
        coefficient: Of the standardised statistics and of presence, by variable.
        intercept: By variable.
        spread: Root mean squared training error of each baseline, by variable.
    """

    level: Float[np.ndarray, " variable"]
    center: Float[np.ndarray, "variable statistic"]
    scale: Float[np.ndarray, "variable statistic"]
    coefficient: Float[np.ndarray, "variable statistic_and_presence"]
    intercept: Float[np.ndarray, " variable"]
    spread: Float[np.ndarray, "baseline variable"]

    def predict(
        self,
        histories: Histories,
        record: Integer[np.ndarray, " query"],
        variable: Integer[np.ndarray, " query"],
    ) -> dict[str, Predicted]:
        """Mean and standard deviation of each query, by each baseline.

        Args:
            histories: What was measured up to the prediction times.
            record: Whose future is asked for.
            variable: Which variable of it.

        Raises:
            ArgumentError: The records have other variables than those of the training.
        """
        if histories.n_variables != len(self.level):
            raise ArgumentError(
                f"the baselines were fitted on {len(self.level)} variables, "
                f"but the records have {histories.n_variables}"
            )
        tables = self._tables(_own_statistics(histories))
        return {
            name: Predicted(mean=table[record, variable], spread=self.spread[position][variable])
            for position, (name, table) in enumerate(tables.items())
        }

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything there is to store, by name and contiguous, as a safetensors file needs it."""
        return {name: np.ascontiguousarray(array) for name, array in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "ForecastBaselines":
        """The inverse of `to_arrays`.

        Raises:
            CheckpointError: An array is missing.
        """
        try:
            return cls(**arrays)
        except TypeError as error:
            raise CheckpointError(f"the stored baselines are incomplete: {error}") from None

    def _tables(self, statistics: np.ndarray) -> dict[str, np.ndarray]:
        """Forecasts of every variable of every record, (record, variable) each."""
        last, mean = (
            np.where(np.isnan(own), self.level, own)
            for own in (statistics[..., _OWN.index("last")], statistics[..., _OWN.index("mean")])
        )
        design = _design(statistics, self.center, self.scale)
        return {
            "mean": np.broadcast_to(self.level, last.shape),
            "last_value": last,
            "patient_mean": mean,
            "blend": LAST_SHARE * last
            + MEAN_SHARE * mean
            + (1 - LAST_SHARE - MEAN_SHARE) * self.level,
            "ridge": np.einsum("rvs,vs->rv", design, self.coefficient) + self.intercept,
        }


def fit_forecast_baselines(
    histories: Histories,
    record: Integer[np.ndarray, " query"],
    variable: Integer[np.ndarray, " query"],
    target: Float[np.ndarray, " query"],
) -> ForecastBaselines:
    """Fit on the training part: every later observation of a variable is one query.

    Args:
        histories: What was measured up to the prediction times.
        record: Whose later observation it is.
        variable: Of which variable.
        target: Its value, on the scale of the histories.

    Raises:
        SchemaError: There is no query to learn from.
    """
    if len(target) == 0:
        raise SchemaError("no training record has an observation after its prediction time")
    shape = (len(histories), histories.n_variables)
    cell = np.ravel_multi_index((record, variable), shape)
    n_queries = np.bincount(cell, minlength=np.prod(shape)).reshape(shape).astype(np.float64)
    total = np.bincount(cell, weights=target, minlength=np.prod(shape)).reshape(shape)
    asked = n_queries.sum(axis=0)
    statistics = _own_statistics(histories)
    # a variable that is never asked for in training answers with the mean of its past
    observed = np.nan_to_num(_mean_over_records(statistics[..., _OWN.index("mean")]))
    level = np.where(asked > 0, total.sum(axis=0) / np.maximum(asked, 1), observed)
    center, scale = _location_and_scale(statistics, n_queries)
    coefficient, intercept = _ridges(_design(statistics, center, scale), n_queries, total, level)
    fitted = ForecastBaselines(
        level=level,
        center=center,
        scale=scale,
        coefficient=coefficient,
        intercept=intercept,
        spread=np.ones((len(NAMES), shape[1])),
    )
    errors = [
        np.bincount(variable, (table[record, variable] - target) ** 2, minlength=shape[1])
        for table in fitted._tables(statistics).values()
    ]
    pooled = np.sum(errors, axis=1, keepdims=True) / len(target)
    mean_squared = np.where(asked > 0, np.stack(errors) / np.maximum(asked, 1), pooled)
    # a variable that training forecasts without error is not known to be constant for ever
    mean_squared = np.maximum(mean_squared, LEAST_SPREAD**2 * np.maximum(pooled, 1e-6))
    fitted = replace(fitted, spread=np.sqrt(mean_squared))
    # laid out as it will be stored: the order of a sum, so its last bit, follows the layout
    return ForecastBaselines.from_arrays(fitted.to_arrays())


_OWN = ("last", "mean", "min", "max", "decayed 3 h", "decayed 10 h")


def _own_statistics(histories: Histories) -> np.ndarray:
    """Statistics of `_OWN`, (record, variable, statistic); NaN where never measured."""
    summary = summarize(histories)
    plain = summary[:, [STATISTICS.index(name) for name in _OWN[:4]]]
    return np.concatenate([plain, decayed_means(histories)], axis=1).transpose(0, 2, 1)


def _mean_over_records(values: np.ndarray) -> np.ndarray:
    is_seen = np.isfinite(values)
    return np.where(is_seen, values, 0.0).sum(axis=0) / np.maximum(is_seen.sum(axis=0), 1)


def _location_and_scale(
    statistics: np.ndarray, n_queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    is_seen = np.isfinite(statistics)
    weight = is_seen * n_queries[..., None]
    total = np.maximum(weight.sum(axis=0), 1.0)
    filled = np.where(is_seen, statistics, 0.0)
    center = (weight * filled).sum(axis=0) / total
    spread = np.sqrt((weight * (filled - center) ** 2).sum(axis=0) / total)
    return center, np.where(spread > 0, spread, 1.0)


def _design(statistics: np.ndarray, center: np.ndarray, scale: np.ndarray) -> np.ndarray:
    is_seen = np.isfinite(statistics)
    standardised = np.where(is_seen, (statistics - center) / scale, 0.0)
    return np.concatenate([standardised, is_seen[..., :1]], axis=2)


def _ridges(
    design: np.ndarray, n_queries: np.ndarray, total: np.ndarray, level: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All ridge regressions at once; the intercept is not penalised.

    Queries of one cell share their design, so a cell enters with their number and their total.
    """
    asked = np.maximum(n_queries.sum(axis=0), 1.0)[:, None]
    center = np.einsum("rv,rvs->vs", n_queries, design) / asked
    centered = design - center
    gram = np.einsum("rv,rvs,rvz->vsz", n_queries, centered, centered, optimize=True)
    moment = np.einsum("rv,rvs->vs", total - n_queries * level, centered)
    penalized = gram + RIDGE_PENALTY * np.eye(design.shape[2])
    coefficient = np.linalg.solve(penalized, moment[..., None])[..., 0]
    return coefficient, level - (coefficient * center).sum(axis=1)
