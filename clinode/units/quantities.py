"""Quantities from text: "20 ms" as a number of seconds."""

import math
import re

from clinode.system import UnitError, parse_unit

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*")


def quantity(text: str, unit: str) -> float:
    """A number with its unit, as a number of another unit.

    Args:
        text: "20 ms", "0.3uA/cm^2", "70/min", or a bare number, which is in `unit` already.
        unit: The unit wanted, "1" where there is none.

    Returns:
        The value in `unit`. Temperatures in degC, degF and K are converted as such, with their
        zero points.

    Raises:
        UnitError: No number, a unit that is not known, or one of another dimension.

    Example:
        >>> quantity("20 ms", "s")
        0.02
    """
    match = _NUMBER.fullmatch(text)
    if match is None or not math.isfinite(float(match[1])):
        raise UnitError(f"'{text}' is not a number with a unit", fix=f"write it as '20 {unit}'")
    value, given = float(match[1]), match[2]
    given = f"1{given}" if given.startswith("/") else given
    if not given or given == unit:
        return value
    one, wanted = parse_unit(given), parse_unit(unit)
    if not one.has_dimension_of(wanted):
        raise UnitError(
            f"'{text}' is in {one}, which has not the dimension of {wanted}",
            fix=f"give it in a unit that is a multiple of {wanted}",
        )
    if given in ZERO_POINTS and unit in ZERO_POINTS:
        (slope, zero), (to_slope, to_zero) = ZERO_POINTS[given], ZERO_POINTS[unit]
        return (value * slope + zero - to_zero) / to_slope
    factor = one.factor_to(wanted)
    power = round(math.log10(factor))
    if math.isclose(factor, 10.0**power, rel_tol=1e-12):  # a prefix, free of rounding
        return value * 10.0**power if power >= 0 else value / 10.0**-power
    return value * factor


ZERO_POINTS = {  # kelvin a degree, kelvin at zero degrees
    "K": (1.0, 0.0),
    "degC": (1.0, 273.15),
    "°C": (1.0, 273.15),
    "degF": (5 / 9, 273.15 - 160 / 9),
}
