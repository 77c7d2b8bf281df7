"""Which layer of a small network trained on digits is most like a stage of a simulated cortex.

    python scripts/benchmarks/digits_layers.py [--seeds 20] [--first-seed 200]

`EnergyNetwork` learns filters from labels and does with them what `EnergyCortex` does with Gabors,
so the layer to be found for each stage is known: "energy" for V1, "pooled" for the pooled stage. In
an ordinary convolutional network of like sizes no layer is known to be right; it is asked the same.
Both are trained on 1,200 of scikit-learn's digits and compared with the cortex on 120 others: by
RDMs of squared distances and Pearson's correlation, by debiased linear CKA, and by RDMs of five
subjects who measure the stage with noise of half its spread, compared plainly and whitened.
"""

import argparse
import time
from collections import Counter, defaultdict

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from clinode.similarity import (
    EnergyCortex,
    EnergyNetwork,
    cka,
    compare,
    fit_labels,
    layer_patterns,
    rdm,
)

LAYERS = ("pixels", "filters", "energy", "pooled", "hidden", "label")
RIGHT = {"v1": "energy", "pooled": "pooled"}
N_TRAIN, N_SHOWN, N_SUBJECTS, NOISE = 1200, 120, 5, 0.5


class Rectified(nn.Module):
    """An ordinary network: filters, rectified, averaged over quarters, a hidden layer."""

    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.pixels = nn.Identity()
        self.filters = nn.Conv2d(1, 24, 5, padding=2)
        self.energy = nn.ReLU()
        self.pooled = nn.AvgPool2d(4)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(96, 64), nn.ReLU())
        self.label = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the labels."""
        seen = self.energy(self.filters(self.pixels(images).unsqueeze(1)))
        return self.label(self.hidden(self.pooled(seen)))


def main():
    """Train, compare, count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=200)
    args = parser.parse_args()
    given = load_digits()
    images, labels = torch.tensor(given.images / 16).float(), torch.tensor(given.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, rest = order[:N_TRAIN], order[N_TRAIN:]
    kinds = {
        "energy": lambda seed: EnergyNetwork(seed=seed),
        "energy, untrained": lambda seed: EnergyNetwork(seed=seed),
        "rectified": Rectified,
    }
    for name, make in kinds.items():
        found, accuracy, began = defaultdict(Counter), [], time.perf_counter()
        margins = defaultdict(list)
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            network = make(seed)
            if "untrained" not in name:
                fit_labels(network, images[train], labels[train], seed=seed)
            right = network(images[rest]).argmax(1) == labels[rest]
            accuracy.append(float(right.float().mean()))
            for stage, by_method in likenesses(network, images[rest[:N_SHOWN]], seed).items():
                for method, likeness in by_method.items():
                    found[stage, method][max(likeness, key=likeness.__getitem__)] += 1
                    others = max(v for k, v in likeness.items() if k != RIGHT[stage])
                    margins[stage, method].append(likeness[RIGHT[stage]] - others)
        seconds = (time.perf_counter() - began) / args.seeds
        print(f"{name}: {np.mean(accuracy):.3f} of other digits right, {seconds:.1f} s a seed")
        for (stage, method), counts in found.items():
            margin = np.array(margins[stage, method])
            print(
                f"  {stage:7s} {method:18s} {RIGHT[stage]} in "
                f"{counts[RIGHT[stage]]} of {args.seeds}"
                f" (margin {margin.mean():.3f}, least {margin.min():.3f}); {dict(counts)}"
            )


def likenesses(network: nn.Module, shown: Tensor, seed: int) -> dict[str, dict[str, dict]]:
    """By stage and method, the likeness of each layer."""
    layers = {name: x.numpy() for name, x in layer_patterns(network, shown, LAYERS).items()}
    models = {name: rdm(x) for name, x in layers.items()}
    cortex, draw = EnergyCortex(), np.random.default_rng(seed)
    found = {}
    for stage in RIGHT:
        answers = getattr(cortex, stage)(shown).numpy()
        whole = rdm(answers)
        noise = NOISE * answers.std()
        people = [rdm(answers + noise * draw.normal(size=answers.shape)) for _ in range(N_SUBJECTS)]
        found[stage] = {
            "RDM": {k: compare(one, whole, "corr").value for k, one in models.items()},
            "CKA": {k: cka(x, answers, debiased=True).value for k, x in layers.items()},
        }
        for method in ("corr", "corr_cov"):
            found[stage][f"subjects, {method}"] = {
                k: float(np.mean([compare(one, person, method).value for person in people]))
                for k, one in models.items()
            }
    return found


if __name__ == "__main__":
    main()
