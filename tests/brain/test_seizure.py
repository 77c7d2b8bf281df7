import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq, minimize_scalar
from torch.fx.experimental.proxy_tensor import make_fx

from clinode.brain.populations import JansenRit
from clinode.brain.seizure import Epileptor, Wendling
from clinode.dynamics import simulate
from clinode.dynamics.equilibria import find_equilibria
from clinode.units import check_dimensions


def jacobian(system, x, u):
    x, u = torch.as_tensor(x).double(), torch.as_tensor(u).double()
    return torch.func.jacrev(lambda x: system.vector_field(0.0, x, u))(x).numpy()


# Epileptor


def resting_state(x1, I1=3.1):
    """A state where x1 < 0, y1 and z rest, and the x0 that it needs."""
    y1 = 1 - 5 * x1**2
    z = y1 - x1**3 + 3 * x1**2 + I1
    return np.array([x1, y1, z, -1.0, 0.0, 100 * x1]), x1 - z / 4  # x2 acts on x1 only above 0


def leading(x1, tau0, I1):
    """Largest real part of the slow-fast eigenvalues of Epileptor, by its own derivatives."""
    x, x0 = resting_state(x1, I1)
    system = Epileptor(x0=x0, tau0=tau0, I1=I1)
    assert system.vector_field(0.0, torch.tensor(x), torch.zeros(1).double())[:3].abs().max() < 1e-9
    return np.linalg.eigvals(jacobian(system, x, [0.0])[:3, :3]).real.max()


def hurwitz(x1, tau0):
    """Zero where the pair of (x1, y1, z) is imaginary: c2 c1 - c0 of the characteristic cubic."""
    a = -(3 * x1**2 - 6 * x1)
    c2 = 1 - a + 1 / tau0
    c1 = -a + 10 * x1 + (1 - a) / tau0 + 4 / tau0
    c0 = (-a + 10 * x1) / tau0 + 4 / tau0
    return c2 * c1 - c0


def test_rest_is_lost_where_the_fast_nullcline_folds_and_near_it_by_a_hopf_point():
    def z(x1):
        return resting_state(x1)[0][2]

    fold = minimize_scalar(z, bounds=(-2, -0.8), method="bounded", options={"xatol": 1e-10}).x
    assert fold == pytest.approx(-4 / 3, abs=1e-6)
    assert resting_state(-4 / 3)[1] == pytest.approx(-2.062037, abs=5e-7)
    hopf = brentq(lambda x1: leading(x1, 2857.0, 3.1), -1.4, -1.3, xtol=1e-13)
    assert resting_state(hopf)[1] == pytest.approx(-2.0604585, abs=5e-8)


@pytest.mark.parametrize("seed", range(6))
def test_the_hopf_point_is_where_the_cubic_of_routh_and_hurwitz_says(seed):
    rng = np.random.default_rng(seed)
    tau0, I1 = 10 ** rng.uniform(2.5, 4), rng.uniform(2.5, 3.5)
    expected = brentq(hurwitz, -1.4, -1.3, args=(tau0,), xtol=1e-14)
    found = brentq(lambda x1: leading(x1, tau0, I1), -1.4, -1.3, xtol=1e-13)
    assert found == pytest.approx(expected, abs=1e-9)
    assert resting_state(found, I1)[1] - resting_state(-4 / 3, I1)[1] < 10 / tau0


def test_a_calm_brain_rests_and_an_epileptogenic_one_does_not():
    calm = find_equilibria(Epileptor(x0=-2.2))
    assert any(one.is_stable for one in calm)
    assert not any(one.is_stable for one in find_equilibria(Epileptor(x0=-1.6)))


def test_the_field_is_continuous_and_has_finite_gradients_at_its_kinks():
    system, u = Epileptor(), torch.zeros(1).double()
    for place in (0, 3):
        x = system.initial_state()
        x[place] = {0: 0.0, 3: -0.25}[place]
        step = torch.zeros(6).double()
        step[place] = 1e-12
        change = system.vector_field(0.0, x + step, u) - system.vector_field(0.0, x - step, u)
        assert change.abs().max() < 1e-9
        assert np.isfinite(jacobian(system, x, u)).all()


