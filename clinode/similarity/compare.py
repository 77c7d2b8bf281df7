"""How alike two RDMs are.

A pair of stimuli that is missing in either of the two is left out of both, and the number of pairs
that remain is told with the result; pairs are never matched by position after dropping, which
would compare different stimuli.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import kendalltau, rankdata
from torch import Tensor

from clinode.errors import ArgumentError

from .rdm import RDM

FEWEST_PAIRS = 3  # below, a correlation says nothing


@dataclass(frozen=True)
class Comparison:
    """A measure of likeness of two RDMs.

    Attributes:
        value: 1 where they are alike; NaN where the measure is undefined (a constant RDM).
        method: Which measure.
        n_pairs: Pairs of stimuli that both have.
        n_left_out: Pairs that only one of them has, or neither.
    """

    value: float
    method: str
    n_pairs: int
    n_left_out: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "value": None if np.isnan(self.value) else self.value}


def compare(first: RDM, second: RDM, method: str = "cosine") -> Comparison:
    """Likeness of two RDMs of the same stimuli in the same order.

    Args:
        first, second: Of as many stimuli, with the same labels.
        method: "cosine"; "corr" (Pearson); "spearman"; "rho-a" (Spearman's rho, ties broken at
            random in expectation); "tau-a" (Kendall's, which favours no RDM with ties);
            "cosine_cov" and "corr_cov", which account for the covariance of dissimilarities that
            share a stimulus (Diedrichsen et al. 2020, arXiv 2007.02789).

    Raises:
        ArgumentError: An unknown method, other stimuli, fewer than three pairs in common.

    Example:
        >>> from clinode.similarity import rdm_from_vector
        >>> a, b = rdm_from_vector([1.0, 2.0, 3.0]), rdm_from_vector([1.0, 3.0, 2.0])
        >>> round(compare(a, b, "tau-a").value, 4)
        0.3333
    """
    if method not in MEASURES:
        raise ArgumentError(
            f"method must be one of {', '.join(map(repr, MEASURES))}, got {method!r}"
        )
    check_same_stimuli(first, second)
    known = ~(first.dissimilarities.isnan() | second.dissimilarities.isnan())
    n_pairs = int(known.sum())
    if n_pairs < FEWEST_PAIRS:
        raise ArgumentError(f"the two have {n_pairs} pairs of stimuli in common, three are needed")
    a, b = first.dissimilarities[known], second.dissimilarities[known]
    value = MEASURES[method](a, b, known, first.n_stimuli)
    return Comparison(value, method, n_pairs, len(known) - n_pairs)


def check_same_stimuli(first: RDM, second: RDM) -> None:
    """Refuse RDMs of other stimuli.

    Raises:
        ArgumentError: The labels differ.
    """
    if first.labels != second.labels:
        raise ArgumentError(
            f"the RDMs are of different stimuli ({first.n_stimuli} and {second.n_stimuli}, or "
            "other names or another order)",
            fix="give both the same labels in the same order",
        )


def _cosine(a: Tensor, b: Tensor, known: Tensor, n: int) -> float:
    size = torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b)
    return float(a @ b / size) if size > 0 else float("nan")


def _pearson(a: Tensor, b: Tensor, known: Tensor, n: int) -> float:
    return _cosine(_centered(a), _centered(b), known, n)


def _spearman(a: Tensor, b: Tensor, known: Tensor, n: int) -> float:
    return _pearson(_ranks(a), _ranks(b), known, n)


def _rho_a(a: Tensor, b: Tensor, known: Tensor, n: int) -> float:
    """Expected rho when ties are broken at random: product of mean ranks, tie-free scale."""
    m = len(a)
    return float(12 * (_ranks(a) @ _ranks(b)) / (m**3 - m) - 3 * (m + 1) / (m - 1))


def _tau_a(a: Tensor, b: Tensor, known: Tensor, n: int) -> float:
    """(Concordant - discordant) / all pairs, from tau-b, whose denominator leaves ties out."""
    tied = [_pairs_tied(x) for x in (a, b)]
    total = len(a) * (len(a) - 1) / 2
    if total in tied:
        return 0.0
    tau_b = kendalltau(a.numpy(), b.numpy(), variant="b")[0]  # of two values, the first
    untied = math.sqrt((total - tied[0]) * (total - tied[1]))
    return float(np.asarray(tau_b)) * untied / total


def _cosine_cov(a: Tensor, b: Tensor, known: Tensor, n: int) -> float:
    """Cosine by the inverse of the covariance of dissimilarities under independent noise."""
    if bool(known.all()):
        # By that inverse the product of two RDMs is, up to a factor, that of their doubly centred
        # kernels, so nothing of the size of pairs x pairs is needed.
        return _cosine(_centred_kernel(a, n), _centred_kernel(b, n), known, n)
    V = _covariance(known, n)
    left, right = torch.linalg.solve(V, torch.stack([a, b], dim=1)).T
    size = (a @ left) * (b @ right)
    return float(a @ right / size.sqrt()) if size > 0 else float("nan")


def _corr_cov(a: Tensor, b: Tensor, known: Tensor, n: int) -> float:
    return _cosine_cov(_centered(a), _centered(b), known, n)


MEASURES: dict[str, Callable[[Tensor, Tensor, Tensor, int], float]] = {
    "cosine": _cosine,
    "corr": _pearson,
    "spearman": _spearman,
    "rho-a": _rho_a,
    "tau-a": _tau_a,
    "cosine_cov": _cosine_cov,
    "corr_cov": _corr_cov,
}


def _covariance(known: Tensor, n: int) -> Float[Tensor, "pair pair"]:
    """Of squared distances of stimuli with independent noise: (contrast x contrast')^2."""
    first, second = torch.triu_indices(n, n, offset=1)[:, known]
    contrast = torch.zeros(len(first), n, dtype=torch.float64)
    row = torch.arange(len(first))
    contrast[row, first], contrast[row, second] = 1.0, -1.0
    return (contrast @ contrast.T).square()


def _centred_kernel(pairs: Tensor, n: int) -> Float[Tensor, " entry"]:
    square = pairs.new_zeros(n, n)
    first, second = torch.triu_indices(n, n, offset=1)
    square[first, second] = square[second, first] = pairs
    rows = square - square.mean(dim=0, keepdim=True)
    return (rows - rows.mean(dim=1, keepdim=True)).flatten()


def _centered(x: Tensor) -> Tensor:
    centred = x - x.mean()
    # what rounding leaves of a constant is no direction
    return torch.where(centred.abs().max() > 1e-12 * x.abs().max(), centred, 0.0)


def _ranks(x: Tensor) -> Tensor:
    return torch.from_numpy(rankdata(x.numpy()))


def _pairs_tied(x: Tensor) -> float:
    counts = np.unique(x.numpy(), return_counts=True)[1].astype(float)
    return float((counts * (counts - 1) / 2).sum())
