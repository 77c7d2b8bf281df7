"""Neurons and membranes whose spikes come from their currents: no threshold, no reset.

FitzHugh-Nagumo, Morris-Lecar in its three published sets, Hodgkin-Huxley. Densities: currents in
uA/cm^2, conductances in mS/cm^2, capacitance in uF/cm^2. `events` only marks a spike, where V
crosses V_spike upward; it changes nothing.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.system import Event, Quantity, System, Time, Values

from .rates import bounded_exp, linoid


class FitzHughNagumo(System):
    """dv/dt = v - v^3 / 3 - w + I, dw/dt = (v + a - b w) / tau; dimensionless.

    Hopf points at v = -+sqrt(1 - b / tau). FitzHugh 1961, Biophys J 1:445-466; Nagumo, Arimoto &
    Yoshizawa 1962, Proc IRE 50:2061-2070. a, b as there; tau = 12.5 is their 1 / phi.
    """

    time_unit = "1"
    states = (
        Quantity("v", "1", range=(-2.5, 2.5), default=-1.1994),
        Quantity("w", "1", range=(-1.5, 2.5), default=-0.6243),
    )
    inputs = (Quantity("I", "1", range=(-1.0, 3.0), default=0.0),)
    constants = (Quantity("a", "1"), Quantity("b", "1"), Quantity("tau", "1"))

    def __init__(self, *, a: Values = 0.7, b: Values = 0.8, tau: Values = 12.5):
        super().__init__()
        self.register_constants(a=a, b=b, tau=tau)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Rates of change, as in the class's docstring."""
        v, w = self.split(x).values()
        return self.join(v=v - v**3 / 3 - w + u, w=(v + self.a - self.b * w) / self.tau)


class MorrisLecar(System):
    """Barnacle muscle membrane: calcium m at once, potassium w slowly.

        C dV/dt = I - g_L (V - E_L) - g_Ca m (V - E_Ca) - g_K w (V - E_K)
        dw/dt   = phi cosh((V - V3) / (2 V4)) (w_inf - w)
        m       = (1 + tanh((V - V1) / V2)) / 2,   w_inf = (1 + tanh((V - V3) / V4)) / 2

    Morris & Lecar 1981, Biophys J 35:193-213; the three sets, which are classmethods, are those of
    Rinzel & Ermentrout 1998, in Koch & Segev (eds) Methods in Neuronal Modeling, ch. 7.
    """

    time_unit = "ms"
    states = (
        Quantity("V", "mV", range=(-100.0, 60.0), default=-60.0),
        Quantity("w", "1", range=(0.0, 1.0), default=0.0149),
    )
    inputs = (Quantity("I", "uA/cm^2", range=(-20.0, 300.0), default=0.0),)
    constants = (
        Quantity("C", "uF/cm^2"),
        Quantity("g_Ca", "mS/cm^2"),
        Quantity("g_K", "mS/cm^2"),
        Quantity("g_L", "mS/cm^2"),
        Quantity("E_Ca", "mV"),
        Quantity("E_K", "mV"),
        Quantity("E_L", "mV"),
        Quantity("V1", "mV"),
        Quantity("V2", "mV"),
        Quantity("V3", "mV"),
        Quantity("V4", "mV"),
        Quantity("phi", "1/ms"),
        Quantity("V_spike", "mV"),
    )

    def __init__(
        self,
        *,
        C: Values = 20.0,
        g_Ca: Values = 4.4,
        g_K: Values = 8.0,
        g_L: Values = 2.0,
        E_Ca: Values = 120.0,
        E_K: Values = -84.0,
        E_L: Values = -60.0,
        V1: Values = -1.2,
        V2: Values = 18.0,
        V3: Values = 2.0,
        V4: Values = 30.0,
        phi: Values = 0.04,
        V_spike: Values = 0.0,
    ):
        super().__init__()
        self.register_constants(
            C=C,
            g_Ca=g_Ca,
            g_K=g_K,
            g_L=g_L,
            E_Ca=E_Ca,
            E_K=E_K,
            E_L=E_L,
            V1=V1,
            V2=V2,
            V3=V3,
            V4=V4,
            phi=phi,
            V_spike=V_spike,
        )

    @classmethod
    def hopf(cls) -> "MorrisLecar":
        """Class II: firing begins at a subcritical Hopf point, at a finite rate."""
        return cls()

    @classmethod
    def snic(cls) -> "MorrisLecar":
        """Class I: firing begins at a saddle-node on an invariant circle, arbitrarily slow."""
        return cls(g_Ca=4.0, V3=12.0, V4=17.4, phi=1 / 15)

    @classmethod
    def homoclinic(cls) -> "MorrisLecar":
        """As `snic` with a faster potassium gate: firing begins at a saddle homoclinic orbit."""
        return cls(g_Ca=4.0, V3=12.0, V4=17.4, phi=0.23)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Rates of change, as in the class's docstring; cosh is of `bounded_exp`."""
        V, w = self.split(x).values()
        m = (1 + torch.tanh((V - self.V1) / self.V2)) / 2
        w_inf = (1 + torch.tanh((V - self.V3) / self.V4)) / 2
        slope = (V - self.V3) / (2 * self.V4)
        rate = self.phi * (bounded_exp(slope) + bounded_exp(-slope)) / 2
        calcium = self.g_Ca * m * (V - self.E_Ca)
        potassium = self.g_K * w * (V - self.E_K)
        leak = self.g_L * (V - self.E_L)
        return self.join(V=(u - leak - calcium - potassium) / self.C, w=rate * (w_inf - w))

    def above_zero(self, t: Time, x: Float[Tensor, "... state"]) -> Float[Tensor, "... 1"]:
        """Crosses zero upward where a spike is counted."""
        return self.split(x)["V"] - self.V_spike

    events = (Event("spike", guard=above_zero),)


