import math

import control
import numpy as np
import pytest
import torch

from clinode.control.gramian.reduction import balanced_reduction, hankel_singular_values
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity


def stable(n=8, m=2, p=3, seed=0, step=None):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n))
    if step is None:
        A = A - (np.linalg.eigvals(A).real.max() + 0.5) * np.eye(n)
    else:
        A = 0.8 * A / np.abs(np.linalg.eigvals(A)).max()
    matrices = A, rng.normal(size=(n, m)), rng.normal(size=(p, n)), rng.normal(size=(p, m))
    return LinearSystem(*matrices, step=step)


def gains(system, reduced, step):
    """Largest singular value of the difference of the responses, over many frequencies."""
    worst = 0.0
    for frequency in np.geomspace(1e-3, 1e3, 200) if step is None else np.linspace(0, math.pi, 200):
        s = 1j * frequency if step is None else np.exp(1j * frequency)
        responses = []
        for one in (system, reduced):
            A, B, C, D = (m.numpy() for m in (one.A, one.B, one.C, one.D))
            responses.append(C @ np.linalg.solve(s * np.eye(len(A)) - A, B) + D)
        worst = max(worst, np.linalg.norm(responses[0] - responses[1], 2))
    return worst


def test_values_are_those_of_python_control():
    system = stable()
    expected = control.hsvd(system.to_control())
    np.testing.assert_allclose(hankel_singular_values(system).values, expected, rtol=1e-7)


def test_one_state_has_its_closed_form():
    # b c / (2 a), and b c / (1 - a^2) of a map
    flow = hankel_singular_values(LinearSystem([[-3.0]], [[2.0]], [[5.0]]))
    assert flow.values.item() == pytest.approx(10 / 6, rel=1e-14)
    a_map = hankel_singular_values(LinearSystem([[0.5]], [[2.0]], [[5.0]], step=0.1))
    assert a_map.values.item() == pytest.approx(10 / 0.75, rel=1e-14)


def test_a_map_has_the_values_of_the_flow_that_the_bilinear_transform_makes_it():
    system = stable(seed=1)
    A, B, C = (m.numpy() for m in (system.A, system.B, system.C))
    inverse = np.linalg.inv(np.eye(8) - A)
    bilinear = LinearSystem(
        inverse @ (np.eye(8) + A),
        math.sqrt(2) * inverse @ B,
        math.sqrt(2) * C @ inverse,
        step=1.0,
    )
    values = hankel_singular_values(system).values
    torch.testing.assert_close(hankel_singular_values(bilinear).values, values, rtol=1e-9, atol=0)


def test_small_values_keep_their_digits_where_roots_of_eigenvalues_lose_them():
    # two parts that never meet: values 1/2 and 1e-12 / 2
    system = LinearSystem(-np.eye(2), np.diag([1.0, 1e-6]), np.diag([1.0, 1e-6]))
    found = hankel_singular_values(system)
    np.testing.assert_allclose(found.values, [0.5, 5e-13], rtol=1e-12)
    assert found.order == 2


@pytest.mark.parametrize("step", [None, 0.5])
def test_other_coordinates_of_a_learned_system_have_the_same_values_and_answers(step):
    system = stable(seed=2, step=step)
    T = torch.tensor(np.random.default_rng(0).normal(size=(8, 8)))
    turned = LinearSystem(
        T @ system.A @ torch.linalg.inv(T),
        T @ system.B,
        system.C @ torch.linalg.inv(T),
        system.D,
        step=step,
        latent=True,
    )
    one, other = hankel_singular_values(system).values, hankel_singular_values(turned).values
    torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-12)
    reduced, other = balanced_reduction(system, 4), balanced_reduction(turned, 4)
    assert gains(reduced.system, other.system, step) < 1e-7
    assert other.system.latent
    assert not reduced.system.latent


@pytest.mark.parametrize("step", [None, 0.5])
@pytest.mark.parametrize("order", [1, 3, 6, 8])
def test_a_reduced_system_answers_within_its_bound_and_is_stable(order, step):
    system = stable(seed=3, step=step)
    found = balanced_reduction(system, order)
    error = gains(system, found.system, step)
    assert error <= found.error_bound + 1e-9
    assert error >= (0.0 if order == 8 else found.hankel_values.values[order].item()) * 0.1
    eigenvalues = torch.linalg.eigvals(found.system.A)
    assert (eigenvalues.real < 0).all() if step is None else (eigenvalues.abs() < 1).all()
    kept = hankel_singular_values(found.system).values
    if order == 8:
        torch.testing.assert_close(kept, found.hankel_values.values, rtol=1e-7, atol=0)


