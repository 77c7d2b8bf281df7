"""Limit cycles: found from a trajectory or a Hopf point, followed over a parameter.

A cycle is solved by collocation (`collocation`) and accepted only if its trivial Floquet multiplier
is 1 within 1e-3: that catches the orbits which a mesh too coarse for a long period makes up. Folds
of cycles are where the parameter turns round, period doublings and tori where a multiplier leaves
the unit circle at -1 or as a pair.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from clinode.errors import ArgumentError, SolverError
from clinode.system import Quantity, System, Values, flat_names

from .collocation import (
    DEGREE,
    Linearization,
    Orbit,
    adapted_mesh,
    adjoint_orbit,
    linearize_orbit,
    multipliers,
    node_weights,
    phase_functional,
)
from .field import Field, ScaledField, scales
from .recurrence import Return, find_recurrence

TRIVIAL_MULTIPLIER = 1e-3  # how far from 1 it may be on an orbit that is accepted
# The multipliers come from the last linearization, and a long orbit near a saddle magnifies its
# error by exp(T times the unstable eigenvalue).
ARRIVED = 1e-12
INTERVALS = 20  # of the first mesh
MOST_INTERVALS = 320
PERIOD_ACCURACY = 1e-9  # relative change of the period when the mesh is halved


@dataclass(frozen=True, eq=False)
class LimitCycle:
    """A periodic orbit of a system under a constant input.

    Attributes:
        period: In time units. Differentiable once by constants and inputs that ask for a gradient.
        times: (time,), from 0 to the period.
        states: (time, state), on an adaptive mesh, its first and last row alike (whole turns of
            an angle apart).
        multipliers: Floquet multipliers (state,): the trivial one first, then by falling modulus.
        is_stable: Whether all others lie inside the unit circle.
        residual: Largest defect of x' = f at the collocation points, relative to the largest speed.
        period_error: Relative change of the period when the mesh was halved; NaN if not tried.
        u: The input, (input,).
        quantities: What stands on the state axis.
        time_unit: Unit of the period.
        orbit: The orbit in scaled variables, to go on from.
    """

    period: Float[Tensor, ""]
    times: Float[Tensor, " time"]
    states: Float[Tensor, "time state"]
    multipliers: Complex[Tensor, " state"]
    is_stable: bool
    residual: float
    period_error: float
    u: Float[Tensor, " input"] = field(repr=False)
    quantities: tuple[Quantity, ...] = field(repr=False)
    time_unit: str
    orbit: Orbit = field(repr=False)

    def at(self, phases: Values) -> Float[Tensor, "phase state"]:
        """States at phases, fractions of the period."""
        wanted = np.atleast_1d(np.asarray(phases, dtype=np.float64))
        turns = np.floor(wanted)
        inside = self.orbit.at(wanted - turns) + turns[:, None] * self.orbit.winding
        return torch.tensor(inside * scales(self.quantities))

    def to_pandas(self) -> pd.DataFrame:
        """One row a time: time and states, with their units."""
        labels = [f"{name} ({q.unit})" for q in self.quantities for name in q.names]
        columns = {f"time ({self.time_unit})": self.times.detach().numpy()}
        return pd.DataFrame(columns | dict(zip(labels, self.states.numpy().T, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON; multipliers as (real, imaginary)."""
        return {
            "period": float(self.period.detach()),
            "time_unit": self.time_unit,
            "times": self.times.tolist(),
            "state_names": list(flat_names(self.quantities)),
            "states": self.states.tolist(),
            "multipliers": [[value.real, value.imag] for value in self.multipliers.tolist()],
            "is_stable": self.is_stable,
            "residual": self.residual,
            "period_error": self.period_error,
            "input": self.u.tolist(),
        }


