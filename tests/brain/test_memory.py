import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from clinode.brain.memory import (
    GradedHopfield,
    Hopfield,
    ModernHopfield,
    critical_load,
    one_step_error,
    recalled_overlap,
)
from clinode.dynamics import simulate
from clinode.errors import ArgumentError, SolverError
from clinode.units import check_dimensions


def random_patterns(count, n, seed):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.choice([-1.0, 1.0], (count, n)))


def symmetric(n, seed, diagonal=0.0):
    W = torch.tensor(np.random.default_rng(seed).normal(size=(n, n)))
    return ((W + W.T) / 2).fill_diagonal_(diagonal)


def draws(seed):
    return torch.Generator().manual_seed(seed)


# Binary


@pytest.mark.parametrize("seed", range(5))
def test_no_flip_raises_the_energy(seed):
    rng = np.random.default_rng(seed)
    n = 40
    order = torch.tensor(rng.permutation(n))
    system = Hopfield(symmetric(n, seed), order=order)
    h = torch.tensor(rng.normal(size=n))
    x = random_patterns(1, n, seed)[0]
    energies = [float(system.energy(x, h))]
    for k in range(4 * n):
        new = system.next_state(k, x, h)
        others = [i for i in range(n) if i != order[k % n]]
        assert torch.equal(new[others], x[others])
        x = new
        energies.append(float(system.energy(x, h)))
    assert max(np.diff(energies)) <= 1e-12
    assert energies[-1] < energies[0]


@pytest.mark.parametrize("seed", range(5))
def test_recall_never_climbs_and_ends_where_every_unit_agrees_with_its_field(seed):
    system = Hopfield(symmetric(60, seed))
    recall = system.complete(random_patterns(7, 60, seed), generator=draws(seed))
    assert recall.energy.shape == (recall.n_sweeps + 1, 7)
    assert recall.energy.diff(dim=0).max() <= 1e-12
    assert (recall.state * (recall.state @ system.weights) >= 0).all()


def test_a_memory_completes_from_a_third_of_itself():
    patterns = random_patterns(8, 300, 0)
    system = Hopfield.store(patterns)
    mask = torch.tensor(np.random.default_rng(1).random((8, 300)) < 0.33)
    recall = system.complete(patterns, mask, generator=draws(0))
    assert torch.equal(recall.state, patterns)
    assert recall.to_dict()["n_sweeps"] == recall.n_sweeps <= 4


def test_weights_are_the_outer_products_of_the_patterns():
    patterns = random_patterns(3, 10, 0)
    expected = sum(torch.outer(p, p) for p in patterns) / 10
    found = Hopfield.store(patterns).weights
    torch.testing.assert_close(found, expected - torch.diag(expected.diagonal()))


def test_single_flips_in_turn_are_a_map_that_simulate_iterates():
    patterns = random_patterns(3, 50, 2)
    system = Hopfield.store(patterns)
    cue = patterns[0] * torch.where(torch.arange(50) < 8, -1.0, 1.0)
    found = simulate(system, cue, torch.tensor([0.0, 50.0, 100.0]))
    assert torch.equal(found.states[-1], patterns[0])


def test_a_field_of_zero_leaves_a_unit_as_it_is():
    system = Hopfield(torch.zeros(3, 3).double())
    x = torch.tensor([1.0, -1.0, 1.0]).double()
    assert torch.equal(system.next_state(1, x, torch.zeros(3).double()), x)


def test_the_critical_load_is_that_of_amit_gutfreund_and_sompolinsky():
    assert critical_load() == pytest.approx(0.1379056, abs=5e-8)
    assert recalled_overlap(critical_load() * (1 - 1e-12)) == pytest.approx(0.9674171, abs=2e-6)
    assert recalled_overlap(critical_load() * (1 + 1e-9)) == 0.0


def test_the_kept_overlap_is_the_largest_root_of_the_mean_field():
    for load in np.random.default_rng(0).uniform(0.001, 0.1379, 50):
        y = np.linspace(1e-3, 1 / math.sqrt(2 * load) + 1, 400_001)
        erf = torch.erf(torch.tensor(y)).numpy()
        defect = y * (math.sqrt(2 * load) + 2 / math.sqrt(math.pi) * np.exp(-(y**2))) - erf
        last = np.nonzero(np.diff(np.sign(defect)))[0][-1]
        assert recalled_overlap(load) == pytest.approx(erf[last], abs=1e-5)


@pytest.mark.parametrize(
    ("load", "error"),
    [(0.105, 0.00101), (0.138, 0.00355), (0.185, 0.01004), (0.37, 0.0501), (0.61, 0.1002)],
)
def test_errors_of_the_first_step_are_the_table_of_hertz_krogh_and_palmer(load, error):
    assert one_step_error(load) == pytest.approx(error, abs=6e-6 if error < 0.02 else 6e-5)


