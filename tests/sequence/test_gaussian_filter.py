"""The filter against dense Gaussian processes of the same state, built by scipy."""

import numpy as np
import pytest
import torch
from scipy.linalg import cholesky, expm, solve_continuous_lyapunov
from scipy.stats import multivariate_normal

from clinode.sequence.gaussian_filter import (
    FilterMoments,
    driven_flows,
    flows,
    moments_by_autograd,
    run_filter,
)

N_STATES = 3


def random_system(seed: int, n_variables: int) -> tuple[np.ndarray, ...]:
    """Drift, stationary covariance, observation map and noise of a stable system, any basis."""
    generator = np.random.default_rng(seed)
    A = generator.normal(size=(N_STATES, N_STATES)) * 0.3
    A -= (np.linalg.eigvals(A).real.max() + 0.02) * np.eye(N_STATES)
    half = generator.normal(size=(N_STATES, N_STATES))
    P = solve_continuous_lyapunov(A, -half @ half.T)
    C = generator.normal(size=(n_variables, N_STATES))
    return A, P, C, generator.uniform(0.05, 0.5, n_variables)


def whitened(A: np.ndarray, P: np.ndarray, C: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Drift and map in coordinates of stationary covariance 1."""
    root = cholesky(P, lower=True)
    return torch.from_numpy(np.linalg.solve(root, A @ root)), torch.from_numpy(C @ root)


def dense(A, P, C, noise, time, variable) -> np.ndarray:
    """Covariance of single measurements."""
    n = len(time)
    K = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            later, earlier = (i, j) if time[i] >= time[j] else (j, i)
            between = expm(A * (time[later] - time[earlier])) @ P
            K[i, j] = C[variable[later]] @ between @ C[variable[earlier]]
    return K + np.diag(noise[variable])


def filtered(batch, A, P, C, noise):
    drift, observation = whitened(A, P, C)
    start = torch.zeros(len(batch), N_STATES, dtype=torch.float64)
    log_noise = torch.from_numpy(noise).log()
    Phi = flows(drift, batch.gap)
    return run_filter(Phi, None, start, batch.value, observation, log_noise, batch)


@pytest.mark.parametrize("seed", range(3))
def test_the_likelihood_is_that_of_the_dense_gaussian_process(untreated, seed):
    batch = untreated.batch(np.arange(24), torch.float64)
    A, P, C, noise = random_system(seed, batch.value.shape[1])
    found = filtered(batch, A, P, C, noise).log_likelihood
    n_compared = 0
    for position in range(len(batch)):
        rows = torch.nonzero(batch.row_subject == position).squeeze(1)
        where, variable = np.nonzero(batch.mask[rows].numpy())
        if len(where) == 0:
            assert found[rows].abs().max() < 1e-12
            continue
        value = batch.value[rows].numpy()[where, variable]
        K = dense(A, P, C, noise, batch.time[rows].numpy()[where], variable)
        expected = multivariate_normal(cov=K).logpdf(value)
        assert found[rows].sum().item() == pytest.approx(expected, abs=1e-8)
        n_compared += len(value)
    assert n_compared > 200


def test_the_slope_of_the_likelihood_is_the_weighted_surprise_of_the_process(untreated):
    batch = untreated.batch([5, 9], torch.float64)
    A, P, C, noise = random_system(4, batch.value.shape[1])
    value = batch.value.clone().requires_grad_()
    found = filtered(batch.replace(value=value), A, P, C, noise).log_likelihood.sum()
    (slope,) = torch.autograd.grad(found, value)
    assert not slope[~batch.mask].any()
    for position in range(2):
        rows = torch.nonzero(batch.row_subject == position).squeeze(1)
        where, variable = np.nonzero(batch.mask[rows].numpy())
        K = dense(A, P, C, noise, batch.time[rows].numpy()[where], variable)
        expected = -np.linalg.solve(K, batch.value[rows].numpy()[where, variable])
        np.testing.assert_allclose(slope[rows].numpy()[where, variable], expected, atol=1e-9)


def test_means_and_covariances_are_those_of_the_process_given_what_was_measured(untreated):
    batch = untreated.batch([7], torch.float64)
    A, P, C, noise = random_system(5, batch.value.shape[1])
    found = filtered(batch, A, P, C, noise)
    root = cholesky(P, lower=True)
    where, variable = np.nonzero(batch.mask.numpy())
    time, value = batch.time.numpy()[where], batch.value.numpy()[where, variable]
    for row in range(batch.n_rows):
        now = batch.time[row].item()
        for known, mean in ((time < now, found.before), (time <= now, found.after)):
            K = dense(A, P, C, noise, time[known], variable[known])
            earlier = zip(time[known], variable[known], strict=True)
            across = [expm(A * (now - t)) @ P @ C[v] for t, v in earlier]
            across = np.array(across).reshape(-1, N_STATES).T
            expected = across @ np.linalg.solve(K, value[known])
            np.testing.assert_allclose(root @ mean[row].numpy(), expected, atol=1e-9)
        covariance = P - across @ np.linalg.solve(K, across.T)
        shown = root @ found.covariance[row].numpy() @ root.T
        np.testing.assert_allclose(shown, covariance, atol=1e-9)


def test_a_row_without_an_observation_only_flows(untreated):
    batch = untreated.batch([5, 9, 12], torch.float64)
    A, P, C, noise = random_system(6, batch.value.shape[1])
    drop = torch.zeros_like(batch.mask)
    second = slice(batch.offsets[1], batch.offsets[2])
    drop[second] = True
    empty = filtered(batch.without(drop), A, P, C, noise)
    assert torch.equal(empty.before[second], empty.after[second])
    drift, _ = whitened(A, P, C)
    flow = flows(drift, batch.gap[second])
    eye = torch.eye(N_STATES, dtype=torch.float64)
    expected = eye + flow @ (empty.covariance[: batch.sizes[1]] - eye) @ flow.mT
    torch.testing.assert_close(empty.covariance[second], expected, rtol=0, atol=1e-14)


def slopes_of(way, leaves, sizes, *, twice: bool):
    """Of sums of what a way gives, weighted by numbers of their own."""
    Phi, moved, start, weight, j, C = leaves
    J = torch.einsum("rv,vi,vj->rij", weight, C, C)
    found = way(Phi, moved, start, J, j, sizes)
    loss = sum(
        (part * torch.linspace(-1, 1, part.numel(), dtype=part.dtype).view_as(part)).sum()
        for part in found
    )
    wanted = [leaf for leaf in leaves if leaf is not None]
    slopes = torch.autograd.grad(loss, wanted, create_graph=twice)
    if twice:
        slopes = torch.autograd.grad(sum((slope**2).sum() for slope in slopes), wanted)
    return [*found, *slopes]


@pytest.mark.parametrize("with_drive", [True, False])
@pytest.mark.parametrize("twice", [False, True])
def test_the_written_slopes_agree_with_autograd(untreated, with_drive, twice):
    batch = untreated.batch([5, 9, 12, 13], torch.float64)
    A, P, C, noise = random_system(9, batch.value.shape[1])
    drift, observation = whitened(A, P, C)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    leaves = [
        flows(drift, batch.gap),
        draw(batch.n_rows, N_STATES) if with_drive else None,
        draw(len(batch), N_STATES),
        batch.mask / torch.from_numpy(noise),
        draw(batch.n_rows, N_STATES),
        observation,
    ]
    for leaf in leaves:
        if leaf is not None:
            leaf.requires_grad_()
    ways = (FilterMoments.apply, moments_by_autograd)
    ours, oracle = (slopes_of(way, leaves, batch.sizes, twice=twice) for way in ways)
    for one, other in zip(ours, oracle, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10 * other.abs().max().item())


def test_the_carried_drive_is_the_integral_of_the_flow():
    A, *_ = random_system(7, 1)
    gap = torch.tensor([[0.0, 1e-7, 0.5], [0.5, 30.0, 400.0]], dtype=torch.float64)
    Phi, Gamma = driven_flows(torch.from_numpy(A), gap)
    for place in np.ndindex(2, 3):
        expected = expm(A * gap[place].item())
        np.testing.assert_allclose(Phi[place], expected, rtol=1e-11, atol=1e-14)
        integral = np.linalg.solve(A, expected - np.eye(N_STATES))
        np.testing.assert_allclose(Gamma[place], integral, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("gap", np.geomspace(1e-6, 300, 15))
def test_one_gap_alone_is_as_exact_as_many(gap):
    A, *_ = random_system(7, 1)
    Phi = flows(torch.from_numpy(A), torch.tensor([gap], dtype=torch.float64))
    np.testing.assert_allclose(Phi[0], expm(A * gap), rtol=1e-13, atol=1e-15)


def test_weights_that_diverged_give_nan_and_no_error(untreated):
    batch = untreated.batch([5, 9], torch.float64)
    A, P, C, noise = random_system(8, batch.value.shape[1])
    C[0, 0] = np.nan
    assert filtered(batch, A, P, C, noise).log_likelihood.isnan().all()
