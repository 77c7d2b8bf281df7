import json

import numpy as np
import pytest
from scipy.special import expit

from clinode.errors import ArgumentError
from clinode.evaluation import METRICS, evaluate_classification


def draw(n, seed, noise=1.0):
    generator = np.random.default_rng(seed)
    x = generator.normal(-1.0, 1.5, n)
    outcome = (generator.random(n) < expit(x)).astype(float)
    return outcome, expit(x), expit(x + generator.normal(0, noise, n))


def test_every_metric_has_a_value_inside_its_interval():
    outcome, probability, _ = draw(500, seed=0)
    result = evaluate_classification(outcome, probability, n_resamples=200)
    assert list(result.metrics) == list(METRICS)
    for name, estimate in result.metrics.items():
        assert estimate.verdict == "ok", name
        assert estimate.low <= estimate.value <= estimate.high, name


def test_a_better_model_is_better_by_a_paired_interval_narrower_than_its_own():
    outcome, probability, noisy = draw(2000, seed=1, noise=0.7)
    result = evaluate_classification(outcome, probability, {"noisy": noisy}, n_resamples=300)
    own, other = result.metrics["auroc"], result.baselines["noisy"]["auroc"]
    difference = result.difference["noisy"]["auroc"]
    assert difference.value == pytest.approx(own.value - other.value)
    assert 0 < difference.low < difference.high
    assert difference.high - difference.low < 0.7 * (own.high - own.low)


def test_a_model_does_not_differ_from_itself():
    outcome, probability, _ = draw(300, seed=2)
    result = evaluate_classification(outcome, probability, {"same": probability}, n_resamples=50)
    for name, estimate in result.difference["same"].items():
        assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0), name


def test_intervals_hold_the_truth_as_often_as_they_say():
    # of a fair forecast p = 1/2 +- d the Brier score has mean 1/4 - d^2
    hits, n_cohorts = 0, 200
    generator = np.random.default_rng(0)
    for _ in range(n_cohorts):
        probability = np.where(generator.random(80) < 0.5, 0.2, 0.8)
        outcome = (generator.random(80) < probability).astype(float)
        brier = evaluate_classification(outcome, probability, n_resamples=200).metrics["brier"]
        hits += brier.low <= 0.25 - 0.3**2 <= brier.high
    assert 0.89 <= hits / n_cohorts <= 0.99


def test_records_of_one_subject_are_resampled_together():
    outcome, probability, _ = draw(200, seed=3)
    once = evaluate_classification(outcome, probability, n_resamples=200)
    nine_times = evaluate_classification(
        np.tile(outcome, 9),
        np.tile(probability, 9),
        subjects=np.tile(np.arange(200), 9),
        n_resamples=200,
    )
    assert nine_times.n_subjects == 200
    for name in ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept"):
        a, b = once.metrics[name], nine_times.metrics[name]
        np.testing.assert_allclose((b.value, b.low, b.high), (a.value, a.low, a.high), rtol=1e-6)


def test_the_interval_of_the_ece_lies_around_it_although_resampling_adds_noise():
    outcome, probability, _ = draw(400, seed=4)
    ece = evaluate_classification(outcome, probability, n_resamples=300).metrics["ece"]
    assert 0 <= ece.low < ece.value < ece.high


@pytest.mark.parametrize(("label", "why"), [(0.0, "no positives"), (1.0, "no negatives")])
def test_with_one_class_the_ranking_is_undefined_and_says_why(label, why):
    probability = np.array([0.1, 0.3, 0.5])
    result = evaluate_classification(
        np.full(3, label), probability, {"prevalence": np.full(3, 0.2)}, n_resamples=20
    )
    for name in ("auroc", "auprc", "calibration_slope", "calibration_intercept"):
        assert result.metrics[name].verdict == f"undefined: {why}"
        assert np.isnan(result.metrics[name].value)
        assert result.difference["prevalence"][name].verdict == f"undefined: model: {why}"
    assert result.metrics["brier"].value == pytest.approx(np.mean((probability - label) ** 2))
    assert result.metrics["ece"].verdict == "ok"


