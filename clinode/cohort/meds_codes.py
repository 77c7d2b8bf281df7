"""What a MEDS code means: an observation, an input, something counted, or something known too late.

A mapping from codes to variables decides about numbers; the shipped one is that of MIMIC-IV. What
no mapping names is told by the leading part of the code.
"""

from collections.abc import Mapping
from typing import Any

import duckdb
import pyarrow as pa

from clinode.cohort.mimic4_codes import Code
from clinode.cohort.sources import literal, open_source, reading
from clinode.errors import SchemaError

SEPARATOR = "//"
BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
DISCHARGE, DIED = "HOSPITAL_DISCHARGE", "DIED"

AFTERWARDS = (
    *("HOSPITAL_DISCHARGE", "ICU_DISCHARGE", "TRANSFER_TO", "DIAGNOSIS", "DRG", "HCPCS"),
    *("HOSPITAL_ADMISSION", "ICU_ADMISSION", "ED_REGISTRATION", "ED_OUT", BIRTH, DEATH),
)
"""Leading parts of codes that bound a stay or are written after it."""

GIVEN = ("Administered", "Flushed", "Applied", "Started", "Restarted", "Confirmed")
"""What a record of medication administration says when something was given."""

OBSERVATION, START, END, IMPULSE, COUNTED, AFTER, NOT_GIVEN, LEFT_OUT = range(8)
"""Roles of a code."""


def read_mapping(connection: duckdb.DuckDBPyConnection, table: Any) -> dict[str, Code]:
    """A mapping table: code, variable, and perhaps role, scale and offset.

    Raises:
        SchemaError: A column is missing, a code is repeated, or a role is unknown.
    """
    source = open_source(connection, table, "mapping", view="meds_mapping")
    for name in ("code", "variable"):
        if name not in source.columns:
            raise SchemaError(f"there is no column {name!r}", where=source.name)
    frame = connection.execute(f"SELECT * FROM {source.relation}").df()
    codes: dict[str, Code] = {}
    for number, row in enumerate(frame.to_dict("records"), start=1):
        role = str(row.get("role") or "observation")
        code = str(row["code"]).replace("INFUSION_START//", "INFUSION//")
        if role not in ("observation", "input", "leave out"):
            raise SchemaError(
                f"row {number:,}, column 'role': expected observation, input or leave out",
                where=source.name,
            )
        if code in codes:
            raise SchemaError(f"row {number:,} repeats a code", where=source.name)
        try:
            scale, offset = float(row.get("scale") or 1.0), float(row.get("offset") or 0.0)
        except ValueError:
            raise SchemaError(
                f"row {number:,}: scale and offset are numbers", where=source.name
            ) from None
        codes[code] = Code(role, str(row["variable"]), scale, offset)
    return codes


def classify_codes(connection: duckdb.DuckDBPyConnection, codes: Mapping[str, Code]) -> None:
    """Say of each code that occurs what its rows become."""
    with reading():
        names = [
            row[0]
            for row in connection.execute(
                "SELECT DISTINCT code FROM meds_events ORDER BY code"
            ).fetchall()
        ]
    rows = [(name, *_meaning(name, codes)) for name in names]
    kinds = (pa.string(), pa.uint8(), pa.string(), pa.string(), pa.float64(), pa.float64())
    labels = ("code", "role", "variable", "pair", "scale", "offset")
    table = pa.table(
        {
            label: pa.array([row[position] for row in rows], kind)
            for position, (label, kind) in enumerate(zip(labels, kinds, strict=True))
        }
    )
    connection.register("meds_codes_data", table)
    connection.execute("CREATE TABLE meds_codes AS SELECT * FROM meds_codes_data")
    connection.unregister("meds_codes_data")


def _meaning(
    code: str, codes: Mapping[str, Code]
) -> tuple[int, str | None, str | None, float, float]:
    """Role, variable, what pairs a start with its end, scale and offset."""
    parts = code.split(SEPARATOR)
    if code in codes:
        found = codes[code]
        role = {"observation": OBSERVATION, "input": IMPULSE}.get(found.role, LEFT_OUT)
        return role, found.variable, None, found.scale, found.offset
    if parts[0] in ("INFUSION_START", "INFUSION_END"):
        found = codes.get(SEPARATOR.join(["INFUSION", *parts[1:]]))
        if found is None or found.role != "input":
            return LEFT_OUT, None, None, 1.0, 0.0
        role = START if parts[0] == "INFUSION_START" else END
        return role, found.variable, found.variable, found.scale, found.offset
    if parts[0] == "MEDICATION":
        if len(parts) > 1 and parts[1] in ("START", "STOP"):
            role = START if parts[1] == "START" else END
            return role, "medication order", SEPARATOR.join(parts[2:]), 1.0, 0.0
        given = any(parts[-1].startswith(word) for word in GIVEN)
        return (IMPULSE if given else NOT_GIVEN), "medication given", None, 1.0, 0.0
    if parts[0] in AFTERWARDS:
        return AFTER, None, None, 1.0, 0.0
    return COUNTED, parts[0], None, 1.0, 0.0


def matches_sql(pattern: str, code: str = "code") -> str:
    """Whether a column of codes is the pattern, or begins with it up to a separator."""
    return f"({code} = {literal(pattern)} OR starts_with({code}, {literal(pattern + SEPARATOR)}))"
