"""Systems made of systems: outputs of one to inputs of another, a plant with its controller.

The parts keep their names as a prefix: state "V" of the part "cell" is "cell.V".
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError

from .hybrid import Delay, Event, Past, present
from .linear import LinearSystem
from .quantity import Quantity, listed, nearest, positions
from .system import System
from .unit import check_units_agree
from .values import Time, Values

Link = tuple[str, str]


def connect(
    systems: Mapping[str, System],
    links: Sequence[Link],
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] | None = None,
) -> System:
    """Several systems as one, with outputs of some as inputs of others.

    Where several links end in one input, they add up, and add to what is given from outside if it
    is kept open. An input without a link is open by itself. Everything carries the part's name:
    states, inputs, outputs, constants ("cell.g"), events and delays.

    A link acts at once, so an output that itself depends on an input must be known before what it
    feeds. A circle of such outputs is an equation to be solved at every evaluation; it is refused.
    Whether an output depends on inputs is read off its gradient.

    Args:
        systems: Parts by name, all flows of one time unit, or all maps of one step.
        links: Pairs ("cell.V", "synapse.V_pre") of an output and an input: flat, or blocks. They
            have the same size, or the output has one value, which then goes to all of a block.
        inputs: Inputs that have a link and are to be open nevertheless, "cell.I".
        outputs: Outputs that are read out, all by default.

    Raises:
        ArgumentError: A name that does not exist, sizes that do not fit, parts of different time
            units or steps, a circle of outputs that depend on inputs.
        UnitError: A link between quantities whose units do not agree.

    Example:
        >>> low_pass = LinearSystem([[-1.0]], [[1.0]], states=["y"])
        >>> both = connect({"first": low_pass, "second": low_pass}, [("first.y", "second.u1")])
        >>> both.state_names, both.input_names
        (('first.y', 'second.y'), ('first.u1',))
    """
    return Connected(systems, links, inputs, outputs)


def closed_loop(plant: System, controller: System, *, disturbances: Sequence[str] = ()) -> System:
    """A plant under a controller that reads its outputs and drives its inputs, by name.

    Outputs of the plant go to the controller's inputs of the same name, outputs of the controller
    to the plant's inputs of the same name. The parts are "plant" and "controller"; what has no
    partner stays open. A controller without states is a gain: a `LinearSystem` of D alone.

    Args:
        plant: What is controlled.
        controller: What controls it.
        disturbances: Driven inputs of the plant, by their names in the plant, that stay open, so
            that something can be added to what the controller gives.

    Raises:
        ArgumentError: No output of the plant that the controller reads, no input of the plant that
            it drives, or as in `connect`.
        UnitError: As in `connect`.
    """
    reads = _shared(plant.outputs, controller.inputs)
    drives = _shared(controller.outputs, plant.inputs)
    for names, what, there in (
        (reads, "reads no output of the plant", plant.outputs),
        (drives, "drives no input of the plant", plant.inputs),
    ):
        if not names:
            raise ArgumentError(
                f"the controller {what} by name; there are {listed([q.name for q in there])}",
                fix="give both sides the same name",
            )
    links = [(f"plant.{name}", f"controller.{name}") for name in reads]
    links += [(f"controller.{name}", f"plant.{name}") for name in drives]
    given = {"plant": plant, "controller": controller}
    return connect(given, links, inputs=[f"plant.{name}" for name in disturbances])


class Connected(System):
    """Several systems as one, made by `connect`."""

    def __init__(
        self,
        systems: Mapping[str, System],
        links: Sequence[Link],
        inputs: Sequence[str],
        outputs: Sequence[str] | None,
    ):
        super().__init__()
        self.parts = tuple(systems)
        first = _check_parts(systems)
        self.time_unit, self.step = first.time_unit, first.step
        self.latent = any(part.latent for part in systems.values())
        for name, part in systems.items():
            self.add_module(name, part)
        self._sizes = {
            "states": [part.n_states for part in systems.values()],
            "inputs": [part.n_inputs for part in systems.values()],
        }
        self.states = self._collected("states")
        self.constants = self._collected("constants")
        self.wires = tuple(self._wire(link) for link in links)
        self._all_inputs, self._all_outputs = self._collected("inputs"), self._collected("outputs")
        self.inputs, self._open = self._opened(inputs)
        self.outputs, self._read = self._shown(outputs)
        self.order = self._ordered()
        self.events = tuple(
            _event_of(name, event) for name, part in systems.items() for event in part.events
        )
        self.delays = tuple(
            Delay(f"{name}.{delay.state}", f"{name}.{delay.times}")
            for name, part in systems.items()
            for delay in part.delays
        )

    def __getattr__(self, name: str) -> Any:
        """A constant of a part, "cell.g", besides what a module has."""
        head, dot, rest = name.partition(".")
        return getattr(getattr(self, head), rest) if dot else super().__getattr__(name)

    @property
    def noise(self) -> Callable[..., Tensor] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The parts' noise, from sources of their own; None where no part has any."""
        return self._noise if any(self.part(n).noise is not None for n in self.parts) else None

    def part(self, name: str) -> System:
        """One of the systems."""
        part = self._modules[name]
        if not isinstance(part, System):
            raise ArgumentError(f"'{name}' is no part")
        return part

    def vector_field(
        self,
        t: Time,
        x: Float[Tensor, "... state"],
        u: Float[Tensor, "... input"],
        past: Past | None = None,
    ) -> Float[Tensor, "... state"]:
        """The parts' rates, each under its own input.

        Raises:
            ArgumentError: The parts are maps.
        """
        if self.step is not None:
            raise ArgumentError(
                f"these parts move in steps of {self.step} {self.time_unit} and have no vector "
                "field",
                fix="use next_state",
            )
        if self.delays and past is None:
            past = present(self, x)
        return self._evaluated(t, x, u, past)

    def next_state(
        self, k: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """The parts' next states, each under its own input."""
        return self._evaluated(k, x, u, None)

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The parts' outputs, or those chosen."""
        inputs, outputs = self._signals(t, x, u)
        states = self._by_part(x, "states")
        for name in self.parts:
            if name not in outputs:
                outputs[name] = self.part(name).output(t, states[name], inputs[name])
        return _joined([outputs[name] for name in self.parts])[..., self._read]

    def with_constants(self, **changes: Values) -> "Connected":
        """A copy with some constants changed, by their names with the part: `{"cell.g": 2.0}`."""
        by_part: dict[str, dict[str, Values]] = {}
        known = [quantity.name for quantity in self.constants]
        for name, value in changes.items():
            if name not in known:
                raise ArgumentError(
                    f"{type(self).__name__} has no constant '{name}': {nearest(name, known)}"
                )
            part, _, constant = name.partition(".")
            by_part.setdefault(part, {})[constant] = value
        changed = object.__new__(type(self))
        vars(changed).update(vars(self) | {"_modules": dict(self._modules)})
        for part, values in by_part.items():
            changed._modules[part] = self.part(part).with_constants(**values)
        return changed

    def _evaluated(self, t: Time, x: Tensor, u: Tensor, past: Past | None) -> Tensor:
        inputs, _ = self._signals(t, x, u)
        states = self._by_part(x, "states")
        rates = []
        for name in self.parts:
            part = self.part(name)
            own = None if past is None else _past_of(name, part, past)
            rates.append(part.forward(t, states[name], inputs[name], own))
        return _joined(rates)

    def _signals(
        self, t: Time, x: Tensor, u: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """By part: its input, and its output where another part needs it."""
        inputs = self._outside(u)
        states = self._by_part(x, "states")
        outputs: dict[str, Tensor] = {}
        sources = {wire.source for wire in self.wires}
        for name in self.order:
            if name in sources:
                outputs[name] = self.part(name).output(t, states[name], inputs[name])
                for wire in self.wires:
                    if wire.source == name:
                        inputs[wire.target] = wire.carried(outputs[name], inputs[wire.target])
        return inputs, outputs

    def _outside(self, u: Tensor) -> dict[str, Tensor]:
        """What is given from outside, by part, zero where an input is not open."""
        width = sum(self._sizes["inputs"])
        return self._by_part(_spread(u, self._open, width), "inputs")

    def _by_part(self, values: Tensor, what: str) -> dict[str, Tensor]:
        blocks = torch.split(values, self._sizes[what], dim=-1)
        return dict(zip(self.parts, blocks, strict=True))

    def _noise(self, t: Time, x: Tensor, u: Tensor) -> Tensor:
        inputs, _ = self._signals(t, x, u)
        states = self._by_part(x, "states")
        blocks = []
        for name in self.parts:
            noise, state = self.part(name).noise, states[name]
            block = state.new_zeros(state.shape) if noise is None else noise(t, state, inputs[name])
            blocks.append(block)
        if all(block.ndim <= x.ndim for block in blocks):
            return _joined(blocks)
        wide = [b if b.ndim > x.ndim else torch.diag_embed(b) for b in blocks]
        return _block_diagonal(wide)

    # How it is put together

    def _collected(self, what: str) -> tuple[Quantity, ...]:
        return tuple(
            replace(quantity, name=f"{name}.{quantity.name}")
            for name in self.parts
            for quantity in getattr(self.part(name), what)
        )

    def _wire(self, link: Link) -> "_Wire":
        (source, left), (target, right) = (self._end(end) for end in link)
        outputs, inputs = self.part(source).outputs, self.part(target).inputs
        start = positions(outputs, left, f"output of '{source}'")
        end = positions(inputs, right, f"input of '{target}'")
        if len(start) not in (1, len(end)):
            raise ArgumentError(
                f"'{link[0]}' has {len(start)} values and '{link[1]}' takes {len(end)}"
            )
        units = (_unit_at(outputs, start[0]), _unit_at(inputs, end[0]))
        check_units_agree(f"output '{link[0]}'", units[0], f"input '{link[1]}'", units[1])
        return _Wire(source, tuple(start), target, tuple(end))

    def _end(self, name: str) -> tuple[str, str]:
        part, dot, rest = name.partition(".")
        if not dot or part not in self.parts:
            raise ArgumentError(
                f"'{name}' must begin with the name of a part: {nearest(part, self.parts)}"
            )
        return part, rest

    def _opened(self, kept: Sequence[str]) -> tuple[tuple[Quantity, ...], list[int]]:
        """The open inputs, and their places among all inputs of all parts."""
        offsets, total = {}, 0
        for name in self.parts:
            offsets[name] = total
            total += _size(self.part(name).inputs)
        driven = {offsets[w.target] + place for w in self.wires for place in w.end}
        for name in kept:
            driven -= set(positions(self._all_inputs, name, "input"))
        places = [place for place in range(total) if place not in driven]
        return _chosen(self._all_inputs, places), places

    def _shown(self, chosen: Sequence[str] | None) -> tuple[tuple[Quantity, ...], list[int]]:
        if chosen is None:
            places = list(range(_size(self._all_outputs)))
        else:
            found = [positions(self._all_outputs, name, "output") for name in chosen]
            places = [place for one in found for place in one]
        return _chosen(self._all_outputs, places), places

    def _ordered(self) -> list[str]:
        """Parts in an order in which every output is known before it is needed."""
        through = [n for n in self.parts if _has_feedthrough(self.part(n))]
        needs = {n: {w.source for w in self.wires if w.target == n} for n in through}
        order = [name for name in self.parts if name not in through]  # whatever their input is
        left = list(through)
        while left:
            ready = [name for name in left if not needs[name] & set(left)]
            if not ready:
                raise ArgumentError(
                    f"the outputs of {listed(left)} depend at once on each other's",
                    fix="let one of them read out a state, of a fast filter if need be",
                )
            order += ready
            left = [name for name in left if name not in ready]
        return order


@dataclass(frozen=True)
class _Wire:
    source: str
    start: tuple[int, ...]
    target: str
    end: tuple[int, ...]

    def carried(self, output: Tensor, given: Tensor) -> Tensor:
        """The target's input with what comes along the wire added."""
        value = output[..., list(self.start)]
        value = value.expand(*value.shape[:-1], len(self.end))
        return given + _spread(value.to(given.dtype), self.end, given.shape[-1])


def _spread(values: Tensor, places: Sequence[int], width: int) -> Tensor:
    """Values (..., place) at their places on an axis of this width, zero elsewhere."""
    sources = [len(places)] * width  # behind the values stands a zero
    for i, place in enumerate(places):
        sources[place] = i
    padded = torch.cat([values, values.new_zeros(*values.shape[:-1], 1)], dim=-1)
    return padded[..., sources]


def _check_parts(systems: Mapping[str, System]) -> System:
    """The first part, once all of them are known to move in one time."""
    if not systems:
        raise ArgumentError("there is nothing to connect")
    first_name, first = next(iter(systems.items()))
    for name, part in systems.items():
        if not name.isidentifier() or hasattr(System, name) or name in ("parts", "wires", "order"):
            raise ArgumentError(f"a part cannot be called '{name}'", fix="choose another word")
        if part.time_unit != first.time_unit:
            raise ArgumentError(
                f"'{name}' moves in {part.time_unit} and '{first_name}' in {first.time_unit}",
                fix="write both in one time unit",
            )
        if part.step != first.step:
            raise ArgumentError(
                f"'{name}' and '{first_name}' are not both flows, or maps of one step "
                f"({part.step} and {first.step})",
                fix="sample the flow with the map's step first",
            )
    return first


def _has_feedthrough(part: System) -> bool:
    """Whether the output may depend on the input at this very time."""
    if not part.n_inputs or type(part).output is System.output:
        return False
    if isinstance(part, LinearSystem):
        return bool((part.D != 0).any())
    if isinstance(part, Connected):
        sources = [name for name in part.parts if _has_feedthrough(part.part(name))]
        return bool(sources)
    u = torch.zeros(part.n_inputs, dtype=part.dtype, device=part.device, requires_grad=True)
    x = torch.zeros(part.n_states, dtype=part.dtype, device=part.device)
    with torch.enable_grad():
        y = part.output(0.0, x, u)
    if not y.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(y.sum(), u, allow_unused=True)
    return gradient is not None


def _shared(given: Sequence[Quantity], taken: Sequence[Quantity]) -> list[str]:
    names = {quantity.name for quantity in taken}
    return [quantity.name for quantity in given if quantity.name in names]


def _size(quantities: Sequence[Quantity]) -> int:
    return sum(quantity.size for quantity in quantities)


def _unit_at(quantities: Sequence[Quantity], place: int) -> str:
    return [quantity.unit for quantity in quantities for _ in quantity.names][place]


def _chosen(quantities: Sequence[Quantity], places: list[int]) -> tuple[Quantity, ...]:
    """The quantities at these places, of a block those members that are there."""
    flat = [(quantity, k) for quantity in quantities for k in range(quantity.size)]
    made = []
    for name, group in itertools.groupby((flat[p] for p in places), key=lambda one: one[0].name):
        members = list(group)
        quantity = members[0][0]
        labels = tuple(quantity.labels[k] for _, k in members) if quantity.labels else ()
        made.append(replace(quantity, name=name, labels=labels))
    return tuple(made)


def _joined(blocks: Sequence[Tensor]) -> Tensor:
    """Blocks (..., n) on one last axis; batch axes broadcast."""
    batch = torch.broadcast_shapes(*(block.shape[:-1] for block in blocks))
    return torch.cat([block.expand(*batch, block.shape[-1]) for block in blocks], dim=-1)


def _block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    """(..., n, m) each, as independent sources."""
    batch = torch.broadcast_shapes(*(block.shape[:-2] for block in blocks))
    width, made, before = sum(block.shape[-1] for block in blocks), [], 0
    for block in blocks:
        n, m = block.shape[-2:]
        after = width - before - m
        row = torch.nn.functional.pad(block.expand(*batch, n, m), (before, after))
        made.append(row)
        before += m
    return torch.cat(made, dim=-2)


def _past_of(name: str, part: System, past: Past) -> Past | None:
    if not part.delays:
        return None
    return {delay.state: past[f"{name}.{delay.state}"] for delay in part.delays}


def _event_of(name: str, event: Event) -> Event:
    """A part's event as one of the whole."""
    return Event(
        f"{name}.{event.name}",
        functools.partial(_guard_of, name, event),
        None if event.reset is None else functools.partial(_reset_of, name, event.reset),
        event.direction,
        None if event.refractory is None else f"{name}.{event.refractory}",
        tuple(f"{name}.{state}" for state in event.held),
    )


def _guard_of(name: str, event: Event, system: Connected, t: Time, x: Tensor) -> Tensor:
    return event.guard(system.part(name), t, system._by_part(x, "states")[name])


def _reset_of(name: str, reset: Callable[..., Tensor], system: Connected, x: Tensor) -> Tensor:
    states = system._by_part(x, "states")
    states[name] = reset(system.part(name), states[name])
    return _joined([states[part] for part in system.parts])
