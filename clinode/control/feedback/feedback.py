"""Linear systems, quadratic costs, Gaussian noise: regulator, filter, and both together.

What python-control solves is solved by it (`riccati`). Its `dlqe` gives the predictor's gain A L
(its issue 1173); here L is the filter's, which takes a reading into account when it comes:

    z(k | k) = z(k | k - 1) + L (y - H z(k | k - 1)),   u = -K z(k | k)

The cost splits (Astrom 1970, Introduction to Stochastic Control Theory, ch. 8): what the noise
costs who sees the state, and what not seeing it adds,

    cost of a step = tr(P W) + tr(K' (R + B' P B) K S),     S the covariance after the reading

or of a time unit of a flow tr(P W) + tr(K' R K S). With noise that depends on control or state the
two parts are coupled: see `signal_dependent`.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import System

from .belief import separation
from .controllers import (
    ScheduledEstimator,
    ScheduledGain,
    estimating_policy,
    gain_policy,
)
from .cost_split import CostSplit, number, start_cost
from .deviations import (
    Deviations,
    check_cost_detects,
    check_detectable,
    check_noise_excites,
    check_stabilizable,
    deviations,
)
from .flow_horizon import flow_to_horizon
from .problem import ControlProblem
from .riccati import gain_of, recursion, stationary, symmetric
from .sampling import sampled_problem
from .separation import Separation
from .signal_dependent import alternate

SETTLED = 1e-11  # relative change of a cost under twice as many panels
MOST_PANELS = 2**13


@dataclass(frozen=True, eq=False)
class FilterSolution:
    """The best linear estimate, from `lqe`.

    Attributes:
        problem: What was asked.
        gain: L of the filter, (state, sensor); to a horizon (time, state, sensor).
        predictor_gain: A L of a map, which python-control's `dlqe` gives; of a flow the same as L.
        predicted: Covariance before a reading, (..., state, state).
        covariance: After it; of a flow the same.
        times: Of the schedule, (time,); None without a horizon.
    """

    problem: ControlProblem
    gain: Tensor
    predictor_gain: Tensor
    predicted: Tensor
    covariance: Tensor
    times: Tensor | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        names = ("gain", "predictor_gain", "predicted", "covariance")
        return {name: getattr(self, name).tolist() for name in names}


@dataclass(frozen=True, eq=False)
class FeedbackSolution:
    """The best linear controller, from `lqr` or `lqg`.

    Attributes:
        problem: What was asked.
        gain: K, (input, state): u = u* - K z; to a horizon (time, input, state).
        filter_gain: L, (state, sensor) or (time, state, sensor); None where the state is seen. Of
            a learned system both gains are in its arbitrary state coordinates; the policy is not.
        cost: Expected: to the horizon, else of a step or time unit in the long run.
        cost_split: Its parts.
        separates: Whether estimation and control could be solved apart, and why.
        policy: The controller as a system, for `closed_loop`.
        cost_to_go: P, (..., state, state): x'Px is the cost from x, without noise.
        covariance: Of the estimate after the reading, (..., state, state); None where it is seen.
        times: Of the schedule, (time,); None without a horizon.
        orthogonality: With signal-dependent noise, how far estimate and error are from
            uncorrelated, relative: what the alternation assumes, and reaches.
    """

    problem: ControlProblem
    gain: Tensor
    filter_gain: Tensor | None
    cost: float
    cost_split: CostSplit
    separates: Separation
    policy: System
    cost_to_go: Tensor
    covariance: Tensor | None = None
    times: Tensor | None = None
    orthogonality: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {
            "gain": self.gain.tolist(),
            "filter_gain": None if self.filter_gain is None else self.filter_gain.tolist(),
            "cost": self.cost,
            "cost_split": self.cost_split.to_dict(),
            "separates": self.separates.to_dict(),
            "cost_to_go": self.cost_to_go.tolist(),
            "times": None if self.times is None else self.times.tolist(),
        }


def lqr(problem: ControlProblem) -> FeedbackSolution:
    """The best feedback on a state that is seen: u = u* - K (x - x*).

    Gains, and the cost to go, carry gradients to A, B and the weights (of an endless horizon by the
    implicit function theorem).

    Args:
        problem: Of a `LinearSystem`. Sensors and their noise are not used. Control-dependent noise
            makes the gain more cautious: K = (R + B'PB + sum C_i'PC_i)^-1 B'PA.

    Raises:
        ArgumentError: Not linear, limits, a target that cannot be held, a mode that does not decay
            and is not reached or costs nothing, a singular input_cost of a flow.
        SolverError: No stabilizing solution.

    Example:
        >>> from clinode.system import LinearSystem
        >>> drift = LinearSystem([[1.1]], [[1.0]], step=1)
        >>> lqr(ControlProblem(drift, 1.0, 0.5)).gain
        tensor([[0.8179]], dtype=torch.float64)
    """
    d = _unlimited(problem)
    seen = Separation(True, "the state is taken as seen: nothing is estimated", 0.0)
    if problem.horizon is None:
        P, K = _endless(d)
        split = CostSplit(0.0, number((P * d.W).sum()), 0.0)
        policy = gain_policy(problem, d, K)
        return FeedbackSolution(problem, K, None, split.total, split, seen, policy, P)
    if problem.is_map:
        P, K = recursion(d.A, d.B, d.Q, d.R, d.final, problem.n_steps, d.C)
        split = CostSplit(start_cost(d, P[0]), number((P[1:] * d.W).sum()), 0.0)
        policy = ScheduledGain(
            problem.system.states, problem.system.inputs, K, d.state, d.input,
            step=problem.system.step, time_unit=problem.system.time_unit,
        )  # fmt: skip
        return FeedbackSolution(problem, K, None, split.total, split, seen, policy, P)
    path = flow_to_horizon(problem, d, None)
    policy = ScheduledGain(
        problem.system.states, problem.system.inputs, path.K, d.state, d.input,
        times=path.times, rates=path.K_rate, time_unit=problem.system.time_unit,
    )  # fmt: skip
    return FeedbackSolution(
        problem, path.K, None, path.split.total, path.split, seen, policy, path.P, None, path.times
    )


def lqe(problem: ControlProblem) -> FilterSolution:
    """The Kalman filter of a linear problem.

    Args:
        problem: With sensor_noise, and process_noise; its costs are not used.

    Raises:
        ArgumentError: Not linear, exact readings, a mode that does not decay and is not read or not
            moved by noise, signal-dependent noise.
        SolverError: No stabilizing solution.
    """
    d = deviations(problem)
    if len(d.C) or len(d.D):
        raise ArgumentError(
            "with signal-dependent noise the best filter depends on the controller",
            fix="lqg finds both",
        )
    if problem.horizon is None:
        check_detectable(d)
        check_noise_excites(d)
        before = stationary(d.A.T, d.H.T, d.W, d.V, d.is_map)
        return _filter(problem, d, before)
    if problem.is_map:
        covariances = [d.spread]
        for _ in range(problem.n_steps - 1):
            _, after = _corrected(d, covariances[-1])
            covariances.append(symmetric(d.A @ after @ d.A.T + d.W))
        return _filter(problem, d, torch.stack(covariances))
    path = flow_to_horizon(problem, d, d.V)
    return FilterSolution(problem, path.L, path.L, path.S, path.S, path.times)


def lqg(problem: ControlProblem) -> FeedbackSolution:
    """The best controller of a linear system from noisy readings.

    Where estimation and control separate it is the regulator's gain on the filter's estimate. With
    control-dependent noise or state-dependent sensing it is found by alternation, to a horizon.

    Args:
        problem: As in `lqr`, with sensor_noise. Where `problem.sees_state` it is `lqr`.

    Raises:
        ArgumentError: As in `lqr` and `lqe`; signal-dependent noise without a horizon or in a flow.
        SolverError: No stabilizing solution, or the alternation did not settle.
    """
    d = _unlimited(problem)
    if problem.sees_state:
        return lqr(problem)
    if len(d.C) or len(d.D):
        return _signal_dependent(problem, d)
    separates = separation(_in_steps(problem, d))
    if problem.horizon is not None and not problem.is_map:
        path = flow_to_horizon(problem, d, d.V)
        policy = ScheduledEstimator(
            problem, d, path.K, path.L, path.times, (path.K_rate, path.L_rate)
        )
        return FeedbackSolution(
            problem, path.K, path.L, path.split.total, path.split, separates, policy, path.P,
            path.S, path.times,
        )  # fmt: skip
    regulator, estimator = lqr(problem), lqe(problem)
    K, L, P, S = regulator.gain, estimator.gain, regulator.cost_to_go, estimator.covariance
    if problem.horizon is None:
        next_cost = d.R + d.B.T @ P @ d.B if d.is_map else d.R
        policy = estimating_policy(problem, d, K, L)
    else:
        next_cost = d.R + d.B.T @ P[1:] @ d.B
        policy = ScheduledEstimator(problem, d, K, L)
    unseen = number(((K.mT @ next_cost @ K) * S).sum())
    split = CostSplit(regulator.cost_split.start, regulator.cost_split.process, unseen)
    return FeedbackSolution(problem, K, L, split.total, split, separates, policy, P, S)


def _endless(d: Deviations) -> tuple[Tensor, Tensor]:
    check_stabilizable(d)
    check_cost_detects(d)
    P = stationary(d.A, d.B, d.Q, d.R, d.is_map, d.C)
    return P, gain_of(d.A, d.B, d.R, P, d.is_map, d.C)


def _filter(problem: ControlProblem, d: Deviations, before: Tensor) -> FilterSolution:
    if not d.is_map:
        L = torch.linalg.solve(d.V, d.H @ before).mT
        return FilterSolution(problem, L, L, before, before)
    L, after = _corrected(d, before)
    return FilterSolution(problem, L, d.A @ L, before, after)


def _corrected(d: Deviations, before: Tensor) -> tuple[Tensor, Tensor]:
    """Filter gain and covariance after the reading, from the covariance before it."""
    innovation = d.H @ before @ d.H.T + d.V
    try:
        L = torch.linalg.solve(innovation, d.H @ before).mT
    except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
        raise ArgumentError(
            "a reading without noise tells what is known already", fix="give it sensor_noise"
        ) from error
    left = torch.eye(len(d.A), dtype=d.A.dtype) - L @ d.H
    return L, symmetric(left @ before @ left.mT + L @ d.V @ L.mT)


def _signal_dependent(problem: ControlProblem, d: Deviations) -> FeedbackSolution:
    if problem.horizon is None or not problem.is_map:
        raise ArgumentError(
            "noise that depends on control or state couples gain and filter, which are found in "
            "steps to a horizon",
            fix="a map (sampled_problem) and a horizon",
        )
    found = alternate(d, problem.n_steps)
    split = CostSplit(start_cost(d, found.P[0]), found.process, 0.0)
    split = CostSplit(split.start, split.process, found.cost - split.start - split.process)
    policy = ScheduledEstimator(problem, d, found.K, found.L)
    return FeedbackSolution(
        problem, found.K, found.L, found.cost, split, separation(problem), policy, found.P,
        found.covariance, None, found.orthogonality,
    )  # fmt: skip


def _unlimited(problem: ControlProblem) -> Deviations:
    if problem.limits is not None:
        raise ArgumentError(
            "a linear gain does not keep to limits",
            fix="model_predictive does, or leave the limits out",
        )
    d = deviations(problem)
    if d.mean.ndim > 1:
        raise ArgumentError("initial_state has batch axes, one problem has one initial state")
    return d


def _in_steps(problem: ControlProblem, d: Deviations) -> ControlProblem:
    """For the certificate: a flow looked at ten times within its fastest time constant."""
    endless = replace(problem, horizon=None)
    if problem.is_map:
        return endless
    fastest = float(torch.linalg.matrix_norm(d.A.detach(), 2))
    return sampled_problem(endless, 0.1 / max(fastest, 1e-3))
