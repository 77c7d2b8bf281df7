"""MEDS folders made by code: two persons, one with two stays."""

import numpy as np
import pandas as pd
import pytest

from clinode.cohort import read_cohort, split
from clinode.errors import SchemaError

T0 = pd.Timestamp("2100-01-01 00:00:00")


def at(hours):
    return T0 + pd.Timedelta(hours=hours)


PERSON_7 = [
    (7, None, "GENDER//F", None),
    (7, None, "RACE//WHITE", None),
    (7, pd.Timestamp("2050-01-01"), "MEDS_BIRTH", None),
    (7, at(0), "LAB//220045//bpm", 70.0),  # before the first stay
    (7, at(10), "HOSPITAL_ADMISSION//URGENT", None),
    (7, at(10), "ICU_ADMISSION//MICU", None),
    (7, at(10), "LAB//220045//bpm", 80.0),
    (7, at(11), "LAB//223761//°F", 98.6),
    (7, at(11), "LAB//223762//°C", 37.4),
    (7, at(12), "LAB//51003//ng/mL", 7.41),
    (7, at(12), "LAB//999999//UNK", 5.0),
    (7, at(12), "LAB//123//UNK", None),
    (7, at(12), "LAB//124//UNK", None),
    (7, at(12), "INFUSION_START//221906", 0.1),
    (7, at(13), "INFUSION_START//221906", 0.2),
    (7, at(13), "INFUSION_END//221906", 4.0),
    (7, at(14), "INFUSION_END//221906", 9.0),
    (7, at(14), "INFUSION_START//220864", None),
    (7, at(15), "INFUSION_END//220864", 250.0),
    (7, at(15), "MEDICATION//Insulin//Administered", None),
    (7, at(15), "MEDICATION//Heparin//Administered", None),
    (7, at(15), "MEDICATION//Heparin//Not Given", None),
    (7, at(15), "MEDICATION//START//Heparin", None),
    (7, at(18), "MEDICATION//STOP//Heparin", None),
    (7, at(20), "ICU_DISCHARGE//MICU", None),
    (7, at(25), "LAB//220045//bpm", 75.0),  # after it
    (7, at(30), "HOSPITAL_DISCHARGE//HOME", None),
    (7, at(30), "DIAGNOSIS//ICD//10//A047", None),
    (7, at(100), "ICU_ADMISSION//SICU", None),
    (7, at(101), "LAB//220045//bpm", 120.0),
    (7, at(103), "MEDS_DEATH", None),
    (7, at(103), "HOSPITAL_DISCHARGE//DIED", None),
]
PERSON_9 = [
    (9, None, "GENDER//M", None),
    (9, at(5), "ICU_ADMISSION//MICU", None),
    (9, at(5.5), "LAB//220045//bpm", 61.0),
]
STRANGER = [(11, None, "GENDER//M", None), (11, at(1), "LAB//220045//bpm", 61.0)]


def table(rows):
    frame = pd.DataFrame(rows, columns=["subject_id", "time", "code", "numeric_value"])
    return frame.astype({"time": "datetime64[us]", "numeric_value": "float32"})


def write(root, files, splits=None):
    for name, rows in files.items():
        path = root / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        (rows if isinstance(rows, pd.DataFrame) else table(rows)).to_parquet(path, index=False)
    (root / "metadata").mkdir(exist_ok=True)
    if splits is not None:
        frame = pd.DataFrame(splits, columns=["subject_id", "split"])
        frame.to_parquet(root / "metadata" / "subject_splits.parquet", index=False)
    return root


@pytest.fixture
def root(tmp_path):
    files = {"train/0": PERSON_7, "held_out/0": [*PERSON_9, *STRANGER]}
    return write(tmp_path / "meds", files, [(7, "train"), (9, "held_out"), (11, "held_out")])


@pytest.fixture
def cohort(root):
    return read_cohort(root)


def rows(cohort, subject, variable):
    part = cohort.observations
    part = part[(part["subject_id"] == subject) & (part["variable"] == variable)]
    return list(zip(part["time"].tolist(), part["value"].tolist(), strict=True))


def test_each_index_event_makes_a_subject_and_time_zero(cohort):
    assert cohort.subjects.tolist() == ["7-1", "7-2", "9-1"]
    assert cohort.groups.tolist() == ["7", "7", "9"]
    times = cohort.index_times.set_index("subject_id")
    assert times["person_id"].tolist() == [7, 7, 9]
    assert times["index_time"].tolist() == [at(10), at(100), at(5)]


def test_events_belong_to_the_stay_that_they_lie_in(cohort):
    assert rows(cohort, "7-1", "HR") == [(0.0, 80.0)]
    assert rows(cohort, "7-2", "HR") == [(1.0, 120.0)]
    assert rows(cohort, "9-1", "HR") == [(0.5, 61.0)]
    assert cohort.ledger.rows("events", "dropped", "outside every stay") == 3


