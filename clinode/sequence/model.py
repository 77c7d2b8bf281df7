"""The face of every sequence model: what `fit`, `explain` and the engine of systems may ask of one.

A model is a configuration until `build` fixes its sizes; hyper-parameters are the arguments of its
constructor and nothing else. Its families differ in how they run through a record; pooling, the
statistics tower and the heads are shared (`heads.py`).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from clinode.cohort import IrregularBatch, PackedRecords, Preprocessor, Task
from clinode.errors import ArgumentError
from clinode.system import System


@dataclass(frozen=True, eq=False)
class Readout:
    """What a model says about a batch.

    Args:
        value: Logits (batch, 1), or forecast means (batch, query, variable) on the standardised scale.
        log_variance: Of a forecast, the shape of `value`.
        towers: The logits of each tower, each (batch, 1); `value` is their mean.
        auxiliary: Predictions of the auxiliary outcomes by each tower, (batch, auxiliary).
        next_observation: Each row's values as expected just before it, standardised.
    """

    value: Float[Tensor, "batch *prediction"]
    next_observation: Float[Tensor, "row variable"]
    log_variance: Float[Tensor, "batch *prediction"] | None = None
    towers: tuple[Float[Tensor, "batch 1"], ...] = ()
    auxiliary: tuple[Float[Tensor, "batch auxiliary"], ...] = ()


class SequenceModel(nn.Module, ABC):
    """A continuous-time model of irregular records.

    `build` returns the model that can be trained; asking more of an unbuilt one raises ArgumentError.
    `forward` draws no random number: dropout and augmentation live in `loss`, fed by its generator,
    so `train()` and `eval()` change nothing. A prediction of one subject never depends on the others
    in its batch, and is differentiable in `batch.value`, `batch.static` and `batch.treatments.value`.
    """

    name: ClassVar[str]
    schema: Preprocessor
    task: Task

    @property
    def is_built(self) -> bool:
        """Whether sizes are fixed and parameters exist."""
        return hasattr(self, "schema")

    def config(self) -> dict[str, Any]:
        """Name and hyper-parameters, JSON-ready; `clinode.sequence.model_from_config` reads it back."""
        hyperparameters = list(inspect.signature(type(self)).parameters)
        return {"name": self.name, **{key: getattr(self, key) for key in hyperparameters}}

    def build(self, schema: Preprocessor, task: Task, generator: torch.Generator) -> Self:
        """A copy with its sizes fixed and its parameters drawn from `generator`, in float32.

        Raises:
            ArgumentError: The task is of a kind that this family does not know.
        """
        hyperparameters = self.config()
        del hyperparameters["name"]
        built = type(self)(**hyperparameters)
        built.schema, built.task = schema, task
        built._construct(generator)
        return built

    def prepare(self, records: PackedRecords) -> None:
        """Set the constants that come from the training part; called once, before the first step.

        These are the moments of the statistics tower's inputs, the counts that weigh the forecast
        loss, and the output's starting level. They are buffers and travel with the state dict.
        """
        self._require_built()
        for part in self.modules():
            if isinstance(part, Prepared):
                part.prepare(records)

    def finish(self, records: PackedRecords) -> None:
        """Store what is known only after training; called once, on the training part.

        This is the range of each latent state (0.5-99.5 % over all rows), a pair of buffers from which
        `latent_system` takes its ranges.
        """
        self._require_built()
        low, high = _state_ranges(self, records)
        self.latent_low.copy_(low)
        self.latent_high.copy_(high)

    @abstractmethod
    def _construct(self, generator: torch.Generator) -> None:
        """Make parameters and buffers for `self.schema` and `self.task`."""

    @abstractmethod
    def forward(self, batch: IrregularBatch) -> Readout:
        """Predict from what lies at or before each prediction time; deterministic."""

    @abstractmethod
    def loss(self, batch: IrregularBatch, generator: torch.Generator | None) -> Float[Tensor, ""]:
        """Mean training loss of a batch that carries targets.

        Args:
            batch: With `target` and `target_mask`.
            generator: Feeds dropout and augmentation; None leaves both out (a validation loss).
        """

    @abstractmethod
    def latent(
        self, batch: IrregularBatch, query_time: Float[Tensor, "batch query"]
    ) -> Float[Tensor, "batch query latent"]:
        """Latent state at asked times (hours, float64) from what lies at or before each.

        Between and after rows the state only flows, with the treatments given then; a rate still
        running at the prediction time is held.
        """

    @property
    @abstractmethod
    def latent_system(self) -> System:
        """The flow between observations, in float64, with the decoder as its output map.

        States z1.. have unit "1"; inputs are the treatments and outputs the measured variables, both
        in original units; time runs in hours.

        Raises:
            ArgumentError: The family has no field; says why.
        """

    latent_low: Tensor
    latent_high: Tensor

    def _require_built(self) -> None:
        if not self.is_built:
            raise ArgumentError(
                f"{type(self).__name__} has no sizes yet", fix="call build(schema, task, generator)"
            )


class Prepared(nn.Module, ABC):
    """A part of a model with constants that come from the training part."""

    @abstractmethod
    def prepare(self, records: PackedRecords) -> None:
        """Set the buffers from the training part."""


def in_batches(
    records: PackedRecords, size: int = 256, dtype: torch.dtype = torch.float32
) -> Iterator[IrregularBatch]:
    """All instances once, in batches of records of similar length."""
    order = np.argsort(-records.lengths, kind="stable")
    for start in range(0, len(order), size):
        yield records.batch(order[start : start + size], dtype=dtype)


def _state_ranges(model: SequenceModel, records: PackedRecords) -> tuple[Tensor, Tensor]:
    at_prediction = []
    with torch.no_grad():
        for batch in in_batches(records):
            asked = batch.prediction_time.unsqueeze(1) - batch.window * torch.linspace(
                0, 1, 5, dtype=torch.float64
            )
            at_prediction.append(model.latent(batch, asked).flatten(0, 1))
    states = torch.cat(at_prediction).double().numpy(force=True)
    low, high = torch.from_numpy(np.quantile(states, (0.005, 0.995), axis=0))
    return low, torch.maximum(high, low + 1e-6)
