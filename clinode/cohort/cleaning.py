"""What becomes of each staged row, with every row accounted for.

The rules are those of the policy and of the table of variables, carried out in DuckDB. A judged row
is kept, dropped or moved, for one reason; `clinode.cohort.sorting` writes those that are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import duckdb
import numpy as np
import pyarrow as pa

from clinode.cohort.ledger import Entry
from clinode.cohort.policy import ANY, Policy
from clinode.cohort.schema import Variable, plain_name
from clinode.cohort.sources import literal, quoted, reading, unreadable
from clinode.cohort.staging import (
    BOUND,
    FAULTS,
    FINE,
    FORMULA_FOR_A_SUBJECT,
    MEND,
    MISSING,
    NOT_A_NUMBER,
    TEXT,
    Staged,
)
from clinode.cohort.variables import DESCRIPTORS, find_variable, is_identifier
from clinode.errors import SchemaError

MOST_VARIABLES = 5000
FEWEST_SUBJECTS = 11  # no smaller cell is shown (CMS cell size policy: none of 1 to 10)

KEPT = 0
NO_SUBJECT, NO_NAME, LEFT_OUT, NO_TIME, BAD_TIME, SENTINEL, IMPOSSIBLE, BACKWARD = range(20, 28)
FORMULA_SUBJECT, FORMULA_NAME, BAD_END = range(28, 31)
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
    BAD_END: "the end is not a number",
    BACKWARD: "ends before it starts",
    FORMULA_SUBJECT: FORMULA_FOR_A_SUBJECT,
    FORMULA_NAME: "a formula in place of a variable name",
    IDENTIFIER: "identifier, it is the subject_id of the statics",
    DESCRIPTOR: "descriptor, it belongs to the statics",
}

_AT_FAULT = {  # the column that a verdict blames, where it is not that of the value
    "subject": (NO_SUBJECT, FORMULA_SUBJECT),
    "variable": (NO_NAME, FORMULA_NAME, LEFT_OUT, IDENTIFIER, DESCRIPTOR),
    "time": (NO_TIME, BAD_TIME),
    "start": (NO_TIME, BAD_TIME),
    "end": (BAD_END, BACKWARD),
}
_VARIABLE, _IDENTIFIER, _DESCRIPTOR, _LEFT_OUT, _FORMULA = range(5)
_NAMELESS = (NO_SUBJECT, NO_NAME, FORMULA_SUBJECT, FORMULA_NAME)  # no variable to count them under


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
            roles[arrived] = (_FORMULA, "")
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
    times = ["start", "end"] if "start" in staged.columns else ["time"]
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
            name = "" if verdict in _NAMELESS else name
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
        f"WHEN subject IS NULL THEN {NO_SUBJECT}",
        f"WHEN subject[1] IN ('=', '@') THEN {FORMULA_SUBJECT}",
        f"WHEN variable IS NULL THEN {NO_NAME}",
        f"WHEN role = {_FORMULA} THEN {FORMULA_NAME}",
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
        bad = BAD_END if time == "end" else BAD_TIME
        cases.append(f"WHEN {time}_fault NOT IN ({FINE}, {MISSING}, {NOT_A_NUMBER}) THEN {bad}")
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
    roles = [role for role, verdicts in _AT_FAULT.items() if verdict in verdicts]
    named = [staged.columns[role] for role in [*roles, "value"] if role in staged.columns]
    column = named[0] if named else variable
    raise SchemaError(
        f"row {number:,}, column {column!r}: {reason}",
        where=staged.source.name,
        fix=MEND,
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
