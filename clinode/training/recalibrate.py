"""A run whose risk is recalibrated on records that did not train it, with the evidence for it."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from clinode.cohort import Classify, Cohort
from clinode.errors import ArgumentError, SchemaError
from clinode.evaluation import Recalibration, fit_recalibration
from clinode.folder import check_writable, verify_folder, write_folder
from clinode.training.calibration import RECALIBRATION, write_calibration
from clinode.training.run import Run, load_run

_REWRITTEN = ("split.parquet", RECALIBRATION)


def recalibrate(
    run: Run,
    cohort: Cohort,
    *,
    out: Path | str,
    method: str = "auto",
    n_resamples: int = 1000,
    seed: int = 0,
) -> Run:
    """Write a copy of a run that answers with a recalibrated risk.

    A rising map of the logit is fitted on the cohort and judged by cross-validation over its
    subjects, with their groups kept together; see `clinode.evaluation.recalibration`. The weights
    stay as they are, and so do the run's own metrics, which describe it as it was fitted. A run
    that was recalibrated before is recalibrated from its model's own risk again.

    Args:
        run: Of a classification with one outcome.
        cohort: With the outcome. Nobody of the training part; who was in the tuning part may be
            here, since it only selected the epoch.
        out: Folder of the copy.
        method: "temperature", "platt", "isotonic", or "auto": the one of least cross-validated log
            loss where it is better than leaving the risk beyond chance, else none; what was found
            is stored either way.
        n_resamples: Of the intervals.
        seed: Of folds and resamples.

    Returns:
        The copy, as `load_run` reads it. `calibration` holds the map, the evidence (log loss, Brier
        score, ECE, slope and intercept of each method and of leaving it, cross-fitted) and the
        verdict. The cohort's subjects count as having taken part in the fit ("calibrate").

    Raises:
        ArgumentError: The run does not classify one outcome, or the method is unknown.
        SchemaError: A training subject is in the cohort; fewer than 20 subjects with, or without,
            the outcome; variables unknown to the run; no outcome column.
        OutputError: `out` is occupied or cannot be written.
    """
    if not isinstance(run.task, Classify) or len(run.task.labels) > 1:
        raise ArgumentError(
            "only a risk of one outcome is recalibrated",
            fix="of a forecast, give `fit` a tuning part: it calibrates the intervals",
        )
    check_writable(out)
    _refuse_trained(run, cohort)
    records = run.records(cohort, with_targets=True)
    if records.target is None:
        raise SchemaError("the cohort has no outcomes", fix="read it with its outcomes")
    found = fit_recalibration(
        run.logits(records),
        records.target[:, 0],
        np.asarray(cohort.groups)[records.subject_index],
        method=method,
        n_resamples=n_resamples,
        seed=seed,
    )
    _write_copy(run, cohort, found, Path(out))
    return load_run(out, device=run.device.type, model=run.model)


def _refuse_trained(run: Run, cohort: Cohort) -> None:
    trained = run.parts.loc[run.parts["split"] == "train", "subject_id"]
    n_trained = int(np.isin(cohort.subjects, trained.to_numpy()).sum())
    if n_trained:
        raise SchemaError(
            f"{n_trained} of {len(cohort)} subjects trained the run: its risk fits them too well",
            fix="recalibrate on subjects that were held out, or on the tuning part",
        )


def _write_copy(run: Run, cohort: Cohort, found: Recalibration, out: Path) -> None:
    files = verify_folder(run.folder, "run")["files"]
    new = cohort.subjects[~np.isin(cohort.subjects, run.parts["subject_id"].to_numpy())]
    added = pd.DataFrame({"subject_id": new, "split": "calibrate"})
    parts = pd.concat([run.parts, added], ignore_index=True) if len(new) else run.parts

    def write(folder: Path) -> None:
        for name in files:
            if name not in _REWRITTEN:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(run.folder / name, folder / name)
        parts.to_parquet(folder / "split.parquet", index=False)
        write_calibration(folder, found)

    write_folder(out, write, kind="run")
