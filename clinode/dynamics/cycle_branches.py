"""Branches of limit cycles over one parameter, from a Hopf point or a cycle to where they end.

Pseudo-arclength over (orbit, log of the period, parameter). The mesh follows the orbit after every
step; a step whose orbit is not to be trusted (`cycles`) is taken again on a finer mesh. A branch
may end in another Hopf point, in a canard explosion, or with a period that grows without bound: in
a homoclinic orbit, or in a saddle-node on the cycle (SNIC).
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from clinode.errors import ArgumentError
from clinode.system import System

from .arclength import CurvePoint, Steps, Walk, locate
from .box import Side
from .branch import Branch, Origin, SpecialPoint, scalar
from .continuation import CLOSED, END_OF_SPAN, STUCK
from .cycle_births import FIRST, both_ways, from_hopf, from_period_doubling
from .cycle_curve import TIME_WEIGHT, CycleCurve, CycleReport, labelled_cycle
from .cycle_ends import endless_end
from .cycles import MOST_INTERVALS, LimitCycle
from .equilibrium_curve import checked_span, span_passed
from .field import parameter_quantity

MAX_CYCLES = 1000
STEPS = Steps(first=FIRST, smallest=1e-6, largest=0.1, sharpest_turn=0.9, few_iterations=4)
POLISHED = 1e-9  # of the span: how far a special point may move when the mesh is halved
COARSE = 1e-5  # error of the trivial multiplier at which the mesh is refined
FINE_INTERVALS = 160  # beyond it only if the orbit is not trusted
ENDLESS = 5e-9  # spans per factor e of the period: below it only the period still moves
NEARLY_ENDLESS = 1e-4  # the same, where no further orbit can be resolved
STANDING = 1e-6  # of the parameter in the tangent, where orbits explode
TRUSTED = 1e-4  # error of the trivial multiplier at which a special point is refined further
UNEXPLAINED = 1e-4  # step below which a change of stability is taken without an explanation
LEAP = 2e-3  # step below which multipliers may change as they like
BOUNDLESS = 1e6  # multiplier beyond which size and sign mean nothing: 1 / it is lost in the error
AT_HOPF = "a Hopf point"
UNTRUSTED = "the trivial multiplier is no longer 1: the orbit cannot be resolved"


def continue_cycles(
    system: System,
    parameter: str,
    start: LimitCycle | SpecialPoint,
    span: Side,
) -> Branch:
    """Follow limit cycles over a parameter.

    Args:
        system: A flow whose field does not depend on time.
        parameter: An input or constant, as in `continue_equilibria`.
        start: A Hopf point: the cycles that are born there are followed, away from it. A cycle: in
            both directions. A period doubling: the cycles of twice the period, away from it.
        span: Lowest and highest value of the parameter.

    Raises:
        ArgumentError: An unknown parameter, a start outside the span or of another kind.
        SolverError: No cycle was found at the start.
    """
    ends = checked_span(span)
    if isinstance(start, LimitCycle):
        births = both_ways(system, parameter, start, ends)
    elif start.kind == "hopf":
        births = [from_hopf(system, parameter, start, ends)]
    elif start.kind == "period doubling":
        births = [from_period_doubling(system, parameter, start, ends)]
    else:
        raise ArgumentError(
            f"no cycles are born at a {start.kind}",
            fix="start at a Hopf point, a period doubling or a limit cycle",
        )
    journeys = [_Journey(one.curve, one.start, ends, [one.first]) for one in births]
    for journey in journeys[::-1]:
        if journeys[-1].ended != CLOSED:
            journey.run()
    return _as_branch(system, parameter, journeys)


@dataclass(eq=False)
class _Journey:
    """The walk in one direction, from a point that is solved or (at birth) degenerate."""

    curve: CycleCurve
    start: CurvePoint
    span: tuple[float, float]
    visited: list[CycleReport]
    points: list[SpecialPoint] = field(default_factory=list)
    ended: str = ""

    def run(self) -> None:
        walk = Walk(self.curve, self.start, STEPS)
        while not self.ended:
            there = walk.attempt()
            if there is None:
                self.ended = self._endless(walk.here, NEARLY_ENDLESS) or STUCK
            elif self._is_coarse(there) or not there.report.is_trustworthy:
                self._refine(walk)
            elif (_hides_something(walk.here, there) and walk.step > UNEXPLAINED) or (
                _leaps(walk.here, there) and walk.step > LEAP
            ):
                walk.shorten()
            elif _turned_inside_out(walk.here, there):
                self.ended = AT_HOPF
            else:
                self._take(walk, there)

    def _is_coarse(self, there: CurvePoint) -> bool:
        """Whether a finer mesh is called for, before the orbit becomes untrustworthy."""
        return abs(there.report.trivial - 1) > COARSE and self.curve.n_intervals < FINE_INTERVALS

    def _refine(self, walk: Walk) -> None:
        if self.curve.n_intervals < MOST_INTERVALS:
            self.curve, here = self.curve.remeshed(walk.here, 2 * self.curve.n_intervals)
            walk.curve, walk.here = self.curve, here
        else:
            self.ended = self._endless(walk.here, NEARLY_ENDLESS) or self._exploding(walk.here)
            if not self.ended and not walk.shorten():
                self.ended = UNTRUSTED

    def _take(self, walk: Walk, there: CurvePoint) -> None:
        beyond = span_passed(there.report.p, self.span, self.curve.field.scale[-1])
        self._note(walk.here, there, walk.step)
        if beyond is not None:
            self.ended = END_OF_SPAN
            edge = locate(self.curve, walk.here, walk.step, lambda q: q.report.p - beyond)
            self.visited += [] if edge is None else [edge.report]
            return
        self.visited.append(there.report)
        walk.accept(there)
        if len(self.visited) >= MAX_CYCLES:
            self.ended = f"{MAX_CYCLES} cycles"
        self.ended = self.ended or self._endless(there, ENDLESS) or self._closed()
        self.curve, here = self.curve.remeshed(there, self.curve.n_intervals)
        walk.curve, walk.here = self.curve, here

    def _endless(self, here: CurvePoint, slowest: float) -> str:
        """The end of a branch whose period grows while its parameter stands still, if it is so."""
        shortest = min((report.period for report in self.visited), default=math.inf)
        if here.report.period < 5 * shortest or here.tangent[-2] <= 0:
            return ""
        per_e_fold = here.tangent[-1] * TIME_WEIGHT / here.tangent[-2]
        if abs(per_e_fold) > slowest:
            return ""
        kind, value, state = endless_end(self.curve.field, here.report, per_e_fold)
        self.points.append(self._special(kind, here.report, value=value, state=state))
        return f"an infinite period: {kind}"

    def _closed(self) -> str:
        """Whether the last step came past the first cycle, in the direction of the first step."""
        if len(self.visited) < 10:
            return ""
        first, second, before, last = (_shape(self.visited[i]) for i in (0, 1, -2, -1))
        ahead = second - first
        near = max(np.abs(one - first).max() for one in (before, last)) < 2 * STEPS.largest
        passed = (before - first) @ ahead < 0 <= (last - first) @ ahead
        return CLOSED if near and passed else ""

    def _exploding(self, here: CurvePoint) -> str:
        """The end of a branch whose orbits grow while its parameter stands still: they follow a
        repelling slow manifold, along which they cannot be resolved.
        """
        if abs(here.tangent[-1]) > STANDING:
            return ""
        self.points.append(self._special("canard", here.report))
        return "a canard explosion"

    def _note(self, here: CurvePoint, there: CurvePoint, step: float) -> None:
        """Special points between two orbits, each polished on finer meshes."""
        a, b = here.report, there.report
        if not np.isfinite([a.doubling, a.torus, a.crossing]).any() and not len(self.visited):
            return
        found: list[SpecialPoint | None] = []
        if here.tangent[-1] * there.tangent[-1] < 0:
            found.append(self._polished(here, step, "cycle fold"))
        elif (
            _passes_zero(a.crossing, b.crossing) and len(a.others) == len(b.others) and self.visited
        ):
            found.append(self._polished(here, step, "branch point"))
        if _passes_zero(a.doubling, b.doubling) and self.visited:
            found.append(self._polished(here, step, "period doubling"))
        if _passes_zero(a.torus, b.torus) and self.visited:
            found.append(self._polished(here, step, "torus"))
        for point in found:
            if point is not None and self.span[0] <= float(point.value) <= self.span[1]:
                self.points.append(point)

    def _polished(self, here: CurvePoint, step: float, kind: str) -> SpecialPoint | None:
        curve, last = self.curve, math.nan
        while True:
            near = locate(curve, here, 1.2 * step, lambda q: _test(kind, q), tolerance=1e-9)
            if near is None:
                return None  # what a finer mesh does not see was made up by the coarser one
            still = abs(near.report.p - last) < POLISHED
            if still and abs(near.report.trivial - 1) < TRUSTED:
                break
            if curve.n_intervals >= MOST_INTERVALS:
                break
            last = near.report.p
            curve, here = curve.remeshed(here, 2 * curve.n_intervals)
        if not near.report.is_trustworthy:
            return None
        if abs(_test(kind, near)) > 1e-3 or (kind == "torus" and not _has_pair(near.report)):
            return None
        return self._special(kind, near.report)

    def _special(
        self,
        kind: str,
        report: CycleReport,
        *,
        value: float | None = None,
        state: np.ndarray | None = None,
    ) -> SpecialPoint:
        scaled = self.curve.field
        dynamics = scaled.field
        p = report.p * scaled.scale[-1] if value is None else value
        x = report.orbit.nodes[0] * scaled.x_scale if state is None else state
        return SpecialPoint(
            kind=kind,
            value=scalar(p),
            state=torch.tensor(x),
            frequency=scalar(1.0 / report.period),
            values={dynamics.parameters[0]: float(p)},
            cycle=labelled_cycle(scaled, report),
            origin=Origin(
                dynamics.system, dynamics.live_u, dynamics.parameters[0], np.empty((0, len(x)))
            ),
        )


def _shape(report: CycleReport) -> np.ndarray:
    """Parameter, log of the period and extent of a cycle, whatever its phase and mesh."""
    nodes = report.orbit.nodes
    head = [report.p, TIME_WEIGHT * math.log(report.period)]
    return np.concatenate([head, nodes.min(axis=0), nodes.max(axis=0)])


def _test(kind: str, point: CurvePoint) -> float:
    if kind == "cycle fold":
        return float(point.tangent[-1])
    report = point.report
    tests = {"period doubling": "doubling", "torus": "torus", "branch point": "crossing"}
    return getattr(report, tests[kind])


def _hides_something(here: CurvePoint, there: CurvePoint) -> bool:
    """Whether stability changed by more than the special points seen in between explain."""
    a, b = here.report, there.report
    real = here.tangent[-1] * there.tangent[-1] < 0 or _passes_zero(a.crossing, b.crossing)
    doubles, turns = _passes_zero(a.doubling, b.doubling), _passes_zero(a.torus, b.torus)
    return abs(a.n_unstable - b.n_unstable) > int(real) + int(doubles) + 2 * int(turns)


def _passes_zero(a: float, b: float) -> bool:
    """Whether a test function has a zero between two values, and no pole.

    Multipliers of a flow are never infinite. Those of an orbit on a mesh may pass there, from one
    sign to the other, where their reciprocal is below the error of the mesh.
    """
    return a * b < 0 and min(abs(a), abs(b)) < BOUNDLESS


def _leaps(here: CurvePoint, there: CurvePoint) -> bool:
    """Whether a multiplier that matters changes so much that two crossings could cancel."""
    a, b = (q.report.others[: 1 + q.report.n_unstable] for q in (here, there))
    n = min(len(a), len(b))
    if not n:
        return False
    a, b = a[:n], b[:n]
    sizes = np.clip(np.abs([a, b]), 1e-3, BOUNDLESS)
    size, change = sizes.max(axis=0), np.abs(np.log(sizes[0] / sizes[1]))
    turned = ((a * b.conj()).real < 0) & (sizes.min(axis=0) < BOUNDLESS)
    return bool(((size > 0.5) & ((change > 1.5) | turned)).any())


def _has_pair(report: CycleReport) -> bool:
    turning = report.others[report.others.imag > 0]
    return bool(len(turning) and np.abs(np.abs(turning) - 1).min() < 1e-3)


def _turned_inside_out(here: CurvePoint, there: CurvePoint) -> bool:
    """Whether the amplitude passed through zero: a Hopf point, behind which the same orbits lie
    half a period shifted.
    """
    before, after = (
        q.report.orbit.nodes - q.report.orbit.nodes.mean(axis=0) for q in (here, there)
    )
    return bool((before * after).sum() < 0)


def _as_branch(system: System, parameter: str, journeys: list[_Journey]) -> Branch:
    backward, forward = journeys if len(journeys) == 2 else (None, journeys[0])
    reports = [*(backward.visited[:0:-1] if backward else []), *forward.visited]
    scaled = forward.curve.field
    cycles = tuple(labelled_cycle(scaled, report) for report in reports)
    states = [cycle.states.numpy() for cycle in cycles]
    trivial = np.array([report.trivial for report in reports])
    others = np.stack([report.others for report in reports])
    return Branch(
        parameter=parameter,
        unit=parameter_quantity(system, parameter).unit,
        values=np.array([report.p for report in reports]) * scaled.scale[-1],
        states=np.stack([one[0] for one in states]),
        lowest=np.stack([one.min(axis=0) for one in states]),
        highest=np.stack([one.max(axis=0) for one in states]),
        stable=np.array([cycle.is_stable for cycle in cycles]),
        eigenvalues=np.concatenate([trivial[:, None], others], axis=1),
        points=(*(backward.points[::-1] if backward else ()), *forward.points),
        ends=(backward.ended or CLOSED if backward else "birth", forward.ended),
        quantities=system.states,
        time_unit=system.time_unit,
        periods=np.array([report.period for report in reports]),
        cycles=cycles,
    )
