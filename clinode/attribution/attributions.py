"""The attributions of a cohort: a row an event, and what is known of each subject's map."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from clinode.statistics import bootstrap

COLUMNS = ("subject_id", "kind", "time", "variable", "value", "attribution")
KINDS = ("static", "observation", "input")


@dataclass(frozen=True, eq=False, kw_only=True)
class Attributions:
    """What moved the output of a model, event by event.

    Args:
        events: One row a measured value, treatment and known static of every subject whose map is
            not withheld; see `to_pandas`.
        gates: One row a subject: subject_id, prediction_time (h), output (logit), base (logit at
            the baseline), gap (completeness gap relative to max(|output - base|, 0.1)), rows_used
            (evaluations of the model), withheld, why, standard_error (the largest of any row where
            attributions were drawn at random, 0 where not, NaN where it is not known).
        method, baseline: The words that chose them.
        outcome: What the model predicts.
        tolerance: The gap above which a map is withheld.
        players: What one row stands for: an "event", a "variable", or a variable in a "window".
        scale: Unit of output and attributions, in words.
        hours: After the prediction time: of a forecast how far ahead, of a survival by when.
    """

    events: pd.DataFrame
    gates: pd.DataFrame
    method: str
    baseline: str
    outcome: str
    tolerance: float
    players: str = "event"
    scale: str = "log odds"
    hours: float | None = None

    def to_pandas(self) -> pd.DataFrame:
        """One row an event: subject_id, kind, time, variable, value, attribution.

        Kind is "observation", "static" or "input". Time is in hours, of a treatment its start, of a
        static NaN; where a row stands for a variable NaN, for a window its begin. Values are in
        original units, NaN where a row stands for several. Attributions are in units of `scale`; of
        "saliency" they are slopes, those per training standard deviation.
        """
        return self.events.copy()

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, one record a row; None where a number is undefined."""
        return {
            "method": self.method,
            "baseline": self.baseline,
            "outcome": self.outcome,
            "tolerance": self.tolerance,
            "players": self.players,
            "scale": self.scale,
            "hours": self.hours,
            "gates": _records(self.gates),
            "events": _records(self.events),
        }

    def by_variable(self, *, n_resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
        """How much each variable moved the output, over all subjects that are not withheld.

        `per_subject` is the mean over subjects of |sum of the variable's attributions|, 0 where it
        was not measured; `per_measurement` is the mean over its events of |attribution|, in which a
        variable that is measured often has no advantage. Intervals are 95 % percentile bootstraps
        over subjects.

        Returns:
            variable, kind, subjects and measurements (how many), and per_subject and
            per_measurement each with _low and _high; largest per_subject first.
        """
        names, columns = ["kind", "variable"], ["per_subject", "per_measurement"]
        bounds = [f"{column}{end}" for column in columns for end in ("", "_low", "_high")]
        if not len(self.events):
            return pd.DataFrame(columns=[*names, "measurements", "subjects", *bounds])
        is_shown = ~self.gates["withheld"].to_numpy(dtype=bool)
        shown = self.gates["subject_id"].to_numpy()[is_shown]
        groups = self.events.groupby(names, sort=True, observed=True)
        table = groups["attribution"].agg(measurements="size").reset_index()
        n_subjects, n_groups = len(shown), len(table)
        subject = pd.Index(shown).get_indexer(pd.Index(self.events["subject_id"]))
        cell = subject * n_groups + groups.ngroup().to_numpy()

        def by_subject(values: np.ndarray) -> np.ndarray:
            flat = np.bincount(cell, weights=values, minlength=n_subjects * n_groups)
            return flat.reshape(n_subjects, n_groups)

        attribution = self.events["attribution"].to_numpy()
        sums, sizes = by_subject(attribution), by_subject(np.abs(attribution))
        counts = by_subject(np.ones(len(cell)))
        statistics = {}
        for group in range(n_groups):
            statistics[f"per_subject {group}"] = _mean_of(np.abs(sums[:, group]))
            statistics[f"per_measurement {group}"] = _ratio_of(sizes[:, group], counts[:, group])
        drawn = bootstrap(statistics, np.arange(n_subjects), n_resamples=n_resamples, seed=seed)
        table["subjects"] = (counts > 0).sum(axis=0)
        for column in columns:
            estimates = [drawn.estimate(f"{column} {group}") for group in range(n_groups)]
            table[column] = [e.value for e in estimates]
            table[f"{column}_low"] = [e.low for e in estimates]
            table[f"{column}_high"] = [e.high for e in estimates]
        return table.sort_values("per_subject", ascending=False, kind="stable", ignore_index=True)


def _mean_of(values: np.ndarray):
    return lambda weights: weights @ values / weights.sum(axis=1)


def _ratio_of(total: np.ndarray, count: np.ndarray):
    def ratio(weights: np.ndarray) -> np.ndarray:
        n = weights @ count
        return np.divide(weights @ total, n, out=np.full(len(n), np.nan), where=n > 0)

    return ratio


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    finite = table.replace([np.inf, -np.inf], np.nan)
    plain = finite.astype(object).where(finite.notna(), None)
    return [
        {name: cell.item() if isinstance(cell, np.generic) else cell for name, cell in row.items()}
        for row in plain.to_dict("records")
    ]
