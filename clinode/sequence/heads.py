"""From what a family says about each row to what the task asks: pooling, the risk, losses.

Classification fuses late: the sequence and the statistics tower each give a logit with a loss of
its own, and the output is their mean. Other tasks' heads are in files of their own.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.special import expit
from torch import Tensor, nn
from torch.nn import functional

from clinode.cohort import Classify, IrregularBatch, PackedRecords, Preprocessor
from clinode.cohort.batch import chosen
from clinode.errors import ArgumentError
from clinode.sequence.layers import MemberLinear, dropout, linear, sum_by_subject
from clinode.sequence.readout import Encoding, Head, HeadSizes, Readout, in_batches
from clinode.sequence.summaries import StatisticsTower, static_inputs, summary_columns


class Pooling(nn.Module):
    """Last, mean and attention-weighted features of the rows with an observation."""

    def __init__(self, n_features: int, generator: torch.Generator):
        super().__init__()
        self.score = linear(n_features + 1, 1, generator)

    def forward(
        self, batch: IrregularBatch, encoding: Encoding
    ) -> Float[Tensor, "batch three_features"]:
        """Zeros instead of means where nothing was ever observed."""
        subject, n = batch.row_subject, len(batch)
        features, observed = encoding.features, encoding.is_observed.unsqueeze(1)
        weight = observed.to(features.dtype)
        mean = sum_by_subject(features * weight, subject, n)
        mean = mean / sum_by_subject(weight, subject, n).clamp(min=1)
        place = (batch.time / batch.window).to(features.dtype).unsqueeze(1)
        score = self.score(torch.cat([features, place], dim=1))
        score = torch.where(observed, score, -torch.inf)
        top = score.new_full((n, 1), -torch.inf).scatter_reduce(
            0, subject.unsqueeze(1), score.detach(), "amax"
        )
        share = torch.exp(score - torch.where(top.isfinite(), top, 0.0)[subject])
        attended = sum_by_subject(features * share, subject, n)
        total = sum_by_subject(share, subject, n)
        attended = attended / torch.where(total > 0, total, 1.0)
        return torch.cat([encoding.at_prediction, mean, attended], dim=1)


class Committee(nn.Module):
    """A statistics tower with outputs: from its code, and for labels from what it read as well."""

    def __init__(
        self, tower: StatisticsTower, n_labels: int, n_auxiliary: int, generator: torch.Generator
    ):
        super().__init__()
        self.tower, self.n_labels = tower, n_labels
        n_out = n_labels + n_auxiliary
        self.out = MemberLinear(tower.members, tower.code, n_out, generator, bias=0.0)
        self.skip = MemberLinear(tower.members, tower.n_read, n_labels, generator, bias=0.0)
        nn.init.zeros_(self.skip.weight)

    def forward(
        self,
        batch: IrregularBatch,
        columns: Float[Tensor, "batch column"],
        generator: torch.Generator | None,
        unseen: Bool[Tensor, "batch variable"] | None,
    ) -> Float[Tensor, "member batch out"]:
        """Logits and auxiliary predictions by each member."""
        code, read = self.tower(batch, columns, generator, unseen)
        out = self.out(code)
        direct = self.skip(dropout(read, self.tower.dropout, generator))
        n = self.n_labels
        return torch.cat([out[:, :, :n] + direct, out[:, :, n:]], dim=2)


class ClassificationHead(Head):
    """Three towers with logits and auxiliary predictions each; the outputs are their mean logits.

    The second and third are committees over the statistics, whose mean logits count as one each.
    The third has half as many members, and reads the statistics through bins: as many more weights
    want more dropout.

    After training the mean is shifted to the training part's level, see `set_level`.

    Args:
        schema: Of the training part.
        task: Says how many labels and auxiliary outcomes there are.
        sizes: Of the towers.
        generator: Draws the weights.
    """

    level: Tensor
    is_binary: Tensor
    positive: Tensor

    def __init__(
        self,
        schema: Preprocessor,
        task: Classify,
        sizes: HeadSizes,
        generator: torch.Generator,
    ):
        super().__init__()
        n_features, self.n_labels = sizes.n_features, len(task.labels)
        n_auxiliary = len(task.auxiliary)
        is_binary = [True] * self.n_labels + [scale.is_binary for scale in schema.auxiliary]
        self.register_buffer("is_binary", torch.tensor(is_binary), persistent=False)
        self.dropout = sizes.dropout
        self.pooling = Pooling(n_features, generator)
        self.static = linear(2 * len(schema.statics), sizes.static_code, generator)
        self.hidden = linear(3 * n_features + sizes.static_code, sizes.head_hidden, generator)
        self.out = linear(sizes.head_hidden, self.n_labels + n_auxiliary, generator, bias=0.0)
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
            self.n_labels,
            n_auxiliary,
            generator,
        )
        self.binned = Committee(
            StatisticsTower(
                schema,
                members=max(1, sizes.statistics_members // 2),
                dropout=math.sqrt(sizes.statistics_dropout),
                generator=generator,
                hidden=sizes.statistics_hidden,
                code=sizes.head_hidden,
                static_code=sizes.static_code,
                binned=True,
            ),
            self.n_labels,
            n_auxiliary,
            generator,
        )
        self.register_buffer("level", torch.zeros(self.n_labels))
        self.class_weight = task.class_weight
        positive = torch.ones(self.n_labels + n_auxiliary)  # what a positive label counts
        self.register_buffer("positive", positive, persistent=False)

    def prepare(self, records: PackedRecords) -> None:
        """Start every tower at the training part's share of each label."""
        if records.target is None:
            return
        shares = [_share(records.target[:, label]) for label in range(self.n_labels)]
        if self.class_weight is not None:
            weights = [
                (1 - s) / s if self.class_weight == "balanced" else self.class_weight
                for s in shares
            ]
            self.positive[: self.n_labels] = torch.tensor([float(w) for w in weights])
        start = torch.tensor([math.log(share / (1 - share)) for share in shares])
        with torch.no_grad():
            self.out.bias[: self.n_labels] = start
            for committee in (self.statistics, self.binned):
                committee.skip.bias.copy_(start.repeat(committee.tower.members))

    def finish(self, records: PackedRecords, answer: Callable[[IrregularBatch], Readout]) -> None:
        """Set the level, see `set_level`.

        Dropout makes the undisturbed output lean towards the commoner outcome.
        """
        if records.target is None:
            return
        logits, order = [], []
        with torch.no_grad():
            for batch in in_batches(records, dtype=self.level.dtype):
                logits.append(answer(batch).value)
                order.append(batch.subject)
        target = records.target[torch.cat(order).numpy(), : self.n_labels]
        self.set_level(torch.cat(logits).double().numpy(force=True), target)

    def set_level(
        self, logit: Float[np.ndarray, "record label"], target: Float[np.ndarray, "record label"]
    ) -> None:
        """Shift the outputs so that their mean probabilities are the shares of the labels.

        Args:
            logit: Of each training record, without dropout.
            target: 0, 1 or NaN where unknown; a label that nobody is known to have stays.
        """
        for label in range(self.n_labels):
            known, share = ~np.isnan(target[:, label]), _share(target[:, label])
            if not known.any():
                continue
            low, high = -20.0, 20.0
            for _ in range(60):  # halving: the mean rises with the shift
                middle = (low + high) / 2
                is_low = expit(logit[known, label] + middle).mean() < share
                low, high = (middle, high) if is_low else (low, middle)
            self.level[label] += (low + high) / 2

    def forward(
        self,
        batch: IrregularBatch,
        encoding: Encoding,
        generator: torch.Generator | None,
        unseen: Bool[Tensor, "batch variable"] | None = None,
    ) -> Readout:
        """Logits."""
        pooled = self.pooling(batch, encoding)
        static = functional.silu(self.static(static_inputs(batch)))
        inward = dropout(torch.cat([pooled, static], dim=1), self.dropout, generator)
        hidden = functional.silu(self.hidden(inward))
        sequence = self.out(dropout(hidden, self.dropout, generator))
        columns = summary_columns(batch)
        statistics = self.statistics(batch, columns, generator, unseen)
        binned = self.binned(batch, columns, generator, unseen)
        towers = torch.cat([sequence.unsqueeze(0), statistics, binned])
        means = [sequence, statistics.mean(dim=0), binned.mean(dim=0)]
        n = self.n_labels
        return Readout(
            value=torch.stack(means)[:, :, :n].mean(dim=0) + self.level,
            towers=towers[:, :, :n],
            auxiliary=towers[:, :, n:],
            next_observation=encoding.next_observation,
        )

    def counts(self, batch: IrregularBatch) -> Float[Tensor, " part"]:
        """Known targets of each label and auxiliary outcome, as much as each counts."""
        return self._counted(batch).sum(dim=0)

    def _counted(self, batch: IrregularBatch) -> Float[Tensor, "batch outcome"]:
        target, known = known_targets(batch)
        weight = torch.where(target == 1, self.positive, torch.ones_like(self.positive))
        return known.to(batch.dtype) * weight.to(batch.dtype)

    def loss(
        self,
        batch: IrregularBatch,
        readout: Readout,
        auxiliary_weight: float,
        counts: Float[Tensor, " part"],
    ) -> Float[Tensor, ""]:
        """Cross-entropy, meaned over labels, and weighted auxiliary losses of the three towers.

        A label that is unknown of a record has no part in it. Each member of a committee has a loss
        of its own, and the committee the mean of them.
        """
        target, known = known_targets(batch)
        if readout.towers is None or readout.auxiliary is None:
            raise ArgumentError("this readout is not that of a classification")
        shown = torch.cat([readout.towers, readout.auxiliary], dim=2)
        truth = target.expand_as(shown)
        binary = functional.binary_cross_entropy_with_logits(shown, truth, reduction="none")
        error = torch.where(self.is_binary, binary, (shown - truth) ** 2)
        counted = torch.where(known, error, 0.0) * self._counted(batch)
        held = counted.sum(dim=1) / torch.where(counts > 0, counts, 1.0)
        weight = torch.full_like(held[0], 1 / self.n_labels)
        weight[self.n_labels :] = auxiliary_weight
        by_tower = held @ weight
        first = 1 + self.statistics.tower.members  # of the binned ones
        return by_tower[0] + by_tower[1:first].mean() + by_tower[first:].mean()

    def prediction_loss(self, batch: IrregularBatch, readout: Readout) -> tuple[float, int]:
        """Cross entropy of the labels."""
        target, known = (part[:, : self.n_labels] for part in known_targets(batch))
        losses = functional.binary_cross_entropy_with_logits(
            readout.value.double(), target.double(), reduction="none"
        )
        return float(losses[known].sum()), int(known.sum())


