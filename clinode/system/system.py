"""The vector field dx/dt = f(t, x, u) with names, and the map x(k + 1) = F(k, x(k), u(k))."""

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clinode.errors import ArgumentError

from .hybrid import Delay, Event, Past, check_events, check_jumps, present
from .quantity import Quantity, check_distinct, check_given, flat_names, listed, nearest
from .values import Time, Values, floating, is_floating

AnySystem = TypeVar("AnySystem", bound="System")


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

    Where a class says so, states jump (`events`, see `Event`), the field reads the past (`delays`,
    see `Delay`), and noise is added: dx = f(t, x, u) dt + noise(t, x, u) dW, in the sense of Ito.

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
    latent: bool = False  # whether it was learned, so that its state coordinates are arbitrary
    events: tuple[Event, ...] = ()
    delays: tuple[Delay, ...] = ()
    # A method noise(t, x, u) -> (..., n_states), diagonal, or (..., n_states, n_noise): what stands
    # before dW of independent Wiener processes in the sense of Ito, in state unit / sqrt(time unit)
    noise: Callable[..., Tensor] | None = None
    if TYPE_CHECKING:
        outputs: tuple[Quantity, ...]

        def __getattr__(self, name: str) -> Tensor:
            """A constant, by its name."""
            ...
    else:
        outputs = _StatesUnlessGiven()

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        check_distinct(cls.__name__, [*cls.states, *cls.inputs, *cls.constants])
        check_events(cls.__name__, cls.events)

    @abstractmethod
    def vector_field(
        self,
        t: Time,
        x: Float[Tensor, "... state"],
        u: Float[Tensor, "... input"],
    ) -> Float[Tensor, "... state"]:
        """dx/dt, in state unit / time unit; with `delays` a function of (t, x, u, past)."""

    def next_state(
        self,
        k: Time,
        x: Float[Tensor, "... state"],
        u: Float[Tensor, "... input"],
    ) -> Float[Tensor, "... state"]:
        """Refused: a flow has no next state.

        Raises:
            ArgumentError: Always, unless a class that is a map says otherwise.
        """
        raise ArgumentError(
            f"this {type(self).__name__} is in continuous time and has no next state",
            fix="simulate it",
        )

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
        past: Past | None = None,
    ) -> Float[Tensor, "... state"]:
        """The vector field, or of a map the next state: for `torch.func.functional_call`.

        Args:
            t: Time, or the number of steps of a map.
            x: States.
            u: Inputs.
            past: Of a system with delays: see `Delay`. Without it the past is the present, as it
                is at an equilibrium.
        """
        if self.step is not None:
            return self.next_state(t, x, u)
        if not self.delays:
            return self.vector_field(t, x, u)
        past = present(self, x) if past is None else past
        return self.vector_field(t, x, u, past)  # pyright: ignore[reportCallIssue]

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
                f"{listed(flat_names(quantities))}"
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
        check_given("block", blocks, quantities)
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
                f"no default for state {listed(without)}", fix="give the initial state as x0"
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
                length, or its name is taken by an attribute; an event or a delay names a state or
                constant that does not exist.
        """
        check_given("constant", values, self.constants)
        check_distinct(type(self).__name__, [*self.states, *self.inputs, *self.constants])
        dtypes = [v.dtype for v in values.values() if is_floating(v)]
        dtype = functools.reduce(torch.promote_types, dtypes) if dtypes else torch.float64
        for quantity in self.constants:
            if not quantity.name.isidentifier() or hasattr(self, quantity.name):
                raise ArgumentError(
                    f"constant '{quantity.name}' cannot be an attribute of {type(self).__name__}",
                    fix="choose another name: a Python identifier that torch.nn.Module leaves free",
                )
            self._store(quantity, _constant(quantity, values[quantity.name], dtype))
        check_jumps(self)

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
                    f"{type(self).__name__} has no constant '{name}': {nearest(name, declared)}"
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

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if cls.events or cls.delays or cls.noise is not None:
            raise ArgumentError(
                f"{cls.__name__} is a map, and events, delays and noise are those of a flow",
                fix="put a delay into further states, and what is random into an input",
            )

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


def _constant(
    quantity: Quantity,
    value: Values,
    dtype: torch.dtype,
    device: torch.device | None = None,
) -> Tensor:
    """A value as stored: batch axes, then the constant's own axis."""
    tensor = floating(value)
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
