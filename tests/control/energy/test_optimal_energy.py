import json
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from clinode.control.energy.energy import control_energy
from clinode.control.energy.optimal_energy import optimal_energy
from clinode.control.energy.optimal_modes import modal_path
from clinode.control.energy.optimal_path import Cost, swept_path
from clinode.dynamics import simulate
from clinode.errors import ArgumentError, SolverError
from clinode.system import LinearSystem, Signal

LEAK = LinearSystem([[-1.0]], [[1.0]])


def stable(W):
    return W / (1 + np.abs(np.linalg.eigvals(W)).max()) - np.eye(len(W))


def test_the_published_example_of_nctpy_costs_what_its_documentation_says():
    np.random.seed(42)  # noqa: NPY002  (the published numbers are those of this generator)
    A = stable(np.random.rand(5, 5))  # noqa: NPY002
    np.random.seed(42)  # noqa: NPY002
    x0, target = np.random.rand(2, 5)  # noqa: NPY002
    way = optimal_energy(LinearSystem(A, np.eye(5)), x0, target)
    expected = np.array([159.35334645, 728.32771143, 349.67802113, 120.56428349, 563.2983561])
    np.testing.assert_allclose(1000 * way.by_input, expected, rtol=3e-9)  # sums 0.001 apart
    assert 1000 * way.value == pytest.approx(1921.22, abs=5e-3)
    assert way.verdict == "reliable"


@pytest.mark.parametrize(
    ("case", "how"),
    [
        ("continuous", {}),
        ("B", {}),
        ("ref", {"reference": "start"}),
        ("discrete", {}),
        ("rho", {"input_cost": 100.0}),
        ("S", {"state_cost": "B"}),
        ("T", {}),
    ],
)
def test_paths_are_those_of_nctpy(case, how, data_dir):
    stored = np.load(data_dir / "connectomes" / "nctpy_fixtures" / "fixtures.npz")
    x, u = stored[f"control_{case}__x"], stored[f"control_{case}__u"]
    B = stored["B"] if case == "B" else np.eye(50)
    names = {"start": x[0], "B": np.diag(stored["B"])}
    how = {k: names[v] if isinstance(v, str) else v for k, v in how.items()}
    is_map = len(u) < len(x)
    A, T = stored["A_d_1" if is_map else "A_c_1"], float(len(u)) if is_map else 2.0
    linear = LinearSystem(A, B, step=1.0 if is_map else None)
    way = optimal_energy(linear, x[0], stored["xf"], T, **how)
    assert way.verdict == "reliable"
    found = way.trajectory(len(x))
    np.testing.assert_allclose(found.states, x, atol=1e-9 * np.abs(x).max())
    np.testing.assert_allclose(found.inputs[: len(u)], u, atol=1e-9 * np.abs(u).max())


@pytest.mark.parametrize("T", [1e-3, 0.5, 5.0, 300.0])
@pytest.mark.parametrize("weight", [0.0, 1e-6, 1.0, 50.0])
def test_the_closed_form_of_modes_integrates_its_own_path(T, weight):
    rng = np.random.default_rng(0)
    A = stable(rng.random((3, 3)))
    A = (A + A.T) / 2
    x0, target, r = rng.normal(size=(3, 1, 3))
    path = modal_path(A, 2.0 * np.eye(3), x0, target, r, T, weight)
    edges = np.concatenate([[0], np.geomspace(T * 1e-6, T / 2, 40)])
    edges = np.unique(np.concatenate([edges, T - edges]))  # finer at both ends
    nodes, weights = np.polynomial.legendre.leggauss(20)
    times = (edges[:-1, None] + np.diff(edges)[:, None] * (nodes + 1) / 2).ravel()
    states, inputs = path.at(times)

    def integral(values):
        return float((np.diff(edges)[:, None] * weights / 2).ravel() @ (values[0] ** 2).sum(axis=1))

    assert path.energies()[0] == pytest.approx(integral(inputs), rel=1e-9)
    assert path.squared_distances()[0] == pytest.approx(integral(states - r), rel=1e-9)


@pytest.mark.parametrize("T", [0.01, 1.0, 40.0])
@pytest.mark.parametrize("S", [0.0, 2.0])
def test_doubling_agrees_with_the_closed_form(T, S):
    rng = np.random.default_rng(1)
    W = rng.random((6, 6))
    A, B = stable(W + W.T), 0.5 * np.eye(6)
    x0, target, r = rng.normal(size=(3, 4, 6))
    modes = modal_path(A, B, x0, target, r, T, S / 0.3)
    swept = swept_path(Cost(A, B, S * np.eye(6), 0.3), x0, target, T, r)
    parts = swept.integrals()
    np.testing.assert_allclose(parts.by_input.sum(axis=1), modes.energies(), rtol=1e-11)
    np.testing.assert_allclose(parts.distance, S * modes.squared_distances(), rtol=1e-11)
    times = np.linspace(0, T, 7)
    for one, two in zip(swept.at(times), modes.at(times), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-10 * np.abs(two).max())


