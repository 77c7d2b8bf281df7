"""Design of a stimulus within limits: by the linear theory, in the nonlinear model, and checked.

Three steps that do not trust each other. The linearization gives the stimulus that brings the
target nearest within the limits (a bounded least squares problem, exact in time). Gauss-Newton in
the nonlinear model improves it, along exact gradients of a trajectory in fixed steps. The design is
then run in the model once more by an adaptive solver, and that is what the verdict rests on.

What comes out describes the model, not a patient.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinode.control.stimulation.approach import Approach, Refined
from clinode.control.stimulation.design import DesignSpace, effect_of_knots
from clinode.control.stimulation.goal import Goal, Target, goal_of
from clinode.control.stimulation.limits import StimulusLimits
from clinode.control.stimulation.rollout import check_rolls, in_double
from clinode.control.stimulation.stimulus import Outcome, Stimulus
from clinode.control.stimulation.waveforms import Free, Waveform, waveform_named
from clinode.dynamics.equilibria import Equilibrium
from clinode.dynamics.linearize import linearize
from clinode.dynamics.simulate import Trajectory, simulate
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Signal, System
from clinode.units import quantity

N_TIMES = 201  # at which effects are reported
STEPS = 40  # of the search up to the horizon, at least
FRACTION = 1.0  # of the fastest time constant at rest: largest step of the search
HALVINGS = 3  # of the step, where the adaptive solver contradicts the search
TRUSTED = 1e-3  # share of the distance by which the two may differ
SEARCHED, SLACK = 1e-3, 5.0  # of the tolerance: where the search ends, and what it may spend
PRECISE: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-12}


def stimulate(
    system: System,
    equilibrium: Equilibrium,
    target: Target,
    limits: StimulusLimits | None = None,
    *,
    inputs: Sequence[str] | None = None,
    horizon: float | str | None = None,
    waveform: str | Waveform = "free",
    refine: bool = True,
    tolerance: float = 0.01,
    step: float | None = None,
    method: str = "dopri5",
) -> Stimulus:
    """The stimulus that takes a system from an equilibrium nearest to a target, within limits.

    Of the stimuli that come equally near the one of least energy is meant, found up to the local
    optimum that the linear theory's design leads to. With delays the linear theory is that at zero
    delay, and only the check has them.

    Args:
        system: A flow: written down or learned.
        equilibrium: Where it starts, from `find_equilibria` of it.
        target: Wanted at the horizon: (state,) values, values by name of states or outputs (the
            others are free), or another equilibrium. Of a learned system: outputs.
        limits: Of the deviation from the resting input; none by default.
        inputs: Names of inputs or blocks that stimulate; all by default.
        horizon: In the system's time unit, or text: "50 ms". By default the slowest time constant
            at the equilibrium.
        waveform: "free", or a `Waveform`: BiphasicPulses(frequency="130 Hz", width="0.1 ms").
            "free" are steps, and lines where there is a slew limit.
        refine: Whether to search in the nonlinear model too; False keeps the linear design.
        tolerance: Share of the distance that may be left of a target that counts as reached.
        step: Largest step of the search; by default the fastest time constant and a fortieth
            of the horizon, and less where the adaptive solver contradicts it.
        method: Of the check: "dopri5", or "rosenbrock" for a stiff system. With delays it is "rk4".

    Returns:
        The design, however far it comes; `verdict` says how far, and what holds it back.

    Raises:
        ArgumentError: Limits that exclude every stimulus of this waveform, unknown names, a map or
            a system with events, a target that is no finite vector of the right length.
        SolverError: The system does not rest at the equilibrium, or the check fails.

    Example:
        >>> from clinode.dynamics import find_equilibria
        >>> leak = LinearSystem([[-0.1]], [[1.0]], states=["V"], inputs=["I"])
        >>> rest = find_equilibria(leak)[0]
        >>> limits = StimulusLimits(amplitude=0.5)
        >>> stimulate(leak, rest, {"V": 2.0}, limits, horizon=10.0).verdict
        'reaches the target: less than 0.0001 % of the distance is left'
    """
    if refine or system.step is not None or system.events:
        check_rolls(system)
    system = in_double(system)
    goal = goal_of(system, target)
    linear = linearize(system, equilibrium, inputs=inputs)
    if not linear.n_inputs:
        raise ArgumentError(f"{type(system).__name__} has no inputs, so nothing stimulates it")
    if not tolerance > 0 or not (step is None or step > 0):
        raise ArgumentError(f"tolerance and step must be positive, got {tolerance} and {step}")
    duration = _horizon(horizon, equilibrium, system.time_unit)
    limits = StimulusLimits() if limits is None else limits
    bounds = limits.bounds(linear.inputs, system.time_unit)
    if waveform == "free" and np.isfinite(bounds.slew).any():
        waveform = Free(hold="linear")
    space = DesignSpace(waveform_named(waveform).basis(duration, system.time_unit), bounds)
    study = _Study(
        system=system,
        equilibrium=equilibrium,
        linear=linear,
        goal=goal,
        space=space,
        limits=limits,
        horizon=duration,
        tolerance=tolerance,
        step=_step(linear, duration) if step is None else float(step),
        method=method,
    )
    return study.stimulus(refine)


@dataclass(frozen=True, eq=False)
class _Study:
    """One design on its way: what `stimulate` was asked, resolved."""

    system: System
    equilibrium: Equilibrium
    linear: LinearSystem
    goal: Goal
    space: DesignSpace
    limits: StimulusLimits
    horizon: float
    tolerance: float
    step: float
    method: str

    def stimulus(self, refine: bool) -> Stimulus:
        rows = self.goal.rows(self.linear).numpy()
        basis = self.space.basis
        knots = effect_of_knots(self.linear, rows, basis.knots, basis.hold, self.horizon)
        S = self.space.effect(knots)
        before = self.goal.miss(self.goal.read(self.system, self._x0, self._u)).numpy()
        linear_c, _ = self.space.nearest(S, -before)
        distance = float(np.linalg.norm(before))
        whole = distance or 1.0
        first = self._run(linear_c, keep_failed=refine)
        refined, simulated, contradiction = None, first, 0.0
        if refine and distance > 0:
            refined, simulated, contradiction = self._search(linear_c, S, whole)
        c = linear_c if refined is None else refined.c
        signal = self._signal(c)
        chosen = Signal(signal.knots, signal.values[:, self._places], signal.hold)
        predicted = simulate(
            self.linear,
            self._x0,
            self._times,
            chosen,
            method="dopri5" if self.system.delays else self.method,
            **PRECISE,
        )
        resting = self._u[self._places]
        check = self.limits.check(chosen, self.linear.inputs, self.system.time_unit, resting)
        promised = float(np.linalg.norm(before + np.tensordot(S, linear_c, 2)))
        unrefined, left = self._distance(first), self._distance(simulated)
        outcome = Outcome(
            left=left / whole,
            promised=promised / whole,
            unrefined=unrefined / whole,
            tolerance=self.tolerance,
            is_blind=not np.abs(S).max() > 0,
            contradiction=contradiction / whole,
            check=check,
        )
        return Stimulus(
            signal=signal,
            input_quantities=self.system.inputs,
            inputs=self.linear.input_names,
            target=dict(zip(self.goal.names, self.goal.values.tolist(), strict=True)),
            horizon=self.horizon,
            time_unit=self.system.time_unit,
            predicted=predicted,
            simulated=simulated,
            distance_before=distance,
            distance_predicted=self._distance(predicted),
            distance=left,
            distance_promised=promised,
            distance_unrefined=unrefined,
            energy=check.energy,
            limits=check,
            is_reached=left <= self.tolerance * distance,
            verdict=outcome.words(),
            n_iterations=0 if refined is None else refined.n_iterations,
        )

    def _search(
        self, c: np.ndarray, S: np.ndarray, distance: float
    ) -> tuple[Refined, Trajectory, float]:
        """Gauss-Newton with steps that the adaptive solver confirms, and where they differ last."""
        precise, slack = (share * self.tolerance * distance for share in (SEARCHED, SLACK))
        n_halvings = 0
        while True:
            approach = Approach(
                self.system, self._x0, self._u, self._places, self.space, self.goal, self.horizon,
                self.step / 2**n_halvings,
            )  # fmt: skip
            refined = approach.refine(c, S, precise, slack, again=n_halvings > 0)
            simulated = self._run(refined.c)
            found = self._missing(simulated) if (simulated.status == "ok").all() else math.nan
            difference = float(np.linalg.norm(found - refined.miss))
            if difference <= TRUSTED * distance or n_halvings == HALVINGS:
                break
            c, n_halvings = refined.c, n_halvings + 1
        if not (simulated.status == "ok").all():
            simulated = self._run(refined.c, keep_failed=False)
        return refined, simulated, difference

    def _run(self, c: np.ndarray, keep_failed: bool = True) -> Trajectory:
        """The model under these coordinates."""
        if self.system.delays:
            solver: dict[str, Any] = {"method": "rk4", "step": self.step}
        else:
            solver = {"method": self.method, **PRECISE}
        signal = self._signal(c)
        return simulate(
            self.system, self._x0, self._times, signal, keep_failed=keep_failed, **solver
        )

    def _signal(self, c: np.ndarray) -> Signal:
        values = self._u.repeat(len(self.space.basis.knots), 1)
        values[:, self._places] += torch.tensor(self.space.values(c))
        return Signal(self.space.basis.knots, values, self.space.basis.hold)

    def _missing(self, run: Trajectory) -> np.ndarray:
        """What is missing at the horizon, in scales."""
        parts = [run.states[-1][list(self.goal.states)], run.outputs[-1][list(self.goal.outputs)]]
        return self.goal.miss(torch.cat(parts).detach()).numpy()

    def _distance(self, run: Trajectory) -> float:
        if not (run.status == "ok").all():
            return math.inf
        return float(np.linalg.norm(self._missing(run)))

    @property
    def _x0(self) -> Tensor:
        return self.equilibrium.state.detach().double()

    @property
    def _u(self) -> Tensor:
        return self.equilibrium.u.detach().double()

    @property
    def _times(self) -> Tensor:
        return torch.linspace(0.0, self.horizon, N_TIMES, dtype=torch.float64)

    @property
    def _places(self) -> list[int]:
        """Positions of the stimulating inputs among all."""
        names = self.system.input_names
        return [names.index(name) for name in self.linear.input_names]


def _horizon(given: float | str | None, equilibrium: Equilibrium, time_unit: str) -> float:
    if given is None:
        slowest = float(equilibrium.eigenvalues.real.abs().min())
        if not slowest > 0:
            raise ArgumentError(
                "the equilibrium has no slowest time constant to take for a horizon",
                fix="horizon=...",
            )
        return 1 / slowest
    horizon = quantity(given, time_unit) if isinstance(given, str) else float(given)
    if not (math.isfinite(horizon) and horizon > 0):
        raise ArgumentError(f"horizon must be positive and finite, got {given}")
    return horizon


def _step(linear: LinearSystem, horizon: float) -> float:
    fastest = float(torch.linalg.eigvals(linear.A.detach()).abs().max())
    return min(horizon / STEPS, FRACTION / fastest if fastest > 0 else math.inf)
