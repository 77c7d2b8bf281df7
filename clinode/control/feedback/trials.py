"""A controller run against the noise of its problem, many trials at once."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clinode.errors import ArgumentError, SolverError
from clinode.statistics import Estimate
from clinode.system import System

from .belief import BeliefPolicy, filter_of, first_belief
from .problem import ControlProblem
from .stages import square_root, stages

NORMAL_95 = 1.959963984540054


@dataclass(frozen=True, eq=False)
class Trials:
    """What happened.

    Attributes:
        states: (step + 1, trial, state).
        inputs: (step, trial, input).
        costs: Of each trial, (trial): to the horizon; without one the mean of its steps.
        memory: States of the policy before each reading, (step + 1, trial, state).
    """

    states: Tensor
    inputs: Tensor
    costs: Tensor
    memory: Tensor

    @property
    def standard_error(self) -> float:
        """Of the mean cost."""
        return float(self.costs.std()) / math.sqrt(len(self.costs))

    @property
    def cost(self) -> Estimate:
        """Mean cost with its 95 % interval, of a normal distribution."""
        mean, half = float(self.costs.mean()), NORMAL_95 * self.standard_error
        return Estimate(mean, mean - half, mean + half)

    def to_dict(self) -> dict[str, Any]:
        """The mean, for JSON."""
        return {"cost": self.cost.to_dict(), "n_trials": len(self.costs)}


def run_trials(
    problem: ControlProblem,
    policy: System,
    n_trials: int,
    generator: torch.Generator,
    *,
    n_steps: int | None = None,
    skip: int = 0,
) -> Trials:
    """Run a policy on the system, nonlinear and noisy as it is.

    A policy that has states reads the noisy sensors, one without sees the state.

    Args:
        problem: Of a map (see `sampled_problem`); its initial state is drawn anew for each trial.
        policy: A map of the same step.
        n_trials: How many.
        generator: Of all noise.
        n_steps: Without a horizon: how many steps.
        skip: Without a horizon: steps at the start whose cost is not counted.

    Raises:
        ArgumentError: A flow, another step, a missing number of steps.
        SolverError: A trial left the finite numbers.
    """
    if problem.system.step is None or policy.step != problem.system.step:
        raise ArgumentError(
            f"the problem moves in steps of {problem.system.step}, the policy of {policy.step}",
            fix="sampled_problem, and a policy designed for it",
        )
    endless = problem.horizon is None
    if endless and n_steps is None:
        raise ArgumentError("without a horizon trials need a number of steps", fix="n_steps=...")
    parts = stages(problem, n_steps if endless else problem.n_steps)

    def normal(width: int) -> Tensor:
        return torch.randn(n_trials, width, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        root = square_root(problem.spread)
        x = problem.start + normal(root.shape[-1]) @ root.T
        z = policy_start(problem, policy).expand(n_trials, -1)
        states, inputs, memory = [x], [], [z]
        costs = torch.zeros(n_trials, dtype=torch.float64)
        for k in range(parts.n_steps):
            reading = x
            if policy.n_states:
                noise = torch.linalg.cholesky_ex(_padded(parts.sensing(k, x)))[0]
                y = parts.read(k, x)
                reading = y + (noise @ normal(y.shape[-1]).unsqueeze(-1)).squeeze(-1)
            u = policy.output(k, z, reading)
            if policy.n_states:
                z = policy.next_state(k, z, reading)
            if k >= skip:
                costs += parts.cost(k, x, u)
            moved = parts.move(k, x, u)
            if parts.noise is not None:
                G = parts.noise(k, x, u)
                moved = moved + (G @ normal(G.shape[-1]).unsqueeze(-1)).squeeze(-1)
            x = moved
            states.append(x)
            inputs.append(u)
            memory.append(z)
        costs = costs / (parts.n_steps - skip) if endless else costs + parts.final(x)
    if not bool(costs.isfinite().all()):
        raise SolverError(
            f"{int((~costs.isfinite()).sum())} of {n_trials} trials left the finite numbers",
            fix="a policy that is stable further away, or less noise",
        )
    return Trials(torch.stack(states), torch.stack(inputs), costs, torch.stack(memory))


def policy_start(problem: ControlProblem, policy: System) -> Tensor:
    """The state of a policy at time 0: what is known before the first reading."""
    if isinstance(policy, BeliefPolicy):
        return first_belief(problem, filter_of(problem, 1))
    return problem.start if policy.n_states else torch.zeros(0, dtype=torch.float64)


def _padded(V: Tensor) -> Tensor:
    """V whose rows of zeros, exact readings, get a pivot too small to be heard."""
    exact = (V.diagonal(dim1=-2, dim2=-1) == 0).to(V.dtype)
    return V + torch.diag_embed(exact * 1e-300)
