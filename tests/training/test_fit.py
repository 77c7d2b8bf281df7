import errno
import hashlib
import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml

from clinode.cohort import Classify, Cohort, Forecast, PackedRecords, Preprocessor, record_blocks
from clinode.cohort.split import some_subjects
from clinode.errors import (
    ArgumentError,
    CheckpointError,
    OutputError,
    ResourceError,
    SchemaError,
    SolverError,
)
from clinode.sequence import LinearLatentODE
from clinode.training import FitConfig, evaluate, fit, load_run
from clinode.training.classification import ClassificationWork

fit_module = importlib.import_module("clinode.training.fit")  # the name is the function's too


def log_lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_is_the_folder_that_the_contract_names(fitted):
    names = {path.name for path in fitted.folder.iterdir()}
    assert names == {
        "config.yaml",
        "schema.json",
        "fingerprint.json",
        "split.parquet",
        "model.safetensors",
        "baselines.safetensors",
        "metrics.json",
        "predictions.parquet",
        "log.jsonl",
        "checkpoints",
        "manifest.json",
    }
    assert {path.name for path in fitted.folder.parent.iterdir()} == {fitted.folder.name}


def test_one_seed_gives_the_same_bytes_and_another_does_not(
    fitted, small_model, train, task, small_config, tmp_path, digests
):
    again = {"task": task, "config": small_config, "progress": False}
    fit(small_model, train, out=tmp_path / "same", **again)
    fit(small_model, train, out=tmp_path / "other", seed=1, **again)
    assert digests(tmp_path / "same") == digests(fitted.folder)
    other = digests(tmp_path / "other")
    assert other["model.safetensors"] != digests(fitted.folder)["model.safetensors"]
    assert other["schema.json"] == digests(fitted.folder)["schema.json"]


def test_records_packed_on_the_disk_give_the_same_bytes(
    fitted, small_model, train, task, small_config, tmp_path, digests, monkeypatch
):
    built = []

    def counted(cohort, *told):
        built.append(len(cohort))
        return build(cohort, *told)

    build = PackedRecords.build
    monkeypatch.setattr(record_blocks, "MANY_OBSERVATIONS", 0)
    monkeypatch.setattr(record_blocks, "BLOCK_SUBJECTS", 7)
    monkeypatch.setattr(record_blocks.PackedRecords, "build", counted)
    call = {"task": task, "config": small_config, "progress": False}
    fit(small_model, train, out=tmp_path / "run", **call)
    assert digests(tmp_path / "run") == digests(fitted.folder)
    assert max(built) == 7


def test_of_many_subjects_some_are_measured_and_all_are_trained_on(
    small_model, train, held_out, task, small_config, tmp_path
):
    config = replace(small_config, statistics_subjects=50)
    call = {"task": task, "config": config, "progress": False}
    run = fit(small_model, train, held_out, out=tmp_path / "run", **call)
    some = some_subjects(train, 50)
    assert len(some) == 50
    measured, own = Preprocessor.fit(some, task), run.schema
    assert own.n_subjects == len(train)
    assert replace(own, n_subjects=50) == measured
    assert own.mean != Preprocessor.fit(train, task).mean
    assert run.fingerprint["train"]["n_subjects"] == len(train)
    assert run.fingerprint["seen"]["n_subjects"] == 50
    (started,) = [line for line in log_lines(run.folder) if line["event"] == "start"]
    assert started["n_records"] + started["n_left_out"] == len(train)
    alone = fit(small_model, some, held_out, out=tmp_path / "alone", **call)
    stored = [
        safetensors.torch.load_file(each.folder / "baselines.safetensors") for each in (run, alone)
    ]
    assert stored[0].keys() == stored[1].keys()
    for name, found in stored[0].items():
        assert torch.equal(found, stored[1][name])
    for each in (run, alone):
        assert np.isfinite(each.predict(held_out)["probability"]).all()


@pytest.mark.slow
def test_a_fit_finds_what_was_planted(make_cohort, held_out, task, tmp_path):
    run = fit(
        LinearLatentODE(latent=4, hidden=8),
        make_cohort(400, seed=3, first_id=20001),
        task=task,
        out=tmp_path / "run",
        config=FitConfig(epochs=8, batch_size=32),
        progress=False,
    )
    found = evaluate(run, held_out).to_dict()
    assert found["auroc"]["value"] > 0.8  # the true risk itself reaches about .9
    assert found["difference"]["prevalence"]["auroc"]["low"] > 0.1


