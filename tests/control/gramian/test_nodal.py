import math

import numpy as np
import pytest
import torch

from clinode.brain import Connectome
from clinode.control.gramian.gramian import controllability_gramian
from clinode.control.gramian.nodal import average_controllability, modal_controllability
from clinode.errors import ArgumentError, SolverError


def undirected(n=12, seed=0, density=0.6):
    rng = np.random.default_rng(seed)
    W = np.triu(rng.random((n, n)) * (rng.random((n, n)) < density), 1)
    return W + W.T


def directed(n=12, seed=0, density=0.5):
    rng = np.random.default_rng(seed)
    return rng.random((n, n)) * (rng.random((n, n)) < density) * (1 - np.eye(n))


def path(n):
    return np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)


def trace_by_region(A, horizon, step=None):
    """The definition: a Gramian for each region."""
    eye = torch.eye(len(A), dtype=torch.float64)
    columns = [eye[:, [i]] for i in range(len(A))]
    grams = [controllability_gramian(A, b, horizon, step=step) for b in columns]
    return torch.stack([torch.trace(W) for W in grams])


def arrays(data_dir, name, file="connectome.npz"):
    path = data_dir / "connectomes" / name / file
    if not path.is_file():
        pytest.skip(f"no {name} in the data folder")
    return np.load(path, allow_pickle=False)


@pytest.fixture(scope="session")
def nctpy(data_dir):
    return arrays(data_dir, "nctpy_fixtures", "fixtures.npz")


def test_values_are_those_of_nctpy(nctpy):
    for name, key in [("nctpy", "ac_c"), ("nctpy discrete", "ac_d")]:
        found = average_controllability(nctpy["A"], name).values
        np.testing.assert_allclose(found, nctpy[key], rtol=1e-9)
    given = average_controllability(nctpy["A_d_1"], "none", math.inf, step=1.0).values
    np.testing.assert_allclose(given, nctpy["ac_d"], rtol=1e-9)
    given = average_controllability(nctpy["A_c_1"], "none", 1.0).values
    np.testing.assert_allclose(given, nctpy["ac_c"], rtol=1e-9)


def test_directed_averages_are_those_of_nctpy_1_2_and_not_of_its_schur_form():
    np.random.seed(42)  # noqa: NPY002 - the published example
    A = np.random.rand(5, 5)  # noqa: NPY002
    expected = [1.08025104, 1.31106261, 1.45318469, 1.18821797, 1.14836708]
    other = [1.36255568, 1.26363317, 1.2750285, 1.12473883, 1.1551272]
    found = average_controllability(A, "nctpy discrete").values
    np.testing.assert_allclose(found, expected, atol=5e-9)
    found = average_controllability(A.T, "nctpy discrete").values
    np.testing.assert_allclose(found, other, atol=5e-9)


@pytest.mark.parametrize(
    ("name", "average", "modal"),
    [
        ("hcp_schaefer100", 0.888, -0.982),
        ("hcp_schaefer200", 0.770, -0.984),
        ("hcp_schaefer400", 0.725, -0.979),
    ],
)
def test_both_follow_the_strength_of_cortical_regions(data_dir, name, average, modal):
    W = arrays(data_dir, name)["weights"]
    for found, expected in [
        (average_controllability(W, "nctpy discrete"), average),
        (modal_controllability(W), modal),
    ]:
        correlation = np.corrcoef(W.sum(1), found.values.numpy())[0, 1]
        assert correlation == pytest.approx(expected, abs=6e-4)


def test_the_nerve_cells_of_a_worm_have_a_defective_eigenvalue_and_modal_values(data_dir):
    W = arrays(data_dir, "celegans279")["weights"]
    found = modal_controllability(W)
    A = W / (1 + np.abs(np.linalg.eigvals(W)).max())
    bound = (1 - np.abs(np.linalg.eigvals(A)) ** 2).sum()
    assert float(found.values.sum()) == pytest.approx(bound, rel=1e-6)
    assert "269 distinct eigenvalues" in found.statement


def test_path_of_three_has_its_published_values():
    found = average_controllability(path(3), "nctpy discrete").values
    np.testing.assert_allclose(found, [1.26120, 1.52240, 1.26120], atol=1e-5)


