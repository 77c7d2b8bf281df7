"""CSV that a spreadsheet opens without running any of it.

Names and identifiers come from data, and a spreadsheet runs a text that begins like a formula.
Every CSV file that leaves the package is made here: such text gets one apostrophe before it, also
where apostrophes stand there already, so that taking one away gives the text back. Numbers stay as
they are, with every digit.

The comma separates. A spreadsheet told to split at other characters finds other cells than these.
"""

import csv
import re

import pandas as pd

_FORMULA = re.compile("'*[=+\\-@\t\r\n\0＝＋－＠]")  # full-width forms run too


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV (RFC 4180, lines end in a line feed), its index left out.

    Text, of heads too, that begins with `=`, `+`, `-`, `@`, a tab, a line break, a zero or a
    full-width form of those signs, also after apostrophes, gets an apostrophe before it.
    """
    safe = table.copy()
    safe.columns = pd.Index([without_formula(name) for name in table.columns], dtype=object)
    broken = any("\r" in str(name) for name in table.columns)
    for k in range(table.shape[1]):
        column = table.iloc[:, k]
        if not pd.api.types.is_numeric_dtype(column):
            cells = [without_formula(cell) for cell in column]
            safe.isetitem(k, pd.Series(cells, index=table.index, dtype=object))
            broken |= any(isinstance(cell, str) and "\r" in cell for cell in cells)
    # a bare carriage return would end the line in other readers, and begin a cell of its own
    quoting = csv.QUOTE_NONNUMERIC if broken else csv.QUOTE_MINIMAL
    return safe.to_csv(index=False, lineterminator="\n", quoting=quoting)


def without_formula(cell: object) -> object:
    """A cell as it is written: text that would run gets an apostrophe before it.

    Example:
        >>> without_formula("=1+1"), without_formula(-1.5), without_formula("a-b")
        ("'=1+1", -1.5, 'a-b')
    """
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell
