import math

import numpy as np
import torch

from clinode.dynamics.equilibria import find_equilibria
from clinode.dynamics.excursion import CYCLES, ESCAPES, RESTS, RETURNS, leave_saddle_node
from clinode.dynamics.field import Field
from clinode.system import Quantity, System

SNIC = (4.0, 12.0, 17.4, 1 / 15)
HOMOCLINIC = (4.0, 12.0, 17.4, 0.23)


class Line(System):
    """x' = x^2 (1 - cubic x): away for good, or to rest at 1 / cubic."""

    states = (Quantity("x", "1", range=(-2.0, 2.0)),)

    def __init__(self, cubic: float):
        super().__init__()
        self.cubic = cubic

    def vector_field(self, t, x, u):
        return x**2 * (1 - self.cubic * x)


class Theta(System):
    states = (Quantity("theta", "rad", range=(-math.pi, math.pi)),)

    def vector_field(self, t, x, u):
        return 1 - torch.cos(x)


class WeaklyDamped(System):
    """x leaves a saddle-node at 0 for 1, where it drives an axon to the brink of firing."""

    def __init__(self, axon: System, speed: float):
        super().__init__()
        self.axon, self.speed = axon, speed
        self.states = (Quantity("x", "1", range=(-1.0, 1.0)), *axon.states)

    def vector_field(self, t, x, u):
        s, rest = x[..., :1], x[..., 1:]
        rates = self.axon.vector_field(t, rest, 9.5 * s)
        return torch.cat([self.speed * s**2 * (1 - s), rates], dim=-1)


def test_a_trajectory_that_its_solver_keeps_going_round_a_stable_focus_rests(published):
    # The axon loses its rest at 9.775: at 9.5 it is damped by 5e-3 of a round.
    axon = published.HodgkinHuxley()
    start = find_equilibria(axon, u=0.0)[0].state.numpy()
    system = Field(WeaklyDamped(axon, 0.3), 0.0)
    assert leave_saddle_node(system, np.array([0.0, *start])).verdict == RESTS


def test_the_manifold_of_a_saddle_node_returns_to_it_or_does_not(published):
    fold = 39.963153092745365
    for constants, verdict in ((SNIC, RETURNS), (HOMOCLINIC, CYCLES)):
        system = published.MorrisLecar(*constants)
        state = np.array([-29.389777, 0.0])
        state[1] = (1 + np.tanh((state[0] - 12.0) / 17.4)) / 2
        assert leave_saddle_node(Field(system, fold), state).verdict == verdict


def test_an_angle_that_turns_once_has_returned():
    assert leave_saddle_node(Field(Theta(), 0.0), np.array([0.0])).verdict == RETURNS


def test_what_escapes_or_comes_to_rest_elsewhere_does_not_return():
    assert leave_saddle_node(Field(Line(0.0), 0.0), np.array([0.0])).verdict == ESCAPES
    rests = leave_saddle_node(Field(Line(1.0), 0.0), np.array([0.0]))
    assert rests.verdict == RESTS
    np.testing.assert_allclose(rests.end, 1.0, atol=1e-4)
