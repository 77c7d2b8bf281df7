import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from clinode.errors import ArgumentError, CheckpointError
from clinode.evaluation.labels import LabelBaselines, evaluate_labels

LABELS = ("death", "aki", "stroke")


@pytest.fixture(scope="module")
def scored():
    """Three labels of 300 records of 150 subjects, each known of some records only."""
    generator = np.random.default_rng(0)
    truth = generator.random((300, 3)) < (0.2, 0.4, 0.5)
    probability = 1 / (1 + np.exp(-(1.5 * truth + generator.normal(size=(300, 3)) - 1)))
    outcome = np.where(generator.random((300, 3)) < 0.8, truth, np.nan)
    return outcome, probability, np.arange(300) // 2


def test_each_label_is_measured_on_its_known_records_and_the_average_is_their_mean(scored):
    outcome, probability, subjects = scored
    constant = np.broadcast_to([0.2, 0.4, 0.5], outcome.shape)
    found = evaluate_labels(
        outcome, probability, {"prevalence": constant}, labels=LABELS, subjects=subjects
    )
    auroc, brier = [], []
    for k, label in enumerate(LABELS):
        known = ~np.isnan(outcome[:, k])
        auroc.append(roc_auc_score(outcome[known, k], probability[known, k]))
        brier.append(brier_score_loss(outcome[known, k], probability[known, k]))
        assert found.labels[label].metrics["auroc"].value == pytest.approx(auroc[-1])
        assert found.labels[label].n_records == known.sum()
    assert found.metrics["auroc"].value == pytest.approx(np.mean(auroc))
    assert found.metrics["brier"].value == pytest.approx(np.mean(brier))
    assert found.metrics["auroc"].low < np.mean(auroc) < found.metrics["auroc"].high
    assert found.baselines["prevalence"]["auroc"].value == 0.5
    gain = found.difference["prevalence"]["auroc"]
    assert gain.value == pytest.approx(np.mean(auroc) - 0.5)
    assert gain.low > 0
    assert found.n_records == (~np.isnan(outcome).all(axis=1)).sum()


def test_the_average_of_independent_labels_varies_less_than_one_of_them(scored):
    outcome, probability, _ = scored
    subjects = np.arange(len(outcome))
    found = evaluate_labels(outcome, probability, {}, labels=LABELS, subjects=subjects)
    variance = [
        (found.labels[label].metrics["auroc"].high - found.labels[label].metrics["auroc"].low) ** 2
        for label in LABELS
    ]
    width = found.metrics["auroc"].high - found.metrics["auroc"].low
    # the variance of a mean of three independent quantities
    assert width == pytest.approx(np.sqrt(np.sum(variance)) / 3, rel=0.15)


def test_a_label_of_one_class_leaves_the_average_undefined_and_is_named(scored):
    outcome, probability, subjects = scored
    outcome = outcome.copy()
    outcome[:, 1] = np.where(np.isnan(outcome[:, 1]), np.nan, 0.0)
    found = evaluate_labels(
        outcome, probability, {}, labels=LABELS, subjects=subjects, n_resamples=20
    )
    assert found.metrics["auroc"].verdict == "undefined: aki: no positives"
    assert found.metrics["brier"].is_defined
    assert found.labels["death"].metrics["auroc"].is_defined


def test_columns_that_are_not_one_a_label_are_refused(scored):
    outcome, probability, subjects = scored
    with pytest.raises(ArgumentError, match="2 labels, but 3 columns"):
        evaluate_labels(outcome, probability, {}, labels=LABELS[:2], subjects=subjects)


def test_stored_baselines_without_a_label_are_refused():
    with pytest.raises(CheckpointError, match="lack those of a label"):
        LabelBaselines.from_arrays({"1:log": np.zeros(1)})
    with pytest.raises(CheckpointError, match="not those of labels"):
        LabelBaselines.from_arrays({"log": np.zeros(1)})
