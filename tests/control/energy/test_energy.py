import json
import math

import numpy as np
import pytest
import torch
from flint import arb
from scipy.linalg import expm

from clinode.control.energy.energy import control_energy
from clinode.control.stimulation.limits import StimulusLimits
from clinode.errors import ArgumentError
from clinode.system import LinearSystem

DOUBLE_INTEGRATOR = LinearSystem([[0.0, 1.0], [0.0, 0.0]], [[0.0], [1.0]])
LEAK = LinearSystem([[-1.0]], [[1.0]])

# Of hcp_desikan68 with inputs to its first nodes, T = 1: exponentials of the block matrix in balls.
KNOWN = {68: 2.304989481, 30: 3.258860529e7, 15: 9.996696952e16, 8: 2.977679366e36}
KNOWN |= {4: 2.019059982e86, 2: 8.9396188e192}
KNOWN_LOG10 = {n: math.log10(value) for n, value in KNOWN.items()} | {
    1: 432 + math.log10(2.469577566)
}


def relative_error(value, ball):
    return abs(float((arb(float(value)) / ball - 1).mid()))


def network(rng, n, m, kind):
    W = np.abs(rng.normal(size=(n, n))) * (rng.random((n, n)) < 0.5)
    if kind == "symmetric":
        W = (W + W.T) / 2
    A = W / (1 + np.abs(np.linalg.eigvals(W)).max()) - np.eye(n)
    return A, np.eye(n)[:, :m]


@pytest.mark.parametrize("T", [0.1, 1.0, 10.0, 1e4])
def test_a_mass_moved_from_rest_to_rest_costs_twelve_over_the_cube_of_the_horizon(T):
    energy = control_energy(DOUBLE_INTEGRATOR, [0.0, 0.0], [1.0, 0.0], T)
    assert energy.verdict == "reliable"
    assert energy.value == pytest.approx(12 / T**3, rel=1e-6)


@pytest.mark.parametrize("a", [-2.0, -1e-9, 0.0, 1e-9, 0.5, 30.0])
def test_one_state_costs_its_closed_form(a):
    b, T = 3.0, 1.5
    W = b**2 * (T if a == 0 else math.expm1(2 * a * T) / (2 * a))
    energy = control_energy(LinearSystem([[a]], [[b]]), 0.7, -0.4, T)
    assert energy.value == pytest.approx((-0.4 - math.exp(a * T) * 0.7) ** 2 / W, rel=1e-6)


def test_symmetric_dynamics_with_full_control_cost_the_sum_over_modes():
    A, B = network(np.random.default_rng(0), 12, 12, "symmetric")
    x0, target = np.random.default_rng(1).normal(size=(2, 5, 12))
    w, V = np.linalg.eigh(A)
    d = (target - x0 @ expm(A * 2.0).T) @ V
    expected = (d**2 * 2 * w / np.expm1(4 * w)).sum(axis=1)
    energy = control_energy(LinearSystem(A, B), x0, target, 2.0)
    np.testing.assert_allclose(energy.value, expected, rtol=1e-12)
    assert set(energy.route) == {"closed form in float64"}


@pytest.mark.parametrize("kind", ["symmetric", "directed"])
@pytest.mark.parametrize("m", [1, 2, 5, 10])
@pytest.mark.parametrize("T", [0.3, 1.0, 8.0])
def test_energies_are_those_of_the_block_exponential_within_their_bound(kind, m, T, exact_energy):
    rng = np.random.default_rng(int(100 * T) + m)
    A, B = network(rng, 10, m, kind)
    x0, target = rng.normal(size=(2, 10))
    energy = control_energy(LinearSystem(A, B), x0, target, T)
    assert energy.verdict == "reliable"
    expected = exact_energy(A, B, x0, target, T)
    assert relative_error(energy.value, expected) <= energy.bound <= 1e-6
    assert energy.log10 == pytest.approx(math.log10(float(expected)), abs=1e-6)


@pytest.mark.parametrize("m", sorted(KNOWN_LOG10))
def test_a_real_connectome_costs_what_is_known_however_few_its_inputs(m, data_dir):
    W = np.load(data_dir / "connectomes" / "hcp_desikan68" / "connectome.npz")["weights"]
    A = W / (1 + np.abs(np.linalg.eigvalsh(W)).max()) - np.eye(68)
    target = np.random.default_rng(0).normal(size=68)
    linear = LinearSystem(A, np.eye(68)[:, :m])
    energy = control_energy(linear, 0.0, target / np.linalg.norm(target))
    assert energy.verdict == "reliable"
    assert energy.log10 == pytest.approx(KNOWN_LOG10[m], abs=1e-6 if m != 2 else 4e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "inputs", "T"),
    [
        ("macaque82", 6, 1.0),
        ("macaque82", 25, 5.0),
        ("mouse98", 20, 1.0),
        ("hcp_schaefer100", 9, 0.5),
    ],
)
def test_other_connectomes_cost_what_the_block_exponential_says(
    name, inputs, T, data_dir, exact_energy
):
    W = np.load(data_dir / "connectomes" / name / "connectome.npz")["weights"].astype(float)
    A = W / (1 + np.abs(np.linalg.eigvals(W)).max()) - np.eye(len(W))
    rng = np.random.default_rng(3)
    B = np.eye(len(W))[:, rng.permutation(len(W))[:inputs]]
    target = rng.normal(size=len(W))
    energy = control_energy(LinearSystem(A, B), 0.0, target, T)
    assert energy.verdict == "reliable"
    assert relative_error(energy.value, exact_energy(A, B, 0 * target, target, T, bits=700)) < 1e-6


@pytest.mark.slow
def test_regions_that_receive_nothing_are_unreachable_and_said_to_be(data_dir):
    W = np.load(data_dir / "connectomes" / "tvb76" / "connectome.npz")["weights"].astype(float)
    A = W / (1 + np.abs(np.linalg.eigvals(W)).max()) - np.eye(76)
    deaf = np.flatnonzero(~W.any(axis=1))
    linear = LinearSystem(A, np.eye(76)[:, :30])
    target = np.random.default_rng(3).normal(size=76)
    still = np.where(np.isin(np.arange(76), deaf), 0.0, target)
    energy = control_energy(linear, 0.0, [target, still])
    assert energy.verdict.tolist() == ["unreachable", "reliable"]
    assert energy.reach_error[0] == pytest.approx(np.linalg.norm(target[deaf]))


def test_energy_grows_with_the_square_of_the_distance():
    A, B = network(np.random.default_rng(4), 9, 2, "directed")
    target = np.random.default_rng(5).normal(size=9)
    energy = control_energy(LinearSystem(A, B), 0.0, target * np.array([[1.0], [4.0], [-0.125]]))
    np.testing.assert_allclose(energy.value / energy.value[0], [1, 16, 1 / 64], rtol=2e-6)


def test_more_time_costs_less_from_rest():
    A, B = network(np.random.default_rng(6), 8, 2, "directed")
    target = np.random.default_rng(7).normal(size=8)
    times = [0.2, 0.5, 1.0, 3.0, 10.0, math.inf]
    costs = [float(control_energy(LinearSystem(A, B), 0.0, target, T).log10) for T in times]
    assert costs == sorted(costs, reverse=True)


def test_going_back_in_reversed_time_costs_the_same():
    rng = np.random.default_rng(8)
    A, B = rng.normal(size=(6, 6)), rng.normal(size=(6, 2))
    x0, target = rng.normal(size=(2, 6))
    forth = control_energy(LinearSystem(A, B), x0, target, 1.3, rtol=1e-9)
    back = control_energy(LinearSystem(-A, -B), target, x0, 1.3, rtol=1e-9)
    assert forth.value == pytest.approx(back.value, rel=2e-9)


def test_coordinates_do_not_change_what_a_transfer_costs():
    rng = np.random.default_rng(9)
    A, B = rng.normal(size=(5, 5)), rng.normal(size=(5, 1))
    x0, target = rng.normal(size=(2, 5))
    S = np.diag([2.0, -0.5, 4.0, 1.0, 0.25])[[1, 0, 4, 2, 3]]  # exact in float64
    other = LinearSystem(S @ A @ np.linalg.inv(S), S @ B)
    one = control_energy(LinearSystem(A, B), x0, target)
    two = control_energy(other, S @ x0, S @ target)
    assert one.value == pytest.approx(two.value, rel=2e-6)


