"""Connectomes from files: one door for every format."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clinode.errors import ArgumentError, SchemaError

from .archives import read_mat, read_npz, read_tvb
from .bids import is_relmat, with_sidecar
from .connectome import Connectome
from .contents import SPACES, Contents, check_same_labels, decoded, table_in

DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": SPACES}
ARCHIVES: dict[str, Callable[[Path, Mapping[str, str]], Contents]] = {
    ".npz": read_npz,
    ".mat": read_mat,
    ".zip": read_tvb,
}

Numbers = str | Path | np.ndarray | Tensor | Sequence[Sequence[float]]


def read_connectome(
    path: str | Path,
    labels: str | Path | Sequence[str] | None = None,
    *,
    rows: str = "targets",
    centers: Numbers | None = None,
    tract_lengths: Numbers | None = None,
    arrays: Mapping[str, str] | None = None,
) -> Connectome:
    """A connectome from a file; all of it or nothing.

    Files:
        `.npz`: arrays `weights`, and where there are any `labels`, `centers` (or `centres`),
            `tract_lengths` (or `lengths`), nothing pickled.
        `.mat`: the same of Matlab up to version 7; without `weights` the only square matrix.
        `.zip`: of The Virtual Brain, see `read_tvb`.
        `*_relmat.tsv`, `*_relmat.dense.tsv`: of BIDS derivatives, see `clinode.brain.connectome.
            bids` for what of them is read.
        `.csv`, `.tsv`, `.txt` (blanks): a square table of weights, bare or with labels as its
            first row, its first column, or both.

    Labels that occur more than once are numbered (`rLOF_1`, `rLOF_2`, ...). Regions without labels
    are `region_1`, `region_2`, ...

    Args:
        path: The file.
        labels: Names of the regions, or a text file with one a line; else those in the file.
        rows: What a row of the file's weights stands for: "targets" if row i holds what region i
            receives, "sources" if what it sends. It matters only for directed connectomes.
        centers: Of the regions, mm, (region, 3), or a table of them; else those in the file.
        tract_lengths: In mm, (region, region), or a table; else those in the file.
        arrays: What an `.npz` or `.mat` calls its parts, where it is not as above:
            `{"weights": "SC", "tract_lengths": "distances"}`.

    Raises:
        ArgumentError: No such file, another kind of file, another word for `rows`.
        SchemaError: A file that cannot be read as a connectome; says where and why.
    """
    path = Path(path)
    if rows not in ("targets", "sources"):
        raise ArgumentError(f"rows must be 'targets' or 'sources', got {rows!r}")
    found = _contents(path, arrays or {})
    names = found.labels if labels is None else _given_labels(labels)
    if names is None:
        names = [f"region_{i + 1}" for i in range(len(found.weights))]
    places = found.centers if centers is None else _given(centers, names, "centers")
    lengths = found.tract_lengths
    if tract_lengths is not None:
        lengths = _given(tract_lengths, names, "tract lengths")
    weights = found.weights
    if rows == "sources":
        weights, lengths = weights.T, None if lengths is None else lengths.T
    try:
        connectome = Connectome(
            torch.tensor(weights),
            tuple(_numbered(names)),
            centers=None if places is None else torch.tensor(places),
            tract_lengths=None if lengths is None else torch.tensor(lengths),
        )
    except ArgumentError as error:
        raise SchemaError(error.problem, where=path.name, fix=error.fix) from error
    _check_claims(path, found, connectome)
    return connectome


def _contents(path: Path, arrays: Mapping[str, str]) -> Contents:
    suffix = path.suffix.lower()
    if suffix not in (*ARCHIVES, *DELIMITERS):
        known = ", ".join((*ARCHIVES, *DELIMITERS))
        raise ArgumentError(f"a connectome is read from {known}, got '{path.name}'")
    if not path.is_file():
        raise ArgumentError("there is no such file", where=path.name)
    if suffix in ARCHIVES:
        return ARCHIVES[suffix](path, arrays)
    if arrays:
        raise ArgumentError("a table is one array: arrays is for .npz and .mat", where=path.name)
    table = table_in(_text(path), DELIMITERS[suffix], path.name, "weights")
    if table.above is not None and table.left is not None:
        check_same_labels(table.above, table.left, path.name, "labels of rows and of columns")
    labels = table.left if table.above is None else table.above
    if is_relmat(path):
        return with_sidecar(path, table, labels)
    return Contents(table.values, labels)


def _given(values: Numbers, names: Sequence[str], what: str) -> np.ndarray:
    """Numbers of the regions from the caller, or from a table whose labels must be theirs."""
    if not isinstance(values, (str, Path)):
        return np.asarray(values, dtype=np.float64)
    path = Path(values)
    if path.suffix.lower() not in DELIMITERS:
        raise ArgumentError(
            f"{what} are read from {', '.join(DELIMITERS)}, got '{path.name}'",
        )
    if not path.is_file():
        raise ArgumentError(f"there is no such file of {what}", where=path.name)
    table = table_in(_text(path), DELIMITERS[path.suffix.lower()], path.name, what)
    if table.left is not None:
        check_same_labels(names, table.left, path.name, f"labels of the regions and of the {what}")
    return table.values


def _given_labels(labels: str | Path | Sequence[str]) -> list[str]:
    if not isinstance(labels, (str, Path)):
        return [str(label) for label in labels]
    path = Path(labels)
    if not path.is_file():
        raise ArgumentError("there is no such file of labels", where=path.name)
    return [line.strip() for line in _text(path).splitlines() if line.strip()]


def _check_claims(path: Path, found: Contents, connectome: Connectome) -> None:
    """Raise SchemaError where a file says of itself what its numbers deny."""
    if found.is_directed is False and connectome.is_directed:
        raise SchemaError(
            "its sidecar says undirected, and the matrix is not symmetric", where=path.name
        )
    if found.is_nonnegative and (connectome.weights < 0).any():
        raise SchemaError(
            "its sidecar says that no weight is negative, and some are", where=path.name
        )


def _numbered(labels: Sequence[str]) -> list[str]:
    """Labels that occur more than once with a number each, in their order."""
    counts, met, out = Counter(labels), Counter(), []
    for label in labels:
        met[label] += 1
        out.append(f"{label}_{met[label]}" if counts[label] > 1 and label else label)
    return out


def _text(path: Path) -> str:
    return decoded(path.read_bytes(), path.name)
