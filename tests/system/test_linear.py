import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from clinode.errors import ArgumentError
from clinode.system import (
    LinearSystem,
    Quantity,
)


def random_linear(seed, n=4, m=2, p=3, **arguments):
    generator = np.random.default_rng(seed)
    A = generator.normal(size=(n, n)) - 2 * n * np.eye(n)
    B, C, D = (generator.normal(size=shape) for shape in ((n, m), (p, n), (p, m)))
    return LinearSystem(A, B, C, D, **arguments)


@pytest.mark.parametrize("seed", range(3))
def test_a_linear_system_agrees_with_python_controls_state_space(seed):
    system = random_linear(seed)
    reference = system.to_control()
    generator = np.random.default_rng(seed + 100)
    x, u = generator.normal(size=4), generator.normal(size=2)
    tensors = torch.tensor(x), torch.tensor(u)
    np.testing.assert_allclose(system.vector_field(0.0, *tensors), reference.dynamics(0, x, u))
    np.testing.assert_allclose(system.output(0.0, *tensors), reference.output(0, x, u))
    assert reference.state_labels == ["x1", "x2", "x3", "x4"]
    assert reference.input_labels == ["u1", "u2"]
    assert reference.output_labels == ["y1", "y2", "y3"]
    assert reference.dt == 0


def test_a_linear_map_agrees_with_python_controls_discrete_state_space():
    system = LinearSystem([[0.5, 0.1], [0.0, -0.3]], [[1.0], [2.0]], step=2)
    reference = system.to_control()
    assert reference.dt == 2.0
    x, u = np.array([1.0, -1.0]), np.array([3.0])
    later = system.next_state(0, torch.tensor(x), torch.tensor(u))
    np.testing.assert_allclose(later, reference.dynamics(0, x, u))
    steps = [reference.dynamics(0, later.numpy(), u), reference.output(0, x, u)]
    np.testing.assert_allclose(system.next_state(1, later, torch.tensor(u)), steps[0])
    np.testing.assert_allclose(system.output(0, torch.tensor(x), torch.tensor(u)), steps[1])


def test_labels_survive_the_way_to_python_control():
    states = [Quantity("E", "1", labels=("lh.precuneus", "rh"))]
    system = LinearSystem([[-1.0, 0], [0, -2.0]], [[1.0], [0]], states=states, inputs=["stimulus"])
    assert system.state_names == ("E:lh.precuneus", "E:rh")
    assert system.output_names == system.state_names
    reference = system.to_control()
    assert reference.state_labels == ["E:lh_precuneus", "E:rh"]  # python-control reserves "."
    assert reference.input_labels == ["stimulus"]


def test_states_inputs_and_outputs_are_absolute_about_the_operating_point():
    x0, u0, y0 = [1.0, -2.0, 0.5, 0.0], [3.0, 4.0], [7.0, 8.0, 9.0]
    plain, moved = random_linear(0), random_linear(0, offset=(x0, u0, y0))
    dx, du = torch.rand(5, 4).double(), torch.rand(5, 2).double()
    x, u = dx + torch.tensor(x0), du + torch.tensor(u0)
    torch.testing.assert_close(moved.vector_field(0.0, x, u), plain.vector_field(0.0, dx, du))
    torch.testing.assert_close(
        moved.output(0.0, x, u), plain.output(0.0, dx, du) + torch.tensor(y0)
    )
    without_y0 = random_linear(0, offset=(x0, u0))
    torch.testing.assert_close(without_y0.output(0.0, x, u), plain.output(0.0, x, u))
    at_rest = moved.vector_field(0.0, torch.tensor(x0), torch.tensor(u0))
    assert at_rest.abs().max() == 0


def test_the_operating_point_of_a_map_is_its_fixed_point():
    system = LinearSystem([[0.5]], [[1.0]], offset=([10.0], [2.0]), step=1.0)
    x = torch.tensor([10.0]).double()
    assert torch.equal(system.next_state(0, x, torch.tensor([2.0])), x)
    assert torch.equal(torch.func.functional_call(system, {}, (0, x, torch.tensor([2.0]))), x)


def test_a_batch_of_matrices_is_each_matrix_by_itself():
    A, B = torch.rand(3, 1, 2, 2).double(), torch.rand(3, 1, 2, 1).double()
    x, u = torch.rand(5, 2).double(), torch.rand(5, 1).double()
    together = LinearSystem(A, B).vector_field(0.0, x, u)
    for i in range(3):
        alone = LinearSystem(A[i, 0], B[i, 0]).vector_field(0.0, x, u)
        torch.testing.assert_close(together[i], alone)
    with pytest.raises(ArgumentError, match="batch axes"):
        LinearSystem(A, B).to_control()


def test_gradients_reach_the_matrices_given():
    A = torch.tensor([[-1.0]], dtype=torch.float64, requires_grad=True)
    x, u = torch.tensor([2.0]).double(), torch.tensor([0.0]).double()
    LinearSystem(A, [[1.0]]).vector_field(0.0, x, u).backward()
    assert A.grad is not None
    assert A.grad.item() == 2.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"A": [[0.0, 1.0]], "B": [[1.0]]}, r"A has shape \(1, 2\), expected \(2, 2\)"),
        ({"A": [[0.0]], "B": [[1.0], [1.0]]}, r"B has shape \(2, 1\), expected \(1, 1\)"),
        ({"A": [[0.0]], "B": [1.0]}, "expected a matrix"),
        ({"A": [[math.nan]], "B": [[1.0]]}, "A has entries that are not finite"),
        ({"A": [[0.0]], "B": [[1.0]], "offset": ([0.0],)}, "offset is"),
        ({"A": [[0.0]], "B": [[1.0]], "offset": ([0.0, 0.0], [0.0])}, "x0 has shape"),
        ({"A": [[0.0]], "B": [[1.0]], "step": 0.0}, "step must be positive"),
        ({"A": [[0.0]], "B": [[1.0]], "states": ["a", "b"]}, "2 state names for 1 states"),
        ({"A": [[0.0]], "B": [[1.0]], "states": ["a"], "inputs": ["a"]}, "'a' more than once"),
        ({"A": [[0.0]], "B": [[1.0]], "latent": True}, "arbitrary coordinates"),
    ],
)
def test_matrices_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        LinearSystem(**arguments)


def test_a_flow_has_no_next_state_and_a_map_no_vector_field():
    x, u = torch.zeros(1).double(), torch.zeros(1).double()
    with pytest.raises(ArgumentError, match="continuous time and has no next state"):
        LinearSystem([[0.0]], [[1.0]]).next_state(0, x, u)
    with pytest.raises(ArgumentError, match="no vector field"):
        LinearSystem([[0.0]], [[1.0]], step=1.0).vector_field(0.0, x, u)


def test_python_control_is_imported_only_by_to_control():
    code = "import sys, clinode.system; sys.exit('control' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
