"""Shapes of a stimulus over time: free, pulses, biphasic pulses, sine.

A waveform spans the stimuli that one device can give: its values at knots are linear in a few
coefficients (`Basis`), so that amplitude, slew, charge and energy are simple functions of them and
a design may choose them. `signal` gives the input with amplitudes of the caller's choice.

Times and frequencies are in the system's time unit, or text with a unit: "130 Hz", "0.06 ms".
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from clinode.errors import ArgumentError
from clinode.system import Signal
from clinode.units import quantity

Period = float | int | str
ROUNDING = 1e-9  # of a period, forgiven where a whole number of them should fit


@dataclass(frozen=True, eq=False)
class Basis:
    """The stimuli that a waveform can give: values at knots = shapes @ coefficients.

    Attributes:
        knots: Times, (knot,), in the system's time unit.
        shapes: (knot, coefficient), without unit: a coefficient of 1 has a peak of 1.
        hold: "previous" or "linear", as in `Signal`.
        phases: (phase, 2): first and last knot of each phase whose charge counts by itself; empty
            where a coefficient may have either sign beside any other, so that no phase is fixed.
    """

    knots: Float[np.ndarray, " knot"]
    shapes: Float[np.ndarray, "knot coefficient"]
    hold: str
    phases: np.ndarray

    def signal(self, coefficients: np.ndarray | torch.Tensor) -> Signal:
        """The input of these coefficients, (coefficient, input), in the inputs' units."""
        values = torch.as_tensor(self.shapes) @ torch.as_tensor(coefficients, dtype=torch.float64)
        return Signal(self.knots, values, self.hold)


class Waveform(ABC):
    """A family of stimuli; see `Basis`."""

    @abstractmethod
    def basis(self, horizon: float, time_unit: str = "1") -> Basis:
        """What it can give between 0 and the horizon.

        Raises:
            ArgumentError: Not one pulse, period or piece fits, or times that are not positive.
            UnitError: Text whose unit is not one of time or frequency.
        """

    def signal(self, amplitude: Any, horizon: float, time_unit: str = "1") -> Signal:
        """The stimulus of given amplitudes.

        Args:
            amplitude: A number, (input,), or (coefficient, input) with one a pulse, period or
                knot; in the inputs' units. Of a biphasic pulse the sign is that of its first phase.
            horizon: Its end, in the system's time unit.
            time_unit: That unit, for times given as text.

        Raises:
            ArgumentError: As `basis`, or another number of amplitudes.
        """
        basis = self.basis(horizon, time_unit)
        given = np.asarray(amplitude, dtype=np.float64)
        n = basis.shapes.shape[1]
        if given.ndim < 2:
            given = np.broadcast_to(np.atleast_1d(given), (n, *np.atleast_1d(given).shape))
        if given.ndim != 2 or given.shape[0] != n or not np.isfinite(given).all():
            raise ArgumentError(
                f"amplitudes have shape {given.shape}, expected a number, (input,) or "
                f"({n}, input), finite"
            )
        return basis.signal(given.copy())


@dataclass(frozen=True, kw_only=True)
class Free(Waveform):
    """Any course of steps or lines between equally spaced knots; it ends at zero.

    Args:
        n_pieces: Pieces between 0 and the horizon.
        hold: "previous": steps. "linear": lines, which begin at zero too: what a slew limit needs.
    """

    n_pieces: int = 40
    hold: str = "previous"

    def __post_init__(self):
        least = 1 if self.hold == "previous" else 2
        if self.hold not in ("previous", "linear"):
            raise ArgumentError(f"hold must be 'previous' or 'linear', got {self.hold!r}")
        if self.n_pieces < least:
            raise ArgumentError(f"n_pieces must be at least {least}, got {self.n_pieces}")

    def basis(self, horizon: float, time_unit: str = "1") -> Basis:
        """A coefficient a knot that is not held at zero."""
        knots = np.linspace(0.0, _positive("horizon", horizon), self.n_pieces + 1)
        start = 0 if self.hold == "previous" else 1
        shapes = np.eye(self.n_pieces + 1)[:, start:-1]
        return Basis(knots, shapes, self.hold, np.zeros((0, 2), dtype=int))


