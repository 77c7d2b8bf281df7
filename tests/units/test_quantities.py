import math

import pint
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinode.system import parse_unit
from clinode.units import UnitError, quantity

REGISTRY = pint.UnitRegistry(cache_folder=None)
PAIRS = [
    ("ms", "s"),
    ("uA/cm^2", "A/m**2"),
    ("mmHg", "Pa"),
    ("1/min", "Hz"),
    ("mg/dL", "g/L"),
    ("nS", "uS"),
    ("deg", "rad"),
    ("mV/ms**0.5", "V/s**0.5"),
    ("ug/kg/min", "1/h"),
    ("1/(mV*ms)", "1/(V*s)"),
]


@pytest.mark.parametrize(("given_unit", "unit"), PAIRS)
def test_a_quantity_from_text_is_pints_conversion(given_unit, unit):
    expected = REGISTRY.Quantity(3.25, given_unit).to(unit).magnitude
    assert quantity(f"3.25 {given_unit}", unit) == pytest.approx(expected, rel=1e-13)
    assert quantity(f"3.25{given_unit.removeprefix('1')}", unit) == pytest.approx(expected)


@given(st.floats(-1e6, 1e6))
def test_powers_of_ten_are_exact(value):
    assert quantity(f"{value!r} ms", "s") == value / 1000
    assert quantity(f"{value!r} s", "ms") == value * 1000
    assert quantity(f"{value!r}", "mV") == value


def test_temperatures_keep_their_zero_points():
    assert quantity("37 degC", "K") == pytest.approx(310.15)
    assert quantity("98.6 degF", "degC") == pytest.approx(37.0)
    assert quantity("310.15 K", "degC") == pytest.approx(37.0)


@pytest.mark.parametrize(
    ("text", "unit", "words"),
    [
        ("20 ms", "mV", "'20 ms' is in ms, which has not the dimension of mV"),
        ("twenty ms", "s", "not a number with a unit"),
        ("20 msec^", "s", "no unit|knows no unit"),
        ("20 mVV", "mV", "pint knows no unit 'mVV'"),
        ("nan mV", "mV", "not a number with a unit"),
        ("", "mV", "not a number with a unit"),
        ("1e400 mV", "V", "not a number with a unit"),
    ],
)
def test_text_that_is_no_quantity_of_this_unit_is_refused(text, unit, words):
    with pytest.raises(UnitError, match=words):
        quantity(text, unit)


@pytest.mark.parametrize(
    "text", ["mV+", "(", "[V]", "mV;", "", "__", "mV**mV", "5", "10 mV", "m^(1/0)", "(" * 5000]
)
def test_text_that_is_no_unit_is_refused(text):
    with pytest.raises(UnitError):
        parse_unit(text)


@pytest.mark.parametrize(
    "text", ["1", "mS/cm^2", "1/(mV*ms)", "L/mU/min**2", "m^(-1/2)", "°C", "%"]
)
def test_a_unit_written_out_is_the_same_unit_again(text):
    unit = parse_unit(text)
    assert parse_unit(str(unit)).agrees_with(unit)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_products_and_powers_of_units_are_pints(one, other):
    made = (parse_unit(one) / parse_unit(other)) ** 0.5 * parse_unit("kg")
    reference = (REGISTRY.Unit(one) / REGISTRY.Unit(other)) ** 0.5 * REGISTRY.Unit("kg")
    base = (1 * reference).to_root_units()
    dimension = {name: float(power) for name, power in made.dimension}
    expected = {n: float(p) for n, p in dict(base.units._units).items() if n != "radian"}
    assert dimension == pytest.approx(expected)
    assert made.log_factor == pytest.approx(math.log(base.magnitude), abs=1e-12)
