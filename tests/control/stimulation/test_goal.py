"""What a target may be, and what it may not."""

import pytest
import torch

from clinode.control.stimulation.goal import goal_of
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity

TWO = LinearSystem(
    -torch.eye(2), torch.eye(2), states=[Quantity("E", "1", ("left", "right"), range=(0.0, 1.0))]
)


def test_a_block_takes_one_number_for_all_or_one_for_each():
    assert goal_of(TWO, {"E": 0.5}).values.tolist() == [0.5, 0.5]
    assert goal_of(TWO, {"E": [0.1, 0.2]}).values.tolist() == [0.1, 0.2]
    assert goal_of(TWO, [0.1, 0.2]).names == ("E:left", "E:right")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("x", "target must be numbers, got str"),
        (None, "target must be numbers, got NoneType"),
        ({"E:left": "a"}, "the target of 'E:left' must be numbers, got str"),
        ({"E:left": [1.0, 2.0]}, "has shape \\(2,\\), expected one number or 1"),
        ({}, "target names nothing"),
        ([0.1, 0.2, 0.3], "expected \\(2,\\) states"),
        ({"E:left": float("nan")}, "not finite"),
    ],
)
def test_what_is_no_target_is_refused_in_words(target, words):
    with pytest.raises(ArgumentError, match=words):
        goal_of(TWO, target)
