"""Optimal control of nonlinear systems: the inputs of least cost within limits, many at once.

The cost is that of `trajectory_cost`, with its exact gradient; the search is a spectral projected
gradient method. What is found is a local optimum, near the start.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clinode.control.stimulation.limits import StimulusLimits
from clinode.control.stimulation.projection import Projection
from clinode.control.stimulation.spectral import SpectralSearch
from clinode.control.stimulation.trajectory_cost import StimulationCost, StimulationProblem
from clinode.dynamics.simulate import simulate
from clinode.errors import ArgumentError
from clinode.system import Signal, System, Values


@dataclass(frozen=True, eq=False)
class OptimalInputs:
    """The best inputs found, one a problem of the batch.

    Attributes:
        signal: All inputs of the system, as `simulate` takes them.
        cost: J, (*batch).
        terms: Its parts by name: "terminal", "running", "energy", "sparsity", (*batch) each.
        cost_before: J of the start.
        residual: Of the condition of optimality: length of the projected gradient relative to that
            at the start, (*batch).
        n_iterations: (*batch).
        status: (*batch): "converged"; "stalled", where rounding allows no further descent;
            "stopped" after the iterations allowed; "not finite", where the start has no cost.
        times: Of the states, (node,).
        states: (*batch, node, state), of the fixed steps.
        end_error: Largest difference of a state at the end to an adaptive solver's, (*batch); NaN
            where that was not asked.
    """

    signal: Signal
    cost: Float[Tensor, "*batch"]
    terms: dict[str, Float[Tensor, "*batch"]]
    cost_before: Float[Tensor, "*batch"]
    residual: Float[Tensor, "*batch"]
    n_iterations: Int[Tensor, "*batch"]
    status: np.ndarray
    times: Float[Tensor, " node"]
    states: Float[Tensor, "*batch node state"]
    end_error: Float[Tensor, "*batch"]

    def to_pandas(self) -> pd.DataFrame:
        """One row a problem: its cost before and after, the parts, how the search ended."""
        columns = {"cost_before": self.cost_before, "cost": self.cost, **self.terms}
        columns |= {"residual": self.residual, "n_iterations": self.n_iterations}
        flat = {name: value.reshape(-1).numpy() for name, value in columns.items()}
        flat |= {"end_error": self.end_error.reshape(-1).numpy()}
        return pd.DataFrame({**flat, "status": self.status.reshape(-1)})

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return {
            "problems": self.to_pandas().to_dict(orient="records"),
            "hold": self.signal.hold,
            "knots": self.signal.knots.tolist(),
            "values": self.signal.values.tolist(),
        }


def optimize_inputs(
    system: System,
    x0: Values,
    knots: Values,
    cost: StimulationCost,
    *,
    limits: StimulusLimits | None = None,
    inputs: Sequence[str] | None = None,
    u: Values = 0.0,
    hold: str = "previous",
    start: Values | None = None,
    step: float | None = None,
    method: str = "rk4",
    max_iterations: int = 300,
    tolerance: float = 1e-6,
    check: bool = True,
) -> OptimalInputs:
    """Inputs of least cost from x0, within limits; a batch of problems is solved together.

    Batch axes of x0, the target, u, the start and the system's constants broadcast.

    Args:
        system, x0, knots, cost, inputs, u, hold, step, method: As in `StimulationProblem`.
        limits: Of amplitude, slew, energy, balance and sign. Charges of phases are not convex and
            belong to `stimulate`.
        start: Stimuli to start from, (*batch, knot, stimulating input); none by default.
        max_iterations: Of the search.
        tolerance: Residual at which it has converged.
        check: Whether to solve the result once more adaptively, for `end_error`.

    Raises:
        ArgumentError: As `StimulationProblem`; limits of charge; a slew limit for steps.

    Example:
        >>> from clinode.system import LinearSystem
        >>> cell = LinearSystem([[-1.0]], [[1.0]])
        >>> cost = StimulationCost(target=[1.0], terminal=1.0, energy=1.0)
        >>> found = optimize_inputs(cell, [0.0], torch.linspace(0, 2, 41), cost)
        >>> round(float(found.cost), 4)  # 1 / (2 (1 + W)) with W = (1 - exp(-4)) / 2
        0.3354
    """
    problem = StimulationProblem(
        system, x0, knots, cost, inputs=inputs, u=u, hold=hold, step=step, method=method
    )
    bounds = (StimulusLimits() if limits is None else limits).bounds(
        problem.inputs, system.time_unit
    )
    if np.isfinite(bounds.charge).any():
        raise ArgumentError(
            "the charge of a phase is no convex limit, and this search needs convex ones",
            fix="stimulate keeps it; or limits of amplitude, slew and energy here",
        )
    project = Projection(problem.knots.numpy(), hold, bounds)
    v = torch.zeros(problem.shape, dtype=torch.float64)
    if start is not None:
        v = v + torch.as_tensor(start, dtype=torch.float64)
    search = SpectralSearch(
        problem.gradient, problem.smooth, project, problem.weights, cost.sparsity, project(v)
    )
    search.run(max_iterations, tolerance)
    with torch.no_grad():
        terms, states = problem.terms(search.v)
    signal = problem.signal(search.v)
    error = torch.full(problem.batch, math.nan, dtype=torch.float64)
    if check:
        ends = problem.nodes[[0, -1]]
        run = simulate(
            problem.system, problem.x0, ends, signal, rtol=1e-9, atol=1e-12, keep_failed=True
        )
        error = (run.states[..., -1, :] - states[-1]).abs().amax(dim=-1).detach()
    return OptimalInputs(
        signal=signal,
        cost=torch.stack(list(terms.values())).sum(dim=0),
        terms=terms,
        cost_before=search.cost_before,
        residual=search.residual,
        n_iterations=search.n_iterations,
        status=search.words(),
        times=problem.nodes,
        states=states.movedim(0, -2),
        end_error=error,
    )
