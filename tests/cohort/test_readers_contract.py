"""What every reader promises; a format without an example here fails."""

import numpy as np
import pandas as pd
import pytest

from clinode.cohort import Cohort, read_cohort
from clinode.cohort.read import FORMATS

T0 = pd.Timestamp("2100-01-01")


def events(seed=0, n_subjects=12, n_rows=240):
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "subject": generator.integers(1, n_subjects + 1, n_rows),
            "minute": generator.integers(0, 2880, n_rows),
            "variable": generator.choice(["HR", "Temp", "K"], n_rows),
        }
    ).assign(
        value=lambda t: np.round(
            generator.uniform(30, 40, n_rows) / (1 + 9 * (t["variable"] == "K")), 1
        )
    )


def labels(seed=0, n_subjects=12):
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {"subject": np.arange(1, n_subjects + 1), "died": generator.integers(0, 2, n_subjects)}
    )


def long_example(folder, table, outcome):
    table = table.rename(columns={"subject": "subject_id"}).assign(time=table["minute"] / 60)
    table.drop(columns="minute").to_csv(folder / "observations.csv", index=False)
    outcome.rename(columns={"subject": "subject_id"}).to_csv(folder / "outcomes.csv", index=False)
    return {"path": folder, "format": "long"}


def wide_example(folder, table, outcome):
    order = table[["subject", "minute"]].drop_duplicates()
    wide = table.groupby(["subject", "minute", "variable"])["value"].mean().unstack()
    wide = wide.loc[pd.MultiIndex.from_frame(order)].reset_index()
    wide = wide.rename(columns={"subject": "subject_id"}).assign(time=wide["minute"] / 60)
    wide.drop(columns="minute").to_parquet(folder / "observations.parquet", index=False)
    outcome.rename(columns={"subject": "subject_id"}).to_csv(folder / "outcomes.csv", index=False)
    return {"path": folder, "format": "wide"}


def physionet2012_example(folder, table, outcome):
    records = folder / "set-a"
    records.mkdir()
    for subject in outcome["subject"]:
        held = table[table["subject"] == subject]
        lines = [f"00:00,RecordID,{subject}"]
        lines += [
            f"{m // 60:02d}:{m % 60:02d},{v},{x}"
            for m, v, x in zip(held["minute"], held["variable"], held["value"], strict=True)
        ]
        text = "\n".join(["Time,Parameter,Value", *lines, ""])
        (records / f"{subject}.txt").write_text(text)
    frame = outcome.rename(columns={"subject": "RecordID", "died": "In-hospital_death"})
    for name in ("SAPS-I", "SOFA", "Length_of_stay", "Survival"):
        frame.insert(1, name, 5)
    frame.to_csv(folder / "Outcomes-a.txt", index=False)
    return {"path": records, "format": "physionet2012"}


def meds_example(folder, table, outcome):
    codes = {"HR": "LAB//220045//bpm", "Temp": "LAB//223762//°C", "K": "LAB//50971//mEq/L"}
    time = T0 + pd.to_timedelta(table["minute"], unit="min")
    frame = pd.DataFrame(
        {
            "subject_id": table["subject"],
            "time": time,
            "code": table["variable"].map(codes),
            "numeric_value": table["value"],
        }
    )
    stays = pd.DataFrame({"subject_id": outcome["subject"], "time": T0, "code": "ICU_ADMISSION//A"})
    died = outcome["died"].map({0: "HOSPITAL_DISCHARGE//HOME", 1: "HOSPITAL_DISCHARGE//DIED"})
    ends = pd.DataFrame(
        {"subject_id": outcome["subject"], "time": T0 + pd.Timedelta(hours=99), "code": died}
    )
    frame = pd.concat([frame, stays, ends]).astype({"time": "datetime64[us]"})
    (folder / "data").mkdir()
    (folder / "metadata").mkdir()
    frame.to_parquet(folder / "data" / "0.parquet", index=False)
    return {"path": folder, "format": "meds"}


def mimic4_example(folder, table, outcome):
    """HR and temperature are charted, potassium is of the laboratory."""
    items = {"HR": (220045, "bpm"), "Temp": (223762, "°C"), "K": (50971, "mEq/L")}
    time = T0 + pd.to_timedelta(table["minute"], unit="min")
    rows = pd.DataFrame(
        {
            "subject_id": table["subject"] + 100,
            "stay_id": table["subject"],
            "charttime": time.dt.strftime("%Y-%m-%d %H:%M:%S"),
            "itemid": [items[name][0] for name in table["variable"]],
            "valuenum": table["value"],
            "valueuom": [items[name][1] for name in table["variable"]],
        }
    )
    person = outcome["subject"] + 100
    stay = {"subject_id": person, "hadm_id": person + 100, "stay_id": outcome["subject"]}
    tables = {
        "hosp/patients": pd.DataFrame(
            {"subject_id": person, "gender": "F", "anchor_age": 60, "anchor_year": 2100}
        ),
        "hosp/admissions": pd.DataFrame(stay).assign(
            deathtime="", hospital_expire_flag=outcome["died"], race="OTHER"
        ),
        "hosp/labevents": rows[rows["itemid"] == 50971].drop(columns="stay_id"),
        "icu/icustays": pd.DataFrame(stay).assign(
            intime=str(T0), outtime=str(T0 + pd.Timedelta(hours=99)), first_careunit="MICU"
        ),
        "icu/chartevents": rows[rows["itemid"] != 50971],
    }
    for name, frame in tables.items():
        (folder / name).parent.mkdir(exist_ok=True)
        frame.to_csv(folder / f"{name}.csv.gz", index=False)
    return {"path": folder, "format": "mimic4"}


