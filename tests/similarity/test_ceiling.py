import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from clinode.errors import ArgumentError
from clinode.similarity import (
    EnergyCortex,
    compare,
    compare_pairs,
    layer_patterns,
    linear_predictivity,
    noise_ceiling,
    rank_models,
    rdm,
    rdm_from_vector,
)


def subjects_of(patterns, n_subjects, noise, draw):
    """RDMs of subjects who each measure the patterns with noise of their own."""
    spread = float(np.std(patterns))
    return [
        rdm(patterns + noise * spread * draw.normal(size=patterns.shape)) for _ in range(n_subjects)
    ]


def test_the_ceiling_holds_what_the_truth_reaches():
    draw = np.random.default_rng(0)
    for method in ("cosine", "corr", "spearman", "cosine_cov"):
        truth = draw.normal(size=(20, 40))
        subjects = subjects_of(truth, 6, 2.0, draw)
        ceiling = noise_ceiling(subjects, method)
        reached = np.mean([compare(rdm(truth), one, method).value for one in subjects])
        assert ceiling.lower < ceiling.upper <= 1
        assert reached < ceiling.upper + 0.02


def test_the_ceiling_of_equal_subjects_is_one():
    one = rdm_from_vector([1.0, 2.0, 4.0, 3.0, 5.0, 2.5])
    ceiling = noise_ceiling([one, one], "corr")
    assert ceiling.lower == pytest.approx(1.0)
    assert ceiling.upper == pytest.approx(1.0)


def test_the_planted_model_wins_and_others_are_told_from_it():
    draw = np.random.default_rng(5)
    truth = draw.normal(size=(24, 30))
    models = {
        "truth": rdm(truth),
        "half": rdm(np.column_stack([truth[:, :12], draw.normal(size=(24, 12))])),
        "other": rdm(draw.normal(size=(24, 30))),
    }
    found = rank_models(models, subjects_of(truth, 8, 1.0, draw), "corr", n_resamples=200)
    assert found.best == "truth"
    assert found.contenders == ("truth",)
    assert found.to_pandas()["model"].tolist() == ["truth", "half", "other"]
    assert found.differences["truth", "other"].low > 0
    assert found.estimates["truth"].low < found.estimates["truth"].value


def test_models_alike_are_both_contenders():
    draw = np.random.default_rng(6)
    truth = draw.normal(size=(15, 30))
    models = {name: rdm(truth + 0.5 * draw.normal(size=truth.shape)) for name in "ab"}
    found = rank_models(models, subjects_of(truth, 5, 1.0, draw), n_resamples=200, resample="both")
    assert set(found.contenders) == {"a", "b"}


def test_intervals_over_stimuli_hold_the_population_s_value():
    draw = np.random.default_rng(1)
    hits = 0
    mix = draw.normal(size=(10, 10)) * 0.4 + np.eye(10)
    x = draw.normal(size=(3000, 10))
    far = compare(rdm(x[:600]), rdm(x[:600] @ mix), "corr").value
    for _ in range(40):
        x = draw.normal(size=(30, 10))
        subjects = [rdm(x @ mix)] * 2
        found = rank_models(
            {"m": rdm(x)}, subjects, "corr", resample="stimuli", n_resamples=100
        ).estimates["m"]
        hits += found.low <= far <= found.high
    assert hits >= 30  # 38 of 40 in the mean for a nominal interval; few resamples, few stimuli


def test_a_planted_layer_is_recovered_from_digits():
    digits = load_digits()
    images = torch.tensor(digits.images[:80] / 16, dtype=torch.float32)
    torch.manual_seed(0)
    network = Stages(EnergyCortex(n_orientations=6, wavelengths=(2.6, 4.4)))
    layers = layer_patterns(network, images, ["pixels", "energy", "pooled", "readout"])
    cortex, draw = EnergyCortex(), np.random.default_rng(2)
    for stage, expected in (("v1", "energy"), ("pooled", "pooled")):
        answers = getattr(cortex, stage)(images).numpy()
        units = draw.choice(answers.shape[1], 60 if stage == "v1" else 40, replace=False)
        subjects = subjects_of(answers[:, units], 5, 0.5, draw)
        models = {name: rdm(patterns) for name, patterns in layers.items()}
        found = rank_models(models, subjects, "corr", n_resamples=100)
        assert found.best == expected, found.to_pandas()


@pytest.mark.slow
def test_the_network_that_was_planted_wins_in_most_of_a_hundred_noisy_cortices():
    images = torch.tensor(load_digits().images / 16, dtype=torch.float32)
    cortex, wins, reach = EnergyCortex(), 0, 0
    for seed in range(100):
        draw = np.random.default_rng(seed)
        shown = images[torch.from_numpy(draw.choice(len(images), 40, replace=False))]
        answers = {
            "energy": cortex.v1(shown).numpy(),
            "other filters": EnergyCortex(n_orientations=3, wavelengths=(6.0,)).v1(shown).numpy(),
            "pooled": cortex.pooled(shown).numpy(),
            "pixels": shown.flatten(1).numpy(),
            "random": np.maximum(shown.flatten(1).numpy() @ draw.normal(size=(64, 100)), 0.0),
        }
        subjects = subjects_of(answers["energy"], 6, 1.0, draw)
        likeness = {
            name: np.mean([compare(rdm(one), own, "corr").value for own in subjects])
            for name, one in answers.items()
        }
        wins += max(likeness, key=lambda name: likeness[name]) == "energy"
        reach += likeness["energy"] >= noise_ceiling(subjects, "corr").lower
    assert wins >= 95
    assert reach >= 95


