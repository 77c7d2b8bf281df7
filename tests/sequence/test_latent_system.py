import math

import numpy as np
import pytest
import torch
from scipy.special import hyp1f1

import clinode
from clinode.errors import ArgumentError
from clinode.sequence import MODELS
from clinode.sequence.exponential_steps import exponential_steps, phi_functions
from clinode.sequence.inputs import Drive

FIELDLESS = {"gru-d": "GRU-D has no", "gru-gap": "with gaps has no", "cfc": "cell has no"}
SYSTEMS = sorted(set(MODELS) - set(FIELDLESS))


@pytest.fixture(params=SYSTEMS)
def name(request) -> str:
    return request.param


def test_the_latent_state_after_the_last_row_follows_the_system(forecast, build, name):
    model = build(forecast, name)
    batch = forecast.batch(np.arange(4, 7), torch.float64)
    hours = torch.tensor([0.0, 0.9, 5.0, 11.0], dtype=torch.float64)
    times = batch.prediction_time.unsqueeze(1) + hours
    with torch.no_grad():
        latent = model.latent(batch, times)
        held = batch.treatments.held_rates(len(batch)) * batch.treatments.scale
        system = model.latent_system
        followed = clinode.simulate(system, latent[:, 0], hours, held, method="dopri5", rtol=1e-9)
    tolerance = max(1e-7, MODELS[name].flow_error)
    torch.testing.assert_close(latent, followed.states, rtol=tolerance, atol=tolerance)


def test_the_linear_system_rests_where_drive_and_decay_balance(classified, build):
    model = build(classified, "linear-latent-ode")
    system = model.latent_system
    u = torch.tensor([0.4, 1.2], dtype=torch.float64)
    rest = torch.linalg.solve(system.A, -system.B @ u)
    field = system.vector_field(0.0, rest, u)
    assert field.abs().max() < 1e-12
    assert (torch.linalg.eigvals(system.A).real < 0).all()


def test_a_bounded_field_pulls_every_state_into_a_box(classified, build):
    system = build(classified, "ode-rnn").latent_system
    radius = system.W.abs().sum(dim=1) / system.a
    generator = torch.Generator().manual_seed(0)
    far = torch.randn(200, len(radius), dtype=torch.float64, generator=generator).sign()
    edge = far * radius * (1 + torch.rand(200, 1, generator=generator, dtype=torch.float64))
    field = system.vector_field(0.0, edge, torch.zeros(2, dtype=torch.float64))
    assert (field * far <= 0).all()


def test_outputs_are_the_decoded_variables_in_original_units(classified, build, name):
    model = build(classified, name)
    system = model.latent_system
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, system.n_states, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        standardised = model.decoder(x).numpy()
    index = np.broadcast_to(np.arange(standardised.shape[1]), standardised.shape)
    expected = classified.schema.restore(index, standardised)
    shown = system.output(0.0, x, torch.zeros(2, dtype=torch.float64))
    np.testing.assert_allclose(shown, expected, rtol=1e-9)
    assert [q.name for q in system.outputs] == list(classified.schema.variables)
    assert [q.unit for q in system.outputs] == list(classified.schema.units)


def test_treatments_enter_the_system_in_original_units(classified, build, name):
    model = build(classified, name)
    system = model.latent_system
    if name == "neural-flow":
        pytest.skip("its treatments drive the coordinates behind the network, see test_neural_flow")
    x = torch.zeros(system.n_states, dtype=torch.float64)
    zero, one = torch.zeros(2, dtype=torch.float64), torch.tensor([0.0, 1.0]).double()
    effect = system.vector_field(0.0, x, one) - system.vector_field(0.0, x, zero)
    *_, drive = [part for part in model.modules() if isinstance(part, Drive)]  # after an encoder's
    expected = drive.matrix[:, 1] / classified.schema.input_scale[1]
    expected = torch.cat([expected, torch.zeros(4)])  # a memory knows measurements only
    torch.testing.assert_close(effect, expected.detach())
    assert [q.name for q in system.inputs] == list(classified.schema.inputs)


def test_states_are_named_and_range_over_what_training_showed(classified, build, name):
    model = build(classified, name)
    model.finish(classified)
    system = model.latent_system
    assert system.states[0].name == "z1"
    assert system.time_unit == "h"
    assert system.dtype == torch.float64
    batch = classified.batch(np.arange(len(classified)), torch.float64)
    with torch.no_grad():
        latent = model.latent(batch, batch.prediction_time.unsqueeze(1))[:, 0].numpy()
    low, high = np.array([q.range for q in system.states]).T
    assert ((latent >= low) & (latent <= high)).mean() > 0.9


