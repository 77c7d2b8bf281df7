from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save
from scipy.special import expit, logit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from clinode.errors import ArgumentError, CheckpointError, SchemaError
from clinode.evaluation import Baselines, Histories, fit_baselines, summarize
from clinode.evaluation.baselines import BOOSTING


def simulate(n_records, seed, n_variables=5):
    """Records whose risk grows with the last value of variable 0 and with not having variable 1."""
    generator = np.random.default_rng(seed)
    count = generator.poisson(2.0, (n_records, n_variables))
    count[:, -1] = 0  # a variable that nobody ever had
    record, variable = (np.repeat(k.ravel(), count.ravel()) for k in np.indices(count.shape))
    time = generator.uniform(0, 48, len(record))
    order = np.lexsort((variable, time, record))
    record, variable = record[order], variable[order]
    value = generator.normal(size=len(record))
    histories = Histories(
        row_start=np.searchsorted(record, np.arange(n_records + 1)),
        time=time[order],
        variable=variable,
        value=value,
        static=np.where(generator.random((n_records, 1)) < 0.2, np.nan, 1.0) * 60.0,
        n_variables=n_variables,
    )
    last = np.nan_to_num(summarize(histories)[:, 1, 0])
    risk = expit(-1.5 + 1.5 * last + 1.0 * (count[:, 1] == 0))
    return histories, (generator.random(n_records) < risk).astype(float), risk


@pytest.fixture(scope="module")
def trained():
    histories, outcome, _ = simulate(1500, seed=0)
    return fit_baselines(histories, outcome)


def test_each_baseline_learns_what_it_can(trained):
    histories, outcome, risk = simulate(3000, seed=1)
    predicted = trained.predict(histories)
    reachable = roc_auc_score(outcome, risk)
    assert roc_auc_score(outcome, predicted["logistic_regression"]) > reachable - 0.02
    assert roc_auc_score(outcome, predicted["gradient_boosting"]) > reachable - 0.04
    assert np.ptp(predicted["prevalence"]) == 0


def test_the_prevalence_is_that_of_the_training_part(trained):
    _, outcome, _ = simulate(1500, seed=0)
    assert trained.prevalence == pytest.approx(outcome.mean())


def test_mean_prediction_of_the_logistic_regression_is_the_prevalence_in_training(trained):
    histories, outcome, _ = simulate(1500, seed=0)  # the intercept is not shrunk
    assert trained.predict(histories)["logistic_regression"].mean() == pytest.approx(
        outcome.mean(), abs=1e-3
    )


def test_boosting_is_scikit_learn_on_the_same_statistics(trained):
    histories, outcome, _ = simulate(1500, seed=0)
    features = np.hstack([summarize(histories).reshape(1500, -1), histories.static])
    features[:, np.isnan(features).all(axis=0)] = 0.0  # scikit-learn fails on an empty column
    model = HistGradientBoostingClassifier(**BOOSTING, random_state=0).fit(features, outcome)
    asked, _, _ = simulate(400, seed=2)
    features = np.hstack([summarize(asked).reshape(400, -1), asked.static])
    found = logit(trained.predict(asked)["gradient_boosting"])
    np.testing.assert_allclose(found, model.decision_function(features), atol=1e-12)


def test_a_stored_baseline_answers_to_the_bit(trained):
    asked, _, _ = simulate(300, seed=3)
    again = Baselines.from_arrays(load(save(trained.to_arrays())))
    for name, probability in trained.predict(asked).items():
        np.testing.assert_array_equal(again.predict(asked)[name], probability)


def test_an_incomplete_file_is_refused(trained):
    for name in ("prevalence", "logistic.mean", "boosting.left"):
        arrays = {k: v for k, v in trained.to_arrays().items() if k != name}
        with pytest.raises(CheckpointError, match="incomplete"):
            Baselines.from_arrays(arrays)


def test_the_same_seed_fits_the_same_baselines():
    histories, outcome, _ = simulate(300, seed=4)
    first, again = (fit_baselines(histories, outcome, seed=1).to_arrays() for _ in range(2))
    for name, part in first.items():
        np.testing.assert_array_equal(part, again[name])


