"""The shipped table of variables: names, units, impossible values, transforms, codes.

Two vocabularies stand beside each other: the 37 variables of the PhysioNet/CinC Challenge 2012
under their own names (HR, SysABP, ...) and the 48 of YAIB under their ricu names (hr, sbp, ...). A
name is taken as it stands; aliases of the first vocabulary are read as its names, and there are some
only where no other unit is usual.

A range says what is impossible, not what is unusual. LOINC codes are given where one is certain.
Normal ranges are conventional adult intervals; laboratories differ in theirs, so they serve as the
reference of an attribution and never as a judgement of a value.
"""

# ruff: noqa: E501  # a table reads by its columns

from clinode.cohort.schema import Conversion, Variable, plain_name

CONVENTION = "conventional adult reference interval; laboratories differ"
DEFINITION = "by definition of the scale"

FAHRENHEIT = Conversion(
    low=77.0, high=113.0, scale=5 / 9, offset=-160 / 9, reason="Fahrenheit under Celsius"
)
PH_TENFOLD = Conversion(low=65.0, high=81.0, scale=0.1, reason="pH written ten times too large")
PH_HUNDREDFOLD = Conversion(
    low=650.0, high=810.0, scale=0.01, reason="pH written a hundred times too large"
)

PERCENT = Conversion(low=15.0, high=100.0, scale=0.01, reason="percent under a fraction")

_CONVERSIONS = {
    "FiO2": (PERCENT,),
    "Temp": (FAHRENHEIT,),
    "temp": (FAHRENHEIT,),
    "pH": (PH_TENFOLD, PH_HUNDREDFOLD),
    "ph": (PH_TENFOLD, PH_HUNDREDFOLD),
}

_FEMALE = ("female", "f", "woman", "w")  # the first word is the one shown
_MALE = ("male", "m", "man")
_SEX_WORDS = (*((word, 0.0) for word in _FEMALE), *((word, 1.0) for word in _MALE))

