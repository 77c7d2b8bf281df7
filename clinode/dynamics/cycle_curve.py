"""The curve of limit cycles over one parameter, on one mesh, and what is known of a point of it.

Unknowns are the nodes of the orbit, the log of its period and the parameter; Newton's equations are
those of collocation, condensed (`collocation`), with a phase condition and the plane to step into.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from clinode.errors import ArgumentError
from clinode.system import System

from .arclength import Curve, CurvePoint, solve_or_none
from .collocation import (
    Linearization,
    Orbit,
    adapted_mesh,
    linearize_orbit,
    multipliers,
    node_weights,
    phase_functional,
)
from .cycles import ARRIVED, TRIVIAL_MULTIPLIER, LimitCycle, as_cycle, closure
from .field import Eigenvalues, Field, ScaledField, scales

TIME_WEIGHT = 0.25  # of log T in the distance along a branch


@dataclass(frozen=True, eq=False)
class CycleReport:
    """What is known of a cycle on a branch."""

    orbit: Orbit
    period: float
    p: float
    linear: Linearization
    trivial: complex
    others: Eigenvalues

    @property
    def is_trustworthy(self) -> bool:
        return abs(self.trivial - 1) < TRIVIAL_MULTIPLIER

    @property
    def doubling(self) -> float:
        """Changes sign where a multiplier passes -1."""
        real = self.others[self.others.imag == 0].real + 1
        return float(np.prod(np.sign(real)) * np.abs(real).min(initial=np.inf))

    @property
    def crossing(self) -> float:
        """Changes sign where a real multiplier passes 1."""
        real = self.others[self.others.imag == 0].real - 1
        return float(np.prod(np.sign(real)) * np.abs(real).min(initial=np.inf))

    @property
    def torus(self) -> float:
        """Changes sign where the product of two multipliers passes 1."""
        real = self.others[self.others.imag == 0].real
        pairs = (real[:, None] * real)[np.triu_indices(len(real), 1)]
        turning = np.abs(self.others[self.others.imag > 0]) ** 2
        products = np.concatenate([turning, pairs]) - 1
        return float(np.prod(np.sign(products)) * np.abs(products).min(initial=np.inf))

    @property
    def n_unstable(self) -> int:
        return int((np.abs(self.others) > 1).sum())


class CycleCurve(Curve):
    """Cycles over one parameter: y = (nodes, TIME_WEIGHT log T, p) on one mesh.

    Args:
        field: With one parameter.
        reference: Sets the mesh, the winding, and the phase: of all orbits with these the curve
            holds those with the integral of (x - reference) . reference' zero.
    """

    def __init__(self, field: ScaledField, reference: Orbit):
        self.field, self.reference = field, reference
        self.phase = phase_functional(reference)
        self.weights = node_weights(reference.mesh)

    @property
    def n_intervals(self) -> int:
        return len(self.reference.mesh) - 1

    def inner(self, a: np.ndarray, b: np.ndarray) -> float:
        """The L2 product of the orbits, plus that of the period and the parameter."""
        nodes = (a[:-2] * b[:-2]).reshape(len(self.weights), -1).sum(axis=1)
        return float(self.weights @ nodes + a[-2:] @ b[-2:])

    def pack(self, orbit: Orbit, period: float, p: float) -> np.ndarray:
        """An orbit as unknowns."""
        return np.concatenate([orbit.nodes.ravel(), [TIME_WEIGHT * math.log(period), p]])

    def unpack(self, y: np.ndarray) -> tuple[Orbit, float, float]:
        """Unknowns as an orbit, a period and the parameter."""
        nodes = y[:-2].reshape(len(self.weights), -1)
        orbit = Orbit(self.reference.mesh, nodes, self.reference.winding)
        return orbit, math.exp(y[-2] / TIME_WEIGHT), float(y[-1])

    def correct(self, guess: np.ndarray, tangent: np.ndarray) -> CurvePoint | None:
        """Newton's method on collocation, closing, phase, and the plane across the tangent."""
        y, last, n = guess, math.inf, self.field.n_states
        for iteration in range(1, 11):
            if not abs(y[-2]) < 100:
                return None
            orbit, period, p = self.unpack(y)
            linear = linearize_orbit(self.field, orbit, period, np.array([p]))
            matrix, rest = closure(linear, orbit, self.phase, self.reference.nodes)
            matrix = np.vstack([matrix, self._plane(linear.spread, tangent)])
            behind = self.inner(tangent, self._vector(linear.offset, 0.0, 0.0) + y - guess)
            change = solve_or_none(matrix, -np.append(rest, behind))
            if change is None:
                return None
            step = self._vector(
                linear.spread @ change + linear.offset, change[2 * n], change[2 * n + 1]
            )
            length = float(np.abs(step).max())
            if not math.isfinite(length) or length > 2 * last or length > 2.0:
                return None
            y = y + step
            if length < ARRIVED or (length < 1e-8 and length > last / 4):
                return self._arrived(y, matrix, linear, iteration)
            last = length
        return None

    def _arrived(
        self, y: np.ndarray, matrix: np.ndarray, linear: Linearization, iterations: int
    ) -> CurvePoint | None:
        n = self.field.n_states
        ahead = solve_or_none(matrix, np.append(np.zeros(2 * n + 1), 1.0))
        if ahead is None:
            return None
        tangent = self._vector(linear.spread @ ahead, ahead[2 * n], ahead[2 * n + 1])
        tangent = tangent / math.sqrt(self.inner(tangent, tangent))
        orbit, period, p = self.unpack(y)
        trivial, others = multipliers(linear.ends, linear.speed)
        return CurvePoint(
            y, tangent, iterations, CycleReport(orbit, period, p, linear, trivial, others)
        )

    def _plane(self, spread: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """The product of the tangent with what theta = (x(0), x(1), log T, p) moves."""
        n = self.field.n_states
        weighted = self.weights[:, None] * tangent[:-2].reshape(len(self.weights), n)
        row = np.einsum("ks,ksc->c", weighted, spread)
        row[2 * n] += TIME_WEIGHT * tangent[-2]
        row[2 * n + 1] += tangent[-1]
        return row

    def _vector(self, nodes: np.ndarray, log_period: float, p: float) -> np.ndarray:
        return np.concatenate([nodes.ravel(), [TIME_WEIGHT * log_period, p]])

    def tangent_at(self, orbit: Orbit, period: float, p: float) -> np.ndarray | None:
        """The direction along the curve in which the parameter rises, at a solved orbit."""
        n = self.field.n_states
        linear = linearize_orbit(self.field, orbit, period, np.array([p]))
        matrix, _ = closure(linear, orbit, self.phase, self.reference.nodes)
        row = np.zeros(2 * n + 2)
        row[-1] = 1.0
        ahead = solve_or_none(np.vstack([matrix, row]), np.append(np.zeros(2 * n + 1), 1.0))
        if ahead is None:
            return None
        tangent = self._vector(linear.spread @ ahead, ahead[2 * n], ahead[2 * n + 1])
        return tangent / math.sqrt(self.inner(tangent, tangent))

    def remeshed(self, point: CurvePoint, n_intervals: int) -> tuple["CycleCurve", CurvePoint]:
        """The curve and a point of it on a mesh that fits the point."""
        orbit, period, p = self.unpack(point.y)
        mesh = adapted_mesh(orbit, n_intervals)
        moved = orbit.on(mesh)
        turning = replace(orbit, nodes=point.tangent[:-2].reshape(orbit.nodes.shape)).on(mesh)
        curve = CycleCurve(self.field, moved)
        tangent = np.concatenate([turning.nodes.ravel(), point.tangent[-2:]])
        tangent /= math.sqrt(curve.inner(tangent, tangent))
        report = replace(point.report, orbit=moved)
        return curve, CurvePoint(curve.pack(moved, period, p), tangent, point.iterations, report)


def labelled_cycle(field: ScaledField, report: CycleReport) -> LimitCycle:
    """The cycle of a point of the curve."""
    with torch.no_grad():
        return as_cycle(field, report.orbit, report.period, np.array([report.p]), report.linear)


def scaled_field(system: System, u: Any, parameter: str, span: tuple[float, float]) -> ScaledField:
    """The field over a parameter in the scales of the states' ranges and of the span.

    Raises:
        ArgumentError: As `Field`; batch axes.
    """
    dynamics = Field(system, u, [parameter])
    if dynamics.batch_shape:
        raise ArgumentError(f"{type(system).__name__} has batch axes", fix="give one member of it")
    return ScaledField(dynamics, np.append(scales(system.states), span[1] - span[0]))
