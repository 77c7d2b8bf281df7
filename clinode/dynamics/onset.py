"""How a neuron begins to fire: where, by which bifurcation, and with what law of its frequency.

Two votes that share no step. The local one: what takes the resting equilibrium's stability first,
and, if that is a fold, whether the unstable manifold of the saddle-node returns to it. The other:
firing above the onset is followed downward as a limit cycle to where it is born, and the law of its
frequency is fitted there. Where they differ the result says so.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError, SolverError
from clinode.system import System

from .box import Side
from .branch import Branch, SpecialPoint
from .continuation import continue_equilibria
from .cycle_branches import AT_HOPF, continue_cycles
from .cycles import LimitCycle, find_limit_cycle
from .equilibria import Equilibrium, find_equilibria
from .equilibrium_curve import checked_span
from .excursion import CYCLES, ESCAPES, RESTS, RETURNS, Excursion, leave_saddle_node
from .field import Field, held_at, parameter_quantity, scales
from .frequency_law import FrequencyLaw, fit_frequency_law
from .resetting import firing_periods, resets, threshold_point

ABOVE = (1e-3, 1e-2, 0.05)  # of the span, above a fold: where firing is looked for
ABOVE_HOPF = (1e-2, 0.05)  # the same above a Hopf point: nearer, the focus lets go too slowly
PUSH = 0.02  # scales, off an equilibrium that repels
N_STARTS = 64  # of the search for rest
BIRTHS = ("cycle fold", "canard", "snic", "homoclinic")


@dataclass(frozen=True, eq=False)
class Onset:
    """How firing begins as a parameter rises.

    Attributes:
        kind: "snic": rest vanishes in a saddle-node on the cycle. "hopf": rest loses stability to
            an oscillation. "homoclinic": firing is born in an orbit homoclinic to a saddle, while
            rest may still be stable. "cycle fold": rest vanishes in a saddle-node off the cycle,
            and firing is born in a fold of cycles. "threshold": rest rises to the threshold of a
            neuron that resets. "fold" or "branch point": what rest ends in, where no firing was
            found.
        value: The parameter at that bifurcation; of "hopf" and "snic" that where rest ends.
            Differentiable once by constants and inputs that ask for a gradient, at these two.
        frequency_law: "sqrt", "log" or "finite", as followed from firing down to its birth;
            "unknown" where no firing could be followed that far.
        law: The fit behind it; None if unknown.
        expected_law: What rest's end alone predicts: "sqrt" of a saddle-node whose manifold
            returns; "log or finite" of one whose does not; "finite" of a Hopf point; "log" of a
            threshold; "unknown" of a saddle-node of a neuron that resets.
        agrees: Whether the two are the same; None where one of them is unknown.
        criticality: Of a Hopf point.
        rest_ends: Where rest loses its stability.
        firing_begins: The lowest end of stable firing; None if unknown. Below `rest_ends` both are
            stable in between.
        verdict: All this in words.
        equilibria: The branch that rest lies on.
        cycles: The branch of firing; None if none was found.
    """

    kind: str
    value: Float[Tensor, ""]
    frequency_law: str
    law: FrequencyLaw | None
    expected_law: str
    agrees: bool | None
    criticality: str | None
    rest_ends: SpecialPoint
    firing_begins: SpecialPoint | None
    verdict: str
    equilibria: Branch = field(repr=False)
    cycles: Branch | None = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON; without the branches."""
        begins = self.firing_begins
        return {
            "kind": self.kind,
            "value": float(self.value.detach()),
            "frequency_law": self.frequency_law,
            "law": None if self.law is None else self.law.to_dict(),
            "expected_law": self.expected_law,
            "agrees": self.agrees,
            "criticality": self.criticality,
            "rest_ends": self.rest_ends.to_dict(),
            "firing_begins": None if begins is None else begins.to_dict(),
            "verdict": self.verdict,
        }


