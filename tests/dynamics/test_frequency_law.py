import json

import numpy as np
import pytest

from clinode.dynamics.frequency_law import fit_frequency_law


def test_laws_are_told_apart_without_knowing_where_the_branch_ends():
    rng = np.random.default_rng(1)
    for _ in range(20):
        end, factor = rng.uniform(-50, 50), rng.uniform(0.1, 10)
        T = factor * np.exp(np.sort(rng.uniform(0, 5, 25)))[::-1]
        root = fit_frequency_law(end + rng.uniform(0.5, 2) * (T / factor) ** -2, T)
        assert root.kind == "sqrt"
        T = factor * np.exp(np.sort(rng.uniform(0, 2.3, 25)))[::-1]
        rate = rng.uniform(0.5, 2) / factor
        decay = fit_frequency_law(end + 3 * np.exp(-rate * T), T)
        assert decay.kind == "log"
        assert decay.coefficient == pytest.approx(rate, rel=1e-3)
        finite = fit_frequency_law(np.linspace(0, 1, 9), factor * np.linspace(2.0, 1.0, 9))
        assert finite.kind == "finite"
        assert finite.frequency == pytest.approx(1 / (2 * factor))


def test_a_period_that_saturates_at_a_known_end_stays_finite():
    away = np.geomspace(1e-5, 1.0, 6)
    law = fit_frequency_law(3.0 + away, 50.0 / (1 + 9 * away), end=3.0)
    assert law.kind == "finite"
    assert law.frequency == pytest.approx(1 / 50, rel=1e-6)
    log = fit_frequency_law(3.0 + away, 5.0 - 2.0 * np.log(away), end=3.0)
    assert (log.kind, log.coefficient) == ("log", pytest.approx(0.5, rel=1e-3))
    assert fit_frequency_law(3.0 + away, away**-0.5, end=3.0).kind == "sqrt"


def test_square_roots_come_with_their_prefactor():
    T = np.geomspace(1e4, 1.0, 30)
    law = fit_frequency_law(3.0 + (0.7 * T) ** -2.0, T)  # T = 1 / (0.7 sqrt(p - 3))
    assert law.coefficient == pytest.approx(0.7, rel=1e-7)
    assert law.exponent == pytest.approx(2.0, rel=1e-6)
    assert json.loads(json.dumps(law.to_dict()))["kind"] == "sqrt"


def test_what_follows_neither_law_and_what_is_too_short_is_not_named():
    rng = np.random.default_rng(0)
    T = np.geomspace(100.0, 1.0, 12)
    assert fit_frequency_law(np.cumsum(rng.uniform(0, 1, 12) ** 8), T) is None
    assert fit_frequency_law(np.array([0.0, 0.1, 1.0]), np.array([9.0, 3.0, 1.0])) is None
