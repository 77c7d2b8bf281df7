"""What a run promises, for every family of models there is; a new one is found by itself."""

import inspect

import numpy as np
import pytest

from clinode.cohort import Forecast
from clinode.errors import Interrupted
from clinode.sequence import MODELS, SequenceModel, model_from_config
from clinode.training import FitConfig, evaluate, fit, load_run
from clinode.training.loop import TrainingLoop

CONFIG = FitConfig(epochs=2, batch_size=16, bucket_batches=2)


def small(name: str) -> SequenceModel:
    """A family at a few states: what a run promises does not depend on sizes."""
    taken = inspect.signature(MODELS[name]).parameters
    sizes = {"latent": 4, "hidden": 8, "field_hidden": 4, "backbone": 8, "coupling": 4}
    return model_from_config(
        {"name": name, **{key: size for key, size in sizes.items() if key in taken}}
    )


@pytest.fixture(scope="module")
def few(make_cohort):
    return make_cohort(32, seed=6)


@pytest.fixture
def stop_after_three_steps(monkeypatch):
    step = TrainingLoop._step

    def step_and_stop(self):
        step(self)
        self.surroundings.flag.stop_requested = self.state.step == 3

    def undo():
        monkeypatch.setattr(TrainingLoop, "_step", step)

    monkeypatch.setattr(TrainingLoop, "_step", step_and_stop)
    return undo


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_run_is_stopped_resumed_and_loaded_without_a_trace(
    name, few, held_out, task, tmp_path, digests, stop_after_three_steps
):
    model, out = small(name), tmp_path / "stopped"
    call = {"task": task, "config": CONFIG, "progress": False}
    with pytest.raises(Interrupted, match="after step 3 of 4"):
        fit(model, few, out=out, **call)
    stop_after_three_steps()
    fit(model, few, out=tmp_path / "unhurt", **call)
    resumed = fit(model, few, out=out, **call)
    assert digests(out) == digests(tmp_path / "unhurt")
    others = held_out.take(range(40))
    loaded = load_run(tmp_path / "unhurt").predict(others)["logit"]
    np.testing.assert_array_equal(loaded, resumed.predict(others)["logit"])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_forecast_is_fitted_and_measured(name, few, held_out, tmp_path):
    run = fit(
        small(name),
        few,
        task=Forecast(24.0, at=24.0),
        out=tmp_path / "run",
        config=CONFIG,
        progress=False,
    )
    told = evaluate(run, held_out.take(range(60)), n_resamples=20).to_dict()
    assert 0 < told["mse"]["value"] < 10
    assert told["next_observation"]["model"]["value"] > 0
