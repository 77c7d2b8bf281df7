"""Transfers that cost the least on the way: integral of (x - x_r)'S(x - x_r) + rho |u - u_op|^2.

With S = 0 these are the transfers of least energy, so this is also where their inputs and states
over time come from. No such energy is below the least one, which `clinode.control.energy` proves:
an optimum that contradicts it, or whose two ways to compute the cost disagree, is not believed, and
ball arithmetic takes over.
"""

import functools
import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from clinode.errors import ArgumentError
from clinode.system import FunctionSignal, LinearSystem, Signal, Values

from .energy import Energy, control_energy
from .optimal_path import Cost
from .optimal_way import Way, judged
from .transfers import Array, Transfers, state_transfers


@dataclass(frozen=True, eq=False)
class OptimalTrajectory:
    """States and inputs of optimal transfers over time, absolute.

    Attributes:
        times: (time,), in time units.
        states: (*batch, time, state).
        inputs: (*batch, time, input).
        state_names, input_names: What stands on the last axes.
    """

    times: Float[np.ndarray, " time"]
    states: np.ndarray
    inputs: np.ndarray
    state_names: tuple[str, ...]
    input_names: tuple[str, ...]

    def to_pandas(self) -> pd.DataFrame:
        """One row a pair and time, states before inputs."""
        n_pairs, n_times = int(np.prod(self.states.shape[:-2])), len(self.times)
        columns = {
            "pair": np.repeat(np.arange(n_pairs), n_times),
            "time": np.tile(self.times, n_pairs),
        }
        for names, values in ((self.state_names, self.states), (self.input_names, self.inputs)):
            flat = values.reshape(n_pairs * n_times, len(names))
            columns |= dict(zip(names, flat.T, strict=True))
        return pd.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        arrays = {name: getattr(self, name).tolist() for name in ("times", "states", "inputs")}
        return {
            **arrays,
            "state_names": list(self.state_names),
            "input_names": list(self.input_names),
        }


