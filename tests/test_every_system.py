"""What holds for every system that the package has, those included that nobody thought of here.

Classes are found by themselves; one without an entry below fails with words that say what to do.
"""

import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, jacfwd, jacrev, jvp, vmap

import clinode
from clinode import behavior, brain, control, physiology
from clinode.brain import networks
from clinode.brain.bold import BalloonWindkessel
from clinode.brain.lead_field import LeadFieldReadout
from clinode.brain.postsynaptic import HeldVoltage
from clinode.cohort import Forecast, Preprocessor
from clinode.control.feedback.belief import BeliefPolicy
from clinode.control.feedback.sampling import Sampled
from clinode.dynamics.sensitivity import Variational
from clinode.sequence.coupling import CouplingMap
from clinode.sequence.flow_system import FlowLatentSystem
from clinode.sequence.gated_system import GatedLatentSystem
from clinode.sequence.latent_system import BoundedLatentSystem, LinearLatentSystem
from clinode.sequence.network import RateNetwork
from clinode.sequence.network.rate_network import WEIGHTS
from clinode.sequence.noisy_system import NoisyLatentSystem
from clinode.system import LinearSystem, System, clamp, intervene
from clinode.system.hybrid import present
from clinode.units import check_dimensions

double = functools.partial(torch.tensor, dtype=torch.float64)


@dataclass(frozen=True)
class Entry:
    """How a small one is made, and what does not apply to it.

    Attributes:
        make: Gives an instance.
        published: Whether somebody else wrote the equations down first: then a year is cited.
        ranged: Whether its quantities have ranges and defaults; those of matrices have none.
        has_units: Whether they have units; sensitivities are of all units at once.
    """

    make: Callable[[], System]
    published: bool = True
    ranged: bool = True
    has_units: bool = True


