"""Medical Event Data Standard, 0.4: events of persons, cut into stays.

An index event sets time zero and makes one subject a stay. Events without a time are statics of the
person; numbers become variables through a mapping from codes; starts and ends of infusions and
medications become inputs; other codes are counted, one count variable for each leading part of a
code. What is known only after a stay (discharge, death, diagnoses, billing) is never an
observation. Labels follow the label schema, and data up to and including the prediction time may be
used.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clinode.cohort.assembly import Parts
from clinode.cohort.ledger import Entry
from clinode.cohort.mimic4_codes import AMOUNT, CODES, EXTRA_VARIABLES, INFUSIONS, Code
from clinode.cohort.policy import Policy
from clinode.cohort.schema import CohortSchema, Variable
from clinode.cohort.sources import Source, first_row, literal, open_source, reading
from clinode.cohort.staging import FINE, MISSING, Staged, is_numeric
from clinode.cohort.subject_tables import Cells, read_cells
from clinode.errors import ArgumentError, SchemaError

SEPARATOR = "//"
BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
DISCHARGE, DIED = "HOSPITAL_DISCHARGE", "DIED"
HOURS_A_YEAR = 365.25 * 24
COUNT = " (count)"
LABEL_VALUES = ("boolean_value", "integer_value", "float_value", "categorical_value")

AFTERWARDS = (
    *("HOSPITAL_DISCHARGE", "ICU_DISCHARGE", "TRANSFER_TO", "DIAGNOSIS", "DRG", "HCPCS"),
    *("HOSPITAL_ADMISSION", "ICU_ADMISSION", "ED_REGISTRATION", "ED_OUT", BIRTH, DEATH),
)
"""Leading parts of codes that bound a stay or are written after it."""

GIVEN = ("Administered", "Flushed", "Applied", "Started", "Restarted", "Confirmed")
"""What a record of medication administration says when something was given."""

_OBSERVATION, _START, _END, _IMPULSE, _COUNT, _AFTERWARDS, _NOT_GIVEN, _LEFT_OUT = range(8)
_REASONS = {
    _AFTERWARDS: "bounds a stay, or is known only after it",
    _NOT_GIVEN: "medication that was not given",
    _LEFT_OUT: "left out by the mapping",
}
UNMAPPED = "code with a number that is not in the mapping"


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

    Raises:
        SchemaError: A file breaks the standard, a person stands in two files, or there is no index
            event.
    """
    files = sorted((root / "data").rglob("*.parquet"))
    _stage_events(connection, files, root)
    out_of_order = _check_invariants(connection, files, root, policy)
    codes = CODES if mapping is None else _read_mapping(connection, mapping)
    _classify_codes(connection, codes)
    if until is None and "ADMISSION" in index:
        until = index.replace("ADMISSION", "DISCHARGE")
    _make_stays(connection, index, until, root)
    _join_stays(connection)
    source = Source(f"{root.name}/data", "meds_events", {}, tuple(files))
    parts = Parts(
        source={
            "format": "meds",
            "files": [_label(file, root) for file in files],
            "out_of_order": {"events": out_of_order},
        }
    )
    parts.observations.append(_stage_observations(connection, source))
    parts.inputs.append(_stage_inputs(connection, source))
    parts.entries += _account(connection)
    parts.statics = _statics(connection, policy, index)
    parts.outcomes = (
        _hospital_death(connection, policy)
        if labels is None
        else _labels(connection, labels, policy)
    )
    stays = connection.execute("SELECT stay, person, start FROM stays ORDER BY stay").fetchall()
    names, persons, starts = (list(column) for column in zip(*stays, strict=True))
    parts.groups = pd.DataFrame({"subject_id": names, "group": [str(p) for p in persons]})
    parts.frames["index_times"] = pd.DataFrame(
        {"subject_id": names, "person_id": persons, "index_time": starts}
    )
    splits = _splits(connection, root)
    if splits is not None:
        parts.frames["splits"] = splits
    if mapping is None:
        given = connection.execute("SELECT DISTINCT variable FROM staged_inputs").fetchall()
        seen = connection.execute("SELECT DISTINCT variable FROM staged_observations").fetchall()
        parts.schema = _shipped_schema({row[0] for row in seen}, {row[0] for row in given})
    return parts


