"""Minimum energies that are right, or say that they are not known.

The energy of a transfer is the least integral of |u - u0|^2 over the inputs that make it. Where few
inputs steer many states it easily exceeds 1e100, the Gramian has no accurate inverse in float64,
and a number from one means nothing. So every energy here carries a verdict:

"reliable"      the value is right within `bound`, which is proven, not estimated
"unreachable"   no input makes this transfer, however large: proven in exact arithmetic
"lower bound"   the energy is certainly no less than the value; time or precision ended
"undecided"     nothing is certain, not even a lower bound

Everything is certified for the float64 numbers given. Four routes, each where the last one ends:
closed form with full control (`full_control`), square root of the Gramian in float64
(`square_root`), the Cauchy inverse for one input and an infinite horizon, ball arithmetic
(`certified`). What can be done within bounded amplitude where an energy is out of reach:
`clinode.control.energy.reachable`; costs on the way: `clinode.control.energy.optimal_energy`.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from flint import arb

from clinode.control.stimulation.limits import StimulusLimits
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Values

from .certified import Certified, certified_energies
from .full_control import full_control_energies
from .square_root import Bracket, square_root_energies
from .transfers import Array, Transfers, output_transfers, state_transfers


@dataclass(frozen=True, eq=False)
class Energy:
    """Energies of transfers, one entry a pair of states, (*batch).

    Attributes:
        value: Input unit^2 x time unit; input unit^2 of a map. inf above 1e308, and for what cannot
            be reached; 0 below 1e-308.
        log10: Its logarithm, also where the value is beyond float64; -inf for a free transfer.
        bound: Largest relative error of the value, proven; of a lower bound inf, or by how much the
            energy may exceed it at most.
        reach_error: Norm of the distance between the target and where the input of this energy
            leads: rounding where reliable, the nearest that can be reached where unreachable, where
            the best input that float64 can compute ends for a lower bound; NaN where unknown.
        within_limits: True or False where that is certain, None where it is not.
        verdict: "reliable", "lower bound", "unreachable" or "undecided".
        route: How each was found.
    """

    value: np.ndarray
    log10: np.ndarray
    bound: np.ndarray
    reach_error: np.ndarray
    within_limits: np.ndarray
    verdict: np.ndarray
    route: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and words, for JSON; None where a number is not finite."""
        numbers = ("value", "log10", "bound", "reach_error")
        told = {name: _finite(getattr(self, name).tolist()) for name in numbers}
        words = ("within_limits", "verdict", "route")
        return {**told, **{name: getattr(self, name).tolist() for name in words}}

    def to_pandas(self) -> pd.DataFrame:
        """One row a pair, over several batch axes in C order."""
        names = ("value", "log10", "bound", "reach_error", "within_limits", "verdict", "route")
        return pd.DataFrame({name: getattr(self, name).reshape(-1) for name in names})


def control_energy(
    linear: LinearSystem,
    x0: Values,
    target: Values,
    horizon: float | int = 1.0,
    *,
    limits: StimulusLimits | float | int | None = None,
    outputs: bool = False,
    rtol: float = 1e-6,
    wall_time_seconds: float | int = 60.0,
) -> Energy:
    """Least energy to steer from x0 to the target in the horizon, of any number of pairs.

    E = d' W(T)^-1 d, d = target - x_op - exp(A T) (x0 - x_op), W(T) the Gramian of the inputs; the
    operating point (x_op, u_op) is that of `linear`, and energies count deviations from u_op.
    With an infinite horizon the start does not matter. A target that the system drifts to by
    itself, up to the rounding of the target, costs nothing.

    Args:
        linear: In continuous time, or a map, whose energy is the sum of |u(k)|^2 over the steps.
        x0: (..., state), absolute; one number stands for all states.
        target: (..., state), absolute, or (..., output) with `outputs`; batch axes broadcast.
        horizon: T, in time units; math.inf for a stable system.
        limits: Largest energy, or limits of a stimulus, of which energy and amplitude are compared;
            None allows any finite energy.
        outputs: Whether targets are outputs, read once the inputs are back at rest:
            y_op + C (x(T) - x_op). Learned systems can be asked nothing else.
        rtol: Relative error that a reliable energy must not exceed.
        wall_time_seconds: After this no round of higher precision begins.

    Raises:
        ArgumentError: States of a wrong length or not finite; a horizon that is not positive, no
            whole number of steps, too long, or infinite for an unstable system; a learned system
            without `outputs`; matrices with batch axes.

    Example:
        >>> mass = LinearSystem([[0.0, 1.0], [0.0, 0.0]], [[0.0], [1.0]])  # rest to rest: 12 / T^3
        >>> energy = control_energy(mass, [0.0, 0.0], [1.0, 0.0], horizon=2.0)
        >>> print(f"{energy.value:.6f} {energy.verdict}")
        1.500000 reliable
    """
    if not 0 < rtol < 1:
        raise ArgumentError(f"rtol must lie between 0 and 1, got {rtol}")
    deadline = time.monotonic() + wall_time_seconds
    prepare = output_transfers if outputs else state_transfers
    transfers = prepare(linear, x0, target, horizon)
    table = _Table(len(transfers.starts))
    bracket = full_control_energies(transfers)
    if bracket is not None:
        table.take(bracket, rtol, transfers.rounding, "closed form in float64")
    if bracket is None or not table.is_settled.all():
        bracket = square_root_energies(transfers)
        if bracket is not None:
            table.take(bracket, rtol, transfers.rounding, "square root in float64")
    left = np.flatnonzero(~table.is_settled)
    if len(left):
        table.take_balls(left, certified_energies(transfers.subset(left), rtol, deadline))
    return table.energy(transfers.shape, _largest(limits, linear, transfers))


