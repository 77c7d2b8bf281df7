"""The compiled loop against the eager one: same steps, same statuses, same gradients."""

import itertools
import math
import warnings

import pytest
import torch
from torch import nn

from clinode.dynamics import compiled
from clinode.dynamics.compiled import CompileWarning
from clinode.dynamics.compiled_columns import InColumns
from clinode.dynamics.compiled_loop import rate_of
from clinode.dynamics.compiled_march import COMPILED, March
from clinode.dynamics.compiled_outputs import states_between
from clinode.dynamics.compiled_rows import flatten, layout_of
from clinode.dynamics.compiled_stiff import small_inverse
from clinode.dynamics.compiled_trace import Spec, fake_arguments, graph_of, why_not
from clinode.dynamics.simulate import simulate
from clinode.dynamics.solvers import Limits, Problem
from clinode.system import Quantity, Signal, System


@pytest.fixture(scope="module", autouse=True)
def _compiler():
    reason = why_not("cpu")
    if reason:
        pytest.skip(f"nothing can be compiled here: {reason}")


@pytest.fixture(autouse=True)
def _loud_once_again():
    compiled._WARNED.clear()


class VanDerPol(System):
    states = (Quantity("x", "1"), Quantity("v", "1"))
    inputs = (Quantity("push", "1"),)
    constants = (Quantity("mu", "1"),)

    def __init__(self, mu=1.0):
        super().__init__()
        self.register_constants(mu=mu)

    def vector_field(self, t, x, u):
        position, speed = self.split(x).values()
        return self.join(x=speed, v=self.mu * (1 - position**2) * speed - position + u)


class Leak(System):
    states = (Quantity("V", "mV"),)
    inputs = (Quantity("I", "mV/ms"),)
    constants = (Quantity("tau", "ms"),)
    time_unit = "ms"

    def __init__(self, tau=2.0):
        super().__init__()
        self.register_constants(tau=tau)
        self.gain = 1.0

    def vector_field(self, t, x, u):
        return u * self.gain - x / self.tau


class Network(System):
    states = tuple(Quantity(f"z{i}", "1") for i in range(20))

    def __init__(self, generator):
        super().__init__()
        sizes = [20, 50, 50, 20]
        layers = []
        for n_in, n_out in itertools.pairwise(sizes):
            layer = nn.Linear(n_in, n_out)
            for parameter in layer.parameters():
                values = torch.randn(parameter.shape, generator=generator) / math.sqrt(n_in)
                parameter.data.copy_(values)
            layers += [layer, nn.Tanh()]
        self.net = nn.Sequential(*layers[:-1])

    def vector_field(self, t, x, u):
        return self.net(x)


class Robertson(System):
    """The reactions of Robertson 1966, with rates over nine orders of magnitude."""

    states = (Quantity("a", "1"), Quantity("b", "1"), Quantity("c", "1"))
    constants = (Quantity("k1", "1"), Quantity("k2", "1"), Quantity("k3", "1"))

    def __init__(self, k1=0.04, k2=3e7, k3=1e4):
        super().__init__()
        self.register_constants(k1=k1, k2=k2, k3=k3)

    def vector_field(self, t, x, u):
        a, b, c = self.split(x).values()
        slow, fast, back = self.k1 * a, self.k2 * b**2, self.k3 * b * c
        return self.join(a=back - slow, b=slow - back - fast, c=fast)


class Cable(System):
    """Heat along five cells, driven at one end: more states than are inverted in writing."""

    states = tuple(Quantity(f"T{i}", "K") for i in range(5))
    constants = (Quantity("conductance", "1"),)

    def __init__(self, conductance=1e4):
        super().__init__()
        self.register_constants(conductance=conductance)

    def vector_field(self, t, x, u):
        driven = torch.cos(t).unsqueeze(-1).to(x.dtype).expand_as(x[..., :1])
        left = torch.cat([driven, x[..., :-1]], dim=-1)
        right = torch.cat([x[..., 1:], x[..., -1:]], dim=-1)
        return self.conductance * (left - 2 * x + right) - x**3


