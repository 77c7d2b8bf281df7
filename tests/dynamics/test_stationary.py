import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

import clinode as cn
from clinode.dynamics import (
    DalesLaw,
    NetworkDrift,
    SparsityMask,
    fit_stationary,
    stationary_covariance,
    stationary_moments,
)
from clinode.errors import ArgumentError, SolverError


def sparse_network(n, seed):
    draw = torch.Generator().manual_seed(seed)
    mask = (torch.rand(n, n, generator=draw) < 0.3) & ~torch.eye(n, dtype=torch.bool)
    W = torch.randn(n, n, generator=draw, dtype=torch.float64) * mask
    W = 0.7 * W / torch.linalg.eigvals(W).abs().max().clamp(min=1.0)
    return W, mask


def test_the_covariance_of_a_pair_is_its_closed_form():
    # dx = (-x + w y) dt + dW1, dy = -y dt + dW2: var y = 1/2, cov = w/4, var x = 1/2 + w^2/4
    w = 0.6
    P = stationary_covariance(np.array([[-1.0, w], [0.0, -1.0]]), np.eye(2))
    np.testing.assert_allclose(P, [[0.5 + w**2 / 4, w / 4], [w / 4, 0.5]], atol=1e-14)
    with pytest.raises(SolverError, match=r"a mode of rate 0\.1 does not decay"):
        stationary_covariance(np.array([[0.1]]), np.eye(1))


def test_the_moments_of_a_simulated_network_are_those_of_the_theory():
    W, _ = sparse_network(3, 1)
    system = cn.LinearSystem(
        W - torch.eye(3).double(), torch.ones(3, 1).double(), [[1.0, 1.0, 0.0]]
    )
    seen = stationary_moments(system, cn.find_equilibria(system, 1.0)[0], [0.1, 0.2, 0.3])
    draw = np.random.default_rng(0)
    A, h = system.A.numpy(), 0.02
    x, kept = np.tile(-np.linalg.solve(A, np.ones(3)), (4000, 1)), []
    for k in range(600):
        x = (
            x
            + h * (x @ A.T + 1)
            + np.sqrt(h * np.array([0.1, 0.2, 0.3])) * draw.normal(size=x.shape)
        )
        if k % 100 == 99 and k > 300:
            kept.append(x[:, 0] + x[:, 1])
    sample = np.concatenate(kept)
    assert sample.var() == pytest.approx(seen.covariance[0, 0], rel=0.05)
    assert sample.mean() == pytest.approx(seen.mean[0], abs=0.02)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_mask_finds_the_weights_and_free_weights_find_others_of_the_same_covariance(seed):
    n = 6
    W, mask = sparse_network(n, seed)
    A = (W - torch.eye(n).double()).numpy()
    P = stationary_covariance(A, np.eye(n))
    start = 0.4 * torch.randn(n, n, generator=torch.Generator().manual_seed(seed + 50)).double()
    masked, free = NetworkDrift(mask * start), NetworkDrift(start)
    parametrize.register_parametrization(masked, "weight", SparsityMask(mask))
    found = fit_stationary(masked, P, np.ones(n))
    assert found.explained == pytest.approx(1.0, abs=1e-8)
    np.testing.assert_allclose(found.A, A, atol=1e-3)
    other = fit_stationary(free, P, np.ones(n))
    assert other.explained == pytest.approx(1.0, abs=1e-8)
    assert np.abs(other.A - A).max() > 0.05
    assert other.verdict == "not determined: 36 free numbers for 21 that were seen"


def test_every_push_that_was_seen_is_answered():
    W, _ = sparse_network(5, 3)
    A = (W - torch.eye(5).double()).numpy()
    pushes = np.eye(5)
    moves = -np.linalg.solve(A, pushes.T).T
    drift = NetworkDrift(torch.zeros(5, 5))
    P = stationary_covariance(A, np.eye(5))
    found = fit_stationary(drift, P, np.ones(5), pushes=pushes, moves=moves)
    np.testing.assert_allclose(found.A, A, atol=1e-4)


def test_dales_law_stays_kept():
    W, _ = sparse_network(5, 4)
    signs = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0]).double()
    law = DalesLaw(signs, ~torch.eye(5, dtype=torch.bool))
    drift = NetworkDrift(law.impose(W + 0.1))
    parametrize.register_parametrization(drift, "weight", law)
    A = (W - torch.eye(5).double()).numpy()
    fit_stationary(drift, stationary_covariance(A, np.eye(5)), np.ones(5), max_iterations=100)
    weights = drift.weight.detach()
    assert (weights * signs >= 0).all()
    assert (weights.diagonal() == 0).all()


def test_what_cannot_be_fitted_is_refused():
    P, drift = np.eye(3), NetworkDrift(torch.zeros(3, 3))
    with pytest.raises(ArgumentError, match="expected square and finite"):
        fit_stationary(drift, np.full((3, 3), np.nan), np.ones(3))
    with pytest.raises(ArgumentError, match="is not symmetric"):
        fit_stationary(drift, np.triu(np.ones((3, 3))), np.ones(3))
    with pytest.raises(ArgumentError, match="more snapshots than states"):
        fit_stationary(drift, np.ones((3, 3)), np.ones(3))
    with pytest.raises(ArgumentError, match="diffusion must be symmetric without a negative"):
        fit_stationary(drift, P, [1.0, 1.0, -1.0])
    with pytest.raises(ArgumentError, match="pushes and moves come together"):
        fit_stationary(drift, P, np.ones(3), pushes=np.eye(3))
    with pytest.raises(ArgumentError, match="must be"):
        fit_stationary(drift, P, np.ones(3), pushes=np.eye(2), moves=np.eye(2))
    with pytest.raises(ArgumentError, match="the drift must give float64"):
        fit_stationary(drift, np.eye(4), np.ones(4))
    with pytest.raises(ArgumentError, match="the drift must give float64"):
        fit_stationary(drift.float(), P, np.ones(3))
