import numpy as np
import pytest

from clinode.errors import ArgumentError
from clinode.evaluation import at_threshold, decision_curve


def drawn(seed, n=400):
    rng = np.random.default_rng(seed)
    risk = rng.beta(1.2, 4, n)
    return (rng.random(n) < risk).astype(float), risk


def test_net_benefit_is_that_of_a_table_counted_by_hand():
    # 10 records, alerts at 0.2 and above: 6, of them 3 with the outcome; 4 have it in all
    outcome = np.array([1, 1, 1, 0, 0, 0, 1, 0, 0, 0.0])
    risk = np.array([0.9, 0.5, 0.2, 0.3, 0.25, 0.2, 0.1, 0.05, 0.1, 0.0])
    row = decision_curve(outcome, risk, (0.2,), n_resamples=20).loc[0]
    assert row["model"] == pytest.approx(3 / 10 - 3 / 10 * 0.25)
    assert row["all"] == pytest.approx(4 / 10 - 6 / 10 * 0.25)
    assert row["gain"] == pytest.approx(row["model"] - row["all"])
    assert row["alerts"] == pytest.approx(0.6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_acting_on_everybody_is_worth_nothing_at_the_frequency_of_the_outcome(seed):
    outcome, risk = drawn(seed)
    frequency = outcome.mean()
    row = decision_curve(outcome, risk, (frequency,), n_resamples=20).loc[0]
    assert row["all"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("seed", [3, 4])
def test_a_perfect_risk_is_worth_the_frequency_and_none_is_worth_more(seed):
    outcome, risk = drawn(seed)
    perfect = decision_curve(outcome, outcome, n_resamples=20)
    own = decision_curve(outcome, risk, n_resamples=20)
    np.testing.assert_allclose(perfect["model"], outcome.mean())
    assert (own["model"] <= perfect["model"] + 1e-12).all()
    assert (own["gain"] <= own["model"] + 1e-12).all()


def test_below_every_risk_the_model_acts_on_everybody():
    outcome, risk = drawn(5)
    row = decision_curve(outcome, 0.3 + 0.5 * risk, (0.1,), n_resamples=50).loc[0]
    assert row["model"] == pytest.approx(row["all"])
    assert (row["gain_low"], row["gain_high"]) == pytest.approx((0.0, 0.0), abs=1e-12)


@pytest.mark.slow
def test_the_interval_of_net_benefit_holds_the_truth_at_its_level():
    # true net benefit of a calibrated risk, by its density: integrate once on a large sample
    outcome, risk = drawn(100, 1_000_000)
    acts = risk >= 0.25
    truth = (acts * np.where(outcome == 1, 1.0, -1 / 3)).mean()
    held = 0
    for seed in range(200):
        row = decision_curve(*drawn(seed), (0.25,), n_resamples=300, seed=seed).loc[0]
        held += row["model_low"] <= truth <= row["model_high"]
    assert 0.9 <= held / 200 <= 0.985


def test_subjects_are_resampled_whole():
    outcome, risk = drawn(6, 200)
    alone = decision_curve(outcome, risk, (0.2,), n_resamples=400)
    five_times = decision_curve(
        np.tile(outcome, 5),
        np.tile(risk, 5),
        (0.2,),
        subjects=np.tile(np.arange(200), 5),
        n_resamples=400,
    )
    np.testing.assert_allclose(five_times, alone, atol=1e-12)


def test_alerts_are_counted_by_hand():
    outcome = np.array([1, 1, 1, 0, 0, 0, 1, 0, 0, 0.0])
    risk = np.array([0.9, 0.5, 0.2, 0.3, 0.25, 0.2, 0.1, 0.05, 0.1, 0.0])
    found = at_threshold(outcome, risk, 0.2, n_resamples=200)
    assert {name: round(e.value, 6) for name, e in found.items()} == {
        "sensitivity": 0.75,
        "specificity": 0.5,
        "ppv": 0.5,
        "npv": 0.75,
        "alerts_per_100": 60.0,
    }
    assert all(e.low <= e.value <= e.high for e in found.values() if e.verdict == "ok")


def test_a_share_of_nothing_says_so():
    found = at_threshold(np.array([0.0, 1.0]), np.array([0.1, 0.2]), 0.9, n_resamples=10)
    assert found["ppv"].verdict == "undefined: there is no alert"
    assert found["sensitivity"].value == 0.0


@pytest.mark.parametrize(
    ("outcome", "risk", "at", "words"),
    [
        ([], [], (0.1,), "no record"),
        ([0.0, 2.0], [0.1, 0.2], (0.1,), "must be 0 or 1"),
        ([0.0, np.nan], [0.1, 0.2], (0.1,), "must be 0 or 1"),
        ([0.0, 1.0], [0.1, 1.2], (0.1,), "must lie in"),
        ([0.0, 1.0], [0.1, np.nan], (0.1,), "must lie in"),
        ([0.0, 1.0], [0.1, 0.2], (0.0,), "inside"),
        ([0.0, 1.0], [0.1, 0.2], (), "inside"),
    ],
)
def test_what_cannot_be_acted_on_is_refused(outcome, risk, at, words):
    with pytest.raises(ArgumentError, match=words):
        decision_curve(np.array(outcome), np.array(risk), at)