class GateRates(NamedTuple):
    """Opening and closing rates of the gates of Hodgkin & Huxley; (..., 1) each, 1/ms."""

    alpha_m: Tensor
    beta_m: Tensor
    alpha_h: Tensor
    beta_h: Tensor
    alpha_n: Tensor
    beta_n: Tensor


class HodgkinHuxley(System):
    """The squid giant axon at 6.3 degrees C, in today's sign, with its rest near -65 mV.

        C dV/dt = I - g_Na m^3 h (V - E_Na) - g_K n^4 (V - E_K) - g_L (V - E_L)
        dy/dt   = phi (alpha_y (1 - y) - beta_y y)        for y = m, h, n

        alpha_m = A_m k_m linoid((V - V_m) / k_m)         beta_m = B_m exp(-(V - V_rest) / K_m)
        alpha_h = A_h exp(-(V - V_rest) / k_h)            beta_h = B_h / (1 + exp(-(V - V_h) / K_h))
        alpha_n = A_n k_n linoid((V - V_n) / k_n)         beta_n = B_n exp(-(V - V_rest) / K_n)

    with linoid(x) = x / (1 - exp(-x)). Numbers of Hodgkin & Huxley 1952, J Physiol 117:500-544,
    there written out; phi = 3^((T - 6.3) / 10) is their factor for a temperature T in degrees C.
    """

    time_unit = "ms"
    states = (
        Quantity("V", "mV", range=(-100.0, 60.0), default=-64.9964),
        Quantity("m", "1", range=(0.0, 1.0), default=0.05296),
        Quantity("h", "1", range=(0.0, 1.0), default=0.59599),
        Quantity("n", "1", range=(0.0, 1.0), default=0.31773),
    )
    inputs = (Quantity("I", "uA/cm^2", range=(-10.0, 200.0), default=0.0),)
    constants = (
        Quantity("C", "uF/cm^2"),
        Quantity("g_Na", "mS/cm^2"),
        Quantity("g_K", "mS/cm^2"),
        Quantity("g_L", "mS/cm^2"),
        Quantity("E_Na", "mV"),
        Quantity("E_K", "mV"),
        Quantity("E_L", "mV"),
        Quantity("phi", "1"),
        Quantity("V_rest", "mV"),
        Quantity("A_m", "1/(mV*ms)"),
        Quantity("V_m", "mV"),
        Quantity("k_m", "mV"),
        Quantity("B_m", "1/ms"),
        Quantity("K_m", "mV"),
        Quantity("A_h", "1/ms"),
        Quantity("k_h", "mV"),
        Quantity("B_h", "1/ms"),
        Quantity("V_h", "mV"),
        Quantity("K_h", "mV"),
        Quantity("A_n", "1/(mV*ms)"),
        Quantity("V_n", "mV"),
        Quantity("k_n", "mV"),
        Quantity("B_n", "1/ms"),
        Quantity("K_n", "mV"),
        Quantity("V_spike", "mV"),
    )

    def __init__(
        self,
        *,
        C: Values = 1.0,
        g_Na: Values = 120.0,
        g_K: Values = 36.0,
        g_L: Values = 0.3,
        E_Na: Values = 50.0,
        E_K: Values = -77.0,
        E_L: Values = -54.387,
        phi: Values = 1.0,
        V_rest: Values = -65.0,
        A_m: Values = 0.1,
        V_m: Values = -40.0,
        k_m: Values = 10.0,
        B_m: Values = 4.0,
        K_m: Values = 18.0,
        A_h: Values = 0.07,
        k_h: Values = 20.0,
        B_h: Values = 1.0,
        V_h: Values = -35.0,
        K_h: Values = 10.0,
        A_n: Values = 0.01,
        V_n: Values = -55.0,
        k_n: Values = 10.0,
        B_n: Values = 0.125,
        K_n: Values = 80.0,
        V_spike: Values = 0.0,
    ):
        given = {name: value for name, value in locals().items() if name in _HODGKIN_HUXLEY}
        super().__init__()
        self.register_constants(**given)

    def rates(self, V: Float[Tensor, "... 1"]) -> GateRates:
        """Opening and closing rates at a voltage in mV, before the factor phi."""
        above = V - self.V_rest
        return GateRates(
            alpha_m=self.A_m * self.k_m * linoid((V - self.V_m) / self.k_m),
            beta_m=self.B_m * bounded_exp(-above / self.K_m),
            alpha_h=self.A_h * bounded_exp(-above / self.k_h),
            beta_h=self.B_h * torch.sigmoid((V - self.V_h) / self.K_h),
            alpha_n=self.A_n * self.k_n * linoid((V - self.V_n) / self.k_n),
            beta_n=self.B_n * bounded_exp(-above / self.K_n),
        )

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Rates of change, as in the class's docstring."""
        V, m, h, n = self.split(x).values()
        rates = self.rates(V)
        sodium = self.g_Na * m**3 * h * (V - self.E_Na)
        potassium = self.g_K * n**4 * (V - self.E_K)
        leak = self.g_L * (V - self.E_L)
        return self.join(
            V=(u - sodium - potassium - leak) / self.C,
            m=self.phi * (rates.alpha_m * (1 - m) - rates.beta_m * m),
            h=self.phi * (rates.alpha_h * (1 - h) - rates.beta_h * h),
            n=self.phi * (rates.alpha_n * (1 - n) - rates.beta_n * n),
        )

    def above_zero(self, t: Time, x: Float[Tensor, "... state"]) -> Float[Tensor, "... 1"]:
        """Crosses zero upward where a spike is counted."""
        return self.split(x)["V"] - self.V_spike

    events = (Event("spike", guard=above_zero),)


_HODGKIN_HUXLEY = frozenset(quantity.name for quantity in HodgkinHuxley.constants)
