"""Synapses, drawn: what a train of spikes opens, lets through and uses up."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clinode.brain import FluctuatingConductance, ShortTermPlasticity
from clinode.dynamics import simulate
from clinode.errors import ArgumentError
from clinode.system import Signal, System

from .dynamics import axis_label
from .picture import INK, LOWER, QUIET, RAISE, styled

POINTS = 2001  # of a trace


def synapse_figure(
    synapse: System, spikes: Sequence[float], duration: float, *, V: float = -70.0
) -> Figure:
    """The conductance that spikes open, the current at a held voltage, and over the voltage.

    Args:
        synapse: A synapse with inputs `spikes` and `V`.
        spikes: Times of the presynaptic spikes, in time units.
        duration: How long the trace is.
        V: Voltage at which the cell is held.

    Raises:
        ArgumentError: A system with other inputs.
    """
    if synapse.input_names != ("spikes", "V"):
        raise ArgumentError(
            f"{type(synapse).__name__} has inputs {', '.join(synapse.input_names)}, expected "
            "spikes and V"
        )
    amounts = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(len(spikes), 2)
    train = Signal([0.0], [[0.0, V]], impulses=(sorted(spikes), amounts))
    times = torch.linspace(0, duration, POINTS, dtype=torch.float64)
    trace = simulate(synapse, synapse.initial_state(), times, train)
    outputs = synapse.split(trace.outputs, synapse.outputs)
    with styled():
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1.7, 1])[0]
        top, middle, bottom = left.subplots(3, 1, sharex=True, height_ratios=[0.25, 1, 1])
        _raster(top, spikes)
        for axis, name, color in ((middle, "conductance", LOWER), (bottom, "I", RAISE)):
            quantity = next(q for q in synapse.outputs if q.name == name)
            axis.plot(times, outputs[name].squeeze(-1).numpy(), color=color, lw=1.2)
            axis.set_ylabel(axis_label(name, quantity.unit))
            axis.margins(x=0)
        bottom.set_title(f"V held at {V:g} mV", fontsize=9, loc="right")
        bottom.set_xlabel(axis_label("time", synapse.time_unit))
        left.align_ylabels()
        peak = outputs["conductance"].argmax()
        _current_voltage(right.subplots(), synapse, trace.states[peak])
    return figure


def plasticity_figure(synapses: dict[str, ShortTermPlasticity], spikes: Sequence[float]) -> Figure:
    """What each spike of a train releases, and the rate that gets through at a steady rate.

    Args:
        synapses: To compare, by the name that the legend gives them.
        spikes: Times of the spikes, ms.
    """
    train = torch.as_tensor(sorted(spikes), dtype=torch.float64)
    rates = torch.logspace(-4, -1, 200, dtype=torch.float64)
    with styled():
        figure = Figure(figsize=(7.2, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.7, 1])
        for color, (name, synapse) in zip(
            (LOWER, RAISE, INK, QUIET), synapses.items(), strict=False
        ):
            left.plot(
                train, synapse.release(train), color=color, marker="o", ms=3, lw=0.8, label=name
            )
            right.plot(1e3 * rates, 1e3 * _released(synapse, rates), color=color, lw=1.4)
        left.set(xlabel="time (ms)", ylabel="released fraction, u x", ylim=(0, None))
        left.legend(frameon=False, fontsize=9)
        right.set(xlabel="presynaptic rate (Hz)", ylabel="u x rate (Hz)", xscale="log")
    return figure


def fluctuation_figure(
    synapse: FluctuatingConductance,
    duration: float,
    generator: torch.Generator,
    *,
    step: float = 0.05,
) -> Figure:
    """A sample of a fluctuating conductance, and the distribution that it has in the long run.

    Args:
        synapse: The synapse.
        duration: Length of the sample, ms.
        generator: Source of its noise.
        step: Of the solver, ms.
    """
    times = torch.arange(0, duration + step, step, dtype=torch.float64)
    start = synapse.g_mean.detach()
    trace = simulate(synapse, start, times, -70.0, method="heun", step=step, generator=generator)
    sample = trace.states.squeeze(-1).numpy()
    mean, spread = synapse.g_mean.item(), synapse.g_std.item()
    g = np.linspace(mean - 4 * spread, mean + 4 * spread, 200)
    with styled():
        figure = Figure(figsize=(7.2, 2.6), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[2.4, 1], sharey=True)
        left.plot(times, sample, color=LOWER, lw=0.7)
        left.axhline(mean, color=QUIET, lw=0.8, ls=":")
        left.set(xlabel="time (ms)", ylabel="conductance (nS)", xlim=(0, duration))
        right.hist(sample, bins=40, density=True, orientation="horizontal", color=LOWER, alpha=0.4)
        density = np.exp(-0.5 * ((g - mean) / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
        right.plot(density, g, color=INK, lw=1.2)
        right.set(xlabel="density (1/nS)")
    return figure


def _raster(axis: Axes, spikes: Sequence[float]) -> None:
    axis.vlines(spikes, 0, 1, color=INK, lw=1.4)
    axis.set(yticks=[], ylim=(0, 1.2))
    axis.set_ylabel("spikes", rotation=0, ha="right", va="center")
    axis.spines["left"].set_visible(False)


def _current_voltage(axis: Axes, synapse: System, open_: torch.Tensor) -> None:
    """The current over the voltage, the synapse as open as its train made it."""
    V = torch.linspace(-90, 30, 241, dtype=torch.float64)
    u = torch.stack([torch.zeros_like(V), V], dim=-1)
    with torch.no_grad():
        current = synapse.split(synapse.output(0.0, open_, u), synapse.outputs)["I"]
    axis.plot(V, current.squeeze(-1), color=RAISE, lw=1.4)
    axis.axhline(0, color=QUIET, lw=0.6)
    axis.set(xlabel="V (mV)", ylabel="I at its peak (pA)")


def _released(synapse: ShortTermPlasticity, rates: torch.Tensor) -> torch.Tensor:
    """u x rate where the mean field rests."""
    u = synapse.U * (1 + synapse.tau_facil * rates) / (1 + synapse.U * synapse.tau_facil * rates)
    return u * rates / (1 + u * synapse.tau_rec * rates)
