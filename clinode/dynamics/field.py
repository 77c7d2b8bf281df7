"""A system's vector field as one function F(z), z = (states, parameters), and its derivatives.

What the analysis of equilibria and cycles sees of a `System`: constant input, no time, float64,
and chosen inputs or constants standing on the last axis behind the states. Arrays are NumPy
outside and torch inside; every derivative is exact, by `torch.func`.
"""

import copy
import difflib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad, vjp

from clinode.errors import ArgumentError
from clinode.system import DiscreteSystem, Quantity, Signal, System, as_signal

MAX_ELEMENTS = 2**22  # of one tensor while Jacobians of many states are taken


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
        self.u = constant_input(u, system)
        self.parameters = tuple(parameters)
        self.targets = [_Target.find(system, name) for name in parameters]
        self.constants = _in_double(system, detach=True)
        self.batched: frozenset[str] = frozenset()
        self.n_states = system.n_states
        start = torch.zeros(self.n_states + len(self.parameters), dtype=torch.float64)
        start[self.n_states :] = torch.tensor(self.current, dtype=torch.float64)
        self.batch_shape = self(start).shape[:-1]
        self._check_autonomous()

    def flattened(self) -> "Field":
        """The same with all batch axes of its constants and input as one, for `take`.

        Raises:
            ArgumentError: A batch axis stands on something else than constants and input.
        """
        flat, batch = copy.copy(self), self.batch_shape
        flat.batch_shape = torch.Size([math.prod(batch)])

        def rows(value: Tensor) -> Tensor:
            return value.expand(*batch, value.shape[-1]).reshape(-1, value.shape[-1])

        flat.u = rows(self.u)
        declared = {quantity.name for quantity in self.system.constants}
        batched = {n for n, c in self.constants.items() if n in declared and c.ndim > 1}
        flat.constants = self.constants | {n: rows(self.constants[n]) for n in batched}
        flat.batched = frozenset(batched)
        one = flat.take([0])
        width = self.n_states + len(self.parameters)
        if one(torch.zeros(1, width, dtype=torch.float64)).shape[:-1] != (1,):
            raise ArgumentError(
                f"{type(self.system).__name__} has batch axes that are not those of its constants",
                fix="analyse its members one by one",
            )
        return flat

    def take(self, rows: Sequence[int] | NDArray) -> "Field":
        """Of a flattened field: the members for these rows of z, (len(rows), state)."""
        taken, index = copy.copy(self), torch.as_tensor(rows)
        taken.batch_shape = index.shape
        taken.u = self.u[index]
        taken.constants = self.constants | {n: self.constants[n][index] for n in self.batched}
        return taken

    @property
    def current(self) -> tuple[float, ...]:
        """The values that the parameters have in the system as it was given."""
        held = {"input": self.u.detach()} | self.constants
        return tuple(float(held[t.holder][..., t.members].mean()) for t in self.targets)

    def __call__(self, z: Tensor, *, time: float = 0.0) -> Tensor:
        """F at (..., state + parameter), differentiable with respect to z."""
        return self._evaluate(z, self.u.detach(), self.constants, time)

    def live(self, z: Tensor) -> Tensor:
        """F with the graph of the system's own constants and input, to differentiate by them."""
        return self._evaluate(z, self.u, _in_double(self.system, detach=False), 0.0)

    @property
    def is_live(self) -> bool:
        """Whether anything in the system or its input asks for a gradient."""
        tensors = [*self.system.parameters(), *self.system.buffers(), self.u]
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)

    def value(self, z: NDArray) -> NDArray:
        """F at z (..., state + parameter)."""
        with torch.no_grad():
            return self(torch.tensor(z)).numpy()

    def jacobian(self, z: NDArray) -> tuple[NDArray, NDArray]:
        """F and dF/dz, (..., state) and (..., state, state + parameter).

        One reverse pass over n copies of z, row i of the Jacobian from copy i: a batch axis costs
        a small system less than one pass a row, or than forward mode, would.
        """
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

    def _jacobian(self, z: NDArray) -> tuple[NDArray, NDArray]:
        n = self.n_states
        copies = torch.tensor(z).expand(n, *z.shape)
        value, pull = vjp(self, copies)
        one_row_each = torch.eye(n, dtype=torch.float64).view(n, *[1] * (z.ndim - 1), n)
        (gradient,) = pull(one_row_each.expand_as(value).contiguous())
        return value[0].numpy(), gradient.movedim(0, -2).numpy()

    def gradient(self, z: NDArray, w: NDArray, *directions: NDArray) -> NDArray:
        """Gradient over z of w . D^k F(z)[d1, ..., dk], k = number of directions.

        Its product with a further direction is the contraction of the next derivative. Everything
        broadcasts over leading axes: z, d (..., state + parameter), w (..., state).
        """
        shape = np.broadcast_shapes(z.shape[:-1], w.shape[:-1], *(d.shape[:-1] for d in directions))
        at = torch.tensor(np.broadcast_to(z, (*shape, z.shape[-1])).copy())
        weight, steps = torch.tensor(w), [torch.tensor(d) for d in directions]

        def contraction(z: Tensor) -> Tensor:
            return (weight * self(z)).sum()

        for step in steps:
            contraction = _along(contraction, step)
        return grad(contraction)(at).numpy()

    def bilinear(self, z: NDArray, a: NDArray, b: NDArray) -> NDArray:
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

    def _evaluate(
        self, z: Tensor, u: Tensor, constants: dict[str, Tensor], time: float
    ) -> Tensor:
        x = z[..., : self.n_states]
        for i, target in enumerate(self.targets):
            value = z[..., self.n_states + i : self.n_states + i + 1]
            if target.holder == "input":
                u = target.put(u, value)
            else:
                constants = constants | {
                    target.holder: target.put(constants[target.holder], value)
                }
        return functional_call(self.system, constants, (time, x, u))

    def _check_autonomous(self) -> None:
        generator = torch.Generator().manual_seed(0)
        low, high = (torch.tensor(side) for side in bounds_or_unit(self.system.states))
        draw = torch.rand(8, *[1] * len(self.batch_shape), self.n_states, generator=generator)
        x = low + (high - low) * draw.double()
        p = torch.tensor(self.current, dtype=torch.float64).expand(*x.shape[:-1], -1)
        z = torch.cat([x, p], dim=-1)
        with torch.no_grad():
            early, late = self(z, time=0.0), self(z, time=math.pi)
        change = (early - late).abs() > 1e-9 * (early.abs() + late.abs())
        if change.any():
            raise ArgumentError(
                f"the vector field of {type(self.system).__name__} depends on time, so it has no "
                "equilibria or cycles of its own",
                fix="put what drives it into an input",
            )


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


def bounds_or_unit(quantities: Sequence[Quantity]) -> tuple[NDArray, NDArray]:
    """Lowest and highest plausible values; where none are declared, one around the default."""
    low, high = [], []
    for quantity in quantities:
        middle = quantity.default or 0.0
        a, b = quantity.range or (middle - 1.0, middle + 1.0)
        low += [a] * quantity.size
        high += [b] * quantity.size
    return np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)


def scales(quantities: Sequence[Quantity]) -> NDArray:
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


def _in_double(system: System, *, detach: bool) -> dict[str, Tensor]:
    tensors = {**dict(system.named_parameters()), **dict(system.named_buffers())}
    double = {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}
    return {name: tensor.detach() for name, tensor in double.items()} if detach else double


def _along(function, direction: Tensor):
    """z -> (gradient of function at z) . direction, summed over the batch."""

    def derivative(z: Tensor) -> Tensor:
        return (grad(function)(z) * direction).sum()

    return derivative
