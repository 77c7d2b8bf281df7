"""The one door for data: whatever they are stored in, out comes a cohort."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from clinode.cohort.assembly import Parts, build
from clinode.cohort.cohort import KIND, Cohort, open_cohort
from clinode.cohort.columns import (
    check_time_unit,
    columns_in_words,
    example,
    find_column,
    find_tables,
    need_column,
    subject_column,
)
from clinode.cohort.eicu import is_eicu, stage_eicu
from clinode.cohort.ledger import Entry
from clinode.cohort.meds import is_meds, stage_meds
from clinode.cohort.meds_written import is_written_meds, stage_written_meds
from clinode.cohort.mimic4 import is_mimic4, stage_mimic4
from clinode.cohort.physionet2012 import (
    add_death_within_90_days,
    are_p12_outcomes,
    is_physionet2012,
    p12_outcomes,
    stage_physionet2012,
)
from clinode.cohort.policy import Policy
from clinode.cohort.schema import CohortSchema
from clinode.cohort.shard import WHOLE, Shard
from clinode.cohort.sources import Source, open_source
from clinode.cohort.staging import Staged, check_columns, name_sql, stage_long, stage_wide
from clinode.cohort.subject_tables import Cells, read_cells
from clinode.cohort.variables import is_identifier
from clinode.errors import ArgumentError, SchemaError
from clinode.folder import verify_folder

FORMATS = {
    "long": "CSV or Parquet, one row a measurement",
    "wide": "CSV or Parquet, one row a subject and time, one column a variable",
    "meds": "folder of the Medical Event Data Standard",
    "physionet2012": "folder of PhysioNet-2012 records, one text file a stay",
    "mimic4": "folder of MIMIC-IV as published, with hosp/ and icu/",
    "eicu": "folder of eICU-CRD as published, with patient.csv and others",
    "cohort": "folder that `Cohort.save` wrote",
}
LARGE_BYTES = 1 << 25  # from this size on, staged tables are kept in a file

Table = str | Path | pd.DataFrame | Sequence[str | Path]
"""A path, several paths of one table, or a DataFrame."""


def read_cohort(
    path: Table,
    format: str | None = None,
    *,
    subject: str | None = None,
    time: str | None = None,
    variable: str | None = None,
    value: str | None = None,
    statics: Table | None = None,
    outcomes: Table | None = None,
    inputs: Table | None = None,
    prediction_time: str | None = None,
    group: str | None = None,
    time_unit: str | None = None,
    policy: Policy | str | Path | None = None,
    strict: bool = False,
    schema: CohortSchema | None = None,
    mapping: Table | None = None,
    index: str = "ICU_ADMISSION",
    until: str | None = None,
    shard: Shard = WHOLE,
) -> Cohort:
    """Read a cohort.

    Columns are found by their usual names; an argument tells the name where it is another one. The
    other tables of a folder are found by their usual names too (observations, statics, outcomes,
    inputs).

    Args:
        path: A table of observations, a folder of tables, a MEDS folder, a folder of PhysioNet-2012
            records, of MIMIC-IV or eICU as published, or a folder that `Cohort.save` wrote.
        format: "long" (one row an observation), "wide" (one row a subject and time, one column a
            variable), "meds", "physionet2012", "mimic4", "eicu" or "cohort"; found out if left out.
        subject: Column of the subject.
        time: Column of the time since the subject's time zero.
        variable: Column of the variable's name (long).
        value: Column of the value (long).
        statics: Table with one row a subject.
        outcomes: Table of outcomes; for MEDS a file or folder of its label schema.
        inputs: Table of treatments: subject, start, end, variable, value; an empty end is an
            impulse.
        prediction_time: Column of the outcomes; up to and including it data may be used.
        group: Column of the statics that a split must keep together (the person of a stay).
        time_unit: "h", "min", "s", "ms", "d" or "hh:mm"; hours if left out.
        policy: How rows that cannot be taken as they are are treated: a `Policy`, or a YAML file as
            `clinode check --suggest` writes it.
        strict: Every change is an error.
        schema: Variables known beforehand.
        mapping: For MEDS and MIMIC-IV: table from codes to variables in place of the shipped one.
        index: For MEDS: the code, or its beginning, of the event that is time zero; one subject an
            event.
        until: For MEDS: the code, or its beginning, of the event that ends a stay; the discharge
            that belongs to an admission if left out.
        shard: Read only the subjects (of stays: the persons) whose hash falls into it.

    Returns:
        The cohort; its `ledger` accounts for every row.

    Raises:
        SchemaError: The data break their contract; file, row and column are named.
        ArgumentError: The call names a format or a unit that does not exist.
        ResourceError: Memory or the temporary disk ran out.
    """
    chosen = detect_format(path) if format is None else format
    if chosen not in (*FORMATS, "tables"):
        raise ArgumentError(
            f"unknown format {format!r}; there are {', '.join(FORMATS)}",
            fix="leave format out, or export the tables and name their columns",
        )
    if chosen == "cohort":
        folder = Path(_one_path(path))
        verify_folder(folder, KIND)
        cohort = open_cohort(folder)
        return cohort if shard == WHOLE else cohort[shard.holds(cohort.subjects.tolist())]
    used = policy if isinstance(policy, Policy) else Policy.read(policy) if policy else Policy()
    used = replace(used, strict=strict or used.strict)

    def stage(connection: duckdb.DuckDBPyConnection) -> Parts:
        parts = stage_format(connection)
        parts.is_shard = shard != WHOLE
        return parts

    def stage_format(connection: duckdb.DuckDBPyConnection) -> Parts:
        if chosen == "meds" and mapping is None and is_written_meds(Path(_one_path(path))):
            return stage_written_meds(connection, Path(_one_path(path)), policy=used, shard=shard)
        if chosen == "meds":
            return stage_meds(
                connection,
                Path(_one_path(path)),
                policy=used,
                mapping=mapping,
                index=index,
                until=until,
                labels=outcomes,
                shard=shard,
            )
        if chosen == "mimic4":
            return stage_mimic4(
                connection, Path(_one_path(path)), policy=used, mapping=mapping, shard=shard
            )
        if chosen == "eicu":
            return stage_eicu(connection, Path(_one_path(path)), policy=used, shard=shard)
        if chosen == "physionet2012":
            paths = [path] if isinstance(path, str | Path) else list(path)
            return stage_physionet2012(
                connection, [Path(p) for p in paths], outcomes, policy=used, shard=shard
            )
        return _stage_tables(
            connection,
            path,
            {"statics": statics, "outcomes": outcomes, "inputs": inputs},
            layout=None if chosen == "tables" else chosen,
            told={"subject": subject, "time": time, "variable": variable, "value": value},
            prediction_time=prediction_time,
            group=group,
            time_unit=time_unit,
            policy=used,
            schema=schema,
            shard=shard,
        )

    return build(stage, used, schema, is_large=_size(path) > LARGE_BYTES)


def detect_format(path: Table) -> str:
    """The format of a path by what lies there; "tables" for long and wide ones.

    Raises:
        SchemaError: There is nothing at the path.
    """
    if isinstance(path, pd.DataFrame):
        return "tables"
    if not isinstance(path, str | Path):
        paths = [Path(part) for part in path]
        return "physionet2012" if paths and all(map(is_physionet2012, paths)) else "tables"
    place = Path(path)
    if not place.exists():
        raise SchemaError("there is no such file or folder", where=place.name, fix="check the path")
    if place.is_dir():
        if (place / "cohort.json").is_file():
            return "cohort"
        if is_meds(place):
            return "meds"
        if is_physionet2012(place):
            return "physionet2012"
        if is_mimic4(place):
            return "mimic4"
        if is_eicu(place):
            return "eicu"
    return "tables"


def _stage_tables(
    connection: duckdb.DuckDBPyConnection,
    path: Table,
    tables: dict[str, Any],
    *,
    layout: str | None,
    told: dict[str, str | None],
    prediction_time: str | None,
    group: str | None,
    time_unit: str | None,
    policy: Policy,
    schema: CohortSchema | None,
    shard: Shard,
) -> Parts:
    observations: Any = path
    if isinstance(path, str | Path) and Path(path).is_dir():
        found = find_tables(Path(path))
        observations = found.pop("observations")
        tables = {role: tables.get(role) or found.get(role) for role in tables}
    source = open_source(connection, observations, "observations", view="observations")
    key = subject_column(source, told["subject"])
    when = need_column(source, "time", told["time"], "time")
    unit = check_time_unit(source, when, time_unit)
    source = shard.of(source, name_sql(source, key))
    columns = {"subject": key, "time": when}
    staged, layout = _stage_observations(
        connection, source, columns, layout, told, policy=policy, time_unit=unit
    )
    if staged.n_read == 0 and source.files and shard == WHOLE:
        raise SchemaError("there is a header and no row", where=source.name, fix="export it again")
    parts = Parts(observations=[staged], entries=_identifier_columns(source, staged))
    if tables["inputs"] is not None:
        parts.inputs.append(
            _stage_inputs(
                connection,
                tables["inputs"],
                told,
                key,
                policy=policy,
                time_unit=time_unit,
                shard=shard,
            )
        )
    if tables["statics"] is not None:
        source = open_source(connection, tables["statics"], "statics", view="statics")
        column = _same_column(source, key, told["subject"])
        declared = {v.name: v for v in schema.statics} if schema else {}
        if group is not None:
            parts.groups = _read_groups(connection, source, column, group, shard)
        parts.statics = read_cells(
            connection,
            source,
            "statics",
            column,
            policy,
            declared=declared,
            ignore=() if group is None else (group,),
            shard=shard,
        )
    elif group is not None:
        raise ArgumentError(f"group={group!r} is a column of the statics, and there are none")
    if tables["outcomes"] is not None:
        source = open_source(connection, tables["outcomes"], "outcomes", view="outcomes")
        parts.outcomes = _read_outcomes(
            connection,
            source,
            _same_column(source, key, told["subject"]),
            prediction_time or _prediction_column(source, when),
            unit,
            policy,
            shard,
        )
        if are_p12_outcomes(parts.outcomes):
            parts.derive = add_death_within_90_days
    parts.source = {"format": layout, "files": [staged.source.name]}
    return parts


def _stage_observations(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    columns: dict[str, str],
    layout: str | None,
    told: dict[str, str | None],
    *,
    policy: Policy,
    time_unit: str,
) -> tuple[Staged, str]:
    if layout is None:
        layout = _layout(source, told)
    if layout == "long":
        for role in ("variable", "value"):
            columns[role] = need_column(source, role, told[role], role)
        staged = stage_long(
            connection, source, "staged_observations", columns, policy=policy, time_unit=time_unit
        )
        return staged, layout
    others = [name for name in source.columns if name not in columns.values()]
    variables = [name for name in others if not is_identifier(name)]
    if not variables:
        raise SchemaError(
            f"there is no column of a variable; {columns_in_words(source)}",
            where=source.name,
            fix=example(source),
        )
    staged = stage_wide(
        connection,
        source,
        "staged_observations",
        columns,
        variables=variables,
        policy=policy,
        time_unit=time_unit,
    )
    return staged, layout


def _identifier_columns(source: Source, staged: Staged) -> list[Entry]:
    """Columns of a wide table that identify something are read, and left out whole."""
    if not staged.names:
        return []
    n_rows = staged.n_read // len(staged.names)
    names = [n for n in source.columns if is_identifier(n) and n not in staged.columns.values()]
    return [
        Entry(table="observations", action=action, reason=reason, variable=name, rows=n_rows)
        for name in names
        for action, reason in (("read", ""), ("dropped", "identifier"))
    ]


def _layout(source: Source, told: dict[str, str | None]) -> str:
    """Long if columns of a name and a value are told or recognised, wide if neither is.

    Raises:
        SchemaError: Only one of the two is recognised.
    """
    found = {role: find_column(source, role, told[role]) for role in ("variable", "value")}
    if told["variable"] is not None or told["value"] is not None or None not in found.values():
        return "long"
    if found["variable"] is None and found["value"] is None:
        return "wide"
    missing, there = ("variable", "value") if found["variable"] is None else ("value", "variable")
    raise SchemaError(
        f"column {found[there]!r} is that of a long table, but no column of the {missing} was "
        f"recognised; {columns_in_words(source)}",
        where=source.name,
        fix=f'name it: {missing}="..." (--{missing} ...), or say format="wide" (--format wide) for '
        "one column a variable",
    )


def _stage_inputs(
    connection: duckdb.DuckDBPyConnection,
    table: Any,
    told: dict[str, str | None],
    key: str,
    *,
    policy: Policy,
    time_unit: str | None,
    shard: Shard,
) -> Staged:
    source = open_source(connection, table, "inputs", view="inputs")
    start = need_column(source, "start", None, "start")
    columns = {
        "subject": _same_column(source, key, told["subject"]),
        "start": start,
        "variable": need_column(source, "given", _if_there(source, told["variable"]), "variable"),
        "value": need_column(source, "dose", _if_there(source, told["value"]), "value"),
    }
    end = find_column(source, "end")
    if end is not None:
        columns["end"] = end
    unit = check_time_unit(source, start, time_unit)
    source = shard.of(source, name_sql(source, columns["subject"]))
    return stage_long(connection, source, "staged_inputs", columns, policy=policy, time_unit=unit)


def _read_outcomes(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    subject: str,
    prediction_time: str | None,
    time_unit: str,
    policy: Policy,
    shard: Shard,
) -> Cells:
    return read_cells(
        connection,
        source,
        "outcomes",
        subject,
        policy,
        declared=p12_outcomes(source) if are_p12_outcomes(source) else None,
        prediction_time=prediction_time,
        time_unit=time_unit,
        shard=shard,
    )


def _read_groups(
    connection: duckdb.DuckDBPyConnection, source: Source, subject: str, group: str, shard: Shard
) -> pd.DataFrame:
    check_columns(source, {"group": group})
    source = shard.of(source, name_sql(source, subject))
    frame = connection.execute(
        f"SELECT DISTINCT {name_sql(source, subject)} AS subject_id, "
        f'{name_sql(source, group)} AS "group" FROM {source.relation}'
    ).df()
    frame = frame.dropna()
    if frame["subject_id"].duplicated().any():
        raise SchemaError(
            f"column {group!r}: a subject belongs to several groups", where=source.name
        )
    return frame


def _same_column(source: Source, key: str, told: str | None) -> str:
    """The subject's column of a further table: named as in the observations, or usually."""
    if key in source.columns:
        return key
    return need_column(source, "subject", None if told == key else told, "subject")


def _prediction_column(source: Source, time: str) -> str | None:
    if "prediction_time" in source.columns:
        return "prediction_time"
    return time if time in source.columns else None


def _if_there(source: Source, column: str | None) -> str | None:
    return column if column is not None and column in source.columns else None


def _one_path(path: Table) -> str | Path:
    if not isinstance(path, str | Path):
        raise ArgumentError("this format is one folder, and several tables were given")
    return path


def _size(path: Table) -> int:
    """Bytes of what will be read, roughly."""
    if isinstance(path, pd.DataFrame):
        return 0
    places = [Path(path)] if isinstance(path, str | Path) else [Path(part) for part in path]
    return sum(
        file.stat().st_size
        for place in places
        for file in (place.rglob("*") if place.is_dir() else [place])
        if file.is_file()
    )
