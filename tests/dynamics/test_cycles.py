import json
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from clinode.dynamics.cycles import find_limit_cycle
from clinode.dynamics.equilibria import find_equilibria
from clinode.errors import ArgumentError, SolverError
from clinode.system import LinearSystem, Quantity, System, Values


class StuartLandau(System):
    """z' = (p + i w) z - (s + i b) z |z|^2: a cycle of radius sqrt p if s = 1."""

    states = (Quantity("x", "1", range=(-2.0, 2.0)), Quantity("y", "1", range=(-2.0, 2.0)))
    inputs = (Quantity("p", "1"),)
    constants = (Quantity("w", "1"), Quantity("b", "1"), Quantity("s", "1"))

    def __init__(self, w: Values = 3.0, b: Values = 0.7, s: Values = 1.0):
        super().__init__()
        self.register_constants(w=w, b=b, s=s)

    def vector_field(self, t, x, u):
        X, Y = self.split(x).values()
        square = X**2 + Y**2
        growth, turn = u - self.s * square, self.w - self.b * square
        return self.join(x=growth * X - turn * Y, y=turn * X + growth * Y)


class VanDerPol(System):
    states = (Quantity("x", "1", range=(-2.5, 2.5)), Quantity("v", "1", range=(-5.0, 5.0)))
    constants = (Quantity("mu", "1"),)

    def __init__(self, mu: Values = 1.0):
        super().__init__()
        self.register_constants(mu=mu)

    def vector_field(self, t, x, u):
        X, V = self.split(x).values()
        return self.join(x=V, v=self.mu * (1 - X**2) * V - X)


class Theta(System):
    """Ermentrout & Kopell 1986; fires at sqrt(I) / pi."""

    states = (Quantity("theta", "rad", range=(-math.pi, math.pi)),)
    inputs = (Quantity("I", "1"),)

    def vector_field(self, t, x, u):
        return 1 - torch.cos(x) + (1 + torch.cos(x)) * u


@pytest.mark.parametrize("seed", range(4))
def test_stuart_landau_cycle_matches_its_closed_form(seed):
    rng = np.random.default_rng(seed)
    w, b, p = rng.uniform(2, 6), rng.uniform(-1, 1), rng.uniform(0.2, 1.5)
    cycle = find_limit_cycle(StuartLandau(w, b), [0.9 * math.sqrt(p), 0.0], u=p)
    period = 2 * math.pi / (w - b * p)
    assert float(cycle.period) == pytest.approx(period, rel=1e-9)
    np.testing.assert_allclose(cycle.states.norm(dim=-1), math.sqrt(p), rtol=1e-7)
    np.testing.assert_allclose(cycle.multipliers, [1, math.exp(-2 * p * period)], atol=1e-7)
    assert cycle.is_stable


def test_a_repelling_cycle_is_found_near_a_guess_of_its_period():
    system = StuartLandau(w=3.0, b=0.0, s=-1.0)  # z' = (p + 3 i) z + z |z|^2 with p = -1
    with pytest.raises(SolverError, match="comes to rest"):
        find_limit_cycle(system, [0.9, 0.0], u=-1.0)
    cycle = find_limit_cycle(system, [0.99, 0.0], u=-1.0, period=2.0)
    assert float(cycle.period) == pytest.approx(2 * math.pi / 3, rel=1e-9)
    assert float(cycle.multipliers[1].real) == pytest.approx(math.exp(4 * math.pi / 3), rel=1e-7)
    assert not cycle.is_stable


@pytest.mark.parametrize(
    ("mu", "period"),  # Andersen & Geer 1982 and later tables
    [(0.1, 6.28711), (1.0, 6.6632868593), (5.0, 11.6122306676)],
)
def test_van_der_pol_has_its_tabulated_periods(mu, period):
    cycle = find_limit_cycle(VanDerPol(mu), [2.0, 0.0], period=None)
    assert float(cycle.period) == pytest.approx(period, rel=1e-6 if mu == 0.1 else 1e-9)


def test_van_der_pol_relaxes_as_its_asymptotics_say():
    mu, cycle = 60.0, find_limit_cycle(VanDerPol(5.0), [2.0, 0.0])
    for step in (7.0, 10.0, 15.0, 20.0, 30.0, 45.0, mu):
        cycle = find_limit_cycle(VanDerPol(step), cycle)
    # Dorodnicyn: (3 - 2 ln 2) mu + 7.01432 mu^(-1/3) - (2/3) ln(mu) / mu - 1.3246 / mu
    asymptotic = (3 - 2 * math.log(2)) * mu + 7.01432 * mu ** (-1 / 3)
    asymptotic += -2 / 3 * math.log(mu) / mu - 1.3246 / mu
    assert float(cycle.period) == pytest.approx(asymptotic, rel=3e-4)


