"""The compiled loop of fixed steps against the eager one: same states, statuses, counts."""

import math
import warnings

import numpy as np
import pytest
import torch

from clinode.dynamics import compiled_fixed
from clinode.dynamics.compiled import CompileWarning
from clinode.dynamics.compiled_trace import why_not
from clinode.dynamics.simulate import simulate
from clinode.system import Delay, Event, Quantity, Signal, System


@pytest.fixture(scope="module", autouse=True)
def _compiler():
    reason = why_not("cpu")
    if reason:
        pytest.skip(f"nothing can be compiled here: {reason}")


@pytest.fixture(autouse=True)
def _loud_once_again():
    compiled_fixed._WARNED.clear()


N = 3
NODES = ("a", "b", "c")


class Rates(System):
    """Two populations of three nodes that excite one another through W, in their own units."""

    time_unit = "ms"
    states = (Quantity("E", "1", NODES), Quantity("I", "1", NODES))
    inputs = (Quantity("P", "1", NODES),)
    constants = (
        Quantity("K", "1"),
        Quantity("tau", "ms"),
        Quantity("W", "1", tuple(f"{i}{j}" for i in NODES for j in NODES)),
    )

    def __init__(self, K=1.5, tau=4.0, delays=None):
        super().__init__()
        if delays is not None:
            self.register_buffer("lags", torch.as_tensor(delays, dtype=torch.float64))
            self.delays = (Delay("E", "lags"),)
        W = torch.tensor([[0.0, 0.5, 0.2], [0.7, 0.0, 0.1], [0.3, 0.6, 0.0]]).double()
        self.register_constants(K=K, tau=tau, W=W.flatten())

    def vector_field(self, t, x, u, past=None):
        E, I = self.split(x).values()
        W = self.W.unflatten(-1, (N, N))
        seen = E.unsqueeze(-2) if past is None else past["E"]
        drive = self.K * (W * seen).sum(-1) + u - 2 * I
        rise = (1 - E) * torch.sigmoid(drive) - E
        fall = torch.tanh(E + 0.1 * math.sin(1.0)) - I
        return torch.cat(torch.broadcast_tensors(rise / self.tau, fall / (2 * self.tau)), dim=-1)


class Forced(System):
    """x' = cos(t) - u x: the field depends on time itself."""

    states = (Quantity("x", "1"), Quantity("y", "1"))
    inputs = (Quantity("u", "1"),)
    constants = (Quantity("w", "1"),)

    def __init__(self, w=1.0):
        super().__init__()
        self.register_constants(w=w)

    def vector_field(self, t, x, u):
        X, Y = self.split(x).values()
        clock = torch.cos(torch.as_tensor(t, dtype=x.dtype)).unsqueeze(-1)
        return self.join(x=self.w * clock - u * X, y=X * Y - Y / self.w)


class Explodes(System):
    states = (Quantity("x", "1"),)
    constants = (Quantity("a", "1"),)

    def __init__(self, a=1.0):
        super().__init__()
        self.register_constants(a=a)

    def vector_field(self, t, x, u):
        return self.a * x * x


def draw(*shape, seed=0):
    return torch.tensor(np.random.default_rng(seed).uniform(0.05, 0.6, shape))


def both(system, x0, times, u=0.0, **options):
    with torch.no_grad():
        eager = simulate(system, x0, times, u, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("error", CompileWarning)
            fast = simulate(system, x0, times, u, backend="compiled", **options)
    assert fast.backend == "compiled"
    return eager, fast


def agree(eager, fast, atol=1e-14):
    torch.testing.assert_close(fast.states, eager.states, rtol=1e-13, atol=atol, equal_nan=True)
    torch.testing.assert_close(fast.outputs, eager.outputs, rtol=1e-13, atol=atol, equal_nan=True)
    assert fast.status.tolist() == eager.status.tolist()
    np.testing.assert_array_equal(fast.reached, eager.reached)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "method",
    ["euler", pytest.param("heun", marks=slow), pytest.param("midpoint", marks=slow), "rk4"],
)
def test_a_batch_of_constants_takes_the_eager_steps(method):
    system = Rates().with_constants(K=draw(5, 1, seed=1), tau=3 + draw(5, 1, seed=2))
    times = [0.0, 0.4, 0.45, 3.0]  # steps of several widths
    eager, fast = both(system, draw(5, 6), times, draw(3), method=method, step=0.1)
    agree(eager, fast)
    np.testing.assert_array_equal(fast.n_evaluations, eager.n_evaluations)


