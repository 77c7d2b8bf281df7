"""Medical Event Data Standard, 0.4: events of persons, cut into stays.

An index event sets time zero and makes one subject a stay. Events without a time are statics of the
person; numbers become variables through a mapping from codes; starts and ends of infusions and
medications become inputs; other codes are counted, one count variable for each leading part of a
code. What is known only after a stay (discharge, death, diagnoses, billing) is never an
observation. Labels follow the label schema, and data up to and including the prediction time may be
used.
"""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from clinode.cohort.assembly import Parts
from clinode.cohort.meds_codes import SEPARATOR, classify_codes, matches_sql, read_mapping
from clinode.cohort.meds_tables import (
    account,
    hours_sql,
    read_hospital_death,
    read_labels,
    read_splits,
    read_statics,
    stage_inputs,
    stage_observations,
    unmapped_codes,
)
from clinode.cohort.mimic4_codes import CODES, EXTRA_VARIABLES, INFUSIONS
from clinode.cohort.names import shown_names
from clinode.cohort.policy import Policy
from clinode.cohort.schema import CohortSchema, Variable
from clinode.cohort.shard import WHOLE, Shard
from clinode.cohort.sources import Source, first_row, literal, reading
from clinode.cohort.staging import is_numeric
from clinode.errors import ArgumentError, SchemaError


def is_meds(folder: Path) -> bool:
    """Whether a folder is laid out as MEDS: data/**/*.parquet and metadata/."""
    return (folder / "metadata").is_dir() and any((folder / "data").rglob("*.parquet"))


def stage_meds(
    connection: duckdb.DuckDBPyConnection,
    root: Path,
    *,
    policy: Policy,
    mapping: Any = None,
    index: str = "ICU_ADMISSION",
    until: str | None = None,
    labels: Any = None,
    shard: Shard = WHOLE,
) -> Parts:
    """Stage the stays of a MEDS folder.

    Args:
        connection: Where the staged tables are made.
        root: The folder with data/ and metadata/.
        policy: How rows that cannot be taken as they are are treated.
        mapping: Table with the columns code, variable and perhaps role, scale and offset.
        index: Code of the index event, or its beginning up to a separator.
        until: Code of the event that ends a stay; if left out, the index with DISCHARGE in place of
            ADMISSION, and without such an event the next index event or the end of the record.
        labels: File, folder or DataFrame of the label schema. Without it the outcome is
            in_hospital_death: the first hospital discharge at or after time zero says DIED, or a
            death is recorded before it.
        shard: Which persons are read.

    Raises:
        SchemaError: A file breaks the standard, a person stands in two files, or there is no index
            event.
    """
    files = sorted((root / "data").rglob("*.parquet"))
    _stage_events(connection, files, root, shard)
    out_of_order = _check_invariants(connection, files, root, policy)
    codes = CODES if mapping is None else read_mapping(connection, mapping)
    classify_codes(connection, codes)
    if until is None and "ADMISSION" in index:
        until = index.replace("ADMISSION", "DISCHARGE")
    _make_stays(connection, index, until, root, may_be_none=shard != WHOLE)
    _join_stays(connection)
    source = Source(f"{root.name}/data", "meds_events", {}, tuple(files))
    parts = Parts(
        source={
            "format": "meds",
            "files": [_label(file, root) for file in files],
            "out_of_order": {"events": out_of_order},
        }
    )
    parts.observations.append(stage_observations(connection, source))
    parts.inputs.append(stage_inputs(connection, source))
    parts.entries += account(connection)
    parts.statics = read_statics(connection, policy, index)
    parts.outcomes = (
        read_hospital_death(connection, policy)
        if labels is None
        else read_labels(connection, labels, policy, shard)
    )
    stays = connection.execute(
        "SELECT stay AS subject_id, person AS person_id, start AS index_time FROM stays "
        "ORDER BY stay"
    ).df()
    parts.groups = stays[["subject_id"]].assign(group=stays["person_id"].astype(str))
    parts.frames["index_times"] = stays
    splits = read_splits(connection, root)
    if splits is not None:
        parts.frames["splits"] = splits
    parts.source["unmapped"] = unmapped_codes(connection)
    if mapping is None:
        given = connection.execute("SELECT DISTINCT variable FROM staged_inputs").fetchall()
        seen = connection.execute("SELECT DISTINCT variable FROM staged_observations").fetchall()
        parts.schema = _shipped_schema({row[0] for row in seen}, {row[0] for row in given})
    return parts


