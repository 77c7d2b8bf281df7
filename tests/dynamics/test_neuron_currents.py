"""Folds and Hopf points of neurons drawn at random, against closed forms and scans of I(V)."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from clinode.dynamics.continuation import continue_equilibria
from clinode.dynamics.equilibria import equilibrium_at
from clinode.dynamics.field import Field
from clinode.system import Quantity, System, Values


class Izhikevich(System):
    """v' = 0.04 v^2 + 5 v + 140 - u + I, u' = a (b v - u), without its reset."""

    states = (Quantity("v", "1", range=(-90.0, 0.0)), Quantity("w", "1", range=(-30.0, 10.0)))
    inputs = (Quantity("I", "1"),)
    constants = (Quantity("a", "1"), Quantity("b", "1"))

    def __init__(self, a: Values, b: Values):
        super().__init__()
        self.register_constants(a=a, b=b)

    def vector_field(self, t, x, u):
        v, w = self.split(x).values()
        return self.join(v=0.04 * v**2 + 5 * v + 140 - w + u, w=self.a * (self.b * v - w))


class AdEx(System):
    """C V' = -g (V - E) + g D exp((V - T) / D) - w + I, tau w' = a (V - E) - w, without reset."""

    time_unit = "ms"
    states = (Quantity("V", "mV", range=(-90.0, -30.0)), Quantity("w", "pA", range=(-200.0, 600.0)))
    inputs = (Quantity("I", "pA"),)
    constants = tuple(
        Quantity(name, unit)
        for name, unit in {"C": "pF", "g": "nS", "E": "mV", "T": "mV", "D": "mV", "a": "nS",
                           "tau": "ms"}.items()
    )  # fmt: skip

    def __init__(self, C: Values, g: Values, E: Values, T: Values, D: Values, a: Values,
                 tau: Values):  # fmt: skip
        super().__init__()
        self.register_constants(C=C, g=g, E=E, T=T, D=D, a=a, tau=tau)

    def vector_field(self, t, x, u):
        V, w = self.split(x).values()
        rise = self.g * self.D * torch.exp((V - self.T) / self.D)
        return self.join(
            V=(-self.g * (V - self.E) + rise - w + u) / self.C,
            w=(self.a * (V - self.E) - w) / self.tau,
        )


def from_rest(system, I, x):
    """The branch's start at an equilibrium known to hand."""
    return equilibrium_at(Field(system, I), np.array(x))


def currents(branch, kind):
    return sorted(float(point.value) for point in branch.points if point.kind == kind)


def izhikevich_currents(a, b):
    v = (a - 5) / 0.08
    hopf = [(b - 5) * v - 0.04 * v * v - 140] if b > a else []
    return [(5 - b) ** 2 / 0.16 - 140], hopf


def adex_currents(C, g, E, T, D, a, tau):
    """Touboul & Brette 2008, Biol Cybern 99:319."""
    fold = (g + a) * (T - E - D + D * math.log(1 + a / g))
    ratio = C / g / tau
    hopf = (g + a) * (T - E - D + D * math.log(1 + ratio)) + D * g * (a / g - ratio)
    return [fold], [hopf] if a / g > ratio else []


def fitzhugh_nagumo_currents(a, b, tau):
    def current(v):
        return (v + a) / b - v + v**3 / 3

    fold = math.sqrt(1 - 1 / b) if b > 1 else None
    hopf = math.sqrt(1 - b / tau) if b < tau and b * b < tau else None
    return tuple([] if v is None else sorted([current(-v), current(v)]) for v in (fold, hopf))


def random_izhikevich(rng):
    a, b = rng.uniform(0.01, 0.2), rng.uniform(0.05, 0.3)
    folds, hopfs = izhikevich_currents(a, b)
    low = folds[0] - 10
    v = ((b - 5) - math.sqrt((5 - b) ** 2 - 0.16 * (140 + low))) / 0.08
    system = Izhikevich(a, b)
    start = from_rest(system, low, [v, b * v])
    return system, start, (low - 1, folds[0] + 5), folds, hopfs


