import itertools
import math

import numpy as np
import pytest
import scipy.spatial.distance
import torch

from clinode.errors import ArgumentError
from clinode.similarity import rdm, rdm_from_vector


@pytest.fixture
def draw():
    return np.random.default_rng(4)


def covariance(draw, n):
    root = draw.normal(size=(n, n))
    return root @ root.T + n * np.eye(n)


@pytest.mark.parametrize(("method", "metric"), [("euclidean", "sqeuclidean"), ("correlation",) * 2])
def test_dissimilarities_are_those_of_scipy(draw, method, metric):
    for n, p in ((5, 3), (12, 30)):
        x = draw.normal(size=(n, p))
        expected = scipy.spatial.distance.pdist(x, metric) / (p if method == "euclidean" else 1)
        np.testing.assert_allclose(rdm(x, method).dissimilarities, expected, rtol=1e-10)


def test_mahalanobis_is_the_distance_by_the_precision(draw):
    x, precision = draw.normal(size=(7, 4)), np.linalg.inv(covariance(draw, 4))
    found = rdm(x, "mahalanobis", precision=torch.tensor(precision))
    expected = scipy.spatial.distance.pdist(x, "mahalanobis", VI=precision) ** 2 / 4
    np.testing.assert_allclose(found.dissimilarities, expected, rtol=1e-10)


def test_crossnobis_is_the_mean_over_pairs_of_folds(draw):
    n, p, folds = 5, 4, 3
    precision = np.linalg.inv(covariance(draw, p))
    x = draw.normal(size=(folds, 2, n, p))  # two observations of each stimulus in a fold
    flat = x.reshape(-1, p)
    stimulus = np.tile(np.arange(n), 2 * folds)
    fold = np.repeat(np.arange(folds), 2 * n)
    found = rdm(flat, "crossnobis", precision=torch.tensor(precision), stimulus=stimulus, fold=fold)
    means = x.mean(axis=1)
    expected = [
        np.mean(
            [
                (means[f, i] - means[f, j]) @ precision @ (means[g, i] - means[g, j]) / p
                for f, g in itertools.permutations(range(folds), 2)
            ]
        )
        for i, j in itertools.combinations(range(n), 2)
    ]
    np.testing.assert_allclose(found.dissimilarities, expected, rtol=1e-9)


def test_crossnobis_of_noise_is_zero_on_average_and_euclidean_is_not(draw):
    n, p, folds = 30, 50, 2
    x, stimulus = draw.normal(size=(folds * n, p)), np.tile(np.arange(n), folds)
    crossed = rdm(x, "crossnobis", stimulus=stimulus, fold=np.repeat(np.arange(folds), n))
    mean, spread = crossed.dissimilarities.mean(), crossed.dissimilarities.std()
    assert abs(mean) < 4 * spread / math.sqrt(n)
    assert float(rdm(x, stimulus=stimulus).dissimilarities.mean()) > 0.9


def test_euclidean_dissimilarities_do_not_change_under_shifts_and_rotations(draw):
    x = draw.normal(size=(8, 6))
    turn, _ = np.linalg.qr(draw.normal(size=(6, 6)))
    moved = rdm(x @ turn + draw.normal(size=6)).dissimilarities
    np.testing.assert_allclose(moved, rdm(x).dissimilarities, rtol=1e-10)


def test_matrix_and_vector_hold_the_same_pairs(draw):
    whole = rdm(draw.normal(size=(6, 3)), labels=list("abcdef"))
    assert torch.equal(rdm_from_vector(whole.matrix).dissimilarities, whole.dissimilarities)
    table = whole.to_pandas()
    assert list(table.columns) == ["first", "second", "dissimilarity"]
    assert (table.iloc[4]["first"], table.iloc[4]["second"]) == ("a", "f")
    np.testing.assert_array_equal(whole.matrix[0, 5], table.iloc[4]["dissimilarity"])


def test_a_stimulus_that_was_not_shown_is_missing_from_its_pairs_alone(draw):
    x = draw.normal(size=(5, 3))
    x[2] = math.nan
    found = rdm(x).matrix
    assert found[2, [0, 1, 3, 4]].isnan().all()
    others = [0, 1, 3, 4]
    np.testing.assert_allclose(found[others][:, others], rdm(x[others]).matrix)
    assert rdm(x).to_dict()["dissimilarities"][1] is None


def test_a_stimulus_measured_in_some_units_alone_is_refused(draw):
    x = draw.normal(size=(5, 3))
    x[2, 0] = math.nan
    with pytest.raises(ArgumentError, match="1 patterns are NaN in some of their units alone"):
        rdm(x)


def test_what_has_no_correlation_is_refused(draw):
    x = draw.normal(size=(4, 3))
    x[1] = 7.0
    with pytest.raises(ArgumentError, match="1 stimuli have the same value in all units"):
        rdm(x, "correlation")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"method": "cosine"}, "method must be one of"),
        ({"method": "crossnobis"}, "crossnobis needs them"),
        ({"fold": [0] * 4}, "folds belong to crossnobis"),
        ({"precision": torch.eye(3)}, "takes no precision"),
        ({"method": "mahalanobis", "precision": -torch.eye(3)}, "not positive definite"),
        ({"method": "mahalanobis", "precision": torch.eye(2)}, "must be symmetric"),
        ({"labels": ["a"]}, "1 labels for 4 stimuli"),
        ({"stimulus": [0, 0, 0, 0]}, "needs two stimuli"),
    ],
)
def test_calls_without_meaning_are_refused(asked, told):
    with pytest.raises(ArgumentError, match=told):
        rdm(torch.arange(12.0).reshape(4, 3).square(), **asked)


def test_a_vector_of_no_triangle_is_refused():
    with pytest.raises(ArgumentError, match="4 pairs"):
        rdm_from_vector([1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ArgumentError, match="not symmetric"):
        rdm_from_vector([[0.0, 1.0], [2.0, 0.0]])
