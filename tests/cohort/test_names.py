import numpy as np
import pandas as pd
import pytest

from clinode.cohort import read_cohort
from clinode.cohort.columns import shown_columns
from clinode.cohort.names import names_of, reads_as_name, shown_levels, shown_name, shown_names
from clinode.evaluation import compare_fingerprint

NOTE = "fell, see note of 3 May"


@pytest.mark.parametrize("name", ["HR", "Troponin Q", "LAB//50912//mg/dL", "heart rate", "x_2"])
def test_names_of_quantities_read_as_names(name):
    assert reads_as_name(name)
    assert shown_name(name) == name


@pytest.mark.parametrize(
    "text", [NOTE, "seen by Berg", "0171-555-0192", "2031-04-01", "ann@ward.example", "a" * 41]
)
def test_notes_dates_numbers_and_addresses_do_not_read_as_names(text):
    assert not reads_as_name(text)
    assert shown_name(text) == "free text"


def test_what_many_subjects_share_is_a_name_however_it_reads():
    shown = shown_names({NOTE: 11, f"{NOTE}.": 10, "HR": 1, f"{NOTE}!": 2})
    assert list(shown.values()) == [NOTE, "free text 1", "HR", "free text 2"]


def test_levels_of_few_subjects_are_pooled_unless_declared_or_numbers():
    shown = shown_levels({"A": 11, "Berg": 10, "3": 1, "Female": 1}, ("Female", "Male"))
    assert shown == {"A": "A", "Berg": "other levels", "3": "3", "Female": "Female"}


def test_a_first_line_of_data_is_told_by_place_alone():
    assert shown_columns(["stay", "time", "Hb"]) == ["stay", "time", "Hb"]
    assert shown_columns(["Ann Berg", "0.5", "Hb"]) == ["column 1", "column 2", "column 3"]


def cohort_with_note(n_with: int):
    subjects = [f"s{k:02d}" for k in range(30)]
    rows = [(s, float(hour), "HR", 80.0 + hour) for s in subjects for hour in range(3)]
    rows += [(s, 1.5, NOTE, 1.0) for s in subjects[:n_with]]
    table = pd.DataFrame(rows, columns=["subject_id", "time", "variable", "value"])
    ward = np.where(np.arange(30) < 14, "A", "B").astype(object)
    ward[0] = "Berg, by the window"
    return read_cohort(table, statics=pd.DataFrame({"subject_id": subjects, "ward": ward}))


def test_a_fingerprint_and_a_drift_tell_no_note_and_no_level_of_one_subject():
    few, many = cohort_with_note(3), cohort_with_note(20)
    assert names_of(few) == {"HR": "HR", NOTE: "free text 1"}
    assert names_of(many)[NOTE] == NOTE
    found = few.fingerprint()
    assert [v["name"] for v in found["variables"]] == ["HR", "free text 1"]
    assert found["statics"][0]["levels"] == {"A": 13, "B": 16, "other levels": "1-10"}
    assert "Berg" not in repr(found)
    assert NOTE not in repr(compare_fingerprint(found, few).to_dict())
    told = compare_fingerprint(many.fingerprint(), few).to_pandas()
    assert "absent" not in set(told["kind"]), "a name that the training part shows is found here"
