import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares
from scipy.stats import binom

from clinode.dynamics import simulate
from clinode.dynamics.identify import identify
from clinode.errors import ArgumentError, SolverError
from clinode.system import (
    Delay,
    DiscreteSystem,
    Event,
    Quantity,
    Signal,
    System,
)

RK4 = {"method": "rk4", "step": 0.25}


class FitzHughNagumo(System):
    """dv/dt = v - v^3/3 - w + I, dw/dt = (v + a - b w) / tau."""

    states = (
        Quantity("v", "1", range=(-2.5, 2.5), default=-1.2),
        Quantity("w", "1", range=(-1.0, 2.0), default=-0.6),
    )
    inputs = (Quantity("I", "1"),)
    constants = (
        Quantity("a", "1"),
        Quantity("b", "1"),
        Quantity("tau", "1", range=(1.0, 100.0)),
    )

    def __init__(self, a=0.7, b=0.8, tau=12.5):
        super().__init__()
        self.register_constants(a=a, b=b, tau=tau)

    def vector_field(self, t, x, u):
        v, w = self.split(x).values()
        return self.join(v=v - v**3 / 3 - w + u, w=(v + self.a - self.b * w) / self.tau)


class FastOnly(FitzHughNagumo):
    """Of the same only v is recorded."""

    outputs = (Quantity("v", "1"),)

    def output(self, t, x, u):
        return x[..., :1]


class Decay(System):
    """dx/dt = -a b x + c dose, of which nothing but a b can be seen without a dose."""

    time_unit = "h"
    states = (Quantity("x", "mg", default=1.0, range=(0.0, 10.0)),)
    inputs = (Quantity("dose", "mg/h"),)
    constants = (Quantity("a", "1/h"), Quantity("b", "1"), Quantity("c", "1"))

    def __init__(self, a=1.0, b=1.0, c=1.0):
        super().__init__()
        self.register_constants(a=a, b=b, c=c)

    def vector_field(self, t, x, u):
        return self.c * u - self.a * self.b * x


def draw(seed):
    """Constants of an oscillating FitzHugh-Nagumo system, and where a search may start."""
    generator = np.random.default_rng(seed)
    truth = dict(zip("ab", generator.uniform([0.5, 0.5], [0.75, 0.9]), strict=True))
    truth["tau"] = generator.uniform(8, 16)
    start = {name: value * generator.uniform(0.6, 1.5) for name, value in truth.items()}
    return truth, start, torch.Generator().manual_seed(seed)


def noisy(values, sd, generator):
    return values + sd * torch.randn(values.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("model", "seed"),
    [
        (FitzHughNagumo, 0),
        (FastOnly, 1),
        *(pytest.param(FitzHughNagumo, seed, marks=pytest.mark.slow) for seed in (2, 3, 4)),
        *(pytest.param(FastOnly, seed, marks=pytest.mark.slow) for seed in (2, 3, 4)),
    ],
)
def test_constants_come_back_from_noisy_recordings_of_all_or_of_one_state(model, seed):
    truth, start, generator = draw(seed)
    times = torch.linspace(0, 50, 101).double()
    system = model(**truth)
    clean = simulate(system, [-1.0, 0.3], times, 0.5, **RK4).outputs
    found = identify(
        model(**start), times, noisy(clean, 0.05, generator), ["a", "b", "tau"], u=0.5, **RK4
    )
    assert found.verdict == "ok"
    for name, value in truth.items():
        error = abs(found.estimates[name].value - value)
        assert error < 4.5 * found.standard_errors[name]
        assert found.standard_errors[name] < 0.1 * value
    assert found.noise["v"] == pytest.approx(0.05, rel=0.35)
    assert found.gap < 1e-6
    assert getattr(found.system, "tau").item() == found.estimates["tau"].value  # noqa: B009


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_fit_and_its_covariance_are_those_of_scipys_least_squares(seed):
    truth, start, generator = draw(seed)
    times = torch.linspace(0, 40, 61).double()
    clean = simulate(FastOnly(**truth), [-1.0, 0.3], times, 0.5, method="rk4", step=0.05).outputs
    recording = noisy(clean, 0.03, generator)
    recording[5:9] = math.nan
    found = identify(
        FastOnly(**start),
        times,
        recording,
        ["a", "b", "tau"],
        u=0.5,
        method="rk4",
        step=0.1,
    )
    known = ~recording.isnan().squeeze(-1).numpy()

    def residuals(p):
        a, b, tau, v, w = p

        def field(t, x):
            return [x[0] - x[0] ** 3 / 3 - x[1] + 0.5, (x[0] + a - b * x[1]) / tau]

        path = solve_ivp(field, (0, 40), [v, w], t_eval=times.numpy(), rtol=1e-9, atol=1e-11)
        return (path.y[0] - recording.squeeze(-1).numpy())[known]

    begin = [truth["a"], truth["b"], truth["tau"], -1.0, 0.3]
    theirs = least_squares(residuals, begin, x_scale=np.abs(begin), xtol=1e-12, ftol=1e-14)
    freedom = known.sum() - 5
    variance = 2 * theirs.cost / freedom
    covariance = np.linalg.inv(theirs.jac.T @ theirs.jac) * variance
    errors = np.sqrt(np.diag(covariance))[:3]
    values = [found.estimates[name].value for name in ("a", "b", "tau")]
    np.testing.assert_allclose(values, theirs.x[:3], atol=1e-2 * errors.min())
    ours = [found.standard_errors[name] for name in ("a", "b", "tau")]
    np.testing.assert_allclose(ours, errors, rtol=0.01)
    np.testing.assert_allclose(found.covariance, covariance[:3, :3], rtol=0.05, atol=1e-7)
    assert found.residuals[5:9].isnan().all()
    assert found.noise["v"] == pytest.approx(math.sqrt(variance), rel=1e-4)


