"""Small systems with units, for the tests of the check."""

import torch

from clinode.system import Event, Quantity, System


class MorrisLecar(System):
    """Morris & Lecar 1981, in units of membrane area."""

    time_unit = "ms"
    states = (Quantity("V", "mV", default=-60.0), Quantity("w", "1", default=0.1))
    inputs = (Quantity("I", "uA/cm^2", default=0.0),)
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
        Quantity("t_ref", "ms"),
        Quantity("V_th", "mV"),
        Quantity("D", "mV/ms**0.5"),
    )

    def __init__(self, **changes):
        super().__init__()
        values = {
            **{"C": 20.0, "g_Ca": 4.4, "g_K": 8.0, "g_L": 2.0, "E_Ca": 120.0, "E_K": -84.0},
            **{"E_L": -60.0, "V1": -1.2, "V2": 18.0, "V3": 2.0, "V4": 30.0, "phi": 0.04},
            **{"t_ref": 2.0, "V_th": 0.0, "D": 0.5},
        }
        self.register_constants(**(values | changes))

    def vector_field(self, t, x, u):
        V, w = self.split(x).values()
        m = (1 + torch.tanh((V - self.V1) / self.V2)) / 2
        w_inf = (1 + torch.tanh((V - self.V3) / self.V4)) / 2
        rate = self.phi * torch.cosh((V - self.V3) / (2 * self.V4))
        leak = self.g_L * (V - self.E_L)
        current = self.g_Ca * m * (V - self.E_Ca) + self.g_K * w * (V - self.E_K) + leak
        return self.join(V=(u - current) / self.C, w=rate * (w_inf - w))

    def noise(self, t, x, u):
        return torch.cat([self.D.expand_as(x[..., :1]), torch.zeros_like(x[..., 1:])], dim=-1)

    def _guard(self, t, x):
        return x[..., :1] - self.V_th

    def _reset(self, x):
        return self.join(V=self.E_L, w=self.split(x)["w"] / 2)

    events = (Event("spike", _guard, _reset, refractory="t_ref", held=("V",)),)


class Network(System):
    """tau dE/dt = -E + sigmoid(W E + drive), with W a buffer of numbers."""

    time_unit = "s"
    inputs = (Quantity("drive", "1"),)

    def __init__(self, W, unit="Hz"):
        super().__init__()
        labels = tuple(f"r{i}" for i in range(len(W)))
        self.states = (Quantity("E", unit, labels=labels),)
        self.constants = (Quantity("tau", "s"), Quantity("E_max", "Hz"), Quantity("theta", "Hz"))
        self.register_buffer("W", torch.as_tensor(W).double())
        self.register_constants(tau=0.1, E_max=50.0, theta=10.0)

    def vector_field(self, t, x, u):
        received = x @ self.W.T / self.theta + u
        return (self.E_max * torch.sigmoid(received) - x) / self.tau
