import numpy as np
import pandas as pd
import pytest

from clinode.cohort import Cohort, Interpolate
from clinode.errors import ArgumentError, SchemaError
from clinode.sequence import LinearLatentODE
from clinode.training import FitConfig, evaluate, fit, fit_ensemble, load_run

TAU, NOISE = 8.0, 0.5  # hours; standard deviations of the process, which is 1


@pytest.fixture(scope="module")
def filler(tmp_path_factory, small_model, train, held_out, small_config):
    """A run that nobody may change."""
    out = tmp_path_factory.mktemp("runs") / "gaps"
    call = {"task": Interpolate(0.3, at=48.0), "config": small_config, "progress": False}
    return fit(small_model, train, held_out.take(range(60)), out=out, **call)


def test_hidden_values_are_measured_beside_the_trivial_answers(filler, make_cohort):
    cohort = make_cohort(80, seed=3, first_id=3001)
    found = evaluate(filler, cohort, n_resamples=50).to_dict()
    observations = cohort.observations.query("time <= 48")
    assert abs(found["n_queries"] / len(observations) - 0.3) < 0.05
    assert set(found["baselines"]) == {
        "mean",
        "patient_mean",
        "last_value",
        "nearest_value",
        "linear",
    }
    assert found["mse"]["value"] < found["baselines"]["last_value"]["mse"]["value"]
    assert set(found["variables"]) == set(filler.schema.variables)
    for row in found["variables"].values():
        assert row["model"]["mse"]["low"] <= row["model"]["mse"]["value"]


def test_gaps_are_filled_at_any_hour_of_the_window(filler, held_out):
    cohort = held_out.take([4, 9])
    table = filler.predict(cohort)
    assert list(table.columns) == [
        "subject_id",
        "prediction_time",
        "time",
        "variable",
        "value",
        "low",
        "high",
    ]
    assert table["time"].between(0.0, 48.0).all()
    assert (table["low"] < table["value"]).all()
    chosen = filler.predict(cohort, hours_after=[-10.0])
    assert (chosen["time"] == 38.0).all()
    assert len(chosen) == 2 * len(filler.schema.variables)
    with pytest.raises(ArgumentError, match="0 or negative hours"):
        filler.predict(cohort, hours_after=[3.0])


def test_a_filler_is_stored_loaded_and_asked_in_company(
    filler, held_out, small_model, train, small_config, tmp_path
):
    cohort = held_out.take(range(20))
    loaded = load_run(filler.folder)
    pd.testing.assert_frame_equal(loaded.predict(cohort), filler.predict(cohort))
    stored = pd.read_parquet(filler.folder / "predictions.parquet")
    assert {"observed", "value", "low", "high"} <= set(stored.columns)
    ensemble = fit_ensemble(
        small_model,
        train,
        task=filler.task,
        out=tmp_path,
        seeds=(0, 1),
        config=FitConfig(epochs=1),
        progress=False,
    )
    one, other = (run.predict(cohort)["value"] for run in ensemble.runs)
    variable = ensemble.predict(cohort)
    is_plain = variable["variable"] == "HR"
    np.testing.assert_allclose(
        variable["value"][is_plain], ((one + other) / 2)[is_plain], rtol=1e-6
    )
    assert ensemble.evaluate(cohort, n_resamples=10).to_dict()["mse"]["value"] > 0


def test_a_part_without_anything_hidden_is_refused(small_model, train, tmp_path):
    with pytest.raises(SchemaError, match="no record of the training part has a hidden"):
        fit(small_model, train, task=Interpolate(1e-6, at=48.0), out=tmp_path, progress=False)


def noisy_process(n_subjects: int, first_id: int) -> Cohort:
    """One variable: an Ornstein-Uhlenbeck process seen with noise at 20 random times."""
    generator = np.random.default_rng(first_id)
    parts = []
    for subject in range(first_id, first_id + n_subjects):
        time = np.sort(np.round(generator.uniform(0, 48, 20), 3))
        covariance = np.exp(-np.abs(time[:, None] - time) / TAU) + NOISE**2 * np.eye(20)
        value = 80 + 10 * np.linalg.cholesky(covariance) @ generator.normal(size=20)
        parts.append(pd.DataFrame({"subject_id": subject, "time": time, "value": value}))
    return Cohort.from_tables(pd.concat(parts).assign(variable="HR"))


def oracle_error(cohort: Cohort, task: Interpolate) -> float:
    """Mean squared error of the conditional mean under the true process, original units."""
    arrays, errors = cohort.arrays(), []
    hidden = task.hidden(
        cohort.subjects, ["HR"], arrays.subject_index, arrays.variable_index, arrays.time
    )
    assert hidden is not None
    for subject in range(len(cohort)):
        own = arrays.subject_index == subject
        time, value, is_hidden = arrays.time[own], arrays.value[own] - 80, hidden[own]
        kernel = np.exp(-np.abs(time[:, None] - time) / TAU)
        seen = kernel[~is_hidden][:, ~is_hidden] + NOISE**2 * np.eye((~is_hidden).sum())
        mean = kernel[is_hidden][:, ~is_hidden] @ np.linalg.solve(seen, value[~is_hidden])
        errors.append((value[is_hidden] - mean) ** 2)
    return float(np.concatenate(errors).mean())


@pytest.mark.slow
def test_a_process_is_filled_nearly_as_well_as_by_who_knows_it(tmp_path):
    task = Interpolate(0.3, at=48.0)
    train, test = noisy_process(600, 1), noisy_process(400, 5001)
    run = fit(
        LinearLatentODE(latent=6, hidden=16, statistics_hidden=8, head_hidden=16),
        train,
        task=task,
        out=tmp_path / "run",
        config=FitConfig(epochs=8, batch_size=32, learning_rate=5e-3),
        progress=False,
    )
    found = evaluate(run, test, n_resamples=200).to_dict()
    oracle = oracle_error(test, task) / run.schema.scale[0] ** 2
    assert found["mse"]["value"] < 1.06 * oracle
    assert found["difference"]["linear"]["mse"]["high"] < 0
    assert found["baselines"]["linear"]["mse"]["value"] > 1.1 * oracle
    assert abs(found["coverage"]["value"] - 0.9) < 0.03
