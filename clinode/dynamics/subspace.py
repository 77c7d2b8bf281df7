"""Linear systems from recordings on a regular grid: subspace identification and autoregression.

Both predict one step ahead and are turned into continuous time, where the input is held over each
step. They describe how the system moves about the mean of the recording: of a nonlinear system, and
a stimulation that is not small, that is not its linearization at rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity

RIDGE = 1e-12  # of the mean square: regressors that all but repeat each other, and nothing else


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A linear system fitted to recordings.

    Attributes:
        system: In continuous time, marked latent; its operating point is its rest without input.
        n_dropped: Modes left out because no continuous mode samples to them: those that change sign
            from step to step, or are gone within one.
        error: Share of the variance that the prediction one step ahead leaves.
    """

    system: LinearSystem
    n_dropped: int
    error: float


def identify_subspace(
    values: np.ndarray,
    stimulation: np.ndarray,
    step: float,
    *,
    n_states: int,
    past: int = 8,
    inputs: Sequence[Quantity] | None = None,
    outputs: Sequence[Quantity] | None = None,
    time_unit: str = "s",
) -> LinearFit:
    """Predictor-based subspace identification (PBSID) of a system with hidden states.

    A long autoregression gives the predictor's Markov parameters, their products with the past its
    states (Chiuso 2007, Automatica 43:1034-1048), least squares on those A, B and C.

    Args:
        values: (session, point, output), all finite.
        stimulation: (session, point, input), held over the step that begins at the point.
        step: Time units.
        n_states: Of the system.
        past: Points of the past that the predictor reads.
        inputs, outputs: Names; u1, ... and y1, ... by default.
        time_unit: Of the step.

    Raises:
        ArgumentError: Values that are missing, sessions that are too short, more states than the
            past can tell apart.
    """
    y, u = _checked(values, stimulation, past + 2)
    n_outputs, n_inputs = y.shape[-1], u.shape[-1]
    block = n_outputs + n_inputs
    if not 1 <= n_states <= past * n_outputs:
        raise ArgumentError(
            f"{past} points of {n_outputs} outputs tell {past * n_outputs} states apart at most, "
            f"got n_states={n_states}"
        )
    both = np.concatenate([y, u], axis=-1)
    n_points = y.shape[1] - past
    # the past of each point that has a whole one, oldest first
    rows = np.concatenate([both[:, k : k + n_points] for k in range(past)], axis=-1)
    Z = rows.reshape(-1, past * block)
    Z = Z - Z.mean(0)
    Y = y[:, past:].reshape(-1, n_outputs)
    square = Z.T @ Z
    square[np.diag_indices_from(square)] += RIDGE * np.trace(square) / len(square)
    factor = scipy.linalg.cholesky(square, lower=True)
    markov = scipy.linalg.cho_solve((factor, True), Z.T @ Y).T
    observed = np.zeros((past * n_outputs, past * block))
    for ahead in range(past):
        shifted = markov[:, : (past - ahead) * block]
        observed[ahead * n_outputs : (ahead + 1) * n_outputs, ahead * block :] = shifted
    left, size, _ = scipy.linalg.svd(observed @ factor, full_matrices=False)
    to_state = (left[:, :n_states] / np.sqrt(size[:n_states])).T @ observed
    x = (Z @ to_state.T).reshape(len(y), n_points, n_states)
    flat = x.reshape(-1, n_states)
    C, level = _least_squares(flat, Y)
    error = (Y - level - flat @ C.T).reshape(len(y), n_points, n_outputs)
    known = np.concatenate([x, u[:, past:], error], axis=-1)[:, :-1].reshape(-1, n_states + block)
    moves, drift = _least_squares(known, x[:, 1:].reshape(-1, n_states))
    A, B = moves[:, :n_states], moves[:, n_states : n_states + n_inputs]
    share = float((error**2).mean() / Y.var(axis=0).mean())
    return _continuous(A, B, C, (drift, level), step, share, inputs, outputs, time_unit)


