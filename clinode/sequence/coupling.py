"""Invertible networks of affine couplings, with the derivative along a direction.

Half of the coordinates is scaled and shifted by what the other half says, then the other way round
(Dinh et al. 2017, arXiv:1605.08803). Scales are bounded, so neither way can overflow.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clinode.sequence.layers import linear, matrix

MOST_SCALE = 1.0  # of a log scale, either way


class Coupling(nn.Module):
    """One half moved by the other: a' = a exp(s(b)) + t(b), b' = b.

    Args:
        n_half: Width of each half.
        n_hidden: Width of the layer that scale and shift are computed from.
        generator: Draws the weights.
    """

    def __init__(self, n_half: int, n_hidden: int, generator: torch.Generator):
        super().__init__()
        self.inward = linear(n_half, n_hidden, generator)
        self.scale = matrix(n_half, n_hidden, generator)
        self.shift = matrix(n_half, n_hidden, generator)

    def forward(self, moved: Tensor, telling: Tensor) -> Tensor:
        """The half that is moved."""
        scale, shift = self._told(torch.tanh(self.inward(telling)))
        return moved * torch.exp(scale) + shift

    def inverse(self, moved: Tensor, telling: Tensor) -> Tensor:
        """The half as it was before."""
        scale, shift = self._told(torch.tanh(self.inward(telling)))
        return (moved - shift) * torch.exp(-scale)

    def inverse_along(
        self, moved: Tensor, telling: Tensor, d_moved: Tensor, d_telling: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The inverse, and its derivative along a direction of both halves."""
        hidden = torch.tanh(self.inward(telling))
        d_hidden = (1 - hidden**2) * (d_telling @ self.inward.weight.T)
        raw = hidden @ self.scale.T
        scale, shift = MOST_SCALE * torch.tanh(raw), hidden @ self.shift.T
        d_scale = MOST_SCALE * (1 - torch.tanh(raw) ** 2) * (d_hidden @ self.scale.T)
        back = (moved - shift) * torch.exp(-scale)
        return back, (d_moved - d_hidden @ self.shift.T) * torch.exp(-scale) - back * d_scale

    def _told(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return MOST_SCALE * torch.tanh(hidden @ self.scale.T), hidden @ self.shift.T


class CouplingMap(nn.Module):
    """w = psi(z): two couplings, each half moved once.

    Args:
        n_states: Width of z, even.
        n_hidden: Width of the couplings' layers.
        generator: Draws the weights.
    """

    def __init__(self, n_states: int, n_hidden: int, generator: torch.Generator):
        super().__init__()
        self.first = Coupling(n_states // 2, n_hidden, generator)
        self.second = Coupling(n_states // 2, n_hidden, generator)

    def forward(self, z: Float[Tensor, "*place state"]) -> Float[Tensor, "*place state"]:
        """psi(z)."""
        a, b = z.chunk(2, dim=-1)
        a = self.first(a, b)
        return torch.cat([a, self.second(b, a)], dim=-1)

    def inverse(self, w: Float[Tensor, "*place state"]) -> Float[Tensor, "*place state"]:
        """The z whose image is w."""
        a, b = w.chunk(2, dim=-1)
        b = self.second.inverse(b, a)
        return torch.cat([self.first.inverse(a, b), b], dim=-1)

    def inverse_along(
        self, w: Float[Tensor, "*place state"], d_w: Float[Tensor, "*place state"]
    ) -> Float[Tensor, "*place state"]:
        """Derivative of the inverse at w along d_w."""
        a, b = w.chunk(2, dim=-1)
        d_a, d_b = d_w.chunk(2, dim=-1)
        b, d_b = self.second.inverse_along(b, a, d_b, d_a)
        _, d_a = self.first.inverse_along(a, b, d_a, d_b)
        return torch.cat([d_a, d_b], dim=-1)
