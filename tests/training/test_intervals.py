import json
import shutil

import numpy as np
import pytest

from clinode.cohort import Cohort, Forecast
from clinode.errors import ArgumentError, CheckpointError
from clinode.sequence import LinearLatentODE
from clinode.training import FitConfig, evaluate, fit, load_run
from clinode.training.ensemble import fit_ensemble, load_ensemble
from clinode.training.forecasting import forecast_queries
from clinode.training.intervals import set_aside
from clinode.training.stream import adaptive_forecasts

TASK = Forecast(24.0, at=24.0)
MODEL = LinearLatentODE(latent=3, hidden=6, statistics_hidden=6, head_hidden=8, static_code=4)
QUICK = FitConfig(epochs=2, batch_size=32, bucket_batches=2)


@pytest.fixture(scope="module")
def parts(make_cohort):
    return make_cohort(120), make_cohort(160, seed=1, first_id=1001)


@pytest.fixture(scope="module")
def course(parts, tmp_path_factory):
    out = tmp_path_factory.mktemp("calibrated") / "course"
    return fit(MODEL, *parts, task=TASK, out=out, config=QUICK, progress=False)


@pytest.fixture(scope="module")
def fresh(make_cohort):
    return make_cohort(400, seed=2, first_id=9001)


def test_who_calibrates_neither_trains_nor_selects(course, parts):
    selecting, aside = set_aside(parts[1])
    assert aside is not None
    assert {*selecting.subjects, *aside.subjects} == {*parts[1].subjects}
    assert len(selecting) + len(aside) == len(parts[1])
    took = course.parts.set_index("subject_id")["split"]
    assert set(took[took == "calibrate"].index) == set(aside.subjects)
    told = course.metrics["intervals"]
    assert told["is_calibrated"]
    assert told["n_subjects"] == len(aside)
    asked = forecast_queries(course, course.records(aside, with_targets=True))
    assert told["n_queries"] == len(asked)


def test_a_factor_is_the_rank_statistic_of_those_set_aside(course, parts):
    asked = forecast_queries(course, course.records(set_aside(parts[1])[1], with_targets=True))
    score = (asked["target"] - asked["mean"]).abs() / asked["spread"]
    for variable in range(len(course.schema.variables)):
        own = np.sort(score[asked["variable"] == variable])
        expected = own[int(np.ceil(0.8 * (len(own) + 1))) - 1]
        assert course.calibration.factors(0.8)[variable] == pytest.approx(expected)


def test_intervals_hold_what_they_promise_on_new_subjects(course, fresh):
    found = evaluate(course, fresh, n_resamples=200).to_dict()
    low, high = (found["coverage"][end] for end in ("low", "high"))
    assert low - 0.02 < 0.9 < high + 0.02  # 160 / 2 subjects stand behind the factors
    for held in found["variables"].values():
        assert 0.8 < held["model"]["coverage"]["value"] < 0.98
        assert held["model"]["coverage"]["low"] < held["model"]["coverage"]["high"]
    raw = course.predict(fresh, hours_after=[6.0], level=0.5)
    wide = course.predict(fresh, hours_after=[6.0])
    assert ((raw["high"] - raw["low"]) < (wide["high"] - wide["low"])).all()
    np.testing.assert_array_equal(raw["value"], wide["value"])
    with pytest.raises(ArgumentError, match="level"):
        course.predict(fresh, level=1.0)


def test_a_loaded_run_has_the_same_intervals_and_refuses_altered_ones(course, fresh, tmp_path):
    loaded = load_run(course.folder)
    np.testing.assert_array_equal(loaded.calibration.score, course.calibration.score)
    np.testing.assert_array_equal(
        loaded.predict(fresh, hours_after=[3.0])["low"],
        course.predict(fresh, hours_after=[3.0])["low"],
    )
    shutil.copytree(course.folder, tmp_path / "run")
    with (tmp_path / "run" / "intervals.safetensors").open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"\0" * 8)
    with pytest.raises(CheckpointError, match="intervals"):
        load_run(tmp_path / "run")