def random_adex(rng):
    C, g, E, T = (
        rng.uniform(100, 300),
        rng.uniform(5, 30),
        rng.uniform(-75, -60),
        rng.uniform(-52, -45),
    )
    D, a, tau = rng.uniform(1, 4), rng.uniform(0.5, 12), rng.uniform(5, 200)
    folds, hopfs = adex_currents(C, g, E, T, D, a, tau)
    low = folds[0] - (g + a) * 8
    V = brentq(lambda V: (g + a) * (V - E) - g * D * math.exp((V - T) / D) - low, E - 50,
               T + D * math.log(1 + a / g))  # fmt: skip
    system = AdEx(C, g, E, T, D, a, tau)
    start = from_rest(system, low, [V, a * (V - E)])
    return system, start, (low - 10, folds[0] + 50), folds, hopfs


def random_fitzhugh_nagumo(rng, cls):
    a, b, tau = rng.uniform(0.3, 0.9), rng.uniform(0.3, 1.8), rng.uniform(0.2, 6)
    folds, hopfs = fitzhugh_nagumo_currents(a, b, tau)
    low = (-2.2 + a) / b + 2.2 - 2.2**3 / 3
    system = cls(a, b, tau)
    start = from_rest(system, low, [-2.2, (-2.2 + a) / b])
    return system, start, (low - 0.5, (2.2 + a) / b - 2.2 + 2.2**3 / 3), folds, hopfs


def draw(name, rng, published):
    if name == "fitzhugh-nagumo":
        return random_fitzhugh_nagumo(rng, published.FitzHughNagumo)
    return {"izhikevich": random_izhikevich, "adex": random_adex}[name](rng)


def check_closed_forms(name, published, seeds):
    n_without = 0
    for seed in seeds:
        system, start, span, folds, hopfs = draw(name, np.random.default_rng(seed), published)
        branch = continue_equilibria(system, "I", span, start=start)
        n_without += not hopfs
        assert currents(branch, "fold") == pytest.approx(folds, rel=1e-7), seed
        assert currents(branch, "hopf") == pytest.approx(hopfs, rel=1e-7), seed
    return n_without


NEURONS = ("izhikevich", "adex", "fitzhugh-nagumo")


@pytest.mark.parametrize("name", NEURONS)
def test_onset_currents_match_their_closed_forms(published, name):
    check_closed_forms(name, published, range(5))


@pytest.mark.slow
@pytest.mark.parametrize("name", NEURONS)
def test_many_onset_currents_match_their_closed_forms_and_no_hopf_is_made_up(published, name):
    n_without = check_closed_forms(name, published, range(100, 170))
    assert n_without >= 5


def test_fold_currents_are_differentiable_by_every_constant():
    rng = np.random.default_rng(4)
    for _ in range(3):
        values = [rng.uniform(*side) for side in ((100, 300), (5, 30), (-75, -60), (-52, -45),
                                                  (1, 4), (0.5, 12), (5, 200))]  # fmt: skip
        live = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in values]
        _, g, E, T, D, a, _ = live
        formula = (g + a) * (T - E - D + D * torch.log(1 + a / g))
        low = float(formula.detach()) - 200
        points = continue_equilibria(AdEx(*live), "I", (low, low + 400)).points
        (fold,) = [point for point in points if point.kind == "fold"]
        assert float(fold.value.detach()) == pytest.approx(float(formula.detach()), rel=1e-9)
        found = torch.autograd.grad(fold.value, live)
        expected = torch.autograd.grad(formula.sum(), [g, E, T, D, a])
        for one, other in zip([found[i] for i in (1, 2, 3, 4, 5)], expected, strict=True):
            assert float(one) == pytest.approx(float(other), rel=1e-6)
        assert abs(float(found[0])) + abs(float(found[6])) < 1e-8  # C and tau move no equilibrium


