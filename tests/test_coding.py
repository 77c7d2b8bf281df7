import math

import numpy as np
import pytest
from scipy.stats import norm, poisson
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from clinode.coding import (
    FirstSpike,
    LinearReadout,
    NoisyLevels,
    PoissonCount,
    RegularCount,
    lif_spikes,
    minimum_bits,
    minimum_window,
    readout_accuracy,
)
from clinode.errors import ArgumentError


def brute(masses):
    """Bayes accuracy by going through the symbols one by one."""
    return sum(max(column) for column in zip(*masses, strict=True)) / len(masses)


@pytest.mark.parametrize("seed", range(12))
def test_bits_of_a_counter_are_those_of_enumeration(seed):
    draw = np.random.default_rng(seed)
    rates = np.sort(draw.uniform(2, 80, int(draw.integers(2, 5))))
    window, code = draw.uniform(0.05, 1.5), None
    code = PoissonCount(rates, window)
    target = draw.uniform(1 / len(rates) + 0.05, code.accuracy(20))
    fewest = None
    for bits in range(1, 17):
        most = 2**bits - 1
        counts = range(most)
        masses = [
            [
                *(poisson.pmf(k, r * window) for k in counts if k < 400),
                poisson.sf(most - 1, r * window),
            ]
            for r in rates
        ]
        found = brute(masses)
        assert code.accuracy(bits) == pytest.approx(found, abs=1e-12)
        if found >= target:
            fewest = bits
            break
    assert minimum_bits(code, target).bits == fewest


@pytest.mark.parametrize("seed", range(8))
def test_bits_of_a_clock_and_of_a_quantizer_are_those_of_enumeration(seed):
    draw = np.random.default_rng(seed)
    drives = np.linspace(1.1, draw.uniform(2, 4), int(draw.integers(3, 12)))
    tau, jitter = draw.uniform(0.005, 0.04), draw.uniform(1e-4, 1e-3)
    code = FirstSpike(drives, tau, jitter)
    times = tau * np.log(drives / (drives - 1))
    target = 0.5 * (1 / len(drives) + code.accuracy(16))
    fewest = None
    for bits in range(1, 17):
        edges = np.linspace(0, times.max(), 2**bits + 1)
        edges[0], edges[-1] = -np.inf, np.inf
        masses = [np.diff(norm.cdf(edges, t, jitter)) for t in times]
        found = brute(masses)
        assert code.accuracy(bits) == pytest.approx(found, abs=1e-12)
        if found >= target:
            fewest = bits
            break
    assert minimum_bits(code, target).bits == fewest


def test_ten_noisy_levels_need_five_bits():
    code = NoisyLevels([(k + 0.5) / 10 for k in range(10)], 0.02)
    published = [0.2, 0.4, 0.7565, 0.9439, 0.9795, 0.9866, 0.9883, 0.9887, 0.98879, 0.98881]
    for bits, accuracy in enumerate(published, start=1):
        assert code.accuracy(bits) == pytest.approx(accuracy, abs=6e-5)
    found = minimum_bits(code, 0.95)
    assert found.bits == 5
    limit = 1 - (2 - 2 / 10) * norm.sf(0.05 / 0.02)
    assert found.limit == pytest.approx(limit, abs=1e-5)
    beyond = minimum_bits(code, 0.999)
    assert beyond.bits is None
    assert beyond.verdict.startswith("unreachable: 16 bits")


def test_a_clock_needs_a_fixed_number_of_bits_more_than_levels_have():
    gaps = [2.8729e-3, 1.0204e-3, 0.4458e-3, 0.2097e-3, 0.1018e-3]
    for M, gap, bits in zip((4, 8, 16, 32, 64), gaps, (5, 6, 7, 8, 9), strict=True):
        code = FirstSpike(np.linspace(1.1, 3, M), tau=0.02)
        assert code.t_max == pytest.approx(47.958e-3, abs=1e-6)
        assert np.diff(np.sort(code.latencies)).min() == pytest.approx(gap, abs=1e-7)
        assert code.separating_bits == bits
        assert code.accuracy(bits) == 1.0
        fewest = minimum_bits(code, 1.0).bits
        assert fewest is not None
        assert fewest <= bits


def test_two_poisson_rates_need_windows_as_published():
    # the smallest windows on a grid of 5 ms
    for accuracy, window in ((0.90, 0.480), (0.95, 0.785), (0.99, 1.575)):
        assert minimum_window([20.0, 40.0], accuracy) == pytest.approx(window, abs=0.0051)
    T, k = 0.480, 14
    told = 0.5 * (poisson.cdf(k - 1, 20 * T) + poisson.sf(k - 1, 40 * T))
    assert PoissonCount([20.0, 40.0], T).accuracy(10) == pytest.approx(told, abs=1e-12)
    assert minimum_bits(PoissonCount([20.0, 40.0], T), 0.90).bits == 4


