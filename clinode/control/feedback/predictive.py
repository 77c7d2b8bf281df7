"""Control within limits by looking ahead: plan to a horizon, take the first step, plan again.

Of a linear system the plan is a quadratic program within limits, solved to its optimality
conditions; with the endless regulator's cost to go as final cost it is that regulator wherever no
limit is met (Mayne et al. 2000, Automatica 36:789-814). Of other systems the plan is `ilqg`'s, a
local optimum of the noiseless problem. The state is taken as seen.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import System, Time

from .box import box_minimum
from .deviations import Deviations, check_cost_detects, check_stabilizable, deviations
from .differential import plan_along
from .problem import ControlProblem
from .riccati import recursion, stationary
from .sampling import in_steps
from .separation import Separation
from .stages import Stages, stages


@dataclass(frozen=True, eq=False)
class PredictiveSolution:
    """Control by looking ahead, from `model_predictive`.

    Attributes:
        problem: What is looked ahead to, in steps.
        policy: The controller as a system that sees the state.
        gain: K of a linear system, (input, state), where no limit is met; None of others.
        filter_gain: None: the state is taken as seen.
        cost: What the first plan expects, without noise, from the initial state.
        cost_split: "path": all of it.
        separates: Why there was nothing to separate.
        terminal: What stands for the time after the horizon, in words.
        inputs: The first plan, (step, input).
        states: The path that it expects, (step + 1, state).
    """

    problem: ControlProblem
    policy: "PredictivePolicy"
    gain: Tensor | None
    filter_gain: None
    cost: float
    cost_split: dict[str, float]
    separates: Separation
    terminal: str
    inputs: Tensor
    states: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {
            "gain": None if self.gain is None else self.gain.tolist(),
            "cost": self.cost,
            "terminal": self.terminal,
            "inputs": self.inputs.tolist(),
            "states": self.states.tolist(),
        }


def model_predictive(problem: ControlProblem, *, step: float | None = None) -> PredictiveSolution:
    """A controller that plans anew at every step, within the limits of the input.

    Args:
        problem: Its horizon is how far is looked ahead. Without a `final_cost` a linear system has
            the endless regulator's cost to go there, others the state cost.
        step: Of a flow: how often it plans, and how long an input is held.

    Raises:
        ArgumentError: No horizon, a flow without a step, a linear system whose modes cannot be
            steered or cost nothing (where no final_cost is given).
        SolverError: A plan was not found.

    Example:
        >>> from clinode.system import LinearSystem
        >>> cart = LinearSystem([[1.0, 0.1], [0.0, 1.0]], [[0.0], [0.1]], step=0.1)
        >>> ahead = ControlProblem(cart, 1.0, 0.1, horizon=2, limits=(-1.0, 1.0))
        >>> policy = model_predictive(ahead).policy
        >>> policy.output(0, torch.zeros(0), torch.tensor([5.0, 0.0]).double())
        tensor([-1.], dtype=torch.float64)
    """
    problem = in_steps(problem, step)
    if problem.start.ndim > 1:
        raise ArgumentError("initial_state has batch axes, give one of them")
    seen = Separation(True, "the state is taken as seen: nothing is estimated", 0.0)
    K, terminal, parts = None, "the final cost given", stages(problem)
    if problem.is_linear:
        d = deviations(problem)
        if problem.final_cost is None:
            check_stabilizable(d)
            check_cost_detects(d)
            P = stationary(d.A, d.B, d.Q, d.R, True)
            d = replace(d, final=P)
            parts = replace(parts, final=lambda x: ((x - d.state) @ P * (x - d.state)).sum(-1))
            terminal = "the cost to go of the endless regulator"
        _, gains = recursion(d.A, d.B, d.Q, d.R, d.final, problem.n_steps)
        K = gains[0]
        plan = LinearLookahead(d, problem.n_steps, problem.bounds)
    else:
        if problem.final_cost is None:
            terminal = "the state cost, once: a longer horizon counts for more"
        plan = NonlinearLookahead(replace(parts, noise=None))
    policy = PredictivePolicy(problem, plan)
    inputs = plan.inputs(0, problem.start.unsqueeze(0))[0][:, 0]
    states, cost = _path(parts, problem.start, inputs)
    return PredictiveSolution(
        problem, policy, K, None, cost, {"path": cost}, seen, terminal, inputs, states
    )


class LinearLookahead:
    """Plans of a linear system: minimize U'HU / 2 + x'FU within limits.

    Args:
        d: Its matrices.
        n_steps: To the horizon.
        limits: Absolute, or None.
    """

    def __init__(self, d: Deviations, n_steps: int, limits: tuple[Tensor, Tensor] | None):
        n, m = d.B.shape
        self.d, self.n_steps = d, n_steps
        powers = [torch.eye(n, dtype=d.A.dtype)]
        for _ in range(n_steps):
            powers.append(d.A @ powers[-1])
        free = torch.cat(powers[1:])  # states 1 .. n_steps of x
        forced = torch.zeros(n_steps * n, n_steps * m, dtype=d.A.dtype)
        for i in range(n_steps):
            for j in range(i + 1):
                block = powers[i - j] @ d.B
                forced[i * n : (i + 1) * n, j * m : (j + 1) * m] = block
        weights = torch.block_diag(*[d.Q] * (n_steps - 1), d.final)
        self.H = 2 * (forced.T @ weights @ forced + torch.block_diag(*[d.R] * n_steps))
        self.F = 2 * free.T @ weights @ forced
        wide = torch.full((m,), torch.inf, dtype=torch.float64)
        low, high = (-wide, wide) if limits is None else limits
        self.low, self.high = ((side - d.input).repeat(n_steps) for side in (low, high))

    def inputs(self, k: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Absolute inputs (step, state number, input) and the slope of the first in x."""
        m, z = len(self.d.R), x - self.d.state
        H = self.H.expand(len(x), *self.H.shape)
        U, free = box_minimum(H, z @ self.F, self.low, self.high)
        free = free.to(H.dtype)
        held = H * free.unsqueeze(-1) * free.unsqueeze(-2) + torch.diag_embed(1 - free)
        slope = -torch.linalg.solve(held, self.F.T * free.unsqueeze(-1))[:, :m]
        planned = U.reshape(len(x), self.n_steps, m).transpose(0, 1) + self.d.input
        return planned, slope


