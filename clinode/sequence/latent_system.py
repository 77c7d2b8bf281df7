"""Latent dynamics of trained models as systems: float64, hours, outputs in original units.

The state's coordinates are arbitrary: a change of basis predicts the same. What is meant to be
asked of these systems is what their outputs show. They are copies; training on does not change
them.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.cohort import Preprocessor
from clinode.cohort.preprocess import LOG_OFFSET
from clinode.system import Quantity, System, Time


class LinearLatentSystem(System):
    """dx/dt = A x + B u; outputs are restored from the decoded C x + c.

    The field is linear, the outputs of variables that were log-transformed are not.

    Args:
        A: (state, state), per hour; every mode is stable.
        B: (state, input), per hour and original unit of the input.
        C: (output, state), to standardised variables.
        c: (output,), standardised variables at x = 0.
        low, high: (state,), ranges over the training part.
        schema: Of the training part: names, units and scales.
    """

    latent = True
    time_unit = "h"
    A: Tensor
    B: Tensor

    def __init__(
        self,
        A: Float[Tensor, "state state"],
        B: Float[Tensor, "state input"],
        C: Float[Tensor, "output state"],
        c: Float[Tensor, " output"],
        *,
        low: Float[Tensor, " state"],
        high: Float[Tensor, " state"],
        schema: Preprocessor,
    ):
        super().__init__()
        name_quantities(self, low, high, schema)
        self.register_buffer("A", A.detach().double())
        self.register_buffer("B", B.detach().double())
        self.decode = Decoder(C, c, schema)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """A x + B u."""
        return x @ self.A.T + u @ self.B.T

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The measured variables that the state stands for, in original units."""
        return self.decode(x)


class BoundedLatentSystem(System):
    """dx/dt = -a x + W tanh(U x + b) + B u: decay plus a bounded term, so an equilibrium exists.

    Under a constant input every trajectory enters the box |x - B u / a| <= sum |W| / a.

    Args:
        a: (state,), decay rates per hour, positive.
        W: (state, hidden), per hour.
        U: (hidden, state).
        b: (hidden,).
        B: (state, input), per hour and original unit of the input.
        C: (output, state), to standardised variables.
        c: (output,), standardised variables at x = 0.
        low, high: (state,), ranges over the training part.
        schema: Of the training part: names, units and scales.
    """

    latent = True
    time_unit = "h"
    a: Tensor
    W: Tensor
    U: Tensor
    b: Tensor
    B: Tensor

    def __init__(
        self,
        a: Float[Tensor, " state"],
        W: Float[Tensor, "state hidden"],
        U: Float[Tensor, "hidden state"],
        b: Float[Tensor, " hidden"],
        B: Float[Tensor, "state input"],
        C: Float[Tensor, "output state"],
        c: Float[Tensor, " output"],
        *,
        low: Float[Tensor, " state"],
        high: Float[Tensor, " state"],
        schema: Preprocessor,
    ):
        super().__init__()
        name_quantities(self, low, high, schema)
        for name, tensor in {"a": a, "W": W, "U": U, "b": b, "B": B}.items():
            self.register_buffer(name, tensor.detach().double())
        self.decode = Decoder(C, c, schema)

    def vector_field(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... state"]:
        """-a x + W tanh(U x + b) + B u."""
        return torch.tanh(x @ self.U.T + self.b) @ self.W.T + u @ self.B.T - self.a * x

    def output(
        self, t: Time, x: Float[Tensor, "... state"], u: Float[Tensor, "... input"]
    ) -> Float[Tensor, "... output"]:
        """The measured variables that the state stands for, in original units."""
        return self.decode(x)


class Decoder(torch.nn.Module):
    """States -> variables in original units: linear, then the inverse of the standardisation."""

    weight: Tensor
    bias: Tensor
    is_log: Tensor

    def __init__(self, C: Tensor, c: Tensor, schema: Preprocessor):
        super().__init__()
        of = {"dtype": torch.float64, "device": C.device}
        scale, center = torch.tensor(schema.scale, **of), torch.tensor(schema.center, **of)
        self.register_buffer("weight", scale.unsqueeze(1) * C.detach().double())
        self.register_buffer("bias", scale * c.detach().double() + center)
        is_log = [transform == "log" for transform in schema.transform]
        self.register_buffer("is_log", torch.tensor(is_log, device=C.device))

    def forward(self, x: Float[Tensor, "... state"]) -> Float[Tensor, "... output"]:
        """In original units."""
        shown = x @ self.weight.T + self.bias
        exponent = torch.where(self.is_log, shown, 0.0)  # keeps overflow out of the other branch
        return torch.where(self.is_log, torch.exp(exponent) - LOG_OFFSET, shown)


def modal_drift(
    decay: Float[Tensor, " mode"], frequency: Float[Tensor, " mode"]
) -> Float[Tensor, "state state"]:
    """The real matrix of complex modes, lambda = -decay + i frequency; real parts first."""
    fall, turn = torch.diag(-decay), torch.diag(frequency)
    return torch.cat([torch.cat([fall, -turn], dim=1), torch.cat([turn, fall], dim=1)])


def original_drive(
    drive: Float[Tensor, "state input"], schema: Preprocessor
) -> Float[Tensor, "state input"]:
    """The input matrix for treatments in original instead of standardised units."""
    scale = torch.tensor(schema.input_scale, dtype=torch.float64, device=drive.device)
    return drive.detach().double() / scale


def with_rows_of_zeros(
    matrix: Float[Tensor, "state other"], n_rows: int
) -> Float[Tensor, "more_states other"]:
    """The matrix for further states that it does not touch: those of the memory."""
    return torch.cat([matrix, matrix.new_zeros(n_rows, matrix.shape[1])])


def name_quantities(system: System, low: Tensor, high: Tensor, schema: Preprocessor) -> None:
    """Give a learned system its states z1.., the treatments and the measured variables."""
    low, high = low.detach().double(), high.detach().double()
    system.states = tuple(
        Quantity(f"z{k}", "1", range=(min(float(a), 0.0), max(float(b), 0.0)), default=0.0)
        for k, (a, b) in enumerate(zip(low, high, strict=True), start=1)
    )
    system.inputs = tuple(
        Quantity(
            _word(name),
            unit or "1",
            range=_ordered(min(0.0, lowest), max(0.0, highest)),
            default=0.0,
        )
        for name, unit, lowest, highest in zip(
            schema.inputs, schema.input_units, schema.input_low, schema.input_high, strict=True
        )
    )
    index = np.arange(len(schema.variables))
    bounds = [
        schema.restore(index, (np.asarray(side) - schema.center) / schema.scale)
        for side in (schema.low, schema.high)
    ]
    system.outputs = tuple(
        Quantity(_word(name), unit or "1", range=_ordered(float(least), float(most)))
        for name, unit, least, most in zip(schema.variables, schema.units, *bounds, strict=True)
    )


def _word(name: str) -> str:
    return name.replace(":", ".")  # a colon separates a block from its label


def _ordered(low: float, high: float) -> tuple[float, float] | None:
    return (low, high) if low < high else None
