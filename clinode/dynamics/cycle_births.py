"""Where walks along limit cycles begin: at a cycle, at a Hopf point, at a period doubling."""

import math
from dataclasses import dataclass, replace

import numpy as np

from clinode.errors import ArgumentError, SolverError
from clinode.system import System

from .arclength import CurvePoint, along
from .branch import SpecialPoint
from .collocation import DEGREE, Orbit, linearize_orbit
from .cycle_curve import CycleCurve, CycleReport, scaled_field
from .cycles import INTERVALS, LimitCycle, settle
from .field import ScaledField, held_at

FIRST = 0.02  # arclength from where no cycle is yet to the first; less if that fails


@dataclass(frozen=True, eq=False)
class Birth:
    """The first step of a walk.

    Attributes:
        curve: To walk on.
        start: A point of it, its tangent in the direction to walk.
        first: What is known of the first cycle.
    """

    curve: CycleCurve
    start: CurvePoint
    first: CycleReport


def both_ways(
    system: System, parameter: str, start: LimitCycle, span: tuple[float, float]
) -> list[Birth]:
    """The cycle itself, with the parameter falling and rising."""
    scaled = scaled_field(system, start.u, parameter, span)
    p = scaled.field.current[0]
    if not span[0] <= p <= span[1]:
        raise ArgumentError(f"the cycle has {parameter} = {p:.6g}, outside the span {span}")
    p /= scaled.scale[-1]
    found = settle(scaled, start.orbit, float(start.period.detach()), np.array([p]))
    if found is None:
        raise SolverError("the cycle to start from is none of this system at its input")
    orbit, period, _ = found
    curve = CycleCurve(scaled, orbit)
    tangent = curve.tangent_at(orbit, period, p)
    if tangent is None:
        raise SolverError("the cycle to start from lies at a fold", fix="start beside it")
    middle = curve.correct(curve.pack(orbit, period, p), tangent)
    if middle is None:
        raise SolverError("the cycle to start from could not be solved again")
    back = CurvePoint(middle.y, -middle.tangent, middle.iterations, middle.report)
    return [Birth(curve, way, middle.report) for way in (back, middle)]


def from_hopf(
    system: System, parameter: str, hopf: SpecialPoint, span: tuple[float, float]
) -> Birth:
    """The small circle in the plane of the eigenvector, as a first direction."""
    scaled, p = _at_point(system, parameter, hopf, span)
    x = hopf.state.detach().numpy() / scaled.x_scale
    _, jacobian = scaled.jacobian(np.append(x, p))
    values, vectors = np.linalg.eig(jacobian[:, :-1])
    if hopf.frequency is None:
        raise ArgumentError("this Hopf point carries no frequency")
    omega = 2 * math.pi * float(hopf.frequency.detach())
    q = vectors.astype(np.complex128)[:, np.argmin(np.abs(values - 1j * omega))]
    mesh = np.linspace(0, 1, INTERVALS + 1)
    flat = np.tile(x, (DEGREE * INTERVALS + 1, 1))
    orbit = Orbit(mesh, flat, np.zeros(len(x)))
    circle = (np.exp(2j * math.pi * orbit.phases)[:, None] * q).real
    # The equilibrium has no phase of its own: that of the circle is taken.
    curve = CycleCurve(scaled, replace(orbit, nodes=circle))
    curve.reference = orbit
    tangent = np.concatenate([circle.ravel(), [0.0, 0.0]])
    tangent /= math.sqrt(curve.inner(tangent, tangent))
    period = 2 * math.pi / omega
    y = curve.pack(orbit, period, p)
    for distance in (FIRST, FIRST / 4, FIRST / 16):
        first = along(curve, CurvePoint(y, tangent, 0, None), distance)
        if first is not None and first.report.is_trustworthy:
            curve, here = curve.remeshed(first, INTERVALS)
            return Birth(curve, here, first.report)
    raise SolverError("no cycle was found beside the Hopf point", where=type(system).__name__)


def from_period_doubling(
    system: System, parameter: str, start: SpecialPoint, span: tuple[float, float]
) -> Birth:
    """Two rounds of the cycle, pushed apart along the multiplier -1."""
    scaled, p = _at_point(system, parameter, start, span)
    if start.cycle is None:
        raise ArgumentError("this period doubling carries no cycle to start from")
    orbit, period = start.cycle.orbit, float(start.cycle.period.detach())
    n = scaled.n_states
    linear = linearize_orbit(scaled, orbit, period, np.array([p]))
    a, b = linear.ends[:, :n], linear.ends[:, n : 2 * n]
    flip = np.linalg.svd(a - b)[2][-1]
    push = linear.spread[..., : 2 * n] @ np.concatenate([flip, -flip])
    mesh = np.append(orbit.mesh[:-1] / 2, 0.5 + orbit.mesh / 2)
    twice = Orbit(mesh, np.concatenate([orbit.nodes[:-1], orbit.nodes]), 2 * orbit.winding)
    apart = np.concatenate([push[:-1], -push])
    curve = CycleCurve(scaled, twice)
    tangent = np.concatenate([apart.ravel(), [0.0, 0.0]])
    tangent /= math.sqrt(curve.inner(tangent, tangent))
    y = curve.pack(twice, 2 * period, p)
    for distance in (FIRST, FIRST / 4, FIRST / 16):
        first = along(curve, CurvePoint(y, tangent, 0, None), distance)
        if first is not None and first.report.is_trustworthy:
            return Birth(curve, first, first.report)
    raise SolverError("no cycle of twice the period was found", where=type(system).__name__)


def _at_point(
    system: System, parameter: str, point: SpecialPoint, span: tuple[float, float]
) -> tuple[ScaledField, float]:
    """The field over the parameter at a special point, whatever parameter that was found over."""
    if point.origin is None:
        raise ArgumentError("this point does not say which input it was found under")
    u = point.origin.u
    for name, value in point.values.items():
        if name != parameter:
            system, u = held_at(system, u, name, value)
    scaled = scaled_field(system, u, parameter, span)
    p = point.values.get(parameter, scaled.field.current[0])
    if not span[0] <= p <= span[1]:
        raise ArgumentError(f"the {point.kind} has {parameter} = {p:.6g}, outside the span {span}")
    return scaled, p / scaled.scale[-1]
