"""Which column of a table is which, found by the usual names or told by the caller.

A column is found by its name alone and never by what it holds. What is not found is asked for, with
the names that there are and a call to copy.
"""

from collections.abc import Sequence
from pathlib import Path

from clinode.cohort.schema import plain_name
from clinode.cohort.sources import Source, is_number, kind_of
from clinode.cohort.variables import is_identifier
from clinode.errors import SchemaError

SUBJECT_NAMES = (
    *("subject_id", "stay_id", "record_id", "patient_id", "person_id", "icustay_id"),
    *("patientunitstayid", "encounter_id", "admission_id", "hadm_id", "visit_id", "case_id"),
    *("subject", "stay", "record", "patient", "encounter", "admission", "case", "id", "pid"),
)
TIME_NAMES = (
    *("time", "time_hours", "time_h", "hours", "hour", "hr", "t", "offset", "time_offset"),
    *("time_minutes", "time_min", "minutes", "minute", "time_seconds", "time_sec", "seconds"),
    *("time_days", "days", "day", "hours_in", "hours_since_admission"),
    *("charttime", "chart_time", "timestamp", "datetime", "observation_time"),
)
VARIABLE_NAMES = (
    *("variable", "variable_name", "parameter", "param", "name", "item", "item_name", "itemid"),
    *("code", "concept", "feature", "channel", "test", "test_name", "labname", "measurement"),
)
VALUE_NAMES = (
    *("value", "valuenum", "value_num", "numeric_value", "result", "labresult", "reading"),
    *("measured_value", "value_as_number"),
)
START_NAMES = ("start", "start_time", "starttime", "start_hours", "begin", *TIME_NAMES)
END_NAMES = ("end", "end_time", "endtime", "end_hours", "stop", "stop_time", "stoptime")
GIVEN_NAMES = ("drug", "medication", "treatment", "input", *VARIABLE_NAMES)
DOSE_NAMES = ("rate", "dose", "amount", *VALUE_NAMES)

USUAL = {
    "subject": SUBJECT_NAMES,
    "time": TIME_NAMES,
    "variable": VARIABLE_NAMES,
    "value": VALUE_NAMES,
    "start": START_NAMES,
    "end": END_NAMES,
    "given": GIVEN_NAMES,
    "dose": DOSE_NAMES,
}

TABLES = {
    "observations": (
        *("observations", "observation", "obs", "dyn", "dynamic", "timeseries", "time_series"),
        *("events", "measurements", "vitals", "longitudinal"),
    ),
    "statics": ("statics", "static", "sta", "patients", "demographics", "baseline", "descriptors"),
    "outcomes": ("outcomes", "outcome", "outc", "labels", "label", "targets"),
    "inputs": ("inputs", "input", "treatments", "treatment", "interventions", "medications"),
}

_UNIT_ENDINGS = {
    "min": ("minutes", "minute", "mins", "min"),
    "s": ("seconds", "second", "secs", "sec"),
    "d": ("days", "day"),
    "h": ("hours", "hour", "hrs", "hr", "h"),
}


def find_column(source: Source, role: str, told: str | None = None) -> str | None:
    """The column of a role: the one that was told if the table has it, else a usual name."""
    if told is not None and told in source.columns:
        return told
    by_name = {plain_name(column): column for column in reversed(source.columns)}
    return next((by_name[plain_name(n)] for n in USUAL[role] if plain_name(n) in by_name), None)


def need_column(source: Source, role: str, told: str | None, argument: str) -> str:
    """The column of a role.

    Raises:
        SchemaError: It was told and is not there, or it was not told and has no usual name.
    """
    if told is not None and told not in source.columns:
        raise SchemaError(
            f"there is no column {told!r} for the {argument}; {columns_in_words(source)}",
            where=source.name,
            fix=example(source),
        )
    found = find_column(source, role, told)
    if found is None:
        raise SchemaError(
            f"no column of the {argument} was recognised; {columns_in_words(source)}",
            where=source.name,
            fix=example(source),
        )
    return found


def subject_column(source: Source, told: str | None) -> str:
    """The column of the subject of a table of observations.

    Raises:
        SchemaError: It was told and is not there, has no usual name, or several columns have one: a
            person and a stay have different time zeros, so that cannot be guessed.
    """
    column = need_column(source, "subject", told, "subject")
    if told is None:
        others = [name for name in source.columns if name != column and is_identifier(name)]
        if others:
            raise SchemaError(
                f"both {column!r} and {others[0]!r} could be the subject",
                where=source.name,
                fix=f'say whose time zero the times count from: subject="{column}"',
            )
    return column


