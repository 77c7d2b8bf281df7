"""Populations of neurons as one unit: firing fractions, mean potentials, oscillators.

`WilsonCowan` is the node of `clinode.brain.networks`; `JansenRit` is the column that
`clinode.brain.seizure.Wendling` extends.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Quantity, System, Time, Values

State = Float[Tensor, "... state"]
Input = Float[Tensor, "... input"]


def logistic(x: Tensor, a: Tensor, theta: Tensor) -> Tensor:
    """1 / (1 + exp(-a (x - theta))): the responding fraction, not zero without input."""
    return torch.sigmoid(a * (x - theta))


def shifted_logistic(x: Tensor, a: Tensor, theta: Tensor) -> Tensor:
    """The logistic less its value at x = 0, so that silence stays silent."""
    return torch.sigmoid(a * (x - theta)) - torch.sigmoid(-a * theta)


def asymptote(a: Tensor, theta: Tensor) -> Tensor:
    """The largest value of `shifted_logistic`, 1 / (1 + exp(-a theta))."""
    return torch.sigmoid(a * theta)


def one(a: Tensor, theta: Tensor) -> Tensor:
    """1, in the shape of the constants."""
    return torch.ones_like(a * theta)


@dataclass(frozen=True)
class Convention:
    """How a Wilson-Cowan population responds and saturates.

    Attributes:
        response: S(x; a, theta).
        saturation: k(a, theta) in the factor (k - r E) of the response.
    """

    response: Callable[[Tensor, Tensor, Tensor], Tensor]
    saturation: Callable[[Tensor, Tensor], Tensor]


CONVENTIONS = {
    "asymptote": Convention(shifted_logistic, asymptote),  # Wilson & Cowan 1972
    "one": Convention(shifted_logistic, one),
    "logistic": Convention(logistic, one),
}


def convention_named(name: str) -> Convention:
    """The convention of this name.

    Raises:
        ArgumentError: There is none.
    """
    if name not in CONVENTIONS:
        known = ", ".join(f"'{one}'" for one in CONVENTIONS)
        raise ArgumentError(f"no convention is called '{name}': there are {known}")
    return CONVENTIONS[name]


class WilsonCowan(System):
    """Firing fractions of an excitatory and an inhibitory population.

        tau_e dE/dt = -E + (k_e - r_e E) S_e(c1 E - c2 I + P)
        tau_i dI/dt = -I + (k_i - r_i I) S_i(c3 E - c4 I + Q)

    Wilson & Cowan 1972, Biophys J 12:1-24, with the constants of its limit cycle as
    defaults. P and Q are in the units of the thresholds.

    Args:
        c1, c2, c3, c4: Coupling E to E, I to E, E to I, I to I.
        a_e, theta_e, a_i, theta_i: Slopes and thresholds.
        r_e, r_i: Refractory fractions.
        tau_e, tau_i: Time constants.
        convention: "asymptote", the paper's: S(x) = 1 / (1 + exp(-a (x - theta))) - 1 / (1 +
            exp(a theta)) and k = S(infinity). "one": the same S and k = 1, as many later texts.
            "logistic": S without its second term and k = 1.

    Raises:
        ArgumentError: An unknown convention.
    """

    time_unit = "ms"
    states = (
        Quantity("E", "1", range=(0.0, 0.5), default=0.0),
        Quantity("I", "1", range=(0.0, 0.5), default=0.0),
    )
    inputs = (
        Quantity("P", "1", range=(-2.0, 10.0), default=1.25),
        Quantity("Q", "1", range=(-10.0, 10.0), default=0.0),
    )
    constants = tuple(
        Quantity(name, "ms" if name.startswith("tau") else "1")
        for name in (
            *("c1", "c2", "c3", "c4"),
            *("a_e", "theta_e", "a_i", "theta_i"),
            *("r_e", "r_i", "tau_e", "tau_i"),
        )
    )

    def __init__(
        self,
        *,
        c1: Values = 16.0,
        c2: Values = 12.0,
        c3: Values = 15.0,
        c4: Values = 3.0,
        a_e: Values = 1.3,
        theta_e: Values = 4.0,
        a_i: Values = 2.0,
        theta_i: Values = 3.7,
        r_e: Values = 1.0,
        r_i: Values = 1.0,
        tau_e: Values = 10.0,
        tau_i: Values = 10.0,
        convention: str = "asymptote",
    ):
        super().__init__()
        self.convention = convention_named(convention)
        self.register_constants(
            c1=c1,
            c2=c2,
            c3=c3,
            c4=c4,
            a_e=a_e,
            theta_e=theta_e,
            a_i=a_i,
            theta_i=theta_i,
            r_e=r_e,
            r_i=r_i,
            tau_e=tau_e,
            tau_i=tau_i,
        )

    def vector_field(self, t: Time, x: State, u: Input) -> State:
        """Rates of change, as in the class's docstring."""
        E, I = x[..., :1], x[..., 1:]
        return wilson_cowan_rates(self, self.convention, E, I, P=u[..., :1], Q=u[..., 1:])


