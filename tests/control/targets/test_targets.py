"""Rankings of targets, against certified energies, planted wiring and other coordinates."""

import math

import numpy as np
import pytest
import torch

from clinode.brain import WilsonCowanNetwork, simulate_connectome
from clinode.control.energy.energy import control_energy
from clinode.control.targets.nulls import degree_preserving
from clinode.control.targets.targets import rank_targets
from clinode.dynamics import find_equilibria, linearize
from clinode.errors import ArgumentError, SolverError
from clinode.system import LinearSystem, Quantity


def chain(n=6, *, strength=0.5):
    """Region k hears region k - 1."""
    A = -torch.eye(n).double() + strength * torch.eye(n).double().roll(1, 0).tril()
    regions = tuple(f"r{k}" for k in range(n))
    return LinearSystem(
        A, torch.eye(n), states=[Quantity("x", "1", regions)], inputs=[Quantity("u", "1", regions)]
    )


@pytest.fixture(scope="module")
def brain():
    return WilsonCowanNetwork(simulate_connectome(8, seed=1), K=2.0)


@pytest.fixture(scope="module")
def rest(brain):
    return find_equilibria(brain)[0]


def test_along_a_chain_the_cost_grows_with_the_distance_upstream():
    ranking = rank_targets(chain(), {"x:r5": 1.0}, horizon=2.0, nulls=None)
    assert [one[0] for one in ranking.candidates] == [f"u:r{k}" for k in (5, 4, 3, 2, 1, 0)]
    assert set(ranking.verdicts) == {"reliable"}


def test_what_lies_downstream_of_the_target_cannot_reach_it():
    ranking = rank_targets(chain(), {"x:r2": 1.0}, horizon=2.0, nulls=None)
    assert ranking.verdicts == ("reliable",) * 3 + ("unreachable",) * 3
    assert np.isposinf(ranking.log10_energy[3:]).all()
    assert ranking.to_dict()["targets"][5]["log10_energy"] is None


def test_energies_are_those_of_the_linearization_to_the_named_states(brain, rest):
    names = [f"E:{region}" for region in brain.connectome.labels[2:4]]
    values = dict.fromkeys(names, 0.3)
    ranking = rank_targets(brain, values, rest, horizon=30.0, nulls=None)
    linear = linearize(brain, rest)
    best = linearize(brain, rest, inputs=list(ranking.candidates[0]))
    reading = LinearSystem(
        best.A, best.B, torch.eye(16).double()[2:4], offset=(best.x0, best.u0, best.x0[2:4])
    )
    expected = control_energy(reading, linear.x0, [0.3, 0.3], 30.0, outputs=True)
    assert ranking.log10_energy[0] == pytest.approx(float(expected.log10), abs=1e-9)


def test_a_pair_costs_no_more_than_either_of_its_members(brain, rest):
    target = {f"E:{brain.connectome.labels[0]}": 0.2}
    single = rank_targets(brain, target, rest, horizon=30.0, nulls=None)
    pairs = rank_targets(brain, target, rest, horizon=30.0, nulls=None, size=2)
    assert len(pairs) == 28
    alone = dict(zip(single.candidates, single.log10_energy, strict=True))
    for pair, together in zip(pairs.candidates, pairs.log10_energy, strict=True):
        assert together <= min(alone[(name,)] for name in pair) + 1e-9


def test_wiring_that_is_planted_stands_out_from_nulls_that_keep_the_degrees():
    # a ring both ways with one strong way from a to b; every region has the same degree
    n, draws = 24, np.random.default_rng(0)
    W = torch.zeros(n, n).double()
    for k in range(n):
        for j in (1, 2, 3):
            W[(k + j) % n, k] = 0.1 * draws.random()
    W[3, 0] = 0.3
    linear = LinearSystem(W - torch.eye(n), torch.eye(n))
    ranking = rank_targets(
        linear, {"x4": 1.0}, horizon=3.0, nulls=degree_preserving, n_nulls=99
    ).to_pandas()
    p_values = ranking.set_index("inputs")["p_value"]
    assert p_values["u1"] <= 0.05  # only a few nulls have so strong a way from 1 to 4
    assert p_values["u12"] > 0.1
    assert (ranking["q_value"] >= ranking["p_value"] - 1e-12).all()


def test_p_values_of_a_network_drawn_like_its_nulls_are_uniform():
    draws, p_values = np.random.default_rng(1), []
    for seed in range(30):
        W = torch.from_numpy(draws.lognormal(size=(8, 8)) * (draws.random((8, 8)) < 0.6)).double()
        W = 0.5 * W / W.sum(1).max()
        W.fill_diagonal_(0.0)
        W = degree_preserving(W, torch.Generator().manual_seed(seed))
        linear = LinearSystem(W - torch.eye(8), torch.eye(8))
        generator = torch.Generator().manual_seed(1000 + seed)
        ranking = rank_targets(
            linear, {"x1": 1.0}, nulls=degree_preserving, n_nulls=39, generator=generator
        )
        told = ranking.to_pandas().set_index("inputs")
        p_values.append(told.loc["u2", "p_value"])
    kept = np.array([p for p in p_values if np.isfinite(p)])  # u2 may have no way to x1
    assert len(kept) >= 20
    assert 0.3 < kept.mean() < 0.7
    assert (kept <= 0.25).mean() < 0.55


def test_nulls_of_a_network_rest_at_equilibria_of_their_own(brain, rest):
    target = {f"E:{brain.connectome.labels[0]}": 0.2}
    ranking = rank_targets(brain, target, rest, horizon=30.0, n_nulls=4)
    assert ranking.n_nulls.tolist() == [4] * 8
    assert ((ranking.p_values >= 0.2) & (ranking.p_values <= 1.0)).all()
    again = rank_targets(brain, target, rest, horizon=30.0, n_nulls=4)
    np.testing.assert_array_equal(ranking.p_values, again.p_values)  # same seed, same numbers