def fit_autoregression(
    values: np.ndarray,
    stimulation: np.ndarray,
    step: float,
    *,
    inputs: Sequence[Quantity] | None = None,
    outputs: Sequence[Quantity] | None = None,
    time_unit: str = "s",
) -> LinearFit:
    """First-order autoregression with inputs, all states observed; arguments as above.

    Raises:
        ArgumentError: Values that are missing, or sessions of less than two points.
    """
    y, u = _checked(values, stimulation, 2)
    n = y.shape[-1]
    known = np.concatenate([y, u], axis=-1)[:, :-1].reshape(-1, n + u.shape[-1])
    after = y[:, 1:].reshape(-1, n)
    moves, drift = _least_squares(known, after)
    error = after - drift - known @ moves.T
    share = float((error**2).mean() / after.var(axis=0).mean())
    constant = (drift, np.zeros(n))
    return _continuous(
        moves[:, :n], moves[:, n:], np.eye(n), constant, step, share, inputs, outputs, time_unit
    )


def _least_squares(known: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and constant of wanted = known matrix' + constant."""
    means = known.mean(0), wanted.mean(0)
    matrix = np.linalg.lstsq(known - means[0], wanted - means[1], rcond=None)[0].T
    return matrix, means[1] - matrix @ means[0]


def _checked(
    values: np.ndarray, stimulation: np.ndarray, n_least: int
) -> tuple[np.ndarray, np.ndarray]:
    if values.ndim != 3 or stimulation.ndim != 3 or values.shape[:2] != stimulation.shape[:2]:
        raise ArgumentError(
            f"values of shape {values.shape} and stimulation of shape {stimulation.shape} do not "
            "fit: expected (session, point, output) and (session, point, input)"
        )
    if values.shape[1] < n_least:
        raise ArgumentError(f"sessions need {n_least} points, got {values.shape[1]}")
    if not (np.isfinite(values).all() and np.isfinite(stimulation).all()):
        raise ArgumentError(
            "a fit step by step needs every value of every session",
            fix="cut the sessions where values are missing, or learn a network, which needs none",
        )
    return np.asarray(values, dtype=float), np.asarray(stimulation, dtype=float)


def _continuous(
    A: np.ndarray,
    B: np.ndarray,
    C: np.ndarray,
    constant: tuple[np.ndarray, np.ndarray],
    step: float,
    error: float,
    inputs: Sequence[Quantity] | None,
    outputs: Sequence[Quantity] | None,
    time_unit: str,
) -> LinearFit:
    """The flow that samples to x(k+1) = A x + B u + drift, y = C x + level, with u held."""
    drift, level = constant
    rates = np.linalg.eigvals(A)
    gone = (np.abs(rates) < 1e-3) | ((np.abs(rates.imag) < 1e-12) & (rates.real <= 0))
    n_dropped = int(gone.sum())
    if n_dropped:
        pushes = np.concatenate([B, drift[:, None]], axis=1)
        A, pushes, C, direct = _without(A, pushes, C, rates[~gone])
        B, drift, level = pushes[:, :-1], pushes[:, -1], level + direct[:, -1]
    n, m = B.shape
    joint = np.zeros((n + m, n + m))
    joint[:n, :n], joint[:n, n:], joint[n:, n:] = A, B, np.eye(m)
    flow = np.real(scipy.linalg.logm(joint)) / step
    rest = np.linalg.solve(np.eye(n) - A, drift)
    system = LinearSystem(
        flow[:n, :n],
        flow[:n, n:],
        C,
        offset=(rest, np.zeros(m), level + C @ rest),
        latent=True,
        inputs=inputs,
        outputs=outputs,
        time_unit=time_unit,
    )
    return LinearFit(system, n_dropped, error)


def _without(
    A: np.ndarray, B: np.ndarray, C: np.ndarray, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A, B, C on the invariant space of the kept eigenvalues, and what the others did at rest.

    The last, (output, input), is what a constant input moved the outputs by through the others.
    """
    # a lambda: how many arguments it takes is read from its code
    form, basis, *sorted_first = scipy.linalg.schur(
        A, output="real", sort=lambda re, im: bool(np.abs(kept - complex(re, im)).min() < 1e-9)
    )
    n = int(sorted_first[0])
    # T11 X - X T22 = -T12: with it the two spaces no longer push each other
    couple = scipy.linalg.solve_sylvester(form[:n, :n], -form[n:, n:], -form[:n, n:])
    pushes = basis.T @ B
    of_kept, of_gone = pushes[:n] - couple @ pushes[n:], pushes[n:]
    seen = C @ basis
    other = seen[:, n:] + seen[:, :n] @ couple
    gone = np.eye(len(A) - n) - form[n:, n:]
    return form[:n, :n], of_kept, seen[:, :n], other @ np.linalg.solve(gone, of_gone)
