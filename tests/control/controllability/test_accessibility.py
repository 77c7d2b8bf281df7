import numpy as np
import pytest
import torch

from clinode.brain.connectome import Connectome
from clinode.brain.networks import WilsonCowanNetwork
from clinode.control.controllability.accessibility import accessibility
from clinode.dynamics import find_equilibria
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity, System


class Written(System):
    """A system from its rates of (x1, x2, ...) and (u, v)."""

    def __init__(self, n_states, n_inputs, rates):
        super().__init__()
        self.states = tuple(Quantity(f"x{i + 1}", "1") for i in range(n_states))
        self.inputs = tuple(Quantity(name, "1") for name in "uv"[:n_inputs])
        self.rates = rates

    def vector_field(self, t, x, u):
        rates = self.rates(x.unbind(-1), u.unbind(-1))
        return torch.stack(torch.broadcast_tensors(*rates), dim=-1)


def test_a_square_is_reached_by_a_bracket_of_three_and_may_grow_one_way_only():
    found = accessibility(Written(2, 1, lambda x, u: (u[0], x[0] ** 2)), [0.0, 0.0])
    assert found.verdict == "accessible at depth 3 by [u, [f, u]]"
    assert (found.linear_dimension, found.dimension, found.is_one_sided) == (1, 2, True)


def test_a_cube_takes_one_bracket_more_and_goes_both_ways():
    cube = Written(2, 1, lambda x, u: (u[0], x[0] ** 3))
    found = accessibility(cube, [0.0, 0.0])
    assert (found.depth, found.is_one_sided) == (4, False)
    short = accessibility(cube, [0.0, 0.0], depth=3)
    assert short.verdict == "not found up to depth 3: 1 of 2 directions are open"
    assert short.is_accessible is None


def test_a_unicycle_parks_sideways_by_one_bracket():
    rates = lambda x, u: (u[0] * x[2].cos(), u[0] * x[2].sin(), u[1])  # noqa: E731
    found = accessibility(Written(3, 2, rates), [0.0, 0.0, 0.0])
    assert (found.linear_dimension, found.dimension, found.depth) == (2, 3, 2)
    assert found.brackets == ("[u, v]",)


def test_a_tumbling_body_with_two_torques_turns_about_its_third_axis():
    def rates(x, u):
        return -x[1] * x[2] + u[0], x[0] * x[2] + u[1], -x[0] * x[1] / 3

    found = accessibility(Written(3, 2, rates), [0.0, 0.0, 0.0])
    assert (found.linear_dimension, found.dimension) == (2, 3)
    even = accessibility(Written(3, 2, lambda x, u: (*rates(x, u)[:2], 0 * x[0])), [0.0, 0.0, 0.0])
    assert even.dimension == 2  # equal moments of inertia about the first two axes


def test_an_input_that_enters_by_its_square_opens_a_direction():
    found = accessibility(Written(2, 1, lambda x, u: (u[0] - x[0], u[0] ** 2 - x[1])), [0.0, 0.0])
    assert found.brackets == ("u * u",)
    assert found.is_one_sided


def test_what_is_decoupled_is_never_reached():
    found = accessibility(Written(2, 1, lambda x, u: (u[0] - x[0] ** 3, -x[1])), [0.0, 0.0])
    assert (found.dimension, found.brackets) == (1, ())


def test_away_from_rest_the_drift_is_a_direction_itself():
    found = accessibility(Written(2, 1, lambda x, u: (u[0], 1.0 + x[0])), [0.0, 0.0])
    assert (found.linear_dimension, found.dimension, found.depth) == (None, 2, 1)


@pytest.mark.parametrize("seed", range(4))
def test_of_a_linear_system_brackets_find_what_the_linearization_does(seed):
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(4, 4)), rng.normal(size=(4, 1))
    full = accessibility(LinearSystem(A, B), [0.0] * 4)
    assert full.verdict == "linearly controllable"
    A[2:, :2], B[2:] = 0.0, 0.0
    part = accessibility(LinearSystem(A, B), [0.0] * 4, depth=3)
    assert part.dimension == part.linear_dimension == 2


def test_a_symmetry_of_the_nonlinear_network_keeps_brackets_inside_too():
    W = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 2.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    brain = WilsonCowanNetwork(Connectome(weights=W, labels=("left", "right", "midline")))
    rest = find_equilibria(brain, n_starts=4)[0]
    assert accessibility(brain, rest).verdict == "linearly controllable"


def test_no_inputs_is_a_verdict():
    assert accessibility(LinearSystem([[-1.0]], np.zeros((1, 0))), [0.0]).verdict == "no inputs"


@pytest.mark.parametrize(
    ("system", "state", "more", "words"),
    [
        (LinearSystem([[0.5]], [[1.0]], step=1.0), [0.0], {}, "map"),
        (LinearSystem([[-1.0]], [[1.0]]), [0.0, 0.0], {}, "shapes"),
        (LinearSystem([[-1.0]], [[1.0]]), [0.0], {"depth": 0}, "at least 1"),
    ],
)
def test_what_has_no_brackets_is_refused_in_words(system, state, more, words):
    with pytest.raises(ArgumentError, match=words):
        accessibility(system, state, **more)
