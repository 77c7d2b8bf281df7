import math

import control
import mpmath
import numpy as np
import pytest
import torch

from clinode.control.gramian.gramian import controllability_gramian, observability_gramian
from clinode.errors import ArgumentError, SolverError

EYE = torch.eye


def system(kind, n=6, m=2, seed=0, members=()):
    """A random (A, B): stable directed, stable symmetric, or unstable."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(*members, n, n))
    if kind == "symmetric":
        A = A + np.swapaxes(A, -1, -2)
    if kind != "unstable":
        top = np.linalg.eigvals(A).real.max()
        A = A - (top + 0.3) * np.eye(n)
    return torch.tensor(A), torch.tensor(rng.normal(size=(n, m)))


def van_loan(A, B, horizon):
    """The block exponential over the whole horizon, in 80 digits."""
    n = len(A)
    block = np.block([[-A, B @ B.T], [np.zeros((n, n)), A.T]])
    with mpmath.workdps(80):
        E = mpmath.expm(mpmath.matrix(block.tolist()) * mpmath.mpf(horizon))
        W = E[n:, n:].T * E[:n, n:]
        return np.array(W.tolist(), dtype=float)


@pytest.mark.parametrize("horizon", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("rate", [-2.0, 0.0, 0.7])
def test_gramian_of_one_state_is_its_closed_form(horizon, rate):
    closed = 9 * (math.expm1(2 * rate * horizon) / (2 * rate) if rate else horizon)
    found = controllability_gramian([[rate]], [[3.0]], horizon)
    assert found.item() == pytest.approx(closed, rel=1e-14)


@pytest.mark.parametrize("horizon", [1e-3, 0.5, 2.0, 1e4])
def test_double_integrator_has_the_gramian_of_the_textbook(horizon):
    found = controllability_gramian([[0.0, 1.0], [0.0, 0.0]], [[0.0], [1.0]], horizon)
    T = horizon
    expected = torch.tensor([[T**3 / 3, T**2 / 2], [T**2 / 2, T]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
    target = torch.tensor([1.0, 0.0], dtype=torch.float64)
    energy = float(target @ torch.linalg.solve(expected, target))
    assert float(target @ torch.linalg.solve(found, target)) == pytest.approx(energy, rel=1e-9)
    assert energy == pytest.approx(12 / T**3, rel=1e-9)


@pytest.mark.parametrize("kind", ["stable", "symmetric", "unstable"])
@pytest.mark.parametrize("horizon", [0.05, 1.0, 4.0])
def test_finite_gramian_is_that_of_the_block_exponential(kind, horizon):
    A, B = system(kind, seed=3)
    found = controllability_gramian(A, B, horizon).numpy()
    expected = van_loan(A.numpy(), B.numpy(), horizon)
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize("kind", ["stable", "symmetric"])
def test_infinite_gramians_are_those_of_python_control(kind):
    A, B = system(kind, n=8, seed=5)
    C = B.T.contiguous()
    peer = control.ss(A.numpy(), B.numpy(), C.numpy(), 0)
    for found, letter in [
        (controllability_gramian(A, B, math.inf), "c"),
        (observability_gramian(A, C, math.inf), "o"),
    ]:
        expected = control.gram(peer, letter)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["stable", "symmetric"])
def test_infinite_gramians_of_maps_are_those_of_python_control(kind):
    A, B = system(kind, n=8, seed=6)
    A = 0.95 * A / torch.linalg.eigvals(A).abs().max()
    C = B.T.contiguous()
    peer = control.ss(A.numpy(), B.numpy(), C.numpy(), 0, 0.5)
    for found, letter in [
        (controllability_gramian(A, B, math.inf, step=0.5), "c"),
        (observability_gramian(A, C, math.inf, step=0.5), "o"),
    ]:
        expected = control.gram(peer, letter)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("n_steps", [1, 2, 3, 7, 12])
def test_gramian_of_a_map_sums_its_steps(n_steps):
    A, B = system("unstable", seed=n_steps)
    total, E = torch.zeros_like(A), EYE(6, dtype=A.dtype)
    for _ in range(n_steps):
        total = total + E @ B @ B.T @ E.T
        E = A @ E
    found = controllability_gramian(A, B, 0.1 * n_steps, step=0.1)
    torch.testing.assert_close(found, total, rtol=1e-12, atol=1e-12 * total.abs().max().item())


@pytest.mark.parametrize("kind", ["stable", "symmetric", "unstable"])
def test_finite_gramian_obeys_its_lyapunov_equation(kind):
    A, B = system(kind, seed=7)
    for T in (0.3, 2.0):
        W = controllability_gramian(A, B, T)
        reached = torch.linalg.matrix_exp(A * T) @ B
        left, right = A @ W + W @ A.T, reached @ reached.T - B @ B.T
        torch.testing.assert_close(left, right, rtol=0, atol=1e-11 * right.abs().max().item())


def test_a_long_horizon_ends_in_the_infinite_one():
    for kind in ("stable", "symmetric"):
        A, B = system(kind, seed=8)
        W = controllability_gramian(A, B, math.inf)
        for horizon in (200.0, 1e6, 1e300):
            long = controllability_gramian(A, B, horizon)
            torch.testing.assert_close(long, W, rtol=0, atol=1e-10 * W.abs().max().item())


def test_fast_and_slow_modes_keep_their_scales():
    # x1 leaves at 1e6 per unit, x2 at 1e-3, and x1 feeds x2: W22 by hand
    A, B = [[-1e6, 0.0], [1e3, -1e-3]], [[1.0], [0.0]]
    a, b, g = 1e6, 1e-3, 1e3
    W12 = g / (2 * a) / (a + b)
    expected = torch.tensor([[1 / (2 * a), W12], [W12, g * W12 / b]], dtype=torch.float64)
    found = controllability_gramian(A, B, math.inf)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    finite = controllability_gramian(A, B, 1e5)
    torch.testing.assert_close(finite, expected, rtol=1e-6, atol=0)


def sheared(n, strength, seed=0):
    """Stable by its eigenvalues, -1 all of them, and far from normal."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(n, n)))
    A = turn @ (np.triu(rng.normal(size=(n, n)), 1) * strength - np.eye(n)) @ turn.T
    return torch.tensor(A), torch.tensor(rng.normal(size=(n, 1)))


