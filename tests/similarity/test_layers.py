"""Which layer of a network trained on digits is most like a stage of a simulated cortex."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from clinode.similarity import EnergyCortex, cka, compare, layer_patterns, rank_models, rdm

LAYERS = ["pixels", "filters", "energy", "pooled", "hidden", "digit"]
RIGHT = {"v1": "energy", "pooled": "pooled"}
N_FILTERS = 12


class Energy(nn.Module):
    """Even and odd channels squared, added, divided by what all orientations have."""

    def forward(self, x):
        even, odd = x.chunk(2, dim=1)
        energy = even.square() + odd.square()
        return energy / (energy.mean(dim=1, keepdim=True) + 0.1)


class Pairs(nn.Module):
    """Pairs of channels that answer in the same quarter of the image."""

    def forward(self, energy):
        quarters = functional.adaptive_avg_pool2d(energy, 2).sqrt()
        first, other = torch.triu_indices(N_FILTERS, N_FILTERS)
        return (quarters[:, first] * quarters[:, other]).flatten(1)


def energy_network(seed):
    """A network whose stages do what those of the cortex do, by filters that it learns."""
    torch.manual_seed(seed)
    return named_layers(
        nn.Identity(),
        nn.Conv2d(1, 2 * N_FILTERS, 5, padding=2, bias=False),
        Energy(),
        Pairs(),
        nn.Sequential(nn.Linear(2 * N_FILTERS * (N_FILTERS + 1), 64), nn.ReLU()),
        nn.Linear(64, 10),
    )


def named_layers(*layers):
    network = nn.Sequential()
    for name, layer in zip(LAYERS, layers, strict=True):
        network.add_module(name, layer)
    return network


def trained(network, images, digits, seed, epochs=20):
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=draw).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[rows]), digits[rows]).backward()
            optimizer.step()
    return network


@pytest.fixture(scope="module")
def digits():
    """Images to train on with their digits, and to show and test on."""
    given = load_digits()
    images = torch.tensor(given.images / 16, dtype=torch.float32).unsqueeze(1)
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
    network = trained(energy_network(seed), images, known, seed)
    assert float((network(shown).argmax(1) == asked).float().mean()) > 0.94
    shown = shown[:120]
    layers = {name: x.numpy() for name, x in layer_patterns(network, shown, LAYERS).items()}
    models = {name: rdm(x) for name, x in layers.items()}
    cortex, draw = EnergyCortex(), np.random.default_rng(seed)
    for stage, right in RIGHT.items():
        answers = getattr(cortex, stage)(shown[:, 0]).numpy()
        by_kernel = {name: cka(x, answers, debiased=True).value for name, x in layers.items()}
        assert max(by_kernel, key=by_kernel.__getitem__) == right
        noise = 0.5 * answers.std()
        people = [rdm(answers + noise * draw.normal(size=answers.shape)) for _ in range(5)]
        found = rank_models(models, people, "corr", n_resamples=100)
        assert found.best == right, found.to_pandas()
        assert not {"hidden", "digit"} & set(found.contenders)


@pytest.mark.slow
def test_before_training_no_layer_is_like_the_pooled_stage(digits):
    shown = digits[2][:120]
    answers = EnergyCortex().pooled(shown[:, 0]).numpy()
    for seed in (100, 101, 102):
        layers = layer_patterns(energy_network(seed), shown, LAYERS)
        likeness = {
            name: compare(rdm(x.numpy()), rdm(answers), "corr").value for name, x in layers.items()
        }
        assert likeness["pooled"] < likeness["pixels"]
