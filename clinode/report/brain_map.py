"""The regions seen from above: what one region alone moves as size, the ranking as mark.

Geometry is computed here and drawn by `templates/brain_map.svg`. Where a connectome has no centers
there is no map.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clinode.errors import printable

WIDTH, MARGIN = 760, 150
TOP = 36
SMALLEST, LARGEST = 4.0, 15.0  # radius of a region, in the picture's units
STRONGEST = 0.08  # share of the connections that are drawn
MOST_LINES = 400
NAMED = 8  # regions that carry their name


@dataclass(frozen=True)
class BrainMap:
    """Everything the template draws, in the units of the picture."""

    width: int
    height: int
    lines: list[dict[str, str]]
    regions: list[dict[str, Any]]
    description: str


def brain_map(
    labels: Sequence[str],
    centers: np.ndarray,
    weights: np.ndarray,
    reach: np.ndarray,
    ranks: dict[str, int],
    aimed: set[str],
) -> BrainMap:
    """Lay out the regions.

    Args:
        labels: Of the regions.
        centers: (region, 3), in mm; x to the right, y to the front.
        weights: (region, region).
        reach: (region,), NaN where a region is no candidate.
        ranks: Of the best candidates by label, 1 the cheapest.
        aimed: Labels of the regions aimed at.
    """
    place, height = _placed(centers)
    told = reach[np.isfinite(reach)]
    least, spread = (told.min(), max(float(np.ptp(told)), 1e-300)) if len(told) else (0.0, 1.0)
    order = sorted(range(len(labels)), key=lambda i: -ranks.get(labels[i], len(labels)))
    regions = []
    for i in order:
        known, is_right = math.isfinite(reach[i]), place[i, 0] > WIDTH / 2
        radius = SMALLEST
        if known:
            radius += (LARGEST - SMALLEST) * float((reach[i] - least) / spread)
        rank = ranks.get(labels[i])
        name = printable(labels[i])
        regions.append(
            {
                "x": f"{place[i, 0]:.1f}",
                "y": f"{place[i, 1]:.1f}",
                "r": f"{radius:.1f}",
                "style": "s" if rank else ("n" if known else "k"),
                "ring": f"{radius + 4:.1f}" if labels[i] in aimed else None,
                "label": f"{rank} {name}" if rank and rank <= NAMED else None,
                "anchor": "" if is_right else "e",
                "text_x": f"{place[i, 0] + (1 if is_right else -1) * (radius + 5):.1f}",
                "text_y": f"{place[i, 1] + 4:.1f}",
                "title": f"{name}: reach {reach[i]:.3g}" if known else f"{name}: no candidate",
            }
        )
    best = sorted(ranks, key=lambda name: ranks[name])[:NAMED]
    return BrainMap(
        width=WIDTH,
        height=height,
        lines=_lines(place, weights),
        regions=regions,
        description=f"{len(labels)} regions seen from above, the front on top. Discs grow "
        "from the region that moves least when stimulated to the one that moves most. Filled "
        "discs are the cheapest targets: "
        + ", ".join(f"{ranks[name]} {printable(name)}" for name in best)
        + ". A ring marks a region aimed at.",
    )


def _placed(centers: np.ndarray) -> tuple[np.ndarray, int]:
    """Centers in the picture, front on top, and its height."""
    flat = np.asarray(centers, dtype=float)[:, :2]
    low, span = flat.min(axis=0), np.ptp(flat, axis=0)
    scale = (WIDTH - 2 * MARGIN) / max(span[0], 0.6 * span[1], 1e-9)
    height = round(span[1] * scale + 2 * TOP)
    x = WIDTH / 2 + (flat[:, 0] - low[0] - span[0] / 2) * scale
    return np.stack([x, TOP + (low[1] + span[1] - flat[:, 1]) * scale], axis=1), height


def _lines(place: np.ndarray, weights: np.ndarray) -> list[dict[str, str]]:
    """The strongest connections, either way."""
    both = np.triu(np.maximum(np.abs(weights), np.abs(weights).T), 1)
    first, second = np.nonzero(both)
    sizes = both[first, second]
    count = min(MOST_LINES, math.ceil(STRONGEST * len(sizes)))
    kept = np.argsort(-sizes, kind="stable")[:count]
    return [
        {
            "path": "M{:.1f} {:.1f}L{:.1f} {:.1f}".format(*place[first[k]], *place[second[k]]),
            "width": f"{0.4 + 2.0 * sizes[k] / sizes.max():.2f}",
        }
        for k in kept
    ]
