import itertools
import warnings

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients

from clinode.attribution import METHODS, attribute
from clinode.attribution.methods import COALITIONS
from clinode.errors import ArgumentError

COMPLETE = ["integrated_gradients", "captum_integrated_gradients"]


@pytest.fixture
def x():
    return torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], dtype=torch.float64)


@pytest.fixture
def baseline():
    return torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("method", [*COMPLETE, "input_x_gradient"])
def test_a_linear_function_is_its_own_explanation(method, x, baseline):
    slope = torch.tensor([2.0, -1.0, 4.0], dtype=torch.float64)
    found = attribute(lambda x: x @ slope + 7, x, baseline, method=method)
    # Captum's float32 step weights cost eight digits
    tolerance = 1e-6 if method.startswith("captum") else 1e-14
    torch.testing.assert_close(found.values, (x - baseline) * slope, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.output - found.base, ((x - baseline) @ slope).numpy())


@pytest.mark.parametrize("method", COMPLETE)
def test_a_quadratic_form_has_the_closed_form_mean_of_its_end_gradients(method, x, baseline):
    A = torch.tensor([[2.0, 1.0, 0.0], [1.0, -3.0, 0.5], [0.0, 0.5, 1.0]], dtype=torch.float64)
    found = attribute(lambda x: ((x @ A) * x).sum(1), x, baseline, method=method)
    expected = (x - baseline) * ((x + baseline) @ A)
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-6)


def test_saliency_keeps_the_sign_of_the_gradient(x, baseline):
    found = attribute(lambda x: x[:, 0] - 2 * x[:, 1], x, baseline, method="saliency")
    torch.testing.assert_close(found.values, torch.tensor([[1.0, -2.0, 0.0]] * 2).double())
    assert np.isnan(found.gap).all()
    assert not found.withheld.any()
    assert all("completeness does not apply" in why for why in found.why)


def test_input_x_gradient_reports_a_gap_that_it_does_not_promise_away(x, baseline):
    found = attribute(lambda x: (x**2).sum(1), x, baseline, method="input_x_gradient")
    torch.testing.assert_close(found.values, 2 * x * (x - baseline))
    assert (found.gap > 0.01).any()
    assert not found.withheld.any()


def latching(x):
    return 2 * torch.sigmoid(5e4 * (x.mean(dim=1) - 0.7017))


def test_fifty_fixed_steps_miss_a_latch_and_are_withheld_while_bisection_resolves_it():
    x, baseline = torch.ones(1, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    fixed = attribute(latching, x, baseline, method="captum_integrated_gradients")
    adaptive = attribute(latching, x, baseline)
    assert fixed.gap[0] > 0.05
    assert fixed.withheld[0]
    assert "not converged" in fixed.why[0]
    assert fixed.values.isnan().all()
    assert not adaptive.withheld[0]
    assert adaptive.gap[0] <= 0.01
    torch.testing.assert_close(adaptive.values, torch.full((1, 4), 0.5).double(), rtol=0.01, atol=0)


def test_more_fixed_steps_do_not_help_a_steep_latch_at_forty_times_the_price():
    x, baseline = torch.ones(1, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    fixed = attribute(latching, x, baseline, method="captum_integrated_gradients", n_steps=800)
    adaptive = attribute(latching, x, baseline)
    assert fixed.gap[0] > 0.05
    assert adaptive.rows_used[0] < 400


def test_adaptive_sums_are_exact_in_float64_where_captums_weights_are_float32(x, baseline):
    A = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def function(x):
        return ((x @ A) * x).sum(1)

    adaptive = attribute(function, x, baseline)
    captum = attribute(function, x, baseline, method="captum_integrated_gradients")
    assert adaptive.gap.max() < 1e-14
    assert 1e-12 < captum.gap.max() < 1e-6


def test_impulse_attributions_of_a_linear_system_are_its_controllability_gramian():
    # x+ = A x + B u, output c x_T: IG of input u_jt is c A^(T-1-t) b_j u_jt, and the squared
    # saliency of input j summed over time is c W_j c'
    generator = torch.Generator().manual_seed(2)
    n, m, T = 4, 3, 12
    A = 0.4 * torch.randn(n, n, generator=generator, dtype=torch.float64)
    B = torch.randn(n, m, generator=generator, dtype=torch.float64)
    c = torch.randn(n, generator=generator, dtype=torch.float64)

    def function(u):
        state = torch.zeros(len(u), n, dtype=torch.float64)
        for t in range(T):
            state = state @ A.T + u[:, t] @ B.T
        return state @ c

    u = torch.randn(2, T, m, generator=generator, dtype=torch.float64)
    gains = torch.stack([c @ torch.linalg.matrix_power(A, T - 1 - t) @ B for t in range(T)])
    gradients = attribute(function, u, torch.zeros_like(u))
    torch.testing.assert_close(gradients.values, gains * u, rtol=0, atol=1e-12)
    saliency = attribute(function, u, torch.zeros_like(u), method="saliency").values[0]
    for j in range(m):
        powers = torch.stack([torch.linalg.matrix_power(A, k) @ B[:, j] for k in range(T)])
        gramian = powers.T @ powers
        torch.testing.assert_close((saliency[:, j] ** 2).sum(), c @ gramian @ c)


def test_an_image_shaped_input_keeps_its_shape():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(48, 5)
    )
    with torch.no_grad():
        for number, weight in enumerate(network.parameters()):
            weight.normal_(generator=torch.Generator().manual_seed(number))
    image = torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(9))
    found = attribute(lambda x: network(x)[:, 2], image, torch.zeros(2, 6, 6))
    assert found.values.shape == image.shape
    shown = ~found.withheld
    assert shown.any()
    np.testing.assert_allclose(
        found.values.sum(dim=(1, 2, 3)).numpy()[shown],
        (found.output - found.base)[shown],
        atol=0.01 * max(0.1, float(np.abs(found.output - found.base).max())),
    )


