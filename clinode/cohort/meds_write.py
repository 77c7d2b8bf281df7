"""Writing a cohort as a folder of the Medical Event Data Standard, 0.4.

`write_meds` writes one whole; `clinode.cohort.convert` writes the shards one by one, by the same
functions. `read_cohort` gives the cohort back, from any number of shards: ids, statics, inputs,
outcomes, groups, splits and values as they were, times to the microsecond. What cannot come back:
the ledger of the first reading (it stands in the folder), the dates of index times, and what was
planted in a simulated cohort.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clinode import __version__
from clinode.cohort import meds_layout as layout
from clinode.cohort.cohort import SUBJECT, Cohort
from clinode.cohort.ledger import Entry, Ledger
from clinode.cohort.meds_layout import EventCode, event_codes, microseconds
from clinode.cohort.schema import CohortSchema, Variable
from clinode.cohort.shard import Shard, whole_number
from clinode.errors import ArgumentError, SchemaError
from clinode.folder import read_json, write_folder, write_json

KIND = "meds"
ROWS_A_SHARD = 5_000_000  # observations and inputs; about 1 GB of memory while they are written
ROW_GROUP = 1 << 20


def write_meds(
    cohort: Cohort,
    folder: str | Path,
    *,
    name: str = "cohort",
    n_shards: int | None = None,
    replace: bool = False,
) -> None:
    """Write a cohort as MEDS, whole or not at all.

    Args:
        cohort: What is written.
        folder: data/, labels/ and metadata/ will be in it. Each outcome is one table of the label
            schema: whether (0 or 1), how many (whole numbers) or how much (float32); subjects
            without it have no row. Where the cohort names no prediction time, that of a label is
            the subject's last event.
        name: Of the data set, for its metadata.
        n_shards: Files of the data; each subject is in the one that its hash says.
        replace: Whether such a folder may be replaced.

    Raises:
        ArgumentError: There are no subjects, or no shards.
        SchemaError: A time cannot be told as a date, or two ids fall on one whole number.
        OutputError: The place is occupied or cannot be written to.
        ResourceError: The disk is full.
    """
    if not len(cohort):
        raise ArgumentError("a cohort without subjects cannot be written as MEDS")
    if n_shards is not None and n_shards < 1:
        raise ArgumentError(f"there must be a shard at least, got {n_shards}")
    if n_shards is None:
        n_rows = cohort.n_observations + len(cohort.inputs)
        n_shards = 1 + n_rows // ROWS_A_SHARD
    shards = [Shard(number + 1, n_shards) for number in range(n_shards)]

    def write(draft: Path) -> None:
        texts = [str(subject) for subject in cohort.subjects.tolist()]
        parts = []
        for shard in shards:
            part = draft / "parts" / str(shard.number)
            part.mkdir(parents=True)
            chosen = cohort.take(np.flatnonzero(shard.holds(texts)))
            write_shard(chosen, part, counted(chosen))
            parts.append(part)
        gather(parts, draft, name=name)
        shutil.rmtree(draft / "parts")

    write_folder(folder, write, kind=KIND, replace=replace)


def counted(cohort: Cohort) -> Ledger:
    """The ledger of a cohort that is written as it is: everything read is kept."""
    arrays, entries = cohort.arrays(), []
    for table, variables, index in (
        ("observations", cohort.schema.variables, arrays.variable_index),
        ("inputs", cohort.schema.inputs, arrays.input_variable_index),
    ):
        counts = np.bincount(index, minlength=len(variables)).tolist()
        entries.append(Entry(table=table, action="read", reason="", rows=sum(counts)))
        entries += [
            Entry(table=table, action="kept", reason="", variable=variable.name, rows=count)
            for variable, count in zip(variables, counts, strict=True)
        ]
    for table, frame in (("statics", cohort.statics), ("outcomes", cohort.outcomes)):
        for column in frame.columns:
            if column not in (SUBJECT, "prediction_time"):
                count = int(np.count_nonzero(frame[column].notna()))
                entries += [
                    Entry(table=table, action=action, reason="", variable=str(column), rows=count)
                    for action in ("read", "kept")
                ]
    return Ledger(entries)


def write_shard(cohort: Cohort, folder: Path, ledger: Ledger) -> None:
    """Write the subjects of one shard: events, outcomes, splits if there are any, and facts.

    The bytes depend on the cohort and the ledger alone.

    Raises:
        SchemaError: A time cannot be told as a date, or two ids fall on one whole number.
    """
    ids = np.array([whole_number(subject) for subject in cohort.subjects.tolist()], dtype=np.int64)
    if len(np.unique(ids)) < len(ids):
        raise _one_number()
    codes = event_codes(cohort.schema)
    events = _events(cohort, ids, {one.code: place for place, one in enumerate(codes)})
    code = pa.DictionaryArray.from_arrays(
        pa.array(events.pop("code"), pa.int32()), pa.array([one.code for one in codes], pa.string())
    )
    table = pa.table({**events, "code": code.cast(pa.string())}).select(layout.EVENTS.names)
    _write(table.cast(layout.EVENTS), folder / "events.parquet")
    has_time = "prediction_time" in cohort.outcomes.columns
    _write(_outcomes(cohort, ids, has_time), folder / "outcomes.parquet")
    splits = cohort.splits
    if splits is not None:
        _write(_splits(cohort, splits, ids), folder / "splits.parquet")
    facts = {
        "schema": cohort.schema.to_dict(),
        "has_prediction_time": has_time,
        "n_subjects": len(cohort),
        **_overlap(cohort),
        "n_events": len(table),
        "ledger": ledger.to_dict(),
        "source": cohort.source["format"],
    }
    write_json(folder / "facts.json", facts)


def gather(
    parts: Sequence[Path], folder: Path, *, name: str, call: dict[str, Any] | None = None
) -> None:
    """Make a MEDS folder of the shards that `write_shard` wrote.

    Args:
        parts: Their folders, in order; the files of events are linked where the disk can do that.
        folder: An empty one.
        name: Of the data set.
        call: What was asked of a conversion, to be told by its folder.

    Raises:
        SchemaError: The shards do not agree in their variables; ids of two of them fall on one
            whole number; or nobody who was measured is in
            the tables of statics and outcomes, whose ids are then written in another way.
    """
    facts = [read_json(part / "facts.json") for part in parts]
    _refuse_strangers(facts)
    _refuse_shared_numbers(parts)
    schema = _union([CohortSchema.from_dict(one["schema"]) for one in facts])
    has_time = any(one["has_prediction_time"] for one in facts)
    (folder / "metadata").mkdir()
    (folder / layout.DATA).mkdir()
    for number, part in enumerate(parts):
        _link(part / "events.parquet", folder / layout.DATA / f"{number}.parquet")
    _write(_code_table(event_codes(schema)), folder / layout.CODES)
    outcomes = _together([part / "outcomes.parquet" for part in parts], schema.outcomes)
    _write(outcomes, folder / layout.OUTCOMES)
    _write_labels(outcomes, schema.outcomes, folder / layout.LABELS)
    splits = [part / "splits.parquet" for part in parts if (part / "splits.parquet").is_file()]
    if splits:
        _write(
            pa.concat_tables([pq.read_table(path) for path in splits]).sort_by("subject_id"),
            folder / layout.SPLITS,
        )
    dataset = {
        "dataset_name": name,
        "etl_name": "clinode",
        "etl_version": __version__,
        "meds_version": "0.4.1",
        "other_extension_columns": layout.EXTENSIONS,
    }
    write_json(folder / layout.DATASET, dataset)
    ledgers = [Ledger.from_dict(one["ledger"]) for one in facts]
    written = {
        "format": layout.FORMAT,
        "epoch": layout.EPOCH.isoformat(),
        "schema": schema.to_dict(),
        "has_prediction_time": has_time,
        "source": facts[0]["source"],
        "ledger": added_up(ledgers).to_dict(),
        "shards": [
            {
                "file": f"{layout.DATA}/{number}.parquet",
                "n_subjects": one["n_subjects"],
                "n_events": one["n_events"],
                "ledger": one["ledger"],
            }
            for number, one in enumerate(facts)
        ],
    }
    write_json(folder / layout.FACTS, written | ({} if call is None else {"call": call}))


def added_up(ledgers: Sequence[Ledger]) -> Ledger:
    """One ledger of several readings of different rows."""
    return Ledger(entry for ledger in ledgers for entry in ledger.entries)


def _overlap(cohort: Cohort) -> dict[str, int]:
    """Subjects with observations, with statics or outcomes, and with both."""
    is_observed = np.diff(cohort.arrays().row_start) > 0
    is_described = cohort.statics.drop(columns=SUBJECT).notna().any(axis=1).to_numpy(dtype=bool)
    is_described = is_described | np.isin(cohort.subjects, cohort.outcomes[SUBJECT].to_numpy())
    return {
        "n_observed": int(is_observed.sum()),
        "n_described": int(is_described.sum()),
        "n_both": int((is_observed & is_described).sum()),
    }


def _refuse_strangers(facts: Sequence[dict[str, Any]]) -> None:
    if not sum(one["n_subjects"] for one in facts):
        raise SchemaError("there is no subject", where="subjects", fix="look with: clinode check")
    observed, described, both = (
        sum(one[name] for one in facts) for name in ("n_observed", "n_described", "n_both")
    )
    if observed and described and not both:
        raise SchemaError(
            f"none of the {described:,} subjects of statics and outcomes has an observation",
            where="subjects",
            fix="map the subject's column, or write ids in one way (001 is not 1, nor is 1.0)",
        )


def _refuse_shared_numbers(parts: Sequence[Path]) -> None:
    files = [pq.ParquetFile(part / "events.parquet") for part in parts]
    ids = [
        np.unique(file.read_row_group(group, columns=["subject_id"])["subject_id"].to_numpy())
        for file in files
        for group in range(file.num_row_groups)
    ]
    owner = [number for number, file in enumerate(files) for _ in range(file.num_row_groups)]
    held = pd.DataFrame(
        {
            "id": np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64),
            "shard": np.repeat(owner, [len(one) for one in ids]),
        }
    ).drop_duplicates()
    if held["id"].duplicated().any():
        raise _one_number()


def _one_number() -> SchemaError:
    return SchemaError(
        "two subjects have ids that fall on one whole number",
        where="subjects",
        fix="number the subjects",
    )


def _events(cohort: Cohort, ids: np.ndarray, place: dict[str, int]) -> dict[str, Any]:
    """Columns of the events of a cohort, sorted by subject, time (those without first), code."""
    arrays, pieces = cohort.arrays(), [_of_subjects(cohort, ids, place)]
    codes = _places(layout.OBSERVATION, cohort.schema.variables, place)
    pieces.append(
        _piece(
            ids[arrays.subject_index],
            codes[arrays.variable_index],
            time=microseconds(arrays.time),
            number=arrays.value,
        )
    )
    pieces += _of_inputs(cohort, ids, place)
    columns = {
        key: np.concatenate([piece[key] for piece in pieces])
        for key in ("subject_id", "time", "is_timed", "code", "number", "interval")
    }
    texts = pa.concat_arrays(
        [
            pa.nulls(len(piece["subject_id"]), pa.large_string())
            if piece["text"] is None
            else pa.array(piece["text"], pa.large_string())
            for piece in pieces
        ]
    )
    order = np.lexsort(
        [columns[key] for key in ("interval", "code", "time", "is_timed", "subject_id")]
    )
    columns = {key: column[order] for key, column in columns.items()}
    number = columns["number"]
    has_number = ~np.isnan(number)
    with np.errstate(over="ignore"):
        short = number.astype(np.float32)
    is_longer = has_number & (short.astype(np.float64) != number)
    return {
        "subject_id": columns["subject_id"],
        "time": pa.array(columns["time"], pa.timestamp("us"), mask=~columns["is_timed"]),
        "code": columns["code"],
        "numeric_value": pa.array(short, pa.float32(), mask=~has_number),
        "text_value": texts.take(pa.array(order)),
        "numeric_value_64": pa.array(number, pa.float64(), mask=~is_longer),
        "interval": pa.array(columns["interval"], pa.int32(), mask=columns["interval"] < 0),
    }


def _of_subjects(cohort: Cohort, ids: np.ndarray, place: dict[str, int]) -> dict[str, Any]:
    """Time zero of each subject, its id and group where they are others, and its statics."""
    subjects = [str(subject) for subject in cohort.subjects.tolist()]
    groups = [str(group) for group in cohort.groups.tolist()]
    rows: list[tuple[int, int, bool, float, str | None]] = []
    for number, subject, group in zip(ids.tolist(), subjects, groups, strict=True):
        rows.append((number, place[layout.ZERO], True, np.nan, None))
        if subject != str(number):
            rows.append((number, place[layout.SUBJECT], False, np.nan, subject))
        if group != subject:
            rows.append((number, place[layout.GROUP], False, np.nan, group))
    statics = cohort.statics
    codes = _places(layout.STATIC, cohort.schema.statics, place)
    for variable, code in zip(cohort.schema.statics, codes.tolist(), strict=True):
        for number, cell in zip(ids.tolist(), statics[variable.name].tolist(), strict=True):
            if isinstance(cell, str):
                rows.append((number, code, False, np.nan, cell))
            elif cell is not None and cell == cell:
                rows.append((number, code, False, float(cell), None))
    owner, code, timed, value, text = (
        (list(column) for column in zip(*rows, strict=True)) if (rows) else ([], [], [], [], [])
    )
    is_timed = np.array(timed, dtype=bool)
    return _piece(
        np.array(owner, dtype=np.int64),
        np.array(code, dtype=np.int32),
        time=np.where(is_timed, layout.epoch_microseconds(), 0),
        number=np.array(value, dtype=np.float64),
        is_timed=is_timed,
        text=text,
    )


def _of_inputs(cohort: Cohort, ids: np.ndarray, place: dict[str, int]) -> list[dict[str, Any]]:
    arrays = cohort.arrays()
    subject, index = arrays.input_subject_index, arrays.input_variable_index
    owner, is_dose = ids[subject], np.isnan(arrays.input_end)
    first = np.searchsorted(subject, np.arange(len(ids)))
    interval = (np.arange(len(subject)) - first[subject]).astype(np.int32)
    pieces = []
    for role, rows, time, number in (
        (layout.IMPULSE, is_dose, arrays.input_start, arrays.input_value),
        (layout.START, ~is_dose, arrays.input_start, arrays.input_value),
        (layout.END, ~is_dose, arrays.input_end, np.full(len(subject), np.nan)),
    ):
        codes = _places(role, cohort.schema.inputs, place)
        pieces.append(
            _piece(
                owner[rows],
                codes[index[rows]],
                time=microseconds(time[rows]),
                number=number[rows],
                interval=np.full(rows.sum(), -1, np.int32) if rows is is_dose else interval[rows],
            )
        )
    return pieces


def _places(role: str, variables: Sequence[Variable], place: dict[str, int]) -> np.ndarray:
    """Where the code of each variable stands among the sorted codes."""
    return np.array([place[f"{role}//{v.name}//{v.unit}"] for v in variables], dtype=np.int32)


def _piece(
    owner: np.ndarray,
    code: np.ndarray,
    *,
    time: np.ndarray,
    number: np.ndarray,
    is_timed: np.ndarray | None = None,
    interval: np.ndarray | None = None,
    text: list[str | None] | None = None,
) -> dict[str, Any]:
    return {
        "subject_id": owner,
        "time": time.astype(np.int64),
        "is_timed": np.ones(len(owner), dtype=bool) if is_timed is None else is_timed,
        "code": code,
        "number": number,
        "interval": np.full(len(owner), -1, np.int32) if interval is None else interval,
        "text": text,
    }


def _outcomes(cohort: Cohort, ids: np.ndarray, has_time: bool) -> pa.Table:
    """One row an outcome row: subject_id, prediction_time, outcomes as float64."""
    frame = cohort.outcomes
    position = pd.Index(cohort.subjects).get_indexer(pd.Index(frame[SUBJECT].to_numpy()))
    if has_time:
        time = microseconds(frame["prediction_time"].to_numpy(dtype=np.float64))
    else:
        time = _last_event(cohort)[position] + layout.epoch_microseconds()
    columns = {
        "subject_id": pa.array(ids[position], pa.int64()),
        "prediction_time": pa.array(time, pa.timestamp("us")),
    }
    for name in cohort.schema.outcomes:
        columns[name] = pa.array(frame[name].to_numpy(dtype=np.float64), from_pandas=True)
    order = np.lexsort([time, ids[position]])
    return pa.table(columns).take(pa.array(order))


def _last_event(cohort: Cohort) -> np.ndarray:
    """Microseconds from time zero to each subject's last event, at least 0."""
    arrays = cohort.arrays()
    last = np.zeros(len(cohort))
    np.maximum.at(last, arrays.subject_index, arrays.time)
    np.maximum.at(last, arrays.input_subject_index, arrays.input_start)
    np.maximum.at(last, arrays.input_subject_index, np.nan_to_num(arrays.input_end))
    return microseconds(last) - layout.epoch_microseconds()


