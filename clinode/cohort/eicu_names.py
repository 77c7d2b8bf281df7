"""What the columns, laboratory names and drugs of eICU-CRD mean.

Variables have the names that those of MIMIC-IV have (`clinode.cohort.mimic4_codes`), so that one
model reads both. A laboratory name counts only in a unit that is listed, compared without case;
nothing is guessed. C-reactive protein is converted from mg/dL to mg/L. Ionised calcium in mg/dL is
left out: many of its values are in mmol/L whatever the unit beside them says.
"""

from clinode.cohort.schema import Variable

LABORATORY = (  # labname in lower case, its units, variable, factor
    ("albumin", ("g/dl",), "Albumin", 1.0),
    ("alkaline phos.", ("units/l",), "ALP", 1.0),
    ("alt (sgpt)", ("units/l",), "ALT", 1.0),
    ("ast (sgot)", ("units/l",), "AST", 1.0),
    ("total bilirubin", ("mg/dl",), "Bilirubin", 1.0),
    ("direct bilirubin", ("mg/dl",), "bili_dir", 1.0),
    ("bun", ("mg/dl",), "BUN", 1.0),
    ("total cholesterol", ("mg/dl",), "Cholesterol", 1.0),
    ("creatinine", ("mg/dl",), "Creatinine", 1.0),
    ("glucose", ("mg/dl",), "Glucose", 1.0),
    ("bedside glucose", ("mg/dl",), "Glucose", 1.0),
    ("bicarbonate", ("mmol/l", "meq/l"), "HCO3", 1.0),
    ("hco3", ("mmol/l", "meq/l"), "HCO3", 1.0),
    ("hct", ("%",), "HCT", 1.0),
    ("hgb", ("g/dl",), "hgb", 1.0),
    ("potassium", ("mmol/l", "meq/l"), "K", 1.0),
    ("lactate", ("mmol/l",), "Lactate", 1.0),
    ("magnesium", ("mg/dl",), "mg", 1.0),
    ("sodium", ("mmol/l", "meq/l"), "Na", 1.0),
    ("chloride", ("mmol/l", "meq/l"), "cl", 1.0),
    ("calcium", ("mg/dl",), "ca", 1.0),
    ("ionized calcium", ("mmol/l",), "cai", 1.0),
    ("phosphate", ("mg/dl",), "phos", 1.0),
    ("base excess", ("meq/l", "mmol/l"), "be", 1.0),
    ("base deficit", ("meq/l", "mmol/l"), "be", -1.0),
    ("paco2", ("mm hg", "mmhg"), "PaCO2", 1.0),
    ("pao2", ("mm hg", "mmhg"), "PaO2", 1.0),
    ("ph", ("",), "pH", 1.0),
    ("fio2", ("%",), "fio2", 1.0),
    ("o2 sat (%)", ("%",), "o2sat", 1.0),
    ("methemoglobin", ("%",), "methb", 1.0),
    ("platelets x 1000", ("k/mcl",), "Platelets", 1.0),
    ("wbc x 1000", ("k/mcl",), "WBC", 1.0),
    ("troponin - i", ("ng/ml",), "TroponinI", 1.0),
    ("troponin - t", ("ng/ml",), "TroponinT", 1.0),
    ("pt - inr", ("ratio",), "inr_pt", 1.0),
    ("ptt", ("sec",), "ptt", 1.0),
    ("fibrinogen", ("mg/dl",), "fgn", 1.0),
    ("mcv", ("fl",), "mcv", 1.0),
    ("mch", ("pg",), "mch", 1.0),
    ("mchc", ("g/dl",), "mchc", 1.0),
    ("cpk", ("units/l",), "ck", 1.0),
    ("cpk-mb", ("ng/ml",), "ckmb", 1.0),
    ("crp", ("mg/dl",), "crp", 10.0),
    ("-bands", ("%",), "bnd", 1.0),
    ("-lymphs", ("%",), "lymph", 1.0),
    ("-polys", ("%",), "neut", 1.0),
    ("peep", ("cm h2o",), "peep", 1.0),
    ("tv", ("mls",), "tidal_volume", 1.0),
)

VITALS = {  # table: column: variable, in the unit that its documentation states
    "vitalPeriodic": {
        "temperature": "Temp",
        "sao2": "o2sat",
        "heartrate": "HR",
        "respiration": "RespRate",
        "cvp": "cvp",
        "systemicsystolic": "SysABP",
        "systemicdiastolic": "DiasABP",
        "systemicmean": "MAP",
    },
    "vitalAperiodic": {
        "noninvasivesystolic": "NISysABP",
        "noninvasivediastolic": "NIDiasABP",
        "noninvasivemean": "NIMAP",
    },
}

URINE = ("urine", "urine catheter")
"""Labels of `intakeOutput` that are urine, in lower case, in mL."""

DRUGS = {  # beginning of a drug's name in lower case: input, unit of its rate
    "norepinephrine": ("norepinephrine", "ug/kg/min"),
    "epinephrine": ("epinephrine", "ug/kg/min"),
    "phenylephrine": ("phenylephrine", "ug/kg/min"),
    "vasopressin": ("vasopressin", "U/h"),
    "dopamine": ("dopamine", "ug/kg/min"),
    "dobutamine": ("dobutamine", "ug/kg/min"),
    "milrinone": ("milrinone", "ug/kg/min"),
    "propofol": ("propofol", "ug/kg/min"),
    "dexmedetomidine": ("dexmedetomidine", "ug/kg/h"),
    "midazolam": ("midazolam", "mg/h"),
    "fentanyl": ("fentanyl", "ug/h"),
    "insulin": ("insulin regular", "U/h"),
    "heparin": ("heparin", "U/h"),
    "furosemide": ("furosemide", "mg/h"),
    "amiodarone": ("amiodarone", "mg/min"),
    "nitroglycerin": ("nitroglycerin", "ug/kg/min"),
}

ORDER = Variable(name="medication order", label="Orders of medication in force", unit="1")
"""What `medication` becomes: it lists orders, and not what was given."""
