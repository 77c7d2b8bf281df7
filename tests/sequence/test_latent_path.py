"""Latent ODE and SDE against a solver, a dense Gaussian and the Ornstein-Uhlenbeck process."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from clinode.sequence.stretches import lay_out, solve, step_over, treatment_changes
from clinode.sequence.views import views_of, whole_records

DOUBLE = torch.float64


def told(model, batch):
    """What is kept of each row, and the states expected before."""
    with torch.no_grad():
        return model.path.rows(batch, model.memory.before(batch))


def test_the_course_from_a_told_start_is_that_of_a_tight_solver(classified, build):
    model = build(classified, "latent-ode")
    batch = classified.batch(np.arange(10), DOUBLE)
    kept, _ = told(model, batch)
    field, n = model.path.field, model.path.n_states
    a, W, U, b = (
        part.detach().numpy()
        for part in (field.log_decay.exp(), field.push, field.bend, field.bend_offset)
    )
    rates = field.drive(batch.treatments.rates(batch.n_rows)).detach().numpy()
    doses = field.drive(batch.treatments.impulses(batch.n_rows)).detach().numpy()
    worst = 0.0
    for subject in range(10):
        rows = (batch.row_subject == subject).nonzero()[:, 0].tolist()
        state, hour = kept[rows[0], n : 2 * n].numpy(), 0.0
        for place, row in enumerate(rows):
            drive = rates[row] if place else 0.0
            until = batch.time[row].item()
            if until > hour:
                state = solve_ivp(
                    lambda t, x, drive=drive: -a * x + W @ np.tanh(U @ x + b) + drive,
                    (hour, until), state, rtol=1e-10, atol=1e-12, method="DOP853",
                ).y[:, -1]  # fmt: skip
            state, hour = state + doses[row], until
            worst = max(worst, np.abs(kept[row, :n].numpy() - state).max())
    assert worst < 1e-5


@pytest.mark.parametrize("name", ["latent-ode", "latent-sde"])
def test_what_is_expected_at_a_row_was_told_before_it(classified, build, name):
    model = build(classified, name)
    batch = classified.batch(np.arange(3, 9), DOUBLE)
    value = batch.value.clone().requires_grad_()
    expected = model.encode(batch.replace(value=value)).next_observation
    looked_back = 0
    for row in range(batch.n_rows):
        (slope,) = torch.autograd.grad(expected[row].sum(), value, retain_graph=True)
        same = batch.row_subject == batch.row_subject[row]
        assert not slope[~same].any()
        assert not slope[same & (batch.time >= batch.time[row])].any()
        looked_back += bool(slope.any())
    assert looked_back > batch.n_rows / 2


@pytest.mark.parametrize("name", ["latent-ode", "latent-sde"])
def test_an_earlier_state_is_that_of_the_record_up_to_then(tables, build, pack, classified, name):
    model = build(classified, name)
    batch = classified.batch(np.arange(4, 12), DOUBLE)
    hour = 21.0
    until = pack(
        {**tables, "observations": tables["observations"].query("time <= @hour")},
        classified.task,
        classified.schema,
    ).batch(np.arange(4, 12), DOUBLE)
    asked = torch.full((8, 1), hour, dtype=DOUBLE)
    with torch.no_grad():
        then, alone = model.latent(batch, asked), model.latent(until, asked)
    order = [until.subject.tolist().index(subject) for subject in batch.subject.tolist()]
    torch.testing.assert_close(then, alone[order], rtol=0, atol=1e-5)


def test_the_bound_of_the_true_posterior_is_the_evidence(untreated, build):
    model = build(untreated, "latent-ode")
    path, batch = model.path, untreated.batch([7], DOUBLE)
    n, variables = path.n_states, batch.value.shape[1]
    with torch.no_grad():
        path.field.push.zero_()  # what is left is decay: the records are jointly normal
        model.decoder.weight[:, 1:n].zero_()  # and depend on one state alone
        decay = path.field.log_decay.exp()[0]
        C, c = model.decoder.weight[:, :n], model.decoder.bias
        seen, fixed = batch.mask, model.memory.before(batch) @ model.decoder.weight[:, n:].T + c
        y = (batch.value - fixed)[seen]
        h = (torch.exp(-decay * batch.time).unsqueeze(1) * C[:, 0])[seen]
        noise = model.noise.variance.expand(batch.n_rows, variables)[seen]
        covariance = torch.outer(h, h) + torch.diag(noise)
        evidence = torch.distributions.MultivariateNormal(torch.zeros_like(y), covariance)
        precision = 1 + (h**2 / noise).sum()
        mean, spread = (h * y / noise).sum() / precision, precision**-0.5
        kept, _ = told(model, batch)
        views = whole_records(batch)

        def with_start(at):
            changed = kept.clone()
            changed[:, n : 3 * n] = 0.0  # the other states keep the prior
            changed[:, n], changed[:, 2 * n] = at, torch.log(spread)
            return changed

        bound = 0.0
        for side in (-1.0, 1.0):  # exact for what is quadratic in a normal variable
            states, _ = path.sample(
                batch, views, path.told_by(with_start(mean + side * spread), views), None
            )
            expected = model.decoder(torch.cat([states, model.memory.before(batch)], dim=1))
            bound += model.noise.log_likelihood(batch, expected) / 2
        _, cost = path.sample(batch, views, path.told_by(with_start(mean), views), None)
        assert abs(bound - cost.sum() - evidence.log_prob(y)).item() < 1e-8


def test_the_noise_of_a_path_is_that_of_ornstein_and_uhlenbeck(classified, build):
    model = build(classified, "latent-sde")
    path, guide = model.path, model.guide
    batch = classified.batch([7], DOUBLE)
    with torch.no_grad():
        path.field.push.zero_()
        kept, _ = told(model, batch)
        last = torch.where(batch.is_observed)[0][-1:]
        changes = treatment_changes(batch) | batch.is_observed
        items = lay_out(batch, changes, torch.zeros(1, dtype=torch.long), last)
        views = views_of(batch, torch.zeros(1, dtype=torch.long), last)
        context = kept[views.row, 3 * path.n_states :]
        along = guide.along(path.field, batch, items, views, context)
        steps = step_over(path.field, batch, items, along.push)
        n_visits = len(steps.gap)

        def end(drawn):
            noise = guide.noise(steps, along, drawn)
            start = drawn.new_zeros(1, path.n_states)
            states = solve(path.field, batch, items, steps, start, decay=along.decay, noise=noise)
            return states[steps.packed.last[-1]]

        zero = torch.zeros(n_visits, path.n_states, dtype=DOUBLE)
        variance = torch.zeros(path.n_states, dtype=DOUBLE)
        for visit in range(n_visits):
            unit = zero.clone()
            unit[visit] = 1.0
            variance += (end(unit) - end(zero)) ** 2  # draws add up: the path is linear in them
    rate = path.field.log_decay.exp() + guide.log_gain.exp()  # up to the last row that was read
    hours = batch.time[last] - items.begin[0]
    expected = guide.sigma**2 * (1 - torch.exp(-2 * rate * hours)) / (2 * rate)
    torch.testing.assert_close(variance, expected.detach(), rtol=1e-8, atol=0)


def test_what_a_pull_costs_is_half_its_square_over_time(untreated, build):
    model = build(untreated, "latent-sde")
    path, guide = model.path, model.guide
    batch = untreated.batch([7], DOUBLE)
    with torch.no_grad():
        guide.log_gain.fill_(-math.inf)  # nothing gives way
        kept, _ = told(model, batch)
        kept[:, path.n_states : 3 * path.n_states] = 0.0  # the start costs nothing
        views = whole_records(batch)
        _, cost = path.sample(batch, views, path.told_by(kept, views), None)
        observed = torch.where(batch.is_observed)[0].tolist()
        expected, hour = 0.0, 0.0
        for row in observed:
            control = guide.root_pace * kept[row, 3 * path.n_states :] @ guide.toward.T
            expected += (control**2).sum() / 2 * (batch.time[row] - hour)
            hour = batch.time[row]
    torch.testing.assert_close(cost[0], expected, rtol=1e-10, atol=0)


def test_stretches_end_where_a_treatment_changes(tables, classified):
    batch = classified.batch(np.arange(12), DOUBLE)
    given = tables["inputs"]
    changes = treatment_changes(batch)
    for place, position in enumerate(batch.subject.tolist()):
        own = given[given["subject_id"] == position + 1]
        until = batch.prediction_time[place].item()
        hours = {h for h in [*own["start"], *own["end"].dropna()] if h <= until}
        found = batch.time[changes & (batch.row_subject == place)].tolist()
        assert found == pytest.approx(sorted(hours))


def test_a_stiff_field_takes_more_and_shorter_steps(untreated, build):
    model = build(untreated, "latent-ode")
    batch = untreated.batch(np.arange(4), DOUBLE)
    subject = torch.arange(4)
    none = torch.zeros(batch.n_rows, dtype=torch.bool)
    items = lay_out(batch, none, subject, batch.last_row)
    gentle = step_over(model.path.field, batch, items)
    with torch.no_grad():
        model.path.field.push.mul_(50)
    steep = step_over(model.path.field, batch, items)
    assert (steep.size < gentle.size).all()
    assert len(steep.packed.sizes) > len(gentle.packed.sizes)
    for steps in (gentle, steep):
        span = torch.zeros(4, dtype=DOUBLE).index_add(0, items.view[steps.packed.item], steps.gap)
        torch.testing.assert_close(span, batch.time[batch.last_row])