def test_another_batch_and_other_weights_need_no_compilation():
    shared = Rates()
    both(shared, draw(4, 6), [0.0, 1.0], method="euler", step=0.1)
    known = {id(loop): loop.n_compiled for loop in compiled_fixed._LOOPS.values()}
    other = Rates(K=0.3).with_constants(W=draw(9, seed=3))
    agree(*both(other, draw(17, 6, seed=4), [0.0, 0.7, 2.0], method="euler", step=0.1))
    assert {id(loop): loop.n_compiled for loop in compiled_fixed._LOOPS.values()} == known
    with torch.no_grad():  # one that differs between trajectories is another loop
        batched = shared.with_constants(W=draw(4, 9, seed=5))
    agree(*both(batched, draw(4, 6), [0.0, 1.0], method="euler", step=0.1))


@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
def test_one_trajectory_and_several_batch_axes_are_what_they_are_eagerly(batch):
    agree(*both(Rates(), draw(*batch, 6), [0.0, 1.0, 2.0], method="euler", step=0.25))


@pytest.mark.slow
def test_more_trajectories_than_go_at_once_are_solved_part_by_part(monkeypatch):
    monkeypatch.setattr(compiled_fixed, "ROWS", 4)
    monkeypatch.setattr(compiled_fixed, "STEPS", 7)
    system = Rates().with_constants(K=draw(9, 1, seed=1))
    u = Signal([0.0, 1.0], draw(9, 2, 3, seed=2))
    agree(*both(system, draw(9, 6), [0.0, 0.2, 2.0], u, method="euler", step=0.1))


@pytest.mark.parametrize("hold", ["previous", "linear"])
@pytest.mark.parametrize("method", ["euler", pytest.param("rk4", marks=slow)])
def test_inputs_and_fields_may_change_over_time(hold, method):
    system = Forced().with_constants(w=draw(3, 1) + 0.5)
    shared = Signal([0.0, 0.33, 1.0, 1.6], [[0.1], [0.9], [0.2], [0.5]], hold)
    own = Signal([0.0, 0.33, 1.0], draw(3, 3, 1, seed=1), hold)
    for u in (shared, own):
        agree(*both(system, draw(3, 2), [0.0, 1.1, 2.0], u, method=method, step=0.1))


@pytest.mark.slow
def test_single_precision_stays_single():
    system = Rates().float()
    eager, fast = both(system, draw(3, 6).float(), [0.0, 1.0], method="euler", step=0.1)
    assert fast.states.dtype == torch.float32
    torch.testing.assert_close(fast.states, eager.states, rtol=1e-5, atol=1e-6)


def test_one_trajectory_that_explodes_leaves_its_mates_alone():
    system = Explodes().with_constants(a=[[0.3], [50.0], [0.1]])
    options = {"method": "euler", "step": 0.1, "keep_failed": True}
    eager, fast = both(system, [[1.0]], [0.0, 0.5, 2.0], **options)
    assert fast.status.tolist() == ["ok", "not finite", "ok"]
    agree(eager, fast)
    np.testing.assert_array_equal(fast.n_evaluations, eager.n_evaluations)


def test_a_clock_that_runs_out_is_told():
    found = simulate(
        Rates(), draw(2, 6), [0.0, 0.5, 1.0], method="euler", step=0.1, backend="compiled",
        wall_time_seconds=1e-9, keep_failed=True,
    )  # fmt: skip
    assert found.status.tolist() == ["wall time"] * 2
    assert found.states[:, 1:].isnan().all()
    assert found.states[:, 0].isfinite().all()
    np.testing.assert_array_equal(found.reached, 0.0)


# Delays

LAGS = [[0.0, 0.3, 1.2], [0.1, 0.0, 0.0], [2.0, 0.7, 0.2]]  # of whole steps, some of none


