"""What was measured of each record up to its prediction time, and its plain statistics.

The baselines know a record only through these: seven statistics a variable and the statics. Values
are in original units; restricting them to what lies at or before the prediction time is the
caller's duty, and nothing here looks at a clock beyond the order of observations.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from clinode.errors import ArgumentError

STATISTICS = ("first", "last", "mean", "min", "max", "sd", "count")
DECAY_HOURS = (3.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class Histories:
    """Observations of many records, record after record, each in order of time.

    Args:
        row_start: Where each record begins in the three arrays below, and at last their length.
        time: Hours since the subject's time zero; never decreasing within a record.
        variable: Position of the variable, 0 to `n_variables` - 1.
        value: Measured value, finite.
        static: One row a record; NaN where missing, without any column where there are none.
        n_variables: How many variables there are, measured here or not.

    Raises:
        ArgumentError: Lengths disagree, times run backward, a variable is out of range or a value
            is not finite.
    """

    row_start: Int[np.ndarray, " record_plus_one"]
    time: Float[np.ndarray, " observation"]
    variable: Int[np.ndarray, " observation"]
    value: Float[np.ndarray, " observation"]
    static: Float[np.ndarray, "record static"]
    n_variables: int

    def __post_init__(self):
        n_rows = len(self.value)
        if len(self.static) != len(self):
            raise ArgumentError(f"{len(self)} records, but {len(self.static)} rows of statics")
        if self.row_start[0] != 0 or self.row_start[-1] != n_rows:
            raise ArgumentError(f"row_start must run from 0 to the {n_rows} observations")
        if np.any(np.diff(self.row_start) < 0):
            raise ArgumentError("row_start must not decrease")
        if n_rows and not (0 <= self.variable.min() and self.variable.max() < self.n_variables):
            raise ArgumentError(f"variable positions must lie in 0..{self.n_variables - 1}")
        if not np.isfinite(self.value).all():
            raise ArgumentError("values must be finite: what is missing has no row")
        backward = np.diff(self.time) < 0
        backward[
            self.row_start[1:-1][(0 < self.row_start[1:-1]) & (self.row_start[1:-1] < n_rows)] - 1
        ] = False
        if backward.any():
            raise ArgumentError(f"time runs backward within a record in {backward.sum()} places")

    def __len__(self) -> int:
        return len(self.row_start) - 1

    @property
    def record(self) -> Int[np.ndarray, " observation"]:
        """Which record each observation belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.row_start))


def summarize(
    histories: Histories, log: Bool[np.ndarray, " variable"] | None = None
) -> Float[np.ndarray, "record statistic variable"]:
    """First, last, mean, minimum, maximum, standard deviation and count of each variable.

    Args:
        histories: What was measured.
        log: Variables that are taken as log(x + 0.1), with x below zero counted as zero.

    Returns:
        In the order of `STATISTICS`. The standard deviation is that of a population, 0 for one
        observation. What was never measured is NaN, with count 0.

    Example:
        >>> heart_rate = Histories(
        ...     row_start=np.array([0, 2]), time=np.array([0.5, 7.0]), variable=np.array([0, 0]),
        ...     value=np.array([90.0, 70.0]), static=np.empty((1, 0)), n_variables=1,
        ... )
        >>> summarize(heart_rate)[0, :, 0].tolist()
        [90.0, 70.0, 80.0, 70.0, 90.0, 10.0, 2.0]
    """
    groups = _group(histories)
    value = histories.value[groups.order].astype(np.float64)
    if log is not None:
        logged = log[histories.variable[groups.order]]
        value[logged] = np.log(np.maximum(value[logged], 0.0) + 0.1)
    mean = groups.total(value) / groups.size
    deviation = value - np.repeat(mean, groups.size)
    columns = {
        "first": value[groups.start],
        "last": value[groups.end - 1],
        "mean": mean,
        "min": groups.reduce(np.minimum, value),
        "max": groups.reduce(np.maximum, value),
        "sd": np.sqrt(groups.total(deviation**2) / groups.size),
        "count": groups.size,
    }
    summary = np.full((len(histories), len(STATISTICS), histories.n_variables), np.nan)
    summary[:, STATISTICS.index("count")] = 0.0
    for position, name in enumerate(STATISTICS):
        summary[groups.record, position, groups.variable] = columns[name]
    return summary


def decayed_means(
    histories: Histories, time_constants: tuple[float, ...] = DECAY_HOURS
) -> Float[np.ndarray, "record constant variable"]:
    """Means that forget: weights exp(-(t_last - t) / tau) over each variable's observations.

    Counting age from the variable's own last observation leaves the mean as it is (the weights
    are only scaled) and keeps them from vanishing together. NaN where never measured.
    """
    groups = _group(histories)
    value, time = histories.value[groups.order], histories.time[groups.order]
    age = np.repeat(time[groups.end - 1], groups.size) - time
    means = np.full((len(histories), len(time_constants), histories.n_variables), np.nan)
    for position, tau in enumerate(time_constants):
        weight = np.exp(-age / tau)
        mean = groups.total(weight * value) / groups.total(weight)
        means[groups.record, position, groups.variable] = mean
    return means


@dataclass(frozen=True)
class _Groups:
    """The observations sorted by record, variable and time, and where each pair of the two lies."""

    order: np.ndarray
    start: np.ndarray
    end: np.ndarray
    record: np.ndarray
    variable: np.ndarray

    @property
    def size(self) -> np.ndarray:
        return self.end - self.start

    def reduce(self, combine: np.ufunc, value: np.ndarray) -> np.ndarray:
        # reduceat refuses an empty array, which is what a cohort without any observation gives
        return combine.reduceat(value, self.start) if len(self.start) else np.empty(0)

    def total(self, value: np.ndarray) -> np.ndarray:
        return self.reduce(np.add, value)


def _group(histories: Histories) -> _Groups:
    key = histories.record * np.int64(histories.n_variables) + histories.variable
    order = np.argsort(key, kind="stable")
    key = key[order]
    start = np.flatnonzero(np.diff(key, prepend=-1))
    end = np.append(start[1:], len(key)) if len(key) else start
    return _Groups(order, start, end, *np.divmod(key[start], histories.n_variables))
