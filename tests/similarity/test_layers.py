"""Which layer of a network trained on digits is most like a stage of a simulated cortex."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from clinode.errors import ArgumentError
from clinode.similarity import (
    EnergyCortex,
    EnergyNetwork,
    cka,
    compare,
    fit_labels,
    layer_patterns,
    rank_models,
    rdm,
)

LAYERS = ["pixels", "filters", "energy", "pooled", "hidden", "label"]
RIGHT = {"v1": "energy", "pooled": "pooled"}


@pytest.fixture(scope="module")
def digits():
    """Images to train on with their digits, and to show and test on."""
    given = load_digits()
    images = torch.tensor(given.images / 16, dtype=torch.float32)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    known = torch.tensor(given.target)
    train, shown = order[:1200], order[1200:]
    return images[train], known[train], images[shown], known[shown]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 101, 102])
def test_the_layer_that_does_what_a_stage_of_the_cortex_does_is_found_in_a_trained_network(
    digits, seed
):
    images, known, shown, asked = digits
    network = EnergyNetwork(seed=seed)
    fit_labels(network, images, known, seed=seed)
    assert float((network(shown).argmax(1) == asked).float().mean()) > 0.94
    shown = shown[:120]
    layers = {name: x.numpy() for name, x in layer_patterns(network, shown, LAYERS).items()}
    models = {name: rdm(x) for name, x in layers.items()}
    cortex, draw = EnergyCortex(), np.random.default_rng(seed)
    for stage, right in RIGHT.items():
        answers = getattr(cortex, stage)(shown).numpy()
        by_kernel = {name: cka(x, answers, debiased=True).value for name, x in layers.items()}
        assert max(by_kernel, key=by_kernel.__getitem__) == right
        noise = 0.5 * answers.std()
        people = [rdm(answers + noise * draw.normal(size=answers.shape)) for _ in range(5)]
        found = rank_models(models, people, "corr", n_resamples=100)
        assert found.best == right, found.to_pandas()
        assert not {"hidden", "label"} & set(found.contenders)


@pytest.mark.slow
def test_before_training_no_layer_is_like_the_pooled_stage(digits):
    shown = digits[2][:120]
    answers = EnergyCortex().pooled(shown).numpy()
    for seed in (100, 101, 102):
        layers = layer_patterns(EnergyNetwork(seed=seed), shown, LAYERS)
        likeness = {
            name: compare(rdm(x.numpy()), rdm(answers), "corr").value for name, x in layers.items()
        }
        assert likeness["pooled"] < likeness["pixels"]


def test_energy_does_not_tell_a_bright_line_from_a_dark_one():
    network = EnergyNetwork(n_labels=3, seed=4).double()
    images = torch.rand(5, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network.pooled_pairs(images), network.pooled_pairs(-images))
    assert not torch.allclose(network(images), network(torch.rand(5, 8, 8).double()))


def test_a_dark_image_has_a_gradient():
    dark = torch.zeros(1, 8, 8, requires_grad=True)
    EnergyNetwork()(dark)[0, 0].backward()
    assert dark.grad is not None
    assert bool(dark.grad.isfinite().all())


def test_a_network_and_its_training_are_the_same_twice_and_leave_other_draws_alone(digits):
    images, known = digits[0][:100], digits[1][:100]
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    one, two = EnergyNetwork(seed=3), EnergyNetwork(seed=3)
    for network in (one, two):
        fit_labels(network, images, known, epochs=2, seed=1)
    torch.testing.assert_close(torch.rand(2), expected, rtol=0, atol=0)
    torch.testing.assert_close(one(images), two(images), rtol=0, atol=0)
    assert all(weight.grad is None for weight in one.parameters())


def test_networks_and_labels_that_do_not_fit_are_refused():
    with pytest.raises(ArgumentError, match="of an odd width"):
        EnergyNetwork(width=4)
    with pytest.raises(ArgumentError, match="two labels or more"):
        EnergyNetwork(1)
    with pytest.raises(ArgumentError, match=r"\(2,\) labels for 3 images"):
        fit_labels(EnergyNetwork(), torch.zeros(3, 8, 8), torch.zeros(2, dtype=torch.long))
    images, known = torch.zeros(3, 8, 8), torch.zeros(3, dtype=torch.long)
    with pytest.raises(ArgumentError, match="must be positive"):
        fit_labels(EnergyNetwork(), images, known, epochs=0)
