"""Fits that start from another run, and labels that count for more than one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from clinode.cohort import Classify, Cohort, Forecast, PackedRecords, Preprocessor, task_from_dict
from clinode.errors import ArgumentError, OutputError
from clinode.sequence import GRUD, LinearLatentODE
from clinode.training import FitConfig, fit
from clinode.training.start import scaled_like, take_weights

from .test_distributed import make_cohort

SMALL = {"latent": 3, "hidden": 4, "statistics_hidden": 4, "head_hidden": 4}
CONFIG = FitConfig(epochs=2, batch_size=16, bucket_batches=2)
TASK = Classify("died", at=30.0)


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return make_cohort(40)


@pytest.fixture(scope="module")
def forecasting(tmp_path_factory, cohort):
    return fit(
        LinearLatentODE(**SMALL),
        cohort,
        task=Forecast(8.0, at=30.0),
        out=tmp_path_factory.mktemp("runs") / "forecast",
        config=CONFIG,
        progress=False,
    )


def test_all_but_the_head_is_taken_over(forecasting, cohort):
    schema = scaled_like(Preprocessor.fit(cohort, TASK), forecasting)
    assert schema.transform == forecasting.schema.transform
    assert schema.scale == forecasting.schema.scale
    model = LinearLatentODE(**SMALL).build(schema, TASK, torch.Generator().manual_seed(9))
    drawn = {name: value.clone() for name, value in model.state_dict().items()}
    take_weights(model, forecasting)
    there = forecasting.model.state_dict()
    for name, value in model.state_dict().items():
        is_own = name.startswith(("head.", "latent_"))
        assert torch.equal(value, drawn[name] if is_own else there[name])


def test_a_fit_remembers_where_it_started(forecasting, cohort, tmp_path):
    out = tmp_path / "death"
    run = fit(
        LinearLatentODE(**SMALL),
        cohort,
        task=TASK,
        out=out,
        config=CONFIG,
        start_from=forecasting.folder,
        progress=False,
    )
    stored = yaml.safe_load((out / "config.yaml").read_text())
    assert stored["start_from"] == forecasting.weights_sha256
    assert run.schema.scale == forecasting.schema.scale
    assert run.predict(cohort)["probability"].between(0, 1).all()
    with pytest.raises(OutputError, match=r"start_from is [0-9a-f]+ there, None here"):
        fit(LinearLatentODE(**SMALL), cohort, task=TASK, out=out, config=CONFIG, progress=False)


def test_a_run_that_does_not_fit_is_refused_in_words(forecasting, cohort):
    schema = scaled_like(Preprocessor.fit(cohort, TASK), forecasting)
    generator = torch.Generator().manual_seed(0)
    other = GRUD(hidden=4).build(schema, TASK, generator)
    with pytest.raises(ArgumentError, match="holds a linear-latent-ode, and this model is a gru-d"):
        take_weights(other, forecasting)
    wider = LinearLatentODE(**{**SMALL, "latent": 5}).build(schema, TASK, generator)
    with pytest.raises(ArgumentError, match="have another size here, such as"):
        take_weights(wider, forecasting)
    renamed = replace(schema, variables=("first", "third"))
    with pytest.raises(ArgumentError, match=r"its variables are not those .* such as 'second'"):
        scaled_like(renamed, forecasting)


@pytest.mark.parametrize("weight", [None, 3.0, "balanced"])
def test_a_positive_label_counts_as_much_as_is_said(cohort, weight):
    task = Classify("died", at=30.0, auxiliary=("stay",), class_weight=weight)
    records = PackedRecords.build(cohort, Preprocessor.fit(cohort, task), task)
    model = LinearLatentODE(**SMALL).build(records.schema, task, torch.Generator().manual_seed(0))
    model.prepare(records)
    batch = records.batch(np.arange(40), torch.float64)
    model.double()
    readout = model(batch)
    loss = model.head.loss(batch, readout, 0.0, model.head.counts(batch))
    died = batch.target[:, 0].numpy()
    share = (died.sum() + 0.5) / (len(died) + 1)
    counts = {None: 1.0, 3.0: 3.0, "balanced": (1 - share) / share}[weight]
    logit = readout.towers[:, :, 0].detach().numpy()
    each = np.log1p(np.exp(-np.where(died == 1, logit, -logit)))
    of_tower = (each * np.where(died == 1, counts, 1)).sum(1) / np.where(died == 1, counts, 1).sum()
    head: Any = model.head
    members = int(head.statistics.tower.members)
    expected = of_tower[0] + of_tower[1 : 1 + members].mean() + of_tower[1 + members :].mean()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf"), "heavy"])
def test_a_class_weight_is_a_positive_number_or_balanced(weight):
    with pytest.raises(ArgumentError, match='must be a positive number, "balanced" or None'):
        Classify("died", class_weight=weight)


def test_a_class_weight_is_stored_with_its_task():
    task = Classify("died", class_weight="balanced")
    assert task_from_dict(task.to_dict()) == task
    assert "class_weight" not in Classify("died").to_dict()
