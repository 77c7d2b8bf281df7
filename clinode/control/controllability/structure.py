"""What the zeros of A and B alone decide: who can be reached, and by how many at once.

Nothing here depends on the values of entries that are not zero. A state that no path from an input
reaches is never moved; k states that fewer than k others drive move dependently (a dilation; Lin
1974, IEEE Trans. Autom. Control 19:201-208). Where neither happens, almost all values are
controllable; whether the given ones are is another question: `clinode.control.controllability`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_bipartite_matching

from clinode.errors import ArgumentError
from clinode.system import LinearSystem

from .exact_rank import generic_dimension

Pattern = Bool[np.ndarray, "state state"]
InputPattern = Bool[np.ndarray, "state input"]


@dataclass(frozen=True)
class Dilation:
    """States that fewer others drive: they move dependently, whatever the values.

    Attributes:
        states: Positions of the driven states, more than there are sources.
        sources: Positions of the states that drive them.
        inputs: Positions of the inputs that do.
    """

    states: tuple[int, ...]
    sources: tuple[int, ...]
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class Structure:
    """What the zero pattern of a linear system decides.

    Attributes:
        dimension: Of the controllable subspace for almost all values of the other entries.
        n_states: How many states there are.
        unreachable: Names of states to which no path leads from an input.
        dilations: (states, what drives them) by name, for each dilation among the others.
        n_drivers: The fewest inputs, each to one state and whatever it drives, with which almost
            all values are controllable (Liu, Slotine & Barabasi 2011, Nature 473:167-173).
    """

    dimension: int
    n_states: int
    unreachable: tuple[str, ...]
    dilations: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    n_drivers: int

    @property
    def is_controllable(self) -> bool:
        """Whether almost all values of the entries that are not zero are controllable."""
        return self.dimension == self.n_states

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and names, for JSON."""
        return {
            "dimension": self.dimension,
            "n_states": self.n_states,
            "is_controllable": self.is_controllable,
            "unreachable": list(self.unreachable),
            "dilations": [
                {"states": list(states), "driven_by": list(by)} for states, by in self.dilations
            ],
            "n_drivers": self.n_drivers,
        }


def structural_controllability(linear: LinearSystem) -> Structure:
    """What the zeros of A and B decide about controllability, for any values of the rest.

    Args:
        linear: The system; its entries count as zero or not zero.

    Raises:
        ArgumentError: The matrices have batch axes.

    Example:
        >>> two = LinearSystem([[0.0, 0.0], [0.0, 0.0]], [[1.0], [2.0]], inputs=["u"])
        >>> structural_controllability(two).dilations
        ((('x1', 'x2'), ('u',)),)
    """
    if linear.A.ndim > 2 or linear.B.ndim > 2:
        raise ArgumentError("the matrices have batch axes", fix="ask for one member at a time")
    A, B = (matrix.detach().cpu().numpy() != 0 for matrix in (linear.A, linear.B))
    reached = reachable(A, B)
    inside = np.flatnonzero(reached)
    states, inputs = linear.state_names, linear.input_names
    found = find_dilations(A[inside][:, inside], B[inside])
    return Structure(
        dimension=generic_dimension(A, B),
        n_states=len(A),
        unreachable=tuple(states[i] for i in np.flatnonzero(~reached)),
        dilations=tuple(
            (
                tuple(states[inside[i]] for i in one.states),
                tuple(inputs[j] for j in one.inputs)
                + tuple(states[inside[j]] for j in one.sources),
            )
            for one in found
        ),
        n_drivers=max(1, int((_driven_by(A) < 0).sum())),
    )


def reachable(A: Pattern, B: InputPattern) -> Bool[np.ndarray, " state"]:
    """Which states a path leads to from some input; A[i, j] says that j acts on i."""
    n = len(A)
    graph = np.zeros((n + 1, n + 1), dtype=np.int8)  # the last node acts on all that B acts on
    graph[:n, :n] = A.T
    graph[n, :n] = B.any(axis=1)
    order = breadth_first_order(csr_array(graph), n, return_predecessors=False)
    reached = np.zeros(n + 1, dtype=bool)
    reached[order] = True
    return reached[:n]


def find_dilations(A: Pattern, B: InputPattern) -> list[Dilation]:
    """Sets of states driven by fewer others, at least one where the rows cannot all be matched.

    From a maximum matching of the states with what drives them: each state left over reaches, along
    alternating paths, the set that it is too many for (Hall's theorem).
    """
    pattern = np.concatenate([A, B], axis=1)
    driver = _driven_by(pattern)
    holder = {int(j): i for i, j in enumerate(driver) if j >= 0}
    found: list[tuple[set[int], set[int]]] = []
    for start in np.flatnonzero(driver < 0).tolist():
        states, columns = _alternating(pattern, holder, start)
        for other in [one for one in found if one[1] & columns]:
            found.remove(other)
            states, columns = states | other[0], columns | other[1]
        found.append((states, columns))
    return [
        Dilation(
            tuple(sorted(states)),
            tuple(sorted(j for j in columns if j < len(A))),
            tuple(sorted(j - len(A) for j in columns if j >= len(A))),
        )
        for states, columns in found
    ]


def _alternating(
    pattern: np.ndarray, holder: dict[int, int], start: int
) -> tuple[set[int], set[int]]:
    """States on alternating paths from an unmatched one, and all that drives them."""
    states, columns = {start}, set()
    waiting = [start]
    while waiting:
        for j in np.flatnonzero(pattern[waiting.pop()]).tolist():
            if j in columns:
                continue
            columns.add(j)
            if holder[j] not in states:  # a free driver would have enlarged the matching
                states.add(holder[j])
                waiting.append(holder[j])
    return states, columns


def _driven_by(pattern: Bool[np.ndarray, "state source"]) -> Int[np.ndarray, " state"]:
    """A driver for as many states as can have one of their own; -1 where none is left."""
    return maximum_bipartite_matching(csr_array(pattern.astype(np.int8)), perm_type="column")
