import math

import numpy as np
import pytest

from clinode.control.feedback.witsenhausen import linear_cost, signaling_cost, witsenhausen
from clinode.errors import ArgumentError

NONE = np.zeros(0)


def test_the_best_linear_controller_costs_what_witsenhausen_found():
    assert linear_cost(0.2, 5.0) == pytest.approx(0.96, abs=1e-12)


def test_two_points_cost_less_than_any_linear_controller():
    # at +-sigma; and k^2 sigma^2 2 (1 - sqrt(2 / pi)) + the error of telling two points apart
    at_sigma = signaling_cost(0.2, 5.0, np.array([5.0]), NONE)
    assert at_sigma == pytest.approx(0.404253, abs=1e-6)
    effort = 0.04 * 25 * (2 - 2 * math.sqrt(2 / math.pi))
    assert at_sigma == pytest.approx(effort, abs=2e-4)
    assert signaling_cost(0.2, 5.0, np.array([4.0507]), NONE) == pytest.approx(0.364830, abs=1e-6)


def test_its_cost_is_that_of_trials():
    rng = np.random.default_rng(0)
    levels, breaks, slope = np.array([3.0, 9.0]), np.array([6.5]), 0.05
    x0 = rng.normal(scale=5.0, size=400_000)
    middle = [
        np.abs(x0)[(np.abs(x0) < 6.5)].mean(), np.abs(x0)[np.abs(x0) >= 6.5].mean(),
    ]  # fmt: skip
    step = (np.abs(x0) >= 6.5).astype(int)
    x1 = np.sign(x0) * (levels[step] + slope * (np.abs(x0) - np.array(middle)[step]))
    y = x1 + rng.normal(size=x0.size)
    # the mean of x1 given y, by a histogram of the joint sample: biased up by its bin width
    bins = np.digitize(y, np.linspace(-16, 16, 641))
    mean = np.bincount(bins, x1) / np.maximum(np.bincount(bins), 1)
    sampled = 0.04 * ((x1 - x0) ** 2).mean() + ((x1 - mean[bins]) ** 2).mean()
    assert signaling_cost(0.2, 5.0, levels, breaks, slope) == pytest.approx(sampled, abs=4e-3)


@pytest.mark.slow
def test_more_steps_cost_less_and_come_near_the_best_that_is_known():
    one, three = witsenhausen(n_levels=1), witsenhausen(n_levels=3)
    assert three.cost < 0.16696 < one.cost < 0.3649  # 0.1669 is the best that was published
    assert three.cost > 0.1669
    assert three.verdict == "best found"
    assert list(three.levels) == sorted(three.levels)
    assert three.linear_cost == pytest.approx(0.96)


def test_numbers_that_are_not_positive_are_refused():
    with pytest.raises(ArgumentError, match="must be positive"):
        witsenhausen(k=0.0)
