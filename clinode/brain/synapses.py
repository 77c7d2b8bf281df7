"""Synapses: from presynaptic spikes to the current they drive into a cell.

Each takes spikes, as impulses of amount 1 or as a rate in 1/ms, and the voltage V that it sits on,
and gives the current I = g s (E - V) into the cell, where s is its kernel: 1 at the peak that one
spike causes, so that g is a peak conductance. Spikes add up. `WithSynapse` puts one onto a neuron,
`poisson_input` makes the spikes, `ShortTermPlasticity` weighs them.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.system import Quantity, System, Time, Values

from .rates import bounded_exp, log_ratio

_SPIKES = Quantity("spikes", "1/ms", range=(0.0, 10.0), default=0.0)
_VOLTAGE = Quantity("V", "mV", range=(-100.0, 60.0), default=-70.0)
_OUTPUTS = (Quantity("I", "pA"), Quantity("conductance", "nS"))


class Moments(NamedTuple):
    """Mean and variance of a quantity in its steady state; units of it, and their square."""

    mean: Tensor
    variance: Tensor


class ExponentialSynapse(System):
    """A conductance that jumps at a spike and decays: ds/dt = -s / tau + spikes.

    Destexhe, Mainen & Sejnowski 1994, Neural Comput 6:14-18, and common before. Defaults: AMPA.
    """

    time_unit = "ms"
    states = (Quantity("s", "1", range=(0.0, 20.0), default=0.0),)
    inputs = (_SPIKES, _VOLTAGE)
    outputs = _OUTPUTS
    constants = (Quantity("g", "nS"), Quantity("E", "mV"), Quantity("tau", "ms"))

    def __init__(self, *, g: Values = 2.0, E: Values = 0.0, tau: Values = 5.0):
        super().__init__()
        self.register_constants(g=g, E=E, tau=tau)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Rates of change, as in the class's docstring."""
        return self.split(u, self.inputs)["spikes"] - x / self.tau

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The current into the cell, and the conductance that carries it."""
        conductance = self.g * x
        driving_force = self.E - self.split(u, self.inputs)["V"]
        return self.join(self.outputs, I=conductance * driving_force, conductance=conductance)

    def poisson_moments(self, rate: Values) -> Moments:
        """Of the conductance under Poisson spikes of a rate in 1/ms: g r tau, g^2 r tau / 2.

        Campbell 1909, Proc Camb Phil Soc 15:117-136.
        """
        return _campbell(rate, self.g, self.tau, self.tau / 2)

    def diffusion(self, rate: Values) -> "FluctuatingConductance":
        """White noise in place of Poisson spikes of a rate in 1/ms: equal mean, variance, tau."""
        mean, variance = self.poisson_moments(rate)
        return FluctuatingConductance(g_mean=mean, g_std=variance.sqrt(), E=self.E, tau=self.tau)


class AlphaSynapse(System):
    """A conductance (t / tau) exp(1 - t / tau) after a spike: one time constant, peak 1 at tau.

        dh/dt = -h / tau + spikes
        ds/dt = -s / tau + e h / tau

    Rall 1967, J Neurophysiol 30:1138-1168. Defaults: AMPA.
    """

    time_unit = "ms"
    states = (
        Quantity("h", "1", range=(0.0, 20.0), default=0.0),
        Quantity("s", "1", range=(0.0, 20.0), default=0.0),
    )
    inputs = (_SPIKES, _VOLTAGE)
    outputs = _OUTPUTS
    constants = (Quantity("g", "nS"), Quantity("E", "mV"), Quantity("tau", "ms"))

    def __init__(self, *, g: Values = 2.0, E: Values = 0.0, tau: Values = 2.0):
        super().__init__()
        self.register_constants(g=g, E=E, tau=tau)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Rates of change, as in the class's docstring."""
        h, s = self.split(x).values()
        spikes = self.split(u, self.inputs)["spikes"]
        return self.join(h=spikes - h / self.tau, s=(math.e * h - s) / self.tau)

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The current into the cell, and the conductance that carries it."""
        conductance = self.g * self.split(x)["s"]
        driving_force = self.E - self.split(u, self.inputs)["V"]
        return self.join(self.outputs, I=conductance * driving_force, conductance=conductance)

    def poisson_moments(self, rate: Values) -> Moments:
        """Of the conductance under Poisson spikes of a rate in 1/ms (Campbell's theorem)."""
        return _campbell(rate, self.g, math.e * self.tau, math.e**2 * self.tau / 4)


class DualExponentialSynapse(System):
    """A conductance that rises with tau_r and decays with tau_d, its peak after a spike 1.

        dh/dt = -h / tau_r + spikes
        ds/dt = -s / tau_d + k h

    k = exp(t_peak / tau_d) / tau_r with t_peak = tau_r tau_d / (tau_d - tau_r) ln(tau_d / tau_r);
    equal time constants are the alpha function, and no exception.

    Destexhe, Mainen & Sejnowski 1994, J Comput Neurosci 1:195-230. Defaults: GABA-A.
    """

    time_unit = "ms"
    states = (
        Quantity("h", "1", range=(0.0, 20.0), default=0.0),
        Quantity("s", "1", range=(0.0, 20.0), default=0.0),
    )
    inputs = (_SPIKES, _VOLTAGE)
    outputs = _OUTPUTS
    constants = (
        Quantity("g", "nS"),
        Quantity("E", "mV"),
        Quantity("tau_r", "ms"),
        Quantity("tau_d", "ms"),
    )

    def __init__(
        self, *, g: Values = 2.0, E: Values = -75.0, tau_r: Values = 0.5, tau_d: Values = 8.0
    ):
        super().__init__()
        self.register_constants(g=g, E=E, tau_r=tau_r, tau_d=tau_d)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Rates of change, as in the class's docstring."""
        h, s = self.split(x).values()
        spikes = self.split(u, self.inputs)["spikes"]
        rise, decay = _rise_and_decay(h, s, self.tau_r, self.tau_d)
        return self.join(h=spikes + rise, s=decay)

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The current into the cell, and the conductance that carries it."""
        conductance = self.g * self.split(x)["s"]
        driving_force = self.E - self.split(u, self.inputs)["V"]
        return self.join(self.outputs, I=conductance * driving_force, conductance=conductance)

    def poisson_moments(self, rate: Values) -> Moments:
        """Of the conductance under Poisson spikes of a rate in 1/ms (Campbell's theorem)."""
        return _campbell(rate, self.g, *_dual_exponential_integrals(self.tau_r, self.tau_d))


class NMDASynapse(System):
    """A slow conductance that magnesium blocks at rest: I = g B(V) s (E - V).

        B(V) = 1 / (1 + Mg / K_Mg exp(-gamma V))

    s as in `DualExponentialSynapse`. The block: Jahr & Stevens 1990, J Neurosci 10:3178-3182, in
    whose numbers B has half its size at V = -20.5 mV for 1 mmol/L.
    """

    time_unit = "ms"
    states = DualExponentialSynapse.states
    inputs = (_SPIKES, _VOLTAGE)
    outputs = _OUTPUTS
    constants = (
        *DualExponentialSynapse.constants,
        Quantity("Mg", "mmol/L"),
        Quantity("K_Mg", "mmol/L"),
        Quantity("gamma", "1/mV"),
    )

    def __init__(
        self,
        *,
        g: Values = 1.0,
        E: Values = 0.0,
        tau_r: Values = 2.0,
        tau_d: Values = 100.0,
        Mg: Values = 1.0,
        K_Mg: Values = 3.57,
        gamma: Values = 0.062,
    ):
        super().__init__()
        self.register_constants(g=g, E=E, tau_r=tau_r, tau_d=tau_d, Mg=Mg, K_Mg=K_Mg, gamma=gamma)

    def unblocked(self, V: Float[Tensor, "... 1"]) -> Float[Tensor, "... 1"]:
        """B(V), the part of the channels that magnesium leaves open at a voltage in mV."""
        return 1 / (1 + self.Mg / self.K_Mg * bounded_exp(-self.gamma * V))

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Rates of change, as in the class's docstring."""
        h, s = self.split(x).values()
        spikes = self.split(u, self.inputs)["spikes"]
        rise, decay = _rise_and_decay(h, s, self.tau_r, self.tau_d)
        return self.join(h=spikes + rise, s=decay)

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The current into the cell, and the conductance that carries it."""
        V = self.split(u, self.inputs)["V"]
        conductance = self.g * self.unblocked(V) * self.split(x)["s"]
        return self.join(self.outputs, I=conductance * (self.E - V), conductance=conductance)


class FluctuatingConductance(System):
    """The conductance of many synapses at once, as noise: an Ornstein-Uhlenbeck process.

        tau dg = (g_mean - g) dt + g_std sqrt(2 tau) dW

    I = g (E - V) goes into the cell. The defaults, as of `excitatory`, and those of `inhibitory`
    are a neocortical cell in vivo: Destexhe, Rudolph, Fellous & Sejnowski 2001, Neuroscience
    107:13-24. Nothing keeps g positive where g_std is large beside g_mean.
    """

    time_unit = "ms"
    states = (Quantity("g", "nS", range=(0.0, 100.0), default=12.1),)
    inputs = (_VOLTAGE,)
    outputs = _OUTPUTS
    constants = (
        Quantity("g_mean", "nS"),
        Quantity("g_std", "nS"),
        Quantity("E", "mV"),
        Quantity("tau", "ms"),
    )

    def __init__(
        self,
        *,
        g_mean: Values = 12.1,
        g_std: Values = 3.0,
        E: Values = 0.0,
        tau: Values = 2.728,
    ):
        super().__init__()
        self.register_constants(g_mean=g_mean, g_std=g_std, E=E, tau=tau)

    @classmethod
    def excitatory(cls) -> "FluctuatingConductance":
        """Glutamate, as in the source."""
        return cls()

    @classmethod
    def inhibitory(cls) -> "FluctuatingConductance":
        """GABA, as in the source."""
        return cls(g_mean=57.3, g_std=6.6, E=-75.0, tau=10.49)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """The drift; V does not enter it."""
        return (self.g_mean - x) / self.tau

    def noise(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """g_std sqrt(2 / tau), in nS / sqrt(ms)."""
        return self.g_std * torch.sqrt(2 / self.tau) * torch.ones_like(x)

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The current into the cell, and the conductance that carries it."""
        return self.join(self.outputs, I=x * (self.E - u), conductance=x)


class ShortTermPlasticity(System):
    """Release that spikes use up and make likelier: resources x, utilization u.

        dx/dt = (1 - x) / tau_rec - u x spikes
        du/dt = (U - u) / tau_facil + U (1 - u) spikes
        released = u x spikes

    u is the part of x that the next spike releases (u+ in the source). Fed with a rate this is the
    mean field of the source for Poisson spikes, which neglects that x and u are correlated; its
    output, joined to the `spikes` of a synapse, drives it. For a train of single spikes `release`
    says exactly what each of them releases: the amounts of the impulses that the synapse then gets.

    Tsodyks, Pawelzik & Markram 1998, Neural Comput 10:821-835. Defaults: facilitating enough to
    hold a memory, Mongillo, Barak & Tsodyks 2008, Science 319:1543-1546.
    """

    time_unit = "ms"
    states = (
        Quantity("x", "1", range=(0.0, 1.0), default=1.0),
        Quantity("u", "1", range=(0.0, 1.0), default=0.2),
    )
    inputs = (_SPIKES,)
    outputs = (Quantity("released", "1/ms"),)
    constants = (Quantity("U", "1"), Quantity("tau_rec", "ms"), Quantity("tau_facil", "ms"))

    def __init__(self, *, U: Values = 0.2, tau_rec: Values = 200.0, tau_facil: Values = 1500.0):
        super().__init__()
        self.register_constants(U=U, tau_rec=tau_rec, tau_facil=tau_facil)

    @classmethod
    def facilitating(cls) -> "ShortTermPlasticity":
        """F1 of Gupta, Wang & Markram 2000, Science 287:273-278."""
        return cls(U=0.016, tau_rec=45.0, tau_facil=376.0)

    @classmethod
    def depressing(cls) -> "ShortTermPlasticity":
        """F2 of the same."""
        return cls(U=0.25, tau_rec=706.0, tau_facil=21.0)

    @classmethod
    def recovering(cls) -> "ShortTermPlasticity":
        """F3 of the same."""
        return cls(U=0.32, tau_rec=144.0, tau_facil=62.0)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Rates of change, as in the class's docstring."""
        resources, utilization = self.split(x).values()
        return self.join(
            x=(1 - resources) / self.tau_rec - utilization * resources * u,
            u=(self.U - utilization) / self.tau_facil + self.U * (1 - utilization) * u,
        )

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """What is released, spikes weighed by u x."""
        resources, utilization = self.split(x).values()
        return utilization * resources * u

    def initial_state(self) -> Float[Tensor, "... state"]:
        """All resources there and u = U, as after a long silence."""
        return torch.cat([torch.ones_like(self.U), self.U], dim=-1)

    def release(self, times: Float[Tensor, "... spike"]) -> Float[Tensor, "... spike"]:
        """What each spike of a train releases, u x just before it, from rest on.

        At a spike x falls by u x and u rises by U (1 - u), both from their values just before it;
        between spikes they recover. Exact; differentiable by times and constants.

        Args:
            times: Spike times, ms, not decreasing.
        """
        batch = torch.broadcast_shapes(times.shape[:-1], self.U.shape[:-1])
        utilization = self.U.squeeze(-1).expand(batch)
        U, resources, released = utilization, torch.ones_like(utilization), []
        recovery, facilitation = self.tau_rec.squeeze(-1), self.tau_facil.squeeze(-1)
        for gap in times.diff(dim=-1, prepend=times[..., :1]).unbind(-1):
            if released:
                used = resources * (1 - utilization)
                risen = utilization + U * (1 - utilization)
                resources = 1 + (used - 1) * torch.exp(-gap / recovery)
                utilization = U + (risen - U) * torch.exp(-gap / facilitation)
            released.append((utilization * resources).expand(batch))
        return torch.stack(released, dim=-1) if released else times.new_zeros(*batch, 0)


def _rise_and_decay(h: Tensor, s: Tensor, tau_r: Tensor, tau_d: Tensor) -> tuple[Tensor, Tensor]:
    """dh/dt without spikes, and ds/dt, of a dual exponential with peak 1."""
    ratio = tau_r / tau_d
    return -h / tau_r, torch.exp(ratio * log_ratio(ratio)) * h / tau_r - s / tau_d


def _dual_exponential_integrals(tau_r: Tensor, tau_d: Tensor) -> tuple[Tensor, Tensor]:
    """Of the kernel and of its square, over time.

    The kernel is k tau_r tau_d (exp(-t / tau_d) - exp(-t / tau_r)) / (tau_d - tau_r); in its
    integrals the difference cancels.
    """
    ratio = tau_r / tau_d
    k = torch.exp(ratio * log_ratio(ratio)) / tau_r
    area = k * tau_r * tau_d
    return area, area * area / (2 * (tau_r + tau_d))


def _campbell(rate: Values, g: Tensor, area: Tensor, power: Tensor) -> Moments:
    """Mean and variance of g times the sum of a kernel over Poisson spikes."""
    per_time = torch.as_tensor(rate).to(g)
    return Moments(g * per_time * area, g * g * per_time * power)