def test_simulated_decoding_is_as_accurate_as_the_sum_says():
    draw, n = np.random.default_rng(0), 40_000
    code = FirstSpike(np.linspace(1.2, 3, 6), 0.02, 0.0008)
    bits = 5
    likely = code.probabilities(bits).argmax(axis=0)
    truth = draw.integers(6, size=n)
    seen = code.latencies[truth] + draw.normal(0, 0.0008, n)
    ticks = np.clip((seen / code.t_max * 2**bits).astype(int), 0, 2**bits - 1)
    share = np.mean(likely[ticks] == truth)
    expected = code.accuracy(bits)
    assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / n))


def test_regular_spikes_are_counted_to_within_one():
    code = RegularCount([10.0, 12.0], 0.35)
    np.testing.assert_allclose(code.probabilities(4)[:, 3:5], [[0.5, 0.5], [0.0, 0.8]])
    assert code.accuracy(4) == pytest.approx((0.5 + 0.8 + 0.2) / 2)
    assert RegularCount([10.0, 20.0], 1.0).accuracy(5) == 1.0
    assert RegularCount([10.0, 20.0], 1.0).accuracy(3) == 0.5  # the counter is full for both
    assert (code.seconds, code.spikes) == (0.35, pytest.approx(3.85))


class Thirds(NoisyLevels):
    """A quantizer whose edges move with the number of its steps."""

    def probabilities(self, bits):
        edges = np.linspace(0, 1, bits + 2)
        edges[0], edges[-1] = -np.inf, np.inf
        return np.diff(norm.cdf(edges, self.levels[:, None], self.spread))


def test_a_code_that_does_worse_with_more_bits_is_told():
    # two steps part the levels at 1/2, three do not, four do again
    levels = [0.45, 0.55]
    assert [round(Thirds(levels, 0.001).accuracy(b), 6) for b in (1, 2, 3)] == [1.0, 0.5, 1.0]
    noisy = minimum_bits(Thirds([0.42, 0.58, 0.9], 0.05), 1.0, most_bits=4)
    assert not noisy.is_monotone
    halved = minimum_bits(NoisyLevels([0.30, 0.36], 0.001), 0.99)
    assert halved.is_monotone
    assert halved.to_pandas()["bits"].tolist() == list(range(1, len(halved.accuracies) + 1))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: PoissonCount([10.0], 1.0), "two or more distinct"),
        (lambda: PoissonCount([10.0, -1.0], 1.0), "1 rates are negative"),
        (lambda: PoissonCount([10.0, 20.0], 0.0), "window must be positive"),
        (lambda: FirstSpike([0.9, 2.0], 0.02), "a drive of 1 or less never fires"),
        (lambda: FirstSpike([1.5, 2.0], 0.02, -1.0), "jitter must not be negative"),
        (lambda: NoisyLevels([0.1, 0.2], 0.1, (1.0, 0.0)), "is empty"),
        (lambda: minimum_bits(PoissonCount([1.0, 2.0], 1.0), 0.4), "must lie above chance, 0.5"),
        (lambda: PoissonCount([1.0, 2.0], 1.0).accuracy(0), "bits must lie from 1 to 24"),
        (lambda: lif_spikes([], 0.1), "one or more finite"),
        (lambda: lif_spikes([2.0], -0.1), "window must be positive"),
        (lambda: FirstSpike([1.5, 2.0], 0.02).decode([0.01], 0), "bits must lie from 1 to 24"),
        (lambda: minimum_window([1.0, 1.0001], 0.99, most_seconds=10.0), "not reached within 10 s"),
    ],
)
def test_what_is_no_code_is_refused(call, told):
    with pytest.raises(ArgumentError, match=told):
        call()


def test_spikes_of_the_engine_come_at_their_closed_form_times():
    drives = np.array([0.5, 1.1, 2.0, 2.0, 3.0])
    found = lif_spikes(drives, 0.2, tau=0.015, t_ref=0.003)
    told = FirstSpike(np.unique(drives[1:]), 0.015).latencies
    np.testing.assert_allclose(found.latencies[[1, 2, 4]], told, rtol=0, atol=1e-8)
    assert np.isnan(found.latencies[0])
    periods = np.append(told, told[1])[[0, 1, 3, 2]] + 0.003
    counts = np.floor((0.2 + 0.003) / periods)
    np.testing.assert_array_equal(found.counts, [0, *counts])


