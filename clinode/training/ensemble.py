"""Several fits of one model that differ in their seed only, asked together.

Of a classification the mean of the members' logits counts; of a forecast the mean and the variance
of the equal mixture of their distributions, so members that disagree widen the interval. The folder
holds one run a seed (`seed-0`, ...), the scores of the mixture's own intervals where there was a
tuning part, and `ensemble.json`, which ties them by their hashes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clinode.cohort import Cohort, PackedRecords, Task
from clinode.errors import ArgumentError, CheckpointError, OutputError
from clinode.folder import read_json, write_json
from clinode.sequence import SequenceModel
from clinode.training.calibration import (
    INTERVALS,
    Calibration,
    read_calibration,
    write_calibration,
)
from clinode.training.classification import mean_logits
from clinode.training.config import FitConfig
from clinode.training.fit import fit
from clinode.training.run import Run, load_run
from clinode.training.task_work import Resampling, Result
from clinode.training.tasks import work_of

_FILE = "ensemble.json"
_FORMAT = 2


@dataclass(frozen=True, eq=False, kw_only=True)
class Ensemble:
    """Runs of one model, one schema and one task.

    Args:
        folder: Where they are stored.
        runs: The members, in the order of the seeds.
        calibration: What corrects their common answer; that of each alone does not count.
    """

    folder: Path
    runs: tuple[Run, ...]
    calibration: Calibration | None = None

    @property
    def members(self) -> tuple[Run, ...]:
        """The runs, with the calibration of all together instead of their own."""
        return tuple(replace(run, calibration=self.calibration) for run in self.runs)

    @property
    def task(self) -> Task:
        """What every member predicts."""
        return self.runs[0].task

    def predict(
        self,
        cohort: Cohort,
        *,
        hours_after: Sequence[float] | None = None,
        level: float | None = None,
    ) -> pd.DataFrame:
        """As `Run.predict`, of all members together.

        Raises:
            SchemaError: The cohort has a variable that the training part did not have.
            ArgumentError: `hours_after` or `level` for a classification, an hour that is not
                positive, or a level not within (0, 1).
        """
        work = work_of(self.task).with_level(level)
        return work.predict(self.members, self.runs[0].records(cohort), hours_after)

    def logits(self, records: PackedRecords) -> np.ndarray:
        """Mean log odds of the outcome of each record, (record,) float64."""
        return mean_logits(self.runs, records)

    def evaluate(self, cohort: Cohort, *, n_resamples: int = 1000, seed: int = 0) -> Result:
        """Metrics of the ensemble beside the baselines stored with its first member.

        Raises:
            SchemaError: The cohort has unknown variables, or lacks the outcome.
            CheckpointError: The members hold baselines of another task.
        """
        records = self.runs[0].records(cohort, with_targets=True)
        units = np.asarray(cohort.groups)[records.subject_index]
        options = Resampling(n_resamples=n_resamples, seed=seed)
        result, _ = work_of(self.task).evaluate(self.members, cohort, records, units, options)
        return result


def fit_ensemble(
    model: SequenceModel,
    train: Cohort,
    tune: Cohort | None = None,
    *,
    task: Task,
    out: Path | str,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    device: str = "auto",
    config: FitConfig | None = None,
    progress: bool = True,
) -> Ensemble:
    """Fits a model once a seed; each member is what `fit` with that seed gives.

    The same call goes on where an earlier one was stopped. Arguments and errors are those of `fit`,
    besides:

    Args:
        model: A configuration.
        train: The training part.
        tune: The tuning part, for every member.
        task: What to predict.
        out: Folder of the ensemble.
        seeds: One member each; different from each other.
        device: "auto", "cpu" or "cuda".
        config: The schedule.
        progress: Whether each fit is shown.

    Raises:
        ArgumentError: There is no seed, or one is given twice.
        OutputError: `out` holds an ensemble of other seeds, or a member of another call.
    """
    seeds = tuple(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ArgumentError(f"seeds must be different from each other and at least one: {seeds}")
    out = Path(out).resolve()
    if (out / _FILE).exists() and tuple(read_json(out / _FILE)["seeds"]) != seeds:
        raise OutputError(
            "it holds an ensemble of other seeds", where=out.name, fix="choose another out="
        )
    runs = tuple(
        fit(
            model,
            train,
            tune,
            task=task,
            out=out / f"seed-{seed}",
            seed=seed,
            device=device,
            config=config,
            progress=progress,
        )
        for seed in seeds
    )
    work = work_of(task)
    aside = None if tune is None else work.set_aside(tune)[1]
    calibration, _ = work.calibrate(runs, tune, aside)
    write_calibration(out, calibration)
    tied = {
        "format": _FORMAT,
        "seeds": list(seeds),
        "weights": [run.weights_sha256 for run in runs],
        "intervals": None if calibration is None else _sha256(out / INTERVALS),
    }
    write_json(out / _FILE, tied)
    return Ensemble(folder=out, runs=runs, calibration=calibration)


def load_ensemble(folder: Path | str, *, device: str = "cpu") -> Ensemble:
    """The ensemble that `fit_ensemble` wrote; every member is verified as by `load_run`.

    Raises:
        CheckpointError: A file is missing or altered, or a member is not the one that was fitted.
        ArgumentError: The device is unknown or absent.
    """
    folder = Path(folder)
    stored = read_json(folder / _FILE)
    if stored.get("format") != _FORMAT:
        raise CheckpointError(
            f"ensemble format {stored.get('format')}, and this clinode reads {_FORMAT}",
            where=f"{folder.name}/{_FILE}",
        )
    runs = tuple(load_run(folder / f"seed-{seed}", device=device) for seed in stored["seeds"])
    if [run.weights_sha256 for run in runs] != stored["weights"]:
        raise CheckpointError(
            "a member is another run than the one that was fitted",
            where=f"{folder.name}/{_FILE}",
            fix="put the ensemble's own runs back together",
        )
    return Ensemble(folder=folder, runs=runs, calibration=_calibration(folder, stored, runs[0]))


def _calibration(folder: Path, stored: dict[str, Any], first: Run) -> Calibration | None:
    if stored["intervals"] is None:
        return None
    path = folder / INTERVALS
    if not path.is_file() or _sha256(path) != stored["intervals"]:
        raise CheckpointError(
            "the file is missing or altered",
            where=f"{folder.name}/{INTERVALS}",
            fix="restore it from a copy, or give the same call again",
        )
    return read_calibration(folder, {INTERVALS}, n_variables=len(first.schema.variables))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
