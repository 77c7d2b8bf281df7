"""Tables as they arrive: CSV, Parquet or a DataFrame, opened as relations of DuckDB.

Nothing is interpreted here. A CSV file is text in every column, so that the number grammar and the
missing tokens are ours and not a sniffer's; a Parquet file keeps its types. What cannot be read is
refused with file, line and column, and never with the content of a cell.
"""

import csv
import gzip
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clinode.errors import ResourceError, SchemaError
from clinode.folder import is_disk_full

CSV_ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt")
PARQUET_ENDINGS = (".parquet", ".parq", ".pq")
DELIMITERS = (",", ";", "\t", "|")
LONGEST_LINE = 1_000_000  # bytes; longer than any record of measurements, shorter than memory
BUFFER_BYTES = 4 * LONGEST_LINE  # of a CSV file at a time; DuckDB's own choice is sixteen lines


@dataclass(frozen=True)
class Source:
    """One table, possibly in several files, ready to be selected from.

    Args:
        name: For messages: the name of the file, or what the table is.
        relation: What stands behind FROM.
        columns: DuckDB type by column name, in order.
        files: Where the rows are, in their order; empty for a table in memory.
        delimiter: Of a CSV file, else empty.
        labels: What messages call each file; its name where left out.
        header: Columns of the files, where the relation adds some.
    """

    name: str
    relation: str
    columns: dict[str, str]
    files: tuple[Path, ...] = ()
    delimiter: str = ""
    labels: tuple[str, ...] = ()
    header: tuple[str, ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether every cell is still text."""
        return bool(self.delimiter)


def open_source(
    connection: duckdb.DuckDBPyConnection, table: Any, name: str, *, view: str
) -> Source:
    """Open a path, several paths of one table, a DataFrame or an Arrow table.

    Args:
        connection: Where a table in memory is registered.
        table: What to open.
        name: What it is, for messages about tables in memory.
        view: A name for the view, not used before on this connection.

    Raises:
        SchemaError: It is missing, empty, not of a known kind, not UTF-8, or its header is not one.
    """
    if isinstance(table, pd.DataFrame):
        return _open_arrow(connection, _arrow(table, name), name, view)
    if isinstance(table, pa.Table):
        return _open_arrow(connection, table, name, view)
    paths = [Path(table)] if isinstance(table, str | Path) else [Path(part) for part in table]
    if len(paths) == 1 and paths[0].is_dir():
        paths = sorted(part for part in paths[0].rglob("*") if kind_of(part))
    if not paths:
        raise SchemaError("there is no table", where=name, fix="give CSV or Parquet files")
    for path in paths:
        if not path.is_file():
            raise SchemaError("the file is missing", where=path.name, fix="check the path")
        if path.stat().st_size == 0:
            raise SchemaError("the file is empty", where=path.name, fix="export it again")
    kinds = {kind_of(path) for path in paths}
    if kinds == {"parquet"}:
        return _open_parquet(paths)
    if kinds == {"csv"}:
        return _open_csv(paths)
    raise SchemaError(
        f"the ending {paths[0].suffix!r} is neither of CSV nor of Parquet",
        where=paths[0].name,
        fix=f"use one of {', '.join(CSV_ENDINGS + PARQUET_ENDINGS)}",
    )


def kind_of(path: Path) -> str:
    """ "csv", "parquet", or "" for what is neither, by the ending of the name."""
    name = path.name.lower()
    if name.startswith("."):
        return ""
    if name.endswith(CSV_ENDINGS):
        return "csv"
    return "parquet" if name.endswith(PARQUET_ENDINGS) else ""


@contextmanager
def reading(source: Source | None = None) -> Iterator[None]:
    """Turns what DuckDB says about a file or the disk into errors of ours, without its cells."""
    name = source.name if source else "cohort"
    out_of_memory = ResourceError(
        "memory or the temporary disk ran out while reading",
        where=name,
        fix="free some, or set another temporary folder",
    )
    try:
        yield
    except (duckdb.OutOfMemoryException, MemoryError):
        raise out_of_memory from None
    except (
        duckdb.IOException,
        duckdb.InvalidInputException,
        duckdb.ConversionException,
        duckdb.SerializationException,
        pa.ArrowInvalid,
        OSError,
    ) as error:
        if is_disk_full(error):
            raise ResourceError(
                "the temporary disk is full", where=name, fix="free some space and run it again"
            ) from None
        if "out of memory" in str(error).lower():  # as Arrow's stream passes it on
            raise out_of_memory from None
        raise unreadable(source) from None


def first_row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    """The one row of a query that gives one."""
    return connection.execute(query).fetchall()[0]


def quoted(name: str) -> str:
    """A name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def unreadable(source: Source | None) -> SchemaError:
    """What makes a source unreadable: the place in its text, if one is found.

    Raises:
        SchemaError: The place was found.
    """
    if source is not None and source.is_text:
        labels = source.labels or [path.name for path in source.files]
        n_cells = len(source.header or source.columns)
        for path, label in zip(source.files, labels, strict=True):
            _check_csv(path, label, n_cells, source.delimiter)
    return SchemaError(
        "the file cannot be read to its end: it is truncated or altered",
        where=source.name if source else "cohort",
        fix="export or copy it again",
    )


def _open_arrow(
    connection: duckdb.DuckDBPyConnection, table: pa.Table, name: str, view: str
) -> Source:
    _check_header(list(table.column_names), name)
    connection.register(view, table)
    return Source(name, quoted(view), _column_types(connection, quoted(view)))


def _arrow(frame: pd.DataFrame, name: str) -> pa.Table:
    if not all(isinstance(column, str) for column in frame.columns):
        raise SchemaError("a column's name is not text", where=name, fix="rename the columns")
    _check_header(list(frame.columns), name)
    columns = {}
    for column in frame.columns:
        series = frame[column]
        try:
            columns[column] = pa.array(series, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # numbers and texts in one column
            texts = [
                None if missing else str(v)
                for v, missing in zip(series, series.isna(), strict=True)
            ]
            columns[column] = pa.array(texts, type=pa.string())
    return pa.table(columns)


def _open_parquet(paths: Sequence[Path]) -> Source:
    schemas = []
    for path in paths:
        try:
            schemas.append(pq.read_schema(path))
        except (pa.ArrowInvalid, OSError):
            raise SchemaError(
                "not a Parquet file, or it is truncated",
                where=path.name,
                fix="export or copy it again",
            ) from None
        _check_header(schemas[-1].names, path.name)
    first = {field.name: _plain_type(field.type) for field in schemas[0]}
    for path, schema in zip(paths, schemas, strict=True):
        other = {field.name: _plain_type(field.type) for field in schema}
        if other != first:
            column = next(iter(sorted(set(first.items()) ^ set(other.items()))))[0]
            raise SchemaError(
                f"column {column!r} differs from that of {paths[0].name} in name or type",
                where=path.name,
                fix="write all files of the table with the same columns",
            )
    files = ", ".join(literal(str(path)) for path in paths)
    relation = f"read_parquet([{files}], hive_partitioning=false)"
    with duckdb.connect() as connection, reading(Source(paths[0].name, relation, {}, tuple(paths))):
        types = _column_types(connection, relation)
    name = paths[0].name if len(paths) == 1 else f"{paths[0].name} and {len(paths) - 1} more"
    return Source(name, relation, types, tuple(paths))


def _plain_type(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string(kind):
        return "string"
    if pa.types.is_integer(kind):
        return "integer"
    return "float" if pa.types.is_floating(kind) else str(kind)


def _open_csv(paths: Sequence[Path]) -> Source:
    header, delimiter = read_header(paths[0])
    for path in paths[1:]:
        if read_header(path) != (header, delimiter):
            raise SchemaError(
                f"the header differs from that of {paths[0].name}",
                where=path.name,
                fix="write all files of the table with the same columns",
            )
    files = ", ".join(literal(str(path)) for path in paths)
    columns = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in header)
    relation = (
        f"read_csv([{files}], auto_detect=false, header=true, columns={{{columns}}}, "
        f"delim={literal(delimiter)}, quote='\"', escape='\"', strict_mode=true, "
        f"null_padding=false, nullstr='', allow_quoted_nulls=true, max_line_size={LONGEST_LINE}, "
        f"buffer_size={BUFFER_BYTES})"
    )
    name = paths[0].name if len(paths) == 1 else f"{paths[0].name} and {len(paths) - 1} more"
    return Source(name, relation, dict.fromkeys(header, "VARCHAR"), tuple(paths), delimiter)


def read_header(path: Path, label: str = "") -> tuple[list[str], str]:
    """Column names of a CSV file and the delimiter between them.

    Args:
        path: Of the file.
        label: What messages call it; its name where left out.

    Raises:
        SchemaError: The file is not UTF-8 text, or its first line is no header.
    """
    label = label or path.name
    try:
        with _open_bytes(path) as file:
            line = file.readline(LONGEST_LINE)
    except (OSError, EOFError):
        raise SchemaError(
            "the file cannot be read: it is truncated or not compressed as its name says",
            where=label,
            fix="export or copy it again",
        ) from None
    if line[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise SchemaError("the file is UTF-16", where=label, fix="save it as UTF-8")
    if b"\x00" in line:
        raise SchemaError("line 1 holds a NUL byte", where=label, fix="save it as UTF-8 text")
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise _not_utf8(label, error.start, 1) from None
    delimiter = max(DELIMITERS, key=lambda mark: (text.count(mark), -DELIMITERS.index(mark)))
    try:
        names = next(csv.reader([text], delimiter=delimiter, strict=True), [])
    except csv.Error:
        raise SchemaError("line 1 is not a header", where=label) from None
    _check_header(names, label)
    return names, delimiter


def _check_header(names: list[str], where: str) -> None:
    stripped = [name.strip() for name in names]
    if not any(stripped):
        raise SchemaError("there is no header", where=where, fix="name the columns in line 1")
    for position, name in enumerate(stripped):
        if not name:
            raise SchemaError(
                f"column {position + 1} has no name",
                where=where,
                fix="name every column (pandas writes its index as one: to_csv(index=False))",
            )
        if name[0] in "=@":
            raise SchemaError(
                f"the name of column {position + 1} is a spreadsheet formula",
                where=where,
                fix="export values, not formulas",
            )
    folded = [name.lower() for name in stripped]
    for position, name in enumerate(folded):
        first = folded.index(name)
        if first < position and stripped[first] == stripped[position]:
            raise SchemaError(
                f"columns {first + 1} and {position + 1} are both called {stripped[position]!r}",
                where=where,
                fix="rename or remove one of them",
            )


def _column_types(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    rows = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return {row[0]: row[1] for row in rows}


@contextmanager
def _open_bytes(path: Path) -> Iterator[io.BufferedIOBase]:
    with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
        yield file  # pyright: ignore[reportReturnType]  # both are buffered binary files


def _not_utf8(label: str, byte: int, line: int) -> SchemaError:
    return SchemaError(
        f"byte {byte:,} (line {line:,}) is not UTF-8",
        where=label,
        fix="save the file as UTF-8 (it looks like a Windows or Latin code page)",
    )


def _check_csv(path: Path, label: str, n_cells: int, delimiter: str) -> None:
    """Find what makes a CSV file unreadable, and say where it is.

    Raises:
        SchemaError: Names the line, and for a ragged row how many cells it has.
    """
    offset = 0
    try:
        with _open_bytes(path) as file:
            for line, raw in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
                if b"\x00" in raw:
                    raise SchemaError(
                        f"line {line:,} holds a NUL byte", where=label, fix="export it again"
                    )
                if len(raw) >= LONGEST_LINE:
                    raise SchemaError(
                        f"line {line:,} is longer than {LONGEST_LINE:,} bytes",
                        where=label,
                        fix="look for a quotation mark that is not closed",
                    )
                try:
                    raw.decode()
                except UnicodeDecodeError as error:
                    raise _not_utf8(label, offset + error.start, line) from None
                offset += len(raw)
    except (OSError, EOFError):
        raise SchemaError(
            "the compressed file is truncated or altered", where=label, fix="copy it again"
        ) from None
    csv.field_size_limit(LONGEST_LINE)
    with _open_bytes(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")  # pyright: ignore[reportArgumentType]
        rows = csv.reader(text, delimiter=delimiter, strict=True)
        start = 1
        try:
            for row in rows:
                if row and len(row) != n_cells:
                    raise SchemaError(
                        f"line {start:,} has {len(row)} cells, expected {n_cells}",
                        where=label,
                        fix="quote cells that hold the delimiter, or export the file again",
                    )
                start = rows.line_num + 1
        except csv.Error:
            raise SchemaError(
                f"the quotation mark opened in line {start:,} is not closed rightly",
                where=label,
                fix="close it, or export the file again",
            ) from None


NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
"""A number in text: ASCII digits, a point, an exponent; no blanks, separators or other digits."""

_NUMBER = re.compile(NUMBER, re.ASCII)


def is_number(text: str) -> bool:
    """Whether a text is a number by the grammar of `NUMBER`.

    Example:
        >>> [is_number(text) for text in ("-1.5e3", "1_000", "１２", "1,5", "nan", ".5")]
        [True, False, False, False, False, True]
    """
    return _NUMBER.fullmatch(text) is not None
