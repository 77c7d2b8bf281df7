"""The chain from a network to a checked stimulus, each link against the call that it stands for."""

import math

import numpy as np
import pytest
import torch

from clinode.brain import WilsonCowanNetwork, simulate_connectome
from clinode.control import controllability, rank_targets, steer
from clinode.control.stimulation.limits import StimulusLimits
from clinode.control.targets.input_factors import input_factors
from clinode.dynamics import find_equilibria, linearize, simulate
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity

LIMITS = StimulusLimits(amplitude=2.0)


@pytest.fixture(scope="module")
def brain():
    return WilsonCowanNetwork(simulate_connectome(6, seed=1), K=2.0)


@pytest.fixture(scope="module")
def target(brain):
    rest = find_equilibria(brain)[0]
    return {"E:lh_precuneus": float(rest.state[0]) + 0.03}


@pytest.fixture(scope="module")
def steering(brain, target):
    return steer(brain, target, horizon=20.0, limits=LIMITS, n_stimulated=2, n_nulls=3)


def test_each_link_is_the_answer_of_its_own_question(brain, target, steering):
    rest = steering.equilibrium
    linear = linearize(brain, rest)
    assert steering.controllability.dimension == controllability(linear).dimension
    ranking = rank_targets(brain, target, rest, horizon=20.0, nulls=None)
    assert steering.ranking.candidates == ranking.candidates
    np.testing.assert_allclose(steering.ranking.log10_energy, ranking.log10_energy)
    assert steering.energies["log10_energy"][0] == pytest.approx(ranking.log10_energy[0])
    assert steering.energies["log10_energy"].is_monotonic_decreasing  # more inputs, less energy
    factors = input_factors(linear.A.numpy(), linear.B.numpy(), 20.0)
    np.testing.assert_allclose(steering.reach["reach"], (factors**2).sum(axis=(1, 2)))


def test_the_stimulus_uses_the_cheapest_places_and_does_in_the_model_what_it_says(brain, steering):
    stimulus = steering.stimulus
    assert list(stimulus.inputs) == [one[0] for one in steering.ranking.candidates[:2]]
    assert stimulus.limits.is_within
    again = simulate(
        brain, steering.equilibrium.state, torch.tensor([0.0, 20.0]).double(), stimulus.signal
    )
    wanted = steering.target["E:lh_precuneus"]
    assert float(again.states[-1, 0]) == pytest.approx(
        float(stimulus.simulated.states[-1, 0]), abs=1e-4
    )
    assert stimulus.is_reached == (abs(float(again.states[-1, 0]) - wanted) < 0.01 * 0.03)


def test_the_horizon_is_the_slowest_time_constant_unless_one_is_given(brain, target):
    found = steer(brain, target, nulls=None, n_stimulated=1, candidates=["stimulus:lh_precuneus"])
    slowest = 1 / float(found.equilibrium.eigenvalues.real.abs().min())
    assert found.horizon == pytest.approx(slowest)
    assert found.n_nulls == 0
    assert np.isnan(found.ranking.p_values).all()


def test_a_learned_system_is_steered_by_its_outputs_in_whatever_coordinates():
    draws = np.random.default_rng(3)
    A = torch.from_numpy(draws.normal(size=(4, 4)) / 4) - torch.eye(4)
    B, C = torch.from_numpy(draws.normal(size=(4, 2))), torch.from_numpy(draws.normal(size=(2, 4)))
    T = torch.from_numpy(draws.normal(size=(4, 4))) + 3 * torch.eye(4)
    inverse = torch.linalg.inv(T)
    named = {
        "inputs": [Quantity("norepinephrine", "1"), Quantity("fluid", "1")],
        "outputs": [Quantity("MAP", "1"), Quantity("lactate", "1")],
    }
    first = LinearSystem(A, B, C, latent=True, **named)
    second = LinearSystem(T @ A @ inverse, T @ B, C @ inverse, latent=True, **named)
    one, other = (
        steer(s, {"MAP": 0.5}, horizon=2.0, n_stimulated=1, limits=StimulusLimits(amplitude=5.0))
        for s in (first, second)
    )
    assert one.ranking.candidates == other.ranking.candidates
    np.testing.assert_allclose(one.reach["reach"], other.reach["reach"], rtol=1e-8)
    np.testing.assert_allclose(one.energies["log10_energy"], other.energies["log10_energy"])
    assert one.controllability.margin is None  # it changes with the coordinates
    assert one.stimulus.is_reached
    assert other.stimulus.is_reached


def test_its_record_is_plain(steering):
    told = steering.to_dict()
    assert told["equilibrium"] == steering.which == 0
    assert told["target"] == steering.target
    assert told["ranking"]["targets"][0]["rank"] == 1
    assert math.isfinite(told["energies"][0]["log10_energy"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"equilibrium": 99}, "equilibrium 99 was asked for"),
        ({"n_stimulated": 0}, "n_stimulated must be 1 to 6"),
        ({"candidates": ["stimulus:nowhere"]}, "stimulus:nowhere"),
        ({"horizon": -1.0}, "horizon"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(brain, target, options, words):
    with pytest.raises(ArgumentError, match=words):
        steer(brain, target, nulls=None, **options)
