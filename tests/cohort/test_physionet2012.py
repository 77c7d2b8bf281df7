import pandas as pd
import pytest

from clinode.cohort import read_cohort
from clinode.errors import SchemaError

RECORD = """Time,Parameter,Value
00:00,RecordID,{id}
00:00,Age,{age}
00:00,Gender,1
00:00,Height,-1
00:00,ICUType,3
00:00,Weight,{weight}
00:07,HR,{hr}
00:07,HR,90
01:30,pH,735
47:59,Na,140
48:00,Weight,81
"""
OUTCOMES = """RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death
132539,6,1,5,-1,0
132540,-1,8,8,90,0
132541,21,-1,19,4,1
"""
NAMES = ["saps_i", "sofa", "length_of_stay", "survival", "died_within_90_days", "in_hospital_death"]


@pytest.fixture
def folder(tmp_path):
    records = tmp_path / "set-a"
    records.mkdir()
    values = {132539: (54, -1, 73), 132540: (76, 80.5, 88), 132541: (44, 500, -1)}
    for record, (age, weight, hr) in values.items():
        text = RECORD.format(id=record, age=age, weight=weight, hr=hr)
        (records / f"{record}.txt").write_text(text)
    (tmp_path / "Outcomes-a.txt").write_text(OUTCOMES)
    return records


def test_records_are_read_with_descriptors_as_statics(folder):
    cohort = read_cohort(folder)
    assert cohort.subjects.tolist() == [132539, 132540, 132541]
    statics = cohort.statics.set_index("subject_id")
    assert statics["age"].tolist() == [54.0, 76.0, 44.0]
    assert statics["gender"].tolist() == [1.0, 1.0, 1.0]
    assert statics["height"].isna().all()
    assert statics["weight"].isna().tolist() == [True, False, True]
    assert statics.loc[132540, "weight"] == 80.5
    observed = cohort.select([132539]).observations
    assert observed["time"].tolist() == [7 / 60, 1.5, 47 + 59 / 60, 48.0]
    assert observed["variable"].tolist() == ["HR", "pH", "Na", "Weight"]
    assert observed["value"].tolist() == [81.5, 7.35, 140.0, 81.0]
    assert cohort.ledger.balanced
    assert cohort.ledger.rows("observations", "read") == 33


def test_outcomes_are_found_beside_the_folder_with_the_death_in_hospital_last(folder):
    outcomes = read_cohort(folder).outcomes
    assert list(outcomes.columns) == ["subject_id", *NAMES]
    assert outcomes["died_within_90_days"].tolist() == [0.0, 1.0, 1.0]
    assert outcomes["in_hospital_death"].tolist() == [0.0, 0.0, 1.0]
    assert outcomes["survival"].isna().tolist() == [True, False, False]
    assert outcomes["saps_i"].isna().tolist() == [False, True, False]


def test_the_folder_above_and_a_list_of_folders_give_the_same_cohort(folder):
    expected = read_cohort(folder).fingerprint()
    assert read_cohort(folder.parent).fingerprint() == expected
    assert read_cohort([folder]).fingerprint() == expected
    assert read_cohort(folder, outcomes=folder.parent / "Outcomes-a.txt").fingerprint() == expected


def test_a_table_with_the_five_outcomes_gets_the_derived_one_too(folder):
    table = pd.DataFrame({"record_id": [132539], "time": [0.0], "variable": "HR", "value": 80.0})
    cohort = read_cohort(table, outcomes=folder.parent / "Outcomes-a.txt")
    assert list(cohort.schema.outcomes) == NAMES
    assert cohort.outcomes["died_within_90_days"].tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("time,parameter,value\n", "the header is not Time,Parameter,Value"),
        (RECORD.format(id=1, age=1, weight=1, hr=1), "the RecordID of 1 records is not the name"),
        ("Time,Parameter,Value\n00:00,HR\n", "line 2 has 2 cells, expected 3"),
        (b"Time,Parameter,Value\n00:00,caf\xe9,1\n", "byte 30 (line 2) is not UTF-8"),
    ],
)
def test_a_faulty_record_is_named_by_its_place_and_never_by_its_id(folder, text, words):
    path = folder / "132540.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SchemaError) as caught:
        read_cohort(folder)
    assert words in caught.value.problem
    assert "132540" not in str(caught.value)
    assert caught.value.where in ("record 2 of 3, by name", "set-a")


def test_a_time_that_is_no_clock_time_is_dropped_and_counted(folder):
    path = folder / "132540.txt"
    path.write_text(path.read_text() + "later,HR,80\n99,HR,80\n10:75,HR,80\n")
    ledger = read_cohort(folder).ledger
    assert ledger.rows("observations", "dropped", "the time is not a number") == 3


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(SchemaError, match=r"no file named RecordID\.txt"):
        read_cohort(tmp_path, "physionet2012")
    with pytest.raises(SchemaError, match="there is no such folder"):
        read_cohort(tmp_path / "set-z", "physionet2012")


def test_a_record_in_two_folders_is_refused(folder):
    other = folder.parent / "set-b"
    other.mkdir()
    (other / "132540.txt").write_text((folder / "132540.txt").read_text())
    with pytest.raises(SchemaError, match="two files are named by the same RecordID"):
        read_cohort(folder.parent)
