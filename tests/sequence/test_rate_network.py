import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from clinode.cohort.recording import Recording
from clinode.dynamics import find_equilibria, simulate
from clinode.errors import ArgumentError, CheckpointError, SolverError
from clinode.sequence.network import (
    NetworkConfig,
    Phase,
    RateNetwork,
    learn_network,
    load_network,
    save_network,
)
from clinode.sequence.network.rate_network import WEIGHTS
from clinode.sequence.network.rollout import PARTS, rollout
from clinode.system import Signal

REGIONS = ("lh_cuneus", "lh_insula", "rh_cuneus", "rh_insula")
STEP = 0.01  # s
QUICK = NetworkConfig(
    phases=(
        Phase(n_steps=15, n_unscored=8, batch=16, n_iterations=40, learning_rate=5e-2),
        Phase(n_steps=25, n_unscored=12, batch=16, n_iterations=40, learning_rate=2.5e-2),
    ),
    width=4,
    held_out=0.25,
)


def weights(seed: int, n: int = 4, width: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    found = {name: drawn(n) for name in WEIGHTS}
    found |= {"W": 0.4 * drawn(n, n), "inward": drawn(3, width), "own": drawn(n, width)}
    found |= {"outward": 0.2 * drawn(width, 2), "shift": 0.1 * drawn(2)}
    paces = {name: 0.04 + 0.02 * drawn(n).abs() for name in ("tau", "tau_h")}
    return found | paces


def network(seed: int, stimulated: tuple[str, ...] = REGIONS) -> RateNetwork:
    return RateNetwork(
        weights(seed),
        center=torch.tensor([1.0, 2.0, 3.0, 4.0]),
        spread=torch.tensor([0.5, 1.0, 1.5, 2.0]),
        input_scale=2.0,
        regions=REGIONS,
        stimulated=stimulated,
        unit="Hz",
    )


@functools.cache
def recorded(seed: int = 0, stimulated: tuple[str, ...] = REGIONS, level: float = 0.5) -> Recording:
    """A rate network under levels held 100 ms, seen with 1 % noise."""
    draw = np.random.default_rng(seed)
    parts = weights(seed) | {
        "outward": torch.zeros(5, 2).double(),
        "shift": torch.zeros(2).double(),
    }
    parts |= {"wee": torch.full((4,), 0.3).double(), "wei": torch.full((4,), -1.0).double()}
    parts |= {"wie": torch.full((4,), 1.2).double(), "wii": torch.zeros(4).double()}
    levels = np.repeat(draw.normal(0, level, (4, 30, len(stimulated))), 10, axis=1)
    drive = parts["b"].repeat(300, 4, 1)
    places = [REGIONS.index(name) for name in stimulated]
    drive[..., places] += torch.tensor(levels.swapaxes(0, 1)) * parts["gain"][places]
    start = torch.zeros(4, 4).double()
    seen = torch.cat([start.unsqueeze(0), rollout(start, start, drive, parts, STEP)[:-1]])
    values = seen.numpy().swapaxes(0, 1)
    values = values + draw.normal(0, 0.01 * values.std(), values.shape)
    return Recording(STEP, values, levels, REGIONS, stimulated)


def test_the_gradient_by_hand_is_that_of_finite_differences():
    parts = weights(0, n=3, width=2)
    generator = torch.Generator().manual_seed(1)
    x, h = torch.randn(2, 2, 3, generator=generator, dtype=torch.float64)
    drive = torch.randn(3, 2, 3, generator=generator, dtype=torch.float64)
    given = [one.requires_grad_() for one in (x, h, drive, *(parts[name] for name in PARTS))]

    def seen(x, h, drive, *rest):
        return rollout(x, h, drive, dict(zip(PARTS, rest, strict=True)), 0.01)

    assert torch.autograd.gradcheck(seen, given)


def test_the_rollout_that_is_trained_is_the_system_that_is_handed_over():
    system = network(2)
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(6, 8, generator=generator, dtype=torch.float64) / 3
    levels = torch.randn(20, 6, 4, generator=generator, dtype=torch.float64)
    parts = {name: getattr(system, name) for name in PARTS}
    x, h = start.chunk(2, dim=-1)
    drive = system.b + system.gain * levels / 2.0
    trained = rollout(x, h, drive, parts, 0.005)
    knots = torch.arange(20) * 0.005
    signal = Signal(knots, levels.transpose(0, 1))
    times = torch.arange(21) * 0.005
    solved = simulate(system, start, times, u=signal, rtol=1e-10, atol=1e-12).outputs[:, 1:]
    expected = system.center + system.spread * trained.transpose(0, 1)
    torch.testing.assert_close(solved, expected, rtol=0, atol=1e-5)  # the rollout's fourth order


def test_a_rate_network_has_an_equilibrium_inside_its_range_under_strong_stimulation():
    system = network(4)
    found = find_equilibria(system, u=torch.full((4,), 20.0))
    assert len(found) >= 1
    assert (found[0].state.abs() <= system.states[0].range[1]).all()


def test_a_stimulus_enters_its_own_region_alone():
    system = network(5, stimulated=("rh_cuneus",))
    zero = torch.zeros(8).double()
    pushed = system.vector_field(0.0, zero, torch.tensor([1.0]).double())
    still = system.vector_field(0.0, zero, torch.tensor([0.0]).double())
    moved = (pushed != still).nonzero().flatten().tolist()
    assert set(moved) <= {2, 6}
    assert 2 in moved


@pytest.fixture(scope="module")
def learned():
    return learn_network(recorded(), QUICK)


@pytest.mark.slow
def test_learning_explains_sessions_that_it_did_not_see(learned):
    assert learned.losses[-10:].mean() < 0.5 * learned.losses[:10].mean()
    assert learned.held_out > 0.75
    assert "4 of 4 regions were stimulated" in learned.verdict


@pytest.mark.slow
def test_the_same_seed_learns_the_same_network(learned):
    again = learn_network(recorded(), QUICK)
    for name in WEIGHTS:
        assert torch.equal(getattr(again.system, name), getattr(learned.system, name))


@pytest.mark.slow
def test_a_cohort_teaches_what_its_arrays_teach(learned):
    again = learn_network(recorded().cohort(), QUICK)
    torch.testing.assert_close(again.system.W, learned.system.W, rtol=1e-3, atol=1e-4)


def test_regions_that_were_never_stimulated_are_named_as_unknown():
    quick = NetworkConfig(
        phases=(Phase(n_steps=10, n_unscored=2, batch=8, n_iterations=2, learning_rate=1e-3),)
    )
    learned = learn_network(recorded(stimulated=("lh_cuneus", "rh_insula")), quick)
    assert learned.identified == (True, False, False, True)
    assert learned.system.input_names == ("stimulus:lh_cuneus", "stimulus:rh_insula")
    assert "are not ranked" in learned.verdict


def test_an_input_that_was_never_given_is_no_input_of_the_network():
    given = recorded(stimulated=("lh_cuneus", "rh_insula"))
    levels = given.stimulation.copy()
    levels[:3, :, 1] = 0  # the last session is held out
    quick = NetworkConfig(
        phases=(Phase(n_steps=10, n_unscored=2, batch=8, n_iterations=2, learning_rate=1e-3),),
        held_out=0.25,
    )
    learned = learn_network(replace(given, stimulation=levels), quick)
    assert learned.system.input_names == ("stimulus:lh_cuneus",)
    assert learned.identified == (True, False, False, False)


def test_without_stimulation_a_network_is_learned_and_nothing_about_stimuli():
    given = recorded()
    quick = NetworkConfig(
        phases=(Phase(n_steps=10, n_unscored=2, batch=8, n_iterations=2, learning_rate=1e-3),)
    )
    learned = learn_network(
        Recording(STEP, given.values, given.stimulation[..., :0], REGIONS, ()), quick
    )
    assert learned.identified == (False,) * 4
    assert learned.system.n_inputs == 0
    assert learned.verdict.startswith("0 of 4 regions were stimulated")


@pytest.mark.slow
@pytest.mark.parametrize(("level", "is_small"), [(0.02, True), (3.0, False)])
def test_a_small_stimulation_is_called_small_and_a_large_one_large(level, is_small):
    learned = learn_network(recorded(level=level), QUICK)
    assert (learned.linear_share > 0.95) == is_small
    assert ("small enough for a linear fit" in learned.verdict) == is_small


def test_a_saved_network_comes_back_the_same(learned, tmp_path):
    save_network(learned, tmp_path / "network")
    back = load_network(tmp_path / "network")
    assert back.to_dict() == learned.to_dict()
    x = torch.randn(7, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = torch.ones(4).double()
    assert torch.equal(back.system.vector_field(0.0, x, u), learned.system.vector_field(0.0, x, u))
    file = tmp_path / "network" / "network.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"network\.safetensors"):
        load_network(tmp_path / "network")


def test_what_cannot_be_learned_is_refused_in_words():
    recording = recorded()
    brief = Recording(
        STEP, recording.values[:, :20], recording.stimulation[:, :20], REGIONS, REGIONS
    )
    with pytest.raises(ArgumentError, match="no window of 25 steps"):
        learn_network(brief, QUICK)
    silent = recording.values.copy()
    silent[..., 2] = np.nan
    with pytest.raises(ArgumentError, match="'rh_cuneus' has no sample"):
        learn_network(replace(recording, values=silent), QUICK)
    with pytest.raises(ArgumentError, match="do not vary"):
        learn_network(replace(recording, values=np.ones_like(silent)), QUICK)
    wild = NetworkConfig(
        phases=(Phase(n_steps=10, n_unscored=2, batch=8, n_iterations=9, learning_rate=1e30),)
    )
    with pytest.raises(SolverError, match="not finite"):
        learn_network(recording, wild)
