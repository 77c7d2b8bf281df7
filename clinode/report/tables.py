"""Tables of a page: a caption, columns and cells in words, drawn by `templates/macros.html`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinode.errors import printable
from clinode.report.wording import significant
from clinode.statistics import Estimate

NOT_SHOWN = "not shown"
DASH = "–"
MOST_ROWS = 60
MOST_LETTERS = 200
MOST_COLUMNS = 6


@dataclass(frozen=True)
class Cell:
    """A cell with a style of its own: "blank" for what is missing, "h0" to "h5" for shades."""

    text: str
    style: str


@dataclass(frozen=True)
class Table:
    """What a table prints.

    Args:
        caption: What it holds.
        columns: Heads.
        rows: Cells in words.
        numbers: Positions of the columns that are aligned like numbers.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    numbers: Sequence[int] = ()


def interval(
    estimate: Estimate | Mapping[str, Any] | None, *, digits: int = 3, factor: float | int = 1.0
) -> str:
    """A number with its interval, "0.812 [0.790, 0.833]", or why there is none.

    Args:
        estimate: Itself, or what its `to_dict` gave.
        digits: Behind the point.
        factor: By which all three are multiplied.
    """
    if estimate is None:
        return DASH
    told: dict[str, Any] = dict(estimate.to_dict() if isinstance(estimate, Estimate) else estimate)
    if told.get("value") is None:
        return printable(told.get("verdict", "undefined"))
    text = f"{factor * told['value']:.{digits}f}"
    if told.get("low") is not None:
        text += f" [{factor * told['low']:.{digits}f}, {factor * told['high']:.{digits}f}]"
    return text.replace("-", "−")


def told_tables(told: Mapping[str, Any], name: str) -> list[Table]:
    """Any result that tells itself by `to_dict`, as tables: its numbers, then each of its lists.

    Rows that speak of single subjects are left out: a page on the cohort holds none.

    Args:
        told: What `to_dict` gave.
        name: Of the result, for the captions.
    """
    single: list[Sequence[str | Cell]] = []
    found: list[Table] = []
    for key, value in told.items():
        title = _words(key)
        if _is_grid(value):
            found.append(_grid(value, f"{name}: {title}"))
        elif isinstance(value, Mapping) and not _is_estimate(value):
            found += told_tables(value, f"{name}: {title}")
        elif isinstance(value, Sequence) and _is_records(value):
            found += _records(value, f"{name}: {title}")
        else:
            single.append([title, _cell(value)])
    if single:
        found.insert(0, Table(name, ("What", "Found"), single))
    return found


def _records(rows: Sequence[Mapping[str, Any]], caption: str) -> list[Table]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if any(str(column) in ("subject_id", "subject", "person_id") for column in columns):
        return []
    shown = [[_cell(row.get(column)) for column in columns] for row in rows[:MOST_ROWS]]
    if len(rows) > MOST_ROWS:
        caption += f" (the first {MOST_ROWS} of {len(rows):,})"
    numbers = [
        k
        for k, column in enumerate(columns)
        if all(isinstance(row.get(column), int | float | None) for row in rows)
    ]
    return [Table(caption, [_words(column) for column in columns], shown, numbers)]


def _grid(value: Mapping[Any, Mapping[Any, Any]], caption: str) -> Table:
    columns = list(next(iter(value.values())))
    rows = [
        [_words(key), *(_cell(told[column]) for column in columns)] for key, told in value.items()
    ]
    return Table(caption, ["Of", *(_words(column) for column in columns)], rows)


def _cell(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return (significant(value, 3) if math.isfinite(value) else DASH).replace("-", "−")
    if isinstance(value, Mapping):
        if _is_estimate(value):
            return interval(value)
        return _cut("; ".join(f"{_words(k)} {_cell(v)}" for k, v in value.items()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _cut(", ".join(_cell(entry) for entry in value))
    return _cut(printable(value))


def _cut(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"


def _is_estimate(value: object) -> bool:
    return isinstance(value, Mapping) and {"value", "low", "high"} <= set(value)


def _is_grid(value: object) -> bool:
    """Whether the same few numbers are told of several things: one table shows them all."""
    if not isinstance(value, Mapping) or _is_estimate(value) or len(value) < 2:
        return False
    parts = list(value.values())
    return all(
        isinstance(part, Mapping)
        and not _is_estimate(part)
        and 0 < len(part) <= MOST_COLUMNS
        and list(part) == list(parts[0])
        and all(_is_estimate(v) or v is None or isinstance(v, int | float) for v in part.values())
        for part in parts
    )


def _is_records(value: Sequence[Any]) -> bool:
    return (
        not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(row, Mapping) and not _is_estimate(row) for row in value)
    )


def _words(key: object) -> str:
    return _cut(printable(key).replace("_", " "))