def test_without_a_tuning_part_of_some_size_nothing_is_calibrated_and_that_is_said(
    forecaster, parts, make_cohort, tmp_path
):
    assert forecaster.calibration is None
    assert "no tuning part" in forecaster.metrics["intervals"]["verdict"]
    few = make_cohort(25, seed=3, first_id=5001)
    run = fit(MODEL, parts[0], few, task=TASK, out=tmp_path / "run", config=QUICK, progress=False)
    assert run.calibration is None
    assert "too small" in run.metrics["intervals"]["verdict"]
    assert set(run.parts["split"]) == {"train", "tune"}
    half = run.predict(few, hours_after=[6.0]).eval("high - value")
    wide = run.predict(few, hours_after=[6.0], level=0.99).eval("high - value")
    np.testing.assert_allclose(wide / half, 2.5758293 / 1.6448536, rtol=1e-6)  # normal quantiles


def test_a_risk_has_no_level(fitted, held_out):
    with pytest.raises(ArgumentError, match="level belongs to forecasts"):
        fitted.predict(held_out, level=0.9)


def test_an_ensemble_calibrates_its_mixture(parts, fresh, tmp_path):
    out = tmp_path / "both"
    ensemble = fit_ensemble(
        MODEL, *parts, task=TASK, out=out, seeds=(0, 1), config=QUICK, progress=False
    )
    own = [run.calibration.factors() for run in ensemble.runs]
    assert not np.allclose(ensemble.calibration.factors(), own[0])
    found = ensemble.evaluate(fresh, n_resamples=50).to_dict()
    assert 0.86 < found["coverage"]["value"] < 0.94
    loaded = load_ensemble(out)
    np.testing.assert_array_equal(loaded.calibration.score, ensemble.calibration.score)
    stream = adaptive_forecasts(ensemble, fresh)
    assert 0.85 < stream["is_held"].mean() < 0.95
    stored = json.loads((out / "ensemble.json").read_text())
    stored["intervals"] = "0" * 64
    (out / "ensemble.json").write_text(json.dumps(stored))
    with pytest.raises(CheckpointError, match="intervals"):
        load_ensemble(out)


def moved(cohort, factor):
    """The same subjects, whose later values swing wider."""
    table = cohort.observations
    late = table["time"] > 24
    mean = table.groupby("variable", observed=True)["value"].transform("mean")
    wild = mean + factor * (table["value"] - mean)
    return Cohort.from_tables(
        table.assign(value=table["value"].where(~late, wild)), statics=cohort.statics
    )


def test_intervals_along_a_stream_come_back_after_the_population_moved(course, fresh):
    wild = moved(fresh, 4.0)
    fixed = evaluate(course, wild, n_resamples=20).to_dict()["coverage"]["value"]
    stream = adaptive_forecasts(course, wild, step=0.02)
    second = stream["is_held"].to_numpy()[len(stream) // 2 :].mean()
    assert fixed < 0.8
    assert second > 0.86
    for _, own in stream.groupby("variable", observed=True):
        most = own.groupby("subject_id").size().max()
        assert abs((~own["is_held"]).mean() - 0.1) <= (0.9 + most * 0.02) / (0.02 * len(own))
    held = stream["observed"].between(stream["low"] - 1e-6, stream["high"] + 1e-6)
    assert (held == stream["is_held"]).mean() > 0.999


def test_a_stream_comes_in_the_order_that_is_said(course, fresh):
    order = np.random.default_rng(0).permutation(fresh.subjects)
    stream = adaptive_forecasts(course, fresh, order=order)
    came = stream["subject_id"].drop_duplicates().to_numpy()
    np.testing.assert_array_equal(came, order[np.isin(order, came)])
    first = stream[stream["subject_id"] == came[0]].reset_index(drop=True)
    alone = adaptive_forecasts(course, fresh.select(came[:1]))  # before any miss
    np.testing.assert_allclose(first["high"], alone["high"], rtol=1e-5)
    with pytest.raises(ArgumentError, match="order names"):
        adaptive_forecasts(course, fresh, order=order[1:])


def test_a_run_without_calibrated_intervals_has_no_stream(forecaster, held_out):
    with pytest.raises(ArgumentError, match="no calibrated intervals"):
        adaptive_forecasts(forecaster, held_out)
