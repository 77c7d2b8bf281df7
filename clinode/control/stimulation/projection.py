"""The nearest stimulus within limits, for many stimuli at once.

Amplitude, slew, balance and energy are convex, and the nearest point of each alone is a formula.
The alternating direction method of multipliers (Boyd et al. 2011, Found Trends Mach Learn 3:1-122)
makes them agree, a soft threshold among them where |v| has a price. What is left when it stops is
scaled away, so that the result keeps the limits to rounding. Charges of phases are not convex and
not treated here.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from clinode.control.stimulation.course import charge_weights
from clinode.errors import ArgumentError

ROUNDS = 1000  # of the method of multipliers, at most
SETTLED = 1e-10  # disagreement and change of a round, relative to the result, that end it
RELAXED = 1.6  # over-relaxation


@dataclass(frozen=True, eq=False)
class Bounds:
    """Limits as numbers of given inputs; infinite where there is none.

    Attributes:
        amplitude: (input,).
        slew: (input,), per time unit.
        charge: (input,), of one phase, the smallest of what charge, density and k allow.
        energy: Of all inputs together.
        balanced: Whether the integral of each input is zero.
        one_sided: Whether no input falls below its baseline.
    """

    amplitude: Float[np.ndarray, " input"]
    slew: Float[np.ndarray, " input"]
    charge: Float[np.ndarray, " input"]
    energy: float
    balanced: bool
    one_sided: bool


def project_values(values: np.ndarray, knots: np.ndarray, hold: str, bounds: Bounds) -> np.ndarray:
    """The nearest values (knot, input) within the bounds, charges of phases left alone."""
    project = Projection(knots, hold, bounds)
    return project(torch.as_tensor(values, dtype=torch.float64)).numpy().copy()


class Projection:
    """Nearest values at given knots within bounds, over any batch axes.

    Distances are mean squares over time with each value standing for the time around its knot; so
    is the energy, which for lines is an upper bound of the exact one. Lines begin and end at zero,
    steps end there.

    Args:
        knots: (knot,), increasing.
        hold: "previous" or "linear".
        bounds: Of the inputs.

    Raises:
        ArgumentError: A slew limit for steps.
    """

    def __init__(self, knots: np.ndarray, hold: str, bounds: Bounds):
        self.has_slew = bool(np.isfinite(bounds.slew).any())
        if hold == "previous" and self.has_slew:
            raise ArgumentError(
                "a step breaks every slew limit", fix="hold='linear', or pulses with a ramp"
            )
        self.balanced, self.energy = bounds.balanced, bounds.energy
        weights = charge_weights(knots, hold)
        self.weights = torch.tensor(weights).unsqueeze(-1)
        is_free = weights > 0
        if hold == "linear":
            is_free[[0, -1]] = False
        high = np.where(is_free[:, None], bounds.amplitude, 0.0)
        self.high = torch.tensor(high)
        self.low = torch.zeros_like(self.high) if bounds.one_sided else -self.high
        self.rise = torch.tensor(np.diff(knots)[:, None] * bounds.slew)
        self.is_plain = not (self.has_slew or self.balanced or math.isfinite(self.energy))
        self.is_free = is_free

    def __call__(
        self, values: Float[Tensor, "*batch knot input"], threshold: Tensor | float | None = None
    ) -> Float[Tensor, "*batch knot input"]:
        """The nearest values; with a threshold those that minimise distance^2 / 2 + threshold |v|.

        Args:
            values: Deviations from the baseline.
            threshold: Broadcast against the values; none without sparsity.
        """
        if self.is_plain:
            return self._box(values, threshold)
        # The further outside, the stiffer the tie: prices grow by the size of the set a round.
        inside = self._within_energy(self._box(values, None)).abs().amax(dim=(-2, -1))
        far = values.abs().amax(dim=(-2, -1)) / inside.clamp(min=1e-300)
        ties = 4.0 ** far.clamp(1.0, 1e6).log2().div(2).round()
        limit = None if threshold is None else torch.as_tensor(threshold).expand(values.shape)
        found = torch.zeros_like(values)
        for tie in ties.unique().tolist():
            group = ties == tie
            found[group] = self._agreed(values[group], None if limit is None else limit[group], tie)
        return self._exactly(found)

    def _agreed(self, values: Tensor, threshold: Tensor | None, tie: float) -> Tensor:
        """Where all limits agree, each stimulus until its own end."""
        parts = [lambda v: self._box(v, None if threshold is None else threshold / tie)]
        parts += [self._within_energy] if math.isfinite(self.energy) else []
        joining = self._joining(len(parts), tie)
        x, copies = values, [values for _ in parts]
        prices = [torch.zeros_like(values) for _ in parts]
        rises, rise_price = values.diff(dim=-2), torch.zeros_like(values[..., 1:, :])
        moves = torch.ones_like(values[..., :1, :1], dtype=torch.bool)
        for _ in range(ROUNDS):
            tied = sum(copy - price for copy, price in zip(copies, prices, strict=True))
            right = self.weights * (values + tie * tied)
            if self.has_slew:
                wanted = tie * self.weights.mean() * (rises - rise_price)
                right = right - pad(wanted, (0, 0, 0, 1)) + pad(wanted, (0, 0, 1, 0))
            found = joining @ right if joining.ndim == 2 else joining.unsqueeze(-1) * right
            gaps = []
            for i, nearest in enumerate(parts):
                relaxed = RELAXED * found + (1 - RELAXED) * copies[i]
                new = nearest(relaxed + prices[i])
                prices[i] = prices[i] + relaxed - new
                gaps += [new - copies[i], new - found]
                copies[i] = new
            if self.has_slew:
                relaxed = RELAXED * found.diff(dim=-2) + (1 - RELAXED) * rises
                rises = (relaxed + rise_price).clamp(-self.rise, self.rise)
                rise_price = rise_price + relaxed - rises
                gaps.append(rises - found.diff(dim=-2))
            x = torch.where(moves, found, x)  # a stimulus does not depend on its batch mates
            change = torch.stack([_largest(gap) for gap in gaps]).amax(dim=0)
            moves = moves & (change > SETTLED * _largest(found))
            if not moves.any():
                break
        return x

    def _joining(self, n_parts: int, tie: float) -> Tensor:
        """The inverse that joins the copies: on free knots, balanced where that is asked.

        (knot,) where each knot stands alone, else (knot, knot).
        """
        weights = self.weights[:, 0].numpy()
        total = (1 + n_parts * tie) * weights
        if not (self.has_slew or self.balanced):
            return torch.tensor(np.where(self.is_free, 1 / np.where(self.is_free, total, 1.0), 0.0))
        matrix = np.diag(total)
        if self.has_slew:
            difference = np.diff(np.eye(len(weights)), axis=0)
            matrix = matrix + tie * weights.mean() * difference.T @ difference
        inverse = np.zeros_like(matrix)
        free = np.flatnonzero(self.is_free)
        inverse[free[:, None], free] = np.linalg.inv(matrix[free][:, free])
        if self.balanced:
            column = inverse @ weights
            inverse -= np.outer(column, column) / (weights @ column)
        return torch.tensor(inverse)

    def _box(self, v: Tensor, threshold: Tensor | float | None) -> Tensor:
        if threshold is not None:
            v = v.sign() * (v.abs() - threshold).clamp(min=0)  # then the box: zero lies in it
        return v.clamp(self.low, self.high)

    def _within_energy(self, v: Tensor) -> Tensor:
        if not math.isfinite(self.energy):
            return v
        energy = (self.weights * v**2).sum(dim=(-2, -1), keepdim=True)
        return v * (self.energy / energy.clamp(min=self.energy)).sqrt()

    def _exactly(self, v: Tensor) -> Tensor:
        """What rounding and an unfinished round left over scaled away; nothing grows."""
        v = v.clamp(self.low, self.high)
        if self.balanced:
            charge = self.weights * v
            above = charge.clamp(min=0).sum(dim=-2, keepdim=True)
            below = -charge.clamp(max=0).sum(dim=-2, keepdim=True)
            least = torch.minimum(above, below)
            up, down = (least / torch.where(s > 0, s, 1.0) for s in (above, below))
            v = torch.where(v > 0, v * up, v * down)
        if self.has_slew:
            over = (v.diff(dim=-2).abs() / self.rise).amax(dim=-2, keepdim=True)
            v = v / over.clamp(min=1.0)
        return self._within_energy(v)


def _largest(values: Tensor) -> Tensor:
    """The largest size, over knots and inputs."""
    return values.abs().amax(dim=(-2, -1), keepdim=True)
