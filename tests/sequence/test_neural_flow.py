import numpy as np
import pytest
import torch

import clinode

DOUBLE = torch.float64


@pytest.fixture
def model(forecast, build):
    return build(forecast, "neural-flow")


def flow(model, z, hours, u):
    """F(t, z) from its definition: a complex exponential behind the map."""
    rate = torch.complex(-torch.exp(model.log_decay), model.frequency)
    w, drive = torch.complex(*model.map(z).chunk(2, -1)), torch.complex(*model.drive(u).chunk(2))
    rest = -drive / rate
    moved = rest + torch.exp(rate * hours) * (w - rest)
    return model.map.inverse(torch.cat([moved.real, moved.imag], -1))


def test_the_state_after_the_last_row_is_the_flow_of_its_definition(forecast, model):
    batch = forecast.batch([4, 6], DOUBLE)
    n = 2 * model.settings.latent
    with torch.no_grad():
        here = batch.time[batch.last_row]
        times = here.unsqueeze(1) + torch.tensor([0.0, 0.4, 9.0], dtype=DOUBLE)
        latent = model.latent(batch, times)[..., :n]
        held = batch.treatments.held_rates(2)
        for k in range(2):
            for step, hours in enumerate((0.0, 0.4, 9.0)):
                expected = flow(model, latent[k, 0], hours, held[k])
                torch.testing.assert_close(latent[k, step], expected, rtol=0, atol=1e-12)


def test_a_flow_starts_where_it_is_and_goes_on_where_it_was(model):
    with torch.no_grad():
        for parameter in model.map.parameters():
            parameter.mul_(3)  # far from the identity
    generator = torch.Generator().manual_seed(4)
    z = torch.randn(30, 2 * model.settings.latent, dtype=DOUBLE, generator=generator)
    u = torch.tensor([0.7, -1.3], dtype=DOUBLE)
    with torch.no_grad():
        torch.testing.assert_close(flow(model, z, 0.0, u), z, rtol=0, atol=1e-12)
        two_steps = flow(model, flow(model, z, 1.3, u), 4.1, u)
        torch.testing.assert_close(two_steps, flow(model, z, 5.4, u), rtol=0, atol=1e-12)


def test_the_field_is_the_generator_of_the_flow(model):
    system = model.latent_system
    n = 2 * model.settings.latent
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(9, system.n_states, dtype=DOUBLE, generator=generator)
    u = torch.tensor([0.7, 1.3], dtype=DOUBLE)
    scale = torch.tensor(model.schema.input_scale, dtype=DOUBLE)
    hours = torch.zeros((), dtype=DOUBLE)
    velocity = torch.func.jvp(
        lambda t: flow(model, x[:, :n], t, u / scale), (hours,), (torch.ones_like(hours),)
    )[1]
    field = system.vector_field(0.0, x, u)
    torch.testing.assert_close(field[:, :n], velocity, rtol=0, atol=1e-11)
    torch.testing.assert_close(field[:, n:], -model.memory.rate * x[:, n:], rtol=0, atol=1e-12)


@pytest.mark.slow
def test_its_one_equilibrium_is_where_the_linear_motion_rests(model):
    system = model.latent_system
    n = 2 * model.settings.latent
    u = torch.tensor([0.2, 0.5], dtype=DOUBLE)
    scale = torch.tensor(model.schema.input_scale, dtype=DOUBLE)
    rate = torch.complex(-torch.exp(model.log_decay), model.frequency)
    rest = -torch.complex(*model.drive(u / scale).chunk(2)) / rate
    expected = model.map.inverse(torch.cat([rest.real, rest.imag])).detach()
    found = clinode.find_equilibria(system, u=u, box=[(-20.0, 20.0)] * system.n_states)
    assert len(found) == 1
    torch.testing.assert_close(found[0].state[:n], expected, rtol=0, atol=1e-8)
    # eigenvalues do not depend on coordinates: they are those of the linear motion and the memory
    own = torch.cat([rate, rate.conj(), torch.complex(-model.memory.rate, 0 * model.memory.rate)])
    values = [np.sort_complex(v.detach().numpy()) for v in (own, found[0].eigenvalues)]
    np.testing.assert_allclose(values[1], values[0], rtol=1e-7, atol=1e-9)
