"""Cross-validation: every subject is predicted once, by a run that never saw it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch

from clinode.cohort import Classify, Cohort, Task, split
from clinode.errors import ArgumentError, SchemaError
from clinode.evaluation import ClassificationEvaluation, evaluate_classification
from clinode.folder import write_json
from clinode.sequence import SequenceModel
from clinode.training.config import FitConfig
from clinode.training.evaluate import evaluate, headlines
from clinode.training.fit import fit
from clinode.training.run import Run
from clinode.training.tasks import work_of

_FILE = "cross_validation.json"


@dataclass(frozen=True, eq=False, kw_only=True)
class CrossValidation:
    """What `cross_validate` found.

    Args:
        folder: Holds one run a fold, `fold-0` and so on.
        runs: Of the folds; each was fitted on the subjects of the others.
        predictions: What each run says of the subjects that it never saw, beside what was observed;
            `split` names the fold.
        folds: One row a fold: subjects, and every metric on them.
        pooled: Metrics of all out-of-fold predictions together with intervals over subjects, where
            one label is classified; else None.
    """

    folder: Path
    runs: tuple[Run, ...]
    predictions: pd.DataFrame
    folds: pd.DataFrame
    pooled: ClassificationEvaluation | None

    def to_pandas(self) -> pd.DataFrame:
        """Mean and standard deviation of every metric over the folds.

        The folds share training subjects, so their spread is not that of new cohorts.
        """
        metrics = self.folds.drop(columns=["fold", "subjects"])
        return pd.DataFrame(
            {"metric": metrics.columns, "mean": metrics.mean(), "deviation": metrics.std()}
        ).reset_index(drop=True)

    def to_dict(self) -> dict[str, Any]:
        """Folds, and the pooled metrics where there are some."""
        rows = self.folds.astype(object).where(self.folds.notna(), None).to_dict("records")
        return {"folds": rows, "pooled": None if self.pooled is None else self.pooled.to_dict()}


def cross_validate(
    model: SequenceModel,
    cohort: Cohort,
    *,
    task: Task,
    out: Path | str,
    n_folds: int = 5,
    tune_fraction: float = 0.0,
    seed: int = 0,
    device: str = "auto",
    config: FitConfig | None = None,
    n_jobs: int = 1,
) -> CrossValidation:
    """Fit a model once a fold on the other folds, and predict each subject by the run without it.

    A subject's fold depends on its group's hash and the seed, so the stays of a person stay
    together. Stopped, the same call goes on: a finished fold is not fitted again. Folds are fitted
    side by side through joblib, on whatever back end the caller has set
    (`joblib.parallel_config("dask")`).

    Args:
        model: A configuration.
        cohort: All of its subjects are predicted once.
        task: What to predict.
        out: Folder of the folds.
        n_folds: At least 2.
        tune_fraction: Share of each fold's training subjects that selects the epoch; 0 selects
            nothing, and every epoch of the schedule runs.
        seed: Of the folds and of every fit.
        device: "auto", "cpu" or "cuda".
        config: The schedule.
        n_jobs: Fits at the same time.

    Raises:
        ArgumentError: Fewer than 2 folds, or a share that is none.
        SchemaError: A fold has no subject.
        OutputError: `out` holds folds of another call.
    """
    if n_folds < 2:
        raise ArgumentError(f"n_folds must be at least 2, got {n_folds}")
    if not 0 <= tune_fraction < 1:
        raise ArgumentError(f"tune_fraction must lie in [0, 1), got {tune_fraction}")
    out = Path(out).resolve()
    salt = f"fold {seed}"
    held = split(cohort, [1 / n_folds] * n_folds, salt)
    if any(len(part) == 0 for part in held):
        raise SchemaError(
            f"a fold of {n_folds} has no subject", fix="ask for fewer folds, or another seed"
        )

    def fold(number: int) -> Run:
        rest = cohort.select([s for k, p in enumerate(held) if k != number for s in p.subjects])
        train, tune = rest, None
        if tune_fraction:
            train, tune = split(rest, (1 - tune_fraction, tune_fraction), f"{salt} tune")
        return fit(
            model,
            train,
            tune,
            task=task,
            out=out / f"fold-{number}",
            seed=seed,
            device=device,
            config=config,
            progress=False,
        )

    runs = tuple(side_by_side(fold, range(n_folds), n_jobs))
    tables, rows = [], []
    for number, (run, part) in enumerate(zip(runs, held, strict=True)):
        tables.append(work_of(task).observed(run, f"fold-{number}", part))
        found = headlines(evaluate(run, part, n_resamples=20).to_dict())
        rows.append({"fold": number, "subjects": len(part), **found})
    predictions = pd.concat(tables, ignore_index=True)
    result = CrossValidation(
        folder=out,
        runs=runs,
        predictions=predictions,
        folds=pd.DataFrame(rows),
        pooled=_pooled(task, cohort, predictions, seed),
    )
    write_json(out / _FILE, result.to_dict())
    return result


def side_by_side(work: Any, items: Any, n_jobs: int) -> list[Any]:
    """`work` of every item, so many at a time, through joblib; in order.

    With one job nothing is started, and an interruption reaches the work itself. Each of several
    has one thread, so that the numbers do not depend on how many there are.

    Raises:
        ArgumentError: Not at least one job.
    """
    if n_jobs < 1:
        raise ArgumentError(f"n_jobs must be at least 1, got {n_jobs}")
    if n_jobs == 1:
        return [work(item) for item in items]
    found = joblib.Parallel(n_jobs=n_jobs)(joblib.delayed(_alone)(work, item) for item in items)
    return list(found)


def _alone(work: Any, item: Any) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work(item)
    finally:
        torch.set_num_threads(before)


def _pooled(
    task: Task, cohort: Cohort, predictions: pd.DataFrame, seed: int
) -> ClassificationEvaluation | None:
    if not isinstance(task, Classify) or len(task.labels) > 1:
        return None
    group: Mapping[Any, Any] = dict(zip(cohort.subjects, cohort.groups, strict=True))
    return evaluate_classification(
        predictions["outcome"].to_numpy(dtype=np.float64),
        predictions["probability"].to_numpy(dtype=np.float64),
        subjects=np.array([group[s] for s in predictions["subject_id"]], dtype=object),
        seed=seed,
    )
