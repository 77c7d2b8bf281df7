"""One solve of a field for each view of a record, and its states at any row by dense output.

A stretch lies between two breaks, rows at which what drives the field may change: the start of the
record, changes of treatment, whatever a family adds. It is stepped from its beginning in steps of
one size, which the weights and the drives so far decide and nothing that comes later; the last one
ends at the break. The state at a row is one further, shorter step from the last one before it: so
it is as exact as the solve, costs one evaluation for all rows together, and does not depend on
which other rows there are.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from clinode.cohort import IrregularBatch
from clinode.sequence.bounded_field import BoundedField
from clinode.sequence.course import Packed, pack
from clinode.sequence.exponential_steps import MAX_STEPS, STEP_SIZE, exponential_steps, flow
from clinode.sequence.field_flow import FieldFlow, driven, rk4
from clinode.sequence.recurrence import Untouched, recur

DRIVEN = 0.35  # share of the speed at which a drive bends N that counts as steepness


class Items(NamedTuple):
    """The stretches of some views, as far as they are asked.

    An item is the start of a view, a visit without a way, or one of its stretches.

    Args:
        begin, end: Hours at which each item begins and ends, float64.
        from_row: Row of the break at which it begins; -1 at the start of a view.
        to_row: Row of the break at which it ends; -1 where it is open, or the start.
        view: Whose item it is.
        first: Of each view, its first stretch.
        n_breaks: Of each row of the batch, breaks of its record up to it and including it.
    """

    begin: Float[Tensor, " item"]
    end: Float[Tensor, " item"]
    from_row: Int64[Tensor, " item"]
    to_row: Int64[Tensor, " item"]
    view: Int64[Tensor, " item"]
    first: Int64[Tensor, " view"]
    n_breaks: Int64[Tensor, " row"]


class Steps(NamedTuple):
    """The steps over items, and what drives the field on them.

    Args:
        packed: Visits of the items.
        size: Hours of a whole step of each item, float64.
        gap: Hours of each visit.
        drive: What is added to the field along each item; None for nothing.
    """

    packed: Packed
    size: Float[Tensor, " item"]
    gap: Float[Tensor, " visit"]
    drive: Float[Tensor, "item state"] | None


def start_of_records(batch: IrregularBatch) -> Float[Tensor, " batch"]:
    """Hour 0, or the first row where that is earlier; float64."""
    return batch.time[: len(batch)].clamp(max=0.0)


def treatment_changes(batch: IrregularBatch) -> Bool[Tensor, " row"]:
    """Rows at which a treatment is given, begins or ends; none without treatments."""
    changes = torch.zeros(batch.n_rows, dtype=torch.bool, device=batch.time.device)
    given = batch.treatments
    if given is None:
        return changes
    n_events = len(given.start)
    sizes = torch.tensor([0, *batch.sizes], device=changes.device)
    event, row = given.pair_event, given.pair_row
    lowest = torch.full((n_events,), batch.n_rows, device=row.device)
    lowest = lowest.scatter_reduce(0, event, row, "amin")
    runs = lowest < batch.n_rows  # during the gap before some row
    low = lowest[runs]
    high = torch.full_like(lowest, -1).scatter_reduce(0, event, row, "amax")[runs & ~given.is_held]
    begin = low - sizes[batch.steps[low]]
    late = given.is_held & ~runs  # begins at the last row
    changed = torch.cat(
        [begin, high, given.impulse_row[given.is_impulse], batch.last_row[given.subject[late]]]
    )
    return changes.index_fill(0, changed, True)


def lay_out(
    batch: IrregularBatch,
    is_break: Bool[Tensor, " row"],
    subject: Int64[Tensor, " view"],
    last: Int64[Tensor, " view"],
) -> Items:
    """The stretches of views.

    Args:
        batch: The records.
        is_break: Rows at which a stretch ends and another begins.
        subject: Of each view, position in the batch.
        last: Of each view, the last row that is asked of it; -1 for none.
    """
    device, n = is_break.device, len(subject)
    n_breaks = batch.count(is_break)
    passed = torch.where(last >= 0, n_breaks[last.clamp(min=0)], 0)
    n_items = passed + 2
    view = torch.repeat_interleave(torch.arange(n, device=device), n_items)
    first = torch.cumsum(n_items, 0) - n_items + 1
    nth = torch.arange(len(view), device=device) - first[view]  # -1 for a start, then 0, 1, ...
    # the breaks of a record one after the other, records in order
    row = is_break.nonzero().squeeze(1)
    row = row[torch.argsort(batch.row_subject[row], stable=True)]
    of_record = torch.bincount(batch.row_subject[row], minlength=len(batch))
    listed = (torch.cumsum(of_record, 0) - of_record)[subject][view] + nth
    row = torch.cat([row, row.new_zeros(1)])
    from_row = torch.where(nth > 0, row[(listed - 1).clamp(0, len(row) - 1)], -1)
    is_closed = (nth >= 0) & (nth < passed[view])
    to_row = torch.where(is_closed, row[listed.clamp(0, len(row) - 1)], -1)
    start = start_of_records(batch)[subject][view]
    begin = torch.where(from_row >= 0, batch.time[from_row.clamp(min=0)], start)
    asked = torch.where(last >= 0, batch.time[last.clamp(min=0)], start[first - 1])[view]
    asked = torch.where(nth < 0, begin, asked)  # a start takes no time
    end = torch.where(is_closed, batch.time[to_row.clamp(min=0)], asked)
    return Items(begin, end, from_row, to_row, view, first, n_breaks)


def step_over(
    field: BoundedField,
    batch: IrregularBatch,
    items: Items,
    push: Float[Tensor, "item state"] | None = None,
) -> Steps:
    """Steps over items: more where the field is steep, and where it is driven fast.

    Args:
        field: Of the flow.
        batch: The records.
        items: Of views of them.
        push: Added to the field along each item, beside the treatments.
    """
    drive = push
    if batch.treatments is not None:
        given = field.drive(batch.rates_after(items.from_row))
        drive = given if push is None else given + push
    with torch.no_grad():
        steepness = field.steepness.double().expand(len(items.view))
        if drive is not None:
            speed = torch.linalg.vector_norm(drive @ field.bend.T, torch.inf, dim=1)
            # what a drive has moved goes on moving behind it
            steepness = steepness + DRIVEN * _highest_so_far(speed.double(), items)
        size = (STEP_SIZE / steepness).clamp(batch.window / MAX_STEPS, batch.window)
        size = size.nan_to_num(nan=batch.window)  # of weights that diverged: the loss will say so
        length = items.end - items.begin
        n_visits = torch.ceil(length / size).clamp(min=1).long()
        packed = pack(items.view, n_visits, len(items.first))
        rest = length - (n_visits - 1) * size
        gap = torch.where(packed.is_last, rest[packed.item], size[packed.item]).to(batch.dtype)
    return Steps(packed, size, gap, drive)


def solve(
    field: BoundedField,
    batch: IrregularBatch,
    items: Items,
    steps: Steps,
    start: Float[Tensor, "view state"],
    *,
    decay: Float[Tensor, "item state"] | None = None,
    noise: Float[Tensor, "visit state"] | None = None,
) -> Float[Tensor, "visit state"]:
    """The states after each step, from where each view starts, under the treatments.

    Args:
        field: Of the flow.
        batch: The records.
        items, steps: Of views of them.
        start: State of each view at the start of its record.
        decay: Rates of decay along each item, per hour, in place of the field's.
        noise: Added at the end of each visit.
    """
    packed, item = steps.packed, steps.packed.item
    jump = torch.zeros(len(items.view), start.shape[1], dtype=start.dtype, device=start.device)
    jump = jump.index_put((items.first - 1,), start)
    if batch.treatments is not None:
        doses = field.drive(batch.treatments.impulses(batch.n_rows))
        ends = (items.to_row >= 0).unsqueeze(1)
        jump = jump + torch.where(ends, doses[items.to_row.clamp(min=0)], 0.0)
    jump = torch.where(packed.is_last.unsqueeze(1), jump[item], 0.0)
    if noise is not None:
        jump = jump + noise
    rates = torch.exp(field.log_decay) if decay is None else decay[item]
    along = torch.zeros_like(jump) if steps.drive is None else steps.drive[item]
    scheme = driven(rk4(steps.gap.unsqueeze(1), rates), along, jump)
    states, _ = recur(
        FieldFlow([(field.bend, field.bend_offset), (field.push, None)], scheme),
        Untouched(),
        packed.sizes,
        [False] * len(packed.sizes),
        start.shape[1],
    )
    return states


def at_rows(
    field: BoundedField,
    batch: IrregularBatch,
    items: Items,
    steps: Steps,
    states: Float[Tensor, "visit state"],
    view: Int64[Tensor, " asked"],
    row: Int64[Tensor, " asked"],
    *,
    decay: Float[Tensor, "item state"] | None = None,
) -> Float[Tensor, "asked state"]:
    """The states of views at rows, after the doses given there.

    Args:
        field, batch, items, steps, decay: As for `solve`.
        states: By it.
        view: Which view is asked.
        row: At which packed row of its record, none after the last one it was laid out for.
    """
    item = items.first[view] + items.n_breaks[row]
    since, size = batch.time[row] - items.begin[item], steps.size[item]
    # the stretch is the open one, or ends after the row: no more whole steps than it has
    whole = torch.floor(since / size).long()
    left = (since - whole * size).clamp(min=0).to(batch.dtype)
    x = states[steps.packed.visit_before(item, whole)]
    rates = torch.exp(field.log_decay) if decay is None else decay[item]
    drive = None if steps.drive is None else steps.drive[item]
    return flow(field.slope(drive), x, exponential_steps(rates, left, torch.ones_like(left)))


def _highest_so_far(value: Float[Tensor, " item"], items: Items) -> Float[Tensor, " item"]:
    """The highest value of the items of the same view up to each."""
    nth = torch.arange(len(value), device=value.device) - items.first[items.view] + 1
    padded = value.new_zeros(len(items.first), int(nth.max()) + 1)
    padded[items.view, nth] = value
    return padded.cummax(dim=1).values[items.view, nth]
