import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq, fsolve, nnls

from clinode.brain.circuits import (
    LateralInhibition,
    LateralInhibitionField,
    NoisyWongWang,
    RingAttractor,
    WinnerTakeAll,
    WongWang,
)
from clinode.dynamics.equilibria import find_equilibria
from clinode.errors import ArgumentError
from clinode.units import check_dimensions


def rates(system, u):
    u = torch.as_tensor(u, dtype=torch.float64).expand(system.n_inputs)
    return lambda x: system.vector_field(0.0, torch.tensor(x, dtype=torch.float64), u).numpy()


def jacobian(system, x, u):
    x = torch.as_tensor(x, dtype=torch.float64)
    u = torch.as_tensor(u, dtype=torch.float64).expand(system.n_inputs)
    return torch.func.jacrev(lambda x: system.vector_field(0.0, x, u))(x).numpy()


# Lateral inhibition


@pytest.mark.parametrize("seed", range(8))
def test_weak_inhibition_rests_where_its_complementarity_problem_is_solved(seed):
    rng = np.random.default_rng(seed)
    n, w = int(rng.integers(2, 51)), rng.uniform(0.05, 0.95)
    I = rng.uniform(0, 20, n)
    factor = np.linalg.cholesky((1 - w) * np.eye(n) + w)
    expected, _ = nnls(factor.T, scipy.linalg.solve_triangular(factor, I, lower=True))
    found = find_equilibria(LateralInhibition(n, w=w), u=torch.tensor(I), n_starts=16)
    assert found[0].is_stable
    np.testing.assert_allclose(found[0].state, expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_inhibition_of_equal_units_has_one_common_mode_and_many_of_difference(seed):
    rng = np.random.default_rng(seed)
    n, w, tau, I = int(rng.integers(2, 12)), rng.uniform(0, 3), rng.uniform(1, 50), 10.0
    rest = I / (1 + (n - 1) * w)
    system = LateralInhibition(n, w=w, tau=tau)
    np.testing.assert_allclose(rates(system, I)(np.full(n, rest)), 0, atol=1e-13)
    found = np.sort(np.linalg.eigvals(jacobian(system, np.full(n, rest), I)).real)
    expected = np.sort([-(1 + (n - 1) * w) / tau, *[(w - 1) / tau] * (n - 1)])
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize(("w", "n_stable"), [(1 - 1e-6, 1), (1 + 1e-6, 2)])
def test_two_units_share_below_an_inhibition_of_one_and_exclude_each_other_above(w, n_stable):
    found = find_equilibria(LateralInhibition(2, w=w), u=10.0)
    shared = next(one for one in found if abs(one.state[0] - one.state[1]) < 1e-7)
    assert shared.is_stable == (w < 1)
    assert sum(one.is_stable for one in found) == n_stable


@pytest.mark.parametrize("n", [2, 3, 5])
def test_each_of_n_units_can_win_under_strong_inhibition(n):
    found = find_equilibria(LateralInhibition(n, w=1.8), u=10.0, box={"r": (0.0, 12.0)})
    winners = sorted(one.state.round(decimals=9).tolist() for one in found if one.is_stable)
    winners.reverse()
    np.testing.assert_allclose(winners, 10 * np.eye(n), atol=1e-10)


@pytest.mark.slow
def test_the_time_until_the_loser_falls_silent_follows_from_the_unstable_mode():
    rng = np.random.default_rng(0)
    for _ in range(50):
        w, tau, I = rng.uniform(1.1, 4), rng.uniform(1, 50), rng.uniform(1, 50)
        shared, d0 = I / (1 + w), 10 ** rng.uniform(-6, -2) * I / (w * (1 + w))
        rate = rates(LateralInhibition(2, w=w, tau=tau), I)

        def silenced(t, x, w=w, I=I):
            return I - w * x[0]

        silenced.terminal = True  # pyright: ignore[reportFunctionMemberAccess]
        expected = tau / (w - 1) * np.log((I / w - shared) / d0)
        start = [shared + d0, shared - d0]
        found = solve_ivp(
            lambda t, x, rate=rate: rate(x), (0, 3 * expected), start,
            events=silenced, rtol=1e-9, atol=1e-12 * I,
        )  # fmt: skip
        np.testing.assert_allclose(found.t_events[0][0], expected, rtol=5e-3)


def test_a_silent_unit_has_no_gradient_and_no_nan():
    x = torch.tensor([10.0, 0.0]).double()
    found = jacobian(LateralInhibition(2, w=2.0, tau=10.0), x, 10.0)
    np.testing.assert_allclose(found, [[-0.1, -0.2], [0, -0.1]])


# Winner take all


@pytest.mark.parametrize("seed", range(6))
def test_a_winner_amplifies_its_input_and_is_the_only_kind_of_stable_rest(seed):
    rng = np.random.default_rng(seed)
    n, beta1, product = int(rng.integers(2, 5)), rng.uniform(1, 4), rng.uniform(0.4, 0.95)
    alpha = rng.uniform(1.02, min(2 * product**0.5, 1 + product) - 0.02)
    system = WinnerTakeAll(n, alpha=alpha, beta1=beta1, beta2=product / beta1)
    found = find_equilibria(system, u=5.0, n_starts=512)
    winners = sorted((one.state[:n].tolist() for one in found if one.is_stable), reverse=True)
    np.testing.assert_allclose(winners, 5 / (1 + product - alpha) * np.eye(n), atol=1e-8)


# Mach bands


@pytest.mark.parametrize("seed", range(5))
def test_the_field_rests_where_its_spectrum_says(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 90))
    system = LateralInhibitionField(n, A_e=rng.uniform(0, 0.9), A_i=rng.uniform(0.5, 3))
    u = torch.tensor(rng.uniform(0, 50, n))
    rest = system.steady_state(u)
    assert system.vector_field(0.0, rest, u).abs().max() < 1e-12
    assert np.linalg.eigvals(jacobian(system, rest, u)).real.max() < 0


