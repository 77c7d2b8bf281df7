"""The bars that every interpolation stands beside: means, the nearest value, the line between two.

Each answers from the variable's own observations alone. Spreads are those of the training errors.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from clinode.errors import ArgumentError, CheckpointError, SchemaError
from clinode.evaluation.forecast import Predicted
from clinode.evaluation.histories import Histories

NAMES = ("mean", "patient_mean", "last_value", "nearest_value", "linear")
LEAST_SPREAD = 1e-3  # of the spread over all variables


@dataclass(frozen=True, kw_only=True)
class InterpolationBaselines:
    """Fitted interpolation baselines; predictions come as name -> `Predicted`.

    The last value is that before the query, or the next one where there is none. The line runs
    between the neighbours, and beyond the outermost it stays level. What was never measured of a
    record is at the training mean.

    Args:
        level: Training mean of each variable's hidden values.
        spread: Root mean squared training error of each baseline, by variable.
    """

    level: Float[np.ndarray, " variable"]
    spread: Float[np.ndarray, "baseline variable"]

    def predict(
        self,
        histories: Histories,
        record: Integer[np.ndarray, " query"],
        variable: Integer[np.ndarray, " query"],
        time: Float[np.ndarray, " query"],
    ) -> dict[str, Predicted]:
        """Mean and standard deviation of each query, by each baseline.

        Args:
            histories: What was measured and not hidden, up to the prediction times.
            record: Whose value is asked for.
            variable: Of which variable.
            time: When, hours.

        Raises:
            ArgumentError: The records have other variables than those of the training.
        """
        if histories.n_variables != len(self.level):
            raise ArgumentError(
                f"the baselines were fitted on {len(self.level)} variables, "
                f"but the records have {histories.n_variables}"
            )
        answers = _answers(histories, record, variable, time)
        return {
            name: Predicted(
                mean=np.where(np.isnan(answer), self.level[variable], answer),
                spread=self.spread[position][variable],
            )
            for position, (name, answer) in enumerate(answers.items())
        }

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything there is to store, by name and contiguous, as a safetensors file needs it."""
        return {name: np.ascontiguousarray(array) for name, array in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "InterpolationBaselines":
        """The inverse of `to_arrays`.

        Raises:
            CheckpointError: An array is missing.
        """
        try:
            return cls(**arrays)
        except TypeError as error:
            raise CheckpointError(f"the stored baselines are incomplete: {error}") from None


def fit_interpolation_baselines(
    histories: Histories,
    record: Integer[np.ndarray, " query"],
    variable: Integer[np.ndarray, " query"],
    time: Float[np.ndarray, " query"],
    target: Float[np.ndarray, " query"],
) -> InterpolationBaselines:
    """Fit on the training part: every hidden value is one query.

    Args:
        histories: What was measured and not hidden, up to the prediction times.
        record, variable, time: Of each query.
        target: Its value, on the scale of the histories.

    Raises:
        SchemaError: There is no query to learn from.
    """
    if len(target) == 0:
        raise SchemaError("no training record has a hidden observation")
    n = histories.n_variables
    asked = np.bincount(variable, minlength=n)
    total = np.bincount(variable, weights=target, minlength=n)
    seen = np.bincount(histories.variable, minlength=n)
    observed = np.bincount(histories.variable, weights=histories.value, minlength=n)
    level = np.where(asked > 0, total / np.maximum(asked, 1), observed / np.maximum(seen, 1))
    errors = [
        np.bincount(
            variable, (np.where(np.isnan(a), level[variable], a) - target) ** 2, minlength=n
        )
        for a in _answers(histories, record, variable, time).values()
    ]
    pooled = np.sum(errors, axis=1, keepdims=True) / len(target)
    mean_squared = np.where(asked > 0, np.stack(errors) / np.maximum(asked, 1), pooled)
    # a variable that training interpolates without error is not known to be constant for ever
    mean_squared = np.maximum(mean_squared, LEAST_SPREAD**2 * np.maximum(pooled, 1e-6))
    return InterpolationBaselines(level=level, spread=np.sqrt(mean_squared))


def _answers(
    histories: Histories, record: np.ndarray, variable: np.ndarray, time: np.ndarray
) -> dict[str, np.ndarray]:
    """By name of the baseline; NaN where the variable was never measured of the record."""
    # observations and queries in one order of record, variable, time; an observation goes first
    own = histories.record * np.int64(histories.n_variables) + histories.variable
    order = np.lexsort((histories.time, own))
    key, when, value = own[order], histories.time[order], histories.value[order]
    wanted = record * np.int64(histories.n_variables) + variable
    begin, end = (np.searchsorted(key, wanted, side=side) for side in ("left", "right"))
    place = _place(key, when, wanted, time)
    has_before, has_after, has_any = place > begin, place < end, end > begin
    last = np.maximum(place - 1, 0)
    following = np.minimum(place, max(len(value) - 1, 0))
    if not len(value):
        return {name: np.full(len(record), np.nan) for name in NAMES}
    before, after = value[last], value[following]
    since, until = time - when[last], when[following] - time
    total = np.concatenate([[0.0], np.cumsum(value)])
    mean = (total[end] - total[begin]) / np.where(has_any, end - begin, 1)
    gap = np.where(has_before & has_after, since + until, 1.0)
    share = np.where(gap > 0, since / np.where(gap > 0, gap, 1.0), 0.5)
    both = has_before & has_after
    one = np.where(has_before, before, np.where(has_after, after, np.nan))
    found = {
        "mean": np.full(len(record), np.nan),
        "patient_mean": np.where(has_any, mean, np.nan),
        "last_value": one,
        "nearest_value": np.where(both & (until < since), after, one),
        "linear": np.where(both, before + share * (after - before), one),
    }
    return {name: found[name] for name in NAMES}


def _place(key: np.ndarray, when: np.ndarray, wanted: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Behind the last observation of the wanted key at or before each time."""
    joined = np.concatenate([key, wanted])
    moment = np.concatenate([when, time])
    is_query = np.repeat([0, 1], [len(key), len(wanted)])
    order = np.lexsort((is_query, moment, joined))
    behind = np.cumsum(is_query[order] == 0)
    place = np.empty(len(joined), dtype=np.int64)
    place[order] = behind
    return place[len(key) :]
