"""Circuits that compete, decide and remember a direction, drawn."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from clinode.brain.circuits import LateralInhibitionField, RingAttractor, WongWang
from clinode.dynamics.equilibria import Equilibrium
from clinode.dynamics.simulate import Trajectory
from clinode.figures.dynamics import axis_label, block, phase_plane_axis
from clinode.figures.picture import INK, LOWER, QUIET, RAISE, styled


def competition_figure(trajectories: Mapping[str, Trajectory]) -> Figure:
    """Rates of competing units over time, one panel a trajectory.

    Args:
        trajectories: By the title of their panel; of `LateralInhibition` or `WinnerTakeAll`.
    """
    with styled():
        figure = Figure(figsize=(3.5 * len(trajectories), 2.9), layout="constrained")
        axes = figure.subplots(1, len(trajectories), sharey=True, squeeze=False)[0]
        for axis, (title, trajectory) in zip(axes, trajectories.items(), strict=True):
            rates = trajectory.state_quantities[0]
            rows = trajectory.states.detach().numpy()[:, : rates.size]
            block(axis, trajectory.times.numpy(), rows, rates)
            axis.set_title(title, fontsize=10, pad=18)
            axis.set_xlabel(axis_label("time", trajectory.time_unit))
        axes[0].set_ylim(bottom=0)
        for axis in axes[1:]:
            axis.set_ylabel("")
    return figure


def mach_bands_figure(system: LateralInhibitionField, u: Float[Tensor, " position"]) -> Figure:
    """What the units receive and what they answer at rest, over their positions."""
    with styled():
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axis = figure.subplots()
        place = float(system.spacing) * np.arange(system.n_states)
        axis.plot(place, u.numpy(), color=QUIET, lw=1.2, label="input I")
        axis.plot(
            place, system.steady_state(u).numpy(), color=LOWER, lw=1.6, label="rate r at rest"
        )
        axis.set_xlabel("position (°)")
        axis.set_ylabel("I, r (Hz)")
        axis.legend(fontsize=8, frameon=False, loc="upper left")
        axis.margins(x=0)
    return figure


def decision_figure(
    system: WongWang,
    u: Float[Tensor, " input"],
    equilibria: Sequence[Equilibrium],
    trajectory: Trajectory,
) -> Figure:
    """A decision in the plane of the two populations, and over time.

    Args:
        system: The decision circuit.
        u: Its input, (mu0, c).
        equilibria: Under that input.
        trajectory: One or a batch, drawn in both panels.
    """
    states = trajectory.states.detach()
    paths = states.reshape(-1, *states.shape[-2:])
    with styled():
        figure = Figure(figsize=(8.6, 3.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        box = {"S1": (0.0, 0.8), "S2": (0.0, 0.8)}
        handles = phase_plane_axis(left, system, u, box=box, equilibria=equilibria, paths=paths)
        left.legend(handles=handles, fontsize=8, frameon=False, loc="upper right")
        for path in paths:
            for i, color in enumerate((LOWER, RAISE)):
                right.plot(trajectory.times.numpy(), path[:, i], color=color, lw=1.1)
        right.set_xlabel(axis_label("time", trajectory.time_unit))
        right.set_ylabel("S1 (blue), S2 (orange)")
        right.set(ylim=(0, 0.8))
        right.set_title(f"µ0 = {float(u[0]):g} Hz, c = {float(u[1]):g} %", fontsize=10)
        right.margins(x=0)
    return figure


def compass_figure(system: RingAttractor, trajectory: Trajectory) -> Figure:
    """Rates around the ring over time, and the heading that they stand for."""
    u = trajectory.states.detach()
    rates = torch.relu(u).numpy()
    angles = np.rad2deg(system.angles.numpy())
    heading = np.rad2deg(system.heading(u).numpy()) % 360
    jumps = np.flatnonzero(np.abs(np.diff(heading)) > 180) + 1
    times = trajectory.times.numpy()
    with styled():
        figure = Figure(figsize=(6.6, 3.2), layout="constrained")
        axis = figure.subplots()
        image = axis.pcolormesh(
            times, angles, rates.T, cmap="Blues", shading="nearest", rasterized=True
        )
        figure.colorbar(image, ax=axis, label="rate (Hz)", pad=0.01)
        axis.plot(np.insert(times, jumps, np.nan), np.insert(heading, jumps, np.nan), color=INK,
                  lw=1.4)  # fmt: skip
        axis.set_xlabel(axis_label("time", trajectory.time_unit))
        axis.set_ylabel("angle of unit, heading (°)")
        axis.set_yticks([0, 90, 180, 270, 360])
    return figure