@pytest.mark.parametrize("bits", [3, 5, 7])
def test_pixels_of_digits_are_read_from_spikes_as_well_as_the_sum_says(bits):
    pixels = load_digits().data.astype(int).ravel()  # 0 to 16
    draw, each = np.random.default_rng(bits), 400
    levels = np.arange(1, 16)  # the calculus takes each for as likely
    shown = np.concatenate([draw.choice(np.flatnonzero(pixels == v), each) for v in levels])
    code = FirstSpike(1.1 + levels / 8, 0.02, 0.0003)
    spikes = lif_spikes(1.1 + pixels[shown] / 8, 0.1, jitter=0.0003, seed=bits)
    share = np.mean(levels[code.decode(spikes.latencies, bits)] == pixels[shown])
    expected = code.accuracy(bits)
    spread = math.sqrt(expected * (1 - expected) / len(shown))
    assert share == pytest.approx(expected, abs=4 * spread + 1e-9)


def test_a_clock_without_jitter_decodes_its_own_latencies():
    code = FirstSpike([1.2, 1.5, 2.0, 3.0], 0.02)
    np.testing.assert_array_equal(code.decode(code.latencies, code.separating_bits), range(4))
    slowest = int(code.latencies.argmax())
    assert code.decode([math.nan], 6).tolist() == [slowest]


@pytest.mark.parametrize("bits", [1, 3, 6])
@pytest.mark.parametrize(
    "code",
    [
        PoissonCount([3.0, 40.0, 11.0], 0.4),
        RegularCount([10.0, 23.0, 31.0], 0.35),
        FirstSpike([1.2, 1.9, 3.0], 0.02, 0.002),
        FirstSpike([1.2, 1.9, 3.0], 0.02),
        NoisyLevels([0.9, 0.1, 0.4], 0.2),
    ],
)
def test_the_diagonal_of_confusions_is_the_accuracy(code, bits):
    confusion = code.confusion(bits)
    np.testing.assert_allclose(confusion.sum(axis=1), 1.0, atol=1e-12)
    assert np.trace(confusion) / 3 == pytest.approx(code.accuracy(bits), abs=1e-12)
    assert (confusion >= 0).all()


@pytest.mark.parametrize("bits", [2, 4, 9])
def test_poisson_counts_are_taken_for_others_as_often_as_told(bits):
    code, n = PoissonCount([30.0, 5.0, 80.0, 60.0], 0.3), 20_000
    draw = np.random.default_rng(bits)
    confusion = code.confusion(bits)
    for truth, rate in enumerate(code.rates):
        found = code.decode(draw.poisson(rate * 0.3, n), bits)
        share = np.bincount(found, minlength=4) / n
        spread = np.sqrt(confusion[truth] * (1 - confusion[truth]) / n)
        assert (np.abs(share - confusion[truth]) <= 4 * spread + 1e-9).all()
    assert code.decode([10**9], bits)[0] == code.decode([2**bits - 1], bits)[0]


@pytest.mark.parametrize("seed", range(3))
def test_a_readout_of_many_neurons_is_as_right_as_draws_of_their_confusions(seed):
    draw = np.random.default_rng(seed)
    code, values = FirstSpike(np.linspace(1.2, 3, 6), 0.02, 0.002), draw.normal(size=6)
    readout = LinearReadout(draw.normal(size=(80, 4)), draw.normal(size=4))
    stimuli, labels = draw.integers(6, size=(25, 80)), draw.integers(4, size=25)
    bits, n = 4, 4000
    told = readout_accuracy(code, values, readout, stimuli, labels, bits)
    steps = code.confusion(bits).cumsum(axis=1)
    for row in range(25):
        u = draw.random((n, 80, 1))
        taken_for = (u > steps[stimuli[row]]).sum(axis=2).clip(max=5)
        share = np.mean(readout.labels(values[taken_for]) == labels[row])
        # four standard errors, and what 80 summands differ from a Gaussian by
        assert told.by_stimulus[row] == pytest.approx(share, abs=4 * 0.5 / math.sqrt(n) + 0.01)


