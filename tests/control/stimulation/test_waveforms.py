import math

import numpy as np
import pytest
import torch

from clinode.control.stimulation.course import Course
from clinode.control.stimulation.waveforms import BiphasicPulses, Free, Pulses, Sine, waveform_named
from clinode.dynamics.simulate import simulate
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, UnitError


def course(signal):
    return Course(signal.knots.numpy(), signal.values[:, 0].numpy(), signal.hold)


@pytest.mark.parametrize("seed", range(4))
def test_a_biphasic_pulse_takes_back_its_charge_to_rounding(seed):
    rng = np.random.default_rng(seed)
    frequency, width = rng.uniform(20, 180), rng.uniform(0.06, 0.3)
    pulse = BiphasicPulses(
        frequency=f"{frequency} Hz",
        width=f"{width} ms",
        gap=rng.uniform(0, 0.1),
        ratio=rng.uniform(1, 5),
        ramp=float(rng.choice([0.0, 0.02])),
        start=rng.uniform(0, 3),
    )
    signal = course(pulse.signal(rng.uniform(-3, 3), horizon=900.0, time_unit="ms"))
    assert signal.imbalance < 1e-15
    begins = np.array([begin for begin, _, _ in signal.phases()])
    np.testing.assert_allclose(np.diff(begins[::2]), 1000 / frequency)
    np.testing.assert_allclose(np.diff(begins[1::2]), 1000 / frequency)


@pytest.mark.parametrize("ramp", [0.0, 0.5])
def test_the_charge_of_a_phase_is_amplitude_times_width_less_ramp(ramp):
    pulse = BiphasicPulses(frequency=0.05, width=2.0, gap=1.0, ratio=3.0, ramp=ramp)
    phases = course(pulse.signal(1.5, horizon=60.0)).phases()
    charges = np.array([charge for _, _, charge in phases])
    np.testing.assert_allclose(charges, np.tile([1, -1], 3) * 1.5 * (2 - ramp), rtol=1e-13)
    begins = np.array([begin for begin, _, _ in phases])
    np.testing.assert_allclose(begins, [0, 3, 20, 23, 40, 43])


def test_a_long_recharge_is_as_much_lower_as_it_is_longer():
    values = BiphasicPulses(frequency=0.1, width=1.0, ratio=4.0).signal(2.0, horizon=10.0).values
    assert values.flatten().tolist() == pytest.approx([2.0, -0.5, 0.0])


def test_pulses_stand_where_frequency_and_width_put_them():
    pulses = Pulses(frequency="50 Hz", width="2 ms", start="5 ms")
    signal = pulses.signal([1.0, -2.0], horizon=50.0, time_unit="ms")
    assert signal.knots.tolist() == [0.0, 5.0, 7.0, 25.0, 27.0, 45.0, 47.0]
    middle = signal(torch.tensor([3.0, 6.0, 8.0, 26.0, 46.0]).double())
    expected = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0]).double()
    torch.testing.assert_close(middle, expected.unsqueeze(-1) * torch.tensor([1.0, -2.0]).double())


def test_each_pulse_may_have_its_own_amplitude():
    signal = Pulses(frequency=0.1, width=1.0).signal([[1.0], [2.0], [3.0]], horizon=30.0)
    at = signal(torch.tensor([0.5, 10.5, 20.5]).double()).squeeze(-1)
    assert at.tolist() == [1.0, 2.0, 3.0]


def test_a_sine_has_its_integral_its_peak_and_its_energy():
    signal = course(Sine(frequency=0.25, samples=64).signal(3.0, horizon=20.0))
    assert abs(signal.charges.sum()) < 1e-14
    assert np.abs(signal.values).max() == 3.0
    assert signal.energy == pytest.approx(9 / 2 * 20, rel=2e-3)
    half = 3 * 4 / math.pi  # int of a half period
    assert signal.phases()[0][2] == pytest.approx(half, rel=1e-3)


def test_lines_between_samples_come_to_the_sine_with_the_square_of_their_number():
    def error(samples):
        signal = Sine(frequency=1.0, samples=samples).signal(1.0, horizon=1.0)
        t = torch.linspace(0, 1, 4001, dtype=torch.float64)
        return float((signal(t).squeeze(-1) - torch.sin(2 * math.pi * t)).abs().max())

    orders = [math.log2(error(n) / error(2 * n)) for n in (16, 32, 64)]
    assert orders == pytest.approx([2.0, 2.0, 2.0], abs=0.05)


def test_an_adaptive_solver_jumps_over_no_pulse():
    leak = LinearSystem([[-0.05]], [[1.0]])
    pulse = Pulses(frequency=0.01, width=0.01, start=37.0)  # a ten thousandth of the period
    end = simulate(leak, [0.0], [0.0, 100.0], pulse.signal(4.0, horizon=100.0)).states[-1]
    rise = (1 - math.exp(-0.05 * 0.01)) / 0.05
    assert float(end) == pytest.approx(4 * rise * math.exp(-0.05 * 62.99), rel=1e-6)


def test_free_steps_and_lines_end_at_zero():
    steps = Free(n_pieces=4).signal([[1.0], [2.0], [3.0], [4.0]], horizon=8.0)
    assert steps(torch.tensor([0.0, 2.0, 7.9, 8.0]).double()).flatten().tolist() == [1, 2, 4, 0]
    lines = Free(n_pieces=4, hold="linear").signal(1.0, horizon=8.0)
    assert lines(torch.tensor([0.0, 1.0, 4.0, 8.0]).double()).flatten().tolist() == [0, 0.5, 1, 0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Pulses(frequency="130 Hz", width="9 ms").basis(100.0, "ms"), "its period is only"),
        (lambda: Pulses(frequency=0.01, width=5.0).basis(3.0), "not one pulse fits"),
        (lambda: BiphasicPulses(frequency=1.0, width=0.1, ratio=0.5).basis(9.0), "at least 1"),
        (lambda: Pulses(frequency=1.0, width=0.1, ramp=0.2).basis(9.0), "half the width"),
        (lambda: Sine(frequency=1.0, samples=6).basis(9.0), "multiple of 4"),
        (lambda: Sine(frequency=-1.0).basis(9.0), "frequency must be positive"),
        (lambda: Free(hold="cubic"), "'previous' or 'linear'"),
        (lambda: Free(n_pieces=3).signal([[1.0]], 1.0), r"expected a number, \(input,\) or \(3"),
        (lambda: waveform_named("square"), "no waveform is called 'square'"),
    ],
)
def test_what_cannot_be_is_refused_in_words(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_a_frequency_in_a_unit_of_length_is_refused():
    with pytest.raises(UnitError, match="dimension"):
        Pulses(frequency="130 mm", width="1 ms").basis(10.0, "ms")
