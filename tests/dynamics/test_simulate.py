import math
import traceback
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.signal
import torch

from clinode.dynamics import simulate
from clinode.errors import ArgumentError, SolverError
from clinode.system import (
    DiscreteSystem,
    FunctionSignal,
    LinearSystem,
    Quantity,
    Signal,
    System,
    Values,
)

DECAY = LinearSystem([[-1.0]], [[1.0]])
OSCILLATOR = LinearSystem([[0.0, 1.0], [-4.0, 0.0]], [[0.0], [1.0]])  # 2 rad per time unit


class Growth(System):
    """y' = a y^2 + u, which reaches infinity at t = 1 / (a y(0)) where u = 0."""

    time_unit = "h"
    states = (Quantity("y", "mg"),)
    inputs = (Quantity("u", "mg/h"),)
    constants = (Quantity("a", "1/mg/h"),)

    def __init__(self, a: Values = 1.0):
        super().__init__()
        self.register_constants(a=a)

    def vector_field(self, t, x, u):
        return self.a * x**2 + u


class VanDerPol(System):
    states = (Quantity("x", "1"), Quantity("v", "1"))
    inputs = (Quantity("force", "1"),)
    outputs = (Quantity("energy", "J"),)
    constants = (Quantity("mu", "1"),)

    def __init__(self, mu: Values = 1.0):
        super().__init__()
        self.register_constants(mu=mu)

    def vector_field(self, t, x, u):
        position, velocity = self.split(x).values()
        acceleration = self.mu * (1 - position**2) * velocity - position + u
        return self.join(x=velocity, v=acceleration)

    def output(self, t, x, u):
        return (x**2).sum(dim=-1, keepdim=True) / 2


class Dosed(System):
    """G' = -I G + w G, I' = -I + u: the effect of w depends on the state."""

    states = (Quantity("G", "1"), Quantity("I", "1"))
    inputs = (Quantity("u", "1"), Quantity("w", "1"))

    def vector_field(self, t, x, u):
        G, I = x[..., :1], x[..., 1:]
        return torch.cat([-I * G + u[..., 1:] * G, -I + u[..., :1]], dim=-1)


class Saturating(System):
    states = (Quantity("x", "1"),)
    inputs = (Quantity("u", "1"),)

    def vector_field(self, t, x, u):
        return u / (1 + u.abs()) - x


class Broken(System):
    """Its field is NaN from the time `since` on."""

    states = (Quantity("x", "1"),)
    constants = (Quantity("since", "1"),)

    def __init__(self, since: Values = 0.0):
        super().__init__()
        self.register_constants(since=since)

    def vector_field(self, t, x, u):
        t = torch.as_tensor(t, dtype=x.dtype).unsqueeze(-1)
        return torch.where(t >= self.since, math.nan, -x)


class Logistic(DiscreteSystem):
    states = (Quantity("x", "1"),)
    inputs = (Quantity("u", "1"),)
    constants = (Quantity("r", "1"),)
    step = 0.5

    def __init__(self, r: Values = 3.2):
        super().__init__()
        self.register_constants(r=r)

    def next_state(self, k, x, u):
        return self.r * x * (1 - x) + u


def every_method(step: float) -> list[dict[str, Any]]:
    """Those that are accurate enough for the tolerances here; Euler and Heun are tested apart."""
    adaptive = ("dopri5", "rosenbrock", "torchdiffeq")
    return [{"method": m} for m in adaptive] + [
        {"method": m, "step": step} for m in ("rk4", "midpoint")
    ]


@pytest.mark.parametrize("how", every_method(0.01))
def test_decay_and_oscillation_match_their_closed_forms(how):
    times = torch.linspace(0, 3, 7).double()
    decay = simulate(DECAY, [2.0], times, **how)
    torch.testing.assert_close(decay.states.squeeze(-1), 2 * torch.exp(-times), rtol=0, atol=2e-5)
    swing = simulate(OSCILLATOR, [1.0, 0.0], times, **how)
    expected = torch.stack([torch.cos(2 * times), -2 * torch.sin(2 * times)], dim=-1)
    torch.testing.assert_close(swing.states, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("method", "order"), [("euler", 1), ("heun", 2), ("midpoint", 2), ("rk4", 4)]
)
def test_the_error_falls_with_the_order_of_the_method_in_a_forced_nonlinear_system(method, order):
    force = FunctionSignal(lambda t: torch.sin(3 * t).unsqueeze(-1), breaks=[])

    def reference(t, y):
        return [y[1], (1 - y[0] ** 2) * y[1] - y[0] + np.sin(3 * t)]

    exact = scipy.integrate.solve_ivp(
        reference, (0, 2), [1.0, 0.5], rtol=1e-12, atol=1e-13, method="DOP853"
    ).y[:, -1]
    steps = np.array([0.1, 0.05, 0.025, 0.0125])
    errors = [
        np.abs(
            simulate(VanDerPol(), [1.0, 0.5], [0.0, 2.0], force, method=method, step=step)
            .states[-1]
            .numpy()
            - exact
        ).max()
        for step in steps
    ]
    measured = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order - 0.15 < measured < order + 0.3