def test_a_fit_changes_neither_the_model_given_nor_the_callers_random_numbers(
    small_model, train, task, small_config, tmp_path
):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    fit(small_model, train, task=task, out=tmp_path / "run", config=small_config, progress=False)
    assert not small_model.is_built
    assert torch.equal(torch.rand(4), expected)


def test_without_a_tuning_part_every_epoch_runs_and_nothing_is_selected(fitted, small_config):
    assert fitted.metrics["part"] == "train"
    assert fitted.metrics["is_apparent"]
    assert fitted.metrics["epochs"] == small_config.epochs
    assert fitted.metrics["best_epoch"] is None
    assert [entry["tune_loss"] for entry in fitted.metrics["curve"]] == [None] * 3


def test_with_a_tuning_part_the_epoch_of_least_loss_is_kept_and_patience_ends_the_fit(
    small_model, train, make_cohort, task, tmp_path, monkeypatch
):
    monkeypatch.setattr(LinearLatentODE, "finish", lambda self, records: None)  # shifts the output
    tune = make_cohort(60, seed=2, first_id=9001)
    config = FitConfig(
        epochs=40, batch_size=16, learning_rate=0.05, average_decay=0.0, patience_epochs=3
    )
    run = fit(
        small_model, train, tune, task=task, out=tmp_path / "run", config=config, progress=False
    )
    curve = run.metrics["curve"]
    losses = [entry["tune_loss"] for entry in curve]
    best = int(np.argmin(losses)) + 1
    assert run.metrics["part"] == "tune"
    assert run.metrics["best_epoch"] == best
    assert len(curve) == best + 3 < 40
    outcome = tune.outcomes["died"].to_numpy()
    logit = run.predict(tune)["logit"].to_numpy()
    loss = np.mean(np.logaddexp(0.0, logit) - outcome * logit)
    assert loss == pytest.approx(min(losses), rel=1e-5)  # the weights kept are those of that epoch


def test_predictions_stored_with_a_run_are_those_of_the_reported_part(fitted, train):
    stored = pd.read_parquet(fitted.folder / "predictions.parquet")
    assert set(stored["split"]) == {"train"}
    np.testing.assert_array_equal(stored["subject_id"], train.subjects)
    np.testing.assert_array_equal(stored["outcome"], train.outcomes["died"])
    np.testing.assert_allclose(stored["probability"], fitted.predict(train)["probability"])
    assert stored.columns[-1] == "probability"


def test_held_out_subjects_change_no_byte_of_the_training(
    make_tables, small_model, task, small_config, tmp_path, digests
):
    tables = make_tables(160)
    noisy = {name: table.copy() for name, table in tables.items()}
    generator = np.random.default_rng(9)
    is_test = noisy["observations"]["subject_id"] > 120
    noisy["observations"].loc[is_test, "value"] = generator.uniform(1, 250, int(is_test.sum()))
    is_test = noisy["statics"]["subject_id"] > 120
    noisy["statics"].loc[is_test, "Age"] = generator.uniform(18, 100, int(is_test.sum()))
    is_test = noisy["outcomes"]["subject_id"] > 120
    noisy["outcomes"].loc[is_test, "died"] = 1 - noisy["outcomes"].loc[is_test, "died"]
    for name, held in (("clean", tables), ("noisy", noisy)):
        train = Cohort.from_tables(**held).take(np.arange(120))
        fit(small_model, train, task=task, out=tmp_path / name, config=small_config, progress=False)
    assert digests(tmp_path / "clean") == digests(tmp_path / "noisy")


def test_preprocessing_does_not_see_the_labels(
    fitted, make_tables, small_model, task, small_config, tmp_path
):
    tables = make_tables(120)
    shuffled = np.random.default_rng(4).permutation(tables["outcomes"]["died"].to_numpy())
    tables["outcomes"]["died"] = shuffled
    train = Cohort.from_tables(**tables)
    fit(small_model, train, task=task, out=tmp_path / "run", config=small_config, progress=False)
    schema = (tmp_path / "run" / "schema.json").read_bytes()
    assert schema == (fitted.folder / "schema.json").read_bytes()


