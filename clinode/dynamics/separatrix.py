"""What separates basins: the stable manifold of a saddle, and the smallest push across it.

The curve is exact to the tolerance of its integration, backward in time from the saddle, along
which errors across it shrink. The push is found without it, by labels, in any number of states.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.integrate import solve_ivp

from clinode.errors import ArgumentError, SolverError
from clinode.system import Quantity, System, Values, flat_names

from .basins import kind_of, settle_with, smooth_field
from .box import Box, SearchBox, state_members
from .equilibria import Equilibrium, find_equilibria
from .field import Field, scales
from .settling import UNDECIDED, Attractor, Settling

FIRST = 1e-5  # widths: where the manifold is left to its tangent
N_ROUNDS, N_DIRECTIONS = 10, 128  # of the search for the smallest push
NARROWER = 0.55  # width of the cone of directions from one round to the next
N_SIZES = 16  # tried at once along a direction


@dataclass(frozen=True, eq=False)
class Separatrix:
    """The stable manifold of a saddle with one unstable direction.

    Attributes:
        saddle: The saddle.
        points: (point, state), evenly spaced in arc length; of a system of two states the curve
            from one end through the saddle to the other, of one state the saddle itself, of more
            states the saddle alone: `normal` then says where the manifold goes, to first order.
        normals: (point, state), unit vectors across it in widths of the states' ranges, all to the
            same side.
        ends: Why each branch of the curve ends: "left the box", "source" (it winds onto what
            repels), "length".
        quantities: What stands on the state axis.
    """

    saddle: Equilibrium
    points: np.ndarray
    normals: np.ndarray
    ends: tuple[str, ...]
    quantities: tuple[Quantity, ...] = field(repr=False)

    @property
    def normal(self) -> np.ndarray:
        """Across the manifold at the saddle, (state,)."""
        nearest = np.abs(self.points - self.saddle.state.detach().numpy()).sum(axis=-1).argmin()
        return self.normals[nearest]

    def to_pandas(self) -> pd.DataFrame:
        """One row a point: its states, with units."""
        labels = [f"{name} ({q.unit})" for q in self.quantities for name in q.names]
        return pd.DataFrame(dict(zip(labels, self.points.T, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return {
            "saddle": self.saddle.to_dict(),
            "state_names": list(flat_names(self.quantities)),
            "points": self.points.tolist(),
            "normals": self.normals.tolist(),
            "ends": list(self.ends),
        }


def separatrix(
    system: System,
    saddle: Equilibrium,
    box: Box | None = None,
    *,
    spacing: float = 0.01,
    length: float = 20.0,
) -> Separatrix:
    """The stable manifold of a saddle: the boundary between what its unstable directions lead to.

    Args:
        system: The system that the saddle is of, under the saddle's input.
        saddle: An equilibrium with exactly one unstable eigenvalue.
        box: Where the curve is followed; by default the states' ranges, widened by their width.
        spacing: Between its points, in widths of the states' ranges.
        length: Of each branch at most, in these widths.

    Raises:
        ArgumentError: No such saddle, a spacing or length that is not positive, a system whose
            state jumps.
        SolverError: The curve could not be followed.
    """
    dynamics = smooth_field(system, saddle.u)
    if not 0 < spacing < length:
        raise ArgumentError(f"0 < spacing < length expected, got {spacing} and {length}")
    scale, x = scales(system.states), saddle.state.detach().numpy()
    _, jacobian = dynamics.jacobian(x[None])
    inner = jacobian[0] * scale / scale[:, None]
    values, right = np.linalg.eig(inner)
    unstable = np.real(values) > 0
    if len(x) != system.n_states or unstable.sum() != 1 or saddle.kind == "nonhyperbolic":
        raise ArgumentError(
            f"a separatrix is the stable manifold of a saddle with one unstable direction; this "
            f"{saddle.kind} has {int(unstable.sum())}",
            fix="take a member of find_equilibria whose kind is 'saddle'",
        )
    across = _unit(np.real(np.linalg.inv(right)[np.flatnonzero(unstable)[0]]))
    if system.n_states != 2:
        return Separatrix(saddle, x[None], across[None], (), system.states)
    along = _unit(np.real(right[:, np.flatnonzero(~unstable)[0]]))
    kept = SearchBox(system, box)
    branches = [
        _branch(dynamics, x, sign * along, scale, kept, spacing, length) for sign in (-1.0, 1.0)
    ]
    points = np.concatenate([branches[0][0][::-1], x[None], branches[1][0]])
    normals = _normals(points / scale, along, across)
    return Separatrix(saddle, points, normals, (branches[0][1], branches[1][1]), system.states)


@dataclass(frozen=True, eq=False)
class Shock:
    """The smallest push found that takes a state to another attractor.

    Attributes:
        push: (state,), added to the state; with `low` instead of its size it is not enough.
        size: Its Euclidean length in widths of the states' ranges.
        low: A size in the same direction that leads back: the boundary is between both.
        origin: What attracts the state as it is.
        target: What attracts it after the push; None where it grows without bound.
        verdict: How it was found.
        quantities: What stands on the state axis.
    """

    push: np.ndarray
    size: float
    low: float
    origin: Attractor
    target: Attractor | None
    verdict: str
    quantities: tuple[Quantity, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return {
            "push": dict(zip(flat_names(self.quantities), self.push.tolist(), strict=True)),
            "size": self.size,
            "low": self.low,
            "origin": kind_of(self.origin),
            "target": "without bound" if self.target is None else kind_of(self.target),
            "verdict": self.verdict,
        }


def minimal_fatal_shock(
    system: System,
    state: Equilibrium | Values,
    u: Any = None,
    *,
    largest: float = 1.0,
    states: list[str] | None = None,
    rtol: float = 1e-7,
    generator: torch.Generator | None = None,
) -> Shock:
    """The smallest sudden change of state after which the system does not come back.

    Directions are tried all round, the distance to the boundary along each is bisected by following
    trajectories, and directions near the best are tried again, closer and closer. A boundary that
    comes near only in a direction narrower than these are apart can be missed.

    Args:
        system: A flow whose state does not jump.
        state: A stable equilibrium, or a state (state,).
        u: The constant input; that of the equilibrium by default.
        largest: Size up to which pushes are tried, in widths of the states' ranges.
        states: Names of the states that can be pushed; all by default.
        rtol: Of the integration.
        generator: Of the directions; one of a fixed seed by default.

    Raises:
        ArgumentError: As `basins`; a name that no state has.
        SolverError: The state itself reaches no attractor, or no push up to `largest` leads away.
    """
    if isinstance(state, Equilibrium):
        u, x = (state.u if u is None else u), state.state.detach().numpy()
    else:
        u, x = (0.0 if u is None else u), np.asarray(state, dtype=np.float64)
    dynamics = smooth_field(system, u)
    known = [one for one in find_equilibria(system, u) if one.is_stable]
    settling = settle_with(dynamics, known, rtol=rtol, horizon=None)
    home = int(settling.label(x[None])[0])
    if home < 0:
        raise SolverError("the state as it is reaches no attractor", fix="give one that does")
    free = _pushable(system, states)
    size, low, direction = _closest(settling, x, home, free, largest, generator)
    push = size * direction * settling.scale
    label = int(settling.label((x + push)[None])[0])
    return Shock(
        push=push,
        size=size,
        low=low,
        origin=settling.attractors[home],
        target=settling.attractors[label] if label >= 0 else None,
        verdict=f"smallest of {N_ROUNDS} rounds of {N_DIRECTIONS} directions",
        quantities=system.states,
    )


def _closest(
    settling: Settling,
    x: np.ndarray,
    home: int,
    free: np.ndarray,
    largest: float,
    generator: torch.Generator | None,
) -> tuple[float, float, np.ndarray]:
    own = torch.Generator().manual_seed(0) if generator is None else generator
    best, width, found = np.zeros((1, len(x))), 1.0, (math.inf, 0.0)
    for k in range(N_ROUNDS):
        draw = torch.randn(N_DIRECTIONS, len(x), generator=own, dtype=torch.float64).numpy() * free
        draw = draw / np.linalg.norm(draw, axis=-1, keepdims=True)
        directions = draw if k == 0 else best + width * draw
        directions = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
        bracket = (0.0, largest) if k == 0 else (0.6 * found[0], found[0])
        high, low = _section(settling, x, home, directions, bracket, n_calls=2 if k else 3)
        if k == 0 and np.isinf(high).all():
            raise SolverError(
                f"no push up to {largest:g} widths of the states' ranges leads elsewhere",
                fix="raise largest, or there is only one attractor",
            )
        i = int(high.argmin())
        if high[i] < found[0]:
            found, best = (float(high[i]), float(low[i])), directions[i : i + 1]
        width = NARROWER * width
    high, low = _section(settling, x, home, best, (found[1], found[0]), n_calls=6)
    if np.isfinite(high[0]):
        found = (float(high[0]), float(low[0]))
    return (*found, best[0])


def _section(
    settling: Settling,
    x: np.ndarray,
    home: int,
    directions: np.ndarray,
    bracket: tuple[float, float],
    *,
    n_calls: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Along each direction the smallest size seen that leads away, and the one tried below it.

    Sizes fill the bracket evenly, then the gap below the smallest that leads away, of those
    directions alone that can still hold the smallest of all.
    """
    low = np.full(len(directions), bracket[0])
    high = np.full(len(directions), np.inf)
    top, index = np.full(len(directions), bracket[1]), np.arange(len(directions))
    weights = (np.arange(N_SIZES) + 1) / N_SIZES
    for k in range(n_calls):
        sizes = low[index] + weights[:, None] * (top - low)[index]
        tried = x + sizes[..., None] * directions[index] * settling.scale
        found = settling.label(tried.reshape(-1, len(x)), learn=k == 0).reshape(sizes.shape)
        away = (found != home) & (found != UNDECIDED)
        first, any_away = away.argmax(axis=0), away.any(axis=0)
        smallest = sizes[first, np.arange(len(index))]
        gap = (top - low)[index] / N_SIZES
        high[index[any_away]] = top[index[any_away]] = smallest[any_away]
        low[index[any_away]] = (smallest - gap)[any_away]
        index = index[any_away]
        index = index[low[index] <= high.min()]
        if not len(index):
            break
    return high, low


