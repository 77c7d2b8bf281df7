import itertools

import pytest
import torch

from clinode.sequence.field_flow import FieldFlow, driven, euler, midpoint, rk4
from clinode.sequence.gated_unit import GatedUnit
from clinode.sequence.recurrence import recur, recur_plainly

SCHEMES = {"euler": euler, "midpoint": midpoint, "rk4": rk4}
STATES = 4
RAGGED = {
    "ragged": [5, 5, 3, 3, 1],
    "one record": [1, 1, 1],
    "one row each": [6],
    "one row": [1],
}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


class Example:
    """Leaves of a recurrence, drawn; how its parts are made of them."""

    def __init__(self, dtype, scheme, sizes, *, decays=True, is_driven=True, widths=(6, 7)):
        self.generator = torch.Generator().manual_seed(0)
        self.dtype, self.sizes, self.scheme = dtype, sizes, SCHEMES[scheme]
        n = sum(sizes)
        self.log_decay = self.draw(STATES) if decays else None
        ends = (STATES, *widths, STATES)
        self.layers = [(self.draw(b, a), self.draw(b)) for a, b in itertools.pairwise(ends)]
        self.layers[-1] = (self.layers[-1][0], None)
        self.recur = self.draw(3 * STATES, STATES)
        self.gap = self.draw(n, 1).detach().abs() * 2
        self.drive, self.jump = (
            (self.draw(n, STATES) for _ in range(2)) if is_driven else (None,) * 2
        )
        self.inward = self.draw(n, 3 * STATES)
        self.is_empty = torch.zeros(n, 1, dtype=torch.bool)
        self.is_empty[1::3] = True
        self.is_updated = [True] * len(sizes)
        if len(sizes) > 2:  # nothing is read in the third round
            self.is_updated[2] = False
            self.is_empty[sum(sizes[:2]) : sum(sizes[:3])] = True
        self.weights = [self.draw(n, STATES).detach() for _ in range(2)]

    def draw(self, *shape):
        drawn = torch.randn(*shape, generator=self.generator, dtype=torch.float64) / 2
        return drawn.to(self.dtype).requires_grad_()

    @property
    def leaves(self):
        parts = [part for layer in self.layers for part in layer]
        parts += [self.inward, self.recur, self.log_decay, self.drive, self.jump]
        return [part for part in parts if part is not None]

    def run(self, function, inward=None):
        decay = None if self.log_decay is None else torch.exp(self.log_decay)
        scheme = self.scheme(self.gap, decay)
        if self.drive is not None:
            scheme = driven(scheme, self.drive, self.jump)
        told = self.inward if inward is None else inward
        gate = told[:, :STATES].masked_fill(self.is_empty, -torch.inf)
        update = GatedUnit(torch.cat([gate, told[:, STATES:]], dim=1), self.recur)
        flow = FieldFlow(self.layers, scheme)
        return function(flow, update, self.sizes, self.is_updated, STATES)

    def loss(self, function, inward=None):
        states, flowed = self.run(function, inward)
        return (states * self.weights[0]).sum() + (flowed**2 * self.weights[1]).sum()


def errors(ours, oracle):
    return [
        ((a - b).abs().max() / b.abs().max().clamp(min=1e-12)).item()
        for a, b in zip(ours, oracle, strict=True)
    ]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("decays", [True, False])
@pytest.mark.parametrize("is_driven", [True, False])
@pytest.mark.parametrize("sizes", RAGGED.values(), ids=RAGGED)
def test_the_written_way_back_agrees_with_autograd(dtype, scheme, decays, is_driven, sizes):
    example = Example(dtype, scheme, sizes, decays=decays, is_driven=is_driven)
    results = []
    for function in (recur, recur_plainly):
        slopes = torch.autograd.grad(example.loss(function), example.leaves)
        results.append([*example.run(function), *slopes])
    assert max(errors(*results)) < TOLERANCE[dtype]


@pytest.mark.parametrize("widths", [(), (5,), (5, 6, 5, 6)])
def test_a_field_of_any_depth_is_learned(widths):
    example = Example(torch.float64, "rk4", RAGGED["ragged"], widths=widths)
    results = [torch.autograd.grad(example.loss(f), example.leaves) for f in (recur, recur_plainly)]
    assert max(errors(*results)) < 1e-10


def test_a_gradient_may_be_taken_twice_and_of_a_gradient():
    example = Example(torch.float64, "midpoint", RAGGED["ragged"])
    results = []
    for function in (recur, recur_plainly):
        loss = example.loss(function)
        first = torch.autograd.grad(loss, example.leaves, retain_graph=True)
        again = torch.autograd.grad(loss, example.leaves, create_graph=True)
        assert max(errors(first, again)) < 1e-12
        size = sum((slope**2).sum() for slope in again)
        results.append(torch.autograd.grad(size, example.leaves))
    assert max(errors(*results)) < 1e-10


def test_function_transforms_see_through_it():
    example = Example(torch.float64, "rk4", RAGGED["ragged"])
    inward = example.inward.detach()
    direction = torch.ones_like(inward)
    along = torch.func.jvp(lambda told: example.loss(recur, told), (inward,), (direction,))[1]
    (slope,) = torch.autograd.grad(example.loss(recur), example.inward)
    assert along.item() == pytest.approx((slope * direction).sum().item(), rel=1e-10)


def test_only_what_needs_a_gradient_gets_one():
    example = Example(torch.float64, "rk4", RAGGED["ragged"])
    everything = torch.autograd.grad(example.loss(recur), example.leaves)
    frozen = Example(torch.float64, "rk4", RAGGED["ragged"])
    for leaf in frozen.leaves:
        leaf.requires_grad_(leaf is frozen.inward)
    (slope,) = torch.autograd.grad(frozen.loss(recur), frozen.inward)
    position = [leaf is example.inward for leaf in example.leaves].index(True)
    assert torch.equal(slope, everything[position])


@pytest.mark.parametrize(("scheme", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
@pytest.mark.parametrize("decays", [True, False])
def test_steps_have_their_order(scheme, order, decays):
    """A record of one row, whose way of two hours is cut into ever smaller steps."""
    found = []
    for n in (8, 16, 512):
        example = Example(torch.float64, scheme, [1] * n, decays=decays)
        with torch.no_grad():
            example.gap[:] = 2 / (n - 1)
            example.gap[0] = 0
            example.jump.zero_()[0] = torch.linspace(-1, 1, STATES)
            example.drive.fill_(0.3)
        example.is_updated = [False] * n
        found.append(example.run(recur)[0][-1].detach())
    rough, fine = ((state - found[-1]).norm().item() for state in found[:-1])
    # from 7 to 15 steps
    assert rough / fine == pytest.approx((15 / 7) ** order, rel=0.35)


def test_an_empty_visit_only_flows():
    example = Example(torch.float64, "rk4", RAGGED["ragged"])
    states, flowed = example.run(recur)
    assert torch.equal(states[example.is_empty[:, 0]], flowed[example.is_empty[:, 0]])
    assert not torch.equal(states, flowed)
