"""What a stimulus may not exceed: amplitude, slew, charge of a phase, energy; and the check of one.

Limits hold for the deviation from a baseline input, input by input, but for the energy, which is
that of all. A phase is a stretch of one sign: its charge is what an electrode passes before the
current turns or stops.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from clinode.control.stimulation.course import Course, balanced_by_scaling
from clinode.control.stimulation.projection import Bounds, project_values
from clinode.errors import ArgumentError
from clinode.system import (
    FunctionSignal,
    Quantity,
    Signal,
    UnitError,
    flat_names,
    parse_unit,
    positions,
)

PerInput = float | int | Mapping[str, float] | None
TOLERANCE = 1e-9  # relative, by which rounding may exceed a limit
ZERO = 1e-12  # of the largest value, below which a value is none


@dataclass(frozen=True, kw_only=True)
class StimulusLimits:
    """Limits of a stimulus; None is no limit. A mapping gives inputs, or blocks of them, their own.

    Args:
        amplitude: Largest deviation from the baseline, in the input's unit.
        slew: Largest rate of change, input unit / time unit. A step has none that is finite.
        charge: Largest charge of one phase, input unit x time unit.
        charge_density: Largest charge of one phase / electrode area, in the area's unit.
        electrode_area: Of each input, in cm^2 where `shannon_k` is given.
        shannon_k: log10(D) <= k - log10(Q) with D in uC/cm^2 and Q in uC a phase: Shannon 1992,
            IEEE Trans Biomed Eng 39:424-426; 1.85 is often taken for macroelectrodes. The inputs
            must be currents.
        energy: Largest integral of the squared deviation, summed over the inputs.
        balanced: Whether the charge of each input must sum to zero.
        one_sided: Whether an input may not fall below its baseline, as light or an infusion.

    Raises:
        ArgumentError: A limit that is not positive, one without what it needs, or limits that
            exclude every stimulus.

    Example:
        >>> limits = StimulusLimits(amplitude=2.0, charge=0.5, balanced=True)
        >>> limits.check(Signal([0.0, 1.0, 2.0], [[1.0], [-1.0], [0.0]])).verdict
        'exceeded: charge of u1 (1 of 0.5 at 0)'
    """

    amplitude: PerInput = None
    slew: PerInput = None
    charge: PerInput = None
    charge_density: PerInput = None
    electrode_area: PerInput = None
    shannon_k: float | None = None
    energy: float | None = None
    balanced: bool = False
    one_sided: bool = False

    def __post_init__(self):
        for name in ("amplitude", "slew", "charge", "charge_density", "electrode_area", "energy"):
            given = getattr(self, name)
            for value in given.values() if isinstance(given, Mapping) else [given]:
                if value is not None and not value > 0:
                    raise ArgumentError(
                        f"{name} must be positive, got {value}: it excludes every stimulus",
                        fix="leave an input that must stay silent out of `inputs`",
                    )
        if self.balanced and self.one_sided:
            raise ArgumentError(
                "balanced and one_sided together exclude every stimulus: what never falls below "
                "its baseline cannot return its charge",
                fix="drop one of them",
            )
        needs_area = self.charge_density is not None or self.shannon_k is not None
        if needs_area != (self.electrode_area is not None):
            raise ArgumentError("charge_density and shannon_k go together with an electrode_area")
        if self.shannon_k is not None and not math.isfinite(self.shannon_k):
            raise ArgumentError(f"shannon_k must be finite, got {self.shannon_k}")

    def bounds(self, inputs: Sequence[Quantity], time_unit: str = "1") -> Bounds:
        """The limits as numbers of these inputs.

        Raises:
            ArgumentError: A name that no input has, or an input without an electrode area.
            UnitError: `shannon_k` for an input that is no current.
        """
        area = _each(self.electrode_area, inputs, "electrode_area")
        charge = np.minimum(
            _each(self.charge, inputs, "charge"),
            _each(self.charge_density, inputs, "charge_density") * area,
        )
        if self.shannon_k is not None:
            largest = np.sqrt(area * 10**self.shannon_k)  # in uC
            charge = np.minimum(charge, largest / _microcoulomb(inputs, time_unit))
        if (self.charge_density is not None or self.shannon_k is not None) and np.isinf(area).any():
            raise ArgumentError("every input needs an electrode_area, some have none")
        return Bounds(
            amplitude=_each(self.amplitude, inputs, "amplitude"),
            slew=_each(self.slew, inputs, "slew"),
            charge=charge,
            energy=math.inf if self.energy is None else float(self.energy),
            balanced=self.balanced,
            one_sided=self.one_sided,
        )

    def check(
        self,
        signal: Signal | FunctionSignal,
        inputs: Sequence[Quantity] | None = None,
        time_unit: str = "1",
        baseline: Any = 0.0,
    ) -> "LimitCheck":
        """Every limit beside what the signal does, exact for steps and lines.

        Args:
            signal: Taken to stand at the baseline before its first knot; it must have returned
                there at its last.
            inputs: Quantities of the signal's inputs, as `system.inputs`; unnamed by default.
            time_unit: The system's.
            baseline: The input without stimulus, a number or (input,).

        Raises:
            ArgumentError: Batch axes, impulses, a function of time, another number of inputs.
        """
        knots, values, hold, inputs, _ = _stimulus(signal, inputs, baseline)
        bounds = self.bounds(inputs, time_unit)
        rows = []
        for i, name in enumerate(flat_names(inputs)):
            course = Course(knots, values[:, i], hold)
            rows += _rows_of(name, course, bounds, i)
        energy, last = sum(Course(knots, v, hold).energy for v in values.T), knots[-1]
        if math.isfinite(bounds.energy):
            rows.append(LimitRow("energy", "all inputs", energy, bounds.energy, float(last)))
        return LimitCheck(tuple(rows), float(energy))

    def project(
        self,
        signal: Signal | FunctionSignal,
        inputs: Sequence[Quantity] | None = None,
        time_unit: str = "1",
        baseline: Any = 0.0,
    ) -> Signal:
        """The nearest signal with the same knots that keeps all limits.

        Nearest in the mean square over time with values taken at knots. The charge of a phase is no
        convex limit: a phase that exceeds it is scaled down, and what balances it likewise. The
        ends of lines, and the last step, are set to the baseline.

        Raises:
            ArgumentError: As `check`; a slew limit for steps.
        """
        knots, values, hold, inputs, rest = _stimulus(signal, inputs, baseline)
        bounds = self.bounds(inputs, time_unit)
        kept = project_values(values, knots, hold, bounds)
        for i in range(kept.shape[1]):
            for begin, end, charge in Course(knots, kept[:, i], hold).phases():
                if abs(charge) > bounds.charge[i]:
                    inside = (knots >= begin) & (knots <= end) & (kept[:, i] * charge > 0)
                    kept[inside, i] *= bounds.charge[i] / abs(charge)
        if self.balanced:
            kept = balanced_by_scaling(kept, knots, hold)
        return Signal(knots, kept + rest, hold)


@dataclass(frozen=True)
class LimitRow:
    """One limit of one input: what the signal reaches, what is allowed, and when it is worst."""

    limit: str
    input: str
    value: float
    allowed: float
    time: float

    @property
    def is_kept(self) -> bool:
        """Whether the value lies within what is allowed, up to rounding."""
        return self.value <= self.allowed * (1 + TOLERANCE)


@dataclass(frozen=True)
class LimitCheck:
    """A signal beside its limits.

    Attributes:
        rows: One a limit and input; the balance of an input is that of its charge to the total
            charge that it moves, allowed up to rounding.
        energy: Integral of the squared deviation over all inputs.
    """

    rows: tuple[LimitRow, ...]
    energy: float

    @property
    def is_within(self) -> bool:
        """Whether every limit is kept."""
        return all(row.is_kept for row in self.rows)

    @property
    def verdict(self) -> str:
        """ "within limits", "no limits", or which are exceeded, by what and when."""
        if not self.rows:
            return "no limits"
        bad = [row for row in self.rows if not row.is_kept]
        if not bad:
            return "within limits"
        shown = [
            f"{row.limit} of {row.input} ({row.value:.4g} of {row.allowed:.4g} at {row.time:.4g})"
            for row in bad[:5]
        ]
        return "exceeded: " + "; ".join(shown) + ("; and more" if len(bad) > 5 else "")

    def to_pandas(self) -> pd.DataFrame:
        """Columns limit, input, value, allowed, time, is_kept."""
        columns = ["limit", "input", "value", "allowed", "time", "is_kept"]
        return pd.DataFrame([{**vars(r), "is_kept": r.is_kept} for r in self.rows], columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return {
            "verdict": self.verdict,
            "is_within": self.is_within,
            "energy": self.energy,
            "rows": [{**vars(row), "is_kept": row.is_kept} for row in self.rows],
        }


def _rows_of(name: str, course: Course, bounds: Bounds, i: int) -> list[LimitRow]:
    """The limits of one input."""
    rows = []
    largest = int(np.abs(course.values).argmax())
    peak, when = float(abs(course.values[largest])), float(course.knots[largest])
    if math.isfinite(bounds.amplitude[i]):
        rows.append(LimitRow("amplitude", name, peak, float(bounds.amplitude[i]), when))
    if math.isfinite(bounds.slew[i]):
        rate, when = course.steepest()
        rows.append(LimitRow("slew", name, rate, float(bounds.slew[i]), when))
    if math.isfinite(bounds.charge[i]):
        phases = [*course.phases(), (float(course.knots[0]), 0.0, 0.0)]
        begin, _, charge = max(phases, key=lambda phase: abs(phase[2]))
        rows.append(LimitRow("charge", name, abs(charge), float(bounds.charge[i]), begin))
    if bounds.balanced:
        last = float(course.knots[-1])
        rows.append(LimitRow("balance", name, course.imbalance, TOLERANCE, last))
    if bounds.one_sided:
        lowest = int(course.values.argmin())
        below = max(0.0, -float(course.values[lowest]))
        rows.append(LimitRow("sign", name, below, 0.0, float(course.knots[lowest])))
    if course.values[-1] != 0:
        last = float(course.knots[-1])
        rows.append(LimitRow("end", name, float(abs(course.values[-1])), 0.0, last))
    return rows


def _stimulus(
    signal: Signal | FunctionSignal, inputs: Sequence[Quantity] | None, baseline: Any
) -> tuple[np.ndarray, np.ndarray, str, Sequence[Quantity], np.ndarray]:
    """Knots, deviations from the baseline and hold of one signal, its inputs, the baseline."""
    if isinstance(signal, FunctionSignal):
        raise ArgumentError(
            "the limits of a function of time cannot be checked exactly",
            fix="give it as a Signal with knots, as the waveforms do",
        )
    if signal.impulses is not None:
        raise ArgumentError(
            "an impulse has no finite amplitude, so no limit holds for it",
            fix="give its charge as a value over a short interval",
        )
    if signal.batch_shape:
        raise ArgumentError(
            f"the signal has batch axes {tuple(signal.batch_shape)}", fix="check its members"
        )
    if inputs is None:
        inputs = [Quantity(f"u{i + 1}", "1") for i in range(signal.n_inputs)]
    if len(flat_names(inputs)) != signal.n_inputs:
        raise ArgumentError(
            f"the signal has {signal.n_inputs} inputs, {len(flat_names(inputs))} were named"
        )
    knots = signal.knots.detach().cpu().numpy()
    rest = torch.as_tensor(baseline, dtype=torch.float64).detach().cpu().numpy()
    values = signal.values.detach().double().cpu().numpy() - rest
    if not np.isfinite(values).all():
        raise ArgumentError("the signal has values that are not finite")
    if not np.isfinite(knots).all():
        raise ArgumentError("a stimulus begins and ends at finite times")
    size = np.maximum(np.abs(values).max(axis=0), np.abs(rest))
    values[np.abs(values) <= ZERO * size] = 0.0  # what adding and subtracting a baseline leaves
    return knots, values, signal.hold, inputs, rest


def _each(given: PerInput, inputs: Sequence[Quantity], what: str) -> np.ndarray:
    """One limit for every input; infinite where there is none."""
    n = len(flat_names(inputs))
    if not isinstance(given, Mapping):
        return np.full(n, math.inf if given is None else float(given))
    values = np.full(n, math.inf)
    for name, value in given.items():
        values[positions(inputs, name, f"input with a limit of {what}")] = float(value)
    return values


def _microcoulomb(inputs: Sequence[Quantity], time_unit: str) -> np.ndarray:
    """How many uC one unit of charge of each input is."""
    factors = []
    for quantity in inputs:
        unit = parse_unit(quantity.unit) * parse_unit(time_unit)
        if not unit.has_dimension_of(parse_unit("uC")):
            raise UnitError(
                f"shannon_k needs a current, and input '{quantity.name}' is in {quantity.unit}",
                fix="give charge or charge_density in the input's own unit",
            )
        factors += [unit.factor_to(parse_unit("uC"))] * quantity.size
    return np.array(factors)
