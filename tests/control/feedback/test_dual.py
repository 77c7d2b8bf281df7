import math

import numpy as np
import pytest
import scipy.integrate
import torch

from clinode.control.feedback.dual import dual_control
from clinode.control.feedback.feedback import lqg
from clinode.control.feedback.problem import ControlProblem, StateCost
from clinode.control.feedback.trials import run_trials
from clinode.errors import ArgumentError
from clinode.system import DiscreteSystem, LinearSystem, Quantity

double = torch.float64


class UnknownGain(DiscreteSystem):
    """x + b u, with b a state that nobody sees."""

    states = (Quantity("x", "1"), Quantity("b", "1"))
    inputs = (Quantity("u", "1"),)
    outputs = (Quantity("x", "1"),)

    def next_state(self, k, x, u):
        return torch.cat([x[..., :1] + x[..., 1:] * u, x[..., 1:] + 0 * u], dim=-1)

    def output(self, t, x, u):
        return x[..., :1]


class Walk(DiscreteSystem):
    """A point that is moved; how well it is seen depends on where it is."""

    states = (Quantity("x", "m"), Quantity("y", "m"))
    inputs = (Quantity("dx", "m"), Quantity("dy", "m"))

    def next_state(self, k, x, u):
        return x + u


def unknown_gain(x, b, P, horizon=2, **changes):
    return ControlProblem(
        UnknownGain(),
        {"x": 1.0},
        0.0,
        process_noise=torch.diag(torch.tensor([1.0, 0.0])),
        horizon=horizon,
        initial_state=[x, b],
        initial_covariance=torch.diag(torch.tensor([0.0, P])),
        **changes,
    )


def light(t, x):
    """Readings are good near x = 5 (Platt et al. 2010)."""
    return (0.5 * (5 - x[..., 0]) ** 2 + 0.01)[..., None, None] * torch.eye(2, dtype=double)


def light_dark(horizon=15):
    return ControlProblem(
        Walk(),
        StateCost(0.5),
        0.5,
        process_noise=1e-4,
        sensor_noise=light,
        horizon=horizon,
        final_cost=50.0,
        initial_state=[2.0, 2.0],
        initial_covariance=5.0,
    )


def two_stages(u, x, b, P):
    """E x1^2 + x2^2 after u and the best second input, by adaptive quadrature."""
    variance = u * u * P + 1
    left, slope = P / variance, P * u / variance

    def integrand(z):
        away = math.sqrt(variance) * z
        x1, mean = x + b * u + away, b + slope * away
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        return density * (x1**2 + x1**2 * left / (mean**2 + left))

    options = {"limit": 2000, "points": np.linspace(-6, 6, 25), "epsabs": 1e-11, "epsrel": 1e-11}
    return 1 + scipy.integrate.quad(integrand, -12, 12, **options)[0]


TABLE = [  # x, b, P; the input and cost of dual control, as published in five digits
    (1.0, 0.2, 1.0, -0.580, 4.69030),
    (1.0, 0.5, 1.0, -0.673, 4.28207),
    (1.0, 1.0, 1.0, -0.5572, 3.51575),
    (0.5, 0.1, 1.0, -0.355, 3.42837),
]


@pytest.mark.parametrize(("x", "b", "P", "action", "cost"), TABLE)
def test_two_stages_with_an_unknown_gain_cost_what_independent_quadrature_says(
    x, b, P, action, cost
):
    solution = dual_control(unknown_gain(x, b, P))
    assert solution.method == "quadrature"
    assert solution.exact
    assert solution.verdict == "least"
    found = {name: (float(c.action), c.cost - x * x) for name, c in solution.choices.items()}
    assert found["dual"][0] == pytest.approx(action, abs=6e-4)
    assert found["dual"][1] == pytest.approx(cost, abs=1e-5)
    assert found["certainty equivalent"][0] == pytest.approx(-x / b)
    assert found["cautious"][0] == pytest.approx(-b * x / (b * b + P))
    for input_, value in found.values():
        assert value == pytest.approx(two_stages(input_, x, b, P), abs=1e-5)
    assert (solution.accuracy or 0.0) < 1e-5
    # it probes: more than caution would
    assert abs(found["dual"][0]) > abs(found["cautious"][0])
    assert not solution.separates
    assert solution.separates.dual_effect > 0.01


@pytest.mark.slow
def test_random_two_stage_problems_have_no_better_first_input():
    rng = np.random.default_rng(0)
    for _ in range(1):
        x, b, P = rng.uniform(0.3, 2), rng.uniform(0.1, 1.5), rng.uniform(0.2, 2)
        solution = dual_control(unknown_gain(x, b, P))
        least = solution.cost - x * x
        assert least == pytest.approx(two_stages(float(solution.choices["dual"].action), x, b, P))
        for u in rng.uniform(-3, 3, size=10):
            assert two_stages(u, x, b, P) >= least - 1e-7


