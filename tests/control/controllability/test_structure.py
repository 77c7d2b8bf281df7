import numpy as np
import pytest

from clinode.control.controllability.exact_rank import (
    exact_dimension,
    generic_dimension,
    has_few_bits,
)
from clinode.control.controllability.structure import (
    find_dilations,
    reachable,
    structural_controllability,
)
from clinode.errors import ArgumentError
from clinode.system import LinearSystem


def driven(n, *nodes):
    return np.eye(n)[:, list(nodes)]


def test_paths_are_followed_in_their_direction():
    A = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0]], dtype=bool)
    assert reachable(A, driven(3, 0) > 0).tolist() == [True, True, False]
    assert reachable(A, driven(3, 1) > 0).tolist() == [False, True, False]


@pytest.mark.parametrize("seed", range(20))
def test_a_dilation_is_there_exactly_where_rows_cannot_be_matched(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 7))
    A, B = rng.uniform(size=(n, n)) < 0.3, rng.uniform(size=(n, 1)) < 0.5
    generic = np.concatenate([A * rng.normal(size=(n, n)), B * rng.normal(size=(n, 1))], axis=1)
    found = find_dilations(A, B)
    lost = sum(len(d.states) - len(d.sources) - len(d.inputs) for d in found)
    assert (lost > 0) == (np.linalg.matrix_rank(generic) < n)
    for one in found:
        drivers = np.flatnonzero(np.concatenate([A, B], axis=1)[list(one.states)].any(axis=0))
        assert sorted(one.sources) + [n + j for j in one.inputs] == drivers.tolist()
        assert len(one.states) > len(drivers)


def test_a_star_of_integrators_needs_an_input_for_all_leaves_but_one():
    A = np.zeros((5, 5))
    A[1:, 0] = 1.0
    found = structural_controllability(LinearSystem(A, driven(5, 0)))
    assert (found.dimension, found.n_drivers) == (2, 4)
    assert found.dilations == ((("x2", "x3", "x4", "x5"), ("x1",)),)
    leaky = structural_controllability(LinearSystem(A - np.eye(5), driven(5, 0)))
    assert leaky.is_controllable
    assert leaky.dilations == ()


def test_states_without_a_path_are_named():
    found = structural_controllability(
        LinearSystem(np.diag([-1.0, -2.0]), [[1.0], [0.0]], states=["a", "b"])
    )
    assert found.unreachable == ("b",)
    assert found.to_dict()["dimension"] == 1


@pytest.mark.parametrize("seed", range(10))
def test_the_generic_dimension_is_that_of_random_weights(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    A, B = rng.uniform(size=(n, n)) < 0.3, rng.uniform(size=(n, 1)) < 0.5
    weighted = exact_dimension(A * rng.normal(size=A.shape), B * rng.normal(size=B.shape), n)
    assert generic_dimension(A, B) == weighted


def test_exact_dimensions_do_not_depend_on_rounding():
    n = 30  # numbers from 1e-130 to 1e130, whose floating rank is a handful
    scale = 10.0 ** np.linspace(-4, 4, n)
    A = np.diag(scale) + np.eye(n, k=-1) * 1e-9
    assert exact_dimension(A, driven(n, 0), n) == n
    assert exact_dimension(A, driven(n, 7), n) == n - 7
    B = driven(n, 0)
    assert (
        np.linalg.matrix_rank(np.hstack([np.linalg.matrix_power(A, k) @ B for k in range(n)])) < 10
    )


def test_written_numbers_are_told_from_computed_ones():
    assert has_few_bits(np.array([[1.0, -0.5], [3.0, 2.0**-40]]))
    assert not has_few_bits(np.array([[0.1]]))


def test_batches_are_refused():
    with pytest.raises(ArgumentError, match="batch axes"):
        structural_controllability(LinearSystem(np.zeros((2, 2, 2)), np.zeros((2, 1))))
