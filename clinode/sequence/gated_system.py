"""The gated field of GRU-ODE-Bayes as a system: float64, hours, outputs in original units."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clinode.cohort import Preprocessor
from clinode.sequence.latent_system import Decoder, name_quantities
from clinode.system import System, Time

MOST_HELD = 0.9  # of the pull that the gate can take away


class GatedLatentSystem(System):
    """x' = a (1 - r(x)) (g(x) - x) + B u, m' = -d m; outputs are decoded from (x, m).

    r = .9 sigmoid(R x + p) and g = tanh(G x + q) in (-1, 1), so under a constant treatment every
    trajectory enters the box |x| <= 1 + |B u| / (.1 a), and an equilibrium lies in it.

    Args:
        a: (state,), rates per hour.
        hold, aim: The layers of r and g.
        B: (state, input), per hour and original unit of the input.
        d: (variable,), decay rates of the memory, per hour.
        decoder: To standardised variables, of the states and the memory.
        low, high: (state + variable,), ranges over the training part.
        schema: Of the training part: names, units and scales.
    """

    latent = True
    time_unit = "h"
    a: Tensor
    R: Tensor
    p: Tensor
    G: Tensor
    q: Tensor
    B: Tensor
    d: Tensor

    def __init__(
        self,
        a: Float[Tensor, " own"],
        hold: nn.Linear,
        aim: nn.Linear,
        B: Float[Tensor, "own input"],
        d: Float[Tensor, " variable"],
        decoder: nn.Linear,
        *,
        low: Float[Tensor, " state"],
        high: Float[Tensor, " state"],
        schema: Preprocessor,
    ):
        super().__init__()
        name_quantities(self, low, high, schema)
        parts = {"a": a, "R": hold.weight, "p": hold.bias, "G": aim.weight, "q": aim.bias}
        for name, tensor in {**parts, "B": B, "d": d}.items():
            self.register_buffer(name, tensor.detach().double())
        self.decode = Decoder(decoder.weight, decoder.bias, schema)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """The gated pull beside the memory's decay."""
        own, memory = x[..., : len(self.a)], x[..., len(self.a) :]
        pull = 1 - MOST_HELD * torch.sigmoid(own @ self.R.T + self.p)
        moved = self.a * pull * (torch.tanh(own @ self.G.T + self.q) - own) + u @ self.B.T
        return torch.cat([moved, -self.d * memory], dim=-1)

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The measured variables that the state stands for, in original units."""
        return self.decode(x)