class Chase(System):
    """x' = k (cos t - x - x^3), which follows its input closely where k is large."""

    states = (Quantity("x", "1"),)
    constants = (Quantity("k", "1"),)

    def __init__(self, k):
        super().__init__()
        self.register_constants(k=k)

    def vector_field(self, t, x, u):
        return self.k * (torch.cos(t).unsqueeze(-1).to(x.dtype) - x - x**3)


class Undecided(System):
    """A field whose Python code looks at values."""

    states = (Quantity("x", "1"),)

    def vector_field(self, t, x, u):
        return -x if bool((x > 0).any()) else -2 * x


def own_times(n_rows, n_times, end, generator):
    times = torch.rand(n_rows, n_times, generator=generator, dtype=torch.float64)
    times = times.sort(dim=-1).values
    times = (times - times[:, :1]) / (times[:, -1:] - times[:, :1])
    return times * end


def both(system, x0, times, u=0.0, **options):
    with torch.no_grad():
        eager = simulate(system, x0, times, u, keep_failed=True, **options)
        fast = simulate(system, x0, times, u, keep_failed=True, backend="compiled", **options)
    assert (eager.backend, fast.backend) == ("eager", "compiled")
    return eager, fast


def agree(eager, fast, rtol=1e-9, atol=1e-9):
    torch.testing.assert_close(fast.states, eager.states, rtol=rtol, atol=atol, equal_nan=True)
    assert (fast.status == eager.status).all()


def replayed(march, x0, tensors):
    """The logged steps once more in eager operations, for autograd, from the logged states.

    Jumps of a relaxation oscillation amplify rounding, so values are those of the log, and only
    their dependence on what came before is computed here.
    """
    layout, (count, log) = march.layout, march.steps
    log_t = log.t
    rate = rate_of(march.flat.field, (march.flat.inputs["u"],), tensors)
    node = (x0, rate(log_t[:, 0], x0))[: layout.method.n_node]
    nodes, curves = [node], []
    for n in range(int(count.max())):
        slot = torch.minimum(torch.full_like(count, n), count - 1).unsqueeze(-1)
        t, until = (log_t.gather(1, slot + i).squeeze(-1) for i in (0, 1))
        after, _, curve = layout.method.step(rate, t, until - t, node, layout.drifts)
        taken = (count > n).unsqueeze(-1)
        node = tuple(torch.where(taken, new, old) for new, old in zip(after, node, strict=True))
        node = tuple(
            torch.where(taken, log.known[i, :, n + 1], new.detach()) + (new - new.detach())
            for i, new in enumerate(node)
        )
        nodes.append(node)
        curves.append(curve)
    both = [(*node, *curve) for node, curve in zip(nodes, [curves[0], *curves], strict=True)]
    known = [torch.stack(part, dim=1) for part in zip(*both, strict=True)]
    return states_between(layout.method, march.flat.times, log_t, count, known)


def gradients_both_ways(system, x0, times, method, rtol, atol):
    """Gradients of a random readout: compiled, and by autograd over the same steps."""
    weights = torch.randn(*times.shape, x0.shape[-1], generator=torch.Generator().manual_seed(1))
    leaves = [x0.requires_grad_(), *system.parameters()]
    found = simulate(system, x0, times, method=method, rtol=rtol, atol=atol, backend="compiled")
    assert found.backend == "compiled"
    fast = torch.autograd.grad((found.states * weights).sum(), leaves)
    problem = Problem(system, x0, times, Signal.constant(torch.zeros(system.n_inputs)))
    flat = flatten(system, problem)
    layout = layout_of(flat, method)
    with torch.no_grad():
        march = March(flat, layout, rtol, atol, Limits()).run()
    states = replayed(march, flat.x0, flat.field.tensors)
    slow = torch.autograd.grad((states * weights).sum(), leaves)
    return fast, slow


