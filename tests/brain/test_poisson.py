import functools
import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from clinode.brain import diffusion_approximation, poisson_input
from clinode.errors import ArgumentError

double = functools.partial(torch.tensor, dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_gaps_between_spikes_are_exponential_and_counts_poisson():
    times, _ = poisson_input(torch.full((400, 1), 0.3), 500.0, generator(1)).impulses
    counts = times.isfinite().sum(-1).double()
    assert counts.mean().item() == pytest.approx(150, abs=4 * math.sqrt(150 / 400))
    assert counts.var().item() == pytest.approx(150, rel=4 * math.sqrt(2 / 400))
    gaps = times[0][times[0].isfinite()].diff()
    assert kstest(gaps.numpy(), "expon", args=(0, 1 / 0.3)).pvalue > 1e-3
    finite = times[times.isfinite()]
    assert 0 <= finite.min()
    assert finite.max() < 500


def test_each_input_has_a_process_of_its_own_and_none_where_its_rate_is_zero():
    signal = poisson_input([0.5, 0.0, 0.1], 2000.0, generator(2), amount=[1.0, 1.0, 3.0])
    times, amounts = signal.impulses
    assert (times.diff() >= 0).all()
    totals = amounts.sum(0)
    assert totals[0].item() == pytest.approx(1000, abs=4 * math.sqrt(1000))
    assert totals[1] == 0
    assert totals[2].item() / 3 == pytest.approx(200, abs=4 * math.sqrt(200))
    assert ((amounts > 0).sum(-1) == 1).all()  # never two inputs at one time


def test_the_input_between_the_impulses_is_its_baseline():
    signal = poisson_input([1.0, 0.0], 10.0, generator(), baseline=[0.0, -70.0], start=100.0)
    assert signal(3.0).tolist() == [0, -70]
    assert (signal.impulses[0] >= 100).all()
    assert (signal.impulses[0] < 110).all()


def test_one_seed_gives_one_train_and_rows_differ():
    rows = [poisson_input(torch.full((2, 1), 0.2), 100.0, generator(3)) for _ in range(2)]
    assert torch.equal(rows[0].impulses[0], rows[1].impulses[0])
    assert not torch.equal(rows[0].impulses[0][0], rows[0].impulses[0][1])


def test_no_rate_gives_no_impulse():
    assert poisson_input(0.0, 10.0, generator()).impulses[0].shape == (0,)


def test_many_small_jumps_are_the_noise_that_they_are_replaced_by():
    # the shot noise V = sum of jumps exp(-age / tau), sampled far apart
    rate, jump, tau = 4.0, 0.3, 10.0
    times, _ = poisson_input(torch.full((3000, 1), rate), 150.0, generator(4)).impulses
    V = (jump * torch.exp(-(150 - times) / tau)).nan_to_num(0.0).where(times.isfinite(), 0.0)
    V = V.sum(-1)
    shift, sigma = diffusion_approximation(rate, jump, tau)
    error = (sigma**2 / 2 / 3000).sqrt()
    assert V.mean().item() == pytest.approx(shift.item(), abs=4 * error.item())
    assert V.var().item() == pytest.approx((sigma**2 / 2).item(), rel=4 * math.sqrt(2 / 3000))


def test_inhibitory_jumps_shift_down_and_shake_as_much():
    up, down = (np.array(diffusion_approximation(2.0, J, 20.0)) for J in (0.1, -0.1))
    np.testing.assert_allclose(down, up * [-1, 1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: poisson_input(-1.0, 10.0, generator()), "not negative"),
        (lambda: poisson_input(math.inf, 10.0, generator()), "finite"),
        (lambda: poisson_input(1.0, 0.0, generator()), "duration"),
        (lambda: diffusion_approximation(-1.0, 1.0, 1.0), "rate"),
        (lambda: diffusion_approximation(1.0, 1.0, 0.0), "tau"),
    ],
)
def test_an_impossible_process_is_refused(call, words):
    with pytest.raises(ArgumentError, match=words):
        call()
