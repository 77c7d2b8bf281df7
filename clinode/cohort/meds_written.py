"""Reading back the MEDS folders that clinode wrote: see `clinode.cohort.meds_layout`.

Their codes say what they stand for, so no mapping is asked and no index event. A folder whose
metadata/clinode.json is gone is read as MEDS from anywhere else: `clinode.cohort.meds`.
"""

from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq

from clinode.cohort import meds_layout as layout
from clinode.cohort.assembly import Parts
from clinode.cohort.policy import Policy
from clinode.cohort.schema import CohortSchema, Variable
from clinode.cohort.shard import Shard
from clinode.cohort.sources import Source, first_row, literal, quoted, reading
from clinode.cohort.staging import FINE, MISSING, Staged
from clinode.cohort.subject_tables import Cells, read_cells
from clinode.errors import SchemaError
from clinode.folder import MANIFEST, read_json, verify_folder

NUMBER = "coalesce(e.numeric_value_64, e.numeric_value::DOUBLE)"


def is_written_meds(folder: Path) -> bool:
    """Whether clinode wrote this MEDS folder."""
    return (folder / layout.FACTS).is_file()


def stage_written_meds(
    connection: duckdb.DuckDBPyConnection, root: Path, *, policy: Policy, shard: Shard
) -> Parts:
    """Stage the cohort of a folder that `write_meds` or `clinode convert` wrote.

    Args:
        connection: Where the staged tables are made.
        root: The folder.
        policy: How rows that cannot be taken as they are are treated.
        shard: Which subjects are read.

    Raises:
        CheckpointError: A file is missing or altered.
        SchemaError: The folder is of a later format, or an event has no known code.
    """
    if (root / MANIFEST).is_file():
        verify_folder(root, "meds")
    facts = read_json(root / layout.FACTS)
    if facts["format"] > layout.FORMAT:
        raise SchemaError(
            f"the folder is of format {facts['format']}, and this clinode reads {layout.FORMAT}",
            where=f"{root.name}/{layout.FACTS}",
            fix="upgrade clinode",
        )
    schema = CohortSchema.from_dict(facts["schema"])
    files = sorted((root / layout.DATA).rglob("*.parquet"))
    listed = ", ".join(literal(str(file)) for file in files)
    source = Source(f"{root.name}/data", f"read_parquet([{listed}])", {}, tuple(files))
    _stage_events(connection, root, source, shard)
    parts = Parts(
        observations=[_stage_observations(connection, source)],
        inputs=[_stage_inputs(connection, source)],
        statics=_statics(connection, schema, policy),
        groups=_groups(connection),
        source={"format": "meds", "files": [file.relative_to(root).as_posix() for file in files]},
        schema=schema,
    )
    if (root / layout.OUTCOMES).is_file() and schema.outcomes:
        parts.outcomes = _outcomes(connection, root, bool(facts["has_prediction_time"]), policy)
    if (root / layout.SPLITS).is_file():
        parts.frames["splits"] = _splits(connection, root)
    return parts


def _stage_events(
    connection: duckdb.DuckDBPyConnection, root: Path, source: Source, shard: Shard
) -> None:
    """Make the tables written_ids (subject_id, subject) and the view written_events."""
    codes = literal(str(root / layout.CODES))
    with reading(source):
        connection.execute(f"""
            CREATE TABLE written_ids AS
            SELECT subject_id, subject FROM (
                SELECT subject_id, coalesce(
                    max(text_value) FILTER (code = {literal(layout.SUBJECT)}), subject_id::VARCHAR
                ) AS subject FROM {source.relation} GROUP BY subject_id
            ) WHERE {shard.condition("subject")}
        """)
        connection.execute(f"""
            CREATE VIEW written_events AS
            SELECT i.subject, c.role, c.name, e.text_value, {NUMBER} AS number, e.interval,
                (epoch_us(e.time) - {layout.epoch_microseconds()})::DOUBLE
                    / {layout.MICROSECONDS!r}::DOUBLE AS hours
            FROM {source.relation} e JOIN written_ids i USING (subject_id)
            JOIN (SELECT code, role, name FROM read_parquet({codes})) c USING (code)
        """)
        unknown = first_row(
            connection,
            f"SELECT count(*) FROM {source.relation} WHERE code NOT IN "
            f"(SELECT code FROM read_parquet({codes}))",
        )[0]
    if unknown:
        raise SchemaError(
            f"{unknown:,} events have a code that {layout.CODES} does not name",
            where=source.name,
            fix=f"take {layout.FACTS} away to read the folder as MEDS from elsewhere",
        )


def _stage_observations(connection: duckdb.DuckDBPyConnection, source: Source) -> Staged:
    name = "staged_observations"
    with reading(source):
        connection.execute(f"""
            CREATE TABLE {name} AS
            SELECT subject, name AS variable, hours AS time, {FINE}::UTINYINT AS time_fault,
                number AS value, {FINE}::UTINYINT AS value_fault, NULL::VARCHAR AS text,
                row_number() OVER () AS row
            FROM written_events WHERE role = {literal(layout.OBSERVATION)}
        """)
    return _staged(connection, source, name, {"variable": "code"})


