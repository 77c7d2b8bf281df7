"""Predicted against actual effects of interventions, and how good models with the same data are."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clinode.alignment import Alignment
from clinode.figures.dynamics import axis_label
from clinode.figures.picture import INK, LINE, LOWER, QUIET, RAISE, styled
from clinode.statistics import Estimate

MARKS = ("o", "^", "s", "D")  # experiments of one site, of two, of three, of more


def alignment_figure(alignment: Alignment) -> Figure:
    """Every effect as predicted and as measured; beside it r, its twins and its ceiling.

    Where readings have several units, effects are drawn in sizes (root mean square) of each.
    """
    with styled():
        figure = Figure(figsize=(8.6, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
        _effects(left, alignment)
        _likeness(right, alignment)
        shown, names = left.get_legend_handles_labels()
        figure.legend(shown, names, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _effects(axis: Axes, alignment: Alignment) -> None:
    scale = alignment.scale
    predicted, actual = alignment.predicted / scale, alignment.actual / scale
    predicted = np.where(alignment.set_by_hand, np.nan, predicted)
    n_sites = np.array([name.count(" & ") + 1 for name in alignment.experiments])
    both = np.isfinite(predicted) & np.isfinite(actual)
    ends = np.concatenate([predicted[both], actual[both], [0.0]])
    low, high = float(ends.min()), float(ends.max())
    margin = 0.06 * (high - low or 1.0)
    axis.axline((0.0, 0.0), slope=1.0, color=LINE, lw=1.4, zorder=0, label="as predicted")
    axis.axhline(0.0, color=LINE, lw=0.6, zorder=0)
    axis.axvline(0.0, color=LINE, lw=0.6, zorder=0)
    if len(alignment.twins):
        _twin_bars(axis, alignment, both)
    for mark, k in zip(MARKS, range(1, len(MARKS) + 1), strict=True):
        rows = n_sites >= k if k == len(MARKS) else n_sites == k
        if rows.any():
            words = f"{k} site{'s' if k > 1 else ''}{' or more' if k == len(MARKS) else ''} at once"
            x, y, error = (values[rows].ravel() for values in
                           (predicted, actual, alignment.standard_error / scale))  # fmt: skip
            axis.errorbar(x, y, error if error.any() else None, fmt=mark, ms=4, mew=0.8, lw=0.8,
                          color=LOWER if k == 1 else RAISE, mfc="none" if k > 1 else LOWER,
                          label=words)  # fmt: skip
    axis.set_xlim(low - margin, high + margin)
    axis.set_ylim(low - margin, high + margin)
    units = {one.unit for one in alignment.readings}
    outputs = {one.output for one in alignment.readings}
    what = outputs.pop() if len(outputs) == 1 else "outputs"
    unit = units.pop() if len(units) == 1 else "in sizes of each"
    axis.set_xlabel(axis_label(f"predicted effect on {what}", unit))
    axis.set_ylabel(axis_label("actual effect", unit))
    lost = f", {len(alignment.lost)} not scored" if alignment.lost else ""
    axis.set_title(f"{alignment.scores.n_experiments} experiments{lost}", loc="left", fontsize=10)


def _twin_bars(axis: Axes, alignment: Alignment, both: np.ndarray) -> None:
    """Where the twins' predictions lie, behind each point."""
    twins = alignment.twins / alignment.scale
    rows = np.where(both & np.isfinite(twins).any(axis=0))
    low, high = np.nanquantile(twins[:, rows[0], rows[1]], [0.025, 0.975], axis=0)
    y = (alignment.actual / alignment.scale)[rows]
    axis.hlines(y, low, high, color=LINE, lw=0.7, zorder=0, label="95 % of models that fit as well")


def _likeness(axis: Axes, alignment: Alignment) -> None:
    rows: list[tuple[str, Estimate, str]] = [("all", alignment.r, INK)]
    if len(alignment.by_sites) > 1:
        for k, scores in alignment.by_sites.items():
            rows.append((f"{k} site{'s' if k > 1 else ''} at once", scores.r, INK))
    rows.append(("models that fit as well", alignment.twin_r, QUIET))
    rows.append(("seeing alone", alignment.seen_r, QUIET))
    rows = [row for row in rows if row[1].is_defined]
    places = np.arange(len(rows))[::-1]
    ceiling = alignment.ceiling
    if ceiling.is_defined:
        axis.axvspan(ceiling.low if ceiling.low == ceiling.low else ceiling.value, 1.0, color=LINE,
                     lw=0)  # fmt: skip
        axis.axvline(ceiling.value, color=QUIET, lw=1.2, ls="--")
        axis.text(ceiling.value, len(rows) - 0.45, "ceiling", ha="right", va="center", fontsize=8,
                  color=QUIET)  # fmt: skip
    for place, (_, estimate, color) in zip(places, rows, strict=True):
        axis.plot([estimate.low, estimate.high], [place, place], color=color, lw=1.4)
        axis.plot(estimate.value, place, "o", color=color, ms=5)
    axis.axvline(0.0, color=LINE, lw=0.8)
    axis.set_yticks(places, [name for name, _, _ in rows], color=INK)
    axis.set_ylim(-0.6, len(rows) - 0.2)
    axis.set_xlim(min(-0.05, *(e.low for _, e, _ in rows if e.low == e.low), 0.0) - 0.03, 1.02)
    axis.set_xlabel("correlation with the actual effects (1)")
    if alignment.identified is False:
        axis.set_title("not decided by what was observed", loc="left", fontsize=10, color=RAISE)