def test_the_operating_point_is_where_states_are_measured_from():
    A, B = network(np.random.default_rng(10), 5, 2, "directed")
    rest = np.array([-70.0, 3.0, 0.1, 12.5, -8.0])
    target = np.random.default_rng(11).normal(size=5)
    moved = LinearSystem(A, B, offset=(rest, [4.0, 4.0]))
    one = control_energy(LinearSystem(A, B), 0.0, target).value
    two = control_energy(moved, rest, rest + target).value
    assert two == pytest.approx(one, rel=1e-10)


@pytest.mark.parametrize("n_steps", [4, 7, 50])
def test_a_map_costs_the_least_sum_of_squares(n_steps, exact_energy):
    A, B = network(np.random.default_rng(12), 6, 2, "directed")
    x0, target = np.random.default_rng(13).normal(size=(2, 6))
    energy = control_energy(LinearSystem(A, B, step=0.1), x0, target, 0.1 * n_steps)
    expected = exact_energy(A, B, x0, target, 0.1 * n_steps, step=0.1)
    assert relative_error(energy.value, expected) <= energy.bound <= 1e-6


@pytest.mark.parametrize("step", [None, 1.0])
@pytest.mark.parametrize("kind", ["symmetric", "directed"])
@pytest.mark.parametrize("m", [1, 2, 5])
def test_for_ever_costs_what_the_exact_lyapunov_equation_says(step, kind, m, exact_energy):
    rng = np.random.default_rng(14)
    W = rng.random((5, 5))
    W = W + W.T if kind == "symmetric" else W
    A = W / (1 + np.abs(np.linalg.eigvals(W)).max()) - (0 if step else np.eye(5))
    B, target = np.eye(5)[:, :m], np.random.default_rng(15).normal(size=5)
    energy = control_energy(LinearSystem(A, B, step=step), 3.0, target, math.inf)
    expected = exact_energy(A, B, 0 * target, target, math.inf, step=step)
    assert energy.verdict == "reliable"
    assert relative_error(energy.value, expected) <= energy.bound


def test_an_energy_above_float64_still_has_its_logarithm(exact_energy):
    n = 10
    A = np.diag(np.full(n - 1, 1e-20), -1)  # a chain that hardly conducts
    target = np.eye(n)[-1]
    energy = control_energy(LinearSystem(A, np.eye(n)[:, :1]), 0.0, target)
    assert energy.value == math.inf
    ball = exact_energy(A, np.eye(n)[:, :1], 0 * target, target, 1.0, bits=4000)
    assert energy.log10 == pytest.approx(float(ball.log() / arb(10).log()), abs=1e-6)
    assert energy.verdict == "reliable"


def test_where_the_system_drifts_by_itself_costs_nothing():
    A, B = network(np.random.default_rng(16), 6, 1, "directed")
    x0 = np.random.default_rng(17).normal(size=6)
    energy = control_energy(LinearSystem(A, B), x0, expm(A) @ x0, 1.0)
    assert (energy.value, energy.log10, energy.verdict) == (0.0, -math.inf, "reliable")
    assert energy.reach_error < 1e-14


def test_a_mirrored_network_driven_in_its_midline_cannot_be_made_asymmetric():
    rng = np.random.default_rng(18)
    left = rng.random((3, 3))
    across, middle = np.diag(rng.random(3)), rng.random((1, 3))
    W = np.block(
        [
            [left + left.T, across, middle.T],
            [across, left + left.T, middle.T],
            [middle, middle, np.zeros((1, 1))],
        ]
    )
    linear = LinearSystem(W / 10 - np.eye(7), np.eye(7)[:, 6:])
    same = [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 5.0]
    energy = control_energy(linear, 0.0, [same, [1.0, 2.0, 3.0, 1.0, 2.0, 4.0, 5.0]])
    assert energy.verdict.tolist() == ["reliable", "unreachable"]
    assert energy.value[1] == math.inf
    assert energy.reach_error[1] == pytest.approx(math.sqrt(0.5))  # half of the difference, twice


