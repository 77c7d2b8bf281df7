import math

import pytest
import torch

from clinode.errors import ArgumentError

DOUBLE = torch.float64
SUBJECT = 12


def columns(batch, row):
    """What a row tells, from its definition; windows of other lengths are scaled to 48 hours."""
    pace = 48.0 / batch.window
    seen = [
        max((k for k in range(row) if batch.mask[k, v]), default=None)
        for v in range(batch.value.shape[1])
    ]
    return pace, seen


def reference(model, batch):
    """State and age of each row of one subject, one equation after the other."""
    W, b = model.inward.weight, model.inward.bias
    n = model.settings.hidden
    rates = batch.treatments.rates(batch.n_rows)
    doses = batch.treatments.impulses(batch.n_rows)
    state, last, states = torch.zeros(n, dtype=DOUBLE), None, []
    given = torch.zeros(rates.shape[1], dtype=DOUBLE)
    for row in range(batch.n_rows):
        pace, seen = columns(batch, row)
        time = batch.time[row]
        if row:
            given = given + rates[row] * (time - batch.time[row - 1])
        given = given + doses[row]
        if batch.mask[row].any():
            age = [batch.window if k is None else time - batch.time[k] for k in seen]
            recalled = [
                0.0 if k is None else batch.value[k, v] * torch.exp(-model.memory.rate[v] * age[v])
                for v, k in enumerate(seen)
            ]
            shown = (batch.value[row], batch.mask[row], recalled)
            value = [x if m else r for x, m, r in zip(*shown, strict=True)]
            since = 0.0 if last is None else time - last
            told = [
                *value,
                *batch.mask[row],
                *(math.log1p(float(a) * pace) / 4 for a in age),
                time / batch.window,
                math.log1p(float(since) * pace),
                *given,
                *rates[row],
            ]
            x = W @ torch.tensor([float(t) for t in told], dtype=DOUBLE) + b
            update = torch.sigmoid(x[:n] + model.recur[:n] @ state)
            reset = torch.sigmoid(x[n : 2 * n] + model.recur[n : 2 * n] @ state)
            proposal = torch.tanh(x[2 * n :] + model.recur[2 * n :] @ (reset * state))
            state = (1 - update) * state + update * proposal
            given, last = torch.zeros_like(given), time
        states.append(state)
    return torch.stack(states), last


def test_the_state_follows_its_equations_row_by_row(classified, build):
    model = build(classified, "gru-gap")
    batch = classified.batch([SUBJECT], DOUBLE)
    with torch.no_grad():
        states, _ = reference(model, batch)
        found, _ = model._run(batch, model.memory.before(batch))
    assert batch.treatments.is_impulse.any()
    torch.testing.assert_close(found, states, rtol=0, atol=1e-12)


def test_what_is_read_bends_with_the_time_since_the_last_observation(classified, build):
    model = build(classified, "gru-gap")
    batch = classified.batch([SUBJECT], DOUBLE)
    n, hours = model.settings.hidden, [0.0, 0.5, 6.0]
    with torch.no_grad():
        states, last = reference(model, batch)
        assert last is not None
        found = model.latent(batch, last + torch.tensor([hours], dtype=DOUBLE))[0, :, :n]
        expected = []
        for age in hours:
            elapsed = math.log1p(age * 48.0 / batch.window)
            bent = torch.tanh(model.bend.weight @ states[-1] + model.bend.bias)
            expected.append(states[-1] + torch.tanh(elapsed * model.pace) * bent)
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-12)
    torch.testing.assert_close(found[0], states[-1], rtol=0, atol=1e-12)


def test_it_has_no_latent_system_and_says_why(classified, build):
    with pytest.raises(ArgumentError, match="state stands still between observations"):
        _ = build(classified, "gru-gap").latent_system
