import numpy as np
import pytest
import torch

from clinode.sequence.bounded_field import BoundedField
from clinode.sequence.exponential_steps import ExponentialSteps
from clinode.sequence.gated_course import read_back, run_through
from clinode.sequence.layers import gated_update
from clinode.sequence.views import views_of

DOUBLE = torch.float64


def parts(records, steepness=1.0, hidden=6):
    generator = torch.Generator().manual_seed(0)
    field = BoundedField(hidden, 5, records.schema, generator).double()
    with torch.no_grad():
        field.push.mul_(steepness)
        field.drive.weight.normal_(0, 0.3, generator=generator)
    recur = torch.randn(3 * hidden, hidden, generator=generator, dtype=DOUBLE) / 3
    return field, recur.requires_grad_(), generator


def row_by_row(field, inward, recur, batch, last=None):
    """Each record on its own, the field's own flow over each gap, one gated update a row.

    Against time from `last` of each record, where that is given.
    """
    states = torch.zeros(batch.n_rows, recur.shape[1], dtype=inward.dtype)
    flowed = torch.zeros_like(states)
    drives = doses = None
    if batch.treatments is not None:
        drives = field.drive(batch.treatments.rates(batch.n_rows))
        doses = field.drive(batch.treatments.impulses(batch.n_rows))
    for subject in range(len(batch)):
        rows = (batch.row_subject == subject).nonzero()[:, 0].tolist()
        order = rows if last is None else [r for r in rows if r <= last[subject]][::-1]
        state = torch.zeros(1, recur.shape[1], dtype=inward.dtype)
        for place, row in enumerate(order):
            if place:
                passed = row if last is None else order[place - 1]
                steps = ExponentialSteps(*field.steps(batch.gap[passed : passed + 1]))
                drive = None if drives is None else drives[passed : passed + 1]
                state = field.flow(state, steps, drive)
            state = state if doses is None else state + doses[row]
            flowed[row] = state[0]
            observed = batch.is_observed[row : row + 1].unsqueeze(1).to(inward.dtype)
            state = gated_update(inward[row : row + 1], state, recur.T, observed)
            states[row] = state[0]
    return states, flowed


@pytest.mark.parametrize("steepness", [1.0, 20.0])
@pytest.mark.parametrize("is_treated", [True, False])
def test_records_are_run_through_as_one_by_one(classified, untreated, steepness, is_treated):
    records = classified if is_treated else untreated
    field, recur, generator = parts(records, steepness)
    batch = records.batch(np.arange(8), DOUBLE)
    inward = torch.randn(batch.n_rows, 18, generator=generator, dtype=DOUBLE).requires_grad_()
    given = [inward, recur, field.log_decay, field.bend, field.push, field.bend_offset]
    results = []
    for function in (run_through, row_by_row):
        states, flowed = function(field, inward, recur, batch)
        loss = (states**2).sum() + flowed.sum()
        results.append([states, flowed, *torch.autograd.grad(loss, given)])
    for ours, expected in zip(*results, strict=True):
        error = (ours - expected).abs().max() / expected.abs().max()
        assert error.item() < 1e-10
    assert (results[0][2] != 0).any(dim=1).sum() == batch.is_observed.sum()


@pytest.mark.parametrize("steepness", [1.0, 20.0])
@pytest.mark.parametrize("is_treated", [True, False])
def test_views_are_read_back_as_one_by_one(classified, untreated, steepness, is_treated):
    records = classified if is_treated else untreated
    field, recur, generator = parts(records, steepness)
    batch = records.batch(np.arange(2, 10), DOUBLE)
    inward = torch.randn(batch.n_rows, 18, generator=generator, dtype=DOUBLE).requires_grad_()
    seen = [((batch.row_subject == k) & batch.is_observed).nonzero()[:, 0] for k in range(8)]
    last = torch.stack([rows[len(rows) // 2] for rows in seen])
    views = views_of(batch, torch.arange(8), last)
    expected, _ = row_by_row(field, inward, recur, batch, last)
    states = read_back(field, inward, recur, batch, views)
    given = [inward, recur, field.log_decay, field.bend, field.push]
    results = [
        [of, *torch.autograd.grad((of**2).sum(), given)] for of in (states, expected[views.row])
    ]
    for ours, other in zip(*results, strict=True):
        assert ((ours - other).abs().max() / other.abs().max()).item() < 1e-10
    assert views.row[views.begins].tolist() == list(range(8))  # to the first row of each