def find_limit_cycle(
    system: System,
    start: Values | LimitCycle,
    u: Any = 0.0,
    period: float | None = None,
) -> LimitCycle:
    """The limit cycle that a trajectory leads to, or that lies near a guess.

    Without a period the system is simulated from the start until it returns to itself, which finds
    stable cycles. With one, a single round from the start is the guess, however badly it closes,
    so that a cycle which repels can be found too.

    Args:
        system: A flow whose field does not depend on time.
        start: A state (state,), or a limit cycle of the same system under another input or with
            other constants.
        u: The constant input.
        period: A guess of the period, in time units.

    Raises:
        ArgumentError: As `find_equilibria`; a start of another length.
        SolverError: The trajectory comes to rest or does not return, or no cycle was found near.

    Example:
        >>> from clinode.system import Quantity
        >>> class VanDerPol(System):
        ...     states = (Quantity("x", "1"), Quantity("v", "1"))
        ...
        ...     def vector_field(self, t, x, u):
        ...         x, v = self.split(x).values()
        ...         return self.join(x=v, v=(1 - x**2) * v - x)
        >>> round(float(find_limit_cycle(VanDerPol(), [2.0, 0.0]).period), 6)
        6.663287
    """
    dynamics = Field(system, u)
    if dynamics.batch_shape:
        raise ArgumentError(f"{type(system).__name__} has batch axes", fix="give one member of it")
    scaled = ScaledField(dynamics, scales(system.states))
    if isinstance(start, LimitCycle):
        orbit, guess = start.orbit, float(start.period.detach())
    else:
        x = torch.as_tensor(start).detach().to(torch.float64).numpy()
        if x.shape != (system.n_states,):
            raise ArgumentError(
                f"start has shape {x.shape}, expected ({system.n_states},): a state"
            )
        found = find_recurrence(dynamics, x, period)
        orbit, guess = _sampled(found, scaled.scale), found.period
    return refined_cycle(scaled, orbit, guess, np.empty(0))


def refined_cycle(
    field: ScaledField, orbit: Orbit, period: float, p: np.ndarray, *, n_intervals: int = INTERVALS
) -> LimitCycle:
    """The cycle near a guess, on meshes halved until its period stands still.

    Raises:
        SolverError: None is near, or its trivial multiplier is not 1.
    """
    last, error, kept = math.nan, math.nan, None
    while n_intervals <= MOST_INTERVALS:
        for _ in range(3):  # the mesh follows the orbit, and the orbit the mesh
            found = settle(field, orbit, period, p)
            if found is None:
                break
            kept, period = found, found[1]
            orbit = kept[0].on(adapted_mesh(kept[0], n_intervals))
        if kept is not None:
            error = abs(kept[1] / last - 1)
            if error < PERIOD_ACCURACY and _is_trustworthy(kept[2]):
                break
            last = kept[1]
            orbit = kept[0].on(adapted_mesh(kept[0], 2 * n_intervals))
        n_intervals *= 2
    if kept is None:
        raise SolverError(
            "no periodic orbit was found near the guess",
            where=type(field.field.system).__name__,
            fix="give a start nearer to the cycle, or a better period",
        )
    nearest = multipliers(kept[2].ends, kept[2].speed)[0]
    if not _is_trustworthy(kept[2]):
        raise SolverError(
            f"an orbit of period {kept[1]:.6g} closes, but its trivial multiplier is {nearest:.6g} "
            f"instead of 1 on {MOST_INTERVALS} intervals, so it is not trusted",
            where=type(field.field.system).__name__,
            fix="the period may be too long to resolve",
        )
    return as_cycle(field, kept[0], kept[1], p, kept[2], error)


def settle(
    field: ScaledField, orbit: Orbit, period: float, p: np.ndarray
) -> tuple[Orbit, float, Linearization] | None:
    """Newton's method for an orbit at fixed parameters; None if it does not arrive.

    Its phase is that of the guess: the integral of (x - guess) . guess' vanishes.
    """
    field = ScaledField(field.field.fixed(p * field.scale[field.n_states :]), field.x_scale)
    phase, reference, last = phase_functional(orbit), orbit.nodes, math.inf
    none, n = np.empty(0), field.n_states
    for _ in range(15):
        linear = linearize_orbit(field, orbit, period, none)
        matrix, rest = closure(linear, orbit, phase, reference)
        try:
            theta = np.linalg.solve(matrix, -rest)
        except np.linalg.LinAlgError:
            return None
        change = linear.spread @ theta + linear.offset
        length = max(float(np.abs(change).max()), abs(float(theta[2 * n])))
        if not math.isfinite(length) or length > 10:
            return None
        damping = min(1.0, 0.5 / length)
        orbit = Orbit(orbit.mesh, orbit.nodes + damping * change, orbit.winding)
        period = period * math.exp(damping * theta[2 * n])
        if length < ARRIVED or (length < 1e-7 and length > last / 2):
            if np.ptp(orbit.nodes, axis=0).max() < 1e-6:
                return None  # an equilibrium closes as well
            return orbit, period, linear
        last = length
    return None


