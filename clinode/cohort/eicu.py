"""eICU-CRD as it is published: patient, vitalPeriodic, lab, infusionDrug and other tables.

A stay in a unit is a subject, its admission is time zero, and the person is its group. Times are
minutes from there; rows before it and after the discharge from the unit are dropped and counted. An
infusion is charted as rates: each holds until the next of the same drug, the last one for an hour
and no longer than the stay. Orders of medication are counted while they are in force. `patient` and
one table of measurements must be there; others that are absent are named in `source`.
"""

import re
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from clinode.cohort.assembly import Parts
from clinode.cohort.eicu_names import DRUGS, LABORATORY, ORDER, URINE, VITALS
from clinode.cohort.ledger import Entry
from clinode.cohort.mimic4_codes import EXTRA_VARIABLES
from clinode.cohort.policy import Policy
from clinode.cohort.rates import dimension, factor
from clinode.cohort.raw_tables import (
    NO_STAY,
    OTHER_UNIT,
    OUTSIDE,
    UNMAPPED,
    cell_sql,
    count_stays,
    find_table,
    hand_over,
    make_table,
    numbers_sql,
    open_table,
    unmapped_items,
)
from clinode.cohort.schema import CohortSchema, Variable
from clinode.cohort.shard import WHOLE, Shard
from clinode.cohort.sources import (
    Source,
    first_row,
    literal,
    open_source,
    quoted,
    read_header,
    reading,
)
from clinode.cohort.staging import FINE, MISSING
from clinode.cohort.subject_tables import Cells, read_cells
from clinode.errors import SchemaError

STAY, PERSON, LEAVES = "patientunitstayid", "uniquepid", "unitdischargeoffset"
LAST_RATE_MINUTES = 60
MINUTES = 60.0  # in an hour

_PATIENT = (STAY, PERSON, LEAVES, "gender", "age", "hospitaldischargestatus", "unitdischargestatus")
_DRUG = re.compile(r"(.*?)\s*\(([^()]*)\)\s*")


def is_eicu(folder: Path) -> bool:
    """Whether a folder holds a table of unit stays as eICU has them."""
    path = find_table(folder, "patient")
    if path is None or path.suffix.lower() in (".parquet", ".parq", ".pq"):
        return path is not None and STAY in _parquet_names(path)
    return path.stat().st_size > 0 and STAY in [n.strip().lower() for n in read_header(path)[0]]


def stage_eicu(
    connection: duckdb.DuckDBPyConnection,
    root: Path,
    *,
    policy: Policy,
    shard: Shard = WHOLE,
) -> Parts:
    """Stage the unit stays of an eICU folder.

    Args:
        connection: Where the staged tables are made.
        root: The folder of the tables.
        policy: How rows that cannot be taken as they are are treated.
        shard: Which persons are read.

    Raises:
        SchemaError: A table or a column is missing, or there is no stay.
    """
    tokens = policy.missing_tokens
    parts = Parts(source={"format": "eicu", "files": []})
    parts.entries += _make_stays(connection, root, shard, parts)
    unmapped: dict[str, int] = {}
    source = _open(connection, root, "lab", _LAB, parts)
    if source is not None:
        _stage_laboratory(connection, source, tokens)
        unmapped |= unmapped_items(connection, "raw_lab")
        _take(connection, "raw_lab", source, "lab", parts)
    for table, columns in VITALS.items():
        source = _open(connection, root, table, (STAY, "observationoffset"), parts)
        if source is not None:
            _stage_vitals(connection, source, f"raw_{table.lower()}", columns, tokens)
            _take(connection, f"raw_{table.lower()}", source, table, parts)
    source = _open(connection, root, "intakeOutput", _INTAKE, parts)
    if source is not None:
        _stage_urine(connection, source, tokens)
        _take(connection, "raw_intakeoutput", source, "intakeOutput", parts)
    if not parts.observations:
        raise SchemaError(
            "there is none of lab, vitalPeriodic, vitalAperiodic and intakeOutput",
            where=root.name,
            fix="put the tables beside the table patient",
        )
    source = _open(connection, root, "infusionDrug", _INFUSION, parts)
    if source is not None:
        _stage_infusions(connection, source, tokens)
        unmapped |= unmapped_items(connection, "raw_infusiondrug")
        _take(connection, "raw_infusiondrug", source, "infusionDrug", parts, to="inputs")
    source = _open(connection, root, "medication", _MEDICATION, parts)
    if source is not None:
        _stage_orders(connection, source, tokens)
        _take(connection, "raw_medication", source, "medication", parts, to="inputs")
    parts.statics, parts.outcomes = _statics(connection, policy), _outcomes(connection, policy)
    parts.groups = connection.execute(
        'SELECT stay AS subject_id, person AS "group" FROM stays ORDER BY stay'
    ).df()
    parts.source["unmapped"] = unmapped
    parts.schema = _schema(connection, parts)
    return parts


