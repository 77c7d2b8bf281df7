"""TD learning against plain loops, the forward view, the long run, and closed forms of dopamine."""

import numpy as np
import pytest
import torch

import clinode
from clinode.behavior import (
    TD,
    TRACES,
    MarkovReward,
    ThreeFactorSynapse,
    condition,
    lambda_returns,
    lstd,
    mean_field,
    random_walk,
)
from clinode.errors import ArgumentError, SolverError
from clinode.system import Signal


def drawn_chain(seed: int, n_states: int = 12, n_features: int = 5):
    generator = np.random.default_rng(seed)
    P = generator.dirichlet(np.full(n_states, 0.5), n_states)
    features = generator.normal(size=(n_states, n_features))
    gamma = generator.uniform(0.5, 0.98, n_states)
    lam = generator.uniform(0, 1, n_states)
    return MarkovReward(P, generator.normal(size=(n_states, n_states))), features, gamma, lam


def followed(chain: MarkovReward, n_steps: int, seed: int):
    generator = np.random.default_rng(seed)
    states = [0]
    for _ in range(n_steps):
        states.append(int(generator.choice(len(chain.P), p=chain.P[states[-1]])))
    return np.array(states), generator.normal(size=n_steps)


@pytest.mark.parametrize("seed", range(6))
def test_the_mean_field_rests_where_the_series_of_its_traces_does(seed):
    chain, features, gamma, lam = drawn_chain(seed)
    system = mean_field(chain, features, gamma=gamma, lam=lam)
    D, n = np.diag(chain.stationary), len(chain.P)
    A, b, carried = 0.0, 0.0, np.eye(n)
    for _ in range(3000):  # credit of ever earlier states
        A = A + features.T @ D @ carried @ (np.eye(n) - chain.P * gamma) @ features
        b = b + features.T @ D @ carried @ chain.reward
        carried = carried @ (chain.P * (gamma * lam))
    np.testing.assert_allclose(chain.stationary @ chain.P, chain.stationary, atol=1e-12)
    rest = clinode.find_equilibria(system, u=[1.0])[0]
    np.testing.assert_allclose(rest.state.numpy(), np.linalg.solve(A, b), rtol=1e-8)
    assert rest.is_stable  # here; with constant gamma and lambda always
    assert np.linalg.norm(system.A.numpy() + A) < 1e-8


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_the_value_error_is_within_its_bound_of_the_least(lam):
    chain, features, _, _ = drawn_chain(3)
    gamma, D = 0.9, np.diag(chain.stationary)
    true = chain.values(gamma)
    learned = features @ mean_field(chain, features, gamma=gamma, lam=lam).x0.numpy()
    nearest = features @ np.linalg.solve(features.T @ D @ features, features.T @ D @ true)
    errors = [np.sqrt((v - true) @ D @ (v - true)) for v in (learned, nearest)]
    assert errors[0] <= (1 - gamma * lam) / (1 - gamma) * errors[1] + 1e-12
    if lam == 1.0:
        np.testing.assert_allclose(learned, nearest, atol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_at_the_least_squares_weights_the_updates_sum_to_zero(seed):
    chain, features, gamma, lam = drawn_chain(seed)
    states, rewards = followed(chain, 400, seed)
    w = lstd(features, states, rewards, gamma=gamma, lam=lam)
    z, total = np.zeros(5), np.zeros(5)
    for t, reward in enumerate(rewards):
        s, s2 = states[t], states[t + 1]
        z = gamma[s] * lam[s] * z + features[s]
        total += (reward + gamma[s2] * features[s2] @ w - features[s] @ w) * z
    np.testing.assert_allclose(total, 0, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_forward_and_backward_view_give_one_update(seed):
    chain, features, gamma, lam = drawn_chain(seed)
    gamma[-1] = 0.0  # an end
    states, rewards = followed(chain, 40, seed)
    states[-1] = len(chain.P) - 1
    weights = np.random.default_rng(seed).normal(size=5)
    values = features @ weights
    pulled = lambda_returns(states, rewards, values, gamma=gamma, lam=lam)
    forward = features[states[:-1]].T @ (pulled - values[states[:-1]])
    alpha = 0.3
    agent = TD(features, alpha=alpha, gamma=gamma, lam=lam, offline=True)
    found = agent.learn(states, rewards, weights)
    backward = (found.weights - weights) / alpha
    scale = np.abs(forward).max()
    np.testing.assert_allclose(backward / scale, forward / scale, rtol=0, atol=1e-12)
    here, there = values[states[:-1]], values[states[1:]]
    np.testing.assert_allclose(found.delta, rewards + gamma[states[1:]] * there - here, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_where_no_state_comes_twice_learning_at_once_is_learning_at_the_end(seed):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(5, 60))
    gamma, lam = generator.uniform(0.5, 1, n + 1), generator.uniform(0, 1, n + 1)
    gamma[-1] = 0.0
    table = np.vstack([np.eye(n), np.zeros(n)])
    rewards, weights = generator.normal(size=n), generator.normal(size=n)
    alpha, states = float(generator.uniform(0.1, 1)), np.arange(n + 1)
    pulled = lambda_returns(states, rewards, table @ weights, gamma=gamma, lam=lam)
    expected = weights + alpha * (pulled - weights)
    for offline in (False, True):
        agent = TD(table, alpha=alpha, gamma=gamma, lam=lam, offline=offline)
        found = agent.learn(states, rewards, weights).weights
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_true_online_is_the_online_lambda_return_at_every_step(seed):
    chain, features, _, _ = drawn_chain(seed)
    gamma, lam, alpha = 0.93, 0.8, 0.05
    states, rewards = followed(chain, 25, seed)
    agent = TD(features, alpha=alpha, gamma=gamma, lam=lam, trace="true online")
    found = agent.learn(states, rewards).weights_over_time
    kept = [np.zeros(5)]  # w_t^t of earlier horizons, whose values the returns bootstrap from
    for horizon in range(1, len(rewards) + 1):
        w = np.zeros(5)
        for t in range(horizon):
            target, weight = 0.0, 1.0
            partial = 0.0
            for n in range(1, horizon - t + 1):
                partial += gamma ** (n - 1) * rewards[t + n - 1]
                n_step = partial + gamma**n * features[states[t + n]] @ kept[t + n - 1]
                share = (1 - lam) * weight if t + n < horizon else weight
                target += share * n_step
                weight *= lam
            w = w + alpha * (target - features[states[t]] @ w) * features[states[t]]
        kept.append(w)
        np.testing.assert_allclose(found[horizon - 1], w, rtol=0, atol=1e-12)


def rms_of_walks(n: int, lam: float, alpha: float, trace: str, n_runs: int, seed: int):
    """Error of the first ten episodes, of each run, by the agent."""
    true = np.arange(1, n + 1) * 2 / (n + 1) - 1
    features = np.vstack([np.zeros(n), np.eye(n), np.zeros(n)])
    gamma = np.ones(n + 2)
    gamma[[0, -1]] = 0.0
    agent = TD(features, alpha=alpha, gamma=gamma, lam=lam, trace=trace)
    generator = np.random.default_rng(seed)
    found = np.empty((n_runs, 10))
    for run in range(n_runs):
        w = np.zeros(n)
        for episode in range(10):
            w = agent.learn(*random_walk(n, generator), w).weights
            found[run, episode] = np.sqrt(np.mean((w - true) ** 2))
    return found.mean(axis=1)


def many_walks(n: int, lam: float, alpha: float, trace: str, n_runs: int, seed: int):
    """Mean error of the first ten episodes, of each run, all runs walking side by side."""
    draw, run = np.random.default_rng(seed), np.arange(n_runs)
    true = np.linspace(-1, 1, n + 2)[1:-1]
    V, e = np.zeros((n_runs, n + 2)), np.zeros((n_runs, n + 2))
    s, episode = np.full(n_runs, (n + 1) // 2), np.zeros(n_runs, int)
    known, total = np.zeros(n_runs), np.zeros(n_runs)  # the value that was foretold for s
    while (live := episode < 10).any():
        s2 = s + np.where(draw.random(n_runs) < 0.5, 1, -1)
        r = (s2 == n + 1) * 1.0 - (s2 == 0)
        value, ahead = V[run, s], V[run, s2]
        error = np.where(live, r + ahead - value, 0.0)[:, None]
        e *= lam
        if trace == "accumulating":
            e[run, s] += 1
            V += alpha * error * e
        else:  # van Seijen & Sutton 2014: the dutch trace, and what was not foretold
            e[run, s] += 1 - alpha * e[run, s]
            surprise = np.where(live, value - known, 0.0)
            V += alpha * (error + surprise[:, None]) * e
            V[run, s] -= alpha * surprise
        s, known = s2, ahead
        done = np.flatnonzero(live & ((s == 0) | (s == n + 1)))
        total[done] += np.sqrt(((V[done, 1:-1] - true) ** 2).mean(axis=1))
        V[np.ix_(done, [0, n + 1])] = 0.0
        episode[done] += 1
        s[done], e[done] = (n + 1) // 2, 0.0
        known[done] = V[done, (n + 1) // 2]
        s[~live] = (n + 1) // 2
    return total / 10


@pytest.mark.slow
@pytest.mark.parametrize("trace", ["accumulating", "true online"])
def test_the_whole_curve_over_steps_and_traces_is_that_of_another_simulation(trace):
    apart = {}
    for lam in (0.0, 0.4, 0.8, 0.9):
        for alpha in (0.1, 0.2, 0.4, 0.7, 1.0):
            seed = int(1000 * lam + 10 * alpha)
            both = (
                rms_of_walks(19, lam, alpha, trace, 24, seed),
                many_walks(19, lam, alpha, trace, 400, seed + 1),
            )
            # in logarithms and cut: where long traces run away, means are those of the worst run
            ours, other = (np.log(np.minimum(one, 10.0)) for one in both)
            error = np.sqrt(ours.var(ddof=1) / len(ours) + other.var(ddof=1) / len(other))
            apart[lam, alpha] = abs(ours.mean() - other.mean()) / (error + 1e-9)
    assert max(apart.values()) < 4, apart


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.15])
def test_the_walk_of_five_states_has_its_known_course(alpha):
    # rewards of 0 and 1 from values of a half are those of -1 and 1 from 0, halved
    published = {
        0.05: {10: 0.1747, 25: 0.1097, 50: 0.0534, 100: 0.0362},
        0.1: {10: 0.1287, 25: 0.0572, 50: 0.0510, 100: 0.0564},
        0.15: {10: 0.0958, 25: 0.0599, 50: 0.0689, 100: 0.0709},
    }[alpha]
    gamma, true = np.array([0.0, *[1.0] * 5, 0.0]), np.arange(1, 6) / 3 - 1
    features = np.vstack([np.zeros(5), np.eye(5), np.zeros(5)])
    agent = TD(features, alpha=alpha, gamma=gamma)
    generator, n_runs = np.random.default_rng(int(alpha * 100)), 200
    found = np.empty((n_runs, 101))
    for run in range(n_runs):
        w = np.zeros(5)
        for episode in range(101):
            found[run, episode] = np.sqrt(np.mean((w - true) ** 2)) / 2
            w = agent.learn(*random_walk(5, generator), w).weights
    assert found[0, 0] == pytest.approx(0.2357, abs=5e-5)
    for episode, rms in published.items():
        # the published mean is one of 200 runs too
        error = np.sqrt(2) * found[:, episode].std(ddof=1) / np.sqrt(n_runs)
        assert abs(found[:, episode].mean() - rms) < 4 * error + 5e-5


@pytest.mark.slow
@pytest.mark.parametrize("n", [9, 15, 25])
def test_walks_of_other_lengths_are_learned_as_by_another_simulation(n):
    ours = rms_of_walks(n, 0.8, 0.3, "accumulating", 80, seed=n)
    other = many_walks(n, 0.8, 0.3, "accumulating", 400, seed=n + 100)
    error = np.sqrt(ours.var(ddof=1) / len(ours) + other.var(ddof=1) / len(other))
    assert abs(ours.mean() - other.mean()) < 4 * error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trace", "lam", "alpha", "published"),
    [
        ("accumulating", 0.0, 0.8, 0.346),
        ("accumulating", 0.8, 0.3, 0.263),
        ("true online", 0.8, 0.4, 0.257),
        ("true online", 0.9, 0.3, 0.280),
    ],
)
def test_the_walk_of_nineteen_states_has_its_known_error(trace, lam, alpha, published):
    ours = rms_of_walks(19, lam, alpha, trace, 100, seed=1)
    error = np.hypot(ours.std(ddof=1) / 10, 0.003)
    assert abs(ours.mean() - published) < 4 * error


def test_long_traces_run_away_where_true_online_does_not():
    high = rms_of_walks(19, 0.9, 0.9, "accumulating", 20, seed=0).mean()
    assert high > 1.0
    assert rms_of_walks(19, 0.9, 0.9, "true online", 20, seed=0).mean() < 0.6


@pytest.mark.parametrize("seed", range(5))
def test_dopamine_moves_from_the_reward_to_the_cue(seed):
    generator = np.random.default_rng(seed)
    delay, gamma = int(generator.integers(2, 12)), float(generator.uniform(0.8, 1.0))
    reward, n = float(generator.uniform(0.5, 3)), 4000
    found = condition(
        n + 2, delay, reward=reward, omitted=[n], alpha=0.5, gamma=gamma, lam=0.6
    ).delta
    expected = np.zeros(found.shape[1])
    expected[delay] = reward  # nothing is known: the reward itself
    np.testing.assert_allclose(found[0], expected, atol=1e-12)
    expected[0], expected[delay] = gamma**delay * reward, 0.0
    np.testing.assert_allclose(found[n - 1], expected, atol=1e-9)
    np.testing.assert_allclose(found[n, delay], -reward, atol=1e-9)
    assert found[n + 1, delay] > 0  # it was expected a little less


def test_without_a_trace_the_response_travels_one_step_a_trial():
    found = condition(6, 8, alpha=1.0, gamma=1.0, lam=0.0).delta
    for trial in range(6):
        assert np.flatnonzero(found[trial]).tolist() == [8 - trial]
    jumps = condition(2, 8, alpha=1.0, gamma=1.0, lam=1.0).delta
    assert np.flatnonzero(jumps[1]).tolist() == [0]


def test_the_eligibility_of_a_synapse_is_cashed_in_by_dopamine():
    tau, eta, pre, post = 0.7, 0.05, 8.0, 5.0
    synapse = ThreeFactorSynapse(tau_e=tau, eta=eta)
    knots = torch.tensor([0.0, 0.5, 1.0, 1.3], dtype=torch.float64)
    values = torch.tensor(
        [[pre, post, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]], dtype=torch.float64
    )
    run = clinode.simulate(
        synapse,
        [0.0, 0.0],
        [0.0, 0.5, 1.0, 1.3, 2.0],
        Signal(knots, values),
        rtol=1e-10,
        atol=1e-12,
    )
    e = pre * post * tau * (1 - np.exp(-0.5 / tau))
    assert run.states[1, 0].item() == pytest.approx(e, rel=1e-8)
    at_dopamine = e * np.exp(-0.5 / tau)
    w = eta * 2.0 * at_dopamine * tau * (1 - np.exp(-0.3 / tau))
    assert run.states[-1, 1].item() == pytest.approx(w, rel=1e-8)


def test_a_map_with_too_large_a_step_is_refused_with_the_largest_that_is_not():
    chain, features, _, _ = drawn_chain(1)
    with pytest.raises(ArgumentError, match=r"run away.*below [0-9.]+") as refused:
        mean_field(chain, features, gamma=0.9, alpha=1e3)
    largest = float(str(refused.value).split("below ")[1])
    mapped = mean_field(chain, features, gamma=0.9, alpha=largest * 0.99)
    assert np.abs(np.linalg.eigvals(mapped.A.numpy())).max() < 1


def test_a_rule_that_is_unstable_by_itself_is_told_so():
    generator = np.random.default_rng(0)
    found = 0
    for _ in range(400):  # gamma and lambda that depend on the state may make it so
        P = generator.dirichlet(np.full(3, 0.3), 3)
        gamma, lam = (generator.choice([0.0, high], 3) for high in (0.99, 1.0))
        chain, features = MarkovReward(P, np.ones(3)), generator.normal(size=(3, 1))
        flow = mean_field(chain, features, gamma=gamma, lam=lam)
        if flow.A.item() > 0:
            found += 1
            with pytest.raises(ArgumentError, match="no step size keeps"):
                mean_field(chain, features, gamma=gamma, lam=lam, alpha=0.1)
    assert found > 0


def test_what_cannot_be_learned_is_refused_in_words():
    apart = np.kron(np.eye(2), np.full((2, 2), 0.5))
    for call, words in (
        (lambda: MarkovReward(np.eye(2)[:1], np.zeros(1)), "P must be square"),
        (lambda: MarkovReward(np.full((2, 2), 0.6), np.zeros(2)), "probabilities that sum to 1"),
        (lambda: MarkovReward(np.eye(2), np.full(2, np.nan)), "reward must be finite"),
        (lambda: MarkovReward(apart, np.zeros(4)).stationary, "not ergodic"),
        (lambda: MarkovReward(np.full((2, 2), 0.5), np.ones(2)).values(1.0), "are not finite"),
        (lambda: TD(n_states=3, alpha=0.0), "alpha must be positive"),
        (lambda: TD(n_states=3, trace="eternal"), "unknown trace 'eternal'; there are"),
        (lambda: TD(n_states=3, trace="true online", offline=True), "no offline updates"),
        (lambda: TD(n_states=3, gamma=1.2), r"gamma must lie in \[0, 1\]"),
        (lambda: TD(n_states=3).learn([0, 3], [1.0]), r"whole numbers in 0\.\.2"),
        (lambda: TD(n_states=3).learn([0, 1], [np.inf]), "1 rewards are not finite"),
        (lambda: TD(n_states=3).learn([0], []), "a reward at least"),
        (lambda: lstd(np.ones((2, 2)), [0, 1, 0], [1, 1], gamma=0.5), "does not determine"),
        (
            lambda: mean_field(
                MarkovReward(np.full((2, 2), 0.5), np.ones(2)), np.eye(2), gamma=1.0, lam=1.0
            ),
            "credit that never fades",
        ),
        (
            lambda: mean_field(
                MarkovReward(np.eye(1), np.ones(1)), np.full((1, 1), np.nan), gamma=0.5
            ),
            "features must be finite",
        ),
        (lambda: TD(n_states=3).learn([0, 1], [1.0], np.zeros(2)), "one of 3 features"),
        (lambda: lstd(np.ones(3), [0, 1], [1.0], gamma=0.5), "features must be finite"),
        (lambda: random_walk(0, np.random.default_rng(0)), "a state at least"),
        (lambda: condition(3, 2, omitted=[3]), r"must lie in 0\.\.2"),
    ):
        with pytest.raises(ArgumentError, match=words):
            call()
    with pytest.raises(SolverError, match="the weights ran away"):
        TD(np.full((2, 1), 10.0), alpha=1e3, gamma=0.0).learn([0, 1] * 200, np.ones(399))


@pytest.mark.parametrize("trace", TRACES)
def test_a_table_without_lambda_is_the_same_with_every_trace(trace):
    chain, _, _, _ = drawn_chain(2)
    states, rewards = followed(chain, 50, 2)
    found = TD(n_states=12, alpha=0.2, gamma=0.9, lam=0.0, trace=trace).learn(states, rewards)
    plain = TD(n_states=12, alpha=0.2, gamma=0.9, lam=0.0).learn(states, rewards)
    np.testing.assert_allclose(found.weights, plain.weights, atol=1e-12)
