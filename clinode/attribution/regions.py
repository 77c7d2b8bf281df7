"""What the stimulus of each region adds to an output of a network, and what that is not.

A stimulus u_jt is held over steps, and the output y is read at their end. In a linear map
x+ = A x + B u, y = c x_T, integrated gradients are exact, u_jt c A^(T-1-t) b_j, and the squares of
the slopes of a region sum over time to c W_j c', W_j its own controllability Gramian: what a region
is credited with per unit of its input *is* its output control energy. In a nonlinear network that
holds for small stimuli. Both answers are given here, with the gap between them.

An attribution says how the model came to its output, not what stimulating a region would do, so a
counterfactual stands beside it: the same network with a small pulse more in each region.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.attribution.checks.pairs import spearman
from clinode.attribution.function import AttributionMap, attribute
from clinode.control import controllability_gramian
from clinode.dynamics import Equilibrium, linearize, simulate
from clinode.dynamics.field import nearest
from clinode.errors import ArgumentError, SolverError
from clinode.statistics import Estimate, bootstrap_interval
from clinode.system import LinearSystem, Signal, System

LINEAR = 0.1  # of the attribution: a gap below it counts as linear
_STEP_ERROR = 1e-3  # largest change of the output when the solver's steps are halved, relative
_AT_ONCE = 16  # regions whose Gramians are in memory together


@dataclass(frozen=True, eq=False)
class RegionAttribution:
    """What each region's stimulus added to an output.

    Args:
        regions: Names of the inputs.
        times: When each held step begins, in time units of the system.
        stimulus: (step, region), beside the input at rest.
        integrated: (step, region), integrated gradients in the nonlinear system; NaN if withheld.
        linear: (step, region), the same of the system linearized at rest.
        slope: (step, region), of the linearized output in each input.
        energy: (region,), c W_j c', W_j the controllability Gramian of the region alone.
        identity: Largest |sum_t slope^2 - c W_j c'|, relative to the largest c W_j c'.
        pulse_effect: (region,), change of the output, per unit of the pulse, when the same system
            under the same stimulus gets a small pulse more in one region.
        output: Its name.
        change, linear_change: Of the output by the stimulus, nonlinear and linearized.
        completeness: Of `integrated`, relative to max(|change|, 0.1).
        nonlinearity: Sum of |integrated - linear| relative to that of |integrated|.
        agreement: Spearman's correlations over regions, bootstrap over regions: of the sizes of
            "attribution and energy" (what a region added, and what it could add), "energy and
            pulse", and with their sign "attribution and pulse".
        solver_error: Change of the output when the solver's steps are halved, relative.
        withheld: Whether `integrated` is not to be shown.
        verdict: In words.
    """

    regions: tuple[str, ...]
    times: Float[Tensor, " step"]
    stimulus: Float[Tensor, "step region"]
    integrated: Float[Tensor, "step region"]
    linear: Float[Tensor, "step region"]
    slope: Float[Tensor, "step region"]
    energy: Float[Tensor, " region"]
    identity: float
    pulse_effect: Float[Tensor, " region"]
    output: str
    change: float
    linear_change: float
    completeness: float
    nonlinearity: float
    agreement: dict[str, Estimate]
    solver_error: float
    withheld: bool
    verdict: str

    def to_pandas(self) -> pd.DataFrame:
        """One row a region: region, attribution and linear (sums over time), energy, pulse_effect.

        Largest |attribution| first.
        """
        table = pd.DataFrame(
            {
                "region": list(self.regions),
                "attribution": self.integrated.sum(0).numpy(),
                "linear": self.linear.sum(0).numpy(),
                "energy": self.energy.numpy(),
                "pulse_effect": self.pulse_effect.numpy(),
            }
        )
        order = np.argsort(-np.abs(table["attribution"].to_numpy()), kind="stable")
        return table.iloc[order].reset_index(drop=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words; None where a number is not finite."""
        numbers = ("identity", "change", "linear_change", "completeness", "nonlinearity")
        tensors = ("times", "stimulus", "integrated", "linear", "slope", "energy", "pulse_effect")
        return {
            "output": self.output,
            "regions": list(self.regions),
            **{name: _plain(getattr(self, name).tolist()) for name in tensors},
            **{name: _plain(getattr(self, name)) for name in (*numbers, "solver_error")},
            "agreement": {name: found.to_dict() for name, found in self.agreement.items()},
            "withheld": self.withheld,
            "verdict": self.verdict,
        }


