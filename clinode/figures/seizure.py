"""Field potentials of columns and of seizures, drawn."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from clinode.dynamics.simulate import Trajectory
from clinode.figures.dynamics import axis_label
from clinode.figures.picture import INK, LOWER, RAISE, styled


def eeg_figure(trajectories: Mapping[str, Trajectory]) -> Figure:
    """The first output over time, one row a trajectory, all on one scale.

    Args:
        trajectories: By the title of their row; of `JansenRit`, `Wendling`, or any system with a
            field potential as its first output.
    """
    with styled():
        figure = Figure(figsize=(7.4, 0.7 + 1.0 * len(trajectories)), layout="constrained")
        axes = figure.subplots(len(trajectories), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axis, (title, trajectory) in zip(axes, trajectories.items(), strict=True):
            output = trajectory.output_quantities[0]
            rows = trajectory.outputs.detach().numpy()[:, 0]
            axis.plot(trajectory.times.numpy(), rows, color=INK, lw=0.8)
            axis.set_title(title, fontsize=9, loc="left", pad=2)
            axis.set_ylabel(axis_label(output.name, output.unit))
            axis.set_xlabel(axis_label("time", trajectory.time_unit) if axis is axes[-1] else "")
            axis.margins(x=0)
    return figure


def epileptor_figure(trajectory: Trajectory) -> Figure:
    """The field potential of an Epileptor and the slow variable that starts and stops seizures."""
    places = [q.name for q in trajectory.state_quantities]
    times, states = trajectory.times.numpy(), trajectory.states.detach().numpy()
    with styled():
        figure = Figure(figsize=(7.4, 3.8), layout="constrained")
        top, under = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        top.plot(times, trajectory.outputs.detach().numpy()[:, 0], color=LOWER, lw=0.6)
        top.set_ylabel("LFP, x2 - x1 (dimensionless)")
        under.plot(times, states[:, places.index("z")], color=RAISE, lw=1.4)
        under.set_ylabel("z (dimensionless)")
        under.set_xlabel("time (dimensionless)")
        under.margins(x=0)
        figure.align_ylabels()
    return figure