def known_share(
    error: Float[Tensor, "*shape"], known: Bool[Tensor, "*shape"], count: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """What these errors add to a mean over `count` known ones; 0 where nothing is known."""
    return chosen(known, error).sum() / count.clamp(min=1)


def _share(target: Float[np.ndarray, " record"]) -> float:
    """Share of positive outcomes among the known ones, never quite 0 or 1."""
    known = target[~np.isnan(target)]
    return (float(known.sum()) + 0.5) / (len(known) + 1)


def known_targets(batch: IrregularBatch) -> tuple[Tensor, Tensor]:
    """Targets and which of them are known.

    Raises:
        ArgumentError: The batch was drawn without targets.
    """
    if batch.target is None or batch.target_mask is None:
        raise ArgumentError("a loss needs targets", fix="build the records with_targets=True")
    return batch.target, batch.target_mask


def expectation_loss(
    batch: IrregularBatch,
    expected: Float[Tensor, "row variable"],
    count: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Huber loss of each row's values as expected just before it; a first row is not expected.

    Args:
        batch: What was measured.
        expected: Of each row.
        count: Of how many values it is the mean; None: those of the batch, see `n_expected`.
    """
    error = functional.huber_loss(expected, batch.value, reduction="none")
    return known_share(error, _expected(batch), n_expected(batch) if count is None else count)


def n_expected(batch: IrregularBatch) -> Float[Tensor, ""]:
    """Values of a batch that are expected: all but those of first rows."""
    return _expected(batch).sum().to(batch.dtype)


def _expected(batch: IrregularBatch) -> Bool[Tensor, "row variable"]:
    known = batch.mask.clone()
    known[: batch.sizes[0]] = False
    return known
