"""What every model of a decision is: a distribution over when and which response is given."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Values

SLOWEST = 60.0  # s: a median beyond is taken for milliseconds


class Responses(NamedTuple):
    """Simulated decisions.

    Attributes:
        rt: Seconds; infinite where no response was given.
        choice: 1 or 0.
    """

    rt: Float[Tensor, "*trial"]
    choice: Float[Tensor, "*trial"]


class ResponseModel(ABC):
    """A distribution over (rt, choice), with parameters that broadcast against the trials.

    Parameters are tensors in float64 and keep their gradients. `choice` is 1 for the first response
    (the upper bound, the first racer), 0 for the other; models of one response know 1 alone.
    """

    n_responses: ClassVar[int] = 2

    @abstractmethod
    def log_prob(self, rt: Values, choice: Values = 1.0) -> Float[Tensor, "*trial"]:
        """Log density in 1/s of this response at this time; -inf where it cannot be."""

    @abstractmethod
    def cdf(self, rt: Values, choice: Values = 1.0) -> Float[Tensor, "*trial"]:
        """Probability that this response is given, and by this time."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Responses:
        """n decisions for each set of parameters, (n, *batch)."""

    def log_survival(self, rt: Values) -> Float[Tensor, "*trial"]:
        """Log probability that no response has been given by this time, for censored trials."""
        given = self.cdf(rt, 1.0) + self.cdf(rt, 0.0)
        return torch.log1p(-given.clamp(max=1 - 1e-15))


def seconds(rt: Values, *, name: str = "rt") -> Float[Tensor, "*trial"]:
    """Reaction times in float64, refused unless they can be seconds.

    Raises:
        ArgumentError: Times that are NaN, not positive, or all so long that they are in
            milliseconds.

    Example:
        >>> seconds([0.3, 0.5])
        tensor([0.3000, 0.5000], dtype=torch.float64)
    """
    times = torch.as_tensor(rt, dtype=torch.float64)
    if not times.numel():
        raise ArgumentError(f"{name} is empty")
    for word, bad in (("NaN", times.isnan()), ("not positive", times <= 0)):
        if bool(bad.any()):
            first = int(bad.flatten().nonzero()[0])
            raise ArgumentError(
                f"{int(bad.sum())} of {times.numel()} reaction times are {word}, the first in "
                f"row {first}",
                fix="drop these trials, or tell how they are censored",
            )
    middle = float(times.median())
    if middle > SLOWEST:
        raise ArgumentError(
            f"the median of {name} is above {SLOWEST:g}: the times seem to be in milliseconds",
            fix="divide by 1000; reaction times are in seconds here",
        )
    return times


def choices(choice: Values, like: Tensor) -> Float[Tensor, "*trial"]:
    """Choices as 0 and 1 in float64, one a trial.

    Raises:
        ArgumentError: Another shape, or anything but 0 and 1.
    """
    chosen = torch.as_tensor(choice, dtype=torch.float64)
    if chosen.shape != like.shape:
        raise ArgumentError(
            f"choice has shape {tuple(chosen.shape)}, rt has {tuple(like.shape)}: give one each"
        )
    bad = (chosen != 0) & (chosen != 1)
    if bool(bad.any()):
        raise ArgumentError(
            f"{int(bad.sum())} choices are neither 0 nor 1, the first in row "
            f"{int(bad.flatten().nonzero()[0])}",
            fix="code the upper (or first) response as 1 and the other as 0",
        )
    return chosen


def parameter(name: str, value: Values, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """A parameter in float64, refused outside (low, high); gradients are kept.

    Raises:
        ArgumentError: A value outside, or one that is no number.
    """
    # a Python float must not pass through float32 on its way
    given = (
        value.double() if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
    )
    inside = (given.detach() > low) & (given.detach() < high) & given.detach().isfinite()
    if not bool(inside.all()):
        bounds = "" if low == -math.inf else f" and above {max(low, 0.0) or 0:g}"
        bounds += "" if high == math.inf else f" and below {high:g}"
        raise ArgumentError(f"{name} must be finite{bounds}")
    return given
