"""Where trajectories end: many followed at once until each enters what attracts it for good.

A trajectory is labelled as soon as it is inside an ellipsoid about a stable equilibrium in which a
Lyapunov function falls, or has run along a stable cycle for a whole period. What is found on the
way and was not known, an equilibrium that a search missed or a cycle, joins the attractors. What
never settles stays undecided and is said to be so.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from scipy.linalg import cholesky, solve_continuous_lyapunov, solve_triangular
from scipy.spatial import KDTree
from torch import Tensor

from clinode.errors import SolverError

from .cycles import LimitCycle, find_limit_cycle
from .equilibria import Equilibrium, equilibrium_at
from .field import Field, scales
from .newton import Rows, polish
from .runge_kutta import dormand_prince

UNDECIDED, LEFT = -1, -2  # labels of what reached no attractor, or went far away
Attractor = Equilibrium | LimitCycle

FAR = 1e3  # widths of the ranges beyond which a trajectory has left for good
NEAR = 5e-3  # widths: how close to a cycle a trajectory runs along it
N_ORBIT = 2048  # points of a cycle that distances are measured to
STEPS_A_CHECK = 4
STEPS_A_LOOK = 240  # steps after which something unknown may be what attracts the rest
LATER = 3  # times as many steps until the next look, where one found nothing
N_ASKED = 3  # trajectories asked each time
MAX_FAILURES = 2  # searches for a cycle without one, which are long: then there may be chaos


class Neighbourhood:
    """An ellipsoid e'Pe <= r^2 about a stable equilibrium that the flow enters and never leaves.

    P solves A'P + PA = -1. That e'Pe falls is checked at many directions and radii, and the radius
    then reduced: evidence in many states, next to a proof in one or two.

    Args:
        field: Without parameters.
        equilibrium: A stable one.
    """

    def __init__(self, field: Field, equilibrium: Equilibrium):
        self.scale, self.angles = scales(field.system.states), list(field.angles)
        self.center = equilibrium.state.detach().numpy()
        _, jacobian = field.jacobian(self.center[None])
        inner = jacobian[0] * self.scale / self.scale[:, None]
        P = solve_continuous_lyapunov(inner.T, -np.eye(len(inner)))
        self.factor = cholesky((P + P.T) / 2)  # P = factor' factor
        self.radius = self._radius(field)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Which rows of x (row, state) lie inside."""
        away = turned(x - self.center, self.angles) / self.scale
        return ((away @ self.factor.T) ** 2).sum(axis=-1) < self.radius**2

    def _radius(self, field: Field) -> float:
        n = len(self.center)
        draw = np.random.default_rng(0).standard_normal((max(512, 32 * n), n))
        directions = draw / np.linalg.norm(draw, axis=-1, keepdims=True)
        out = solve_triangular(self.factor, directions.T).T  # out'P out = 1
        radii = np.geomspace(1e-4, 4.0, 64) * np.linalg.norm(self.factor, 2)
        away = radii[:, None, None] * out
        rate = field.value(self.center + away * self.scale) / self.scale
        growth = 2 * ((away @ self.factor.T) * (rate @ self.factor.T)).sum(axis=-1)
        falls = (growth < -0.1 * (away**2).sum(axis=-1)).all(axis=-1)
        n_good = len(radii) if falls.all() else int(np.argmin(falls))
        return 0.0 if n_good == 0 else 0.7 * float(radii[n_good - 1])


