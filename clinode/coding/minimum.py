"""The fewest bits, and the shortest window, at which a code is accurate enough."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from clinode.errors import ArgumentError
from clinode.system import Values

from .codes import MOST_BITS, Code, PoissonCount, check_bits, distinct_levels


@dataclass(frozen=True)
class MinimumBits:
    """The fewest bits that reach an accuracy.

    Attributes:
        bits: None where none up to the last tried does.
        accuracies: By number of bits, up to that one.
        target: The accuracy asked for.
        limit: Accuracy of the most bits tried, which no number of bits exceeds by much.
        is_monotone: Whether more bits never did worse on the way. The codes of this module halve
            their steps, so they cannot; one of your own, whose edges move, may.
        seconds, spikes: Cost of a read-out.
        verdict: "ok", or why there is no number.
    """

    bits: int | None
    accuracies: dict[int, float]
    target: float
    limit: float
    is_monotone: bool
    seconds: float
    spikes: float
    verdict: str

    def to_pandas(self) -> pd.DataFrame:
        """One row a number of bits: bits, accuracy."""
        return pd.DataFrame({"bits": list(self.accuracies), "accuracy": self.accuracies.values()})

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "accuracies": {str(b): a for b, a in self.accuracies.items()}}


def minimum_bits(code: Code, accuracy: float, *, most_bits: int = 16) -> MinimumBits:
    """The fewest bits of a counter, clock or quantizer at which the Bayes decoder is that accurate.

    Args:
        code: What is read.
        accuracy: Share of right answers, above chance and at most 1.
        most_bits: Where to stop.

    Raises:
        ArgumentError: An accuracy that is not above chance, or above 1; most_bits not 1 to 24.

    Example:
        >>> from clinode.coding import NoisyLevels
        >>> minimum_bits(NoisyLevels([(k + 0.5) / 10 for k in range(10)], 0.02), 0.95).bits
        5
    """
    chance = 1 / code.n_classes
    if not chance < accuracy <= 1:
        raise ArgumentError(
            f"accuracy must lie above chance, {chance:.3g}, and be at most 1; got {accuracy}"
        )
    check_bits(most_bits, "most_bits")
    accuracies: dict[int, float] = {}
    fewest = None
    for bits in range(1, most_bits + 1):
        accuracies[bits] = code.accuracy(bits)
        if accuracies[bits] >= accuracy - 1e-12:
            fewest = bits
            break
    limit = code.accuracy(most_bits)
    steps = np.diff(list(accuracies.values()))
    verdict = "ok"
    if fewest is None:
        verdict = f"unreachable: {most_bits} bits are right in {limit:.4f} of the cases"
    return MinimumBits(
        bits=fewest,
        accuracies=accuracies,
        target=float(accuracy),
        limit=limit,
        is_monotone=bool((steps >= -1e-12).all()),
        seconds=code.seconds,
        spikes=code.spikes,
        verdict=verdict,
    )


def minimum_window(rates: Values, accuracy: float, *, most_seconds: float = 1e4) -> float:
    """Seconds of counting Poisson spikes, with as many bits as it takes, that reach an accuracy.

    Args:
        rates: (class,), spikes a second.
        accuracy: Share of right answers of the Bayes decoder.
        most_seconds: Where to stop.

    Raises:
        ArgumentError: An accuracy that is not between chance and 1, or not reached by then.

    Example:
        >>> round(minimum_window([20.0, 40.0], 0.9), 3)
        0.476
    """
    known = distinct_levels("rates", rates)
    if not 1 / len(known) < accuracy < 1:
        raise ArgumentError(f"accuracy must lie between chance and 1, got {accuracy}")

    def short_of(seconds: float) -> float:
        return PoissonCount(known, seconds).accuracy(MOST_BITS) - accuracy

    end = 1 / known.max()
    while short_of(end) < 0:
        end *= 2
        if end > most_seconds:
            raise ArgumentError(
                f"the accuracy is not reached within {most_seconds:g} s", fix="ask for less of it"
            )
    start = end / 4 if short_of(end / 4) < 0 else 1e-9
    return float(np.asarray(brentq(short_of, start, end, xtol=1e-9)))
