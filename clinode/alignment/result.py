"""The result of an alignment: its numbers, what was not scored, and what is to be told of them."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from clinode.statistics import Estimate

from .readouts import Reading
from .scores import Effects, Scores


@dataclass(frozen=True, eq=False)
class Alignment:
    """How a model's predictions of interventions compare with what they do.

    Attributes:
        scores: r, sign agreement and normalized error, over all experiments.
        by_sites: The same for experiments of one intervention, of two at once, and so on.
        ceiling: The r that a perfect model would reach, given the noise; 1 without noise.
        share_of_ceiling: r over the ceiling, on the same resamples.
        twin_r: r of the twins, median and central 95 %; undefined without twins.
        p_value: How often a twin is as good as the model; NaN without twins.
        ambiguity: By how much twins predict other effects than the model, |theirs - its| / |its|,
            median and central 95 % of the twins.
        identified: Whether twins agree with the model, within 10 % of its effects and in all but
            10 % of what comes to an end; None where none were given.
        seen_r: r of what seeing alone predicts, over the experiments that it answers.
        fate: Share of experiments in which model and system both have, or both lose, what is read.
        lost: By experiment that is not scored, why; none is left out in silence.
        experiments: In words, in the order of the effects.
        readings: What was read.
        predicted: (experiment, reading), the model's effects; NaN where there is none.
        actual: The system's, the mean of noisy repeats where there is noise.
        standard_error: Of the actual effects; zero without noise.
        set_by_hand: (experiment, reading), readings that the experiment itself sets, not scored.
        twins: (twin, experiment, reading), the twins' effects.
        scale: (reading,), what effects were divided by before they were scored: 1 where all
            readings have one unit.
        warnings: What is to be told with the numbers.
    """

    scores: Scores
    by_sites: dict[int, Scores]
    ceiling: Estimate
    share_of_ceiling: Estimate
    twin_r: Estimate
    p_value: float
    ambiguity: Estimate
    identified: bool | None
    seen_r: Estimate
    fate: Estimate
    lost: dict[str, str]
    experiments: tuple[str, ...]
    readings: tuple[Reading, ...]
    predicted: Effects = field(repr=False)
    actual: Effects = field(repr=False)
    standard_error: Effects = field(repr=False)
    set_by_hand: np.ndarray = field(repr=False)
    twins: np.ndarray = field(repr=False)
    scale: np.ndarray = field(repr=False)
    warnings: tuple[str, ...]

    @property
    def r(self) -> Estimate:
        """Pearson's correlation of predicted and actual effects."""
        return self.scores.r

    @property
    def sign_agreement(self) -> Estimate:
        """Share of the effects of known sign that have the predicted one."""
        return self.scores.sign_agreement

    @property
    def error(self) -> Estimate:
        """|predicted - actual| / |actual|."""
        return self.scores.error

    @property
    def verdict(self) -> str:
        """In words."""
        told = f"{self.scores.n_effects} effects of {self.scores.n_experiments} experiments"
        if self.r.is_defined:
            told += f", r {self.r.value:.3f}"
        return "; ".join([told, *self.warnings])

    def to_pandas(self) -> pd.DataFrame:
        """One row an experiment and reading, whether it was scored and if not, why."""
        rows = []
        for i, experiment in enumerate(self.experiments):
            for j, reading in enumerate(self.readings):
                low, high = span(self.twins[:, i, j]) if len(self.twins) else (math.nan, math.nan)
                status = "scored"
                if experiment in self.lost:
                    status = self.lost[experiment]
                elif self.set_by_hand[i, j]:
                    status = "set by the experiment itself"
                rows.append(
                    {
                        "experiment": experiment,
                        "reading": reading.name,
                        "unit": reading.unit,
                        "predicted": self.predicted[i, j],
                        "actual": self.actual[i, j],
                        "standard_error": self.standard_error[i, j],
                        "twin_low": low,
                        "twin_high": high,
                        "status": status,
                    }
                )
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = ("ceiling", "share_of_ceiling", "twin_r", "ambiguity", "seen_r", "fate")
        return {
            "scores": self.scores.to_dict(),
            "by_sites": {str(k): one.to_dict() for k, one in self.by_sites.items()},
            **{name: getattr(self, name).to_dict() for name in names},
            "p_value": None if math.isnan(self.p_value) else self.p_value,
            "identified": self.identified,
            "lost": dict(self.lost),
            "warnings": list(self.warnings),
            "verdict": self.verdict,
        }


def span(values: np.ndarray) -> tuple[float, float]:
    """The central 95 % of twins; NaN where none has a value."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)
