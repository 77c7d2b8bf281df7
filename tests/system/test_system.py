import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clinode.errors import ArgumentError
from clinode.system import (
    DiscreteSystem,
    Quantity,
    System,
    Values,
)

REGIONS = ("lh_precuneus", "rh_precuneus", "lh_insula")


class Membrane(System):
    """C dV/dt = -g (V - E) + I."""

    time_unit = "ms"
    states = (Quantity("V", "mV", range=(-100.0, 50.0), default=-70.0),)
    inputs = (Quantity("I", "pA"),)
    constants = (Quantity("C", "pF"), Quantity("g", "nS"), Quantity("E", "mV"))

    def __init__(self, C: Values = 100.0, g: Values = 10.0, E: Values = -70.0):
        super().__init__()
        self.register_constants(C=C, g=g, E=E)

    def vector_field(self, t, x, u):
        return (u - self.g * (x - self.E)) / self.C


class Regions(System):
    """Excitation and inhibition in regions named at run time; w per region, tau for all."""

    time_unit = "s"
    inputs = (Quantity("drive", "1"),)
    constants = (Quantity("tau", "s"),)

    def __init__(self, labels, w):
        super().__init__()
        self.states = (Quantity("E", "1", labels=labels, default=0.1), Quantity("I", "1"))
        self.constants = (*self.constants, Quantity("w", "1", labels=labels))
        self.register_constants(tau=0.01, w=w)

    def vector_field(self, t, x, u):
        E, I = self.split(x).values()
        mean = E.mean(-1, keepdim=True)
        return self.join(E=(-E + self.w * I + u) / self.tau, I=(mean - I) / self.tau)


class Doubling(DiscreteSystem):
    states = (Quantity("x", "1"),)
    step = 0.5
    time_unit = "h"

    def next_state(self, k, x, u):
        return 2 * x


def no_input(x):
    return x.new_zeros(0)


def test_the_passive_membrane_has_its_closed_form_rate_of_change():
    x, u = torch.tensor([-60.0]).double(), torch.tensor([30.0]).double()
    assert Membrane().vector_field(0.0, x, u).item() == (30.0 - 10.0 * (-60.0 + 70.0)) / 100.0


def test_split_and_join_undo_each_other():
    system = Regions(REGIONS, w=1.0)
    x = torch.rand(2, 5, 4)
    parts = system.split(x)
    assert {name: tuple(part.shape) for name, part in parts.items()} == {
        "E": (2, 5, 3),
        "I": (2, 5, 1),
    }
    assert torch.equal(system.join(**parts), x)
    assert torch.equal(system.join(**dict(reversed(parts.items()))), x)
    u = torch.rand(5, 1)
    assert torch.equal(system.split(u, system.inputs)["drive"], u)
    shared = system.join(E=torch.rand(3), I=torch.rand(7, 1))
    assert shared.shape == (7, 4)


def test_names_known_at_run_time_are_set_on_the_instance():
    system = Regions(REGIONS, w=1.0)
    assert system.state_names == (*(f"E:{region}" for region in REGIONS), "I")
    assert system.output_names == system.state_names
    assert (system.n_states, system.n_inputs, system.n_outputs) == (4, 1, 4)
    assert Regions(("a",), w=1.0).n_states == 2
    system.outputs = (Quantity("EEG", "uV"),)
    assert system.output_names == ("EEG",)


def test_the_default_output_is_the_state():
    x = torch.rand(3, 1)
    assert torch.equal(Membrane().output(0.0, x, torch.zeros(1)), x)


def test_the_initial_state_holds_the_defaults_and_a_state_without_one_is_named():
    assert Membrane().initial_state().tolist() == [-70.0]
    with pytest.raises(ArgumentError, match="no default for state 'I'"):
        Regions(REGIONS, w=1.0).initial_state()


batch_axes = st.lists(st.sampled_from([1, 2, 3]), max_size=3)


