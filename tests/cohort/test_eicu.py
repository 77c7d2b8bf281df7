"""eICU-CRD as published: small tables made by code, and the open subset."""

import numpy as np
import pandas as pd
import pytest

from clinode.cohort import read_cohort
from clinode.cohort.rates import dimension, factor
from clinode.errors import SchemaError

PATIENT = (
    "patientunitstayid,uniquepid,gender,age,ethnicity,unittype,unitadmitsource,admissionheight,"
    "admissionweight,unitdischargeoffset,unitdischargestatus,hospitaldischargestatus\n"
    '1,002-1,Female,> 89,"Other\nUnknown",MICU,Floor,160,60,600,Alive,Expired\n'
    "2,002-1,Female,90,Caucasian,SICU,Floor,160,,1200,Alive,\n"
    "3,002-2,Male,50,Caucasian,MICU,Floor,,80,-10,Alive,Alive\n"
    "4,002-3,Male,51,Caucasian,MICU,Floor,,80,300,Expired,Expired\n"
)
LAB = "labid,patientunitstayid,labresultoffset,labname,labresult,labresulttext,"
LAB += "labmeasurenamesystem\n"
LAB += "1,1,60,potassium,4.1,4.1,mmol/L\n2,1,-60,potassium,4.2,4.2,mmol/L\n"
LAB += "3,1,90,CRP,2,2,mg/dL\n4,1,90,potassium,4.3,4.3,mg\n5,1,90,magic,1,1,\n"
LAB += "6,1,700,potassium,5,5,mmol/L\n7,9,10,potassium,5,5,mmol/L\n8,2,30,potassium,,<3,mmol/L\n"
LAB += "9,1,120,Base Deficit,3,3,mEq/L\n"
VITAL = "vitalperiodicid,patientunitstayid,observationoffset,temperature,sao2,heartrate\n"
VITAL += "1,1,5,98.6,97,80\n2,1,10,,,82\n3,2,5,37,,\n"
APERIODIC = "vitalaperiodicid,patientunitstayid,observationoffset,noninvasivesystolic\n1,1,7,118\n"
INTAKE = "intakeoutputid,patientunitstayid,intakeoutputoffset,cellpath,celllabel,cellvaluenumeric\n"
INTAKE += "1,1,60,x,Urine,200\n2,1,60,x,Stool,1\n"
INFUSION = "infusiondrugid,patientunitstayid,infusionoffset,drugname,drugrate,infusionrate,"
INFUSION += "drugamount,volumeoffluid,patientweight\n"
INFUSION += "1,1,30,Norepinephrine (mcg/kg/min),0.1,,,,\n"
INFUSION += "2,1,90,Norepinephrine (mcg/kg/min),0.2,,,,\n"
INFUSION += "3,1,150,Norepinephrine (mcg/kg/min),0,,,,\n"
INFUSION += "4,1,200,Norepinephrine (mcg/min),7,,,,70\n"
INFUSION += "5,1,580,Propofol (mcg/kg/min),10,,,,\n"
INFUSION += "6,1,60,Norepinephrine (ml/hr),5,,,,\n7,1,60,Magic (mg/hr),5,,,,\n"
INFUSION += "8,1,300,Dopamine (mcg/min),5,,,,\n"
ORDERS = "medicationid,patientunitstayid,drugstartoffset,drugstopoffset,drugordercancelled\n"
ORDERS += "1,1,60,120,No\n2,1,60,120,No\n3,1,60,120,Yes\n4,1,60,,No\n"
TABLES = {
    "patient": PATIENT,
    "lab": LAB,
    "vitalPeriodic": VITAL,
    "vitalAperiodic": APERIODIC,
    "intakeOutput": INTAKE,
    "infusionDrug": INFUSION,
    "medication": ORDERS,
}


def write(folder, tables=TABLES):
    folder.mkdir(exist_ok=True)
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return read_cohort(write(tmp_path_factory.mktemp("data") / "eicu"))


def rows(cohort, subject, variable):
    held = cohort.observations.query("subject_id == @subject and variable == @variable")
    return list(zip(held["time"].tolist(), held["value"].tolist(), strict=True))


def test_a_unit_stay_is_a_subject_whose_person_is_its_group(cohort):
    assert cohort.source["format"] == "eicu"
    assert cohort.subjects.tolist() == [1, 2, 4]
    assert cohort.groups.tolist() == ["002-1", "002-1", "002-3"]
    assert cohort.ledger.rows("patient", "dropped", "ends before it starts") == 1


def test_names_and_columns_are_variables_in_their_units(cohort):
    assert rows(cohort, 1, "K") == [(1.0, 4.1)]
    assert rows(cohort, 1, "crp") == [(1.5, 20.0)]
    assert rows(cohort, 1, "be") == [(2.0, -3.0)]
    assert rows(cohort, 1, "HR") == [(5 / 60, 80.0), (10 / 60, 82.0)]
    assert rows(cohort, 1, "Temp") == [(5 / 60, pytest.approx(37.0, abs=1e-12))]
    assert rows(cohort, 2, "Temp") == [(5 / 60, 37.0)]
    assert rows(cohort, 1, "NISysABP") == [(7 / 60, 118.0)]
    assert rows(cohort, 1, "Urine") == [(1.0, 200.0)]


