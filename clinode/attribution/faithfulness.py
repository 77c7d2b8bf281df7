"""Whether attributions point at what is known to matter.

On a simulated cohort the causes of the outcome are known event by event. A gradient method can find
the causes of kind "value"; that a test was ordered, or when, has no value to be credited.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from clinode.attribution.attributions import Attributions
from clinode.errors import ArgumentError
from clinode.evaluation import ScoredRecords, auprc
from clinode.statistics import Estimate, bootstrap

_KEYS = ["subject_id", "time", "variable"]


@dataclass(frozen=True)
class PlantedRecovery:
    """How well |attribution| ranks planted causes above the other measured events.

    Args:
        auprc: Average precision over all events, 95 % bootstrap over subjects.
        chance: Share of the events that are causes, which is the average precision of a coin.
        n_events: Measured events of the subjects that are not withheld.
        n_planted: How many of them are causes.
    """

    auprc: Estimate
    chance: float
    n_events: int
    n_planted: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "auprc": self.auprc.to_dict(),
            "chance": self.chance,
            "n_events": self.n_events,
            "n_planted": self.n_planted,
        }


def planted_recovery(
    attributions: Attributions,
    planted: pd.DataFrame,
    kinds: Collection[str] = ("value",),
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> PlantedRecovery:
    """Compare attributions with the causes that a simulated cohort planted.

    Args:
        attributions: Of that cohort.
        planted: `Cohort.planted`: subject_id, kind, time, variable, weight.
        kinds: Which causes count: "value", "ordering", "timing".
        n_resamples: Bootstrap resamples of subjects.
        seed: Of their random numbers.

    Raises:
        ArgumentError: No measured event was attributed.
    """
    events = attributions.to_pandas()
    events = events[events["kind"] == "observation"]
    if not len(events):
        raise ArgumentError("no measured event was attributed, so nothing can be compared")
    counts = planted["kind"].isin(list(kinds)) & (planted["weight"] != 0)
    causes = pd.MultiIndex.from_frame(planted.loc[counts, _KEYS].astype({"variable": str}))
    is_cause = pd.MultiIndex.from_frame(events.loc[:, _KEYS].astype({"variable": str})).isin(causes)
    size = np.abs(np.asarray(events["attribution"]))
    scored = ScoredRecords.sort(is_cause.astype(np.float64), size)
    drawn = bootstrap(
        {"auprc": lambda weights: auprc(scored.count(weights))},
        np.asarray(events["subject_id"]),
        n_resamples=n_resamples,
        seed=seed,
    )
    return PlantedRecovery(
        auprc=drawn.estimate("auprc", why="no event is a planted cause"),
        chance=float(is_cause.mean()),
        n_events=len(events),
        n_planted=int(is_cause.sum()),
    )
