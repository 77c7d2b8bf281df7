import json
import math

import numpy as np
import pytest
import torch

from clinode.dynamics.onset import firing_onset
from clinode.errors import ArgumentError, SolverError
from clinode.system import Quantity, System, Values

SNIC = (4.0, 12.0, 17.4, 1 / 15)
HOMOCLINIC = (4.0, 12.0, 17.4, 0.23)


class Theta(System):
    """Ermentrout & Kopell 1986; fires at sqrt(I) / pi."""

    states = (Quantity("theta", "rad", range=(-math.pi, math.pi)),)
    inputs = (Quantity("I", "1", range=(-1.0, 1.0)),)
    constants = (Quantity("shift", "1"),)

    def __init__(self, shift: Values = 0.0):
        super().__init__()
        self.register_constants(shift=shift)

    def vector_field(self, t, x, u):
        return 1 - torch.cos(x) + (1 + torch.cos(x)) * (u - self.shift)


class Oscillator(System):
    """r' = r (p + l r^2 - r^4), theta' = 2: a Hopf point at 0, super- or subcritical by l."""

    states = (Quantity("x", "1", range=(-2.0, 2.0)), Quantity("y", "1", range=(-2.0, 2.0)))
    inputs = (Quantity("p", "1", range=(-1.0, 1.0)),)
    constants = (Quantity("l", "1"),)

    def __init__(self, l: Values):
        super().__init__()
        self.register_constants(l=l)

    def vector_field(self, t, x, u):
        X, Y = self.split(x).values()
        square = X**2 + Y**2
        growth = u + self.l * square - square**2
        return self.join(x=growth * X - 2 * Y, y=2 * X + growth * Y)


def test_theta_neuron_begins_to_fire_in_a_snic_with_its_square_root_law():
    onset = firing_onset(Theta(), "I")
    assert onset.kind == "snic"
    assert onset.agrees
    assert abs(float(onset.value)) < 1e-9
    assert onset.frequency_law == onset.expected_law == "sqrt"
    assert onset.law.coefficient == pytest.approx(1 / math.pi, rel=1e-3)
    assert onset.law.exponent == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize(("l", "criticality"), [(-1.0, "supercritical"), (1.0, "subcritical")])
def test_oscillators_begin_at_a_finite_frequency_in_a_hopf_point(l, criticality):
    onset = firing_onset(Oscillator(l), "p")
    assert (onset.kind, onset.criticality, onset.frequency_law) == ("hopf", criticality, "finite")
    assert onset.agrees
    assert abs(float(onset.value)) < 1e-9
    assert onset.law.frequency == pytest.approx(1 / math.pi, rel=1e-3)
    if l > 0:  # the cycles fold back at p = -l^2 / 4
        assert onset.firing_begins.kind == "cycle fold"
        assert float(onset.firing_begins.value) == pytest.approx(-0.25, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("constants", "kind", "value", "law"),
    [
        (SNIC, "snic", 39.963153, "sqrt"),
        (HOMOCLINIC, "homoclinic", 35.00673, "log"),
        ((4.4, 2.0, 30.0, 0.04), "hopf", 93.857618, "finite"),
    ],
)
def test_published_morris_lecar_sets_are_told_apart(published, constants, kind, value, law):
    onset = firing_onset(published.MorrisLecar(*constants), "I")
    assert (onset.kind, onset.frequency_law) == (kind, law)
    assert onset.agrees
    assert float(onset.value) == pytest.approx(value, abs=1e-5)
    assert json.loads(json.dumps(onset.to_dict()))["kind"] == kind


def test_an_onset_is_differentiable_by_constants():
    shift = torch.tensor([0.2], dtype=torch.float64, requires_grad=True)
    onset = firing_onset(Theta(shift), "I")
    assert float(onset.value.detach()) == pytest.approx(0.2, abs=1e-9)
    (slope,) = torch.autograd.grad(onset.value, shift)
    assert float(slope) == pytest.approx(1.0, rel=1e-9)


def test_what_never_fires_or_never_rests_is_refused_in_words():
    with pytest.raises(SolverError, match="rest keeps its stability from p = -1 to"):
        firing_onset(Oscillator(1.0), "p", span=(-1.0, -0.5))
    with pytest.raises(SolverError, match="no stable equilibrium was found at p"):
        firing_onset(Oscillator(1.0), "p", span=(0.5, 1.0))
    with pytest.raises(ArgumentError, match="declares no range"):
        firing_onset(Oscillator(1.0), "l")
    with pytest.raises(ArgumentError, match="no input or constant 'I'"):
        firing_onset(Oscillator(1.0), "I")


