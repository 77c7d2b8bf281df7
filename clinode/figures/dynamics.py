"""What a system does, drawn: traces, phase planes, basins, impedance.

What it does over a parameter is in `clinode.figures.bifurcations`.

Every axis carries the name and the unit of what it shows.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from clinode.dynamics.basins import Basins
from clinode.dynamics.cycles import LimitCycle
from clinode.dynamics.equilibria import Equilibrium
from clinode.dynamics.response import Impedance
from clinode.dynamics.separatrix import Separatrix
from clinode.dynamics.simulate import Trajectory
from clinode.errors import ArgumentError
from clinode.figures.picture import INK, LINE, LOWER, QUIET, RAISE, styled
from clinode.system import Quantity, System, flat_names

COLORS = (LOWER, RAISE, "#2f7d5b", "#7b4a94", "#9a7d0a", QUIET)
FEW = 6  # members of a block that are drawn as lines; more are drawn as an image


def axis_label(name: str, unit: str) -> str:
    """ "V (mV)"; only the name where there is no unit."""
    return name if unit == "1" else f"{name} ({printed_unit(unit)})"


def printed_unit(unit: str) -> str:
    """A unit as it is printed: "uA/cm**2" becomes "µA/cm²".

    Example:
        >>> printed_unit("uA/cm**2")
        'µA/cm²'
    """
    text = re.sub(r"\*\*2|\^2", "²", unit)
    text = re.sub(r"\*\*0\.5", "½", text).replace("percent", "%")
    return re.sub(r"\bu(?=[A-Z])", "µ", text).replace("*", "·")


def traces_figure(
    trajectory: Trajectory,
    names: Sequence[str] | None = None,
    *,
    member: int | tuple[int, ...] = (),
) -> Figure:
    """States and outputs over time, one panel each; a large block as an image.

    Args:
        trajectory: What `simulate` returned.
        names: Quantities to draw; all states by default.
        member: Which trajectory of a batch.

    Raises:
        ArgumentError: A name that is neither a state nor an output.
    """
    index = member if isinstance(member, tuple) else (member,)
    quantities = {q.name: (q, trajectory.outputs, _offset(trajectory.output_quantities, q.name))
                  for q in trajectory.output_quantities}  # fmt: skip
    quantities |= {q.name: (q, trajectory.states, _offset(trajectory.state_quantities, q.name))
                   for q in trajectory.state_quantities}  # fmt: skip
    names = [q.name for q in trajectory.state_quantities] if names is None else list(names)
    for name in names:
        if name not in quantities:
            raise ArgumentError(f"there is no state or output '{name}' in this trajectory")
    times = trajectory.times.detach()
    times = (times if times.ndim == 1 else times[index]).cpu().numpy()
    with styled():
        figure = Figure(figsize=(7.2, 0.9 + 1.35 * len(names)), layout="constrained")
        axes = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
        for axis, name in zip(axes, names, strict=True):
            quantity, values, start = quantities[name]
            rows = values[index].detach().cpu().numpy()[:, start : start + quantity.size]
            block(axis, times, rows, quantity)
        axes[-1].set_xlabel(axis_label("time", trajectory.time_unit))
    return figure


def block(axis: Axes, times: np.ndarray, rows: np.ndarray, quantity: Quantity) -> None:
    """One quantity over time, rows (time, member): a line a member, or an image of many."""
    if quantity.size > FEW:
        image = axis.pcolormesh(
            times, np.arange(quantity.size), rows.T, cmap="viridis", shading="nearest",
            rasterized=True,
        )  # fmt: skip
        label = axis_label(quantity.name, quantity.unit)
        _figure(axis).colorbar(image, ax=axis, label=label, pad=0.01)
        axis.set_ylabel(f"{quantity.name}, member")
        return
    labels = quantity.labels or (None,)
    for i, label in enumerate(labels):
        color = INK if quantity.size == 1 else COLORS[i % len(COLORS)]
        axis.plot(times, rows[:, i], color=color, lw=1.1, label=label)
    axis.set_ylabel(axis_label(quantity.name, quantity.unit))
    axis.margins(x=0)
    if quantity.labels:
        above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.1}
        axis.legend(fontsize=8, frameon=False, ncols=quantity.size, columnspacing=1, **above)


def phase_plane_figure(
    system: System,
    u: Any = 0.0,
    *,
    states: tuple[str, str] | None = None,
    box: Mapping[str, tuple[float, float]] | None = None,
    equilibria: Sequence[Equilibrium] = (),
    trajectories: Sequence[Tensor | np.ndarray] = (),
    n: int = 201,
) -> Figure:
    """Vector field, nullclines, equilibria and trajectories in a plane of two states.

    Nullclines are the contours of dx/dt = 0 and dy/dt = 0 of the field on a fine grid, so that
    vertical, horizontal and closed pieces are drawn like any other.

    Args:
        system: A flow.
        u: Its constant input.
        states: Names of the states on the axes; the first two by default. All other states are
            held at the first equilibrium given, else at their defaults.
        box: Limits of the axes by state name; the states' ranges by default.
        equilibria: Drawn filled where stable, open where not.
        trajectories: (time, state) each.
        n: Points of the grid along each axis.

    Raises:
        ArgumentError: Less than two states, an unknown name, or no limits for a state.
    """
    with styled():
        figure = Figure(figsize=(5.4, 4.6), layout="constrained")
        handles = phase_plane_axis(
            figure.subplots(), system, u, states=states, box=box, equilibria=equilibria,
            paths=trajectories, n=n,
        )  # fmt: skip
        figure.legend(
            handles=handles, fontsize=8, frameon=False, loc="outside upper right", ncols=2
        )
    return figure


def phase_plane_axis(
    axis: Axes,
    system: System,
    u: Any = 0.0,
    *,
    states: tuple[str, str] | None = None,
    box: Mapping[str, tuple[float, float]] | None = None,
    equilibria: Sequence[Equilibrium] = (),
    paths: Sequence[Tensor | np.ndarray] | Tensor = (),
    n: int = 201,
) -> list[Line2D]:
    """`phase_plane_figure` in one axis; the entries of its legend."""
    x, y = _plane(system, states)
    limits = [_limits(system, i, box) for i in (x, y)]
    X, Y, rate_x, rate_y = _field_on_grid(system, u, (x, y), limits, equilibria, n)
    _arrows(axis, X, Y, rate_x, rate_y, limits)
    labels = [quantity_of(system, i) for i in (x, y)]
    handles = []
    for rate, color, name in ((rate_x, LOWER, labels[0][0]), (rate_y, RAISE, labels[1][0])):
        axis.contour(X, Y, rate, levels=[0.0], colors=[color], linewidths=1.6)
        handles.append(Line2D([], [], color=color, lw=1.6, label=f"d{name}/dt = 0"))
    for path in paths:
        rows = torch.as_tensor(path).detach().numpy()
        axis.plot(rows[:, x], rows[:, y], color=INK, lw=1.0)
    for one in equilibria:
        _rest(axis, one, (x, y))
    axis.set(xlim=limits[0], ylim=limits[1])
    axis.set_xlabel(axis_label(*labels[0]))
    axis.set_ylabel(axis_label(*labels[1]))
    return handles


def basin_figure(basins: Basins, separatrix: Separatrix | None = None) -> Figure:
    """Basins of attraction of two states as areas of color, their attractors on them.

    Args:
        basins: On a grid.
        separatrix: The boundary, drawn over it.

    Raises:
        ArgumentError: Basins of a sample, or of a grid over more or less than two states.
    """
    if len(basins.axes) != 2:
        raise ArgumentError(
            f"a map needs a grid over two states, this one has {len(basins.axes)}",
            fix="basins of two states, n a number",
        )
    names = flat_names(basins.quantities)
    units = [q.unit for q in basins.quantities for _ in q.names]
    fills = [to_rgb(COLORS[i % len(COLORS)]) for i in range(len(basins.attractors))]
    palette = np.array([*fills, to_rgb("#3a3a3a"), to_rgb(LINE)])  # the last two: labels -2, -1
    picture = palette[basins.labels.T]
    x, y = basins.axes
    with styled():
        figure = Figure(figsize=(5.4, 4.7), layout="constrained")
        axis = figure.subplots()
        axis.pcolormesh(x, y, 0.45 + 0.55 * picture, shading="nearest", rasterized=True)
        pale = 0.45 + 0.55 * palette
        handles: list[Patch | Line2D] = [
            Patch(color=pale[i], label=_share(basins, i)) for i in range(len(fills))
        ]
        for one in basins.attractors:
            place = one.states if isinstance(one, LimitCycle) else one.state[None]
            rows = place.detach().numpy()
            axis.plot(rows[:, 0], rows[:, 1], "-" if len(rows) > 1 else "o", color=INK, lw=1.6,
                      markersize=6.5)  # fmt: skip
        if separatrix is not None:
            axis.plot(*separatrix.points.T[:2], color=INK, lw=1.1, ls=(0, (4, 2)))
            handles.append(Line2D([], [], color=INK, lw=1.1, ls=(0, (4, 2)), label="separatrix"))
        for label, text in ((-1, "undecided"), (-2, "without bound")):
            if (basins.labels == label).any():
                handles.append(Patch(color=pale[label], label=text))
        axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        axis.set_xlabel(axis_label(names[0], units[0]))
        axis.set_ylabel(axis_label(names[1], units[1]))
        figure.legend(
            handles=handles, fontsize=8, frameon=False, loc="outside upper right", ncols=3
        )
    return figure


def impedance_figure(response: Impedance) -> Figure:
    """Magnitude and phase of an impedance over frequency, its resonance marked."""
    factor, unit = frequency_unit(response.time_unit)
    frequencies = factor * response.frequencies.detach().numpy()
    with styled():
        figure = Figure(figsize=(5.8, 4.4), layout="constrained")
        top, under = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        top.plot(frequencies, response.magnitude.detach().numpy(), color=LOWER, lw=1.5)
        under.plot(frequencies, np.rad2deg(response.phase.detach().numpy()), color=LOWER, lw=1.5)
        under.axhline(0, color=QUIET, lw=0.8)
        if response.resonance_frequency is not None and response.resonance_magnitude is not None:
            peak = factor * float(response.resonance_frequency.detach())
            for axis in (top, under):
                axis.axvline(peak, color=RAISE, lw=1.0, ls=(0, (4, 2)))
            top.annotate(
                f"resonance {peak:.3g} {'' if unit == '1' else printed_unit(unit)}".strip(),
                (peak, response.resonance_magnitude), xytext=(6, 2), color=RAISE,
                textcoords="offset points", fontsize=8, va="bottom",
            )  # fmt: skip
            top.margins(y=0.15)
        ratio = response.unit if response.unit != "1 / (1)" else "1"
        top.set_ylabel(axis_label("|Z|", _ratio(ratio)))
        under.set_ylabel("phase (°)")
        under.set_xlabel(axis_label("frequency", unit))
        if frequencies.min() > 0 and frequencies.max() / frequencies.min() > 50:
            under.set_xscale("log")
    return figure


def frequency_unit(time_unit: str) -> tuple[float, str]:
    """What turns cycles per time unit into the unit they are shown in, and that unit."""
    if time_unit in ("ms", "s"):
        return {"ms": 1000.0, "s": 1.0}[time_unit], "Hz"
    return 1.0, "1" if time_unit == "1" else f"1/{time_unit}"


def quantity_of(system: System, index: int) -> tuple[str, str]:
    """Flat name and unit of a position on the state axis."""
    units = [q.unit for q in system.states for _ in q.names]
    return system.state_names[index], units[index]


def _share(basins: Basins, index: int) -> str:
    kind = "cycle" if isinstance(basins.attractors[index], LimitCycle) else "rest"
    return f"{kind} {index + 1}: {basins.fractions[index].value:.1%}"


def _ratio(unit: str) -> str:
    over, _, under = unit.partition(" / ")
    return {("mV", "(pA)"): "GΩ", ("mV", "(nA)"): "MΩ"}.get((over, under), unit)


def _figure(axis: Axes) -> Figure:
    figure = axis.get_figure()
    assert isinstance(figure, Figure)  # of a subplot, always
    return figure


def _offset(quantities: Sequence[Quantity], name: str) -> int:
    start = 0
    for quantity in quantities:
        if quantity.name == name:
            return start
        start += quantity.size
    return start


def _plane(system: System, states: tuple[str, str] | None) -> tuple[int, int]:
    names = system.state_names
    if len(names) < 2:
        raise ArgumentError(f"{type(system).__name__} has one state, a plane needs two")
    for name in states or ():
        if name not in names:
            raise ArgumentError(f"{type(system).__name__} has no state '{name}'")
    return (names.index(states[0]), names.index(states[1])) if states else (0, 1)


def _limits(
    system: System, index: int, box: Mapping[str, tuple[float, float]] | None
) -> tuple[float, float]:
    name = system.state_names[index]
    if box is not None and name in box:
        return box[name]
    span = [q.range for q in system.states for _ in q.names][index]
    if span is None:
        raise ArgumentError(f"state '{name}' has no range", fix=f"box={{'{name}': (low, high)}}")
    return span


def _field_on_grid(
    system: System, u: Any, plane: tuple[int, int], limits: list[tuple[float, float]],
    equilibria: Sequence[Equilibrium], n: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Grid and rates (y, x) of a plane through the state space."""
    x, y = (torch.linspace(*side, n, dtype=torch.float64) for side in limits)
    Y, X = torch.meshgrid(y, x, indexing="ij")
    held = equilibria[0].state.detach() if equilibria else system.initial_state()
    at = held.to(torch.float64).expand(n, n, -1).clone()
    at[..., plane[0]], at[..., plane[1]] = X, Y
    given = torch.as_tensor(u, dtype=torch.float64)
    given = given.expand(system.n_inputs) if given.ndim == 0 else given
    with torch.no_grad():
        rate = system(0.0, at, given).numpy()
    return X.numpy(), Y.numpy(), rate[..., plane[0]], rate[..., plane[1]]


def _arrows(axis: Axes, X, Y, rate_x, rate_y, limits: list[tuple[float, float]]) -> None:
    """Directions of the field on a coarse grid, in the proportions of the picture."""
    step = max(1, len(X) // 20)
    rows = slice(step // 2, None, step)
    u = rate_x[rows, rows] / (limits[0][1] - limits[0][0])
    v = rate_y[rows, rows] / (limits[1][1] - limits[1][0])
    length = np.hypot(u, v)
    length[length == 0] = 1
    axis.quiver(
        X[rows, rows], Y[rows, rows], u / length, v / length,
        color=LINE, scale=28, width=0.0032, pivot="mid", zorder=0,
    )  # fmt: skip


def _rest(axis: Axes, one: Equilibrium, plane: tuple[int, int]) -> None:
    place = one.state.detach()[list(plane)].tolist()
    face = INK if one.is_stable else "white"
    axis.plot(*place, "o", markersize=6.5, markerfacecolor=face, markeredgecolor=INK, zorder=5)
