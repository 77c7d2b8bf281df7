import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import solve_continuous_lyapunov

from clinode.brain.connectome import Connectome, simulate_connectome
from clinode.brain.networks import WilsonCowanNetwork
from clinode.brain.populations import WilsonCowan
from clinode.dynamics import simulate
from clinode.dynamics.equilibria import find_equilibria, find_equilibria_each


def draw(*shape, seed=0, low=0.0, high=0.5):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.uniform(low, high, shape))


def jacobian(system, x, u):
    return torch.func.jacrev(lambda x: system(0.0, x, u))(x)


@pytest.mark.parametrize("convention", ["asymptote", "one", "logistic"])
def test_one_region_is_the_single_population(convention):
    alone = Connectome(weights=torch.zeros(1, 1), labels=("cortex",))
    network = WilsonCowanNetwork(alone, P=0.9, Q=-0.2, tau_i=7.0, c4=2.5, convention=convention)
    single = WilsonCowan(tau_i=7.0, c4=2.5, convention=convention)
    x, stimulus = draw(20, 2), draw(20, 1, seed=1)
    u = torch.cat([0.9 + stimulus, torch.full_like(stimulus, -0.2)], dim=-1)
    torch.testing.assert_close(
        network.vector_field(0.0, x, stimulus), single.vector_field(0.0, x, u), rtol=0, atol=1e-16
    )


def test_without_coupling_regions_do_not_feel_each_other():
    network = WilsonCowanNetwork(simulate_connectome(10), K=0.0)
    J = jacobian(network, draw(20), draw(10, seed=1)).reshape(2, 10, 2, 10)
    within = torch.eye(10).bool()
    assert J.movedim(2, 1)[..., ~within].abs().max() == 0
    single = WilsonCowan()
    x, u = draw(2, 10), draw(10, seed=1)
    rate = network.vector_field(0.0, x.flatten(), u).reshape(2, 10)
    alone = single.vector_field(0.0, x.T, torch.stack([0.75 + u, 0 * u], dim=-1))
    torch.testing.assert_close(rate, alone.T, rtol=0, atol=1e-16)


def test_coupling_is_what_the_weights_of_the_connectome_say():
    connectome = simulate_connectome(12, seed=4)
    network = WilsonCowanNetwork(connectome, K=3.0)
    W = connectome.weights / connectome.weights.sum(1).max()
    E, I = draw(2, 12)
    received = 3.0 * (W.numpy() @ E.numpy())
    by_hand = network.with_constants(K=0.0).vector_field(
        0.0, torch.cat([E, I]), torch.tensor(received)
    )
    found = network.vector_field(0.0, torch.cat([E, I]), torch.zeros(12).double())
    torch.testing.assert_close(found, by_hand)
    assert "W:lh_insula<-rh_precuneus" in [
        name for quantity in network.constants for name in quantity.names
    ]


def test_the_jacobian_is_that_of_its_derivative_along_any_direction_and_of_the_formula():
    n = 8
    network = WilsonCowanNetwork(simulate_connectome(n))
    x, u, v = draw(2 * n), draw(n, seed=1), draw(2 * n, seed=2)
    J = jacobian(network, x, u)
    along = torch.func.jvp(lambda x: network(0.0, x, u), (x,), (v,))[1]
    torch.testing.assert_close(J @ v, along)
    E, I = x[:n], x[n:]
    drive = 16 * E - 12 * I + 0.75 + u + 4 * (network.weights @ E)
    s = torch.sigmoid(1.3 * (drive - 4.0))
    free = torch.sigmoid(torch.tensor(5.2)).double() - E
    S = s - torch.sigmoid(torch.tensor(-5.2).double())
    steep = free * 1.3 * s * (1 - s)
    EE = (torch.diag(-1 - S + 16 * steep) + 4 * steep[:, None] * network.weights) / 10
    torch.testing.assert_close(J[:n, :n], EE, rtol=0, atol=1e-7)
    torch.testing.assert_close(J[:n, n:], torch.diag(-12 * steep) / 10, rtol=0, atol=1e-7)


def test_a_batch_of_parameter_sets_is_what_each_gives():
    connectome, n, sets = simulate_connectome(20), 20, 7
    constants = {
        "K": draw(sets, 1, high=6),
        "P": draw(sets, n, seed=1, high=2),
        "tau_i": draw(sets, 1, seed=2, low=3, high=20),
        "W": draw(sets, n * n, seed=3, high=0.1),
    }
    batch = WilsonCowanNetwork(connectome).with_constants(**constants)
    x, u = draw(sets, 2 * n, seed=4), draw(n, seed=5)
    times = torch.linspace(0, 20, 5).double()
    together = simulate(batch, x, times, u, method="rk4", step=0.5).states
    for i in range(sets):
        one = WilsonCowanNetwork(connectome).with_constants(
            **{name: value[i] for name, value in constants.items()}
        )
        alone = simulate(one, x[i], times, u, method="rk4", step=0.5).states
        torch.testing.assert_close(together[i], alone, rtol=0, atol=1e-12)


