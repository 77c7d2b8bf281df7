"""Systems: vector fields dx/dt = f(t, x, u) whose states, inputs, outputs and constants have names.

A neuron is a `System`, a circulation is one, the latent dynamics of a trained model are one. A
`Quantity` names what stands on the last axis of a tensor, a `Signal` is an input over time. Every
axis before the last is a batch axis and broadcasts, over trajectories and over constants alike.

Solving a system is the business of `clinode.dynamics`.
"""

import copy
import difflib
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from clinode.errors import ArgumentError

if TYPE_CHECKING:
    import control

Values = float | int | Sequence[Any] | np.ndarray | np.generic | Tensor
Time = float | int | Tensor
AnySystem = TypeVar("AnySystem", bound="System")


@dataclass(frozen=True)
class Quantity:
    """One named quantity with its unit; with labels, a block of them, one value a label.

    Args:
        name: A word without ":"; a constant's name is also its attribute, so a Python identifier.
        unit: As text ("mV", "1/min"); "1" where dimensionless.
        labels: Names of the members of a block (regions, say); empty for a single value.
        range: Lowest and highest plausible value: seeds multi-start searches and sets scales.
        default: The value at the start of a simulation; one number, shared by a block.

    Raises:
        ArgumentError: An empty name or unit, repeated labels, a range that is not finite and
            increasing, or a default outside it.

    Example:
        >>> Quantity("E", "1", labels=("lh_precuneus", "rh_precuneus")).names
        ('E:lh_precuneus', 'E:rh_precuneus')
    """

    name: str
    unit: str
    labels: tuple[str, ...] = ()
    range: tuple[float, float] | None = None
    default: float | None = None

    def __post_init__(self):
        object.__setattr__(self, "labels", tuple(self.labels))
        if not self.name or ":" in self.name:
            raise ArgumentError(f"a quantity's name is a word without ':', got {self.name!r}")
        if not self.unit:
            raise ArgumentError(f"quantity '{self.name}' has no unit", fix="say '1' if it has none")
        if len(set(self.labels)) < len(self.labels) or "" in self.labels:
            raise ArgumentError(f"quantity '{self.name}': labels must be distinct and not empty")
        if self.range is None:
            return
        low, high = self.range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ArgumentError(
                f"quantity '{self.name}': range must be finite with low < high, got {self.range}"
            )
        if self.default is not None and not low <= self.default <= high:
            raise ArgumentError(
                f"quantity '{self.name}': default {self.default} lies outside range {self.range}"
            )

    @property
    def size(self) -> int:
        """How many values it holds on the last axis."""
        return len(self.labels) or 1

    @property
    def names(self) -> tuple[str, ...]:
        """Flat names, one a value: `("V",)`, or `("E:lh_precuneus", ...)` for a block."""
        return tuple(f"{self.name}:{label}" for label in self.labels) or (self.name,)


def flat_names(quantities: Sequence[Quantity]) -> tuple[str, ...]:
    """Names of all values of several quantities, in the order of the last axis."""
    return tuple(name for quantity in quantities for name in quantity.names)


