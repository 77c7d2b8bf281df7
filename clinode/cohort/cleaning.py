"""From staged rows to the sorted, unique rows of a cohort, with every row accounted for.

The rules are those of the policy and of the table of variables. They are carried out in DuckDB,
which spills to the disk; the sorted rows come back in batches, and repeated keys are merged on
their way to Parquet. The order in which rows arrived changes nothing: values are sorted before they
are summed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clinode.cohort.ledger import Entry
from clinode.cohort.policy import ANY, Policy
from clinode.cohort.schema import Variable, plain_name
from clinode.cohort.sources import first_row, literal, quoted, reading, unreadable
from clinode.cohort.staging import BOUND, FAULTS, FINE, MISSING, NOT_A_NUMBER, TEXT, Staged
from clinode.cohort.variables import DESCRIPTORS, find_variable, is_identifier
from clinode.errors import SchemaError

MOST_VARIABLES = 5000
FEWEST_SUBJECTS = 11  # no smaller cell is shown (CMS cell size policy: none of 1 to 10)
BATCH_ROWS = 1 << 17

KEPT = 0
NO_SUBJECT, NO_NAME, LEFT_OUT, NO_TIME, BAD_TIME, SENTINEL, IMPOSSIBLE, BACKWARD = range(20, 28)
IDENTIFIER, DESCRIPTOR = 40, 41
REASONS = {
    **{fault: reason for fault, reason in enumerate(FAULTS) if fault},
    NO_SUBJECT: "no subject",
    NO_NAME: "no variable name",
    LEFT_OUT: "left out by the policy",
    NO_TIME: "no time",
    BAD_TIME: "the time is not a number",
    SENTINEL: "sentinel",
    IMPOSSIBLE: "impossible value",
    BACKWARD: "ends before it starts",
    IDENTIFIER: "identifier, it is the subject_id of the statics",
    DESCRIPTOR: "descriptor, it belongs to the statics",
}
REPEATED = "repeated key, the mean is taken"

_VARIABLE, _IDENTIFIER, _DESCRIPTOR, _LEFT_OUT, _NO_NAME = range(5)


@dataclass(frozen=True)
class Rules:
    """What a staged table's variable names mean.

    Args:
        variables: Their variables, sorted by name, the policy's ranges and conversions in force.
        roles: By name as it arrived: the role, and the variable or static it stands for.
    """

    variables: tuple[Variable, ...]
    roles: dict[str, tuple[int, str]]

    @property
    def descriptors(self) -> dict[str, str]:
        """Names that go to the statics, and the static each is."""
        return {name: to for name, (role, to) in self.roles.items() if role == _DESCRIPTOR}


def read_rules(
    connection: duckdb.DuckDBPyConnection,
    staged: Sequence[Staged],
    policy: Policy,
    declared: tuple[Variable, ...] = (),
    *,
    are_inputs: bool = False,
) -> Rules:
    """Decide what each variable name of staged tables means.

    Args:
        connection: Where the staged tables are.
        staged: Tables that share their variables.
        policy: Its renamings, omissions, ranges and conversions.
        declared: Variables known beforehand; they take the place of the shipped ones and stay in
            the schema even if no row has them.
        are_inputs: Treatments are not looked up among the measured variables.

    Raises:
        SchemaError: There are so many names that the column must be another one.
    """
    names: set[str] = set()
    for table in staged:
        names |= _distinct_names(connection, table)
    known = {variable.name: variable for variable in declared}
    roles: dict[str, tuple[int, str]] = {}
    for arrived in sorted(names):
        name = policy.rename.get(arrived, arrived)
        if arrived in policy.leave_out or name in policy.leave_out:
            roles[arrived] = (_LEFT_OUT, name)
        elif name[0] in "=@":
            roles[arrived] = (_NO_NAME, "")
        elif name in known:
            roles[arrived] = (_VARIABLE, name)
        elif name in policy.statics:
            roles[arrived] = (_DESCRIPTOR, name)
        elif are_inputs:
            known[name] = Variable(name=name)
            roles[arrived] = (_VARIABLE, name)
        elif is_identifier(name):
            roles[arrived] = (_IDENTIFIER, name)
        elif plain_name(name) in DESCRIPTORS:
            roles[arrived] = (_DESCRIPTOR, DESCRIPTORS[plain_name(name)])
        else:
            variable = find_variable(name)
            known.setdefault(variable.name, variable)
            roles[arrived] = (_VARIABLE, variable.name)
    variables = tuple(_with_policy(known[name], policy) for name in sorted(known))
    return Rules(variables, roles)


def judge(
    connection: duckdb.DuckDBPyConnection,
    staged: Staged,
    rules: Rules,
    policy: Policy,
    view: str,
    *,
    table: str,
) -> list[Entry]:
    """Judge every row of a staged table, and account for it.

    Makes the view `view` with the columns of the staged table, "index" of the variable, the
    converted "clean" value and the "verdict" (0 keeps the row).

    Returns:
        Entries of the ledger, without those of repeated keys.

    Raises:
        SchemaError: The policy is strict and a row cannot be kept as it is; or most values of a
            variable are impossible, which means another unit.
    """
    marks = _make_role_table(connection, rules, policy, f"{view}_roles")
    row_number = "s.rowid + 1" if "value" in staged.columns else "s.row"
    clean = _conversion_sql(rules.variables)
    times = ["start", "end"] if "start_fault" in _columns(connection, staged.name) else ["time"]
    judged = (
        f"SELECT s.*, {row_number} AS source_row, r.*, {clean} AS clean "
        f"FROM {quoted(staged.name)} s LEFT JOIN {view}_roles r ON s.variable = r.arrived"
    )
    connection.execute(
        f"CREATE VIEW {view} AS SELECT *, {_verdict_sql(marks, times)} AS verdict FROM ({judged})"
    )
    with reading():
        counts = connection.execute(
            f"SELECT verdict, coalesce(index, -1), coalesce(variable, ''), count(*), "
            f"count(*) FILTER (clean IS DISTINCT FROM value) FROM {view} GROUP BY ALL"
        ).fetchall()
    entries = [Entry(table=table, action=staged.inflow, reason="", rows=staged.n_read)]
    entries.append(Entry(table=table, action="dropped", reason="empty cell", rows=staged.n_empty))
    for verdict, index, arrived, count, converted in counts:
        name = rules.variables[index].name if index >= 0 else arrived
        if verdict != KEPT:
            action = "moved" if verdict in (IDENTIFIER, DESCRIPTOR) else "dropped"
            reason = REASONS[verdict]
            name = "" if verdict in (NO_SUBJECT, NO_NAME) else name
            entries.append(
                Entry(table=table, action=action, reason=reason, variable=name, rows=count)
            )
            continue
        entries.append(Entry(table=table, action="kept", reason="", variable=name, rows=count))
        entries.append(
            Entry(
                table=table,
                action="converted",
                reason=_unit(rules, index),
                variable=name,
                rows=converted,
            )
        )
    if policy.strict:
        _refuse_changes(connection, staged, view)
    _refuse_other_units(staged, rules, counts)
    return entries


def impossible_values(
    connection: duckdb.DuckDBPyConnection, views: Sequence[str], rules: Rules
) -> dict[str, dict[str, float | int | None]]:
    """How many values of each variable are impossible, and their median if enough have some."""
    union = " UNION ALL ".join(
        f"SELECT subject, index, value FROM {view} WHERE verdict = {IMPOSSIBLE}" for view in views
    )
    with reading():
        rows = connection.execute(
            f"SELECT index, count(*), median(value), count(DISTINCT subject) FROM ({union}) "
            f"GROUP BY index ORDER BY index"
        ).fetchall()
    return {
        rules.variables[index].name: {
            "rows": count,
            "median": float(median) if n_subjects >= FEWEST_SUBJECTS else None,
        }
        for index, count, median, n_subjects in rows
    }


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
    time = "start" if "start_fault" in _columns(connection, staged.name) else "time"
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


def _distinct_names(connection: duckdb.DuckDBPyConnection, staged: Staged) -> set[str]:
    with reading(staged.source):
        rows = connection.execute(
            f"SELECT DISTINCT variable FROM {quoted(staged.name)} WHERE variable IS NOT NULL "
            f"LIMIT {MOST_VARIABLES + 1}"
        ).fetchall()
    if len(rows) > MOST_VARIABLES:
        raise SchemaError(
            f"column {staged.columns.get('variable', '')!r} holds more than {MOST_VARIABLES:,} "
            "different names of variables",
            where=staged.source.name,
            fix="map the column that names the variable: variable=...",
        )
    names = {*staged.names, *(row[0] for row in rows)}
    if any("\x00" in name for name in names):
        raise unreadable(staged.source)
    return names


def _with_policy(variable: Variable, policy: Policy) -> Variable:
    if variable.name in policy.ranges:
        variable = replace(variable, range=policy.ranges[variable.name])
    if variable.name in policy.conversions:
        variable = replace(variable, conversions=policy.conversions[variable.name])
    return variable


def _conversion_sql(variables: tuple[Variable, ...]) -> str:
    cases = []
    for index, variable in enumerate(variables):
        for rule in variable.conversions:
            # dividing by the inverse keeps decimal factors exact: 735 / 100 is 7.35, 735 * 0.01 not
            changed = f"s.value / {1 / rule.scale!r}::DOUBLE + {rule.offset!r}::DOUBLE"
            cases.append(
                f"WHEN r.index = {index} AND s.value BETWEEN {rule.low!r}::DOUBLE "
                f"AND {rule.high!r}::DOUBLE THEN {changed}"
            )
    return f"CASE {' '.join(cases)} ELSE s.value END" if cases else "s.value"


def _verdict_sql(marks: list[tuple[float, ...]], times: list[str]) -> str:
    cases = [
        f"WHEN subject IS NULL OR subject[1] IN ('=', '@') THEN {NO_SUBJECT}",
        f"WHEN variable IS NULL OR role = {_NO_NAME} THEN {NO_NAME}",
        f"WHEN role = {_LEFT_OUT} THEN {LEFT_OUT}",
        f"WHEN value_fault IN ({MISSING}, {NOT_A_NUMBER}) THEN value_fault",
        f"WHEN role = {_IDENTIFIER} THEN {IDENTIFIER}",
        f"WHEN role = {_DESCRIPTOR} AND value_fault IN ({FINE}, {BOUND}, {TEXT}) THEN {DESCRIPTOR}",
        f"WHEN value_fault <> {FINE} THEN value_fault",
    ]
    for time in times:
        empty = f"({MISSING}, {NOT_A_NUMBER})"
        if time != "end":  # without an end it is an impulse
            cases.append(f"WHEN {time}_fault IN {empty} THEN {NO_TIME}")
        cases.append(
            f"WHEN {time}_fault NOT IN ({FINE}, {MISSING}, {NOT_A_NUMBER}) THEN {BAD_TIME}"
        )
    if "end" in times:
        cases.append(f'WHEN "end" < start THEN {BACKWARD}')
    for group, values in enumerate(marks):
        listed = ", ".join(f"{value!r}::DOUBLE" for value in values)
        cases.append(f"WHEN marks = {group} AND value IN ({listed}) THEN {SENTINEL}")
    cases.append(f"WHEN NOT clean BETWEEN low AND high THEN {IMPOSSIBLE}")
    return f"(CASE {' '.join(cases)} ELSE {KEPT} END)::UTINYINT"


def sentinels_of(variable: Variable, policy: Policy) -> tuple[float, ...]:
    """Numbers that stand for "missing": a variable's own, and the general ones that it excludes."""
    low, high = variable.range or (-np.inf, np.inf)
    general = [
        mark
        for mark in policy.sentinels.get(ANY, ())
        if not low <= mark <= high or (variable.levels and mark not in variable.levels)
    ]
    return tuple(
        sorted({*map(float, policy.sentinels.get(variable.name, ())), *map(float, general)})
    )


