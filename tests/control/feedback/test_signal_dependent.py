"""Noise that grows with the command, readings that worsen with the state: Todorov 2005."""

import numpy as np
import pytest
import torch

from clinode.control.feedback.expected import expected_cost
from clinode.control.feedback.feedback import lqg, lqr
from clinode.control.feedback.problem import ControlProblem
from clinode.control.feedback.trials import run_trials
from clinode.errors import ArgumentError
from clinode.system import LinearSystem


def problem(seed, control=0.5, sensing=0.4, **changes):
    rng = np.random.default_rng(seed)
    n = 3
    A, B, H = 0.5 * rng.normal(size=(n, n)), rng.normal(size=(n, 2)), rng.normal(size=(2, n))
    given = {
        "process_noise": 0.1,
        "sensor_noise": 0.2,
        "horizon": 8,
        "initial_state": rng.normal(size=n),
        "initial_covariance": 0.3,
        "control_dependent_noise": [control * B] if control else [],
        "state_dependent_sensing": [sensing * H] if sensing else [],
    } | changes
    return ControlProblem(LinearSystem(A, B, H, step=1), np.eye(n), 0.2, **given)


@pytest.mark.parametrize("seed", range(2))
def test_neither_gain_can_be_changed_to_lower_the_exact_cost(seed):
    task = problem(seed)
    solution = lqg(task)
    K, L = solution.gain, solution.filter_gain
    assert L is not None
    assert solution.cost == pytest.approx(expected_cost(task, K, L), rel=1e-12)
    assert (solution.orthogonality or 0.0) < 1e-10
    generator = torch.Generator().manual_seed(seed)
    for _ in range(50):
        dK = torch.randn(K.shape, generator=generator, dtype=torch.float64)
        dL = torch.randn(L.shape, generator=generator, dtype=torch.float64)
        for size in (1e-3, 0.05):
            assert expected_cost(task, K + size * dK, L) >= solution.cost * (1 - 1e-10)
            assert expected_cost(task, K, L + size * dL) >= solution.cost * (1 - 1e-10)


def test_it_costs_less_than_the_gains_of_additive_noise():
    task = problem(0)
    plain = lqg(problem(0, control=0, sensing=0))
    assert lqg(task).cost < expected_cost(task, plain.gain, plain.filter_gain) * 0.999


def test_trials_cost_what_the_moments_say():
    task = problem(1)
    solution = lqg(task)
    trials = run_trials(task, solution.policy, 40_000, torch.Generator().manual_seed(0))
    assert abs(trials.cost.value - solution.cost) < 4 * trials.standard_error


def test_without_signal_dependent_noise_the_alternation_is_the_linear_quadratic_gaussian():
    expected = lqg(problem(2, control=0, sensing=0))
    tiny = lqg(problem(2, control=1e-9, sensing=1e-9))
    torch.testing.assert_close(tiny.gain, expected.gain, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(tiny.filter_gain, expected.filter_gain, rtol=1e-8, atol=1e-8)
    assert tiny.cost == pytest.approx(expected.cost, rel=1e-10)


def test_it_does_not_separate_and_says_why():
    assert "control-dependent noise" in lqg(problem(0)).separates.reason
    assert "state-dependent sensing" in lqg(problem(0, control=0)).separates.reason
    for task in (problem(0), problem(0, control=0)):
        certificate = lqg(task).separates
        assert not certificate
        assert certificate.dual_effect > 1e-3
    both = lqg(problem(0, control=0, sensing=0)).separates
    assert both
    assert both.dual_effect < 1e-12
    # who sees the state has nothing to estimate, however the noise grows
    assert lqr(problem(0)).separates


def test_noisier_commands_make_smaller_ones():
    first = [float(lqg(problem(0, control=size)).gain[0].norm()) for size in (0.0, 0.8)]
    assert first[1] < first[0]


def test_without_a_horizon_or_steps_it_is_refused():
    with pytest.raises(ArgumentError, match="to a horizon"):
        lqg(problem(0, horizon=None))
    with pytest.raises(ArgumentError, match="expected a finite"):
        problem(0, control_dependent_noise=[np.ones((2, 2))])
