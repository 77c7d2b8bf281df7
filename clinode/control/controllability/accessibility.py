"""What a nonlinear system's inputs reach where its linearization reaches too little: Lie brackets.

Steering back and forth along two vector fields f and g moves along their bracket
[f, g] = (Dg) f - (Df) g, to second order; nested brackets give further directions. Where the fields
and their brackets span all directions at a state, what can be reached from it has an interior: the
system is accessible there (Sussmann & Jurdjevic 1972, J. Differ. Equations 12:95-116). That is less
than controllable: along x1' = u, x2' = x1^2 the second state only ever grows.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, jvp

from clinode.dynamics import Equilibrium
from clinode.errors import ArgumentError
from clinode.system import System, Values

from .kalman import Pair, decompose

TOLERANCE = 1e-12  # part of its two terms below which an entry of a bracket is zero
AT_REST = 1e-9  # rate beside the largest of the field's terms at which a state counts as rest
SAMPLES = 5  # the state and others about it, at which a bracket that is zero everywhere shows
MOST_BRACKETS = 400

VectorField = Callable[[Tensor], Tensor]
Controlled = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Accessibility:
    """Directions that inputs open at a state, through the field's nonlinear terms too.

    Attributes:
        dimension: How many directions the brackets found span; a lower bound of all that there are.
            None where rounding leaves it open.
        n_states: How many there could be.
        linear_dimension: How many the linearization spans; None where the state is no equilibrium,
            or where it is open.
        depth: Of the brackets it took: 1 for the fields of inputs themselves, 2 for brackets of two
            fields, and so on.
        brackets: Those that opened a direction beyond the linearization, in words.
        is_one_sided: Whether one of them is of the kind that may be moved along one way only: f an
            odd number of times and every input an even number (Sussmann 1987, SIAM J. Control
            Optim. 25:158-194).
        verdict: "linearly controllable", "accessible at depth ...", "not found up to depth ...",
            "undecided ..." or "no inputs".
    """

    dimension: int | None
    n_states: int
    linear_dimension: int | None
    depth: int
    brackets: tuple[str, ...]
    is_one_sided: bool
    verdict: str

    @property
    def is_accessible(self) -> bool | None:
        """Whether all directions are open; None where that was not found."""
        return True if self.dimension == self.n_states else None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words, for JSON."""
        return {
            "dimension": self.dimension,
            "n_states": self.n_states,
            "linear_dimension": self.linear_dimension,
            "depth": self.depth,
            "brackets": list(self.brackets),
            "is_one_sided": self.is_one_sided,
            "verdict": self.verdict,
        }


def accessibility(
    system: System, state: Equilibrium | Values, u: Values | None = None, *, depth: int = 4
) -> Accessibility:
    """Whether the Lie brackets of a system span all directions at a state.

    The fields are f = F(x, u) at the given input and dF/du; where u does not enter linearly, the
    second derivatives by it as well, which lie in the same Lie algebra. At an equilibrium
    [f, X](x0) = -A X(x0), so that what brackets open is carried on by the linearization. Of a
    system with delays it holds at zero delay.

    Args:
        system: A flow.
        state: An equilibrium, or any state (n_states,).
        u: The input there, (n_inputs,) or a number for all; the equilibrium's, or zero.
        depth: Longest brackets tried.

    Raises:
        ArgumentError: A map, a state or an input of another length, batch axes, a depth below 1.

    Example:
        >>> from clinode.system import Quantity
        >>> class Square(System):
        ...     states = (Quantity("x1", "1"), Quantity("x2", "1"))
        ...     inputs = (Quantity("u", "1"),)
        ...
        ...     def vector_field(self, t, x, u):
        ...         return torch.cat([u, x[..., :1] ** 2], dim=-1)
        >>> found = accessibility(Square(), [0.0, 0.0])
        >>> found.verdict, found.linear_dimension, found.is_one_sided
        ('accessible at depth 3 by [u, [f, u]]', 1, True)
    """
    x0, u0 = _point(system, state, u)
    if depth < 1:
        raise ArgumentError(f"depth must be at least 1, got {depth}")
    if not system.n_inputs:
        return Accessibility(0, system.n_states, 0, 0, (), False, "no inputs")
    return _Brackets(system, x0, u0).up_to(depth)


def _point(
    system: System, state: Equilibrium | Values, u: Values | None
) -> tuple[Float[Tensor, " state"], Float[Tensor, " input"]]:
    name = type(system).__name__
    if system.step is not None:
        raise ArgumentError(f"{name} is a map and has no vector fields to bracket")
    if isinstance(state, Equilibrium):
        u = state.u if u is None else u
        state = state.state
    x0 = torch.as_tensor(state, dtype=torch.float64).detach()
    u0 = torch.as_tensor(0.0 if u is None else u, dtype=torch.float64).detach()
    u0 = u0.repeat(system.n_inputs) if u0.ndim == 0 else u0
    if x0.shape != (system.n_states,) or u0.shape != (system.n_inputs,):
        raise ArgumentError(
            f"state and input have shapes {tuple(x0.shape)} and {tuple(u0.shape)}, "
            f"{name} has {system.n_states} states and {system.n_inputs} inputs"
        )
    x0, u0 = (value.to(system.device, system.dtype).clone() for value in (x0, u0))
    if system(0.0, x0, u0).shape != x0.shape:
        raise ArgumentError(f"{name} has batch axes", fix="give one member of it")
    return x0, u0


