import numpy as np
import pytest
import scipy.integrate
import torch

from clinode.dynamics import simulate
from clinode.physiology import GlucoseMinimalModel
from clinode.system import Signal


def equations(y, t, insulin, glucose):
    G, X, I = y
    p1, p2, p3, n, G_b, I_b, V_G, V_I = 0.028, 0.025, 1.3e-5, 5 / 54, 92, 11, 117, 12
    return [
        -(p1 + X) * G + p1 * G_b + glucose / V_G,
        -p2 * X + p3 * (I - I_b),
        -n * (I - I_b) + insulin / V_I,
    ]


@pytest.mark.parametrize("how", [{"method": "rk4", "step": 1.0}, {"rtol": 1e-9}])
def test_an_intravenous_glucose_load_matches_scipy(how):
    minutes = np.linspace(0, 180, 19)
    start = [290.0, 0.0, 90.0]
    exact = scipy.integrate.odeint(equations, start, minutes, args=(3.0, 200.0), rtol=1e-11)
    u = torch.tensor([3.0, 200.0], dtype=torch.float64)
    found = simulate(GlucoseMinimalModel(), start, minutes, u, **how)
    np.testing.assert_allclose(found.states, exact, rtol=2e-6, atol=1e-9)


def test_the_steady_state_under_infusions_matches_its_closed_form():
    insulin, glucose = 12.0, 250.0
    u = torch.tensor([insulin, glucose], dtype=torch.float64)
    found = simulate(
        GlucoseMinimalModel(), [92.0, 0.0, 11.0], [0.0, 1500.0], u, method="rk4", step=10.0
    ).states[-1]
    I = 11 + insulin / (5 / 54 * 12)
    X = 1.3e-5 / 0.025 * (I - 11)
    G = (0.028 * 92 + glucose / 117) / (0.028 + X)
    expected = torch.tensor([G, X, I], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_a_fasting_adult_stays_at_the_basal_level():
    model = GlucoseMinimalModel()
    rate = model.vector_field(0.0, model.initial_state(), torch.zeros(2, dtype=torch.float64))
    assert (rate == 0).all()


def test_a_bolus_of_insulin_is_its_dose_over_its_volume_and_decays_exponentially():
    bolus = Signal([0.0], [[0.0, 0.0]], impulses=([0.0], [[4000.0, 0.0]]))  # mU
    minutes = torch.tensor([0.0, 5.0, 20.0], dtype=torch.float64)
    start = GlucoseMinimalModel().initial_state()
    found = simulate(GlucoseMinimalModel(), start, minutes, bolus, method="rk4", step=0.5)
    expected = 11 + 4000 / 12 * torch.exp(-5 / 54 * minutes[1:])
    torch.testing.assert_close(found.states[1:, 2], expected, rtol=1e-6, atol=0)
    assert found.states[-1, 0] < 92


def test_the_action_of_a_bolus_has_the_area_of_insulin_sensitivity():
    # int X dt = p3 / p2 int (I - I_b) dt = p3 / p2 dose / (n V_I)
    bolus = Signal([0.0], [[0.0, 0.0]], impulses=([0.0], [[1000.0, 0.0]]))
    minutes = np.arange(0, 482.0, 2.0)
    start = GlucoseMinimalModel().initial_state()
    found = simulate(GlucoseMinimalModel(), start, minutes, bolus, method="rk4", step=2.0)
    area = scipy.integrate.simpson(found.states[:, 1].numpy(), x=minutes)
    assert area == pytest.approx(1.3e-5 / 0.025 * 1000 / (5 / 54 * 12), rel=1e-4)