_LAB = (STAY, "labresultoffset", "labname", "labresult", "labmeasurenamesystem")
_INTAKE = (STAY, "intakeoutputoffset", "celllabel", "cellvaluenumeric")
_INFUSION = (STAY, "infusionoffset", "drugname", "drugrate")
_MEDICATION = (STAY, "drugstartoffset", "drugstopoffset", "drugordercancelled")


def _open(
    connection: duckdb.DuckDBPyConnection,
    root: Path,
    table: str,
    needed: tuple[str, ...],
    parts: Parts,
) -> Source | None:
    path = find_table(root, table)
    if path is None:
        parts.source.setdefault("absent", []).append(table)
        return None
    parts.source["files"].append(path.name)
    return open_table(connection, path, needed)


def _make_stays(
    connection: duckdb.DuckDBPyConnection, root: Path, shard: Shard, parts: Parts
) -> list[Entry]:
    """Make the table "stays" (stay, person, ended, what is known), and all_stays of every shard."""
    source = _open(connection, root, "patient", _PATIENT, parts)
    if source is None:
        raise SchemaError("there is no table patient", where=root.name)
    leaves, _ = numbers_sql(source, LEAVES, ())
    known = ("gender", "age", "ethnicity", "unittype", "unitadmitsource", "admissionheight",
             "admissionweight", "hospitaldischargestatus", "unitdischargestatus")  # fmt: skip
    listed = ", ".join(f"{cell_sql(source, name)} AS {name}" for name in known)
    with reading(source):
        connection.execute(f"""
            CREATE TABLE all_stays AS
            SELECT {cell_sql(source, STAY)} AS stay, {cell_sql(source, PERSON)} AS person,
                {leaves} AS ended, {listed}
            FROM {source.relation}
        """)
        connection.execute(f"""
            CREATE TABLE raw_stays AS
            SELECT *, CASE WHEN stay IS NULL OR person IS NULL THEN 'no {STAY} or {PERSON}'
                WHEN ended <= 0 THEN 'ends before it starts' END AS fate
            FROM all_stays WHERE {shard.condition("person")}
        """)
        entries = count_stays(connection, "patient")
        connection.execute(
            "CREATE TABLE stays AS SELECT * EXCLUDE (fate) FROM raw_stays WHERE fate IS NULL"
        )
        if shard == WHOLE and not first_row(connection, "SELECT count(*) FROM stays")[0]:
            raise SchemaError("there is no stay", where="patient", fix="copy the table again")
    connection.execute(f"CREATE MACRO is_first_shard() AS {shard.number == 1}")
    return entries


def _own(source: Source) -> str:
    """Rows of the shard: those of its stays; rows of stays that are not known, in the first one."""
    key = cell_sql(source, STAY)
    return (
        f"(SELECT *, row_number() OVER () AS row FROM {source.relation} WHERE "
        f"coalesce({key} IN (SELECT stay FROM raw_stays WHERE stay IS NOT NULL), false) OR "
        f"(is_first_shard() AND "
        f"NOT coalesce({key} IN (SELECT stay FROM all_stays WHERE stay IS NOT NULL), false)))"
    )


def _take(
    connection: duckdb.DuckDBPyConnection,
    raw: str,
    source: Source,
    table: str,
    parts: Parts,
    *,
    to: str = "observations",
) -> None:
    staged, entries = hand_over(connection, raw, source, table, to=to)
    (parts.observations if to == "observations" else parts.inputs).append(staged)
    parts.entries += entries


_PLACE = (
    f"CASE WHEN s.stay IS NULL THEN {literal(NO_STAY)} "
    f"WHEN r.minute < 0 OR r.minute > s.ended THEN {literal(OUTSIDE)} END"
)