def test_a_network_follows_scipy():
    network = WilsonCowanNetwork(simulate_connectome(10), P=1.2)
    x, u = draw(20), torch.zeros(10).double()
    found = simulate(network, x, [0.0, 10.0, 30.0], u, rtol=1e-7, atol=1e-9).states[1:]
    exact = solve_ivp(
        lambda t, x: network.vector_field(t, torch.tensor(x), u).numpy(),
        (0, 30), x.numpy(), t_eval=[10, 30], rtol=1e-9, atol=1e-11,
    )  # fmt: skip
    np.testing.assert_allclose(found, exact.y.T, atol=1e-6)


def test_equilibria_of_many_drives_are_found_with_inhibition_named_fast():
    network = WilsonCowanNetwork(simulate_connectome(20))
    u = torch.linspace(-1, 1.5, 6).double().unsqueeze(-1).expand(6, 20)
    found = find_equilibria_each(network, u=u, n_starts=0, fast=["I"])
    assert all(len(one) for one in found)
    assert max(each.residual for one in found for each in one) < 1e-11


def test_it_rests_without_a_stimulus():
    network = WilsonCowanNetwork(simulate_connectome(68))
    rest = find_equilibria(network, n_starts=0, fast=["I"])[0]
    assert rest.is_stable
    assert network.input_names[0] == "stimulus:lh_precuneus"


def test_delays_are_lengths_over_speed_and_read_the_past():
    connectome = simulate_connectome(6)
    plain, delayed = WilsonCowanNetwork(connectome), WilsonCowanNetwork(connectome, speed=4.0)
    assert connectome.tract_lengths is not None
    torch.testing.assert_close(delayed.delay_times, connectome.tract_lengths / 4.0)
    x, u, n = draw(3, 12), draw(6, seed=1), 6
    torch.testing.assert_close(delayed(0.0, x, u), plain(0.0, x, u))  # the past is the present
    E = draw(3, n, n, seed=2)
    received = 4.0 * (delayed.weights * E).sum(-1)
    now = plain.with_constants(K=0.0).vector_field(0.0, x, u + received)
    torch.testing.assert_close(delayed.vector_field(0.0, x, u, {"E": E}), now)
    assert plain.delays == ()


@pytest.mark.parametrize("speed", [None, 5.0])
def test_a_network_does_what_euler_by_hand_does(by_hand, speed):
    n, step, steps = 4, 0.1, 300
    rounded = None if speed is None else step
    network = WilsonCowanNetwork(
        simulate_connectome(n), P=1.2, K=8.0, tau_i=8.0, speed=speed, delay_step=rounded
    )
    x = draw(2 * n, seed=3)

    def response(drive, a, theta):
        return 1 / (1 + np.exp(-a * (drive - theta))) - 1 / (1 + np.exp(a * theta))

    k_e, k_i = 1 / (1 + np.exp(-1.3 * 4.0)), 1 / (1 + np.exp(-2.0 * 3.7))

    def rate(s, received):
        E, I = s["E"], s["I"]
        drive = 16 * E - 12 * I + 1.2 + 8 * received(lambda seen: seen["E"])
        return {
            "E": (-E + (k_e - E) * response(drive, 1.3, 4.0)) / 10,
            "I": (-I + (k_i - I) * response(15 * E - 3 * I, 2.0, 3.7)) / 8,
        }

    path = by_hand.euler(network, rate, x, step, steps)
    found = simulate(network, x, [0.0, 15.0, 30.0], method="euler", step=step).states
    np.testing.assert_allclose(found, path[[0, 150, 300]], rtol=0, atol=1e-12)


def test_a_delayed_network_follows_the_delay_equation_whatever_the_step():
    network = WilsonCowanNetwork(simulate_connectome(4), P=1.2, K=8.0, speed=5.0)
    x, times = draw(8, seed=3), [0.0, 10.0, 20.0]
    coarse, fine = (
        simulate(network, x, times, method="rk4", step=step).states for step in (0.5, 0.125)
    )
    np.testing.assert_allclose(coarse, fine, rtol=0, atol=2e-6)


def test_noise_without_coupling_has_the_variance_of_its_linearization():
    alone = Connectome(weights=torch.zeros(1, 1), labels=("cortex",))
    network = WilsonCowanNetwork(alone, P=0.5, sigma=1e-4)
    u = torch.zeros(1).double()
    rest = find_equilibria(network, n_starts=8)[0]
    A = jacobian(network, rest.state, u).numpy()
    expected = solve_continuous_lyapunov(A, -1e-8 * np.eye(2))
    generator = torch.Generator().manual_seed(0)
    start = rest.state.expand(4000, 2)
    run = simulate(network, start, [0.0, 100.0], u, method="heun", step=1.0, generator=generator)
    variance = np.cov(run.states[:, -1].numpy().T)
    np.testing.assert_allclose(variance.diagonal(), expected.diagonal(), rtol=0.1)
