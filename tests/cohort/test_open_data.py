"""The open data sets, read whole; the counts are those that their descriptions state."""

import numpy as np
import pandas as pd
import pytest

from clinode.cohort import check, check_disjoint, read_cohort, split

COLUMNS = {"subject": "record_id", "time": "time_hours", "variable": "parameter", "value": "value"}


def needs(data_dir, name):
    folder = data_dir / name
    if not folder.is_dir():
        pytest.skip(f"the data folder has no {name}")
    return folder


def read_p12(folder, part):
    return read_cohort(
        folder / f"set-{part}.parquet",
        **COLUMNS,
        statics=folder / f"statics-{part}.csv",
        outcomes=folder / f"outcomes-{part}.csv",
    )


@pytest.fixture(scope="module")
def p12(data_dir):
    return needs(data_dir, "physionet2012")


@pytest.fixture(scope="module")
def set_a(p12):
    return read_p12(p12, "a")


def test_set_a_of_the_challenge_is_as_described(set_a):
    ledger = set_a.ledger
    assert len(set_a) == 4000
    assert ledger.balanced
    assert ledger.rows("observations", "read") == 1_757_980
    assert ledger.rows("observations", "moved") == 5 * 4000
    assert [variable.name for variable in set_a.schema.statics] == [
        *("age", "gender", "height", "icu_type", "weight")
    ]
    assert len(set_a.schema.variables) == 37
    assert int(set_a.outcomes["in_hospital_death"].sum()) == 554
    assert set_a.schema.outcomes[-2:] == ("died_within_90_days", "in_hospital_death")
    assert int((np.diff(set_a.arrays().row_start) == 0).sum()) == 3


def test_cleaning_of_set_a_follows_the_table(set_a):
    """Counted by hand from the raw file: pH 734, 735 and 733 are a hundredfold."""
    ledger = set_a.ledger
    assert ledger.rows("observations", "converted") == 3
    assert ledger.rows("observations", "dropped", "impossible value", "pH") == 8
    assert ledger.rows("observations", "dropped", "impossible value", "Temp") == 130
    assert ledger.rows("observations", "dropped", "sentinel", "Weight") == 326


def test_repeated_keys_of_set_a_take_the_mean(p12, set_a):
    raw = pd.read_parquet(p12 / "set-a.parquet")
    raw = raw[(raw["parameter"] == "MAP") & raw["value"].between(10, 250)]
    expected = raw.groupby(["record_id", "time_hours"])["value"].mean()
    found = set_a.observations.query("variable == 'MAP'").set_index(["subject_id", "time"])["value"]
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.to_numpy(), expected.sort_index().to_numpy(), rtol=1e-12)