def test_a_driven_linear_system_matches_scipy_signal():
    A, B = np.array([[-0.5, 1.0], [-1.0, -0.2]]), np.array([[0.3], [1.0]])
    times = np.linspace(0, 3, 25)
    drive = np.sin(2 * times)
    _, expected, _ = scipy.signal.lsim(
        (A, B, np.eye(2), np.zeros((2, 1))), drive, times, X0=[1.0, -1.0], interp=True
    )
    signal = Signal(times, drive[:, None], hold="linear")
    for how in every_method(0.01):
        found = simulate(LinearSystem(A, B), [1.0, -1.0], times, signal, **how)
        np.testing.assert_allclose(found.states, expected, atol=1e-4)


def test_piecewise_constant_input_matches_the_matrix_exponential():
    A, B = np.array([[-0.5, 1.0], [-1.0, -0.2]]), np.array([[0.3], [1.0]])
    held = scipy.linalg.expm(np.block([[A, B], [np.zeros((1, 3))]]) * 0.7)
    x = np.array([1.0, 2.0, 0.0])
    expected = []
    for value in (1.0, -3.0, 0.5):
        x = held @ [x[0], x[1], value]
        expected.append(x[:2])
    signal = Signal([0.0, 0.7, 1.4], [[1.0], [-3.0], [0.5]])
    found = simulate(
        LinearSystem(A, B), [1.0, 2.0], [0.0, 0.7, 1.4, 2.1], signal, rtol=1e-10, atol=1e-12
    )
    np.testing.assert_allclose(found.states[1:], np.array(expected), rtol=1e-8)


@pytest.mark.parametrize("how", every_method(0.5))
def test_a_pulse_shorter_than_the_step_acts_in_full(how):
    integrator = LinearSystem([[0.0]], [[1.0]])
    pulse = Signal([0.0, 0.7123, 0.7124, 3.3, 4.1], [[0.0], [1e4], [0.0], [2.0], [0.0]])
    found = simulate(integrator, [0.0], [0.0, 5.0], pulse, **how)
    assert found.states[-1, 0].item() == pytest.approx(1e4 * 1e-4 + 2 * 0.8, abs=1e-7)


