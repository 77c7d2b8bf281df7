import math
from collections.abc import Callable

import pytest
import torch
from scipy.linalg import expm

from clinode.sequence.diagonal_flow import (
    FilterAlongFlow,
    filter_by_autograd,
    response,
    rotate,
    transition,
)

DECAY = torch.tensor([0.02, 0.4, 2.0, 1e-9], dtype=torch.float64)
FREQUENCY = torch.tensor([0.0, 0.3, 1.5, 0.0], dtype=torch.float64)


def block(decay: float, frequency: float) -> torch.Tensor:
    return torch.tensor([[-decay, -frequency], [frequency, -decay]], dtype=torch.float64)


@pytest.mark.parametrize("gap", [0.0, 1e-9, 0.3, 7.0, 200.0])
def test_a_mode_turns_and_decays_as_its_matrix_exponential(gap):
    cosine, sine = transition(DECAY, FREQUENCY, torch.tensor(gap, dtype=torch.float64))
    for mode, (decay, frequency) in enumerate(zip(DECAY.tolist(), FREQUENCY.tolist(), strict=True)):
        expected = torch.linalg.matrix_exp(block(decay, frequency) * gap)
        shown = torch.tensor([[cosine[mode], -sine[mode]], [sine[mode], cosine[mode]]])
        torch.testing.assert_close(shown, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("gap", [0.0, 1e-9, 0.01, 0.024, 0.026, 0.3, 7.0, 200.0])
def test_a_constant_drive_adds_the_integral_of_the_exponential(gap):
    real, imaginary = response(DECAY, FREQUENCY, torch.tensor(gap, dtype=torch.float64))
    for mode, (decay, frequency) in enumerate(zip(DECAY.tolist(), FREQUENCY.tolist(), strict=True)):
        augmented = torch.zeros(4, 4, dtype=torch.float64)  # Van Loan: [[A, I], [0, 0]]
        augmented[:2, :2] = block(decay, frequency)
        augmented[:2, 2:] = torch.eye(2)
        expected = torch.from_numpy(expm(augmented.numpy() * gap)[:2, 2:])
        shown = torch.tensor(
            [[real[mode], -imaginary[mode]], [imaginary[mode], real[mode]]], dtype=torch.float64
        )
        torch.testing.assert_close(shown, expected, rtol=1e-10, atol=1e-13)


def test_the_drive_keeps_its_slope_where_a_mode_does_not_move():
    decay = torch.tensor([1e-30], dtype=torch.float64, requires_grad=True)
    gap = torch.tensor([1.5], dtype=torch.float64)
    real, imaginary = response(decay, torch.zeros(1, dtype=torch.float64), gap)
    (slope,) = torch.autograd.grad(real.sum() + imaginary.sum(), decay)
    assert real.item() == pytest.approx(1.5)
    assert slope.item() == pytest.approx(-(1.5**2) / 2)  # d/da of (1 - e^(-a t)) / a at a = 0


def test_flowing_twice_is_flowing_once():
    generator = torch.Generator().manual_seed(3)
    state = torch.randn(8, dtype=torch.float64, generator=generator)
    drive = torch.randn(8, dtype=torch.float64, generator=generator)

    def flow(z, hours):
        gap = torch.tensor(hours, dtype=torch.float64)
        turned = rotate(*transition(DECAY, FREQUENCY, gap), z)
        return turned + rotate(*response(DECAY, FREQUENCY, gap), drive)

    torch.testing.assert_close(
        flow(flow(state, 0.7), 4.4), flow(state, 5.1), rtol=1e-12, atol=1e-13
    )


def filter_arguments(dtype: torch.dtype, *, with_drive: bool) -> tuple[list, list[int]]:
    generator = torch.Generator().manual_seed(0)
    sizes, modes, n_variables = [5, 5, 3, 3, 1], 3, 4
    n_rows, n_states = sum(sizes), 2 * modes

    def draw(*shape):
        values = torch.randn(*shape, dtype=torch.float64, generator=generator)
        return values.to(dtype).requires_grad_()

    gate = draw(n_rows, n_states)
    with torch.no_grad():
        gate[6] = -math.inf  # a row without an observation
    mask = (torch.rand(n_rows, n_variables, generator=generator) < 0.5).to(dtype)
    arguments = [
        draw(n_rows, modes),
        draw(n_rows, modes),
        draw(n_rows, n_states) if with_drive else None,
        gate,
        draw(n_rows, n_states),
        draw(n_rows, n_variables),
        mask,
        draw(n_variables, n_states),
        draw(n_variables),
        draw(n_states, n_states),
        draw(n_states, n_variables),
    ]
    return arguments, sizes


@pytest.mark.parametrize("with_drive", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_written_backward_pass_agrees_with_autograd(dtype, tolerance, with_drive):
    arguments, sizes = filter_arguments(dtype, with_drive=with_drive)
    leaves = [a for a in arguments if a is not None and a.requires_grad]
    results = []
    functions: tuple[Callable[..., tuple[torch.Tensor, torch.Tensor]], ...] = (
        FilterAlongFlow.apply,
        filter_by_autograd,
    )
    for function in functions:
        states, flowed = function(*arguments, sizes)
        weights = torch.linspace(-1, 1, states.numel(), dtype=dtype).view_as(states)
        loss = (states * weights).sum() + (flowed * weights.flip(0)).sum()
        results.append([states, flowed, *torch.autograd.grad(loss, leaves)])
    for ours, oracle in zip(*results, strict=True):
        error = (ours - oracle).abs().max() / oracle.abs().max()
        assert error.item() < tolerance


def test_a_row_with_a_closed_gate_only_flows():
    arguments, sizes = filter_arguments(torch.float64, with_drive=True)
    run: Callable[..., tuple[torch.Tensor, torch.Tensor]] = FilterAlongFlow.apply
    states, flowed = run(*arguments, sizes)
    assert torch.equal(states[6], flowed[6])
    assert not torch.equal(states[5], flowed[5])
