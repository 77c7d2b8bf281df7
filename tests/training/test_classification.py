import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from clinode.cohort import Classify, Cohort, PackedRecords, Preprocessor
from clinode.errors import ArgumentError, SchemaError
from clinode.sequence import LinearLatentODE
from clinode.training import FitConfig, evaluate, fit, fit_ensemble, load_run

TASK = Classify(("died", "failed"), at=48.0, auxiliary=("stay",))


@pytest.fixture(scope="module")
def make_labelled(make_tables):
    """Function (n_subjects, seed, first_id) -> a cohort with a second label, known of most."""

    def make(n_subjects: int, seed: int = 0, first_id: int = 1) -> Cohort:
        tables = make_tables(n_subjects, seed, first_id)
        generator = np.random.default_rng(seed + 100)
        creatinine = tables["observations"].query("variable == 'Creatinine'")
        mean = creatinine.groupby("subject_id")["value"].mean()
        high = tables["outcomes"]["subject_id"].map(mean) > 1.0
        failed = high.astype(float).where(generator.random(n_subjects) < 0.7)
        stay = generator.uniform(1, 9, n_subjects)
        tables["outcomes"] = tables["outcomes"].assign(failed=failed, stay=stay)
        return Cohort.from_tables(**tables)

    return make


@pytest.fixture(scope="module")
def two(tmp_path_factory, make_labelled, small_model):
    """A run that predicts two labels, one of creatinine alone."""
    config = FitConfig(epochs=10, batch_size=16, bucket_batches=2, learning_rate=1e-2)
    out = tmp_path_factory.mktemp("runs") / "two"
    return fit(small_model, make_labelled(160), task=TASK, out=out, config=config, progress=False)


def test_several_labels_are_one_task_and_one_label_is_the_plain_task():
    assert Classify(("died",)) == Classify("died")
    assert Classify(("died", "failed")).labels == ("died", "failed")
    assert TASK.outcomes == ("died", "failed", "stay")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Classify(()), "name of the outcome is empty"),
        (lambda: Classify(("died", "died")), "named twice"),
        (lambda: Classify(("died", "failed"), auxiliary=("failed",)), "auxiliary to itself"),
    ],
)
def test_labels_that_make_no_sense_are_refused(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_each_label_is_learned_from_what_causes_it(two, make_labelled):
    cohort = make_labelled(300, seed=5, first_id=7001)
    table = two.predict(cohort)
    assert list(table.columns) == [
        "subject_id",
        "prediction_time",
        "logit",
        "logit_failed",
        "probability_failed",
        "probability",
    ]
    np.testing.assert_allclose(table["probability"], expit(table["logit"]))
    outcomes = cohort.outcomes
    known = outcomes["failed"].notna().to_numpy()
    own = roc_auc_score(outcomes["failed"][known], table["probability_failed"][known])
    other = roc_auc_score(outcomes["failed"][known], table["probability"][known])
    assert own > 0.75
    assert other < 0.62  # the first label does not depend on creatinine


def test_both_labels_are_measured_stored_and_loaded(two, make_labelled):
    cohort = make_labelled(120, seed=6, first_id=9001)
    found = evaluate(two, cohort, n_resamples=50).to_dict()
    assert found["auroc"]["value"] == pytest.approx(
        np.mean([found["labels"][label]["auroc"]["value"] for label in TASK.labels])
    )
    assert found["labels"]["failed"]["n_unknown"] == cohort.outcomes["failed"].isna().sum()
    assert {row["outcome"] for row in found["subgroups"]} == set(TASK.labels)
    stored = pd.read_parquet(two.folder / "predictions.parquet")
    assert list(stored.columns[2:5]) == ["split", "outcome", "outcome_failed"]
    loaded = load_run(two.folder)
    assert loaded.task == TASK
    again = evaluate(loaded, cohort, n_resamples=50).to_dict()
    assert again["difference"] == found["difference"]


def test_the_mean_probability_of_each_label_is_its_share_in_training(two, make_labelled):
    table, outcomes = two.predict(make_labelled(160)), make_labelled(160).outcomes
    for label, column in (("died", "probability"), ("failed", "probability_failed")):
        known = outcomes[label].notna().to_numpy()
        share = (outcomes[label].sum() + 0.5) / (known.sum() + 1)
        assert table[column][known].mean() == pytest.approx(share, abs=1e-5)


def test_an_unknown_label_moves_no_weight_and_the_others_of_its_record_do(make_labelled):
    cohort = make_labelled(30)
    schema = Preprocessor.fit(cohort, TASK)
    records = PackedRecords.build(cohort, schema, TASK)
    model = LinearLatentODE(latent=3, hidden=4, statistics_hidden=4, head_hidden=4)
    model = model.build(schema, TASK, torch.Generator().manual_seed(0))
    batch = records.batch(np.arange(30))
    assert batch.target is not None
    assert batch.target_mask is not None
    unknown = ~batch.target_mask
    assert unknown[:, 1].any()
    other = batch.replace(target=torch.where(unknown, 7.0, batch.target))
    torch.testing.assert_close(model.loss(other, None), model.loss(batch, None), rtol=0, atol=0)
    with torch.no_grad():
        total, count = model.head.prediction_loss(batch, model(batch))
    assert count == int(batch.target_mask[:, :2].sum())
    known = batch.target_mask[:, :2].numpy()
    z, y = model(batch).value.detach().double().numpy(), batch.target[:, :2].numpy()
    assert total == pytest.approx((np.logaddexp(0, z) - y * z)[known].sum(), rel=1e-6)


def test_a_record_is_left_out_only_if_none_of_its_labels_is_known():
    target = np.array([[1.0, np.nan, 3.0], [np.nan, 0.0, np.nan], [np.nan, np.nan, 2.0]])
    np.testing.assert_array_equal(TASK.is_trainable(target), [True, True, False])


def test_a_label_of_one_class_or_of_other_numbers_is_refused_by_name(
    make_labelled, small_model, tmp_path
):
    cohort = make_labelled(40)
    tables = {"observations": cohort.observations, "statics": cohort.statics}
    call = {"task": TASK, "out": tmp_path / "run", "progress": False}
    one = cohort.outcomes.assign(failed=1.0)
    with pytest.raises(SchemaError, match="40 known values of 'failed' in the training part are 1"):
        fit(small_model, Cohort.from_tables(**tables, outcomes=one), **call)
    odd = cohort.outcomes.assign(failed=2.0)
    with pytest.raises(SchemaError, match="'failed': expected 0, 1 or nothing, 40 rows"):
        fit(small_model, Cohort.from_tables(**tables, outcomes=odd), **call)


def test_an_ensemble_answers_every_label_by_mean_log_odds(make_labelled, small_model, tmp_path):
    cohort, config = make_labelled(50), FitConfig(epochs=1, batch_size=25)
    ensemble = fit_ensemble(
        small_model, cohort, task=TASK, out=tmp_path, seeds=(0, 1), config=config, progress=False
    )
    one, other = (run.predict(cohort) for run in ensemble.runs)
    found = ensemble.predict(cohort)
    expected = (one["logit_failed"] + other["logit_failed"]) / 2
    np.testing.assert_allclose(logit(found["probability_failed"]), expected, rtol=1e-6)
    assert "labels" in ensemble.evaluate(cohort, n_resamples=10).to_dict()
