"""Names, units and ranges of what stands on the last axis of a tensor."""

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from clinode.errors import ArgumentError


@dataclass(frozen=True)
class Quantity:
    """One named quantity with its unit; with labels, a block of them, one value a label.

    Args:
        name: A word without ":"; a constant's name is also its attribute, so a Python identifier.
        unit: As text ("mV", "1/min"); "1" where dimensionless.
        labels: Names of the members of a block (regions, say); empty for a single value.
        range: Lowest and highest plausible value: seeds multi-start searches and sets scales.
        default: The value at the start of a simulation; one number, shared by a block.

    Raises:
        ArgumentError: An empty name or unit, repeated labels, a range that is not finite and
            increasing, or a default outside it.

    Example:
        >>> Quantity("E", "1", labels=("lh_precuneus", "rh_precuneus")).names
        ('E:lh_precuneus', 'E:rh_precuneus')
    """

    name: str
    unit: str
    labels: tuple[str, ...] = ()
    range: tuple[float, float] | None = None
    default: float | None = None

    def __post_init__(self):
        object.__setattr__(self, "labels", tuple(self.labels))
        if not self.name or ":" in self.name:
            raise ArgumentError(f"a quantity's name is a word without ':', got {self.name!r}")
        if not self.unit:
            raise ArgumentError(f"quantity '{self.name}' has no unit", fix="say '1' if it has none")
        if len(set(self.labels)) < len(self.labels) or "" in self.labels:
            raise ArgumentError(f"quantity '{self.name}': labels must be distinct and not empty")
        if self.range is None:
            return
        low, high = self.range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ArgumentError(
                f"quantity '{self.name}': range must be finite with low < high, got {self.range}"
            )
        if self.default is not None and not low <= self.default <= high:
            raise ArgumentError(
                f"quantity '{self.name}': default {self.default} lies outside range {self.range}"
            )

    @property
    def size(self) -> int:
        """How many values it holds on the last axis."""
        return len(self.labels) or 1

    @property
    def names(self) -> tuple[str, ...]:
        """Flat names, one a value: `("V",)`, or `("E:lh_precuneus", ...)` for a block."""
        return tuple(f"{self.name}:{label}" for label in self.labels) or (self.name,)


def flat_names(quantities: Sequence[Quantity]) -> tuple[str, ...]:
    """Names of all values of several quantities, in the order of the last axis."""
    return tuple(name for quantity in quantities for name in quantity.names)


def positions(quantities: Sequence[Quantity], name: str, what: str) -> list[int]:
    """Where on the last axis a name stands: all places of a block, or the one of a flat name.

    Args:
        quantities: What stands on the last axis.
        name: "E" or "E:lh_precuneus".
        what: How an error calls what is looked for: "state of MorrisLecar".

    Raises:
        ArgumentError: Nothing has this name; the nearest that is known is offered.
    """
    offset = 0
    for quantity in quantities:
        if name == quantity.name:
            return list(range(offset, offset + quantity.size))
        if name in quantity.names:
            return [offset + quantity.names.index(name)]
        offset += quantity.size
    known = dict.fromkeys(n for q in quantities for n in (q.name, *q.names))
    raise ArgumentError(f"no {what} is called '{name}': {nearest(name, known)}")


def check_distinct(owner: str, quantities: Sequence[Quantity]) -> None:
    """Raise ArgumentError where a name is used twice."""
    names = [quantity.name for quantity in quantities]
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise ArgumentError(f"{owner} uses the name {listed(repeated)} more than once")


def check_given(what: str, given: dict[str, Any], quantities: Sequence[Quantity]) -> None:
    """Raise ArgumentError where `given` has an unknown name or lacks one of the quantities."""
    expected = [quantity.name for quantity in quantities]
    for name in given:
        if name not in expected:
            raise ArgumentError(f"no {what} is called '{name}': {nearest(name, expected)}")
    missing = [name for name in expected if name not in given]
    if missing:
        raise ArgumentError(f"no value for {what} {listed(missing)}")


def listed(names: Sequence[str]) -> str:
    """At most five names in quotes, and how many more."""
    shown = ", ".join(f"'{name}'" for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def nearest(name: str, known: Iterable[str]) -> str:
    """What to offer for a name that is not known."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"there are {listed(known)}" if known else "there are none"