def test_a_system_is_a_copy_that_later_training_leaves_alone(classified, build, name):
    model = build(classified, name)
    system = model.latent_system
    x = torch.ones(system.n_states, dtype=torch.float64)
    u = torch.zeros(2, dtype=torch.float64)
    before = system.output(0.0, x, u)
    with torch.no_grad():
        model.decoder.weight.add_(1.0)
    assert torch.equal(system.output(0.0, x, u), before)


@pytest.mark.parametrize("name", sorted(FIELDLESS))
def test_a_family_without_a_field_says_why(classified, build, name):
    with pytest.raises(ArgumentError, match=f"{FIELDLESS[name]} latent system: its state"):
        _ = build(classified, name).latent_system


def test_phi_functions_are_kummers_function():
    z = torch.tensor([-1000.0, -30.0, -1.001, -0.999, -0.3, -1e-9, 0.0], dtype=torch.float64)
    # Kummer: phi_k(z) = int_0^1 e^((1 - s) z) s^(k - 1) / (k - 1)! ds = 1F1(1; k + 1; z) / k!
    expected = [
        torch.from_numpy(hyp1f1(1, k + 1, z.numpy())) / math.factorial(k) for k in (1, 2, 3)
    ]
    for shown, oracle in zip(phi_functions(z), expected, strict=True):
        torch.testing.assert_close(shown, oracle, rtol=1e-12, atol=0)


def test_an_exponential_step_is_exact_for_decay_under_a_constant_push():
    decay = torch.tensor([0.01, 0.3, 5.0], dtype=torch.float64)
    gap, push = torch.tensor([7.0], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64)
    steps = exponential_steps(decay, gap, torch.ones_like(gap))
    moved = (steps.first + 2 * steps.middle + steps.last) * push
    torch.testing.assert_close(moved[0], push * -torch.expm1(-decay * gap) / decay)
    torch.testing.assert_close(steps.whole[0], torch.exp(-decay * gap))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_coefficients_of_steps_and_their_slopes_are_those_of_kummers_function(dtype, tolerance):
    decay = torch.tensor([1e-3, 0.1, 0.8, 3.0], dtype=dtype, requires_grad=True)
    size = torch.tensor([0.0, 1e-3, 0.6, 2.4, 2.6, 9.0], dtype=dtype)
    steps = exponential_steps(decay, size, torch.ones_like(size))
    shown = torch.stack(steps[1:])
    weight = torch.randn(shown.shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad((shown * weight).sum(), decay)

    def exact(decay):
        h = size.double().numpy()[:, None]
        z = -decay * h
        one, two, three = (hyp1f1(1, k + 1, z) / math.factorial(k) for k in (1, 2, 3))
        middle, last = h * (2 * two - 4 * three), h * (4 * three - two)
        to_half = h / 2 * hyp1f1(1, 2, z / 2)
        first = h * (one - 3 * two + 4 * three)
        return np.stack([np.exp(z), np.exp(z / 2), to_half, first, middle, last])

    at = decay.detach().double().numpy()
    expected = exact(at)
    np.testing.assert_allclose(shown.detach().numpy(), expected, rtol=tolerance, atol=tolerance)
    width = 1e-3 * at
    ahead, behind = (exact(at + k * width) - exact(at - k * width) for k in (1, 2))
    fourth = (8 * ahead - behind) / (12 * width)  # error of width^4
    found = (fourth * weight.double().numpy()).sum(axis=(0, 1))
    np.testing.assert_allclose(slope.numpy(), found, rtol=max(tolerance, 1e-9))


def test_the_solver_of_the_bounded_field_is_of_fourth_order(classified, build):
    model = build(classified, "ode-rnn")
    with torch.no_grad():
        model.field.push.mul_(4.0)
        x = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        gap = torch.full((5,), 12.0, dtype=torch.float64)
        decay = torch.exp(model.field.log_decay)
        ends = []
        for n in (4, 8, 16, 512):
            n_steps = torch.full_like(gap, n)
            ends.append(model.field.flow(x, exponential_steps(decay, gap / n, n_steps), None))
    errors = [(end - ends[-1]).abs().max().item() for end in ends[:-1]]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 3.5).all()
    assert (orders < 4.8).all()
