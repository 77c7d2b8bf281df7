import numpy as np
import pytest

from clinode.control.controllability.hautus import least_singular_values, least_singular_vector
from clinode.control.controllability.modes import judge_modes, spectrum
from clinode.control.controllability.precise_gain import precise_gain
from clinode.control.controllability.staircase import split_reached


def driven(n, *nodes):
    return np.eye(n)[:, list(nodes)]


def rotation(n, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


def jordan(n, value=-1.0):
    return value * np.eye(n) + np.eye(n, k=1)


@pytest.mark.parametrize("m", [1, 3, 12])
def test_least_singular_values_of_pencils_are_those_of_the_full_decomposition(m):
    rng = np.random.default_rng(m)
    A, B = rng.normal(size=(12, 12)), rng.normal(size=(12, m))
    points = np.append(np.linalg.eigvals(A), [0.3, 1.0 + 0.5j])
    pencils = [np.hstack([A - p * np.eye(12), B]) for p in points]
    expected = [np.linalg.svd(pencil, compute_uv=False)[-1] for pencil in pencils]
    np.testing.assert_allclose(least_singular_values(A, B, points), expected, rtol=1e-3)
    symmetric = A + A.T
    values = np.linalg.eigvalsh(symmetric)
    pencils = [np.hstack([symmetric - p * np.eye(12), B]) for p in values]
    expected = [np.linalg.svd(pencil, compute_uv=False)[-1] for pencil in pencils]
    np.testing.assert_allclose(least_singular_values(symmetric, B, values), expected, rtol=1e-3)


def test_improving_the_point_finds_the_unreachable_mode_nearby():
    A, B = jordan(2, 0.0), driven(2, 0)  # mode 0, unreachable along (0, 1)
    value, vector = least_singular_vector(A, B, 1e-3)
    assert value < 1e-8
    assert abs(vector[1]) == pytest.approx(1.0)


@pytest.mark.parametrize("n", [2, 3, 6, 12])
def test_a_rotated_jordan_block_is_reached_up_to_the_entry_that_is_driven(n):
    Q = rotation(n)
    for k in range(n):
        A, B = Q @ jordan(n) @ Q.T, Q @ driven(n, k)
        split = split_reached(A, B, of_A=1e-13, of_B=1e-13)
        assert split.n_reached == k + 1
        np.testing.assert_allclose(split.axes.T @ split.axes, np.eye(n), atol=1e-13)
        np.testing.assert_allclose(split.unreached.T @ A @ split.reached, 0.0, atol=1e-12)
        judged = judge_modes(A, B, 1e-13, is_map=False, exact=None)
        assert judged.is_reached.count(True) == k + 1


def test_a_staircase_that_misses_is_corrected_mode_by_mode():
    n = 40  # a path with equal ends of its modes: no block of the staircase is small
    rng = np.random.default_rng(0)
    W = rng.uniform(size=(n, n))
    mirror = np.kron([[0.0, 1.0], [1.0, 0.0]], np.eye(n // 2))
    A = W + W.T
    A = A + mirror @ A @ mirror  # half of its modes are odd
    B = np.tile(rng.normal(size=(n // 2, 1)), (2, 1))
    split = split_reached(A, B, of_A=1e-11, of_B=1e-12)
    assert split.n_reached == n // 2


def test_left_eigenvectors_are_of_length_one_and_belong_to_their_eigenvalues():
    A = np.random.default_rng(1).normal(size=(9, 9))
    values, left, noise = spectrum(A, 1e-13, float(np.linalg.norm(A)))
    np.testing.assert_allclose(left.conj().T @ A, values[:, None] * left.conj().T, atol=1e-12)
    assert (noise < 1e-10).all()
    assert spectrum(jordan(4), 1e-13, 2.0)[2].min() > 0.1  # defective: nothing is known


def test_nearly_equal_modes_are_judged_together():
    gap = 1e-11  # far below what eigenvectors stand, far above rounding
    A = np.array([[-1.0, gap], [gap, -1.0]])
    equal = judge_modes(A, np.ones((2, 1)), 1e-15, is_map=False, exact=None)
    assert equal.is_reached.count(False) == 1
    np.testing.assert_allclose(np.abs(equal.unreached[:, 0]), np.sqrt(0.5), rtol=1e-9)


def test_a_gain_along_a_chain_is_the_product_of_its_couplings():
    rates, coupling = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 1e-30
    A = -np.diag(rates) + coupling * np.eye(5, k=-1)
    values, vectors = np.linalg.eig(A.T)
    k = int(np.argmin(values))
    right = np.linalg.eig(A)[1][:, int(np.argmin(np.linalg.eig(A)[0]))]
    gain, change = precise_gain(A, driven(5, 0), complex(values[k]), vectors[:, k] + 0j, right + 0j)
    assert gain == pytest.approx(coupling**4 / 24, rel=1e-6)  # (5 - 1)(5 - 2)(5 - 3)(5 - 4)
    assert change < 100 * gain  # relative changes of entries change it by as much, no more


def test_a_null_vector_that_weights_cannot_change_has_no_gain_at_all():
    A = np.eye(5, k=1) + np.eye(5, k=-1)
    w = np.array([1.0, 0.0, -1.0, 0.0, 1.0]) / np.sqrt(3)
    gain, change = precise_gain(A, driven(5, 1), 1e-17, w + 0j, w + 0j)
    assert (gain, change) == (0.0, pytest.approx(0.0, abs=1e-60))
