import numpy as np
import pytest
import torch

from clinode.brain.connectome import simulate_connectome
from clinode.errors import ArgumentError


@pytest.mark.parametrize("n", [4, 10, 68, 90, 200])
def test_a_generated_connectome_is_whole_symmetric_and_named(n):
    found = simulate_connectome(n, seed=3)
    assert found.n_regions == n
    assert found.findings == ()
    assert not found.is_directed
    assert float(found.weights.max()) == 1.0
    assert "lh_precuneus" in found.labels
    left, right = found.labels[: n // 2], found.labels[n // 2 :]
    assert [name.replace("lh_", "rh_") for name in left] == list(right)
    assert found.centers is not None
    assert found.centers[: n // 2, 0].mean() < 0 < found.centers[n // 2 :, 0].mean()


def test_generated_weights_fall_with_distance():
    found = simulate_connectome(100, seed=0)
    assert found.tract_lengths is not None
    lengths, W = found.tract_lengths[:50, :50], found.weights[:50, :50]
    log = W[W > 0].log()
    assert np.corrcoef(lengths[W > 0], log)[0, 1] < -0.4


def test_one_seed_gives_one_connectome():
    first, again, other = (simulate_connectome(20, seed) for seed in (1, 1, 2))
    assert torch.equal(first.weights, again.weights)
    assert not torch.equal(first.weights, other.weights)


@pytest.mark.parametrize("n", [3, 2, 7])
def test_two_hemispheres_have_an_even_number_of_regions(n):
    with pytest.raises(ArgumentError, match="even number"):
        simulate_connectome(n)
