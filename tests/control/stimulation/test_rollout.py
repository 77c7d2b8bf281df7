import itertools
import math

import numpy as np
import pytest
import torch

from clinode.brain.connectome import simulate_connectome
from clinode.brain.networks import WilsonCowanNetwork
from clinode.brain.populations import WilsonCowan
from clinode.control.stimulation.rollout import Stages, check_rolls, rollout
from clinode.dynamics.fixed_step import step_grid
from clinode.dynamics.simulate import simulate
from clinode.errors import ArgumentError
from clinode.system import DiscreteSystem, Quantity, Signal


def seeded(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("hold", ["previous", "linear"])
@pytest.mark.parametrize("method", ["rk4", "heun", "midpoint", "euler"])
def test_the_states_are_those_of_simulate(method, hold):
    system, x0 = WilsonCowan(), torch.tensor([[0.1, 0.1], [0.2, 0.0]]).double()
    knots = torch.tensor([0.0, 3.0, 7.5, 10.0]).double()
    values = seeded(4, 2)
    nodes = step_grid(knots[[0, -1]], knots, 0.8).nodes
    inputs = Stages(knots, hold, nodes)(values).unsqueeze(2)
    ends = rollout(system, x0, nodes, inputs, method)[-1]
    run = simulate(system, x0, knots[[0, -1]], Signal(knots, values, hold), method=method, step=0.8)
    torch.testing.assert_close(ends, run.states[:, -1], rtol=1e-12, atol=1e-14)


def test_the_gradient_is_that_of_plain_autograd_and_of_differences():
    system, n = WilsonCowan(), 23  # not a whole number of blocks
    nodes = torch.linspace(0, 9, n + 1, dtype=torch.float64)
    x0 = torch.full((3, 2), 0.1, dtype=torch.float64).requires_grad_()
    inputs = seeded(n, 3, 3, 2).requires_grad_()

    def total(x0, inputs):
        states = rollout(system, x0, nodes, inputs)
        return (states[5] * states[-1]).sum() + states[11].square().sum()

    assert torch.autograd.gradcheck(total, (x0, inputs), eps=1e-6, atol=1e-7, fast_mode=True)
    ours = torch.autograd.grad(total(x0, inputs), [x0, inputs])
    states, h = [x0], float(nodes[1])
    for k in range(n):
        x, u = states[-1], inputs[k]
        k1 = system(0.0, x, u[0])
        k2 = system(0.0, x + h / 2 * k1, u[1])
        k3 = system(0.0, x + h / 2 * k2, u[1])
        k4 = system(0.0, x + h * k3, u[2])
        states.append(x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
    plain = (states[5] * states[-1]).sum() + states[11].square().sum()
    for a, b in zip(ours, torch.autograd.grad(plain, [x0, inputs]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


def test_a_problem_does_not_notice_its_batch_mates():
    network = WilsonCowanNetwork(simulate_connectome(6))
    nodes = torch.linspace(0, 5, 11, dtype=torch.float64)
    inputs = seeded(10, 1, 4, 6).requires_grad_()
    x0 = 0.1 * seeded(4, 12).abs()
    whole = rollout(network, x0, nodes, inputs)
    (slope,) = torch.autograd.grad(whole[-1].square().sum(), inputs)
    one = inputs[:, :, 2:3].detach().requires_grad_()
    alone = rollout(network, x0[2:3], nodes, one)
    (own,) = torch.autograd.grad(alone[-1].square().sum(), one)
    torch.testing.assert_close(whole[:, 2:3], alone, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(slope[:, :, 2:3], own, rtol=1e-12, atol=1e-15)


def test_lines_have_the_values_of_the_signal_at_the_stages():
    knots = torch.tensor([0.0, 1.0, 1.0, 4.0]).double()  # a jump at 1
    values = torch.tensor([[0.0], [2.0], [5.0], [-1.0]]).double()
    nodes = step_grid(torch.tensor([0.0, 5.0]).double(), knots, 0.7).nodes
    stages = Stages(knots, "linear", nodes)(values)
    signal = Signal(knots, values, "linear")
    middle = (nodes[1:] + nodes[:-1]) / 2
    for i, t in enumerate((nodes[:-1], middle, nodes[1:])):
        torch.testing.assert_close(stages[:, i], signal(t, within=middle))


def test_the_order_of_the_method_is_that_of_its_name():
    system = WilsonCowan()
    x0, u = torch.tensor([0.1, 0.1]).double(), torch.tensor([1.25, 0.0]).double()

    def end(n):
        nodes = torch.linspace(0, 20, n + 1, dtype=torch.float64)
        return rollout(system, x0, nodes, u.expand(n, 1, 2))[-1]

    exact = end(240)
    errors = [float((end(n) - exact).norm()) for n in (15, 30, 60)]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert np.mean(orders) == pytest.approx(4.0, abs=0.3)


class Halving(DiscreteSystem):
    states = (Quantity("x", "1"),)

    def next_state(self, k, x, u):
        return x / 2


def test_what_the_steps_cannot_follow_is_refused():
    delayed = WilsonCowanNetwork(simulate_connectome(4), speed=5.0)
    with pytest.raises(ArgumentError, match="has delays"):
        check_rolls(delayed)
    with pytest.raises(ArgumentError, match="is a map"):
        check_rolls(Halving())
    nodes = torch.tensor([0.0, 1.0]).double()
    with pytest.raises(ArgumentError, match="method must be one of"):
        rollout(WilsonCowan(), torch.zeros(2).double(), nodes, torch.zeros(1, 1, 2).double(), "rk5")
