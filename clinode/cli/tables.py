"""Tables that leave the program as files."""

import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clinode.errors import ArgumentError, SchemaError
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


def read_table(path: Path) -> pd.DataFrame:
    """Read CSV, or Parquet by the ending of the name.

    Raises:
        ArgumentError: The ending of its name is another.
        SchemaError: There is no such file, or it is no such table. No cell is told.
    """
    from clinode.cohort.sources import kind_of

    if not path.is_file():
        raise SchemaError("there is no such file", where=path.name)
    kind = kind_of(path)
    if not kind:
        raise ArgumentError("expected a file of CSV or Parquet", where=path.name)
    try:
        if kind == "parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path)
    except (ValueError, OSError, EOFError):  # theirs of pandas and Arrow, which quote cells
        raise SchemaError(
            "it cannot be read as a table",
            where=path.name,
            fix="give CSV as UTF-8 with one header, or Parquet",
        ) from None


def columns_in_words(table: pd.DataFrame) -> str:
    """What the columns are called, in so far as they are names."""
    from clinode.cohort.columns import shown_columns

    return ", ".join(shown_columns([str(name) for name in table.columns]))


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
