"""The bounded field of a latent SDE as a system with noise: float64, hours, original units."""

from jaxtyping import Float
from torch import Tensor

from clinode.sequence.latent_system import BoundedLatentSystem
from clinode.system import System, Time


class NoisyLatentSystem(System):
    """dx = (-a x + W tanh(U x + b) + B u) dt + sigma dW, in the sense of Ito; sigma is diagonal.

    Its equilibria are those of the drift, about which the noise moves it.

    Args:
        drift: The field, with its decoder.
        sigma: (state,), per root hour.
    """

    latent = True
    time_unit = "h"
    sigma: Tensor

    def __init__(self, drift: BoundedLatentSystem, sigma: Float[Tensor, " state"]):
        super().__init__()
        self.states, self.inputs, self.outputs = drift.states, drift.inputs, drift.outputs
        self.drift = drift
        self.register_buffer("sigma", sigma.detach().double())

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """The drift."""
        return self.drift.vector_field(t, x, u)

    def noise(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """sigma, whatever the state."""
        return self.sigma.expand(x.shape)

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The measured variables that the state stands for, in original units."""
        return self.drift.output(t, x, u)
