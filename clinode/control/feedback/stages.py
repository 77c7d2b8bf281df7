"""A control problem in steps: what moves, what is noisy and what it costs, by (k, x, u).

Flows are sampled: the input is held over a step, the state moves by the exponential (linear
systems) or by a Runge-Kutta step of order 4, noise enters as it stands at the start of the step
(Euler-Maruyama), and the cost of a step is its length times the cost at its start.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, vmap

from clinode.errors import ArgumentError
from clinode.system import LinearSystem, System, Time

from .deviations import resting_point
from .problem import ControlProblem, OutputCost, Quadratic, StateCost

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


class Sampled(System):
    """A flow looked at every `step`, its input held in between: a map.

    Runge & Kutta's scheme of order 4 (Kutta 1901) over `substeps` equal parts of the step.

    Args:
        flow: In continuous time, without delays and events.
        step: In time units.
        substeps: Parts of a step.
    """

    def __init__(self, flow: System, step: float | int, substeps: int = 1):
        super().__init__()
        self.flow, self.substeps = flow, substeps
        self.interval = float(step)
        self.step, self.time_unit = self.interval, flow.time_unit
        self.states, self.inputs, self.outputs = flow.states, flow.inputs, flow.outputs
        self.latent = flow.latent

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Refused.

        Raises:
            ArgumentError: Always: it is a map.
        """
        raise ArgumentError(
            f"a flow sampled every {self.interval} {self.time_unit} has no vector field",
            fix="use next_state, or the flow itself",
        )

    def next_state(
        self, k: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """The state one step later."""
        h, t = self.interval / self.substeps, k * self.interval
        for i in range(self.substeps):
            x = _runge_kutta(self.flow, t + i * h, h, x, u)
        return x

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The flow's output at step t."""
        return self.flow.output(t * self.interval, x, u)


def sample(system: System, step: float | int, substeps: int = 1) -> System:
    """A flow as a map: its state every `step` time units, under an input held in between.

    Args:
        system: A flow. A `LinearSystem` becomes one, exactly.
        step: In time units.
        substeps: Runge-Kutta steps within a step, for flows that are not linear.

    Raises:
        ArgumentError: It is a map already, has delays or events, or the step is not positive.

    Example:
        >>> sample(LinearSystem([[-1.0]], [[1.0]]), 1.0).A
        tensor([[0.3679]], dtype=torch.float64)
    """
    if system.step is not None or system.delays or system.events:
        raise ArgumentError(
            f"only a flow without delays and events is sampled, not {type(system).__name__}"
        )
    if not (math.isfinite(step) and step > 0) or substeps < 1:
        raise ArgumentError(f"step and substeps must be positive, got {step} and {substeps}")
    if not isinstance(system, LinearSystem):
        return Sampled(system, step, substeps)
    n, m = system.n_states, system.n_inputs
    block = torch.cat([torch.cat([system.A, system.B], -1), system.A.new_zeros(m, n + m)])
    moved = torch.linalg.matrix_exp(block * step)
    return LinearSystem(
        moved[:n, :n], moved[:n, n:], system.C, system.D,
        offset=(system.x0, system.u0, system.y0), step=step, latent=system.latent,
        states=system.states, inputs=system.inputs, outputs=system.outputs,
        time_unit=system.time_unit,
    )  # fmt: skip


def sampled_problem(problem: ControlProblem, step: float | int) -> ControlProblem:
    """The problem of a flow as one of a map, under an input held over each step.

    Covariances of linear systems are exact (Van Loan 1978, IEEE Trans. Autom. Control 23:395-404).

    Raises:
        ArgumentError: As in `sample`, or the horizon is no whole number of steps.
    """
    system, W = problem.system, problem.W
    made = sample(system, step)
    root = math.sqrt(step)
    process = problem.process_noise
    if W is None:
        own = _own_factor(problem)
        process = lambda k, x, u: root * own(k * step, x, u)  # noqa: E731
    elif process is not None:
        is_linear = isinstance(system, LinearSystem)
        process = _sampled_covariance(system.A, W, step) if is_linear else W * step
    sensing = problem.sensor_noise
    if callable(sensing):
        function = sensing
        noise = lambda k, x: function(k * step, x) / step  # noqa: E731
    else:
        noise = None if sensing is None or problem.V is None else problem.V / step
    return replace(
        problem,
        system=made,
        state_cost=_scaled(problem.stage, step),
        final_cost=None if problem.final_cost is None else _scaled(problem.final, 1.0),
        input_cost=problem.R * step,
        sensors=problem.sensors,
        process_noise=process,
        sensor_noise=noise,
        control_dependent_noise=list(root * problem.control_factors),
        state_dependent_sensing=list(problem.sensing_factors / root),
    )


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


def in_steps(problem: ControlProblem, step: float | int | None) -> ControlProblem:
    """The problem itself if it is one of a map, else sampled.

    Raises:
        ArgumentError: A flow without a step, or a map with another one.
    """
    if problem.is_map:
        if step is not None and step != problem.system.step:
            raise ArgumentError(
                f"the system moves in steps of {problem.system.step}, not of {step}",
                fix="leave step out",
            )
        return problem
    if step is None:
        raise ArgumentError(
            f"{type(problem.system).__name__} is in continuous time and is designed for in steps",
            fix=f"step=..., in {problem.system.time_unit}",
        )
    return sampled_problem(problem, step)


def square_root(M: Tensor) -> Tensor:
    """F with F F' = M, M positive semidefinite; its columns of zeros left out."""
    values, vectors = torch.linalg.eigh(M)
    kept = values > 1e-15 * values[-1].clamp(min=1e-300)
    return vectors[:, kept] * values[kept].sqrt()


def _noise_factor(problem: ControlProblem) -> Step | None:
    """What stands before the noise of a step, (..., state, source)."""
    C, W = problem.control_factors, problem.W
    own = _own_factor(problem)
    if not len(C):
        return None if W is not None and not bool((W != 0).any()) else own
    _, rest, _ = resting_point(problem)

    def with_command(t: Time, x: Tensor, u: Tensor) -> Tensor:
        return torch.cat([own(t, x, u), torch.einsum("kai,...i->...ak", C, u - rest)], dim=-1)

    return with_command


def _own_factor(problem: ControlProblem) -> Step:
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


def _scaled(cost: Quadratic, factor: float | int) -> StateCost | OutputCost:
    kind = OutputCost if cost.of_outputs else StateCost
    return kind(cost.weight * factor, cost.target)


def _sampled_covariance(A: Tensor, W: Tensor, step: float | int) -> Tensor:
    n = len(A)
    block = torch.cat([torch.cat([-A, W], 1), torch.cat([torch.zeros_like(A), A.T], 1)])
    moved = torch.linalg.matrix_exp(block * step)
    covariance = moved[n:, n:].T @ moved[:n, n:]
    return (covariance + covariance.T) / 2


def _runge_kutta(system: System, t: Time, h: float, x: Tensor, u: Tensor) -> Tensor:
    k1 = system.vector_field(t, x, u)
    k2 = system.vector_field(t + h / 2, x + h / 2 * k1, u)
    k3 = system.vector_field(t + h / 2, x + h / 2 * k2, u)
    k4 = system.vector_field(t + h, x + h * k3, u)
    return x + h / 6 * (k1 + 2 * (k2 + k3) + k4)
