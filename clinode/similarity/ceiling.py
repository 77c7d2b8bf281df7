"""How well any model could do, and which model does best: inference on RDMs of several subjects.

A model cannot be expected to agree with a subject better than the other subjects do. Intervals come
from resampling stimuli, subjects or both: a claim about new stimuli needs the first, about new
subjects the second (Nili et al. 2014, PLoS Comput. Biol. 10:e1003553; Schuett et al. 2023, eLife
12:e82566).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import rankdata

from clinode.errors import ArgumentError
from clinode.statistics import Estimate, benjamini_hochberg, percentile_interval

from .compare import FEWEST_PAIRS, MEASURES, check_same_stimuli, compare
from .rdm import RDM

RANKED = ("spearman", "rho-a", "tau-a")


@dataclass(frozen=True)
class NoiseCeiling:
    """Bounds on the mean likeness to the subjects that the best model could reach.

    Attributes:
        lower: Mean likeness of each subject to the average of the others.
        upper: Mean likeness of each subject to the average of all, itself among them.
        method: Of comparison.
        n_subjects: How many.
    """

    lower: float
    upper: float
    method: str
    n_subjects: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


def noise_ceiling(subjects: Sequence[RDM], method: str = "cosine") -> NoiseCeiling:
    """Between which bounds the best model lies.

    The average is of RDMs brought to one scale: by size for cosines, by size and mean for
    correlations, by rank for rank measures. For "tau-a" it is not the very best, so the upper
    bound may be passed by little.

    Args:
        subjects: Of the same stimuli.
        method: As in `compare`.

    Raises:
        ArgumentError: Fewer than two subjects, other stimuli, an unknown method.

    Example:
        >>> from clinode.similarity import rdm_from_vector
        >>> two = [rdm_from_vector([1.0, 2.0, 3.0]), rdm_from_vector([1.0, 3.0, 2.0])]
        >>> ceiling = noise_ceiling(two, "corr")
        >>> round(ceiling.lower, 4), round(ceiling.upper, 4)
        (0.5, 0.866)
    """
    check_rdms(subjects, method)
    shown = [_scaled(subject, method) for subject in subjects]
    together = _average(subjects, shown)
    others = [
        _average(subjects, [x for j, x in enumerate(shown) if j != i]) for i in range(len(subjects))
    ]
    upper = np.mean([compare(together, own, method).value for own in subjects])
    lower = np.mean(
        [compare(rest, own, method).value for rest, own in zip(others, subjects, strict=True)]
    )
    return NoiseCeiling(float(lower), float(upper), method, len(subjects))


@dataclass(frozen=True)
class ModelRanking:
    """How alike models are to subjects, with intervals, and which differences are no chance.

    Attributes:
        estimates: By model, mean likeness over subjects.
        differences: By pair of models, first minus second.
        p_values: By pair, two-sided, adjusted so that among those below q a share q is false.
        ceiling: Of the subjects.
        best: The model that is most alike.
        contenders: Models that are not told from the best at .05, the best among them.
        resampled: What intervals are over: "stimuli", "subjects" or "both".
    """

    estimates: dict[str, Estimate]
    differences: dict[tuple[str, str], Estimate]
    p_values: dict[tuple[str, str], float]
    ceiling: NoiseCeiling
    best: str
    contenders: tuple[str, ...]
    resampled: str

    def to_pandas(self) -> pd.DataFrame:
        """One row a model, the best first: model, likeness, low, high, verdict, is_contender."""
        rows = [
            {
                "model": name,
                "likeness": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "verdict": estimate.verdict,
                "is_contender": name in self.contenders,
            }
            for name, estimate in self.estimates.items()
        ]
        return pd.DataFrame(rows).sort_values("likeness", ascending=False, ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "estimates": {name: one.to_dict() for name, one in self.estimates.items()},
            "differences": {" - ".join(k): one.to_dict() for k, one in self.differences.items()},
            "p_values": {" - ".join(k): p for k, p in self.p_values.items()},
            "ceiling": self.ceiling.to_dict(),
            "best": self.best,
            "contenders": list(self.contenders),
            "resampled": self.resampled,
        }


def rank_models(
    models: Mapping[str, RDM],
    subjects: Sequence[RDM],
    method: str = "cosine",
    *,
    resample: str = "both",
    n_resamples: int = 1000,
    seed: int = 0,
) -> ModelRanking:
    """Compare each model with each subject, and the models with each other.

    A stimulus drawn twice makes a pair with itself, whose dissimilarity of 0 was never measured:
    such pairs are left out of the resample.

    Args:
        models: RDMs by name.
        subjects: RDMs of the same stimuli.
        method: As in `compare`.
        resample: "stimuli", "subjects" or "both".
        n_resamples: How many resamples; no p-value is below 2 / (n_resamples + 1) before it is
            adjusted, so few of them tell nothing apart.
        seed: Of their random numbers.

    Raises:
        ArgumentError: Fewer than two subjects, no model, other stimuli, unknown words, no model
            whose likeness is defined.
    """
    if not models:
        raise ArgumentError("there must be a model")
    check_resampling(resample, n_resamples)
    check_rdms([*subjects, *models.values()], method)
    ceiling = noise_ceiling(subjects, method)
    names, draw = list(models), np.random.default_rng(seed)
    whole = _means_by_model(models, subjects, method)
    check_some_likeness(whole)
    resampled = np.empty((n_resamples, len(names)))
    squares = {name: model.matrix for name, model in models.items()}
    own_squares = [subject.matrix for subject in subjects]
    n, m = subjects[0].n_stimuli, len(subjects)
    for row in resampled:
        stimuli, people = drawn_again(n, m, resample, draw)
        drawn = {name: drawn_stimuli(square, stimuli) for name, square in squares.items()}
        row[:] = _means_by_model(
            drawn, [drawn_stimuli(own_squares[i], stimuli) for i in people], method
        )
    return ranking_of(names, whole, resampled, ceiling, resample)


def check_some_likeness(whole: Float[np.ndarray, " model"]) -> None:
    """Refuse to rank what has no likeness at all.

    Raises:
        ArgumentError: Every one is NaN.
    """
    if np.isnan(whole).all():
        raise ArgumentError(
            "no model has a likeness to the subjects",
            fix="look for RDMs that are constant, and for pairs that are missing",
        )


def ranking_of(
    names: Sequence[str],
    whole: Float[np.ndarray, " model"],
    resampled: Float[np.ndarray, "resample model"],
    ceiling: NoiseCeiling,
    over: str,
) -> ModelRanking:
    """Intervals, differences and contenders from likenesses and their resamples."""
    estimates = {
        name: percentile_interval(whole[k], resampled[:, k], why="an RDM is constant")
        for k, name in enumerate(names)
    }
    differences, chances = {}, []
    for i, j in combinations(range(len(names)), 2):
        apart = resampled[:, i] - resampled[:, j]
        differences[names[i], names[j]] = percentile_interval(
            whole[i] - whole[j], apart, why="an RDM is constant"
        )
        # a resample on which one of them is undefined speaks for neither
        below = (1 + (~(apart > 0)).sum()) / (1 + len(resampled))
        above = (1 + (~(apart < 0)).sum()) / (1 + len(resampled))
        chances.append(min(1.0, 2 * min(below, above)))
    adjusted = benjamini_hochberg(np.array(chances, dtype=np.float64))
    p_values = dict(zip(differences, adjusted.tolist(), strict=True))
    best = names[int(np.nanargmax(whole))]
    told = {other for pair, p in p_values.items() if best in pair and p < 0.05 for other in pair}
    return ModelRanking(
        estimates=estimates,
        differences=differences,
        p_values=p_values,
        ceiling=ceiling,
        best=best,
        contenders=tuple(name for name in names if name == best or name not in told),
        resampled=over,
    )


def drawn_again(
    n_stimuli: int, n_subjects: int, resample: str, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the stimuli and of the subjects of one resample."""
    stimuli, people = np.arange(n_stimuli), np.arange(n_subjects)
    if resample != "subjects":
        stimuli = draw.integers(n_stimuli, size=n_stimuli)
    if resample != "stimuli":
        people = draw.integers(n_subjects, size=n_subjects)
    return stimuli, people