@pytest.mark.slow
def test_two_stage_policies_cost_in_trials_what_quadrature_says():
    problem = unknown_gain(1.0, 0.5, 1.0)
    solution = dual_control(problem, n_nodes=64)
    trials = solution.compare(2000, seed=0)
    dual = trials["dual"]
    assert abs(dual.cost.value - solution.cost) < 4 * dual.standard_error


def test_a_known_gain_leaves_nothing_to_probe():
    solution = dual_control(unknown_gain(1.0, 0.5, 0.0), n_nodes=32)
    actions = [float(choice.action) for choice in solution.choices.values()]
    assert actions == pytest.approx([-2.0] * 3, abs=1e-4)


def test_planning_anew_changes_nothing_where_the_plan_is_exact():
    system = LinearSystem([[1.1]], [[1.0]], step=1)
    problem = ControlProblem(
        system, 1.0, 0.5, process_noise=0.2, sensor_noise=0.3, horizon=4,
        initial_state=[1.0], initial_covariance=0.4,
    )  # fmt: skip
    inputs = [
        run_trials(problem, choice.policy, 5, torch.Generator().manual_seed(0)).inputs
        for replans in (False, True)
        for choice in dual_control(problem, method="belief", replans=replans).choices.values()
    ]
    for other in inputs[1:]:
        torch.testing.assert_close(other, inputs[0], rtol=1e-5, atol=1e-6)


def test_limits_hold_every_action():
    solution = dual_control(unknown_gain(1.0, 0.2, 1.0, limits=(-0.3, 0.3)), n_nodes=32)
    for choice in solution.choices.values():
        assert abs(float(choice.action)) <= 0.3 + 1e-12
    assert float(solution.choices["dual"].action) == pytest.approx(-0.3, abs=1e-6)


def test_a_belief_of_a_linear_problem_gives_the_linear_quadratic_gaussian_cost():
    system = LinearSystem([[1.1]], [[1.0]], step=1)
    problem = ControlProblem(
        system, 1.0, 0.5, process_noise=0.2, sensor_noise=0.3, horizon=2,
        initial_state=[1.0], initial_covariance=0.4,
    )  # fmt: skip
    expected = lqg(problem)
    for method in ("quadrature", "belief"):
        solution = dual_control(problem, method=method, n_nodes=48)
        assert solution.separates
        assert solution.separates.dual_effect < 1e-12
        # the plan in belief space begins after the first reading, at its mean
        missing = expected.cost_to_go[0, 0, 0] * (0.4 - expected.covariance[0, 0, 0])
        total = solution.cost + (float(missing) if method == "belief" else 0.0)
        assert total == pytest.approx(expected.cost, rel=1e-6)
        actions = [float(choice.action) for choice in solution.choices.values()]
        assert actions == pytest.approx([-float(expected.gain[0])] * 3, rel=1e-4)


@pytest.mark.slow
def test_a_plan_in_belief_space_walks_to_the_light_and_others_do_not():
    solution = dual_control(light_dark(horizon=8))
    assert solution.method == "belief"
    assert not solution.exact
    assert solution.verdict == "local optimum"
    first = {name: float(choice.action[0]) for name, choice in solution.choices.items()}
    assert first["dual"] > 0 > first["cautious"]
    assert first["cautious"] == pytest.approx(first["certainty equivalent"])
    assert not solution.separates
    assert "probe" in solution.separates.reason


@pytest.mark.slow
def test_where_readings_depend_on_the_place_belief_aware_control_is_better():
    solution = dual_control(light_dark())
    trials = solution.compare(1000, seed=1)
    for other in ("cautious", "certainty equivalent"):
        gain = trials[other].costs - trials["dual"].costs  # under the same noise
        assert float(gain.mean()) >= 3 * float(gain.std()) / math.sqrt(len(gain))
        both = math.hypot(trials[other].standard_error, trials["dual"].standard_error)
        assert trials[other].cost.value - trials["dual"].cost.value >= 3 * both


@pytest.mark.slow
def test_a_plan_whose_expansion_does_not_hold_says_so():
    solution = dual_control(unknown_gain(1.0, 0.2, 1.0, horizon=4), max_iterations=60)
    assert solution.method == "belief"
    assert solution.verdict.startswith("undecided")


def test_what_is_not_small_is_not_done_by_quadrature():
    with pytest.raises(ArgumentError, match="at most 3 steps"):
        dual_control(unknown_gain(1.0, 0.2, 1.0, horizon=9), method="quadrature")
    with pytest.raises(ArgumentError, match="method must be one of"):
        dual_control(unknown_gain(1.0, 0.2, 1.0), method="magic")
