import math

import numpy as np
import pytest
import torch

from clinode.brain.populations import WilsonCowan
from clinode.control.feedback.belief import separation
from clinode.control.feedback.feedback import lqg
from clinode.control.feedback.problem import ControlProblem, OutputCost, StateCost
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity, closed_loop

DRIFT = LinearSystem([[1.1]], [[1.0]], step=1)
TWO = LinearSystem(
    -np.eye(3),
    np.ones((3, 1)),
    states=[Quantity("E", "1", labels=("a", "b")), Quantity("I", "1")],
)


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("input_cost has shape", {"input_cost": np.eye(2)}),
        ("state_cost has shape", {"state_cost": np.ones((2, 1))}),
        ("state_cost is not positive semidefinite", {"state_cost": -1.0}),
        ("process_noise is not positive semidefinite", {"process_noise": -0.1}),
        ("sensor_noise has entries that are not finite", {"sensor_noise": math.nan}),
        ("horizon must be positive", {"horizon": 0}),
        ("no whole number of steps", {"horizon": 2.5}),
        ("limits exclude every input", {"limits": (2.0, 1.0)}),
        ("initial_state", {"initial_state": [1.0, 2.0]}),
        ("no output of LinearSystem is called 'x2': there are 'x1'", {"sensors": ["x2"]}),
        ("sensors of shape", {"sensors": np.eye(2)}),
        ("no state is called 'y'", {"state_cost": {"y": 1.0}}),
    ],
)
def test_a_bad_problem_is_refused_where_it_is_made(words, changes):
    with pytest.raises(ArgumentError, match=words):
        ControlProblem(**({"system": DRIFT, "state_cost": 1.0, "input_cost": 1.0} | changes))


def test_an_asymmetric_weight_is_refused():
    with pytest.raises(ArgumentError, match="not symmetric"):
        ControlProblem(TWO, [[1.0, 1, 0], [0, 1, 0], [0, 0, 1]], 1.0)


def test_costs_and_targets_go_by_name():
    problem = ControlProblem(TWO, StateCost({"E": 2.0}, {"E:b": 0.5}), 1.0)
    assert problem.stage.weight.diagonal().tolist() == [2.0, 2.0, 0.0]
    assert problem.stage.target.tolist() == [0.0, 0.5, 0.0]
    outputs = ControlProblem(TWO, OutputCost({"I": 1.0}), 1.0)
    assert outputs.stage.of_outputs


def test_a_final_cost_without_a_target_has_that_of_the_state_cost():
    problem = ControlProblem(TWO, StateCost(1.0, {"I": 2.0}), 1.0, final_cost=5.0)
    assert problem.final.target is not None
    assert problem.final.target.tolist() == [0.0, 0.0, 2.0]
    other = ControlProblem(TWO, StateCost(1.0, {"I": 2.0}), 1.0, final_cost=OutputCost(1.0))
    assert other.final.target is None


def test_sensors_are_outputs_by_name_or_a_matrix_on_the_states():
    one = ControlProblem(TWO, 1.0, 1.0, sensors=["I", "E:b"])
    other = ControlProblem(TWO, 1.0, 1.0, sensors=[[0.0, 0, 1], [0, 1, 0]])
    x = torch.tensor([1.0, 2.0, 3.0]).double()
    assert one.sensor_names == other.sensor_names == ("I", "E:b")
    assert one.read(0.0, x).tolist() == other.read(0.0, x).tolist() == [3.0, 2.0]
    mixed = ControlProblem(TWO, 1.0, 1.0, sensors=[[1.0, 1, 0]])
    assert mixed.sensor_names == ("sensor1",)


def test_a_system_without_inputs_has_nothing_to_control():
    still = LinearSystem([[-1.0]], np.zeros((1, 0)))
    with pytest.raises(ArgumentError, match="no input"):
        ControlProblem(still, 1.0, np.zeros((0, 0)))


def test_a_nonlinear_system_is_sent_to_what_can_take_it():
    with pytest.raises(ArgumentError, match="linearize it at an equilibrium, or use ilqg"):
        lqg(ControlProblem(WilsonCowan(), 1.0, 1.0, sensor_noise=0.1))


@pytest.mark.parametrize("seed", range(4))
def test_in_linear_problems_no_input_changes_what_will_be_known(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    system = LinearSystem(rng.normal(size=(n, n)) / n, rng.normal(size=(n, 2)), step=1)
    problem = ControlProblem(
        system, 1.0, 1.0, sensors=rng.normal(size=(1, n)), process_noise=0.3, sensor_noise=0.2,
        initial_covariance=2.0,
    )  # fmt: skip
    certificate = separation(problem)
    assert certificate
    assert certificate.dual_effect <= 1e-12


def test_noise_that_depends_on_the_state_fails_the_certificate():
    system = LinearSystem([[1.0]], [[1.0]], step=1)
    problem = ControlProblem(
        system, 1.0, 1.0, process_noise=0.1, initial_covariance=1.0,
        sensor_noise=lambda t, x: (0.1 + x**2).unsqueeze(-1),
    )  # fmt: skip
    certificate = separation(problem)
    assert not certificate
    assert certificate.dual_effect > 0.01
    assert "probe" in certificate.reason


def test_limits_leave_the_covariance_alone_and_separation_not():
    problem = ControlProblem(
        DRIFT, 1.0, 1.0, process_noise=0.1, sensor_noise=0.1, limits=(-1.0, 1.0)
    )
    certificate = separation(problem)
    assert certificate.dual_effect <= 1e-12
    assert not certificate
    assert "under limits" in certificate.reason


@pytest.mark.parametrize("is_map", [True, False])
def test_a_policy_joined_to_its_plant_is_the_stable_loop_of_theory(is_map):
    rng = np.random.default_rng(5)
    A, B, C = rng.normal(size=(3, 3)) / 2, rng.normal(size=(3, 1)), rng.normal(size=(2, 3))
    system = LinearSystem(A, B, C, step=1 if is_map else None)
    solution = lqg(ControlProblem(system, 1.0, 0.5, process_noise=0.2, sensor_noise=0.3))
    loop = closed_loop(system, solution.policy)
    x = torch.zeros(loop.n_states).double()
    found = torch.linalg.eigvals(
        torch.func.jacrev(lambda x: loop.forward(0, x, torch.zeros(0).double()))(x)
    )
    K, L = solution.gain.numpy(), solution.filter_gain.numpy()
    error = A @ (np.eye(3) - L @ C) if is_map else A - L @ C
    expected = np.concatenate([np.linalg.eigvals(A - B @ K), np.linalg.eigvals(error)])
    np.testing.assert_allclose(
        np.sort_complex(found.numpy()), np.sort_complex(expected), rtol=1e-8, atol=1e-8
    )
