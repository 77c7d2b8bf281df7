"""Codes: counts, first spikes and levels, read by counters, clocks and quantizers of B bits.

A code says how likely each symbol is for each class; the Bayes decoder takes the likeliest class of
a symbol, and its accuracy is the sum over symbols of the largest joint probability. Everything here
is exact for what it assumes: independent spikes or none of their noise, one spike of a leaky
integrate-and-fire neuron with Gaussian jitter, levels with Gaussian noise.
"""

import math
from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import norm, poisson

from clinode.errors import ArgumentError
from clinode.system import Values

MOST_BITS = 24


class Code(ABC):
    """Classes that are equally likely, and what a read-out of B bits shows of them."""

    @property
    @abstractmethod
    def n_classes(self) -> int:
        """How many classes there are."""

    @property
    @abstractmethod
    def seconds(self) -> float:
        """Time until a read-out is complete."""

    @property
    @abstractmethod
    def spikes(self) -> float:
        """Mean number of spikes of a read-out."""

    @abstractmethod
    def probabilities(self, bits: int) -> Float[np.ndarray, "class symbol"]:
        """Of each symbol given each class; rows sum to 1."""

    def accuracy(self, bits: int) -> float:
        """Share of right answers of the Bayes decoder.

        Raises:
            ArgumentError: bits is not from 1 to 24.
        """
        check_bits(bits)
        return float(self.probabilities(bits).max(axis=0).sum() / self.n_classes)

    def confusion(self, bits: int) -> Float[np.ndarray, "class taken_for"]:
        """How often the Bayes decoder takes each class for each other; rows sum to 1.

        Raises:
            ArgumentError: bits is not from 1 to 24.
        """
        check_bits(bits)
        shown = self.probabilities(bits)
        taken_for = shown.argmax(axis=0)
        told = np.zeros((self.n_classes, self.n_classes))
        np.add.at(told.T, taken_for, shown.T)
        return told


class _Count(Code):
    """Spikes of each class counted over a window."""

    def __init__(self, rates: Values, window: float):
        self.rates = distinct_levels("rates", rates)
        self.window = positive("window", window)

    @property
    def n_classes(self) -> int:
        """Rates."""
        return len(self.rates)

    @property
    def seconds(self) -> float:
        """The window."""
        return self.window

    @property
    def spikes(self) -> float:
        """Rate times window, mean over classes."""
        return float(self.rates.mean() * self.window)


class PoissonCount(_Count):
    """Spikes of a Poisson process counted over a window, by a counter that stays at its end.

    Args:
        rates: (class,), spikes a second, distinct and not negative.
        window: Seconds.

    Raises:
        ArgumentError: Fewer than two rates, rates that are negative or repeated, a window that is
            not positive.
    """

    def probabilities(self, bits: int) -> Float[np.ndarray, "class symbol"]:
        """Counts below 2^bits - 1, and that many or more."""
        means = self.rates[:, None] * self.window
        reach = means.max() + 12 * math.sqrt(means.max()) + 30  # 12 deviations: beyond, all is 0
        most = min(2**bits - 1, int(reach))
        counts = np.arange(most)
        return np.column_stack([poisson.pmf(counts, means), poisson.sf(most - 1, means)])

    def decode(self, counts: Values, bits: int) -> Int[np.ndarray, " window"]:
        """The likeliest class of each count, as a counter of so many bits shows it.

        Args:
            counts: (window,), whole numbers, not negative.
            bits: Of the counter, from 1 to 24.

        Raises:
            ArgumentError: bits is not from 1 to 24, or something is no count.
        """
        check_bits(bits)
        given = np.asarray(counts, dtype=np.float64).ravel()
        wrong = int((~((given >= 0) & (given == np.floor(given)))).sum())
        if wrong:
            raise ArgumentError(f"{wrong} counts are not whole numbers from 0")
        likeliest = self.probabilities(bits).argmax(axis=0)
        return likeliest[np.minimum(given, len(likeliest) - 1).astype(int)]


class RegularCount(_Count):
    """Spikes at equal intervals with a random phase, counted over a window.

    Args:
        rates: (class,), spikes a second, distinct and not negative.
        window: Seconds.

    Raises:
        ArgumentError: As for `PoissonCount`.
    """

    def probabilities(self, bits: int) -> Float[np.ndarray, "class symbol"]:
        """Two neighbouring counts a class; the counter stays at 2^bits - 1."""
        means = self.rates * self.window
        most = min(2**bits - 1, int(means.max()) + 2)
        shown = np.zeros((len(means), most + 1))
        low = np.floor(means).astype(int)
        for row, (count, rest) in enumerate(zip(low, means - low, strict=True)):
            shown[row, min(count, most)] += 1 - rest
            shown[row, min(count + 1, most)] += rest
        return shown