def _stage_laboratory(
    connection: duckdb.DuckDBPyConnection, source: Source, tokens: tuple[str, ...]
) -> None:
    rows = [
        (name, unit, variable, scale)
        for name, units, variable, scale in LABORATORY
        for unit in units
    ]
    kinds = (pa.string(), pa.string(), pa.string(), pa.float64())
    labels = ("item", "unit", "variable", "scale")
    columns = zip(labels, kinds, zip(*rows, strict=True), strict=True)
    make_table(connection, "laboratory", {n: pa.array(list(c), k) for n, k, c in columns})
    minute, fault = numbers_sql(source, "labresultoffset", tokens)
    number, number_fault = numbers_sql(source, "labresult", tokens)
    with reading(source):
        connection.execute(f"""
            CREATE TABLE raw_lab AS
            SELECT s.stay AS subject, i.variable, r.minute / {MINUTES} AS time,
                r.fault::UTINYINT AS time_fault,
                CASE WHEN i.scale = 1 THEN r.number ELSE r.number / (1 / i.scale) END AS value,
                r.number_fault::UTINYINT AS value_fault, NULL::VARCHAR AS text, r.row,
                r.item, nullif(r.unit, '') AS unit,
                coalesce(
                    CASE WHEN i.variable IS NULL THEN
                        CASE WHEN r.item IN (SELECT item FROM laboratory)
                            THEN {literal(OTHER_UNIT)} ELSE {literal(UNMAPPED)} END END,
                    {_PLACE}
                ) AS fate
            FROM (
                SELECT row, {cell_sql(source, STAY)} AS owner, {minute} AS minute,
                    {fault} AS fault, lower({cell_sql(source, "labname")}) AS item,
                    lower(coalesce({cell_sql(source, "labmeasurenamesystem")}, '')) AS unit,
                    {number} AS number, {number_fault} AS number_fault
                FROM {_own(source)}
            ) r LEFT JOIN stays s ON r.owner = s.stay
            LEFT JOIN laboratory i ON r.item = i.item AND r.unit = i.unit
        """)


def _stage_vitals(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    raw: str,
    columns: dict[str, str],
    tokens: tuple[str, ...],
) -> None:
    """One row a cell of a known column; an empty one goes no further."""
    there = {name: variable for name, variable in columns.items() if name in source.columns}
    if not there:
        raise SchemaError(
            f"there is none of the columns {', '.join(columns)}",
            where=source.name,
            fix="use the table as it is published",
        )
    minute, fault = numbers_sql(source, "observationoffset", tokens)
    cells = ", ".join(f"{quoted(name)}::VARCHAR" for name in there)
    as_text = Source(source.name, "", {"cell": "VARCHAR"})
    number, number_fault = numbers_sql(as_text, "cell", tokens)
    with reading(source):
        connection.execute(f"""
            CREATE TABLE {raw} AS
            SELECT s.stay AS subject, r.variable, r.minute / {MINUTES} AS time,
                r.fault::UTINYINT AS time_fault, {number} AS value,
                {number_fault}::UTINYINT AS value_fault, NULL::VARCHAR AS text, r.row,
                NULL::VARCHAR AS item, NULL::VARCHAR AS unit,
                coalesce(
                    CASE WHEN {number_fault} = {MISSING} THEN 'empty cell' END, {_PLACE}
                ) AS fate
            FROM (
                SELECT row, {cell_sql(source, STAY)} AS owner, {minute} AS minute,
                    {fault} AS fault, unnest([{cells}]) AS cell,
                    unnest([{", ".join(map(literal, there.values()))}]) AS variable
                FROM {_own(source)}
            ) r LEFT JOIN stays s ON r.owner = s.stay
        """)


def _stage_urine(
    connection: duckdb.DuckDBPyConnection, source: Source, tokens: tuple[str, ...]
) -> None:
    minute, fault = numbers_sql(source, "intakeoutputoffset", tokens)
    number, number_fault = numbers_sql(source, "cellvaluenumeric", tokens)
    urine = ", ".join(map(literal, URINE))
    with reading(source):
        connection.execute(f"""
            CREATE TABLE raw_intakeoutput AS
            SELECT s.stay AS subject, 'Urine' AS variable, r.minute / {MINUTES} AS time,
                r.fault::UTINYINT AS time_fault, r.number AS value,
                r.number_fault::UTINYINT AS value_fault, NULL::VARCHAR AS text, r.row,
                r.item, NULL::VARCHAR AS unit,
                CASE WHEN r.item IS NULL OR r.item NOT IN ({urine}) THEN {literal(UNMAPPED)}
                    ELSE {_PLACE} END AS fate
            FROM (
                SELECT row, {cell_sql(source, STAY)} AS owner, {minute} AS minute,
                    {fault} AS fault, lower({cell_sql(source, "celllabel")}) AS item,
                    {number} AS number, {number_fault} AS number_fault
                FROM {_own(source)}
            ) r LEFT JOIN stays s ON r.owner = s.stay
        """)


