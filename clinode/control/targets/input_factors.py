"""Square roots of the Gramians of every single input, all at once.

Of input i, W_i = F_i F_i' over the horizon; all F_i share the flow, so one pass of quadrature and
doubling serves every input and every set of inputs, whose F_i stand side by side. The Gramians are
never formed: only the square root of their condition number is lost.
"""

import math

import numpy as np
from jaxtyping import Float

from clinode.errors import ArgumentError

NODES, ROOTS = np.polynomial.legendre.leggauss(12)
TERMS = 24  # of the Taylor series where |A| h <= 1: 1 / 24! = 2e-24
KEPT = 1e-16  # of the largest; what is smaller is below the rounding of the others
MOST_DOUBLINGS = 60
NOISE = 3e-14  # relative rounding of a factor after doublings and compressions, measured


def input_factors(
    A: Float[np.ndarray, "state state"],
    B: Float[np.ndarray, "state input"],
    horizon: float,
    readout: Float[np.ndarray, "target state"] | None = None,
    n_steps: float | int | None = None,
) -> Float[np.ndarray, "input target rank"]:
    """F with F[i] F[i]' = integral over the horizon of C e^{As} b_i b_i' e^{A's} C' ds.

    Args:
        A: Per time unit, or per step.
        B: Inputs in columns.
        horizon: T; math.inf where A is stable.
        readout: C; None takes the states.
        n_steps: Steps that the horizon has, of a map, whose integral is a sum; else None.

    Raises:
        ArgumentError: The sum does not exist or exceeds float64.
    """
    C = np.eye(len(A)) if readout is None else readout
    with np.errstate(over="ignore", invalid="ignore"):
        rows, flow = (C[None], A) if n_steps is not None else _piece(A, C, horizon)
        whole = _whole(A, rows, flow, horizon, n_steps)
    if whole is None:
        raise ArgumentError(
            "effects of the inputs grow beyond float64 within the horizon",
            fix="a shorter horizon, or a stable system where it is infinite",
        )
    return np.ascontiguousarray(np.einsum("qks,si->ikq", whole, B, optimize=True))


def _doublings(A: np.ndarray, horizon: float) -> int:
    size = float(np.abs(A).sum(axis=1).max(initial=0.0)) * horizon
    return max(0, math.ceil(math.log2(size))) if size > 0 else 0


def _piece(A: np.ndarray, C: np.ndarray, horizon: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows sqrt(w) C e^{As} at the nodes of a short piece, and e^{Ah} over it."""
    size = float(np.abs(A).sum(axis=1).max(initial=0.0))
    if math.isinf(horizon):
        h = 1.0 / size if size > 0 else 1.0
    else:
        h = math.ldexp(horizon, -_doublings(A, horizon))
    terms, flow = [C], np.eye(len(A))
    power = flow
    for j in range(1, TERMS):
        terms.append((terms[-1] @ A) * (h / j))
        power = (power @ A) * (h / j)
        flow = flow + power
    nodes, roots = (NODES + 1) / 2, np.sqrt(ROOTS * h / 2)
    powers = nodes[:, None] ** np.arange(TERMS) * roots[:, None]
    return np.tensordot(powers, np.stack(terms), axes=(1, 0)), flow


def _whole(
    A: np.ndarray, rows: np.ndarray, flow: np.ndarray, horizon: float, n_steps: float | int | None
) -> np.ndarray | None:
    """Rows over the whole horizon, by doubling: those of a later piece are moved by the flow.

    None where they grow beyond float64.
    """
    piece, step = rows, flow
    if math.isinf(horizon):
        bits = "0" * MOST_DOUBLINGS
    else:
        bits = "0" * _doublings(A, horizon) if n_steps is None else bin(int(n_steps))[3:]
    for bit in bits:
        rows, flow = _joined(rows, rows, flow), flow @ flow
        if bit == "1":
            rows, flow = _joined(piece, rows, step), flow @ step
        if not (np.isfinite(rows).all() and np.isfinite(flow).all()):
            return None
        if math.isinf(horizon) and np.linalg.norm(flow) < KEPT:
            return rows
    return None if math.isinf(horizon) else rows


def _joined(earlier: np.ndarray, later: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Rows over both pieces, in as few combinations as carry them."""
    stacked = np.concatenate([earlier, later @ flow])
    flat = stacked.reshape(len(stacked), -1)
    if not np.isfinite(flat).all():
        return stacked[:1] * math.inf
    square = np.linalg.qr(flat.T)[1].T if flat.shape[1] >= len(flat) else flat
    U, sizes, _ = np.linalg.svd(square, full_matrices=False)
    kept = U[:, sizes > KEPT * sizes.max(initial=0.0)]
    return (kept.T @ flat).reshape(-1, *stacked.shape[1:])


def output_energies(
    factors: Float[np.ndarray, "candidate target rank"], aim: Float[np.ndarray, " target"]
) -> tuple[Float[np.ndarray, " candidate"], Float[np.ndarray, " candidate"]]:
    """Least energies d' (F F')^-1 d of each candidate, from below and from above.

    Args:
        factors: One a candidate, of one or several inputs.
        aim: d, what is to be reached beyond the free drift.

    Returns:
        Both ends, equal to 1e-6 where float64 can tell; where it cannot, the upper one is inf and
        the lower one holds for what the inputs reach best along any one direction.
    """
    U, sizes, _ = np.linalg.svd(factors, full_matrices=factors.shape[1] > factors.shape[2])
    known = np.zeros((len(factors), factors.shape[1]))
    known[:, : sizes.shape[1]] = sizes
    noise = NOISE * np.linalg.norm(factors, axis=(1, 2)).max(initial=0.0)
    along = np.einsum("ckj,k->cj", U, aim) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        reached = along / (known + noise) ** 2
        low = np.nan_to_num(reached, nan=0.0, posinf=math.inf).max(axis=1, initial=0.0)
        high = np.where(along > 0, along / known**2, 0.0).sum(axis=1)
    # an error of 1e-6 of the energy is one of 5e-7 of the smallest singular value
    settled = known.min(axis=1, initial=math.inf) * 5e-7 > noise
    return np.where(settled, high, low), np.where(settled, high, math.inf)
