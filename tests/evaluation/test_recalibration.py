import json

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from clinode.errors import ArgumentError, SchemaError
from clinode.evaluation.recalibration import METHODS, Recalibration, fit_recalibration

QUICK = {"n_resamples": 200}


def drawn(n, seed=0, map=lambda z: z):
    """True logits z, outcomes drawn from them, and what a model says instead: map(z)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-1.0, 1.5, n)
    return map(z), (rng.random(n) < expit(z)).astype(float), z


@pytest.mark.parametrize("method", METHODS)
def test_a_distorted_risk_comes_back_to_the_truth(method):
    shown, outcome, truth = drawn(12_000, map=lambda z: 2.5 * z)
    found = fit_recalibration(shown, outcome, method=method, n_resamples=50)
    away = np.abs(expit(found.apply(shown)) - expit(truth))
    assert away.mean() < (0.02 if method == "isotonic" else 0.01)
    assert np.abs(expit(shown) - expit(truth)).mean() > 0.07
    assert found.evidence[0]["method"] == "none"
    gap = next(row["difference"] for row in found.evidence if row["method"] == method)
    assert gap.high < 0


def test_platt_is_the_logistic_regression_of_the_outcome_on_the_logit():
    shown, outcome, _ = drawn(3000, seed=1, map=lambda z: 0.5 * z + 0.7)
    found = fit_recalibration(shown, outcome, method="platt", **QUICK)
    intercept, slope = 0.0, 1.0
    for _ in range(50):  # Newton's method, by hand
        risk = expit(intercept + slope * shown)
        weight = risk * (1 - risk)
        H = np.array(
            [[weight.sum(), weight @ shown], [weight @ shown, weight @ shown**2]], dtype=float
        )
        g = np.array([(outcome - risk).sum(), (outcome - risk) @ shown])
        intercept, slope = np.array([intercept, slope]) + np.linalg.solve(H, g)
    assert found.slope == pytest.approx(slope, abs=1e-4)
    assert found.value[0] == pytest.approx(intercept, abs=1e-4)


def test_a_temperature_keeps_even_odds_and_lies_where_the_log_loss_is_flat():
    shown, outcome, _ = drawn(4000, seed=2, map=lambda z: 3 * z)
    found = fit_recalibration(shown, outcome, method="temperature", **QUICK)
    assert found.apply(np.zeros(1)) == 0.0
    inverse = brentq(lambda beta: (outcome - expit(beta * shown)) @ shown, 0.05, 5.0)
    assert found.slope == pytest.approx(inverse, rel=1e-5)


def test_the_evidence_names_slope_and_intercept_before_and_after():
    shown, outcome, _ = drawn(3000, seed=4, map=lambda z: 2 * z - 1)
    rows = {row["method"]: row for row in fit_recalibration(shown, outcome, **QUICK).evidence}
    slope, intercept = (f"calibration_{name}" for name in ("slope", "intercept"))
    assert rows["none"][slope].low < 0.5 < rows["none"][slope].high  # the truth is (shown + 1) / 2
    assert rows["none"][intercept].low > 0.1
    for measure, right in ((slope, 1.0), (intercept, 0.0)):
        assert rows["platt"][measure].low < right < rows["platt"][measure].high
    assert rows["platt"]["ece"].high < rows["none"]["ece"].low
    for row in rows.values():
        assert row["ece"].low <= row["ece"].value <= row["ece"].high


def test_isotonic_is_that_of_scikit_learn_at_every_record():
    shown, outcome, _ = drawn(500, seed=3)
    found = fit_recalibration(shown, outcome, method="isotonic", **QUICK)
    least = 1 / 502
    peer = IsotonicRegression(y_min=least, y_max=1 - least).fit(shown, outcome)
    np.testing.assert_allclose(expit(found.apply(shown)), peer.predict(shown), atol=1e-9)
    assert np.isfinite(found.apply(np.array([-50.0, 50.0]))).all()


def test_a_calibrated_risk_is_left_as_it_is():
    left = 0
    for seed in range(5):
        shown, outcome, _ = drawn(1500, seed=seed)
        found = fit_recalibration(shown, outcome, **QUICK)
        left += found.method == "none"
        if found.method == "none":
            np.testing.assert_array_equal(found.apply(shown), shown)
            assert "left as it is" in found.verdict
    assert left >= 4  # of each of three methods one in forty is better by chance


def test_records_of_one_subject_share_a_fold_and_a_resample():
    shown, outcome, _ = drawn(200, seed=4, map=lambda z: 2 * z)
    ten = np.repeat(np.arange(200), 10)
    many = fit_recalibration(shown[ten], outcome[ten], ten, method="platt", **QUICK)
    one = fit_recalibration(shown, outcome, method="platt", **QUICK)
    width = [
        row["difference"].high - row["difference"].low
        for found in (many, one)
        for row in found.evidence
        if row["method"] == "platt"
    ]
    assert width[0] == pytest.approx(width[1], rel=0.05)
    assert many.slope == pytest.approx(one.slope, rel=1e-4)


def test_what_is_stored_is_read_back():
    shown, outcome, _ = drawn(400, seed=5, map=lambda z: 2 * z)
    found = fit_recalibration(shown, outcome, method="isotonic", **QUICK)
    again = Recalibration.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    np.testing.assert_array_equal(again.apply(shown), found.apply(shown))
    assert again.to_dict() == found.to_dict()
    assert again.to_pandas()["method"].tolist() == ["none", *METHODS]


def test_what_cannot_be_recalibrated_is_refused_in_words():
    shown, outcome, _ = drawn(300, seed=6)
    with pytest.raises(ArgumentError, match="method must be auto or one of temperature, platt"):
        fit_recalibration(shown, outcome, method="beta")
    with pytest.raises(SchemaError, match="0 subjects with the outcome; a recalibration needs 20"):
        fit_recalibration(shown, np.zeros(300))
    with pytest.raises(SchemaError, match="rarer where the risk is higher"):
        fit_recalibration(-5 * shown, outcome, method="platt", **QUICK)
    with pytest.raises(SchemaError, match="no slope is too steep"):
        fit_recalibration(shown, (shown > 0).astype(float), **QUICK)
    with pytest.raises(SchemaError, match="1 predictions are not finite"):
        fit_recalibration(np.r_[np.inf, shown[1:]], outcome)
