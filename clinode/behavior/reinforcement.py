"""Learning from the difference of predictions: TD(lambda), its traces, its mean field, dopamine.

A value V(s) = w . phi(s) is learned from states and rewards (Sutton 1988):

    delta = R' + gamma(S') V(S') - V(S),    z = gamma(S) lambda(S) z + phi(S),    w += alpha delta z

with discount and lambda that may depend on the state. A terminal state has discount 0 and features
0. The trace decays by the discount of the state that is left, the error bootstraps with that of the
state that is reached: the discount 0 of an end in both would lose all credit for it.

Everything is float64. What the rule does on average is a linear system (`mean_field`), so its fixed
point, rates and stability are asked of the engine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from clinode.errors import ArgumentError, SolverError
from clinode.system import LinearSystem, Quantity, System

TRACES = ("accumulating", "replacing", "dutch", "true online")
_SINGULAR = 1e12  # condition of the equations that LSTD solves


@dataclass(frozen=True, eq=False)
class MarkovReward:
    """A Markov chain with a mean reward for each step.

    Args:
        P: (state, state), probability of each step; rows sum to 1.
        reward: (state,), mean reward of the step out of each state, or (state, state) of each step.

    Raises:
        ArgumentError: Shapes that do not fit, a row that is no distribution, or numbers that are
            not finite.
    """

    P: Float[np.ndarray, "from_state to_state"]
    reward: Float[np.ndarray, "from_state ..."]

    def __post_init__(self):
        P = np.asarray(self.P, dtype=np.float64)
        reward = np.asarray(self.reward, dtype=np.float64)
        if P.ndim != 2 or P.shape[0] != P.shape[1] or not len(P):
            raise ArgumentError(f"P must be square, got {P.shape}")
        if not (np.isfinite(P).all() and (P >= 0).all() and np.allclose(P.sum(axis=1), 1)):
            raise ArgumentError("the rows of P must be probabilities that sum to 1")
        if reward.shape not in ((len(P),), P.shape) or not np.isfinite(reward).all():
            raise ArgumentError(f"reward must be finite, one a state or step, got {reward.shape}")
        object.__setattr__(self, "P", P)
        mean = reward if reward.ndim == 1 else (P * reward).sum(axis=1)
        object.__setattr__(self, "reward", mean)

    @property
    def stationary(self) -> Float[np.ndarray, " state"]:
        """How often each state is visited in the long run.

        Raises:
            ArgumentError: The chain falls apart: where it ends up depends on where it starts.
        """
        n = len(self.P)
        reach = _reach(self.P)
        closed = [i for i in range(n) if all(reach[j, i] for j in range(n) if reach[i, j])]
        if len({tuple(reach[i]) for i in closed}) > 1:
            raise ArgumentError(
                "the chain is not ergodic: it has several parts that are never left again",
                fix="study the parts one by one, or add the steps that join them",
            )
        equations = np.vstack([self.P.T - np.eye(n), np.ones(n)])
        found = np.linalg.lstsq(equations, np.r_[np.zeros(n), 1.0], rcond=None)[0]
        return np.clip(found, 0.0, None) / np.clip(found, 0.0, None).sum()

    def values(self, gamma: float | np.ndarray) -> Float[np.ndarray, " state"]:
        """The true values, (I - P Gamma)^-1 r.

        Args:
            gamma: Discount, of each state or of all.

        Raises:
            ArgumentError: A discount outside of [0, 1], or values that do not exist.
        """
        discount = _share(gamma, len(self.P), "gamma")
        equations = np.eye(len(self.P)) - self.P * discount
        if np.linalg.cond(equations) > _SINGULAR:
            raise ArgumentError("without a discount the values of an endless chain are not finite")
        return np.linalg.solve(equations, self.reward)


@dataclass(frozen=True, eq=False)
class Learned:
    """What an agent went through.

    Args:
        weights: After the last step, (feature,).
        delta: Prediction error of each step: what dopamine neurons are taken to signal.
        weights_over_time: After each step, (step, feature); offline, what is gathered by then.
    """

    weights: Float[np.ndarray, " feature"]
    delta: Float[np.ndarray, " step"]
    weights_over_time: Float[np.ndarray, "step feature"]


class TD:
    """Temporal-difference learning of a linear value.

    Args:
        features: (state, feature); of a terminal state zeros. None stands for a table: a feature a
            state.
        alpha: Step size, positive.
        gamma: Discount, of each state or of all, in [0, 1]; 0 at terminal states.
        lam: How far credit reaches back, of each state or of all, in [0, 1].
        trace: "accumulating", "replacing" (a feature that is there sets its trace to its value),
            "dutch", or "true online" (van Seijen et al. 2016, JMLR 17:145): a dutch trace and a
            correction that together equal the online lambda-return at every step.
        offline: Whether updates are gathered and made at the end of each stretch, all by the
            weights of its beginning. With accumulating traces they then equal those of the forward
            view, `lambda_returns`, of whole episodes.
        n_states: With a table, how many.

    Raises:
        ArgumentError: A value outside of its meaning; "true online" offline, which is a
            contradiction.
    """

    def __init__(
        self,
        features: Float[np.ndarray, "state feature"] | None = None,
        *,
        alpha: float = 0.1,
        gamma: float | np.ndarray = 1.0,
        lam: float | np.ndarray = 0.0,
        trace: str = "accumulating",
        offline: bool = False,
        n_states: int | None = None,
    ):
        if (features is None) == (n_states is None):
            raise ArgumentError("give features, or the number of states of a table")
        self.features = np.eye(n_states or 0) if features is None else np.array(features, float)
        if self.features.ndim != 2 or not np.isfinite(self.features).all():
            raise ArgumentError("features must be finite, (state, feature)")
        if not (math.isfinite(alpha) and alpha > 0):
            raise ArgumentError(f"alpha must be positive, got {alpha}")
        if trace not in TRACES:
            raise ArgumentError(f"unknown trace {trace!r}; there are: {', '.join(TRACES)}")
        if offline and trace == "true online":
            raise ArgumentError(
                "a trace that is true online has no offline updates",
                fix="take accumulating traces, or lambda_returns",
            )
        self.alpha, self.trace, self.offline = float(alpha), trace, offline
        self.gamma = _share(gamma, len(self.features), "gamma")
        self.lam = _share(lam, len(self.features), "lam")

    def values(self, weights: Float[np.ndarray, " feature"]) -> Float[np.ndarray, " state"]:
        """The value of each state."""
        return self.features @ weights

    def learn(
        self,
        states: Int[np.ndarray, " step_and_one"] | Sequence[int],
        rewards: Float[np.ndarray, " step"] | Sequence[float | int],
        weights: Float[np.ndarray, " feature"] | None = None,
    ) -> Learned:
        """One episode, or a stretch of an endless chain, from a trace of zeros on.

        Args:
            states: S_0 ... S_T.
            rewards: R_1 ... R_T, of the step into each state but the first.
            weights: To begin with; zeros by default.

        Raises:
            ArgumentError: An unknown state, rewards that are not one a step.
            SolverError: The weights ran away: the step size is too large for this trace.
        """
        states, rewards = _episode(states, rewards, len(self.features))
        n_features = self.features.shape[1]
        w = np.zeros(n_features) if weights is None else np.array(weights, dtype=np.float64)
        if w.shape != (n_features,):
            raise ArgumentError(f"weights must be one of {n_features} features, got {w.shape}")
        z, before = np.zeros(n_features), 0.0
        delta, course = np.empty(len(rewards)), np.empty((len(rewards), n_features))
        alpha, is_true = self.alpha, self.trace == "true online"
        begun = w
        with np.errstate(over="ignore", invalid="ignore"):  # what runs away is told below
            for t, reward in enumerate(rewards):
                here, there = states[t], states[t + 1]
                x, ahead = self.features[here], self.features[there]
                decay = self.gamma[here] * self.lam[here]
                judge = begun if self.offline else w  # by the weights before this step
                value, reached = judge @ x, judge @ ahead
                error = reward + self.gamma[there] * reached - value
                delta[t] = error
                if self.trace == "accumulating":
                    z = decay * z + x
                elif self.trace == "replacing":
                    z = np.where(x != 0, x, decay * z)
                else:
                    z = decay * z + (1 - alpha * decay * (z @ x)) * x
                if is_true:
                    if t == 0:
                        before = value
                    w = w + alpha * (error + value - before) * z - alpha * (value - before) * x
                    before = reached
                else:
                    w = w + alpha * error * z
                course[t] = w
        if not np.isfinite(w).all():
            raise SolverError(
                f"the weights ran away with alpha {alpha:g}", fix="take a smaller step size"
            )
        return Learned(w, delta, course)


def lambda_returns(
    states: Int[np.ndarray, " step_and_one"] | Sequence[int],
    rewards: Float[np.ndarray, " step"] | Sequence[float | int],
    values: Float[np.ndarray, " state"],
    *,
    gamma: float | np.ndarray,
    lam: float | np.ndarray,
) -> Float[np.ndarray, " step"]:
    """The forward view: what each state's value is pulled to, from the whole episode.

    G = R' + gamma' ((1 - lambda') V(S') + lambda' G').

    Args:
        states, rewards: As of `TD.learn`.
        values: Of each state, held fixed.
        gamma, lam: Of each state or of all.
    """
    n_states = len(values)
    states, rewards = _episode(states, rewards, n_states)
    discount, share = _share(gamma, n_states, "gamma"), _share(lam, n_states, "lam")
    found, later = np.empty(len(rewards)), float(values[states[-1]])
    for t in range(len(rewards) - 1, -1, -1):
        there = states[t + 1]
        mixed = (1 - share[there]) * values[there] + share[there] * later
        found[t] = later = rewards[t] + discount[there] * mixed
    return found


def lstd(
    features: Float[np.ndarray, "..."],
    states: Int[np.ndarray, " step_and_one"] | Sequence[int],
    rewards: Float[np.ndarray, " step"] | Sequence[float | int],
    *,
    gamma: float | np.ndarray,
    lam: float | np.ndarray = 0.0,
) -> Float[np.ndarray, " feature"]:
    """Weights at which the updates of a whole stretch sum to zero (Bradtke & Barto 1996).

    Raises:
        ArgumentError: The stretch does not determine the weights: features that are dependent, or
            were never met.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ArgumentError(f"features must be finite, (state, feature), got {features.shape}")
    states, rewards = _episode(states, rewards, len(features))
    discount, share = _share(gamma, len(features), "gamma"), _share(lam, len(features), "lam")
    n_features = features.shape[1]
    A, b, z = np.zeros((n_features, n_features)), np.zeros(n_features), np.zeros(n_features)
    for t, reward in enumerate(rewards):
        here, there = states[t], states[t + 1]
        z = discount[here] * share[here] * z + features[here]
        A += np.outer(z, features[here] - discount[there] * features[there])
        b += z * reward
    if np.linalg.cond(A) > _SINGULAR:
        raise ArgumentError(
            "this stretch does not determine the weights: features depend on each other here, or "
            "were never met",
            fix="leave features out, or watch for longer",
        )
    return np.linalg.solve(A, b)


