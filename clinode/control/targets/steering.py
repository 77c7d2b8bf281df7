"""From a network to a checked stimulus: rest, stability, reach, targets, energies, stimulus.

One call asks every question in its order and keeps every answer with its verdict. Each is also a
function of its own; this is the chain that a report shows and that the command line runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from clinode.control.controllability.controllability import Controllability, controllability
from clinode.control.energy.energy import control_energy
from clinode.control.energy.transfers import horizon_of, matrix_of
from clinode.control.stimulation.goal import Goal, Target, goal_of
from clinode.control.stimulation.limits import StimulusLimits
from clinode.control.stimulation.stimulation import stimulate
from clinode.control.stimulation.stimulus import Stimulus
from clinode.dynamics.equilibria import Equilibria, Equilibrium, find_equilibria
from clinode.dynamics.linearize import linearize
from clinode.errors import ArgumentError, SolverError
from clinode.system import LinearSystem, System

from .input_factors import input_factors
from .nulls import Null, strength_preserving
from .selection import input_positions
from .targets import TargetRanking, rank_targets, reading


@dataclass(frozen=True, eq=False)
class Steering:
    """What was asked of a system, and every answer.

    Attributes:
        system: Its name.
        constants: Scalar constants with their units, in words.
        equilibria: All that were found.
        equilibrium: The one that everything starts from.
        linear: The linearization there, with the candidate inputs.
        horizon: In time units.
        target: Wanted values by name.
        controllability: Of all candidate inputs together.
        reach: One row a candidate input: how far it alone moves the states (of a learned system the
            outputs), as the trace of its Gramian over the horizon.
        ranking: Candidates by the least energy to the target, beside nulls.
        energies: Least energy to the target of growing sets of inputs: the best, the stimulated
            ones, all candidates.
        stimulus: The designed stimulus and its check in the nonlinear model.
        n_nulls, seed: Of the ranking.
        network: Weights, labels and centers of the regions, where there is a connectome.
    """

    system: str
    constants: dict[str, str]
    equilibria: Equilibria
    equilibrium: Equilibrium
    linear: LinearSystem
    horizon: float
    target: dict[str, float]
    controllability: Controllability
    reach: pd.DataFrame
    ranking: TargetRanking
    energies: pd.DataFrame
    stimulus: Stimulus
    n_nulls: int
    seed: int
    network: Any = field(default=None, repr=False)

    @property
    def which(self) -> int:
        """Position of the equilibrium among those found, or -1 where it was given."""
        same = [k for k, one in enumerate(self.equilibria) if one is self.equilibrium]
        return same[0] if same else -1

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return {
            "system": self.system,
            "constants": self.constants,
            "time_unit": self.linear.time_unit,
            "horizon": self.horizon,
            "target": self.target,
            "n_nulls": self.n_nulls,
            "seed": self.seed,
            "equilibria": self.equilibria.to_dict(),
            "equilibrium": self.which,
            "controllability": self.controllability.to_dict(),
            "reach": self.reach.to_dict("records"),
            "ranking": self.ranking.to_dict(),
            "energies": [
                {
                    k: None if isinstance(v, float) and not math.isfinite(v) else v
                    for k, v in r.items()
                }
                for r in self.energies.to_dict("records")
            ],
            "stimulus": self.stimulus.to_dict(),
        }


def steer(
    system: System,
    target: Target,
    equilibrium: Equilibrium | int | None = None,
    *,
    horizon: float | int | None = None,
    candidates: Sequence[str] | None = None,
    limits: StimulusLimits | None = None,
    n_stimulated: int = 3,
    nulls: Null | None = strength_preserving,
    n_nulls: int = 100,
    seed: int = 0,
    network: Any = None,
) -> Steering:
    """Ask a system how it can be brought to a target, from its equilibria to a checked stimulus.

    Args:
        system: A network we wrote down, or a learned one.
        target: Values by name of states or outputs, a state, or another equilibrium; of a learned
            system outputs.
        equilibrium: Where it starts: one of the system's, or its position in `find_equilibria`; the
            first by default.
        horizon: In time units; by default the slowest time constant there.
        candidates: Names of inputs or blocks that may stimulate; all by default.
        limits: Of the stimulus; none by default.
        n_stimulated: How many of the cheapest candidates the stimulus uses.
        nulls, n_nulls: As of `rank_targets`; a learned system has no nulls.
        seed: Of the nulls.
        network: Its weights, labels and centers are shown; by default the system's own connectome.

    Raises:
        ArgumentError: A position that no equilibrium has, an unknown name, limits that exclude
            every stimulus, or what else one of the questions refuses.
        SolverError: No equilibrium was found.
    """
    goal = goal_of(system, target)
    found, start = _start(system, equilibrium)
    whole = linearize(system, start)
    places = input_positions(whole, candidates)
    names = [whole.input_names[i] for i in places]
    if not names:
        raise ArgumentError(f"{type(system).__name__} has no inputs: nothing can steer it")
    if not 1 <= n_stimulated <= len(names):
        raise ArgumentError(f"n_stimulated must be 1 to {len(names)}, got {n_stimulated}")
    linear = linearize(system, start, inputs=names)
    T = _slowest(start) if horizon is None else float(horizon)
    ranking = rank_targets(
        system,
        target,
        start,
        T,
        names,
        nulls=None if system.latent else nulls,
        n_nulls=n_nulls,
        generator=torch.Generator().manual_seed(seed),
    )
    chosen = [one[0] for one in ranking.candidates[:n_stimulated]]
    stimulus = stimulate(system, start, target, limits, inputs=chosen, horizon=T)
    return Steering(
        system=type(system).__name__,
        constants=_constants(system),
        equilibria=found,
        equilibrium=start,
        linear=linear,
        horizon=T,
        target=dict(zip(goal.names, goal.values.tolist(), strict=True)),
        controllability=controllability(linear, system=system),
        reach=_reach(linear, T),
        ranking=ranking,
        energies=_energies(linear, goal, T, [chosen[:1], chosen, names]),
        stimulus=stimulus,
        n_nulls=0 if system.latent or nulls is None else n_nulls,
        seed=seed,
        network=getattr(system, "connectome", None) if network is None else network,
    )


def _start(system: System, equilibrium: Equilibrium | int | None) -> tuple[Equilibria, Equilibrium]:
    found = find_equilibria(
        system, 0.0 if not isinstance(equilibrium, Equilibrium) else equilibrium.u
    )
    if isinstance(equilibrium, Equilibrium):
        return found, equilibrium
    if not len(found):
        raise SolverError(
            found.verdict,
            where=type(system).__name__,
            fix="steer from an equilibrium; see simulate",
        )
    position = 0 if equilibrium is None else equilibrium
    if not 0 <= position < len(found):
        raise ArgumentError(
            f"equilibrium {position} was asked for, {len(found)} were found",
            fix=f"0 to {len(found) - 1}, stable ones first",
        )
    return found, found[position]


def _slowest(equilibrium: Equilibrium) -> float:
    rates = equilibrium.eigenvalues.real.abs()
    moving = rates[rates > 1e-9 * rates.max()]
    if not len(moving):
        raise ArgumentError("the equilibrium has no time constant", fix="give a horizon")
    return float(1 / moving.min())


def _constants(system: System) -> dict[str, str]:
    told = {}
    for quantity in system.constants:
        value = getattr(system, quantity.name, None)
        if isinstance(value, Tensor) and value.numel() == 1:
            unit = "" if quantity.unit == "1" else f" {quantity.unit}"
            told[quantity.name] = f"{float(value):.6g}{unit}"
    return told


def _reach(linear: LinearSystem, horizon: float) -> pd.DataFrame:
    A, B = matrix_of(linear, "A"), matrix_of(linear, "B")
    T, n_steps = horizon_of(linear, A, horizon)
    readout = matrix_of(linear, "C") if linear.latent else None
    factors = input_factors(A, B, T, readout, n_steps)
    sizes = (factors**2).sum(axis=(1, 2))
    return pd.DataFrame({"input": list(linear.input_names), "reach": sizes})


def _energies(
    linear: LinearSystem, goal: Goal, horizon: float, sets: list[list[str]]
) -> pd.DataFrame:
    """Least energies to the target, by growing sets of inputs."""
    rows = []
    x0, wanted = linear.x0.detach(), goal.values / goal.scales
    for names in dict.fromkeys(tuple(names) for names in sets):
        places = [linear.input_names.index(name) for name in names]
        energy = control_energy(reading(linear, goal, places), x0, wanted, horizon, outputs=True)
        told = names if len(names) <= 5 else (f"all {len(names)} candidates",)
        rows.append(
            {
                "inputs": " + ".join(told),
                "n_inputs": len(names),
                "log10_energy": float(energy.log10),
                "bound": float(energy.bound),
                "verdict": str(energy.verdict),
                "route": str(energy.route),
            }
        )
    return pd.DataFrame(rows)
