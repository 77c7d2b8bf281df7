import math

import numpy as np
import pytest
import torch
from scipy import sparse

from clinode.brain import simulate_connectome
from clinode.control.gramian.lanczos import Part, quadrature_bounds
from clinode.control.gramian.nodal import average_controllability
from clinode.control.gramian.normalization import linear_network
from clinode.control.gramian.sparse import (
    sparse_average_controllability,
    sparse_dynamics,
    spectrum_ends,
)
from clinode.errors import ArgumentError, SolverError


def network(n, *, directed=False, signed=False, seed=0, degree=8):
    rng = np.random.default_rng(seed)
    W = sparse.random_array((n, n), density=degree / n, rng=rng, data_sampler=rng.random)
    W = sparse.csr_array(W)
    W.setdiag(0)
    if signed:
        W.data *= rng.choice([-1.0, 1.0], W.nnz)
    return sparse.csr_array(W if directed else W + W.T)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("name", "horizon"),
    [("nctpy", 1.0), ("nctpy", 30.0), ("nctpy", math.inf), ("nctpy discrete", math.inf)],
)
def test_bounds_of_undirected_networks_hold_the_dense_values(name, horizon, signed):
    W = network(300, signed=signed)
    nodes = [0, 17, 299]
    found = sparse_average_controllability(W, nodes, name, horizon, tolerance=1e-9)
    dense = average_controllability(W.toarray(), name, horizon).values[nodes]
    slack = 1e-12 * dense
    assert (found.low <= dense + slack).all()
    assert (dense - slack <= found.high).all()
    assert (found.high - found.low <= 1e-9 * found.low).all()
    torch.testing.assert_close(found.values, dense, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["nctpy", "nctpy discrete"])
@pytest.mark.parametrize("directed", [False, True])
def test_finite_horizons_are_those_of_the_dense_matrix(name, directed):
    W = network(200, directed=directed, seed=1)
    found = sparse_average_controllability(W, [3, 50, 120], name, 4.0, c=0.5)
    dense = average_controllability(W.toarray(), name, 4.0, c=0.5).values[[3, 50, 120]]
    torch.testing.assert_close(found.values, dense, rtol=1e-10, atol=0)
    assert ((found.low <= dense * (1 + 1e-12)) & (dense * (1 - 1e-12) <= found.high)).all()


def test_an_unstable_network_has_finite_horizons():
    for directed in (False, True):
        A = network(60, directed=directed, seed=2)
        found = sparse_average_controllability(A, [5], "none", 0.5)
        dense = average_controllability(A.toarray(), "none", 0.5).values[[5]]
        torch.testing.assert_close(found.values, dense, rtol=1e-9, atol=0)
        with pytest.raises(ArgumentError, match="infinite horizon"):
            sparse_average_controllability(A, [5], "none", math.inf)


def test_values_that_rounding_makes_are_refused():
    # grows by 1e10 a step against its own sign, and never does: in the plane it starts in, A^2 = 0
    A = np.zeros((30, 30))
    A[:2, :2] = [[1e10, 1e10], [-1e10, -1e10]]
    assert sparse_average_controllability(A, [0], "none", 2.0, step=1.0).values.item() == (
        pytest.approx(1 + 2e20)
    )
    for given in ({"horizon": 20.0, "step": 1.0}, {"horizon": 1e-8}):
        with pytest.raises(SolverError, match=r"influences cancel|exceeds 1e308"):
            sparse_average_controllability(A, [0], "none", **given)


@pytest.mark.parametrize("name", ["nctpy", "nctpy discrete"])
def test_signed_directed_networks_are_those_of_the_dense_matrix(name):
    W = network(100, directed=True, signed=True, seed=5)
    found = sparse_average_controllability(W, [0, 60], name, 3.0)
    dense = average_controllability(W.toarray(), name, 3.0).values[[0, 60]]
    torch.testing.assert_close(found.values, dense, rtol=1e-10, atol=0)


@pytest.mark.slow
def test_every_region_of_two_thousand_is_bracketed():
    W = network(2000, seed=3, degree=12)
    found = sparse_average_controllability(W, range(0, 2000, 25), "nctpy discrete")
    dense = average_controllability(W.toarray(), "nctpy discrete").values[::25]
    torch.testing.assert_close(found.values, dense, rtol=1e-10, atol=0)