def test_numbers_are_variables_in_the_unit_of_the_mapping(cohort):
    assert rows(cohort, "7-1", "Temp") == [(1.0, pytest.approx((37.0 + 37.4) / 2))]
    assert rows(cohort, "7-1", "TroponinT") == [(2.0, 7.41)]
    ledger = cohort.ledger
    assert ledger.rows("observations", "converted", "unit of the code, °F") == 1
    assert ledger.rows("events", "dropped", "code with a number that is not in the mapping") == 1


def test_codes_without_a_number_are_counted(cohort):
    assert rows(cohort, "7-1", "LAB (count)") == [(2.0, 2.0)]
    assert cohort.schema.variable("LAB (count)").kind == "count"
    assert cohort.ledger.rows("events", "merged", "counted together at one time") == 1


def test_what_is_known_only_after_a_stay_is_never_observed(cohort):
    names = " ".join(variable.name for variable in cohort.schema.variables)
    for word in ("DISCHARGE", "DEATH", "DIAGNOSIS", "ADMISSION"):
        assert word not in names


def test_events_without_a_time_and_the_age_are_statics(cohort):
    statics = cohort.statics.set_index("subject_id")
    assert statics["gender"].tolist() == [0.0, 0.0, 1.0]
    assert statics["race"].tolist()[:2] == ["WHITE", "WHITE"]
    assert statics["icu_admission"].tolist() == ["MICU", "SICU", "MICU"]
    assert statics.loc["7-1", "age"] == pytest.approx(50.0, abs=0.01)
    assert cohort.ledger.rows("events", "dropped", "person without a stay") == 1


def test_infusions_and_medications_are_inputs(cohort):
    given = cohort.inputs
    given = given[given["subject_id"] == "7-1"]
    found = {
        (row.variable, row.start, None if np.isnan(row.end) else row.end, row.value)
        for row in given.itertuples()
    }
    assert found == {
        ("norepinephrine", 2.0, 3.0, 0.1),
        ("norepinephrine", 3.0, 4.0, 0.2),
        ("albumin 5% (amount)", 5.0, None, 250.0),
        ("medication given", 5.0, None, 2.0),
        ("medication order", 5.0, 8.0, 1.0),
    }
    assert cohort.schema.variable("norepinephrine").unit == "ug/kg/min"


def test_an_amount_is_never_known_before_the_infusion_ended(root):
    """What happens after an hour must not change an input that began before it."""
    early = [row for row in PERSON_7 if row[1] is None or row[1] <= at(14.5)]
    write(root, {"train/0": early})
    given = read_cohort(root).inputs
    assert "albumin 5% (amount)" not in given["variable"].tolist()


def test_death_in_hospital_is_derived_from_the_discharge_that_follows(cohort):
    outcomes = cohort.outcomes.set_index("subject_id")["in_hospital_death"]
    assert outcomes["7-1"] == 0.0
    assert outcomes["7-2"] == 1.0
    assert np.isnan(outcomes["9-1"])


def test_every_event_is_accounted_for(cohort):
    assert cohort.ledger.rows("events", "read") == len(PERSON_7) + len(PERSON_9) + len(STRANGER)
    assert cohort.ledger.balanced


def test_published_splits_follow_the_person(cohort):
    train, held_out = split(cohort, published=True)
    assert train.subjects.tolist() == ["7-1", "7-2"]
    assert held_out.subjects.tolist() == ["9-1"]
    for part in split(cohort, (0.5, 0.5)):
        assert len({*part.groups.tolist()} & {"7"}) in (0, 1)
        assert ("7-1" in part.subjects.tolist()) == ("7-2" in part.subjects.tolist())


def test_labels_stand_in_the_stay_of_their_prediction_time(root):
    labels = pd.DataFrame(
        {
            "subject_id": [7, 7, 9, 7, 9],
            "prediction_time": [at(20), at(101), at(5), at(50), at(1)],
            "boolean_value": [True, False, True, True, True],
        }
    )
    (root / "labels").mkdir()
    labels.iloc[:2].to_parquet(root / "labels" / "0.parquet")
    labels.iloc[2:].to_parquet(root / "labels" / "1.parquet")
    cohort = read_cohort(root, outcomes=root / "labels")
    outcomes = cohort.outcomes
    assert outcomes["subject_id"].tolist() == ["7-1", "7-2", "9-1"]
    assert outcomes["prediction_time"].tolist() == [10.0, 1.0, 0.0]
    assert outcomes["boolean_value"].tolist() == [1.0, 0.0, 1.0]
    assert cohort.ledger.rows("outcomes", "dropped", "outside every stay") == 2
    assert cohort.ledger.balanced
    again = read_cohort(root, outcomes=labels.sample(frac=1.0, random_state=1))
    pd.testing.assert_frame_equal(again.outcomes, outcomes)


def test_labels_without_a_value_column_are_refused(root):
    labels = pd.DataFrame({"subject_id": [7], "prediction_time": [at(20)]})
    with pytest.raises(SchemaError, match="none of the columns boolean_value"):
        read_cohort(root, outcomes=labels)
    with pytest.raises(SchemaError, match="no column 'prediction_time'"):
        read_cohort(root, outcomes=labels[["subject_id"]])


