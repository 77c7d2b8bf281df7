import numpy as np
import pytest
import scipy.integrate
import torch

from clinode.dynamics import simulate
from clinode.errors import ArgumentError, SolverError
from clinode.system import LinearSystem, Quantity, Signal, System, Values


class Robertson(System):
    """The reactions of Robertson 1966, with rates over nine orders of magnitude."""

    states = (Quantity("a", "1"), Quantity("b", "1"), Quantity("c", "1"))
    constants = (Quantity("k1", "1"),)

    def __init__(self, k1: Values = 0.04):
        super().__init__()
        self.register_constants(k1=k1)

    def vector_field(self, t, x, u):
        a, b, c = self.split(x).values()
        first, second, third = self.k1 * a, 1e4 * b * c, 3e7 * b**2
        return self.join(a=second - first, b=first - second - third, c=third)


class VanDerPol(System):
    states = (Quantity("x", "1"), Quantity("v", "1"))
    constants = (Quantity("mu", "1"),)

    def __init__(self, mu: Values = 1.0):
        super().__init__()
        self.register_constants(mu=mu)

    def vector_field(self, t, x, u):
        place, speed = self.split(x).values()
        return self.join(x=speed, v=self.mu * (1 - place**2) * speed - place)


class Relaxing(System):
    """x' = -k (x - cos t) - sin t, whose solution from 1 is cos t for any k."""

    states = (Quantity("x", "1"),)
    constants = (Quantity("k", "1"),)

    def __init__(self, k: Values = 1e6):
        super().__init__()
        self.register_constants(k=k)

    def vector_field(self, t, x, u):
        t = torch.as_tensor(t, dtype=x.dtype).unsqueeze(-1)
        return -self.k * (x - torch.cos(t)) - torch.sin(t)


def radau(rate, jacobian, start, times):
    return scipy.integrate.solve_ivp(
        rate, (0, times[-1]), start, "Radau", times, rtol=1e-11, atol=1e-15, jac=jacobian
    ).y.T


@pytest.mark.slow
def test_robertson_agrees_with_radau_to_one_in_a_million():
    def rate(t, y):
        first, second, third = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
        return [second - first, first - second - third, third]

    def jacobian(t, y):
        a = [-0.04, 1e4 * y[2], 1e4 * y[1]]
        c = [0, 6e7 * y[1], 0]
        return [a, [-p - q for p, q in zip(a, c, strict=True)], c]

    times = np.array([0.0, 0.4, 40.0, 4e3, 4e5])
    found = simulate(
        Robertson(), [1.0, 0.0, 0.0], times, method="rosenbrock", rtol=1e-8, atol=1e-13
    )
    expected = radau(rate, jacobian, [1.0, 0.0, 0.0], times)
    np.testing.assert_allclose(found.states[1:], expected[1:], rtol=1e-6)
    np.testing.assert_allclose(found.states.sum(dim=-1), 1.0, rtol=1e-9)
    assert found.n_evaluations < 10_000


