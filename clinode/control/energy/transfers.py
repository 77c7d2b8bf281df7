"""Many transfers of one linear system, from start to end within a horizon, in the form that the
energies are computed in: float64 arrays, checked once.

The numbers are taken at their word: A, B, states and the horizon are the float64 numbers given, and
an energy is certified for exactly those.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from clinode.control.gramian.gramian import check_stable, checked_horizon
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Values

Array = np.ndarray
LONGEST = 1e9  # largest |A| T, and number of steps: beyond it a horizon is infinite or a mistake


@dataclass(frozen=True, eq=False)
class Transfers:
    """Transfers of z' = A z + B v, or of z(k + 1) = A z(k) + B v(k), about an operating point.

    Attributes:
        A: (state, state).
        B: (state, input).
        starts: (pair, state), absolute.
        rest: (state,), the operating point of the states.
        ends: (pair, target), absolute: states, or outputs where there is a read-out.
        end_rest: (target,), the operating point of the ends.
        horizon: T in time units; math.inf for ever.
        n_steps: How many steps the horizon has; None in continuous time, math.inf for ever.
        readout: (target, state), the map from states to targets; None where ends are states.
        shape: Batch axes of the pairs.
    """

    A: Array
    B: Array
    starts: Array
    rest: Array
    ends: Array
    end_rest: Array
    horizon: float
    n_steps: float | None
    readout: Array | None
    shape: tuple[int, ...]

    @property
    def is_map(self) -> bool:
        """Whether it moves in steps."""
        return self.n_steps is not None

    @property
    def is_endless(self) -> bool:
        """Whether the horizon is infinite."""
        return math.isinf(self.horizon)

    @property
    def is_symmetric(self) -> bool:
        """Whether A equals its transpose in every bit."""
        return bool(np.array_equal(self.A, self.A.T))

    @property
    def is_short(self) -> bool:
        """Whether it moves in fewer steps than it has states, too few to reach whole modes."""
        return self.n_steps is not None and self.n_steps < self.n_states

    @property
    def n_states(self) -> int:
        """Length of the state."""
        return len(self.A)

    @property
    def moved_starts(self) -> Array:
        """(pair, state), starts as deviations, rounded once; zero where the horizon is infinite."""
        return np.zeros_like(self.starts) if self.is_endless else self.starts - self.rest

    @property
    def moved_ends(self) -> Array:
        """(pair, target), ends as deviations, rounded once."""
        return self.ends - self.end_rest

    @property
    def rounding(self) -> Array:
        """(pair,), by how much rounding may move the point that a pair asks for.

        A target nearer than this to where the system drifts by itself is that point: nobody can
        write it down more exactly.
        """
        size = np.abs(self.ends).max(axis=1, initial=0.0) + np.abs(self.end_rest).max(initial=0.0)
        return 64 * np.finfo(float).eps * size

    def subset(self, kept: Array) -> "Transfers":
        """The pairs at these positions."""
        starts, ends = self.starts[kept], self.ends[kept]
        return replace(self, starts=starts, ends=ends, shape=(len(starts),))


def state_transfers(
    linear: LinearSystem, x0: Values, target: Values, horizon: float | int
) -> Transfers:
    """Transfers between states.

    Raises:
        ArgumentError: A learned system, whose state coordinates mean nothing; batch axes of the
            matrices; states of a wrong length or not finite; an impossible horizon.
    """
    states = matrix_of(linear, "x0")
    if linear.latent:
        raise ArgumentError(
            "the states of a learned system have arbitrary coordinates, so a state is no target",
            fix="ask for the energy to an output target: outputs=True",
        )
    return _transfers(linear, x0, target, horizon, None, states, linear.state_names, "states")


def output_transfers(
    linear: LinearSystem, x0: Values, target: Values, horizon: float | int
) -> Transfers:
    """Transfers to outputs y0 + C (x(T) - x0), read once the inputs are back at rest.

    Raises:
        ArgumentError: As `state_transfers`, but for the learned system, which is welcome; outputs
            that are no targets because no state moves them.
    """
    C, rest = matrix_of(linear, "C"), matrix_of(linear, "y0")
    return _transfers(linear, x0, target, horizon, C, rest, linear.output_names, "outputs")


def _transfers(
    linear: LinearSystem,
    x0: Values,
    target: Values,
    horizon: float | int,
    readout: Array | None,
    end_rest: Array,
    names: tuple[str, ...],
    what: str,
) -> Transfers:
    A, B, rest = (matrix_of(linear, name) for name in ("A", "B", "x0"))
    start = _vectors(x0, len(A), "x0", "states")
    end = _vectors(target, len(names), "target", what)
    try:
        shape = np.broadcast_shapes(start.shape[:-1], end.shape[:-1])
    except ValueError:
        raise ArgumentError(
            f"x0 has shape {start.shape} and target {end.shape}: their batch axes do not fit"
        ) from None
    T, n_steps = horizon_of(linear, A, horizon)
    starts = np.broadcast_to(start, (*shape, len(A))).reshape(-1, len(A))
    ends = np.broadcast_to(end, (*shape, len(names))).reshape(-1, len(names))
    return Transfers(A, B, starts, rest, ends, end_rest, T, n_steps, readout, shape)


def matrix_of(linear: LinearSystem, name: str) -> Array:
    """A matrix or operating point of one linear system, in float64; batch axes are refused."""
    if not isinstance(linear, LinearSystem):
        raise ArgumentError(
            f"a LinearSystem is asked for, got {type(linear).__name__}",
            fix="linearize a System at an equilibrium, or LinearSystem(A, B)",
        )
    matrix = getattr(linear, name)
    if matrix.ndim > (1 if name.islower() else 2):
        raise ArgumentError(
            f"{name} has batch axes {tuple(matrix.shape)}: energies are those of one system",
            fix="give one member of the batch",
        )
    return matrix.detach().cpu().double().numpy()


def _vectors(values: Values, length: int, name: str, what: str) -> Array:
    made = values.detach().cpu() if isinstance(values, torch.Tensor) else values
    try:
        array = np.asarray(made, dtype=np.float64)
    except (TypeError, ValueError):
        raise ArgumentError(f"{name} must be numbers (..., {length})") from None
    if array.ndim == 0:
        array = np.full(length, float(array))
    if array.shape[-1] != length:
        raise ArgumentError(
            f"{name} has shape {array.shape}, expected (..., {length}): one value for each of the "
            f"{length} {what}"
        )
    if not np.isfinite(array).all():
        raise ArgumentError(f"{name} has entries that are not finite")
    return array


def horizon_of(linear: LinearSystem, A: Array, horizon: float | int) -> tuple[float, float | None]:
    """T, and of a map how many steps it has; what cannot be a horizon is refused."""
    T = checked_horizon(horizon)
    if math.isinf(T):
        check_stable(torch.from_numpy(A), is_map=linear.step is not None)
        return T, None if linear.step is None else math.inf
    length = float(np.abs(A).sum(axis=1).max(initial=0.0)) * T if linear.step is None else 0.0
    steps = None
    if linear.step is not None:
        steps = length = float(round(T / linear.step))
        if steps < 1 or abs(T / linear.step - steps) > 1e-9 * steps:
            nearest = max(steps, 1.0) * linear.step
            raise ArgumentError(
                f"a horizon of {T:g} is no whole number of steps of {linear.step:g}",
                fix=f"{nearest:g} is",
            )
    if length > LONGEST:
        raise ArgumentError(
            f"a horizon of {T:g} overflows: it is {length:.1e} time constants or steps long",
            fix="horizon=math.inf where the system is stable, or a shorter one",
        )
    return T, steps
