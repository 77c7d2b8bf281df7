import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

from clinode.cohort import Cohort
from clinode.errors import ArgumentError, SchemaError
from clinode.sequence import GRUD, LinearLatentODE
from clinode.training import CohortClassifier, fit


@pytest.fixture(scope="module")
def classifier(small_model, train):
    return CohortClassifier(small_model, at=48.0, epochs=3).fit(train)


def test_probabilities_are_those_of_the_run_one_row_a_subject(classifier, held_out):
    probability = classifier.predict_proba(held_out)
    assert probability.shape == (len(held_out), 2)
    np.testing.assert_allclose(probability.sum(axis=1), 1.0)
    expected = classifier.run_.predict(held_out)["probability"]
    np.testing.assert_array_equal(probability[:, 1], expected)
    np.testing.assert_array_equal(classifier.predict(held_out), probability[:, 1] > 0.5)


def test_the_classifier_is_fit_with_a_scikit_learn_face(
    classifier, small_model, train, task, tmp_path
):
    from clinode.training import FitConfig

    run = fit(small_model, train, task=task, out=tmp_path / "run", config=FitConfig(epochs=3))
    assert run.weights_sha256 == classifier.run_.weights_sha256


def test_the_score_is_the_share_of_subjects_classified_right(classifier, held_out):
    truth = held_out.outcomes["died"].to_numpy()
    expected = np.mean(classifier.predict(held_out) == truth)
    assert classifier.score(held_out) == pytest.approx(expected)
    assert classifier.score(held_out, truth) == pytest.approx(expected)


def test_a_clone_has_the_parameters_and_none_of_the_fit(classifier):
    copy: CohortClassifier = clone(classifier)  # pyright: ignore[reportAssignmentType]
    assert not hasattr(copy, "run_")
    own, other = classifier.get_params(), copy.get_params()
    assert other.pop("model").config() == own.pop("model").config()
    assert other == own
    assert copy.set_params(epochs=7).get_params()["epochs"] == 7
    assert is_classifier(copy)


def test_what_was_learned_is_named(classifier, train):
    assert list(classifier.classes_) == [0, 1]
    assert {"HR", "MAP", "Lactate", "Creatinine", "age", "gender"} == {
        *classifier.feature_names_in_
    }
    assert classifier.n_features_in_ == 6


@pytest.mark.slow
def test_folds_of_a_cohort_are_cohorts(small_model, train):
    labels = train.outcomes["died"].to_numpy()
    scores = cross_val_score(
        CohortClassifier(small_model, at=48.0, epochs=2),
        train,
        labels,
        cv=3,
        scoring="roc_auc",
    )
    assert scores.shape == (3,)
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.slow
def test_a_grid_is_searched_over_models_and_epochs(train):
    models = [
        LinearLatentODE(latent=2, hidden=4, statistics_hidden=4, head_hidden=4),
        GRUD(hidden=4),
    ]
    search = GridSearchCV(CohortClassifier(at=48.0), {"model": models, "epochs": [1]}, cv=2)
    search.fit(train, train.outcomes["died"].to_numpy())
    assert set(search.best_params_) == {"model", "epochs"}


def test_labels_that_disagree_with_the_cohort_are_refused(small_model, train):
    wrong = 1.0 - train.outcomes["died"].to_numpy()
    with pytest.raises(ArgumentError, match="y differs from the cohort's outcomes for 120"):
        CohortClassifier(small_model, at=48.0, epochs=1).fit(train, wrong)
    with pytest.raises(ArgumentError, match="120 subjects, but y has shape"):
        CohortClassifier(small_model, at=48.0, epochs=1).fit(train, wrong[:5])


def test_a_matrix_is_refused_in_words(classifier):
    with pytest.raises(ArgumentError, match="must be a Cohort, got ndarray"):
        CohortClassifier().fit(np.zeros((3, 2)))
    with pytest.raises(ArgumentError, match="must be a Cohort, got ndarray"):
        classifier.predict(np.zeros((3, 2)))


def test_an_unfitted_classifier_says_so(train):
    with pytest.raises(NotFittedError):
        CohortClassifier().predict_proba(train)


def test_a_cohort_without_outcomes_cannot_teach(make_tables):
    tables = make_tables(10)
    del tables["outcomes"]
    with pytest.raises(SchemaError, match="no outcome column"):
        CohortClassifier().fit(Cohort.from_tables(**tables))


def test_a_run_is_kept_where_it_is_asked_for(small_model, train, tmp_path):
    CohortClassifier(small_model, at=48.0, epochs=1, out=tmp_path / "run").fit(train)
    assert (tmp_path / "run" / "manifest.json").exists()


def test_subjects_out_of_their_order_are_refused_before_labels_are_mixed_up(train):
    with pytest.raises(ArgumentError, match="ascending positions"):
        train[np.array([3, 1, 2])]
    fold = train[np.array([1, 3, 4])]
    np.testing.assert_array_equal(fold.subjects, train.subjects[[1, 3, 4]])