def firing_onset(
    neuron: System,
    parameter: str,
    span: Side | None = None,
    u: Any = 0.0,
    *,
    start: Equilibrium | None = None,
) -> Onset:
    """Where and how a neuron begins to fire as an input or constant rises.

    Args:
        neuron: A flow whose field does not depend on time. If its events reset the state, rest is
            that of the flow between them, and firing is simulated just above its end.
        parameter: An input or constant, as in `continue_equilibria`.
        span: From a value at which it rests; by default the declared range of the parameter.
        u: The other inputs.
        start: The rest to begin at, if there are several; by default, of those stable at the low
            end of the span, the one that `find_equilibria` names first.

    Raises:
        ArgumentError: As `continue_equilibria`; no span where no range is declared.
        SolverError: Nothing stable at the low end of the span, or rest stays stable over it.
    """
    ends = _span(neuron, parameter, span)
    system, u = held_at(neuron, u, parameter, ends[0])
    rest = _rest(system, u, parameter, ends[0]) if start is None else start
    equilibria = continue_equilibria(system, parameter, ends, u, start=rest)
    lost = next((p for p in equilibria.points if p.kind in ("fold", "hopf", "branch point")), None)
    if resets(system):
        lost = threshold_point(system, u, equilibria, lost) or lost
    if lost is None or not equilibria.stable[0]:
        raise SolverError(
            f"rest keeps its stability from {parameter} = {ends[0]:.6g} to where its branch ends "
            f"at {equilibria.values[-1]:.6g} ({equilibria.ends[1]})",
            where=type(neuron).__name__,
            fix="widen the span",
        )
    excursion = _excursion(system, parameter, u, lost)
    if resets(system):
        timed = firing_periods(system, parameter, u, lost, ends[1] - ends[0])
        cycles, begins = None, None
        end = float(lost.value.detach())
        law = fit_frequency_law(*timed, end) if len(timed[0]) > 3 else None
    else:
        cycles = _firing(system, parameter, u, ends, lost, excursion)
        law, begins = _birth(cycles, lost)
    return _judged(parameter, equilibria, lost, excursion, cycles, law, begins)


def _span(neuron: System, parameter: str, span: Side | None) -> tuple[float, float]:
    quantity = parameter_quantity(neuron, parameter)
    chosen = quantity.range if span is None else span
    if chosen is None:
        raise ArgumentError(
            f"'{parameter}' of {type(neuron).__name__} declares no range to look for an onset in",
            fix="give span=(low, high), its low end where the neuron rests",
        )
    return checked_span(chosen)


def _rest(system: System, u: Any, parameter: str, low: float) -> Equilibrium:
    found = find_equilibria(system, u, n_starts=N_STARTS)
    if not len(found) or not found[0].is_stable:
        raise SolverError(
            f"no stable equilibrium was found at {parameter} = {low:.6g} ({found.verdict})",
            where=type(system).__name__,
            fix="let the span begin where the neuron rests, or give start",
        )
    return found[0]


def _excursion(system: System, parameter: str, u: Any, lost: SpecialPoint) -> Excursion | None:
    if lost.kind != "fold" or resets(system):
        return None
    at = Field(system, u, [parameter]).fixed([float(lost.value.detach())])
    try:
        return leave_saddle_node(at, lost.state.detach().numpy())
    except SolverError:
        return None


def _firing(
    system: System,
    parameter: str,
    u: Any,
    ends: tuple[float, float],
    lost: SpecialPoint,
    excursion: Excursion | None,
) -> Branch | None:
    """Cycles from above the onset down to their birth."""
    width, value = ends[1] - ends[0], float(lost.value.detach())
    if lost.criticality == "supercritical":
        span = (ends[0], min(value + ABOVE[1] * width, ends[1]))
        return _followed(system, parameter, lost, span)
    x = lost.state.detach().numpy()
    if excursion is not None and excursion.verdict in (RESTS, ESCAPES):
        return None  # what rest gives way to is no firing
    parts = ABOVE_HOPF if lost.kind == "hopf" else ABOVE
    starts = [(value + part * width, x + PUSH * scales(system.states)) for part in parts]
    if excursion is not None and excursion.verdict == CYCLES:
        starts = [(value, excursion.end)]
    for p, x0 in starts:
        if p > ends[1]:
            continue
        there, input_there = held_at(system, u, parameter, p)
        try:
            cycle = find_limit_cycle(there, x0, input_there)
        except SolverError:
            continue
        found = _followed(there, parameter, cycle, (ends[0], p + 1e-6 * width))
        if found is not None:
            return found
    return None