class Tube:
    """What runs along a stable limit cycle: close to it for a whole period."""

    def __init__(self, field: Field, cycle: LimitCycle):
        self.scale, self.angles = scales(field.system.states), list(field.angles)
        phases = np.arange(N_ORBIT) / N_ORBIT
        self.points = self._features(cycle.at(phases).numpy())
        self.tree, self.period = KDTree(self.points), float(cycle.period)
        spacing = np.linalg.norm(np.diff(self.points, axis=0), axis=-1).max()
        self.width = max(NEAR, float(spacing))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Which rows lie near it now."""
        distance, _ = self.tree.query(self._features(x), distance_upper_bound=self.width)
        return np.isfinite(distance)

    def _features(self, x: np.ndarray) -> np.ndarray:
        """In scales; an angle as its point on the circle."""
        plain = np.delete(x / self.scale, self.angles, axis=-1)
        turns = x[:, self.angles]
        return np.concatenate([plain, np.cos(turns), np.sin(turns)], axis=-1)


@dataclass(eq=False)
class _Walk:
    """Trajectories still on their way, each with its own time, step and rate."""

    rows: np.ndarray  # which of the starts
    x: Tensor
    rate: Tensor
    time: Tensor
    step: Tensor
    along: np.ndarray  # (row, cycle), since when it runs along it; NaN where it does not

    def keep(self, mask: np.ndarray) -> "_Walk":
        kept = torch.as_tensor(mask)
        return _Walk(
            self.rows[mask],
            self.x[kept],
            self.rate[kept],
            self.time[kept],
            self.step[kept],
            self.along[mask],
        )


class Settling:
    """Attractors of a field, and the labels of starts by them.

    Args:
        field: Without parameters and batch axes.
        attractors: Those known, stable.
        rtol: Of a step; the absolute tolerance is a thousandth of it, in widths of the ranges.
        horizon: Time after which a trajectory is given up.
    """

    def __init__(self, field: Field, attractors: list[Attractor], *, rtol: float, horizon: float):
        self.field, self.rtol, self.horizon = field, rtol, horizon
        self.scale = scales(field.system.states)
        self.attractors: list[Attractor] = []
        self.marks: list[Neighbourhood | Tube] = []
        self.n_failures = 0
        for one in attractors:
            self._add(one)

    def label(self, starts: np.ndarray, *, learn: bool = True) -> np.ndarray:
        """For each start (row, state) the index of its attractor, UNDECIDED or LEFT.

        Args:
            starts: States.
            learn: Whether attractors that were not known may be added.
        """
        labels = np.full(len(starts), UNDECIDED)
        walk, n_steps, next_look = self._begin(starts), 0, STEPS_A_LOOK
        while len(walk.rows):
            for _ in range(STEPS_A_CHECK):
                self._step(walk)
            n_steps += STEPS_A_CHECK
            if learn and n_steps >= next_look:
                is_new = self._look_for_more(walk)
                next_look = n_steps + STEPS_A_LOOK if is_new else LATER * n_steps
            found = self._settled(walk)
            labels[walk.rows] = found
            late = (walk.time >= self.horizon).numpy()
            walk = walk.keep((found == UNDECIDED) & ~late)
        return labels

    def _begin(self, starts: np.ndarray) -> _Walk:
        x = torch.tensor(starts)
        with torch.no_grad():
            rate = self.field(x).expand_as(x)
        size = (rate / torch.tensor(self.scale)).abs().amax(dim=-1)
        step = (0.01 / size.clamp(min=1e-12)).clamp(max=self.horizon / 100)
        along = np.full((len(starts), len(self.attractors)), np.nan)
        return _Walk(np.arange(len(starts)), x, rate, torch.zeros_like(step), step, along)

    def _step(self, walk: _Walk) -> None:
        """One attempt for every trajectory, in place."""
        with torch.no_grad():
            made = dormand_prince(
                lambda _, x: self.field(x), walk.time, walk.step, walk.x, walk.rate
            )
        error = cast(Tensor, made.error)
        allowed = self.rtol * torch.maximum(made.x.abs(), walk.x.abs())
        allowed = allowed + 1e-3 * self.rtol * torch.tensor(self.scale)
        ratio = (error / allowed).square().mean(dim=-1).sqrt()
        ratio = torch.where(ratio.isfinite() & made.x.isfinite().all(dim=-1), ratio, 1e6)
        taken = ratio <= 1.0
        walk.x = torch.where(taken.unsqueeze(-1), made.x, walk.x)
        walk.rate = torch.where(taken.unsqueeze(-1), made.stages[-1], walk.rate)
        walk.time = walk.time + torch.where(taken, walk.step, 0.0)
        walk.step = walk.step * (0.9 * ratio.clamp(min=1e-10) ** -0.2).clamp(0.2, 4.0)

    def _settled(self, walk: _Walk) -> np.ndarray:
        found = np.full(len(walk.rows), UNDECIDED)
        x, time = walk.x.numpy(), walk.time.numpy()
        for i, mark in enumerate(self.marks):
            inside = mark(x)
            if isinstance(mark, Tube):
                since = np.where(inside, np.fmin(walk.along[:, i], time), np.nan)
                walk.along[:, i] = since
                inside = time - since > 1.1 * mark.period  # NaN is not
            found[inside] = i
        is_far = np.abs(x / self.scale).max(axis=-1) > FAR
        is_stuck = (walk.step <= 1e-13 * (1.0 + walk.time)).numpy()  # it grows too fast to follow
        found[(is_far | is_stuck) & (found == UNDECIDED)] = LEFT
        return found

    def _look_for_more(self, walk: _Walk) -> bool:
        """Ask some of the trajectories that are late what attracts them; whether it was new."""
        before = len(self.attractors)
        for i in np.linspace(0, len(walk.rows) - 1, min(N_ASKED, len(walk.rows))).astype(int):
            if self.n_failures >= MAX_FAILURES:
                break
            one = self._what_attracts(walk.x[int(i)].numpy())
            self.n_failures += one is None
            if one is None:
                break
            if one.is_stable and not self._is_known(one):
                self._add(one)
                column = np.full((len(walk.rows), 1), np.nan)
                walk.along = np.concatenate([walk.along, column], axis=1)
        return len(self.attractors) > before

    def _what_attracts(self, x: np.ndarray) -> Attractor | None:
        """The equilibrium that a late trajectory is at, or the cycle that it runs to."""
        root, is_root = polish(Rows(self.field, x[None], np.zeros(1, dtype=int), self.scale))
        if is_root[0] and np.abs((root[0] - x) / self.scale).max() < 0.05:
            return equilibrium_at(self.field, root[0])
        try:
            return find_limit_cycle(self.field.system, x, self.field.live_u)
        except SolverError:
            return None

    def _is_known(self, one: Attractor) -> bool:
        if isinstance(one, LimitCycle):
            x = one.states.numpy()
            return any(isinstance(mark, Tube) and bool(mark(x).all()) for mark in self.marks)
        x = one.state.detach().numpy()[None]
        return any(isinstance(mark, Neighbourhood) and bool(mark(x)[0]) for mark in self.marks)

    def _add(self, one: Attractor) -> None:
        kind = Tube if isinstance(one, LimitCycle) else Neighbourhood
        self.marks.append(kind(self.field, one))  # pyright: ignore[reportArgumentType]
        self.attractors.append(one)


def turned(away: np.ndarray, angles: list[int]) -> np.ndarray:
    """Differences of states, those of angles by the shorter way round."""
    if angles:
        away = away.copy()
        away[..., angles] = (away[..., angles] + np.pi) % (2 * np.pi) - np.pi
    return away
