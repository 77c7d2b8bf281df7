"""From judged rows to the sorted rows of a cohort, keys unique.

DuckDB sorts, and spills to the disk; the sorted rows come back in batches, and repeated keys are
merged on their way to Parquet. The order in which rows arrived changes nothing: values are sorted
before they are summed.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clinode.cohort.cleaning import KEPT
from clinode.cohort.sources import first_row, quoted, reading, unreadable
from clinode.cohort.staging import Staged

BATCH_ROWS = 1 << 17
REPEATED = "repeated key, the mean is taken"


def write_observations(
    connection: duckdb.DuckDBPyConnection, views: Sequence[str], subjects: str, path: Path
) -> tuple[np.ndarray, dict[int, int]]:
    """Write kept observations as Parquet, sorted by subject, time and variable, keys unique.

    Args:
        connection: Where the judged views are.
        views: Whose rows are written.
        subjects: Table with "subject" and "position".
        path: Where to write subject_index, time, variable_index, value.

    Returns:
        Rows of each subject, and merged rows by variable.
    """
    query = " UNION ALL ".join(
        f"SELECT p.position AS subject_index, v.time, v.index AS variable_index, v.clean AS value "
        f"FROM {view} v JOIN {subjects} p USING (subject) WHERE verdict = {KEPT}"
        for view in views
    )
    schema = pa.schema(
        [
            ("subject_index", pa.int32()),
            ("time", pa.float64()),
            ("variable_index", pa.int16()),
            ("value", pa.float64()),
        ]
    )
    return _write_sorted(connection, query, schema, path)


def write_inputs(
    connection: duckdb.DuckDBPyConnection, views: Sequence[str], subjects: str, path: Path
) -> tuple[np.ndarray, dict[int, int]]:
    """Write kept inputs as Parquet: subject_index, start, end, variable_index, value."""
    query = " UNION ALL ".join(
        f"SELECT p.position AS subject_index, v.start, "
        f'coalesce(v."end", \'nan\'::DOUBLE) AS "end", '
        f"v.index AS variable_index, v.clean AS value "
        f"FROM {view} v JOIN {subjects} p USING (subject) WHERE verdict = {KEPT}"
        for view in views
    )
    schema = pa.schema(
        [
            ("subject_index", pa.int32()),
            ("start", pa.float64()),
            ("end", pa.float64()),
            ("variable_index", pa.int16()),
            ("value", pa.float64()),
        ]
    )
    return _write_sorted(connection, query, schema, path)


def count_out_of_order(connection: duckdb.DuckDBPyConnection, staged: Staged) -> int:
    """Rows that stand before an earlier one of their subject, or away from its other rows."""
    time = "start" if "start" in staged.columns else "time"
    with reading(staged.source):
        row = first_row(
            connection,
            f"SELECT count(*) FILTER (subject = before_subject AND at_time < before_time), "
            f"count(*) FILTER (subject IS DISTINCT FROM before_subject AND subject IS NOT NULL), "
            f"count(DISTINCT subject) FROM (SELECT subject, {time} AS at_time, "
            f"lag(subject) OVER () AS before_subject, lag({time}) OVER () AS before_time "
            f"FROM {quoted(staged.name)})",
        )
    return int(row[0] + row[1] - row[2])


def merge_repeated(
    keys: Sequence[np.ndarray], value: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Merge neighbouring rows of equal keys into one row with the mean value.

    Args:
        keys: Columns (row,), sorted so that equal keys are neighbours; NaN equals NaN.
        value: (row,), sorted within equal keys, so that the sum depends on no order.

    Returns:
        Keys and values of the merged rows, and the index of the first row of each.
    """
    if len(value) == 0:
        return list(keys), value, np.zeros(0, dtype=np.int64)
    is_first = np.ones(len(value), dtype=bool)
    same = np.ones(len(value) - 1, dtype=bool)
    for key in keys:
        equal = key[1:] == key[:-1]
        if key.dtype.kind == "f":
            equal |= np.isnan(key[1:]) & np.isnan(key[:-1])
        same &= equal
    is_first[1:] = ~same
    first = np.flatnonzero(is_first)
    if len(first) == len(value):
        return list(keys), value, first
    count = np.diff(np.append(first, len(value)))
    last = first + count - 1
    with np.errstate(over="ignore"):
        mean = np.add.reduceat(value, first) / count
    too_large = ~np.isfinite(mean)
    if too_large.any():
        mean[too_large] = np.add.reduceat(value / np.repeat(count, count), first)[too_large]
    # the mean of equal values is that value, whatever rounding says
    mean = np.clip(mean, value[first], value[last])
    mean = np.where(count == 1, value[first], mean)
    return [key[first] for key in keys], mean, first