def _splits(cohort: Cohort, frame: pd.DataFrame, ids: np.ndarray) -> pa.Table:
    position = pd.Index(cohort.subjects).get_indexer(pd.Index(frame[SUBJECT].to_numpy()))
    columns = {"subject_id": pa.array(ids[position], pa.int64()), "split": pa.array(frame["split"])}
    return pa.table(columns).sort_by("subject_id")


def _union(schemas: Sequence[CohortSchema]) -> CohortSchema:
    """The variables of all shards.

    Raises:
        SchemaError: One variable is two things.
    """
    parts: dict[str, tuple[Variable, ...]] = {}
    for part in ("variables", "statics", "inputs"):
        found: dict[str, Variable] = {}
        for schema in schemas:
            for variable in getattr(schema, part):
                known = found.get(variable.name)
                found[variable.name] = variable if known is None else _same(known, variable)
        parts[part] = tuple(found[name] for name in sorted(found))
    outcomes = max((schema.outcomes for schema in schemas), key=len)
    if any(not set(schema.outcomes) <= set(outcomes) for schema in schemas):
        raise SchemaError("the shards do not agree in their outcomes", where="outcomes")
    return CohortSchema(**parts, outcomes=outcomes)


def _same(one: Variable, other: Variable) -> Variable:
    texts = sorted({level for v in (one, other) for level in v.levels if isinstance(level, str)})
    levels = {v.name: replace(v, levels=()) for v in (one, other)}
    if replace(one, levels=()) != levels[other.name]:
        raise SchemaError(
            f"{one.name!r} is one thing in one shard and another in the next",
            where="schema",
            fix="say what it is in the policy, or write the data as one shard",
        )
    known = [level for level in one.levels if level in other.levels]
    return (
        one if not texts else replace(one, levels=(*known, *(t for t in texts if t not in known)))
    )


