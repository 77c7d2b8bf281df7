"""Every pair of several RDMs compared, with intervals over the stimuli."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from clinode.errors import ArgumentError
from clinode.statistics import Estimate, percentile_interval

from .ceiling import drawn_stimuli, likeness_or_nan
from .compare import Comparison, check_same_stimuli, compare
from .rdm import RDM


@dataclass(frozen=True)
class PairwiseComparisons:
    """How alike each two of several RDMs are.

    Attributes:
        comparisons: By pair of names.
        intervals: By pair of names: the likeness again, with its interval over new stimuli.
        method: Of comparison.
        n_stimuli: How many.
    """

    comparisons: dict[tuple[str, str], Comparison]
    intervals: dict[tuple[str, str], Estimate]
    method: str
    n_stimuli: int

    def to_pandas(self) -> pd.DataFrame:
        """One row a pair: first, second, likeness, low, high, verdict, n_pairs, n_left_out."""
        return pd.DataFrame(
            [
                {
                    "first": first,
                    "second": second,
                    "likeness": one.value,
                    "low": one.low,
                    "high": one.high,
                    "verdict": one.verdict,
                    "n_pairs": self.comparisons[first, second].n_pairs,
                    "n_left_out": self.comparisons[first, second].n_left_out,
                }
                for (first, second), one in self.intervals.items()
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "method": self.method,
            "n_stimuli": self.n_stimuli,
            "comparisons": [
                {
                    "first": first,
                    "second": second,
                    **one.to_dict(),
                    "n_pairs": self.comparisons[first, second].n_pairs,
                    "n_left_out": self.comparisons[first, second].n_left_out,
                }
                for (first, second), one in self.intervals.items()
            ],
        }


def compare_pairs(
    rdms: Mapping[str, RDM], method: str = "cosine", *, n_resamples: int = 1000, seed: int = 0
) -> PairwiseComparisons:
    """Compare each two of several RDMs, stimuli drawn again for the intervals.

    As in `rank_models`, a stimulus drawn twice makes no pair with itself. A resample that leaves
    two RDMs fewer than three pairs in common tells nothing of them and is not counted.

    Args:
        rdms: Two or more of the same stimuli, by name.
        method: As in `compare`.
        n_resamples: How many resamples.
        seed: Of their random numbers.

    Raises:
        ArgumentError: Fewer than two RDMs, other stimuli, an unknown method, no resample.

    Example:
        >>> from clinode.similarity import rdm
        >>> one = rdm([[0.0], [1.0], [3.0], [7.0]])
        >>> found = compare_pairs({"one": one, "same": one}, n_resamples=20)
        >>> round(found.intervals["one", "same"].value, 6)
        1.0
    """
    if len(rdms) < 2 or n_resamples < 1:
        raise ArgumentError("there must be two RDMs, and at least one resample")
    pairs = list(combinations(rdms, 2))
    for first, second in pairs:
        check_same_stimuli(rdms[first], rdms[second])
    whole = {pair: compare(rdms[pair[0]], rdms[pair[1]], method) for pair in pairs}
    squares = {name: one.matrix for name, one in rdms.items()}
    n, draw = next(iter(rdms.values())).n_stimuli, np.random.default_rng(seed)
    resampled = np.empty((n_resamples, len(pairs)))
    for row in resampled:
        stimuli = draw.integers(n, size=n)
        drawn = {name: drawn_stimuli(square, stimuli) for name, square in squares.items()}
        for k, (first, second) in enumerate(pairs):
            row[k] = likeness_or_nan(drawn[first], drawn[second], method)
    intervals = {
        pair: percentile_interval(
            whole[pair].value, resampled[:, k], why="an RDM is constant or has too few pairs"
        )
        for k, pair in enumerate(pairs)
    }
    return PairwiseComparisons(whole, intervals, method, n)
