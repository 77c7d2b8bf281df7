"""Neurons that spike by a rule: a threshold, a reset, and what they do between two spikes.

Inputs are currents (pA, or in the units of a model without them). A synapse drives one through
`clinode.brain.WithSynapse`. Between spikes each is an ordinary flow, so equilibria, branches and
impedance are those of the membrane below its threshold.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.system import Event, Quantity, System, Time, Values

from .rates import bounded_exp


class LIF(System):
    """Leaky integrate-and-fire neuron: C dV/dt = -g_L (V - E_L) + I; at V_th a spike, V = V_r.

    V is held at V_r for the refractory time t_ref. With tau = C / g_L and V_inf = E_L + I / g_L,
    it fires at 1 / (t_ref + tau ln((V_inf - V_r) / (V_inf - V_th))) where V_inf > V_th.

    Lapicque 1907, J Physiol Pathol Gen 9:620-635; review with these symbols: Burkitt 2006,
    Biol Cybern 95:1-19.
    """

    time_unit = "ms"
    states = (Quantity("V", "mV", range=(-90.0, -50.0), default=-70.0),)
    inputs = (Quantity("I", "pA", range=(0.0, 1000.0), default=0.0),)
    constants = (
        Quantity("C", "pF"),
        Quantity("g_L", "nS"),
        Quantity("E_L", "mV"),
        Quantity("V_th", "mV"),
        Quantity("V_r", "mV"),
        Quantity("t_ref", "ms"),
    )

    def __init__(
        self,
        *,
        C: Values = 200.0,
        g_L: Values = 10.0,
        E_L: Values = -70.0,
        V_th: Values = -50.0,
        V_r: Values = -60.0,
        t_ref: Values = 2.0,
    ):
        super().__init__()
        self.register_constants(C=C, g_L=g_L, E_L=E_L, V_th=V_th, V_r=V_r, t_ref=t_ref)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Rates of change, as in the class's docstring."""
        return (u - self.g_L * (x - self.E_L)) / self.C

    def threshold(self, t: Time, x: Float[Tensor, "... state"]) -> Float[Tensor, "... 1"]:
        """Zero where it spikes."""
        return x - self.V_th

    def after_spike(self, x: Float[Tensor, "... state"]) -> Float[Tensor, "... state"]:
        """The state just after a spike."""
        return torch.zeros_like(x) + self.V_r

    events = (Event("spike", guard=threshold, reset=after_spike, refractory="t_ref", held=("V",)),)


