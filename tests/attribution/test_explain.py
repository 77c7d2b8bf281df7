from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from clinode.attribution import METHODS
from clinode.attribution import explain as explain_run
from clinode.attribution import read_normal_ranges as read_ranges
from clinode.attribution.explained import explained_of
from clinode.attribution.rows import RecordRows
from clinode.cohort import VARIABLES, Cohort, Forecast, PackedRecords, Preprocessor
from clinode.errors import ArgumentError, SchemaError
from clinode.sequence import GRUD, ODERNN


def explain(*arguments: Any, **options: Any) -> Any:
    """`clinode.explain`, whose tables are read here without their types."""
    return explain_run(*arguments, **options)


def read_normal_ranges(*arguments: Any) -> Any:
    """The table of reference intervals, read here without its types."""
    return read_ranges(*arguments)


COLUMNS = ["subject_id", "kind", "time", "variable", "value", "attribution"]


@pytest.fixture(scope="session")
def attributions(run, cohort):
    return explain(run, cohort)


@pytest.fixture(scope="session")
def last_time(tables):
    """The prediction time that is explained, the last of each subject."""
    return tables["outcomes"].groupby("subject_id")["prediction_time"].max()


def keyed(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(["subject_id", "kind", "variable", "time"], ignore_index=True)


def test_the_table_has_the_six_columns_and_one_gate_a_subject(attributions, cohort):
    assert list(attributions.to_pandas().columns) == COLUMNS
    assert attributions.gates["subject_id"].tolist() == cohort.subjects.tolist()
    assert attributions.outcome == "died"
    assert (attributions.method, attributions.baseline) == ("integrated_gradients", "cohort_mean")


def test_rows_are_exactly_the_measured_events_at_or_before_the_prediction_time(
    attributions, tables, last_time
):
    told = attributions.to_pandas()
    told = told[told["kind"] == "observation"].drop(columns=["kind", "attribution"])
    measured = tables["observations"]
    measured = measured[measured["time"] <= measured["subject_id"].map(last_time)]
    order = ["subject_id", "time", "variable"]
    pd.testing.assert_frame_equal(
        told.sort_values(order, ignore_index=True),
        measured.sort_values(order, ignore_index=True)[told.columns],
        check_dtype=False,
    )


def test_treatments_begun_by_the_prediction_time_and_known_statics_have_a_row_each(
    attributions, tables, last_time
):
    told = attributions.to_pandas()
    given = tables["inputs"][tables["inputs"]["start"] <= 40.0]
    own = told[told["kind"] == "input"]
    assert sorted(zip(own["subject_id"], own["time"], own["value"], strict=True)) == sorted(
        zip(given["subject_id"], given["start"], given["value"], strict=True)
    )
    statics = tables["statics"].melt("subject_id").dropna()
    own = told[told["kind"] == "static"]
    assert own["time"].isna().all()
    assert sorted(zip(own["subject_id"], own["variable"], own["value"], strict=True)) == sorted(
        zip(statics["subject_id"], statics["variable"], statics["value"], strict=True)
    )


def test_attributions_sum_to_the_change_of_the_logit(attributions, run, cohort):
    gates = attributions.gates.set_index("subject_id")
    total = attributions.to_pandas().groupby("subject_id")["attribution"].sum()
    change = (gates["output"] - gates["base"])[total.index]
    np.testing.assert_array_less((total - change).abs(), 0.01 * np.maximum(change.abs(), 0.1))
    assert (gates["gap"] <= 0.01).all()
    assert not gates["withheld"].any()
    predicted = run.predict(cohort).groupby("subject_id")["logit"].last()
    np.testing.assert_allclose(gates["output"], predicted[gates.index], atol=1e-5)


def test_an_additive_model_is_attributed_in_closed_form(additive_run, cohort):
    schema, model = additive_run.schema, additive_run.model
    told = explain(additive_run, cohort).to_pandas()
    weight = dict(zip(schema.variables, model.weight.tolist(), strict=True))
    position = {name: k for k, name in enumerate(schema.variables)}
    own = told[told["kind"] == "observation"]
    index = own["variable"].map(position).to_numpy()
    standardised = schema.standardize(index, own["value"].to_numpy())
    expected = (
        own["variable"].map(weight).to_numpy()
        * (1 + own["time"].to_numpy() / 10)
        * (standardised - schema.cohort_mean()[index])
    )
    np.testing.assert_allclose(own["attribution"], expected, atol=1e-12)

    own = told[told["kind"] == "input"]
    drive = dict(zip(schema.inputs, model.given.tolist(), strict=True))
    scale = dict(zip(schema.inputs, schema.input_scale, strict=True))
    low = dict(zip(schema.inputs, schema.input_low, strict=True))
    high = dict(zip(schema.inputs, schema.input_high, strict=True))
    given = own["value"].clip(own["variable"].map(low), own["variable"].map(high))
    expected = given / own["variable"].map(scale) * own["variable"].map(drive)
    np.testing.assert_allclose(own["attribution"], expected, atol=1e-12)


def test_the_levels_of_a_categorical_static_are_one_row_with_their_sum(additive_run, cohort):
    schema, model = additive_run.schema, additive_run.model
    told = explain(additive_run, cohort).to_pandas().query("variable == 'icu_type'")
    encoded = schema.encode_statics(cohort.statics, len(cohort))
    columns = [k for k, column in enumerate(schema.statics) if column.name == "icu_type"]
    assert len(columns) > 1
    weight = model.static.detach().double().numpy()[columns]
    expected = pd.Series(encoded[:, columns] @ weight, index=cohort.subjects)
    assert len(told) == expected.notna().sum()
    np.testing.assert_allclose(told["attribution"], expected[told["subject_id"]], atol=1e-12)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("integrated_gradients", {}),
        ("captum_integrated_gradients", {"n_steps": 6, "tolerance": 0.9}),
    ],
)
def test_a_subject_alone_gets_what_it_gets_among_others(run, cohort, method, options):
    several = cohort.take([0, 3, 5])
    together = explain(run, several, method, **options).to_pandas()
    for subject in several.subjects[1:]:
        alone = explain(run, several.select([subject]), method, **options).to_pandas()
        own = together[together["subject_id"] == subject]
        np.testing.assert_allclose(alone["attribution"], own["attribution"], rtol=0, atol=1e-12)
    small = explain(run, several, method, batch_size=24, **options).to_pandas()
    np.testing.assert_allclose(small["attribution"], together["attribution"], rtol=0, atol=1e-12)


