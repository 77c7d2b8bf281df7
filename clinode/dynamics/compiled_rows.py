"""A problem as the compiled loop takes it: one row a trajectory, inputs as lines on pieces."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from clinode.system import Signal, System

from .compiled_field import PureField, pure_field
from .compiled_loop import METHODS, Layout
from .compiled_trace import Named, NotCompiled
from .solvers import Problem


@dataclass(frozen=True, eq=False)
class Flat:
    """A problem whose trajectories are rows.

    Attributes:
        field: The field and its tensors.
        x0: (row, state).
        times: (row, time).
        inputs: As `Layout.input_specs`.
    """

    field: PureField
    x0: Tensor
    times: Tensor
    inputs: Named


def flatten(system: System, problem: Problem) -> Flat:
    """Rows for trajectories, at least two: a size of one would be compiled anew.

    Raises:
        NotCompiled: An input, or a tensor of the system, that rows cannot hold.
    """
    batch, x0 = problem.batch, problem.x0
    n_rows = batch.numel()
    times = problem.times.expand(*batch, -1).reshape(n_rows, -1)
    inputs = _inputs(problem, x0.dtype)
    inputs = {
        name: value.expand(*batch, *value.shape[-n_own:]).reshape(n_rows, *value.shape[-n_own:])
        for name, (value, n_own) in inputs.items()
    }
    return Flat(
        pure_field(system, batch),
        padded(x0.reshape(n_rows, -1)),
        padded(times),
        {name: padded(value) for name, value in inputs.items()},
    )


def padded(rows: Tensor) -> Tensor:
    """Contiguous rows, a single one twice."""
    return rows.expand(2, *rows.shape[1:]).contiguous() if len(rows) == 1 else rows.contiguous()


def _inputs(problem: Problem, dtype: torch.dtype) -> dict[str, tuple[Tensor, int]]:
    """The input as the loop takes it, and how many axes are its own."""
    signal = problem.signal
    if not isinstance(signal, Signal):
        raise NotCompiled("its input is a Python function of time")
    if signal.impulses is not None:
        raise NotCompiled("its input has impulses")
    knots, values = signal.knots, signal.values.to(dtype)
    if knots.shape[-1] == 1:
        return {"u": (values[..., 0, :], 1)}
    after = torch.full_like(knots[..., :1], math.inf)
    if signal.hold == "previous":
        stop, value, slope = torch.cat([knots[..., 1:], after], dim=-1), values, 0.0 * values
        begin = torch.zeros_like(stop)
    else:
        stop = torch.cat([knots, after], dim=-1)
        value = torch.cat([values[..., :1, :], values], dim=-2)
        length = knots.diff(dim=-1)
        length = torch.where(length > 0, length, math.inf).to(dtype).unsqueeze(-1)
        still = torch.zeros_like(values[..., :1, :])
        slope = torch.cat([still, values.diff(dim=-2) / length, still], dim=-2)
        begin = torch.cat([torch.zeros_like(after), knots[..., :-1], torch.zeros_like(after)], -1)
        begin = torch.where(begin.isfinite(), begin, 0.0)
    return {"begin": (begin, 1), "stop": (stop, 1), "value": (value, 2), "slope": (slope, 2)}


def layout_of(flat: Flat, method: str) -> Layout:
    """What the compiled loop of a problem is called with."""
    width = flat.inputs["u" if "u" in flat.inputs else "value"].shape[-1]
    return Layout(
        METHODS[method],
        flat.x0.shape[-1],
        width,
        "u" not in flat.inputs,
        "u" not in flat.inputs or flat.field.operations[1],
        flat.x0.dtype,
        flat.x0.device,
        flat.field.specs,
    )
