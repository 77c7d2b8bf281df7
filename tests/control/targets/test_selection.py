"""Sets of inputs and scores, against enumeration, duality and networks whose answer is known."""

import itertools
import math

import mpmath
import numpy as np
import pytest
import scipy.optimize
import torch

from clinode.control.gramian.gramian import controllability_gramian
from clinode.control.targets.selection import (
    average_energy_scores,
    best_inputs,
    greedy_inputs,
    volumetric_scores,
)
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity


def network(seed, n=9, *, symmetric=False):
    draws = np.random.default_rng(seed)
    A = draws.normal(size=(n, n)) / math.sqrt(n)
    A = ((A + A.T) / 2 if symmetric else A) - 1.5 * np.eye(n)
    return LinearSystem(A, np.eye(n))


def gramian(linear, i, horizon):
    return controllability_gramian(linear.A, linear.B[:, [i]], horizon).numpy()


def gain(linear, inputs, horizon, floor):
    n = linear.n_states
    W = sum(gramian(linear, linear.input_names.index(name), horizon) for name in inputs)
    return np.linalg.slogdet(W / floor + np.eye(n))[1]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("horizon", [0.5, 3.0, math.inf])
def test_each_greedy_choice_is_the_best_next_one(symmetric, horizon):
    linear = network(1, symmetric=symmetric)
    chosen = greedy_inputs(linear, 4, horizon)
    for k in range(4):
        so_far = chosen.inputs[:k]
        gains = {
            name: gain(linear, (*so_far, name), horizon, chosen.regularization)
            for name in linear.input_names
            if name not in so_far
        }
        assert gains[chosen.inputs[k]] == pytest.approx(max(gains.values()), abs=1e-6)
        assert chosen.gains[k] == pytest.approx(gains[chosen.inputs[k]], abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_best_set_is_that_of_an_enumeration_and_greedy_keeps_its_promise(seed):
    linear = network(seed)
    best, greedy = best_inputs(linear, 3, 2.0), greedy_inputs(linear, 3, 2.0)
    every = {
        names: gain(linear, names, 2.0, best.regularization)
        for names in itertools.combinations(linear.input_names, 3)
    }
    assert every[best.inputs] == pytest.approx(max(every.values()), abs=1e-6)
    assert best.gains[-1] == pytest.approx(every[best.inputs], abs=1e-6)
    assert (1 - 1 / math.e) * best.gains[-1] <= greedy.gains[-1] <= best.gains[-1] + 1e-9


def test_two_separate_parts_are_given_an_input_each():
    A = torch.block_diag(*[torch.tensor([[-1.0, 0.5], [0.4, -1.2]])] * 2).double()
    chosen = greedy_inputs(LinearSystem(A, torch.eye(4)), 2, 5.0).inputs
    assert {name in ("u1", "u2") for name in chosen} == {True, False}


def test_a_symmetric_network_with_an_input_everywhere_has_equal_volumetric_scores():
    # trace(W^-1 W_i) = n for every i at equal shares, whatever the eigenvalues
    scores = volumetric_scores(network(3, symmetric=True), 1.0)
    np.testing.assert_allclose(scores.values, 1 / 9, atol=1e-12)


@pytest.mark.parametrize(
    ("score", "objective"),
    [
        (volumetric_scores, lambda W: -np.linalg.slogdet(W)[1]),
        (average_energy_scores, lambda W: np.trace(np.linalg.inv(W))),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_a_general_optimizer(score, objective, seed):
    linear = network(seed, n=5)
    found = score(linear, 1.0, gap=1e-9)
    each = np.stack([gramian(linear, i, 1.0) for i in range(5)])
    other = scipy.optimize.minimize(
        lambda p: objective(np.tensordot(p, each, axes=1)),
        np.full(5, 0.2),
        bounds=[(1e-6, 1.0)] * 5,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        tol=1e-13,
    )
    assert found.verdict == "converged"
    assert found.values.sum() == pytest.approx(1.0)
    assert objective(np.tensordot(found.values, each, axes=1)) <= other.fun + 1e-7 * abs(other.fun)
    np.testing.assert_allclose(found.values, other.x, atol=2e-3)


def test_scores_stop_in_words_where_iterations_end(monkeypatch):
    monkeypatch.setattr("clinode.control.targets.selection.MOST_ITERATIONS", 2)
    scores = volumetric_scores(network(0), 1.0, gap=1e-12)
    assert scores.verdict == "not converged in 2 iterations"
    assert scores.gap > 0


def test_a_learned_system_is_asked_of_its_outputs_in_whatever_coordinates():
    A, C = network(5).A, torch.from_numpy(np.random.default_rng(5).normal(size=(2, 9)))
    T = torch.from_numpy(np.random.default_rng(6).normal(size=(9, 9))) + 3 * torch.eye(9)
    B = torch.eye(9).double()[:, :4]
    first = LinearSystem(A, B, C, latent=True)
    inverse = torch.linalg.inv(T)
    second = LinearSystem(T @ A @ inverse, T @ B, C @ inverse, latent=True)
    one, other = greedy_inputs(first, 3, 2.0), greedy_inputs(second, 3, 2.0)
    assert one.inputs == other.inputs
    np.testing.assert_allclose(one.gains, other.gains, rtol=1e-8)


def test_candidates_are_named_by_block_or_member():
    linear = LinearSystem(
        network(0).A, torch.eye(9), inputs=[Quantity("stimulus", "1", tuple("abcdefghi"))]
    )
    assert set(greedy_inputs(linear, 2, 1.0, ["stimulus:c", "stimulus:a"]).inputs) == {
        "stimulus:a",
        "stimulus:c",
    }
    with pytest.raises(ArgumentError, match="stimulus"):
        greedy_inputs(linear, 2, 1.0, ["stimulus:z"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: greedy_inputs(s, 0), "n must be 1 to 9"),
        (lambda s: greedy_inputs(s, 10), "n must be 1 to 9"),
        (lambda s: greedy_inputs(s, 2, regularization=0.0), "regularization must lie between"),
        (lambda s: greedy_inputs(s, 2, -1.0), "horizon must be positive"),
        (lambda s: best_inputs(network(0, n=40), 8), "too many to compare"),
        (
            lambda s: greedy_inputs(LinearSystem(s.A, torch.zeros(9, 2)), 1),
            "no candidate moves anything",
        ),
        (lambda s: volumetric_scores(s, 1.0, ["u1"]), "leave a direction unreached"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(call, words):
    with pytest.raises(ArgumentError, match=words):
        call(network(0))


@pytest.mark.parametrize(("fastest", "horizon"), [(1e6, 10.0), (2.0, 1e7)])
def test_stiff_and_long_symmetric_flows_choose_like_the_infinite_horizon(fastest, horizon):
    A = torch.diag(torch.tensor([-fastest, -1.0, -2.0, -3.0], dtype=torch.float64))
    A[1, 2] = A[2, 1] = 0.5
    linear = LinearSystem(A, torch.eye(4))
    whole = greedy_inputs(linear, 4, math.inf)
    found = greedy_inputs(linear, 4, horizon)
    assert found.inputs == whole.inputs
    np.testing.assert_allclose(found.gains, whole.gains, rtol=1e-6)


@pytest.mark.parametrize("horizon", [500.0, 1000.0])
def test_growth_beyond_float64_is_refused_in_words(horizon):
    linear = LinearSystem([[0.0, 1.0], [1.0, 0.0]], torch.eye(2))
    with pytest.raises(ArgumentError, match="float64"):
        greedy_inputs(linear, 1, horizon)


def test_gains_hold_at_the_smallest_regularization():
    rates = np.array([-1.0, -2.0, -3.0, -4.0])
    linear = LinearSystem(np.diag(rates), np.ones((4, 1)))
    found = greedy_inputs(linear, 1, math.inf, regularization=1e-12)
    with mpmath.workdps(60):
        W = mpmath.matrix(4, 4)
        for i, j in itertools.product(range(4), range(4)):
            W[i, j] = -mpmath.mpf(1) / (rates[i] + rates[j])
        floor = mpmath.mpf(found.regularization)
        exact = mpmath.log(mpmath.det(W / floor + mpmath.eye(4)))
    assert found.gains[0] == pytest.approx(float(exact), rel=1e-7)
    assert best_inputs(linear, 1, math.inf, regularization=1e-12).gains == found.gains
    with pytest.raises(ArgumentError, match="regularization"):
        greedy_inputs(linear, 1, regularization=1e-17)


@pytest.mark.parametrize("scores", [volumetric_scores, average_energy_scores])
def test_no_candidates_and_no_gap_have_no_scores(scores):
    linear = LinearSystem([[-1.0]], [[1.0]])
    with pytest.raises(ArgumentError, match="no candidates"):
        scores(linear, candidates=[])
    with pytest.raises(ArgumentError, match="gap"):
        scores(linear, gap=math.nan)
