"""Figures of decisions: latencies on reciprobit axes, and their quantiles against accuracy."""

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import norm

from clinode.behavior import Fit, ResponseModel
from clinode.errors import ArgumentError, printable
from clinode.figures.picture import LOWER, QUIET, RAISE, styled

COLORS = (LOWER, RAISE, "#3d7a4f", "#7a4f8f", "#8a6d1f", QUIET)
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
_TICKS = np.array([0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0])  # s
_LEVELS = np.array([0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99])


def reciprobit_figure(fitted: Fit) -> Figure:
    """Latencies of each condition on reciprocal and probit axes, with the fitted distribution.

    A normal rate to a threshold is a straight line here (Carpenter 1981).

    Raises:
        ArgumentError: The trials have two responses.
    """
    trials = fitted.trials
    if bool((trials.choice != 1).any()):
        raise ArgumentError("a reciprobit plot is of one response: choose the trials of one")
    with styled():
        figure = Figure(figsize=(5.6, 3.8), layout="constrained")
        axis = figure.subplots()
        answered = trials.rt < torch.inf
        for k, name in enumerate(trials.conditions):
            color = COLORS[k % len(COLORS)]
            own = np.sort(trials.rt[(trials.condition == k) & answered].numpy())
            own, counts = np.unique(own, return_counts=True)  # latencies are often told in bins
            share = (np.cumsum(counts) - counts / 2) / counts.sum()
            axis.plot(-1 / own, norm.ppf(share), ".", ms=2.5, color=color, label=printable(name))
            times = np.geomspace(own[0], own[-1], 200)
            told = np.clip(fitted.of(name).cdf(times).detach().numpy(), 1e-12, 1 - 1e-12)
            axis.plot(-1 / times, norm.ppf(told), color=color, lw=1.2)
        seen = trials.rt[answered]
        ticks = _TICKS[(_TICKS >= 0.8 * float(seen.min())) & (_TICKS <= 1.2 * float(seen.max()))]
        axis.set_xticks(-1 / ticks, [f"{tick:g}" for tick in ticks])
        axis.set_yticks(norm.ppf(_LEVELS), [f"{100 * level:g}" for level in _LEVELS])
        axis.set_ylim(float(norm.ppf(0.002)), float(norm.ppf(0.998)))
        axis.set_xlabel("latency (s), reciprocal scale")
        axis.set_ylabel("cumulative share (%), probit scale")
        _named(axis, trials.conditions)
    return figure


def quantile_probability_figure(fitted: Fit) -> Figure:
    """Quantiles of the times of each response against its share, beside those of the fit.

    Right of the middle stand the commoner responses of each condition, left the rarer ones
    (Ratcliff & Tuerlinckx 2002).
    """
    trials = fitted.trials
    with styled():
        figure = Figure(figsize=(5.6, 3.8), layout="constrained")
        axis = figure.subplots()
        told: list[tuple[float, np.ndarray]] = []
        answered = trials.rt < torch.inf
        for k, name in enumerate(trials.conditions):
            own = (trials.condition == k) & answered
            model = fitted.of(name)
            for response in (1.0, 0.0):
                rt = trials.rt[own & (trials.choice == response)].numpy()
                if len(rt) < 5:
                    continue
                share = len(rt) / int(own.sum())
                axis.plot([share] * 5, np.quantile(rt, QUANTILES), "x", ms=5,
                          color=COLORS[k % len(COLORS)])  # fmt: skip
                told.append(_told(model, response))
        told.sort(key=lambda one: one[0])
        if told:
            shares = [share for share, _ in told]
            for place in range(len(QUANTILES)):
                axis.plot(shares, [times[place] for _, times in told], "-o", ms=2.5, lw=0.9,
                          color=QUIET)  # fmt: skip
        axis.set(xlim=(0, 1), xlabel="share of the response (1)")
        axis.set_ylabel("quantiles of its time (s): 10, 30, 50, 70, 90 %")
        for k, name in enumerate(trials.conditions):
            axis.plot([], [], "x", color=COLORS[k % len(COLORS)], label=printable(name))
        axis.plot([], [], "-o", ms=2.5, lw=0.9, color=QUIET, label="fitted")
        _named(axis, trials.conditions)
    return figure


def _told(model: ResponseModel, response: float) -> tuple[float, np.ndarray]:
    """Share of a response, and the quantiles of its times, by the model."""
    share = float(model.cdf(1e3, response))
    times = np.geomspace(1e-3, 60.0, 6000)
    risen = model.cdf(times, response).detach().numpy() / max(share, 1e-300)
    return share, np.interp(QUANTILES, risen, times)


def _named(axis, conditions: tuple[str, ...]) -> None:
    legend = axis.legend(frameon=False, fontsize=8, ncols=1 if len(conditions) < 8 else 2)
    for text in legend.get_texts():
        text.set_parse_math(False)
