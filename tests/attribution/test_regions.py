from dataclasses import replace

import numpy as np
import pytest
import torch

from clinode.attribution import attribute, attribute_regions
from clinode.brain import StuartLandauNetwork, WilsonCowanNetwork, simulate_connectome
from clinode.dynamics import find_equilibria, linearize, simulate
from clinode.errors import ArgumentError, SolverError
from clinode.system import LinearSystem, Signal

OUTPUT, STEP, N_STEPS = "E:lh_precuneus", 2.0, 6


@pytest.fixture(scope="module")
def brain() -> WilsonCowanNetwork:
    return WilsonCowanNetwork(simulate_connectome(6, seed=3))


@pytest.fixture(scope="module")
def rest(brain):
    return find_equilibria(brain, n_starts=4)[0]


@pytest.fixture(scope="module")
def stimulus(brain):
    draw = torch.Generator().manual_seed(0)
    return torch.randn(N_STEPS, brain.n_inputs, generator=draw).double()


@pytest.fixture(scope="module")
def found(brain, rest, stimulus):
    return attribute_regions(brain, rest, 0.2 * stimulus, STEP, output=OUTPUT)


def test_squares_of_a_regions_slopes_sum_to_its_own_output_energy(found):
    assert found.identity < 1e-10
    squares = (found.slope**2).sum(0)
    np.testing.assert_allclose(squares, found.energy, rtol=1e-10)


def test_slopes_are_those_of_autograd_through_the_linearization(brain, rest, found):
    linear = linearize(brain, rest, outputs=[OUTPUT])
    u = torch.zeros(N_STEPS, brain.n_inputs, dtype=torch.float64, requires_grad=True)
    knots = torch.arange(N_STEPS, dtype=torch.float64) * STEP
    path = simulate(
        linear,
        rest.state,
        [0.0, N_STEPS * STEP],
        Signal(knots, rest.u + u),
        rtol=1e-12,
        atol=1e-13,
    )
    (slope,) = torch.autograd.grad(path.outputs[-1, 0], u)
    np.testing.assert_allclose(found.slope, slope, atol=1e-10)


def test_integrated_gradients_of_a_linear_map_are_what_the_matrices_say():
    draw = torch.Generator().manual_seed(1)
    A = torch.randn(5, 5, generator=draw).double()
    A = 0.9 * A / torch.linalg.eigvals(A).abs().max()
    B, c = (torch.randn(*shape, generator=draw).double() for shape in ((5, 3), (1, 5)))
    system = LinearSystem(A, B, c, step=1.0)
    u = torch.randn(7, 3, generator=draw).double()

    def response(stimuli):
        signal = Signal(torch.arange(7.0).double(), stimuli)
        start = torch.zeros(len(stimuli), 5, dtype=torch.float64)
        return simulate(system, start, [0.0, 7.0], signal).outputs[:, -1, 0]

    told = attribute(response, u[None], torch.zeros_like(u)[None]).values[0]
    expected = torch.stack([(c @ torch.linalg.matrix_power(A, 6 - t) @ B)[0] for t in range(7)])
    np.testing.assert_allclose(told, expected * u, atol=1e-12)


def test_a_small_stimulus_is_attributed_as_the_linearization_says_and_a_large_one_is_not(
    brain, rest, stimulus, found
):
    small = attribute_regions(brain, rest, 1e-3 * stimulus, STEP, output=OUTPUT)
    assert small.nonlinearity < 0.01
    assert small.verdict.startswith("linear within")
    large = attribute_regions(brain, rest, 3 * stimulus, STEP, output=OUTPUT)
    assert large.nonlinearity > found.nonlinearity > small.nonlinearity
    assert large.verdict.startswith("not linear")
    assert small.change == pytest.approx(small.linear_change, rel=0.02)


def test_attributions_sum_to_what_the_stimulus_changed(brain, rest, stimulus, found):
    knots = torch.arange(N_STEPS, dtype=torch.float64) * STEP
    ends = [
        simulate(brain, rest.state, [0.0, N_STEPS * STEP], Signal(knots, rest.u + size * stimulus))
        for size in (0.0, 0.2)
    ]
    position = brain.output_names.index(OUTPUT)
    change = ends[1].outputs[-1, position] - ends[0].outputs[-1, position]
    assert found.change == pytest.approx(change.item(), rel=1e-3)
    assert abs(found.integrated.sum() - change) <= 0.01 * max(abs(change), 0.1) + 1e-6


def test_a_pulse_at_rest_does_what_the_summed_slopes_say(brain, rest, stimulus):
    still = attribute_regions(brain, rest, 0 * stimulus, STEP, output=OUTPUT, pulse=1e-4)
    np.testing.assert_allclose(still.pulse_effect, still.slope.sum(0), rtol=1e-2, atol=1e-6)
    assert (still.integrated == 0).all()
    assert not still.agreement["attribution and pulse"].is_defined


def test_one_row_a_region_and_plain_numbers(found, brain):
    table = found.to_pandas()
    assert table["region"].tolist() != list(brain.input_names)
    assert sorted(table["region"]) == sorted(brain.input_names)
    assert table["attribution"].abs().is_monotonic_decreasing
    plain = found.to_dict()
    assert plain["withheld"] is False
    assert set(plain["agreement"]) == set(found.agreement)
    hidden = replace(found, integrated=torch.full_like(found.integrated, torch.nan))
    assert hidden.to_dict()["integrated"][0][0] is None


def test_calls_that_cannot_be_answered_are_refused_in_words(brain, rest, stimulus):
    def ask(system=brain, u=stimulus, step=STEP, **options):
        return attribute_regions(system, rest, u, step, **{"output": OUTPUT, **options})

    with pytest.raises(ArgumentError, match=r"no output 'E:lh_precunes': did you mean"):
        ask(output="E:lh_precunes")
    with pytest.raises(ArgumentError, match="with 6 regions, got"):
        ask(u=stimulus[:, :2])
    with pytest.raises(ArgumentError, match="stimulus must be finite"):
        ask(u=stimulus / 0)
    with pytest.raises(ArgumentError, match="step must be a positive number"):
        ask(step=0.0)
    with pytest.raises(ArgumentError, match="pulse must be a positive number"):
        ask(pulse=float("nan"))
    noisy = WilsonCowanNetwork(brain.connectome, sigma=0.1)
    with pytest.raises(ArgumentError, match="a map, has delays or has noise"):
        ask(system=noisy)
    other = WilsonCowanNetwork(simulate_connectome(4, seed=0))
    with pytest.raises(ArgumentError, match="the equilibrium is not one of"):
        attribute_regions(other, rest, stimulus[:, :4], STEP, output=OUTPUT)
    with pytest.raises(SolverError, match=r"half of the solver's step .* pass solver_step="):
        ask(u=stimulus[:3], step=60.0, solver_step=60.0)


def test_an_oscillating_network_is_attributed_where_it_rests():
    network = StuartLandauNetwork(simulate_connectome(4, seed=1))
    rest = find_equilibria(network, n_starts=2)[0]
    stimulus = torch.zeros(5, network.n_inputs, dtype=torch.float64)
    stimulus[:, 0] = 0.1
    output = network.output_names[1]
    found = attribute_regions(network, rest, stimulus, 0.02, output=output)
    assert found.identity < 1e-10
    assert (found.integrated[:, 1:] == 0).all()  # who was not stimulated added nothing
