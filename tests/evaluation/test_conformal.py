import math

import numpy as np
import pytest

from clinode.errors import ArgumentError, CheckpointError
from clinode.evaluation.conformal import FEWEST, SplitConformal, factor, fit_conformal


def calibrated(score, variable=None, n_variables=1):
    """Intervals whose held-out scores are these."""
    variable = np.zeros(len(score), dtype=int) if variable is None else variable
    zero, one = np.zeros(len(score)), np.ones(len(score))
    return fit_conformal(score, variable, zero, one, n_variables=n_variables)


@pytest.mark.parametrize("n", [9, 19, 99, 100, 250])
def test_the_factor_is_the_closed_form_rank(n):
    score = np.random.default_rng(n).permutation(n) + 1.0
    assert factor(np.sort(score), 0.9) == math.ceil(0.9 * (n + 1))
    assert calibrated(score).factors(0.9) == [math.ceil(0.9 * (n + 1))]


def test_too_few_scores_bound_nothing():
    assert calibrated(np.arange(8.0)).factors(0.9) == [math.inf]
    assert calibrated(np.arange(9.0)).factors(0.9) == [8.0]


@pytest.mark.parametrize(("n", "level"), [(120, 0.9), (150, 0.8), (199, 0.95)])
def test_exchangeable_scores_are_covered_as_the_rank_says(n, level):
    # of n + 1 exchangeable scores without ties each rank is as likely for the new one
    rng = np.random.default_rng(3)
    draws, n_new = 400, 50
    held = [
        np.abs(rng.standard_t(3, n_new)) <= calibrated(np.abs(rng.standard_t(3, n))).factors(level)
        for _ in range(draws)
    ]
    exact = math.ceil((n + 1) * level) / (n + 1)
    assert level <= exact <= level + 1 / (n + 1)
    error = math.sqrt(exact * (1 - exact) * (1 / (n + 2) + 1 / n_new) / draws)
    assert abs(np.mean(held) - exact) < 4 * error


def test_each_variable_has_its_own_factor_and_rare_ones_that_of_all():
    rng = np.random.default_rng(0)
    variable = np.repeat([0, 1, 2], [400, 400, FEWEST - 1])
    score = rng.exponential(1.0 + 3.0 * (variable == 1))
    found = calibrated(score, variable, n_variables=4)
    own = [factor(np.sort(score[variable == v]), 0.9) for v in (0, 1)]
    pooled = factor(np.sort(score), 0.9)
    assert found.factors().tolist() == [*own, pooled, pooled]
    assert found.is_pooled.tolist() == [False, False, True, True]
    assert found.n_queries.tolist() == [400, 400, FEWEST - 1, 0]


def test_a_wrong_spread_is_mended_and_scale_changes_nothing():
    rng = np.random.default_rng(1)
    spread = rng.uniform(0.5, 2.0, 6000)
    target = 5 + spread * rng.normal(size=6000)
    variable, half = np.zeros(6000, dtype=int), slice(0, 3000)
    rest = slice(3000, None)
    ends = []
    for scale in (1.0, 0.2):
        found = fit_conformal(
            target[half], variable[half], np.full(3000, 5.0), scale * spread[half], n_variables=1
        )
        ends.append(found.interval(variable[rest], np.full(3000, 5.0), scale * spread[rest]))
    low, high = ends[0]
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-12)
    assert abs(((low <= target[rest]) & (target[rest] <= high)).mean() - 0.9) < 0.02


@pytest.mark.parametrize("step", [0.005, 0.05])
def test_adaptive_intervals_keep_their_promise_under_any_drift(step):
    rng = np.random.default_rng(2)
    n = 4000
    variable = rng.integers(0, 2, n)
    drift = np.exp(3 * np.sin(np.arange(n) / 400)) * np.where(variable == 1, 50.0, 0.01)
    score = np.abs(rng.normal(size=n)) * drift
    found = calibrated(np.abs(rng.normal(size=600)), np.repeat([0, 1], 300), n_variables=2)
    factors = found.adaptive_factors(variable, score, step=step)
    for v in (0, 1):
        own = variable == v
        # a level below zero means an empty interval: it counts as a miss
        missed = (score[own] > factors[own]).mean()
        assert abs(missed - 0.1) <= (0.9 + step) / (own.sum() * step) + 1e-12
    fixed = score > found.factors()[variable]
    assert fixed[variable == 1].mean() > 0.5


