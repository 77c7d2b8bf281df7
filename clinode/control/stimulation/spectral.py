"""Spectral projected gradients: the least of many smooth costs over a convex set, all at once.

Birgin, Martinez & Raydan 2000 (SIAM J Optim 10:1196-1211), with a soft threshold where |v| has a
price, as in Wright, Nowak & Figueiredo 2009 (IEEE Trans Signal Process 57:2479-2493). Every problem
of a batch has its own step lengths and its own end; it does not notice its mates.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clinode.control.stimulation.projection import Projection

MEMORY = 5  # costs of which the largest bounds the next: what lets spectral steps be long
ARMIJO = 1e-4
SHORTEST = 1e-10  # share of a step at which no descent is left
STALLED = 1e-14  # relative gain promised by a step, below which rounding rules
RANGE = 1e3  # of step lengths around the first
WORDS = ("stopped", "converged", "stalled", "not finite")
STOPPED, CONVERGED, NO_DESCENT, NOT_FINITE = range(4)

Stimuli = Float[Tensor, "*batch knot input"]
Costs = Float[Tensor, "*batch"]


class SpectralSearch:
    """A search on its way; what it holds is the best found so far.

    Args:
        gradient: Smooth costs and their derivatives.
        smooth: The costs alone.
        project: The nearest stimuli within the limits, and with a threshold.
        weights: (knot, 1): of each knot in integrals over time, in which lengths are measured.
        sparsity: Price of the integral of |v|.
        v: The start, within the limits.

    Attributes:
        v: (*batch, knot, input).
        cost: With the price of |v|.
        cost_before: That of the start.
        residual: Length of the projected gradient relative to that at the start.
        n_iterations: (*batch).
        status: (*batch), positions in `WORDS`.
    """

    def __init__(
        self,
        gradient: Callable[[Tensor], tuple[Tensor, Tensor]],
        smooth: Callable[[Tensor], Tensor],
        project: Projection,
        weights: Tensor,
        sparsity: float,
        v: Stimuli,
    ):
        self.gradient, self.smooth, self.project = gradient, smooth, project
        self.weights, self.sparsity, self.v = weights, sparsity, v
        value, self.slope = self._look(v)
        self.cost = self.cost_before = value + self._price(v)
        self.past = self.cost.unsqueeze(0)
        self.status = torch.where(self.cost.isfinite(), STOPPED, NOT_FINITE)
        self.n_iterations = torch.zeros_like(self.status)
        size = self._length(self.slope)
        self.alpha = self.first = self._first_step(size)
        self.start = self._length(self._step()) / self.alpha.clamp(min=1e-300)
        self.residual = torch.ones_like(self.cost)

    def run(self, max_iterations: int, tolerance: float) -> None:
        """Iterate until every problem has converged or stalled, at most so often."""
        for _ in range(max_iterations):
            step = self._step()
            length = self._length(step)
            going = self.status == STOPPED
            # Of a step of the first length at least: a long one ends at the limits, and its length
            # says nothing about optimality.
            unit = torch.minimum(self.alpha, self.first) * self.start.clamp(min=1e-300)
            self.residual = torch.where(going, length / unit, self.residual)
            there = going & ((self.residual <= tolerance) | (length == 0))
            self.status = torch.where(there, CONVERGED, self.status)
            going = going & ~there
            if not going.any():
                return
            self._advance(step, going)

    def words(self) -> np.ndarray:
        """The status in words, (*batch)."""
        return np.asarray(np.array(WORDS)[self.status.numpy()])

    def _step(self) -> Stimuli:
        """To the projected end of a step of the present length."""
        alpha = self.alpha[..., None, None]
        threshold = alpha * self.sparsity if self.sparsity else None
        return self.project(self.v - alpha * self.slope, threshold) - self.v

    def _advance(self, step: Stimuli, going: Bool[Tensor, "*batch"]) -> None:
        """Back along the step until the cost falls enough; then the next step's length."""
        promised = self._inner(self.slope, step) + self._price(self.v + step) - self._price(self.v)
        bar = self.past.amax(dim=0)
        share = torch.where(going, 1.0, 0.0).double()
        pending = going
        while pending.any():
            moved = self.v + share[..., None, None] * step
            cost = self.smooth(moved) + self._price(moved)
            enough = cost <= bar + ARMIJO * share * promised
            pending = pending & ~enough & (share > SHORTEST)
            share = torch.where(pending, share / 2, share)
        tiny = going & ((share <= SHORTEST) | (promised.abs() <= STALLED * self.cost.abs()))
        self.status = torch.where(tiny, NO_DESCENT, self.status)
        share = torch.where(tiny, 0.0, share)
        self._accept(share[..., None, None] * step, going & ~tiny)

    def _accept(self, move: Stimuli, going: Bool[Tensor, "*batch"]) -> None:
        v = self.v + move
        value, slope = self._look(v)
        change = slope - self.slope
        squared, curvature = self._inner(move, move), self._inner(move, change)
        spectral = squared / torch.where(curvature > 0, curvature, squared / self.alpha / 10)
        spectral = spectral.clamp(self.first / RANGE, self.first * RANGE)
        self.alpha = torch.where(going & (squared > 0), spectral, self.alpha)
        keep = going[..., None, None]
        self.v, self.slope = torch.where(keep, v, self.v), torch.where(keep, slope, self.slope)
        self.cost = torch.where(going, value + self._price(v), self.cost)
        self.past = torch.cat([self.past, self.cost.unsqueeze(0)])[-MEMORY:]
        self.n_iterations = self.n_iterations + going.long()

    def _look(self, v: Stimuli) -> tuple[Costs, Stimuli]:
        """Smooth costs, and their gradients in the metric of integrals over time."""
        value, slope = self.gradient(v)
        slope = torch.where(self.weights > 0, slope / self.weights, 0.0)
        return value, slope

    def _first_step(self, size: Costs) -> Costs:
        """Of the largest stimulus allowed, or of one whose promise is all of the cost."""
        with_energy = self.cost.abs() / size.square().clamp(min=1e-300)
        return torch.where(size > 0, with_energy, 1.0)

    def _inner(self, a: Stimuli, b: Stimuli) -> Costs:
        return (self.weights * a * b).sum(dim=(-2, -1))

    def _length(self, a: Stimuli) -> Costs:
        return self._inner(a, a).sqrt()

    def _price(self, v: Stimuli) -> Costs:
        if not self.sparsity:
            return torch.zeros(v.shape[:-2], dtype=v.dtype)
        return self.sparsity * (self.weights * v.abs()).sum(dim=(-2, -1))