def seeded(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@functools.cache
def schema() -> Preprocessor:
    return Preprocessor.fit(physiology.simulate_cohort(20, seed=0), Forecast(6.0))


def learned_layers(n_own: int) -> dict:
    """The parts that nonlinear latent systems share: four own states beside the memory."""
    n_variables, n_inputs = len(schema().scale), len(schema().input_scale)
    decoder = torch.nn.Linear(n_own + n_variables, n_variables).double()
    torch.nn.init.constant_(decoder.weight, 0.1)
    torch.nn.init.zeros_(decoder.bias)
    edge = torch.ones(n_own + n_variables).double()
    return {
        "B": seeded(n_own, n_inputs),
        "d": torch.full((n_variables,), 0.1).double(),
        "decoder": decoder,
        "low": -edge,
        "high": edge,
        "schema": schema(),
    }


def layer(n_in: int, n_out: int) -> torch.nn.Linear:
    made = torch.nn.Linear(n_in, n_out).double()
    made.weight.data, made.bias.data = seeded(n_out, n_in), seeded(n_out)
    return made


def learned_matrices() -> dict[str, Tensor | Preprocessor]:
    n_variables, n_inputs = len(schema().scale), len(schema().input_scale)
    return {
        "B": seeded(3, n_inputs),
        "C": seeded(n_variables, 3),
        "c": seeded(n_variables),
        "low": double([-1.0, -1, -1]),
        "high": double([1.0, 1, 1]),
        "schema": schema(),
    }


PATTERNS = [[1.0, -1, 1, -1, 1, 1], [1.0, 1, -1, -1, -1, 1]]
SYMMETRIC = (seeded(5, 5) + seeded(5, 5).T).fill_diagonal_(0)

SMALL_BRAIN = brain.simulate_connectome(8, seed=0)
NETWORKS = (
    networks.EpileptorNetwork,
    networks.JansenRitNetwork,
    networks.KuramotoNetwork,
    networks.ReducedWongWangNetwork,
    networks.SaturatingRateNetwork,
    networks.StuartLandauNetwork,
    networks.WilsonCowanNetwork,
)

LOOKED_UP = {"published": False, "ranged": False, "has_units": False}  # tables of gains over time


def regulated() -> control.ControlProblem:
    return control.ControlProblem(
        LinearSystem([[0.9]], [[1.0]], step=1),
        1.0,
        0.5,
        process_noise=0.2,
        sensor_noise=4.0,
        initial_covariance=1.0,
        horizon=3,
    )


def policy(solve: Callable[..., Any]) -> System:
    return solve(regulated()).policy


ENTRIES: dict[str, Entry] = {
    # neurons and synapses
    "LIF": Entry(brain.LIF),
    "NoisyLIF": Entry(brain.NoisyLIF),
    "Theta": Entry(brain.Theta),
    "AdaptiveLinear": Entry(brain.AdaptiveLinear),
    "AdEx": Entry(brain.AdEx),
    "Izhikevich": Entry(brain.Izhikevich),
    "FitzHughNagumo": Entry(brain.FitzHughNagumo),
    "MorrisLecar": Entry(brain.MorrisLecar),
    "HodgkinHuxley": Entry(brain.HodgkinHuxley),
    "ExponentialSynapse": Entry(brain.ExponentialSynapse),
    "AlphaSynapse": Entry(brain.AlphaSynapse),
    "DualExponentialSynapse": Entry(brain.DualExponentialSynapse),
    "NMDASynapse": Entry(brain.NMDASynapse),
    "FluctuatingConductance": Entry(brain.FluctuatingConductance),
    "ShortTermPlasticity": Entry(brain.ShortTermPlasticity),
    # circuits, memories, populations, seizures, networks
    "LateralInhibition": Entry(lambda: brain.LateralInhibition(n=3)),
    "WinnerTakeAll": Entry(brain.WinnerTakeAll),
    "LateralInhibitionField": Entry(lambda: brain.LateralInhibitionField(n=8)),
    "WongWang": Entry(brain.WongWang),
    "NoisyWongWang": Entry(brain.NoisyWongWang),
    "RingAttractor": Entry(lambda: brain.RingAttractor(n=8)),
    "Hopfield": Entry(lambda: brain.Hopfield.store(PATTERNS)),
    "GradedHopfield": Entry(lambda: brain.GradedHopfield(SYMMETRIC)),
    "ModernHopfield": Entry(lambda: brain.ModernHopfield(PATTERNS)),
    "WilsonCowan": Entry(brain.WilsonCowan),
    "JansenRit": Entry(brain.JansenRit),
    "ThetaPopulation": Entry(brain.ThetaPopulation),
    "SNICOscillator": Entry(brain.SNICOscillator),
    "Epileptor": Entry(brain.Epileptor),
    "Wendling": Entry(brain.Wendling),
    **{kind.__name__: Entry(functools.partial(kind, SMALL_BRAIN)) for kind in NETWORKS},
    "BalloonWindkessel": Entry(lambda: BalloonWindkessel(("left", "right"))),
    "LeadFieldReadout": Entry(
        lambda: LeadFieldReadout(
            networks.JansenRitNetwork(SMALL_BRAIN), seeded(3, 8), ("Fz", "Cz", "Pz"), source="EEG"
        ),
        published=False,
    ),
    "TwoLinkArm": Entry(brain.TwoLinkArm),
    # controllers and what they control
    "Sampled": Entry(lambda: Sampled(brain.WilsonCowan(), 1.0)),
    "ScheduledGain": Entry(lambda: policy(control.lqr), **LOOKED_UP),
    "ScheduledEstimator": Entry(lambda: policy(control.lqg), **LOOKED_UP),
    "BeliefPolicy": Entry(
        lambda: BeliefPolicy(regulated(), lambda k, belief: -0.5 * belief[..., :1]),
        ranged=False,
        has_units=False,
    ),
    "PredictivePolicy": Entry(
        lambda: policy(control.model_predictive), ranged=False, has_units=False
    ),
    # patients
    "Circulation": Entry(physiology.Circulation),
    "GlucoseMinimalModel": Entry(physiology.GlucoseMinimalModel),
    # whatever somebody else says it is
    "LinearSystem": Entry(
        lambda: LinearSystem(-torch.eye(2).double(), seeded(2, 1), seeded(1, 2)),
        published=False,
        ranged=False,
    ),
    "HeldVoltage": Entry(HeldVoltage, published=False),
    "Variational": Entry(
        lambda: Variational(brain.LIF(), ("g_L",)), published=False, ranged=False, has_units=False
    ),
    "Connected": Entry(
        lambda: brain.conductance_input(brain.LIF(), brain.NMDASynapse()), published=False
    ),
    "Intervened": Entry(lambda: intervene(brain.MorrisLecar(), clamp("V", -30.0)), published=False),
    "LinearLatentSystem": Entry(
        lambda: LinearLatentSystem(A=-torch.eye(3).double(), **learned_matrices()),
        published=False,
    ),
    "BoundedLatentSystem": Entry(
        lambda: BoundedLatentSystem(
            a=double([1.0, 2, 3]), W=seeded(3, 4), U=seeded(4, 3), b=seeded(4), **learned_matrices()
        ),
        published=False,
    ),
    "NoisyLatentSystem": Entry(
        lambda: NoisyLatentSystem(
            BoundedLatentSystem(
                a=double([1.0, 2, 3]),
                W=seeded(3, 4),
                U=seeded(4, 3),
                b=seeded(4),
                **learned_matrices(),
            ),
            double([0.1, 0.2, 0.0]),
        ),
        published=False,
    ),
    "GatedLatentSystem": Entry(
        lambda: GatedLatentSystem(
            a=double([1.0, 2, 3, 4]), hold=layer(4, 4), aim=layer(4, 4), **learned_layers(4)
        ),
        published=False,
    ),
    "FlowLatentSystem": Entry(
        lambda: FlowLatentSystem(
            decay=double([0.5, 2.0]),
            frequency=double([0.0, 1.0]),
            map=CouplingMap(4, 3, torch.Generator().manual_seed(0)),
            **learned_layers(4),
        ),
        published=False,
    ),
    "ThreeFactorSynapse": Entry(behavior.ThreeFactorSynapse),
    "RateNetwork": Entry(lambda: rate_network(), published=False),
    "BennaFusi": Entry(lambda: brain.BennaFusi(m=4)),
    "Wiener": Entry(lambda: behavior.Wiener(leak=0.5)),
}


def rate_network() -> RateNetwork:
    """Two regions, one of them stimulated."""
    shapes = {"W": (2, 2), "inward": (3, 4), "own": (2, 4), "outward": (4, 2)}
    weights = {name: 0.3 * seeded(*shapes.get(name, (2,))) for name in WEIGHTS}
    weights |= {"tau": double([0.05, 0.06]), "tau_h": double([0.04, 0.03])}
    return RateNetwork(
        weights,
        center=double([1.0, 2.0]),
        spread=double([0.5, 2.0]),
        input_scale=0.5,
        regions=("left", "right"),
        stimulated=("right",),
        unit="Hz",
    )


def found() -> Iterator[type[System]]:
    """Every concrete System class of the package."""
    for module in pkgutil.walk_packages(clinode.__path__, "clinode."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    classes = [System]
    for kind in classes:
        classes.extend(kind.__subclasses__())
    for kind in dict.fromkeys(classes):
        if kind.__module__.startswith("clinode.") and not inspect.isabstract(kind):
            yield kind


KINDS = {kind.__name__: kind for kind in found()}


@pytest.fixture(params=sorted(ENTRIES), scope="module")
def entry(request) -> Entry:
    return ENTRIES[request.param]


@pytest.fixture
def system(entry) -> System:
    return entry.make()


def samples(system: System, n: int = 64, seed: int = 1) -> tuple[Tensor, Tensor]:
    """States and inputs across their ranges, both ends included; (n, ...)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for quantities in (system.states, system.inputs):
        low, high = [], []
        for quantity in quantities:
            bounds = quantity.range or (-1.0, 1.0)
            low += [bounds[0]] * quantity.size
            high += [bounds[1]] * quantity.size
        part = torch.rand(n, len(low), generator=generator, dtype=torch.float64)
        part[0], part[1] = 0, 1
        if len(low):
            part[2:10] = part[2:10].round()  # corners
        drawn.append(double(low) + (double(high) - double(low)) * part)
    return drawn[0], drawn[1]


def rates(system: System, x: Tensor, u: Tensor, constants: dict[str, Tensor] | None = None):
    """The field, or of a map the next state, with some constants swapped."""
    past = (present(system, x),) if system.delays else ()
    return functional_call(system, constants or {}, (0.0, x, u, *past))


def constants_of(system: System) -> dict[str, Tensor]:
    return {quantity.name: getattr(system, quantity.name) for quantity in system.constants}


def test_every_system_of_the_package_is_examined_here():
    unknown = sorted(set(KINDS) - set(ENTRIES))
    assert not unknown, (
        f"no entry in ENTRIES of {__file__} for {', '.join(unknown)}: add a line that makes a "
        "small one, so that it is held to what every system promises"
    )
    gone = sorted(set(ENTRIES) - set(KINDS))
    assert not gone, f"ENTRIES names {', '.join(gone)}, which the package has no more"


def test_no_final_class_has_a_subclass():
    heirs = [heir for kind in KINDS.values() for heir in kind.__subclasses__()]
    assert not [heir for heir in heirs if heir.__module__.startswith("clinode.")]


def test_its_units_agree(entry, system):
    if not entry.has_units:
        pytest.skip("it has no units")
    check_dimensions(system)


def test_every_state_and_input_has_a_range_and_every_state_a_default(entry, system):
    if not entry.ranged:
        pytest.skip("its quantities are whatever the caller says")
    without = [q.name for q in (*system.states, *system.inputs) if q.range is None]
    assert not without, f"no range: {without}"
    if not system.latent:
        assert system.initial_state().isfinite().all()


def test_its_docstring_says_where_the_equations_are_from(entry, system):
    text = inspect.getdoc(type(system)) or ""
    assert len(text.splitlines()[0]) > 10
    if entry.published:
        text += inspect.getmodule(type(system)).__doc__ or ""
        assert re.search(r"\b(1[89]|20)\d\d\b", text), "no source with its year in the docstring"


def test_it_is_finite_over_its_ranges_with_finite_gradients(system):
    x, u = samples(system, 256)
    tensors = {n: c.clone().requires_grad_() for n, c in constants_of(system).items()}
    x.requires_grad_()
    u.requires_grad_()
    value = rates(system, x, u, tensors)
    assert value.shape == x.shape
    assert value.isfinite().all()
    read = system.output(0.0, x, u)
    assert read.shape[-1] == system.n_outputs
    assert read.isfinite().all()
    if value.requires_grad:
        total = value.sum() + read.sum()
        asked = [x, u, *tensors.values()]
        for gradient in torch.autograd.grad(total, asked, allow_unused=True):
            assert gradient is None or gradient.isfinite().all()


def test_a_batch_of_constants_is_what_its_members_are_one_by_one(system):
    stored = constants_of(system)
    if not stored:
        pytest.skip("it has no constants")
    generator = torch.Generator().manual_seed(2)
    batch = {}
    for name, value in stored.items():
        factor = torch.rand(3, value.shape[-1], generator=generator, dtype=torch.float64)
        batch[name] = value * (0.95 + 0.1 * factor)
    x, u = samples(system, 3, seed=3)
    both = system.with_constants(**batch)
    together, read = rates(both, x, u), both.output(0.0, x, u)
    for i in range(3):
        one = system.with_constants(**{name: value[i] for name, value in batch.items()})
        torch.testing.assert_close(rates(one, x[i], u[i]), together[i], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(one.output(0.0, x[i], u[i]), read[i], rtol=1e-12, atol=1e-12)


def test_a_state_has_the_same_rate_in_any_batch(system):
    x, u = samples(system, 6)
    together = rates(system, x.view(2, 3, -1), u.view(2, 3, -1)).view(6, -1)
    alone = torch.stack([rates(system, x[i], u[i]) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_its_jacobians_forward_and_reverse_agree_with_directional_derivatives(system):
    if not system.n_states:
        pytest.skip("it has no states")
    x, u = samples(system, 16)
    direction = torch.randn(
        x.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )

    def field(x, u):
        return rates(system, x, u)

    along = torch.stack([jvp(lambda z, i=i: field(z, u[i]), (x[i],), (d,))[1]
                         for i, d in enumerate(direction)])  # fmt: skip
    for jacobian in (jacfwd, jacrev):
        J = vmap(jacobian(field))(x, u)
        product = torch.einsum("bij,bj->bi", J, direction)
        scale = (J.abs() @ direction.abs().unsqueeze(-1)).squeeze(-1)
        rounding = 1e-13 * J.abs().amax((-2, -1)).unsqueeze(-1)
        assert ((product - along).abs() <= 1e-11 * scale + rounding).all()


def test_in_single_precision_it_gives_the_same_rates(system):
    x, u = samples(system, 32)
    expected = rates(system, x, u)
    single = system.float()
    if list(single.buffers()):  # without constants it has the dtype of what it is given
        assert single.dtype == torch.float32
    found = rates(single, x.float(), u.float())
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    scale = expected.abs().amax(0)
    assert ((found - expected).abs() <= 1e-4 * scale + 1e-30).all()


def test_splitting_and_joining_the_state_changes_nothing(system):
    x, u = samples(system, 5)
    if system.n_states:
        assert torch.equal(system.join(**system.split(x)), x)
    if system.n_inputs:
        blocks = system.split(u, system.inputs)
        assert torch.equal(system.join(system.inputs, **blocks), u)


def test_its_events_and_noise_have_the_shapes_that_a_solver_expects(system):
    x, u = samples(system, 4)
    for event in system.events:
        assert event.guard(system, 0.0, x).shape == (4, 1)
        if event.reset is not None:
            after = event.reset(system, x)
            assert after.shape == x.shape
            assert after.isfinite().all()
            # a reset that lands where it would fire again at once never ends
            assert (event.guard(system, 0.0, after) * event.direction <= 0).all()
    if system.noise is not None:
        noise = system.noise(0.0, x, u)
        assert noise.shape[:2] == x.shape
        assert noise.isfinite().all()
