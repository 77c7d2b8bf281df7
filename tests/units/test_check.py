import importlib.util
import inspect
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from clinode.physiology import Circulation, GlucoseMinimalModel
from clinode.system import (
    Delay,
    DiscreteSystem,
    Event,
    LinearSystem,
    Quantity,
    System,
    parse_unit,
)
from clinode.units import UnitError, check_dimensions

spec = importlib.util.spec_from_file_location("models", Path(__file__).with_name("models.py"))
assert spec is not None
assert spec.loader is not None
models = importlib.util.module_from_spec(spec)
spec.loader.exec_module(models)
MorrisLecar, Network = models.MorrisLecar, models.Network

WRITTEN_DOWN = [MorrisLecar, Circulation, GlucoseMinimalModel]
SMALLER = {"mS/cm^2": "nS/cm^2", "mV": "V", "ms": "s", "uF/cm^2": "pF/cm^2", "1/ms": "1/s"}


def mutated(model, name, unit):
    """The class with one constant in another unit."""
    changed = [replace(q, unit=unit) if q.name == name else q for q in model.constants]
    return type(model.__name__, (model,), {"constants": tuple(changed)})


SWAPS = [
    pytest.param(model, q.name, SMALLER.get(q.unit, f"{q.unit}*%"), id=f"{model.__name__}-{q.name}")
    for model in WRITTEN_DOWN
    for q in model.constants
]


@pytest.mark.parametrize("model", WRITTEN_DOWN)
def test_systems_as_they_were_written_down_agree_in_their_units(model):
    check_dimensions(model())


@pytest.mark.parametrize(("model", "name", "unit"), SWAPS)
def test_a_constant_in_a_unit_of_another_size_is_refused_and_named(model, name, unit):
    with pytest.raises(UnitError) as refusal:
        check_dimensions(mutated(model, name, unit)())
    assert name in refusal.value.problem


@pytest.mark.parametrize("name", [q.name for q in MorrisLecar.constants])
def test_a_constant_of_another_dimension_is_refused_and_named(name):
    with pytest.raises(UnitError, match=rf"{name}\b.*another dimension|{name}\b.*has a dimension"):
        check_dimensions(mutated(MorrisLecar, name, "kg")())


def leak(self, V):
    return self.g_L * (V - self.E_L)


FIELDS = {
    "a missing 1/C": (
        lambda s, t, V, w, u: (u - leak(s, V), s.phi * w),
        r"rate of V.*must be in mV/ms, and `I - g_L \* \(V - E_L\)` is in uA/cm\^2",
    ),
    "a 1/C too many": (
        lambda s, t, V, w, u: ((u - leak(s, V)) / s.C / s.C, s.phi * w),
        r"`\(I - g_L \* \(V - E_L\)\) / C / C`",
    ),
    "C in one term only": (
        lambda s, t, V, w, u: (u - leak(s, V) / s.C, s.phi * w),
        r"`g_L \* \(V - E_L\) / C` is in .* against `I` in uA/cm\^2",
    ),
    "a conductance forgotten": (
        lambda s, t, V, w, u: ((u - (V - s.E_L)) / s.C, s.phi * w),
        r"`V - E_L` is in mV against `I`",
    ),
    "a driving force forgotten": (
        lambda s, t, V, w, u: ((u - s.g_L) / s.C, s.phi * w),
        r"`g_L` is in mS/cm\^2 against `I`",
    ),
    "a squared voltage": (
        lambda s, t, V, w, u: ((u - s.g_L * (V - s.E_L) ** 2) / s.C, s.phi * w),
        r"`g_L \* \(V - E_L\)\*\*2`",
    ),
    "an exponential of a voltage": (
        lambda s, t, V, w, u: ((u - leak(s, V)) / s.C, s.phi * torch.exp(V)),
        r"`V` in exp\(...\) has a dimension: it is in mV",
    ),
    "a bare number added to a voltage": (
        lambda s, t, V, w, u: ((u - s.g_L * (V + 60.0)) / s.C, s.phi * w),
        r"`60` is in 1 against `V` in mV",
    ),
    "a rate without its time": (
        lambda s, t, V, w, u: ((u - leak(s, V)) / s.C, -w),
        r"rate of w must be in 1/ms, and `-w` is in 1: another dimension",
    ),
    "a current added to a conductance": (
        lambda s, t, V, w, u: ((u - (s.g_L + u) * (V - s.E_L)) / s.C, s.phi * w),
        r"`I` is in uA/cm\^2 against `g_L` in mS/cm\^2",
    ),
    "states compared with each other": (
        lambda s, t, V, w, u: (torch.where(V > w, u, 0 * u) / s.C, s.phi * w),
        r"`w` is in 1 against `V`",
    ),
    "states swapped": (
        lambda s, t, V, w, u: (s.phi * w, (u - leak(s, V)) / s.C),
        r"rate of V must be in mV/ms, and `phi \* w` is in 1/ms",
    ),
    "time without a rate": (
        lambda s, t, V, w, u: ((u * torch.sin(t) - leak(s, V)) / s.C, s.phi * w),
        r"`t` in sin\(...\)",
    ),
    "a bound without a unit": (
        lambda s, t, V, w, u: ((u - leak(s, V.clamp(max=50.0))) / s.C, s.phi * w),
        r"`50` is in 1 against `V`",
    ),
    "a sum over unlike states": (
        lambda s, t, V, w, u: (
            (u - s.g_L * torch.cat([V, w], -1).sum(-1, keepdim=True)) / s.C,
            s.phi * w,
        ),
        r"`w` is in 1 against `V` in mV",
    ),
    "a state as a plain number": (
        lambda s, t, V, w, u: (u / s.C * math.exp(V), s.phi * w),
        r"`V` in __float__",
    ),
}