def _stage_infusions(
    connection: duckdb.DuckDBPyConnection, source: Source, tokens: tuple[str, ...]
) -> None:
    minute, fault = numbers_sql(source, "infusionoffset", tokens)
    number, number_fault = numbers_sql(source, "drugrate", tokens)
    weight = "NULL::DOUBLE"
    if "patientweight" in source.columns:
        weight = numbers_sql(source, "patientweight", tokens)[0]
    with reading(source):
        names = connection.execute(
            f"SELECT DISTINCT {cell_sql(source, 'drugname')} FROM {source.relation} ORDER BY 1"
        ).fetchall()
    meanings = [(str(name), *_drug(str(name))) for (name,) in names if name is not None]
    kinds = (pa.string(), pa.string(), pa.float64(), pa.bool_())
    labels = ("item", "variable", "scale", "by_weight")
    make_table(
        connection,
        "drugs",
        {
            label: pa.array([row[place] for row in meanings], kind)
            for place, (label, kind) in enumerate(zip(labels, kinds, strict=True))
        },
    )
    with reading(source):
        connection.execute(f"""
            CREATE TABLE raw_infusiondrug AS
            SELECT s.stay AS subject, r.variable, r.minute / {MINUTES} AS start,
                r.fault::UTINYINT AS start_fault,
                least(coalesce(r.next, r.minute + {LAST_RATE_MINUTES}),
                    greatest(coalesce(s.ended, 'inf'::DOUBLE), r.minute)) / {MINUTES} AS "end",
                {FINE}::UTINYINT AS end_fault,
                CASE WHEN r.by_weight THEN r.number * r.scale / r.weight
                    ELSE r.number * r.scale END AS value,
                r.number_fault::UTINYINT AS value_fault, NULL::VARCHAR AS text, r.row,
                r.item, NULL::VARCHAR AS unit,
                CASE WHEN r.variable IS NULL AND r.known THEN {literal(OTHER_UNIT)}
                    WHEN r.variable IS NULL THEN {literal(UNMAPPED)}
                    WHEN s.stay IS NULL OR r.minute < 0 OR r.minute > s.ended THEN {_PLACE}
                    WHEN r.by_weight AND NOT coalesce(r.weight > 0, false)
                        THEN 'a rate without the weight that its unit asks for'
                    WHEN r.number = 0 THEN 'a rate of zero: it ends the one before'
                END AS fate
            FROM (
                SELECT *, min(minute) OVER (
                    PARTITION BY owner, variable ORDER BY minute
                    RANGE BETWEEN 1e-9 FOLLOWING AND UNBOUNDED FOLLOWING
                ) AS next
                FROM (
                    SELECT e.row, e.owner, e.minute, e.fault, e.item, e.number, e.number_fault,
                        e.weight, d.variable, d.scale, d.by_weight,
                        {_known_drug("e.item")} AS known
                    FROM (
                        SELECT row, {cell_sql(source, STAY)} AS owner, {minute} AS minute,
                            {fault} AS fault, {cell_sql(source, "drugname")} AS item,
                            {number} AS number, {number_fault} AS number_fault,
                            {weight} AS weight
                        FROM {_own(source)}
                    ) e LEFT JOIN drugs d ON e.item = d.item
                )
            ) r LEFT JOIN stays s ON r.owner = s.stay
        """)