def _simulated_periods(constants, currents, states, duration=12_000.0, dt=0.2):
    """Last period (set, current) of Morris-Lecar neurons by Runge-Kutta; NaN of those at rest."""
    g_Ca, V3, V4, phi = (np.array(column)[:, None] for column in zip(*constants, strict=True))

    def rate(V, w):
        m = (1 + np.tanh((V + 1.2) / 18)) / 2
        open_ = (1 + np.tanh((V - V3) / V4)) / 2
        ionic = 2 * (V + 60) + g_Ca * m * (V - 120) + 8 * w * (V + 84)
        return (currents - ionic) / 20, phi * np.cosh((V - V3) / (2 * V4)) * (open_ - w)

    V, w = (np.repeat(part[:, None], currents.shape[1], axis=1) for part in states.T)
    level, before, last = None, np.full(V.shape, np.nan), np.full(V.shape, np.nan)
    lowest, highest = V.copy(), V.copy()
    for step in range(int(duration / dt)):
        k1 = rate(V, w)
        k2 = rate(V + dt / 2 * k1[0], w + dt / 2 * k1[1])
        k3 = rate(V + dt / 2 * k2[0], w + dt / 2 * k2[1])
        k4 = rate(V + dt * k3[0], w + dt * k3[1])
        old = V
        V = V + dt / 6 * (k1[0] + 2 * k2[0] + 2 * k3[0] + k4[0])
        w = w + dt / 6 * (k1[1] + 2 * k2[1] + 2 * k3[1] + k4[1])
        if level is None:
            lowest, highest = np.minimum(lowest, V), np.maximum(highest, V)
            level = (lowest + highest) / 2 if step * dt > 600 else None
            continue
        up = (old < level) & (level <= V)
        time = (step + (level - old) / np.where(up, V - old, 1.0)) * dt
        last = np.where(up, time - before, last)
        before = np.where(up, time, before)
    return last


FAMILIES = (  # ranges of g_Ca, V3, V4 and phi around the three published sets
    ((3.8, 4.6), (6.0, 14.0), (15.0, 22.0), (0.03, 0.15)),
    ((3.8, 4.4), (8.0, 13.0), (15.0, 18.0), (0.2, 0.26)),
    ((4.2, 4.8), (0.0, 5.0), (26.0, 32.0), (0.03, 0.06)),
)


def _random_onsets(published, rng, n_wanted):
    sets, onsets = [], []
    for i in range(3 * n_wanted):
        constants = tuple(rng.uniform(*side) for side in FAMILIES[i % 3])
        try:
            onset = firing_onset(published.MorrisLecar(*constants), "I", span=(-20, 200))
        except SolverError:  # rests wherever it is
            continue
        if onset.cycles is not None and len(onsets) < n_wanted:
            sets.append(constants)
            onsets.append(onset)
        if len(onsets) == n_wanted:
            break
    return sets, onsets


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_random_onsets_follow_the_law_of_frequencies_simulated_above_them(published, seed):
    sets, onsets = _random_onsets(published, np.random.default_rng(seed), 7)
    above = np.array([1e-1, 1e-2, 1e-3])
    begin = np.array([float(o.firing_begins.value) for o in onsets])[:, None]
    states = []
    for onset, (value,) in zip(onsets, begin + 1e-1, strict=True):
        stable = np.flatnonzero(onset.cycles.stable)
        nearest = stable[np.argmin(np.abs(onset.cycles.values[stable] - value))]
        states.append(onset.cycles.states[nearest])
    T = _simulated_periods(sets, begin + above, np.stack(states))
    # periods lengthen by 3.2 times as much each decade, by as much, or by less and less
    growth = (T[:, 2] - T[:, 1]) / (T[:, 1] - T[:, 0])
    law = np.where(growth > 1.8, "sqrt", np.where(growth > 0.6, "log", "finite"))
    said = [onset.frequency_law for onset in onsets]
    # of all 42 at least 95 %: in each seven no more than one may differ
    assert (law == said).sum() >= len(said) - 1, list(zip(law, said, growth, strict=True))
    assert len(onsets) == 7
