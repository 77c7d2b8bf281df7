"""The ledger of a reading: what became of every row.

In every table rows read, and rows that another table handed over, equal rows kept plus rows
dropped, merged into others, or moved away. A wide table counts its cells, one per subject, time and
variable; so do the statics and the outcomes. What is only changed in place ("converted") is counted
beside the balance.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

ACTIONS = ("read", "filled", "kept", "dropped", "merged", "moved", "converted")
INFLOW = ("read", "filled")
OUTFLOW = ("kept", "dropped", "merged", "moved")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """So many rows of a table met one fate for one reason.

    Args:
        table: "observations", "inputs", "statics" or "outcomes".
        action: "read", "filled" (came from another table), "kept", "dropped", "merged" (into
            another row), "moved" (to another table) or "converted" (changed, and kept).
        reason: Why, in words.
        variable: Which variable, empty where no one variable is meant.
        rows: How many.
    """

    table: str
    action: str
    reason: str
    variable: str = ""
    rows: int


class Ledger:
    """Entries of one reading, in order of table, action, reason and variable.

    Args:
        entries: Those of no rows are left out, equal ones are added up.
    """

    def __init__(self, entries: Iterable[Entry] = ()):
        rows: dict[tuple[str, str, str, str], int] = {}
        for entry in entries:
            key = (entry.table, entry.action, entry.reason, entry.variable)
            rows[key] = rows.get(key, 0) + entry.rows
        self.entries = tuple(
            Entry(table=table, action=action, reason=reason, variable=variable, rows=count)
            for (table, action, reason, variable), count in sorted(
                rows.items(), key=lambda item: (item[0][0], ACTIONS.index(item[0][1]), item[0][2:])
            )
            if count
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ledger) and self.entries == other.entries

    def __hash__(self) -> int:
        return hash(self.entries)

    def __repr__(self) -> str:
        return f"Ledger of {len(self.entries)} entries\n{self.to_pandas().to_string(index=False)}"

    def rows(
        self, table: str, action: str, reason: str | None = None, variable: str | None = None
    ) -> int:
        """How many rows of a table met this fate."""
        return sum(
            entry.rows
            for entry in self.entries
            if entry.table == table
            and entry.action == action
            and reason in (None, entry.reason)
            and variable in (None, entry.variable)
        )

    @property
    def tables(self) -> tuple[str, ...]:
        """Tables that the ledger speaks of."""
        return tuple(sorted({entry.table for entry in self.entries}))

    @property
    def balanced(self) -> bool:
        """Whether every table's rows in equal its rows out, and no handed-over row is lost."""

        def total(table: str, actions: tuple[str, ...]) -> int:
            return sum(self.rows(table, action) for action in actions)

        handed_over = sum(self.rows(table, "moved") for table in self.tables)
        received = sum(self.rows(table, "filled") for table in self.tables)
        return handed_over == received and all(
            total(table, INFLOW) == total(table, OUTFLOW) for table in self.tables
        )

    def to_pandas(self) -> pd.DataFrame:
        """Columns table, action, reason, rows; the variables added up."""
        rows: dict[tuple[str, str, str], int] = {}
        for entry in self.entries:
            key = (entry.table, entry.action, entry.reason)
            rows[key] = rows.get(key, 0) + entry.rows
        columns = ["table", "action", "reason", "rows"]
        return pd.DataFrame(
            [[*key, count] for key, count in rows.items()], columns=pd.Index(columns)
        ).astype({"rows": "int64"})

    def by_variable(self) -> pd.DataFrame:
        """Columns table, action, reason, variable, rows."""
        columns = ["table", "action", "reason", "variable", "rows"]
        return pd.DataFrame(
            [[getattr(entry, column) for column in columns] for entry in self.entries],
            columns=pd.Index(columns),
        ).astype({"rows": "int64"})

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists."""
        return {"entries": [asdict(entry) for entry in self.entries]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Ledger":
        """The ledger that `to_dict` wrote."""
        return cls(Entry(**entry) for entry in data["entries"])
