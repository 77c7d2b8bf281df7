import json

import numpy as np
import pytest
import torch

from clinode.brain.connectome import Connectome
from clinode.errors import ArgumentError

LABELS = ("lh_precuneus", "lh_insula", "rh_insula")


def weights(n=3, seed=0):
    W = np.random.default_rng(seed).uniform(0.1, 1, (n, n))
    np.fill_diagonal(W, 0)
    return W


def small(**changes):
    given = {"weights": torch.tensor(weights()), "labels": LABELS} | changes
    return Connectome(**given)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": torch.ones(2, 3)}, "square"),
        ({"labels": ("a", "b")}, "2 labels for 3 regions"),
        ({"labels": ("a", "b", "b")}, "more than one region, 'b'"),
        ({"labels": ("a", " ", "b")}, "empty label"),
        ({"centers": torch.full((3, 3), torch.nan)}, "9 entries that are not finite"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ArgumentError, match=words):
        small(**changes)


# Findings


def test_nothing_is_found_in_a_plain_connectome():
    assert small().findings == ()
    assert small().verdict == "3 regions, 6 weights, directed (a row receives)"


def test_what_may_be_a_mistake_is_kept_and_said():
    W = torch.zeros(6, 6).double()
    W[0, 1] = W[1, 0] = 1.0
    W[1, 2] = W[2, 1] = 0.5
    W[3, 4] = W[4, 3] = -0.2
    W[0, 0] = 2.0
    found = Connectome(weights=W, labels=tuple("abcdef")).findings
    assert {one.kind: one.regions for one in found} == {
        "negative weights": ("d", "e"),
        "self weights": ("a",),
        "isolated regions": ("f",),
        "disconnected parts": ("d", "e"),
    }
    assert found[1].message == "self weights at 1 region (a)"
    assert found[3].message == "2 separate parts, 2 regions outside the largest (d, e)"


def test_a_region_that_only_sends_is_a_part_of_its_own_way():
    W = torch.tensor([[0.0, 1, 1], [1, 0, 0], [0, 0, 0]]).double()
    (found,) = Connectome(weights=W, labels=LABELS).findings
    assert (found.kind, found.regions) == ("one-way parts", ("rh_insula",))


# Changes


def test_scaling_bounds_what_a_region_receives_and_keeps_proportions():
    scaled = small().scaled().weights
    assert float(scaled.sum(-1).max()) == pytest.approx(1)
    torch.testing.assert_close(scaled / scaled[0, 1], small().weights / small().weights[0, 1])
    silent = small(weights=torch.zeros(3, 3))
    assert torch.equal(silent.scaled().weights, silent.weights)


def test_permuting_moves_everything_that_belongs_to_a_region():
    connectome = small(centers=torch.arange(9.0).reshape(3, 3), tract_lengths=torch.ones(3, 3))
    moved = connectome.permuted([2, 0, 1])
    assert moved.labels == ("rh_insula", "lh_precuneus", "lh_insula")
    assert moved.weights[1, 0] == connectome.weights[0, 2]
    assert moved.centers is not None
    assert moved.centers[0].tolist() == [6, 7, 8]
    with pytest.raises(ArgumentError, match="positions from 0 to 2"):
        connectome.permuted([0, 3])


def test_self_weights_can_be_taken_away():
    own = small(weights=torch.tensor(weights()) + torch.eye(3))
    assert [one.kind for one in own.findings] == ["self weights"]
    assert own.without_self_weights().findings == ()


def test_it_is_told_in_tables_and_words():
    connectome = small(centers=torch.zeros(3, 3))
    table = connectome.to_pandas()
    assert list(table.columns[:2]) == ["region", "connections in"]
    assert table["strength in"].tolist() == pytest.approx(connectome.weights.sum(1).tolist())
    assert (
        "influence of region j on region i"
        in json.loads(json.dumps(connectome.to_dict()))["orientation"]
    )


def test_errors_carry_no_weight():
    with pytest.raises(ArgumentError, match="row 1, column 2") as caught:
        small(weights=torch.tensor([[0.0, torch.inf, 7.77], [1, 1, 1], [1, 1, 1]]))
    assert "7.77" not in str(caught.value)
