import itertools

import numpy as np
import pytest
import torch

from clinode.control.gramian.boundary import boundary_controllability
from clinode.errors import ArgumentError


def path(n):
    return np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)


def random_network(n, seed):
    rng = np.random.default_rng(seed)
    W = np.triu(rng.random((n, n)) * (rng.random((n, n)) < 0.3), 1)
    return W + W.T


@pytest.mark.parametrize(
    ("n", "levels"), [(2, [1, 1]), (3, [0, 1, 0]), (4, [2, 1, 1, 2]), (5, [2, 2, 1, 2, 2])]
)
def test_a_path_is_cut_in_the_middle_and_its_halves_again(n, levels):
    found = boundary_controllability(path(n))
    assert found.levels.tolist() == levels
    assert found.values.tolist() == [1 / level if level else 0.0 for level in levels]
    assert found.undecided == ()


def test_two_modules_meet_at_their_bridge():
    W = np.zeros((16, 16))
    W[:8, :8], W[8:, 8:] = random_network(8, 0) + 0.5, random_network(8, 1) + 0.5
    W[3, 12] = W[12, 3] = 0.1
    levels = boundary_controllability(W).levels
    assert torch.nonzero(levels == 1).flatten().tolist() == [3, 12]


@pytest.mark.parametrize(
    "W",
    [
        np.ones((5, 5)),
        np.roll(np.eye(6), 1, 1) + np.roll(np.eye(6), -1, 1),
        np.eye(6)[[0]].T @ np.ones((1, 6)) + np.ones((6, 1)) @ np.eye(6)[[0]],
    ],
    ids=["complete", "ring", "star"],
)
def test_where_symmetry_leaves_the_cut_open_nothing_is_decided(W):
    found = boundary_controllability(W)
    assert found.values.isnan().all()
    assert len(found.undecided) == len(W)
    assert found.to_dict()["values"] == [None] * len(W)
    assert "repeats" in found.statement


def test_cliques_behind_a_decided_cut_stay_undecided():
    W = np.zeros((8, 8))
    W[:4, :4] = W[4:, 4:] = 1.0
    W[0, 4] = W[4, 0] = 0.5
    found = boundary_controllability(W)
    assert found.levels.tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
    assert found.values[[0, 4]].tolist() == [1.0, 1.0]
    assert found.undecided == tuple(f"region_{i}" for i in (2, 3, 4, 6, 7, 8))


def test_separate_parts_are_cut_at_the_same_level_and_the_isolated_not_at_all():
    W = np.zeros((9, 9))
    W[:4, :4] = W[4:8, 4:8] = path(4)
    found = boundary_controllability(W)
    assert found.levels.tolist() == [2, 1, 1, 2, 2, 1, 1, 2, 0]
    assert found.values[8] == 0
    assert found.undecided == ()


def test_order_and_unit_of_the_weights_do_not_matter():
    W = random_network(30, 2)
    levels = boundary_controllability(W, threshold=0.2).levels
    order = np.random.default_rng(0).permutation(30)
    shuffled = boundary_controllability(1e3 * W[np.ix_(order, order)], threshold=0.2).levels
    assert torch.equal(shuffled, levels[order])


def test_fewer_regions_are_boundaries_of_the_first_cut_above_a_threshold():
    W = random_network(40, 3)
    firsts = [boundary_controllability(W, share).levels == 1 for share in (0.0, 0.2, 0.4, 0.6)]
    counts = [int(first.sum()) for first in firsts]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]
    for more, fewer in itertools.pairwise(firsts):
        assert not (fewer & ~more).any()


def test_ways_and_signs_do_not_matter_to_a_cut_and_self_weights_do_not_count():
    W = random_network(20, 4)
    one_way = np.triu(W) * np.where(np.random.default_rng(0).random(W.shape) < 0.5, -2.0, 2.0)
    levels = boundary_controllability(W).levels
    assert torch.equal(boundary_controllability(one_way + 3 * np.eye(20)).levels, levels)


def test_a_threshold_is_a_share():
    with pytest.raises(ArgumentError, match="share"):
        boundary_controllability(path(3), threshold=1.0)
    assert "more than 0.3" in boundary_controllability(path(3), threshold=0.3).statement
    assert list(boundary_controllability(path(3)).to_pandas()["level"]) == [0, 1, 0]


def test_the_unit_of_the_weights_moves_no_boundary():
    W = random_network(12, seed=4)
    levels = boundary_controllability(W).levels
    for unit in (1e307, 1e-300):
        assert boundary_controllability(W / W.max() * unit).levels.tolist() == levels.tolist()
