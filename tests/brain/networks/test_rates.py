import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import root_scalar

from clinode.brain.circuits import WongWang
from clinode.brain.connectome import Connectome, simulate_connectome
from clinode.brain.networks import ReducedWongWangNetwork, SaturatingRateNetwork
from clinode.dynamics import find_equilibria, simulate
from clinode.errors import ArgumentError

# Reduced Wong-Wang


def H(x):
    y = 270 * x - 108
    return y / (1 - np.exp(-0.154 * y))


def two_that_compete():
    rivals = Connectome(weights=torch.tensor([[0.0, -1], [-1, 0]]), labels=("left", "right"))
    return ReducedWongWangNetwork(rivals, w=1.0, K=0.0497 / 0.2609, I0=0.3255)


def test_two_regions_that_inhibit_each_other_are_the_circuit_of_wong_and_wang(by_hand):
    x = by_hand.draw(20, 2, high=1.0)
    still = torch.zeros(2).double()
    circuit = WongWang().vector_field(0.0, x, still)
    network = two_that_compete().vector_field(0.0, x, still)
    torch.testing.assert_close(network, circuit, rtol=0, atol=1e-12)


def test_their_equilibria_are_the_published_circuits():
    found = find_equilibria(two_that_compete())
    stable = sorted(one.state.tolist() for one in found if one.is_stable)
    expected = [[0.03189, 0.56699], [0.10265, 0.10265], [0.56699, 0.03189]]
    np.testing.assert_allclose(stable, expected, atol=1e-5)
    saddles = sorted(one.state.tolist() for one in found if not one.is_stable)
    np.testing.assert_allclose(saddles, [[0.05579, 0.31384], [0.31384, 0.05579]], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("K", "n_states", "low"), [(0.0, 1, True), (0.8, 3, True), (1.6, 1, False)]
)
def test_regions_alike_rest_low_then_low_or_high_then_high_alone(by_hand, K, n_states, low):
    n = 4
    network = ReducedWongWangNetwork(by_hand.all_to_all(n), K=K)

    def slope(S):
        return -S / 0.1 + (1 - S) * 0.641 * H((0.9 + K) * 0.2609 * S + 0.3)

    pairs = itertools.pairwise(np.linspace(1e-3, 0.999, 2000))
    roots = [
        root_scalar(slope, bracket=(a, b), xtol=1e-14).root
        for a, b in pairs
        if slope(a) * slope(b) < 0
    ]
    still = torch.zeros(n).double()
    for root in roots:
        rate = network.vector_field(0.0, by_hand.double(*[root] * n), still)
        assert rate.abs().max() < 1e-11
    assert len(roots) == n_states
    assert [root < 0.06 for root in roots] == [low, False, False][:n_states]
    starts = torch.tensor([[0.0], [0.9]]).double().expand(2, n)
    run = simulate(network, starts, [0.0, 25.0], method="rk4", step=0.02).states[:, -1]
    np.testing.assert_allclose(run, [[roots[0]] * n, [roots[-1]] * n], atol=1e-4)


@pytest.mark.parametrize("speed", [None, 3.0])
def test_receptors_do_what_euler_by_hand_does(by_hand, speed):
    n, step, steps = 4, 2e-3, 300
    rounded = None if speed is None else step
    network = ReducedWongWangNetwork(simulate_connectome(n), K=1.5, speed=speed, delay_step=rounded)
    x = by_hand.draw(n, seed=1, high=1.0)
    more = np.array([0.0, 0.02, 0.0, 0.0])

    def rate(s, received):
        current = 0.2609 * (0.9 * s["S"] + 1.5 * received(lambda seen: seen["S"])) + 0.3 + more
        return {"S": -s["S"] / 0.1 + (1 - s["S"]) * 0.641 * H(current)}

    path = by_hand.euler(network, rate, x, step, steps)
    found = simulate(
        network, x, [0.0, 0.2, 0.6], torch.tensor(more), method="euler", step=step
    ).states
    np.testing.assert_allclose(found, path[[0, 100, 300]], rtol=0, atol=1e-12)


# Rates that saturate


def test_regions_alike_share_the_roots_of_the_scalar_equation(by_hand):
    n, K = 5, 2.0
    network = SaturatingRateNetwork(by_hand.all_to_all(n), K=K)
    root = root_scalar(lambda x: np.tanh(K * x) - x, bracket=(0.1, 1.0)).root
    still = torch.zeros(n).double()
    for value in (-root, 0.0, root):
        rate = network.vector_field(0.0, by_hand.double(*[value] * n), still)
        assert rate.abs().max() < 1e-12


def test_a_saturated_region_is_moved_by_nothing():
    connectome = simulate_connectome(4)
    drive = [0.0, 30.0, 0.0, 0.0]
    network = SaturatingRateNetwork(connectome, b=drive)
    x = torch.zeros(4).double()
    B = torch.func.jacrev(lambda u: network(0.0, x, u))(torch.zeros(4).double())
    assert B[1].abs().max() < 1e-20
    assert (B.diagonal()[[0, 2, 3]] > 0.09).all()


@pytest.mark.parametrize("speed", [None, 4.0])
def test_rates_do_what_euler_by_hand_does(by_hand, speed):
    n, step, steps = 4, 0.5, 200
    B = np.array([[1.0, 0.0], [0.5, 0.1], [0.0, -1.0], [0.0, 0.3]])
    u = np.array([0.7, -0.4])
    rounded = None if speed is None else step
    network = SaturatingRateNetwork(
        simulate_connectome(n), K=1.4, b=0.1, tau=8.0, B=B, electrodes=("coil", "DBS"),
        speed=speed, delay_step=rounded,
    )  # fmt: skip
    assert network.input_names == ("stimulus:coil", "stimulus:DBS")
    x = by_hand.draw(n, low=-1.0, high=1.0)

    def rate(s, received):
        drive = 1.4 * received(lambda seen: seen["x"]) + 0.1 + B @ u
        return {"x": (np.tanh(drive) - s["x"]) / 8}

    path = by_hand.euler(network, rate, x, step, steps)
    found = simulate(
        network, x, [0.0, 50.0, 100.0], torch.tensor(u), method="euler", step=step
    ).states
    np.testing.assert_allclose(found, path[[0, 100, 200]], rtol=0, atol=1e-13)


def test_fields_may_differ_between_parameter_sets(by_hand):
    connectome = simulate_connectome(4)
    B = by_hand.draw(3, 4, 2)
    network = SaturatingRateNetwork(connectome, B=B, electrodes=("a", "b"))
    x, u = by_hand.draw(3, 4, seed=1), by_hand.draw(2, seed=2)
    for i in range(3):
        one = SaturatingRateNetwork(connectome, B=B[i], electrodes=("a", "b"))
        torch.testing.assert_close(network(0.0, x, u)[i], one(0.0, x[i], u))


def test_fields_that_do_not_fit_are_refused():
    connectome = simulate_connectome(4)
    for B, electrodes in (([[1.0], [0.0]], ("a",)), ([[1.0]] * 4, ()), ([1.0] * 4, ("a",))):
        with pytest.raises(ArgumentError, match="regions by electrodes"):
            SaturatingRateNetwork(connectome, B=B, electrodes=electrodes)
    with pytest.raises(ArgumentError, match="B does not say what they reach"):
        SaturatingRateNetwork(connectome, electrodes=("a",))
