import copy
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from torch import nn

from clinode.errors import ArgumentError
from clinode.system import (
    DiscreteSystem,
    FunctionSignal,
    LinearSystem,
    Quantity,
    Signal,
    System,
    Values,
    as_signal,
)

REGIONS = ("lh_precuneus", "rh_precuneus", "lh_insula")


class Membrane(System):
    """C dV/dt = -g (V - E) + I."""

    time_unit = "ms"
    states = (Quantity("V", "mV", range=(-100.0, 50.0), default=-70.0),)
    inputs = (Quantity("I", "pA"),)
    constants = (Quantity("C", "pF"), Quantity("g", "nS"), Quantity("E", "mV"))

    def __init__(self, C: Values = 100.0, g: Values = 10.0, E: Values = -70.0):
        super().__init__()
        self.register_constants(C=C, g=g, E=E)

    def vector_field(self, t, x, u):
        return (u - self.g * (x - self.E)) / self.C


class Regions(System):
    """Excitation and inhibition in regions named at run time; w per region, tau for all."""

    time_unit = "s"
    inputs = (Quantity("drive", "1"),)
    constants = (Quantity("tau", "s"),)

    def __init__(self, labels, w):
        super().__init__()
        self.states = (Quantity("E", "1", labels=labels, default=0.1), Quantity("I", "1"))
        self.constants = (*self.constants, Quantity("w", "1", labels=labels))
        self.register_constants(tau=0.01, w=w)

    def vector_field(self, t, x, u):
        E, I = self.split(x).values()
        mean = E.mean(-1, keepdim=True)
        return self.join(E=(-E + self.w * I + u) / self.tau, I=(mean - I) / self.tau)


class Doubling(DiscreteSystem):
    states = (Quantity("x", "1"),)
    step = 0.5
    time_unit = "h"

    def next_state(self, k, x, u):
        return 2 * x


def no_input(x):
    return x.new_zeros(0)


# Quantities


def test_a_block_has_one_flat_name_a_label_and_a_single_value_has_its_own():
    assert Quantity("E", "1", labels=REGIONS).names == tuple(f"E:{r}" for r in REGIONS)
    assert Quantity("E", "1", labels=REGIONS).size == 3
    assert (Quantity("V", "mV").names, Quantity("V", "mV").size) == (("V",), 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "E:left", "unit": "1"}, "without ':'"),
        ({"name": "", "unit": "1"}, "name is a word"),
        ({"name": "V", "unit": ""}, "no unit"),
        ({"name": "E", "unit": "1", "labels": ("a", "a")}, "distinct"),
        ({"name": "V", "unit": "mV", "range": (1.0, 1.0)}, "low < high"),
        ({"name": "V", "unit": "mV", "range": (0.0, math.inf)}, "finite"),
        ({"name": "V", "unit": "mV", "range": (0.0, 1.0), "default": 2.0}, "outside range"),
    ],
)
def test_a_quantity_that_makes_no_sense_is_refused(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        Quantity(**arguments)


# Signals


def test_a_held_signal_keeps_each_value_until_the_next_knot():
    signal = Signal([1.0, 2.0, 4.0], [[10.0], [20.0], [40.0]])
    times = torch.tensor([0.0, 1.0, 1.99, 2.0, 3.0, 4.0, 9.0])
    expected = [10.0, 10.0, 10.0, 20.0, 20.0, 40.0, 40.0]  # the nearest knot's value outside
    assert signal(times).squeeze(-1).tolist() == expected
    assert signal.breakpoints.tolist() == [2.0, 4.0]  # before the first knot nothing changes


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6))
def test_a_linear_signal_is_scipys_interpolation_at_times_of_any_shape(seed):
    generator = np.random.default_rng(seed)
    knots = np.cumsum(generator.uniform(0.01, 2.0, generator.integers(2, 7)))
    values = generator.normal(size=(len(knots), 2))
    times = generator.uniform(-1.0, knots[-1] + 1.0, size=(3, 4))
    ends = (values[0], values[-1])
    reference = interp1d(knots, values, axis=0, bounds_error=False, fill_value=ends)  # pyright: ignore[reportArgumentType]
    signal = Signal(knots, values, hold="linear")
    torch.testing.assert_close(signal(torch.tensor(times)), torch.tensor(reference(times)))


