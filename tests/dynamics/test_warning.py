import math

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from clinode.dynamics.equilibria import find_equilibria
from clinode.dynamics.warning import (
    early_warning,
    recovery_rate,
    rolling_autocorrelation,
    rolling_variance,
    scaling_exponent,
)
from clinode.errors import ArgumentError
from clinode.system import LinearSystem


def relaxation(rates, generator, step=0.1, size=1.0):
    """Ornstein-Uhlenbeck samples whose rate of relaxation changes over time, exact in each step."""
    x = np.zeros(len(rates))
    x[0] = generator.normal() * size / math.sqrt(2 * rates[0])
    for k in range(1, len(rates)):
        keep = math.exp(-rates[k] * step)
        spread = size * math.sqrt((1 - keep**2) / (2 * rates[k]))
        x[k] = keep * x[k - 1] + spread * generator.normal()
    return x


def test_variance_and_autocorrelation_of_windows_are_those_of_pandas():
    rng = np.random.default_rng(0)
    series = np.cumsum(rng.normal(size=300)) + 5.0
    rolling = pd.Series(series).rolling(window=75)
    np.testing.assert_allclose(
        rolling_variance(series, 75), rolling.var().dropna(), rtol=1e-9, atol=0
    )
    lagged = rolling.apply(lambda x: pd.Series(x).autocorr(lag=1), raw=True).dropna()
    np.testing.assert_allclose(rolling_autocorrelation(series, 75), lagged, rtol=1e-8, atol=0)


def test_gaussian_detrending_has_its_quartiles_at_a_quarter_of_the_bandwidth():
    rng = np.random.default_rng(1)
    series = np.linspace(0, 3, 200) ** 2 + rng.normal(size=200)
    found = early_warning(series, bandwidth=40.0, n_surrogates=20)
    expected = series - gaussian_filter(series, sigma=0.25 / 0.675 * 40, mode="reflect")
    np.testing.assert_allclose(found.residuals, expected, atol=1e-10)


def test_recovery_rate_of_a_window_is_that_of_the_process():
    rng = np.random.default_rng(2)
    series = relaxation(np.full(40_000, 1.3), rng)
    found = early_warning(series, step=0.1, window=3999.0 * 0.9, detrend="none", n_surrogates=20)
    # standard error of rho is sqrt((1 - rho^2) / n)
    rho = math.exp(-0.13)
    error = math.sqrt((1 - rho**2) / 35_000) / rho / 0.1
    assert abs(found.recovery_rate[0] - 1.3) < 4 * error
    assert abs(found.variance.values[0] - 1 / 2.6) < 4 / 2.6 * math.sqrt(2 * 15.3 / 35_000)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.3, 3.0])
def test_stationary_series_raise_the_alarm_as_rarely_as_stated(rate):
    n_series = 60
    alarms = 0
    for seed in range(n_series):
        series = relaxation(np.full(300, rate), np.random.default_rng(seed))
        found = early_warning(series, step=0.1, n_surrogates=40, false_alarm_rate=0.1, seed=seed)
        alarms += found.verdict == "rising"
    # at most the nominal rate, within three standard errors
    assert alarms / n_series <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / n_series)
    assert alarms > 0


@pytest.mark.slow
def test_a_series_that_drifts_to_a_fold_is_called_rising():
    warned = 0
    for seed in range(12):
        distance = np.linspace(1.0, 0.01, 1500)
        series = relaxation(2 * np.sqrt(distance), np.random.default_rng(seed), step=0.2)
        found = early_warning(series, step=0.2, n_surrogates=60, seed=seed)
        warned += found.verdict == "rising"
        assert found.variance.kendall_tau > 0
    assert warned >= 10


@pytest.mark.slow
def test_drifting_series_are_told_from_stationary_ones_well_above_chance():
    n_series, scores = 200, []
    for drifts in (True, False):
        rate = 2 * np.sqrt(np.linspace(1.0, 0.02, 500)) if drifts else np.full(500, 1.2)
        for seed in range(n_series):
            series = relaxation(rate, np.random.default_rng(2 * seed + drifts), step=0.2)
            found = early_warning(series, step=0.2, n_surrogates=40, false_alarm_rate=0.05)
            scores.append(found.p_value)
    drifting, stationary = np.reshape(scores, (2, n_series))
    less = (drifting[:, None] < stationary) + 0.5 * (drifting[:, None] == stationary)
    area = less.mean()
    # standard error of an area under the curve: Hanley & McNeil 1982
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = (area * (1 - area) + (n_series - 1) * (q1 + q2 - 2 * area**2)) / n_series**2
    assert area - 1.96 * math.sqrt(spread) > 0.75
    false = (stationary <= 0.05).mean()
    assert false <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / n_series)


@pytest.mark.slow
def test_an_oscillation_is_no_alarm_against_surrogates_of_its_spectrum():
    alarms = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        phase = np.cumsum(0.3 + 0.05 * rng.normal(size=400))
        found = early_warning(np.sin(phase) + 0.1 * rng.normal(size=400), surrogates="phase",
                              n_surrogates=60, seed=seed)  # fmt: skip
        alarms += found.verdict == "rising"
    assert alarms <= 0.05 * 40 + 3 * math.sqrt(0.05 * 0.95 * 40)


@pytest.mark.parametrize(("gamma", "kind"), [(0.5, "fold"), (1.0, "hopf")])
def test_exponent_of_exact_variances_is_exact(gamma, kind):
    parameter = np.linspace(-1.0, 0.2, 12)
    found = scaling_exponent(parameter, 0.7 * (0.25 - parameter) ** -gamma, n_resamples=40)
    assert found.critical_value == pytest.approx(0.25, abs=1e-6)
    assert found.exponent.value == pytest.approx(gamma, abs=1e-5)
    assert found.kind == kind
    mirrored = scaling_exponent(-parameter, 0.7 * (0.25 - parameter) ** -gamma, n_resamples=40)
    assert mirrored.critical_value == pytest.approx(-0.25, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("gamma", "kind"), [(0.5, "fold"), (1.0, "hopf")])
def test_exponent_of_noisy_recordings_is_never_called_the_other_kind(gamma, kind):
    right = wrong = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        parameter = 1 - np.geomspace(1.0, 0.01, 30)
        variance = (1 - parameter) ** -gamma * np.exp(0.08 * rng.normal(size=30))
        found = scaling_exponent(parameter, variance, n_resamples=100, seed=seed)
        right += found.kind == kind
        wrong += found.kind not in (kind, "undecided")
    assert wrong <= 2
    assert right >= 20


def test_recovery_rate_of_an_equilibrium_is_its_slowest_mode():
    system = LinearSystem(A=[[-0.5, 3.0], [0.0, -2.0]], B=[[1.0], [0.0]])
    assert recovery_rate(find_equilibria(system)[0]) == pytest.approx(0.5)


def test_series_that_cannot_be_read_are_refused():
    with pytest.raises(ArgumentError, match="finite numbers"):
        early_warning(np.array([1.0, np.nan] * 100))
    with pytest.raises(ArgumentError, match="too short, or constant"):
        early_warning(np.ones(500))
    with pytest.raises(ArgumentError, match="a window holds 495 of 500"):
        early_warning(np.random.default_rng(0).normal(size=500), window=495.0)
    with pytest.raises(ArgumentError, match="detrend must be one of"):
        early_warning(np.random.default_rng(0).normal(size=500), detrend="loess")
    with pytest.raises(ArgumentError, match="at least six"):
        scaling_exponent(np.arange(4.0), np.ones(4))