def test_energies_of_outputs_are_those_of_the_cheapest_state_that_shows_them():
    A, B = network(np.random.default_rng(19), 6, 3, "directed")
    C = np.random.default_rng(20).normal(size=(2, 6))
    y = np.array([1.0, -2.0])
    energy = control_energy(LinearSystem(A, B, C), 0.0, y, outputs=True)
    # the least over the states with C x = y: x = W C' (C W C')^-1 y
    M = np.block([[-A, B @ B.T], [np.zeros((6, 6)), A.T]])
    E = expm(M)
    W = E[6:, 6:].T @ E[:6, 6:]
    assert energy.value == pytest.approx(y @ np.linalg.solve(C @ W @ C.T, y), rel=1e-6)


def test_latent_coordinates_do_not_change_the_energy_to_an_output():
    rng = np.random.default_rng(21)
    A, B, C = rng.normal(size=(5, 5)), rng.normal(size=(5, 2)), rng.normal(size=(2, 5))
    S = rng.normal(size=(5, 5))
    one = LinearSystem(A, B, C, latent=True)
    other = LinearSystem(S @ A @ np.linalg.inv(S), S @ B, C @ np.linalg.inv(S), latent=True)
    energies = [control_energy(s, 0.0, [1.0, 2.0], outputs=True).value for s in (one, other)]
    assert energies[0] == pytest.approx(energies[1], rel=1e-6)


def test_outputs_that_repeat_each_other_cannot_be_set_apart():
    linear = LinearSystem([[-1.0, 0.5], [0.2, -2.0]], [[0.0], [1.0]], [[1.0, 0.0], [2.0, 0.0]])
    energy = control_energy(linear, 0.0, [[1.0, 2.0], [2.0, 3.0]], outputs=True)
    assert energy.verdict.tolist() == ["reliable", "unreachable"]


def test_limits_are_kept_broken_or_open():
    energy = control_energy(DOUBLE_INTEGRATOR, 0.0, [[1.0, 0.0], [3.0, 0.0]], limits=20.0)
    assert energy.within_limits.tolist() == [True, False]
    loud = StimulusLimits(amplitude=3.0)  # at most 9 in unit time
    energy = control_energy(DOUBLE_INTEGRATOR, 0.0, [[0.5, 0.0], [1.0, 0.0]], limits=loud)
    assert energy.within_limits.tolist() == [None, False]


def test_without_time_a_lower_bound_is_all_that_is_claimed(exact_energy):
    A, B = network(np.random.default_rng(22), 14, 1, "symmetric")
    target = np.random.default_rng(23).normal(size=14)
    energy = control_energy(LinearSystem(A, B), 0.0, target, wall_time_seconds=-1.0, limits=1e3)
    truth = exact_energy(A, B, 0 * target, target, 1.0)
    assert energy.verdict == "lower bound"
    assert 0 < energy.value < float(truth)
    assert energy.bound == math.inf
    assert not energy.within_limits


def test_a_bracket_too_wide_for_the_tolerance_is_a_lower_bound_with_its_width(exact_energy):
    A, B = network(np.random.default_rng(27), 12, 6, "directed")
    target = np.random.default_rng(28).normal(size=12)
    energy = control_energy(
        LinearSystem(A, B), 0.0, target, rtol=1e-15, wall_time_seconds=-1.0, limits=1e300
    )
    truth = exact_energy(A, B, 0 * target, target, 1.0)
    assert energy.verdict == "lower bound"
    assert arb(float(energy.value)) <= truth
    assert truth <= arb(float(energy.value)) * (1 + arb(float(energy.bound)))
    assert energy.bound < 1e-3
    assert energy.within_limits


def test_growth_beyond_float64_is_no_obstacle(exact_energy):
    A = np.array([[30.0, 1.0], [-1.0, 25.0]])
    energy = control_energy(LinearSystem(A, [[1.0], [0.0]]), [1e3, 2e3], 0.0, 30.0)
    expected = exact_energy(A, np.array([[1.0], [0.0]]), [1e3, 2e3], [0.0, 0.0], 30.0, bits=9000)
    assert relative_error(energy.value, expected) <= energy.bound <= 1e-6


