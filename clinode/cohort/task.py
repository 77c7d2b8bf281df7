"""What is asked of a model: the task, and at which prediction time of which subject.

A task turns a cohort into instances. An instance is one subject at one prediction time, and it
knows what was observed or given at or before that time and nothing after it. Targets are read
apart, and only by those who train or evaluate.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from clinode.cohort.cohort import Cohort
from clinode.cohort.follow_up import Intervals
from clinode.errors import ArgumentError, SchemaError


class Task(ABC):
    """What every task tells the cohort room; `clinode.cohort.tasks` lists them by their word.

    What a model answers and what is fitted, told and measured of a task stand in one table of each
    later room: `clinode.sequence.task_heads`, `clinode.training.tasks`, `clinode.attribution`.
    """

    auxiliary: tuple[str, ...] = ()  # outcome columns trained beside it, last in its targets

    @property
    def parts(self) -> "tuple[Task, ...]":
        """The tasks that it is made of; none where it is one itself."""
        return ()

    @property
    def reach(self) -> float:
        """Hours behind the prediction time whose observations are targets; 0 for outcomes."""
        return 0.0

    @property
    def asks_values(self) -> bool:
        """Whether targets are observations: asked at query times, and on their own scale."""
        return False

    @property
    def reads_behind(self) -> bool:
        """Whether a query is answered from what lies behind it as well, up to the prediction time.

        A model then runs through the records in both directions.
        """
        return False

    def hidden(
        self,
        subjects: np.ndarray,
        variables: Sequence[str],
        subject_index: np.ndarray,
        variable_index: np.ndarray,
        time: np.ndarray,
    ) -> np.ndarray | None:
        """Which observations by the prediction time are targets, and not read; None: none of them.

        Args:
            subjects: Ids.
            variables: Names.
            subject_index, variable_index: (observation,) positions in the two.
            time: (observation,) hours.
        """
        return None

    @abstractmethod
    def default_time(self, last_time: float) -> float:
        """Prediction time in hours where neither the cohort nor the task names one."""

    def instances(self, cohort: Cohort, default_time: float) -> "InstanceTable":
        """Which subjects are asked at which prediction times; the same whatever the outcomes say.

        Args:
            cohort: Whose subjects they are.
            default_time: Hours; where neither the cohort nor the task names a prediction time.
        """
        return instance_table(cohort, default_time)

    def targets(self, cohort: Cohort, outcome_row: np.ndarray) -> np.ndarray | None:
        """Targets that come from the outcomes, (instance, column) float64, NaN where unknown.

        Args:
            cohort: With its outcomes.
            outcome_row: Row of the outcomes of each instance, -1 where it has none.
        """
        return None

    def seen_from(self, target: np.ndarray, prediction_time: np.ndarray) -> np.ndarray:
        """The targets as they count from the prediction times (instance,); by default as known."""
        return target

    def intervals(self, cohort: Cohort, table: "InstanceTable") -> Intervals | None:
        """Intervals of follow-up, chosen on the training part; None where time is not asked for."""
        return None

    def batch_fields(self, target: np.ndarray) -> dict[str, Tensor]:
        """Fields of a batch of its own, from targets (batch, column); none by default."""
        return {}

    def is_trainable(self, target: np.ndarray) -> np.ndarray:
        """Which instances (instance,) have a target (instance, column) to be trained on."""
        return np.ones(len(target), dtype=bool)

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """For JSON, with `kind`; `task_from_dict` reads it back."""


@dataclass(frozen=True)
class Classify(Task):
    """Binary outcomes of each instance: one, or several that may go together.

    The prediction time is the outcomes' `prediction_time` where that column exists, else `at`, else
    the end of the observation window, which is fixed on the training part and stored.

    Args:
        outcome: Column of the outcomes that holds 0, 1 or nothing, or a tuple of such columns. An
            instance counts for each label that is known of it.
        at: Prediction time in hours since the subject's time zero, inclusive.
        auxiliary: Further outcome columns, binary or continuous. They are trained beside the
            outcome and never read at prediction.
        class_weight: What a positive label counts in training, where a negative one counts 1: a
            number, or "balanced" for as much that both classes count alike. None is 1. After
            training the level is set to the share of the label, but probabilities between stay
            tilted: recalibrate before they are read as risks.
    """

    outcome: str | tuple[str, ...]
    at: float | int | None = None
    auxiliary: tuple[str, ...] = ()
    class_weight: float | str | None = field(default=None, repr=False)

    def __post_init__(self):
        weight = self.class_weight
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not (weight in (None, "balanced") or (is_number and 0 < float(weight) < float("inf"))):
            raise ArgumentError(
                f'class_weight must be a positive number, "balanced" or None, got {weight!r}'
            )
        names: tuple[str, ...] = (self.outcome,) if isinstance(self.outcome, str) else self.outcome
        if not names or not all(names):
            raise ArgumentError("the name of the outcome is empty", fix="name an outcome column")
        if len(set(names)) < len(names):
            raise ArgumentError("an outcome is named twice", fix="name each column once")
        for name in names:
            if name in self.auxiliary:
                raise ArgumentError(f"{name!r} cannot be auxiliary to itself")
        object.__setattr__(self, "outcome", names if len(names) != 1 else names[0])
        object.__setattr__(self, "at", _hours(self.at))

    @property
    def labels(self) -> tuple[str, ...]:
        """What is predicted, in order; the first is the one that `probability` speaks of."""
        return (self.outcome,) if isinstance(self.outcome, str) else self.outcome

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The labels first, then the auxiliary ones: the columns of `IrregularBatch.target`."""
        return (*self.labels, *self.auxiliary)

    def default_time(self, last_time: float) -> float:
        return last_time if self.at is None else self.at

    def targets(self, cohort: Cohort, outcome_row: np.ndarray) -> np.ndarray:
        """Outcome columns of the instances, (instance, outcome) float64, NaN where unknown.

        Raises:
            SchemaError: A column is missing, or a label holds something else than 0 and 1.
        """
        outcomes = cohort.outcomes
        columns = [] if outcomes is None else list(outcomes.columns)
        missing = [name for name in self.outcomes if name not in columns]
        if missing:
            raise SchemaError(
                f"no outcome column {missing[0]!r}; there are: {', '.join(map(str, columns[1:]))}",
                where="outcomes",
                fix="name one of these columns in the task or read the cohort with its outcomes",
            )
        values = outcomes[list(self.outcomes)].to_numpy(dtype=np.float64, na_value=np.nan)
        for name, column in zip(self.labels, values.T, strict=False):
            n_other = int((~np.isnan(column) & ~np.isin(column, (0.0, 1.0))).sum())
            if n_other:
                raise SchemaError(
                    f"column {name!r}: expected 0, 1 or nothing, {n_other} rows hold something "
                    "else",
                    where="outcomes",
                    fix="make the column binary before reading",
                )
        padded = np.concatenate([values, np.full((1, values.shape[1]), np.nan)])
        return padded[outcome_row]  # row -1 is the row of NaN

    def is_trainable(self, target: np.ndarray) -> np.ndarray:
        return np.asarray(~np.isnan(target[:, : len(self.labels)]).all(axis=1))

    def to_dict(self) -> dict[str, Any]:
        outcome = self.outcome if isinstance(self.outcome, str) else list(self.outcome)
        fields = {"outcome": outcome, "at": self.at, "auxiliary": list(self.auxiliary)}
        weight = {} if self.class_weight is None else {"class_weight": self.class_weight}
        return {"kind": "classify", **fields, **weight}


