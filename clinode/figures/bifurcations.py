"""What a system does over a parameter, drawn: bifurcation diagrams and firing rates.

Every axis carries the name and the unit of what it shows.
"""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from clinode.dynamics.branch import Branch, SpecialPoint
from clinode.dynamics.onset import Onset
from clinode.errors import ArgumentError
from clinode.figures.dynamics import axis_label, frequency_unit
from clinode.figures.picture import INK, LOWER, RAISE, styled
from clinode.system import flat_names


def bifurcation_figure(branches: Branch | Sequence[Branch], state: str | None = None) -> Figure:
    """Equilibria and cycles over a parameter: solid where stable, dashed where not.

    Of cycles the lowest and the highest value is drawn. Special points are named, and the lines go
    through them: stability changes there, not at the nearest point of the branch.

    Args:
        branches: Of one parameter.
        state: The flat name of the state to draw; the first by default.

    Raises:
        ArgumentError: No branch, branches of several parameters, an unknown state.
    """
    branches = [branches] if isinstance(branches, Branch) else list(branches)
    if not branches or len({branch.parameter for branch in branches}) > 1:
        raise ArgumentError("branches of one parameter are drawn together, at least one")
    names = flat_names(branches[0].quantities)
    units = [q.unit for q in branches[0].quantities for _ in q.names]
    if state is not None and state not in names:
        raise ArgumentError(f"the branch has no state '{state}'")
    index = 0 if state is None else names.index(state)
    with styled():
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        axis = figure.subplots()
        for branch in branches:
            color = INK if branch.periods is None else LOWER
            values, lowest, highest, stable = _through_points(branch)
            for side in [lowest] if branch.periods is None else [lowest, highest]:
                _by_stability(axis, values, side[:, index], stable, color)
        notes = [p for branch in branches for p in _places(branch, index)]
        _name_points(axis, notes)
        axis.set_xlabel(axis_label(branches[0].parameter, branches[0].unit))
        axis.set_ylabel(axis_label(names[index], units[index]))
        handles = [
            Line2D([], [], color=INK, lw=1.6, label="stable"),
            Line2D([], [], color=INK, lw=1.2, ls=(0, (4, 2)), label="unstable"),
        ]
        if any(branch.periods is not None for branch in branches):
            handles.append(Line2D([], [], color=LOWER, lw=1.6, label="cycle, lowest and highest"))
        figure.legend(
            handles=handles, fontsize=8, frameon=False, loc="outside upper right", ncols=3
        )
    return figure


def frequency_figure(
    values: np.ndarray | Tensor,
    frequencies: np.ndarray | Tensor,
    *,
    parameter: str,
    unit: str,
    time_unit: str,
    law: tuple[np.ndarray, np.ndarray, str] | None = None,
) -> Figure:
    """Firing rate over the input, the f-I curve.

    Args:
        values: (point,), the input or another parameter.
        frequencies: (point,), cycles per time unit; 0 where it rests, NaN where unknown.
        parameter: Name of the parameter.
        unit: Its unit.
        time_unit: Of the system. Of "ms" and "s", frequencies are shown in Hz.
        law: A curve to compare with: values, frequencies per time unit, and what it is called.
    """
    factor, name = frequency_unit(time_unit)
    with styled():
        figure = Figure(figsize=(5.6, 3.8), layout="constrained")
        axis = figure.subplots()
        at = np.asarray(torch.as_tensor(values).detach())
        rate = factor * np.asarray(torch.as_tensor(frequencies).detach())
        axis.plot(at, rate, "o-" if law is None else "o", color=LOWER, lw=1.3, markersize=3.5,
                  label="computed")  # fmt: skip
        if law is not None:
            axis.plot(law[0], factor * np.asarray(law[1]), color=RAISE, lw=1.1, label=law[2])
            axis.legend(fontsize=8, frameon=False, loc="lower right")
        axis.set_xlabel(axis_label(parameter, unit))
        axis.set_ylabel(axis_label("frequency", name))
        axis.set_ylim(bottom=0)
        axis.grid(color="#eaeef2", lw=0.8)
    return figure


def onset_figure(onset: Onset) -> Figure:
    """The f-I curve from the onset of firing on: stable cycles, and the law they begin with.

    Args:
        onset: With a branch of cycles.

    Raises:
        ArgumentError: No firing was found.
    """
    cycles = onset.cycles
    if cycles is None or cycles.periods is None:
        raise ArgumentError(f"there is no firing to draw: {onset.verdict}")
    order = np.argsort(cycles.values)
    stable = order[cycles.stable[order]]
    values, frequencies = cycles.values[stable], 1 / cycles.periods[stable]
    law = None
    if onset.law is not None and onset.law.kind == "sqrt" and onset.law.coefficient is not None:
        start = float(onset.value.detach())
        at = np.linspace(start, values.max(), 200)
        law = (at, onset.law.coefficient * np.sqrt(at - start), "square-root law of its onset")
    return frequency_figure(
        values, frequencies, parameter=cycles.parameter, unit=cycles.unit,
        time_unit=cycles.time_unit, law=law,
    )  # fmt: skip