@dataclass(frozen=True, eq=False)
class _Bracket:
    """A vector field made of fields, with the word that spells it."""

    word: tuple[int, ...]  # generators from the outermost in: (i, j, k) is [i, [j, k]]
    field: VectorField
    terms: Callable[[Tensor], tuple[Tensor, Tensor]] | None  # whose difference it is

    def values(self, points: Tensor) -> np.ndarray:
        """At points (point, state), with what is rounding set to zero."""
        if self.terms is None:
            return _array(self.field(points).expand(points.shape))
        first, second = (_array(term.expand(points.shape)) for term in self.terms(points))
        difference = first - second
        size = TOLERANCE * (np.abs(first) + np.abs(second))
        return np.where(np.abs(difference) <= size, 0.0, difference)


class _Brackets:
    """The Lie algebra of one system at one state, depth by depth."""

    def __init__(self, system: System, x0: Tensor, u0: Tensor):
        self.system, self.x0, self.u0 = system, x0, u0
        self.A = _array(jacrev(self._drift)(x0))
        rate = np.abs(_array(self._drift(x0)))
        size = np.abs(self.A) @ np.maximum(np.abs(_array(x0)), 1.0)
        self.is_rest = bool((rate <= AT_REST * np.maximum(size, 1e-300)).all() or not rate.any())
        generator = torch.Generator().manual_seed(0)
        spread = torch.randn(SAMPLES, len(x0), generator=generator, dtype=torch.float64)
        spread[0] = 0.0
        self.points = x0 + spread.to(x0) * x0.abs().clamp(min=0.1)
        self.names = ["f", *system.input_names]
        self.counts = np.eye(len(u0) + 1, dtype=int)  # of f and of each input in a generator
        self.is_cut = False
        self.generators = [self._generator(0, self._drift)]
        for i in range(len(u0)):
            self.generators.append(self._generator(i + 1, self._along(i)))
        self._add_second_derivatives()

    def up_to(self, depth: int) -> Accessibility:
        """Brackets of growing length until they span everything."""
        n = len(self.x0)
        level = self._not_zero(self.generators)
        vectors: list[np.ndarray] = []
        words: list[tuple[int, ...]] = []
        dimension, linear = 0, None
        for length in range(1, depth + 1):
            if length > 1:
                level = self._next(level, length)
            for bracket, value in level:
                if not value.any() or (self.is_rest and bracket.word[0] == 0):
                    continue  # at rest f is zero, and [f, X] = -A X is added by the linearization
                grown = self._span([*vectors, value])
                if grown is None:
                    return self._open(dimension, linear, length)
                if grown > dimension:
                    vectors.append(value)
                    if length > 1 or bracket.word[0] > len(self.u0):
                        words.append(bracket.word)
                    dimension = grown
                if dimension == n:
                    break
            if length == 1 and self.is_rest:
                linear = self._linear_dimension()
            if dimension == n:
                return self._found(dimension, linear, length, words)
        return self._found(dimension, linear, depth, words)

    def _drift(self, x: Tensor) -> Tensor:
        return self.system(0.0, x, self._like(self.u0, x))

    def _like(self, u: Tensor, x: Tensor) -> Tensor:
        """One input for each of the states."""
        return u.repeat(*x.shape[:-1], 1)

    def _along(self, i: int) -> VectorField:
        unit = torch.zeros_like(self.u0)
        unit[i] = 1.0
        return self._by_input(self._field, unit)

    def _field(self, x: Tensor, u: Tensor) -> Tensor:
        return self.system(0.0, x, u)

    def _by_input(self, field: Controlled, unit: Tensor) -> VectorField:
        """Derivative by the input along a unit vector, at the given input."""
        return lambda x: _derivative(field, x, self._like(self.u0, x), self._like(unit, x))

    def _add_second_derivatives(self) -> None:
        """Where inputs enter nonlinearly, the fields d^2 F / du_i du_j that are not zero."""
        if self._is_affine():
            return
        m = len(self.u0)
        for i, j in itertools.combinations_with_replacement(range(m), 2):
            units = torch.zeros(2, m, dtype=self.u0.dtype, device=self.u0.device)
            units[0, i] = units[1, j] = 1.0

            def first(x: Tensor, u: Tensor, unit: Tensor = units[0]) -> Tensor:
                return _derivative(self._field, x, u, self._like(unit, x))

            bracket = self._generator(len(self.names), self._by_input(first, units[1]))
            if self._not_zero([bracket]):
                self.names.append(f"{self.names[i + 1]} * {self.names[j + 1]}")
                count = self.counts[[0, i + 1, j + 1]].sum(axis=0)
                self.counts = np.concatenate([self.counts, count[None]])
                self.generators.append(bracket)
            if len(self.generators) > MOST_BRACKETS:
                return

    def _is_affine(self) -> bool:
        """Whether F(x, u) - F(x, u0) is linear in u, at states about the given one."""
        step = torch.ones_like(self.u0)
        for x in self.points:
            field = [self.system(0.0, x, self.u0 + k * step) for k in (-1.0, 0.0, 1.0, 2.0)]
            third = field[3] - 3 * field[2] + 3 * field[1] - field[0]
            second = field[0] - 2 * field[1] + field[2]
            size = 1e-9 * sum(part.abs().max() for part in field)
            if bool(((second.abs() > size) | (third.abs() > size)).any()):
                return False
        return True

    def _generator(self, index: int, field: VectorField) -> _Bracket:
        return _Bracket((index,), field, None)

    def _not_zero(self, brackets: Iterable[_Bracket]) -> list[tuple[_Bracket, np.ndarray]]:
        """Those that are not zero at all points, each with its value at the state."""
        kept: list[tuple[_Bracket, np.ndarray]] = []
        for bracket in brackets:
            values = bracket.values(self.points)
            if values.any():
                kept.append((bracket, values[0]))
            if len(kept) >= MOST_BRACKETS:
                self.is_cut = True
                break
        return kept

    def _next(
        self, level: list[tuple[_Bracket, np.ndarray]], length: int
    ) -> list[tuple[_Bracket, np.ndarray]]:
        """Brackets of each generator with the level before."""
        return self._not_zero(
            _bracket(outer, inner)
            for outer in self.generators
            for inner, _ in level
            if length > 2 or outer.word < inner.word  # antisymmetric
        )

    def _span(self, vectors: list[np.ndarray]) -> int | None:
        """Dimension of what these directions span, at rest with what the linearization adds."""
        columns = np.stack([v / np.linalg.norm(v) for v in vectors], axis=1)
        if not self.is_rest:
            sizes = np.linalg.svd(columns, compute_uv=False)
            if ((sizes > TOLERANCE) & (sizes < 1e4 * TOLERANCE)).any():
                return None
            return int((sizes > TOLERANCE).sum())
        return decompose(self._pair(columns)).dimension

    def _linear_dimension(self) -> int | None:
        B = np.stack([_array(g.field(self.x0)) for g in self.generators], axis=1)
        return decompose(self._pair(B[:, 1 : len(self.u0) + 1])).dimension

    def _pair(self, B: np.ndarray) -> Pair:
        units = tuple(q.unit for q in self.system.states for _ in q.names)
        ports = ("1",) * B.shape[1]
        return Pair(self.A, B, units, ports, False, np.abs(self.A), np.abs(B), TOLERANCE)

    def _open(self, least: int, linear: int | None, length: int) -> Accessibility:
        n = len(self.x0)
        verdict = f"undecided at depth {length}: at least {least} of {n} directions are open"
        return Accessibility(None, n, linear, length, (), False, verdict)

    def _found(
        self, dimension: int, linear: int | None, depth: int, words: list[tuple[int, ...]]
    ) -> Accessibility:
        n = len(self.x0)
        spelled = tuple(self._spelled(word) for word in words)
        if linear == n:
            verdict = "linearly controllable"
        elif dimension == n:
            verdict = f"accessible at depth {depth}"
            if spelled:
                verdict += f" by {' and '.join(spelled[:3])}"
                verdict += f" and {len(spelled) - 3} more" if len(spelled) > 3 else ""
        else:
            verdict = f"not found up to depth {depth}: {dimension} of {n} directions are open"
            verdict += f"; only {MOST_BRACKETS} brackets a depth were tried" if self.is_cut else ""
        is_one_sided = any(self._is_one_sided(word) for word in words)
        return Accessibility(dimension, n, linear, depth, spelled, is_one_sided, verdict)

    def _spelled(self, word: tuple[int, ...]) -> str:
        if len(word) == 1:
            return self.names[word[0]]
        return f"[{self.names[word[0]]}, {self._spelled(word[1:])}]"

    def _is_one_sided(self, word: tuple[int, ...]) -> bool:
        counts = self.counts[list(word)].sum(axis=0) % 2
        return bool(counts[0]) and not counts[1:].any()


def _bracket(outer: _Bracket, inner: _Bracket) -> _Bracket:
    """[f, g] = (Dg) f - (Df) g as a function of the state."""
    f, g = outer.field, inner.field

    def terms(x: Tensor) -> tuple[Tensor, Tensor]:
        return jvp(g, (x,), (f(x),))[1], jvp(f, (x,), (g(x),))[1]

    def field(x: Tensor) -> Tensor:
        first, second = terms(x)
        return first - second

    return _Bracket(outer.word + inner.word, field, terms)


def _derivative(field: Controlled, x: Tensor, u: Tensor, along: Tensor) -> Tensor:
    return jvp(lambda v: field(x, v), (u,), (along,))[1]


def _array(value: Tensor) -> np.ndarray:
    return value.detach().double().cpu().numpy()