def _make_role_table(
    connection: duckdb.DuckDBPyConnection, rules: Rules, policy: Policy, name: str
) -> list[tuple[float, ...]]:
    """Write what each name means as a table; return the groups of sentinels that "marks" counts."""
    position = {variable.name: index for index, variable in enumerate(rules.variables)}
    columns: dict[str, list] = {
        key: [] for key in ("arrived", "role", "index", "low", "high", "marks")
    }
    groups: list[tuple[float, ...]] = []
    for arrived, (role, target) in rules.roles.items():
        index = position.get(target) if role == _VARIABLE else None
        low, high, group = None, None, None
        if index is not None:
            low, high = rules.variables[index].range or (None, None)
            values = sentinels_of(rules.variables[index], policy)
            if values:
                groups += [] if values in groups else [values]
                group = groups.index(values)
        row = (arrived, role, index, low, high, group)
        for key, cell in zip(columns, row, strict=True):
            columns[key].append(cell)
    kinds = (pa.string(), pa.uint8(), pa.int16(), pa.float64(), pa.float64(), pa.uint16())
    table = pa.table(
        {
            key: pa.array(cells, kind)
            for (key, cells), kind in zip(columns.items(), kinds, strict=True)
        }
    )
    connection.register(f"{name}_data", table)
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_data")
    connection.unregister(f"{name}_data")
    return groups