def attribute_regions(
    system: System,
    equilibrium: Equilibrium,
    stimulus: Tensor,
    step: float,
    *,
    output: str,
    pulse: float = 0.01,
    solver_step: float | None = None,
    tolerance: float = 0.01,
    n_resamples: int = 1000,
    seed: int = 0,
) -> RegionAttribution:
    """What each region's stimulus added to an output, with control energy and a counterfactual.

    Args:
        system: A network without delays; every one of its inputs is a region.
        equilibrium: Where it rests before, from `find_equilibria`; the baseline is no stimulus.
        stimulus: (step, region), in units of the inputs, beside their value at rest. Each is held
            for a `step`; the output is read at the end of the last.
        step: In time units of the system.
        output: The name of one output, as "E:lh_precuneus".
        pulse: Height of the pulse that is added to a region over all steps, in units of the input.
        solver_step: Of the fourth-order Runge-Kutta; None is a quarter of `step`.
        tolerance: Largest completeness gap of integrated gradients.
        n_resamples: Bootstrap resamples of regions.
        seed: Of their random numbers.

    Raises:
        ArgumentError: A map, a system with delays or noise, an unknown output, a stimulus of
            another shape or not finite, a step or pulse that is not positive.
        SolverError: The steps of the solver are too long, or the system does not rest there.
    """
    position = _checked(system, equilibrium, stimulus, step, pulse, output)
    u = stimulus.detach().double()
    solver_step = step / 4 if solver_step is None else solver_step
    rest = equilibrium.u.detach()
    start = equilibrium.state.detach()
    n_steps, n_regions = u.shape
    knots = torch.arange(n_steps, dtype=torch.float64) * step

    def response(stimuli: Tensor, width: float = solver_step) -> Tensor:
        """The output at the end of each of some stimuli (n, step, region)."""
        found = simulate(
            system,
            start.expand(len(stimuli), -1),
            [0.0, n_steps * step],
            Signal(knots, rest + stimuli),
            method="rk4",
            step=width,
        )
        return found.outputs[:, -1, position]

    pulses = u + pulse * torch.eye(n_regions, dtype=torch.float64)[:, None, :]
    with torch.no_grad():
        answers = response(torch.cat([torch.zeros_like(u)[None], u[None], pulses]))
        halved = response(u[None], solver_step / 2)[0]
    change = float(answers[1] - answers[0])
    solver_error = float((halved - answers[1]).abs()) / max(abs(change), 1e-12)
    if solver_error > _STEP_ERROR:
        raise SolverError(
            f"half of the solver's step changes the effect of the stimulus by {solver_error:.1g} "
            f"of it, allowed {_STEP_ERROR:g}",
            where=type(system).__name__,
            fix=f"pass solver_step={solver_step / 4:g}",
        )
    found = attribute(response, u[None], torch.zeros_like(u)[None], tolerance=tolerance)
    slope, energy = _linear_answers(linearize(system, equilibrium, outputs=[output]), step, n_steps)
    linear = slope * u
    integrated, effect = found.values[0], (answers[2:] - answers[1]) / pulse
    squares = (slope**2).sum(0)
    told = integrated.abs().sum()
    nonlinearity = float((integrated - linear).abs().sum() / told) if told > 0 else 0.0
    whole = integrated.sum(0).numpy()
    agreement = {
        "attribution and energy": _rank(np.abs(whole), energy.numpy(), n_resamples, seed),
        "attribution and pulse": _rank(whole, effect.numpy(), n_resamples, seed),
        "energy and pulse": _rank(energy.numpy(), np.abs(effect.numpy()), n_resamples, seed),
    }
    return RegionAttribution(
        regions=tuple(system.input_names),
        times=knots,
        stimulus=u,
        integrated=integrated,
        linear=linear,
        slope=slope,
        energy=energy,
        identity=float((squares - energy).abs().max() / energy.max().clamp(min=1e-300)),
        pulse_effect=effect,
        output=output,
        change=change,
        linear_change=float(linear.sum()),
        completeness=float(found.gap[0]),
        nonlinearity=nonlinearity,
        agreement=agreement,
        solver_error=solver_error,
        withheld=bool(found.withheld[0]),
        verdict=_verdict(found, nonlinearity, agreement["attribution and pulse"]),
    )


