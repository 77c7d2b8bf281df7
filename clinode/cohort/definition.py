"""A task in words of the record: when to predict, what counts as the event, whom to leave out.

    index time --- window ---> prediction time --- gap ---| ---- horizon ----|
    (features: everything at or before the prediction time)  (label: within)

The label reads (prediction time + gap, prediction time + gap + horizon] and nothing else, except
whether the record goes on until its end. `read_task` reads a definition from YAML; `define` applies
it to a cohort and counts who stays and who goes.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from clinode.cohort.cohort import Cohort
from clinode.cohort.conditions import Condition, Given, Happened, Measured, Recorded, Windows
from clinode.cohort.exclusions import Exclusion, Instances, LabelBefore, record_end
from clinode.cohort.task import Classify
from clinode.errors import ArgumentError, SchemaError

ANSWERS = ("unknown", "negative")
LABEL_COLUMNS = ("subject_id", "prediction_time")
MOST_TIMES = 10_000  # prediction times of one subject


@dataclass(frozen=True, kw_only=True)
class FlowStep:
    """One rule, what it took away and what it left.

    Args:
        rule: In words.
        n_out, n_left: Prediction times that it excluded, and that are left.
        n_subjects_out, n_subjects_left: Subjects that lost their last one, and that are left.
        looks_ahead: Whether it reads beyond the prediction time: nobody can follow it then.
    """

    rule: str
    n_out: int
    n_left: int
    n_subjects_out: int
    n_subjects_left: int
    looks_ahead: bool = False


@dataclass(frozen=True, kw_only=True)
class CohortFlow:
    """Who came in, whom each rule took away, and what became of the rest.

    Args:
        steps: In the order of the rules; the first says who was there.
        n_positive, n_negative, n_unknown: Labels of the prediction times that are left.
    """

    steps: tuple[FlowStep, ...]
    n_positive: int
    n_negative: int
    n_unknown: int

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        counts = {name: getattr(self, name) for name in ("n_positive", "n_negative", "n_unknown")}
        return {"steps": [vars(step) for step in self.steps], **counts}

    def to_pandas(self) -> pd.DataFrame:
        """One row a step, then one a label, whose `n_left` is how many have it."""
        labels = [
            {"rule": f"label {word}", "n_left": getattr(self, f"n_{word}")}
            for word in ("positive", "negative", "unknown")
        ]
        frame = pd.DataFrame([*(vars(step) for step in self.steps), *labels])
        counts = [name for name in frame.columns if name.startswith("n_")]
        return frame.astype(dict.fromkeys(counts, "Int64")).astype({"looks_ahead": "boolean"})


@dataclass(frozen=True, kw_only=True)
class DefinedTask:
    """A definition applied to a cohort.

    Args:
        task: To fit and to evaluate by.
        cohort: The subjects that are left, with prediction times and labels as their outcomes.
        flow: How they came to be those.
    """

    task: Classify
    cohort: Cohort
    flow: CohortFlow


@dataclass(frozen=True, kw_only=True)
class TaskDefinition:
    """What is to be predicted, when, and of whom.

    Args:
        name: Of the outcome column that the labels become.
        label: One condition or several.
        need: "any" or "all" of them.
        index: Hours since the subject's time zero, or the condition whose first event is the index
            time (its number of times is not asked); subjects without one are left out.
        window: Hours from the index time to the first prediction time.
        gap: Hours behind the prediction time that the label does not read.
        horizon: Hours behind the gap within which the event counts; None exactly where every
            condition is an outcome without a time.
        every: Further prediction times in steps of so many hours, until the record ends or the
            event comes; a subject's last prediction times have labels like its first.
        until: Hours since the index time behind which no prediction time lies; only with `every`.
        exclude: Rules, in order.
        unmeasured: What is said of a variable that is not measured within the label's hours.
        record_ends: What is said where no event is seen and the record ends before the label's
            hours do: such a subject may have left, or died.

    Raises:
        ArgumentError: The parts contradict each other.
    """

    name: str
    label: tuple[Condition, ...]
    need: str = "any"
    index: float | Measured | Given | Happened = 0.0
    window: float = 0.0
    gap: float = 0.0
    horizon: float | None = None
    every: float | None = None
    until: float | None = None
    exclude: tuple[Exclusion, ...] = ()
    unmeasured: str = "unknown"
    record_ends: str = "unknown"

    def __post_init__(self):
        if not self.name or self.name in LABEL_COLUMNS:
            raise ArgumentError(f"{self.name!r} cannot name an outcome", fix="choose another name")
        if not self.label:
            raise ArgumentError("a label needs a condition")
        if self.need not in ("any", "all"):
            raise ArgumentError(f"need must be 'any' or 'all', got {self.need!r}")
        for name in ("unmeasured", "record_ends"):
            if getattr(self, name) not in ANSWERS:
                raise ArgumentError(f"{name} must be 'unknown' or 'negative'")
        for name in ("window", "gap"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ArgumentError(f"{name} must be hours of at least 0")
        for name in ("horizon", "every", "until"):
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise ArgumentError(f"{name} must be positive hours")
        if isinstance(self.index, float | int) and not np.isfinite(self.index):
            raise ArgumentError("index must be a finite number of hours")
        self._check_times()

    def _check_times(self) -> None:
        is_timed = any(not isinstance(condition, Recorded) for condition in self.label)
        if is_timed and self.horizon is None:
            raise ArgumentError(
                "the label has a time and no horizon",
                fix="say within how many hours behind the prediction time (and gap) it counts",
            )
        if not is_timed and (self.horizon is not None or self.gap or self.every is not None):
            raise ArgumentError(
                "an outcome without a time cannot lie within gap and horizon, nor be asked again",
                fix="leave horizon, gap and every out, or name the column of its time as time_of",
            )
        if self.until is not None and self.every is None:
            raise ArgumentError("until says when `every` ends", fix="give every, or leave it out")
        if self.until is not None and self.until < self.window:
            raise ArgumentError("until lies before the first prediction time")

    def define(self, cohort: Cohort) -> DefinedTask:
        """Apply it: prediction times, labels, exclusions, and the counts of all of them.

        Raises:
            SchemaError: The cohort lacks a variable, input, static or outcome, or nobody is left.
        """
        index_rule = () if isinstance(self.index, float | int) else (self.index,)
        for part in (*index_rule, *self.label, *self.exclude):
            part.check(cohort)
        steps = [_step("in the cohort", np.arange(len(cohort)), np.arange(len(cohort)))]
        index_time = self._index_times(cohort)
        has_index = np.flatnonzero(~np.isnan(index_time))
        if index_rule:
            steps.append(
                _step(f"no index: {index_rule[0].words}", np.arange(len(cohort)), has_index)
            )
        instances = self._instances(cohort, has_index, index_time)
        rules = (*self.exclude, *((LabelBefore(),) if self.every is not None else ()))
        if self.every is not None:
            words = f"every {self.every:g} h, one at least"
            steps.append(_step(words, has_index, instances.subject))
        for rule in rules:
            kept = ~rule.excludes(cohort, instances)
            ahead = rule.looks_ahead(instances)
            before, instances = instances.subject, instances.keep(kept)
            steps.append(_step(rule.words, before, instances.subject, looks_ahead=ahead))
        if not len(instances.subject):
            raise SchemaError(
                "the task leaves nobody", where="task", fix="look at its flow, and relax a rule"
            )
        outcomes = pd.DataFrame(
            {
                "subject_id": cohort.subjects[instances.subject],
                "prediction_time": instances.time,
                self.name: instances.label,
            }
        )
        left = cohort.take(np.unique(instances.subject)).with_outcomes(outcomes)
        label = instances.label
        flow = CohortFlow(
            steps=tuple(steps),
            n_positive=int((label == 1).sum()),
            n_negative=int((label == 0).sum()),
            n_unknown=int(np.isnan(label).sum()),
        )
        return DefinedTask(task=self.task, cohort=left, flow=flow)

    @property
    def task(self) -> Classify:
        """The task of a cohort that it was applied to."""
        if isinstance(self.index, float | int) and self.every is None:
            return Classify(self.name, at=self.index + self.window)
        return Classify(self.name)

    def _index_times(self, cohort: Cohort) -> np.ndarray:
        if isinstance(self.index, float | int):
            return np.full(len(cohort), float(self.index))
        return self.index.events(cohort).first()

    def _instances(self, cohort: Cohort, subject: np.ndarray, index_time: np.ndarray) -> Instances:
        first = index_time[subject] + self.window
        if self.every is None:
            time = first
        else:
            last = record_end(cohort)[subject]
            if self.until is not None:
                last = np.fmin(last, index_time[subject] + self.until)
            # 1e-9: 3 steps of 0.1 h end at 0.3 h whatever the last bit says
            steps = np.floor((last - first) / self.every + 1e-9)
            count = np.where(np.isnan(steps) | (steps < 0), 0, steps + 1).astype(np.int64)
            if count.max(initial=0) > MOST_TIMES:
                raise ArgumentError(
                    f"a subject would have {count.max():,} prediction times",
                    fix="take longer steps (every), or an end (until)",
                )
            number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            time = np.repeat(first, count) + self.every * number
            subject = np.repeat(subject, count)
        label, was_before = self._labels(cohort, subject, time)
        return Instances(subject, index_time[subject], time, label, was_before)

    def _labels(
        self, cohort: Cohort, subject: np.ndarray, time: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Label of each instance, and whether it was true already."""
        reach = self.gap + (0.0 if self.horizon is None else self.horizon)
        windows = Windows(subject, time + self.gap, time + reach)
        past = Windows(subject, np.full(len(time), -np.inf), time)
        goes_on = record_end(cohort)[subject] >= windows.high
        found, before = [], []
        for condition in self.label:
            truth = condition.truth(cohort, windows)
            if isinstance(condition, Measured) and self.unmeasured == "negative":
                truth = np.where(np.isnan(truth), 0.0, truth)
            if isinstance(condition, Measured | Given) and self.record_ends == "unknown":
                truth = np.where((truth == 0) & ~goes_on, np.nan, truth)
            found.append(truth)
            if isinstance(condition, Recorded):
                before.append(np.zeros(len(time)))  # it has no time
            else:
                before.append(_happened(condition, cohort, past))
        return _combine(self.need, found), _combine(self.need, before) == 1


def _happened(condition: Measured | Given | Happened, cohort: Cohort, past: Windows) -> np.ndarray:
    times = 1 if isinstance(condition, Happened) else condition.times
    return (condition.events(cohort).count(past) >= times).astype(np.float64)


def _combine(need: str, truths: list[np.ndarray]) -> np.ndarray:
    """Any or all of them, where NaN is unknown (Kleene's logic)."""
    held = np.stack(truths)
    decisive = 1.0 if need == "any" else 0.0
    is_unknown = np.isnan(held).any(axis=0)
    other = np.where(is_unknown, np.nan, 1.0 - decisive)
    return np.where((held == decisive).any(axis=0), decisive, other)


def _step(
    rule: str, before: np.ndarray, left: np.ndarray, *, looks_ahead: bool = False
) -> FlowStep:
    n_before, n_left = len(np.unique(before)), len(np.unique(left))
    return FlowStep(
        rule=rule,
        n_out=max(len(before) - len(left), 0),
        n_left=len(left),
        n_subjects_out=n_before - n_left,
        n_subjects_left=n_left,
        looks_ahead=looks_ahead,
    )
