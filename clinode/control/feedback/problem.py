"""What is to be controlled, at what cost, from which readings: a `ControlProblem`.

    minimize   E sum_k (x - target)' Q (x - target) + (u - u0)' R (u - u0)     (a map; else int dt)
    subject to x(k + 1) = f(x, u) + w,   y = h(x) + v,   low <= u <= high

Time begins at 0 and ends at the horizon, after which `final_cost` is counted once; without a
horizon the cost is that of one step (or of one time unit) in the long run. Who solves it is
`lqr`, `lqg` (linear systems), `ilqg`, `dual_control` and `model_predictive`.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity, System, Values, flat_names, positions

from .quadratic import Named, OutputCost, Quadratic, StateCost, by_name, semidefinite, vector

NoiseFunction = Callable[..., Tensor]  # (t, x, u) -> (..., state, source); (t, x) of sensors


@dataclass(frozen=True, eq=False)
class ControlProblem:
    """A system, its cost, what is read and how noisy everything is.

    Args:
        system: A `LinearSystem`, or any other flow or map.
        state_cost: A `StateCost` or an `OutputCost`; a bare weight is that of the states.
        input_cost: R, (input, input), positive semidefinite, or a number for all inputs alike. It
            weighs u - u0, where u0 is zero, or of a `LinearSystem` the input that holds the target
            (the operating input where no input does).
        sensors: What is read: (sensor, state), names of outputs, or None for all outputs.
        process_noise: W, (state, state): covariance of w a step of a map; of a flow the spectral
            density, in state unit^2 / time unit. Or a function of (t, x, u) that gives the factor
            (..., state, source) of it. None is the system's own `noise`, or none.
        sensor_noise: V, (sensor, sensor): covariance of v; of a flow its spectral density. Or a
            function of (t, x) that gives V, (..., sensor, sensor). None: the readings are exact.
        horizon: In the system's time unit, of a map a whole number of its steps; None is endless.
        limits: Lowest and highest input: numbers, or (input,) each.
        final_cost: Counted once, at the horizon; None is the state cost of a map, none of a flow.
            Without a target it has that of the state cost, if both weigh states or both outputs.
        initial_state: Mean of the state at time 0, absolute; None is the operating point of a
            `LinearSystem`, or the states' defaults.
        initial_covariance: Of the state at time 0, before the first reading; zero by default.
        control_dependent_noise: C_i, (state, input) each: sum_i C_i (u - u0) e_i, e_i independent,
            is added to w. Motor noise that grows with the command.
        state_dependent_sensing: D_i, (sensor, state) each: sum_i D_i (x - target) e_i is added
            to v.

    Raises:
        ArgumentError: Shapes that do not fit, weights or covariances that are not symmetric and
            positive semidefinite, a horizon that is no whole number of steps, limits that exclude
            every input, a state cost for a learned system.

    Example:
        >>> drift = LinearSystem([[1.1]], [[1.0]], step=1)
        >>> problem = ControlProblem(drift, 1.0, 0.5, process_noise=0.2, sensor_noise=0.3)
        >>> problem.sensor_names
        ('x1',)
    """

    system: System
    state_cost: Named | StateCost | OutputCost
    input_cost: Values
    sensors: Values | Sequence[str] | None = None
    process_noise: Values | NoiseFunction | None = None
    sensor_noise: Values | NoiseFunction | None = None
    horizon: float | int | None = None
    limits: tuple[Values, Values] | None = None
    _: KW_ONLY
    final_cost: Named | StateCost | OutputCost | None = None
    initial_state: Values | None = None
    initial_covariance: Values | None = None
    control_dependent_noise: Sequence[Values] = ()
    state_dependent_sensing: Sequence[Values] = ()

    def __post_init__(self):
        if self.system.delays or self.system.events:
            raise ArgumentError(
                f"{type(self.system).__name__} has delays or events, control problems have none",
                fix="write delays as a chain of states",
            )
        if not self.system.n_inputs:
            raise ArgumentError(f"{type(self.system).__name__} has no input to control it by")
        if isinstance(self.system, LinearSystem) and self.system.A.ndim > 2:
            raise ArgumentError("the linear system has batch axes", fix="give one member of it")
        self._check_horizon()
        # Each property checks what it gives; asked once here, a bad call fails where it is made.
        for name in ("stage", "final", "R", "W", "V", "bounds", "start", "spread"):
            getattr(self, name)
        self._check_factors()

    @property
    def is_linear(self) -> bool:
        """Whether the system is a `LinearSystem`."""
        return isinstance(self.system, LinearSystem)

    @property
    def is_map(self) -> bool:
        """Whether it moves in steps."""
        return self.system.step is not None

    @property
    def n_steps(self) -> int:
        """Steps to the horizon.

        Raises:
            ArgumentError: There is no horizon, or the system is a flow.
        """
        if self.horizon is None or self.system.step is None:
            raise ArgumentError(
                "this needs a number of steps to a horizon",
                fix="a map and a horizon; `sampled_problem` makes a map of a flow",
            )
        return round(self.horizon / self.system.step)

    @functools.cached_property
    def stage(self) -> Quadratic:
        """The state cost as tensors."""
        return self._quadratic(self.state_cost, "state_cost")

    @functools.cached_property
    def final(self) -> Quadratic:
        """The final cost as tensors."""
        if self.final_cost is not None:
            made = self._quadratic(self.final_cost, "final_cost")
            shared = made.target is None and made.of_outputs == self.stage.of_outputs
            return replace(made, target=self.stage.target) if shared else made
        return self.stage if self.is_map else replace(self.stage, weight=0 * self.stage.weight)

    @functools.cached_property
    def R(self) -> Tensor:
        """(input, input)."""
        return semidefinite("input_cost", self.input_cost, self.system.n_inputs)

    @functools.cached_property
    def W(self) -> Tensor | None:
        """(state, state), zero where there is no noise; None where it is a function."""
        noise, n = self.process_noise, self.system.n_states
        if callable(noise) or (noise is None and self.system.noise is not None):
            return None
        return semidefinite("process_noise", 0.0 if noise is None else noise, n)

    @functools.cached_property
    def V(self) -> Tensor | None:
        """(sensor, sensor), zero where there is no noise; None where it is a function."""
        noise = self.sensor_noise
        if callable(noise):
            return None
        return semidefinite("sensor_noise", 0.0 if noise is None else noise, self.n_sensors)

    @functools.cached_property
    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """Lowest and highest input, (input,) each."""
        if self.limits is None:
            return None
        n = self.system.n_inputs
        low, high = (vector("limits", side, n, finite=False) for side in self.limits)
        if low.isnan().any() or high.isnan().any() or (low > high).any():
            raise ArgumentError(
                "limits exclude every input: a lower limit is above the upper one, or not a number"
            )
        return low, high

    @functools.cached_property
    def start(self) -> Tensor:
        """Mean of the state at time 0, (..., state)."""
        system = self.system
        if self.initial_state is not None:
            x = torch.as_tensor(self.initial_state, dtype=torch.float64)
            if x.ndim < 1 or x.shape[-1] != system.n_states or not x.isfinite().all():
                raise ArgumentError(
                    f"initial_state of shape {tuple(x.shape)} is no {system.n_states} finite states"
                )
            return x
        if isinstance(system, LinearSystem):
            return system.x0.double()
        return system.initial_state().double()

    @functools.cached_property
    def spread(self) -> Tensor:
        """Covariance of the state at time 0, (state, state)."""
        given = 0.0 if self.initial_covariance is None else self.initial_covariance
        return semidefinite("initial_covariance", given, self.system.n_states)

    @functools.cached_property
    def control_factors(self) -> Tensor:
        """The C_i, (source, state, input)."""
        return self._factors(self.control_dependent_noise, self.system.n_states,
                             self.system.n_inputs)  # fmt: skip

    @functools.cached_property
    def sensing_factors(self) -> Tensor:
        """The D_i, (source, sensor, state)."""
        return self._factors(self.state_dependent_sensing, self.n_sensors, self.system.n_states)

    @functools.cached_property
    def sensor_quantities(self) -> tuple[Quantity, ...]:
        """What is read, with units; a row of a matrix that picks a state has that state's name."""
        system = self.system
        if self._rows is not None:
            flat = [(q, name) for q in system.outputs for name in q.names]
            return _joined([_single(*flat[row]) for row in self._rows])
        if self._matrix is None:
            return tuple(system.outputs)
        flat = [(q, name) for q in system.states for name in q.names]
        made = []
        for i, row in enumerate(self._matrix):
            picked = row.nonzero().flatten().tolist()
            alone = len(picked) == 1 and float(row[picked[0]]) == 1.0
            made.append(_single(*flat[picked[0]]) if alone else Quantity(f"sensor{i + 1}", "1"))
        return _joined(made)

    @property
    def sensor_names(self) -> tuple[str, ...]:
        """Flat names of what is read."""
        return flat_names(self.sensor_quantities)

    @property
    def n_sensors(self) -> int:
        """How many numbers are read at once."""
        return sum(quantity.size for quantity in self.sensor_quantities)

    @property
    def sees_state(self) -> bool:
        """Whether the state itself is read without noise."""
        exact = self.sensor_noise is None and not len(self.state_dependent_sensing)
        return exact and self.sensor_names == self.system.state_names

    @property
    def read_rows(self) -> list[int]:
        """Which outputs are read; empty where sensors are a matrix on the states."""
        if self._rows is not None:
            return self._rows
        return list(range(self.system.n_outputs)) if self._matrix is None else []

    def read(self, t: float | int | Tensor, x: Tensor) -> Tensor:
        """The reading without its noise, (..., sensor)."""
        if self._matrix is not None:
            return x @ self._matrix.T
        u = x.new_zeros(self.system.n_inputs)
        if isinstance(self.system, LinearSystem):
            u = u + self.system.u0
        y = self.system.output(t, x, u)
        return y if self._rows is None else y[..., self._rows]

    @functools.cached_property
    def _matrix(self) -> Tensor | None:
        """Sensors given as a matrix."""
        if self.sensors is None or _names(self.sensors) is not None:
            return None
        matrix = torch.as_tensor(self.sensors, dtype=torch.float64)
        n = self.system.n_states
        if matrix.ndim != 2 or matrix.shape[-1] != n or not matrix.isfinite().all():
            raise ArgumentError(
                f"sensors of shape {tuple(matrix.shape)}, expected a finite (sensor, {n})"
            )
        return matrix

    @functools.cached_property
    def _rows(self) -> list[int] | None:
        """Sensors given as names of outputs."""
        names = _names(self.sensors)
        if names is None:
            return None
        what = f"output of {type(self.system).__name__}"
        return [p for name in names for p in positions(self.system.outputs, name, what)]

    def _quadratic(self, cost: Named | StateCost | OutputCost, what: str) -> Quadratic:
        if not isinstance(cost, StateCost | OutputCost):
            cost = StateCost(cost)
        system, of_outputs = self.system, isinstance(cost, OutputCost)
        if system.latent and not of_outputs:
            raise ArgumentError(
                f"{what} weighs states of a learned system, whose coordinates are arbitrary: "
                "another training of the same model would be asked for something else",
                fix="OutputCost(weight, target) weighs its outputs",
            )
        quantities = system.outputs if of_outputs else system.states
        n, word = sum(q.size for q in quantities), "output" if of_outputs else "state"
        weight, target = cost.weight, cost.target
        if isinstance(weight, Mapping):
            weight = torch.diag(by_name(weight, quantities, word))
        if isinstance(target, Mapping):
            target = by_name(target, quantities, word)
        target = None if target is None else vector(f"target of {what}", target, n)
        return Quadratic(semidefinite(what, weight, n), target, of_outputs)

    def _check_horizon(self) -> None:
        horizon, step = self.horizon, self.system.step
        if horizon is None:
            return
        if not (math.isfinite(horizon) and horizon > 0):
            raise ArgumentError(f"horizon must be positive and finite, got {horizon}")
        if step is not None and abs(horizon / step - round(horizon / step)) > 1e-6:
            raise ArgumentError(
                f"a horizon of {horizon} {self.system.time_unit} is no whole number of steps of "
                f"{step}"
            )

    def _check_factors(self) -> None:
        _ = self.control_factors, self.sensing_factors

    def _factors(self, given: Sequence[Values], n_rows: int, n_columns: int) -> Tensor:
        made = [torch.as_tensor(factor, dtype=torch.float64) for factor in given]
        for factor in made:
            if factor.shape != (n_rows, n_columns) or not factor.isfinite().all():
                raise ArgumentError(
                    f"a signal-dependent factor has shape {tuple(factor.shape)}, expected a finite "
                    f"{(n_rows, n_columns)}"
                )
        return torch.stack(made) if made else torch.zeros(0, n_rows, n_columns).double()


def _single(quantity: Quantity, name: str) -> Quantity:
    """One member of a quantity, by itself."""
    label = name.partition(":")[2]
    return Quantity(quantity.name, quantity.unit, labels=(label,) if label else ())


def _joined(singles: Sequence[Quantity]) -> tuple[Quantity, ...]:
    """Neighboring members of one block as one quantity."""
    made: list[Quantity] = []
    for one in singles:
        if made and made[-1].name == one.name and one.labels:
            made[-1] = replace(made[-1], labels=(*made[-1].labels, *one.labels))
        else:
            made.append(one)
    return tuple(made)


def _names(sensors: Values | Sequence[str] | None) -> list[str] | None:
    """Sensors given as names, or None."""
    if isinstance(sensors, str):
        return [sensors]
    if not isinstance(sensors, Sequence) or not sensors or not isinstance(sensors[0], str):
        return None
    return [str(name) for name in sensors]
