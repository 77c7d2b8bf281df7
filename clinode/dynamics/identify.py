"""Fit constants of any `System` to recordings, by multiple shooting, with their uncertainty.

The recording is cut into segments, each with an initial state of its own, and the states must join
(Bock 1983; Bock, Kostina & Schloeder 2007, GAMM-Mitt. 30:376-408). Segments are short, so a poor
first guess neither blows up nor leaves the basin of the right solution, which is what a fit of one
long trajectory does. Gauss-Newton steps use sensitivities that are solved beside the states.

Assumes that the system itself is deterministic and that the recordings carry independent noise of
constant size per output. Noise within the system asks for a filter, see `clinode.control`.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor

from clinode.errors import ArgumentError, SolverError
from clinode.statistics import Estimate
from clinode.system import Quantity, System, Values, as_signal, flat_names, positions

from .sensitivity import Variational
from .shooting import Linearization, Shooting, Unknowns

SINGULAR = 1e-7  # of the largest singular value of the information: below, a direction is unseen
N_WEIGHTINGS = 4  # passes in which the noise of each output is estimated from what is left over


@dataclass(frozen=True, eq=False)
class Identification:
    """Constants fitted to recordings.

    Attributes:
        estimates: Each constant by flat name, with its interval, in its unit.
        standard_errors: By flat name; NaN where the recordings do not determine the constant.
        covariance: (constant, constant), in the constants' units.
        names: Flat names, in the order of the covariance.
        residuals: Recording minus output, (*batch, time, output); NaN where not measured.
        outputs: What the fitted system reads out, (*batch, time, output).
        noise: Standard deviation of the residuals by output, in its unit.
        initial_states: (*batch, state), fitted unless they were given.
        verdict: "ok", or "not identifiable: ..." with the constants that only act together.
        information: Singular values of the scaled sensitivities, descending; the last over the
            first says how near to singular the problem is.
        gap: Largest jump that is left between segments, as a fraction of the state's scale.
        n_iterations: Steps taken.
        system: The system with the fitted constants.
    """

    estimates: dict[str, Estimate]
    standard_errors: dict[str, float]
    covariance: Float[Tensor, "constant constant"]
    names: tuple[str, ...]
    residuals: Float[Tensor, "*batch time output"]
    outputs: Float[Tensor, "*batch time output"]
    noise: dict[str, float]
    initial_states: Float[Tensor, "*batch state"]
    verdict: str
    information: Float[Tensor, " constant"]
    gap: float
    n_iterations: int
    system: System

    @property
    def is_identifiable(self) -> bool:
        """Whether the recordings determine every constant."""
        return self.verdict == "ok"

    def to_pandas(self) -> pd.DataFrame:
        """One row a constant: constant, value, low, high, standard_error, verdict."""
        rows = [
            {
                "constant": name,
                "value": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "standard_error": self.standard_errors[name],
                "verdict": estimate.verdict,
            }
            for name, estimate in self.estimates.items()
        ]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: None where a number is not finite."""

        def finite(value: float) -> float | None:
            return value if math.isfinite(value) else None

        return {
            "estimates": {name: estimate.to_dict() for name, estimate in self.estimates.items()},
            "standard_errors": {name: finite(se) for name, se in self.standard_errors.items()},
            "covariance": [[finite(float(c)) for c in row] for row in self.covariance],
            "names": list(self.names),
            "noise": self.noise,
            "verdict": self.verdict,
            "information": self.information.tolist(),
            "gap": self.gap,
            "n_iterations": self.n_iterations,
        }


