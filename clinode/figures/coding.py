"""Codes beside each other: how accurate with how many bits, and what a read-out costs."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from clinode.coding import Code, ReadoutAccuracy
from clinode.errors import ArgumentError, printable
from clinode.figures.picture import LOWER, QUIET, RAISE, styled

COLORS = (LOWER, RAISE, "#3d7a4f", "#7a4f8f", "#8a6d1f", QUIET)


def coding_figure(codes: Mapping[str, Code], most_bits: int = 10) -> Figure:
    """Accuracy against bits, and the time and spikes of a read-out, for each code by its name.

    Raises:
        ArgumentError: No code, or a number of bits that is not from 1 to 24.
    """
    if not codes:
        raise ArgumentError("there is no code to draw")
    tried = range(1, most_bits + 1)
    with styled():
        figure = Figure(figsize=(7.2, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        for k, (name, code) in enumerate(codes.items()):
            look = {"color": COLORS[k % len(COLORS)], "marker": "osD^v<"[k % 6]}
            accuracies = [code.accuracy(bits) for bits in tried]
            left.plot(tried, accuracies, lw=1.4, ms=5, label=printable(name), **look)
            right.plot(
                1e3 * code.seconds,
                code.spikes,
                ls="none",
                ms=5 + 3 * k,
                mfc="none",
                clip_on=False,
                **look,
            )
        left.set(xlabel="bits of a read-out", ylabel="accuracy of the Bayes decoder (1)")
        left.set_ylim(0, 1.03)
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.set(xlabel="time of a read-out (ms)", ylabel="spikes of a read-out, mean")
        right.set_xlim(left=0, right=1.15e3 * max(code.seconds for code in codes.values()) or 1.0)
        right.set_ylim(bottom=0, top=1.15 * max(code.spikes for code in codes.values()) or 1.0)
        drawn, names = left.get_legend_handles_labels()
        legend = figure.legend(drawn, names, loc="outside lower center", ncols=3, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def readout_figure(
    told: Mapping[str, Sequence[ReadoutAccuracy]], measured: Mapping[str, Mapping[int, float]]
) -> Figure:
    """Share of right labels against bits, as foretold (two deviations of one reading) and measured.

    Args:
        told: Of each code by its name, one a number of bits.
        measured: Shares by number of bits, for those codes that were simulated.

    Raises:
        ArgumentError: Nothing was foretold.
    """
    if not told or not all(told.values()):
        raise ArgumentError("there is no accuracy to draw")
    with styled():
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axis = figure.subplots()
        for k, (name, found) in enumerate(told.items()):
            color, marker = COLORS[k % len(COLORS)], "osD^v<"[k % 6]
            bits = [one.bits for one in found]
            low = [one.accuracy - 2 * one.spread for one in found]
            high = [one.accuracy + 2 * one.spread for one in found]
            axis.fill_between(bits, low, high, color=color, alpha=0.2, lw=0)
            axis.plot(bits, [one.accuracy for one in found], color=color, lw=1.4)
            seen = measured.get(name, {})
            axis.plot(list(seen), list(seen.values()), marker, color=color, ms=5, mfc="none")
            axis.plot([], [], color=color, marker=marker, mfc="none", label=printable(name))
        axis.axhline(
            next(iter(told.values()))[0].undisturbed,
            color=QUIET,
            lw=0.8,
            ls="--",
            label="values known",
        )
        axis.set(xlabel="bits of each neuron's read-out", ylabel="share of right labels (1)")
        axis.set_ylim(0, 1.03)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        drawn, names = axis.get_legend_handles_labels()
        legend = figure.legend(drawn, names, loc="outside lower center", ncols=3, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure
