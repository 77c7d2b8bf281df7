"""Irregular records as tensors: every subject on its own times, never on a union of times.

A row is one time of one subject at which something was measured, or at which a treatment changed.
`IrregularBatch` is what a model reads: rows packed time-major, subjects sorted by their number of
rows. Times stay float64; gaps are differences taken in float64 and cast afterwards. Nothing is
scaled by the batch. Batches are drawn from `PackedRecords` (records.py).

What was carried forward and for how long is kept as indices of rows (`last_seen`), so a model's
output can be differentiated through the filling to the values that were measured, and only to
those.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Signal


@dataclass(frozen=True, eq=False)
class Treatments:
    """What was given to the subjects of a batch up to their prediction times.

    One entry per treatment event. `value` is standardised (original / `scale` of its input) and may
    require gradients: rates and doses are gathered from it. Rates are constant over the gap before
    a row, since every change has a row of its own; an impulse acts at its row, before the row's
    observations. `pair_row` and `pair_event` list which event runs during the whole gap before
    which row.
    """

    value: Float[Tensor, " event"]
    input_index: Int64[Tensor, " event"]
    subject: Int64[Tensor, " event"]  # position in the batch
    start: Float[Tensor, " event"]  # hours, float64
    end: Float[
        Tensor, " event"
    ]  # hours, float64; NaN for an impulse; clipped at the prediction time
    is_impulse: Bool[Tensor, " event"]
    is_held: Bool[Tensor, " event"]  # still running at the prediction time
    impulse_row: Int64[Tensor, " event"]  # row at which an impulse acts; 0 for rates
    pair_row: Int64[Tensor, " pair"]
    pair_event: Int64[Tensor, " pair"]
    scale: Float[Tensor, " input"]

    @property
    def n_inputs(self) -> int:
        """Inputs of the schema, given or not."""
        return len(self.scale)

    def rates(self, n_rows: int) -> Float[Tensor, "row input"]:
        """Standardised rate of each input during the gap before each row."""
        rates = self.value.new_zeros(n_rows, self.n_inputs)
        where = (self.pair_row, self.input_index[self.pair_event])
        return rates.index_put(where, self.value[self.pair_event], accumulate=True)

    def impulses(self, n_rows: int) -> Float[Tensor, "row input"]:
        """Standardised dose of each input given at each row."""
        given = torch.where(self.is_impulse, self.value, 0.0)
        doses = self.value.new_zeros(n_rows, self.n_inputs)
        return doses.index_put((self.impulse_row, self.input_index), given, accumulate=True)

    def held_rates(self, n_subjects: int) -> Float[Tensor, "batch input"]:
        """Standardised rate of each input from the last row on."""
        held = torch.where(self.is_held, self.value, 0.0)
        rates = self.value.new_zeros(n_subjects, self.n_inputs)
        return rates.index_put((self.subject, self.input_index), held, accumulate=True)

    def to(self, device: torch.device | str) -> "Treatments":
        """A copy on another device."""
        return replace(self, **{name: part.to(device) for name, part in vars(self).items()})


@dataclass(frozen=True, eq=False)
class PaddedBatch:
    """The rows of a batch as (batch, step, ...), zeros behind each record; a view for others."""

    value: Float[Tensor, "batch step variable"]
    mask: Bool[Tensor, "batch step variable"]
    time: Float[Tensor, "batch step"]
    time_delta: Float[Tensor, "batch step"]
    lengths: Int64[Tensor, " batch"]


@dataclass(frozen=True, eq=False)
class IrregularBatch:
    """Records of some instances, packed time-major, the longest first.

    Step k holds row k of the first `batch_sizes[k]` subjects, so the rows of step k are
    `offsets[k] : offsets[k] + batch_sizes[k]`. A record without anything measured has one row at
    hour 0 with an all-False mask. A model must only flow at rows without an observation.

    Args:
        value: Standardised, 0 where unmeasured.
        mask: What was measured.
        time: Hours since the subject's time zero, float64.
        gap: Hours since the subject's previous row, float64 difference; 0 at the first.
        time_delta: Hours since the subject's previous row with an observation; 0 where none is.
        since_observed: Hours since the variable was last seen before this row; the training window
            where it never was.
        last_seen: Packed row at which the variable was last seen before this row; -1 where never.
        last_observed: Packed row of the subject's previous row with an observation; -1 where none.
        row_subject: Position in the batch of the subject of a row.
        batch_sizes: Subjects that still have a row at each step; on the CPU.
        static, static_mask: Standardised, 0 where missing.
        prediction_time: Hours, float64.
        treatments: None where the schema has no inputs.
        query_time: Hours, float64; NaN behind a subject's last query. None unless asked for.
        target: (batch, outcome) with the task's labels first, or (batch, query, variable) on the
            standardised scale; 0 where unknown. None at prediction.
        target_mask: What of the target is known.
        subject: Position in the `PackedRecords` the batch was drawn from.
        window: The training window, hours.
        parts: Of several tasks, the batch as each of them asks it.
        entry, event: Of survival: hours after the prediction time at which a subject came to be
            watched, and at which its event came or it was lost, float64; NaN where unknown.
        cause: Of survival: 0 where it was lost, else the cause; -1 where unknown.
    """

    value: Float[Tensor, "row variable"]
    mask: Bool[Tensor, "row variable"]
    time: Float[Tensor, " row"]
    gap: Float[Tensor, " row"]
    time_delta: Float[Tensor, " row"]
    since_observed: Float[Tensor, "row variable"]
    last_seen: Int64[Tensor, "row variable"]
    last_observed: Int64[Tensor, " row"]
    row_subject: Int64[Tensor, " row"]
    batch_sizes: Int64[Tensor, " step"]
    static: Float[Tensor, "batch static"]
    static_mask: Bool[Tensor, "batch static"]
    prediction_time: Float[Tensor, " batch"]
    subject: Int64[Tensor, " batch"]
    window: float
    treatments: Treatments | None = None
    query_time: Float[Tensor, "batch query"] | None = None
    target: Float[Tensor, "batch ..."] | None = None
    target_mask: Bool[Tensor, "batch ..."] | None = None
    parts: "tuple[IrregularBatch, ...]" = ()
    entry: Tensor | None = None
    event: Tensor | None = None
    cause: Tensor | None = None

    def __len__(self) -> int:
        return len(self.subject)

    @property
    def n_rows(self) -> int:
        """Rows of all subjects together."""
        return len(self.time)

    @property
    def dtype(self) -> torch.dtype:
        """Of everything but the times."""
        return self.value.dtype

    @cached_property
    def sizes(self) -> list[int]:
        """`batch_sizes` as integers."""
        return self.batch_sizes.tolist()

    @cached_property
    def offsets(self) -> list[int]:
        """First row of each step."""
        return [0, *torch.cumsum(self.batch_sizes, 0).tolist()][:-1]

    @cached_property
    def is_observed(self) -> Bool[Tensor, " row"]:
        """Rows at which something was measured."""
        return self.mask.any(dim=1)

    def count(self, rows: Bool[Tensor, " row"]) -> Int64[Tensor, " row"]:
        """How many of these rows the subject has, up to and including each row."""
        return self._pad(rows.long()).cumsum(dim=1)[self.row_subject, self.steps]

    @cached_property
    def lengths(self) -> Int64[Tensor, " batch"]:
        """Rows of each subject."""
        return torch.bincount(self.row_subject, minlength=len(self))

    @cached_property
    def last_row(self) -> Int64[Tensor, " batch"]:
        """Packed row that is the last of each subject."""
        offsets = torch.tensor(self.offsets, device=self.time.device)
        position = torch.arange(len(self), device=self.time.device)
        return offsets[self.lengths - 1] + position

    @property
    def carried(self) -> Float[Tensor, "row variable"]:
        """The value last seen before each row, 0 where there is none; differentiable in `value`."""
        held = self.value.gather(0, self.last_seen.clamp(min=0))
        return chosen(self.last_seen >= 0, held)

    def row_before(self, query_time: Float[Tensor, "batch query"]) -> Int64[Tensor, "batch query"]:
        """The subject's last packed row at or before each asked time; -1 where there is none."""
        time = self._pad(self.time, float("inf"))
        step = torch.searchsorted(time, query_time.contiguous(), right=True) - 1
        step = torch.minimum(step, self.lengths.unsqueeze(1) - 1)
        offsets = torch.tensor(self.offsets, device=time.device)
        position = torch.arange(len(self), device=time.device).unsqueeze(1)
        return torch.where(step >= 0, offsets[step.clamp(min=0)] + position, -1)

    def rates_after(self, row: Int64[Tensor, "*place"]) -> Float[Tensor, "*place input"]:
        """Standardised treatment rates that run right after these rows; 0 before the first."""
        if self.treatments is None:
            raise ArgumentError("these records have no treatments")
        rates = self.treatments.rates(self.n_rows)
        held = self.treatments.held_rates(len(self))
        some = row.clamp(min=0)
        subject = self.row_subject[some]
        is_last = some == self.last_row[subject]
        sizes = torch.tensor(self.sizes, device=row.device)
        following = torch.where(is_last, 0, some + sizes[self.steps[some]])
        after = torch.where(is_last.unsqueeze(-1), held[subject], rates[following])
        return torch.where((row >= 0).unsqueeze(-1), after, 0.0)

    @property
    def exposure(self) -> Float[Tensor, "row input"]:
        """Standardised amount of each input given since the subject's last row with an observation.

        Rate times hours plus doses, up to and including the row.
        """
        if self.treatments is None:
            return self.value.new_zeros(self.n_rows, 0)
        rates = self.treatments.rates(self.n_rows) * self.gap.unsqueeze(1)
        given = self._pad(rates + self.treatments.impulses(self.n_rows)).cumsum(dim=1)
        total = given[self.row_subject, self.steps]
        before = self.last_observed
        known = total[before.clamp(min=0)]
        return total - torch.where((before >= 0).unsqueeze(1), known, 0.0)

    @cached_property
    def steps(self) -> Int64[Tensor, " row"]:
        """Place of each row in its record, from 0."""
        steps = torch.arange(len(self.sizes))
        steps = torch.repeat_interleave(steps, self.batch_sizes, output_size=self.n_rows)
        return steps.to(self.time.device)

    @property
    def inputs(self) -> Signal | None:
        """Treatments in original units, one signal a subject; a rate still running is held on."""
        if self.treatments is None:
            return None
        treatments = self.treatments
        steps, infinity = len(self.sizes), float("inf")
        rates = treatments.rates(self.n_rows) * treatments.scale
        held = treatments.held_rates(len(self)) * treatments.scale
        doses = treatments.impulses(self.n_rows) * treatments.scale
        times = self._pad(self.time, infinity)
        # A rate is stored at the row that ends its gap, a signal's value at the knot that starts
        # it.
        following = self._pad(rates)[:, 1:]
        values = torch.cat([following, torch.zeros_like(held).unsqueeze(1)], dim=1)
        last = torch.arange(steps, device=times.device) == (self.lengths - 1).unsqueeze(1)
        values = torch.where(last.unsqueeze(-1), held.unsqueeze(1), values)
        return Signal(times, values, impulses=(times, self._pad(doses)))

    def without(self, drop: Bool[Tensor, "row variable"]) -> "IrregularBatch":
        """The same records with some observations never made; rows stay where nothing is left."""
        mask = self.mask & ~drop
        clocks = observation_clocks(mask, self.time, self.sizes, self.window)
        return replace(
            self,
            value=chosen(mask, self.value),
            mask=mask,
            last_seen=clocks.last_seen,
            last_observed=clocks.last_observed,
            since_observed=clocks.since_observed.to(self.dtype),
            time_delta=clocks.time_delta.to(self.dtype),
        )

    def reversed(self) -> "IrregularBatch":
        """The same records run backwards: hours count down to 0 at each prediction time.

        A row holds what it held, a rate runs during the same gaps, and query times are turned too.
        What runs on from the last row to the prediction time lies before the first turned row, and
        is left out, as whatever is before a first row.
        """
        row = torch.arange(self.n_rows, device=self.time.device)
        offsets = torch.tensor(self.offsets, device=row.device)
        step, subject = self.steps, self.row_subject
        # where the turned row stands, and which row it was: the same map
        mirror = offsets[self.lengths[subject] - 1 - step] + subject
        end = self.prediction_time[subject]
        time = end - self.time[mirror]
        mask = self.mask[mirror]
        sizes = torch.tensor(self.sizes, device=row.device)
        following = mirror + sizes[step[mirror]]  # of what it was; none behind a last row
        is_first = step == 0
        gap = torch.where(is_first, 0.0, self.gap[torch.where(is_first, 0, following)])
        clocks = observation_clocks(mask, time, self.sizes, self.window)
        begin = self._pad(self.time, float("inf"))[:, 0]
        queries = self.query_time
        return replace(
            self,
            value=self.value[mirror],
            mask=mask,
            time=time,
            gap=gap,
            time_delta=clocks.time_delta.to(self.dtype),
            since_observed=clocks.since_observed.to(self.dtype),
            last_seen=clocks.last_seen,
            last_observed=clocks.last_observed,
            prediction_time=self.prediction_time - torch.clamp(begin, max=0.0),
            query_time=None if queries is None else self.prediction_time.unsqueeze(1) - queries,
            treatments=None if self.treatments is None else self._turned(mirror),
        )

    def _turned(self, mirror: Int64[Tensor, " row"]) -> Treatments:
        treatments = self.treatments
        if treatments is None:
            raise ArgumentError("these records have no treatments")
        sizes = torch.tensor([0, *self.sizes], device=mirror.device)
        pair = treatments.pair_row
        before = pair - sizes[self.steps[pair]]  # the row at which its gap begins
        end = self.prediction_time[treatments.subject]
        is_dose = treatments.is_impulse
        start = torch.where(is_dose, treatments.start, treatments.end)
        stop = torch.where(is_dose, torch.nan, treatments.start)
        return replace(
            treatments,
            start=end - start,
            end=end - stop,
            is_held=torch.zeros_like(treatments.is_held),
            impulse_row=torch.where(is_dose, mirror[treatments.impulse_row], 0),
            pair_row=mirror[before],
        )

    def replace(self, **changes: Any) -> "IrregularBatch":
        """A copy with other tensors, for instance `value` on the way from a baseline."""
        return replace(self, **changes)

    def to(self, device: torch.device | str) -> "IrregularBatch":
        """A copy on another device; `batch_sizes` stays on the CPU."""
        moved = {
            name: part.to(device)
            for name, part in self._fields().items()
            if isinstance(part, (Tensor, Treatments)) and name != "batch_sizes"
        }
        return replace(self, **moved, parts=tuple(part.to(device) for part in self.parts))

    def padded(self) -> PaddedBatch:
        """Rows as (batch, step, ...)."""
        return PaddedBatch(
            value=self._pad(self.value),
            mask=self._pad(self.mask),
            time=self._pad(self.time),
            time_delta=self._pad(self.time_delta),
            lengths=self.lengths,
        )

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def _pad(self, rows: Tensor, fill: float = 0.0) -> Tensor:
        padded = rows.new_full((len(self), len(self.sizes), *rows.shape[1:]), fill)
        return padded.index_put((self.row_subject, self.steps), rows)


