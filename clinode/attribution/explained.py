"""Which number of a model is explained, by task: the table of this room."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.cohort import Classify, Forecast, Preprocessor, Survive, Task, cumulative_incidence
from clinode.errors import ArgumentError
from clinode.sequence import Readout

LOG_ODDS = "log odds"


@dataclass(frozen=True)
class Explained:
    """One number of each record that attributions add up to.

    Args:
        name: Of the outcome it speaks of.
        scale: Its unit, in words.
        read: Takes it from a readout, (batch,), on the scale on which members of an ensemble are
            meaned.
        link: From there to the scale of the attributions.
        query_after: Hours after the prediction time at which a forecast is asked; None for none.
        hours: Of a forecast, how far ahead; of a survival, by when; None of a label.
    """

    name: str
    scale: str
    read: Callable[[Readout], Float[Tensor, " batch"]]
    link: Callable[[Tensor], Tensor] = torch.Tensor.contiguous
    query_after: float | None = None
    hours: float | None = None


def _logit(
    task: Classify, schema: Preprocessor, output: str | None, hours: float | None
) -> Explained:
    """The log odds of a label, of the first where none is named."""
    if hours is not None:
        raise ArgumentError("a label has no hours: leave them out")
    label = _position(output, task.labels, "label")
    return Explained(task.labels[label], LOG_ODDS, lambda readout: readout.value[:, label])


def _incidence(
    task: Survive, schema: Preprocessor, output: str | None, hours: float | None
) -> Explained:
    """The log odds of an event of a cause by so many hours.

    Of the first cause by the middle horizon of the schema, where nothing else is said. The task's
    own name of the event stands for a first cause; a cause is named by its number.
    """
    intervals = schema.intervals
    if intervals is None:
        raise ArgumentError("the schema was fitted for a task without follow-up")
    names = [str(number) for number in range(1, intervals.n_causes + 1)]
    cause = 0 if output == task.event else _position(output, tuple(names), "cause")
    until = intervals.horizon if hours is None else _positive(hours)
    asked = torch.tensor([until], dtype=torch.float64)

    def read(readout: Readout) -> Float[Tensor, " batch"]:
        odds = readout.value
        return cumulative_incidence(odds, intervals, asked.to(odds.device))[:, 0, cause]

    def link(incidence: Tensor) -> Tensor:
        return torch.logit(incidence, eps=torch.finfo(incidence.dtype).eps)

    name = task.event if cause == 0 else f"{task.event}, cause {names[cause]}"
    return Explained(name, LOG_ODDS, read, link, hours=until)


def _forecast(
    task: Forecast, schema: Preprocessor, output: str | None, hours: float | None
) -> Explained:
    """The mean forecast of a variable so many hours ahead, in standard deviations of training.

    Without hours, at the horizon.
    """
    if output is None:
        raise ArgumentError(
            "a forecast has a value for every variable, and one number is explained",
            fix=f'name one: output="{schema.variables[0]}"',
        )
    variable = _position(output, schema.variables, "variable")
    after = task.horizon if hours is None else _positive(hours)
    if after > task.horizon:
        raise ArgumentError(f"the forecast reaches {task.horizon:g} hours, asked {after:g}")
    scale = f"standard deviations of {output} in training"
    if schema.transform[variable] == "log":
        scale = f"standard deviations of log {output} in training"
    return Explained(
        f"{output} after {after:g} h",
        scale,
        lambda readout: readout.value[:, 0, variable],
        query_after=after,
        hours=after,
    )


EXPLAINED: dict[type[Task], Callable[..., Explained]] = {
    Classify: _logit,
    Survive: _incidence,
    Forecast: _forecast,
}


def explained_of(
    task: Task, schema: Preprocessor, output: str | None = None, hours: float | None = None
) -> Explained:
    """What is explained of a task.

    Args:
        task: Of the run.
        schema: Of its training part.
        output: Label, variable or number of the cause.
        hours: Of a forecast, how far ahead; of a survival, by when.

    Raises:
        ArgumentError: The task has no one number a record, or not this one.
    """
    if task.parts:
        raise ArgumentError(
            "explain attributes one number, and this run has several tasks",
            fix='explain one of them: run.of("classify")',
        )
    if type(task) not in EXPLAINED:
        raise ArgumentError(
            "explain attributes one number a record, and this run fills in values between others",
            fix="use clinode.attribution.attribute on one of them",
        )
    return EXPLAINED[type(task)](task, schema, output, hours)


def _position(name: str | None, names: tuple[str, ...], kind: str) -> int:
    if name is None:
        return 0
    if name not in names:
        raise ArgumentError(f"unknown {kind} {name!r}; there are: {', '.join(names)}")
    return names.index(name)


def _positive(hours: float) -> float:
    if not (np.isfinite(hours) and hours > 0):
        raise ArgumentError(f"hours must be a positive number, got {hours}")
    return float(hours)
