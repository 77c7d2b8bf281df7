"""Connectomes: which region influences which, how strongly, over what distance.

Read from files, or generated where none is at hand. What cannot be a connectome is refused; what
may be meant or may be a mistake (negative or self weights, isolated regions, separate parts) is
kept and said by `Connectome.findings`.
"""

import csv
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csgraph
from torch import Tensor

from clinode.errors import ArgumentError, SchemaError


@dataclass(frozen=True)
class Finding:
    """Something about a connectome that its user should know.

    Attributes:
        kind: "negative weights", "self weights", "isolated regions", "disconnected parts" or
            "one-way parts".
        message: In words.
        regions: Labels of the regions concerned; of parts, those outside the largest.
    """

    kind: str
    message: str
    regions: tuple[str, ...]


@dataclass(frozen=True, eq=False)
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
        return tuple(one for one in found if one is not None)

    @property
    def verdict(self) -> str:
        """Size, direction and findings in words."""
        n_edges = int((self.weights != 0).sum())
        kind = "directed" if self.is_directed else "undirected"
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


def read_connectome(
    path: str | Path,
    labels: str | Path | Sequence[str] | None = None,
    *,
    rows: str = "targets",
) -> Connectome:
    """A connectome from a file.

    Files: `.npz` with the arrays `weights`, and where there are any `labels`, `centres` (or
    `centers`), `tract_lengths` (or `lengths`), nothing pickled; `.csv` and `.tsv` with a square
    table of weights, bare or with labels as its first row, its first column, or both.

    Labels that occur more than once are numbered (`rLOF_1`, `rLOF_2`, ...). Regions without labels
    are `region_1`, `region_2`, ...

    Args:
        path: The file.
        labels: Names of the regions, or a text file with one a line; else those in the file.
        rows: What a row of the file's weights stands for: "targets" if row i holds what region i
            receives, "sources" if what it sends. It matters only for directed connectomes.

    Raises:
        ArgumentError: No such file, another kind of file, another word for `rows`.
        SchemaError: A file that cannot be read as a connectome; says where and why.
    """
    path = Path(path)
    if rows not in ("targets", "sources"):
        raise ArgumentError(f"rows must be 'targets' or 'sources', got {rows!r}")
    if path.suffix.lower() not in _READERS:
        known = ", ".join(_READERS)
        raise ArgumentError(f"a connectome is read from {known}, got '{path.name}'")
    if not path.is_file():
        raise ArgumentError("there is no such file", where=path.name)
    arrays, own_labels = _READERS[path.suffix.lower()](path)
    names = own_labels if labels is None else _given_labels(labels)
    weights, lengths = arrays["weights"], arrays.get("tract_lengths")
    if names is None:
        names = [f"region_{i + 1}" for i in range(len(weights))]
    if rows == "sources":
        weights, lengths = weights.T, None if lengths is None else lengths.T
    centers = arrays.get("centers")
    try:
        return Connectome(
            torch.tensor(weights),
            tuple(_numbered(names)),
            centers=None if centers is None else torch.tensor(centers),
            tract_lengths=None if lengths is None else torch.tensor(lengths),
        )
    except ArgumentError as error:
        raise SchemaError(error.problem, where=path.name, fix=error.fix) from error


