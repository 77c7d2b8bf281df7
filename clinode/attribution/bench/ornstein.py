"""A readout of an Ornstein-Uhlenbeck process seen at irregular times: attributions in closed form.

The function is the posterior mean at the end of the day of a process with dx = -x / tau dt +
sqrt(2 / tau) dW, observed with noise at irregular times. It is linear in what was measured, K_T
(K + s^2 I)^-1 y, so integrated gradients from zero are each weight times its value, exactly, and so
are Shapley values. How much a measurement counts falls with its age and with what lies close by.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.attribution.bench.problem import Problem, of_each

N_EVENTS = 40
_TAU_HOURS = 4.0
_NOISE_SD = 0.3
_RATE = 1.0  # measurements an hour
_HOURS = 24.0
_COUNTS = 0.01  # of the largest weight: smaller ones are said not to matter


def ornstein_readout(n_subjects: int, draw: np.random.Generator) -> Problem:
    """Poisson times, at most `N_EVENTS` a subject, and the linear readout of the last moment."""
    x = np.zeros((n_subjects, N_EVENTS))
    weight, measured = np.zeros_like(x), np.zeros(x.shape, dtype=bool)
    for subject in range(n_subjects):
        n = int(np.clip(draw.poisson(_RATE * _HOURS), 2, N_EVENTS))
        time = np.sort(draw.uniform(0, _HOURS, n))
        covariance = _kernel(time, time)
        x[subject, :n] = draw.multivariate_normal(np.zeros(n), covariance)
        x[subject, :n] += _NOISE_SD * draw.normal(size=n)
        weight[subject, :n] = readout_weights(time, _HOURS)
        measured[subject, :n] = True
    size = np.abs(weight)
    return Problem(
        name="ornstein",
        about="posterior mean of an Ornstein-Uhlenbeck process",
        pieces=of_each([_linear(torch.from_numpy(row)) for row in weight]),
        x=torch.from_numpy(x),
        baseline=torch.zeros(1, dtype=torch.float64),
        truth=measured & (size > _COUNTS * size.max(axis=1, keepdims=True)),
        measured=measured,
        exact=weight * x,
    )


def readout_weights(time: Float[np.ndarray, " event"], at: float) -> Float[np.ndarray, " event"]:
    """Of each measurement, its weight in the posterior mean at one moment."""
    covariance = _kernel(time, time) + _NOISE_SD**2 * np.eye(len(time))
    return np.linalg.solve(covariance, _kernel(time, np.array([at]))[:, 0])


def _kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.exp(-np.abs(np.subtract.outer(one, other)) / _TAU_HOURS)


def _linear(weight: Tensor):
    return lambda x: x @ weight
