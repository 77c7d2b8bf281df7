"""How long noise takes to carry a state out of a region: first exit times, by simulation.

Steps miss crossings between their ends, so that exits seem late by a term in the square root of the
step. Here each face is also asked whether the Brownian bridge between both ends has touched it
(Gobet 2000, Stoch. Process. Appl. 87:167-197), which leaves an error in the step itself. The drift
is averaged over the step, for Euler's would warm the bottom of a well, and escape is exponential in
temperature; the noise is that at its beginning, as Ito's integral has it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinode.errors import ArgumentError, SolverError
from clinode.statistics import Estimate
from clinode.system import System, Values

from .basins import smooth_field
from .box import state_members
from .equilibria import Equilibrium

LEVEL = 1.959963985  # standard errors to either side in 95 of 100 cases


@dataclass(frozen=True, eq=False)
class EscapeTimes:
    """First exit times of a sample of noisy trajectories.

    Attributes:
        times: (trial,), in time units; NaN where the trajectory was still inside at the end.
        mean: Mean first exit time, with its 95 % interval; a lower bound, and said so, where some
            trajectories were still inside.
        rate: One over the mean.
        inside: Trajectories that did not leave.
        time_unit: Unit of the times.
    """

    times: np.ndarray
    mean: Estimate
    rate: float
    inside: int
    time_unit: str

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        mean = {"value": self.mean.value, "low": self.mean.low, "high": self.mean.high}
        return {
            "mean": mean | {"verdict": self.mean.verdict},
            "rate": self.rate,
            "inside": self.inside,
            "time_unit": self.time_unit,
            "times": [None if math.isnan(t) else t for t in self.times.tolist()],
        }


def escape_times(
    system: System,
    start: Equilibrium | Values,
    region: Mapping[str, tuple[float, float]],
    u: Any = None,
    *,
    n: int = 1000,
    step: float,
    horizon: float,
    generator: torch.Generator,
) -> EscapeTimes:
    """Simulate noisy trajectories from a state until each has left a region.

    Args:
        system: With `noise`; Ito. Its state does not jump.
        start: Where all begin: an equilibrium, or a state (state,).
        region: For some states the (low, high) to leave; either may be infinite. Of a system of one
            state with two wells: from minus infinity to the barrier, or to the other well.
        u: The constant input; that of the equilibrium by default.
        n: Trajectories.
        step: In time units; short against the fastest time constant.
        horizon: Time after which a trajectory is given up.
        generator: Draws the noise.

    Raises:
        ArgumentError: A system without noise or that jumps, a start outside the region, a region
            that names no state, a step, horizon or n that is not positive.
        SolverError: A state that is not finite.
    """
    if isinstance(start, Equilibrium):
        u, x0 = (start.u if u is None else u), start.state.detach()
    else:
        u, x0 = (0.0 if u is None else u), torch.as_tensor(start, dtype=torch.float64)
    if system.noise is None:
        raise ArgumentError(
            f"{type(system).__name__} has no noise, so it never leaves an attractor",
            fix="give it a method noise(t, x, u)",
        )
    if n < 2 or not (0 < step < horizon < math.inf):
        raise ArgumentError(
            f"n of at least 2 and 0 < step < horizon expected, got {n}, {step} and {horizon}"
        )
    walls = _Walls(system, region)
    if x0.shape != (system.n_states,) or walls.outside(x0[None]).any():
        raise ArgumentError(f"the start is not a state of {system.n_states} values in the region")
    field = smooth_field(system, u)
    x, times = x0.repeat(n, 1), torch.full((n,), math.nan, dtype=torch.float64)
    active = torch.arange(n)
    with torch.no_grad():
        for k in range(math.ceil(horizon / step)):
            g = field.noise(x)
            rate, kick = field(x), _kick(g, x, step, generator)
            after = x + step / 2 * (rate + field(x + step * rate + kick)) + kick
            if not after.isfinite().all():
                raise SolverError(
                    f"a state is not finite at t = {(k + 1) * step:.6g}", fix="a shorter step"
                )
            out = walls.crossed(x, after, _variance(g, x) * step, generator)
            times[active[out]] = (k + 0.5) * step
            x, active = after[~out], active[~out]
            if not len(active):
                break
    return _summary(times.numpy(), horizon, system.time_unit)


class _Walls:
    """The faces of a region."""

    def __init__(self, system: System, region: Mapping[str, tuple[float, float]]):
        self.low = torch.full((system.n_states,), -math.inf, dtype=torch.float64)
        self.high = torch.full((system.n_states,), math.inf, dtype=torch.float64)
        for name, (low, high) in region.items():
            if not low < high:
                raise ArgumentError(f"region of '{name}': low < high expected, got ({low}, {high})")
            self.low[state_members(system, name)] = float(low)
            self.high[state_members(system, name)] = float(high)
        if not (self.low.isfinite() | self.high.isfinite()).any():
            raise ArgumentError("the region has no face to leave through")

    def outside(self, x: Tensor) -> Tensor:
        """Which rows have left."""
        return ((x <= self.low) | (x >= self.high)).any(dim=-1)

    def crossed(self, x: Tensor, after: Tensor, variance: Tensor, draw: torch.Generator) -> Tensor:
        """Which rows leave in a step from x to `after`, at its end or in between."""
        out = self.outside(after)
        for face in (self.low, self.high):
            product = (x - face) * (after - face)  # both inside: positive
            chance = torch.exp(-2 * product.clamp(min=0) / variance.clamp(min=1e-300))
            chance = torch.where(face.isfinite(), chance, 0.0)
            uniform = torch.rand(chance.shape, generator=draw, dtype=torch.float64)
            out |= (uniform < chance).any(dim=-1)
        return out


def _kick(g: Tensor, x: Tensor, step: float, generator: torch.Generator) -> Tensor:
    if g.ndim > 1 and g.ndim == x.ndim + 1:
        draw = torch.randn(len(x), g.shape[-1], 1, generator=generator, dtype=torch.float64)
        return math.sqrt(step) * (g @ draw).squeeze(-1)
    draw = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return math.sqrt(step) * g * draw


def _variance(g: Tensor, x: Tensor) -> Tensor:
    """Of each state per time unit, (row, state)."""
    squared = g.square()
    return squared.sum(dim=-1) if g.ndim == x.ndim + 1 else squared.expand_as(x)


def _summary(times: np.ndarray, horizon: float, time_unit: str) -> EscapeTimes:
    left = np.isfinite(times)
    inside = int((~left).sum())
    if not left.any():
        mean = Estimate.undefined(f"no trajectory left within {horizon:g}")
        return EscapeTimes(times, mean, math.nan, inside, time_unit)
    seen = np.where(left, times, horizon)
    value = float(seen.mean())
    half = LEVEL * float(seen.std(ddof=1)) / math.sqrt(len(seen))
    verdict = "ok" if not inside else f"lower bound: {inside} of {len(times)} did not leave in time"
    return EscapeTimes(
        times, Estimate(value, value - half, value + half, verdict), 1 / value, inside, time_unit
    )
