"""Units of the rates and amounts in which drugs are given, as records spell them.

`factor("mcg/kg/min", "ug/kg/h")` is 60: what a number in the first is multiplied by to stand in the
second. A unit that is none of these is not guessed at.
"""

_AMOUNTS = {  # spelling, compared in lower case: dimension and how many of its own unit it is
    **{"ug": ("mass", 1e-3), "mcg": ("mass", 1e-3), "mg": ("mass", 1.0), "ng": ("mass", 1e-6)},
    **{"g": ("mass", 1e3), "gm": ("mass", 1e3), "grams": ("mass", 1e3), "gram": ("mass", 1e3)},
    **{"u": ("units", 1.0), "unit": ("units", 1.0), "units": ("units", 1.0)},
    **{"ml": ("volume", 1.0), "l": ("volume", 1e3), "meq": ("charge", 1.0)},
}
_HOURS = {"min": 60.0, "minute": 60.0, "h": 1.0, "hr": 1.0, "hour": 1.0, "day": 1 / 24}

AMOUNT_UNITS = {"mass": "mg", "units": "U", "volume": "mL", "charge": "mEq"}
"""The unit in which amounts of each dimension are kept."""


def dimension(unit: str) -> tuple[str, bool, bool, float] | None:
    """Dimension of the amount, whether per kg, whether per time, and the factor to its own unit.

    Example:
        >>> dimension("mcg/kg/min"), dimension("dose")
        (('mass', True, True, 0.06), None)
    """
    first, *rest = unit.strip().lower().split("/")
    if first not in _AMOUNTS:
        return None
    name, factor = _AMOUNTS[first]
    per_kg = rest[:1] == ["kg"]
    rest = rest[1:] if per_kg else rest
    if len(rest) > 1 or (rest and rest[0] not in _HOURS):
        return None
    return name, per_kg, bool(rest), factor * (_HOURS[rest[0]] if rest else 1.0)


def factor(found: str, wanted: str) -> float | None:
    """What turns a number in one unit into one in another; None where nothing does."""
    one, other = dimension(found), dimension(wanted)
    if one is None or other is None or one[:3] != other[:3]:
        return None
    return one[3] / other[3]


def spellings() -> tuple[str, ...]:
    """Every unit that is understood, in lower case."""
    times = ["", *(f"/{time}" for time in _HOURS)]
    return tuple(
        f"{amount}{weight}{time}" for amount in _AMOUNTS for weight in ("", "/kg") for time in times
    )
