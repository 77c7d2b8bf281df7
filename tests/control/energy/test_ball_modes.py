import math

import numpy as np
import pytest
from flint import acb_mat, arb, arb_mat, ctx

from clinode.control.energy.ball_modes import scaled_integers, spectrum_of


@pytest.fixture(autouse=True)
def _precision():
    old, ctx.prec = ctx.prec, 300
    yield
    ctx.prec = old


def test_eigenvalues_of_a_path_are_enclosed_as_twice_the_cosine():
    n = 9
    A = np.eye(n, k=1) + np.eye(n, k=-1)
    spectrum = spectrum_of(A.tobytes(), n)
    assert spectrum is not None
    modes = spectrum.modes(200)
    assert modes is not None
    for k, value in enumerate(modes.values, start=1):
        exact = 2 * (arb(n + 1 - k) * arb.pi() / (n + 1)).cos()
        assert value.overlaps(exact)
        assert value.rad() < arb(2) ** -200


@pytest.mark.parametrize("kind", ["symmetric", "directed"])
def test_rows_are_left_eigenvectors_to_every_digit_asked_for(kind):
    n = 8
    A = np.random.default_rng(0).normal(size=(n, n))
    A = A + A.T if kind == "symmetric" else A
    spectrum = spectrum_of(A.tobytes(), n)
    assert spectrum is not None
    modes = spectrum.modes(220)
    assert modes is not None
    identity = arb_mat(np.eye(n).tolist())
    rows, moved = modes.coordinates(identity), modes.coordinates(arb_mat(A.tolist()))
    for value, row, image in zip(modes.values, rows, moved, strict=True):
        for x, y in zip(row, image, strict=True):
            assert (x * value).overlaps(y)
        assert max(x.rel_accuracy_bits() for x in row) > 180
    approximate = acb_mat(A.tolist()).eig()
    assert all(any(v.overlaps(value + 0 * v) for v in approximate) for value in modes.values)


def test_more_bits_refine_the_same_roots():
    A = np.random.default_rng(1).normal(size=(6, 6))
    spectrum = spectrum_of(A.tobytes(), 6)
    assert spectrum is not None
    coarse, fine = spectrum.modes(64), spectrum.modes(900)
    assert coarse is not None
    assert fine is not None
    assert all(a.overlaps(b) for a, b in zip(coarse.values, fine.values, strict=True))
    assert max(v.real.rad() for v in fine.values) < arb(2) ** -880


def test_repeated_eigenvalues_are_not_told_apart():
    assert spectrum_of(np.eye(3).tobytes(), 3) is None
    assert spectrum_of((np.eye(3) + np.eye(3, k=1)).tobytes(), 3) is None


def test_float64_numbers_are_integers_over_a_power_of_two():
    A = np.array([[0.1, -3.0], [2.0**-60, 0.0]])
    made = scaled_integers(A)
    assert made is not None
    numbers, scale = made
    assert [math.ldexp(x, -scale) for x in numbers] == A.ravel().tolist()
    assert scaled_integers(np.array([[1.0, 1e-300]])) is None
