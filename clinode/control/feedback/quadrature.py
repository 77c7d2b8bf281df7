"""Dynamic programming over beliefs: expectations by quadrature, minima by search. Small problems.

    J(k, b) = min_u  E cost(k, x, u) + E_y J(k + 1, b after u and y)

One input and one reading a step. The reading spreads the mean along one direction, by a normal
number, whose density is integrated by Gauss & Legendre's rule on panels: the cost to come bends
sharply where a gain may be zero, between the few nodes that Gauss & Hermite's rule has there. At
the last step the cost of an input is a parabola where the motion is linear in it, and at every step
where there is nothing to probe; which is checked. Elsewhere, as probing makes costs with several
minima, inputs over decades of both signs are looked at and the best bracket is narrowed.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .belief import Filter

Cost = Callable[[int, Tensor, Tensor], Tensor]  # (k, belief, u)

FINE, COARSE = (6, 5, 28), (4, 4, 18)  # decades, inputs a decade, narrowings: first, later steps
GOLDEN = (math.sqrt(5) - 1) / 2
PANEL, TAIL = 8, 8.5  # nodes of a panel; standard deviations beyond which nothing is counted
PARABOLIC = 1e-9  # relative misfit of a parabola that is one
AT_ONCE = 2**20  # beliefs


class BeliefTree:
    """Costs and best inputs of beliefs after their reading; all in batches (belief, ...).

    Args:
        filter: How beliefs move.
        n_nodes: Of the quadrature over a reading; rounded up to whole panels.
    """

    def __init__(self, filter: Filter, n_nodes: int):
        self.filter, self.stages = filter, filter.stages
        self.last = filter.stages.n_steps - 1
        nodes, weights = _normal_rule(math.ceil(n_nodes / PANEL))
        self.nodes, self.weights = torch.from_numpy(nodes), torch.from_numpy(weights)

    def act(self, k: int, belief: Tensor) -> Tensor:
        """The best input, (..., input)."""
        flat = belief.reshape(-1, belief.shape[-1])
        distinct, which = torch.unique(flat, dim=0, return_inverse=True)
        return self.best(k, distinct)[0][which].reshape(*belief.shape[:-1], 1)

    def best(self, k: int, belief: Tensor) -> tuple[Tensor, Tensor]:
        """The best input (belief, input) and its cost (belief)."""
        parts = [self._best(k, part) for part in belief.split(self._at_once(k))]
        return torch.cat([u for u, _ in parts]), torch.cat([cost for _, cost in parts])

    def cost(self, k: int, belief: Tensor, u: Tensor) -> Tensor:
        """Of an input at step k and the best ones after it, (belief)."""
        return self._now(k, belief, u) + self._later(k, belief, u)

    def _best(self, k: int, belief: Tensor) -> tuple[Tensor, Tensor]:
        at = self.stages.rest.expand(len(belief), 1)
        u, cost, fits = self._least(self._myopic, k, belief, at, 1.0)
        near = u
        if k < self.last:  # where probing gains nothing the whole cost is a parabola as well
            scale = (near - self.stages.rest).abs().clamp(min=1e-3)
            u, cost, fits = self._least(self.cost, k, belief, near, scale.squeeze(-1))
        if bool(fits.all()):
            return u, cost
        return self._search(k, belief, near)

    def _at_once(self, k: int) -> int:
        """How many beliefs may be asked together."""
        below = sum(2 * COARSE[0] * COARSE[1] * len(self.nodes) for _ in range(k, self.last))
        return max(1, AT_ONCE // max(1, below))

    def over_first_reading(self, before: Tensor) -> float:
        """The whole cost, from what is known before the first reading, (belief entries)."""
        filter = self.filter
        mean, _ = filter.split(before)
        after, G = filter.gain(0, before)
        if not bool((G != 0).any()):
            return float(self.best(0, filter.joined(mean, after).unsqueeze(0))[1])
        means = mean + self.nodes.unsqueeze(-1) * G[..., 0]
        costs = self.best(0, filter.joined(means, after))[1]
        return float((self.weights * costs).sum())

    def _now(self, k: int, belief: Tensor, u: Tensor) -> Tensor:
        mean, S = self.filter.split(belief)
        spread = (self.stages.curvature(mean, False) * S).sum((-1, -2))
        return self.stages.cost(k, mean, u) + spread

    def _later(self, k: int, belief: Tensor, u: Tensor) -> Tensor:
        filter = self.filter
        before = filter.predicted(k, belief, u)
        mean, S = filter.split(before)
        if k == self.last:
            return self.stages.final(mean) + (self.stages.curvature(mean, True) * S).sum((-1, -2))
        after, G = filter.gain(k + 1, before)
        means = mean.unsqueeze(-2) + self.nodes.unsqueeze(-1) * G[..., 0].unsqueeze(-2)
        beliefs = filter.joined(means, after.unsqueeze(-3))
        _, costs = self.best(k + 1, beliefs.reshape(-1, beliefs.shape[-1]))
        return (self.weights * costs.reshape(beliefs.shape[:-1])).sum(-1)

    def _myopic(self, k: int, belief: Tensor, u: Tensor) -> Tensor:
        """Cost of an input as if its step were the last."""
        mean, S = self.filter.split(self.filter.predicted(k, belief, u))
        end = (self.stages.curvature(mean, True) * S).sum((-1, -2))
        return self._now(k, belief, u) + self.stages.final(mean) + end

    def _least(
        self, cost: Cost, k: int, belief: Tensor, at: Tensor, size: Tensor | float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The minimum of a parabola through three inputs, its cost, and whether it is one."""
        size = torch.as_tensor(size, dtype=at.dtype)
        step = size.expand(len(at)).unsqueeze(-1)
        below, here, above = (cost(k, belief, at + i * step) for i in (-1, 0, 1))
        bend, slope = (below + above - 2 * here) / 2, (above - below) / 2
        usable = bend > 1e-12 * here.abs()
        shift = torch.where(usable, -slope / (2 * torch.where(usable, bend, 1.0)), 0.0)
        u = self.stages.clipped(at + shift.unsqueeze(-1) * step)
        shift = ((u - at) / step).squeeze(-1)
        found, further = cost(k, belief, u), cost(k, belief, at + 3 * step)
        fits = usable
        for value, place in ((found, shift), (further, 3.0)):
            expected = here + slope * place + bend * place**2
            fits = fits & ((value - expected).abs() <= PARABOLIC * (here.abs() + expected.abs()))
        return u, found, fits

    def _search(self, k: int, belief: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        decades, per_decade, narrowings = COARSE if k else FINE
        rest = self.stages.rest
        size = (near - rest).abs()
        size = torch.where(size > 0, size, 1.0)
        powers = np.linspace(-decades / 2, decades / 2, decades * per_decade + 1)
        steps = torch.from_numpy(10.0**powers)
        steps = torch.cat([-steps.flip(0), torch.zeros(1, dtype=steps.dtype), steps])
        grid = self.stages.clipped(rest + size * steps)  # (belief, candidate); one input
        costs = self._all(k, belief, grid)
        best = costs.argmin(-1, keepdim=True)
        low = grid.gather(-1, (best - 1).clamp(min=0))
        high = grid.gather(-1, (best + 1).clamp(max=len(steps) - 1))
        low, high = self._narrowed(k, belief, low, high, narrowings)
        u = (low + high) / 2
        cost = self.cost(k, belief, u)
        start = grid.gather(-1, best)
        better = (costs.gather(-1, best).squeeze(-1) < cost).unsqueeze(-1)
        return torch.where(better, start, u), torch.minimum(costs.amin(-1), cost)

    def _narrowed(
        self, k: int, belief: Tensor, low: Tensor, high: Tensor, narrowings: int
    ) -> tuple[Tensor, Tensor]:
        """Golden sections of a bracket, (belief, 1) each."""
        a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        at_a, at_b = self.cost(k, belief, a), self.cost(k, belief, b)
        for _ in range(narrowings):
            left = (at_a < at_b).unsqueeze(-1)
            low, high = torch.where(left, low, a), torch.where(left, b, high)
            new = torch.where(left, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
            at_new = self.cost(k, belief, new)
            a, b = torch.where(left, new, b), torch.where(left, a, new)
            side = left.squeeze(-1)
            at_a, at_b = torch.where(side, at_new, at_b), torch.where(side, at_a, at_new)
        return low, high

    def _all(self, k: int, belief: Tensor, grid: Tensor) -> Tensor:
        """Cost of every candidate, (belief, candidate)."""
        count = grid.shape[-1]
        beliefs = belief.unsqueeze(-2).expand(-1, count, -1).reshape(-1, belief.shape[-1])
        return self.cost(k, beliefs, grid.reshape(-1, 1)).reshape(-1, count)


def _normal_rule(n_panels: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for the mean over a standard normal number."""
    inner, weights = np.polynomial.legendre.leggauss(PANEL)
    edges = np.linspace(-TAIL, TAIL, n_panels + 1)
    half = (edges[1] - edges[0]) / 2
    nodes = (edges[:-1, None] + half * (1 + inner)).ravel()
    mass = np.tile(weights, n_panels) * np.exp(-(nodes**2) / 2)
    return nodes, mass / mass.sum()
