"""What a cohort may contain: its variables with their units, and the columns of its tables.

A `Variable` says how one measured, static or given quantity is named, in which unit it stands,
which values are impossible, and which other unit it is known to arrive in. The shipped table of
variables is in `clinode.cohort.variables`; a name that is not in it is a continuous variable of
unit "1" without limits. `data_schemas/` holds the JSON Schemas of the tables, written by
`json_schemas`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from clinode.errors import ArgumentError, SchemaError

KINDS = ("continuous", "binary", "categorical", "count")
TRANSFORMS = ("identity", "log")


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A declared change of unit: a value in [low, high] becomes value * scale + offset.

    The interval must lie where no right value of the variable can lie, so that a number says by
    itself in which unit it stands (98.6 is no body temperature in Celsius).
    """

    low: float
    high: float
    scale: float
    offset: float = 0.0
    reason: str = "unit conversion"

    def __post_init__(self):
        numbers = (self.low, self.high, self.scale, self.offset)
        if not all(math.isfinite(number) for number in numbers) or self.scale == 0:
            raise ArgumentError("a conversion needs finite numbers and a scale other than 0")
        if self.low > self.high:
            raise ArgumentError("a conversion's low lies above its high")


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One quantity: measured over time, known from the start, given, or predicted.

    Args:
        name: As it stands in the tables.
        label: As a person reads it.
        unit: UCUM-like text; "1" where there is none or it is not known.
        kind: "continuous", "binary", "categorical" or "count".
        range: What lies outside is impossible (not merely unusual); None without limits.
        transform: "log" stands for log(x + 0.1), the scale on which the variable is about normal.
        loinc: LOINC code, where one is certain.
        conversions: Declared changes of unit, tried in order before the range is checked.
        aliases: Other names of it, compared without case, blanks, "-" and "_".
        normal: Reference interval of adults, for the attribution baseline "normal".
        normal_source: Where that interval is from.
        levels: The values that a categorical variable takes; empty where they come from the data.
        words: Texts that stand for a number, compared without case ("male" is 1).
    """

    name: str
    label: str = ""
    unit: str = "1"
    kind: str = "continuous"
    range: tuple[float, float] | None = None
    transform: str = "identity"
    loinc: str | None = None
    conversions: tuple[Conversion, ...] = ()
    aliases: tuple[str, ...] = ()
    normal: tuple[float, float] | None = None
    normal_source: str | None = None
    levels: tuple[float | str, ...] = ()
    words: tuple[tuple[str, float], ...] = ()

    def __post_init__(self):
        if not self.name:
            raise ArgumentError("a variable needs a name")
        if self.kind not in KINDS:
            raise ArgumentError(f"{self.name}: kind {self.kind!r} is none of {', '.join(KINDS)}")
        if self.transform not in TRANSFORMS:
            raise ArgumentError(
                f"{self.name}: transform {self.transform!r} is none of {', '.join(TRANSFORMS)}"
            )
        for interval in (self.range, self.normal):
            if interval is not None and not interval[0] <= interval[1]:
                raise ArgumentError(f"{self.name}: the interval {interval} is empty")
        if not self.label:
            object.__setattr__(self, "label", self.name)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists."""
        data = asdict(self)
        for name in ("range", "normal"):
            data[name] = None if data[name] is None else list(data[name])
        for name in ("aliases", "levels", "conversions"):
            data[name] = list(data[name])
        data["words"] = [list(pair) for pair in self.words]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Variable":
        """The variable that `to_dict` wrote; fields may be left out.

        Raises:
            SchemaError: A field is unknown.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown or "name" not in data:
            raise SchemaError(
                f"a variable has no field {unknown[0]!r}" if unknown else "a variable has no name",
                fix=f"the fields are {', '.join(sorted(known))}",
            )
        values = dict(data)
        for name in ("range", "normal"):
            if values.get(name) is not None:
                low, high = values[name]
                values[name] = (float(low), float(high))
        for name in ("aliases", "levels"):
            values[name] = tuple(values.get(name) or ())
        values["words"] = tuple((str(w), float(n)) for w, n in values.get("words") or ())
        values["conversions"] = tuple(Conversion(**c) for c in values.get("conversions") or ())
        return cls(**values)


@dataclass(frozen=True)
class CohortSchema:
    """The variables of a cohort.

    Args:
        variables: What is measured over time; the order is that of `CohortArrays.variable_index`.
        statics: What is known of a subject from the start, in the order of the statics' columns.
        inputs: What is given to a subject.
        outcomes: Names of the outcome columns; the one to predict stands last where a format knows
            it.
    """

    variables: tuple[Variable, ...] = ()
    statics: tuple[Variable, ...] = ()
    inputs: tuple[Variable, ...] = ()
    outcomes: tuple[str, ...] = ()

    def __post_init__(self):
        for part in ("variables", "statics", "inputs"):
            names = [variable.name for variable in getattr(self, part)]
            if len(set(names)) < len(names):
                raise ArgumentError(f"a name is repeated among the {part} of the schema")
        if len(set(self.outcomes)) < len(self.outcomes):
            raise ArgumentError("a name is repeated among the outcomes of the schema")

    def variable(self, name: str) -> Variable:
        """The measured variable, static or input of this name.

        Raises:
            ArgumentError: There is none.
        """
        for variable in (*self.variables, *self.statics, *self.inputs):
            if variable.name == name:
                return variable
        raise ArgumentError(f"the cohort has no variable {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists."""
        return {
            "variables": [variable.to_dict() for variable in self.variables],
            "statics": [variable.to_dict() for variable in self.statics],
            "inputs": [variable.to_dict() for variable in self.inputs],
            "outcomes": list(self.outcomes),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "CohortSchema":
        """The schema that `to_dict` wrote.

        Raises:
            SchemaError: A field is unknown.
        """
        parts = ("variables", "statics", "inputs")
        unknown = sorted(set(data) - {*parts, "outcomes"})
        if unknown:
            raise SchemaError(f"a schema has no field {unknown[0]!r}")
        return cls(
            *(tuple(Variable.from_dict(entry) for entry in data.get(part, ())) for part in parts),
            outcomes=tuple(data.get("outcomes", ())),
        )


def plain_name(name: str) -> str:
    """A name as aliases are compared: lower case, without blanks, "-", "_" and ".".

    Example:
        >>> plain_name("Heart_Rate") == plain_name("heart rate")
        True
    """
    return re.sub(r"[\s_.\-]+", "", name).lower()


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas of a row of each table of a cohort and of its variables, by file name."""
    number = {"type": "number"}
    subject = {"type": ["integer", "string"], "description": "whose record; led by every table"}
    time = {"type": "number", "description": "hours since the subject's time zero"}
    name = {"type": "string", "minLength": 1}
    interval = {
        "type": ["array", "null"],
        "items": number,
        "minItems": 2,
        "maxItems": 2,
    }
    tables = {
        "observations": {
            "subject_id": subject,
            "time": time,
            "variable": name,
            "value": number,
        },
        "inputs": {
            "subject_id": subject,
            "start": time,
            "end": {"type": ["number", "null"], "description": "hours; empty for an impulse"},
            "variable": name,
            "value": number,
        },
        "statics": {"subject_id": subject},
        "outcomes": {
            "subject_id": subject,
            "prediction_time": {**time, "description": "hours, inclusive"},
        },
    }
    optional = {"outcomes": {"prediction_time"}, "inputs": {"end"}}
    free_columns = {
        "statics": {"type": ["number", "string", "null"]},
        "outcomes": {"type": ["number", "null"]},
    }
    schemas = {
        f"{table}.json": _object(
            f"a row of the {table}",
            columns,
            required=[column for column in columns if column not in optional.get(table, ())],
            rest=free_columns.get(table, False),
        )
        for table, columns in tables.items()
    }
    conversion = _object(
        "a declared change of unit",
        {"low": number, "high": number, "scale": number, "offset": number, "reason": name},
        required=["low", "high", "scale"],
        rest=False,
    )
    variable = _object(
        "a variable",
        {
            "name": name,
            "label": {"type": "string"},
            "unit": {"type": "string"},
            "kind": {"enum": list(KINDS)},
            "range": interval,
            "transform": {"enum": list(TRANSFORMS)},
            "loinc": {"type": ["string", "null"], "pattern": "^[0-9]+-[0-9]$"},
            "conversions": {"type": "array", "items": conversion},
            "aliases": {"type": "array", "items": name},
            "normal": interval,
            "normal_source": {"type": ["string", "null"]},
            "levels": {"type": "array", "items": {"type": ["number", "string"]}},
            "words": {
                "type": "array",
                "items": {
                    "type": "array",
                    "prefixItems": [{"type": "string"}, number],
                    "minItems": 2,
                    "maxItems": 2,
                },
            },
        },
        required=["name"],
        rest=False,
    )
    several = {"type": "array", "items": variable}
    schemas["cohort.json"] = _object(
        "the variables of a cohort",
        {
            "variables": several,
            "statics": several,
            "inputs": several,
            "outcomes": {"type": "array", "items": name},
        },
        required=["variables", "statics", "inputs", "outcomes"],
        rest=False,
    )
    return {
        file: {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
        for file, schema in sorted(schemas.items())
    }


def _object(
    title: str, properties: dict[str, Any], *, required: list[str], rest: bool | dict[str, Any]
) -> dict[str, Any]:
    return {
        "title": title,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": rest,
    }
