"""The minimal model of glucose and insulin (Bergman, Ider, Bowden & Cobelli 1979)."""

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.system import Quantity, System, Time, Values


class GlucoseMinimalModel(System):
    """Glucose G, remote insulin action X and insulin I, with insulin and glucose as inputs.

        dG/dt = -(p1 + X) G + p1 G_b + glucose / V_G
        dX/dt = -p2 X + p3 (I - I_b)
        dI/dt = -n (I - I_b) + insulin / V_I

    Bergman et al. 1979, Am J Physiol 236:E667-E677, with the insulin compartment of Fisher 1991,
    IEEE Trans Biomed Eng 38:57-61, in which nothing but the basal secretion I_b remains of the
    pancreas. An insulin bolus is an impulse in mU.
    """

    time_unit = "min"
    states = (
        Quantity("G", "mg/dL", range=(20.0, 600.0), default=92.0),
        Quantity("X", "1/min", range=(-0.01, 0.2), default=0.0),
        Quantity("I", "mU/L", range=(0.0, 1000.0), default=11.0),
    )
    inputs = (
        Quantity("insulin", "mU/min", range=(0.0, 200.0), default=0.0),
        Quantity("glucose", "mg/min", range=(0.0, 1000.0), default=0.0),
    )
    constants = (
        Quantity("p1", "1/min"),
        Quantity("p2", "1/min"),
        Quantity("p3", "L/mU/min**2"),
        Quantity("n", "1/min"),
        Quantity("G_b", "mg/dL"),
        Quantity("I_b", "mU/L"),
        Quantity("V_G", "dL"),
        Quantity("V_I", "L"),
    )

    def __init__(
        self,
        *,
        p1: Values = 0.028,
        p2: Values = 0.025,
        p3: Values = 1.3e-5,
        n: Values = 5 / 54,
        G_b: Values = 92.0,
        I_b: Values = 11.0,
        V_G: Values = 117.0,
        V_I: Values = 12.0,
    ):
        super().__init__()
        self.register_constants(p1=p1, p2=p2, p3=p3, n=n, G_b=G_b, I_b=I_b, V_G=V_G, V_I=V_I)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Rates of change, as in the class's docstring."""
        G, X, I = (x[..., i : i + 1] for i in range(3))
        insulin, glucose = u[..., :1], u[..., 1:]
        rates = (
            -(self.p1 + X) * G + self.p1 * self.G_b + glucose / self.V_G,
            -self.p2 * X + self.p3 * (I - self.I_b),
            -self.n * (I - self.I_b) + insulin / self.V_I,
        )
        return torch.cat(torch.broadcast_tensors(*rates), dim=-1)
