"""One vocabulary for cohorts of several sources, with units.

Sources name one quantity in several ways and measure it by several devices: HR and hr, an arterial
and a cuff pressure. For a model that is to read all of them, `in_common_vocabulary` gives each
quantity its ricu name (those of YAIB) and the unit of that; what is measured twice at one time
takes the mean. What the table does not name keeps its name.
"""

import numpy as np
import pandas as pd

from clinode.cohort.cohort import Cohort
from clinode.cohort.schema import CohortSchema, Variable
from clinode.cohort.variables import STATICS, VARIABLES

MAGNESIUM = 2.4305  # mg/dL in a mmol/L

COMMON = (  # name, unit, common name, common unit, factor
    ("Albumin", "g/dL", "alb", "g/dL", 1.0),
    ("ALP", "IU/L", "alp", "IU/L", 1.0),
    ("ALT", "IU/L", "alt", "IU/L", 1.0),
    ("AST", "IU/L", "ast", "IU/L", 1.0),
    ("Bilirubin", "mg/dL", "bili", "mg/dL", 1.0),
    ("BUN", "mg/dL", "bun", "mg/dL", 1.0),
    ("Creatinine", "mg/dL", "crea", "mg/dL", 1.0),
    ("DiasABP", "mmHg", "dbp", "mmHg", 1.0),
    ("NIDiasABP", "mmHg", "dbp", "mmHg", 1.0),
    ("SysABP", "mmHg", "sbp", "mmHg", 1.0),
    ("NISysABP", "mmHg", "sbp", "mmHg", 1.0),
    ("MAP", "mmHg", "map", "mmHg", 1.0),
    ("NIMAP", "mmHg", "map", "mmHg", 1.0),
    ("FiO2", "1", "fio2", "%", 100.0),
    ("Glucose", "mg/dL", "glu", "mg/dL", 1.0),
    ("HCO3", "mmol/L", "bicar", "mEq/L", 1.0),
    ("HR", "bpm", "hr", "bpm", 1.0),
    ("K", "mEq/L", "k", "mEq/L", 1.0),
    ("Lactate", "mmol/L", "lact", "mmol/L", 1.0),
    ("Mg", "mmol/L", "mg", "mg/dL", MAGNESIUM),
    ("Na", "mEq/L", "na", "mEq/L", 1.0),
    ("PaCO2", "mmHg", "pco2", "mmHg", 1.0),
    ("PaO2", "mmHg", "po2", "mmHg", 1.0),
    ("pH", "1", "ph", "1", 1.0),
    ("Platelets", "cells/nL", "plt", "K/uL", 1.0),
    ("RespRate", "bpm", "resp", "insp/min", 1.0),
    ("SaO2", "%", "o2sat", "%", 1.0),
    ("Temp", "deg C", "temp", "deg C", 1.0),
    ("TroponinT", "ug/L", "tnt", "ng/mL", 1.0),
    ("Urine", "mL", "urine", "mL", 1.0),
    ("WBC", "cells/nL", "wbc", "K/uL", 1.0),
)


def in_common_vocabulary(cohort: Cohort, only: tuple[str, ...] | None = None) -> Cohort:
    """A cohort with the common names and units; gender becomes the static sex.

    Args:
        cohort: Its tables are read into memory.
        only: Common names to keep, those that a model was trained on, say; all if left out.
    """
    known = {name: (common, factor) for name, _, common, _, factor in COMMON}
    variables = cohort.schema.variables
    names = np.array([known.get(v.name, (v.name, 1.0))[0] for v in variables], dtype=object)
    factors = np.array([known.get(v.name, (v.name, 1.0))[1] for v in variables])
    arrays = cohort.arrays()
    observations = pd.DataFrame(
        {
            "subject_id": cohort.subjects[arrays.subject_index],
            "time": arrays.time,
            "variable": names[arrays.variable_index],
            "value": arrays.value * factors[arrays.variable_index],
        }
    )
    if only is not None:
        observations = observations.loc[observations["variable"].isin(only)]
    statics = cohort.statics
    if "gender" in statics.columns and "sex" not in statics.columns:
        levels = STATICS["sex"].levels
        sex = [None if np.isnan(g) else levels[int(g)] for g in statics.pop("gender")]
        statics["sex"] = sex
    kept = {v.name: v for v in variables if v.name in set(names)}
    common = {name: VARIABLES.get(name) or kept[name] for name in names}
    schema = CohortSchema(
        tuple(common[name] for name in sorted(common) if only is None or name in only),
        tuple(_static(cohort, name) for name in statics.columns if name != "subject_id"),
        cohort.schema.inputs,
    )
    made = Cohort.from_tables(
        observations, statics, cohort.inputs, cohort.outcomes, schema=schema, policy=cohort.policy
    )
    return made if len(made) == len(cohort) else made.select(cohort.subjects)


def _static(cohort: Cohort, name: str) -> Variable:
    known = {variable.name: variable for variable in cohort.schema.statics}
    return known.get(name) or STATICS[name]