def identify(
    system: System,
    times: Values,
    recordings: Values,
    constants: Sequence[str],
    *,
    u: Any = 0.0,
    x0: Values | None = None,
    positive: Sequence[str] = (),
    n_segments: int | None = None,
    level: float = 0.95,
    max_iterations: int = 100,
    method: str = "dopri5",
    step: float | None = None,
    rtol: float = 1e-8,
    atol: float = 1e-10,
) -> Identification:
    """Fit constants to recordings of the outputs.

    Least squares over the constants, which all recordings share, and over the initial state of
    each recording unless it is given. Outputs are weighed by their own noise, estimated with the
    rest. Intervals come from the linearization at the solution, with Student's t for the degrees
    of freedom that are left; a constant that is fitted by its logarithm has an interval of that.

    Args:
        system: A flow or a map, without events, delays and noise; its constants are where the
            search starts. Those not fitted may have batch axes, those fitted have none.
        times: (time,) or (*batch, time), increasing, in the system's time unit.
        recordings: (*batch, time, output); NaN where nothing was measured.
        constants: Names of constants to fit; of a block every value is fitted.
        u: The input, as in `simulate`.
        x0: (*batch, state) where initial states are known.
        positive: Constants fitted by their logarithm besides those whose declared range is
            positive.
        n_segments: Pieces a recording is cut into; by default one for every five times.
        level: Of the intervals.
        max_iterations: Steps at most, in all passes.
        method: As in `simulate`; a fixed-step method takes a `step`.
        step: Largest step of a fixed-step method.
        rtol: Relative tolerance of the solver.
        atol: Absolute tolerance of the solver.

    Raises:
        ArgumentError: A system or a constant that cannot be fitted, an unknown name, shapes that do
            not fit, fewer measurements than unknowns.
        SolverError: The trajectory fails where the search starts, or no solution was reached; the
            error says how far it came.

    Example:
        >>> from clinode.system import LinearSystem
        >>> class Decay(System):
        ...     states = (Quantity("x", "1"),)
        ...     constants = (Quantity("k", "1"),)
        ...
        ...     def __init__(self, k=1.0):
        ...         super().__init__()
        ...         self.register_constants(k=k)
        ...
        ...     def vector_field(self, t, x, u):
        ...         return -self.k * x
        >>> times = torch.linspace(0.0, 2.0, 21)
        >>> noise = 0.001 * torch.sin(100 * times).unsqueeze(-1)
        >>> recording = 3 * torch.exp(-0.5 * times).unsqueeze(-1) + noise
        >>> found = identify(Decay(), times, recording, ["k"], method="rk4", step=0.1)
        >>> round(found.estimates["k"].value, 3)
        0.5
    """
    _check_system(system)
    if not 0 < level < 1:
        raise ArgumentError(f"level must lie between 0 and 1, got {level}")
    base = copy.deepcopy(system).double()
    named = [_quantity(base, name) for name in constants]
    if not named or len({q.name for q in named}) < len(named):
        raise ArgumentError("name at least one constant, and each once")
    is_log = _fitted_by_logarithm(base, named, positive)
    data = torch.as_tensor(recordings, dtype=torch.float64)
    t = torch.as_tensor(times, dtype=torch.float64)
    _check_shapes(base, t, data)
    known = None if x0 is None else torch.as_tensor(x0, dtype=torch.float64)
    shooting = Shooting(
        Variational(base, tuple(q.name for q in named)),
        t,
        data,
        as_signal(u, base.n_inputs),
        known_start=known,
        n_segments=n_segments,
        solver={"method": method, "step": step, "rtol": rtol, "atol": atol},
    )
    return _fit(base, shooting, named, is_log, level, max_iterations)


def _fit(
    base: System,
    shooting: Shooting,
    named: Sequence[Quantity],
    is_log: Tensor,
    level: float,
    max_iterations: int,
) -> Identification:
    """Passes of Gauss-Newton with ever better weights, then the uncertainty."""
    unknowns = shooting.start(is_log)
    weights = shooting.first_weights()
    used = 0
    for _ in range(N_WEIGHTINGS):
        unknowns, final, taken = shooting.solve(unknowns, weights, is_log, max_iterations - used)
        used += taken
        old, weights = weights, 1 / shooting.noise(final)
        if len(weights) == 1 or bool(((weights / old - 1).abs() < 1e-3).all()):
            break
    final = shooting.linearize(unknowns, weights, is_log)
    if final is None:
        raise SolverError("the fitted system could not be solved", where=type(base).__name__)
    return _described(base, shooting, unknowns, final, named, is_log, level, used, 1 / weights)