def columns_in_words(source: Source) -> str:
    """The columns of a table, at most thirty of them."""
    names = shown_names(source)
    more = f" and {len(names) - 30} more" if len(names) > 30 else ""
    return f"the columns are {', '.join(names[:30])}{more}"


def shown_names(source: Source) -> list[str]:
    """The columns as a message may name them.

    Where a file has no header its first row stands there, with an identifier or a value: what has
    three digits or more, or is a number, is told by its place.
    """
    return shown_columns(list(source.columns))


def shown_columns(names: Sequence[str]) -> list[str]:
    """As `shown_names`; where one of the names is a number, the line is one of data throughout.

    Example:
        >>> shown_columns(["stay", "Hb"]), shown_columns(["Ann Berg", "7.4"])
        (['stay', 'Hb'], ['column 1', 'column 2'])
    """
    is_data = any(is_number(name) for name in names)
    return [
        f"column {place}" if is_data or _may_be_data(name) else name
        for place, name in enumerate(names, start=1)
    ]


def _may_be_data(name: str) -> bool:
    return sum(letter.isdigit() for letter in name) > 2 or not any(map(str.isalpha, name))


def example(source: Source) -> str:
    """A call that names the columns, to copy and mend."""
    shown = [
        name if shown == name else "..."
        for name, shown in zip(source.columns, shown_names(source), strict=True)
    ]
    names = [*shown, "...", "...", "...", "..."]
    return (
        f'read_cohort("{source.name}", subject="{names[0]}", time="{names[1]}", '
        f'variable="{names[2]}", value="{names[3]}") for one row an observation, or without '
        "variable and value for one column a variable; at the command line the same words are "
        f"options: --subject {names[0]}"
    )


def unit_in_name(column: str) -> str | None:
    """The unit of time that a column's name ends in.

    Example:
        >>> unit_in_name("time_min"), unit_in_name("offset")
        ('min', None)
    """
    words = column.lower().replace("-", "_").replace(" ", "_").split("_")
    for unit, endings in _UNIT_ENDINGS.items():
        if words[-1] in endings and (len(words) > 1 or len(words[-1]) > 1):
            return unit
    return None


def check_time_unit(source: Source, column: str, time_unit: str | None) -> str:
    """The unit of a time column: what was told, else hours.

    Raises:
        SchemaError: Nothing was told, and the column's name speaks of another unit.
    """
    named = unit_in_name(column)
    if time_unit is None and named not in (None, "h"):
        raise SchemaError(
            f"column {column!r} seems to be in another unit than hours",
            where=source.name,
            fix=f'say which: time_unit="{named}" or time_unit="h"',
        )
    return time_unit or "h"


def find_tables(folder: Path) -> dict[str, list[Path]]:
    """The tables of a folder by their usual names; a table may be a folder of files.

    Raises:
        SchemaError: Nothing is usable, or one table stands there twice.
    """
    found: dict[str, list[Path]] = {}
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    tables = [path for path in entries if path.is_file() and kind_of(path)]
    for path in (*tables, *(p for p in entries if p.is_dir())):
        stem = plain_name(path.name.split(".")[0])
        role = next((r for r, names in TABLES.items() if stem in map(plain_name, names)), None)
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if kind_of(p))
        if role is None or not files:
            continue
        if role in found:
            raise SchemaError(
                f"both {found[role][0].name} and {files[0].name} could be the {role}",
                where=folder.name,
                fix="name the files, or leave one of them in the folder",
            )
        found[role] = files
    if not found and len(tables) == 1:
        found["observations"] = tables
    if "observations" not in found:
        raise SchemaError(
            f"no table of observations was recognised; the folder holds {_names(entries)}",
            where=folder.name,
            fix='name it: read_cohort("observations.csv", statics="statics.csv", '
            'outcomes="outcomes.csv")',
        )
    return found


def _names(entries: Sequence[Path]) -> str:
    if not entries:
        return "nothing"
    endings = {path.suffix or "a folder" for path in entries}
    if len(entries) > 10:  # names of many files may be those of subjects
        return f"{len(entries):,} files ({', '.join(sorted(endings))})"
    return ", ".join(path.name for path in entries)