def _branch(
    dynamics: Field,
    x: np.ndarray,
    direction: np.ndarray,
    scale: np.ndarray,
    kept: SearchBox,
    spacing: float,
    length: float,
) -> tuple[np.ndarray, str]:
    """One branch, backward in time, as a function of arc length in widths."""

    def backward(_: float, y: np.ndarray) -> np.ndarray:
        rate = dynamics.value(y * scale) / scale
        return -rate / max(float(np.linalg.norm(rate)), 1e-300)

    def leaves(_: float, y: np.ndarray) -> float:
        room = np.minimum(y * scale - kept.low_kept, kept.high_kept - y * scale) / scale
        return float(room.min())

    def rests(_: float, y: np.ndarray) -> float:
        # Short of a point that repels, where a direction is none any more.
        value, jacobian = dynamics.jacobian((y * scale)[None])
        size = np.abs(jacobian[0] * scale / scale[:, None]).sum()
        return float(np.linalg.norm(value[0] / scale)) - 1e-8 * float(size)

    for event in (leaves, rests):
        event.terminal = True  # pyright: ignore[reportFunctionMemberAccess]
    solved = solve_ivp(
        backward,
        (FIRST, length),
        x / scale + FIRST * direction,
        method="DOP853",
        t_eval=np.arange(spacing, length, spacing),
        events=(leaves, rests),
        rtol=1e-9,
        atol=1e-11,
        max_step=5 * spacing,
    )
    if solved.status < 0:
        raise SolverError(
            f"the separatrix could not be followed beyond {solved.t[-1]:.3g} widths",
            where=type(dynamics.system).__name__,
        )
    end = "left the box" if len(solved.t_events[0]) else "length"
    end = "source" if len(solved.t_events[1]) else end
    return solved.y.T * scale, end


def _normals(y: np.ndarray, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Unit vectors across a curve in the plane, to the side that `across` points to."""
    tangent = np.gradient(y, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=-1)
    normal = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    own = np.array([-along[1], along[0]])
    return normal * np.sign(own @ across)


def _pushable(system: System, names: list[str] | None) -> np.ndarray:
    free = np.ones(system.n_states)
    if names is not None:
        free[:] = 0.0
        free[[i for name in names for i in state_members(system, name)]] = 1.0
    return free


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
