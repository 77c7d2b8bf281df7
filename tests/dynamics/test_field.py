import numpy as np
import pytest
import torch

from clinode.dynamics.field import Field, ScaledField
from clinode.errors import ArgumentError
from clinode.system import DiscreteSystem, Quantity, Signal, System


class Cubic(System):
    """x' = a x^3 + b x y + stimulus, y' = -y + x^2; stimulus is a block of two."""

    states = (Quantity("x", "1"), Quantity("y", "1"))
    inputs = (Quantity("stimulus", "1", labels=("left", "right")),)
    constants = (Quantity("a", "1"), Quantity("b", "1"))

    def __init__(self, a=2.0, b=3.0):
        super().__init__()
        self.register_constants(a=a, b=b)

    def vector_field(self, t, x, u):
        X, Y = self.split(x).values()
        return self.join(x=self.a * X**3 + self.b * X * Y + u.sum(-1, keepdim=True), y=-Y + X**2)


class Driven(System):
    states = (Quantity("x", "1"),)

    def vector_field(self, t, x, u):
        return -x + torch.sin(torch.as_tensor(t))


def test_jacobian_by_states_input_and_constant_matches_its_closed_form():
    z = np.array([[0.5, -2.0, 1.5, 7.0], [1.0, 0.0, -1.0, 0.3]])  # x, y, stimulus:left, a
    value, jacobian = Field(Cubic(), [0.25, 0.5], ["stimulus:left", "a"]).jacobian(z)
    x, y, left, a = z.T
    np.testing.assert_allclose(value[:, 0], a * x**3 + 3 * x * y + left + 0.5, rtol=1e-14)
    expected = np.zeros((2, 2, 4))
    expected[:, 0] = np.stack([3 * a * x**2 + 3 * y, 3 * x, np.ones(2), x**3], axis=1)
    expected[:, 1, 0], expected[:, 1, 1] = 2 * x, -1.0
    np.testing.assert_allclose(jacobian, expected, rtol=1e-14)


def test_a_block_as_parameter_moves_all_its_members_together():
    _, jacobian = Field(Cubic(), 0.0, ["stimulus"]).jacobian(np.array([[0.0, 0.0, 1.0]]))
    assert jacobian[0, 0, 2] == 2.0


def test_higher_derivatives_contract_to_their_closed_forms():
    field = Field(Cubic())
    z, w = np.array([0.5, -2.0]), np.array([1.0, 10.0])
    d, e = np.array([1.0, 2.0]), np.array([-1.0, 0.5])
    # D2 = [6 a x d0 e0 + b (d0 e1 + d1 e0), 2 d0 e0], D3 = [6 a d0 e0 f0, 0]
    second = w @ [6 * 2 * 0.5 * d[0] * e[0] + 3 * (d[0] * e[1] + d[1] * e[0]), 2 * d[0] * e[0]]
    assert field.gradient(z, w, d) @ e == pytest.approx(second, rel=1e-13)
    assert field.gradient(z, w, d, e) @ d == pytest.approx(12 * d[0] ** 2 * e[0], rel=1e-13)
    turning = field.bilinear(z, d + 1j * e, d - 1j * e)
    both = field.bilinear(z, d, d) + field.bilinear(z, e, e)
    np.testing.assert_allclose(turning, both, atol=1e-12)


def test_scaled_field_has_the_eigenvalues_of_the_field():
    field, z = Field(Cubic()), np.array([0.5, -2.0])
    scaled = ScaledField(field, np.array([10.0, 0.1]))
    own = np.sort_complex(np.linalg.eigvals(field.jacobian(z)[1]))
    again = np.linalg.eigvals(scaled.jacobian(z / scaled.scale)[1])
    np.testing.assert_allclose(np.sort_complex(again), own, rtol=1e-12)


def test_members_of_a_batch_of_constants_are_evaluated_each_with_its_own():
    system = Cubic(a=torch.tensor([[1.0], [2.0], [3.0]]).double())
    flat = Field(system).flattened()
    x = np.array([[1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(flat.take([2, 0]).value(x)[:, 0], [3.0, 1.0])
    assert flat.member(1).value(x[0])[0] == 2.0


def test_what_has_no_equilibria_is_refused_in_words():
    class Doubling(DiscreteSystem):
        states = (Quantity("x", "1"),)

        def next_state(self, k, x, u):
            return 2 * x

    with pytest.raises(ArgumentError, match="is a map"):
        Field(Doubling())
    with pytest.raises(ArgumentError, match="depends on time"):
        Field(Driven())
    with pytest.raises(ArgumentError, match="this one changes"):
        Field(Cubic(), Signal([0.0, 1.0], [[0.0, 0.0], [1.0, 0.0]]))
    with pytest.raises(ArgumentError, match="did you mean 'stimulus:right'"):
        Field(Cubic(), 0.0, ["stimulus:rigth"])