def test_ranks_carry_what_other_draws_of_the_constants_make_of_them(brain, rest):
    target = {f"E:{brain.connectome.labels[0]}": 0.2}
    draws = [brain.with_constants(K=K) for K in (1.6, 1.8, 2.2)]
    ranking = rank_targets(brain, target, rest, horizon=30.0, nulls=None, draws=draws)
    assert (ranking.rank_low <= ranking.rank_high).all()
    assert ranking.rank_high[0] == 1  # the region itself, in every draw
    assert "3 draws" in ranking.statement


def test_a_learned_system_gives_one_ranking_in_any_coordinates():
    draws = np.random.default_rng(2)
    A = torch.from_numpy(draws.normal(size=(5, 5)) / 3) - torch.eye(5)
    B, C = torch.from_numpy(draws.normal(size=(5, 3))), torch.from_numpy(draws.normal(size=(2, 5)))
    T = torch.from_numpy(draws.normal(size=(5, 5))) + 3 * torch.eye(5)
    inverse = torch.linalg.inv(T)
    first = LinearSystem(A, B, C, latent=True)
    second = LinearSystem(T @ A @ inverse, T @ B, C @ inverse, latent=True)
    one, other = (rank_targets(s, {"y1": 1.0}, nulls=None) for s in (first, second))
    assert one.candidates == other.candidates
    np.testing.assert_allclose(one.log10_energy, other.log10_energy, rtol=1e-6)
    with pytest.raises(ArgumentError, match="no wiring of which a null could be drawn"):
        rank_targets(first, {"y1": 1.0})


def test_the_equilibrium_it_starts_from_is_named(brain):
    target = {f"E:{brain.connectome.labels[0]}": 0.2}
    ranking = rank_targets(brain, target, horizon=30.0, nulls=None)
    assert "from the first of" in ranking.statement
    nowhere = LinearSystem(torch.zeros(1, 1), torch.ones(1, 1))
    assert "operating point" in rank_targets(nowhere, {"x1": 1.0}, nulls=None).statement


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": {"x:r9": 1.0}}, "no state or output 'x:r9'"),
        ({"candidates": ["u:r9"]}, "u:r9"),
        ({"size": 7}, "size must be 1 to 6"),
        ({"n_nulls": -1}, "n_nulls must not be negative"),
        ({"horizon": 0.0}, "horizon must be positive"),
        ({"candidates": []}, "size must be 1 to 0"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(options, words):
    with pytest.raises(ArgumentError, match=words):
        rank_targets(chain(), **{"target": {"x:r5": 1.0}, **options})


def test_weights_that_are_not_there_are_asked_for(brain, rest):
    target = {f"E:{brain.connectome.labels[0]}": 0.2}
    with pytest.raises(ArgumentError, match="no square weights in a constant 'weights'"):
        rank_targets(brain, target, rest, weights="weights")


def test_a_network_without_rest_says_so(monkeypatch, brain):
    from clinode.control.targets import targets

    empty = find_equilibria(brain, box=[(0.9, 0.95)] * 16)
    monkeypatch.setattr(targets, "find_equilibria", lambda *_: empty)
    with pytest.raises(SolverError, match="no equilibrium"):
        rank_targets(brain, {f"E:{brain.connectome.labels[0]}": 0.2})


def test_a_whole_state_from_one_input_is_certified_and_no_null_gives_a_number():
    ranking = rank_targets(chain(), torch.arange(6.0), horizon=2.0, candidates=["u:r0"], n_nulls=3)
    assert ranking.verdicts == ("reliable",)
    assert math.isfinite(ranking.log10_energy[0])


def test_a_null_that_is_the_network_itself_is_as_cheap_in_every_place():
    # Energies of nulls and of the network come by other routes, so only rounding tells them apart.
    W = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.0, 0.2], [0.5, 0.2, 0.0]], dtype=torch.float64)
    linear = LinearSystem(W - 2 * torch.eye(3), torch.eye(3))
    ranking = rank_targets(linear, [1.0, 0.3, -0.2], n_nulls=20, nulls=lambda weights, _: weights)
    assert ranking.p_values.tolist() == [1.0, 1.0, 1.0]
    assert ranking.q_values.tolist() == [1.0, 1.0, 1.0]


def test_nulls_and_draws_that_are_other_networks_are_refused():
    linear = LinearSystem(-torch.eye(3), torch.eye(3))
    with pytest.raises(ArgumentError, match=r"a null gave shape \(2, 3\)"):
        rank_targets(linear, [1.0, 0.0, 0.0], nulls=lambda weights, _: weights[:2], n_nulls=1)
    other = LinearSystem(-torch.eye(2), torch.eye(2))
    with pytest.raises(ArgumentError, match="other states or inputs"):
        rank_targets(linear, [1.0, 0.0, 0.0], nulls=None, draws=[other])


def test_energies_of_inputs_in_different_units_are_said_not_to_compare():
    A, B = [[-1.0]], [[1.0, 1.0]]
    mixed = [Quantity("fluids", "mL/h"), Quantity("insulin", "U/h")]
    told = rank_targets(LinearSystem(A, B, inputs=mixed), {"x1": 0.1}, nulls=None).statement
    assert "different units" in told
    alike = [Quantity("left", "pA"), Quantity("right", "pA")]
    told = rank_targets(LinearSystem(A, B, inputs=alike), {"x1": 0.1}, nulls=None).statement
    assert "different units" not in told
