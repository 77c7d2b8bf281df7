from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from clinode.errors import CheckpointError
from clinode.evaluation import BoostedTrees
from clinode.evaluation.baselines import BOOSTING


def records(n, seed, missing=0.3):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(n, 6))
    features[:, 1] = generator.integers(0, 3, n)  # ties with the thresholds
    label = features[:, 0] + features[:, 1] * features[:, 2] + generator.normal(size=n) > 0.5
    features[generator.random(features.shape) < missing] = np.nan
    features[:, 5] = 0.0  # constant
    return features, label


@pytest.fixture(scope="module")
def fitted():
    features, label = records(600, seed=0)
    return HistGradientBoostingClassifier(**BOOSTING, random_state=0).fit(features, label)


@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
def test_copied_trees_answer_as_scikit_learn_does(fitted, missing):
    features, _ = records(5000, seed=1, missing=missing)
    expected = fitted.decision_function(features)
    found = BoostedTrees.from_sklearn(fitted).logit(features)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_features_without_a_missing_value_in_training_agree_too():
    features, label = records(300, seed=2, missing=0.0)
    model = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(features, label)
    blank = np.where(np.arange(300)[:, None] % 2, features, np.nan)
    found = BoostedTrees.from_sklearn(model).logit(blank)
    np.testing.assert_allclose(found, model.decision_function(blank), rtol=0, atol=1e-12)


def test_trees_of_a_single_leaf_give_the_prevalence():
    features, label = records(20, seed=3)  # fewer than two leaves of 30
    model = HistGradientBoostingClassifier(**BOOSTING, random_state=0).fit(features, label)
    odds = label.mean() / (1 - label.mean())
    found = BoostedTrees.from_sklearn(model).logit(features)
    np.testing.assert_allclose(found, np.log(odds), atol=1e-12)


def test_a_tree_drawn_by_hand_answers_as_drawn():
    # x0 <= 1 ? (x1 <= 2 or missing ? -1 : 0.5) : 3, plus 10
    tree = BoostedTrees(
        base=np.array([10.0]),
        root=np.array([0]),
        feature=np.array([0, 1, 0, 0, 0]),
        threshold=np.array([1.0, 2.0, 0.0, 0.0, 0.0]),
        missing_left=np.array([False, True, False, False, False]),
        left=np.array([1, 2, 2, 3, 4]),
        right=np.array([4, 3, 2, 3, 4]),
        value=np.array([0.0, 0.0, -1.0, 0.5, 3.0]),
    )
    asked = np.array([[1, 2], [1, 3], [1, np.nan], [2, 0], [np.nan, 0]], dtype=float)
    assert tree.logit(asked).tolist() == [9.0, 10.5, 9.0, 13.0, 13.0]


def test_an_empty_table_has_no_answers(fitted):
    assert BoostedTrees.from_sklearn(fitted).logit(np.empty((0, 6))).shape == (0,)


@pytest.mark.parametrize(
    ("part", "node"), [("left", 0), ("right", -1), ("root", 10**6), ("feature", -1)]
)
def test_arrays_that_would_go_round_in_circles_or_out_of_bounds_are_refused(fitted, part, node):
    tree = BoostedTrees.from_sklearn(fitted)
    altered = getattr(tree, part).copy()
    altered[1 if part != "root" else 0] = node
    with pytest.raises(CheckpointError, match="not those of trees"):
        replace(tree, **{part: altered})