@pytest.mark.parametrize("how", every_method(0.5))
def test_the_integral_of_a_linear_input_with_jumps_is_exact(how):
    ramp = Signal([0.0, 1.3, 1.3, 2.9, 9.0], [[0.0], [2.0], [-1.0], [3.0], [3.0]], hold="linear")
    found = simulate(LinearSystem([[0.0]], [[1.0]]), [0.0], [0.0, 2.9, 4.0], ramp, **how)
    area = 1.3 * (0 + 2) / 2 + 1.6 * (-1 + 3) / 2
    expected = torch.tensor([area, area + 1.1 * 3], dtype=torch.float64)
    torch.testing.assert_close(found.states[1:, 0], expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("how", every_method(0.05))
def test_an_impulse_adds_its_amount_and_shows_from_just_after_its_time(how):
    bolus = Signal([0.0], [[0.0]], impulses=([0.0, 1.0, 2.0], [[3.0], [5.0], [7.0]]))
    found = simulate(DECAY, [1.0], [0.0, 1.0, 1.5, 2.0], bolus, **how)
    e = math.exp
    expected = [1.0, 4 * e(-1), (4 * e(-1) + 5) * e(-0.5), (4 * e(-1) + 5) * e(-1)]
    torch.testing.assert_close(
        found.states[:, 0], torch.tensor(expected).double(), rtol=2e-3, atol=0
    )


@pytest.mark.parametrize("how", every_method(0.01))
def test_pieces_simulated_one_after_the_other_give_the_whole(how):
    bolus = Signal([0.0, 0.5], [[0.0], [2.0]], impulses=([0.0, 1.0], [[3.0], [5.0]]))
    whole = simulate(DECAY, [1.0], [0.0, 1.0, 2.0], bolus, **how)
    first = simulate(DECAY, [1.0], [0.0, 1.0], bolus, **how)
    second = simulate(DECAY, first.states[-1], [1.0, 2.0], bolus, **how)
    torch.testing.assert_close(second.states[-1], whole.states[-1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("how", every_method(0.1))
def test_an_impulse_through_a_gain_that_depends_on_the_state_multiplies_it(how):
    # While the pulse lasts dG/ds = 0.8 G and dI/ds = 1.5: G grows by exp(0.8), I by 1.5.
    bolus = Signal([0.0], [[0.0, 0.0]], impulses=([0.0], [[1.5, 0.8]]))
    with_bolus = simulate(Dosed(), [2.0, 0.5], [0.0, 0.5], bolus, **how)
    after = simulate(Dosed(), [2.0 * math.exp(0.8), 0.5 + 1.5], [0.0, 0.5], **how)
    torch.testing.assert_close(with_bolus.states[-1], after.states[-1], rtol=1e-6, atol=0)


def test_an_impulse_is_the_limit_of_ever_shorter_pulses_of_its_area():
    system, x0, times = Dosed(), [2.0, 0.5], [0.0, 0.5, 1.0]
    amount = torch.tensor([[1.5, 0.8]], dtype=torch.float64)
    bolus = Signal([0.0], [[0.0, 0.0]], impulses=([0.5], amount))
    limit = simulate(system, x0, times, bolus, rtol=1e-10).states[-1]
    distances = []
    for width in (1e-2, 1e-3, 1e-4):
        knots = [0.0, 0.5, 0.5 + width]
        pulse = Signal(knots, torch.cat([0 * amount, amount / width, 0 * amount]))
        found = simulate(system, x0, times, pulse, rtol=1e-10).states[-1]
        distances.append((found - limit).abs().max().item())
    assert distances[1] == pytest.approx(distances[0] / 10, rel=0.1)
    assert distances[2] == pytest.approx(distances[1] / 10, rel=0.1)


def test_an_impulse_on_a_saturating_input_is_refused():
    bolus = Signal([0.0], [[0.0]], impulses=([0.5], [[1.0]]))
    for how in every_method(0.1):
        with pytest.raises(ArgumentError, match="enters the vector field nonlinearly"):
            simulate(Saturating(), [0.0], [0.0, 1.0], bolus, **how)


def test_fixed_step_adaptive_and_scipy_agree_on_van_der_pol():
    times = np.linspace(0, 4, 17)
    exact = scipy.integrate.solve_ivp(
        lambda t, y: [y[1], 2 * (1 - y[0] ** 2) * y[1] - y[0]],
        (0, 4),
        [2.0, 0.0],
        t_eval=times,
        rtol=1e-11,
        atol=1e-12,
        method="DOP853",
    ).y.T
    adaptive = simulate(VanDerPol(2.0), [2.0, 0.0], times, rtol=1e-8, atol=1e-10)
    fixed = simulate(VanDerPol(2.0), [2.0, 0.0], times, method="rk4", step=0.01)
    np.testing.assert_allclose(adaptive.states, exact, atol=1e-6)
    np.testing.assert_allclose(fixed.states, exact, atol=1e-5)


@pytest.mark.parametrize("how", every_method(0.05))
def test_a_trajectory_does_not_depend_on_its_batch_mates(how):
    generator = torch.Generator().manual_seed(0)
    n = 4
    x0 = torch.randn(n, 2, generator=generator).double()
    times = torch.rand(n, 9, generator=generator).double().cumsum(dim=-1)
    knots = torch.rand(n, 3, generator=generator).double().cumsum(dim=-1)
    values = torch.randn(n, 3, 1, generator=generator).double()
    impulses = (torch.rand(n, 1, generator=generator).double() * 4, values[:, :1])
    mu = torch.rand(n, 1, generator=generator).double()
    together = simulate(VanDerPol(mu), x0, times, Signal(knots, values, impulses=impulses), **how)
    for i in range(n):
        own = Signal(knots[i], values[i], impulses=(impulses[0][i], impulses[1][i]))
        alone = simulate(VanDerPol(mu[i]), x0[i], times[i], own, **how)
        torch.testing.assert_close(together.states[i], alone.states, rtol=1e-12, atol=1e-12)
        assert together.n_evaluations[i] == alone.n_evaluations


@pytest.mark.parametrize("how", every_method(0.05))
def test_batch_axes_of_state_constants_and_input_broadcast(how):
    system = VanDerPol(torch.tensor([[0.5], [1.0], [2.0]]).double())
    force = torch.linspace(-1, 1, 4).double().reshape(4, 1, 1)
    found = simulate(system, [1.0, 0.0], [0.0, 1.0, 3.0], force, **how)
    assert found.states.shape == (4, 3, 3, 2)
    assert found.outputs.shape == (4, 3, 3, 1)
    alone = simulate(VanDerPol(2.0), [1.0, 0.0], [0.0, 1.0, 3.0], force[1, 0], **how)
    torch.testing.assert_close(found.states[1, 2], alone.states)
    torch.testing.assert_close(found.outputs[1, 2], alone.outputs)


@pytest.mark.parametrize("how", every_method(0.01))
def test_a_batch_of_linear_systems_is_each_of_them(how):
    A = torch.tensor([[[-1.0]], [[-2.0]], [[0.3]]]).double()
    found = simulate(LinearSystem(A, [[1.0]]), [1.0], [0.0, 1.0], 0.0, **how)
    torch.testing.assert_close(found.states[:, -1, 0], A[:, 0, 0].exp(), rtol=2e-4, atol=0)


def test_an_output_time_more_changes_nothing_but_the_steps():
    for how in every_method(0.02):
        sparse = simulate(VanDerPol(), [1.0, 0.0], [0.0, 2.0], **how)
        dense = simulate(VanDerPol(), [1.0, 0.0], [0.0, 0.77, 1.0, 2.0], **how)
        torch.testing.assert_close(sparse.states[-1], dense.states[-1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("how", every_method(0.5))
def test_one_output_time_is_the_start(how):
    found = simulate(DECAY, [[1.0], [2.0]], [3.0], **how)
    torch.testing.assert_close(found.states, torch.tensor([[[1.0]], [[2.0]]]).double())
    assert (found.n_evaluations == 0).all()


@pytest.mark.parametrize("how", every_method(0.01))
def test_a_solution_that_blows_up_is_an_error_that_names_its_trajectory_but_not_its_state(how):
    a = torch.tensor([[0.1], [1.0], [0.2]]).double()
    with pytest.raises(SolverError, match=r"trajectory 1: .* of 3 h") as caught:
        simulate(Growth(a), [1 + 0.234567], [0.0, 0.5, 3.0], **how)
    assert caught.value.exit_code == 4
    whole = "".join(traceback.format_exception(caught.value))
    assert "tensor(" not in whole
    assert "1.2345" not in whole


@pytest.mark.parametrize("how", every_method(0.01))
def test_a_bad_trajectory_leaves_its_batch_mates_untouched(how):
    a = torch.tensor([[0.1], [1.0], [0.2]]).double()
    times = [0.0, 0.25, 0.75, 3.0]
    kept = simulate(Growth(a), [1.0], times, keep_failed=True, **how)
    good = simulate(Growth(a[[0, 2]]), [1.0], times, **how)
    torch.testing.assert_close(kept.states[[0, 2]], good.states, rtol=0, atol=0)
    assert list(kept.status == "ok") == [True, False, True]
    assert kept.states[1, -1].isnan().all()
    closed_form = 1 / (1 - torch.tensor(times[:3]).double())
    tolerance = 1e-2 if how["method"] == "midpoint" else 1e-4
    torch.testing.assert_close(kept.states[1, :3, 0], closed_form, rtol=tolerance, atol=0)
    assert kept.reached[1] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("how", every_method(0.01))
def test_gradients_of_good_trajectories_survive_a_bad_batch_mate(how):
    rate = torch.tensor([0.1], dtype=torch.float64, requires_grad=True)
    x0 = torch.tensor([[1.0], [50.0]])
    found = simulate(Growth(rate), x0, [0.0, 1.0], keep_failed=True, **how)
    assert list(found.status == "ok") == [True, False]
    (gradient,) = torch.autograd.grad(found.states[0, -1, 0], rate)
    assert gradient.item() == pytest.approx(1 / 0.9**2, rel=1e-3)  # y = 1 / (1 / y0 - a t)


@pytest.mark.parametrize("how", every_method(0.1))
def test_a_field_that_is_nan_at_the_start_or_later_ends_in_a_status(how):
    since = torch.tensor([[0.0], [0.55], [9.0]]).double()
    found = simulate(Broken(since), [1.0], [0.0, 0.3, 1.0], keep_failed=True, **how)
    assert list(found.status) == ["not finite", "not finite", "ok"]
    assert found.reached[0] == 0
    assert 0.3 <= found.reached[1] <= 0.55 + how.get("step", 0)
    assert not found.states[1, 1].isnan()
    assert found.states[1, 2].isnan()
    assert found.states[0, 0].item() == 1.0
    with pytest.raises(SolverError, match="not finite at t = 0 of 1"):
        simulate(Broken(0.0), [1.0], [0.0, 1.0], **how)


def test_the_step_budget_and_the_wall_time_end_a_solve():
    stiff = LinearSystem([[-1e6]], [[1.0]])
    found = simulate(stiff, [1.0], [0.0, 10.0], max_steps=200, keep_failed=True)
    assert found.status == "step budget"
    with pytest.raises(SolverError, match="raise max_steps"):
        simulate(stiff, [1.0], [0.0, 10.0], max_steps=200)
    for how in every_method(1e-3):
        times = [0.0, 1.0, 20.0 if "step" in how else 1e3]
        slow = simulate(
            OSCILLATOR, [[1.0, 0.0]] * 2, times, wall_time_seconds=0.02, keep_failed=True, **how
        )
        assert (slow.status == "wall time").all()
        assert slow.states[:, -1].isnan().all()


@pytest.mark.parametrize("how", every_method(0.01))
def test_gradients_match_the_closed_form_of_decay_under_a_constant_dose(how):
    # x(t) = u / k + (x0 - u / k) exp(-k t)
    class Clearance(System):
        states = (Quantity("x", "mg"),)
        inputs = (Quantity("u", "mg/h"),)
        constants = (Quantity("k", "1/h"),)

        def __init__(self, k: Values):
            super().__init__()
            self.register_constants(k=k)

        def vector_field(self, t, x, u):
            return u - self.k * x

    def start(value):
        return torch.tensor([value], dtype=torch.float64, requires_grad=True)

    k, x0, u, t = start(0.7), start(2.0), start(0.5), 1.3
    found = simulate(Clearance(k), x0, [0.0, t], u, **how).states[-1, 0]
    expected = (u / k + (x0 - u / k) * torch.exp(-k * t)).squeeze()
    for ours, theirs in zip(
        torch.autograd.grad(found, (k, x0, u)),
        torch.autograd.grad(expected, (k, x0, u)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)


def test_gradients_reach_the_amount_of_an_impulse():
    amount = torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
    bolus = Signal([0.0], [[0.0]], impulses=([0.5], amount))
    found = simulate(DECAY, [1.0], [0.0, 1.0], bolus, method="rk4", step=0.01).states[-1, 0]
    (gradient,) = torch.autograd.grad(found, amount)
    assert gradient.item() == pytest.approx(math.exp(-0.5), rel=1e-6)


def test_gradient_through_rk4_passes_a_check_against_finite_differences():
    def last(mu, x0, force):
        system = VanDerPol(mu)
        return simulate(system, x0, [0.0, 0.7], force, method="rk4", step=0.1).states[-1]

    inputs = [
        torch.tensor(v, dtype=torch.float64, requires_grad=True)
        for v in ([[0.5], [1.5]], [[1.0, 0.2], [0.3, -1.0]], [[0.1], [0.4]])
    ]
    assert torch.autograd.gradcheck(last, inputs)


def test_a_map_is_iterated():
    x, expected = 0.3, [0.3]
    for _ in range(6):
        x = 3.2 * x * (1 - x)
        expected.append(x)
    found = simulate(Logistic(), [0.3], [0.0, 0.5, 1.0, 3.0])
    np.testing.assert_allclose(
        found.states[:, 0].numpy(), np.array(expected)[[0, 1, 2, 6]], rtol=1e-14
    )
    assert found.n_evaluations == 6
    two_cycle = simulate(Logistic(), [0.3], [0.0, 1000.0, 1000.5, 1001.0]).states[:, 0]
    assert two_cycle[1].item() == pytest.approx(two_cycle[3].item(), rel=1e-12)
    assert abs(two_cycle[1] - two_cycle[2]) > 0.2  # r = 3.2 lies in the window of period two


def test_a_map_of_several_starts_and_own_times_with_an_input():
    system = LinearSystem([[0.5]], [[1.0]], step=0.1)
    signal = Signal([0.0, 0.2], [[1.0], [0.0]])
    found = simulate(system, [[1.0], [1.0]], [[0.0, 0.3], [0.1, 0.2]], signal)
    # k = 0 and 1 see the input 1, k = 2 sees 0
    torch.testing.assert_close(
        found.states[..., 0], torch.tensor([[1.0, 0.875], [1.0, 1.5]]).double()
    )
    assert list(found.n_evaluations) == [3, 1]


def test_a_map_that_overflows_has_its_status():
    found = simulate(Logistic(), [[0.3], [5.0]], [0.0, 0.5, 50.0], keep_failed=True)
    assert list(found.status) == ["ok", "not finite"]
    assert found.states[1, 2].isnan().all()
    assert not found.states[0].isnan().any()


def test_a_map_refuses_times_between_its_steps_and_impulses():
    with pytest.raises(ArgumentError, match=r"whole numbers of its step 0\.5"):
        simulate(Logistic(), [0.3], [0.0, 0.7])
    with pytest.raises(ArgumentError, match="a map has no impulses"):
        simulate(Logistic(), [0.3], [0.0, 1.0], Signal([0.0], [[0.0]], impulses=([0.5], [[1.0]])))


def test_the_table_of_a_trajectory_carries_units():
    table = simulate(Growth(0.1), [1.0], [0.0, 0.5], method="rk4", step=0.1).to_pandas()
    assert list(table.columns) == ["time (h)", "y (mg)"]
    table = simulate(VanDerPol(), [[1.0, 0.0], [0.0, 1.0]], [0.0, 1.0]).to_pandas()
    assert list(table.columns) == ["trajectory", "time (1)", "x (1)", "v (1)", "energy (J)"]
    energy = (table["x (1)"] ** 2 + table["v (1)"] ** 2) / 2
    np.testing.assert_allclose(energy, table["energy (J)"], rtol=1e-12)
    assert list(table["trajectory"]) == [0, 0, 1, 1]


def test_a_trajectory_becomes_plain_lists():
    found = simulate(Growth(0.1), [1.0], [0.0, 0.5]).to_dict()
    assert found["state_names"] == ["y"]
    assert found["time_unit"] == "h"
    assert found["status"] == "ok"
    assert found["states"][0] == [1.0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "lsoda"}, "method must be one of dopri5, rosenbrock, rk4, midpoint"),
        ({"method": "rk4"}, "method 'rk4' needs a step"),
        ({"step": 0.1}, "step is for fixed-step methods"),
        ({"method": "rk4", "step": -1.0}, "step must be positive"),
        ({"times": [0.0, 1.0, 1.0]}, "times must be finite and increase"),
        ({"times": [0.0, math.inf]}, "times must be finite and increase"),
        ({"times": []}, "times have shape"),
        ({"x0": [1.0, 2.0]}, "x0 has shape"),
        ({"x0": [math.nan]}, "x0 has values that are not finite"),
        ({"x0": torch.zeros(0, 1)}, "there is no trajectory"),
        ({"u": [1.0, 2.0]}, "the system has 1 inputs"),
        ({"x0": [[1.0], [2.0]], "times": [[0.0, 1.0]] * 3}, "do not broadcast"),
        ({"rtol": 0.0, "atol": 0.0}, "tolerances must be positive"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"wall_time_seconds": 0.0}, "wall_time_seconds must be positive"),
    ],
)
def test_a_call_that_cannot_be_carried_out_is_refused_in_words(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        simulate(Growth(), **({"x0": [1.0], "times": [0.0, 0.5]} | arguments))


@pytest.mark.parametrize("how", every_method(0.05))
def test_a_single_precision_system_stays_single_with_times_in_double(how):
    system = VanDerPol().float()
    found = simulate(system, [1.0, 0.0], [0.0, 1.0], **how)
    assert found.states.dtype == torch.float32
    assert found.times.dtype == torch.float64
    exact = simulate(VanDerPol(), [1.0, 0.0], [0.0, 1.0], **how)
    torch.testing.assert_close(found.states.double(), exact.states, rtol=1e-3, atol=1e-3)