def test_values_that_are_never_confused_leave_the_readout_as_it_was():
    draw = np.random.default_rng(4)
    code = FirstSpike([1.2, 1.5, 2.0, 3.0], 0.02)
    readout = LinearReadout(draw.normal(size=(9, 3)), draw.normal(size=3))
    stimuli, labels = draw.integers(4, size=(40, 9)), draw.integers(3, size=40)
    values = np.array([0.0, 1.0, 2.0, 4.0])
    told = readout_accuracy(code, values, readout, stimuli, labels, code.separating_bits)
    shown = (readout.labels(values[stimuli]) == labels).astype(float)
    np.testing.assert_array_equal(told.by_stimulus, shown)
    assert told.accuracy == told.undisturbed
    assert told.spread == 0


@pytest.fixture(scope="module")
def digits():
    """Pixels of 597 digits from 0 to 16 with their labels, and a read-out fitted to 1,200 others.

    Chosen without regard to codes; it is right on .978 of the 597.
    """
    given = load_digits()
    pixels, order = given.data.astype(int), np.random.default_rng(0).permutation(1797)
    known, asked = order[:1200], order[1200:]
    fitted = LogisticRegression(max_iter=2000).fit(pixels[known] / 16, given.target[known])
    readout = LinearReadout(fitted.coef_.T, fitted.intercept_)
    return pixels[asked], given.target[asked], readout


@pytest.mark.parametrize("jitter", [0.0003, 0.003])
def test_digits_read_from_spikes_are_classified_as_well_as_the_calculus_says(digits, jitter):
    pixels, labels, readout = digits
    values = np.arange(17) / 16
    code = FirstSpike(1.1 + np.arange(17) / 8, 0.02, jitter)
    spikes = lif_spikes(1.1 + pixels.ravel() / 8, 0.06, jitter=jitter, seed=1)
    for bits in (1, 2, 3, 4, 6, 8):
        told = readout_accuracy(code, values, readout, pixels, labels, bits)
        decoded = code.decode(spikes.latencies, bits).reshape(pixels.shape)
        share = np.mean(readout.labels(values[decoded]) == labels)
        assert share == pytest.approx(told.accuracy, abs=min(0.02, 4 * told.spread))
        assert told.undisturbed > 0.97
    assert told.accuracy > code.accuracy(8) + 0.1  # pixels are taken for their neighbours


@pytest.mark.parametrize("window", [0.1, 0.3])
def test_digits_read_from_counts_are_classified_as_well_as_the_calculus_says(digits, window):
    pixels, labels, readout = digits
    values = np.arange(17) / 16
    code = PoissonCount(10.0 + 10 * np.arange(17), window)
    readings, found = 12, []
    counts = np.random.default_rng(5).poisson(
        code.rates[pixels] * window, (readings, *pixels.shape)
    )
    for bits in (1, 2, 3, 4, 6):
        told = readout_accuracy(code, values, readout, pixels, labels, bits)
        decoded = values[code.decode(counts, bits).reshape(counts.shape)]
        share = np.mean([readout.labels(one) == labels for one in decoded])
        beyond_chance = 4 * told.spread / math.sqrt(readings)
        assert share == pytest.approx(told.accuracy, abs=min(0.02, beyond_chance + 0.005))
        found.append(told.accuracy)
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"values": [0.0, 1.0, 2.0]}, "3 values for 2 classes"),
        ({"stimuli": np.zeros((3, 4), dtype=int)}, r"stimuli must be \(stimulus, 5\)"),
        ({"stimuli": np.full((3, 5), 2)}, "stimuli must be whole numbers from 0 to 1"),
        ({"labels": np.array([0, 1, 2])}, "labels must be whole numbers from 0 to 1"),
        ({"labels": np.array([0, 1])}, "labels for 3 stimuli"),
        ({"bits": 0}, "bits must lie from 1 to 24"),
    ],
)
def test_what_no_readout_can_take_is_refused(change, told):
    asked = {
        "code": NoisyLevels([0.2, 0.8], 0.1),
        "values": [0.0, 1.0],
        "readout": LinearReadout(np.ones((5, 2)), np.zeros(2)),
        "stimuli": np.zeros((3, 5), dtype=int),
        "labels": np.array([0, 1, 0]),
        "bits": 3,
    }
    with pytest.raises(ArgumentError, match=told):
        readout_accuracy(**{**asked, **change})


def test_a_readout_and_counts_that_are_none_are_refused():
    with pytest.raises(ArgumentError, match="two labels or more"):
        LinearReadout(np.ones((5, 1)), np.zeros(1))
    with pytest.raises(ArgumentError, match="is not finite"):
        LinearReadout(np.full((5, 2), np.inf), np.zeros(2))
    with pytest.raises(ArgumentError, match="2 counts are not whole numbers from 0"):
        PoissonCount([1.0, 2.0], 1.0).decode([0.5, 1.0, -1.0], 3)
