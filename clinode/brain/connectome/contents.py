"""What a file of a connectome held, and texts as numbers, before anything is made of either."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clinode.errors import SchemaError

SPACES = " "  # any run of blanks and tabs

Rows = list[list[str]]


@dataclass(frozen=True, eq=False)
class Contents:
    """What was found in a file; None where it was not.

    Attributes:
        weights: As the file has them, before they are turned.
        labels: Names of the regions.
        centers: (region, 3).
        tract_lengths: Oriented as the weights.
        is_directed: Whether the file says that it is.
        is_nonnegative: Whether the file says that it is.
    """

    weights: np.ndarray
    labels: list[str] | None = None
    centers: np.ndarray | None = None
    tract_lengths: np.ndarray | None = None
    is_directed: bool | None = None
    is_nonnegative: bool | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """A square or other table with labels above it, on its left, both, or none."""

    values: np.ndarray
    above: list[str] | None
    left: list[str] | None


def table_in(text: str, delimiter: str, where: str, what: str) -> Table:
    """Numbers with or without labels.

    Args:
        text: Of the file.
        delimiter: Between cells; `SPACES` for any white space.
        where: The file, for errors.
        what: How an error calls the numbers: "weights".

    Raises:
        SchemaError: No table of numbers; says which row and column.
    """
    try:
        rows = rows_in(text, delimiter)
    except csv.Error as error:
        raise SchemaError(f"not a table of cells: {error}", where=where) from error
    if not rows:
        raise SchemaError("the file is empty", where=where)
    above = left = None
    if any(not is_number(cell) for cell in rows[0][1:]) or (
        len(rows) == 1 and not is_number(rows[0][0])
    ):
        above, rows = [cell.strip() for cell in rows[0]], rows[1:]
    if rows and all(not is_number(row[0]) for row in rows):
        left, rows = [row[0].strip() for row in rows], [row[1:] for row in rows]
    if above is not None and left is not None and len(above) == len(left) + 1:
        above = above[1:]  # the corner above the labels
    if not any(rows):
        between = {"\t": "tabs", SPACES: "blanks"}.get(delimiter, f"'{delimiter}'")
        raise SchemaError(
            "there are labels and no numbers", where=where, fix=f"cells stand between {between}"
        )
    return Table(numbers_in(rows, where, what), above, left)


def rows_in(text: str, delimiter: str) -> Rows:
    """Cells of the lines that hold anything."""
    lines = text.splitlines()
    rows = (
        [line.split() for line in lines]
        if delimiter == SPACES
        else list(csv.reader(lines, delimiter=delimiter))
    )
    return [row for row in rows if any(cell.strip() for cell in row)]


def numbers_in(rows: Rows, where: str, what: str) -> np.ndarray:
    """Cells as numbers, (row, column).

    Raises:
        SchemaError: Rows of different lengths, or a cell that is no number.
    """
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise SchemaError(f"rows have between {min(widths)} and {max(widths)} cells", where=where)
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            if not is_number(cell):
                raise SchemaError(
                    f"row {i + 1}, column {j + 1} of the {what} is not a number",
                    where=where,
                    fix="write 0 where there is no connection" if what == "weights" else "",
                )
    return np.array(rows, dtype=np.float64).reshape(len(rows), -1)


def is_number(cell: str) -> bool:
    """Whether a cell is one, NaN and infinities included."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python would read 1_0 as ten


def decoded(raw: bytes, where: str) -> str:
    """Text of bytes in UTF-8.

    Raises:
        SchemaError: It is none.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SchemaError("not a text in UTF-8", where=where) from error


def check_same_labels(first: Sequence[str], second: Sequence[str], where: str, what: str) -> None:
    """Raise SchemaError at the first position where two lists of labels differ."""
    if list(first) == list(second):
        return
    if len(first) != len(second):
        problem = f"{what} differ: {len(first)} and {len(second)}"
    else:
        pairs = zip(first, second, strict=True)
        place = next(i for i, (one, other) in enumerate(pairs) if one != other)
        problem = f"{what} differ, first at {place + 1}: '{first[place]}' and '{second[place]}'"
    raise SchemaError(problem, where=where, fix="bring both into one order")
