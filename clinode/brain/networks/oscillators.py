"""Oscillators in each region: at the birth of their oscillation, and as phases alone."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.brain.connectome import Connectome
from clinode.system import Past, Quantity, Time, Values

from .network import Blocks, Input, Network, State


class StuartLandauNetwork(Network):
    """The normal form of a supercritical Hopf bifurcation in each region, coupled by differences.

        dx_k/dt = (a_k - b (x_k^2 + y_k^2)) x_k - omega_k y_k + stimulus_k
                  + K sum_j W_kj (x_j(t - length_kj / speed) - x_k)
        dy_k/dt = (a_k - b (x_k^2 + y_k^2)) y_k + omega_k x_k
                  + K sum_j W_kj (y_j(t - length_kj / speed) - y_k)

    Deco, Kringelbach, Jirsa & Ritter 2017, Sci Rep 7:3095, where x stands for the BOLD signal of a
    region and b = 1/s. Alone a region rests for a < 0, and for a > 0 goes round a circle of radius
    sqrt(a / b) with frequency omega / (2 pi). W, delays and noise (on x and y) are as in `Network`.

    Args:
        connectome: Regions and weights, and tract lengths if there are to be delays.
        K: Global coupling, 1/s.
        a: Distance from the bifurcation, 1/s, one number or one a region.
        omega: Angular frequency, rad/s, one number or one a region; 0.05 Hz by default, within the
            paper's band of 0.04 to 0.07 Hz.
        b: Saturation, 1/s.
        sigma: Per root of a s (the paper's beta is 0.02); None is no noise.
        speed: In mm/ms; None is no delays.
        delay_step: In s, as in `Network`.

    Raises:
        ArgumentError: A speed that is not positive or without tract lengths.
    """

    time_unit = "s"
    states = (
        Quantity("x", "1", range=(-2.0, 2.0), default=0.0),
        Quantity("y", "1", range=(-2.0, 2.0), default=0.0),
    )
    inputs = (Quantity("stimulus", "1/s", range=(-1.0, 1.0), default=0.0),)
    constants = (
        Quantity("K", "1/s"),
        Quantity("a", "1/s"),
        Quantity("omega", "rad/s"),
        Quantity("b", "1/s"),
    )
    by_region = ("a", "omega")
    delayed = ("x", "y")
    noisy = ("x", "y")

    def __init__(
        self,
        connectome: Connectome,
        *,
        K: Values = 0.5,
        a: Values = -0.02,
        omega: Values = 2 * math.pi * 0.05,
        b: Values = 1.0,
        sigma: Values | None = None,
        speed: float | None = None,
        delay_step: float | None = None,
    ):
        super().__init__()
        own = {"K": K, "a": a, "omega": omega, "b": b}
        self._place(connectome, own, speed=speed, delay_step=delay_step, sigma=sigma)

    def vector_field(self, t: Time, x: State, u: Input, past: Past | None = None) -> State:
        """Rates of change, as in the class's docstring."""
        states = self.split(x)
        X, Y = states["x"], states["y"]
        growth = self.a - self.b * (X * X + Y * Y) - self.K * self.weights.sum(-1)
        from_x = self.received(lambda seen: seen["x"], states, past)
        from_y = self.received(lambda seen: seen["y"], states, past)
        return self.join(
            x=growth * X - self.omega * Y + u + self.K * from_x,
            y=growth * Y + self.omega * X + self.K * from_y,
        )


class KuramotoNetwork(Network):
    """A phase in each region, pulled towards the phases that it sees.

        dtheta_k/dt = omega_k + stimulus_k
                      + K sum_j W_kj sin(theta_j(t - length_kj / speed) - theta_k)

    Kuramoto 1984, Chemical Oscillations, Waves, and Turbulence; on a connectome, with delays, by
    Cabral, Hugues, Sporns & Deco 2011, NeuroImage 57:130-139, whose regions turn at 60 Hz and whose
    activity, the output, is sin(theta). How far the phases agree says `order_parameter`. W, delays
    and noise are as in `Network`; a phase grows without bound, so there are no equilibria unless
    omega is zero in the frame that is looked at.

    Args:
        connectome: Regions and weights, and tract lengths if there are to be delays.
        K: Global coupling, rad/s.
        omega: Angular frequency, rad/s, one number or one a region.
        sigma: rad per root of a s; None is no noise.
        speed: In mm/ms; None is no delays.
        delay_step: In s, as in `Network`.

    Raises:
        ArgumentError: A speed that is not positive or without tract lengths.
    """

    time_unit = "s"
    states = (Quantity("theta", "rad", range=(-math.pi, math.pi), default=0.0),)
    inputs = (Quantity("stimulus", "rad/s", range=(-100.0, 100.0), default=0.0),)
    outputs = (Quantity("activity", "1"),)
    constants = (Quantity("K", "rad/s"), Quantity("omega", "rad/s"))
    by_region = ("omega",)
    delayed = ("theta",)
    noisy = ("theta",)

    def __init__(
        self,
        connectome: Connectome,
        *,
        K: Values = 20.0,
        omega: Values = 2 * math.pi * 60.0,
        sigma: Values | None = None,
        speed: float | None = None,
        delay_step: float | None = None,
    ):
        super().__init__()
        own = {"K": K, "omega": omega}
        self._place(connectome, own, speed=speed, delay_step=delay_step, sigma=sigma)

    def vector_field(self, t: Time, x: State, u: Input, past: Past | None = None) -> State:
        """Rates of change, as in the class's docstring."""
        states = {"theta": x}
        sines = self.received(_sine, states, past)  # sin(j - k) = sin j cos k - cos j sin k
        cosines = self.received(_cosine, states, past)
        return self.omega + u + self.K * (sines * torch.cos(x) - cosines * torch.sin(x))

    def output(self, t: Time, x: State, u: Input) -> Float[Tensor, "... output"]:
        """sin(theta) of every region."""
        return torch.sin(x)


def _sine(seen: Blocks) -> Tensor:
    return torch.sin(seen["theta"])


def _cosine(seen: Blocks) -> Tensor:
    return torch.cos(seen["theta"])


def order_parameter(theta: Float[Tensor, "... phase"]) -> Float[Tensor, "..."]:
    """|mean of exp(i theta)|, 1 where all phases agree; Kuramoto 1984.

    Example:
        >>> order_parameter(torch.tensor([0.0, 0.0, math.pi]).double())
        tensor(0.3333, dtype=torch.float64)
    """
    return torch.hypot(torch.cos(theta).mean(-1), torch.sin(theta).mean(-1))
