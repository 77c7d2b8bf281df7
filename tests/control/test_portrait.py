import math

import numpy as np
import pytest
import torch

from clinode.control.portrait import portrait
from clinode.dynamics import find_equilibria, simulate
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity, System

DOUBLE = torch.float64


class Learned(System):
    """Two tanh units driven by two treatments, seen in coordinates T x."""

    latent = True
    time_unit = "h"
    states = (Quantity("z1", "1"), Quantity("z2", "1"), Quantity("z3", "1"))
    inputs = (Quantity("fluids", "1", range=(0.0, 2.0)), Quantity("insulin", "1"))
    outputs = (Quantity("MAP", "1", range=(-4.0, 4.0)), Quantity("HR", "1", range=(-1.0, 1.0)))

    def __init__(self, T=None):
        super().__init__()
        T = torch.eye(3, dtype=DOUBLE) if T is None else T
        self.register_buffer("T", T)
        self.register_buffer("back", torch.linalg.inv(T))
        self.register_buffer(
            "W", torch.tensor([[0.2, 0.5, 0.0], [-0.6, 0.1, 0.0], [0, 0, 0]]).double()
        )
        self.register_buffer("B", torch.tensor([[0.3, 0.0], [0.0, 0.2], [0.0, 0.0]]).double())
        self.register_buffer("C", torch.tensor([[1.0, 0.4, 0.2], [0.0, -1.0, 0.3]]).double())
        self.register_buffer("a", torch.tensor([1.0, 0.5, 0.1]).double())

    def vector_field(self, t, x, u):
        x = x @ self.back.T
        return (torch.tanh(x + 0.1) @ self.W.T + u @ self.B.T - self.a * x) @ self.T.T

    def output(self, t, x, u):
        return x @ self.back.T @ self.C.T


def test_one_leak_answers_as_its_closed_form_says():
    body = LinearSystem([[-0.25]], [[2.0]], states=["glucose"], inputs=["insulin"], time_unit="h")
    found = portrait(body, horizon=6.0, levels={"insulin": 1.5})
    time = found.responses["time"].to_numpy()
    expected = 2.0 * 1.5 * (1 - np.exp(-0.25 * time)) / 0.25
    np.testing.assert_allclose(found.responses["change"], expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.responses["linear"], expected, rtol=1e-10, atol=1e-12)
    assert found.modes["time_constant"].tolist() == [pytest.approx(4.0)]
    gramian = (2.0 * 1.5) ** 2 * (1 - math.exp(-2 * 0.25 * 6)) / (2 * 0.25)
    assert found.reach["reach"].tolist() == [pytest.approx(math.sqrt(gramian))]
    assert found.hankel is not None
    assert found.hankel.tolist() == [pytest.approx(3.0 / (2 * 0.25))]  # |C B| / (2 a)


@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_told_depends_on_latent_coordinates(seed):
    generator = torch.Generator().manual_seed(seed)
    T = torch.eye(3, dtype=DOUBLE) + 0.4 * torch.randn(3, 3, dtype=DOUBLE, generator=generator)
    one, other = portrait(Learned()), portrait(Learned(T))
    assert other.controllability.dimension == one.controllability.dimension == 2
    for table in ("rest", "modes", "reach", "responses"):
        mine, theirs = getattr(one, table), getattr(other, table)
        for column in mine.columns:
            if mine[column].dtype == float:
                np.testing.assert_allclose(theirs[column], mine[column], rtol=1e-5, atol=1e-7)
            else:
                assert theirs[column].tolist() == mine[column].tolist()
    np.testing.assert_allclose(other.hankel, one.hankel, rtol=1e-8, atol=1e-7)


def test_a_response_is_what_the_system_does_with_the_input_less_without_it():
    system = Learned()
    found = portrait(system, horizon=8.0, levels={"insulin": -3.0})
    rest = find_equilibria(system)[0]
    held = torch.tensor([0.0, -3.0], dtype=DOUBLE)
    shown = simulate(system, rest.state, [0.0, 8.0], held, rtol=1e-10, atol=1e-12).outputs[-1]
    last = found.responses[
        (found.responses["time"] == 8.0) & (found.responses["input"] == "insulin")
    ]
    np.testing.assert_allclose(last["change"], (shown - rest.output).numpy(), rtol=1e-4, atol=1e-6)
    assert not np.allclose(last["linear"], last["change"], rtol=0.02)  # tanh bends it
    assert found.levels == {"fluids": 2.0, "insulin": -3.0}


def test_the_mode_that_no_input_moves_is_named_with_the_output_that_shows_it():
    modes = portrait(Learned()).modes
    assert modes["is_moved"].tolist()[0] is False  # slowest first: the leak of 10 h by itself
    assert modes["time_constant"].iloc[0] == pytest.approx(10.0)
    assert modes["gain"].iloc[0] == pytest.approx(0.0, abs=1e-12)
    assert modes["outputs"].iloc[0].startswith("HR")  # .3 / 2 of its range against .2 / 8


def test_the_outputs_that_change_most_in_their_ranges_are_shown_first():
    chosen = portrait(Learned(), horizon=20.0).widest_responses(1, 1)
    assert list(chosen.values()) == [["HR"]]


def test_impossible_questions_are_refused_in_words():
    system = Learned()
    with pytest.raises(ArgumentError, match="horizon must be positive"):
        portrait(system, horizon=0.0)
    with pytest.raises(ArgumentError, match="no input 'oxygen'; there are fluids, insulin"):
        portrait(system, levels={"oxygen": 1.0})
    with pytest.raises(ArgumentError, match="a number other than 0"):
        portrait(system, levels={"insulin": 0.0})
    with pytest.raises(ArgumentError, match="has no inputs"):
        portrait(LinearSystem([[-1.0]], torch.zeros(1, 0), inputs=[]))


def test_an_answer_is_json_without_numbers_that_are_not():
    import json

    json.dumps(portrait(Learned()).to_dict(), allow_nan=False)
