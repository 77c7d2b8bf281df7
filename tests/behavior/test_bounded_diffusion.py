import math

import numpy as np
import pytest
import torch

from clinode.behavior import DDM
from clinode.behavior.bounded_diffusion import BLOCK, MEETING, log_density

DOUBLE = torch.float64


def given(seed: int, n: int, *, spread: float = 0.0):
    """rt, late, upper, v, a, w, spread of n trials, on both sides of the meeting time."""
    draw = np.random.default_rng(seed)
    a, w = draw.uniform(0.5, 2.5, n), draw.uniform(0.1, 0.9, n)
    v, late = draw.uniform(-6, 6, n), draw.uniform(0, 0.4, n)
    rt = late + a**2 * draw.uniform(0.03, 1.5, n)
    upper = torch.from_numpy(draw.random(n) < 0.5)
    values = [torch.from_numpy(x) for x in (rt, late, v, a, w, np.full(n, spread))]
    return [*values[:2], upper, *values[2:]]


def summed(rt, late, upper, v, a, w, spread):
    """The same by 60 standing waves, differentiated by torch."""
    w, v = torch.where(upper, 1 - w, w), torch.where(upper, -v, v)
    t = rt - late
    k = torch.arange(1, 61, dtype=DOUBLE).unsqueeze(-1)
    waves = (k * torch.sin(k * math.pi * w) * torch.exp(-((k * math.pi / a) ** 2) * t / 2)).sum(0)
    width = 1 + spread**2 * t
    tilt = ((spread * a * w) ** 2 - 2 * v * a * w - v**2 * t) / (2 * width)
    return torch.log(math.pi / a**2 * waves) + tilt - torch.log(width) / 2


@pytest.mark.parametrize("spread", [0.0, 0.8])
def test_written_slopes_are_those_of_the_series(spread):
    all_given = given(0, 200, spread=spread)
    found = []
    for one in (log_density, summed):
        leaves = [x.clone().requires_grad_(x.dtype == DOUBLE) for x in all_given]
        value = one(*leaves)
        value.sum().backward()
        found.append([value.detach(), *(x.grad for x in leaves if x.grad is not None)])
    assert len(found[0]) == 7
    for ours, series in zip(*found, strict=True):
        torch.testing.assert_close(ours, series, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spread", [0.0, 0.8])
def test_slopes_have_slopes(spread):
    rt, late, upper, *others = given(1, 8, spread=spread)
    shared = [x[:1].clone().requires_grad_() for x in others]
    rt = late[0] + shared[1].detach() ** 2 * torch.linspace(0.1, 1.2, 8, dtype=DOUBLE)
    late = late[0].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda late, *p: log_density(rt, late, upper, *p), (late, *shared)
    )


def test_torchs_own_transforms_see_through():
    rt = torch.tensor([0.5, 0.8, 1.4], dtype=DOUBLE)
    v = torch.tensor(1.0, dtype=DOUBLE)

    def values(v):
        return DDM(v, 1.5, 0.4, 0.3).log_prob(rt, 1.0)

    expected = torch.autograd.functional.jacobian(values, v)
    torch.testing.assert_close(torch.func.jacrev(values)(v), expected)
    slope = torch.func.grad(lambda v: values(v).sum())
    torch.testing.assert_close(slope(v), expected.sum())
    # of -v^2 t / 2, summed over the decision times
    torch.testing.assert_close(torch.func.grad(slope)(v), -(rt - 0.3).sum())


def test_blocks_leave_no_seam_and_shared_parameters_gather_what_trials_pull():
    n = 2 * BLOCK + 3
    rt = 0.3 + torch.linspace(0.01, 3, n, dtype=DOUBLE)
    rt[5] = 0.2  # before anything can have happened
    choice = torch.arange(n) % 2
    shared = [torch.tensor(x, dtype=DOUBLE, requires_grad=True) for x in (1.0, 1.5, 0.4, 0.3)]
    own = [torch.full((n,), float(x.detach()), dtype=DOUBLE).requires_grad_() for x in shared]
    values = [DDM(*parameters).log_prob(rt, choice) for parameters in (shared, own)]
    torch.testing.assert_close(*values, rtol=0, atol=1e-12)
    assert float(values[0][5].detach()) == -math.inf
    few = [*range(8), *range(BLOCK - 2, BLOCK + 2), n - 1]
    alone = DDM(*shared).log_prob(rt[few], choice[few])
    torch.testing.assert_close(values[0][few], alone, rtol=0, atol=1e-12)
    seen = rt != 0.2
    slopes = [
        torch.autograd.grad(value[seen].sum(), at)
        for value, at in zip(values, (shared, own), strict=True)
    ]
    for together, each in zip(*slopes, strict=True):
        torch.testing.assert_close(together, each.sum(), rtol=1e-10, atol=1e-8)


def test_both_series_meet_without_a_step():
    just = torch.tensor([MEETING * (1 - 1e-14), MEETING * (1 + 1e-14)], dtype=DOUBLE)
    for w in (0.02, 0.5, 0.98):
        at = [torch.full((2,), x, dtype=DOUBLE, requires_grad=True) for x in (1.0, 1.0, w)]
        value = log_density(just, torch.zeros(()).double(), torch.tensor(False), *at, at[0] * 0)
        for one in (value, *torch.autograd.grad(value.sum(), at)):
            torch.testing.assert_close(one[0], one[1], rtol=1e-11, atol=1e-11)


def test_no_trials_have_no_density_and_pull_at_nothing():
    at = [torch.tensor(x, dtype=DOUBLE, requires_grad=True) for x in (1.0, 1.5, 0.4, 0.3)]
    value = DDM(*at).log_prob(torch.zeros(0), 1.0)
    assert value.shape == (0,)
    assert all(float(one) == 0 for one in torch.autograd.grad(value.sum(), at))
