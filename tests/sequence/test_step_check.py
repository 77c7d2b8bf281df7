import numpy as np
import pytest
import torch

from clinode.dynamics import simulate
from clinode.sequence.exponential_steps import MAX_STEPS
from clinode.sequence.step_check import check_steps

SOLVED = ("ode-rnn", "gru-ode-bayes", "neural-cde")


@pytest.fixture(params=SOLVED)
def name(request) -> str:
    return request.param


def test_a_field_at_its_start_is_stepped_accurately(untreated, build, name):
    check = check_steps(build(untreated, name, double=False), untreated)
    assert check is not None
    assert 1 <= check.mean_steps <= check.most_steps <= MAX_STEPS
    assert 0 < check.error < 1e-5
    assert check.warning is None
    assert check.n_gaps == (untreated.batch(np.arange(len(untreated))).gap > 0).sum()


def test_a_violent_treatment_is_told(classified, build):
    model = build(classified, "ode-rnn")
    with torch.no_grad():
        model.field.drive.weight.mul_(10)
    check = check_steps(model, classified)
    assert check is not None
    assert check.warning is not None
    assert "states between rows are off by" in check.warning


def test_a_steep_field_takes_more_steps_and_keeps_its_accuracy(untreated, build):
    model = build(untreated, "ode-rnn")
    gentle = check_steps(model, untreated)
    with torch.no_grad():
        model.field.push.mul_(6)
    steep = check_steps(model, untreated)
    assert gentle is not None
    assert steep is not None
    assert steep.mean_steps > 2 * gentle.mean_steps
    assert steep.n_at_bound == 0
    assert steep.error < 1e-5
    # and against another solver, over nine hours
    start = torch.full((1, model.latent_low.shape[0]), 0.5, dtype=torch.float64)
    states = start[:, : model.settings.hidden]
    expected = simulate(
        model.latent_system, start, torch.tensor([0.0, 9.0]), rtol=1e-10, atol=1e-12
    ).states[0, -1, : model.settings.hidden]
    shown = model.field.flow(states, model.field.steps(torch.full((1,), 9.0).double()), None)[0]
    torch.testing.assert_close(shown, expected, rtol=0, atol=1e-5)


def test_a_field_too_stiff_for_the_bound_is_told(untreated, build):
    model = build(untreated, "ode-rnn")
    with torch.no_grad():
        model.field.push.mul_(10_000)
        model.field.log_decay.add_(3)
    check = check_steps(model, untreated)
    assert check is not None
    assert check.n_at_bound > 0
    assert check.error > 1e-5
    assert check.warning is not None
    assert (
        f"{check.n_at_bound} of {check.n_gaps} gaps met the bound of {MAX_STEPS} steps"
        in check.warning
    )


def test_an_exact_flow_has_nothing_to_check(classified, build):
    assert check_steps(build(classified, "linear-latent-ode"), classified) is None