def closure(
    linear: Linearization, orbit: Orbit, phase: np.ndarray, reference: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows for theta = (x(0), x(1), log T, p): the condensed flow, closing, and the phase."""
    n, width = linear.ends.shape
    closing = np.zeros((n, width))
    closing[:, :n], closing[:, n : 2 * n] = -np.eye(n), np.eye(n)
    gap = orbit.nodes[-1] - orbit.nodes[0] - orbit.winding
    phase_row = np.einsum("ks,ksc->c", phase, linear.spread)
    behind = (phase * (orbit.nodes - reference + linear.offset)).sum()
    matrix = np.vstack([linear.ends, closing, phase_row])
    return matrix, np.concatenate([linear.rest, gap, [behind]])


def as_cycle(
    field: ScaledField,
    orbit: Orbit,
    period: float,
    p: np.ndarray,
    linear: Linearization,
    period_error: float = math.nan,
) -> LimitCycle:
    """The labelled cycle of a solved orbit."""
    nearest, others = multipliers(linear.ends, linear.speed)
    whole = field.field.fixed(p * field.scale[field.n_states :])
    system = whole.system
    return LimitCycle(
        period=_live_period(field, orbit, period, p),
        times=torch.tensor(orbit.phases * period),
        states=torch.tensor(orbit.nodes * field.x_scale),
        multipliers=torch.tensor(np.append(nearest, others)),
        is_stable=bool((np.abs(others) < 1 - 1e-6).all()),
        residual=linear.residual,
        period_error=period_error,
        u=whole.live_u,
        quantities=system.states,
        time_unit=system.time_unit,
        orbit=orbit,
    )


def _live_period(field: ScaledField, orbit: Orbit, period: float, p: np.ndarray) -> Tensor:
    """The period with its derivative by the constants: -int z . df/dc dt, z the adjoint."""
    value = torch.tensor(period, dtype=torch.float64)
    if not field.field.is_live:
        return value
    adjoint = adjoint_orbit(field, orbit, period, p)
    points = np.hstack([orbit.nodes, np.broadcast_to(p, (len(orbit.nodes), len(p)))])
    rate = field.live(points)
    weights = torch.tensor(adjoint * node_weights(orbit.mesh)[:, None] * period)
    change = -(weights * rate).sum()
    return value + change - change.detach()


def _is_trustworthy(linear: Linearization) -> bool:
    nearest, _ = multipliers(linear.ends, linear.speed)
    return abs(nearest - 1) < TRIVIAL_MULTIPLIER


def _sampled(found: Return, scale: np.ndarray) -> Orbit:
    """An orbit through the samples of one round, its small gap spread over the round."""
    phases = found.times / found.times[-1]
    states = found.states / scale
    winding = found.winding / scale
    gap = states[-1] - states[0] - winding
    states = states - phases[:, None] * gap
    moved = np.linalg.norm(np.diff(states, axis=0), axis=1)
    passed = np.append(0.0, np.cumsum(moved / moved.sum() + 0.2 / len(moved)))
    mesh = np.interp(np.linspace(0, 1, 2 * INTERVALS + 1), passed / passed[-1], phases)
    empty = Orbit(mesh, np.empty((DEGREE * 2 * INTERVALS + 1, 0)), winding)
    nodes = [np.interp(empty.phases, phases, column) for column in states.T]
    return Orbit(mesh, np.stack(nodes, axis=-1), winding)
