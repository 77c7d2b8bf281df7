import numpy as np
import pytest
import torch

from clinode.cohort.follow_up import Intervals, cumulative_incidence, log_likelihood
from clinode.errors import ArgumentError

INTERVALS = Intervals(ends=(1.0, 3.0, 4.0, 8.0), n_causes=2, horizons=(1.0, 3.0, 4.0))


def random_logits(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, 2, generator=generator, dtype=torch.float64) - 1


def by_hand(logit, entry, event, cause):
    """The likelihood by continuous integration of the constant hazards, one subject."""
    starts, ends = INTERVALS.starts, INTERVALS.ends
    odds = np.exp(logit)
    through = 1 / (1 + odds.sum(axis=1))
    rate = -np.log(through) / np.subtract(ends, starts)

    def survival(t):
        passed = np.clip(t - np.array(starts), 0, np.subtract(ends, starts))
        return np.exp(-(rate * passed).sum())

    if cause == 0 or event > ends[-1]:
        return np.log(survival(min(event, ends[-1])) / survival(entry))
    j = int(np.searchsorted(ends, event))
    begun = max(starts[j], entry)
    share = odds[j, cause - 1] / odds[j].sum()
    return np.log(share * (survival(begun) - survival(ends[j])) / survival(entry))


@pytest.mark.parametrize(
    ("entry", "event", "cause"),
    [
        (0.0, 0.5, 1),
        (0.0, 3.0, 2),  # at an end: of the interval that ends there
        (0.0, 3.5, 0),
        (0.0, 8.0, 1),
        (0.0, 9.0, 1),  # behind the last end: known to have come through
        (0.5, 0.9, 2),
        (2.0, 3.7, 2),
        (2.5, 2.9, 0),
        (3.0, 12.0, 0),
    ],
)
def test_the_likelihood_is_that_of_constant_hazards_known_to_the_interval(entry, event, cause):
    logit = random_logits(1)
    found = log_likelihood(
        logit,
        INTERVALS,
        torch.tensor([entry], dtype=torch.float64),
        torch.tensor([event], dtype=torch.float64),
        torch.tensor([cause]),
    )
    assert found.item() == pytest.approx(by_hand(logit[0].numpy(), entry, event, cause), abs=1e-12)


def test_all_that_may_happen_after_an_entry_has_probability_one():
    logit = random_logits(50, seed=1)
    entry = torch.linspace(0, 7.9, 50, dtype=torch.float64)
    total = torch.zeros(50, dtype=torch.float64)
    for end, start in zip(INTERVALS.ends, INTERVALS.starts, strict=True):
        inside = torch.maximum(entry, torch.tensor(start).double()) * 0.5 + end * 0.5
        for cause in (1, 2):
            likelihood = log_likelihood(logit, INTERVALS, entry, inside, torch.full((50,), cause))
            total += torch.where(entry < end, likelihood.exp(), 0.0)
    through = torch.full((50,), 8.0).double()
    total += log_likelihood(logit, INTERVALS, entry, through, torch.zeros(50).long()).exp()
    torch.testing.assert_close(total, torch.ones(50).double())


def test_incidences_and_survival_sum_to_one_and_agree_with_the_likelihood():
    logit = random_logits(20, seed=2)
    hours = torch.tensor([0.3, 1.0, 2.2, 4.0, 6.0, 8.0], dtype=torch.float64)
    incidence = cumulative_incidence(logit, INTERVALS, hours)
    assert (incidence.diff(dim=1) > 0).all()
    for k, hour in enumerate(hours):
        survival = log_likelihood(
            logit,
            INTERVALS,
            torch.zeros(20).double(),
            hour.repeat(20),
            torch.zeros(20).long(),
        ).exp()
        torch.testing.assert_close(1 - incidence[:, k].sum(dim=1), survival)


def test_incidence_of_one_constant_hazard_is_its_closed_form():
    rate = 0.3
    widths = np.diff([0.0, *INTERVALS.ends])
    odds = np.expm1(rate * widths)  # p = exp(-rate width) against 1 - p
    logit = torch.tensor(np.log(odds))[None, :, None]
    one = Intervals(ends=INTERVALS.ends, n_causes=1, horizons=(4.0,))
    hours = torch.tensor([0.1, 2.5, 4.0, 7.7], dtype=torch.float64)
    found = cumulative_incidence(logit, one, hours)[0, :, 0]
    torch.testing.assert_close(found, 1 - torch.exp(-rate * hours))


def test_likelihood_and_incidence_are_differentiable_even_at_extremes():
    logit = torch.tensor([[[-60.0, 40.0]] * 4], requires_grad=True)
    like = log_likelihood(
        logit, INTERVALS, torch.tensor([0.2]), torch.tensor([3.2]), torch.tensor([1])
    )
    incidence = cumulative_incidence(logit, INTERVALS, torch.tensor([2.0]))
    (gradient,) = torch.autograd.grad(like.sum() + incidence.sum(), logit)
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(like).all()


def test_ends_lie_at_quantiles_of_the_events_and_horizons_at_their_quartiles():
    event = np.arange(1.0, 81.0)
    intervals = Intervals.cut(event, np.ones(80, dtype=np.int64))
    assert len(intervals.ends) == 10
    assert intervals.ends[-1] == 80.0
    np.testing.assert_allclose(intervals.horizons, np.quantile(event, [0.25, 0.5, 0.75]))
    assert intervals.horizon == 40.5
    counts = np.histogram(event, (0.0, *(end + 1e-9 for end in intervals.ends)))[0]
    assert counts.tolist() == [8] * 10
    tied = Intervals.cut(np.full(80, 5.0), np.ones(80, dtype=np.int64))
    assert tied.ends == (5.0,)


def test_a_horizon_behind_the_last_event_is_refused():
    with pytest.raises(ArgumentError, match=r"hours in \(0, 8\]"):
        INTERVALS.check_horizons([2.0, 8.5])
    with pytest.raises(ArgumentError, match="got none"):
        INTERVALS.check_horizons([])
