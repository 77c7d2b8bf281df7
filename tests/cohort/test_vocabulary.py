import pandas as pd
import pytest

from clinode.cohort import VARIABLES, Cohort
from clinode.cohort.variables import YAIB_VARIABLES
from clinode.cohort.vocabulary import COMMON, in_common_vocabulary


@pytest.mark.parametrize("row", COMMON, ids=lambda row: row[0])
def test_units_of_the_table_are_those_of_the_variables(row):
    name, unit, common, common_unit, factor = row
    assert VARIABLES[name].unit == unit
    assert VARIABLES[common].unit == common_unit
    assert common in YAIB_VARIABLES
    low, high = VARIABLES[name].normal or (1.0, 1.0)
    other = VARIABLES[common].normal or (factor, factor)
    assert low * factor == pytest.approx(other[0], rel=0.35)
    assert high * factor == pytest.approx(other[1], rel=0.35)


def test_two_names_of_one_quantity_become_one_in_its_unit():
    rows = [
        (1, 0.0, "SysABP", 120.0),
        (1, 0.0, "NISysABP", 100.0),
        (1, 1.0, "FiO2", 0.4),
        (1, 1.0, "Mg", 1.0),
        (1, 2.0, "score", 3.0),
        (2, 0.0, "HR", 80.0),
    ]
    table = pd.DataFrame(rows, columns=["subject_id", "time", "variable", "value"])
    statics = pd.DataFrame({"subject_id": [1, 2, 3], "gender": [0.0, 1.0, None]})
    cohort = in_common_vocabulary(Cohort.from_tables(table, statics))
    found = cohort.observations.astype({"variable": str}).values.tolist()
    assert found == [
        [1, 0.0, "sbp", 110.0],
        [1, 1.0, "fio2", 40.0],
        [1, 1.0, "mg", pytest.approx(2.4305)],
        [1, 2.0, "score", 3.0],
        [2, 0.0, "hr", 80.0],
    ]
    assert cohort.schema.variable("sbp").unit == "mmHg"
    assert cohort.statics["sex"].tolist()[:2] == ["Female", "Male"]
    assert len(cohort) == 3
    few = in_common_vocabulary(Cohort.from_tables(table, statics), only=("hr", "sbp"))
    assert [variable.name for variable in few.schema.variables] == ["hr", "sbp"]
    assert len(few) == 3