def test_subjects_asked_for_are_explained_as_in_the_whole_cohort(run, cohort, attributions):
    wanted = cohort.subjects[[7, 2]]
    some = explain(run, cohort, subjects=wanted)
    assert some.gates["subject_id"].tolist() == sorted(wanted.tolist())
    whole = attributions.to_pandas()
    whole = whole[whole["subject_id"].isin(wanted)].reset_index(drop=True)
    pd.testing.assert_frame_equal(some.to_pandas(), whole, rtol=0, atol=1e-12)
    with pytest.raises(ArgumentError, match="1 of the subjects are not in the cohort"):
        explain(run, cohort, subjects=[int(wanted[0]), 999_999])


def test_what_happens_after_the_prediction_time_changes_no_bit(run, tables, attributions):
    later = tables["observations"].query("time <= 40").copy()
    extra = later.head(30).assign(time=45.0, value=99.0).drop_duplicates(["subject_id", "variable"])
    edited = Cohort.from_tables(
        **{**tables, "observations": pd.concat([later, extra], ignore_index=True)}
    )
    changed = explain(run, edited)
    pd.testing.assert_frame_equal(changed.to_pandas(), attributions.to_pandas(), rtol=0, atol=0)
    pd.testing.assert_frame_equal(changed.gates, attributions.gates, rtol=0, atol=0)


def test_another_unit_of_a_variable_changes_no_attribution(run, tables, cohort, attributions):
    # the same records in other units, standardised by the same training part in these units
    factor, name = 18.0, "HCT"
    position = run.schema.variables.index(name)
    schema = run.schema.to_dict()
    for field in ("low", "high", "mean", "center", "scale"):
        schema["variables"][position][field] *= factor
    scaled = Preprocessor.from_dict(schema)
    observations = tables["observations"].copy()
    is_it = observations["variable"] == name
    observations.loc[is_it, "value"] *= factor
    observations["variable"] = observations["variable"].replace(name, "scaled")
    scaled = replace(
        scaled, variables=tuple("scaled" if v == name else v for v in scaled.variables)
    )
    other = Cohort.from_tables(**{**tables, "observations": observations})
    told = explain(replace(run, schema=scaled), other).to_pandas()
    told["variable"] = told["variable"].replace("scaled", name)
    merged = keyed(told).merge(
        keyed(attributions.to_pandas()),
        on=["subject_id", "kind", "variable", "time"],
        suffixes=("", "_before"),
        how="outer",
    )
    assert len(merged) == len(told)
    np.testing.assert_allclose(merged["attribution"], merged["attribution_before"], atol=1e-9)


