"""Where a system comes to rest from where it was, after something was done to it.

The rest that is meant is the one that the flow leads to, not any: so the flow is followed, by steps
that grow into Newton's method where it settles. Of a linear system it is linear algebra, for many
systems at once.
"""

from dataclasses import dataclass

import numpy as np
import torch

from clinode.dynamics.equilibria import equilibrium_at
from clinode.dynamics.field import Field, scales
from clinode.dynamics.newton import Rows, polish
from clinode.dynamics.settling import Neighbourhood
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, System
from clinode.system.interventions import Intervened

ACCURACY = 3e-3  # of a step, in widths of the ranges and of the state: enough to stay in the basin
ARRIVED = 1e-9  # widths from a root that is where it ends, stable or not
MOST_STEPS = 1000
STEPS_A_LOOK = 50  # steps after which it is asked whether the end is certain before it is reached
FAR = 1e6  # widths beyond which it has run away


@dataclass(frozen=True)
class Rest:
    """Where it rests, or why it does not.

    Attributes:
        state: (state,); None where there is no rest.
        why: Words where there is none.
    """

    state: np.ndarray | None
    why: str = ""


def is_linear(system: System) -> bool:
    """Whether it is a linear flow, under interventions or not."""
    while isinstance(system, Intervened):
        system = system.base
    return isinstance(system, LinearSystem) and system.step is None


def linear_rests(system: System, u: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rests of a linear flow with any batch axes, and whether each is stable.

    Args:
        system: `is_linear` of it holds.
        u: (input,).

    Returns:
        (*batch, state), NaN where the matrix is singular, and (*batch,).
    """
    n = system.n_states
    with torch.no_grad():
        at_zero = system.vector_field(0.0, torch.zeros(n, dtype=torch.float64), u)
        unit = torch.eye(n, dtype=torch.float64).view(n, *[1] * (at_zero.ndim - 1), n)
        columns = system.vector_field(0.0, unit, u) - at_zero
    drift, J = at_zero.numpy(), np.moveaxis(columns.numpy(), 0, -1)
    regular = np.linalg.cond(J) < 1 / np.finfo(np.float64).eps
    safe = np.where(regular[..., None, None], J, np.eye(n))
    x = -np.linalg.solve(safe, drift[..., None])[..., 0]
    x = np.where(regular[..., None], x, np.nan)
    return x, np.asarray(np.linalg.eigvals(J).real.max(axis=-1) < 0)


def settle(system: System, start: np.ndarray, u: torch.Tensor) -> Rest:
    """The stable rest that the flow leads to from a state.

    Args:
        system: A flow whose field does not depend on time.
        start: (state,).
        u: The constant input, (input,).

    Raises:
        ArgumentError: A map, a field that depends on time, batch axes.
    """
    if is_linear(system):
        x, is_stable = linear_rests(system, u)
        if x.ndim > 1:
            raise ArgumentError(f"{type(system).__name__} has batch axes", fix="give one member")
        if np.isnan(x).any():
            return Rest(None, "its matrix is singular, so that it has no rest of its own")
        return Rest(x) if is_stable else Rest(None, "its rest is unstable, so that it runs away")
    field = Field(system, u)
    if field.batch_shape:
        raise ArgumentError(f"{type(system).__name__} has batch axes", fix="give one member of it")
    x, why = _followed(field, start)
    if why:
        return Rest(None, why)
    _, jacobian = field.jacobian(x)
    eigenvalues = np.linalg.eigvals(jacobian)
    if not eigenvalues.real.max() < -1e-10 * np.abs(eigenvalues).max():
        return Rest(None, "it comes to rest at a state that is not stable")
    if not bool(field.is_within_guards(torch.tensor(x))):
        return Rest(None, "its rest lies beyond a guard, where the state is reset first")
    return Rest(x)


def _followed(field: Field, start: np.ndarray) -> tuple[np.ndarray, str]:
    """The end of the flow from a start, and words where it has none.

    Linearly implicit Euler steps, one against two halves; where the two agree the step grows, and
    an infinite step is Newton's.
    """
    scale = scales(field.system.states)
    x = start.astype(np.float64)
    value, jacobian = field.jacobian(x)
    rate = np.abs(value / scale).max()
    h = 1e-2 / max(rate, np.abs(np.linalg.eigvals(jacobian)).max(), 1e-12)
    known: list[tuple[np.ndarray, Neighbourhood | None]] = []
    for k in range(MOST_STEPS):
        whole = _step(jacobian, value, h)
        half = _step(jacobian, value, h / 2)
        if whole is None or half is None:
            h /= 4
            continue
        there, there_jacobian = field.jacobian(x + half)
        other = _step(there_jacobian, there, h / 2)
        if other is None or not np.isfinite(other).all():
            h /= 4
            continue
        two = half + other
        error = np.abs((two - whole) / (scale + np.abs(x))).max()
        if error > ACCURACY:
            h /= 2 if error < 8 * ACCURACY else 8
            continue
        moved = 2 * two - whole  # of second order
        x = x + moved
        value, jacobian = field.jacobian(x)
        if not (np.isfinite(value).all() and np.abs(x / scale).max() < FAR):
            return x, "it runs away"
        h *= min(8.0, 0.9 * (ACCURACY / max(error, 1e-300)) ** 0.5) if error else 8.0
        is_slow = k % STEPS_A_LOOK == STEPS_A_LOOK - 1
        if is_slow or h * np.abs(jacobian).max() > 1e3:
            end = _certain_end(field, x, scale, known if is_slow else None)
            if end is not None:
                return end, ""
    return x, f"it did not come to rest in {MOST_STEPS} steps"


def _certain_end(
    field: Field,
    x: np.ndarray,
    scale: np.ndarray,
    known: list[tuple[np.ndarray, Neighbourhood | None]] | None,
) -> np.ndarray | None:
    """The rest near x, where x is inside what the flow never leaves, or at the rest itself.

    Roots that were met are kept in `known`, with what the flow never leaves about the stable ones;
    without it only the rest itself counts.
    """
    roots, is_root = polish(Rows(field, x[None], np.zeros(1, dtype=int), scale))
    away = np.abs((roots[0] - x) / scale).max()
    if not is_root[0] or away > 1.0:
        return None
    if away < ARRIVED:
        return roots[0]
    if known is None:
        return None
    met = [one for one in known if np.abs((roots[0] - one[0]) / scale).max() < ARRIVED]
    if not met:
        rest = equilibrium_at(field, roots[0])
        met = [(roots[0], Neighbourhood(field, rest) if rest.is_stable else None)]
        known += met
    root, around = met[0]
    return root if around is not None and around(x[None])[0] else None


def _step(jacobian: np.ndarray, value: np.ndarray, h: float) -> np.ndarray | None:
    """(1/h - J)^-1 F; None where that cannot be solved."""
    try:
        return np.linalg.solve(np.eye(len(value)) / h - jacobian, value)
    except np.linalg.LinAlgError:
        return None
