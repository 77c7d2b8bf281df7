import numpy as np
import pytest
import torch

from clinode.brain.connectome import read_connectome, simulate_connectome
from clinode.brain.lead_field import LeadFieldReadout
from clinode.brain.networks import JansenRitNetwork, WilsonCowanNetwork
from clinode.dynamics import find_equilibria, linearize, simulate
from clinode.errors import ArgumentError
from clinode.system import DiscreteSystem, Quantity
from clinode.units import check_dimensions

CHANNELS = ("Fz", "Cz", "Pz")


def head(n=4, seed=0):
    return torch.tensor(np.random.default_rng(seed).normal(size=(3, n)))


def test_channels_see_lead_field_times_sources():
    columns = JansenRitNetwork(simulate_connectome(4), sigma=2.0, speed=8.0)
    seen = LeadFieldReadout(columns, head(), CHANNELS, source="EEG")
    x, u = torch.rand(5, 24).double(), torch.rand(4).double()
    expected = columns.output(0.0, x, u) @ head().T
    torch.testing.assert_close(seen.output(0.0, x, u), expected)
    torch.testing.assert_close(seen(0.0, x, u), columns(0.0, x, u), rtol=0, atol=0)
    assert seen.noise is not None
    assert columns.noise is not None
    torch.testing.assert_close(seen.noise(0.0, x, u), columns.noise(0.0, x, u))
    assert seen.output_names == ("EEG:Fz", "EEG:Cz", "EEG:Pz")
    assert seen.state_names == columns.state_names
    check_dimensions(seen)


def test_constants_keep_their_names_and_heads_may_differ():
    network = WilsonCowanNetwork(simulate_connectome(4))
    heads = torch.stack([head(), head(seed=1)])
    seen = LeadFieldReadout(network, head(), CHANNELS, source="E", unit="uV")
    both = seen.with_constants(K=[[1.0], [2.0]], lead_field=heads.flatten(-2))
    x, u = 0.3 * torch.rand(8).double(), torch.zeros(4).double()
    for i, K in enumerate((1.0, 2.0)):
        torch.testing.assert_close(both(0.0, x, u)[i], network.with_constants(K=K)(0.0, x, u))
        torch.testing.assert_close(both.output(0.0, x, u)[i], heads[i] @ x[:4])
    swapped = torch.func.functional_call(seen, {"K": torch.zeros(1).double()}, (0.0, x, u))
    torch.testing.assert_close(swapped, network.with_constants(K=0.0)(0.0, x, u))


def test_it_is_simulated_and_linearized_as_the_network_is():
    network = WilsonCowanNetwork(simulate_connectome(4))
    seen = LeadFieldReadout(network, head(), CHANNELS, source="E")
    run = simulate(seen, [0.1] * 8, [0.0, 5.0], method="rk4", step=0.5)
    alone = simulate(network, [0.1] * 8, [0.0, 5.0], method="rk4", step=0.5)
    torch.testing.assert_close(run.states, alone.states, rtol=0, atol=0)
    rest = find_equilibria(seen, n_starts=4)[0]
    linear = linearize(seen, rest)
    assert linear.output_names == seen.output_names
    expected = torch.cat([head(), torch.zeros(3, 4)], dim=1).double()
    torch.testing.assert_close(linear.C, expected)


class Counter(DiscreteSystem):
    states = (Quantity("n", "1"),)

    def next_state(self, k, x, u):
        return x + 1


def test_lead_fields_that_do_not_fit_are_refused():
    network = WilsonCowanNetwork(simulate_connectome(4))
    for call, words in (
        (lambda: LeadFieldReadout(network, head(5), CHANNELS, source="E"), "channels by regions"),
        (lambda: LeadFieldReadout(network, head(), CHANNELS[:2], source="E"), r"expected \(2, 4\)"),
        (lambda: LeadFieldReadout(network, head() / 0, CHANNELS, source="E"), "not finite"),
        (lambda: LeadFieldReadout(network, head(), CHANNELS, source="F"), "no output"),
        (lambda: LeadFieldReadout(Counter(), [[1.0]], ["Cz"], source="n"), "this is a map"),
    ):
        with pytest.raises(ArgumentError, match=words):
            call()


def test_an_open_lead_field_sees_an_open_connectome(data_dir):
    path = data_dir / "connectomes" / "tms_eeg_schaefer200" / "connectome.npz"
    if not path.is_file():
        pytest.skip("the data folder holds no connectome 'tms_eeg_schaefer200'")
    connectome = read_connectome(path, arrays={"tract_lengths": "distances"})
    with np.load(path) as stored:
        L, source = stored["leadfield"].astype(float), stored["source_ts"].astype(float)
        recorded = stored["eeg"].astype(float)
    channels = [f"channel_{i + 1}" for i in range(len(L))]
    columns = JansenRitNetwork(connectome, p=80.0)
    seen = LeadFieldReadout(columns, L, channels, source="EEG")
    x = seen.initial_state().expand(50, -1).clone()
    x[:, 200:400] = torch.tensor(source[:, 1000:1050].T)  # y1 alone
    eeg = seen.output(0.0, x, torch.zeros(200).double()).numpy()
    np.testing.assert_allclose(eeg, source[:, 1000:1050].T @ L.T, atol=1e-12)
    assert eeg.shape == (50, 62) == (50, len(recorded))
    m1 = next(name for name in seen.input_names if "LH_SomMot" in name)
    u = dict.fromkeys([m1], 300.0)
    run = simulate(seen, seen.initial_state(), [0.0, 0.02], u, method="rk4", step=1e-3)
    still = simulate(seen, seen.initial_state(), [0.0, 0.02], method="rk4", step=1e-3)
    assert float((run.outputs - still.outputs)[-1].abs().max()) > 0
