"""A fitted model as one file that needs no clinode: a program of `torch.export`, or of ONNX.

The graph reads one record as dense rows, up to a stated number of them. Rows without an observation
change nothing (a model only flows there), so a shorter record is filled up with empty rows at its
last time, exactly. Beside the graph lie the constants of the preprocessing and what corrects the
answers; the graph itself reads standardised values and gives what the model says.
"""

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clinode.cohort import Classify, Forecast, IrregularBatch, PackedRecords
from clinode.cohort.batch import observation_clocks
from clinode.errors import ArgumentError, OutputError, SolverError
from clinode.evaluation import SplitConformal
from clinode.folder import atomic_write, check_place, check_writable, write_folder, write_json
from clinode.training.calibration import INTERVALS, RECALIBRATION
from clinode.training.forecasting import forecast_hours
from clinode.training.onnx_file import as_onnx, onnx_answers, require_onnx
from clinode.training.run import Run

FILE = "model.pt2"
EXPORTED = ("linear-latent-ode", "kalman-latent-ode", "gru-gap", "gru-d", "cfc", "neural-flow")
ROWS = 256
_NOT_ONNX = {  # of those, and why
    "kalman-latent-ode": "takes matrix exponentials and Cholesky factors, for which ONNX has no "
    "operator"
}
INPUTS = {  # of the graph; V variables, S static columns, R rows, Q times asked for
    "value": "(R, V) float32, standardised as schema.json says, 0 where unmeasured",
    "mask": "(R, V) bool, whether it was measured",
    "time": "(R,) float64, hours, rising; rows behind the last: its time, and nothing measured",
    "static": "(S,) float32, standardised, 0 where missing",
    "static_mask": "(S,) bool, whether it is known",
    "prediction_time": "(1,) float64, hours, at or after the last row",
    "query_time": "(Q,) float64, hours",
}
TOLERANCE = 1e-5  # of the graph against the model, relative to the larger of 1 and the answer


def export(
    run: Run,
    out: Path | str,
    *,
    rows: int = ROWS,
    hours_after: Sequence[float] | None = None,
) -> Path:
    """Write a folder with the model as a graph, and everything that is needed to feed it.

    Or one ONNX file, where `out` ends in .onnx, with all of that in its metadata; a graph of many
    rows takes a minute or two to be converted.

    `export.json` names inputs and outputs with their shapes, types and meaning; `schema.json` holds
    the constants that standardise values and statics; `recalibration.json` or
    `intervals.safetensors` are there where the run has them, and are not part of the graph.

    Args:
        run: Fitted.
        out: Folder to write, or a file with the ending .onnx.
        rows: Most rows of a record, which are its different times of measurement.
        hours_after: Of a forecast: its number says how many times the graph answers for at once.

    Returns:
        The file of the graph.

    Raises:
        ArgumentError: A family, a task or treatments that no graph is made of; for ONNX, a package
            that is not installed.
        OutputError: The folder is occupied or cannot be written.
        SolverError: The graph answers otherwise than the model; nothing is written.
    """
    is_onnx = Path(out).suffix.lower() == ".onnx"
    _refuse(run, rows)
    if is_onnx:
        _refuse_onnx(run)
        _check_file(Path(out))
    else:
        check_writable(out)
    graph = RecordGraph(run, rows)
    example = _example(run, rows, hours_after)
    with torch.no_grad():
        program = torch.export.export(graph, example, strict=False)
        _check(program.module()(*example), graph(*example))
    if is_onnx:
        about = {"export": _described(run, example), "schema": run.schema.to_dict()}
        about |= _correction(run)
        content = as_onnx(program, list(_outputs(run)), about)
        _check(onnx_answers(content, example), graph(*example))
        atomic_write(out, content)
        return Path(out)

    def write(folder: Path) -> None:
        torch.export.save(program, folder / FILE)
        write_json(folder / "schema.json", run.schema.to_dict())
        write_json(folder / "export.json", _described(run, example))
        for name in (INTERVALS, RECALIBRATION):
            if (run.folder / name).is_file():
                shutil.copyfile(run.folder / name, folder / name)

    write_folder(out, write, kind="export")
    return Path(out) / FILE


