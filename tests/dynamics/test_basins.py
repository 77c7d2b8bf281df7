import json
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.spatial import cKDTree

from clinode.dynamics.basins import basins
from clinode.dynamics.cycles import LimitCycle
from clinode.dynamics.equilibria import find_equilibria
from clinode.errors import ArgumentError
from clinode.system import Event, Quantity, System, Values


class DoubleWell(System):
    """x' = x - x^3 + h."""

    states = (Quantity("x", "1", range=(-2.0, 2.0)),)
    constants = (Quantity("h", "1"),)

    def __init__(self, h: Values = 0.0):
        super().__init__()
        self.register_constants(h=h)

    def vector_field(self, t, x, u):
        return x - x**3 + self.h


class TwoRhythms(System):
    """r' = r (r - 1) (r - 2) (r - 3) (r - 4) / 10 in the plane, one radian a unit: cycles
    at 1, 2, 3, 4, of which 2 and 4 repel and 1 and 3 attract; the origin repels.
    """

    states = (Quantity("x", "1", range=(-3.5, 3.5)), Quantity("y", "1", range=(-3.5, 3.5)))

    def vector_field(self, t, x, u):
        r = x.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        grows = (r - 1) * (r - 2) * (r - 3) * (r - 4) / 10
        return grows * x + torch.cat([-x[..., 1:], x[..., :1]], dim=-1)


class Runaway(System):
    states = (Quantity("x", "1", range=(-2.0, 2.0)),)

    def vector_field(self, t, x, u):
        return x**3 - x


class Lorenz(System):
    states = tuple(
        Quantity(name, "1", range=side)
        for name, side in {"x": (-20.0, 20.0), "y": (-25.0, 25.0), "z": (0.0, 50.0)}.items()
    )

    def vector_field(self, t, x, u):
        X, Y, Z = self.split(x).values()
        return self.join(x=10 * (Y - X), y=X * (28 - Z) - Y, z=X * Y - 8 / 3 * Z)


class Firing(System):
    states = (Quantity("V", "mV", range=(-80.0, -40.0)),)

    def vector_field(self, t, x, u):
        return -65.0 - x

    def _guard(self, t, x):
        return x + 50.0

    def _reset(self, x):
        return x - 15.0

    events = (Event("spike", _guard, _reset),)


@pytest.mark.parametrize("seed", range(5))
def test_basins_of_a_double_well_meet_at_the_middle_root(seed):
    h = np.random.default_rng(seed).uniform(-0.35, 0.35)
    found = basins(DoubleWell(h), n=400)
    middle = np.sort(np.roots([-1, 0, 1, h]).real)[1]
    left = found.attractors[int(found.labels[0])]
    assert not isinstance(left, LimitCycle)
    assert float(left.state) < middle
    assert ((found.labels == found.labels[0]) == (found.axes[0] < middle)).all()
    share = (middle + 2) / 4
    assert found.fractions[int(found.labels[0])].value == pytest.approx(share, abs=1 / 400)


def test_without_coherence_the_wong_wang_basins_meet_on_the_diagonal(published):
    u = torch.tensor([30.0, 0.0]).double()
    found = basins(published.WongWang(), ((0.0, 0.8), (0.0, 0.8)), 64, u)
    S1, S2 = found.starts[..., 0], found.starts[..., 1]
    winner = found.attractors[int(found.labels[-1, 0])]
    assert not isinstance(winner, LimitCycle)
    np.testing.assert_allclose(winner.state, [0.65869, 0.05181], atol=1e-5)
    assert len(set(found.labels[S1 > S2])) == len(set(found.labels[S1 < S2])) == 1
    assert (np.diag(found.labels) == -1).all()  # they run into the saddle
    assert "64 undecided" in found.verdict