def by_many_digits(A, B):
    """The infinite-horizon Gramian by eigenvectors in 150 digits."""
    with mpmath.workdps(150):
        w, V = mpmath.eig(mpmath.matrix(A.tolist()))
        b = V**-1 * mpmath.matrix(B.tolist())
        n = len(A)
        G = mpmath.matrix(n, n)
        for j in range(n):
            for k in range(n):
                G[j, k] = -b[j] * mpmath.conj(b[k]) / (w[j] + mpmath.conj(w[k]))
        W = V * G * V.H
        return np.array([[float(W[j, k].real) for k in range(n)] for j in range(n)])


def right_or_refused(A, B, horizon, step=None):
    try:
        return controllability_gramian(A, B, horizon, step=step).numpy()
    except (SolverError, ArgumentError) as error:
        if not any(words in str(error) for words in ("far from normal", "has not a")):
            raise
        return None


@pytest.mark.parametrize("horizon", [60.0, math.inf])
@pytest.mark.parametrize(
    ("n", "strength"), [(6, 1.0), (6, 10.0), (12, 1.0), (12, 10.0), (6, 100.0), (6, 1e3)]
)
def test_far_from_normal_gramians_are_right_or_refused(n, strength, horizon):
    A, B = sheared(n, strength)
    found = right_or_refused(A, B, horizon)
    if found is None:
        assert strength > 1
        return
    expected = by_many_digits(A.numpy(), B.numpy())
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("horizon", [200.0, math.inf])
def test_far_from_normal_maps_are_right_or_refused(horizon):
    for strength in (0.1, 1.0, 10.0, 100.0):
        A, B = sheared(6, strength)
        A = (A + torch.eye(6, dtype=A.dtype)) + 0.3 * torch.eye(6, dtype=A.dtype)
        found = right_or_refused(A, B, horizon, step=1.0)
        if found is None:
            assert strength > 1
            continue
        with mpmath.workdps(100):
            M, x = mpmath.matrix(A.tolist()), mpmath.matrix(B.tolist())
            total = mpmath.matrix(6, 6)
            for _ in range(200):
                total += x * x.T
                x = M * x
            expected = np.array(total.tolist(), dtype=float)
        assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("step", [None, 1.0])
