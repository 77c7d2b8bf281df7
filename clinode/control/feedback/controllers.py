"""Linear controllers as systems: what `closed_loop` joins to a plant.

A controller's inputs have the names of what it reads, its outputs those of the plant's inputs. One
that does not change over time is a `LinearSystem`; the two classes here follow a schedule. Outside
of it the nearest gain holds.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clinode.system import LinearSystem, Quantity, System, Time

from .deviations import Deviations
from .problem import ControlProblem


def gain_policy(problem: ControlProblem, d: Deviations, K: Tensor) -> LinearSystem:
    """u = u* - K (x - x*), a gain on the states: a `LinearSystem` without states."""
    system, (m, n) = problem.system, K.shape
    empty = torch.zeros(0, dtype=K.dtype)
    return LinearSystem(
        torch.zeros(0, 0),
        torch.zeros(0, n),
        torch.zeros(m, 0),
        -K,
        offset=(empty, d.state, d.input),
        step=system.step,
        states=(),
        inputs=system.states,
        outputs=system.inputs,
        time_unit=system.time_unit,
    )


def estimating_policy(problem: ControlProblem, d: Deviations, K: Tensor, L: Tensor) -> LinearSystem:
    """u = u* - K z, where z estimates x - x* from the readings by the filter gain L.

    The state of a map is the estimate before its reading: z(k | k) = z + L (y - H z).
    """
    eye, system = torch.eye(len(d.A), dtype=K.dtype), problem.system
    closed = d.A - d.B @ K
    if d.is_map:
        unread = eye - L @ d.H
        matrices = (closed @ unread, closed @ L, -K @ unread, -K @ L)
    else:
        matrices = (closed - L @ d.H, L, -K, torch.zeros(len(K), len(d.H)))
    return LinearSystem(
        *matrices,
        offset=(d.state, d.reading, d.input),
        step=system.step,
        states=estimates(system.states),
        inputs=problem.sensor_quantities,
        outputs=system.inputs,
        time_unit=system.time_unit,
    )


class ScheduledGain(System):
    """u = u*(t) - K(t) (x - x*(t)), within limits: a gain on the states that follows a schedule.

    Args:
        reads: Quantities of the states it reads.
        drives: Quantities of the inputs it drives.
        gains: (time, ..., input, state).
        states: x*, (time, ..., state) of a map; or (state,), the same always.
        inputs: u*, likewise.
        limits: Lowest and highest input, or None.
        step: Of a map: row k holds at step k.
        times: Of a flow: (time,), increasing; in between the gains are interpolated by cubics.
        rates: Of a flow: dK/dt, like the gains.
        time_unit: Of its time.
    """

    def __init__(
        self,
        reads: Sequence[Quantity],
        drives: Sequence[Quantity],
        gains: Tensor,
        states: Tensor,
        inputs: Tensor,
        *,
        limits: tuple[Tensor, Tensor] | None = None,
        step: float | None = None,
        times: Tensor | None = None,
        rates: Tensor | None = None,
        time_unit: str = "1",
    ):
        super().__init__()
        self.inputs, self.outputs = tuple(reads), tuple(drives)
        self.step, self.time_unit, self.limits = step, time_unit, limits
        self.gains = Schedule(gains, times, rates)
        # a single place or command is a schedule of one row, which holds always
        self.places = Schedule(states if states.ndim > 1 else states[None])
        self.commands = Schedule(inputs if inputs.ndim > 1 else inputs[None])

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Nothing moves."""
        return x.expand(*u.shape[:-1], 0)

    def next_state(
        self, k: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Nothing moves."""
        return x.expand(*u.shape[:-1], 0)

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The command for the states u, at time t (of a map: step t)."""
        away = u - self.places(t).to(u.dtype)
        command = self.commands(t).to(u.dtype) - _applied(self.gains(t).to(u.dtype), away)
        if self.limits is None:
            return command
        low, high = (side.to(u.dtype) for side in self.limits)
        return torch.minimum(torch.maximum(command, low), high)


class ScheduledEstimator(System):
    """u = u* - K(t) z, where z estimates x - x* by a filter whose gain L(t) follows a schedule.

    Of a map: z(k | k) = z + L (y - y* - H z), then z(k + 1) = (A - B K) z(k | k). Of a flow:
    z' = (A - B K) z + L (y - y* - H z). The states are absolute, x* + z.

    Args:
        problem: What is controlled.
        d: Its matrices.
        gains: K, (time, input, state).
        filter_gains: L, (time, state, sensor).
        times: Of a flow: (time,), increasing.
        rates: Of a flow: dK/dt and dL/dt.
    """

    def __init__(
        self,
        problem: ControlProblem,
        d: Deviations,
        gains: Tensor,
        filter_gains: Tensor,
        times: Tensor | None = None,
        rates: tuple[Tensor, Tensor] | None = None,
    ):
        super().__init__()
        system = problem.system
        self.states, self.inputs = estimates(system.states), problem.sensor_quantities
        self.outputs, self.step, self.time_unit = system.inputs, system.step, system.time_unit
        self.gains = Schedule(gains, times, None if rates is None else rates[0])
        self.filter_gains = Schedule(filter_gains, times, None if rates is None else rates[1])
        self.A, self.B, self.H = (_weight(matrix) for matrix in (d.A, d.B, d.H))
        self.center, self.command, self.reading = (
            _weight(point) for point in (d.state, d.input, d.reading)
        )

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Of a flow."""
        z = x - self.center
        wrong = u - self.reading - z @ self.H.T
        drive = z @ self.A.T - _applied(self.B @ self.gains(t), z)
        return drive + _applied(self.filter_gains(t), wrong)

    def next_state(
        self, k: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Of a map."""
        z = self._corrected(k, x - self.center, u)
        return self.center + z @ self.A.T - _applied(self.B @ self.gains(k), z)

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The command, of a map after its reading u."""
        z = x - self.center
        z = z if self.step is None else self._corrected(t, z, u)
        return self.command - _applied(self.gains(t), z)

    def _corrected(self, k: Time, z: Tensor, y: Tensor) -> Tensor:
        return z + _applied(self.filter_gains(k), y - self.reading - z @ self.H.T)


class Schedule(nn.Module):
    """A tensor (time, ...) by step, or over time by cubics through values and rates."""

    def __init__(self, values: Tensor, times: Tensor | None = None, rates: Tensor | None = None):
        super().__init__()
        # Weights, not buffers: gains have mixed units, and weights take the units of their place.
        self.values = _weight(values)
        self.rates = None if rates is None else _weight(rates)
        self.times = times

    def forward(self, t: Time) -> Tensor:
        """The value at step t, or time t; the axes of t lead."""
        if self.times is None or self.rates is None:
            k = torch.as_tensor(t).round().long().clamp(0, len(self.values) - 1)
            return self.values[k]
        t = torch.as_tensor(t, dtype=torch.float64).clamp(self.times[0], self.times[-1])
        i = torch.searchsorted(self.times, t.contiguous(), right=True) - 1
        i = i.clamp(0, len(self.times) - 2)
        h = self.times[i + 1] - self.times[i]
        s = (t - self.times[i]) / h
        h, s = (part[(..., *[None] * (self.values.ndim - 1))] for part in (h, s))
        start, end = self.values[i], self.values[i + 1]
        rise = end - start
        bend = (1 - s) * (h * self.rates[i] - rise) - s * (h * self.rates[i + 1] - rise)
        return start + s * rise + s * (1 - s) * bend


def estimates(states: Sequence[Quantity]) -> tuple[Quantity, ...]:
    """What estimates of states are called."""
    return tuple(replace(quantity, name=f"{quantity.name}_estimate") for quantity in states)


def _applied(matrix: Tensor, vector: Tensor) -> Tensor:
    """matrix @ vector over broadcast batch axes."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _weight(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach(), requires_grad=False)
