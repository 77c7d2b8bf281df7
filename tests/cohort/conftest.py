import numpy as np
import pandas as pd
import pytest

from clinode.cohort import Cohort

VARIABLES = ("HR", "Lactate", "MAP", "MechVent")


def make_tables(n_subjects: int = 40, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Two days of irregular measurements with statics, treatments and two prediction times."""
    generator = np.random.default_rng(seed)
    subjects = np.arange(1, n_subjects + 1)
    count = generator.poisson(5, (len(VARIABLES), n_subjects))
    count[:, 0] = 0  # a record without any observation
    count[:, 1] = [1, 0, 0, 0]  # and one with a single one
    variable, subject = (np.repeat(part.ravel(), count.ravel()) for part in np.indices(count.shape))
    center = np.array([90.0, 1.5, 80.0, 1.0])[variable]
    spread = np.array([9.0, 0.5, 7.0, 0.0])[variable]
    observations = pd.DataFrame(
        {
            "subject_id": subjects[subject],
            "time": np.round(generator.uniform(0, 48, len(subject)), 2),
            "variable": np.array(VARIABLES)[variable],
            "value": np.maximum(center + spread * generator.normal(size=len(subject)), 0.3),
        }
    )
    statics = pd.DataFrame(
        {
            "subject_id": subjects,
            "age": generator.uniform(20, 90, n_subjects),
            "icu_type": generator.integers(1, 5, n_subjects).astype(float),
        }
    )
    statics.loc[2, "age"] = np.nan
    statics.loc[3, "icu_type"] = np.nan
    start = np.round(generator.uniform(0, 44, 2 * n_subjects), 2)
    end = start + np.round(generator.uniform(0.5, 15, 2 * n_subjects), 2)
    is_dose = np.arange(2 * n_subjects) % 3 == 0
    inputs = pd.DataFrame(
        {
            "subject_id": generator.choice(subjects, 2 * n_subjects),
            "start": start,
            "end": np.where(is_dose, np.nan, end),
            "variable": np.where(is_dose, "insulin", "norepinephrine"),
            "value": generator.uniform(0.1, 2.0, 2 * n_subjects),
        }
    )
    outcomes = pd.DataFrame(
        {
            "subject_id": np.repeat(subjects, 2),
            "prediction_time": np.tile([24.0, 48.0], n_subjects),
            "died": generator.integers(0, 2, 2 * n_subjects).astype(float),
        }
    )
    return {
        "observations": observations,
        "statics": statics,
        "inputs": inputs,
        "outcomes": outcomes,
    }


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    return make_tables()


@pytest.fixture(scope="module")
def treated() -> Cohort:
    return Cohort.from_tables(**make_tables())
