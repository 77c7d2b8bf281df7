import json
import math

import numpy as np
import pytest
import torch

from clinode.brain.connectome import Connectome
from clinode.brain.networks import WilsonCowanNetwork
from clinode.control.controllability.controllability import controllability
from clinode.dynamics import find_equilibria, linearize
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity


def driven(n, *nodes):
    return np.eye(n)[:, list(nodes)]


def path(n):
    return np.eye(n, k=1) + np.eye(n, k=-1)


def ring(n):
    return np.roll(np.eye(n), 1, axis=1) + np.roll(np.eye(n), -1, axis=1)


def star(n):
    A = np.zeros((n, n))
    A[0, 1:] = A[1:, 0] = 1.0
    return A


def asked(A, B, **more):
    return controllability(LinearSystem(np.array(A, dtype=float), np.array(B, dtype=float)), **more)


def planted(n, dimension, m, rng):
    """A and B whose last directions of the rotation Q nothing moves."""
    A, B = rng.normal(size=(n, n)), rng.normal(size=(n, m))
    A[dimension:, :dimension], B[dimension:] = 0.0, 0.0
    Q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return Q @ A @ Q.T, Q @ B, Q


def mirrored_brain(h, seed):
    """Wilson-Cowan regions in two equal hemispheres about a midline region."""
    rng = np.random.default_rng(seed)
    inner, across = rng.uniform(size=(2, h, h))
    to_midline, from_midline = rng.uniform(size=(2, h))
    W = np.zeros((2 * h + 1, 2 * h + 1))
    W[:h, :h] = W[h:-1, h:-1] = inner
    W[:h, h:-1] = W[h:-1, :h] = across
    W[-1, :-1], W[:-1, -1] = np.tile(to_midline, 2), np.tile(from_midline, 2)
    np.fill_diagonal(W, 0.0)
    labels = [f"{side}_{k}" for side in ("lh", "rh") for k in range(h)] + ["midline"]
    return WilsonCowanNetwork(Connectome(weights=torch.tensor(W), labels=tuple(labels)))


def chain_brain(drive):
    """Regions a - b - c - d - e in a row, c held at `drive`."""
    connectome = Connectome(weights=torch.tensor(path(5)), labels=("a", "b", "c", "d", "e"))
    return WilsonCowanNetwork(connectome, P=torch.tensor([0.75, 0.75, drive, 0.75, 0.75]))


@pytest.mark.parametrize("n", [5, 6, 9])
def test_a_path_driven_at_one_node_misses_as_many_modes_as_the_gcd_rule_says(n):
    for node in range(n):
        found = asked(path(n), driven(n, node))
        assert found.dimension == n + 1 - math.gcd(node + 1, n + 1)
        assert found.exact_dimension == found.dimension