@pytest.mark.slow
def test_a_seizure_starts_at_the_fold_and_stops_by_itself():
    system, u = Epileptor(), torch.zeros(1).double()
    start = system.initial_state()
    start[2] = 2.95
    rate = make_fx(lambda x: system.vector_field(0.0, x, u))(start)  # without checks of signatures
    found = solve_ivp(
        lambda t, x: rate(torch.from_numpy(x)).numpy(), (0, 1250), start.numpy(), rtol=1e-4,
        max_step=0.5,
    )  # fmt: skip
    x1, z = found.y[0], found.y[2]
    ictal = np.flatnonzero(x1 > -0.5)
    onset, offset = ictal[0], ictal[-1]
    assert 2.80 < z[onset] < 2.9149  # the fold of the fast nullcline, passed with a delay
    assert z[offset] > 4.0
    assert x1[offset + 1 :].max() < -0.5
    assert found.t[offset] < 1200
    assert np.count_nonzero(np.diff(np.sign(x1[onset:offset] - 0.5)) > 0) > 20  # discharges


# Wendling


def sigmoid(v):
    return 5 / (1 + np.exp(0.56 * (6 - v)))


def wendling_rest(y, A, B, G, C=135.0):
    """The equilibrium with EEG y and the p that it needs, in closed form."""
    y0 = A / 100 * sigmoid(y)
    slow = sigmoid(0.25 * C * y0)
    y4 = B / 50 * slow
    y2 = B / 50 * 0.25 * C * slow
    y3 = G / 500 * 0.8 * C * sigmoid(0.3 * C * y0 - 0.1 * C * y4)
    y1 = y + y2 + y3
    return np.array([y0, y1, y2, y3, y4, *[0] * 5]), 100 / A * y1 - 0.8 * C * sigmoid(C * y0)


def test_without_fast_inhibition_it_is_the_column_of_jansen_and_rit():
    rng = np.random.default_rng(0)
    system, column = Wendling(G=0.0), JansenRit()
    for _ in range(20):
        y, p = torch.tensor(rng.normal(size=6)), torch.tensor(rng.uniform(0, 300, 1))
        y4, y9 = torch.tensor(rng.normal(size=2))
        zero = torch.zeros(()).double()
        x = torch.stack([*y[:3], zero, y4, *y[3:], zero, y9])
        rate = system.vector_field(0.0, x, p)
        torch.testing.assert_close(rate[[0, 1, 2, 5, 6, 7]], column.vector_field(0.0, y, p))
        assert float(rate[3]) == float(rate[8]) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_wendling_rests_where_its_explicit_input_says(seed):
    rng = np.random.default_rng(seed)
    A, B, G = rng.uniform(3, 7), rng.uniform(5, 50), rng.uniform(0, 25)
    x, p = wendling_rest(rng.uniform(0, 9), A, B, G)
    found = find_equilibria(Wendling(A=A, B=B, G=G), u=p, n_starts=512)
    grid = np.linspace(-60, 60, 60_001)
    values = np.array([wendling_rest(y, A, B, G)[1] for y in grid]) - p
    assert len(found) == np.count_nonzero(np.diff(np.sign(values)))
    assert min(np.abs(one.state.numpy() - x).max() for one in found) < 1e-6


@pytest.mark.slow
def test_less_slow_inhibition_turns_spikes_into_a_faster_rhythm_and_then_quiet():
    spiking, sinusoidal = Wendling(A=5.0, B=25.0, G=15.0), Wendling(A=5.0, B=15.0, G=0.0)
    start = torch.zeros(10).double()
    times = torch.linspace(0, 3, 601).double()

    def frequency(column):
        eeg = (
            simulate(column, start, times, 90.0, method="rk4", step=0.005).outputs[201:, 0].numpy()
        )
        upward = np.flatnonzero(np.diff(np.sign(eeg - eeg.mean())) > 0)
        return (len(upward) - 1) / (0.005 * (upward[-1] - upward[0]))

    assert 2 < frequency(spiking) < 8 < frequency(sinusoidal) < 14
    for A, B, G in ((5.0, 10.0, 15.0), (5.0, 5.0, 25.0)):
        (rest,) = find_equilibria(Wendling(A=A, B=B, G=G), u=90.0)
        assert rest.is_stable


def test_units_agree():
    check_dimensions(Epileptor())
    check_dimensions(Wendling())