class NonlinearLookahead:
    """Plans of any system by `ilqg` without noise.

    Args:
        parts: The problem in steps.
    """

    def __init__(self, parts: Stages):
        self.parts = parts

    def inputs(self, k: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (step, state number, input) and the slope of the first in x."""
        start = self.parts.rest.expand(self.parts.n_steps, len(x), -1)
        plan = plan_along(self.parts.shifted(k), x, start)
        return plan.inputs, plan.gains[0]


class PredictivePolicy(System):
    """Plans from the state that it sees, and drives the inputs with the first step of the plan.

    Mayne et al. 2000, Automatica 36:789-814.

    Args:
        problem: What is looked ahead to, of a map.
        plan: How.
    """

    def __init__(self, problem: ControlProblem, plan: LinearLookahead | NonlinearLookahead):
        super().__init__()
        system = problem.system
        self.plan = plan
        self.inputs, self.outputs = system.states, system.inputs
        self.step, self.time_unit = system.step, system.time_unit

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Refused: see `output`."""
        return super().next_state(t, x, u)

    def next_state(
        self, k: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """Nothing moves."""
        return x.expand(*u.shape[:-1], 0)

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The first input of the plan from the states u; its gradient is the plan's own slope."""
        flat = u.detach().double().reshape(-1, u.shape[-1])
        k = int(torch.as_tensor(t).flatten()[0])
        inputs, slope = self.plan.inputs(k, flat)
        first = inputs[0].reshape(*u.shape[:-1], -1).to(u.dtype)
        slope = slope.reshape(*u.shape[:-1], *slope.shape[1:]).to(u.dtype)
        return first + (slope @ (u - u.detach()).unsqueeze(-1)).squeeze(-1)


def _path(parts: Stages, x: Tensor, inputs: Tensor) -> tuple[Tensor, float]:
    states, cost = [x], 0.0
    for k, u in enumerate(inputs):
        cost += float(parts.cost(k, states[-1], u))
        states.append(parts.move(k, states[-1], u))
    return torch.stack(states), cost + float(parts.final(states[-1]))
