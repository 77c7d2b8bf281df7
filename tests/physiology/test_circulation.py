import numpy as np
import pint
import pytest
import torch

from clinode.dynamics import simulate
from clinode.physiology import Circulation, GlucoseMinimalModel
from clinode.system import Quantity, System

UNITS = pint.UnitRegistry()
HEALTHY = {  # textbook adult at rest: Guyton & Hall, Textbook of Medical Physiology
    "MAP": (85, 100),
    "HR": (60, 80),
    "CVP": (-1, 3),
    "cardiac_output": (4.5, 6),
    "urine": (40, 80),
    "Lactate": (0.5, 1.5),
    "Creatinine": (0.7, 1.2),
    "Temp": (36.5, 37.2),
}


def course(u, hours, x0=None, system=None):
    """Outputs by name at the given hours."""
    system = Circulation() if system is None else system
    x0 = system.initial_state() if x0 is None else x0
    found = simulate(system, x0, hours, u, method="rk4", step=0.1)
    return dict(zip(system.output_names, found.outputs.unbind(dim=-1), strict=True)), found


def resting_state():
    """The equilibrium without input, by Newton's method."""
    system, none = Circulation(), torch.zeros(3, dtype=torch.float64)
    x = system.initial_state()
    for _ in range(6):
        jacobian = torch.func.jacrev(lambda x: system.vector_field(0.0, x, none))(x)
        x = x - torch.linalg.solve(jacobian, system.vector_field(0.0, x, none))
    assert system.vector_field(0.0, x, none).abs().max() < 1e-9
    return x


def treatment(fluids=0.0, vasopressor=0.0, infection=0.0):
    return torch.tensor([fluids, vasopressor, infection], dtype=torch.float64)


def random_states(system: System, n=64):
    generator = torch.Generator().manual_seed(7)

    def draw(quantities: tuple[Quantity, ...]):
        bounds = torch.tensor([q.range for q in quantities], dtype=torch.float64)
        part = torch.rand(n, len(quantities), generator=generator, dtype=torch.float64)
        return bounds[:, 0] + part * (bounds[:, 1] - bounds[:, 0])

    return draw(system.states), draw(system.inputs)


def in_si(values: torch.Tensor, quantities) -> torch.Tensor:
    columns = [
        UNITS.Quantity(values[..., i].numpy(), quantity.unit).to_base_units().magnitude
        for i, quantity in enumerate(quantities)
    ]
    return torch.tensor(np.stack(columns, axis=-1))


@pytest.mark.parametrize("system", [Circulation(), GlucoseMinimalModel()])
def test_every_term_has_its_unit_so_the_equations_hold_in_si_units_too(system):
    x, u = random_states(system)
    constants = {q.name: in_si(getattr(system, q.name), [q]) for q in system.constants}
    converted = system.with_constants(**constants)
    rates = [Quantity(q.name, f"{q.unit}/{system.time_unit}") for q in system.states]
    expected = in_si(system.vector_field(0.0, x, u), rates)
    found = converted.vector_field(0.0, in_si(x, system.states), in_si(u, system.inputs))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-30)
    output = system.output(0.0, x, u)
    torch.testing.assert_close(
        converted.output(0.0, in_si(x, system.states), in_si(u, system.inputs)),
        in_si(output, system.outputs),
        rtol=1e-9,
        atol=1e-30,
    )


def test_a_healthy_adult_rests_at_textbook_values():
    system, none = Circulation(), torch.zeros(3, dtype=torch.float64)
    outputs = system.output(0.0, resting_state(), none).tolist()
    for name, value in zip(system.output_names, outputs, strict=True):
        low, high = HEALTHY[name]
        assert low < value < high, name
    # The defaults are that state, to a drop of blood.
    torch.testing.assert_close(system.initial_state(), resting_state(), rtol=0.05, atol=0.01)


def test_the_resting_state_is_stable():
    jacobian = torch.func.jacrev(
        lambda x: Circulation().vector_field(0.0, x, torch.zeros(3).double())
    )(resting_state())
    assert torch.linalg.eigvals(jacobian).real.max() < 0


def test_water_is_conserved():
    x, u = random_states(Circulation())
    system = Circulation()
    rate = system.vector_field(0.0, x, u)
    flow = system.hemodynamics(x, u)
    balance = system.intake + u[:, :1] - flow.urine
    torch.testing.assert_close(rate[:, 0:1] + rate[:, 1:2], balance)


