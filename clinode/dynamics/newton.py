"""Roots of F(x) = 0 from many starts at once: damped Newton, deflation, pseudo-time.

Every start is a row; rows do not see each other, and those that have arrived or failed leave the
batch. Lengths are measured in each state's scale. What a search gives are candidates: `polish`
decides which are roots.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from .field import Field

ARRIVED = 1e-9  # Newton step, in scales, after which one more step is exact to rounding
DAMPINGS = np.array([1.0, 0.5, 0.125, 1 / 64])


@dataclass(frozen=True)
class Rows:
    """Starts of a search, one a row.

    Attributes:
        field: The field, flattened where its constants have a batch axis.
        x: (row, state).
        owner: (row,), the member of the batch of constants that a row belongs to.
        scale: (state,), lengths are measured in it.
    """

    field: Field
    x: np.ndarray
    owner: np.ndarray
    scale: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: np.ndarray) -> "Rows":
        """Some of them, by index or mask."""
        return replace(self, x=self.x[rows], owner=self.owner[rows])

    def at(self, x: np.ndarray) -> "Rows":
        """The same rows elsewhere."""
        return replace(self, x=x)

    def value(self) -> np.ndarray:
        """F, in scales per time unit."""
        return self.own_field().value(self.x) / self.scale

    def jacobian(self) -> tuple[np.ndarray, np.ndarray]:
        """F and dF/dx, in scales."""
        value, jacobian = self.own_field().jacobian(self.x)
        return value / self.scale, jacobian * self.scale / self.scale[:, None]

    def own_field(self) -> Field:
        return self.field.take(self.owner) if self.field.batch_shape else self.field


def damped_newton(
    rows: Rows, *, known: np.ndarray | None = None, max_iterations: int = 50
) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method, damped until the residual falls.

    Args:
        rows: The starts.
        known: Roots to stay away from, (row, root, state), NaN where a row has fewer: the residual
            is multiplied by prod_k (1 + 1 / |x - r_k|^2) (Farrell, Birkisson & Funke 2015, SIAM J.
            Sci. Comput. 37:A2026), which changes the length of a Newton step but not its direction.
        max_iterations: For each row.

    Returns:
        x (row, state), and which rows arrived.
    """
    x, arrived = rows.x.copy(), np.zeros(len(rows), dtype=bool)
    active = np.arange(len(rows))
    patience = np.full(len(rows), 4)
    for _ in range(max_iterations):
        if not len(active):
            break
        part = rows.take(active).at(x[active])
        value, jacobian = part.jacobian()
        weight = _row_weights(jacobian)
        step = solve_each(jacobian * weight[..., None], -value * weight)
        if known is not None:
            step = step / _deflation_divisor(part, step, known[active])
        length = np.abs(step).max(axis=-1)
        finite = np.isfinite(length) & np.isfinite(value).all(axis=-1)
        # One box width at a time, or of states without a range as far as the start is out: beyond
        # it a linear model says little.
        reach = np.maximum(1.0, np.abs(part.x / rows.scale).max(axis=-1))
        step = step / np.maximum(1.0, length / reach)[:, None]
        merit = _merit(part, value, weight, known, active)
        tried = part.x + DAMPINGS[:, None, None] * step * rows.scale
        four = np.tile(np.arange(len(part)), len(DAMPINGS))
        trial = part.take(four).at(tried.reshape(-1, x.shape[-1]))
        merits = _merit(trial, trial.value(), weight[four], known, active[four])
        merits = merits.reshape(len(DAMPINGS), -1)
        better = merits <= (1 - 0.1 * DAMPINGS[:, None]) * merit
        choice = np.where(better.any(axis=0), better.argmax(axis=0), len(DAMPINGS) - 1)
        close = length < ARRIVED
        choice[close] = 0
        x[active] = np.where(
            finite[:, None], np.take_along_axis(tried, choice[None, :, None], 0)[0], x[active]
        )
        arrived[active[finite & close]] = True
        patience[active[~better.any(axis=0)]] -= 1
        active = active[finite & ~close & (patience[active] > 0)]
    return x, arrived


