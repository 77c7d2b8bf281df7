"""Early warning of a tipping point in a recorded series, with the rate at which it is false.

Near a fold, a SNIC or a Hopf point an equilibrium recovers ever more slowly from noise, so variance
and autocorrelation rise and the spectrum reddens before it is lost (Scheffer et al. 2009, Nature
461:53-59). A trend proves little by itself, since overlapping windows trend by chance: it is held
against surrogates without one (Dakos et al. 2008, PNAS 105:14308-14312), and the share of those
that would raise the alarm is what the result states.

Tipping by noise, or by a parameter that moves faster than the system recovers, gives no warning.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import minimize_scalar
from scipy.signal import lfilter
from scipy.stats import kendalltau

from clinode.errors import ArgumentError
from clinode.statistics import Estimate

from .equilibria import Equilibrium

QUARTILE = 0.25 / 0.675  # standard deviation of a Gaussian with quartiles at +- 1/4
LOW_FREQUENCIES = 0.125  # of all up to half the sampling rate: what counts as red
SPECTRA = 40  # windows whose spectrum is taken
FEWEST = 16  # samples in a window

Series = Float[np.ndarray, "... time"]


@dataclass(frozen=True, eq=False)
class Indicator:
    """One indicator over sliding windows, and whether it rises more than chance lets it.

    Attributes:
        times: (window,), the end of each window.
        values: (window,).
        kendall_tau: Rank correlation of values and times, -1 to 1.
        p_value: Share of surrogates (and the series itself) with a tau at least as large.
    """

    times: Float[np.ndarray, " window"]
    values: Float[np.ndarray, " window"]
    kendall_tau: float
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for JSON."""
        return {
            "times": self.times.tolist(),
            "values": self.values.tolist(),
            "kendall_tau": self.kendall_tau,
            "p_value": self.p_value,
        }


