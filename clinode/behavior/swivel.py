"""Does a condition swivel the reciprobit line about its intercept, or shift it?

A change of prior or urgency moves LATER's start or threshold: the line turns about its intercept
k = mu / sigma at infinite time. A change of the evidence moves the mean rate alone: the line is
shifted, with sigma unchanged (Carpenter & Williams 1995; Reddi & Carpenter 2000, Nat. Neurosci.
3:827-830).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import chi2
from torch import Tensor

from clinode.behavior.fit import Trials, maximise
from clinode.behavior.later import LATER
from clinode.errors import ArgumentError
from clinode.system import Values

FORMS = ("free", "swivel", "shift")
REJECTED = 0.05


@dataclass(frozen=True, eq=False)
class SwivelOrShift:
    """Two ways for conditions to differ, against each condition by itself.

    Attributes:
        preferred: "swivel" or "shift", the likelier; both have as many parameters.
        accepted: Whether the preferred one is no worse than free parameters (p of at least .05).
        log_likelihoods: Of "free", "swivel" and "shift".
        ratios: Of each form against free parameters, twice the difference of log likelihoods.
        p_values: Of these ratios, with one degree of freedom less than there are conditions.
        parameters: One row a form and condition: mean, spread, early_spread, intercept.
        n_trials: How many.
    """

    preferred: str
    accepted: bool
    log_likelihoods: dict[str, float]
    ratios: dict[str, float]
    p_values: dict[str, float]
    parameters: pd.DataFrame
    n_trials: int

    def to_pandas(self) -> pd.DataFrame:
        """The parameters."""
        return self.parameters.copy()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        told = {name: value for name, value in vars(self).items() if name != "parameters"}
        return {**told, "parameters": self.parameters.to_dict("records")}


def swivel_or_shift(
    latency_seconds: Values, condition: Sequence[Any], *, seed: int = 0
) -> SwivelOrShift:
    """Fit LATER, with an early component, in three forms and compare them.

    Free: mean, spread and early spread of each condition. Swivel: one intercept mean / spread for
    all. Shift: one spread for all.

    Args:
        latency_seconds: (trial,), of correct responses.
        condition: (trial,).
        seed: Of the starts of the search.

    Raises:
        ArgumentError: Times that cannot be seconds, one condition only, fewer than ten trials of
            one.
    """
    trials = Trials.read(latency_seconds, condition=condition)
    n = len(trials.conditions)
    counts = torch.bincount(trials.condition, minlength=n)
    if n < 2 or int(counts.min()) < 10:
        raise ArgumentError(
            f"{n} conditions with {int(counts.min())} trials or more: two conditions of ten trials "
            "are needed"
        )
    rate = 1 / trials.rt
    middle = [float(rate[trials.condition == k].median()) for k in range(n)]
    wide = [float(rate[trials.condition == k].std()) for k in range(n)]
    different, often = trials.counted()
    scores, rows = {}, []
    for form in FORMS:
        start = np.concatenate([np.log(middle), _started(form, middle, wide), np.log(wide) + 0.7])

        def parts(x: Tensor, form: str = form) -> tuple[Tensor, Tensor, Tensor]:
            mean, early = x[:n].exp(), x[-n:].exp()
            between = x[n:-n].exp()
            spread = mean / between if form == "swivel" else between.expand(n)
            return mean, spread, early

        def log_likelihood(x: Tensor, parts=parts) -> Tensor:
            mean, spread, early = (own[different.condition] for own in parts(x))
            return (often * LATER(mean, spread, early).log_prob(different.rt)).sum()

        found = torch.from_numpy(maximise(log_likelihood, start, seed=seed, where="LATER"))
        scores[form] = float(log_likelihood(found))
        shown = (part.tolist() for part in parts(found))
        for name, mean, spread, early in zip(trials.conditions, *shown, strict=True):
            rows.append((form, name, mean, spread, early, mean / spread))
    ratios = {form: max(0.0, 2 * (scores["free"] - scores[form])) for form in FORMS[1:]}
    p_values = {form: float(chi2.sf(ratio, n - 1)) for form, ratio in ratios.items()}
    preferred = max(FORMS[1:], key=lambda form: scores[form])
    columns = ["form", "condition", "mean", "spread", "early_spread", "intercept"]
    return SwivelOrShift(
        preferred=preferred,
        accepted=p_values[preferred] >= REJECTED,
        log_likelihoods=scores,
        ratios=ratios,
        p_values=p_values,
        parameters=pd.DataFrame(rows, columns=columns),
        n_trials=len(trials),
    )


def _started(form: str, middle: list[float], wide: list[float]) -> np.ndarray:
    """Logarithms of the spreads of all conditions, of one intercept, or of one spread."""
    if form == "free":
        return np.log(wide)
    shared = np.divide(middle, wide) if form == "swivel" else np.array(wide)
    return np.log([np.median(shared)])