def _morris_lecar_variational(g_Ca, V3, V4, phi, I):
    """Morris-Lecar and its linearization along a solution, written out by hand."""

    def rate(t, y):
        V, w = y[:2]
        s, r = math.tanh((V + 1.2) / 18), math.tanh((V - V3) / V4)
        m, dm, open_, dopen = (1 + s) / 2, (1 - s * s) / 36, (1 + r) / 2, (1 - r * r) / (2 * V4)
        turn, slope = math.cosh((V - V3) / (2 * V4)), math.sinh((V - V3) / (2 * V4)) / (2 * V4)
        ionic = 2 * (V + 60) + g_Ca * m * (V - 120) + 8 * w * (V + 84)
        own = -(2 + g_Ca * (m + dm * (V - 120)) + 8 * w) / 20
        J = np.array(
            [
                [own, -8 * (V + 84) / 20],
                [phi * (slope * (open_ - w) + turn * dopen), -phi * turn],
            ]
        )
        flow = [(I - ionic) / 20, phi * turn * (open_ - w)]
        return np.concatenate([flow, (J @ y[2:].reshape(2, 2)).ravel()])

    return rate


@pytest.mark.parametrize(
    ("constants", "I"),
    [((4.4, 2.0, 30.0, 0.04), 150.0), ((4.0, 12.0, 17.4, 1 / 15), 41.0),
     ((4.6, 4.0, 26.0, 0.05), 110.0)],
)  # fmt: skip
def test_periods_and_multipliers_match_an_integration_by_hand(published, constants, I):
    cycle = find_limit_cycle(published.MorrisLecar(*constants), [-30.0, 0.0], u=I)
    start = np.append(cycle.states[0].numpy(), np.eye(2).ravel())
    solved = solve_ivp(
        _morris_lecar_variational(*constants, I), (0, float(cycle.period)), start,
        method="DOP853", rtol=1e-12, atol=1e-13,
    )  # fmt: skip
    expected = np.sort(np.abs(np.linalg.eigvals(solved.y[2:, -1].reshape(2, 2))))
    # after one period the state is back to where the flow takes it in 1e-6 of a period
    speed = solved.y[:2, -1] - cycle.states[0].numpy()
    flow = _morris_lecar_variational(*constants, I)(0.0, start)[:2]
    assert abs(speed @ flow) / (flow @ flow) < 1e-6 * float(cycle.period)
    np.testing.assert_allclose(np.sort(np.abs(cycle.multipliers.numpy())), expected, atol=1e-6)
    assert abs(cycle.multipliers[0] - 1) < 1e-6


def test_a_rotating_angle_is_a_cycle_and_takes_the_place_of_equilibria():
    for I in (0.01, 0.25, 1.0):
        cycle = find_limit_cycle(Theta(), [0.0], u=I)
        assert 1 / float(cycle.period) == pytest.approx(math.sqrt(I) / math.pi, rel=1e-9)
        assert float(cycle.states[-1] - cycle.states[0]) == pytest.approx(2 * math.pi, rel=1e-12)
    found = find_equilibria(Theta(), u=0.25)
    assert len(found) == 0
    assert "a limit cycle of period 6.28319 is there" in found.verdict


def test_a_period_is_differentiable_by_constants_and_by_the_input():
    w, b, p = (
        torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (3.0, 0.7, 1.2)
    )
    cycle = find_limit_cycle(StuartLandau(w, b), [1.0, 0.0], u=p)
    slopes = torch.autograd.grad(cycle.period, [w, b, p])
    square = (3.0 - 0.7 * 1.2) ** 2 / (2 * math.pi)
    expected = [-1 / square, 1.2 / square, 0.7 / square]
    np.testing.assert_allclose([float(slope) for slope in slopes], expected, rtol=1e-8)


def test_a_cycle_can_be_asked_for_any_phase_and_comes_as_a_table():
    cycle = find_limit_cycle(StuartLandau(), [1.0, 0.0], u=1.0)
    np.testing.assert_allclose(cycle.at([0.25, 1.25, -0.75]).norm(dim=-1), 1.0, rtol=1e-8)
    torch.testing.assert_close(cycle.at(1.25), cycle.at(0.25))
    assert list(cycle.to_pandas().columns) == ["time (1)", "x (1)", "y (1)"]
    assert json.loads(json.dumps(cycle.to_dict()))["is_stable"] is True


def test_what_never_returns_is_refused_in_words():
    with pytest.raises(SolverError, match="comes to rest"):
        find_limit_cycle(StuartLandau(), [1.0, 0.0], u=-1.0)
    with pytest.raises(SolverError):
        find_limit_cycle(LinearSystem([[0.5]], [[0.0]], states=["x"]), [1.0])
    with pytest.raises(ArgumentError, match="expected \\(2,\\): a state"):
        find_limit_cycle(VanDerPol(), [1.0])
