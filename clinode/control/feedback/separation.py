"""Do estimation and control separate? Only where no input changes what will be known.

The certificate is a number: the conditional covariance of the state along two random input
sequences. In a linear system with additive Gaussian noise it is the same matrix, to rounding; where
an input changes it, the input can probe, and control has a dual effect (Feldbaum 1960; Bar-Shalom
& Tse 1974, IEEE Trans. Autom. Control 19:494-500).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .problem import ControlProblem

SAME = 1e-12  # relative difference of covariances that is rounding


@dataclass(frozen=True)
class Separation:
    """Whether the best controller is the best gain on the best estimate; true or false as such.

    Attributes:
        holds: Whether it is.
        reason: Why, in words.
        dual_effect: Largest relative difference of the conditional covariances under two input
            sequences; 0 where nothing is estimated.
    """

    holds: bool
    reason: str
    dual_effect: float

    def __bool__(self) -> bool:
        return self.holds

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"holds": self.holds, "reason": self.reason, "dual_effect": self.dual_effect}


def verdict(problem: ControlProblem, dual_effect: float) -> Separation:
    """The certificate in words, from what was measured and how the problem is built.

    Args:
        problem: What is controlled.
        dual_effect: Measured difference of conditional covariances.
    """
    known = dual_effect <= SAME
    for applies, holds, reason in (
        (problem.sees_state, True, "the state is seen, so that there is nothing to estimate"),
        (
            len(problem.control_dependent_noise) > 0,
            False,
            "control-dependent noise: a larger input makes the state less known, so that gain and "
            "filter depend on each other",
        ),
        (
            len(problem.state_dependent_sensing) > 0,
            False,
            "state-dependent sensing: where the input leads decides how well the state is seen",
        ),
        (
            not known,
            False,
            "the input changes the conditional covariance of the state, so that it can probe",
        ),
        (
            not problem.is_linear,
            False,
            "the system is nonlinear: no input changed the covariance where it was measured, but "
            "the best input still depends on more than the mean",
        ),
        (
            problem.limits is not None,
            False,
            "no input changes what will be known, but under limits the best input is not that of "
            "the mean alone",
        ),
    ):
        if applies:
            return Separation(holds, reason, dual_effect)
    return Separation(
        True,
        "linear dynamics and sensors with additive Gaussian noise and a quadratic cost: no input "
        "changes the conditional covariance of the state",
        dual_effect,
    )


def largest_difference(one: Tensor, other: Tensor) -> float:
    """Of two sequences of covariances, relative to the larger."""
    size = torch.maximum(one.abs().max(), other.abs().max())
    return float((one - other).abs().max() / size.clamp(min=1e-300))
