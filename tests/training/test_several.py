import numpy as np
import pandas as pd
import pytest
import torch

from clinode.attribution import explain
from clinode.cohort import (
    Classify,
    Forecast,
    Interpolate,
    PackedRecords,
    Preprocessor,
    Several,
    Survive,
    task_from_dict,
)
from clinode.errors import ArgumentError
from clinode.training import evaluate, fit, fit_ensemble, load_run

TASK = Several((Classify("died"), Forecast(24.0, at=24.0)), weights=(1.0, 0.5))


@pytest.fixture(scope="module")
def both(tmp_path_factory, small_model, train, held_out, small_config):
    """A run that predicts a risk and a course; nobody may change it."""
    out = tmp_path_factory.mktemp("runs") / "both"
    call = {"task": TASK, "config": small_config, "progress": False}
    return fit(small_model, train, held_out.take(range(60)), out=out, **call)


@pytest.fixture(scope="module")
def cohort(make_cohort):
    return make_cohort(80, seed=3, first_id=3001)


def test_each_task_answers_as_it_does_alone_on_the_same_trajectory(both, cohort):
    table = both.predict(cohort)
    assert table.columns[2] == "task"
    assert table.columns[-1] == "probability"
    risks, course = (table[table["task"] == kind] for kind in ("classify", "forecast"))
    assert risks["subject_id"].tolist() == cohort.subjects.tolist()
    alone = both.of("classify").predict(cohort)
    np.testing.assert_array_equal(alone["probability"], risks["probability"])
    assert (alone["prediction_time"] == 24.0).all()  # that of the forecast is that of both
    ahead = both.of("forecast").predict(cohort)
    np.testing.assert_array_equal(ahead["value"], course["value"])
    later = both.predict(cohort, hours_after=[3.0], level=0.5)
    assert set(later["time"].dropna()) == {27.0}
    assert both.model.head is not both.of("forecast").model.head
    assert both.of("forecast").model.state_dict()["memory.log_rate"] is not None


def test_both_are_measured_in_one_call_and_each_as_by_itself(both, cohort):
    found = evaluate(both, cohort, n_resamples=30).to_dict()
    assert set(found["tasks"]) == {"classify", "forecast"}
    assert found["tasks"]["classify"]["n_records"] == len(cohort)
    one = evaluate(both.of("forecast"), cohort, n_resamples=30).to_dict()
    assert found["tasks"]["forecast"]["mse"] == one["mse"]
    risk = evaluate(both.of("classify"), cohort, n_resamples=30).to_dict()
    assert found["tasks"]["classify"]["difference"] == risk["difference"]
    assert all(row["task"] == "classify" for row in found["subgroups"])
    assert set(evaluate(both, cohort, n_resamples=10).to_pandas()["task"]) == set(TASK.kinds)


@pytest.mark.slow
def test_one_run_is_stored_loaded_explained_and_asked_in_company(
    both, cohort, small_model, train, small_config, tmp_path
):
    loaded = load_run(both.folder)
    assert loaded.task == TASK
    pd.testing.assert_frame_equal(loaded.predict(cohort), both.predict(cohort))
    assert set(pd.read_parquet(both.folder / "predictions.parquet")["task"]) == set(TASK.kinds)
    few = cohort.take([1, 2])
    with pytest.raises(ArgumentError, match="this run has several tasks"):
        explain(both, few)
    gates = explain(both.of("classify"), few).gates
    logit = both.of("classify").predict(few)["logit"]
    np.testing.assert_allclose(gates["output"], logit, rtol=1e-3)
    call = {"task": TASK, "config": small_config, "progress": False}
    ensemble = fit_ensemble(small_model, train, out=tmp_path, seeds=(0, 1), **call)
    told = ensemble.evaluate(cohort, n_resamples=10).to_dict()
    assert told["tasks"]["forecast"]["mse"]["value"] > 0
    members = [run.of("classify").predict(cohort)["logit"] for run in ensemble.runs]
    table = ensemble.predict(cohort)
    mean = table[table["task"] == "classify"]["logit"]
    np.testing.assert_allclose(mean, np.mean(members, axis=0), rtol=1e-6)


def test_the_loss_is_the_weighted_sum_and_every_head_learns(train, small_model):
    schema = Preprocessor.fit(train, TASK)
    records = PackedRecords.build(train, schema, TASK)
    model = small_model.build(schema, TASK, torch.Generator().manual_seed(0))
    model.prepare(records)
    batch = records.batch(np.arange(40))
    readout = model(batch)
    parts = [
        head.loss(part, said, 0.1, head.counts(part))
        for head, part, said in zip(model.head.heads, batch.parts, readout.parts, strict=True)
    ]
    torch.testing.assert_close(
        model.head.loss(batch, readout, 0.1, model.head.counts(batch)),
        parts[0] + 0.5 * parts[1],
        rtol=1e-6,
        atol=0,
    )
    model.loss(batch, None).backward()
    for head in model.head.heads:
        assert any(p.grad is not None and p.grad.any() for p in head.parameters())
    with torch.no_grad():
        weighted = model.head.prediction_losses(batch, readout)
    assert [weight for weight, _, _ in weighted] == [1.0, 0.5]
    assert weighted[0][2] == 40
    assert weighted[1][2] == int(batch.parts[1].target_mask.sum())


def test_a_task_is_prepared_on_its_own_targets(train, small_model):
    schema = Preprocessor.fit(train, TASK)
    records = PackedRecords.build(train, schema, TASK)
    together = small_model.build(schema, TASK, torch.Generator().manual_seed(0))
    together.prepare(records)
    forecast = PackedRecords.build(train, schema, TASK.tasks[1])
    alone = small_model.build(schema, TASK.tasks[1], torch.Generator().manual_seed(0))
    alone.prepare(forecast)
    one, other = (dict(head.named_buffers()) for head in (together.head.heads[1], alone.head))
    torch.testing.assert_close(one["weight"], other["weight"])
    torch.testing.assert_close(
        together.head.heads[1].anchor.coefficient, alone.head.anchor.coefficient
    )


def test_tasks_are_written_down_and_agree_on_a_time():
    assert task_from_dict(TASK.to_dict()) == TASK
    assert TASK.default_time(48.0) == 24.0
    assert Several((Classify("died"), Forecast(10.0))).default_time(48.0) == 38.0
    assert Several((Classify("died"), Forecast(10.0))).weights == (1.0, 1.0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Several((Classify("died"),)), "at least two"),
        (lambda: Several((Classify("a"), Classify("b"))), "two tasks are of the kind 'classify'"),
        (lambda: Several((Classify("a"), Interpolate(0.3))), "an interpolation hides"),
        (lambda: Several((Classify("a", at=3.0), Forecast(2.0, at=4.0))), "different prediction"),
        (
            lambda: Several((Survive("end", "event", landmark=2.0), Classify("a"))),
            "the landmark of a survival task",
        ),
        (lambda: Several(TASK.tasks, weights=(1.0,)), "expected 2 positive weights"),
        (lambda: Several(TASK.tasks, weights=(1.0, 0.0)), "expected 2 positive weights"),
    ],
)
def test_tasks_that_do_not_go_together_are_refused(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_a_task_that_a_run_has_not_is_named_beside_those_it_has(both, fitted):
    with pytest.raises(ArgumentError, match="'survive'; it has: classify, forecast"):
        both.of("survive")
    with pytest.raises(ArgumentError, match="it has: classify"):
        fitted.of("forecast")