def wilson_cowan_rates(
    system: System, convention: Convention, E: Tensor, I: Tensor, *, P: Tensor, Q: Tensor
) -> Tensor:
    """dE/dt, then dI/dt, of populations that have the constants of `WilsonCowan`."""
    response, saturation = convention.response, convention.saturation
    drive_e = system.c1 * E - system.c2 * I + P
    drive_i = system.c3 * E - system.c4 * I + Q
    free_e = saturation(system.a_e, system.theta_e) - system.r_e * E
    free_i = saturation(system.a_i, system.theta_i) - system.r_i * I
    rate_e = (free_e * response(drive_e, system.a_e, system.theta_e) - E) / system.tau_e
    rate_i = (free_i * response(drive_i, system.a_i, system.theta_i) - I) / system.tau_i
    return torch.cat(torch.broadcast_tensors(rate_e, rate_i), dim=-1)


class JansenRit(System):
    """A cortical column of pyramidal cells, excitatory and inhibitory interneurons.

        y0'' = A a S(y1 - y2) - 2 a y0' - a^2 y0
        y1'' = A a (p + alpha2 C S(alpha1 C y0)) - 2 a y1' - a^2 y1
        y2'' = B b alpha4 C S(alpha3 C y0) - 2 b y2' - b^2 y2
        S(v) = 2 e0 / (1 + exp(r (v0 - v)))

    Jansen & Rit 1995, Biol Cybern 73:357-366; y3, y4, y5 are the derivatives, alpha_i C its C_i.
    The output y1 - y2, the depolarization of the pyramidal cells, stands for the EEG. p is the rate
    of spikes that come from elsewhere, 120 to 320 Hz in the paper.
    """

    time_unit = "s"
    states = (
        Quantity("y0", "mV", range=(-0.1, 0.3), default=0.0),
        Quantity("y1", "mV", range=(-10.0, 80.0), default=0.0),
        Quantity("y2", "mV", range=(-10.0, 80.0), default=0.0),
        Quantity("y3", "mV/s", range=(-20.0, 20.0), default=0.0),
        Quantity("y4", "mV/s", range=(-2000.0, 2000.0), default=0.0),
        Quantity("y5", "mV/s", range=(-2000.0, 2000.0), default=0.0),
    )
    inputs = (Quantity("p", "Hz", range=(-50.0, 400.0), default=120.0),)
    outputs = (Quantity("EEG", "mV"),)
    constants = (
        Quantity("A", "mV"),
        Quantity("B", "mV"),
        Quantity("a", "1/s"),
        Quantity("b", "1/s"),
        Quantity("e0", "1/s"),
        Quantity("v0", "mV"),
        Quantity("r", "1/mV"),
        Quantity("C", "1"),
        *(Quantity(f"alpha{i}", "1") for i in range(1, 5)),
    )

    def __init__(
        self,
        *,
        A: Values = 3.25,
        B: Values = 22.0,
        a: Values = 100.0,
        b: Values = 50.0,
        e0: Values = 2.5,
        v0: Values = 6.0,
        r: Values = 0.56,
        C: Values = 135.0,
        alpha1: Values = 1.0,
        alpha2: Values = 0.8,
        alpha3: Values = 0.25,
        alpha4: Values = 0.25,
    ):
        super().__init__()
        self.register_constants(
            A=A,
            B=B,
            a=a,
            b=b,
            e0=e0,
            v0=v0,
            r=r,
            C=C,
            alpha1=alpha1,
            alpha2=alpha2,
            alpha3=alpha3,
            alpha4=alpha4,
        )

    def vector_field(self, t: Time, x: State, u: Input) -> State:
        """Rates of change, as in the class's docstring."""
        return jansen_rit_rates(self, x, u)

    def output(self, t: Time, x: State, u: Input) -> Float[Tensor, "... output"]:
        """y1 - y2."""
        return x[..., 1:2] - x[..., 2:3]

    def firing_rate(self, v: Tensor) -> Tensor:
        """S(v), in spikes per second, of a mean potential v in mV."""
        return firing_rate(self, v)


