import math

import numpy as np
import pytest
import scipy.optimize
import torch

from clinode.control.feedback.feedback import lqr
from clinode.control.feedback.iterative import ilqg
from clinode.control.feedback.predictive import model_predictive
from clinode.control.feedback.problem import ControlProblem, OutputCost
from clinode.control.feedback.sampling import sample
from clinode.control.feedback.trials import run_trials
from clinode.dynamics.simulate import simulate
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity, System, closed_loop

EMPTY = torch.zeros(0).double()


def cart(**changes):
    system = LinearSystem([[1.0, 0.1], [0.0, 1.0]], [[0.005], [0.1]], step=0.1)
    return ControlProblem(system, 1.0, 0.1, **({"horizon": 2.0} | changes))


class Pendulum(System):
    states = (Quantity("angle", "1"), Quantity("speed", "1"))
    inputs = (Quantity("torque", "1"),)

    def vector_field(self, t, x, u):
        return torch.cat([x[..., 1:], u - torch.sin(x[..., :1])], dim=-1)


def test_without_limits_it_is_the_endless_regulator():
    policy = model_predictive(cart()).policy
    K = lqr(cart(horizon=None)).gain
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(policy.output(0, EMPTY, x), -x @ K.T, rtol=1e-9, atol=1e-9)


def test_its_plan_within_limits_is_that_of_the_path_found_by_ilqg_and_by_scipy():
    problem = cart(limits=(-1.0, 1.0), initial_state=[2.0, 0.5], final_cost=3.0)
    found, other = model_predictive(problem), ilqg(problem)
    assert found.cost == pytest.approx(float(other.cost), rel=1e-10)
    torch.testing.assert_close(found.inputs, other.inputs, rtol=1e-6, atol=1e-6)
    assert bool((found.inputs.abs() > 1 - 1e-12).any())
    assert bool((found.inputs.abs() < 1 - 1e-3).any())
    A, B = (np.asarray(M) for M in (problem.system.A, problem.system.B))
    rows, wanted, x = [], [], np.array([2.0, 0.5])
    reach = np.zeros((2, 20))
    for k in range(20):
        rows.append(math.sqrt(0.1) * np.eye(20)[k : k + 1])
        wanted.append(np.zeros(1))
        reach = A @ reach
        reach[:, k] += B[:, 0]
        x = A @ x
        weight = math.sqrt(3.0 if k == 19 else 1.0)
        rows.append(weight * reach)
        wanted.append(-weight * x)
    best = scipy.optimize.lsq_linear(
        np.concatenate(rows), np.concatenate(wanted), (-1, 1), tol=1e-14, method="bvls"
    )
    np.testing.assert_allclose(found.inputs[:, 0], best.x, atol=1e-7)


def test_its_slope_is_the_derivative_of_the_first_input():
    policy = model_predictive(cart(limits=(-1.0, 1.0))).policy
    for start in ([0.3, 0.1], [0.6, 0.3], [5.0, 0.0]):
        x = torch.tensor(start).double().requires_grad_()
        (slope,) = torch.autograd.grad(policy.output(0, EMPTY, x).sum(), x)
        h = 1e-6
        for i in range(2):
            step = h * torch.eye(2).double()[i]
            ends = [float(policy.output(0, EMPTY, x.detach() + s * step)) for s in (1, -1)]
            assert float(slope[i]) == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-6)


def test_joined_to_its_plant_it_steers_within_limits():
    problem = cart(limits=(-1.0, 1.0))
    loop = closed_loop(problem.system, model_predictive(problem).policy)
    run = simulate(loop, [3.0, 0.0], [0.1 * k for k in range(101)])
    command = run.outputs[:, -1]
    assert float(command.abs().max()) <= 1.0
    assert float(command.abs().max()) == pytest.approx(1.0)
    assert float(run.states[-1].norm()) < 1e-3


@pytest.mark.slow
def test_a_swinging_pendulum_is_stopped_against_noise_by_planning_anew():
    flow = Pendulum()
    problem = ControlProblem(
        flow, {"angle": 1.0, "speed": 0.1}, 0.05, horizon=1.0, limits=(-2.0, 2.0),
        initial_state=[0.6, 0.0], process_noise=torch.diag(torch.tensor([0.0, 0.01])),
    )  # fmt: skip
    solution = model_predictive(problem, step=0.1)
    assert solution.gain is None
    assert "longer horizon" in solution.terminal
    trials = run_trials(solution.problem, solution.policy, 20, torch.Generator().manual_seed(0))
    assert float(trials.states[-1, :, 0].abs().mean()) < 0.2
    loop = closed_loop(sample(flow, 0.1), solution.policy)
    run = simulate(loop, [0.6, 0.0], [0.1 * k for k in range(31)])
    assert float(run.states[-1].norm()) < 0.05


def test_a_learned_system_is_looked_ahead_of_by_its_outputs():
    rng = np.random.default_rng(0)
    A, B, C = 0.5 * rng.normal(size=(3, 3)), rng.normal(size=(3, 1)), rng.normal(size=(1, 3))
    system = LinearSystem(A, B, C, step=1, latent=True)
    problem = ControlProblem(system, OutputCost(1.0), 0.1, horizon=10)
    K = lqr(ControlProblem(system, OutputCost(1.0), 0.1)).gain
    torch.testing.assert_close(model_predictive(problem).gain, K, rtol=1e-8, atol=1e-8)


def test_bad_calls_say_what_to_do():
    with pytest.raises(ArgumentError, match="horizon"):
        model_predictive(cart(horizon=None))
    with pytest.raises(ArgumentError, match="exclude every input"):
        cart(limits=(1.0, -1.0))
    with pytest.raises(ArgumentError, match="step="):
        model_predictive(ControlProblem(Pendulum(), 1.0, 0.1, horizon=1.0, initial_state=[0, 0]))