def test_flow_lies_on_the_venous_return_and_the_cardiac_function_curve():
    system = Circulation()
    x, u = random_states(system)
    u[:, 1] = 0.0
    flow = system.hemodynamics(x, u)
    V, S, J = x[:, 0:1], x[:, 2:3], x[:, 3:4]
    unstressed = 3600 * (1 - 0.25 * (S - 0.25) + 0.05 * J)
    venous_return = ((V - unstressed) / 200 - flow.CVP) / 1.4
    torch.testing.assert_close(venous_return, flow.cardiac_output)
    cardiac_function = 1.25 * (1 + 0.8 * (S - 0.25)) / (1 + 0.2 * J) * (flow.CVP + 4)
    torch.testing.assert_close(cardiac_function, flow.cardiac_output)
    resistance = (10 + 34 * S) / (1 + 0.7 * J)
    torch.testing.assert_close(flow.MAP - flow.CVP, flow.cardiac_output * resistance)


def test_inflammation_matches_its_closed_form():
    _, found = course(treatment(infection=0.2), [0.0, 5.0, 20.0])
    expected = 0.2 * 12 * (1 - torch.exp(-torch.tensor([0.0, 5.0, 20.0]).double() / 12))
    torch.testing.assert_close(found.states[:, 3], expected, rtol=1e-6, atol=1e-9)


def test_sepsis_takes_its_course():
    outputs, _ = course(treatment(infection=0.25), [0.0, 12.0, 24.0])
    assert outputs["MAP"][0] > 85
    assert outputs["MAP"][1] < 70
    assert outputs["HR"][1] > 110
    assert outputs["Lactate"][2] > 3
    assert outputs["Temp"][1] > 38
    assert outputs["urine"][1] < 30
    assert outputs["Creatinine"][2] > 1.05 * outputs["Creatinine"][0]


def test_fluids_and_norepinephrine_raise_the_pressure_of_a_septic_patient():
    septic = course(treatment(infection=0.25), [0.0, 18.0])[1].states[-1]
    hours = [0.0, 2.0]
    none = course(treatment(infection=0.25), hours, septic)[0]
    fluid = course(treatment(fluids=1000.0, infection=0.25), hours, septic)[0]
    pressor = course(treatment(vasopressor=0.2, infection=0.25), hours, septic)[0]
    assert fluid["MAP"][1] > none["MAP"][1] + 5
    assert pressor["MAP"][1] > none["MAP"][1] + 5
    assert fluid["CVP"][1] > none["CVP"][1] + 0.5  # fluids fill, norepinephrine squeezes
    assert fluid["cardiac_output"][1] > pressor["cardiac_output"][1]
    assert pressor["HR"][1] < none["HR"][1]
    assert fluid["Lactate"][1] < none["Lactate"][1]


def test_half_of_an_excess_of_blood_volume_leaves_the_vessels_within_an_hour():
    x0 = resting_state()
    x0[0] += 1000
    _, found = course(0.0, [0.0, 1.0], x0)
    left = (found.states[1, 0] - 5000) / 1000
    assert 0.35 < left < 0.65


def test_blood_loss_calls_for_tachycardia_and_is_refilled_from_the_tissue():
    x0 = resting_state()
    x0[0] -= 1000
    outputs, found = course(0.0, [0.0, 0.5, 6.0], x0)
    assert outputs["MAP"][0] < 60  # before the reflex acts
    assert outputs["MAP"][1] > 75
    assert outputs["HR"][1] > 80
    assert found.states[2, 0] > found.states[0, 0] + 500
    assert found.states[2, 1] < found.states[0, 1] - 300


def test_ten_minute_steps_are_enough_under_changing_treatment():
    from clinode.system import Signal

    values = torch.stack(
        [
            treatment(infection=0.25),
            treatment(1000.0, 0.0, 0.25),
            treatment(0.0, 0.3, 0.25),
            treatment(0.0, 0.05, 0.1),
        ]
    )
    signal = Signal([0.0, 3.0, 4.0, 6.0], values)
    hours, system = [0.0, 3.0, 4.0, 5.0, 8.0], Circulation()
    x0 = system.initial_state()
    coarse = simulate(system, x0, hours, signal, method="rk4", step=1 / 6)
    exact = simulate(system, x0, hours, signal, rtol=1e-9, atol=1e-9)
    assert (coarse.outputs[:, 0] - exact.outputs[:, 0]).abs().max() < 0.05  # mmHg


def test_a_batch_of_constants_is_a_batch_of_patients():
    stiff = torch.tensor([[0.8], [1.25], [1.6]]).double()
    together = course(treatment(infection=0.2), [0.0, 6.0], system=Circulation(contractility=stiff))
    alone = course(treatment(infection=0.2), [0.0, 6.0], system=Circulation(contractility=0.8))
    torch.testing.assert_close(together[1].states[0], alone[1].states)
    assert (together[0]["cardiac_output"][:, -1].diff() > 0).all()
