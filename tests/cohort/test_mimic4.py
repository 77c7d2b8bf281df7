"""MIMIC-IV as published, in small tables made by code: two persons, one with two stays."""

import gzip
from io import StringIO

import numpy as np
import pandas as pd
import pytest

from clinode.cohort import read_cohort
from clinode.errors import SchemaError

START = pd.Timestamp("2150-03-01 10:00:00")


def at(hours):
    return str(START + pd.Timedelta(hours=hours))


PATIENTS = "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n" + (
    "10,F,60,2148,2008 - 2010,\n20,M,91,2150,2008 - 2010,2150-03-02\n30,M,40,2150,2011 - 2013,\n"
)
ADMISSIONS = "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,race,"
ADMISSIONS += "hospital_expire_flag\n"
ADMISSIONS += f"10,100,{at(-5)},{at(200)},,URGENT,WHITE,0\n"
ADMISSIONS += f"20,200,{at(0)},{at(30)},{at(20)},EW EMER.,OTHER,1\n"
STAYS = "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los\n"
STAYS += f"10,100,1001,MICU,MICU,{at(0)},{at(24)},1.0\n"
STAYS += f"10,100,1002,SICU,SICU,{at(100)},{at(124)},1.0\n"
STAYS += f"20,200,2001,MICU,MICU,{at(1)},{at(25)},1.0\n"
STAYS += f"30,300,3001,MICU,MICU,{at(1)},{at(0)},-0.04\n"  # ends before it starts
CHART = "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,"
CHART += "valueuom,warning\n"
CHART += f"10,100,1001,1,{at(1)},,220045,80,80,bpm,0\n"
CHART += f"10,100,1001,1,{at(2)},,223761,98.6,98.6,°F,0\n"
CHART += f"10,100,1001,1,{at(3)},,220179,120,120,MMHG,0\n"  # the unit in other letters
CHART += f"10,100,1001,1,{at(3)},,220179,16,16,kPa,0\n"  # another unit
CHART += f"10,100,1001,1,{at(30)},,220045,81,81,bpm,0\n"  # after the stay
CHART += f"10,100,,1,{at(4)},,220045,82,82,bpm,0\n"  # no stay
CHART += "10,100,1001,1,,,220045,83,83,bpm,0\n"  # no time
CHART += "10,100,1001,1,soon,,220045,84,84,bpm,0\n"  # no time either
CHART += f"10,100,1001,1,{at(5)},,220045,high,,bpm,0\n"  # no number
CHART += f"10,100,1001,1,{at(5)},,220045,900,900,bpm,0\n"  # impossible
CHART += f"10,100,1001,1,{at(6)},,999999,1,1,,0\n"  # an item that nobody mapped
CHART += f"20,200,2001,1,{at(2)},,220739,Spontaneously,4,,0\n"
CHART += f"20,200,2001,1,{at(2)},,226730,170,170,cm,0\n"
LABS = "labevent_id,subject_id,hadm_id,specimen_id,itemid,charttime,storetime,value,valuenum,"
LABS += "valueuom,ref_range_lower,ref_range_upper,flag,priority,comments\n"
LABS += f'1,10,100,1,50971,{at(2)},,4.1,4.1,mEq/L,3,5,,,"said: ""fine"", twice\nand again"\n'
LABS += f"2,10,,1,50971,{at(50)},,4.2,4.2,mEq/L,3,5,,,\n"  # between the stays
LABS += f"3,10,100,1,50971,{at(102)},,<3,,mEq/L,3,5,,,\n"  # a bound is no number
LABS += f"4,20,200,1,51003,{at(3)},,0.1,0.1,ng/mL,,,,,\n"
OUTPUT = "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valueuom\n"
OUTPUT += f"10,100,1001,1,{at(2)},,226559,250,mL\n"
GIVEN = "subject_id,hadm_id,stay_id,caregiver_id,starttime,endtime,storetime,itemid,amount,"
GIVEN += "amountuom,rate,rateuom,statusdescription,patientweight\n"
GIVEN += f"10,100,1001,1,{at(1)},{at(3)},,221906,4,mg,0.1,mcg/kg/min,FinishedRunning,70\n"
GIVEN += f"10,100,1001,1,{at(2)},{at(4)},,221906,4,mg,0.2,mcg/kg/min,Rewritten,70\n"
GIVEN += f"10,100,1001,1,{at(1)},{at(2)},,222315,2,units,0.04,units/min,ChangeDose/Rate,70\n"
GIVEN += f"10,100,1001,1,{at(5)},{at(5.5)},,225158,500,ml,,,Bolus,70\n"
GIVEN += f"10,100,1001,1,{at(6)},{at(5)},,221906,4,mg,0.1,mcg/kg/min,FinishedRunning,70\n"
GIVEN += f"10,100,1001,1,{at(6)},{at(7)},,221906,4,mg,0.1,mL/hour,FinishedRunning,70\n"
GIVEN += f"10,100,1001,1,{at(6)},{at(7)},,225797,4,mL,1,mL/hour,FinishedRunning,70\n"
ITEMS = "itemid,label,abbreviation,linksto\n220045,Heart Rate,HR,chartevents\n"
TABLES = {
    "hosp/patients": PATIENTS,
    "hosp/admissions": ADMISSIONS,
    "hosp/labevents": LABS,
    "hosp/d_labitems": "itemid,label,fluid,category\n50971,Potassium,Blood,Chemistry\n",
    "icu/icustays": STAYS,
    "icu/chartevents": CHART,
    "icu/outputevents": OUTPUT,
    "icu/inputevents": GIVEN,
    "icu/d_items": ITEMS,
}


