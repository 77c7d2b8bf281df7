import json

import numpy as np
import pytest
import torch
from scipy.optimize import fsolve

from clinode.dynamics.continuation import continue_equilibria
from clinode.dynamics.curves import continue_curve
from clinode.dynamics.field import Field
from clinode.errors import ArgumentError
from clinode.system import Quantity, System

PQ = (Quantity("p", "1"), Quantity("q", "1"))
BOTH = ((-1.0, 1.0), (-1.0, 1.0))


def _plane(*names):
    return tuple(Quantity(name, "1", range=(-2.0, 2.0)) for name in names)


class Cusp(System):
    """x' = p + q x - x^3: folds on 27 p^2 = 4 q^3."""

    states, inputs = _plane("x"), PQ

    def vector_field(self, t, x, u):
        return u[..., :1] + u[..., 1:] * x - x**3


class BogdanovTakens(System):
    """x' = y, y' = p + q x + x^2 - x y: folds on 4 p = q^2, Hopf points on p = 0, q < 0."""

    states, inputs = _plane("x", "y"), PQ

    def vector_field(self, t, x, u):
        X, Y = self.split(x).values()
        return self.join(x=Y, y=u[..., :1] + u[..., 1:] * X + X**2 - X * Y)


class Bautin(System):
    """r' = r (p + q r^2 - r^4), theta' = 2: Hopf points on p = 0, degenerate at q = 0."""

    states, inputs = _plane("x", "y"), PQ

    def vector_field(self, t, x, u):
        X, Y = self.split(x).values()
        square = X**2 + Y**2
        growth = u[..., :1] + u[..., 1:] * square - square**2
        return self.join(x=growth * X - 2 * Y, y=2 * X + growth * Y)


class FoldBesideHopf(System):
    """z' = p + z^2 beside r' = r (q - r^2), theta' = 3: folds on p = 0, Hopf points on q = 0."""

    states, inputs = _plane("x", "y", "z"), PQ

    def vector_field(self, t, x, u):
        X, Y, Z = self.split(x).values()
        growth = u[..., 1:] - X**2 - Y**2
        return self.join(x=growth * X - 3 * Y, y=3 * X + growth * Y, z=u[..., :1] + Z**2)


class TwoHopfs(System):
    """Two oscillators side by side: Hopf points on p = 0 at 2 and on q = 0 at 5."""

    states, inputs = _plane("x", "y", "a", "b"), PQ

    def vector_field(self, t, x, u):
        X, Y, A, B = self.split(x).values()
        first, second = u[..., :1] - X**2 - Y**2, u[..., 1:] - A**2 - B**2
        return self.join(
            x=first * X - 2 * Y, y=2 * X + first * Y, a=second * A - 5 * B, b=5 * A + second * B
        )


def special(system, parameter, kind, u, span=(-1, 1)):
    points = continue_equilibria(system, parameter, span, u).points
    return next(point for point in points if point.kind == kind)


def kinds(curve):
    return [point.kind for point in curve.points]


def test_folds_of_the_cusp_lie_on_their_closed_form_and_meet_in_it():
    curve = continue_curve(Cusp(), ("p", "q"), special(Cusp(), "p", "fold", [0.0, 0.5]), BOTH)
    p, q = curve.values.T
    np.testing.assert_allclose(27 * p**2, 4 * q**3, atol=1e-12)
    assert kinds(curve) == ["cusp"]
    np.testing.assert_allclose(list(curve.points[0].values.values()), 0, atol=1e-9)
    assert curve.ends == ("end of the span", "end of the span")
    assert curve.frequencies is None