def subject_table(
    connection: duckdb.DuckDBPyConnection, tables: Sequence[Staged], others: Sequence[str]
) -> np.ndarray:
    """Make the table "subjects" (subject, position) from staged tables and further ids.

    Args:
        connection: Where it is made.
        tables: Staged tables.
        others: Ids of tables that are not staged.

    Returns:
        Ids in order: int64 if every one is a whole number written plainly, else texts.
    """
    connection.register("other_subjects", pa.table({"subject": pa.array(others, pa.string())}))
    names = [staged.name for staged in tables]
    names += [f"{staged.name}_subjects" for staged in tables if "value" not in staged.columns]
    union = " UNION ".join(
        f"SELECT subject FROM {quoted(name)}" for name in (*names, "other_subjects")
    )
    form = (
        "regexp_full_match(subject, '0|-?[1-9][0-9]*') AND TRY_CAST(subject AS BIGINT) IS NOT NULL"
    )
    with reading():
        connection.execute(
            f"CREATE TABLE ids AS SELECT DISTINCT subject FROM ({union}) "
            f"WHERE subject IS NOT NULL AND subject[1] NOT IN ('=', '@')"
        )
        are_numbers = bool(
            first_row(connection, f"SELECT coalesce(bool_and({form}), true) FROM ids")[0]
        )
        order = "subject::BIGINT" if are_numbers else "subject"
        connection.execute(
            f"CREATE TABLE subjects AS SELECT subject, "
            f"(row_number() OVER (ORDER BY {order}) - 1)::INTEGER AS position FROM ids"
        )
        ids = connection.execute("SELECT subject FROM subjects ORDER BY position").fetchnumpy()
    texts = np.asarray(ids["subject"], dtype=object)
    if any("\x00" in text for text in texts):
        raise unreadable(next((staged.source for staged in tables), None))
    return texts.astype(np.int64) if are_numbers else texts


def _write_sorted(
    connection: duckdb.DuckDBPyConnection, query: str, schema: pa.Schema, path: Path
) -> tuple[np.ndarray, dict[int, int]]:
    names = schema.names
    order = ", ".join(str(position + 1) for position in range(len(names)))
    n_subjects = int(first_row(connection, "SELECT count(*) FROM subjects")[0])
    rows = np.zeros(n_subjects, dtype=np.int64)
    merged: dict[int, int] = {}
    with (
        reading(),
        pq.ParquetWriter(path, schema, compression="zstd", compression_level=1) as writer,
    ):
        if not query:
            return rows, merged
        result = connection.sql(f"SELECT * FROM ({query}) ORDER BY {order}")
        for batch in _whole_keys(result.to_arrow_reader(BATCH_ROWS), names):
            keys, value = [batch[name] for name in names[:-1]], batch[names[-1]]
            variable = batch["variable_index"]
            kept_keys, kept_value, first = merge_repeated(keys, value)
            gone = np.ones(len(value), dtype=bool)
            gone[first] = False
            for index, count in zip(*np.unique(variable[gone], return_counts=True), strict=True):
                merged[int(index)] = merged.get(int(index), 0) + int(count)
            rows += np.bincount(kept_keys[0], minlength=len(rows))
            columns = [*kept_keys, kept_value]
            writer.write_table(
                pa.table(
                    [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)],
                    schema=schema,
                ),
                row_group_size=BATCH_ROWS,
            )
    return rows, merged


def _whole_keys(reader: pa.RecordBatchReader, names: list[str]) -> Iterator[dict[str, np.ndarray]]:
    """Batches cut so that rows of one key are never in two of them."""
    carried: dict[str, np.ndarray] | None = None
    for record in reader:
        if record.num_rows == 0:
            continue
        batch = {
            name: record.column(position).to_numpy(zero_copy_only=False)
            for position, name in enumerate(names)
        }
        if carried is not None:
            batch = {name: np.concatenate([carried[name], batch[name]]) for name in names}
        # keys that are equal share their first two columns; cut before the last such run
        is_last = np.ones(len(batch[names[0]]), dtype=bool)
        for name in names[:2]:
            is_last &= batch[name] == batch[name][-1]
        run = is_last[::-1]
        cut = len(run) - (int(np.argmin(run)) if not run.all() else len(run))
        carried = {name: batch[name][cut:] for name in names}
        if cut:
            yield {name: batch[name][:cut] for name in names}
    if carried is not None:
        yield carried
