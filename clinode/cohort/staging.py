"""Rows of a source as typed rows: whose, when, what, how much, and what is wrong with each.

A staged table keeps every row that arrived (of a wide table: every cell that holds something) with
a number in place of each text, and a fault where there is no such number. No row is judged here;
that is `clinode.cohort.cleaning`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from clinode.cohort.columns import columns_in_words
from clinode.cohort.policy import Policy
from clinode.cohort.sources import NUMBER, Source, first_row, literal, quoted, reading
from clinode.errors import ArgumentError, SchemaError

HOURS = {"h": 1.0, "min": 60.0, "s": 3600.0, "ms": 3.6e6, "d": 1 / 24}
"""How many of a time unit make an hour."""

FEWEST_TEXTS = 10  # rows, to call a column one of text although it holds some number

CLOCK = "hh:mm"
"""The time unit of text such as 07:42, hours and minutes since time zero."""

FINE, MISSING, NOT_A_NUMBER, INFINITE, FORMULA, BOUND, TEXT = range(7)
FORMULA_FOR_A_SUBJECT = "a formula in place of a subject"
MEND = "mend the file, or read it without strict and look at what its ledger counts"
FAULTS = ("", "no value", "NaN", "infinite", "a formula", "a bound (< or >)", "not a number")

_NUMBER_TYPES = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "BOOLEAN"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
)
_FLOAT_TYPES = ("FLOAT", "DOUBLE")


@dataclass(frozen=True)
class Staged:
    """A staged table and what it was made of.

    Args:
        name: Of the table in DuckDB.
        source: Where its rows are from.
        n_read: Rows, or cells of a wide table.
        n_empty: Cells of a wide table that hold nothing; they are not staged.
        columns: The source's column of each role; without "value" the table numbers its rows.
        names: Variables that are columns, and so are there even if every cell is empty.
        inflow: "read", or "filled" where the rows come from another table of the ledger.
    """

    name: str
    source: Source
    n_read: int
    n_empty: int
    columns: dict[str, str]
    inflow: str = "read"
    names: tuple[str, ...] = ()


def stage_long(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    name: str,
    columns: dict[str, str],
    *,
    policy: Policy,
    time_unit: str = "h",
) -> Staged:
    """Stage a table with one row an observation or an input.

    Args:
        connection: Where the staged table is made.
        source: What is read.
        name: Of the staged table.
        columns: Source column of "subject", "variable", "value" and either "time" or "start" and
            "end" (which may be left out: all impulses).
        policy: Its missing tokens are used.
        time_unit: Of the time columns.
    """
    check_columns(source, columns)
    tokens = policy.missing_tokens
    parts = [
        f"{name_sql(source, columns['subject'])} AS subject",
        f"{name_sql(source, columns['variable'])} AS variable",
    ]
    for role in ("time", "start", "end"):
        if role in columns:
            value, fault = time_sql(source, columns[role], tokens, time_unit)
            parts += [f"{value} AS {quoted(role)}", f"{fault} AS {role}_fault"]
        elif role == "end" and "start" in columns:
            parts += ['NULL::DOUBLE AS "end"', f"{MISSING}::UTINYINT AS end_fault"]
    cell = quoted(columns["value"])
    value, fault = number_sql(cell, source.columns[columns["value"]], tokens)
    parts += [f"{value} AS value", f"{fault} AS value_fault"]
    text = f"CASE WHEN {fault} >= {FORMULA} THEN {text_sql(cell)} END"
    parts.append(
        f"{text if source.columns[columns['value']] == 'VARCHAR' else 'NULL::VARCHAR'} AS text"
    )
    with reading(source):
        connection.execute(
            f"CREATE TABLE {quoted(name)} AS SELECT {', '.join(parts)} FROM {source.relation}"
        )
        n_rows = _count(connection, name)
    _refuse_text_column(connection, source, name, columns["value"])
    if "time" in columns:
        _refuse_text_column(connection, source, name, columns["time"], fault="time_fault")
    return Staged(name, source, n_rows, 0, columns)


def stage_wide(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    name: str,
    columns: dict[str, str],
    *,
    variables: Sequence[str],
    policy: Policy,
    time_unit: str = "h",
) -> Staged:
    """Stage a table with one row a subject and time and one column a variable, cell by cell."""
    check_columns(source, columns)
    if not variables:
        raise SchemaError("there is no column of a variable", where=source.name)
    tokens = policy.missing_tokens
    time, time_fault = time_sql(source, columns["time"], tokens, time_unit)
    types = {source.columns[variable] for variable in variables}
    are_numbers = all(is_numeric(kind) for kind in types)
    cells = [_cell_sql(source, variable, are_numbers) for variable in variables]
    value, fault = number_sql("cell", "DOUBLE" if are_numbers else "VARCHAR", tokens)
    text = (
        "NULL::VARCHAR"
        if are_numbers
        else f"CASE WHEN {fault} >= {FORMULA} THEN {text_sql('cell')} END"
    )
    inner = (
        f"SELECT {name_sql(source, columns['subject'])} AS subject, {time} AS time, "
        f"{time_fault} AS time_fault, row_number() OVER () AS row, "
        f"unnest([{', '.join(map(literal, variables))}]) AS variable, "
        f"unnest([{', '.join(cells)}]) AS cell FROM {source.relation}"
    )
    with reading(source):
        connection.execute(
            f"CREATE TABLE {quoted(name)} AS SELECT subject, variable, time, time_fault, "
            f"{value} AS value, {fault} AS value_fault, {text} AS text, row FROM ({inner}) "
            f"WHERE value_fault <> {MISSING}"
        )
        connection.execute(
            f"CREATE TABLE {quoted(name + '_subjects')} AS SELECT DISTINCT "
            f"{name_sql(source, columns['subject'])} AS subject FROM {source.relation}"
        )
        n_rows = int(first_row(connection, f"SELECT count(*) FROM {source.relation}")[0])
    n_cells = n_rows * len(variables)
    return Staged(
        name, source, n_cells, n_cells - _count(connection, name), columns, names=tuple(variables)
    )


def _cell_sql(source: Source, variable: str, are_numbers: bool) -> str:
    """A cell in the one type that all cells of a wide table share."""
    cell = quoted(variable)
    if not are_numbers or source.columns[variable] == "FLOAT":
        cell = f"CAST({cell} AS VARCHAR)"  # 7.41 as float32 is 7.41, not 7.409999847
    return f"CAST({cell} AS DOUBLE)" if are_numbers else cell


def check_columns(source: Source, columns: dict[str, str]) -> None:
    """Refuse a mapping to columns that the source has not.

    Raises:
        SchemaError: Names the missing column and those that there are.
    """
    for role, column in columns.items():
        if column not in source.columns:
            raise SchemaError(
                f"there is no column {column!r} for the {role}; {columns_in_words(source)}",
                where=source.name,
                fix=f"name the right one: {role}=...",
            )


def is_numeric(kind: str) -> bool:
    """Whether a DuckDB type holds numbers."""
    return kind in _NUMBER_TYPES or kind in _FLOAT_TYPES or kind.startswith("DECIMAL")


def text_sql(cell: str) -> str:
    """A cell's text without blanks around it."""
    return f"trim({cell})"


