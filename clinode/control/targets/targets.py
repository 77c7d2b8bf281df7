"""Which input is the best place to stimulate, and whether the network's wiring makes it so.

Every candidate, a single input or a set of them, is asked for the least energy to a target; the
answer carries the certificate of `control_energy`. The same is asked of null networks, whose
equilibrium is found anew: a place is a good target because of the wiring only if few nulls make it
as good (`clinode.control.targets.nulls`).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from clinode.control.energy.energy import control_energy
from clinode.control.energy.transfers import horizon_of, matrix_of
from clinode.control.stimulation.goal import Goal, Target, goal_of
from clinode.dynamics.equilibria import (
    Equilibria,
    Equilibrium,
    find_equilibria,
    find_equilibria_each,
)
from clinode.dynamics.linearize import linearize
from clinode.errors import ArgumentError, SolverError
from clinode.statistics import benjamini_hochberg
from clinode.system import LinearSystem, System

from .input_factors import input_factors, output_energies
from .nulls import Null, strength_preserving
from .selection import input_positions

MOST_SETS = 5_000  # of candidates: each is certified by itself
TIE = 1e-6  # of log10 of energies, which are known to 1e-6: rounding must not tell nulls apart


@dataclass(frozen=True, eq=False)
class TargetRanking:
    """Candidates by the least energy to the target, cheapest first.

    Attributes:
        candidates: Names of the inputs of each candidate.
        log10_energy: Of the least energy (input unit^2 x time unit); inf where unreachable.
        verdicts: As of `control_energy`; only "reliable" and "unreachable" ones are ranked apart
            from each other, the others stand last.
        null_median: Median of log10_energy over the nulls, of which those beyond float64 count with
            their lower bound.
        p_values: Share of nulls in which the candidate is at least as cheap, to rounding,
            (1 + k) / (1 + n). NaN without nulls.
        q_values: The same, corrected for the number of candidates (Benjamini & Hochberg 1995).
        n_nulls: Of each candidate, how many nulls are certainly cheaper or certainly not.
        rank_low, rank_high: Ranks that 95 % of the draws stay within; NaN without draws.
        statement: What was asked, of which equilibrium, and what could not be answered.
    """

    candidates: tuple[tuple[str, ...], ...]
    log10_energy: np.ndarray
    verdicts: tuple[str, ...]
    null_median: np.ndarray
    p_values: np.ndarray
    q_values: np.ndarray
    n_nulls: np.ndarray
    rank_low: np.ndarray
    rank_high: np.ndarray
    statement: str

    def __len__(self) -> int:
        return len(self.candidates)

    def to_pandas(self) -> pd.DataFrame:
        """One row a candidate, in the order of the ranking."""
        return pd.DataFrame(
            {
                "rank": np.arange(1, len(self) + 1),
                "inputs": [" + ".join(names) for names in self.candidates],
                "log10_energy": self.log10_energy,
                "verdict": self.verdicts,
                "null_median": self.null_median,
                "p_value": self.p_values,
                "q_value": self.q_values,
                "n_nulls": self.n_nulls,
                "rank_low": self.rank_low,
                "rank_high": self.rank_high,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words; None where a number is not finite."""
        rows = self.to_pandas().to_dict("records")
        plain = [{str(name): _plain(value) for name, value in row.items()} for row in rows]
        return {"statement": self.statement, "targets": plain}