def test_a_frequency_is_damped_by_the_transform_of_two_gaussians():
    n, spacing = 400, 0.05
    system = LateralInhibitionField(n, spacing, A_e=0.4, s_e=0.2, A_i=1.2, s_i=0.7)
    for cycles in (0, 1, 5, 12, 30):
        k = 2 * np.pi * cycles / (n * spacing)
        wave = np.cos(k * spacing * np.arange(n))
        gauss = [A * np.exp(-((k * s) ** 2) / 2) for A, s in ((1.2, 0.7), (0.4, 0.2))]
        rest = system.steady_state(torch.tensor(wave))
        np.testing.assert_allclose(rest, wave / (1 + gauss[0] - gauss[1]), atol=1e-7)


def test_an_edge_is_bounded_by_a_dark_and_a_bright_band():
    u = torch.full((128,), 10.0).double()
    u[64:] = 30.0
    rest = LateralInhibitionField(128).steady_state(u)
    assert rest[60:64].min() < rest[28:36].mean() - 0.5
    assert rest[64:68].max() > rest[92:100].mean() + 0.5


def test_excitation_that_outgrows_the_leak_has_no_rest():
    with pytest.raises(ArgumentError, match="no stable rest"):
        LateralInhibitionField(64, A_e=3.0, A_i=0.5).steady_state(torch.ones(64).double())


# Decision


KNOWN = {
    (0.0, 0.0): [
        (0.03189, 0.56699), (0.05579, 0.31384), (0.10265, 0.10265),
        (0.31384, 0.05579), (0.56699, 0.03189),
    ],
    (30.0, 0.0): [(0.05181, 0.65869), (0.42446, 0.42446), (0.65869, 0.05181)],
    (30.0, 100.0): [(0.70928, 0.02396)],
}  # fmt: skip