def test_errors_of_the_first_step_are_counted_in_a_network():
    n, load = 2000, 0.2
    patterns = random_patterns(int(load * n), n, 5)
    system = Hopfield.store(patterns)
    flipped = (patterns * (patterns @ system.weights) < 0).double().mean()
    assert float(flipped) == pytest.approx(one_step_error(load), rel=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_simulated_recall_keeps_the_overlap_of_mean_field(seed):
    rng = np.random.default_rng(seed)
    n, load = 2400, rng.uniform(0.02, 0.12)
    patterns = random_patterns(round(load * n), n, seed)
    system = Hopfield.store(patterns)
    recall = system.complete(patterns[:24], generator=draws(seed))
    overlap = (recall.state * patterns[:24]).mean(-1).mean()
    assert float(overlap) == pytest.approx(recalled_overlap(len(patterns) / n), abs=0.01)


# Graded


@pytest.mark.parametrize("seed", range(5))
def test_graded_energy_falls_as_fast_as_its_units_move(seed):
    rng = np.random.default_rng(seed)
    system = GradedHopfield(symmetric(30, seed, 0.3), beta=rng.uniform(0.5, 6), tau=7.0)
    x, u = torch.tensor(rng.normal(size=30)), torch.tensor(rng.normal(size=30))
    rate = system.vector_field(0.0, x, u)
    falling = torch.func.grad(lambda x: system.energy(x, u))(x) @ rate
    slope = system.beta * (1 - torch.tanh(system.beta * x) ** 2)  # dV/du
    torch.testing.assert_close(falling, -7.0 * (slope * rate**2).sum(), rtol=1e-9, atol=1e-12)


def test_graded_units_settle_on_the_stored_pattern_that_the_cue_resembles():
    patterns = random_patterns(4, 200, 1)
    system = GradedHopfield(Hopfield.store(patterns).weights, beta=6.0)
    cue = 0.2 * patterns[2] * torch.where(torch.arange(200) % 5 == 0, -1.0, 1.0)
    u = torch.zeros(200).double()
    found = solve_ivp(
        lambda t, x: system.vector_field(t, torch.tensor(x), u).numpy(), (0, 200), cue, rtol=1e-8
    )
    V = system.output(0.0, torch.tensor(found.y[:, -1]), u)
    assert (V * patterns[2]).mean() > 0.99
    energies = [float(system.energy(torch.tensor(x), u)) for x in found.y.T]
    assert max(np.diff(energies)) < 1e-6 * abs(energies[-1])


def test_the_energy_of_saturated_units_is_finite_and_that_of_the_binary_network():
    W, signs = symmetric(20, 0), random_patterns(1, 20, 0)[0]
    graded, binary = GradedHopfield(W, beta=50.0), Hopfield(W)
    x = 40.0 * signs
    # tanh(beta u) = s, and the integral of artanh up to 1 is log 2
    expected = binary.energy(signs) + 20 * math.log(2) / 50.0
    torch.testing.assert_close(graded.energy(x), expected)


# Modern


@pytest.mark.parametrize("seed", range(5))
def test_one_step_of_attention_between_two_patterns_is_a_logistic_of_their_separation(seed):
    rng = np.random.default_rng(seed)
    patterns = torch.tensor(rng.normal(size=(2, 12)))
    beta = rng.uniform(0.05, 1.5)
    found = ModernHopfield(patterns, beta=beta).next_state(0, patterns[0], patterns.new_zeros(0))
    separation = float(patterns[0] @ patterns[0] - patterns[0] @ patterns[1])
    share = 1 / (1 + math.exp(beta * separation))
    torch.testing.assert_close(found, patterns[0] + share * (patterns[1] - patterns[0]))


def test_the_error_of_retrieval_falls_exponentially_in_beta_and_separation():
    patterns = random_patterns(64, 64, 3)
    scores = patterns @ patterns[0]
    separation = float(scores[0] - scores[1:].max())
    betas, errors = np.array([0.3, 0.4, 0.5, 0.6]), []
    for beta in betas:
        system = ModernHopfield(patterns, beta=beta)
        found = system.next_state(0, patterns[0], patterns.new_zeros(0))
        errors.append(float((found - patterns[0]).norm()))
        assert errors[-1] <= 2 * 8 * 63 * math.exp(-beta * separation)
    slopes = np.diff(np.log(errors)) / np.diff(betas)
    np.testing.assert_allclose(slopes, -separation, rtol=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_attention_never_climbs_and_completes_a_masked_pattern(seed):
    patterns = random_patterns(200, 100, seed)  # twice as many patterns as units
    system = ModernHopfield(patterns, beta=1.0)
    mask = torch.tensor(np.random.default_rng(seed).random((20, 100)) < 0.5)
    recall = system.complete(patterns[:20], mask)
    assert recall.energy.diff(dim=0).max() <= 1e-9
    assert recall.energy.min() >= 0
    torch.testing.assert_close(recall.state, patterns[:20], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Hopfield(torch.ones(2, 3)), "square"),
        (lambda: Hopfield(torch.ones(2, 2)), "on themselves must be zero"),
        (lambda: Hopfield(torch.tensor([[0.0, 1.0], [2.0, 0.0]])), "symmetric"),
        (lambda: GradedHopfield(torch.full((2, 2), math.nan)), "not finite"),
        (lambda: Hopfield(torch.zeros(3, 3), order=torch.tensor([0, 0, 1])), "permutation"),
        (lambda: Hopfield.store(torch.zeros(2, 5)), r"\+1 and -1"),
        (lambda: ModernHopfield(torch.zeros(0, 5)), "at least one"),
        (lambda: recalled_overlap(0.0), "load must be positive"),
        (lambda: one_step_error(-1.0), "load must be positive"),
    ],
)
def test_what_cannot_be_a_memory_is_refused(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_a_cue_that_is_no_pattern_is_refused():
    system = Hopfield.store(random_patterns(2, 6, 0))
    with pytest.raises(ArgumentError, match="a cue is 6 values"):
        system.complete(torch.full((6,), 0.5).double(), generator=draws(0))


def test_a_recall_cut_short_is_no_recall():
    patterns = random_patterns(20, 100, 0)
    with pytest.raises(SolverError, match="after 1 sweeps"):
        Hopfield.store(patterns).complete(
            random_patterns(1, 100, 9)[0], generator=draws(0), max_sweeps=1
        )


def test_units_agree():
    patterns = random_patterns(2, 5, 0)
    check_dimensions(Hopfield.store(patterns))
    check_dimensions(GradedHopfield(Hopfield.store(patterns).weights))
    check_dimensions(ModernHopfield(patterns))
