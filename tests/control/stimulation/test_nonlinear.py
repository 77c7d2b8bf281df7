import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

from clinode.brain.connectome import simulate_connectome
from clinode.brain.networks import WilsonCowanNetwork
from clinode.brain.populations import WilsonCowan
from clinode.control.stimulation.limits import StimulusLimits
from clinode.control.stimulation.nonlinear import optimize_inputs
from clinode.control.stimulation.trajectory_cost import StimulationCost, StimulationProblem
from clinode.dynamics.simulate import simulate
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity, Signal, System

LEAK = LinearSystem([[-1.0]], [[1.0]])


def seeded(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("hold", ["previous", "linear"])
def test_the_gradient_is_that_of_finite_differences(hold):
    reference = Signal([0.0, 9.0], [[0.1, 0.2], [0.3, 0.0]], "linear")
    cost = StimulationCost(target=reference, running=2.0, terminal=0.7, energy=0.3)
    problem = StimulationProblem(
        WilsonCowan(), [[0.1, 0.1], [0.2, 0.0]], [0.0, 2.0, 4.5, 9.0], cost, hold=hold, step=0.9
    )
    v = seeded(*problem.shape)
    _, slope = problem.gradient(v)
    for k in range(20):
        direction = seeded(21, *problem.shape)[k]
        ahead, back = (problem.smooth(v + sign * 1e-5 * direction).sum() for sign in (1, -1))
        assert float((slope * direction).sum()) == pytest.approx(
            float((ahead - back) / 2e-5), rel=1e-6, abs=1e-8
        )


def test_the_least_cost_of_a_leak_is_its_closed_form_up_to_the_square_of_a_step():
    # min (x(T) - 1)^2 / 2 + int u^2 / 2 has the value 1 / (2 (1 + W)), W the Gramian
    closed = 1 / (2 * (1 + (1 - math.exp(-4)) / 2))
    cost, errors = StimulationCost(target=[1.0], energy=1.0), []
    for n in (8, 16, 32):
        found = optimize_inputs(LEAK, [0.0], torch.linspace(0, 2, n + 1), cost)
        assert found.status == "converged"
        errors.append(float(found.cost) - closed)
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders == pytest.approx([2.0, 2.0], abs=0.05)


@pytest.mark.slow
def test_a_batch_of_regulators_has_the_costs_of_its_riccati_equation():
    a, b, q, r, s, T = 0.5, 1.0, 2.0, 0.3, 1.0, 2.0
    riccati = solve_ivp(lambda t, p: 2 * a * p - p * p * b * b / r + q, (0, T), [s], rtol=1e-10)
    x0 = torch.tensor([[1.0], [-2.0]]).double()
    cost = StimulationCost(target=[0.0], terminal=s, running=q, energy=r)
    found = optimize_inputs(
        LinearSystem([[a]], [[b]]), x0, torch.linspace(0, T, 41), cost, tolerance=1e-4
    )
    expected = riccati.y[0, -1] / 2 * x0[:, 0] ** 2
    torch.testing.assert_close(found.cost, expected, rtol=3e-3, atol=0)
    assert (found.status == "converged").all()
    assert float(found.end_error.max()) < 1e-7


@pytest.mark.parametrize("sparsity", [0.0, 0.4, 1.1])
def test_a_price_of_the_size_lowers_a_stimulus_and_at_last_silences_it(sparsity):
    # x' = u: min (1 - int u)^2 / 2 + e/2 int u^2 + s int |u| is met by u = (1 - s) / (e + T)
    cost = StimulationCost(target=[1.0], energy=0.5, sparsity=sparsity)
    knots = torch.linspace(0, 2, 9)
    found = optimize_inputs(LinearSystem([[0.0]], [[1.0]]), [0.0], knots, cost)
    expected = max(0.0, 1 - sparsity) / 2.5
    values = found.signal.values[:-1, 0]
    torch.testing.assert_close(values, torch.full_like(values, expected), rtol=1e-6, atol=1e-12)


def test_limits_bind_as_in_a_general_solver():
    limits = StimulusLimits(amplitude=0.8, slew=2.0, balanced=True, energy=0.5)
    cost = StimulationCost(target=[1.0], energy=0.01)
    knots = torch.linspace(0, 2, 13)
    found = optimize_inputs(LEAK, [0.0], knots, cost, hold="linear", limits=limits)
    assert limits.check(found.signal).is_within
    problem = StimulationProblem(LEAK, [0.0], knots, cost, hold="linear")
    weights = problem.weights.numpy()[1:-1, 0]

    def whole(x):
        return torch.nn.functional.pad(torch.tensor(x), (1, 1)).unsqueeze(-1)

    def cost_and_slope(x):
        value, slope = problem.gradient(whole(x))
        return float(value), slope.numpy()[1:-1, 0]

    rises = np.diff(np.eye(13), axis=0)[:, 1:-1]
    best = minimize(
        cost_and_slope,
        np.zeros(11),
        jac=True,
        bounds=[(-0.8, 0.8)] * 11,
        constraints=[
            {"type": "ineq", "fun": lambda x: 1 / 3 - rises @ x},
            {"type": "ineq", "fun": lambda x: 1 / 3 + rises @ x},
            {"type": "eq", "fun": lambda x: weights @ x},
            {"type": "ineq", "fun": lambda x: 0.5 - weights @ x**2},
        ],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 300},
    )
    assert float(found.cost) == pytest.approx(best.fun, rel=1e-6)


