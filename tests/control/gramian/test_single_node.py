import math

import mpmath
import numpy as np
import pytest
import torch
from flint import fmpq_mat, fmpz

from clinode.control.gramian import single_node
from clinode.control.gramian.exact_dimension import reaches_all
from clinode.control.gramian.nodal import average_controllability
from clinode.control.gramian.single_node import single_node_gramians
from clinode.errors import ArgumentError


def undirected(n, seed=0):
    rng = np.random.default_rng(seed)
    W = np.triu(rng.lognormal(size=(n, n)) * (rng.random((n, n)) < 0.7), 1)
    return W + W.T


def path(n):
    return np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)


def ring(n):
    return np.roll(np.eye(n), 1, 1) + np.roll(np.eye(n), -1, 1)


def star(n):
    W = np.zeros((n, n))
    W[0, 1:] = W[1:, 0] = 1.0
    return W


def by_many_digits(W, node, *, is_map=False, digits=200):
    """log10 trace W_i^-1 and log det W_i by inversion of the Gramian itself."""
    n = len(W)
    with mpmath.workdps(digits):
        w, V = mpmath.eigsy(mpmath.matrix(W.tolist()))
        c = 1 + max(abs(value) for value in w)
        w = [value / c - (0 if is_map else 1) for value in w]
        G = mpmath.matrix(n, n)
        for j in range(n):
            for k in range(n):
                rate = 1 - w[j] * w[k] if is_map else -(w[j] + w[k])
                G[j, k] = V[node, j] * V[node, k] / rate
        inverse = G**-1
        trace = mpmath.fsum(inverse[k, k] for k in range(n))
        return float(mpmath.log10(trace)), float(mpmath.log(mpmath.det(G)))


@pytest.mark.parametrize("is_map", [False, True])
@pytest.mark.parametrize("n", [3, 5, 12])
def test_energies_are_those_of_the_inverted_gramian(n, is_map):
    W = undirected(n, seed=n) + np.diag(np.linspace(0, 0.3, n))
    found = single_node_gramians(W, "nctpy discrete" if is_map else "nctpy")
    assert found.verdicts == ("finite",) * n
    for node in (0, n - 1):
        trace, det = by_many_digits(W, node, is_map=is_map)
        assert found.log10_trace_inverse[node].item() == pytest.approx(trace, rel=1e-12)
        assert found.log_det[node].item() == pytest.approx(det, rel=1e-12)
        assert abs(found.log10_trace_inverse[node].item() - trace) <= found.error[node] + 1e-14


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_error_given_covers_the_error_made(seed):
    W = undirected(24, seed)
    found = single_node_gramians(W)
    for node in (0, 7, 23):
        made = abs(found.log10_trace_inverse[node].item() - by_many_digits(W, node)[0])
        assert made <= found.error[node] <= 1e-6


def test_a_cortical_network_costs_two_hundred_orders_of_magnitude(data_dir):
    path = data_dir / "connectomes" / "hcp_desikan68" / "connectome.npz"
    if not path.is_file():
        pytest.skip("no hcp_desikan68 in the data folder")
    found = single_node_gramians(np.load(path, allow_pickle=False)["weights"])
    expected = [205.743692, 205.296996, 204.519820, 205.285652]  # 400 digits
    np.testing.assert_allclose(found.log10_trace_inverse[[0, 10, 33, 67]], expected, atol=6e-7)
    assert set(found.verdicts) == {"finite"}
    assert found.error.max() < 1e-6


@pytest.mark.parametrize("n", [3, 5, 6, 9, 11])
def test_a_region_of_a_path_misses_the_modes_that_number_theory_says(n):
    found = single_node_gramians(path(n))
    missed = [math.gcd(j, n + 1) - 1 for j in range(1, n + 1)]
    assert [len(modes) for modes in found.doubts] == missed
    assert list(found.verdicts) == ["infinite" if count else "finite" for count in missed]
    for value, det, verdict in zip(
        found.log10_trace_inverse, found.log_det, found.verdicts, strict=True
    ):
        assert (value.isinf() and det == -math.inf) == (verdict == "infinite")


@pytest.mark.parametrize("n", [5, 6, 9])
@pytest.mark.parametrize("make", [ring, star, lambda n: np.ones((n, n)) - np.eye(n)])
def test_one_region_of_a_ring_a_star_or_a_clique_is_not_enough(make, n):
    found = single_node_gramians(make(n))
    assert found.verdicts == ("infinite",) * n
    assert found.log10_trace_inverse.isinf().all()