class NoisyLIF(System):
    """Leaky integrate-and-fire neuron in white noise: tau dV = (E_L - V + I / g_L) dt + noise.

    tau = C / g_L and noise = sigma sqrt(tau) dW: without a threshold V would vary with variance
    sigma^2 / 2. Its rate is `siegert_rate`. Threshold, reset and refractory time as in `LIF`.

    Burkitt 2006, Biol Cybern 95:1-19; sigma as in Brunel 2000, J Comput Neurosci 8:183-208.
    """

    time_unit = "ms"
    states = LIF.states
    inputs = LIF.inputs
    constants = (*LIF.constants, Quantity("sigma", "mV"))

    def __init__(
        self,
        *,
        C: Values = 200.0,
        g_L: Values = 10.0,
        E_L: Values = -70.0,
        V_th: Values = -50.0,
        V_r: Values = -60.0,
        t_ref: Values = 2.0,
        sigma: Values = 5.0,
    ):
        super().__init__()
        self.register_constants(C=C, g_L=g_L, E_L=E_L, V_th=V_th, V_r=V_r, t_ref=t_ref, sigma=sigma)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """The drift."""
        return (u - self.g_L * (x - self.E_L)) / self.C

    def noise(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """sigma / sqrt(tau), in mV / sqrt(ms)."""
        return self.sigma * torch.sqrt(self.g_L / self.C) * torch.ones_like(x)

    def threshold(self, t: Time, x: Float[Tensor, "... state"]) -> Float[Tensor, "... 1"]:
        """Zero where it spikes."""
        return x - self.V_th

    def after_spike(self, x: Float[Tensor, "... state"]) -> Float[Tensor, "... state"]:
        """The state just after a spike."""
        return torch.zeros_like(x) + self.V_r

    events = (Event("spike", guard=threshold, reset=after_spike, refractory="t_ref", held=("V",)),)


class Theta(System):
    """The theta neuron, dtheta/dt = (1 - cos theta) + (1 + cos theta) I; a spike where theta = pi.

    The normal form of class I excitability: at rest for I < 0, firing at sqrt(I) / pi for I > 0.
    Dimensionless. theta keeps growing, one turn a spike, and with it what rtol allows: over many
    turns give an atol and rtol=0.

    Ermentrout & Kopell 1986, SIAM J Appl Math 46:233-253.
    """

    time_unit = "1"
    states = (Quantity("theta", "rad", range=(-3.141592653589793, 3.141592653589793), default=0.0),)
    inputs = (Quantity("I", "1", range=(-1.0, 2.0), default=0.0),)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Rates of change, as in the class's docstring."""
        return (1 - torch.cos(x)) + (1 + torch.cos(x)) * u

    def phase(self, t: Time, x: Float[Tensor, "... state"]) -> Float[Tensor, "... 1"]:
        """Crosses zero upward at pi, and once a turn."""
        return -torch.sin(x)

    events = (Event("spike", guard=phase),)


class AdaptiveLinear(System):
    """Linear membrane with an adaptation current: the neuron below threshold, as an RLC circuit.

        C dV/dt     = -g_L (V - E_L) - w + I
        tau_w dw/dt = a (V - E_L) - w

    It rests at V = E_L + I / (g_L + a), w = a (V - E_L), and spirals where
    (g_L / C - 1 / tau_w)^2 < 4 a / (C tau_w). Its impedance resonates even where it does not
    spiral. Defaults resonate at 7.8 Hz.

    Mauro, Conti, Dodge & Schor 1970, J Gen Physiol 55:497-523; in this form Richardson, Brunel &
    Hakim 2003, J Neurophysiol 89:2538-2554.
    """

    time_unit = "ms"
    states = (
        Quantity("V", "mV", range=(-120.0, 0.0), default=-70.0),
        Quantity("w", "pA", range=(-1000.0, 1000.0), default=0.0),
    )
    inputs = (Quantity("I", "pA", range=(-500.0, 500.0), default=0.0),)
    constants = (
        Quantity("C", "pF"),
        Quantity("g_L", "nS"),
        Quantity("E_L", "mV"),
        Quantity("a", "nS"),
        Quantity("tau_w", "ms"),
    )

    def __init__(
        self,
        *,
        C: Values = 100.0,
        g_L: Values = 5.0,
        E_L: Values = -70.0,
        a: Values = 20.0,
        tau_w: Values = 100.0,
    ):
        super().__init__()
        self.register_constants(C=C, g_L=g_L, E_L=E_L, a=a, tau_w=tau_w)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Rates of change, as in the class's docstring."""
        V, w = self.split(x).values()
        return self.join(
            V=(u - self.g_L * (V - self.E_L) - w) / self.C,
            w=(self.a * (V - self.E_L) - w) / self.tau_w,
        )


class AdEx(System):
    """Adaptive exponential integrate-and-fire neuron.

        C dV/dt     = -g_L (V - E_L) + g_L Delta_T exp((V - V_T) / Delta_T) - w + I
        tau_w dw/dt = a (V - E_L) - w
        at V = V_peak a spike: V = V_r, w = w + b

    Brette & Gerstner 2005, J Neurophysiol 94:3637-3642, whose constants these are. V escapes to
    infinity in finite time, so where it is cut changes next to nothing: at -20 mV a spike comes
    2e-6 ms early, for less than half of the steps. Between 0 and 20 mV those are shorter than the
    spacing of floating-point time. Rheobase in closed form: Touboul & Brette 2008, Biol Cybern
    99:319-334.
    """

    time_unit = "ms"
    states = (
        Quantity("V", "mV", range=(-100.0, 20.0), default=-70.6),
        Quantity("w", "pA", range=(-500.0, 1000.0), default=0.0),
    )
    inputs = (Quantity("I", "pA", range=(0.0, 2000.0), default=0.0),)
    constants = (
        Quantity("C", "pF"),
        Quantity("g_L", "nS"),
        Quantity("E_L", "mV"),
        Quantity("V_T", "mV"),
        Quantity("Delta_T", "mV"),
        Quantity("tau_w", "ms"),
        Quantity("a", "nS"),
        Quantity("b", "pA"),
        Quantity("V_r", "mV"),
        Quantity("V_peak", "mV"),
    )

    def __init__(
        self,
        *,
        C: Values = 281.0,
        g_L: Values = 30.0,
        E_L: Values = -70.6,
        V_T: Values = -50.4,
        Delta_T: Values = 2.0,
        tau_w: Values = 144.0,
        a: Values = 4.0,
        b: Values = 80.5,
        V_r: Values = -70.6,
        V_peak: Values = 20.0,
    ):
        super().__init__()
        self.register_constants(
            C=C,
            g_L=g_L,
            E_L=E_L,
            V_T=V_T,
            Delta_T=Delta_T,
            tau_w=tau_w,
            a=a,
            b=b,
            V_r=V_r,
            V_peak=V_peak,
        )

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Rates of change, as in the class's docstring; the exponential is `bounded_exp`."""
        V, w = self.split(x).values()
        upstroke = self.g_L * self.Delta_T * bounded_exp((V - self.V_T) / self.Delta_T)
        return self.join(
            V=(u - self.g_L * (V - self.E_L) + upstroke - w) / self.C,
            w=(self.a * (V - self.E_L) - w) / self.tau_w,
        )

    def threshold(self, t: Time, x: Float[Tensor, "... state"]) -> Float[Tensor, "... 1"]:
        """Zero where it spikes."""
        return self.split(x)["V"] - self.V_peak

    def after_spike(self, x: Float[Tensor, "... state"]) -> Float[Tensor, "... state"]:
        """The state just after a spike."""
        return self.join(V=self.V_r, w=self.split(x)["w"] + self.b)

    events = (Event("spike", guard=threshold, reset=after_spike),)


class Izhikevich(System):
    """Quadratic integrate-and-fire neuron with recovery.

        dv/dt = k2 v^2 + k1 v + k0 - u + I        (0.04, 5 and 140 in the source)
        du/dt = a (b v - u)
        at v = v_peak a spike: v = c, u = u + d

    v is in mV and time in ms, so currents, u and I, are in mV/ms. The classmethods are the types of
    cortical neuron in figure 2 of the source.

    Izhikevich 2003, IEEE Trans Neural Netw 14:1569-1572.
    """

    time_unit = "ms"
    states = (
        Quantity("v", "mV", range=(-100.0, 30.0), default=-70.0),
        Quantity("u", "mV/ms", range=(-40.0, 40.0), default=-14.0),
    )
    inputs = (Quantity("I", "mV/ms", range=(-20.0, 40.0), default=0.0),)
    constants = (
        Quantity("a", "1/ms"),
        Quantity("b", "1/ms"),
        Quantity("c", "mV"),
        Quantity("d", "mV/ms"),
        Quantity("v_peak", "mV"),
        Quantity("k2", "1/(mV*ms)"),
        Quantity("k1", "1/ms"),
        Quantity("k0", "mV/ms"),
    )

    def __init__(
        self,
        *,
        a: Values = 0.02,
        b: Values = 0.2,
        c: Values = -65.0,
        d: Values = 8.0,
        v_peak: Values = 30.0,
        k2: Values = 0.04,
        k1: Values = 5.0,
        k0: Values = 140.0,
    ):
        super().__init__()
        self.register_constants(a=a, b=b, c=c, d=d, v_peak=v_peak, k2=k2, k1=k1, k0=k0)

    @classmethod
    def regular_spiking(cls) -> "Izhikevich":
        """RS, the most typical excitatory neuron: fires, and slows down."""
        return cls()

    @classmethod
    def intrinsically_bursting(cls) -> "Izhikevich":
        """IB: a burst, then single spikes."""
        return cls(c=-55.0, d=4.0)

    @classmethod
    def chattering(cls) -> "Izhikevich":
        """CH: bursts of closely spaced spikes."""
        return cls(c=-50.0, d=2.0)

    @classmethod
    def fast_spiking(cls) -> "Izhikevich":
        """FS, an inhibitory neuron: fast, without slowing down."""
        return cls(a=0.1, d=2.0)

    @classmethod
    def low_threshold_spiking(cls) -> "Izhikevich":
        """LTS, an inhibitory neuron that slows down."""
        return cls(b=0.25, d=2.0)

    @classmethod
    def resonator(cls) -> "Izhikevich":
        """RZ: rests in a focus, and answers a rhythm."""
        return cls(a=0.1, b=0.26, d=2.0)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Rates of change, as in the class's docstring."""
        v, recovery = self.split(x).values()
        return self.join(
            v=self.k2 * v * v + self.k1 * v + self.k0 - recovery + u,
            u=self.a * (self.b * v - recovery),
        )

    def threshold(self, t: Time, x: Float[Tensor, "... state"]) -> Float[Tensor, "... 1"]:
        """Zero where it spikes."""
        return self.split(x)["v"] - self.v_peak

    def after_spike(self, x: Float[Tensor, "... state"]) -> Float[Tensor, "... state"]:
        """The state just after a spike."""
        return self.join(v=self.c, u=self.split(x)["u"] + self.d)

    events = (Event("spike", guard=threshold, reset=after_spike),)
