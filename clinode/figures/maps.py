"""Attributions of images, and what is left of an output while pixels are removed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from clinode.errors import ArgumentError, printable
from clinode.figures.picture import INK, LOWER, QUIET, RAISE, styled

if TYPE_CHECKING:  # captum takes a second to load, and most figures do without
    from clinode.attribution import AttributionMap, RemovalCurves


def attribution_maps_figure(
    images: Tensor, maps: Mapping[str, "AttributionMap"], unit: str = "1"
) -> Figure:
    """Each image in a column, and below it its map by each method, or why there is none.

    Every row of maps has its own scale, the same to both sides of 0. A purple pixel lowered the
    output and an orange one raised it; the sign is told by a dot as well, hollow where it is below
    0, on pixels of a fifth of the largest size or more.

    Args:
        images: (image, row, column).
        maps: Of these images, by the name of the method.
        unit: Of the output that is attributed.

    Raises:
        ArgumentError: No map, or one of another shape.
    """
    if not maps or any(found.values.shape != images.shape for found in maps.values()):
        raise ArgumentError(f"there must be maps of the images' shape, {tuple(images.shape)}")
    n = len(images)
    with styled():
        size = (1.15 * n + 1.9, 1.25 * (len(maps) + 1) + 0.3)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(maps) + 1, n, squeeze=False)
        for axis, image in zip(axes[0], images.numpy(force=True), strict=True):
            axis.imshow(image, cmap="gray_r", interpolation="nearest")
        axes[0, 0].set_ylabel("image", color=INK, fontsize=8)
        for row, (name, found) in zip(axes[1:], maps.items(), strict=True):
            values = found.values.numpy(force=True)
            known = np.abs(values[np.isfinite(values)])
            most = float(known.max(initial=0.0)) or 1.0
            shown = None
            for axis, value, withheld in zip(row, values, found.withheld, strict=True):
                if withheld:
                    axis.text(0.5, 0.5, "withheld", ha="center", va="center", fontsize=8)
                    axis.set(xlim=(0, 1), ylim=(0, 1))
                    continue
                shown = axis.imshow(
                    value, cmap="PuOr_r", vmin=-most, vmax=most, interpolation="nearest"
                )
                for sign, face in ((1, INK), (-1, "none")):
                    y, x = np.nonzero(sign * value >= 0.2 * most)
                    axis.plot(x, y, "o", ms=2.2, mfc=face, mec=INK, mew=0.5)
            row[0].set_ylabel(printable(name).replace("_", "\n"), color=INK, fontsize=8)
            if shown is not None:
                bar = figure.colorbar(shown, ax=row.tolist(), shrink=0.85, aspect=12)
                bar.set_label(f"attribution ({printable(unit)})", fontsize=8)
                bar.ax.tick_params(labelsize=7)
        for axis in axes.ravel():
            axis.set(xticks=[], yticks=[])
    return figure


def removal_figure(curves: Mapping[str, "RemovalCurves"]) -> Figure:
    """Share of the change of the output that is left, by rank of each method and in random order.

    Raises:
        ArgumentError: There is no curve.
    """
    if not curves:
        raise ArgumentError("there is no curve to draw")
    with styled():
        figure = Figure(figsize=(5.0, 3.3), layout="constrained")
        axis = figure.subplots()
        looks: Sequence[tuple[str, str]] = ((LOWER, "o"), (RAISE, "s"), ("#3d7a4f", "^"))
        for k, (name, found) in enumerate(curves.items()):
            color, marker = looks[k % len(looks)]
            axis.plot(
                100 * found.fractions,
                found.by_rank.mean(axis=0),
                color=color,
                marker=marker,
                ms=4,
                lw=1.4,
                label=printable(name),
            )
        chance = next(iter(curves.values()))
        axis.plot(
            100 * chance.fractions,
            chance.at_random.mean(axis=0),
            color=QUIET,
            ls="--",
            label="random order",
        )
        axis.axhline(0, color=QUIET, lw=0.6)
        axis.set(xlabel="removed (% of entries)", ylabel="share of the change left, mean (1)")
        legend = axis.legend(frameon=False, fontsize=8)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure
