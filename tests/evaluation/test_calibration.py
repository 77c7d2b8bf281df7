import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from clinode.errors import ArgumentError
from clinode.evaluation import (
    ScoredRecords,
    calibration_curve,
    calibration_intercept,
    calibration_slope,
    ece,
)


def on_the_sample(metric, outcome, score):
    return metric(ScoredRecords.sort(outcome, score).count_once())[0]


def draw(n, seed, slope=1.0, intercept=0.0):
    """Outcomes whose log odds are intercept + slope * logit(probability)."""
    generator = np.random.default_rng(seed)
    x = generator.normal(-1.0, 1.5, n)
    outcome = generator.random(n) < expit(intercept + slope * x)
    return outcome.astype(float), expit(x)


@given(st.integers(0, 1000), st.floats(-1.5, 3.0), st.floats(-2.0, 2.0), st.integers(20, 400))
@settings(max_examples=40, deadline=None)
def test_slope_is_that_of_an_unpenalised_logistic_regression(seed, slope, intercept, n):
    outcome, probability = draw(n, seed, slope, intercept)
    x = logit(probability)
    found = on_the_sample(calibration_slope, outcome, probability)
    apart = [x[outcome == k] for k in (0, 1)]
    if any(len(part) == 0 for part in apart) or (
        apart[0].max() <= apart[1].min() or apart[1].max() <= apart[0].min()
    ):
        assert np.isnan(found)
        return
    reference = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    expected = reference.fit(x[:, None], outcome).coef_[0, 0]
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


@given(st.integers(0, 1000), st.floats(-4.0, 4.0))
@settings(max_examples=40, deadline=None)
def test_the_intercept_makes_the_mean_prediction_right(seed, intercept):
    outcome, probability = draw(300, seed, intercept=intercept)
    found = on_the_sample(calibration_intercept, outcome, probability)
    x = logit(probability)
    expected = brentq(lambda a: expit(x + a).mean() - outcome.mean(), -20, 20, xtol=1e-12)
    assert found == pytest.approx(expected, abs=1e-8)


def test_predictions_twice_too_extreme_have_slope_one_half():
    outcome, probability = draw(200_000, seed=0)
    twice = expit(2 * logit(probability))
    assert on_the_sample(calibration_slope, outcome, probability) == pytest.approx(1, abs=0.02)
    assert on_the_sample(calibration_slope, outcome, twice) == pytest.approx(0.5, abs=0.01)
    too_high = expit(logit(probability) + 0.7)
    assert on_the_sample(calibration_intercept, outcome, too_high) == pytest.approx(-0.7, abs=0.02)


def test_slope_of_two_by_two_counts_has_its_closed_form():
    # log odds of the outcome are log(1/3) and log(3) at predictions with logits -1 and 1
    probability = expit(np.array([-1.0] * 4 + [1.0] * 4))
    outcome = np.array([1.0, 0, 0, 0, 1, 1, 1, 0])
    expected = (np.log(3) - np.log(1 / 3)) / 2
    assert on_the_sample(calibration_slope, outcome, probability) == pytest.approx(expected)
    assert on_the_sample(calibration_intercept, outcome, probability) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("outcome", "probability"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]),  # separated
        ([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4]),  # separated the other way
        ([0, 0, 1, 1], [0.1, 0.2, 0.2, 0.4]),  # but for a tie
        ([0, 1, 0, 1], [0.3, 0.3, 0.3, 0.3]),  # one score
        ([0, 1, 0, 1], [0.0, 0.3, 0.4, 0.5]),  # no logit
        ([0, 0, 0, 0], [0.1, 0.2, 0.3, 0.4]),  # one class
    ],
)
def test_where_no_finite_slope_exists_there_is_none(outcome, probability):
    case = np.array(outcome, dtype=float), np.array(probability)
    assert np.isnan(on_the_sample(calibration_slope, *case))


def test_hard_starts_converge_or_say_nothing():
    generator = np.random.default_rng(0)
    for spread in (1e-9, 1e-3, 1.0, 30.0, 300.0):
        x = generator.normal(0, spread, 50)
        x[0] = spread  # beyond doubt at least two scores
        outcome = (generator.random(50) < 0.5).astype(float)
        slope = on_the_sample(calibration_slope, outcome, expit(np.clip(x, -700, 36)))
        shift = on_the_sample(calibration_intercept, outcome, expit(np.clip(x, -700, 36)))
        for x_part, fitted in ((x, slope), (np.ones(50), shift)):
            assert np.isnan(fitted) or np.isfinite(fitted * x_part).all()


def test_newton_from_a_far_start_reaches_the_maximum_of_the_likelihood():
    # log odds 0 +- 0.01 at predictions with logits -10 and 10: slope 0.001, far from 1
    probability = expit(np.array([-10.0] * 2000 + [10.0] * 2000))
    outcome = np.array(([1.0] * 995 + [0.0] * 1005) + ([1.0] * 1005 + [0.0] * 995))
    expected = np.log(1005 / 995) / 10
    found = on_the_sample(calibration_slope, outcome, probability)
    assert found == pytest.approx(expected, rel=1e-7)


@given(st.integers(0, 1000), st.integers(1, 200))
@settings(deadline=None)
def test_ece_without_ties_is_that_of_equal_mass_bins(seed, n):
    generator = np.random.default_rng(seed)
    probability = generator.random(n)
    outcome = (generator.random(n) < 0.3).astype(float)
    bins = np.array_split(np.argsort(probability), 10)
    expected = sum(abs((outcome[b] - probability[b]).sum()) for b in bins) / n
    assert on_the_sample(ece, outcome, probability) == pytest.approx(expected, abs=1e-12)


def test_ece_of_a_constant_is_its_distance_from_the_prevalence():
    outcome = np.array([1.0] * 3 + [0.0] * 22)
    assert on_the_sample(ece, outcome, np.full(25, 0.2)) == pytest.approx(0.2 - 3 / 25)
    assert on_the_sample(ece, outcome, np.full(25, 3 / 25)) == pytest.approx(0, abs=1e-12)


def test_curve_has_the_bins_of_the_ece_and_intervals_around_what_was_observed():
    outcome, probability = draw(2_005, seed=3)
    curve = calibration_curve(outcome, probability)
    assert curve["n"].tolist() == [201] * 5 + [200] * 5
    n, predicted, observed, low, high = curve.to_numpy(dtype=np.float64).T
    from_curve = np.abs(observed - predicted) @ n / 2_005
    assert from_curve == pytest.approx(on_the_sample(ece, outcome, probability))
    assert ((low <= observed) & (observed <= high)).all()


def test_many_records_of_few_subjects_widen_the_intervals_of_the_curve():
    outcome, probability = draw(400, seed=1)
    alone = calibration_curve(np.tile(outcome, 5), np.tile(probability, 5))
    together = calibration_curve(
        np.tile(outcome, 5), np.tile(probability, 5), np.tile(np.arange(400), 5)
    )
    width = [np.ptp(curve[["low", "high"]], axis=1).mean() for curve in (alone, together)]
    assert width[1] > 2 * width[0]


def test_a_curve_of_few_records_has_few_bins():
    curve = calibration_curve(np.array([0.0, 1.0, 1.0]), np.array([0.2, 0.5, 0.7]))
    assert curve["n"].tolist() == [1, 1, 1]
    assert len(calibration_curve(np.empty(0), np.empty(0))) == 0
    with pytest.raises(ArgumentError, match="n_bins must be at least 1"):
        calibration_curve(np.array([0.0]), np.array([0.2]), n_bins=0)
