import math

import numpy as np
import pytest
import torch

from clinode.control.stimulation.limits import StimulusLimits
from clinode.control.stimulation.waveforms import BiphasicPulses, Pulses, Sine
from clinode.errors import ArgumentError
from clinode.system import FunctionSignal, Quantity, Signal, UnitError

CURRENT = (Quantity("I", "mA"),)
REGIONS = (Quantity("stimulus", "1", labels=("left", "right")),)


def only(check, limit):
    (row,) = [row for row in check.rows if row.limit == limit]
    return row


def test_every_limit_of_a_biphasic_train_is_its_closed_form():
    train = BiphasicPulses(frequency="100 Hz", width="0.2 ms", ramp="0.05 ms")
    signal = train.signal(3.0, horizon=100.0, time_unit="ms")
    limits = StimulusLimits(amplitude=5.0, slew=100.0, charge=1.0, energy=100.0, balanced=True)
    check = limits.check(signal, CURRENT, "ms")
    assert only(check, "amplitude").value == pytest.approx(3.0)
    assert only(check, "slew").value == pytest.approx(3.0 / 0.05)
    assert only(check, "charge").value == pytest.approx(3.0 * 0.15)
    # a ramp from 0 to a over r has the energy a^2 r / 3
    assert only(check, "energy").value == pytest.approx(20 * 9.0 * (0.1 + 2 * 0.05 / 3))
    assert check.energy == only(check, "energy").value
    assert check.is_within
    assert check.verdict == "within limits"


def test_what_is_exceeded_is_named_with_its_input_value_and_time():
    values = torch.zeros(4, 2).double()
    values[1, 1], values[2, 0] = -7.0, 2.0
    check = StimulusLimits(amplitude={"stimulus:right": 5.0}).check(
        Signal([0.0, 1.0, 2.0, 3.0], values), REGIONS
    )
    assert not check.is_within
    assert check.verdict == "exceeded: amplitude of stimulus:right (7 of 5 at 1)"
    assert check.to_pandas().is_kept.tolist() == [False]


def test_a_line_through_zero_has_two_phases():
    signal = Signal([0.0, 1.0, 3.0, 4.0], [[0.0], [2.0], [-1.0], [0.0]], "linear")
    # the line from 2 to -1 over 2 crosses zero 4/3 after its start
    check = StimulusLimits(charge=1.0).check(signal)
    assert only(check, "charge").value == pytest.approx(1.0 + 4 / 3)
    balance = only(StimulusLimits(balanced=True).check(signal), "balance").value
    below = 1 / 3 + 1 / 2
    assert balance == pytest.approx((7 / 3 - below) / (7 / 3 + below))


def test_pulses_with_a_pause_between_are_phases_of_their_own():
    signal = Pulses(frequency=0.1, width=1.0).signal(2.0, horizon=100.0)
    assert only(StimulusLimits(charge=3.0).check(signal), "charge").value == pytest.approx(2.0)


def test_a_step_breaks_every_slew_limit_and_says_where():
    check = StimulusLimits(slew=1e9).check(Signal([0.0, 1.0, 2.0], [[0.0], [1.0], [0.0]]))
    assert only(check, "slew").value == math.inf
    assert only(check, "slew").time == 1.0


def test_a_stimulus_that_does_not_end_is_found():
    check = StimulusLimits(amplitude=2.0).check(Signal([0.0, 1.0], [[0.0], [1.0]]))
    assert check.verdict.startswith("exceeded: end of u1")


def test_limits_hold_for_the_deviation_from_the_baseline():
    signal = Signal([0.0, 1.0, 2.0], [[1.5], [0.75], [1.25]])
    check = StimulusLimits(amplitude=0.5, balanced=True).check(signal, baseline=1.25)
    assert only(check, "amplitude").value == pytest.approx(0.5)
    assert check.energy == pytest.approx(0.25**2 + 0.5**2)


