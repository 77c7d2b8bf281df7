"""Stimuli within their limits, and what they do: predicted, simulated, in closed loop."""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from clinode.control.stimulation.adaptive import AdaptiveRun
from clinode.control.stimulation.stimulus import Stimulus, course_of
from clinode.errors import ArgumentError
from clinode.figures.dynamics import COLORS, axis_label
from clinode.figures.picture import INK, LOWER, QUIET, RAISE, styled
from clinode.system import Quantity, Signal, flat_names

MOST = 4  # inputs or targets that are drawn, those that move most


def stimulus_figure(stimulus: Stimulus) -> Figure:
    """A designed stimulus with its limits, and its predicted and simulated effect.

    Of many inputs those of most energy are drawn, of many targets those that have the longest way.
    """
    names = flat_names(stimulus.input_quantities)
    knots, values = _drawn(stimulus.signal)
    knots, values = np.append(knots, stimulus.horizon), np.append(values, values[-1:], axis=0)
    baseline = stimulus.signal.values[-1].numpy()
    strength = {n: np.abs(values[:, names.index(n)] - baseline[names.index(n)]).sum()
                for n in stimulus.inputs}  # fmt: skip
    inputs = sorted(strength, key=lambda n: -strength[n])[:MOST]
    way = {n: abs(v - course_of(stimulus.simulated, n)[0]) for n, v in stimulus.target.items()}
    targets = sorted(way, key=lambda n: -way[n])[:MOST]
    with styled():
        height = 2.1 + 1.35 * len(targets)
        figure = Figure(figsize=(7.2, 0.9 + height), layout="constrained")
        axes = figure.subplots(
            1 + len(targets), 1, sharex=True, height_ratios=(2.0, *[1.35] * len(targets))
        )
        top = axes[0]
        for i, name in enumerate(inputs):
            place = names.index(name)
            top.plot(knots, values[:, place], color=COLORS[i], lw=1.2, label=name)
            _limits(top, stimulus, name, baseline[place], COLORS[i])
        units = {u for q in stimulus.input_quantities for n, u in _units(q) if n in inputs}
        top.set_ylabel(axis_label("stimulus", units.pop() if len(units) == 1 else "1"))
        _legend_above(top, len(inputs))
        for axis, name in zip(axes[1:], targets, strict=True):
            _response(axis, stimulus, name)
        axes[-1].set_xlabel(axis_label("time", stimulus.time_unit))
        axes[-1].set_xlim(0, stimulus.horizon)
        figure.suptitle(textwrap.fill(stimulus.verdict, 92), fontsize=9, color=QUIET, x=0.01,
                        ha="left")  # fmt: skip
        figure.legend(handles=_meanings(), fontsize=8, frameon=False, ncols=3,
                      loc="outside lower right")  # fmt: skip
    return figure


def adaptive_figure(run: AdaptiveRun, output: str) -> Figure:
    """A closed loop: an output over time, and below it the stimulus that was asked and given.

    Args:
        run: From `adaptive_stimulation`.
        output: Flat name of the output or state to draw.

    Raises:
        ArgumentError: An unknown name.
    """
    known = flat_names((*run.trajectory.state_quantities, *run.trajectory.output_quantities))
    if output not in known:
        raise ArgumentError(f"the run has no state or output '{output}'")
    quantities = (*run.trajectory.state_quantities, *run.trajectory.output_quantities)
    unit = next(u for q in quantities for name, u in _units(q) if name == output)
    interval = float(run.decisions[1] - run.decisions[0]) if len(run.decisions) > 1 else 0.0
    edges = np.append(run.decisions.numpy(), float(run.decisions[-1]) + interval)
    size = run.amplitudes.abs().sum(dim=0).numpy()
    with styled():
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        top, under = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        top.plot(run.trajectory.times.numpy(), course_of(run.trajectory, output), color=INK, lw=1.0)
        top.set_ylabel(axis_label(output, unit))
        for i, place in enumerate(np.argsort(-size)[:MOST]):
            label = run.inputs[place]
            under.stairs(run.amplitudes[:, place].numpy(), edges, color=COLORS[i], lw=1.4,
                         label=label, baseline=None)  # fmt: skip
            under.stairs(run.asked[:, place].numpy(), edges, color=COLORS[i], lw=0.8,
                         ls=(0, (2, 2)), baseline=None)  # fmt: skip
        given = run.amplitudes.abs().max().item()
        if given and run.asked.abs().max() > 1.5 * given:  # what was cut may lie far outside
            under.set_ylim(-1.25 * given, 1.25 * given)
        under.set_ylabel("amplitude,\ngiven and asked (dashed)")
        under.set_xlabel(axis_label("time", run.trajectory.time_unit))
        under.set_xlim(0, edges[-1])
        _legend_above(under, len(run.inputs))
        figure.suptitle(textwrap.fill(run.verdict, 92), fontsize=9, color=QUIET, x=0.01, ha="left")
    return figure


def _drawn(signal: Signal) -> tuple[np.ndarray, np.ndarray]:
    """Knots and values as the line to draw: steps have two points a knot."""
    knots, values = signal.knots.numpy(), signal.values.detach().numpy()
    if signal.hold == "linear":
        return knots, values
    held = np.concatenate([values[:1], values[:-1]])
    return np.repeat(knots, 2), np.stack([held, values], axis=1).reshape(-1, values.shape[1])


def _limits(axis: Axes, stimulus: Stimulus, name: str, baseline: float, color: str) -> None:
    """The amplitude limit of an input as dashed lines."""
    for row in stimulus.limits.rows:
        if row.limit == "amplitude" and row.input == name:
            for side in (-1, 1):
                axis.axhline(baseline + side * row.allowed, color=color, lw=0.8, ls=(0, (4, 2)))


def _response(axis: Axes, stimulus: Stimulus, name: str) -> None:
    times = stimulus.simulated.times.numpy()
    axis.plot(times, course_of(stimulus.predicted, name), color=RAISE, lw=1.2, ls=(0, (4, 2)))
    axis.plot(times, course_of(stimulus.simulated, name), color=LOWER, lw=1.5)
    axis.plot([stimulus.horizon], [stimulus.target[name]], "o", color=INK, markersize=5,
              clip_on=False)  # fmt: skip
    both = (*stimulus.simulated.state_quantities, *stimulus.simulated.output_quantities)
    unit = next(u for q in both for known, u in _units(q) if known == name)
    axis.set_ylabel(axis_label(name.replace(":", ":\n"), unit), fontsize=9)


def _meanings() -> list[Line2D]:
    return [
        Line2D([], [], color=RAISE, lw=1.2, ls=(0, (4, 2)), label="linear theory"),
        Line2D([], [], color=LOWER, lw=1.5, label="simulated"),
        Line2D([], [], color=INK, marker="o", ls="", markersize=5, label="target"),
    ]


def _legend_above(axis: Axes, n: int) -> None:
    above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.1}
    axis.legend(fontsize=8, frameon=False, ncols=n, columnspacing=1, **above)


def _units(quantity: Quantity) -> list[tuple[str, str]]:
    return [(name, quantity.unit) for name in quantity.names]
