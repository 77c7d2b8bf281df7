"""Randomly drawn constants, and bifurcations found from a system's own derivatives."""

from types import SimpleNamespace

import pytest
import torch
from torch.func import functional_call, jacrev, vmap

from clinode.system import System

N = 250


def uniform(seed: int, **bounds: tuple[float, float]) -> dict[str, torch.Tensor]:
    """N draws of each, (N,)."""
    generator = torch.Generator().manual_seed(seed)
    draws = {name: torch.rand(N, generator=generator, dtype=torch.float64) for name in bounds}
    return {n: low + (high - low) * draws[n] for n, (low, high) in bounds.items()}


def near(point: torch.Tensor, seed: int, widths: tuple[float, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shift = torch.rand(*point.shape, generator=generator, dtype=torch.float64) - 0.5
    return point + shift * torch.tensor(widths, dtype=torch.float64)


class Bifurcation:
    """Where f = 0 and a function of the Jacobian is 0, by Newton on the system's own autograd."""

    def __init__(self, system: System, constants: dict[str, torch.Tensor], test):
        self.system, self.constants, self.test = system, constants, test

    def equations(self, z, constants):
        """z = (x, I)."""
        swapped = {name: value.reshape(1) for name, value in constants.items()}

        def field(x):
            return functional_call(self.system, swapped, (0.0, x, z[-1:]))

        return torch.cat([field(z[:-1]), self.test(jacrev(field)(z[:-1])).reshape(1)])

    def solve(self, start: torch.Tensor, scale: float) -> torch.Tensor:
        """Rows (x, I) at which all equations hold, from rows nearby."""
        z = start.clone()
        for _ in range(60):
            value = vmap(self.equations)(z, self.constants)
            slope = vmap(jacrev(self.equations))(z, self.constants)
            step = torch.linalg.solve(slope, value.unsqueeze(-1)).squeeze(-1)
            # the exponential of AdEx and its like: no farther than the scale of the voltage
            longest = (step[:, :1].abs() / scale).clamp(min=1.0)
            z = z - step / longest
        assert vmap(self.equations)(z, self.constants).abs().max() < 1e-8
        return z

    def gradients(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        """dI / d constant by the implicit function theorem."""
        slope = vmap(jacrev(self.equations))(z, self.constants)
        by = vmap(jacrev(self.equations, argnums=1))(z, self.constants)
        return {
            name: -torch.linalg.solve(slope, part.unsqueeze(-1))[:, -1, 0]
            for name, part in by.items()
        }


@pytest.fixture(scope="session")
def drawn() -> SimpleNamespace:
    """How constants are drawn and bifurcations are found."""
    return SimpleNamespace(uniform=uniform, near=near, Bifurcation=Bifurcation)
