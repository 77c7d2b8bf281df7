import itertools

import numpy as np
import pytest

from clinode.control.controllability.symmetry import cell_basis, find_symmetry, holds_exactly


def driven(n, *nodes):
    return np.eye(n)[:, list(nodes)]


def petersen():
    A = np.zeros((10, 10))
    for i in range(5):
        for a, b in ((i, (i + 1) % 5), (i, i + 5), (5 + i, 5 + (i + 2) % 5)):
            A[a, b] = A[b, a] = 1.0
    return A


def orbits_by_trying_all(A, B):
    """Classes of states under every permutation that keeps A and B."""
    n = len(A)
    label = list(range(n))
    for permutation in itertools.permutations(range(n)):
        if holds_exactly(np.array(permutation), A, B):
            for i, j in enumerate(permutation):
                a, b = label[i], label[j]
                label = [min(a, b) if x in (a, b) else x for x in label]
    return label


def same_classes(one, other):
    return len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))


@pytest.mark.parametrize("seed", range(12))
def test_orbits_are_those_that_all_permutations_make(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 7))
    A = rng.integers(0, 2, size=(n, n)).astype(float)
    A = A if seed % 2 else np.triu(A) + np.triu(A, 1).T
    B = driven(n, 0)
    found = find_symmetry(A, B, 1e-12)
    assert same_classes(found.orbits.tolist(), orbits_by_trying_all(A, B))
    assert all(holds_exactly(p, A, B) for p in found.permutations)


def test_the_petersen_graph_has_as_many_cells_as_distances():
    found = find_symmetry(petersen(), driven(10, 0), 1e-12)
    assert (found.cells.max() + 1, found.orbits.max() + 1) == (3, 3)
    everywhere = find_symmetry(petersen(), np.ones((10, 1)), 1e-12)
    assert everywhere.orbits.max() == 0


def test_cells_may_be_equitable_where_no_permutation_is_a_symmetry():
    A = np.array([[-1.0, 0.5, 1.0], [0.25, -0.75, 1.0], [0.0, 0.0, -1.0]])
    found = find_symmetry(A, driven(3, 2), 1e-12)
    assert found.cells.tolist() == [0, 0, 1] or found.cells.tolist() == [1, 1, 0]
    assert found.is_exact
    assert found.permutations == ()


def test_what_is_constant_on_cells_stays_so():
    A = petersen()
    found = find_symmetry(A, driven(10, 0), 1e-12)
    even, odd = cell_basis(found.cells)
    basis = np.concatenate([even, odd], axis=1)
    np.testing.assert_allclose(basis.T @ basis, np.eye(10), atol=1e-14)
    np.testing.assert_allclose(odd.T @ A @ even, 0.0, atol=1e-14)


def test_a_difference_within_the_tolerance_is_found_and_said_to_be_inexact():
    A = np.array([[-1.0, 0.3, 1.0], [0.3, -1.0, 1.0 + 1e-14], [1.0, 1.0, -2.0]])
    found = find_symmetry(A, driven(3, 2), 1e-12)
    assert not found.is_exact
    assert found.permutations[0].tolist() == [1, 0, 2]
    assert find_symmetry(A, driven(3, 2), 1e-15).permutations == ()


def test_weights_with_equal_sums_are_told_apart():
    A = np.zeros((6, 6))
    A[0, 2:6], A[1, 2:6] = [1.0, 4.0, 2.0, 3.0], [2.0, 3.0, 2.5, 2.5]
    A[2:, :2] = 1.0
    found = find_symmetry(A, np.zeros((6, 0)), 1e-12)
    assert found.orbits[0] != found.orbits[1]
    assert found.cells[0] == found.cells[1]