@pytest.mark.slow
def test_a_stiff_relaxation_oscillator_agrees_with_radau_to_one_in_a_million():
    mu = 1e4

    def rate(t, y):
        return [y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]]

    def jacobian(t, y):
        return [[0, 1], [-2 * mu * y[0] * y[1] - 1, mu * (1 - y[0] ** 2)]]

    times = np.array([0.0, 0.3, 0.7, 0.9, 1.4, 2.0]) * mu  # it jumps near 0.807 mu and 1.614 mu
    found = simulate(
        VanDerPol(mu),
        [2.0, 0.0],
        times,
        method="rosenbrock",
        rtol=1e-8,
        atol=1e-12,
        max_steps=20_000,
    )
    expected = radau(rate, jacobian, [2.0, 0.0], times)
    assert (np.diff(np.sign(expected[:, 0])) != 0).sum() == 2
    np.testing.assert_allclose(found.states[1:], expected[1:], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("k", [1.0, 1e3])
def test_a_stiff_field_that_depends_on_time_stays_on_its_solution(k):
    times = torch.linspace(0, 10, 21).double()
    found = simulate(Relaxing(k), [1.0], times, method="rosenbrock", rtol=1e-7)
    torch.testing.assert_close(found.states[:, 0], torch.cos(times), rtol=0, atol=2e-6)


def test_an_infinitely_fast_state_follows_its_input_between_the_steps_too():
    # Steps are right at their ends whatever their width; without the defect in their middle in the
    # error, what is between them was wrong by 0.5. It is not controlled as tightly as the ends.
    times = torch.linspace(0, 10, 21).double()
    found = simulate(Relaxing(1e8), [1.0], times, method="rosenbrock", rtol=1e-7)
    torch.testing.assert_close(found.states[:, 0], torch.cos(times), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.states[-1, 0], torch.cos(times[-1]), rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dopri5", "rosenbrock"])
def test_the_error_falls_with_the_tolerance(method):
    exact = scipy.integrate.solve_ivp(
        lambda t, y: [y[1], 3 * (1 - y[0] ** 2) * y[1] - y[0]],
        (0, 7),
        [2.0, 0.0],
        "DOP853",
        rtol=1e-13,
        atol=1e-14,
    ).y[:, -1]
    errors = []
    for rtol in (1e-4, 1e-6, 1e-8):
        how = {"method": method, "rtol": rtol, "atol": rtol}
        found = simulate(VanDerPol(3.0), [2.0, 0.0], [0.0, 7.0], **how)
        errors.append(np.abs(found.states[-1].numpy() - exact).max())
        assert errors[-1] < 100 * rtol
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


@pytest.mark.parametrize("method", ["dopri5", "rosenbrock"])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_a_trajectory_is_the_same_in_any_batch(method, dtype, near):
    generator = torch.Generator().manual_seed(0)
    n = 9
    mu = (0.2 + 3 * torch.rand(n, 1, generator=generator)).to(dtype)
    start = torch.randn(n, 2, generator=generator).to(dtype)
    times = torch.rand(n, 6, generator=generator).double().cumsum(dim=-1)
    how = {"method": method, "rtol": 1e-5, "atol": 1e-6}
    whole = simulate(VanDerPol(mu), start, times, **how)
    order = torch.randperm(n, generator=generator)
    shuffled = simulate(VanDerPol(mu[order]), start[order], times[order], **how)
    torch.testing.assert_close(whole.states[order], shuffled.states, rtol=near, atol=near)
    for i in range(0, n, 3):
        alone = simulate(VanDerPol(mu[i]), start[i], times[i], **how)
        torch.testing.assert_close(whole.states[i], alone.states, rtol=near, atol=near)


@pytest.mark.parametrize("method", ["dopri5", "rosenbrock"])
def test_output_times_bend_no_step(method):
    few = simulate(VanDerPol(), [2.0, 0.0], [0.0, 5.0], method=method)
    many = simulate(VanDerPol(), [2.0, 0.0], np.linspace(0, 5, 101), method=method)
    assert torch.equal(few.states[-1], many.states[-1])
    assert few.n_evaluations == many.n_evaluations


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dopri5", "rosenbrock"])
def test_gradients_of_rejected_steps_and_stops_are_those_of_the_closed_form(method):
    k = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    A = -k.reshape(1, 1)
    pulse = Signal([0.0, 1.0, 1.5], [[0.0], [7.0], [0.0]])
    system = LinearSystem(A, [[1.0]])
    system.A = A
    found = simulate(system, [2.0], [0.0, 1.2, 2.0], pulse, method=method, rtol=1e-9, atol=1e-11)
    inside = 2 * torch.exp(-1.2 * k) + 7 / k * (1 - torch.exp(-0.2 * k))
    behind = 2 * torch.exp(-2 * k) + 7 / k * (torch.exp(-0.5 * k) - torch.exp(-k))
    for ours, theirs in ((found.states[1, 0], inside), (found.states[2, 0], behind)):
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-7)
        (a,) = torch.autograd.grad(ours, k, retain_graph=True)
        (b,) = torch.autograd.grad(theirs, k, retain_graph=True)
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_gradients_through_the_stiff_method_are_those_of_the_flow():
    k1 = torch.tensor([0.04], dtype=torch.float64, requires_grad=True)
    how = {"method": "rosenbrock", "rtol": 1e-8, "atol": 1e-12}
    last = simulate(Robertson(k1), [1.0, 0.0, 0.0], [0.0, 40.0], **how).states[-1, 0]
    (gradient,) = torch.autograd.grad(last, k1)

    def sensitive(t, y):
        a, b, c, p, q, r = y
        rate = [1e4 * b * c - 0.04 * a, 0.04 * a - 1e4 * b * c - 3e7 * b**2, 3e7 * b**2]
        in_a = 1e4 * (b * r + q * c) - 0.04 * p - a
        in_c = 6e7 * b * q
        return [*rate, in_a, -in_a - in_c, in_c]

    exact = scipy.integrate.solve_ivp(
        sensitive, (0, 40), [1.0, 0, 0, 0, 0, 0], "Radau", rtol=1e-10, atol=1e-13
    ).y[:, -1]
    assert last.item() == pytest.approx(exact[0], rel=1e-7)
    assert gradient.item() == pytest.approx(exact[3], rel=1e-5)


def test_the_adjoint_of_torchdiffeq_gives_the_same_gradients():
    gradients = []
    for method in ("dopri5", "torchdiffeq", "torchdiffeq_adjoint"):
        mu = torch.tensor([0.8], dtype=torch.float64, requires_grad=True)
        start = torch.tensor([1.0, 0.3], dtype=torch.float64, requires_grad=True)
        found = simulate(
            VanDerPol(mu), start, [0.0, 1.0, 2.0], method=method, rtol=1e-9, atol=1e-11
        )
        total = (found.states**2).sum()
        gradients.append(torch.cat(torch.autograd.grad(total, (mu, start))))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(gradients[0], gradients[2], rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_a_hopeless_solution_is_given_up_early_and_says_what_to_try():
    stiff = LinearSystem([[-1e6]], [[1.0]])
    with pytest.raises(SolverError, match=r"step budget at t = .* of 10 with a step of") as caught:
        simulate(stiff, [1.0], [0.0, 10.0])
    assert "method='rosenbrock'" in str(caught.value)
    found = simulate(stiff, [[1.0], [2.0]], [0.0, 10.0], keep_failed=True)
    assert (found.n_evaluations < 7_000).all()


def test_many_output_times_raise_the_budget():
    swing = LinearSystem([[0.0, 1.0], [-1.0, 0.0]], [[0.0], [1.0]])
    times = np.linspace(0, 50, 11)
    found = simulate(swing, [1.0, 0.0], times, max_steps=100, rtol=1e-8)
    np.testing.assert_allclose(found.states[:, 0], np.cos(times), atol=1e-5)
    assert found.n_evaluations > 6 * 300


def test_states_and_inputs_can_be_given_by_name():
    swing = LinearSystem(
        [[0.0, 1.0], [-1.0, 0.0]], [[0.0], [1.0]], states=["place", "speed"], inputs=["push"]
    )
    with pytest.raises(ArgumentError, match="no default for state"):
        simulate(swing, {"place": 1.0}, [0.0, 1.0])

    class Named(System):
        states = (Quantity("a", "1", default=2.0), Quantity("b", "1", default=3.0))
        inputs = (Quantity("p", "1"), Quantity("q", "1"))

        def vector_field(self, t, x, u):
            return u + 0 * x

    found = simulate(Named(), {"b": 5.0}, [0.0, 2.0], {"q": 1.0})
    assert found.states.tolist() == [[2.0, 5.0], [2.0, 7.0]]
    with pytest.raises(ArgumentError, match="did you mean"):
        simulate(Named(), {"bb": 5.0}, [0.0, 2.0])
    with pytest.raises(ArgumentError, match="did you mean 'p'"):
        simulate(Named(), {"b": 5.0}, [0.0, 2.0], {"pp": 1.0})


def test_a_batched_matrix_that_is_no_constant_is_refused_in_words():
    class Hidden(System):
        states = (Quantity("x", "1"),)

        def __init__(self):
            super().__init__()
            self.register_buffer("rate", torch.ones(3, 1, dtype=torch.float64))

        def vector_field(self, t, x, u):
            return -self.rate * x

    with pytest.raises(ArgumentError, match="batch axes that are not those of its constants"):
        simulate(Hidden(), [1.0], [0.0, 1.0])
