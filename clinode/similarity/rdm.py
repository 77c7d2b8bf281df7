"""Representational dissimilarity matrices: how far apart the answers to two stimuli are.

Kriegeskorte, Mur & Bandettini 2008, Front. Syst. Neurosci. 2:4. A matrix is kept as its upper
triangle, row by row. A stimulus that was not shown (all its units NaN) has NaN dissimilarities; a
stimulus measured in some of its units alone is refused, for its distances would be on another
scale.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Values


@dataclass(frozen=True, eq=False)
class RDM:
    """Dissimilarities of stimuli.

    Attributes:
        dissimilarities: (pair,) float64, pairs (0, 1), (0, 2), ... of the upper triangle; NaN where
            a stimulus is missing.
        method: How they were measured.
        labels: Names of the stimuli.
    """

    dissimilarities: Float[Tensor, " pair"]
    method: str
    labels: tuple[str, ...]

    @property
    def n_stimuli(self) -> int:
        """Shown or missing."""
        return len(self.labels)

    @property
    def matrix(self) -> Float[Tensor, "stimulus stimulus"]:
        """The square matrix, 0 on its diagonal."""
        n = self.n_stimuli
        square = self.dissimilarities.new_zeros(n, n)
        first, second = torch.triu_indices(n, n, offset=1)
        square[first, second] = square[second, first] = self.dissimilarities
        return square

    def to_pandas(self) -> pd.DataFrame:
        """One row a pair: first, second, dissimilarity."""
        first, second = torch.triu_indices(self.n_stimuli, self.n_stimuli, offset=1).tolist()
        names = np.array(self.labels, dtype=object)
        return pd.DataFrame(
            {
                "first": names[first],
                "second": names[second],
                "dissimilarity": self.dissimilarities.numpy(force=True),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: None where a stimulus is missing."""
        values = self.dissimilarities.tolist()
        return {
            "method": self.method,
            "labels": list(self.labels),
            "dissimilarities": [None if math.isnan(value) else value for value in values],
        }


def rdm_from_vector(
    dissimilarities: Values, *, labels: Sequence[str] | None = None, method: str = "given"
) -> RDM:
    """An RDM from its upper triangle, row by row without the diagonal, or from a square matrix.

    Raises:
        ArgumentError: A number of pairs that no number of stimuli has, a matrix that is not
            symmetric, infinite entries, labels that do not fit.

    Example:
        >>> rdm_from_vector([1.0, 2.0, 3.0]).matrix
        tensor([[0., 1., 2.],
                [1., 0., 3.],
                [2., 3., 0.]], dtype=torch.float64)
    """
    values = torch.as_tensor(dissimilarities, dtype=torch.float64)
    if values.ndim == 2:
        if values.shape[0] != values.shape[1] or not torch.allclose(
            values, values.T, equal_nan=True
        ):
            raise ArgumentError(f"a matrix of shape {tuple(values.shape)} is not symmetric")
        first, second = torch.triu_indices(*values.shape, offset=1)
        values = values[first, second]
    if values.ndim != 1:
        raise ArgumentError(
            f"expected the pairs of one matrix, got shape {tuple(values.shape)}",
            fix="make an RDM of each subject",
        )
    n = round((1 + math.sqrt(1 + 8 * len(values))) / 2)
    if n * (n - 1) // 2 != len(values) or n < 2:
        raise ArgumentError(f"{len(values)} pairs are not those of any number of stimuli")
    if bool(values.isinf().any()):
        raise ArgumentError("a dissimilarity is infinite", fix="NaN marks what is missing")
    return RDM(values, method, _labels(labels, n))


def rdm(
    patterns: Values,
    method: str = "euclidean",
    *,
    precision: Float[Tensor, "unit unit"] | None = None,
    stimulus: Values | None = None,
    fold: Values | None = None,
    labels: Sequence[str] | None = None,
) -> RDM:
    """Dissimilarities of patterns of activity.

    Args:
        patterns: (stimulus, unit), or (observation, unit) with `stimulus`; rows that are all NaN
            are missing.
        method: "euclidean": squared distance over the number of units. "correlation": 1 minus
            Pearson's r. "mahalanobis": squared distance by `precision`, over the number of units.
            "crossnobis": the same with the two differences from different folds, so that it is
            unbiased and may be negative (Walther et al. 2016, NeuroImage 137:188-200).
        precision: Inverse covariance of the noise; the identity by default.
        stimulus: Of each observation, 0, 1, ...; repeated observations are averaged, for crossnobis
            within their fold.
        fold: Of each observation, for crossnobis; every stimulus is needed in each fold.
        labels: Names of the stimuli; "0", "1", ... by default.

    Raises:
        ArgumentError: An unknown method, shapes that do not fit, a stimulus measured in some units
            alone, a constant pattern under "correlation", a precision that is not symmetric and
            positive definite, folds missing or incomplete.

    Example:
        >>> rdm([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]]).dissimilarities
        tensor([12.5000,  8.0000,  4.5000], dtype=torch.float64)
    """
    if method not in METHODS:
        raise ArgumentError(
            f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}"
        )
    rows = torch.as_tensor(patterns, dtype=torch.float64)
    if rows.ndim != 2 or not rows.numel():
        raise ArgumentError(f"patterns must be (stimulus, unit), got shape {tuple(rows.shape)}")
    _check_measured(rows)
    if (precision is not None) and method not in ("mahalanobis", "crossnobis"):
        raise ArgumentError(f"{method!r} takes no precision of the noise")
    if (fold is not None) != (method == "crossnobis"):
        raise ArgumentError("folds belong to crossnobis, and crossnobis needs them")
    root = _root(precision, rows.shape[1])
    which = torch.arange(len(rows)) if stimulus is None else torch.as_tensor(stimulus)
    if which.shape != (len(rows),) or which.is_floating_point() or int(which.min()) < 0:
        raise ArgumentError("`stimulus` must hold a number 0, 1, ... for each row of the patterns")
    n = int(which.max()) + 1
    if n < 2:
        raise ArgumentError("a dissimilarity needs two stimuli")
    if fold is None:
        pairs = METHODS[method](_means(rows, which, n) @ root)
    else:
        pairs = _crossnobis(rows @ root, which, torch.as_tensor(fold), n)
    return RDM(pairs, method, _labels(labels, n))


