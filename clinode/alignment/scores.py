"""How alike predicted and actual effects are, and how alike they could be.

Effects stand as (experiment, reading), NaN where there is none. What is resampled for intervals is
the experiment with all its readings: a claim about experiments that were not made.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from clinode.errors import ArgumentError
from clinode.statistics import Bootstrap, Estimate, Weights, bootstrap

FEWEST = 5  # experiments below which resampling them says nothing
NO_EFFECT = 1e-6  # of the largest effect: below, rounding decides the sign
ALIKE = 1e-24  # product of variances, relative to that of mean squares: rounding and no more
RESOLVED = 2.0  # standard errors above which the sign of a measured effect is known

Effects = Float[np.ndarray, "experiment reading"]
Repeats = Float[np.ndarray, "repeat experiment reading"]


@dataclass(frozen=True)
class Scores:
    """Predicted against actual effects.

    Attributes:
        r: Pearson correlation over experiments and readings.
        sign_agreement: Of the effects whose sign is known, the share with the same sign.
        error: |predicted - actual| / |actual|; 1 is what no effect at all would get.
        n_experiments: That entered.
        n_effects: Experiments times readings that entered.
    """

    r: Estimate
    sign_agreement: Estimate
    error: Estimate
    n_experiments: int
    n_effects: int

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "r": self.r.to_dict(),
            "sign_agreement": self.sign_agreement.to_dict(),
            "error": self.error.to_dict(),
            "n_experiments": self.n_experiments,
            "n_effects": self.n_effects,
        }


def score_effects(
    predicted: Effects,
    actual: Effects,
    *,
    standard_error: Effects | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Scores:
    """Predicted against actual effects, with intervals over experiments.

    Args:
        predicted: NaN where there is none.
        actual: Likewise; only what both have is scored.
        standard_error: Of the actual effects; signs are asked of those above two of them.
        n_resamples: Bootstrap resamples of experiments.
        seed: Of them.

    Raises:
        ArgumentError: Shapes that differ.

    Example:
        >>> effects = np.array([[1.0, -2.0], [0.5, 1.0], [2.0, 0.1], [-1.0, 1.0], [0.3, 0.2]])
        >>> round(score_effects(effects, effects).r.value, 9)
        1.0
    """
    _check_same(predicted, actual)
    p, a, unit = _pairs(predicted, actual)
    known = _sign_is_known(actual, standard_error)[np.isfinite(predicted) & np.isfinite(actual)]
    agrees = (np.sign(p) == np.sign(a)) & known
    n = len(np.unique(unit))
    made = bootstrap(
        {
            "r": _correlation(p, a),
            "sign": _ratio(agrees.astype(np.float64), known.astype(np.float64)),
            "error": _root_ratio((p - a) ** 2, a**2),
        },
        unit,
        n_resamples=n_resamples,
        seed=seed,
    )
    return Scores(
        r=_estimate(made, "r", n, "effects that do not vary, or fewer than three"),
        sign_agreement=_estimate(made, "sign", n, "no effect has a sign that is known"),
        error=_estimate(made, "error", n, "there is no actual effect"),
        n_experiments=n,
        n_effects=len(p),
    )


def ceiling_of(measured: Repeats, *, n_resamples: int = 1000, seed: int = 0) -> Estimate:
    """The correlation that a perfect model reaches with the mean of noisy repeats.

    It is the root of the mean's reliability: the covariance between repeats, which is what they
    share, over the variance of their mean. Nothing has to be known of the noise.

    Args:
        measured: Effects, each repeat measured anew, the intact system too.
        n_resamples: Bootstrap resamples of experiments.
        seed: Of them.

    Raises:
        ArgumentError: Fewer than two repeats.
    """
    if len(measured) < 2:
        raise ArgumentError(f"a noise ceiling needs two repeats at least, got {len(measured)}")
    there = np.isfinite(measured).all(axis=0)
    unit = np.nonzero(there)[0]
    x, n = measured[:, there], len(np.unique(unit))

    def ceiling(w: Weights) -> Float[np.ndarray, " resample"]:
        of_mean, shared = _shared(x, w)
        with np.errstate(divide="ignore", invalid="ignore"):
            reliability = np.where(of_mean > 0, shared / of_mean, np.nan)
        return np.sqrt(np.clip(reliability, 0.0, 1.0))

    made = bootstrap({"ceiling": ceiling}, unit, n_resamples=n_resamples, seed=seed)
    return _estimate(made, "ceiling", n, "the measured effects do not vary")


def share_of_ceiling(
    predicted: Effects, measured: Repeats, *, n_resamples: int = 1000, seed: int = 0
) -> Estimate:
    """r over the noise ceiling, both on the same resamples; what is lost to the model alone."""
    actual = measured.mean(axis=0)
    both = np.isfinite(predicted) & np.isfinite(measured).all(axis=0)
    p, unit = predicted[both], np.nonzero(both)[0]
    x = measured[:, both]
    r = _correlation(p, actual[both])

    def share(w: Weights) -> Float[np.ndarray, " resample"]:
        of_mean, shared = _shared(x, w)
        with np.errstate(divide="ignore", invalid="ignore"):
            top = np.sqrt(np.clip(shared / of_mean, 0.0, 1.0))
            return np.where(top > 0, r(w) / top, np.nan)

    made = bootstrap({"share": share}, unit, n_resamples=n_resamples, seed=seed)
    n = len(np.unique(unit))
    return _estimate(made, "share", n, "the repeats share nothing, or effects do not vary")


def over_models(values: Float[np.ndarray, " model"], what: str) -> Estimate:
    """Median over models, with the central 95 % of them as the interval."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Estimate.undefined(f"no model has {what}")
    middle = float(np.median(finite))
    if len(finite) < 20:
        return Estimate(middle, math.nan, math.nan, f"no interval: {len(finite)} models")
    low, high = np.quantile(finite, [0.025, 0.975])
    return Estimate(middle, float(low), float(high))


