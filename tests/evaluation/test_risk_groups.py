import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score

from clinode.errors import ArgumentError
from clinode.evaluation import operating_points, risk_groups, smooth_calibration


def drawn(seed, n=1500):
    rng = np.random.default_rng(seed)
    risk = np.round(rng.beta(1.2, 4, n), 2)  # ties
    return (rng.random(n) < risk).astype(float), risk


@pytest.mark.parametrize("seed", range(4))
def test_every_group_and_every_difference_of_counts_is_large(seed):
    outcome, risk = drawn(seed)
    groups = risk_groups(outcome, risk)
    assert groups["n"].sum() == len(outcome)
    assert groups["positive"].sum() == outcome.sum()
    assert (groups["positive"] >= 11).all()
    assert (groups["n"] - groups["positive"] >= 11).all()
    assert groups["start"].is_monotonic_increasing
    assert groups["predicted"].is_monotonic_increasing


@pytest.mark.parametrize("seed", range(3))
def test_operating_points_are_those_of_scikit_learn(seed):
    outcome, risk = drawn(seed)
    points = operating_points(risk_groups(outcome, risk, at=0.3))
    assert points["sensitivity"].iloc[0] == 1.0
    for row in points.to_dict("records"):
        alert = risk >= row["threshold"]
        assert row["sensitivity"] == pytest.approx(recall_score(outcome, alert))
        assert row["specificity"] == pytest.approx(recall_score(1 - outcome, ~alert))
        assert row["ppv"] == pytest.approx(precision_score(outcome, alert))
        assert row["alerts"] == pytest.approx(alert.mean())


def test_no_group_crosses_the_threshold_and_a_lone_side_is_joined():
    outcome, risk = drawn(9)
    groups = risk_groups(outcome, risk, at=0.25)
    assert ((groups["start"] >= 0.25) | (groups["start"].shift(-1) <= 0.2501)).all()
    assert (groups["start"] >= 0.25).any()
    assert (np.min(risk[risk >= 0.25]) == groups["start"]).any()
    at_the_end = risk_groups(outcome, risk, at=0.99)  # hardly anybody above
    assert (at_the_end["positive"] >= 11).all()
    assert at_the_end["n"].sum() == len(outcome)


def test_a_subject_with_many_records_does_not_make_a_group_large():
    outcome, risk = np.tile([0.0, 1.0], 50), np.tile([0.2, 0.6], 50)
    assert len(risk_groups(outcome, risk)) == 1
    assert not len(risk_groups(outcome, risk, np.repeat(np.arange(5), 20)))


def test_few_records_have_no_group():
    assert not len(risk_groups(np.ones(40), np.linspace(0, 1, 40)))
    assert not len(risk_groups(np.zeros(0), np.zeros(0)))
    with pytest.raises(ArgumentError, match="at least 1"):
        risk_groups(np.ones(40), np.linspace(0, 1, 40), most=0)


def test_a_line_is_its_own_local_line():
    risk = np.linspace(0.05, 0.9, 200)
    at = np.linspace(0.1, 0.8, 15)
    np.testing.assert_allclose(smooth_calibration(0.1 + 0.7 * risk, risk, at), 0.1 + 0.7 * at)


def test_the_smooth_curve_of_a_right_risk_lies_near_the_diagonal():
    outcome, risk = drawn(2, 20_000)
    at = np.array([0.1, 0.2, 0.4])
    np.testing.assert_allclose(smooth_calibration(outcome, risk, at), at, atol=0.03)


def test_the_smooth_curve_of_one_risk_is_the_frequency():
    outcome = np.array([0.0, 0.0, 1.0, 1.0, 1.0])
    found = smooth_calibration(outcome, np.full(5, 0.3), np.array([0.3]))
    assert found[0] == pytest.approx(0.6)
    assert np.isnan(smooth_calibration(outcome[:2], np.full(2, 0.3), np.array([0.3]))).all()
