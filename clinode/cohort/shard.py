"""A shard: the subjects whose hash leaves one remainder, so that parts can be read apart.

Which shard an id falls into depends on the id and the number of shards alone: the same on every
machine, whatever else the data hold, and in DuckDB as in Python.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from clinode.cohort.sources import Source
from clinode.errors import ArgumentError

_FORM = re.compile(r"([0-9]{1,6})/([0-9]{1,6})", re.ASCII)
_MASK = (1 << 63) - 1  # a whole number of MEDS is a signed one


@dataclass(frozen=True)
class Shard:
    """Shard `number` of `total`, counted from 1.

    Example:
        >>> Shard.parse("2/8"), Shard(1, 2).holds(["a", "b", "c"]).tolist()
        (Shard(number=2, total=8), [False, True, False])
    """

    number: int = 1
    total: int = 1

    def __post_init__(self):
        if not 1 <= self.number <= self.total:
            raise ArgumentError(
                f"there is no shard {self.number} of {self.total}",
                fix="count them from 1, such as 1/8 to 8/8",
            )

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard that "i/n" names.

        Raises:
            ArgumentError: The text is of another form, or there is no such shard.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise ArgumentError(f"a shard is written i/n, got {text!r}", fix="such as 1/8 to 8/8")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def holds(self, ids: Iterable[object]) -> np.ndarray:
        """Which of these ids it holds, (id,) bool; None, the rows without one, is in the first."""
        return np.array(
            [
                (0 if name is None else _number(str(name)) % self.total) == self.number - 1
                for name in ids
            ],
            dtype=bool,
        )

    def condition(self, name: str) -> str:
        """SQL: whether the id that an expression gives as text is held, as `holds` says it."""
        if self.total == 1:
            return "true"
        return f"coalesce(md5_number_lower({name}) % {self.total}, 0) = {self.number - 1}"

    def of(self, source: Source, name: str) -> Source:
        """The rows of a source that it holds; messages then count rows within the shard.

        Args:
            source: A table.
            name: SQL expression of the subject of a row as text.
        """
        if self.total == 1:
            return source
        return replace(
            source,
            name=f"{source.name} (shard {self})",
            relation=f"(SELECT * FROM {source.relation} WHERE {self.condition(name)})",
        )


WHOLE = Shard()


def whole_number(name: object) -> int:
    """The id as MEDS asks for it, 64 bits: itself where it is a whole number, else a hash of it.

    Example:
        >>> whole_number("17"), whole_number(17), whole_number("017") == whole_number("17")
        (17, 17, False)
    """
    text = str(name)
    if re.fullmatch(r"0|-?[1-9][0-9]{0,17}", text, re.ASCII):
        return int(text)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") & _MASK


def _number(name: str) -> int:
    """As DuckDB's md5_number_lower."""
    return int.from_bytes(hashlib.md5(name.encode(), usedforsecurity=False).digest()[8:], "little")
