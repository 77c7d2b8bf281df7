"""Regions and the connections between them, and what their user should know about them.

What cannot be a connectome is refused; what may be meant or may be a mistake (negative or self
weights, isolated regions, separate parts) is kept and said by `Connectome.findings`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csgraph
from torch import Tensor

from clinode.errors import ArgumentError


@dataclass(frozen=True)
class Finding:
    """Something about a connectome that its user should know.

    Attributes:
        kind: "negative weights", "self weights", "isolated regions", "disconnected parts",
            "one-way parts" or "zero lengths".
        message: In words.
        regions: Labels of the regions concerned; of parts, those outside the largest.
    """

    kind: str
    message: str
    regions: tuple[str, ...]


@dataclass(frozen=True, eq=False, slots=True)  # slots: compiled fields tell it by identity
class Connectome:
    """Regions and the connections between them.

    Attributes:
        weights: (region, region): weights[i, j] is the influence of region j on region i, in
            arbitrary units, 0 where there is no connection.
        labels: Names of the regions, distinct.
        centers: (region, 3), in mm, or None.
        tract_lengths: (region, region), in mm, oriented as the weights, or None.

    Raises:
        ArgumentError: Weights that are not square, finite and of at least one region; labels,
            centers or lengths of another number or not finite; empty or repeated labels; lengths
            below zero.
    """

    weights: Tensor  # shapes are checked below, by our own words
    labels: tuple[str, ...]
    centers: Tensor | None = None
    tract_lengths: Tensor | None = None

    def __post_init__(self):
        object.__setattr__(self, "labels", tuple(str(label) for label in self.labels))
        for name in ("weights", "centers", "tract_lengths"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, torch.as_tensor(value).to(torch.float64))
        _check_numbers(self)
        _check_labels(self.labels, self.n_regions)

    @property
    def n_regions(self) -> int:
        """Number of regions."""
        return len(self.weights)

    @property
    def is_directed(self) -> bool:
        """Whether some weight differs from that of the way back."""
        return not torch.equal(self.weights, self.weights.T)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What its user should know, in the order of `Finding.kind`; empty if nothing."""
        weights = self.weights.numpy()
        edges = (weights != 0) & ~np.eye(len(weights), dtype=bool)
        negative = np.asarray((weights < 0).any(axis=1))
        own = np.asarray(np.diag(weights) != 0)
        isolated = np.asarray(~(edges.any(axis=0) | edges.any(axis=1)))
        found = [
            self._finding("negative weights", negative, "negative weights into {}"),
            self._finding("self weights", own, "self weights at {}"),
            self._finding("isolated regions", isolated, "no connections at {}"),
        ]
        count, outside = _outside_largest(edges, isolated, connection="weak")
        message = f"{count} separate parts, {{}} outside the largest"
        found.append(self._finding("disconnected parts", outside, message))
        if count == 1:
            count, outside = _outside_largest(edges, isolated, connection="strong")
            message = "no way there or no way back for {}"
            found.append(self._finding("one-way parts", outside, message))
        if self.tract_lengths is not None:
            short = np.asarray((edges & (self.tract_lengths.numpy() == 0)).any(axis=1))
            found.append(self._finding("zero lengths", short, "connections of length 0 into {}"))
        return tuple(one for one in found if one is not None)

    @property
    def verdict(self) -> str:
        """Size, direction and findings in words."""
        n_edges = int((self.weights != 0).sum())
        kind = "directed (a row receives)" if self.is_directed else "undirected"
        text = f"{self.n_regions} regions, {n_edges} weights, {kind}"
        return "; ".join([text, *(one.message for one in self.findings)])

    def scaled(self) -> "Connectome":
        """Weights divided by the largest total (of absolute weights) that a region receives."""
        most = self.weights.abs().sum(-1).max()
        return replace(self, weights=self.weights / most) if most > 0 else self

    def without_self_weights(self) -> "Connectome":
        """The same with a zero diagonal."""
        return replace(self, weights=self.weights - torch.diag(self.weights.diagonal()))

    def permuted(self, order: Sequence[int] | np.ndarray) -> "Connectome":
        """Its regions in another order; a selection of them if some are left out.

        Raises:
            ArgumentError: A position that does not exist or is named twice.
        """
        index = torch.as_tensor(order, dtype=torch.long)
        if index.ndim != 1 or not len(index) or index.min() < 0 or index.max() >= self.n_regions:
            raise ArgumentError(f"order names positions from 0 to {self.n_regions - 1}")
        centers, lengths = self.centers, self.tract_lengths
        return Connectome(
            weights=self.weights[index][:, index],
            labels=tuple(self.labels[i] for i in index.tolist()),
            centers=None if centers is None else centers[index],
            tract_lengths=None if lengths is None else lengths[index][:, index],
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row a region: label, connections, what it receives and sends, its center."""
        edges = self.weights != 0
        columns: dict[str, Any] = {
            "region": list(self.labels),
            "connections in": edges.sum(1).numpy(),
            "connections out": edges.sum(0).numpy(),
            "strength in": self.weights.sum(1).numpy(),
            "strength out": self.weights.sum(0).numpy(),
        }
        if self.centers is not None:
            columns |= {f"{axis} (mm)": self.centers[:, i].numpy() for i, axis in enumerate("xyz")}
        return pd.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return {
            "labels": list(self.labels),
            "weights": self.weights.tolist(),
            "orientation": "weights[i][j] is the influence of region j on region i",
            "centers": None if self.centers is None else self.centers.tolist(),
            "tract_lengths": None if self.tract_lengths is None else self.tract_lengths.tolist(),
            "verdict": self.verdict,
        }

    def _finding(self, kind: str, which: np.ndarray, message: str) -> Finding | None:
        regions = tuple(np.array(self.labels)[which].tolist())
        if not regions:
            return None
        count = f"{len(regions)} region{'s' if len(regions) > 1 else ''}"
        shown = ", ".join(regions[:3]) + (", ..." if len(regions) > 3 else "")
        return Finding(kind, f"{message.format(count)} ({shown})", regions)


def _check_numbers(connectome: Connectome) -> None:
    weights = connectome.weights
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or not len(weights):
        raise ArgumentError(
            f"weights have shape {tuple(weights.shape)}, expected a square matrix",
            fix="one row and one column for each region",
        )
    n = len(weights)
    shapes = {"weights": (n, n), "centers": (n, 3), "tract_lengths": (n, n)}
    for name, shape in shapes.items():
        value = getattr(connectome, name)
        if value is None:
            continue
        if value.shape != shape:
            raise ArgumentError(f"{name} have shape {tuple(value.shape)}, expected {shape}")
        bad = ~value.isfinite()
        if bad.any():
            row, column = (int(i) + 1 for i in bad.nonzero()[0])
            raise ArgumentError(
                f"{name} have {int(bad.sum())} entries that are not finite, the first in row "
                f"{row}, column {column}"
            )
    lengths = connectome.tract_lengths
    if lengths is not None and (lengths < 0).any():
        raise ArgumentError(f"{int((lengths < 0).sum())} tract lengths are negative")


def _check_labels(labels: tuple[str, ...], n: int) -> None:
    if len(labels) != n:
        raise ArgumentError(f"{len(labels)} labels for {n} regions")
    if any(not label.strip() for label in labels):
        raise ArgumentError("a region has an empty label")
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        raise ArgumentError(
            f"{len(repeated)} labels stand for more than one region, '{repeated[0]}' among them",
            fix="labels must be distinct",
        )


def _outside_largest(
    edges: np.ndarray, isolated: np.ndarray, *, connection: str
) -> tuple[int, np.ndarray]:
    """The number of parts that the connected regions fall into; which lie outside the largest."""
    _, part = csgraph.connected_components(edges, directed=True, connection=connection)
    sizes = np.bincount(part[~isolated], minlength=part.max() + 1)
    return int((sizes > 0).sum()), ~isolated & (part != sizes.argmax())
