"""What a memory holds and how it comes back, drawn."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from clinode.brain.memory import Recall, critical_load, recalled_overlap
from clinode.figures.picture import INK, LOWER, QUIET, RAISE, styled


def capacity_figure(
    loads: Float[np.ndarray, " load"], overlaps: Float[np.ndarray, " load"]
) -> Figure:
    """Overlap kept after recall over the load: simulated networks beside the mean field.

    Args:
        loads: Patterns per unit of the simulated networks.
        overlaps: Their mean overlap with the cue's pattern.
    """
    critical = critical_load()
    theory = np.linspace(0.01, critical * (1 - 1e-9), 120)
    with styled():
        figure = Figure(figsize=(5.6, 3.6), layout="constrained")
        axis = figure.subplots()
        kept = [recalled_overlap(load) for load in theory]
        axis.plot([*theory, critical, 0.2], [*kept, 0, 0], color=LOWER, lw=1.5, label="mean field")
        axis.plot(loads, overlaps, "o", color=RAISE, markersize=4.5, label="simulated")
        axis.axvline(critical, color=QUIET, lw=0.8, ls=":")
        axis.annotate(f"critical load {critical:.4f}", (critical, 0.45), xytext=(5, 0),
                      textcoords="offset points", fontsize=8, color=QUIET)  # fmt: skip
        axis.set_xlabel("load (patterns per unit)")
        axis.set_ylabel("overlap with the pattern (1)")
        axis.set(ylim=(-0.03, 1.05), xlim=(0, 0.2))
        axis.legend(fontsize=8, frameon=False, loc="lower left")
    return figure


def recall_figure(
    pattern: Float[Tensor, "row column"], cue: Float[Tensor, "row column"], recall: Recall
) -> Figure:
    """A pattern, what is shown of it (0 where nothing is), what comes back, and the energy.

    Args:
        pattern: The stored pattern as an image.
        cue: What the network was given.
        recall: What it returned, of this cue alone.
    """
    images = {"stored": pattern, "cue": cue, "recalled": recall.state.reshape(pattern.shape)}
    with styled():
        figure = Figure(figsize=(8.0, 2.4), layout="constrained")
        axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.5))
        for axis, (title, image) in zip(axes, images.items(), strict=False):
            axis.imshow(image.numpy(), cmap="gray", vmin=-1, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.set_title(title, fontsize=10)
            axis.spines[:].set_visible(True)
        axes[3].plot(recall.energy.numpy(), "o-", color=INK, lw=1.2, markersize=4)
        axes[3].set_xlabel("sweep (all units once)")
        axes[3].set_ylabel("energy (1)")
        axes[3].locator_params(axis="x", integer=True)
    return figure


def retrieval_figure(
    betas: Float[np.ndarray, " beta"],
    errors: Float[np.ndarray, " beta"],
    separation: float,
) -> Figure:
    """Error of one step of attention over its inverse temperature, beside the exponential law.

    Args:
        betas: Inverse temperatures.
        errors: Distance of the retrieved from the stored pattern.
        separation: Of the pattern from the one most like it, x' x - max x' y.
    """
    with styled():
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axis = figure.subplots()
        law = errors[-1] * np.exp(-separation * (betas - betas[-1]))
        axis.plot(betas, law, color=QUIET, lw=1.2, label="∝ exp(-β separation)")
        axis.plot(betas, errors, "o", color=LOWER, markersize=4.5, label="one step")
        axis.set_yscale("log")
        axis.set_xlabel("inverse temperature β (1)")
        axis.set_ylabel("error of retrieval (1)")
        axis.legend(fontsize=8, frameon=False)
    return figure