@pytest.mark.parametrize("drive", KNOWN)
def test_wong_wang_decides_between_its_known_equilibria(drive):
    found = find_equilibria(WongWang(), u=torch.tensor(drive).double())
    np.testing.assert_allclose(sorted(one.state.tolist() for one in found), KNOWN[drive], atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_wong_wang_equilibria_are_those_of_many_starts_of_scipy(seed):
    rng = np.random.default_rng(seed)
    u = torch.tensor([rng.uniform(0, 50), rng.uniform(-60, 60)])
    system = WongWang()
    rate = rates(system, u)
    known: list[np.ndarray] = []
    for start in rng.uniform(0, 1, (80, 2)):
        root, _, flag, _ = fsolve(rate, start, full_output=True, xtol=1e-13)
        is_new = all(np.abs(root - other).max() > 1e-6 for other in known)
        if flag == 1 and np.abs(rate(root)).max() < 1e-9 and is_new:
            known.append(root)
    found = find_equilibria(system, u=u)
    mine = sorted(one.state.tolist() for one in found)
    np.testing.assert_allclose(mine, sorted(root.tolist() for root in known), atol=1e-8)


def test_the_undecided_saddle_falls_apart_at_its_known_rates():
    saddle = find_equilibria(WongWang(), u=torch.tensor([30.0, 0.0]).double())[-1]
    np.testing.assert_allclose(saddle.eigenvalues.real, [4.347, -2.604], atol=5e-4)


def test_opposite_coherence_swaps_the_populations():
    x, u = torch.tensor([0.3, 0.1]).double(), torch.tensor([30.0, 12.0]).double()
    system = WongWang()
    swapped = system.vector_field(0.0, x.flip(-1), u * torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(swapped.flip(-1), system.vector_field(0.0, x, u))


def test_background_noise_is_an_ornstein_uhlenbeck_current():
    system, quiet = NoisyWongWang(), WongWang()
    x, u = torch.tensor([0.3, 0.1, 0.0, 0.0]).double(), torch.tensor([30.0, 12.0]).double()
    torch.testing.assert_close(system.vector_field(0, x, u)[:2], quiet.vector_field(0, x[:2], u))
    A, b = jacobian(system, x, u)[2:, 2:], system.noise(0, x, u)[2:].numpy()
    variance = scipy.linalg.solve_continuous_lyapunov(A, -np.diag(b**2))
    np.testing.assert_allclose(variance, 0.02**2 / 2 * np.eye(2), rtol=1e-12)


# Ring


def half_width(J1):
    return brentq(lambda h: h - np.sin(h) * np.cos(h) - 2 * np.pi / J1, 1e-6, np.pi - 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_bump_has_the_width_and_height_of_its_closed_form(seed):
    rng = np.random.default_rng(seed)
    J0, J1, I = rng.uniform(-6, -1), rng.uniform(3, 8), rng.uniform(5, 30)
    system = RingAttractor(2048, J0=J0, J1=J1)
    h = half_width(J1)
    # I + J0 r0 = -A cos h with r0 = A (sin h - h cos h) / pi
    A = -I / (np.cos(h) + J0 * (np.sin(h) - h * np.cos(h)) / np.pi)
    bump = A * (np.cos(system.angles.numpy() - 1.0) - np.cos(h))
    rate = rates(system, torch.cat([torch.tensor([I, 0.0]), torch.zeros(2048)]))(bump)
    assert A > 0
    assert np.abs(rate).max() * 0.01 < 1e-4 * A


def test_a_velocity_turns_the_bump_at_that_speed_without_bending_it():
    system = RingAttractor(1024)
    bump = 20 * (torch.cos(system.angles) - 0.0)
    u = torch.cat([torch.tensor([10.0, 0.0]), torch.zeros(1024)]).double()
    rest = bump
    for _ in range(400):
        rest = rest + 0.005 * system.vector_field(0.0, rest, u)
    u[1] = 3.0
    rate = system.vector_field(0.0, rest, u)
    h = 2 * torch.pi / 1024
    slope = (rest.roll(-1) - rest.roll(1)) / (2 * np.sin(h))  # exact for a cosine
    torch.testing.assert_close(rate, -3.0 * slope, rtol=0, atol=2e-3)


def test_the_heading_is_held_in_the_dark():
    system = RingAttractor(64)
    u = torch.cat([torch.tensor([10.0, 0.0]), torch.zeros(64)]).double()
    for angle in (-2.0, 0.4, 3.0):
        x = 5 * torch.cos(system.angles - angle)
        for _ in range(400):
            x = x + 0.005 * system.vector_field(0.0, x, u)
        turned = torch.remainder(system.heading(x) - angle + torch.pi, 2 * torch.pi) - torch.pi
        assert abs(float(turned)) < 2e-3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LateralInhibition(1), "at least 2 units are needed, got 1"),
        (lambda: RingAttractor(3), "at least 4 units are needed, got 3"),
        (lambda: LateralInhibitionField(2), "at least 3 positions"),
        (lambda: LateralInhibitionField(8, spacing=0.0), "spacing must be positive"),
    ],
)
def test_circuits_too_small_to_be_one_are_refused(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_a_batch_of_constants_gives_what_each_gives():
    x, u = torch.rand(3, 4).double(), torch.rand(3, 4).double()
    w = torch.tensor([[0.2], [0.9], [2.0]]).double()
    batch = LateralInhibition(4).with_constants(w=w).vector_field(0.0, x, u)
    each = [LateralInhibition(4, w=w[i]).vector_field(0.0, x[i], u[i]) for i in range(3)]
    torch.testing.assert_close(batch, torch.stack(each), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "system",
    [
        LateralInhibition(3),
        WinnerTakeAll(3),
        LateralInhibitionField(8),
        WongWang(),
        NoisyWongWang(),
        RingAttractor(8),
    ],
    ids=lambda system: type(system).__name__,
)
def test_units_agree(system):
    check_dimensions(system)
