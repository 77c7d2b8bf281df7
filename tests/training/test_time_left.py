import numpy as np
import pytest

from clinode.training.progress import left_in_words
from clinode.training.time_left import TimeLeft, duration


class Clock:
    """Seconds that pass only when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def train(left, clock, batches, *, per_row, per_epoch, warm_up=0.0, noise=None):
    """One epoch whose steps cost in proportion to their rows; estimates after each step."""
    told = []
    for k, rows in enumerate(batches):
        clock.now += per_row * rows * (1 if noise is None else noise[k])
        clock.now += warm_up if k < 2 else 0.0
        left.stepped(int(rows))
        told.append(left.seconds)
    clock.now += per_epoch
    left.closed()
    return told


def test_after_one_epoch_the_time_left_is_what_it_takes_where_rows_cost_alike():
    generator, clock = np.random.default_rng(0), Clock()
    epochs, per_row, per_epoch = 6, 0.003, 4.0
    records = generator.integers(5, 300, (20, 16))
    left = TimeLeft(int(records.sum()), epochs, clock=clock)
    noise = generator.uniform(0.8, 1.2, 20)
    train(left, clock, records.sum(1), per_row=per_row, per_epoch=per_epoch, noise=noise, warm_up=9)
    expected = (epochs - 1) * (per_row * records.sum() + per_epoch)
    assert left.seconds == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("seed", range(20))
def test_sorted_batches_of_unlike_length_do_not_mislead_within_an_epoch(seed):
    generator, clock = np.random.default_rng(seed), Clock()
    batches = np.sort(generator.lognormal(5, 1, 60)).astype(int) + 1  # the long ones last
    left = TimeLeft(int(batches.sum()), 2, clock=clock)
    told = train(left, clock, batches, per_row=0.01, per_epoch=0.0)
    done = np.cumsum(batches)
    expected = 0.01 * (2 * batches.sum() - done)
    assert told[:6] == [None] * 6
    np.testing.assert_allclose(told[6:], expected[6:], rtol=1e-9)


def test_the_pace_is_that_of_the_last_epoch():
    clock = Clock()
    left = TimeLeft(100, 4, clock=clock)
    for per_row in (0.1, 0.2, 0.4):  # a field that grows stiffer
        train(left, clock, [10] * 10, per_row=per_row, per_epoch=0.0)
    assert left.seconds == pytest.approx(100 * 0.4)


def test_a_fit_that_goes_on_counts_only_what_is_left():
    clock = Clock()
    left = TimeLeft(100, 2, rows_done=60, clock=clock)
    clock.now += 50  # what came before the first step of the process
    left = TimeLeft(100, 2, rows_done=60, clock=clock)
    train(left, clock, [10, 10, 10, 10], per_row=1.0, per_epoch=5.0)
    assert left.seconds == pytest.approx(100 + 5)
    train(left, clock, [25] * 4, per_row=1.0, per_epoch=5.0)
    assert left.seconds is None


def test_an_epoch_of_one_step_is_enough():
    clock = Clock()
    left = TimeLeft(10, 3, clock=clock)
    assert left.seconds is None
    train(left, clock, [10], per_row=1.0, per_epoch=2.0)
    assert left.seconds == pytest.approx(24.0)


def test_patience_makes_it_at_most():
    assert left_in_words(8.0, may_stop_early=True) == "at most 8 s left"
    assert left_in_words(8.0, may_stop_early=False) == "about 8 s left"
    assert left_in_words(None, may_stop_early=True) == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(59.2, "1 min 0 s"), (599.0, "9 min 59 s"), (3599.0, "1 h 0 min")]
)
def test_durations_round_up_without_sixty_of_anything(seconds, words):
    assert duration(seconds) == words
