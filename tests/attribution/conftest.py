from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from clinode.cohort import Classify, Cohort
from clinode.sequence import LinearLatentODE, Readout, SequenceModel
from clinode.training import FitConfig, fit

VARIABLES = ("HR", "MAP", "Lactate", "HCT", "MechVent")


def make_tables(n_subjects: int, seed: int, first_id: int) -> dict[str, Any]:
    """Two days of measurements with statics, treatments, gaps and two prediction times for some."""
    generator = np.random.default_rng(seed)
    subjects = np.arange(first_id, first_id + n_subjects)
    severity = generator.normal(size=n_subjects)
    center = np.stack(
        [
            88 + 10 * severity,
            82 - 9 * severity,
            np.exp(0.6 + 0.4 * severity),
            36 + severity,
            np.ones(n_subjects),
        ]
    )
    spread = np.array([8.0, 6.0, 0.3, 2.0, 0.0])
    count = generator.poisson(6, center.shape)
    count[:, 0] = 0  # a record without any observation
    variable, subject = (np.repeat(part.ravel(), count.ravel()) for part in np.indices(count.shape))
    value = center[variable, subject] + spread[variable] * generator.normal(size=len(variable))
    observations = pd.DataFrame(
        {
            "subject_id": subjects[subject],
            "time": np.round(generator.uniform(0, 48, len(subject)), 3),
            "variable": np.array(VARIABLES)[variable],
            "value": np.maximum(value, 0.4),
        }
    )
    age = generator.uniform(20, 90, n_subjects)
    age[1] = np.nan
    statics = pd.DataFrame(
        {
            "subject_id": subjects,
            "age": age,
            "gender": generator.integers(0, 2, n_subjects).astype(float),
            "icu_type": generator.integers(1, 5, n_subjects).astype(float),
        }
    )
    statics.loc[2, ["gender", "icu_type"]] = np.nan
    n_rates, n_doses = n_subjects, n_subjects // 2
    start = generator.uniform(0, 40, n_rates)
    inputs = pd.DataFrame(
        {
            "subject_id": generator.choice(subjects, n_rates + n_doses),
            "start": np.r_[start, generator.uniform(0, 46, n_doses)],
            "end": np.r_[start + generator.uniform(1, 12, n_rates), np.full(n_doses, np.nan)],
            "variable": ["norepinephrine"] * n_rates + ["insulin"] * n_doses,
            "value": np.r_[generator.uniform(0.1, 1, n_rates), generator.uniform(2, 8, n_doses)],
        }
    )
    died = generator.random(n_subjects) < 1 / (1 + np.exp(1 - 2 * severity))
    outcomes = pd.DataFrame(
        {"subject_id": subjects, "prediction_time": 40.0, "died": died.astype(float)}
    )
    earlier = outcomes.iloc[:5].assign(prediction_time=20.0)
    return {
        "observations": observations,
        "statics": statics,
        "inputs": inputs,
        "outcomes": pd.concat([outcomes, earlier], ignore_index=True),
    }


def make_cohort(n_subjects: int, seed: int, first_id: int = 1) -> Cohort:
    return Cohort.from_tables(**make_tables(n_subjects, seed, first_id))


@pytest.fixture(scope="session")
def tables():
    """The tables that `cohort` is made of."""
    return make_tables(14, seed=1, first_id=1001)


@pytest.fixture(scope="session")
def cohort(tables) -> Cohort:
    return Cohort.from_tables(**tables)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A small fitted run of the default family; nobody may change it."""
    model = LinearLatentODE(latent=4, hidden=8, statistics_hidden=8, head_hidden=8, static_code=4)
    config = FitConfig(epochs=4, batch_size=16, bucket_batches=2, learning_rate=1e-2)
    out = tmp_path_factory.mktemp("runs") / "death"
    train = make_cohort(50, seed=0)
    return fit(model, train, task=Classify("died"), out=out, config=config, progress=False)


class AdditiveModel(SequenceModel):
    """Logit = bias + sum over cells of weight (1 + time / 10) value + statics + treatments.

    Its attributions have a closed form, whatever the baseline.
    """

    name = "additive"

    def __init__(self):
        super().__init__({})

    def sized(self, schema, task):
        self.schema, self.task = schema, task
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.nn.Parameter(torch.randn(len(schema.variables), generator=generator))
        self.static = torch.nn.Parameter(torch.randn(len(schema.statics), generator=generator))
        self.given = torch.nn.Parameter(torch.randn(len(schema.inputs), generator=generator))
        return self

    def forward(self, batch):
        by_row = (batch.value * self.weight).sum(1) * (1 + batch.time / 10).to(batch.dtype)
        logit = torch.full((len(batch),), 0.25, dtype=batch.dtype)
        logit = logit.index_add(0, batch.row_subject, by_row)
        logit = logit + batch.static @ self.static
        treatments = batch.treatments
        assert treatments is not None
        drive = treatments.value * self.given[treatments.input_index]
        logit = logit.index_add(0, treatments.subject, drive)
        return Readout(value=logit.unsqueeze(1), next_observation=torch.zeros_like(batch.value))


# it is only ever asked for its forward pass, whatever else the interface demands
AdditiveModel.__abstractmethods__ = frozenset()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture(scope="session")
def additive_run(run):
    """The run with a model whose attributions are known in closed form."""
    model = AdditiveModel()  # pyright: ignore[reportAbstractUsage]  # see above
    return replace(run, model=model.sized(run.schema, run.task))