def _drug(name: str) -> tuple[str | None, float | None, bool]:
    """Input, factor to the unit of its rate, and whether to divide by the weight.

    Example:
        >>> _drug("Norepinephrine (mcg/min)")
        ('norepinephrine', 1.0, True)
    """
    found = _DRUG.fullmatch(name)
    known = next((d for d in DRUGS if name.strip().lower().startswith(d)), None)
    if found is None or known is None:
        return None, None, False
    variable, wanted = DRUGS[known]
    unit = found[2].replace(" ", "")
    scale = factor(unit, wanted)
    if scale is not None:
        return variable, scale, False
    told = dimension(unit)
    if told is None or told[1] or "/" not in unit:
        return None, None, False
    scale = factor(unit.replace("/", "/kg/", 1), wanted)
    return (None, None, False) if scale is None else (variable, scale, True)


def _known_drug(item: str) -> str:
    return "(" + " OR ".join(f"starts_with(lower({item}), {literal(d)})" for d in DRUGS) + ")"


def _stage_orders(
    connection: duckdb.DuckDBPyConnection, source: Source, tokens: tuple[str, ...]
) -> None:
    start, start_fault = numbers_sql(source, "drugstartoffset", tokens)
    end, end_fault = numbers_sql(source, "drugstopoffset", tokens)
    with reading(source):
        connection.execute(f"""
            CREATE TABLE raw_medication AS
            SELECT s.stay AS subject, {literal(ORDER.name)} AS variable,
                r.minute / {MINUTES} AS start, r.start_fault::UTINYINT AS start_fault,
                r.stop / {MINUTES} AS "end", r.end_fault::UTINYINT AS end_fault,
                count(*) OVER (
                    PARTITION BY r.owner, r.cancelled, r.minute, r.stop
                )::DOUBLE AS value, {FINE}::UTINYINT AS value_fault, NULL::VARCHAR AS text,
                r.row, NULL::VARCHAR AS item, NULL::VARCHAR AS unit,
                CASE WHEN r.cancelled THEN 'order that was cancelled'
                    WHEN r.end_fault = {MISSING} THEN 'order without an end'
                    ELSE {_PLACE} END AS fate
            FROM (
                SELECT row, {cell_sql(source, STAY)} AS owner, {start} AS minute,
                    {start_fault} AS start_fault, {end} AS stop, {end_fault} AS end_fault,
                    lower(coalesce({cell_sql(source, "drugordercancelled")}, '')) = 'yes'
                        AS cancelled
                FROM {_own(source)}
            ) r LEFT JOIN stays s ON r.owner = s.stay
        """)


def _statics(connection: duckdb.DuckDBPyConnection, policy: Policy) -> Cells:
    table = connection.sql(
        "SELECT stay AS subject_id, age, gender, ethnicity, admissionheight AS height, "
        "admissionweight AS weight, unittype AS unit_type, unitadmitsource AS unit_admit_source "
        "FROM stays ORDER BY stay"
    ).to_arrow_table()
    source = open_source(connection, table, "statics", view="eicu_statics")
    return read_cells(connection, source, "statics", "subject_id", policy)


def _outcomes(connection: duckdb.DuckDBPyConnection, policy: Policy) -> Cells:
    """Days in the unit, death there and in the hospital; empty where no status is recorded."""

    def died(column: str) -> str:
        return f"CASE lower({column}) WHEN 'expired' THEN 1.0 WHEN 'alive' THEN 0.0 END::DOUBLE"

    table = connection.sql(f"""
        SELECT stay AS subject_id, ended / {24 * MINUTES} AS length_of_stay,
            {died("unitdischargestatus")} AS in_icu_death,
            {died("hospitaldischargestatus")} AS in_hospital_death
        FROM stays ORDER BY stay
    """).to_arrow_table()
    source = open_source(connection, table, "outcomes", view="eicu_outcomes")
    return read_cells(connection, source, "outcomes", "subject_id", policy)


def _schema(connection: duckdb.DuckDBPyConnection, parts: Parts) -> CohortSchema:
    seen = {
        row[0]
        for staged in (*parts.observations, *parts.inputs)
        for row in connection.execute(f"SELECT DISTINCT variable FROM {staged.name}").fetchall()
    }
    inputs = {name: Variable(name=name, unit=unit) for name, unit in DRUGS.values()}
    inputs[ORDER.name] = ORDER
    return CohortSchema(
        tuple(variable for variable in EXTRA_VARIABLES if variable.name in seen),
        (),
        tuple(inputs[name] for name in sorted(inputs) if name in seen),
    )


def _parquet_names(path: Path) -> list[str]:
    return [name.lower() for name in pq.read_schema(path).names]
