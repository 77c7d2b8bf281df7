"""Whom a task leaves out: rules over what is known at a prediction time, and what they are called.

A rule that reads beyond the prediction time (a stay that must go on) says so: whoever uses the
model later cannot follow it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from clinode.cohort.cohort import Cohort
from clinode.cohort.conditions import ANY, Bounds, Events, Given, Measured, Windows, nearest
from clinode.errors import ArgumentError, SchemaError


@dataclass(frozen=True)
class Instances:
    """Subjects at prediction times.

    Args:
        subject: Position in the cohort.
        index_time: Hours since the subject's time zero.
        time: Prediction time, hours since the subject's time zero.
        label: Of the task: 1, 0, or NaN where unknown.
        was_before: Whether what the label asks for was already true at the prediction time.
    """

    subject: np.ndarray
    index_time: np.ndarray
    time: np.ndarray
    label: np.ndarray
    was_before: np.ndarray

    def keep(self, kept: np.ndarray) -> "Instances":
        """Those of a mask."""
        return Instances(*(part[kept] for part in vars(self).values()))

    @property
    def until_prediction(self) -> Windows:
        """All hours up to the prediction time, inclusive."""
        return Windows(self.subject, np.full(len(self.time), -np.inf), self.time)


class Exclusion(ABC):
    """A rule; true is out."""

    @property
    @abstractmethod
    def words(self) -> str:
        """What the flow of the cohort calls it."""

    def check(self, cohort: Cohort) -> None:
        """Refuse a cohort that the rule cannot be asked of.

        Raises:
            SchemaError: Says what is missing.
        """
        return

    @abstractmethod
    def excludes(self, cohort: Cohort, instances: Instances) -> np.ndarray:
        """Which instances are left out, (instance,) bool."""

    def looks_ahead(self, instances: Instances) -> bool:
        """Whether it reads beyond a prediction time."""
        return False


@dataclass(frozen=True, kw_only=True)
class ShortStay(Exclusion):
    """The record ends before so many hours since the index time.

    Args:
        stay_below: Hours.
    """

    stay_below: float

    @property
    def words(self) -> str:
        return f"stay below {self.stay_below:g} h"

    def excludes(self, cohort: Cohort, instances: Instances) -> np.ndarray:
        end = record_end(cohort)[instances.subject]
        return ~(end >= instances.index_time + self.stay_below)

    def looks_ahead(self, instances: Instances) -> bool:
        return bool((instances.index_time + self.stay_below > instances.time).any())


@dataclass(frozen=True, kw_only=True)
class Static(Exclusion):
    """A static lies within bounds, is one of some levels, or is missing.

    Args:
        static: Its name.
        bounds: Of a number; open where nothing is said of it.
        levels: Numbers or texts.
        missing: Whether it must be missing.
    """

    static: str
    bounds: Bounds = ANY
    levels: tuple[float | int | str, ...] = ()
    missing: bool = False

    def __post_init__(self):
        said = [not self.bounds.is_open, bool(self.levels), self.missing]
        if sum(said) != 1:
            raise ArgumentError(
                f"static {self.static!r}: expected bounds, or levels, or missing",
                fix="say which of its values are left out, in one way",
            )

    @property
    def words(self) -> str:
        if self.missing:
            return f"{self.static} missing"
        levels = ", ".join(map(str, self.levels))
        return f"{self.static} is {levels}" if levels else f"{self.static}{self.bounds.words}"

    def check(self, cohort: Cohort) -> None:
        if self.static not in cohort.statics.columns[1:]:
            raise SchemaError(
                f"the cohort has no static {self.static!r}",
                where="task",
                fix=nearest(self.static, [str(c) for c in cohort.statics.columns[1:]]),
            )
        if not self.bounds.is_open and cohort.statics[self.static].dtype == object:
            raise SchemaError(
                f"static {self.static!r} holds texts, and the task asks for numbers",
                where="task",
                fix="name the levels",
            )

    def excludes(self, cohort: Cohort, instances: Instances) -> np.ndarray:
        column = cohort.statics[self.static]
        if self.missing:
            out = column.isna().to_numpy()
        elif self.levels:
            out = column.isin(list(self.levels)).to_numpy()
        else:
            out = self.bounds.hold(column.to_numpy(dtype=np.float64, na_value=np.nan))
        return out[instances.subject]

    def looks_ahead(self, instances: Instances) -> bool:
        return False


@dataclass(frozen=True, kw_only=True)
class Before(Exclusion):
    """A condition is true at or before the prediction time, or a variable is missing by then.

    Args:
        condition: Of a variable or a treatment.
        missing: Whether it must never have been: then nothing is said of bounds.
    """

    condition: Measured | Given
    missing: bool = False

    def __post_init__(self):
        if self.missing and not self.condition.bounds.is_open:
            raise ArgumentError("missing stands beside a bound", fix="keep one of them")

    @property
    def words(self) -> str:
        if self.missing:
            name = getattr(self.condition, "variable", getattr(self.condition, "input", ""))
            return f"{name} missing at the prediction time"
        return f"{self.condition.words} by the prediction time"

    def check(self, cohort: Cohort) -> None:
        self.condition.check(cohort)

    def excludes(self, cohort: Cohort, instances: Instances) -> np.ndarray:
        seen = self.condition.events(cohort).count(instances.until_prediction)
        return seen == 0 if self.missing else seen >= self.condition.times


@dataclass(frozen=True, kw_only=True)
class FewObservations(Exclusion):
    """Fewer measured values than this at or before the prediction time.

    Args:
        observations_below: How many it takes to stay.
    """

    observations_below: int

    @property
    def words(self) -> str:
        return f"fewer than {self.observations_below} observations"

    def excludes(self, cohort: Cohort, instances: Instances) -> np.ndarray:
        arrays = cohort.arrays()
        events = Events(arrays.row_start, arrays.time)
        return events.count(instances.until_prediction) < self.observations_below


@dataclass(frozen=True, kw_only=True)
class LabelBefore(Exclusion):
    """What the label asks for is already true at the prediction time."""

    @property
    def words(self) -> str:
        return "the event came by the prediction time"

    def excludes(self, cohort: Cohort, instances: Instances) -> np.ndarray:
        return instances.was_before


def record_end(cohort: Cohort) -> np.ndarray:
    """Last hour at which anything is recorded of each subject; NaN where nothing is."""
    arrays = cohort.arrays()
    end = np.full(len(cohort), -np.inf)
    np.maximum.at(end, arrays.subject_index, arrays.time)
    for bound in (arrays.input_start, arrays.input_end):
        known = ~np.isnan(bound)
        np.maximum.at(end, arrays.input_subject_index[known], bound[known])
    return np.where(np.isinf(end), np.nan, end)
