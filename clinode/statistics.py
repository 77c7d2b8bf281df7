"""Estimates with their uncertainty: bootstrap over subjects, permutation tests, false discoveries.

Written once, used by every room. A number leaves here as an `Estimate`, with its interval and a
verdict; where a statistic has no value ("no positives"), that is the answer, not an error.

What is resampled is the unit that varies independently: a subject with all its rows, or a group of
subjects, never a row. Everything compared is computed on the same resamples.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int, Shaped

from clinode.errors import ArgumentError

ROW_WEIGHTS_AT_ONCE = 2**22  # 32 MiB of weights at a time, however many rows there are
MOST_UNDEFINED = 0.01  # share of resamples without a value above which there is no interval

Weights = Float[np.ndarray, "resample row"]
WeightedStatistic = Callable[[Weights], Float[np.ndarray, " resample"]]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Args:
        value: On the whole sample; NaN where undefined.
        low: Lower end of the interval; NaN where there is none.
        high: Upper end.
        verdict: "ok"; "undefined: why" where there is no value; "no interval: why" where there is
            a value without one.
    """

    value: float
    low: float
    high: float
    verdict: str = "ok"

    @staticmethod
    def undefined(why: str) -> "Estimate":
        """No number, and the reason."""
        return Estimate(math.nan, math.nan, math.nan, f"undefined: {why}")

    @property
    def is_defined(self) -> bool:
        """Whether there is a value."""
        return not math.isnan(self.value)

    def to_dict(self) -> dict[str, float | str | None]:
        """For JSON: None where a number is not finite."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        finite = {name: float(x) if math.isfinite(x) else None for name, x in numbers.items()}
        return {**finite, "verdict": self.verdict}


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Several statistics on the whole sample and on the same resamples of it; see `bootstrap`.

    Args:
        value: Each statistic on the sample as it is.
        resampled: Each statistic on every resample, in one order for all.
    """

    value: dict[str, float]
    resampled: dict[str, Float[np.ndarray, " resample"]]

    def estimate(
        self, name: str, *, level: float = 0.95, why: str = "it has no value on this sample"
    ) -> Estimate:
        """One statistic with its percentile interval.

        Args:
            name: Which statistic.
            level: Share of the resamples inside the interval.
            why: What to say where the statistic is undefined.
        """
        return percentile_interval(self.value[name], self.resampled[name], level=level, why=why)

    def difference(
        self,
        name: str,
        reference: str,
        *,
        level: float = 0.95,
        why: str = "one of the two has no value on this sample",
    ) -> Estimate:
        """Statistic `name` minus statistic `reference`, subtracted within each resample."""
        resampled = self.resampled[name] - self.resampled[reference]
        value = self.value[name] - self.value[reference]
        return percentile_interval(value, resampled, level=level, why=why)