def test_a_mode_too_slow_beside_the_fastest_is_refused(step):
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
    for slowest in (1e-6, 1e-12):
        rates = 1 - np.array([1e-1, 1e-2, 1e-3, slowest]) if step else [-1e2, -1e1, -1.0, -slowest]
        A = turn @ np.diag(rates) @ turn.T
        A = (A + A.T) / 2
        if slowest == 1e-12:
            with pytest.raises(SolverError, match="slowest mode"):
                controllability_gramian(A, np.eye(4), math.inf, step=step)
            continue
        found = np.linalg.eigvalsh(controllability_gramian(A, np.eye(4), math.inf, step=step))
        values = np.array(rates)
        expected = np.sort(1 / (1 - values**2) if step else -1 / (2 * values))
        np.testing.assert_allclose(found[-1], expected[-1], rtol=1e-6)


def test_traces_are_dual():
    A, B = system("stable", seed=9)
    for T, step in [(1.5, None), (math.inf, None)]:
        one = torch.trace(controllability_gramian(A, B, T, step=step))
        M = observability_gramian(A, EYE(6), T, step=step)
        assert float(one) == pytest.approx(float(torch.trace(B.T @ M @ B)), rel=1e-12)


def test_gramians_turn_with_the_coordinates():
    A, B = system("stable", seed=10)
    T = torch.tensor(np.random.default_rng(0).normal(size=(6, 6)))
    W = controllability_gramian(A, B, 1.0)
    turned = controllability_gramian(T @ A @ torch.linalg.inv(T), T @ B, 1.0)
    torch.testing.assert_close(turned, T @ W @ T.T, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("horizon", [1.0, math.inf])
@pytest.mark.parametrize("step", [None, 1.0])
@pytest.mark.parametrize("kind", ["stable", "symmetric"])
def test_members_of_a_batch_are_what_they_are_alone(kind, step, horizon):
    A, B = system(kind, members=(2, 3), seed=11)
    if step is not None:
        A = 0.9 * A / torch.linalg.matrix_norm(A, 2)[..., None, None]
    W = controllability_gramian(A, B, horizon, step=step)
    assert W.shape == (2, 3, 6, 6)
    for i in range(2):
        for j in range(3):
            alone = controllability_gramian(A[i, j], B, horizon, step=step)
            torch.testing.assert_close(W[i, j], alone, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("kind", "horizon", "step"),
    [
        ("stable", 0.7, None),
        ("symmetric", 0.7, None),
        ("stable", math.inf, None),
        ("symmetric", math.inf, None),
        ("stable", 5.0, 1.0),
        ("stable", math.inf, 1.0),
    ],
)
def test_gradients_are_those_of_the_definition(kind, horizon, step):
    A, B = system(kind, n=4, seed=12)
    if step is not None:
        A = 0.8 * A / torch.linalg.matrix_norm(A, 2)
    inputs = (A.requires_grad_(), B.requires_grad_())

    def gramian(A, B):
        return controllability_gramian(A, B, horizon, step=step)

    assert torch.autograd.gradcheck(gramian, inputs)
    assert torch.autograd.gradgradcheck(gramian, inputs)


def test_without_inputs_nothing_is_reached():
    A, _ = system("stable")
    for horizon in (1.0, math.inf):
        assert not controllability_gramian(A, torch.zeros(6, 0), horizon).any()


def test_single_precision_is_answered_in_double():
    W = controllability_gramian(torch.tensor([[-1.0]]), torch.tensor([[1.0]]), math.inf)
    assert W.dtype == torch.float64
    assert W.item() == 0.5


def test_an_unstable_system_has_a_finite_horizon_only():
    A = torch.diag(torch.tensor([-1.0, 0.25]))
    with pytest.raises(ArgumentError, match=r"eigenvalue 0.25.*finite horizon"):
        controllability_gramian(A, EYE(2), math.inf)
    with pytest.raises(ArgumentError, match=r"eigenvalue 0.1[+-]2i"):
        controllability_gramian([[0.1, 2.0], [-2.0, 0.1]], EYE(2), math.inf)
    with pytest.raises(ArgumentError, match="modulus below 1"):
        controllability_gramian([[1.0]], [[1.0]], math.inf, step=1.0)
    with pytest.raises(ArgumentError, match="beyond rounding"):
        controllability_gramian([[-1.0, 0.0], [0.0, 1e-17]], EYE(2), math.inf)
    batch = torch.stack([-EYE(2), EYE(2)])
    with pytest.raises(ArgumentError, match=r"member \(1,\)"):
        controllability_gramian(batch, EYE(2), math.inf)
    assert controllability_gramian(A, EYE(2), 3.0).isfinite().all()


def test_a_horizon_that_overflows_is_refused_with_a_shorter_one():
    for A in ([[2.0]], [[2.0, 1.0], [0.0, -1.0]]):
        with pytest.raises(SolverError, match=r"exceeds 1e308.*below 150"):
            controllability_gramian(A, EYE(len(A)), 1e3)
        assert controllability_gramian(A, EYE(len(A)), 149.0).isfinite().all()
    with pytest.raises(SolverError, match="modulus 2"):
        controllability_gramian([[2.0]], [[1.0]], 1e4, step=1.0)


@pytest.mark.parametrize(
    ("A", "B", "horizon", "step", "words"),
    [
        ([[-1.0, 0.0]], [[1.0]], 1.0, None, "square"),
        ([[-1.0]], [[1.0], [1.0]], 1.0, None, "one for each state"),
        ([[math.nan]], [[1.0]], 1.0, None, "not finite"),
        ([-1.0], [[1.0]], 1.0, None, "expected a matrix"),
        ([[-1.0]], [[1.0]], 0.0, None, "horizon must be positive"),
        ([[-1.0]], [[1.0]], math.nan, None, "horizon must be positive"),
        ([[0.5]], [[1.0]], 1.0, 0.0, "step must be positive"),
        ([[0.5]], [[1.0]], 1.0, 0.3, "no whole number of steps"),
        (torch.tensor([[1j]]), [[1.0]], 1.0, None, "must be real"),
    ],
)
def test_what_is_no_question_is_refused(A, B, horizon, step, words):
    with pytest.raises(ArgumentError, match=words):
        controllability_gramian(A, B, horizon, step=step)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
@pytest.mark.parametrize("horizon", [1.0, math.inf])
@pytest.mark.parametrize("kind", ["stable", "symmetric"])
def test_gramians_on_a_gpu_are_those_on_the_cpu(kind, horizon):
    A, B = system(kind, n=20, seed=13)
    for step in (None, 1.0):
        scaled = A if step is None else 0.9 * A / torch.linalg.matrix_norm(A, 2)
        found = controllability_gramian(scaled.cuda(), B.cuda(), horizon, step=step)
        assert found.is_cuda
        expected = controllability_gramian(scaled, B, horizon, step=step)
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("B", [[["a"]], [[1.0], [1.0, 2.0]], [[None]]])
def test_gramians_are_of_matrices_of_numbers(B):
    with pytest.raises(ArgumentError, match="B must be"):
        controllability_gramian([[-1.0]], B, 1.0)
