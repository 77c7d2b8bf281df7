"""Folds, searches and ensembles: no subject is predicted by a run that saw it."""

import importlib.util
import math
import sys

import joblib
import numpy as np
import pandas as pd
import pytest

import clinode
from clinode.cohort import Classify, Cohort, Forecast
from clinode.errors import ArgumentError, OutputError, SchemaError, SolverError
from clinode.sequence import LinearLatentODE
from clinode.training import (
    Choice,
    FitConfig,
    Integers,
    Search,
    Uniform,
    cross_validate,
    evaluate,
    fit_ensemble,
    search,
    search_optuna,
)

from .test_distributed import make_cohort

SMALL = {"latent": 3, "hidden": 4, "statistics_hidden": 4, "head_hidden": 4}
CONFIG = FitConfig(epochs=1, batch_size=16, bucket_batches=2)
TASK = Classify("died", at=30.0)


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return make_cohort(60)


@pytest.fixture(scope="module")
def validated(cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("folds")
    return cross_validate(
        LinearLatentODE(**SMALL), cohort, task=TASK, out=out, n_folds=3, config=CONFIG
    )


def test_every_subject_is_predicted_once_by_a_run_that_never_saw_it(validated, cohort):
    shown = validated.predictions
    assert sorted(shown["subject_id"]) == sorted(cohort.subjects)
    for number, run in enumerate(validated.runs):
        held = shown.loc[shown["split"] == f"fold-{number}", "subject_id"]
        assert not set(held) & set(run.parts["subject_id"])
        assert {*held, *run.parts["subject_id"]} == set(cohort.subjects)
        again = run.predict(cohort.select(held.tolist())).set_index("subject_id")["probability"]
        own = shown[shown["split"] == f"fold-{number}"].set_index("subject_id")["probability"]
        pd.testing.assert_series_equal(again.loc[own.index], own)


def test_pooled_metrics_are_those_of_all_predictions_together(validated):
    shown = validated.predictions
    brier = np.mean((shown["probability"] - shown["outcome"]) ** 2)
    assert validated.pooled.to_dict()["brier"]["value"] == pytest.approx(brier)
    table = validated.to_pandas().set_index("metric")
    assert table.loc["brier", "mean"] == pytest.approx(validated.folds["brier"].mean())


def test_folds_are_not_fitted_again_and_refuse_another_call(validated, cohort):
    stamps = [(run.folder / "manifest.json").stat().st_mtime_ns for run in validated.runs]
    model, out = LinearLatentODE(**SMALL), validated.folder
    again = cross_validate(model, cohort, task=TASK, out=out, n_folds=3, config=CONFIG)
    assert stamps == [(run.folder / "manifest.json").stat().st_mtime_ns for run in again.runs]
    pd.testing.assert_frame_equal(again.predictions, validated.predictions)
    other = FitConfig(epochs=2, batch_size=16, bucket_batches=2)
    with pytest.raises(OutputError, match=r"fit.epochs is 1 there, 2 here"):
        cross_validate(model, cohort, task=TASK, out=out, n_folds=3, config=other)


@pytest.mark.slow
def test_folds_side_by_side_give_the_same_numbers(validated, cohort, tmp_path):
    with joblib.parallel_config("loky", n_jobs=2):
        other = cross_validate(
            LinearLatentODE(**SMALL),
            cohort,
            task=TASK,
            out=tmp_path / "folds",
            n_folds=3,
            config=CONFIG,
            n_jobs=2,
        )
    np.testing.assert_allclose(
        other.predictions["probability"], validated.predictions["probability"], rtol=1e-5
    )


@pytest.mark.slow
def test_a_dask_cluster_of_two_workers_gives_the_same_numbers(validated, cohort, tmp_path):
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    pytest.importorskip("dask")
    run, some = validated.runs[0], cohort.take(range(12))
    alone = clinode.explain(run, some)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        other = cross_validate(
            LinearLatentODE(**SMALL),
            cohort,
            task=TASK,
            out=tmp_path / "folds",
            n_folds=3,
            config=CONFIG,
            n_jobs=2,
        )
        together = clinode.explain(run, some, n_jobs=2)
    np.testing.assert_allclose(
        other.predictions["probability"], validated.predictions["probability"], rtol=1e-5
    )
    np.testing.assert_allclose(
        together.to_pandas()["attribution"], alone.to_pandas()["attribution"], atol=1e-9
    )


def test_subjects_explained_side_by_side_are_those_of_one_after_the_other(validated, cohort):
    run, some = validated.runs[0], cohort.take(range(9))
    alone = clinode.explain(run, some)
    with joblib.parallel_config("threading"):
        together = clinode.explain(run, some, n_jobs=2)
    pd.testing.assert_frame_equal(together.to_pandas(), alone.to_pandas(), atol=1e-9)
    pd.testing.assert_frame_equal(together.gates, alone.gates, atol=1e-9)
    with joblib.parallel_config("threading"):
        turned = clinode.explain(run, some, n_jobs=2, subjects=list(some.subjects)[::-1])
    pd.testing.assert_frame_equal(turned.gates, alone.gates, atol=1e-9)
    with pytest.raises(ArgumentError, match="n_jobs must be at least 1"):
        clinode.explain(run, some, n_jobs=0)
    with pytest.raises(ArgumentError, match="1 of the subjects are not in the cohort"):
        clinode.explain(run, some, n_jobs=2, subjects=[-5])


def test_folds_that_make_no_sense_are_refused(cohort, tmp_path):
    model = LinearLatentODE(**SMALL)
    for change, words in (
        ({"n_folds": 1}, "n_folds must be at least 2"),
        ({"tune_fraction": 1.0}, r"tune_fraction must lie in \[0, 1\)"),
        ({"n_jobs": 0}, "n_jobs must be at least 1"),
    ):
        with pytest.raises(ArgumentError, match=words):
            cross_validate(model, cohort, task=TASK, out=tmp_path / "x", **change)
    with pytest.raises(SchemaError, match="a fold of 40 has no subject"):
        cross_validate(model, cohort.take(range(4)), task=TASK, out=tmp_path / "y", n_folds=40)


# search

SPACE = {
    "model.latent": Integers(2, 5),
    "model.static_code": Choice([2, 4]),
    "fit.learning_rate": Uniform(1e-4, 1e-2, log=True),
}


@pytest.fixture(scope="module")
def parts(cohort) -> tuple[Cohort, Cohort]:
    return cohort.take(range(40)), cohort.take(range(40, 60))


@pytest.fixture(scope="module")
def searched(parts, tmp_path_factory) -> Search:
    return search(
        LinearLatentODE(**SMALL),
        *parts,
        task=TASK,
        space=SPACE,
        out=tmp_path_factory.mktemp("search"),
        n_trials=3,
        config=CONFIG,
    )


def test_trials_are_scored_on_the_tuning_part_and_the_best_is_the_best(searched):
    trials = searched.trials
    assert list(trials["trial"]) == [0, 1, 2]
    assert (trials["status"] == "done").all()
    best = searched.best
    row = trials.loc[trials["score"].idxmin()]
    assert best.model.settings.latent == row["model.latent"]
    assert best.config.learning_rate == pytest.approx(row["fit.learning_rate"])
    assert min(e["tune_loss"] for e in best.metrics["curve"]) == row["score"]
    assert searched.to_pandas()["score"].is_monotonic_increasing


def test_more_trials_leave_the_first_ones_as_they_were(searched, parts):
    more = search(
        LinearLatentODE(**SMALL),
        *parts,
        task=TASK,
        space=SPACE,
        out=searched.folder,
        n_trials=4,
        config=CONFIG,
    )
    pd.testing.assert_frame_equal(more.trials.head(3), searched.trials)


def test_draws_stay_within_their_bounds_and_follow_their_scale():
    generator = np.random.default_rng(0)
    whole = [int(Integers(1, 100, log=True).draw(generator)) for _ in range(2000)]
    assert min(whole) == 1
    assert max(whole) <= 100
    assert 7 < np.median(whole) < 13
    number = [Uniform(1e-4, 1.0, log=True).draw(generator) for _ in range(2000)]
    assert 0.007 < np.median(number) < 0.014
    assert {Choice(["a", "b"]).draw(generator) for _ in range(40)} == {"a", "b"}
    for wrong in (lambda: Uniform(1.0, 1.0), lambda: Integers(0, 3, log=True), lambda: Choice([])):
        with pytest.raises(ArgumentError):
            wrong()


def test_a_space_of_unknown_settings_is_refused(parts, tmp_path):
    for space, words in (
        ({"model.width": Integers(1, 2)}, "no setting 'model.width'"),
        ({}, "nothing"),
    ):
        with pytest.raises(ArgumentError, match=words):
            search(LinearLatentODE(), *parts, task=TASK, space=space, out=tmp_path)


def test_a_trial_that_diverged_is_written_down_and_not_fitted_again(parts, tmp_path, monkeypatch):
    wild = {"fit.learning_rate": Choice([1e12])}
    options = {"task": TASK, "out": tmp_path, "n_trials": 1, "config": CONFIG}
    first = search(LinearLatentODE(**SMALL), *parts, space=wild, **options)
    assert list(first.trials["status"]) == ["diverged"]
    with pytest.raises(SolverError, match="every trial of the search diverged"):
        _ = first.best
    monkeypatch.setattr(sys.modules["clinode.training.search"], "fit", None)  # fails when called
    again = search(LinearLatentODE(**SMALL), *parts, space=wild, **options)
    pd.testing.assert_frame_equal(again.trials, first.trials)


def test_trials_of_another_call_are_refused(searched, parts):
    with pytest.raises(OutputError, match=r"trial-0.json.*another call.*seed"):
        search(
            LinearLatentODE(**SMALL),
            *parts,
            task=TASK,
            space=SPACE,
            out=searched.folder,
            n_trials=1,
            config=CONFIG,
            seed=1,
        )


def test_a_search_of_which_nothing_is_left_says_so(tmp_path):
    trials = pd.DataFrame({"trial": [0], "score": [math.nan], "status": ["diverged"]})
    with pytest.raises(SolverError, match="every trial of the search diverged"):
        _ = Search(folder=tmp_path, trials=trials).best


def test_optuna_chooses_where_it_is_installed_and_is_named_where_not(parts, tmp_path):
    options = {"task": TASK, "space": SPACE, "out": tmp_path, "n_trials": 2, "config": CONFIG}
    if importlib.util.find_spec("optuna") is None:
        with pytest.raises(ArgumentError, match="needs the package optuna"):
            search_optuna(LinearLatentODE(**SMALL), *parts, **options)
        return
    found = search_optuna(LinearLatentODE(**SMALL), *parts, **options)
    assert list(found.trials["trial"]) == [0, 1]
    assert found.trials["model.latent"].between(2, 5).all()


# ensembles


@pytest.mark.parametrize("task", [TASK, Forecast(8.0, at=30.0)], ids=["classify", "forecast"])
def test_an_ensemble_is_evaluated_and_explained_as_one(cohort, tmp_path, task):
    train, held = cohort.take(range(40)), cohort.take(range(40, 60))
    ensemble = fit_ensemble(
        LinearLatentODE(**SMALL),
        train,
        task=task,
        out=tmp_path / "two",
        seeds=(0, 1),
        config=FitConfig(epochs=1, batch_size=16, bucket_batches=2),
        progress=False,
    )
    found = evaluate(ensemble, held, n_resamples=20)
    expected = ensemble.evaluate(held, n_resamples=20).to_dict()
    assert {k: v for k, v in found.to_dict().items() if k in expected} == expected
    asked = {"output": "first"} if isinstance(task, Forecast) else {}
    together = clinode.explain(ensemble, held.take(range(3)), **asked)
    alone = [clinode.explain(run, held.take(range(3)), **asked) for run in ensemble.runs]
    np.testing.assert_allclose(
        together.gates["output"], np.mean([a.gates["output"] for a in alone], axis=0), atol=1e-9
    )
    shares = np.mean([a.to_pandas()["attribution"] for a in alone], axis=0)
    np.testing.assert_allclose(together.to_pandas()["attribution"], shares, atol=0.02)
