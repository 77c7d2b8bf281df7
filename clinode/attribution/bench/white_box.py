"""Functions written down: what they look at is known without any training.

The process is ARMA, y_t = -.25 y_{t-1} - .1 y_{t-2} - .05 y_{t-3} + e_t, and the function sums
squares of a few of its cells (Crabbe & van der Schaar 2021, ICML, Dynamask; two groups by Liu et
al. 2024, ICLR, ContraLSP). Integrated gradients from zero are the squares themselves.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from scipy.signal import lfilter
from torch import Tensor

from clinode.attribution.bench.problem import Problem, of_each

N_SUBJECTS = 10
N_STEPS = 50
N_VARIABLES = 50
_N_SALIENT = 5
_MIDDLE = slice(N_STEPS // 4, 3 * N_STEPS // 4)


def arma(
    n_subjects: int, n_steps: int, n_variables: int, draw: np.random.Generator
) -> Float[np.ndarray, "subject step variable"]:
    """Independent ARMA processes with ar = (2, .5, .2, .1) and ma = (2), from rest."""
    noise = draw.normal(size=(n_subjects, n_steps, n_variables))
    return np.asarray(lfilter([2.0], [2.0, 0.5, 0.2, 0.1], noise, axis=1))


def rare_feature(draw: np.random.Generator) -> Problem:
    """The squares of 5 random variables of 50, over the middle half of the steps."""
    truth = np.zeros((N_SUBJECTS, N_STEPS, N_VARIABLES), dtype=bool)
    for subject in range(N_SUBJECTS):
        truth[subject, _MIDDLE, draw.choice(N_VARIABLES, _N_SALIENT, replace=False)] = True
    return _squares("rare_feature", "sum of squares of few variables", truth, draw)


def rare_time(draw: np.random.Generator) -> Problem:
    """The squares of the middle variables, over 5 random steps in a row of 50."""
    truth = np.zeros((N_SUBJECTS, N_STEPS, N_VARIABLES), dtype=bool)
    for subject in range(N_SUBJECTS):
        start = draw.integers(0, N_STEPS - _N_SALIENT + 1)
        truth[subject, start : start + _N_SALIENT, _MIDDLE] = True
    return _squares("rare_time", "sum of squares in few steps", truth, draw)


def rare_feature_two_groups(draw: np.random.Generator) -> Problem:
    """Half of the subjects by one function, half by another: what matters depends on who it is.

    The first half has the squared sum of its variables at each of the first half of the steps, the
    second the sum of squares over the middle half of the steps, each of 5 variables of its own.
    """
    truth = np.zeros((N_SUBJECTS, N_STEPS, N_VARIABLES), dtype=bool)
    half = N_SUBJECTS // 2
    chosen = draw.choice(N_VARIABLES, 2 * _N_SALIENT, replace=False)
    truth[:half, : N_STEPS // 2, chosen[:_N_SALIENT]] = True
    truth[half:, _MIDDLE, chosen[_N_SALIENT:]] = True
    return _two_groups("rare_feature_two_groups", "another function for each group", truth, draw)


def rare_time_two_groups(draw: np.random.Generator) -> Problem:
    """As `rare_feature_two_groups`, with 5 steps of its own for each group."""
    truth = np.zeros((N_SUBJECTS, N_STEPS, N_VARIABLES), dtype=bool)
    half = N_SUBJECTS // 2
    first, second = draw.integers(0, N_STEPS - _N_SALIENT + 1, size=2)
    truth[:half, first : first + _N_SALIENT, : N_VARIABLES // 2] = True
    truth[half:, second : second + _N_SALIENT, _MIDDLE] = True
    return _two_groups("rare_time_two_groups", "another function for each group", truth, draw)


def _squares(name: str, about: str, truth: np.ndarray, draw: np.random.Generator) -> Problem:
    n_subjects, n_steps, n_variables = truth.shape
    x = arma(n_subjects, n_steps, n_variables, draw)
    return Problem(
        name=name,
        about=about,
        pieces=of_each([sum_of_squares(torch.from_numpy(cells)) for cells in truth]),
        x=torch.from_numpy(x),
        baseline=torch.zeros(1, dtype=torch.float64),
        truth=truth,
        exact=np.where(truth, x**2, 0.0),
    )


def _two_groups(name: str, about: str, truth: np.ndarray, draw: np.random.Generator) -> Problem:
    half = len(truth) // 2
    n_subjects, n_steps, n_variables = truth.shape
    x = arma(n_subjects, n_steps, n_variables, draw)
    chosen = np.where(truth, x, 0.0)
    # along the path alpha x each squared sum grows by 2 alpha (sum)^2, shared by its cells
    shared = chosen[:half] * chosen[:half].sum(axis=2, keepdims=True)
    cells = torch.from_numpy(truth)
    return Problem(
        name=name,
        about=about,
        pieces=of_each(
            [
                *(square_of_sums(one) for one in cells[:half]),
                *(sum_of_squares(one) for one in cells[half:]),
            ]
        ),
        x=torch.from_numpy(x),
        baseline=torch.zeros(1, dtype=torch.float64),
        truth=truth,
        exact=np.concatenate([shared, chosen[half:] ** 2]),
    )


def sum_of_squares(cells: Tensor) -> Callable[[Tensor], Tensor]:
    """x -> sum of x^2 over some cells (step, variable)."""
    return lambda x: (x**2 * cells).sum(dim=(1, 2))


def square_of_sums(cells: Tensor) -> Callable[[Tensor], Tensor]:
    """x -> sum over steps of the squared sum of some cells (step, variable)."""
    return lambda x: ((x * cells).sum(dim=2) ** 2).sum(dim=1)
