"""Accumulated evidence as a system, for simulation and for first passages."""

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.system import Quantity, System, Time


class Wiener(System):
    """dx = (v - leak x) dt + s dW. Ratcliff 1978; leaky: Busemeyer & Townsend 1993.

    Psychol. Rev. 85:59-108 and 100:432-459. The evidence has no unit.

    Args:
        drift: v, 1/s.
        leak: 1/s; negative for evidence that feeds itself.
        spread: s, per square root of second.
    """

    v: Tensor
    leak: Tensor
    s: Tensor
    time_unit = "s"
    states = (Quantity("x", "1", range=(-2.0, 2.0), default=0.0),)
    constants = (
        Quantity("v", "1/s", range=(-5.0, 5.0), default=1.0),
        Quantity("leak", "1/s", range=(-5.0, 5.0), default=0.0),
        Quantity("s", "1/s^0.5", range=(0.1, 3.0), default=1.0),
    )

    def __init__(
        self,
        drift: float | Tensor = 1.0,
        leak: float | Tensor = 0.0,
        spread: float | Tensor = 1.0,
    ):
        super().__init__()
        self.register_constants(v=drift, leak=leak, s=spread)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """v - leak x."""
        return self.v - self.leak * x

    def noise(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """s."""
        return self.s + torch.zeros_like(x)
