import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from clinode.dynamics import simulate
from clinode.dynamics.stochastic import STOCHASTIC, Wiener
from clinode.errors import ArgumentError
from clinode.system import Event, Quantity, System, Values


class Geometric(System):
    """dx = mu x dt + sigma x dW, with W itself as a second state; solved by `exact`."""

    states = (Quantity("x", "1"), Quantity("W", "1"))
    constants = (Quantity("mu", "1"), Quantity("sigma", "1"))

    def __init__(self, mu: Values = 0.5, sigma: Values = 0.8):
        super().__init__()
        self.register_constants(mu=mu, sigma=sigma)

    def vector_field(self, t, x, u):
        return self.join(x=self.mu * x[..., :1], W=torch.zeros_like(x[..., 1:]))

    def noise(self, t, x, u):
        both = self.join(x=self.sigma * x[..., :1], W=torch.ones_like(x[..., 1:]))
        return both.unsqueeze(-1)

    def exact(self, x: torch.Tensor, t: float) -> torch.Tensor:
        return torch.exp((self.mu - self.sigma**2 / 2) * t + self.sigma * x[..., 1:]).squeeze(-1)


class OrnsteinUhlenbeck(System):
    states = (Quantity("x", "1"),)
    constants = (Quantity("theta", "1"), Quantity("sigma", "1"))

    def __init__(self, theta: Values = 1.5, sigma: Values = 0.7):
        super().__init__()
        self.register_constants(theta=theta, sigma=sigma)

    def vector_field(self, t, x, u):
        return -self.theta * x

    def noise(self, t, x, u):
        return self.sigma + 0 * x


class Diagonal(System):
    """Two independent geometric Brownian motions, as diagonal noise."""

    states = (Quantity("a", "1"), Quantity("b", "1"))

    def vector_field(self, t, x, u):
        return 0.2 * x

    def noise(self, t, x, u):
        return 0.5 * x


class Twisted(Diagonal):
    """Diagonal noise in which the noise of one state depends on the other."""

    def noise(self, t, x, u):
        return 0.5 * x.flip(-1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("method", "order"), [("euler", 0.5), ("heun", 1.0), ("milstein", 1.0)])
def test_strong_orders_on_geometric_brownian_motion(method, order):
    steps, errors, start = [1 / 8, 1 / 16, 1 / 32, 1 / 64], [], torch.tensor([[1.0, 0.0]]).double()
    for step in steps:
        system = Geometric()
        found = simulate(
            system,
            start.expand(4000, 2),
            [0.0, 1.0],
            method=method,
            step=step,
            generator=seeded(),
        )
        last = found.states[:, -1]
        errors.append((last[:, 0] - system.exact(last, 1.0)).abs().mean().item())
    measured = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert measured == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("method", ["euler", "milstein"])
def test_weak_order_one_on_geometric_brownian_motion(method):
    # The exact solution on the same path takes the sampling error away.
    steps, biases = [1 / 4, 1 / 8, 1 / 16], []
    for step in steps:
        system = Geometric(0.7, 0.3)
        start = torch.tensor([1.0, 0.0]).double().expand(20_000, 2)
        found = simulate(
            system, start, [0.0, 1.0], method=method, step=step, generator=seeded(1)
        ).states[:, -1]
        biases.append((system.exact(found, 1.0) - found[:, 0]).mean().item())
        mean = (1 + 0.7 * step) ** round(1 / step)
        assert math.exp(0.7) - biases[-1] == pytest.approx(mean, rel=5e-3)
    measured = np.polyfit(np.log(steps), np.log(biases), 1)[0]
    assert 0.8 < measured < 1.1


def test_diagonal_noise_has_the_law_of_the_exact_solution():
    found = [
        simulate(
            Diagonal(),
            torch.ones(2000, 2).double(),
            [0.0, 1.0],
            method=method,
            step=step,
            generator=seeded(2),
        ).states[:, -1]
        for method, step in (("milstein", 1 / 64), ("euler", 1 / 64))
    ]
    logs = found[0].log()
    # log x is normal with mean (0.2 - 0.125) and standard deviation 0.5
    assert logs.mean().item() == pytest.approx(0.075, abs=4 * 0.5 / math.sqrt(4000))
    assert logs.std().item() == pytest.approx(0.5, rel=0.05)
    assert (found[0] - found[1]).abs().mean() < 0.1


@pytest.mark.parametrize("method", STOCHASTIC)
def test_the_stationary_variance_of_ornstein_uhlenbeck(method):
    theta, sigma, step = 1.5, 0.7, 0.02
    found = simulate(
        OrnsteinUhlenbeck(theta, sigma),
        torch.zeros(4000, 1).double(),
        [0.0, *np.arange(4, 12)],
        method=method,
        step=step,
        generator=seeded(3),
    ).states[:, 1:, 0]
    expected = sigma**2 / (2 * theta)
    if method != "heun":
        expected /= 1 - theta * step / 2  # of the Euler scheme itself, exactly
    n_free = 4000 * 8
    spread = expected * math.sqrt(2 / n_free)
    assert found.var().item() == pytest.approx(expected, abs=4 * spread)
    lag = (found[:, 1:] * found[:, :-1]).mean().item() / found.var().item()
    assert lag == pytest.approx(math.exp(-theta), abs=0.03)


