import numpy as np
import pandas as pd
import pytest
import torch

from clinode.cohort import (
    Classify,
    Cohort,
    Forecast,
    IrregularBatch,
    PackedRecords,
    Preprocessor,
    Task,
)
from clinode.errors import ArgumentError, SchemaError

TASK = Classify("died")
DOUBLE = torch.float64


def records_of(cohort: Cohort, task: Task = TASK) -> PackedRecords:
    return PackedRecords.build(cohort, Preprocessor.fit(cohort, task), task)


def one(records: PackedRecords, position: int, **asked) -> IrregularBatch:
    return records.batch([position], DOUBLE, **asked)


def by_hand(cohort: Cohort, records: PackedRecords, position: int) -> pd.DataFrame:
    """The instance as a table (time, variable), from the cohort's DataFrames alone."""
    subject, prediction_time = records.instances.iloc[position]
    held = cohort.observations
    held = held[(held["subject_id"] == subject) & (held["time"] <= prediction_time)]
    given = cohort.inputs
    given = given[given["subject_id"] == subject]
    changes = np.concatenate([given["start"], given["end"]])
    changes = changes[changes <= prediction_time]
    table = held.pivot(index="time", columns="variable", values="value")
    times = np.unique(np.concatenate([held["time"], changes]))
    return table.reindex(index=times, columns=list(records.schema.variables))


def test_every_record_is_its_own_table_of_times_and_variables(treated):
    records = records_of(treated)
    batch = records.batch(np.arange(len(records)), DOUBLE)
    padded = batch.padded()
    for place, position in enumerate(batch.subject.tolist()):
        table = by_hand(treated, records, position)
        n = max(len(table), 1)
        assert padded.lengths[place] == n
        if len(table) == 0:
            continue
        np.testing.assert_array_equal(padded.time[place, :n], table.index)
        mask = table.notna().to_numpy()
        np.testing.assert_array_equal(padded.mask[place, :n], mask)
        index = np.arange(len(records.schema.variables))
        expected = records.schema.standardize(index, table.fillna(1.0).to_numpy())
        np.testing.assert_allclose(padded.value[place, :n], np.where(mask, expected, 0))
        assert not padded.mask[place, n:].any()


def test_time_since_observed_keeps_growing_while_a_variable_is_missing(treated):
    records = records_of(treated)
    window = records.schema.window
    for position in range(0, len(records), 7):
        table = by_hand(treated, records, position)
        if len(table) == 0:
            continue
        seen = table.notna().to_numpy()
        times = table.index.to_numpy()[:, None]
        last = pd.DataFrame(np.where(seen, times, np.nan)).ffill().shift(1).to_numpy()
        batch = one(records, position)
        np.testing.assert_array_equal(
            batch.since_observed, np.where(last == last, times - last, window)
        )


def test_what_is_carried_forward_is_the_last_value_seen_before_the_row(treated):
    records = records_of(treated)
    for position in range(0, len(records), 7):
        batch = one(records, position)
        held = pd.DataFrame(np.where(batch.mask, batch.value, np.nan)).ffill().shift(1)
        np.testing.assert_array_equal(batch.carried, held.fillna(0.0))


def test_gaps_are_taken_in_float64_before_they_are_cast():
    late = 1e7 + np.array([0.0, 0.001, 0.004])  # hours; float32 is too coarse for such times
    cohort = Cohort.from_tables(
        pd.DataFrame({"subject_id": 1, "time": late, "variable": "HR", "value": [80.0, 81, 82]})
    )
    batch = records_of(cohort, Forecast(1e-3, at=late[-1])).batch([0])
    torch.testing.assert_close(batch.gap, torch.tensor([0.0, 0.001, 0.003]), rtol=1e-5, atol=0)
    assert batch.time.dtype == torch.float64


def test_time_delta_skips_rows_at_which_only_a_treatment_changed():
    observations = pd.DataFrame(
        {"subject_id": 1, "time": [1.0, 4.0, 9.0], "variable": "HR", "value": [80.0, 81, 82]}
    )
    inputs = pd.DataFrame(
        {"subject_id": [1], "start": [2.0], "end": [6.0], "variable": ["drug"], "value": [1.0]}
    )
    cohort = Cohort.from_tables(observations, inputs=inputs)
    batch = one(records_of(cohort, Forecast(1.0, at=9.0)), 0)
    assert batch.time.tolist() == [1.0, 2.0, 4.0, 6.0, 9.0]
    assert batch.gap.tolist() == [0.0, 1.0, 2.0, 2.0, 3.0]
    assert batch.time_delta.tolist() == [0.0, 1.0, 3.0, 2.0, 5.0]
    assert batch.is_observed.tolist() == [True, False, True, False, True]


def test_a_record_without_an_observation_has_one_empty_row(tables):
    cohort = Cohort.from_tables(**{**tables, "inputs": None})
    records = records_of(cohort)
    batch = one(records, 0)
    assert batch.time.tolist() == [0.0]
    assert not batch.mask.any()


