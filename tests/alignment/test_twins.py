import numpy as np
import pytest
import scipy.linalg
import torch

import clinode as cn
from clinode.alignment import covariance_twins, seen_effects, similar_twins
from clinode.dynamics import Moments, stationary_covariance, stationary_moments
from clinode.errors import ArgumentError, SolverError


def stable(n, seed):
    draw = np.random.default_rng(seed)
    W = 0.6 * draw.standard_normal((n, n)) / np.sqrt(n)
    return cn.LinearSystem(W - np.eye(n), draw.standard_normal((n, 2)), draw.normal(size=(3, n)))


@pytest.mark.parametrize("n", [2, 5, 20])
def test_covariance_twins_share_mean_and_covariance_and_nothing_else(n):
    system, draw = stable(n, n), np.random.default_rng(n)
    half = draw.normal(size=(n, n))
    Q, u = half @ half.T + np.eye(n), torch.tensor([0.3, -1.0]).double()
    seen = stationary_moments(system, cn.find_equilibria(system, u)[0], Q)
    for twin in covariance_twins(system, Q, 3, u=u):
        other = stationary_moments(twin, cn.find_equilibria(twin, u)[0], Q)
        np.testing.assert_allclose(other.mean, seen.mean, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(other.covariance, seen.covariance, rtol=1e-8, atol=1e-9)
        P = stationary_covariance(twin.A.numpy(), Q)
        assert np.abs(scipy.linalg.expm(twin.A.numpy()) @ P
                      - scipy.linalg.expm(system.A.numpy()) @ P).max() > 1e-3  # fmt: skip


def test_similar_twins_have_the_transfer_function_of_the_system():
    system = stable(4, 1)
    A, B, C = (one.numpy() for one in (system.A, system.B, system.C))
    for twin in similar_twins(system, 3):
        a, b, c = (one.numpy() for one in (twin.A, twin.B, twin.C))
        assert np.abs(a - A).max() > 0.1
        for s in (0.3j, 1 + 2j):
            own = C @ np.linalg.solve(s * np.eye(4) - A, B)
            np.testing.assert_allclose(c @ np.linalg.solve(s * np.eye(4) - a, b), own, atol=1e-9)


def test_seeing_predicts_that_an_effect_moves_its_cause():
    chain = cn.LinearSystem([[-1.0, 0.0], [0.8, -1.0]], torch.zeros(2, 0), offset=([1.0, 2.0], []))
    moments = stationary_moments(chain, cn.find_equilibria(chain)[0], [1.0, 1.0])
    P = moments.covariance
    effects = seen_effects(moments, [(cn.silence("x2"),), (cn.inject("x1", 1.0),)], ["x1", "x2"])
    np.testing.assert_allclose(effects[0], [-2 * P[0, 1] / P[1, 1], -2.0])
    assert np.isnan(effects[1]).all()


def test_what_has_no_twin_is_refused():
    system = stable(3, 2)
    with pytest.raises(ArgumentError, match="one state alone"):
        covariance_twins(cn.LinearSystem([[-1.0]], [[1.0]]), [1.0])
    with pytest.raises(ArgumentError, match="n_twins must be at least 1"):
        covariance_twins(system, np.ones(3), 0)
    with pytest.raises(ArgumentError, match="twins are made of one linear flow"):
        similar_twins(cn.LinearSystem([[0.5]], [[1.0]], step=1.0), 1)
    with pytest.raises(SolverError, match="does not decay"):
        covariance_twins(cn.LinearSystem(np.eye(2), np.ones((2, 1))), np.ones(2))
    with pytest.raises(ArgumentError, match=r"diffusion has shape \(2, 2\)"):
        covariance_twins(system, np.ones(2))
    with pytest.raises(ArgumentError, match="spread must be positive"):
        similar_twins(system, 1, spread=0.0)
    with pytest.raises(ArgumentError, match="nothing was seen of 'c'"):
        seen_effects(Moments(("a",), np.zeros(1), np.eye(1)), [(cn.silence("a"),)], ["c"])
