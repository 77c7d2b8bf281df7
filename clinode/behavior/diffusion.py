"""Drift diffusion between two bounds: which one evidence reaches, and when.

dx = v dt + dW from z = w a until 0 or a. Densities are those of `bounded_diffusion`; distribution
functions are summed here, in images of the start for short times and in standing waves for long
ones. What varies between trials is integrated over: a drift in closed form, a start or a
non-decision time by Gauss and Legendre.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.behavior.bounded_diffusion import log_density
from clinode.behavior.response_times import ResponseModel, Responses, parameter
from clinode.errors import ArgumentError
from clinode.system import Values

MEETING = 0.4  # of a^2: where images hand over in distribution functions
N_NODES = 15  # of Gauss and Legendre over a range of start points or of non-decision times
N_DRIFTS = 31  # of Gauss and Hermite, in distribution functions
HALVINGS = 60  # of the interval that holds a sampled time


class DDM(ResponseModel):
    """Drift diffusion with noise 1 per square root of second. Ratcliff 1978, Psychol. Rev. 85:59.

    Args:
        drift: v, towards the upper bound, 1/s.
        bound: a, separation of the bounds, positive.
        start: w, start as a fraction of the separation, in (0, 1).
        non_decision: t0, seconds not spent on deciding, not negative.
        drift_spread: Standard deviation of the drift between trials, 1/s.
        start_range: Width of the uniform distribution of the start, a fraction of the separation.
        non_decision_range: Width of the uniform distribution of t0, seconds.

    Raises:
        ArgumentError: A parameter outside its range, or a start or t0 whose range leaves it.

    Example:
        >>> model = DDM(drift=1.0, bound=2.0, start=0.5, non_decision=0.3)
        >>> round(float(model.log_prob(0.8, 0.0).exp()), 8)
        0.1188106
    """

    def __init__(
        self,
        drift: Values = 1.0,
        bound: Values = 2.0,
        start: Values = 0.5,
        non_decision: Values = 0.3,
        *,
        drift_spread: Values = 0.0,
        start_range: Values = 0.0,
        non_decision_range: Values = 0.0,
    ):
        self.drift = parameter("drift", drift)
        self.bound = parameter("bound", bound, 0.0)
        self.start = parameter("start", start, 0.0, 1.0)
        self.non_decision = parameter("non_decision", non_decision, -1e-300)
        self.drift_spread = parameter("drift_spread", drift_spread, -1e-300)
        self.start_range = parameter("start_range", start_range, -1e-300, 1.0)
        self.non_decision_range = parameter("non_decision_range", non_decision_range, -1e-300)
        reach = self.start_range.detach() / 2
        if bool(((self.start.detach() <= reach) | (self.start.detach() >= 1 - reach)).any()):
            raise ArgumentError("start_range leaves the interval between the bounds")
        if bool((self.non_decision.detach() < self.non_decision_range.detach() / 2).any()):
            raise ArgumentError("non_decision_range reaches below a non-decision time of 0")

    def log_prob(self, rt: Values, choice: Values = 1.0) -> Float[Tensor, "*trial"]:
        """Log density of this choice at this time, 1/s; -inf before the non-decision time."""
        t = torch.as_tensor(rt, dtype=torch.float64)
        chosen = torch.as_tensor(choice, dtype=torch.float64) > 0.5
        parts = []
        for shift, early in self._non_decision_nodes():
            for place, late in self._start_nodes():
                own = log_density(
                    t, shift, chosen, self.drift, self.bound, place, self.drift_spread
                )
                parts.append(own + (early + late) if early + late else own)
        if len(parts) == 1:
            return parts[0]
        return torch.logsumexp(torch.stack(torch.broadcast_tensors(*parts)), dim=0)

    def cdf(self, rt: Values, choice: Values = 1.0) -> Float[Tensor, "*trial"]:
        """Probability of this choice by this time; over drifts by Gauss-Hermite quadrature."""
        t = torch.as_tensor(rt, dtype=torch.float64)
        sign, chosen = _towards(choice)
        total = torch.zeros((), dtype=torch.float64)
        for shift, early in self._non_decision_nodes():
            for place, late in self._start_nodes():
                w = torch.where(chosen, 1 - place, place)
                for drift, between in self._drift_nodes():
                    part = _lower_cdf(t - shift, -sign * drift, self.bound, w)
                    total = total + part * math.exp(early + late + between)
        return total

    def probability(self, choice: Values = 1.0) -> Float[Tensor, "*trial"]:
        """That this choice is made at all."""
        return self.cdf(math.inf, choice)

    def mean_decision_time(self) -> Float[Tensor, "*batch"]:
        """(a P - z) / v without variability between trials, seconds; z (a - z) without drift."""
        v, a, w = torch.broadcast_tensors(self.drift, self.bound, self.start)
        still = v.abs() * a < 1e-5
        safe = torch.where(still, torch.ones_like(v), v)
        moving = a * (_upper_probability(safe, a, w) - w) / safe
        return torch.where(still, a**2 * w * (1 - w), moving)

    def sample(self, n: int, generator: torch.Generator) -> Responses:
        """n decisions for each set of parameters, by inverting the distribution function."""
        own = (self.drift, self.bound, self.start, self.non_decision)
        shape = (n, *torch.broadcast_shapes(*(one.shape for one in own)))
        with torch.no_grad():

            def uniform() -> Tensor:
                return torch.rand(shape, generator=generator, dtype=torch.float64)

            spread = torch.randn(shape, generator=generator, dtype=torch.float64)
            v = self.drift + self.drift_spread * spread
            w = self.start + self.start_range * (uniform() - 0.5)
            a = self.bound.expand(shape)
            upper = uniform() < _upper_probability(v, a, w)
            towards, place = torch.where(upper, -v, v), torch.where(upper, 1 - w, w)
            level = uniform() * _lower_cdf(torch.full(shape, math.inf).double(), towards, a, place)
            low = torch.zeros(shape, dtype=torch.float64)
            high = torch.ones_like(low)
            while bool((short := _lower_cdf(high, towards, a, place) < level).any()):
                high = torch.where(short & (high < 1e6), 2 * high, high)
                if bool((high >= 1e6).any()):
                    break
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                is_low = _lower_cdf(middle, towards, a, place) < level
                low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
            shift = self.non_decision + self.non_decision_range * (uniform() - 0.5)
        return Responses((low + high) / 2 + shift, upper.double())

    def _drift_nodes(self) -> list[tuple[Tensor, float]]:
        if not bool((self.drift_spread.detach() > 0).any()):
            return [(self.drift, 0.0)]
        places, weights = np.polynomial.hermite_e.hermegauss(N_DRIFTS)
        total = math.sqrt(2 * math.pi)
        return [
            (self.drift + self.drift_spread * float(place), math.log(weight / total))
            for place, weight in zip(places, weights, strict=True)
        ]

    def _start_nodes(self) -> list[tuple[Tensor, float]]:
        return _nodes(self.start, self.start_range)

    def _non_decision_nodes(self) -> list[tuple[Tensor, float]]:
        return _nodes(self.non_decision, self.non_decision_range)


def _nodes(middle: Tensor, width: Tensor) -> list[tuple[Tensor, float]]:
    """Places and log weights over a uniform range; the middle alone where there is none."""
    if not bool((width.detach() > 0).any()):
        return [(middle, 0.0)]
    places, weights = np.polynomial.legendre.leggauss(N_NODES)
    return [
        (middle + width / 2 * float(place), math.log(weight / 2))
        for place, weight in zip(places, weights, strict=True)
    ]


def _towards(choice: Values) -> tuple[Tensor, Tensor]:
    chosen = torch.as_tensor(choice, dtype=torch.float64)
    return 2 * chosen - 1, chosen > 0.5


def _lower_cdf(t: Tensor, v: Tensor, a: Tensor, w: Tensor) -> Tensor:
    """Probability of having reached the lower bound by decision times t."""
    t, v, a, w = torch.broadcast_tensors(t, v, a, w)
    possible = t > 0
    u = torch.where(possible, t, 1.0) / a**2
    is_short = u < MEETING
    at = torch.where(is_short, u, MEETING)
    y = (v * a).abs()  # in units of the separation, times u
    total = torch.zeros_like(at)
    for k in range(-3, 4):  # images of the start, each an inverse Gaussian
        b = (w + 2 * k).abs()
        root = at.sqrt()
        near = torch.exp(-b * y - v * a * w + torch.special.log_ndtr((y * at - b) / root))
        far = torch.exp(b * y - v * a * w + torch.special.log_ndtr(-(y * at + b) / root))
        total = total + (near + far) * (1.0 if k >= 0 else -1.0)
    long = torch.where(is_short | u.isinf(), MEETING, u)
    rest = torch.zeros_like(long)
    for k in range(1, 7):
        rate = y**2 + (k * math.pi) ** 2
        rest = rest + k * torch.sin(k * math.pi * w) / rate * torch.exp(-rate * long / 2)
    rest = 2 * math.pi * torch.exp(-v * a * w) * rest
    reached = 1 - _upper_probability(v, a, w)
    later = torch.where(u.isinf(), reached, reached - rest)
    return torch.where(possible, torch.where(is_short, total, later), 0.0)


def _upper_probability(v: Tensor, a: Tensor, w: Tensor) -> Tensor:
    """(1 - exp(-2 v a w)) / (1 - exp(-2 v a)), and w where v is 0."""
    down = v < 0
    y, place = 2 * (v * a).abs(), torch.where(down, 1 - w, w)
    reached = place * _decay_ratio(y * place) / _decay_ratio(y)
    return torch.where(down, 1 - reached, reached)


def _decay_ratio(y: Tensor) -> Tensor:
    """(1 - exp(-y)) / y for y >= 0."""
    small = y < 1e-4
    safe = torch.where(small, 1.0, y)
    return torch.where(small, 1 - y / 2 + y**2 / 6 - y**3 / 24, -torch.expm1(-safe) / safe)