def test_a_batch_holds_the_same_record_whoever_is_beside_it(treated):
    records = records_of(treated)
    together = records.batch([5, 40, 17, 3, 17], DOUBLE).padded()
    position = records.batch([5, 40, 17, 3, 17]).subject.tolist()
    for place, chosen in enumerate(position):
        alone = one(records, chosen).padded()
        n = int(alone.lengths[0])
        torch.testing.assert_close(together.value[place, :n], alone.value[0], rtol=0, atol=0)
        torch.testing.assert_close(together.time[place, :n], alone.time[0], rtol=0, atol=0)


def test_edits_after_the_prediction_time_change_no_bit(tables):
    cohort = Cohort.from_tables(**tables)
    schema = Preprocessor.fit(cohort, TASK)
    later = tables["observations"].copy()
    later.loc[later["time"] > 24, "value"] += 5.0
    given = tables["inputs"].copy()
    given.loc[given["start"] > 24, "value"] *= 2
    given.loc[given["end"] > 24, "end"] += 3.0
    edited = Cohort.from_tables(**{**tables, "observations": later, "inputs": given})
    first, second = (PackedRecords.build(part, schema, TASK) for part in (cohort, edited))
    early = np.flatnonzero(first.prediction_time == 24.0)
    before, after = first.batch(early), second.batch(early)
    for name in ("value", "mask", "time", "gap", "since_observed", "static", "row_subject"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    for name in ("value", "start", "end", "is_held", "pair_row", "pair_event", "impulse_row"):
        old, new = getattr(before.treatments, name), getattr(after.treatments, name)
        torch.testing.assert_close(old, new, rtol=0, atol=0, equal_nan=True)


def test_records_read_no_outcome_unless_asked(tables):
    cohort = Cohort.from_tables(**tables)
    schema = Preprocessor.fit(cohort, TASK)
    del tables["outcomes"]["died"]
    unlabelled = Cohort.from_tables(**tables)
    records = PackedRecords.build(unlabelled, schema, TASK, with_targets=False)
    assert records.batch([0]).target is None
    with pytest.raises(SchemaError, match="no outcome column 'died'"):
        PackedRecords.build(unlabelled, schema, TASK)


def test_rates_and_doses_are_those_of_the_treatment_table(treated):
    records = records_of(treated)
    scale = np.array(records.schema.input_scale)
    drug = records.schema.inputs.index("norepinephrine")
    given = treated.inputs
    clip = np.array(records.schema.input_low), np.array(records.schema.input_high)
    for position in range(0, len(records), 5):
        subject, until = records.instances.iloc[position]
        batch = one(records, position)
        own = given[(given["subject_id"] == subject) & (given["start"] <= until)]
        assert batch.treatments is not None
        rates = batch.treatments.rates(batch.n_rows).numpy() * scale
        doses = batch.treatments.impulses(batch.n_rows).numpy() * scale
        times = batch.time.numpy()
        value = np.clip(own["value"], clip[0][drug], clip[1][drug]).to_numpy()
        is_rate = own["end"].notna().to_numpy()
        for row in range(1, len(times)):
            middle = (times[row - 1] + times[row]) / 2
            runs = is_rate & (own["start"] <= middle).to_numpy() & (own["end"] >= middle).to_numpy()
            assert rates[row, drug] == pytest.approx(value[runs].sum())
        held = is_rate & (own["end"] > until).to_numpy()
        shown = batch.treatments.held_rates(1).numpy()[0] * scale
        assert shown[drug] == pytest.approx(value[held].sum())
        assert shown[1 - drug] == 0
        dose = own[~is_rate]
        expected = np.clip(dose["value"], clip[0][1 - drug], clip[1][1 - drug]).sum()
        assert doses[:, 1 - drug].sum() == pytest.approx(expected)
        assert (batch.treatments.end.nan_to_num() <= until).all()


def test_the_signal_of_a_record_holds_the_rates_that_run(treated):
    records = records_of(treated)
    batch = records.batch([11, 30, 31], DOUBLE)
    signal = batch.inputs
    assert signal is not None
    times = torch.linspace(0.013, 47.9, 60, dtype=DOUBLE)
    shown = signal(times.unsqueeze(1))  # (time, batch, input)
    given, drug = treated.inputs, records.schema.inputs.index("norepinephrine")
    given = given[given["variable"] == "norepinephrine"]
    given = given.assign(
        value=given["value"].clip(records.schema.input_low[drug], records.schema.input_high[drug])
    )
    for place, position in enumerate(batch.subject.tolist()):
        subject, until = records.instances.iloc[position]
        own = given[(given["subject_id"] == subject) & (given["start"] <= until)]
        for at, rate in zip(times.tolist(), shown[:, place, drug].tolist(), strict=True):
            now = min(at, until)  # what runs at the prediction time is held on
            runs = (own["start"] <= now) & (own["end"] > now)
            assert rate == pytest.approx(own["value"][runs].sum())


def test_exposure_counts_what_was_given_since_the_last_observation():
    observations = pd.DataFrame(
        {"subject_id": 1, "time": [1.0, 4.0, 9.0], "variable": "HR", "value": [80.0, 81, 82]}
    )
    inputs = pd.DataFrame(
        {
            "subject_id": [1, 1],
            "start": [2.0, 5.0],
            "end": [6.0, np.nan],
            "variable": ["drug", "drug"],
            "value": [2.0, 2.0],
        }
    )
    cohort = Cohort.from_tables(observations, inputs=inputs)
    batch = one(records_of(cohort, Forecast(1.0, at=9.0)), 0)
    assert batch.time.tolist() == [1.0, 2.0, 4.0, 5.0, 6.0, 9.0]
    np.testing.assert_allclose(batch.exposure[:, 0], [0, 0, 2, 1 + 1, 2 + 1, 2 + 1])


def test_dropped_observations_leave_what_a_cohort_without_them_has(treated, tables):
    tables["inputs"] = None
    cohort = Cohort.from_tables(**tables)
    schema = Preprocessor.fit(cohort, TASK)
    position = 2 * 7 + 1
    whole = one(PackedRecords.build(cohort, schema, TASK), position)
    drop = torch.zeros_like(whole.mask)
    drop[:, schema.variables.index("MAP")] = True
    drop[3] = True
    thinned = whole.without(drop)
    own = tables["observations"]["subject_id"] == cohort.subjects[7]
    gone = own & (
        (tables["observations"]["variable"] == "MAP")
        | (tables["observations"]["time"] == whole.time[3].item())
    )
    fewer = Cohort.from_tables(**{**tables, "observations": tables["observations"][~gone]})
    expected = one(PackedRecords.build(fewer, schema, TASK), position)
    kept = thinned.is_observed
    for name in ("value", "mask", "time", "time_delta", "since_observed", "carried"):
        assert torch.equal(getattr(thinned, name)[kept], getattr(expected, name)), name


def test_a_forecast_asks_at_the_later_rows_of_each_subject(treated):
    records = records_of(treated, Forecast(20.0, at=24.0))
    assert records.schema.prediction_time == 24.0
    held = treated.observations
    total = 0
    for position in range(len(records)):
        batch = one(records, position)
        assert batch.query_time is not None
        assert batch.target_mask is not None
        subject, until = records.instances.iloc[position]
        later = held[(held["subject_id"] == subject) & (held["time"] > until)]
        later = later[later["time"] <= until + 20]
        np.testing.assert_array_equal(batch.query_time[0], np.unique(later["time"]))
        assert int(batch.target_mask.sum()) == len(later)
        assert (batch.time <= until).all()
        total += len(later)
    assert total > 100


def test_a_forecast_can_be_asked_at_any_hours_after_the_prediction_time(treated):
    records = records_of(treated, Forecast(12.0))
    batch = records.batch([4, 9], query_after=[1.0, 6.5])
    expected = records.prediction_time[batch.subject.numpy()][:, None] + [1.0, 6.5]
    np.testing.assert_array_equal(batch.query_time, expected)


def test_the_latest_row_at_or_before_a_time_is_found(treated):
    batch = records_of(treated).batch([11, 30, 31], DOUBLE)
    asked = torch.tensor([-1.0, 0.0, 7.7, 24.0, 100.0], dtype=DOUBLE).expand(3, 5)
    found = batch.row_before(asked)
    for place in range(3):
        times = batch.time[batch.row_subject == place]
        for query in range(5):
            before = times[times <= asked[place, query]]
            row = int(found[place, query])
            assert (row == -1) == (len(before) == 0)
            if len(before):
                assert batch.time[row] == before[-1]
                assert batch.row_subject[row] == place


def test_positions_outside_of_the_records_are_refused(treated):
    records = records_of(treated)
    with pytest.raises(ArgumentError, match="positions must lie"):
        records.batch([len(records)])
    with pytest.raises(ArgumentError, match="at least one"):
        records.batch([])


def test_an_earlier_time_is_the_instance_that_it_would_have_been_then(treated):
    alike = Cohort.from_tables(treated.observations, statics=treated.statics, inputs=treated.inputs)
    records = records_of(alike, Forecast(12.0, at=30.0))
    more = records.at_earlier_times([6.0, 20.0])
    assert len(more) == 3 * len(records)
    np.testing.assert_array_equal(np.unique(more.prediction_time), [10.0, 24.0, 30.0])
    for time in (10.0, 24.0, 30.0):
        alone = PackedRecords.build(alike, records.schema, records.task, at=time)
        own = np.flatnonzero(more.prediction_time == time)
        pair = [part.batch(p, DOUBLE) for part, p in ((more, own), (alone, range(len(alone))))]
        for name, found in vars(pair[0]).items():
            expected = getattr(pair[1], name)
            if isinstance(found, torch.Tensor) and name != "subject":
                torch.testing.assert_close(found, expected, equal_nan=True, rtol=0, atol=0)
    with pytest.raises(ArgumentError, match="positive hours"):
        records.at_earlier_times([0.0])
    with pytest.raises(ArgumentError, match="one prediction time"):
        records_of(treated).at_earlier_times([6.0])
