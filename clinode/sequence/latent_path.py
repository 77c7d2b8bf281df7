"""A hidden start of each record, told by an encoder that reads it back, and the course from there.

What Latent ODE and latent SDE are made of. The encoder is an ODE-RNN against time; its state at the
start of a record tells mean and spread of a normal start. The course from the mean is solved once
for each view (`stretches`) and read at any row. What was known before a row is told by the longest
view that ends before it, of 0, 1, 2, 4, 8, ... rows with observations: a view for every row would
cost the square of a record's length.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clinode.cohort import IrregularBatch, Preprocessor
from clinode.errors import ArgumentError
from clinode.sequence.bounded_field import BoundedField
from clinode.sequence.gated_course import read_back
from clinode.sequence.guide import Along, Guide
from clinode.sequence.inputs import n_step_inputs, observed_row, step_inputs
from clinode.sequence.layers import linear, matrix
from clinode.sequence.stretches import (
    Items,
    Steps,
    at_rows,
    lay_out,
    solve,
    start_of_records,
    step_over,
    treatment_changes,
)
from clinode.sequence.summaries import static_inputs
from clinode.sequence.variation import divergence_from_standard
from clinode.sequence.views import Views, views_of, whole_and_growing

FIRST_SPREAD = -1.5  # log of the spread of a start, before training


class Start(NamedTuple):
    """What views tell of the starts of their records.

    Args:
        mean, log_spread: Of the state there.
        context: State of the encoder after each place of the views.
    """

    mean: Float[Tensor, "view state"]
    log_spread: Float[Tensor, "view state"]
    context: Float[Tensor, "place hidden"]


class Course(NamedTuple):
    """Where the paths of views run, and what is done to them on the way.

    Args:
        items, steps: Of the views.
        along: By the guide; None without one.
    """

    items: Items
    steps: Steps
    along: Along | None

    @property
    def decay(self) -> Float[Tensor, "item state"] | None:
        """Rates along each item; None where they are the field's."""
        return None if self.along is None else self.along.decay


