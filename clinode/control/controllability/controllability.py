"""What the inputs of a linear system can reach and its outputs can show, which modes not, and why.

Everything here is linear: for a nonlinear `System`, linearize at an equilibrium first
(`clinode.dynamics.linearize`); where that fails, nonlinear terms may still reach
(`accessibility`). That a mode can be reached does not say at what cost (`control_energy`).
"""

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from clinode.control.gramian.gramian import controllability_gramian, observability_gramian
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, System

from .hautus import MOST_EXACT, controllability_margin, least_singular_values
from .kalman import Decomposition, Pair, decompose
from .mode_list import Mode, list_modes, regions_of
from .reasons import MOVED, SEEN, Names, Reason, Words, explain
from .saturation import Sizes, check_names, largest_entries

FAINT = 1e-6  # size of an input beside the system's at which the system is looked at elsewhere
TOLERANCE = 1e-13  # relative accuracy of entries: what an equilibrium and its Jacobian come with


@dataclass(frozen=True, eq=False)
class Controllability:
    """What the inputs of a linear system reach.

    Attributes:
        dimension: Of the controllable subspace, to working precision: what relative changes of the
            entries within the tolerance make unreachable does not count. None where undecided.
        n_states: How many states there are.
        margin: Smallest over the eigenvalues of A of the least singular value of [A - lambda I, B]:
            the size (2-norm, in the units of the system) of the smallest change of (A, B) that
            makes one of these values an unreachable mode. None for a learned system.
        modes: All of them, those out of reach first.
        reasons: Why modes are out of reach.
        verdict: "controllable" (", though 2 of 9 modes in theory only": a gain below rounding),
            "uncontrollable: ...", "undecided: ..." or "no inputs".
        is_stabilizable: Whether all modes out of reach are stable; None where undecided.
        exact_dimension: Dimension for the entries exactly as they are stored, by integers. It can
            be larger than `dimension`: rounding alone makes every mode reachable, in theory.
            None where there are too many states.
        is_proved: Whether `exact_dimension` is proved; else it fails with probability < 1e-18.
        distance: Relative size of the change of (A, B) that makes the modes found numerically
            exactly unreachable; 0 where exact structure hides all.
        reached: (state, dimension), orthonormal basis of the controllable subspace. None for a
            learned system or where undecided.
        unreached: (state, n_states - dimension), orthonormal: what inputs never move.
        question: "controllable", or "observable" for the dual.
        tolerance: Relative accuracy that entries were taken to have.
    """

    dimension: int | None
    n_states: int
    margin: float | None
    modes: tuple[Mode, ...]
    reasons: tuple[Reason, ...]
    verdict: str
    is_stabilizable: bool | None
    exact_dimension: int | None
    is_proved: bool
    distance: float
    reached: Float[np.ndarray, "state reached"] | None = field(repr=False)
    unreached: Float[np.ndarray, "state unreached"] | None = field(repr=False)
    question: str
    tolerance: float
    _linear: LinearSystem = field(repr=False)
    _system: System | None = field(repr=False)

    @property
    def is_controllable(self) -> bool | None:
        """Whether every mode can be moved; None where it is undecided."""
        return None if self.dimension is None else self.dimension == self.n_states

    @functools.cached_property
    def observability(self) -> "Controllability":
        """What the outputs show: the same questions of (A', C'), in the same fields.

        `is_controllable` then means observable, `is_stabilizable` detectable, and left eigenvectors
        are right ones. Of an observability, the controllability.
        """
        return _answer(self._linear, self._system, self.tolerance, dual=self.question != SEEN.able)

    @functools.cached_property
    def hankel(self) -> Float[np.ndarray, " state"] | None:
        """Hankel singular values, largest first, the same in any coordinates; None if unstable."""
        linear = self._linear
        try:
            W = controllability_gramian(linear.A, linear.B, math.inf, step=linear.step)
            M = observability_gramian(linear.A, linear.C, math.inf, step=linear.step)
        except ArgumentError:  # not stable
            return None
        factors = []
        for gramian in (W.detach().numpy(), M.detach().numpy()):
            values, vectors = np.linalg.eigh(gramian)
            factors.append(vectors * np.sqrt(np.maximum(values, 0.0)))
        return np.linalg.svd(factors[1].T @ factors[0], compute_uv=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words, for JSON."""
        return {
            "question": self.question,
            "verdict": self.verdict,
            "dimension": self.dimension,
            "n_states": self.n_states,
            "margin": self.margin,
            "is_stabilizable": self.is_stabilizable,
            "exact_dimension": self.exact_dimension,
            "is_proved": self.is_proved,
            "distance": self.distance,
            "tolerance": self.tolerance,
            "modes": [mode.to_dict() for mode in self.modes],
            "reasons": [reason.to_dict() for reason in self.reasons],
        }

    def to_pandas(self) -> pd.DataFrame:
        """One row a mode, those out of reach first."""
        unit = self._linear.time_unit
        return pd.DataFrame(
            {
                "eigenvalue": [mode.eigenvalue for mode in self.modes],
                f"time_constant ({unit})": [mode.time_constant for mode in self.modes],
                f"frequency (1/{unit})": [mode.frequency for mode in self.modes],
                f"is_{self.question}": pd.array(
                    [mode.is_controllable for mode in self.modes], dtype="boolean"
                ),
                "is_stable": pd.array([mode.is_stable for mode in self.modes], dtype="boolean"),
                "gain": [mode.gain for mode in self.modes],
                "reason": [mode.reason for mode in self.modes],
                "regions": [", ".join(list(mode.regions)[:3]) for mode in self.modes],
            }
        )


def controllability(
    linear: LinearSystem,
    *,
    system: System | None = None,
    tolerance: float = TOLERANCE,
) -> Controllability:
    """Which modes the inputs move, by how much, which not, and why not.

    A map is asked for what it can reach from its operating point. Each mode is judged by its left
    eigenvector, w' B, against what a relative change of the entries by `tolerance` does to it,
    never by the rank of [B, AB, ...]; repeated and defective eigenvalues by orthogonal
    transformations of their invariant subspace; what no path reaches or a symmetry hides is taken
    out before; and the dimension for the entries as stored is counted in integers. Where these
    leave doubt the answer is None and "undecided".

    That a mode is reached by a gain below rounding counts as reached and is named as a "weak path";
    the margin then is as small. Connections that are silent at this operating point only, to the
    tolerance, count as none.

    Args:
        linear: From `linearize`, or made from matrices.
        system: The nonlinear system that was linearized, by which a target that is silent at this
            operating point only is told from one without connections; known where `linearize` made
            the linear one.
        tolerance: Relative accuracy of the entries of A and B, no better than 4 n roundings.

    Raises:
        ArgumentError: The matrices have batch axes, a tolerance that is not between 0 and 1, a
            system with other states.

    Example:
        >>> from clinode.system import Quantity
        >>> A = [[-2.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 0.0, -1.0]]
        >>> regions = Quantity("E", "1", labels=("midline", "left", "right"))
        >>> star = LinearSystem(A, [[1.0], [0.0], [0.0]], states=[regions])
        >>> found = controllability(star)
        >>> found.dimension, found.reasons[0].kind, found.reasons[0].pairs
        (2, 'symmetry', (('left', 'right'),))
    """
    if not isinstance(linear, LinearSystem):
        raise ArgumentError(
            f"a LinearSystem is asked for, got {type(linear).__name__}",
            fix="linearize a System at an equilibrium, or LinearSystem(A, B)",
        )
    if linear.A.ndim > 2 or linear.B.ndim > 2 or linear.C.ndim > 2:
        raise ArgumentError(
            "the matrices have batch axes", fix="ask for one member of the batch at a time"
        )
    if not 0 < tolerance < 1:
        raise ArgumentError(f"tolerance must lie between 0 and 1, got {tolerance}")
    if system is not None:
        check_names(linear, system)
    return _answer(linear, linear.origin if system is None else system, tolerance, dual=False)


def _answer(
    linear: LinearSystem, system: System | None, tolerance: float, *, dual: bool
) -> Controllability:
    words = SEEN if dual else MOVED
    pair = _pair(linear, largest_entries(linear, None), tolerance, dual=dual)
    found = decompose(pair)
    if system is not None and _may_be_silent(found, pair):
        pair = _pair(linear, largest_entries(linear, system), tolerance, dual=dual)
        found = decompose(pair)
    ports = linear.output_names if dual else linear.input_names
    names = Names(linear.state_names, regions_of(linear.states), ports)
    reasons, kinds = explain(found, pair, names, words)
    modes = list_modes(linear, found, pair, names, kinds, dual=dual)
    hidden = [block.axes for block in found.blocks if block.kind != "reached"]
    shown = [block.axes for block in found.blocks if block.kind == "reached"]
    n = len(pair.A)
    is_settled = found.dimension == sum(axes.shape[1] for axes in shown) and not linear.latent
    empty = np.zeros((n, 0))
    return Controllability(
        dimension=found.dimension,
        n_states=n,
        margin=None if linear.latent else _margin(found, pair),
        modes=modes,
        reasons=() if linear.latent else reasons,
        verdict=_verdict(found, modes, names, words),
        is_stabilizable=_is_stabilizable(modes),
        exact_dimension=found.exact,
        is_proved=found.is_proved,
        distance=found.distance,
        reached=np.concatenate([empty, *shown], axis=1) if is_settled else None,
        unreached=np.concatenate([empty, *hidden], axis=1) if is_settled else None,
        question=words.able,
        tolerance=tolerance,
        _linear=linear,
        _system=system,
    )


def _may_be_silent(found: Decomposition, pair: Pair) -> bool:
    """Whether something is out of reach, or inputs act so little that they may be silent."""
    gains = np.abs(pair.B).max(axis=0, initial=0.0)
    is_faint = gains.min(initial=np.inf) <= FAINT * np.abs(pair.A).max(initial=0.0)
    return bool(is_faint) or not all(block.is_plain for block in found.blocks)


def _pair(linear: LinearSystem, sizes: Sizes, tolerance: float, *, dual: bool) -> Pair:
    A, B, C = (m.detach().double().cpu().numpy() for m in (linear.A, linear.B, linear.C))
    ports = linear.outputs if dual else linear.inputs
    return Pair(
        A=A.T.copy() if dual else A,
        B=C.T.copy() if dual else B,
        state_units=tuple(q.unit for q in linear.states for _ in q.names),
        input_units=tuple(q.unit for q in ports for _ in q.names),
        is_map=linear.step is not None,
        largest_A=sizes.A.T if dual else sizes.A,
        largest_B=sizes.C.T if dual else sizes.B,
        tolerance=tolerance,
    )


def _margin(found: Decomposition, pair: Pair) -> float:
    """The PBH margin; where modes are out of reach, at their eigenvalues."""
    lost = [block for block in found.blocks if block.kind != "reached"]
    if not lost:
        block = found.blocks[0]
        return controllability_margin(pair.A, pair.B, block.eigenvalues, block.left)
    values = np.concatenate([block.eigenvalues for block in lost])[:MOST_EXACT]
    return float(least_singular_values(pair.A, pair.B, values).min())


def _is_stabilizable(modes: tuple[Mode, ...]) -> bool | None:
    lost = [mode for mode in modes if mode.is_controllable is not True]
    if any(mode.is_controllable is False and mode.is_stable is False for mode in lost):
        return False
    return True if all(mode.is_stable for mode in lost) else None


def _verdict(found: Decomposition, modes: tuple[Mode, ...], names: Names, words: Words) -> str:
    n = len(modes)
    if not names.ports:
        return f"no {words.ports}"
    statuses = [mode.is_controllable for mode in modes]
    lost, open_ = statuses.count(False), statuses.count(None)
    if found.dimension == n:
        faint = sum(bool(mode.reason) for mode in modes)
        return words.able + (f", though {faint} of {n} modes in theory only" if faint else "")
    if found.dimension is None and not lost:
        return (
            f"undecided: {open_} of {n} modes are within {100:g} times the tolerance of being out "
            "of reach"
        )
    count = n - found.dimension if found.dimension is not None else lost
    text = f"un{words.able}: {count} of {n} modes cannot be {words.done}"
    kinds: dict[str, int] = {}
    for mode in modes:
        if mode.is_controllable is False and mode.reason:
            kinds[mode.reason] = kinds.get(mode.reason, 0) + 1
    if kinds:
        text += f" ({', '.join(f'{k} by {kind}' for kind, k in kinds.items())})"
    if count > lost:
        text += "; which ones is undecided"
    elif open_:
        text += f"; {open_} more are undecided"
    if found.exact is not None and found.exact > n - count:
        text += f"; exactly as stored, {found.exact} of {n} dimensions can be, in theory"
    return text