def _stage_inputs(connection: duckdb.DuckDBPyConnection, source: Source) -> Staged:
    name, is_start = "staged_inputs", f"role = {literal(layout.START)}"
    with reading(source):
        connection.execute(f"""
            CREATE TABLE {name} AS
            SELECT subject, variable, start, {FINE}::UTINYINT AS start_fault, "end",
                CASE WHEN "end" IS NULL THEN {MISSING} ELSE {FINE} END::UTINYINT AS end_fault,
                value, {FINE}::UTINYINT AS value_fault, NULL::VARCHAR AS text,
                row_number() OVER () AS row
            FROM (
                SELECT subject, name AS variable, hours AS start, NULL::DOUBLE AS "end",
                    number AS value
                FROM written_events WHERE role = {literal(layout.IMPULSE)}
                UNION ALL
                SELECT subject, any_value(name) FILTER ({is_start}),
                    any_value(hours) FILTER ({is_start}), any_value(hours) FILTER (NOT {is_start}),
                    any_value(number) FILTER ({is_start})
                FROM written_events
                WHERE role IN ({literal(layout.START)}, {literal(layout.END)})
                GROUP BY subject, interval
            )
        """)
    return _staged(connection, source, name, {"variable": "code", "start": "time"})


def _staged(
    connection: duckdb.DuckDBPyConnection, source: Source, name: str, columns: dict[str, str]
) -> Staged:
    with reading(source):  # every subject is one, with or without a row
        connection.execute(f"CREATE TABLE {name}_subjects AS SELECT subject FROM written_ids")
        n_rows = int(first_row(connection, f"SELECT count(*) FROM {name}")[0])
    return Staged(name, source, n_rows, 0, columns)


def _statics(connection: duckdb.DuckDBPyConnection, schema: CohortSchema, policy: Policy) -> Cells:
    cells = [
        f"max({'text_value' if _is_text(variable) else 'number'}) "
        f"FILTER (name = {literal(variable.name)}) AS {quoted(variable.name)}"
        for variable in schema.statics
    ]
    connection.execute(
        f"CREATE TABLE written_statics AS SELECT {', '.join(['subject', *cells])} "
        f"FROM written_events WHERE role = {literal(layout.STATIC)} GROUP BY subject "
        "ORDER BY subject"
    )
    columns = {"subject": "VARCHAR"} | {
        variable.name: "VARCHAR" if _is_text(variable) else "DOUBLE" for variable in schema.statics
    }
    source = Source("statics", "written_statics", columns)
    declared = {variable.name: variable for variable in schema.statics}
    return read_cells(connection, source, "statics", "subject", policy, declared=declared)


def _is_text(variable: Variable) -> bool:
    return any(isinstance(level, str) for level in variable.levels)


def _groups(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame | None:
    frame = connection.execute(
        f'SELECT subject AS subject_id, text_value AS "group" FROM written_events '
        f"WHERE role = {literal(layout.GROUP)} ORDER BY subject"
    ).df()
    return frame if len(frame) else None


def _outcomes(
    connection: duckdb.DuckDBPyConnection, root: Path, has_time: bool, policy: Policy
) -> Cells:
    path = root / layout.OUTCOMES
    names = [n for n in pq.read_schema(path).names if n not in ("subject_id", "prediction_time")]
    listed = ", ".join(f"o.{quoted(name)}" for name in names)
    time = (
        f"(epoch_us(o.prediction_time) - {layout.epoch_microseconds()})::DOUBLE "
        f"/ {layout.MICROSECONDS!r}::DOUBLE"
    )
    connection.execute(
        f"CREATE TABLE written_outcomes AS SELECT i.subject, {time} AS prediction_time, {listed} "
        f"FROM read_parquet({literal(str(path))}) o JOIN written_ids i USING (subject_id)"
    )
    columns: dict[str, Any] = {"subject": "VARCHAR", "prediction_time": "DOUBLE"}
    source = Source("outcomes", "written_outcomes", columns | dict.fromkeys(names, "DOUBLE"))
    return read_cells(
        connection,
        source,
        "outcomes",
        "subject",
        policy,
        prediction_time="prediction_time" if has_time else None,
        ignore=() if has_time else ("prediction_time",),
    )


def _splits(connection: duckdb.DuckDBPyConnection, root: Path) -> pd.DataFrame:
    return connection.execute(
        f"SELECT i.subject AS subject_id, s.split "
        f"FROM read_parquet({literal(str(root / layout.SPLITS))}) s "
        f"JOIN written_ids i USING (subject_id) ORDER BY i.subject"
    ).df()
