"""Which variables, and which kinds of cause, moved a model's output, drawn."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from clinode.figures.picture import LOWER, QUIET, RAISE, styled

if TYPE_CHECKING:  # captum takes a second to load, and most figures do without
    from clinode.attribution import KindAttributions

KINDS = {
    "values": ("what was measured", LOWER, "o"),
    "ordering": ("which tests were ordered", RAISE, "s"),
    "timing": ("when they were taken", QUIET, "^"),
}


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


def kinds_figure(found: "KindAttributions") -> Figure:
    """Values, ordering and timing: of the cohort how much of all they are, and of each subject.

    On the left the share of each in all absolute contributions, with its interval over subjects; on
    the right every subject's three contributions, subjects in order of their output.

    Args:
        found: As `explain_kinds` gives it.
    """
    table, told = found.to_pandas(), found.cohort()
    order = np.argsort(table["output"].to_numpy(), kind="stable")
    with styled():
        figure = Figure(figsize=(7.6, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
        for place, (name, (words, color, marker)) in enumerate(KINDS.items()):
            share = told[name]["share"]
            if share.is_defined:
                left.barh(-place, 100 * share.value, height=0.55, color=color, alpha=0.75)
                left.hlines(-place, 100 * share.low, 100 * share.high, color="black", lw=1.4)
            look = {"ls": "none", "ms": 3, "mfc": "none", "mew": 0.8}
            right.plot(
                np.arange(len(table)),
                table[name].to_numpy()[order],
                marker=marker,
                color=color,
                label=words,
                **look,
            )
        left.set_yticks(-np.arange(len(KINDS)), [words for words, _, _ in KINDS.values()])
        left.set(xlabel="share of all contributions (%)", xlim=(0, 100))
        right.axhline(0, color="black", lw=0.8)
        right.set(xlabel="subjects, lowest output first", ylabel=f"contribution ({found.scale})")
        right.legend(frameon=False, fontsize=8)
    return figure
