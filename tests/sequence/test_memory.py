import numpy as np
import pytest
import torch

import clinode
from clinode.sequence import MODELS
from clinode.sequence.memory import Memory

N_VARIABLES = 4


@pytest.fixture
def memory() -> Memory:
    memory = Memory(N_VARIABLES, pace=1.0).double()
    with torch.no_grad():
        memory.log_rate.copy_(torch.tensor([0.01, 0.1, 0.5, 2.0], dtype=torch.float64).log())
    return memory


def test_a_memory_is_the_last_value_faded_over_the_time_since(classified, memory):
    batch = classified.batch(np.arange(3, 12), torch.float64)
    shown = memory.before(batch).detach().numpy()
    rate = np.array([0.01, 0.1, 0.5, 2.0])
    subject, time = batch.row_subject.numpy(), batch.time.numpy()
    value, mask = batch.value.numpy(), batch.mask.numpy()
    for row in range(batch.n_rows):
        earlier = np.flatnonzero((subject == subject[row]) & (time < time[row]))
        for variable in range(N_VARIABLES):
            measured = earlier[mask[earlier, variable]]
            expected = 0.0  # never measured: the training mean
            if len(measured):
                last = measured[np.argmax(time[measured])]
                gap = time[row] - time[last]
                expected = value[last, variable] * np.exp(-rate[variable] * gap)
            assert shown[row, variable] == pytest.approx(expected, abs=1e-12)


def test_a_measurement_sets_the_memory_at_its_own_time(classified, memory):
    batch = classified.batch(np.arange(3, 12), torch.float64)
    row = batch.last_row.unsqueeze(1)
    at = memory.at(batch, batch.time[row], row)[:, 0]
    expected = torch.where(
        batch.mask[batch.last_row],
        batch.value[batch.last_row],
        memory.before(batch)[batch.last_row],
    )
    torch.testing.assert_close(at, expected)


def test_before_the_first_row_nothing_is_remembered(classified, memory):
    batch = classified.batch(np.arange(3, 12), torch.float64)
    asked = batch.prediction_time.unsqueeze(1) - 1000.0
    assert not memory.at(batch, asked, batch.row_before(asked)).any()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_an_untrained_model_expects_nearly_the_last_value(classified, build, name):
    model = build(classified, name)
    with torch.no_grad():
        model.decoder.weight[:, :-N_VARIABLES] = 0.0
        model.decoder.bias.zero_()
        batch = classified.batch(np.arange(3, 12), torch.float64)
        expected = model(batch).next_observation
        torch.testing.assert_close(expected, 0.7 * model.memory.before(batch), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["linear-latent-ode", "ode-rnn"])
def test_what_a_model_expects_is_what_its_system_shows_just_before_the_row(untreated, build, name):
    model = build(untreated, name)
    batch = untreated.batch(np.arange(3, 9), torch.float64)
    long = batch.lengths >= 3
    first, second = (torch.arange(len(batch)) + batch.offsets[step] for step in (1, 2))
    first, second = first[: batch.sizes[2]], second[: batch.sizes[2]]
    assert long[: batch.sizes[2]].all()
    with torch.no_grad():
        expected = model(batch).next_observation[second].numpy()
        start = model.latent(batch, _padded(batch.time[first], len(batch)))[: len(first), 0]
        system = model.latent_system
        times = torch.stack([torch.zeros(len(first)).double(), batch.gap[second]], dim=1)
        shown = clinode.simulate(system, start, times, method="dopri5", rtol=1e-9).outputs[:, 1]
    index = np.broadcast_to(np.arange(N_VARIABLES), expected.shape)
    in_units = untreated.schema.restore(index, expected)
    np.testing.assert_allclose(shown, in_units, rtol=1e-5)


def _padded(time: torch.Tensor, n: int) -> torch.Tensor:
    return torch.cat([time, time.new_zeros(n - len(time))]).unsqueeze(1)
