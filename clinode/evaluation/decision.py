"""What acting on a prediction is worth: net benefit over thresholds, and alerts at one of them.

Whoever acts at a risk of t holds a missed outcome to be (1 - t) / t times as bad as an alert for
nothing. In units of outcomes found, net benefit counts both: TP/n - FP/n * t / (1 - t) (Vickers &
Elkin 2006, Med. Decis. Making 26:565-574). It is compared with acting on everybody and on nobody;
the better of the two is what a model has to beat at the threshold.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from clinode.errors import ArgumentError
from clinode.evaluation.scores import ratio
from clinode.statistics import Bootstrap, Estimate, bootstrap, percentile_interval

AT_THRESHOLD = ("sensitivity", "specificity", "ppv", "npv", "alerts_per_100")
THRESHOLDS = tuple(np.round(np.arange(0.01, 0.51, 0.01), 2).tolist())


def decision_curve(
    outcome: Float[np.ndarray, " record"],
    probability: Float[np.ndarray, " record"],
    thresholds: Shaped[np.ndarray, " threshold"] | tuple[float, ...] = THRESHOLDS,
    *,
    subjects: Shaped[np.ndarray, " record"] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Net benefit of acting where the probability is at least a threshold, for each threshold.

    Args:
        outcome: 0 or 1.
        probability: Predicted.
        thresholds: Each inside (0, 1).
        subjects: Whose record each is, the unit that is resampled; the records themselves by
            default.
        n_resamples: Bootstrap resamples.
        seed: Of the resamples.
        level: Of the intervals.

    Returns:
        One row a threshold: threshold; model and all (acting on everybody; nobody is 0), each with
        _low and _high; gain, model minus the better of everybody and nobody, subtracted within each
        resample, with _low and _high; alerts, the share of records acted on.

    Raises:
        ArgumentError: There is no record, an outcome is not 0 or 1, a probability lies outside
            [0, 1], or a threshold outside (0, 1).

    Example:
        >>> outcome, risk = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.6, 0.4, 0.8])
        >>> decision_curve(outcome, risk, (0.5,), n_resamples=10).loc[0, ["model", "all"]].tolist()
        [0.0, 0.0]
    """
    at = np.asarray(thresholds, dtype=np.float64)
    subjects = np.arange(len(outcome)) if subjects is None else subjects
    _check(outcome, probability, subjects, at)
    odds = at / (1 - at)
    acts = probability[:, None] >= at
    worth = acts * np.where(outcome[:, None] == 1, 1.0, -odds)
    statistics = {f"model {k}": _mean(worth[:, k]) for k in range(len(at))}
    sample = bootstrap(
        {"events": _mean(outcome), **statistics}, subjects, n_resamples=n_resamples, seed=seed
    )
    rows = []
    for k, threshold in enumerate(at):
        model = sample.estimate(f"model {k}", level=level)
        everybody = _of_all(sample, odds[k])
        gain = (
            sample.value[f"model {k}"] - max(everybody[0], 0.0),
            sample.resampled[f"model {k}"] - np.maximum(everybody[1], 0.0),
        )
        row: dict[str, float] = {"threshold": float(threshold)}
        row |= _told("model", model)
        row |= _told("all", percentile_interval(*everybody, level=level))
        row |= _told("gain", percentile_interval(*gain, level=level))
        rows.append(row | {"alerts": float(acts[:, k].mean())})
    return pd.DataFrame(rows)


def at_threshold(
    outcome: Float[np.ndarray, " record"],
    probability: Float[np.ndarray, " record"],
    threshold: float,
    *,
    subjects: Shaped[np.ndarray, " record"] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """How often an alert, raised at a threshold and above, is right, missed or for nothing.

    Args:
        outcome: 0 or 1.
        probability: Predicted.
        threshold: Inside (0, 1).
        subjects: As for `decision_curve`.
        n_resamples: As for `decision_curve`.
        seed: As for `decision_curve`.
        level: Of the intervals.

    Returns:
        sensitivity, specificity, ppv (share of alerts that are right), npv, and alerts_per_100
        predictions; with the reason in place of those that have no value.

    Raises:
        ArgumentError: As `decision_curve`.
    """
    subjects = np.arange(len(outcome)) if subjects is None else subjects
    _check(outcome, probability, subjects, np.array([threshold]))
    alert = (probability >= threshold).astype(np.float64)
    had, had_not, quiet = outcome, 1 - outcome, 1 - alert
    statistics = {
        "sensitivity": _share(alert * had, had),
        "specificity": _share(quiet * had_not, had_not),
        "ppv": _share(alert * had, alert),
        "npv": _share(quiet * had_not, quiet),
        "alerts_per_100": _share(100 * alert, np.ones(len(alert))),
    }
    why = {
        "sensitivity": "nobody had the outcome",
        "specificity": "everybody had the outcome",
        "ppv": "there is no alert",
        "npv": "there is nothing but alerts",
    }
    sample = bootstrap(statistics, subjects, n_resamples=n_resamples, seed=seed)
    return {
        name: sample.estimate(name, level=level, why=why.get(name, "there is no record"))
        for name in AT_THRESHOLD
    }


def _of_all(sample: Bootstrap, odds: float) -> tuple[float, np.ndarray]:
    """Net benefit of acting on everybody: on the sample, and on each resample."""
    share, shares = sample.value["events"], sample.resampled["events"]
    return share - (1 - share) * odds, shares - (1 - shares) * odds


def _mean(value: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda weights: weights @ value / weights.sum(axis=1)


def _share(part: np.ndarray, whole: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda weights: ratio(weights @ part, weights @ whole)


def _told(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _check(
    outcome: np.ndarray, probability: np.ndarray, subjects: np.ndarray, thresholds: np.ndarray
) -> None:
    if not len(outcome):
        raise ArgumentError("there is no record to act on")
    if not len(outcome) == len(probability) == len(subjects):
        raise ArgumentError("outcome, probability and subjects must have one length")
    if not np.isin(outcome, (0.0, 1.0)).all():
        raise ArgumentError("the outcome must be 0 or 1", fix="leave unknown ones out")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ArgumentError("probabilities must lie in [0, 1]")
    if not len(thresholds) or not ((thresholds > 0) & (thresholds < 1)).all():
        raise ArgumentError("thresholds must lie inside (0, 1)")
