import numpy as np
import pytest
import scipy.linalg

from clinode.dynamics.subspace import fit_autoregression, identify_subspace
from clinode.errors import ArgumentError

STEP = 0.01


def flow(seed: int, n: int, m: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A stable linear flow with n states, m inputs and k outputs."""
    draw = np.random.default_rng(seed)
    A = draw.normal(size=(n, n)) * 8 / np.sqrt(n)
    A -= (np.linalg.eigvals(A).real.max() + 5) * np.eye(n)
    return A, draw.normal(size=(n, m)), draw.normal(size=(k, n))


def sampled(A, B, C, seed: int, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and held inputs of four sessions of 600 points, by the exact discretization."""
    draw = np.random.default_rng(seed)
    n, m = B.shape
    joint = scipy.linalg.expm(np.block([[A, B], [np.zeros((m, n + m))]]) * STEP)
    u = np.repeat(draw.normal(0.3, 1, (4, 120, m)), 5, axis=1)
    x, y = np.zeros((4, n)), []
    for k in range(600):
        y.append(x @ C.T)
        x = x @ joint[:n, :n].T + u[:, k] @ joint[:n, n:].T
    y = np.stack(y, axis=1)
    return y + noise * y.std() * draw.normal(size=y.shape), u


def transfer(A, B, C, frequency: float) -> np.ndarray:
    return C @ np.linalg.solve(2j * np.pi * frequency * np.eye(len(A)) - A, B)


def apart(system, truth) -> float:
    own = tuple(matrix.numpy() for matrix in (system.A, system.B, system.C))
    errors = [
        np.linalg.norm(transfer(*own, f) - transfer(*truth, f))
        / np.linalg.norm(transfer(*truth, f))
        for f in (0.1, 1.0, 5.0)
    ]
    return float(max(errors))


@pytest.mark.parametrize("seed", range(3))
def test_a_subspace_fit_finds_hidden_states_without_noise(seed):
    truth = flow(seed, n=6, m=2, k=3)
    y, u = sampled(*truth, seed)
    fit = identify_subspace(y, u, STEP, n_states=6)
    assert apart(fit.system, truth) < 1e-2
    assert fit.n_dropped == 0
    found = np.sort_complex(np.linalg.eigvals(fit.system.A.numpy()))
    np.testing.assert_allclose(found, np.sort_complex(np.linalg.eigvals(truth[0])), rtol=0.05)


def test_a_subspace_fit_stands_a_little_noise():
    truth = flow(5, n=4, m=2, k=4)
    y, u = sampled(*truth, 5, noise=0.01)
    assert apart(identify_subspace(y, u, STEP, n_states=4).system, truth) < 0.1


def test_an_autoregression_is_exact_where_all_states_are_seen():
    truth = flow(7, n=3, m=2, k=3)
    y, u = sampled(*truth, 7)
    fit = fit_autoregression(y, u, STEP)
    assert apart(fit.system, truth) < 1e-8
    assert fit.error < 1e-12


def test_rest_without_input_is_found_though_the_recording_is_about_its_mean():
    truth = flow(8, n=3, m=2, k=3)
    y, u = sampled(*truth, 8)
    system = fit_autoregression(y + 4.0, u, STEP).system
    zero = np.zeros(2)
    x0, u0, y0 = (getattr(system, name).numpy() for name in ("x0", "u0", "y0"))
    x = x0 - np.linalg.solve(system.A.numpy(), system.B.numpy() @ (zero - u0))
    np.testing.assert_allclose(y0 + system.C.numpy() @ (x - x0), 4.0, atol=1e-6)


def test_a_mode_that_alternates_is_dropped_and_the_others_kept():
    draw = np.random.default_rng(0)
    A = np.array([[0.9, 0.2], [0.0, -0.5]])  # per step
    B = np.array([[1.0], [0.3]])
    u = draw.normal(size=(2, 400, 1))
    x, y = np.zeros((2, 2)), []
    for k in range(400):
        y.append(x)
        x = x @ A.T + u[:, k] @ B.T
    fit = fit_autoregression(np.stack(y, axis=1), u, STEP)
    assert fit.n_dropped == 1
    assert np.linalg.eigvals(fit.system.A.numpy()) == pytest.approx([np.log(0.9) / STEP])
    # the kept mode as the full one has it: its left eigenvector reads B, its right one is seen
    left = np.array([1.0, 0.2 / 1.4])
    gain = fit.system.C.numpy() @ np.linalg.solve(-fit.system.A.numpy(), fit.system.B.numpy())
    expected = np.array([1.0, 0.0]) * (left @ B[:, 0]) / 0.1
    np.testing.assert_allclose(gain[:, 0], expected, atol=1e-6)


def test_what_cannot_be_fitted_step_by_step_is_refused_in_words():
    y, u = sampled(*flow(0, n=3, m=2, k=3), 0)
    hole = y.copy()
    hole[0, 5, 1] = np.nan
    with pytest.raises(ArgumentError, match="every value of every session"):
        identify_subspace(hole, u, STEP, n_states=3)
    with pytest.raises(ArgumentError, match="tell 24 states apart"):
        identify_subspace(y, u, STEP, n_states=25)
    with pytest.raises(ArgumentError, match="sessions need 10 points"):
        identify_subspace(y[:, :5], u[:, :5], STEP, n_states=3)
    with pytest.raises(ArgumentError, match="do not fit"):
        fit_autoregression(y[:, :5], u, STEP)