def _stage_events(
    connection: duckdb.DuckDBPyConnection, files: list[Path], root: Path, shard: Shard
) -> None:
    for file in files:
        _check_columns(file, root)
    listed = ", ".join(literal(str(file)) for file in files)
    relation = (
        f"read_parquet([{listed}], filename=true, union_by_name=true, hive_partitioning=false)"
    )
    source = Source(f"{root.name}/data", relation, {}, tuple(files))
    with reading(source):
        types = {
            row[0]: row[1]
            for row in connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
        }
        number = "NULL::DOUBLE"
        if is_numeric(types.get("numeric_value", "")):
            # 7.41 as float32 is 7.41, not 7.409999847
            number = "CAST(CAST(numeric_value AS VARCHAR) AS DOUBLE)"
            number = f"CASE WHEN isfinite(numeric_value) THEN {number} END"
        connection.execute(
            f"CREATE TABLE meds_events AS SELECT subject_id::BIGINT AS person, "
            f"time::TIMESTAMP AS time, code::VARCHAR AS code, {number} AS number, "
            f"list_position([{listed}], filename)::INTEGER - 1 AS file "
            f"FROM {relation} WHERE {shard.condition('subject_id::VARCHAR')}"
        )


def _check_columns(file: Path, root: Path) -> None:
    where = _label(file, root)
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowInvalid, OSError):
        raise SchemaError(
            "not a Parquet file, or it is truncated", where=where, fix="copy it again"
        ) from None
    for name in ("subject_id", "time", "code"):
        if name not in schema.names:
            raise SchemaError(
                f"there is no column {name!r}; the columns are {', '.join(schema.names)}",
                where=where,
                fix="write the columns of MEDS: subject_id, time, code, numeric_value",
            )
    if not pa.types.is_integer(schema.field("subject_id").type):
        raise SchemaError("column 'subject_id' holds no whole numbers", where=where)
    if not pa.types.is_timestamp(schema.field("time").type):
        raise SchemaError("column 'time' holds no timestamps", where=where)


def _check_invariants(
    connection: duckdb.DuckDBPyConnection, files: list[Path], root: Path, policy: Policy
) -> int:
    """One person stands in one file, in rows one after the other, in order of time.

    Returns:
        Rows out of order; they are sorted.

    Raises:
        SchemaError: A person stands in two files, an event has no person or no code; or the policy
            is strict and rows are out of order.
    """
    twice = connection.execute(
        "SELECT min(file), max(file) FROM meds_events GROUP BY person "
        "HAVING min(file) <> max(file) LIMIT 1"
    ).fetchall()
    if twice:
        first, second = (_label(files[position], root) for position in twice[0])
        raise SchemaError(
            f"a subject stands in {first} and in {second}, expected one file",
            where=f"{root.name}/data",
            fix="write each subject into one file, and look for files that were copied twice",
        )
    empty = connection.execute(
        "SELECT file, min(rowid) FROM meds_events WHERE person IS NULL OR code IS NULL "
        "OR code = '' GROUP BY file ORDER BY file LIMIT 1"
    ).fetchall()
    if empty:
        raise SchemaError(
            f"row {_row_in_file(connection, *empty[0]):,} has no subject_id or no code",
            where=_label(files[empty[0][0]], root),
        )
    where_wrong = (
        "FROM (SELECT file, rowid AS row, person, time, lag(person) OVER () AS person_before, "
        "lag(time) OVER () AS time_before FROM meds_events) WHERE person = person_before "
        "AND (time < time_before OR (time IS NULL AND time_before IS NOT NULL))"
    )
    backward = first_row(connection, f"SELECT count(*) {where_wrong}")[0]
    runs, persons = first_row(
        connection,
        "SELECT count(*) FILTER (person IS DISTINCT FROM person_before), count(DISTINCT person) "
        "FROM (SELECT person, lag(person) OVER () AS person_before FROM meds_events)",
    )
    if policy.strict and backward:
        wrong = connection.execute(
            f"SELECT file, row {where_wrong} ORDER BY row LIMIT 1"
        ).fetchall()[0]
        raise SchemaError(
            f"row {_row_in_file(connection, *wrong):,} lies before the row above it in time",
            where=_label(files[wrong[0]], root),
            fix="sort each subject's rows by time, those without one first",
        )
    if policy.strict and runs > persons:
        raise SchemaError(
            f"{runs - persons:,} subjects stand in rows apart from each other",
            where=f"{root.name}/data",
            fix="sort the rows by subject",
        )
    return int(backward + runs - persons)


