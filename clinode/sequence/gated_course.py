"""A bounded field between rows and a gated unit at rows, run through the records of a batch.

What ODE-RNN is made of (`run_through`), and the encoder of a Latent ODE, which reads records or
their beginnings against time (`read_back`).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.cohort import IrregularBatch
from clinode.sequence.bounded_field import BoundedField
from clinode.sequence.course import Course, course, pack
from clinode.sequence.exponential_steps import number_of_steps
from clinode.sequence.field_flow import FieldFlow, driven, rk4
from clinode.sequence.gated_unit import GatedUnit
from clinode.sequence.recurrence import recur
from clinode.sequence.views import Views


def run_through(
    field: BoundedField,
    inward: Float[Tensor, "row three_states"],
    recur_weight: Float[Tensor, "three_states state"],
    batch: IrregularBatch,
) -> tuple[Float[Tensor, "row state"], Float[Tensor, "row state"]]:
    """States after the observations of each row, and just before them, from a state of zeros on.

    Rows without an observation only flow. Gradients are exact for the steps that are taken, and may
    be taken of gradients.

    Args:
        field: Of the flow between rows.
        inward: What a row adds to update gate, reset gate and proposal, see `gated_update`.
        recur_weight: What the state adds to them.
        batch: The records.
    """
    way = course(batch, number_of_steps(batch.gap, field.steepness).long())
    states, flowed = _run(field, inward, recur_weight, batch, way)
    return states[way.arrival], flowed[way.arrival]


def read_back(
    field: BoundedField,
    inward: Float[Tensor, "row three_states"],
    recur_weight: Float[Tensor, "three_states state"],
    batch: IrregularBatch,
    views: Views,
) -> Float[Tensor, "place state"]:
    """States after each row that views read, from their last row to the record's first.

    A state then knows its row and those after it in its view, and the field runs against time. What
    comes after a view's last row with an observation is not read. Gradients as of `run_through`.

    Args:
        field, inward, recur_weight, batch: As of `run_through`.
        views: What is read.

    Returns:
        One state a place of `views`.
    """
    row, sizes = views.row, torch.tensor(batch.sizes, device=views.row.device)
    passed = torch.where(views.is_first, row, row + sizes[batch.steps[row]])
    gap = torch.where(views.is_first, 0.0, batch.gap[passed])
    n_steps = number_of_steps(gap, field.steepness).long()
    packed = pack(views.owner, n_steps, len(views.subject))
    way = Course(
        packed.sizes,
        row[packed.item],
        passed[packed.item],
        (gap / n_steps)[packed.item],
        packed.is_last,
        packed.arrives,
        packed.last,
    )
    states, _ = _run(field, inward, recur_weight, batch, way)
    return states[way.arrival]


def _run(
    field: BoundedField,
    inward: Float[Tensor, "row three_states"],
    recur_weight: Float[Tensor, "three_states state"],
    batch: IrregularBatch,
    way: Course,
) -> tuple[Float[Tensor, "visit state"], Float[Tensor, "visit state"]]:
    """The states after each visit, and just before its update."""
    scheme = rk4(way.gap.unsqueeze(1), torch.exp(field.log_decay))
    if batch.treatments is not None:
        rates = field.drive(batch.treatments.rates(batch.n_rows))[way.passed]
        doses = field.drive(batch.treatments.impulses(batch.n_rows))[way.row]
        scheme = driven(scheme, rates, doses * way.is_arrival.unsqueeze(1))
    is_read = (batch.is_observed[way.row] & way.is_arrival).unsqueeze(1)
    n_states = recur_weight.shape[1]
    told = inward[way.row]
    gate = told[:, :n_states].masked_fill(~is_read, -torch.inf)
    return recur(
        FieldFlow([(field.bend, field.bend_offset), (field.push, None)], scheme),
        GatedUnit(torch.cat([gate, told[:, n_states:]], dim=1), recur_weight),
        way.sizes,
        way.arrives,
        n_states,
    )