@pytest.mark.slow
def test_a_leak_takes_the_steps_of_the_eager_loop_in_batches_of_any_size():
    generator = torch.Generator().manual_seed(0)
    system = Leak()
    for n_rows in (1, 2, 7, 64, 1024):
        x0 = torch.randn(n_rows, 1, generator=generator, dtype=torch.float64)
        times = own_times(n_rows, 9, 5.0, generator)
        slower = system.with_constants(tau=1 + torch.rand(n_rows, 1, generator=generator))
        eager, fast = both(slower, x0, times, u=0.3, rtol=1e-5, atol=1e-7)
        agree(eager, fast)
        assert (fast.n_evaluations == eager.n_evaluations).all()
    assert all(made.n_compiled == 1 for made in COMPILED.values())
    system.gain = 2.0  # a number in Python is part of the field, and a new one is seen
    eager, fast = both(system, [[1.0]], [0.0, 1.0, 2.0], u=1.0)
    agree(eager, fast)


def test_columns_compute_what_the_field_does():
    def field(x, mu):
        a, b, c = x.split(1, dim=-1)
        joined = torch.cat([b * mu, torch.where(a > 0, c, a), a * b - c], dim=-1)
        scale = joined.abs().amax(dim=-1, keepdim=True)
        outer = torch.stack([joined * a, joined + b, joined / 2], dim=1)
        back = torch.func.vjp(lambda z: torch.cat([z[:, 1:], z[:, :1] ** 2], dim=-1), joined)[1]
        product = joined @ torch.ones(3, 2, dtype=x.dtype)
        return joined / scale, outer[:, 1, 2], back(joined)[0].mean(dim=-1), product

    specs = [Spec(("row", 3)), Spec(("row", 1))]
    mode, fakes, _ = fake_arguments(specs)
    graph = graph_of(field, mode, fakes)
    with mode:
        columns = graph_of(lambda *a: InColumns(graph, 3).run(*a), mode, fakes)
    x, mu = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 1, dtype=torch.float64)
    torch.testing.assert_close(columns(x, mu), field(x, mu))


