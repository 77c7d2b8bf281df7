import math

import numpy as np
import pytest
import torch
from torch import nn

from clinode.training.config import FitConfig
from clinode.training.optimise import (
    AdamW,
    epoch_batches,
    isolated_randomness,
    keyed_generator,
    learning_rate,
    n_steps_per_epoch,
    start_average,
    update_average,
)


@pytest.mark.parametrize("n_records", [1, 63, 64, 65, 640, 641, 4000])
def test_every_record_is_drawn_once_an_epoch_in_full_batches(n_records):
    config = FitConfig()
    lengths = np.random.default_rng(0).integers(1, 200, n_records)
    batches = epoch_batches(lengths, config, seed=0, epoch=3)
    assert sorted(np.concatenate(batches)) == list(range(n_records))
    assert len(batches) == n_steps_per_epoch(n_records, config) == math.ceil(n_records / 64)
    assert sorted(len(batch) for batch in batches)[1:] == [64] * (len(batches) - 1)


def test_batches_hold_records_of_like_length():
    lengths = np.random.default_rng(1).integers(1, 1000, 6400)
    batches = epoch_batches(lengths, FitConfig(), seed=0, epoch=0)
    spread_within = np.mean([np.ptp(lengths[batch]) for batch in batches])
    assert spread_within < 0.15 * np.ptp(lengths)  # a random batch of 64 spans 97 % of the range


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_and_on_nothing_else():
    lengths = np.arange(200)
    config = FitConfig(batch_size=16, bucket_batches=2)

    def order(seed, epoch):
        return np.concatenate(epoch_batches(lengths, config, seed=seed, epoch=epoch)).tolist()

    first = order(0, 0)
    torch.manual_seed(5)
    np.random.default_rng(1).random(3)
    assert order(0, 0) == first
    assert order(1, 0) != first
    assert order(0, 1) != first


def test_the_rate_is_a_linear_warm_up_times_a_cosine_to_zero():
    config = FitConfig(learning_rate=2e-3, warmup=0.1)
    rates = [learning_rate(k, 630, config) for k in range(630)]
    expected = [
        2e-3 * min(1.0, (k + 1) / 63) * (1 + math.cos(math.pi * k / 630)) / 2 for k in range(630)
    ]
    np.testing.assert_allclose(rates, expected, rtol=1e-13)
    assert rates[62] == max(rates)
    assert rates[-1] < 1e-7


def test_a_fit_of_one_step_has_a_positive_rate():
    assert learning_rate(0, 1, FitConfig(warmup=0.0)) == pytest.approx(2e-3)


def test_averaged_weights_equal_the_recursion_worked_by_hand():
    model = nn.Linear(1, 1, bias=False)
    values = [1.0, 2.0, 4.0, 8.0]
    with torch.no_grad():
        model.weight.fill_(values[0])
    average = start_average(model)
    for step, value in enumerate(values[1:]):
        with torch.no_grad():
            model.weight.fill_(value)
        update_average(average, model, step, decay=0.98)
    # d = 1/10, 2/11, 3/12: the warm-up, far below .98
    expected = 1.0
    for d, value in zip((1 / 10, 2 / 11, 3 / 12), values[1:], strict=True):
        expected = d * expected + (1 - d) * value
    assert average["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_a_late_average_forgets_at_the_stated_rate():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = {"weight": torch.ones(1, 1)}
    for step in range(1000, 1010):
        update_average(average, model, step, decay=0.98)
    assert average["weight"].item() == pytest.approx(0.98**10, rel=1e-5)


def test_counters_in_buffers_are_copied_and_not_averaged():
    model = nn.BatchNorm1d(2)
    average = start_average(model)
    counter = model.num_batches_tracked
    assert counter is not None
    counter.add_(7)
    update_average(average, model, 0, decay=0.98)
    assert average["num_batches_tracked"].item() == 7


def quadratic_step(model, step):
    model.zero_grad()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
    model(x).square().sum().backward()


def test_the_optimiser_takes_the_steps_of_torchs_own():
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizer = AdamW(ours, weight_decay=0.1)
    reference = torch.optim.AdamW(
        [
            {"params": [theirs.weight], "weight_decay": 0.1},
            {"params": [theirs.bias], "weight_decay": 0.0},
        ]
    )
    for step in range(20):
        rate = 0.01 * (1 + step)
        for group in reference.param_groups:
            group["lr"] = rate
        quadratic_step(ours, step)
        quadratic_step(theirs, step)
        optimizer.step(rate)
        reference.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-6, atol=1e-7)


def test_only_matrices_decay():
    model = nn.Linear(3, 2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    AdamW(model, weight_decay=0.1).step(0.5)
    torch.testing.assert_close(model.weight.detach(), before["weight"] * (1 - 0.5 * 0.1))
    torch.testing.assert_close(model.bias.detach(), before["bias"])


def test_a_weight_that_was_not_used_keeps_its_value_and_its_count():
    model = nn.Linear(3, 2)
    before = model.bias.detach().clone()
    optimizer = AdamW(model, weight_decay=0.1)
    quadratic_step(model, 0)
    model.bias.grad = None
    optimizer.step(0.1)
    assert torch.equal(model.bias.detach(), before)
    assert {name.split("/")[1] for name in optimizer.moments} == {"weight"}


def test_an_optimiser_restored_from_its_moments_steps_as_the_one_that_went_on():
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer = AdamW(model, weight_decay=0.1)
    for step in range(3):
        quadratic_step(model, step)
        optimizer.step(0.01)
    other.load_state_dict(model.state_dict())
    restored = AdamW(other, 0.1, {k: v.clone() for k, v in optimizer.moments.items()})
    for step in range(3, 6):
        quadratic_step(model, step)
        optimizer.step(0.01)
        quadratic_step(other, step)
        restored.step(0.01)
    assert torch.equal(model.weight, other.weight)
    assert torch.equal(model.bias, other.bias)


def test_draws_of_different_purposes_are_independent_streams():
    draws = [
        torch.rand(2000, generator=keyed_generator(seed, purpose, step))
        for seed in (0, 1)
        for purpose in ("loss", "order")
        for step in (0, 1)
    ]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert correlation.abs().max() < 5 / math.sqrt(2000)


def test_layers_that_draw_globally_repeat_and_leave_the_callers_stream_alone():
    torch.manual_seed(11)
    expected_later = torch.rand(3)
    torch.manual_seed(11)
    draws = []
    for _ in range(2):
        with isolated_randomness(4, torch.device("cpu")):
            draws.append(torch.dropout(torch.ones(50), 0.5, True))
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(torch.rand(3), expected_later)
