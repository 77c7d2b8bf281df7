import math

import numpy as np
import pytest
import torch

from clinode.dynamics.field import Field
from clinode.dynamics.recurrence import find_recurrence
from clinode.errors import SolverError
from clinode.system import Quantity, System


class Circle(System):
    """r' = pull r (1 - r^2), theta' = 5: rounds of 2 pi / 5."""

    states = (Quantity("x", "1", range=(-2.0, 2.0)), Quantity("y", "1", range=(-2.0, 2.0)))

    def __init__(self, pull: float = 1.0):
        super().__init__()
        self.pull = pull

    def vector_field(self, t, x, u):
        X, Y = self.split(x).values()
        growth = self.pull * (1 - X**2 - Y**2)
        return self.join(x=growth * X - 5 * Y, y=5 * X + growth * Y)


class Turning(System):
    states = (Quantity("theta", "rad", range=(-math.pi, math.pi)),)

    def vector_field(self, t, x, u):
        return 2 + 0 * torch.cos(x)


class Linear(System):
    """x' = growth x - y, y' = x + growth y."""

    states = (Quantity("x", "1", range=(-1.0, 1.0)), Quantity("y", "1", range=(-1.0, 1.0)))

    def __init__(self, growth: float):
        super().__init__()
        self.growth = growth

    def vector_field(self, t, x, u):
        X, Y = self.split(x).values()
        return self.join(x=self.growth * X - Y, y=X + self.growth * Y)


@pytest.mark.slow
@pytest.mark.parametrize("pull", [0.05, 1.0, 20.0])
def test_one_round_is_found_and_not_several(pull):
    found = find_recurrence(Field(Circle(pull)), np.array([0.3, 0.0]), None)
    assert found.period == pytest.approx(2 * math.pi / 5, rel=0.01)
    np.testing.assert_allclose(found.states[-1], found.states[0], atol=0.03)


def test_an_angle_winds_once_a_round():
    found = find_recurrence(Field(Turning()), np.array([0.3]), None)
    assert found.period == pytest.approx(math.pi, rel=1e-3)
    assert found.winding == pytest.approx([2 * math.pi])


@pytest.mark.slow
def test_a_slow_spiral_is_no_cycle():
    with pytest.raises(SolverError, match="comes to rest"):
        find_recurrence(Field(Linear(-0.01)), np.array([1.0, 0.0]), None)
    with pytest.raises(SolverError, match="grows without bound"):
        find_recurrence(Field(Linear(0.05)), np.array([1.0, 0.0]), None)


def test_a_period_that_is_given_is_one_round_however_badly_it_closes():
    found = find_recurrence(Field(Linear(-0.1)), np.array([1.0, 0.0]), 6.0)
    assert (found.period, found.times[-1]) == (6.0, 6.0)
    np.testing.assert_allclose(
        found.states[-1], math.exp(-0.6) * np.array([math.cos(6.0), math.sin(6.0)]), atol=1e-5
    )
