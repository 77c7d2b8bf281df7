import itertools
import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from clinode.control.stimulation.design import DesignSpace, effect_of_knots
from clinode.control.stimulation.limits import StimulusLimits
from clinode.control.stimulation.waveforms import BiphasicPulses, Free, Pulses
from clinode.dynamics.simulate import simulate
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity, Signal

ONE = (Quantity("I", "1"),)


def drawn(seed, n=3, m=2):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(n, n, generator=generator, dtype=torch.float64) - torch.eye(n)
    return LinearSystem(A, torch.randn(n, m, generator=generator, dtype=torch.float64))


def integrator(order):
    A = torch.diag(torch.ones(order - 1, dtype=torch.float64), 1)
    B = torch.zeros(order, 1, dtype=torch.float64)
    B[-1] = 1.0
    return LinearSystem(A, B)


def reached(linear, wanted, horizon, limits=None, **waveform):
    """Coordinates of the best design, its energy, and where it ends."""
    basis = Free(**waveform).basis(horizon)
    space = DesignSpace(basis, (limits or StimulusLimits()).bounds(linear.inputs))
    rows = np.eye(linear.n_states)
    S = space.effect(effect_of_knots(linear, rows, basis.knots, basis.hold, horizon))
    c, _ = space.nearest(S, np.asarray(wanted, dtype=float))
    return space, c, np.tensordot(S, c, 2)


@pytest.mark.parametrize("hold", ["previous", "linear"])
@pytest.mark.parametrize("seed", range(2))
def test_the_effect_of_the_knots_is_that_of_a_simulation(seed, hold):
    linear, horizon = drawn(seed), 2.0
    basis = Free(n_pieces=5, hold=hold).basis(1.7)  # it ends before the horizon
    rng = np.random.default_rng(seed)
    coefficients = rng.normal(size=(basis.shapes.shape[1], 2))
    effect = effect_of_knots(linear, np.eye(3), basis.knots, hold, horizon)
    predicted = np.einsum("pji,jk,ki->p", effect, basis.shapes, coefficients)
    run = simulate(linear, torch.zeros(3), [0.0, horizon], basis.signal(coefficients), rtol=1e-9,
                   atol=1e-11)  # fmt: skip
    np.testing.assert_allclose(predicted, run.states[-1].numpy(), rtol=1e-6)


@pytest.mark.parametrize(("n_pieces", "hold"), [(20, "previous"), (40, "previous"), (40, "linear")])
def test_a_double_integrator_moves_from_rest_to_rest_for_twelve_over_the_horizon_cubed(
    n_pieces, hold
):
    horizon = 2.0
    _, c, end = reached(integrator(2), [1.0, 0.0], horizon, n_pieces=n_pieces, hold=hold)
    np.testing.assert_allclose(end, [1.0, 0.0], atol=1e-6)
    closed = 12 / horizon**3
    assert closed <= (c**2).sum() * (1 + 1e-6)  # no steps do better than the continuous optimum
    assert (c**2).sum() == pytest.approx(closed, rel=10 / n_pieces if hold == "linear" else 0.01)


def test_the_energy_of_steps_comes_to_that_of_the_gramian_with_the_square_of_their_width():
    linear, wanted = drawn(1, m=1), np.array([1.0, -0.5, 0.3])
    A, B, n = linear.A.numpy(), linear.B.numpy(), 3
    block = expm(np.block([[-A, B @ B.T], [np.zeros((n, n)), A.T]]) * 1.5)
    gramian = block[n:, n:].T @ block[:n, n:]
    closed = wanted @ np.linalg.solve(gramian, wanted)
    excess = []
    for n_pieces in (20, 40, 80):
        _, c, end = reached(linear, wanted, 1.5, n_pieces=n_pieces)
        np.testing.assert_allclose(end, wanted, atol=1e-4)
        excess.append((c**2).sum() / closed - 1)
    orders = [math.log2(a / b) for a, b in itertools.pairwise(excess)]
    assert orders == pytest.approx([2.0, 2.0], abs=0.15)


def test_the_farthest_an_integrator_goes_with_bounded_amplitude_is_bang_bang():
    # x'' = u from rest to rest, |u| <= a, comes a T^2 / 4 far; the speed at the end weighs much.
    basis = Free(n_pieces=40).basis(2.0)
    space = DesignSpace(basis, StimulusLimits(amplitude=0.5).bounds(ONE))
    rows = np.diag([1.0, 1e3])
    S = space.effect(effect_of_knots(integrator(2), rows, basis.knots, basis.hold, 2.0))
    c, _ = space.nearest(S, np.array([10.0, 0.0]))
    assert np.tensordot(S, c, 2)[0] == pytest.approx(0.5 * 4 / 4, rel=1e-4)
    np.testing.assert_allclose(np.abs(space.values(c)[:-1]), 0.5, rtol=1e-3)


@pytest.mark.parametrize(
    "limits",
    [
        StimulusLimits(amplitude=0.7),
        StimulusLimits(amplitude=0.7, balanced=True),
        StimulusLimits(slew=1.5, amplitude=0.9, balanced=True),
        StimulusLimits(energy=0.3),
        StimulusLimits(charge=0.4),
        StimulusLimits(charge=0.4, amplitude=0.6, energy=0.5),
        StimulusLimits(one_sided=True, amplitude=1.0),
    ],
)
def test_a_design_keeps_every_limit(limits):
    linear = drawn(2)
    space, c, _ = reached(linear, [3.0, -2.0, 1.0], 2.0, limits, n_pieces=16, hold="linear")
    signal = Signal(space.basis.knots, torch.tensor(space.values(c)), "linear")
    check = limits.check(signal, linear.inputs)
    assert check.is_within, check.verdict
    assert check.energy == pytest.approx((c**2).sum())


def test_no_stretch_of_a_free_design_delivers_more_than_the_charge_of_a_phase():
    limits = StimulusLimits(charge=0.4)
    _, _, end = reached(integrator(1), [5.0], 2.0, limits, n_pieces=20)
    assert end[0] == pytest.approx(0.4, rel=1e-6)


def test_pulses_are_bound_by_the_charge_of_each():
    basis = Pulses(frequency=1.0, width=0.1).basis(5.0)
    limits = StimulusLimits(charge=0.02).bounds(ONE)
    space = DesignSpace(basis, limits)
    S = space.effect(effect_of_knots(integrator(1), np.eye(1), basis.knots, basis.hold, 5.0))
    c, _ = space.nearest(S, np.array([9.0]))
    assert np.tensordot(S, c, 2)[0] == pytest.approx(5 * 0.02, rel=1e-6)


def test_balance_and_a_single_unbalanced_shape_exclude_every_stimulus():
    basis = Pulses(frequency=1.0, width=0.1, modulated=False).basis(5.0)
    with pytest.raises(ArgumentError, match="excludes every stimulus of this waveform"):
        DesignSpace(basis, StimulusLimits(balanced=True).bounds(ONE))


def test_slew_and_vertical_edges_exclude_every_stimulus():
    basis = BiphasicPulses(frequency=1.0, width=0.1).basis(5.0)
    with pytest.raises(ArgumentError, match="the slew limit excludes every stimulus"):
        DesignSpace(basis, StimulusLimits(slew=1.0).bounds(ONE))
