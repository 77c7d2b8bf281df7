"""Races of independent accumulators: the first at its threshold makes the choice."""

import math
from abc import abstractmethod

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.behavior.response_times import ResponseModel, Responses, parameter
from clinode.behavior.wald import drawn, log_density, log_survival
from clinode.errors import ArgumentError
from clinode.system import Values

_SMALLEST = 1e-300


class Race(ResponseModel):
    """Two racers that know nothing of each other; racer 1 stands for choice 1, racer 0 for 0."""

    non_decision: Tensor

    @abstractmethod
    def _log_density(self, t: Tensor, racer: int) -> Tensor:
        """Of one racer's own finishing time, at decision times t > 0."""

    @abstractmethod
    def _log_survival(self, t: Tensor, racer: int) -> Tensor:
        """Log probability that one racer has not finished by t > 0."""

    @abstractmethod
    def _finish(self, shape: tuple[int, ...], racer: int, generator: torch.Generator) -> Tensor:
        """Drawn finishing times of one racer; infinite where it never does."""

    def log_prob(self, rt: Values, choice: Values = 1.0) -> Float[Tensor, "*trial"]:
        """Log density of this racer finishing first at this time, 1/s."""
        t = torch.as_tensor(rt, dtype=torch.float64) - self.non_decision
        possible = t > 0
        safe = torch.where(possible, t, 1.0)
        first = self._log_density(safe, 1) + self._log_survival(safe, 0)
        other = self._log_density(safe, 0) + self._log_survival(safe, 1)
        won = torch.where(torch.as_tensor(choice) > 0.5, first, other)
        return torch.where(possible, won, -math.inf)

    def log_survival(self, rt: Values) -> Float[Tensor, "*trial"]:
        """Log probability that neither has finished by this time."""
        t = torch.as_tensor(rt, dtype=torch.float64) - self.non_decision
        safe = torch.where(t > 0, t, 1.0)
        waits = self._log_survival(safe, 0) + self._log_survival(safe, 1)
        return torch.where(t > 0, waits, 0.0)

    def cdf(self, rt: Values, choice: Values = 1.0) -> Float[Tensor, "*trial"]:
        """Probability of this choice by this time, by Gauss-Legendre quadrature of the density.

        Panels halve towards the start; the relative error is below 1e-6 for parameters of behavior.
        """
        t = torch.as_tensor(rt, dtype=torch.float64) - self.non_decision
        end = torch.where(t.isinf(), 1e3, t.clamp(min=0.0))
        chosen = torch.as_tensor(choice, dtype=torch.float64)
        nodes, weights = _log_grid()
        times = end.unsqueeze(-1) * nodes
        density = torch.exp(
            self.log_prob(times + self.non_decision.unsqueeze(-1), chosen.unsqueeze(-1))
        )
        return (density * weights).sum(dim=-1) * end

    def sample(self, n: int, generator: torch.Generator) -> Responses:
        """n races for each set of parameters."""
        shape = (n, *self._batch_shape)
        with torch.no_grad():
            times = [self._finish(shape, racer, generator) for racer in (0, 1)]
        won = times[1] <= times[0]
        return Responses(torch.minimum(*times) + self.non_decision, won.double())

    @property
    @abstractmethod
    def _batch_shape(self) -> torch.Size:
        """Of the parameters, broadcast."""


def _log_grid() -> tuple[Tensor, Tensor]:
    """Nodes in (0, 1) and their weights, in panels that halve towards 0."""
    places, weights = np.polynomial.legendre.leggauss(24)
    edges = np.r_[0.0, 2.0 ** -np.arange(14, -1, -1.0)]
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    nodes = middle[:, None] + half[:, None] * places
    return torch.from_numpy(nodes.ravel()), torch.from_numpy(np.outer(half, weights).ravel())