def _morris_lecar_scan(system) -> tuple[list[float], list[float], list[float]]:
    """Folds, Hopf points and neutral saddles of the explicit I(V), by scan and bisection."""
    c = {q.name: getattr(system, q.name).item() for q in system.constants}

    def shape(V):
        m = (1 + np.tanh((V - c["V1"]) / c["V2"])) / 2
        w = (1 + np.tanh((V - c["V3"]) / c["V4"])) / 2
        return m, w, 2 * m * (1 - m) / c["V2"], 2 * w * (1 - w) / c["V4"]

    def current(V):
        m, w, _, _ = shape(V)
        leak, calcium = c["g_L"] * (V - c["E_L"]), c["g_Ca"] * m * (V - c["E_Ca"])
        return leak + calcium + c["g_K"] * w * (V - c["E_K"])

    def entries(V):
        m, w, dm, dw = shape(V)
        own = -(c["g_L"] + c["g_K"] * w + c["g_Ca"] * (m + dm * (V - c["E_Ca"]))) / c["C"]
        rate = c["phi"] * np.cosh((V - c["V3"]) / (2 * c["V4"]))
        across = -c["g_K"] * (V - c["E_K"]) / c["C"] * rate * dw
        return own - rate, -own * rate - across  # trace and determinant

    grid = np.linspace(-80, 60, 20001)
    crossings = []
    for part in (0, 1):
        values = entries(grid)[part]
        roots = np.flatnonzero(values[:-1] * values[1:] < 0)
        crossings.append(
            [
                brentq(lambda V, p=part: entries(V)[p], grid[i], grid[i + 1], xtol=1e-13)
                for i in roots
            ]
        )
    traceless = [(float(current(V)), entries(V)[1] > 0) for V in crossings[0]]
    folds = [float(current(V)) for V in crossings[1]]
    return folds, [I for I, turns in traceless if turns], [I for I, turns in traceless if not turns]


@pytest.mark.parametrize("seed", range(4))
def test_random_morris_lecar_diagrams_match_an_independent_scan(published, seed):
    check_scan(published, seed)


@pytest.mark.slow
def test_many_random_morris_lecar_diagrams_match_an_independent_scan(published):
    for seed in range(100, 150):
        check_scan(published, seed)


def check_scan(published, seed):
    rng = np.random.default_rng(seed)
    system = published.MorrisLecar(
        g_Ca=rng.uniform(3.5, 5.5), V3=rng.uniform(0, 14), V4=rng.uniform(15, 32),
        phi=rng.uniform(0.02, 0.3),
    )  # fmt: skip
    # wide enough that the curve I(V) leaves it for good: a branch ends where it leaves the span
    branch = continue_equilibria(system, "I", span=(-250, 300))
    found = {"fold": [], "hopf": []}
    for point in branch.points:
        found[point.kind].append(float(point.value))
    folds, hopfs, neutral = (
        sorted(I for I in values if -250 < I < 300) for values in _morris_lecar_scan(system)
    )
    assert sorted(found["fold"]) == pytest.approx(folds, rel=1e-7)
    assert sorted(found["hopf"]) == pytest.approx(hopfs, rel=1e-7)
    assert sorted(float(p.value) for p in branch.neutral_saddles) == pytest.approx(
        neutral, rel=1e-7
    )


@pytest.mark.slow
def test_lyapunov_coefficients_are_the_rates_at_which_small_oscillations_grow(published):
    rng = np.random.default_rng(0)
    for _ in range(3):
        constants = (
            rng.uniform(4.0, 4.6),
            rng.uniform(1, 12),
            rng.uniform(18, 30),
            rng.uniform(0.04, 0.1),
        )
        system = published.MorrisLecar(*constants)
        branch = continue_equilibria(system, "I", (-20, 250))
        for hopf in [point for point in branch.points if point.kind == "hopf"]:
            I, omega = float(hopf.value), 2 * math.pi * float(hopf.frequency)
            field = Field(system, I)
            values, vectors = np.linalg.eig(field.jacobian(hopf.state.numpy())[1])
            q = vectors[:, np.argmin(np.abs(values - 1j * omega))]
            # x = z q + c.c. with d(1 / |z|^2) / dt = -2 omega l1: a fifth in all twelve turns
            assert hopf.coefficient is not None
            expected = -2 * omega * hopf.coefficient
            size = math.sqrt(0.2 / abs(expected) / (12 * 2 * math.pi / omega))
            start = hopf.state.numpy() + 2 * size * np.real(q)
            turns = 2 * math.pi / omega * np.arange(13)
            path = solve_ivp(lambda t, x, f=field: f.value(x), (0, turns[-1]), start,
                             method="DOP853", rtol=1e-10, atol=1e-12,
                             dense_output=True)  # fmt: skip
            first, last = (
                np.ptp(path.sol(np.linspace(a, b, 400))[0]) for a, b in (turns[:2], turns[-2:])
            )
            # V swings by 4 |z| |q_V|
            measured = 16 * abs(q[0]) ** 2 * (last**-2 - first**-2) / turns[-2]
            assert measured == pytest.approx(expected, rel=0.1)
