import math

import numpy as np
import pytest
import torch

from clinode.brain import HodgkinHuxley, MorrisLecar
from clinode.dynamics import simulate
from clinode.errors import ArgumentError, SolverError
from clinode.system import Event, Quantity, Signal, System, Values


class LIF(System):
    """Leaky integrate-and-fire: C V' = -g_L (V - E_L) + I, reset at threshold. Burkitt 2006."""

    time_unit = "ms"
    states = (Quantity("V", "mV", default=-70.0), Quantity("w", "pA", default=0.0))
    inputs = (Quantity("I", "pA"),)
    constants = tuple(
        Quantity(name, unit)
        for name, unit in {
            "C": "pF",
            "g_L": "nS",
            "E_L": "mV",
            "V_th": "mV",
            "V_r": "mV",
            "t_ref": "ms",
        }.items()
    )

    def __init__(self, V_th: Values = -50.0, V_r: Values = -60.0, t_ref: Values = 2.0):
        super().__init__()
        self.register_constants(C=200.0, g_L=10.0, E_L=-70.0, V_th=V_th, V_r=V_r, t_ref=t_ref)

    def vector_field(self, t, x, u):
        V, w = self.split(x).values()
        return self.join(V=(u - self.g_L * (V - self.E_L)) / self.C, w=-w / 100.0)

    def _over(self, t, x):
        return x[..., :1] - self.V_th

    def _reset(self, x):
        return self.join(V=self.V_r.expand_as(x[..., :1]), w=x[..., 1:] + 1)

    events = (Event("spike", _over, _reset, refractory="t_ref", held=("V",)),)


class Ball(System):
    """A ball that bounces with restitution e."""

    states = (Quantity("h", "m"), Quantity("v", "m/s"))
    constants = (Quantity("e", "1"),)
    time_unit = "s"

    def __init__(self, e: Values = 0.8):
        super().__init__()
        self.register_constants(e=e)

    def vector_field(self, t, x, u):
        return self.join(h=x[..., 1:], v=torch.full_like(x[..., 1:], -9.81))

    def _height(self, t, x):
        return x[..., :1]

    def _bounce(self, x):
        return self.join(h=torch.zeros_like(x[..., :1]), v=-self.e * x[..., 1:])

    events = (Event("bounce", _height, _bounce, direction=-1),)


class Swing(System):
    """A harmonic oscillator of which zero crossings are noted."""

    states = (Quantity("x", "1"), Quantity("v", "1"))

    def vector_field(self, t, x, u):
        return torch.cat([x[..., 1:], -x[..., :1]], dim=-1)

    def _place(self, t, x):
        return x[..., :1]

    events = (
        Event("up", _place),
        Event("down", _place, direction=-1),
        Event("either", _place, direction=0),
    )


class Clock(System):
    """An event at a given time, through a guard that depends on time alone."""

    states = (Quantity("x", "1"),)

    def vector_field(self, t, x, u):
        return 0 * x + 1

    def _strikes(self, t, x):
        return torch.as_tensor(t).unsqueeze(-1) - 0.3 + 0 * x

    def _reset(self, x):
        return 0 * x

    events = (Event("strike", _strikes, _reset),)


TIGHT = {"rtol": 1e-10, "atol": 1e-12}
ADAPTIVE = [{"method": "dopri5"} | TIGHT, {"method": "rosenbrock"} | TIGHT]


def interval(I: float, V_th=-50.0, V_r=-60.0, t_ref=2.0) -> float:
    end = -70.0 + I / 10.0
    return t_ref + 20.0 * math.log((end - V_r) / (end - V_th))


@pytest.mark.slow
@pytest.mark.parametrize("how", ADAPTIVE)
def test_the_rate_of_a_leaky_integrator_is_its_closed_form(how):
    generator = torch.Generator().manual_seed(0)
    currents = 210 + 400 * torch.rand(5, 1, generator=generator).double()
    found = simulate(LIF(), [-70.0, 0.0], [0.0, 200.0], currents, **how)
    for k, I in enumerate(currents[:, 0].tolist()):
        spikes = found.events[found.events["trajectory"] == k]["time"].to_numpy()
        end = -70.0 + I / 10.0
        assert spikes[0] == pytest.approx(20 * math.log((end + 70) / (end + 50)), rel=1e-8)
        np.testing.assert_allclose(np.diff(spikes), interval(I), rtol=1e-8)
        assert len(spikes) == 1 + math.floor((200 - spikes[0]) / interval(I))
    assert set(found.events["name"]) == {"spike"}


