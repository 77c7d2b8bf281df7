import io
import json
import sys

from clinode.training.progress import FitLog, display


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_log_has_one_object_a_line_and_null_for_what_is_not_finite(tmp_path):
    log = FitLog(tmp_path / "log.jsonl")
    log.write("epoch", 10, loss=0.5, tune_loss=float("nan"), learning_rate=1e-3)
    assert lines(tmp_path / "log.jsonl") == [
        {"event": "epoch", "step": 10, "loss": 0.5, "tune_loss": None, "learning_rate": 1e-3}
    ]


def test_a_resumed_log_tells_each_step_once_and_drops_the_torn_line(tmp_path):
    path = tmp_path / "log.jsonl"
    log = FitLog(path)
    for step in (0, 50, 100):
        log.write("steps", step, loss=1.0)
    with path.open("a") as file:
        file.write('{"event": "steps", "st')
    FitLog(path, step=50).write("steps", 100, loss=1.0)
    assert [line["step"] for line in lines(path)] == [0, 50, 100]


def test_without_a_terminal_an_epoch_is_a_plain_line(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with display(20) as shown:
        shown.step(5, 0.7, "")
        shown.epoch(1, "loss 0.6000, tune 0.5000", "at most 8 s left")
        shown.epoch(2, "loss 0.5000, tune 0.4000", "")
    assert stream.getvalue() == (
        "fit: epoch 1: loss 0.6000, tune 0.5000, at most 8 s left to train\n"
        "fit: epoch 2: loss 0.5000, tune 0.4000\n"
    )


def test_on_a_terminal_there_is_a_bar_with_loss_time_left_and_evaluation(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    with display(20) as shown:
        shown.step(5, 0.7, "about 8 s left")
        shown.epoch(1, "tune 0.5000", "about 7 s left")
        shown.note("the baselines")
    text = stream.getvalue()
    for word in ("5/20", "loss 0.7000", "about 7 s left", "tune 0.5000", "fit: the baselines"):
        assert word in text


def test_silence_is_kept(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with display(20, shown=False) as shown:
        shown.step(5, 0.7, "about 8 s left")
        shown.epoch(1, "tune 0.5000", "about 7 s left")
        shown.note("the baselines")
    assert stream.getvalue() == ""
