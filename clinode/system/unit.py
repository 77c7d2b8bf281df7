"""Units of measurement as exponents over base dimensions and a factor, parsed by pint.

Two units are the same when dimension and factor agree: nS*mV is pA, mS*mV is not. An angle has no
dimension; a temperature is a difference of temperatures, so degC is K.
"""

import functools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from clinode.errors import ArgumentError

FACTOR_TOLERANCE = 1e-9  # of log factors: what products of rounded factors may differ by
LONGEST = 100  # tokens of a unit's text; nested parentheses recurse
SYNTAX = "write units as products of powers, '1' where there is none: uA/cm^2, 1/min, mV"
Powers = tuple[tuple[str, Fraction], ...]


class UnitError(ArgumentError):
    """Units that do not agree, or are not known."""

    code = "CLN-A03"


@dataclass(frozen=True)
class Unit:
    """A product of powers of named units.

    Attributes:
        symbols: As it is written: (("mV", 1), ("ms", -1)).
        dimension: Over base dimensions, sorted.
        log_factor: Natural logarithm of its size in base units.
    """

    symbols: Powers
    dimension: Powers
    log_factor: float

    def __mul__(self, other: "Unit") -> "Unit":
        return Unit(
            _merged([*self.symbols, *other.symbols]),
            tuple(sorted(_merged([*self.dimension, *other.dimension]))),
            self.log_factor + other.log_factor,
        )

    def __truediv__(self, other: "Unit") -> "Unit":
        return self * other**-1

    def __pow__(self, exponent: Fraction | float | int) -> "Unit":
        power = Fraction(exponent).limit_denominator(10**6)
        return Unit(
            _merged((name, p * power) for name, p in self.symbols),
            _merged((name, p * power) for name, p in self.dimension),
            self.log_factor * float(power),
        )

    def __str__(self) -> str:
        above = [_power_text(name, p) for name, p in self.symbols if p > 0]
        below = [_power_text(name, -p) for name, p in self.symbols if p < 0]
        return "/".join(["*".join(above) or "1", *below])

    def has_dimension_of(self, other: "Unit") -> bool:
        """Whether only a factor lies between them."""
        return self.dimension == other.dimension

    def factor_to(self, other: "Unit") -> float:
        """How many of the other unit one of this is; of the same dimension."""
        return math.exp(self.log_factor - other.log_factor)

    def agrees_with(self, other: "Unit") -> bool:
        """Whether a number in one is the same number in the other."""
        near = abs(self.log_factor - other.log_factor) <= FACTOR_TOLERANCE
        return near and self.has_dimension_of(other)

    def difference(self, other: "Unit") -> str:
        """What is wrong between two units that do not agree, in words."""
        if self.has_dimension_of(other):
            return f"{self} is {self.factor_to(other):.6g} {other}"
        return f"{self} has not the dimension of {other}"


ONE = Unit((), (), 0.0)


@functools.lru_cache(maxsize=4096)
def parse_unit(text: str) -> Unit:
    """A unit from text: "uA/cm^2", "1/(mV*ms)", "mV/ms**0.5", "1".

    Raises:
        UnitError: A name that pint does not know, or a text that is no product of powers.
    """
    tokens = _TOKEN.findall(text.replace(" ", ""))
    if "".join(tokens) != text.replace(" ", "") or len(tokens) > LONGEST:
        raise _no_unit(text)
    tokens.reverse()
    unit = _product(tokens, text)
    if tokens:
        raise _no_unit(text)
    return unit


def check_units_agree(what: str, unit: str, other_what: str, other_unit: str) -> None:
    """Raise UnitError where two quantities that should be one have units that do not agree."""
    if unit == other_unit:
        return
    one, other = parse_unit(unit), parse_unit(other_unit)
    if not one.agrees_with(other):
        raise UnitError(f"{what} and {other_what} do not agree: {one.difference(other)}")


@functools.cache
def _registry():
    import pint

    return pint.UnitRegistry(cache_folder=None)


@functools.cache
def _named(name: str) -> Unit:
    """One unit by its name."""
    import pint  # half a second, and only checks and conversions need it

    registry = _registry()
    try:
        (full_name,) = dict(registry.parse_units(name)._units)
    except pint.errors.UndefinedUnitError as error:
        raise UnitError(f"pint knows no unit '{name}'", fix=SYNTAX) from error
    factor: Any
    factor, base = registry.get_root_units(full_name, check_nonmult=False)
    powers: dict[str, Any] = dict(base._units)
    symbol = registry.get_symbol(full_name).replace("µ", "u").replace("°", "deg")
    dimension = [(b, Fraction(p)) for b, p in powers.items() if b != "radian"]
    return Unit(((symbol, Fraction(1)),), tuple(sorted(dimension)), math.log(factor))


def _product(tokens: list[str], text: str) -> Unit:
    """Factors between * and /, taken from the end of the reversed tokens."""
    unit = _power(tokens, text)
    while tokens and tokens[-1] in "*/":
        divides = tokens.pop() == "/"
        factor = _power(tokens, text)
        unit = unit / factor if divides else unit * factor
    return unit


def _power(tokens: list[str], text: str) -> Unit:
    """A name, 1 or a product in parentheses, to a power where one follows."""
    token = tokens.pop() if tokens else ""
    if token == "(":
        unit = _product(tokens, text)
        _expect(")", tokens, text)
    elif token == "1":
        unit = ONE
    elif token[:1].isalpha() or token in ("%", "°C"):
        unit = _named(token)
    else:
        raise _no_unit(text)
    if tokens and tokens[-1] in ("^", "**"):
        tokens.pop()
        unit = unit ** _exponent(tokens, text)
    return unit


def _exponent(tokens: list[str], text: str) -> Fraction:
    if tokens and tokens[-1] == "(":
        tokens.pop()
        above = _exponent(tokens, text)
        below = Fraction(1)
        if tokens and tokens[-1] == "/":
            tokens.pop()
            below = _exponent(tokens, text)
        _expect(")", tokens, text)
        if not below:
            raise _no_unit(text)
        return above / below
    sign = -1 if tokens and tokens[-1] == "-" else 1
    if sign < 0:
        tokens.pop()
    if not tokens or not tokens[-1][0].isdigit():
        raise _no_unit(text)
    return sign * Fraction(tokens.pop())


def _expect(token: str, tokens: list[str], text: str) -> None:
    if not tokens or tokens.pop() != token:
        raise _no_unit(text)


def _no_unit(text: str) -> UnitError:
    return UnitError(f"'{text}' is no unit", fix=SYNTAX)


_TOKEN = re.compile(r"\*\*|[*/^()-]|\d+(?:\.\d+)?|[^\W\d]\w*|%|°C")


def _merged(powers: Iterable[tuple[str, Fraction]]) -> Powers:
    total: dict[str, Fraction] = {}
    for name, power in powers:
        total[name] = total.get(name, Fraction(0)) + power
    return tuple((name, power) for name, power in total.items() if power)


def _power_text(name: str, power: Fraction) -> str:
    if power == 1:
        return name
    return f"{name}^{power}" if power.denominator == 1 else f"{name}^({power})"