def dense_record(
    records: PackedRecords,
    position: int,
    rows: int = ROWS,
    hours_after: Sequence[float] | None = None,
) -> dict[str, Tensor]:
    """One record as the graph reads it, by name of the input.

    Args:
        records: As `Run.records` gives them.
        position: Which of them.
        rows: Of the graph.
        hours_after: Of a forecast: hours after the prediction time, as many as it was exported for.

    Raises:
        ArgumentError: The record has more rows than the graph reads.
    """
    batch = records.batch([position], query_after=hours_after)
    if batch.n_rows > rows:
        raise ArgumentError(
            f"the record has {batch.n_rows} rows, and the graph reads {rows}",
            fix="export it with more rows=",
        )
    filled = (0, 0, 0, rows - batch.n_rows)
    time = torch.cat([batch.time, batch.time[-1:].expand(rows - batch.n_rows)])
    parts = {
        "value": nn.functional.pad(batch.value, filled),
        "mask": nn.functional.pad(batch.mask, filled),
        "time": time,
        "static": batch.static[0],
        "static_mask": batch.static_mask[0],
        "prediction_time": batch.prediction_time,
    }
    return parts if batch.query_time is None else {**parts, "query_time": batch.query_time[0]}


class RecordGraph(nn.Module):
    """A model as a function of the dense rows of one record.

    Args:
        run: Whose model it is.
        rows: How many rows the record has, empty ones included.
    """

    def __init__(self, run: Run, rows: int):
        super().__init__()
        # the loops write in place, which weights that could be trained would not allow
        self.model = copy.deepcopy(run.model).requires_grad_(False)
        self.rows, self.window = rows, run.schema.window

    def forward(
        self,
        value: Tensor,
        mask: Tensor,
        time: Tensor,
        static: Tensor,
        static_mask: Tensor,
        prediction_time: Tensor,
        query_time: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The logit of a risk; mean and standard deviation of a forecast, standardised."""
        batch = self._batch(value, mask, time, static, static_mask, prediction_time, query_time)
        readout = self.model(batch)
        if readout.log_variance is None:
            return (readout.value[0],)
        return readout.value[0], torch.exp(0.5 * readout.log_variance[0])

    def _batch(
        self,
        value: Tensor,
        mask: Tensor,
        time: Tensor,
        static: Tensor,
        static_mask: Tensor,
        prediction_time: Tensor,
        query_time: Tensor | None,
    ) -> IrregularBatch:
        sizes = [1] * self.rows
        clocks = observation_clocks(mask, time, sizes, self.window)
        gap = torch.cat([torch.zeros_like(time[:1]), time[1:] - time[:-1]])
        batch = IrregularBatch(
            value=torch.where(mask, value, 0.0),
            mask=mask,
            time=time,
            gap=gap.to(value.dtype),
            time_delta=clocks.time_delta.to(value.dtype),
            since_observed=clocks.since_observed.to(value.dtype),
            last_seen=clocks.last_seen,
            last_observed=clocks.last_observed,
            row_subject=torch.zeros(self.rows, dtype=torch.int64),
            batch_sizes=torch.ones(self.rows, dtype=torch.int64),
            static=static.unsqueeze(0),
            static_mask=static_mask.unsqueeze(0),
            prediction_time=prediction_time,
            subject=torch.zeros(1, dtype=torch.int64),
            window=self.window,
            query_time=None if query_time is None else query_time.unsqueeze(0),
        )
        # what a batch derives from its layout is fixed here: a graph has no lists of numbers
        vars(batch).update(
            sizes=sizes,
            offsets=list(range(self.rows)),
            lengths=torch.full((1,), self.rows),
            last_row=torch.full((1,), self.rows - 1),
            steps=torch.arange(self.rows),
        )
        return batch


def _refuse(run: Run, rows: int) -> None:
    if not isinstance(run.task, Classify | Forecast):
        raise ArgumentError("only risks and forecasts are exported")
    if run.model.name not in EXPORTED:
        raise ArgumentError(
            f"{run.model.name} takes steps that depend on the record, which no fixed graph holds",
            fix=f"export one of {', '.join(EXPORTED)}",
        )
    if run.schema.inputs:
        raise ArgumentError("treatments begin and end between rows: no dense record holds them")
    if rows < 2:
        raise ArgumentError(f"rows must be at least 2, got {rows}")


def _refuse_onnx(run: Run) -> None:
    if run.model.name in _NOT_ONNX:
        raise ArgumentError(
            f"{run.model.name} {_NOT_ONNX[run.model.name]}",
            fix="name a folder for a program of torch.export",
        )
    require_onnx()


def _correction(run: Run) -> dict[str, Any]:
    """What corrects the answers, JSON-ready; nothing where nothing does."""
    if run.calibration is None:
        return {}
    if isinstance(run.calibration, SplitConformal):
        arrays = run.calibration.to_arrays()
        return {"intervals": {name: part.tolist() for name, part in arrays.items()}}
    return {"recalibration": run.calibration.to_dict()}


def _check_file(path: Path) -> None:
    if path.exists():
        raise OutputError("it exists already", where=path.name, fix="remove it or choose another")
    check_place(path)


def _example(run: Run, rows: int, hours_after: Sequence[float] | None) -> tuple[Tensor, ...]:
    """Made-up rows, so that every branch of the graph has something to do."""
    generator = torch.Generator().manual_seed(0)
    n_variables, n_statics = len(run.schema.variables), len(run.schema.statics)
    end = run.schema.prediction_time
    parts = [
        torch.randn(rows, n_variables, generator=generator),
        torch.rand(rows, n_variables, generator=generator) < 0.5,
        torch.linspace(end - run.schema.window, end, rows, dtype=torch.float64),
        torch.randn(n_statics, generator=generator),
        torch.ones(n_statics, dtype=torch.bool),
        torch.tensor([end], dtype=torch.float64),
    ]
    if isinstance(run.task, Forecast):
        parts.append(torch.from_numpy(end + forecast_hours(run.task.horizon, hours_after)))
    elif hours_after is not None:
        raise ArgumentError("hours_after belongs to forecasts, and this run answers at one time")
    return tuple(parts)


def _outputs(run: Run) -> dict[str, str]:
    if isinstance(run.task, Classify):
        labels = ", ".join(run.task.labels)
        return {"logit": f"({len(run.task.labels)},) float32, the model's log odds of {labels}"}
    return {
        "mean": "(Q, V) float32, standardised",
        "spread": "(Q, V) float32, standard deviation, standardised",
    }


def _described(run: Run, example: tuple[Tensor, ...]) -> dict[str, Any]:
    rows, variables = example[0].shape
    sizes = {"V": variables, "S": len(example[3]), "R": rows}
    if len(example) == len(INPUTS):
        sizes["Q"] = len(example[-1])
    return {
        "format": 1,
        "clinode": run.version,
        "weights_sha256": run.weights_sha256,
        "model": run.model.config(),
        "task": run.task.to_dict(),
        "sizes": sizes,
        "inputs": {name: INPUTS[name] for name in list(INPUTS)[: len(example)]},
        "outputs": _outputs(run),
        "variables": list(run.schema.variables),
        "statics": [column.name for column in run.schema.statics],
        "prediction_time": run.schema.prediction_time,
    }


def _check(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        gap = float(((one - other).abs() / other.abs().clamp(min=1)).max())
        if not gap <= TOLERANCE:
            raise SolverError(f"the graph differs from the model by {gap:.1e}", where="export")
