"""Branches of equilibria over one parameter, with their folds, Hopf and branch points.

Pseudo-arclength continuation in scaled variables y = (x / widths, p / span). Between two points of
the walk a special point betrays itself by a sign: a fold by the parameter's component of the
tangent, a branch point by the determinant of the bordered Jacobian, a Hopf point by the product of
all sums of two eigenvalues (the determinant of the bialternate product), which also changes where
two real eigenvalues add up to zero. Each is then computed as a regular zero (`singular`), where
w^2 > 0 tells a Hopf point from such a neutral saddle.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinode.errors import ArgumentError, SolverError
from clinode.system import System

from .arclength import CurvePoint, Steps, Walk, along, locate
from .box import Side
from .branch import Branch, Origin, SpecialPoint, scalar
from .equilibria import Equilibrium
from .equilibrium_curve import (
    EquilibriumCurve,
    checked_span,
    first_equilibrium,
    nearest_pair,
    span_passed,
)
from .field import Eigenvalues, Field, ScaledField, parameter_quantity
from .singular import (
    BranchPointEquations,
    FoldEquations,
    HopfEquations,
    branch_directions,
    first_lyapunov,
    fold_coefficients,
    live_solution,
    newton,
    pitchfork_coefficient,
)

MAX_POINTS = 2000
FAR = 20.0  # scales from where the branch began: beyond it the branch has left for infinity
STEPS = Steps()
TOGETHER = 1e-3  # arclength below which a fold and a branch point count as one


def continue_equilibria(
    system: System,
    parameter: str,
    span: Side,
    u: Any = 0.0,
    *,
    start: Equilibrium | SpecialPoint | None = None,
) -> Branch:
    """Follow equilibria over a parameter, in both directions, to the ends of the span.

    Args:
        system: A flow whose field does not depend on time.
        parameter: An input or constant: "I", "g_Ca", "stimulus:lh_precuneus", or a block, all
            members of which then have one value.
        span: Lowest and highest value of the parameter.
        u: The other inputs, as in `find_equilibria`.
        start: An equilibrium on the branch (its own input then holds), or a branch point: then the
            *other* branch through it is followed. By default the first that `find_equilibria`
            gives at the low end of the span; if none is there at the high end, or between.

    Raises:
        ArgumentError: An unknown parameter, a span that does not increase, a start outside it.
        SolverError: No equilibrium was found anywhere on the span.

    Example:
        >>> from clinode.system import Quantity
        >>> class Fold(System):
        ...     states = (Quantity("x", "1", range=(-2.0, 2.0)),)
        ...     inputs = (Quantity("p", "1"),)
        ...
        ...     def vector_field(self, t, x, u):
        ...         return u - x * x
        >>> [point.kind for point in continue_equilibria(Fold(), "p", span=(-1, 1)).points]
        ['fold']
    """
    ends = checked_span(span)
    if isinstance(start, SpecialPoint):
        u = _second_branch(start).u
    elif start is not None:
        u = start.u
    dynamics = Field(system, u, [parameter])
    if dynamics.batch_shape:
        raise ArgumentError(f"{type(system).__name__} has batch axes", fix="give one member of it")
    if start is None:
        x, p = first_equilibrium(dynamics, ends)
    else:
        x, p = start.state.detach().numpy(), dynamics.current[0]
        p = float(start.value.detach()) if isinstance(start, SpecialPoint) else p
    if not ends[0] <= p <= ends[1]:
        raise ArgumentError(f"the start has {parameter} = {p:.6g}, outside the span {ends}")
    curve = EquilibriumCurve(dynamics, x, ends)
    y = np.append(x, p) / curve.field.scale
    if isinstance(start, SpecialPoint):
        middle, ways = _switched(curve, y, _second_branch(start).tangents[1] / curve.field.scale)
    else:
        middle = curve.first_point(y, np.append(np.zeros(len(x)), 1.0))
        ways = [] if middle is None else [_reversed(middle), middle]
    if middle is None or not ways:
        raise SolverError(
            f"no branch of equilibria was found through {parameter} = {p:.6g}",
            where=type(system).__name__,
            fix="start at an equilibrium away from special points",
        )
    backward, forward = (_Journey(curve, way, ends) for way in ways)
    forward.run()
    if forward.ended != CLOSED:
        backward.run()
    return _as_branch(curve, middle, backward, forward)


def _passes(value: float) -> Callable[[CurvePoint], float]:
    return lambda point: float(point.y[-1]) - value


END_OF_SPAN = "end of the span"
CLOSED = "closed on itself"
LEFT = "the states go far beyond where the branch began"
STUCK = "no step was short enough"
TOO_LONG = f"{MAX_POINTS} points"


@dataclass(eq=False)
class _Journey:
    """The walk in one direction."""

    curve: EquilibriumCurve
    start: CurvePoint
    span: tuple[float, float]
    visited: list[CurvePoint] = field(default_factory=list)
    points: list[SpecialPoint] = field(default_factory=list)
    neutral_saddles: list[SpecialPoint] = field(default_factory=list)
    ended: str = ""

    def run(self) -> None:
        self.visited.append(self.start)
        walk = Walk(self.curve, self.start, STEPS)
        while not self.ended:
            there = walk.attempt()
            if there is None:
                self.ended = STUCK
                break
            if _hides_something(walk.here, there, walk.step) and walk.shorten():
                continue
            beyond = self._beyond(there)
            self._note(walk.here, there, walk.step)
            if beyond is not None:
                self.ended = END_OF_SPAN
                if self._beyond(walk.here, slack=-1e-12) is None:
                    there = locate(self.curve, walk.here, walk.step, _passes(beyond))
                    self.visited += [] if there is None else [there]
                break
            self.visited.append(there)
            self.ended = self._ending(walk.here, there)
            walk.accept(there)

    def _beyond(self, point: CurvePoint, slack: float = 1e-12) -> float | None:
        return span_passed(point.y[-1], self.span, self.curve.field.scale[-1], slack)

    def _ending(self, here: CurvePoint, there: CurvePoint) -> str:
        if len(self.visited) >= MAX_POINTS:
            return TOO_LONG
        if np.abs(there.y - self.start.y)[:-1].max() > FAR:
            return LEFT
        before, after = (self.start.tangent @ (q.y - self.start.y) for q in (here, there))
        near = np.linalg.norm(there.y - self.start.y) <= STEPS.largest
        same_way = there.tangent @ self.start.tangent > 0.9
        if len(self.visited) > 5 and near and same_way and before < 0 <= after:
            return CLOSED
        return ""

    def _note(self, here: CurvePoint, there: CurvePoint, step: float) -> None:
        """Special points between two points of the walk, in order."""
        found: list[tuple[float, SpecialPoint]] = []
        stops = [here, there]
        if here.report.sign * there.report.sign < 0:
            reference = here.report.log_determinant
            near = locate(self.curve, here, step, lambda q: q.report.determinant(reference))
            found += self._found(here, near, self._branch_point)
        elif here.tangent[-1] * there.tangent[-1] < 0:
            near = locate(self.curve, here, step, lambda q: q.tangent[-1])
            found += self._found(here, near, self._fold)
            # A Hopf point may lie on one side of the fold and a neutral saddle on the other.
            stops[1:1] = [] if near is None else [near]
        for before, after in itertools.pairwise(stops):
            if before.report.hopf * after.report.hopf < 0:
                distance = float(before.tangent @ (after.y - before.y))
                near = locate(self.curve, before, distance, lambda q: q.report.hopf)
                found += self._found(here, near, self._hopf)
        for _, point in sorted(found, key=lambda one: one[0]):
            if not self.span[0] <= float(point.value.detach()) <= self.span[1]:
                continue
            real = point.kind != "neutral saddle"
            (self.points if real else self.neutral_saddles).append(point)

    def _found(
        self,
        here: CurvePoint,
        near: CurvePoint | None,
        describe: Callable[[CurvePoint], SpecialPoint | None],
    ) -> list[tuple[float, SpecialPoint]]:
        """A special point with how far along the step it lies; none if it was not found."""
        point = None if near is None else describe(near)
        if near is None or point is None:
            return []
        return [(float(here.tangent @ (near.y - here.y)), point)]

    def _fold(self, near: CurvePoint) -> SpecialPoint:
        equations = FoldEquations(self.curve.field, near.y)
        y = newton(equations, near.y)
        y = near.y if y is None else y
        a, b = fold_coefficients(self.curve.field, y)
        live = live_solution(equations, y, self.curve.field)
        z = live[: len(y)] * torch.tensor(self.curve.field.scale)
        # b s^2 + a dp with p scaled: their product in the parameter's own unit
        return self._point("fold", z, coefficient=float(a * b / self.curve.field.scale[-1]))

    def _hopf(self, near: CurvePoint) -> SpecialPoint | None:
        scaled = self.curve.field
        equations = HopfEquations(scaled, near.y, nearest_pair(near.report.eigenvalues))
        start = np.append(near.y, np.sign(nearest_pair(near.report.eigenvalues)) or 0.0)
        y = newton(equations, start)
        if y is None:
            return None
        live = live_solution(equations, y, scaled)
        z = live[: len(y) - 1] * torch.tensor(scaled.scale)
        if y[-1] <= 0:
            return self._point("neutral saddle", z)
        omega = equations.rate * torch.sqrt(live[-1])
        l1 = first_lyapunov(scaled, y[:-1], float(omega.detach()))
        kind = "supercritical" if l1 < 0 else "subcritical"
        return self._point(
            "hopf",
            z,
            frequency=omega / (2 * math.pi),
            criticality="degenerate" if abs(l1) < 1e-10 else kind,
            coefficient=l1,
        )

    def _branch_point(self, near: CurvePoint) -> SpecialPoint:
        scaled = self.curve.field
        equations = BranchPointEquations(scaled, near.y)
        solved = newton(equations, equations.start)
        y = near.y if solved is None else solved[: len(near.y)]
        tangents = branch_directions(scaled, y)
        if len(tangents):
            alignment = np.abs(tangents @ near.tangent)
            tangents = tangents[np.argsort(-alignment)]
        return self._point(
            "branch point",
            torch.tensor(y * scaled.scale),
            criticality=_branch_criticality(scaled, y, tangents),
            tangents=tangents * scaled.scale,
        )

    def _point(
        self, kind: str, z: Tensor, *, tangents: np.ndarray | None = None, **more: Any
    ) -> SpecialPoint:
        dynamics = self.curve.field.field
        name = dynamics.parameters[0]
        return SpecialPoint(
            kind=kind,
            value=scalar(z[-1]),
            state=z[:-1],
            values={name: float(z[-1].detach())},
            origin=Origin(
                dynamics.system,
                dynamics.live_u,
                name,
                np.empty((0, len(z))) if tangents is None else tangents,
            ),
            **more,
        )


def _hides_something(here: CurvePoint, there: CurvePoint, step: float) -> bool:
    """Whether stability changed by more than the special points seen in between explain."""
    folds = here.tangent[-1] * there.tangent[-1] < 0
    branches = here.report.sign * there.report.sign < 0
    hopfs = here.report.hopf * there.report.hopf < 0
    change = abs(there.report.n_unstable - here.report.n_unstable)
    hidden = change > int(folds) + int(branches) + 2 * int(hopfs)
    return bool(hidden or (folds and branches and step > TOGETHER))


def _branch_criticality(scaled: ScaledField, y: np.ndarray, tangents: np.ndarray) -> str | None:
    """Transcritical where both branches pass over the parameter; else what the cubic term says."""
    if not len(tangents):
        return None
    if np.abs(tangents[:, -1]).min() > 1e-6:
        return "transcritical"
    cubic = pitchfork_coefficient(scaled, y)
    if abs(cubic) < 1e-9:
        return "degenerate"
    return "supercritical" if cubic < 0 else "subcritical"


def _second_branch(start: SpecialPoint) -> Origin:
    if start.origin is None or len(start.origin.tangents) < 2:
        raise ArgumentError(
            f"no second branch of equilibria passes through this {start.kind}",
            fix="start at a branch point, or at an equilibrium",
        )
    return start.origin


def _switched(
    curve: EquilibriumCurve, y: np.ndarray, direction: np.ndarray
) -> tuple[CurvePoint | None, list[CurvePoint]]:
    """The branch point as a point of the other branch, and that branch's first points off it."""
    direction = direction / np.linalg.norm(direction)
    _, jacobian = curve.equations(y)
    middle = CurvePoint(y, direction, 0, curve.report(y, direction, jacobian))
    ways = []
    for sign in (-1.0, 1.0):
        way = CurvePoint(y, sign * direction, 0, middle.report)
        for distance in (STEPS.first, STEPS.first / 10, STEPS.first / 100):
            first = along(curve, way, distance)
            if first is not None and first.tangent @ way.tangent > 0.9:
                ways.append(first)
                break
    return middle, ways if len(ways) == 2 else []