def test_the_limit_of_shannon_is_where_log_density_and_log_charge_sum_to_k():
    area, k = 0.06, 1.85
    limits = StimulusLimits(shannon_k=k, electrode_area=area)
    allowed = limits.bounds(CURRENT, "ms").charge[0]  # mA ms are uC
    assert math.log10(allowed / area) + math.log10(allowed) == pytest.approx(k)
    other = limits.bounds((Quantity("I", "uA"),), "s").charge[0]  # uA s are uC too
    assert other == pytest.approx(allowed)


def test_a_density_is_a_charge_over_the_electrode():
    areas = {"stimulus:left": 0.1, "stimulus:right": 0.2}
    limits = StimulusLimits(charge_density=30.0, electrode_area=areas)
    np.testing.assert_allclose(limits.bounds(REGIONS).charge, [3.0, 6.0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"amplitude": 0.0}, "excludes every stimulus"),
        ({"slew": -1.0}, "slew must be positive"),
        ({"energy": math.nan}, "energy must be positive"),
        ({"amplitude": {"left": -1.0}}, "excludes every stimulus"),
        ({"balanced": True, "one_sided": True}, "together exclude every stimulus"),
        ({"charge_density": 1.0}, "go together with an electrode_area"),
        ({"electrode_area": 1.0}, "go together with an electrode_area"),
    ],
)
def test_limits_that_make_no_sense_are_refused(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        StimulusLimits(**arguments)


def test_an_unknown_input_is_offered_the_nearest():
    with pytest.raises(ArgumentError, match="did you mean 'stimulus:left'"):
        StimulusLimits(amplitude={"stimulus:lefd": 1.0}).bounds(REGIONS)


def test_k_needs_a_current():
    with pytest.raises(UnitError, match="needs a current"):
        StimulusLimits(shannon_k=1.85, electrode_area=0.06).bounds(REGIONS, "ms")


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        (FunctionSignal(torch.sin, breaks=[]), "cannot be checked exactly"),
        (Signal([0.0], [[0.0]], impulses=([1.0], [[1.0]])), "no finite amplitude"),
        (Signal([0.0, 1.0], torch.zeros(3, 2, 1)), "batch axes"),
        (Signal.constant([1.0]), "begins and ends at finite times"),
        (Signal([0.0, 1.0], [[math.nan], [0.0]]), "not finite"),
    ],
)
def test_what_has_no_limits_to_check_is_refused(signal, words):
    with pytest.raises(ArgumentError, match=words):
        StimulusLimits(amplitude=1.0).check(signal)


@pytest.mark.parametrize("seed", range(6))
def test_a_projected_signal_keeps_all_limits_and_projecting_it_again_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    hold = "linear" if seed % 2 else "previous"
    knots = np.sort(rng.uniform(0, 10, 15))
    signal = Signal(knots, 4 * rng.normal(size=(15, 2)) + 1.0, hold)
    limits = StimulusLimits(
        amplitude=rng.uniform(0.5, 3),
        slew=rng.uniform(1, 5) if seed % 2 else None,
        charge=rng.uniform(0.5, 2) if seed > 2 else None,
        energy=rng.uniform(1, 20),
        balanced=bool(rng.integers(2)),
    )
    nearest = limits.project(signal, REGIONS, baseline=1.0)
    check = limits.check(nearest, REGIONS, baseline=1.0)
    assert check.is_within, check.verdict
    again = limits.project(nearest, REGIONS, baseline=1.0)
    torch.testing.assert_close(again.values, nearest.values, rtol=1e-6, atol=1e-6)


def test_a_signal_within_its_limits_is_its_own_projection():
    signal = Sine(frequency=0.5).signal(1.0, horizon=10.0)
    limits = StimulusLimits(amplitude=1.0, balanced=True, energy=10.0)
    torch.testing.assert_close(limits.project(signal).values, signal.values, rtol=0, atol=1e-9)
