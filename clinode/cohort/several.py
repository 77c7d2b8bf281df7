"""Several tasks of one latent trajectory."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from clinode.cohort.task import Task
from clinode.errors import ArgumentError


@dataclass(frozen=True)
class Several(Task):
    """Different questions to one model: it runs through a record once, and has a head for each.

    All of them are asked at one prediction time: that of the outcomes, else the `at` of the tasks
    (which must agree), else the earliest of their defaults. Where one of them asks for values, none
    takes logarithms. Several outcomes are no several tasks: they are labels of one `Classify`.

    Args:
        tasks: Two or more, each of another kind; none that hides observations, which the others
            would read.
        weights: Of their losses, in the same order; 1 each by default.
    """

    tasks: tuple[Task, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self):
        if len(self.tasks) < 2:
            raise ArgumentError("several tasks are at least two", fix="give the task itself")
        for kind in self.kinds:
            if self.kinds.count(kind) > 1:
                raise ArgumentError(
                    f"two tasks are of the kind {kind!r}",
                    fix="give several labels as one Classify((...)), and the longer horizon",
                )
        if any(isinstance(task, Several) or task.reads_behind for task in self.tasks):
            raise ArgumentError(
                "an interpolation hides what the other tasks read, and Several is no single task",
                fix="make a run of its own",
            )
        if any(getattr(task, "landmark", None) is not None for task in self.tasks):
            raise ArgumentError(
                "the landmark of a survival task would not be that of the other tasks",
                fix="leave it out and let the outcomes name the prediction times",
            )
        if len(self._at) > 1:
            raise ArgumentError(
                "the tasks have different prediction times", fix="give them one, or none"
            )
        weights = self.weights or (1.0,) * len(self.tasks)
        if len(weights) != len(self.tasks) or not all(0 < w < np.inf for w in weights):
            raise ArgumentError(f"expected {len(self.tasks)} positive weights, one a task")
        object.__setattr__(self, "weights", tuple(float(w) for w in weights))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The word of each task: how it is called in tables and results."""
        return tuple(task.to_dict()["kind"] for task in self.tasks)

    @property
    def _at(self) -> set[float]:
        return {at for task in self.tasks if (at := task.to_dict().get("at")) is not None}

    @property
    def reach(self) -> float:
        return max(task.reach for task in self.tasks)

    @property
    def asks_values(self) -> bool:
        return any(task.asks_values for task in self.tasks)

    @property
    def parts(self) -> "tuple[Task, ...]":
        return self.tasks

    def default_time(self, last_time: float) -> float:
        return min(self._at or {task.default_time(last_time) for task in self.tasks})

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": "several",
            "tasks": [task.to_dict() for task in self.tasks],
            "weights": list(self.weights),
        }