def test_a_single_leak_follows_its_hyperbolic_sines():
    way = optimal_energy(LEAK, 0.0, 1.0, horizon=2.0, state_cost=3.0)
    t = np.linspace(0, 2, 9)
    found = way.trajectory(t)
    np.testing.assert_allclose(found.states[:, 0], np.sinh(2 * t) / np.sinh(4.0), atol=1e-14)
    expected = (2 * np.cosh(2 * t) + np.sinh(2 * t)) / np.sinh(4.0)
    np.testing.assert_allclose(found.inputs[:, 0], expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_without_a_state_cost_the_optimum_is_the_least_energy(seed):
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(6, 6)), rng.normal(size=(6, 3))
    x0, target = rng.normal(size=(2, 6))
    way = optimal_energy(LinearSystem(A, B), x0, target, 1.5, state_cost=0.0)
    least = control_energy(LinearSystem(A, B), x0, target, 1.5)
    assert way.value == pytest.approx(float(least.value), rel=1e-6)


def test_a_state_cost_never_makes_the_energy_smaller():
    rng = np.random.default_rng(5)
    A, B = rng.normal(size=(5, 5)), rng.normal(size=(5, 2))
    x0, target = rng.normal(size=(2, 5))
    values = [
        float(optimal_energy(LinearSystem(A, B), x0, target, state_cost=S).value)
        for S in (0.0, 0.1, 1.0, 10.0)
    ]
    assert values == sorted(values)


