import control
import numpy as np
import pytest
import torch

from clinode.errors import ArgumentError
from clinode.system import (
    Delay,
    DiscreteSystem,
    Event,
    LinearSystem,
    Quantity,
    System,
    UnitError,
    closed_loop,
    connect,
    intervene,
    silence,
)


def linear(seed, n=3, m=2, p=2, feedthrough=False, **names):
    generator = np.random.default_rng(seed)
    A = generator.normal(size=(n, n)) - 2 * np.eye(n)
    B, C, D = (generator.normal(size=shape) for shape in ((n, m), (p, n), (p, m)))
    return LinearSystem(A, B, C, D if feedthrough else None, **names)


class Cell(System):
    """A leaky cell that spikes, with noise of its own."""

    time_unit = "ms"
    states = (Quantity("V", "mV", default=-70.0),)
    inputs = (Quantity("I", "pA"),)
    constants = (
        Quantity("C", "pF"),
        Quantity("g", "nS"),
        Quantity("V_th", "mV"),
        Quantity("t_ref", "ms"),
        Quantity("D", "mV/ms**0.5"),
    )

    def __init__(self, g=10.0):
        super().__init__()
        self.register_constants(C=200.0, g=g, V_th=-50.0, t_ref=2.0, D=0.5)

    def vector_field(self, t, x, u):
        return (u - self.g * (x + 70.0)) / self.C

    def noise(self, t, x, u):
        return self.D.expand_as(x)

    def _guard(self, t, x):
        return x - self.V_th

    def _reset(self, x):
        return torch.full_like(x, -65.0)

    events = (Event("spike", _guard, _reset, refractory="t_ref", held=("V",)),)


class Synapse(System):
    """A current that follows a delayed voltage."""

    time_unit = "ms"
    states = (Quantity("s", "1", default=0.0),)
    inputs = (Quantity("V", "mV"),)
    outputs = (Quantity("I", "pA"),)
    constants = (Quantity("tau", "ms"), Quantity("w", "pA"), Quantity("lag", "ms"))
    delays = (Delay("s", "lag"),)

    def __init__(self, w=20.0):
        super().__init__()
        self.register_constants(tau=5.0, w=w, lag=1.5)

    def vector_field(self, t, x, u, past):  # pyright: ignore[reportIncompatibleMethodOverride]
        return (torch.sigmoid(u / 10) - past["s"]) / self.tau

    def output(self, t, x, u):
        return self.w * x


def pair(**changes):
    links = [("cell.V", "synapse.V"), ("synapse.I", "cell.I")]
    return connect({"cell": Cell(), "synapse": Synapse(**changes)}, links, inputs=["cell.I"])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("feedthrough", [False, True])
