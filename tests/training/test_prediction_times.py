import json

import pytest

from clinode.cohort import Classify, Forecast
from clinode.errors import ArgumentError
from clinode.training import FitConfig, evaluate, fit

SHORT = {"epochs": 1, "batch_size": 32}


def test_a_forecast_learns_from_several_times_of_a_record_and_answers_at_its_own(
    small_model, train, held_out, tmp_path
):
    task = Forecast(24.0, at=24.0)
    runs = [
        fit(
            small_model,
            train,
            task=task,
            out=tmp_path / str(n),
            config=FitConfig(prediction_times=n, **SHORT),
            progress=False,
        )
        for n in (1, 3)
    ]
    starts = [json.loads((run.folder / "log.jsonl").read_text().splitlines()[0]) for run in runs]
    assert [start["n_records"] for start in starts] == [len(train), 3 * len(train)]
    once, thrice = (evaluate(run, held_out, n_resamples=20).to_dict() for run in runs)
    assert once["n_queries"] == thrice["n_queries"]
    assert once["baselines"] == thrice["baselines"]  # the trivial models know one time only
    assert set(runs[1].predict(held_out)["prediction_time"]) == {24.0}


def test_an_outcome_is_known_at_one_time_only(small_model, train, tmp_path):
    config = FitConfig(prediction_times=2, **SHORT)
    with pytest.raises(ArgumentError, match="prediction_times=2 belongs to forecasts"):
        fit(small_model, train, task=Classify("died"), out=tmp_path / "run", config=config)


def test_what_is_recommended_depends_on_the_task():
    assert FitConfig.recommended(Forecast(24.0)).prediction_times == 3
    assert FitConfig.recommended(Classify("died")) == FitConfig()
    with pytest.raises(ArgumentError, match="prediction_times"):
        FitConfig(prediction_times=0)
