"""Closed-loop stimulation of a model: measure, decide, hold the decision for an interval, repeat.

The policy sees outputs at samples only and is asked once an interval; what it asks for passes the
limits before it is given. Between decisions the amplitude is held, or ramped where slew is limited,
or carried by pulses whose amplitude it sets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.control.stimulation.course import Course
from clinode.control.stimulation.limits import LimitCheck, StimulusLimits
from clinode.control.stimulation.policies import Measurement, Policy
from clinode.control.stimulation.projection import Bounds
from clinode.control.stimulation.trajectory_cost import stimulating
from clinode.control.stimulation.waveforms import BiphasicPulses, Pulses, Sine
from clinode.dynamics.simulate import Trajectory, simulate
from clinode.errors import ArgumentError
from clinode.system import Signal, System, Values, flat_names

HALVINGS = 60  # of an amplitude that the energy left does not pay for
BALANCED = 1e-9  # net charge of a carrier over all that it moves, from which on it is not


@dataclass(frozen=True, eq=False)
class AdaptiveRun:
    """What a closed loop did.

    Attributes:
        signal: All inputs of the system over time; it may ramp down after the last decision.
        trajectory: States and outputs at the samples.
        decisions: Times of the decisions, (interval,).
        asked: What the policy asked for, (interval, input).
        amplitudes: What it was given within the limits, (interval, input).
        inputs: Names of the stimulating inputs.
        energy: Integral of the squared deviation from the resting input.
        share_on: Share of the intervals with stimulation.
        limits: Each limit beside what the signal does.
    """

    signal: Signal
    trajectory: Trajectory
    decisions: Float[Tensor, " interval"]
    asked: Float[Tensor, "interval input"]
    amplitudes: Float[Tensor, "interval input"]
    inputs: tuple[str, ...]
    energy: float
    share_on: float
    limits: LimitCheck

    @property
    def verdict(self) -> str:
        """How much was stimulated, in words."""
        cut = int((self.asked != self.amplitudes).any(dim=-1).sum())
        held_back = f"; the limits held back {cut} of {len(self.asked)} decisions" if cut else ""
        return f"stimulated {self.share_on:.0%} of the time{held_back}; {self.limits.verdict}"

    def to_pandas(self) -> pd.DataFrame:
        """One row a decision: its time, and for each input what was asked and what was given."""
        columns = {f"time ({self.trajectory.time_unit})": self.decisions.numpy()}
        for i, name in enumerate(self.inputs):
            columns[f"{name} asked"] = self.asked[:, i].numpy()
            columns[f"{name} given"] = self.amplitudes[:, i].numpy()
        return pd.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return {
            "verdict": self.verdict,
            "inputs": list(self.inputs),
            "decisions": self.decisions.tolist(),
            "asked": self.asked.tolist(),
            "amplitudes": self.amplitudes.tolist(),
            "energy": self.energy,
            "share_on": self.share_on,
            "limits": self.limits.to_dict(),
        }


def adaptive_stimulation(
    system: System,
    x0: Values,
    policy: Policy,
    *,
    duration: float,
    interval: float,
    inputs: Sequence[str] | None = None,
    u: Values = 0.0,
    limits: StimulusLimits | None = None,
    carrier: Pulses | BiphasicPulses | Sine | None = None,
    n_samples: int = 16,
    **solver: Any,
) -> AdaptiveRun:
    """Run a system in closed loop with a policy.

    Args:
        system: A system without delays; learned ones too.
        x0: Its state at the start, (state,).
        policy: Gives the amplitudes of the next interval from the measurements so far: `OnDemand`,
            `Proportional`, `RecedingHorizon`, or any function of a `Measurement`.
        duration: In time units, a whole number of intervals.
        interval: Between decisions.
        inputs: Names of inputs or blocks that stimulate; all by default.
        u: The resting input, a number or (input,).
        limits: Of the deviation from it. What is asked beyond them is cut down, and energy that is
            spent is not there any more.
        carrier: Pulses or a sine whose amplitude the policy sets, begun anew in each interval. A
            held amplitude by default, or a ramp to it where slew is limited.
        n_samples: Measurements an interval.
        solver: As in `simulate`: `method`, `step`, `generator` for a system with noise.

    Raises:
        ArgumentError: Shapes or names that do not fit, a duration that is no whole number of
            intervals, a system with delays; limits of balance or of charge that only a carrier can
            keep; an answer of the policy that is not finite.
        SolverError: The system could not be solved.
    """
    loop = _Loop(system, x0, u, interval, inputs, limits or StimulusLimits(), carrier)
    n = round(duration / interval)
    if n < 1 or not math.isclose(n * interval, duration, rel_tol=1e-9):
        raise ArgumentError(f"duration {duration} is no whole number of intervals of {interval}")
    if n_samples < 1:
        raise ArgumentError(f"n_samples must be at least 1, got {n_samples}")
    for k in range(n):
        loop.advance(policy, k, n_samples, solver)
    return loop.result()


class _Loop:
    """A closed loop on its way."""

    def __init__(
        self,
        system: System,
        x0: Values,
        u: Values,
        interval: float,
        inputs: Sequence[str] | None,
        limits: StimulusLimits,
        carrier: Pulses | BiphasicPulses | Sine | None,
    ):
        if system.delays:
            raise ArgumentError(
                f"{type(system).__name__} has delays, and a closed loop begins each interval anew, "
                "without its past",
                fix="the same system without delays",
            )
        if not (math.isfinite(interval) and interval > 0):
            raise ArgumentError(f"interval must be positive and finite, got {interval}")
        self.system, self.interval, self.limits = system, interval, limits
        self.x = torch.as_tensor(x0, dtype=torch.float64)
        if self.x.shape != (system.n_states,):
            raise ArgumentError(
                f"x0 has shape {tuple(self.x.shape)}, expected ({system.n_states},)"
            )
        self.quantities, self.places = stimulating(system, inputs)
        self.u = torch.as_tensor(u, dtype=torch.float64).expand(system.n_inputs)
        bounds = limits.bounds(self.quantities, system.time_unit)
        self.gate = _Gate(bounds, interval, carrier, system.time_unit)
        m = len(self.places)
        self.amplitudes = torch.zeros(0, m, dtype=torch.float64)
        self.asked = torch.zeros(0, m, dtype=torch.float64)
        self.knots: list[np.ndarray] = []
        self.values: list[np.ndarray] = []
        start = system.output(0.0, self.x, self.u).detach()
        self.times = torch.zeros(1, dtype=torch.float64)
        self.states, self.outputs = self.x.unsqueeze(0), start.unsqueeze(0)
        self.runs: list[Trajectory] = []

    def advance(self, policy: Policy, k: int, n_samples: int, solver: dict[str, Any]) -> None:
        """One decision and its interval."""
        measured = Measurement(
            self.times, self.outputs, self.system.output_names, self.amplitudes, self.interval
        )
        asked = torch.as_tensor(policy(measured), dtype=torch.float64).detach()
        asked = asked.expand(len(self.places))
        if not asked.isfinite().all():
            raise ArgumentError(f"the policy's answer at decision {k} is not finite")
        given, offsets, values = self.gate.passed(asked.numpy())
        signal = self._signal(k * self.interval + offsets, values)
        fractions = torch.arange(n_samples + 1, dtype=torch.float64) / n_samples
        times = (k + fractions) * self.interval
        run = simulate(self.system, self.x, times, signal, **solver)
        self.x = run.states[-1].detach()
        self.runs.append(run)
        self.times = torch.cat([self.times, times[1:]])
        self.states = torch.cat([self.states, run.states[1:].detach()])
        self.outputs = torch.cat([self.outputs, run.outputs[1:].detach()])
        self.asked = torch.cat([self.asked, asked.unsqueeze(0)])
        self.amplitudes = torch.cat([self.amplitudes, torch.tensor(given).unsqueeze(0)])
        self.knots.append(k * self.interval + offsets)
        self.values.append(values)

    def result(self) -> AdaptiveRun:
        offsets, values = self.gate.ending()
        end = len(self.runs) * self.interval
        signal = self._signal(
            np.concatenate([*self.knots, end + offsets]), np.concatenate([*self.values, values])
        )
        chosen = Signal(signal.knots, signal.values[:, self.places], signal.hold)
        check = self.limits.check(
            chosen, self.quantities, self.system.time_unit, self.u[self.places]
        )
        whole = replace(
            self.runs[-1],
            times=self.times,
            states=self.states,
            outputs=self.outputs,
            n_evaluations=np.asarray(sum(run.n_evaluations for run in self.runs)),
            events=pd.concat([run.events for run in self.runs], ignore_index=True),
            event_times=torch.cat([run.event_times for run in self.runs]),
        )
        return AdaptiveRun(
            signal=signal,
            trajectory=whole,
            decisions=self.interval * torch.arange(len(self.runs), dtype=torch.float64),
            asked=self.asked,
            amplitudes=self.amplitudes,
            inputs=flat_names(self.quantities),
            energy=check.energy,
            share_on=float((self.amplitudes != 0).any(dim=-1).double().mean()),
            limits=check,
        )

    def _signal(self, knots: np.ndarray, values: np.ndarray) -> Signal:
        whole = self.u.repeat(len(knots), 1)
        whole[:, self.places] += torch.tensor(values)
        return Signal(knots, whole, self.gate.hold)


class _Gate:
    """What is given of what is asked, interval by interval, so that all limits are kept.

    Args:
        bounds: Of the stimulating inputs.
        interval: That an amplitude lasts.
        carrier: What carries it.
        time_unit: For the carrier.
    """

    def __init__(
        self,
        bounds: Bounds,
        interval: float,
        carrier: Pulses | BiphasicPulses | Sine | None,
        time_unit: str,
    ):
        self.bounds, self.interval = bounds, interval
        self.most = bounds.amplitude.copy()
        self.spent = 0.0
        self.last = np.zeros_like(self.most)
        self.is_ramped = carrier is None and bool(np.isfinite(bounds.slew).any())
        self.hold = "linear" if self.is_ramped else "previous"
        if carrier is None:
            self._check_uncarried()
        else:
            self._carry(carrier, time_unit)

    def passed(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Amplitudes given, and knots from the decision on with their values."""
        low = np.zeros_like(self.most) if self.bounds.one_sided else -self.most
        given = np.clip(asked, low, self.most)
        if self.is_ramped:
            rise = self.bounds.slew * self.interval
            given = np.clip(given, self.last - rise, self.last + rise)
        given = self._affordable(given)
        offsets, values = self._piece(given)
        self.spent += self._energy(self.last, given)
        self.last = given
        return given, offsets, values

    def ending(self) -> tuple[np.ndarray, np.ndarray]:
        """Back to rest after the last decision."""
        if not self.is_ramped:
            return np.array([0.0]), np.zeros((1, len(self.last)))
        values = [self.last]
        while values[-1].any():
            values.append(self._towards_rest(values[-1]))
        return self.interval * np.arange(len(values)), np.stack(values)

    def _affordable(self, given: np.ndarray) -> np.ndarray:
        """The nearest to what is given that leaves energy for the way back to rest."""
        left = self.bounds.energy - self.spent
        if not math.isfinite(left) or self._cost(given) <= left:
            return given
        rest = self._towards_rest(self.last) if self.is_ramped else np.zeros_like(given)
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            is_paid = self._cost(rest + middle * (given - rest)) <= left
            low, high = (middle, high) if is_paid else (low, middle)
        return rest + low * (given - rest)

    def _cost(self, given: np.ndarray) -> float:
        """Energy of the interval, and of the ramp to rest that must follow."""
        energy, value = self._energy(self.last, given), given
        while self.is_ramped and value.any():
            lower = self._towards_rest(value)
            energy, value = energy + self._energy(value, lower), lower
        return energy

    def _energy(self, before: np.ndarray, given: np.ndarray) -> float:
        if self.is_ramped:
            squares = before**2 + before * given + given**2
            return float(squares.sum()) * self.interval / 3
        return float((given**2).sum()) * self.unit_energy

    def _towards_rest(self, value: np.ndarray) -> np.ndarray:
        """As far as the slew allows in an interval."""
        rise = self.bounds.slew * self.interval
        return np.sign(value) * np.maximum(np.abs(value) - rise, 0.0)

    def _piece(self, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.is_ramped:
            return np.array([0.0, self.interval]), np.stack([self.last, given])
        return self.offsets, self.shape[:, None] * given

    def _check_uncarried(self) -> None:
        if self.bounds.balanced or np.isfinite(self.bounds.charge).any():
            raise ArgumentError(
                "an amplitude that is held from decision to decision keeps no limit of balance or "
                "of the charge of a phase",
                fix="carrier=BiphasicPulses(...), whose pulses keep both",
            )
        self.offsets, self.shape = np.array([0.0]), np.array([1.0])
        self.unit_energy = self.interval

    def _carry(self, carrier: Pulses | BiphasicPulses | Sine, time_unit: str) -> None:
        """Take the shape of the carrier in one interval, and what it allows the amplitude to be."""
        basis = replace(carrier, modulated=False).basis(self.interval, time_unit)
        self.offsets, self.shape, self.hold = basis.knots, basis.shapes[:, 0], basis.hold
        course = Course(self.offsets, self.shape, self.hold)
        self.unit_energy = course.energy
        if self.bounds.balanced and course.imbalance > BALANCED:
            raise ArgumentError(
                f"the pulses of this {type(carrier).__name__} are not balanced, as the limits ask",
                fix="carrier=BiphasicPulses(...)",
            )
        steepest = course.steepest()[0]
        if not math.isfinite(steepest) and np.isfinite(self.bounds.slew).any():
            raise ArgumentError(
                "the slew limit excludes every pulse with vertical edges", fix="a ramp"
            )
        charge = max(abs(phase[2]) for phase in course.phases())
        self.most = np.minimum(self.most, self.bounds.charge / charge)
        if math.isfinite(steepest):
            self.most = np.minimum(self.most, self.bounds.slew / steepest)
