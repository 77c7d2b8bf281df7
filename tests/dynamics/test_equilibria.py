import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import fsolve

from clinode import brain
from clinode.dynamics.equilibria import find_equilibria, find_equilibria_each
from clinode.errors import ArgumentError
from clinode.system import Delay, Event, LinearSystem, Quantity, System, Values


class AdaptiveNeuron(System):
    """C V' = -g (V - E) - w + I, tau w' = a (V - E) - w."""

    time_unit = "ms"
    states = (Quantity("V", "mV", range=(-100.0, 50.0)), Quantity("w", "pA", range=(-500.0, 500.0)))
    inputs = (Quantity("I", "pA"),)
    constants = tuple(Quantity(n, "1") for n in ("C", "g", "E", "a", "tau"))

    def __init__(self, C: Values, g: Values, E: Values, a: Values, tau: Values):
        super().__init__()
        self.register_constants(C=C, g=g, E=E, a=a, tau=tau)

    def vector_field(self, t, x, u):
        V, w = self.split(x).values()
        return self.join(
            V=(u - self.g * (V - self.E) - w) / self.C, w=(self.a * (V - self.E) - w) / self.tau
        )


class Lorenz(System):
    states = (Quantity("x", "1"), Quantity("y", "1"), Quantity("z", "1"))
    constants = (Quantity("rho", "1"),)

    def __init__(self, rho: Values = 28.0):
        super().__init__()
        self.register_constants(rho=rho)

    def vector_field(self, t, x, u):
        X, Y, Z = self.split(x).values()
        return self.join(x=10 * (Y - X), y=X * (self.rho - Z) - Y, z=X * Y - 8 / 3 * Z)


class LateralInhibition(System):
    """tau r_i' = -r_i + [I - w sum_(j != i) r_j]_+."""

    inputs = (Quantity("I", "1"),)
    constants = (Quantity("w", "1"),)

    def __init__(self, n: int, w: float):
        super().__init__()
        labels = tuple(str(i) for i in range(n))
        self.states = (Quantity("r", "1", labels=labels, range=(0.0, 2.0)),)
        self.register_constants(w=w)

    def vector_field(self, t, x, u):
        others = x.sum(-1, keepdim=True) - x
        return torch.relu(u - self.w * others) - x


class UnequalInhibition(System):
    """As `LateralInhibition`, each unit with its own input."""

    constants = (Quantity("w", "1"),)

    def __init__(self, w: float, n: int):
        super().__init__()
        labels = tuple(str(i) for i in range(n))
        self.states = (Quantity("r", "1", labels=labels, range=(0.0, 3.0)),)
        self.inputs = (Quantity("I", "1", labels=labels),)
        self.register_constants(w=w)

    def vector_field(self, t, x, u):
        others = x.sum(-1, keepdim=True) - x
        return torch.relu(u - self.w * others) - x


class Fading(System):
    """x' = exp(-x): the residual fades out, an equilibrium is nowhere."""

    states = (Quantity("x", "1", range=(-1.0, 5.0)),)

    def vector_field(self, t, x, u):
        return torch.exp(-x)


class Izhikevich(System):
    """Izhikevich 2003, IEEE Trans. Neural Netw. 14:1569; its spike is a reset at 30 mV."""

    time_unit = "ms"
    states = (Quantity("v", "mV", range=(-100.0, 40.0)), Quantity("w", "1", range=(-30.0, 30.0)))
    inputs = (Quantity("I", "1"),)
    constants = (Quantity("a", "1"), Quantity("b", "1"), Quantity("peak", "mV"))

    def __init__(self, a: Values = 0.02, b: Values = 0.2, peak: Values = 30.0):
        super().__init__()
        self.register_constants(a=a, b=b, peak=peak)

    def vector_field(self, t, x, u):
        v, w = self.split(x).values()
        return self.join(v=0.04 * v**2 + 5 * v + 140 - w + u, w=self.a * (self.b * v - w))

    def _guard(self, t, x):
        return self.split(x)["v"] - self.peak

    def _reset(self, x):
        v, w = self.split(x).values()
        return self.join(v=torch.full_like(v, -65.0), w=w + 8)

    events = (Event("spike", _guard, _reset),)


class Mackey(System):
    """x' = b x(t - T) / (1 + x(t - T)^10) - c x, Mackey & Glass 1977, Science 197:287."""

    states = (Quantity("x", "1", range=(0.0, 2.0)),)
    constants = (Quantity("b", "1"), Quantity("c", "1"), Quantity("T", "1"))
    delays = (Delay("x", "T"),)

    def __init__(self, b: Values, c: Values, T: Values = 2.0):
        super().__init__()
        self.register_constants(b=b, c=c, T=T)

    def vector_field(self, t, x, u, past):  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.b * past["x"] / (1 + past["x"] ** 10) - self.c * x


