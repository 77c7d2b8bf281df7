"""Which family of models explains subjects, when the models of a family may be mixed.

A family, as of categories, is more than its best member: its models are added with weights that are
not negative. The weights are fitted to some stimuli of some subjects and the mixture is compared
with other stimuli of another subject, so a family gains nothing by being large (Khaligh-Razavi &
Kriegeskorte 2014, PLoS Comput. Biol. 10:e1003915; Jozwik et al. 2016, Neuropsychologia 83:201-226).
Models that are not to be mixed are ranked by `rank_models`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import nnls

from clinode.errors import ArgumentError

from .ceiling import (
    ModelRanking,
    NoiseCeiling,
    check_rdms,
    check_resampling,
    check_some_likeness,
    drawn_again,
    drawn_stimuli,
    likeness_or_nan,
    noise_ceiling,
    ranking_of,
)
from .compare import FEWEST_PAIRS
from .rdm import RDM

WITHOUT_MEAN = ("cosine", "cosine_cov")  # measures that a constant added to an RDM changes


def mixture_weights(
    models: Mapping[str, RDM], subjects: Sequence[RDM], method: str = "corr"
) -> dict[str, float]:
    """Weights, none negative, whose mixture of the models is nearest to the subjects' mean.

    RDMs are brought to one size first (and to mean 0, but for cosines), so weights compare.

    Args:
        models: RDMs by name.
        subjects: Of the same stimuli, two or more.
        method: The measure that the mixture is meant for.

    Raises:
        ArgumentError: No model, fewer than two subjects, other stimuli, an unknown method.

    Example:
        >>> from clinode.similarity import rdm_from_vector
        >>> a, b = rdm_from_vector([1.0, 2.0, 3.0]), rdm_from_vector([2.0, 1.0, 2.0])
        >>> mixture_weights({"a": a, "b": b}, [a, a])
        {'a': 1.0, 'b': 0.0}
    """
    _check_families({"models": models}, subjects, method)
    family, people = _squares(models.values(), method), _squares(subjects, method)
    stimuli = np.arange(subjects[0].n_stimuli)
    weights = _fitted(family, people, stimuli, method)
    return {name: float(round(w, 12)) for name, w in zip(models, weights, strict=True)}


def rank_families(
    families: Mapping[str, Mapping[str, RDM]],
    subjects: Sequence[RDM],
    method: str = "corr",
    *,
    n_folds: int = 4,
    resample: str = "both",
    n_resamples: int = 400,
    seed: int = 0,
) -> ModelRanking:
    """Compare mixtures of each family's models with stimuli and subjects they were not fitted to.

    Stimuli are parted into folds at random. For each fold and subject, weights come from the other
    folds of the other subjects, and the likeness from the pairs of stimuli within the fold; it is 0
    where every weight is. A stimulus that a resample draws twice stays in one fold. Likenesses are
    means over folds and subjects, and so are the bounds of the ceiling. A resample of one and the
    same subject leaves no other to fit to, and is drawn anew.

    Args:
        families: RDMs by name, by name of the family.
        subjects: RDMs of the same stimuli, two or more.
        method: As in `compare`.
        n_folds: Of the stimuli, each with three or more.
        resample: "stimuli", "subjects" or "both".
        n_resamples: How many resamples.
        seed: Of folds and resamples.

    Raises:
        ArgumentError: A family without a model, fewer than two subjects, other stimuli, unknown
            words, fewer than two folds or too many, no family whose likeness is defined.
    """
    _check_families(families, subjects, method)
    check_resampling(resample, n_resamples)
    n, m = subjects[0].n_stimuli, len(subjects)
    if not 2 <= n_folds <= n // 3:
        raise ArgumentError(
            f"{n} stimuli cannot be parted into {n_folds} folds of three or more; from 2 to "
            f"{n // 3} can be had"
        )
    draw = np.random.default_rng(seed)
    fold = draw.permutation(np.arange(n) % n_folds)
    mixed = {name: _squares(models.values(), method) for name, models in families.items()}
    people = _squares(subjects, method)

    def likenesses(stimuli: np.ndarray, shown: np.ndarray) -> np.ndarray:
        return np.array(
            [_held_out(family, people, stimuli, shown, fold, method) for family in mixed.values()]
        )

    whole = likenesses(np.arange(n), np.arange(m))
    check_some_likeness(whole)
    resampled = np.array(
        [likenesses(*_with_another(n, m, resample, draw)) for _ in range(n_resamples)]
    )
    ceiling = _ceiling_within(subjects, fold, method)
    return ranking_of(list(families), whole, resampled, ceiling, resample)


def _with_another(
    n_stimuli: int, n_subjects: int, resample: str, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A resample in which two subjects or more take part."""
    while True:
        stimuli, people = drawn_again(n_stimuli, n_subjects, resample, draw)
        if len(np.unique(people)) > 1:
            return stimuli, people


