import math

import numpy as np
import pytest
import torch
from scipy.optimize import root_scalar

from clinode.brain.connectome import simulate_connectome
from clinode.brain.networks import KuramotoNetwork, StuartLandauNetwork, order_parameter
from clinode.dynamics import simulate

# Stuart-Landau


@pytest.mark.parametrize("a", [0.4, -0.3])
def test_alone_a_region_follows_the_closed_form_to_its_circle_or_to_rest(by_hand, a):
    b, omega = 1.7, 3.0
    network = StuartLandauNetwork(by_hand.one_region(), a=a, b=b, omega=omega)
    radius, times = 0.2, np.linspace(0, 4, 9)
    run = simulate(network, [radius, 0.0], times, method="rk4", step=0.02).states
    square = a / (b + (a / radius**2 - b) * np.exp(-2 * a * times))
    around = np.stack([np.cos(omega * times), np.sin(omega * times)], axis=1)
    np.testing.assert_allclose(run, np.sqrt(square)[:, None] * around, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("speed", [None, 20.0])
def test_oscillators_do_what_euler_by_hand_does(by_hand, speed):
    n, step, steps = 4, 1e-3, 400
    omega = np.array([2.0, 5.0, 7.0, 11.0])
    rounded = None if speed is None else step
    network = StuartLandauNetwork(
        simulate_connectome(n, seed=1), K=3.0, a=0.5, omega=omega, speed=speed, delay_step=rounded
    )
    strength = network.weights.sum(-1).numpy()
    x = by_hand.draw(2 * n, seed=3)
    push = np.array([0.0, 0.4, 0.0, 0.0])

    def rate(s, received):
        growth = 0.5 - s["x"] ** 2 - s["y"] ** 2
        pull = {v: 3 * (received(lambda seen, v=v: seen[v]) - strength * s[v]) for v in "xy"}
        return {
            "x": growth * s["x"] - omega * s["y"] + push + pull["x"],
            "y": growth * s["y"] + omega * s["x"] + pull["y"],
        }

    path = by_hand.euler(network, rate, x, step, steps)
    found = simulate(
        network, x, [0.0, 0.1, 0.4], torch.tensor(push), method="euler", step=step
    ).states
    np.testing.assert_allclose(found, path[[0, 100, 400]], rtol=0, atol=1e-12)


def test_regions_in_step_are_not_coupled(by_hand):
    n, omega, a, b, phase = 5, 4.0, 0.3, 1.3, 0.7
    network = StuartLandauNetwork(by_hand.all_to_all(n), K=2.0, a=a, b=b, omega=omega)
    radius = math.sqrt(a / b)  # the circle, on which all go round alike
    x, y = radius * math.cos(phase), radius * math.sin(phase)
    found = network.vector_field(0.0, by_hand.double(*[x] * n, *[y] * n), torch.zeros(n).double())
    expected = by_hand.double(*[-omega * y] * n, *[omega * x] * n)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


# Kuramoto


def test_locked_phases_solve_the_self_consistency_equation(by_hand):
    n, K = 40, 3.0
    omega = np.linspace(-1, 1, n)
    effective = K * n / (n - 1)  # no region couples to itself

    def gap(r):
        return np.sqrt(1 - (omega / (effective * r)) ** 2).mean() - r

    r = root_scalar(gap, bracket=(0.8, 1.0)).root
    theta = torch.tensor(np.arcsin(omega / (effective * r)))
    network = KuramotoNetwork(by_hand.all_to_all(n), K=K, omega=omega)
    assert float(order_parameter(theta)) == pytest.approx(r, abs=1e-12)
    rate = network.vector_field(0.0, theta, torch.zeros(n).double())
    torch.testing.assert_close(rate, torch.zeros(n).double(), rtol=0, atol=1e-12)
    start = by_hand.draw(n, seed=1, low=-1.0, high=1.0)
    run = simulate(network, start, [0.0, 30.0], method="rk4", step=0.1).states[-1]
    assert float(order_parameter(run)) == pytest.approx(r, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("K", "expected"), [(4.0, math.sqrt(1 - 2 / 4)), (8.0, math.sqrt(0.75))])
def test_lorentzian_frequencies_agree_as_kuramoto_found(by_hand, K, expected):
    n = 100
    omega = np.tan(np.pi * ((np.arange(n) + 0.5) / n - 0.5))  # half-width 1
    network = KuramotoNetwork(by_hand.all_to_all(n), K=K, omega=omega)
    times = torch.linspace(0, 16, 161).double()
    run = simulate(network, torch.zeros(n), times, method="rk4", step=0.02).states
    assert float(order_parameter(run[60:]).mean()) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("speed", [None, 6.0])
def test_phases_do_what_euler_by_hand_does(by_hand, speed):
    n, step, steps = 4, 1e-3, 200
    omega = 2 * np.pi * np.array([9.0, 10.0, 10.5, 12.0])
    rounded = None if speed is None else step
    network = KuramotoNetwork(
        simulate_connectome(n), K=40.0, omega=omega, speed=speed, delay_step=rounded
    )
    x = by_hand.draw(n, seed=2, low=-3, high=3)

    def rate(s, received):
        own = s["theta"][:, None]
        return {"theta": omega + 40 * received(lambda seen: np.sin(seen["theta"] - own))}

    path = by_hand.euler(network, rate, x, step, steps)
    run = simulate(network, x, [0.0, 0.1, 0.2], method="euler", step=step)
    np.testing.assert_allclose(run.states, path[[0, 100, 200]], rtol=0, atol=1e-11)
    torch.testing.assert_close(run.outputs, run.states.sin())


def test_two_delayed_phases_turn_at_the_frequency_of_the_closed_form(by_hand):
    # in step: Omega = omega - K sin(Omega tau), Yeung & Strogatz 1999, Phys Rev Lett 82:648-651
    from dataclasses import replace

    pair = replace(by_hand.all_to_all(2), tract_lengths=torch.full((2, 2), 40.0))
    omega, K, tau = 2 * np.pi * 10, 30.0, 0.008
    network = KuramotoNetwork(pair, K=K, omega=omega, speed=5.0)
    Omega = root_scalar(lambda w: w - omega + K * np.sin(w * tau), bracket=(0, 2 * omega)).root

    def turning(t):
        return (Omega * t).unsqueeze(-1).expand(*t.shape, 2)

    times = torch.tensor([0.0, 0.2, 0.4]).double()
    run = simulate(network, [0.0, 0.0], times, method="rk4", step=0.002, history=turning).states
    expected = Omega * times.numpy()[:, None].repeat(2, 1)
    np.testing.assert_allclose(run, expected, rtol=0, atol=1e-6)