class Signal:
    """An input over time, given at knots: steps (hold "previous") or lines between (hold "linear").

    Outside its knots the nearest knot's value holds. At a knot a step already has its new value.
    Two knots at one time make a jump. Knots of +inf, at the end, are padding, so that signals with
    different numbers of knots can stand in one batch.

    Args:
        knots: Times, (..., knot), not decreasing; kept in float64.
        values: (..., knot, input), in the inputs' units; its batch axes broadcast with the knots'.
        hold: "previous" or "linear".
        impulses: Times (..., impulse) and amounts (..., impulse, input), or None. An impulse
            delivers its amount (input unit x time unit) at once; padding is a time of +inf. It is
            not part of the signal's value: who solves the system lets the state jump by it.

    Raises:
        ArgumentError: Shapes that do not fit, times that are NaN or decrease, an unknown hold.

    Example:
        >>> pulse = Signal([0.0, 1.0, 2.0], [[0.0], [5.0], [0.0]])
        >>> pulse(torch.tensor([0.5, 1.0, 1.9, 2.0])).squeeze(-1)
        tensor([0., 5., 5., 0.], dtype=torch.float64)
    """

    def __init__(
        self,
        knots: Values,
        values: Values,
        hold: str = "previous",
        impulses: tuple[Values, Values] | None = None,
    ):
        if hold not in ("previous", "linear"):
            raise ArgumentError(f"hold must be 'previous' or 'linear', got {hold!r}")
        self.values = _floating(values)
        self.knots = torch.as_tensor(knots, dtype=torch.float64, device=self.values.device)
        self.hold = hold
        _check_knots("knot", self.knots, self.values)
        if self.knots.shape[-1] == 0:
            raise ArgumentError("a signal needs at least one knot")
        self.impulses = None
        if impulses is not None:
            amounts = _floating(impulses[1]).to(self.values)
            times = torch.as_tensor(impulses[0], dtype=torch.float64, device=amounts.device)
            _check_knots("impulse", times, amounts)
            if amounts.shape[-1] != self.n_inputs:
                raise ArgumentError(
                    f"impulses have {amounts.shape[-1]} inputs, the signal has {self.n_inputs}"
                )
            self.impulses = (times, amounts)

    @classmethod
    def constant(cls, value: Values) -> "Signal":
        """The signal that always has this value, (..., input)."""
        return cls([-math.inf], _floating(value).unsqueeze(-2))

    @property
    def n_inputs(self) -> int:
        """Length of the last axis of what it gives."""
        return self.values.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        """Batch axes of the signal; empty for a signal that all trajectories share."""
        shapes = [self.knots.shape[:-1], self.values.shape[:-2]]
        if self.impulses is not None:
            shapes += [self.impulses[0].shape[:-1], self.impulses[1].shape[:-2]]
        return torch.broadcast_shapes(*shapes)

    @functools.cached_property
    def breakpoints(self) -> Float[Tensor, "*batch breakpoint"]:
        """Times that no adaptive step may jump over: jumps, kinks and impulses, sorted.

        Entries that are not finite are padding. A constant has none.
        """
        if self.knots.shape[-1] == 1:
            times = self.knots[..., :0]
        else:
            times = self.knots[..., 1:] if self.hold == "previous" else self.knots
        if self.impulses is not None:
            batch = torch.broadcast_shapes(times.shape[:-1], self.impulses[0].shape[:-1])
            both = [part.expand(*batch, part.shape[-1]) for part in (times, self.impulses[0])]
            times = torch.cat(both, dim=-1).sort(dim=-1).values
        return times

    def to(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Signal":
        """A copy on another device or with values of another dtype; times stay float64."""
        impulses = self.impulses
        if impulses is not None:
            impulses = (impulses[0].to(device), impulses[1].to(device=device, dtype=dtype))
        values = self.values.to(device=device, dtype=dtype)
        return Signal(self.knots.to(device), values, self.hold, impulses)

    def __call__(self, t: Time, within: Time | None = None) -> Float[Tensor, "... input"]:
        """The value at time t.

        Args:
            t: Times of any shape, broadcast against the batch axes of the signal: one grid for a
                batch of signals is (time, 1) -> (time, batch, input).
            within: A time of the piece to stay on, of the shape of t. A solver gives the middle of
                its step: both ends then belong to that step, though a jump may lie on them.
        """
        t = torch.as_tensor(t, dtype=torch.float64, device=self.knots.device)
        n_knots = self.knots.shape[-1]
        if n_knots == 1:
            batch = torch.broadcast_shapes(t.shape, self.batch_shape)
            return self.values[..., 0, :].expand(*batch, self.n_inputs)
        anchor = t if within is None else torch.as_tensor(within).to(self.knots)
        before = _last_knot(self.knots, anchor)
        left = before.clamp(min=0)
        value = _take(self.values, left)
        if self.hold == "previous":
            return value
        right = (before + 1).clamp(max=n_knots - 1)
        start, end = _take(self.knots.unsqueeze(-1), left), _take(self.knots.unsqueeze(-1), right)
        # Beyond the ends left = right; a width of 1 there keeps 0 / 0 out of the gradient.
        beyond = (right == left).unsqueeze(-1)
        width = torch.where(beyond, 1.0, end - start)
        offset = torch.where(
            right.unsqueeze(-1) == left.unsqueeze(-1), 0.0, t.unsqueeze(-1) - start
        )
        weight = (offset / width).to(self.values.dtype)
        return value + weight * (_take(self.values, right) - value)


class FunctionSignal:
    """An input given by a function of time, with the times where it jumps or has a kink.

    Args:
        function: Maps times of any shape to values (..., input), elementwise.
        breaks: Times that no adaptive step may jump over; empty for a smooth function.

    Raises:
        ArgumentError: Breaks that are not finite.
    """

    impulses = None
    batch_shape = torch.Size()

    def __init__(self, function: Callable[[Tensor], Tensor], breaks: Values):
        self.function = function
        self.breakpoints = torch.as_tensor(breaks, dtype=torch.float64).flatten().sort().values
        if not self.breakpoints.isfinite().all():
            raise ArgumentError("breaks of an input function must be finite times")

    def __call__(self, t: Time, within: Time | None = None) -> Float[Tensor, "... input"]:
        """The value at time t, from inside the piece that holds the time `within`."""
        t = torch.as_tensor(t, dtype=torch.float64)
        if within is not None and len(self.breakpoints):
            ends = nn.functional.pad(self.breakpoints, (1, 1), value=math.inf)
            ends[0] = -math.inf
            piece = _last_knot(self.breakpoints, torch.as_tensor(within).to(t))
            high = torch.nextafter(ends[piece + 2], torch.tensor(-math.inf).to(t))
            t = torch.minimum(torch.maximum(t, ends[piece + 1]), high)
        return self.function(t)


def as_signal(
    u: Values | Signal | FunctionSignal | Callable[[Tensor], Tensor], n_inputs: int
) -> Signal | FunctionSignal:
    """Whatever stands for an input, as a signal of `n_inputs` inputs.

    Args:
        u: A number (all inputs have it, always), a tensor (..., input) of constants, a signal, or a
            function of time that carries its break times in an attribute `breaks`.
        n_inputs: Inputs of the system.

    Raises:
        ArgumentError: A wrong number of inputs, or a function without `breaks`.
    """
    if isinstance(u, FunctionSignal):
        return u
    if isinstance(u, Signal):
        signal = u
    elif callable(u):
        breaks = getattr(u, "breaks", None)
        if breaks is None:
            raise ArgumentError(
                "an input function must say at which times it jumps or has a kink",
                fix="FunctionSignal(function, breaks=[...]), with [] for a smooth function",
            )
        return FunctionSignal(u, breaks)
    else:
        value = _floating(u)
        signal = Signal.constant(value.expand(n_inputs) if value.ndim == 0 else value)
    if signal.n_inputs != n_inputs:
        raise ArgumentError(f"the system has {n_inputs} inputs, the signal has {signal.n_inputs}")
    return signal


def _check_distinct(owner: str, quantities: Sequence[Quantity]) -> None:
    names = [quantity.name for quantity in quantities]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ArgumentError(f"{owner} uses the name {_listed(repeated)} more than once")


def _listed(names: Sequence[str]) -> str:
    """At most five names in quotes, and how many more."""
    shown = ", ".join(f"'{name}'" for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


class _StatesUnlessGiven:
    """The default of `System.outputs`: the states, until a class or an instance names others."""

    def __get__(self, instance: "System | None", owner: type["System"]) -> tuple[Quantity, ...]:
        return () if instance is None else instance.states


class System(nn.Module, ABC):
    """A vector field dx/dt = f(t, x, u) with named states, inputs, outputs and constants.

    A class that was written down names its quantities as class attributes; one whose names are
    known only at run time (a network on a connectome, a learned model) sets them on the instance,
    after `super().__init__()` and before `register_constants`. Leaves are final.

    Shapes: x (..., n_states), u (..., n_inputs), t a number or a tensor of the batch axes (...);
    all of them broadcast with each other and with the batch axes of the constants. A system has
    one dtype, float64 unless asked for another (`system.float()`); analysis runs in float64.

    Example:
        >>> class Clearance(System):
        ...     time_unit = "h"
        ...     states = (Quantity("drug", "mg", default=0.0),)
        ...     inputs = (Quantity("dose", "mg/h"),)
        ...     constants = (Quantity("k", "1/h"),)
        ...
        ...     def __init__(self, k: float = 0.5):
        ...         super().__init__()
        ...         self.register_constants(k=k)
        ...
        ...     def vector_field(self, t, x, u):
        ...         return u - self.k * x
        >>> two = Clearance().with_constants(k=torch.tensor([[0.5], [2.0]]))  # a batch of constants
        >>> two.vector_field(0.0, x=torch.tensor([10.0]), u=torch.tensor([1.0]))
        tensor([[ -4.],
                [-19.]], dtype=torch.float64)
    """

    time_unit: str = "1"
    states: tuple[Quantity, ...] = ()
    inputs: tuple[Quantity, ...] = ()
    constants: tuple[Quantity, ...] = ()
    step: float | None = None  # None: a flow in continuous time; else the step of a map
    if TYPE_CHECKING:
        outputs: tuple[Quantity, ...]

        def __getattr__(self, name: str) -> Tensor:
            """A constant, by its name."""
            ...
    else:
        outputs = _StatesUnlessGiven()

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        _check_distinct(cls.__name__, [*cls.states, *cls.inputs, *cls.constants])

    @abstractmethod
    def vector_field(
        self,
        t: Time,
        x: Float[Tensor, "... state"],
        u: Float[Tensor, "... input"],
    ) -> Float[Tensor, "... state"]:
        """The rate of change dx/dt, in state unit / time unit."""

    def output(
        self,
        t: Time,
        x: Float[Tensor, "... state"],
        u: Float[Tensor, "... input"],
    ) -> Float[Tensor, "... output"]:
        """What is read out; the states unless a class says otherwise."""
        return x

    def forward(
        self,
        t: Time,
        x: Float[Tensor, "... state"],
        u: Float[Tensor, "... input"],
    ) -> Float[Tensor, "... state"]:
        """The vector field, for `torch.func.functional_call` with other constants."""
        return self.vector_field(t, x, u)

    @property
    def state_names(self) -> tuple[str, ...]:
        """Flat names of the states, `E:lh_precuneus` for a member of a block."""
        return flat_names(self.states)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Flat names of the inputs."""
        return flat_names(self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Flat names of the outputs."""
        return flat_names(self.outputs)

    @property
    def n_states(self) -> int:
        """Length of the last axis of x."""
        return sum(quantity.size for quantity in self.states)

    @property
    def n_inputs(self) -> int:
        """Length of the last axis of u."""
        return sum(quantity.size for quantity in self.inputs)

    @property
    def n_outputs(self) -> int:
        """Length of the last axis of the output."""
        return sum(quantity.size for quantity in self.outputs)

    @property
    def dtype(self) -> torch.dtype:
        """The one dtype of its constants and weights; float64 where it has none."""
        tensor = self._any_tensor()
        return torch.float64 if tensor is None else tensor.dtype

    @property
    def device(self) -> torch.device:
        """Where its constants and weights lie."""
        tensor = self._any_tensor()
        return torch.device("cpu") if tensor is None else tensor.device

    def split(
        self, x: Float[Tensor, "... value"], quantities: Sequence[Quantity] | None = None
    ) -> dict[str, Float[Tensor, "... _"]]:
        """The last axis by name: `{"V": (..., 1), "E": (..., n_regions)}`.

        Args:
            x: States, (..., n_states), unless `quantities` says what else stands on the last axis.
            quantities: The system's states by default; `self.inputs` to split u.

        Raises:
            ArgumentError: The last axis has another length.
        """
        quantities = self.states if quantities is None else quantities
        sizes = [quantity.size for quantity in quantities]
        if x.shape[-1] != sum(sizes):
            raise ArgumentError(
                f"the last axis holds {x.shape[-1]} values, expected {sum(sizes)}: "
                f"{_listed(flat_names(quantities))}"
            )
        names = [quantity.name for quantity in quantities]
        return dict(zip(names, torch.split(x, sizes, dim=-1), strict=True))

    def join(
        self, quantities: Sequence[Quantity] | None = None, /, **blocks: Float[Tensor, "... _"]
    ) -> Float[Tensor, "... value"]:
        """The inverse of `split`: blocks by name, (..., size) each, onto one last axis.

        The batch axes of the blocks broadcast.

        Args:
            quantities: The system's states by default; `self.outputs` to join a readout.
            blocks: One tensor a quantity.

        Raises:
            ArgumentError: A missing or unknown name, or a block of another size.
        """
        quantities = self.states if quantities is None else quantities
        _check_given("block", blocks, quantities)
        batch = torch.broadcast_shapes(*(block.shape[:-1] for block in blocks.values()))
        for quantity in quantities:
            if blocks[quantity.name].shape[-1] != quantity.size:
                raise ArgumentError(
                    f"block '{quantity.name}' has {blocks[quantity.name].shape[-1]} values on its "
                    f"last axis, expected {quantity.size}"
                )
        return torch.cat([blocks[q.name].expand(*batch, q.size) for q in quantities], dim=-1)

    def initial_state(self) -> Float[Tensor, " state"]:
        """The states' defaults, (n_states,).

        Raises:
            ArgumentError: A state has no default.
        """
        without = [quantity.name for quantity in self.states if quantity.default is None]
        if without:
            raise ArgumentError(
                f"no default for state {_listed(without)}", fix="give the initial state as x0"
            )
        values = [q.default for q in self.states if q.default is not None for _ in q.names]
        return torch.tensor(values, dtype=self.dtype, device=self.device)

    def register_constants(self, **values: Values) -> None:
        """Store every declared constant as an attribute of its name.

        A number becomes a float64 buffer of shape (1,), or (n_labels,) for a block. A tensor has
        batch axes and then the constant's own last axis: (..., 1), or (..., n_labels). It keeps its
        dtype, which the numbers beside it take on; an `nn.Parameter` stays one and is trained.

        Derive nothing from a constant here: `with_constants` and `torch.func.functional_call` swap
        the stored value and nothing else.

        Raises:
            ArgumentError: A constant is missing, unknown or not numeric, its last axis has another
                length, or its name is taken by an attribute.
        """
        _check_given("constant", values, self.constants)
        _check_distinct(type(self).__name__, [*self.states, *self.inputs, *self.constants])
        dtypes = [v.dtype for v in values.values() if _is_floating(v)]
        dtype = functools.reduce(torch.promote_types, dtypes) if dtypes else torch.float64
        for quantity in self.constants:
            if not quantity.name.isidentifier() or hasattr(self, quantity.name):
                raise ArgumentError(
                    f"constant '{quantity.name}' cannot be an attribute of {type(self).__name__}",
                    fix="choose another name: a Python identifier that torch.nn.Module leaves free",
                )
            self._store(quantity, _constant(quantity, values[quantity.name], dtype))

    def with_constants(self: AnySystem, **changes: Values) -> AnySystem:
        """A copy with some constants changed; everything else is shared with the original.

        New values take the dtype and device of the old. Gradients flow to a tensor given here and,
        through the copy, to the parameters of the original.

        Args:
            changes: Numbers, or tensors (..., 1), (..., n_labels): a batch of constants.

        Raises:
            ArgumentError: An unknown constant, or a last axis of another length.
        """
        declared = {quantity.name: quantity for quantity in self.constants}
        changed = copy.copy(self)
        changed._parameters = self._parameters.copy()
        changed._buffers = self._buffers.copy()
        for name, value in changes.items():
            if name not in declared:
                raise ArgumentError(
                    f"{type(self).__name__} has no constant '{name}': {_nearest(name, declared)}"
                )
            old = getattr(self, name)
            changed._parameters.pop(name, None)
            changed._buffers.pop(name, None)
            changed._store(declared[name], _constant(declared[name], value, old.dtype, old.device))
        return changed

    def _store(self, quantity: Quantity, value: Tensor) -> None:
        if isinstance(value, nn.Parameter):
            self.register_parameter(quantity.name, value)
        else:
            self.register_buffer(quantity.name, value)

    def _any_tensor(self) -> Tensor | None:
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.is_floating_point():
                return tensor
        return None


class DiscreteSystem(System):
    """A map x(k + 1) = F(k, x(k), u(k)) with named states, inputs, outputs and constants.

    Everything but the vector field is as in `System`; `step` is the time between k and k + 1.
    """

    step: float | None = 1.0

    @abstractmethod
    def next_state(
        self,
        k: Time,
        x: Float[Tensor, "... state"],
        u: Float[Tensor, "... input"],
    ) -> Float[Tensor, "... state"]:
        """The state one step later."""

    def vector_field(
        self,
        t: Time,
        x: Float[Tensor, "... state"],
        u: Float[Tensor, "... input"],
    ) -> Float[Tensor, "... state"]:
        """Refused: a map has no vector field.

        Raises:
            ArgumentError: Always.
        """
        raise ArgumentError(
            f"{type(self).__name__} moves in steps of {self.step} {self.time_unit} and has no "
            "vector field",
            fix="use next_state, or a system in continuous time",
        )

    def forward(
        self,
        t: Time,
        x: Float[Tensor, "... state"],
        u: Float[Tensor, "... input"],
    ) -> Float[Tensor, "... state"]:
        """The next state, for `torch.func.functional_call` with other constants."""
        return self.next_state(t, x, u)


class LinearSystem(System):
    """x' = A (x - x0) + B (u - u0), y = y0 + C (x - x0) + D (u - u0).

    States, inputs and outputs are absolute values; the operating point is stored. With a `step` it
    is the map x(k + 1) = x0 + A (x(k) - x0) + B (u(k) - u0) instead, which has no vector field.

    Args:
        A: (..., state, state), per time unit (per step where it is a map).
        B: (..., state, input).
        C: (..., output, state); None reads out the states.
        D: (..., output, input); None is zero.
        offset: The operating point (x0, u0) or (x0, u0, y0); zeros by default. Without y0,
            y0 = C x0 + D u0, so that y = C x + D u.
        step: Time between two states of a map, in time units; None for continuous time.
        latent: Whether it comes from a learned system. Its state coordinates are then arbitrary, so
            only what its outputs show is meant to be asked of it.
        states: Quantities, or names (unit "1"); x1, x2, ... by default.
        inputs: Likewise; u1, u2, ... by default.
        outputs: Likewise; y1, y2, ... by default, the states where C is None.
        time_unit: Unit of time; "1" where dimensionless.

    Raises:
        ArgumentError: Matrices or names that do not fit each other, entries that are not finite, a
            step that is not positive, a latent system without C.

    Example:
        >>> leak = LinearSystem([[-0.1]], [[0.01]], offset=([-70.0], [0.0]), states=["V"])
        >>> leak.vector_field(0.0, torch.tensor([-60.0]), torch.tensor([100.0]))
        tensor([0.], dtype=torch.float64)
    """

    def __init__(
        self,
        A: Values,
        B: Values,
        C: Values | None = None,
        D: Values | None = None,
        offset: tuple[Values, ...] | None = None,
        step: float | int | None = None,
        *,
        latent: bool = False,
        states: Sequence[Quantity | str] | None = None,
        inputs: Sequence[Quantity | str] | None = None,
        outputs: Sequence[Quantity | str] | None = None,
        time_unit: str = "1",
    ):
        super().__init__()
        if step is not None and not (math.isfinite(step) and step > 0):
            raise ArgumentError(f"step must be positive and finite, got {step}")
        if latent and C is None:
            raise ArgumentError(
                "the states of a learned system have arbitrary coordinates, so they cannot be its "
                "outputs",
                fix="give C, the map from its states to named outputs",
            )
        if offset is not None and len(offset) not in (2, 3):
            raise ArgumentError(f"offset is (x0, u0) or (x0, u0, y0), got {len(offset)} entries")
        given = {"A": A, "B": B, "C": C, "D": D}
        given |= dict(zip(("x0", "u0", "y0"), offset or (), strict=False))
        for name, matrix in _linear_matrices(given).items():
            self.register_buffer(name, matrix)
        self.step = None if step is None else float(step)
        self.latent = latent
        self.time_unit = time_unit
        self.states = _quantities("state", "x", states, self.A.shape[-1])
        self.inputs = _quantities("input", "u", inputs, self.B.shape[-1])
        if outputs is not None or C is not None:
            self.outputs = _quantities("output", "y", outputs, self.C.shape[-2])
        _check_distinct("LinearSystem", [*self.states, *self.inputs])
        _check_distinct("the outputs of LinearSystem", self.outputs)

    def vector_field(
        self,
        t: Time,
        x: Float[Tensor, "... state"],
        u: Float[Tensor, "... input"],
    ) -> Float[Tensor, "... state"]:
        """A (x - x0) + B (u - u0).

        Raises:
            ArgumentError: It is a map.
        """
        if self.step is not None:
            raise ArgumentError(
                f"this LinearSystem moves in steps of {self.step} {self.time_unit} and has no "
                "vector field",
                fix="use next_state, or a system in continuous time",
            )
        return self._drift(x, u)

    def next_state(
        self,
        k: Time,
        x: Float[Tensor, "... state"],
        u: Float[Tensor, "... input"],
    ) -> Float[Tensor, "... state"]:
        """x0 + A (x - x0) + B (u - u0), one step later.

        Raises:
            ArgumentError: It is in continuous time.
        """
        if self.step is None:
            raise ArgumentError(
                "this LinearSystem is in continuous time and has no next state",
                fix="simulate it, or build it with a step",
            )
        return self.x0 + self._drift(x, u)

    def output(
        self,
        t: Time,
        x: Float[Tensor, "... state"],
        u: Float[Tensor, "... input"],
    ) -> Float[Tensor, "... output"]:
        """y0 + C (x - x0) + D (u - u0)."""
        return self.y0 + _times(self.C, x - self.x0) + _times(self.D, u - self.u0)

    def forward(
        self,
        t: Time,
        x: Float[Tensor, "... state"],
        u: Float[Tensor, "... input"],
    ) -> Float[Tensor, "... state"]:
        """The vector field, or of a map the next state."""
        return self.vector_field(t, x, u) if self.step is None else self.next_state(t, x, u)

    def to_control(self) -> "control.StateSpace":
        """The same system for python-control, with its names; about the operating point.

        Its signals are deviations x - x0, u - u0, y - y0: python-control stores no operating point.
        Names keep everything but ".", which python-control reserves and which becomes "_".

        Raises:
            ArgumentError: The matrices have batch axes, or there is no input: python-control has
                no such systems.
        """
        import control  # takes seconds; nothing else in a System needs it

        matrices = [self.A, self.B, self.C, self.D]
        if any(matrix.ndim > 2 for matrix in matrices):
            raise ArgumentError("to_control gives one system, these matrices have batch axes")
        if not self.n_inputs:
            raise ArgumentError("python-control has no systems without inputs, this one has none")
        named = {
            "states": [name.replace(".", "_") for name in self.state_names],
            "inputs": [name.replace(".", "_") for name in self.input_names],
            "outputs": [name.replace(".", "_") for name in self.output_names],
        }
        arrays = [matrix.detach().double().cpu().numpy() for matrix in matrices]
        return control.StateSpace(*arrays, 0 if self.step is None else self.step, **named)

    def _drift(self, x: Tensor, u: Tensor) -> Tensor:
        return _times(self.A, x - self.x0) + _times(self.B, u - self.u0)


def _floating(values: Values) -> Tensor:
    """As a tensor that keeps a floating dtype of its own; everything else in float64."""
    if _is_floating(values):
        return values
    return torch.as_tensor(values, dtype=torch.float64)


def _is_floating(values: Any) -> TypeGuard[Tensor]:
    return isinstance(values, Tensor) and values.is_floating_point()


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    """matrix @ vector over broadcast batch axes."""
    if matrix.ndim == 2:
        return nn.functional.linear(vector, matrix)
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _constant(
    quantity: Quantity,
    value: Values,
    dtype: torch.dtype,
    device: torch.device | None = None,
) -> Tensor:
    """A value as stored: batch axes, then the constant's own axis."""
    tensor = _floating(value)
    device = tensor.device if device is None else device
    if tensor.ndim == 0 and not isinstance(tensor, nn.Parameter):
        return tensor.to(device, dtype).repeat(quantity.size)
    if tensor.ndim == 0 or tensor.shape[-1] != quantity.size:
        raise ArgumentError(
            f"constant '{quantity.name}' has shape {tuple(tensor.shape)}, expected batch axes and "
            f"then {quantity.size}",
            fix="value.unsqueeze(-1) makes a batch of scalars" if quantity.size == 1 else "",
        )
    return tensor.to(device, dtype)  # itself where nothing changes: a Parameter stays one


def _linear_matrices(given: dict[str, Values | None]) -> dict[str, Tensor]:
    """The matrices and operating point of a linear system, checked, in one dtype, none missing."""
    made = {name: _floating(value) for name, value in given.items() if value is not None}
    dtype = functools.reduce(torch.promote_types, (matrix.dtype for matrix in made.values()))
    device = made["A"].device
    made = {name: matrix.to(device, dtype) for name, matrix in made.items()}
    for name, matrix in made.items():
        if matrix.ndim < (1 if name.islower() else 2):
            raise ArgumentError(f"{name} has shape {tuple(matrix.shape)}, expected a matrix")
        if not matrix.isfinite().all():
            raise ArgumentError(f"{name} has entries that are not finite")
    n_states, n_inputs = made["A"].shape[-1], made["B"].shape[-1]
    n_outputs = made["C"].shape[-2] if "C" in made else n_states
    new = functools.partial(torch.zeros, dtype=dtype, device=device)
    made.setdefault("C", torch.eye(n_states, dtype=dtype, device=device))
    made.setdefault("D", new(n_outputs, n_inputs))
    made.setdefault("x0", new(n_states))
    made.setdefault("u0", new(n_inputs))
    shapes = {
        "A": (n_states, n_states),
        "B": (n_states, n_inputs),
        "C": (n_outputs, n_states),
        "D": (n_outputs, n_inputs),
        "x0": (n_states,),
        "u0": (n_inputs,),
        "y0": (n_outputs,),
    }
    for name, matrix in made.items():
        shape = shapes[name]
        if matrix.shape[matrix.ndim - len(shape) :] != shape:
            raise ArgumentError(
                f"{name} has shape {tuple(matrix.shape)}, expected {shape} after its batch axes"
            )
    made.setdefault("y0", _times(made["C"], made["x0"]) + _times(made["D"], made["u0"]))
    return made


def _quantities(
    role: str, letter: str, given: Sequence[Quantity | str] | None, count: int
) -> tuple[Quantity, ...]:
    """Quantities as given, from names, or numbered."""
    if given is None:
        given = [f"{letter}{i + 1}" for i in range(count)]
    made = tuple(Quantity(q, "1") if isinstance(q, str) else q for q in given)
    if len(flat_names(made)) != count:
        raise ArgumentError(f"{len(flat_names(made))} {role} names for {count} {role}s")
    return made


def _check_knots(what: str, times: Tensor, values: Tensor) -> None:
    if times.ndim < 1 or values.ndim < 2 or times.shape[-1] != values.shape[-2]:
        raise ArgumentError(
            f"{what} times of shape {tuple(times.shape)} and values of shape {tuple(values.shape)} "
            f"do not fit: expected (..., {what}) and (..., {what}, input)"
        )
    if times.isnan().any() or (times[..., 1:] < times[..., :-1]).any():
        raise ArgumentError(f"{what} times must be numbers that do not decrease")


def _check_given(what: str, given: dict[str, Any], quantities: Sequence[Quantity]) -> None:
    expected = [quantity.name for quantity in quantities]
    for name in given:
        if name not in expected:
            raise ArgumentError(f"no {what} is called '{name}': {_nearest(name, expected)}")
    missing = [name for name in expected if name not in given]
    if missing:
        raise ArgumentError(f"no value for {what} {_listed(missing)}")


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"there are {_listed(known)}" if known else "there are none"


def _last_knot(knots: Tensor, t: Tensor) -> Tensor:
    """Index of the last knot at or before t, -1 before the first; knots (..., knot), t (...)."""
    if knots.ndim == 1:
        return torch.searchsorted(knots, t.detach().contiguous(), right=True) - 1
    return (knots <= t.detach().unsqueeze(-1)).sum(dim=-1) - 1


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Row `index` (...) of values (..., knot, input) over broadcast batch axes."""
    if values.ndim == 2:
        return values[index]
    batch = torch.broadcast_shapes(values.shape[:-2], index.shape)
    rows = index.expand(batch)[..., None, None].expand(*batch, 1, values.shape[-1])
    return values.expand(*batch, *values.shape[-2:]).gather(-2, rows).squeeze(-2)
