from dataclasses import replace

import numpy as np
import pytest
import torch

from clinode.attribution import attribute, removal_curves
from clinode.errors import ArgumentError

SLOPE = torch.tensor([4.0, -1.0, 0.0, 2.0, 0.5, 0.0], dtype=torch.float64)


def linear(x):
    return x @ SLOPE


@pytest.fixture
def x():
    return torch.ones(3, 6, dtype=torch.float64) * torch.tensor([[1.0], [2.0], [0.5]])


def test_a_linear_function_loses_its_largest_terms_first(x):
    zero, steps = torch.zeros(6), np.arange(7) / 6
    found = attribute(linear, x, zero)
    curves = removal_curves(linear, found, x, zero, fractions=steps)
    terms = np.array([4.0, 2.0, 0.5, 0.0, 0.0, -1.0])
    expected = 1 - np.append(0, terms.cumsum()) / terms.sum()
    np.testing.assert_allclose(curves.by_rank, [expected] * 3, atol=1e-12)
    # a random order removes each term as often as another: the mean is a straight line
    many = removal_curves(linear, found, x, zero, fractions=steps, n_random=4000)
    np.testing.assert_allclose(many.at_random, [1 - steps] * 3, atol=0.03)
    assert curves.advantage.low > 0


def test_where_the_output_fell_what_lowered_it_goes_first(x):
    zero = torch.zeros(6)

    def falling(x):
        return -linear(x)

    up = removal_curves(linear, attribute(linear, x, zero), x, zero)
    down = removal_curves(falling, attribute(falling, x, zero), x, zero)
    np.testing.assert_allclose(up.by_rank, down.by_rank, atol=1e-12)


def test_attributions_turned_round_do_worse_than_chance(x):
    zero = torch.zeros(6)
    found = attribute(linear, x, zero)
    wrong = replace(found, values=-found.values)
    assert removal_curves(linear, wrong, x, zero).advantage.high < 0


def test_groups_go_together(x):
    zero, groups = torch.zeros(6), torch.tensor([0, 0, 1, 1, 2, 2])
    found = attribute(linear, x, zero, method="shapley", groups=groups)
    steps = np.arange(4) / 3
    curves = removal_curves(linear, found, x, zero, groups=groups, fractions=steps)
    np.testing.assert_allclose(curves.by_rank[0], 1 - np.array([0, 3, 5, 5.5]) / 5.5, atol=1e-12)


def test_withheld_rows_are_left_out_and_counted(x):
    found = attribute(linear, x, torch.zeros(6))
    some = replace(found, withheld=np.array([False, True, False]))
    curves = removal_curves(linear, some, x, torch.zeros(6))
    assert curves.by_rank.shape == (2, 8)
    assert curves.n_withheld == 1
    assert curves.to_dict()["by_rank"][0] == 1.0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"fractions": (0.5, 0.2)}, "fractions must increase"),
        ({"fractions": (0.0, 1.2)}, "lie from 0 to 1"),
        ({"fractions": ()}, "fractions must increase"),
        ({"n_random": 0}, "at least one random order"),
        ({"groups": torch.zeros(5, dtype=torch.int64)}, "groups must be whole numbers"),
    ],
)
def test_what_cannot_be_removed_is_refused(change, told, x):
    found = attribute(linear, x, torch.zeros(6))
    with pytest.raises(ArgumentError, match=told):
        removal_curves(linear, found, x, torch.zeros(6), **change)


def test_maps_of_another_shape_or_withheld_everywhere_are_refused(x):
    found = attribute(linear, x, torch.zeros(6))
    with pytest.raises(ArgumentError, match=r"attributions of \(3, 6\) for x of \(2, 6\)"):
        removal_curves(linear, found, x[:2], torch.zeros(6))
    nothing = replace(found, withheld=np.ones(3, dtype=bool))
    with pytest.raises(ArgumentError, match="every row is withheld"):
        removal_curves(linear, nothing, x, torch.zeros(6))
