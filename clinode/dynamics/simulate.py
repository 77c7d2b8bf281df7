"""Simulate any `System`: states and outputs at asked times, under an input over time."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError, SolverError
from clinode.system import (
    Quantity,
    Signal,
    System,
    Values,
    as_signal,
    flat_names,
    positions,
    present,
)

from .adaptive import ADAPTIVE, solve_adaptive
from .compiled import solve_compiled_or
from .compiled_fixed import solve_compiled_fixed_or
from .delays import History, solve_delayed
from .fixed_step import FIXED_STEP, iterate, solve_fixed
from .reference import REFERENCE, solve_reference
from .solvers import Limits, Problem, Solution, Status, select
from .stochastic import STOCHASTIC, solve_stochastic

STEPPED = tuple(dict.fromkeys((*FIXED_STEP, *STOCHASTIC)))
METHODS = (*ADAPTIVE, *STEPPED, *REFERENCE)
COMPILED = (*ADAPTIVE, *FIXED_STEP)


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What a system did.

    Attributes:
        times: (time,), or (*batch, time) where each trajectory has its own.
        states: (*batch, time, state). At the time of an impulse: just before it.
        outputs: (*batch, time, output).
        events: One row an event: trajectory (counted over the batch axes in C order), time, name.
        event_times: The times of that table once more, (event,), with their gradients.
        status: (*batch): "ok", or why the solution ended ("not finite", "step underflow", "step
            budget", "wall time", "chattering": events without end). States and outputs after that
            are NaN.
        reached: (*batch), the last time with a known state.
        n_evaluations: (*batch), evaluations of the vector field, those for Jacobians not counted.
        time_unit: Unit of the times.
        state_quantities: What stands on the last axis of the states.
        output_quantities: What stands on the last axis of the outputs.
        backend: Which loop solved it: "eager" or "compiled".
    """

    times: Float[Tensor, "*times time"]
    states: Float[Tensor, "*batch time state"]
    outputs: Float[Tensor, "*batch time output"]
    events: pd.DataFrame
    event_times: Float[Tensor, " event"]
    status: np.ndarray
    reached: np.ndarray
    n_evaluations: np.ndarray
    time_unit: str
    state_quantities: tuple[Quantity, ...]
    output_quantities: tuple[Quantity, ...]
    backend: str = "eager"

    def to_pandas(self) -> pd.DataFrame:
        """One row a trajectory and time; columns carry their unit: `time (h)`, `MAP (mmHg)`.

        States first, then the outputs that do not repeat a state. Batches have a leading column
        `trajectory`, numbered from 0 (over several batch axes: in C order).
        """
        batch, n_times = self.states.shape[:-2], self.states.shape[-2]
        times = self.times.detach().expand(*batch, n_times)
        columns: dict[str, np.ndarray] = {}
        if batch:
            columns["trajectory"] = np.repeat(np.arange(math.prod(batch)), n_times)
        columns[f"time ({self.time_unit})"] = times.reshape(-1).cpu().numpy()
        for quantities, values in (
            (self.state_quantities, self.states),
            (self.output_quantities, self.outputs),
        ):
            flat = values.detach().reshape(-1, values.shape[-1]).cpu().numpy()
            for name, column in zip(_labels(quantities), flat.T, strict=True):
                columns.setdefault(name, column)
        return pd.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and words, for JSON; NaN where a trajectory was not solved."""
        return {
            "time_unit": self.time_unit,
            "times": self.times.tolist(),
            "state_names": list(flat_names(self.state_quantities)),
            "states": self.states.tolist(),
            "output_names": list(flat_names(self.output_quantities)),
            "outputs": self.outputs.tolist(),
            "events": self.events.to_dict(orient="list"),
            "status": self.status.tolist(),
            "reached": self.reached.tolist(),
            "n_evaluations": self.n_evaluations.tolist(),
            "backend": self.backend,
        }


def simulate(
    system: System,
    x0: Values | Mapping[str, float],
    times: Values,
    u: Any = 0.0,
    method: str = "dopri5",
    rtol: float = 1e-6,
    atol: float = 1e-9,
    generator: torch.Generator | None = None,
    *,
    step: float | None = None,
    max_steps: int = 5_000,
    wall_time_seconds: float = math.inf,
    keep_failed: bool = False,
    history: History | None = None,
    backend: str = "eager",
) -> Trajectory:
    """Solve dx/dt = f(t, x, u(t)) from x0 at times[0], and read out the system.

    Batch axes lead, and broadcast between `x0`, `times`, the input and the system's constants. Each
    trajectory has its own output times, steps and status, and is the same in any batch. No step
    jumps over a breakpoint of the input, so a pulse shorter than a step acts in full. An impulse
    moves the state by B dose, B = df/du, at its time: it acts in [times[0], times[-1]), and an
    output at its very time shows the state just before it. Pieces simulated one after the other
    therefore give what one simulation gives.

    Gradients flow to x0, the constants, the input and the times of events; they are those of the
    discrete solution with its steps held fixed.

    Events are found wherever their guard crosses zero on the solution between its steps, several in
    one step too, for all methods but those that draw noise (which look at the ends of their steps).
    The guard is looked at 13 times in a piece of a step, and the piece is halved until the looks
    show every crossing. What can stay unseen: an excursion of the guard across zero and back that
    lies between looks at a guard that is smooth at all of them, as a pulse in time that comes after
    a calm (give it as an input that states its `breaks`, or take short fixed steps); two crossings
    nearer than 1e-6 of a step, or than the error of the solution itself.

    A start outside the `range` of a state is allowed: a range is where values are plausible, not
    where the field is defined. Where it is not defined at the start the status is "not finite".

    Methods:
        "dopri5": adaptive, order 5 (Dormand & Prince). For what is not stiff.
        "rosenbrock": adaptive, order 4, L-stable (RODAS), with exact Jacobians. For stiff systems.
        "rk4" (order 4), "midpoint", "heun" (order 2), "euler" (order 1): fixed steps, error not
        controlled. A step in which an event happens ends there, to the order of the method.
        "torchdiffeq": its Dormand-Prince, one trajectory at a time: a reference. With
        "torchdiffeq_adjoint" gradients come from its adjoint equation, which stores no steps and is
        as exact as the tolerances.

    Args:
        system: A flow, or a map (a system with a `step`), which is iterated whatever the method.
        x0: (*batch, n_states), or values by state name over the states' defaults.
        times: (time,) or (*batch, time), increasing, in the system's time unit. Of a map: whole
            numbers of its step.
        u: A number for all inputs, a tensor (*batch, n_inputs) of constants, values by input name
            (the others zero), a `Signal`, or a function of time that states its `breaks`.
        method: One of the above.
        rtol: Relative tolerance of a step of the adaptive method.
        atol: Absolute tolerance of a step of the adaptive method, in the states' units.
        generator: Where the noise of a system comes from; required by the methods that draw it,
            with delays "euler" and "heun".
            Trajectories draw by their place in the batch, so their noise does not depend on mates.
        step: Largest step of a fixed-step method, in time units; required there, refused elsewhere.
        max_steps: Steps between two output times after which an adaptive solution of one trajectory
            is given up, or earlier where its pace says that it would need many times as many. Each
            event ends a step. Of a fixed-step method: events within one step.
        wall_time_seconds: Time after which what is not solved is given up.
        keep_failed: Return a trajectory that failed, NaN after its end, instead of raising.
        history: Of a system with delays, its states before times[0]: a function of times (...) that
            gives (..., n_states). The initial state by default.
        backend: "eager", or "compiled": the loop of an adaptive or Runge-Kutta method compiled once
            for this class of system, for many solutions after it; with delays that of "euler",
            delays being whole steps. Where that cannot be done a `CompileWarning` says why, and
            the result which backend solved it.

    Raises:
        ArgumentError: Shapes that do not fit, unknown names, times that do not increase, a missing
            or unneeded step or generator, an impulse on an input that enters nonlinearly, a method
            that cannot solve this kind of system.
        SolverError: A trajectory failed; the error names it, when, and what to try.

    Example:
        >>> from clinode.system import LinearSystem
        >>> decay = LinearSystem(A=[[-1.0]], B=[[1.0]])
        >>> simulate(decay, x0=[1.0], times=[0.0, 1.0], method="rk4", step=0.1).states
        tensor([[1.0000],
                [0.3679]], dtype=torch.float64)
    """
    limits = Limits(max_steps=max_steps, wall_time_seconds=wall_time_seconds)
    _check_call(system, method, step, generator, history)
    if backend not in ("eager", "compiled"):
        raise ArgumentError(f"backend must be 'eager' or 'compiled', got {backend!r}")
    if backend == "compiled" and (
        method not in COMPILED or system.step is not None or generator is not None
    ):
        raise ArgumentError(
            "only flows without noise are compiled, by adaptive and Runge-Kutta methods",
            fix=f"method= one of {', '.join(COMPILED)}, and no generator",
        )
    options = {"rtol": rtol, "atol": atol, "limits": limits}
    solve = _solver(system, method, step, generator, history, options)
    problem = _problem(system, x0, times, u)
    if backend == "compiled" and step is not None:
        fixed = {"step": step, "method": method, "history": history, "limits": limits}
        solution, backend = solve_compiled_fixed_or(solve, system, problem, **fixed)
    elif backend == "compiled":
        solution, backend = solve_compiled_or(solve, system, problem, method=method, **options)
    else:
        solution = solve(problem)
    failed = solution.status != Status.OK
    if failed.any() and not keep_failed:
        raise _failure(system, problem, solution)
    walked = method in ADAPTIVE or solution.events is not None or generator is not None
    if failed.any() and solution.states.requires_grad and problem.batch and not walked:
        # Zero times infinity in the backward pass of a failed trajectory would be NaN in the
        # gradient of constants that all share, so the graph is built again without it.
        states = torch.full_like(solution.states, math.nan, requires_grad=False)
        states[~failed] = solve(select(system, problem, ~failed)).states
        solution = replace(solution, states=states)
    return Trajectory(
        times=problem.times,
        states=solution.states,
        outputs=_outputs(system, problem, solution),
        **_events(system, solution),
        status=_words(solution.status),
        reached=solution.reached.cpu().numpy(),
        n_evaluations=solution.n_evaluations.cpu().numpy(),
        time_unit=system.time_unit,
        state_quantities=system.states,
        output_quantities=system.outputs,
        backend=backend,
    )


def _check_call(
    system: System,
    method: str,
    step: float | None,
    generator: torch.Generator | None,
    history: History | None,
) -> None:
    """Refuse what does not go together."""
    if method not in METHODS:
        raise ArgumentError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    is_map = system.step is not None
    if (step is None) == (method in STEPPED and not is_map):
        raise ArgumentError(
            f"method '{method}' needs a step" if step is None else "step is for fixed-step methods",
            fix=f"step=..., the largest step in {system.time_unit}" if step is None else "",
        )
    if step is not None and not (math.isfinite(step) and step > 0):
        raise ArgumentError(f"step must be positive and finite, got {step}")
    if history is not None and not system.delays:
        raise ArgumentError("history is for systems with delays")
    if not is_map:
        _check_kind(system, method, generator)


def _check_kind(system: System, method: str, generator: torch.Generator | None) -> None:
    """Refuse a method for a system with delays, events or noise that it cannot solve."""
    name = type(system).__name__
    if system.delays and method not in FIXED_STEP:
        raise ArgumentError(
            f"{name} has delays, and method '{method}' has no past",
            fix="method='rk4' and a step that is not longer than the shortest delay",
        )
    if system.delays and system.events:
        raise ArgumentError(f"{name} has delays, which are solved without events only")
    if system.events and method in REFERENCE:
        raise ArgumentError(f"method '{method}' sees no events", fix="dopri5 does")
    noisy = system.noise is not None
    if noisy and method in STOCHASTIC and generator is None:
        raise ArgumentError(
            f"{name} has noise, and method '{method}' draws it: it needs a generator",
            fix="generator=torch.Generator().manual_seed(...), or method='rk4' for the flow alone",
        )
    if noisy and method not in STOCHASTIC and generator is not None:
        raise ArgumentError(
            f"method '{method}' draws no noise",
            fix=f"one of {', '.join(STOCHASTIC)}, or no generator for the flow without its noise",
        )
    if method not in FIXED_STEP and method in STOCHASTIC and system.noise is None:
        raise ArgumentError(f"method '{method}' is for systems with noise, {name} has none")


def _solver(
    system: System,
    method: str,
    step: float | None,
    generator: torch.Generator | None,
    history: History | None,
    options: dict[str, Any],
) -> Callable[[Problem], Solution]:
    """What solves this kind of system by this method."""
    bind = functools.partial
    limits = options["limits"]
    if system.step is not None:
        return bind(iterate, step=system.step, limits=limits)
    if step is None:
        solve = solve_adaptive if method in ADAPTIVE else solve_reference
        return bind(solve, system, method=method, **options)
    stepped = {"step": step, "method": method, "limits": limits}
    if system.delays:
        drawn = None if system.noise is None else generator
        return bind(solve_delayed, system, history=history, generator=drawn, **stepped)
    if system.noise is not None and generator is not None:
        return bind(solve_stochastic, system, generator=generator, **stepped)
    return bind(solve_fixed, system, **stepped)


def _problem(system: System, x0: Values | Mapping[str, float], times: Values, u: Any) -> Problem:
    """Check shapes and give x0 every batch axis of the solution."""
    if isinstance(x0, Mapping):
        x0 = _named("state", x0, system.states, system.initial_state())
    if isinstance(u, Mapping):
        u = _named("input", u, system.inputs, torch.zeros(system.n_inputs, dtype=torch.float64))
    x = torch.as_tensor(x0, dtype=system.dtype, device=system.device)
    if x.ndim < 1 or x.shape[-1] != system.n_states:
        raise ArgumentError(
            f"x0 has shape {tuple(x.shape)}, expected batch axes and then {system.n_states} states"
        )
    t = torch.as_tensor(times, dtype=torch.float64, device=system.device).detach()
    if t.ndim < 1 or not t.numel():
        raise ArgumentError(
            f"times have shape {tuple(t.shape)}, expected (time,) or (*batch, time)"
        )
    if not t.isfinite().all() or not (t.diff(dim=-1) > 0).all():
        raise ArgumentError("times must be finite and increase")
    if not x.isfinite().all():
        raise ArgumentError("x0 has values that are not finite")
    signal = as_signal(u, system.n_inputs)
    if isinstance(signal, Signal):
        signal = signal.to(device=t.device)
    start = t[..., 0]
    try:
        shared = torch.broadcast_shapes(x.shape[:-1], start.shape, signal.batch_shape)
        with torch.no_grad():
            rate = system(start, x, signal(start).to(x), *_past(system, x))
            jumps = _event_shapes(system, start, x)
        batch = torch.broadcast_shapes(shared, rate.shape[:-1], *jumps)
    except RuntimeError as error:
        raise ArgumentError(
            f"batch axes of x0 {tuple(x.shape[:-1])}, times {tuple(t.shape[:-1])}, input "
            f"{tuple(signal.batch_shape)} and the system's constants do not broadcast"
        ) from error
    if rate.shape[-1] != system.n_states:
        raise ArgumentError(
            f"{type(system).__name__} gives {rate.shape[-1]} rates for {system.n_states} states"
        )
    if not batch.numel():
        raise ArgumentError(f"there is no trajectory: the batch has shape {tuple(batch)}")
    return Problem(system, x.expand(*batch, -1), t, signal)


def _event_shapes(system: System, t: Tensor, x: Tensor) -> list[torch.Size]:
    """Batch axes of what only events read: their guards, and constants of resets and rests."""
    if not system.events:
        return []
    guards = [event.guard(system, t, x).shape[:-1] for event in system.events]
    return guards + [getattr(system, constant.name).shape[:-1] for constant in system.constants]


def _past(system: System, x: Tensor) -> tuple[Any, ...]:
    """The further argument of the field of a system with delays, that has always been at x."""
    return (present(system, x),) if system.delays else ()


def _named(
    what: str, values: Mapping[str, float], quantities: Sequence[Quantity], start: Tensor
) -> Tensor:
    """Values by name, flat or of a whole block, over those of `start`."""
    filled = start.clone()
    for name, value in values.items():
        filled[positions(quantities, name, what)] = torch.as_tensor(value, dtype=filled.dtype)
    return filled


def _events(system: System, solution: Solution) -> dict[str, Any]:
    """The table of events and their times with gradients."""
    found = solution.events
    if found is None:
        empty = pd.DataFrame({"trajectory": [], "time": [], "name": []})
        return {"events": empty, "event_times": solution.reached.new_zeros(0)}
    names = np.array([event.name for event in system.events])
    table = pd.DataFrame(
        {
            "trajectory": found.trajectory.cpu().numpy(),
            "time": found.time.detach().cpu().numpy(),
            "name": names[found.kind.cpu().numpy()],
        }
    )
    return {"events": table, "event_times": found.time}


def _outputs(system: System, problem: Problem, solution: Solution) -> Tensor:
    """The readout at the output times; time leads, as constants have the other batch axes."""
    n_axes = len(problem.batch)
    times = problem.times.movedim(-1, 0)
    times = times.reshape(len(times), *[1] * (n_axes - times.ndim + 1), *times.shape[1:])
    x = solution.states.movedim(-2, 0)
    output = system.output(times, x, problem.signal(times).to(x.dtype))
    output = output.expand(*x.shape[:-1], output.shape[-1])
    unknown = x.isnan().any(dim=-1, keepdim=True)
    return output.masked_fill(unknown, math.nan).movedim(0, -2)


ADVICE = {
    Status.NOT_FINITE: "check the field and the guards there; give a fixed-step method a smaller "
    "step",
    Status.STEP_UNDERFLOW: "the solution grows without bound or jumps: bound the field, or state "
    "its jumps as breaks of the input",
    Status.STEP_BUDGET: "method='rosenbrock' if the system is stiff; else raise max_steps or "
    "loosen rtol; where events are that many, give more output times or shorter fixed steps",
    Status.WALL_TIME: "raise wall_time_seconds, loosen rtol or use a larger step",
    Status.CHATTERING: "events follow each other without end: let the reset leave the guard, or "
    "give the event a refractory time",
}


def _failure(system: System, problem: Problem, solution: Solution) -> SolverError:
    failed = (solution.status != Status.OK).flatten().nonzero().flatten().tolist()
    first, n_all = failed[0], solution.status.numel()
    status = Status(int(solution.status.flatten()[first]))
    reached = float(solution.reached.flatten()[first])
    end = float(problem.times.expand(*problem.batch, -1)[..., -1].flatten()[first])
    count = f" ({len(failed)} of {n_all} trajectories failed)" if n_all > 1 else ""
    unit = "" if system.time_unit == "1" else f" {system.time_unit}"
    width = math.nan if solution.width is None else float(solution.width.flatten()[first])
    tried = f" with a step of {width:.3g}{unit}" if width > 0 else ""
    return SolverError(
        f"{status.words} at t = {reached:.6g} of {end:.6g}{unit}{tried}, after "
        f"{int(solution.n_evaluations.flatten()[first])} evaluations{count}",
        where=f"trajectory {first}" if n_all > 1 else type(system).__name__,
        fix=ADVICE[status] + ("; keep_failed=True returns the others" if n_all > 1 else ""),
    )


def _words(status: Tensor) -> np.ndarray:
    words = np.array([word.words for word in Status])
    return np.asarray(words[status.cpu().numpy()])


def _labels(quantities: tuple[Quantity, ...]) -> list[str]:
    return [f"{name} ({q.unit})" for q in quantities for name in q.names]
