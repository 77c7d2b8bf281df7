import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import yaml

from clinode.cohort import Cohort
from clinode.errors import ArgumentError, CheckpointError, SchemaError
from clinode.folder import write_folder
from clinode.sequence import GRUD, LinearLatentODE
from clinode.training import load_run


def rewritten(run_folder: Path, target: Path, change) -> Path:
    """A copy of a run with one change and a manifest that fits it."""

    def write(folder: Path) -> None:
        shutil.copytree(run_folder, folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        change(folder)

    write_folder(target, write, kind="run")
    return target


def edit_weights(edit):
    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata()
        tensors = safetensors.numpy.load(path.read_bytes())
        edit(tensors)
        path.write_bytes(safetensors.numpy.save(tensors, metadata))

    return change


def test_a_loaded_run_predicts_what_the_fitted_one_did(fitted, held_out):
    loaded = load_run(fitted.folder)
    pd.testing.assert_frame_equal(loaded.predict(held_out), fitted.predict(held_out))
    assert loaded.weights_sha256 == fitted.weights_sha256
    assert loaded.schema == fitted.schema
    assert loaded.task == fitted.task
    assert loaded.config == fitted.config
    assert loaded.metrics == fitted.metrics


@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "schema.json",
        "split.parquet",
        "model.safetensors",
        "baselines.safetensors",
        "metrics.json",
        "predictions.parquet",
        "manifest.json",
    ],
)
@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed"])
def test_a_run_with_a_damaged_file_is_refused_by_name(fitted, tmp_path, name, damage):
    shutil.copytree(fitted.folder, tmp_path / "run")
    victim = tmp_path / "run" / name
    content = bytearray(victim.read_bytes())
    if damage == "removed":
        victim.unlink()
    else:
        content[len(content) // 3] ^= 1
        victim.write_bytes(content if damage == "flipped" else content[:-1])
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.") + "|no manifest"):
        load_run(tmp_path / "run")


def test_a_missing_weight_and_an_unknown_one_are_refused_by_name(fitted, tmp_path):
    def edit(tensors):
        first = sorted(tensors)[0]
        tensors["intruder"] = tensors.pop(first)

    folder = rewritten(fitted.folder, tmp_path / "run", edit_weights(edit))
    with pytest.raises(CheckpointError, match=r"missing: .*unknown: intruder"):
        load_run(folder)


def test_a_weight_of_another_shape_is_refused(fitted, tmp_path):
    def edit(tensors):
        first = sorted(tensors)[0]
        tensors[first] = np.zeros((2, 3, 5), dtype=np.float32)

    folder = rewritten(fitted.folder, tmp_path / "run", edit_weights(edit))
    with pytest.raises(CheckpointError, match=r"expected .* found \(2, 3, 5\)"):
        load_run(folder)


def test_a_weight_that_is_not_finite_is_refused(fitted, tmp_path):
    def edit(tensors):
        first = sorted(tensors)[0]
        tensors[first] = np.full_like(tensors[first], np.nan)

    folder = rewritten(fitted.folder, tmp_path / "run", edit_weights(edit))
    with pytest.raises(CheckpointError, match="not finite"):
        load_run(folder)


def test_weights_beside_another_schema_are_refused(fitted, tmp_path):
    def change(folder: Path) -> None:
        schema = json.loads((folder / "schema.json").read_text())
        schema["variables"][0]["mean"] += 1.0
        (folder / "schema.json").write_text(json.dumps(schema))

    folder = rewritten(fitted.folder, tmp_path / "run", change)
    with pytest.raises(CheckpointError, match="another schema"):
        load_run(folder)


def test_a_run_of_a_later_format_is_refused(fitted, tmp_path):
    def change(folder: Path) -> None:
        call = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump({**call, "format": 99}))

    folder = rewritten(fitted.folder, tmp_path / "run", change)
    with pytest.raises(CheckpointError, match="run format 99"):
        load_run(folder)


def test_a_model_of_another_configuration_is_not_filled_with_the_weights(fitted):
    with pytest.raises(CheckpointError, match="another configuration"):
        load_run(fitted.folder, model=LinearLatentODE())
    with pytest.raises(CheckpointError, match="GRUD"):
        load_run(fitted.folder, model=GRUD())


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="not written by clinode"):
        load_run(tmp_path)


