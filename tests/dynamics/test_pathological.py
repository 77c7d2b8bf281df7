"""Fields that break solvers: each ends soon, in a solution or in a typed status."""

import math

import pytest
import torch

from clinode.dynamics import METHODS, simulate
from clinode.dynamics.fixed_step import FIXED_STEP
from clinode.system import Quantity, System

HUGE = 1e300


def _step(t, x):
    return torch.where(t < 0.5, 1.0, -3.0) + 0 * x


# name: (rate of t and x, start, what a solution at t = 1 must be, or None)
FIELDS = {
    "NaN at the start": (lambda t, x: x * math.nan, 1.0, None),
    "NaN later": (lambda t, x: torch.where(t > 0.5, math.nan, -x), 1.0, None),
    "infinite at the start": (lambda t, x: 1 / (t + 0 * x).sqrt(), 1.0, None),
    "infinite later": (lambda t, x: torch.where(t > 0.5, math.inf, -x), 1.0, None),
    "blow-up": (lambda t, x: 2 * x**2, 1.0, None),
    "fast blow-up": (lambda t, x: torch.exp(x), 1.0, None),
    "exponential growth": (lambda t, x: 20 * x, 1.0, math.exp(20)),
    "overflow": (lambda t, x: 1e4 * x, 1e290, None),
    "stiff": (lambda t, x: -1e6 * (x - torch.cos(t)), 1.0, math.cos(1)),
    "very stiff": (lambda t, x: -1e12 * x, 1.0, 0.0),
    "zero": (lambda t, x: 0 * x, 1.0, 1.0),
    "zero state": (lambda t, x: -x, 0.0, 0.0),
    "constant": (lambda t, x: torch.ones_like(x), 0.0, 1.0),
    "huge": (lambda t, x: HUGE + 0 * x, 0.0, HUGE),
    "tiny": (lambda t, x: 1e-300 + 0 * x, 0.0, 1e-300),
    "square root at zero": (lambda t, x: x.abs().sqrt(), 0.0, 0.0),
    "square root below zero": (lambda t, x: x.sqrt() - 1, 0.25, None),
    "pole that is crossed": (lambda t, x: 1 / (t - 0.5 + 0 * x), 0.0, None),
    "chattering sign": (lambda t, x: -torch.sign(x) * 3, 1.0, None),
    "step": (_step, 0.0, -1.0),
    "fast oscillation": (lambda t, x: 1e6 * torch.cos(1e6 * t) + 0 * x, 0.0, math.sin(1e6)),
    "Jacobian that is not finite": (lambda t, x: (x - 1).abs().pow(1 / 3) + 1, 1.0, None),
    "logarithm of zero": (lambda t, x: torch.log(x), 0.0, None),
    "ratio of infinities": (lambda t, x: (x * 1e200) ** 2 / (x * 1e200) ** 2, 1.0, None),
}


class Bad(System):
    states = (Quantity("x", "1"),)

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def vector_field(self, t, x, u):
        return self.rate(torch.as_tensor(t, dtype=x.dtype).unsqueeze(-1), x)


METHODS_WITHOUT_NOISE = [method for method in METHODS if method != "milstein"]
QUICK = ("rk4",)  # of the others some take seconds a field


@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=() if m in QUICK else pytest.mark.slow) for m in METHODS_WITHOUT_NOISE],
)
@pytest.mark.parametrize("name", FIELDS)
def test_every_solver_returns_with_a_solution_or_a_status(name, method):
    rate, start, expected = FIELDS[name]
    how = {"step": 0.01} if method in FIXED_STEP else {}
    found = simulate(Bad(rate), [start], [0.0, 0.25, 1.0], method=method, keep_failed=True, **how)
    assert found.n_evaluations <= 40_000  # two seconds: scripts/benchmarks/pathological.py
    solved = found.status == "ok"
    assert found.states.isfinite().all() == solved
    assert math.isfinite(found.reached)
    if solved and expected is not None and method not in FIXED_STEP:
        scale = abs(expected) if abs(expected) > 1e-3 or expected in (0, 1e-300) else 1.0
        assert abs(found.states[-1, 0].item() - expected) <= 1e-4 * scale + 1e-7


def test_there_are_as_many_fields_as_were_promised():
    assert len(FIELDS) == 24


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dopri5", "rosenbrock"])
def test_all_of_them_in_one_batch_with_a_good_one_leave_it_untouched(method):
    class All(System):
        states = (Quantity("x", "1"),)

        def vector_field(self, t, x, u):
            t = torch.as_tensor(t, dtype=x.dtype).unsqueeze(-1).expand_as(x)
            which, speed = self.which.expand_as(x), self.speed.expand_as(x)
            out = -speed * x
            for k, (rate, _, _) in enumerate(FIELDS.values()):
                mine = which == k
                out = out.masked_scatter(mine, rate(t[mine], x[mine]))
            return out

        constants = (Quantity("which", "1"), Quantity("speed", "1"))

        def __init__(self, which, speed):
            super().__init__()
            self.register_constants(which=which, speed=speed)

    n = len(FIELDS)
    which = torch.arange(n + 1).double().unsqueeze(-1)
    speed = torch.tensor([1.3], dtype=torch.float64, requires_grad=True)
    rows = [[s] for _, s, _ in FIELDS.values()] + [[1.0]]
    starts = torch.tensor(rows, dtype=torch.float64)
    times = [0.0, 0.25, 1.0]
    how = {"method": method, "keep_failed": True, "max_steps": 60}
    found = simulate(All(which, speed), starts, times, **how)
    alone = simulate(All(which[-1], speed), starts[-1], times, **how)
    assert found.status[-1] == "ok"
    torch.testing.assert_close(found.states[-1], alone.states, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(found.states[-1, -1, 0], speed)
    assert gradient.item() == pytest.approx(-math.exp(-1.3), rel=1e-5)