@pytest.mark.parametrize("how", ADAPTIVE)
def test_the_voltage_is_held_while_refractory_and_the_rest_flows_on(how):
    I = 400.0
    first = 20 * math.log(40 / 20)
    times = [0.0, first + 1e-6, first + 1.0, first + 2.0, first + 3.0]
    found = simulate(LIF(), [-70.0, 0.0], times, I, **how).states
    torch.testing.assert_close(found[1:4, 0], torch.full((3,), -60.0).double())
    assert found[4, 0].item() == pytest.approx(-30 - 30 * math.exp(-1 / 20), rel=1e-8)
    kept = torch.exp(-(torch.tensor(times[1:]).double() - first) / 100)
    torch.testing.assert_close(found[1:, 1], kept, rtol=1e-7, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("how", [*ADAPTIVE, {"method": "rk4", "step": 0.25}])
def test_gradients_of_spike_times_and_of_the_state_behind_them_carry_the_saltation_term(how):
    def start(value):
        return torch.tensor([value], dtype=torch.float64, requires_grad=True)

    I, V_th, V_r, t_ref = start(380.0), start(-50.0), start(-60.0), start(2.0)
    end = -70.0 + I / 10.0
    first = 20 * torch.log((end + 70) / (end - V_th))
    third = first + 2 * (t_ref + 20 * torch.log((end - V_r) / (end - V_th)))
    stop = third.item() + 5.0
    voltage = end + (V_r - end) * torch.exp(-(stop - third - t_ref) / 20)
    found = simulate(LIF(V_th, V_r, t_ref), [-70.0, 0.0], [0.0, stop], I, **how)
    assert len(found.events) == 3
    wrt = (I, V_th, V_r, t_ref)
    for ours, theirs in ((found.event_times[2], third), (found.states[-1, 0], voltage)):
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-8)
        for a, b in zip(
            torch.autograd.grad(ours, wrt, retain_graph=True),
            torch.autograd.grad(theirs, wrt, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("how", ADAPTIVE)
def test_a_trajectory_with_events_does_not_depend_on_its_mates(how):
    V_th = torch.tensor([[-50.0], [-45.0], [-52.0]]).double()
    I = torch.tensor([[300.0], [500.0], [150.0]]).double()
    times = [0.0, 33.3, 60.0]
    together = simulate(LIF(V_th), [-70.0, 0.0], times, I, **how)
    for k in range(3):
        alone = simulate(LIF(V_th[k]), [-70.0, 0.0], times, I[k], **how)
        torch.testing.assert_close(together.states[k], alone.states, rtol=1e-11, atol=1e-11)
        mine = together.events[together.events["trajectory"] == k]["time"]
        np.testing.assert_allclose(mine, alone.events["time"], rtol=1e-12)
    assert (together.events["trajectory"] == 2).sum() == 0


@pytest.mark.parametrize("how", ADAPTIVE)
def test_a_ball_bounces_at_its_closed_form_times(how):
    found = simulate(Ball(), [1.0, 0.0], [0.0, 2.0], **how)
    fall = math.sqrt(2 / 9.81)
    flights = 2 * fall * 0.8 ** np.arange(1, 12)
    expected = fall + np.concatenate([[0.0], flights.cumsum()])
    expected = expected[expected < 2.0]
    np.testing.assert_allclose(found.events["time"], expected, rtol=1e-9)


def test_a_ball_that_comes_to_rest_ends_in_a_status_not_in_an_endless_loop():
    found = simulate(Ball(0.5), [[1.0, 0.0], [100.0, 0.0]], [0.0, 3.0], keep_failed=True)
    assert list(found.status) == ["chattering", "ok"]
    rest = math.sqrt(2 / 9.81) * (1 + 2 * 0.5 / 0.5)
    assert found.reached[0] == pytest.approx(rest, rel=1e-6)
    with pytest.raises(SolverError, match="events follow each other without end"):
        simulate(Ball(0.5), [1.0, 0.0], [0.0, 3.0])


def test_a_reset_that_does_not_leave_its_guard_is_chattering_at_the_start_and_later():
    stuck = LIF(V_r=-40.0, t_ref=0.0)
    for start in (-70.0, -45.0):
        found = simulate(stuck, [start, 0.0], [0.0, 100.0], 400.0, keep_failed=True)
        assert found.status == "chattering"


def test_constants_of_guards_and_resets_alone_may_have_a_batch_axis():
    V_th, t_ref = torch.tensor([[-50.0], [-45.0]]).double(), torch.tensor([[2.0], [3.0]]).double()
    for neuron in (LIF(V_th=V_th), LIF(t_ref=t_ref), LIF(V_r=V_th - 20)):
        found = simulate(neuron, [-70.0, 0.0], [0.0, 60.0], 400.0)
        assert found.states.shape == (2, 2, 2)
        times = [found.events[found.events["trajectory"] == k]["time"] for k in range(2)]
        assert times[0].iloc[1] < times[1].iloc[1] - 0.5 or neuron.V_r.ndim > 1


def test_a_start_beyond_the_threshold_fires_at_once_and_one_on_it_too():
    for start in (-45.0, -50.0):
        found = simulate(LIF(), [start, 0.0], [0.0, 5.0], 400.0, **TIGHT)
        assert found.events["time"][0] == 0.0
        assert found.states[0, 0] == start
    below = simulate(Ball(), [0.0, 1.0], [0.0, 0.1], **TIGHT)
    assert not len(below.events)


@pytest.mark.parametrize("how", ADAPTIVE)
def test_crossings_in_either_direction_are_noted_and_leave_the_state_alone(how):
    found = simulate(Swing(), [1.0, 0.0], [0.0, 10.0], **how)
    zeros = {n: found.events[found.events["name"] == n]["time"] for n in ("up", "down", "either")}
    np.testing.assert_allclose(zeros["down"], np.pi / 2 + 2 * np.pi * np.arange(2), rtol=1e-9)
    np.testing.assert_allclose(zeros["up"], 3 * np.pi / 2, rtol=1e-9)
    np.testing.assert_allclose(zeros["either"], np.pi / 2 + np.pi * np.arange(3), rtol=1e-9)
    assert found.states[-1, 0].item() == pytest.approx(math.cos(10.0), abs=1e-8)


def test_two_crossings_within_one_step_are_seen():
    # The guard is above zero for an eighth of a period; a step of the method spans half of it.
    class Peak(Swing):
        def _peak(self, t, x):
            return x[..., :1] - 0.92

        events = (Event("in", _peak), Event("out", _peak, direction=-1))

    found = simulate(Peak(), [0.0, 1.0], [0.0, 6.0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        found.events["time"], [math.asin(0.92), math.pi - math.asin(0.92)], atol=5e-3
    )


def test_a_guard_of_time_alone_is_met_exactly():
    found = simulate(Clock(), [0.0], [0.0, 0.25, 1.0])
    assert found.events["time"].tolist() == pytest.approx([0.3], rel=1e-12)
    expected = torch.tensor([0.0, 0.25, 0.7], dtype=torch.float64)
    torch.testing.assert_close(found.states[:, 0], expected, rtol=1e-9, atol=0)


def test_a_spike_by_an_impulse_happens_at_the_impulse():
    kick = Signal([0.0], [[0.0]], impulses=([3.0], [[200.0 * 30.0]]))
    found = simulate(LIF(), [-70.0, 0.0], [0.0, 3.0, 4.0, 10.0], kick, **TIGHT)
    assert found.events["time"].tolist() == [3.0]
    assert found.states[1:3, 0].tolist() == [-70.0, -60.0]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_spike_times_of_fixed_steps_fall_with_the_order(method, order):
    steps = np.array([1.0, 0.5, 0.25])
    exact = 20 * math.log(38 / 18) + 2 * interval(380.0)
    errors = []
    for step in steps:
        found = simulate(LIF(), [-70.0, 0.0], [0.0, 60.0], 380.0, method=method, step=step)
        errors.append(abs(found.events["time"][2] - exact))
    measured = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order - 0.5 < measured < order + 1


def test_a_cascade_fires_at_one_time_in_its_order():
    class Pair(System):
        states = (Quantity("a", "1"), Quantity("b", "1"))

        def vector_field(self, t, x, u):
            return torch.stack([1 + 0 * x[..., 0], 0 * x[..., 1]], dim=-1)

        def _first(self, t, x):
            return x[..., :1] - 1

        def _second(self, t, x):
            return x[..., 1:] - 1

        def _after_first(self, x):
            return torch.cat([0 * x[..., :1], x[..., 1:] + 0.7], dim=-1)

        def _after_second(self, x):
            return torch.cat([x[..., :1], 0 * x[..., 1:]], dim=-1)

        events = (Event("a", _first, _after_first), Event("b", _second, _after_second))

    found = simulate(Pair(), [0.0, 0.0], [0.0, 2.5])
    assert found.events["name"].tolist() == ["a", "a", "b"]
    np.testing.assert_allclose(found.events["time"], [1.0, 2.0, 2.0], rtol=1e-10)
    assert found.states[-1].tolist() == pytest.approx([0.5, 0.0])


def test_a_method_that_sees_no_events_is_refused():
    with pytest.raises(ArgumentError, match="sees no events"):
        simulate(LIF(), [-70.0, 0.0], [0.0, 1.0], method="torchdiffeq")


# Guards that cross zero several times within one step: steps of a state at rest are long


class Still(System):
    """A state that does not move, and a guard of time: sum_k a_k sin(w_k t + p_k) + offset."""

    states = (Quantity("x", "1"),)
    constants = (
        *(Quantity(name, "1", labels=tuple("abcde")) for name in ("a", "w", "p")),
        Quantity("offset", "1"),
    )

    def __init__(self, a: Values = 1.0, w: Values = 1.0, p: Values = 0.0, offset: Values = 0.0):
        super().__init__()
        self.register_constants(a=a, w=w, p=p, offset=offset)

    def vector_field(self, t, x, u):
        return 0 * x

    def _wave(self, t, x):
        angle = torch.as_tensor(t).unsqueeze(-1) * self.w + self.p
        return (self.a * torch.sin(angle)).sum(-1, keepdim=True) + self.offset + 0 * x

    events = (Event("up", _wave), Event("down", _wave, direction=-1))


class Counter(Still):
    """The same wave counts itself in the state, or sends it back."""

    def _one_more(self, x):
        return x + 1

    events = (Event("up", Still._wave, _one_more),)


WIDE = [{"method": "dopri5"}, {"method": "rosenbrock"}, {"method": "rk4", "step": 10.0}]


@pytest.mark.parametrize("how", WIDE)
def test_every_crossing_of_a_fast_guard_within_a_long_step_is_noted_in_order(how):
    wave = Still(a=[1.0, 0, 0, 0, 0], w=37.0, p=0.5)
    found = simulate(wave, [1.0], [0.0, 10.0], **how).events
    expected = (np.arange(1, 118) * np.pi - 0.5) / 37
    np.testing.assert_allclose(found["time"], expected[expected < 10], rtol=0, atol=1e-12)
    assert set(found["name"][::2]) == {"down"}
    assert set(found["name"][1::2]) == {"up"}


@pytest.mark.parametrize("how", WIDE)
def test_every_crossing_of_a_fast_guard_resets_the_state(how):
    wave = Counter(a=[1.0, 0, 0, 0, 0], w=37.0, p=-0.5)
    found = simulate(wave, [0.0], [0.0, 5.0, 10.0], **how)
    rounds = [1 + math.floor((37 * t - 0.5) / (2 * math.pi)) for t in (5, 10)]
    assert found.states[1:, 0].tolist() == rounds
    assert len(found.events) == rounds[1]


@pytest.mark.slow
def test_crossings_of_random_waves_are_those_of_a_dense_scan():
    random, n = np.random.default_rng(5), 24
    a, p = random.normal(size=(n, 5)), random.uniform(0, 6.28, (n, 5))
    w, offset = 10 ** random.uniform(0, 2, (n, 5)), random.normal(size=(n, 1))
    t = np.linspace(0, 3, 600_001)
    waves = Still(a, w, p, offset)
    found = simulate(waves, torch.ones(n, 1), [0.0, 3.0], max_steps=50_000).events
    for k in range(n):
        sign = np.sign(np.sin(t[:, None] * w[k] + p[k]) @ a[k] + offset[k])
        mine = found[found["trajectory"] == k]
        for name, turn in (("up", 2), ("down", -2)):
            exact = t[1:][np.diff(sign) == turn]
            np.testing.assert_allclose(mine[mine["name"] == name]["time"], exact, atol=1e-5)


@pytest.mark.parametrize(("gap", "count"), [(1e-3, 2), (1e-7, 2), (0.0, 0), (-1e-9, 0)])
def test_a_guard_that_all_but_touches_zero_crosses_twice_or_not_at_all(gap, count):
    class Touch(Still):
        def _parabola(self, t, x):
            return gap - (torch.as_tensor(t).unsqueeze(-1) - 1 / 3) ** 2 + 0 * x

        events = (Event("up", _parabola), Event("down", _parabola, direction=-1))

    found = simulate(Touch(), [1.0], [0.0, 10.0]).events
    assert len(found) == count
    if count:
        expected = [1 / 3 - math.sqrt(gap), 1 / 3 + math.sqrt(gap)]
        np.testing.assert_allclose(found["time"], expected, rtol=0, atol=1e-11)


def test_a_jump_of_a_guard_across_zero_is_found_where_it_is():
    class Jump(Still):
        def _saw(self, t, x):
            return torch.remainder(torch.as_tensor(t).unsqueeze(-1), 0.7) - 0.3 + 0 * x

        events = (Event("up", _saw), Event("down", _saw, direction=-1))

    found = simulate(Jump(), [1.0], [0.0, 2.0]).events
    np.testing.assert_allclose(found["time"], [0.3, 0.7, 1.0, 1.4, 1.7], rtol=0, atol=1e-11)


def test_a_guard_that_is_not_a_number_ends_the_solution_in_words():
    class Broken(Still):
        def _root(self, t, x):
            return torch.sqrt(0.5 - torch.as_tensor(t).unsqueeze(-1)) - 2 + 0 * x

        events = (Event("up", _root),)

    for how in WIDE:
        found = simulate(Broken(), [1.0], [0.0, 10.0], keep_failed=True, **how)
        assert found.status == "not finite"
        assert found.reached < 0.5


def test_a_guard_too_fast_for_a_fixed_step_ends_in_a_status(monkeypatch):
    monkeypatch.setattr("clinode.dynamics.events.MOST_PIECES", 32)
    wave = Still(a=[1.0, 0, 0, 0, 0], w=1e8, offset=1.1)
    found = simulate(wave, [1.0], [0.0, 1.0], method="euler", step=1.0, keep_failed=True)
    assert found.status == "step budget"


def test_crossings_without_a_reset_do_not_change_with_who_else_is_in_the_batch():
    w = torch.tensor([[3.0], [50.0], [17.0]]).double().expand(3, 5)
    together = simulate(Still(a=[1.0, 0, 0, 0, 0], w=w, p=0.5), [1.0], [0.0, 4.0]).events
    for k in range(3):
        alone = simulate(Still(a=[1.0, 0, 0, 0, 0], w=w[k], p=0.5), [1.0], [0.0, 4.0]).events
        mine = together[together["trajectory"] == k]
        np.testing.assert_allclose(mine["time"], alone["time"], rtol=0, atol=1e-12)


def spike_count(neuron: System, I: float, end: float, rtol: float) -> int:
    start = neuron.initial_state()
    return len(simulate(neuron, start, [0.0, end], I, rtol=rtol, atol=1e-3 * rtol).events)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("neuron", "I", "end"), [(MorrisLecar(), 100.0, 300.0), (HodgkinHuxley(), 10.0, 25.0)]
)
def test_loose_and_tight_tolerances_count_the_same_spikes(neuron, I, end):
    loose, tight = (spike_count(neuron, I, end, rtol) for rtol in (1e-3, 1e-9))
    assert loose == tight >= 2
