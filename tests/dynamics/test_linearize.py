import numpy as np
import pytest
import torch

from clinode.dynamics.equilibria import Equilibrium, find_equilibria
from clinode.dynamics.linearize import linearize
from clinode.errors import ArgumentError, SolverError
from clinode.system import LinearSystem, Quantity, System, Values


class Regions(System):
    """E' = -E + tanh(w mean(E)) + stimulus; read out as an EEG that sees the drive."""

    time_unit = "s"
    inputs = (
        Quantity("stimulus", "1", labels=("lh_precuneus", "rh_precuneus", "lh_insula")),
        Quantity("drive", "1"),
    )
    outputs = (Quantity("EEG", "uV", labels=("Fz", "Pz")),)
    states = (
        Quantity("E", "1", labels=("lh_precuneus", "rh_precuneus", "lh_insula"), range=(-3.0, 3.0)),
    )
    constants = (Quantity("w", "1"),)

    def __init__(self, w: Values = 0.5):
        super().__init__()
        self.register_constants(w=w)

    def vector_field(self, t, x, u):
        return torch.tanh(self.w * x.mean(-1, keepdim=True)) - x + u[..., :3]

    def output(self, t, x, u):
        return torch.stack([x[..., 0] * x[..., 1], x.sum(-1) + u[..., 3]], dim=-1)


def at_rest(system: System, u) -> Equilibrium:
    return find_equilibria(system, u=u, n_starts=16)[0]


def test_matrices_match_their_closed_forms_and_keep_the_operating_point():
    system, u = Regions(), torch.tensor([0.3, 0.1, -0.2, 2.0]).double()
    rest = at_rest(system, u)
    linear = linearize(system, rest)
    slope = 0.5 / 3 * (1 - np.tanh(0.5 * rest.state.mean().item()) ** 2)
    np.testing.assert_allclose(linear.A, slope * np.ones((3, 3)) - np.eye(3), rtol=1e-12)
    np.testing.assert_allclose(linear.B, np.eye(3, 4))
    x = rest.state
    np.testing.assert_allclose(linear.C, [[x[1], x[0], 0.0], [1.0, 1.0, 1.0]], rtol=1e-12)
    np.testing.assert_allclose(linear.D, [[0, 0, 0, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(linear.output(0.0, x, u), rest.output)
    assert linear.vector_field(0.0, x, u).abs().max() == 0
    assert linear.state_names == system.state_names
    assert linear.output_names == ("EEG:Fz", "EEG:Pz")
    assert linear.time_unit == "s"


def test_inputs_and_outputs_are_chosen_by_flat_or_block_name():
    system = Regions()
    rest = at_rest(system, 0.0)
    one = linearize(system, rest, inputs=["stimulus:lh_insula", "drive"], outputs=["EEG:Pz"])
    assert one.input_names == ("stimulus:lh_insula", "drive")
    assert one.output_names == ("EEG:Pz",)
    np.testing.assert_allclose(one.B, [[0, 0], [0, 0], [1, 0]])
    np.testing.assert_allclose(one.D, [[0, 1]])
    block = linearize(system, rest, inputs=["stimulus"])
    assert block.input_names == system.input_names[:3]
    with pytest.raises(ArgumentError, match="did you mean 'stimulus:lh_precuneus'"):
        linearize(system, rest, inputs=["stimulus:lh_precuneous"])


def test_its_gradient_by_a_constant_includes_the_shift_of_the_equilibrium(published):
    def slope(g_Ca):
        system = published.MorrisLecar(g_Ca=g_Ca)
        return linearize(system, at_rest(system, 60.0)).A[0, 0]

    g_Ca = torch.tensor([4.4], dtype=torch.float64, requires_grad=True)
    (exact,) = torch.autograd.grad(slope(g_Ca), g_Ca)
    numeric = (slope(4.4 + 1e-5) - slope(4.4 - 1e-5)) / 2e-5
    assert float(exact) == pytest.approx(float(numeric), rel=1e-6)


def test_a_linear_system_linearizes_to_itself_and_stays_latent():
    latent = LinearSystem([[-1.0, 0.5], [0.0, -2.0]], [[1.0], [2.0]], C=[[1.0, 3.0]], latent=True)
    again = linearize(latent, at_rest(latent, 1.0))
    for name in "ABCD":
        torch.testing.assert_close(getattr(again, name), getattr(latent, name))
    assert again.latent


def test_a_state_that_moves_is_not_linearized(published):
    system = published.MorrisLecar()
    rest = at_rest(system, 60.0)
    with pytest.raises(SolverError, match="the system moves there"):
        linearize(published.MorrisLecar(g_Ca=5.0), rest)
    with pytest.raises(ArgumentError, match="the equilibrium has 2 states"):
        linearize(Regions(), rest)
