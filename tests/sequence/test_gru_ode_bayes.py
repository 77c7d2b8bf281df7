import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch.distributions import Normal, kl_divergence

from clinode.sequence.gru_ode_bayes import NOISE

DOUBLE = torch.float64
SUBJECT = 12


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def follow(model, batch) -> tuple[np.ndarray, np.ndarray]:
    """States before and after each row of one subject, from the equations of the paper."""
    p = {key: value.numpy() for key, value in model.state_dict().items()}
    B = model.drive.matrix.detach().numpy()
    n, rate = model.settings.hidden, np.exp(p["log_rate"])
    value, mask, time = (part.numpy() for part in (batch.value, batch.mask, batch.time))
    remembered = model.memory.before(batch).detach().numpy()
    rates = batch.treatments.rates(batch.n_rows).numpy()
    doses = batch.treatments.impulses(batch.n_rows).numpy()

    def field(t, x, drive):
        r = sigmoid(p["hold.weight"] @ x + p["hold.bias"])
        g = np.tanh(p["aim.weight"] @ x + p["aim.bias"])
        return rate * (1 - 0.9 * r) * (g - x) + drive

    x, before, after = np.zeros(n), [], []
    for row in range(batch.n_rows):
        if row:
            span = (time[row - 1], time[row])
            drive = B @ rates[row]
            x = solve_ivp(field, span, x, args=(drive,), rtol=1e-10, atol=1e-12).y[:, -1]
        x = x + B @ doses[row]
        before.append(x)
        if mask[row].any():
            mean = p["decoder.weight"] @ np.concatenate([x, remembered[row]]) + p["decoder.bias"]
            log_spread = np.clip(p["spread.weight"] @ x + p["spread.bias"], -4, 4)
            told = np.zeros((len(mean), 4))
            for v in np.flatnonzero(mask[row]):
                error = (value[row, v] - mean[v]) / np.exp(log_spread[v])
                parts = np.array([value[row, v], mean[v], log_spread[v], error])
                told[v] = np.maximum(p["tell"][v] @ parts + p["tell_offset"][4 * v : 4 * v + 4], 0)
            y = p["inward.weight"] @ told.ravel() + p["inward.bias"]
            update = sigmoid(y[:n] + p["recur"][:n] @ x)
            reset = sigmoid(y[n : 2 * n] + p["recur"][n : 2 * n] @ x)
            proposal = np.tanh(y[2 * n :] + p["recur"][2 * n :] @ (reset * x))
            x = x + update * (proposal - x)
        after.append(x)
    return np.array(before), np.array(after)


def test_the_state_follows_its_field_and_its_updates(classified, build):
    model = build(classified, "gru-ode-bayes")
    batch = classified.batch([SUBJECT], DOUBLE)
    with torch.no_grad():
        after, before = model._run(batch, model.memory.before(batch))
    expected = follow(model, batch)
    np.testing.assert_allclose(before.numpy(), expected[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(after.numpy(), expected[1], rtol=0, atol=1e-5)


def test_without_treatment_every_state_enters_the_unit_box(classified, build):
    system = build(classified, "gru-ode-bayes").latent_system
    generator = torch.Generator().manual_seed(0)
    n = len(system.a)
    x = torch.randn(300, system.n_states, dtype=DOUBLE, generator=generator)
    side = x[:, :n].sign()
    x[:, :n] = side * (1 + x[:, :n].abs())
    field = system.vector_field(0.0, x, torch.zeros(2, dtype=DOUBLE))
    assert (field[:, :n] * side < 0).all()


def test_its_loss_is_the_likelihood_and_the_divergence_from_bayes_rule(classified, build):
    model = build(classified, "gru-ode-bayes")
    batch = classified.batch([4, SUBJECT], DOUBLE)
    with torch.no_grad():
        encoding = model.encode(batch)
        remembered = model.memory.before(batch)
        prior = normal(model, encoding.before, remembered)
        shown = torch.where(batch.mask, batch.value, remembered)
        posterior = normal(model, encoding.after, shown)
        # precisions add; the noise's standard deviation is that of a measurement
        precision = prior.variance**-1 + NOISE**-2
        mean = (prior.mean * prior.variance**-1 + batch.value * NOISE**-2) / precision
        bayes = Normal(mean, precision**-0.5)
        constant = 0.5 * np.log(2 * np.pi)
        each = -prior.log_prob(batch.value) - constant + kl_divergence(bayes, posterior)
        expected = model.settings.likelihood_weight * each[batch.mask].mean()
        found = model._own_loss(batch, encoding, None, batch.mask.sum().to(DOUBLE))
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def normal(model, states, remembered) -> Normal:
    mean = torch.cat([states, remembered], 1) @ model.decoder.weight.T + model.decoder.bias
    log_spread = states @ model.spread.weight.T + model.spread.bias
    return Normal(mean, log_spread.clamp(-4, 4).exp())


def test_a_variable_that_was_not_measured_tells_nothing(classified, build):
    model = build(classified, "gru-ode-bayes")
    batch = classified.batch([SUBJECT], DOUBLE)
    wild = batch.replace(value=torch.where(batch.mask, batch.value, 1e3))
    with torch.no_grad():
        found, _ = model._run(batch, model.memory.before(batch))
        again, _ = model._run(wild, model.memory.before(batch))
    assert torch.equal(found, again)