def test_constants_that_act_only_as_a_product_are_named_and_have_no_interval():
    times = torch.linspace(0, 3, 31).double()
    clean = 2 * torch.exp(-0.6 * times).unsqueeze(-1)
    recording = noisy(clean, 0.01, torch.Generator().manual_seed(0))
    found = identify(Decay(), times, recording, ["a", "b"], positive=["a"], method="rk4", step=0.1)
    assert found.verdict == "not identifiable: only a combination of 'a', 'b' is determined"
    assert not found.is_identifiable
    assert math.isnan(found.estimates["a"].low)
    assert math.isnan(found.standard_errors["b"])
    product = found.estimates["a"].value * found.estimates["b"].value
    assert product == pytest.approx(0.6, rel=0.05)
    assert found.information[1] < 1e-10 * found.information[0]
    silent = identify(Decay(), times, recording, ["a", "c"], method="rk4", step=0.1)
    assert silent.verdict == "not identifiable: 'c' has no effect on what was recorded"
    assert silent.estimates["a"].value == pytest.approx(0.6, rel=0.05)
    assert silent.estimates["a"].verdict == "ok"


def test_a_pulse_of_input_makes_the_gain_visible():
    times = torch.linspace(0, 6, 61).double()
    pulse = Signal([0.0, 1.03, 2.51], [[0.0], [3.0], [0.0]])
    truth = Decay(a=0.7, c=1.8)
    clean = simulate(truth, [1.5], times, pulse, method="rk4", step=0.1).outputs
    found = identify(
        Decay(),
        times,
        noisy(clean, 0.02, torch.Generator().manual_seed(1)),
        ["a", "c"],
        u=pulse,
        method="rk4",
        step=0.1,
    )
    assert found.verdict == "ok"
    assert abs(found.estimates["c"].value - 1.8) < 4 * found.standard_errors["c"]
    assert found.initial_states.item() == pytest.approx(1.5, abs=0.1)


@pytest.mark.slow
def test_recordings_from_many_starts_share_the_constants_and_narrow_them():
    times = torch.linspace(0, 3, 16).double() * torch.tensor([[1.0], [1.2], [0.8], [1.0]])
    starts = torch.tensor([1.0, 2.0, 5.0, 3.0]).double()
    clean = (starts.unsqueeze(-1) * torch.exp(-0.6 * times)).unsqueeze(-1)
    recordings = noisy(clean, 0.05, torch.Generator().manual_seed(2))
    arguments = {"constants": ["a"], "method": "rk4", "step": 0.1}
    together = identify(Decay(), times, recordings, **arguments)
    assert together.outputs.shape == recordings.shape
    torch.testing.assert_close(together.initial_states.squeeze(-1), starts, atol=0.2, rtol=0)
    alone = [identify(Decay(), t, r, **arguments) for t, r in zip(times, recordings, strict=True)]
    information = sum(1 / one.standard_errors["a"] ** 2 for one in alone)
    assert together.standard_errors["a"] == pytest.approx(information**-0.5, rel=0.4)
    known = identify(Decay(), times, recordings, x0=starts.unsqueeze(-1), **arguments)
    assert known.standard_errors["a"] < together.standard_errors["a"]
    assert torch.equal(known.initial_states, starts.unsqueeze(-1))


def test_a_constant_fitted_by_its_logarithm_has_an_interval_of_ratios():
    times = torch.linspace(0, 3, 16).double()
    recording = noisy(torch.exp(-0.6 * times).unsqueeze(-1), 0.05, torch.Generator().manual_seed(3))
    found = identify(Decay(), times, recording, ["a"], positive=["a"], method="rk4", step=0.1)
    estimate = found.estimates["a"]
    assert estimate.value / estimate.low == pytest.approx(estimate.high / estimate.value)
    linear = identify(Decay(), times, recording, ["a"], method="rk4", step=0.1)
    assert linear.estimates["a"].value == pytest.approx(estimate.value, rel=1e-6)
    middle = (linear.estimates["a"].low + linear.estimates["a"].high) / 2
    assert middle == pytest.approx(linear.estimates["a"].value)


