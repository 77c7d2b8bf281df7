"""A connectome where none is at hand: two hemispheres, named regions, a rule of distance.

It is nobody's brain, and the default of what the package shows without data.
"""

import numpy as np
import torch
from scipy.sparse import csgraph

from clinode.errors import ArgumentError

from .connectome import Connectome


def simulate_connectome(n_regions: int = 68, seed: int = 0) -> Connectome:
    """A generated connectome of two hemispheres with named regions: nobody's brain.

    Regions have the names and the rough places of the 34 cortical areas of Desikan et al. 2006
    (NeuroImage 31:968-980), `lh_precuneus`; above 68 areas are divided (`lh_precuneus_2`). Weights
    fall exponentially with distance (the rule of Ercsey-Ravasz et al. 2013, Neuron 80:184-197),
    times log-normal variation; between hemispheres they are weak except between mirrored regions.
    The strongest three tenths are kept, and what it takes to join all regions. Undirected, the
    largest weight is 1.

    Args:
        n_regions: Even, at least 4.
        seed: Of the random draws.

    Raises:
        ArgumentError: An odd number of regions, or less than 4.

    Example:
        >>> simulate_connectome(68, seed=1).verdict
        '68 regions, 1368 weights, undirected'
    """
    if n_regions < 4 or n_regions % 2:
        raise ArgumentError(f"two hemispheres need an even number from 4 on, got {n_regions}")
    rng = np.random.default_rng(seed)
    half = n_regions // 2
    names, places = [], []
    for i in range(half):
        name, place = _AREAS[i % len(_AREAS)]
        division = i // len(_AREAS)
        names.append(name if division == 0 else f"{name}_{division + 1}")
        places.append(np.array(place) + (division > 0) * rng.normal(0, 8, 3))
    right = np.stack(places)
    centers = np.concatenate([right * [-1, 1, 1], right]) + rng.normal(0, 2, (n_regions, 3))
    distance = np.linalg.norm(centers[:, None] - centers, axis=-1)
    weights = _distance_rule(distance, rng)
    return Connectome(
        weights=torch.tensor(weights / weights.max()),
        labels=tuple(f"{side}_{name}" for side in ("lh", "rh") for name in names),
        centers=torch.tensor(centers),
        tract_lengths=torch.tensor(_CURVATURE * distance * (weights > 0)),
    )


_DECAY_MM = 25.0  # distance over which a weight falls to 1 / e
_VARIATION = 0.8  # standard deviation of the logarithm of a weight about the rule
_BETWEEN = 0.2  # weight between hemispheres, relative to the same distance within one
_MIRRORED = 0.3  # weight between mirrored regions, relative to that of touching ones
_DENSITY = 0.3
_CURVATURE = 1.2  # length of a tract relative to the straight line


def _distance_rule(distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = len(distance)
    half = n // 2
    weights = np.exp(-distance / _DECAY_MM)
    weights[:half, half:] *= _BETWEEN
    mirrored = np.arange(half)
    weights[mirrored, mirrored + half] = _MIRRORED
    weights *= np.exp(rng.normal(0, _VARIATION, (n, n)))
    weights = np.triu(weights, 1)
    kept = weights >= np.quantile(weights[np.triu_indices(n, 1)], 1 - _DENSITY)
    strongest_tree = csgraph.minimum_spanning_tree(np.where(weights > 0, 1 / (1 + weights), 0.0))
    kept |= strongest_tree.toarray() > 0
    weights = weights * kept
    return weights + weights.T


# Names of Desikan et al. 2006 with rough centers in the right hemisphere (mm), no atlas's values.
_AREAS = (
    ("precuneus", (10, -58, 36)),
    ("superiorfrontal", (12, 26, 40)),
    ("insula", (38, 0, 2)),
    ("precentral", (40, -8, 44)),
    ("superiorparietal", (22, -62, 50)),
    ("superiortemporal", (54, -14, -4)),
    ("pericalcarine", (12, -80, 6)),
    ("posteriorcingulate", (6, -18, 38)),
    ("entorhinal", (24, -8, -34)),
    ("lateralorbitofrontal", (24, 28, -16)),
    ("rostralmiddlefrontal", (34, 42, 18)),
    ("inferiorparietal", (44, -66, 28)),
    ("middletemporal", (56, -24, -14)),
    ("lateraloccipital", (32, -88, 0)),
    ("postcentral", (44, -22, 46)),
    ("rostralanteriorcingulate", (6, 36, 4)),
    ("fusiform", (36, -44, -20)),
    ("parahippocampal", (25, -32, -16)),
    ("supramarginal", (52, -34, 32)),
    ("caudalmiddlefrontal", (36, 10, 48)),
    ("inferiortemporal", (50, -32, -26)),
    ("medialorbitofrontal", (6, 36, -16)),
    ("cuneus", (8, -80, 18)),
    ("lingual", (14, -66, -4)),
    ("paracentral", (8, -28, 58)),
    ("isthmuscingulate", (10, -46, 16)),
    ("caudalanteriorcingulate", (6, 17, 28)),
    ("parsopercularis", (46, 14, 14)),
    ("parstriangularis", (46, 30, 4)),
    ("parsorbitalis", (42, 38, -12)),
    ("bankssts", (52, -42, 8)),
    ("transversetemporal", (46, -20, 8)),
    ("temporalpole", (30, 12, -34)),
    ("frontalpole", (10, 62, -10)),
)
