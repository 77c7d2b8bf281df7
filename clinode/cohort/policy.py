"""What is done about rows that cannot be taken as they are, as data that a run can store.

The default drops what cannot be a measurement, takes the mean of repeated keys, and converts units
only where the table of variables declares how. Nothing is guessed: `clinode check --suggest` writes
what looks suspicious as a policy to edit, and `read_cohort(policy=...)` follows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from clinode.cohort.schema import Conversion
from clinode.cohort.strict_yaml import read_yaml
from clinode.errors import ArgumentError

ANY = "*"
MISSING_TOKENS = ("", "na", "n/a", "nan", "nat", "null", "none", "nil", "?", "-", "--", ".")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How a cohort is cleaned while it is read; every change is counted in its ledger.

    Args:
        missing_tokens: Texts that mean "not measured", compared without case.
        sentinels: Numbers that stand for "missing", by variable name. Those under "*" count for
            every variable whose range or levels exclude them.
        ranges: Impossible outside, by variable name; takes the place of the shipped range, None
            removes it.
        conversions: Declared changes of unit, by variable name; take the place of the shipped ones.
        rename: Variable names to read as another.
        leave_out: Variable names to drop.
        statics: Variable names that go to the statics although they arrive as measurements.
        strict: Whether every change is an error instead.
    """

    missing_tokens: tuple[str, ...] = MISSING_TOKENS
    sentinels: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: {ANY: (-1.0,)})
    ranges: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    conversions: Mapping[str, tuple[Conversion, ...]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    leave_out: tuple[str, ...] = ()
    statics: tuple[str, ...] = ()
    strict: bool = False

    def __post_init__(self):
        for name, interval in self.ranges.items():
            if interval is not None and not interval[0] < interval[1]:
                raise ArgumentError(f"the policy's range of {name!r} is empty")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists."""
        return {
            "missing_tokens": list(self.missing_tokens),
            "sentinels": {name: list(values) for name, values in self.sentinels.items()},
            "ranges": {
                name: None if interval is None else list(interval)
                for name, interval in self.ranges.items()
            },
            "conversions": {
                name: [asdict(conversion) for conversion in conversions]
                for name, conversions in self.conversions.items()
            },
            "rename": dict(self.rename),
            "leave_out": list(self.leave_out),
            "statics": list(self.statics),
            "strict": self.strict,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str = "policy") -> Policy:
        """The policy that `to_dict` wrote; fields may be left out.

        Raises:
            ArgumentError: A field is unknown or holds something else than it should.
        """
        known = [entry.name for entry in fields(cls)]
        unknown = sorted(set(map(str, data)) - set(known))
        if unknown:
            raise ArgumentError(
                f"a policy has no field {unknown[0]!r}",
                where=where,
                fix=f"the fields are {', '.join(known)}",
            )
        values: dict[str, Any] = {}
        try:
            for name in ("missing_tokens", "leave_out", "statics"):
                if name in data:
                    values[name] = tuple(_text(entry) for entry in data[name] or ())
            if "sentinels" in data:
                values["sentinels"] = {
                    _text(name): tuple(_number(entry) for entry in entries)
                    for name, entries in (data["sentinels"] or {}).items()
                }
            if "ranges" in data:
                values["ranges"] = {
                    _text(name): None if pair is None else (_number(pair[0]), _number(pair[1]))
                    for name, pair in (data["ranges"] or {}).items()
                }
            if "conversions" in data:
                values["conversions"] = {
                    _text(name): tuple(Conversion(**entry) for entry in entries)
                    for name, entries in (data["conversions"] or {}).items()
                }
            if "rename" in data:
                values["rename"] = {
                    _text(old): _text(new) for old, new in (data["rename"] or {}).items()
                }
            if "strict" in data:
                values["strict"] = _truth(data["strict"])
        except (TypeError, ValueError, AttributeError, IndexError, KeyError):
            raise ArgumentError(
                "a field of the policy does not hold what it should",
                where=where,
                fix="compare with the file that `clinode check --suggest` writes",
            ) from None
        return cls(**values)

    def to_yaml(self) -> str:
        """The policy as a file to edit."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    @classmethod
    def read(cls, path: str | Path) -> Policy:
        """Read a policy from YAML.

        Raises:
            ArgumentError: The file is missing, is not strict YAML, or has a field that a policy has
                not.
        """
        path = Path(path)
        return cls.from_dict(read_yaml(path), where=path.name)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object) -> float:
    # infinity is written as text by `to_yaml`, and read as one
    if isinstance(value, str) and value in (".inf", "-.inf"):
        return float(value.replace(".", ""))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value
