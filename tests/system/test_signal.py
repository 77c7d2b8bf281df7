import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d

from clinode.errors import ArgumentError
from clinode.system import (
    FunctionSignal,
    Signal,
    as_signal,
)


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


def test_a_function_of_time_keeps_to_the_piece_that_it_is_asked_from():
    def sawtooth(t):
        return (t - t.floor()).unsqueeze(-1)

    signal = FunctionSignal(sawtooth, breaks=[2.0, 1.0])
    assert signal.breakpoints.tolist() == [1.0, 2.0]
    times = torch.linspace(-0.5, 3.0, 8).double()
    torch.testing.assert_close(signal(times), sawtooth(times))
    assert signal(1.0, within=0.5).item() == pytest.approx(1.0)
    assert signal(1.0, within=1.5).item() == 0.0
    assert signal(torch.tensor([1.0, 2.0]), within=torch.tensor([0.5, 1.5])).shape == (2, 1)
    smooth = FunctionSignal(lambda t: torch.sin(t).unsqueeze(-1), breaks=[])
    assert smooth(0.3, within=0.1).item() == pytest.approx(math.sin(0.3))
    with pytest.raises(ArgumentError, match="must be finite"):
        FunctionSignal(torch.sin, breaks=[math.inf])
    assert as_signal(signal, 1) is signal


def test_a_moved_signal_keeps_its_times_in_double_precision():
    signal = Signal([0.0, 1 / 3], [[1.0], [2.0]], impulses=([1 / 3], [[4.0]]))
    single = signal.to(dtype=torch.float32)
    assert single.values.dtype == torch.float32
    assert single.knots.dtype == torch.float64
    assert single.impulses is not None
    assert single.impulses[0].item() == 1 / 3