def test_a_constant_ranks_at_chance_and_has_no_slope():
    outcome, probability, _ = draw(300, seed=5)
    prevalence = {"prevalence": np.full(300, outcome.mean())}
    result = evaluate_classification(outcome, probability, prevalence, n_resamples=50)
    constant = result.baselines["prevalence"]
    assert (constant["auroc"].value, constant["auroc"].low, constant["auroc"].high) == (0.5,) * 3
    assert constant["calibration_slope"].verdict == "undefined: every prediction is the same"
    assert constant["calibration_intercept"].value == pytest.approx(0, abs=1e-9)
    difference = result.difference["prevalence"]["calibration_slope"]
    assert difference.verdict == "undefined: prevalence: every prediction is the same"


def test_certain_and_separating_predictions_have_no_slope_and_say_which():
    outcome = np.array([0.0, 0.0, 1.0, 1.0])
    certain = evaluate_classification(outcome, np.array([0.0, 0.6, 0.5, 1.0]), n_resamples=5)
    for name in ("calibration_slope", "calibration_intercept"):
        assert "exactly 0 or 1 has no logit" in certain.metrics[name].verdict
    apart = evaluate_classification(outcome, np.array([0.1, 0.2, 0.3, 0.4]), n_resamples=5)
    assert "separate the two classes" in apart.metrics["calibration_slope"].verdict


def test_few_positives_leave_a_value_without_an_interval():
    outcome = np.array([1.0] + [0.0] * 19)
    result = evaluate_classification(outcome, np.linspace(0.9, 0.1, 20), n_resamples=100)
    assert result.metrics["auroc"].value == 1.0
    assert result.metrics["auroc"].verdict.startswith("no interval: undefined on")


def test_unknown_outcomes_are_left_out_and_counted():
    outcome, probability, noisy = draw(300, seed=6)
    blank = np.where(np.arange(300) % 3 == 0, np.nan, outcome)
    known = ~np.isnan(blank)
    whole = evaluate_classification(blank, probability, {"b": noisy}, n_resamples=50)
    part = evaluate_classification(
        outcome[known], probability[known], {"b": noisy[known]}, n_resamples=50
    )
    assert (whole.n_records, whole.n_unknown) == (200, 100)
    assert whole.metrics == part.metrics
    nothing = evaluate_classification(np.full(3, np.nan), np.full(3, 0.5), n_resamples=5)
    verdicts = {estimate.verdict for estimate in nothing.metrics.values()}
    assert verdicts == {"undefined: no record has a known outcome"}


def test_the_same_seed_gives_the_same_intervals_and_another_does_not():
    outcome, probability, _ = draw(200, seed=7)
    first, again, other = (
        evaluate_classification(outcome, probability, n_resamples=50, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first.metrics["auroc"].low != other.metrics["auroc"].low


def test_the_dictionary_is_strict_json_and_the_table_has_a_row_for_each_number():
    outcome, probability, noisy = draw(100, seed=8)
    baselines = {"prevalence": np.full(100, 0.3), "noisy": noisy}
    result = evaluate_classification(outcome, probability, baselines, n_resamples=50)
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert set(told["auroc"]) == {"value", "low", "high", "verdict"}
    assert set(told["baselines"]) == set(told["difference"]) == {"prevalence", "noisy"}
    assert told["baselines"]["prevalence"]["calibration_slope"]["value"] is None
    table = result.to_pandas()
    assert len(table) == (1 + 2 + 2) * len(METRICS)
    chosen = table.query("kind == 'difference' and of == 'noisy' and metric == 'auroc'")
    assert chosen["value"].item() == told["difference"]["noisy"]["auroc"]["value"]


@pytest.mark.parametrize(
    ("outcome", "probability", "problem"),
    [
        ([0.0, 2.0], [0.1, 0.2], "must be 0, 1 or missing"),
        ([0.0, 1.0], [0.1, 1.2], r"1 predictions of 'model' are not probabilities"),
        ([0.0, 1.0], [np.nan, 0.2], r"1 predictions of 'model' are not probabilities"),
    ],
)
def test_what_is_not_an_outcome_or_a_probability_is_refused(outcome, probability, problem):
    with pytest.raises(ArgumentError, match=problem):
        evaluate_classification(np.array(outcome), np.array(probability))


def test_baselines_of_another_length_or_named_model_are_refused():
    outcome, probability, _ = draw(10, seed=0)
    with pytest.raises(ArgumentError, match="10 outcomes, but 9 of 'short'"):
        evaluate_classification(outcome, probability, {"short": probability[:9]})
    with pytest.raises(ArgumentError, match="cannot be named 'model'"):
        evaluate_classification(outcome, probability, {"model": probability})