def test_a_map_in_too_few_steps_is_proven_not_to_arrive_whatever_its_numbers():
    rng = np.random.default_rng(29)
    linear = LinearSystem(rng.normal(size=(6, 6)), rng.normal(size=(6, 1)), step=1.0)
    energy = control_energy(linear, rng.normal(size=6), rng.normal(size=6), 5.0)
    assert energy.verdict == "unreachable"


def test_a_slow_spiral_that_is_nearly_defective_has_an_energy_for_ever(exact_energy):
    A = np.array([[1.9998877040573053, -2.0], [2.0, -2.000112295942695]])
    B, target = np.array([[-1.0], [-1.0]]), np.array([1.0, 2.0])
    energy = control_energy(LinearSystem(A, B), 0.0, target, math.inf)
    assert relative_error(energy.value, exact_energy(A, B, 0 * target, target, math.inf)) <= 1e-6
    assert energy.verdict == "reliable"


def test_pairs_keep_their_batch_axes_and_do_not_see_each_other():
    A, B = network(np.random.default_rng(24), 6, 2, "directed")
    linear = LinearSystem(A, B)
    x0 = np.random.default_rng(25).normal(size=(3, 1, 6))
    target = np.random.default_rng(26).normal(size=(4, 6))
    energy = control_energy(linear, torch.tensor(x0), torch.tensor(target), 1.0)
    assert energy.value.shape == energy.verdict.shape == (3, 4)
    alone = control_energy(linear, x0[2, 0], target[1], 1.0)
    assert energy.value[2, 1] == pytest.approx(float(alone.value), rel=1e-13)


def test_an_energy_is_told_as_a_dict_and_as_a_table():
    energy = control_energy(DOUBLE_INTEGRATOR, 0.0, [[0.0, 0.0], [1.0, 0.0]])
    told = json.loads(json.dumps(energy.to_dict()))
    assert told["log10"][0] is None
    assert told["verdict"] == ["reliable", "reliable"]
    table = energy.to_pandas()
    assert table["value"].tolist() == energy.value.tolist()
    assert "route" in table


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: control_energy(LEAK, [1.0, 2.0], 0.0), "x0 has shape"),
        (lambda: control_energy(LEAK, 0.0, [[1.0, 2.0]]), "target has shape"),
        (lambda: control_energy(LEAK, math.nan, 0.0), "x0 has entries that are not finite"),
        (lambda: control_energy(LEAK, 0.0, 1.0, 0.0), "horizon must be positive"),
        (lambda: control_energy(LEAK, 0.0, 1.0, math.nan), "horizon must be positive"),
        (lambda: control_energy(LEAK, 0.0, 1.0, 1e12), "overflows"),
        (lambda: control_energy(LEAK, 0.0, 1.0, rtol=2.0), "rtol must lie"),
        (lambda: control_energy(LEAK, 0.0, 1.0, limits=-1.0), "positive energy"),
        (lambda: control_energy(LEAK, 0.0, "far"), "must be numbers"),
        (
            lambda: control_energy(LinearSystem([[0.1]], [[1.0]]), 0.0, 1.0, math.inf),
            "infinite horizon needs a stable A",
        ),
        (
            lambda: control_energy(LinearSystem([[0.1]], [[1.0]], step=0.5), 0.0, 1.0, 0.7),
            "no whole number of steps",
        ),
        (
            lambda: control_energy(LinearSystem([[0.1]], [[1.0]], [[1.0]], latent=True), 0.0, 1.0),
            "arbitrary coordinates",
        ),
        (
            lambda: control_energy(LinearSystem([[[0.1]], [[0.2]]], [[1.0]]), 0.0, 1.0),
            "batch axes",
        ),
        (
            lambda: control_energy(LEAK, np.zeros((2, 1)), np.zeros((3, 1))),
            "batch axes do not fit",
        ),
    ],
)
def test_a_call_that_cannot_be_answered_is_refused_in_words(call, words):
    with pytest.raises(ArgumentError, match=words):
        call()
