"""Equilibria of a system under a constant input: all that a search from many starts finds.

No method finds all roots of any field (those of a `LinearSystem` are linear algebra). What is found
is exact and labelled; what may be missing is said by the index sum: where the flow points into the
searched box, sign det(-J) summed over *all* equilibria in it is 1, so any other sum proves that
some were missed (a sum of 1 proves nothing).

Newton's method knows no time: an equilibrium of a field that does depend on time is none. The
equilibria of a system with resets are those of its flow inside the guards; those beyond are refused
in the verdict. With delays past and present are the same at rest; stability is that at zero delay.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np
import pandas as pd
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity, System, flat_names

from .box import Box, SearchBox, state_members
from .field import Eigenvalues, Field, scales
from .linear_rest import linear_rest
from .search import Search
from .verdicts import completeness, cycle_instead, none_inside


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """A state at which a system rests under a constant input.

    Attributes:
        state: (state,). Differentiable once by constants and inputs that ask for a gradient
            (implicit function theorem), as is `output`.
        output: (output,).
        residual: Largest |f| there, in scales (widths of the states' ranges) per time unit.
        eigenvalues: Of the Jacobian, per time unit, the least stable first.
        kind: "stable" or "unstable" "node" or "focus", "saddle", "saddle-focus"; "nonhyperbolic"
            where a real part is zero to rounding, so that they decide nothing.
        is_stable: Whether all eigenvalues have negative real parts.
        u: The input, (input,).
        quantities: What stands on the axis of the state.
    """

    state: Float[Tensor, " state"]
    output: Float[Tensor, " output"]
    residual: float
    eigenvalues: Complex[Tensor, " state"]
    kind: str
    is_stable: bool
    u: Float[Tensor, " input"] = field(repr=False)
    quantities: tuple[Quantity, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON; eigenvalues as (real, imaginary)."""
        return {
            "state_names": list(flat_names(self.quantities)),
            "state": self.state.tolist(),
            "output": self.output.tolist(),
            "input": self.u.tolist(),
            "residual": self.residual,
            "eigenvalues": [[value.real, value.imag] for value in self.eigenvalues.tolist()],
            "kind": self.kind,
            "is_stable": self.is_stable,
        }


@dataclass(frozen=True, eq=False)
class Equilibria(Sequence[Equilibrium]):
    """Equilibria found: stable ones first, then by the norm of their output.

    Attributes:
        members: The equilibria.
        verdict: What was found and what that says about completeness.
        index_sum: Sum of sign det(-J) over them.
        expected_index_sum: What it is over all of them, where the flow points into the searched
            box at every place tried on its faces; None where it does not.
        outside: Where the searched box holds none: equilibria met outside of it, the nearest first,
            at most eight. Nothing more is searched there.
    """

    members: tuple[Equilibrium, ...]
    verdict: str
    index_sum: int
    expected_index_sum: int | None
    outside: tuple[Equilibrium, ...] = ()

    def __len__(self) -> int:
        return len(self.members)

    @overload
    def __getitem__(self, index: int) -> Equilibrium: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Equilibrium, ...]: ...

    def __getitem__(self, index: int | slice) -> Equilibrium | tuple[Equilibrium, ...]:
        return self.members[index]

    def to_pandas(self) -> pd.DataFrame:
        """One row an equilibrium: kind, is_stable, residual, then the states with their units."""
        rows = []
        for one in self.members:
            labels = [f"{name} ({q.unit})" for q in one.quantities for name in q.names]
            row = {"kind": one.kind, "is_stable": one.is_stable, "residual": one.residual}
            rows.append(row | dict(zip(labels, one.state.tolist(), strict=True)))
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return {
            "verdict": self.verdict,
            "index_sum": self.index_sum,
            "expected_index_sum": self.expected_index_sum,
            "equilibria": [one.to_dict() for one in self.members],
            "outside": [one.to_dict() for one in self.outside],
        }