class TimeAware(torch.nn.Module):
    """A recurrent cell that reads each subject's own times, as a cohort model does."""

    def forward(self, value, time):
        if (time.diff(dim=1) <= 0).any():
            raise ValueError("times must increase")
        state = value[:, 0]
        for k in range(1, value.shape[1]):
            state = torch.tanh(state * torch.exp(-(time[:, k] - time[:, k - 1])) + value[:, k])
        return state


def test_a_time_grid_shared_by_all_rows_breaks_in_captum_but_not_when_closed_over():
    time = torch.tensor([0.0, 0.3, 1.0, 1.7], dtype=torch.float64)
    value = torch.rand(3, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    model = TimeAware()
    with pytest.raises((ValueError, IndexError)):
        # a tensor among the extra arguments is repeated along its first axis, here the times
        IntegratedGradients(lambda v, t: model(v, t.unsqueeze(0).expand(len(v), -1))).attribute(
            value, additional_forward_args=(time,)
        )
    for method in METHODS:
        found = attribute(
            lambda v: model(v, time.expand(len(v), -1)),
            value,
            torch.zeros(4).double(),
            method=method,
        )
        assert found.values.isfinite().all()


@pytest.mark.parametrize("method", list(METHODS))
def test_no_call_of_the_function_gets_more_rows_than_the_batch_size(method):
    sizes = []

    def function(x):
        sizes.append(len(x))
        return torch.sigmoid(40 * x.mean(1))

    n = 3 if method == "kernel_shap" else 23  # which draws two thousand coalitions a row
    x = torch.rand(n, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    many = attribute(function, x, torch.full((3,), -1.0).double(), method=method, batch_size=16)
    assert max(sizes) <= 16
    one = attribute(function, x[:1], torch.full((3,), -1.0).double(), method=method, batch_size=16)
    torch.testing.assert_close(many.values[:1], one.values, rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", list(METHODS))
def test_a_recurrent_layer_stays_in_evaluation_mode_with_cudnn_off_only_while_explaining(method):
    torch.manual_seed(0)
    gru = torch.nn.GRU(2, 4, num_layers=2, dropout=0.5, batch_first=True).double().eval()
    seen = []

    def function(x):
        seen.append((torch.backends.cudnn.enabled, gru.training))
        return gru(x)[0][:, -1].sum(1)

    before = torch.backends.cudnn.enabled
    x = torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    first = attribute(function, x, torch.zeros(5, 2).double(), method=method)
    again = attribute(function, x, torch.zeros(5, 2).double(), method=method)
    assert set(seen) == {(False, False)}
    assert torch.backends.cudnn.enabled == before
    torch.testing.assert_close(first.values, again.values, rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", list(METHODS))
def test_a_recurrent_layer_in_evaluation_mode_is_explained_on_a_gpu_as_on_the_cpu(method):
    torch.manual_seed(0)
    gru = torch.nn.GRU(2, 4, batch_first=True).double().eval()
    x = torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    zero = torch.zeros(5, 2).double()
    here = attribute(lambda x: gru(x)[0][:, -1].sum(1), x, zero, method=method)
    gru.cuda()
    there = attribute(lambda x: gru(x)[0][:, -1].sum(1), x.cuda(), zero.cuda(), method=method)
    torch.testing.assert_close(there.values, here.values, rtol=0, atol=1e-9)


def test_parameters_gather_no_gradient_while_inputs_are_explained():
    layer = torch.nn.Linear(3, 1).double()
    x = torch.ones(2, 3, dtype=torch.float64)
    for method in METHODS:
        attribute(lambda x: layer(x).squeeze(-1), x, torch.zeros(3).double(), method=method)
    assert layer.weight.grad is None


@pytest.mark.parametrize("name", ["deeplift", "deep_lift", "DeepLift", "deeplift_shap"])
def test_deeplift_is_refused_with_its_reason(name, x, baseline):
    with pytest.raises(ArgumentError, match="refused: DeepLIFT raises on every model that reuses"):
        attribute(lambda x: x.sum(1), x, baseline, method=name)


@pytest.mark.parametrize("name", ["gradcam", "lime", "shap"])
def test_an_unknown_method_is_told_what_there_is(name, x, baseline):
    with pytest.raises(ArgumentError, match="there are: integrated_gradients, captum_integrated"):
        attribute(lambda x: x.sum(1), x, baseline, method=name)


def test_a_misspelt_method_is_told_the_nearest_one(x, baseline):
    with pytest.raises(ArgumentError, match="Fix: use 'saliency'"):
        attribute(lambda x: x.sum(1), x, baseline, method="salience")


def test_calls_that_cannot_be_answered_are_refused_in_words(x, baseline):
    with pytest.raises(ArgumentError, match="one number a row"):
        attribute(lambda x: x, x, baseline)
    with pytest.raises(ArgumentError, match="floating point"):
        attribute(lambda x: x.sum(1), torch.ones(2, 3, dtype=torch.int64), baseline)
    with pytest.raises(ArgumentError, match="does not fit"):
        attribute(lambda x: x.sum(1), x, torch.zeros(4).double())
    with pytest.raises(ArgumentError, match="tolerance"):
        attribute(lambda x: x.sum(1), x, baseline, tolerance=0.0)
    with pytest.raises(ArgumentError, match="at least one entry"):
        attribute(lambda x: x.sum(1), x[:0], baseline)


def test_a_function_that_is_not_finite_is_withheld_in_words_and_its_neighbor_is_not():
    x = torch.tensor([[1.0, 1.0], [4.0, 5.0]], dtype=torch.float64)

    found = attribute(lambda x: torch.sqrt(x - 3).sum(1), x, torch.full((2,), 4.0).double())
    assert found.withheld.tolist() == [True, False]
    assert "not finite" in found.why[0]
    assert found.to_dict()["values"][0] == [None, None]
    assert found.to_dict()["output"][0] is None


def test_captum_and_ours_agree_on_a_smooth_network():
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    network = network.double()
    x = torch.randn(10, 6, generator=torch.Generator().manual_seed(7), dtype=torch.float64)

    def function(x):
        return network(x).squeeze(-1)

    ours = attribute(function, x, torch.zeros(6).double())
    captum = attribute(function, x, torch.zeros(6).double(), method="captum_integrated_gradients")
    torch.testing.assert_close(ours.values, captum.values, rtol=0, atol=1e-5)


def test_no_method_warns():
    x = torch.ones(2, 3, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in METHODS:
            attribute(lambda x: (x**2).sum(1), x, torch.zeros(3).double(), method=method)


GRADIENTS = [name for name in METHODS if name not in COALITIONS]
FIELD = (slice(1, 4), slice(4, 7))  # all that the planted network looks at, of 8 by 8


class LooksAtOnePlace(torch.nn.Module):
    """Convolutions, a rectifier and pooling over one place of the image; blind everywhere else."""

    def __init__(self):
        super().__init__()
        self.filters = torch.nn.Conv2d(1, 6, 3)
        self.label = torch.nn.Linear(6, 4)
        draw = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for weight in self.parameters():
                weight.normal_(generator=draw)

    def forward(self, images):
        seen = images[:, None, FIELD[0], FIELD[1]]
        answers = torch.relu(self.filters(torch.nn.functional.pad(seen, (1, 1, 1, 1))))
        return self.label(torch.tanh(answers.mean(dim=(2, 3))))


@pytest.fixture(scope="module")
def blind_network():
    return LooksAtOnePlace().double()


@pytest.fixture(scope="module")
def images():
    return torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(12), dtype=torch.float64)


PATCHES = torch.arange(8)[:, None] // 2 * 4 + torch.arange(8) // 2  # 16 of 2 by 2


@pytest.mark.parametrize("method", GRADIENTS)
def test_pixels_outside_a_convolution_s_receptive_field_get_nothing_by_gradients(
    method, blind_network, images
):
    found = attribute(lambda x: blind_network(x)[:, 2], images, torch.zeros(8, 8), method=method)
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[FIELD] = False
    assert found.values.shape == images.shape
    given = found.values[torch.from_numpy(~found.withheld)]
    assert len(given) >= 2  # Captum's fixed steps may miss a rectifier's kink
    assert (given[:, outside] == 0).all()
    assert (given[:, ~outside].abs().sum(dim=1) > 0).all()
    if method == "integrated_gradients":
        assert not found.withheld.any()
        np.testing.assert_allclose(given.sum(dim=(1, 2)), found.output - found.base, atol=0.01)


@pytest.mark.parametrize("method", list(COALITIONS))
def test_patches_outside_a_convolution_s_receptive_field_get_nothing_when_left_out(
    method, blind_network, images
):
    found = attribute(
        lambda x: blind_network(x)[:, 2], images, torch.zeros(8, 8), method=method, groups=PATCHES
    )
    inside = torch.zeros(16, dtype=torch.bool)
    inside[PATCHES[FIELD].flatten()] = True
    outside = ~inside[PATCHES]
    # Kernel SHAP is a regression over coalitions that were drawn
    tolerance = 0.02 if method == "kernel_shap" else 1e-14
    assert found.values[:, outside].abs().max() <= tolerance
    assert found.values[:, ~outside].abs().sum() > 0.01
    if method in ("shapley", "kernel_shap"):
        np.testing.assert_allclose(
            found.values.sum(dim=(1, 2)), found.output - found.base, atol=1e-4
        )


def test_quarters_of_an_image_have_the_shapley_values_of_all_their_orders(images):
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 5, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(320, 3),
    ).double()  # fmt: skip
    quarters = torch.arange(8)[:, None] // 4 * 2 + torch.arange(8) // 4

    def function(x):
        return network(x.unsqueeze(1)).softmax(1)[:, 0]

    found = attribute(function, images, torch.zeros(8, 8), method="shapley", groups=quarters)
    expected = torch.zeros(4, 4, dtype=torch.float64)
    orders = list(itertools.permutations(range(4)))
    with torch.no_grad():
        for order in orders:
            shown, before = torch.zeros_like(images), function(torch.zeros_like(images))
            for quarter in order:
                shown = torch.where(quarters == quarter, images, shown)
                expected[:, quarter] += (function(shown) - before) / len(orders)
                before = function(shown)
    shares = torch.stack([found.values[:, quarters == q].sum(dim=1) for q in range(4)], dim=1)
    torch.testing.assert_close(shares, expected, rtol=0, atol=1e-12)


def test_occlusion_of_a_patch_is_what_the_output_loses_without_it(blind_network, images):
    def function(x):
        return blind_network(x)[:, 1]

    found = attribute(function, images, torch.zeros(8, 8), method="occlusion", groups=PATCHES)
    for patch in range(16):
        here = patch == PATCHES
        with torch.no_grad():
            lost = function(images) - function(torch.where(here, 0.0, images))
        torch.testing.assert_close(found.values[:, here].sum(dim=1), lost, rtol=0, atol=1e-12)


def test_gradients_and_leaving_out_agree_on_a_convolution_without_a_rectifier(images):
    layer = torch.nn.Conv2d(1, 3, 3).double()

    def function(x):
        return layer(x.unsqueeze(1)).mean(dim=(1, 2, 3))

    maps = {
        method: attribute(
            function, images, torch.full((8, 8), 0.5), method=method,
            **({"groups": PATCHES} if method in COALITIONS else {}),
        ).values
        for method in METHODS if method not in ("saliency", "captum_integrated_gradients")
    }  # fmt: skip
    by_patch = {
        method: torch.stack([one[:, patch == PATCHES].sum(dim=1) for patch in range(16)], dim=1)
        for method, one in maps.items()
    }
    expected = by_patch["integrated_gradients"]
    for method, shares in by_patch.items():
        tolerance = 1e-6 if method == "kernel_shap" else 1e-12  # a linear function has one answer
        torch.testing.assert_close(shares, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("method", ["event_deletion", "shapley", "occlusion", "kernel_shap"])
def test_what_stands_at_its_baseline_receives_exactly_nothing_and_is_not_asked(method):
    draw = torch.Generator().manual_seed(3)
    network = torch.nn.Sequential(torch.nn.Linear(12, 40), torch.nn.Tanh(), torch.nn.Linear(40, 1))
    network = network.double()
    x = torch.randn(5, 12, generator=draw).double()
    x[:, ::2] = 0.0
    x[4] = 0.0  # nothing differs
    found = attribute(lambda x: network(x)[:, 0], x, torch.zeros(12).double(), method=method)
    assert (found.values[x == 0] == 0).all()
    assert (found.values[x != 0] != 0).all()
    asked = []
    attribute(lambda x: (asked.append(len(x)), network(x)[:, 0])[1], x[:1],
              torch.zeros(12).double(), method="event_deletion")  # fmt: skip
    assert sum(asked) == 6 + 2
