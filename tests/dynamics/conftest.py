"""Published systems whose equilibria, bifurcations and cycles are known from elsewhere."""

from types import SimpleNamespace

import pytest
import torch

from clinode.system import Quantity, System, Values


class MorrisLecar(System):
    """Morris & Lecar 1981 with the parameter sets of Rinzel & Ermentrout 1998."""

    time_unit = "ms"
    states = (
        Quantity("V", "mV", range=(-100.0, 60.0), default=-60.0),
        Quantity("w", "1", range=(0.0, 1.0), default=0.0),
    )
    inputs = (Quantity("I", "uA/cm^2", range=(-20.0, 120.0)),)
    constants = tuple(
        Quantity(name, unit)
        for name, unit in {
            "C": "uF/cm^2",
            "g_Ca": "mS/cm^2",
            "g_K": "mS/cm^2",
            "g_L": "mS/cm^2",
            "E_Ca": "mV",
            "E_K": "mV",
            "E_L": "mV",
            "V1": "mV",
            "V2": "mV",
            "V3": "mV",
            "V4": "mV",
            "phi": "1/ms",
        }.items()
    )

    def __init__(self, g_Ca: Values = 4.4, V3: Values = 2.0, V4: Values = 30.0, phi: Values = 0.04):
        super().__init__()
        self.register_constants(
            C=20.0, g_Ca=g_Ca, g_K=8.0, g_L=2.0, E_Ca=120.0, E_K=-84.0, E_L=-60.0
            , V1=-1.2, V2=18.0, V3=V3, V4=V4, phi=phi
        )  # fmt: skip

    def vector_field(self, t, x, u):
        V, w = self.split(x).values()
        m = (1 + torch.tanh((V - self.V1) / self.V2)) / 2
        open_ = (1 + torch.tanh((V - self.V3) / self.V4)) / 2
        rate = self.phi * torch.cosh((V - self.V3) / (2 * self.V4))
        calcium = self.g_Ca * m * (V - self.E_Ca)
        current = u - self.g_L * (V - self.E_L) - calcium - self.g_K * w * (V - self.E_K)
        return self.join(V=current / self.C, w=rate * (open_ - w))


def _rate(z):
    """z / (1 - exp(-z)), with its series where that is 0 / 0."""
    small = z.abs() < 1e-2
    away = torch.where(small, 1.0, z)
    series = 1 + z / 2 + z**2 / 12 - z**4 / 720 + z**6 / 30240
    return torch.where(small, series, away / (1 - torch.exp(-away)))


class HodgkinHuxley(System):
    """Hodgkin & Huxley 1952 in today's sign, rest near -65 mV."""

    time_unit = "ms"
    states = (
        Quantity("V", "mV", range=(-100.0, 60.0), default=-65.0),
        Quantity("m", "1", range=(0.0, 1.0), default=0.05),
        Quantity("h", "1", range=(0.0, 1.0), default=0.6),
        Quantity("n", "1", range=(0.0, 1.0), default=0.32),
    )
    inputs = (Quantity("I", "uA/cm^2", range=(-10.0, 200.0)),)
    constants = (Quantity("E_L", "mV"),)

    def __init__(self, E_L: Values = -54.387):
        super().__init__()
        self.register_constants(E_L=E_L)

    def vector_field(self, t, x, u):
        V, m, h, n = self.split(x).values()
        open_m, shut_m = _rate((V + 40) / 10), 4 * torch.exp(-(V + 65) / 18)
        open_h, shut_h = 0.07 * torch.exp(-(V + 65) / 20), torch.sigmoid((V + 35) / 10)
        open_n, shut_n = 0.1 * _rate((V + 55) / 10), 0.125 * torch.exp(-(V + 65) / 80)
        ionic = 120 * m**3 * h * (V - 50) + 36 * n**4 * (V + 77) + 0.3 * (V - self.E_L)
        return self.join(
            V=u - ionic,
            m=open_m * (1 - m) - shut_m * m,
            h=open_h * (1 - h) - shut_h * h,
            n=open_n * (1 - n) - shut_n * n,
        )