class LatentPath(nn.Module):
    """Encoder, start and field.

    Args:
        n_states: Of the path.
        n_hidden: Width of the encoder's state.
        n_field_hidden: Width of the bounded terms of both fields.
        schema: Of the training part.
        generator: Draws the weights.
        guide: Pushes the path along the record; None where only the start is told.
    """

    def __init__(
        self,
        n_states: int,
        n_hidden: int,
        n_field_hidden: int,
        schema: Preprocessor,
        generator: torch.Generator,
        guide: Guide | None = None,
    ):
        super().__init__()
        self.n_states = n_states
        self.encoder = BoundedField(n_hidden, n_field_hidden, schema, generator)
        n_inward = n_step_inputs(len(schema.variables), len(schema.inputs))
        self.inward = linear(n_inward, 3 * n_hidden, generator)
        self.recur = matrix(3 * n_hidden, n_hidden, generator)
        self.told = linear(n_hidden + 2 * len(schema.statics), n_hidden, generator)
        self.start = linear(n_hidden, 2 * n_states, generator, bias=0.0)
        with torch.no_grad():
            self.start.bias[n_states:] = FIRST_SPREAD
        self.field = BoundedField(n_states, n_field_hidden, schema, generator)
        self.guide = guide

    def rows(
        self, batch: IrregularBatch, remembered: Float[Tensor, "row variable"]
    ) -> tuple[Float[Tensor, "row kept"], Float[Tensor, "row state"]]:
        """What is kept of each row, and the states as they were expected before each.

        Kept are the state told by the whole record, mean and log spread of the record's start, and
        with a guide the encoder's state after the row.
        """
        views, growing = whole_and_growing(batch)
        start = self.tell(batch, remembered, views)
        rows = torch.arange(batch.n_rows, device=growing.device)
        view, row = torch.cat([batch.row_subject, growing]), torch.cat([rows, rows])
        told = self._likeliest(batch, views, start, view, row)
        states, before = told.split(batch.n_rows)
        kept = [states, start.mean[batch.row_subject], start.log_spread[batch.row_subject]]
        if self.guide is not None:
            n_whole = int((views.last[: len(batch)] >= 0).sum())
            whole = views.owner < n_whole  # whole records come first
            context = states.new_zeros(batch.n_rows, self.recur.shape[1])
            kept.append(context.index_put((views.row[whole],), start.context[whole]))
        return torch.cat(kept, dim=1), before

    def sample(
        self,
        batch: IrregularBatch,
        views: Views,
        start: Start,
        generator: torch.Generator | None,
    ) -> tuple[Float[Tensor, "row state"], Float[Tensor, " batch"]]:
        """States at rows of a path drawn for each record, and the divergence from the prior.

        Args:
            batch: The records.
            views: Of the whole of each, see `whole_records`.
            start: What they tell.
            generator: Feeds the draw; None takes what is likeliest.
        """
        state, noise = start.mean, None
        if generator is not None:
            state = state + torch.exp(start.log_spread) * _normal(state.shape, state, generator)
        course = self._course(batch, views, start.context, batch.last_row)
        if course.along is not None and generator is not None:
            shape = len(course.steps.gap), self.n_states
            drawn = _normal(torch.Size(shape), state, generator)
            noise = self._guide.noise(course.steps, course.along, drawn)
        states = self._solve(batch, course, state, noise)
        cost = divergence_from_standard(start.mean, start.log_spread)
        if course.along is not None:
            cost = cost + self._guide.cost(course.items, course.steps, course.along, states)
        rows = torch.arange(batch.n_rows, device=state.device)
        return self._at(batch, course, states, batch.row_subject, rows), cost

    def told_by(self, kept: Float[Tensor, "row kept"], views: Views) -> Start:
        """What views of whole records told, as `rows` kept it.

        Args:
            kept: Of each row.
            views: Of the whole of each record.
        """
        n = self.n_states
        first = kept[: len(views.subject)]  # row of each record
        return Start(first[:, n : 2 * n], first[:, 2 * n : 3 * n], kept[views.row, 3 * n :])

    def tell(
        self, batch: IrregularBatch, remembered: Float[Tensor, "row variable"], views: Views
    ) -> Start:
        """What views tell of the starts; nothing is read where a view is empty."""
        n_hidden, reads = self.recur.shape[1], views.last >= 0
        context = batch.value.new_zeros(0, n_hidden)
        read = batch.value.new_zeros(len(reads), n_hidden)
        if len(views.row):
            inward = self.inward(step_inputs(batch, remembered))
            context = read_back(self.encoder, inward, self.recur, batch, views)
            subject = views.subject[reads]
            hours = batch.time[: len(batch)] - start_of_records(batch)
            steps = self.encoder.steps(hours[subject].to(batch.dtype))
            begun = self.encoder.flow(context[views.begins], steps, None)
            read = read.index_put((reads.nonzero().squeeze(1),), begun)
        known = torch.cat([read, static_inputs(batch)[views.subject]], dim=1)
        mean, log_spread = self.start(torch.tanh(self.told(known))).chunk(2, dim=1)
        return Start(mean, log_spread, context)

    def carry(
        self,
        batch: IrregularBatch,
        remembered: Float[Tensor, "row variable"],
        kept: Float[Tensor, "row kept"],
        query_time: Float[Tensor, "batch query"],
        row: Int64[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query state"]:
        """States at asked times, each told by what lies at or before it.

        From the last row before on the field runs by itself. Where that is behind the record's last
        observation the state there is what `rows` found; else the record up to it is read again.
        """
        n, device = len(batch), row.device
        subject = torch.arange(n, device=device).unsqueeze(1).expand_as(row)
        last = observed_row(batch, row)
        whole = observed_row(batch, batch.last_row).unsqueeze(1)
        again = (last != whole) | (row < 0)
        held = kept[row.clamp(min=0), : self.n_states]
        if bool(again.any()):
            asked = torch.stack([subject[again], last[again]], dim=1)
            pairs, place = torch.unique(asked, dim=0, return_inverse=True)
            views = views_of(batch, pairs[:, 0], pairs[:, 1])
            start = self.tell(batch, remembered, views)
            some = row[again].clamp(min=0)
            found = self._likeliest(batch, views, start, place, some)
            found = torch.where((row[again] >= 0).unsqueeze(1), found, start.mean[place])
            held = held.index_put((again,), found)
        since = torch.where(
            row >= 0, batch.time[row.clamp(min=0)], start_of_records(batch)[subject]
        )
        hours = (query_time - since).clamp(min=0).to(batch.dtype)
        return self.field.after(held, hours, batch, row)

    @property
    def _guide(self) -> Guide:
        if self.guide is None:
            raise ArgumentError("this path has no guide")
        return self.guide

    def _likeliest(
        self,
        batch: IrregularBatch,
        views: Views,
        start: Start,
        view: Int64[Tensor, " asked"],
        row: Int64[Tensor, " asked"],
    ) -> Float[Tensor, "asked state"]:
        """States of views at rows, on the course without noise from the mean of each start."""
        asked = torch.full((len(views.subject),), -1, device=row.device)
        asked = asked.scatter_reduce(0, view, row, "amax")
        course = self._course(batch, views, start.context, asked)
        states = self._solve(batch, course, start.mean, None)
        return self._at(batch, course, states, view, row)

    def _course(
        self,
        batch: IrregularBatch,
        views: Views,
        context: Float[Tensor, "place hidden"],
        asked: Int64[Tensor, " view"],
    ) -> Course:
        is_break = treatment_changes(batch)
        if self.guide is None:
            items = lay_out(batch, is_break, views.subject, asked)
            return Course(items, step_over(self.field, batch, items), None)
        # the guide pushes otherwise from one measured row to the next
        items = lay_out(batch, is_break | batch.is_observed, views.subject, asked)
        along = self.guide.along(self.field, batch, items, views, context)
        return Course(items, step_over(self.field, batch, items, along.push), along)

    def _solve(
        self,
        batch: IrregularBatch,
        course: Course,
        start: Float[Tensor, "view state"],
        noise: Float[Tensor, "visit state"] | None,
    ) -> Float[Tensor, "visit state"]:
        items, steps, decay = course.items, course.steps, course.decay
        return solve(self.field, batch, items, steps, start, decay=decay, noise=noise)

    def _at(
        self,
        batch: IrregularBatch,
        course: Course,
        states: Float[Tensor, "visit state"],
        view: Int64[Tensor, " asked"],
        row: Int64[Tensor, " asked"],
    ) -> Float[Tensor, "asked state"]:
        items, steps, decay = course.items, course.steps, course.decay
        return at_rows(self.field, batch, items, steps, states, view, row, decay=decay)


def _normal(shape: torch.Size, like: Tensor, generator: torch.Generator) -> Tensor:
    device = generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=like.dtype)
