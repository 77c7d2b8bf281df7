import numpy as np
import pytest
import scipy.integrate
import torch

import clinode as cn
from clinode.alignment.rest import settle

NONE = torch.zeros(0).double()


class Memory(cn.System):
    """x' = -x + tanh(W x), W symmetric: every start comes to rest, at one of several states."""

    def __init__(self, W):
        super().__init__()
        labels = tuple(str(k) for k in range(len(W)))
        self.states = (cn.Quantity("x", "1", labels, range=(-1.5, 1.5)),)
        self.outputs = self.states
        self.register_buffer("W", W)

    def vector_field(self, t, x, u):
        return -x + torch.tanh(x @ self.W.T)


class Oscillator(cn.System):
    states = (cn.Quantity("x", "1", range=(-2.0, 2.0)), cn.Quantity("v", "1", range=(-2.0, 2.0)))
    constants = (cn.Quantity("damping", "1"),)

    def __init__(self, damping):
        super().__init__()
        self.register_constants(damping=damping)

    def vector_field(self, t, x, u):
        x, v = self.split(x).values()
        return self.join(x=v, v=-self.damping * (1 - x**2) * v - 25 * x)


@pytest.mark.parametrize("seed", range(5))
def test_a_state_settles_where_a_long_integration_ends(seed):
    draw = np.random.default_rng(seed)
    W = draw.standard_normal((4, 4))
    W = 1.5 * (W + W.T) / 2
    start = draw.uniform(-1, 1, 4)
    end = scipy.integrate.solve_ivp(
        lambda t, x: -x + np.tanh(W @ x), (0, 2000), start, method="LSODA", rtol=1e-10, atol=1e-12
    ).y[:, -1]
    found = settle(Memory(torch.tensor(W)), start, NONE)
    assert found.state is not None, found.why
    np.testing.assert_allclose(found.state, end, atol=1e-8)


@pytest.mark.slow
def test_a_ringing_system_settles_and_one_that_cycles_does_not():
    start = np.array([0.3, 0.0])
    found = settle(Oscillator(0.05), start, NONE)
    assert found.state is not None, found.why
    np.testing.assert_allclose(found.state, 0.0, atol=1e-9)
    cycling = settle(Oscillator(-1.0), start, NONE)
    assert cycling.state is None
    assert "did not come to rest" in cycling.why


def test_a_saddle_and_a_flight_are_no_rest():
    saddle = settle(Memory(2.0 * torch.eye(2).double()), np.zeros(2), NONE)
    assert saddle.why == "it comes to rest at a state that is not stable"
    with_gain = cn.intervene(Memory(torch.eye(2).double()), cn.inject("x:0", 1e9))
    assert settle(with_gain, np.zeros(2), NONE).why == "it runs away"
    singular = cn.LinearSystem([[0.0, 0.0], [0.0, -1.0]], torch.zeros(2, 0))
    assert "singular" in settle(singular, np.zeros(2), NONE).why
