"""A fitted model with everything it needs to answer: the run, a folder that is whole or not there.

`fit` writes it, `load_run` reads it. Its files are text, Parquet and safetensors; nothing in it can
execute. It is refused when a file was altered, when its weights belong to another schema, and when
a weight is missing or one too many.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.numpy
import torch
import yaml
from safetensors import SafetensorError, safe_open

from clinode.cohort import Cohort, PackedRecords, Preprocessor, Task, task_from_dict
from clinode.cohort.record_blocks import pack
from clinode.errors import CheckpointError
from clinode.folder import read_json, verify_folder
from clinode.sequence import SequenceModel, model_from_config
from clinode.training.calibration import Calibration, read_calibration
from clinode.training.checkpoint import load_tensors
from clinode.training.classification import logits
from clinode.training.config import FitConfig, resolve_device
from clinode.training.optimise import keyed_generator
from clinode.training.several import view
from clinode.training.task_work import FittedBaselines
from clinode.training.tasks import work_of

RUN_FORMAT = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """A fitted model, the schema of its training part, and what was measured of it.

    Args:
        folder: Where it is stored.
        model: Built, fitted, never changed by asking it.
        schema: How values are standardised; fitted on the training part.
        task: What is predicted.
        config: How it was fitted.
        seed: Of the fit.
        version: Of the clinode that wrote it.
        weights_sha256: Of `model.safetensors`.
        metrics: `metrics.json`.
        baselines: The trivial models that stand beside it.
        parts: subject_id and split ("train", "tune", "calibrate") of each subject that took part in
            the fit.
        fingerprint: `fingerprint.json`: what the parts look like.
        calibration: What corrects the answers; None where nothing does.
    """

    folder: Path
    model: SequenceModel
    schema: Preprocessor
    task: Task
    config: FitConfig
    seed: int
    version: str
    weights_sha256: str
    metrics: Mapping[str, Any] = field(repr=False)
    baselines: FittedBaselines = field(repr=False)
    parts: pd.DataFrame = field(repr=False)
    fingerprint: Mapping[str, Any] = field(repr=False)
    calibration: Calibration | None = field(default=None, repr=False)

    @property
    def members(self) -> tuple["Run", ...]:
        """Itself: an ensemble of one."""
        return (self,)

    def of(self, kind: str) -> "Run":
        """Of a run of several tasks, the run of one: "classify", "forecast" and so on.

        It has the same weights, and answers, is evaluated and explained like a run of that task.

        Raises:
            ArgumentError: The run has no task of this kind.
        """
        return view(self, kind)

    @property
    def n_parameters(self) -> int:
        """Weights that were trained."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.model.parameters()).device

    def records(self, cohort: Cohort, *, with_targets: bool = False) -> PackedRecords:
        """The cohort as the model reads it; outcomes, and what came after, only on request.

        Raises:
            SchemaError: The cohort has a variable that the training part did not have.
        """
        return pack(cohort, self.schema, self.task, with_targets=with_targets)

    def predict(
        self,
        cohort: Cohort,
        *,
        hours_after: Sequence[float] | None = None,
        level: float | None = None,
    ) -> pd.DataFrame:
        """What the model says of each subject at each prediction time.

        A record without any observation has a prediction too.

        Args:
            cohort: Its variables must be known to the run; those it lacks count as never measured.
            hours_after: Of forecasts: at which hours after each prediction time; by default in 12
                equal steps to the horizon. Of survival: the horizons; by default those of the
                schema, the quartiles of the training part's event times.
            level: Of forecasts only: share of the observations that low and high are to hold, 0.9
                by default. `metrics["intervals"]` says whether they were calibrated.

        Returns:
            Of survival: survival and incidence of each cause at each horizon, and last, as
            probability, the incidence of the first cause at the middle one. Of several tasks: their
            tables below each other, with a column `task`. Of a classification: subject_id,
            prediction_time (h), logit, probability. Of a forecast: subject_id, prediction_time,
            time (h), variable, value, low and high, in original units.

        Raises:
            SchemaError: The cohort has a variable that the training part did not have.
            ArgumentError: `hours_after` or `level` for a classification, an hour that is not
                positive, or a level not within (0, 1).
        """
        work = work_of(self.task).with_level(level)
        return work.predict(self.members, self.records(cohort), hours_after)

    def logits(self, records: PackedRecords) -> np.ndarray:
        """The model's own log odds of the outcome of each record, (record,) float64.

        `predict` shows them after the recalibration, where there was one.
        """
        return logits(self, records)


