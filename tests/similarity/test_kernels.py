import math

import numpy as np
import pytest
import torch

from clinode.errors import ArgumentError
from clinode.similarity import canonical_correlations, cka, procrustes_distance


@pytest.fixture
def draw():
    return np.random.default_rng(3)


def turned(draw, x):
    return x @ np.linalg.qr(draw.normal(size=(x.shape[1],) * 2))[0]


def test_linear_alignment_is_its_formula(draw):
    x, y = draw.normal(size=(20, 6)), draw.normal(size=(20, 9))
    x, y = x - x.mean(0), y - y.mean(0)
    expected = np.linalg.norm(y.T @ x) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
    assert cka(x + 5, y - 2).value == pytest.approx(expected, abs=1e-12)


def test_alignment_survives_rotation_and_scale_but_not_any_linear_map(draw):
    x, y = draw.normal(size=(30, 5)), draw.normal(size=(30, 7))
    for kernel in ("linear", "rbf"):
        for debiased in (False, True):
            how = {"kernel": kernel, "debiased": debiased}
            plain = cka(x, y, **how).value
            assert cka(3 * turned(draw, x) + 1, y, **how).value == pytest.approx(plain, abs=1e-10)
            assert cka(x, x, **how).value == pytest.approx(1.0, abs=1e-12)
    stretched = x @ np.diag([1, 1, 1, 1, 9.0])
    assert cka(stretched, x).value < 0.8


def test_the_debiased_parts_are_the_unbiased_statistic(draw):
    x, y = draw.normal(size=(7, 3)), draw.normal(size=(7, 4))

    def unbiased(K, L):
        """Mean over quadruples of different stimuli, from its definition."""
        n, total = len(K), 0.0
        for i in range(n):
            for j in range(n):
                if j == i:
                    continue
                total += K[i, j] * L[i, j] / (n * (n - 1))
                for q in range(n):
                    if q in (i, j):
                        continue
                    total -= 2 * K[i, j] * L[i, q] / (n * (n - 1) * (n - 2))
                    for r in range(n):
                        if r not in (i, j, q):
                            total += K[i, j] * L[q, r] / (n * (n - 1) * (n - 2) * (n - 3))
        return total

    K, L = x @ x.T, y @ y.T
    expected = unbiased(K, L) / math.sqrt(unbiased(K, K) * unbiased(L, L))
    assert cka(x, y, debiased=True).value == pytest.approx(expected, abs=1e-10)


def test_independent_representations_align_as_chance_says_and_debiased_not_at_all(draw):
    plain, debiased = [], []
    for _ in range(60):
        x, y = draw.normal(size=(40, 30)), draw.normal(size=(40, 80))
        plain.append(cka(x, y))
        debiased.append(cka(x, y, debiased=True).value)
    assert np.mean([one.value for one in plain]) == pytest.approx(plain[0].chance, abs=0.01)
    assert plain[0].chance > 0.5
    assert abs(np.mean(debiased)) < 4 * np.std(debiased) / math.sqrt(60)


def test_stimuli_missing_in_either_are_left_out(draw):
    x, y = draw.normal(size=(9, 3)), draw.normal(size=(9, 4))
    holes = x.copy()
    holes[4] = math.nan
    kept = np.arange(9) != 4
    assert cka(holes, y).value == pytest.approx(cka(x[kept], y[kept]).value, abs=1e-12)
    assert cka(holes, y).n_stimuli == 8
    holes[4, 0] = 1.0
    with pytest.raises(ArgumentError, match="1 stimuli are NaN in some of their units alone"):
        cka(holes, y)


def test_procrustes_is_a_metric_on_shapes(draw):
    x, y, z = (draw.normal(size=(15, p)) for p in (4, 4, 6))
    for angular in (False, True):
        d = [procrustes_distance(a, b, angular=angular) for a, b in ((x, y), (y, z), (x, z))]
        assert d[2] <= d[0] + d[1]
        assert procrustes_distance(y, x, angular=angular) == pytest.approx(d[0], abs=1e-10)
        assert procrustes_distance(x, 2 * turned(draw, x) - 1, angular=angular) < 1e-7


def test_procrustes_is_what_the_best_rotation_leaves(draw):
    x, y = draw.normal(size=(15, 3)), draw.normal(size=(15, 3))
    x, y = x - x.mean(0), y - y.mean(0)
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    u, _, v = np.linalg.svd(x.T @ y)
    left = np.linalg.norm(x @ (u @ v) - y)
    assert procrustes_distance(x, y) == pytest.approx(left, abs=1e-10)
    others = [np.linalg.norm(turned(draw, x) - y) for _ in range(200)]
    assert min(others) >= left


def test_canonical_correlations_survive_any_invertible_map_and_are_those_of_regression(draw):
    x, y = draw.normal(size=(40, 4)), draw.normal(size=(40, 1))
    y = y + x[:, :1]
    found = canonical_correlations(x, y)
    design = np.column_stack([x, np.ones(40)])
    fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    assert found.mean == pytest.approx(np.corrcoef(fitted[:, 0], y[:, 0])[0, 1], abs=1e-10)
    mapped = canonical_correlations(x @ draw.normal(size=(4, 4)) + 3, -y)
    np.testing.assert_allclose(mapped.correlations, found.correlations, atol=1e-9)


def test_fewer_stimuli_than_units_have_no_canonical_correlations(draw):
    with pytest.raises(ArgumentError, match="10 stimuli are too few for 8 and 6 units"):
        canonical_correlations(draw.normal(size=(10, 8)), draw.normal(size=(10, 6)))


def test_what_cannot_be_aligned_is_refused(draw):
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ArgumentError, match="5 stimuli in one and 4"):
        cka(x, x[:4])
    with pytest.raises(ArgumentError, match="the same for all stimuli"):
        cka(x, torch.ones(5, 3))
    with pytest.raises(ArgumentError, match="'linear' or 'rbf'"):
        cka(x, x, kernel="cubic")
    with pytest.raises(ArgumentError, match="3 stimuli are too few"):
        cka(x[:3], x[:3], debiased=True)
