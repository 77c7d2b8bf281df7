import numpy as np
import pandas as pd
import pytest
import torch

from clinode.cohort import Cohort, Interpolate, PackedRecords, Preprocessor, task_from_dict
from clinode.errors import ArgumentError

END = 48.0


def make_tables(n_subjects: int = 40, seed: int = 0) -> dict:
    generator = np.random.default_rng(seed)
    n = 30 * n_subjects
    observations = pd.DataFrame(
        {
            "subject_id": generator.integers(1, n_subjects + 1, n),
            "time": np.round(generator.uniform(0, END, n), 2),
            "variable": generator.choice(["HR", "MAP", "Temp"], n),
            "value": generator.normal(80, 5, n),
        }
    ).drop_duplicates(["subject_id", "time", "variable"])
    start = np.round(generator.uniform(1, 40, n_subjects), 2)
    is_dose = np.arange(n_subjects) % 3 == 0
    inputs = pd.DataFrame(
        {
            "subject_id": generator.integers(1, n_subjects + 1, n_subjects),
            "start": start,
            "end": np.where(is_dose, np.nan, np.round(start + generator.uniform(1, 7), 2)),
            "variable": np.where(is_dose, "insulin", "norepinephrine"),
            "value": generator.uniform(0.1, 2.0, n_subjects),
        }
    )
    return {"observations": observations, "inputs": inputs}


def hidden_of(task: Interpolate, cohort: Cohort) -> set:
    """(subject, time, variable) of what a task hides."""
    names = [variable.name for variable in cohort.schema.variables]
    arrays = cohort.arrays()
    held = task.hidden(
        cohort.subjects, names, arrays.subject_index, arrays.variable_index, arrays.time
    )
    table = cohort.observations[held]
    return set(zip(table["subject_id"], table["time"], table["variable"], strict=True))


def test_the_share_that_is_hidden_is_the_fraction_and_another_seed_hides_others():
    cohort = Cohort.from_tables(**make_tables(400))
    n = cohort.n_observations
    for fraction in (0.1, 0.3, 0.5):
        n_hidden = len(hidden_of(Interpolate(fraction), cohort))
        assert abs(n_hidden - fraction * n) < 4 * np.sqrt(n * fraction * (1 - fraction))
    one, other = (hidden_of(Interpolate(0.3, seed=s), cohort) for s in (0, 1))
    # two independent draws agree in fraction squared
    assert len(one & other) == pytest.approx(0.09 * n, rel=0.1)
    assert hidden_of(Interpolate(0.1), cohort) < one  # a larger fraction hides more, not others


def test_what_is_hidden_depends_on_nobody_else():
    tables = make_tables()
    cohort = Cohort.from_tables(**tables)
    every = hidden_of(Interpolate(0.3), cohort)
    few = cohort.take([3, 17])
    assert hidden_of(Interpolate(0.3), few) == {
        event for event in every if event[0] in few.subjects.tolist()
    }
    more = tables["observations"].assign(variable="Glucose")  # before HR in every order
    both = Cohort.from_tables(pd.concat([more, tables["observations"]]), inputs=tables["inputs"])
    assert {e for e in hidden_of(Interpolate(0.3), both) if e[2] != "Glucose"} == every


def test_a_batch_reads_what_is_not_hidden_and_asks_for_the_rest():
    cohort = Cohort.from_tables(**make_tables())
    task = Interpolate(0.3, at=40.0)
    schema = Preprocessor.fit(cohort, task)
    records = PackedRecords.build(cohort, schema, task)
    batch = records.batch(np.arange(len(records)))
    assert batch.query_time is not None
    assert batch.target_mask is not None
    assert batch.target is not None
    names = np.array(schema.variables)
    row, variable = batch.mask.nonzero(as_tuple=True)
    subject = records.subjects[batch.subject[batch.row_subject[row]]]
    read = set(zip(subject, batch.time[row].tolist(), names[variable], strict=True))
    holder, query, asked_variable = batch.target_mask.nonzero(as_tuple=True)
    asked = set(
        zip(
            records.subjects[batch.subject[holder]],
            batch.query_time[holder, query].tolist(),
            names[asked_variable],
            strict=True,
        )
    )
    table = cohort.observations.query("time <= 40")
    everything = set(zip(table["subject_id"], table["time"], table["variable"], strict=True))
    assert read | asked == everything
    assert not read & asked
    assert asked == hidden_of(task, cohort) & everything
    value = table.set_index(["subject_id", "time", "variable"])["value"]
    events = list(
        zip(
            records.subjects[batch.subject[holder]],
            batch.query_time[holder, query].tolist(),
            names[asked_variable],
            strict=True,
        )
    )
    shown = schema.restore(
        asked_variable.numpy(), batch.target[holder, query, asked_variable].double().numpy()
    )
    position = asked_variable.numpy()
    clipped = np.clip(
        value.loc[events].to_numpy(),
        np.array(schema.low)[position],
        np.array(schema.high)[position],
    )
    np.testing.assert_allclose(shown, clipped, rtol=1e-5)
    plain = PackedRecords.build(cohort, schema, task, with_targets=False)
    assert plain.batch(np.arange(len(plain))).mask.sum() == len(everything)


def test_a_turned_batch_is_that_of_a_cohort_whose_hours_count_down():
    tables = make_tables()
    task = Interpolate(0.3, at=END)
    cohort = Cohort.from_tables(**tables)
    schema = Preprocessor.fit(cohort, task)
    inputs = tables["inputs"]
    is_dose = inputs["end"].isna()
    turned = Cohort.from_tables(
        tables["observations"].assign(time=END - tables["observations"]["time"]),
        inputs=inputs.assign(
            start=END - inputs["start"].where(is_dose, inputs["end"]),
            end=(END - inputs["start"]).where(~is_dose),
        ),
    )
    one, other = (
        PackedRecords.build(c, schema, task, with_targets=False) for c in (cohort, turned)
    )
    found = one.batch(np.arange(len(one)), torch.float64).reversed()
    expected = other.batch(np.arange(len(other)), torch.float64)
    for name in ("value", "mask", "time", "gap", "time_delta", "since_observed", "last_seen"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-9, rtol=0)
    assert found.treatments is not None
    assert expected.treatments is not None
    n = found.n_rows
    torch.testing.assert_close(found.treatments.rates(n), expected.treatments.rates(n))
    torch.testing.assert_close(found.treatments.impulses(n), expected.treatments.impulses(n))
    torch.testing.assert_close(found.exposure, expected.exposure, atol=1e-9, rtol=1e-9)


def test_turned_twice_a_batch_is_itself():
    cohort = Cohort.from_tables(**make_tables())
    task = Interpolate(0.3, at=END)
    records = PackedRecords.build(cohort, Preprocessor.fit(cohort, task), task)
    batch = records.batch(np.arange(len(records)), torch.float64)
    again = batch.reversed().reversed()
    for name in ("value", "mask", "time", "gap", "since_observed", "last_observed", "query_time"):
        torch.testing.assert_close(
            getattr(again, name), getattr(batch, name), atol=1e-9, rtol=0, equal_nan=True
        )


def test_an_interpolation_is_written_down_and_refuses_what_makes_no_sense():
    task = Interpolate(0.2, at=24, seed=3)
    assert task_from_dict(task.to_dict()) == task
    for fraction in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ArgumentError, match="fraction must lie in"):
            Interpolate(fraction)
    with pytest.raises(ArgumentError, match="finite number of hours"):
        Interpolate(0.5, at=float("inf"))
