import math

import numpy as np
import pytest
import torch

from clinode.dynamics import simulate
from clinode.errors import ArgumentError
from clinode.system import Delay, Past, Quantity, Signal, System, Values


def _of(past: Past | None) -> torch.Tensor:
    if past is None:
        raise AssertionError("the solver gives the past")
    return past["x"]


class Lagged(System):
    """x' = -k x(t - tau)."""

    states = (Quantity("x", "1"),)
    inputs = (Quantity("u", "1"),)
    constants = (Quantity("k", "1"), Quantity("tau", "1"))
    delays = (Delay("x", "tau"),)

    def __init__(self, k: Values = 1.0, tau: Values = 1.0):
        super().__init__()
        self.register_constants(k=k, tau=tau)

    def vector_field(self, t, x, u, past=None):
        return -self.k * _of(past) + u


class Ring(System):
    """Regions that see each other late: x_i' = -x_i + mean_j x_j(t - D_ij)."""

    def __init__(self, D: Values):
        super().__init__()
        n = len(D)
        self.states = (Quantity("x", "1", labels=tuple(f"r{i}" for i in range(n))),)
        self.delays = (Delay("x", "D"),)
        self.register_buffer("D", torch.as_tensor(D, dtype=torch.float64))
        self.register_constants()

    def vector_field(self, t, x, u, past=None):
        return -x + _of(past).mean(dim=-1)


def by_steps(t: np.ndarray) -> np.ndarray:
    """x' = -x(t - 1) from x = 1, by the method of steps on [0, 3]."""
    first = 1 - t
    second = first + (t - 1) ** 2 / 2
    third = second - (t - 2) ** 3 / 6
    return np.where(t <= 1, first, np.where(t <= 2, second, third))


@pytest.mark.parametrize("method", ["rk4", "heun", "midpoint"])
def test_the_method_of_steps_is_met(method):
    times = np.linspace(0, 2, 9)
    found = simulate(Lagged(), [1.0], times, method=method, step=0.125).states[:, 0]
    np.testing.assert_allclose(found, by_steps(times), atol=1e-12)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_the_order_of_the_method_is_kept(method, order):
    # x = exp(-s t) solves x' = -k x(t - tau) where s = k exp(s tau).
    s, tau = 0.6, 0.83
    k = s * math.exp(-s * tau)
    steps, errors = tau / np.array([4, 8, 16]), []
    for step in steps:
        found = simulate(
            Lagged(k, tau),
            [1.0],
            [0.0, 4.1],
            method=method,
            step=step,
            history=lambda t: torch.exp(-s * t).unsqueeze(-1),
        )
        errors.append(abs(found.states[-1, 0].item() - math.exp(-s * 4.1)))
    measured = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order - 0.3 < measured < order + 0.7


def test_a_kink_at_the_start_does_not_cost_the_order():
    steps, errors = np.array([0.37, 0.19, 0.09]), []
    for step in steps:
        found = simulate(Lagged(), [1.0], [0.0, 2.77], method="rk4", step=step).states[-1, 0]
        errors.append(abs(found.item() - by_steps(np.array(2.77)).item()))
    assert max(errors) < 1e-12  # cubics in time are exact


def test_a_trajectory_with_a_delay_of_its_own_does_not_depend_on_its_mates():
    tau = torch.tensor([[0.5], [1.0], [0.77]], dtype=torch.float64)
    k = torch.tensor([[1.0], [0.3], [2.0]], dtype=torch.float64)
    times = [0.0, 1.1, 3.0]
    together = simulate(Lagged(k, tau), [1.0], times, 0.2, method="rk4", step=0.1)
    for i in range(3):
        alone = simulate(Lagged(k[i], tau[i]), [1.0], times, 0.2, method="rk4", step=0.1)
        torch.testing.assert_close(together.states[i], alone.states, rtol=1e-12, atol=1e-12)


def test_a_matrix_of_delays_with_zeros_reads_the_present_where_it_is_zero():
    D = np.array([[0.0, 0.5], [0.7, 0.0]])
    found = simulate(Ring(D), [1.0, 0.0], [0.0, 0.4], method="rk4", step=0.01).states[-1]
    # Up to t = 0.5 the other region is at its start: x1' = -x1/2 + 0, x2' = -x2/2 + 1/2
    expected = [math.exp(-0.2), 1 - math.exp(-0.2)]
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-8
    )
    none = simulate(Ring(0 * D), [1.0, 0.0], [0.0, 2.0], method="rk4", step=0.01).states[-1]
    apart = math.exp(-2.0)
    torch.testing.assert_close(
        none,
        torch.tensor([(1 + apart) / 2, (1 - apart) / 2], dtype=torch.float64),
        rtol=1e-8,
        atol=1e-8,
    )


