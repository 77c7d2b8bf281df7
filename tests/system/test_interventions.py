import copy
import pickle

import numpy as np
import pytest
import torch
from scipy.optimize import fsolve

from clinode.errors import ArgumentError
from clinode.system import (
    Delay,
    DiscreteSystem,
    Event,
    LinearSystem,
    Quantity,
    System,
    clamp,
    cut,
    inject,
    intervene,
    silence,
)

SIZES = [5, 17, 60]


def network(n, seed):
    """x' = -x + W x + b, stable, with spectral radius of W below 1."""
    generator = np.random.default_rng(seed)
    W = generator.normal(size=(n, n)) / np.sqrt(n) * 0.6
    b = generator.normal(size=n)
    return LinearSystem(W - np.eye(n), np.eye(n)), W, b


def rest(system, b):
    """The equilibrium of a system that is linear: from its field and Jacobian at 0."""
    u, zero = torch.tensor(b), torch.zeros(system.n_states).double()
    offset = system.vector_field(0.0, zero, u)
    jacobian = torch.func.jacrev(lambda x: system.vector_field(0.0, x, u))(zero)
    return torch.linalg.solve(jacobian, -offset).numpy()


class Rates(System):
    """tau dE/dt = -E + tanh(W E + drive), and a slow w that follows E's mean."""

    time_unit = "s"
    inputs = (Quantity("drive", "1"),)

    def __init__(self, W, tau=0.5):
        super().__init__()
        self.states = (
            Quantity("E", "1", labels=tuple(f"r{i}" for i in range(len(W)))),
            Quantity("w", "1"),
        )
        self.constants = (Quantity("tau", "s"),)
        self.register_buffer("W", torch.as_tensor(W).double())
        self.register_constants(tau=tau)

    def vector_field(self, t, x, u):
        E, w = self.split(x).values()
        received = E @ self.W.T + u - w
        return self.join(E=(torch.tanh(received) - E) / self.tau, w=E.mean(-1, keepdim=True) - w)

    def output(self, t, x, u):
        return 2 * x

    def noise(self, t, x, u):
        return 0.1 + x**2


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_silencing_a_unit_of_a_linear_network_moves_its_rest_by_the_closed_form(n, seed):
    system, W, b = network(n, seed)
    inverse = np.linalg.inv(W - np.eye(n))
    x = -inverse @ b
    for k in (0, n // 2, n - 1):
        expected = x - inverse[:, k] / inverse[k, k] * x[k]
        found = rest(intervene(system, silence(f"x{k + 1}")), b)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_deleting_a_weight_of_a_linear_network_moves_its_rest_by_the_closed_form(n, seed):
    system, W, b = network(n, seed)
    inverse = np.linalg.inv(W - np.eye(n))
    x = -inverse @ b
    for i, j in ((0, 1), (n - 1, 0), (n // 2, n - 1)):
        moved = inverse[:, i] * W[i, j] * x[j] / (1 - W[i, j] * inverse[j, i])
        found = rest(intervene(system, cut(f"x{j + 1}", f"x{i + 1}")), b)
        scale = np.abs(x).max()
        np.testing.assert_allclose(found, x + moved, rtol=0, atol=1e-12 * scale)


def test_injecting_into_a_linear_network_moves_its_rest_by_the_inverse():
    system, W, b = network(9, 0)
    inverse = np.linalg.inv(W - np.eye(9))
    found = rest(intervene(system, inject("x3", 0.7), inject("u5", -2.0)), b)
    expected = -inverse @ b - inverse[:, 2] * 0.7 + inverse[:, 4] * 2.0
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_in_a_nonlinear_network_cut_and_clamp_are_the_edited_equations(seed):
    generator = np.random.default_rng(seed)
    W = generator.normal(size=(6, 6)) / 3
    system = intervene(Rates(W), cut("E:r1", "E:r4"), clamp("E:r2", 0.3), silence("w"))

    def edited(x):
        E, w = x[:6].copy(), 0.0
        E[2] = 0.3
        edited_W = W.copy()
        edited_W[4, 1] = 0.0
        rate = (np.tanh(edited_W @ E + 0.4 - w) - E) / 0.5
        rate[2] = 0.3 - x[2]
        return np.append(rate, -x[6])

    x = generator.normal(size=7)
    found = system.vector_field(0.0, torch.tensor(x), torch.tensor([0.4], dtype=torch.float64))
    np.testing.assert_allclose(found, edited(x), rtol=1e-13, atol=1e-13)
    at_rest = fsolve(edited, np.zeros(7), xtol=1e-13)
    rate = system.vector_field(0.0, torch.tensor(at_rest), torch.tensor([0.4], dtype=torch.float64))
    assert rate.abs().max() < 1e-10
    assert at_rest[2] == pytest.approx(0.3, abs=1e-12)


def test_a_cut_holds_its_source_at_the_reference_that_is_given():
    W = torch.rand(4, 4).double()
    system, x = Rates(W), torch.rand(3, 5).double()
    u, equilibrium = torch.zeros(1).double(), torch.rand(5).double()
    for reference in (equilibrium, equilibrium[:4]):  # a whole state, or the block's values
        cut_off = intervene(system, cut("E", "w", reference))
        rate = cut_off.vector_field(0.0, x, u)
        whole = system.vector_field(0.0, x, u)
        torch.testing.assert_close(rate[:, :4], whole[:, :4])
        torch.testing.assert_close(rate[:, 4], equilibrium[:4].mean() - x[:, 4])
    same = intervene(system, cut("E", "w", x[0]), cut("w", "E", x[0]))
    torch.testing.assert_close(
        same.vector_field(0.0, x[0], u), system.vector_field(0.0, x[0], u)
    )  # at the reference itself a cut changes nothing


def test_an_intervened_system_has_the_names_constants_and_copies_of_the_base():
    base = Rates(torch.rand(4, 4))
    system = intervene(base, silence("E:r1"))
    assert system.state_names == base.state_names
    assert dict(system.named_buffers()).keys() == dict(base.named_buffers()).keys()
    x, u = torch.rand(5).double(), torch.zeros(1).double()
    faster = system.with_constants(tau=0.25)
    expected = intervene(base.with_constants(tau=0.25), silence("E:r1"))
    for other in (faster, copy.deepcopy(faster), pickle.loads(pickle.dumps(faster))):
        torch.testing.assert_close(other.vector_field(0.0, x, u), expected.vector_field(0.0, x, u))
    swapped = torch.func.functional_call(system, {"tau": torch.tensor([0.25])}, (0.0, x, u))
    torch.testing.assert_close(swapped, expected.vector_field(0.0, x, u))
    taus = torch.tensor([[0.25], [0.5]]).double()
    batch = torch.func.vmap(
        lambda tau: torch.func.functional_call(system, {"tau": tau}, (0.0, x, u))
    )(taus)
    torch.testing.assert_close(batch[0], expected.vector_field(0.0, x, u))
    torch.testing.assert_close(batch[1], system.vector_field(0.0, x, u))
    assert base.tau.item() == 0.5


def test_output_and_noise_see_what_is_held():
    system = intervene(Rates(torch.rand(2, 2)), clamp("E:r0", 0.5))
    x, u = torch.ones(3).double(), torch.zeros(1).double()
    assert system.output(0.0, x, u).tolist() == [1.0, 2.0, 2.0]
    assert system.noise is not None
    assert system.noise(0.0, x, u).tolist() == [0.0, 1.1, 1.1]
    assert intervene(network(3, 0)[0], silence("x1")).noise is None


def test_interventions_apply_one_after_the_other():
    base = Rates(torch.rand(4, 4))
    both = intervene(base, silence("E:r1"), cut("w", "E:r2"))
    nested = intervene(intervene(base, silence("E:r1")), cut("w", "E:r2"))
    x, u = torch.rand(5).double(), torch.zeros(1).double()
    torch.testing.assert_close(nested.vector_field(0.0, x, u), both.vector_field(0.0, x, u))


def test_a_batch_of_values_is_each_value_by_itself():
    base, x = Rates(torch.rand(4, 4)), torch.rand(5).double()
    u, values = torch.zeros(1).double(), torch.rand(7, 1).double()
    together = intervene(base, clamp("w", values), inject("E", values), cut("E:r0", "E:r1", values))
    for value, rate in zip(values, together.vector_field(0.0, x, u), strict=True):
        alone = intervene(base, clamp("w", value), inject("E", value), cut("E:r0", "E:r1", value))
        torch.testing.assert_close(rate, alone.vector_field(0.0, x, u))


def test_a_state_held_in_a_map_is_there_after_one_step():
    class Map(DiscreteSystem):
        states = (Quantity("a", "1"), Quantity("b", "1"))

        def next_state(self, k, x, u):
            return x.flip(-1) * 2

    system = intervene(Map(), clamp("a", 3.0), inject("b", 0.5))
    after = system.next_state(0, torch.tensor([9.0, 7.0]).double(), torch.zeros(0))
    assert after.tolist() == [3.0, 6.5]
    assert system.step == 1.0
    with pytest.raises(ArgumentError, match="has no vector field"):
        system.vector_field(0.0, torch.zeros(2), torch.zeros(0))


def test_events_and_the_past_see_what_is_held():
    class Spiking(System):
        time_unit = "ms"
        states = (Quantity("V", "mV"), Quantity("w", "pA"))
        constants = (Quantity("V_th", "mV"), Quantity("lag", "ms"))
        delays = (Delay("V", "lag"),)

        def __init__(self):
            super().__init__()
            self.register_constants(V_th=-50.0, lag=1.0)

        def vector_field(self, t, x, u, past):  # pyright: ignore[reportIncompatibleMethodOverride]
            return torch.cat([past["V"] - x[..., :1], past["V"]], dim=-1)

        def _guard(self, t, x):
            return x[..., :1] - self.V_th

        events = (Event("spike", _guard, lambda self, x: x + 1.0),)

    system = intervene(Spiking(), clamp("V", -70.0))
    x = torch.tensor([-40.0, 2.0]).double()
    spike = system.events[0]
    assert spike.guard(system, 0.0, x).tolist() == [-20.0]
    assert spike.guard(system.with_constants(V_th=-60.0), 0.0, x).tolist() == [-10.0]
    assert spike.reset is not None
    assert spike.reset(system, x).tolist() == [-70.0, 3.0]
    u = torch.zeros(0)
    past = {"V": torch.tensor([-10.0]).double()}
    assert system(0.0, x, u, past).tolist() == [-30.0, -70.0]
    assert system(0.0, x, u).tolist() == [-30.0, -70.0]
    deaf = intervene(Spiking(), cut("V", "w", 5.0))
    assert deaf(0.0, x, u, past).tolist() == [30.0, 5.0]


@pytest.mark.parametrize(
    ("interventions", "words"),
    [
        ([silence("E:r9")], "no state or input is called 'E:r9': did you mean 'E:r"),
        ([cut("F", "w")], "no state is called 'F'"),
        ([cut("drive", "w")], "no state is called 'drive'"),
        ([silence("w"), clamp("w", 1.0)], "'w' is held twice"),
        ([clamp("E", torch.zeros(3))], r"shape \(3,\), expected batch axes and then 1 or 4"),
        ([inject("w", torch.zeros(5))], r"expected batch axes and then 1\."),
    ],
)
def test_interventions_that_cannot_be_are_refused(interventions, words):
    with pytest.raises(ArgumentError, match=words):
        intervene(Rates(torch.rand(4, 4)), *interventions)