def mean_field(
    chain: MarkovReward,
    features: Float[np.ndarray, "..."],
    *,
    gamma: float | np.ndarray,
    lam: float | np.ndarray = 0.0,
    alpha: float | None = None,
) -> LinearSystem:
    """What TD(lambda) does on average: w' = b u - A w, about the weights that it arrives at.

    A = Phi' D (I - P Gamma Lambda)^-1 (I - P Gamma) Phi, b = Phi' D (I - P Gamma Lambda)^-1 r, with
    D the visits in the long run (Tsitsiklis & Van Roy 1997). The input `reward` scales all rewards
    and is 1. Time counts steps of the chain times the step size; with `alpha` it is the map from
    step to step instead.

    Args:
        chain: States and rewards, in one part that is never left for good.
        features: (state, feature), independent.
        gamma, lam: Of each state or of all.
        alpha: Step size of the map; None for the flow.

    Raises:
        ArgumentError: A chain of several parts, features that depend on each other, credit that
            never fades, or a step size at which the map runs away; says the largest that does not,
            where there is one.
    """
    features = np.asarray(features, dtype=np.float64)
    n = len(chain.P)
    if features.ndim != 2 or len(features) != n or not np.isfinite(features).all():
        raise ArgumentError(f"features must be finite, ({n}, feature), got {features.shape}")
    discount, share = _share(gamma, n, "gamma"), _share(lam, n, "lam")
    if np.linalg.cond(np.eye(n) - chain.P * (discount * share)) > _SINGULAR:
        raise ArgumentError(
            "credit that never fades: gamma times lambda is 1 wherever the chain goes",
            fix="discount, let the trace fade, or end episodes in a state of discount 0",
        )
    weighted = features.T * chain.stationary
    credit = np.linalg.inv(np.eye(n) - chain.P * (discount * share))
    A = weighted @ credit @ (np.eye(n) - chain.P * discount) @ features
    b = weighted @ credit @ chain.reward
    if np.linalg.cond(A) > _SINGULAR:
        raise ArgumentError(
            "the features depend on each other on the states that are visited, so many weights "
            "give the same values",
            fix="leave features out",
        )
    rest = np.linalg.solve(A, b)
    names = [f"w{k}" for k in range(1, features.shape[1] + 1)]
    told: dict[str, Any] = {"offset": (rest, [1.0]), "states": names, "inputs": ["reward"]}
    if alpha is None:
        return LinearSystem(-A, b[:, None], **told)
    if not (math.isfinite(alpha) and alpha > 0):
        raise ArgumentError(f"alpha must be positive, got {alpha}")
    rates = np.linalg.eigvals(A)
    if rates.real.min() <= 0:
        raise ArgumentError(
            "no step size keeps the mean weights from running away: with discounts or lambdas that "
            "depend on the state the rule itself may be unstable",
            fix="look at the eigenvalues of the flow, without alpha",
        )
    largest = (2 * rates.real / np.abs(rates) ** 2).min()
    if alpha >= largest:
        raise ArgumentError(
            f"with alpha {alpha:g} the mean weights run away",
            fix=f"take a step size below {largest:.3g}",
        )
    return LinearSystem(np.eye(len(A)) - alpha * A, alpha * b[:, None], step=1.0, **told)


