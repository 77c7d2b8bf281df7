import math

import numpy as np
import pytest
from flint import fmpq

from clinode.control.energy.exact_span import reachable_span
from clinode.control.energy.transfers import output_transfers, state_transfers
from clinode.system import LinearSystem


def span_of(A, B, horizon=1.0, step=None, C=None):
    linear = LinearSystem(A, B, C, step=step)
    if C is not None:
        return reachable_span(output_transfers(linear, 0.0, 0.0, horizon))
    return reachable_span(state_transfers(linear, 0.0, 0.0, horizon))


def path(n):
    return np.eye(n, k=1) + np.eye(n, k=-1)


def ring(n):
    return path(n) + np.eye(n, k=n - 1) + np.eye(n, k=1 - n)


@pytest.mark.parametrize("n", [5, 8, 11])
def test_a_path_driven_at_a_node_misses_as_many_modes_as_their_common_divisor_says(n):
    for j in range(1, n + 1):
        span = span_of(path(n), np.eye(n)[:, j - 1 : j])
        assert span.is_proven
        assert span.rank == n - (math.gcd(j, n + 1) - 1)


@pytest.mark.parametrize("n", [5, 6, 9])
def test_a_ring_driven_at_one_node_moves_half_its_modes(n):
    span = span_of(ring(n), np.eye(n)[:, :1])
    assert span.rank == n // 2 + 1
    for d in range(1, n):
        pair = span_of(ring(n), np.eye(n)[:, [0, d]])
        assert (pair.rank == n) == all(2 * k * d % n for k in range(1, (n + 1) // 2))


def test_the_relations_of_a_mirror_are_that_its_sides_are_equal():
    A = np.array([[0.1, 0.2, 0.7], [0.2, 0.1, 0.7], [0.7, 0.7, 0.3]])
    span = span_of(A, np.eye(3)[:, 2:])
    assert (span.free, span.bound) == ([0, 2], [1])
    assert span.relations is not None
    assert span.relations.tolist() == [[fmpq(1), fmpq(0)]]
    np.testing.assert_allclose(span.distances(np.array([[1.0, 0.0, 9.0]])), [math.sqrt(0.5)])


def test_relations_between_any_two_float64_numbers_are_found():
    b = np.random.default_rng(0).normal(size=4)
    span = span_of(-np.eye(4), b[:, None])
    assert span.is_proven
    assert span.rank == 1
    assert span.relations is not None
    ratio = fmpq(*b[3].as_integer_ratio()) / fmpq(*b[0].as_integer_ratio())
    assert span.relations[2, 0] == ratio


def test_random_networks_are_proven_controllable_from_one_node():
    A = np.random.default_rng(1).random((60, 60))
    span = span_of(A + A.T, np.eye(60)[:, :1])
    assert span.rank == 60
    assert span.is_proven


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_map_reaches_one_more_dimension_a_step(steps):
    span = span_of(np.random.default_rng(2).normal(size=(5, 5)), np.eye(5)[:, :1], steps, 1.0)
    assert span.rank == steps
    assert span.is_proven


def test_outputs_that_repeat_each_other_are_bound_to_each_other():
    A = np.random.default_rng(3).normal(size=(4, 4))
    C = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [3, -2, 0, 0]])
    span = span_of(A, np.eye(4)[:, :1], C=C)
    assert (span.free, span.bound) == ([0, 1], [2])
    assert span.relations is not None
    assert span.relations.tolist() == [[fmpq(3), fmpq(-2)]]
