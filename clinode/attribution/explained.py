"""Which number of a model is explained, by task: the table of this room."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from clinode.cohort import Classify, Task
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


def _logit(task: Classify) -> Explained:
    """The log odds of the first label."""
    return Explained(task.labels[0], lambda readout: readout.value[:, 0])


EXPLAINED: dict[type[Task], Callable[..., Explained]] = {Classify: _logit}


def explained_of(task: Task) -> Explained:
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
            "explain attributes a logit, and this run forecasts values",
            fix="use clinode.attribution.attribute on one forecast value",
        )
    return EXPLAINED[type(task)](task)