def _euclidean(means: Float[Tensor, "stimulus unit"]) -> Float[Tensor, " pair"]:
    first, second = torch.triu_indices(len(means), len(means), offset=1)
    return (means[first] - means[second]).square().mean(dim=1)


def _correlation(means: Float[Tensor, "stimulus unit"]) -> Float[Tensor, " pair"]:
    centered = means - means.mean(dim=1, keepdim=True)
    size = torch.linalg.vector_norm(centered, dim=1, keepdim=True)
    flat = (size <= 1e-12 * torch.linalg.vector_norm(means, dim=1, keepdim=True)).sum()
    if int(flat):
        raise ArgumentError(
            f"{int(flat)} stimuli have the same value in all units, so their correlation is "
            "undefined",
            fix="leave them out or take 'euclidean'",
        )
    shape = centered / size
    first, second = torch.triu_indices(len(means), len(means), offset=1)
    return 1 - (shape[first] * shape[second]).sum(dim=1)


METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    "euclidean": _euclidean,
    "correlation": _correlation,
    "mahalanobis": _euclidean,  # of whitened patterns
    "crossnobis": _euclidean,  # of whitened patterns, see `_crossnobis`
}


def _crossnobis(
    rows: Float[Tensor, "observation unit"], which: Tensor, fold: Tensor, n: int
) -> Float[Tensor, " pair"]:
    """Mean over all ordered pairs of different folds of the product of their differences."""
    if fold.shape != which.shape:
        raise ArgumentError("`fold` must name a fold for each row of the patterns")
    folds = fold.unique()
    if len(folds) < 2:
        raise ArgumentError("crossnobis needs at least two folds")
    means = torch.stack([_means(rows[fold == f], which[fold == f], n) for f in folds])
    if bool((means.isnan().any(dim=2) != means.isnan().any(dim=2)[0]).any()):
        raise ArgumentError(
            "some stimuli are missing in some folds",
            fix="choose folds that show every stimulus, or leave these stimuli out of all",
        )
    first, second = torch.triu_indices(n, n, offset=1)
    apart = means[:, first] - means[:, second]  # (fold, pair, unit)
    total = apart.sum(dim=0).square() - apart.square().sum(dim=0)
    return total.mean(dim=1) / (len(folds) * (len(folds) - 1))


def _means(rows: Tensor, which: Tensor, n: int) -> Float[Tensor, "stimulus unit"]:
    """Mean of the observations of each stimulus; NaN where there is none."""
    known = ~rows.isnan().any(dim=1)
    total = rows.new_zeros(n, rows.shape[1]).index_add(0, which[known], rows[known])
    count = torch.bincount(which[known], minlength=n).unsqueeze(1)
    return torch.where(count > 0, total / count.clamp(min=1), math.nan)


def _check_measured(rows: Tensor) -> None:
    missing = rows.isnan()
    partial = int((missing.any(dim=1) & ~missing.all(dim=1)).sum())
    if partial:
        raise ArgumentError(
            f"{partial} patterns are NaN in some of their units alone",
            fix="leave these units out of all patterns, or set the whole patterns to NaN",
        )
    if bool(rows.isinf().any()):
        raise ArgumentError("a pattern is infinite somewhere", fix="NaN marks what is missing")


def _root(precision: Tensor | None, n_units: int) -> Float[Tensor, "unit unit"]:
    """R with R R' = precision, so that x R is whitened."""
    if precision is None:
        return torch.eye(n_units, dtype=torch.float64)
    P = torch.as_tensor(precision, dtype=torch.float64)
    if P.shape != (n_units, n_units) or not torch.allclose(P, P.T, rtol=1e-8):
        raise ArgumentError(f"the precision must be symmetric, ({n_units}, {n_units})")
    root, failed = torch.linalg.cholesky_ex(P)
    if int(failed):
        raise ArgumentError(
            "the precision of the noise is not positive definite",
            fix="shrink the covariance towards its diagonal before inverting it",
        )
    return root


def _labels(labels: Sequence[str] | None, n: int) -> tuple[str, ...]:
    named = tuple(str(k) for k in range(n)) if labels is None else tuple(labels)
    if len(named) != n:
        raise ArgumentError(f"{len(named)} labels for {n} stimuli")
    return named
