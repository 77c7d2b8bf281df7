import numpy as np
import pytest
import torch

import clinode as cn
from clinode.alignment import cuts, describe, lesions
from clinode.errors import ArgumentError


@pytest.fixture
def chain():
    A = [[-1.0, 0.0, 0.0], [0.5, -1.0, 0.0], [0.0, -0.7, -1.0]]
    return cn.LinearSystem(A, np.ones((3, 1)), states=["a", "b", "c"])


def test_all_lesions_of_up_to_two_sites_are_listed_once(chain):
    words = [describe(one) for one in lesions(chain, n_sites=2)]
    assert words == [
        "silence a",
        "silence b",
        "silence c",
        "silence a & silence b",
        "silence a & silence c",
        "silence b & silence c",
    ]
    held = lesions(chain, ["a"], lesion=lambda site: cn.clamp(site, -0.25))
    assert [describe(one) for one in held] == ["clamp a = -0.25"]


def test_only_connections_that_are_there_are_cut(chain):
    assert [describe(one) for one in cuts(chain)] == ["cut a -> b", "cut b -> c"]
    assert [describe(one) for one in cuts(chain, n_sites=2)][-1] == "cut a -> b & cut b -> c"


def test_every_kind_of_intervention_has_words():
    assert describe(cn.inject("u", 2.5)) == "inject u + 2.5"
    assert describe(cn.clamp("E", torch.arange(6.0))) == "clamp E = (0, 1, 2, 3, ...)"


def test_lists_that_cannot_be_made_are_refused(chain):
    with pytest.raises(ArgumentError, match="no state or input is called 'd'"):
        lesions(chain, ["a", "d"])
    with pytest.raises(ArgumentError, match="there is no site to lesion"):
        lesions(chain, [])
    with pytest.raises(ArgumentError, match="a site stands in the list twice"):
        lesions(chain, ["a", "a"])
    with pytest.raises(ArgumentError, match=r"n_sites must lie in 1\.\.3, got 4"):
        lesions(chain, n_sites=4)
    with pytest.raises(ArgumentError, match="'x' is no single state"):
        cuts(chain, ["x"])
    with pytest.raises(ArgumentError, match="there is no site"):
        cuts(chain, ["a", "c"])
    large = cn.LinearSystem(-np.eye(60), np.ones((60, 1)))
    with pytest.raises(ArgumentError, match="experiments are more than 100000"):
        lesions(large, n_sites=4)
