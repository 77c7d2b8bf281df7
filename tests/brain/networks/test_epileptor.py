import numpy as np
import pytest
import torch

from clinode.brain.connectome import Connectome, simulate_connectome
from clinode.brain.networks import EpileptorNetwork
from clinode.brain.seizure import Epileptor
from clinode.dynamics import find_equilibria, simulate


def test_one_region_is_the_single_epileptor(by_hand):
    network = EpileptorNetwork(by_hand.one_region(), x0=-1.7, tau0=2000.0)
    single = Epileptor(x0=-1.7, tau0=2000.0)
    x, u = by_hand.draw(30, 6, low=-2.0, high=2.0), by_hand.draw(30, 1, seed=1)
    torch.testing.assert_close(network(0.0, x, u), single(0.0, x, u), rtol=0, atol=0)
    torch.testing.assert_close(network.output(0.0, x, u), single.output(0.0, x, u))


def test_a_region_that_seizes_lowers_the_permittivity_of_what_it_reaches(by_hand):
    weights = torch.tensor([[0.0, 0.0], [2.0, 0.0]])  # the first reaches the second
    pair = Connectome(weights=weights, labels=("focus", "target"))
    K, tau0 = 1.3, 2857.0
    coupled, apart = (EpileptorNetwork(pair, K=k) for k in (K, 0.0))
    x = by_hand.double(0.5, -1.6, -12, -12, 3.2, 3.2, 0.1, -0.9, 0, 0, -160, -160)
    u = by_hand.double(0, 0)
    change = (coupled(0.0, x, u) - apart(0.0, x, u)).reshape(6, 2)
    expected = torch.zeros(6, 2).double()
    expected[2, 1] = -K * (0.5 + 1.6) / tau0
    torch.testing.assert_close(change, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("x0", "rests"), [(-2.2, True), (-1.6, False)])
def test_regions_alike_rest_or_not_as_one_does(by_hand, x0, rests):
    network = EpileptorNetwork(by_hand.all_to_all(3), x0=x0, K=0.5)
    rest = find_equilibria(Epileptor(x0=x0), n_starts=8)[0].state
    together = rest.repeat_interleave(3)
    still = torch.zeros(3).double()
    assert network(0.0, together, still).abs().max() < 1e-10  # differences cancel
    J = torch.func.jacrev(lambda x: network(0.0, x, still))(together)
    assert (torch.linalg.eigvals(J).real.max() < 0) == rests


@pytest.mark.parametrize("speed", [None, 30.0])
def test_epileptors_do_what_euler_by_hand_does(by_hand, speed):
    n, step, steps = 4, 0.05, 200
    x0 = np.array([-1.6, -2.2, -2.2, -2.0])
    rounded = None if speed is None else step
    network = EpileptorNetwork(
        simulate_connectome(n), K=2.0, x0=x0, tau0=50.0, speed=speed, delay_step=rounded
    )
    strength = network.weights.sum(-1).numpy()
    start = network.initial_state() + by_hand.draw(6 * n, seed=1, low=-0.3, high=0.8)

    def rate(s, received):
        pull = 2 * (received(lambda seen: seen["x1"]) - strength * s["x1"])
        low, high = s["x1"] ** 3 - 3 * s["x1"] ** 2, (s["x2"] - 0.6 * (s["z"] - 4) ** 2) * s["x1"]
        f1 = np.where(s["x1"] < 0, low, high)
        f2 = np.where(s["x2"] < -0.25, 0, 6 * (s["x2"] + 0.25))
        return {
            "x1": s["y1"] - f1 - s["z"] + 3.1,
            "y1": 1 - 5 * s["x1"] ** 2 - s["y1"],
            "z": (4 * (s["x1"] - x0) - s["z"] - pull) / 50,
            "x2": -s["y2"] + s["x2"] - s["x2"] ** 3 + 0.45 + 0.002 * s["g"] - 0.3 * (s["z"] - 3.5),
            "y2": (f2 - s["y2"]) / 10,
            "g": s["x1"] - 0.01 * s["g"],
        }

    path = by_hand.euler(network, rate, start, step, steps)
    found = simulate(network, start, [0.0, 5.0, 10.0], method="euler", step=step).states
    np.testing.assert_allclose(found, path[[0, 100, 200]], rtol=1e-10, atol=1e-10)
