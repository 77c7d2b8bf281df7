from itertools import pairwise

import pytest
import torch

from clinode.sequence.linear_scan import LinearScan, in_log_depth, in_turn, previous, scan

RAGGED = ([5, 5, 3, 3, 1], [4], [1, 1, 1, 1, 1, 1, 1], [7, 6, 5, 4, 3, 2, 2, 2, 1])


def draw(sizes: list[int], dtype: torch.dtype, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (sum(sizes), 3)
    A = torch.randn(shape, dtype=dtype, generator=generator)
    return A / A.abs().clamp(min=1), torch.randn(shape, dtype=dtype, generator=generator)


def plainly(A: torch.Tensor, b: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """One record after the other, one row after the other."""
    offsets = [sum(sizes[:step]) for step in range(len(sizes))]
    states = list(b.unbind(0))
    for record in range(sizes[0]):
        rows = [offset + record for offset, n in zip(offsets, sizes, strict=True) if record < n]
        for before, row in pairwise(rows):
            states[row] = A[row] * states[before] + b[row]
    return torch.stack(states)


@pytest.mark.parametrize("sizes", RAGGED)
@pytest.mark.parametrize("by", [in_turn, in_log_depth])
def test_both_ways_are_the_recurrence_written_plainly(sizes, by):
    A, b = draw(sizes, torch.complex128)
    torch.testing.assert_close(by(A, b, sizes), plainly(A, b, sizes), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("sizes", RAGGED)
def test_both_ways_agree_backwards_and_in_single_precision(sizes):
    A, b = draw(sizes, torch.complex64)
    for backwards in (False, True):
        turns, doubled = (by(A, b, sizes, backwards=backwards) for by in (in_turn, in_log_depth))
        torch.testing.assert_close(turns, doubled, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", RAGGED)
def test_the_slope_of_a_scan_is_that_of_the_plain_recurrence(sizes):
    A, b = (part.requires_grad_() for part in draw(sizes, torch.complex128))
    weights, _ = draw(sizes, torch.complex128, seed=1)
    slopes = [
        torch.autograd.grad((way(A, b, sizes) * weights).real.sum(), (A, b), materialize_grads=True)
        for way in (scan, plainly)
    ]
    for ours, oracle in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, oracle, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_slopes_of_slopes_pass_the_check_of_torch():
    sizes = [3, 2, 2, 1]
    A, b = (part.requires_grad_() for part in draw(sizes, torch.complex128))
    for backwards in (False, True):

        def run(A, b, backwards=backwards):
            return LinearScan.apply(A, b, sizes, backwards)

        assert torch.autograd.gradcheck(run, (A, b))
        assert torch.autograd.gradgradcheck(run, (A, b))


def test_what_diverges_in_one_record_stays_in_it():
    sizes = [4, 4, 3, 2]
    A, b = draw(sizes, torch.complex128)
    b[1] = torch.nan
    record = torch.tensor([row for n in sizes for row in range(n)])
    for by in (in_turn, in_log_depth):
        assert torch.equal(by(A, b, sizes).isnan().all(dim=1), record == 1)


def test_the_previous_row_is_that_of_the_same_record():
    sizes = [3, 3, 1]
    rows = torch.arange(1.0, 8.0).unsqueeze(1)
    expected = torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0]).unsqueeze(1)
    assert torch.equal(previous(rows, sizes), expected)