@pytest.mark.slow
def test_rhythms_are_attractors_that_nobody_named():
    found = basins(TwoRhythms(), n=(30, 31))
    radii = [float(one.states.norm(dim=-1).mean()) for one in found.attractors]  # pyright: ignore
    assert sorted(round(r, 4) for r in radii) == [1.0, 3.0]
    inner = int(np.argmin(radii))
    r = np.linalg.norm(found.starts, axis=-1)
    inside = r < 4
    np.testing.assert_array_equal(found.labels[inside] == inner, r[inside] < 2)


def test_what_grows_without_bound_belongs_to_no_basin():
    found = basins(Runaway(), n=100)
    inside = np.abs(found.axes[0]) < 1
    np.testing.assert_array_equal(found.labels, np.where(inside, 0, -2))
    assert found.left.value == 0.5
    assert "50 grew without bound" in found.verdict


def test_chaos_is_undecided_and_said_to_be():
    found = basins(Lorenz(), n=20, horizon=2.0)
    assert found.undecided.value == 1.0
    assert len(found.attractors) == 0


def test_a_sample_in_many_states_agrees_with_the_volume_of_the_basin():
    class Wells(System):
        states = (Quantity("x", "1", labels=("a", "b", "c"), range=(-2.0, 2.0)),)

        def vector_field(self, t, x, u):
            return x - x**3 + 0.2

    found = basins(Wells(), n=2000)
    middle = np.sort(np.roots([-1, 0, 1, 0.2]).real)[1]
    share = (2 - middle) / 4  # of the upper well, in each state by itself
    for one, fraction in zip(found.attractors, found.fractions, strict=True):
        assert not isinstance(one, LimitCycle)
        n_up = int((one.state > 0).sum())
        expected = share**n_up * (1 - share) ** (3 - n_up)
        assert abs(fraction.value - expected) < 4 * math.sqrt(expected * (1 - expected) / 2000)
        assert fraction.low < fraction.value < fraction.high
    assert len(found.attractors) == 8


@pytest.mark.slow
def test_labels_are_those_of_long_integrations_by_scipy(published):
    rng, wrong, n = np.random.default_rng(0), 0, 0
    for _ in range(4):
        u = torch.tensor([rng.uniform(0, 35), rng.uniform(-30, 30)]).double()
        found = basins(published.WongWang(), n=(20, 25), u=u)
        assert found.undecided.value <= 0.002
        states = [one.state.numpy() for one in found.attractors if not isinstance(one, LimitCycle)]
        field = published.WongWang()

        def rate(t, x, field=field, u=u):  # of all starts together, as one long state
            return field.vector_field(t, torch.tensor(x.reshape(-1, 2)), u).numpy().ravel()

        decided = found.labels >= 0
        together = np.asarray(found.starts[decided]).ravel()
        ends = solve_ivp(rate, (0, 40), together, method="DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
        _, label = cKDTree(np.stack(states)).query(ends.reshape(-1, 2))
        wrong, n = wrong + int((label != found.labels[decided]).sum()), n + len(label)
    assert wrong <= 0.001 * n


def test_basins_come_as_a_table_and_as_json():
    found = basins(Runaway(), n=8)
    assert found.to_pandas()["attractor"].tolist() == ["stable node", "without bound"]
    assert len(json.loads(json.dumps(found.to_dict()))["labels"]) == 8


def test_bad_requests_are_refused_in_words():
    with pytest.raises(ArgumentError, match="jumps at events"):
        basins(Firing())
    with pytest.raises(ArgumentError, match="n is a positive number"):
        basins(DoubleWell(), n=0)
    with pytest.raises(ArgumentError, match="rtol must lie"):
        basins(DoubleWell(), rtol=1.0)
    with pytest.raises(ArgumentError, match="horizon must be positive"):
        basins(DoubleWell(), horizon=-1.0)
    unstable = [one for one in find_equilibria(DoubleWell()) if not one.is_stable]
    with pytest.raises(ArgumentError, match="one of those given is not"):
        basins(DoubleWell(), attractors=unstable)