def jansen_rit_rates(system: System, x: State, p: Tensor) -> State:
    """Rates of columns that have the states and constants of `JansenRit`, under spikes p."""
    y0, y1, y2, y3, y4, y5 = system.split(x).values()
    excited = p + system.alpha2 * system.C * firing_rate(system, system.alpha1 * system.C * y0)
    inhibited = system.alpha4 * system.C * firing_rate(system, system.alpha3 * system.C * y0)
    return system.join(
        y0=y3,
        y1=y4,
        y2=y5,
        y3=synapse(system.A, system.a, firing_rate(system, y1 - y2), y0, y3),
        y4=synapse(system.A, system.a, excited, y1, y4),
        y5=synapse(system.B, system.b, inhibited, y2, y5),
    )


def firing_rate(system: System, v: Tensor) -> Tensor:
    """2 e0 / (1 + exp(r (v0 - v))), in spikes per second, of a mean potential v in mV."""
    return 2 * system.e0 * torch.sigmoid(system.r * (v - system.v0))


def synapse(gain: Tensor, rate: Tensor, drive: Tensor, y: Tensor, slope: Tensor) -> Tensor:
    """y'' of a synapse with the response gain * rate * t exp(-rate t) to a spike."""
    return gain * rate * drive - 2 * rate * slope - rate * rate * y


class ThetaPopulation(System):
    """The exact mean field of infinitely many theta neurons (quadratic integrate-and-fire).

        tau dr/dt = Delta / (pi tau) + 2 r v
        tau dv/dt = v^2 + eta + J tau r + I - (pi tau r)^2

    Montbrio, Pazo & Roxin 2015, Phys Rev X 5:021028: excitabilities are Lorentzian around eta with
    half-width Delta, all neurons coupled with strength J. r is their firing rate, v their mean
    potential in units of the neuron's. The defaults lie where rest and high firing are both stable.
    """

    time_unit = "ms"
    states = (
        Quantity("r", "1/ms", range=(0.0, 0.3), default=0.01),
        Quantity("v", "1", range=(-4.0, 4.0), default=-2.0),
    )
    inputs = (Quantity("I", "1", range=(-10.0, 10.0), default=0.0),)
    constants = (
        Quantity("tau", "ms"),
        Quantity("Delta", "1"),
        Quantity("eta", "1"),
        Quantity("J", "1"),
    )

    def __init__(
        self,
        *,
        tau: Values = 10.0,
        Delta: Values = 1.0,
        eta: Values = -5.0,
        J: Values = 15.0,
    ):
        super().__init__()
        self.register_constants(tau=tau, Delta=Delta, eta=eta, J=J)

    def vector_field(self, t: Time, x: State, u: Input) -> State:
        """Rates of change, as in the class's docstring."""
        r, v = self.split(x).values()
        rate = self.tau * r  # spikes per time constant
        drive = v * v + self.eta + self.J * rate + u - (math.pi * rate) ** 2
        return self.join(
            r=(self.Delta / (math.pi * self.tau) + 2 * r * v) / self.tau, v=drive / self.tau
        )


class SNICOscillator(System):
    """The normal form of a saddle-node on an invariant circle, in the plane.

        tau dx/dt = kappa x (1 - x^2 - y^2) - omega y
        tau dy/dt = kappa y (1 - x^2 - y^2) + omega x,   omega = 1 - x + (1 + x) mu

    On the circle, where it attracts, it is the theta model d(angle)/dt = 1 - cos + (1 + cos) mu of
    Ermentrout & Kopell 1986, SIAM J Appl Math 46:233-253: rest for mu < 0, and for mu > 0 the
    frequency sqrt(mu) / (pi tau), arbitrarily slow. The plane gives it a state without a seam.
    """

    states = (
        Quantity("x", "1", range=(-1.5, 1.5), default=1.0),
        Quantity("y", "1", range=(-1.5, 1.5), default=0.0),
    )
    inputs = (Quantity("mu", "1", range=(-1.0, 1.0), default=0.1),)
    constants = (Quantity("kappa", "1"), Quantity("tau", "1"))

    def __init__(self, *, kappa: Values = 1.0, tau: Values = 1.0):
        super().__init__()
        self.register_constants(kappa=kappa, tau=tau)

    def vector_field(self, t: Time, x: State, u: Input) -> State:
        """Rates of change, as in the class's docstring."""
        X, Y = self.split(x).values()
        radial = self.kappa * (1 - X * X - Y * Y)
        omega = 1 - X + (1 + X) * u
        return self.join(
            x=(radial * X - omega * Y) / self.tau, y=(radial * Y + omega * X) / self.tau
        )
