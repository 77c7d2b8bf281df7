"""A designed stimulus beside its effect, and the words for how far it comes."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from clinode.control.stimulation.limits import LimitCheck
from clinode.dynamics.simulate import Trajectory
from clinode.system import Quantity, Signal, flat_names

MISLEADS = 0.1  # share of the distance by which the linear theory may be wrong unmentioned
FULL = 0.999  # of a limit, from which on it counts as reached
NEARER = 1e-6  # share of the distance below which a design gained nothing


@dataclass(frozen=True, eq=False)
class Stimulus:
    """A stimulus and what it does, by the linear theory and in the model.

    Distances are Euclidean, in the targets' unit where they share one, else in widths of ranges.

    Attributes:
        signal: All inputs of the system over time, as `simulate` takes them.
        input_quantities: What stands on the last axis of the signal.
        inputs: Names of those that stimulate.
        target: Wanted values by name.
        horizon: When they are wanted, from the onset.
        time_unit: The system's.
        predicted: What the linear theory says that this signal does.
        simulated: What it does in the model, by an adaptive solver.
        distance_before: From the equilibrium to the target.
        distance_predicted: From the end of `predicted` to the target.
        distance: From the end of `simulated` to the target: what is left.
        distance_promised: What the linear theory's own design leaves by that theory.
        distance_unrefined: What that design leaves in the model; infinite where it has no end.
        energy: Integral of the squared deviation from the resting input, over all inputs.
        limits: Each limit beside what the signal does.
        is_reached: Whether what is left is within the tolerance.
        verdict: All of it in words: "reaches the target", "gets within x % of it" and what holds it
            back, "does not get nearer", "undecided"; and where the linear theory misleads.
        n_iterations: Of the search in the nonlinear model; 0 where there was none.
    """

    signal: Signal
    input_quantities: tuple[Quantity, ...]
    inputs: tuple[str, ...]
    target: dict[str, float]
    horizon: float
    time_unit: str
    predicted: Trajectory
    simulated: Trajectory
    distance_before: float
    distance_predicted: float
    distance: float
    distance_promised: float
    distance_unrefined: float
    energy: float
    limits: LimitCheck
    is_reached: bool
    verdict: str
    n_iterations: int

    def to_pandas(self) -> pd.DataFrame:
        """One row a time: the stimulating inputs, then each target predicted and simulated."""
        times = self.simulated.times.numpy()
        columns = {f"time ({self.time_unit})": times}
        values = self.signal(self.simulated.times)
        for place, name in zip(self._places, self.inputs, strict=True):
            columns[name] = values[:, place].numpy()
        for name in self.target:
            columns[f"{name} predicted"] = course_of(self.predicted, name)
            columns[f"{name} simulated"] = course_of(self.simulated, name)
        return pd.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        finite = {
            name: value if math.isfinite(value) else None
            for name, value in vars(self).items()
            if name.startswith("distance")
        }
        return {
            "verdict": self.verdict,
            "is_reached": self.is_reached,
            "inputs": list(self.inputs),
            "target": self.target,
            "end_predicted": {n: float(course_of(self.predicted, n)[-1]) for n in self.target},
            "end_simulated": {n: float(course_of(self.simulated, n)[-1]) for n in self.target},
            "horizon": self.horizon,
            "time_unit": self.time_unit,
            **finite,
            "energy": self.energy,
            "limits": self.limits.to_dict(),
            "n_iterations": self.n_iterations,
            "signal": {
                "hold": self.signal.hold,
                "knots": self.signal.knots.tolist(),
                "values": self.signal.values[:, list(self._places)].tolist(),
            },
        }

    @property
    def _places(self) -> tuple[int, ...]:
        names = flat_names(self.input_quantities)
        return tuple(names.index(name) for name in self.inputs)


def course_of(trajectory: Trajectory, name: str) -> np.ndarray:
    """A state or an output over time, (time,), by its flat name."""
    for quantities, values in (
        (trajectory.state_quantities, trajectory.states),
        (trajectory.output_quantities, trajectory.outputs),
    ):
        names = flat_names(quantities)
        if name in names:
            return values[:, names.index(name)].detach().numpy()
    raise KeyError(name)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Shares of the distance to the target that are left, and what the words need beside them.

    Attributes:
        left: By the design that is handed over, in the model.
        promised: By the linear design, by the linear theory.
        unrefined: By the linear design, in the model; infinite where it has no end.
        tolerance: What may be left of a target that counts as reached.
        is_blind: Whether to first order no stimulus moves the target.
        contradiction: By how much the search and the adaptive solver disagree.
        check: Of the limits.
    """

    left: float
    promised: float
    unrefined: float
    tolerance: float
    is_blind: bool
    contradiction: float
    check: LimitCheck

    def words(self) -> str:
        """The verdict."""
        parts = [self._arrival()]
        if not self.check.is_within:
            parts.append(self.check.verdict)
        if abs(self.unrefined - self.promised) > MISLEADS:
            shown = (
                f"leaves {_percent(self.unrefined)}" if math.isfinite(self.unrefined) else "fails"
            )
            parts.append(
                f"linear prediction misleads: its own design, promised to leave "
                f"{_percent(self.promised)}, {shown} in the model"
            )
        if self.contradiction > self.tolerance:
            parts.append(
                f"the search was off by {_percent(self.contradiction)} of the distance: give it a "
                "smaller step"
            )
        return "; ".join(parts)

    def _arrival(self) -> str:
        if self.left <= self.tolerance:
            return f"reaches the target: {_percent(self.left)} of the distance is left"
        if self.is_blind:
            return (
                "undecided: to first order these inputs do not move the target at all; "
                "controllability of the linearization says why"
            )
        if self.left >= 1 - NEARER:
            return "does not get nearer to the target"
        within = f"gets within {_percent(self.left)} of the distance to the target"
        full = sorted(
            {
                row.limit
                for row in self.check.rows
                if row.limit in ("amplitude", "slew", "charge", "energy")
                and row.value >= FULL * row.allowed
            }
        )
        if full:
            return f"{within}, at the limit of {' and '.join(full)}"
        return f"{within}: more is not in reach of this waveform, horizon and model from here"


def _percent(share: float) -> str:
    if share < 1e-6:  # what is left is rounding, and the price of energy
        return "less than 0.0001 %"
    return f"{100 * share:.0f} %" if share >= 1 else f"{100 * share:.2g} %"