class FirstSpike(Code):
    """Latency of a leaky integrate-and-fire neuron's first spike, read by a clock.

    tau ln(x / (x - 1)) for a drive x, in units of the weakest that fires, with Gaussian jitter.
    The clock has 2^bits ticks over `t_max`, and its first and last hold what is outside.

    Args:
        drives: (class,), above 1, distinct.
        tau: Membrane time constant, seconds.
        jitter: Standard deviation of the latency, seconds.
        t_max: Seconds; None takes the longest latency of the classes.

    Raises:
        ArgumentError: A drive of 1 or less, repeated drives, times that are not positive.
    """

    def __init__(self, drives: Values, tau: float, jitter: float = 0.0, t_max: float | None = None):
        self.drives = distinct_levels("drives", drives)
        if (self.drives <= 1).any():
            raise ArgumentError(
                "a drive of 1 or less never fires",
                fix="give drives in units of the weakest that does",
            )
        self.tau = positive("tau", tau)
        if not (jitter >= 0 and math.isfinite(jitter)):
            raise ArgumentError(f"jitter must not be negative, got {jitter}")
        self.jitter = float(jitter)
        self.t_max = float(self.latencies.max()) if t_max is None else positive("t_max", t_max)

    @property
    def latencies(self) -> Float[np.ndarray, " class"]:
        """Of each class without jitter, seconds."""
        return self.tau * np.log(self.drives / (self.drives - 1))

    @property
    def n_classes(self) -> int:
        """Drives."""
        return len(self.drives)

    @property
    def seconds(self) -> float:
        """What the clock spans."""
        return self.t_max

    @property
    def spikes(self) -> float:
        """One."""
        return 1.0

    @property
    def separating_bits(self) -> int:
        """Bits at which a tick is no longer than the smallest gap between latencies.

        Then no two classes can share a tick wherever its edges fall; fewer bits may do by luck.
        """
        gap = np.diff(np.sort(self.latencies)).min()
        return max(1, math.ceil(math.log2(self.t_max / gap) - 1e-12))

    def probabilities(self, bits: int) -> Float[np.ndarray, "class symbol"]:
        """Of each tick."""
        n = 2**bits
        if self.jitter == 0:
            ticks = self._ticks(self.latencies, bits)
            used, place = np.unique(ticks, return_inverse=True)
            shown = np.zeros((self.n_classes, len(used)))
            shown[np.arange(self.n_classes), place] = 1.0
            return shown
        return _gaussian_bins(self.latencies, self.jitter, np.linspace(0, self.t_max, n + 1))

    def decode(self, latencies: Values, bits: int) -> Int[np.ndarray, " spike"]:
        """The likeliest class of each latency, as the clock of so many bits shows it.

        A spike that never came (NaN) is held by the last tick. Without jitter a tick of no class
        is taken for the nearest one.

        Args:
            latencies: (spike,), seconds.
            bits: Of the clock, from 1 to 24.

        Raises:
            ArgumentError: bits is not from 1 to 24.
        """
        check_bits(bits)
        times = np.asarray(latencies, dtype=np.float64).ravel()
        ticks = self._ticks(np.where(np.isnan(times), np.inf, times), bits)
        if self.jitter > 0:
            return self.probabilities(bits).argmax(axis=0)[ticks]
        return np.abs(self._ticks(self.latencies, bits) - ticks[:, None]).argmin(axis=1)

    def _ticks(self, times: Float[np.ndarray, " spike"], bits: int) -> Int[np.ndarray, " spike"]:
        n = 2**bits
        return np.minimum(np.clip(times / self.t_max, 0, 1) * n, n - 1).astype(int)


class NoisyLevels(Code):
    """Levels with Gaussian noise, read by a uniform quantizer over an interval.

    Args:
        levels: (class,), distinct.
        spread: Standard deviation of the noise, in the unit of the levels.
        interval: Of the quantizer; values beyond its ends fall into the first and last step.

    Raises:
        ArgumentError: Repeated levels, a spread that is not positive, an empty interval.
    """

    def __init__(self, levels: Values, spread: float, interval: tuple[float, float] = (0.0, 1.0)):
        self.levels = distinct_levels("levels", levels, negative=True)
        self.spread = positive("spread", spread)
        if not interval[0] < interval[1]:
            raise ArgumentError(f"the interval {interval} is empty")
        self.interval = interval

    @property
    def n_classes(self) -> int:
        """Levels."""
        return len(self.levels)

    @property
    def seconds(self) -> float:
        """None: levels are there at once."""
        return 0.0

    @property
    def spikes(self) -> float:
        """None."""
        return 0.0

    def probabilities(self, bits: int) -> Float[np.ndarray, "class symbol"]:
        """Of each step of the quantizer."""
        return _gaussian_bins(self.levels, self.spread, np.linspace(*self.interval, 2**bits + 1))


def _gaussian_bins(
    means: Float[np.ndarray, " class"], spread: float, edges: Float[np.ndarray, " edge"]
) -> Float[np.ndarray, "class symbol"]:
    """Mass between edges, the outermost moved to infinity; differences from the nearer tail."""
    inner = (edges[1:-1] - means[:, None]) / spread
    below, above = norm.cdf(inner), norm.sf(inner)
    ends = np.zeros((len(means), 1))
    below = np.hstack([ends, below, ends + 1])
    above = np.hstack([ends + 1, above, ends])
    left = below[:, 1:] < 0.5
    return np.where(left, np.diff(below), -np.diff(above))


def check_bits(bits: int, name: str = "bits") -> None:
    """Refuse a number of bits that is not from 1 to 24.

    Raises:
        ArgumentError: It is not.
    """
    if not 1 <= bits <= MOST_BITS:
        raise ArgumentError(f"{name} must lie from 1 to {MOST_BITS}, got {bits}")


def distinct_levels(
    name: str, values: Values, *, negative: bool = False
) -> Float[np.ndarray, " class"]:
    """Two or more distinct finite numbers.

    Raises:
        ArgumentError: They are not, or some are negative.
    """
    given = np.asarray(values, dtype=np.float64).ravel()
    if len(given) < 2 or len(np.unique(given)) < len(given) or not np.isfinite(given).all():
        raise ArgumentError(f"{name} must be two or more distinct finite numbers")
    if not negative and (given < 0).any():
        raise ArgumentError(f"{int((given < 0).sum())} {name} are negative")
    return given


def positive(name: str, value: float) -> float:
    """A positive finite number.

    Raises:
        ArgumentError: It is not.
    """
    if not (value > 0 and math.isfinite(value)):
        raise ArgumentError(f"{name} must be positive and finite, got {value}")
    return float(value)
