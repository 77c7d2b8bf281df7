import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import expm
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from clinode.cohort import Classify
from clinode.sequence.kalman_latent_ode import KalmanLatentODE
from clinode.sequence.summaries import static_inputs

NAME = "kalman-latent-ode"


def forgetful(model):
    """The same model without the memory in its decoder: a Gaussian process."""
    with torch.no_grad():
        model.decoder.weight[:, model.settings.latent :] = 0
    return model


def process(model, batch, position: int):
    """Times, variables and values of one record, and mean and covariance of the latter.

    The mean has what the statics start and the treatments add, one event at a time, by scipy.
    """
    n = model.settings.latent
    A = model.drift.detach().numpy()
    C, R = np.split(model.decoder.weight.detach().numpy(), [n], axis=1)
    B, noise = model.drive.matrix.detach().numpy(), model.noise.detach().numpy()
    start = model.start.detach().numpy() @ static_inputs(batch)[position].numpy()
    rows = torch.nonzero(batch.row_subject == position).squeeze(1)
    where, variable = np.nonzero(batch.mask[rows].numpy())
    time = batch.time[rows].numpy()[where]
    given = batch.treatments
    mean = np.zeros(len(time))
    for i, (now, v) in enumerate(zip(time, variable, strict=True)):
        state = expm(A * now) @ start
        if given is not None:
            for event in torch.nonzero(given.subject == position).squeeze(1).tolist():
                push = B[:, given.input_index[event]] * given.value[event].item()
                begin, end = given.start[event].item(), given.end[event].item()
                if begin > now:
                    continue
                if given.is_impulse[event]:
                    state = state + expm(A * (now - begin)) @ push
                else:
                    until = expm(A * (now - min(end, now)))
                    held = np.linalg.solve(A, expm(A * (now - begin)) - until)
                    state = state + held @ push
        mean[i] = C[v] @ state + model.decoder.bias[v].item()
    K = np.diag(noise[variable])
    for i in range(len(time)):
        for j in range(i + 1):
            shared = C[variable[i]] @ expm(A * (time[i] - time[j])) @ C[variable[j]]
            K[i, j] += shared
            K[j, i] += shared if i > j else 0.0
    value = batch.value[rows].numpy()[where, variable]
    remembered = model.memory.before(batch).detach()[rows].numpy()[where]
    recalled = (remembered * R[variable]).sum(axis=1)
    return time, variable, value - recalled, mean, K


@pytest.mark.parametrize("recalls", [False, True])
def test_the_likelihood_is_that_of_a_dense_gaussian_process(classified, build, recalls):
    # with a memory: what it recalls is a function of earlier values, so the density is that of the
    # rest (the Jacobian of taking it away is triangular with ones on its diagonal)
    model = build(classified, NAME)
    model = model if recalls else forgetful(model)
    batch = classified.batch(np.arange(8), torch.float64)
    found = model.log_likelihood(batch)
    for position in range(len(batch)):
        _, _, value, mean, K = process(model, batch, position)
        expected = multivariate_normal(mean, K).logpdf(value) if len(value) else 0.0
        assert found[position].item() == pytest.approx(expected, abs=1e-8)


def test_forecast_moments_are_the_conditional_ones_of_the_process(untreated, build):
    model = forgetful(build(untreated, NAME))
    batch = untreated.batch([6, 9], torch.float64)
    asked = torch.tensor([[-5.0, 21.0, 60.0], [0.0, 14.5, 47.0]], dtype=torch.float64)
    mean, variance = model.moments(batch, asked)
    A, n = model.drift.detach().numpy(), model.settings.latent
    C = model.decoder.weight.detach().numpy()[:, :n]
    start = static_inputs(batch).numpy() @ model.start.detach().numpy().T
    for position in range(2):
        time, variable, value, expected, K = process(model, batch, position)
        for query, now in enumerate(asked[position].tolist()):
            known = time <= now
            pairs = zip(time[known], variable[known], strict=True)
            across = np.array([C @ expm(A * (now - t)) @ C[v] for t, v in pairs]).reshape(-1, 4)
            solved = np.linalg.solve(K[np.ix_(known, known)], across)
            prior = (
                C @ expm(A * max(now, 0)) @ start[position] + model.decoder.bias.detach().numpy()
            )
            conditional = prior + solved.T @ (value - expected)[known]
            spread = (C**2).sum(axis=1) - (across * solved).sum(axis=0)
            np.testing.assert_allclose(mean[position, query].detach(), conditional, atol=1e-8)
            np.testing.assert_allclose(
                variance[position, query].detach(), spread + model.noise.detach().numpy(), atol=1e-8
            )