def test_the_same_call_returns_the_finished_run_without_training_again(
    fitted, small_model, train, task, small_config, monkeypatch
):
    def never(*arguments, **options):
        raise AssertionError("it trained")

    monkeypatch.setattr(fit_module.TrainingLoop, "run", never)
    again = fit(
        small_model,
        train,
        task=task,
        out=fitted.folder,
        config=replace(small_config, checkpoint_seconds=1.0),
        progress=False,
    )
    assert again.weights_sha256 == fitted.weights_sha256


def test_what_a_kill_after_the_last_rename_leaves_behind_is_removed(
    fitted, small_model, train, task, small_config, tmp_path
):
    out = tmp_path / "run"
    shutil.copytree(fitted.folder, out)
    (tmp_path / "run.unfinished" / "checkpoints").mkdir(parents=True)
    fit(small_model, train, task=task, out=out, config=small_config, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 7}, "seed is 0 there, 7 here"),
        ({"config": FitConfig(epochs=4, batch_size=16, bucket_batches=2)}, "fit.epochs is 3 there"),
        ({"task": Classify("died", at=24.0)}, "task.at is 48.0 there, 24.0 here"),
        ({"model": LinearLatentODE(latent=5)}, "model.latent is 3 there, 5 here"),
    ],
)
def test_a_folder_that_holds_another_run_is_refused_with_the_difference(
    fitted, small_model, train, task, small_config, change, words
):
    call = {"model": small_model, "task": task, "config": small_config, **change}
    with pytest.raises(OutputError, match=words):
        fit(call.pop("model"), train, out=fitted.folder, progress=False, **call)


def test_a_folder_that_holds_a_run_on_other_data_is_refused(
    fitted, small_model, make_cohort, task, small_config
):
    other = make_cohort(120, seed=5)
    with pytest.raises(OutputError, match=r"another call \(data\.train\)"):
        fit(small_model, other, task=task, out=fitted.folder, config=small_config, progress=False)


