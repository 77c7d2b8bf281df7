import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import torch

from clinode.control.feedback.box import box_minimum
from clinode.control.feedback.feedback import lqr
from clinode.control.feedback.iterative import ilqg
from clinode.control.feedback.problem import ControlProblem, OutputCost, StateCost
from clinode.control.feedback.sampling import sample, sampled_problem
from clinode.control.feedback.stages import stages
from clinode.control.feedback.trials import run_trials
from clinode.errors import ArgumentError, SolverError
from clinode.system import DiscreteSystem, LinearSystem, Quantity, System


class Pendulum(System):
    """Hanging at 0, upright at pi."""

    states = (Quantity("angle", "1"), Quantity("speed", "1"))
    inputs = (Quantity("torque", "1"),)

    def vector_field(self, t, x, u):
        return torch.cat([x[..., 1:], u - torch.sin(x[..., :1])], dim=-1)


def linear(seed, **changes):
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(2, 6)), int(rng.integers(1, 3))
    A, B = 1.2 * rng.normal(size=(n, n)) / math.sqrt(n), rng.normal(size=(n, m))
    root = rng.normal(size=(n, n))
    return ControlProblem(
        LinearSystem(A, B, step=1), root @ root.T, 0.3, horizon=8, process_noise=0.2,
        initial_state=rng.normal(size=n), **changes,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_a_linear_quadratic_problem_takes_one_correction_and_has_the_regulators_gains(seed):
    problem = linear(seed)
    expected, found = lqr(problem), ilqg(problem)
    assert int(found.n_iterations) == 1
    torch.testing.assert_close(found.gain, expected.gain, rtol=1e-9, atol=1e-9)
    assert float(found.cost) == pytest.approx(expected.cost, rel=1e-10)


def test_with_control_dependent_noise_it_still_is_the_cautious_regulator():
    problem = linear(1)
    B = problem.system.B
    problem = linear(1, control_dependent_noise=[0.5 * B, 0.2 * B])
    expected, found = lqr(problem), ilqg(problem)
    torch.testing.assert_close(found.gain, expected.gain, rtol=1e-9, atol=1e-9)
    assert float(found.cost) == pytest.approx(expected.cost, rel=1e-10)
    assert float(expected.gain.norm()) < float(lqr(linear(1)).gain.norm())


def test_within_limits_it_finds_the_minimum_of_the_quadratic_program():
    problem = linear(2, limits=(-0.2, 0.3))
    found = ilqg(problem)
    parts = stages(problem)
    shape = found.inputs.shape

    def cost(flat):
        u = torch.tensor(flat.reshape(shape), requires_grad=True)
        x, total = problem.start, torch.zeros(()).double()
        for k in range(len(u)):
            total = total + parts.cost(k, x, u[k])
            x = parts.move(k, x, u[k])
        total = total + parts.final(x)
        total.backward()
        return float(total.detach()), u.grad.numpy().ravel()

    start = np.zeros(found.inputs.numel())
    best = scipy.optimize.minimize(
        cost, start, jac=True, method="L-BFGS-B", bounds=[(-0.2, 0.3)] * len(start),
        options={"ftol": 1e-15, "gtol": 1e-12, "maxiter": 5000},
    )  # fmt: skip
    assert float(found.cost_split["path"]) == pytest.approx(best.fun, rel=1e-9)
    np.testing.assert_allclose(found.inputs.numpy().ravel(), best.x, atol=1e-5)


def test_a_pendulum_swings_up_and_no_small_change_of_its_inputs_is_better():
    problem = ControlProblem(
        Pendulum(), 0.0, 0.05, horizon=3.0, limits=(-0.8, 0.8),
        final_cost=StateCost(50.0, [math.pi, 0.0]), initial_state=[0.0, 0.0],
    )  # fmt: skip
    guess = 0.1 * torch.sin(torch.arange(60) / 6.0).unsqueeze(-1)
    found = ilqg(problem, step=0.05, inputs=guess)
    assert bool(found.converged)
    assert float(found.inputs.abs().max()) <= 0.8
    parts = stages(found.problem)

    def cost(inputs):
        x, total = problem.start, 0.0
        for k, u in enumerate(inputs):
            total += float(parts.cost(k, x, u))
            x = parts.move(k, x, u)
        return total + float(parts.final(x))

    least = cost(found.inputs)
    assert least == pytest.approx(float(found.cost), rel=1e-12)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        noise = 1e-3 * torch.randn(found.inputs.shape, generator=generator).double()
        assert cost(parts.clipped(found.inputs + noise)) >= least * (1 - 1e-9)


def test_many_starts_at_once_are_what_each_is_alone():
    starts = torch.tensor([[0.0, 0.0], [0.5, -0.2], [1.0, 0.3]]).double()

    def solve(start):
        problem = ControlProblem(
            Pendulum(), 1.0, 0.1, horizon=1.0, initial_state=start, process_noise=0.01
        )
        return ilqg(problem, step=0.1)

    together = solve(starts)
    for i in range(3):
        alone = solve(starts[i])
        torch.testing.assert_close(together.inputs[:, i], alone.inputs, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(together.cost[i], alone.cost, rtol=1e-9, atol=1e-12)


def test_the_expected_cost_is_that_of_trials_of_the_nonlinear_system():
    problem = ControlProblem(
        Pendulum(), 1.0, 0.1, horizon=2.0, initial_state=[0.8, 0.0],
        process_noise=torch.diag(torch.tensor([0.0, 0.02])),
        control_dependent_noise=[[[0.0], [0.2]]],
    )  # fmt: skip
    found = ilqg(problem, step=0.05)
    trials = run_trials(found.problem, found.policy, 4000, torch.Generator().manual_seed(3))
    assert abs(trials.cost.value - float(found.cost)) < 4 * trials.standard_error


def test_on_noisy_readings_the_same_feedback_costs_more_but_holds():
    problem = ControlProblem(
        Pendulum(), 1.0, 0.1, horizon=2.0, initial_state=[0.8, 0.0], initial_covariance=0.01,
        sensors=["angle"], sensor_noise=1e-4,
        process_noise=torch.diag(torch.tensor([0.0, 0.02])),
    )  # fmt: skip
    found = ilqg(problem, step=0.05)
    seen, read = (
        run_trials(found.problem, policy, 1000, torch.Generator().manual_seed(0))
        for policy in (found.policy, found.on_estimates())
    )
    assert seen.cost.value < read.cost.value < 1.3 * seen.cost.value
    error = read.memory[-1, :, :2] - read.states[-1]  # before the last reading
    predicted = read.memory[-1, :, [2, 4]].mean(0)
    assert bool(((error**2).mean(0) < 1.3 * predicted).all())


def test_a_cost_of_outputs_is_that_of_the_states_they_are_of():
    class Rotated(DiscreteSystem):
        states = (Quantity("a", "1"), Quantity("b", "1"))
        inputs = (Quantity("u", "1"),)
        outputs = (Quantity("y", "1"),)

        def next_state(self, k, x, u):
            return torch.cat([x[..., 1:], 0.5 * x[..., :1] + u], dim=-1)

        def output(self, t, x, u):
            return x[..., :1] + 2 * x[..., 1:]

    weight = torch.tensor([[1.0, 2.0], [2.0, 4.0]]).double()
    costs = [
        float(ilqg(ControlProblem(Rotated(), cost, 0.1, horizon=5, initial_state=[1.0, 2.0])).cost)
        for cost in (OutputCost({"y": 1.0}), StateCost(weight))
    ]
    assert costs[0] == pytest.approx(costs[1], rel=1e-12)


def test_sampling_a_linear_flow_is_exact_and_a_runge_kutta_step_of_order_four():
    flow = Pendulum()
    x, u = torch.tensor([0.7, -0.3]).double(), torch.tensor([0.4]).double()
    fine = x
    for k in range(1024):
        fine = sample(flow, 1 / 1024).next_state(k, fine, u)
    errors = []
    for substeps in (4, 8, 16):
        found = sample(flow, 1.0, substeps).next_state(0, x, u)
        errors.append(float((found - fine).norm()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(3.7 < order < 4.4 for order in orders)
    leak = LinearSystem([[-2.0]], [[3.0]])
    half = sample(leak, 0.5)
    assert float(half.A) == pytest.approx(math.exp(-1))
    assert float(half.B) == pytest.approx(1.5 * (1 - math.exp(-1)))


def test_the_covariance_of_a_sampled_linear_flow_is_that_of_van_loan():
    a, w, step = -0.7, 0.3, 0.4
    problem = ControlProblem(LinearSystem([[a]], [[1.0]]), 1.0, 1.0, process_noise=w, horizon=4.0)
    sampled = sampled_problem(problem, step)
    assert float(sampled.W) == pytest.approx(w * (math.exp(2 * a * step) - 1) / (2 * a))
    assert sampled.n_steps == 10


@pytest.mark.parametrize("seed", range(5))
def test_a_box_minimum_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    n = 7
    root = rng.normal(size=(n + 2, n))
    b = rng.normal(size=n + 2) * 3
    low, high = -rng.uniform(0, 1, n), rng.uniform(0, 1, n)
    expected = scipy.optimize.lsq_linear(root, b, (low, high), tol=1e-14, method="bvls").x
    Q, q = torch.tensor(root.T @ root), torch.tensor(-root.T @ b)
    found, free = box_minimum(Q, q, torch.tensor(low), torch.tensor(high))
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert bool((free == (torch.tensor(low) < found) & (found < torch.tensor(high))).all())


def test_bad_calls_say_what_to_do():
    flow = ControlProblem(Pendulum(), 1.0, 0.1, horizon=1.0, initial_state=[0.0, 0.0])
    with pytest.raises(ArgumentError, match="step="):
        ilqg(flow)
    with pytest.raises(ArgumentError, match="no whole number of steps"):
        ilqg(flow, step=0.3)
    with pytest.raises(ArgumentError, match="inputs of shape"):
        ilqg(flow, step=0.1, inputs=torch.zeros(3, 1))
    endless = ControlProblem(Pendulum(), 1.0, 0.1, initial_state=[0.0, 0.0])
    with pytest.raises(ArgumentError, match="horizon"):
        ilqg(endless, step=0.1)
    free = ControlProblem(Pendulum(), 0.0, 0.0, horizon=0.2, initial_state=[1.0, 0.0])
    with pytest.raises(SolverError, match="weighs some input"):
        ilqg(free, step=0.1)
    hard = ControlProblem(
        Pendulum(), 0.0, 1e-3, horizon=3.0, initial_state=[0.0, 0.0],
        final_cost=StateCost(1e4, [math.pi, 0.0]), limits=(-0.5, 0.5),
    )  # fmt: skip
    with pytest.raises(SolverError, match="did not settle within 1"):
        ilqg(hard, step=0.1, max_iterations=1)
