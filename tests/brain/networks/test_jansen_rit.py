import numpy as np
import pytest
import torch

from clinode.brain.connectome import simulate_connectome
from clinode.brain.networks import JansenRitNetwork
from clinode.brain.populations import JansenRit
from clinode.dynamics import find_equilibria, simulate


def test_one_region_is_the_single_column(by_hand):
    network = JansenRitNetwork(by_hand.one_region(), p=130.0, A=3.6, C=128.0)
    single = JansenRit(A=3.6, C=128.0)
    x, stimulus = 10 * by_hand.draw(20, 6, low=-1.0), 50 * by_hand.draw(20, 1, seed=1)
    alone = single.vector_field(0.0, x, 130.0 + stimulus)
    torch.testing.assert_close(network.vector_field(0.0, x, stimulus), alone, rtol=0, atol=0)
    torch.testing.assert_close(network.output(0.0, x, stimulus), x[:, 1:2] - x[:, 2:3])


@pytest.mark.slow
@pytest.mark.parametrize("speed", [None, 8.0])
def test_columns_do_what_euler_by_hand_does(by_hand, speed):
    n, step, steps = 4, 1e-4, 600
    connectome = simulate_connectome(n, seed=2)
    rounded = None if speed is None else step
    network = JansenRitNetwork(connectome, K=60.0, p=150.0, speed=speed, delay_step=rounded)
    x = by_hand.draw(6 * n, seed=3, high=2.0)
    kick = np.array([30.0, 0, 0, 0])

    def S(v):
        return 5 / (1 + np.exp(0.56 * (6 - v)))

    def rate(y, received):
        p = 150 + kick + 60 * received(lambda seen: S(seen["y1"] - seen["y2"]))
        excited = p + 0.8 * 135 * S(135 * y["y0"])
        inhibited = 0.25 * 135 * S(0.25 * 135 * y["y0"])
        return {
            "y0": y["y3"],
            "y1": y["y4"],
            "y2": y["y5"],
            "y3": 325 * S(y["y1"] - y["y2"]) - 200 * y["y3"] - 1e4 * y["y0"],
            "y4": 325 * excited - 200 * y["y4"] - 1e4 * y["y1"],
            "y5": 1100 * inhibited - 100 * y["y5"] - 2500 * y["y2"],
        }

    path = by_hand.euler(network, rate, x, step, steps)
    times = np.array([0.0, 0.03, 0.06])
    found = simulate(network, x, times, torch.tensor(kick), method="euler", step=step).states
    np.testing.assert_allclose(found, path[[0, 300, 600]], rtol=1e-9, atol=1e-9)


def test_weakly_driven_columns_rest_where_the_single_one_does(by_hand):
    connectome = by_hand.all_to_all(3)
    network = JansenRitNetwork(connectome, K=4.0, p=60.0)
    rest = find_equilibria(network, n_starts=4)[0]
    assert rest.is_stable
    y = rest.state.reshape(6, 3)
    torch.testing.assert_close(y, y[:, :1].expand(6, 3), rtol=0, atol=1e-9)
    p = 60 + 4 * JansenRit().firing_rate(y[1, :1] - y[2, :1])
    alone = JansenRit().vector_field(0.0, y[:, 0], p)
    assert alone.abs().max() < 1e-7  # mV/s^2, of terms of 1e4
    assert rest.output.shape == (3,)
