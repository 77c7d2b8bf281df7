import math
from itertools import permutations

import numpy as np
import pytest
import scipy.stats
import torch

from clinode.errors import ArgumentError
from clinode.similarity import cka, compare, rdm, rdm_from_vector
from clinode.similarity.compare import MEASURES


@pytest.fixture
def draw():
    return np.random.default_rng(11)


def two(draw, n=9, ties=False):
    pairs = draw.normal(size=(2, n * (n - 1) // 2)) + 3
    pairs[1] += 0.7 * pairs[0]
    if ties:
        pairs = np.round(pairs)
    return [rdm_from_vector(row) for row in pairs]


@pytest.mark.parametrize("ties", [False, True])
def test_rank_measures_agree_with_scipy_and_with_counting(draw, ties):
    a, b = two(draw, ties=ties)
    x, y = a.dissimilarities.numpy(), b.dissimilarities.numpy()
    assert compare(a, b, "corr").value == pytest.approx(scipy.stats.pearsonr(x, y)[0], abs=1e-10)
    spearman = scipy.stats.spearmanr(x, y)[0]
    assert compare(a, b, "spearman").value == pytest.approx(spearman, abs=1e-10)
    signs = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    tau_a = signs[np.triu_indices(len(x), 1)].mean()
    assert compare(a, b, "tau-a").value == pytest.approx(tau_a, abs=1e-12)


def test_rho_a_is_the_mean_over_all_ways_to_break_ties():
    x, y = np.array([1.0, 1, 1, 2, 3, 3]), np.array([3.0, 2, 1, 1, 1, 2])

    def orders(values):
        """All rankings that break the ties."""
        found = set()
        for jitter in permutations(range(6)):
            found.add(tuple(np.lexsort((jitter, values)).argsort() + 1))
        return [np.array(one) for one in found]

    rhos = [scipy.stats.pearsonr(a, b)[0] for a in orders(x) for b in orders(y)]
    found = compare(rdm_from_vector(x), rdm_from_vector(y), "rho-a").value
    assert found == pytest.approx(np.mean(rhos), abs=1e-10)


@pytest.mark.parametrize("method", list(MEASURES))
def test_an_rdm_is_most_like_itself(draw, method):
    a, b = two(draw)
    assert compare(a, a, method).value == pytest.approx(1.0, abs=1e-12)
    assert compare(a, b, method).value < 1
    assert compare(a, b, method).value == pytest.approx(compare(b, a, method).value, abs=1e-12)


def test_the_whitened_cosine_of_distances_is_linear_alignment(draw):
    x, y = draw.normal(size=(12, 30)), draw.normal(size=(12, 20))
    found = compare(rdm(x), rdm(y), "cosine_cov").value
    assert found == pytest.approx(cka(x, y).value, abs=1e-10)


@pytest.mark.parametrize("method", ["cosine_cov", "corr_cov"])
def test_whitening_by_kernels_and_by_the_covariance_agree(draw, method):
    a, b = two(draw, n=7)
    x, y = a.dissimilarities.numpy(), b.dissimilarities.numpy()
    if method == "corr_cov":
        x, y = x - x.mean(), y - y.mean()
    first, second = np.triu_indices(7, 1)
    contrast = np.zeros((21, 7))
    contrast[np.arange(21), first], contrast[np.arange(21), second] = 1, -1
    V = (contrast @ contrast.T) ** 2
    product = [p @ np.linalg.solve(V, q) for p, q in ((x, y), (x, x), (y, y))]
    expected = product[0] / math.sqrt(product[1] * product[2])
    assert compare(a, b, method).value == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("method", list(MEASURES))
def test_stimuli_missing_in_either_are_as_if_never_shown(draw, method):
    a, b = two(draw, n=8)
    holes = [rdm_from_vector(one.dissimilarities.clone(), labels=one.labels) for one in (a, b)]
    for one, missing in zip(holes, (2, 5), strict=True):
        first, second = torch.triu_indices(8, 8, offset=1)
        one.dissimilarities[(first == missing) | (second == missing)] = math.nan
    kept = [0, 1, 3, 4, 6, 7]
    parts = [rdm_from_vector(one.matrix[kept][:, kept]) for one in (a, b)]
    found = compare(*holes, method)
    assert (found.n_pairs, found.n_left_out) == (15, 13)
    assert found.value == pytest.approx(compare(*parts, method).value, abs=1e-10)


def test_a_constant_rdm_has_no_correlation(draw):
    a, _ = two(draw, n=5)
    flat = rdm_from_vector(np.full(10, 0.3))
    for method in ("corr", "spearman", "corr_cov"):
        assert math.isnan(compare(a, flat, method).value)
    assert compare(a, flat, "tau-a").value == 0.0


def test_other_stimuli_are_refused(draw):
    a, _ = two(draw, n=5)
    with pytest.raises(ArgumentError, match="different stimuli"):
        compare(a, two(draw, n=6)[0])
    with pytest.raises(ArgumentError, match="another order"):
        compare(a, rdm_from_vector(a.matrix, labels=["1", "0", "2", "3", "4"]))
    with pytest.raises(ArgumentError, match="method must be one of"):
        compare(a, a, "euclidean")


def test_too_few_pairs_in_common_are_refused():
    holes = rdm_from_vector([1.0, math.nan, math.nan])
    with pytest.raises(ArgumentError, match="1 pairs of stimuli in common"):
        compare(holes, rdm_from_vector([1.0, 2.0, 3.0]))