def test_a_folder_of_something_else_is_never_touched(
    small_model, train, task, small_config, tmp_path
):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    call = {"task": task, "config": small_config, "progress": False}
    with pytest.raises(OutputError, match="not empty"):
        fit(small_model, train, out=tmp_path / "thesis", **call)
    with pytest.raises(OutputError, match="a file stands there"):
        fit(small_model, train, out=tmp_path / "thesis" / "chapter.tex", **call)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_a_read_only_place_is_refused_before_any_work(
    small_model, train, task, small_config, tmp_path, monkeypatch
):
    def read_only(self, *arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    def never(*arguments, **options):
        raise AssertionError("it worked")

    monkeypatch.setattr(Preprocessor, "fit", never)
    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(OutputError, match="not allowed"):
        fit(small_model, train, task=task, out=tmp_path / "run", config=small_config)


def test_a_disk_that_fills_up_at_the_end_loses_nothing(
    fitted, small_model, train, task, small_config, tmp_path, monkeypatch, digests
):
    out = tmp_path / "run"
    call = {"task": task, "out": out, "config": small_config, "progress": False}

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_parquet", full)
        with pytest.raises(ResourceError, match="disk is full"):
            fit(small_model, train, **call)
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run.unfinished"]
    fit(small_model, train, **call)
    assert digests(out) == digests(fitted.folder)
    assert [line["event"] for line in log_lines(out)].count("epoch") == 3


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(
    fitted, small_model, train, task, small_config, tmp_path, monkeypatch, capsys, digests, damage
):
    out = tmp_path / "run"
    call = {"task": task, "out": out, "config": small_config}
    with monkeypatch.context() as patch:
        patch.setattr(
            ClassificationWork, "fit_baselines", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            fit(small_model, train, **call)
    newest = max((tmp_path / "run.unfinished" / "checkpoints").iterdir())
    victim = newest / "weights.safetensors"
    content = bytearray(victim.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    victim.write_bytes(content[: len(content) - (damage == "truncated")])
    capsys.readouterr()
    fit(small_model, train, **call)
    told = capsys.readouterr().err
    assert f"passed over a damaged checkpoint: {newest.name}/weights.safetensors" in told
    assert "goes on after step" in told
    assert digests(out) == digests(fitted.folder)


def test_a_loss_that_is_not_a_number_stops_the_fit_and_keeps_the_last_checkpoint(
    small_model, train, task, small_config, tmp_path, monkeypatch
):
    loss, n_calls = LinearLatentODE.loss, 0

    def spoilt(self, batch, generator):
        nonlocal n_calls
        n_calls += 1
        return loss(self, batch, generator) * (
            float("nan") if n_calls == 5 else 1.0
        )  # the first told the memory

    monkeypatch.setattr(LinearLatentODE, "loss", spoilt)
    config = replace(small_config, checkpoint_seconds=0.0)
    with pytest.raises(
        SolverError, match=r"not a number at step 4 of 24 \(a batch of 16 records\)"
    ):
        fit(small_model, train, task=task, out=tmp_path / "run", config=config, progress=False)
    checkpoints = tmp_path / "run.unfinished" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-00000002", "step-00000003"]


def test_a_diverging_fit_keeps_the_weights_before_the_batch_and_names_that_batch(
    small_model, train, task, small_config, tmp_path, monkeypatch
):
    loss, places = LinearLatentODE.loss, []

    def spoilt(self, batch, generator):
        places.append(sorted(batch.subject.tolist()))
        return loss(self, batch, generator) * (float("nan") if len(places) == 5 else 1.0)

    monkeypatch.setattr(LinearLatentODE, "loss", spoilt)
    config = replace(small_config, checkpoint_seconds=1e6)  # no checkpoint is due at step 3
    with pytest.raises(SolverError) as caught:
        fit(small_model, train, task=task, out=tmp_path / "run", config=config, progress=False)
    digest = hashlib.sha256(np.array(places[4], dtype="<i8").tobytes()).hexdigest()[:12]
    assert digest in caught.value.lost
    assert "of epoch 1" in caught.value.lost
    newest = max((tmp_path / "run.unfinished" / "checkpoints").iterdir())
    assert newest.name == "step-00000003"
    weights = safetensors.torch.load_file(newest / "weights.safetensors")
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize("shape", [None, (1 << 46,)])
def test_memory_that_runs_out_is_told_in_words(
    small_model, train, task, small_config, tmp_path, monkeypatch, shape
):
    def hungry(self, batch, generator):
        if shape is None:
            raise MemoryError
        return torch.ones(shape).sum()

    monkeypatch.setattr(LinearLatentODE, "loss", hungry)
    with pytest.raises(ResourceError, match="memory ran out"):
        fit(small_model, train, task=task, out=tmp_path / "run", config=small_config)


def refused(words, kind, model, train, tune=None, *, out, **call):
    with pytest.raises(kind, match=words):
        fit(model, train, tune, out=out, progress=False, **call)
    assert not out.exists()


def test_one_class_only_is_refused(make_tables, small_model, task, tmp_path):
    tables = make_tables(40)
    tables["outcomes"]["died"] = 1.0
    train = Cohort.from_tables(**tables)
    refused("all 40 known values", SchemaError, small_model, train, task=task, out=tmp_path / "r")


def test_a_part_without_any_label_is_refused(make_tables, small_model, train, task, tmp_path):
    tables = make_tables(20, first_id=700)
    tables["outcomes"]["died"] = np.nan
    unlabeled = Cohort.from_tables(**tables)
    call = {"task": task, "out": tmp_path / "r"}
    refused("training part has a known 'died'", SchemaError, small_model, unlabeled, **call)
    refused("tuning part has a known 'died'", SchemaError, small_model, train, unlabeled, **call)


def test_an_outcome_that_is_not_there_is_refused_by_name(small_model, train, tmp_path):
    refused(
        "'sepsis'", SchemaError, small_model, train, task=Classify("sepsis"), out=tmp_path / "r"
    )


def test_subjects_in_both_parts_are_refused(small_model, train, task, tmp_path):
    refused(
        "5 subjects are in the training and in the tuning part",
        SchemaError,
        small_model,
        train,
        train.take(np.arange(5)),
        task=task,
        out=tmp_path / "r",
    )


def test_an_empty_part_is_refused(small_model, train, task, tmp_path):
    refused(
        "training part has no subject",
        SchemaError,
        small_model,
        train.take([]),
        task=task,
        out=tmp_path / "r",
    )


def test_a_forecast_with_nothing_after_the_prediction_time_is_refused(small_model, train, tmp_path):
    refused(
        "no record of the training part has an observation within 24 h",
        SchemaError,
        small_model,
        train,
        task=Forecast(24.0, at=48.0),
        out=tmp_path / "r",
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none_is_refused(small_model, train, task, tmp_path):
    refused(
        "no CUDA", ArgumentError, small_model, train, task=task, out=tmp_path / "r", device="cuda"
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
def test_a_run_from_a_gpu_answers_on_a_cpu(small_model, train, held_out, task, tmp_path):
    out = tmp_path / "run"
    run = fit(small_model, train, task=task, out=out, device="cuda", progress=False)
    assert run.device.type == "cuda"
    on_cpu = load_run(out, device="cpu").predict(held_out)["logit"]
    np.testing.assert_allclose(run.predict(held_out)["logit"], on_cpu, atol=1e-4)


def test_records_without_a_label_are_left_out_and_counted(
    make_tables, small_model, task, small_config, tmp_path
):
    tables = make_tables(60)
    tables["outcomes"].loc[:9, "died"] = np.nan
    train = Cohort.from_tables(**tables)
    run = fit(small_model, train, task=task, out=tmp_path / "r", config=small_config)
    start = log_lines(run.folder)[0]
    assert (start["n_records"], start["n_left_out"]) == (50, 10)


def test_the_log_tells_every_epoch_with_loss_rate_and_gradient(fitted):
    epochs = [line for line in log_lines(fitted.folder) if line["event"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1, 2, 3]
    for line in epochs:
        assert {"step", "loss", "tune_loss", "learning_rate", "gradient_norm", "seconds"} <= {*line}
        assert line["loss"] > 0
        assert line["gradient_norm"] > 0


def test_no_subject_and_no_value_appears_in_what_a_fit_says(
    make_tables, small_model, task, small_config, tmp_path, capsys
):
    tables = make_tables(60, first_id=700000001)
    tables["observations"].loc[3, "value"] = 61.8033988
    tables["statics"].loc[7, "Age"] = 41.4213562
    train = Cohort.from_tables(**tables)
    run = fit(small_model, train, task=task, out=tmp_path / "run", config=small_config)
    captured = capsys.readouterr()
    told = captured.out + captured.err
    for name in ("log.jsonl", "metrics.json", "config.yaml", "fingerprint.json"):
        told += (run.folder / name).read_text()
    assert "epoch 3" in told
    for secret in ("7000000", "61.803", "41.421"):
        assert secret not in told


def test_the_call_is_stored_whole_and_readable(fitted, small_config):
    stored = yaml.safe_load((fitted.folder / "config.yaml").read_text())
    assert FitConfig.from_dict(stored["fit"]) == small_config
    assert stored["model"]["name"] == "linear-latent-ode"
    assert stored["task"] == {"kind": "classify", "outcome": "died", "at": 48.0, "auxiliary": []}
    assert stored["seed"] == 0


def test_an_unfinished_folder_of_another_call_is_refused(
    small_model, train, task, small_config, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(
            ClassificationWork, "fit_baselines", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            fit(small_model, train, task=task, out=out, config=small_config, progress=False)
    with pytest.raises(OutputError, match=r"run\.unfinished: .*seed is 0 there, 1 here"):
        fit(small_model, train, task=task, out=out, seed=1, config=small_config, progress=False)


def test_a_finished_run_that_was_damaged_is_not_returned(
    fitted, small_model, train, task, small_config, tmp_path
):
    out = tmp_path / "run"
    shutil.copytree(fitted.folder, out)
    (out / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        fit(small_model, train, task=task, out=out, config=small_config, progress=False)
    (out / "config.yaml").write_bytes(b"\xff: [")
    with pytest.raises(CheckpointError, match=r"run/config\.yaml: the file is altered"):
        fit(small_model, train, task=task, out=out, config=small_config, progress=False)


def test_a_run_can_be_moved(fitted, train, tmp_path):
    shutil.copytree(fitted.folder, tmp_path / "elsewhere")
    moved = load_run(tmp_path / "elsewhere")
    assert moved.predict(train).equals(fitted.predict(train))