@pytest.mark.slow
def test_fold_and_hopf_curves_touch_in_the_bogdanov_takens_point():
    fold = special(BogdanovTakens(), "p", "fold", [0.0, -0.5])
    curve = continue_curve(BogdanovTakens(), ("p", "q"), fold, BOTH)
    p, q = curve.values.T
    np.testing.assert_allclose(4 * p, q**2, atol=1e-12)
    assert kinds(curve) == ["bogdanov-takens"]
    hopf = special(BogdanovTakens(), "p", "hopf", [0.0, -0.5])
    other = continue_curve(BogdanovTakens(), ("p", "q"), hopf, BOTH)
    np.testing.assert_allclose(other.values[:, 0], 0, atol=1e-12)
    assert other.frequencies is not None
    np.testing.assert_allclose((2 * np.pi * other.frequencies) ** 2, -other.values[:, 1], atol=1e-9)
    assert kinds(other) == ["bogdanov-takens"]
    assert "a Bogdanov-Takens point" in other.ends
    for one in (curve, other):
        np.testing.assert_allclose(list(one.points[0].values.values()), 0, atol=1e-8)


def test_a_hopf_curve_changes_its_criticality_in_the_bautin_point():
    hopf = special(Bautin(), "p", "hopf", [0.0, -0.5])
    curve = continue_curve(Bautin(), ("p", "q"), hopf, BOTH)
    assert kinds(curve) == ["bautin"]
    assert curve.points[0].values["q"] == pytest.approx(0, abs=1e-9)
    assert float(curve.points[0].frequency) == pytest.approx(1 / np.pi)
    # l1 = 2 Re g / w for z' = i w z + g z |z|^2, |q| = 1
    np.testing.assert_allclose(curve.coefficients, curve.values[:, 1], rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_fold_and_hopf_curves_cross_in_the_zero_hopf_point():
    for parameter, kind in (("p", "fold"), ("q", "hopf")):
        start = special(FoldBesideHopf(), parameter, kind, [-0.3, -0.5])
        curve = continue_curve(FoldBesideHopf(), ("p", "q"), start, BOTH)
        assert kinds(curve) == ["zero-hopf"]
        np.testing.assert_allclose(list(curve.points[0].values.values()), 0, atol=1e-8)
        assert float(curve.points[0].frequency) == pytest.approx(3 / (2 * np.pi))


def test_hopf_curves_of_two_oscillators_cross_in_the_hopf_hopf_point():
    start = special(TwoHopfs(), "p", "hopf", [0.0, -0.5])
    curve = continue_curve(TwoHopfs(), ("p", "q"), start, BOTH)
    assert kinds(curve) == ["hopf-hopf"]
    np.testing.assert_allclose(list(curve.points[0].values.values()), 0, atol=1e-8)


def test_hodgkin_huxley_hopf_current_moves_against_the_leak_as_it_must(published):
    system = published.HodgkinHuxley()
    hopf = special(system, "I", "hopf", 0.0, (-5, 100))
    curve = continue_curve(system, ("I", "E_L"), hopf, ((-20, 60), (-90, -20)))
    I, E_L = curve.values.T
    assert np.ptp(E_L) > 50
    np.testing.assert_allclose(I + 0.3 * E_L, I[0] + 0.3 * E_L[0], atol=1e-11)
    np.testing.assert_allclose(curve.frequencies, curve.frequencies[0], rtol=1e-11)


def _morris_lecar_conditions(V3, V4, phi):
    """I(V), dI/dV, d2I/dV2 and the trace along the equilibria, by hand."""

    def gates(V, g_Ca):
        s, r = np.tanh((V + 1.2) / 18), np.tanh((V - V3) / V4)
        m, dm, d2m = (1 + s) / 2, (1 - s * s) / 36, -s * (1 - s * s) / 18**2
        w, dw, d2w = (1 + r) / 2, (1 - r * r) / (2 * V4), -r * (1 - r * r) / V4**2
        current = 2 * (V + 60) + g_Ca * m * (V - 120) + 8 * w * (V + 84)
        first = 2 + g_Ca * (m + dm * (V - 120)) + 8 * (w + dw * (V + 84))
        second = g_Ca * (2 * dm + d2m * (V - 120)) + 8 * (2 * dw + d2w * (V + 84))
        own = 2 + 8 * w + g_Ca * (m + dm * (V - 120))
        trace = -own / 20 - phi * np.cosh((V - V3) / (2 * V4))
        return current, first, second, trace

    return gates


@pytest.mark.parametrize("seed", range(4))
def test_random_morris_lecar_cusps_and_bogdanov_takens_points_match_their_equations(
    published, seed
):
    rng = np.random.default_rng(seed)
    V3, V4, phi = rng.uniform(9, 14), rng.uniform(15, 19), rng.uniform(0.04, 0.3)
    system = published.MorrisLecar(4.0, V3, V4, phi)
    fold = special(system, "I", "fold", 0.0, (-60, 160))
    curve = continue_curve(system, ("I", "g_Ca"), fold, ((-80, 200), (1.5, 6.0)))
    conditions = _morris_lecar_conditions(V3, V4, phi)
    wanted = {"cusp": 2, "bogdanov-takens": 3}
    assert {"cusp", "bogdanov-takens"} <= set(kinds(curve))
    for point in curve.points:
        start = [float(point.state[0]) + 0.5, point.values["g_Ca"] + 0.05]
        other = wanted[point.kind]
        root = fsolve(lambda q, k=other: np.array(conditions(*q))[[1, k]], start, xtol=1e-11)
        V, g_Ca = np.asarray(root, dtype=np.float64)
        found = [float(point.state[0]), point.values["g_Ca"], point.values["I"]]
        np.testing.assert_allclose(found, [V, g_Ca, conditions(V, g_Ca)[0]], rtol=1e-6)


@pytest.mark.slow
def test_every_point_of_a_curve_is_an_equilibrium_of_the_system(published):
    system = published.MorrisLecar(4.0, 12.0, 17.4, 1 / 15)
    hopf = special(system, "I", "hopf", 0.0, (-20, 120))
    curve = continue_curve(system, ("I", "phi"), hopf, ((-20, 200), (0.01, 0.5)))
    z = np.hstack([curve.states, curve.values])
    assert np.abs(Field(system, 0.0, ("I", "phi")).value(z)).max() < 1e-10
    # phi moves no equilibrium: the curve must lie on that of the branch
    assert "bautin" in kinds(curve)


def test_a_curve_comes_as_a_table_and_as_json():
    hopf = special(Bautin(), "p", "hopf", [0.0, -0.5])
    curve = continue_curve(Bautin(), ("p", "q"), hopf, BOTH)
    columns = ["p (1)", "q (1)", "frequency (1/1)", "lyapunov", "x (1)", "y (1)"]
    assert list(curve.to_pandas().columns) == columns
    assert len(curve.to_pandas()) == len(curve)
    assert json.loads(json.dumps(curve.to_dict()))["points"][0]["kind"] == "bautin"


def test_bad_requests_are_refused_in_words(published):
    fold = special(Cusp(), "p", "fold", [0.0, 0.5])
    with pytest.raises(ArgumentError, match="two different parameters"):
        continue_curve(Cusp(), ("p", "p"), fold, BOTH)
    with pytest.raises(ArgumentError, match="outside its span"):
        continue_curve(Cusp(), ("p", "q"), fold, ((-1, 1), (0.6, 1)))
    with pytest.raises(ArgumentError, match="low < high"):
        continue_curve(Cusp(), ("p", "q"), fold, ((-1, 1), (1, -1)))
    with pytest.raises(ArgumentError, match="no input or constant 'r'"):
        continue_curve(Cusp(), ("p", "r"), fold, BOTH)
    cusp = continue_curve(Cusp(), ("p", "q"), fold, BOTH).points[0]
    with pytest.raises(ArgumentError, match="a cusp cannot be followed"):
        continue_curve(Cusp(), ("p", "q"), cusp, BOTH)
    assert torch.is_tensor(cusp.value)
