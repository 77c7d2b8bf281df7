"""Feedback drawn: reaches and their spread, what an action costs, what is known along a path."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from clinode.brain.sensorimotor import TwoLinkArm
from clinode.control.feedback.dual import DualSolution
from clinode.control.feedback.iterative import IterativeSolution
from clinode.control.feedback.trials import Trials
from clinode.errors import ArgumentError
from clinode.figures.dynamics import axis_label
from clinode.figures.picture import INK, LOWER, QUIET, RAISE, styled

SHOWN = 30  # trials that are drawn one by one
WAYS = {"dual": RAISE, "cautious": LOWER, "certainty equivalent": QUIET}


def reaching_figure(arm: TwoLinkArm, solution: IterativeSolution, trials: Trials) -> Figure:
    """Paths of the hand, its speed, and the commands, planned and in noisy trials.

    Args:
        arm: That reaches.
        solution: From `ilqg`.
        trials: Of its policy.
    """
    step = solution.problem.system.step or 1.0
    times = step * np.arange(len(solution.states))
    still = torch.zeros(2, dtype=torch.float64)
    planned, done = (arm.output(0.0, x, still) for x in (solution.states, trials.states))
    with styled():
        figure = Figure(figsize=(10.4, 3.3), layout="constrained")
        path, speed, effort = figure.subplots(1, 3)
        for i in range(min(SHOWN, done.shape[1])):
            path.plot(*_hand(done[:, i]).T, color=LOWER, lw=0.6, alpha=0.5)
            speed.plot(times, _speed(done[:, i]), color=LOWER, lw=0.6, alpha=0.4)
        path.plot(*_hand(planned).T, color=INK, lw=1.6, label="planned")
        path.plot(*_hand(planned)[[0, -1]].T, "o", color=RAISE, ms=4, ls="")
        path.set_aspect("equal", adjustable="datalim")
        path.set_xlabel(axis_label("hand x", "m"))
        path.set_ylabel(axis_label("hand y", "m"))
        path.legend(fontsize=8, frameon=False)
        speed.plot(times, _speed(planned), color=INK, lw=1.6)
        speed.set_xlabel(axis_label("time", "s"))
        speed.set_ylabel(axis_label("hand speed", "m/s"))
        for name, color, column in zip(("shoulder", "elbow"), (INK, RAISE), (0, 1), strict=True):
            effort.plot(times[:-1], solution.inputs[:, column], color=color, lw=1.4, label=name)
        effort.axhline(0, color=QUIET, lw=0.6)
        effort.set_xlabel(axis_label("time", "s"))
        effort.set_ylabel(axis_label("command", "N·m"))
        effort.legend(fontsize=8, frameon=False)
    return figure


def minimal_intervention_figure(
    arm: TwoLinkArm, by_task: Mapping[str, Trials], step: float
) -> Figure:
    """Where hands end, and how far they spread over time, for each of some tasks.

    What the task does not ask for is left uncorrected, and varies (Todorov & Jordan 2002, Nature
    Neurosci. 5:1226-1235).

    Args:
        arm: That reaches.
        by_task: Trials by the words for their task.
        step: Of the trials, in s.
    """
    still = torch.zeros(2, dtype=torch.float64)
    with styled():
        figure = Figure(figsize=(4.0 * len(by_task), 5.6), layout="constrained")
        rows = figure.subplots(2, len(by_task), squeeze=False, sharex="row", sharey="row")
        for (end, spread), (task, trials) in zip(rows.T, by_task.items(), strict=True):
            hand = 1000 * arm.output(0.0, trials.states, still)[..., 6:8]
            last = (hand[-1] - hand[-1].mean(0)).numpy()
            end.plot(*last.T, ".", color=LOWER, ms=2.5)
            end.set_title(task, fontsize=10)
            end.set_xlabel(axis_label("hand x, from its mean", "mm"))
            times = step * np.arange(len(hand))
            for axis, color, column in (("x", INK, 0), ("y", RAISE, 1)):
                spread.plot(times, hand[..., column].std(1), color=color, lw=1.5, label=axis)
            spread.set_xlabel(axis_label("time", "s"))
            spread.legend(fontsize=8, frameon=False, title="along", title_fontsize=8)
        rows[0, 0].set_ylabel(axis_label("hand y, from its mean", "mm"))
        rows[1, 0].set_ylabel(axis_label("standard deviation", "mm"))
    return figure


def action_cost_figure(solution: DualSolution, low: float, high: float) -> Figure:
    """What every first input costs if the best behavior follows, and the three choices.

    Args:
        solution: From `dual_control` by quadrature.
        low: Lowest input drawn.
        high: Highest.

    Raises:
        ArgumentError: The bounds do not increase, or the solution is one in belief space.
    """
    if not low < high:
        raise ArgumentError(f"low must be below high, got {low} and {high}")
    quantity = solution.problem.system.inputs[0]
    actions = torch.linspace(low, high, 121, dtype=torch.float64)
    costs = solution.cost_of(actions)
    with styled():
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        axis = figure.subplots()
        axis.plot(actions, costs, color=INK, lw=1.3)
        for name, choice in solution.choices.items():
            action = float(choice.action[0])
            if choice.cost is not None and low <= action <= high:
                axis.plot(action, choice.cost, "o", color=WAYS[name], ms=6, label=name)
        axis.set_xlabel(axis_label(f"first input {quantity.name}", quantity.unit))
        axis.set_ylabel("expected cost")
        axis.legend(fontsize=8, frameon=False)
    return figure


def places_figure(trials: Mapping[str, Trials], names: tuple[str, str], unit: str) -> Figure:
    """Mean paths in the plane of two states, with their spread at the end, one color a controller.

    Args:
        trials: By the name of the controller; the first two states are drawn.
        names: Of those states.
        unit: Of both.
    """
    with styled():
        figure = Figure(figsize=(8.6, 3.6), layout="constrained")
        plane, costs = figure.subplots(1, 2, width_ratios=(1.6, 1))
        for name, run in trials.items():
            color = WAYS.get(name, INK)
            mean = run.states[..., :2].mean(1).numpy()
            plane.plot(*mean.T, "o-", color=color, lw=1.3, ms=3, label=name)
            plane.plot(*run.states[-1, :200, :2].numpy().T, ".", color=color, ms=1.5, alpha=0.5)
        plane.set_xlabel(axis_label(names[0], unit))
        plane.set_ylabel(axis_label(names[1], unit))
        plane.legend(fontsize=8, frameon=False)
        _cost_bars(costs, trials)
    return figure


def _cost_bars(axis: Axes, trials: Mapping[str, Trials]) -> None:
    for i, (name, run) in enumerate(trials.items()):
        cost = run.cost
        error = [[cost.value - cost.low], [cost.high - cost.value]]
        axis.errorbar(i, cost.value, yerr=error, fmt="o", color=WAYS.get(name, INK), capsize=3)
    axis.set_xticks(range(len(trials)), [name.replace(" ", "\n") for name in trials])
    axis.set_xlim(-0.6, len(trials) - 0.4)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("mean cost (95 % interval)")


def _hand(outputs: Tensor) -> np.ndarray:
    return outputs[:, 6:8].numpy()


def _speed(outputs: Tensor) -> np.ndarray:
    return outputs[:, 8:].norm(dim=-1).numpy()
