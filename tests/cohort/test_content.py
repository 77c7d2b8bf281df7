"""The hashes of a cohort tell of its content, and of nothing else."""

import numpy as np
import pandas as pd
import pytest

import clinode as cn
from clinode.cohort import Cohort
from clinode.cohort.content import content_hash, content_hashes

TABLES = ("observations", "statics", "inputs", "outcomes")


def tables():
    """A small cohort with all four tables; two subjects share a first time."""
    generator = np.random.default_rng(4)
    subject = np.repeat(np.arange(1, 21), 10)
    return {
        "observations": pd.DataFrame(
            {
                "subject_id": subject,
                "time": np.tile(np.repeat(np.arange(5.0), 2), 20),
                "variable": np.tile(["HR", "Temp"], 100),
                "value": generator.uniform(36, 40, 200).round(2),
            }
        ),
        "statics": pd.DataFrame(
            {
                "subject_id": np.arange(1, 21),
                "Age": generator.integers(20, 90, 20).astype(float),
                "Unit": ["A", "B"] * 10,
            }
        ),
        "inputs": pd.DataFrame(
            {
                "subject_id": [1, 1, 2],
                "start": [0.5, 1.0, 2.0],
                "end": [1.5, np.nan, 3.0],
                "variable": "fluid",
                "value": [1.0, 2.0, 3.0],
            }
        ),
        "outcomes": pd.DataFrame(
            {"subject_id": np.arange(1, 21), "died": generator.integers(0, 2, 20)}
        ),
    }


def cohort_of(**held):
    return Cohort.from_tables(held.pop("observations"), **held)


@pytest.fixture(scope="module")
def before():
    return content_hashes(cohort_of(**tables()))


def different(before, **held):
    after = content_hashes(cohort_of(**held))
    assert set(after) == set(before)
    return {name for name in before if after[name] != before[name]}


def test_neither_the_order_of_rows_nor_the_format_of_the_files_matters(before, tmp_path):
    shuffled = {name: t.sample(frac=1, random_state=1) for name, t in tables().items()}
    assert not different(before, **shuffled)
    found = []
    for end in ("csv", "parquet"):
        folder = tmp_path / end
        folder.mkdir()
        for name, table in shuffled.items():
            path = folder / f"{name}.{end}"
            table.to_csv(path, index=False) if end == "csv" else table.to_parquet(path, index=False)
        found.append(cn.read_cohort(folder))
    assert content_hashes(found[0]) == content_hashes(found[1]) == before
    found[0].save(tmp_path / "saved")
    assert content_hash(cn.read_cohort(tmp_path / "saved")) == content_hash(found[0])


def test_a_part_has_the_hash_of_the_same_subjects_alone():
    held, few = tables(), [3, 4, 11]
    part = cohort_of(**held).select(few)
    alone = cohort_of(**{name: t[t["subject_id"].isin(few)] for name, t in held.items()})
    theirs = content_hashes(alone)
    # without one of them the treatments have no variable, so that the schemas differ
    same = ("observations", "statics", "outcomes", "subjects")
    assert [content_hashes(part)[name] for name in same] == [theirs[name] for name in same]


@pytest.mark.parametrize(
    ("table", "column"),
    [("statics", "Age"), ("inputs", "value"), ("inputs", "end"), ("outcomes", "died")],
)
def test_one_changed_cell_changes_the_hash_of_its_table_alone(before, table, column):
    held = tables()
    held[table].loc[0, column] = 1 - held[table].loc[0, column]
    assert different(before, **held) == {table}


def test_a_text_and_a_missing_cell_count(before):
    for table, column, value in (("statics", "Unit", "B"), ("statics", "Age", np.nan)):
        held = tables()
        held[table].loc[0, column] = value
        assert different(before, **held) == {table}


def test_every_hash_takes_the_observations_in_so_that_none_can_be_found_by_trying(before):
    held = tables()
    held["observations"].loc[0, "value"] += 0.01
    assert different(before, **held) == set(before)


def test_the_order_of_several_outcomes_of_a_subject_does_not_matter():
    held = tables()
    times = [1.0, 2.0] * 20
    several = pd.concat([held["outcomes"]] * 2).sort_values("subject_id")
    several = several.assign(prediction_time=times, died=[0, 1] * 20)
    whole = cohort_of(**held)
    found = {
        content_hash(whole.with_outcomes(t)) for t in (several, several.iloc[::-1], several[::2])
    }
    assert len(found) == 2
