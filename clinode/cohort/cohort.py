"""A cohort: what was observed of subjects at irregular times, kept as Parquet.

The tables lie in a folder and are read when they are asked for; `select` and `take` narrow which
subjects are read and copy nothing. Times are hours since each subject's time zero.
"""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clinode.cohort.ledger import Ledger
from clinode.cohort.policy import Policy
from clinode.cohort.schema import CohortSchema
from clinode.errors import ArgumentError, SchemaError
from clinode.folder import read_json, write_folder, write_json

KIND = "cohort"
SUBJECT = "subject_id"
EXTRA_TABLES = ("planted", "splits", "index_times")


@dataclass(frozen=True, eq=False)
class CohortArrays:
    """Observations and inputs of a cohort as arrays, sorted by subject, then time, then variable.

    Args:
        subject_index: (observation,) int32, position in `Cohort.subjects`.
        time: (observation,) float64, hours since the subject's time zero.
        variable_index: (observation,) int16, position in `schema.variables`.
        value: (observation,) float64, original unit, finite.
        row_start: (subject + 1,) int64, where each subject's observations begin, and their number.
        input_subject_index: (input,) int32.
        input_start: (input,) float64 hours.
        input_end: (input,) float64 hours, NaN for an impulse.
        input_variable_index: (input,) int16, position in `schema.inputs`.
        input_value: (input,) float64.
    """

    subject_index: np.ndarray
    time: np.ndarray
    variable_index: np.ndarray
    value: np.ndarray
    row_start: np.ndarray
    input_subject_index: np.ndarray
    input_start: np.ndarray
    input_end: np.ndarray
    input_variable_index: np.ndarray
    input_value: np.ndarray


class Store:
    """The folder behind one or more cohorts; a temporary one is removed with the last of them.

    Args:
        folder: Holds cohort.json, subjects.parquet and one Parquet file a table.
        is_temporary: Whether the folder goes with this object.
    """

    def __init__(self, folder: Path, *, is_temporary: bool = False):
        self.folder = folder
        facts = read_json(folder / "cohort.json")
        self.schema = CohortSchema.from_dict(facts["schema"])
        self.ledger = Ledger.from_dict(facts["ledger"])
        self.policy = Policy.from_dict(facts["policy"])
        self.source: dict[str, Any] = facts["source"]
        table = pq.read_table(folder / "subjects.parquet")
        self.subjects = _ids(table["subject_id"])
        self.groups = _ids(table["group"])
        self.row_start = np.concatenate([[0], np.cumsum(table["n_observations"].to_numpy())])
        self.row_start = self.row_start.astype(np.int64)
        if is_temporary:
            weakref.finalize(self, _remove, folder, os.getpid())

    def has(self, table: str) -> bool:
        """Whether there is such a table."""
        return (self.folder / f"{table}.parquet").is_file()

    def read(self, table: str, positions: np.ndarray | None) -> dict[str, np.ndarray]:
        """Columns of a sorted table for some subjects, whose positions count anew from 0."""
        file = self._file(table)
        if positions is None:
            return _read_whole(file)
        parts: dict[str, list[np.ndarray]] = {name: [] for name in file.schema_arrow.names}
        for columns in self.chunks(table, positions):
            for name, column in columns.items():
                parts[name].append(column)
        types = {field.name: field.type.to_pandas_dtype() for field in file.schema_arrow}
        return {
            name: np.concatenate(pieces) if pieces else np.zeros(0, dtype=types[name])
            for name, pieces in parts.items()
        }

    def chunks(self, table: str, positions: np.ndarray | None) -> Iterator[dict[str, np.ndarray]]:
        """What `read` gives, piece by piece in its order, so that it never lies there whole."""
        file = self._file(table)
        remap = np.arange(len(self.subjects), dtype=np.int32)
        if positions is not None:
            remap[:] = -1
            remap[positions] = np.arange(len(positions), dtype=np.int32)
        for group in range(file.num_row_groups):
            if not self._holds_any(file, group, remap):
                continue
            chunk = file.read_row_group(group, use_threads=False)
            columns = {name: chunk[name].to_numpy() for name in file.schema_arrow.names}
            subject = remap[columns["subject_index"]]
            keep = subject >= 0
            columns["subject_index"] = subject
            yield {name: column[keep] for name, column in columns.items()}

    def _file(self, table: str) -> pq.ParquetFile:
        return pq.ParquetFile(self.folder / f"{table}.parquet", memory_map=True)

    def frame(self, table: str, positions: np.ndarray | None) -> pd.DataFrame | None:
        """A small table with the ids in place of positions; None where there is no such table."""
        if not self.has(table):
            return None
        frame = pq.read_table(self.folder / f"{table}.parquet").to_pandas()
        if positions is not None:
            frame = frame[np.isin(frame["subject_index"].to_numpy(), positions)]
        ids = self.subjects[frame["subject_index"].to_numpy()]
        frame = frame.drop(columns="subject_index").reset_index(drop=True)
        frame.insert(0, SUBJECT, ids)
        return frame

    def _holds_any(self, file: pq.ParquetFile, group: int, remap: np.ndarray) -> bool:
        statistics = file.metadata.row_group(group).column(0).statistics
        if statistics is None or not statistics.has_min_max:
            return True
        return bool((remap[statistics.min : statistics.max + 1] >= 0).any())


