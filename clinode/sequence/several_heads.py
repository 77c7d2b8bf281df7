"""The heads of several tasks side by side, on one encoding."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from clinode.cohort import IrregularBatch, PackedRecords
from clinode.errors import ArgumentError
from clinode.sequence.readout import Encoding, Head, Readout


class SeveralHeads(Head):
    """A head a task; the loss is the weighted sum of theirs.

    Args:
        heads: In the order of the tasks.
        weights: Of their losses.
    """

    def __init__(self, heads: Sequence[Head], weights: tuple[float, ...]):
        super().__init__()
        self.own = nn.ModuleList(heads)
        self.weights = weights

    @property
    def heads(self) -> tuple[Head, ...]:
        """In the order of the tasks."""
        return tuple(cast(Head, head) for head in self.own)

    def prepare(self, records: PackedRecords) -> None:
        """Nothing: every head is prepared on the records as its task asks them."""

    def forward(
        self,
        batch: IrregularBatch,
        encoding: Encoding,
        generator: torch.Generator | None,
        unseen: Bool[Tensor, "batch variable"] | None = None,
    ) -> Readout:
        """What each head says."""
        if not batch.parts:
            raise ArgumentError(
                "a batch of one task, and a model of several", fix="ask `run.of(kind)` of it"
            )
        parts = tuple(
            head(part, encoding, generator, unseen)
            for head, part in zip(self.heads, batch.parts, strict=True)
        )
        return Readout(
            value=parts[0].value, next_observation=encoding.next_observation, parts=parts
        )

    def counts(self, batch: IrregularBatch) -> Float[Tensor, " part"]:
        """Those of each task, one after the other."""
        own = [head.counts(part) for head, part in zip(self.heads, batch.parts, strict=True)]
        return torch.cat(own)

    def loss(
        self,
        batch: IrregularBatch,
        readout: Readout,
        auxiliary_weight: float,
        counts: Float[Tensor, " part"],
    ) -> Float[Tensor, ""]:
        """Weighted sum of the losses."""
        sizes = [len(h.counts(part)) for h, part in zip(self.heads, batch.parts, strict=True)]
        losses = [
            weight * head.loss(part, said, auxiliary_weight, count)
            for (weight, head, part, said), count in zip(
                self._together(batch, readout), counts.split(sizes), strict=True
            )
        ]
        return torch.stack(losses).sum()

    def prediction_loss(self, batch: IrregularBatch, readout: Readout) -> tuple[float, int]:
        """Refused: a sum over targets of different kinds means nothing.

        Raises:
            ArgumentError: Always; see `prediction_losses`.
        """
        raise ArgumentError("several tasks have no common target")

    def prediction_losses(
        self, batch: IrregularBatch, readout: Readout
    ) -> tuple[tuple[float, float, int], ...]:
        """Weight, sum and number, one a task."""
        return tuple(
            (weight, *head.prediction_loss(part, said))
            for weight, head, part, said in self._together(batch, readout)
        )

    def _together(self, batch: IrregularBatch, readout: Readout):
        return zip(self.weights, self.heads, batch.parts, readout.parts, strict=True)