def pseudo_transient(
    rows: Rows, pace: np.ndarray | float = 1.0, *, max_iterations: int = 80
) -> tuple[np.ndarray, np.ndarray]:
    """Implicit Euler with a step that grows as the residual falls, ending in Newton's method.

    It follows the flow to what attracts (Kelley & Keyes 1998, SIAM J. Numer. Anal. 35:508).

    Args:
        rows: The starts.
        pace: How slow each state is made: no time constant moves an equilibrium, but it decides
            whether it attracts. 0 keeps a state at rest with the others, which quiets oscillations
            that are its lag; -1 for all states follows the flow backward, to what repels.
        max_iterations: For each row.
    """
    x, arrived = rows.x.copy(), np.zeros(len(rows), dtype=bool)
    active, step_time, before = np.arange(len(rows)), np.full(len(rows), np.nan), None
    for _ in range(max_iterations):
        if not len(active):
            break
        part = rows.take(active).at(x[active])
        value, jacobian = part.jacobian()
        norm = np.linalg.norm(value, axis=-1)
        fresh = np.isnan(step_time[active])
        slowest = np.abs(jacobian).sum(axis=-1).max(axis=-1)
        step_time[active[fresh]] = 0.5 / np.maximum(slowest[fresh], 1e-12)
        if before is not None:
            growth = np.clip(before[active] / np.maximum(norm, 1e-300), 0.5, 4.0)
            step_time[active] = step_time[active] * growth
        before = np.full(len(rows), np.nan) if before is None else before
        before[active] = norm
        inverse = 1.0 / step_time[active]
        step = solve_each(inverse[:, None, None] * (np.eye(x.shape[-1]) * pace) - jacobian, value)
        length = np.abs(step).max(axis=-1)
        finite = np.isfinite(length)
        step = step / np.maximum(1.0, length)[:, None]
        x[active[finite]] += (step * rows.scale)[finite]
        done = finite & (length < 1e-6) & (inverse < 1e-3 * slowest)
        arrived[active[done]] = True
        active = active[finite & ~done]
    polished, ok = damped_newton(rows.at(x).take(arrived), max_iterations=20)
    x[arrived] = polished
    arrived[arrived] = ok
    return x, arrived


def polish(rows: Rows, *, max_iterations: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Undamped Newton steps while they shrink; which rows end at a root.

    A root is where the step has shrunk below 1e-8 scales: a residual that merely fades out, as of
    exp(-x) at large x, is none.
    """
    x = rows.x.copy()
    last = np.full(len(rows), np.inf)
    active = np.arange(len(rows))
    for _ in range(max_iterations):
        if not len(active):
            break
        part = rows.take(active).at(x[active])
        value, jacobian = part.jacobian()
        weight = _row_weights(jacobian)
        step = solve_each(jacobian * weight[..., None], -value * weight)
        length = np.abs(step).max(axis=-1)
        shrinks = np.isfinite(length) & ((length < 0.7 * last[active]) | ~np.isfinite(last[active]))
        x[active[shrinks]] += (step * rows.scale)[shrinks]
        last[active[shrinks]] = length[shrinks]
        active = active[shrinks & (length > 1e-13)]
    return x, last < 1e-8


def distinct(x: np.ndarray, scale: np.ndarray, *, tolerance: float = 1e-5) -> np.ndarray:
    """Indices of one row of each cluster, in the order they came."""
    kept: list[int] = []
    for i, point in enumerate(x / scale):
        if not kept or np.abs(x[kept] / scale - point).max(axis=-1).min() > tolerance:
            kept.append(i)
    return np.array(kept, dtype=int)


def solve_each(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Solutions of (row, n, n) x = (row, n); where singular, of the slightly shifted matrix."""
    solved, info = torch.linalg.solve_ex(torch.as_tensor(matrix), torch.as_tensor(vector))
    bad = (info != 0).numpy()
    solution = solved.numpy()
    if bad.any():
        size = np.abs(matrix[bad]).max(axis=(-1, -2), initial=0.0)
        shift = (1e-10 * size + 1e-300)[:, None, None] * np.eye(matrix.shape[-1])
        again, _ = torch.linalg.solve_ex(
            torch.as_tensor(matrix[bad] + shift), torch.as_tensor(vector[bad])
        )
        solution = solution.copy()
        solution[bad] = again.numpy()
    return solution


def _row_weights(jacobian: np.ndarray) -> np.ndarray:
    """One over the row sums: rows of a stiff system then weigh alike."""
    size = np.abs(jacobian).sum(axis=-1)
    return 1.0 / np.where((size > 0) & np.isfinite(size), size, 1.0)


def _merit(
    part: Rows, value: np.ndarray, weight: np.ndarray, known: np.ndarray | None, active: np.ndarray
) -> np.ndarray:
    norm = np.linalg.norm(value * weight, axis=-1)
    if known is not None:
        deflation = np.log1p(1.0 / _distances(part, known[active])).sum(axis=-1)
        norm = norm * np.exp(np.minimum(deflation, 600.0))
    return np.where(np.isnan(norm), np.inf, norm)


def _distances(part: Rows, known: np.ndarray) -> np.ndarray:
    """Squared distance to each known root in scales; inf where there is none."""
    squared = (((part.x[:, None] - known) / part.scale) ** 2).sum(axis=-1)
    return np.where(np.isnan(squared), np.inf, np.maximum(squared, 1e-30))


def _deflation_divisor(part: Rows, step: np.ndarray, known: np.ndarray) -> np.ndarray:
    """1 - grad log M . step, (row, 1)."""
    squared = _distances(part, known)
    away = np.nan_to_num((part.x[:, None] - known) / part.scale)
    along = (away * step[:, None]).sum(axis=-1)
    slope = np.where(np.isinf(squared), 0.0, -2.0 * along / (squared * (1.0 + squared)))
    divisor = 1.0 - slope.sum(axis=-1)
    return np.where(np.abs(divisor) < 1e-3, 1e-3, divisor)[:, None]