class LBA(Race):
    """Linear ballistic accumulators. Brown & Heathcote 2008, Cogn. Psychol. 57:153-178.

    Each starts uniformly in (0, start_range) and rises in a straight line, at a speed drawn from a
    normal distribution, to the threshold. A speed that is not positive never finishes.

    Args:
        drift: Mean speed of racer 1, 1/s.
        other_drift: Mean speed of racer 0, 1/s.
        threshold: Above the largest start.
        start_range: Of both racers, positive.
        non_decision: Seconds, not negative.
        drift_spread: Standard deviation of either speed, positive.

    Raises:
        ArgumentError: A parameter outside its range, a threshold within the range of starts.
    """

    def __init__(
        self,
        drift: Values = 2.0,
        other_drift: Values = 1.0,
        threshold: Values = 1.0,
        start_range: Values = 0.5,
        non_decision: Values = 0.2,
        drift_spread: Values = 1.0,
    ):
        self.drift, self.other_drift = parameter("drift", drift), parameter("drift", other_drift)
        self.threshold = parameter("threshold", threshold, 0.0)
        self.start_range = parameter("start_range", start_range, 0.0)
        self.non_decision = parameter("non_decision", non_decision, -1e-300)
        self.drift_spread = parameter("drift_spread", drift_spread, 0.0)
        if bool((self.threshold.detach() <= self.start_range.detach()).any()):
            raise ArgumentError("the threshold must lie above the largest start")

    @property
    def _batch_shape(self) -> torch.Size:
        own = (self.drift, self.other_drift, self.threshold, self.start_range, self.non_decision)
        return torch.broadcast_shapes(*(one.shape for one in own), self.drift_spread.shape)

    def _log_density(self, t: Tensor, racer: int) -> Tensor:
        v, s = (self.drift if racer else self.other_drift), self.drift_spread
        low = ((self.threshold - self.start_range) / t - v) / s
        high = (self.threshold / t - v) / s
        mass = _normal_between(low, high)
        bells = _bell(low) - _bell(high)
        return torch.log(((v * mass + s * bells) / self.start_range).clamp(min=_SMALLEST))

    def _log_survival(self, t: Tensor, racer: int) -> Tensor:
        v, s = (self.drift if racer else self.other_drift), self.drift_spread
        b, width = self.threshold, self.start_range
        low, high = ((b - width) / t - v) / s, (b / t - v) / s
        # 1 - F by the mean over starts of the probability of a speed below (b - start) / t
        edge_high, edge_low = b - t * v, b - width - t * v
        part = edge_high * torch.special.ndtr(high) - edge_low * torch.special.ndtr(low)
        part = (part + t * s * (_bell(high) - _bell(low))) / width
        return torch.log(part.clamp(_SMALLEST, 1.0))

    def _finish(self, shape: tuple[int, ...], racer: int, generator: torch.Generator) -> Tensor:
        mean = self.drift if racer else self.other_drift
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        start = torch.rand(shape, generator=generator, dtype=torch.float64) * self.start_range
        speed = mean + self.drift_spread * drawn
        rises = speed > 0
        return torch.where(
            rises, (self.threshold - start) / torch.where(rises, speed, 1.0), math.inf
        )


class WaldRace(Race):
    """Two diffusions to one threshold each, noise 1: inverse Gaussian finishing times.

    Logan, Van Zandt, Verbruggen & Wagenmakers 2014, Psychol. Rev. 121:66-95.

    Args:
        drift: Of racer 1, positive, 1/s.
        other_drift: Of racer 0, positive, 1/s.
        threshold: Of both, positive.
        non_decision: Seconds, not negative.

    Raises:
        ArgumentError: A parameter outside its range.
    """

    def __init__(
        self,
        drift: Values = 2.0,
        other_drift: Values = 1.0,
        threshold: Values = 1.0,
        non_decision: Values = 0.2,
    ):
        self.drift = parameter("drift", drift, 0.0)
        self.other_drift = parameter("other_drift", other_drift, 0.0)
        self.threshold = parameter("threshold", threshold, 0.0)
        self.non_decision = parameter("non_decision", non_decision, -1e-300)

    @property
    def _batch_shape(self) -> torch.Size:
        own = (self.drift, self.other_drift, self.threshold, self.non_decision)
        return torch.broadcast_shapes(*(one.shape for one in own))

    def _log_density(self, t: Tensor, racer: int) -> Tensor:
        return log_density(t, self._drift_of(racer), self.threshold)

    def _log_survival(self, t: Tensor, racer: int) -> Tensor:
        return log_survival(t, self._drift_of(racer), self.threshold)

    def _finish(self, shape: tuple[int, ...], racer: int, generator: torch.Generator) -> Tensor:
        return drawn(shape, self._drift_of(racer), self.threshold, generator)

    def _drift_of(self, racer: int) -> Tensor:
        return self.drift if racer else self.other_drift


def _bell(z: Tensor) -> Tensor:
    return torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def _normal_between(low: Tensor, high: Tensor) -> Tensor:
    """Phi(high) - Phi(low), from the side on which nothing cancels."""
    flip = low > 0
    upper, lower = torch.where(flip, -low, high), torch.where(flip, -high, low)
    return torch.special.ndtr(upper) - torch.special.ndtr(lower)
