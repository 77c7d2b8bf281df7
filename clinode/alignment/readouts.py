"""What of a system is compared: where it rests, how it moves, or how fast it cycles.

A readout measures a system as it is, and then under an experiment from the same state. Where there
is nothing to measure, no rest or no cycle, it says why; nobody counts that as no effect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from clinode.dynamics import find_equilibria, find_limit_cycle, simulate
from clinode.dynamics.field import bounds_or_unit, constant_input
from clinode.errors import ArgumentError, SolverError
from clinode.system import Intervention, Quantity, System, Values, intervene

from .rest import is_linear, settle

Start = Values | Mapping[str, float] | None


@dataclass(frozen=True, eq=False)
class Measured:
    """What a readout gave, or why nothing.

    Attributes:
        values: (reading,); None where nothing could be measured.
        state: (state,), where the system was; experiments begin there.
        why: Words where nothing was measured.
    """

    values: np.ndarray | None
    state: np.ndarray | None = None
    why: str = ""


@dataclass(frozen=True)
class Reading:
    """One number that is read.

    Attributes:
        output: Name of the output that it is of; of a period, "period".
        unit: Its unit.
        time: When; None where it is of no moment.
    """

    output: str
    unit: str
    time: float | None = None

    @property
    def name(self) -> str:
        """The output, and when."""
        return self.output if self.time is None else f"{self.output} at {self.time:.6g}"


@runtime_checkable
class Readout(Protocol):
    """Measures a system, and what an experiment makes of it."""

    def readings(self, system: System) -> tuple[Reading, ...]:
        """What is read, in the order of the values."""
        ...

    def intact(self, system: System) -> Measured:
        """The system as it is."""
        ...

    def under(
        self, system: System, experiment: Sequence[Intervention], intact: Measured
    ) -> Measured:
        """The system under an experiment, begun where it was intact."""
        ...


@dataclass(frozen=True, kw_only=True)
class AtRest:
    """The outputs where the system comes to rest, before an experiment and after it.

    Args:
        u: The constant input.
        start: A state from which the intact system settles, as a tensor (state,) or by name over
            the states' defaults; by default its first stable equilibrium.
    """

    u: Any = 0.0
    start: Start = None

    def readings(self, system: System) -> tuple[Reading, ...]:
        return _outputs(system)

    def intact(self, system: System) -> Measured:
        u = constant_input(self.u, system)
        if self.start is None and not is_linear(system):
            found = find_equilibria(system, u)
            stable = [one for one in found if one.is_stable]
            if not stable:
                return Measured(None, why=f"no stable rest: {found.verdict}")
            return _read(system, stable[0].state.detach().numpy(), u)
        return self._settled(system, _state(system, self.start), u)

    def under(
        self, system: System, experiment: Sequence[Intervention], intact: Measured
    ) -> Measured:
        u = constant_input(self.u, system)
        return self._settled(intervene(system, *experiment), _known(intact), u)

    def _settled(self, system: System, start: np.ndarray, u: torch.Tensor) -> Measured:
        rest = settle(system, start, u)
        return Measured(None, why=rest.why) if rest.state is None else _read(system, rest.state, u)


@dataclass(frozen=True, kw_only=True)
class OverTime:
    """The outputs at some times after the experiment has begun.

    Args:
        times: (time,), increasing, the first is the begin, in the system's time unit.
        u: The input, as in `simulate`.
        start: The state at the begin, as a tensor or by name; by default the rest under `u`, which
            must then be constant.
        method: As in `simulate`, adaptive.
        rtol, atol: As in `simulate`.
    """

    times: Values
    u: Any = 0.0
    start: Start = None
    method: str = "dopri5"
    rtol: float = 1e-8
    atol: float = 1e-10

    def readings(self, system: System) -> tuple[Reading, ...]:
        times = torch.as_tensor(self.times, dtype=torch.float64).tolist()
        return tuple(
            Reading(one.output, one.unit, time) for time in times[1:] for one in _outputs(system)
        )

    def intact(self, system: System) -> Measured:
        if self.start is None:
            rest = AtRest(u=self.u).intact(system)
            if rest.state is None:
                return rest
            return self._course(system, rest.state)
        return self._course(system, _state(system, self.start))

    def under(
        self, system: System, experiment: Sequence[Intervention], intact: Measured
    ) -> Measured:
        return self._course(intervene(system, *experiment), _known(intact))

    def _course(self, system: System, state: np.ndarray) -> Measured:
        try:
            made = simulate(
                system, torch.tensor(state), self.times, self.u, self.method, self.rtol, self.atol
            )
        except SolverError as error:
            return Measured(None, state, f"not solved: {error.problem}")
        if made.outputs.ndim > 2:
            raise ArgumentError(f"{type(system).__name__} has batch axes", fix="give one member")
        return Measured(made.outputs[1:].detach().numpy().reshape(-1), state)


@dataclass(frozen=True, kw_only=True)
class Period:
    """The period of the stable limit cycle that the system runs to.

    Args:
        u: The constant input.
        start: A state from which the cycle is reached; by default a little above the middle of the
            ranges, which itself may be the equilibrium inside the cycle.
    """

    u: Any = 0.0
    start: Start = None

    def readings(self, system: System) -> tuple[Reading, ...]:
        return (Reading("period", system.time_unit),)

    def intact(self, system: System) -> Measured:
        if self.start is None:
            low, high = bounds_or_unit(system.states)
            return self._cycle(system, low + 0.6 * (high - low))
        return self._cycle(system, _state(system, self.start))

    def under(
        self, system: System, experiment: Sequence[Intervention], intact: Measured
    ) -> Measured:
        return self._cycle(intervene(system, *experiment), _known(intact))

    def _cycle(self, system: System, start: np.ndarray) -> Measured:
        try:
            cycle = find_limit_cycle(system, start, self.u)
        except SolverError as error:
            return Measured(None, why=f"no cycle: {error.problem}")
        if not cycle.is_stable:
            return Measured(None, why="the cycle that was found is not stable")
        return Measured(np.array([float(cycle.period.detach())]), cycle.states[0].numpy())


def dependence(system: System, state: np.ndarray) -> np.ndarray:
    """(output, state), whether an output depends on a state at all, at a state without input."""
    x = torch.tensor(state)
    given = constant_input(0.0, system)
    slopes = torch.func.jacrev(lambda x: system.output(0.0, x, given))(x)
    return slopes.detach().numpy() != 0


def _outputs(system: System) -> tuple[Reading, ...]:
    return tuple(_named(quantity, name) for quantity in system.outputs for name in quantity.names)


def _named(quantity: Quantity, name: str) -> Reading:
    return Reading(name, quantity.unit)


def _read(system: System, state: np.ndarray, u: torch.Tensor) -> Measured:
    with torch.no_grad():
        values = system.output(0.0, torch.tensor(state), u)
    return Measured(values.numpy().astype(np.float64), state)


def _state(system: System, start: Start) -> np.ndarray:
    if start is None or isinstance(start, Mapping):
        given = {} if start is None else dict(start)
        names = [name for q in system.states for name in q.names]
        for name in given:
            if name not in names:
                raise ArgumentError(f"no state of {type(system).__name__} is called '{name}'")
        default = [q.default or 0.0 for q in system.states for _ in q.names]
        return np.array([given.get(n, d) for n, d in zip(names, default, strict=True)])
    state = torch.as_tensor(start, dtype=torch.float64).detach().numpy()
    if state.shape != (system.n_states,):
        raise ArgumentError(
            f"the start has shape {state.shape}, {type(system).__name__} has {system.n_states} "
            "states",
            fix="a model with other states takes a readout of its own: model_readout",
        )
    return state


def _known(intact: Measured) -> np.ndarray:
    if intact.state is None:
        raise ArgumentError("the intact system gave no state to begin from")
    return intact.state
