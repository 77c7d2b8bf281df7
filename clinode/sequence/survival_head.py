"""The readout of survival: hazards of each cause in each interval of follow-up."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from clinode.cohort import (
    Intervals,
    IrregularBatch,
    PackedRecords,
    Preprocessor,
    Survive,
    log_likelihood,
)
from clinode.errors import ArgumentError
from clinode.sequence.heads import Committee, Pooling
from clinode.sequence.layers import dropout, linear
from clinode.sequence.readout import Encoding, Head, HeadSizes, Readout, in_batches
from clinode.sequence.summaries import StatisticsTower, static_inputs, summary_columns

N_SHAPES = 3  # level, slope and bend over the follow-up


class SurvivalHead(Head):
    """Log odds of each cause against coming through each interval, by two fused towers.

    They are the hazards of the training part, changed by a level, a slope and a bend over the
    follow-up for each cause: a free number an interval would be more than few events can teach.
    Level alone is a proportional hazard. A sequence and a statistics tower each give these numbers
    and have a loss of their own; the output is their mean, and the prediction time adds its own.

    After training each cause is shifted to the training part's level, as dropout moves it.

    Args:
        schema: Of the training part, with its intervals.
        task: What is asked.
        sizes: Of the towers.
        generator: Draws the weights.

    Raises:
        ArgumentError: The schema has no intervals.
    """

    base: Tensor
    shape: Tensor
    level: Tensor

    def __init__(
        self, schema: Preprocessor, task: Survive, sizes: HeadSizes, generator: torch.Generator
    ):
        super().__init__()
        if schema.intervals is None:
            raise ArgumentError("the schema was fitted for a task without follow-up")
        self.intervals: Intervals = schema.intervals
        self.task, self.dropout = task, sizes.dropout
        n_intervals, n_causes = len(self.intervals.ends), self.intervals.n_causes
        place = torch.linspace(-1, 1, n_intervals) if n_intervals > 1 else torch.zeros(1)
        shapes = torch.stack([torch.ones_like(place), place, 1.5 * place**2 - 0.5])
        self.register_buffer("shape", shapes, persistent=False)  # Legendre polynomials
        self.register_buffer("base", torch.zeros(n_intervals, n_causes))
        self.register_buffer("level", torch.zeros(n_causes))
        n_out = N_SHAPES * n_causes
        self.pooling = Pooling(sizes.n_features, generator)
        self.static = linear(2 * len(schema.statics), sizes.static_code, generator)
        n_in = 3 * sizes.n_features + sizes.static_code
        self.hidden = linear(n_in, sizes.head_hidden, generator)
        self.out = linear(sizes.head_hidden, n_out, generator, bias=0.0)
        self.landmark = linear(1, n_out, generator, bias=0.0)
        self.statistics = Committee(
            StatisticsTower(
                schema,
                members=sizes.statistics_members,
                dropout=sizes.statistics_dropout,
                hidden=sizes.statistics_hidden,
                code=sizes.head_hidden,
                static_code=sizes.static_code,
                generator=generator,
            ),
            n_out,
            0,
            generator,
        )
        with torch.no_grad():  # start near the hazards of the training part
            self.out.weight.mul_(0.1)
            self.landmark.weight.zero_()
            self.statistics.out.weight.mul_(0.1)

    def prepare(self, records: PackedRecords) -> None:
        """Set the hazards of the training part: events over those who might have had one."""
        if records.target is None:
            return
        entry, event, cause = _followed(records.target)
        share = self.intervals.share_until
        watched = (share(event) - share(entry)).clamp(min=0)
        held = self.intervals.interval_of(event).clamp(max=len(self.intervals.ends) - 1)
        counts = torch.zeros(self.base.shape, dtype=torch.float64)
        has_event = (cause > 0) & (event <= self.intervals.ends[-1])
        counts.index_put_(
            (held[has_event], cause[has_event] - 1),
            torch.ones(int(has_event.sum()), dtype=torch.float64),
            accumulate=True,
        )
        watched[has_event, held[has_event]] = 0.0
        n_causes = self.intervals.n_causes
        odds = (counts + 0.5 / n_causes) / (watched.sum(dim=0).unsqueeze(1) + 0.5)
        self.base.copy_(torch.log(odds))

    def forward(
        self,
        batch: IrregularBatch,
        encoding: Encoding,
        generator: torch.Generator | None,
        unseen: Bool[Tensor, "batch variable"] | None = None,
    ) -> Readout:
        """Log odds (batch, interval, cause), those of the towers with the last two axes as one."""
        static = functional.silu(self.static(static_inputs(batch)))
        pooled = torch.cat([self.pooling(batch, encoding), static], dim=1)
        hidden = functional.silu(self.hidden(dropout(pooled, self.dropout, generator)))
        sequence = self.out(dropout(hidden, self.dropout, generator))
        statistics = self.statistics(batch, summary_columns(batch), generator, unseen)
        place = (batch.prediction_time / batch.window).to(batch.dtype).unsqueeze(1)
        at_landmark = self.landmark(place)
        mean = (sequence + statistics.mean(dim=0)) / 2 + at_landmark
        towers = torch.cat([sequence.unsqueeze(0), statistics]) + at_landmark
        return Readout(
            value=self._odds(mean) + self.level,
            towers=self._odds(towers).flatten(2),
            next_observation=encoding.next_observation,
        )

    def counts(self, batch: IrregularBatch) -> Float[Tensor, " part"]:
        """Records that were followed."""
        if batch.cause is None:
            raise ArgumentError("a loss needs targets", fix="build the records with_targets=True")
        return (batch.cause >= 0).sum().to(batch.dtype).unsqueeze(0)

    def loss(
        self,
        batch: IrregularBatch,
        readout: Readout,
        auxiliary_weight: float,
        counts: Float[Tensor, " part"],
    ) -> Float[Tensor, ""]:
        """Minus the mean log likelihood of each tower; the committee's is that of its members."""
        if readout.towers is None:
            raise ArgumentError("this readout is not that of a survival task")
        odds = readout.towers.unflatten(2, tuple(self.base.shape))
        held, _ = self._log_likelihood(batch, odds)
        by_tower = -held.sum(dim=1) / counts[0].clamp(min=1)
        return by_tower[0] + by_tower[1:].mean()

    def prediction_loss(self, batch: IrregularBatch, readout: Readout) -> tuple[float, int]:
        """Minus the log likelihood of the records that were followed."""
        held, known = self._log_likelihood(batch, readout.value.double())
        return -float(held.sum()), int(known.sum())

    def finish(self, records: PackedRecords, answer: Callable[[IrregularBatch], Readout]) -> None:
        """Shift each cause to where the training part is likeliest.

        One number a cause: Newton's steps on a concave function of few variables.
        """
        if records.target is None:
            return
        with torch.no_grad():
            batches = list(in_batches(records, dtype=self.level.dtype))
            odds = torch.cat([answer(batch).value.cpu().double() for batch in batches])
        order = torch.cat([batch.subject for batch in batches]).numpy()
        target = records.target[order]
        known = torch.from_numpy(~np.isnan(target[:, 1]))
        followed, odds = _followed(target), odds[known]

        def loss(shift: Tensor) -> Tensor:
            return -log_likelihood(odds + shift, self.intervals, *followed).mean()

        shift = torch.zeros(self.intervals.n_causes, dtype=torch.float64)
        for _ in range(10):
            slope = torch.func.grad(loss)(shift)
            bend = torch.func.hessian(loss)(shift)
            shift = shift - torch.linalg.solve(bend, slope).clamp(-1, 1)
        self.level += shift.to(self.level)

    def _odds(self, shapes: Float[Tensor, "*tower batch out"]) -> Tensor:
        by_cause = shapes.unflatten(-1, (self.intervals.n_causes, N_SHAPES))
        return self.base + (by_cause @ self.shape).transpose(-1, -2)

    def _log_likelihood(self, batch: IrregularBatch, odds: Tensor) -> tuple[Tensor, Tensor]:
        """Of each record, 0 where it was not followed, and who was."""
        if batch.entry is None or batch.event is None or batch.cause is None:
            raise ArgumentError("a loss needs targets", fix="build the records with_targets=True")
        known = batch.cause >= 0
        entry, event = (torch.nan_to_num(hours) for hours in (batch.entry, batch.event))
        held = log_likelihood(odds, self.intervals, entry, event, batch.cause)
        return torch.where(known, held, 0.0), known


def _followed(target: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Entry, end and cause of those who were followed."""
    known = target[~np.isnan(target[:, 1])]
    entry, event, cause = (torch.from_numpy(column.copy()) for column in known.T)
    return entry, event, cause.long()