@dataclass(frozen=True, kw_only=True)
class Pulses(Waveform):
    """A train of pulses of one phase.

    Args:
        frequency: Pulses per time unit, or text: "130 Hz".
        width: Of a pulse, from onset to offset.
        ramp: Of its rise and of its fall; 0 gives vertical edges, which break any slew limit.
        start: Onset of the first pulse.
        modulated: Whether a design may give each pulse an amplitude of its own.

    Example:
        >>> Pulses(frequency="50 Hz", width="2 ms").signal(1.5, horizon=40.0, time_unit="ms").knots
        tensor([ 0.,  2., 20., 22.], dtype=torch.float64)
    """

    frequency: Period
    width: Period
    ramp: Period = 0.0
    start: Period = 0.0
    modulated: bool = True

    def basis(self, horizon: float, time_unit: str = "1") -> Basis:
        """A coefficient a pulse, or one for all."""
        width = _positive("width", _time(self.width, time_unit))
        phases = [(0.0, width, 1.0)]
        return _train(self, phases, horizon, time_unit)


@dataclass(frozen=True, kw_only=True)
class BiphasicPulses(Waveform):
    """A train of pulses whose second phase takes back the charge of the first, to rounding.

    Args:
        frequency: Pulses per time unit, or text: "130 Hz".
        width: Of the first phase.
        gap: Between the phases, at zero.
        ratio: Width of the second phase over that of the first, at least 1: 1 is symmetric, more a
            longer and lower recharge.
        ramp, start, modulated: As in `Pulses`; a ramp is that of each phase.

    Example:
        >>> pulse = BiphasicPulses(frequency=0.1, width=1.0, gap=0.5).signal(2.0, horizon=10.0)
        >>> pulse(torch.tensor([0.5, 1.2, 2.0, 3.0])).squeeze(-1)
        tensor([ 2.,  0., -2.,  0.], dtype=torch.float64)
    """

    frequency: Period
    width: Period
    gap: Period = 0.0
    ratio: float = 1.0
    ramp: Period = 0.0
    start: Period = 0.0
    modulated: bool = True

    def basis(self, horizon: float, time_unit: str = "1") -> Basis:
        """A coefficient a pulse, or one for all."""
        width = _positive("width", _time(self.width, time_unit))
        gap = _time(self.gap, time_unit)
        if not (math.isfinite(self.ratio) and self.ratio >= 1):
            raise ArgumentError(f"ratio must be at least 1, got {self.ratio}")
        if not (math.isfinite(gap) and gap >= 0):
            raise ArgumentError(f"gap must not be negative, got {gap}")
        second = (width + gap, width + gap + self.ratio * width, -1.0)
        return _train(self, [(0.0, width, 1.0), second], horizon, time_unit)