def test_unknown_outcomes_teach_nothing():
    histories, outcome, _ = simulate(300, seed=5)
    blank = np.where(np.arange(300) < 200, outcome, np.nan)
    part = Histories(
        row_start=histories.row_start[:201],
        time=histories.time[: histories.row_start[200]],
        variable=histories.variable[: histories.row_start[200]],
        value=histories.value[: histories.row_start[200]],
        static=histories.static[:200],
        n_variables=5,
    )
    whole = fit_baselines(histories, blank).predict(histories)
    only = fit_baselines(part, outcome[:200]).predict(histories)
    for name, probability in whole.items():
        np.testing.assert_allclose(probability, only[name], atol=1e-12)


def test_records_without_a_single_measurement_get_a_probability(trained):
    nothing = Histories(
        row_start=np.zeros(4, dtype=np.int64),
        time=np.empty(0),
        variable=np.empty(0, dtype=np.int64),
        value=np.empty(0),
        static=np.full((3, 1), np.nan),
        n_variables=5,
    )
    for probability in trained.predict(nothing).values():
        assert ((probability > 0) & (probability < 1)).all()
        assert np.ptp(probability) == 0


def test_one_wild_value_moves_a_linear_prediction_by_a_bounded_amount(trained):
    asked, _, _ = simulate(50, seed=6)
    first_of_2 = np.flatnonzero(asked.variable == 2)[0]
    wild = asked.value.copy()
    wild[first_of_2] = 1e9
    shift = [
        logit(trained.predict(replace(asked, value=v))["logistic_regression"])
        for v in (asked.value, wild)
    ]
    assert np.abs(shift[1] - shift[0]).max() < 5


def test_shrinkage_is_chosen_by_subject_so_copies_of_a_record_do_not_weaken_it():
    histories, outcome, _ = simulate(120, seed=7)
    outcome = np.random.default_rng(0).permutation(outcome)  # nothing to learn
    copies = np.repeat(np.arange(120), 6)
    begin, end = histories.row_start[copies], histories.row_start[copies + 1]
    rows = np.concatenate([np.arange(a, b) for a, b in zip(begin, end, strict=True)])
    many = Histories(
        row_start=np.concatenate([[0], np.cumsum(end - begin)]),
        time=histories.time[rows],
        variable=histories.variable[rows],
        value=histories.value[rows],
        static=histories.static[copies],
        n_variables=5,
    )
    spread = [
        np.ptp(fit_baselines(many, outcome[copies], subjects=s).logistic.logit(*features(many)))
        for s in (copies, np.arange(len(copies)))
    ]
    assert spread[0] < 0.5 * spread[1]


def features(histories):
    summary = summarize(histories)
    presence = np.hstack([summary[:, 6] > 0, np.isfinite(histories.static)])
    return np.hstack([summary.reshape(len(histories), -1), histories.static]), presence


def test_a_training_part_of_a_handful_of_subjects_still_gets_its_baselines():
    histories, _, _ = simulate(4, seed=8)
    baselines = fit_baselines(histories, np.array([0.0, 1.0, 0.0, 0.0]))
    for probability in baselines.predict(histories).values():
        assert np.isfinite(probability).all()


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_cannot_be_learned_from(label):
    histories, _, _ = simulate(20, seed=9)
    with pytest.raises(SchemaError, match=r"all 20 known outcomes .* are of one class"):
        fit_baselines(histories, np.full(20, label))


def test_outcomes_that_are_not_binary_or_records_of_another_cohort_are_refused(trained):
    histories, outcome, _ = simulate(20, seed=10)
    with pytest.raises(ArgumentError, match="must be 0, 1 or missing"):
        fit_baselines(histories, outcome + 1)
    other, _, _ = simulate(20, seed=10, n_variables=6)
    with pytest.raises(ArgumentError, match="fitted on 5 variables and 1 statics"):
        trained.predict(other)