def bootstrap(
    statistics: Mapping[str, WeightedStatistic],
    units: Shaped[np.ndarray, " row"],
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Bootstrap:
    """Several statistics on the same bootstrap resamples of independent units.

    A resample draws as many units as there are, with replacement; all rows of a unit drawn twice
    have weight 2. A statistic answers many resamples at once, from the weights alone, so that what
    is sorted once serves all of them.

    Args:
        statistics: By name, functions of the weights (resample, row) that give one value a
            resample; NaN where a resample has none (one class only, say).
        units: For each row the unit it belongs to, a subject or a group of subjects.
        n_resamples: How many resamples.
        seed: Of their random numbers. The same seed and units give the same resamples, so results
            of two calls are paired too.

    Raises:
        ArgumentError: `n_resamples` is not positive.

    Example:
        >>> score = np.array([0.0, 1.0, 2.0, 3.0])
        >>> mean = bootstrap({"mean": lambda w: w @ score / w.sum(1)}, np.arange(4))
        >>> mean.estimate("mean")
        Estimate(value=1.5, low=0.5, high=2.5, verdict='ok')
    """
    _check_positive("n_resamples", n_resamples)
    if not len(units):
        none = np.full(n_resamples, np.nan)
        return Bootstrap(
            value=dict.fromkeys(statistics, math.nan), resampled=dict.fromkeys(statistics, none)
        )
    _, position = np.unique(units, return_inverse=True)
    whole = np.ones((1, len(units)))
    value = {name: float(statistic(whole)[0]) for name, statistic in statistics.items()}
    parts: dict[str, list[Float[np.ndarray, " resample"]]] = {name: [] for name in statistics}
    for counts in _blocks_of_counts(int(position.max()) + 1, len(units), n_resamples, seed):
        weights = counts[:, position].astype(np.float64)
        for name, statistic in statistics.items():
            parts[name].append(statistic(weights))
    return Bootstrap(value=value, resampled={n: np.concatenate(p) for n, p in parts.items()})


def bootstrap_interval(
    statistic: Callable[[Int[np.ndarray, " drawn"]], float],
    n_units: int,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    why: str = "it has no value on this sample",
) -> Estimate:
    """Percentile interval of any statistic of a sample of units; for a few cheap statistics.

    `bootstrap` is faster where a statistic can be had from weights, and draws the same resamples
    for the same seed.

    Args:
        statistic: Function of the positions of the units drawn, sorted, repeated where drawn twice.
        n_units: How many units there are.
        n_resamples: How many resamples.
        seed: Of their random numbers.
        level: Share of the resamples inside the interval.
        why: What to say where the statistic is undefined.

    Raises:
        ArgumentError: `n_resamples` is not positive or `level` is not inside (0, 1).
    """
    _check_positive("n_resamples", n_resamples)
    if n_units == 0:
        return Estimate.undefined("there is nothing in the sample")
    every = np.arange(n_units)
    resampled = [
        statistic(np.repeat(every, count))
        for counts in _blocks_of_counts(n_units, n_units, n_resamples, seed)
        for count in counts
    ]
    return percentile_interval(
        float(statistic(every)), np.array(resampled, dtype=np.float64), level=level, why=why
    )


def percentile_interval(
    value: float,
    resampled: Float[np.ndarray, " resample"],
    *,
    level: float = 0.95,
    why: str = "it has no value on this sample",
) -> Estimate:
    """A value with the central interval of its resamples.

    Resamples without a finite value are left out; where they are more than one in a hundred, the
    rest no longer stands for the sample, and there is no interval.

    Raises:
        ArgumentError: `level` is not inside (0, 1).
    """
    if not 0 < level < 1:
        raise ArgumentError(f"level must be between 0 and 1, got {level}")
    if not math.isfinite(value):
        return Estimate.undefined(why)
    finite = resampled[np.isfinite(resampled)]
    n_undefined = len(resampled) - len(finite)
    if n_undefined > MOST_UNDEFINED * len(resampled):
        reason = f"no interval: undefined on {n_undefined} of {len(resampled)} resamples"
        return Estimate(value, math.nan, math.nan, reason)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high))


@dataclass(frozen=True)
class PermutationTest:
    """The statistic as observed, and how often chance alone gives one as extreme."""

    value: float
    p_value: float
    n_permutations: int

    def to_dict(self) -> dict[str, float | int | None]:
        """For JSON: None where a number is NaN."""
        p_value = None if math.isnan(self.p_value) else self.p_value
        value = None if math.isnan(self.value) else self.value
        return {"value": value, "p_value": p_value, "n_permutations": self.n_permutations}


