"""Which variables moved a model's output, drawn."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from clinode.figures.picture import LOWER, RAISE, styled


def ranking_figure(ranking: pd.DataFrame, labels: list[str]) -> Figure:
    """Mean absolute contribution of each variable, per subject and per measurement.

    Args:
        ranking: One row a variable, largest first: per_subject, per_subject_low, per_subject_high,
            per_measurement, per_measurement_low, per_measurement_high (log-odds).
        labels: Names to print, one a row.
    """
    with styled():
        figure = Figure(figsize=(7.6, 0.9 + 0.27 * len(ranking)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        place = np.arange(len(ranking))[::-1]
        for axis, column, color, title in (
            (left, "per_subject", LOWER, "per subject"),
            (right, "per_measurement", RAISE, "per measurement"),
        ):
            value = ranking[column].to_numpy()
            low, high = ranking[f"{column}_low"].to_numpy(), ranking[f"{column}_high"].to_numpy()
            axis.hlines(place, low, high, color=color, lw=1.2)
            axis.plot(value, place, "o", color=color, markersize=4)
            axis.set_xlabel("mean |contribution| (log-odds)", fontsize=9)
            axis.set_title(title, fontsize=10)
            axis.set_xlim(left=0)
            axis.grid(axis="y", color="#eaeef2", lw=0.8)
            axis.set_axisbelow(True)
        left.set_yticks(place, labels, fontsize=9)
    return figure