def name_sql(source: Source, column: str) -> str:
    """A subject's or a variable's name as text; NULL where there is none.

    Only an empty cell is no name: the missing tokens do not count here, for "Na" is sodium.
    """
    kind, cell = source.columns[column], quoted(column)
    if kind in _FLOAT_TYPES:
        # whole numbers that met a missing cell on their way; 2^53 is where doubles lose them
        broken = f"{cell} <> trunc({cell}) OR abs({cell}) > 9007199254740992"
        return (
            f"CASE WHEN {cell} IS NULL OR isnan({cell}) THEN NULL "
            f"WHEN isinf({cell}) OR {broken} THEN CAST({cell} AS VARCHAR) "
            f"ELSE CAST(CAST({cell} AS BIGINT) AS VARCHAR) END"
        )
    return f"nullif({text_sql(f'CAST({cell} AS VARCHAR)')}, '')"


def number_sql(cell: str, kind: str, tokens: Sequence[str]) -> tuple[str, str]:
    """A cell as a number (NULL unless it is a finite one), and its fault."""
    if kind in _FLOAT_TYPES:
        fault = (
            f"CASE WHEN {cell} IS NULL THEN {MISSING} WHEN isnan({cell}) THEN {NOT_A_NUMBER} "
            f"WHEN isinf({cell}) THEN {INFINITE} ELSE {FINE} END::UTINYINT"
        )
        number = cell
        if kind == "FLOAT":  # 7.41 as float32 is 7.41, not 7.409999847
            number = f"CAST(CAST({cell} AS VARCHAR) AS DOUBLE)"
        # + 0 makes one zero of two
        return f"CASE WHEN isfinite({cell}) THEN {number} + 0.0::DOUBLE END", fault
    if is_numeric(kind):
        value = f"CAST({cell} AS DOUBLE)"
        return value, f"CASE WHEN {cell} IS NULL THEN {MISSING} ELSE {FINE} END::UTINYINT"
    if kind != "VARCHAR":
        fault = f"CASE WHEN {cell} IS NULL THEN {MISSING} ELSE {TEXT} END::UTINYINT"
        return "NULL::DOUBLE", fault
    text = text_sql(cell)
    number = f"regexp_full_match({text}, {literal(NUMBER)})"
    double = f"TRY_CAST({text} AS DOUBLE)"
    value = f"CASE WHEN {number} AND isfinite({double}) THEN {double} + 0.0::DOUBLE END"
    others = [token for token in tokens if token != "nan"]
    fault = (
        f"CASE WHEN {text} IS NULL OR lower({text}) IN ({', '.join(map(literal, others))}) "
        f"THEN {MISSING} "
        f"WHEN {number} THEN CASE WHEN isfinite({double}) THEN {FINE} ELSE {INFINITE} END "
        f"WHEN lower({text}) IN ('nan', '+nan', '-nan') THEN {NOT_A_NUMBER} "
        f"WHEN regexp_full_match(lower({text}), '[+-]?inf(inity)?') THEN {INFINITE} "
        f"WHEN {text}[1] IN ('=', '@', '+', '-') THEN {FORMULA} "
        f"WHEN {text}[1] IN ('<', '>') THEN {BOUND} ELSE {TEXT} END::UTINYINT"
    )
    return value, fault


