import numpy as np
import pytest
import torch

from clinode.brain.connectome import Connectome, simulate_connectome
from clinode.brain.networks import (
    EpileptorNetwork,
    JansenRitNetwork,
    KuramotoNetwork,
    ReducedWongWangNetwork,
    SaturatingRateNetwork,
    StuartLandauNetwork,
    WilsonCowanNetwork,
)
from clinode.dynamics import simulate
from clinode.errors import ArgumentError
from clinode.system import delay_times
from clinode.units import check_dimensions

NETWORKS = (
    EpileptorNetwork,
    JansenRitNetwork,
    KuramotoNetwork,
    ReducedWongWangNetwork,
    SaturatingRateNetwork,
    StuartLandauNetwork,
    WilsonCowanNetwork,
)
PER_MILLISECOND = {"ms": 1.0, "s": 1e-3, "1": 1.0}

every_network = pytest.mark.parametrize("kind", NETWORKS)


def within(network, *batch, seed=0):
    """States and inputs within their ranges."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for quantities in (network.states, network.inputs):
        low, high = (
            torch.tensor([q.range[end] for q in quantities for _ in q.names]).double()
            for end in (0, 1)
        )
        part = torch.rand(*batch, len(low), generator=generator, dtype=torch.float64)
        drawn.append(low + (high - low) * part)
    return drawn


@every_network
def test_regions_in_another_order_do_the_same(kind):
    connectome = simulate_connectome(12, seed=1)
    order = np.random.default_rng(0).permutation(12)
    network, moved = kind(connectome), kind(connectome.permuted(order))
    x, u = within(network)
    blocks = x.reshape(-1, 12)
    rate = network.vector_field(0.0, x, u).reshape(-1, 12)[:, order]
    again = moved.vector_field(0.0, blocks[:, order].flatten(), u[order]).reshape(-1, 12)
    torch.testing.assert_close(again, rate, rtol=1e-12, atol=1e-12 * float(rate.abs().max()))
    assert moved.state_names[0].split(":")[1] == connectome.labels[order[0]]


@every_network
def test_without_coupling_regions_do_not_feel_each_other(kind):
    n = 6
    network = kind(simulate_connectome(n), K=0.0)
    x, u = within(network)
    J = torch.func.jacrev(lambda x: network(0.0, x, u))(x)
    J = J.reshape(-1, n, J.shape[-1] // n, n).movedim(2, 1)
    assert J[..., ~torch.eye(n).bool()].abs().max() == 0


@every_network
def test_a_stimulus_reaches_its_region_alone(kind):
    n = 6
    network = kind(simulate_connectome(n))
    x, u = within(network)
    B = torch.func.jacrev(lambda u: network(0.0, x, u))(u).reshape(-1, n, n)
    assert B[:, ~torch.eye(n).bool()].abs().max() == 0
    assert (B.diagonal(dim1=1, dim2=2) != 0).any(0).all()
    assert network.input_names[1] == "stimulus:lh_superiorfrontal"


@every_network
def test_a_batch_of_parameter_sets_and_weights_is_what_each_gives(kind):
    n, sets = 6, 3
    network = kind(simulate_connectome(n), speed=5.0)
    generator = torch.Generator().manual_seed(0)
    factor = 0.5 + torch.rand(sets, 1, generator=generator).double()
    changes = {"K": network.K * factor, "W": network.W * factor.flip(0)}
    changes |= {name: getattr(network, name) * factor for name in network.by_region}
    batch = network.with_constants(**changes)
    x, u = within(network, sets)
    together = batch(0.0, x, u)
    for i in range(sets):
        one = network.with_constants(**{name: value[i] for name, value in changes.items()})
        torch.testing.assert_close(together[i], one(0.0, x[i], u[i]), rtol=1e-13, atol=1e-13)


@every_network
def test_with_delays_all_constants_may_differ_between_parameter_sets(kind):
    n = sets = 4  # as many as regions: what is broadcast wrongly would not show in shapes
    network = kind(simulate_connectome(n), speed=5.0)
    factor = torch.linspace(0.9, 1.1, sets).double().unsqueeze(-1)
    changes = {q.name: getattr(network, q.name) * factor for q in network.constants}
    x, u = within(network)
    together = network.with_constants(**changes)(0.0, x, u)
    past = {
        name: block[0].expand(n, n) * 0.7 for name, block in network.split(x.expand(1, -1)).items()
    }
    past = {name: past[name] for name in network.delayed}
    delayed = network.with_constants(**changes).vector_field(0.0, x, u, past)
    for i in range(sets):
        one = network.with_constants(**{name: value[i] for name, value in changes.items()})
        torch.testing.assert_close(together[i], one(0.0, x, u), rtol=1e-12, atol=1e-12)
        alone = one.vector_field(0.0, x, u, past)
        torch.testing.assert_close(delayed[i], alone, rtol=1e-12, atol=1e-12)


@every_network
def test_units_agree_with_and_without_noise_and_delays(kind):
    check_dimensions(kind(simulate_connectome(4)))
    check_dimensions(kind(simulate_connectome(4), sigma=0.1, speed=5.0))


@every_network
def test_noise_drives_the_states_that_the_class_names(kind):
    connectome = simulate_connectome(4)
    assert kind(connectome).noise is None
    network = kind(connectome, sigma=0.3).with_constants(sigma=[[0.1], [0.2]])
    x, u = within(network, 2)
    noise = network.noise(0.0, x, u)
    assert noise.shape == x.shape
    driven = {name for name, block in network.split(noise).items() if (block != 0).all()}
    silent = {name for name, block in network.split(noise).items() if (block == 0).all()}
    assert driven == set(network.noisy)
    assert driven | silent == {quantity.name for quantity in network.states}
    torch.testing.assert_close(noise[1], 2 * noise[0])
    with pytest.raises(ArgumentError, match="no constant 'sigma'"):
        kind(connectome).with_constants(sigma=0.1)


@every_network
def test_delays_are_lengths_over_speed_in_the_networks_time_unit(kind):
    connectome = simulate_connectome(6)
    plain, delayed = kind(connectome), kind(connectome, speed=4.0)
    assert connectome.tract_lengths is not None
    expected = connectome.tract_lengths / 4.0 * PER_MILLISECOND[plain.time_unit]
    for times in delay_times(delayed).values():
        torch.testing.assert_close(times, expected)
    assert set(delay_times(delayed)) == set(plain.delayed)
    x, u = within(plain, 3)  # where the past is the present a delay changes nothing
    scale = float(plain(0.0, x, u).abs().max())
    torch.testing.assert_close(delayed(0.0, x, u), plain(0.0, x, u), rtol=1e-12, atol=1e-13 * scale)
    assert plain.delays == ()


@every_network
def test_delays_may_be_rounded_to_steps(kind):
    connectome = simulate_connectome(6)
    unit = PER_MILLISECOND[kind.time_unit]
    network = kind(connectome, speed=10.0, delay_step=0.5 * unit)
    steps = network.delay_times / (0.5 * unit)
    torch.testing.assert_close(steps, steps.round())
    assert connectome.tract_lengths is not None
    gap = (network.delay_times - connectome.tract_lengths / 10.0 * unit).abs().max()
    assert gap <= 0.25 * unit + 1e-12
    with pytest.raises(ArgumentError, match="delay_step must be positive"):
        kind(connectome, speed=10.0, delay_step=0.0)
    with pytest.raises(ArgumentError, match="without a speed there are none"):
        kind(connectome, delay_step=0.1)


@every_network
def test_speeds_and_connectomes_that_give_no_delays_are_refused(kind):
    for speed in (0.0, -1.0, float("nan")):
        with pytest.raises(ArgumentError, match="speed must be positive"):
            kind(simulate_connectome(4), speed=speed)
    bare = Connectome(weights=torch.ones(2, 2), labels=("a", "b"))
    with pytest.raises(ArgumentError, match="need tract lengths"):
        kind(bare, speed=5.0)


@every_network
def test_gradients_reach_the_weights(kind):
    network = kind(simulate_connectome(4))
    W = network.W.clone().requires_grad_()
    x, u = within(network)
    rate = network.with_constants(W=W).vector_field(0.0, x, u)
    (found,) = torch.autograd.grad(rate.square().sum(), W)
    assert found.isfinite().all()
    off = ~torch.eye(4).bool().flatten()
    assert (found[off] != 0).all()


@every_network
def test_the_scale_of_the_connectome_does_not_matter(kind):
    connectome = simulate_connectome(4)
    louder = Connectome(7.5 * connectome.weights, connectome.labels)
    x, u = within(kind(connectome))
    torch.testing.assert_close(kind(louder)(0.0, x, u), kind(connectome)(0.0, x, u))


def test_many_networks_at_once_are_simulated_as_each_alone():
    first, second = (StuartLandauNetwork(simulate_connectome(6, seed), a=0.3) for seed in (0, 1))
    both = first.with_constants(W=torch.stack([first.W, second.W]))
    x, _ = within(first)
    times = torch.linspace(0, 5, 6).double()
    together = simulate(both, x, times, method="rk4", step=0.1).states
    for i, network in enumerate((first, second)):
        alone = simulate(network, x, times, method="rk4", step=0.1).states
        torch.testing.assert_close(together[i], alone, rtol=0, atol=1e-13)
