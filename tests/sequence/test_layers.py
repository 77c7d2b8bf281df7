import math

import pytest
import torch

from clinode.sequence.layers import dropout


@pytest.mark.parametrize("share", [0.3, 0.5, math.sqrt(0.5), 0.97])
def test_dropout_hides_its_share_and_keeps_the_mean(share):
    x = torch.ones(3, 1000, 1001)
    shown = dropout(x, share, torch.Generator().manual_seed(0))
    n = x.numel()
    hidden = (shown == 0).sum().item() / n
    assert abs(hidden - share) < 2e-5 + 4 * math.sqrt(share * (1 - share) / n)
    kept = shown[shown != 0]
    assert (kept == kept[0]).all()
    assert kept[0].item() == pytest.approx(1 / (1 - share), rel=1e-5 / (1 - share))


def test_entries_are_hidden_independently():
    generator = torch.Generator().manual_seed(1)
    hidden = (dropout(torch.ones(400_000), 0.5, generator) == 0).double() - 0.5
    for lag in (1, 2, 3, 4, 8):  # four entries share a word of the generator
        together = (hidden[lag:] * hidden[:-lag]).mean().item() * 4
        assert abs(together) < 4 / math.sqrt(len(hidden))


@pytest.mark.parametrize("shape", [(0, 3), (1,), (3, 5)])
def test_dropout_takes_any_shape_and_is_the_identity_without_a_generator(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert dropout(x, 0.4, torch.Generator().manual_seed(0)).shape == x.shape
    assert dropout(x, 0.4, None) is x
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert dropout(x, 0.0, generator) is x
    assert torch.equal(generator.get_state(), before)
