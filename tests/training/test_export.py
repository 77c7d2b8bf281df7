import json

import pytest
import torch

from clinode.errors import ArgumentError, OutputError
from clinode.folder import verify_folder
from clinode.sequence import GRUD, ODERNN
from clinode.training import FitConfig, fit
from clinode.training.export import EXPORTED, INPUTS, dense_record, export
from clinode.training.onnx_file import forward_writes

ROWS = 40
HOURS = (2.0, 5.0, 24.0)


def answers(path, run, cohort, hours=None):
    """Of the first subjects: what the graph says, and what the model says of its own records."""
    graph = torch.export.load(path).module()
    records = run.records(cohort)
    for position in range(6):
        dense = dense_record(records, position, ROWS, hours)
        readout = run.model(records.batch([position], query_after=hours))
        yield [part.detach() for part in graph(*dense.values())], readout


@pytest.mark.slow
def test_an_exported_risk_is_that_of_the_model(fitted, held_out, tmp_path):
    path = export(fitted, tmp_path / "risk", rows=ROWS)
    for (logit,), readout in answers(path, fitted, held_out):
        torch.testing.assert_close(logit, readout.value[0].detach(), atol=1e-5, rtol=1e-5)
    verify_folder(path.parent, "export")
    told = json.loads((path.parent / "export.json").read_text())
    assert told["sizes"] == {"V": 4, "S": 2, "R": ROWS}
    assert list(told["outputs"]) == ["logit"]
    stored = json.loads((path.parent / "schema.json").read_text())
    assert stored == json.loads((fitted.folder / "schema.json").read_text())


@pytest.mark.slow
def test_an_exported_forecast_is_that_of_the_model(forecaster, held_out, tmp_path):
    path = export(forecaster, tmp_path / "course", rows=ROWS, hours_after=HOURS)
    for (mean, spread), readout in answers(path, forecaster, held_out, HOURS):
        torch.testing.assert_close(mean, readout.value[0].detach(), atol=1e-5, rtol=1e-5)
        expected = torch.exp(0.5 * readout.log_variance[0]).detach()
        torch.testing.assert_close(spread, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_another_family_is_exported_and_one_that_takes_own_steps_is_refused(
    train, held_out, task, tmp_path
):
    short = FitConfig(epochs=1, batch_size=64)
    runs = [
        fit(family(hidden=6), train, task=task, out=tmp_path / family.name, config=short)
        for family in (GRUD, ODERNN)
    ]
    path = export(runs[0], tmp_path / "graph", rows=ROWS)
    for (logit,), readout in answers(path, runs[0], held_out):
        torch.testing.assert_close(logit, readout.value[0].detach(), atol=1e-5, rtol=1e-5)
    with pytest.raises(ArgumentError, match="takes steps that depend on the record"):
        export(runs[1], tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_filled_up_record_is_the_record(fitted, held_out):
    records = fitted.records(held_out)
    dense = dense_record(records, 0, ROWS)
    n = records.batch([0]).n_rows
    assert dense["value"].shape[0] == ROWS
    assert not dense["mask"][n:].any()
    assert (dense["time"][n:] == dense["time"][n - 1]).all()
    with pytest.raises(ArgumentError, match=f"has {n} rows, and the graph reads {n - 1}"):
        dense_record(records, 0, n - 1)


def test_what_cannot_be_exported_is_refused_in_words(fitted, tmp_path):
    assert "ode-rnn" not in EXPORTED
    with pytest.raises(ArgumentError, match="hours_after"):
        export(fitted, tmp_path / "x", hours_after=[1.0])
    with pytest.raises(OutputError):
        export(fitted, fitted.folder)
    assert not (tmp_path / "x").exists()


def onnx_answers(path, run, cohort, hours=None):
    """Of the first subjects: what onnxruntime says of the file, and what the model says."""
    onnxruntime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is not installed, which reads the file"
    )
    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(path)
    assert [part.name for part in session.get_inputs()] == list(INPUTS)[: 7 if hours else 6]
    records = run.records(cohort)
    for position in range(6):
        dense = dense_record(records, position, ROWS, hours)
        readout = run.model(records.batch([position], query_after=hours))
        fed = {name: part.numpy() for name, part in dense.items()}
        yield [torch.from_numpy(part) for part in session.run(None, fed)], readout


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what torch warns of about its own converter
def test_an_onnx_file_answers_like_the_model_and_tells_what_feeds_it(fitted, held_out, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: clinode[export]")
    path = export(fitted, tmp_path / "risk.onnx", rows=ROWS)
    for (logit,), readout in onnx_answers(path, fitted, held_out):
        torch.testing.assert_close(logit, readout.value[0].detach(), atol=1e-5, rtol=1e-5)
    told = {prop.key: json.loads(prop.value) for prop in onnx.load(path).metadata_props}
    assert told["export"]["sizes"] == {"V": 4, "S": 2, "R": ROWS}
    assert told["schema"] == json.loads((fitted.folder / "schema.json").read_text())
    assert b"clinode/" not in path.read_bytes()  # nothing of where it was traced
    with pytest.raises(OutputError, match="exists already"):
        export(fitted, path, rows=ROWS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what torch warns of about its own converter
def test_an_onnx_forecast_answers_like_the_model(forecaster, held_out, tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed: clinode[export]")
    path = export(forecaster, tmp_path / "course.onnx", rows=ROWS, hours_after=HOURS)
    for (mean, spread), readout in onnx_answers(path, forecaster, held_out, HOURS):
        torch.testing.assert_close(mean, readout.value[0].detach(), atol=1e-5, rtol=1e-5)
        expected = torch.exp(0.5 * readout.log_variance[0]).detach()
        torch.testing.assert_close(spread, expected, atol=1e-5, rtol=1e-5)


def test_what_has_no_onnx_file_is_refused_in_words(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr("clinode.training.onnx_file.find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=r"onnx and onnxscript, .*clinode\[export\]"):
        export(fitted, tmp_path / "risk.onnx")
    monkeypatch.setattr(type(fitted.model), "name", "kalman-latent-ode")
    with pytest.raises(ArgumentError, match="Cholesky factors, for which ONNX has no operator"):
        export(fitted, tmp_path / "risk.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.isinstance.treespec:FutureWarning")  # of torch, of its own
def test_reads_lead_to_what_was_written_last_and_writes_are_put_together_once():
    class Filled(torch.nn.Module):
        def forward(self, rows, start):
            kept = start.clone()
            parts = kept.split([1] * 6)
            for step in range(1, 5):  # the first and the last stay as they were
                torch.maximum(rows[step : step + 1], parts[step - 1], out=parts[step])
            return kept, parts[2] + parts[5]

    rows, start = torch.randn(2, 6, 3)
    program = torch.export.export(Filled(), (rows, start), strict=False).run_decompositions({})
    forward_writes(program)
    for found, expected in zip(program.module()(rows, start), Filled()(rows, start), strict=True):
        torch.testing.assert_close(found, expected, atol=0, rtol=0)
    names = [str(node.target) for node in program.graph.nodes]
    assert not any("slice_scatter" in name or "split" in name for name in names)
    assert names.count("aten.cat.default") == 1