def test_another_index_event_makes_other_stays(root):
    cohort = read_cohort(root, index="HOSPITAL_ADMISSION")
    assert cohort.subjects.tolist() == ["7-1"]
    assert rows(cohort, "7-1", "HR") == [(0.0, 80.0), (15.0, 75.0)]
    cohort = read_cohort(root, index="ICU_ADMISSION//MICU", until="MEDS_DEATH")
    assert rows(cohort, "7-1", "HR") == [(0.0, 80.0), (15.0, 75.0), (91.0, 120.0)]


def test_an_index_event_that_never_happens_is_refused_with_those_that_do(root):
    with pytest.raises(SchemaError, match="no event is called 'ED'; codes begin with DIAGNOSIS"):
        read_cohort(root, index="ED")


def test_a_mapping_of_ones_own_takes_the_place_of_the_shipped_one(root):
    mapping = pd.DataFrame(
        {
            "code": ["LAB//220045//bpm", "LAB//999999//UNK", "INFUSION_START//221906"],
            "variable": ["pulse per second", "mine", "pressor"],
            "role": ["observation", "observation", "input"],
            "scale": [1 / 60, 1.0, 1.0],
        }
    )
    cohort = read_cohort(root, mapping=mapping)
    assert rows(cohort, "7-1", "pulse per second") == [(0.0, 80.0 / 60)]
    assert rows(cohort, "7-1", "mine") == [(2.0, 5.0)]
    assert "pressor" in cohort.inputs["variable"].tolist()
    assert cohort.ledger.balanced
    for wrong, words in (
        (mapping.drop(columns="variable"), "no column 'variable'"),
        (mapping.assign(role="thing"), "row 1, column 'role'"),
        (pd.concat([mapping, mapping]), "row 4 repeats a code"),
    ):
        with pytest.raises(SchemaError, match=words):
            read_cohort(root, mapping=wrong)


def test_a_person_in_two_files_is_refused_and_both_are_named(root):
    write(root, {"tuning/0": [(9, at(7), "LAB//220045//bpm", 60.0)]})
    words = "a subject stands in data/held_out/0.parquet and in data/tuning/0.parquet"
    with pytest.raises(SchemaError, match=words):
        read_cohort(root)


def test_rows_out_of_order_are_sorted_and_counted_and_strictly_refused(root, cohort):
    shuffled = table(PERSON_7).sample(frac=1.0, random_state=0)
    write(root, {"train/0": shuffled})
    again = read_cohort(root)
    assert again.fingerprint() == cohort.fingerprint()
    assert again.source["out_of_order"]["events"] > 0
    swapped = table([*PERSON_7[:6], PERSON_7[7], PERSON_7[6], *PERSON_7[8:]])
    write(root, {"train/0": swapped})
    with pytest.raises(SchemaError, match="row 8 lies before the row above it") as caught:
        read_cohort(root, strict=True)
    assert caught.value.where == "data/train/0.parquet"


def test_files_of_other_names_give_the_same_cohort(root, cohort, tmp_path):
    half = [*PERSON_9, *STRANGER]
    other = write(tmp_path / "other", {"z/1": PERSON_7, "a/0": half[:3], "b/c/9": half[3:]})
    again = read_cohort(other)
    for name in ("observations", "statics", "inputs", "outcomes"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(cohort, name))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="code"), "there is no column 'code'"),
        (lambda t: t.assign(subject_id=t["subject_id"].astype(str)), "holds no whole numbers"),
        (lambda t: t.assign(time=0.0), "holds no timestamps"),
        (lambda t: t.assign(code=[*t["code"][:-1], None]), "row 32 has no subject_id or no code"),
    ],
)
def test_a_file_that_breaks_the_standard_is_named(root, change, words):
    write(root, {"train/0": change(table(PERSON_7))})
    with pytest.raises(SchemaError, match=words) as caught:
        read_cohort(root)
    assert caught.value.where == "data/train/0.parquet"


def test_a_person_in_two_published_splits_is_refused(root):
    splits = pd.DataFrame({"subject_id": [7, 7, 9], "split": ["train", "held_out", "train"]})
    splits.to_parquet(root / "metadata" / "subject_splits.parquet")
    with pytest.raises(SchemaError, match="a subject is in two splits") as caught:
        read_cohort(root)
    assert caught.value.where == "subject_splits.parquet"


def test_files_in_the_wild_are_cast(root, cohort):
    """float64 numbers, nanoseconds, large strings and further columns are no fault."""
    frame = table(PERSON_7).astype({"numeric_value": "float64", "time": "datetime64[ns]"})
    write(root, {"train/0": frame.assign(text_value="x", hadm_id=1)})
    again = read_cohort(root)
    assert again.subjects.tolist() == cohort.subjects.tolist()
    np.testing.assert_allclose(again.arrays().value, cohort.arrays().value, rtol=1e-6)


def test_a_folder_of_codes_without_numbers_is_read_too(tmp_path):
    rows = [(1, at(0), "ICU_ADMISSION//A", None), (1, at(1), "PROCEDURE//X", None)]
    root = write(tmp_path / "meds", {"0": table(rows).drop(columns="numeric_value")})
    cohort = read_cohort(root)
    assert cohort.observations["variable"].tolist() == ["PROCEDURE (count)"]
    assert cohort.splits is None