@settings(deadline=None, max_examples=60)
@given(batch_axes, batch_axes, batch_axes, batch_axes, st.integers(0, 10**6))
def test_every_element_of_a_batch_equals_the_same_system_alone(xs, us, taus, ws, seed):
    def aligned(shape, axes):  # 1 where the batch has 1 or where the axis is left out
        return [n if n == 1 else size for n, size in zip(shape, axes, strict=False)][-len(shape) :]

    axes = [2, 3, 2]
    shapes = [aligned(s, axes[len(axes) - len(s) :]) if s else [] for s in (xs, us, taus, ws)]
    generator = torch.Generator().manual_seed(seed)
    x, u, tau, w = (
        torch.rand(*shape, n, generator=generator, dtype=torch.float64) + 0.1
        for shape, n in zip(shapes, (4, 1, 1, 3), strict=True)
    )
    system = Regions(REGIONS, w=1.0)
    together = system.with_constants(tau=tau, w=w).vector_field(0.0, x, u)
    batch = torch.broadcast_shapes(*(tuple(shape) for shape in shapes))
    assert together.shape == (*batch, 4)
    alone = [
        system.with_constants(tau=tau_i, w=w_i).vector_field(0.0, x_i, u_i)
        for x_i, u_i, tau_i, w_i in zip(
            *(
                part.expand(*batch, part.shape[-1]).reshape(-1, part.shape[-1])
                for part in (x, u, tau, w)
            ),
            strict=True,
        )
    ]
    torch.testing.assert_close(together.reshape(-1, 4), torch.stack(alone), rtol=1e-14, atol=0)


def test_constants_are_float64_and_end_in_their_own_axis():
    membrane = Membrane()
    assert membrane.g.shape == (1,)
    assert membrane.dtype == torch.float64
    assert Regions(REGIONS, w=2.0).w.tolist() == [2.0, 2.0, 2.0]
    assert Membrane(g=torch.rand(5, 1)).dtype == torch.float32  # numbers follow the tensor given
    assert membrane.float().C.dtype == torch.float32


def test_with_constants_changes_a_copy_and_leaves_the_original():
    membrane = Membrane()
    before = copy.deepcopy(membrane.state_dict())
    changed = membrane.with_constants(g=torch.tensor([[1.0], [2.0]]), E=-50)
    assert changed.g.tolist() == [[1.0], [2.0]]
    assert (changed.E.item(), changed.E.dtype, changed.g.dtype) == (
        -50.0,
        torch.float64,
        torch.float64,
    )
    assert membrane.state_dict() == before
    assert isinstance(changed, Membrane)
    again = pickle.loads(pickle.dumps(changed))
    assert torch.equal(again.g, changed.g)


def test_a_batch_of_constants_written_flat_is_refused_with_the_remedy():
    with pytest.raises(ArgumentError, match=r"shape \(5,\).*unsqueeze"):
        Membrane().with_constants(g=torch.rand(5))
    with pytest.raises(
        ArgumentError, match=r"'w' has shape \(4,\), expected batch axes and then 3"
    ):
        Regions(REGIONS, w=torch.rand(4))


def test_an_unknown_or_missing_constant_is_named_with_the_nearest():
    with pytest.raises(ArgumentError, match="no constant 'gL': did you mean 'g'"):
        Membrane().with_constants(gL=1.0)

    class Broken(Membrane):
        def __init__(self):
            System.__init__(self)
            self.register_constants(C=1.0, g=1.0)

    with pytest.raises(ArgumentError, match="no value for constant 'E'"):
        Broken()


def test_a_constant_may_not_take_the_name_of_a_module_attribute():
    class Broken(System):
        constants = (Quantity("train", "1"),)

        def __init__(self):
            super().__init__()
            self.register_constants(train=1.0)

        def vector_field(self, t, x, u):
            return x

    with pytest.raises(ArgumentError, match="'train' cannot be an attribute"):
        Broken()


def test_a_name_used_twice_is_refused_when_the_class_is_written():
    with pytest.raises(ArgumentError, match="'V' more than once"):
        type(
            "Twice", (System,), {"states": (Quantity("V", "mV"),), "inputs": (Quantity("V", "mV"),)}
        )


