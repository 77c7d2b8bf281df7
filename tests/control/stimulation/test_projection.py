import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from clinode.control.stimulation.projection import Bounds, Projection
from clinode.errors import ArgumentError


def bounds(n, amplitude=math.inf, slew=math.inf, energy=math.inf, balanced=False, one_sided=False):
    each = np.ones(n)
    return Bounds(each * amplitude, each * slew, each * math.inf, energy, balanced, one_sided)


@pytest.mark.parametrize("seed", range(6))
def test_the_nearest_stimulus_is_that_of_a_general_solver(seed):
    rng = np.random.default_rng(seed)
    knots, hold = np.sort(rng.uniform(0, 3, 9)), ("linear", "previous")[seed % 2]
    limits = bounds(
        2,
        amplitude=2.0,
        slew=rng.uniform(1, 8) if hold == "linear" else math.inf,
        energy=rng.uniform(0.5, 5) if seed > 1 else math.inf,
        balanced=seed % 3 == 0,
        one_sided=seed == 4,
    )
    wanted = 3 * rng.normal(size=(9, 2))
    project = Projection(knots, hold, limits)
    found = project(torch.tensor(wanted)).numpy()
    weights, rise, free = project.weights.numpy(), project.rise.numpy(), project.is_free

    def whole(x):
        values = np.zeros((9, 2))
        values[free] = x.reshape(-1, 2)
        return values

    def distance(x):
        return (weights * (whole(x) - wanted) ** 2).sum()

    limited = [("ineq", lambda x: limits.energy - (weights * whole(x) ** 2).sum())]
    limited += [("ineq", lambda x: (rise - np.diff(whole(x), axis=0)).ravel())]
    limited += [("ineq", lambda x: (rise + np.diff(whole(x), axis=0)).ravel())]
    limited = [one for one in limited if np.isfinite(one[1](np.zeros(2 * free.sum()))).all()]
    if limits.balanced:
        limited.append(("eq", lambda x: (weights * whole(x)).sum(axis=0)))
    best = minimize(
        distance,
        np.full(2 * free.sum(), 0.01),
        bounds=[(0.0 if limits.one_sided else -2.0, 2.0)] * (2 * free.sum()),
        constraints=[{"type": kind, "fun": function} for kind, function in limited],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-13},
    )
    np.testing.assert_allclose(found, whole(best.x), atol=1e-5)


def test_a_threshold_silences_small_values_and_lowers_the_others():
    project = Projection(np.arange(4.0), "previous", bounds(1, amplitude=2.0))
    values = torch.tensor([[0.3], [-1.0], [5.0], [0.0]]).double()
    expected = torch.tensor([[0.0], [-0.5], [2.0], [0.0]]).double()
    torch.testing.assert_close(project(values, 0.5), expected)


def test_far_away_stimuli_are_projected_as_well_as_near_ones():
    rng = np.random.default_rng(1)
    project = Projection(np.linspace(0, 2, 21), "linear", bounds(1, 1.0, 4.0, 0.6, balanced=True))
    far = 1e4 * torch.tensor(rng.normal(size=(21, 1)))
    found = project(far)
    # obtuse angle to every other point of the set (the inequality of the nearest point)
    others = project(torch.tensor(rng.normal(size=(50, 21, 1))))
    inner = (project.weights * (far - found) * (others - found)).sum(dim=(-2, -1))
    assert float(inner.max()) < 1e-6 * float(far.abs().max())


def test_a_stimulus_does_not_notice_its_batch_mates():
    rng = np.random.default_rng(2)
    project = Projection(np.linspace(0, 2, 12), "linear", bounds(1, 1.0, 4.0, 0.6, balanced=True))
    many = torch.tensor(rng.normal(size=(4, 12, 1)) * np.array([0.1, 1, 10, 100])[:, None, None])
    alone = torch.stack([project(one) for one in many])
    torch.testing.assert_close(project(many), alone, rtol=1e-12, atol=1e-12)


def test_steps_cannot_have_a_slew_limit():
    with pytest.raises(ArgumentError, match="breaks every slew limit"):
        Projection(np.arange(3.0), "previous", bounds(1, slew=1.0))