def active_set(I: np.ndarray, w: float) -> np.ndarray:
    """Rates of lateral inhibition for w < 1, where one set of active units is consistent."""
    for k in range(1, len(I) + 1):
        active = np.argsort(-I)[:k]
        r = np.zeros(len(I))
        r[active] = np.linalg.solve((1 - w) * np.eye(k) + w, I[active])
        drive = I - w * (r.sum() - r)
        if (r[active] > 0).all() and (np.delete(drive, active) <= 0).all():
            return r
    raise AssertionError("no active set is consistent")


def by_fsolve(system: System, u: torch.Tensor, box: np.ndarray) -> list[list[float]]:
    """Roots inside the box that SciPy finds from 300 starts."""

    def rate(x):
        return system.vector_field(0.0, torch.tensor(x), u).numpy()

    width = box[:, 1] - box[:, 0]
    known: list[np.ndarray] = []
    for start in np.random.default_rng(0).uniform(box[:, 0], box[:, 1], (300, len(box))):
        root, _, flag, _ = fsolve(rate, start, full_output=True, xtol=1e-13)
        is_new = all((np.abs(root - other) / width).max() > 1e-6 for other in known)
        inside = ((root >= box[:, 0]) & (root <= box[:, 1])).all()
        if flag == 1 and inside and (np.abs(rate(root)) / width).max() < 1e-9 and is_new:
            known.append(root)
    return sorted(root.tolist() for root in known)


@pytest.mark.parametrize("seed", range(20))
def test_adaptive_neuron_rests_and_rings_as_its_closed_form_says(seed):
    rng = np.random.default_rng(seed)
    C, g, tau = rng.uniform(50, 300), rng.uniform(5, 50), rng.uniform(5, 300)
    E, a, I = rng.uniform(-80, -60), rng.uniform(-g, 40), rng.uniform(-200, 200)
    (found,) = find_equilibria(AdaptiveNeuron(C, g, E, a, tau), u=I, n_starts=8)
    V = E + I / (g + a)
    np.testing.assert_allclose(found.state, [V, a * (V - E)], rtol=1e-10, atol=1e-10)
    half = (g / C + 1 / tau) / 2
    inside = complex(half**2 - (g + a) / (C * tau)) ** 0.5
    np.testing.assert_allclose(found.eigenvalues, [-half + inside, -half - inside], rtol=1e-9)
    spirals = (g / C - 1 / tau) ** 2 < 4 * a / (C * tau)
    assert found.kind == ("stable focus" if spirals else "stable node")
    assert found.is_stable


@pytest.mark.parametrize(("mu", "coherence"), [(0.0, 0.0), (30.0, 0.0), (30.0, 25.6), (30.0, 100)])
def test_wong_wang_equilibria_are_those_that_scipy_finds(published, mu, coherence):
    system = published.WongWang()
    u = torch.tensor([mu, coherence]).double()
    found = find_equilibria(system, u=u)

    def rate(x):
        return system.vector_field(0.0, torch.tensor(x), u).numpy()

    known: list[np.ndarray] = []
    for start in np.random.default_rng(0).uniform(0, 1, (80, 2)):
        root, _, flag, _ = fsolve(rate, start, full_output=True, xtol=1e-13)
        is_new = all(np.abs(root - other).max() > 1e-6 for other in known)
        if flag == 1 and np.abs(rate(root)).max() < 1e-9 and is_new:
            known.append(root)
    mine = sorted(one.state.tolist() for one in found)
    np.testing.assert_allclose(mine, sorted(root.tolist() for root in known), atol=1e-9)
    assert found.index_sum == found.expected_index_sum == 1
    assert [one.is_stable for one in found] == sorted(
        (one.is_stable for one in found), reverse=True
    )


def test_lorenz_has_its_three_equilibria_without_any_range_given():
    found = find_equilibria(Lorenz(28.0))
    away = math.sqrt(8 / 3 * 27)
    expected = [[-away, -away, 27], [0, 0, 0], [away, away, 27]]
    np.testing.assert_allclose(sorted(one.state.tolist() for one in found), expected, atol=1e-9)
    assert [one.kind for one in found] == ["saddle", "saddle-focus", "saddle-focus"]


