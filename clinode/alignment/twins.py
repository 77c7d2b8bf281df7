"""Models that show the same and are not the same: what observation alone leaves open.

For a linear system at rest under noise, every A_S = (-Q/2 + S) P^-1 with S skew has the mean and
the covariance of A, exactly; a change of coordinates z = T x answers every input as before. Both
wire the sites differently, so that lesions do something else. A model whose twins disagree about an
experiment cannot have learned its outcome from what was observed.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from clinode.dynamics.stationary import Moments, checked_diffusion, stationary_covariance
from clinode.errors import ArgumentError, SolverError
from clinode.system import Intervention, LinearSystem, Values
from clinode.system.interventions import Clamp

from .rest import linear_rests


def covariance_twins(
    system: LinearSystem,
    diffusion: Values,
    n_twins: int = 100,
    *,
    u: Values = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[LinearSystem, ...]:
    """Systems of the same mean and stationary covariance, wired differently.

    The skew part of each is the system's own plus one drawn at random, of the size of its own or of
    the noise, whichever is larger; so wirings are of like size. Their time courses differ: what
    they share is what snapshots show.

    Args:
        system: A stable linear flow.
        diffusion: Q of dx = A x dt + dW: (state, state) or its diagonal.
        n_twins: How many.
        u: The constant input under which they rest alike.
        generator: Draws them; seed 0 by default.

    Raises:
        ArgumentError: A map, batch axes, one state (which has no twin), no twins asked for.
        SolverError: The system is not stable.

    Example:
        >>> one = LinearSystem([[-1.0, 0.5], [0.0, -1.0]], [[1.0], [0.0]])
        >>> (twin,) = covariance_twins(one, [1.0, 1.0], 1)
        >>> bool(torch.allclose(twin.A, one.A))
        False
    """
    n = _check_linear(system, n_twins)
    if n < 2:
        raise ArgumentError("one state alone has no other wiring")
    A = system.A.detach().double().numpy()
    Q = checked_diffusion(diffusion, n)
    P = stationary_covariance(A, Q)
    own = A @ P + Q / 2  # skew
    size = max(float(np.abs(own).max()), float(np.abs(np.diag(Q)).max()) / 2)
    rest, given = _rest(system, u)
    output = system.output(0.0, rest, given)
    made = []
    for draw in _drawn(generator, n_twins, n):
        drawn = np.triu(draw.numpy(), 1)
        S = own + size * (drawn - drawn.T)
        twin = np.linalg.solve(P, (-Q / 2 + S).T).T
        made.append(_like(system, twin, system.B, system.C, (rest, given, output)))
    return tuple(made)


def similar_twins(
    system: LinearSystem,
    n_twins: int = 100,
    *,
    spread: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[LinearSystem, ...]:
    """Systems z = T x: every input is answered as before, every site is something else.

    Args:
        system: A linear flow.
        n_twins: How many.
        spread: Size of what T adds to the identity, relative to it.
        generator: Draws them; seed 0 by default.

    Raises:
        ArgumentError: As `covariance_twins`; a spread that is not positive.
    """
    n = _check_linear(system, n_twins)
    if not spread > 0:
        raise ArgumentError(f"spread must be positive, got {spread}")
    made = []
    for draw in _drawn(generator, n_twins, n):
        T = torch.eye(n, dtype=torch.float64) + spread * draw / n**0.5
        back = torch.linalg.inv(T)
        parts = (T @ system.A.double() @ back, T @ system.B.double(), system.C.double() @ back)
        made.append(_like(system, *parts, (T @ system.x0.double(), system.u0, system.y0)))
    return tuple(made)


def seen_effects(
    moments: Moments, experiments: Sequence[Sequence[Intervention]], outputs: Sequence[str]
) -> Float[np.ndarray, "experiment output"]:
    """What seeing predicts of doing: E[y | y_K = c] - E[y] for sites K that are held at c.

    Seeing a site at a value is not setting it there; that is the point of the comparison.

    Args:
        moments: Of the outputs, among them the sites.
        experiments: Those that hold sites of these names are answered, the others are NaN.
        outputs: Whose effects are wanted.

    Raises:
        ArgumentError: An output of which nothing was seen.
    """
    names = list(moments.names)
    missing = [name for name in outputs if name not in names]
    if missing:
        raise ArgumentError(f"nothing was seen of '{missing[0]}'")
    rows = [names.index(name) for name in outputs]
    effects = np.full((len(experiments), len(rows)), np.nan)
    for i, experiment in enumerate(experiments):
        if not all(isinstance(one, Clamp) and one.name in names for one in experiment):
            continue
        held = {one.name: one.value for one in experiment if isinstance(one, Clamp)}
        places = [names.index(name) for name in held]
        values = [float(torch.as_tensor(value).double().mean()) for value in held.values()]
        away = np.array(values) - moments.mean[places]
        inner = moments.covariance[np.ix_(places, places)]
        across = moments.covariance[np.ix_(rows, places)]
        effects[i] = across @ np.linalg.lstsq(inner, away, rcond=None)[0]
    return effects


def _check_linear(system: LinearSystem, n_twins: int) -> int:
    if not isinstance(system, LinearSystem) or system.step is not None or system.A.ndim != 2:
        raise ArgumentError(
            "twins are made of one linear flow",
            fix="linearize at a rest first, or give models of equal fit as twins",
        )
    if n_twins < 1:
        raise ArgumentError(f"n_twins must be at least 1, got {n_twins}")
    return system.n_states


def _drawn(generator: torch.Generator | None, n_twins: int, n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    return torch.randn(n_twins, n, n, generator=generator, dtype=torch.float64)


def _rest(system: LinearSystem, u: Values) -> tuple[torch.Tensor, torch.Tensor]:
    given = torch.as_tensor(u, dtype=torch.float64).expand(system.n_inputs)
    x, is_stable = linear_rests(system, given)
    if not bool(is_stable):
        raise SolverError("the system is not stable, so it has no stationary covariance")
    return torch.tensor(x), given


def _like(
    system: LinearSystem,
    A: Values,
    B: torch.Tensor,
    C: torch.Tensor,
    offset: tuple[torch.Tensor, ...],
) -> LinearSystem:
    return LinearSystem(
        torch.as_tensor(A, dtype=torch.float64),
        B.double(),
        C.double(),
        system.D.double(),
        offset,
        latent=system.latent,
        states=system.states,
        inputs=system.inputs,
        outputs=system.outputs,
        time_unit=system.time_unit,
    )
