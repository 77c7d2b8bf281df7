"""A bounded field between rows and a gated unit at rows, run through the records of a batch.

What ODE-RNN is made of, and the encoder of a Latent ODE, which reads its records against time.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.cohort import IrregularBatch
from clinode.sequence.bounded_field import BoundedField
from clinode.sequence.course import course, passed_gap
from clinode.sequence.exponential_steps import number_of_steps
from clinode.sequence.field_flow import FieldFlow, driven, rk4
from clinode.sequence.gated_unit import GatedUnit
from clinode.sequence.recurrence import recur


def run_through(
    field: BoundedField,
    inward: Float[Tensor, "row three_states"],
    recur_weight: Float[Tensor, "three_states state"],
    batch: IrregularBatch,
    *,
    reverse: bool = False,
) -> tuple[Float[Tensor, "row state"], Float[Tensor, "row state"]]:
    """States after the observations of each row, and just before them, from a state of zeros on.

    Rows without an observation only flow. Gradients are exact for the steps that are taken, and may
    be taken of gradients.

    Args:
        field: Of the flow between rows.
        inward: What a row adds to update gate, reset gate and proposal, see `gated_update`.
        recur_weight: What the state adds to them.
        batch: The records.
        reverse: Read from a record's last row to its first: a state then knows its row and those
            after it, and the field runs against time.
    """
    steps = number_of_steps(passed_gap(batch, reverse=reverse), field.steepness)
    way = course(batch, steps.long(), reverse=reverse)
    scheme = rk4(way.gap.unsqueeze(1), torch.exp(field.log_decay))
    if batch.treatments is not None:
        rates = field.drive(batch.treatments.rates(batch.n_rows))[way.passed]
        doses = field.drive(batch.treatments.impulses(batch.n_rows))[way.row]
        scheme = driven(scheme, rates, doses * way.is_arrival.unsqueeze(1))
    is_read = (batch.is_observed[way.row] & way.is_arrival).unsqueeze(1)
    n_states = recur_weight.shape[1]
    told = inward[way.row]
    gate = told[:, :n_states].masked_fill(~is_read, -torch.inf)
    states, flowed = recur(
        FieldFlow([(field.bend, field.bend_offset), (field.push, None)], scheme),
        GatedUnit(torch.cat([gate, told[:, n_states:]], dim=1), recur_weight),
        way.sizes,
        way.arrives,
        n_states,
    )
    return states[way.arrival], flowed[way.arrival]
