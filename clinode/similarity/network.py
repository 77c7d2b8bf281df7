"""A small image network whose stages do what those of `EnergyCortex` do, by filters that it learns.

Where a network and a cortex compute the same kind of thing in the same order, it is known which
layer should look most like which stage, so a method that compares them can be held to it. The
filters begin at random and are learned from labels alone; the cortex's are Gabors that nobody
learned.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from clinode.errors import ArgumentError

from .cortex import SATURATION

_SMALL = 1e-4  # under the root, so that a dark quarter has a gradient


class EnergyNetwork(nn.Module):
    """Images -> filters -> energy of pairs of filters -> pooled pairs of channels -> label scores.

    Layers by name, in order: "pixels", "filters", "energy" (as V1), "pooled" (as the pooled stage),
    "hidden", "label".

    Args:
        n_labels: Of the images.
        n_pairs: Of filters, an even and an odd one each.
        width: Of a filter, pixels, odd.
        n_hidden: Units of the last layer but one.
        seed: Of the weights it begins with.

    Raises:
        ArgumentError: Fewer than two labels or pairs, no hidden unit, a width that is not odd.
    """

    def __init__(
        self,
        n_labels: int = 10,
        *,
        n_pairs: int = 12,
        width: int = 5,
        n_hidden: int = 64,
        seed: int = 0,
    ):
        super().__init__()
        if n_labels < 2 or n_pairs < 2 or n_hidden < 1 or width < 1 or width % 2 == 0:
            raise ArgumentError(
                "a network needs two labels or more, two pairs of filters or more of an odd width, "
                "and a hidden unit"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            n_pooled = 2 * n_pairs * (n_pairs + 1)  # four quarters, each pair of channels once
            self.pixels = nn.Identity()
            self.filters = nn.Conv2d(1, 2 * n_pairs, width, padding=width // 2, bias=False)
            self.energy = Energy()
            self.pooled = PooledPairs()
            self.hidden = nn.Sequential(nn.Linear(n_pooled, n_hidden), nn.ReLU())
            self.label = nn.Linear(n_hidden, n_labels)

    def forward(
        self, images: Float[Tensor, "image row column"]
    ) -> Float[Tensor, "image label_score"]:
        """Scores of the labels, before a softmax."""
        return self.label(self.hidden(self.pooled_pairs(images)))

    def pooled_pairs(
        self, images: Float[Tensor, "image row column"]
    ) -> Float[Tensor, "image unit"]:
        """What the layer "pooled" answers, with its gradient."""
        return self.pooled(self.energy(self.filters(self.pixels(images).unsqueeze(1))))


class Energy(nn.Module):
    """Even and odd channels squared and added, over the mean of all channels at a place."""

    def forward(
        self, answers: Float[Tensor, "image filter row column"]
    ) -> Float[Tensor, "image channel row column"]:
        """Energies."""
        even, odd = answers.chunk(2, dim=1)
        energy = even.square() + odd.square()
        return energy / (energy.mean(dim=1, keepdim=True) + SATURATION)


class PooledPairs(nn.Module):
    """Pairs of channels that answer together, anywhere in a quarter of the image."""

    def forward(
        self, energy: Float[Tensor, "image channel row column"]
    ) -> Float[Tensor, "image unit"]:
        """Geometric means of two channels' energies in each quarter."""
        quarters = (functional.adaptive_avg_pool2d(energy, 2) + _SMALL).sqrt()
        first, other = torch.triu_indices(*[energy.shape[1]] * 2, device=energy.device)
        return (quarters[:, first] * quarters[:, other]).flatten(1)


def fit_labels(
    network: nn.Module,
    images: Float[Tensor, "image row column"],
    labels: Int[Tensor, " label"],
    *,
    epochs: int = 20,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> None:
    """Train an image network on labels, in place, by cross entropy and Adam.

    For networks that a comparison or an attribution is tried on; nothing is held out or selected.

    Args:
        network: Returns scores, one a label.
        images: From 0 to 1.
        labels: Of the images, 0, 1, ...
        epochs: How often all images are seen.
        batch_size: Images a step.
        learning_rate: Of Adam.
        seed: Of the order of the images.

    Raises:
        ArgumentError: Labels that do not fit the images, numbers that are not positive.
    """
    if labels.shape != (len(images),) or not len(images):
        raise ArgumentError(f"{tuple(labels.shape)} labels for {len(images)} images")
    if epochs < 1 or batch_size < 1 or not learning_rate > 0:
        raise ArgumentError("epochs, batch size and learning rate must be positive")
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=draw).split(batch_size):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
    optimizer.zero_grad()
