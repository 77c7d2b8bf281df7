"""The design of a stimulus in the nonlinear model: Gauss-Newton within the limits.

Around a stimulus the end of the trajectory is linear in its coordinates, with the exact gradients
of the discrete trajectory; the nearest stimulus within the limits is a bounded least squares
problem (`DesignSpace.nearest`). How far to trust that, the damping of Levenberg and Marquardt, is
tried on a batch of trajectories.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.control.stimulation.design import RIDGE, DesignSpace
from clinode.control.stimulation.goal import Goal
from clinode.control.stimulation.rollout import Stages, rollout
from clinode.dynamics.fixed_step import step_grid
from clinode.errors import ArgumentError
from clinode.system import System

ITERATIONS = 40
EXACT = 20_000  # targets x states up to which a step takes new gradients; beyond, it updates them
MISLED = 0.1  # share of the distance by which the linear theory may be wrong of its own design
START = 0.1  # price of energy, relative to the squared effect, from which it falls
DAMPINGS = (0.1, 0.3, 1.0, 10.0)  # times the last damping, tried at once
FIRST, LEAST, MOST = 1e-2, 1e-12, 1e4  # dampings, relative to the squared effect
SPARING = 1e-8  # first damping of the steps that save energy
ENOUGH, IDLE = 0.01, 4  # share of the energy that one of so many steps must save at the target
MOST_STEPS = 20_000
SETTLED = 1e-6  # relative gain below which nothing more is to be had
Coordinates = Float[np.ndarray, "input coefficient"]


@dataclass(frozen=True, eq=False)
class Refined:
    """Where the search ended: coordinates, what is missing there, and in how many steps."""

    c: Coordinates
    miss: Float[np.ndarray, " target"]
    n_iterations: int


class Approach:
    """The end of the nonlinear trajectory as a function of the coordinates of a stimulus.

    Args:
        system: A flow without delays or events.
        x0: Its state at the start, (state,).
        u: Its resting input, (input,).
        inputs: Positions of the inputs that stimulate.
        space: What they can do.
        goal: What is wanted at the horizon.
        horizon: When.
        step: Largest step of the search.

    Raises:
        ArgumentError: So small a step that the search would not end.
    """

    def __init__(
        self,
        system: System,
        x0: Tensor,
        u: Tensor,
        inputs: list[int],
        space: DesignSpace,
        goal: Goal,
        horizon: float,
        step: float,
    ):
        self.system, self.space, self.goal = system, space, goal
        self.x0, self.u = x0, u
        knots = torch.tensor(space.basis.knots)
        if horizon / step > MOST_STEPS:
            raise ArgumentError(
                f"steps of {step:.3g} are {horizon / step:.3g} up to the horizon, more than "
                f"{MOST_STEPS}: the system is too fast for the horizon",
                fix="step=... a larger one, a shorter horizon, or refine=False",
            )
        ends = torch.tensor([0.0, horizon], dtype=torch.float64)
        self.nodes = step_grid(ends, knots, step).nodes
        self.stages = Stages(knots, space.basis.hold, self.nodes)
        self.place = torch.zeros(len(inputs), system.n_inputs, dtype=torch.float64)
        self.place[range(len(inputs)), inputs] = 1.0
        self.shapes = torch.tensor(space.shapes)

    def miss(
        self, c: Float[np.ndarray, "batch input coefficient"]
    ) -> Float[np.ndarray, "batch target"]:
        """What is missing at the horizon under each of several stimuli."""
        with torch.no_grad():
            values = torch.einsum("jk,bik->jbi", self.shapes, torch.tensor(c))
            return self._missing(values).numpy()

    def gradients(
        self, c: Coordinates
    ) -> tuple[
        Float[np.ndarray, " target"],
        Float[np.ndarray, "target input coefficient"],
    ]:
        """What is missing, and how each target moves with each coordinate."""
        values = self.shapes @ torch.tensor(c).T
        n = len(self.goal.names)
        live = values.unsqueeze(1).repeat(1, n, 1).requires_grad_()
        missing = self._missing(live)
        (slope,) = torch.autograd.grad(missing.diagonal().sum(), live)
        return missing[0].detach().numpy(), self.space.effect(slope.transpose(0, 1).numpy())

    def refine(
        self, c: Coordinates, S: np.ndarray, tolerance: float, slack: float, *, again: bool = False
    ) -> Refined:
        """From the linear design to a stimulus that no small change within the limits improves.

        Args:
            c: Coordinates of the linear design, or of an earlier search.
            S: Its gradients by the linear theory, for targets too many to take new ones.
            tolerance: What may be missing, in scales, at a target that counts as reached.
            slack: What may be missing on the way while energy is saved there.
            again: Whether c is of an earlier search, to be carried on.
        """
        here, misled = self._started(c, S)
        if again:
            here, misled = _Place(c, self.miss(c[None])[0], S), False
        here = self._arrived(here, tolerance, START if misled else RIDGE)
        if np.linalg.norm(here.miss) <= tolerance:
            here = self._arrived(self._spared(here, slack), tolerance)
        return Refined(here.c, here.miss, here.n_iterations)

    def _started(self, c: Coordinates, S: np.ndarray) -> "tuple[_Place, bool]":
        """The linear design, or rest where that design misleads."""
        tried = np.stack([0.0 * c, c])
        misses = self.miss(tried)
        wrong = np.linalg.norm(misses[1] - misses[0] - np.tensordot(S, c, 2))
        if wrong <= MISLED * np.linalg.norm(misses[0]):
            return _Place(c, misses[1], _updated(S, c, misses[1] - misses[0])), False
        return _Place(tried[0], misses[0], S), True

    def _arrived(self, here: "_Place", tolerance: float, ridge: float = RIDGE) -> "_Place":
        """As near to the target as steps lead that each get nearer.

        Energy is dear at first and cheaper with every step: what leads far for little comes first.
        """
        damping = FIRST
        for _ in range(ITERATIONS):
            if np.linalg.norm(here.miss) <= tolerance:
                break
            tried, price = self._tried(here, damping, ridge)
            merits = (tried.misses**2).sum(axis=1) + price * tried.energies
            best = _least(merits)
            gain = 1 - merits[best] / (here.miss @ here.miss + price * (here.c**2).sum())
            damping = min(max(damping * (DAMPINGS[best] if gain > 0 else 1e3), LEAST), MOST)
            here = here.after(tried, best, moves=bool(gain > 0))
            if gain < SETTLED and damping >= MOST:
                break
            if gain > 0:
                ridge = max(ridge * 0.1, RIDGE)
        return here

    def _spared(self, here: "_Place", slack: float) -> "_Place":
        """At the target with less energy, as long as a step saves some."""
        damping, idle = SPARING, 0
        for _ in range(ITERATIONS):
            tried, _ = self._tried(here, damping)
            is_there = np.linalg.norm(tried.misses, axis=1) <= slack
            best = _least(np.where(is_there, tried.energies, math.inf))
            saves = is_there[best] and 1 - tried.energies[best] / (here.c**2).sum()
            damping = min(max(damping * (DAMPINGS[best] if is_there[best] else 10), LEAST), MOST)
            here = here.after(tried, best, moves=bool(saves > 0))
            idle = 0 if saves >= ENOUGH else idle + 1
            if damping >= MOST or idle >= IDLE:
                break
        return here

    def _tried(
        self, here: "_Place", damping: float, ridge: float = RIDGE
    ) -> "tuple[_Tried, float]":
        """Steps from here under several dampings, and the price of energy."""
        miss, S = here.miss, here.S
        if self._is_exact:
            miss, S = self.gradients(here.c)
        wanted = np.tensordot(S, here.c, 2) - miss
        aims = [
            self.space.nearest(S, wanted, damping * factor, here.c, ridge) for factor in DAMPINGS
        ]
        tried = np.stack([aim for aim, _ in aims])
        return _Tried(tried, self.miss(tried)), aims[0][1]

    @property
    def _is_exact(self) -> bool:
        return len(self.goal.names) * self.system.n_states <= EXACT

    def _missing(self, values: Float[Tensor, "knot batch input"]) -> Float[Tensor, "batch target"]:
        inputs = self.u + self.stages(values) @ self.place
        x0 = self.x0.expand(values.shape[1], -1).contiguous()
        end = rollout(self.system, x0, self.nodes, inputs)[-1]
        return self.goal.miss(self.goal.read(self.system, end, self.u))


@dataclass(frozen=True, eq=False)
class _Tried:
    """Stimuli that were tried, and what each misses."""

    c: Float[np.ndarray, "batch input coefficient"]
    misses: Float[np.ndarray, "batch target"]

    @property
    def energies(self) -> Float[np.ndarray, " batch"]:
        return (self.c**2).sum(axis=(1, 2))


@dataclass(frozen=True, eq=False)
class _Place:
    """Where the search is, and the gradients by which it goes on where it takes no new ones."""

    c: Coordinates
    miss: Float[np.ndarray, " target"]
    S: Float[np.ndarray, "target input coefficient"]
    n_iterations: int = 0

    def after(self, tried: _Tried, best: int, moves: bool) -> "_Place":
        """After an iteration, at the best of what was tried if it moves there."""
        S = _updated(self.S, tried.c[best] - self.c, tried.misses[best] - self.miss)
        c, miss = (tried.c[best], tried.misses[best]) if moves else (self.c, self.miss)
        return _Place(c, miss, S, self.n_iterations + 1)


def _updated(S: np.ndarray, move: Coordinates, change: np.ndarray) -> np.ndarray:
    """Broyden's update: the gradients nearest to S that explain what the last move did."""
    size = float((move**2).sum())
    if not size or not np.isfinite(change).all():
        return S
    wrong = change - np.tensordot(S, move, 2)
    return S + wrong[:, None, None] * move / size


def _least(merits: np.ndarray) -> int:
    """The first of the least; what is no number is never it."""
    return int(np.where(np.isfinite(merits), merits, math.inf).argmin())
