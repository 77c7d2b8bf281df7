"""Figures of learning: credit across a gap, and the adaptation of a reflex."""

import numpy as np
from matplotlib.figure import Figure

from clinode.behavior import Adaptation, Conditioning, HeadMovement
from clinode.figures.picture import LINE, LOWER, QUIET, RAISE, styled


def dopamine_figure(found: Conditioning, trials: tuple[int, ...]) -> Figure:
    """Prediction error over the steps since the cue, one row a trial."""
    steps = np.arange(found.delta.shape[1])
    with styled():
        figure = Figure(figsize=(5.6, 1.1 + 0.75 * len(trials)), layout="constrained")
        axes = figure.subplots(len(trials), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axis, trial in zip(axes, trials, strict=True):
            delta = found.delta[trial]
            color = [RAISE if value >= 0 else LOWER for value in delta]
            axis.axhline(0, color=LINE, lw=0.8)
            axis.vlines(steps, 0, delta, color=color, lw=3)
            axis.set_ylabel(f"trial {trial + 1}", rotation=0, ha="right", va="center")
            axis.axvline(found.delay, color=QUIET, lw=0.8, ls=":")
        axes[0].set_title("prediction error (units of reward)", fontsize=9, loc="left")
        axes[-1].set_xlabel("steps since the cue (1); dotted: when the reward is due")
    return figure


def reflex_figure(course: Adaptation, movement: HeadMovement, goal: float) -> Figure:
    """Gain at each trained frequency, and what slips, over the trials."""
    trials = np.arange(len(course.slip))
    with styled():
        figure = Figure(figsize=(6.4, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.axhline(goal, color=QUIET, lw=0.8, ls=":", label="goal")
        shades = np.linspace(1.0, 0.35, course.gain.shape[1])
        gain = np.real(course.gain)
        for k, (shade, hertz) in enumerate(
            zip(shades, np.asarray(movement.frequency, dtype=float), strict=True)
        ):
            told = f"{hertz:g} Hz"
            left.plot(trials, gain[:, k], color=RAISE, alpha=shade, lw=1.6, label=told)
        left.plot(trials, course.brainstem, color=LOWER, lw=1.4, ls="--", label="nuclei alone")
        left.set(xlabel="trial (1)", ylabel="gain, eye over head velocity (1)")
        left.legend(frameon=False, fontsize=8)
        right.plot(trials, course.slip, color=RAISE, lw=1.6)
        right.set(xlabel="trial (1)", ylabel="slip over the retina, rms (deg/s)", ylim=(0, None))
    return figure
