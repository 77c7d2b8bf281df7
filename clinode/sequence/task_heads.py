"""Which head answers which task, and what its sizes of None stand for: the table of this room."""

from typing import Any

import torch

from clinode.cohort import Classify, Forecast, Interpolate, Preprocessor, Several, Survive, Task
from clinode.errors import ArgumentError
from clinode.sequence.forecast_head import ForecastHead
from clinode.sequence.heads import ClassificationHead
from clinode.sequence.interpolation_head import InterpolationHead
from clinode.sequence.readout import Head, HeadSizes
from clinode.sequence.several_heads import SeveralHeads
from clinode.sequence.survival_head import SurvivalHead

HEADS: dict[type[Task], Any] = {
    Classify: ClassificationHead,
    Forecast: ForecastHead,
    Interpolate: InterpolationHead,
    Survive: SurvivalHead,
}
RECOMMENDED: dict[type[Task], dict[str, Any]] = {  # found on PhysioNet-2012 set a
    Classify: {
        "dropout": 0.4,
        "statistics_dropout": 0.5,
        "statistics_members": 4,
        "statistics_hidden": 32,
        "head_hidden": 64,
    },
    Forecast: {
        "dropout": 0.4,
        "statistics_dropout": 0.3,
        "statistics_members": 1,
        "statistics_hidden": 128,
        "head_hidden": 128,
    },
    Interpolate: {
        "dropout": 0.3,
        "statistics_dropout": 0.3,
        "statistics_members": 1,
        "statistics_hidden": 64,
        "head_hidden": 128,
    },
    Survive: {  # those of a risk: an incidence is one too, and events are as few
        "dropout": 0.4,
        "statistics_dropout": 0.5,
        "statistics_members": 4,
        "statistics_hidden": 32,
        "head_hidden": 64,
    },
}
OPEN_SIZES = tuple(RECOMMENDED[Classify])  # hyper-parameters that may be None


def build_head(
    schema: Preprocessor,
    task: Task,
    chosen: dict[str, Any],
    n_features: int,
    generator: torch.Generator,
) -> Head:
    """The head of a task.

    Args:
        schema: Of the training part.
        task: What is asked.
        chosen: Hyper-parameters of the model; a None of `OPEN_SIZES` takes what is recommended.
        n_features: Features of a row.
        generator: Draws the weights.

    Raises:
        ArgumentError: No head answers such a task.
    """
    if isinstance(task, Several):
        heads = [build_head(schema, part, chosen, n_features, generator) for part in task.tasks]
        return SeveralHeads(heads, task.weights)
    if type(task) not in HEADS:
        raise ArgumentError(f"no head answers a task of the kind {type(task).__name__}")
    sizes = {
        name: recommended if chosen[name] is None else chosen[name]
        for name, recommended in RECOMMENDED[type(task)].items()
    }
    shapes = HeadSizes(n_features=n_features, static_code=chosen["static_code"], **sizes)
    return HEADS[type(task)](schema, task, shapes, generator)