@pytest.mark.parametrize("mutation", FIELDS)
def test_a_mistake_in_the_equations_is_refused_and_the_term_named(mutation):
    field, words = FIELDS[mutation]

    def vector_field(self, t, x, u):
        V, w = self.split(x).values()
        dV, dw = field(self, t, V, w, u)
        return self.join(V=dV, w=dw)

    broken = type("Broken", (MorrisLecar,), {"vector_field": vector_field})
    with pytest.raises(UnitError, match=words):
        check_dimensions(broken())


@pytest.mark.parametrize("model", WRITTEN_DOWN)
@pytest.mark.parametrize("seed", range(3))
def test_a_system_that_passes_is_the_same_in_any_other_units(model, seed):
    """The definition of homogeneity: measure in other base units, and only the numbers change."""
    generator = torch.Generator().manual_seed(seed)
    system = model()
    scale_of = {}

    def scale(unit, per=None):
        total = 1.0
        for base, power in (unit / per if per else unit).dimension:
            if base not in scale_of:
                scale_of[base] = 0.5 + 1.5 * torch.rand((), generator=generator).item()
            total *= scale_of[base] ** float(power)
        return total

    def scales(quantities, per=None):
        return torch.tensor(
            [scale(parse_unit(q.unit), per) for q in quantities for _ in q.names],
            dtype=torch.float64,
        )

    x = system.initial_state() * (1 + 0.1 * torch.rand(system.n_states, generator=generator))
    u = torch.rand(system.n_inputs, generator=generator).double()
    changed = {
        q.name: getattr(system, q.name) * scale(parse_unit(q.unit)) for q in system.constants
    }
    time = parse_unit(system.time_unit)
    rate = system(0.0, x, u)
    other = system.with_constants(**changed)(
        0.0, x * scales(system.states), u * scales(system.inputs)
    )
    torch.testing.assert_close(other, rate * scales(system.states, time), rtol=1e-10, atol=1e-10)


def test_guard_reset_refractory_time_noise_and_output_are_checked_too():
    def broken(**attributes):
        return type("Broken", (MorrisLecar,), attributes)()

    cases = [
        (
            {"events": (Event("spike", lambda s, t, x: x[..., :1] - s.g_L),)},
            r"guard of 'spike' of Broken.*`g_L`",
        ),
        (
            {
                "events": (
                    Event(
                        "spike",
                        lambda s, t, x: x[..., :1] - s.V_th,
                        lambda s, x: s.join(V=s.phi, w=x[..., 1:]),
                    ),
                )
            },
            r"reset of 'spike' of Broken: V after the event must be in mV, and `phi` is in 1/ms",
        ),
        (
            {"events": (Event("spike", lambda s, t, x: x[..., :1] - s.V_th, refractory="phi"),)},
            r"the refractory time must be in ms, and `phi` is in 1/ms",
        ),
        (
            {"noise": lambda s, t, x, u: s.join(V=s.phi * s.V1, w=s.phi)},
            r"the noise of V must be in mV/ms\^\(1/2\)",
        ),
        (
            {
                "outputs": (Quantity("current", "nA/cm^2"),),
                "output": lambda s, t, x, u: s.g_L * (x[..., :1] - s.E_L),
            },
            r"the output current must be in nA/cm\^2.*a factor of 1000 is missing",
        ),
    ]
    for attributes, words in cases:
        with pytest.raises(UnitError, match=words):
            check_dimensions(broken(**attributes))


def test_noise_with_its_own_axis_is_checked_column_by_column():
    class Wiener(System):
        time_unit = "s"
        states = (Quantity("a", "m"), Quantity("b", "kg"))
        constants = (Quantity("s", "m/s**0.5"), Quantity("r", "kg/s**0.5"))

        def __init__(self):
            super().__init__()
            self.register_constants(s=1.0, r=2.0)

        def vector_field(self, t, x, u):
            return torch.zeros_like(x)

        def noise(self, t, x, u):
            rows = [[self.s, 0 * self.s, self.s], [self.r, self.r, 0 * self.r]]
            return torch.stack([torch.cat(row, -1) for row in rows], dim=-2)

    check_dimensions(Wiener())
    swapped = Wiener
    swapped.constants = (Quantity("s", "kg/s**0.5"), Quantity("r", "kg/s**0.5"))
    with pytest.raises(UnitError, match="noise of a"):
        check_dimensions(swapped())


