"""A network of rate units with free weights: what a recording of regions is learned as.

Each region is one unit that is seen and one hidden partner of its own, and a small network, the
same for all regions, corrects both. Its field is decay plus bounded terms, so an equilibrium exists
under every constant stimulation.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Quantity, System, Time

State = Float[Tensor, "... state"]

CONSTANTS = ("b", "gain", "wee", "wei", "wie", "wii", "bh", "tau", "tau_h")
WEIGHTS = ("W", *CONSTANTS, "inward", "own", "outward", "shift")
"""Names of the weights: those of the two equations, then of the correction that regions share."""


class RateNetwork(System):
    """Seen units x with hidden partners h, coupled by free weights; r is what regions share.

        a         = W x + b + gain u / input scale
        tau dx/dt   = -x + tanh(a + wee x + wei h) + r1(x, h, a)
        tau_h dh/dt = -h + tanh(wie x + wii h + bh) + r2(x, h, a)
        r         = tanh((x, h, a) inward + own) outward + shift
        y         = center + spread x

    All but `inward`, `outward` and `shift` differ by region. A stimulus enters in the region where
    it is applied and nowhere else. The field is in region space: its weights can be read, though
    h is known only up to its sign and scale.

    Args:
        weights: By the names in `WEIGHTS`: W (region, region), W[i, j] of j on i; those of
            `CONSTANTS` (region,), time constants in seconds; inward (3, width), own (region,
            width), outward (width, 2), shift (2,).
        center: (region,), outputs at x = 0, in the recording's unit.
        spread: (region,), the recording's unit for one of x.
        input_scale: The input's unit for one of u, positive.
        regions: Names.
        stimulated: Names of the regions that have an input.
        unit: Of the recorded values.

    Raises:
        ArgumentError: A weight is missing, or a stimulated region is none of the regions.
    """

    latent = True
    time_unit = "s"

    def __init__(
        self,
        weights: dict[str, Tensor],
        *,
        center: Float[Tensor, " region"],
        spread: Float[Tensor, " region"],
        input_scale: float,
        regions: Sequence[str],
        stimulated: Sequence[str],
        unit: str = "1",
    ):
        super().__init__()
        missing = [name for name in WEIGHTS if name not in weights]
        if missing:
            raise ArgumentError(f"a rate network needs the weight {missing[0]!r}")
        unknown = [name for name in stimulated if name not in regions]
        if unknown:
            raise ArgumentError(f"the stimulated region {unknown[0]!r} is none of the regions")
        labels = tuple(regions)
        # |x| <= 1 + sup |r|: where decay and the bounded terms balance at the latest
        bound = 1.0 + float((weights["outward"].abs().sum(0) + weights["shift"].abs()).max())
        self.states = tuple(
            Quantity(name, "1", labels, range=(-bound, bound), default=0.0) for name in ("x", "h")
        )
        if stimulated:
            reach = (-3 * input_scale, 3 * input_scale)
            self.inputs = (Quantity("stimulus", "1", tuple(stimulated), range=reach),)
        self.outputs = (Quantity("activity", unit, labels),)
        for name in WEIGHTS:
            self.register_buffer(name, weights[name].detach().double())
        self.register_buffer("center", center.detach().double())
        self.register_buffer("spread", spread.detach().double())
        self.register_buffer("input_scale", torch.tensor(float(input_scale)).double())
        places = torch.tensor([labels.index(name) for name in stimulated], dtype=torch.long)
        self.register_buffer("enters", torch.eye(len(labels)).double()[places])

    def vector_field(self, t: Time, x: State, u: Float[Tensor, "... input"]) -> State:
        """Rates of change, per second, as in the class's docstring."""
        seen, hidden = x.chunk(2, dim=-1)
        a = seen @ self.W.T + self.b + self.gain * (u @ self.enters) / self.input_scale
        seen, hidden, a = torch.broadcast_tensors(seen, hidden, a)
        read = torch.stack([seen, hidden, a], dim=-1)
        r = torch.tanh(read @ self.inward + self.own) @ self.outward + self.shift
        to_seen = torch.tanh(a + self.wee * seen + self.wei * hidden)
        to_hidden = torch.tanh(self.wie * seen + self.wii * hidden + self.bh)
        rate_seen = (-seen + to_seen + r[..., 0]) / self.tau
        rate_hidden = (-hidden + to_hidden + r[..., 1]) / self.tau_h
        return torch.cat([rate_seen, rate_hidden], dim=-1)

    def output(
        self, t: Time, x: State, u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The regions' recorded values, in their unit."""
        return self.center + self.spread * x[..., : len(self.center)]
