"""Feedback along a path: iLQG, for nonlinear systems with noise that grows with the command.

Around the path of the current inputs the system is linear, the cost quadratic and the noise linear
in state and input; the best corrections follow backward (Todorov & Li 2005, Proc. American Control
Conf. 300-306; with limits on the input Tassa, Mansard & Todorov 2014, ICRA 1168-1175). The path
found is a local optimum, near which the gains are those of a linear-quadratic regulator.

Many problems that differ in their initial state are solved at once.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clinode.errors import ArgumentError, SolverError
from clinode.system import Values

from .belief import BeliefPolicy
from .controllers import ScheduledGain
from .differential import plan_along
from .problem import ControlProblem
from .sampling import in_steps
from .separation import Separation
from .stages import Stages, stages


@dataclass(frozen=True, eq=False)
class IterativeSolution:
    """Feedback along a path, from `ilqg`.

    Attributes:
        problem: What was solved, in steps.
        states: The path, (step + 1, *batch, state).
        inputs: (step, *batch, input).
        gain: K, (step, *batch, input, state): u = input - K (x - state), within the limits.
        filter_gain: None: the state is seen.
        cost: Expected, to second order about the path, (*batch); exact where the problem is linear
            and quadratic.
        cost_split: "path", the cost without noise, and "noise", (*batch).
        separates: Why there was nothing to separate.
        policy: The feedback as a system.
        converged: (*batch). A local optimum, where true.
        n_iterations: Corrections made, (*batch).
    """

    problem: ControlProblem
    states: Tensor
    inputs: Tensor
    gain: Tensor
    filter_gain: None
    cost: Tensor
    cost_split: dict[str, Tensor]
    separates: Separation
    policy: ScheduledGain
    converged: Tensor
    n_iterations: Tensor

    def on_estimates(self) -> BeliefPolicy:
        """The same feedback, of the mean of an extended Kalman filter that reads the sensors.

        Certainty equivalent: the path was found as if the state were seen. One problem only.

        Raises:
            ArgumentError: The solution is of a batch of problems.
        """
        if self.states.ndim > 2:
            raise ArgumentError("a filter follows one path, this solution has batch axes")
        n, policy = self.states.shape[-1], self.policy
        none = torch.zeros(0, dtype=torch.float64)
        return BeliefPolicy(self.problem, lambda k, belief: policy.output(k, none, belief[..., :n]))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {
            "states": self.states.tolist(),
            "inputs": self.inputs.tolist(),
            "gain": self.gain.tolist(),
            "cost": self.cost.tolist(),
            "cost_split": {name: part.tolist() for name, part in self.cost_split.items()},
            "separates": self.separates.to_dict(),
            "converged": self.converged.tolist(),
            "n_iterations": self.n_iterations.tolist(),
        }


def ilqg(
    problem: ControlProblem,
    *,
    step: float | None = None,
    inputs: Values | None = None,
    max_iterations: int = 200,
    tolerance: float = 1e-9,
    keep_unfinished: bool = False,
) -> IterativeSolution:
    """A path to the horizon that is locally optimal under noise, and the feedback along it.

    The state is taken as seen; `on_estimates` acts on what a filter makes of noisy readings. Where
    inputs decide how well it is seen, see `dual_control`.

    Args:
        problem: With a horizon; its `initial_state` may have batch axes, one problem each.
        step: Of a flow: length of the steps in which it is controlled.
        inputs: First guess, (step, input) or (step, *batch, input); the input that costs nothing by
            default.
        max_iterations: Corrections after which a problem is given up.
        tolerance: Promised improvement, relative to the cost, below which it counts as solved.
        keep_unfinished: Return what did not converge instead of raising.

    Raises:
        ArgumentError: No horizon, a flow without a step, inputs of another shape.
        SolverError: A problem did not converge, or its path is not finite.
    """
    problem = in_steps(problem, step)
    parts = stages(problem)
    x0 = problem.start
    batch, n, m = x0.shape[:-1], x0.shape[-1], problem.system.n_inputs
    guess = _guess(inputs, parts, batch, m)
    plan = plan_along(
        parts, x0.reshape(-1, n), guess, max_iterations=max_iterations, tolerance=tolerance
    )
    if not keep_unfinished and not bool(plan.converged.all()):
        worst = int((~plan.converged).nonzero()[0])
        raise SolverError(
            f"{int((~plan.converged).sum())} of {len(plan.cost)} paths did not settle within "
            f"{max_iterations} corrections",
            where=f"path {worst}",
            fix="a first guess of inputs nearer to the goal, a gentler final_cost, more "
            "max_iterations, or keep_unfinished=True",
        )

    def shaped(values: Tensor, lead: int) -> Tensor:
        return values.reshape((*values.shape[:lead], *batch, *values.shape[lead + 1 :]))

    states, commands, gains = (shaped(v, 1) for v in (plan.states, plan.inputs, -plan.gains))
    cost, noise = shaped(plan.cost, 0), shaped(plan.noise_cost, 0)
    system = problem.system
    policy = ScheduledGain(
        system.states, system.inputs, gains, states, commands,
        limits=problem.bounds, step=system.step, time_unit=system.time_unit,
    )  # fmt: skip
    return IterativeSolution(
        problem=problem,
        states=states,
        inputs=commands,
        gain=gains,
        filter_gain=None,
        cost=cost,
        cost_split={"path": cost - noise, "noise": noise},
        separates=Separation(True, "the state is taken as seen: nothing is estimated", 0.0),
        policy=policy,
        converged=shaped(plan.converged, 0),
        n_iterations=shaped(plan.n_iterations, 0),
    )


def _guess(inputs: Values | None, parts: Stages, batch: torch.Size, m: int) -> Tensor:
    count = int(torch.Size(batch).numel())
    if inputs is None:
        return parts.rest.expand(parts.n_steps, count, m)
    u = torch.as_tensor(inputs, dtype=torch.float64)
    if u.shape == (parts.n_steps, m):
        return u[:, None].expand(-1, count, -1)
    if u.shape != (parts.n_steps, *batch, m):
        raise ArgumentError(
            f"inputs of shape {tuple(u.shape)}, expected {(parts.n_steps, *batch, m)}"
        )
    return u.reshape(parts.n_steps, count, m)
