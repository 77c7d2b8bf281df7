"""Boundary controllability: regions that couple parts of a network, by recursive bisection.

The network is cut where its Fiedler vector changes sign, its parts again, and so on (Pasqualetti
et al. 2014, IEEE Trans. Control Netw. Syst. 1:40-52; Gu et al. 2015, Nat. Commun. 6:8414). Where
symmetry leaves a cut open, the answer for that part is "undecided", not the order of its regions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy import linalg
from scipy.sparse import csgraph
from torch import Tensor

from clinode.errors import ArgumentError

from .normalization import Weights, read_network


@dataclass(frozen=True, eq=False)
class BoundaryControllability:
    """Which cut first makes each region a boundary.

    Attributes:
        values: (region,): 1 / level, 0 where no cut makes it one, NaN where it is undecided.
        levels: (region,): 1 for the first cut, 2 for those of its parts; 0 for none.
        regions: Labels.
        undecided: Labels of regions in parts where symmetry leaves the cut open.
        statement: The definition, threshold and what was found, in words.
    """

    values: Float[Tensor, " region"]
    levels: Int[Tensor, " region"]
    regions: tuple[str, ...]
    undecided: tuple[str, ...]
    statement: str

    def to_pandas(self) -> pd.DataFrame:
        """One row a region: region, value, level."""
        columns = {"value": self.values.numpy(), "level": self.levels.numpy()}
        return pd.DataFrame({"region": list(self.regions), **columns})

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON; None where a value is undecided."""
        return {
            "kind": "boundary",
            "regions": list(self.regions),
            "values": [None if value != value else value for value in self.values.tolist()],
            "levels": self.levels.tolist(),
            "undecided": list(self.undecided),
            "statement": self.statement,
        }


def boundary_controllability(W: Weights, threshold: float = 0.0) -> BoundaryControllability:
    """At which cut of the network each region first has connections across it.

    A part is cut by the sign of the eigenvector of the second eigenvalue of its Laplacian. A region
    where that vector is zero to rounding lies on the cut itself. Parts that fall into pieces go on
    as pieces. Self weights do not count; of signed weights the absolute values, of directed ones
    the mean of both ways. In a dense network nearly every region has some connection across the
    first cut: then raise the threshold.

    Args:
        W: Weights (region, region), or a Connectome.
        threshold: A region is a boundary if more than this share of its strength within the part
            crosses the cut; 0 to 1. By default any connection counts.

    Raises:
        ArgumentError: Weights that are no square, finite matrix, or a threshold outside [0, 1).

    Example:
        >>> path = torch.diag(torch.ones(3), 1) + torch.diag(torch.ones(3), -1)
        >>> boundary_controllability(path).levels
        tensor([2, 1, 1, 2])
    """
    if not 0 <= threshold < 1:
        raise ArgumentError(f"threshold is a share from 0 to below 1, got {threshold}")
    weights, regions = read_network(W)
    strengths = weights.detach().abs().cpu().numpy()
    strengths = np.ldexp(strengths, -np.frexp(strengths.max())[1])  # sums would overflow
    strengths = (strengths + strengths.T) / 2
    np.fill_diagonal(strengths, 0.0)
    levels, open_ = _levels(strengths, threshold)
    values = np.where(levels > 0, 1 / np.maximum(levels, 1), np.where(open_, np.nan, 0.0))
    undecided = tuple(np.array(regions)[open_ & (levels == 0)].tolist())
    statement = (
        "boundary controllability: 1 / level of the first Fiedler cut that more than "
        f"{threshold:g} of a region's strength crosses; {int((levels == 1).sum())} of "
        f"{len(regions)} regions at level 1, {int(levels.max())} levels"
    )
    if undecided:
        statement += f", {len(undecided)} undecided (the Fiedler value of their part repeats)"
    return BoundaryControllability(
        torch.from_numpy(values), torch.from_numpy(levels), regions, undecided, statement
    )


def _levels(strengths: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """First level of each region, and which lie in parts that could not be cut."""
    levels = np.zeros(len(strengths), dtype=np.int64)
    open_ = np.zeros(len(strengths), dtype=bool)
    parts, level = _pieces(strengths, np.arange(len(strengths))), 0
    while parts:
        level += 1
        smaller = []
        for part in parts:
            own = strengths[part][:, part]
            side = _fiedler_side(own)
            if side is None:
                open_[part] = True
                continue
            crosses = _crossing(own, side) > threshold * own.sum(1)
            levels[part[crosses & (levels[part] == 0)]] = level
            for sign in (-1, 0, 1):
                smaller += _pieces(strengths, part[side == sign])
        parts = smaller
    return levels, open_


def _pieces(strengths: np.ndarray, part: np.ndarray) -> list[np.ndarray]:
    """Its connected pieces of two regions or more."""
    if len(part) < 2:
        return []
    count, piece = csgraph.connected_components(strengths[part][:, part] > 0, directed=False)
    pieces = [part[piece == k] for k in range(count)]
    return [piece for piece in pieces if len(piece) > 1]


def _fiedler_side(strengths: np.ndarray) -> np.ndarray | None:
    """-1, 0 or 1 for each region of a connected part; None where the cut is not unique.

    The eigenvector is known to error / gap (Davis & Kahan 1970), so an entry below that has no
    sign; where the gap itself is below the error of the eigenvalues, it has no direction.
    """
    n = len(strengths)
    if n == 2:
        return np.array([-1, 1])
    laplacian = np.diag(strengths.sum(1)) - strengths
    (second, third), vectors = linalg.eigh(laplacian, subset_by_index=[1, 2])
    error = n * np.finfo(float).eps * linalg.norm(laplacian, 1)
    gap = min(second, third - second)
    if gap <= 4 * error:
        return None
    fiedler = vectors[:, 0]
    return np.where(np.abs(fiedler) <= error / gap, 0, np.sign(fiedler)).astype(int)


def _crossing(strengths: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Strength of each region across the cut; on the cut itself, to the side it has less to."""
    low, high = strengths[:, side == -1].sum(1), strengths[:, side == 1].sum(1)
    return np.select([side == -1, side == 1], [high, low], np.minimum(low, high))
