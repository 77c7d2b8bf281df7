"""What each input, held, does to the outputs that it moves most: a row of panels an input."""

from matplotlib.figure import Figure

from clinode.control.portrait import Portrait
from clinode.errors import printable
from clinode.figures.dynamics import axis_label, printed_unit
from clinode.figures.picture import INK, LINE, RAISE, styled

COLUMNS = 4  # outputs shown of each input
ROWS = 8  # inputs shown


def portrait_figure(portrait: Portrait) -> Figure:
    """Changes over time in the model itself, and as its linearization has them (dashed)."""
    units = {name: q.unit for q in portrait.outputs for name in q.names}
    wide = portrait.widest_responses(ROWS, COLUMNS)
    columns = max(len(outputs) for outputs in wide.values())
    with styled():
        figure = Figure(figsize=(2.1 * columns + 0.6, 1.55 * len(wide) + 0.5), layout="constrained")
        axes = figure.subplots(len(wide), columns, sharex=True, squeeze=False)
        for row, (name, outputs) in zip(axes, wide.items(), strict=True):
            for axis in row[len(outputs) :]:
                axis.set_visible(False)
            for axis, output in zip(row, outputs, strict=False):
                own = portrait.responses
                own = own[(own["input"] == name) & (own["output"] == output)]
                axis.axhline(0.0, color=LINE, lw=0.8)
                axis.plot(own["time"], own["linear"], color=RAISE, lw=1.1, ls="--")
                axis.plot(own["time"], own["change"], color=INK, lw=1.3)
                axis.set_title(_cut(output, 24), fontsize=9, loc="left", parse_math=False)
                axis.set_ylabel(_cut(printed_unit(units[output]), 16), fontsize=8, parse_math=False)
                axis.tick_params(labelsize=8)
                axis.margins(x=0)
            row[0].annotate(
                _cut(name, 60),
                (0, 1.22),
                xycoords="axes fraction",
                fontsize=10,
                fontweight="bold",
                annotation_clip=False,
                parse_math=False,
            )
        for axis in axes[-1]:
            axis.set_xlabel(axis_label("held for", portrait.time_unit), fontsize=8)
    return figure


def _cut(text: str, most: int) -> str:
    """A name as long as its panel: a longer one would leave the panel no room."""
    shown = printable(text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"
