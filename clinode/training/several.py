"""What a fit and its run do for `Several`: the work of each of its tasks, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from clinode.cohort import Cohort, PackedRecords, Several
from clinode.errors import ArgumentError, CheckpointError
from clinode.evaluation import SplitConformal
from clinode.training.task_work import (
    FittedBaselines,
    Resampling,
    Result,
    TaskWork,
    baselines_of,
)

if TYPE_CHECKING:
    from clinode.training.run import Run


@dataclass(frozen=True)
class SeveralBaselines:
    """The baselines of each task, by the word of its kind."""

    of: Mapping[str, FittedBaselines]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything there is to store; the names of a task's arrays begin with its kind."""
        return {
            f"{kind}/{name}": array
            for kind, held in self.of.items()
            for name, array in held.to_arrays().items()
        }


@dataclass(frozen=True)
class SeveralResult:
    """What was found of each task, by the word of its kind."""

    tasks: Mapping[str, Result]

    def to_dict(self) -> dict[str, Any]:
        """`tasks`, each as it is alone; for JSON."""
        return {"tasks": {kind: held.to_dict() for kind, held in self.tasks.items()}}

    def to_pandas(self) -> pd.DataFrame:
        """The tables of the tasks below each other, led by `task`."""
        parts = {kind: held.to_pandas() for kind, held in self.tasks.items()}
        return pd.concat(parts, names=["task"]).reset_index(level=0).reset_index(drop=True)


class SeveralWork(TaskWork):
    """The work of every task, on views of the runs that have its head alone.

    Args:
        task: The tasks.
        works: Of each, in their order.
        level: Of intervals; None takes what each task takes.
    """

    def __init__(self, task: Several, works: Sequence[TaskWork], level: float | None = None):
        self.task, self.level = task, level
        self.works = dict(zip(task.kinds, works, strict=True))
        self.baselines = self  # it reads what `SeveralBaselines.to_arrays` gave

    def from_arrays(self, arrays: dict[str, np.ndarray]) -> SeveralBaselines:
        """The inverse of `SeveralBaselines.to_arrays`.

        Raises:
            CheckpointError: An array belongs to none of the tasks.
        """
        parts: dict[str, dict[str, np.ndarray]] = {}
        for name, array in arrays.items():
            kind, mark, own = name.partition("/")
            if not mark or kind not in self.works:
                raise CheckpointError("the stored baselines are not those of these tasks")
            parts.setdefault(kind, {})[own] = array
        return SeveralBaselines(
            {kind: self.works[kind].baselines.from_arrays(own) for kind, own in parts.items()}
        )

    def with_level(self, level: float | None) -> "SeveralWork":
        return SeveralWork(self.task, tuple(self.works.values()), level)

    def check_targets(self, part: str, cohort: Cohort, records: PackedRecords) -> None:
        for _, work, own in self._parts(records):
            work.check_targets(part, cohort, own)

    def fit_baselines(self, cohort: Cohort, records: PackedRecords, seed: int) -> SeveralBaselines:
        return SeveralBaselines(
            {
                kind: work.fit_baselines(cohort, own, seed)
                for kind, work, own in self._parts(records)
            }
        )

    def set_aside(self, tune: Cohort) -> tuple[Cohort, Cohort | None]:
        # halves are by hash, so that two tasks would take the same one
        for work in self.works.values():
            selecting, aside = work.set_aside(tune)
            if aside is not None:
                return selecting, aside
        return tune, None

    def calibrate(
        self, members: "Sequence[Run]", tune: Cohort | None, aside: Cohort | None
    ) -> tuple[SplitConformal | None, dict[str, Any] | None]:
        for kind, work in self.works.items():
            found = work.calibrate(views(members, kind), tune, aside)
            if found != (None, None):
                return found
        return None, None

    def predict(
        self,
        members: "Sequence[Run]",
        records: PackedRecords,
        hours_after: Sequence[float] | None,
    ) -> pd.DataFrame:
        """The tables of the tasks below each other, with `task`; what a task has not is missing."""
        tables = {}
        for kind, work, own in self._parts(records):
            asked = hours_after if own.task.asks_values else None
            if own.task.asks_values:
                work = work.with_level(self.level)
            tables[kind] = work.predict(views(members, kind), own, asked)
        return _below_each_other(tables)

    def evaluate(
        self,
        members: "Sequence[Run]",
        cohort: Cohort,
        records: PackedRecords,
        units: np.ndarray,
        options: Resampling,
    ) -> tuple[SeveralResult, tuple[dict[str, Any], ...]]:
        results, groups = {}, []
        for kind, work, own in self._parts(records):
            result, rows = work.evaluate(views(members, kind), cohort, own, units, options)
            results[kind] = result
            groups += [{"task": kind, **row} for row in rows]
        return SeveralResult(results), tuple(groups)

    def observed(self, run: "Run", part: str, cohort: Cohort) -> pd.DataFrame:
        return _below_each_other(
            {kind: work.observed(run.of(kind), part, cohort) for kind, work in self.works.items()}
        )

    def _parts(self, records: PackedRecords) -> list[tuple[str, TaskWork, PackedRecords]]:
        return [
            (kind, work, own)
            for (kind, work), own in zip(self.works.items(), records.parts, strict=True)
        ]


def view(run: "Run", kind: str) -> "Run":
    """A run of several tasks as that of one of them.

    Raises:
        ArgumentError: The run has no task of this kind.
    """
    task = run.task
    if not isinstance(task, Several) or kind not in task.kinds:
        there = ", ".join(task.kinds) if isinstance(task, Several) else task.to_dict()["kind"]
        raise ArgumentError(f"the run has no task of the kind {kind!r}; it has: {there}")
    place = task.kinds.index(kind)
    return replace(
        run,
        task=task.tasks[place],
        model=run.model.with_head(run.model.head.heads[place], task.tasks[place]),
        baselines=baselines_of(run, SeveralBaselines).of[kind],
    )


def views(members: "Sequence[Run]", kind: str) -> "tuple[Run, ...]":
    """`view` of every member."""
    return tuple(view(run, kind) for run in members)


def _below_each_other(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table with a column `task` in place 2, and the probability last."""
    parts = [table.assign(task=kind) for kind, table in tables.items()]
    together = pd.concat(parts, ignore_index=True)
    columns = [c for c in together.columns if c not in ("task", "probability")]
    columns.insert(2, "task")
    last = ["probability"] if "probability" in together.columns else []
    return together.loc[:, columns + last]
