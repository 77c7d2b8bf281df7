"""A system's vector field as one function F(z), z = (states, parameters), and its derivatives.

What the analysis of equilibria and cycles sees of a `System`: constant input, no time, float64 on
the CPU wherever the system is, and chosen inputs or constants standing on the last axis behind the
states. Arrays are NumPy outside and torch inside; every derivative is exact, by `torch.func`.
"""

import copy
import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad, jacrev

from clinode.errors import ArgumentError
from clinode.system import DiscreteSystem, Event, Quantity, Signal, System, as_signal

Eigenvalues = NDArray[np.complex128]
MAX_ELEMENTS = 2**22  # of one tensor while Jacobians of many states are taken
FEW_STATES = 24  # below it a Jacobian is cheaper from copies of the state


class Field:
    """F(z) = f(x, u; constants) of a system, where z = (x, p) and p replaces inputs or constants.

    Args:
        system: A flow whose field does not depend on time.
        u: The constant input: a number for all inputs, or a tensor (*batch, n_inputs).
        parameters: Inputs or constants to stand behind the states in z, by name: "I", "g_Ca", a
            member of a block as "stimulus:lh_precuneus", or a block, whose members then are equal.

    Raises:
        ArgumentError: A map, a field that depends on time, an input that does, an unknown name.
    """

    def __init__(self, system: System, u: Any = 0.0, parameters: Sequence[str] = ()):
        _check_flow(system)
        self.system = system
        self.parameters = tuple(parameters)
        self.targets = [_Target.find(system, name) for name in parameters]
        self.n_states = system.n_states
        self.batched: frozenset[str] = frozenset()
        self.live_u = constant_input(u, system).cpu()
        self.live_constants = _in_double(system)
        self.u = self.live_u.detach()
        self.constants = {name: tensor.detach() for name, tensor in self.live_constants.items()}
        # Stored as they are needed, so that nothing has to be swapped in to evaluate the field.
        stored = [t.dtype == torch.float64 or not t.is_floating_point() for t in system.buffers()]
        stored += [system.device.type == "cpu"]
        plain = all(stored) and not any(t.requires_grad for t in self.live_constants.values())
        self._as_stored = self.constants if plain and not list(system.parameters()) else None
        start = torch.zeros(self.n_states + len(self.parameters), dtype=torch.float64)
        start[self.n_states :] = torch.tensor(self.current, dtype=torch.float64)
        self.batch_shape = self(start).shape[:-1]
        self._check_autonomous()

    def flattened(self) -> "Field":
        """The same with all batch axes of its constants and input as one, for `take`.

        Raises:
            ArgumentError: A batch axis stands on something else than constants and input.
        """
        batch = self.batch_shape
        declared = {quantity.name for quantity in self.system.constants}

        def rows(value: Tensor) -> Tensor:
            return value.expand(*batch, value.shape[-1]).reshape(-1, value.shape[-1])

        batched = {n for n, c in self.constants.items() if n in declared and c.ndim > 1}
        flat = self._changed(rows, frozenset(batched), torch.Size([math.prod(batch)]))
        one = flat.take([0])
        width = self.n_states + len(self.parameters)
        if one(torch.zeros(1, width, dtype=torch.float64)).shape[:-1] != (1,):
            raise ArgumentError(
                f"{type(self.system).__name__} has batch axes that are not those of its constants",
                fix="analyse its members one by one",
            )
        return flat

    def take(self, rows: Sequence[int] | np.ndarray) -> "Field":
        """Of a flattened field: the members for these rows of z, (len(rows), state)."""
        index = torch.as_tensor(rows)
        return self._changed(lambda value: value[index], self.batched, index.shape)

    def member(self, index: int) -> "Field":
        """Of a flattened field: one member, without a batch axis."""
        return self._changed(lambda value: value[index], self.batched, torch.Size())

    def fixed(self, p: Sequence[float] | np.ndarray) -> "Field":
        """The field of the states alone, its parameters held at these values."""
        held = copy.copy(self)
        held.targets, held.parameters, held._as_stored = [], (), None
        none = torch.zeros(self.n_states, dtype=torch.float64)
        z = torch.cat([none, torch.as_tensor(p, dtype=torch.float64)])
        _, held.u, held.constants = self._arguments(z, self.u, self.constants)
        _, held.live_u, held.live_constants = self._arguments(z, self.live_u, self.live_constants)
        return held

    def _changed(
        self, change: Callable[[Tensor], Tensor], batched: frozenset[str], shape: torch.Size
    ) -> "Field":
        changed = copy.copy(self)
        changed.u, changed.live_u = change(self.u), change(self.live_u)
        if batched:
            swapped = {n: change(self.constants[n]) for n in batched}
            changed.constants = self.constants | swapped
            changed._as_stored = None
        live = {n: change(self.live_constants[n]) for n in batched}
        changed.live_constants = self.live_constants | live
        changed.batched, changed.batch_shape = batched, shape
        return changed

    @property
    def current(self) -> tuple[float, ...]:
        """The values that the parameters have in the system as it was given."""
        held = {"input": self.u} | self.constants
        return tuple(float(held[t.holder][..., t.members].mean()) for t in self.targets)

    def __call__(self, z: Tensor, *, time: float = 0.0) -> Tensor:
        """F at (..., state + parameter), differentiable with respect to z."""
        return self._evaluate(z, self.u, self.constants, time)

    def live(self, z: Tensor) -> Tensor:
        """F with the graph of the system's own constants and input, to differentiate by them."""
        return self._evaluate(z, self.live_u, self.live_constants, 0.0)

    def output(self, z: Tensor) -> Tensor:
        """The readout at z, with the graph of constants and input."""
        x, u, constants = self._arguments(z, self.live_u, self.live_constants)
        return _called(_Readout(self.system), constants, x, u)

    def noise(self, z: Tensor) -> Tensor:
        """What stands before dW at z, (..., state) or (..., state, noise)."""
        x, u, constants = self._arguments(z, self.u, self.constants)
        return _called(_Noise(self.system), constants, x, u)

    def is_within_guards(self, z: Tensor) -> Tensor:
        """Whether the flow is at home at z, (...): beyond a guard that resets, it never is.

        A guard that is crossed upward has its flow below zero, one crossed downward above; what is
        crossed either way has it on both sides.
        """
        x, _, constants = self._arguments(z, self.u, self.constants)
        home = torch.ones(z.shape[:-1], dtype=torch.bool)
        for event in self.system.events:
            if event.reset is not None and event.direction != 0:
                guard = _called(_Guard(self.system, event), constants, x).squeeze(-1)
                home = home & (event.direction * guard < 0)
        return home

    @property
    def is_live(self) -> bool:
        """Whether anything in the system or its input asks for a gradient."""
        tensors = [*self.live_constants.values(), self.live_u]
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)

    def value(self, z: np.ndarray) -> np.ndarray:
        """F at z (..., state + parameter)."""
        with torch.no_grad():
            return self(torch.tensor(z)).numpy()

    def jacobian(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """F and dF/dz, (..., state) and (..., state, state + parameter)."""
        n, width = self.n_states, z.shape[-1]
        rows = z.reshape(-1, width)
        at_once = max(1, MAX_ELEMENTS // (n * width))
        if len(rows) <= at_once:
            return self._jacobian(z)
        parts = []
        for i in range(0, len(rows), at_once):
            index = np.arange(i, min(i + at_once, len(rows)))
            parts.append((self.take(index) if self.batch_shape else self)._jacobian(rows[index]))
        value, jacobian = (np.concatenate(part) for part in zip(*parts, strict=True))
        return value.reshape(*z.shape[:-1], n), jacobian.reshape(*z.shape[:-1], n, width)

    def _jacobian(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row i from a backward pass with the i-th unit vector.

        Of a small system, from one pass over n copies of z: its cost is the number of operations.
        Of a large one, from one forward pass and n backward ones at once.
        """
        n, is_small = self.n_states, self.n_states < FEW_STATES
        at = torch.tensor(z)
        unit = torch.eye(n, dtype=torch.float64).view(n, *[1] * (z.ndim - 1), n)
        value, gradient = _pulled_back(
            self, at.expand(n, *z.shape).contiguous() if is_small else at, unit, not is_small
        )
        value = value[0] if is_small else value
        return value.numpy(), gradient.movedim(0, -2).numpy()

    def pull(self, z: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """F (..., state), and w . dF/dz (..., state + parameter) for a w of F's last axis."""
        value, gradient = _pulled_back(self, torch.tensor(z), torch.tensor(w), False)
        return value.numpy(), gradient.numpy()

    def gradient(self, z: np.ndarray, w: np.ndarray, *directions: np.ndarray) -> np.ndarray:
        """Gradient over z of w . D^k F(z)[d1, ..., dk], k = number of directions.

        Its product with a further direction is the contraction of the next derivative. Everything
        broadcasts over leading axes: z, d (..., state + parameter), w (..., state).
        """
        shape = np.broadcast_shapes(z.shape[:-1], w.shape[:-1], *(d.shape[:-1] for d in directions))
        at = torch.tensor(np.broadcast_to(z, (*shape, z.shape[-1])).copy())
        weight, steps = torch.tensor(w), [torch.tensor(d) for d in directions]

        contraction: Callable[[Tensor], Tensor] = _weighted(self, weight)
        for step in steps:
            contraction = _along(contraction, step)
        return grad(contraction)(at).numpy()

    def bilinear(self, z: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """B(a, b) = D^2 F(z)[a, b], (..., state); complex directions are allowed."""
        if np.iscomplexobj(a) or np.iscomplexobj(b):
            parts = [(np.real(d), np.imag(d)) for d in (a, b)]
            left = np.stack([parts[0][i] for i in (0, 0, 1, 1)])
            right = np.stack([parts[1][i] for i in (0, 1, 0, 1)])
            rr, ri, ir, ii = self.bilinear(z, left, right)
            return rr - ii + 1j * (ri + ir)
        a, b = np.broadcast_arrays(a, b)
        unit = np.eye(self.n_states).reshape(self.n_states, *[1] * (a.ndim - 1), self.n_states)
        return np.moveaxis((self.gradient(z, unit, a) * b).sum(-1), 0, -1)

    def _evaluate(self, z: Tensor, u: Tensor, constants: dict[str, Tensor], time: float) -> Tensor:
        x, u, replaced = self._arguments(z, u, constants)
        if replaced is self._as_stored:
            return self.system(time, x, u)
        return functional_call(self.system, replaced, (time, x, u))

    def _arguments(
        self, z: Tensor, u: Tensor, constants: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        for i, target in enumerate(self.targets):
            value = z[..., self.n_states + i : self.n_states + i + 1]
            if target.holder == "input":
                u = target.put(u, value)
            else:
                held = constants[target.holder]
                constants = constants | {target.holder: target.put(held, value)}
        return z[..., : self.n_states], u, constants

    @property
    def angles(self) -> tuple[int, ...]:
        """States that are angles: their unit is "rad", and a full turn changes nothing."""
        found = []
        z = self._samples()
        units = [quantity.unit for quantity in self.system.states for _ in quantity.names]
        for i, unit in enumerate(units):
            if unit != "rad":
                continue
            turn = torch.zeros_like(z)
            turn[..., i] = 2 * math.pi
            with torch.no_grad():
                here, there = self(z), self(z + turn)
            if ((here - there).abs() <= 1e-9 * (1 + here.abs())).all():
                found.append(i)
        return tuple(found)

    def _samples(self) -> Tensor:
        """Eight states across the ranges, with the parameters as they are."""
        generator = torch.Generator().manual_seed(0)
        low, high = (torch.tensor(side) for side in bounds_or_unit(self.system.states))
        draw = torch.rand(8, *[1] * len(self.batch_shape), self.n_states, generator=generator)
        x = low + (high - low) * draw.double()
        p = torch.tensor(self.current, dtype=torch.float64).expand(*x.shape[:-1], -1)
        return torch.cat([x, p], dim=-1)

    def _check_autonomous(self) -> None:
        z = self._samples()
        with torch.no_grad():
            early, late = self(z, time=0.0), self(z, time=math.pi)
        change = (early - late).abs() > 1e-9 * (early.abs() + late.abs())
        if change.any():
            raise ArgumentError(
                f"the vector field of {type(self.system).__name__} depends on time, so it has no "
                "equilibria or cycles of its own",
                fix="put what drives it into an input",
            )


class ScaledField:
    """A field in units of scales: y = z / scale, dy/dt = F(scale y) / scale.

    Args:
        field: The field.
        scale: (state + parameter,).
    """

    def __init__(self, field: Field, scale: np.ndarray):
        self.field, self.scale = field, scale
        self.n_states = field.n_states
        self.x_scale = scale[: field.n_states]

    def value(self, y: np.ndarray) -> np.ndarray:
        """As `Field.value`."""
        return self.field.value(y * self.scale) / self.x_scale

    def jacobian(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Field.jacobian`."""
        value, jacobian = self.field.jacobian(y * self.scale)
        return value / self.x_scale, jacobian * self.scale / self.x_scale[:, None]

    def gradient(self, y: np.ndarray, w: np.ndarray, *directions: np.ndarray) -> np.ndarray:
        """As `Field.gradient`."""
        steps = [self.scale * direction for direction in directions]
        return self.field.gradient(y * self.scale, w / self.x_scale, *steps) * self.scale

    def bilinear(self, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """As `Field.bilinear`."""
        return self.field.bilinear(y * self.scale, a * self.scale, b * self.scale) / self.x_scale

    def live(self, y: np.ndarray) -> Tensor:
        """As `Field.live`, at a fixed y."""
        return self.field.live(torch.tensor(y * self.scale)) / torch.tensor(self.x_scale)

    def live_jacobian(self, y: np.ndarray) -> Tensor:
        """dF/dy with the graph of constants and input."""
        jacobian = jacrev(self.field.live)(torch.tensor(y * self.scale))
        return jacobian * torch.tensor(self.scale) / torch.tensor(self.x_scale)[:, None]


class _Target:
    """Where a parameter lies: which tensor ("input" or the constant's name), which members."""

    def __init__(self, holder: str, members: list[int], size: int, quantity: Quantity):
        self.holder, self.members, self.quantity = holder, members, quantity
        self.mask = torch.zeros(size, dtype=torch.float64)
        self.mask[members] = 1.0
        self.is_all = len(members) == size

    def put(self, values: Tensor, value: Tensor) -> Tensor:
        """The tensor with its members replaced by `value` (..., 1)."""
        if self.is_all:
            return value * self.mask
        return values * (1.0 - self.mask) + value * self.mask

    @classmethod
    def find(cls, system: System, name: str) -> "_Target":
        """The input or constant of this name, flat or of a block."""
        offset = 0
        for quantity in system.inputs:
            members = members_named(quantity, name)
            if members:
                return cls("input", [offset + i for i in members], system.n_inputs, quantity)
            offset += quantity.size
        for quantity in system.constants:
            members = members_named(quantity, name)
            if members:
                return cls(quantity.name, members, quantity.size, quantity)
        known = [*names_of(system.inputs), *names_of(system.constants)]
        raise ArgumentError(
            f"{type(system).__name__} has no input or constant '{name}': {nearest(name, known)}"
        )


def parameter_quantity(system: System, name: str) -> Quantity:
    """The input or constant that a parameter name stands for.

    Raises:
        ArgumentError: There is none; the nearest name is offered.
    """
    return _Target.find(system, name).quantity


def held_at(system: System, u: Any, name: str, value: float) -> tuple[System, Tensor]:
    """The system and its input with one parameter at a value.

    Args:
        system: The system, left as it is.
        u: Its input.
        name: An input or constant, as in `Field`.
        value: For all of its members.
    """
    target, given = _Target.find(system, name), constant_input(u, system)
    if target.holder == "input":
        return system, target.put(given, torch.tensor([value], dtype=torch.float64))
    old = getattr(system, target.holder)
    new = target.put(old.double(), torch.tensor([value], dtype=torch.float64))
    return system.with_constants(**{target.holder: new}), given


def members_named(quantity: Quantity, name: str) -> list[int]:
    """Positions within a quantity that a name means: all for its own name, one for a flat name."""
    if name == quantity.name:
        return list(range(quantity.size))
    return [i for i, flat in enumerate(quantity.names) if flat == name]


def names_of(quantities: Sequence[Quantity]) -> list[str]:
    """Block names and flat names."""
    return list(dict.fromkeys(n for q in quantities for n in (q.name, *q.names)))


def nearest(name: str, known: Sequence[str]) -> str:
    """An offer for a name that is not known."""
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    shown = ", ".join(f"'{one}'" for one in known[:5])
    return f"there are {shown}" if known else "there are none"


def constant_input(u: Any, system: System) -> Tensor:
    """An input as (*batch, n_inputs) in float64, graph kept.

    Raises:
        ArgumentError: An input that changes over time, has impulses or is not finite, or another
            number of inputs than the system's.
    """
    signal = as_signal(u, system.n_inputs)
    if not isinstance(signal, Signal) or signal.knots.shape[-1] > 1 or signal.impulses is not None:
        raise ArgumentError(
            "equilibria, cycles and branches hold under a constant input; this one changes",
            fix="give a number or a tensor of n_inputs",
        )
    value = signal.values[..., 0, :].to(system.device, torch.float64)
    if not value.isfinite().all():
        raise ArgumentError("the input has values that are not finite")
    return value


def bounds_or_unit(quantities: Sequence[Quantity]) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest plausible values; where none are declared, one around the default."""
    low, high = [], []
    for quantity in quantities:
        middle = quantity.default or 0.0
        a, b = quantity.range or (middle - 1.0, middle + 1.0)
        low += [a] * quantity.size
        high += [b] * quantity.size
    return np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)


def scales(quantities: Sequence[Quantity]) -> np.ndarray:
    """One natural size a state: the width of its range, 1 where none is declared."""
    low, high = bounds_or_unit(quantities)
    declared = np.array([q.range is not None for q in quantities for _ in q.names], dtype=bool)
    return np.where(declared, high - low, 1.0)


def _check_flow(system: System) -> None:
    if isinstance(system, DiscreteSystem) or system.step is not None:
        raise ArgumentError(
            f"{type(system).__name__} is a map (step {system.step} {system.time_unit}): its "
            "equilibria, cycles and branches would be those of a flow, which it is not",
            fix="give a system in continuous time",
        )


class _Readout(torch.nn.Module):
    """`System.output` as a forward, for `functional_call`."""

    def __init__(self, system: System):
        super().__init__()
        self.system = system

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        return self.system.output(0.0, x, u)


class _Noise(torch.nn.Module):
    """`System.noise` as a forward, for `functional_call`."""

    def __init__(self, system: System):
        super().__init__()
        self.system = system

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        if self.system.noise is None:
            raise ArgumentError(
                f"{type(self.system).__name__} has no noise",
                fix="give it a method noise(t, x, u)",
            )
        return self.system.noise(0.0, x, u)


class _Guard(torch.nn.Module):
    """The guard of an event as a forward, for `functional_call`."""

    def __init__(self, system: System, event: Event):
        super().__init__()
        self.system, self.event = system, event

    def forward(self, x: Tensor) -> Tensor:
        return self.event.guard(self.system, 0.0, x)


def _called(module: torch.nn.Module, constants: dict[str, Tensor], *given: Tensor) -> Tensor:
    return functional_call(module, {f"system.{n}": c for n, c in constants.items()}, given)


def _in_double(system: System) -> dict[str, Tensor]:
    tensors = {**dict(system.named_parameters()), **dict(system.named_buffers())}
    here = {name: tensor.cpu() for name, tensor in tensors.items()}
    return {n: t.double() if t.is_floating_point() else t for n, t in here.items()}


def _pulled_back(
    function: Callable[[Tensor], Tensor], z: Tensor, w: Tensor, is_batched: bool
) -> tuple[Tensor, Tensor]:
    """The value at z, and the gradient over z of w . value; of each leading w where batched.

    Plain autograd: `torch.func.vjp` gives the same and costs a small system twice the time.
    """
    with torch.enable_grad():
        z = z.requires_grad_()
        value = function(z)
        if not value.requires_grad:  # a constant field
            return value, torch.zeros(*(w.shape[:1] if is_batched else ()), *z.shape, dtype=z.dtype)
        (gradient,) = torch.autograd.grad(
            value,
            z,
            w.expand(*w.shape[:1], *value.shape) if is_batched else w.expand_as(value),
            is_grads_batched=is_batched,
            materialize_grads=True,
        )
    return value.detach(), gradient


def _weighted(function: Callable[[Tensor], Tensor], w: Tensor) -> Callable[[Tensor], Tensor]:
    def total(z: Tensor) -> Tensor:
        return (w * function(z)).sum()

    return total


def _along(function: Callable[[Tensor], Tensor], direction: Tensor) -> Callable[[Tensor], Tensor]:
    """z -> (gradient of function at z) . direction, summed over the batch."""

    def derivative(z: Tensor) -> Tensor:
        return (grad(function)(z) * direction).sum()

    return derivative
