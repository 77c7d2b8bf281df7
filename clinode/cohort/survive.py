"""Time to an event, perhaps of several competing causes, from what was known at a landmark."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from clinode.cohort.cohort import Cohort
from clinode.cohort.follow_up import Intervals
from clinode.cohort.task import InstanceTable, Task, instance_table
from clinode.errors import ArgumentError, SchemaError

ROWS_NAMED = 5


@dataclass(frozen=True)
class Survive(Task):
    """When an event comes, and of which cause, after each landmark.

    The columns are of the outcomes, in hours since the subject's time zero, one row a subject
    (or one a subject and prediction time). An instance is a subject at a landmark, and knows what
    was observed at or before it. Who had left by then is no instance to learn from or to be
    measured by; follow-up counts from the landmark on.

    Args:
        time: Column with the end of follow-up, by the event or without it.
        event: Column with 1 where the event came then, 0 where the subject was lost from sight
            without it (right censoring).
        cause: Column with the cause of the event, 1, 2, ...; it counts where there was an event.
            It may be the column of the event: 0 for censored, else the cause. None: one cause.
        entry: Column with the time from which the subject was watched (left truncation): who has
            the event before it is not in the data. None, or an empty cell: from the start.
        landmark: Prediction time or times, hours, inclusive. None: the outcomes'
            `prediction_time`, and where there is none, hour 0.

    Raises:
        ArgumentError: A name is empty or stands for two things, or a landmark is no finite number.
    """

    time: str
    event: str
    cause: str | None = None
    entry: str | None = None
    landmark: float | int | tuple[float | int, ...] | None = None

    def __post_init__(self):
        names = [n for n in (self.time, self.event, self.cause, self.entry) if n is not None]
        if not all(names):
            raise ArgumentError("the name of a column is empty", fix="name an outcome column")
        if self.cause == self.event:
            names.remove(self.event)
        if len(set(names)) < len(names):
            raise ArgumentError(
                "one column stands for two things",
                fix="only event and cause may be the same column",
            )
        if self.landmark is None:
            return
        given = self.landmark if isinstance(self.landmark, tuple) else (self.landmark,)
        landmarks = tuple(sorted({float(hour) for hour in given}))
        if len(landmarks) == 0 or not np.isfinite(landmarks).all():
            raise ArgumentError(f"landmarks must be finite numbers of hours, got {self.landmark}")
        only = landmarks[0] if len(landmarks) == 1 else landmarks
        object.__setattr__(self, "landmark", only)

    @property
    def landmarks(self) -> tuple[float, ...]:
        """Hours, ascending; none where the outcomes name the prediction times."""
        if self.landmark is None:
            return ()
        return tuple(self.landmark) if isinstance(self.landmark, tuple) else (self.landmark,)

    def default_time(self, last_time: float) -> float:
        return self.landmarks[-1] if self.landmark is not None else 0.0

    def instances(self, cohort: Cohort, default_time: float) -> InstanceTable:
        """Every subject at every landmark, whether or not it is still there: that is an outcome.

        Raises:
            SchemaError: A subject has several rows of outcomes, though the task names landmarks.
        """
        if self.landmark is None:
            return instance_table(cohort, default_time)
        subject = cohort.outcomes["subject_id"]
        repeated = np.flatnonzero(subject.duplicated().to_numpy())
        if len(repeated):
            raise SchemaError(
                f"{_rows(repeated)} of the outcomes repeat a subject, and the task names landmarks",
                where="outcomes",
                fix="keep one row a subject, or leave landmark out to take their prediction_time",
            )
        row = pd.Index(subject).get_indexer(pd.Index(cohort.subjects)).astype(np.int64)
        n = len(self.landmarks)
        return InstanceTable(
            subject_index=np.repeat(np.arange(len(row)), n),
            prediction_time=np.tile(np.array(self.landmarks), len(row)),
            outcome_row=np.repeat(row, n),
        )

    def targets(
        self, cohort: Cohort, outcome_row: Integer[np.ndarray, " instance"]
    ) -> Float[np.ndarray, "instance three"]:
        """Hours of entry and end since the subject's time zero, and the cause, 0 without an event.

        NaN where the outcome is not known; the entry is -inf where none is named.

        Raises:
            SchemaError: A column is missing; a time is negative or lies before the entry; an event
                is known without its time, or the other way round; a code is out of range.
        """
        outcomes = cohort.outcomes
        columns = {name: _column(outcomes, name) for name in self._names}
        end, event = columns[self.time], columns[self.event]
        _refuse(end < 0, self.time, "a negative time", "count from the subject's time zero")
        if self.cause == self.event:
            cause = event
            _refuse_codes(event, ~np.isnan(event), self.event, lowest=0)
        else:
            _refuse(
                ~np.isnan(event) & ~np.isin(event, (0.0, 1.0)),
                self.event,
                "something else than 0 and 1",
                "name the column in cause= too if it tells causes",
            )
            cause = event
            if self.cause is not None:
                kind = columns[self.cause]
                _refuse(
                    (event == 1) & np.isnan(kind), self.cause, "an event without a cause", "name it"
                )
                _refuse_codes(kind, event == 1, self.cause, lowest=1)
                cause = np.where(event == 1, kind, event)
        half = np.isnan(end) != np.isnan(event)
        _refuse(
            half, self.time, f"only one of {self.time!r} and {self.event!r}", "give both, or none"
        )
        entry = np.full(len(end), -np.inf)
        if self.entry is not None:
            entry = np.where(np.isnan(columns[self.entry]), -np.inf, columns[self.entry])
            _refuse(
                columns[self.entry] < 0,
                self.entry,
                "a negative time",
                "leave the cell empty where a subject was watched from the start",
            )
            _refuse(
                end < entry,
                self.time,
                f"a time before that of {self.entry!r}",
                "who left before being watched is not in the data: leave such subjects out",
            )
        entry = np.where(np.isnan(end), np.nan, entry)
        padded = np.concatenate([np.stack([entry, end, cause], axis=1), np.full((1, 3), np.nan)])
        return padded[outcome_row]  # row -1 is the row of NaN

    def seen_from(
        self,
        target: Float[np.ndarray, "instance three"],
        prediction_time: Float[np.ndarray, " instance"],
    ) -> Float[np.ndarray, "instance three"]:
        """The targets in hours after the prediction time; NaN where nothing is left to be watched.

        That is where the subject had left by then, or at the very time of its entry.
        """
        entry = np.maximum(target[:, 0] - prediction_time, 0.0)
        end = target[:, 1] - prediction_time
        seen = np.stack([entry, end, target[:, 2]], axis=1)
        seen[~(end > entry)] = np.nan
        return seen

    def is_trainable(self, target: Float[np.ndarray, "instance three"]) -> np.ndarray:
        return ~np.isnan(target[:, 1])

    def intervals(self, cohort: Cohort, table: InstanceTable) -> Intervals:
        """Intervals of follow-up at quantiles of the event times of a training part.

        Raises:
            SchemaError: There is no event, or none of a cause.
        """
        target = self.seen_from(self.targets(cohort, table.outcome_row), table.prediction_time)
        has_event = target[:, 2] > 0
        return Intervals.cut(target[has_event, 1], target[has_event, 2].astype(np.int64))

    def check_causes(self, target: np.ndarray, intervals: Intervals) -> None:
        """Refuse causes that the training part never met.

        Raises:
            SchemaError: Says how many records have them.
        """
        n = int((target[:, 2] > intervals.n_causes).sum())
        if n:
            raise SchemaError(
                f"column {self.cause!r}: {n} records have a cause above {intervals.n_causes}, the "
                "highest of the training part",
                where="outcomes",
                fix="train with an event of every cause, or count rare causes as one",
            )

    def batch_fields(self, target: Float[np.ndarray, "batch three"]) -> dict[str, Tensor]:
        """`entry`, `event` (hours after the prediction time, float64) and `cause` of a batch."""
        cause = np.nan_to_num(target[:, 2], nan=-1.0).astype(np.int64)
        return {
            "entry": torch.from_numpy(target[:, 0].copy()),
            "event": torch.from_numpy(target[:, 1].copy()),
            "cause": torch.from_numpy(cause),
        }

    def to_dict(self) -> dict[str, Any]:
        fields = asdict(self)
        if isinstance(self.landmark, tuple):
            fields["landmark"] = list(self.landmark)
        return {"kind": "survive", **fields}

    @property
    def _names(self) -> tuple[str, ...]:
        named = (self.time, self.event, self.cause, self.entry)
        return tuple(dict.fromkeys(name for name in named if name is not None))


def _column(outcomes: pd.DataFrame, name: str) -> Float[np.ndarray, " row"]:
    columns = list(outcomes.columns)
    if name not in columns:
        raise SchemaError(
            f"no outcome column {name!r}; there are: {', '.join(map(str, columns[1:]))}",
            where="outcomes",
            fix="name one of these columns in the task or read the cohort with its outcomes",
        )
    try:
        return outcomes[name].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise SchemaError(
            f"column {name!r} holds texts, expected numbers", where="outcomes"
        ) from None


def _refuse_codes(
    code: Float[np.ndarray, " row"], counts: Bool[np.ndarray, " row"], name: str, lowest: int
) -> None:
    wrong = counts & ((code < lowest) | (code != np.floor(code)))
    _refuse(
        wrong,
        name,
        f"a code that is no whole number from {lowest} on",
        "number the causes 1, 2, ...; 0 stands for no event",
    )


def _refuse(wrong: Bool[np.ndarray, " row"], name: str, problem: str, fix: str) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        raise SchemaError(f"column {name!r}: {problem} in {_rows(rows)}", where="outcomes", fix=fix)


def _rows(position: Integer[np.ndarray, " found"]) -> str:
    """How many rows, and the first of them, counted from 1 in the order of `Cohort.outcomes`."""
    shown = ", ".join(f"{row + 1:,}" for row in position[:ROWS_NAMED])
    more = " ..." if len(position) > ROWS_NAMED else ""
    plural = "row" if len(position) == 1 else "rows"
    return f"{len(position):,} {plural} ({shown}{more})"
