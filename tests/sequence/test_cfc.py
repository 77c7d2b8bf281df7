import pytest
import torch

from clinode.errors import ArgumentError
from clinode.sequence.inputs import gap_inputs

DOUBLE = torch.float64
SUBJECT = 12


def ends(model, state, told):
    """Rate and the two ends after an observation (Hasani et al. 2022, eq. 10)."""
    n = model.settings.hidden
    x = model.inward.weight @ told + model.inward.bias + model.recur @ state
    made = model.ends.weight @ (x * torch.sigmoid(x)) + model.ends.bias
    return made[:n], torch.tanh(made[n : 2 * n]), torch.tanh(made[2 * n :])


def test_the_state_is_the_closed_form_between_observations(classified, build):
    model = build(classified, "cfc")
    batch = classified.batch([SUBJECT], DOUBLE)
    n, pace = model.settings.hidden, 48.0 / batch.window
    hours = torch.tensor([0.0, 0.7, 3.0], dtype=DOUBLE)
    state, last = torch.zeros(n, dtype=DOUBLE), batch.time[0]
    held = (state, state, state)
    with torch.no_grad():
        told = gap_inputs(batch, model.memory.before(batch))
        for row in torch.nonzero(batch.is_observed).flatten().tolist():
            f, g, h = held
            share = torch.sigmoid(-f * (batch.time[row] - last) * pace)
            state = share * g + (1 - share) * h
            held, last = ends(model, state, told[row]), batch.time[row]
        f, g, h = held
        share = 1 / (1 + torch.exp(f * hours.unsqueeze(1) * pace))
        found = model.latent(batch, last + hours.unsqueeze(0))[0, :, :n]
    torch.testing.assert_close(found, share * g + (1 - share) * h, rtol=0, atol=1e-12)
    torch.testing.assert_close(found[0], (g + h) / 2, rtol=0, atol=1e-12)


def test_long_after_an_observation_the_state_rests_at_the_end_that_its_rate_chooses(
    classified, build
):
    model = build(classified, "cfc")
    batch = classified.batch([SUBJECT], DOUBLE)
    with torch.no_grad():
        kept, _ = model._run(batch, model.memory.before(batch))
        rate, start, end = kept[-1].chunk(3)
        late = model.latent(batch, torch.full((1, 1), 1e7, dtype=DOUBLE))[0, 0, : len(rate)]
    torch.testing.assert_close(late, torch.where(rate > 0, end, start), rtol=0, atol=1e-12)


def test_it_has_no_latent_system_and_says_why(classified, build):
    with pytest.raises(ArgumentError, match="function of the time since the last observation"):
        _ = build(classified, "cfc").latent_system
