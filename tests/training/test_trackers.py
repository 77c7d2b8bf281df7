import json
import os
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec

import pytest

from clinode.errors import ArgumentError, Interrupted
from clinode.training import MLflow, TensorBoard, fit
from clinode.training.trackers import TRACKERS, tracking


class Recorder:
    """A tracker of one's own: keeps what it is told."""

    def __init__(self):
        self.begun, self.told, self.ended = [], [], []

    def start(self, name, settings, *, identity, step):
        self.begun.append((name, dict(settings), identity, step))

    def log(self, step, values):
        self.told.append((step, dict(values)))

    def finish(self, status):
        self.ended.append(status)

    def curve(self, name):
        return [(step, values[name]) for step, values in self.told if name in values]


def lines(run, event):
    told = (json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines())
    return [line for line in told if line["event"] == event]


def needs(package):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'clinode[track]'")


def test_a_tracker_is_told_what_the_log_says(
    train, held_out, small_model, task, small_config, tmp_path
):
    recorder = Recorder()
    run = fit(
        small_model,
        train,
        held_out,
        task=task,
        out=tmp_path / "death",
        config=small_config,
        progress=False,
        trackers=[recorder],
    )
    ((name, settings, identity, step),) = recorder.begun
    assert (name, step, recorder.ended) == ("death", 0, ["finished"])
    assert len(identity) == 64
    assert settings["fit.epochs"] == small_config.epochs
    assert settings["model.name"] == "linear-latent-ode"
    epochs = lines(run, "epoch")
    assert recorder.curve("epoch/loss") == [(line["step"], line["loss"]) for line in epochs]
    assert recorder.curve("epoch/tune_loss") == [
        (line["step"], line["tune_loss"]) for line in epochs
    ]
    found = run.metrics["evaluation"]["auroc"]["value"]
    assert recorder.curve("evaluation of tune/auroc") == [(run.metrics["steps"], found)]


def test_trackers_change_no_byte_of_the_result_and_learn_of_no_subject(
    train, task, small_model, small_config, fitted, digests, tmp_path
):
    recorder = Recorder()
    run = fit(
        small_model,
        train,
        task=task,
        out=tmp_path / "again",
        config=small_config,
        progress=False,
        trackers=[recorder],
    )
    assert digests(run.folder) == digests(fitted.folder)
    everything = json.dumps([recorder.begun, recorder.told])
    for column in ("time", "value"):
        seen = {repr(value) for value in train.observations[column] if value != round(value, 1)}
        assert not any(value in everything for value in seen)
    assert len({name for _, values in recorder.told for name in values}) < 30
    again = Recorder()
    fit(
        small_model,
        train,
        task=task,
        out=tmp_path / "again",
        config=small_config,
        progress=False,
        trackers=[again],
    )
    assert not again.begun


def test_a_fit_that_was_stopped_goes_on_under_its_identity(
    train, task, small_model, small_config, tmp_path
):
    def call(tracker):
        return fit(
            small_model,
            train,
            task=task,
            out=tmp_path / "run",
            config=small_config,
            progress=False,
            trackers=[tracker],
        )

    class Stopper(Recorder):
        def log(self, step, values):
            super().log(step, values)
            if "epoch/loss" in values:
                os.kill(os.getpid(), signal.SIGTERM)

    stopped, resumed = Stopper(), Recorder()
    with pytest.raises(Interrupted):
        call(stopped)
    call(resumed)
    assert (stopped.ended, resumed.ended) == (["stopped"], ["finished"])
    assert stopped.begun[0][2] == resumed.begun[0][2]
    assert resumed.begun[0][3] == stopped.told[-1][0]
    assert resumed.told[0][0] >= resumed.begun[0][3]


def test_every_tracker_hears_of_a_failure_also_of_another_tracker():
    recorder = Recorder()
    with pytest.raises(ZeroDivisionError), tracking([recorder], "x", {}, identity="i", step=0):
        _ = 1 / 0
    assert recorder.ended == ["failed"]

    class Broken(Recorder):
        def start(self, name, settings, *, identity, step):
            raise OSError("no")

    with (
        pytest.raises(OSError, match="no"),
        tracking([recorder, Broken()], "x", {}, identity="i", step=0),
    ):
        raise AssertionError("never begun")
    assert recorder.ended == ["failed", "failed"]


def test_a_class_in_place_of_a_tracker_is_refused_before_anything_is_read(
    train, task, small_model, tmp_path
):
    with pytest.raises(ArgumentError, match="an object with start, log and finish"):
        fit(small_model, train, task=task, out=tmp_path / "x", trackers=[TensorBoard])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("word", TRACKERS)
def test_a_missing_package_is_named_with_what_to_install(word, monkeypatch, tmp_path):
    module = sys.modules[TRACKERS[word].__module__]
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=rf"{word} is not installed.*clinode\[track\]"):
        TRACKERS[word](tmp_path)


def test_neither_package_is_imported_before_a_fit_is_followed():
    code = (
        "import sys, clinode.training.trackers\n"
        "print(sorted({'tensorboard', 'mlflow', 'torch.utils.tensorboard'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def no_network(monkeypatch):
    """Every connection anybody tries, which none may."""
    tried = []

    def refuse(self, address):
        tried.append(address)
        raise OSError("a test has no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: tried.append(a) or [])
    return tried


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what the package warns of about itself
def test_tensorboard_reads_the_curves_of_a_fit(
    train, held_out, task, small_model, small_config, tmp_path, no_network
):
    needs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # pyright: ignore[reportMissingImports]  # extra `track`

    run = fit(
        small_model,
        train,
        held_out,
        task=task,
        out=tmp_path / "death",
        config=small_config,
        progress=False,
        trackers=[TensorBoard(tmp_path / "board")],
    )
    read = EventAccumulator(str(tmp_path / "board" / "death")).Reload()
    found = [(event.step, event.value) for event in read.Scalars("epoch/tune_loss")]
    expected = [(line["step"], pytest.approx(line["tune_loss"])) for line in lines(run, "epoch")]
    assert found == expected
    assert no_network == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what the package warns of about itself
def test_mlflow_reads_the_curves_of_a_fit_and_nothing_is_sent(
    train, held_out, task, small_model, small_config, tmp_path, no_network, monkeypatch
):
    needs("mlflow")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    run = fit(
        small_model,
        train,
        held_out,
        task=task,
        out=tmp_path / "death",
        config=small_config,
        progress=False,
        trackers=[MLflow(tmp_path / "store")],
    )
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.telemetry import get_telemetry_client  # pyright: ignore[reportMissingImports]  # extra `track`
    from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]  # extra `track`

    assert get_telemetry_client() is None
    client = MlflowClient((tmp_path / "store").as_uri())
    (entry,) = client.search_runs([client.get_experiment_by_name("clinode").experiment_id])
    assert entry.info.run_name == "death"
    assert entry.info.status == "FINISHED"
    assert entry.data.params["fit.epochs"] == str(small_config.epochs)
    told = client.get_metric_history(entry.info.run_id, "epoch/tune_loss")
    expected = [(line["step"], line["tune_loss"]) for line in lines(run, "epoch")]
    assert [(point.step, point.value) for point in told] == expected
    assert set(entry.data.tags) <= {"clinode.identity", "mlflow.runName"}
    assert no_network == []
    with pytest.raises(ArgumentError, match="an address was given"):
        MLflow("https://example.org")
