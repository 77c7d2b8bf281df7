"""Networks by hand: NumPy, one step after the other, a buffer for the past."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clinode.brain.connectome import Connectome


def draw(*shape, seed=0, low=0.0, high=0.5):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.uniform(low, high, shape))


def one_region() -> Connectome:
    return Connectome(weights=torch.zeros(1, 1), labels=("cortex",))


def all_to_all(n: int) -> Connectome:
    """Every region receives 1 / (n - 1) of every other, once scaled."""
    return Connectome(weights=1.0 - torch.eye(n), labels=tuple(f"r{i}" for i in range(n)))


def euler_by_hand(network, rate, x, step, n_steps):
    """Euler's method with a buffer of all states.

    Args:
        network: Gives W, the names of the states and the delays, which are whole steps.
        rate: (states {name: (region,)}, received) -> {name: (region,)}, where received(sent) sums
            W sent({name: (target, source)}) over sources.
        x: Start, (state,).
        step: Of time.
        n_steps: How many.
    """
    names = [quantity.name for quantity in network.states]
    W = network.weights.numpy()
    n = len(W)
    lags = np.zeros((n, n), int)
    if network.delays:
        lags = np.rint(network.delay_times.numpy() / step).astype(int)
        np.testing.assert_allclose(lags * step, network.delay_times, atol=1e-12)
    path = np.empty((n_steps + 1, len(names), n))
    path[0] = x.numpy().reshape(len(names), n)
    source = np.arange(n)
    for k in range(n_steps):
        seen = {
            name: path[np.maximum(k - lags, 0), i, source[None, :]] for i, name in enumerate(names)
        }
        states = dict(zip(names, path[k], strict=True))
        rates = rate(states, lambda sent, seen=seen: (W * sent(seen)).sum(1))
        path[k + 1] = path[k] + step * np.stack([rates[name] for name in names])
    return path.reshape(n_steps + 1, -1)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(scope="session")
def by_hand() -> SimpleNamespace:
    """What tests of networks share."""
    return SimpleNamespace(
        draw=draw, double=double, one_region=one_region, all_to_all=all_to_all, euler=euler_by_hand
    )
