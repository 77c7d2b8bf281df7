import math

import numpy as np
import pytest
import torch

from clinode.errors import ArgumentError
from clinode.similarity import RDM, compare, mixture_weights, rank_families, rdm, rdm_from_vector


def mixed(parts, weights):
    return rdm_from_vector(sum(w * p.dissimilarities for w, p in zip(weights, parts, strict=True)))


def of_one_size(one):
    values = one.dissimilarities - one.dissimilarities.mean()
    return rdm_from_vector(one.dissimilarities / values.square().mean().sqrt())


@pytest.mark.parametrize("seed", range(6))
def test_weights_of_a_mixture_are_those_it_was_made_of(seed):
    draw = np.random.default_rng(seed)
    parts = [of_one_size(rdm(draw.normal(size=(14, 9)))) for _ in range(4)]
    weights = draw.uniform(0, 1, 4) * (draw.random(4) < 0.7)
    weights[0] = 0.5
    subject = of_one_size(mixed(parts, weights))
    size = float(compare_size(subject, mixed(parts, weights)))
    found = mixture_weights(dict(zip("abcd", parts, strict=True)), [subject, subject])
    np.testing.assert_allclose(list(found.values()), weights * size, atol=1e-9)


def compare_size(one: RDM, other: RDM):
    return one.dissimilarities.std() / other.dissimilarities.std()


def noisy(truth, n_subjects, noise, draw):
    spread = float(truth.dissimilarities.std())
    return [
        rdm_from_vector(
            truth.dissimilarities
            + noise * spread * torch.from_numpy(draw.normal(size=len(truth.dissimilarities)))
        )
        for _ in range(n_subjects)
    ]


def test_a_family_that_holds_the_parts_wins_and_a_crowd_of_others_gains_nothing_by_its_size():
    draw = np.random.default_rng(3)
    a, b = (of_one_size(rdm(draw.normal(size=(30, 8)))) for _ in range(2))
    crowd = {str(k): rdm(draw.normal(size=(30, 8))) for k in range(12)}
    subjects = noisy(mixed([a, b], [0.6, 0.6]), 5, 0.5, draw)
    families = {"a": {"a": a}, "a and b": {"a": a, "b": b}, "crowd": crowd}
    found = rank_families(families, subjects, "corr", n_folds=2, n_resamples=40)
    assert found.best == "a and b"
    assert found.differences["a", "a and b"].high < 0
    inside = mixed(list(crowd.values()), mixture_weights(crowd, subjects).values())
    fitted = np.mean([compare(inside, one, "corr").value for one in subjects])
    assert found.estimates["crowd"].value < fitted - 0.05  # what fitting to the same pairs pretends
    assert found.estimates["crowd"].low < 0 < found.estimates["crowd"].high + 0.02
    assert found.estimates["a and b"].value < found.ceiling.upper


def test_a_family_of_one_model_is_as_like_as_the_model_within_folds():
    draw = np.random.default_rng(4)
    truth = rdm(draw.normal(size=(15, 6)))
    subjects = noisy(truth, 3, 0.5, draw)
    found = rank_families({"one": {"m": truth}}, subjects, "spearman", n_folds=3, n_resamples=5)
    # the same folds by hand: a positive weight changes no rank
    fold = np.random.default_rng(0).permutation(np.arange(15) % 3)
    by_hand = []
    for part in range(3):
        inside = np.flatnonzero(fold == part)
        for one in subjects:
            two = [rdm_from_vector(x.matrix[inside][:, inside]) for x in (truth, one)]
            by_hand.append(compare(*two, "spearman").value)
    assert found.estimates["one"].value == pytest.approx(np.mean(by_hand), abs=1e-12)


@pytest.mark.parametrize("method", ["corr", "cosine"])
def test_missing_pairs_are_left_out_of_weights_and_likeness(method):
    draw = np.random.default_rng(5)
    patterns, others = draw.normal(size=(16, 6)), draw.normal(size=(16, 6))
    subjects = noisy(rdm(patterns), 3, 0.3, draw)
    patterns[3], others[7] = math.nan, math.nan
    families = {"true": {"m": rdm(patterns), "other": rdm(others)}, "other": {"m": rdm(others)}}
    found = rank_families(families, subjects, method, n_resamples=20)
    assert found.best == "true"
    assert found.estimates["true"].value > 0.7


def test_a_family_that_is_given_no_weight_has_no_likeness():
    draw = np.random.default_rng(6)
    truth = rdm(draw.normal(size=(12, 6)))
    against = rdm_from_vector(10 - truth.dissimilarities)
    flat = rdm_from_vector(np.full(66, 3.0))
    subjects = noisy(truth, 3, 0.2, draw)
    families = {"against": {"m": against}, "flat": {"m": flat}, "true": {"m": truth}}
    found = rank_families(families, subjects, "corr", n_folds=2, n_resamples=20)
    assert found.estimates["against"].value == 0.0
    assert found.estimates["flat"].value == 0.0
    assert mixture_weights(families["against"], subjects) == {"m": 0.0}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"families": {}}, "there must be a family, and a model in each"),
        ({"families": {"a": {}}}, "there must be a family, and a model in each"),
        ({"n_folds": 5}, "12 stimuli cannot be parted into 5 folds"),
        ({"n_folds": 1}, "cannot be parted into 1 folds"),
        ({"method": "pearson"}, "method must be one of"),
        ({"resample": "pairs"}, "resample must be"),
        ({"n_resamples": 0}, "at least one resample"),
        ({"subjects": 1}, "need two or more"),
        ({"missing": True}, "1 RDMs have no dissimilarity"),
    ],
)
def test_what_cannot_be_mixed_is_refused(change, told):
    draw = np.random.default_rng(7)
    truth = rdm(draw.normal(size=(12, 6)))
    asked = {"families": {"a": {"m": truth}}, "method": "corr", "n_folds": 4, "n_resamples": 3}
    subjects = noisy(truth, change.pop("subjects", 3), 0.2, draw)
    if change.pop("missing", False):
        subjects[0] = rdm_from_vector(np.full(66, math.nan))
    asked = {**asked, **change}
    with pytest.raises(ArgumentError, match=told):
        rank_families(asked.pop("families"), subjects, asked.pop("method"), **asked)
