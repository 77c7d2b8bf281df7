"""How results are said: one JSON object for programs, lines and tables for people."""

import io
import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clinode.errors import printable


def say(stream: Any, text: str) -> None:
    """Write text at once; that nobody reads any more (`clinode ... | head`) is no failure."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:  # what is left in the buffer must not fail at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def as_json(result: Mapping[str, Any]) -> str:
    """The object on one line; a number that does not exist is null."""
    return json.dumps(_plain(result), sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def as_text(lines: Iterable[str]) -> str:
    """The lines, safe to print."""
    return "".join(f"{printable(row)}\n" for line in lines for row in line.split("\n"))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table; columns of numbers are aligned to the right."""
    from rich.console import Console
    from rich.table import Table

    rows = [[_cell(cell) for cell in row] for row in rows]
    numeric = [
        bool(rows) and all(row[column][:1] in "-0123456789" for row in rows)
        for column in range(len(header))
    ]
    drawn = Table(box=None, pad_edge=False)
    for name, is_numeric in zip(header, numeric, strict=True):
        drawn.add_column(name, justify="right" if is_numeric else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    width = 8 + sum(max(map(len, column)) + 3 for column in zip(header, *rows, strict=True))
    paper = io.StringIO()
    Console(file=paper, width=width, markup=False, highlight=False, emoji=False).print(drawn)
    return [line.rstrip() for line in paper.getvalue().splitlines()]


def broken_table(
    header: Sequence[str], rows: Sequence[Sequence[object]], width: int | None
) -> list[str]:
    """A table in as many tables below each other as its columns need to fit.

    Args:
        header: Of the columns; the first one stands in every part.
        rows: The cells.
        width: Characters of a line; None where lines may be as long as they are.
    """
    n_columns = len(header) - 1
    lines = table(header, rows)
    for n_parts in range(2, n_columns + 1):
        if width is None or max(map(len, lines)) <= width:
            break
        per_part = -(-n_columns // n_parts)
        lines = []
        for start in range(1, len(header), per_part):
            taken = [0, *range(start, min(start + per_part, len(header)))]
            part = table([header[k] for k in taken], [[row[k] for k in taken] for row in rows])
            lines += [*([""] if lines else []), *part]
    return lines


def terminal_width() -> int | None:
    """Characters of a line of the standard output; None where it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def interval(estimate: Mapping[str, Any], digits: int = 3) -> str:
    """An estimate as "0.870 [0.852, 0.888]", or "undefined"; `--json` says why."""
    if estimate.get("value") is None:
        return "undefined"
    value, low, high = (estimate.get(name) for name in ("value", "low", "high"))
    text = f"{value:.{digits}f}"
    return text if low is None or high is None else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def count(number: int, noun: str) -> str:
    """A count with its noun, as "1 subject" or "4,000 subjects"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def called(path: Path) -> str:
    """What a file or folder is called, without where it lies: folders are named after people too.

    Example:
        >>> called(Path("/data/Ann Berg/stays")), called(Path("."))
        ('stays', '.')
    """
    return path.name or str(path)


def _cell(value: object) -> str:
    return printable(f"{value:,}" if isinstance(value, int) else value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(inner) for inner in value]
    if isinstance(value, Path):
        return called(value)
    if not isinstance(value, float | int | str | bool | None):
        return _plain(value.item())  # a number of numpy
    return None if isinstance(value, float) and not math.isfinite(value) else value
