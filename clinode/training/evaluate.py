"""How good a run is on a cohort: its metrics, the baselines beside them, subgroups, the decoder.

Everything carries an interval over subjects (over groups of subjects where the cohort has them),
and model and baselines are compared on the same resamples. What has no value says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from clinode.cohort import Cohort, PackedRecords
from clinode.evaluation import Drift
from clinode.statistics import Estimate, bootstrap
from clinode.training.drift import find_drift
from clinode.training.run import Run
from clinode.training.task_work import Resampling, Result
from clinode.training.tasks import work_of

if TYPE_CHECKING:
    from clinode.training.ensemble import Ensemble


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found.

    Args:
        result: Metrics, baselines and differences.
        subgroups: One row a subgroup; None where a cell is too small to be shown.
        next_observation: Error of the decoder on what is measured next, beside carrying the last
            value forward; mean squared, standardised.
        drift: How far the records, up to their prediction times, have moved from the training part.
        n_trained_on: Subjects of the cohort that the run was trained or tuned on; 0 is right.
    """

    result: Result
    subgroups: tuple[dict[str, Any], ...]
    next_observation: Mapping[str, Estimate]
    drift: Drift
    n_trained_on: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: each metric by name, then `baselines`, `difference`, `subgroups` and more."""
        return {
            **self.result.to_dict(),
            "subgroups": [
                {key: _plain(value) for key, value in row.items()} for row in self.subgroups
            ],
            "next_observation": {k: v.to_dict() for k, v in self.next_observation.items()},
            "drift": self.drift.to_dict(),
            "n_trained_on": self.n_trained_on,
        }

    def to_pandas(self) -> pd.DataFrame:
        """One row a metric of the model, a baseline or a difference; of a forecast, by variable."""
        return self.result.to_pandas()


def evaluate(
    run: "Run | Ensemble", cohort: Cohort, *, n_resamples: int = 1000, seed: int = 0
) -> Evaluation:
    """Measures a run or an ensemble, and the baselines stored with it, on a cohort.

    Args:
        run: What to measure. Of an ensemble all members together answer; the baselines, and the
            training part that drift is told from, are those of the first.
        cohort: With the outcome, or with observations after the prediction times.
        n_resamples: Bootstrap resamples for the intervals.
        seed: Of the resamples.

    Raises:
        SchemaError: The cohort has unknown variables, or lacks the outcome.
    """
    members, first = run.members, run.members[0]
    records = first.records(cohort, with_targets=True)
    units = np.asarray(cohort.groups)[records.subject_index]
    options = Resampling(n_resamples=n_resamples, seed=seed)
    result, subgroups = work_of(run.task).evaluate(members, cohort, records, units, options)
    return Evaluation(
        result=result,
        subgroups=subgroups,
        next_observation=_evaluate_decoder(members, cohort, records, options),
        drift=find_drift(first, cohort, seed=seed),
        n_trained_on=int(np.isin(cohort.subjects, first.parts["subject_id"].to_numpy()).sum()),
    )


def headlines(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers of `Evaluation.to_dict()` by name; of several tasks, "forecast/mse".

    Intervals, baselines, subgroups and what is told for each variable stay in `metrics.json`.
    """
    found: dict[str, float] = {}
    for name, told in evaluation.items():
        if not isinstance(told, Mapping) or name in _BESIDE:
            continue
        if isinstance(told.get("value"), int | float):
            found[name] = float(told["value"])
        elif "value" not in told:
            found |= {f"{name}/{inner}": value for inner, value in headlines(told).items()}
    return found


_BESIDE = ("baselines", "difference", "drift", "next_observation")


def _evaluate_decoder(
    members: Sequence[Run], cohort: Cohort, records: PackedRecords, options: Resampling
) -> dict[str, Estimate]:
    """Mean squared error of what the model expects next, over the measured values.

    Rows of a subject are read once, up to its last prediction time. Beside it: the last value
    carried forward, the training mean where there is none.
    """
    error = np.zeros((2, len(cohort.subjects)))
    count = np.zeros(len(cohort.subjects))
    last = np.flatnonzero(np.diff(records.subject_index, append=-1))
    order = last[np.argsort(-records.lengths[last], kind="stable")]
    with torch.no_grad():
        for start in range(0, len(order), 256):
            batch = records.batch(order[start : start + 256], device=members[0].device)
            subject = records.subject_index[batch.subject.cpu().numpy()]
            shown = torch.stack([run.model(batch).next_observation for run in members])
            expected = (shown.mean(dim=0), batch.carried)
            for position, guess in enumerate(expected):
                square = torch.where(batch.mask, (guess - batch.value).double().square(), 0.0)
                held = square.new_zeros(len(batch)).index_add(0, batch.row_subject, square.sum(1))
                error[position, subject] = held.cpu().numpy()
            counted = batch.mask.sum(1).double()
            held = counted.new_zeros(len(batch)).index_add(0, batch.row_subject, counted)
            count[subject] = held.cpu().numpy()
    names = ("model", "carried_forward")
    if not count.sum():
        return dict.fromkeys((*names, "difference"), Estimate.undefined("nothing was measured"))
    statistics = {name: _ratio_of(error[k], count) for k, name in enumerate(names)}
    sample = bootstrap(statistics, np.asarray(cohort.groups), **options)
    return {
        **{name: sample.estimate(name) for name in names},
        "difference": sample.difference(*names),
    }


def _ratio_of(total: np.ndarray, count: np.ndarray):
    def ratio(weights: np.ndarray) -> np.ndarray:
        counted = weights @ count
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(counted > 0, (weights @ total) / counted, np.nan)

    return ratio


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, Estimate) else value
