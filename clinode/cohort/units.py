"""Pairs of units that measured quantities are known to arrive in.

Used to suspect a unit, never to change one: a conversion is carried out only where the table of
variables or a policy declares it.
"""

from dataclasses import dataclass

from clinode.cohort.schema import Variable, plain_name


@dataclass(frozen=True)
class OtherUnit:
    """A value in another unit, times `scale` plus `offset`, is in the expected one."""

    unit: str
    scale: float
    offset: float = 0.0


FAHRENHEIT = OtherUnit("deg F", 5 / 9, -160 / 9)
POUNDS = OtherUnit("lb", 0.45359237)
INCHES = OtherUnit("in", 2.54)
KILOPASCAL = OtherUnit("kPa", 7.50062)
FRACTION = OtherUnit("fraction", 100.0)
PERCENT = OtherUnit("%", 0.01)
PER_LITRE = OtherUnit("per litre instead of decilitre", 0.1)

_BY_NAME = {
    "temp": (FAHRENHEIT,),
    "weight": (POUNDS,),
    "height": (INCHES,),
    "glucose": (OtherUnit("mmol/L", 18.016),),
    "creatinine": (OtherUnit("umol/L", 1 / 88.42),),
    "bilirubin": (OtherUnit("umol/L", 1 / 17.104),),
    "bun": (OtherUnit("mmol/L", 2.801),),
    "cholesterol": (OtherUnit("mmol/L", 38.67),),
    "lactate": (OtherUnit("mg/dL", 0.111),),
    "albumin": (PER_LITRE,),
    "hgb": (OtherUnit("mmol/L", 1 / 0.6206), PER_LITRE),
    "ca": (OtherUnit("mmol/L", 4.008),),
    "crp": (OtherUnit("mg/dL", 10.0),),
    "fio2": (FRACTION, PERCENT),
    "hct": (FRACTION,),
    "sao2": (FRACTION,),
    "o2sat": (FRACTION,),
}
_SAME = {
    **{"temperature": "temp", "crea": "creatinine", "glu": "glucose", "bili": "bilirubin"},
    **{"lact": "lactate", "alb": "albumin", "bodyweight": "weight", "bloodglucose": "glucose"},
    **{
        "hemoglobin": "hgb",
        "haemoglobin": "hgb",
        "hematocrit": "hct",
        "serumcreatinine": "creatinine",
    },
}
_UNKNOWN = (FAHRENHEIT, OtherUnit("mmol/L", 18.016), OtherUnit("umol/L", 1 / 88.42))


def other_units(variable: Variable) -> tuple[OtherUnit, ...]:
    """Units that a variable is known to arrive in besides its own."""
    name = plain_name(variable.name)
    known = _BY_NAME.get(_SAME.get(name, name))
    if known is not None:
        declared = {round(rule.scale, 6) for rule in variable.conversions}
        return tuple(unit for unit in known if round(unit.scale, 6) not in declared)
    if variable.unit == "mmHg":
        return (KILOPASCAL,)
    return _UNKNOWN if variable.unit == "1" and variable.kind == "continuous" else ()
