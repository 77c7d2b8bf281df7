import json
import math

import numpy as np
import pytest
import torch

from clinode.dynamics.continuation import continue_equilibria
from clinode.dynamics.equilibria import find_equilibria
from clinode.errors import ArgumentError, SolverError
from clinode.system import Quantity, System, Values

P = (Quantity("p", "1"),)


class Scalar(System):
    """x' = p x^i + h + a x^2 + c x^3 with i = 0 or 1."""

    states = (Quantity("x", "1", range=(-2.0, 2.0)),)
    inputs = P
    constants = (Quantity("h", "1"), Quantity("a", "1"), Quantity("c", "1"))

    def __init__(self, power: int, h: Values = 0.0, a: Values = 0.0, c: Values = 0.0):
        super().__init__()
        self.power = power
        self.register_constants(h=h, a=a, c=c)

    def vector_field(self, t, x, u):
        return u * x**self.power + self.h + self.a * x**2 + self.c * x**3


class HopfNormalForm(System):
    """z' = (p + i w) z + (l + i b) z |z|^2 in real coordinates turned and stretched."""

    states = (Quantity("x", "1", range=(-2.0, 2.0)), Quantity("y", "1", range=(-2.0, 2.0)))
    inputs = P
    constants = (Quantity("omega", "1"), Quantity("l", "1"), Quantity("b", "1"))

    def __init__(self, omega: Values = 2.0, l: Values = -1.0, b: Values = 0.5):
        super().__init__()
        self.register_constants(omega=omega, l=l, b=b)

    def vector_field(self, t, x, u):
        X, Y = self.split(x).values()
        square = X**2 + Y**2
        growth, turn = u + self.l * square, self.omega + self.b * square
        return self.join(x=growth * X - turn * Y, y=turn * X + growth * Y)


class Circle(System):
    """x' = 1 - x^2 - p^2: its equilibria are a circle."""

    states = (Quantity("x", "1", range=(-2.0, 2.0)),)
    inputs = P

    def vector_field(self, t, x, u):
        return 1 - x**2 - u**2


def kinds(branch):
    return [point.kind for point in branch.points]


def test_fold_normal_form_turns_where_and_as_sharply_as_it_says():
    branch = continue_equilibria(Scalar(0, a=-2.0), "p", span=(-1, 1))
    (fold,) = branch.points
    assert fold.kind == "fold"
    assert abs(fold.value) < 1e-12
    assert fold.coefficient == pytest.approx(-2.0, rel=1e-9)  # a b of x' = a p + b x^2
    np.testing.assert_allclose(branch.values, 2 * branch.states[:, 0] ** 2, atol=1e-9)
    np.testing.assert_array_equal(branch.stable[branch.values > 1e-6],
                                  branch.states[branch.values > 1e-6, 0] > 0)  # fmt: skip
    assert branch.ends == ("end of the span", "end of the span")


@pytest.mark.parametrize(("l", "criticality"), [(-1.5, "supercritical"), (0.7, "subcritical")])
def test_hopf_normal_form_has_its_lyapunov_coefficient(l, criticality):
    branch = continue_equilibria(HopfNormalForm(3.0, l), "p", span=(-1, 1))
    (hopf,) = branch.points
    assert (hopf.kind, hopf.criticality) == ("hopf", criticality)
    assert abs(hopf.value) < 1e-12
    assert float(hopf.frequency) == pytest.approx(3 / (2 * math.pi), rel=1e-12)
    # z' = i w z + g z |z|^2 with |q| = 1 means x = Re(sqrt 2 z): l1 = 2 Re g / w (Kuznetsov 3.5)
    assert hopf.coefficient == pytest.approx(2 * l / 3, rel=1e-9)


@pytest.mark.parametrize(("c", "criticality"), [(-1.0, "supercritical"), (1.0, "subcritical")])
def test_pitchfork_is_a_branch_point_whose_other_branch_can_be_followed(c, criticality):
    system = Scalar(1, c=c)
    branch = continue_equilibria(system, "p", span=(-1, 1))
    (point,) = branch.points
    assert (point.kind, point.criticality) == ("branch point", criticality)
    other = continue_equilibria(system, "p", span=(-1, 1), start=point)
    np.testing.assert_allclose(other.values, -c * other.states[:, 0] ** 2, atol=1e-9)
    assert set(other.stable[np.abs(other.states[:, 0]) > 0.1]) == {c < 0}


