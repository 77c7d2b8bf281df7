"""Dense sequences with a label at every step, and the cells that the label was drawn from.

State (Tonekaboni et al. 2020, NeurIPS, FIT; Crabbe & van der Schaar 2021, ICML), Switch-Feature
(Liu et al. 2024, ICLR, ContraLSP) and Spike (FIT), drawn from their published parameters. What a
trained model uses is another matter: the truth is that of the generator.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.signal import butter, lfilter

_STATE_MEAN = np.array([[0.1, 1.6, 0.5], [-0.1, -0.4, -1.5]])
_STATE_IMPORTANT = np.array([1, 2])  # the variable that decides the label in each state
_SWITCH = np.array([[0.95, 0.02, 0.03], [0.02, 0.95, 0.03], [0.03, 0.02, 0.95]])
_SWITCH_MEAN = np.array([[0.8, -0.5, -0.2], [0.0, -1.0, 0.0], [-0.2, -0.2, 0.8]])
_TREND = np.array([0.003, 0.065, 0.0])  # a step, of the three channels of Spike
_SPIKE_HEIGHT = 1.5
_LOW_PASS: Any = butter(6, 3.667 / 15.0)  # 3.667 Hz of a signal sampled at 30 Hz


@dataclass(frozen=True, eq=False)
class LabeledSequences:
    """Sequences, a label a step, and what decided it.

    Args:
        x: Values.
        label: 0 or 1 at every step.
        truth: The cells that the label was drawn from.
        state: The hidden state at every step, where there is one.
    """

    x: Float[np.ndarray, "subject step variable"]
    label: Float[np.ndarray, "subject step"]
    truth: Bool[np.ndarray, "subject step variable"]
    state: np.ndarray | None = None

    def take(self, rows: np.ndarray | slice) -> "LabeledSequences":
        """Some of the subjects."""
        state = None if self.state is None else self.state[rows]
        return LabeledSequences(self.x[rows], self.label[rows], self.truth[rows], state)


def state_sequences(n_subjects: int, n_steps: int, draw: np.random.Generator) -> LabeledSequences:
    """Two hidden states, each with a Gaussian of three variables, one of which decides the label.

    From state 1 the chain stays with probability .95 - run / 500, run the steps since the last
    change, as long as that is above .8; from state 0 it leaves with .05. y ~ Bernoulli(1 / (1 +
    exp(-2 x_i))), i = 1 in state 0 and 2 in state 1: two thirds of the cells decide nothing.
    """
    state = np.empty((n_subjects, n_steps), dtype=np.int64)
    previous, run = draw.integers(0, 2, n_subjects), np.zeros(n_subjects)
    for step in range(n_steps):
        stays = 0.95 - run / 500
        to_one = np.where(previous == 1, stays, 0.05)
        state[:, step] = draw.random(n_subjects) < to_one
        run = np.where(state[:, step] == previous, run + 1, 0.0)
        previous = state[:, step]
    x = np.empty((n_subjects, n_steps, 3))
    for number in (0, 1):
        covariance = 0.801 * np.eye(3)
        important = _STATE_IMPORTANT[number]
        covariance[important, 0] = covariance[0, important] = 0.01
        here = state == number
        x[here] = draw.multivariate_normal(_STATE_MEAN[number], covariance, size=int(here.sum()))
    return _labeled_by_state(x, state, _STATE_IMPORTANT, 2.0, draw)


def switch_sequences(n_subjects: int, n_steps: int, draw: np.random.Generator) -> LabeledSequences:
    """Three hidden states; in state s variable s decides the label, y ~ Bernoulli(sigmoid(3 x_s)).

    The variables are Gaussian processes around the mean of the state (squared exponential, length
    .2 and variance .1, over the whole sequence as the unit of time).
    """
    state = np.empty((n_subjects, n_steps), dtype=np.int64)
    state[:, 0] = draw.integers(0, 3, n_subjects)
    for step in range(1, n_steps):
        edges = np.cumsum(_SWITCH[state[:, step - 1]], axis=1)
        state[:, step] = np.minimum((draw.random((n_subjects, 1)) > edges).sum(axis=1), 2)
    apart = np.subtract.outer(np.arange(n_steps), np.arange(n_steps)) / n_steps
    covariance = 0.1 * np.exp(-0.5 * (apart / 0.2) ** 2) + 1e-8 * np.eye(n_steps)
    smooth = np.linalg.cholesky(covariance) @ draw.normal(size=(n_subjects, n_steps, 3))
    return _labeled_by_state(_SWITCH_MEAN[state] + smooth, state, np.arange(3), 3.0, draw)


def spike_sequences(n_subjects: int, n_steps: int, draw: np.random.Generator) -> LabeledSequences:
    """Three smooth channels with spikes; the label turns to 1 at the first spike of channel 0.

    NARMA(2) with a trend each, scaled by the range of all, low-pass filtered; with probability .3 a
    channel gets a Poisson(3) number of spikes of 1.5. Only the first spike of channel 0 decides.
    """
    slow = narma(n_subjects, n_steps, draw, (0.5, 0.5, 1.5, 0.5))
    second = narma(n_subjects, n_steps, draw, (0.5, 0.5, 1.5, 0.5)) + slow
    third = narma(n_subjects, n_steps, draw)
    x = np.stack([slow, second, third], axis=2) + 0.01 * draw.normal(size=(n_subjects, n_steps, 3))
    x = x + _TREND * np.arange(n_steps)[:, None]
    x = x / np.ptp(x, axis=(1, 2), keepdims=True)
    above, below = _LOW_PASS
    x = np.asarray(lfilter(above, below, x, axis=1))
    label, truth = np.zeros((n_subjects, n_steps)), np.zeros(x.shape, dtype=bool)
    for subject in range(n_subjects):
        for channel in range(3):
            n_spikes = min(draw.poisson(3), n_steps - 2) if draw.random() < 0.3 else 0
            where = draw.choice(np.arange(2, n_steps), size=n_spikes, replace=False)
            x[subject, where, channel] += _SPIKE_HEIGHT
            if channel == 0 and n_spikes:
                first = where.min()
                label[subject, first:] = 1.0
                truth[subject, first, 0] = True
    return LabeledSequences(x, label, truth)


def narma(
    n_subjects: int,
    n_steps: int,
    draw: np.random.Generator,
    coefficients: tuple[float, float, float, float] = (0.3, 0.05, 1.5, 0.1),
) -> Float[np.ndarray, "subject step"]:
    """Nonlinear autoregression of order 2 driven by uniform noise on (0, .5) (Atiya & Parlos 2000).

    y' = a y + b y (y + y_before) + c u_before u + d. A path that grows above 10 is held there:
    the coefficients of Spike can run away.
    """
    a, b, c, d = coefficients
    u = draw.uniform(0, 0.5, size=(n_subjects, n_steps + 2))
    y = np.zeros((n_subjects, n_steps + 2))
    for step in range(2, n_steps + 2):
        one, two = y[:, step - 1], y[:, step - 2]
        grown = a * one + b * one * (one + two) + c * u[:, step - 2] * u[:, step - 1] + d
        y[:, step] = np.minimum(grown, 10.0)
    return y[:, 2:]


def _labeled_by_state(
    x: np.ndarray,
    state: np.ndarray,
    important: np.ndarray,
    slope: float,
    draw: np.random.Generator,
) -> LabeledSequences:
    truth = np.arange(x.shape[2]) == important[state][..., None]
    chance = 1 / (1 + np.exp(-slope * x[truth].reshape(state.shape)))
    label = (draw.random(state.shape) < chance).astype(np.float64)
    return LabeledSequences(x, label, truth, state)
