"""Dissimilarities of stimuli, and how alike models are to subjects."""

import numpy as np
from matplotlib.figure import Figure

from clinode.errors import printable
from clinode.figures.picture import INK, LINE, LOWER, QUIET, styled
from clinode.similarity import RDM, ModelRanking, PairwiseComparisons

MOST_LABELS = 24  # of stimuli: beyond, they could not be read


def rdm_figure(rdm: RDM, title: str = "") -> Figure:
    """The square of dissimilarities; missing pairs are left white."""
    with styled():
        figure = Figure(figsize=(4.6, 3.9), layout="constrained")
        axis = figure.subplots()
        square = np.ma.masked_invalid(rdm.matrix.numpy())
        shown = axis.imshow(square, cmap="viridis", interpolation="nearest")
        axis.set_xlabel("stimulus")
        axis.set_ylabel("stimulus")
        if rdm.n_stimuli <= MOST_LABELS:
            names = [printable(label) for label in rdm.labels]
            axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7, parse_math=False)
            axis.set_yticks(range(len(names)), names, fontsize=7, parse_math=False)
        axis.set_title(printable(title), loc="left", fontsize=10, parse_math=False)
        figure.colorbar(shown, ax=axis, label=f"dissimilarity ({rdm.method}, 1)", shrink=0.85)
    return figure


def model_ranking_figure(ranking: ModelRanking) -> Figure:
    """Likeness of each model with its interval, between the bounds of the noise ceiling."""
    table = ranking.to_pandas()
    with styled():
        figure = Figure(figsize=(5.6, 0.32 * len(table) + 1.3), layout="constrained")
        axis = figure.subplots()
        places = np.arange(len(table))[::-1]
        ceiling = ranking.ceiling
        axis.axvspan(ceiling.lower, ceiling.upper, color=LINE, label="noise ceiling")
        axis.axvline(0.0, color=QUIET, lw=0.8)
        for place, row in zip(places, table.to_dict("records"), strict=True):
            color, marker = (LOWER, "o") if row["is_contender"] else (QUIET, "s")
            axis.plot([row["low"], row["high"]], [place, place], color=color, lw=1.4)
            axis.plot(row["likeness"], place, marker, color=color, ms=5)
        names = [printable(str(name)) for name in table["model"]]
        axis.set_yticks(places, names, color=INK, parse_math=False)
        axis.set_xlabel(f"likeness to {ceiling.n_subjects} subjects ({ceiling.method}, 1)")
        axis.plot([], [], "o-", color=LOWER, label="not told from the best")
        axis.plot([], [], "s-", color=QUIET, label="told from the best")
        shown, names = axis.get_legend_handles_labels()
        figure.legend(shown, names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def pairs_figure(found: PairwiseComparisons) -> Figure:
    """Likeness of each pair of representations, with its interval over stimuli."""
    table = found.to_pandas()
    with styled():
        figure = Figure(figsize=(5.6, 0.32 * len(table) + 1.0), layout="constrained")
        axis = figure.subplots()
        places = np.arange(len(table))[::-1]
        axis.axvline(0.0, color=QUIET, lw=0.8)
        for place, row in zip(places, table.to_dict("records"), strict=True):
            axis.plot([row["low"], row["high"]], [place, place], color=LOWER, lw=1.4)
            axis.plot(row["likeness"], place, "o", color=LOWER, ms=5)
        names = [
            printable(f"{a}, {b}") for a, b in zip(table["first"], table["second"], strict=True)
        ]
        axis.set_yticks(places, names, color=INK, parse_math=False)
        axis.set_ylim(-0.6, len(table) - 0.4)
        axis.set_xlabel(f"likeness over {found.n_stimuli} stimuli ({found.method}, 1)")
    return figure
