import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from clinode import statistics
from clinode.errors import ArgumentError
from clinode.statistics import (
    Estimate,
    benjamini_hochberg,
    bootstrap,
    bootstrap_interval,
    percentile_interval,
    permutation_test,
    wilson_interval,
)


def weighted_mean(x):
    return lambda weights: weights @ x / weights.sum(axis=1)


# Estimates


def test_what_is_undefined_is_none_with_its_reason():
    estimate = Estimate.undefined("no positives")
    assert not estimate.is_defined
    expected = {"value": None, "low": None, "high": None, "verdict": "undefined: no positives"}
    assert json.loads(json.dumps(estimate.to_dict(), allow_nan=False)) == expected
    assert Estimate(0.5, 0.4, 0.6).to_dict() == {
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "verdict": "ok",
    }


# Bootstrap


def test_the_bootstrap_distribution_of_a_mean_has_its_closed_form_spread():
    x = np.random.default_rng(0).normal(size=400)
    sample = bootstrap({"mean": weighted_mean(x)}, np.arange(400), n_resamples=4000, seed=1)
    assert sample.value["mean"] == pytest.approx(x.mean(), abs=1e-15)
    assert sample.resampled["mean"].mean() == pytest.approx(x.mean(), abs=4 * x.std() / 20 / 63)
    # sd / sqrt(n); the spread of 4000 resamples has a relative error of 1 / sqrt(8000)
    assert sample.resampled["mean"].std() == pytest.approx(x.std() / 20, rel=4 / math.sqrt(8000))


def test_the_percentile_interval_agrees_with_scipys_bootstrap():
    x = np.random.default_rng(3).exponential(size=150)
    ours = bootstrap({"mean": weighted_mean(x)}, np.arange(150), n_resamples=20_000).estimate(
        "mean", level=0.9
    )
    reference = stats.bootstrap(
        (x,), np.mean, n_resamples=20_000, method="percentile", confidence_level=0.9, rng=5
    ).confidence_interval
    within = 0.05 * reference.high - 0.05 * reference.low
    assert ours.low == pytest.approx(reference.low, abs=within)
    assert ours.high == pytest.approx(reference.high, abs=within)


def test_nine_of_ten_intervals_of_level_nine_tenths_hold_the_truth():
    generator = np.random.default_rng(4)
    held = 0
    for seed in range(300):
        x = generator.normal(size=80)
        interval = bootstrap(
            {"mean": weighted_mean(x)}, np.arange(80), n_resamples=300, seed=seed
        ).estimate("mean", level=0.9)
        held += interval.low <= 0 <= interval.high
    low, high = stats.binom.interval(0.9999, 300, 0.9)
    assert low - 6 <= held <= high  # percentile intervals of a mean are a little short


def test_weights_and_positions_drawn_give_the_same_resamples():
    x = np.random.default_rng(0).normal(size=30)
    by_weight = bootstrap({"mean": weighted_mean(x)}, np.arange(30), n_resamples=200, seed=7)
    by_index = bootstrap_interval(lambda drawn: float(x[drawn].mean()), 30, n_resamples=200, seed=7)
    assert by_index.low == pytest.approx(by_weight.estimate("mean").low, rel=1e-12)
    assert by_index.high == pytest.approx(by_weight.estimate("mean").high, rel=1e-12)


def test_a_subject_is_drawn_with_all_its_rows():
    subjects = np.array(["b", "a", "b", "c", "b"])
    seen = []

    def record(weights):
        seen.append(weights)
        return weights.sum(axis=1)

    bootstrap({"rows": record}, subjects, n_resamples=500)
    weights = np.concatenate(seen[1:])
    assert (weights[:, subjects == "b"] == weights[:, [0]]).all()
    assert (
        weights[:, [0, 1, 3]].sum(axis=1) == 3
    ).all()  # three subjects drawn, whatever their rows
    assert len(np.unique(weights, axis=0)) == 10  # every multiset of three out of three


def test_rows_of_one_subject_do_not_shrink_the_interval():
    x = np.random.default_rng(0).normal(size=50)
    once = bootstrap({"mean": weighted_mean(x)}, np.arange(50), seed=2).estimate("mean")
    tenfold = bootstrap(
        {"mean": weighted_mean(np.repeat(x, 10))}, np.repeat(np.arange(50), 10), seed=2
    ).estimate("mean")
    assert tenfold.low == pytest.approx(once.low, rel=1e-12)
    assert tenfold.high == pytest.approx(once.high, rel=1e-12)


def test_a_paired_difference_is_narrower_than_two_intervals_and_exact_for_a_constant_shift():
    generator = np.random.default_rng(0)
    x = generator.normal(size=200)
    y = x + 0.1 * generator.normal(size=200)
    sample = bootstrap(
        {"x": weighted_mean(x), "y": weighted_mean(y), "shifted": weighted_mean(x + 2)},
        np.arange(200),
    )
    shift = sample.difference("shifted", "x")
    assert (shift.value, shift.low, shift.high) == pytest.approx((2.0, 2.0, 2.0), abs=1e-12)
    difference, alone = sample.difference("y", "x"), sample.estimate("x")
    assert difference.high - difference.low < 0.2 * (alone.high - alone.low)
    expected = (y - x).mean() + np.array([-1.96, 1.96]) * (y - x).std() / math.sqrt(200)
    np.testing.assert_allclose([difference.low, difference.high], expected, atol=0.002)


def test_the_same_seed_gives_the_same_resamples_in_blocks_of_any_size(monkeypatch):
    x = np.random.default_rng(0).normal(size=20)

    def resampled(seed=3):
        sample = bootstrap({"mean": weighted_mean(x)}, np.arange(20), n_resamples=50, seed=seed)
        return sample.resampled["mean"]

    whole = resampled()
    monkeypatch.setattr(statistics, "ROW_WEIGHTS_AT_ONCE", 7 * 20)
    np.testing.assert_allclose(resampled(), whole, rtol=1e-14)
    assert not np.allclose(resampled(seed=4), whole)


