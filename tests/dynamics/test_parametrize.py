import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from clinode.dynamics.parametrize import (
    ConductanceForm,
    DalesLaw,
    LowRank,
    SparsityMask,
    Stable,
)
from clinode.errors import ArgumentError


def draw(seed, *shape):
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def trained(prior, weight, n_steps=30):
    """A linear layer under a prior, after steps toward weights that break it."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    layer.weight.data = prior.impose(layer.weight)
    register_parametrization(layer, "weight", prior)
    layer.weight = weight
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.3)
    for _ in range(n_steps):
        optimizer.zero_grad()
        (layer.weight + weight).pow(2).sum().backward()
        optimizer.step()
    return layer.weight.detach()


@pytest.mark.parametrize("seed", range(5))
def test_under_dales_law_a_column_keeps_its_sign_through_training(seed):
    signs = torch.where(draw(seed, 6) > 0, 1.0, -1.0)
    weight = signs * draw(seed + 1, 4, 6).abs()
    moved = trained(DalesLaw(signs), weight)
    assert ((moved * signs) > 0).all()
    assert not torch.allclose(moved, weight)


@pytest.mark.parametrize("seed", range(5))
def test_a_mask_keeps_every_missing_connection_at_zero_through_training(seed):
    mask = draw(seed, 5, 5) > 0
    weight = torch.where(mask, draw(seed + 1, 5, 5), 0.0)
    moved = trained(SparsityMask(mask), weight)
    assert (moved[~mask] == 0).all()
    torch.testing.assert_close(moved[mask], -weight[mask], rtol=1e-3, atol=1e-3)


def test_dales_law_and_a_mask_together_make_a_sparse_signed_matrix():
    signs, mask = torch.tensor([1.0, -1.0, 1.0]), draw(1, 3, 3) > -0.3
    prior = DalesLaw(signs, mask)
    weight = prior.impose(draw(2, 3, 3))
    moved = trained(prior, weight)
    assert (moved[~mask] == 0).all()
    assert ((moved * signs)[mask] > 0).all()
    torch.testing.assert_close(prior(prior.right_inverse(weight)), weight)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_low_rank_weights_are_the_nearest_of_their_rank(rank):
    prior, W = LowRank(6, 4, rank), draw(0, 6, 4)
    near = prior(prior.right_inverse(W))
    assert torch.linalg.matrix_rank(near) == rank
    U, S, Vh = np.linalg.svd(W.numpy(), full_matrices=False)
    best = (U[:, :rank] * S[:rank]) @ Vh[:rank]
    np.testing.assert_allclose(near, best, atol=1e-13)


@pytest.mark.parametrize("n", [1, 3, 12])
@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_a_stable_matrix_has_its_spectrum_left_of_the_margin_whatever_the_numbers(n, margin, scale):
    prior = Stable(n, margin)
    for seed in range(5):
        A = prior(scale * draw(seed, 3 * n, n))
        assert np.linalg.eigvals(A.numpy()).real.max() < -margin


@pytest.mark.parametrize("n", [1, 2, 5, 12])
@pytest.mark.parametrize("seed", range(3))
def test_every_matrix_with_a_stable_spectrum_comes_from_some_numbers(n, seed):
    A = draw(seed, n, n)
    margin = 0.3
    A = A - (np.linalg.eigvals(A.numpy()).real.max() + margin + 0.1) * torch.eye(n)
    prior = Stable(n, margin)
    torch.testing.assert_close(prior(prior.right_inverse(A)), A, rtol=1e-8, atol=1e-9)


def test_the_stable_form_is_the_lyapunov_equation_of_scipy():
    A = draw(3, 5, 5) - 4 * torch.eye(5)
    L = Stable(5).right_inverse(A)[10:]
    P = scipy.linalg.solve_continuous_lyapunov(A.numpy(), -np.eye(5))
    made = (L @ L.T).numpy()
    np.testing.assert_allclose(made / made[0, 0], P / P[0, 0], rtol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_currents_in_conductance_form_stop_at_the_reversal_potential(seed):
    reversal = torch.tensor([0.0, -80.0, -70.0])
    prior = ConductanceForm(reversal, unit_conductance=2.0)
    g = 2.0 * draw(seed, 4, 3).exp()
    torch.testing.assert_close(prior(prior.right_inverse(g)), g, rtol=1e-12, atol=1e-12)
    s, V = torch.rand(7, 3).double(), 20 * draw(seed, 7, 4) - 60
    expected = (g * s.unsqueeze(1) * (reversal - V.unsqueeze(-1))).sum(-1)
    torch.testing.assert_close(prior.current(g, s, V), expected)
    alone = torch.tensor([0.0, 1.0, 0.0]).double()
    at_rest = torch.full((4,), -80.0).double()
    assert prior.current(g, alone, at_rest).abs().max() < 1e-12


@pytest.mark.parametrize(
    "prior",
    [DalesLaw(torch.tensor([1.0, -1.0])), LowRank(2, 2, 1), Stable(2, 0.1)],
    ids=["dale", "low-rank", "stable"],
)
def test_priors_are_differentiable(prior):
    rows = {LowRank: 4, Stable: 6}.get(type(prior), 2)
    columns = 1 if isinstance(prior, LowRank) else 2
    V = draw(0, rows, columns).requires_grad_()
    assert torch.autograd.gradcheck(prior, V)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DalesLaw(torch.tensor([1.0, 0.0])), "must be \\+1"),
        (lambda: LowRank(3, 4, 4), r"rank must lie in 1\.\.3"),
        (lambda: Stable(2, -1.0), "margin of at least 0"),
        (lambda: ConductanceForm(torch.zeros(2), 0.0), "must be positive"),
        (
            lambda: DalesLaw(torch.tensor([1.0, -1.0])).right_inverse(torch.ones(2, 2)),
            "2 of 4 weights",
        ),
        (lambda: Stable(2).right_inverse(torch.eye(2).double()), "real part 1, not below -0"),
        (
            lambda: SparsityMask(torch.tensor([[True, False]])).right_inverse(torch.ones(1, 2)),
            "1 weights are not 0",
        ),
        (
            lambda: ConductanceForm(torch.zeros(2)).right_inverse(torch.zeros(1, 2)),
            "conductances must be positive",
        ),
    ],
)
def test_what_breaks_the_structure_is_refused(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()
