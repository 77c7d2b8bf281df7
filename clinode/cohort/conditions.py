"""What may be asked of a record within hours of it: values measured, treatments begun, outcomes.

A condition answers for many windows (low, high] at once: true, false, or NaN where the record does
not say. It reads nothing outside of its window, except how long the record goes on.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from jaxtyping import Bool, Float, Int

from clinode.cohort.cohort import Cohort
from clinode.cohort.records import row_at
from clinode.cohort.schema import Variable
from clinode.errors import ArgumentError, SchemaError


@dataclass(frozen=True)
class Windows:
    """Hours (low, high] of some subjects.

    Args:
        subject: Position in the cohort.
        low, high: Hours since the subject's time zero; low is left out, high belongs to it.
    """

    subject: Int[np.ndarray, " window"]
    low: Float[np.ndarray, " window"]
    high: Float[np.ndarray, " window"]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Which values count; all of them where nothing is said.

    Raises:
        ArgumentError: A bound is not finite, one side is bounded twice, or nothing lies between.
    """

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    equals: float | None = None

    def __post_init__(self):
        said = {name: value for name, value in vars(self).items() if value is not None}
        for name, value in said.items():
            if not np.isfinite(value):
                raise ArgumentError(f"{name} must be a finite number")
        if {"above", "at_least"} <= set(said) or {"below", "at_most"} <= set(said):
            raise ArgumentError("one side is bounded twice", fix="keep one bound a side")
        if "equals" in said and len(said) > 1:
            raise ArgumentError("equals stands beside another bound", fix="keep one of them")
        low = said.get("above", said.get("at_least", -np.inf))
        high = said.get("below", said.get("at_most", np.inf))
        if low > high or (low == high and not {"at_least", "at_most"} <= set(said)):
            raise ArgumentError("no value lies within these bounds", fix="exchange them")

    @property
    def is_open(self) -> bool:
        """Whether every value counts."""
        return all(value is None for value in vars(self).values())

    @property
    def words(self) -> str:
        """Such as " above 4"; empty where every value counts."""
        said = [f"{k.replace('_', ' ')} {v:g}" for k, v in vars(self).items() if v is not None]
        return "".join(f" {part}" for part in said)

    def hold(self, value: Float[np.ndarray, " value"]) -> Bool[np.ndarray, " value"]:
        """Which values lie within; a missing one never does."""
        within = ~np.isnan(value)
        if self.above is not None:
            within &= value > self.above
        if self.at_least is not None:
            within &= value >= self.at_least
        if self.below is not None:
            within &= value < self.below
        if self.at_most is not None:
            within &= value <= self.at_most
        if self.equals is not None:
            within &= value == self.equals
        return within


ANY = Bounds()