@pytest.mark.parametrize("hold", ["previous", "linear"])
def test_a_batch_of_padded_signals_is_each_signal_by_itself(hold):
    short = Signal([0.0, 1.0], [[1.0], [3.0]], hold)
    long = Signal([0.0, 0.5, 2.0], [[5.0], [7.0], [9.0]], hold)
    knots = torch.tensor([[0.0, 1.0, math.inf], [0.0, 0.5, 2.0]])
    values = torch.tensor([[[1.0], [3.0], [0.0]], [[5.0], [7.0], [9.0]]]).double()
    if hold == "linear":
        values[0, 2] = 3.0
    both = Signal(knots, values, hold)
    grid = torch.linspace(-1, 3, 33)
    expected = torch.stack([short(grid), long(grid)], dim=1)
    torch.testing.assert_close(both(grid.unsqueeze(-1)), expected)
    own = torch.tensor([0.7, 1.3])
    torch.testing.assert_close(both(own), torch.stack([short(0.7), long(1.3)]))


def test_a_step_that_ends_on_a_jump_sees_the_value_before_it():
    pulse = Signal([0.0, 1.0, 2.0], [[0.0], [5.0], [0.0]])
    assert pulse(1.0).item() == 5.0
    assert pulse(1.0, within=0.5).item() == 0.0
    assert pulse(2.0, within=torch.tensor(1.5)).item() == 5.0
    ramps = Signal([0.0, 1.0, 1.0, 2.0], [[0.0], [1.0], [5.0], [6.0]], hold="linear")
    assert ramps(1.0, within=0.5).item() == 1.0
    assert ramps(1.0, within=1.5).item() == 5.0
    jump = FunctionSignal(lambda t: (t >= 1.0).double().unsqueeze(-1), breaks=[1.0])
    assert jump(1.0).item() == 1.0
    assert jump(1.0, within=0.5).item() == 0.0
    assert jump(torch.tensor([1.0, 2.0]), within=torch.tensor([1.5, 1.5])).tolist() == [
        [1.0],
        [1.0],
    ]


def test_breakpoints_hold_jumps_kinks_and_impulses_and_a_constant_has_none():
    impulses = ([0.5, 3.0], [[1.0], [2.0]])
    held = Signal([0.0, 1.0], [[0.0], [1.0]], impulses=impulses)
    assert held.breakpoints.tolist() == [0.5, 1.0, 3.0]
    linear = Signal([0.0, 1.0], [[0.0], [1.0]], hold="linear", impulses=impulses)
    assert linear.breakpoints.tolist() == [0.0, 0.5, 1.0, 3.0]
    assert Signal.constant([2.0]).breakpoints.numel() == 0
    shared = Signal(torch.rand(4, 3).sort().values, torch.rand(4, 3, 1), impulses=impulses)
    assert shared.breakpoints.shape == (4, 4)
    assert (shared.breakpoints.diff() >= 0).all()


def test_a_signal_is_differentiable_in_its_values_and_its_time():
    values = torch.rand(4, 1, dtype=torch.float64, requires_grad=True)
    knots = torch.tensor([0.0, 1.0, 3.0, math.inf])
    times = torch.tensor([-1.0, 0.3, 2.0, 5.0], dtype=torch.float64, requires_grad=True)
    signal = Signal(knots, values, hold="linear")
    assert torch.autograd.gradcheck(lambda v: Signal(knots, v, hold="linear")(times), values)
    (slope,) = torch.autograd.grad(signal(times).sum(), times)
    v = values.detach().squeeze(-1)
    expected = torch.stack([v[0] * 0, v[1] - v[0], (v[2] - v[1]) / 2, v[0] * 0])
    torch.testing.assert_close(slope, expected)