def test_a_value_at_the_training_mean_gets_nothing(run, cohort):
    rows = pd.DataFrame(
        {
            "subject_id": [1, 1],
            "time": [3.0, 7.0],
            "variable": ["HR", "HR"],
            "value": [run.schema.mean[run.schema.variables.index("HR")], 120.0],
        }
    )
    told = explain(run, Cohort.from_tables(rows), at=10.0).to_pandas()
    assert abs(told["attribution"][0]) < 1e-14
    assert told["attribution"][1] != 0.0


def test_a_variable_that_training_never_measured_has_its_row_with_exactly_zero(
    run, tables, cohort, attributions
):
    schema = replace(run.schema, unused=("Albumin",))
    extra = pd.DataFrame(
        {"subject_id": cohort.subjects[:4], "time": 3.0, "variable": "Albumin", "value": 3.0}
    )
    observations = pd.concat([tables["observations"], extra], ignore_index=True)
    richer = Cohort.from_tables(**{**tables, "observations": observations})
    told = explain(replace(run, schema=schema), richer).to_pandas()
    own = told[told["variable"] == "Albumin"]
    assert len(own) == 4
    assert (own["attribution"] == 0.0).all()
    rest = told[told["variable"] != "Albumin"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, attributions.to_pandas(), rtol=0, atol=1e-12)


def test_a_map_above_the_tolerance_is_withheld_and_says_so(run, cohort):
    strict = explain(run, cohort, "captum_integrated_gradients", tolerance=1e-9, n_steps=3)
    withheld = strict.gates["withheld"]
    assert withheld.any()
    assert strict.gates.loc[withheld, "why"].str.contains("completeness gap").all()
    assert (strict.gates.loc[withheld, "gap"] > 1e-9).all()
    hidden = set(strict.gates.loc[withheld, "subject_id"])
    assert hidden.isdisjoint(strict.to_pandas()["subject_id"])
    shown = set(strict.gates.loc[~withheld, "subject_id"])
    assert shown >= set(strict.to_pandas()["subject_id"])


def test_a_record_without_observations_is_explained_by_what_is_known_of_it(attributions, cohort):
    empty = cohort.subjects[0]
    assert not (cohort.observations["subject_id"] == empty).any()
    gate = attributions.gates.set_index("subject_id").loc[empty]
    assert not gate["withheld"]
    own = attributions.to_pandas().query("subject_id == @empty")
    assert set(own["kind"]) <= {"static", "input"}
    assert own["attribution"].sum() == pytest.approx(gate["output"] - gate["base"], abs=1e-3)


def test_a_cohort_in_which_nothing_was_measured_by_then_has_gates_and_no_rows(run):
    later = pd.DataFrame({"subject_id": [1], "time": [30.0], "variable": ["HR"], "value": [80.0]})
    found = explain(run, Cohort.from_tables(later), at=20.0)
    assert len(found.to_pandas()) == 0
    assert list(found.to_pandas().columns) == COLUMNS
    assert found.gates[["gap", "withheld"]].to_numpy().tolist() == [[0.0, False]]
    assert len(found.by_variable()) == 0


def test_the_last_of_several_prediction_times_is_explained_unless_another_is_named(
    run, cohort, tables
):
    early = cohort.subjects[:5]
    assert (explain(run, cohort, subjects=early).gates["prediction_time"] == 40.0).all()
    at = explain(run, cohort, subjects=early, at=20.0)
    assert (at.gates["prediction_time"] == 20.0).all()
    assert at.to_pandas()["time"].max() <= 20.0
    predicted = run.predict(cohort).query("prediction_time == 20").set_index("subject_id")
    np.testing.assert_allclose(at.gates["output"], predicted["logit"][early], atol=1e-5)


def test_the_model_is_explained_in_float64_and_left_as_it_was(run, cohort):
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    seen = []
    handle = run.model.decoder.register_forward_pre_hook(lambda m, x: seen.append(x[0].dtype))
    explain(run, cohort, subjects=cohort.subjects[:3])
    handle.remove()
    assert set(seen) == {torch.float64}
    for name, value in run.model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])
    assert all(weight.grad is None for weight in run.model.parameters())
    assert all(weight.requires_grad for weight in run.model.parameters())


