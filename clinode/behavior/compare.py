"""Which of several fitted models, if any: information criteria, and checks that can reject all.

The best of a set may still be wrong. Each fit is therefore also asked whether its own distribution
could have given these trials.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2

from clinode.behavior.fit import Fit
from clinode.errors import ArgumentError

N_BINS = 10  # of equal probability, for each response in each condition
FEWEST_EXPECTED = 5.0  # trials of a bin: below, chi-squared is no law of what is counted
REJECTED = 0.001  # p-value


@dataclass(frozen=True)
class PredictiveCheck:
    """Counts of trials in bins that the model says are equally likely.

    Attributes:
        statistic: Pearson's chi-squared, summed over conditions and responses.
        freedom: Bins less one for each condition. Parameters were fitted to the same trials, so the
            test is careful: it rejects a true model less often than its p-value says.
        p_value: Of a larger statistic under the model.
    """

    statistic: float
    freedom: int
    p_value: float

    @property
    def is_rejected(self) -> bool:
        """Whether such counts have a probability below one in a thousand."""
        return self.p_value < REJECTED


@dataclass(frozen=True, eq=False)
class DecisionComparison:
    """Models of the same trials, compared.

    Attributes:
        fits: By name.
        checks: By name.
        preferred: The lowest BIC among the models that are not rejected; None where all are.
        verdict: In words.
    """

    fits: dict[str, Fit]
    checks: dict[str, PredictiveCheck]
    preferred: str | None
    verdict: str

    def to_pandas(self) -> pd.DataFrame:
        """One row a model, the lowest BIC first."""
        lowest = min(one.bic for one in self.fits.values())
        rows = [
            {
                "model": name,
                "log_likelihood": one.log_likelihood,
                "n_parameters": one.n_parameters,
                "aic": one.aic,
                "bic": one.bic,
                "bic_above_best": one.bic - lowest,
                "p_value": self.checks[name].p_value,
                "is_rejected": self.checks[name].is_rejected,
            }
            for name, one in self.fits.items()
        ]
        return pd.DataFrame(rows).sort_values("bic", ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "models": self.to_pandas().to_dict("records"),
            "preferred": self.preferred,
            "verdict": self.verdict,
        }


def compare(fits: Mapping[str, Fit]) -> DecisionComparison:
    """Compare fits of the same trials.

    Raises:
        ArgumentError: No fits, or fits of different trials.
    """
    if not fits:
        raise ArgumentError("there is nothing to compare")
    first = next(iter(fits.values())).trials
    for one in fits.values():
        if len(one.trials) != len(first) or bool((one.trials.rt != first.rt).any()):
            raise ArgumentError(
                "the fits are of different trials, so their likelihoods do not compare"
            )
    checks = {name: predictive_check(one) for name, one in fits.items()}
    accepted = [name for name in fits if not checks[name].is_rejected]
    preferred = min(accepted, key=lambda name: fits[name].bic) if accepted else None
    verdict = (
        f"{preferred} is preferred among {len(accepted)} models that could have given these trials"
        if preferred
        else "none of the models could have given these trials"
    )
    return DecisionComparison(dict(fits), checks, preferred, verdict)


def held_out_log_likelihood(fitted: Fit, other: Fit) -> float:
    """Log likelihood of the trials behind `other` under the parameters of `fitted`, nats a trial.

    Raises:
        ArgumentError: The two have other conditions.
    """
    if fitted.trials.conditions != other.trials.conditions:
        raise ArgumentError("the two fits have other conditions, or in another order")
    trials, total = other.trials, 0.0
    for k, name in enumerate(trials.conditions):
        own = (trials.condition == k) & (trials.rt < math.inf)
        total += float(fitted.of(name).log_prob(trials.rt[own], trials.choice[own]).sum())
        late = int(((trials.condition == k) & (trials.rt == math.inf)).sum())
        if late and trials.deadline is not None:
            total += late * float(fitted.of(name).log_survival(trials.deadline))
    return total / len(trials)


def predictive_check(fitted: Fit) -> PredictiveCheck:
    """Whether the fitted distribution could have given its trials.

    Contaminants, where fitted, are counted as uniform over the times seen. Trials without a
    response are one bin of a condition. Neighbouring bins with few expected trials are joined.

    Raises:
        ArgumentError: Fewer trials than one bin needs.
    """
    trials = fitted.trials
    statistic, freedom = 0.0, 0
    for k, name in enumerate(trials.conditions):
        own = trials.condition == k
        counts, expected = _binned(fitted, name, trials.rt[own], trials.choice[own])
        counts, expected = _joined(counts, expected)
        statistic += float(((counts - expected) ** 2 / expected).sum())
        freedom += len(counts) - 1
    if freedom < 1:
        raise ArgumentError("there are too few trials for a check of the model")
    return PredictiveCheck(statistic, freedom, float(chi2.sf(statistic, freedom)))


def _binned(fitted: Fit, name: str, rt, choice) -> tuple[np.ndarray, np.ndarray]:
    """Trials counted and expected, by response and equally likely bins of its times."""
    model, share = fitted.of(name), fitted.contaminants
    answered = rt < math.inf
    fastest, slowest = float(rt[answered].min()), float(rt[answered].max())
    end = math.inf if fitted.trials.deadline is None else fitted.trials.deadline
    counts, expected = [], []
    responses = (1.0, 0.0)[: fitted.model.n_responses]
    for response in responses:
        weight = 1 / len(responses)

        def mixed(t, response=response, weight=weight):
            uniform = np.clip((t - fastest) / (slowest - fastest), 0, 1) * weight
            return (1 - share) * model.cdf(t, response).numpy() + share * uniform

        whole = float(mixed(np.array(end)))
        own = answered & (choice == response)
        place = np.asarray(mixed(rt[own].numpy())) / whole
        bins = np.clip((place * N_BINS).astype(int), 0, N_BINS - 1)
        counts.extend(np.bincount(bins, minlength=N_BINS))
        expected.extend([whole * len(rt) / N_BINS] * N_BINS)
    left = len(rt) - sum(expected)
    counts.append(int((~answered).sum()))
    expected.append(max(left, 0.0))
    return np.array(counts, dtype=float), np.array(expected)


def _joined(counts: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours added up until each bin expects enough."""
    held, groups = [0.0, 0.0], []
    for count, mean in zip(counts, expected, strict=True):
        held = [held[0] + count, held[1] + mean]
        if held[1] >= FEWEST_EXPECTED:
            groups.append(held)
            held = [0.0, 0.0]
    if groups:
        groups[-1] = [groups[-1][0] + held[0], groups[-1][1] + held[1]]
    return np.array([g[0] for g in groups]), np.array([g[1] for g in groups])