@pytest.mark.slow
def test_the_text_layout_gives_the_cohort_of_the_parquet_copy(p12, set_a, tmp_path):
    raw = pd.read_parquet(p12 / "set-a.parquet")
    records = sorted(raw["record_id"].unique())[:300]
    raw = raw[raw["record_id"].isin(records)]
    minute = (raw["time_hours"] * 60).round().astype(int)
    clock = (minute // 60).map("{:02d}".format) + ":" + (minute % 60).map("{:02d}".format)
    number = [f"{value:g}" if value == int(value) else repr(value) for value in raw["value"]]
    lines = clock + "," + raw["parameter"].astype(str) + "," + number
    (tmp_path / "set-a").mkdir()
    for record, held in lines.groupby(raw["record_id"]):
        text = "\n".join(["Time,Parameter,Value", *held, ""])
        (tmp_path / "set-a" / f"{record}.txt").write_text(text)
    outcomes = pd.read_csv(p12 / "outcomes-a.csv")
    outcomes = outcomes[outcomes["record_id"].isin(records)]
    names = ["RecordID", "SAPS-I", "SOFA", "Length_of_stay", "Survival", "In-hospital_death"]
    outcomes.set_axis(names, axis=1).to_csv(tmp_path / "Outcomes-a.txt", index=False)
    cohort = read_cohort(tmp_path / "set-a")
    expected = set_a.select(records)
    for table in ("observations", "statics", "outcomes", "inputs"):
        one, other = getattr(cohort, table), getattr(expected, table)
        if table == "observations":
            one["variable"], other["variable"] = (
                one["variable"].astype(str),
                other["variable"].astype(str),
            )
        pd.testing.assert_frame_equal(one, other)
    assert cohort.schema.statics == expected.schema.statics


def test_a_hashed_split_of_set_a_keeps_its_shares(set_a):
    parts = split(set_a)
    check_disjoint(*parts)
    shares = np.array([len(part) for part in parts]) / len(set_a)
    np.testing.assert_allclose(shares, (0.7, 0.15, 0.15), atol=4 * np.sqrt(0.21 / 4000))


@pytest.mark.parametrize(
    ("site", "stays", "rows"), [("mimic_demo", 99, 2475), ("eicu_demo", 1367, 34175)]
)
def test_the_yaib_folders_are_wide_tables(data_dir, site, stays, rows):
    folder = needs(data_dir, "yaib_demo") / "mortality24" / site
    cohort = read_cohort(folder)
    assert len(cohort) == stays
    assert cohort.ledger.rows("observations", "read") == 48 * rows
    assert cohort.ledger.balanced
    assert len(cohort.schema.variables) == 48
    raw = pd.read_parquet(folder / "dyn.parquet")
    n_measured = int(raw.drop(columns=["stay_id", "time_hours"]).notna().to_numpy().sum())
    n_impossible = cohort.ledger.rows("observations", "dropped", "impossible value")
    assert cohort.n_observations == n_measured - n_impossible
    assert n_impossible <= 2
    assert cohort.schema.outcomes == ("label",)
    assert cohort.schema.variable("sex").levels == ("Female", "Male")


def test_hourly_outcomes_of_yaib_have_prediction_times(data_dir):
    cohort = read_cohort(needs(data_dir, "yaib_demo") / "los" / "mimic_demo")
    assert len(cohort) == 132
    assert cohort.outcomes["prediction_time"].max() == 168.0
    assert len(cohort.outcomes) == 9656


def test_the_meds_demo_has_140_stays_and_loses_no_event(data_dir):
    cohort = read_cohort(needs(data_dir, "mimic4demo_meds"))
    assert len(cohort) == 140
    assert len(set(cohort.groups.tolist())) == 100
    assert cohort.ledger.rows("events", "read") == 916_166
    assert cohort.ledger.balanced
    train, tuning, held_out = split(cohort, published=True)
    assert len(train) + len(tuning) + len(held_out) == 140
    check_disjoint(train, tuning, held_out)
    outcomes = cohort.outcomes["in_hospital_death"]
    assert set(outcomes) == {0.0, 1.0}
    temperature = cohort.observations.query("variable == 'Temp'")["value"]
    assert temperature.between(25, 45).all()
    assert abs(temperature.median() - 37) < 0.5
    assert cohort.ledger.rows("observations", "converted", "unit of the code, °F") > 3000
    assert "LAB//224641//UNK" in cohort.source["unmapped"]
    assert "mapping" in {finding["kind"] for finding in check(cohort)["findings"]}


def test_the_eicu_laboratory_table_is_a_long_one_in_minutes(data_dir):
    folder = needs(data_dir, "eicu_demo_subset")
    cohort = read_cohort(
        folder / "lab.csv.gz",
        subject="patientunitstayid",
        time="labresultoffset",
        variable="labname",
        value="labresult",
        time_unit="min",
        statics=folder / "patient.csv.gz",
        group="uniquepid",
    )
    assert len(cohort) == 174
    assert len(set(cohort.groups.tolist())) == 100
    assert cohort.ledger.rows("observations", "read") == 29_961
    assert cohort.ledger.balanced
    assert cohort.arrays().time.min() == -23_864 / 60
    assert (cohort.statics["age"] == 90.0).sum() == 4
    kinds = {finding["kind"] for finding in check(cohort)["findings"]}
    assert "time" in kinds