def write(folder, tables=TABLES, ending=".csv.gz"):
    for name, text in tables.items():
        path = folder / f"{name}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = text.encode()
        path.write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)
    return folder


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "mimic")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return read_cohort(write(tmp_path_factory.mktemp("data") / "mimic"))


def rows(cohort, subject, variable):
    held = cohort.observations.query("subject_id == @subject and variable == @variable")
    return list(zip(held["time"].tolist(), held["value"].tolist(), strict=True))


def test_a_stay_is_a_subject_whose_person_is_its_group(cohort):
    assert cohort.source["format"] == "mimic4"
    assert cohort.subjects.tolist() == [1001, 1002, 2001]
    assert cohort.groups.tolist() == ["10", "10", "20"]
    assert cohort.ledger.rows("icu/icustays", "dropped", "ends before it starts") == 1


def test_items_are_variables_in_the_unit_of_the_mapping(cohort):
    assert rows(cohort, 1001, "HR") == [(1.0, 80.0)]
    assert rows(cohort, 1001, "Temp") == [(2.0, pytest.approx(37.0, abs=1e-12))]
    assert rows(cohort, 1001, "NISysABP") == [(3.0, 120.0)]
    assert rows(cohort, 1001, "Urine") == [(2.0, 250.0)]
    assert rows(cohort, 2001, "gcs_eye") == [(1.0, 4.0)]
    assert rows(cohort, 2001, "TroponinT") == [(2.0, 0.1)]


def test_laboratory_rows_belong_to_the_stay_that_they_lie_in(cohort):
    assert rows(cohort, 1001, "K") == [(2.0, 4.1)]
    assert rows(cohort, 1002, "K") == []
    assert cohort.ledger.rows("hosp/labevents", "dropped", "outside every stay") == 1


def test_every_row_is_accounted_for_by_its_table(cohort):
    ledger = cohort.ledger
    assert ledger.balanced
    for table, text in TABLES.items():
        if table.split("/")[1] in ("chartevents", "labevents", "outputevents", "inputevents"):
            n_rows = len(pd.read_csv(StringIO(text)))
            assert ledger.rows(table, "read") == n_rows
    dropped = {
        reason: ledger.rows("icu/chartevents", "dropped", reason)
        for reason in (
            "not in the mapping",
            "in a unit that the mapping has not",
            "no stay that was read",
            "outside every stay",
        )
    }
    assert list(dropped.values()) == [1, 1, 1, 1]
    assert ledger.rows("observations", "dropped", "no time") == 1
    assert ledger.rows("observations", "dropped", "the time is not a number") == 1
    assert ledger.rows("observations", "dropped", "no value") == 2
    assert ledger.rows("observations", "dropped", "impossible value") == 1
    assert ledger.rows("inputs", "dropped", "ends before it starts") == 1
    assert ledger.rows("icu/inputevents", "dropped", "rewritten later") == 1


