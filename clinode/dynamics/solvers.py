"""What is solved and what comes back: initial value problems over a batch of trajectories.

A batch shares nothing but the arithmetic: each trajectory has its own output times, its own steps,
which end at the breakpoints of its input, and its own status. A trajectory that fails stops; the
others do not notice. Nothing here raises on it: `clinode.dynamics.simulate` does.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clinode.errors import ArgumentError
from clinode.system import FunctionSignal, LinearSystem, Signal, System

Field = Callable[..., Tensor]  # (t, x, u), and the past where the system has delays


class Status(IntEnum):
    """How the solution of one trajectory ended."""

    OK = 0
    NOT_FINITE = 1
    STEP_UNDERFLOW = 2
    STEP_BUDGET = 3
    WALL_TIME = 4
    CHATTERING = 5

    @property
    def words(self) -> str:
        """As told to a person."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, eq=False)
class Problem:
    """dx/dt = field(t, x, u(t)), x(times[0]) = x0.

    Attributes:
        field: Maps t (...), x (..., state), u (..., input) to dx/dt (..., state).
        x0: (*batch, state), with every batch axis of the solution.
        times: (time,) or (*batch, time), float64, increasing.
        signal: The input.
    """

    field: Field
    x0: Tensor
    times: Tensor
    signal: Signal | FunctionSignal

    @property
    def system(self) -> System:
        """The field, where it is a system, as it is in every problem that `select` gives."""
        return cast(System, self.field)

    @property
    def batch(self) -> torch.Size:
        """Shape of the batch of trajectories."""
        return self.x0.shape[:-1]


@dataclass(frozen=True, eq=False)
class Happenings:
    """Events of all trajectories, by trajectory and then by time.

    Attributes:
        trajectory: Which one, counted over the batch axes in C order, (event,).
        time: When, (event,); gradients flow through it.
        kind: Which of the system's events, (event,).
    """

    trajectory: Int[Tensor, " event"]
    time: Float[Tensor, " event"]
    kind: Int[Tensor, " event"]


@dataclass(frozen=True, eq=False)
class Solution:
    """States at the output times, and how each trajectory ended.

    Attributes:
        states: (*batch, time, state); NaN after a failure.
        status: A `Status` for each trajectory.
        reached: Last time with a finite state.
        n_evaluations: Evaluations of the field; those inside a Jacobian are not counted.
        width: Of the last attempted step; None where the method does not tell.
        events: What happened on the way; None where the method looks for no events.
    """

    states: Float[Tensor, "*batch time state"]
    status: Int[Tensor, "*batch"]
    reached: Float[Tensor, "*batch"]
    n_evaluations: Int[Tensor, "*batch"]
    width: Float[Tensor, "*batch"] | None = None
    events: Happenings | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a solution may cost.

    Args:
        max_steps: Attempted steps of one trajectory between two of its output times; a method of
            fixed steps can reach it by events within one step only. Adaptive methods give up
            earlier, after `PATIENCE` steps, where going on at this pace would take several times as
            many.
        wall_time_seconds: For the whole batch.
    """

    max_steps: int = 5_000
    wall_time_seconds: float = math.inf

    def __post_init__(self):
        if self.max_steps < 1:
            raise ArgumentError(f"max_steps must be at least 1, got {self.max_steps}")
        if not self.wall_time_seconds > 0:
            raise ArgumentError(f"wall_time_seconds must be positive, got {self.wall_time_seconds}")


def select(
    system: System, problem: Problem, index: tuple[int, ...] | tuple[Tensor, ...] | Tensor
) -> Problem:
    """The trajectories of a problem at an index (or a mask) of its batch, with their constants.

    Constants of the system and of the systems inside it are those of the chosen trajectories; the
    new problem's field is a copy of the system that holds them.
    """
    batch = problem.batch

    def pick(tensor: Tensor, n_core: int) -> Tensor:
        if tensor.ndim <= n_core:
            return tensor
        return tensor.expand(*batch, *tensor.shape[tensor.ndim - n_core :])[index]

    signal = problem.signal
    if isinstance(signal, Signal) and signal.batch_shape:
        impulses = signal.impulses
        if impulses is not None:
            impulses = (pick(impulses[0], 1), pick(impulses[1], 2))
        signal = Signal(pick(signal.knots, 1), pick(signal.values, 2), signal.hold, impulses)
    picked = _picked(system, pick)
    return Problem(picked, pick(problem.x0, 1), pick(problem.times, 1), signal)


def _picked(module: nn.Module, pick: Callable[[Tensor, int], Tensor]) -> nn.Module:
    """A module whose systems hold picked constants; itself where nothing changes."""
    axes = {}
    if isinstance(module, System):
        axes |= {quantity.name: 1 for quantity in module.constants}
    if isinstance(module, LinearSystem):
        axes |= dict.fromkeys("ABCD", 2) | dict.fromkeys(("x0", "u0", "y0"), 1)
    stored = module._parameters | module._buffers
    old = {name: stored[name] for name in axes if stored.get(name) is not None}
    new = {name: pick(tensor, axes[name]) for name, tensor in old.items() if tensor is not None}
    new = {name: tensor for name, tensor in new.items() if tensor is not old[name]}
    children = {name: _picked(m, pick) for name, m in module._modules.items() if m is not None}
    changed = {name: m for name, m in children.items() if m is not module._modules[name]}
    if not new and not changed:
        return module
    copied = copy.copy(module)
    copied._parameters = {n: p for n, p in module._parameters.items() if n not in new}
    copied._buffers = module._buffers | new
    copied._modules = module._modules | changed
    return copied