@pytest.mark.slow
def test_a_network_is_driven_to_its_targets_and_a_problem_does_not_notice_its_mates():
    network = WilsonCowanNetwork(simulate_connectome(4))
    names = ["E:" + network.connectome.labels[0], "E:" + network.connectome.labels[2]]
    targets = torch.tensor([[0.1, 0.02], [0.02, 0.15]]).double()

    def found(target):
        cost = StimulationCost(target=target, on=names, energy=1e-5)
        return optimize_inputs(
            network, torch.full((8,), 0.01), torch.linspace(0, 20, 11), cost,
            limits=StimulusLimits(amplitude=2.5), max_iterations=40, check=False,
        )  # fmt: skip

    both, alone = found(targets), found(targets[1])
    torch.testing.assert_close(both.cost[1], alone.cost, rtol=1e-8, atol=0)
    assert float(both.terms["terminal"].max()) < 1e-5
    run = simulate(network, torch.full((8,), 0.01), [0.0, 20.0], both.signal, rtol=1e-9)
    ends = run.states[:, -1, [0, 2]]
    torch.testing.assert_close(ends, targets, rtol=0, atol=5e-3)


def test_parameter_sets_are_problems_of_one_batch():
    leaks = WilsonCowan().with_constants(c1=torch.tensor([[14.0], [16.0]]))
    cost = StimulationCost(target=[0.2], on=["E"], energy=0.01)
    found = optimize_inputs(
        leaks,
        [0.1, 0.1],
        torch.linspace(0, 10, 6),
        cost,
        inputs=["P"],
        tolerance=1e-3,
    )
    assert found.cost.shape == (2,)
    assert found.signal.values.shape == (2, 6, 2)
    assert float(found.cost[0]) != float(found.cost[1])
    table = found.to_pandas()
    assert len(table) == 2
    assert set(table.status) <= {"converged", "stalled"}  # both at the optimum
    json.dumps(found.to_dict())


class Explosion(System):
    """x' = x^2 + u."""

    states = (Quantity("x", "1"),)
    inputs = (Quantity("u", "1"),)

    def vector_field(self, t, x, u):
        return x**2 + u


def test_a_start_without_a_cost_is_said_and_spoils_no_other():
    cost = StimulationCost(target=[0.5], energy=0.1)
    x0 = torch.tensor([[0.1], [1e3]]).double()
    found = optimize_inputs(Explosion(), x0, torch.linspace(0, 1, 11), cost, check=False)
    assert found.status.tolist() == ["converged", "not finite"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: StimulationCost(target=[1.0], terminal=0.0), "cost without distance"),
        (lambda: StimulationCost(target=[1.0], energy=-1.0), "energy must not be negative"),
        (
            lambda: optimize_inputs(LEAK, [0.0], [0.0, 1.0], StimulationCost(target=[1.0, 2.0])),
            "expected",
        ),
        (
            lambda: optimize_inputs(LEAK, [0.0], [1.0, 0.0], StimulationCost(target=[1.0])),
            "times that increase",
        ),
        (
            lambda: optimize_inputs(
                LEAK,
                [0.0],
                [0.0, 1.0],
                StimulationCost(target=[1.0]),
                limits=StimulusLimits(charge=1.0),
            ),
            "no convex limit",
        ),
        (
            lambda: optimize_inputs(
                LEAK, [0.0], [0.0, 1.0], StimulationCost(target=[1.0], on=["x12"])
            ),
            "did you mean 'x1'",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(call, words):
    with pytest.raises(ArgumentError, match=words):
        call()