def _together(paths: Sequence[Path], outcomes: Sequence[str]) -> pa.Table:
    """Outcome tables one below the other, sorted; what a shard has not is unknown there."""
    tables = []
    for path in paths:
        table = pq.read_table(path)
        for name in outcomes:
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(len(table), pa.float64()))
        tables.append(table.select(["subject_id", "prediction_time", *outcomes]))
    return pa.concat_tables(tables).sort_by(
        [("subject_id", "ascending"), ("prediction_time", "ascending")]
    )


def _write_labels(outcomes: pa.Table, names: Sequence[str], folder: Path) -> None:
    """One folder an outcome, numbered: a name may be no name of a file."""
    keys = outcomes.select(["subject_id", "prediction_time"])
    for number, name in enumerate(names):
        held = outcomes[name].to_numpy(zero_copy_only=False).astype(np.float64)
        known = ~np.isnan(held)
        value = held[known]
        if np.isin(value, (0.0, 1.0)).all():
            column, array = "boolean_value", pa.array(value == 1.0, pa.bool_())
        elif (value == np.rint(value)).all() and (np.abs(value) < 2**53).all():
            column, array = "integer_value", pa.array(value.astype(np.int64))
        else:
            column, array = "float_value", pa.array(value.astype(np.float32))
        place = folder / label_folder(number, name)
        place.mkdir(parents=True)
        labels = keys.filter(pa.array(known)).append_column(column, array)
        schema = pa.schema([field.with_nullable(False) for field in labels.schema])
        _write(labels.cast(schema), place / "0.parquet")


def label_folder(number: int, name: str) -> str:
    """Where the labels of an outcome lie: its name if a file can be called so, else its number."""
    is_plain = name.isascii() and name.replace("_", "").isalnum() and name == name.lower()
    return name if is_plain and len(name) <= 100 else f"outcome-{number + 1}"


def _code_table(codes: Sequence[EventCode]) -> pa.Table:
    parents = [[f"LOINC/{one.loinc}"] if one.loinc else [] for one in codes]
    columns = {
        "code": pa.array([one.code for one in codes], pa.string()),
        "description": pa.array([one.description for one in codes], pa.string()),
        "parent_codes": pa.array(parents, pa.list_(pa.string())),
        "role": pa.array([one.role for one in codes], pa.string()),
        "name": pa.array([one.name for one in codes], pa.string()),
        "unit": pa.array([one.unit for one in codes], pa.string()),
    }
    return pa.table(columns)


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(source, target)