def _row_in_file(connection: duckdb.DuckDBPyConnection, file: int, row: int) -> int:
    start = first_row(connection, f"SELECT min(rowid) FROM meds_events WHERE file = {int(file)}")
    return int(row) - int(start[0]) + 1


def _make_stays(
    connection: duckdb.DuckDBPyConnection,
    index: str,
    until: str | None,
    root: Path,
    *,
    may_be_none: bool = False,
) -> None:
    """Make the table "stays": stay, person, start, next, ended, kind of the index event."""
    if not index:
        raise ArgumentError("the index event has no name", fix='say index="ICU_ADMISSION"')
    ends = "false" if until is None else matches_sql(until, "e.code")
    with reading():
        connection.execute(f"""
            CREATE TABLE stays AS
            WITH starts AS (
                SELECT person, time AS start, min(code) AS code FROM meds_events
                WHERE {matches_sql(index)} AND time IS NOT NULL GROUP BY person, time
            ), ordered AS (
                SELECT *, row_number() OVER w AS ordinal, lead(start) OVER w AS next
                FROM starts WINDOW w AS (PARTITION BY person ORDER BY start)
            ), ended AS (
                SELECT o.person, o.start, min(e.time) AS ended
                FROM ordered o JOIN meds_events e ON e.person = o.person AND e.time >= o.start
                    AND (o.next IS NULL OR e.time <= o.next) AND {ends}
                GROUP BY o.person, o.start
            )
            SELECT o.person || '-' || o.ordinal AS stay, o.person, o.start, o.next, ended.ended,
                substr(o.code, {len(index + SEPARATOR) + 1}) AS kind
            FROM ordered o LEFT JOIN ended USING (person, start)
        """)
        n_stays = first_row(connection, "SELECT count(*) FROM stays")[0]
    if n_stays == 0 and not may_be_none:
        leading = connection.execute(
            "SELECT split_part(code, '//', 1), count(DISTINCT person) FROM meds_events "
            "GROUP BY 1 ORDER BY 1 LIMIT 40"
        ).fetchall()
        shown = shown_names({str(code): n_persons for code, n_persons in leading})
        raise SchemaError(
            f"no event is called {index!r}; codes begin with {', '.join(shown.values())}",
            where=f"{root.name}/data",
            fix='name the event that is time zero: index="..."',
        )


def _join_stays(connection: duckdb.DuckDBPyConnection) -> None:
    """Give every event with a time the stay it lies in, and its hours since time zero."""
    with reading():
        connection.execute(f"""
            CREATE TABLE stay_events AS
            SELECT row, person, code, number, stamp, is_static, role, variable, pair, scale,
                "offset", CASE WHEN inside THEN stay END AS stay,
                CASE WHEN inside THEN {hours_sql("stamp", "start")} END AS time
            FROM (
                SELECT e.row, e.person, e.code, e.number, e.time AS stamp,
                    e.time IS NULL AS is_static, s.stay, s.start,
                    s.ended IS NULL OR e.time <= s.ended AS inside,
                    c.role, c.variable, c.pair, c.scale, c.offset
                FROM (SELECT *, rowid AS row FROM meds_events) e
                ASOF LEFT JOIN stays s ON e.person = s.person AND e.time >= s.start
                JOIN meds_codes c ON e.code = c.code
            )
        """)


def _shipped_schema(seen: set[str], given: set[str]) -> CohortSchema:
    """What the shipped mapping knows of the variables that occur."""
    variables = [variable for variable in EXTRA_VARIABLES if variable.name in seen]
    variables += [
        Variable(name=name, label=f"Number of {name[:-8]} events", kind="count")
        for name in sorted(seen)
        if name.endswith(" (count)")
    ]
    inputs = [variable for variable in INFUSIONS if variable.name in given]
    return CohortSchema(tuple(variables), (), tuple(inputs))


def _label(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()