def _followed(
    system: System, parameter: str, start: LimitCycle | SpecialPoint, span: tuple[float, float]
) -> Branch | None:
    with torch.no_grad():
        try:
            return continue_cycles(system, parameter, start, span)
        except SolverError:
            return None


def _birth(
    cycles: Branch | None, lost: SpecialPoint
) -> tuple[FrequencyLaw | None, SpecialPoint | None]:
    """The law of the frequency where stable firing begins, and what it begins in."""
    if cycles is None or cycles.periods is None:
        return None, None
    if cycles.ends[0] == "birth":  # followed upward from a supercritical Hopf point
        return fit_frequency_law(cycles.values, cycles.periods), lost
    births = [point for point in cycles.points[::-1] if point.kind in BIRTHS]
    finite = bool(births) and births[0].kind in ("cycle fold", "canard")
    if finite and births[0].frequency is not None:
        return FrequencyLaw("finite", float(births[0].frequency)), births[0]
    law = fit_frequency_law(cycles.values, cycles.periods)
    if births:
        return law, births[0]
    if cycles.ends[0] == AT_HOPF and lost.kind == "hopf":
        return law, lost
    # the branch goes on below the span, or could not be followed to its end
    return (law if law is not None and law.kind != "finite" else None), None


def _judged(
    parameter: str,
    equilibria: Branch,
    lost: SpecialPoint,
    excursion: Excursion | None,
    cycles: Branch | None,
    law: FrequencyLaw | None,
    begins: SpecialPoint | None,
) -> Onset:
    returns = excursion is not None and excursion.verdict == RETURNS
    if lost.kind == "hopf":
        expected = "finite"
    elif lost.kind == "threshold":
        expected = "log"
    elif lost.kind == "fold" and excursion is not None:
        expected = "sqrt" if returns else "log or finite"
    else:
        expected = "unknown"
    found = "unknown" if law is None else law.kind
    kind = _kind(lost, returns, found, begins)
    elsewhere = begins if kind in ("homoclinic", "cycle fold") else None
    agrees = None if "unknown" in (found, expected) else found in expected.split(" or ")
    return Onset(
        kind=kind,
        value=lost.value if elsewhere is None else elsewhere.value,
        frequency_law=found,
        law=law,
        expected_law=expected,
        agrees=agrees,
        criticality=lost.criticality,
        rest_ends=lost,
        firing_begins=begins,
        verdict=_verdict(parameter, lost, excursion, found, begins, agrees),
        equilibria=equilibria,
        cycles=cycles,
    )


def _kind(lost: SpecialPoint, returns: bool, law: str, begins: SpecialPoint | None) -> str:
    if lost.kind == "threshold":
        return "threshold"
    if law == "log":
        return "homoclinic"
    if law == "sqrt":
        return "snic"
    if lost.kind != "fold":
        return lost.kind
    if law == "finite":
        return "fold" if begins is None else "cycle fold"
    return "snic" if returns else "fold"


def _verdict(
    parameter: str,
    lost: SpecialPoint,
    excursion: Excursion | None,
    law: str,
    begins: SpecialPoint | None,
    agrees: bool | None,
) -> str:
    what = f"{lost.criticality} {lost.kind}" if lost.criticality else lost.kind
    parts = [f"rest ends in a {what} at {parameter} = {float(lost.value.detach()):.7g}"]
    if excursion is not None:
        goes = "to it" if excursion.verdict == RETURNS else f"elsewhere ({excursion.verdict})"
        parts.append(f"the unstable manifold of the saddle-node goes {goes}")
    if begins is not None and begins is not lost:
        at = f"{parameter} = {float(begins.value.detach()):.7g}"
        parts.append(f"stable firing begins in a {begins.kind} at {at}")
    parts.append(f"law of the frequency: {law}")
    if agrees is None:
        parts.append("there is one vote only")
    else:
        parts.append("both votes agree" if agrees else "the votes of rest and of firing differ")
    return "; ".join(parts)
