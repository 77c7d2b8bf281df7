import json
import math

import numpy as np
import pytest
import torch

from clinode.dynamics.continuation import continue_equilibria
from clinode.dynamics.cycle_branches import continue_cycles
from clinode.dynamics.cycles import find_limit_cycle
from clinode.errors import ArgumentError
from clinode.system import Quantity, System, Values

P = (Quantity("p", "1"),)
PLANE = (Quantity("x", "1", range=(-2.0, 2.0)), Quantity("y", "1", range=(-2.0, 2.0)))


class Quintic(System):
    """r' = r (p + r^2 - r^4), theta' = 2: subcritical, its cycles fold at p = -1/4, r^2 = 1/2."""

    states = PLANE
    inputs = P

    def vector_field(self, t, x, u):
        X, Y = self.split(x).values()
        square = X**2 + Y**2
        growth = u + square - square**2
        return self.join(x=growth * X - 2 * Y, y=2 * X + growth * Y)


class InvariantCircle(System):
    """r' = r (1 - r^2), theta' = p + 1 - cos theta: period 2 pi / sqrt(p (p + 2)), SNIC at 0."""

    states = PLANE
    inputs = P

    def vector_field(self, t, x, u):
        X, Y = self.split(x).values()
        square = X**2 + Y**2
        turn = u + 1 - X / torch.sqrt(square)
        return self.join(x=(1 - square) * X - turn * Y, y=turn * X + (1 - square) * Y)


class Torus(System):
    """A circle of period 2 pi, and beside it z' = (p + i w) z - z |z|^2: a torus at p = 0."""

    states = (*PLANE, Quantity("a", "1", range=(-2.0, 2.0)), Quantity("b", "1", range=(-2.0, 2.0)))
    inputs = P

    def vector_field(self, t, x, u):
        X, Y, A, B = self.split(x).values()
        grows, shrinks = 1 - X**2 - Y**2, u - A**2 - B**2
        w = 0.3
        return self.join(
            x=grows * X - Y, y=X + grows * Y, a=shrinks * A - w * B, b=w * A + shrinks * B
        )


class Rossler(System):
    states = (
        Quantity("x", "1", range=(-10.0, 10.0)),
        Quantity("y", "1", range=(-10.0, 10.0)),
        Quantity("z", "1", range=(0.0, 20.0)),
    )
    constants = (Quantity("c", "1"),)

    def __init__(self, c: Values = 2.5):
        super().__init__()
        self.register_constants(c=c)

    def vector_field(self, t, x, u):
        X, Y, Z = self.split(x).values()
        return self.join(x=-Y - Z, y=X + 0.2 * Y, z=0.2 + Z * (X - self.c))


class Isola(System):
    """r' = r (1/4 - (r^2 - 1)^2 - p^2), theta' = 2: the cycles are a closed curve over p."""

    states = PLANE
    inputs = P

    def vector_field(self, t, x, u):
        X, Y = self.split(x).values()
        growth = 0.25 - (X**2 + Y**2 - 1) ** 2 - u**2
        return self.join(x=growth * X - 2 * Y, y=2 * X + growth * Y)


def hopf_of(system, parameter, span):
    points = continue_equilibria(system, parameter, span).points
    return next(point for point in points if point.kind == "hopf")


def test_cycles_of_a_subcritical_hopf_fold_back_where_the_closed_form_says():
    branch = continue_cycles(Quintic(), "p", hopf_of(Quintic(), "p", (-1, 1)), span=(-1, 0.5))
    assert branch.ends == ("birth", "end of the span")
    (fold,) = branch.points
    assert fold.kind == "cycle fold"
    assert float(fold.value) == pytest.approx(-0.25, abs=1e-10)
    assert float(fold.frequency) == pytest.approx(1 / math.pi, rel=1e-9)
    square = branch.highest[:, 0] ** 2
    np.testing.assert_allclose(branch.values, square**2 - square, atol=2e-3)  # highest node
    np.testing.assert_allclose(branch.periods, math.pi, rtol=1e-9)
    away = np.abs(square - 0.5) > 0.05
    np.testing.assert_array_equal(branch.stable[away], square[away] > 0.5)
    # multiplier exp(T d/dr [r (p + r^2 - r^4)]) with T = pi
    radius = np.linalg.norm(branch.states, axis=1)
    expected = np.exp(math.pi * (2 * radius**2 - 4 * radius**4))
    np.testing.assert_allclose(branch.eigenvalues[:, 1].real, expected, rtol=1e-5)


def test_a_branch_ends_at_a_saddle_node_on_the_cycle_by_its_square_root_law():
    cycle = find_limit_cycle(InvariantCircle(), [1.0, 0.0], u=1.0)
    branch = continue_cycles(InvariantCircle(), "p", cycle, span=(-1, 2))
    end = branch.points[0]
    assert end.kind == "snic"
    assert abs(float(end.value)) < 1e-9
    p = branch.values
    assert p.min() < 1e-6
    np.testing.assert_allclose(branch.periods, 2 * math.pi / np.sqrt(p * (p + 2)), rtol=1e-3)
    assert np.abs(branch.eigenvalues[:, 0] - 1).max() < 1e-3
    assert branch.stable.all()