class FitzHughNagumo(System):
    """v' = v - v^3/3 - w + I, w' = (v + a - b w) / tau."""

    states = (Quantity("v", "1", range=(-2.5, 2.5)), Quantity("w", "1", range=(-1.5, 2.5)))
    inputs = (Quantity("I", "1", range=(-1.0, 3.0)),)
    constants = (Quantity("a", "1"), Quantity("b", "1"), Quantity("tau", "1"))

    def __init__(self, a: Values = 0.7, b: Values = 0.8, tau: Values = 12.5):
        super().__init__()
        self.register_constants(a=a, b=b, tau=tau)

    def vector_field(self, t, x, u):
        v, w = self.split(x).values()
        return self.join(v=v - v**3 / 3 - w + u, w=(v + self.a - self.b * w) / self.tau)


class JansenRit(System):
    """Jansen & Rit 1995; p is the input rate."""

    time_unit = "s"
    states = (
        Quantity("y0", "mV", range=(0.0, 0.2)),
        Quantity("y1", "mV", range=(-10.0, 40.0)),
        Quantity("y2", "mV", range=(-10.0, 30.0)),
        Quantity("z0", "mV/s", range=(-10.0, 10.0)),
        Quantity("z1", "mV/s", range=(-1000.0, 1000.0)),
        Quantity("z2", "mV/s", range=(-1000.0, 1000.0)),
    )
    inputs = (Quantity("p", "1/s", range=(0.0, 320.0)),)

    def vector_field(self, t, x, u):
        y0, y1, y2, z0, z1, z2 = self.split(x).values()
        A, B, a, b, C = 3.25, 22.0, 100.0, 50.0, 135.0

        def pulses(v):
            return 5 * torch.sigmoid(0.56 * (v - 6))

        excitation = u + 0.8 * C * pulses(C * y0)
        inhibition = 0.25 * C * pulses(0.25 * C * y0)
        return self.join(
            y0=z0,
            y1=z1,
            y2=z2,
            z0=A * a * pulses(y1 - y2) - 2 * a * z0 - a * a * y0,
            z1=A * a * excitation - 2 * a * z1 - a * a * y1,
            z2=B * b * inhibition - 2 * b * z2 - b * b * y2,
        )


class WongWang(System):
    """Wong & Wang 2006, reduced to two gating variables."""

    time_unit = "s"
    states = (Quantity("S1", "1", range=(0.0, 1.0)), Quantity("S2", "1", range=(0.0, 1.0)))
    inputs = (Quantity("mu", "Hz"), Quantity("coherence", "1"))

    def vector_field(self, t, x, u):
        S1, S2 = self.split(x).values()
        mu, coherence = u[..., :1], u[..., 1:] / 100

        def rise(S, current):
            drive = 270 * current - 108
            return -S / 0.1 + (1 - S) * 0.641 * drive / (1 - torch.exp(-0.154 * drive))

        own = 0.2609 * S1 - 0.0497 * S2 + 0.3255 + 5.2e-4 * mu * (1 + coherence)
        other = 0.2609 * S2 - 0.0497 * S1 + 0.3255 + 5.2e-4 * mu * (1 - coherence)
        return self.join(S1=rise(S1, own), S2=rise(S2, other))


class WilsonCowanNetwork(System):
    """Excitation and inhibition in regions; excitation couples them through W >= 0."""

    inputs = (Quantity("drive", "1"),)
    constants = (Quantity("coupling", "1"),)

    def __init__(self, W, coupling: Values = 1.0):
        super().__init__()
        labels = tuple(f"r{i}" for i in range(len(W)))
        self.states = (
            Quantity("E", "1", labels=labels, range=(0.0, 1.0)),
            Quantity("I", "1", labels=labels, range=(0.0, 1.0)),
        )
        self.register_buffer("W", torch.as_tensor(W))
        self.register_constants(coupling=coupling)

    def vector_field(self, t, x, u):
        E, I = self.split(x).values()
        excited = 16 * E - 12 * I + self.coupling * (E @ self.W.T) + u
        return self.join(
            E=torch.sigmoid(1.3 * (excited - 4)) - E,
            I=torch.sigmoid(2 * (15 * E - 3 * I - 3.7)) - I,
        )


@pytest.fixture(scope="session")
def published() -> SimpleNamespace:
    """The classes of the published systems."""
    return SimpleNamespace(
        MorrisLecar=MorrisLecar,
        HodgkinHuxley=HodgkinHuxley,
        FitzHughNagumo=FitzHughNagumo,
        JansenRit=JansenRit,
        WongWang=WongWang,
        WilsonCowanNetwork=WilsonCowanNetwork,
    )
