"""The shipped mapping from MEDS codes of MIMIC-IV to variables.

Codes are those that the MIMIC-IV extraction to MEDS writes: LAB//itemid//unit for charted and
laboratory items alike, SUBJECT_FLUID_OUTPUT//itemid//unit, INFUSION_START//itemid with the rate and
INFUSION_END//itemid with the amount. Variables carry their names of the 2012 challenge where it has
them, else their ricu names. A code whose unit is not listed is not mapped: nothing is guessed.
"""

from dataclasses import dataclass

from clinode.cohort.schema import Variable


@dataclass(frozen=True)
class Code:
    """What a code means.

    Args:
        role: "observation", "input" (start and end of an interval, or an impulse) or "leave out".
        variable: Name of the variable.
        scale: The number times this, plus `offset`, is in the variable's unit.
        offset: In the variable's unit.
    """

    role: str
    variable: str
    scale: float = 1.0
    offset: float = 0.0


# itemids, unit of the code, variable
_LABORATORY = (
    ((220045,), "bpm", "HR"),
    ((220050,), "mmHg", "SysABP"),
    ((220051,), "mmHg", "DiasABP"),
    ((220052,), "mmHg", "MAP"),
    ((220179,), "mmHg", "NISysABP"),
    ((220180,), "mmHg", "NIDiasABP"),
    ((220181,), "mmHg", "NIMAP"),
    ((220210,), "insp/min", "RespRate"),
    ((220277,), "%", "o2sat"),
    ((223762,), "°C", "Temp"),
    ((220739,), "UNK", "gcs_eye"),
    ((223900,), "UNK", "gcs_verbal"),
    ((223901,), "UNK", "gcs_motor"),
    ((223835,), "UNK", "fio2"),
    ((220074,), "mmHg", "cvp"),
    ((220339,), "cmH2O", "peep"),
    ((224685,), "mL", "tidal_volume"),
    ((226512, 224639), "kg", "Weight"),
    ((50862, 227456), "g/dL", "Albumin"),
    ((50863,), "IU/L", "ALP"),
    ((50861,), "IU/L", "ALT"),
    ((50878,), "IU/L", "AST"),
    ((50885, 225690), "mg/dL", "Bilirubin"),
    ((51006, 225624), "mg/dL", "BUN"),
    ((50907,), "mg/dL", "Cholesterol"),
    ((50912, 220615), "mg/dL", "Creatinine"),
    ((50931, 220621), "mg/dL", "Glucose"),
    ((225664,), "UNK", "Glucose"),
    ((50882, 227443), "mEq/L", "HCO3"),
    ((51221, 220545), "%", "HCT"),
    ((51222, 220228), "g/dL", "hgb"),
    ((220228,), "g/dl", "hgb"),
    ((50971, 227442), "mEq/L", "K"),
    ((50813, 225668), "mmol/L", "Lactate"),
    ((50960, 220635), "mg/dL", "mg"),
    ((50983, 220645), "mEq/L", "Na"),
    ((50902, 220602), "mEq/L", "cl"),
    ((50893, 225625), "mg/dL", "ca"),
    ((50970, 225677), "mg/dL", "phos"),
    ((50808, 225667), "mmol/L", "cai"),
    ((50802,), "mEq/L", "be"),
    ((220235,), "mmHg", "PaCO2"),
    ((220224,), "mmHg", "PaO2"),
    ((223830,), "units", "pH"),
    ((50818,), "mm Hg", "pco2"),
    ((50821,), "mm Hg", "po2"),
    ((50820,), "units", "ph"),
    ((51265, 227457), "K/uL", "Platelets"),
    ((51301, 220546), "K/uL", "WBC"),
    ((51003,), "ng/mL", "TroponinT"),
    ((51237, 227467), "UNK", "inr_pt"),
    ((51275, 227466), "sec", "ptt"),
    ((51214,), "mg/dL", "fgn"),
    ((51250,), "fL", "mcv"),
    ((51248,), "pg", "mch"),
    ((50910,), "IU/L", "ck"),
    ((50911,), "ng/mL", "ckmb"),
    ((50889,), "mg/L", "crp"),
)

_URINE = (226557, 226558, 226559, 226560, 226561, 226563, 226564, 226565, 226567)

# itemid, name, unit of the rate where it is one alone
_INFUSIONS = (
    (221906, "norepinephrine", "ug/kg/min"),
    (221289, "epinephrine", "ug/kg/min"),
    (221749, "phenylephrine", "ug/kg/min"),
    (222315, "vasopressin", "1"),
    (221662, "dopamine", "ug/kg/min"),
    (221653, "dobutamine", "ug/kg/min"),
    (221986, "milrinone", "ug/kg/min"),
    (222168, "propofol", "ug/kg/min"),
    (225150, "dexmedetomidine", "ug/kg/h"),
    (221668, "midazolam", "mg/h"),
    (221744, "fentanyl", "1"),
    (225942, "fentanyl concentrate", "1"),
    (223258, "insulin regular", "U/h"),
    (225152, "heparin", "U/h"),
    (221794, "furosemide", "mg/h"),
    (221347, "amiodarone", "1"),
    (222056, "nitroglycerin", "1"),
    (225158, "sodium chloride 0.9%", "mL/h"),
    (220949, "dextrose 5%", "mL/h"),
    (225828, "lactated Ringer's", "mL/h"),
    (220864, "albumin 5%", "mL/h"),
    (220862, "albumin 25%", "mL/h"),
    (225168, "packed red cells", "mL/h"),
    (225166, "potassium chloride", "1"),
    (222011, "magnesium sulfate", "1"),
)

AMOUNT = " (amount)"
"""Ends the name of an infusion without a rate, which is an impulse of its amount."""

CODES = {
    **{
        f"LAB//{item}//{unit}": Code("observation", variable)
        for items, unit, variable in _LABORATORY
        for item in items
    },
    "LAB//223761//°F": Code("observation", "Temp", 5 / 9, -160 / 9),
    "SUBJECT_WEIGHT_AT_INFUSION//KG": Code("observation", "Weight"),
    **{f"SUBJECT_FLUID_OUTPUT//{item}//ml": Code("observation", "Urine") for item in _URINE},
    **{f"INFUSION//{item}": Code("input", name) for item, name, _ in _INFUSIONS},
}
"""By code; an infusion stands there once for its start and its end."""

EXTRA_VARIABLES = tuple(
    Variable(name=name, label=label, unit=unit, range=limits)
    for name, label, unit, limits in (
        ("gcs_eye", "Glasgow coma scale, eyes", "1", (1.0, 4.0)),
        ("gcs_verbal", "Glasgow coma scale, speech", "1", (1.0, 5.0)),
        ("gcs_motor", "Glasgow coma scale, movement", "1", (1.0, 6.0)),
        ("cvp", "Central venous pressure", "mmHg", (-30.0, 100.0)),
        ("peep", "Positive end-expiratory pressure", "cmH2O", (0.0, 60.0)),
        ("tidal_volume", "Tidal volume", "mL", (0.0, 5000.0)),
    )
)
"""Variables of the mapping that the table of variables has not."""

INFUSIONS = tuple(Variable(name=name, unit=unit) for _, name, unit in _INFUSIONS)
"""The inputs of the mapping."""
