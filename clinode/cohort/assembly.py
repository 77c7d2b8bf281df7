"""Puts staged tables together into the folder of a cohort.

Readers of every format end here: they name the tables, and everything after that (rules, ids,
order, repeated keys, the ledger) is done once, in one way.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clinode.cohort.cleaning import (
    IDENTIFIER,
    IMPOSSIBLE,
    REASONS,
    Rules,
    impossible_values,
    judge,
    moved_descriptors,
    read_rules,
)
from clinode.cohort.cohort import (
    Cohort,
    open_cohort,
    temporary_folder,
    write_facts,
    write_frame,
    write_subjects,
)
from clinode.cohort.ledger import Entry, Ledger
from clinode.cohort.policy import Policy
from clinode.cohort.schema import CohortSchema
from clinode.cohort.sorting import (
    REPEATED,
    count_out_of_order,
    subject_table,
    write_inputs,
    write_observations,
)
from clinode.cohort.sources import first_row, open_source, reading
from clinode.cohort.staging import Staged, stage_long
from clinode.cohort.subject_tables import Cells, merge_statics, read_cells, unique_outcomes
from clinode.errors import ResourceError, SchemaError

MEMORY_BYTES = (128_000_000, 1_000_000_000)
"""Of DuckDB while a cohort is read; what does not fit is spilled to the temporary folder. The
second is tried where the first is too small for one operation, a table of very many columns, say.
"""

MEMORY_FOR_ROWS = 10_000_000
BYTES_A_ROW = 2  # more memory for each row beyond those: a sort merges more runs

THREADS = 2  # each thread needs memory of its own, so more of them would need a larger limit


@dataclass
class Parts:
    """The tables of a cohort, each staged or read already.

    Args:
        observations: Staged tables of observations.
        inputs: Staged tables of inputs.
        statics: Cells of the statics.
        outcomes: Cells of the outcomes.
        frames: Small tables led by subject_id: planted, splits, index_times.
        groups: subject_id (text) and group (text or number), or None.
        source: Facts about what was read.
        entries: Of the ledger, for rows that a format treats by itself.
        derive: Adds or orders outcomes once their rows are unique.
        schema: What a format knows of its variables.
        is_shard: Whether this is one shard of several, too few subjects to judge the tables by.
    """

    observations: list[Staged] = field(default_factory=list)
    inputs: list[Staged] = field(default_factory=list)
    statics: Cells | None = None
    outcomes: Cells | None = None
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    groups: pd.DataFrame | None = None
    source: dict[str, Any] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    derive: Callable[[Cells], None] | None = None
    schema: CohortSchema | None = None
    is_shard: bool = False


def build(
    stage: Callable[[duckdb.DuckDBPyConnection], Parts],
    policy: Policy,
    schema: CohortSchema | None = None,
    *,
    is_large: bool = False,
) -> Cohort:
    """Stage tables and assemble them, in little memory if that is enough.

    Args:
        stage: Stages the tables on a connection.
        policy: How rows that cannot be taken as they are are treated.
        schema: Variables known beforehand.
        is_large: Keep staged tables in a file, compressed, instead of in memory.

    Raises:
        SchemaError: A table breaks its contract, or the policy is strict and a row must change.
        ResourceError: Memory or the temporary disk ran out.
    """
    *small, last = MEMORY_BYTES
    for limit in small:
        try:
            return _build(stage, policy, schema, limit, is_large)
        except ResourceError:
            continue
    return _build(stage, policy, schema, last, is_large)


def _build(
    stage: Callable[[duckdb.DuckDBPyConnection], Parts],
    policy: Policy,
    schema: CohortSchema | None,
    memory_bytes: int,
    is_large: bool,
) -> Cohort:
    with _engine(memory_bytes, is_large) as (connection, folder):
        parts = stage(connection)
        n_rows = sum(staged.n_read for staged in (*parts.observations, *parts.inputs))
        needed = memory_bytes + BYTES_A_ROW * max(0, n_rows - MEMORY_FOR_ROWS)
        connection.execute(f"SET memory_limit = '{needed}B'")
        assemble(connection, folder, parts, policy, schema)
    return open_cohort(folder, is_temporary=True)


@contextmanager
def _engine(memory_bytes: int, is_large: bool) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """A DuckDB, and a folder for the cohort that stays if the body succeeds."""
    folder = temporary_folder()
    scratch = folder / "scratch"
    scratch.mkdir()
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_bytes}B",
        "threads": THREADS,
        "temp_directory": str(scratch),
        "preserve_insertion_order": "true",  # so that a row number of a staged table is the file's
        "autoinstall_known_extensions": "false",  # nothing is fetched from anywhere
        "autoload_known_extensions": "false",
    }
    try:
        database = str(scratch / "tables.duckdb") if is_large else ":memory:"
        with reading():
            connection = duckdb.connect(database, config=config)
            try:
                yield connection, folder
            finally:
                connection.close()
        shutil.rmtree(scratch, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def assemble(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    parts: Parts,
    policy: Policy,
    schema: CohortSchema | None = None,
) -> None:
    """Clean, sort and write the tables of a cohort into its folder.

    Raises:
        SchemaError: A table breaks its contract, or the policy is strict and a row must change.
    """
    schema = schema or parts.schema or CohortSchema()
    rules = read_rules(connection, parts.observations, policy, schema.variables)
    input_rules = read_rules(connection, parts.inputs, policy, schema.inputs, are_inputs=True)
    views, entries = _judge(connection, parts.observations, rules, policy, "observations")
    input_views, input_entries = _judge(connection, parts.inputs, input_rules, policy, "inputs")
    statics = _merge_statics(connection, parts, views, rules, policy, schema, entries)
    outcomes = None if parts.outcomes is None else unique_outcomes(parts.outcomes)
    entries += [*parts.entries, *input_entries, *statics.entries]
    entries += outcomes.entries if outcomes is not None else []
    if outcomes is not None and parts.derive is not None:
        parts.derive(outcomes)

    if not parts.is_shard:
        _refuse_strangers(connection, parts)
    subjects = _number_subjects(connection, parts, statics, outcomes)
    path = folder / "observations.parquet"
    rows, merged = write_observations(connection, views, "subjects", path)
    path = folder / "inputs.parquet"
    _, merged_inputs = write_inputs(connection, input_views, "subjects", path)
    entries += _merge_entries(merged, rules, "observations")
    entries += _merge_entries(merged_inputs, input_rules, "inputs")
    ledger = Ledger(entries)
    if policy.strict:
        _refuse_merges(ledger, parts)

    texts = pd.Index(subjects.astype(str).astype(object))
    _write_statics(folder, statics, texts)
    if outcomes is not None:
        _write_outcomes(folder, outcomes, texts)
    write_subjects(folder, subjects, _groups(parts, subjects, texts), rows)
    for name, frame in parts.frames.items():
        ids = frame["subject_id"].astype(str).to_numpy(dtype=object)
        write_frame(folder, name, frame.assign(subject_id=ids), np.asarray(texts, dtype=object))
    if any(entry.reason == REASONS[IMPOSSIBLE] for entry in entries):
        parts.source["impossible"] = impossible_values(connection, views, rules)
    _count_out_of_order(connection, parts)
    made = CohortSchema(
        rules.variables,
        tuple(statics.variables[name] for name in sorted(statics.columns)),
        input_rules.variables,
        () if outcomes is None else tuple(outcomes.columns),
    )
    write_facts(folder, made, ledger, policy, parts.source)


def assemble_tables(
    observations: pd.DataFrame,
    *,
    statics: pd.DataFrame | None,
    inputs: pd.DataFrame | None,
    outcomes: pd.DataFrame | None,
    planted: pd.DataFrame | None,
    schema: CohortSchema | None,
    policy: Policy | None,
    strict: bool,
) -> Cohort:
    """The cohort of tables in memory; see `Cohort.from_tables`."""
    used = policy or Policy()
    used = replace(used, strict=strict or used.strict)
    key = "subject_id"

    def stage(connection: duckdb.DuckDBPyConnection) -> Parts:
        parts = Parts(source={"format": "tables"})
        source = open_source(connection, observations, "observations", view="observations")
        columns = {"subject": key, "time": "time", "variable": "variable", "value": "value"}
        parts.observations.append(
            stage_long(connection, source, "staged_observations", columns, policy=used)
        )
        if inputs is not None:
            source = open_source(connection, inputs, "inputs", view="inputs")
            columns = {"subject": key, "start": "start", "variable": "variable", "value": "value"}
            if "end" in source.columns:
                columns["end"] = "end"
            parts.inputs.append(
                stage_long(connection, source, "staged_inputs", columns, policy=used)
            )
        if statics is not None:
            source = open_source(connection, statics, "statics", view="statics")
            declared = {v.name: v for v in schema.statics} if schema else {}
            parts.statics = read_cells(connection, source, "statics", key, used, declared=declared)
        if outcomes is not None:
            source = open_source(connection, outcomes, "outcomes", view="outcomes")
            time = "prediction_time" if "prediction_time" in source.columns else None
            parts.outcomes = read_cells(
                connection, source, "outcomes", key, used, prediction_time=time
            )
        if planted is not None:
            parts.frames["planted"] = planted
        return parts

    return build(stage, used, schema)


def _judge(
    connection: duckdb.DuckDBPyConnection,
    tables: list[Staged],
    rules: Rules,
    policy: Policy,
    table: str,
) -> tuple[list[str], list[Entry]]:
    views, entries = [], []
    for number, staged in enumerate(tables):
        view = f"judged_{table}_{number}"
        entries += judge(connection, staged, rules, policy, view, table=table)
        views.append(view)
    return views, entries


def _merge_statics(
    connection: duckdb.DuckDBPyConnection,
    parts: Parts,
    views: list[str],
    rules: Rules,
    policy: Policy,
    schema: CohortSchema,
    entries: list[Entry],
) -> Cells:
    """The statics' table with what arrived among the observations."""
    moved = [moved_descriptors(connection, view, rules) for view in views]
    declared = {variable.name: variable for variable in schema.statics}
    statics = merge_statics(parts.statics, moved, policy, declared)
    n_identifiers = sum(e.rows for e in entries if e.reason == REASONS[IDENTIFIER])
    statics.count("filled", "identifier from the observations", "", n_identifiers)
    statics.count("merged", "it is the subject_id", "", n_identifiers)
    return statics