def _unit(rules: Rules, index: int) -> str:
    reasons = {rule.reason for rule in rules.variables[index].conversions} if index >= 0 else set()
    return " or ".join(sorted(reasons)) or "unit conversion"


def _refuse_changes(connection: duckdb.DuckDBPyConnection, staged: Staged, view: str) -> None:
    rows = connection.execute(
        f"SELECT source_row, verdict, variable FROM {view} "
        f"WHERE verdict <> {KEPT} OR clean IS DISTINCT FROM value ORDER BY source_row LIMIT 1"
    ).fetchall()
    if not rows:
        return
    number, verdict, variable = rows[0]
    reason = "the unit is converted" if verdict == KEPT else REASONS[verdict]
    column = staged.columns.get("value") or variable
    raise SchemaError(
        f"row {number:,}, column {column!r}: {reason}",
        where=staged.source.name,
        fix="mend the file, or read it with strict=False and look at cohort.ledger",
    )


def _refuse_other_units(
    staged: Staged, rules: Rules, counts: list[tuple[int, int, str, int, int]]
) -> None:
    """Most values being impossible means another unit, not bad values.

    Raises:
        SchemaError: Names the variable, its range and its unit.
    """
    for index, variable in enumerate(rules.variables):
        fine = sum(row[3] for row in counts if row[1] == index and row[0] == KEPT)
        wrong = sum(row[3] for row in counts if row[1] == index and row[0] == IMPOSSIBLE)
        if wrong >= 20 and wrong > fine and variable.range is not None:
            raise SchemaError(
                f"{wrong:,} of {fine + wrong:,} values of {variable.name!r} are impossible in "
                f"{variable.unit} (outside {variable.range[0]:g} to {variable.range[1]:g})",
                where=staged.source.name,
                fix="convert the column, or give its range or a conversion in the policy",
            )


def _columns(connection: duckdb.DuckDBPyConnection, name: str) -> set[str]:
    return {row[0] for row in connection.execute(f"DESCRIBE {quoted(name)}").fetchall()}


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


def moved_descriptors(
    connection: duckdb.DuckDBPyConnection, view: str, rules: Rules
) -> dict[str, np.ndarray]:
    """Rows that go to the statics, sorted: subject, static, time, value and text, NaN or None."""
    names = " ".join(
        f"WHEN {literal(name)} THEN {literal(static)}" for name, static in rules.descriptors.items()
    )
    static = f"CASE variable {names} END" if names else "variable"
    with reading():
        data = connection.execute(
            f"SELECT subject, {static} AS static, time, value, text "
            f"FROM {view} WHERE verdict = {DESCRIPTOR} ORDER BY ALL"
        ).fetchnumpy()
    return {
        name: np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)
        if name in ("time", "value")
        else np.ma.filled(np.ma.asarray(column, dtype=object), None)
        for name, column in data.items()
    }