def time_sql(source: Source, column: str, tokens: Sequence[str], time_unit: str) -> tuple[str, str]:
    """A cell as hours since time zero, and its fault.

    Raises:
        ArgumentError: The unit is not known.
        SchemaError: The column holds dates.
    """
    kind, cell = source.columns[column], quoted(column)
    if time_unit not in {*HOURS, CLOCK}:
        raise ArgumentError(
            f"unknown time unit {time_unit!r}; there are {', '.join([*HOURS, CLOCK])}"
        )
    if kind.startswith(("TIMESTAMP", "DATE", "TIME")):
        raise SchemaError(
            f"column {column!r} holds dates, expected time since the subject's time zero",
            where=source.name,
            fix="subtract each subject's time zero (admission, say) and give numbers",
        )
    if kind == "INTERVAL":
        return f"epoch({cell}) / 3600.0", f"CASE WHEN {cell} IS NULL THEN {MISSING} ELSE {FINE} END"
    if time_unit == CLOCK:
        text = text_sql(cell)
        form = f"regexp_full_match({text}, '[0-9]+:[0-5][0-9]')"
        minutes = f"split_part({text}, ':', 1)::BIGINT * 60 + split_part({text}, ':', 2)::BIGINT"
        value = f"CASE WHEN {form} THEN ({minutes})::DOUBLE / 60.0 END"
        _, fault = number_sql(cell, "VARCHAR", tokens)
        return (
            value,
            f"CASE WHEN {form} THEN {FINE} WHEN {fault} = {FINE} THEN {TEXT} ELSE {fault} END",
        )
    value, fault = number_sql(cell, kind, tokens)
    return (value if time_unit == "h" else f"({value}) / {HOURS[time_unit]!r}::DOUBLE"), fault


def _refuse_text_column(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    name: str,
    column: str,
    fault: str = "value_fault",
) -> None:
    """Most of a column being text means that it is the wrong column.

    Raises:
        SchemaError: Names the first row with text.
    """
    row = first_row(
        connection,
        f"SELECT count(*) FILTER ({fault} >= {FORMULA}), count(*) FILTER ({fault} = {FINE}), "
        f"min(rowid) FILTER ({fault} >= {FORMULA}) FROM {quoted(name)}",
    )
    texts, numbers, first = row
    if texts == 0 or (numbers > 0 and (texts <= numbers or texts < FEWEST_TEXTS)):
        return
    raise SchemaError(
        f"column {column!r} holds text in {texts:,} of {texts + numbers:,} rows, "
        f"expected numbers; first in row {first + 1:,}",
        where=source.name,
        fix="map the right column, or make its cells numbers",
    )


def _count(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    return int(first_row(connection, f"SELECT count(*) FROM {quoted(name)}")[0])