@pytest.mark.parametrize("family", [GRUD, ODERNN])
def test_other_families_are_complete_on_every_subject(run, cohort, family):
    untrained = family(hidden=6, statistics_hidden=6, head_hidden=8, static_code=4)
    model = untrained.build(run.schema, run.task, torch.Generator().manual_seed(5))
    found = explain(replace(run, model=model), cohort.take(range(4)))
    assert not found.gates["withheld"].any()
    total = found.to_pandas().groupby("subject_id")["attribution"].sum()
    gates = found.gates.set_index("subject_id").loc[total.index]
    change = gates["output"] - gates["base"]
    assert ((total - change).abs() <= 0.01 * np.maximum(change.abs(), 0.1)).all()


def test_every_method_gives_the_same_rows_and_a_linear_model_the_same_numbers(additive_run, cohort):
    adaptive = explain(additive_run, cohort).to_pandas()
    for method in METHODS:
        if method == "occlusion":  # its rows stand for stretches of time
            continue
        players = "event" if method in ("shapley", "kernel_shap") else None
        if method == "kernel_shap":
            cohort = cohort.take(range(3))  # each within its 64 players
            adaptive = explain(additive_run, cohort).to_pandas()
        found = explain(additive_run, cohort, method, players=players)
        told = found.to_pandas()
        columns = ["subject_id", "kind", "time", "variable", "value"]
        pd.testing.assert_frame_equal(told[columns], adaptive[columns])
        if method == "saliency":
            assert found.gates["gap"].isna().all()
            assert (told["attribution"] < 0).any()  # signs are kept
        else:  # Captum's regression is in single precision
            atol = 5e-3 if method == "kernel_shap" else 1e-6
            np.testing.assert_allclose(told["attribution"], adaptive["attribution"], atol=atol)


def test_saliency_is_the_slope_of_the_logit_in_standardised_units(additive_run, cohort):
    told = explain(additive_run, cohort, "saliency").to_pandas()
    own = told[told["kind"] == "observation"]
    schema, model = additive_run.schema, additive_run.model
    weight = own["variable"].map(dict(zip(schema.variables, model.weight.tolist(), strict=True)))
    np.testing.assert_allclose(own["attribution"], weight * (1 + own["time"] / 10), atol=1e-12)


def test_progress_counts_every_subject_once(run, cohort):
    calls, some = [], cohort.take(range(5))
    explain(run, some, progress=lambda done, of: calls.append((done, of)))
    assert calls[-1] == (5, 5)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_calls_that_cannot_be_answered_are_refused_in_words(run, cohort):
    with pytest.raises(ArgumentError, match="DeepLIFT raises on every model that reuses"):
        explain(run, cohort, "deeplift")
    with pytest.raises(ArgumentError, match="there are: integrated_gradients"):
        explain(run, cohort, "lime")
    with pytest.raises(ArgumentError, match="credits every event by itself"):
        explain(run, cohort, players="variable")
    with pytest.raises(ArgumentError, match="players of 'occlusion' cannot be 'event'"):
        explain(run, cohort, "occlusion", players="event")
    with pytest.raises(ArgumentError, match="unknown label 'dyed'; there are: died"):
        explain(run, cohort, output="dyed")
    with pytest.raises(ArgumentError, match="a label has no hours"):
        explain(run, cohort, hours=3.0)
    with pytest.raises(ArgumentError, match="removes events one after another"):
        explain(run, cohort, baseline="delete")
    with pytest.raises(ArgumentError, match="no value that a subject could have"):
        explain(run, cohort, baseline="zero")
    with pytest.raises(ArgumentError, match="there are: cohort_mean, normal, carry"):
        explain(run, cohort, baseline="median")
    with pytest.raises(ArgumentError, match='name one: output="HCT"'):
        explain(replace(run, task=Forecast(12.0)), cohort)
    with pytest.raises(ArgumentError, match="window must be a positive number of hours"):
        explain(run, cohort, baseline="carry", window=0.0)
    with pytest.raises(ArgumentError, match="finite number of hours"):
        explain(run, cohort, at=float("nan"))
    with pytest.raises(ArgumentError, match="no subject to explain"):
        explain(run, cohort, subjects=[])


def test_an_unknown_variable_is_refused_as_at_prediction(run, tables):
    observations = tables["observations"].replace({"variable": {"HR": "something"}})
    other = Cohort.from_tables(**{**tables, "observations": observations})
    with pytest.raises(SchemaError, match="unknown to the training part"):
        explain(run, other)


