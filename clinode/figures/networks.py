"""Connectomes and what networks on them do, drawn."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from clinode.brain.bold import recorded
from clinode.brain.connectome import Connectome
from clinode.dynamics.simulate import Trajectory
from clinode.errors import ArgumentError
from clinode.figures.dynamics import axis_label
from clinode.figures.picture import INK, LOWER, QUIET, styled
from clinode.system import Quantity

STRONGEST = 0.25  # share of the connections that the map shows
NAMED = 40  # more regions than this are numbered on the axes, not named


def connectome_figure(connectome: Connectome) -> Figure:
    """The matrix of weights, and where there are centers the regions seen from above."""
    has_map = connectome.centers is not None
    with styled():
        figure = Figure(figsize=(9.6 if has_map else 5.4, 4.3), layout="constrained")
        axes = figure.subplots(1, 2 if has_map else 1, squeeze=False)[0]
        _matrix(figure, axes[0], connectome)
        if has_map:
            _from_above(axes[1], connectome)
    return figure


def network_figure(trajectory: Trajectory, name: str = "E") -> Figure:
    """A block of all regions over time as an image, their mean below.

    Args:
        trajectory: Of a network, one.
        name: The states or outputs to draw.

    Raises:
        ArgumentError: No block of this name, or more than one trajectory.
    """
    times, rows, quantity = _of_one(trajectory, name)
    with styled():
        height = 4.4 if quantity.size > NAMED else 2.2 + 0.12 * quantity.size
        figure = Figure(figsize=(7.4, max(4.4, height)), layout="constrained")
        top, under = figure.subplots(2, 1, sharex=True, height_ratios=(height - 1.2, 1.2))
        place = np.arange(quantity.size)
        image = top.pcolormesh(times, place, rows.T, cmap="viridis", shading="nearest",
                               rasterized=True)  # fmt: skip
        label = axis_label(name, quantity.unit)
        figure.colorbar(image, ax=top, label=label, pad=0.01)
        _region_ticks(top, quantity.labels)
        under.plot(times, rows.mean(axis=1), color=LOWER, lw=1.2)
        under.set_ylabel(f"mean {label}")
        under.set_xlabel(axis_label("time", trajectory.time_unit))
        under.margins(x=0)
    return figure


def region_traces_figure(connectome: Connectome, trajectory: Trajectory, name: str) -> Figure:
    """What each region of a network does, one trace above the other, beside the weights.

    Args:
        connectome: Of the network.
        trajectory: Of the network, one.
        name: The states or outputs to draw.

    Raises:
        ArgumentError: No block of this name, more than one trajectory, or a block that is not one
            of the connectome's regions.
    """
    times, rows, quantity = _of_one(trajectory, name)
    if quantity.labels != connectome.labels:
        raise ArgumentError(f"'{name}' does not have the regions of this connectome")
    spacing = 1.15 * float(np.ptp(rows, axis=0).max()) or 1.0
    with styled():
        figure = Figure(figsize=(10.4, max(3.6, 1.6 + 0.22 * quantity.size)), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
        _matrix(figure, left, connectome)
        base = -spacing * np.arange(quantity.size)
        right.plot(times, rows - rows.mean(axis=0) + base, color=LOWER, lw=0.9)
        right.set_yticks(base, quantity.labels, fontsize=7)
        end = times[-1] + 0.02 * (times[-1] - times[0])
        right.plot([end, end], [base[-1], base[-1] + spacing], color=INK, lw=2, clip_on=False)
        unit = "" if quantity.unit == "1" else f" {quantity.unit}"
        right.set_title(f"{name} about its mean; the bar is {spacing:.2g}{unit}", fontsize=10)
        right.set_xlabel(axis_label("time", trajectory.time_unit))
        right.margins(x=0.02)
    return figure


def _of_one(trajectory: Trajectory, name: str) -> tuple[np.ndarray, np.ndarray, Quantity]:
    """Times, values (time, region) of a block, and what it is."""
    values, quantity = recorded(trajectory, name)
    if values.ndim != 2:
        raise ArgumentError("a figure shows one trajectory, and these are several")
    return trajectory.times.numpy(), values.detach().numpy(), quantity


def _matrix(figure: Figure, axis: Axes, connectome: Connectome) -> None:
    weights = connectome.weights.numpy()
    most = np.abs(weights).max() or 1.0
    signed = (weights < 0).any()
    image = axis.imshow(
        np.where(weights == 0, np.nan, weights),
        cmap="RdBu_r" if signed else "Blues", vmin=-most if signed else 0, vmax=most,
        interpolation="nearest",
    )  # fmt: skip
    figure.colorbar(image, ax=axis, label="weight (arbitrary units)", shrink=0.85, pad=0.02)
    if connectome.n_regions <= NAMED:
        place = np.arange(connectome.n_regions)
        axis.set_xticks(place, connectome.labels, fontsize=7, rotation=90)
        axis.set_yticks(place, connectome.labels, fontsize=7)
    axis.set_xlabel("sends")
    axis.set_ylabel("receives")
    axis.set_title(f"{connectome.n_regions} regions", fontsize=10)


def _from_above(axis: Axes, connectome: Connectome) -> None:
    assert connectome.centers is not None  # asked before
    place, weights = connectome.centers.numpy()[:, :2], connectome.weights.abs().numpy()
    both = np.triu(np.maximum(weights, weights.T), 1)
    strong = both[both > 0]
    shown = np.argwhere(both >= np.quantile(strong, 1 - STRONGEST)) if len(strong) else []
    lines = [place[[i, j]] for i, j in shown]
    widths = [0.3 + 2.2 * both[i, j] / strong.max() for i, j in shown]
    axis.add_collection(LineCollection(lines, colors=QUIET, alpha=0.4, linewidths=widths, zorder=1))
    total = weights.sum(axis=1)
    size = 15 + 110 * total / (total.max() or 1.0)
    axis.scatter(*place.T, s=size, color=LOWER, edgecolor="white", lw=0.8, zorder=2)
    axis.set_aspect("equal")
    axis.set_xlabel("x, left to right (mm)")
    axis.set_ylabel("y, back to front (mm)")
    axis.set_title(f"from above, the strongest {STRONGEST:.0%} of connections", fontsize=10,
                   color=INK)  # fmt: skip


def _region_ticks(axis: Axes, labels: tuple[str, ...]) -> None:
    if len(labels) <= NAMED:
        axis.set_yticks(np.arange(len(labels)), labels, fontsize=6)
    else:
        axis.set_ylabel("region, in the connectome's order")
