"""Forecasts of records that come in one after another, with intervals that learn from misses."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from clinode.cohort import Cohort
from clinode.errors import ArgumentError
from clinode.evaluation import SplitConformal
from clinode.evaluation.conformal import STEP
from clinode.training.forecasting import in_original_units, mixed_queries

if TYPE_CHECKING:
    from clinode.training.ensemble import Ensemble
    from clinode.training.run import Run


def adaptive_forecasts(
    run: "Run | Ensemble",
    cohort: Cohort,
    *,
    order: Iterable[Any] | None = None,
    level: float = 0.9,
    step: float = STEP,
) -> pd.DataFrame:
    """Forecast new records in the order in which they came, each with what the earlier ones taught.

    After each record the level of each of its variables is moved (Gibbs & Candes 2021, NeurIPS 34),
    so the long-run share of misses is 1 - `level` whatever becomes of the population; see
    `SplitConformal.adaptive_factors` for how long the run must be.

    Args:
        run: A run or an ensemble with calibrated intervals.
        cohort: The new records, with what was observed after their prediction times.
        order: Every subject of the cohort once, in the order in which they came; the cohort's own
            order by default. Prediction times of one subject follow each other.
        level: Share of observations to hold.
        step: How far a miss moves the level of its variable.

    Returns:
        One row an observation within the horizon, in the order of the stream: subject_id,
        prediction_time, time (h), variable, observed, value, low, high and is_held, in original
        units. An interval without ends is infinite.

    Raises:
        ArgumentError: The run has no calibrated intervals; `order` names other subjects than the
            cohort; a level or a step is not within (0, 1).
        SchemaError: The cohort has a variable that the training part did not have.
    """
    calibration = run.members[0].calibration
    if not isinstance(calibration, SplitConformal):
        raise ArgumentError(
            "this run has no calibrated intervals to start from",
            fix="fit a Forecast with a tuning part that is large enough to set 20 subjects aside",
        )
    records = run.members[0].records(cohort, with_targets=True)
    asked = mixed_queries(run.members, records)
    place = _places(cohort, order)[records.subject_index[asked["record"].to_numpy()]]
    asked = asked.iloc[np.lexsort((asked["record"], place))]
    score = ((asked["target"] - asked["mean"]).abs() / asked["spread"]).to_numpy()
    factor = calibration.adaptive_factors(
        asked["variable"].to_numpy(),
        score,
        record=asked["record"].to_numpy(),
        level=level,
        step=step,
    )
    return in_original_units(records, asked, factor).assign(is_held=score <= factor)


def _places(cohort: Cohort, order: Iterable[Any] | None) -> np.ndarray:
    """Where in the stream each subject of the cohort comes."""
    if order is None:
        return np.arange(len(cohort))
    named = pd.Index(list(order))
    place = named.get_indexer(pd.Index(cohort.subjects)) if named.is_unique else np.array([-1])
    if len(named) != len(cohort) or (place < 0).any():
        raise ArgumentError(
            f"order names {len(named)} subjects, and not each of the {len(cohort)} of the cohort "
            "once"
        )
    return place