def test_no_message_and_no_gate_names_a_subject_or_a_value(run, cohort):
    some = cohort.take(range(5))
    gates = explain(run, some, "captum_integrated_gradients", tolerance=1e-9, n_steps=3).gates
    words = " ".join(gates["why"])
    assert not any(str(subject) in words for subject in cohort.subjects)


# baselines


def test_carry_compares_with_the_last_value_before_the_window_and_the_past_gets_exactly_zero(
    additive_run, cohort
):
    window = 12.0
    told = explain(additive_run, cohort, baseline="carry", window=window).to_pandas()
    start = 40.0 - window
    schema, model = additive_run.schema, additive_run.model
    assert (told.loc[told["kind"] == "static", "attribution"] == 0.0).all()
    own = told[told["kind"] == "observation"].copy()
    assert (own.loc[own["time"] <= start, "attribution"] == 0.0).all()
    own["x"] = schema.standardize(
        own["variable"].map({n: k for k, n in enumerate(schema.variables)}).to_numpy(),
        own["value"].to_numpy(),
    )
    weight = dict(zip(schema.variables, model.weight.tolist(), strict=True))
    n_first = 0
    for (_, name), series in own.groupby(["subject_id", "variable"]):
        before, inside = series[series["time"] <= start], series[series["time"] > start]
        if not len(inside):
            continue
        n_first += not len(before)
        reference = before["x"].iloc[-1] if len(before) else inside["x"].iloc[0]
        expected = weight[name] * (1 + inside["time"] / 10) * (inside["x"] - reference)
        np.testing.assert_allclose(inside["attribution"], expected, atol=1e-12)
    assert n_first > 0  # some variable is first measured inside the window
    given = told[told["kind"] == "input"]
    assert (given.loc[given["time"] <= start, "attribution"] == 0.0).all()
    assert (given.loc[given["time"] > start, "attribution"] != 0.0).any()


def test_the_default_window_of_carry_is_half_of_the_training_window(run, cohort):
    some = cohort.take(range(6))
    half = explain(run, some, baseline="carry", window=run.schema.window / 2)
    default = explain(run, some, baseline="carry")
    pd.testing.assert_frame_equal(default.to_pandas(), half.to_pandas())


def test_normal_compares_with_the_midpoint_of_the_reference_interval_of_the_subjects_sex(
    additive_run, cohort
):
    told = explain(additive_run, cohort, baseline="normal").to_pandas()
    schema, model = additive_run.schema, additive_run.model
    sex = cohort.statics.set_index("subject_id")["gender"]
    position = {name: k for k, name in enumerate(schema.variables)}
    weight = dict(zip(schema.variables, model.weight.tolist(), strict=True))
    # heart rate 60-100; hematocrit 37-47 % in women, 42-50 % in men, both together 37-50 %
    middle = {("HR", s): 80.0 for s in (0.0, 1.0, None)}
    middle |= {("HCT", 0.0): 42.0, ("HCT", 1.0): 46.0, ("HCT", None): 43.5}
    checked = 0
    for name in ("HR", "HCT"):
        own = told[(told["variable"] == name) & (told["kind"] == "observation")]
        for row in own.itertuples():
            known = sex[row.subject_id]
            reference = middle[name, None if np.isnan(known) else known]
            x, b = schema.standardize(
                np.array([position[name]] * 2), np.array([row.value, reference])
            )
            expected = weight[name] * (1 + row.time / 10) * (x - b)
            assert row.attribution == pytest.approx(expected, abs=1e-12)
            checked += 1
    assert checked > 50


def test_normal_refuses_a_variable_without_a_reference_interval_and_names_it(run, tables):
    renamed = {"HR": "weird_a", "HCT": "weird_b"}
    names = tuple(renamed.get(name, name) for name in run.schema.variables)
    other = replace(run, schema=replace(run.schema, variables=names))
    observations = tables["observations"].replace({"variable": renamed})
    cohort = Cohort.from_tables(**{**tables, "observations": observations})
    with pytest.raises(
        ArgumentError, match=r"no reference interval for .*weird_a \(bpm\)"
    ) as raised:
        explain(other, cohort, baseline="normal")
    assert "weird_b (%)" in str(raised.value)
    assert "MAP" not in str(raised.value)
    own = pd.DataFrame(
        {
            "variable": ["weird_a", "weird_b"],
            "unit": ["bpm", "%"],
            "low": [60, 37],
            "high": [100, 50],
            "source": "the laboratory of this hospital",
        }
    )
    found = explain(other, cohort, baseline="normal", normal_ranges=own)
    assert not found.gates["withheld"].any()


