"""LATER: a signal that rises at a rate drawn anew on each trial, from a prior to a threshold.

Carpenter & Williams 1995, Nature 377:59-62; Noorani & Carpenter 2016, Neurosci. Biobehav. Rev.
64:229-251. The reciprocal of latency is Gaussian, so that on reciprobit axes latencies lie on a
line. Few early responses come from a second unit with mean rate 0; the faster unit wins.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.behavior.response_times import ResponseModel, Responses, parameter
from clinode.system import Values

_HALF_LOG_TAU = math.log(2 * math.pi) / 2


class LATER(ResponseModel):
    """One response, choice 1; a rate that is not positive never reaches the threshold.

    Args:
        mean: mu, of the promptness 1 / latency, 1/s.
        spread: sigma, its standard deviation, 1/s.
        early_spread: Standard deviation of the early unit's promptness, 1/s; 0 leaves the unit out.

    Raises:
        ArgumentError: A spread that is not positive, a negative early one.

    Example:
        >>> round(float(LATER(mean=5.0, spread=1.0).cdf(0.15)), 4)
        0.0478
    """

    n_responses = 1

    def __init__(self, mean: Values = 5.0, spread: Values = 1.0, early_spread: Values = 0.0):
        self.mean = parameter("mean", mean)
        self.spread = parameter("spread", spread, 0.0)
        self.early_spread = parameter("early_spread", early_spread, -1e-300)

    @property
    def intercept(self) -> Float[Tensor, "*batch"]:
        """k = mu / sigma: where the reciprobit line meets infinite time, in probits below 0."""
        return self.mean / self.spread

    def log_prob(self, rt: Values, choice: Values = 1.0) -> Float[Tensor, "*trial"]:
        """Log density of the latency, 1/s; -inf for choice 0 and times that are not positive."""
        t = torch.as_tensor(rt, dtype=torch.float64)
        possible = (t > 0) & (torch.as_tensor(choice) == 1)
        rate = 1 / torch.where(possible, t, 1.0)
        z = (rate - self.mean) / self.spread
        main = -(z**2) / 2 - _HALF_LOG_TAU - torch.log(self.spread)
        is_early, scale = self._early()
        e = rate / scale
        early = -(e**2) / 2 - _HALF_LOG_TAU - torch.log(scale)
        both = torch.logaddexp(main + torch.special.log_ndtr(e), early + torch.special.log_ndtr(z))
        log_density = torch.where(is_early, both, main) + 2 * torch.log(rate)
        return torch.where(possible, log_density, -math.inf)

    def cdf(self, rt: Values, choice: Values = 1.0) -> Float[Tensor, "*trial"]:
        """Probability of a response by this time: that either unit is at least as prompt."""
        t = torch.as_tensor(rt, dtype=torch.float64)
        possible = (t > 0) & (torch.as_tensor(choice) == 1)
        rate = torch.where(possible, 1 / torch.where(possible, t, 1.0), 1.0)
        z = (rate - self.mean) / self.spread
        is_early, scale = self._early()
        waits = torch.special.log_ndtr(z)
        waits = waits + torch.where(is_early, torch.special.log_ndtr(rate / scale), 0.0)
        return torch.where(possible, -torch.expm1(waits), 0.0)

    def sample(self, n: int, generator: torch.Generator) -> Responses:
        """n latencies for each set of parameters; infinite where neither unit rises."""
        own = (self.mean, self.spread, self.early_spread)
        shape = (n, *torch.broadcast_shapes(*(one.shape for one in own)))
        with torch.no_grad():
            drawn = torch.randn((2, *shape), generator=generator, dtype=torch.float64)
            rate = self.mean + self.spread * drawn[0]
            early = torch.where(self.early_spread > 0, self.early_spread * drawn[1], -math.inf)
            rate = torch.maximum(rate, early)
            rt = torch.where(rate > 0, 1 / torch.where(rate > 0, rate, 1.0), math.inf)
        return Responses(rt, torch.ones_like(rt))

    def _early(self) -> tuple[Tensor, Tensor]:
        is_early = self.early_spread.detach() > 0
        return is_early, torch.where(is_early, self.early_spread, 1.0)
