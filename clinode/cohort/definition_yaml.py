"""A task definition as a person writes it.

    name: shock
    index: 0                # hours, or a condition: the first time that it is true
    window: 24              # the prediction time is so many hours behind the index time
    gap: 6
    horizon: 24
    unmeasured: negative    # or unknown, which is the default
    record_ends: unknown    # or negative
    label:
      any:
        - {variable: Lactate, above: 4, unit: mmol/L}
        - {input: norepinephrine}
        - {variable: MAP, below: 60, times: 2}
    exclude:
      - {stay_below: 30}
      - {static: Age, below: 18}
      - {static: Age, missing: true}
      - {variable: Creatinine, missing: true}
      - {observations_below: 5}
      - {event_before: true}

A label may also be one condition: an outcome column (`{outcome: died}`, which has no horizon), or
the hour of an event (`{time_of: death_hours}`). `every` and `until` ask again along the stay.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from clinode.cohort.conditions import (
    Bounds,
    Condition,
    Given,
    Happened,
    Measured,
    Recorded,
    nearest,
)
from clinode.cohort.definition import TaskDefinition
from clinode.cohort.exclusions import (
    Before,
    Exclusion,
    FewObservations,
    LabelBefore,
    ShortStay,
    Static,
)
from clinode.cohort.strict_yaml import key_lines, parse_yaml, read_text
from clinode.errors import ArgumentError

Way = tuple[str | int, ...]

BOUNDS = ("above", "at_least", "below", "at_most", "equals")
HOURS = ("window", "gap", "horizon", "every", "until")
KEYS = ("name", "index", *HOURS, "unmeasured", "record_ends", "label", "exclude")


def read_task(path: str | Path) -> TaskDefinition:
    """Read a task definition.

    Raises:
        ArgumentError: The file is missing, is not strict YAML, or says something unknown, twice, or
            against itself; the line and the key are named.
    """
    path = Path(path)
    return parse_task(read_text(path), where=path.name)


def parse_task(text: str, *, where: str = "task") -> TaskDefinition:
    """The definition that a text of YAML holds.

    Example:
        >>> death = parse_task("{name: death, window: 48, label: {outcome: died}}")
        >>> death.task
        Classify(outcome='death', at=48.0, auxiliary=())
    """
    held = parse_yaml(text, where=where)
    reader = _Reader(where, key_lines(text, where=where))
    held = reader.names((), held, KEYS)
    for name in ("name", "label"):
        if name not in held:
            reader.fail((), f"there is no {name!r}", f"add a line `{name}: ...`")
    with reader.at(()):
        label, need = reader.label(held["label"])
        given: dict[str, Any] = {
            name: reader.number((name,), held[name]) for name in HOURS if name in held
        }
        for name in ("name", "unmeasured", "record_ends"):
            if name in held:
                given[name] = reader.text((name,), held[name])
        if "index" in held:
            given["index"] = reader.index(held["index"])
        if "exclude" in held:
            given["exclude"] = reader.exclusions(held["exclude"])
        return TaskDefinition(label=label, need=need, **given)


@dataclass(frozen=True)
class _Reader:
    """Turns what YAML holds into parts of a definition, and knows where each thing stands."""

    where: str
    lines: dict[Way, int]

    def fail(self, way: Way, problem: str, fix: str = "") -> NoReturn:
        """Refuse what stands there.

        Raises:
            ArgumentError: Always.
        """
        place = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in way)
        named = f"{place.removeprefix('.')}: " if place else ""
        raise ArgumentError(f"line {self.lines[way]}, {named}{problem}", where=self.where, fix=fix)

    @contextmanager
    def at(self, way: Way) -> Iterator[None]:
        """Say where it stands, of what a part refuses by itself."""
        try:
            yield
        except ArgumentError as error:
            if error.where == self.where:
                raise  # it says so already
            self.fail(way, error.problem, error.fix)

    def names(self, way: Way, held: Any, known: tuple[str, ...]) -> dict[str, Any]:
        """A mapping with known names."""
        if not isinstance(held, dict) or not held:
            self.fail(way, "expected lines of the form `name: value`")
        for name in held:
            if name not in known:
                self.fail((*way, name), f"there is no key {name!r} here", nearest(name, known))
            if held[name] is None:
                self.fail((*way, name), "there is no value", "write one, or take the line out")
        return held

    def number(self, way: Way, held: Any) -> float:
        """A number; no text, whatever it looks like."""
        if isinstance(held, bool) or not isinstance(held, int | float):
            self.fail(way, "expected a number", "units stand apart; hours have none")
        return float(held)

    def whole(self, way: Way, held: Any) -> int:
        """A whole number."""
        if isinstance(held, bool) or not isinstance(held, int):
            self.fail(way, "expected a whole number")
        return held

    def text(self, way: Way, held: Any) -> str:
        """A text."""
        if not isinstance(held, str) or not held:
            self.fail(way, "expected a text", "put it in quotation marks if it looks like a number")
        return held

    def entries(self, way: Way, held: Any) -> list[Any]:
        """A list with something in it."""
        if not isinstance(held, list) or not held:
            self.fail(way, "expected a list", "begin each entry with `- `")
        return held

    def true(self, way: Way, held: Any) -> bool:
        """The word `true`."""
        if held is not True:
            self.fail(way, "expected true", "leave it out where it is not asked for")
        return True

    def index(self, held: Any) -> float | Measured | Given | Happened:
        """Hours, or a condition with events."""
        if not isinstance(held, dict):
            return self.number(("index",), held)
        condition = self.condition(("index",), held)
        if isinstance(condition, Recorded) or getattr(condition, "times", 1) != 1:
            self.fail(("index",), "an index time is that of one event", "name an event")
        return condition  # pyright: ignore[reportReturnType]  # refused just before

    def label(self, held: Any) -> tuple[tuple[Condition, ...], str]:
        """Conditions, and whether any or all of them are needed."""
        way: Way = ("label",)
        if isinstance(held, dict) and ({"any", "all"} & set(held)):
            if len(held) > 1:
                self.fail(way, "expected `any` or `all` alone", "give one list of conditions")
            (need,) = held
            way = (*way, need)
            conditions = [
                self.condition((*way, k), entry)
                for k, entry in enumerate(self.entries(way, held[need]))
            ]
            return tuple(conditions), need
        return (self.condition(way, held),), "any"

    def condition(self, way: Way, held: Any) -> Condition:
        """One condition, told apart by the source that it names."""
        makers: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], Condition]]] = {
            "variable": (
                (*BOUNDS, "times", "unit"),
                lambda h: Measured(
                    variable=self.text((*way, "variable"), h["variable"]),
                    bounds=self.bounds(way, h),
                    times=self.times(way, h),
                    unit=self.text((*way, "unit"), h["unit"]) if "unit" in h else None,
                ),
            ),
            "input": (
                (*BOUNDS, "times"),
                lambda h: Given(
                    input=self.text((*way, "input"), h["input"]),
                    bounds=self.bounds(way, h),
                    times=self.times(way, h),
                ),
            ),
            "outcome": (
                (),
                lambda h: Recorded(outcome=self.text((*way, "outcome"), h["outcome"])),
            ),
            "time_of": (
                (),
                lambda h: Happened(time_of=self.text((*way, "time_of"), h["time_of"])),
            ),
        }
        source = self.source(way, held, tuple(makers))
        further, make = makers[source]
        with self.at(way):
            return make(self.names(way, held, (source, *further)))

    def bounds(self, way: Way, held: dict[str, Any]) -> Bounds:
        """Those of a condition."""
        return Bounds(**{b: self.number((*way, b), held[b]) for b in BOUNDS if b in held})

    def times(self, way: Way, held: dict[str, Any]) -> int:
        """How often; once where nothing is said."""
        return self.whole((*way, "times"), held["times"]) if "times" in held else 1

    def source(self, way: Way, held: Any, known: tuple[str, ...]) -> str:
        """The one name that says what kind of entry it is."""
        if not isinstance(held, dict):
            self.fail(way, f"expected one of {', '.join(known)}", "such as {variable: Lactate}")
        found = [name for name in known if name in held]
        if len(found) != 1:
            what = "two kinds of rule in one" if found else f"none of {', '.join(known)} is named"
            first = next(iter(held), "")
            fix = "write one entry each" if found else nearest(str(first), known)
            self.fail(way, what, fix)
        return found[0]

    def exclusions(self, held: Any) -> tuple[Exclusion, ...]:
        """Rules in their order."""
        entries = self.entries(("exclude",), held)
        return tuple(self.exclusion(("exclude", k), entry) for k, entry in enumerate(entries))

    def exclusion(self, way: Way, held: Any) -> Exclusion:
        """One rule."""
        known = (
            "stay_below",
            "observations_below",
            "event_before",
            "static",
            "variable",
            "input",
        )
        source = self.source(way, held, known)
        with self.at(way):
            if source in ("variable", "input"):
                missing = "missing" in held
                if missing:
                    self.true((*way, "missing"), held["missing"])
                rest = {name: value for name, value in held.items() if name != "missing"}
                condition = self.condition(way, rest)
                return Before(condition=condition, missing=missing)  # pyright: ignore[reportArgumentType]  # by its source
            if source == "static":
                return self.static(way, held)
            self.names(way, held, (source,))
            place = (*way, source)
            if source == "stay_below":
                return ShortStay(stay_below=self.number(place, held[source]))
            if source == "observations_below":
                return FewObservations(observations_below=self.whole(place, held[source]))
            self.true(place, held[source])
            return LabelBefore()

    def static(self, way: Way, held: dict[str, Any]) -> Static:
        """A rule about a static."""
        self.names(way, held, ("static", "missing", "levels", *BOUNDS))
        levels = held.get("levels", ())
        if "levels" in held:
            levels = tuple(self.entries((*way, "levels"), levels))
            for k, level in enumerate(levels):
                if isinstance(level, bool) or not isinstance(level, str | int | float):
                    self.fail((*way, "levels", k), "expected a number or a text")
        return Static(
            static=self.text((*way, "static"), held["static"]),
            bounds=self.bounds(way, held),
            levels=levels,
            missing="missing" in held and self.true((*way, "missing"), held["missing"]),
        )
