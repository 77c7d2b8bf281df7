"""One slow variable in each region: the open NMDA receptors, or a rate that saturates."""

from collections.abc import Sequence

import torch

from clinode.brain.connectome import Connectome
from clinode.brain.rates import linoid
from clinode.errors import ArgumentError
from clinode.system import Past, Quantity, Time, Values
from clinode.system.values import floating, times_vector

from .network import Input, Network, State


class ReducedWongWangNetwork(Network):
    """The open fraction S of NMDA receptors in each region: the reduced mean field of Wong & Wang.

        dS_k/dt = -S_k / tau_s + (1 - S_k) gamma H(x_k)
        H(x) = (a x - b) / (1 - exp(-d (a x - b)))
        x_k = w J_N S_k + K J_N sum_j W_kj S_j(t - length_kj / speed) + I0_k + stimulus_k

    Deco et al. 2013, J Neurosci 33:11239-11252, after Wong & Wang 2006, J Neurosci 26:1314-1328,
    with their constants; the paper calls K G. Alone a region rests at low rate; strong enough a
    coupling adds states of high rate. W, delays and noise are as in `Network`.

    Args:
        connectome: Regions and weights, and tract lengths if there are to be delays.
        K: Global coupling.
        w: Recurrence within a region.
        J_N: Strength of a synapse, nA.
        I0: Input from elsewhere, nA, one number or one a region.
        a, b, d, gamma, tau_s: As in `clinode.brain.circuits.WongWang`.
        sigma: Per root of a s (the paper's 0.001 per root of a ms is 0.032); None is no noise.
        speed: In mm/ms; None is no delays.
        delay_step: In s, as in `Network`.

    Raises:
        ArgumentError: A speed that is not positive or without tract lengths.
    """

    time_unit = "s"
    states = (Quantity("S", "1", range=(0.0, 1.0), default=0.05),)
    inputs = (Quantity("stimulus", "nA", range=(-0.2, 0.2), default=0.0),)
    constants = (
        Quantity("K", "1"),
        Quantity("w", "1"),
        Quantity("J_N", "nA"),
        Quantity("I0", "nA"),
        Quantity("a", "Hz/nA"),
        Quantity("b", "Hz"),
        Quantity("d", "s"),
        Quantity("gamma", "1"),
        Quantity("tau_s", "s"),
    )
    by_region = ("I0",)
    delayed = ("S",)
    noisy = ("S",)

    def __init__(
        self,
        connectome: Connectome,
        *,
        K: Values = 1.0,
        w: Values = 0.9,
        J_N: Values = 0.2609,
        I0: Values = 0.3,
        a: Values = 270.0,
        b: Values = 108.0,
        d: Values = 0.154,
        gamma: Values = 0.641,
        tau_s: Values = 0.1,
        sigma: Values | None = None,
        speed: float | None = None,
        delay_step: float | None = None,
    ):
        super().__init__()
        own = {"K": K, "w": w, "J_N": J_N, "I0": I0}
        own |= {"a": a, "b": b, "d": d, "gamma": gamma, "tau_s": tau_s}
        self._place(connectome, own, speed=speed, delay_step=delay_step, sigma=sigma)

    def vector_field(self, t: Time, x: State, u: Input, past: Past | None = None) -> State:
        """Rates of change, as in the class's docstring."""
        received = self.received(lambda seen: seen["S"], {"S": x}, past)
        current = self.J_N * (self.w * x + self.K * received) + self.I0 + u
        rate = linoid(self.d * (self.a * current - self.b)) / self.d
        return -x / self.tau_s + (1 - x) * self.gamma * rate


class SaturatingRateNetwork(Network):
    """Rates that saturate, driven by one another and by fields that reach several regions.

        tau dx_k/dt = -x_k + tanh(K sum_j W_kj x_j(t - length_kj / speed) + b_k + sum_m B_km u_m)

    Sompolinsky, Crisanti & Sommers 1988, Phys Rev Lett 61:259-262, on a connectome. Where |x| is
    near 1 a region is saturated: nothing that arrives moves it. W, delays and noise are as in
    `Network`.

    Args:
        connectome: Regions and weights, and tract lengths if there are to be delays.
        K: Global coupling.
        b: Constant drive, one number or one a region.
        tau: Time constant, ms.
        B: What an electrode or a coil does to each region, (..., region, electrode); None is one
            stimulus a region, on that region alone. A constant of members "region<-electrode".
        electrodes: Names of the columns of B.
        sigma: Per root of a ms; None is no noise.
        speed: In mm/ms; None is no delays.
        delay_step: In ms, as in `Network`.

    Raises:
        ArgumentError: B of another number of regions or electrodes, names without B, a speed that
            is not positive or without tract lengths.

    Example:
        >>> from clinode.brain.connectome import simulate_connectome
        >>> coil = [[1.0], [0.4], [0.0], [0.0]]
        >>> brain = simulate_connectome(4)
        >>> SaturatingRateNetwork(brain, B=coil, electrodes=["coil"]).input_names
        ('stimulus:coil',)
    """

    time_unit = "ms"
    states = (Quantity("x", "1", range=(-1.0, 1.0), default=0.0),)
    inputs = (Quantity("stimulus", "1", range=(-2.0, 2.0), default=0.0),)
    constants = (Quantity("K", "1"), Quantity("b", "1"), Quantity("tau", "ms"))
    by_region = ("b",)
    delayed = ("x",)
    noisy = ("x",)

    def __init__(
        self,
        connectome: Connectome,
        *,
        K: Values = 0.9,
        b: Values = 0.0,
        tau: Values = 10.0,
        B: Values | None = None,
        electrodes: Sequence[str] = (),
        sigma: Values | None = None,
        speed: float | None = None,
        delay_step: float | None = None,
    ):
        super().__init__()
        own: dict[str, Values] = {"K": K, "b": b, "tau": tau}
        further: tuple[Quantity, ...] = ()
        if B is not None:
            fields = floating(B)
            _check_fields(fields, connectome, electrodes)
            pairs = tuple(f"{k}<-{m}" for k in connectome.labels for m in electrodes)
            further, own["B"] = (Quantity("B", "1", pairs),), fields.flatten(-2)
        elif electrodes:
            raise ArgumentError("electrodes have names, and B does not say what they reach")
        self.has_fields = B is not None
        self._place(
            connectome, own, speed=speed, delay_step=delay_step, sigma=sigma,
            inputs=tuple(electrodes), further=further,
        )  # fmt: skip

    def vector_field(self, t: Time, x: State, u: Input, past: Past | None = None) -> State:
        """Rates of change, as in the class's docstring."""
        if self.has_fields:
            n = len(self.connectome.labels)
            u = times_vector(self.B.unflatten(-1, (n, self.n_inputs)), u)
        received = self.received(lambda seen: seen["x"], {"x": x}, past)
        return (torch.tanh(self.K * received + self.b + u) - x) / self.tau


def _check_fields(fields: torch.Tensor, connectome: Connectome, electrodes: Sequence[str]) -> None:
    expected = (connectome.n_regions, len(electrodes))
    if fields.ndim < 2 or tuple(fields.shape[-2:]) != expected:
        raise ArgumentError(
            f"B has shape {tuple(fields.shape)}, expected {expected}: regions by electrodes",
            fix="electrodes=[...] names its columns",
        )
