"""How far a cohort has moved from the records that a run was trained on."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from clinode.cohort import Cohort, Preprocessor, Task
from clinode.errors import CheckpointError
from clinode.evaluation import Drift, compare_fingerprint

if TYPE_CHECKING:
    from clinode.training.run import Run


def find_drift(run: "Run", cohort: Cohort, *, seed: int = 0) -> Drift:
    """Compare what a run would read of a cohort with what it read of its training part.

    Both are taken up to the prediction times: what came later was not read. The run's
    `fingerprint.json` is enough; no training record is needed.

    Args:
        run: Fitted.
        cohort: New records; variables unknown to the run are named, not refused.
        seed: Of the resamples that say what chance alone gives.

    Raises:
        ArgumentError: The cohort is empty.
        CheckpointError: The run was written before fingerprints ended at the prediction times.
    """
    if "seen" not in run.fingerprint:
        raise CheckpointError(
            "the fingerprint does not say what the model read of its training part",
            where=f"{run.folder.name}/fingerprint.json",
            fix="fit the run anew with this version",
        )
    until = seen_until(cohort, run.schema, run.task)
    return compare_fingerprint(run.fingerprint["seen"], cohort, until, seed=seed)


def seen_until(cohort: Cohort, schema: Preprocessor, task: Task) -> Float[np.ndarray, " subject"]:
    """The last prediction time of each subject, hours."""
    table = task.instances(cohort, schema.prediction_time)
    until = np.full(len(cohort), -np.inf)
    np.maximum.at(until, table.subject_index, table.prediction_time)
    return until
