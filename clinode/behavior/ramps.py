"""What the ramps of decision neurons say: diffusion, or a rate drawn once a trial?

Reaction times barely tell the two apart; ramps do. Across trials, a diffusion has covariance
proportional to min(s, t), and its variance grows with time; a rate drawn once has s t, and its
variance grows with time squared (Churchland et al. 2011, Neuron 69:818-831).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor

from clinode.behavior.fit import maximise
from clinode.errors import ArgumentError
from clinode.system import Values

REJECTED = 0.001


@dataclass(frozen=True, eq=False)
class RampSignature:
    """How the variance of ramps grows, and which model it is that of.

    Attributes:
        exponent: Slope of log variance over log time, the variance at the start taken out: about 1
            for diffusion, 2 for a rate drawn once.
        preferred: "diffusion", "rate", or "neither" where an unstructured covariance is far better
            than both.
        log_likelihoods: Of both, and of the "unstructured" covariance.
        p_values: Of either against the unstructured one.
        correlation: (time, time), across trials.
        n_trials: How many ramps.
    """

    exponent: float
    preferred: str
    log_likelihoods: dict[str, float]
    p_values: dict[str, float]
    correlation: np.ndarray
    n_trials: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "correlation": self.correlation.tolist()}


def ramp_signature(ramps: Values, times: Values, *, seed: int = 0) -> RampSignature:
    """Tell models of a decision apart from ramps alone, without reaction times.

    Both have a mean of their own at each time, a variable start, and independent noise of
    measurement. Only trials that were still undecided at the last time may be given: a bound
    that was reached changes the covariance.

    Args:
        ramps: (trial, time), firing rates or decision variables.
        times: (time,), seconds since the ramp's beginning, positive and increasing.
        seed: Of the starts of the search.

    Raises:
        ArgumentError: Shapes that do not fit, NaN, fewer trials than twice the times.
    """
    x = torch.as_tensor(ramps, dtype=torch.float64)
    t = torch.as_tensor(times, dtype=torch.float64)
    if x.ndim != 2 or t.shape != x.shape[1:] or len(t) < 4:
        raise ArgumentError("ramps must be (trial, time), at four times or more")
    if bool(x.isnan().any()) or bool((t <= 0).any()) or bool((t.diff() <= 0).any()):
        raise ArgumentError("ramps have no NaN, and their times are positive and increase")
    n, m = x.shape
    if n < 2 * m:
        raise ArgumentError(
            f"{n} trials at {m} times do not determine a covariance", fix="take fewer times"
        )
    centred = x - x.mean(dim=0)
    S = centred.T @ centred / n
    scale = float(S.diagonal().mean())
    shapes = {"diffusion": torch.minimum(t, t.unsqueeze(1)), "rate": t * t.unsqueeze(1)}
    scores = {"unstructured": _gaussian(S, S, n)}
    fitted = {}
    for name, shape in shapes.items():

        def log_likelihood(y: Tensor, shape: Tensor = shape) -> Tensor:
            grown, start, noise = (scale * y.exp()).unbind()
            covariance = grown * shape / shape.diagonal().mean() + start
            return _gaussian(S, covariance + noise * torch.eye(m, dtype=torch.float64), n)

        begun = np.log([0.8, 0.1, 0.1])
        found = torch.from_numpy(maximise(log_likelihood, begun, seed=seed, where="ramps"))
        scores[name] = log_likelihood(found)
        fitted[name] = (scale * found.exp()).tolist()
    values = {name: float(score) for name, score in scores.items()}
    p_values = {name: _against_unstructured(values, name, n, m) for name in shapes}
    best = max(shapes, key=lambda name: values[name])
    return RampSignature(
        exponent=_exponent(S, t, fitted[best]),
        preferred=best if p_values[best] >= REJECTED else "neither",
        log_likelihoods=values,
        p_values=p_values,
        correlation=np.corrcoef(x.numpy(), rowvar=False),
        n_trials=n,
    )


def _gaussian(S: Tensor, covariance: Tensor, n: int) -> Tensor:
    """Log likelihood of n trials with sample covariance S, their means fitted."""
    root, failed = torch.linalg.cholesky_ex(covariance)
    if int(failed):
        return torch.full((), -math.inf, dtype=torch.float64)
    size = 2 * torch.log(root.diagonal()).sum()
    apart = torch.cholesky_solve(S, root).diagonal().sum()
    return -n / 2 * (len(S) * math.log(2 * math.pi) + size + apart)


def _against_unstructured(values: dict[str, float], name: str, n: int, m: int) -> float:
    """Likelihood ratio test with the correction of its mean for finite samples (Box 1949)."""
    freedom = m * (m + 1) // 2 - 3
    shrink = 1 - (2 * m + 1 - 2 / (m + 1)) / (6 * (n - 1))
    ratio = 2 * (values["unstructured"] - values[name]) * shrink * (n - 1) / n
    return float(chi2.sf(ratio, freedom))


def _exponent(S: Tensor, t: Tensor, parts: list[float]) -> float:
    """Slope of the variance that is neither the start's nor the noise's."""
    grown = S.diagonal() - parts[1] - parts[2]
    used = (grown > 0.02 * grown.max()).numpy()
    return float(np.polyfit(np.log(t.numpy()[used]), np.log(grown.numpy()[used]), 1)[0])