class Cohort:
    """Observations of subjects, with what is known of them, given to them, and became of them.

    Made by `read_cohort`, `Cohort.from_tables` or `simulate_cohort`. All tables are DataFrames led
    by subject_id and read from the folder behind the cohort when asked for.

    Args:
        store: The folder with the tables.
        positions: Which of its subjects are meant, ascending; None for all.
        outcomes: In place of those of the folder, see `with_outcomes`.
    """

    time_unit = "h"

    def __init__(
        self,
        store: Store,
        positions: np.ndarray | None = None,
        outcomes: pd.DataFrame | None = None,
    ):
        self._store = store
        self._positions = positions
        self._outcomes = outcomes

    @classmethod
    def from_tables(
        cls,
        observations: pd.DataFrame,
        statics: pd.DataFrame | None = None,
        inputs: pd.DataFrame | None = None,
        outcomes: pd.DataFrame | None = None,
        *,
        planted: pd.DataFrame | None = None,
        schema: CohortSchema | None = None,
        policy: Policy | None = None,
        strict: bool = False,
    ) -> "Cohort":
        """Make a cohort from tables in memory, cleaned and accounted for like any other.

        Args:
            observations: subject_id, time (hours), variable, value.
            statics: subject_id and one column a static.
            inputs: subject_id, start, end (hours; NaN for an impulse), variable, value.
            outcomes: subject_id, optionally prediction_time (hours, inclusive), outcome columns.
            planted: For simulated cohorts: subject_id, kind, time, variable, weight of what causes
                the outcome.
            schema: Variables known beforehand; what it does not name is looked up in the shipped
                table.
            policy: How rows that cannot be taken as they are are treated.
            strict: Every change is an error.

        Raises:
            SchemaError: A table breaks its contract.
        """
        from clinode.cohort.assembly import assemble_tables  # it makes cohorts, and so imports this

        return assemble_tables(
            observations,
            statics=statics,
            inputs=inputs,
            outcomes=outcomes,
            planted=planted,
            schema=schema,
            policy=policy,
            strict=strict,
        )

    def __len__(self) -> int:
        return len(self.subjects)

    __iter__ = None  # a subject alone has no type here; `take([0])` is a cohort of one

    def __getitem__(self, positions: np.ndarray | slice | tuple) -> "Cohort":
        """The cohort at ascending positions, or of a boolean mask: how scikit-learn makes folds.

        Raises:
            ArgumentError: The positions do not ascend. A cohort has one order, so labels beside it
                would no longer belong to its subjects.
        """
        wanted = np.arange(len(self))[positions]
        if wanted.ndim != 1 or (np.diff(wanted) <= 0).any():
            raise ArgumentError(
                "a cohort is indexed by ascending positions",
                fix="use take() for one subject, and folds that keep the order",
            )
        return self.take(wanted)

    @property
    def shape(self) -> tuple[int]:
        """(number of subjects,): what scikit-learn asks of what it divides into folds."""
        return (len(self),)

    def __repr__(self) -> str:
        parts = (
            f"{len(self):,} subjects",
            f"{self.n_observations:,} observations of {len(self.schema.variables)} variables",
            f"{len(self.schema.statics)} statics",
            f"{len(self.schema.inputs)} inputs",
            f"{len(self.schema.outcomes)} outcomes",
        )
        return f"Cohort({', '.join(parts)})"

    @property
    def schema(self) -> CohortSchema:
        """Its variables, statics, inputs and outcomes."""
        if self._outcomes is None:
            return self._store.schema
        names = [str(c) for c in self._outcomes.columns if c not in (SUBJECT, "prediction_time")]
        return replace(self._store.schema, outcomes=tuple(names))

    @property
    def ledger(self) -> Ledger:
        """What became of every row when the whole cohort was read."""
        return self._store.ledger

    @property
    def policy(self) -> Policy:
        """The policy that it was read by."""
        return self._store.policy

    @property
    def source(self) -> dict[str, Any]:
        """What it was read from: format, file names, rows out of order."""
        return self._store.source

    @cached_property
    def subjects(self) -> np.ndarray:
        """Ids in order: int64 where all of them are whole numbers, else texts."""
        return _frozen(self._pick(self._store.subjects))

    @cached_property
    def groups(self) -> np.ndarray:
        """What a split must keep together, aligned with `subjects`: the person of a stay, say."""
        return _frozen(self._pick(self._store.groups))

    @property
    def n_observations(self) -> int:
        """How many observations there are."""
        return int(self._pick(np.diff(self._store.row_start)).sum())

    @property
    def observations(self) -> pd.DataFrame:
        """subject_id, time (hours), variable (categorical), value; sorted, keys unique."""
        arrays = self._read_observations()
        return pd.DataFrame(
            {
                SUBJECT: self.subjects[arrays["subject_index"]],
                "time": arrays["time"],
                "variable": _names(self.schema.variables, arrays["variable_index"]),
                "value": arrays["value"],
            }
        )

    @property
    def inputs(self) -> pd.DataFrame:
        """subject_id, start, end (hours; NaN for an impulse), variable (categorical), value."""
        arrays = self._store.read("inputs", self._positions)
        return pd.DataFrame(
            {
                SUBJECT: self.subjects[arrays["subject_index"]],
                "start": arrays["start"],
                "end": arrays["end"],
                "variable": _names(self.schema.inputs, arrays["variable_index"]),
                "value": arrays["value"],
            }
        )

    @property
    def statics(self) -> pd.DataFrame:
        """subject_id and one column a static, one row a subject, in the order of `subjects`."""
        frame = self._frame("statics")
        return pd.DataFrame({SUBJECT: self.subjects}) if frame is None else frame

    @property
    def outcomes(self) -> pd.DataFrame:
        """subject_id, perhaps prediction_time (hours), and the outcome columns.

        Subjects without a known outcome have no row.
        """
        if self._outcomes is not None:
            held = self._outcomes[SUBJECT].isin(self.subjects.tolist())
            return self._outcomes.loc[held].reset_index(drop=True)
        frame = self._frame("outcomes")
        return pd.DataFrame({SUBJECT: self.subjects[:0]}) if frame is None else frame

    @property
    def planted(self) -> pd.DataFrame | None:
        """What was made to cause the outcome of a simulated cohort, else None."""
        return self._frame("planted")

    @property
    def splits(self) -> pd.DataFrame | None:
        """subject_id and the published split, else None."""
        return self._frame("splits")

    @property
    def index_times(self) -> pd.DataFrame | None:
        """subject_id, person_id and the index time of stays cut from longer records, else None."""
        return self._frame("index_times")

    def arrays(self) -> CohortArrays:
        """Observations and inputs as arrays; read once and kept while the cohort is."""
        return self._arrays

    def chunks(self, table: str) -> Iterator[dict[str, np.ndarray]]:
        """Columns of "observations" or "inputs", some rows at a time, sorted as in `arrays`."""
        return self._store.chunks(table, self._positions)

    def select(self, subject_ids: Iterable[Any]) -> "Cohort":
        """The cohort of some subjects; nothing is copied.

        Raises:
            ArgumentError: A subject is not in the cohort, or is named twice.
        """
        wanted = (
            list(np.asarray(subject_ids).tolist())
            if isinstance(subject_ids, np.ndarray | pd.Series | pd.Index)
            else list(subject_ids)
        )
        positions = pd.Index(self.subjects).get_indexer(pd.Index(wanted, dtype=self.subjects.dtype))
        if (positions < 0).any():
            raise ArgumentError(
                f"{int((positions < 0).sum())} of these subjects are not in the cohort"
            )
        return self.take(positions)

    def take(self, positions: Iterable[int] | np.ndarray) -> "Cohort":
        """The cohort of the subjects at some positions of `subjects`; nothing is copied.

        Raises:
            ArgumentError: A position does not exist, or is named twice.
        """
        wanted = np.sort(np.asarray(list(positions), dtype=np.int64))
        if len(wanted) and (wanted[0] < 0 or wanted[-1] >= len(self)):
            raise ArgumentError(f"positions must lie in 0..{len(self) - 1}")
        if (np.diff(wanted) == 0).any():
            raise ArgumentError("a subject is named twice")
        base = wanted if self._positions is None else self._positions[wanted]
        return Cohort(self._store, base, self._outcomes)

    def with_outcomes(self, outcomes: pd.DataFrame) -> "Cohort":
        """The same subjects with other outcomes; nothing else is copied.

        Args:
            outcomes: subject_id, optionally prediction_time (hours), numeric outcome columns.

        Raises:
            SchemaError: A column is missing, or a subject is not in the cohort.
        """
        columns = [c for c in outcomes.columns if c not in (SUBJECT, "prediction_time")]
        if SUBJECT not in outcomes.columns or not columns:
            raise SchemaError(
                "expected subject_id and at least one outcome column", where="outcomes"
            )
        place = pd.Index(self.subjects).get_indexer(outcomes[SUBJECT].to_numpy())
        if (place < 0).any():
            raise SchemaError(
                f"{int((place < 0).sum())} rows name no subject of the cohort", where="outcomes"
            )
        order = np.argsort(place, kind="stable")
        return Cohort(self._store, self._positions, outcomes.iloc[order].reset_index(drop=True))

    def save(self, folder: str | Path) -> None:
        """Write the cohort as a folder, whole or not at all; `read_cohort(folder)` opens it again.

        Raises:
            OutputError: The place is occupied or cannot be written to.
            ResourceError: The disk is full.
        """
        write_folder(Path(folder), self._write, kind=KIND)

    def fingerprint(self) -> dict[str, Any]:
        """What the cohort looks like, without a value of any one subject: see `fingerprint`."""
        from clinode.cohort.fingerprint import fingerprint  # it describes cohorts

        return fingerprint(self)

    @cached_property
    def _arrays(self) -> CohortArrays:
        observed = self._read_observations()
        given = self._store.read("inputs", self._positions)
        counts = self._pick(np.diff(self._store.row_start))
        return CohortArrays(
            **{name: _frozen(column) for name, column in observed.items()},
            row_start=_frozen(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)),
            **{f"input_{name}": _frozen(column) for name, column in given.items()},
        )

    def _read_observations(self) -> dict[str, np.ndarray]:
        return self._store.read("observations", self._positions)

    def _frame(self, table: str) -> pd.DataFrame | None:
        return self._store.frame(table, self._positions)

    def _pick(self, column: np.ndarray) -> np.ndarray:
        return column if self._positions is None else column[self._positions]

    def _write(self, folder: Path) -> None:
        if self._positions is None and self._outcomes is None:
            for path in self._store.folder.iterdir():
                if path.suffix == ".parquet" or path.name == "cohort.json":
                    shutil.copyfile(path, folder / path.name)
            return
        write_facts(folder, self.schema, self.ledger, self.policy, self.source)
        write_subjects(
            folder, self.subjects, self.groups, self._pick(np.diff(self._store.row_start))
        )
        for table in ("observations", "inputs"):
            schema = pq.read_schema(self._store.folder / f"{table}.parquet")
            columns = self._store.read(table, self._positions)
            arrays = [pa.array(columns[field.name], field.type) for field in schema]
            pq.write_table(pa.table(arrays, schema=schema), folder / f"{table}.parquet")
        for table in ("statics", "outcomes", *EXTRA_TABLES):
            frame = self._frame(table)
            if table == "outcomes" and self._outcomes is not None:
                frame = self.outcomes
            if frame is not None:
                write_frame(folder, table, frame, self.subjects)


