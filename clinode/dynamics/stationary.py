"""What a noisy system looks like at rest, and which linear systems look like that.

Near a stable rest dx = A (x - x*) dt + dW, with E dW dW' = Q dt, has the stationary covariance P of
A P + P A' = -Q. Snapshots, taken further apart than the system remembers, show the mean and P and
nothing else, and P does not determine A: A = (-Q/2 + S) P^-1 has it for every skew S. So a fit to
snapshots finds the structure that its parametrization allows, not more; `fit_stationary` takes any
(`parametrize`), and `clinode.alignment` measures what that was worth.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor, nn

from clinode.errors import ArgumentError, SolverError
from clinode.system import System, Values

from .equilibria import Equilibrium
from .linearize import linearize

SMALL = 1e-10  # relative: of an eigenvalue of a covariance, and of what is not symmetric
FITS = 0.95  # share of a covariance that a fit explains at least
UNSEEN = 1e-9  # explained share short of 1 that is rounding


@dataclass(frozen=True, eq=False)
class Moments:
    """What snapshots of a system at rest show.

    Attributes:
        names: Of the outputs.
        mean: (output,).
        covariance: (output, output).
    """

    names: tuple[str, ...]
    mean: Float[np.ndarray, " output"]
    covariance: Float[np.ndarray, "output output"]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        mean, covariance = self.mean.tolist(), self.covariance.tolist()
        return {"names": list(self.names), "mean": mean, "covariance": covariance}


def stationary_covariance(
    A: Float[np.ndarray, "state state"], diffusion: Float[np.ndarray, "state state"]
) -> Float[np.ndarray, "state state"]:
    """P of A P + P A' = -Q, the covariance that noise keeps up about a stable rest.

    Args:
        A: Per time unit; every mode decays.
        diffusion: Q, symmetric, states squared per time unit.

    Raises:
        SolverError: A mode does not decay, so that there is no stationary covariance.

    Example:
        >>> stationary_covariance(np.array([[-2.0]]), np.array([[1.0]]))
        array([[0.25]])
    """
    worst = float(np.linalg.eigvals(A).real.max())
    if not worst < 0:
        raise SolverError(
            f"a mode of rate {worst:.4g} does not decay, so nothing is stationary",
            fix="ask at a stable rest",
        )
    P = scipy.linalg.solve_continuous_lyapunov(A, -diffusion)
    return (P + P.T) / 2


def stationary_moments(system: System, equilibrium: Equilibrium, diffusion: Values) -> Moments:
    """Mean and covariance of the outputs at a stable rest, to first order in the noise.

    Exact for a linear system; of a nonlinear one, the linear noise approximation.

    Args:
        system: A flow.
        equilibrium: A stable one of it.
        diffusion: Q of dx = f dt + dW, E dW dW' = Q dt: (state, state), or its diagonal (state,).

    Raises:
        ArgumentError: A diffusion that is no covariance of the states.
        SolverError: The equilibrium is not stable.
    """
    linear = linearize(system, equilibrium)
    A, C = linear.A.detach().numpy(), linear.C.detach().numpy()
    P = stationary_covariance(A, checked_diffusion(diffusion, system.n_states))
    mean = equilibrium.output.detach().numpy().copy()
    return Moments(tuple(system.output_names), mean, C @ P @ C.T)


class NetworkDrift(nn.Module):
    """A = W - decay: a network whose weights take any parametrization, by the name `weight`.

    `parametrize.register_parametrization(drift, "weight", SparsityMask(mask))` gives it a
    structure; with decay 0 the weights are A itself, as `Stable` wants them.

    Args:
        weight: (target, source), to start from.
        decay: Of a unit alone, per time unit.
    """

    def __init__(self, weight: Float[Tensor, "target source"], decay: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(weight.detach().double().clone())
        self.decay = decay

    def forward(self) -> Float[Tensor, "target source"]:
        """The drift matrix."""
        return self.weight - self.decay * torch.eye(len(self.weight), dtype=self.weight.dtype)


@dataclass(frozen=True, eq=False)
class StationaryFit:
    """A drift fitted to a stationary covariance.

    Attributes:
        A: The drift matrix that was found.
        explained: Of the covariance, 1 - |P_A - P|^2 / |P|^2; NaN where A has no stationary one.
        loss: Mean square of what A P + P A' + Q leaves, relative to Q, in whitened coordinates,
            and of the responses.
        n_free: Numbers that were fitted: those that A depends on, at most as many as A has.
        n_seen: Numbers that they were fitted to.
        verdict: Whether the fit arrived, is stable, and can have been determined by what was seen.
    """

    A: Float[np.ndarray, "state state"]
    explained: float
    loss: float
    n_free: int
    n_seen: int
    verdict: str


def fit_stationary(
    drift: nn.Module,
    covariance: Values,
    diffusion: Values,
    *,
    pushes: Values | None = None,
    moves: Values | None = None,
    max_iterations: int = 2000,
) -> StationaryFit:
    """Fit a drift A to a stationary covariance P, in place: A P + P A' = -Q by least squares.

    The equations are linear in A, so under free weights or a mask every minimum is the least; they
    are whitened by P, so that all directions count alike. Where more is free than was seen, the
    answer depends on where the search starts, and that is the point: nothing seen decides.

    Args:
        drift: A module whose call gives A (state, state), float64; `NetworkDrift`, say, under any
            parametrization. Its parameters are left at the fit.
        covariance: P, (state, state), as measured.
        diffusion: Q, (state, state) or its diagonal.
        pushes: (experiment, state): constant pushes of the derivative under which the rest was
            seen too, in state units per time unit.
        moves: (experiment, state): by how much the rest moved under each: A move + push = 0.
        max_iterations: Of L-BFGS.

    Raises:
        ArgumentError: Shapes that do not fit, a covariance that is not positive, a drift without
            parameters or in single precision, pushes without moves.
    """
    P = _square("covariance", covariance)
    Q = torch.tensor(checked_diffusion(diffusion, len(P)))
    low, high = np.linalg.eigvalsh(P)[[0, -1]]
    if not low > SMALL * high:
        raise ArgumentError(
            f"the covariance has an eigenvalue {low:.3g} beside {high:.3g}",
            fix="more snapshots than states are needed",
        )
    told = _responses(pushes, moves, len(P))
    free = [one for one in drift.parameters() if one.requires_grad]
    start = drift()
    if not free or start.shape != P.shape or start.dtype != torch.float64:
        raise ArgumentError(
            f"the drift must give float64 {P.shape} from parameters of its own, got "
            f"{start.dtype} {tuple(start.shape)} from {len(free)}"
        )
    loss, arrived = _minimize(drift, free, torch.tensor(P), Q, told, max_iterations)
    with torch.no_grad():
        A = drift().numpy().copy()
    n_free = _n_free(drift, free)
    n_seen = len(P) * (len(P) + 1) // 2 + (0 if told is None else told[0].numel())
    explained = _explained(A, P, Q.numpy())
    return StationaryFit(
        A, explained, loss, n_free, n_seen, _verdict(arrived, explained, n_free, n_seen)
    )


def checked_diffusion(diffusion: Values, n: int) -> Float[np.ndarray, "state state"]:
    """A diffusion as a whole matrix.

    Raises:
        ArgumentError: Another size, not symmetric, or with a negative direction.
    """
    Q = torch.as_tensor(diffusion, dtype=torch.float64).detach().numpy()
    Q = np.diag(Q) if Q.ndim == 1 else Q
    if Q.shape != (n, n) or not np.isfinite(Q).all():
        raise ArgumentError(f"diffusion has shape {Q.shape}, expected ({n}, {n}) or ({n},), finite")
    size = np.abs(Q).max(initial=0.0)
    if np.abs(Q - Q.T).max() > SMALL * size or np.linalg.eigvalsh(Q)[0] < -SMALL * size:
        raise ArgumentError("diffusion must be symmetric without a negative direction")
    return (Q + Q.T) / 2


def _square(name: str, values: Values) -> Float[np.ndarray, "state state"]:
    P = torch.as_tensor(values, dtype=torch.float64).detach().numpy()
    if P.ndim != 2 or P.shape[0] != P.shape[1] or not len(P) or not np.isfinite(P).all():
        raise ArgumentError(f"{name} has shape {P.shape}, expected square and finite")
    if np.abs(P - P.T).max() > 1e-8 * np.abs(P).max():
        raise ArgumentError(f"{name} is not symmetric")
    return (P + P.T) / 2


def _responses(pushes: Values | None, moves: Values | None, n: int) -> tuple[Tensor, Tensor] | None:
    if (pushes is None) != (moves is None):
        raise ArgumentError("pushes and moves come together")
    if pushes is None or moves is None:
        return None
    push, move = (torch.as_tensor(one, dtype=torch.float64) for one in (pushes, moves))
    if push.shape != move.shape or push.ndim != 2 or push.shape[1] != n or not len(push):
        raise ArgumentError(
            f"pushes {tuple(push.shape)} and moves {tuple(move.shape)} must be (experiment, {n})"
        )
    return push, move


def _n_free(drift: nn.Module, free: list[nn.Parameter]) -> int:
    """Parameters that A depends on: those behind a mask do not count."""
    A = drift()
    probe = torch.randn(A.shape, generator=torch.Generator().manual_seed(0), dtype=A.dtype)
    slopes = torch.autograd.grad((A * probe).sum(), free, materialize_grads=True)
    return min(A.numel(), sum(int((one != 0).sum()) for one in slopes))


def _minimize(
    drift: nn.Module,
    free: list[nn.Parameter],
    P: Tensor,
    Q: Tensor,
    told: tuple[Tensor, Tensor] | None,
    max_iterations: int,
) -> tuple[float, bool]:
    """The least loss that was reached, and whether the search stood still there."""
    root = torch.linalg.cholesky(P)

    def whitened(M: Tensor) -> Tensor:
        left = torch.linalg.solve_triangular(root, M, upper=False)
        return torch.linalg.solve_triangular(root, left.mT, upper=False)

    size = whitened(Q).square().mean()

    def loss_now() -> Tensor:
        A = drift()
        flow = A @ P
        loss = whitened(flow + flow.mT + Q).square().mean() / size
        if told is not None:
            push, move = told
            loss = loss + (move @ A.mT + push).square().mean() / push.square().mean()
        return loss

    search = torch.optim.LBFGS(
        free,
        max_iter=max_iterations,
        max_eval=2 * max_iterations,
        history_size=50,
        tolerance_grad=1e-10,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        search.zero_grad()
        loss = loss_now()
        loss.backward()
        return loss

    search.step(closure)
    n_made = search.state[free[0]].get("n_iter", 0)
    with torch.no_grad():
        return float(loss_now()), n_made < max_iterations


def _explained(A: np.ndarray, P: np.ndarray, Q: np.ndarray) -> float:
    try:
        own = stationary_covariance(A, Q)
    except SolverError:
        return float("nan")
    return float(1 - ((own - P) ** 2).sum() / (P**2).sum())


def _verdict(arrived: bool, explained: float, n_free: int, n_seen: int) -> str:
    if np.isnan(explained):
        return "unstable: the drift that was found has no stationary covariance"
    told = []
    if explained < FITS:
        told.append(f"fits poorly: it explains {explained:.3g} of the covariance")
    if n_free > n_seen:
        told.append(f"not determined: {n_free} free numbers for {n_seen} that were seen")
    if not arrived and explained < 1 - UNSEEN:
        told.append("not converged: the search was still moving")
    return "; ".join(told) or "ok"