def test_a_signal_works_under_vmap_over_time_and_over_values():
    signal = Signal([0.0, 1.0, 2.0], torch.rand(3, 2), hold="linear")
    times = torch.rand(5) * 3
    torch.testing.assert_close(torch.func.vmap(signal)(times), signal(times))
    values = torch.rand(6, 2)
    constants = torch.func.vmap(lambda value: as_signal(value, 2)(0.5))(values)
    torch.testing.assert_close(constants, values)


def test_numbers_tensors_and_signals_stand_for_inputs():
    assert as_signal(3.0, 2)(torch.zeros(4)).tolist() == [[3.0, 3.0]] * 4
    assert as_signal(torch.tensor([[1.0], [2.0]]), 1)(7.0).tolist() == [[1.0], [2.0]]
    assert as_signal(0.0, 0)(torch.zeros(4)).shape == (4, 0)
    signal = Signal.constant([1.0])
    assert as_signal(signal, 1) is signal

    def step(t):
        return (t > 1).double().unsqueeze(-1)

    with pytest.raises(ArgumentError, match=r"at which times it jumps.*breaks"):
        as_signal(step, 1)
    setattr(step, "breaks", [1.0])  # noqa: B010  # the type checker knows no attributes of functions
    assert as_signal(step, 1).breakpoints.tolist() == [1.0]
    with pytest.raises(ArgumentError, match="2 inputs, the signal has 1"):
        as_signal(torch.tensor([1.0]), 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"knots": [1.0, 0.0], "values": [[0.0], [0.0]]}, "do not decrease"),
        ({"knots": [0.0, math.nan], "values": [[0.0], [0.0]]}, "must be numbers"),
        ({"knots": [0.0, 1.0], "values": [[0.0]]}, "do not fit"),
        ({"knots": [0.0], "values": [0.0]}, "do not fit"),
        ({"knots": torch.zeros(0), "values": torch.zeros(0, 1)}, "at least one knot"),
        ({"knots": [0.0], "values": [[0.0]], "hold": "cubic"}, "'previous' or 'linear'"),
        (
            {"knots": [0.0], "values": [[0.0]], "impulses": ([1.0], [[1.0, 2.0]])},
            "impulses have 2 inputs",
        ),
    ],
)
def test_a_signal_that_makes_no_sense_is_refused(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        Signal(**arguments)


# Systems


def test_the_passive_membrane_has_its_closed_form_rate_of_change():
    x, u = torch.tensor([-60.0]).double(), torch.tensor([30.0]).double()
    assert Membrane().vector_field(0.0, x, u).item() == (30.0 - 10.0 * (-60.0 + 70.0)) / 100.0


def test_split_and_join_undo_each_other():
    system = Regions(REGIONS, w=1.0)
    x = torch.rand(2, 5, 4)
    parts = system.split(x)
    assert {name: tuple(part.shape) for name, part in parts.items()} == {
        "E": (2, 5, 3),
        "I": (2, 5, 1),
    }
    assert torch.equal(system.join(**parts), x)
    assert torch.equal(system.join(**dict(reversed(parts.items()))), x)
    u = torch.rand(5, 1)
    assert torch.equal(system.split(u, system.inputs)["drive"], u)
    shared = system.join(E=torch.rand(3), I=torch.rand(7, 1))
    assert shared.shape == (7, 4)


def test_names_known_at_run_time_are_set_on_the_instance():
    system = Regions(REGIONS, w=1.0)
    assert system.state_names == (*(f"E:{region}" for region in REGIONS), "I")
    assert system.output_names == system.state_names
    assert (system.n_states, system.n_inputs, system.n_outputs) == (4, 1, 4)
    assert Regions(("a",), w=1.0).n_states == 2
    system.outputs = (Quantity("EEG", "uV"),)
    assert system.output_names == ("EEG",)


def test_the_default_output_is_the_state():
    x = torch.rand(3, 1)
    assert torch.equal(Membrane().output(0.0, x, torch.zeros(1)), x)


def test_the_initial_state_holds_the_defaults_and_a_state_without_one_is_named():
    assert Membrane().initial_state().tolist() == [-70.0]
    with pytest.raises(ArgumentError, match="no default for state 'I'"):
        Regions(REGIONS, w=1.0).initial_state()


batch_axes = st.lists(st.sampled_from([1, 2, 3]), max_size=3)


@settings(deadline=None, max_examples=60)
@given(batch_axes, batch_axes, batch_axes, batch_axes, st.integers(0, 10**6))
def test_every_element_of_a_batch_equals_the_same_system_alone(xs, us, taus, ws, seed):
    def aligned(shape, axes):  # 1 where the batch has 1 or where the axis is left out
        return [n if n == 1 else size for n, size in zip(shape, axes, strict=False)][-len(shape) :]

    axes = [2, 3, 2]
    shapes = [aligned(s, axes[len(axes) - len(s) :]) if s else [] for s in (xs, us, taus, ws)]
    generator = torch.Generator().manual_seed(seed)
    x, u, tau, w = (
        torch.rand(*shape, n, generator=generator, dtype=torch.float64) + 0.1
        for shape, n in zip(shapes, (4, 1, 1, 3), strict=True)
    )
    system = Regions(REGIONS, w=1.0)
    together = system.with_constants(tau=tau, w=w).vector_field(0.0, x, u)
    batch = torch.broadcast_shapes(*(tuple(shape) for shape in shapes))
    assert together.shape == (*batch, 4)
    alone = [
        system.with_constants(tau=tau_i, w=w_i).vector_field(0.0, x_i, u_i)
        for x_i, u_i, tau_i, w_i in zip(
            *(
                part.expand(*batch, part.shape[-1]).reshape(-1, part.shape[-1])
                for part in (x, u, tau, w)
            ),
            strict=True,
        )
    ]
    torch.testing.assert_close(together.reshape(-1, 4), torch.stack(alone), rtol=1e-14, atol=0)


# Constants


def test_constants_are_float64_and_end_in_their_own_axis():
    membrane = Membrane()
    assert membrane.g.shape == (1,)
    assert membrane.dtype == torch.float64
    assert Regions(REGIONS, w=2.0).w.tolist() == [2.0, 2.0, 2.0]
    assert Membrane(g=torch.rand(5, 1)).dtype == torch.float32  # numbers follow the tensor given
    assert membrane.float().C.dtype == torch.float32


def test_with_constants_changes_a_copy_and_leaves_the_original():
    membrane = Membrane()
    before = copy.deepcopy(membrane.state_dict())
    changed = membrane.with_constants(g=torch.tensor([[1.0], [2.0]]), E=-50)
    assert changed.g.tolist() == [[1.0], [2.0]]
    assert (changed.E.item(), changed.E.dtype, changed.g.dtype) == (
        -50.0,
        torch.float64,
        torch.float64,
    )
    assert membrane.state_dict() == before
    assert isinstance(changed, Membrane)
    again = pickle.loads(pickle.dumps(changed))
    assert torch.equal(again.g, changed.g)


def test_a_batch_of_constants_written_flat_is_refused_with_the_remedy():
    with pytest.raises(ArgumentError, match=r"shape \(5,\).*unsqueeze"):
        Membrane().with_constants(g=torch.rand(5))
    with pytest.raises(
        ArgumentError, match=r"'w' has shape \(4,\), expected batch axes and then 3"
    ):
        Regions(REGIONS, w=torch.rand(4))


def test_an_unknown_or_missing_constant_is_named_with_the_nearest():
    with pytest.raises(ArgumentError, match="no constant 'gL': did you mean 'g'"):
        Membrane().with_constants(gL=1.0)

    class Broken(Membrane):
        def __init__(self):
            System.__init__(self)
            self.register_constants(C=1.0, g=1.0)

    with pytest.raises(ArgumentError, match="no value for constant 'E'"):
        Broken()


def test_a_constant_may_not_take_the_name_of_a_module_attribute():
    class Broken(System):
        constants = (Quantity("train", "1"),)

        def __init__(self):
            super().__init__()
            self.register_constants(train=1.0)

        def vector_field(self, t, x, u):
            return x

    with pytest.raises(ArgumentError, match="'train' cannot be an attribute"):
        Broken()


def test_a_name_used_twice_is_refused_when_the_class_is_written():
    with pytest.raises(ArgumentError, match="'V' more than once"):
        type(
            "Twice", (System,), {"states": (Quantity("V", "mV"),), "inputs": (Quantity("V", "mV"),)}
        )


def test_functional_call_vmap_and_jacrev_see_the_constants():
    membrane = Membrane()
    x, u = torch.tensor([-60.0]).double(), torch.tensor([30.0]).double()

    def rate(g):
        return torch.func.functional_call(membrane, {"g": g}, (0.0, x, u))

    g = torch.rand(6, 1, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(rate)(g), (30 - g * 10) / 100)
    torch.testing.assert_close(torch.func.jacrev(rate)(g[0]), torch.tensor([[-0.1]]).double())
    per_value = torch.func.vmap(torch.func.jacrev(rate))(g)
    torch.testing.assert_close(per_value, torch.full((6, 1, 1), -0.1).double())

    def rate_of_copy(g):
        return membrane.with_constants(g=g).vector_field(0.0, x, u)

    torch.testing.assert_close(torch.func.vmap(rate_of_copy)(g), torch.func.vmap(rate)(g))
    torch.testing.assert_close(torch.func.jacrev(rate_of_copy)(g[0]), torch.func.jacrev(rate)(g[0]))
    assert membrane.g.item() == 10.0


def test_a_trained_constant_keeps_its_gradient_through_a_changed_copy():
    g = nn.Parameter(torch.tensor([10.0]).double())
    membrane = Membrane(g=g)
    assert [name for name, _ in membrane.named_parameters()] == ["g"]
    changed = membrane.with_constants(E=-50.0)
    rate = changed.vector_field(0.0, torch.tensor([-60.0]).double(), torch.zeros(1))
    rate.backward()
    assert g.grad is not None
    assert g.grad.item() == pytest.approx(-(-60.0 + 50.0) / 100.0)
    assert not list(membrane.with_constants(g=1.0).parameters())


def test_a_wrong_number_of_states_is_told_in_words():
    with pytest.raises(ArgumentError, match="holds 3 values, expected 4: 'E:lh_precuneus'"):
        Regions(REGIONS, w=1.0).split(torch.rand(3))
    with pytest.raises(ArgumentError, match="block 'E' has 2 values"):
        Regions(REGIONS, w=1.0).join(E=torch.rand(2), I=torch.rand(1))
    with pytest.raises(ArgumentError, match="no block is called 'e'"):
        Regions(REGIONS, w=1.0).join(e=torch.rand(3), I=torch.rand(1))


def test_a_discrete_system_steps_and_refuses_to_flow():
    system = Doubling()
    x = torch.rand(3, 1)
    assert torch.equal(system.next_state(0, x, no_input(x)), 2 * x)
    assert torch.equal(torch.func.functional_call(system, {}, (0, x, no_input(x))), 2 * x)
    with pytest.raises(ArgumentError, match=r"steps of 0.5 h and has no vector field"):
        system.vector_field(0.0, x, no_input(x))


# Linear systems


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