@pytest.mark.parametrize("order", [2, 5])
def test_a_reduced_flow_is_that_of_python_control(order):
    system = stable(seed=4)
    peer = control.balred(system.to_control(), order)
    expected = LinearSystem(peer.A, peer.B, peer.C, peer.D)
    assert gains(balanced_reduction(system, order).system, expected, None) < 1e-9


def test_names_units_and_the_operating_point_are_kept():
    rate = Quantity("rate", "Hz", labels=("a", "b"))
    system = LinearSystem(
        [[-1.0, 0.2], [0.0, -8.0]],
        [[1.0], [0.5]],
        np.eye(2),
        offset=([3.0, 4.0], [2.0], [7.0, 9.0]),
        inputs=[Quantity("I", "pA")],
        outputs=[rate],
        time_unit="ms",
    )
    reduced = balanced_reduction(system, 1).system
    assert reduced.outputs == (rate,)
    assert reduced.inputs[0].unit == "pA"
    assert reduced.time_unit == "ms"
    rest = reduced.output(0.0, reduced.x0, torch.tensor([2.0], dtype=torch.float64))
    assert rest.tolist() == [7.0, 9.0]


def test_states_without_outputs_of_their_own_are_the_outputs():
    names = ["V", "w"]
    system = LinearSystem([[-1.0, -2.0], [0.5, -3.0]], [[1.0], [0.0]], states=names)
    found = balanced_reduction(system, 1)
    assert list(found.system.output_names) == names
    assert found.hankel_values.outputs == ("V", "w")


def test_more_inputs_and_outputs_than_states_are_no_obstacle():
    rng = np.random.default_rng(5)
    A = rng.normal(size=(3, 3)) - 4 * np.eye(3)
    system = LinearSystem(A, rng.normal(size=(3, 7)), rng.normal(size=(9, 3)))
    np.testing.assert_allclose(
        hankel_singular_values(system).values, control.hsvd(system.to_control()), rtol=1e-9
    )


def test_a_state_that_no_input_reaches_has_no_value():
    system = LinearSystem(np.diag([-1.0, -2.0, -3.0]), [[1.0], [1.0], [0.0]], np.ones((1, 3)))
    found = hankel_singular_values(system)
    assert found.order == 2
    assert list(found.to_pandas()["above_rounding"]) == [True, True, False]
    with pytest.raises(ArgumentError, match="between 1 and 2"):
        balanced_reduction(system, 3)
    assert gains(system, balanced_reduction(system, 2).system, None) < 1e-12


def test_equal_values_are_kept_or_left_out_together():
    twins = LinearSystem(-np.eye(3), np.diag([1.0, 1.0, 0.1]), np.eye(3))
    with pytest.raises(ArgumentError, match=r"Hankel values 1 and 2 are equal.*ask for 2 states"):
        balanced_reduction(twins, 1)
    assert balanced_reduction(twins, 2).error_bound == pytest.approx(0.1)


def test_what_has_no_hankel_values_is_refused_in_words():
    with pytest.raises(ArgumentError, match=r"Hankel value needs a stable A.*0\.5.*stable part"):
        hankel_singular_values(LinearSystem([[0.5]], [[1.0]]))
    with pytest.raises(ArgumentError, match="modulus below 1"):
        balanced_reduction(LinearSystem([[1.5]], [[1.0]], step=1.0), 1)
    with pytest.raises(ArgumentError, match="no inputs"):
        hankel_singular_values(LinearSystem([[-1.0]], np.zeros((1, 0))))
    with pytest.raises(ArgumentError, match="batch axes"):
        hankel_singular_values(LinearSystem(-np.ones((2, 1, 1)), [[1.0]]))


def test_results_are_plain_for_json():
    found = balanced_reduction(stable(), 2).to_dict()
    assert found["order"] == 2
    assert found["hankel_values"]["order"] == 8
    assert found["error_bound"] > 0
