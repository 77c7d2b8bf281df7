"""Seizures: what slowly drifts into one and out of it, and a column that shows its EEG patterns.

How a seizure comes about differs by model: `Epileptor` loses its rest at a fold and ends in a
homoclinic orbit, so its onset has no square-root law of frequency; `clinode.brain.populations`
holds `SNICOscillator` and `JansenRit`, whose onsets have one.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.system import Quantity, System, Time, Values

from .populations import synapse

State = Float[Tensor, "... state"]
Input = Float[Tensor, "... input"]


class Epileptor(System):
    """Fast discharges (x1, y1), spikes and waves (x2, y2) and a slow permittivity z.

        dx1/dt = y1 - f1(x1, x2) - z + I1 + I
        dy1/dt = y0 - 5 x1^2 - y1
        dz/dt  = (4 (x1 - x0) - z) / tau0
        dx2/dt = -y2 + x2 - x2^3 + I2 + 0.002 g - 0.3 (z - 3.5)
        dy2/dt = (-y2 + f2(x2)) / tau2
        dg/dt  = x1 - gamma g
        f1 = x1^3 - 3 x1^2 for x1 < 0, (x2 - 0.6 (z - 4)^2) x1 otherwise
        f2 = 0 for x2 < -0.25, 6 (x2 + 0.25) otherwise

    Jirsa, Stacey, Quilichini, Ivanov & Bernard 2014, Brain 137:2210-2230; dimensionless. The
    excitability x0 decides whether there are seizures: rest is lost near x0 = -2.06. The output
    x2 - x1 stands for the field potential. I is a stimulus to the first subsystem.
    """

    states = (
        Quantity("x1", "1", range=(-3.0, 2.0), default=-1.6),
        Quantity("y1", "1", range=(-20.0, 2.0), default=-11.8),
        Quantity("z", "1", range=(0.0, 6.0), default=3.2),
        Quantity("x2", "1", range=(-2.0, 2.0), default=-0.9),
        Quantity("y2", "1", range=(-1.0, 8.0), default=0.0),
        Quantity("g", "1", range=(-300.0, 100.0), default=-160.0),
    )
    inputs = (Quantity("I", "1", range=(-2.0, 2.0), default=0.0),)
    outputs = (Quantity("LFP", "1"),)
    constants = tuple(
        Quantity(name, "1") for name in ("x0", "y0", "tau0", "tau2", "I1", "I2", "gamma")
    )

    def __init__(
        self,
        *,
        x0: Values = -1.6,
        y0: Values = 1.0,
        tau0: Values = 2857.0,
        tau2: Values = 10.0,
        I1: Values = 3.1,
        I2: Values = 0.45,
        gamma: Values = 0.01,
    ):
        super().__init__()
        self.register_constants(x0=x0, y0=y0, tau0=tau0, tau2=tau2, I1=I1, I2=I2, gamma=gamma)

    def vector_field(self, t: Time, x: State, u: Input) -> State:
        """Rates of change, as in the class's docstring."""
        return epileptor_rates(self, x, u)

    def output(self, t: Time, x: State, u: Input) -> Float[Tensor, "... output"]:
        """x2 - x1."""
        return x[..., 3:4] - x[..., 0:1]


def epileptor_rates(system: System, x: State, I: Tensor, pull: Tensor | float = 0.0) -> State:
    """Rates of populations that have the states and constants of `Epileptor`.

    Args:
        system: Its constants are taken.
        x: States.
        I: Stimulus to the first subsystem.
        pull: What others take from what drives z.
    """
    x1, y1, z, x2, y2, g = system.split(x).values()
    resting = x1**3 - 3 * x1**2
    seizing = (x2 - 0.6 * (z - 4) ** 2) * x1
    f1 = torch.where(x1 < 0, resting, seizing)
    f2 = 6 * torch.relu(x2 + 0.25)
    return system.join(
        x1=y1 - f1 - z + system.I1 + I,
        y1=system.y0 - 5 * x1**2 - y1,
        z=(4 * (x1 - system.x0) - z - pull) / system.tau0,
        x2=-y2 + x2 - x2**3 + system.I2 + 0.002 * g - 0.3 * (z - 3.5),
        y2=(f2 - y2) / system.tau2,
        g=x1 - system.gamma * g,
    )


