import numpy as np
import pytest

from clinode.similarity import noise_ceiling, rank_models, rdm_from_vector


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


def test_human_it_is_like_monkey_it_and_categories_and_not_like_filters(rdms, subjects):
    names = ["monkeyIT", "animacy", "V1", "RADON", "Silhouette", "HMAX"]
    models = {name: rdm_from_vector(rdms[f"model_{name}"]) for name in names}
    found = rank_models(models, subjects, "rho-a", n_resamples=400)
    # Kriegeskorte et al. 2008: a categorical structure common to man and monkey, which low-level
    # models do not have
    assert set(found.contenders) == {"monkeyIT", "animacy"}
    assert found.estimates["monkeyIT"].low > 0.1
    assert found.estimates["V1"].low < 0 < found.estimates["V1"].high
    assert found.estimates["animacy"].value < found.ceiling.lower


def test_both_sessions_of_a_person_agree_less_than_the_ceiling_s_upper_bound(rdms, subjects):
    ceiling = noise_ceiling(subjects, "rho-a")
    assert 0.3 < ceiling.lower < 0.45 < 0.6 < ceiling.upper < 0.75