def open_cohort(folder: Path, *, is_temporary: bool = False) -> Cohort:
    """The cohort of a folder that was checked already."""
    return Cohort(Store(folder, is_temporary=is_temporary))


def temporary_folder() -> Path:
    """A new folder for the tables of a cohort that was not saved."""
    return Path(tempfile.mkdtemp(prefix="clinode-cohort-"))


def write_facts(
    folder: Path, schema: CohortSchema, ledger: Ledger, policy: Policy, source: dict[str, Any]
) -> None:
    """Write cohort.json."""
    facts = {
        "schema": schema.to_dict(),
        "ledger": ledger.to_dict(),
        "policy": policy.to_dict(),
        "source": source,
        "time_unit": Cohort.time_unit,
    }
    write_json(folder / "cohort.json", facts)


def write_subjects(
    folder: Path, subjects: np.ndarray, groups: np.ndarray, n_observations: np.ndarray
) -> None:
    """Write subjects.parquet: subject_id, group, n_observations."""
    table = {
        "subject_id": _id_array(subjects),
        "group": _id_array(groups),
        "n_observations": pa.array(n_observations, pa.int64()),
    }
    pq.write_table(pa.table(table), folder / "subjects.parquet")


def write_frame(folder: Path, table: str, frame: pd.DataFrame, subjects: np.ndarray) -> None:
    """Write a small table with positions in place of its subject_id.

    Raises:
        SchemaError: It names a subject that the cohort has not.
    """
    ids = pd.Index(frame[SUBJECT].to_numpy())
    positions = pd.Index(subjects).get_indexer(ids)
    if (positions < 0).any():
        raise SchemaError(
            f"{int((positions < 0).sum())} rows name no subject of the cohort", where=table
        )
    columns = {"subject_index": pa.array(positions, pa.int32())}
    for name in frame.columns:
        if name != SUBJECT:
            columns[str(name)] = pa.array(frame[name], from_pandas=frame[name].dtype == object)
    order = np.argsort(positions, kind="stable")
    pq.write_table(pa.table(columns).take(pa.array(order)), folder / f"{table}.parquet")


def _read_whole(file: pq.ParquetFile) -> dict[str, np.ndarray]:
    """Columns of a table, each filled piece by piece: pieces laid together would need it twice."""
    columns = {
        field.name: np.empty(file.metadata.num_rows, dtype=field.type.to_pandas_dtype())
        for field in file.schema_arrow
    }
    start = 0
    for group in range(file.num_row_groups):
        chunk = file.read_row_group(group, use_threads=False)
        for name, column in columns.items():
            column[start : start + len(chunk)] = chunk[name].to_numpy()
        start += len(chunk)
    return columns


def _ids(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_integer(column.type):
        return column.to_numpy()
    return np.array(column.to_pylist(), dtype=object)


def _id_array(ids: np.ndarray) -> pa.Array:
    return pa.array(ids, pa.int64() if ids.dtype.kind == "i" else pa.string())


def _names(variables: tuple, index: np.ndarray) -> pd.Categorical:
    return pd.Categorical.from_codes(index, categories=[variable.name for variable in variables])


def _frozen(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a forked child must not take its parent's folder away
        shutil.rmtree(folder, ignore_errors=True)