def permutation_test(
    statistic: Callable[[Int[np.ndarray, " unit"]], float],
    n_units: int,
    *,
    n_permutations: int = 9999,
    seed: int = 0,
    alternative: str = "two-sided",
) -> PermutationTest:
    """Whether a statistic depends on which unit is paired with which.

    The observed order counts as one of the permutations, so the p-value is never 0 and the test is
    exact (Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39). Two-sided is twice the smaller
    tail.

    Args:
        statistic: Function of an order of the units, `lambda order: corr(x[order], y)` say; the
            observed order is 0, 1, 2, ...
        n_units: How many units are exchanged.
        n_permutations: How many random orders.
        seed: Of their random numbers.
        alternative: "greater", "less" or "two-sided": where extreme values lie.

    Returns:
        The p-value is NaN where the statistic is undefined in any order.

    Raises:
        ArgumentError: An unknown alternative, or `n_permutations` is not positive.
    """
    _check_positive("n_permutations", n_permutations)
    generator = np.random.default_rng(seed)
    value = float(statistic(np.arange(n_units)))
    permuted = np.array([statistic(generator.permutation(n_units)) for _ in range(n_permutations)])
    if math.isnan(value) or np.isnan(permuted).any():
        return PermutationTest(value, math.nan, n_permutations)
    margin = 1e-14 * abs(value)  # orders that give the same value must tie in spite of rounding
    tails = {
        "greater": (1 + int((permuted >= value - margin).sum())) / (1 + n_permutations),
        "less": (1 + int((permuted <= value + margin).sum())) / (1 + n_permutations),
    }
    tails["two-sided"] = min(1.0, 2 * min(tails.values()))
    if alternative not in tails:
        raise ArgumentError(
            f"alternative must be 'greater', 'less' or 'two-sided', got {alternative!r}"
        )
    return PermutationTest(value, tails[alternative], n_permutations)


def benjamini_hochberg(p_values: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Adjusted p-values: calling those below q true keeps the false discovery rate at most q.

    Benjamini & Hochberg 1995, J. R. Stat. Soc. B 57:289-300; for independent or positively
    dependent tests. A NaN stays one and does not count as a test.

    Raises:
        ArgumentError: A p-value outside [0, 1].

    Example:
        >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03]))
        array([0.03, 0.04, 0.04])
    """
    tested = np.flatnonzero(~np.isnan(p_values))
    p = p_values[tested]
    if ((p < 0) | (p > 1)).any():
        raise ArgumentError("p-values must lie between 0 and 1")
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.full(len(p_values), np.nan)
    adjusted[tested[order]] = np.minimum.accumulate(scaled[::-1])[::-1]
    return adjusted


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion, `successes` of `n`; (0, 1) where n is 0 and nothing is known.

    Wilson 1927, J. Am. Stat. Assoc. 22:209-212; it holds for small counts and near 0 and 1.

    Raises:
        ArgumentError: Not 0 <= successes <= n, or `level` is not inside (0, 1).

    Example:
        >>> low, high = wilson_interval(1, 10)
        >>> print(f"{low:.4f} {high:.4f}")
        0.0179 0.4042
    """
    if not 0 <= successes <= n:
        raise ArgumentError(f"successes must lie between 0 and {n}, got {successes}")
    if not 0 < level < 1:
        raise ArgumentError(f"level must be between 0 and 1, got {level}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low = 0.0 if successes == 0 else center - half  # exactly, whatever the rounding
    high = 1.0 if successes == n else center + half
    return low, high


def _blocks_of_counts(
    n_units: int, n_rows: int, n_resamples: int, seed: int
) -> Iterator[Int[np.ndarray, "resample unit"]]:
    """How often each unit is drawn; some resamples at a time, which does not change the draws."""
    generator = np.random.default_rng(seed)
    at_once = max(1, ROW_WEIGHTS_AT_ONCE // n_rows)
    for start in range(0, n_resamples, at_once):
        n = min(at_once, n_resamples - start)
        counts = np.empty((n, n_units), dtype=np.int64)
        for row in counts:
            row[:] = np.bincount(generator.integers(n_units, size=n_units), minlength=n_units)
        yield counts


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ArgumentError(f"{name} must be at least 1, got {value}")
