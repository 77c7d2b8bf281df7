"""Null networks keep what they say they keep, and nothing else."""

import numpy as np
import pytest
import torch

from clinode.control.targets.nulls import (
    degree_preserving,
    geometry_preserving,
    strength_preserving,
)
from clinode.errors import ArgumentError, SolverError


def drawn_network(seed, *, directed, n=30, density=0.4, signed=False):
    draws = np.random.default_rng(seed)
    weights = draws.lognormal(sigma=1.0, size=(n, n)) * (draws.random((n, n)) < density)
    if signed:
        weights *= draws.choice([-1.0, 1.0], p=[0.4, 0.6], size=(n, n))
    if not directed:
        weights = np.tril(weights, -1) + np.tril(weights, -1).T
    else:
        np.fill_diagonal(weights, 0.0)
    return torch.from_numpy(weights)


def distances(seed, n=30):
    centers = torch.from_numpy(np.random.default_rng(seed).random((n, 3)))
    return (centers[:, None] - centers).norm(dim=-1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


NULLS = {
    "degree": degree_preserving,
    "strength": strength_preserving,
    "geometry": geometry_preserving(distances(9)),
}
every_null = pytest.mark.parametrize("null", NULLS.values(), ids=NULLS.keys())
either_way = pytest.mark.parametrize("directed", [False, True])


@every_null
@either_way
def test_each_null_keeps_the_degrees_of_each_sign_and_the_symmetry(null, directed):
    for seed in range(4):
        weights = drawn_network(seed, directed=directed, signed=seed % 2 == 1)
        drawn = null(weights, generator(seed))
        for sign in (1, -1):
            for axis in (0, 1):
                before = (sign * weights > 0).sum(axis)
                assert torch.equal((sign * drawn > 0).sum(axis), before)
        assert torch.equal(drawn, drawn.T) == (not directed)


@every_null
@either_way
def test_each_null_is_another_network_with_the_same_diagonal(null, directed):
    weights = drawn_network(0, directed=directed) + torch.diag(torch.arange(30.0).double())
    drawn = null(weights, generator())
    assert torch.equal(drawn.diagonal(), weights.diagonal())
    assert ((drawn != 0) != (weights != 0)).sum() > 0.2 * (weights != 0).sum()


@every_null
def test_the_same_seed_gives_the_same_network_and_another_seed_another(null):
    weights = drawn_network(3, directed=True)
    first, again, other = (null(weights, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@either_way
def test_strengths_are_kept_where_they_are_meant_to_be(directed):
    for seed in range(4):
        weights = drawn_network(seed, directed=directed, signed=seed % 2 == 1)
        drawn = strength_preserving(weights, generator(seed))
        for sign in (1.0, -1.0):
            for axis in (0, 1):
                before, after = ((sign * w).clamp(min=0).sum(axis) for w in (weights, drawn))
                torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)


def test_weights_of_a_strength_preserving_null_are_nearly_distributed_as_before():
    weights = drawn_network(1, directed=True, n=60)
    drawn = strength_preserving(weights, generator())
    before, after = (np.sort(w[w != 0].log().numpy()) for w in (weights, drawn))
    assert np.corrcoef(before, after)[0, 1] > 0.97
    shuffled = degree_preserving(weights, generator())  # this one keeps them exactly
    torch.testing.assert_close(shuffled.flatten().sort()[0], weights.flatten().sort()[0])


@either_way
def test_each_class_of_length_keeps_its_edges_and_weights(directed):
    weights, lengths = drawn_network(4, directed=directed), distances(4)
    drawn = geometry_preserving(lengths, n_classes=5)(weights, generator())
    once = weights if directed else weights.tril()
    inner = np.quantile(lengths[once != 0].numpy(), [0.2, 0.4, 0.6, 0.8])
    classes = torch.from_numpy(np.searchsorted(inner, lengths.numpy()))
    for one in range(5):
        before, after = (w[(classes == one) & (w != 0)].sort()[0] for w in (weights, drawn))
        torch.testing.assert_close(after, before)


def test_exchanges_reach_every_wiring_of_given_degrees_equally_often():
    # three undirected edges on six regions of degree one: 15 perfect matchings
    weights = torch.zeros(6, 6).double()
    for a, b in ((0, 1), (2, 3), (4, 5)):
        weights[a, b] = weights[b, a] = 1.0
    draws = generator(5)
    counts: dict[bytes, int] = {}
    for _ in range(3000):
        wiring = degree_preserving(weights, draws).numpy().tobytes()
        counts[wiring] = counts.get(wiring, 0) + 1
    assert len(counts) == 15
    chi_squared = sum((count - 200) ** 2 / 200 for count in counts.values())
    assert chi_squared < 36.1  # p = .001 at 14 degrees of freedom


def test_a_complete_network_keeps_its_wiring_and_its_strengths():
    draws = np.random.default_rng(0).random((8, 8))
    weights = torch.from_numpy(np.tril(draws, -1) + np.tril(draws, -1).T)
    drawn = strength_preserving(weights, generator())
    torch.testing.assert_close(drawn.sum(0), weights.sum(0))
    assert not torch.allclose(drawn, weights)


def test_a_star_has_no_other_wiring_and_no_other_weights():
    weights = torch.zeros(5, 5).double()
    weights[0, 1:] = weights[1:, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    torch.testing.assert_close(strength_preserving(weights, generator()), weights)


def test_networks_without_edges_stay_as_they_are():
    empty = torch.zeros(4, 4).double()
    for null in (degree_preserving, strength_preserving, geometry_preserving(distances(0, n=4))):
        assert torch.equal(null(empty, generator()), empty)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (torch.ones(3, 4), "weights must be square, got shape \\(3, 4\\)"),
        (torch.full((3, 3), torch.nan), "weights has entries that are not finite"),
    ],
)
@every_null
def test_what_is_no_network_is_refused(null, weights, words):
    with pytest.raises(ArgumentError, match=words):
        null(weights, generator())


def test_distances_that_do_not_fit_are_refused():
    with pytest.raises(ArgumentError, match="distances of 4 regions, weights of 30"):
        geometry_preserving(distances(0, n=4))(drawn_network(0, directed=True), generator())
    one_way = distances(0).tril()
    with pytest.raises(ArgumentError, match="symmetric and the distances are not"):
        geometry_preserving(one_way)(drawn_network(0, directed=False), generator())
    with pytest.raises(ArgumentError, match="below zero"):
        geometry_preserving(-distances(0))
    with pytest.raises(ArgumentError, match="n_classes must be at least 1"):
        geometry_preserving(distances(0), n_classes=0)


def test_strengths_that_no_wiring_drawn_can_carry_are_said_to_be_so(monkeypatch):
    monkeypatch.setattr("clinode.control.targets.nulls.DRAWS", 1)
    # two strong regions that need each other; an exchange of ends parts them
    weights = torch.zeros(4, 4).double()
    weights[0, 1] = weights[1, 0] = 5.0
    weights[2, 3] = weights[3, 2] = 1.0
    refused = []
    for seed in range(20):
        try:
            drawn = strength_preserving(weights, generator(seed))
            torch.testing.assert_close(drawn, weights)
        except SolverError as error:
            refused.append(str(error))
    assert 0 < len(refused) < 20
    assert all("could carry these strengths" in words for words in refused)


def test_real_connectomes_have_strength_preserving_nulls(data_dir):
    for name in ("hcp_desikan68", "hcp_schaefer100", "macaque82", "celegans279"):
        with np.load(data_dir / "connectomes" / name / "connectome.npz") as stored:
            weights = torch.from_numpy(stored["weights"]).double()
        drawn = strength_preserving(weights, generator())
        torch.testing.assert_close(drawn.sum(0), weights.sum(0), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(drawn.sum(1), weights.sum(1), rtol=1e-9, atol=1e-9)


def test_counts_of_fibers_keep_their_strengths_though_nulls_are_no_counts():
    counts = (100 * drawn_network(3, directed=False, n=12)).round().to(torch.int64)
    null = strength_preserving(counts, generator())
    assert null.dtype == torch.float64
    np.testing.assert_allclose(null.sum(0), counts.sum(0), rtol=1e-9)


@pytest.mark.parametrize("unit", [1e307, 1e-300])
def test_strengths_are_kept_in_any_unit_of_the_weights(unit):
    weights = drawn_network(5, directed=True, n=12)
    weights = weights / weights.max()
    null = strength_preserving(weights * unit, generator())
    np.testing.assert_allclose((null / unit).sum(0), weights.sum(0), rtol=1e-9)


@pytest.mark.parametrize("null", [degree_preserving, strength_preserving])
def test_complex_weights_have_no_nulls(null):
    with pytest.raises(ArgumentError, match="complex"):
        null(drawn_network(0, directed=False).to(torch.complex128), generator())