def _stage_events(connection: duckdb.DuckDBPyConnection, files: list[Path], root: Path) -> None:
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
            f"FROM {relation}"
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


def _read_mapping(connection: duckdb.DuckDBPyConnection, table: Any) -> dict[str, Code]:
    """A mapping table: code, variable, and perhaps role, scale and offset.

    Raises:
        SchemaError: A column is missing, a code is repeated, or a role is unknown.
    """
    source = open_source(connection, table, "mapping", view="meds_mapping")
    for name in ("code", "variable"):
        if name not in source.columns:
            raise SchemaError(f"there is no column {name!r}", where=source.name)
    frame = connection.execute(f"SELECT * FROM {source.relation}").df()
    codes: dict[str, Code] = {}
    for number, row in enumerate(frame.to_dict("records"), start=1):
        role = str(row.get("role") or "observation")
        code = str(row["code"]).replace("INFUSION_START//", "INFUSION//")
        if role not in ("observation", "input", "leave out"):
            raise SchemaError(
                f"row {number:,}, column 'role': expected observation, input or leave out",
                where=source.name,
            )
        if code in codes:
            raise SchemaError(f"row {number:,} repeats a code", where=source.name)
        try:
            scale, offset = float(row.get("scale") or 1.0), float(row.get("offset") or 0.0)
        except ValueError:
            raise SchemaError(
                f"row {number:,}: scale and offset are numbers", where=source.name
            ) from None
        codes[code] = Code(role, str(row["variable"]), scale, offset)
    return codes


def _classify_codes(connection: duckdb.DuckDBPyConnection, codes: Mapping[str, Code]) -> None:
    """Say of each code that occurs what its rows become."""
    with reading():
        names = [
            row[0]
            for row in connection.execute(
                "SELECT DISTINCT code FROM meds_events ORDER BY code"
            ).fetchall()
        ]
    rows = [(name, *_meaning(name, codes)) for name in names]
    kinds = (pa.string(), pa.uint8(), pa.string(), pa.string(), pa.float64(), pa.float64())
    labels = ("code", "role", "variable", "pair", "scale", "offset")
    table = pa.table(
        {
            label: pa.array([row[position] for row in rows], kind)
            for position, (label, kind) in enumerate(zip(labels, kinds, strict=True))
        }
    )
    connection.register("meds_codes_data", table)
    connection.execute("CREATE TABLE meds_codes AS SELECT * FROM meds_codes_data")
    connection.unregister("meds_codes_data")


def _meaning(
    code: str, codes: Mapping[str, Code]
) -> tuple[int, str | None, str | None, float, float]:
    """Role, variable, what pairs a start with its end, scale and offset."""
    parts = code.split(SEPARATOR)
    if code in codes:
        found = codes[code]
        role = {"observation": _OBSERVATION, "input": _IMPULSE}.get(found.role, _LEFT_OUT)
        return role, found.variable, None, found.scale, found.offset
    if parts[0] in ("INFUSION_START", "INFUSION_END"):
        found = codes.get(SEPARATOR.join(["INFUSION", *parts[1:]]))
        if found is None or found.role != "input":
            return _LEFT_OUT, None, None, 1.0, 0.0
        role = _START if parts[0] == "INFUSION_START" else _END
        return role, found.variable, found.variable, found.scale, found.offset
    if parts[0] == "MEDICATION":
        if len(parts) > 1 and parts[1] in ("START", "STOP"):
            role = _START if parts[1] == "START" else _END
            return role, "medication order", SEPARATOR.join(parts[2:]), 1.0, 0.0
        given = any(parts[-1].startswith(word) for word in GIVEN)
        return (_IMPULSE if given else _NOT_GIVEN), "medication given", None, 1.0, 0.0
    if parts[0] in AFTERWARDS:
        return _AFTERWARDS, None, None, 1.0, 0.0
    return _COUNT, parts[0], None, 1.0, 0.0