def test_functional_call_vmap_and_jacrev_see_the_constants():
    membrane = Membrane()
    x, u = torch.tensor([-60.0]).double(), torch.tensor([30.0]).double()

    def rate(g):
        return torch.func.functional_call(membrane, {"g": g}, (0.0, x, u))

    g = torch.rand(6, 1, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(rate)(g), (30 - g * 10) / 100)
    torch.testing.assert_close(torch.func.jacrev(rate)(g[0]), torch.tensor([[-0.1]]).double())
    per_value = torch.func.vmap(torch.func.jacrev(rate))(g)
    torch.testing.assert_close(per_value, torch.full((6, 1, 1), -0.1).double())

    def rate_of_copy(g):
        return membrane.with_constants(g=g).vector_field(0.0, x, u)

    torch.testing.assert_close(torch.func.vmap(rate_of_copy)(g), torch.func.vmap(rate)(g))
    torch.testing.assert_close(torch.func.jacrev(rate_of_copy)(g[0]), torch.func.jacrev(rate)(g[0]))
    assert membrane.g.item() == 10.0


def test_a_trained_constant_keeps_its_gradient_through_a_changed_copy():
    g = nn.Parameter(torch.tensor([10.0]).double())
    membrane = Membrane(g=g)
    assert [name for name, _ in membrane.named_parameters()] == ["g"]
    changed = membrane.with_constants(E=-50.0)
    rate = changed.vector_field(0.0, torch.tensor([-60.0]).double(), torch.zeros(1))
    rate.backward()
    assert g.grad is not None
    assert g.grad.item() == pytest.approx(-(-60.0 + 50.0) / 100.0)
    assert not list(membrane.with_constants(g=1.0).parameters())


def test_a_wrong_number_of_states_is_told_in_words():
    with pytest.raises(ArgumentError, match="holds 3 values, expected 4: 'E:lh_precuneus'"):
        Regions(REGIONS, w=1.0).split(torch.rand(3))
    with pytest.raises(ArgumentError, match="block 'E' has 2 values"):
        Regions(REGIONS, w=1.0).join(E=torch.rand(2), I=torch.rand(1))
    with pytest.raises(ArgumentError, match="no block is called 'e'"):
        Regions(REGIONS, w=1.0).join(e=torch.rand(3), I=torch.rand(1))


def test_a_discrete_system_steps_and_refuses_to_flow():
    system = Doubling()
    x = torch.rand(3, 1)
    assert torch.equal(system.next_state(0, x, no_input(x)), 2 * x)
    assert torch.equal(torch.func.functional_call(system, {}, (0, x, no_input(x))), 2 * x)
    with pytest.raises(ArgumentError, match=r"steps of 0.5 h and has no vector field"):
        system.vector_field(0.0, x, no_input(x))


def test_a_discrete_system_has_batched_and_trained_constants_and_declines_a_flow():
    class Decay(DiscreteSystem):
        states = (Quantity("x", "1", default=1.0),)
        inputs = (Quantity("u", "1"),)
        constants = (Quantity("r", "1"),)
        step = 0.25
        time_unit = "h"

        def __init__(self, r=0.5):
            super().__init__()
            self.register_constants(r=r)

        def next_state(self, k, x, u):
            return self.r * x + u

    r = nn.Parameter(torch.tensor([[0.5], [0.25]]).double())
    system, x = Decay(r), torch.tensor([8.0]).double()
    after = system(0, x, torch.zeros(1).double())
    assert after.tolist() == [[4.0], [2.0]]
    after.sum().backward()
    assert r.grad is not None
    assert r.grad.tolist() == [[8.0], [8.0]]
    swapped = torch.func.functional_call(system, {"r": torch.ones(1)}, (0, x, torch.ones(1)))
    assert swapped.tolist() == [9.0]
    assert system.with_constants(r=0.125).next_state(0, x, torch.zeros(1)).tolist() == [1.0]
    assert system.initial_state().tolist() == [1.0]
    assert (system.step, system.n_outputs) == (0.25, 1)