def _through_points(branch: Branch) -> tuple[np.ndarray, ...]:
    """Values, lowest and highest states and stability along a branch and its special points.

    Each stands on the segment that it is nearest to, and has the stability of what comes behind it.
    """
    table = np.column_stack([branch.values, branch.lowest, branch.highest])
    places, rows = [], []
    for point in branch.points:
        row = _special_row(branch, point)
        if row is not None and len(table) > 1:
            places.append(_place_along(table, row))
            rows.append(row)
    order = np.argsort(places, kind="stable")
    behind = np.clip(np.ceil([places[i] for i in order]).astype(int), 0, len(table))
    merged = np.insert(table, behind, [rows[i] for i in order], axis=0) if rows else table
    stable = np.insert(branch.stable, behind, branch.stable[behind.clip(max=len(table) - 1)])
    n = branch.lowest.shape[1]
    return merged[:, 0], merged[:, 1 : n + 1], merged[:, n + 1 :], stable


def _special_row(branch: Branch, point: SpecialPoint) -> np.ndarray | None:
    """The parameter, lowest and highest states there; None where a cycle is not known."""
    value = [float(point.value.detach())]
    if branch.periods is None:
        state = point.state.detach().numpy()
        return np.concatenate([value, state, state])
    if point.cycle is None:
        return None
    states = point.cycle.states.detach().numpy()
    return np.concatenate([value, states.min(axis=0), states.max(axis=0)])


def _place_along(table: np.ndarray, row: np.ndarray) -> float:
    """Where on the line through the rows of a table a row is nearest, counted in its segments."""
    width = np.ptp(table, axis=0)
    scaled, at = (part / np.where(width > 0, width, 1.0) for part in (table, row))
    start, step = scaled[:-1], np.diff(scaled, axis=0)
    length = np.maximum((step**2).sum(axis=1), 1e-300)
    part = ((at - start) * step).sum(axis=1) / length
    gap = ((start + part.clip(0, 1)[:, None] * step - at) ** 2).sum(axis=1)
    k = int(gap.argmin())
    inside = 1e-9  # a point that is one of the branch stands behind it
    first, last = k == 0, k == len(step) - 1
    return k + float(np.clip(part[k], -inside if first else inside, 1 + last * inside))


def _by_stability(axis: Axes, x: np.ndarray, y: np.ndarray, stable: np.ndarray, color: str) -> None:
    """One line a piece of equal stability; pieces meet, so that no gap is drawn between them."""
    edges = np.flatnonzero(np.diff(stable.astype(int))) + 1
    for a, b in zip([0, *edges], [*edges, len(x)], strict=True):
        piece = slice(a, min(b + 1, len(x)))
        width, dashes = (1.7, "-") if stable[a] else (1.2, (0, (4, 2)))
        axis.plot(x[piece], y[piece], color=color, lw=width, ls=dashes)


_SHORT = {
    "fold": "fold",
    "hopf": "Hopf",
    "branch point": "branch point",
    "cycle fold": "fold of cycles",
    "period doubling": "period doubling",
    "torus": "torus",
}


def _places(branch: Branch, index: int) -> list[tuple[float, float, str]]:
    places = []
    for point in branch.points:
        value = float(point.value.detach())
        height = float(point.state.detach()[index])
        row = _special_row(branch, point)
        if row is not None:
            height = float(row[1 + branch.lowest.shape[1] + index])  # of a cycle, its highest value
        places.append((value, height, _described(point)))
    return places


def _described(point: SpecialPoint) -> str:
    text = _SHORT.get(point.kind, point.kind)
    if point.kind == "hopf" and point.criticality in ("subcritical", "supercritical"):
        text = f"{point.criticality} Hopf"
    return f"{text} {float(point.value.detach()):.4g}"


def _name_points(axis: Axes, notes: list[tuple[float, float, str]]) -> None:
    """Dots with their names beside them, each where it covers least of curves and other names."""
    low, bottom = axis.get_xlim()[0], axis.get_ylim()[0]
    scale = np.array(_AXIS_POINTS) / [axis.get_xlim()[1] - low, axis.get_ylim()[1] - bottom]
    lines = [np.column_stack([line.get_xdata(), line.get_ydata()]) for line in axis.get_lines()]
    inked = np.concatenate([_densely((line - [low, bottom]) * scale) for line in lines])
    for value, height, text in sorted(notes):
        axis.plot(value, height, "o", color=RAISE, markersize=5, zorder=6)
        place = (np.array([value, height]) - [low, bottom]) * scale
        size = np.array([4.5 * len(text), 10.0])
        shifts = [np.array([x, y]) for y in (0, 10, -10, 21, -21) for x in (7, -7 - size[0])]
        costs = [_covered(place + shift - [0, 5], size, inked) for shift in shifts]
        shift = shifts[int(np.argmin(costs))]
        corner = place + shift - [0, 5]
        cells = np.stack(np.meshgrid(*(np.linspace(0, side, 12) for side in size)), -1)
        inked = np.concatenate([inked, corner + cells.reshape(-1, 2)])
        axis.annotate(
            text, (value, height), xytext=tuple(shift), textcoords="offset points", fontsize=8,
            color=RAISE, ha="left", va="center",
        )  # fmt: skip


_AXIS_POINTS = (390.0, 255.0)  # width and height of the axes of a bifurcation diagram, about


def _densely(line: np.ndarray) -> np.ndarray:
    """Points of a line, (point, 2), close enough together to be counted under a name."""
    steps = np.linspace(0, 1, 8)[:, None, None]
    return (line[:-1] + steps * np.diff(line, axis=0)).reshape(-1, 2)


def _covered(corner: np.ndarray, size: np.ndarray, inked: np.ndarray) -> int:
    """How many points a name would cover; very many where it would leave the axes."""
    outside = (corner < 0).any() or (corner + size > np.array(_AXIS_POINTS)).any()
    return 10_000 * int(outside) + int(((inked > corner) & (inked < corner + size)).all(-1).sum())
