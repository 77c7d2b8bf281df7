"""Centred kernel alignment: likeness of two representations, whatever their units.

Kornblith, Norouzi, Lee & Hinton 2019, ICML; debiased by Song et al. 2012, J. Mach. Learn. Res.
13:1393-1434. Linear alignment does not change when a representation is rotated or scaled as a
whole; it does under other invertible maps, see `shape.canonical_correlations` for those.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Values

KERNELS = ("linear", "rbf")


@dataclass(frozen=True)
class Alignment:
    """Centred kernel alignment of two representations.

    Attributes:
        value: 1 for representations alike; a debiased one is about 0 for independent ones and may
            be negative.
        kernel: "linear" or "rbf".
        is_debiased: Whether the bias of few stimuli is taken out.
        chance: What independent Gaussian representations of these sizes would give.
        n_stimuli: Stimuli that both have.
    """

    value: float
    kernel: str
    is_debiased: bool
    chance: float
    n_stimuli: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


def cka(
    first: Values,
    second: Values,
    *,
    kernel: str = "linear",
    debiased: bool = False,
    bandwidth: float = 1.0,
) -> Alignment:
    """Centred kernel alignment.

    With few stimuli and many units the plain one is large by chance; `chance` says how large.

    Args:
        first: (stimulus, unit).
        second: (stimulus, other unit), of the same stimuli. A stimulus that is all NaN in either
            is left out of both.
        kernel: "linear", or "rbf" with a width of `bandwidth` median distances.
        debiased: Take the unbiased estimate of each part; needs four stimuli.
        bandwidth: Of "rbf".

    Raises:
        ArgumentError: Other numbers of stimuli, NaN in some units alone, a representation without
            any spread, an unknown kernel, too few stimuli.

    Example:
        >>> x = torch.eye(4)
        >>> round(cka(x, x @ torch.diag(torch.tensor([1.0, 1.0, 1.0, 2.0]))).value, 4)
        0.8552
    """
    if kernel not in KERNELS:
        raise ArgumentError(f"kernel must be 'linear' or 'rbf', got {kernel!r}")
    if not bandwidth > 0:
        raise ArgumentError(f"bandwidth must be positive, got {bandwidth}")
    X, Y = common_stimuli(first, second)
    n = len(X)
    if n < (4 if debiased else 2):
        raise ArgumentError(f"{n} stimuli are too few")
    K, L = (_linear_kernel(Z) if kernel == "linear" else _rbf_kernel(Z, bandwidth) for Z in (X, Y))
    independence = _unbiased_hsic if debiased else _hsic
    own = independence(K, K) * independence(L, L)
    if not own > 0:
        raise ArgumentError("a representation is the same for all stimuli, so nothing is aligned")
    p, q = X.shape[1], Y.shape[1]
    chance = 0.0 if debiased else (p * q / ((n - 1 + p) * (n - 1 + q))) ** 0.5
    value = float(independence(K, L) / own**0.5)
    return Alignment(value, kernel, debiased, chance if kernel == "linear" else float("nan"), n)


def common_stimuli(first: Values, second: Values) -> tuple[Tensor, Tensor]:
    """Both representations in float64 at the stimuli that neither misses.

    Raises:
        ArgumentError: Other numbers of stimuli, or a stimulus NaN in some units alone.
    """
    both = [torch.as_tensor(Z, dtype=torch.float64) for Z in (first, second)]
    for Z in both:
        if Z.ndim != 2:
            raise ArgumentError(f"expected (stimulus, unit), got shape {tuple(Z.shape)}")
        missing = Z.isnan()
        partial = int((missing.any(dim=1) & ~missing.all(dim=1)).sum())
        if partial:
            raise ArgumentError(
                f"{partial} stimuli are NaN in some of their units alone",
                fix="leave these units out, or set the whole stimuli to NaN",
            )
        if bool(Z.isinf().any()):
            raise ArgumentError("a representation is infinite somewhere")
    if len(both[0]) != len(both[1]):
        raise ArgumentError(f"{len(both[0])} stimuli in one and {len(both[1])} in the other")
    known = ~(both[0].isnan().any(dim=1) | both[1].isnan().any(dim=1))
    return both[0][known], both[1][known]


def _linear_kernel(X: Float[Tensor, "stimulus unit"]) -> Float[Tensor, "stimulus stimulus"]:
    centred = X - X.mean(dim=0)  # of no matter in exact arithmetic, and much in floating point
    return centred @ centred.T


def _rbf_kernel(X: Tensor, bandwidth: float) -> Float[Tensor, "stimulus stimulus"]:
    square = torch.cdist(X, X, compute_mode="donot_use_mm_for_euclid_dist").square()
    first, second = torch.triu_indices(*square.shape, offset=1)
    width = bandwidth**2 * square[first, second].median()
    if not width > 0:
        raise ArgumentError("half of the stimuli have the same pattern: their distance is no width")
    return torch.exp(-square / (2 * width))


def _hsic(K: Tensor, L: Tensor) -> Tensor:
    """Product of the centred kernels (up to a factor that cancels)."""
    centred = K - K.mean(dim=0)
    return ((centred - centred.mean(dim=1, keepdim=True)) * L).sum()


def _unbiased_hsic(K: Tensor, L: Tensor) -> Tensor:
    """Song et al. 2012, eq. 5, up to n (n - 3), which cancels."""
    n = len(K)
    K, L = (Z - torch.diag(Z.diagonal()) for Z in (K, L))
    together = K.sum() * L.sum() / ((n - 1) * (n - 2))
    return (K * L).sum() + together - 2 / (n - 2) * (K.sum(dim=0) @ L.sum(dim=0))