class Wendling(System):
    """The column of Jansen & Rit with fast inhibition by cells near the somata.

        y0'' = A a S(y1 - y2 - y3) - 2 a y0' - a^2 y0
        y1'' = A a (p + C2 S(C1 y0)) - 2 a y1' - a^2 y1
        y2'' = B b C4 S(C3 y0) - 2 b y2' - b^2 y2
        y3'' = G g C7 S(C5 y0 - C6 y4) - 2 g y3' - g^2 y3
        y4'' = B b S(C3 y0) - 2 b y4' - b^2 y4
        S(v) = 2 e0 / (1 + exp(r (v0 - v))),   C_i = alpha_i C

    Wendling, Bartolomei, Bellanger & Chauvel 2002, Eur J Neurosci 15:1499-1508; y5 to y9 are the
    derivatives. The output y1 - y2 - y3 stands for the EEG. The balance of A, B and G sets the
    pattern: background, spikes, sustained spiking, slow rhythm, low-voltage fast activity. The
    paper's p is white noise of mean 90 Hz. Without G it is the column of Jansen & Rit.
    """

    time_unit = "s"
    states = (
        Quantity("y0", "mV", range=(-0.1, 0.5), default=0.0),
        *(Quantity(f"y{i}", "mV", range=(-10.0, 80.0), default=0.0) for i in (1, 2, 3)),
        Quantity("y4", "mV", range=(-1.0, 3.0), default=0.0),
        Quantity("y5", "mV/s", range=(-30.0, 30.0), default=0.0),
        *(Quantity(f"y{i}", "mV/s", range=(-4000.0, 4000.0), default=0.0) for i in (6, 7, 8)),
        Quantity("y9", "mV/s", range=(-100.0, 100.0), default=0.0),
    )
    inputs = (Quantity("p", "Hz", range=(0.0, 400.0), default=90.0),)
    outputs = (Quantity("EEG", "mV"),)
    constants = (
        Quantity("A", "mV"),
        Quantity("B", "mV"),
        Quantity("G", "mV"),
        Quantity("a", "1/s"),
        Quantity("b", "1/s"),
        Quantity("g", "1/s"),
        Quantity("e0", "1/s"),
        Quantity("v0", "mV"),
        Quantity("r", "1/mV"),
        Quantity("C", "1"),
        *(Quantity(f"alpha{i}", "1") for i in range(1, 8)),
    )

    def __init__(
        self,
        *,
        A: Values = 3.25,
        B: Values = 22.0,
        G: Values = 10.0,
        a: Values = 100.0,
        b: Values = 50.0,
        g: Values = 500.0,
        e0: Values = 2.5,
        v0: Values = 6.0,
        r: Values = 0.56,
        C: Values = 135.0,
        alpha1: Values = 1.0,
        alpha2: Values = 0.8,
        alpha3: Values = 0.25,
        alpha4: Values = 0.25,
        alpha5: Values = 0.3,
        alpha6: Values = 0.1,
        alpha7: Values = 0.8,
    ):
        super().__init__()
        shares = (alpha1, alpha2, alpha3, alpha4, alpha5, alpha6, alpha7)
        self.register_constants(
            A=A,
            B=B,
            G=G,
            a=a,
            b=b,
            g=g,
            e0=e0,
            v0=v0,
            r=r,
            C=C,
            **{f"alpha{i}": share for i, share in enumerate(shares, start=1)},
        )

    def vector_field(self, t: Time, x: State, u: Input) -> State:
        """Rates of change, as in the class's docstring."""
        y0, y1, y2, y3, y4, y5, y6, y7, y8, y9 = self.split(x).values()
        S, C = self.firing_rate, self.C
        slow = S(self.alpha3 * C * y0)
        fast = S(self.alpha5 * C * y0 - self.alpha6 * C * y4)
        excited = u + self.alpha2 * C * S(self.alpha1 * C * y0)
        return self.join(
            y0=y5,
            y1=y6,
            y2=y7,
            y3=y8,
            y4=y9,
            y5=synapse(self.A, self.a, S(y1 - y2 - y3), y0, y5),
            y6=synapse(self.A, self.a, excited, y1, y6),
            y7=synapse(self.B, self.b, self.alpha4 * C * slow, y2, y7),
            y8=synapse(self.G, self.g, self.alpha7 * C * fast, y3, y8),
            y9=synapse(self.B, self.b, slow, y4, y9),
        )

    def output(self, t: Time, x: State, u: Input) -> Float[Tensor, "... output"]:
        """y1 - y2 - y3."""
        return x[..., 1:2] - x[..., 2:3] - x[..., 3:4]

    def firing_rate(self, v: Tensor) -> Tensor:
        """S(v), in spikes per second, of a mean potential v in mV."""
        return 2 * self.e0 * torch.sigmoid(self.r * (v - self.v0))
