import math

import numpy as np
import pytest
import scipy.linalg
import torch

from clinode.brain.plasticity import (
    BennaFusi,
    CascadeSynapse,
    SerialSynapse,
    first_passage_lifetime,
    memory_envelope,
    optimal_depth,
    simulate_memory,
)
from clinode.dynamics import simulate
from clinode.errors import ArgumentError, SolverError


def cascade_by_hand(n, x):
    """M+ and M- written entry by entry: weak depths 1..n are 0..n-1, strong ones n..2n-1."""
    plus, minus = np.zeros((2 * n, 2 * n)), np.zeros((2 * n, 2 * n))
    for i in range(1, n + 1):
        q = x ** (i - 1) if i < n else x ** (n - 1) / (1 - x)
        q = 1.0 if n == 1 else q
        p = x**i / (1 - x) if i < n else 0.0
        weak, strong = i - 1, n + i - 1
        for step, this, other in ((plus, weak, n), (minus, strong, 0)):
            step[other, this] += q
            step[this, this] += 1 - q
        for step, this in ((plus, strong), (minus, weak)):
            step[this, this] += 1 - p
            if i < n:
                step[this + 1, this] += p
    return plus, minus


@pytest.mark.parametrize("seed", range(8))
def test_signals_are_those_of_powers_of_the_matrix_written_by_hand(seed):
    draw = np.random.default_rng(seed)
    n, x, f = int(draw.integers(1, 16)), draw.uniform(0.2, 0.5), draw.uniform(0.1, 0.9)
    plus, minus = cascade_by_hand(n, x)
    M = f * plus + (1 - f) * minus
    values, vectors = np.linalg.eig(M)
    p = np.real(vectors[:, np.argmax(values.real)])
    p = p / p.sum()
    synapse = CascadeSynapse(n, x, potentiation=f)
    np.testing.assert_allclose(synapse.M_plus, plus, atol=1e-15)
    np.testing.assert_allclose(synapse.equilibrium(), p, atol=1e-9)
    strong = np.r_[np.zeros(n), np.ones(n)]
    times = np.unique(np.r_[0, draw.integers(0, 5000, 12)])
    expected = [strong @ np.linalg.matrix_power(M, t) @ (plus - minus) @ p for t in times]
    np.testing.assert_allclose(synapse.signal(times), expected, atol=1e-9)
    N = draw.uniform(1e3, 1e6)
    np.testing.assert_allclose(synapse.snr(times, N), np.sqrt(N) * np.array(expected), atol=1e-6)
    until = 0
    trace = (plus - minus) @ p
    for t in range(20_000):
        if np.sqrt(N) * (strong @ trace) > 1:
            until = t
        trace = M @ trace
    assert synapse.lifetime(N) == until


@pytest.mark.parametrize("x", [0.2, 0.35, 0.5])
def test_a_balanced_cascade_fills_its_states_evenly_and_starts_at_a_known_signal(x):
    for n in (1, 2, 5, 12):
        synapse = CascadeSynapse(n, x)
        assert float((synapse.equilibrium() - 1 / (2 * n)).abs().max()) < 1e-10
        started = 1.0 if n == 1 else 1 / (n * (1 - x))
        assert float(synapse.signal(0)) == pytest.approx(started, abs=1e-10)


def test_time_constants_grow_by_one_over_x_a_depth():
    # Fusi, Drew & Abbott 2005: exponential in the number of depths
    found = [float(CascadeSynapse(n).time_constants()[0]) for n in range(3, 11)]
    published = [2.244, 6.098, 13.983, 29.903, 61.849, 125.816, 253.796, 509.784]
    np.testing.assert_allclose(found, published, atol=1e-3)
    for x in (0.25, 0.4, 0.5):
        slow = [float(CascadeSynapse(n, x).time_constants()[0]) for n in (12, 13)]
        assert slow[1] / slow[0] == pytest.approx(1 / x, rel=0.01)


def test_at_a_fixed_number_of_synapses_there_is_a_best_depth():
    known = {1e4: {4: 18, 6: 56, 8: 91, 10: 76, 12: 59}, 1e6: {8: 368, 10: 836, 12: 1072}}
    for N, lifetimes in known.items():
        for n, events in lifetimes.items():
            assert CascadeSynapse(n).lifetime(N) == pytest.approx(events, rel=0.01)
    assert [optimal_depth(CascadeSynapse, N).n for N in (1e4, 1e5)] == [8, 10]
    with pytest.raises(ArgumentError, match="no depths"):
        optimal_depth(CascadeSynapse, 1e4, depths=[])


@pytest.mark.parametrize("seed", range(5))
def test_no_synapse_exceeds_the_envelope(seed):
    draw = np.random.default_rng(seed)
    n = int(draw.integers(1, 12))
    times = np.unique(np.logspace(0, 6, 200).round())
    for synapse in (
        CascadeSynapse(n, draw.uniform(0.1, 0.5)),
        SerialSynapse(n, draw.uniform(0.2, 1), draw.uniform(0.01, 1)),
        SerialSynapse(n, 1.0, draw.uniform(0.001, 0.1)),
    ):
        bound = memory_envelope(times, synapse.n_states, 1e4)
        assert float((synapse.snr(times, 1e4) / bound).max()) <= 1


def test_a_serial_memory_stands_until_walks_from_the_ends_reach_the_middle():
    # an event shifts all states alike, so a memory is told by the two end states alone
    n = 40
    signal = SerialSynapse(n).signal(np.arange(4 * n * n))
    np.testing.assert_allclose(signal[:n], 1 / n, rtol=1e-12)
    assert float(signal[-1]) < 0.1 / n