def find_equilibria(
    system: System,
    u: Any = 0.0,
    box: Box | None = None,
    n_starts: int = 256,
    *,
    fast: Sequence[str] | None = None,
) -> Equilibria:
    """Equilibria of dx/dt = f(x, u): damped Newton from many starts, deflation, relaxation.

    Starts fill the box; each that fails goes on with pseudo-time, forward and backward. Known roots
    are then deflated, and searched between. Where every fast state has its own rest for given slow
    ones and the slow ones cooperate (no negative influence on each other), relaxation from the
    corners of the box brackets all equilibria; blocks of states are tried for that by themselves.

    Args:
        system: A flow whose field does not depend on time.
        u: The constant input: a number for all inputs, or a tensor of n_inputs.
        box: Where to search: a (low, high) for each state, or a mapping from names of states or
            blocks. Only equilibria inside are members of the result; where there is none, those
            that Newton's method met elsewhere are its `outside`. By default the states' ranges,
            widened by their width on either side; a state without a range is searched around its
            default at sizes up to a thousand.
        n_starts: Starts, from a Sobol sequence. Of a system with many states, the most.
        fast: Names of states or blocks that are fast, if the caller knows: see above. The corners
            may then be all that is searched (n_starts=0).

    Raises:
        ArgumentError: A map, a field or input that depends on time, batch axes (see
            `find_equilibria_each`), an unknown name, a box that does not fit.

    Example:
        >>> from clinode.system import LinearSystem
        >>> leak = LinearSystem(A=[[-0.1]], B=[[1.0]], states=["V"])
        >>> find_equilibria(leak, u=2.0)[0].state
        tensor([20.], dtype=torch.float64)
    """
    dynamics = Field(system, u)
    if dynamics.batch_shape:
        raise ArgumentError(
            f"{type(system).__name__} or its input has batch axes {tuple(dynamics.batch_shape)}",
            fix="find_equilibria_each answers for every member",
        )
    search = _search(dynamics, box, n_starts, fast)
    found = _report(search, dynamics, 0)
    rests = len(search.roots[0]) or any(one.is_stable for one in found.outside)
    if rests or isinstance(system, LinearSystem):
        return found
    return replace(found, verdict=f"{found.verdict}; {cycle_instead(system, u)}")


def find_equilibria_each(
    system: System,
    u: Any = 0.0,
    box: Box | None = None,
    n_starts: int = 16,
    *,
    fast: Sequence[str] | None = None,
) -> tuple[Equilibria, ...]:
    """Equilibria for each member of a batch of constants or inputs, searched together.

    As `find_equilibria`, with `n_starts` for each member; members are flattened in C order. One
    without an equilibrium is not asked for limit cycles.
    """
    dynamics = Field(system, u).flattened()
    search = _search(dynamics, box, n_starts, fast)
    return tuple(_report(search, dynamics.member(i), i) for i in search.members.tolist())


def equilibrium_at(dynamics: Field, x: np.ndarray) -> Equilibrium:
    """The labelled equilibrium at a root x (state,) of a field without parameters."""
    value, jacobian = dynamics.jacobian(x[None])
    return _labelled(dynamics, x, value[0], jacobian[0], np.linalg.eigvals(jacobian[0]))


def _labelled(
    dynamics: Field,
    x: np.ndarray,
    value: np.ndarray,
    jacobian: np.ndarray,
    eigenvalues: np.ndarray,
) -> Equilibrium:
    states = dynamics.system.states
    eigenvalues = sort_eigenvalues(eigenvalues.astype(np.complex128))
    state = torch.tensor(x)
    if dynamics.is_live:
        # One Newton step from the root: its value is the root, its derivative the implicit one.
        inverse = torch.tensor(np.linalg.pinv(jacobian))
        rate = dynamics.live(state)
        state = state - inverse @ (rate - rate.detach())
    kind = label(eigenvalues)
    return Equilibrium(
        state=state,
        output=dynamics.output(state),
        residual=float(np.abs(value / scales(states)).max()),
        eigenvalues=torch.tensor(eigenvalues, dtype=torch.complex128),
        kind=kind,
        is_stable=kind.startswith("stable"),
        u=dynamics.live_u,
        quantities=states,
    )


