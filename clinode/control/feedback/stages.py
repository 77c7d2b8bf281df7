"""A control problem in steps: what moves, what is noisy and what it costs, by (k, x, u).

Problems of flows come here through `sampling`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from clinode.errors import ArgumentError
from clinode.system import LinearSystem, System, Time

from .deviations import resting_point
from .problem import ControlProblem, Quadratic

Step = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Stages:
    """A problem in steps; all functions take batches (...).

    Attributes:
        n_steps: To the horizon.
        move: (k, x, u) -> next state without noise.
        noise: (k, x, u) -> factor of its noise, (..., state, source), or None.
        cost: (k, x, u) -> (...), of a step.
        final: x -> (...), at the horizon.
        curvature: (x, whether at the horizon) -> M, (..., state, state): the cost of a state with
            covariance S is that of its mean and tr(M S).
        read: (k, x) -> (..., sensor).
        sensing: (k, x) -> covariance of the reading's noise, (..., sensor, sensor).
        limits: Lowest and highest input, or None.
        rest: The input that costs nothing, (input,).
        sensing_bends: Whether `sensing` depends on the state.
    """

    n_steps: int
    move: Step
    noise: Step | None
    cost: Step
    final: Callable[[Tensor], Tensor]
    curvature: Callable[[Tensor, bool], Tensor]
    read: Step
    sensing: Step
    limits: tuple[Tensor, Tensor] | None
    rest: Tensor
    sensing_bends: bool

    def clipped(self, u: Tensor) -> Tensor:
        """The input within the limits."""
        if self.limits is None:
            return u
        return torch.minimum(torch.maximum(u, self.limits[0]), self.limits[1])

    def shifted(self, start: int) -> "Stages":
        """The same, begun at a later step."""

        def later(function: Step) -> Step:
            return lambda k, *rest: function(k + start, *rest)

        return replace(
            self,
            move=later(self.move),
            noise=None if self.noise is None else later(self.noise),
            cost=later(self.cost),
            read=later(self.read),
            sensing=later(self.sensing),
        )

    def later(self, start: int) -> "Stages":
        """What is left of it at a step."""
        return replace(self.shifted(start), n_steps=self.n_steps - start)


def stages(problem: ControlProblem, n_steps: int | None = None) -> Stages:
    """A problem of a map as functions.

    Args:
        problem: Of a map.
        n_steps: Its own horizon by default.
    """
    system = problem.system
    center, rest, _ = resting_point(problem)
    factor, R, V = _noise_factor(problem), problem.R, problem.V
    V = torch.zeros(0) if V is None else V  # a function gives it then
    stage, final = (functools.partial(_cost, problem, c) for c in (problem.stage, problem.final))
    D, given = problem.sensing_factors, problem.sensor_noise

    def cost(k: Time, x: Tensor, u: Tensor) -> Tensor:
        away = u - rest
        return stage(x) + ((away @ R) * away).sum(-1)

    def sensing(k: Time, x: Tensor) -> Tensor:
        seen = torch.einsum("kpi,...i->...kp", D, x - center)
        constant = given(k, x) if callable(given) else V
        return constant + torch.einsum("...kp,...kq->...pq", seen, seen)

    return Stages(
        n_steps=problem.n_steps if n_steps is None else n_steps,
        move=system.next_state,
        noise=factor,
        cost=cost,
        final=final,
        curvature=functools.partial(_curvature, problem),
        read=problem.read,
        sensing=sensing,
        limits=problem.bounds,
        rest=rest,
        sensing_bends=problem.V is None or len(D) > 0,
    )


def square_root(M: Tensor) -> Tensor:
    """F with F F' = M, M positive semidefinite; its columns of zeros left out."""
    values, vectors = torch.linalg.eigh(M)
    kept = values > 1e-15 * values[-1].clamp(min=1e-300)
    return vectors[:, kept] * values[kept].sqrt()


def _noise_factor(problem: ControlProblem) -> Step | None:
    """What stands before the noise of a step, (..., state, source)."""
    C, W = problem.control_factors, problem.W
    own = own_factor(problem)
    if not len(C):
        return None if W is not None and not bool((W != 0).any()) else own
    _, rest, _ = resting_point(problem)

    def with_command(t: Time, x: Tensor, u: Tensor) -> Tensor:
        return torch.cat([own(t, x, u), torch.einsum("kai,...i->...ak", C, u - rest)], dim=-1)

    return with_command


def own_factor(problem: ControlProblem) -> Step:
    """The same without control-dependent noise."""
    if problem.W is None:
        given = problem.process_noise
        return given if callable(given) else functools.partial(_own_noise, problem.system)
    constant = square_root(problem.W.detach())
    return lambda t, x, u: constant.expand(*x.shape[:-1], *constant.shape)


def _own_noise(system: System, t: Time, x: Tensor, u: Tensor) -> Tensor:
    """The system's own noise as a factor, also where it is diagonal."""
    noise = system.noise
    if noise is None:
        raise ArgumentError(f"{type(system).__name__} has no noise")
    factor = noise(t, x, u)
    return torch.diag_embed(factor) if factor.ndim <= x.ndim else factor


def _cost(problem: ControlProblem, cost: Quadratic, x: Tensor) -> Tensor:
    seen = _seen(problem, cost, x)
    away = seen - _target(problem, cost)
    return ((away @ cost.weight) * away).sum(-1)


def _curvature(problem: ControlProblem, x: Tensor, at_end: bool) -> Tensor:
    cost = problem.final if at_end else problem.stage
    if not cost.of_outputs:
        return cost.weight.expand(*x.shape[:-1], *cost.weight.shape)
    flat = x.reshape(-1, x.shape[-1])
    J = vmap(jacrev(functools.partial(_seen, problem, cost)))(flat)
    M = J.mT @ cost.weight @ J
    return M.reshape(*x.shape, x.shape[-1])


def _seen(problem: ControlProblem, cost: Quadratic, x: Tensor) -> Tensor:
    if not cost.of_outputs:
        return x
    return problem.system.output(0.0, x, x.new_zeros(problem.system.n_inputs))


def _target(problem: ControlProblem, cost: Quadratic) -> Tensor:
    if cost.target is not None:
        return cost.target
    system = problem.system
    if isinstance(system, LinearSystem):
        return (system.y0 if cost.of_outputs else system.x0).detach().double()
    return torch.zeros(len(cost.weight), dtype=torch.float64)