@dataclass(frozen=True, eq=False)
class OptimalEnergy:
    """Optimal transfers, one entry a pair of states, (*batch).

    Attributes:
        value: Integral of |u - u_op|^2, input unit^2 x time unit; of a map the sum over its steps.
            nctpy's energies are sums of samples 0.001 apart: 1000 times this.
        log10: Its logarithm.
        cost: Of the whole way, state and input.
        bound: Relative error of value and cost: proven by ball arithmetic, else estimated from
            residuals, with a margin; inf for a lower bound.
        reach_error: Norm of the distance between the target and where the transfer ends.
        verdict: "reliable", "unreachable", or "lower bound": the value is then the least energy of
            any transfer.
        route: How each was found.
        minimum: The least energies, with S = 0.
    """

    value: np.ndarray
    log10: np.ndarray
    cost: np.ndarray
    bound: np.ndarray
    reach_error: np.ndarray
    verdict: np.ndarray
    route: np.ndarray
    minimum: Energy
    _way: Way = field(repr=False)

    @functools.cached_property
    def by_input(self) -> np.ndarray:
        """(*batch, input): integral of each input's squared deviation; NaN where not reliable."""
        return self._only_reliable(self._way.by_input())

    def trajectory(self, times: Values | int = 101) -> OptimalTrajectory:
        """States and inputs at times, or at that many of them over the horizon.

        NaN for pairs without a reliable path in float64.

        Raises:
            ArgumentError: Times outside the horizon.
        """
        T = self._way.horizon
        grid = (
            np.linspace(0.0, T, times) if isinstance(times, int) else np.asarray(times, dtype=float)
        )
        if grid.ndim != 1 or not ((grid >= 0) & (grid <= T * (1 + 1e-12))).all():
            raise ArgumentError(f"times must lie between 0 and the horizon, {T:g}")
        states, inputs = (self._only_reliable(x) for x in self._way.at(grid))
        names = self._way.linear.state_names, self._way.linear.input_names
        return OptimalTrajectory(grid, states, inputs, *names)

    def to_signal(self) -> FunctionSignal:
        """The inputs as a function of time for `simulate`, exact between times, (*batch, input).

        After the horizon they are back at u_op.

        Raises:
            ArgumentError: A pair without a reliable path in float64, or a map.
        """
        way = self._way
        if way.is_map or not (self.verdict == "reliable").all() or not way.found.all():
            raise ArgumentError(
                "a signal needs a reliable path in continuous time for every pair",
                fix="ask for the trajectory, or leave out pairs whose verdict is not reliable",
            )

        def inputs(t: torch.Tensor) -> torch.Tensor:
            return way.inputs_at(t)

        return FunctionSignal(inputs, [*way.knots, way.horizon])

    def _only_reliable(self, values: np.ndarray) -> np.ndarray:
        shape = self.value.shape
        kept = self._way.found.reshape(shape)
        shaped = values.reshape(*shape, *values.shape[1:])
        return np.where(kept.reshape(*shape, *[1] * (values.ndim - 1)), shaped, np.nan)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and words, for JSON; None where a number is not finite."""
        names = ("value", "log10", "cost", "bound", "reach_error")
        numbers = {name: _finite(getattr(self, name).tolist()) for name in names}
        return {**numbers, "verdict": self.verdict.tolist(), "route": self.route.tolist()}

    def to_pandas(self) -> pd.DataFrame:
        """One row a pair, over several batch axes in C order."""
        names = ("value", "log10", "cost", "bound", "reach_error", "verdict", "route")
        return pd.DataFrame({name: getattr(self, name).reshape(-1) for name in names})


def optimal_energy(
    linear: LinearSystem,
    x0: Values,
    target: Values,
    horizon: float | int = 1.0,
    *,
    state_cost: Values = 1.0,
    input_cost: float | int = 1.0,
    reference: Values | Signal | None = None,
    rtol: float = 1e-6,
    wall_time_seconds: float | int = 60.0,
) -> OptimalEnergy:
    """Steer from x0 to the target in the horizon at the least cost on the way.

    Where A is symmetric, every state has an input of its own, S is a multiple of the identity and
    the reference is constant, each mode has a closed form; else paths are found by doubling
    (`clinode.control.energy.optimal_path`), stable over any horizon.

    Args:
        linear: In continuous time, or a map, whose cost is a sum over its steps.
        x0: (..., state), absolute; one number stands for all states.
        target: (..., state), absolute; batch axes broadcast.
        horizon: T, finite, in time units.
        state_cost: S: a number (times the identity), (state,) a diagonal, or (state, state),
            symmetric, never negative. 0 asks for the least energy.
        input_cost: rho.
        reference: x_r, absolute: (..., state) or one number, constant, or a Signal of the states.
            The operating point by default, which is zero unless the system says otherwise.
        rtol: Relative error that a reliable energy must not exceed.
        wall_time_seconds: After this no round of higher precision begins.

    Raises:
        ArgumentError: As `control_energy`; an infinite horizon, costs or a reference that do not
            fit.
        SolverError: A system so stiff that a path has more than 8192 time constants.

    Example:
        >>> leak = LinearSystem([[-1.0]], [[1.0]])
        >>> way = optimal_energy(leak, 0.0, 1.0, horizon=1.0, state_cost=0.0)
        >>> print(f"{way.value:.6f} {way.verdict}")  # 2 / (1 - exp(-2))
        2.313035 reliable
    """
    deadline = time.monotonic() + wall_time_seconds
    transfers = state_transfers(linear, x0, target, horizon)
    if transfers.is_endless:
        raise ArgumentError(
            "an optimal transfer needs a finite horizon", fix="control_energy has an infinite one"
        )
    if not (math.isfinite(input_cost) and input_cost > 0):
        raise ArgumentError(f"input_cost must be positive, got {input_cost}")
    S = _state_cost(state_cost, transfers.n_states)
    cost = Cost(transfers.A, transfers.B, S, float(input_cost), transfers.is_map)
    reference = _reference(reference, transfers)
    minimum = control_energy(
        linear, x0, target, horizon, rtol=rtol, wall_time_seconds=wall_time_seconds
    )
    way = Way(linear, transfers, cost, reference)
    judgement = judged(way, minimum, rtol, deadline)
    shaped = {name: array.reshape(transfers.shape) for name, array in vars(judgement).items()}
    return OptimalEnergy(**shaped, minimum=minimum, _way=way)


def _state_cost(given: Values, n: int) -> Array:
    made = given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else given
    S = np.asarray(made, dtype=np.float64)
    if S.ndim == 0:
        S = float(S) * np.eye(n)
    elif S.shape == (n,):
        S = np.diag(S)
    if S.shape != (n, n):
        raise ArgumentError(
            f"state_cost has shape {S.shape}, expected a number, ({n},) or ({n}, {n})"
        )
    if not np.isfinite(S).all() or not np.array_equal(S, S.T):
        raise ArgumentError("state_cost must be finite and symmetric")
    least = float(np.linalg.eigvalsh(S)[0]) if n else 0.0
    if least < -n * np.finfo(float).eps * max(float(np.abs(S).max(initial=0.0)), 1e-300):
        raise ArgumentError(f"state_cost must not be negative, it has the eigenvalue {least:.3g}")
    return S


def _reference(given: Values | Signal | None, transfers: Transfers) -> Signal | Array | None:
    """As deviations from the operating point, one for each pair, or over time."""
    if given is None:
        return None
    n = transfers.n_states
    if isinstance(given, Signal):
        if given.n_inputs != n or given.batch_shape or given.impulses is not None:
            raise ArgumentError(
                f"a reference over time is one signal of the {n} states, without batch axes and "
                "impulses"
            )
        return Signal(given.knots, given.values.double() - torch.tensor(transfers.rest), given.hold)
    made = given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else given
    array = np.asarray(made, dtype=np.float64)
    if array.ndim == 0:
        array = np.full(n, float(array))
    if array.shape[-1] != n or not np.isfinite(array).all():
        raise ArgumentError(f"reference must be finite and (..., {n}), got {array.shape}")
    try:
        array = np.broadcast_to(array, (*transfers.shape, n))
    except ValueError:
        raise ArgumentError(
            f"reference of shape {array.shape} does not fit pairs of shape {transfers.shape}"
        ) from None
    return array.reshape(-1, n) - transfers.rest


def _finite(numbers: Any) -> Any:
    if isinstance(numbers, list):
        return [_finite(x) for x in numbers]
    return numbers if math.isfinite(numbers) else None