def correlation(predicted: Effects, actual: Effects) -> float:
    """Pearson's r over all that both have; NaN where undefined."""
    p, a, _ = _pairs(predicted, actual)
    return float(_correlation(p, a)(np.ones((1, len(p))))[0]) if len(p) else math.nan


def _pairs(
    predicted: Effects, actual: Effects
) -> tuple[np.ndarray, np.ndarray, Int[np.ndarray, " pair"]]:
    both = np.isfinite(predicted) & np.isfinite(actual)
    return predicted[both], actual[both], np.nonzero(both)[0]


def _shared(x: Float[np.ndarray, "repeat pair"], w: Weights) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the mean of repeats, and of it what repeats share, on each resample.

    Within a repeat the variance is shared + own, of their mean shared + own / m.
    """
    m = len(x)
    of_mean = _variance(w, x.mean(axis=0))
    within = np.mean([_variance(w, row) for row in x], axis=0)
    return of_mean, (m * of_mean - within) / (m - 1)


def _sign_is_known(
    actual: Effects, standard_error: Effects | None
) -> Bool[np.ndarray, "experiment reading"]:
    size = np.abs(np.nan_to_num(actual))
    least = NO_EFFECT * size.max(initial=0.0)
    if standard_error is None:
        return size > least
    return size > np.maximum(least, RESOLVED * np.nan_to_num(standard_error))


def _correlation(p: np.ndarray, a: np.ndarray) -> Callable[[Weights], np.ndarray]:
    if len(p) < 3:
        return lambda w: np.full(len(w), math.nan)
    size = float(np.square(p).mean()) * float(np.square(a).mean())
    p, a = p - p.mean(), a - a.mean()

    def r(w: Weights) -> np.ndarray:
        of_p, of_a = _variance(w, p), _variance(w, a)
        total = w.sum(axis=1)
        both = w @ (p * a) / total - (w @ p / total) * (w @ a / total)
        product = of_p * of_a
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.where(product > ALIKE * size, both / np.sqrt(product), math.nan)
        return np.clip(value, -1.0, 1.0)

    return r


def _variance(w: Weights, x: np.ndarray) -> np.ndarray:
    total, x = w.sum(axis=1), x - x.mean() if x.size else x
    mean = w @ x / total
    return np.maximum(w @ x**2 / total - mean**2, 0.0)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> Callable[[Weights], np.ndarray]:
    def ratio(w: Weights) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(w @ bottom > 0, w @ top / (w @ bottom), math.nan)

    return ratio


def _root_ratio(top: np.ndarray, bottom: np.ndarray) -> Callable[[Weights], np.ndarray]:
    inner = _ratio(top, bottom)
    return lambda w: np.sqrt(inner(w))


def _estimate(made: Bootstrap, name: str, n: int, why: str) -> Estimate:
    found = made.estimate(name, why=why)
    if n >= FEWEST or not found.is_defined:
        return found
    return Estimate(found.value, math.nan, math.nan, f"no interval: {n} experiments")


def _check_same(predicted: Effects, actual: Effects) -> None:
    if predicted.shape != actual.shape or predicted.ndim != 2:
        raise ArgumentError(
            f"predicted effects {predicted.shape} and actual ones {actual.shape} must both be "
            "(experiment, reading)"
        )
