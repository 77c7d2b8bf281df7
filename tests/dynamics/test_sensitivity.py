import numpy as np
import pytest
import scipy.linalg
import torch

from clinode.dynamics import simulate
from clinode.dynamics.sensitivity import Variational
from clinode.system import Quantity, System


class Driven(System):
    """dx/dt = k (A x + c), two states."""

    states = (Quantity("x", "1", labels=("a", "b")),)
    inputs = (Quantity("u", "1"),)
    outputs = (Quantity("y", "1"),)
    constants = (Quantity("k", "1"), Quantity("c", "1", labels=("a", "b")))

    def __init__(self, A):
        super().__init__()
        self.register_buffer("A", torch.as_tensor(A).double())
        self.register_constants(k=0.7, c=torch.tensor([0.3, -1.2]).double())

    def vector_field(self, t, x, u):
        return self.k * (x @ self.A.T + self.c) + u

    def output(self, t, x, u):
        return self.k * x.square().sum(-1, keepdim=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_sensitivities_of_a_linear_system_are_its_matrix_exponential(seed):
    A = np.random.default_rng(seed).normal(size=(2, 2)) - np.eye(2)
    system = Driven(A)
    variational = Variational(system, ("k", "c"))
    x0, times = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.0, 0.5, 2.0]).double()
    path = simulate(variational, variational.start(x0), times, 0.0, rtol=1e-11, atol=1e-12)
    x, S = variational.parts(path.states)
    c = system.c.numpy()
    for i, t in enumerate(times.tolist()):
        flow = scipy.linalg.expm(0.7 * A * t)
        at = np.linalg.solve(A, c)
        expected = flow @ (x0.numpy() + at) - at
        np.testing.assert_allclose(x[i], expected, atol=1e-8)
        np.testing.assert_allclose(S[i, :2].T, flow, atol=1e-8)
        of_k = A @ flow @ (x0.numpy() + at) * t
        np.testing.assert_allclose(S[i, 2], of_k, atol=1e-8)
        of_c = (flow - np.eye(2)) @ np.linalg.inv(A)
        np.testing.assert_allclose(S[i, 3:].T, of_c, atol=1e-8)


def test_sensitivities_of_fixed_steps_are_the_gradient_through_those_steps():
    system = Driven([[-1.0, 2.0], [-1.5, 0.3]])
    variational = Variational(system, ("k",))
    times = torch.linspace(0, 2, 5).double()
    x0 = torch.tensor([[1.0, -2.0], [0.5, 0.1]]).double()
    options = {"method": "rk4", "step": 0.25}
    path = simulate(variational, variational.start(x0), times, 0.3, **options)
    y, slopes = variational.read_out(
        times.unsqueeze(-1), path.states.movedim(-2, 0), torch.tensor([0.3]).double()
    )

    def output(x0, k):
        changed = system.with_constants(k=k)
        return simulate(changed, x0, times, 0.3, **options).outputs.movedim(-2, 0)

    torch.testing.assert_close(y, output(x0, system.k))
    of_x0, of_k = torch.autograd.functional.jacobian(output, (x0, system.k))
    for row in range(2):
        torch.testing.assert_close(slopes[:, row, :2, 0], of_x0[:, row, 0, row])
        torch.testing.assert_close(slopes[:, row, 2, 0], of_k[:, row, 0, 0])