def _means_by_model(models: Mapping[str, RDM], subjects: Sequence[RDM], method: str) -> np.ndarray:
    return np.array(
        [
            np.mean([likeness_or_nan(model, subject, method) for subject in subjects])
            for model in models.values()
        ]
    )


def likeness_or_nan(first: RDM, second: RDM, method: str) -> float:
    """As `compare`, but NaN where a resample has left too few pairs in common."""
    both = first.dissimilarities + second.dissimilarities
    if int(both.isfinite().sum()) < FEWEST_PAIRS:
        return float("nan")
    return compare(first, second, method).value


def drawn_stimuli(square: torch.Tensor, stimuli: np.ndarray) -> RDM:
    """The RDM of drawn stimuli; a pair of a stimulus with itself is missing."""
    chosen = torch.from_numpy(np.sort(stimuli))
    part = square[chosen][:, chosen]
    first, second = torch.triu_indices(*part.shape, offset=1)
    pairs = torch.where(chosen[first] == chosen[second], torch.nan, part[first, second])
    return RDM(pairs, "resampled", tuple(str(k) for k in range(len(chosen))))


def _scaled(subject: RDM, method: str) -> torch.Tensor:
    values = subject.dissimilarities
    if method in RANKED:
        return torch.from_numpy(rankdata(values.numpy(), nan_policy="omit"))
    if method in ("corr", "corr_cov"):
        values = values - values.nanmean()
    return values / values.square().nanmean().sqrt()


def _average(subjects: Sequence[RDM], shown: Sequence[torch.Tensor]) -> RDM:
    return RDM(torch.stack(list(shown)).nanmean(dim=0), "average", subjects[0].labels)


def check_resampling(resample: str, n_resamples: int) -> None:
    """Refuse an unknown kind of resample, or none.

    Raises:
        ArgumentError: `resample` is no known word, or n_resamples is below 1.
    """
    if resample not in ("stimuli", "subjects", "both"):
        raise ArgumentError(f"resample must be 'stimuli', 'subjects' or 'both', got {resample!r}")
    if n_resamples < 1:
        raise ArgumentError(f"there must be at least one resample, got {n_resamples}")


def check_rdms(rdms: Sequence[RDM], method: str) -> None:
    """Refuse RDMs that cannot be ranked together.

    Raises:
        ArgumentError: An unknown method, fewer than two RDMs, other stimuli.
    """
    if method not in MEASURES:
        raise ArgumentError(
            f"method must be one of {', '.join(map(repr, MEASURES))}, got {method!r}"
        )
    if len(rdms) < 2:
        raise ArgumentError("a noise ceiling needs at least two subjects")
    for other in rdms[1:]:
        check_same_stimuli(rdms[0], other)
