"""The tables of stays, once events lie in them: observations, inputs, statics, outcomes, splits.

Reads the tables "meds_events", "stay_events" and "stays" that `clinode.cohort.meds` makes.
"""

from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from clinode.cohort.cleaning import FEWEST_SUBJECTS
from clinode.cohort.ledger import Entry
from clinode.cohort.meds_codes import (
    AFTER,
    BIRTH,
    COUNTED,
    DEATH,
    DIED,
    DISCHARGE,
    END,
    IMPULSE,
    LEFT_OUT,
    NOT_GIVEN,
    OBSERVATION,
    SEPARATOR,
    START,
    matches_sql,
)
from clinode.cohort.mimic4_codes import AMOUNT
from clinode.cohort.policy import Policy
from clinode.cohort.shard import Shard
from clinode.cohort.sources import Source, first_row, literal, open_source, reading
from clinode.cohort.staging import FINE, MISSING, Staged
from clinode.cohort.subject_tables import Cells, read_cells
from clinode.errors import SchemaError

HOURS_A_YEAR = 365.25 * 24
COUNT = " (count)"
LABEL_VALUES = ("boolean_value", "integer_value", "float_value", "categorical_value")
MOST_CODES = 50  # that are named as missing in a mapping

REASONS = {
    AFTER: "bounds a stay, or is known only after it",
    NOT_GIVEN: "medication that was not given",
    LEFT_OUT: "left out by the mapping",
}
UNMAPPED = "code with a number that is not in the mapping"


def stage_observations(connection: duckdb.DuckDBPyConnection, source: Source) -> Staged:
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
                WHERE {inside} AND role = {OBSERVATION} AND number IS NOT NULL
                UNION ALL
                SELECT stay, split_part(code, '//', 1) || {literal(COUNT)}, time,
                    count(*)::DOUBLE, min(row)
                FROM stay_events
                WHERE {inside} AND role IN ({OBSERVATION}, {COUNTED}) AND number IS NULL
                GROUP BY stay, split_part(code, '//', 1), time
            )
        """)
        _list_subjects(connection, "staged_observations")
        n_rows = int(first_row(connection, "SELECT count(*) FROM staged_observations")[0])
    return Staged("staged_observations", source, n_rows, 0, {"variable": "code"}, inflow="filled")


def stage_inputs(connection: duckdb.DuckDBPyConnection, source: Source) -> Staged:
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
                s.time + {hours_sql("e.stamp", "s.stamp")} AS "end",
                s.number AS rate, e.number AS amount, s.scale, s."offset", s.row + 1 AS row,
                s.row IS NOT NULL AS has_start, e.row IS NOT NULL AS has_end,
                starts_with(s.code, 'INFUSION') AS is_infusion
            FROM ({numbered} {START}) s FULL JOIN ({numbered} {END}) e
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
                FROM stay_events WHERE stay IS NOT NULL AND NOT is_static AND role = {IMPULSE}
                GROUP BY stay, variable, time
            )
        """)
        _list_subjects(connection, "staged_inputs")
        n_rows = int(first_row(connection, "SELECT count(*) FROM staged_inputs")[0])
    columns = {"variable": "code", "start": "time"}
    return Staged("staged_inputs", source, n_rows, 0, columns, inflow="filled")


def _list_subjects(connection: duckdb.DuckDBPyConnection, staged: str) -> None:
    """Every stay is a subject, with or without a row."""
    connection.execute(f"CREATE TABLE {staged}_subjects AS SELECT stay AS subject FROM stays")


def account(connection: duckdb.DuckDBPyConnection) -> list[Entry]:
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
        elif role in (START, END):
            continue  # their pairs are accounted for below
        elif role == AFTER:
            entries.append(entry("dropped", REASONS[role], rows, leading))
        elif place == "outside":
            entries.append(entry("dropped", "outside every stay", rows, leading))
        elif role in REASONS:
            entries.append(entry("dropped", REASONS[role], rows, leading))
        elif role == IMPULSE:
            given += rows
        elif not has_number:
            counted += rows
        elif role == OBSERVATION:
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
            WHERE stay IS NOT NULL AND NOT is_static AND role = {OBSERVATION}
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


def read_statics(connection: duckdb.DuckDBPyConnection, policy: Policy, index: str) -> Cells:
    """Age at time zero, the kind of the index event, and the person's events without a time."""
    with reading():
        rows = connection.execute(f"""
            SELECT s.stay, {hours_sql("s.start", "b.born")} / {HOURS_A_YEAR}, nullif(s.kind, '')
            FROM stays s LEFT JOIN (
                SELECT person, min(time) AS born FROM meds_events WHERE {matches_sql(BIRTH)}
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


def read_hospital_death(connection: duckdb.DuckDBPyConnection, policy: Policy) -> Cells:
    """Whether the hospital stay around time zero ended in death; empty where no end is recorded."""
    with reading():
        table = connection.sql(f"""
            WITH discharges AS (
                SELECT s.stay, min(e.time) AS left_at,
                    arg_min(contains(e.code, {literal(DIED)}), e.time) AS died
                FROM stays s JOIN meds_events e ON e.person = s.person AND e.time >= s.start
                    AND {matches_sql(DISCHARGE, "e.code")}
                GROUP BY s.stay
            ), deaths AS (
                SELECT s.stay, min(e.time) AS died_at
                FROM stays s JOIN meds_events e ON e.person = s.person AND e.time >= s.start
                    AND {matches_sql(DEATH, "e.code")}
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


def read_labels(
    connection: duckdb.DuckDBPyConnection, labels: Any, policy: Policy, shard: Shard
) -> Cells:
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
                AS subject_id, {hours_sql("l.prediction_time", "s.start")} AS prediction_time,
                {listed}
            FROM (
                SELECT subject_id::BIGINT AS person,
                    prediction_time::TIMESTAMP AS prediction_time, {listed} FROM {source.relation}
                WHERE {shard.condition("subject_id::VARCHAR")}
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


def read_splits(connection: duckdb.DuckDBPyConnection, root: Path) -> pd.DataFrame | None:
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


def _scaled(number: str) -> str:
    """A number in the unit of its variable; decimal factors stay exact when divided by."""
    return (
        f'CASE WHEN scale = 1 AND "offset" = 0 THEN {number} '
        f'ELSE {number} / (1 / scale) + "offset" END'
    )


def hours_sql(later: str, earlier: str) -> str:
    """Hours between two columns of timestamps."""
    return f"(epoch_us({later}) - epoch_us({earlier}))::DOUBLE / 3.6e9"


def unmapped_codes(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Rows of the most frequent codes with numbers within stays that the mapping has not."""
    with reading():
        rows = connection.execute(f"""
            SELECT code, count(*) FROM stay_events
            WHERE stay IS NOT NULL AND NOT is_static AND role = {COUNTED} AND number IS NOT NULL
            GROUP BY code HAVING count(DISTINCT person) >= {FEWEST_SUBJECTS}
            ORDER BY count(*) DESC, code LIMIT {MOST_CODES}
        """).fetchall()
    return {str(code): int(count) for code, count in rows}
