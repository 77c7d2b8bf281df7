"""Whether several attribution methods name the same events: told pair by pair, never averaged."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from clinode.attribution.checks.asked import Asked
from clinode.attribution.checks.pairs import over_subjects, side_by_side
from clinode.attribution.methods import check_method
from clinode.cohort import Cohort
from clinode.errors import ArgumentError
from clinode.statistics import Estimate
from clinode.training import Ensemble, Run

COMPARED = ("integrated_gradients", "input_x_gradient", "saliency", "event_deletion")
"""Methods that are cheap and ask different things."""

NAMED_BY_BOTH = 0.5  # of the largest events, below which two methods are said to disagree
_WHY = "no subject has three events with a map by both methods"


@dataclass(frozen=True)
class MethodAgreement:
    """How far each pair of methods agrees, over subjects.

    Args:
        pairs: By the two methods: "feature", "sign", "rank" and "signed rank", the shares of the
            `top` largest events that both name (with the same sign, at the same rank); "chance",
            what two random orders would name; "rank correlation", Spearman's of all sizes.
        top: How many of the largest events are looked at.
        verdict: In words; it names the pairs that disagree.
    """

    pairs: dict[tuple[str, str], dict[str, Estimate]]
    top: int
    verdict: str

    name = "method agreement"

    def estimates(self) -> dict[str, Estimate]:
        """Of each pair, each of its numbers."""
        return {
            f"{first} / {second}: {what}": estimate
            for (first, second), found in self.pairs.items()
            for what, estimate in found.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words, one record a pair."""
        return {
            "top": self.top,
            "verdict": self.verdict,
            "pairs": [
                {
                    "methods": list(pair),
                    **{what: estimate.to_dict() for what, estimate in found.items()},
                }
                for pair, found in self.pairs.items()
            ],
        }


def method_agreement(
    run: Run | Ensemble,
    cohort: Cohort,
    asked: Asked | None = None,
    *,
    methods: Sequence[str] = COMPARED,
    top: int = 5,
    n_resamples: int = 1000,
    seed: int = 0,
) -> MethodAgreement:
    """Compare what methods say of the same subjects (Krishna et al. 2022).

    A slope ("saliency") answers another question than a share of the output; that it names other
    events is no fault of either, and is shown all the same.

    Args:
        run: Whose output is explained.
        cohort: Whose subjects.
        asked: Baseline and output; its own method does not count.
        methods: At least two.
        top: How many of the largest events are compared.
        n_resamples: Bootstrap resamples of subjects.
        seed: Of their random numbers.

    Raises:
        ArgumentError: Fewer than two methods, an unknown one, or `top` below 1.
    """
    asked = Asked() if asked is None else asked
    methods = tuple(dict.fromkeys(methods))
    if len(methods) < 2:
        raise ArgumentError("at least two different methods are compared")
    if top < 1:
        raise ArgumentError(f"top must be at least 1, got {top}")
    for method in methods:
        check_method(method)
    questions = [asked.by(method) for method in methods]
    found = {question.method: question.of(run, cohort) for question in questions}
    pairs = {}
    for pair in combinations(methods, 2):
        both = side_by_side(found[pair[0]], found[pair[1]])
        columns = {**both.top(top), "rank correlation": both.rank_correlation()}
        drawn = over_subjects(columns, n_resamples=n_resamples, seed=seed)
        pairs[pair] = {name: drawn.estimate(name, why=_WHY) for name in columns}
    return MethodAgreement(pairs, top, _verdict(pairs, top))


def _verdict(pairs: dict[tuple[str, str], dict[str, Estimate]], top: int) -> str:
    shares = {pair: found["feature"] for pair, found in pairs.items()}
    if not all(share.is_defined for share in shares.values()):
        return f"undecided: {_WHY}"
    apart = [pair for pair, share in shares.items() if share.value < NAMED_BY_BOTH]
    if not apart:
        least = float(np.min([share.value for share in shares.values()]))
        return f"passed: every two methods share at least {100 * least:.0f} % of the {top} largest"
    told = ", ".join(
        f"{first} and {second} {100 * shares[first, second].value:.0f} %" for first, second in apart
    )
    return f"doubtful: of the {top} largest events share {told}"
