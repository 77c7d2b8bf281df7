"""Acting on beliefs by a plan: along the feedback of one plan, or planning anew each time."""

import torch
from torch import Tensor

from clinode.errors import ArgumentError, SolverError

from .differential import Plan, plan_along
from .stages import Stages


class Planner:
    """A plan over beliefs, and how to act by it.

    Args:
        stages: What is planned for.
        n_seen: Entries of the belief that are planned for: the mean alone, or None for all.
        bent: As in `plan_along`.
        max_iterations: Of a plan.
        replans: Whether it plans anew from every belief, or follows the gains of its first plan.
    """

    def __init__(
        self, stages: Stages, n_seen: int | None, bent: bool, max_iterations: int, replans: bool
    ):
        self.stages, self.n_seen, self.bent = stages, n_seen, bent
        self.max_iterations, self.replans = max_iterations, replans
        self.plan: Plan | None = None
        self.latest: tuple[int, Tensor, Tensor] | None = None

    def first(self, belief: Tensor, guesses: Tensor) -> Plan:
        """The best plan from the start, (belief entries), of those from some guesses.

        Args:
            belief: What is known.
            guesses: (guess, step, input).

        Raises:
            SolverError: No plan settled.
        """
        plan = self._planned(0, belief.expand(len(guesses), -1), guesses.transpose(0, 1))
        cost = torch.where(plan.converged, plan.cost, torch.inf)
        if not bool(plan.converged.any()):
            raise SolverError(
                f"no plan settled within {self.max_iterations} corrections",
                fix="a first guess of inputs, a little input_cost, or more max_iterations",
            )
        self.plan = plan.only(int(cost.argmin()))
        return self.plan

    def __call__(self, k: int, belief: Tensor) -> Tensor:
        """The input at step k, (..., input); the last step's after the horizon."""
        k = min(k, self.stages.n_steps - 1)
        if self.plan is None:
            raise ArgumentError("there is no plan to act by", fix="first() makes one")
        if not self.replans:
            away = belief[..., : self.n_seen] - self.plan.states[k, 0]
            return self.stages.clipped(self.plan.inputs[k, 0] + away @ self.plan.gains[k, 0].T)
        if self.latest is not None and self.latest[0] == k and torch.equal(self.latest[1], belief):
            return self.latest[2]
        flat = belief.detach().reshape(-1, belief.shape[-1])
        guess = self.plan.inputs[k:].expand(-1, len(flat), -1)
        u = self._planned(k, flat, guess).inputs[0].reshape(*belief.shape[:-1], -1)
        self.latest = (k, belief.detach().clone(), u)
        return u

    def _planned(self, k: int, belief: Tensor, guess: Tensor) -> Plan:
        return plan_along(
            self.stages.later(k),
            belief[..., : self.n_seen],
            guess,
            max_iterations=self.max_iterations,
            bent=self.bent,
        )