# name, label, unit, impossible outside, transform, LOINC, normal, aliases
_P12 = (
    ("Albumin", "Albumin", "g/dL", (0, 15), "identity", "1751-7", (3.5, 5.0), ()),
    ("ALP", "Alkaline phosphatase", "IU/L", (0, 1e5), "log", "6768-6", (30, 120), ("alkaline phosphatase",)),
    ("ALT", "Alanine transaminase", "IU/L", (0, 1e5), "log", "1742-6", (7, 40), ("alanine transaminase", "alanine aminotransferase")),
    ("AST", "Aspartate transaminase", "IU/L", (0, 1e5), "log", "1920-8", (10, 40), ("aspartate transaminase", "aspartate aminotransferase")),
    ("Bilirubin", "Bilirubin, total", "mg/dL", (0, 200), "log", "1975-2", (0.3, 1.2), ()),
    ("BUN", "Blood urea nitrogen", "mg/dL", (0, 500), "log", "3094-0", (7, 20), ()),
    ("Cholesterol", "Cholesterol, total", "mg/dL", (0, 3000), "log", "2093-3", (125, 200), ()),
    ("Creatinine", "Creatinine", "mg/dL", (0, 100), "log", "2160-0", (0.6, 1.3), ()),
    ("DiasABP", "Diastolic blood pressure, invasive", "mmHg", (5, 250), "identity", "76213-8", (60, 80), ("diastolic arterial blood pressure",)),
    ("FiO2", "Fraction of inspired oxygen", "1", (0.15, 1), "identity", None, (0.21, 0.21), ()),
    ("GCS", "Glasgow coma scale", "1", (3, 15), "identity", "9269-2", (15, 15), ("glasgow coma scale", "glasgow coma score", "gcs total")),
    ("Glucose", "Glucose", "mg/dL", (10, 2000), "log", "2345-7", (70, 110), ()),
    ("HCO3", "Bicarbonate", "mmol/L", (0, 100), "identity", "1963-8", (22, 28), ("bicarbonate",)),
    ("HCT", "Hematocrit", "%", (5, 80), "identity", "4544-3", (36, 50), ("hematocrit", "haematocrit")),
    ("HR", "Heart rate", "bpm", (10, 300), "identity", "8867-4", (60, 100), ("heart rate", "pulse")),
    ("K", "Potassium", "mEq/L", (1, 15), "identity", "2823-3", (3.5, 5.0), ("potassium",)),
    ("Lactate", "Lactate", "mmol/L", (0, 100), "log", "2524-7", (0.5, 2.0), ()),
    ("Mg", "Magnesium", "mmol/L", (0.2, 10), "identity", "2601-3", (0.7, 1.05), ()),
    ("MAP", "Mean arterial pressure, invasive", "mmHg", (10, 250), "identity", "76214-6", (70, 100), ("mean arterial pressure", "mean arterial blood pressure")),
    ("MechVent", "Mechanical ventilation", "1", (0, 1), "identity", None, (0, 0), ("mechanical ventilation",)),
    ("Na", "Sodium", "mEq/L", (90, 200), "identity", "2951-2", (135, 145), ("sodium",)),
    ("NIDiasABP", "Diastolic blood pressure, cuff", "mmHg", (5, 250), "identity", "76535-4", (60, 80), ("non-invasive diastolic blood pressure",)),
    ("NIMAP", "Mean arterial pressure, cuff", "mmHg", (10, 250), "identity", "76536-2", (70, 100), ("non-invasive mean arterial pressure",)),
    ("NISysABP", "Systolic blood pressure, cuff", "mmHg", (20, 320), "identity", "76534-7", (90, 130), ("non-invasive systolic blood pressure",)),
    ("PaCO2", "Arterial carbon dioxide pressure", "mmHg", (5, 250), "log", "2019-8", (35, 45), ()),
    ("PaO2", "Arterial oxygen pressure", "mmHg", (10, 800), "log", "2703-7", (80, 100), ()),
    ("pH", "Arterial pH", "1", (6.5, 8.1), "identity", "2744-1", (7.35, 7.45), ("arterial ph",)),
    ("Platelets", "Platelets", "cells/nL", (0, 10000), "log", "777-3", (150, 400), ("platelet count",)),
    ("RespRate", "Respiratory rate", "bpm", (1, 120), "identity", "9279-1", (12, 20), ("respiratory rate", "respiration rate")),
    ("SaO2", "Arterial oxygen saturation", "%", (20, 100), "identity", "2708-6", (95, 100), ()),
    ("SysABP", "Systolic blood pressure, invasive", "mmHg", (20, 320), "identity", "76215-3", (90, 130), ("systolic arterial blood pressure",)),
    ("Temp", "Temperature", "deg C", (25, 45), "identity", "8310-5", (36.1, 37.5), ("temperature", "body temperature")),
    ("TroponinI", "Troponin I", "ug/L", (0, 10000), "log", "10839-9", (0, 0.04), ()),
    ("TroponinT", "Troponin T", "ug/L", (0, 10000), "log", "6598-7", (0, 0.01), ()),
    ("Urine", "Urine output", "mL", (0, 1e5), "log", "9187-6", None, ("urine output",)),
    ("WBC", "White blood cells", "cells/nL", (0, 20000), "log", "6690-2", (4, 11), ("white blood cells", "white blood cell count", "leukocytes")),
    ("Weight", "Weight", "kg", (20, 400), "identity", "29463-7", None, ()),
)  # fmt: skip

