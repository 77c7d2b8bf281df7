"""Tables of a database as it is published: many rows, some of which mean something here.

A reader says of each row whose it is, when, what and how much, and if it goes no further, why: its
fate. Every row is counted under one; those without go on as observations or inputs. Nothing but
these rows is kept, in DuckDB, which spills to the disk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa

from clinode.cohort.cleaning import FEWEST_SUBJECTS
from clinode.cohort.ledger import Entry
from clinode.cohort.sources import (
    Source,
    first_row,
    kind_of,
    literal,
    open_source,
    quoted,
    reading,
)
from clinode.cohort.staging import FINE, MISSING, TEXT, Staged, name_sql, number_sql, text_sql
from clinode.errors import SchemaError

UNMAPPED, OTHER_UNIT = "not in the mapping", "in a unit that the mapping has not"
NO_STAY, OUTSIDE = "no stay that was read", "outside every stay"
MOST_UNMAPPED = 50


def find_table(folder: Path, name: str) -> Path | None:
    """The file of a table, CSV or Parquet, compressed or not, however its name is written.

    Raises:
        SchemaError: There are two.
    """
    if not folder.is_dir():
        return None
    found = sorted(
        path
        for path in folder.iterdir()
        if kind_of(path) and path.name.split(".")[0].lower() == name.lower()
    )
    if len(found) > 1:
        raise SchemaError(
            f"both {found[0].name} and {found[1].name} hold the table", where=folder.name,
            fix="keep one of them",
        )  # fmt: skip
    return found[0] if found else None


def open_table(connection: duckdb.DuckDBPyConnection, path: Path, needed: Sequence[str]) -> Source:
    """Open a table, its columns in lower case.

    Raises:
        SchemaError: A column is missing, or the file cannot be read.
    """
    source = open_source(connection, path, path.name, view=path.name)
    names = {name: name.strip().lower() for name in source.columns}
    missing = [name for name in needed if name not in names.values()]
    if missing:
        raise SchemaError(
            f"there is no column {missing[0]!r}; the columns are {', '.join(source.columns)}",
            where=path.name,
            fix="use the table as it is published",
        )
    listed = ", ".join(f"{quoted(name)} AS {quoted(new)}" for name, new in names.items())
    return replace(
        source,
        relation=f"(SELECT {listed} FROM {source.relation})",
        columns={new: source.columns[name] for name, new in names.items()},
        header=tuple(source.columns),
    )


def stamp_sql(source: Source, column: str) -> tuple[str, str]:
    """A cell as a timestamp, NULL unless it is one, and its fault."""
    kind, cell = source.columns[column], quoted(column)
    if kind.startswith(("TIMESTAMP", "DATE")):
        return f"{cell}::TIMESTAMP", f"CASE WHEN {cell} IS NULL THEN {MISSING} ELSE {FINE} END"
    text = f"nullif({text_sql(cell)}, '')"
    value = f"TRY_CAST({text} AS TIMESTAMP)"
    return (
        value,
        f"CASE WHEN {text} IS NULL THEN {MISSING} WHEN {value} IS NULL THEN {TEXT} ELSE {FINE} END",
    )


def numbers_sql(source: Source, column: str, tokens: Sequence[str]) -> tuple[str, str]:
    """A cell as a number, NULL unless it is one, and its fault."""
    return number_sql(quoted(column), source.columns[column], tokens)


def cell_sql(source: Source, column: str) -> str:
    """A cell as text without blanks around it, NULL where it is empty."""
    return name_sql(source, column) if column in source.columns else "NULL::VARCHAR"


def make_table(
    connection: duckdb.DuckDBPyConnection, name: str, columns: Mapping[str, pa.Array]
) -> None:
    """Make a small table of what Python knows."""
    connection.register(f"{name}_data", pa.table(dict(columns)))
    connection.execute(f"CREATE TABLE {quoted(name)} AS SELECT * FROM {quoted(name + '_data')}")
    connection.unregister(f"{name}_data")


def hand_over(
    connection: duckdb.DuckDBPyConnection, raw: str, source: Source, table: str, *, to: str
) -> tuple[Staged, list[Entry]]:
    """Make a staged table of the rows of a raw one that have no fate, and account for all of them.

    Args:
        connection: Where the raw table is; it is dropped.
        raw: Its name; columns as in a staged table, and item, unit, fate (NULL goes on), weight:
            how many rows of the file a row stands for.
        source: Where it is from.
        table: What the ledger calls it.
        to: "observations" or "inputs".
    """
    staged = f"staged_{raw}"
    with reading(source):
        connection.execute(
            f"CREATE TABLE {staged} AS SELECT * EXCLUDE (fate, item, unit) FROM {raw} "
            "WHERE fate IS NULL"
        )
        connection.execute(f"CREATE TABLE {staged}_subjects AS SELECT stay AS subject FROM stays")
        fates = connection.execute(
            f"SELECT fate, count(*) FROM {raw} GROUP BY fate ORDER BY fate"
        ).fetchall()
    moved = sum(count for fate, count in fates if fate is None)
    entries = [Entry(table=table, action="read", reason="", rows=sum(count for _, count in fates))]
    entries.append(Entry(table=table, action="moved", reason=f"to the {to}", rows=moved))
    entries += [
        Entry(table=table, action="dropped", reason=fate, rows=count)
        for fate, count in fates
        if fate is not None
    ]
    columns = {"variable": "item", **({"start": "start"} if to == "inputs" else {})}
    return Staged(staged, source, moved, 0, columns, inflow="filled"), entries


def unmapped_items(
    connection: duckdb.DuckDBPyConnection, raw: str, labels: Source | None = None
) -> dict[str, int]:
    """Rows of the most frequent items, with their units, that the mapping has not."""
    join, label = "", "r.item"
    if labels is not None:
        join = f"LEFT JOIN {labels.relation} l ON r.item = trim(l.itemid::VARCHAR)"
        label = "concat_ws(' ', r.item, any_value(l.label))"
    with reading():
        rows = connection.execute(f"""
            SELECT concat({label}, ' (', coalesce(r.unit, 'no unit'), ')'), sum(r.n), max(r.who)
            FROM (
                SELECT item, unit, count(*) AS n, count(DISTINCT subject) AS who FROM {raw}
                WHERE fate IN ({literal(UNMAPPED)}, {literal(OTHER_UNIT)})
                    AND value IS NOT NULL AND item IS NOT NULL
                GROUP BY item, unit HAVING count(DISTINCT subject) >= {FEWEST_SUBJECTS}
            ) r {join} GROUP BY r.item, r.unit ORDER BY 2 DESC, 1 LIMIT {MOST_UNMAPPED}
        """).fetchall()
    return {str(name): int(count) for name, count, _ in rows}


def count_stays(connection: duckdb.DuckDBPyConnection, table: str) -> list[Entry]:
    """Account for the table of stays: raw_stays (stay, fate) and its rows without a fate, stays.

    Raises:
        SchemaError: A stay stands there twice.
    """
    with reading():
        twice = first_row(
            connection,
            "SELECT count(*) FROM (SELECT stay FROM raw_stays WHERE fate IS NULL "
            "GROUP BY stay HAVING count(*) > 1)",
        )[0]
        fates = connection.execute(
            "SELECT fate, count(*) FROM raw_stays GROUP BY fate ORDER BY fate"
        ).fetchall()
    if twice:
        raise SchemaError(
            f"{twice:,} stays stand there more than once", where=table, fix="copy the table again"
        )
    entries = [Entry(table=table, action="read", reason="", rows=sum(n for _, n in fates))]
    return entries + [
        Entry(table=table, action="kept" if f is None else "dropped", reason=f or "", rows=n)
        for f, n in fates
    ]