@dataclass(frozen=True)
class Forecast(Task):
    """Every measured variable over the `horizon` hours after the prediction time.

    Args:
        horizon: How far ahead, hours.
        at: Prediction time in hours, inclusive; where the outcomes carry a `prediction_time` that
            is taken; without either, the last observation of the training part less the horizon.
    """

    horizon: float | int
    at: float | int | None = None

    def __post_init__(self):
        if not (np.isfinite(self.horizon) and self.horizon > 0):
            raise ArgumentError(f"horizon must be positive hours, got {self.horizon}")
        object.__setattr__(self, "horizon", float(self.horizon))
        object.__setattr__(self, "at", _hours(self.at))

    @property
    def reach(self) -> float:
        return self.horizon

    @property
    def asks_values(self) -> bool:
        return True

    def default_time(self, last_time: float) -> float:
        return last_time - self.horizon if self.at is None else self.at

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "forecast", **asdict(self)}


@dataclass(frozen=True)
class InstanceTable:
    """Instances in the order of their subjects, then of their prediction times.

    `outcome_row` is the row of the cohort's outcomes that an instance came from, -1 where none did.
    """

    subject_index: np.ndarray
    prediction_time: np.ndarray
    outcome_row: np.ndarray


def instance_table(cohort: Cohort, default_time: float) -> InstanceTable:
    """One instance per (subject, prediction time); subjects that have none named get the default.

    Raises:
        SchemaError: The outcomes name a subject twice at one prediction time.
    """
    n_subjects = len(cohort.subjects)
    outcomes = cohort.outcomes
    if outcomes is None or len(outcomes) == 0:
        subject = np.arange(n_subjects)
        return InstanceTable(subject, np.full(n_subjects, default_time), np.full(n_subjects, -1))
    subject = pd.Index(cohort.subjects).get_indexer(outcomes["subject_id"].to_numpy())
    row = np.arange(len(outcomes))
    if "prediction_time" in outcomes.columns:
        time = outcomes["prediction_time"].to_numpy(dtype=np.float64, na_value=np.nan)
        time = np.where(np.isnan(time), default_time, time)
    else:
        time = np.full(len(outcomes), default_time)
    known = subject >= 0
    absent = np.setdiff1d(np.arange(n_subjects), subject[known])
    subject = np.concatenate([subject[known], absent])
    time = np.concatenate([time[known], np.full(len(absent), default_time)])
    row = np.concatenate([row[known], np.full(len(absent), -1)])
    order = np.lexsort((time, subject))
    subject, time, row = subject[order], time[order], row[order]
    repeated = int(((np.diff(subject) == 0) & (np.diff(time) == 0)).sum())
    if repeated:
        raise SchemaError(
            f"{repeated} rows repeat a subject at one prediction time",
            where="outcomes",
            fix="keep one row per subject and prediction time",
        )
    return InstanceTable(subject, time, row)


def _hours(at: float | int | None) -> float | None:
    if at is not None and not np.isfinite(at):
        raise ArgumentError(f"the prediction time must be a finite number of hours, got {at}")
    return None if at is None else float(at)