def _described(
    base: System,
    shooting: Shooting,
    unknowns: Unknowns,
    final: Linearization,
    named: Sequence[Quantity],
    is_log: Tensor,
    level: float,
    n_iterations: int,
    noise: Tensor,
) -> Identification:
    names = flat_names(named)
    theta = unknowns.theta.detach()
    values = torch.where(is_log, theta.exp(), theta)
    scale = torch.where(is_log, 1.0, theta.abs().clamp(min=1e-12))
    _, singular, directions = torch.linalg.svd(final.projected * scale, full_matrices=False)
    seen = singular > SINGULAR * singular[0]
    unseen = directions[~seen]
    lost = (unseen.abs() > 0.05).any(dim=0) if len(unseen) else torch.zeros(len(names)).bool()
    inverse = directions[seen].T / singular[seen]
    spread = inverse @ inverse.T * scale.unsqueeze(-1) * scale
    errors = spread.diagonal().sqrt()
    freedom = shooting.n_measured - shooting.count_unknowns()
    reach = float(student.ppf(0.5 + level / 2, max(freedom, 1)))
    verdict = _verdict(names, unseen)
    estimates, standard_errors = {}, {}
    for k, name in enumerate(names):
        ends = [float(theta[k] + side * reach * errors[k]) for side in (-1, 1)]
        low, high = (math.exp(end) if is_log[k] else end for end in ends)
        known = not bool(lost[k])
        estimates[name] = (
            Estimate(float(values[k]), low, high)
            if known
            else Estimate(float(values[k]), math.nan, math.nan, f"no interval: {verdict}")
        )
        slope = float(values[k]) if is_log[k] else 1.0
        standard_errors[name] = float(errors[k]) * slope if known else math.nan
    slopes = torch.where(is_log, values, 1.0)
    covariance = spread * slopes.unsqueeze(-1) * slopes
    covariance[lost, :] = covariance[:, lost] = math.nan
    blocks = values.split([quantity.size for quantity in named])
    changes = {quantity.name: block for quantity, block in zip(named, blocks, strict=True)}
    return Identification(
        estimates=estimates,
        standard_errors=standard_errors,
        covariance=covariance,
        names=names,
        residuals=shooting.unfolded(final.residuals),
        outputs=shooting.unfolded(final.outputs),
        noise=dict(zip(base.output_names, noise.tolist(), strict=True)),
        initial_states=unknowns.states[0],
        verdict=verdict,
        information=singular,
        gap=final.gap,
        n_iterations=n_iterations,
        system=base.with_constants(**changes),
    )


def _verdict(names: tuple[str, ...], unseen: Tensor) -> str:
    """In words, which constants act only together or not at all."""
    told = []
    for direction in unseen:
        involved = [
            n for n, part in zip(names, direction.abs().tolist(), strict=True) if part > 0.05
        ]
        if len(involved) == 1:
            told.append(f"'{involved[0]}' has no effect on what was recorded")
        else:
            listed = ", ".join(f"'{name}'" for name in involved)
            told.append(f"only a combination of {listed} is determined")
    return "not identifiable: " + "; ".join(told) if told else "ok"


def _check_system(system: System) -> None:
    owner = type(system).__name__
    for what, found in (("events", system.events), ("delays", system.delays)):
        if found:
            raise ArgumentError(
                f"{owner} has {what}, and recordings are fitted to flows and maps without",
                fix="fit the constants of its flow between events"
                if what == "events"
                else "write the delay as a chain of states",
            )
    if system.noise is not None:
        raise ArgumentError(
            f"{owner} has noise of its own, which makes the fit of one path wrong",
            fix="fit a system without it, where the noise is small",
        )


def _quantity(system: System, name: str) -> Quantity:
    positions(system.constants, name, f"constant of {type(system).__name__}")
    for quantity in system.constants:
        if quantity.name == name:
            if getattr(system, name).ndim > 1:
                raise ArgumentError(
                    f"constant '{name}' has batch axes, and one value is fitted to all recordings",
                    fix="fit each recording by itself",
                )
            return quantity
    raise ArgumentError(f"'{name}' is a member of a block", fix="fit the whole block")


def _fitted_by_logarithm(
    system: System, named: Sequence[Quantity], positive: Sequence[str]
) -> Tensor:
    known = [quantity.name for quantity in named]
    for name in positive:
        if name not in known:
            raise ArgumentError(f"'{name}' is to be positive but is not among the constants fitted")
    flags = []
    for quantity in named:
        is_log = quantity.name in positive or (quantity.range is not None and quantity.range[0] > 0)
        if is_log and not bool((getattr(system, quantity.name) > 0).all()):
            raise ArgumentError(f"the search for '{quantity.name}' must start above 0")
        flags += [is_log] * quantity.size
    return torch.tensor(flags)


def _check_shapes(system: System, t: Tensor, data: Tensor) -> None:
    if t.ndim < 1 or t.shape[-1] < 2 or not bool((t.diff(dim=-1) > 0).all()):
        raise ArgumentError("times must be at least two, and increase")
    if data.ndim < 2 or data.shape[-2:] != (t.shape[-1], system.n_outputs):
        raise ArgumentError(
            f"recordings have shape {tuple(data.shape)}, expected (*batch, {t.shape[-1]} times, "
            f"{system.n_outputs} outputs)"
        )
    if t.ndim > 1 and t.shape[:-1] != data.shape[:-2]:
        raise ArgumentError(
            f"times have batch axes {tuple(t.shape[:-1])}, recordings {tuple(data.shape[:-2])}"
        )
    if bool(data.isinf().any()):
        raise ArgumentError("recordings are infinite somewhere", fix="NaN marks what is missing")
    if bool(data.isnan().all()):
        raise ArgumentError("nothing was measured: every recording is NaN")