def simulate_connectome(n_regions: int = 68, seed: int = 0) -> Connectome:
    """A generated connectome of two hemispheres with named regions: nobody's brain.

    Regions have the names and the rough places of the 34 cortical areas of Desikan et al. 2006
    (NeuroImage 31:968-980), `lh_precuneus`; above 68 areas are divided (`lh_precuneus_2`). Weights
    fall exponentially with distance (the rule of Ercsey-Ravasz et al. 2013, Neuron 80:184-197),
    times log-normal variation; between hemispheres they are weak except between mirrored regions.
    The strongest three tenths are kept, and what it takes to join all regions. Undirected, the
    largest weight is 1.

    Args:
        n_regions: Even, at least 4.
        seed: Of the random draws.

    Raises:
        ArgumentError: An odd number of regions, or less than 4.

    Example:
        >>> simulate_connectome(68, seed=1).verdict
        '68 regions, 1368 weights, undirected'
    """
    if n_regions < 4 or n_regions % 2:
        raise ArgumentError(f"two hemispheres need an even number from 4 on, got {n_regions}")
    rng = np.random.default_rng(seed)
    half = n_regions // 2
    names, places = [], []
    for i in range(half):
        name, place = _AREAS[i % len(_AREAS)]
        division = i // len(_AREAS)
        names.append(name if division == 0 else f"{name}_{division + 1}")
        places.append(np.array(place) + (division > 0) * rng.normal(0, 8, 3))
    right = np.stack(places)
    centers = np.concatenate([right * [-1, 1, 1], right]) + rng.normal(0, 2, (n_regions, 3))
    distance = np.linalg.norm(centers[:, None] - centers, axis=-1)
    weights = _distance_rule(distance, rng)
    return Connectome(
        weights=torch.tensor(weights / weights.max()),
        labels=tuple(f"{side}_{name}" for side in ("lh", "rh") for name in names),
        centers=torch.tensor(centers),
        tract_lengths=torch.tensor(_CURVATURE * distance * (weights > 0)),
    )


_DECAY_MM = 25.0  # distance over which a weight falls to 1 / e
_VARIATION = 0.8  # standard deviation of the logarithm of a weight about the rule
_BETWEEN = 0.2  # weight between hemispheres, relative to the same distance within one
_MIRRORED = 0.3  # weight between mirrored regions, relative to that of touching ones
_DENSITY = 0.3
_CURVATURE = 1.2  # length of a tract relative to the straight line


def _distance_rule(distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = len(distance)
    half = n // 2
    weights = np.exp(-distance / _DECAY_MM)
    weights[:half, half:] *= _BETWEEN
    mirrored = np.arange(half)
    weights[mirrored, mirrored + half] = _MIRRORED
    weights *= np.exp(rng.normal(0, _VARIATION, (n, n)))
    weights = np.triu(weights, 1)
    kept = weights >= np.quantile(weights[np.triu_indices(n, 1)], 1 - _DENSITY)
    strongest_tree = csgraph.minimum_spanning_tree(np.where(weights > 0, 1 / (1 + weights), 0.0))
    kept |= strongest_tree.toarray() > 0
    weights = weights * kept
    return weights + weights.T


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


def _numbered(labels: Sequence[str]) -> list[str]:
    """Labels that occur more than once with a number each, in their order."""
    counts, met, out = Counter(labels), Counter(), []
    for label in labels:
        met[label] += 1
        out.append(f"{label}_{met[label]}" if counts[label] > 1 and label else label)
    return out


def _given_labels(labels: str | Path | Sequence[str]) -> list[str]:
    if not isinstance(labels, (str, Path)):
        return [str(label) for label in labels]
    path = Path(labels)
    if not path.is_file():
        raise ArgumentError("there is no such file of labels", where=path.name)
    return [line.strip() for line in _text(path).splitlines() if line.strip()]


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], list[str] | None]:
    aliases = {"centres": "centers", "lengths": "tract_lengths"}
    wanted = ("weights", "centers", "tract_lengths", *aliases, "labels")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            found = {aliases.get(key, key): stored[key] for key in wanted if key in stored.files}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise SchemaError(
            "not an archive of plain arrays", where=path.name, fix="save it with numpy.savez"
        ) from error
    labels = found.pop("labels", None)
    if "weights" not in found:
        raise SchemaError("there is no array 'weights'", where=path.name)
    for name, array in found.items():
        if array.dtype.kind not in "fiub":
            raise SchemaError(f"'{name}' holds {array.dtype}, expected numbers", where=path.name)
    arrays = {name: array.astype(np.float64) for name, array in found.items()}
    return arrays, None if labels is None else [str(label) for label in labels.ravel()]


