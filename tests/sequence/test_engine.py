"""The founding sentence: what is asked of a written system is asked of a learned one, alike."""

import numpy as np
import pytest
import torch

import clinode
from clinode.system import System


class Turned(System):
    """A learned system in other latent coordinates: z = T x."""

    latent = True
    time_unit = "h"

    def __init__(self, inner, T):
        super().__init__()
        self.inner, self.states, self.inputs = inner, inner.states, inner.inputs
        self.outputs = inner.outputs
        self.register_buffer("T", T)
        self.register_buffer("back", torch.linalg.inv(T))

    def vector_field(self, t, x, u):
        return self.inner.vector_field(t, x @ self.back.T, u) @ self.T.T

    def output(self, t, x, u):
        return self.inner.output(t, x @ self.back.T, u)


U = [0.3, 1.0]  # treatments held for ever carry a state far beyond where training left it


def rest_of(system):
    return clinode.find_equilibria(system, u=U, box=[(-300.0, 300.0)] * system.n_states)[0]


@pytest.fixture(
    params=["linear-latent-ode", "ode-rnn", "neural-flow", "gru-ode-bayes", "latent-sde"]
)
def learned(request, classified, build):
    return build(classified, request.param).latent_system


def test_a_learned_system_rests_decays_and_answers_like_any_other(learned):
    one = rest_of(learned)
    settled = clinode.simulate(learned, one.state, [0.0, 50.0], U, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(settled.outputs[-1], one.output, rtol=1e-6, atol=1e-8)
    linear = clinode.linearize(learned, one)
    assert linear.latent
    assert linear.output_names == learned.output_names
    if one.is_stable:
        response = clinode.impedance(learned, one, [0.0, 0.05])
        assert response.impedance.isfinite().all()


def test_what_is_asked_in_outputs_does_not_depend_on_latent_coordinates(learned):
    generator = torch.Generator().manual_seed(3)
    n = learned.n_states
    T = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator)).Q * 1.7
    turned = Turned(learned, T)
    found, again = rest_of(learned), rest_of(turned)
    torch.testing.assert_close(again.output, found.output, rtol=1e-8, atol=1e-10)
    values = [np.sort_complex(one.eigenvalues.numpy()) for one in (found, again)]
    np.testing.assert_allclose(values[1], values[0], rtol=1e-8, atol=1e-10)
    frequencies = [0.0, 0.01, 0.2]
    if found.is_stable:
        here, there = (clinode.impedance(system, one, frequencies).impedance
                       for system, one in ((learned, found), (turned, again)))  # fmt: skip
        torch.testing.assert_close(there, here, rtol=1e-8, atol=1e-12)