@pytest.mark.parametrize("n", [5, 6, 9])
def test_a_ring_driven_at_two_nodes_is_controllable_unless_a_mode_has_nodes_at_both(n):
    assert asked(ring(n), driven(n, 0)).dimension == n // 2 + 1
    for d in range(1, n):
        lost = any(2 * k * d % n == 0 for k in range(1, (n + 1) // 2))
        assert asked(ring(n), driven(n, 0, d)).is_controllable == (not lost)


@pytest.mark.parametrize("n", [5, 6, 9])
def test_stars_and_complete_graphs_are_reached_in_two_or_three_dimensions(n):
    assert asked(star(n), driven(n, 0)).dimension == 2
    assert asked(star(n), driven(n, 1)).dimension == 3
    complete = asked(np.ones((n, n)) - np.eye(n), driven(n, 0))
    assert complete.dimension == 2
    assert complete.reasons[0].kind == "symmetry"
    assert len(complete.reasons[0].regions) == n - 1


def test_two_nodes_are_controllable_where_the_determinant_of_b_and_ab_is_not_zero():
    rng = np.random.default_rng(0)
    for _ in range(30):
        (a11, a12), (a21, a22) = A = rng.integers(-2, 3, size=(2, 2))
        b1, b2 = b = rng.integers(-2, 3, size=2)
        determinant = b1 * (a21 * b1 + a22 * b2) - b2 * (a11 * b1 + a12 * b2)
        assert asked(A, b[:, None]).is_controllable == (determinant != 0)


@pytest.mark.parametrize("seed", range(12))
def test_a_planted_subspace_is_found_with_its_angle(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 61))
    dimension = int(rng.integers(1, n))
    A, B, Q = planted(n, dimension, int(rng.integers(1, 4)), rng)
    found = asked(A, B)
    assert found.dimension == dimension
    assert np.linalg.norm(Q[:, :dimension].T @ found.unreached, 2) < 1e-6
    assert np.linalg.norm(Q[:, dimension:].T @ found.reached, 2) < 1e-6
    assert found.distance < 1e-12
    assert found.exact_dimension == n  # rounding reaches everything, in theory
    assert f"exactly as stored, {n} of {n} dimensions can be" in found.verdict


def test_the_margin_is_the_least_singular_value_over_the_eigenvalues():
    rng = np.random.default_rng(1)
    for n, m in [(1, 1), (4, 1), (20, 3), (30, 25)]:
        A, B = rng.normal(size=(n, n)), rng.normal(size=(n, m))
        pencils = [np.hstack([A - v * np.eye(n), B]) for v in np.linalg.eigvals(A)]
        least = min(np.linalg.svd(pencil, compute_uv=False)[-1] for pencil in pencils)
        assert asked(A, B).margin == pytest.approx(least, rel=1e-9)


def test_a_change_of_the_size_of_the_margin_makes_a_mode_unreachable():
    rng = np.random.default_rng(2)
    A, B = rng.normal(size=(6, 6)), rng.normal(size=(6, 1))
    margin = asked(A, B).margin
    values = np.linalg.eigvals(A)
    svds = [np.linalg.svd(np.hstack([A - v * np.eye(6), B])) for v in values]
    left, sizes, right = min(svds, key=lambda svd: svd[1][-1])
    change = -sizes[-1] * np.outer(left[:, -1], right[5])
    assert np.linalg.norm(change, 2) == pytest.approx(margin, rel=1e-9)
    if np.isrealobj(change):
        assert asked(A + change[:, :6], B + change[:, 6:]).dimension == 5


def test_modes_carry_left_eigenvectors_gains_and_the_regions_they_live_in():
    rng = np.random.default_rng(3)
    A, B = rng.normal(size=(8, 8)), rng.normal(size=(8, 2))
    A[5:, :5], B[5:] = 0.0, 0.0
    states = [Quantity("E", "1", ("a", "b", "c", "d")), Quantity("I", "1", ("a", "b", "c", "d"))]
    found = controllability(LinearSystem(A, B, states=states))
    for mode in found.modes:
        w = mode.left_eigenvector
        np.testing.assert_allclose(w.conj() @ A, mode.eigenvalue * w.conj(), atol=1e-12)
        assert np.linalg.norm(w) == pytest.approx(1.0)
        assert mode.gain == pytest.approx(float(np.linalg.norm(w.conj() @ B)), abs=1e-14)
        assert sum(mode.regions.values()) == pytest.approx(1.0, abs=1e-5)
    assert [mode.is_controllable for mode in found.modes] == [False] * 3 + [True] * 5
    assert found.reasons[0].kind == "no path"
    assert found.reasons[0].states == ("I:b", "I:c", "I:d")
    expected = np.sort_complex(np.linalg.eigvals(A))
    given = np.sort_complex(np.array([mode.eigenvalue for mode in found.modes]))
    np.testing.assert_allclose(given, expected, atol=1e-12)


def test_a_symmetric_brain_driven_at_its_midline_names_the_swapped_regions():
    brain = mirrored_brain(4, 0)
    rest = find_equilibria(brain, n_starts=4)[0]
    found = controllability(linearize(brain, rest, inputs=["stimulus:midline"]))
    assert found.dimension == 10
    (reason,) = found.reasons
    assert reason.kind == "symmetry"
    assert set(reason.pairs) == {(f"lh_{k}", f"rh_{k}") for k in range(4)}
    assert reason.n_modes == 8
    lost = [mode for mode in found.modes if mode.is_controllable is False]
    for mode in lost:  # odd under the swap, E and I alike
        w = mode.left_eigenvector.reshape(2, 9)
        np.testing.assert_allclose(w[:, :4], -w[:, 4:8], atol=1e-9)
        np.testing.assert_allclose(w[:, 8], 0.0, atol=1e-9)
    one_side = controllability(linearize(brain, rest, inputs=["stimulus:lh_0"]))
    assert one_side.is_controllable


@pytest.mark.parametrize("drive", [-40.0, -1000.0])
def test_a_saturated_target_is_told_from_one_without_a_path(drive):
    brain = chain_brain(drive)
    linear = linearize(brain, find_equilibria(brain, n_starts=4)[0], inputs=["stimulus:a"])
    found = controllability(linear)
    assert found.dimension == 4
    (reason,) = found.reasons
    assert reason.kind == "saturation"
    assert reason.regions == ("c", "d", "e")
    assert reason.text.startswith("c: saturated")
    matrices = LinearSystem(linear.A, linear.B, states=linear.states, inputs=linear.inputs)
    assert controllability(matrices, system=brain).dimension == 4
    alone = controllability(matrices)  # without the nonlinear system, entries are what they are
    assert "saturation" not in {reason.kind for reason in alone.reasons}


def test_driving_a_saturated_region_itself_reaches_nothing():
    brain = chain_brain(-40.0)
    linear = linearize(brain, find_equilibria(brain, n_starts=4)[0], inputs=["stimulus:c"])
    found = controllability(linear)
    assert (found.dimension, found.reasons[0].kind) == (0, "saturation")


def test_a_region_that_is_not_saturated_is_reached():
    brain = chain_brain(0.75)
    linear = linearize(brain, find_equilibria(brain, n_starts=4)[0], inputs=["stimulus:a"])
    assert controllability(linear).verdict == "controllable"


def test_a_gain_below_rounding_counts_and_is_named_as_a_weak_path():
    found = asked([[-1.0, 1e-17], [0.0, -2.0]], [[0.0], [1.0]])
    assert found.dimension == found.exact_dimension == 2
    assert found.verdict == "controllable, though 1 of 2 modes in theory only"
    assert found.margin is not None
    assert found.margin < 1e-16
    assert (found.reasons[0].kind, found.reasons[0].states) == ("weak path", ("x1",))


@pytest.mark.parametrize(
    ("A", "B", "kind", "lost"),
    [
        (np.zeros((2, 2)), [[1.0], [2.0]], "structural", 1),
        (-np.eye(3), [[1.0], [2.0], [3.0]], "repeated eigenvalue", 2),
        (-np.eye(3), [[1.0], [1.0], [1.0]], "symmetry", 2),
        (path(5), driven(5, 1), "structural", 1),
        (path(5) - 2 * np.eye(5), driven(5, 1), "cancellation", 1),
        ([[-1.0, 0.5, 1.0], [0.25, -0.75, 1.0], [0.0, 0.0, -1.0]], driven(3, 2), "equal input", 1),
        (np.diag([-1.0, -2.0]), [[1.0], [0.0]], "no path", 1),
    ],
)
def test_each_mode_out_of_reach_has_the_reason_that_explains_it(A, B, kind, lost):
    found = asked(A, B)
    assert [(reason.kind, reason.n_modes) for reason in found.reasons] == [(kind, lost)]
    assert [mode.reason for mode in found.modes[:lost]] == [kind] * lost
    assert f"{lost} by {kind}" in found.verdict


def test_reasons_add_up_over_parts_that_fail_differently():
    A = np.zeros((9, 9))
    A[:5, :5] = star(5) - np.eye(5)  # three modes by symmetry, the hub is driven
    A[5:7, 5:7] = [[-3.0, 1.0], [0.0, -4.0]]  # two with no path
    A[7, 0] = A[8, 0] = 0.5  # two of equal decay behind the hub, unequal outputs
    A[7, 7] = A[8, 8] = -2.5
    A[0, 7] = 1.0
    found = asked(A, driven(9, 0))
    assert found.dimension == 9 - sum(reason.n_modes for reason in found.reasons)
    assert {reason.kind for reason in found.reasons} == {
        "symmetry",
        "no path",
        "repeated eigenvalue",
    } or {reason.kind for reason in found.reasons} == {"symmetry", "no path", "equal input"}


def test_no_inputs_is_a_verdict():
    found = asked(path(3), np.zeros((3, 0)))
    assert (found.verdict, found.dimension, found.reasons[0].kind) == ("no inputs", 0, "no inputs")
    assert found.margin == pytest.approx(0.0, abs=1e-15)
    assert not found.is_stabilizable


def test_observability_is_the_controllability_of_the_transposed_system():
    rng = np.random.default_rng(4)
    A, C = rng.normal(size=(6, 6)), rng.normal(size=(2, 6))
    A[:4, 4:], C[:, 4:] = 0.0, 0.0
    seen = controllability(LinearSystem(A, driven(6, 0), C)).observability
    assert seen.verdict == "unobservable: 2 of 6 modes cannot be seen (2 by no path)"
    assert seen.reasons[0].states == ("x5", "x6")
    assert seen.margin == pytest.approx(asked(A.T, C.T).margin, abs=1e-15)
    assert seen.observability.dimension == asked(A, driven(6, 0)).dimension
    assert controllability(LinearSystem(A, driven(6, 0))).observability.verdict == "observable"


@pytest.mark.parametrize(
    ("rates", "step", "expected"),
    [
        ([-1.0, -2.0], None, True),
        ([-1.0, 2.0], None, False),
        ([-1.0, 0.0], None, None),
        ([0.5, -0.9], 1.0, True),
        ([0.5, 1.1], 1.0, False),
        ([0.5, -1.0], 1.0, None),
    ],
)
def test_what_is_out_of_reach_is_stabilizable_where_it_decays_by_itself(rates, step, expected):
    linear = LinearSystem(np.diag(rates), [[1.0], [0.0]], step=step)
    assert controllability(linear).is_stabilizable is expected


def test_a_mode_tells_its_time_constant_and_frequency_in_time_units():
    turning = [[-0.1, -2.0], [2.0, -0.1]]
    mode = asked(turning, driven(2, 0)).modes[0]
    assert mode.time_constant == pytest.approx(10.0)
    assert mode.frequency == pytest.approx(1 / math.pi)
    angle, h = 0.3, 0.5
    map_ = 0.9 * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    mode = controllability(LinearSystem(map_, driven(2, 0), step=h)).modes[0]
    assert mode.time_constant == pytest.approx(-h / math.log(0.9))
    assert mode.frequency == pytest.approx(angle / (2 * math.pi * h))


def test_units_of_states_and_inputs_decide_nothing():
    rng = np.random.default_rng(5)
    A, B, _ = planted(8, 5, 2, rng)
    scale = 10.0 ** rng.integers(-8, 9, size=8)
    stretched = asked(A * scale / scale[:, None], B / scale[:, None] * [1e9, 1e-9])
    assert stretched.dimension == 5
    assert asked(path(6) * scale[:6] / scale[:6, None], driven(6, 0) * 1e-12).is_controllable


@pytest.mark.parametrize("n", range(2, 9))
def test_small_systems_agree_with_the_ranks_of_python_control(n):
    control = pytest.importorskip("control")
    rng = np.random.default_rng(n)
    for _ in range(5):
        A, B, C = (rng.integers(-1, 2, size=s).astype(float) for s in ((n, n), (n, 1), (1, n)))
        found = controllability(LinearSystem(A, B, C))
        assert found.dimension == np.linalg.matrix_rank(control.ctrb(A, B))
        assert found.observability.dimension == np.linalg.matrix_rank(control.obsv(A, C))


def test_a_learned_system_shows_only_what_its_coordinates_do_not_change():
    rng = np.random.default_rng(6)
    A, B, C = rng.normal(size=(4, 4)) - 3 * np.eye(4), rng.normal(size=(4, 1)), np.ones((2, 4))
    A[3, :3], B[3] = 0.0, 0.0
    T = rng.normal(size=(4, 4))
    inverse = np.linalg.inv(T)
    one = controllability(LinearSystem(A, B, C, latent=True, outputs=["p", "q"]))
    other = controllability(
        LinearSystem(T @ A @ inverse, T @ B, C @ inverse, latent=True, outputs=["p", "q"])
    )
    assert one.dimension == other.dimension == 3
    assert one.margin is None
    assert one.reached is None
    assert one.reasons == ()
    np.testing.assert_allclose(one.hankel, other.hankel, rtol=1e-8, atol=1e-7)
    for a, b in zip(one.modes, other.modes, strict=True):
        assert a.left_eigenvector is None
        assert a.eigenvalue == pytest.approx(b.eigenvalue)
        assert a.gain == pytest.approx(b.gain, rel=1e-8, abs=1e-10)
        assert a.states == pytest.approx(b.states)
        assert set(a.states) == {"p", "q"}


def test_hankel_singular_values_are_those_of_python_control():
    control = pytest.importorskip("control")
    rng = np.random.default_rng(7)
    linear = LinearSystem(rng.normal(size=(5, 5)) - 4 * np.eye(5), rng.normal(size=(5, 2)))
    expected = control.hsvd(linear.to_control())
    np.testing.assert_allclose(controllability(linear).hankel, expected, rtol=1e-8)
    assert asked([[1.0]], [[1.0]]).hankel is None


def test_results_go_into_json_and_a_table():
    found = asked(star(4) - np.eye(4), driven(4, 0))
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["dimension"] == 2
    assert written["reasons"][0]["kind"] == "symmetry"
    table = found.to_pandas()
    assert table["is_controllable"].tolist() == [False, False, True, True]
    assert "is_observable" in found.observability.to_pandas()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: controllability(LinearSystem(np.zeros((3, 2, 2)), np.zeros((2, 1)))),
            "batch axes",
        ),
        (lambda: asked(path(2), driven(2, 0), tolerance=0.0), "between 0 and 1"),
        (lambda: asked(path(2), driven(2, 0), system=chain_brain(0.75)), "other states"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(call, words):
    with pytest.raises(ArgumentError, match=words):
        call()


@pytest.mark.slow
def test_networks_of_four_hundred_states_are_answered_too():
    rng = np.random.default_rng(8)
    n = 400
    W = rng.lognormal(size=(n, n)) * (rng.uniform(size=(n, n)) < 0.1)
    W = np.triu(W, 1) + np.triu(W, 1).T
    A = W / (1 + np.abs(np.linalg.eigvalsh(W)).max()) - np.eye(n)
    found = asked(A, driven(n, 0))
    assert found.is_controllable
    assert found.is_proved
    B, A_planted, Q = (lambda a, b, q: (b, a, q))(*planted(n, 300, 1, rng))
    lost = asked(A_planted, B)
    assert lost.dimension == 300
    assert np.linalg.norm(Q[:, :300].T @ lost.unreached, 2) < 1e-6
