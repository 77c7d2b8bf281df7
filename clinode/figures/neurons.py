"""Neurons, drawn: what one does under a step of current, and how fast it fires."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clinode.brain import spike_rate
from clinode.dynamics import Trajectory, simulate
from clinode.errors import ArgumentError
from clinode.system import Quantity, Signal, System

from .dynamics import COLORS, axis_label
from .picture import INK, LOWER, QUIET, RAISE, styled

POINTS = 2001  # of a trace


def neuron_figure(
    neuron: System,
    current: float,
    duration: float,
    *,
    onset: float | None = None,
    currents: Sequence[float] = (),
    seconds: float | None = None,
    method: str = "dopri5",
    step: float | None = None,
    generator: torch.Generator | None = None,
) -> Figure:
    """A step of current, what each state does under it, and the firing rate over the current.

    States of one unit share a panel; spikes of a neuron that resets are marked above its voltage,
    as the state itself does not show them. An angle is drawn within one turn.

    Args:
        neuron: A system with one input, the current; with an event "spike" where `currents` are
            given.
        current: The step, in the input's unit.
        duration: How long the trace is, in time units.
        onset: When the step comes; after a tenth of the duration by default.
        currents: Where the firing rate is measured; no such panel without.
        seconds: Duration of each of those measurements in time units, of which the first half is
            left out; `duration` by default.
        method: As in `simulate`.
        step: As in `simulate`.
        generator: As in `simulate`, for a neuron with noise.

    Raises:
        ArgumentError: More than one input, or rates of a neuron without the event "spike".
    """
    if neuron.n_inputs != 1:
        raise ArgumentError(
            f"{type(neuron).__name__} has {neuron.n_inputs} inputs, a step of current needs one"
        )
    if len(currents) and not any(event.name == "spike" for event in neuron.events):
        raise ArgumentError(f"{type(neuron).__name__} has no event 'spike' to count")
    start = duration / 10 if onset is None else onset
    drive = Signal([0.0, start], [[0.0], [current]])
    times = torch.linspace(0, duration, POINTS, dtype=torch.float64)
    solve = {"method": method, "step": step, "generator": generator}
    trace = simulate(neuron, neuron.initial_state(), times, drive, **solve)
    groups = _by_unit(neuron.states)
    with styled():
        width = 7.2 if len(currents) else 5.2
        figure = Figure(figsize=(width, 1.6 + 1.5 * len(groups)), layout="constrained")
        ratios = [1.7, 1.0] if len(currents) else [1.0]
        left, *right = figure.subfigures(1, len(ratios), squeeze=False, width_ratios=ratios)[0]
        panels = left.subplots(
            len(groups) + 1, 1, sharex=True, height_ratios=[0.5] + [1.0] * len(groups)
        )
        input_ = neuron.inputs[0]
        panels[0].plot(times, drive(times).squeeze(-1), color=RAISE, lw=1.4)
        panels[0].set_ylabel(axis_label(input_.name, input_.unit))
        for axis, members in zip(panels[1:], groups, strict=True):
            _traces(axis, trace, members)
        if any(event.reset is not None for event in neuron.events):
            _mark_spikes(panels[1], trace)
        panels[-1].set_xlabel(axis_label("time", neuron.time_unit))
        left.align_ylabels()
        if len(currents):
            _rates(right[0].subplots(), neuron, currents, seconds or duration, solve)
    return figure


def _by_unit(states: Sequence[Quantity]) -> list[list[tuple[int, Quantity]]]:
    """States with their places, those of one unit together."""
    groups: dict[str, list[tuple[int, Quantity]]] = {}
    for place, quantity in enumerate(states):
        groups.setdefault(quantity.unit, []).append((place, quantity))
    return list(groups.values())


def _traces(axis: Axes, trace: Trajectory, members: list[tuple[int, Quantity]]) -> None:
    times, states = trace.times.numpy(), trace.states.detach().numpy()
    alone = len(members) == 1
    for color, (place, quantity) in zip(COLORS, members, strict=False):
        values = states[:, place]
        if quantity.unit == "rad":
            values = (values + np.pi) % (2 * np.pi) - np.pi
            values[1:][np.abs(np.diff(values)) > np.pi] = np.nan  # no line back across the turn
        axis.plot(times, values, color=INK if alone else color, lw=1.1, label=quantity.name)
    names = ", ".join(quantity.name for _, quantity in members)
    axis.set_ylabel(axis_label(names, members[0][1].unit))
    axis.margins(x=0)
    if not alone:
        axis.legend(fontsize=8, frameon=False, loc="upper right", ncols=len(members))


def _mark_spikes(axis: Axes, trace: Trajectory) -> None:
    spikes = trace.events.loc[trace.events["name"] == "spike", "time"]
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.15 * (high - low))
    axis.vlines(spikes, high, high + 0.12 * (high - low), color=LOWER, lw=1.0)


def _rates(
    axis: Axes, neuron: System, currents: Sequence[float], duration: float, solve: dict
) -> None:
    u = torch.as_tensor(currents, dtype=torch.float64).unsqueeze(-1)
    ends = torch.tensor([0.0, duration], dtype=torch.float64)
    x0 = neuron.initial_state().expand(len(u), -1)
    rates = spike_rate(simulate(neuron, x0, ends, u, **solve), after=duration / 2)
    unit = f"1/{neuron.time_unit}"
    if neuron.time_unit == "ms":
        rates, unit = 1e3 * rates, "Hz"
    axis.plot(currents, rates, color=LOWER, marker="o", ms=3, lw=1.2)
    axis.axhline(0, color=QUIET, lw=0.6)
    input_ = neuron.inputs[0]
    axis.set_xlabel(axis_label(input_.name, input_.unit))
    axis.set_ylabel(axis_label("firing rate", "1" if unit == "1/1" else unit))
