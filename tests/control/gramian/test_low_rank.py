import math

import numpy as np
import pytest
import torch
from scipy import sparse

from clinode.control.gramian.gramian import controllability_gramian
from clinode.control.gramian.low_rank import low_rank_gramian
from clinode.control.gramian.sparse import sparse_dynamics
from clinode.errors import ArgumentError


def undirected(n, seed=0, degree=8):
    rng = np.random.default_rng(seed)
    W = sparse.random_array((n, n), density=degree / n, rng=rng, data_sampler=rng.random)
    return sparse.csr_array(W + W.T)


def path(n):
    return sparse.diags_array([np.ones(n - 1), np.ones(n - 1)], offsets=[-1, 1]).tocsr()


@pytest.mark.parametrize("make", [undirected, path])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-10])
def test_the_factor_gives_the_gramian_within_its_bound(make, tolerance):
    A = sparse_dynamics(make(300))
    B = np.random.default_rng(1).normal(size=(300, 3))
    found = low_rank_gramian(A, B, tolerance=tolerance)
    W = controllability_gramian(A.toarray(), B, math.inf)
    error = float(torch.linalg.matrix_norm(found.factor @ found.factor.T - W, 2))
    assert found.residual <= tolerance
    assert error <= found.error_bound + 1e-12 * float(W.norm())
    torch.testing.assert_close(found.diagonal(), W.diagonal(), rtol=0, atol=found.error_bound)


def test_the_residual_bounds_that_of_the_lyapunov_equation():
    A = sparse_dynamics(undirected(100, seed=2))
    B = np.eye(100)[:, :4]
    found = low_rank_gramian(A, B, tolerance=1e-3)
    W = (found.factor @ found.factor.T).numpy()
    left = A @ W + W @ A + B @ B.T
    assert 0.2 * found.residual <= np.linalg.norm(left, 2) <= found.residual <= 1e-3
    assert found.rank < 40


def test_one_decay_rate_takes_one_shift():
    found = low_rank_gramian(-3 * sparse.eye_array(50).tocsr(), np.ones((50, 1)))
    assert found.rank == 1
    expected = torch.full((50,), 1 / 6, dtype=torch.float64)
    torch.testing.assert_close(found.diagonal(), expected, rtol=1e-9, atol=0)


def test_more_accuracy_and_slower_decay_take_more_shifts():
    B = np.eye(200)[:, :1]
    near, far = (sparse_dynamics(undirected(200), c=c) for c in (1.0, 0.01))
    ranks = [low_rank_gramian(near, B, tolerance=t).rank for t in (1e-3, 1e-6, 1e-9)]
    assert ranks == sorted(ranks)
    assert ranks[0] < ranks[-1] < low_rank_gramian(far, B, tolerance=1e-9).rank


def test_inputs_come_in_every_form_and_none_reach_nothing():
    A = sparse_dynamics(undirected(30))
    B = np.eye(30)[:, :2]
    expected = low_rank_gramian(A, B).diagonal()
    for form in (torch.tensor(B), B.tolist(), torch.tensor(B).float()):
        torch.testing.assert_close(low_rank_gramian(A, form).diagonal(), expected)
    nothing = low_rank_gramian(A, np.zeros((30, 2)))
    assert nothing.rank == 0
    assert not nothing.diagonal().any()
    assert set(nothing.to_dict()) >= {"rank", "residual", "error_bound", "trace"}


@pytest.mark.parametrize(
    ("A", "B", "given", "words"),
    [
        (sparse.csr_array([[-1.0, 1.0], [0.0, -1.0]]), np.ones((2, 1)), {}, "not symmetric"),
        (sparse.csr_array([[1.0]]), [[1.0]], {}, "finite horizon"),
        (sparse.csr_array([[-1.0]]), [[1.0], [1.0]], {}, "one for each state"),
        (sparse.csr_array([[-1.0]]), [[math.inf]], {}, "not finite"),
        (sparse.csr_array([[-1.0]]), [[1.0]], {"tolerance": 1e-14}, "between 1e-12"),
    ],
)
def test_what_is_no_question_is_refused(A, B, given, words):
    with pytest.raises(ArgumentError, match=words):
        low_rank_gramian(A, B, **given)
