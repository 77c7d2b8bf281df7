"""Diffusion to one bound: an inverse Gaussian (Wald) time after a time not spent on deciding.

What drift diffusion is for tasks with one response, where LATER is its rival. Reaction times hardly
tell the two apart: of the best Wald for a LATER of mean 5 and spread 1 they hold .006 nats a trial.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.behavior.response_times import ResponseModel, Responses, parameter
from clinode.system import Values


class Wald(ResponseModel):
    """One response, choice 1. Luce 1986, Response Times, ch. 4.

    Args:
        drift: v, towards the bound, positive, 1/s.
        threshold: b, distance of the bound from the start, positive.
        non_decision: Seconds, not negative.

    Raises:
        ArgumentError: A parameter outside its range.

    Example:
        >>> model = Wald(drift=5.0, threshold=1.0, non_decision=0.1)
        >>> round(float(model.cdf(0.3)), 4)
        0.5853
    """

    n_responses = 1

    def __init__(self, drift: Values = 5.0, threshold: Values = 1.0, non_decision: Values = 0.1):
        self.drift = parameter("drift", drift, 0.0)
        self.threshold = parameter("threshold", threshold, 0.0)
        self.non_decision = parameter("non_decision", non_decision, -1e-300)

    def log_prob(self, rt: Values, choice: Values = 1.0) -> Float[Tensor, "*trial"]:
        """Log density, 1/s; -inf for choice 0 and before the non-decision time."""
        t = torch.as_tensor(rt, dtype=torch.float64) - self.non_decision
        possible = (t > 0) & (torch.as_tensor(choice) == 1)
        density = log_density(torch.where(possible, t, 1.0), self.drift, self.threshold)
        return torch.where(possible, density, -math.inf)

    def cdf(self, rt: Values, choice: Values = 1.0) -> Float[Tensor, "*trial"]:
        """Probability of a response by this time."""
        t = torch.as_tensor(rt, dtype=torch.float64) - self.non_decision
        possible = (t > 0) & (torch.as_tensor(choice) == 1)
        inside = possible & ~t.isinf()
        waits = log_survival(torch.where(inside, t, 1.0), self.drift, self.threshold)
        given = torch.where(inside, -torch.expm1(waits), 1.0)
        return torch.where(possible, given, 0.0)

    def sample(self, n: int, generator: torch.Generator) -> Responses:
        """n times for each set of parameters."""
        own = (self.drift, self.threshold, self.non_decision)
        shape = (n, *torch.broadcast_shapes(*(one.shape for one in own)))
        with torch.no_grad():
            rt = drawn(shape, self.drift, self.threshold, generator) + self.non_decision
        return Responses(rt, torch.ones_like(rt))


def log_density(t: Tensor, v: Tensor, b: Tensor) -> Tensor:
    """Of reaching b at t > 0."""
    bell = -((b - v * t) ** 2) / (2 * t)
    return torch.log(b) - 0.5 * math.log(2 * math.pi) - 1.5 * torch.log(t) + bell


def log_survival(t: Tensor, v: Tensor, b: Tensor) -> Tensor:
    """Log probability of not having reached b by t > 0."""
    root = t.sqrt()
    stays = torch.special.log_ndtr((b - v * t) / root)
    back = 2 * v * b + torch.special.log_ndtr(-(b + v * t) / root)
    gap = (back - stays).clamp(max=-1e-12)
    return stays + torch.log(-torch.expm1(gap))


def drawn(shape: tuple[int, ...], v: Tensor, b: Tensor, generator: torch.Generator) -> Tensor:
    """Times of reaching b. Michael, Schucany & Haas 1976, Am. Stat. 30:88-90."""
    mean, scale = b / v, b**2
    y = torch.randn(shape, generator=generator, dtype=torch.float64) ** 2
    root = (4 * mean * scale * y + (mean * y) ** 2).sqrt()
    x = mean + mean / (2 * scale) * (mean * y - root)
    keep = torch.rand(shape, generator=generator, dtype=torch.float64) <= mean / (mean + x)
    return torch.where(keep, x, mean**2 / x)
