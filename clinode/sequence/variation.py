"""The evidence lower bound: how well states tell the measurements, and what knowing them costs."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clinode.cohort import IrregularBatch

NOISE = 0.5  # standard deviation of a standardised measurement, at the start
LEAST_NOISE = 1e-3  # of it, whatever is learned


class MeasurementNoise(nn.Module):
    """The variance of each variable's measurement, standardised.

    Args:
        n_variables: Their number.
    """

    def __init__(self, n_variables: int):
        super().__init__()
        excess = math.log(NOISE**2 - LEAST_NOISE**2)
        self.log_excess = nn.Parameter(torch.full((n_variables,), excess))

    @property
    def variance(self) -> Float[Tensor, " variable"]:
        """Never below a least one."""
        return torch.exp(self.log_excess) + LEAST_NOISE**2

    def log_likelihood(
        self, batch: IrregularBatch, expected: Float[Tensor, "row variable"]
    ) -> Float[Tensor, ""]:
        """Log density of all measured values, standardised, about what was expected."""
        variance = self.variance
        missed = (batch.value - expected) ** 2 / variance + torch.log(2 * math.pi * variance)
        return -torch.where(batch.mask, missed, 0.0).sum() / 2


def divergence_from_standard(
    mean: Float[Tensor, "*place state"], log_spread: Float[Tensor, "*place state"]
) -> Float[Tensor, "*place"]:
    """Kullback-Leibler divergence of independent normals from standard ones, nats."""
    each = mean**2 + torch.exp(2 * log_spread) - 1 - 2 * log_spread
    return each.sum(dim=-1) / 2
