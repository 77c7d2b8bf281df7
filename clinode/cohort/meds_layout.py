"""How a cohort lies in a MEDS folder: codes, times and the columns beside those of the standard.

A subject of the cohort is a subject of MEDS. Its time zero is the stated `EPOCH`, since a cohort
keeps no dates; times are whole microseconds from there. Numbers stand in `numeric_value`, which is
a float32 by the standard, and where that changes a number, whole in `numeric_value_64`. A treatment
over a time is an event at its start and one at its end, joined by their `interval`.
"""

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np
import pyarrow as pa

from clinode.cohort.schema import CohortSchema, Variable
from clinode.errors import SchemaError

FORMAT = 1
EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001  # MEDS times carry no zone
MICROSECONDS = 3.6e9  # in an hour
MOST_HOURS = 1.7e7  # to either side: the years 61 to 3939, which a date can hold

ZERO, SUBJECT, GROUP = "TIME_ZERO", "SUBJECT", "GROUP"
OBSERVATION, STATIC, START, END, IMPULSE = (
    *("OBSERVATION", "STATIC", "INPUT_START", "INPUT_END", "INPUT"),
)
"""Roles of an event; the first part of its code."""

EVENTS = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us")),
        pa.field("code", pa.string(), nullable=False),
        pa.field("numeric_value", pa.float32()),
        pa.field("text_value", pa.large_string()),
        pa.field("numeric_value_64", pa.float64()),
        pa.field("interval", pa.int32()),
    ]
)
EXTENSIONS = ["interval", "numeric_value_64"]

DATA, CODES, SPLITS, DATASET = (
    *("data", "metadata/codes.parquet", "metadata/subject_splits.parquet"),
    "metadata/dataset.json",
)
LABELS = "labels"
OUTCOMES = "metadata/outcomes.parquet"
FACTS = "metadata/clinode.json"
"""What the standard has no place for: the schema of the cohort, the epoch, the ledgers."""


@dataclass(frozen=True)
class EventCode:
    """A code, and what it stands for in the cohort."""

    code: str
    role: str
    name: str = ""
    unit: str = ""
    description: str = ""
    loinc: str | None = None


def event_codes(schema: CohortSchema) -> list[EventCode]:
    """The codes of a cohort, sorted.

    Raises:
        SchemaError: Two variables would have one code.
    """
    codes = [
        EventCode(ZERO, ZERO, description="time zero of the subject"),
        EventCode(SUBJECT, SUBJECT, description="id of the subject where it is no whole number"),
        EventCode(GROUP, GROUP, description="what a split keeps together, such as the person"),
    ]
    for variable in schema.variables:
        codes.append(_code(OBSERVATION, variable, variable.label))
    for variable in schema.statics:
        codes.append(_code(STATIC, variable, variable.label))
    for variable in schema.inputs:
        codes += [
            _code(START, variable, f"{variable.label}: start, with the rate"),
            _code(END, variable, f"{variable.label}: end"),
            _code(IMPULSE, variable, f"{variable.label}: a dose at once"),
        ]
    codes.sort(key=lambda one: one.code)
    for one, other in pairwise(codes):
        if one.code == other.code:
            raise SchemaError(f"two variables would have the code {one.code!r}", where="schema")
    return codes


def microseconds(hours: np.ndarray) -> np.ndarray:
    """Hours since time zero as int64 microseconds since 1970, half to even.

    Raises:
        SchemaError: A time lies so far away that no date can say it.
    """
    if len(hours) and not (np.abs(hours) <= MOST_HOURS).all():
        count = int((~(np.abs(hours) <= MOST_HOURS)).sum())
        raise SchemaError(
            f"{count:,} times lie more than {MOST_HOURS:,.0f} h from time zero",
            fix="look at the unit of the times; a date cannot say them",
        )
    return np.rint(hours * MICROSECONDS).astype(np.int64) + epoch_microseconds()


def epoch_microseconds() -> int:
    """`EPOCH` in microseconds since 1970."""
    return int(np.datetime64(EPOCH, "us").astype(np.int64))


def _code(role: str, variable: Variable, description: str) -> EventCode:
    code = f"{role}//{variable.name}//{variable.unit}"
    return EventCode(code, role, variable.name, variable.unit, description, variable.loinc)
