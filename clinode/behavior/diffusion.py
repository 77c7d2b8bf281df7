"""Drift diffusion between two bounds: which one evidence reaches, and when.

dx = v dt + dW from z = w a until 0 or a. Densities follow Navarro & Fuss 2009, J. Math. Psychol.
53:222-230, as a series for short times or one for long ones. Where they meet (.4 of a^2), five or
six terms of either leave a relative error of rounding, so the number of terms is fixed; both are
summed relative to their first term, in logarithms, so tails keep value and gradient.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.behavior.response_times import ResponseModel, Responses, parameter
from clinode.errors import ArgumentError
from clinode.system import Values

MEETING = 0.4  # of a^2: where the series for short times hands over
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
        sign, chosen = _towards(choice)
        parts = []
        for shift, early in self._non_decision_nodes():
            for place, late in self._start_nodes():
                w = torch.where(chosen, 1 - place, place)
                decision = t - shift
                parts.append(self._log_density(decision, -sign * self.drift, w) + early + late)
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

    def _log_density(self, t: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """At the lower bound, after decision times t."""
        a, spread = self.bound, self.drift_spread
        possible = t > 0
        safe = torch.where(possible, t, 1.0)
        # a normal drift integrates in closed form (Tuerlinckx 2004, Behav. Res. Methods 36:702)
        widened = 1 + spread**2 * safe
        tilt = ((spread * a * w) ** 2 - 2 * v * a * w - v**2 * safe) / (2 * widened)
        log_density = tilt - torch.log(widened) / 2 - 2 * torch.log(a) + _log_still(safe / a**2, w)
        return torch.where(possible, log_density, -math.inf)

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


def _log_still(u: Tensor, w: Tensor) -> Tensor:
    """Log density of reaching 0 from w between 0 and 1 without drift, at times u > 0."""
    u, w = torch.broadcast_tensors(u, w)
    is_short = u < MEETING
    short = torch.where(is_short, u, MEETING)
    e = torch.exp(-2 / short)
    r, s = torch.exp(-2 * (1 - w) / short), torch.exp(-2 * (1 + w) / short)
    e2 = e * e
    r2, s2 = r * r * e2, s * s * e2
    far = 2 / w
    rest = (1 - far) * r + (1 + far) * s + (1 - 2 * far) * r2 + (1 + 2 * far) * s2
    rest = rest + (1 - 3 * far) * r2 * r * e2 * e2 + (1 + 3 * far) * s2 * s * e2 * e2
    log_short = torch.log(w) - w**2 / (2 * short) - 1.5 * torch.log(short) + torch.log1p(rest)
    long = torch.where(is_short, MEETING, u)
    q = torch.exp(-(math.pi**2) / 2 * long)
    q3 = q * q * q
    q8 = q3 * q3 * q * q
    sine, cosine = torch.sin(math.pi * w), torch.cos(math.pi * w)
    two = 2 * cosine  # sin(k y) / sin(y) by its recurrence, so that nothing cancels near the bound
    k2, k3 = two, two * two - 1
    k4 = two * k3 - k2
    k5 = two * k4 - k3
    rest = 2 * k2 * q3 + 3 * k3 * q8 + 4 * k4 * q8 * q3 * q3 * q + 5 * k5 * q8 * q8 * q8
    log_long = math.log(math.pi) - (math.pi**2) / 2 * long + torch.log(sine) + torch.log1p(rest)
    return torch.where(is_short, log_short - math.log(2 * math.pi) / 2, log_long)


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
