import json

import numpy as np
import pytest
import torch

from clinode.control.feedback.belief import BeliefPolicy
from clinode.control.feedback.controllers import Schedule, ScheduledEstimator
from clinode.control.feedback.feedback import lqe, lqg, lqr
from clinode.control.feedback.problem import ControlProblem
from clinode.control.feedback.trials import policy_start, run_trials
from clinode.dynamics.simulate import simulate
from clinode.errors import ArgumentError, SolverError
from clinode.system import LinearSystem, Quantity, closed_loop

VOLTAGE = LinearSystem(
    [[0.9, 0.1], [0.0, 0.8]], [[0.0], [0.5]], [[1.0, 0.0]], offset=([-70.0, 2.0], [1.0]), step=1,
    states=[Quantity("V", "mV"), Quantity("w", "pA")], inputs=[Quantity("I", "nA")],
    outputs=[Quantity("seen", "mV")], time_unit="ms",
)  # fmt: skip


def problem(**changes):
    given = {"process_noise": 0.2, "sensor_noise": 0.3, "initial_state": [-65.0, 2.0]} | changes
    return ControlProblem(VOLTAGE, 1.0, 0.5, **given)


def test_between_its_times_a_schedule_is_exact_for_cubics():
    times = torch.tensor([0.0, 0.7, 1.5, 2.0]).double()
    cubic, rate = times**3 - times, 3 * times**2 - 1
    schedule = Schedule(cubic[:, None, None], times, rate[:, None, None])
    t = torch.linspace(0, 2, 11).double()
    torch.testing.assert_close(schedule(t).flatten(), t**3 - t)
    assert schedule(5.0).item() == schedule(2.0).item()  # the nearest holds


def test_a_policy_speaks_the_names_and_units_of_its_plant():
    for policy in (lqg(problem()).policy, lqg(problem(horizon=5)).policy):
        assert [(q.name, q.unit) for q in policy.inputs] == [("seen", "mV")]
        assert [(q.name, q.unit) for q in policy.outputs] == [("I", "nA")]
        assert policy.state_names == ("V_estimate", "w_estimate")
        assert (policy.step, policy.time_unit) == (1.0, "ms")
    gain = lqr(problem()).policy
    assert (gain.n_states, gain.input_names) == (0, ("V", "w"))


def test_a_belief_that_acts_by_the_gain_is_the_scheduled_estimator():
    task = problem(horizon=6, initial_covariance=0.4)
    solution = lqg(task)

    def act(k, belief):
        away = belief[..., :2] - VOLTAGE.x0
        return VOLTAGE.u0 - away @ solution.gain[k].T

    runs = [
        run_trials(task, policy, 50, torch.Generator().manual_seed(0))
        for policy in (solution.policy, BeliefPolicy(task, act))
    ]
    torch.testing.assert_close(runs[0].inputs, runs[1].inputs, rtol=1e-9, atol=1e-9)
    covariance = runs[1].memory[3, 0, 2:]
    expected = lqe(task).predicted[3]
    torch.testing.assert_close(covariance, expected[[0, 1, 1], [0, 0, 1]])


@pytest.mark.parametrize("horizon", [None, 30])
def test_without_noise_a_joined_loop_returns_to_its_operating_point(horizon):
    task = problem(horizon=horizon)
    policy = lqg(task).policy
    loop = closed_loop(VOLTAGE, policy)
    start = torch.cat([task.start, policy_start(task, policy)])
    run = simulate(loop, start, list(range(31)))
    assert float((run.states[-1, :2] - VOLTAGE.x0).abs().max()) < 0.1


def test_a_flow_under_its_estimator_settles_as_its_eigenvalues_say():
    rng = np.random.default_rng(1)
    A, B, C = rng.normal(size=(2, 2)), rng.normal(size=(2, 1)), np.eye(2)[:1]
    system = LinearSystem(A, B, C)
    task = ControlProblem(
        system, 1.0, 0.1, process_noise=0.1, sensor_noise=0.1, horizon=12.0,
        initial_state=[1.0, -1.0],
    )  # fmt: skip
    policy = lqg(task).policy
    assert isinstance(policy, ScheduledEstimator)
    run = simulate(closed_loop(system, policy), [1.0, -1.0, 0.0, 0.0], [0.0, 5.0, 11.0], rtol=1e-8)
    assert float(run.states[-1, :2].norm()) < 1e-2


def test_trials_refuse_what_does_not_fit():
    generator = torch.Generator().manual_seed(0)
    flow = ControlProblem(LinearSystem([[-1.0]], [[1.0]]), 1.0, 1.0)
    with pytest.raises(ArgumentError, match="sampled_problem"):
        run_trials(flow, lqr(flow).policy, 3, generator)
    with pytest.raises(ArgumentError, match="n_steps="):
        run_trials(problem(), lqg(problem()).policy, 3, generator)
    wild = LinearSystem([[1e200]], [[1.0]], step=1)
    task = ControlProblem(wild, 1.0, 1.0, process_noise=1.0, horizon=8)
    still = LinearSystem(
        np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), [[0.0]], step=1, states=[],
        inputs=["x1"], outputs=["u1"],
    )  # fmt: skip
    with pytest.raises(SolverError, match="left the finite numbers"):
        run_trials(task, still, 3, generator)


def test_results_are_plain_for_json():
    for result in (lqg(problem()), lqg(problem(horizon=3)), lqe(problem())):
        json.dumps(result.to_dict())