def eicu_example(folder, table, outcome):
    """HR and temperature are vital signs, potassium is of the laboratory."""
    offset = table[["subject", "minute"]].rename(columns={"subject": "patientunitstayid"})
    column = {"HR": "heartrate", "Temp": "temperature"}
    vitals = [
        offset[own]
        .rename(columns={"minute": "observationoffset"})
        .assign(**{column[name]: table["value"][own]})
        for name in column
        for own in [table["variable"] == name]
    ]
    pd.concat(vitals).to_csv(folder / "vitalPeriodic.csv", index=False)
    own = table["variable"] == "K"
    lab = offset[own].rename(columns={"minute": "labresultoffset"})
    lab = lab.assign(labname="potassium", labresult=table["value"], labmeasurenamesystem="mmol/L")
    lab.to_csv(folder / "lab.csv", index=False)
    pd.DataFrame(
        {
            "patientunitstayid": outcome["subject"],
            "uniquepid": outcome["subject"].map("002-{}".format),
            "unitdischargeoffset": 9999,
            "gender": "Female",
            "age": "> 89",
            "hospitaldischargestatus": outcome["died"].map({0: "Alive", 1: "Expired"}),
            "unitdischargestatus": "Alive",
        }
    ).to_csv(folder / "patient.csv", index=False)
    return {"path": folder, "format": "eicu"}


def cohort_example(folder, table, outcome):
    tables = folder / "tables"
    tables.mkdir()
    read_cohort(**long_example(tables, table, outcome)).save(folder / "saved")
    return {"path": folder / "saved", "format": "cohort"}


EXAMPLES = {
    "long": long_example,
    "wide": wide_example,
    "physionet2012": physionet2012_example,
    "meds": meds_example,
    "mimic4": mimic4_example,
    "eicu": eicu_example,
    "cohort": cohort_example,
}


def test_every_format_has_an_example():
    assert set(EXAMPLES) == set(FORMATS)


@pytest.fixture(params=sorted(EXAMPLES))
def read(request, tmp_path):
    """Writes a table in one format, and reads it."""
    made = iter(range(100))

    def write_and_read(table, outcome, **options) -> Cohort:
        folder = tmp_path / str(next(made))
        folder.mkdir()
        return read_cohort(**EXAMPLES[request.param](folder, table, outcome), **options)

    return write_and_read


def tables_of(cohort):
    arrays = cohort.arrays()
    held = {name: getattr(arrays, name).tobytes() for name in arrays.__dataclass_fields__}
    return {**held, "statics": cohort.statics.to_csv(), "subjects": cohort.subjects.tolist()}


def test_the_format_is_found_out(tmp_path):
    for name, example in EXAMPLES.items():
        folder = tmp_path / name
        folder.mkdir()
        place = example(folder, events(), labels())["path"]
        expected = "long" if name == "cohort" else name  # of what the cohort was saved from
        assert read_cohort(place).source["format"] == expected


def test_the_order_of_rows_means_nothing(read):
    table, outcome = events(), labels()
    expected = read(table, outcome)
    for seed in (1, 2):
        again = read(
            table.sample(frac=1.0, random_state=seed), outcome.sample(frac=1.0, random_state=seed)
        )
        assert again.fingerprint() == expected.fingerprint()
        assert again.ledger == expected.ledger


def test_outcomes_change_nothing_else(read):
    table = events()
    one, other = read(table, labels(0)), read(table, labels(5))
    assert tables_of(one) == tables_of(other)
    assert one.outcomes.iloc[:, -1].tolist() != other.outcomes.iloc[:, -1].tolist()


def test_what_comes_later_changes_nothing_before(read):
    table, outcome = events(), labels()
    later = table["minute"] > 1440
    changed = table.assign(value=np.where(later, table["value"] + 0.1, table["value"]))
    one, other = read(table, outcome).observations, read(changed, outcome).observations
    early = [frame[frame["time"] <= 24].reset_index(drop=True) for frame in (one, other)]
    pd.testing.assert_frame_equal(*early)
    assert not one.equals(other)


def test_added_subjects_change_no_other(read):
    table, outcome = events(), labels()
    half = outcome["subject"] <= 6
    expected = read(table[table["subject"] <= 6], outcome[half])
    found = read(table, outcome)
    part = found.select(expected.subjects)
    assert tables_of(part) == tables_of(expected)


def test_every_row_is_accounted_for(read):
    cohort = read(events(), labels())
    assert cohort.ledger.balanced
    assert cohort.ledger.rows("observations", "kept") == cohort.n_observations
