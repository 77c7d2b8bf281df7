import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import erfcx
from torch.func import grad

from clinode.brain import lif_rate, siegert_rate
from clinode.errors import ArgumentError

CELL = {"tau": 20.0, "V_th": -50.0, "V_r": -60.0, "t_ref": 2.0}


def by_scipy(mu, sigma, tau, V_th, V_r, t_ref):
    low, high = (V_r - mu) / sigma, (V_th - mu) / sigma
    points = [p for p in (-10.0, 0.0, high - 1.0) if low < p < high]
    integral, _ = quad(
        lambda y: erfcx(-y), low, high, epsabs=0, epsrel=1e-12, points=points or None
    )
    return 1 / (t_ref + tau * math.sqrt(math.pi) * integral)


def test_the_rate_in_noise_is_the_integral_of_siegert():
    rng = np.random.default_rng(1)
    for _ in range(300):
        tau, V_th, t_ref = rng.uniform(5, 50), rng.uniform(-55, -40), rng.uniform(0, 5)
        cell = {"tau": tau, "V_th": V_th, "V_r": V_th - rng.uniform(1, 25), "t_ref": t_ref}
        mu, sigma = rng.uniform(-75, -20), rng.uniform(1, 15)
        expected = by_scipy(mu, sigma, **cell)
        assert siegert_rate(mu, sigma, **cell).item() == pytest.approx(expected, rel=1e-8, abs=0)


@pytest.mark.parametrize("mu", [-500.0, -90.0, -60.0, -50.0, -49.999, -40.0, 1e4])
@pytest.mark.parametrize("sigma", [1e-6, 1e-2, 1.0, 30.0])
def test_the_rate_and_its_gradients_are_finite_in_all_tails(mu, sigma):
    at = torch.tensor(mu).double()
    noise = torch.tensor(sigma).double()
    found = siegert_rate(at, noise, **CELL)
    slope = grad(siegert_rate, argnums=(0, 1))(at, noise, **CELL)
    assert 0 <= found < 0.5  # 1 / t_ref
    assert all(part.isfinite() for part in slope)
    assert slope[0] >= 0


def test_the_slope_of_the_rate_is_that_of_the_integrals_limits():
    # at mu = V_th and mu = V_r a limit of the integral is exactly 0, where its two parts meet
    for mu in (-75.0, -60.0, -57.0, -50.0, -42.0):
        for sigma in (1.0, 3.0, 8.0):
            at = torch.tensor(mu).double()
            rate = siegert_rate(at, sigma, **CELL).item()
            low, high = (-60 - mu) / sigma, (-50 - mu) / sigma
            scale = CELL["tau"] * math.sqrt(math.pi) / sigma
            expected = rate * (rate * (scale * (erfcx(-high) - erfcx(-low))))
            slope = grad(lambda m, s=sigma: siegert_rate(m, s, **CELL))(at).item()
            assert slope == pytest.approx(expected, rel=1e-9, abs=0)


def test_weak_noise_leaves_the_rate_of_the_neuron_without_noise():
    mu = torch.linspace(-49, 0, 20).double()
    torch.testing.assert_close(
        siegert_rate(mu, 1e-4, **CELL), lif_rate(mu, **CELL), rtol=1e-8, atol=0
    )


def test_a_neuron_without_noise_fires_at_its_closed_form_and_not_below_threshold():
    assert lif_rate([-60.0, -50.0], **CELL).tolist() == [0, 0]
    expected = 1 / (2 + 20 * math.log((-40 + 60) / (-40 + 50)))
    assert lif_rate(-40.0, **CELL).item() == pytest.approx(expected, rel=1e-14)
    slope = grad(lambda m: lif_rate(m, **CELL))(torch.tensor(-70.0).double())
    assert slope == 0  # and not NaN


@pytest.mark.parametrize(
    ("change", "words"),
    [({"V_r": -50.0}, "below the threshold"), ({"tau": 0.0}, "tau"), ({"t_ref": -1.0}, "t_ref")],
)
def test_an_impossible_neuron_is_refused(change, words):
    with pytest.raises(ArgumentError, match=words):
        siegert_rate(-55.0, 1.0, **(CELL | change))


def test_no_noise_is_told_where_to_go():
    with pytest.raises(ArgumentError, match="lif_rate"):
        siegert_rate(-55.0, 0.0, **CELL)
