import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.optimize import minimize_scalar

from clinode.control.energy.energy import control_energy
from clinode.control.energy.reachable import reachable_distance
from clinode.errors import ArgumentError
from clinode.system import LinearSystem

MASS = LinearSystem([[0.0, 1.0], [0.0, 0.0]], [[0.0], [1.0]])


@pytest.mark.parametrize("T", [1.0, 2.0, 5.0])
def test_full_speed_and_brake_carries_a_mass_a_quarter_of_the_squared_time(T):
    furthest = T**2 / 4
    assert (
        reachable_distance(MASS, 0.0, [0.99 * furthest, 0.0], T, amplitude=1.0).verdict == "reached"
    )
    beyond = reachable_distance(MASS, 0.0, [1.01 * furthest, 0.0], T, amplitude=1.0)
    assert beyond.verdict == "out of reach"


@pytest.mark.parametrize("a", [0.2, 1.0])
def test_one_leak_stops_short_by_its_closed_form(a):
    T, target = 1.5, 3.0
    near = reachable_distance(LinearSystem([[-2.0]], [[1.0]]), 0.5, target, T, amplitude=a)
    furthest = 0.5 * math.exp(-2 * T) + a * (1 - math.exp(-2 * T)) / 2
    assert near.distance == pytest.approx(target - furthest, rel=1e-9)
    assert near.lower == pytest.approx(target - furthest, rel=1e-9)
    assert near.states[0] == pytest.approx(furthest)


def test_the_distance_of_a_mass_is_that_to_the_boundary_known_in_closed_form():
    # inputs that switch once, at s, end at (T^2/2 - (T - s)^2, 2 s - T) or its mirror image
    T, target = 2.0, np.array([2.5, -0.5])

    def distance(s):
        return math.hypot(T**2 / 2 - (T - s) ** 2 - target[0], 2 * s - T - target[1])

    best = minimize_scalar(distance, bounds=(0, T), method="bounded", options={"xatol": 1e-10})
    near = reachable_distance(MASS, 0.0, target, T, amplitude=1.0, rtol=1e-7)
    assert near.lower <= best.fun * (1 + 1e-12)
    assert best.fun * (1 - 1e-12) <= near.distance
    assert near.distance == pytest.approx(best.fun, abs=1e-6)
    assert near.distance - near.lower < 1e-6


def test_the_input_is_within_its_bounds_and_leads_where_it_says():
    rng = np.random.default_rng(0)
    A, B, rest = rng.normal(size=(4, 4)), rng.normal(size=(4, 2)), rng.normal(size=4)
    linear = LinearSystem(A, B, offset=(rest, [3.0, -1.0]))
    x0, target = rng.normal(size=(2, 4))
    near = reachable_distance(linear, x0, target, amplitude=[0.5, 2.0])
    values, edges = near.values[0], near.edges[0]
    assert (np.abs(values - [3.0, -1.0]) <= [0.5, 2.0]).all()
    state = x0
    for a, b, u in zip(edges[:-1], edges[1:], values, strict=True):
        rate = B @ (u - [3.0, -1.0])
        state = solve_ivp(
            lambda t, x, rate=rate: A @ (x - rest) + rate, (a, b), state, rtol=1e-10, atol=1e-12
        ).y[:, -1]
    np.testing.assert_allclose(state, near.states, atol=1e-7)
    assert np.linalg.norm(state - target) == pytest.approx(float(near.distance), abs=1e-7)
    signal = near.to_signal()
    np.testing.assert_array_equal(signal(edges[3] + 1e-9).numpy(), values[3])


@pytest.mark.parametrize("seed", range(3))
def test_no_bounded_input_comes_nearer_than_the_lower_bound(seed):
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(3, 3)), rng.normal(size=(3, 1))
    target = 5 * rng.normal(size=3)
    near = reachable_distance(LinearSystem(A, B), 0.0, target, amplitude=1.0)
    assert near.lower <= near.distance
    steps = 200
    flow = expm(A / steps)  # random switching inputs, by exact steps
    effect = np.linalg.solve(A, flow - np.eye(3)) @ B
    for _ in range(200):
        sign, x = rng.choice([-1.0, 1.0]), np.zeros(3)
        switches = set(rng.integers(steps, size=rng.integers(4)))
        for k in range(steps):
            sign = -sign if k in switches else sign
            x = flow @ x + effect[:, 0] * sign
        assert np.linalg.norm(x - target) >= near.lower


def test_more_amplitude_comes_nearer_until_the_target_is_reached():
    W = np.random.default_rng(4).random((8, 8))
    A = W / (1 + np.abs(np.linalg.eigvals(W)).max()) - np.eye(8)
    linear = LinearSystem(A, np.eye(8)[:, :3])
    target = np.random.default_rng(5).normal(size=8)
    amplitudes = [0.1, 1.0, 10.0, 1e3, 1e5]
    near = [reachable_distance(linear, 0.0, target, amplitude=a) for a in amplitudes]
    distances = [float(n.distance) for n in near]
    assert distances == sorted(distances, reverse=True)
    assert near[0].verdict == "out of reach"
    # a target that needs more energy than amplitudes can give is out of reach
    energy = control_energy(linear, 0.0, target).value
    for a, found in zip(amplitudes, near, strict=True):
        if energy > 3 * a**2:
            assert found.verdict != "reached"


def test_one_sided_inputs_cannot_pull():
    leak = LinearSystem([[-1.0]], [[1.0]])
    both = reachable_distance(leak, 0.0, -0.3, amplitude=1.0)
    push = reachable_distance(leak, 0.0, -0.3, amplitude=1.0, one_sided=True)
    assert both.verdict == "reached"
    assert push.distance == pytest.approx(0.3)


def test_a_map_of_one_state_stops_short_by_a_geometric_sum():
    linear = LinearSystem([[0.5]], [[1.0]], step=0.1)
    near = reachable_distance(linear, 0.0, [[3.0], [1.0]], 0.4, amplitude=1.0)
    assert near.verdict.tolist() == ["out of reach", "reached"]
    assert near.distance[0] == pytest.approx(3.0 - 1.875)
    assert list(near.to_pandas().columns) == ["distance", "lower", "drift_distance", "verdict"]
    assert near.to_dict()["verdict"] == ["out of reach", "reached"]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"amplitude": 0.0}, "amplitude must be positive"),
        ({"amplitude": [1.0, 2.0]}, "amplitude has shape"),
        ({"amplitude": 1.0, "horizon": math.inf}, "finite horizon"),
    ],
)
def test_bounds_that_do_not_fit_are_refused_in_words(how, words):
    with pytest.raises(ArgumentError, match=words):
        reachable_distance(LinearSystem([[-1.0]], [[1.0]]), 0.0, 1.0, **how)
