"""A small made-up cohort, for this folder's tests and for the processes that they kill."""

import numpy as np
import pandas as pd

from clinode.cohort import Cohort

VARIABLES = ("HR", "MAP", "Lactate", "Creatinine")


def make_tables(n_subjects: int, seed: int = 0, first_id: int = 1) -> dict[str, pd.DataFrame]:
    """Two days of irregular measurements; the outcome depends on age, lactate and heart rate."""
    generator = np.random.default_rng(seed)
    subjects = np.arange(first_id, first_id + n_subjects)
    age = generator.uniform(20, 90, n_subjects)
    severity = generator.normal(size=n_subjects) + (age - 60) / 30
    center = np.stack(
        [90 + 12 * severity, 80 - 8 * severity, np.exp(0.5 + 0.5 * severity), np.ones(n_subjects)]
    )
    count = generator.poisson(6, (n_subjects, len(VARIABLES)))
    subject, variable = np.indices(count.shape)
    subject = np.repeat(subject.ravel(), count.ravel())
    variable = np.repeat(variable.ravel(), count.ravel())
    noise = np.array([8.0, 6.0, 0.3, 0.2])[variable] * generator.normal(size=len(subject))
    time = np.round(generator.uniform(0, 48, len(subject)), 4)
    observations = pd.DataFrame(
        {
            "subject_id": subjects[subject],
            "time": time,
            "variable": np.array(VARIABLES)[variable],
            "value": np.maximum(center[variable, subject] + noise, 0.5),
        }
    )
    statics = pd.DataFrame(
        {
            "subject_id": subjects,
            "Age": age,
            "Gender": generator.integers(0, 2, n_subjects).astype(float),
        }
    )
    died = generator.random(n_subjects) < 1 / (1 + np.exp(1 - 2 * severity))
    outcomes = pd.DataFrame({"subject_id": subjects, "died": died.astype(float)})
    return {
        "observations": observations.sort_values(["subject_id", "time"], ignore_index=True),
        "statics": statics,
        "outcomes": outcomes,
    }


def make_cohort(n_subjects: int, seed: int = 0, first_id: int = 1) -> Cohort:
    """The tables as a cohort."""
    tables = make_tables(n_subjects, seed, first_id)
    return Cohort.from_tables(
        tables["observations"], statics=tables["statics"], outcomes=tables["outcomes"]
    )
