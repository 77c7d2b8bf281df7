"""The flow of `NeuralFlow` as a system: float64, hours, outputs in original units."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clinode.cohort import Preprocessor
from clinode.sequence.coupling import CouplingMap
from clinode.sequence.latent_system import Decoder, name_quantities
from clinode.system import System, Time


class FlowLatentSystem(System):
    """z' = Dpsi^-1(w) (Lambda w + B u) with w = psi(z), m' = -d m; decoded from (z, m).

    Every trajectory under a constant treatment ends at psi^-1(-Lambda^-1 B u), the one equilibrium.

    Args:
        decay, frequency: (mode,), Lambda = -decay + i frequency, per hour.
        map: psi.
        B: (state, input), per hour and original unit of the input.
        d: (variable,), decay rates of the memory, per hour.
        decoder: To standardised variables, of the states and the memory.
        low, high: (state + variable,), ranges over the training part.
        schema: Of the training part: names, units and scales.
    """

    latent = True
    time_unit = "h"
    decay: Tensor
    frequency: Tensor
    B: Tensor
    d: Tensor

    def __init__(
        self,
        decay: Float[Tensor, " mode"],
        frequency: Float[Tensor, " mode"],
        map: CouplingMap,
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
        for name, tensor in {"decay": decay, "frequency": frequency, "B": B, "d": d}.items():
            self.register_buffer(name, tensor.detach().double())
        self.map = copy.deepcopy(map).double().requires_grad_(False)
        self.decode = Decoder(decoder.weight, decoder.bias, schema)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """The linear motion behind the network, carried back through it."""
        n = 2 * len(self.decay)
        w = self.map(x[..., :n])
        real, imaginary = w.chunk(2, dim=-1)
        turned = [
            -self.decay * real - self.frequency * imaginary,
            self.frequency * real - self.decay * imaginary,
        ]
        moved = torch.cat(turned, dim=-1) + u @ self.B.T
        return torch.cat([self.map.inverse_along(w, moved), -self.d * x[..., n:]], dim=-1)

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The measured variables that the state stands for, in original units."""
        return self.decode(x)
