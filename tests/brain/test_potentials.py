import math

import pytest
import torch
from scipy.optimize import brentq
from torch.func import grad

from clinode.brain import ghk_current, goldman, nernst
from clinode.errors import ArgumentError


def draw(generator, low, high):
    return math.exp(math.log(low) + (math.log(high / low)) * torch.rand(1, generator=generator))


def test_a_tenfold_gradient_is_61_and_a_half_millivolts_at_body_temperature():
    assert nernst(100.0, 10.0, 1).item() == pytest.approx(61.54, abs=0.01)  # the textbook's number
    assert nernst(100.0, 10.0, 2).item() == pytest.approx(61.54 / 2, abs=0.01)
    assert nernst(10.0, 100.0, -1).item() == pytest.approx(61.54, abs=0.01)


def test_one_permeable_ion_brings_the_goldman_potential_to_its_nernst_potential():
    out, within = {"K": 4.0, "Na": 145.0, "Cl": 110.0}, {"K": 140.0, "Na": 12.0, "Cl": 7.0}
    for ion, valence in {"K": 1, "Na": 1, "Cl": -1}.items():
        only = {name: float(name == ion) for name in out}
        expected = nernst(out[ion], within[ion], valence)
        torch.testing.assert_close(goldman(only, out, within), expected)


@pytest.mark.parametrize("seed", range(20))
def test_the_goldman_potential_is_where_the_ghk_currents_cancel(seed):
    generator = torch.Generator().manual_seed(seed)
    ions = ("K", "Na", "Cl")
    P, out, within = ({ion: draw(generator, 1e-2, 1e2) for ion in ions} for _ in range(3))

    def total(V):
        valence = {"K": 1, "Na": 1, "Cl": -1}
        return sum(
            ghk_current(V, P[ion], out[ion], within[ion], valence[ion]).item() for ion in ions
        )

    assert goldman(P, out, within).item() == pytest.approx(brentq(total, -500, 500, xtol=1e-11))


def test_the_ghk_current_is_smooth_at_zero_voltage_and_zero_at_the_nernst_potential():
    def current(V):
        return ghk_current(V, 1.0, outside=5.0, inside=140.0, valence=1)

    zero = torch.tensor(0.0).double()
    assert current(zero).item() == pytest.approx(96485.33212331 * 135 * 1e-4)
    assert grad(current)(zero).isfinite()
    assert current(nernst(5.0, 140.0, 1)).item() == pytest.approx(0, abs=1e-10)
    # far from it the current of the side that is emptied, in proportion to the voltage
    assert current(1e4).item() / current(5e3).item() == pytest.approx(2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nernst(5.0, 0.0, 1), "inside must be positive"),
        (lambda: nernst(5.0, 1.0, 0), "without charge"),
        (lambda: nernst(5.0, 1.0, 1, temperature=-3.0), "temperature must be positive"),
        (lambda: goldman({"K": 1.0}, {"K": 1.0}, {"Na": 1.0}), "different ions"),
        (lambda: ghk_current(0.0, 1.0, 1.0, 1.0, 0), "without charge"),
    ],
)
def test_impossible_ions_are_refused(call, words):
    with pytest.raises(ArgumentError, match=words):
        call()