def test_strong_inhibition_lets_each_of_n_units_win():
    for n in (2, 3, 5):
        found = find_equilibria(LateralInhibition(n, w=1.7), u=1.0)
        stable = [one.state.tolist() for one in found if one.is_stable]
        np.testing.assert_allclose(sorted(stable, reverse=True), np.eye(n), atol=1e-12)
    (only,) = find_equilibria(LateralInhibition(3, w=0.4), u=1.0)
    np.testing.assert_allclose(only.state, 1 / 1.8, rtol=1e-12)


@pytest.mark.parametrize("n", [3, 4, 5])
def test_every_group_of_rivals_rests_in_a_box_far_larger_than_their_rates(n):
    # k of n units at I / (1 + (k - 1) w), the others silent: rests for every group where w > 1
    w, I = 1.7, 1.0
    found = find_equilibria(brain.LateralInhibition(n, w=w), u=I)  # rates between 0 and 100 Hz
    groups = np.array(list(itertools.product((0.0, 1.0), repeat=n)))[1:]
    k = groups.sum(axis=1, keepdims=True)
    expected = groups * I / (1 + (k - 1) * w)
    states = np.array([one.state.tolist() for one in found])
    order = [np.lexsort(x.round(9).T) for x in (states, expected)]
    np.testing.assert_allclose(states[order[0]], expected[order[1]], atol=1e-12)
    assert sum(one.is_stable for one in found) == n
    assert "none is known to be missing" in found.verdict


def test_an_equilibrium_outside_of_the_box_is_offered_and_not_taken_for_none(published):
    held = find_equilibria(published.FitzHughNagumo(), u=500.0)
    (one,) = held.outside
    assert len(held) == 0
    assert "1 outside of it, 1 stable" in held.verdict
    v, w = one.state.tolist()
    assert v - v**3 / 3 - w + 500 == pytest.approx(0, abs=1e-9)
    assert v + 0.7 - 0.8 * w == pytest.approx(0, abs=1e-9)
    assert json.loads(json.dumps(held.to_dict()))["outside"][0]["state"] == [v, w]
    cycling = find_equilibria(published.FitzHughNagumo(), u=0.5, box={"v": (1.5, 2.0)})
    assert cycling.verdict.endswith("a limit cycle of period 39.4744 is there")
    assert find_equilibria(published.FitzHughNagumo(), u=0.5).outside == ()


def test_a_linear_system_rests_where_linear_algebra_says_and_only_there():
    rng = np.random.default_rng(8)
    A, B, u = rng.normal(size=(4, 4)), rng.normal(size=(4, 2)), rng.normal(size=2)
    system = LinearSystem(A, B, offset=(np.arange(4.0), np.ones(2)))
    expected = np.arange(4.0) - np.linalg.solve(A, B @ (u - 1))
    (one,) = found = find_equilibria(system, u=torch.tensor(u))
    np.testing.assert_allclose(one.state, expected, rtol=1e-12, atol=1e-12)
    assert "unique" in found.verdict
    assert found.index_sum == found.expected_index_sum == np.sign(np.linalg.det(-A))
    far = find_equilibria(system, u=torch.tensor(u), box=[(900.0, 901.0)] * 4)
    assert len(far) == 0
    assert "unique" in far.verdict
    assert far.verdict.endswith("outside of the searched box: see `outside`")
    np.testing.assert_allclose(far.outside[0].state, expected, rtol=1e-12, atol=1e-12)


def test_a_singular_linear_system_rests_along_a_continuum_or_nowhere():
    diffusing = LinearSystem([[-1.0, 1.0], [1.0, -1.0]], [[1.0], [-1.0]])
    (one,) = found = find_equilibria(diffusing, u=3.0)
    assert one.state[0] - one.state[1] == pytest.approx(3.0, rel=1e-12)
    assert one.kind == "nonhyperbolic"
    assert found.verdict.startswith("1 of a continuum")
    filling = LinearSystem([[-1.0, 1.0], [1.0, -1.0]], [[1.0], [0.0]])
    assert find_equilibria(filling, u=3.0).verdict.startswith("none: the Jacobian is singular")


def test_a_line_of_equilibria_is_called_a_continuum():
    assert "continuum" in find_equilibria(LateralInhibition(2, w=1.0), u=1.0).verdict


def test_a_residual_that_fades_out_is_no_equilibrium():
    found = find_equilibria(Fading())
    assert len(found) == 0
    assert found.verdict.startswith("no equilibrium found from 256 starts")


