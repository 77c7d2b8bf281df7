"""Interventions on any system: silence, clamp, cut, inject. The result is again a system.

They act on what is computed, not on how, so a learned system is cut like one that was written down.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError

from .hybrid import Event, Past, present
from .quantity import nearest, positions
from .system import System
from .values import Time, Values


@dataclass(frozen=True)
class Clamp:
    """A state or input held at a value; see `clamp`."""

    name: str
    value: Values


@dataclass(frozen=True)
class Cut:
    """A connection that is cut; see `cut`."""

    source: str
    target: str
    reference: Values


@dataclass(frozen=True)
class Injection:
    """A constant that is added; see `inject`."""

    name: str
    amount: Values


Intervention = Clamp | Cut | Injection


def silence(name: str) -> Clamp:
    """Hold a state (or an input) at 0, and with it all that it sends.

    Args:
        name: A state or input, flat ("E:lh_precuneus") or a whole block ("E").
    """
    return Clamp(name, 0.0)


def clamp(name: str, value: Values) -> Clamp:
    """Hold a state (or an input) at a value: everything else sees that value from the start.

    Args:
        name: A state or input, flat or a whole block.
        value: In its unit: a number, or a tensor (*batch, 1) or (*batch, size).
    """
    return Clamp(name, value)


def cut(source: str, target: str, reference: Values = 0.0) -> Cut:
    """Cut the connection from one state to another: the target sees the source at a reference.

    The derivative of the target is evaluated with the source held there. In a network whose terms
    vanish with their source, the reference 0 deletes the weight. A state cut from itself loses all
    that depends on it, a leak included.

    Args:
        source: A state, flat or a whole block.
        target: Another, likewise.
        reference: A number, a tensor (*batch, 1) or (*batch, size of the source), or a whole state
            (*batch, n_states), an equilibrium say, from which the source's values are taken.
    """
    return Cut(source, target, reference)


def inject(name: str, amount: Values) -> Injection:
    """Add a constant to an input, in its unit, or to the derivative of a state.

    Args:
        name: An input or a state, flat or a whole block.
        amount: In the input's unit, or in state unit / time unit (of a map: state unit, each
            step): a number, or a tensor (*batch, 1) or (*batch, size).
    """
    return Injection(name, amount)


def intervene(system: System, *interventions: Intervention) -> System:
    """The system under interventions, with the same states, inputs, outputs and constants.

    A state that is held relaxes to its value, dx/dt = (value - x) / time unit, where the others
    (and the output) see the value from the start. So a start elsewhere does no harm, equilibria
    stay isolated, and the one eigenvalue -1 that this adds belongs to nothing else. Noise of held
    states is none. A cut applies to the target's noise and past as well. Held values precede cuts
    and injections; a state that is held takes no injection.

    Args:
        system: Any system, a map or an intervened one too. Its tensors are shared, not copied.
        interventions: Of `silence`, `clamp`, `cut`, `inject`.

    Raises:
        ArgumentError: A name that is neither state nor input (the nearest is offered), a value of
            another shape, or one quantity held at two values.

    Example:
        >>> from clinode.system import LinearSystem
        >>> pair = LinearSystem([[-1.0, 0.5], [0.5, -1.0]], [[1.0], [0.0]])
        >>> one = intervene(pair, cut("x2", "x1"))
        >>> one.vector_field(0.0, torch.tensor([1.0, 1.0]), torch.tensor([0.0]))
        tensor([-1.0000, -0.5000], dtype=torch.float64)
    """
    return Intervened(system, interventions)


class Intervened(System):
    """A system under interventions, made by `intervene`."""

    def __init__(self, base: System, interventions: tuple[Intervention, ...]):
        super().__init__()
        # Its tensors stand here under the very names that they have in the base, where functional
        # calls look for them; the base itself is no submodule, or they would stand here twice.
        self._parameters = dict(base._parameters)
        self._buffers = dict(base._buffers)
        self._modules = dict(base._modules)
        vars(self)["base"] = base
        self.interventions = tuple(interventions)
        self.time_unit, self.step, self.latent = base.time_unit, base.step, base.latent
        self.states, self.inputs = base.states, base.inputs
        self.outputs, self.constants = base.outputs, base.constants
        self.events = tuple(_event_under(event) for event in base.events)
        self.delays = base.delays
        self.plan = _Plan(self, interventions)

    def __getattr__(self, name: str) -> Any:
        """A constant of a part where the base is a composition, "cell.g"."""
        head, dot, rest = name.partition(".")
        return getattr(getattr(self, head), rest) if dot else super().__getattr__(name)

    @property
    def noise(self) -> Callable[..., Tensor] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The base's noise, none for states that are held; None where the base has none."""
        return None if self.base.noise is None else self._noise

    def vector_field(
        self,
        t: Time,
        x: Float[Tensor, "... state"],
        u: Float[Tensor, "... input"],
        past: Past | None = None,
    ) -> Float[Tensor, "... state"]:
        """The base's, under the interventions."""
        if not self.delays:
            return self._changed(lambda x, u, _: self.view().vector_field(t, x, u), x, u, None)
        past = present(self, x) if past is None else past
        return self._changed(lambda *seen: self.view().forward(t, *seen), x, u, past)

    def next_state(
        self, k: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """The base's, under the interventions."""
        return self._changed(lambda x, u, _: self.view().next_state(k, x, u), x, u, None)

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """What the base reads out where states and inputs are held."""
        return self.view().output(t, self.plan.held_state(x), self.plan.held_input(u))

    def view(self) -> System:
        """The base with the tensors that stand here now: other constants, or swapped ones."""
        base = self.base
        seen = object.__new__(type(base))
        own = {name: vars(self)[name] for name in ("_parameters", "_buffers", "_modules")}
        vars(seen).update(vars(base) | own)
        return seen

    def with_constants(self, **changes: Values) -> "Intervened":
        """As of any system; the interventions stay."""
        return Intervened(self.view().with_constants(**changes), self.interventions)

    def _changed(
        self, rate_of: Callable[..., Tensor], x: Tensor, u: Tensor, past: Past | None
    ) -> Tensor:
        plan = self.plan
        held, u = plan.held_state(x), plan.held_input(u)
        past = plan.held_past(past)
        rate = rate_of(held, u, past)
        for group in plan.cuts:
            seen = (group.cut(held), u, None if past is None else group.cut_past(self, past))
            rate = torch.where(group.targets, rate_of(*seen), rate)
        rate = rate + plan.injected.to(rate)
        if not plan.is_held.any():
            return rate
        rest = plan.held_state(x) if self.step is not None else plan.held_state(x) - x
        return torch.where(plan.is_held, rest, rate)

    def _noise(self, t: Time, x: Tensor, u: Tensor) -> Tensor:
        held, u = self.plan.held_state(x), self.plan.held_input(u)

        def noise_at(x: Tensor) -> Tensor:
            noise = self.view().noise
            return x.new_zeros(x.shape) if noise is None else noise(t, x, u)

        noise = noise_at(held)
        is_matrix = noise.ndim > x.ndim

        def rows(mask: Tensor) -> Tensor:
            return mask.unsqueeze(-1) if is_matrix else mask

        for group in self.plan.cuts:
            noise = torch.where(rows(group.targets), noise_at(group.cut(held)), noise)
        return torch.where(rows(self.plan.is_held), torch.zeros_like(noise), noise)


@dataclass(frozen=True)
class _Group:
    """All cuts that let the same targets see the same sources elsewhere."""

    targets: Tensor  # (n_states,), bool
    sources: Tensor  # (n_states,), bool
    values: Tensor  # (..., n_states)

    def cut(self, x: Tensor) -> Tensor:
        return torch.where(self.sources, self.values.to(x), x)

    def cut_past(self, system: System, past: Past) -> Past:
        return _held_past(system, past, self.sources, self.values)


class _Plan:
    """Interventions by place on the last axis."""

    def __init__(self, system: System, interventions: tuple[Intervention, ...]):
        self.system = system
        x, u = (torch.zeros(n, dtype=torch.float64) for n in (system.n_states, system.n_inputs))
        self.is_held, self.is_set = x.bool(), u.bool()
        self.values, self.settings = x, u
        self.injected, self.added = x, u
        self.cuts: list[_Group] = []
        pairs: dict[tuple[int, int], Tensor] = {}
        for one in interventions:
            if isinstance(one, Cut):
                pairs |= _pairs(system, one)
            elif isinstance(one, Clamp):
                self._hold(one)
            elif isinstance(one, Injection):
                self._inject(one)
            else:
                raise ArgumentError(
                    f"{one!r} is no intervention", fix="use silence, clamp, cut or inject"
                )
        self._group(pairs)

    def held_state(self, x: Tensor) -> Tensor:
        return torch.where(self.is_held, self.values.to(x), x) if self.is_held.any() else x

    def held_input(self, u: Tensor) -> Tensor:
        u = torch.where(self.is_set, self.settings.to(u), u) if self.is_set.any() else u
        return u + self.added.to(u) if (self.added != 0).any() else u

    def held_past(self, past: Past | None) -> Past | None:
        if past is None or not self.is_held.any():
            return past
        return _held_past(self.system, past, self.is_held, self.values)

    def _hold(self, one: Clamp) -> None:
        name, value = one.name, one.value
        is_state, places = _places(self.system, name)
        taken = self.is_held if is_state else self.is_set
        if taken[places].any():
            raise ArgumentError(f"'{name}' is held twice")
        taken = taken.clone()
        taken[places] = True
        if is_state:
            self.is_held, self.values = taken, _put(self.values, places, value, name)
        else:
            self.is_set, self.settings = taken, _put(self.settings, places, value, name)

    def _inject(self, one: Injection) -> None:
        is_state, places = _places(self.system, one.name)
        if is_state:
            amount = _put(torch.zeros(self.system.n_states).double(), places, one.amount, one.name)
            self.injected = self.injected + amount
        else:
            amount = _put(torch.zeros(self.system.n_inputs).double(), places, one.amount, one.name)
            self.added = self.added + amount

    def _group(self, pairs: dict[tuple[int, int], Tensor]) -> None:
        """One evaluation for all targets that see the same."""
        seen: dict[int, dict[int, Tensor]] = {}
        for (target, source), value in pairs.items():
            seen.setdefault(target, {})[source] = value
        groups: dict[tuple, list[int]] = {}
        for target, sources in seen.items():
            groups.setdefault(tuple((s, id(v)) for s, v in sorted(sources.items())), []).append(
                target
            )
        for targets in groups.values():
            values = torch.zeros(self.system.n_states, dtype=torch.float64)
            is_source, is_target = values.bool(), values.bool()
            for source, value in seen[targets[0]].items():
                values = _put(values, [source], value, self.system.state_names[source])
                is_source[source] = True
            is_target[targets] = True
            self.cuts.append(_Group(is_target, is_source, values))


def _places(system: System, name: str) -> tuple[bool, list[int]]:
    """Whether a name is a state's, and where it stands."""
    for is_state, quantities in ((True, system.states), (False, system.inputs)):
        if any(name == q.name or name in q.names for q in quantities):
            return is_state, positions(quantities, name, "state")
    known = dict.fromkeys(n for q in (*system.states, *system.inputs) for n in (q.name, *q.names))
    raise ArgumentError(f"no state or input is called '{name}': {nearest(name, known)}")


def _pairs(system: System, one: Cut) -> dict[tuple[int, int], Tensor]:
    """By (target, source): the reference of the source, (..., 1)."""
    sources = positions(system.states, one.source, "state")
    targets = positions(system.states, one.target, "state")
    reference = torch.as_tensor(one.reference, dtype=torch.float64)
    if reference.ndim and reference.shape[-1] == system.n_states:
        reference = reference[..., sources]
    full = _put(torch.zeros(system.n_states).double(), sources, reference, one.source)
    columns = {source: full[..., source : source + 1] for source in sources}
    return {(target, source): columns[source] for target in targets for source in sources}


def _put(values: Tensor, places: list[int], new: Values, name: str) -> Tensor:
    """Values (..., n) with new ones (..., 1 or len(places)) at these places."""
    given = torch.as_tensor(new, dtype=torch.float64)
    given = given.unsqueeze(0) if given.ndim == 0 else given
    if given.shape[-1] not in (1, len(places)):
        raise ArgumentError(
            f"the value for '{name}' has shape {tuple(given.shape)}, expected batch axes and then "
            + ("1" if len(places) == 1 else f"1 or {len(places)}"),
            fix="value.unsqueeze(-1) makes a batch of single values" if len(places) == 1 else "",
        )
    batch = torch.broadcast_shapes(values.shape[:-1], given.shape[:-1])
    made = values.expand(*batch, values.shape[-1]).clone()
    made[..., places] = given.expand(*batch, given.shape[-1])
    return made


def _held_past(system: System, past: Past, held: Tensor, values: Tensor) -> Past:
    """The past with some states at given values."""
    made, masks, blocks = dict(past), system.split(held.double()), system.split(values)
    for delay in system.delays:
        old, block = past[delay.state], blocks[delay.state]
        if block.ndim > 1:  # batch axes of the values come before the axes of the delays
            own = present(system, values)[delay.state].ndim - block.ndim
            block = block.reshape(*block.shape[:-1], *[1] * own, block.shape[-1])
        made[delay.state] = torch.where(masks[delay.state] != 0, block.to(old), old)
    return made


def _event_under(event: Event) -> Event:
    """The event of the base, as one of the intervened system."""
    reset = None if event.reset is None else _Reset(event)
    return replace(event, guard=_Guard(event), reset=reset)


@dataclass(frozen=True)
class _Guard:
    event: Event

    def __call__(self, system: Intervened, t: Time, x: Tensor) -> Tensor:
        return self.event.guard(system.view(), t, system.plan.held_state(x))


@dataclass(frozen=True)
class _Reset:
    event: Event

    def __call__(self, system: Intervened, x: Tensor) -> Tensor:
        held, reset = system.plan.held_state(x), self.event.reset
        after = held if reset is None else reset(system.view(), held)
        return system.plan.held_state(after)