def test_adaptive_levels_follow_the_recursion_by_variable():
    rng = np.random.default_rng(4)
    held, score = np.sort(rng.exponential(size=200)), rng.exponential(size=300)
    level, expected = 0.9, []
    for own in score:
        expected.append(factor(held, level) if level < 1 else math.inf)
        level += 0.02 * ((own > expected[-1]) - 0.1)
    alone = calibrated(held).adaptive_factors(np.zeros(300, dtype=int), score, step=0.02)
    assert alone.tolist() == expected
    both = calibrated(np.tile(held, 2), np.repeat([0, 1], 200), n_variables=2)
    woven = both.adaptive_factors(np.tile([0, 1], 300), np.repeat(score, 2), step=0.02)
    np.testing.assert_array_equal(woven.reshape(-1, 2), np.stack([alone, alone], axis=1))


def test_queries_of_one_record_share_the_factor_that_held_before_it():
    rng = np.random.default_rng(5)
    n, most, step = 600, 4, 0.02
    sizes = rng.integers(1, most + 1, n)
    record, score = np.repeat(np.arange(n), sizes), rng.exponential(size=sizes.sum())
    score *= np.exp(2 * np.sin(record / 60))
    held, zero = np.sort(rng.exponential(size=300)), np.zeros(len(record), dtype=int)
    found = calibrated(held).adaptive_factors(zero, score, record=record, step=step)
    level = 0.9
    for r in range(n):  # by hand, a record at a time
        own = record == r
        expected = factor(held, level) if level < 1 else math.inf
        assert (found[own] == expected).all()
        level += step * ((score[own] > expected) - 0.1).sum()
    assert abs((score > found).mean() - 0.1) <= (0.9 + most * step) / (len(record) * step)
    alone = calibrated(held).adaptive_factors(zero, score, record=np.arange(len(score)), step=step)
    np.testing.assert_array_equal(alone, calibrated(held).adaptive_factors(zero, score, step=step))
    with pytest.raises(ArgumentError, match="stand together"):
        calibrated(held).adaptive_factors(zero[:3], score[:3], record=np.array([0, 1, 0]))


def test_stored_scores_come_back_and_altered_ones_are_refused():
    found = calibrated(np.arange(300.0), np.arange(300) % 3, n_variables=5)
    again = SplitConformal.from_arrays(found.to_arrays())
    np.testing.assert_array_equal(again.factors(0.8), found.factors(0.8))
    with pytest.raises(CheckpointError, match="incomplete"):
        SplitConformal.from_arrays({"score": found.score})
    with pytest.raises(CheckpointError, match="divided"):
        SplitConformal(score=found.score[:-1], start=found.start)
    with pytest.raises(CheckpointError, match="not those"):
        SplitConformal(score=found.score[::-1].copy(), start=found.start)


def test_bad_input_is_refused_in_words():
    one, zero = np.ones(3), np.zeros(3, dtype=int)
    with pytest.raises(ArgumentError, match="without a query"):
        fit_conformal(one[:0], zero[:0], one[:0], one[:0], n_variables=1)
    with pytest.raises(ArgumentError, match="positive"):
        fit_conformal(one, zero, one, 0 * one, n_variables=1)
    with pytest.raises(ArgumentError, match="finite"):
        fit_conformal(np.nan * one, zero, one, one, n_variables=1)
    with pytest.raises(ArgumentError, match=r"0\.\.0"):
        fit_conformal(one, zero + 1, one, one, n_variables=1)
    found = calibrated(one)
    for level in (0.0, 1.0):
        with pytest.raises(ArgumentError, match="level"):
            found.factors(level)
    with pytest.raises(ArgumentError, match="step"):
        found.adaptive_factors(zero, one, step=0.0)