@pytest.mark.parametrize("make", [lambda: CascadeSynapse(5), lambda: SerialSynapse(4)])
def test_simulated_synapses_forget_as_the_mean_says(make):
    synapse, generator = make(), torch.Generator().manual_seed(3)
    readouts = simulate_memory(synapse, 500, 30, n_memories=200, generator=generator)
    mean, error = readouts.mean(dim=0), readouts.std(dim=0) / math.sqrt(200)
    expected = synapse.signal(np.arange(31))
    assert float(((mean - expected) / error).abs().max()) < 4


def test_first_passage_of_simple_synapses_is_that_of_their_chain():
    # synapses that take the sign of every event lose a memory at the next one, half of the time
    N, generator = 1, torch.Generator().manual_seed(0)
    found = first_passage_lifetime(
        CascadeSynapse(1), N, threshold=0.0, n_memories=4000, generator=generator
    )
    assert found.verdict == "ok"
    assert abs(found.mean - 2.0) < 4 * found.standard_error  # geometric, probability 1/2


def test_memories_that_outlive_the_simulation_are_told():
    generator = torch.Generator().manual_seed(0)
    found = first_passage_lifetime(
        CascadeSynapse(6), 4000, n_memories=10, max_events=3, generator=generator
    )
    assert found.n_surviving == 10
    assert found.verdict == "lower bound: 10 of 10 outlived 3 events"


def test_the_mean_of_a_markov_synapse_is_a_linear_system():
    synapse = CascadeSynapse(4)
    system = synapse.system(rate=2.0)
    p = synapse.equilibrium()
    start = p + (synapse.M_plus - synapse.M_minus) @ p / 2
    times = torch.linspace(0, 5, 6).double()
    found = simulate(system, start, times, rtol=1e-9, atol=1e-12).outputs[:, 0]
    Q = 2.0 * (synapse.M.numpy() - np.eye(8))
    expected = [
        synapse.strength.numpy() @ scipy.linalg.expm(Q * t) @ start.numpy() for t in times.numpy()
    ]
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_time_constants_of_a_chain_of_variables_grow_by_four():
    known = {2: 25.489, 4: 545.34, 6: 9327.14, 8: 151692.6, 12: 3.9031e7}
    for m, slowest in known.items():
        assert float(BennaFusi(m).time_constants()[0]) == pytest.approx(slowest, rel=1e-4)
    pair = [float(BennaFusi(m).time_constants()[0]) for m in (14, 15)]
    assert pair[1] / pair[0] == pytest.approx(4.0, rel=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_the_response_of_a_chain_is_its_matrix_exponential(seed):
    draw = np.random.default_rng(seed)
    m, alpha = int(draw.integers(1, 10)), draw.uniform(0.1, 0.4)
    A = np.zeros((m, m))
    for k in range(m):
        C, g = 2.0**k, alpha * 2.0**-k
        A[k, k] -= g / C
        if k + 1 < m:
            A[k, k + 1] += g / C
            A[k + 1, k] += g / 2.0 ** (k + 1)
            A[k + 1, k + 1] -= g / 2.0 ** (k + 1)
    chain = BennaFusi(m, alpha)
    np.testing.assert_allclose(chain.matrix(), A, atol=1e-14)
    times = draw.uniform(0, 3000, 8)
    expected = [scipy.linalg.expm(A * t)[0, 0] for t in times]
    np.testing.assert_allclose(chain.response(times), expected, atol=1e-8)
    squares = (chain.response(np.arange(200_000)) ** 2).sum() if m < 6 else None
    if squares is not None:
        told = float(chain.snr(0.0, 1e4))
        assert told == pytest.approx(100 / math.sqrt(float(squares)), rel=1e-6)


def test_a_chain_forgets_as_one_over_the_square_root_of_time():
    times = np.logspace(np.log10(30), np.log10(3e4), 40)
    slope = np.polyfit(np.log(times), np.log(BennaFusi(12).response(times).numpy()), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.01)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: CascadeSynapse(4, 0.6), r"x must lie in \(0, 1/2\]"),
        (lambda: CascadeSynapse(0), "n must be at least 1"),
        (lambda: CascadeSynapse(3, potentiation=1.0), "potentiation must lie inside"),
        (lambda: CascadeSynapse(3).signal(-1), "t counts events"),
        (lambda: CascadeSynapse(3).signal(0.5), "t counts events"),
        (lambda: CascadeSynapse(3).snr(0, 0), "N must be a positive number"),
        (lambda: SerialSynapse(3, step=0.0), "are probabilities"),
        (lambda: BennaFusi(0), "m must be at least 1"),
        (lambda: BennaFusi(3).response(-1.0), "not negative"),
        (lambda: memory_envelope([1.0], 1, 10.0), "two states or more"),
    ],
)
def test_what_is_no_synapse_is_refused(call, told):
    with pytest.raises(ArgumentError, match=told):
        call()


def test_states_that_fall_apart_have_no_equilibrium():
    synapse = CascadeSynapse(3)
    apart = type(
        "Apart",
        (type(synapse).__bases__[0],),
        {
            "M_plus": property(lambda self: torch.eye(4).double()),
            "M_minus": property(lambda self: torch.eye(4).double()),
            "strength": property(lambda self: torch.tensor([-1.0, -1.0, 1.0, 1.0]).double()),
        },
    )()
    with pytest.raises(SolverError, match="more than one equilibrium"):
        apart.equilibrium()