def test_one_state_is_an_ornstein_uhlenbeck_process(pack):
    theta, noise, generator = 0.7, 0.1, np.random.default_rng(0)
    time = np.sort(generator.uniform(0, 20, 25))
    tables = {
        "observations": pd.DataFrame(
            {"subject_id": 1, "time": time, "variable": "HR", "value": generator.normal(80, 9, 25)}
        ),
        "statics": None,
        "inputs": None,
        "outcomes": pd.DataFrame({"subject_id": [1], "died": [0]}),
    }
    records = pack(tables, Classify("died", at=20.0))
    model = KalmanLatentODE(latent=1).build(records.schema, records.task, torch.Generator())
    model = model.double()
    with torch.no_grad():
        model.decoder.weight.copy_(torch.tensor([[1.0, 0.0]]))
        model.log_noise.fill_(math.log(noise - 1e-6))
        model.turn.zero_()
        model.mix.fill_(math.sqrt(2 - 1e-3))
        model.log_rate.fill_(math.log(theta * records.schema.window / 48))
    batch = records.batch([0], torch.float64)
    kernel = ConstantKernel(1.0) * Matern(1 / theta, nu=0.5) + WhiteKernel(noise)
    oracle = GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None)
    oracle.fit(batch.time.numpy()[:, None], batch.value.numpy()[:, 0])
    found = model.log_likelihood(batch).item()
    assert found == pytest.approx(oracle.log_marginal_likelihood_value_, abs=1e-8)
    asked = np.array([20.5, 22.0, 40.0])
    mean, variance = model.moments(batch, torch.from_numpy(asked).unsqueeze(0))
    expected, covariance = oracle.predict(asked[:, None], return_cov=True)
    np.testing.assert_allclose(mean[0, :, 0].detach(), expected, atol=1e-8)
    np.testing.assert_allclose(variance[0, :, 0].detach(), np.diag(covariance), atol=1e-8)


def test_the_drift_is_stable_and_leaves_the_covariance_of_one(classified, build):
    for seed in range(5):
        model = build(classified, NAME)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in (model.turn, model.mix, model.log_rate):
                parameter.normal_(0, 2, generator=generator)
        A = model.drift
        assert (torch.linalg.eigvals(A).real < 0).all()
        lost = -(A + A.T)  # of the process noise: A 1 + 1 A' + Q = 0
        assert (torch.linalg.eigvalsh(lost) > 0).all()


def test_an_empty_row_changes_neither_moments_nor_likelihood(tables, untreated, build, pack):
    model = build(untreated, NAME)
    extra = pd.DataFrame(
        {"subject_id": 6, "time": [0.05, 17.3, 33.3], "variable": "HR", "value": 80.0}
    )
    observations = pd.concat([tables["observations"], extra])
    more = {**tables, "observations": observations, "inputs": None}
    batch = pack(more, untreated.task, untreated.schema).batch([5], torch.float64)
    is_extra = torch.isin(batch.time, torch.tensor(extra["time"].to_numpy()))
    assert is_extra.sum() == 3
    assert is_extra[0]  # before everything measured as well
    split = batch.without(is_extra.unsqueeze(1).expand_as(batch.mask))
    plain = untreated.batch([5], torch.float64)
    asked = torch.tensor([[20.0, 44.0]], dtype=torch.float64)
    shown = *model.moments(split, asked), model.log_likelihood(split)
    expected = *model.moments(plain, asked), model.log_likelihood(plain)
    for one, other in zip(shown, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
