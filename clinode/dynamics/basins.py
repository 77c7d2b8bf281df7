"""Basins of attraction: which attractor each state leads to, and how much of a box each one drains.

Attractors are stable equilibria and limit cycles; chaos is neither, and what leads to it stays
undecided. Labels are exact up to the tolerance of the integration: a start closer to the boundary
than that may fall to either side. The boundary itself is `separatrix`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from clinode.errors import ArgumentError
from clinode.statistics import Estimate, wilson_interval
from clinode.system import Quantity, System, flat_names

from .box import Box, SearchBox
from .cycles import LimitCycle
from .equilibria import find_equilibria
from .field import Field
from .settling import LEFT, UNDECIDED, Attractor, Settling


@dataclass(frozen=True, eq=False)
class Basins:
    """Labels of starts by the attractor that each leads to.

    Attributes:
        attractors: Stable equilibria and limit cycles, in the order that labels count them.
        labels: Of the starts, shaped as the grid, or (start,) for a sample: an index into
            `attractors`; -1 where none was reached in time, -2 where the state grew without bound.
        starts: (*labels.shape, state).
        axes: The grid's values along each state; empty for a sample.
        fractions: Share of the box that each attractor drains, with a 95 % interval (Wilson 1927,
            J. Am. Stat. Assoc. 22:209-212), as if starts were drawn at random: a grid does better.
        undecided: Share of the starts with label -1.
        left: Share with label -2.
        verdict: What was found, in words.
        quantities: What stands on the state axis.
    """

    attractors: tuple[Attractor, ...]
    labels: np.ndarray
    starts: np.ndarray
    axes: tuple[np.ndarray, ...]
    fractions: tuple[Estimate, ...]
    undecided: Estimate
    left: Estimate
    verdict: str
    quantities: tuple[Quantity, ...] = field(repr=False)

    def to_pandas(self) -> pd.DataFrame:
        """One row an attractor: kind, fraction, low, high; then what reached none."""
        rows = [
            {
                "attractor": kind_of(one),
                "fraction": share.value,
                "low": share.low,
                "high": share.high,
            }
            for one, share in zip(self.attractors, self.fractions, strict=True)
        ]
        for name, share in (("undecided", self.undecided), ("without bound", self.left)):
            if share.value:
                rows.append(
                    {"attractor": name, "fraction": share.value}
                    | {"low": share.low, "high": share.high}
                )
        return pd.DataFrame(rows, columns=["attractor", "fraction", "low", "high"])

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return {
            "verdict": self.verdict,
            "state_names": list(flat_names(self.quantities)),
            "attractors": [one.to_dict() for one in self.attractors],
            "labels": self.labels.tolist(),
            "axes": [axis.tolist() for axis in self.axes],
            "fractions": [[share.value, share.low, share.high] for share in self.fractions],
            "undecided": self.undecided.value,
            "left": self.left.value,
        }


def basins(
    system: System,
    box: Box | None = None,
    n: int | Sequence[int] = 64,
    u: Any = 0.0,
    *,
    rtol: float = 1e-6,
    horizon: float | None = None,
    attractors: Sequence[Attractor] | None = None,
    generator: torch.Generator | None = None,
) -> Basins:
    """Follow starts that fill a box until each has entered an attractor for good.

    Args:
        system: A flow whose field does not depend on time and whose state does not jump.
        box: A (low, high) for each state, or a mapping from names of states; the states' ranges
            where it says nothing.
        n: Of one or two states the points of a grid along each; of more states the number of
            starts drawn at random. A sequence, one number a state, makes a grid in any case.
        u: The constant input.
        rtol: Relative tolerance of a step.
        horizon: Time after which a trajectory is undecided, in time units; by default 200 of the
            slowest time constant of the attractors known at the start, at least 1000 of the
            fastest.
        attractors: Stable equilibria and cycles, where they are known; searched by default. Others
            that trajectories lead to are added.
        generator: Of the starts where they are drawn; one of a fixed seed by default.

    Raises:
        ArgumentError: As `find_equilibria`; a state without range that the box leaves out, a system
            with events that reset it, an n that fits no grid, an attractor that is not stable.

    Example:
        >>> class Switch(System):
        ...     states = (Quantity("x", "1", range=(-2.0, 2.0)),)
        ...
        ...     def vector_field(self, t, x, u):
        ...         return x - x**3
        >>> [share.value for share in basins(Switch(), n=100).fractions]
        [0.5, 0.5]
    """
    field = smooth_field(system, u)
    starts, axes = _starts(system, box, n, generator)
    known = list(attractors) if attractors is not None else _stable(system, u, box)
    settling = settle_with(field, known, rtol=rtol, horizon=horizon)
    labels = settling.label(starts.reshape(-1, system.n_states)).reshape(starts.shape[:-1])
    return _report(system, settling, labels, starts, axes)


def settle_with(
    field: Field, attractors: Sequence[Attractor], *, rtol: float, horizon: float | None
) -> Settling:
    """What labels states by these attractors, and by others met on the way.

    Raises:
        ArgumentError: One of them is not stable, or a tolerance or horizon that is not positive.
    """
    if not all(one.is_stable for one in attractors):
        raise ArgumentError("an attractor is stable; one of those given is not")
    if not 0 < rtol < 0.1:
        raise ArgumentError(f"rtol must lie between 0 and 0.1, got {rtol}")
    horizon = _horizon(field, attractors) if horizon is None else horizon
    if not (math.isfinite(horizon) and horizon > 0):
        raise ArgumentError(f"horizon must be positive and finite, got {horizon}")
    return Settling(field, list(attractors), rtol=rtol, horizon=horizon)


def smooth_field(system: System, u: Any) -> Field:
    """The field of a system whose trajectories do not jump.

    Raises:
        ArgumentError: It has resets, delays or batch axes.
    """
    name = type(system).__name__
    if any(event.reset is not None for event in system.events):
        raise ArgumentError(
            f"the state of {name} jumps at events, so the flow alone does not say where it ends",
            fix="simulate it from several starts",
        )
    if system.delays:
        raise ArgumentError(
            f"a state of {name} does not say where it leads: its past does, as it has delays",
            fix="simulate it from several histories",
        )
    field = Field(system, u)
    if field.batch_shape:
        raise ArgumentError(f"{name} or its input has batch axes", fix="give one member of it")
    return field


def kind_of(attractor: Attractor) -> str:
    """What an attractor is called: "stable focus", "limit cycle"."""
    return "limit cycle" if isinstance(attractor, LimitCycle) else attractor.kind


def _sides(system: System, box: Box | None) -> np.ndarray:
    """(state, 2), with every side known."""
    search = SearchBox(system, box)
    if not search.known.all():
        missing = [n for n, ok in zip(system.state_names, search.known, strict=True) if not ok]
        raise ArgumentError(
            f"state '{missing[0]}' has no range, so the box must have one",
            fix=f"box={{'{missing[0]}': (low, high)}}",
        )
    return np.stack([search.low, search.high], axis=-1)


def _starts(
    system: System, box: Box | None, n: int | Sequence[int], generator: torch.Generator | None
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    sides, n_states = _sides(system, box), system.n_states
    if isinstance(n, int) and n_states > 2:
        _check_counts([n], 1)
        own = torch.Generator().manual_seed(0) if generator is None else generator
        draw = torch.rand(n, n_states, generator=own, dtype=torch.float64).numpy()
        return sides[:, 0] + (sides[:, 1] - sides[:, 0]) * draw, ()
    counts = [n] * n_states if isinstance(n, int) else list(n)
    _check_counts(counts, n_states)
    axes = tuple(_cells(low, high, k) for (low, high), k in zip(sides, counts, strict=True))
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1), axes


def _cells(low: float, high: float, n: int) -> np.ndarray:
    """Middles of n equal cells: each start then stands for as much of the box."""
    return low + (high - low) * (np.arange(n) + 0.5) / n


def _check_counts(counts: list[int], n_axes: int) -> None:
    if len(counts) != n_axes or min(counts) < 1:
        raise ArgumentError(
            f"n is a positive number, or one for each of {n_axes} states, got {counts}"
        )


def _stable(system: System, u: Any, box: Box | None) -> list[Attractor]:
    """Stable equilibria in the states' ranges and in the box: what leads out of it counts too."""
    found: list[Attractor] = [one for one in find_equilibria(system, u) if one.is_stable]
    inside = [] if box is None else find_equilibria(system, u, box, n_starts=128)
    return found + [one for one in inside if one.is_stable and not _is_among(one, found)]