@dataclass(frozen=True)
class Events:
    """When something happened, sorted by subject and time."""

    offset: np.ndarray  # (subject + 1,)
    time: np.ndarray

    @staticmethod
    def of(subject: np.ndarray, time: np.ndarray, n_subjects: int) -> "Events":
        order = np.lexsort((time, subject))
        offset = np.searchsorted(subject[order], np.arange(n_subjects + 1))
        return Events(offset.astype(np.int64), time[order])

    def count(self, windows: Windows) -> np.ndarray:
        """How many lie in each window."""
        begin, end = (
            row_at(self.offset, self.time, windows.subject, np.nextafter(bound, np.inf))
            for bound in (windows.low, windows.high)
        )
        return np.maximum(end - begin, 0)

    def first(self) -> np.ndarray:
        """First time of each subject; NaN where it never happened."""
        there = np.diff(self.offset) > 0
        found = np.full(len(there), np.nan)
        found[there] = self.time[self.offset[:-1][there]]
        return found


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A variable is measured within bounds, so many times.

    Args:
        variable: Its name.
        bounds: In the cohort's unit.
        times: How many such values it takes.
        unit: Where given, the cohort must hold the variable in it.
    """

    variable: str
    bounds: Bounds = ANY
    times: int = 1
    unit: str | None = None

    def __post_init__(self):
        _check_times(self.times)

    @property
    def words(self) -> str:
        """For the flow of a cohort."""
        return f"{self.variable}{self.bounds.words}" + _repeated(self.times, "measured")

    def check(self, cohort: Cohort) -> None:
        """Refuse a variable that the cohort has not, or has in another unit.

        Raises:
            SchemaError: Names the nearest variable.
        """
        found = _find(self.variable, cohort.schema.variables, "variable")
        if self.unit is not None and found.unit != self.unit:
            raise SchemaError(
                f"{self.variable!r} is in {found.unit!r}, and the task says {self.unit!r}",
                where="task",
                fix="state the bounds in the cohort's unit",
            )

    def events(self, cohort: Cohort, *, any_value: bool = False) -> Events:
        """When it was measured within the bounds, or with any value."""
        arrays = cohort.arrays()
        names = [variable.name for variable in cohort.schema.variables]
        held = arrays.variable_index == names.index(self.variable)
        if not any_value:
            held &= self.bounds.hold(arrays.value)
        return Events.of(arrays.subject_index[held], arrays.time[held], len(cohort))

    def truth(self, cohort: Cohort, windows: Windows) -> Float[np.ndarray, " window"]:
        """1 where it happened, 0 where it was measured otherwise, NaN where it was not measured."""
        is_true = self.events(cohort).count(windows) >= self.times
        seen = self.events(cohort, any_value=True).count(windows) > 0
        return np.where(is_true, 1.0, np.where(seen, 0.0, np.nan))


@dataclass(frozen=True, kw_only=True)
class Given:
    """A treatment begins, so many times.

    Args:
        input: Its name.
        bounds: Of its value, in the cohort's unit.
        times: How many beginnings it takes.
    """

    input: str
    bounds: Bounds = ANY
    times: int = 1

    def __post_init__(self):
        _check_times(self.times)

    @property
    def words(self) -> str:
        """For the flow of a cohort."""
        return f"{self.input}{self.bounds.words} given" + _repeated(self.times, "")

    def check(self, cohort: Cohort) -> None:
        """Refuse a treatment that the cohort has not.

        Raises:
            SchemaError: Names the nearest one.
        """
        _find(self.input, cohort.schema.inputs, "input")

    def events(self, cohort: Cohort) -> Events:
        """When it began."""
        arrays = cohort.arrays()
        names = [variable.name for variable in cohort.schema.inputs]
        held = arrays.input_variable_index == names.index(self.input)
        held &= self.bounds.hold(arrays.input_value)
        return Events.of(arrays.input_subject_index[held], arrays.input_start[held], len(cohort))

    def truth(self, cohort: Cohort, windows: Windows) -> Float[np.ndarray, " window"]:
        """1 where it began, else 0: what is not recorded was not given."""
        return (self.events(cohort).count(windows) >= self.times).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Happened:
    """An event whose time the outcomes tell, such as the hour of death.

    Args:
        time_of: Outcome column with hours since the subject's time zero; empty where it never was.
    """

    time_of: str

    @property
    def words(self) -> str:
        """For the flow of a cohort."""
        return self.time_of

    def check(self, cohort: Cohort) -> None:
        """Refuse a column that the outcomes have not.

        Raises:
            SchemaError: Names those there are.
        """
        _find_column(self.time_of, cohort)

    def events(self, cohort: Cohort) -> Events:
        """When it happened."""
        outcomes = cohort.outcomes
        time = outcomes[self.time_of].to_numpy(dtype=np.float64, na_value=np.nan)
        subject = _positions(cohort)
        held = ~np.isnan(time)
        return Events.of(subject[held], time[held], len(cohort))

    def truth(self, cohort: Cohort, windows: Windows) -> Float[np.ndarray, " window"]:
        """1 where it happened, 0 where not or later, NaN where it had happened before already."""
        events = self.events(cohort)
        before = Windows(windows.subject, np.full(len(windows.low), -np.inf), windows.low)
        is_true = events.count(windows) > 0
        return np.where(is_true, 1.0, np.where(events.count(before) > 0, np.nan, 0.0))


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A binary outcome column, which has no time.

    Args:
        outcome: Column that holds 0, 1 or nothing.
    """

    outcome: str

    @property
    def words(self) -> str:
        """For the flow of a cohort."""
        return self.outcome

    def check(self, cohort: Cohort) -> None:
        """Refuse a column that is missing, repeated or not binary.

        Raises:
            SchemaError: Says how many rows are at fault.
        """
        _find_column(self.outcome, cohort)
        outcomes = cohort.outcomes
        value = outcomes[self.outcome].to_numpy(dtype=np.float64, na_value=np.nan)
        n_other = int((~np.isnan(value) & ~np.isin(value, (0.0, 1.0))).sum())
        if n_other:
            raise SchemaError(
                f"column {self.outcome!r}: expected 0, 1 or nothing, {n_other} rows hold something "
                "else",
                where="outcomes",
                fix="name the column of its time as time_of, or make it binary",
            )
        n_repeated = int(outcomes["subject_id"].duplicated().sum())
        if n_repeated:
            raise SchemaError(
                f"column {self.outcome!r}: {n_repeated} rows repeat a subject, and the task names "
                "the prediction times",
                where="outcomes",
                fix="keep one row a subject",
            )

    def truth(self, cohort: Cohort, windows: Windows) -> Float[np.ndarray, " window"]:
        """The column, whatever the window is."""
        value = np.full(len(cohort), np.nan)
        outcomes = cohort.outcomes
        value[_positions(cohort)] = outcomes[self.outcome].to_numpy(np.float64, na_value=np.nan)
        return value[windows.subject]


Timed = Measured | Given | Happened
Condition = Measured | Given | Happened | Recorded


def nearest(name: str, known: Iterable[str]) -> str:
    """What to do about a name that does not exist."""
    known = list(known)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"choose among {', '.join(known)}" if known else "there is none"


def _check_times(times: int) -> None:
    if times < 1:
        raise ArgumentError(f"times must be at least 1, got {times}")


def _repeated(times: int, verb: str) -> str:
    return f" {verb} {times} times".replace("  ", " ") if times > 1 else ""


def _positions(cohort: Cohort) -> np.ndarray:
    """Position of the subject of each row of the outcomes."""
    place = {subject: k for k, subject in enumerate(cohort.subjects.tolist())}
    return np.array([place[s] for s in cohort.outcomes["subject_id"].tolist()], dtype=np.int64)


def _find(name: str, variables: tuple[Variable, ...], kind: str) -> Variable:
    for variable in variables:
        if variable.name == name:
            return variable
    raise SchemaError(
        f"the cohort has no {kind} {name!r}",
        where="task",
        fix=nearest(name, [variable.name for variable in variables]),
    )


def _find_column(name: str, cohort: Cohort) -> None:
    if name not in cohort.schema.outcomes:
        raise SchemaError(
            f"the cohort has no outcome column {name!r}",
            where="task",
            fix=nearest(name, list(cohort.schema.outcomes)),
        )
