"""How good a model is, drawn: its calibration."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from clinode.figures.picture import INK, LOWER, QUIET, styled


def calibration_figure(bins: pd.DataFrame, probability: np.ndarray) -> Figure:
    """Observed frequency against predicted probability, with the spread of predictions below.

    Args:
        bins: One row a group: predicted, observed, low, high (all 0 to 1).
        probability: (subject,) all predictions, for the histogram.
    """
    with styled():
        figure = Figure(figsize=(5.6, 4.2), layout="constrained")
        top, under = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        top.plot([0, 1], [0, 1], color=QUIET, lw=0.8, ls=":", zorder=1)
        top.errorbar(
            bins["predicted"],
            bins["observed"],
            yerr=[
                (bins["observed"] - bins["low"]).clip(lower=0),
                (bins["high"] - bins["observed"]).clip(lower=0),
            ],
            fmt="o",
            color=LOWER,
            ecolor=LOWER,
            elinewidth=1,
            capsize=2.5,
            markersize=4.5,
        )
        top.set(ylabel="observed frequency", ylim=(-0.02, 1.02), xlim=(-0.02, 1.02))
        under.hist(probability, bins=np.linspace(0, 1, 41), color=INK, alpha=0.65)
        under.set(xlabel="predicted probability", ylabel="subjects")
        under.locator_params(axis="y", nbins=3)
    return figure
