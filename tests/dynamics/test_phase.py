import json
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from clinode.dynamics.cycles import find_limit_cycle
from clinode.dynamics.phase import phase_response
from clinode.errors import ArgumentError, SolverError
from clinode.system import Quantity, System, Values


class Clock(System):
    """r' = r (1 - r^2), theta' = w - b r^2: the phase is theta - b ln r."""

    states = (Quantity("x", "1", range=(-2.0, 2.0)), Quantity("y", "1", range=(-2.0, 2.0)))
    constants = (Quantity("w", "1"), Quantity("b", "1"))

    def __init__(self, w: Values, b: Values):
        super().__init__()
        self.register_constants(w=w, b=b)

    def vector_field(self, t, x, u):
        X, Y = self.split(x).values()
        square = X**2 + Y**2
        growth, turn = 1 - square, self.w - self.b * square
        return self.join(x=growth * X - turn * Y, y=turn * X + growth * Y)


class Theta(System):
    states = (Quantity("theta", "rad", range=(-math.pi, math.pi)),)
    inputs = (Quantity("I", "1"),)

    def vector_field(self, t, x, u):
        return 1 - torch.cos(x) + (1 + torch.cos(x)) * u


@pytest.mark.parametrize("b", [0.0, 0.7, -1.5])
def test_response_of_a_clock_with_twisted_isochrons_matches_its_closed_form(b):
    system = Clock(3.0, b)
    cycle = find_limit_cycle(system, [1.0, 0.0])
    response = phase_response(system, cycle)
    X, Y = cycle.states.T
    torch.testing.assert_close(
        response.by_state[:, 0], (-Y - b * X) / (2 * math.pi), atol=1e-9, rtol=0
    )
    torch.testing.assert_close(
        response.by_state[:, 1], (X - b * Y) / (2 * math.pi), atol=1e-9, rtol=0
    )
    assert response.kind("x") == "type 2"


def test_theta_neuron_has_the_type_1_response_of_its_closed_form():
    cycle = find_limit_cycle(Theta(), [0.0], u=0.25)
    response = phase_response(Theta(), cycle)
    theta = cycle.states[:, 0]
    speed = 1 - torch.cos(theta) + (1 + torch.cos(theta)) * 0.25
    expected = (1 + torch.cos(theta)) / speed / cycle.period
    torch.testing.assert_close(response.by_input[:, 0], expected, atol=1e-8, rtol=0)
    assert response.kind("I") == "type 1"


@pytest.mark.slow
def test_response_of_a_neuron_matches_a_small_push_and_a_long_wait(published):
    system, I = published.MorrisLecar(), 120.0
    cycle = find_limit_cycle(system, [-60.0, 0.0], u=I)
    response, period = phase_response(system, cycle), float(cycle.period)
    at, push = [10, 60, 120], 0.1
    starts = torch.stack([cycle.states[at], cycle.states[at] + torch.tensor([push, 0.0])])

    def rate(t, x):
        states = torch.tensor(x).reshape(starts.shape)
        return system.vector_field(t, states, torch.tensor([I], dtype=torch.float64)).flatten()

    solved = solve_ivp(
        rate, (0, 2 * period), starts.flatten(), method="DOP853", rtol=1e-8, atol=1e-10
    )
    end, pushed = torch.tensor(solved.y[:, -1]).reshape(starts.shape)
    velocity = system.vector_field(0.0, end, torch.tensor([I], dtype=torch.float64))
    scale = torch.tensor([100.0, 0.5])
    later = ((pushed - end) / scale * (velocity / scale)).sum(-1) / ((velocity / scale) ** 2).sum(
        -1
    )
    np.testing.assert_allclose(
        later / period / push, response.by_state[at, 0], rtol=0.02, atol=1e-5
    )


def test_responses_come_as_a_table_and_refuse_what_they_do_not_know():
    system = Clock(3.0, 0.0)
    cycle = find_limit_cycle(system, [1.0, 0.0])
    response = phase_response(system, cycle)
    assert list(response.to_pandas().columns) == ["phase", "per 1 of x", "per 1 of y"]
    assert len(json.loads(json.dumps(response.to_dict()))["phases"]) == len(cycle.times)
    with pytest.raises(ArgumentError, match="no state or input is called 'z'"):
        response.kind("z")
    with pytest.raises(SolverError, match="none of this system"):
        phase_response(Clock(4.0, 0.0), cycle)
