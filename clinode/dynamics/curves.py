"""Fold and Hopf points followed over two parameters, to the points where they change or meet.

A fold point is a regular zero of n + 1 equations and a Hopf point one of n + 2 (`singular`), so
one parameter more each is a curve. Along a curve of folds the quadratic coefficient vanishes at
a cusp and the product of the null vectors at a Bogdanov-Takens point; along one of Hopf points
w^2 does so at a Bogdanov-Takens point, where the curve ends (beyond it are neutral saddles), and
the first Lyapunov coefficient at a Bautin point, where a fold of cycles begins. Further
eigenvalues on the imaginary axis make zero-Hopf and Hopf-Hopf points.
"""

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from clinode.errors import ArgumentError, SolverError
from clinode.system import Quantity, System, flat_names

from .arclength import CurvePoint, DenseCurve, Steps, Walk, locate
from .box import Side
from .branch import Origin, SpecialPoint, scalar
from .continuation import CLOSED, END_OF_SPAN, FAR, LEFT, STUCK
from .equilibria import sort_eigenvalues
from .equilibrium_curve import checked_span, pair_test, span_passed, state_scales
from .field import Eigenvalues, Field, ScaledField, held_at, parameter_quantity
from .singular import FoldEquations, HopfEquations, first_lyapunov

MAX_POINTS = 2000
STEPS = Steps(first=0.01, largest=0.05)
NO_TURN = 1e-7  # w^2, relative to the start's, below which the Lyapunov coefficient is none
AT_BOGDANOV_TAKENS = "a Bogdanov-Takens point"