def _reversed(point: CurvePoint) -> CurvePoint:
    report = replace(point.report, sign=-point.report.sign)
    return CurvePoint(point.y, -point.tangent, point.iterations, report)


def _as_branch(
    curve: EquilibriumCurve, middle: CurvePoint, backward: _Journey, forward: _Journey
) -> Branch:
    dynamics = curve.field.field
    system, name = dynamics.system, dynamics.parameters[0]
    visited = [*backward.visited[::-1], middle, *forward.visited]
    kept = [q for i, q in enumerate(visited) if i == 0 or (q.y != visited[i - 1].y).any()]
    z = np.stack([point.y for point in kept]) * curve.field.scale
    eigenvalues: Eigenvalues = np.stack([point.report.eigenvalues for point in kept])
    return Branch(
        parameter=name,
        unit=parameter_quantity(system, name).unit,
        values=z[:, -1],
        states=z[:, :-1],
        lowest=z[:, :-1],
        highest=z[:, :-1],
        stable=np.all(eigenvalues.real < 0, axis=1),
        eigenvalues=eigenvalues,
        points=(*backward.points[::-1], *forward.points),
        neutral_saddles=(*backward.neutral_saddles[::-1], *forward.neutral_saddles),
        ends=(backward.ended or CLOSED, forward.ended),
        quantities=system.states,
        time_unit=system.time_unit,
    )