def chosen(
    mask: Bool[Tensor, "*shape"],
    x: Float[Tensor, "*shape"],
    other: Float[Tensor, "*shape"] | None = None,
) -> Float[Tensor, "*shape"]:
    """`x` where the mask holds, `other` (finite, or 0) elsewhere: `torch.where` by products.

    The same numbers for finite entries; what is measured looks random to a processor, and
    `torch.where` then takes ten times as long, forwards and backwards.
    """
    share = mask.to(x.dtype)
    return x * share if other is None else x * share + other * (1 - share)


class Clocks(NamedTuple):
    """When each variable was last seen before each row, and when anything was."""

    last_seen: Int64[Tensor, "row variable"]  # packed row, -1 where never
    since_observed: Float[Tensor, "row variable"]  # hours, float64; the window where never
    last_observed: Int64[Tensor, " row"]  # packed row, -1 where never
    time_delta: Float[Tensor, " row"]  # hours, float64; 0 where never


def observation_clocks(
    mask: Bool[Tensor, "row variable"],
    time: Float[Tensor, " row"],
    sizes: list[int],
    window: float,
) -> Clocks:
    """The clocks of packed rows; differences are taken in float64."""
    seen = torch.cat([mask, mask.any(dim=1, keepdim=True)], dim=1)
    index = torch.arange(len(mask), device=mask.device).unsqueeze(1)
    seen_at = seen.long().mul_(index + 1).sub_(1)  # as in `chosen`
    last = torch.full_like(seen_at, -1)
    here = last.split(sizes)
    for latest, before, row in zip(seen_at.split(sizes), here, here[1:], strict=False):
        torch.maximum(latest[: len(row)], before[: len(row)], out=row)
    since = time.unsqueeze(1) - torch.take(time, last.clamp(min=0))
    never = last < 0
    return Clocks(
        last_seen=last[:, :-1].contiguous(),
        since_observed=since[:, :-1].masked_fill(never[:, :-1], window),
        last_observed=last[:, -1].contiguous(),
        time_delta=since[:, -1].masked_fill(never[:, -1], 0.0),
    )
