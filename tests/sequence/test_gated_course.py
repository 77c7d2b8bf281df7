import numpy as np
import pytest
import torch

from clinode.sequence.bounded_field import BoundedField
from clinode.sequence.exponential_steps import ExponentialSteps
from clinode.sequence.gated_course import run_through
from clinode.sequence.layers import gated_update

DOUBLE = torch.float64


def parts(records, steepness=1.0, hidden=6):
    generator = torch.Generator().manual_seed(0)
    field = BoundedField(hidden, 5, records.schema, generator).double()
    with torch.no_grad():
        field.push.mul_(steepness)
        field.drive.weight.normal_(0, 0.3, generator=generator)
    recur = torch.randn(3 * hidden, hidden, generator=generator, dtype=DOUBLE) / 3
    return field, recur.requires_grad_(), generator


def row_by_row(field, inward, recur, batch, reverse):
    """Each record on its own, the field's own flow over each gap, one gated update a row."""
    states = torch.zeros(batch.n_rows, recur.shape[1], dtype=inward.dtype)
    flowed = torch.zeros_like(states)
    drives = doses = None
    if batch.treatments is not None:
        drives = field.drive(batch.treatments.rates(batch.n_rows))
        doses = field.drive(batch.treatments.impulses(batch.n_rows))
    for subject in range(len(batch)):
        rows = (batch.row_subject == subject).nonzero()[:, 0].tolist()
        order = rows[::-1] if reverse else rows
        state = torch.zeros(1, recur.shape[1], dtype=inward.dtype)
        for place, row in enumerate(order):
            if place:
                passed = order[place - 1] if reverse else row
                steps = ExponentialSteps(*field.steps(batch.gap[passed : passed + 1]))
                drive = None if drives is None else drives[passed : passed + 1]
                state = field.flow(state, steps, drive)
            state = state if doses is None else state + doses[row]
            flowed[row] = state[0]
            observed = batch.is_observed[row : row + 1].unsqueeze(1).to(inward.dtype)
            state = gated_update(inward[row : row + 1], state, recur.T, observed)
            states[row] = state[0]
    return states, flowed


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steepness", [1.0, 20.0])
@pytest.mark.parametrize("is_treated", [True, False])
def test_records_are_run_through_as_one_by_one(
    classified, untreated, reverse, steepness, is_treated
):
    records = classified if is_treated else untreated
    field, recur, generator = parts(records, steepness)
    batch = records.batch(np.arange(8), DOUBLE)
    inward = torch.randn(batch.n_rows, 18, generator=generator, dtype=DOUBLE).requires_grad_()
    given = [inward, recur, field.log_decay, field.bend, field.push, field.bend_offset]
    results = []
    for function in (run_through, row_by_row):
        states, flowed = function(field, inward, recur, batch, reverse=reverse)
        loss = (states**2).sum() + flowed.sum()
        results.append([states, flowed, *torch.autograd.grad(loss, given)])
    for ours, expected in zip(*results, strict=True):
        error = (ours - expected).abs().max() / expected.abs().max()
        assert error.item() < 1e-10
    assert (results[0][2] != 0).any(dim=1).sum() == batch.is_observed.sum()