class Stages(nn.Module):
    """Pixels, energies of other filters than the cortex's, their pooling, a random readout."""

    def __init__(self, cortex):
        super().__init__()
        self.pixels, self.energy, self.pooled = (
            nn.Identity(),
            Stage(cortex.v1),
            Stage(cortex.pooled),
        )
        self.readout = nn.Linear(cortex.pooled(torch.zeros(1, 8, 8)).shape[1], 10)

    def forward(self, x):
        self.energy(self.pixels(x))
        return self.readout(self.pooled(x))


class Stage(nn.Module):
    """A layer that is a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_layers_are_those_that_the_network_computed():
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)).double()
    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = layer_patterns(network, x, ["0", "2"])
    torch.testing.assert_close(found["2"], network[2](network[0](x)).detach())
    assert network.training
    assert network[1].training
    with pytest.raises(ArgumentError, match="no layer 'conv'; there are: 0, 1, 2"):
        layer_patterns(network, x, ["conv"])


def test_the_cortex_does_not_see_mean_light_and_knows_orientation():
    cortex = EnergyCortex(size=16, n_orientations=4, wavelengths=(4.0,))
    x = torch.arange(16.0)
    across = 0.5 + 0.5 * torch.cos(2 * torch.pi * x / 4).expand(16, 16)  # varies along columns
    images = torch.stack([across, across + 0.3, across.T])
    energy = cortex.v1(images).unflatten(1, (4, 16, 16))[:, :, 4:12, 4:12].mean(dim=(2, 3))
    torch.testing.assert_close(energy[0], energy[1], rtol=1e-3, atol=1e-4)
    assert energy[0].argmax() == 0
    assert energy[2].argmax() == 2
    alone = cortex.v1(images[:1])
    torch.testing.assert_close(alone[0], cortex.v1(images)[0])  # whatever else is shown


def test_predictivity_reaches_the_ceiling_where_the_map_is_linear():
    draw = np.random.default_rng(7)
    model = draw.normal(size=(120, 10))
    answer = model @ draw.normal(size=(10, 5))
    repeats = answer + 2.0 * draw.normal(size=(8, 120, 5))
    found = linear_predictivity(model, repeats)
    assert found.median == pytest.approx(1.0, abs=0.05)
    # reliability of the mean of r repeats: signal / (signal + noise / r)
    signal = answer.var(axis=0)
    expected = np.sqrt(signal / (signal + 4.0 / 8))
    np.testing.assert_allclose(found.ceiling, expected, atol=0.03)
    other = linear_predictivity(draw.normal(size=(120, 10)), repeats)
    assert other.median < 0.3


def test_predictivity_refuses_what_it_cannot_fold():
    x = np.random.default_rng(0).normal(size=(12, 3))
    with pytest.raises(ArgumentError, match="12 stimuli cannot be predicted in 10 folds"):
        linear_predictivity(x, x)
    with pytest.raises(ArgumentError, match="1 units answer all stimuli alike"):
        linear_predictivity(x, np.column_stack([x, np.ones(12)]), n_folds=3)


def test_one_subject_has_no_ceiling():
    one = rdm_from_vector([1.0, 2.0, 3.0])
    with pytest.raises(ArgumentError, match="at least two subjects"):
        noise_ceiling([one])


def test_a_constant_model_is_undefined_and_not_told_from_others():
    draw = np.random.default_rng(5)
    subjects = [rdm(draw.normal(size=(8, 6))) for _ in range(3)]
    flat = rdm_from_vector(np.ones(28))
    ranking = rank_models({"flat": flat, "own": subjects[0]}, subjects, "corr", n_resamples=40)
    assert not ranking.estimates["flat"].is_defined
    assert ranking.p_values["flat", "own"] == 1.0
    with pytest.raises(ArgumentError, match="no model has a likeness"):
        rank_models({"flat": flat}, subjects, "corr", n_resamples=5)


def test_few_stimuli_leave_resamples_out_that_have_no_pairs():
    draw = np.random.default_rng(6)
    made = {name: rdm(draw.normal(size=(3, 6))) for name in "abc"}
    ranking = rank_models(made, list(made.values()), "corr", n_resamples=60)
    assert ranking.estimates["a"].verdict.startswith("no interval")
    found = compare_pairs(made, "corr", n_resamples=60)
    assert found.intervals["a", "b"].verdict.startswith("no interval")
    assert found.intervals["a", "b"].value == compare(made["a"], made["b"], "corr").value


def test_pairs_missing_in_different_stimuli_are_left_out_of_both():
    draw = np.random.default_rng(7)
    one, two = draw.normal(size=(2, 9, 4))
    one[1], two[5] = math.nan, math.nan
    found = compare_pairs({"one": rdm(one), "two": rdm(two)}, "corr", n_resamples=30)
    both = [k for k in range(9) if k not in (1, 5)]
    kept = compare(rdm(one[both]), rdm(two[both]), "corr")
    assert found.intervals["one", "two"].value == pytest.approx(kept.value, abs=1e-12)
    told = found.comparisons["one", "two"]
    assert (told.n_pairs, told.n_left_out) == (21, 15)
