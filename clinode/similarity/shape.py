"""Likeness of representations as clouds of points: distance after alignment, shared directions.

`procrustes_distance` is a metric (Williams, Kunz, Kornblith & Linderman 2021, NeurIPS): it is
symmetric, keeps the triangle inequality, and is 0 for representations that a rotation and a shift
turn into each other. `canonical_correlations` does not change under any invertible linear map of
the units, and therefore needs more stimuli than units.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.similarity.kernels import common_stimuli
from clinode.system import Values

RANK = 1e-10  # of the largest singular value: below, a direction is not spanned


def procrustes_distance(first: Values, second: Values, *, angular: bool = False) -> float:
    """Distance of two representations after the best rotation, both centred and of size 1.

    sqrt(2 - 2 |X' Y|_*) with |X| = |Y| = 1, or its angle arccos |X' Y|_*; the nuclear norm is what
    the best rotation reaches.

    Args:
        first: (stimulus, unit).
        second: (stimulus, other unit), of the same stimuli; the smaller is filled up with zeros.
            A stimulus that is all NaN in either is left out of both.
        angular: The angle in radians instead, a metric on the sphere of shapes.

    Raises:
        ArgumentError: Other numbers of stimuli, NaN in some units alone, no spread.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        >>> round(procrustes_distance(x, x @ torch.tensor([[0.0, 3.0], [-3.0, 0.0]])), 6)
        0.0
    """
    X, Y = (_of_size_one(Z) for Z in common_stimuli(first, second))
    reached = torch.linalg.svdvals(X.T @ Y).sum().clamp(max=1.0)
    return float(torch.arccos(reached) if angular else (2 - 2 * reached).sqrt())


@dataclass(frozen=True)
class CanonicalCorrelations:
    """Correlations between the directions that two representations share, largest first.

    Attributes:
        correlations: One a direction, as many as the smaller rank.
        mean: Their mean.
        n_stimuli: Stimuli that both have.
    """

    correlations: tuple[float, ...]
    mean: float
    n_stimuli: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "correlations": list(self.correlations)}


def canonical_correlations(first: Values, second: Values) -> CanonicalCorrelations:
    """Hotelling 1936, Biometrika 28:321-377, from orthonormal bases of the two representations.

    Args:
        first: (stimulus, unit).
        second: (stimulus, other unit), of the same stimuli.

    Raises:
        ArgumentError: As many units as stimuli or more, for then every representation can be mapped
            on every other and all correlations are 1; other numbers of stimuli; no spread.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 0.0], [3.0, 5.0], [0.0, 7.0]])
        >>> round(canonical_correlations(x, x @ torch.tensor([[1.0, 2.0], [0.0, 1.0]])).mean, 9)
        1.0
    """
    X, Y = common_stimuli(first, second)
    bases = [_orthonormal(Z) for Z in (X, Y)]
    taken = bases[0].shape[1] + bases[1].shape[1]
    if taken >= len(X):
        raise ArgumentError(
            f"{len(X)} stimuli are too few for {X.shape[1]} and {Y.shape[1]} units, which span "
            f"{taken} dimensions: directions would agree by chance",
            fix="show more stimuli, take principal components, or ask cka or procrustes_distance",
        )
    found = torch.linalg.svdvals(bases[0].T @ bases[1]).clamp(max=1.0)
    return CanonicalCorrelations(tuple(found.tolist()), float(found.mean()), len(X))


def _of_size_one(Z: Tensor) -> Float[Tensor, "stimulus unit"]:
    centred = Z - Z.mean(dim=0)
    size = torch.linalg.matrix_norm(centred)
    if not size > 0:
        raise ArgumentError("a representation is the same for all stimuli, so it has no shape")
    return centred / size


def _orthonormal(Z: Tensor) -> Float[Tensor, "stimulus direction"]:
    U, size, _ = torch.linalg.svd(_of_size_one(Z), full_matrices=False)
    return U[:, size > RANK * size[0]]
