import math

import numpy as np
import pytest

from clinode.alignment import ceiling_of, score_effects, share_of_ceiling
from clinode.errors import ArgumentError


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_are_their_definitions(seed):
    draw = np.random.default_rng(seed)
    actual = draw.normal(size=(9, 4)) + 3.0
    predicted = actual + draw.normal(size=(9, 4))
    actual[2, 1] = predicted[5, 0] = np.nan
    made = score_effects(predicted, actual, n_resamples=20)
    both = np.isfinite(predicted * actual)
    p, a = predicted[both], actual[both]
    assert made.r.value == pytest.approx(np.corrcoef(p, a)[0, 1], abs=1e-12)
    assert made.error.value == pytest.approx(np.linalg.norm(p - a) / np.linalg.norm(a), rel=1e-12)
    assert made.sign_agreement.value == pytest.approx((np.sign(p) == np.sign(a)).mean())
    assert (made.n_experiments, made.n_effects) == (9, 34)


def test_signs_are_asked_only_where_they_are_known():
    actual = np.array([[1.0, -1.0, 1e-9], [0.5, -0.1, 2.0], [1.0, 1.0, 1.0]])
    predicted = np.array([[1.0, 1.0, -1.0], [0.5, 0.1, 2.0], [1.0, 1.0, 1.0]])
    assert score_effects(predicted, actual).sign_agreement.value == pytest.approx(6 / 8)
    error = np.full((3, 3), 0.2)
    agreement = score_effects(predicted, actual, standard_error=error).sign_agreement
    assert agreement.value == pytest.approx(6 / 7)
    silent = score_effects(predicted, np.zeros((3, 3)))
    assert silent.sign_agreement.verdict == "undefined: no effect has a sign that is known"
    assert silent.error.verdict == "undefined: there is no actual effect"
    assert not silent.r.is_defined


def test_few_experiments_have_a_value_and_no_interval():
    effects = np.arange(12.0).reshape(4, 3)
    made = score_effects(effects, effects)
    assert made.r.value == pytest.approx(1.0)
    assert made.r.verdict == "no interval: 4 experiments"


def test_effects_that_are_all_alike_correlate_with_nothing():
    made = score_effects(np.full((6, 2), 0.1), np.random.default_rng(0).normal(size=(6, 2)))
    assert made.r.verdict.startswith("undefined: effects that do not vary")


@pytest.mark.parametrize(("noise", "repeats"), [(0.5, 20), (2.0, 20), (3.0, 4)])
def test_the_ceiling_is_the_root_of_the_reliability(noise, repeats):
    draw = np.random.default_rng(1)
    true = draw.normal(size=(400, 10))
    measured = true + noise * draw.normal(size=(repeats, 400, 10))
    expected = math.sqrt(1 / (1 + noise**2 / repeats))
    made = ceiling_of(measured, n_resamples=50)
    assert made.value == pytest.approx(expected, abs=0.02)
    assert made.low < expected < made.high + 0.01
    perfect = score_effects(true, measured.mean(axis=0), n_resamples=20)
    assert perfect.r.value == pytest.approx(made.value, abs=0.02)
    assert share_of_ceiling(true, measured, n_resamples=50).value == pytest.approx(1.0, abs=0.02)


def test_the_ceiling_of_noise_alone_is_near_zero_and_bad_shapes_are_refused():
    draw = np.random.default_rng(2)
    assert ceiling_of(draw.normal(size=(10, 500, 4)), n_resamples=20).value < 0.35
    with pytest.raises(ArgumentError, match="needs two repeats at least, got 1"):
        ceiling_of(draw.normal(size=(1, 5, 4)))


@pytest.mark.slow  # slow tests run without checks of shapes, as a user does
def test_effects_of_other_shapes_are_refused():
    with pytest.raises(ArgumentError, match="must both be"):
        score_effects(np.zeros((2, 3)), np.zeros((3, 2)))
