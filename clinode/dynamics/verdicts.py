"""What a search for equilibria says about what it found, and about what it may have missed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clinode.errors import SolverError
from clinode.system import System

from .field import bounds_or_unit

if TYPE_CHECKING:
    from .equilibria import Equilibrium


def completeness(
    found: "Sequence[Equilibrium]", n_tried: int, index_sum: int, expected: int | None
) -> str:
    """Words for what was found in the searched box, at least one, and for what that proves."""
    n_stable = sum(one.is_stable for one in found)
    count = f"{len(found)} found from {n_tried} starts, {n_stable} stable"
    n_flat = sum(one.kind == "nonhyperbolic" for one in found)
    if n_flat > 3:
        return f"{count}; {n_flat} have a singular Jacobian: they may lie on a continuum"
    if n_flat:
        return f"{count}; {n_flat} nonhyperbolic, so the index sum says nothing"
    if expected is None:
        return f"{count}; the flow leaves the searched box, so some may be missing unseen"
    if index_sum == expected:
        return f"{count}; index sum {index_sum} as it must be: none is known to be missing"
    return f"{count}; index sum {index_sum} instead of {expected}: some are missing"


def none_inside(n_tried: int, outside: "Sequence[Equilibrium]") -> str:
    """Words for a searched box without an equilibrium."""
    if not outside:
        return f"no equilibrium found from {n_tried} starts"
    n, n_stable = len(outside), sum(one.is_stable for one in outside)
    return (
        f"no equilibrium in the searched box from {n_tried} starts; {n} outside of it, "
        f"{n_stable} stable: see `outside`"
    )


def cycle_instead(system: System, u: Any) -> str:
    """Words for the attractor that is there where no equilibrium is."""
    from .cycles import find_limit_cycle  # cycles need equilibria too

    low, high = bounds_or_unit(system.states)
    try:
        cycle = find_limit_cycle(system, (low + high) / 2, u)
    except SolverError:
        return "nor a limit cycle from the middle of the box"
    unit = "" if system.time_unit == "1" else f" {system.time_unit}"
    return f"a limit cycle of period {float(cycle.period):.6g}{unit} is there"