@pytest.mark.parametrize("method", STOCHASTIC)
def test_the_noise_of_a_trajectory_does_not_depend_on_its_mates(method):
    start = torch.linspace(0.5, 2, 5).double().unsqueeze(-1).repeat(1, 2)
    how = {"times": [0.0, 0.3, 1.0], "method": method, "step": 0.1}
    many = simulate(Diagonal(), start, generator=seeded(4), **how)
    few = simulate(Diagonal(), start[:2], generator=seeded(4), **how)
    torch.testing.assert_close(many.states[:2], few.states, rtol=1e-12, atol=0)
    other = start.clone()
    other[0] = 1e200
    changed = simulate(Diagonal(), other, generator=seeded(4), **how)
    torch.testing.assert_close(many.states[1:], changed.states[1:], rtol=1e-12, atol=0)
    again = seeded(4)
    first = simulate(Diagonal(), start, generator=again, **how).states
    second = simulate(Diagonal(), start, generator=again, **how).states
    assert torch.equal(first, many.states)
    assert not torch.allclose(first[:, -1], second[:, -1])


def test_the_numbers_are_normal_and_independent():
    wiener = Wiener(12345, torch.arange(500))
    numbers = torch.stack([wiener(k, 3, torch.float64) for k in range(40)]).numpy()
    assert scipy.stats.kstest(numbers.ravel(), "norm").pvalue > 1e-3
    flat = numbers.transpose(1, 0, 2).reshape(500, -1)
    correlation = np.corrcoef(flat)[np.triu_indices(500, 1)] * math.sqrt(flat.shape[1])
    assert correlation.std() == pytest.approx(1.0, abs=0.02)
    for axis in range(3):
        a, b = np.moveaxis(numbers, axis, 0)[:-1].ravel(), np.moveaxis(numbers, axis, 0)[1:].ravel()
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(a.size)


def test_gradients_are_those_of_the_path():
    mu = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    system = Geometric(mu)
    how = {"method": "milstein", "step": 0.01, "generator": seeded(5)}
    last = simulate(system, [1.0, 0.0], [0.0, 1.0], **how).states[-1]
    (gradient,) = torch.autograd.grad(last[0], mu)
    assert gradient.item() == pytest.approx(last[0].item(), rel=2e-2)  # dx/dmu = t x


def test_a_path_that_overflows_leaves_its_mates_and_their_gradients():
    class Cubic(OrnsteinUhlenbeck):
        def vector_field(self, t, x, u):
            return -self.theta * x + x**3

    theta = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    start = torch.tensor([[0.1], [50.0], [0.2]]).double()
    how = {"times": [0.0, 1.0], "method": "euler", "step": 0.05}
    kept = simulate(Cubic(theta), start, generator=seeded(6), keep_failed=True, **how)
    assert list(kept.status) == ["ok", "not finite", "ok"]
    (gradient,) = torch.autograd.grad(kept.states[[0, 2], -1].sum(), theta)
    assert gradient.isfinite()


@pytest.mark.slow
def test_a_noisy_threshold_fires_at_its_theoretical_rate():
    class Noisy(System):
        """LIF with white noise: tau V' = mu - V + sigma sqrt(tau) xi; Siegert 1951."""

        time_unit = "ms"
        states = (Quantity("V", "mV"),)
        constants = (Quantity("t_ref", "ms"),)

        def __init__(self):
            super().__init__()
            self.register_constants(t_ref=2.0)

        def vector_field(self, t, x, u):
            return (12.0 - x) / 10

        def noise(self, t, x, u):
            return 5.0 * math.sqrt(1 / 10) + 0 * x

        def _over(self, t, x):
            return x - 15

        def _reset(self, x):
            return 0 * x

        events = (Event("spike", _over, _reset, refractory="t_ref", held=("V",)),)

    step = 0.05
    found = simulate(
        Noisy(),
        torch.zeros(400, 1, dtype=torch.float64),
        [0.0, 150.0],
        method="euler",
        step=step,
        generator=seeded(7),
    )
    late = found.events[found.events["time"] > 50]
    # A threshold that is looked at between steps acts like one 0.5826 sigma sqrt(h) higher
    # (Broadie, Glasserman & Kou 1997, Math. Finance 7:325-349).
    threshold = 15 + 0.5826 * 5 * math.sqrt(step / 10)
    grid = np.linspace(-12 / 5, (threshold - 12) / 5, 4001)
    inner = np.exp(grid**2) * (1 + scipy.special.erf(grid))
    expected = 1 / (2 + 10 * math.sqrt(math.pi) * np.trapezoid(inner, grid))
    assert len(late) / 100 / 400 == pytest.approx(expected, rel=0.06)


def test_what_cannot_be_drawn_is_refused_in_words():
    how = {"x0": [1.0, 1.0], "times": [0.0, 1.0], "step": 0.1}
    with pytest.raises(ArgumentError, match="it needs a generator"):
        simulate(Diagonal(), method="euler", **how)
    with pytest.raises(ArgumentError, match="'rk4' draws no noise"):
        simulate(Diagonal(), method="rk4", generator=seeded(), **how)
    with pytest.raises(ArgumentError, match="does not commute"):
        simulate(Twisted(), method="milstein", generator=seeded(), **how)
    flow = simulate(Diagonal(), [1.0, 1.0], [0.0, 1.0]).states[-1, 0]
    assert flow.item() == pytest.approx(math.exp(0.2), rel=1e-6)


def test_heun_on_noise_that_does_not_commute_keeps_the_mean_of_ito():
    # d E[x] / dt = 0.2 E[x] for Ito noise, whatever it is; Stratonovich noise would add to it.
    found = simulate(
        Twisted(),
        torch.ones(20_000, 2).double(),
        [0.0, 1.0],
        method="heun",
        step=0.05,
        generator=seeded(8),
    ).states[:, -1]
    error = found.std() / math.sqrt(40_000)
    assert found.mean().item() == pytest.approx(math.exp(0.2), abs=4 * error.item() + 1e-3)
