"""Who calibrates the intervals of forecasts, and what a run says of them.

Half of the tuning part (by hash of its subjects' groups, so the same half in every fit) selects the
epoch. The other half is asked once the model is fixed, and gives the scores of split conformal
intervals (`clinode.evaluation.conformal`). Its subjects were drawn like every other and nothing
about the model depends on them, so they are exchangeable with new subjects of the same population,
and new queries are covered as theirs are. Had they selected the epoch, the model would be the one
that happens to fit them, and the promise would be broken by a little. A population that has moved
breaks it by more: `find_drift` and `adaptive_forecasts` are for that.
"""

from typing import Any

import numpy as np

from clinode.cohort import Cohort, split
from clinode.evaluation import SplitConformal

SHARE = 0.5  # of the tuning part, set aside
FEWEST_SUBJECTS = 20  # groups of subjects to calibrate on
_SALT = "calibration of intervals"


def set_aside(tune: Cohort) -> tuple[Cohort, Cohort | None]:
    """Who of the tuning part selects the epoch, and who calibrates intervals.

    With fewer than 20 groups of subjects to calibrate on nobody is set aside.
    """
    selecting, calibrating = split(tune, (1 - SHARE, SHARE), salt=_SALT)
    if not len(selecting) or len(np.unique(calibrating.groups)) < FEWEST_SUBJECTS:
        return tune, None
    return selecting, calibrating


def describe_intervals(
    calibration: SplitConformal | None, tune: Cohort | None, calibrating: Cohort | None
) -> dict[str, Any]:
    """What `metrics.json` says of the intervals of a forecast."""
    if calibration is None or calibrating is None:
        return {"is_calibrated": False, "verdict": _why_not(tune, calibrating)}
    n_pooled = int(calibration.is_pooled.sum())
    return {
        "is_calibrated": True,
        "n_subjects": len(calibrating),
        "n_queries": len(calibration.score),
        "n_pooled_variables": n_pooled,
        "verdict": f"split conformal on {len(calibrating)} subjects that neither trained the model "
        f"nor selected its epoch; {n_pooled} of {calibration.n_variables} variables have too few "
        "queries there and take the factor of all together; coverage on the tuning part includes "
        "these subjects: measure it on others",
    }


def _why_not(tune: Cohort | None, calibrating: Cohort | None) -> str:
    if tune is None:
        why = "there was no tuning part"
    elif calibrating is None:
        why = f"the tuning part is too small to set {FEWEST_SUBJECTS} subjects of it aside"
    else:
        why = "nothing was observed later of the subjects set aside"
    return (
        f"not calibrated: {why}; low and high are those of a normal distribution with the spread "
        "that the model gives itself"
    )
