import math

import control
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import torch

from clinode.control.feedback.expected import expected_cost
from clinode.control.feedback.feedback import lqe, lqg, lqr
from clinode.control.feedback.problem import ControlProblem, OutputCost, StateCost
from clinode.control.feedback.trials import run_trials
from clinode.errors import ArgumentError, SolverError
from clinode.system import LinearSystem

SEEDS = range(5)


def scalar(**changes):
    given = {"process_noise": 0.2, "sensor_noise": 0.3} | changes
    return ControlProblem(LinearSystem([[1.1]], [[1.0]], step=1), 1.0, 0.5, **given)


def matrices(seed):
    """Random, as likely unstable as not, with positive definite weights and noise."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    m, p = (int(rng.integers((n + 1) // 2, n + 1)) for _ in range(2))
    A = rng.normal(size=(n, n)) * 1.2 / math.sqrt(n)
    B, C = rng.normal(size=(n, m)), rng.normal(size=(p, n))

    def weight(size):
        root = rng.normal(size=(size, size))
        return root @ root.T + 0.1 * np.eye(size)

    return A, B, C, weight(n), weight(m), weight(n), weight(p)


def drawn(seed, is_map=True, **changes):
    A, B, C, Q, R, W, V = matrices(seed)
    system = LinearSystem(A, B, C, step=1 if is_map else None)
    return ControlProblem(system, Q, R, process_noise=W, sensor_noise=V, **changes)


def test_the_scalar_loop_has_its_published_gains_and_cost():
    solution, estimator = lqg(scalar()), lqe(scalar())
    found = [
        float(solution.cost_to_go),
        float(solution.gain),
        float(estimator.predicted),
        float(estimator.covariance),
        float(estimator.gain),
        float(estimator.predictor_gain),
        solution.cost,
    ]
    expected = [
        1.44986071, 0.81792857, 0.40951484, 0.17315276, 0.57717586, 0.63489345, 0.51584485,
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=5e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_gains_of_random_maps_are_those_of_python_control(seed):
    A, B, C, Q, R, W, V = matrices(seed)
    solution, estimator = lqg(drawn(seed)), lqe(drawn(seed))
    K, P, _ = control.dlqr(A, B, Q, R)
    predictor, S, _ = control.dlqe(A, np.eye(len(A)), C, W, V)
    np.testing.assert_allclose(solution.gain, K, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(solution.cost_to_go, P, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(estimator.predicted, S, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(A @ estimator.gain.numpy(), predictor, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("seed", SEEDS)
def test_gains_of_random_flows_are_those_of_python_control(seed):
    A, B, C, Q, R, W, V = matrices(seed)
    solution = lqg(drawn(seed, is_map=False))
    K, P, _ = control.lqr(A, B, Q, R)
    L, S, _ = control.lqe(A, np.eye(len(A)), C, W, V)
    np.testing.assert_allclose(solution.gain, K, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(solution.cost_to_go, P, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(solution.filter_gain, L, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(solution.covariance, S, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("is_map", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_split_cost_is_the_exact_cost_of_the_loop(seed, is_map):
    problem = drawn(seed, is_map)
    solution = lqg(problem)
    assert solution.cost == pytest.approx(
        expected_cost(problem, solution.gain, solution.filter_gain), rel=1e-8
    )
    assert lqr(problem).cost == pytest.approx(expected_cost(problem, solution.gain), rel=1e-8)
    assert lqr(problem).cost == solution.cost_split.process < solution.cost


@pytest.mark.parametrize("horizon", [None, 5])
@pytest.mark.parametrize("is_map", [True, False])
def test_no_change_of_a_gain_lowers_the_exact_cost(is_map, horizon):
    if horizon and not is_map:
        pytest.skip("the exact cost of other gains is that of maps")
    problem = drawn(2, is_map, horizon=horizon, initial_covariance=0.3)
    solution = lqg(problem)
    K, L = solution.gain, solution.filter_gain
    assert L is not None
    least = expected_cost(problem, K, L)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        dK = torch.randn(K.shape, generator=generator, dtype=torch.float64)
        dL = torch.randn(L.shape, generator=generator, dtype=torch.float64)
        for size in (1e-3, 0.05):
            assert expected_cost(problem, K + size * dK, L) >= least * (1 - 1e-12)
            assert expected_cost(problem, K, L + size * dL) >= least * (1 - 1e-12)


def test_a_hundred_thousand_trials_cost_what_the_formula_says():
    n = len(matrices(3)[0])
    problem = drawn(3, horizon=12, initial_covariance=0.5, initial_state=[1.0] * n)
    solution = lqg(problem)
    trials = run_trials(problem, solution.policy, 100_000, torch.Generator().manual_seed(1))
    assert abs(trials.cost.value - solution.cost) < 4 * trials.standard_error


def test_the_stationary_loop_costs_in_the_long_run_what_the_formula_says():
    problem = scalar()
    solution = lqg(problem)
    trials = run_trials(
        problem, solution.policy, 2000, torch.Generator().manual_seed(2), n_steps=250, skip=50
    )
    assert abs(trials.cost.value - 0.51584485) < 4 * trials.standard_error


def test_to_a_far_horizon_the_first_gain_is_that_of_no_horizon():
    far, endless = lqg(drawn(1, horizon=200)), lqg(drawn(1))
    torch.testing.assert_close(far.gain[0], endless.gain, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(far.filter_gain[-1], endless.filter_gain, rtol=1e-9, atol=1e-9)


def test_a_flow_to_a_horizon_solves_the_riccati_differential_equations():
    A, B, C, Q, R, W, V = matrices(4)
    T, n = 1.3, len(A)
    problem = drawn(
        4, False, horizon=T, initial_covariance=0.2, initial_state=np.ones(n), final_cost=Q
    )
    solution = lqg(problem)

    def backward(s, y):
        P = y.reshape(n, n)
        return (Q + A.T @ P + P @ A - P @ B @ np.linalg.solve(R, B.T @ P)).ravel()

    def forward(t, y):
        S = y.reshape(n, n)
        return (W + A @ S + S @ A.T - S @ C.T @ np.linalg.solve(V, C @ S)).ravel()

    options = {"rtol": 1e-11, "atol": 1e-12, "dense_output": True, "method": "DOP853"}
    P = scipy.integrate.solve_ivp(backward, (0, T), Q.ravel(), **options).sol
    S = scipy.integrate.solve_ivp(forward, (0, T), 0.2 * np.eye(n).ravel(), **options).sol

    def rate(t):
        Pt, St = P(T - t).reshape(n, n), S(t).reshape(n, n)
        K = np.linalg.solve(R, B.T @ Pt)
        return np.sum(Pt * W) + np.sum(K.T @ R @ K * St)

    P0 = P(T).reshape(n, n)
    start = np.ones(n) @ P0 @ np.ones(n) + 0.2 * np.trace(P0)
    cost = start + scipy.integrate.quad(rate, 0, T, epsrel=1e-10, limit=200)[0]
    assert solution.cost == pytest.approx(cost, rel=1e-7)
    for t in (0.0, 0.31, 0.9):
        K = solution.policy.gains(t)
        np.testing.assert_allclose(
            K, np.linalg.solve(R, B.T @ P(T - t).reshape(n, n)), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("sigma", [0.0, 0.3, 0.8])
def test_multiplicative_control_noise_makes_the_gain_cautious(sigma):
    noise = [[[sigma]]] if sigma else ()
    solution = lqr(scalar(control_dependent_noise=noise))
    a, b, q, r = 1.1, 1.0, 1.0, 0.5

    def wrong(P):
        return q + a**2 * P - (a * b * P) ** 2 / (r + b**2 * P * (1 + sigma**2)) - P

    P = float(scipy.optimize.brentq(wrong, 0.5, 1e6))  # pyright: ignore[reportArgumentType]
    assert float(solution.cost_to_go) == pytest.approx(P, rel=1e-9)
    assert float(solution.gain) == pytest.approx(a * b * P / (r + b**2 * P * (1 + sigma**2)))
    assert solution.cost == pytest.approx(expected_cost(solution.problem, solution.gain), rel=1e-9)
    assert solution.separates


def test_beyond_the_uncertainty_threshold_no_gain_has_a_finite_cost():
    # Athans, Ku & Gershwin 1977: a^2 - a^2 / (1 + sigma^2) < 1 where a cost is finite
    a = 2.0
    system = LinearSystem([[a]], [[1.0]], step=1)
    finite, endless = (math.sqrt(1 / (a**2 - 1) * factor) for factor in (0.9, 1.1))
    lqr(ControlProblem(system, 1.0, 0.5, control_dependent_noise=[[[finite]]]))
    with pytest.raises(SolverError, match="no gain has a finite cost"):
        lqr(ControlProblem(system, 1.0, 0.5, control_dependent_noise=[[[endless]]]))


def test_a_flow_under_control_dependent_noise_has_its_exact_cost():
    A, B, _, Q, R, W, _ = matrices(2)
    system = LinearSystem(A, B)
    problem = ControlProblem(
        system, Q, R, process_noise=W, control_dependent_noise=[0.3 * B, 0.1 * B]
    )
    solution = lqr(problem)
    K = solution.gain
    assert solution.cost == pytest.approx(expected_cost(problem, K), rel=1e-8)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        change = 0.02 * torch.randn(K.shape, generator=generator, dtype=torch.float64)
        assert expected_cost(problem, K + change) >= solution.cost * (1 - 1e-12)


@pytest.mark.parametrize("is_map", [True, False])
@pytest.mark.parametrize("noise", [False, True])
def test_gains_carry_the_gradient_of_the_implicit_function_theorem(is_map, noise):
    rng = np.random.default_rng(0)
    A = torch.tensor(0.6 * rng.normal(size=(3, 3)), requires_grad=True)
    B = torch.tensor(rng.normal(size=(3, 2)), requires_grad=True)
    R = torch.eye(2).double().requires_grad_()
    factors = [0.2 * np.ones((3, 2))] if noise else ()

    def gain(A, B, R):
        system = LinearSystem(A, B, step=1 if is_map else None)
        return lqr(ControlProblem(system, 1.0, R, control_dependent_noise=factors)).gain

    got = torch.autograd.grad(gain(A, B, R).sum(), (A, B, R))
    for which, gradient in enumerate(got):
        parts = [A.detach(), B.detach(), R.detach()]
        direction = torch.tensor(rng.normal(size=parts[which].shape))
        direction = direction + direction.T if which == 2 else direction
        h = 1e-5
        ends = []
        for sign in (1, -1):
            moved = list(parts)
            moved[which] = parts[which] + sign * h * direction
            ends.append(float(gain(*moved).sum()))
        expected = (ends[0] - ends[1]) / (2 * h)
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_states_and_targets_are_absolute():
    leak = LinearSystem([[-0.1]], [[0.01]], offset=([-70.0], [0.0]), states=["V"], inputs=["I"])
    solution = lqr(ControlProblem(leak, StateCost(1.0, [-60.0]), 1e-3))
    at_target = torch.tensor([-60.0]).double()
    # V rests at -60 under I = 0.1 * 10 / 0.01
    assert float(solution.policy.output(0.0, torch.zeros(0), at_target)) == pytest.approx(100.0)


def test_a_target_at_which_nothing_rests_is_refused():
    train = LinearSystem([[0.0, 1.0], [0.0, 0.0]], [[0.0], [1.0]])
    with pytest.raises(ArgumentError, match="no resting state"):
        lqr(ControlProblem(train, StateCost(1.0, [0.0, 1.0]), 1.0))


def test_a_latent_system_is_regulated_by_its_outputs_in_any_coordinates():
    rng = np.random.default_rng(3)
    A, B, C = rng.normal(size=(3, 3)), rng.normal(size=(3, 1)), rng.normal(size=(2, 3))
    T = rng.normal(size=(3, 3))
    inverse = np.linalg.inv(T)
    one = LinearSystem(A, B, C, latent=True)
    other = LinearSystem(T @ A @ inverse, T @ B, C @ inverse, latent=True)
    x = rng.normal(size=3)
    commands = [
        lqr(ControlProblem(system, OutputCost(1.0), 0.1)).policy.output(
            0.0, torch.zeros(0), torch.tensor(state)
        )
        for system, state in ((one, x), (other, T @ x))
    ]
    torch.testing.assert_close(*commands, rtol=1e-9, atol=1e-9)
    with pytest.raises(ArgumentError, match="coordinates are arbitrary"):
        ControlProblem(one, np.eye(3), 0.1)


@pytest.mark.parametrize("solve", [lqr, lqg])
@pytest.mark.parametrize("is_map", [True, False])
def test_what_cannot_be_controlled_is_said_in_words(solve, is_map):
    value = 1.2 if is_map else 0.3
    A, step = torch.diag(torch.tensor([value, 0.5 if is_map else -1.0])), 1 if is_map else None
    unreached = LinearSystem(A, [[0.0], [1.0]], step=step)
    reached = LinearSystem(A, [[1.0], [1.0]], step=step)
    noise = {"process_noise": 0.1, "sensor_noise": 0.1}
    with pytest.raises(ArgumentError, match="no input reaches the mode with eigenvalue"):
        solve(ControlProblem(unreached, 1.0, 1.0, **noise))
    with pytest.raises(ArgumentError, match="the state cost does not see the mode"):
        solve(ControlProblem(reached, {"x2": 1.0}, 1.0, **noise))
    blind = ControlProblem(reached, 1.0, 1.0, sensors=["x2"], **noise)
    with pytest.raises(ArgumentError, match="no sensor sees the mode"):
        lqg(blind)


def test_a_filter_of_exact_readings_or_without_noise_is_refused():
    with pytest.raises(ArgumentError, match="sensor_noise"):
        lqe(scalar(sensor_noise=None))
    with pytest.raises(ArgumentError, match="no process noise moves"):
        lqe(scalar(process_noise=None))


def test_limits_are_sent_elsewhere():
    with pytest.raises(ArgumentError, match="model_predictive"):
        lqr(scalar(limits=(-1.0, 1.0)))