def test_a_reference_interval_in_another_unit_is_none(run, cohort):
    units = tuple(
        "1/s" if name == "HR" else u
        for name, u in zip(run.schema.variables, run.schema.units, strict=True)
    )
    other = replace(run, schema=replace(run.schema, units=units))
    with pytest.raises(ArgumentError, match=r"no reference interval for HR \(1/s\)"):
        explain(other, cohort, baseline="normal")


def test_baselines_disagree_and_only_the_attribution_changes(run, cohort):
    some = cohort.take(range(1, 6))
    reference = explain(run, some)
    for baseline in ("normal", "carry"):
        found = explain(run, some, baseline=baseline)
        np.testing.assert_allclose(found.gates["output"], reference.gates["output"])
        own, mean = found.to_pandas(), reference.to_pandas()
        assert len(own) == len(mean)
        assert not np.allclose(own["attribution"], mean["attribution"])


def test_rows_put_back_into_batches_are_the_records_themselves(run, cohort):
    records = PackedRecords.build(cohort, run.schema, run.task, with_targets=False)
    order = np.argsort(-records.lengths, kind="stable")
    rows = RecordRows([run.model], records, order, explained_of(run.task, run.schema))
    generator = np.random.default_rng(0)
    which = torch.from_numpy(generator.integers(len(order), size=60))
    with torch.no_grad():
        logit = rows(rows.x[which], which).numpy()
        truth = run.model.double()(records.batch(np.arange(len(records)), dtype=torch.float64))
    run.model.float()
    by_position = torch.empty(len(records), dtype=torch.float64)
    lengths = torch.from_numpy(np.argsort(-records.lengths, kind="stable").copy())
    by_position[lengths] = truth.value[:, 0]
    np.testing.assert_allclose(logit, by_position[order[which]].numpy(), atol=1e-12)


# the table of reference intervals


def test_every_shipped_interval_names_its_source_and_its_unit():
    table = read_normal_ranges()
    assert (table["source"].str.len() > 10).all()
    assert table["unit"].notna().all()
    assert not table.duplicated(["variable", "unit", "sex"]).any()
    assert (table["low"] <= table["high"]).all()


def test_shipped_variables_have_an_interval_in_their_unit_where_a_reference_exists():
    table = read_normal_ranges()
    known = set(zip(table["variable"], table["unit"], strict=True))
    lacking = {name for name, variable in VARIABLES.items() if (name, variable.unit) not in known}
    # volumes of urine and weights have no reference interval, ckmb none in its unit; the magnesium
    # of PhysioNet-2012 is declared in mmol/L and charted in mg/dL, so its interval must be chosen
    assert lacking <= {"Urine", "urine", "Weight", "ckmb", "Mg"}


def test_own_intervals_replace_the_shipped_ones_of_the_same_variable_and_unit(tmp_path):
    own = tmp_path / "ranges.csv"
    own.write_text("variable,unit,low,high,source\nHCT,%,30,40,this laboratory\n")
    table = read_normal_ranges(own)
    hematocrit = table[table["variable"] == "HCT"]
    assert hematocrit[["low", "high", "sex"]].to_numpy().tolist() == [[30, 40, ""]]
    assert len(table) == len(read_normal_ranges()) - 1  # two sexes gave way to one row


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": ""}, "a source must be named, row 1"),
        ({"low": "about 3"}, "low and high must be finite numbers, row 1"),
        ({"low": 50}, "low must not lie above high, row 1"),
        ({"sex": "x"}, "sex must be 'female', 'male' or empty, row 1"),
    ],
)
def test_a_malformed_interval_is_refused_with_its_row(change, words):
    row = {"variable": "HCT", "unit": "%", "sex": "", "low": 30, "high": 40, "source": "here"}
    with pytest.raises(SchemaError, match=words):
        read_normal_ranges(pd.DataFrame([row | change]))


def test_a_table_without_a_column_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(SchemaError, match="no column 'source'"):
        read_normal_ranges(pd.DataFrame({"variable": ["a"], "unit": "1", "low": 0, "high": 1}))
    with pytest.raises(SchemaError, match="no such file"):
        read_normal_ranges(tmp_path / "nowhere.csv")