def _is_among(one: Attractor, known: Sequence[Attractor]) -> bool:
    return any(
        not isinstance(one, LimitCycle)
        and not isinstance(other, LimitCycle)
        and torch.allclose(one.state, other.state, rtol=1e-6, atol=1e-9)
        for other in known
    )


def _horizon(field: Field, attractors: Sequence[Attractor]) -> float:
    slow, fast = [], []
    for one in attractors:
        if isinstance(one, LimitCycle):
            slow.append(float(one.period))
        else:
            rates = one.eigenvalues.real.abs()
            slow.append(1 / float(rates.min()))
            fast.append(1 / float(one.eigenvalues.abs().max()))
    if not slow:
        _, jacobian = field.jacobian(field._samples().numpy())
        size = np.abs(np.linalg.eigvals(jacobian)).max(axis=-1)
        slow = fast = [1 / max(float(np.median(size)), 1e-12)]
    return max(200 * max(slow), 1000 * min(fast or slow))


def _report(
    system: System,
    settling: Settling,
    labels: np.ndarray,
    starts: np.ndarray,
    axes: tuple[np.ndarray, ...],
) -> Basins:
    fractions = tuple(_share(labels == i) for i in range(len(settling.attractors)))
    undecided, left = _share(labels == UNDECIDED), _share(labels == LEFT)
    n_found = len(settling.attractors)
    verdict = f"{n_found} attractor{'' if n_found == 1 else 's'} from {labels.size} starts"
    if undecided.value:
        n = int((labels == UNDECIDED).sum())
        verdict += f"; {n} undecided: they reached none within {settling.horizon:.6g}"
        verdict += "" if system.time_unit == "1" else f" {system.time_unit}"
    if left.value:
        verdict += f"; {int((labels == LEFT).sum())} grew without bound"
    return Basins(
        attractors=tuple(settling.attractors),
        labels=labels,
        starts=starts,
        axes=axes,
        fractions=fractions,
        undecided=undecided,
        left=left,
        verdict=verdict,
        quantities=system.states,
    )


def _share(mask: np.ndarray) -> Estimate:
    count, n = int(mask.sum()), mask.size
    return Estimate(count / n, *wilson_interval(count, n))