_YAIB = (
    ("alb", "Albumin", "g/dL", (0, 15), "identity", "1751-7", (3.5, 5.0)),
    ("alp", "Alkaline phosphatase", "IU/L", (0, 1e5), "log", "6768-6", (30, 120)),
    ("alt", "Alanine transaminase", "IU/L", (0, 1e5), "log", "1742-6", (7, 40)),
    ("ast", "Aspartate transaminase", "IU/L", (0, 1e5), "log", "1920-8", (10, 40)),
    ("be", "Base excess", "mEq/L", (-60, 60), "identity", None, (-2, 2)),
    ("bicar", "Bicarbonate", "mEq/L", (0, 100), "identity", "1963-8", (22, 28)),
    ("bili", "Bilirubin, total", "mg/dL", (0, 200), "log", "1975-2", (0.3, 1.2)),
    ("bili_dir", "Bilirubin, direct", "mg/dL", (0, 200), "log", "1968-7", (0, 0.3)),
    ("bnd", "Band neutrophils", "%", (0, 100), "identity", None, (0, 10)),
    ("bun", "Blood urea nitrogen", "mg/dL", (0, 500), "log", "3094-0", (7, 20)),
    ("ca", "Calcium", "mg/dL", (1, 30), "identity", "17861-6", (8.5, 10.5)),
    ("cai", "Calcium, ionised", "mmol/L", (0.1, 5), "identity", None, (1.1, 1.35)),
    ("ck", "Creatine kinase", "IU/L", (0, 1e6), "log", "2157-6", (30, 200)),
    ("ckmb", "Creatine kinase MB", "ng/mL", (0, 1e5), "log", "13969-1", (0, 5)),
    ("cl", "Chloride", "mEq/L", (40, 200), "identity", "2075-0", (96, 106)),
    ("crea", "Creatinine", "mg/dL", (0, 100), "log", "2160-0", (0.6, 1.3)),
    ("crp", "C-reactive protein", "mg/L", (0, 2000), "log", "1988-5", (0, 5)),
    ("dbp", "Diastolic blood pressure", "mmHg", (0, 250), "identity", "8462-4", (60, 80)),
    ("fgn", "Fibrinogen", "mg/dL", (0, 5000), "log", "3255-7", (200, 400)),
    ("fio2", "Fraction of inspired oxygen", "%", (15, 100), "identity", None, (21, 21)),
    ("glu", "Glucose", "mg/dL", (0, 3000), "log", "2345-7", (70, 110)),
    ("hgb", "Hemoglobin", "g/dL", (0, 30), "identity", "718-7", (12, 17)),
    ("hr", "Heart rate", "bpm", (0, 350), "identity", "8867-4", (60, 100)),
    ("inr_pt", "International normalised ratio", "1", (0, 100), "log", "6301-6", (0.9, 1.2)),
    ("k", "Potassium", "mEq/L", (0, 20), "identity", "2823-3", (3.5, 5.0)),
    ("lact", "Lactate", "mmol/L", (0, 100), "log", "2524-7", (0.5, 2.0)),
    ("lymph", "Lymphocytes", "%", (0, 100), "identity", "736-9", (20, 45)),
    ("map", "Mean arterial pressure", "mmHg", (0, 300), "identity", "8478-0", (70, 100)),
    ("mch", "Mean corpuscular hemoglobin", "pg", (0, 100), "identity", "785-6", (27, 33)),
    ("mchc", "Mean corpuscular hemoglobin concentration", "g/dL", (0, 100), "identity", "786-4", (32, 36)),
    ("mcv", "Mean corpuscular volume", "fL", (0, 300), "identity", "787-2", (80, 100)),
    ("methb", "Methemoglobin", "%", (0, 100), "identity", "2614-6", (0, 1.5)),
    ("mg", "Magnesium", "mg/dL", (0, 30), "identity", "19123-9", (1.7, 2.4)),
    ("na", "Sodium", "mEq/L", (80, 220), "identity", "2951-2", (135, 145)),
    ("neut", "Neutrophils", "%", (0, 100), "identity", "770-8", (40, 75)),
    ("o2sat", "Oxygen saturation", "%", (0, 100), "identity", None, (95, 100)),
    ("pco2", "Carbon dioxide pressure", "mmHg", (0, 300), "log", None, (35, 45)),
    ("ph", "pH of blood", "1", (6.3, 8.4), "identity", None, (7.35, 7.45)),
    ("phos", "Phosphate", "mg/dL", (0, 50), "identity", "2777-1", (2.5, 4.5)),
    ("plt", "Platelets", "K/uL", (0, 10000), "log", "777-3", (150, 400)),
    ("po2", "Oxygen pressure", "mmHg", (0, 900), "log", None, (80, 100)),
    ("ptt", "Partial thromboplastin time", "sec", (0, 1000), "log", None, (25, 37)),
    ("resp", "Respiratory rate", "insp/min", (0, 150), "identity", "9279-1", (12, 20)),
    ("sbp", "Systolic blood pressure", "mmHg", (0, 350), "identity", "8480-6", (90, 130)),
    ("temp", "Temperature", "deg C", (25, 45), "identity", "8310-5", (36.1, 37.5)),
    ("tnt", "Troponin T", "ng/mL", (0, 10000), "log", "6598-7", (0, 0.01)),
    ("urine", "Urine output", "mL", (0, 1e5), "log", "9187-6", None),
    ("wbc", "White blood cells", "K/uL", (0, 20000), "log", "6690-2", (4, 11)),
)  # fmt: skip