def test_a_map_and_a_block_of_constants_are_fitted_too():
    class Autoregression(DiscreteSystem):
        states = (Quantity("x", "1", labels=("a", "b"), default=0.5),)
        constants = (Quantity("r", "1", labels=("a", "b")),)

        def __init__(self, r):
            super().__init__()
            self.register_constants(r=torch.as_tensor(r, dtype=torch.float64))

        def next_state(self, k, x, u):
            return self.r * torch.sin(x) + 0.1 * x.flip(-1)

    truth = Autoregression([0.9, 1.3])
    times = torch.arange(40).double()
    clean = simulate(truth, [0.5, 1.0], times).outputs
    recording = noisy(clean, 0.01, torch.Generator().manual_seed(4))
    found = identify(Autoregression([0.6, 1.0]), times, recording, ["r"])
    assert found.names == ("r:a", "r:b")
    values = [found.estimates[name].value for name in found.names]
    assert values == pytest.approx([0.9, 1.3], abs=0.03)
    table = found.to_pandas()
    assert table["constant"].tolist() == ["r:a", "r:b"]
    assert found.to_dict()["verdict"] == "ok"


def test_the_adaptive_solver_gives_the_same_fit():
    times = torch.linspace(0, 3, 16).double()
    recording = noisy(torch.exp(-0.6 * times).unsqueeze(-1), 0.02, torch.Generator().manual_seed(5))
    adaptive = identify(Decay(), times, recording, ["a"], n_segments=2)
    fixed = identify(Decay(), times, recording, ["a"], n_segments=5, method="rk4", step=0.05)
    assert adaptive.estimates["a"].value == pytest.approx(fixed.estimates["a"].value, rel=1e-6)


@pytest.mark.slow
def test_intervals_cover_the_truth_at_their_nominal_rate():
    class Growth(System):
        states = (Quantity("N", "1", default=0.1, range=(0.0, 3.0)),)
        constants = (Quantity("r", "1"), Quantity("K", "1"))

        def __init__(self, r=1.0, K=1.5):
            super().__init__()
            self.register_constants(r=r, K=K)

        def vector_field(self, t, x, u):
            return self.r * x * (1 - x / self.K)

    generator, times = torch.Generator().manual_seed(0), torch.linspace(0, 6, 13).double()
    covered, n_draws, level = {"r": 0, "K": 0}, 150, 0.9
    for _ in range(n_draws):
        truth = {"r": 0.8 + 0.6 * torch.rand(1, generator=generator).item(), "K": 2.0}
        clean = simulate(Growth(**truth), [0.15], times, method="rk4", step=0.5).outputs
        recording = noisy(clean, 0.05, generator)
        found = identify(
            Growth(), times, recording, ["r", "K"], level=level, method="rk4", step=0.5
        )
        for name, value in truth.items():
            covered[name] += found.estimates[name].low <= value <= found.estimates[name].high
    low, high = binom.ppf([0.0005, 0.9995], n_draws, level)
    for count in covered.values():
        assert low <= count <= high


def spiking(**attributes):
    return type("Spiking", (Decay,), attributes)()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"constants": ["k"]}, "no constant of Decay is called 'k'"),
        ({"constants": []}, "at least one constant"),
        ({"constants": ["a", "a"]}, "each once"),
        ({"recordings": torch.zeros(31, 2)}, r"expected \(\*batch, 31 times, 1 outputs\)"),
        ({"recordings": torch.full((31, 1), math.nan)}, "every recording is NaN"),
        ({"times": torch.zeros(31)}, "increase"),
        ({"positive": ["c"]}, "'c' is to be positive but"),
        ({"system": Decay(a=-1.0), "positive": ["a"]}, "must start above 0"),
        ({"system": Decay(a=torch.ones(2, 1))}, "'a' has batch axes"),
        ({"level": 1.0}, "level must lie"),
        ({"n_segments": 40}, r"n_segments must lie in 1\.\.30"),
        ({"system": spiking(events=(Event("e", torch.sum),))}, "Spiking has events"),
        ({"system": spiking(delays=(Delay("x", "a"),))}, "Spiking has delays"),
        ({"system": spiking(noise=lambda s, t, x, u: x)}, "noise of its own"),
        (
            {"recordings": torch.ones(31, 1).double().index_fill(0, torch.arange(2, 31), math.nan)},
            "2 measurements cannot determine 2",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, words):
    arguments = {
        "system": Decay(),
        "times": torch.linspace(0, 3, 31).double(),
        "recordings": torch.ones(31, 1).double(),
        "constants": ["a"],
        "method": "rk4",
        "step": 0.1,
    }
    with pytest.raises(ArgumentError, match=words):
        identify(**(arguments | change))


def test_a_search_that_cannot_start_or_end_says_so():
    class Explosion(Decay):
        def vector_field(self, t, x, u):
            return self.a * x**2 * 1e300

    times, ones = torch.linspace(0, 3, 31).double(), torch.ones(31, 1).double()
    with pytest.raises(SolverError, match="could not be solved where the search starts"):
        identify(Explosion(), times, ones, ["a"], method="rk4", step=0.1)
    truth, start, _ = draw(0)
    clean = simulate(FitzHughNagumo(**truth), [-1.0, 0.3], times, 0.5, **RK4).outputs
    names, system = ["a", "b"], FitzHughNagumo(**start)
    with pytest.raises(SolverError, match="no fit was reached"):
        identify(system, times, clean, names, u=0.5, max_iterations=2, **RK4)
