"""Inputs over time: given at knots, or by a function that says where it jumps."""

import functools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clinode.errors import ArgumentError

from .values import Time, Values, floating


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
        self.values = floating(values)
        self.knots = torch.as_tensor(knots, dtype=torch.float64, device=self.values.device)
        self.hold = hold
        _check_knots("knot", self.knots, self.values)
        if self.knots.shape[-1] == 0:
            raise ArgumentError("a signal needs at least one knot")
        self.impulses = None
        if impulses is not None:
            amounts = floating(impulses[1]).to(self.values)
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
        return cls([-math.inf], floating(value).unsqueeze(-2))

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
            breaks = self.breakpoints.to(t.device)
            ends = nn.functional.pad(breaks, (1, 1), value=math.inf)
            ends[0] = -math.inf
            piece = _last_knot(breaks, torch.as_tensor(within).to(t))
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
        value = floating(u)
        signal = Signal.constant(value.expand(n_inputs) if value.ndim == 0 else value)
    if signal.n_inputs != n_inputs:
        raise ArgumentError(f"the system has {n_inputs} inputs, the signal has {signal.n_inputs}")
    return signal


def _check_knots(what: str, times: Tensor, values: Tensor) -> None:
    if times.ndim < 1 or values.ndim < 2 or times.shape[-1] != values.shape[-2]:
        raise ArgumentError(
            f"{what} times of shape {tuple(times.shape)} and values of shape {tuple(values.shape)} "
            f"do not fit: expected (..., {what}) and (..., {what}, input)"
        )
    if times.isnan().any() or (times[..., 1:] < times[..., :-1]).any():
        raise ArgumentError(f"{what} times must be numbers that do not decrease")


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
