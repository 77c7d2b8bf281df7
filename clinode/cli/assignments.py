"""Names with values as they are typed: `I=40`, `g_L="2 mS/cm^2"`, `I=40@100:300`, `-20:120`."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clinode.errors import ArgumentError

if TYPE_CHECKING:
    from clinode.system import Quantity, Signal, System

_SPAN = re.compile(r"(?P<low>[^:]+):(?P<high>[^:]+)")


def split_assignment(text: str, option: str) -> tuple[str, str]:
    """The name and the value of `NAME=VALUE`.

    Raises:
        ArgumentError: There is no `=`, or nothing on one of its sides.
    """
    name, sign, value = text.partition("=")
    if not (sign and name.strip() and value.strip()):
        raise ArgumentError(f"{option} takes NAME=VALUE, got {text!r}")
    return name.strip(), value.strip()


def parse_span(text: str, unit: str, option: str) -> tuple[float, float]:
    """The ends of `LOW:HIGH`, each with or without its unit.

    Raises:
        ArgumentError: Another form, or ends that do not increase.
    """
    from clinode.units import quantity

    match = _SPAN.fullmatch(text)
    if match is None:
        raise ArgumentError(f"{option} takes LOW:HIGH, got {text!r}")
    low, high = quantity(match["low"], unit), quantity(match["high"], unit)
    if not low < high:
        raise ArgumentError(f"{option} must increase, got {text!r}")
    return low, high


def with_values(system: "System", assignments: Sequence[str]) -> "System":
    """The system with constants changed as `NAME=VALUE` says, in their own units.

    Raises:
        ArgumentError: An unknown constant or a value that is none of its unit.
    """
    from clinode.units import quantity

    for text in assignments:
        name, value = split_assignment(text, "--set")
        known = {constant.name: constant for constant in system.constants}
        unit = known[name].unit if name in known else "1"
        changed = quantity(value, unit) if name in known else 0.0
        system = system.with_constants(**{name: changed})  # says what is near an unknown name
    return system


def initial_state(system: "System", assignments: Sequence[str]) -> list[float]:
    """The states' defaults, changed as `NAME=VALUE` says; a block's name means all its members."""
    from clinode.units import quantity

    without = [name for q in system.states if q.default is None for name in q.names]
    start = {name: q.default or 0.0 for q in system.states for name in q.names}
    for text in assignments:
        name, value = split_assignment(text, "--start")
        found, names = _quantity_named(system.states, name, "state")
        for one in names:
            start[one] = quantity(value, found.unit)
        without = [one for one in without if one not in names]
    if without:
        raise ArgumentError(f"state '{without[0]}' has no default", fix=f"--start {without[0]}=...")
    return list(start.values())


def constant_inputs(system: "System", assignments: Sequence[str]) -> list[float]:
    """The inputs' defaults (0 without), changed as `NAME=VALUE` says."""
    from clinode.units import quantity

    values = {name: q.default or 0.0 for q in system.inputs for name in q.names}
    for text in assignments:
        name, value = split_assignment(text, "--input")
        found, names = _quantity_named(system.inputs, name, "input")
        for one in names:
            values[one] = quantity(value, found.unit)
    return list(values.values())


def input_signal(system: "System", assignments: Sequence[str]) -> "Signal":
    """Inputs over time: `NAME=VALUE` from the start on, `NAME=VALUE@FROM:TO` between two times.

    Later words win where two overlap.

    Raises:
        ArgumentError: An unknown input, or a value or time that is none of its unit.
    """
    import torch

    from clinode.system import Signal
    from clinode.units import quantity

    always = [text for text in assignments if "@" not in text]
    base = dict(zip(system.input_names, constant_inputs(system, always), strict=True))
    pulses = []
    for text in assignments:
        if "@" in text:
            name, value = split_assignment(text, "--input")
            value, _, when = value.partition("@")
            found, names = _quantity_named(system.inputs, name, "input")
            span = parse_span(when, system.time_unit, f"--input {name}=...@")
            pulses.append((names, quantity(value, found.unit), span))
    knots = sorted({edge for _, _, span in pulses for edge in span})
    rows = []
    for at in [float("-inf"), *knots]:
        row = dict(base)
        for names, value, (start, end) in pulses:
            if start <= at < end:
                row.update(dict.fromkeys(names, value))
        rows.append(list(row.values()))
    values = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), system.n_inputs)
    return Signal([float("-inf"), *knots], values)


def _quantity_named(
    quantities: Sequence["Quantity"], name: str, role: str
) -> tuple["Quantity", tuple[str, ...]]:
    """The quantity of this name or flat name, and the flat names meant."""
    import difflib

    for quantity in quantities:
        if name == quantity.name:
            return quantity, quantity.names
        if name in quantity.names:
            return quantity, (name,)
    known = [one for q in quantities for one in dict.fromkeys((q.name, *q.names))]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known[:8]) or 'none'}"
    raise ArgumentError(f"no {role} is called '{name}': {hint}")
