"""MIMIC-IV as it is published: hosp/ and icu/ with their CSV files, compressed or not.

A stay in an intensive care unit is a subject, its `intime` is time zero, and the person is its
group. Charted and laboratory items become variables by item and unit, through the mapping that MEDS
folders of MIMIC-IV are read by too; infusions become inputs with their start, end and rate. Rows
outside of [intime, outtime] are dropped and counted. Tables that are absent are named in `source`;
patients, admissions and icustays must be there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from clinode.cohort.assembly import Parts
from clinode.cohort.meds_codes import SEPARATOR, read_mapping
from clinode.cohort.meds_tables import hours_sql
from clinode.cohort.mimic4_codes import AMOUNT, CODES, EXTRA_VARIABLES, INFUSIONS, Code
from clinode.cohort.policy import Policy
from clinode.cohort.rates import AMOUNT_UNITS, dimension, factor, spellings
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
    stamp_sql,
    unmapped_items,
)
from clinode.cohort.schema import CohortSchema, Variable
from clinode.cohort.shard import WHOLE, Shard
from clinode.cohort.sources import Source, first_row, literal, open_source, reading
from clinode.cohort.staging import FINE, MISSING
from clinode.cohort.subject_tables import Cells, read_cells
from clinode.errors import SchemaError

NO_UNIT = "unk"
RAW_CODES = {**CODES, "LAB//226730//cm": Code("observation", "Height")}
_KINDS = {"LAB": "value", "SUBJECT_FLUID_OUTPUT": "output"}

RATES = {  # the unit in which the rate of each infusion is kept, where the mapping names none
    **{"vasopressin": "U/h", "fentanyl": "ug/h", "fentanyl concentrate": "ug/h"},
    **{"amiodarone": "mg/min", "nitroglycerin": "ug/kg/min", "potassium chloride": "mEq/h"},
    "magnesium sulfate": "g/h",
}


def is_mimic4(folder: Path) -> bool:
    """Whether a folder holds hosp/patients and icu/icustays."""
    return folder.is_dir() and all(
        find_table(folder / part, name) is not None
        for part, name in (("hosp", "patients"), ("icu", "icustays"))
    )


def stage_mimic4(
    connection: duckdb.DuckDBPyConnection,
    root: Path,
    *,
    policy: Policy,
    mapping: Any = None,
    shard: Shard = WHOLE,
) -> Parts:
    """Stage the stays of a MIMIC-IV folder.

    Args:
        connection: Where the staged tables are made.
        root: The folder with hosp/ and icu/.
        policy: How rows that cannot be taken as they are are treated.
        mapping: Table from codes to variables in place of the shipped one; its codes are those of
            MEDS, such as LAB//220045//bpm. Units are compared without case.
        shard: Which persons are read.

    Raises:
        SchemaError: A table or a column is missing, or there is no stay.
    """
    codes = RAW_CODES if mapping is None else read_mapping(connection, mapping)
    parts = Parts(source={"format": "mimic4", "files": []})
    parts.entries += _make_stays(connection, root, shard, parts)
    _make_item_table(connection, codes)
    tokens = policy.missing_tokens
    unmapped: dict[str, int] = {}
    for place, table, dictionary, kind, value in (
        ("icu", "chartevents", "d_items", "value", "valuenum"),
        ("hosp", "labevents", "d_labitems", "value", "valuenum"),
        ("icu", "outputevents", "d_items", "output", "value"),
    ):
        source = _open(connection, root, place, table, _COLUMNS[table], shard, parts)
        if source is None:
            continue
        _stage_values(connection, source, f"raw_{table}", tokens, kind=kind, value=value)
        labels = find_table(root / place, dictionary)
        opened = None if labels is None else open_table(connection, labels, ("itemid", "label"))
        unmapped |= unmapped_items(connection, f"raw_{table}", opened)
        staged, entries = hand_over(
            connection, f"raw_{table}", source, f"{place}/{table}", to="observations"
        )
        parts.observations.append(staged)
        parts.entries += entries
    if not parts.observations:
        raise SchemaError(
            "there is none of icu/chartevents, hosp/labevents and icu/outputevents",
            where=root.name,
            fix="put the tables where they are published",
        )
    table = "inputevents"
    source = _open(connection, root, "icu", table, _COLUMNS[table], shard, parts)
    if source is not None:
        _stage_given(connection, source, f"raw_{table}", tokens)
        staged, entries = hand_over(connection, f"raw_{table}", source, f"icu/{table}", to="inputs")
        parts.inputs.append(staged)
        parts.entries += entries
    parts.statics, parts.outcomes = _statics(connection, policy), _outcomes(connection, policy)
    stays = connection.execute(
        "SELECT stay AS subject_id, person AS person_id, start AS index_time FROM stays "
        "ORDER BY stay"
    ).df()
    parts.groups = stays[["subject_id"]].assign(group=stays["person_id"].astype(str))
    parts.frames["index_times"] = stays
    parts.source["unmapped"] = unmapped
    parts.schema = _schema(connection, parts)
    return parts


_COLUMNS = {
    "chartevents": ("subject_id", "stay_id", "charttime", "itemid", "valuenum", "valueuom"),
    "labevents": ("subject_id", "charttime", "itemid", "valuenum", "valueuom"),
    "outputevents": ("subject_id", "stay_id", "charttime", "itemid", "value", "valueuom"),
    "inputevents": (
        *("subject_id", "stay_id", "starttime", "endtime", "itemid"),
        *("amount", "amountuom", "rate", "rateuom"),
    ),
}
_STAYS = ("subject_id", "hadm_id", "stay_id", "intime", "outtime")
_PATIENTS = ("subject_id", "gender", "anchor_age", "anchor_year")
_ADMISSIONS = ("subject_id", "hadm_id", "deathtime", "hospital_expire_flag")


def _open(
    connection: duckdb.DuckDBPyConnection,
    root: Path,
    place: str,
    table: str,
    needed: tuple[str, ...],
    shard: Shard,
    parts: Parts,
) -> Source | None:
    """A table, as far as its persons are of the shard."""
    path = find_table(root / place, table)
    if path is None:
        parts.source.setdefault("absent", []).append(f"{place}/{table}")
        return None
    parts.source["files"].append(f"{place}/{path.name}")
    source = open_table(connection, path, needed)
    return shard.of(source, cell_sql(source, "subject_id"))


def _make_stays(
    connection: duckdb.DuckDBPyConnection, root: Path, shard: Shard, parts: Parts
) -> list:
    """Make the table "stays": stay, person, start, ended, and what is known of person and stay."""
    opened = {}
    for place, table, needed in (
        ("icu", "icustays", _STAYS),
        ("hosp", "patients", _PATIENTS),
        ("hosp", "admissions", _ADMISSIONS),
    ):
        source = _open(connection, root, place, table, needed, shard, parts)
        if source is None:
            raise SchemaError(
                f"there is no table {place}/{table}",
                where=root.name,
                fix="put the tables where they are published",
            )
        opened[table] = source
    stays, patients, admissions = (opened[n] for n in ("icustays", "patients", "admissions"))
    start, _ = stamp_sql(stays, "intime")
    ended, _ = stamp_sql(stays, "outtime")
    death, _ = stamp_sql(admissions, "deathtime")
    with reading(stays):
        connection.execute(f"""
            CREATE TABLE raw_stays AS
            SELECT *, CASE WHEN stay IS NULL OR person IS NULL THEN 'no stay_id or subject_id'
                WHEN start IS NULL OR ended IS NULL THEN 'no intime or no outtime'
                WHEN ended <= start THEN 'ends before it starts' END AS fate
            FROM (
                SELECT {cell_sql(stays, "stay_id")} AS stay,
                    {cell_sql(stays, "subject_id")} AS person,
                    {cell_sql(stays, "hadm_id")} AS admission, {start} AS start, {ended} AS ended,
                    {cell_sql(stays, "first_careunit")} AS care_unit
                FROM {stays.relation}
            )
        """)
        entries = count_stays(connection, "icu/icustays")
    with reading(patients):
        connection.execute(f"""
            CREATE TABLE stays AS
            SELECT s.*, p.gender, p.anchor_age + (year(s.start) - p.anchor_year) AS age,
                a.race, a.kind, a.died, a.death
            FROM (SELECT * EXCLUDE (fate) FROM raw_stays WHERE fate IS NULL) s
            LEFT JOIN (
                SELECT {cell_sql(patients, "subject_id")} AS person,
                    any_value({cell_sql(patients, "gender")}) AS gender,
                    any_value({numbers_sql(patients, "anchor_age", ())[0]}) AS anchor_age,
                    any_value({numbers_sql(patients, "anchor_year", ())[0]}) AS anchor_year
                FROM {patients.relation} GROUP BY ALL
            ) p USING (person)
            LEFT JOIN (
                SELECT {cell_sql(admissions, "hadm_id")} AS admission,
                    any_value({cell_sql(admissions, "race")}) AS race,
                    any_value({cell_sql(admissions, "admission_type")}) AS kind,
                    any_value({numbers_sql(admissions, "hospital_expire_flag", ())[0]}) AS died,
                    any_value({death}) AS death
                FROM {admissions.relation} GROUP BY ALL
            ) a USING (admission)
        """)
        if shard == WHOLE and not first_row(connection, "SELECT count(*) FROM stays")[0]:
            raise SchemaError("there is no stay", where="icu/icustays", fix="copy the table again")
    return entries


def _make_item_table(connection: duckdb.DuckDBPyConnection, codes: Mapping[str, Code]) -> None:
    """Make the table "items": kind, item, unit in lower case, variable, scale, offset."""
    rows: dict[tuple[str, str, str], tuple[str, float, float]] = {}
    units = {variable.name: variable.unit for variable in INFUSIONS}
    for code, meaning in codes.items():
        leading, *rest = code.split(SEPARATOR)
        if meaning.role == "observation" and leading in _KINDS and len(rest) == 2:
            key = (_KINDS[leading], rest[0], rest[1].lower())
            rows[key] = (meaning.variable, meaning.scale, meaning.offset)
        elif meaning.role == "input" and leading == "INFUSION" and rest:
            name = meaning.variable
            wanted = RATES.get(name) or units.get(name, "1")
            amount = dimension(wanted)
            for unit in spellings():
                rate = factor(unit, wanted)
                if rate is not None:
                    rows["rate", rest[0], unit] = (name, rate, 0.0)
                whole = None if amount is None else factor(unit, AMOUNT_UNITS[amount[0]])
                if whole is not None:
                    rows["amount", rest[0], unit] = (name + AMOUNT, whole, 0.0)
    keys, values = list(rows), list(rows.values())
    make_table(
        connection,
        "items",
        {
            "kind": pa.array([key[0] for key in keys], pa.string()),
            "item": pa.array([key[1] for key in keys], pa.string()),
            "unit": pa.array([key[2] for key in keys], pa.string()),
            "variable": pa.array([value[0] for value in values], pa.string()),
            "scale": pa.array([value[1] for value in values], pa.float64()),
            "offset": pa.array([value[2] for value in values], pa.float64()),
        },
    )


def _stage_values(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    raw: str,
    tokens: tuple[str, ...],
    *,
    kind: str,
    value: str,
) -> None:
    """Make the raw table of values; a row that names no stay belongs to the one it lies in."""
    stamp, stamp_fault = stamp_sql(source, "charttime")
    number, number_fault = numbers_sql(source, value, tokens)
    if "stay_id" in source.columns:
        key = cell_sql(source, "stay_id")
        join = "LEFT JOIN stays s ON r.owner = s.stay"
    else:
        key = cell_sql(source, "subject_id")
        join = "ASOF LEFT JOIN stays s ON r.owner = s.person AND r.stamp >= s.start"
    with reading(source):
        connection.execute(f"""
            CREATE TABLE {raw} AS
            SELECT s.stay AS subject, i.variable, {hours_sql("r.stamp", "s.start")} AS time,
                r.stamp_fault::UTINYINT AS time_fault, {_scaled("r.number")} AS value,
                r.number_fault::UTINYINT AS value_fault, NULL::VARCHAR AS text, r.row,
                r.item, r.unit,
                CASE WHEN i.variable IS NULL THEN {_why_unmapped(kind)}
                    WHEN s.stay IS NULL THEN
                        CASE WHEN r.owner IS NULL OR r.stamp IS NULL
                            OR {"true" if "stay_id" in source.columns else "false"}
                            THEN {literal(NO_STAY)} ELSE {literal(OUTSIDE)} END
                    WHEN r.stamp NOT BETWEEN s.start AND s.ended THEN {literal(OUTSIDE)}
                END AS fate
            FROM (
                SELECT row_number() OVER () AS row, {key} AS owner, {stamp} AS stamp,
                    {stamp_fault} AS stamp_fault, {cell_sql(source, "itemid")} AS item,
                    lower(coalesce({cell_sql(source, "valueuom")}, '{NO_UNIT}')) AS unit,
                    {number} AS number, {number_fault} AS number_fault
                FROM {source.relation}
            ) r {join}
            LEFT JOIN items i ON i.kind = '{kind}' AND i.item = r.item AND i.unit = r.unit
        """)


def _stage_given(
    connection: duckdb.DuckDBPyConnection, source: Source, raw: str, tokens: tuple[str, ...]
) -> None:
    """A rate is an interval; an amount without a rate is a dose at its end, when it is known."""
    start, start_fault = stamp_sql(source, "starttime")
    end, end_fault = stamp_sql(source, "endtime")
    rate, rate_fault = numbers_sql(source, "rate", tokens)
    amount, amount_fault = numbers_sql(source, "amount", tokens)
    rewritten = (
        f"lower(coalesce({cell_sql(source, 'statusdescription')}, '')) = 'rewritten'"
        if "statusdescription" in source.columns
        else "false"
    )
    with reading(source):
        connection.execute(f"""
            CREATE TABLE {raw} AS
            SELECT s.stay AS subject, i.variable,
                {hours_sql("CASE WHEN is_rate THEN r.start ELSE r.stop END", "s.start")} AS start,
                (CASE WHEN is_rate THEN start_fault ELSE stop_fault END)::UTINYINT AS start_fault,
                CASE WHEN is_rate THEN {hours_sql("r.stop", "s.start")} END AS "end",
                (CASE WHEN is_rate THEN stop_fault ELSE {MISSING} END)::UTINYINT AS end_fault,
                {_scaled("r.number")} AS value, r.number_fault::UTINYINT AS value_fault,
                NULL::VARCHAR AS text, r.row, r.item, r.unit,
                CASE WHEN r.is_rewritten THEN 'rewritten later'
                    WHEN i.variable IS NULL THEN {_why_unmapped("rate")}
                    WHEN s.stay IS NULL THEN {literal(NO_STAY)}
                    WHEN r.start NOT BETWEEN s.start AND s.ended THEN {literal(OUTSIDE)}
                    WHEN is_rate AND r.stop IS NULL THEN 'a rate without an end'
                END AS fate
            FROM (
                SELECT *, CASE WHEN is_rate THEN rate ELSE amount END AS number,
                    CASE WHEN is_rate THEN rate_fault ELSE amount_fault END AS number_fault,
                    CASE WHEN is_rate THEN rate_unit ELSE amount_unit END AS unit
                FROM (
                    SELECT row_number() OVER () AS row, {cell_sql(source, "stay_id")} AS owner,
                        {start} AS start, {start_fault} AS start_fault,
                        {end} AS stop, {end_fault} AS stop_fault,
                        {cell_sql(source, "itemid")} AS item, {rewritten} AS is_rewritten,
                        {rate} AS rate, {rate_fault} AS rate_fault,
                        {rate_fault} = {FINE} AS is_rate,
                        lower({cell_sql(source, "rateuom")}) AS rate_unit,
                        {amount} AS amount, {amount_fault} AS amount_fault,
                        lower({cell_sql(source, "amountuom")}) AS amount_unit
                    FROM {source.relation}
                )
            ) r LEFT JOIN stays s ON r.owner = s.stay
            LEFT JOIN items i ON i.item = r.item AND i.unit = r.unit
                AND i.kind = CASE WHEN is_rate THEN 'rate' ELSE 'amount' END
        """)


def _scaled(number: str) -> str:
    """Decimal factors stay exact when divided by: 735 / 100 is 7.35, 735 * 0.01 is not."""
    return (
        f'CASE WHEN i.scale = 1 AND i."offset" = 0 THEN {number} '
        f'ELSE {number} / (1 / i.scale) + i."offset" END'
    )


def _why_unmapped(kind: str) -> str:
    return (
        f"CASE WHEN r.item IN (SELECT item FROM items WHERE kind = '{kind}') "
        f"THEN {literal(OTHER_UNIT)} ELSE {literal(UNMAPPED)} END"
    )


def _statics(connection: duckdb.DuckDBPyConnection, policy: Policy) -> Cells:
    table = connection.sql(
        "SELECT stay AS subject_id, age, gender, race, kind AS admission_type, "
        "care_unit AS first_careunit FROM stays ORDER BY stay"
    ).to_arrow_table()
    source = open_source(connection, table, "statics", view="mimic4_statics")
    return read_cells(connection, source, "statics", "subject_id", policy)


def _outcomes(connection: duckdb.DuckDBPyConnection, policy: Policy) -> Cells:
    """Death in the unit and in the hospital, as the admission has them, and days in the unit."""
    table = connection.sql(f"""
        SELECT stay AS subject_id, {hours_sql("ended", "start")} / 24 AS length_of_stay,
            CASE WHEN died IS NOT NULL THEN (coalesce(death <= ended, false))::DOUBLE END
                AS in_icu_death,
            died AS in_hospital_death
        FROM stays ORDER BY stay
    """).to_arrow_table()
    source = open_source(connection, table, "outcomes", view="mimic4_outcomes")
    return read_cells(connection, source, "outcomes", "subject_id", policy)


def _schema(connection: duckdb.DuckDBPyConnection, parts: Parts) -> CohortSchema:
    """What the mapping knows of the variables that occur, beyond the shipped table."""
    seen, given = (
        {
            row[0]
            for staged in several
            for row in connection.execute(f"SELECT DISTINCT variable FROM {staged.name}").fetchall()
        }
        for several in (parts.observations, parts.inputs)
    )
    units = {variable.name: RATES.get(variable.name, variable.unit) for variable in INFUSIONS}
    inputs = []
    for name in sorted(given):
        plain = name.removesuffix(AMOUNT)
        unit = units.get(plain, "1")
        amount = dimension(unit)
        if name != plain:
            unit = "1" if amount is None else AMOUNT_UNITS[amount[0]]
        inputs.append(Variable(name=name, unit=unit))
    variables = tuple(variable for variable in EXTRA_VARIABLES if variable.name in seen)
    return CohortSchema(variables, (), tuple(inputs))