def test_transcritical_branches_cross_and_exchange_stability():
    system = Scalar(1, a=-1.0)
    branch = continue_equilibria(system, "p", span=(-1, 1))
    (point,) = branch.points
    assert (point.kind, point.criticality) == ("branch point", "transcritical")
    other = continue_equilibria(system, "p", span=(-1, 1), start=point)
    mine, its = branch.states[:, 0], other.states[:, 0]
    assert np.abs(mine).max() < 1e-9
    np.testing.assert_allclose(its, other.values, atol=1e-9)
    np.testing.assert_array_equal(other.stable[np.abs(its) > 1e-3], its[np.abs(its) > 1e-3] > 0)


def test_an_isola_closes_on_itself_between_its_two_folds():
    branch = continue_equilibria(Circle(), "p", span=(-2, 2))
    assert kinds(branch) == ["fold", "fold"]
    assert sorted(float(point.value) for point in branch.points) == pytest.approx([-1, 1])
    assert branch.ends[1] == "closed on itself"


def test_cusp_unfolds_into_the_folds_of_its_closed_form():
    h = 0.2
    folds = continue_equilibria(Scalar(1, h=h, c=-1.0), "p", span=(-1, 2)).points
    # x' = h + p x - x^3 folds where p = 3 x^2 and h = -2 x^3
    other = continue_equilibria(
        Scalar(1, h=h, c=-1.0),
        "p",
        span=(-1, 2),
        start=find_equilibria(Scalar(1, h=h, c=-1.0), u=1.0)[-1],
    )
    values = [float(point.value) for point in (*folds, *other.points)]
    assert values == pytest.approx([3 * (h / 2) ** (2 / 3)], rel=1e-10)


@pytest.mark.parametrize(
    ("name", "constants", "span", "expected"),
    [
        (
            "MorrisLecar",
            {},
            (-20, 250),
            [("hopf", 93.857618, 12.697e-3), ("hopf", 212.018816, 23.651e-3)],
        ),
        (
            "MorrisLecar",
            {"g_Ca": 4.0, "V3": 12.0, "V4": 17.4, "phi": 1 / 15},
            (-20, 120),
            [("fold", 39.963153, None), ("fold", -9.949039, None), ("hopf", 97.787889, 40.138e-3)],
        ),
        (
            "HodgkinHuxley",
            {},
            (-5, 200),
            [("hopf", 9.775438, 93.302e-3), ("hopf", 154.522434, 169.169e-3)],
        ),
        (
            "JansenRit",
            {},
            (-60, 330),
            [
                ("fold", 113.586273, None),
                ("fold", -41.301410, None),
                ("hopf", -12.147492, 7.239),
                ("hopf", 89.829108, 10.377),
                ("hopf", 315.696428, 11.164),
            ],
        ),
    ],
)
def test_published_diagrams_have_their_folds_and_hopf_points(
    published, name, constants, span, expected
):
    system = getattr(published, name)(**constants)
    branch = continue_equilibria(system, system.inputs[0].name, span)
    assert kinds(branch) == [kind for kind, _, _ in expected]
    for point, (_, value, frequency) in zip(branch.points, expected, strict=True):
        assert float(point.value) == pytest.approx(value, abs=1e-6)
        if frequency is not None:
            assert float(point.frequency) == pytest.approx(frequency, rel=1e-4)


def test_fitzhugh_nagumo_hopf_points_match_their_closed_form(published):
    rng = np.random.default_rng(5)
    for _ in range(6):
        a, b, tau = rng.uniform(0.5, 0.9), rng.uniform(0.4, 0.95), rng.uniform(4, 20)
        branch = continue_equilibria(published.FitzHughNagumo(a, b, tau), "I", span=(-3, 6))
        expected = []
        for v in (-math.sqrt(1 - b / tau), math.sqrt(1 - b / tau)):
            if 1 / tau > (b / tau) ** 2:
                expected.append((v + a) / b - v + v**3 / 3)
        found = sorted(float(point.value) for point in branch.points if point.kind == "hopf")
        assert found == pytest.approx(sorted(expected), rel=1e-9)