@dataclass(frozen=True, kw_only=True)
class Sine(Waveform):
    """Whole periods of a sine, as lines between samples: its integral is zero to rounding.

    Args:
        frequency: Periods per time unit, or text: "20 Hz".
        samples: Of a period, a multiple of 4, so that the peaks are among them. 32 stray from the
            sine by at most half a percent of its amplitude.
        start: Onset of the first period.
        modulated: Whether a design may give each period an amplitude of its own.
    """

    frequency: Period
    samples: int = 32
    start: Period = 0.0
    modulated: bool = True

    def basis(self, horizon: float, time_unit: str = "1") -> Basis:
        """A coefficient a period, or one for all."""
        if self.samples < 4 or self.samples % 4:
            raise ArgumentError(f"samples must be a multiple of 4, got {self.samples}")
        period = 1 / _positive("frequency", _frequency(self.frequency, time_unit))
        onsets = _onsets(self, period, period, horizon, time_unit)
        quarter = np.sin(np.pi / 2 * np.arange(self.samples // 4) / (self.samples // 4))
        half = np.concatenate([quarter, [1.0], quarter[:0:-1]])  # its halves are exact mirrors
        wave = np.concatenate([half, -half])
        n, m = len(onsets), self.samples
        offsets = period * np.arange(m) / m
        knots = np.append((onsets[:, None] + offsets).ravel(), onsets[-1] + period)
        shapes = np.zeros((n * m + 1, n))
        for k in range(n):
            shapes[k * m : (k + 1) * m, k] = wave
        first = m // 2 * np.arange(2 * n)
        return _finished(self, knots, shapes, "linear", np.stack([first, first + m // 2], axis=1))


WAVEFORMS = {"free": Free()}  # by name, where a design is asked for one in a word


def waveform_named(waveform: "str | Waveform") -> Waveform:
    """A waveform as it is, or the one of this name.

    Raises:
        ArgumentError: No such name.
    """
    if isinstance(waveform, Waveform):
        return waveform
    if waveform not in WAVEFORMS:
        raise ArgumentError(
            f"no waveform is called {waveform!r}: there is 'free'",
            fix="give an object: BiphasicPulses(frequency='130 Hz', width='0.06 ms'), Pulses, Sine",
        )
    return WAVEFORMS[waveform]


def _train(
    train: Pulses | BiphasicPulses,
    phases: list[tuple[float, float, float]],
    horizon: float,
    time_unit: str,
) -> Basis:
    """Pulses of phases (onset, offset, sign), each a rectangle or a trapezoid."""
    period = 1 / _positive("frequency", _frequency(train.frequency, time_unit))
    ramp = _time(train.ramp, time_unit)
    width = phases[0][1]
    if not 0 <= ramp <= width / 2:
        raise ArgumentError(f"ramp must lie between 0 and half the width {width}, got {ramp}")
    length = phases[-1][1]
    if length > period * (1 + ROUNDING):
        raise ArgumentError(f"a pulse takes {length:g}, its period is only {period:g}")
    onsets = _onsets(train, period, length, horizon, time_unit)
    hold = "linear" if ramp else "previous"
    offsets, heights = _pulse(phases, ramp)
    knots = onsets[:, None] + offsets
    if len(phases) > 1:
        heights = _balanced(knots, heights, hold)
    else:
        heights = np.broadcast_to(heights, knots.shape)
    n, m = knots.shape
    shapes = np.zeros((n * m, n))
    for k in range(n):
        shapes[k * m : (k + 1) * m, k] = heights[k]
    per_phase = m // len(phases) if ramp or len(phases) == 1 else None
    if per_phase is None:  # rectangles: two phases share a knot where there is no gap
        windows = np.array([[0, 1], [m - 2, m - 1]])
    else:
        windows = np.array([[i * per_phase, (i + 1) * per_phase - 1] for i in range(len(phases))])
    fixed = (m * np.arange(n)[:, None, None] + windows).reshape(-1, 2)
    return _finished(train, knots.ravel(), shapes, hold, fixed)


def _pulse(phases: list[tuple[float, float, float]], ramp: float) -> tuple[np.ndarray, np.ndarray]:
    """Knots of one pulse from its onset, and its unit values there."""
    times, values = [], []
    for begin, end, sign in phases:
        if ramp:
            times += [begin, begin + ramp, end - ramp, end]
            values += [0.0, sign, sign, 0.0]
            continue
        if times and times[-1] == begin:
            times.pop()
            values.pop()
        times += [begin, end]
        values += [sign, 0.0]
    return np.array(times), np.array(values)


def _balanced(knots: np.ndarray, heights: np.ndarray, hold: str) -> np.ndarray:
    """Heights (pulse, knot) whose negative part cancels the positive one at the knots as stored."""
    widths = np.diff(knots, axis=1)
    weights = np.zeros_like(knots)
    if hold == "previous":
        weights[:, :-1] = widths
    else:
        weights[:, :-1] += widths / 2
        weights[:, 1:] += widths / 2
    charge = weights * heights
    first, second = charge.clip(min=0).sum(axis=1), -charge.clip(max=0).sum(axis=1)
    return np.where(heights < 0, heights * (first / second)[:, None], heights)


def _finished(
    waveform: Pulses | BiphasicPulses | Sine,
    knots: np.ndarray,
    shapes: np.ndarray,
    hold: str,
    phases: np.ndarray,
) -> Basis:
    """With a zero before a late onset, and one coefficient for all where it is not modulated."""
    if knots[0] > 0:
        knots = np.concatenate([[0.0], knots])
        shapes = np.concatenate([np.zeros((1, shapes.shape[1])), shapes])
        phases = phases + 1
    if not waveform.modulated:
        shapes = shapes.sum(axis=1, keepdims=True)
    return Basis(knots, shapes, hold, phases)


def _onsets(
    waveform: Pulses | BiphasicPulses | Sine,
    period: float,
    length: float,
    horizon: float,
    time_unit: str,
) -> np.ndarray:
    """When the pulses begin that end within the horizon."""
    _positive("horizon", horizon)
    start = _time(waveform.start, time_unit)
    if not (math.isfinite(start) and start >= 0):
        raise ArgumentError(f"start must not be negative, got {start}")
    n = math.floor((horizon - start - length) / period + ROUNDING) + 1
    if n < 1:
        raise ArgumentError(
            f"not one pulse fits: it takes {length:g} from {start:g} on, the horizon is {horizon:g}"
        )
    return start + period * np.arange(n)


def _time(given: Period, time_unit: str) -> float:
    return quantity(given, time_unit) if isinstance(given, str) else float(given)


def _frequency(given: Period, time_unit: str) -> float:
    per_time = "1" if time_unit == "1" else f"1/{time_unit}"
    return quantity(given, per_time) if isinstance(given, str) else float(given)


def _positive(what: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ArgumentError(f"{what} must be positive and finite, got {value}")
    return float(value)