def _held_out(
    family: Float[np.ndarray, "model stimulus stimulus"],
    people: Float[np.ndarray, "subject stimulus stimulus"],
    stimuli: Int[np.ndarray, " drawn"],
    shown: Int[np.ndarray, " drawn_subject"],
    fold: Int[np.ndarray, " stimulus"],
    method: str,
) -> float:
    """Mean likeness over folds and subjects; NaN where a resample leaves nothing to learn from."""
    found = []
    for part in range(int(fold.max()) + 1):
        inside = stimuli[fold[stimuli] == part]
        outside = stimuli[fold[stimuli] != part]
        for subject in np.unique(shown):
            others = shown[shown != subject]
            weights = _fitted(family, people[others], outside, method)
            likeness = 0.0
            if weights.any():
                mixture = np.tensordot(weights, family, axes=1)
                seen, told = (
                    drawn_stimuli(torch.from_numpy(square), inside)
                    for square in (people[subject], mixture)
                )
                likeness = likeness_or_nan(told, seen, method)
            found += [likeness] * int((shown == subject).sum())
    known = np.array(found)[np.isfinite(found)]
    return float(known.mean()) if len(known) else float("nan")


def _fitted(
    family: Float[np.ndarray, "model stimulus stimulus"],
    people: Float[np.ndarray, "subject stimulus stimulus"],
    stimuli: Int[np.ndarray, " drawn"],
    method: str,
) -> Float[np.ndarray, " model"]:
    """Weights by non-negative least squares over the pairs that all models and a subject have."""
    first, second = stimuli[np.stack(np.triu_indices(len(stimuli), 1))]
    apart = first != second
    models = family[:, first[apart], second[apart]].T
    seen = people[:, first[apart], second[apart]]
    n_seen = np.isfinite(seen).sum(axis=0)
    mean = np.nansum(seen, axis=0) / np.maximum(n_seen, 1)
    known = np.isfinite(models).all(axis=1) & (n_seen > 0)
    if known.sum() < FEWEST_PAIRS:
        return np.zeros(len(family))
    models, mean = models[known], mean[known]
    if method not in WITHOUT_MEAN:
        models, mean = models - models.mean(axis=0), mean - mean.mean()
    return nnls(models, mean)[0]


def _squares(rdms: Iterable[RDM], method: str) -> Float[np.ndarray, "rdm stimulus stimulus"]:
    """Square matrices of one size: root mean square, about the mean but for cosines."""
    found = []
    for one in rdms:
        values = one.dissimilarities.numpy()
        about = 0.0 if method in WITHOUT_MEAN else np.nanmean(values)
        size = math.sqrt(np.nanmean((values - about) ** 2))
        flat = size <= 1e-12 * np.nanmax(np.abs(values))  # a constant one gets no weight
        found.append(one.matrix.numpy() / (1.0 if flat else size))
    return np.stack(found)


def _ceiling_within(
    subjects: Sequence[RDM], fold: Int[np.ndarray, " stimulus"], method: str
) -> NoiseCeiling:
    """Bounds where only pairs within a fold are compared, mean over folds."""
    parts = [
        noise_ceiling(
            [drawn_stimuli(s.matrix, np.flatnonzero(fold == f)) for s in subjects], method
        )
        for f in range(int(fold.max()) + 1)
    ]
    lower, upper = (float(np.mean([getattr(p, end) for p in parts])) for end in ("lower", "upper"))
    return NoiseCeiling(lower, upper, method, len(subjects))


def _check_families(
    families: Mapping[str, Mapping[str, RDM]], subjects: Sequence[RDM], method: str
) -> None:
    if not families or not all(families.values()):
        raise ArgumentError("there must be a family, and a model in each")
    if len(subjects) < 2:
        raise ArgumentError(
            "weights that are fitted to some subjects and tried on another need two or more"
        )
    members = [one for models in families.values() for one in models.values()]
    check_rdms([*subjects, *members], method)
    empty = sum(bool(one.dissimilarities.isnan().all()) for one in [*subjects, *members])
    if empty:
        raise ArgumentError(f"{empty} RDMs have no dissimilarity at all")