def test_equilibria_of_a_network_are_bracketed_from_its_corners(published):
    rng = np.random.default_rng(3)
    W = rng.random((12, 12)) * (rng.random((12, 12)) < 0.4)
    W = (W + W.T) / np.abs(np.linalg.eigvals(W + W.T)).max()
    coupling = torch.tensor(rng.uniform(0.2, 6, (4, 1)))
    drive = torch.tensor(rng.uniform(0, 4, (4, 1)))
    batch = find_equilibria_each(
        published.WilsonCowanNetwork(W, coupling), u=drive, n_starts=0, fast=["I"]
    )
    assert all(len(found) for found in batch)
    assert max(one.residual for found in batch for one in found) < 1e-12
    for member, found in enumerate(batch):
        own = published.WilsonCowanNetwork(W, coupling[member])
        E, I = own.split(found[0].state).values()
        excited = 16 * E - 12 * I + coupling[member] * (E @ torch.tensor(W).T) + drive[member]
        torch.testing.assert_close(E, torch.sigmoid(1.3 * (excited - 4)), atol=1e-12, rtol=0)


def test_members_of_a_batch_have_the_equilibria_they_have_alone(published):
    mu = torch.tensor([[0.0, 0.0], [30.0, 25.6]]).double()
    batch = find_equilibria_each(published.WongWang(), u=mu, n_starts=128)
    for u, together in zip(mu, batch, strict=True):
        alone = find_equilibria(published.WongWang(), u=u)
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one.state, other.state, atol=1e-12, rtol=0)


def test_an_equilibrium_is_differentiable_by_a_constant_and_by_the_input():
    C, g, E, a, tau = 100.0, torch.nn.Parameter(torch.tensor([10.0]).double()), -70.0, 4.0, 50.0
    u = torch.tensor([120.0], dtype=torch.float64, requires_grad=True)
    found = find_equilibria(AdaptiveNeuron(C, g, E, a, tau), u=u, n_starts=4)[0]
    by_g, by_u = torch.autograd.grad(found.output[0], [g, u])
    assert float(by_g) == pytest.approx(-120 / 14**2, rel=1e-10)  # V = E + I / (g + a)
    assert float(by_u) == pytest.approx(1 / 14, rel=1e-10)


def test_only_what_lies_in_a_given_box_is_returned(published):
    u = torch.tensor([30.0, 0.0]).double()
    (only,) = find_equilibria(published.WongWang(), u=u, box={"S1": (0.6, 0.8)})
    assert float(only.state[0]) == pytest.approx(0.65869, abs=1e-5)
    as_rows = find_equilibria(published.WongWang(), u=u, box=((0.6, 0.8), (0.0, 1.0)))
    torch.testing.assert_close(as_rows[0].state, only.state)


def test_a_system_that_leaves_its_box_promises_nothing_about_completeness():
    found = find_equilibria(AdaptiveNeuron(C=1.0, g=-1.0, E=0.0, a=0.1, tau=1.0), u=1.0)
    assert found.expected_index_sum is None
    assert found[0].kind == "saddle"


def test_equilibria_come_as_a_table_and_as_json(published):
    found = find_equilibria(published.WongWang(), u=torch.tensor([0.0, 0.0]).double())
    table = found.to_pandas()
    assert list(table.columns) == ["kind", "is_stable", "residual", "S1 (1)", "S2 (1)"]
    assert len(json.loads(json.dumps(found.to_dict()))["equilibria"]) == len(found) == 5


def test_bad_requests_are_refused_in_words(published):
    system = published.WongWang()
    with pytest.raises(ArgumentError, match="did you mean 'S2'"):
        find_equilibria(system, box={"S12": (0.0, 1.0)})
    with pytest.raises(ArgumentError, match="expected a \\(low, high\\) for each of 2 states"):
        find_equilibria(system, box=((0.0, 1.0),))
    with pytest.raises(ArgumentError, match="finite with low < high"):
        find_equilibria(system, box={"S1": (1.0, 0.0)})
    with pytest.raises(ArgumentError, match="n_starts must be at least 1"):
        find_equilibria(system, n_starts=0)
    with pytest.raises(ArgumentError, match="find_equilibria_each"):
        find_equilibria(system, u=torch.zeros(3, 2))
    with pytest.raises(ArgumentError, match="leave out fast"):
        find_equilibria(system, fast=["S1"])


