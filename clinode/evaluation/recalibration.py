"""Recalibration of a risk on records it was not fitted on, with the evidence for and against it.

Three maps of the logit: divided by a temperature (Guo et al. 2017, arXiv:1706.04599), a slope and
an intercept (Platt 1999), or any rising one (isotonic regression, Zadrozny & Elkan 2002). Each is
judged by cross-validation over subjects against leaving the risk as it is; more freedom costs
records, and where no map is better beyond chance none is taken.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from clinode.errors import ArgumentError, SchemaError
from clinode.evaluation.calibration import (
    calibration_intercept,
    calibration_slope,
    ece,
    recenter,
)
from clinode.evaluation.scores import PerResample, ScoredRecords, ScoreTable
from clinode.statistics import Bootstrap, Estimate, bootstrap, percentile_interval

METHODS = ("temperature", "platt", "isotonic")
MEASURES = ("log_loss", "brier", "ece", "calibration_slope", "calibration_intercept")
N_FOLDS = 10
FEWEST = 20  # subjects with the outcome, and without it
_COLDEST, _HOTTEST = -3.0, 3.0  # log of the temperature


@dataclass(frozen=True, eq=False)
class Recalibration:
    """A rising map from the logit of a risk to the logit of a better one.

    Attributes:
        method: "temperature", "platt", "isotonic", or "none", which changes nothing.
        logit: (knot,) places of the map, rising; between them it is linear, beyond them it goes on
            with slope `slope`.
        value: (knot,) the map there.
        slope: Beyond the knots.
        evidence: One row a method and "none": `MEASURES`, cross-validated, with 95 % intervals over
            subjects, and the paired difference of the log loss from "none".
        n_records, n_events: What it was fitted on.
        verdict: In words.
    """

    method: str
    logit: Float[np.ndarray, " knot"]
    value: Float[np.ndarray, " knot"]
    slope: float
    evidence: tuple[Mapping[str, Any], ...]
    n_records: int
    n_events: int
    verdict: str

    def apply(self, logit: Float[np.ndarray, " record"]) -> Float[np.ndarray, " record"]:
        """The recalibrated logit."""
        shown = np.interp(logit, self.logit, self.value)
        below = np.minimum(logit - self.logit[0], 0.0)
        above = np.maximum(logit - self.logit[-1], 0.0)
        return shown + self.slope * (below + above)

    def to_pandas(self) -> pd.DataFrame:
        """The evidence, one row a method."""
        return pd.DataFrame(
            [
                {
                    "method": row["method"],
                    **{name: row[name].value for name in MEASURES},
                    "difference": row["difference"].value,
                    "low": row["difference"].low,
                    "high": row["difference"].high,
                }
                for row in self.evidence
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` reads it back."""
        return {
            "method": self.method,
            "logit": self.logit.tolist(),
            "value": self.value.tolist(),
            "slope": self.slope,
            "evidence": [
                {k: v.to_dict() if isinstance(v, Estimate) else v for k, v in row.items()}
                for row in self.evidence
            ],
            "n_records": self.n_records,
            "n_events": self.n_events,
            "verdict": self.verdict,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Recalibration":
        """What `to_dict` wrote."""
        evidence = tuple(
            {k: _estimate(v) if isinstance(v, dict) else v for k, v in row.items()}
            for row in stored["evidence"]
        )
        return cls(
            method=stored["method"],
            logit=np.asarray(stored["logit"], dtype=np.float64),
            value=np.asarray(stored["value"], dtype=np.float64),
            slope=float(stored["slope"]),
            evidence=evidence,
            n_records=stored["n_records"],
            n_events=stored["n_events"],
            verdict=stored["verdict"],
        )


def fit_recalibration(
    logit: Float[np.ndarray, " record"],
    outcome: Float[np.ndarray, " record"],
    subjects: Shaped[np.ndarray, " record"] | None = None,
    *,
    method: str = "auto",
    n_resamples: int = 1000,
    seed: int = 0,
) -> Recalibration:
    """Fit a recalibration on held-out records, and say what speaks for it.

    Args:
        logit: Of the risk, from a model that did not see these records.
        outcome: 0, 1, or NaN where unknown.
        subjects: Whose record each is: folds and resamples keep a subject together.
        method: One of `METHODS`; "auto" takes the one of least cross-validated log loss among those
            whose interval against leaving it lies below 0, and none where there is no such.
        n_resamples: Of the intervals.
        seed: Of the folds and the resamples.

    Raises:
        ArgumentError: An unknown method.
        SchemaError: Fewer than 20 subjects with, or without, the outcome; a risk that separates
            them, or falls where it should rise; a logit that is not finite.
    """
    if method not in (*METHODS, "auto"):
        raise ArgumentError(f"method must be auto or one of {', '.join(METHODS)}, got {method!r}")
    known = ~np.isnan(outcome)
    x, y = np.asarray(logit, dtype=np.float64)[known], np.asarray(outcome)[known].astype(float)
    whose = (np.arange(len(outcome)) if subjects is None else np.asarray(subjects))[known]
    _check(x, y, whose)
    shown = {"none": x, **{name: _out_of_fold(name, x, y, whose, seed) for name in METHODS}}
    evidence = _evidence(shown, y, whose, n_resamples, seed)
    chosen = _choose(evidence) if method == "auto" else method
    knots, values, slope = _MAPS[chosen](x, y)
    return Recalibration(
        method=chosen,
        logit=knots,
        value=values,
        slope=slope,
        evidence=tuple(evidence),
        n_records=len(y),
        n_events=int(y.sum()),
        verdict=_verdict(chosen, evidence, asked=method),
    )


def _check(x: np.ndarray, y: np.ndarray, whose: np.ndarray) -> None:
    if not np.isfinite(x).all():
        raise SchemaError(f"{int((~np.isfinite(x)).sum())} predictions are not finite")
    for value, words in ((1.0, "with"), (0.0, "without")):
        n = len(np.unique(whose[y == value]))
        if n < FEWEST:
            raise SchemaError(
                f"{n} subjects {words} the outcome; a recalibration needs {FEWEST}",
                where="outcomes",
                fix="recalibrate on more subjects, or leave the risk as it is",
            )
    if x[y == 1].min() >= x[y == 0].max():
        raise SchemaError(
            "every record with the outcome has a higher risk than every one without: no slope is "
            "too steep for them",
            where="outcomes",
            fix="recalibrate on more subjects, or leave the risk as it is",
        )


def _identity(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    return np.zeros(1), np.zeros(1), 1.0


def _temperature(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    found = minimize_scalar(
        lambda t: _log_loss(x / np.exp(t), y).mean(), bounds=(_COLDEST, _HOTTEST), method="bounded"
    )
    slope = float(np.exp(-found.x))  # pyright: ignore[reportAttributeAccessIssue]  # no stubs
    return np.zeros(1), np.zeros(1), slope


def _platt(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    scale = max(float(x.std()), 1e-12)
    model = LogisticRegression(C=1e6, tol=1e-8, max_iter=1000).fit((x / scale)[:, None], y)
    slope = float(model.coef_[0, 0] / scale)
    if slope <= 0:
        raise SchemaError(
            "the outcome is rarer where the risk is higher: no rising map can mend that",
            where="outcomes",
            fix="check the outcome column and the model; a recalibration keeps the ranking",
        )
    return np.zeros(1), model.intercept_.astype(float), slope


def _isotonic(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    least = 1 / (len(y) + 2)  # no group of records proves a risk of 0 or 1
    model = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(x, y)
    return np.asarray(model.X_thresholds_), logit(np.asarray(model.y_thresholds_)), 0.0


_MAPS = {
    "none": _identity,
    "temperature": _temperature,
    "platt": _platt,
    "isotonic": _isotonic,
}


def _out_of_fold(
    method: str, x: np.ndarray, y: np.ndarray, whose: np.ndarray, seed: int
) -> np.ndarray:
    """Each record's recalibrated logit, from a map fitted on the other folds."""
    names, position = np.unique(whose, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(names)) % N_FOLDS
    fold = fold[position]
    shown = np.empty_like(x)
    for k in range(N_FOLDS):
        held = fold == k
        if not held.any():
            continue
        knots, values, slope = _MAPS[method](x[~held], y[~held])
        fitted = Recalibration(method, knots, values, slope, (), 0, 0, "")
        shown[held] = fitted.apply(x[held])
    return shown


def _log_loss(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, x) - y * x


def _evidence(
    shown: dict[str, np.ndarray], y: np.ndarray, whose: np.ndarray, n_resamples: int, seed: int
) -> list[dict[str, Any]]:
    statistics = {}
    for name, x in shown.items():
        statistics[f"log_loss/{name}"] = _mean_of(_log_loss(x, y))
        statistics[f"brier/{name}"] = _mean_of((expit(x) - y) ** 2)
        scored = ScoredRecords.sort(y, expit(x))
        for measure, compute in _OF_SCORES.items():
            statistics[f"{measure}/{name}"] = _of_scores(compute, scored)
    sample = bootstrap(statistics, whose, n_resamples=n_resamples, seed=seed)
    return [
        {
            "method": name,
            **{measure: _estimated(sample, measure, name) for measure in MEASURES},
            "difference": _difference(sample, name),
        }
        for name in shown
    ]


_OF_SCORES = {
    "ece": ece,
    "calibration_slope": calibration_slope,
    "calibration_intercept": calibration_intercept,
}
_NO_VALUE = "the predictions separate the two classes"


def _of_scores(compute: Callable[[ScoreTable], PerResample], scored: ScoredRecords):
    return lambda weights: compute(scored.count(weights))


def _estimated(sample: Bootstrap, measure: str, name: str) -> Estimate:
    key = f"{measure}/{name}"
    value, resampled = sample.value[key], sample.resampled[key]
    shown = recenter(value, resampled) if measure == "ece" else resampled
    return percentile_interval(value, shown, why=_NO_VALUE)


def _mean_of(value: np.ndarray):
    def mean(weights: np.ndarray) -> np.ndarray:
        return (weights @ value) / weights.sum(axis=1)

    return mean


def _difference(sample: Bootstrap, name: str) -> Estimate:
    if name == "none":
        return Estimate(0.0, 0.0, 0.0)
    return sample.difference(f"log_loss/{name}", "log_loss/none")


def _choose(evidence: list[dict[str, Any]]) -> str:
    better = [row for row in evidence if row["difference"].high < 0]
    if not better:
        return "none"
    return min(better, key=lambda row: row["log_loss"].value)["method"]


def _verdict(chosen: str, evidence: list[dict[str, Any]], *, asked: str) -> str:
    if chosen == "none":
        return "left as it is: no recalibration lowers the log loss beyond chance"
    row = next(row for row in evidence if row["method"] == chosen)
    gap = row["difference"]
    told = f"cross-validated log loss {gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
    if gap.high < 0:
        return f"{chosen}: {told} against leaving it"
    why = "worse" if gap.low > 0 else "not better beyond chance"
    return f"{chosen}, as asked ({asked}), though it is {why}: {told} against leaving it"


def _estimate(stored: Mapping[str, Any]) -> Estimate:
    numbers = {k: np.nan if stored[k] is None else stored[k] for k in ("value", "low", "high")}
    return Estimate(**numbers, verdict=stored["verdict"])