@dataclass(frozen=True, eq=False)
class BifurcationCurve:
    """Fold or Hopf points over two parameters, in the order they were walked along.

    Attributes:
        kind: "fold" or "hopf".
        parameters, units: Names of the two inputs or constants, and their units.
        values: (point, 2), the parameters.
        states: (point, state).
        frequencies: (point,), cycles per time unit at Hopf points; None of folds.
        coefficients: (point,), first Lyapunov coefficients of Hopf points; None of folds.
        points: "cusp", "bogdanov-takens", "zero-hopf", "bautin" and "hopf-hopf" points, each with
            both parameters in `values`; `value` is the first of them.
        ends: Why the walk ended at its first and at its last point.
        quantities: What stands on the state axis.
        time_unit: The frequencies are in its inverse.
    """

    kind: str
    parameters: tuple[str, str]
    units: tuple[str, str]
    values: Float[np.ndarray, "point 2"]
    states: Float[np.ndarray, "point state"]
    frequencies: Float[np.ndarray, " point"] | None
    coefficients: Float[np.ndarray, " point"] | None
    points: tuple[SpecialPoint, ...]
    ends: tuple[str, str]
    quantities: tuple[Quantity, ...] = field(repr=False)
    time_unit: str = "1"

    def __len__(self) -> int:
        return len(self.values)

    def to_pandas(self) -> pd.DataFrame:
        """One row a point: both parameters, frequency and coefficient (of Hopf), the states."""
        heads = [f"{p} ({unit})" for p, unit in zip(self.parameters, self.units, strict=True)]
        columns = dict(zip(heads, self.values.T, strict=True))
        if self.frequencies is not None:
            columns[f"frequency (1/{self.time_unit})"] = self.frequencies
            columns["lyapunov"] = self.coefficients
        labels = [f"{name} ({q.unit})" for q in self.quantities for name in q.names]
        return pd.DataFrame(columns | dict(zip(labels, self.states.T, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        listed = {"frequencies": self.frequencies, "coefficients": self.coefficients}
        return {
            "kind": self.kind,
            "parameters": list(self.parameters),
            "units": list(self.units),
            "values": self.values.tolist(),
            "state_names": list(flat_names(self.quantities)),
            "states": self.states.tolist(),
            **{name: None if v is None else v.tolist() for name, v in listed.items()},
            "points": [point.to_dict() for point in self.points],
            "ends": list(self.ends),
        }


def continue_curve(
    system: System,
    parameters: Sequence[str],
    start: SpecialPoint,
    spans: Sequence[Side],
) -> BifurcationCurve:
    """Follow a fold or Hopf point over two parameters, in both directions.

    Args:
        system: The system that the point was found in.
        parameters: Two inputs or constants, as in `continue_equilibria`. What the point was found
            over may be one of them, and else is held at the point's value.
        start: A fold or Hopf point of a branch of equilibria.
        spans: Lowest and highest value of each.

    Raises:
        ArgumentError: Not two different known parameters, a span that does not increase, a start
            outside the spans or of another kind.
        SolverError: The point is none of this system.

    Example:
        >>> from clinode.dynamics.continuation import continue_equilibria
        >>> from clinode.system import Quantity
        >>> class Cusp(System):
        ...     states = (Quantity("x", "1", range=(-2.0, 2.0)),)
        ...     inputs = (Quantity("h", "1"), Quantity("p", "1"))
        ...
        ...     def vector_field(self, t, x, u):
        ...         return u[..., :1] + u[..., 1:] * x - x**3
        >>> fold = continue_equilibria(Cusp(), "h", span=(-1, 1), u=[0.0, 0.5]).points[0]
        >>> curve = continue_curve(Cusp(), ("h", "p"), fold, spans=((-1, 1), (-1, 1)))
        >>> [point.kind for point in curve.points]
        ['cusp']
    """
    names, ends = tuple(parameters), tuple(checked_span(span) for span in spans)
    if len(names) != 2 or len(set(names)) != 2 or len(ends) != 2:
        raise ArgumentError(
            f"two different parameters with a span each are needed, got {names} with {len(ends)}"
        )
    if start.kind not in ("fold", "hopf") or start.origin is None:
        raise ArgumentError(
            f"a {start.kind} cannot be followed over two parameters",
            fix="start at a fold or a Hopf point of a branch of equilibria",
        )
    curve, y = _at_point(system, names, start, ends)
    middle = curve.first_point(y, _upward(len(y), system.n_states + 1))
    if middle is None:
        raise SolverError(
            f"the {start.kind} to start from is none of this system",
            where=type(system).__name__,
            fix="find it again with continue_equilibria",
        )
    back = CurvePoint(middle.y, -middle.tangent, middle.iterations, middle.report)
    journeys = [_Journey(curve.copy(), way, ends) for way in (back, middle)]
    journeys[1].run()
    if journeys[1].ended != CLOSED:
        journeys[0].run()
    return _as_curve(curve, middle, *journeys)


@dataclass(frozen=True, eq=False)
class _Report:
    """What is known of a point on a curve: each test changes sign at a kind of special point."""

    tests: dict[str, float]
    rest: Eigenvalues  # the eigenvalues but those that make it a fold or Hopf point
    omega: float | None
    lyapunov: float | None = None


class _SpecialCurve(DenseCurve):
    """Fold or Hopf points over two parameters."""

    kind: str

    def __init__(self, scaled: ScaledField):
        self.field = scaled

    @abstractmethod
    def fit_borders(self, point: CurvePoint) -> None:
        """Make the borders of the bordered systems those of a point of the curve."""

    @abstractmethod
    def copy(self) -> "_SpecialCurve":
        """Another one at the same place, with borders of its own."""

    def z(self, y: np.ndarray) -> np.ndarray:
        """States and parameters of a point, unscaled."""
        return y[: len(self.field.scale)] * self.field.scale


class _FoldCurve(_SpecialCurve):
    """y = (x, p, q)."""

    kind = "fold"

    def __init__(self, scaled: ScaledField, y: np.ndarray):
        super().__init__(scaled)
        self.at = FoldEquations(scaled, y)

    def copy(self) -> "_FoldCurve":
        twin = _FoldCurve.__new__(_FoldCurve)
        twin.field, twin.at = self.field, copy.copy(self.at)
        return twin

    def fit_borders(self, point: CurvePoint) -> None:
        # The vectors themselves, so that their signs go on and the tests mean something.
        self.at(point.y)
        self.at.c = self.at.v / np.linalg.norm(self.at.v)
        self.at.b = self.at.w / np.linalg.norm(self.at.w)

    def equations(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.at(y)

    def report(self, y: np.ndarray, tangent: np.ndarray, jacobian: np.ndarray) -> _Report:
        n, v, w = self.field.n_states, self.at.v, self.at.w
        eigenvalues = sort_eigenvalues(np.linalg.eigvals(jacobian[:n, :n]).astype(np.complex128))
        rest = np.delete(eigenvalues, np.argmin(np.abs(eigenvalues)))
        tests = {
            "cusp": float(-jacobian[n, :n] @ v),  # the last row is -w . B(v, .)
            "bogdanov-takens": float(w @ v),
            "zero-hopf": pair_test(rest),
        }
        return _Report(tests, rest, None)


class _HopfCurve(_SpecialCurve):
    """y = (x, p, q, w^2 / rate^2)."""

    kind = "hopf"

    def __init__(self, scaled: ScaledField, y: np.ndarray, rate: float):
        super().__init__(scaled)
        self.rate = rate
        self.at = HopfEquations(scaled, y[:-1], y[-1] * rate**2, rate=rate)

    def copy(self) -> "_HopfCurve":
        twin = _HopfCurve.__new__(_HopfCurve)
        twin.field, twin.rate, twin.at = self.field, self.rate, self.at
        return twin

    def fit_borders(self, point: CurvePoint) -> None:
        y = point.y
        self.at = HopfEquations(self.field, y[:-1], y[-1] * self.rate**2, rate=self.rate)

    def equations(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.at(y)

    def report(self, y: np.ndarray, tangent: np.ndarray, jacobian: np.ndarray) -> _Report:
        n = self.field.n_states
        eigenvalues = sort_eigenvalues(np.linalg.eigvals(jacobian[:n, :n]).astype(np.complex128))
        omega = self.rate * float(np.sqrt(abs(y[-1])))
        pair = np.array([1j, -1j]) * omega if y[-1] > 0 else np.array([omega, -omega])
        rest = eigenvalues
        for one in pair:
            rest = np.delete(rest, np.argmin(np.abs(rest - one)))
        tests = {"bogdanov-takens": float(y[-1]), "zero-hopf": _crossing(rest)}
        tests["hopf-hopf"] = pair_test(rest)
        if y[-1] < NO_TURN:
            return _Report(tests, rest, omega)
        l1 = first_lyapunov(self.field, y[:-1], omega)
        return _Report(tests | {"bautin": l1}, rest, omega, l1)


def _crossing(rest: Eigenvalues) -> float:
    """The real eigenvalue nearest zero, with the sign of the product of all real ones."""
    real = rest[rest.imag == 0].real
    return float(np.prod(np.sign(real)) * np.abs(real).min(initial=np.inf))


@dataclass(eq=False)
class _Journey:
    """The walk in one direction."""

    curve: _SpecialCurve
    start: CurvePoint
    spans: tuple[tuple[float, float], ...]
    visited: list[CurvePoint] = field(default_factory=list)
    points: list[SpecialPoint] = field(default_factory=list)
    ended: str = ""

    def run(self) -> None:
        walk = Walk(self.curve, self.start, STEPS)
        while not self.ended:
            self.curve.fit_borders(walk.here)
            there = walk.attempt()
            if there is None:
                self.ended = STUCK
                break
            passed = self._passed(there)
            self._note(walk.here, there, walk.step)
            if self.ended:
                break
            if passed is not None:
                self.ended = END_OF_SPAN
                edge = locate(self.curve, walk.here, walk.step, passed)
                self.visited += [] if edge is None else [edge]
                break
            self.visited.append(there)
            self.ended = self._ending(walk.here, there)
            walk.accept(there)

    def _passed(self, point: CurvePoint) -> Callable[[CurvePoint], float] | None:
        """What vanishes at the end of a span that a point has passed; None inside."""
        n = self.curve.field.n_states
        for i, span in enumerate(self.spans):
            end = span_passed(point.y[n + i], span, self.curve.field.scale[n + i])
            if end is not None:
                return lambda q, i=n + i, end=end: float(q.y[i]) - end
        return None

    def _ending(self, here: CurvePoint, there: CurvePoint) -> str:
        if len(self.visited) >= MAX_POINTS:
            return f"{MAX_POINTS} points"
        n = self.curve.field.n_states
        if np.abs(there.y - self.start.y)[:n].max() > FAR:
            return LEFT
        before, after = (self.start.tangent @ (q.y - self.start.y) for q in (here, there))
        near = np.linalg.norm(there.y - self.start.y) <= STEPS.largest
        same_way = there.tangent @ self.start.tangent > 0.9
        closed = len(self.visited) > 5 and near and same_way and before < 0 <= after
        return CLOSED if closed else ""

    def _note(self, here: CurvePoint, there: CurvePoint, step: float) -> None:
        """Special points between two points of the walk, in order."""
        found: list[tuple[float, SpecialPoint]] = []
        for kind, value in here.report.tests.items():
            after = there.report.tests.get(kind)
            if after is None or not value * after < 0 or not np.isfinite(value * after):
                continue
            near = locate(self.curve, here, step, lambda q, k=kind: q.report.tests.get(k, np.nan))
            if near is None or not _is_what_it_seems(kind, near.report):
                continue
            if self._passed(near) is None:
                found.append((float(here.tangent @ (near.y - here.y)), self._point(kind, near)))
                if kind == "bogdanov-takens" and self.curve.kind == "hopf":
                    self.visited.append(near)
                    self.ended = AT_BOGDANOV_TAKENS
        self.points += [point for _, point in sorted(found, key=lambda one: one[0])]

    def _point(self, kind: str, near: CurvePoint) -> SpecialPoint:
        dynamics = self.curve.field.field
        n, z, omega = dynamics.n_states, self.curve.z(near.y), near.report.omega
        if kind == "zero-hopf" and omega is None:
            omega = float(np.abs(near.report.rest[near.report.rest.imag > 0].imag).max(initial=0))
        turning = kind != "bogdanov-takens"
        return SpecialPoint(
            kind=kind,
            value=scalar(z[n]),
            state=torch.tensor(z[:n]),
            frequency=scalar(omega / (2 * np.pi)) if turning and omega is not None else None,
            values=dict(zip(dynamics.parameters, z[n:].tolist(), strict=True)),
            origin=Origin(
                dynamics.system, dynamics.live_u, dynamics.parameters[0], np.empty((0, len(z)))
            ),
        )


def _is_what_it_seems(kind: str, report: _Report) -> bool:
    """Whether the test vanished, and where a pair must turn, whether it does."""
    if abs(report.tests.get(kind, np.inf)) > 1e-5:
        return False
    if kind in ("zero-hopf", "hopf-hopf") and (kind == "hopf-hopf" or report.omega is None):
        turning = report.rest[report.rest.imag > 0]
        return bool(len(turning) and np.abs(turning.real).min() < 1e-5)
    return True


def _upward(size: int, position: int) -> np.ndarray:
    direction = np.zeros(size)
    direction[position] = 1.0
    return direction


def _at_point(
    system: System,
    names: tuple[str, ...],
    start: SpecialPoint,
    spans: tuple[tuple[float, float], ...],
) -> tuple[_SpecialCurve, np.ndarray]:
    """The curve, and the start on it."""
    if start.origin is None:
        raise ArgumentError("this point does not say which input it was found under")
    u = start.origin.u.detach()
    for name, value in start.values.items():
        if name not in names:
            system, u = held_at(system, u, name, value)
    dynamics = Field(system, u, names)
    if dynamics.batch_shape:
        raise ArgumentError(f"{type(system).__name__} has batch axes", fix="give one member of it")
    p = [start.values.get(name, now) for name, now in zip(names, dynamics.current, strict=True)]
    for name, value, (low, high) in zip(names, p, spans, strict=True):
        if not low <= value <= high:
            problem = f"the {start.kind} has {name} = {value:.6g}, outside its span ({low}, {high})"
            raise ArgumentError(problem)
    x = start.state.detach().numpy()
    scale = np.concatenate([state_scales(system, x), [high - low for low, high in spans]])
    scaled = ScaledField(dynamics, scale)
    y = np.append(x, p) / scale
    if start.frequency is None:
        return _FoldCurve(scaled, y), y
    omega = 2 * np.pi * float(start.frequency.detach())
    y = np.append(y, 1.0)
    return _HopfCurve(scaled, y, omega), y


def _as_curve(
    curve: _SpecialCurve, middle: CurvePoint, backward: _Journey, forward: _Journey
) -> BifurcationCurve:
    dynamics = curve.field.field
    system, names = dynamics.system, dynamics.parameters
    visited = [*backward.visited[::-1], middle, *forward.visited]
    z = np.stack([curve.z(point.y) for point in visited])
    turning, n = curve.kind == "hopf", dynamics.n_states
    omegas = [point.report.omega or 0.0 for point in visited]
    # at a Bogdanov-Takens point the coefficient is none: it has no frequency
    l1 = [np.nan if q.report.lyapunov is None else q.report.lyapunov for q in visited]
    units = [parameter_quantity(system, name).unit for name in names]
    return BifurcationCurve(
        kind=curve.kind,
        parameters=(names[0], names[1]),
        units=(units[0], units[1]),
        values=z[:, n:],
        states=z[:, :n],
        frequencies=np.array(omegas) / (2 * np.pi) if turning else None,
        coefficients=np.array(l1) if turning else None,
        points=(*backward.points[::-1], *forward.points),
        ends=(backward.ended or CLOSED, forward.ended),
        quantities=system.states,
        time_unit=system.time_unit,
    )