class _Table:
    """Energies of pairs while one route after the other has a try."""

    def __init__(self, n_pairs: int):
        self.value = np.zeros(n_pairs)
        self.log10 = np.full(n_pairs, -math.inf)
        self.bound = np.full(n_pairs, math.inf)
        self.reach_error = np.full(n_pairs, math.nan)
        self.verdict = np.full(n_pairs, "undecided", dtype=object)
        self.route = np.full(n_pairs, "", dtype=object)

    @property
    def is_settled(self) -> Array:
        """Of each pair, whether its verdict is final."""
        return (self.verdict == "reliable") | (self.verdict == "unreachable")

    def take(self, bracket: Bracket, rtol: float, rounding: Array, route: str) -> None:
        """What float64 knows: reliable where its bracket is narrow, else a lower bound."""
        low, high = bracket.low, bracket.high
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            middle = np.where(np.isfinite(high), (low + high) / 2, low)
            half = np.where(low > 0, (high - low) / 2 / low, math.inf) * (1 + 1e-9)
        free = bracket.drift_error <= rounding
        reliable = (half <= rtol) & np.isfinite(middle) & ~free & ~self.is_settled
        below = ~reliable & ~free & (low > self.value) & ~self.is_settled
        for kept, value, bound, verdict in (
            (reliable, middle, half, "reliable"),
            (below, low, 2 * half, "lower bound"),
            (free, np.zeros_like(low), np.zeros_like(low), "reliable"),
        ):
            self.value[kept], self.bound[kept] = value[kept], bound[kept]
            self.verdict[kept], self.route[kept] = verdict, route
            self.reach_error[kept] = bracket.reach_error[kept]
        self.reach_error[free], self.route[free] = bracket.drift_error[free], "free drift"
        with np.errstate(divide="ignore"):
            self.log10 = np.log10(self.value)

    def take_balls(self, pairs: Array, found: Certified) -> None:
        """What ball arithmetic and exact arithmetic know."""
        for i, pair in enumerate(pairs):
            ball, verdict = found.balls[i], found.verdicts[i]
            log10 = math.inf if verdict == "unreachable" else log10_of(ball)
            if not verdict and (log10 <= self.log10[pair] or log10 == -math.inf):
                continue
            if not verdict and math.isfinite(self.bound[pair]):
                continue  # float64 knows an upper bound as well
            self.verdict[pair] = verdict or "lower bound"
            self.value[pair], self.log10[pair] = float(ball.mid()), log10
            self.route[pair] = found.routes[i]
            if verdict:
                self.bound[pair] = 0.0 if verdict == "unreachable" else relative_error(ball)
                self.reach_error[pair] = found.reach_errors[i]

    def energy(self, shape: tuple[int, ...], largest: tuple[float, bool]) -> Energy:
        """The table as a result."""
        within = np.full(len(self.value), None, dtype=object)
        limit, is_whole = largest
        with np.errstate(invalid="ignore"):
            slack = np.where(self.verdict == "reliable", self.bound, 0.0)
            above = self.value / (1 + slack) > limit
            below = self.value * (1 + self.bound) <= limit
        within[above | (self.verdict == "unreachable")] = False
        if is_whole:
            within[below & np.isfinite(self.bound)] = True
        arrays = (self.value, self.log10, self.bound, self.reach_error, within, self.verdict)
        shaped = [array.reshape(shape) for array in (*arrays, self.route)]
        return Energy(*shaped)


def _largest(
    limits: StimulusLimits | float | int | None, linear: LinearSystem, transfers: Transfers
) -> tuple[float, bool]:
    """The largest energy allowed, and whether keeping it is all that the limits ask for."""
    if limits is None:
        return math.inf, True
    if not isinstance(limits, StimulusLimits):
        if not limits > 0:
            raise ArgumentError(f"limits must be a positive energy, got {limits}")
        return float(limits), True
    bounds = limits.bounds(linear.inputs, linear.time_unit)
    duration = transfers.horizon if transfers.n_steps is None else transfers.n_steps
    most = duration * float((np.asarray(bounds.amplitude) ** 2).sum())
    only_energy = limits == StimulusLimits(energy=limits.energy)
    return min(bounds.energy, most), only_energy


def log10_of(ball: arb) -> float:
    """log10 of the middle; -inf where the ball is not certainly positive."""
    return float((ball.log() / arb(10).log()).mid()) if ball > 0 else -math.inf


def relative_error(ball: arb) -> float:
    """Of the middle of a ball as float64, at most."""
    if ball == 0:
        return 0.0
    rounding = 2.0**-53  # of the value as float64
    return float((ball.rad() / ball.abs_lower()).abs_upper()) * (1 + 1e-9) + rounding


def _finite(numbers: Any) -> Any:
    """None for what is not finite, in nested lists."""
    if isinstance(numbers, list):
        return [_finite(x) for x in numbers]
    return numbers if math.isfinite(numbers) else None