def test_what_cannot_be_compiled_is_said_once_and_solved_by_the_eager_loop():
    with pytest.warns(CompileWarning, match="Undecided was solved by the eager loop: its Python"):
        found = simulate(Undecided(), [1.0], [0.0, 1.0], backend="compiled")
    assert found.backend == "eager"
    torch.testing.assert_close(
        found.states[-1], torch.tensor([math.exp(-1)]).double(), atol=1e-6, rtol=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulate(Undecided(), [1.0], [0.0, 1.0], backend="compiled")
    pulse = Signal([0.0], [[0.0]], impulses=([0.5], [[1.0]]))
    with pytest.warns(CompileWarning, match="impulses"):
        simulate(Leak(), [1.0], [0.0, 1.0], pulse, backend="compiled")


def test_a_method_without_a_compiled_loop_is_refused():
    with pytest.raises(ValueError, match="by adaptive and Runge-Kutta methods"):
        simulate(Leak(), [1.0], [0.0, 1.0], method="torchdiffeq", backend="compiled")
    with pytest.raises(ValueError, match="backend must be"):
        simulate(Leak(), [1.0], [0.0, 1.0], backend="fast")


@pytest.mark.slow
def test_van_der_pol_of_very_different_stiffness_takes_the_steps_of_the_eager_loop():
    generator = torch.Generator().manual_seed(3)
    mu = torch.logspace(0, 1.5, 16, dtype=torch.float64).unsqueeze(-1)
    x0 = torch.randn(16, 2, generator=generator, dtype=torch.float64)
    times = own_times(16, 20, 10.0, generator)
    eager, fast = both(VanDerPol(mu), x0, times, rtol=1e-6, atol=1e-8)
    agree(eager, fast, rtol=1e-6, atol=1e-6)
    # Only the last state, which keeps no log, and constants that all trajectories share.
    eager, fast = both(VanDerPol(3.0), x0, [0.0, 7.0], rtol=1e-6, atol=1e-8)
    agree(eager, fast, rtol=1e-7, atol=1e-7)
    # A start from which the solution blows up leaves its mates untouched.
    wild = x0.clone()
    wild[3] = 1e200
    _, spoiled = both(VanDerPol(mu), wild, times, rtol=1e-6, atol=1e-8)
    _, clean = both(VanDerPol(mu), x0, times, rtol=1e-6, atol=1e-8)
    others = [i for i in range(16) if i != 3]
    assert spoiled.status[3] != "ok"
    assert spoiled.states[3, 1:].isnan().all()
    torch.testing.assert_close(spoiled.states[others], clean.states[others])
    assert all(made.n_compiled == 1 for made in COMPILED.values())


@pytest.mark.slow
def test_pulses_and_ramps_act_in_full():
    generator = torch.Generator().manual_seed(4)
    x0 = torch.randn(3, 1, generator=generator, dtype=torch.float64)
    times = own_times(3, 12, 10.0, generator)
    knots = [[1.0, 4.0, 4.001], [2.0, 2.5, 9.0], [0.5, 30.0, math.inf]]
    values = torch.tensor([[0.0, 900.0, 0.0], [1.0, -2.0, 3.0], [0.0, 2.0, 0.0]])
    for hold in ("previous", "linear"):
        signal = Signal(knots, values.double().unsqueeze(-1), hold=hold)
        agree(*both(Leak(), x0, times, signal, rtol=1e-7, atol=1e-9), rtol=1e-7, atol=1e-7)
    # V' = I - V / tau with a pulse of 900 for 0.001 ms, against its closed form.
    pulse = Signal([0.0, 4.0, 4.001], [[0.0], [900.0], [0.0]])
    last = both(Leak(2.0), [0.0], [0.0, 5.0, 6.0], pulse, rtol=1e-9, atol=1e-12)[1].states[-1]
    expected = 1800 * (1 - math.exp(-0.0005)) * math.exp(-1.999 / 2)
    torch.testing.assert_close(last, torch.tensor([expected]).double(), rtol=1e-8, atol=0)


@pytest.mark.slow
def test_the_gradient_of_an_input_in_pieces_is_that_of_the_eager_loop():
    x0 = torch.zeros(2, 1, dtype=torch.float64)
    values = torch.tensor([[1.0], [3.0], [-1.0]], dtype=torch.float64, requires_grad=True)
    found = {}
    for backend in ("eager", "compiled"):
        signal = Signal([0.0, 1.0, 2.5], values, hold="linear")
        states = simulate(Leak(), x0, [0.0, 0.7, 2.0, 4.0], signal, backend=backend).states
        found[backend] = torch.autograd.grad(states[0].sum(), values)[0]
    torch.testing.assert_close(found["compiled"], found["eager"], rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_the_gradient_of_van_der_pol_is_that_of_its_steps_replayed():
    generator = torch.Generator().manual_seed(5)
    # At larger mu the jumps amplify the rounding of every operation beyond what is asked here.
    mu = nn.Parameter(torch.logspace(0, 0.7, 24, dtype=torch.float64).unsqueeze(-1))
    x0 = torch.randn(24, 2, generator=generator, dtype=torch.float64)
    times = own_times(24, 20, 10.0, generator)
    fast, slow = gradients_both_ways(VanDerPol(mu), x0, times, "dopri5", 1e-5, 1e-7)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12 * float(b.abs().max()))


@pytest.mark.slow
def test_the_gradient_of_a_network_is_that_of_its_steps_replayed():
    generator = torch.Generator().manual_seed(6)
    x0 = torch.randn(32, 20, generator=generator)
    times = own_times(32, 10, 5.0, generator)
    system = Network(generator)
    fast, slow = gradients_both_ways(system, x0, times, "dopri5", 1e-4, 1e-5)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * float(b.abs().max()))
    with torch.no_grad():
        before = len(COMPILED)
        for parameter in system.parameters():
            parameter.mul_(0.9)
    agree(*both(system, x0.detach(), times, rtol=1e-4, atol=1e-5), rtol=1e-4, atol=1e-4)
    assert len(COMPILED) <= before + 1  # new weights are no new field; the reading is one


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_written_out_inverse_solves_what_the_library_does(n):
    generator = torch.Generator().manual_seed(n)
    W = torch.randn(40, n, n, generator=generator, dtype=torch.float64)
    W = W * torch.logspace(-8, 8, 40, dtype=torch.float64)[:, None, None]
    right = torch.randn(40, n, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(small_inverse(W)(right), torch.linalg.solve(W, right))


@pytest.mark.slow
def test_robertson_takes_the_steps_of_the_eager_loop():
    generator = torch.Generator().manual_seed(0)
    rates = torch.exp(0.5 * torch.randn(3, 8, 1, generator=generator, dtype=torch.float64))
    system = Robertson(0.04 * rates[0], 3e7 * rates[1], 1e4 * rates[2])
    x0 = torch.tensor([1.0, 0.0, 0.0]).double().expand(8, 3)
    times = own_times(8, 12, 1e4, generator)
    eager, fast = both(system, x0, times, method="rosenbrock", rtol=1e-6, atol=1e-12)
    agree(eager, fast, rtol=1e-8, atol=1e-14)
    assert (fast.n_evaluations == eager.n_evaluations).all()
    # Mass is conserved.
    torch.testing.assert_close(fast.states.sum(-1), torch.ones(8, 12).double(), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_a_stiff_system_of_five_states_that_depends_on_time_takes_the_steps_of_the_eager_loop():
    generator = torch.Generator().manual_seed(1)
    conductance = torch.logspace(0, 4, 6, dtype=torch.float64).unsqueeze(-1)
    x0 = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    times = own_times(6, 10, 3.0, generator)
    eager, fast = both(Cable(conductance), x0, times, method="rosenbrock", rtol=1e-6, atol=1e-8)
    agree(eager, fast, rtol=1e-8, atol=1e-10)
    assert (fast.n_evaluations == eager.n_evaluations).all()
    for size in (1, 3):  # the same code
        part = both(Cable(conductance[:size]), x0[:size], times[:size], method="rosenbrock")
        agree(*part, rtol=1e-8, atol=1e-10)
    assert all(made.n_compiled == 1 for made in COMPILED.values())


@pytest.mark.slow
def test_the_gradient_of_a_stiff_solution_is_that_of_its_steps_replayed():
    system = Chase(nn.Parameter(torch.logspace(0, 5, 6, dtype=torch.float64).unsqueeze(-1)))
    x0 = torch.linspace(-1, 1, 6, dtype=torch.float64).unsqueeze(-1)
    times = own_times(6, 8, 3.0, torch.Generator().manual_seed(2))
    fast, slow = gradients_both_ways(system, x0, times, "rosenbrock", 1e-5, 1e-7)
    for found, expected in zip(fast, slow, strict=True):
        size = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12 * size)


def test_gradients_of_larger_stiff_systems_are_found_by_the_eager_loop():
    x0 = torch.zeros(2, 5, dtype=torch.float64, requires_grad=True)
    with pytest.warns(CompileWarning, match="stiff solutions are compiled up to 3 states"):
        found = simulate(Cable(), x0, [0.0, 0.1], method="rosenbrock", backend="compiled")
    assert found.backend == "eager"
    assert torch.autograd.grad(found.states.sum(), x0)[0].isfinite().all()


@pytest.mark.gpu
def test_the_loop_of_a_gpu_takes_the_steps_of_the_eager_loop():
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")
    system = VanDerPol(torch.linspace(1, 5, 64, dtype=torch.float64).unsqueeze(-1)).cuda()
    x0 = torch.tensor([2.0, 0.0], dtype=torch.float64, device="cuda").expand(64, 2)
    agree(*both(system, x0, torch.linspace(0, 5, 20, device="cuda")), rtol=1e-6, atol=1e-6)
