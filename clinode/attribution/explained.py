"""Which number of a model is explained, by task: the table of this room."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.cohort import Classify, Preprocessor, Survive, Task, cumulative_incidence
from clinode.errors import ArgumentError
from clinode.sequence import Readout


@dataclass(frozen=True)
class Explained:
    """One number of each record that attributions add up to.

    Args:
        name: Of the outcome it speaks of.
        read: Takes it from a readout, (batch,).
    """

    name: str
    read: Callable[[Readout], Float[Tensor, " batch"]]


def _logit(task: Classify, schema: Preprocessor) -> Explained:
    """The log odds of the first label."""
    return Explained(task.labels[0], lambda readout: readout.value[:, 0])


def _incidence(task: Survive, schema: Preprocessor) -> Explained:
    """The log odds of an event of the first cause by the middle horizon of the schema.

    The task's own name of the event stands for it.
    """
    intervals = schema.intervals
    if intervals is None:
        raise ArgumentError("the schema was fitted for a task without follow-up")
    hours = torch.tensor([intervals.horizon], dtype=torch.float64)

    def read(readout: Readout) -> Float[Tensor, " batch"]:
        odds = readout.value
        found = cumulative_incidence(odds, intervals, hours.to(odds.device))[:, 0, 0]
        return torch.logit(found, eps=torch.finfo(odds.dtype).eps)

    return Explained(task.event, read)


EXPLAINED: dict[type[Task], Callable[..., Explained]] = {Classify: _logit, Survive: _incidence}


def explained_of(task: Task, schema: Preprocessor) -> Explained:
    """What is explained of a task.

    Raises:
        ArgumentError: The task has no one number a record.
    """
    if task.parts:
        raise ArgumentError(
            "explain attributes one number, and this run has several tasks",
            fix='explain one of them: run.of("classify")',
        )
    if type(task) not in EXPLAINED:
        raise ArgumentError(
            "explain attributes a logit, and this run answers with values",
            fix="use clinode.attribution.attribute on one forecast value",
        )
    return EXPLAINED[type(task)](task, schema)
