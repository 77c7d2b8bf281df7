"""When events come, drawn: incidences of competing causes over the time after a landmark."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from clinode.errors import ArgumentError
from clinode.figures.picture import INK, LOWER, QUIET, RAISE, styled

COLORS = (RAISE, LOWER, QUIET)


def incidence_figure(
    hours: Float[np.ndarray, " hour"],
    incidence: Float[np.ndarray, "hour cause"],
    names: Sequence[str],
    *,
    observed: Float[np.ndarray, "hour cause"] | None = None,
) -> Figure:
    """Cumulative incidence of up to three causes, one upon the other, and the survival above them.

    Args:
        hours: After the prediction time, ascending.
        incidence: As predicted; of a subject, or the mean of several.
        names: Of the causes.
        observed: As Aalen and Johansen have it in the same subjects; drawn in dashes.

    Raises:
        ArgumentError: There are more than three causes, or not one name for each.
    """
    n_causes = incidence.shape[1]
    if n_causes > len(COLORS) or len(names) != n_causes:
        raise ArgumentError(f"expected 1 to 3 causes and a name for each, got {n_causes}")
    unit, scale = ("d", 24.0) if hours[-1] > 96 else ("h", 1.0)
    unit, scale = ("a", 8766.0) if hours[-1] > 2 * 8766 else (unit, scale)
    stacked = np.cumsum(incidence, axis=1)
    x = hours / scale
    with styled():
        figure = Figure(figsize=(5.6, 3.6), layout="constrained")
        axes = figure.subplots()
        below = np.zeros(len(x))
        for top, name, color in zip(stacked.T, names, COLORS, strict=False):
            axes.fill_between(x, below, top, color=color, alpha=0.35, lw=0)
            axes.plot(x, top, color=color, lw=1.4)
            middle = (below[-1] + top[-1]) / 2
            axes.annotate(name, (x[-1], middle), (4, 0), textcoords="offset points", va="center")
            below = top
        if observed is not None:
            for top in np.cumsum(observed, axis=1).T:
                axes.step(x, top, where="post", color=INK, lw=1, ls="--")
        axes.annotate(
            "event-free",
            (x[-1], (1 + below[-1]) / 2),
            (4, 0),
            textcoords="offset points",
            va="center",
        )
        axes.set(
            xlabel=f"time after the landmark ({unit})",
            ylabel="cumulative incidence",
            xlim=(0, x[-1]),
            ylim=(0, 1),
        )
    return figure