def test_a_prediction_has_one_row_a_subject_with_the_probability_last(fitted, held_out):
    table = fitted.predict(held_out)
    assert list(table.columns) == ["subject_id", "prediction_time", "logit", "probability"]
    np.testing.assert_array_equal(table["subject_id"], held_out.subjects)
    assert (table["prediction_time"] == 48.0).all()
    np.testing.assert_allclose(table["probability"], 1 / (1 + np.exp(-table["logit"])), rtol=1e-12)


def test_what_was_measured_after_the_prediction_time_changes_no_bit(fitted, make_tables):
    tables = make_tables(30, seed=8, first_id=100)
    late = tables["observations"].assign(time=lambda t: t["time"] + 48.001, value=77.0)
    longer = {**tables, "observations": pd.concat([tables["observations"], late])}
    before = fitted.predict(Cohort.from_tables(**tables))
    assert fitted.predict(Cohort.from_tables(**longer)).equals(before)


def test_a_prediction_needs_no_outcome(fitted, make_tables):
    tables = make_tables(10, seed=8, first_id=100)
    expected = fitted.predict(Cohort.from_tables(**tables))
    del tables["outcomes"]
    pd.testing.assert_frame_equal(fitted.predict(Cohort.from_tables(**tables)), expected)


def test_a_variable_that_the_training_part_never_had_is_refused(fitted, make_tables):
    tables = make_tables(10, seed=8)
    tables["observations"].loc[:2, "variable"] = "TroponinI"
    with pytest.raises(SchemaError, match=r"'TroponinI' \(3 rows\)"):
        fitted.predict(Cohort.from_tables(**tables))


def test_a_subject_with_nothing_measured_has_a_prediction(fitted, make_tables):
    tables = make_tables(10, seed=8)
    observations = tables["observations"]
    tables["observations"] = observations[observations["subject_id"] != 4]
    table = fitted.predict(Cohort.from_tables(**tables))
    assert len(table) == 10
    assert np.isfinite(table["probability"]).all()


def test_a_variable_that_is_never_measured_here_is_no_error(fitted, make_tables):
    tables = make_tables(10, seed=8)
    observations = tables["observations"]
    tables["observations"] = observations[observations["variable"] != "Lactate"]
    assert np.isfinite(fitted.predict(Cohort.from_tables(**tables))["logit"]).all()


def test_a_classification_takes_no_hours(fitted, held_out):
    with pytest.raises(ArgumentError, match="hours_after"):
        fitted.predict(held_out, hours_after=[1.0])


def test_a_forecast_gives_every_variable_an_interval_at_the_hours_asked(forecaster, held_out):
    table = forecaster.predict(held_out, hours_after=[3.0, 24.0])
    assert list(table.columns) == [
        "subject_id",
        "prediction_time",
        "time",
        "variable",
        "value",
        "low",
        "high",
    ]
    assert len(table) == len(held_out) * 2 * len(forecaster.schema.variables)
    assert set(table["time"] - table["prediction_time"]) == {3.0, 24.0}
    assert (table["low"] < table["value"]).all()
    assert (table["value"] < table["high"]).all()
    heart_rate = table.loc[table["variable"] == "HR", "value"]
    assert heart_rate.between(40, 180).all()  # in beats a minute, not in standard deviations


def test_forecasts_stand_by_default_at_twelve_steps_to_the_horizon(forecaster, held_out):
    table = forecaster.predict(held_out.take([0]))
    assert sorted(set(table["time"])) == [24.0 + 2.0 * k for k in range(1, 13)]


@pytest.mark.parametrize("hours", [[], [0.0], [-1.0], [float("nan")]])
def test_hours_that_do_not_lie_ahead_are_refused(forecaster, held_out, hours):
    with pytest.raises(ArgumentError, match="positive hours"):
        forecaster.predict(held_out, hours_after=hours)


def test_the_forecast_at_an_hour_does_not_depend_on_the_other_hours_asked(forecaster, held_out):
    alone = forecaster.predict(held_out, hours_after=[5.0])
    among = forecaster.predict(held_out, hours_after=[1.0, 5.0, 20.0])
    among = among[among["time"] - among["prediction_time"] == 5.0].reset_index(drop=True)
    np.testing.assert_allclose(alone["value"], among["value"], rtol=1e-5)


def test_a_run_is_frozen(fitted):
    with pytest.raises(AttributeError):
        fitted.seed = 3
    assert replace(fitted, seed=3).seed == 3
