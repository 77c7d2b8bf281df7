import inspect

import numpy as np
import pandas as pd
import pytest
import torch

from clinode.cohort import Cohort, Interpolate, PackedRecords, Preprocessor
from clinode.sequence import MODELS, model_from_config
from clinode.sequence.interpolation_head import neighbours

TASK = Interpolate(0.3, at=40.0)


@pytest.fixture(scope="module")
def cohort(tables) -> Cohort:
    return Cohort.from_tables(**tables)


@pytest.fixture(scope="module")
def records(cohort) -> PackedRecords:
    return PackedRecords.build(cohort, Preprocessor.fit(cohort, TASK), TASK)


def build(records: PackedRecords, name: str):
    taken = inspect.signature(MODELS[name]).parameters
    sizes = {"latent": 4, "hidden": 8, "field_hidden": 4, "backbone": 8, "coupling": 4}
    configured = model_from_config(
        {"name": name, **{key: size for key, size in sizes.items() if key in taken}}
    )
    model = configured.build(records.schema, records.task, torch.Generator().manual_seed(0))
    model.prepare(records)
    return model.double()


def edited(tables: dict, records: PackedRecords, chosen: pd.Series) -> PackedRecords:
    """The records of a cohort in which some observations are larger by a tenth."""
    observations = tables["observations"].copy()
    chosen = chosen & (observations["variable"] != "MechVent")  # which is 1 or nothing
    observations.loc[chosen, "value"] *= 1.1
    cohort = Cohort.from_tables(**{**tables, "observations": observations})
    return PackedRecords.build(cohort, records.schema, TASK)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_hidden_and_what_comes_later_moves_no_answer_and_what_is_read_does(
    name, tables, cohort, records
):
    model = build(records, name)
    everyone = np.arange(len(records))
    batch = records.batch(everyone, torch.float64)
    with torch.no_grad():
        plain = model(batch).value
    observations = tables["observations"]
    names = list(records.schema.variables)
    place = pd.Index(cohort.subjects).get_indexer(observations["subject_id"])
    hidden = TASK.hidden(
        cohort.subjects,
        names,
        place,
        pd.Index(names).get_indexer(observations["variable"]),
        observations["time"].to_numpy(),
    )
    assert hidden is not None
    within = observations["time"] <= 40.0
    unread = edited(tables, records, pd.Series(hidden) | ~within)
    with torch.no_grad():
        assert torch.equal(model(unread.batch(everyone, torch.float64)).value, plain)
    read = edited(tables, records, ~pd.Series(hidden) & within)
    with torch.no_grad():
        assert not torch.allclose(model(read.batch(everyone, torch.float64)).value, plain)


@pytest.mark.parametrize("name", MODELS)
def test_both_runs_of_a_smoother_learn_and_mates_change_nothing(name, records):
    model = build(records, name)
    batch = records.batch(np.arange(len(records)), torch.float64)
    model.loss(batch, torch.Generator().manual_seed(1)).backward()
    assert model.behind is not None
    for part in (model, model.behind):
        moved = [p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters()]
        assert np.mean(moved) > 0.6
    with torch.no_grad():
        together = model(batch)
        for place in (0, 3, len(batch) - 1):
            alone = model(records.batch([int(batch.subject[place])], torch.float64))
            n = alone.value.shape[1]
            torch.testing.assert_close(
                alone.value[0], together.value[place, :n], atol=1e-10, rtol=1e-10
            )


def test_the_answer_depends_on_both_sides_of_a_query(records):
    model = build(records, "linear-latent-ode")
    batch = records.batch(np.arange(len(records)), torch.float64)
    value = batch.value.clone().requires_grad_()
    query = 1
    readout = model(batch.replace(value=value))
    assert batch.query_time is not None
    asked = batch.query_time[0, query]
    (slope,) = torch.autograd.grad(readout.value[0, query].sum(), value)
    own = (batch.row_subject == 0) & slope.any(dim=1)
    assert (batch.time[own] < asked).any()
    assert (batch.time[own] > asked).any()
    assert not slope[batch.row_subject != 0].any()


def test_neighbours_are_those_of_the_variable_by_hand():
    observations = pd.DataFrame(
        {
            "subject_id": [1] * 5,
            "time": [0.0, 10.0, 20.0, 4.0, 48.0],
            "variable": ["HR", "HR", "HR", "MAP", "MAP"],
            "value": [60.0, 80.0, 120.0, 70.0, 90.0],
        }
    )
    task = Interpolate(0.5, at=48.0)
    cohort = Cohort.from_tables(observations)
    schema = Preprocessor.fit(cohort, task)
    records = PackedRecords.build(cohort, schema, task, with_targets=False)
    batch = records.batch([0], torch.float64, query_after=[-43.0, -20.0])  # at 5 and 28 hours
    columns, mass = neighbours(batch, 1.0)
    heart, pressure = (schema.variables.index(name) for name in ("HR", "MAP"))
    z = schema.standardize(np.full(3, heart), np.array([60.0, 80.0, 120.0]))
    shown = columns[0, :, heart].numpy()
    assert shown[0, 0] == pytest.approx((z[0] + z[1]) / 2)  # the line, half way
    assert shown[1, 0] == pytest.approx(z[2])  # beyond the last it stays level
    assert shown[0, 1] == pytest.approx(z[0] * np.exp(-5 / 3))
    assert shown[0, 2] == pytest.approx(z[1] * np.exp(-5 / 3))
    assert shown[1, 2] == 0.0
    near = np.exp(-np.array([5.0, 5.0, 15.0]) / 10)
    assert mass[0, 0, heart, 2] == pytest.approx(near.sum())
    assert shown[0, 7] == pytest.approx(near @ z / (near.sum() + 1))
    assert shown[0, 8] == pytest.approx(z.mean())
    np.testing.assert_array_equal(shown[:, 9:], 1.0)
    p = schema.standardize(np.full(2, pressure), np.array([70.0, 90.0]))
    assert columns[0, 0, pressure, 0] == pytest.approx(p[0] + 1 / 44 * (p[1] - p[0]))