def _linear_answers(
    linear: LinearSystem, step: float, n_steps: int
) -> tuple[Float[Tensor, "step region"], Float[Tensor, " region"]]:
    """Slopes of the output at the end in each held input, and c W_j c' of each region alone.

    The first by carrying c back in time, the second by the Gramian of the map, which knows nothing
    of the first.
    """
    A, B, c = (part.detach().double() for part in (linear.A, linear.B, linear.C[0]))
    n, m = B.shape
    block = torch.zeros(n + m, n + m, dtype=torch.float64)
    block[:n, :n], block[:n, n:] = A, B
    held = torch.linalg.matrix_exp(block * step)  # exact for an input that is held
    A_step, B_step = held[:n, :n], held[:n, n:]
    slopes = []
    carried = c
    for _ in range(n_steps):
        slopes.append(carried @ B_step)
        carried = carried @ A_step
    energies = []
    for some in range(0, m, _AT_ONCE):
        columns = B_step[:, some : some + _AT_ONCE].T[:, :, None]
        gramians = controllability_gramian(
            A_step.expand(len(columns), n, n), columns, n_steps * step, step=step
        )
        energies.append(torch.einsum("i,rij,j->r", c, gramians, c))
    return torch.stack(slopes[::-1]), torch.cat(energies)


def _checked(
    system: System,
    equilibrium: Equilibrium,
    stimulus: Tensor,
    step: float,
    pulse: float,
    output: str,
) -> int:
    """Position of the output, after everything else was looked at."""
    kind = type(system).__name__
    if system.step is not None or system.delays or system.noise is not None:
        raise ArgumentError(
            f"{kind} is a map, has delays or has noise, and its linearization would be another "
            "system than the one that is attributed",
            fix="give the flow without speed= and sigma=",
        )
    if output not in system.output_names:
        raise ArgumentError(
            f"{kind} has no output {output!r}: {nearest(output, system.output_names)}"
        )
    if stimulus.ndim != 2 or stimulus.shape[1] != system.n_inputs or not len(stimulus):
        raise ArgumentError(
            f"the stimulus must be (step, region) with {system.n_inputs} regions, "
            f"got {tuple(stimulus.shape)}"
        )
    if not bool(stimulus.isfinite().all()):
        raise ArgumentError("the stimulus must be finite")
    for name, value in (("step", step), ("pulse", pulse)):
        if not (np.isfinite(value) and value > 0):
            raise ArgumentError(f"{name} must be a positive number, got {value}")
    if len(equilibrium.state) != system.n_states:
        raise ArgumentError(f"the equilibrium is not one of {kind}")
    return system.output_names.index(output)


def _rank(first: np.ndarray, second: np.ndarray, n_resamples: int, seed: int) -> Estimate:
    """Spearman's correlation over regions."""

    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return Estimate.undefined("the attribution is withheld")
    return bootstrap_interval(
        lambda drawn: spearman(first[drawn], second[drawn]),
        len(first),
        n_resamples=n_resamples,
        seed=seed,
        why="fewer than three regions, or no region differs from another",
    )


def _verdict(found: AttributionMap, nonlinearity: float, with_pulse: Estimate) -> str:
    if found.withheld[0]:
        return f"withheld: {found.why[0]}"
    gap = f"{100 * nonlinearity:.1f} % of the attribution"
    told = (
        f"linear within {gap}: the energies speak for it"
        if nonlinearity <= LINEAR
        else f"not linear: the local answer differs by {gap}, and the energies hold near rest only"
    )
    if not with_pulse.is_defined:
        return told
    return (
        f"{told}; a pulse more in each region ranks them with a correlation of "
        f"{with_pulse.value:.2f}, which is what stimulating says"
    )


def _plain(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_plain(leaf) for leaf in tree]
    return tree if np.isfinite(tree) else None
