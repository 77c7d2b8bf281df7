"""Relationship matrices of BIDS derivatives, `*_relmat.tsv`, and what lies beside them.

As in BIDS extension proposal 17, which is a proposal still. Read are: a dense square table
(`*_relmat.tsv` or `*_relmat.dense.tsv`), bare or with labels; from the sidecar `*_relmat.json` the
keys `Directed`, `NonNegative`, `ValidDiagonal` and `Axes` (its `NodeFile`); the names in the column
`label` or `name` of `*_nodeindices.tsv`, in the order of its `matrix_index`. Sparse matrices, and
sidecars further up in the folders, are not.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from clinode.errors import SchemaError

from .contents import Contents, Table, check_same_labels, decoded, rows_in

SUFFIXES = ("_relmat.tsv", "_relmat.dense.tsv")


def is_relmat(path: Path) -> bool:
    """Whether a file is one by its name."""
    return path.name.endswith(SUFFIXES)


def with_sidecar(path: Path, table: Table, labels: list[str] | None) -> Contents:
    """The table of a relmat with what its sidecar and its node file say.

    Args:
        path: Of the table.
        table: What it holds.
        labels: Those in the table itself, if it has any.

    Raises:
        SchemaError: A sidecar or node file that cannot be read or does not fit.
    """
    said = _sidecar(path)
    nodes = _node_labels(path, said)
    if labels is not None and nodes is not None:
        check_same_labels(labels, nodes, path.name, "labels of the table and of its node file")
    weights = table.values
    if said.get("ValidDiagonal") is False and weights.shape[0] == weights.shape[1]:
        weights = weights.copy()
        np.fill_diagonal(weights, 0.0)  # the file says that these numbers mean nothing
    return Contents(
        weights=weights,
        labels=nodes if labels is None else labels,
        is_directed=_claim(path, said, "Directed"),
        is_nonnegative=_claim(path, said, "NonNegative"),
    )


def _sidecar(path: Path) -> dict[str, Any]:
    beside = path.with_name(path.name.split("_relmat")[0] + "_relmat.json")
    if not beside.is_file():
        return {}
    try:
        said = json.loads(decoded(beside.read_bytes(), beside.name))
    except json.JSONDecodeError as error:
        raise SchemaError("not a text in JSON", where=beside.name) from error
    if not isinstance(said, dict):
        raise SchemaError("expected an object of keys", where=beside.name)
    return said


def _claim(path: Path, said: dict[str, Any], key: str) -> bool | None:
    value = said.get(key)
    if value is not None and not isinstance(value, bool):
        raise SchemaError(f"'{key}' of its sidecar must be true or false", where=path.name)
    return value


def _node_labels(path: Path, said: dict[str, Any]) -> list[str] | None:
    """Names from the node file that the sidecar names, or from the only one in the folder."""
    axes = said.get("Axes")
    axes = axes if isinstance(axes, list) else []
    named = [axis.get("NodeFile") for axis in axes if isinstance(axis, dict)]
    files = {path.with_name(Path(name).name) for name in named if isinstance(name, str)}
    if not files:
        files = set(path.parent.glob("*_nodeindices.tsv"))
    if len(files) != 1 or not (file := files.pop()).is_file():
        return None
    rows = rows_in(decoded(file.read_bytes(), file.name), "\t")
    if not rows:
        raise SchemaError("the file is empty", where=file.name)
    header = [cell.strip() for cell in rows[0]]
    column = next((header.index(name) for name in ("label", "name") if name in header), None)
    if column is None or "matrix_index" not in header:
        return None
    place = header.index("matrix_index")
    try:
        found = {int(row[place]): row[column].strip() for row in rows[1:]}
    except (ValueError, IndexError) as error:
        raise SchemaError("a row has no matrix_index or no label", where=file.name) from error
    first = min(found, default=0)
    if len(found) < len(rows) - 1 or sorted(found) != list(range(first, first + len(found))):
        raise SchemaError("matrix_index does not count the rows one by one", where=file.name)
    return [found[i] for i in sorted(found)]