def test_every_row_is_accounted_for_by_its_table(cohort):
    ledger = cohort.ledger
    assert ledger.balanced
    assert ledger.rows("lab", "read") == 9
    assert ledger.rows("lab", "dropped", "outside every stay") == 2
    assert ledger.rows("lab", "dropped", "not in the mapping") == 1
    assert ledger.rows("lab", "dropped", "in a unit that the mapping has not") == 1
    assert ledger.rows("lab", "dropped", "no stay that was read") == 1
    assert ledger.rows("observations", "dropped", "no value") == 1
    assert ledger.rows("vitalPeriodic", "read") == 3 * 3
    assert ledger.rows("vitalPeriodic", "dropped", "empty cell") == 4
    assert ledger.rows("intakeOutput", "dropped", "not in the mapping") == 1
    assert ledger.rows("medication", "dropped", "order that was cancelled") == 1
    assert ledger.rows("medication", "dropped", "order without an end") == 1


def test_a_rate_holds_until_the_next_of_its_drug_and_the_last_for_an_hour(cohort):
    held = cohort.inputs
    found = [
        (row.variable, row.start * 60, row.end * 60, row.value)
        for row in held.itertuples(index=False)
    ]
    assert found == [
        ("norepinephrine", 30.0, 90.0, 0.1),
        ("medication order", 60.0, 120.0, 2.0),
        ("norepinephrine", 90.0, 150.0, 0.2),
        ("norepinephrine", 200.0, 260.0, pytest.approx(0.1)),  # 7 ug/min in 70 kg
        ("propofol", 580.0, 600.0, 10.0),  # no longer than the stay
    ]
    ledger = cohort.ledger
    assert ledger.rows("infusionDrug", "dropped", "in a unit that the mapping has not") == 1
    assert ledger.rows("infusionDrug", "dropped", "a rate of zero: it ends the one before") == 1
    reason = "a rate without the weight that its unit asks for"
    assert ledger.rows("infusionDrug", "dropped", reason) == 1


def test_statics_and_outcomes(cohort):
    statics = cohort.statics.set_index("subject_id")
    assert statics["age"].tolist() == [90.0, 90.0, 51.0]
    assert statics["gender"].tolist() == [0.0, 0.0, 1.0]
    outcomes = cohort.outcomes.set_index("subject_id")
    assert outcomes["in_hospital_death"].tolist()[::2] == [1.0, 1.0]
    assert np.isnan(outcomes.loc[2, "in_hospital_death"])
    assert outcomes["in_icu_death"].tolist() == [0.0, 0.0, 1.0]


def test_tables_that_must_be_there_are_missed_in_words(tmp_path):
    with pytest.raises(SchemaError, match="no table patient"):
        read_cohort(write(tmp_path / "a", {"lab": LAB}), format="eicu")
    with pytest.raises(SchemaError, match="none of lab, vitalPeriodic"):
        read_cohort(write(tmp_path / "b", {"patient": PATIENT}))
    twice = {**TABLES, "patient": PATIENT + "1,002-1,Female,5,x,MICU,Floor,160,60,600,Alive,\n"}
    with pytest.raises(SchemaError, match="more than once"):
        read_cohort(write(tmp_path / "c", twice))


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ("mcg/kg/min", "ug/kg/h", 60.0),
        ("mcg/hr", "ug/h", 1.0),
        ("units/min", "U/h", 60.0),
        ("grams/hour", "g/h", 1.0),
        ("mg/min", "mcg/hr", 60000.0),
        ("mg/hr", "mg/kg/h", None),
        ("mL/hour", "mg/h", None),
        ("dose", "mg", None),
    ],
)
def test_rates_are_converted_only_within_their_dimension(found, wanted, expected):
    assert factor(found, wanted) == (expected if expected is None else pytest.approx(expected))
    assert (dimension(found) is None) == (found == "dose")


def test_the_open_subset_is_as_described(data_dir):
    folder = data_dir / "eicu_demo_subset"
    if not folder.is_dir():
        pytest.skip("the data folder has no eicu_demo_subset")
    cohort = read_cohort(folder)
    ledger = cohort.ledger
    assert ledger.balanced
    assert len(cohort) == 174
    assert len(set(cohort.groups.tolist())) == 100
    assert ledger.rows("lab", "read") == 29_961
    assert ledger.rows("statics", "converted", None, "age") == 4
    assert int(cohort.outcomes["in_hospital_death"].sum()) == 9
    raw = pd.read_csv(folder / "lab.csv.gz").merge(
        pd.read_csv(folder / "patient.csv.gz")[["patientunitstayid", "unitdischargeoffset"]]
    )
    own = raw[(raw["labname"] == "creatinine") & (raw["labresultoffset"] >= 0)]
    own = own[own["labresultoffset"] <= own["unitdischargeoffset"]].dropna(subset="labresult")
    expected = own.groupby(["patientunitstayid", "labresultoffset"])["labresult"].mean()
    found = cohort.observations.query("variable == 'Creatinine'")
    assert np.allclose(found["value"], expected.sort_index())