def _count_out_of_order(connection: duckdb.DuckDBPyConnection, parts: Parts) -> None:
    counts = parts.source.setdefault("out_of_order", {})
    for table, several in (("observations", parts.observations), ("inputs", parts.inputs)):
        arrived = [staged for staged in several if staged.inflow == "read"]
        counts[table] = sum(count_out_of_order(connection, staged) for staged in arrived)


def _number_subjects(
    connection: duckdb.DuckDBPyConnection,
    parts: Parts,
    statics: Cells,
    outcomes: Cells | None,
) -> np.ndarray:
    others: set[str] = set()
    for cells in (parts.statics, statics, outcomes):
        if cells is not None:
            others |= set(cells.subject.tolist())
    if parts.groups is not None:
        others |= set(parts.groups["subject_id"].tolist())
    return subject_table(connection, [*parts.observations, *parts.inputs], sorted(others))


def _refuse_strangers(connection: duckdb.DuckDBPyConnection, parts: Parts) -> None:
    """Tables that share no subject with the observations write its ids in another way.

    Raises:
        SchemaError: Names the table.
    """
    for cells in (parts.statics, parts.outcomes):
        if cells is None or not len(cells.subject):
            continue
        ids = sorted(set(cells.subject.tolist()))
        connection.register("table_ids", pa.table({"subject": pa.array(ids, pa.string())}))
        union = " UNION ALL ".join(f"SELECT subject FROM {s.name}" for s in parts.observations)
        with reading():
            n_rows, n_shared = first_row(
                connection,
                f"SELECT count(*), count(*) FILTER (subject IN (SELECT subject FROM table_ids)) "
                f"FROM ({union}) WHERE subject IS NOT NULL",
            )
        connection.unregister("table_ids")
        if n_rows and not n_shared:
            raise SchemaError(
                f"none of its {len(ids):,} subjects has an observation",
                where=cells.name,
                fix="map the subject's column, or write ids in one way (001 is not 1, nor is 1.0)",
            )