def test_one_start_finds_the_equilibrium_of_a_linear_system_however_far_it_lies():
    rng = np.random.default_rng(1)
    for _ in range(20):
        n = int(rng.integers(2, 9))
        A, B = rng.normal(size=(n, n)) - 4 * np.eye(n), rng.normal(size=(n, 1))
        x0 = rng.normal(size=n) * 300
        found = find_equilibria(LinearSystem(A, B, offset=(x0, [0.0])), n_starts=1)
        np.testing.assert_allclose(found[0].state, x0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_weak_inhibition_rests_where_one_active_set_is_consistent(seed):
    rng = np.random.default_rng(seed)
    n, w = int(rng.integers(2, 13)), rng.uniform(0.05, 0.95)
    I = rng.uniform(0.1, 2.0, n)
    found = find_equilibria(UnequalInhibition(w, n), u=torch.tensor(I), n_starts=32)
    (only,) = found
    np.testing.assert_allclose(only.state, active_set(I, w), atol=1e-9)
    assert only.is_stable


@pytest.mark.parametrize("w", [1 - 1e-6, 1 + 1e-6])
def test_two_units_lose_their_balance_where_inhibition_outweighs_leak(w):
    found = find_equilibria(LateralInhibition(2, w=w), u=1.0)
    both = min(found, key=lambda one: float((one.state[0] - one.state[1]).abs()))
    np.testing.assert_allclose(both.state, 1 / (1 + w), atol=1e-9)
    assert both.kind == ("stable node" if w < 1 else "saddle")
    assert sum(one.is_stable for one in found) == (1 if w < 1 else 2)


@pytest.mark.parametrize("h", [0.0, 0.38489, 0.38491, -0.38489, -0.38491])
def test_a_double_well_has_three_equilibria_up_to_its_folds(h):
    class DoubleWell(System):
        states = (Quantity("x", "1", range=(-2.0, 2.0)),)
        inputs = (Quantity("h", "1"),)

        def vector_field(self, t, x, u):
            return x - x**3 + u

    found = find_equilibria(DoubleWell(), u=h)  # folds at 2 / (3 sqrt(3)) = 0.3849002
    roots = np.roots([-1, 0, 1, h])
    roots = np.sort(roots[np.abs(roots.imag) < 1e-9].real)
    assert len(roots) == (3 if abs(h) < 0.3849 else 1)
    np.testing.assert_allclose(sorted(float(one.state) for one in found), roots, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_equilibria_of_random_neurons_are_those_that_scipy_finds(published, seed):
    rng = np.random.default_rng(seed)
    cases = [
        (published.FitzHughNagumo(a=rng.uniform(0.3, 1), b=rng.uniform(0.3, 3)), (-1.0, 2.0)),
        (published.MorrisLecar(g_Ca=4.0, V3=12.0, V4=17.4, phi=rng.uniform(0.05, 0.3)), (0, 39)),
    ]
    for system, currents in cases:
        u = torch.tensor([rng.uniform(*currents)])
        box = np.array([q.range for q in system.states], dtype=np.float64)
        found = find_equilibria(system, u=u, box=box)
        mine = sorted(one.state.tolist() for one in found)
        np.testing.assert_allclose(mine, by_fsolve(system, u, box), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_rest_of_an_izhikevich_neuron_moves_with_b_as_its_closed_form(seed):
    rng = np.random.default_rng(seed)
    value, I = rng.uniform(0.15, 0.28), rng.uniform(-10, 0)
    b = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    found = find_equilibria(Izhikevich(b=b), u=I)
    root = math.sqrt((5 - value) ** 2 - 0.16 * (140 + I))
    rest, threshold = sorted(found, key=lambda one: one.state[0].item())
    assert rest.state[0].item() == pytest.approx((value - 5 - root) / 0.08, rel=1e-12)
    assert threshold.kind == "saddle"
    (slope,) = torch.autograd.grad(rest.state[0], b)
    assert float(slope) == pytest.approx((1 + (5 - value) / root) / 0.08, rel=1e-9)


def test_an_equilibrium_beyond_the_guard_is_refused():
    found = find_equilibria(Izhikevich(peak=-60.0), u=-5.0)  # rests at -68.5, and at -51.5
    (only,) = found
    assert float(only.state[0]) < -60
    assert "1 refused beyond a guard" in found.verdict
    (nothing, *more) = find_equilibria_each(Izhikevich(peak=-90.0), u=torch.tensor([[-5.0]]))
    assert (len(nothing), more) == (0, [])
    assert "2 refused beyond a guard" in nothing.verdict


@pytest.mark.parametrize("seed", range(3))
def test_a_delayed_system_rests_where_past_and_present_agree(seed):
    rng = np.random.default_rng(seed)
    b, c = rng.uniform(0.2, 1.0), rng.uniform(0.05, 0.15)
    found = find_equilibria(Mackey(b, c))
    positive = [float(one.state) for one in found if float(one.state) > 1e-6]
    assert positive == pytest.approx([(b / c - 1) ** 0.1], rel=1e-12)
