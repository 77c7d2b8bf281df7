"""What looks at a function tell about its zeros."""

import math

import pytest
import torch

from clinode.dynamics.crossings import LOOKS, Shape, bracketed


def told(function, side: int = 0) -> bool:
    seen = torch.stack([torch.as_tensor(function(s)).double() for s in LOOKS])
    floor = 1e-14 * seen.abs().max()
    return bool(Shape(seen).shows_all(torch.tensor(side), floor))


def test_looks_tell_one_crossing_and_none():
    assert told(lambda s: s - 0.3)
    assert told(lambda s: torch.exp(3 * s) - 30)
    assert told(lambda s: 1 + 0 * s)
    assert told(lambda s: 0 * s)


def test_two_crossings_between_looks_are_not_taken_for_none():
    middle = 0.55  # between the looks at 0.5 and 0.629
    assert not told(lambda s: (s - middle) ** 2 - 1e-4)
    assert not told(lambda s: (s - middle) ** 2 - 1e-9)
    assert told(lambda s: (s - middle) ** 2 + 1e-3)


def test_a_start_on_the_guard_counts_by_the_side_it_moves_to():
    assert told(lambda s: s, side=1)
    assert not told(lambda s: s**2 - 0.01 * s, side=1)
    assert told(lambda s: s**2 - 0.5 * s, side=-1)


def test_no_wave_that_turns_between_looks_passes_for_known():
    generator = torch.Generator().manual_seed(0)
    length = 10 ** (1.5 + 4 * torch.rand(500, generator=generator).double())
    shift = 2 * math.pi * torch.rand(500, generator=generator).double()
    seen = torch.sin(LOOKS.unsqueeze(-1) * length + shift)
    side = torch.zeros(500, dtype=torch.int64)
    assert not Shape(seen).shows_all(side, torch.full((500,), 1e-14).double()).any()
    assert (Shape(seen).growth() < 1).all()


@pytest.mark.parametrize("offset", [1.5, -1.5, 1.01])
def test_a_wave_that_never_meets_zero_is_told_apart_where_it_is_resolved(offset):
    assert told(lambda s: torch.sin(5 * s) + offset)
    assert not told(lambda s: torch.sin(50 * s) + offset)


def test_zeros_of_many_functions_are_bracketed_to_the_last_bits():
    generator = torch.Generator().manual_seed(1)
    root = torch.rand(200, generator=generator).double()
    power = torch.randint(0, 4, (200,), generator=generator) * 2 + 1
    low, high = torch.zeros(200).double(), torch.ones(200).double()
    everywhere = torch.ones(200, dtype=torch.bool)
    found = bracketed(lambda s: (s - root) ** power * torch.exp(3 * s), low, high, everywhere)
    sharp = power == 1
    torch.testing.assert_close(found[sharp], root[sharp], rtol=0, atol=1e-14)
    assert (found - root).abs().max() < 1e-2