def rank_targets(
    system: System,
    target: Target,
    equilibrium: Equilibrium | None = None,
    horizon: float | int = 1.0,
    candidates: Sequence[str] | None = None,
    nulls: Null | None = strength_preserving,
    n_nulls: int = 100,
    *,
    size: int = 1,
    weights: str = "W",
    draws: Sequence[System] = (),
    generator: torch.Generator | None = None,
) -> TargetRanking:
    """Inputs, or sets of them, ranked by the least energy to a target.

    Everything is about the linearization at the equilibrium, from which the transfer starts.

    Args:
        system: A network, a learned system, or a `LinearSystem`, which starts at its operating
            point. Its weights are the constant named below; of a `LinearSystem` they are what of A
            is off the diagonal.
        target: Values by name of states or outputs ({"E:lh_precuneus": 0.3}), a whole state, or
            another equilibrium. Of a learned system only outputs. A whole state is seldom worth
            asking of one input: its energy is astronomical, and no null gives a number.
        equilibrium: Where it starts; by default the first found, which is named.
        horizon: In time units of the system.
        candidates: Names of inputs or blocks; all by default.
        nulls: A function of (weights, generator); None asks no nulls. A learned system has none.
        n_nulls: How many. A p-value is no smaller than 1 / (1 + n_nulls).
        size: Inputs in a candidate: 1, or 2 for all pairs.
        weights: Name of the constant that holds the weights, (region x region,).
        draws: The same system for other subjects or other draws of its constants; ranks then carry
            the interval that 95 % of the draws stay within. Each draw's target is as far from its
            own equilibrium as the system's.
        generator: Of the nulls; seed 0 by default.

    Raises:
        ArgumentError: An unknown name, no candidates or too many, an impossible horizon, nulls for
            a system without such weights or for a learned one.
        SolverError: No equilibrium.
    """
    linear, goal, note = _at_rest(system, target, equilibrium)
    sets = _sets(linear, candidates, size)
    log10, verdicts = _certified(linear, goal, sets, horizon)
    drawn = generator if generator is not None else torch.Generator().manual_seed(0)
    aim = _aim(goal, linear)
    others = _of_nulls(system, linear, nulls, n_nulls, weights, drawn)
    of_nulls = _of_each(others, goal, aim, sets, horizon)
    for one in draws:
        if len(one.state_names) != linear.n_states or one.input_names != linear.input_names:
            raise ArgumentError("a draw has other states or inputs than the system")
    of_draws = _of_each([_nearest_rest(one, linear) for one in draws], goal, aim, sets, horizon)
    order = np.lexsort(np.array([log10, [_STANDING.get(v, 2) for v in verdicts]]))
    p_values, q_values, median, counts = _against(of_nulls, log10, verdicts)
    low, high = _ranks(of_draws)
    names = [tuple(linear.input_names[i] for i in one) for one in sets]
    statement = f"least energy to {_count(len(goal.names), 'value')} in {horizon:g} "
    statement += f"{linear.time_unit}, {note}"
    asked = {name for one in names for name in one}
    units = {q.unit for q in linear.inputs for name in q.names if name in asked}
    if len(units) > 1:
        statement += "; the inputs have different units, in which their energies do not compare"
    for table, what in ((of_nulls, "null"), (of_draws, "draw")):
        if table.shape[1]:
            statement += f"; {_count(table.shape[1], what)}{_lost(table)}"
    return TargetRanking(
        tuple(names[i] for i in order),
        log10[order],
        tuple(verdicts[i] for i in order),
        median[order],
        p_values[order],
        q_values[order],
        counts[order],
        low[order],
        high[order],
        statement,
    )


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


_STANDING = {"reliable": 0, "unreachable": 1}


def _at_rest(
    system: System, target: Target, equilibrium: Equilibrium | None
) -> tuple[LinearSystem, Goal, str]:
    """The linearization, what is aimed at, and in words where it starts."""
    goal = goal_of(system, target)
    if isinstance(system, LinearSystem):
        return system, goal, "from the operating point"
    note = "from the equilibrium given"
    if equilibrium is None:
        found = find_equilibria(system)
        if not len(found):
            raise SolverError(found.verdict, where=type(system).__name__, fix="give an equilibrium")
        equilibrium = found[0]
        note = f"from the first of {len(found)} equilibria found, a {equilibrium.kind}"
    return linearize(system, equilibrium), goal, note


def _sets(linear: LinearSystem, candidates: Sequence[str] | None, size: int) -> list[list[int]]:
    places = input_positions(linear, candidates)
    if not 1 <= size <= len(places):
        raise ArgumentError(f"size must be 1 to {len(places)}, the number of inputs, got {size}")
    if math.comb(len(places), size) > MOST_SETS:
        raise ArgumentError(
            f"{math.comb(len(places), size)} sets of {size} of {len(places)} inputs are too many",
            fix="fewer candidates, or greedy_inputs",
        )
    return [list(one) for one in itertools.combinations(places, size)]


def _rest_values(goal: Goal, linear: LinearSystem) -> Tensor:
    y0 = linear.y0.detach().double()
    x0 = linear.x0.detach().double()
    return torch.cat([x0[list(goal.states)], y0[list(goal.outputs)]])


def _aim(goal: Goal, linear: LinearSystem) -> np.ndarray:
    """What is to be gained from rest, in scales."""
    return ((goal.values - _rest_values(goal, linear)) / goal.scales).numpy()


def reading(linear: LinearSystem, goal: Goal, inputs: Sequence[int]) -> LinearSystem:
    """The system with these inputs alone, whose outputs are what is aimed at, in scales."""
    return LinearSystem(
        linear.A.detach().double(),
        linear.B.detach().double()[:, list(inputs)],
        goal.rows(linear),
        offset=(
            linear.x0.detach().double(),
            linear.u0.detach().double()[list(inputs)],
            _rest_values(goal, linear) / goal.scales,
        ),
        step=linear.step,
        time_unit=linear.time_unit,
    )


def _certified(
    linear: LinearSystem, goal: Goal, sets: list[list[int]], horizon: float | int
) -> tuple[np.ndarray, list[str]]:
    log10, verdicts = np.empty(len(sets)), []
    x0, wanted = linear.x0.detach(), goal.values / goal.scales
    for k, places in enumerate(sets):
        energy = control_energy(reading(linear, goal, places), x0, wanted, horizon, outputs=True)
        log10[k] = float(energy.log10)
        verdicts.append(str(energy.verdict))
    return log10, verdicts