def test_delays_of_whole_steps_take_the_eager_steps():
    system = Rates(K=6.0, delays=LAGS).with_constants(K=4 + draw(19, 1), tau=draw(19, 1) + 1)
    u = Signal([0.0, 1.0, 1.5], [[0.2, 0, 0], [1.5, 0, 0], [0.2, 0, 0]])
    for given in (0.3, u):
        eager, fast = both(system, draw(19, 6), [0.0, 0.5, 4.0], given, method="euler", step=0.1)
        agree(eager, fast, atol=1e-13)
    undelayed = simulate(Rates(K=6.0), draw(19, 6), [0.0, 4.0], method="euler", step=0.1)
    assert (undelayed.states - fast.states[:, [0, 2]]).abs().max() > 1e-3


def test_a_history_is_read_before_the_start():
    system = Rates(delays=LAGS)

    def history(times):
        return 0.3 + 0.2 * torch.sin(times).unsqueeze(-1) * torch.ones(6)

    x0 = 0.3 * torch.ones(6).double()
    options = {"method": "euler", "step": 0.1, "history": history}
    agree(*both(system, x0, [0.0, 0.3, 3.0], 0.2, **options), atol=1e-13)


def test_a_past_longer_than_one_call_is_kept(monkeypatch):
    monkeypatch.setattr(compiled_fixed, "LAGGED_STEPS", 5)
    agree(*both(Rates(delays=LAGS), draw(6), [0.0, 6.0], method="euler", step=0.1), atol=1e-13)


class Echo(System):
    """Each of two states reads its own past, by a constant of two delays."""

    states = (Quantity("x", "1"), Quantity("y", "1", ("p", "q")))
    constants = (Quantity("d", "1"), Quantity("e", "1", ("p", "q")))
    delays = (Delay("x", "d"), Delay("y", "e"))

    def __init__(self):
        super().__init__()
        self.register_constants(d=0.5, e=np.array([0.2, 0.0]))

    def vector_field(self, t, x, u, past=None):
        assert past is not None
        X, Y = self.split(x).values()
        return self.join(x=-past["x"] + 0.1 * Y.sum(-1, keepdim=True), y=-past["y"] * X)


@pytest.mark.slow
def test_several_states_may_be_delayed_each_in_its_way():
    agree(*both(Echo(), draw(4, 3), [0.0, 1.0, 2.5], method="euler", step=0.1), atol=1e-13)


# What is left to the eager loop


class Ticks(System):
    states = (Quantity("x", "1"),)

    def _full(self, t, x):
        return x - 1

    events = (Event("full", _full, lambda self, x: 0 * x),)

    def vector_field(self, t, x, u):
        return torch.ones_like(x)


def test_what_is_not_compiled_is_said_and_solved_by_the_eager_loop():
    pulse = Signal([0.0], [[0.0]], impulses=([0.5], [[1.0]]))
    own_times = [[0.0, 1.0], [0.0, 2.0]]
    odd = Rates(delays=np.array(LAGS) * 1.05)
    cases = (
        (Ticks(), draw(1), [0.0, 1.0], 0.0, "rk4", "it has events"),
        (Forced(), draw(2), [0.0, 1.0], pulse, "euler", "impulses"),
        (Rates(), draw(2, 6), own_times, 0.0, "euler", "of their own"),
        (Rates(delays=LAGS), draw(6), [0.0, 1.0], 0.0, "rk4", "only method 'euler'"),
        (odd, draw(6), [0.0, 1.0], 0.0, "euler", "no whole multiples"),
        (Rates(delays=LAGS), draw(6), [0.0, 0.25], 0.0, "euler", "no whole"),
    )
    for system, x0, times, u, method, words in cases:
        compiled_fixed._WARNED.clear()
        with torch.no_grad(), pytest.warns(CompileWarning, match=words):
            found = simulate(system, x0, times, u, method=method, step=0.1, backend="compiled")
        assert found.backend == "eager"
        with torch.no_grad():
            eager = simulate(system, x0, times, u, method=method, step=0.1)
        torch.testing.assert_close(found.states, eager.states, rtol=0, atol=0)


def test_gradients_are_those_of_the_eager_loop():
    K = torch.tensor([[1.0], [2.0]]).double().requires_grad_()
    system = Rates().with_constants(K=K)
    with pytest.warns(CompileWarning, match="gradients are those of the eager loop"):
        found = simulate(
            system, draw(2, 6), [0.0, 1.0], method="euler", step=0.1, backend="compiled"
        )
    (slope,) = torch.autograd.grad(found.states[:, -1].sum(), K)
    assert (slope != 0).all()