def test_resamples_without_a_value_are_left_out_while_rare_and_void_the_interval_when_not():
    resampled = np.arange(1000.0)
    resampled[:10] = np.nan
    estimate = percentile_interval(500.0, resampled)
    assert estimate.verdict == "ok"
    np.testing.assert_allclose(
        [estimate.low, estimate.high], np.quantile(resampled[10:], [0.025, 0.975])
    )
    resampled[:11] = np.nan
    estimate = percentile_interval(500.0, resampled)
    assert estimate.verdict == "no interval: undefined on 11 of 1000 resamples"
    assert estimate.to_dict()["value"] == 500.0
    assert estimate.to_dict()["low"] is None


def test_a_statistic_without_a_value_on_the_sample_says_why():
    sample = bootstrap({"auroc": lambda weights: np.full(len(weights), np.nan)}, np.arange(5))
    assert sample.estimate("auroc", why="one class only").verdict == "undefined: one class only"
    empty = bootstrap({"mean": weighted_mean(np.zeros(0))}, np.zeros(0))
    assert empty.estimate("mean").to_dict()["value"] is None
    assert not empty.difference("mean", "mean").is_defined
    assert not bootstrap_interval(lambda drawn: 0.0, 0).is_defined


def test_a_thousand_resamples_of_four_thousand_subjects_take_seconds():
    x = np.random.default_rng(0).normal(size=4000)
    means = {str(i): weighted_mean(x + i) for i in range(24)}
    start = time.perf_counter()
    bootstrap(means, np.arange(4000))
    assert time.perf_counter() - start < 3.0


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_a_level_outside_0_and_1_is_refused(level):
    with pytest.raises(ArgumentError, match="level must be between 0 and 1"):
        percentile_interval(0.0, np.zeros(3), level=float(level))
    with pytest.raises(ArgumentError, match="level must be between 0 and 1"):
        wilson_interval(1, 2, level=float(level))


def test_no_resamples_are_refused():
    with pytest.raises(ArgumentError, match="n_resamples must be at least 1"):
        bootstrap({}, np.arange(3), n_resamples=0)
    with pytest.raises(ArgumentError, match="n_permutations must be at least 1"):
        permutation_test(lambda order: 0.0, 3, n_permutations=0)


# Permutation tests


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_a_permutation_test_of_a_correlation_agrees_with_scipy(alternative):
    generator = np.random.default_rng(1)
    x = generator.normal(size=12)
    y = 0.4 * x + generator.normal(size=12)

    def correlation(x):
        return np.corrcoef(x, y)[0, 1]

    ours = permutation_test(lambda order: correlation(x[order]), 12, alternative=alternative)
    reference = stats.permutation_test(
        (x,),
        correlation,
        permutation_type="pairings",
        alternative=alternative,
        n_resamples=9999,
        vectorized=False,
        rng=2,
    )
    assert ours.value == pytest.approx(reference.statistic)
    noise = math.sqrt(2 * reference.pvalue * (1 - reference.pvalue) / 9999)
    assert ours.p_value == pytest.approx(reference.pvalue, abs=10 * noise)


def test_the_permutation_test_is_exact_under_the_null():
    generator = np.random.default_rng(5)
    p_values = []
    for seed in range(400):
        x, y = generator.normal(size=(2, 10))
        test = permutation_test(
            lambda order, x=x, y=y: float(x[order] @ y),
            10,
            n_permutations=99,
            seed=seed,
            alternative="greater",
        )
        p_values.append(test.p_value)
    rejected = int((np.array(p_values) <= 0.05).sum())
    low, high = stats.binom.interval(0.9999, 400, 0.05)
    assert low <= rejected <= high


def test_a_statistic_that_no_order_changes_is_no_evidence():
    x = np.random.default_rng(0).normal(size=50)
    test = permutation_test(lambda order: float(np.sum(x[order])), 50, n_permutations=99)
    assert test.p_value == 1.0  # sums differ in their last bits only
    assert test.to_dict()["p_value"] == 1.0


def test_a_permutation_test_of_an_undefined_statistic_is_undefined():
    assert (
        permutation_test(lambda order: math.nan, 5, n_permutations=9).to_dict()["p_value"] is None
    )
    with pytest.raises(ArgumentError, match="alternative must be"):
        permutation_test(lambda order: 0.0, 5, n_permutations=9, alternative="both")


# False discoveries and proportions


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_adjusted_p_values_are_scipys(p_values):
    p = np.array(p_values)
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p), rtol=1e-12)


def test_an_undefined_p_value_stays_so_and_does_not_count():
    adjusted = benjamini_hochberg(np.array([0.01, math.nan, 0.04]))
    np.testing.assert_allclose(adjusted, [0.02, math.nan, 0.04])
    assert benjamini_hochberg(np.zeros(0)).shape == (0,)
    with pytest.raises(ArgumentError, match="between 0 and 1"):
        benjamini_hochberg(np.array([1.2]))


@settings(deadline=None)
@given(st.integers(1, 500), st.data(), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_interval_of_a_proportion_is_scipys_wilson(n, data, level):
    successes = data.draw(st.integers(0, n))
    reference = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    expected = (reference.low, reference.high)
    assert wilson_interval(successes, n, level) == pytest.approx(expected, abs=1e-12)


def test_a_proportion_of_nothing_is_anything_and_impossible_counts_are_refused():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    for successes in (-1, 4):
        with pytest.raises(ArgumentError, match="between 0 and 3"):
            wilson_interval(successes, 3)
