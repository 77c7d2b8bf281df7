"""Dynamic programming over beliefs: expectations by quadrature, minima by search. Small problems.

    J(k, b) = min_u  E cost(k, x, u) + E_y J(k + 1, b after u and y)

One input and one reading a step. The reading spreads the mean along one direction, by a normal
number, whose density is integrated by Gauss & Legendre's rule on panels: the cost to come bends
sharply where a gain may be zero, between the few nodes that Gauss & Hermite's rule has there. At
the last step the cost of an input is a parabola where the motion is linear in it, which is checked;
elsewhere, as probing makes costs with several minima, inputs over six decades of both signs are
looked at and the best bracket is narrowed.
"""

import math

import numpy as np
import torch
from torch import Tensor

from .belief import Filter

DECADES, PER_DECADE = 6, 5
GOLDEN = (math.sqrt(5) - 1) / 2
NARROWINGS = 36
PANEL, TAIL = 8, 8.5  # nodes of a panel; standard deviations beyond which nothing is counted
PARABOLIC = 1e-9  # relative misfit of a parabola that is one


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
        return self.best(k, flat)[0].reshape(*belief.shape[:-1], 1)

    def best(self, k: int, belief: Tensor) -> tuple[Tensor, Tensor]:
        """The best input (belief, input) and its cost (belief)."""
        u, cost, fits = self._parabola(k, belief)
        if k == self.last and bool(fits.all()):
            return u, cost
        return self._search(k, belief, u)

    def cost(self, k: int, belief: Tensor, u: Tensor) -> Tensor:
        """Of an input at step k and the best ones after it, (belief)."""
        return self._now(k, belief, u) + self._later(k, belief, u)

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

    def _parabola(self, k: int, belief: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where the cost of this step alone is least, that cost, and whether it is a parabola."""

        def cost(u: Tensor) -> Tensor:
            before = self.filter.predicted(k, belief, u)
            mean, S = self.filter.split(before)
            end = self.stages.final(mean) + (self.stages.curvature(mean, True) * S).sum((-1, -2))
            return self._now(k, belief, u) + end

        one = self.stages.rest.expand(len(belief), 1)
        below, here, above = cost(one - 1), cost(one), cost(one + 1)
        bend = (below + above - 2 * here) / 2
        slope = (above - below) / 2
        usable = bend > 1e-12 * here.abs()
        shift = torch.where(usable, -slope / (2 * torch.where(usable, bend, 1.0)), 0.0)
        u = self.stages.clipped(one + shift.unsqueeze(-1))
        shift = (u - one).squeeze(-1)
        found = cost(u)
        expected = here + slope * shift + bend * shift**2
        fits = usable & ((found - expected).abs() <= PARABOLIC * (here.abs() + expected.abs()))
        return u, found, fits

    def _search(self, k: int, belief: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        rest = self.stages.rest
        size = (near - rest).abs()
        size = torch.where(size > 0, size, 1.0)
        powers = torch.linspace(-DECADES / 2, DECADES / 2, DECADES * PER_DECADE + 1)
        steps = 10.0 ** powers.double()
        steps = torch.cat([-steps.flip(0), torch.zeros(1).double(), steps])
        grid = self.stages.clipped(rest + size * steps)  # (belief, candidate); one input
        costs = self._all(k, belief, grid)
        best = costs.argmin(-1, keepdim=True)
        low = grid.gather(-1, (best - 1).clamp(min=0))
        high = grid.gather(-1, (best + 1).clamp(max=len(steps) - 1))
        low, high = self._narrowed(k, belief, low, high)
        u = (low + high) / 2
        cost = self.cost(k, belief, u)
        start = grid.gather(-1, best)
        better = (costs.gather(-1, best).squeeze(-1) < cost).unsqueeze(-1)
        return torch.where(better, start, u), torch.minimum(costs.amin(-1), cost)

    def _narrowed(self, k: int, belief: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Golden sections of a bracket, (belief, 1) each."""
        a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        at_a, at_b = self.cost(k, belief, a), self.cost(k, belief, b)
        for _ in range(NARROWINGS):
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