def test_infusions_are_inputs_with_start_end_and_rate(cohort):
    held = cohort.inputs
    found = {row.variable: (row.start, row.end, row.value) for row in held.itertuples(index=False)}
    assert found["norepinephrine"] == (1.0, 3.0, 0.1)
    assert found["vasopressin"] == (1.0, 2.0, pytest.approx(2.4))
    start, end, value = found["sodium chloride 0.9% (amount)"]
    assert (start, value) == (5.5, 500.0)
    assert np.isnan(end), "an amount is known at its end, and is a dose there"
    units = {variable.name: variable.unit for variable in cohort.schema.inputs}
    assert units["norepinephrine"] == "ug/kg/min"
    assert units["vasopressin"] == "U/h"
    assert units["sodium chloride 0.9% (amount)"] == "mL"
    assert len(held) == 3


def test_statics_and_outcomes(cohort):
    statics = cohort.statics.set_index("subject_id")
    assert statics["age"].tolist() == [62.0, 62.0, 91.0]
    assert statics["gender"].tolist() == [0.0, 0.0, 1.0]
    assert statics["first_careunit"].tolist() == ["MICU", "SICU", "MICU"]
    assert statics.loc[2001, "height"] == 170.0
    outcomes = cohort.outcomes
    assert outcomes["in_hospital_death"].tolist() == [0.0, 0.0, 1.0]
    assert outcomes["in_icu_death"].tolist() == [0.0, 0.0, 1.0]
    assert outcomes.columns[-1] == "in_hospital_death"
    assert outcomes["length_of_stay"].tolist() == [1.0, 1.0, 1.0]


def test_plain_files_and_other_tables_are_read_as_well(root, tmp_path, cohort):
    few = {name: TABLES[name] for name in TABLES if "d_" not in name and "output" not in name}
    other = read_cohort(write(tmp_path / "plain", few, ".csv"))
    pd.testing.assert_frame_equal(other.inputs, cohort.inputs)
    assert other.source["absent"] == ["icu/outputevents"]


def test_a_mapping_takes_the_place_of_the_shipped_one(root):
    mapping = pd.DataFrame(
        {"code": ["LAB//999999//UNK", "INFUSION//225797"], "variable": ["score", "water"]}
    ).assign(role=["observation", "input"])
    cohort = read_cohort(root, mapping=mapping)
    assert [variable.name for variable in cohort.schema.variables] == ["score"]
    assert rows(cohort, 1001, "score") == [(6.0, 1.0)]


@pytest.mark.parametrize("table", ["hosp/patients", "hosp/admissions", "icu/icustays"])
def test_a_table_that_must_be_there_is_missed_in_words(root, table):
    (root / f"{table}.csv.gz").unlink()
    with pytest.raises(SchemaError, match=f"no table {table}"):
        read_cohort(root, format="mimic4")


def test_a_column_that_is_not_there_and_a_repeated_stay_are_refused(root, tmp_path):
    spoiled = {**TABLES, "icu/chartevents": CHART.replace("valuenum", "number")}
    with pytest.raises(SchemaError, match="no column 'valuenum'"):
        read_cohort(write(tmp_path / "spoiled", spoiled))
    twice = {**TABLES, "icu/icustays": STAYS + STAYS.splitlines()[1] + "\n"}
    with pytest.raises(SchemaError, match="1 stays stand there more than once"):
        read_cohort(write(tmp_path / "twice", twice))
    none = {**TABLES, "icu/icustays": STAYS.splitlines()[0] + "\n"}
    with pytest.raises(SchemaError, match="there is no stay"):
        read_cohort(write(tmp_path / "none", none))


def test_a_truncated_file_is_refused(root):
    path = root / "icu" / "chartevents.csv.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SchemaError, match=r"chartevents\.csv\.gz"):
        read_cohort(root)