def test_no_other_input_to_the_same_target_costs_less():
    rng = np.random.default_rng(6)
    A, B, S = rng.normal(size=(4, 4)), rng.normal(size=(4, 2)), np.diag([3.0, 0.0, 1.0, 0.5])
    x0, target = rng.normal(size=(2, 4))
    way = optimal_energy(LinearSystem(A, B), x0, target, state_cost=S, input_cost=0.7)
    steps = 4000
    h, flow = 1 / steps, expm(A / steps)
    effect = np.linalg.solve(A, flow - np.eye(4)) @ B
    base = way.trajectory((np.arange(steps) + 0.5) * h).inputs

    def cost(u):
        x, total = x0, 0.0
        for v in u:
            middle = x + (flow @ x + effect @ v - x) / 2
            total += h * (middle @ S @ middle + 0.7 * v @ v)
            x = flow @ x + effect @ v
        return total, x

    at_best, end = cost(base)
    assert at_best == pytest.approx(float(way.cost), rel=1e-5)
    for _ in range(3):
        other = 0.5 * rng.normal(size=(40, 2)).repeat(steps // 40, axis=0)
        _, moved = cost(base + other)
        # a correction at least energy brings the end back
        G = np.concatenate(
            [np.linalg.matrix_power(flow, k) @ effect for k in range(400)][::-1], axis=1
        )
        fix = np.linalg.pinv(G) @ (end - moved)
        other[-400:] += fix.reshape(400, 2)
        total, again = cost(base + other)
        np.testing.assert_allclose(again, end, atol=1e-8)
        assert total > at_best


@pytest.mark.parametrize("hold", ["linear", "previous"])
def test_the_input_drives_an_independent_simulation_to_the_target(hold):
    rng = np.random.default_rng(7)
    A, B, rest = rng.normal(size=(5, 5)), rng.normal(size=(5, 2)), rng.normal(size=5)
    x0, target = rng.normal(size=(2, 5))
    linear = LinearSystem(A, B, offset=(rest, [1.0, -2.0]))
    reference = Signal([0.0, 0.5, 0.9, 1.5], rng.normal(size=(4, 5)), hold)
    way = optimal_energy(linear, x0, target, 1.5, state_cost=4.0, reference=reference)
    assert way.verdict == "reliable"
    signal = way.to_signal()

    def rate(t, x):
        return A @ (x - rest) + B @ (signal(torch.tensor(t)).numpy() - [1.0, -2.0])

    state = x0
    for a, b in zip([0.0, 0.5, 0.9], [0.5, 0.9, 1.5], strict=True):
        state = solve_ivp(rate, (a, b), state, "DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(state, target, atol=1e-8)
    ours = simulate(linear, torch.tensor(x0), [0.0, 1.5], signal, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(ours.states[-1].numpy(), target, atol=1e-7)


def test_a_heavy_state_cost_keeps_to_the_reference():
    reference = Signal([0.0, 1.0, 2.0], [[0.0], [1.0], [-1.0]], "linear")
    way = optimal_energy(LEAK, 0.0, -1.0, 2.0, state_cost=1e5, reference=reference)
    found = way.trajectory([0.5, 1.5])
    np.testing.assert_allclose(found.states[:, 0], [0.5, 0.0], atol=1e-2)


def test_long_horizons_rest_in_the_middle_and_lose_nothing():
    rng = np.random.default_rng(8)
    A, B = rng.normal(size=(4, 4)), rng.normal(size=(4, 2))  # unstable
    x0, target = rng.normal(size=(2, 4))
    ways = [optimal_energy(LinearSystem(A, B), x0, target, T) for T in (60.0, 240.0)]
    assert [w.verdict for w in ways] == ["reliable"] * 2
    assert ways[0].value == pytest.approx(float(ways[1].value), rel=1e-9)
    np.testing.assert_allclose(ways[1].trajectory([120.0]).states, 0.0, atol=1e-12)


@pytest.mark.parametrize("m", [3, 1])
def test_where_float64_ends_balls_find_the_optimum(m):
    rng = np.random.default_rng(9)
    W = rng.random((9, 9))
    A, B = stable(W), np.eye(9)[:, :m]
    target, r = rng.normal(size=(2, 9))
    linear = LinearSystem(A, B)
    way = optimal_energy(linear, 0.0, target, state_cost=5.0, reference=r)
    least = control_energy(linear, 0.0, target)
    assert way.verdict == "reliable"
    assert way.value >= least.value * (1 - 1e-6)
    again = optimal_energy(linear, 0.0, target, state_cost=5.0, reference=r, rtol=1e-12)
    assert again.route == "Hamiltonian in balls"
    assert way.value == pytest.approx(float(again.value), rel=1e-6)
    assert way.cost == pytest.approx(float(again.cost), rel=1e-6)
    assert again.bound < 1e-12


def test_an_unreachable_target_has_no_optimum():
    linear = LinearSystem(-np.eye(2), [[1.0], [1.0]])
    way = optimal_energy(linear, 0.0, [[1.0, 1.0], [1.0, 2.0]])
    assert way.verdict.tolist() == ["reliable", "unreachable"]
    assert way.cost[1] == math.inf
    assert np.isnan(way.trajectory(3).states[1]).all()
    with pytest.raises(ArgumentError, match="reliable path"):
        way.to_signal()


def test_without_time_for_balls_the_least_energy_is_a_lower_bound():
    W = np.random.default_rng(10).random((12, 12))
    linear = LinearSystem(stable(W), np.eye(12)[:, :1])
    way = optimal_energy(linear, 0.0, 1.0, wall_time_seconds=-1.0)
    assert way.verdict == "lower bound"
    assert way.bound == math.inf


def test_a_map_steps_where_its_trajectory_says(exact_energy):
    rng = np.random.default_rng(11)
    A, B = rng.normal(size=(4, 4)) / 2, rng.normal(size=(4, 2))
    x0, target = rng.normal(size=(2, 4))
    linear = LinearSystem(A, B, step=0.5)
    way = optimal_energy(linear, x0, target, 6.0, state_cost=2.0, reference=0.3)
    found = way.trajectory(0.5 * np.arange(13))
    x = x0
    for k in range(12):
        x = A @ x + B @ found.inputs[k]
        np.testing.assert_allclose(x, found.states[k + 1], atol=1e-10)
    np.testing.assert_allclose(x, target, atol=1e-10)
    assert way.value == pytest.approx((found.inputs[:-1] ** 2).sum())
    bare = optimal_energy(linear, x0, target, 6.0, state_cost=0.0)
    assert bare.value == pytest.approx(float(exact_energy(A, B, x0, target, 6.0, step=0.5)))


def test_pairs_have_their_own_references_and_batch_axes():
    rng = np.random.default_rng(12)
    A, B = rng.normal(size=(3, 3)), rng.normal(size=(3, 2))
    x0, target, r = rng.normal(size=(3, 2, 3))
    way = optimal_energy(LinearSystem(A, B), x0, target, reference=r)
    alone = optimal_energy(LinearSystem(A, B), x0[1], target[1], reference=r[1])
    assert way.value[1] == pytest.approx(float(alone.value), rel=1e-12)
    assert way.trajectory(5).states.shape == (2, 5, 3)
    assert way.to_signal()(torch.tensor(0.3)).shape == (2, 2)
    assert json.loads(json.dumps(way.to_dict()))["verdict"] == ["reliable"] * 2
    assert len(way.to_pandas()) == 2
    assert list(way.trajectory(2).to_pandas().columns) == [
        "pair",
        "time",
        "x1",
        "x2",
        "x3",
        "u1",
        "u2",
    ]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"horizon": math.inf}, "finite horizon"),
        ({"input_cost": 0.0}, "input_cost must be positive"),
        ({"state_cost": -1.0}, "must not be negative"),
        ({"state_cost": [1.0, 2.0]}, "state_cost has shape"),
        ({"state_cost": [[math.nan]]}, "finite and symmetric"),
        ({"reference": [1.0, 2.0]}, "reference must be finite"),
        ({"reference": Signal([0.0], [[1.0, 2.0]])}, "one signal of the 1 states"),
    ],
)
def test_costs_that_do_not_fit_are_refused_in_words(how, words):
    with pytest.raises(ArgumentError, match=words):
        optimal_energy(LEAK, 0.0, 1.0, **how)


def test_a_path_of_too_many_time_constants_is_refused_in_words():
    stiff = LinearSystem([[-1e6, 0.0], [1.0, -1.0]], [[1.0], [1.0]])
    with pytest.raises(SolverError, match="time constants"):
        optimal_energy(stiff, 0.0, 1.0)
