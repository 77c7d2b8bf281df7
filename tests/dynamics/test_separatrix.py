import json
import math

import numpy as np
import pytest
import torch

from clinode.dynamics.basins import basins, settle_with, smooth_field
from clinode.dynamics.equilibria import find_equilibria
from clinode.dynamics.separatrix import minimal_fatal_shock, separatrix
from clinode.errors import ArgumentError, SolverError
from clinode.system import LinearSystem, Quantity, System, Values


class Tilted(System):
    """x' = x - x^3 + h, y_i' = -k (y_i - x^2) : the boundary is the plane x = middle root."""

    constants = (Quantity("h", "1"), Quantity("k", "1"))

    def __init__(self, h: Values, k: Values, n: int = 1):
        super().__init__()
        labels = tuple(str(i) for i in range(n))
        self.states = (
            Quantity("x", "1", range=(-2.0, 2.0)),
            Quantity("y", "1", labels=labels, range=(-1.0, 3.0)),
        )
        self.register_constants(h=h, k=k)

    def vector_field(self, t, x, u):
        X, Y = self.split(x).values()
        return self.join(x=X - X**3 + self.h, y=-self.k * (Y - X**2))


def saddle_of(system, u=0.0):
    return next(one for one in find_equilibria(system, u=u) if one.kind == "saddle")


def middle(h):
    return np.sort(np.roots([-1, 0, 1, h]).real)[1]


def test_without_coherence_the_wong_wang_separatrix_is_the_diagonal(published):
    u = torch.tensor([30.0, 0.0]).double()
    found = separatrix(published.WongWang(), saddle_of(published.WongWang(), u))
    np.testing.assert_allclose(found.points[:, 0], found.points[:, 1], atol=1e-8)
    np.testing.assert_allclose(np.abs(found.normals), math.sqrt(0.5), atol=1e-6)
    assert found.points.min() < 0 < 1 < found.points.max()


@pytest.mark.parametrize("coherence", [6.4, 25.6])
def test_either_side_of_the_wong_wang_separatrix_leads_elsewhere(published, coherence):
    u = torch.tensor([30.0, coherence]).double()
    system = published.WongWang()
    found = separatrix(system, saddle_of(system, u), box=((0.0, 0.8), (0.0, 0.8)))
    stable = [one for one in find_equilibria(system, u) if one.is_stable]
    settling = settle_with(smooth_field(system, u), stable, rtol=1e-8, horizon=None)
    up = settling.label(found.points + 1e-3 * found.normals)
    down = settling.label(found.points - 1e-3 * found.normals)
    assert len(found.points) > 80
    assert (up != down).mean() >= 0.99
    assert ((up == up[0]) & (down == down[0])).mean() >= 0.99


def test_points_are_evenly_spaced_in_widths_of_the_ranges(published):
    u = torch.tensor([30.0, 12.0]).double()
    found = separatrix(published.WongWang(), saddle_of(published.WongWang(), u), spacing=0.02)
    gaps = np.linalg.norm(np.diff(found.points, axis=0), axis=-1)
    np.testing.assert_allclose(gaps, 0.02, rtol=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_straight_boundary_is_found_where_it_is(seed):
    rng = np.random.default_rng(seed)
    h, k = rng.uniform(-0.3, 0.3), rng.uniform(0.3, 3)
    found = separatrix(Tilted(h, k), saddle_of(Tilted(h, k)))
    np.testing.assert_allclose(found.points[:, 0], middle(h), atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 3])
def test_the_smallest_push_goes_straight_to_a_straight_boundary(n):
    system = Tilted(0.1, 1.0, n)
    rest = next(one for one in find_equilibria(system) if one.is_stable)
    shock = minimal_fatal_shock(system, rest)
    distance = middle(0.1) - float(rest.state[0])
    assert shock.size == pytest.approx(abs(distance) / 4, rel=2e-3)
    assert shock.low < shock.size < shock.low + 1e-6
    assert np.sign(shock.push[0]) == np.sign(distance)
    assert shock.target is not None
    assert shock.target is not shock.origin


@pytest.mark.slow
def test_the_smallest_push_of_wong_wang_ends_on_its_separatrix(published):
    system, u = published.WongWang(), torch.tensor([30.0, 25.6]).double()
    curve = separatrix(system, saddle_of(system, u), spacing=0.002)
    for rest in [one for one in find_equilibria(system, u) if one.is_stable]:
        shock = minimal_fatal_shock(system, rest)
        nearest = np.linalg.norm(curve.points - rest.state.numpy(), axis=-1).min()
        assert shock.size == pytest.approx(nearest, rel=1e-3)
        if rest.state[1] > rest.state[0]:
            alone = minimal_fatal_shock(system, rest, states=["S1"])
            assert alone.push[1] == 0
            assert alone.size > shock.size


def test_where_the_manifold_is_no_curve_its_normal_is_given():
    found = separatrix(Tilted(0.2, 1.0, 2), saddle_of(Tilted(0.2, 1.0, 2)))
    np.testing.assert_allclose(np.abs(found.normal), [1.0, 0.0, 0.0], atol=1e-9)
    assert found.points.shape == (1, 3)


@pytest.mark.slow
def test_results_come_as_json():
    system = Tilted(0.0, 1.0)
    assert json.loads(json.dumps(separatrix(system, saddle_of(system)).to_dict()))["points"]
    rest = next(one for one in find_equilibria(system) if one.is_stable)
    assert json.loads(json.dumps(minimal_fatal_shock(system, rest).to_dict()))["push"]


def test_bad_requests_are_refused_in_words():
    system = Tilted(0.0, 1.0)
    rest = next(one for one in find_equilibria(system) if one.is_stable)
    with pytest.raises(ArgumentError, match="stable node has 0"):
        separatrix(system, rest)
    with pytest.raises(ArgumentError, match="0 < spacing < length"):
        separatrix(system, saddle_of(system), spacing=0.0)
    with pytest.raises(SolverError, match=r"no push up to 0\.01"):
        minimal_fatal_shock(system, rest, largest=0.01)
    with pytest.raises(SolverError, match="reaches no attractor"):
        minimal_fatal_shock(LinearSystem([[1.0]], [[1.0]], states=["x"]), [1.0])
    assert basins(system, n=4).undecided.value == 0