@pytest.mark.parametrize("W", [undirected(), directed()], ids=["undirected", "directed"])
@pytest.mark.parametrize("horizon", [0.3, 1.0, 7.0, math.inf])
def test_average_is_the_trace_of_the_gramian_of_one_region(W, horizon):
    l = np.abs(np.linalg.eigvals(W)).max()
    A = torch.tensor(W / (1 + l) - np.eye(len(W)))
    found = average_controllability(W, "nctpy", horizon).values
    torch.testing.assert_close(found, trace_by_region(A, horizon), rtol=1e-11, atol=0)
    if horizon == 0.3:
        return
    A = torch.tensor(W / (2 + l))
    found = average_controllability(W, "nctpy discrete", horizon, c=2.0).values
    torch.testing.assert_close(found, trace_by_region(A, horizon, 1.0), rtol=1e-11, atol=0)


def test_discrete_average_is_that_of_two_resolvents():
    W = undirected(40)
    A = W / (1 + np.abs(np.linalg.eigvalsh(W)).max())
    eye = np.eye(40)
    resolvents = np.diag(np.linalg.inv(eye - A) + np.linalg.inv(eye + A)) / 2
    found = average_controllability(W, "nctpy discrete").values
    np.testing.assert_allclose(found, resolvents, rtol=2e-13)