def test_blocks_joined_and_multiplied_with_a_connectome_are_checked():
    W = torch.rand(5, 5) * (torch.rand(5, 5) > 0.5)
    check_dimensions(Network(W))
    with pytest.raises(UnitError, match=r"`.*W.*E_max.*|.*E.*kHz"):
        check_dimensions(Network(W, unit="kHz"))


def test_a_batch_of_constants_is_checked_like_one():
    check_dimensions(MorrisLecar(g_K=torch.rand(3, 1, 1), E_K=torch.rand(7, 1)))


def test_a_linear_system_has_the_units_that_its_places_ask_for():
    states = [Quantity("V", "mV"), Quantity("w", "pA")]
    inputs, outputs = [Quantity("I", "pA")], [Quantity("rate", "Hz")]
    arguments = {"states": states, "inputs": inputs, "outputs": outputs, "time_unit": "ms"}
    A, B, C = torch.rand(4, 2, 2), torch.rand(2, 1), torch.rand(1, 2)
    check_dimensions(LinearSystem(A, B, C, **arguments))
    check_dimensions(LinearSystem(A, B, C, step=2.0, offset=([0, 0], [0]), **arguments))


def test_a_learned_system_passes_whatever_the_units_of_what_it_reads_out():
    class Learned(System):
        latent = True
        time_unit = "h"
        states = (Quantity("z1", "1"), Quantity("z2", "1"))
        inputs = (Quantity("dose", "mEq/L"),)
        outputs = (Quantity("Lactate", "mmol/L"), Quantity("K", "mEq/L"))

        def __init__(self):
            super().__init__()
            self.flow = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
            self.register_buffer("C", torch.rand(2, 2).double())

        def vector_field(self, t, x, u):
            batch = torch.broadcast_shapes(x.shape[:-1], u.shape[:-1])
            both = [x.expand(*batch, 2), u.expand(*batch, 1)]
            return self.flow(torch.cat(both, dim=-1))

        def output(self, t, x, u):
            return torch.exp(x @ self.C.T)

    check_dimensions(Learned())
    outputs = (Quantity("Lactate", "mmol/L"), Quantity("K", "1"))
    written = {"latent": False, "inputs": (Quantity("dose", "1"),), "outputs": outputs}
    with pytest.raises(UnitError, match=r"the output Lactate must be in mmol/l, and `exp\(z1 @ C"):
        check_dimensions(type("Written", (Learned,), written)())


def test_delays_are_times_and_the_past_has_the_units_of_the_state():
    class Delayed(System):
        time_unit = "ms"
        states = (Quantity("E", "Hz", labels=("a", "b")),)
        constants = (Quantity("tau", "ms"),)
        delays = (Delay("E", "travel"),)

        def __init__(self):
            super().__init__()
            self.register_buffer("travel", torch.rand(2, 2).double())
            self.register_constants(tau=10.0)

        def vector_field(self, t, x, u, past):  # pyright: ignore[reportIncompatibleMethodOverride]
            return (past["E"].mean(-1) - x) / self.tau

    check_dimensions(Delayed())

    class Broken(Delayed):
        def vector_field(self, t, x, u, past):  # pyright: ignore[reportIncompatibleMethodOverride]
            return (past["E"].mean(-1) - self.travel[0]) / self.tau

    with pytest.raises(UnitError, match=r"`travel` is in ms against `mean\(E\)` in Hz"):
        check_dimensions(Broken())


def test_a_map_is_checked_by_its_next_state():
    class Growth(DiscreteSystem):
        time_unit = "d"
        states = (Quantity("N", "1/mL"),)
        constants = (Quantity("K", "1/mL"), Quantity("r", "1"))

        def __init__(self):
            super().__init__()
            self.register_constants(K=1e6, r=0.5)

        def next_state(self, k, x, u):
            return x + self.r * x * (1 - x / self.K)

    check_dimensions(Growth())
    with pytest.raises(UnitError, match="K"):
        check_dimensions(mutated(Growth, "K", "1/L")())


def test_a_unit_or_an_operation_that_is_not_known_is_said_in_words():
    with pytest.raises(UnitError, match="'C': pint knows no unit 'uFF'"):
        check_dimensions(mutated(MorrisLecar, "C", "uFF/cm^2")())

    def vector_field(self, t, x, u):
        return torch.linalg.solve(torch.eye(2).double() * self.phi, x)

    broken = type("Broken", (MorrisLecar,), {"vector_field": vector_field})
    with pytest.raises(UnitError, match=r"torch's 'linalg_solve' is an operation"):
        check_dimensions(broken())


def test_at_least_thirty_mutations_are_tried():
    assert len(SWAPS) + len(FIELDS) >= 30
    assert inspect.signature(check_dimensions).parameters["t"].default == 0.0