class ThreeFactorSynapse(System):
    """e' = -e / tau_e + pre post, w' = eta DA e: activity leaves a trace, dopamine cashes it in.

    With tau_e the trace fades as that of TD(lambda) does over steps of dt with gamma lambda =
    exp(-dt / tau_e) (Izhikevich 2007, Cereb. Cortex 17:2443; Gerstner et al. 2018, Front. Neural
    Circuits 12:53).
    """

    time_unit = "s"
    states = (
        Quantity("e", "Hz", range=(0.0, 1000.0), default=0.0),
        Quantity("w", "1", range=(-10.0, 10.0), default=0.0),
    )
    inputs = (
        Quantity("pre", "Hz", range=(0.0, 100.0), default=0.0),
        Quantity("post", "Hz", range=(0.0, 100.0), default=0.0),
        Quantity("DA", "1", range=(-1.0, 1.0), default=0.0),  # about its tonic level
    )
    constants = (Quantity("tau_e", "s"), Quantity("eta", "1"))

    def __init__(self, tau_e: float = 1.0, eta: float = 0.01):
        super().__init__()
        self.register_constants(tau_e=tau_e, eta=eta)

    def vector_field(self, t: Any, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        e, _ = self.split(x).values()
        pre, post, dopamine = (u[..., k : k + 1] for k in range(3))
        return torch.cat([pre * post - e / self.tau_e, self.eta * dopamine * e], dim=-1)


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Prediction errors of trials with a cue that a reward follows.

    Args:
        delta: (trial, step): step 0 is the cue's coming, step k the k-th after it; the reward comes
            at step `delay`.
        values: Of each step of the cue after the last trial, (delay,).
        delay: Steps from the cue to the reward.
    """

    delta: Float[np.ndarray, "trial step"]
    values: Float[np.ndarray, " cue_step"]
    delay: int


def condition(
    n_trials: int,
    delay: int,
    *,
    reward: float = 1.0,
    omitted: Sequence[int] = (),
    alpha: float = 0.1,
    gamma: float = 0.98,
    lam: float = 0.0,
    trace: str = "accumulating",
    after: int = 3,
) -> Conditioning:
    """Cue, delay, reward, again and again; each step since the cue is a feature of its own.

    The complete serial compound of Montague, Dayan & Sejnowski 1996 (J. Neurosci. 16:1936). The cue
    comes out of a background without value, so nothing predicts it.

    Args:
        n_trials: At least 1.
        delay: Steps from cue to reward, at least 1.
        reward: Its size.
        omitted: Trials, from 0, in which it does not come.
        alpha, gamma, lam, trace: As of `TD`.
        after: Steps watched behind the reward.

    Raises:
        ArgumentError: Counts that are too small, an omitted trial that there is not.
    """
    if n_trials < 1 or delay < 1 or after < 0:
        raise ArgumentError("trials and delay must be at least 1, steps behind not negative")
    if any(not 0 <= trial < n_trials for trial in omitted):
        raise ArgumentError(f"omitted trials must lie in 0..{n_trials - 1}")
    background = delay + 1  # and the steps of the cue before it; what is behind has no value
    features = np.zeros((background + 1, delay))
    features[1 : delay + 1] = np.eye(delay)
    agent = TD(features, alpha=alpha, gamma=gamma, lam=lam, trace=trace)
    states = [0, *range(1, delay + 1), *[background] * (after + 1)]
    weights, errors = np.zeros(delay), np.empty((n_trials, len(states) - 1))
    for trial in range(n_trials):
        rewards = np.zeros(len(states) - 1)
        rewards[delay] = 0.0 if trial in omitted else reward
        found = agent.learn(states, rewards, weights)
        weights, errors[trial] = found.weights, found.delta
    return Conditioning(errors, weights, delay)


def random_walk(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An episode on a line of n states from its middle, ended by -1 on the left, +1 on the right.

    States 1..n are the line; 0 and n + 1 are terminal (Sutton & Barto 2018, example 7.1).

    Returns:
        States (step + 1,) and rewards (step,).
    """
    if n < 1:
        raise ArgumentError(f"a line has a state at least, got {n}")
    state, states, rewards = (n + 1) // 2, [(n + 1) // 2], []
    while 0 < state <= n:
        state += 1 if generator.random() < 0.5 else -1
        states.append(state)
        rewards.append(-1.0 if state == 0 else float(state == n + 1))
    return np.array(states), np.array(rewards)


def _share(value: float | np.ndarray, n_states: int, name: str) -> np.ndarray:
    found = np.asarray(value, dtype=np.float64)
    if found.ndim == 0:
        found = np.full(n_states, float(found))
    if found.shape != (n_states,) or not ((found >= 0) & (found <= 1)).all():
        raise ArgumentError(f"{name} must lie in [0, 1], one number or one of {n_states} states")
    return found


def _episode(states: Any, rewards: Any, n_states: int) -> tuple[np.ndarray, np.ndarray]:
    states, rewards = np.asarray(states), np.asarray(rewards, dtype=np.float64)
    if states.ndim != 1 or len(states) != len(rewards) + 1 or not len(rewards):
        raise ArgumentError("an episode has one state more than rewards, and a reward at least")
    if not np.issubdtype(states.dtype, np.integer) or states.min() < 0 or states.max() >= n_states:
        raise ArgumentError(f"states must be whole numbers in 0..{n_states - 1}")
    if not np.isfinite(rewards).all():
        raise ArgumentError(f"{int((~np.isfinite(rewards)).sum())} rewards are not finite")
    return states, rewards


def _reach(P: np.ndarray) -> np.ndarray:
    """Which states are ever reached from which."""
    reach = (P > 0) | np.eye(len(P), dtype=bool)
    for _ in range(max(1, math.ceil(math.log2(len(P))))):
        reach = (reach.astype(float) @ reach.astype(float)) > 0
    return reach