def test_two_linear_systems_in_series_are_python_controls_product(seed, feedthrough):
    first, second = (linear(seed + k, feedthrough=feedthrough) for k in (0, 10))
    links = [("first.y1", "second.u1"), ("first.y2", "second.u2")]
    both = connect({"first": first, "second": second}, links, outputs=["second.y1", "second.y2"])
    reference = control.series(first.to_control(), second.to_control())
    x, u = np.random.default_rng(seed).normal(size=6), np.array([0.3, -2.0])
    order = [reference.state_labels.index(name) for name in reference.state_labels]
    assert order == list(range(6))
    # python-control puts the states of the second system first
    theirs = np.concatenate([x[3:], x[:3]])
    dx = reference.dynamics(0, theirs, u)
    found = both.vector_field(0.0, torch.tensor(x), torch.tensor(u))
    for candidate in (np.concatenate([dx[3:], dx[:3]]), reference.dynamics(0, x, u)):
        if np.allclose(found, candidate, rtol=1e-12):
            break
    else:
        pytest.fail(f"{found} is neither order of {dx}")
    assert both.input_names == ("first.u1", "first.u2")
    assert both.output_names == ("second.y1", "second.y2")
    y = both.output(0.0, torch.tensor(x), torch.tensor(u)).numpy()
    y_first = first.output(0.0, torch.tensor(x[:3]), torch.tensor(u))
    np.testing.assert_allclose(y, second.output(0.0, torch.tensor(x[3:]), y_first), rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_closed_loop_of_linear_systems_has_the_spectrum_of_the_feedback(seed):
    plant = linear(seed, outputs=["a", "b"], inputs=["v", "w"])
    controller = linear(seed + 5, n=2, feedthrough=True, inputs=["a", "b"], outputs=["v", "w"])
    loop = closed_loop(plant, controller)
    zero, none = torch.zeros(5).double(), torch.zeros(0).double()
    found = torch.func.jacrev(lambda x: loop.vector_field(0.0, x, none))(zero)
    A, B, C = plant.A, plant.B, plant.C
    F, G, H, K = controller.A, controller.B, controller.C, controller.D
    expected = torch.cat([torch.cat([A + B @ K @ C, B @ H], dim=1), torch.cat([G @ C, F], dim=1)])
    torch.testing.assert_close(found, expected)
    feedback = control.feedback(plant.to_control(), controller.to_control(), sign=1)
    np.testing.assert_allclose(
        np.sort_complex(torch.linalg.eigvals(found).numpy()),
        np.sort_complex(feedback.poles()),
        rtol=1e-9,
    )


def test_a_gain_without_states_is_a_controller():
    plant = LinearSystem([[0.0, 1.0], [0.0, 0.0]], [[0.0], [1.0]], inputs=["force"])
    gain = LinearSystem(
        torch.zeros(0, 0).double(),
        torch.zeros(0, 2).double(),
        torch.zeros(1, 0).double(),
        [[-2.0, -3.0]],
        inputs=["x1", "x2"],
        outputs=["force"],
    )
    loop = closed_loop(plant, gain, disturbances=["force"])
    assert loop.input_names == ("plant.force",)
    x, push = torch.tensor([1.0, -1.0]).double(), torch.tensor([0.5]).double()
    assert loop.vector_field(0.0, x, push).tolist() == [-1.0, 0.5 - 2.0 + 3.0]


def test_parts_keep_names_constants_events_delays_and_noise():
    both = pair()
    assert both.state_names == ("cell.V", "synapse.s")
    assert both.input_names == ("cell.I",)
    assert both.output_names == ("cell.V", "synapse.I")
    assert [q.name for q in both.constants][:2] == ["cell.C", "cell.g"]
    assert {q.name for q in both.constants} == dict(both.named_buffers()).keys()
    assert both.initial_state().tolist() == [-70.0, 0.0]
    assert both.delays == (Delay("synapse.s", "synapse.lag"),)
    x, u = torch.tensor([-45.0, 0.25]).double(), torch.tensor([100.0]).double()
    (spike,) = both.events
    assert (spike.name, spike.refractory, spike.held) == ("cell.spike", "cell.t_ref", ("cell.V",))
    assert spike.guard(both, 0.0, x).tolist() == [5.0]
    assert spike.reset is not None
    assert spike.reset(both, x).tolist() == [-65.0, 0.25]
    assert both.noise is not None
    assert both.noise(0.0, x, u).tolist() == [0.5, 0.0]
    past = {"synapse.s": torch.tensor([0.75]).double()}
    rate = both(0.0, x, u, past)
    assert rate[0].item() == pytest.approx((100.0 + 20.0 * 0.25 - 10.0 * 25.0) / 200.0)
    assert rate[1].item() == pytest.approx((1 / (1 + np.exp(4.5)) - 0.75) / 5.0)


def test_constants_of_parts_are_changed_swapped_and_mapped_over_by_their_full_names():
    both, x = pair(), torch.tensor([-45.0, 0.25]).double()
    u = torch.tensor([100.0]).double()
    changed = both.with_constants(**{"cell.g": 5.0, "synapse.w": 40.0})
    swaps = {"cell.g": torch.tensor([5.0]), "synapse.w": torch.tensor([40.0])}
    swapped = torch.func.functional_call(both, swaps, (0.0, x, u))
    torch.testing.assert_close(changed(0.0, x, u), swapped)
    assert getattr(both, "cell.g").item() == 10.0
    assert getattr(changed, "cell.g").item() == 5.0
    with pytest.raises(ArgumentError, match=r"no constant 'cell.gg': did you mean 'cell.g'"):
        both.with_constants(**{"cell.gg": 1.0})
    rates = torch.func.vmap(lambda g: torch.func.functional_call(both, {"cell.g": g}, (0.0, x, u)))
    g = torch.tensor([[5.0], [10.0]]).double()
    torch.testing.assert_close(rates(g)[1], both(0.0, x, u))


def test_a_composition_can_be_intervened_in_and_composed_again():
    quiet = intervene(pair(), silence("synapse.s"))
    x, u = torch.tensor([-45.0, 0.25]).double(), torch.tensor([100.0]).double()
    assert quiet(0.0, x, u)[0].item() == pytest.approx((100.0 - 250.0) / 200.0)
    faster = quiet.with_constants(**{"cell.g": 5.0})
    assert faster(0.0, x, u)[0].item() == pytest.approx((100.0 - 125.0) / 200.0)
    two = connect({"left": pair(), "right": pair()}, [("left.synapse.I", "right.cell.I")])
    assert two.state_names[-1] == "right.synapse.s"
    assert getattr(two, "right.cell.g").item() == 10.0
    rate = two(0.0, torch.tensor([-45.0, 0.25, -45.0, 0.0]).double(), u)
    assert rate[2].item() == pytest.approx((20.0 * 0.25 - 250.0) / 200.0)


def test_parts_with_sources_of_noise_of_their_own_have_a_block_diagonal_of_them():
    class Shared(System):
        time_unit = "ms"
        states = (Quantity("a", "1"), Quantity("b", "1"))

        def vector_field(self, t, x, u):
            return -x

        def noise(self, t, x, u):
            return (
                torch.tensor([[1.0, 2.0, 0.0], [0.0, 3.0, 4.0]])
                .double()
                .expand(*x.shape[:-1], 2, 3)
            )

    both = connect({"cell": Cell(), "shared": Shared()}, [])
    assert both.noise is not None
    noise = both.noise(0.0, torch.zeros(5, 3).double(), torch.zeros(1).double())
    expected = torch.tensor([[0.5, 0, 0, 0], [0, 1, 2, 0], [0, 0, 3, 4]]).double()
    torch.testing.assert_close(noise, expected.expand(5, 3, 4))


def test_one_value_goes_to_every_member_of_a_block_and_blocks_to_blocks():
    labels = ("a", "b", "c")
    states = [Quantity("E", "1", labels=labels)]
    inputs = [Quantity("drive", "1", labels=labels)]
    network = LinearSystem(-np.eye(3), np.eye(3), states=states, inputs=inputs)
    source = LinearSystem([[-1.0]], [[1.0]], states=["s"])
    one = connect({"source": source, "network": network}, [("source.s", "network.drive")])
    x = torch.tensor([2.0, 0.0, 0.0, 0.0]).double()
    assert one.vector_field(0.0, x, torch.zeros(1).double()).tolist() == [-2.0, 2.0, 2.0, 2.0]
    part = connect({"source": source, "network": network}, [("source.s", "network.drive:b")])
    assert part.input_names == ("source.u1", "network.drive:a", "network.drive:c")
    u = torch.tensor([0.0, 5.0, 7.0]).double()
    assert part.vector_field(0.0, x, u).tolist() == [-2.0, 5.0, 2.0, 7.0]
    with pytest.raises(ArgumentError, match=r"has 3 values and 'source.u1' takes 1"):
        connect({"source": source, "network": network}, [("network.E", "source.u1")])


def test_maps_of_one_step_are_composed_to_a_map():
    class Doubling(DiscreteSystem):
        step = 0.5
        states = (Quantity("x", "1"),)
        inputs = (Quantity("u", "1"),)

        def next_state(self, k, x, u):
            return 2 * x + u

    both = connect({"a": Doubling(), "b": Doubling()}, [("a.x", "b.u")])
    assert both.step == 0.5
    after = both(0, torch.tensor([1.0, 3.0]).double(), torch.tensor([4.0]).double())
    assert after.tolist() == [6.0, 7.0]


class Voltage(System):
    states = (Quantity("V", "V"),)
    outputs = (Quantity("V", "V"),)
    time_unit = "ms"

    def vector_field(self, t, x, u):
        return -x


@pytest.mark.parametrize(
    ("systems", "links", "words"),
    [
        ({}, [], "nothing to connect"),
        ({"a": linear(0, time_unit="s"), "b": linear(1)}, [], "'b' moves in 1 and 'a' in s"),
        ({"a": linear(0, step=1.0), "b": linear(1)}, [], "not both flows, or maps of one step"),
        ({"a": linear(0)}, [("b.y1", "a.u1")], "must begin with the name of a part"),
        ({"a": linear(0)}, [("a.y3", "a.u1")], "no output of 'a' is called 'y3': there are 'y1'"),
        ({"train": linear(0)}, [], "a part cannot be called 'train'"),
        (
            {"a": linear(0, feedthrough=True), "b": linear(1, feedthrough=True)},
            [("a.y1", "b.u1"), ("b.y1", "a.u1")],
            "outputs of 'a', 'b' depend at once on each other's",
        ),
    ],
)
def test_what_cannot_be_connected_is_refused(systems, links, words):
    with pytest.raises(ArgumentError, match=words):
        connect(systems, links)


def test_a_link_between_units_that_do_not_agree_is_refused():
    words = r"output 'v.V' and input 'synapse.V' do not agree: V is 1000 mV"
    with pytest.raises(UnitError, match=words):
        connect({"v": Voltage(), "synapse": Synapse()}, [("v.V", "synapse.V")])
    words = "'synapse.I' and input 'other.V' do not agree: pA has not the dimension of mV"
    with pytest.raises(UnitError, match=words):
        connect({"synapse": Synapse(), "other": Synapse()}, [("synapse.I", "other.V")])


def test_a_controller_that_shares_no_name_with_its_plant_is_refused():
    with pytest.raises(ArgumentError, match=r"reads no output.*there are 'y1', 'y2'"):
        closed_loop(linear(0), linear(1, inputs=["a", "b"]))
    with pytest.raises(ArgumentError, match="drives no input"):
        closed_loop(linear(0), linear(1, inputs=["y1", "y2"], outputs=["a", "b"]))
