"""Flows in steps: looked at every so often, under an input held in between.

The state moves by the exponential (linear systems) or by Runge-Kutta steps of order 4, noise enters
as it stands at the start of the step (Euler-Maruyama), and the cost of a step is its length times
the cost at its start.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import LinearSystem, System, Time

from .problem import ControlProblem, OutputCost, Quadratic, StateCost
from .stages import own_factor


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
        own = own_factor(problem)
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