def test_special_points_are_differentiable_by_constants():
    class Izhikevich(System):
        states = (Quantity("v", "1", range=(-90.0, 0.0)), Quantity("w", "1", range=(-30.0, 10.0)))
        inputs = (Quantity("I", "1"),)
        constants = (Quantity("b", "1"),)

        def __init__(self, b: Values):
            super().__init__()
            self.register_constants(b=b)

        def vector_field(self, t, x, u):
            v, w = self.split(x).values()
            return self.join(v=0.04 * v**2 + 5 * v + 140 - w + u, w=0.02 * (self.b * v - w))

    b = torch.tensor([0.2], dtype=torch.float64, requires_grad=True)
    points = continue_equilibria(Izhikevich(b), "I", span=(-20, 10)).points
    fold = next(point for point in points if point.kind == "fold")
    hopf = next(point for point in points if point.kind == "hopf")
    assert fold.value.item() == pytest.approx(4.8**2 / 0.16 - 140, abs=1e-9)
    by_b, by_v = (
        torch.autograd.grad(part, b, retain_graph=True)[0] for part in (fold.value, fold.state[0])
    )
    assert float(by_b) == pytest.approx(-4.8 / 0.08, rel=1e-9)  # I = (5 - b)^2 / 0.16 - 140
    assert float(by_v) == pytest.approx(1 / 0.08, rel=1e-9)  # v = -(5 - b) / 0.08
    v = (0.02 - 5) / 0.08
    assert hopf.value.item() == pytest.approx(-4.8 * v - 0.04 * v**2 - 140, abs=1e-9)
    by_b, by_f = (
        torch.autograd.grad(part, b, retain_graph=True)[0] for part in (hopf.value, hopf.frequency)
    )
    assert float(by_b) == pytest.approx(v, rel=1e-9)
    omega = math.sqrt(0.02 * (0.2 - 0.02))
    assert float(by_f) == pytest.approx(0.02 / (2 * omega) / (2 * math.pi), rel=1e-9)


def test_a_constant_can_be_the_parameter(published):
    system = published.FitzHughNagumo()
    branch = continue_equilibria(system, "a", span=(0.0, 1.5), u=0.5)
    a = branch.values
    v, w = branch.states.T
    np.testing.assert_allclose(v - v**3 / 3 - w + 0.5, 0, atol=1e-9)
    np.testing.assert_allclose(v + a - 0.8 * w, 0, atol=1e-9)


def test_a_branch_comes_as_a_table_and_as_json(published):
    branch = continue_equilibria(published.FitzHughNagumo(), "I", span=(-1, 3))
    assert list(branch.to_pandas().columns) == ["I (1)", "stable", "v (1)", "w (1)"]
    assert len(branch.to_pandas()) == len(branch)
    assert len(json.loads(json.dumps(branch.to_dict()))["points"]) == 2


def test_bad_requests_are_refused_in_words(published):
    system = published.FitzHughNagumo()
    with pytest.raises(ArgumentError, match="did you mean 'tau'"):
        continue_equilibria(system, "tua", span=(0, 1))
    with pytest.raises(ArgumentError, match="span must be finite with low < high"):
        continue_equilibria(system, "I", span=(1, 0))
    rest = find_equilibria(system, u=2.0, n_starts=8)[0]
    with pytest.raises(ArgumentError, match="outside the span"):
        continue_equilibria(system, "I", span=(0, 1), start=rest)
    (hopf, _) = continue_equilibria(system, "I", span=(-1, 3)).points
    with pytest.raises(ArgumentError, match="no second branch of equilibria passes through this"):
        continue_equilibria(system, "I", span=(-1, 3), start=hopf)

    class Drift(System):
        states = (Quantity("x", "1", range=(-1.0, 1.0)),)
        inputs = P

        def vector_field(self, t, x, u):
            return 1 + (x + u) ** 2

    with pytest.raises(SolverError, match="no equilibrium was found at 9 values of 'p'"):
        continue_equilibria(Drift(), "p", span=(0, 1))
