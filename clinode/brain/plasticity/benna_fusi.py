"""A chain of variables that leak into each other ever more slowly, and forget as 1 / sqrt(t)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Quantity, System, Time, Values


class BennaFusi(System):
    """C_k u_k' = g_(k-1) (u_(k-1) - u_k) - g_k (u_k - u_(k+1)), u_(m+1) = 0.

    Benna & Fusi 2016, Nat. Neurosci. 19:1697-1706: C_k = 2^(k-1), g_k = alpha 2^(1-k). Plasticity
    events drive u_1, the synapse's visible strength. Time is counted in events.

    Args:
        m: Variables, at least 1.
        alpha: Flow out of the first variable, per event.

    Raises:
        ArgumentError: m below 1, or an alpha that is not positive.
    """

    alpha: Tensor
    scale: Tensor
    constants = (Quantity("alpha", "1", range=(1e-3, 1.0), default=0.25),)
    inputs = (Quantity("event", "1", range=(-1.0, 1.0), default=0.0),)
    outputs = (Quantity("strength", "1", range=(-1.0, 1.0)),)

    def __init__(self, m: int = 12, alpha: float = 0.25):
        super().__init__()
        if m < 1:
            raise ArgumentError(f"m must be at least 1, got {m}")
        if not (alpha > 0 and math.isfinite(alpha)):
            raise ArgumentError(f"alpha must be positive and finite, got {alpha}")
        self.m = m
        labels = tuple(str(k) for k in range(1, m + 1))
        self.states = (Quantity("u", "1", labels, range=(-1.0, 1.0), default=0.0),)
        self.register_constants(alpha=alpha)
        self.register_buffer("scale", 2.0 ** torch.arange(m).double())

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Flow from each variable to the next, over its capacity; the event enters the first."""
        scale = self.scale.to(x)
        following = torch.cat([x[..., 1:], torch.zeros_like(x[..., :1])], dim=-1)
        out = self.alpha / scale * (x - following)
        into = torch.cat([u.expand(*x.shape[:-1], 1), out[..., :-1]], dim=-1)
        return (into - out) / scale

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The first variable."""
        return x[..., :1]

    def matrix(self) -> Float[Tensor, "state state"]:
        """u' = A u between events, float64."""
        eye = torch.eye(self.m).double()
        nothing = torch.zeros(1).double()
        return torch.stack([self.vector_field(0.0, row, nothing) for row in eye], dim=1).detach()

    def time_constants(self) -> Float[Tensor, " state"]:
        """-1 / eigenvalue, in events, slowest first."""
        root = self.scale.sqrt()
        # similar to a symmetric matrix, whose small eigenvalues are then accurate
        symmetric = root.unsqueeze(1) * self.matrix() / root
        return -1 / torch.linalg.eigvalsh((symmetric + symmetric.T) / 2).flip(0)

    def response(self, t: Values) -> Float[Tensor, "*time"]:
        """The strength t events after one event of size 1.

        Raises:
            ArgumentError: A negative time.
        """
        times = torch.as_tensor(t, dtype=torch.float64)
        if bool((times < 0).any()):
            raise ArgumentError("times after an event are not negative")
        root = self.scale.sqrt()
        symmetric = root.unsqueeze(1) * self.matrix() / root
        rates, modes = torch.linalg.eigh((symmetric + symmetric.T) / 2)
        return torch.exp(times.unsqueeze(-1) * rates) @ modes[0].square()

    def snr(self, t: Values, N: float | int) -> Float[Tensor, "*time"]:
        """Of N synapses that store one random event of +-1 a time unit.

        sqrt(N) r(t) / sqrt(sum over k of r(k)^2), r the response after whole numbers of events.

        Raises:
            ArgumentError: A negative time, or an N that is not positive.
        """
        if not (N > 0 and math.isfinite(N)):
            raise ArgumentError(f"N must be a positive number of synapses, got {N}")
        root = self.scale.sqrt()
        symmetric = root.unsqueeze(1) * self.matrix() / root
        rates, modes = torch.linalg.eigh((symmetric + symmetric.T) / 2)
        weight = modes[0].square()
        pairs = -torch.expm1(rates.unsqueeze(1) + rates)  # geometric sums of products of modes
        noise = (weight.unsqueeze(1) * weight / pairs).sum()
        return math.sqrt(N) * self.response(t) / noise.sqrt()