def test_gradients_pass_through_the_past():
    k = torch.tensor([1.3], dtype=torch.float64, requires_grad=True)
    found = simulate(Lagged(k), [1.0], [0.0, 1.7], method="rk4", step=0.1).states[-1, 0]
    (gradient,) = torch.autograd.grad(found, k)
    # x = 1 - k t + k^2 (t - 1)^2 / 2 on [1, 2]
    assert found.item() == pytest.approx(1 - 1.3 * 1.7 + 1.3**2 * 0.49 / 2, rel=1e-12)
    assert gradient.item() == pytest.approx(-1.7 + 1.3 * 0.49, rel=1e-12)


def test_an_impulse_comes_back_after_the_delay():
    kick = Signal([0.0], [[0.0]], impulses=([0.5], [[2.0]]))
    found = simulate(Lagged(1.0, 1.0), [0.0], [0.0, 0.9, 1.5, 2.0], kick, method="rk4", step=0.1)
    expected = torch.tensor([0.0, 2.0, 2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(found.states[:, 0], expected, rtol=0, atol=1e-12)


def test_what_has_no_past_is_refused_in_words():
    with pytest.raises(ArgumentError, match="has delays, and method 'dopri5' has no past"):
        simulate(Lagged(), [1.0], [0.0, 1.0])
    with pytest.raises(ArgumentError, match=r"reaches beyond the shortest delay of Lagged, 0\.1"):
        simulate(Lagged(1.0, 0.1), [1.0], [0.0, 1.0], method="rk4", step=0.2)


class NoisyLagged(System):
    """dx = -k x(t - tau) dt + sigma x^m dW, m = 0 or 1."""

    states = (Quantity("x", "1"),)
    constants = (Quantity("k", "1"), Quantity("tau", "1"))
    delays = (Delay("x", "tau"),)

    def __init__(self, k: Values = 1.0, tau: Values = 1.0, *, scales: bool = False):
        super().__init__()
        self.scales = scales
        self.register_constants(k=k, tau=tau)

    def vector_field(self, t, x, u, past=None):
        return -self.k * _of(past)

    def noise(self, t, x, u):
        return 0.5 * (x if self.scales else torch.ones_like(x))


class NoisyNow(NoisyLagged):
    delays = ()

    def vector_field(self, t, x, u, past=None):
        return -self.k * x


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_noise_that_comes_back_late_has_its_stationary_variance(method):
    # sigma^2 (1 + sin k tau) / (2 k cos k tau): Kuechler & Mensch 1992, Stochastics 40:23
    k, tau, n = 1.0, 0.8, 2000
    found = simulate(
        NoisyLagged(k, tau), torch.zeros(n, 1), [0.0, 12.0, 18.0, 24.0], method=method, step=0.04,
        generator=seeded(3),
    ).states[:, 1:, 0]  # fmt: skip
    expected = 0.25 * (1 + math.sin(k * tau)) / (2 * k * math.cos(k * tau))
    error = math.sqrt(2 / (3 * n))  # of a variance over independent draws, relative
    assert found.var().item() == pytest.approx(expected, rel=4 * error + 0.02)
    assert abs(found.mean().item()) < 4 * math.sqrt(expected / (3 * n))


@pytest.mark.parametrize("scales", [False, True])
@pytest.mark.parametrize("method", ["euler", "heun"])
def test_without_a_delay_the_noise_is_that_of_the_system_without_delays(method, scales):
    how = {"method": method, "step": 0.1}
    start = torch.ones(3, 1)
    late = simulate(
        NoisyLagged(1.0, 0.0, scales=scales), start, [0.0, 1.0, 2.0], generator=seeded(1), **how
    )
    now = simulate(
        NoisyNow(1.0, 0.0, scales=scales), start, [0.0, 1.0, 2.0], generator=seeded(1), **how
    )
    torch.testing.assert_close(late.states, now.states, rtol=1e-12, atol=1e-12)
    few = simulate(
        NoisyLagged(1.0, 0.0, scales=scales), start[:2], [0.0, 1.0, 2.0], generator=seeded(1), **how
    )
    torch.testing.assert_close(late.states[:2], few.states, rtol=1e-12, atol=1e-12)


def test_noise_is_neither_dropped_nor_drawn_in_silence():
    start, times = [1.0], [0.0, 1.0]
    with pytest.raises(ArgumentError, match="needs a generator"):
        simulate(NoisyLagged(), start, times, method="heun", step=0.1)
    with pytest.raises(ArgumentError, match="method 'rk4' draws no noise"):
        simulate(NoisyLagged(), start, times, method="rk4", step=0.1, generator=seeded())
    flow = simulate(NoisyLagged(), start, times, method="rk4", step=0.1).states
    assert flow[-1].item() == pytest.approx(0.0, abs=1e-12)  # 1 - t
