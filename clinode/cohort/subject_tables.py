"""Statics and outcomes: tables of few rows a subject, cleaned cell by cell.

Both arrive with one column a quantity. Numbers follow the grammar of the observations; a column of
texts is a categorical static, or no outcome. Every cell is accounted for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from clinode.cohort.cleaning import sentinels_of
from clinode.cohort.ledger import Entry
from clinode.cohort.policy import Policy
from clinode.cohort.schema import Variable
from clinode.cohort.shard import Shard
from clinode.cohort.sources import Source, quoted, reading
from clinode.cohort.staging import (
    FAULTS,
    FINE,
    FORMULA_FOR_A_SUBJECT,
    MEND,
    MISSING,
    NOT_A_NUMBER,
    TEXT,
    check_columns,
    name_sql,
    number_sql,
    text_sql,
    time_sql,
)
from clinode.cohort.variables import find_static, is_identifier
from clinode.errors import SchemaError

_MOVED = ("subject", "static", "time", "value", "text")

MOST_LEVELS = 64  # texts with more different values are names, notes or dates, and no category


@dataclass
class Cells:
    """One table, cell by cell, with what became of each.

    Args:
        table: "statics" or "outcomes".
        name: Of its source, for messages.
        subject: Id of each row as text, None where there is none.
        columns: Per quantity (row,): float64 with NaN, or objects with None for texts.
        variables: The quantities.
        prediction_time: (row,) hours, or None.
        entries: Of the ledger.
        is_own: (row,) which rows are of the shard that is read; None where all are. What a column
            is, is told by all of them.
    """

    table: str
    name: str
    subject: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    prediction_time: np.ndarray | None = None
    entries: list[Entry] = field(default_factory=list)
    is_own: np.ndarray | None = None

    def count(self, action: str, reason: str, variable: str, rows: int | np.integer) -> None:
        """Account for some cells."""
        self.entries.append(
            Entry(table=self.table, action=action, reason=reason, variable=variable, rows=int(rows))
        )

    def count_where(self, action: str, reason: str, variable: str, hit: np.ndarray) -> None:
        """Account for the cells of some rows, (row,) bool, as far as they are of the shard."""
        self.count(action, reason, variable, self.own(hit).sum())

    def own(self, column: np.ndarray) -> np.ndarray:
        """The rows of a column that are of the shard."""
        return column if self.is_own is None else column[self.is_own]


def read_cells(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    table: str,
    subject: str,
    policy: Policy,
    *,
    declared: dict[str, Variable] | None = None,
    prediction_time: str | None = None,
    time_unit: str = "h",
    ignore: Sequence[str] = (),
    shard: Shard | None = None,
) -> Cells:
    """Read the statics or the outcomes.

    Args:
        connection: Where `source` was opened.
        source: What is read.
        table: "statics" or "outcomes".
        subject: Column of the subject.
        policy: Sentinels, ranges, missing tokens, strictness.
        declared: Variables known beforehand, by name.
        prediction_time: Column of the prediction time.
        time_unit: Of the prediction time.
        ignore: Columns that are something else.
        shard: Whose rows are wanted, of a table that is read whole.

    Raises:
        SchemaError: A column is missing, or the policy is strict and a cell must be changed.
    """
    check_columns(source, {"subject": subject})
    tokens = policy.missing_tokens
    parts = [f"{name_sql(source, subject)} AS subject"]
    if prediction_time is not None:
        check_columns(source, {"prediction_time": prediction_time})
        value, fault = time_sql(source, prediction_time, tokens, time_unit)
        parts += [f"{value} AS prediction_time", f"{fault} AS prediction_time_fault"]
    taken = {subject, prediction_time, *ignore}
    names = [name for name in source.columns if name not in taken]
    for position, name in enumerate(names):
        value, fault = number_sql(quoted(name), source.columns[name], tokens)
        kind = source.columns[name]
        text = text_sql(quoted(name)) if kind == "VARCHAR" else "NULL::VARCHAR"
        parts += [f"{value} AS v{position}", f"{fault} AS f{position}", f"{text} AS t{position}"]
    with reading(source):
        data = connection.execute(f"SELECT {', '.join(parts)} FROM {source.relation}").fetchnumpy()
    ids = np.ma.filled(np.ma.asarray(data["subject"], dtype=object), None)
    fault = np.array([_id_fault(name) for name in ids], dtype=object)
    has_id = fault == ""
    is_own = np.ones(len(ids), dtype=bool) if shard is None else shard.holds(ids)
    cells = Cells(table, source.name, ids[has_id & is_own], is_own=is_own[has_id])
    if prediction_time is not None:
        faults = np.asarray(data["prediction_time_fault"])
        cells.prediction_time = _floats(data["prediction_time"])[has_id & is_own]
        if (faults[has_id] != FINE).any():
            row = int(np.flatnonzero(has_id & (faults != FINE))[0]) + 1
            raise SchemaError(
                f"row {row:,}, column {prediction_time!r}: the prediction time is "
                f"{FAULTS[faults[row - 1]] or 'missing'}",
                where=source.name,
                fix="give every row its prediction time",
            )
    for position, name in enumerate(names):
        cells.count("read", "", name, is_own.sum())
        for reason in sorted({*fault[~has_id]}):
            cells.count("dropped", reason, name, ((fault == reason) & is_own).sum())
        if policy.strict and not has_id.all():
            row = int(np.flatnonzero(~has_id)[0])
            raise SchemaError(
                f"row {row + 1:,}, column {subject!r}: {fault[row]}", where=source.name, fix=MEND
            )
        _take_column(
            cells,
            name,
            _floats(data[f"v{position}"])[has_id],
            np.asarray(data[f"f{position}"])[has_id],
            np.ma.filled(np.ma.asarray(data[f"t{position}"], dtype=object), None)[has_id],
            np.flatnonzero(has_id) + 1,
            policy,
            declared or {},
        )
    cells.is_own = None
    return cells


def _id_fault(name: str | None) -> str:
    if name is None:
        return "no subject"
    return FORMULA_FOR_A_SUBJECT if name[0] in "=@" else ""


def merge_statics(
    cells: Cells | None,
    moved: Sequence[dict[str, np.ndarray]],
    policy: Policy,
    declared: dict[str, Variable],
) -> Cells:
    """One value a subject and static, from the statics' table and from moved descriptors.

    The table comes first; a descriptor fills what it leaves open: the earliest value of it, the
    mean of equally early ones.

    Args:
        cells: The table, if there is one.
        moved: Of what arrived among the observations: subject, static, time, value and text.
        policy: Sentinels and ranges.
        declared: Variables known beforehand, by name.

    Returns:
        Cells with unique subjects, sorted.

    Raises:
        SchemaError: A subject has two different texts in one column.
    """
    result = Cells("statics", cells.name if cells else "observations", np.zeros(0, dtype=object))
    values: dict[str, dict[str, float | str]] = {}
    if cells is not None:
        result.entries += cells.entries
        result.variables |= cells.variables
        for name, column in cells.columns.items():
            values[name] = _one_a_subject(result, name, cells.subject, column)
    parts = (
        {key: np.concatenate([table[key] for table in moved]) for key in _MOVED} if moved else {}
    )
    for name in sorted(set(parts.get("static", ()))):
        rows = {key: column[parts["static"] == name] for key, column in parts.items()}
        result.count("filled", "descriptor from the observations", name, len(rows["subject"]))
        known = result.variables.get(name) or declared.get(name) or find_static(name)
        arrived = Cells("statics", "observations", rows["subject"])
        _take_column(
            arrived,
            name,
            rows["value"],
            np.where(np.isnan(rows["value"]), TEXT, FINE).astype(np.uint8),
            rows["text"],
            np.zeros(len(rows["subject"]), dtype=np.int64),
            replace(policy, strict=False),
            {name: _with_policy(known, policy)},
        )
        result.entries += arrived.entries
        if name not in arrived.columns:
            continue
        result.variables.setdefault(name, arrived.variables[name])
        _fill_from_observations(
            result,
            name,
            values.setdefault(name, {}),
            arrived.subject,
            rows["time"],
            arrived.columns[name],
        )
    result.subject = np.array(
        sorted({s for column in values.values() for s in column}), dtype=object
    )
    for name, column in values.items():
        is_text = any(isinstance(value, str) for value in column.values())
        result.columns[name] = np.array(
            [column.get(s, None if is_text else np.nan) for s in result.subject],
            dtype=object if is_text else np.float64,
        )
    return result


def unique_outcomes(cells: Cells) -> Cells:
    """One row a subject and prediction time, sorted by both later.

    Raises:
        SchemaError: Two rows of one key differ.
    """
    keys = pd.DataFrame({"subject": cells.subject})
    if cells.prediction_time is not None:
        keys["prediction_time"] = cells.prediction_time
    repeated = keys.duplicated().to_numpy()
    if not repeated.any():
        for name in cells.columns:
            cells.count("kept", "", name, np.isfinite(cells.columns[name]).sum())
        return cells
    first = keys.groupby(list(keys.columns), sort=False).ngroup().to_numpy()
    first_row = np.flatnonzero(~repeated)[first]
    for name, column in cells.columns.items():
        same = (column == column[first_row]) | (np.isnan(column) & np.isnan(column[first_row]))
        if not same.all():
            raise SchemaError(
                f"row {int(np.flatnonzero(~same)[0]) + 1:,}, column {name!r}: another row of the "
                "same subject and prediction time holds something else",
                where=cells.name,
                fix="keep one row per subject and prediction time",
            )
    for name, column in cells.columns.items():
        measured = np.isfinite(column)
        cells.count("merged", "the same row again", name, (measured & repeated).sum())
        cells.count("kept", "", name, (measured & ~repeated).sum())
        cells.columns[name] = column[~repeated]
    cells.subject = cells.subject[~repeated]
    if cells.prediction_time is not None:
        cells.prediction_time = cells.prediction_time[~repeated]
    return cells


def _take_column(
    cells: Cells,
    name: str,
    value: np.ndarray,
    fault: np.ndarray,
    text: np.ndarray,
    row: np.ndarray,
    policy: Policy,
    declared: dict[str, Variable],
) -> None:
    """Clean one column and account for its cells; entries "kept" are left to the caller."""
    if name in policy.leave_out:
        cells.count_where(
            "dropped", "left out by the policy", name, np.ones(len(value), dtype=bool)
        )
        return
    if name not in declared and is_identifier(name):
        cells.count_where("dropped", "identifier", name, np.ones(len(value), dtype=bool))
        return
    if cells.table == "statics":
        variable = declared.get(name) or find_static(name)
    else:
        variable = declared.get(name) or Variable(name=name)
    variable = _with_policy(variable, policy)
    name = variable.name
    if name in cells.columns:
        raise SchemaError(
            f"two columns hold the {cells.table[:-1]} {name!r}", where=cells.name, fix="remove one"
        )
    words = {word.lower(): number for word, number in variable.words}
    is_word = np.array([t is not None and t.lower() in words for t in text], dtype=bool)
    if is_word.any():
        value = value.copy()
        value[is_word] = [words[t.lower()] for t in text[is_word]]
        fault = np.where(is_word, FINE, fault)
        cells.count_where("converted", "a word that means a number", name, is_word)
    is_missing = np.isin(fault, (MISSING, NOT_A_NUMBER))
    n_text, n_number = int((~is_missing & (fault != FINE)).sum()), int((fault == FINE).sum())
    cells.count_where("dropped", "empty cell", name, is_missing)
    is_number = variable.range is not None or variable.words
    is_category = any(isinstance(level, str) for level in variable.levels)
    if is_category or (n_text > n_number and not is_number):
        _take_texts(cells, variable, text, is_missing, policy)
        return
    verdict = np.where(is_missing, "-", "").astype(object)
    for code in np.unique(fault[~is_missing & (fault != FINE)]):
        verdict[fault == code] = FAULTS[code]
    fine = fault == FINE
    verdict[fine & np.isin(value, sentinels_of(variable, policy))] = "sentinel"
    if variable.range is not None:
        low, high = variable.range
        verdict[(verdict == "") & ~((value >= low) & (value <= high))] = "impossible value"
    if variable.levels:
        verdict[(verdict == "") & ~np.isin(value, variable.levels)] = "impossible value"
    for reason in sorted({str(v) for v in verdict} - {"", "-"}):
        hit = verdict == reason
        cells.count_where("dropped", reason, name, hit)
        if policy.strict:
            raise SchemaError(
                f"row {row[np.flatnonzero(hit)[0]]:,}, column {name!r}: {reason}",
                where=cells.name,
                fix=MEND,
            )
    cells.columns[name] = cells.own(np.where(verdict == "", value, np.nan))
    cells.variables[name] = variable


def _take_texts(
    cells: Cells, variable: Variable, text: np.ndarray, is_missing: np.ndarray, policy: Policy
) -> None:
    name = variable.name
    held = text.copy()
    held[is_missing] = None
    levels = sorted({str(level) for level in held if level is not None})
    if cells.table == "outcomes":
        cells.count_where("dropped", "text, and no outcome", name, ~is_missing)
        return
    if len(levels) > MOST_LEVELS:
        reason = f"text with more than {MOST_LEVELS} values"
        cells.count_where("dropped", reason, name, ~is_missing)
        return
    cells.columns[name] = cells.own(held)
    known = [level for level in variable.levels if isinstance(level, str)]
    more = [level for level in levels if level not in known]
    cells.variables[name] = replace(
        variable, kind="categorical", levels=(*known, *more), range=None, words=()
    )


def _one_a_subject(
    result: Cells, name: str, subject: np.ndarray, column: np.ndarray
) -> dict[str, float | str]:
    """Merge the cells of each subject: equal texts, the mean of numbers."""
    is_text = column.dtype == object
    held: dict[str, list] = {}
    for key, cell in zip(subject, column, strict=True):
        if cell is not None and (is_text or not np.isnan(cell)):
            held.setdefault(key, []).append(cell if is_text else float(cell))
    one: dict[str, float | str] = {}
    for key, several in held.items():
        if is_text and len(set(several)) > 1:
            raise SchemaError(
                f"column {name!r}: a subject has several rows with different texts",
                where=result.name,
                fix="keep one row a subject",
            )
        one[key] = several[0] if is_text else _mean(several)
    n_cells = sum(len(several) for several in held.values())
    result.count("kept", "", name, len(one))
    result.count("merged", "repeated row of a subject", name, n_cells - len(one))
    return one


def _fill_from_observations(
    result: Cells,
    name: str,
    known: dict[str, float | str],
    subject: np.ndarray,
    time: np.ndarray,
    column: np.ndarray,
) -> None:
    is_text = column.dtype == object
    from_table = set(known)
    time = np.where(np.isnan(time), np.inf, time)
    held: dict[str, list[tuple[float, float | str]]] = {}
    for key, when, cell in zip(subject, time, column, strict=True):
        if cell is not None and (is_text or not np.isnan(cell)):
            held.setdefault(key, []).append((float(when), cell if is_text else float(cell)))
    n_known, n_filled, n_later = 0, 0, 0
    for key, several in held.items():
        if key in from_table:
            n_known += len(several)
            continue
        first = min(when for when, _ in several)
        early = sorted(cell for when, cell in several if when == first)
        known[key] = early[0] if is_text else _mean(early)
        n_filled += 1
        n_later += len(several) - 1
    result.count("kept", "", name, n_filled)
    result.count("merged", "the statics have it already", name, n_known)
    result.count("merged", "a later value of a descriptor", name, n_later)


def _mean(values: list) -> float:
    ordered = sorted(values)
    return float(min(max(sum(ordered) / len(ordered), ordered[0]), ordered[-1]))


def _with_policy(variable: Variable, policy: Policy) -> Variable:
    if variable.name in policy.ranges:
        return replace(variable, range=policy.ranges[variable.name])
    return variable


def _floats(column: Any) -> np.ndarray:
    return np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)
