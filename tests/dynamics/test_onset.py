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
    """Last period (set, current) of Morris-Lecar neurons by Runge-Kutta; NaN of those at rest.

    Args: starts in `states` (set, current, 2).
    """
    g_Ca, V3, V4, phi = (np.array(column)[:, None] for column in zip(*constants, strict=True))

    def rate(V, w):
        m = (1 + np.tanh((V + 1.2) / 18)) / 2
        open_ = (1 + np.tanh((V - V3) / V4)) / 2
        ionic = 2 * (V + 60) + g_Ca * m * (V - 120) + 8 * w * (V + 84)
        return (currents - ionic) / 20, phi * np.cosh((V - V3) / (2 * V4)) * (open_ - w)

    V, w = states[..., 0].copy(), states[..., 1].copy()
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


def _growth(T):
    """Of the last three periods of each row that are known."""
    found = []
    for row in T:
        known = row[np.isfinite(row)][-3:]
        steps = np.diff(known)
        found.append(steps[1] / steps[0] if len(known) == 3 else np.nan)
    return np.array(found)


def _on_cycles(onsets, currents):
    """For each set and current the state of the stable cycle that was followed nearest to it."""
    rows = []
    for onset, row in zip(onsets, currents, strict=True):
        stable = np.flatnonzero(onset.cycles.stable)
        start = float(onset.firing_begins.value)
        distance = np.log(np.maximum(onset.cycles.values[stable] - start, 1e-12))
        nearest = np.abs(distance - np.log(row - start)[:, None]).argmin(axis=1)
        rows.append(onset.cycles.states[stable[nearest]])
    return np.stack(rows)


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
@pytest.mark.parametrize("seeds", [(0, 1, 2), (3, 4, 5)])
def test_random_onsets_follow_the_law_of_frequencies_simulated_above_them(published, seeds):
    sets, onsets = [], []  # seven a seed, simulated together
    for seed in seeds:
        found = _random_onsets(published, np.random.default_rng(seed), 7)
        sets += found[0]
        onsets += found[1]
    begin = np.array([float(o.firing_begins.value) for o in onsets])[:, None]
    # Periods lengthen by 2.4 times as much each step of 10^0.75 where they go with the square root.
    far = begin + 10.0 ** np.array([-1.0, -1.75, -2.5])
    is_root = _growth(_simulated_periods(sets, far, _on_cycles(onsets, far))) > 1.6
    # Elsewhere they are short, so closer looks are cheap, and a cycle fold beside a homoclinic
    # orbit needs them: by as much each decade, or in the end by 0.32 times as much.
    near = begin + 10.0 ** -np.arange(2.0, 7.0)
    growth = _growth(_simulated_periods(sets, near, _on_cycles(onsets, near)))
    law = np.where(is_root, "sqrt", np.where(growth > 0.65, "log", "finite"))
    said = [onset.frequency_law for onset in onsets]
    # of all 42 at least 95 %: in each seven no more than one may differ
    agreed = (law == said).reshape(len(seeds), 7)
    assert (agreed.sum(axis=1) >= 6).all(), list(zip(law, said, growth, strict=True))
