import numpy as np
import pytest
import torch

from clinode.attribution.path import integrate_path, relative_gap, row_gradients


def zeros(x):
    return torch.zeros_like(x)


def latch(steepness, threshold=0.7, low=2.0):
    """A gate that closes within 1/steepness of the path, as a latching recurrent state does."""
    return lambda x, which: low * torch.sigmoid(steepness * (x.mean(dim=1) - threshold))


def dense_reference(function, x, baseline, n_nodes=20_000):
    """Integrated gradients of one row by the midpoint rule on a very fine grid."""
    alpha = (torch.arange(n_nodes, dtype=torch.float64) + 0.5) / n_nodes
    rows = baseline + alpha.unsqueeze(1) * (x - baseline)
    which = torch.zeros(n_nodes, dtype=torch.int64)
    return row_gradients(function, rows, which).mean(dim=0) * (x - baseline)


def test_polynomials_up_to_degree_nine_are_integrated_exactly():
    x = torch.tensor([[0.5, -1.5, 2.0]], dtype=torch.float64)
    for power in range(1, 10):
        path = integrate_path(lambda x, _, p=power: (x**p).sum(1), x, zeros(x))
        torch.testing.assert_close(path.values, x**power, rtol=1e-12, atol=1e-12)
        assert path.converged.all()


def test_a_product_is_shared_equally_between_its_factors_along_the_straight_path():
    x = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    path = integrate_path(lambda x, _: x[:, 0] * x[:, 1], x, zeros(x))
    torch.testing.assert_close(path.values, torch.tensor([[-6.0, -6.0]], dtype=torch.float64))


@pytest.mark.parametrize("steepness", [1e2, 1e3, 1e4, 1e5])
def test_a_latch_is_resolved_however_steep_it_is(steepness):
    x = torch.ones(1, 4, dtype=torch.float64)
    path = integrate_path(latch(steepness), x, zeros(x))
    gap = relative_gap(path.values, path.output, path.base)
    assert path.converged.all()
    assert gap[0] <= 0.01
    # by symmetry each entry owns a quarter of the change
    torch.testing.assert_close(path.values, torch.full((1, 4), 0.5).double(), rtol=0.01, atol=0)


def test_attributions_along_a_latch_agree_with_a_very_fine_grid_entry_by_entry():
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(6, generator=generator, dtype=torch.float64)

    def function(x, which):
        gate = torch.sigmoid(400 * (x @ weights.abs() / 6 - 0.3))
        return gate * torch.sin(x @ weights) + 0.5 * (x**2).sum(1)

    x = torch.rand(5, 6, generator=generator, dtype=torch.float64) + 0.5
    path = integrate_path(function, x, zeros(x))
    for row in range(5):
        reference = dense_reference(function, x[row], zeros(x[row]))
        error = (path.values[row] - reference).abs().sum() / reference.abs().sum()
        assert error < 0.01


def test_errors_that_cancel_in_the_sum_are_still_seen():
    # two gates that open at the same place with opposite signs: f never changes along the path,
    # so completeness alone would accept any grid
    def function(x, which):
        first, second = (torch.sigmoid(60 * (x[:, j] - 0.6)) for j in range(2))
        return 3 * first - 3 * second

    x = torch.ones(1, 2, dtype=torch.float64)
    path = integrate_path(function, x, zeros(x))
    assert path.converged.all()
    expected = torch.tensor([[3.0, -3.0]], dtype=torch.float64)
    torch.testing.assert_close(path.values, expected, rtol=0.02, atol=0)


def test_a_jump_is_reported_as_not_converged_and_never_rescaled():
    # the gradient of a step is zero wherever it exists
    x = torch.ones(2, 3, dtype=torch.float64)
    path = integrate_path(
        lambda x, _: torch.where(x.mean(1) > 0.37, 1.0, 0.0) + 0.1 * x.sum(1), x, zeros(x)
    )
    assert not path.converged.any()
    torch.testing.assert_close(path.values, torch.full((2, 3), 0.1).double())
    gap = relative_gap(path.values, path.output, path.base)
    np.testing.assert_allclose(gap, 1 / 1.3)


def test_the_reported_error_bounds_the_completeness_gap():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(50, 5, generator=generator, dtype=torch.float64)
    path = integrate_path(latch(200.0, threshold=0.4), x, zeros(x))
    gap = relative_gap(path.values, path.output, path.base)
    assert (gap <= path.error.numpy() + 1e-12).all()
    assert path.converged.all()
    assert (gap <= 0.01).all()


def test_a_row_leaves_the_batch_when_it_has_arrived_and_pays_only_for_itself():
    x = torch.ones(2, 2, dtype=torch.float64)

    def function(x, which):
        smooth, steep = x.sum(1), 2 * torch.sigmoid(5e3 * (x.mean(1) - 0.7))
        return torch.where(which == 0, smooth, steep)

    together = integrate_path(function, x, zeros(x))
    alone = integrate_path(lambda x, _: x.sum(1), x[:1], zeros(x[:1]))
    assert together.rows_used[0] == alone.rows_used[0]
    assert together.rows_used[1] > 4 * together.rows_used[0]


def test_results_do_not_depend_on_batch_mates_or_batch_size():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    function = latch(300.0, threshold=0.1)
    together = integrate_path(function, x, zeros(x))
    small = integrate_path(function, x, zeros(x), batch_size=3)
    alone = torch.cat(
        [integrate_path(function, x[i : i + 1], zeros(x[:1])).values for i in range(7)]
    )
    torch.testing.assert_close(together.values, small.values, rtol=0, atol=1e-12)
    torch.testing.assert_close(together.values, alone, rtol=0, atol=1e-12)


def test_an_unmoved_entry_gets_exactly_zero():
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    baseline = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    path = integrate_path(lambda x, _: torch.exp(x.sum(1)), x, baseline)
    assert path.values[0, 1] == 0.0


def test_an_infinite_gradient_ends_as_not_converged():
    x = torch.ones(1, 2, dtype=torch.float64)
    path = integrate_path(lambda x, _: (x.sum(1) - 1).abs().log(), x, zeros(x))
    assert not path.converged.any()


def test_float32_functions_are_summed_in_float64():
    x = torch.rand(1, 500, generator=torch.Generator().manual_seed(0))
    path = integrate_path(lambda x, _: x.sum(1), x, zeros(x))
    assert path.values.dtype == torch.float64
    torch.testing.assert_close(path.values, x.double(), rtol=0, atol=1e-15)