def test_a_torus_is_born_where_a_pair_of_multipliers_leaves_the_unit_circle():
    cycle = find_limit_cycle(Torus(), [1.0, 0.0, 0.0, 0.0], u=-0.2, period=6.0)
    branch = continue_cycles(Torus(), "p", cycle, span=(-0.3, 0.3))
    (torus,) = branch.points
    assert torus.kind == "torus"
    assert abs(float(torus.value)) < 1e-8
    expected = np.exp(2 * math.pi * (branch.values + 0.3j))
    pair = branch.eigenvalues[:, 1:][np.abs(branch.eigenvalues[:, 1:].imag) > 1e-6]
    np.testing.assert_allclose(np.sort(np.abs(pair))[::2], np.sort(np.abs(expected)), rtol=1e-6)


def test_rossler_doubles_its_period_where_it_is_known_to_and_the_double_can_be_followed():
    cycle = find_limit_cycle(Rossler(2.5), [2.0, 2.0, 0.1])
    branch = continue_cycles(Rossler(2.5), "c", cycle, span=(2.2, 3.4))
    (doubling,) = branch.points
    assert doubling.kind == "period doubling"
    assert float(doubling.value) == pytest.approx(2.832445, abs=1e-5)
    double = continue_cycles(Rossler(2.5), "c", doubling, span=(2.2, 4.0))
    assert double.periods[0] == pytest.approx(2 / float(doubling.frequency), rel=1e-2)
    assert double.stable[0]
    second = next(point for point in double.points if point.kind == "period doubling")
    assert float(second.value) == pytest.approx(3.84, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "span", "folds"),
    [
        ("MorrisLecar", (-20, 250), [88.2932505]),
        ("HodgkinHuxley", (-10, 200), [7.8423471, 7.9177855, 6.2603213]),
    ],
)
def test_cycles_of_published_neurons_fold_where_they_are_known_to(published, name, span, folds):
    system = getattr(published, name)()
    branch = continue_cycles(system, "I", hopf_of(system, "I", span), span)
    found = [float(point.value) for point in branch.points if point.kind == "cycle fold"]
    np.testing.assert_allclose(found[: len(folds)], folds, atol=1e-6)
    assert branch.ends[1] == "a Hopf point"
    assert np.abs(branch.eigenvalues[:, 0] - 1).max() < 1e-3


@pytest.mark.slow
def test_morris_lecar_reaches_its_snic_with_the_law_of_the_normal_form(published):
    system = published.MorrisLecar(g_Ca=4.0, V3=12.0, V4=17.4, phi=1 / 15)
    equilibria = continue_equilibria(system, "I", span=(-20, 120))
    fold, _, hopf = equilibria.points
    branch = continue_cycles(system, "I", hopf, span=(-20, 120))
    gap = branch.values - float(fold.value)
    assert gap.min() <= 1e-6
    law = math.sqrt(fold.coefficient) / math.pi  # f = sqrt(a b (I - Ic)) / pi
    assert law * 1e3 == pytest.approx(5.668015, rel=1e-6)
    close = gap < 2e-6
    np.testing.assert_allclose(1 / branch.periods[close] / np.sqrt(gap[close]), law, rtol=1e-3)
    assert branch.points[-1].kind == "snic"
    assert float(branch.points[-1].value) == pytest.approx(39.963153, abs=1e-6)


@pytest.mark.slow
def test_morris_lecar_reaches_its_homoclinic_orbit(published):
    system = published.MorrisLecar(g_Ca=4.0, V3=12.0, V4=17.4, phi=0.23)
    branch = continue_cycles(system, "I", hopf_of(system, "I", (-20, 120)), span=(-20, 120))
    fold, homoclinic = branch.points
    assert (fold.kind, homoclinic.kind) == ("cycle fold", "homoclinic")
    assert float(homoclinic.value) == pytest.approx(35.00673, abs=1e-5)
    saddle = system.vector_field(0.0, homoclinic.state, homoclinic.value.reshape(1))
    assert saddle.abs().max() < 1e-6


def test_a_closed_branch_of_cycles_is_walked_once_between_its_two_folds():
    cycle = find_limit_cycle(Isola(), [1.2, 0.0], u=0.1)
    branch = continue_cycles(Isola(), "p", cycle, span=(-1, 1))
    assert branch.ends == ("closed on itself", "closed on itself")
    folds = sorted(float(point.value) for point in branch.points)
    np.testing.assert_allclose(folds, [-0.5, 0.5], atol=1e-9)
    radius = np.linalg.norm(branch.states, axis=1)
    np.testing.assert_allclose((radius**2 - 1) ** 2 + branch.values**2, 0.25, atol=1e-8)


def test_a_branch_of_cycles_comes_as_a_table_and_as_json():
    hopf = hopf_of(Quintic(), "p", (-1, 1))
    branch = continue_cycles(Quintic(), "p", hopf, span=(-0.2, 0.5))
    expected = ["p (1)", "stable", "period (1)"]
    expected += ["lowest x (1)", "highest x (1)", "lowest y (1)", "highest y (1)"]
    assert list(branch.to_pandas().columns) == expected
    assert len(branch.cycles) == len(branch)
    json.dumps(branch.to_dict())


def test_bad_starts_are_refused_in_words():
    hopf = hopf_of(Quintic(), "p", (-1, 1))
    with pytest.raises(ArgumentError, match="outside the span"):
        continue_cycles(Quintic(), "p", hopf, span=(1, 2))
    branch = continue_equilibria(InvariantCircle(), "p", span=(-1, 1))
    with pytest.raises(ArgumentError, match="no cycles are born at a fold"):
        continue_cycles(InvariantCircle(), "p", branch.points[0], span=(-1, 1))
