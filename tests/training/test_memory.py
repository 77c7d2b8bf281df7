import json
import sys

import numpy as np
import pytest
import torch

from clinode.cohort import PackedRecords, Preprocessor
from clinode.errors import ResourceError
from clinode.sequence import GRUD, LinearLatentODE
from clinode.training import FitConfig, fit
from clinode.training.memory import (
    MemoryNeed,
    _Living,
    available_bytes,
    check_memory,
    held_bytes,
    memory_need,
    size,
)

NEED = MemoryNeed(held=2e9, weights=1e6, step=5e9, evaluation=1e9, rows=1000)


def test_living_tensors_are_counted_until_they_die_and_views_for_nothing():
    with _Living() as living:
        one = torch.zeros(1000, dtype=torch.float64)
        other = one + 1
        view = other.view(10, 100)
        del other
        assert living._now == 16_000
        del view
        assert living._now == 8_000
    assert living.peak == 16_000


def test_what_a_gradient_keeps_is_counted():
    weight = torch.randn(100, 100, requires_grad=True)
    with _Living() as living:
        x = torch.randn(1000, 100)
        y = torch.tanh(x @ weight)  # the product may go, its tanh is kept for the gradient
        del x
        torch.autograd.grad(y.sum(), weight)
    kept = 2 * 1000 * 100 * 4  # x and tanh
    assert kept <= living.peak <= 2.5 * kept


def need_of(model, records, config, **options):
    return memory_need(
        model, records, positions=records.trainable, tune=None, config=config, seed=0, **options
    )


@pytest.mark.parametrize("family", [LinearLatentODE, GRUD])
def test_the_need_grows_with_the_batch_and_shrinks_by_accumulation(family, train, task):
    schema = Preprocessor.fit(train, task)
    records = PackedRecords.build(train, schema, task)
    model = family().build(schema, task, torch.Generator().manual_seed(0))
    model.prepare(records)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    large = need_of(model, records, FitConfig(batch_size=64))
    small = need_of(model, records, FitConfig(batch_size=8))
    shared = need_of(model, records, FitConfig(batch_size=64, accumulate=4), n_processes=2)
    gradients = sum(p.nbytes for p in model.parameters())
    assert large.rows > 4 * small.rows
    slopes = [(need.step - gradients) / need.rows for need in (large, small, shared)]
    np.testing.assert_allclose(slopes, slopes[0])
    assert shared.rows == -(-large.rows // 8)
    assert large.weights == 6 * sum(value.nbytes for value in before.values())
    for name, value in model.state_dict().items():  # it was only looked at
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)
    assert all(p.grad is None for p in model.parameters())


def test_the_words_say_how_much_and_warn_before_they_refuse():
    assert check_memory(NEED, None) == check_memory(NEED, 1e12) == NEED.words()
    assert "about 7.1 GB at most, 2.0 GB of them held already" in NEED.words()
    assert "memory may run out: a fit that needs about 5.1 GB more, and 4.5 GB" in check_memory(
        NEED, 4.5e9
    )
    with pytest.raises(ResourceError, match=r"memory will not do: .* 3.0 GB are available") as told:
        check_memory(NEED, 3e9)
    assert told.value.exit_code == 6
    assert "accumulate" in told.value.fix


def test_a_fit_that_cannot_do_with_the_memory_is_refused_before_its_first_step(
    train, task, small_model, small_config, tmp_path, monkeypatch
):
    module = sys.modules["clinode.training.fit"]  # `clinode.training.fit` is the function
    monkeypatch.setattr(module, "available_bytes", lambda device: 1e6)
    with pytest.raises(ResourceError, match="memory will not do"):
        fit(small_model, train, task=task, out=tmp_path / "run", config=small_config)
    assert not (tmp_path / "run").exists()
    log = (tmp_path / "run.unfinished" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in log] == ["start"]


def test_the_log_of_a_fit_says_what_was_expected(fitted):
    told = [json.loads(line) for line in (fitted.folder / "log.jsonl").read_text().splitlines()]
    (memory,) = [line for line in told if line["event"] == "memory"]
    assert memory["expected_peak_bytes"] > 1e6
    assert told.index(memory) == 1


def test_this_machine_says_what_is_held_and_what_there_is():
    held, free = held_bytes(), available_bytes(torch.device("cpu"))
    if held is None or free is None:
        pytest.skip("this system does not say how much memory there is")
    assert 1e7 < held < 1e12
    assert 1e7 < free < 1e14


def test_sizes_read_well():
    assert [size(n) for n in (1e3, 9.9e8, 1e9)] == ["1 MB", "990 MB", "1.0 GB"]