def sort_eigenvalues(eigenvalues: Eigenvalues) -> Eigenvalues:
    """By falling real part; of a pair, the positive imaginary part first."""
    return eigenvalues[np.lexsort((-eigenvalues.imag, -eigenvalues.real))]


def label(eigenvalues: Eigenvalues) -> str:
    """What an equilibrium is called by its eigenvalues, sorted by falling real part."""
    real, turns = eigenvalues.real, np.abs(eigenvalues.imag) > 0
    if (np.abs(real) <= 1e-10 * np.abs(eigenvalues).max()).any():
        return "nonhyperbolic"
    if real[0] < 0:
        return "stable focus" if turns[0] else "stable node"
    if real[-1] > 0:
        return "unstable focus" if turns[-1] else "unstable node"
    leading = [turns[0], turns[real < 0][0]]
    return "saddle-focus" if any(leading) else "saddle"


def _search(dynamics: Field, box: Box | None, n_starts: int, fast: Sequence[str] | None) -> Search:
    if n_starts < (fast is None):
        raise ArgumentError(f"n_starts must be at least 1, got {n_starts}")
    system = dynamics.system
    indices = None
    if fast is not None:
        indices = np.unique([i for name in fast for i in state_members(system, name)])
    search = Search(dynamics, SearchBox(system, box, dynamics.angles), n_starts, indices)
    if isinstance(system, LinearSystem):
        return search  # nothing needs to be searched
    if fast is not None and search.structure is None:
        raise ArgumentError(
            "the states named fast do not each have a rest of their own, or the others do not "
            "cooperate, at some of the states tried",
            fix="leave out fast",
        )
    search.run()
    return search


def _report(search: Search, dynamics: Field, member: int) -> Equilibria:
    if isinstance(dynamics.system, LinearSystem):
        return _linear_report(search.box, dynamics)
    found, n_beyond = _labelled_all(dynamics, search.roots[member])
    found.sort(key=_order)
    index_sum, expected = search.index_sum(member), search.expected_index[member]
    outside: list[Equilibrium] = []
    if found:
        verdict = completeness(found, search.n_tried, index_sum, expected)
    else:
        outside, _ = _labelled_all(dynamics, search.outside[member])
        verdict = none_inside(search.n_tried, outside)
    if n_beyond:
        verdict += f"; {n_beyond} refused beyond a guard, where the state is reset before it rests"
    return Equilibria(tuple(found), verdict, index_sum, expected, tuple(outside))


def _linear_report(box: SearchBox, dynamics: Field) -> Equilibria:
    rest = linear_rest(dynamics, box.middle, box.scale)
    (inside,) = box.holds(rest.x) if len(rest.x) else (True,)
    found = tuple(_labelled_all(dynamics, rest.x)[0])
    if rest.nullity:
        index_sum = 0
    else:
        _, jacobian = dynamics.jacobian(rest.x)
        index_sum = int(np.linalg.slogdet(-jacobian[0])[0])
    if inside:
        return Equilibria(found, rest.words, index_sum, None if rest.nullity else index_sum)
    verdict = f"{rest.words}; it lies outside of the searched box: see `outside`"
    return Equilibria((), verdict, 0, None, found)


def _labelled_all(dynamics: Field, roots: np.ndarray) -> tuple[list[Equilibrium], int]:
    """The equilibria at these roots (root, state), and how many lie beyond a guard."""
    with torch.no_grad():
        at_home = dynamics.is_within_guards(torch.tensor(roots)).numpy()
    roots = roots[at_home]
    value, jacobian = dynamics.jacobian(roots)
    parts = zip(roots, value, jacobian, np.linalg.eigvals(jacobian), strict=True)
    return [_labelled(dynamics, *part) for part in parts], int((~at_home).sum())


def _order(one: Equilibrium) -> tuple[bool, float, list[float]]:
    return not one.is_stable, round(float(one.output.detach().norm()), 9), one.state.tolist()