def _of_nulls(
    system: System,
    linear: LinearSystem,
    null: Null | None,
    n: int,
    weights: str,
    generator: torch.Generator,
) -> list[LinearSystem | None]:
    """Nulls at their equilibria nearest to that of the system; None where there is none."""
    if n < 0:
        raise ArgumentError(f"n_nulls must not be negative, got {n}")
    if null is None or n == 0:
        return []
    if system.latent:
        raise ArgumentError(
            "a learned system has no wiring of which a null could be drawn", fix="nulls=None"
        )
    if isinstance(system, LinearSystem):
        return [_rewired(system, _drawn(null, system.A.detach(), generator)) for _ in range(n)]
    flat = getattr(system, weights, None)
    side = math.isqrt(flat.shape[-1]) if isinstance(flat, Tensor) and flat.ndim == 1 else 0
    if not isinstance(flat, Tensor) or side == 0 or side**2 != flat.shape[-1]:
        raise ArgumentError(
            f"{type(system).__name__} has no square weights in a constant '{weights}'",
            fix="name the constant (weights=...), or nulls=None",
        )
    matrix = flat.detach().unflatten(-1, (side, side))
    drawn = torch.stack([_drawn(null, matrix, generator).flatten() for _ in range(n)])
    found = find_equilibria_each(system.with_constants(**{weights: drawn}), linear.u0.detach())
    each = zip(drawn, found, strict=True)
    return [_nearest(system.with_constants(**{weights: w}), one, linear) for w, one in each]


def _drawn(null: Null, weights: Tensor, generator: torch.Generator) -> Tensor:
    """A null's weights, which must be as many as those it was drawn from."""
    made: Any = null(weights, generator)
    if not isinstance(made, Tensor) or made.shape != weights.shape:
        told = f"shape {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        raise ArgumentError(
            f"a null gave {told}, expected weights of shape {tuple(weights.shape)}",
            fix="a null takes (weights, generator) and returns a tensor like the weights",
        )
    return made


def _rewired(linear: LinearSystem, A: Tensor) -> LinearSystem:
    return LinearSystem(
        A,
        linear.B.detach(),
        linear.C.detach(),
        linear.D.detach(),
        offset=(linear.x0.detach(), linear.u0.detach(), linear.y0.detach()),
        step=linear.step,
        states=linear.states,
        inputs=linear.inputs,
        outputs=linear.outputs,
        time_unit=linear.time_unit,
    )


def _nearest_rest(system: System, like: LinearSystem) -> LinearSystem | None:
    if isinstance(system, LinearSystem):
        return system
    return _nearest(system, find_equilibria(system, like.u0.detach()), like)


def _nearest(system: System, found: Equilibria, like: LinearSystem) -> LinearSystem | None:
    if not len(found):
        return None
    away = [float((one.state.detach() - like.x0).norm()) for one in found]
    return linearize(system, found[int(np.argmin(away))])


def _of_each(
    systems: list[LinearSystem | None],
    goal: Goal,
    aim: np.ndarray,
    sets: list[list[int]],
    horizon: float | int,
) -> np.ndarray:
    """(end, system, candidate) log10 of energies from below and above; NaN without a number."""
    table = np.full((2, len(systems), len(sets)), np.nan)
    for i, linear in enumerate(systems):
        if linear is None:
            continue
        A, B = matrix_of(linear, "A"), matrix_of(linear, "B")
        try:
            T, n_steps = horizon_of(linear, A, horizon)
            factors = input_factors(A, B, T, goal.rows(linear).numpy(), n_steps)
        except ArgumentError:  # this one is unstable, or grows beyond float64: no number
            continue
        members = np.array(sets).T  # (member of a set, set)
        together = np.concatenate([factors[one] for one in members], axis=2)
        with np.errstate(divide="ignore"):
            table[:, i] = np.log10(output_energies(together, aim))
    return table


def _against(
    of_nulls: np.ndarray, log10: np.ndarray, verdicts: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    low, high = of_nulls
    cheaper, dearer = high <= log10 + TIE, low > log10 + TIE
    counts = (cheaper | dearer).sum(axis=0)
    told = (counts > 0) & (np.array(verdicts) == "reliable")
    p_values = np.where(told, (1 + cheaper.sum(axis=0)) / (1 + counts), np.nan)
    q_values = np.full_like(p_values, np.nan)
    if told.any():
        q_values[told] = benjamini_hochberg(p_values[told])
    median = np.full(len(log10), np.nan)
    whole = low[~np.isnan(low).any(axis=1)]
    if len(whole):
        median = np.median(whole, axis=0)
    return p_values, q_values, median, counts


def _ranks(of_draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    whole = of_draws[0][~np.isnan(of_draws[0]).any(axis=1)]
    if not len(whole):
        nothing = np.full(of_draws.shape[2], np.nan)
        return nothing, nothing
    ranks = whole.argsort(axis=1).argsort(axis=1) + 1
    low, high = np.percentile(ranks, [2.5, 97.5], axis=0, method="closest_observation")
    return low, high


def _lost(table: np.ndarray) -> str:
    lost = int(np.isnan(table[0]).all(axis=1).sum())
    return f", of which {lost} have no equilibrium or grow beyond float64" if lost else ""


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
