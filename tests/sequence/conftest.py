import inspect

import numpy as np
import pandas as pd
import pytest
import torch

from clinode.cohort import Classify, Cohort, Forecast, PackedRecords, Preprocessor
from clinode.sequence import MODELS, SequenceModel, model_from_config

CLASSIFY = Classify("died", at=40.0, auxiliary=("stay", "later"))
FORECAST = Forecast(12.0, at=30.0)
VARIABLES = ("HR", "Lactate", "MAP", "MechVent")


def make_tables(n_subjects: int = 24, seed: int = 1, treated: bool = True) -> dict:
    """Two days of irregular measurements; one subject has none, another a single one."""
    generator = np.random.default_rng(seed)
    subjects = np.arange(1, n_subjects + 1)
    count = generator.poisson(4, (len(VARIABLES), n_subjects))
    count[:, 0] = 0
    count[:, 1] = [1, 0, 0, 0]
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
    outcomes = pd.DataFrame(
        {
            "subject_id": subjects,
            "died": np.arange(n_subjects) % 2,
            "stay": generator.uniform(1, 20, n_subjects),
            "later": generator.integers(0, 2, n_subjects),
        }
    )
    start = np.round(generator.uniform(0, 40, 2 * n_subjects), 2)
    is_dose = np.arange(2 * n_subjects) % 3 == 0
    inputs = pd.DataFrame(
        {
            "subject_id": generator.choice(subjects[1:], 2 * n_subjects),
            "start": start,
            "end": np.where(is_dose, np.nan, start + generator.uniform(1, 15, 2 * n_subjects)),
            "variable": np.where(is_dose, "insulin", "norepinephrine"),
            "value": generator.uniform(0.1, 2.0, 2 * n_subjects),
        }
    )
    return {
        "observations": observations,
        "statics": statics,
        "inputs": inputs if treated else None,
        "outcomes": outcomes,
    }


def make_records(tables: dict, task, schema: Preprocessor | None = None) -> PackedRecords:
    cohort = Cohort.from_tables(**tables)
    return PackedRecords.build(cohort, schema or Preprocessor.fit(cohort, task), task)


def make_model(records: PackedRecords, name: str, *, double: bool = True) -> SequenceModel:
    """A built model whose every parameter matters: none is left at zero."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"latent": 5, "hidden": 8}
    taken = inspect.signature(MODELS[name]).parameters
    configured = model_from_config(
        {"name": name, **{key: size for key, size in sizes.items() if key in taken}}
    )
    model = configured.build(records.schema, records.task, generator)
    model.prepare(records)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() and not parameter.any():
                parameter.normal_(0, 0.3, generator=generator)
    return model.double() if double else model


@pytest.fixture(scope="session")
def tables() -> dict:
    return make_tables()


@pytest.fixture(scope="session")
def classified(tables) -> PackedRecords:
    return make_records(tables, CLASSIFY)


@pytest.fixture(scope="session")
def forecast(tables) -> PackedRecords:
    return make_records(tables, FORECAST)


@pytest.fixture(scope="session")
def untreated() -> PackedRecords:
    return make_records(make_tables(treated=False), CLASSIFY)


@pytest.fixture(scope="session")
def build():
    return make_model


@pytest.fixture(scope="session")
def pack():
    return make_records