def test_isolated_regions_and_small_parts_are_exact():
    W = sparse.lil_array((40, 40))
    W[0, 1] = W[1, 0] = 1.0
    W[2, 3] = W[3, 2] = 0.5
    found = sparse_average_controllability(W, [0, 2, 39], "nctpy discrete")
    expected = [1 / (1 - 0.25), 1 / (1 - 0.0625), 1.0]
    np.testing.assert_allclose(found.values, expected, rtol=1e-13)
    assert sparse_average_controllability(sparse.csr_array((30, 30)), [4]).values.item() == (
        pytest.approx(-math.expm1(-2) / 2, rel=1e-13)
    )


def test_bounds_close_from_both_sides_as_the_recurrence_goes_on():
    n = 400
    A = sparse.diags_array([np.ones(n - 1), np.ones(n - 1)], offsets=[-1, 1]).tocsr() / 2.02
    truth = np.linalg.inv(np.eye(n) - A.toarray())[200, 200]
    widths = []
    for tolerance in (1e-1, 1e-3, 1e-6, 1e-10):
        low, high, steps = quadrature_bounds(
            A, np.array([200]), [Part(lambda x: 1 / (1 - x), 1 / 1.01)], tolerance=tolerance
        )
        assert low[0] <= truth <= high[0]
        widths.append((high[0] - low[0]) / low[0])
        assert steps < 200
    assert widths == sorted(widths, reverse=True)
    with pytest.raises(SolverError, match="after 12 steps"):
        quadrature_bounds(
            A,
            np.array([200]),
            [Part(lambda x: 1 / (1 - x), 1 / 1.01)],
            tolerance=1e-12,
            most_steps=12,
        )


def test_the_ends_of_a_spectrum_are_known():
    n = 200
    A = sparse.diags_array([np.ones(n - 1), np.ones(n - 1)], offsets=[-1, 1]).tocsr()
    low, high = spectrum_ends(A)
    top = 2 * math.cos(math.pi / (n + 1))
    assert (low, high) == pytest.approx((-top, top), rel=1e-7)
    assert low <= -top <= top <= high


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("name", ["nctpy", "nctpy discrete", "none"])
def test_sparse_dynamics_are_the_dense_ones(name, directed):
    W = network(50, directed=directed, signed=directed, seed=4)
    dense = linear_network(W.toarray(), name).A.numpy()
    np.testing.assert_allclose(sparse_dynamics(W, name).toarray(), dense, atol=1e-13)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_weights_come_in_every_form_and_keep_their_labels():
    connectome = simulate_connectome(40, seed=0)
    W = connectome.weights
    expected = average_controllability(connectome).values[[2, 30]]
    for form in (connectome, W, W.numpy(), W.to_sparse(), W.to_sparse_csr(), W.tolist()):
        found = sparse_average_controllability(form, [2, 30])
        torch.testing.assert_close(found.values, expected, rtol=1e-10, atol=0)
    named = sparse_average_controllability(connectome, [2, 30])
    assert list(named.to_pandas()["region"]) == [connectome.labels[2], connectome.labels[30]]
    assert named.to_dict()["nodes"] == [2, 30]
    assert "Gauss and Radau" in named.statement


@pytest.mark.parametrize(
    ("W", "nodes", "given", "words"),
    [
        (sparse.csr_array((2, 3)), [0], {}, "square"),
        (sparse.csr_array([[math.nan]]), [0], {}, "not finite"),
        (sparse.csr_array((3, 3)), [3], {}, "from 0 to 2"),
        (sparse.csr_array((3, 3)), [], {}, "one at least"),
        (
            sparse.eye_array(30).tocsr(),
            [0],
            {"normalization": "none", "horizon": math.inf},
            "stable",
        ),
        (network(30, directed=True), [0], {"horizon": math.inf}, "directed"),
        (network(30, directed=True), [0], {"horizon": 1e6}, "parts of the series"),
    ],
)
def test_what_is_no_question_is_refused(W, nodes, given, words):
    with pytest.raises(ArgumentError, match=words):
        sparse_average_controllability(W, nodes, **given)


def test_sums_over_more_steps_than_there_is_time_for_are_refused():
    with pytest.raises(ArgumentError, match="steps"):
        sparse_average_controllability(network(30), [0], "nctpy discrete", 1e9)


@pytest.mark.parametrize("directed", [False, True])
def test_weights_near_the_largest_float_answer_as_those_of_one(directed):
    W = network(30, directed=directed)
    W = W / W.max()
    small = sparse_average_controllability(W, [0, 1], c=1e-3).values
    large = sparse_average_controllability(W * 1e307, [0, 1], c=1e304).values
    torch.testing.assert_close(large, small, rtol=1e-8, atol=0.0)


def test_nothing_stands_for_no_weight():
    with pytest.raises(ArgumentError, match="real numbers"):
        sparse_average_controllability(np.array([[None, 1], [1, 0]]), [0])
