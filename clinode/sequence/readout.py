"""What passes between the parts of a sequence model, and where their fixed constants come from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from clinode.cohort import IrregularBatch, PackedRecords


@dataclass(frozen=True, eq=False)
class Encoding:
    """What a family says about the rows of a batch.

    Args:
        is_observed: Rows with an observation that was read.
        features: Of each row, after its observations.
        at_prediction: The features carried to the prediction time without further observations.
        at_query: The features carried to each query time of the batch; none without queries.
        next_observation: Values of each row as expected just before it.
        after, before: What the family keeps after the observations of each row, and its own states
            just before them.
        behind: What the second run, backwards from the prediction time, says of the turned batch;
            None where the task reads nothing behind its queries.
    """

    is_observed: Bool[Tensor, " row"]
    features: Float[Tensor, "row feature"]
    at_prediction: Float[Tensor, "batch feature"]
    at_query: Float[Tensor, "batch query feature"]
    next_observation: Float[Tensor, "row variable"]
    after: Float[Tensor, "row kept"]
    before: Float[Tensor, "row latent"]
    behind: "Encoding | None" = None


@dataclass(frozen=True, eq=False)
class Readout:
    """What a model says about a batch.

    Args:
        value: Logits (batch, label), forecast means (batch, query, variable), standardised, or log
            odds of survival (batch, interval, cause).
        next_observation: Each row's values as expected just before it, standardised.
        log_variance: Of a forecast, the shape of `value`.
        towers: Logits of the sequence tower and of each member of the statistics towers.
        auxiliary: Their predictions of the auxiliary outcomes.
        parts: Of several tasks, what is said of each; `value` is that of the first.
    """

    value: Float[Tensor, "batch ..."]
    next_observation: Float[Tensor, "row variable"]
    log_variance: Float[Tensor, "batch ..."] | None = None
    towers: Float[Tensor, "tower batch label"] | None = None
    auxiliary: Float[Tensor, "tower batch auxiliary"] | None = None
    parts: "tuple[Readout, ...]" = ()


class Prepared(nn.Module, ABC):
    """A part of a model with constants that come from the training part."""

    @abstractmethod
    def prepare(self, records: PackedRecords) -> None:
        """Set the buffers from the training part."""


@dataclass(frozen=True, kw_only=True)
class HeadSizes:
    """Sizes and dropout of a head; what they mean is said by `SequenceModel`.

    Args:
        n_features: Features of a row.
    """

    n_features: int
    dropout: float
    statistics_dropout: float
    statistics_members: int
    statistics_hidden: int
    static_code: int
    head_hidden: int


class Head(Prepared):
    """What one kind of task asks of a model: its readout of an encoding, and the losses of that.

    Heads are made as `Head(schema, task, sizes, generator)`; `clinode.sequence.task_heads` says
    which belongs to which task.
    """

    @abstractmethod
    def forward(
        self,
        batch: IrregularBatch,
        encoding: Encoding,
        generator: torch.Generator | None,
        unseen: Bool[Tensor, "batch variable"] | None = None,
    ) -> Readout:
        """What is said of the batch.

        Args:
            batch: With every observation, for the statistics.
            encoding: Of the batch, or of what augmentation left of it.
            generator: Feeds dropout; None leaves it out.
            unseen: Variables that the statistics tower must not see.
        """

    @abstractmethod
    def counts(self, batch: IrregularBatch) -> Float[Tensor, " part"]:
        """Over how many targets of a batch each mean of its loss is taken."""

    @abstractmethod
    def loss(
        self,
        batch: IrregularBatch,
        readout: Readout,
        auxiliary_weight: float,
        counts: Float[Tensor, " part"],
    ) -> Float[Tensor, ""]:
        """What is trained: the mean loss of all that the head says of the batch's targets.

        Args:
            batch: With targets.
            readout: Of it.
            auxiliary_weight: Of auxiliary outcomes.
            counts: Over how many targets each mean is taken, as `counts` says of the batch; where
                the batch is a part of a step, of all its parts, so that their losses add up.
        """

    @abstractmethod
    def prediction_loss(self, batch: IrregularBatch, readout: Readout) -> tuple[float, int]:
        """What an epoch is selected by: sum over the known targets of the prediction, their number.

        In float64, of the prediction alone: towers and auxiliary outcomes are not selected for.
        """

    @property
    def heads(self) -> "tuple[Head, ...]":
        """Of several tasks, the head of each."""
        return ()

    def prediction_losses(
        self, batch: IrregularBatch, readout: Readout
    ) -> tuple[tuple[float, float, int], ...]:
        """Weight, sum and number of `prediction_loss`, one a task."""
        return ((1.0, *self.prediction_loss(batch, readout)),)

    def finish(self, records: PackedRecords, answer: Callable[[IrregularBatch], Readout]) -> None:
        """Set what is known only after training; by default nothing.

        Args:
            records: The training part.
            answer: The trained model, without dropout, for batches on the CPU.
        """
        return


def in_batches(
    records: PackedRecords, size: int = 256, dtype: torch.dtype = torch.float32
) -> Iterator[IrregularBatch]:
    """All instances once, in batches of records of similar length."""
    order = np.argsort(-records.lengths, kind="stable")
    for start in range(0, len(order), size):
        yield records.batch(order[start : start + size], dtype=dtype)
