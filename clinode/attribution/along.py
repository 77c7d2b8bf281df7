"""What moved the output at several times of a stay, each told from what lay at or before it."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from clinode.attribution.attributions import Attributions
from clinode.attribution.explain import explain
from clinode.cohort import Cohort
from clinode.errors import ArgumentError
from clinode.training import Ensemble, Run


@dataclass(frozen=True, eq=False)
class AttributionsAlong:
    """Attributions of the same subjects at several times.

    Args:
        at: Prediction times, hours, ascending.
        parts: Of each.
    """

    at: tuple[float, ...]
    parts: tuple[Attributions, ...]

    def to_pandas(self) -> pd.DataFrame:
        """As of `Attributions`, with prediction_time (h) in place 2."""
        tables = []
        for hour, part in zip(self.at, self.parts, strict=True):
            table = part.to_pandas()
            table.insert(1, "prediction_time", hour)
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    @property
    def gates(self) -> pd.DataFrame:
        """One row a subject and time: output, base, completeness and whether it is withheld."""
        return pd.concat([part.gates for part in self.parts], ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """Those of each time, in their order."""
        return {"at": list(self.at), "parts": [part.to_dict() for part in self.parts]}


def explain_along(
    run: Run | Ensemble,
    cohort: Cohort,
    at: Sequence[float],
    method: str = "integrated_gradients",
    baseline: str = "cohort_mean",
    *,
    output: str | None = None,
    hours: float | None = None,
    players: str | None = None,
    subjects: Sequence[Any] | np.ndarray | None = None,
    tolerance: float = 0.01,
    n_jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> AttributionsAlong:
    """What moved the output at each of some times: `explain` of the record up to then.

    A measurement that was not yet made has no row; one that was can weigh otherwise at a later
    time.

    Args:
        run, cohort, method, baseline, output, hours, players, subjects, tolerance, n_jobs: As of
            `explain`.
        at: Prediction times, hours, ascending; a few that matter, for each costs as much as one.
        progress: Called with (times done, all times).

    Raises:
        ArgumentError: No time, times that do not ascend, or as of `explain`.
        SchemaError: As of `explain`.
    """
    times = [float(hour) for hour in at]
    if not times or any(b <= a for a, b in itertools.pairwise(times)):
        raise ArgumentError("at must be one time at least, each later than the one before")
    parts = []
    for done, hour in enumerate(times, start=1):
        parts.append(
            explain(
                run,
                cohort,
                method,
                baseline,
                at=hour,
                output=output,
                hours=hours,
                players=players,
                subjects=subjects,
                tolerance=tolerance,
                n_jobs=n_jobs,
            )
        )
        if progress is not None:
            progress(done, len(times))
    return AttributionsAlong(tuple(times), tuple(parts))
