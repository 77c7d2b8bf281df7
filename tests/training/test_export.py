import json

import pytest
import torch

from clinode.errors import ArgumentError, OutputError
from clinode.folder import verify_folder
from clinode.sequence import GRUD, ODERNN
from clinode.training import FitConfig, fit
from clinode.training.export import EXPORTED, dense_record, export

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
