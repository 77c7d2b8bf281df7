"""Tables that leave the program as files."""

import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clinode.errors import ArgumentError
from clinode.folder import atomic_write
from clinode.spreadsheet import csv_text

ENDINGS = (".csv", ".parquet")


def check_ending(path: Path) -> None:
    """Refuse a file name that does not say what is to be written.

    Raises:
        ArgumentError: It ends neither in .csv nor in .parquet.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ArgumentError(
            f"expected a name that ends in {' or '.join(ENDINGS)}, got {path.name!r}"
        )


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table whole or not at all, as CSV or Parquet by the ending of its name.

    Text that a spreadsheet would run as a formula gets a quote before it in CSV; numbers are
    written with every digit. A column of Parquet that holds numbers and texts (values of measured
    and of categorical quantities) is written as text.

    Raises:
        ArgumentError: The ending is another.
        OutputError: The place cannot be written to.
        ResourceError: The disk is full.
    """
    check_ending(path)
    if path.suffix.lower() == ".parquet":
        paper = io.BytesIO()
        _of_one_kind(table).to_parquet(paper, index=False)
        atomic_write(path, paper.getvalue())
        return
    atomic_write(path, csv_text(table))


def write_arrow(table: pa.Table, path: Path) -> None:
    """Write a table as Parquet, its types as they are, whole or not at all.

    Raises:
        OutputError: The place cannot be written to.
        ResourceError: The disk is full.
    """
    paper = io.BytesIO()
    pq.write_table(table, paper)
    atomic_write(path, paper.getvalue())


def _of_one_kind(table: pd.DataFrame) -> pd.DataFrame:
    """The table with every column of numbers and texts as one of texts, numbers in full."""
    mixed = {
        str(name): column.map(str, na_action="ignore")
        for name, column in table.items()
        if column.dtype == object and not _is_one_kind(column)
    }
    return table.assign(**mixed) if mixed else table


def _is_one_kind(column: pd.Series) -> bool:
    is_text = [isinstance(cell, str) for cell in column[column.notna()]]
    return all(is_text) or not any(is_text)