def test_no_region_steers_a_part_it_is_not_connected_to():
    W = np.zeros((7, 7))
    W[:3, :3], W[3:, 3:] = undirected(3, 1) + 1, undirected(4, 2) + 1
    assert single_node_gramians((W + W.T) / 2).verdicts == ("infinite",) * 7


def test_a_share_below_rounding_is_undecided_and_bounded_from_below():
    # two ends that differ in the last bit: the middle reaches their difference, barely
    W = path(3)
    W[2, 2] = 2.0**-54
    found = single_node_gramians(W)
    assert found.verdicts == ("finite", "undecided", "finite")
    assert found.log10_trace_inverse[1].isnan()
    assert found.error[1].isnan()
    truth = by_many_digits(W, 1)[0]
    assert truth - 7 < found.log10_at_least[1].item() <= truth
    assert found.to_dict()["log10_trace_inverse"][1] is None


def test_a_network_too_large_for_exact_arithmetic_stays_undecided(monkeypatch):
    monkeypatch.setattr(single_node, "MOST_EXACT", 5)
    found = single_node_gramians(ring(6))
    assert found.verdicts == ("undecided",) * 6
    assert (found.log10_at_least > 10).all()


def test_energies_follow_the_order_of_the_regions():
    W = undirected(15, seed=3)
    order = np.random.default_rng(0).permutation(15)
    one = single_node_gramians(W).log10_trace_inverse[order]
    other = single_node_gramians(W[np.ix_(order, order)]).log10_trace_inverse
    torch.testing.assert_close(other, one, rtol=1e-9, atol=0)


def test_no_region_is_easier_to_steer_from_than_the_mean_of_a_gramian_allows():
    # trace(W) trace(W^-1) >= n^2
    W = undirected(6, seed=4)
    inverse = 10 ** single_node_gramians(W).log10_trace_inverse
    trace = average_controllability(W, horizon=math.inf).values
    assert (trace * inverse >= 36).all()


def rank_of_krylov(W, node):
    """By exact rational elimination."""
    n = len(W)
    integers = fmpq_mat(n, n, [fmpz(int(value * 2**60)) for value in W.flatten()])
    column = fmpq_mat(n, 1, [int(k == node) for k in range(n)])
    columns = []
    for _ in range(n):
        columns += [column]
        column = integers * column
    matrix = fmpq_mat(n, n, [columns[j][i, 0] for i in range(n) for j in range(n)])
    return matrix.rank()


@pytest.mark.parametrize(
    "W",
    [path(5), path(6), ring(6), star(5), undirected(8), np.zeros((3, 3)), np.triu(np.ones((4, 4)))],
    ids=["path 5", "path 6", "ring", "star", "random", "none", "directed"],
)
def test_the_exact_verdict_is_that_of_rational_elimination(W):
    expected = [rank_of_krylov(W, node) == len(W) for node in range(len(W))]
    assert reaches_all(W, np.arange(len(W))).tolist() == expected


def test_weights_of_all_sizes_are_exact():
    W = path(4) * 2.0**-40
    W[0, 0] = 1e-300
    W[3, 3] = 1e300
    assert reaches_all(W, np.arange(4)).tolist() == [True] * 4
    W[0, 0] = W[3, 3]
    assert reaches_all(W, np.arange(4)).tolist() == [True] * 4
    assert reaches_all(path(5) * 1e-200, np.arange(5)).tolist() == [True, False, False, False, True]


def test_what_the_closed_form_does_not_hold_for_is_refused():
    with pytest.raises(ArgumentError, match="not symmetric"):
        single_node_gramians(np.triu(np.ones((3, 3))))
    with pytest.raises(ArgumentError, match="stable A"):
        single_node_gramians(path(3), "none")
    with pytest.raises(ArgumentError, match="modulus below 1"):
        single_node_gramians(path(3), "none", step=1.0)


def test_the_table_names_regions_and_verdicts():
    found = single_node_gramians(path(3), c=2.0)
    table = found.to_pandas()
    assert list(table["verdict"]) == ["finite", "infinite", "finite"]
    assert list(table["doubts"]) == [0, 1, 0]
    assert "infinite horizon" in found.statement
    assert "c = 2" in found.statement
    assert found.to_dict()["doubts"][1] == list(found.doubts[1])