STATICS = {
    variable.name: variable
    for variable in (
        Variable(name="age", label="Age", unit="years", range=(0.0, 130.0), loinc="30525-0", words=(("> 89", 90.0), (">89", 90.0))),
        Variable(name="gender", label="Gender (1 male)", kind="binary", range=(0.0, 1.0), levels=(0.0, 1.0), words=_SEX_WORDS),
        Variable(name="sex", label="Sex", kind="categorical", levels=("Female", "Male")),
        Variable(name="height", label="Height", unit="cm", range=(120.0, 220.0), loinc="8302-2"),
        Variable(name="weight", label="Weight on admission", unit="kg", range=(25.0, 300.0), loinc="29463-7"),
        Variable(name="icu_type", label="Type of the ICU", kind="categorical", range=(1.0, 4.0), levels=(1.0, 2.0, 3.0, 4.0)),
    )
}  # fmt: skip
"""Statics by name. Limits of height and weight are those of adults. icu_type: 1 coronary, 2 cardiac
surgery, 3 medical, 4 surgical."""

OUTCOMES = {
    variable.name: variable
    for variable in (
        Variable(name="saps_i", label="SAPS-I", range=(0.0, 200.0), aliases=("SAPS-I",)),
        Variable(name="sofa", label="SOFA", range=(0.0, 24.0)),
        Variable(name="length_of_stay", label="Length of stay", unit="days", range=(0.0, 1e4)),
        Variable(name="survival", label="Days from admission to death", unit="days", range=(0.0, 1e6)),
        Variable(name="died_within_90_days", kind="binary", range=(0.0, 1.0), levels=(0.0, 1.0)),
        Variable(name="in_hospital_death", label="Death in hospital", kind="binary", range=(0.0, 1.0), levels=(0.0, 1.0)),
    )
}  # fmt: skip
"""Outcomes whose impossible values are known; -1 stands for "missing" in the first four."""

DESCRIPTORS = {"age": "age", "gender": "gender", "sex": "sex", "height": "height", "icutype": "icu_type"}  # fmt: skip
"""Names that describe a subject, as `plain_name` writes them; arriving as variables they are moved."""

IDENTIFIERS = frozenset(
    {
        *("recordid", "subjectid", "patientid", "personid", "stayid", "icustayid", "hadmid"),
        *("encounterid", "visitid", "visitoccurrenceid", "admissionid", "mrn", "caseid"),
        *("patientunitstayid", "patienthealthsystemstayid", "uniquepid"),
        "unnamed:0",  # an index that pandas wrote
    }
)
"""Names of identifiers, as `plain_name` writes them: never a variable, never a static."""


def _table() -> dict[str, Variable]:
    rows = [*_P12, *((*row, ()) for row in _YAIB)]
    return {
        name: Variable(
            name=name,
            label=label,
            unit=unit,
            kind="binary" if name == "MechVent" else "continuous",
            range=(float(limits[0]), float(limits[1])),
            transform=transform,
            loinc=loinc,
            conversions=_CONVERSIONS.get(name, ()),
            aliases=aliases,
            normal=None if normal is None else (float(normal[0]), float(normal[1])),
            normal_source=None if normal is None else DEFINITION if name == "GCS" else CONVENTION,
        )
        for name, label, unit, limits, transform, loinc, normal, aliases in rows
    }


VARIABLES = _table()
"""Variables by name."""

P12_VARIABLES = tuple(row[0] for row in _P12)
YAIB_VARIABLES = tuple(row[0] for row in _YAIB)

_BY_ALIAS = {
    plain_name(alias): variable for variable in VARIABLES.values() for alias in variable.aliases
}


def find_variable(name: str) -> Variable:
    """The variable that a source means by a name; without limits where the table has none.

    Example:
        >>> find_variable("heart rate").name, find_variable("HR").unit, find_variable("my score").unit
        ('HR', 'bpm', '1')
    """
    if name in VARIABLES:
        return VARIABLES[name]
    return _BY_ALIAS.get(plain_name(name)) or Variable(name=name)


def find_static(name: str) -> Variable:
    """The static that a column means by its name."""
    known = STATICS.get(name) or STATICS.get(DESCRIPTORS.get(plain_name(name), plain_name(name)))
    return known or Variable(name=name)


def is_identifier(name: str) -> bool:
    """Whether a column or variable of this name identifies a subject."""
    return plain_name(name) in IDENTIFIERS