def _matches(pattern: str, code: str = "code") -> str:
    return f"({code} = {literal(pattern)} OR starts_with({code}, {literal(pattern + SEPARATOR)}))"


def _make_stays(
    connection: duckdb.DuckDBPyConnection, index: str, until: str | None, root: Path
) -> None:
    """Make the table "stays": stay, person, start, next, ended, kind of the index event."""
    if not index:
        raise ArgumentError("the index event has no name", fix='say index="ICU_ADMISSION"')
    ends = "false" if until is None else _matches(until, "e.code")
    with reading():
        connection.execute(f"""
            CREATE TABLE stays AS
            WITH starts AS (
                SELECT person, time AS start, min(code) AS code FROM meds_events
                WHERE {_matches(index)} AND time IS NOT NULL GROUP BY person, time
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
    if n_stays == 0:
        leading = connection.execute(
            "SELECT DISTINCT split_part(code, '//', 1) FROM meds_events ORDER BY 1 LIMIT 40"
        ).fetchall()
        raise SchemaError(
            f"no event is called {index!r}; codes begin with "
            + ", ".join(str(row[0]) for row in leading),
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
                CASE WHEN inside THEN {_hours("stamp", "start")} END AS time
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


def _hours(later: str, earlier: str) -> str:
    return f"(epoch_us({later}) - epoch_us({earlier}))::DOUBLE / 3.6e9"


def _scaled(number: str) -> str:
    """A number in the unit of its variable; decimal factors stay exact when divided by."""
    return (
        f'CASE WHEN scale = 1 AND "offset" = 0 THEN {number} '
        f'ELSE {number} / (1 / scale) + "offset" END'
    )


def _stage_observations(connection: duckdb.DuckDBPyConnection, source: Source) -> Staged:
    """Numbers of mapped codes, and counts of codes without a number."""
    inside = "stay IS NOT NULL AND NOT is_static"
    with reading(source):
        connection.execute(f"""
            CREATE TABLE staged_observations AS
            SELECT subject, variable, time, {FINE}::UTINYINT AS time_fault, value,
                {FINE}::UTINYINT AS value_fault, NULL::VARCHAR AS text, row + 1 AS row
            FROM (
                SELECT stay AS subject, variable, time, {_scaled("number")} AS value, row
                FROM stay_events
                WHERE {inside} AND role = {_OBSERVATION} AND number IS NOT NULL
                UNION ALL
                SELECT stay, split_part(code, '//', 1) || {literal(COUNT)}, time,
                    count(*)::DOUBLE, min(row)
                FROM stay_events
                WHERE {inside} AND role IN ({_OBSERVATION}, {_COUNT}) AND number IS NULL
                GROUP BY stay, split_part(code, '//', 1), time
            )
        """)
        _list_subjects(connection, "staged_observations")
        n_rows = int(first_row(connection, "SELECT count(*) FROM staged_observations")[0])
    return Staged("staged_observations", source, n_rows, 0, {"variable": "code"}, inflow="filled")


def _stage_inputs(connection: duckdb.DuckDBPyConnection, source: Source) -> Staged:
    """Intervals from starts and ends, the n-th of a person with the n-th, and impulses.

    An interval belongs to the stay that it starts in. An infusion has the rate of its start; one
    without a rate is an impulse of its amount at its end, when the amount is known, and another
    variable, since its unit is another. Equal orders and doses at one time are counted together.
    """
    numbered = """
        SELECT *, row_number() OVER (
            PARTITION BY person, variable, pair ORDER BY stamp, number, row
        ) AS n FROM stay_events WHERE NOT is_static AND role ="""
    whole = "stay IS NOT NULL AND has_end"
    with reading(source):
        connection.execute(f"""
            CREATE TABLE pairs AS
            SELECT s.stay, s.variable, s.time AS start,
                s.time + {_hours("e.stamp", "s.stamp")} AS "end",
                s.number AS rate, e.number AS amount, s.scale, s."offset", s.row + 1 AS row,
                s.row IS NOT NULL AS has_start, e.row IS NOT NULL AS has_end,
                starts_with(s.code, 'INFUSION') AS is_infusion
            FROM ({numbered} {_START}) s FULL JOIN ({numbered} {_END}) e
            ON s.person = e.person AND s.variable = e.variable AND s.pair = e.pair AND s.n = e.n
        """)
        connection.execute(f"""
            CREATE TABLE staged_inputs AS
            SELECT subject, variable, start, {FINE}::UTINYINT AS start_fault, "end",
                CASE WHEN "end" IS NULL THEN {MISSING} ELSE {FINE} END::UTINYINT AS end_fault,
                value,
                CASE WHEN value IS NULL THEN {MISSING} ELSE {FINE} END::UTINYINT AS value_fault,
                NULL::VARCHAR AS text, row
            FROM (
                SELECT stay AS subject, variable, start, "end", {_scaled("rate")} AS value, row
                FROM pairs WHERE {whole} AND is_infusion AND rate IS NOT NULL
                UNION ALL
                SELECT stay, variable || {literal(AMOUNT)}, "end", NULL, amount, row
                FROM pairs WHERE {whole} AND is_infusion AND rate IS NULL
                UNION ALL
                SELECT stay, variable, start, "end", count(*)::DOUBLE, min(row)
                FROM pairs WHERE {whole} AND NOT is_infusion
                GROUP BY stay, variable, start, "end"
                UNION ALL
                SELECT stay, variable, time, NULL, count(*)::DOUBLE, min(row) + 1
                FROM stay_events WHERE stay IS NOT NULL AND NOT is_static AND role = {_IMPULSE}
                GROUP BY stay, variable, time
            )
        """)
        _list_subjects(connection, "staged_inputs")
        n_rows = int(first_row(connection, "SELECT count(*) FROM staged_inputs")[0])
    return Staged("staged_inputs", source, n_rows, 0, {"variable": "code"}, inflow="filled")


def _list_subjects(connection: duckdb.DuckDBPyConnection, staged: str) -> None:
    """Every stay is a subject, with or without a row."""
    connection.execute(f"CREATE TABLE {staged}_subjects AS SELECT stay AS subject FROM stays")


def _account(connection: duckdb.DuckDBPyConnection) -> list[Entry]:
    """What became of every event, before the rules for observations and inputs."""

    def entry(action: str, reason: str, rows: Any, variable: str = "") -> Entry:
        return Entry(
            table="events", action=action, reason=reason, variable=variable, rows=int(rows)
        )

    with reading():
        groups = connection.execute("""
            SELECT
                CASE WHEN is_static THEN 'static' WHEN stay IS NULL THEN 'outside'
                    ELSE 'inside' END AS place,
                role, number IS NOT NULL, split_part(code, '//', 1), count(*),
                count(*) FILTER (person IN (SELECT person FROM stays))
            FROM stay_events GROUP BY ALL
        """).fetchall()
        n_counts = first_row(
            connection,
            f"SELECT count(*) FROM staged_observations WHERE ends_with(variable, {literal(COUNT)})",
        )[0]
        n_inputs = first_row(connection, "SELECT count(*) FROM staged_inputs")[0]
        outside, without_end, without_start, used = first_row(
            connection,
            """
            SELECT
                coalesce(sum(1 + has_end::INTEGER) FILTER (has_start AND stay IS NULL), 0),
                count(*) FILTER (has_start AND stay IS NOT NULL AND NOT has_end),
                count(*) FILTER (NOT has_start),
                2 * count(*) FILTER (has_start AND stay IS NOT NULL AND has_end)
            FROM pairs
            """,
        )
    entries = [entry("read", "", sum(group[4] for group in groups))]
    counted, given = 0, int(used)
    for place, role, has_number, leading, rows, with_stay in groups:
        if place == "static":
            entries.append(entry("kept", "static of the person", with_stay, leading))
            entries.append(entry("dropped", "person without a stay", rows - with_stay, leading))
        elif role in (_START, _END):
            continue  # their pairs are accounted for below
        elif role == _AFTERWARDS:
            entries.append(entry("dropped", _REASONS[role], rows, leading))
        elif place == "outside":
            entries.append(entry("dropped", "outside every stay", rows, leading))
        elif role in _REASONS:
            entries.append(entry("dropped", _REASONS[role], rows, leading))
        elif role == _IMPULSE:
            given += rows
        elif not has_number:
            counted += rows
        elif role == _OBSERVATION:
            entries.append(entry("moved", "to the observations", rows))
        else:
            entries.append(entry("dropped", UNMAPPED, rows, leading))
    entries += [
        entry("moved", "to the observations", n_counts),
        entry("merged", "counted together at one time", counted - n_counts),
        entry("moved", "to the inputs", n_inputs),
        entry("dropped", "outside every stay", outside, "starts and ends"),
        entry("dropped", "starts, and never ends", without_end),
        entry("dropped", "ends, and never starts", without_start),
        entry("merged", "starts with their ends, and equal ones", given - n_inputs),
    ]
    return entries + _conversions(connection)


def _conversions(connection: duckdb.DuckDBPyConnection) -> list[Entry]:
    with reading():
        rows = connection.execute(f"""
            SELECT code, variable, count(*) FROM stay_events
            WHERE stay IS NOT NULL AND NOT is_static AND role = {_OBSERVATION}
                AND number IS NOT NULL AND (scale <> 1 OR "offset" <> 0)
            GROUP BY ALL
        """).fetchall()
    return [
        Entry(
            table="observations",
            action="converted",
            reason=f"unit of the code, {str(code).split(SEPARATOR)[-1]}",
            variable=variable,
            rows=count,
        )
        for code, variable, count in rows
    ]


def _statics(connection: duckdb.DuckDBPyConnection, policy: Policy, index: str) -> Cells:
    """Age at time zero, the kind of the index event, and the person's events without a time."""
    with reading():
        rows = connection.execute(f"""
            SELECT s.stay, {_hours("s.start", "b.born")} / {HOURS_A_YEAR}, nullif(s.kind, '')
            FROM stays s LEFT JOIN (
                SELECT person, min(time) AS born FROM meds_events WHERE {_matches(BIRTH)}
                GROUP BY person
            ) b USING (person) ORDER BY s.stay
        """).fetchall()
        static = connection.execute("""
            SELECT s.stay, lower(split_part(e.code, '//', 1)) AS name,
                min(CASE WHEN contains(e.code, '//')
                    THEN substr(e.code, strpos(e.code, '//') + 2) END) AS text,
                min(e.number) AS number
            FROM stay_events e JOIN stays s USING (person) WHERE e.is_static
            GROUP BY ALL ORDER BY ALL
        """).fetchall()
    held: dict[str, dict[str, Any]] = {"age": {}, index.lower(): {}}
    for stay, age, kind in rows:
        held["age"][stay], held[index.lower()][stay] = age, kind
    for stay, name, text, number in static:
        value = number if number is not None else text if text is not None else 1.0
        held.setdefault(str(name), {})[stay] = value
    stays = [row[0] for row in rows]
    columns = {"subject_id": stays} | {
        name: [column.get(stay) for stay in stays]
        for name, column in sorted(held.items())
        if any(cell is not None for cell in column.values())
    }
    source = open_source(connection, pd.DataFrame(columns), "statics", view="meds_statics")
    return read_cells(connection, source, "statics", "subject_id", policy)


def _hospital_death(connection: duckdb.DuckDBPyConnection, policy: Policy) -> Cells:
    """Whether the hospital stay around time zero ended in death; empty where no end is recorded."""
    with reading():
        table = connection.sql(f"""
            WITH discharges AS (
                SELECT s.stay, min(e.time) AS left_at,
                    arg_min(contains(e.code, {literal(DIED)}), e.time) AS died
                FROM stays s JOIN meds_events e ON e.person = s.person AND e.time >= s.start
                    AND {_matches(DISCHARGE, "e.code")}
                GROUP BY s.stay
            ), deaths AS (
                SELECT s.stay, min(e.time) AS died_at
                FROM stays s JOIN meds_events e ON e.person = s.person AND e.time >= s.start
                    AND {_matches(DEATH, "e.code")}
                GROUP BY s.stay
            )
            SELECT s.stay AS subject_id,
                CASE WHEN d.died OR deaths.died_at <= d.left_at THEN 1.0
                    WHEN d.stay IS NOT NULL THEN 0.0
                    WHEN deaths.died_at <= s.ended THEN 1.0 END AS in_hospital_death
            FROM stays s LEFT JOIN discharges d USING (stay) LEFT JOIN deaths USING (stay)
            ORDER BY subject_id
        """).to_arrow_table()
    source = open_source(connection, table, "outcomes", view="meds_outcomes")
    return read_cells(connection, source, "outcomes", "subject_id", policy)


def _labels(connection: duckdb.DuckDBPyConnection, labels: Any, policy: Policy) -> Cells:
    """Labels of the label schema, each in the stay that its prediction time lies in.

    Raises:
        SchemaError: A column of the label schema is missing.
    """
    source = open_source(connection, labels, "labels", view="meds_labels")
    for name in ("subject_id", "prediction_time"):
        if name not in source.columns:
            raise SchemaError(
                f"there is no column {name!r}; the columns are {', '.join(source.columns)}",
                where=source.name,
                fix="write labels as MEDS does: subject_id, prediction_time, boolean_value, ...",
            )
    values = [name for name in LABEL_VALUES if name in source.columns]
    if not values:
        raise SchemaError(
            f"there is none of the columns {', '.join(LABEL_VALUES)}", where=source.name
        )
    listed = ", ".join(values)
    with reading(source):
        connection.execute(f"""
            CREATE TABLE meds_stay_labels AS
            SELECT CASE WHEN s.ended IS NULL OR l.prediction_time <= s.ended THEN s.stay END
                AS subject_id, {_hours("l.prediction_time", "s.start")} AS prediction_time, {listed}
            FROM (
                SELECT subject_id::BIGINT AS person,
                    prediction_time::TIMESTAMP AS prediction_time, {listed} FROM {source.relation}
            ) l ASOF LEFT JOIN stays s ON l.person = s.person AND l.prediction_time >= s.start
        """)
    outside = first_row(
        connection, "SELECT count(*) FROM meds_stay_labels WHERE subject_id IS NULL"
    )[0]
    table = connection.sql(
        "SELECT * FROM meds_stay_labels WHERE subject_id IS NOT NULL ORDER BY ALL"
    ).to_arrow_table()
    opened = open_source(connection, table, "labels", view="meds_labels_in_stays")
    cells = read_cells(
        connection, opened, "outcomes", "subject_id", policy, prediction_time="prediction_time"
    )
    for name in values:
        cells.count("read", "", name, outside)
        cells.count("dropped", "outside every stay", name, outside)
    return cells


def _splits(connection: duckdb.DuckDBPyConnection, root: Path) -> pd.DataFrame | None:
    """The published split of each stay, if there are any."""
    file = root / "metadata" / "subject_splits.parquet"
    if not file.is_file():
        return None
    source = open_source(connection, file, "subject_splits", view="meds_splits")
    with reading(source):
        rows = connection.execute(f"""
            SELECT s.stay, any_value(p.split), count(DISTINCT p.split)
            FROM stays s JOIN (
                SELECT subject_id::BIGINT AS person, split::VARCHAR AS split FROM {source.relation}
            ) p USING (person) GROUP BY s.stay ORDER BY s.stay
        """).fetchall()
    if any(count > 1 for _, _, count in rows):
        raise SchemaError("a subject is in two splits", where=file.name, fix="keep one of them")
    return pd.DataFrame({"subject_id": [row[0] for row in rows], "split": [row[1] for row in rows]})


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
