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
    delay_times,
    present,
)

REGIONS = ("left", "middle", "right")


class Spiking(System):
    """C dV/dt = -g (V - E) - w + I; at V_th, V falls to V_r and w grows by b."""

    time_unit = "ms"
    states = (Quantity("V", "mV", default=-70.0), Quantity("w", "pA", default=0.0))
    inputs = (Quantity("I", "pA"),)
    constants = (
        Quantity("C", "pF"),
        Quantity("g", "nS"),
        Quantity("E", "mV"),
        Quantity("V_th", "mV"),
        Quantity("V_r", "mV"),
        Quantity("b", "pA"),
        Quantity("tau", "ms"),
        Quantity("t_ref", "ms"),
        Quantity("D", "mV/ms**0.5"),
    )

    def __init__(self, V_th=-50.0, V_r=-60.0):
        super().__init__()
        self.register_constants(
            C=200.0, g=10.0, E=-70.0, V_th=V_th, V_r=V_r, b=5.0, tau=100.0, t_ref=2.0, D=1.0
        )

    def vector_field(self, t, x, u):
        V, w = self.split(x).values()
        return self.join(V=(u - w - self.g * (V - self.E)) / self.C, w=-w / self.tau)

    def noise(self, t, x, u):
        V, w = self.split(x).values()
        return self.join(V=self.D.expand_as(V), w=torch.zeros_like(w))

    def _threshold(self, t, x):
        return self.split(x)["V"] - self.V_th

    def _after_spike(self, x):
        return self.join(V=self.V_r, w=self.split(x)["w"] + self.b)

    events = (
        Event("spike", _threshold, _after_spike, refractory="t_ref", held=("V",)),
        Event("below", _threshold, direction=-1),
    )


class Delayed(System):
    """dE_i/dt = (-E_i + sum_j E_j(t - d_ij) - E_i(t - lag)) / tau, delays between regions."""

    time_unit = "s"
    states = (Quantity("E", "1", labels=REGIONS), Quantity("z", "1"))
    constants = (Quantity("tau", "s"), Quantity("lag", "s"))
    delays = (Delay("E", "travel"), Delay("z", "lag"))

    def __init__(self, travel, lag=0.5):
        super().__init__()
        self.register_buffer("travel", torch.as_tensor(travel).double())
        self.register_constants(tau=0.1, lag=lag)

    def vector_field(self, t, x, u, past):  # pyright: ignore[reportIncompatibleMethodOverride]
        E, z = self.split(x).values()
        return self.join(E=(past["E"].sum(-1) - E) / self.tau, z=(past["z"] - z) / self.tau)


def test_guard_and_reset_see_the_constants_of_the_system_they_are_given():
    high, x = Spiking(V_th=-40.0), torch.tensor([[-45.0, 1.0]]).double()
    spike = Spiking.events[0]
    assert spike.guard(high, 0.0, x).tolist() == [[-5.0]]
    assert spike.guard(Spiking(), 0.0, x).tolist() == [[5.0]]
    assert spike.reset is not None
    assert spike.reset(high.with_constants(V_r=-55.0), x).tolist() == [[-55.0, 6.0]]


def test_at_an_equilibrium_every_delay_reads_the_present():
    system = Delayed(torch.rand(3, 3))
    x = torch.rand(5, 4, dtype=torch.float64)
    past = present(system, x)
    assert {name: tuple(values.shape) for name, values in past.items()} == {
        "E": (5, 3, 3),
        "z": (5, 1),
    }
    E = x[:, :3]
    torch.testing.assert_close(past["E"], E.unsqueeze(1).expand(5, 3, 3))
    rate = system(0.0, x, x.new_zeros(0))
    torch.testing.assert_close(rate[:, :3], (E.sum(-1, keepdim=True) - E) / 0.1)
    torch.testing.assert_close(rate[:, 3:], torch.zeros(5, 1).double())
    torch.testing.assert_close(system(0.0, x, x.new_zeros(0), past), rate)


def test_a_batch_of_delay_constants_leaves_the_present_as_it_is():
    system = Delayed(torch.rand(2, 1, 3), lag=torch.tensor([[0.25], [0.5]]).double())
    past = present(system, torch.rand(7, 1, 4).double())
    assert tuple(past["E"].shape) == (7, 1, 2, 1, 3)
    assert tuple(past["z"].shape) == (7, 1, 1)
    assert delay_times(system)["z"].tolist() == [[0.25], [0.5]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": ""}, "needs a name"),
        ({"direction": 2}, "direction must be 1"),
        ({"held": ("V",)}, "holds 'V', but for no time"),
    ],
)
def test_an_event_that_makes_no_sense_is_refused(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        Event(**({"name": "spike", "guard": torch.sum} | arguments))


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"refractory": "t_rev"}, "no constant 't_rev'.*did you mean 't_ref'"),
        ({"refractory": "t_ref", "held": ("v",)}, "no state held by event 'spike'.*'v'"),
    ],
)
def test_an_event_that_names_what_there_is_not_is_refused_at_construction(event, words):
    class Broken(System):
        states = (Quantity("V", "mV"),)
        constants = (Quantity("t_ref", "1"),)
        events = (Event("spike", torch.sum, **event),)

        def __init__(self):
            super().__init__()
            self.register_constants(t_ref=1.0)

        def vector_field(self, t, x, u):
            return x

    with pytest.raises(ArgumentError, match=words):
        Broken()


def test_two_events_of_one_name_are_refused_when_the_class_is_written():
    event = Event("spike", torch.sum)
    with pytest.raises(ArgumentError, match="more than one event 'spike'"):
        type("Twice", (System,), {"events": (event, event)})


@pytest.mark.parametrize(
    ("travel", "words"),
    [
        (-torch.rand(3, 3), "finite and not negative"),
        (torch.rand(3, 2), r"shape \(3, 2\), expected a last axis of 1 or 3"),
    ],
)
def test_delays_that_cannot_be_are_refused(travel, words):
    with pytest.raises(ArgumentError, match=words):
        delay_times(Delayed(travel))


def test_a_delay_of_a_state_or_by_times_that_do_not_exist_is_refused():
    class Unknown(Delayed):
        delays = (Delay("e", "travel"),)

    with pytest.raises(ArgumentError, match="no state 'e' to delay"):
        Unknown(torch.rand(3, 3))

    class Timeless(Delayed):
        delays = (Delay("E", "trip"),)

    with pytest.raises(ArgumentError, match="no constant or buffer 'trip'"):
        delay_times(Timeless(torch.rand(3, 3)))


def test_a_map_has_no_events_delays_or_noise_and_a_flow_no_next_state():
    with pytest.raises(ArgumentError, match="is a map, and events"):
        type("Map", (DiscreteSystem,), {"events": Spiking.events})
    assert LinearSystem([[0.0]], [[1.0]]).noise is None
    with pytest.raises(ArgumentError, match="Spiking is in continuous time and has no next state"):
        Spiking().next_state(0, torch.zeros(2), torch.zeros(1))
