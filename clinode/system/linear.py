"""Linear systems about an operating point, in continuous time or in steps."""

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError

from .quantity import Quantity, check_distinct, flat_names
from .system import System
from .values import Time, Values, floating, times_vector

if TYPE_CHECKING:
    import control


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
        origin: The nonlinear system that it linearizes, for questions about other operating points.

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
        origin: System | None = None,
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
        self._origin = (origin,)  # in a tuple, for it is no part of this module
        self.states = _quantities("state", "x", states, self.A.shape[-1])
        self.inputs = _quantities("input", "u", inputs, self.B.shape[-1])
        if outputs is not None or C is not None:
            self.outputs = _quantities("output", "y", outputs, self.C.shape[-2])
        check_distinct("LinearSystem", [*self.states, *self.inputs])
        check_distinct("the outputs of LinearSystem", self.outputs)

    @property
    def origin(self) -> System | None:
        """The nonlinear system that it linearizes, if it was told."""
        return self._origin[0]

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
        return self.y0 + times_vector(self.C, x - self.x0) + times_vector(self.D, u - self.u0)

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
        return times_vector(self.A, x - self.x0) + times_vector(self.B, u - self.u0)


def _linear_matrices(given: dict[str, Values | None]) -> dict[str, Tensor]:
    """The matrices and operating point of a linear system, checked, in one dtype, none missing."""
    made = {name: floating(value) for name, value in given.items() if value is not None}
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
    made.setdefault("y0", times_vector(made["C"], made["x0"]) + times_vector(made["D"], made["u0"]))
    return made


def _quantities(
    role: str, letter: str, given: Sequence[Quantity | str] | None, count: int
) -> tuple[Quantity, ...]:
    """Quantities as given, from names, or numbered."""
    if given is None:
        return _numbered(letter, count)
    made = tuple(Quantity(q, "1") if isinstance(q, str) else q for q in given)
    if len(flat_names(made)) != count:
        raise ArgumentError(f"{len(flat_names(made))} {role} names for {count} {role}s")
    return made


@functools.lru_cache(maxsize=64)  # making the names of many states takes as long as a solve
def _numbered(letter: str, count: int) -> tuple[Quantity, ...]:
    return tuple(Quantity(f"{letter}{i + 1}", "1") for i in range(count))