@dataclass(frozen=True, eq=False)
class EarlyWarning:
    """Indicators of critical slowing down in a series.

    Attributes:
        variance: Of the detrended series, in its unit squared.
        autocorrelation: At a lag of one sample.
        reddening: Share of the power in the lowest eighth of the frequencies.
        residuals: (time,), the series without its trend.
        p_value: Of the mean of the trends of variance and autocorrelation, one test for both.
        false_alarm_rate: Share of series without a trend that would be called rising.
        verdict: "rising" or "no evidence".
        step: Time between samples.
    """

    variance: Indicator
    autocorrelation: Indicator
    reddening: Indicator
    residuals: Float[np.ndarray, " time"]
    p_value: float
    false_alarm_rate: float
    verdict: str
    step: float

    @property
    def recovery_rate(self) -> Float[np.ndarray, " window"]:
        """-ln(autocorrelation) / step, per time unit; NaN where that is not a number.

        That of the equilibrium if the series is one of a single slow mode without oscillation.
        """
        rho = self.autocorrelation.values
        return -np.log(np.where(rho > 0, rho, np.nan)) / self.step

    def to_pandas(self) -> pd.DataFrame:
        """One row a window: its end, variance, autocorrelation and recovery rate."""
        return pd.DataFrame(
            {
                "time": self.variance.times,
                "variance": self.variance.values,
                "autocorrelation": self.autocorrelation.values,
                "recovery_rate": self.recovery_rate,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        names = ("variance", "autocorrelation", "reddening")
        indicators = {name: getattr(self, name).to_dict() for name in names}
        return indicators | {
            "p_value": self.p_value,
            "false_alarm_rate": self.false_alarm_rate,
            "verdict": self.verdict,
        }


def early_warning(
    series: Any,
    *,
    step: float = 1.0,
    window: float | None = None,
    detrend: str = "gaussian",
    bandwidth: float | None = None,
    surrogates: str = "ar1",
    n_surrogates: int = 400,
    false_alarm_rate: float = 0.05,
    seed: int = 0,
) -> EarlyWarning:
    """Whether a series slows down towards a tipping point.

    Args:
        series: (time,), evenly sampled, up to the transition or to now, never beyond it.
        step: Time between samples.
        window: Length of the sliding window in time units; half the series by default.
        detrend: "gaussian" (a kernel with its quartiles at a quarter of the bandwidth), "linear"
            or "none".
        bandwidth: Of the Gaussian, in time units; a fifth of the series by default.
        surrogates: "ar1", series of one relaxation rate with the variance and autocorrelation of
            the whole series; or "phase", series with its spectrum, which an oscillation needs.
        n_surrogates: How many; each is detrended like the series.
        false_alarm_rate: Of the verdict.
        seed: Of the surrogates.

    Raises:
        ArgumentError: A series that is not one axis of finite numbers, is constant or too short
            for its window, or an unknown word.

    Example:
        >>> flat = np.random.default_rng(0).normal(size=400)
        >>> early_warning(flat, n_surrogates=100).verdict
        'no evidence'
    """
    values = _checked(series)
    if not (step > 0 and 0 < false_alarm_rate < 1 and n_surrogates >= 1 / false_alarm_rate):
        raise ArgumentError(
            f"step {step} must be positive, false_alarm_rate {false_alarm_rate} between 0 and 1, "
            f"and n_surrogates {n_surrogates} at least its inverse"
        )
    n = len(values)
    width = n // 2 if window is None else round(window / step)
    if not FEWEST <= width <= n - FEWEST:
        raise ArgumentError(
            f"a window holds {width} of {n} samples",
            fix=f"between {FEWEST} and {n - FEWEST}: give a longer series or another window",
        )
    kernel = 0.2 * n if bandwidth is None else bandwidth / step
    without_trend = _choose("detrend", detrend, DETRENDS)
    imitate = _choose("surrogates", surrogates, SURROGATES)
    residuals = without_trend(values, kernel)
    generator = np.random.default_rng(seed)
    imitations = imitate(DETRENDS["linear"](values, kernel), n_surrogates, generator)
    everything = np.concatenate([residuals[None], without_trend(imitations, kernel)])
    curves = {
        "variance": rolling_variance(everything, width),
        "autocorrelation": rolling_autocorrelation(everything, width),
        "reddening": rolling_reddening(everything, width),
    }
    taus = {name: _trends(curve) for name, curve in curves.items()}
    both = taus["variance"] + taus["autocorrelation"]
    p_value = _upper_tail(both)
    ends = (np.arange(width - 1, n)) * step
    some = ends[_positions(n - width + 1)]
    indicators = {
        name: Indicator(
            times=some if name == "reddening" else ends,
            values=curve[0],
            kendall_tau=float(taus[name][0]),
            p_value=_upper_tail(taus[name]),
        )
        for name, curve in curves.items()
    }
    return EarlyWarning(
        **indicators,
        residuals=residuals,
        p_value=p_value,
        false_alarm_rate=false_alarm_rate,
        verdict="rising" if p_value <= false_alarm_rate else "no evidence",
        step=step,
    )


@dataclass(frozen=True)
class Tipping:
    """Where a variance runs away, and how: the exponent tells a fold from a Hopf point.

    Attributes:
        critical_value: Of the parameter.
        exponent: gamma in variance ~ (critical value - parameter)^-gamma, with its interval.
        kind: "fold" (gamma 1/2: fold or SNIC), "hopf" (gamma 1: Hopf, transcritical or pitchfork),
            or "undecided" where the interval holds both or neither.
    """

    critical_value: float
    exponent: Estimate
    kind: str

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words, for JSON."""
        return {
            "critical_value": self.critical_value,
            "exponent": self.exponent.to_dict(),
            "kind": self.kind,
        }


def scaling_exponent(
    parameter: Float[np.ndarray, " recording"],
    variance: Float[np.ndarray, " recording"],
    *,
    n_resamples: int = 400,
    seed: int = 0,
) -> Tipping:
    """How the variance of independent recordings grows towards a tipping point.

    Least squares on log variance = c - gamma log |critical value - parameter| over all three; the
    interval is that of a bootstrap over recordings. Under small noise of constant size the variance
    is inversely proportional to the rate of recovery, which falls with the square root of the
    distance to a fold and with the distance itself to a Hopf point (Kuehn 2011, Physica D
    240:1020-1035).

    Args:
        parameter: (recording,), in any order; the critical value is sought beyond the end where
            the variance is larger.
        variance: (recording,), positive: of the series at that parameter, detrended.
        n_resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ArgumentError: Fewer than six recordings, or a variance that is not positive.
    """
    p, v = np.asarray(parameter, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    if p.ndim != 1 or p.shape != v.shape or len(p) < 6 or len(np.unique(p)) < 6:
        raise ArgumentError("a scaling exponent needs at least six recordings at different values")
    if not (np.isfinite(p).all() and np.isfinite(v).all() and (v > 0).all()):
        raise ArgumentError("parameters must be finite and variances positive")
    order = np.argsort(p)
    p, log_v = p[order], np.log(v[order])
    sign = 1.0 if np.polyfit(p, log_v, 1)[0] > 0 else -1.0
    p = sign * p
    critical, gamma = _fit_exponent(p, log_v)
    generator = np.random.default_rng(seed)
    drawn = []
    while len(drawn) < n_resamples:
        index = generator.integers(len(p), size=len(p))
        if len(np.unique(index)) >= 4:
            drawn.append(_fit_exponent(p[index], log_v[index])[1])
    low, high = np.quantile(drawn, [0.025, 0.975])
    exponent = Estimate(gamma, float(low), float(high))
    holds = [low <= value <= high for value in (0.5, 1.0)]
    kind = "undecided" if holds[0] == holds[1] else "fold" if holds[0] else "hopf"
    return Tipping(float(sign * critical), exponent, kind)


def recovery_rate(equilibrium: Equilibrium) -> float:
    """-max Re(eigenvalue), per time unit: how fast the slowest mode recovers; negative if unstable.

    Args:
        equilibrium: From `find_equilibria`.
    """
    return -float(equilibrium.eigenvalues.real.max())


def rolling_variance(series: Series, width: int) -> Float[np.ndarray, "... window"]:
    """Sample variance (n - 1) of every window."""
    total, squares = _rolling_sum(series, width), _rolling_sum(series**2, width)
    return (squares - total**2 / width) / (width - 1)


def rolling_autocorrelation(series: Series, width: int) -> Float[np.ndarray, "... window"]:
    """Correlation of each sample with the next inside every window."""
    first, second, n = series[..., :-1], series[..., 1:], width - 1
    a, b = _rolling_sum(first, n), _rolling_sum(second, n)
    product = _rolling_sum(first * second, n) - a * b / n
    spread_a = _rolling_sum(first**2, n) - a**2 / n
    spread_b = _rolling_sum(second**2, n) - b**2 / n
    return product / np.sqrt(spread_a * spread_b)


def rolling_reddening(series: Series, width: int) -> Float[np.ndarray, "... window"]:
    """Share of the power in the lowest eighth of the frequencies, of some windows."""
    positions = _positions(series.shape[-1] - width + 1)
    windows = sliding_window_view(series, width, axis=-1)[..., positions, :]
    low = max(1, round(LOW_FREQUENCIES * (width // 2)))
    shares = []
    for some in windows.reshape(-1, len(positions), width):  # one series at a time: memory
        power = np.abs(np.fft.rfft(some - some.mean(axis=-1, keepdims=True)))[:, 1:] ** 2
        shares.append(power[:, :low].sum(axis=-1) / power.sum(axis=-1))
    return np.reshape(shares, (*series.shape[:-1], len(positions)))


def _positions(n_windows: int) -> np.ndarray:
    return np.unique(np.linspace(0, n_windows - 1, min(SPECTRA, n_windows)).round().astype(int))


def _rolling_sum(series: Series, width: int) -> np.ndarray:
    total = np.cumsum(series, axis=-1)
    total[..., width:] -= total[..., :-width].copy()
    return total[..., width - 1 :]


def _gaussian(series: Series, kernel: float) -> Series:
    return series - gaussian_filter1d(series, QUARTILE * kernel, axis=-1, mode="reflect")


def _linear(series: Series, kernel: float) -> Series:
    x = np.linspace(-1, 1, series.shape[-1])
    slope = (series @ x) / (x @ x)
    return series - series.mean(axis=-1, keepdims=True) - slope[..., None] * x


def _unchanged(series: Series, kernel: float) -> Series:
    return series


def _ar1(series: Series, n: int, generator: np.random.Generator) -> Series:
    """Stationary first-order series of the same variance and lag-1 autocorrelation."""
    x = series - series.mean()
    rho = float(np.clip((x[:-1] @ x[1:]) / (x @ x), -0.999, 0.999))
    rho = min(rho + (1 + 4 * max(rho, 0.0)) / len(x), 0.999)  # its bias in a short series
    noise = generator.normal(size=(n, len(x))) * math.sqrt(1 - rho**2)
    noise[:, 0] /= math.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], noise, axis=-1) * x.std()


def _phase(series: Series, n: int, generator: np.random.Generator) -> Series:
    """Series with the same spectrum and random phases."""
    size = np.abs(np.fft.rfft(series - series.mean()))
    turns = np.exp(2j * np.pi * generator.random((n, len(size))))
    turns[:, 0] = 1.0
    if len(series) % 2 == 0:
        turns[:, -1] = 1.0
    return np.fft.irfft(size * turns, n=len(series), axis=-1)


DETRENDS: dict[str, Callable[[Series, float], Series]] = {
    "gaussian": _gaussian,
    "linear": _linear,
    "none": _unchanged,
}
SURROGATES: dict[str, Callable[[Series, int, np.random.Generator], Series]] = {
    "ar1": _ar1,
    "phase": _phase,
}


def _choose(role: str, word: str, known: dict[str, Any]) -> Any:
    if word not in known:
        raise ArgumentError(f"{role} must be one of {', '.join(known)}, got {word!r}")
    return known[word]


def _checked(series: Any) -> np.ndarray:
    values = np.asarray(series, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ArgumentError(
            f"a series is one axis of finite numbers, got shape {values.shape}",
            fix="fill or cut gaps first: they change the autocorrelation",
        )
    if len(values) < 4 * FEWEST or np.ptp(values) == 0:
        raise ArgumentError(f"a series of {len(values)} samples is too short, or constant")
    return values


def _trends(curves: Float[np.ndarray, "series window"]) -> Float[np.ndarray, " series"]:
    positions = np.arange(curves.shape[-1])
    return np.array([kendalltau(positions, curve)[0] for curve in curves])


def _upper_tail(taus: Float[np.ndarray, " series"]) -> float:
    """Share of all series, the first among them, with a trend at least as large as the first's."""
    return float((taus >= taus[0] - 1e-12).mean())


def _fit_exponent(p: np.ndarray, log_v: np.ndarray) -> tuple[float, float]:
    """The critical value beyond the largest p, and the exponent, of least squares."""

    def line(log_gap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Squared error and exponent at critical values exp(log_gap) beyond the last."""
        distance = np.log(p.max() + np.exp(log_gap)[..., None] - p)
        distance = distance - distance.mean(axis=-1, keepdims=True)
        slope = distance @ log_v / (distance**2).sum(axis=-1)
        error = log_v - log_v.mean() - slope[..., None] * distance
        return (error**2).sum(axis=-1), -slope

    grid = math.log(np.ptp(p)) + np.linspace(math.log(1e-6), math.log(10.0), 60)
    best = int(line(grid)[0].argmin())
    ends = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    gap: float = minimize_scalar(  # pyright: ignore[reportIndexIssue]  # its result has no type
        lambda gap: float(line(np.array([gap]))[0][0]),
        bounds=ends,
        method="bounded",
        options={"xatol": 1e-10},
    )["x"]
    return float(p.max() + math.exp(gap)), float(line(np.array([gap]))[1][0])
