"""What a fit and its run do for one kind of task: the interface; `tasks.py` is the table.

A run answers alone as an ensemble of one, so everything asked of trained models takes a sequence of
members and combines what they say.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, runtime_checkable

import numpy as np
import pandas as pd

from clinode.cohort import Cohort, PackedRecords
from clinode.errors import ArgumentError, CheckpointError
from clinode.evaluation import SplitConformal

if TYPE_CHECKING:
    from clinode.training.run import Run


@runtime_checkable
class FittedBaselines(Protocol):
    """The trivial models beside a run; stored as arrays."""

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything there is to store, by name and contiguous."""
        ...


@runtime_checkable
class Result(Protocol):
    """Metrics with intervals, those of the baselines, and the paired differences."""

    def to_dict(self) -> dict[str, Any]:
        """Each metric by name, then `baselines`, `difference` and the counts; for JSON."""
        ...

    def to_pandas(self) -> pd.DataFrame:
        """The same as a table."""
        ...


class Resampling(TypedDict):
    """Options of every interval."""

    n_resamples: int
    seed: int


class TaskWork(ABC):
    """What is done for one kind of task before, in and after a fit.

    `members` are runs of one task and one schema; what they say counts equally, and is corrected
    by the calibration of the first.
    """

    baselines: Any  # its `from_arrays` reads what `to_arrays` of them gave

    @abstractmethod
    def check_targets(self, part: str, cohort: Cohort, records: PackedRecords) -> None:
        """Refuse a part of a fit with nothing to learn from, or to select by.

        Args:
            part: "training" or "tuning".
            cohort: Of that part.
            records: Of the cohort, with targets.

        Raises:
            SchemaError: Says what is missing, and what may help.
        """

    def trained_on(self, records: PackedRecords, prediction_times: int) -> PackedRecords:
        """What the network learns from: by default the training part's records as they are.

        Args:
            records: Of the training part, with targets.
            prediction_times: Of each record: its own, and earlier ones.

        Raises:
            ArgumentError: The task answers for one time only.
        """
        if prediction_times > 1:
            raise ArgumentError(
                f"prediction_times={prediction_times} belongs to forecasts: what is asked here is "
                "known at one time only",
                fix="leave it at 1",
            )
        return records

    @abstractmethod
    def fit_baselines(self, cohort: Cohort, records: PackedRecords, seed: int) -> FittedBaselines:
        """The trivial models, fitted on the training part."""

    @abstractmethod
    def predict(
        self,
        members: "Sequence[Run]",
        records: PackedRecords,
        hours_after: Sequence[float] | None,
    ) -> pd.DataFrame:
        """The table of `Run.predict`.

        Raises:
            ArgumentError: The task has no use for `hours_after`, or they make no sense.
        """

    def with_level(self, level: float | None) -> "TaskWork":
        """The same work with intervals that are to hold another share of what is observed.

        Raises:
            ArgumentError: The answers of this task are no intervals.
        """
        if level is not None:
            raise ArgumentError("level belongs to forecasts, whose answers have intervals")
        return self

    def set_aside(self, tune: Cohort) -> tuple[Cohort, Cohort | None]:
        """Who of the tuning part selects the epoch, and who corrects the answers afterwards."""
        return tune, None

    def calibrate(
        self, members: "Sequence[Run]", tune: Cohort | None, aside: Cohort | None
    ) -> tuple[SplitConformal | None, dict[str, Any] | None]:
        """What corrects the answers, and what `metrics.json` says of it; both None by default.

        Args:
            members: Fitted, not yet corrected.
            tune: The whole tuning part.
            aside: Who of it was set aside.
        """
        return None, None

    @abstractmethod
    def evaluate(
        self,
        members: "Sequence[Run]",
        cohort: Cohort,
        records: PackedRecords,
        units: np.ndarray,
        options: Resampling,
    ) -> tuple[Result, tuple[dict[str, Any], ...]]:
        """Metrics beside the baselines of the first member, and one row a subgroup.

        Args:
            members: Whom to measure.
            cohort: With what became of its subjects.
            records: Of the cohort, with targets.
            units: (record,) what varies independently: the group of each record's subject.
            options: Of the intervals.
        """

    @abstractmethod
    def observed(self, run: "Run", part: str, cohort: Cohort) -> pd.DataFrame:
        """What a run says beside what was observed: `predictions.parquet`, `split` in place 2."""


def baselines_of(run: "Run", kind: type) -> Any:
    """The baselines of a run, of the kind that its task has.

    Raises:
        CheckpointError: They are of another task.
    """
    if not isinstance(run.baselines, kind):
        raise CheckpointError("the run holds baselines of another task", where=run.folder.name)
    return run.baselines


def refuse_hours(hours_after: Sequence[float] | None) -> None:
    """Refuse hours where a task answers at its prediction time only.

    Raises:
        ArgumentError: Hours were given.
    """
    if hours_after is not None:
        raise ArgumentError("hours_after belongs to forecasts, and this run answers at one time")