def test_finite_maps_count_their_steps_at_eigenvalues_of_modulus_one():
    W = np.array([[0.0, 1.0], [1.0, 0.0]])  # powers alternate: |A^k e_i| = 1
    found = average_controllability(W, "none", 3.5, step=0.5).values
    torch.testing.assert_close(found, torch.full((2,), 7.0, dtype=torch.float64))
    zero = average_controllability(np.zeros((2, 2)), "none", 3.0, step=1.0).values
    torch.testing.assert_close(zero, torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("make", [undirected, directed])
def test_another_order_of_regions_gives_the_same_numbers_in_that_order(make):
    W = make(seed=4)
    order = np.random.default_rng(1).permutation(len(W))
    shuffled = W[np.ix_(order, order)]
    for ask in (
        lambda w: average_controllability(w).values,
        lambda w: average_controllability(w, "nctpy discrete").values,
        lambda w: modal_controllability(w).values,
        lambda w: modal_controllability(w, "nctpy").values,
    ):
        np.testing.assert_allclose(ask(shuffled), ask(W)[order], rtol=1e-11)


def test_average_is_differentiable_in_the_weights():
    for W, name in [(undirected(6), "nctpy"), (directed(6), "nctpy discrete")]:
        weights = torch.tensor(W).requires_grad_()

        def values(weights, name=name):
            return average_controllability(weights, name).values

        assert torch.autograd.gradcheck(values, weights)


def test_modal_of_undirected_networks_is_the_sum_over_modes():
    W = undirected(20, seed=2)
    A = W / (1 + np.abs(np.linalg.eigvalsh(W)).max())
    w, V = np.linalg.eigh(A)
    found = modal_controllability(W).values
    np.testing.assert_allclose(found, V**2 @ (1 - w**2), rtol=2e-14)
    w = np.exp(2.0 * (w - 1))
    found = modal_controllability(W, "nctpy", horizon=2.0).values
    np.testing.assert_allclose(found, V**2 @ (1 - w**2), rtol=1e-13)


def test_modal_of_directed_networks_sums_left_eigenvectors():
    W = directed(9, seed=3)
    A = W / (1 + np.abs(np.linalg.eigvals(W)).max())
    w, U = np.linalg.eig(A.T)
    expected = np.abs(U) ** 2 @ (1 - np.abs(w) ** 2)
    np.testing.assert_allclose(modal_controllability(W).values, expected, rtol=1e-12)


def test_directed_modal_values_tend_to_the_undirected_ones():
    W = undirected(10, seed=5)
    almost = W.copy()
    almost[0, 1] += 1e-9
    np.testing.assert_allclose(
        modal_controllability(almost).values, modal_controllability(W).values, rtol=1e-6
    )


def test_repeated_left_eigenvectors_are_taken_as_a_space():
    # four regions listen to one and to nothing else: the eigenvalue 0 repeats, without a chain
    W = np.zeros((6, 6))
    W[:2, :2] = [[0.0, 1.0], [0.5, 0.0]]
    W[2:, 0] = 1.0
    A = W / (1 + np.sqrt(0.5))
    found = modal_controllability(W).values
    w, V = np.linalg.eig(A)
    left = np.linalg.inv(V).conj().T
    zero = np.abs(w) < 1e-12
    Q, _ = np.linalg.qr(left[:, zero])
    others = left[:, ~zero] / np.linalg.norm(left[:, ~zero], axis=0)
    expected = (np.abs(Q) ** 2).sum(1) + np.abs(others) ** 2 @ (1 - np.abs(w[~zero]) ** 2)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_modal_of_a_chain_one_way_is_that_of_one_defective_eigenvalue():
    # one group, the whole space: every region has 1
    found = modal_controllability(np.diag(np.ones(4), -1) * 0.5, "none").values
    np.testing.assert_allclose(found, 1.0, rtol=1e-12)


def test_modal_that_rounding_decides_is_refused():
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    A = turn @ (np.triu(rng.normal(size=(40, 40)), 1) + np.diag(np.linspace(0.1, 0.9, 40))) @ turn.T
    with pytest.raises(SolverError, match="undecided"):
        modal_controllability(A, "none")


def test_labels_of_a_connectome_are_kept_and_the_question_is_stated():
    connectome = Connectome(torch.tensor(undirected(3, density=1.0)), ("a", "b", "c"))
    found = average_controllability(connectome, horizon=2.0)
    table = found.to_pandas()
    assert list(table["region"]) == ["a", "b", "c"]
    assert list(table.columns) == ["region", "value"]
    assert found.to_dict()["values"] == found.values.tolist()
    for word in ("W / (c + l) - I", "continuous", "c = 1", "horizon 2"):
        assert word in found.statement
    assert "steps of 0.5" in average_controllability(np.zeros((2, 2)), "none", step=0.5).statement
    assert "left eigenvectors" in modal_controllability(directed()).statement


@pytest.mark.parametrize(
    ("W", "given", "words"),
    [
        (np.zeros((2, 3)), {}, "square"),
        ([[0.0, math.nan], [0.0, 0.0]], {}, "row 1, column 2"),
        (np.eye(2), {"normalization": "nctpi"}, "did you mean 'nctpy'"),
        (np.eye(2), {"c": 0.0}, "c must be positive"),
        (np.eye(2), {"step": 1.0}, "states its time by itself"),
        (np.eye(2), {"horizon": -1.0}, "horizon must be positive"),
        (np.eye(2), {"normalization": "none", "horizon": math.inf}, "the eigenvalue 1,"),
        (2 * np.eye(2), {"normalization": "none", "step": 1.0}, "modulus below 1"),
        (directed(), {"normalization": "none", "horizon": math.inf}, "finite horizon"),
        (np.eye(2), {"normalization": "nctpy discrete", "horizon": 2.5}, "whole number of steps"),
    ],
)
def test_what_is_no_question_is_refused(W, given, words):
    with pytest.raises(ArgumentError, match=words):
        average_controllability(W, **given)


def test_an_overflowing_horizon_and_an_unstable_map_are_refused():
    with pytest.raises(SolverError, match="exceeds 1e308"):
        average_controllability(np.eye(2), "none", 1e3)
    with pytest.raises(ArgumentError, match="modulus below 1"):
        modal_controllability(2 * undirected(), "none")
    with pytest.raises(ArgumentError, match="horizon must be positive"):
        modal_controllability(undirected(), "nctpy", horizon=math.inf)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
@pytest.mark.parametrize("make", [undirected, directed])
def test_values_on_a_gpu_are_those_on_the_cpu(make):
    W = torch.tensor(make())
    for ask in (average_controllability, modal_controllability):
        found = ask(W.cuda()).values
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), ask(W).values, rtol=1e-11, atol=0)


@pytest.mark.parametrize(
    "weights",
    [[[0.0, 1.0], [1.0]], [["a", "b"], ["c", "d"]], [[None, 1.0], [1.0, 0.0]], 1j * np.eye(2)],
)
def test_what_is_no_rectangle_of_real_numbers_is_no_network(weights):
    with pytest.raises(ArgumentError, match="weights must be"):
        average_controllability(weights)


def test_byte_order_and_sparse_storage_do_not_matter():
    W = undirected(6)
    values = average_controllability(W).values
    for same in (W.astype(">f8"), torch.from_numpy(W).to_sparse()):
        torch.testing.assert_close(average_controllability(same).values, values)


def test_over_very_many_steps_a_map_has_spread_all_it_can():
    W = undirected(6)
    whole = average_controllability(W, "nctpy discrete", math.inf).values
    torch.testing.assert_close(
        average_controllability(W, "nctpy discrete", 1e300).values, whole, rtol=1e-12, atol=0.0
    )