def _merge_entries(merged: dict[int, int], rules: Rules, table: str) -> list[Entry]:
    entries = []
    for index, count in merged.items():
        name = rules.variables[index].name
        entries.append(
            Entry(table=table, action="merged", reason=REPEATED, variable=name, rows=count)
        )
        # they were counted as kept before it was known that their key is repeated
        entries.append(Entry(table=table, action="kept", reason="", variable=name, rows=-count))
    return entries


def _refuse_merges(ledger: Ledger, parts: Parts) -> None:
    for table, several in (("observations", parts.observations), ("inputs", parts.inputs)):
        count = ledger.rows(table, "merged")
        if count:
            raise SchemaError(
                f"{count:,} rows repeat a key of subject, time and variable",
                where=several[0].source.name,
                fix="keep one of them, or read it without strict, which takes the mean",
            )


def _write_statics(folder: Path, statics: Cells, texts: pd.Index) -> None:
    if not statics.columns:
        return
    position = texts.get_indexer(pd.Index(statics.subject))
    columns: dict[str, pa.Array] = {"subject_index": pa.array(np.arange(len(texts)), pa.int32())}
    for name, column in sorted(statics.columns.items()):
        if column.dtype == object:
            held = np.full(len(texts), None, dtype=object)
            held[position] = column
            columns[name] = pa.array(held, pa.string())
        else:
            held = np.full(len(texts), np.nan)
            held[position] = column
            columns[name] = pa.array(held, pa.float64())
    pq.write_table(pa.table(columns), folder / "statics.parquet")


def _write_outcomes(folder: Path, outcomes: Cells, texts: pd.Index) -> None:
    position = texts.get_indexer(pd.Index(outcomes.subject))
    time = outcomes.prediction_time
    order = np.lexsort((position,) if time is None else (time, position))
    columns = {"subject_index": pa.array(position[order], pa.int32())}
    if time is not None:
        columns["prediction_time"] = pa.array(time[order], pa.float64())
    for name, column in outcomes.columns.items():
        columns[name] = pa.array(column[order], pa.float64())
    with reading():
        pq.write_table(pa.table(columns), folder / "outcomes.parquet")


def _groups(parts: Parts, subjects: np.ndarray, texts: pd.Index) -> np.ndarray:
    if parts.groups is None:
        return subjects
    position = texts.get_indexer(pd.Index(parts.groups["subject_id"]))
    groups = texts.to_numpy(dtype=object).copy()
    groups[position] = parts.groups["group"].astype(str).to_numpy(dtype=object)
    return groups
