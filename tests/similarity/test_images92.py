import numpy as np
import pytest

from clinode.similarity import (
    compare,
    noise_ceiling,
    rank_families,
    rank_models,
    rdm_from_vector,
)


@pytest.fixture
def rdms(data_dir):
    path = data_dir / "images92_rdms" / "rdms.npz"
    if not path.is_file():
        pytest.skip("no images92_rdms/rdms.npz under --data")
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


@pytest.fixture
def subjects(rdms):
    """Human IT, both sessions of each person together."""
    return [
        rdm_from_vector(
            sum(rdms[f"human_IT_subject{person}_session{session}"] for session in (1, 2)) / 2
        )
        for person in (1, 2, 3, 4)
    ]


@pytest.mark.slow
def test_human_it_is_like_monkey_it_and_categories_and_not_like_filters(rdms, subjects):
    names = ["monkeyIT", "animacy", "V1", "RADON", "Silhouette", "HMAX"]  # "EVA" is no model
    models = {name: rdm_from_vector(rdms[f"model_{name}"]) for name in names}
    found = rank_models(models, subjects, "rho-a", n_resamples=300)
    # Kriegeskorte et al. 2008: a categorical structure common to man and monkey, which low-level
    # models do not have
    assert set(found.contenders) == {"monkeyIT", "animacy"}
    assert found.estimates["monkeyIT"].low > 0.1
    assert found.estimates["V1"].low < 0 < found.estimates["V1"].high
    assert found.estimates["animacy"].value < found.ceiling.lower


def test_both_sessions_of_a_person_agree_less_than_the_ceiling_s_upper_bound(rdms, subjects):
    ceiling = noise_ceiling(subjects, "rho-a")
    assert 0.3 < ceiling.lower < 0.45 < 0.6 < ceiling.upper < 0.75


def test_people_s_cortex_is_as_like_the_monkey_s_as_published(rdms, subjects):
    # Kriegeskorte et al. 2008: r = 0.49 between the mean dissimilarities of people and of monkeys
    human = rdm_from_vector(sum(one.dissimilarities for one in subjects) / len(subjects))
    monkey = rdm_from_vector(rdms["model_monkeyIT"])
    assert compare(human, monkey, "corr").value == pytest.approx(0.49, abs=0.005)


def test_exemplars_match_between_species_within_categories_too(rdms, subjects):
    # the same paper: not the categories alone match; the first 48 images are animate
    human = sum(one.matrix for one in subjects).numpy()
    monkey = rdm_from_vector(rdms["model_monkeyIT"]).matrix.numpy()
    draw = np.random.default_rng(0)
    for inside in (np.arange(48), np.arange(48, 92)):
        pairs = np.triu_indices(len(inside), 1)
        seen = human[np.ix_(inside, inside)][pairs]

        def likeness(order, pairs=pairs, seen=seen):
            return np.corrcoef(seen, monkey[np.ix_(order, order)][pairs])[0, 1]

        shuffled = [likeness(draw.permutation(inside)) for _ in range(999)]
        assert np.mean([*shuffled, likeness(inside)] >= likeness(inside)) <= 0.005


def test_judgements_of_people_are_more_like_their_cortex_than_like_models_of_early_vision(
    rdms, subjects
):
    # Mur et al. 2013, Front. Psychol. 4:128: judgements are explained better by IT than by early
    # visual cortex (named EVA here) or computational models, and IT of people is more like IT of
    # monkeys than like judgements
    human = rdm_from_vector(sum(one.dissimilarities for one in subjects) / len(subjects))
    judged = rdm_from_vector(
        np.mean([rdms[f"judgement_subject{k:02d}"] for k in range(1, 17)], axis=0)
    )
    likeness = {
        name: compare(judged, rdm_from_vector(rdms[f"model_{name}"]), "spearman").value
        for name in ("monkeyIT", "EVA", "V1", "HMAX", "RADON", "Silhouette")
    }
    cortex = compare(judged, human, "spearman").value
    assert cortex > max(likeness[k] for k in likeness if k != "monkeyIT") + 0.1
    monkey = rdm_from_vector(rdms["model_monkeyIT"])
    assert compare(human, monkey, "spearman").value > cortex


@pytest.mark.slow
def test_families_of_categories_and_other_cortices_explain_it_and_those_of_pixels_do_not(
    rdms, subjects
):
    def family(*names):
        return {name: rdm_from_vector(rdms[f"model_{name}"]) for name in names}

    families = {
        "categories": family("animacy", "FaceBodyManmadeNatobj"),
        "monkey": family("monkeyIT"),
        "HMAX": family("HMAX", "HMAX_natural_patches"),
        "pixels and filters": family("V1", "RADON", "Silhouette"),
    }
    found = rank_families(families, subjects, "corr", n_resamples=200)
    order = found.to_pandas()["model"].tolist()
    assert order == ["categories", "monkey", "HMAX", "pixels and filters"]
    assert set(found.contenders) == {"categories", "monkey"}
    assert found.estimates["categories"].low > 0
    assert found.estimates["pixels and filters"].value < 0.15
    assert found.estimates["categories"].value < found.ceiling.upper