def load_run(folder: Path | str, *, device: str = "cpu", model: SequenceModel | None = None) -> Run:
    """The run that `fit` wrote, after its manifest was verified.

    Args:
        folder: The run.
        device: "auto", "cpu" or "cuda"; runs themselves belong to no device.
        model: A configured model of the run's family, only for families outside of clinode.

    Raises:
        CheckpointError: A file is missing, truncated or altered; the format is another one; weights
            are missing, unknown, of another shape or not finite, or belong to another schema.
        ArgumentError: The device is unknown or absent.
    """
    folder = Path(folder)
    target = resolve_device(device)
    manifest = verify_folder(folder, "run")
    call = read_call(folder / "config.yaml")
    schema = Preprocessor.from_dict(read_json(folder / "schema.json"))
    task = task_from_dict(call["task"])
    built = _build(call["model"], model, schema, task)
    _load_weights(built, folder / "model.safetensors", schema)
    return Run(
        folder=folder,
        model=built.to(target),
        schema=schema,
        task=task,
        config=FitConfig.from_dict(call["fit"]),
        seed=call["seed"],
        version=manifest["clinode"],
        weights_sha256=manifest["files"]["model.safetensors"]["sha256"],
        metrics=read_json(folder / "metrics.json"),
        baselines=work_of(task).baselines.from_arrays(
            safetensors.numpy.load((folder / "baselines.safetensors").read_bytes())
        ),
        parts=pd.read_parquet(folder / "split.parquet"),
        fingerprint=read_json(folder / "fingerprint.json"),
        calibration=read_calibration(folder, manifest["files"], n_variables=len(schema.variables)),
    )


def read_call(path: Path) -> dict[str, Any]:
    """`config.yaml` of a run: the call that made it.

    Raises:
        CheckpointError: It is not of this format.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        call = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise CheckpointError("the file is altered: it is no YAML", where=where) from None
    found = call.get("format") if isinstance(call, dict) else None
    if found != RUN_FORMAT:
        raise CheckpointError(
            f"run format {found}, and this clinode reads format {RUN_FORMAT}",
            where=where,
            fix="load it with the version of clinode that wrote it",
        )
    return call


def schema_digest(schema: Preprocessor) -> str:
    """SHA-256 of a schema: weights and checkpoints are tied to it."""
    text = json.dumps(schema.to_dict(), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _build(
    stored: dict[str, Any], given: SequenceModel | None, schema: Preprocessor, task: Task
) -> SequenceModel:
    if given is None:
        configured = model_from_config(stored)
    elif plain(given.config()) == stored:
        configured = given
    else:
        raise CheckpointError(
            f"the run holds a model of another configuration than the {type(given).__name__} given",
            where="config.yaml",
        )
    return configured.build(schema, task, keyed_generator(0, "load"))


def plain(value: Any) -> Any:
    """The value as JSON gives it back: tuples become lists."""
    return json.loads(json.dumps(value, allow_nan=False))


def _load_weights(model: SequenceModel, path: Path, schema: Preprocessor) -> None:
    where = f"{path.parent.name}/{path.name}"
    about = _header(path)
    if about.get("schema") != schema_digest(schema):
        raise CheckpointError(
            "the weights were trained with another schema than the one beside them",
            where=where,
            fix="put the run's own files back together",
        )
    weights, expected = load_tensors(path), model.state_dict()
    missing, unknown = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or unknown:
        parts = [
            f"{word} {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
            for word, names in (("missing:", missing), ("unknown:", unknown))
            if names
        ]
        raise CheckpointError(
            f"the weights are not those of this model ({'; '.join(parts)})", where=where
        )
    for name, value in weights.items():
        if value.shape != expected[name].shape or value.dtype != expected[name].dtype:
            raise CheckpointError(
                f"weight {name}: expected {tuple(expected[name].shape)} {expected[name].dtype}, "
                f"found {tuple(value.shape)} {value.dtype}",
                where=where,
            )
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"weight {name} holds numbers that are not finite", where=where)
    model.load_state_dict(weights)
    model.eval()


def _header(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {}).get("clinode", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"the file does not hold tensors ({error})", where=path.name
        ) from None
    return about
