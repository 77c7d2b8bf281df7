import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from clinode.evaluation import METRICS, ScoredRecords, auprc, auroc, brier


@st.composite
def predictions(draw, n_levels=7):
    """Outcomes of both classes and probabilities with many ties."""
    n = draw(st.integers(2, 60))
    outcome = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    level = draw(st.lists(st.integers(1, n_levels), min_size=n, max_size=n))
    outcome[:2] = [0, 1]
    return np.array(outcome, dtype=float), np.array(level) / (n_levels + 1)


def on_the_sample(metric, outcome, score):
    return metric(ScoredRecords.sort(outcome, score).count_once())[0]


@given(predictions())
def test_auroc_average_precision_and_brier_score_are_those_of_scikit_learn(case):
    outcome, score = case
    assert on_the_sample(auroc, *case) == pytest.approx(roc_auc_score(outcome, score), abs=1e-12)
    expected = average_precision_score(outcome, score)
    assert on_the_sample(auprc, *case) == pytest.approx(expected, abs=1e-12)
    assert on_the_sample(brier, *case) == pytest.approx(brier_score_loss(outcome, score), abs=1e-12)


@given(predictions(), st.integers(0, 2**32 - 1))
def test_a_record_of_weight_k_counts_like_k_records(case, seed):
    outcome, score = case
    weight = np.random.default_rng(seed).integers(0, 4, size=(5, len(outcome)))
    table = ScoredRecords.sort(outcome, score).count(weight.astype(float))
    for name, metric in METRICS.items():
        weighted = metric(table)
        for row, found in zip(weight, weighted, strict=True):
            repeated = np.repeat(outcome, row), np.repeat(score, row)
            if row.sum() == 0:
                assert np.isnan(found), name
                continue
            expected = on_the_sample(metric, *repeated)
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9, err_msg=name)


@given(predictions(), st.integers(0, 2**32 - 1))
def test_no_metric_depends_on_the_order_of_the_records(case, seed):
    outcome, score = case
    shuffled = np.random.default_rng(seed).permutation(len(outcome))
    for name, metric in METRICS.items():
        straight = on_the_sample(metric, outcome, score)
        mixed = on_the_sample(metric, outcome[shuffled], score[shuffled])
        np.testing.assert_allclose(straight, mixed, rtol=1e-9, atol=1e-12, err_msg=name)


@given(predictions())
def test_ranking_metrics_see_only_the_order_of_the_scores(case):
    outcome, score = case
    for metric in (auroc, auprc):
        stretched = on_the_sample(metric, outcome, score**3 / 2 + 0.1)
        assert on_the_sample(metric, outcome, score) == pytest.approx(stretched, abs=1e-12)


@given(predictions())
def test_reversed_scores_reverse_the_auroc(case):
    outcome, score = case
    reverse = on_the_sample(auroc, outcome, 1 - score)
    assert on_the_sample(auroc, outcome, score) == pytest.approx(1 - reverse, abs=1e-12)


def test_a_perfect_ranking_an_inverted_one_and_a_constant_have_known_values():
    outcome = np.array([0.0, 0.0, 0.0, 1.0, 1.0])
    score = np.array([0.1, 0.2, 0.3, 0.8, 0.9])
    assert on_the_sample(auroc, outcome, score) == 1.0
    assert on_the_sample(auprc, outcome, score) == 1.0
    assert on_the_sample(auroc, outcome, 1 - score) == 0.0
    # inverted, the positives come at ranks 4 and 5 of the list
    assert on_the_sample(auprc, outcome, 1 - score) == pytest.approx((1 / 4 + 2 / 5) / 2)
    same = np.full(5, 0.4)
    assert on_the_sample(auroc, outcome, same) == 0.5
    assert on_the_sample(auprc, outcome, same) == pytest.approx(0.4)
    assert on_the_sample(brier, outcome, same) == pytest.approx(0.4 * 0.6)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_with_one_class_nothing_can_be_ranked(label):
    outcome, score = np.full(4, label), np.array([0.1, 0.2, 0.2, 0.9])
    assert np.isnan(on_the_sample(auroc, outcome, score))
    assert np.isnan(on_the_sample(auprc, outcome, score))
    assert on_the_sample(brier, outcome, score) == pytest.approx(np.mean((score - label) ** 2))