def _read_table(path: Path, delimiter: str) -> tuple[dict[str, np.ndarray], list[str] | None]:
    lines = _text(path).splitlines()
    table = [row for row in csv.reader(lines, delimiter=delimiter) if any(c.strip() for c in row)]
    if not table:
        raise SchemaError("the file is empty", where=path.name)
    top = left = None
    if any(not _is_number(cell) for cell in table[0][1:]) or len(table) == 1:
        top, table = [cell.strip() for cell in table[0]], table[1:]
    if table and all(not _is_number(row[0]) for row in table):
        left, table = [row[0].strip() for row in table], [row[1:] for row in table]
    if top is not None and left is not None and len(top) == len(left) + 1:
        top = top[1:]  # the corner above the labels
    if top is not None and left is not None and top != left:
        raise SchemaError("labels of rows and of columns differ", where=path.name)
    return {"weights": _numbers(table, path)}, top if top is not None else left


def _numbers(table: list[list[str]], path: Path) -> np.ndarray:
    widths = {len(row) for row in table}
    if len(widths) > 1:
        raise SchemaError(
            f"rows have between {min(widths)} and {max(widths)} cells", where=path.name
        )
    for i, row in enumerate(table):
        for j, cell in enumerate(row):
            if not _is_number(cell):
                raise SchemaError(
                    f"row {i + 1}, column {j + 1} of the weights is not a number",
                    where=path.name,
                    fix="write 0 where there is no connection",
                )
    return np.array(table, dtype=np.float64).reshape(len(table), -1)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SchemaError("not a text in UTF-8", where=path.name) from error


_READERS = {
    ".npz": _read_npz,
    ".csv": lambda path: _read_table(path, ","),
    ".tsv": lambda path: _read_table(path, "\t"),
}

# Names of Desikan et al. 2006 with rough centers in the right hemisphere (mm), no atlas's values.
_AREAS = (
    ("precuneus", (10, -58, 36)),
    ("superiorfrontal", (12, 26, 40)),
    ("insula", (38, 0, 2)),
    ("precentral", (40, -8, 44)),
    ("superiorparietal", (22, -62, 50)),
    ("superiortemporal", (54, -14, -4)),
    ("pericalcarine", (12, -80, 6)),
    ("posteriorcingulate", (6, -18, 38)),
    ("entorhinal", (24, -8, -34)),
    ("lateralorbitofrontal", (24, 28, -16)),
    ("rostralmiddlefrontal", (34, 42, 18)),
    ("inferiorparietal", (44, -66, 28)),
    ("middletemporal", (56, -24, -14)),
    ("lateraloccipital", (32, -88, 0)),
    ("postcentral", (44, -22, 46)),
    ("rostralanteriorcingulate", (6, 36, 4)),
    ("fusiform", (36, -44, -20)),
    ("parahippocampal", (25, -32, -16)),
    ("supramarginal", (52, -34, 32)),
    ("caudalmiddlefrontal", (36, 10, 48)),
    ("inferiortemporal", (50, -32, -26)),
    ("medialorbitofrontal", (6, 36, -16)),
    ("cuneus", (8, -80, 18)),
    ("lingual", (14, -66, -4)),
    ("paracentral", (8, -28, 58)),
    ("isthmuscingulate", (10, -46, 16)),
    ("caudalanteriorcingulate", (6, 17, 28)),
    ("parsopercularis", (46, 14, 14)),
    ("parstriangularis", (46, 30, 4)),
    ("parsorbitalis", (42, 38, -12)),
    ("bankssts", (52, -42, 8)),
    ("transversetemporal", (46, -20, 8)),
    ("temporalpole", (30, 12, -34)),
    ("frontalpole", (10, 62, -10)),
)
