import json
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from clinode.dynamics.equilibria import find_equilibria
from clinode.dynamics.escape import escape_times
from clinode.errors import ArgumentError
from clinode.system import Quantity, System, Values


class NoisyWell(System):
    """dx = (x - x^3) dt + sqrt(2 D) dW, as a diagonal or as a matrix of two sources."""

    states = (Quantity("x", "1", range=(-2.0, 2.0)),)
    constants = (Quantity("D", "1"),)

    def __init__(self, D: Values, as_matrix: bool = False):
        super().__init__()
        self.register_constants(D=D)
        self.as_matrix = as_matrix

    def vector_field(self, t, x, u):
        return x - x**3

    def noise(self, t, x, u):
        g = torch.sqrt(2 * self.D).expand_as(x)
        if self.as_matrix:
            return torch.stack([0.6 * g, 0.8 * g], dim=-1)
        return g


class Quiet(System):
    states = (Quantity("x", "1", range=(-2.0, 2.0)),)

    def vector_field(self, t, x, u):
        return x - x**3


def backward_kolmogorov(D, start, end):
    """Mean first passage from `start` up to `end`: nested quadrature of the backward equation."""

    def U(x):
        return x**4 / 4 - x**2 / 2

    def inner(y):
        return quad(lambda z: math.exp((U(y) - U(z)) / D), -4.0, y, limit=200)[0]

    return quad(inner, start, end, limit=200)[0] / D


@pytest.mark.parametrize("as_matrix", [False, True])
def test_mean_escape_from_a_well_is_that_of_the_backward_equation(as_matrix):
    D, draw = 0.25, torch.Generator().manual_seed(1)
    found = escape_times(
        NoisyWell(D, as_matrix), [-1.0], {"x": (-math.inf, 0.0)}, n=3000, step=0.02, horizon=500.0
        , generator=draw
    )  # fmt: skip
    expected = backward_kolmogorov(D, -1.0, 0.0)
    half = (found.mean.high - found.mean.low) / 2
    assert found.inside == 0
    assert abs(found.mean.value - expected) < 0.01 * expected + 1.5 * half


@pytest.mark.slow
def test_rare_escapes_follow_the_law_of_kramers():
    D, draw = 0.07, torch.Generator().manual_seed(2)
    rest = find_equilibria(NoisyWell(D))[0]
    side = 1.0 if float(rest.state) < 0 else -1.0
    region = {"x": (-math.inf, 1.0)} if side > 0 else {"x": (-1.0, math.inf)}
    found = escape_times(
        NoisyWell(D), rest, region, n=1000, step=0.02, horizon=5000.0, generator=draw
    )
    expected = backward_kolmogorov(D, -1.0, 1.0)
    half = (found.mean.high - found.mean.low) / 2
    assert abs(found.mean.value - expected) < 0.01 * expected + 1.5 * half
    kramers = math.sqrt(2) / (2 * math.pi) * math.exp(-0.25 / D)
    assert found.rate == pytest.approx(kramers, rel=0.2)  # its own error is of order D


def test_what_stays_inside_makes_the_mean_a_lower_bound():
    draw = torch.Generator().manual_seed(3)
    found = escape_times(
        NoisyWell(0.1), [-1.0], {"x": (-2.0, 0.0)}, n=50, step=0.02, horizon=5.0, generator=draw
    )
    assert found.inside > 0
    assert np.isnan(found.times).sum() == found.inside
    assert found.mean.verdict.startswith("lower bound")
    json.dumps(found.to_dict())
    never = escape_times(
        NoisyWell(1e-3), [-1.0], {"x": (-2.0, 0.0)}, n=5, step=0.02, horizon=1.0, generator=draw
    )
    assert not never.mean.is_defined


def test_the_same_generator_gives_the_same_times():
    def times():
        draw = torch.Generator().manual_seed(4)
        region = {"x": (-math.inf, 0.0)}
        return escape_times(
            NoisyWell(0.3), [-1.0], region, n=20, step=0.02, horizon=100.0, generator=draw
        ).times

    np.testing.assert_array_equal(times(), times())


def test_bad_requests_are_refused_in_words():
    draw, region = torch.Generator().manual_seed(0), {"x": (-2.0, 0.0)}
    options = {"n": 10, "step": 0.01, "horizon": 1.0, "generator": draw}
    with pytest.raises(ArgumentError, match="has no noise"):
        escape_times(Quiet(), [-1.0], region, **options)
    with pytest.raises(ArgumentError, match="in the region"):
        escape_times(NoisyWell(0.1), [1.0], region, **options)
    with pytest.raises(ArgumentError, match="no face"):
        escape_times(NoisyWell(0.1), [-1.0], {}, **options)
    with pytest.raises(ArgumentError, match="has no state 'y'"):
        escape_times(NoisyWell(0.1), [-1.0], {"y": (-1.0, 1.0)}, **options)
    with pytest.raises(ArgumentError, match="0 < step < horizon"):
        escape_times(NoisyWell(0.1), [-1.0], region, **options | {"step": 2.0})
