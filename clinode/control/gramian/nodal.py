"""How much one region alone can do in a network: average and modal controllability.

Gu et al. 2015 (Nat. Commun. 6:8414), for undirected and directed weights, in the normalizations of
nctpy 1.2 (Parkes et al. 2024, Nat. Protoc.). Both say how far an input at a region spreads, not
whether the network can be steered from there: see `single_node_gramians` and `controllability`.
Random networks show the same relations between these numbers and the strength of a region (Tu et
al. 2018, NeuroImage 176:83-91): compare with nulls. Above a few thousand regions:
`clinode.control.gramian.sparse`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError, SolverError

from .gramian import (
    check_eigenvalues,
    check_stable,
    checked_horizon,
    count_steps,
    expm1_ratio,
    observability_gramian,
)
from .left_spaces import left_spaces
from .lyapunov import check_rates
from .normalization import Normalization, Weights, read_network, spectral_radius

AGREEMENT = 1e-6  # relative, between values that rounding errors of A must not move apart


@dataclass(frozen=True, eq=False)
class NodalControllability:
    """One number a region, and what was computed.

    Attributes:
        kind: "average", "modal" or "boundary".
        values: (region,).
        regions: Labels.
        statement: The definition, normalization, time and horizon, in words.
    """

    kind: str
    values: Float[Tensor, " region"]
    regions: tuple[str, ...]
    statement: str

    def to_pandas(self) -> pd.DataFrame:
        """One row a region: region, value."""
        values = self.values.detach().cpu().numpy()
        return pd.DataFrame({"region": list(self.regions), "value": values})

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return {
            "kind": self.kind,
            "regions": list(self.regions),
            "values": self.values.tolist(),
            "statement": self.statement,
        }


def average_controllability(
    W: Weights,
    normalization: str = "nctpy",
    horizon: float | int | None = None,
    *,
    c: float = 1.0,
    step: float | int | None = None,
) -> NodalControllability:
    """Trace of the controllability Gramian of each region alone: the energy that a pulse spreads.

    Region i has int_0^T |exp(A t) e_i|^2 dt, or the sum of |A^k e_i|^2 over the steps up to T: the
    diagonal of one dual Gramian for all. (Up to version 1.0 nctpy took the diagonal of a real Schur
    form, which is something else where A is directed.) Differentiable in W.

    Args:
        W: Weights (region, region), `W[i, j]` the influence of j on i, or a Connectome.
        normalization: "nctpy": A = W / (c + l) - I, continuous; "nctpy discrete": A = W / (c + l),
            a map in steps of 1; "none": A = W, continuous unless `step` is given. l is the spectral
            radius of W.
        horizon: T, in time units, or math.inf for a stable A. By default that of nctpy: 1 in
            continuous time, math.inf for maps.
        c: See there.
        step: Time between two states of the map that "none" stands for.

    Raises:
        ArgumentError: Weights that are no square, finite matrix; an unknown normalization; an
            infinite horizon where A is not stable.
        SolverError: The value overflows over this horizon, or rounding could change it by 1e-6.

    Example:
        >>> average_controllability([[0.0, 1.0], [1.0, 0.0]], "nctpy discrete").values
        tensor([1.3333, 1.3333], dtype=torch.float64)
    """
    rule = Normalization(normalization, c, None if step is None else float(step))
    weights, regions = read_network(W)
    if horizon is None:
        horizon = 1.0 if rule.map_step is None else math.inf
    horizon = checked_horizon(horizon)
    if torch.equal(weights, weights.mT) and not weights.requires_grad:
        values, radius = _average_undirected(weights, rule, horizon)
    else:
        radius = spectral_radius(weights) if rule.needs_radius else None
        A = rule.matrix(weights, 0.0 if radius is None else radius)
        eye = torch.eye(len(A), dtype=A.dtype, device=A.device)
        gramian = observability_gramian(A, eye, horizon, step=rule.map_step)
        values = gramian.diagonal()
    unit = "" if rule.map_step is None else f" of steps of {rule.map_step:g}"
    statement = (
        f"average controllability: trace of the Gramian of one region, {_described(rule, radius)}, "
        f"horizon {horizon:g}{unit}"
    )
    return NodalControllability("average", values, regions, statement)


def modal_controllability(
    W: Weights, normalization: str = "nctpy discrete", *, c: float = 1.0, horizon: float | int = 1.0
) -> NodalControllability:
    """How well each region reaches the modes that decay fast, which are hard to reach.

    phi_i = sum_j (1 - |l_j|^2) |w_ij|^2 over the eigenvalues l_j and left eigenvectors w_j, of
    length 1, of the map: |w_ij| is how strongly an input at i drives mode j (Popov, Belevitch,
    Hautus). Over all regions they sum to sum_j (1 - |l_j|^2). Undirected networks have orthogonal
    eigenvectors and phi_i = 1 - sum_k a_ik^2 exactly, 0 to 1. In directed ones the left
    eigenvectors of eigenvalues that rounding cannot tell apart are replaced by an orthonormal basis
    of the space they span. (nctpy puts the diagonal of a real Schur form there, which depends on
    the order of the regions.) Where A changed by rounding changes the answer, there is none.

    Args:
        W: Weights (region, region), `W[i, j]` the influence of j on i, or a Connectome.
        normalization: "nctpy discrete": the map A = W / (c + l); "none": the map A = W; "nctpy":
            the map exp((W / (c + l) - I) T) of the continuous system.
        c: See there.
        horizon: T of the last, in time units.

    Raises:
        ArgumentError: Weights that are no square, finite matrix; an unknown normalization; a map
            that is not stable; a horizon that is not positive and finite.
        SolverError: The modes of a directed network are undecided.

    Example:
        >>> modal_controllability([[0.0, 1.0], [1.0, 0.0]]).values
        tensor([0.7500, 0.7500], dtype=torch.float64)
    """
    is_map = normalization != "nctpy"
    rule = Normalization(normalization, c, 1.0 if normalization == "none" else None)
    if not math.isfinite(checked_horizon(horizon)):
        raise ArgumentError(f"horizon must be positive and finite, got {horizon}")
    weights, regions = read_network(W)
    radius = spectral_radius(weights) if rule.needs_radius else None
    A = rule.matrix(weights, 0.0 if radius is None else radius)
    if not rule.needs_radius:  # the others are stable by what they are
        check_stable(A, is_map=True)
    if not is_map:
        A = torch.linalg.matrix_exp(A * float(horizon))
    if torch.equal(weights, weights.mT):
        values = 1 - A.square().sum(-1)
        how = "1 - sum_k a_ik^2"
    else:
        values, n_groups = _modal_directed(A.detach().cpu().numpy())
        values = torch.as_tensor(values, device=weights.device)
        how = f"left eigenvectors, {n_groups} distinct eigenvalues"
    time = "" if is_map else f", of the map exp(A T) with T = {horizon:g}"
    statement = f"modal controllability: {how}, {_described(rule, radius)}{time}"
    return NodalControllability("modal", values, regions, statement)


def _described(rule: Normalization, radius: Tensor | None) -> str:
    return rule.describe(None if radius is None else float(radius.detach()))


def _average_undirected(
    W: Tensor, rule: Normalization, horizon: float
) -> tuple[Tensor, Tensor | None]:
    """From one eigendecomposition of W, which gives its spectral radius too."""
    eigenvalues, vectors = torch.linalg.eigh(W)
    radius = eigenvalues.abs().amax() if rule.needs_radius else None
    rates = rule.apply(eigenvalues, 0.0 if radius is None else radius)
    spread = _spread(rates, horizon, rule.map_step)
    values = vectors.square() @ spread
    if not values.isfinite().all():
        raise SolverError(
            f"average controllability over a horizon of {horizon:g} exceeds 1e308: A has the "
            f"eigenvalue {float(rates.max()):.6g}",
            fix="ask for a shorter horizon",
        )
    return values, radius


def _spread(rates: Tensor, horizon: float, step: float | None) -> Tensor:
    """Energy of a pulse in each mode, of these eigenvalues: the Gramian of one state."""
    if math.isinf(horizon):
        check_eigenvalues(rates, rates.abs().amax(), is_map=step is not None)
    if step is None or math.isinf(horizon):
        check_rates(rates, horizon, is_map=step is not None)
    if step is None:
        return expm1_ratio(2 * rates, horizon)
    if math.isinf(horizon):
        return 1 / (1 - rates.square())
    n_steps = float(count_steps(horizon, step))
    log = 2 * rates.abs().log()
    return torch.where(log == 0, n_steps, torch.expm1(n_steps * log) / torch.expm1(log))


def _modal_directed(A: np.ndarray) -> tuple[np.ndarray, int]:
    """phi of a directed map, and how many eigenvalues are told apart."""
    values, n_groups = _sum_over_left_spaces(A)
    noise = np.random.default_rng(0).uniform(-1, 1, A.shape) * np.abs(A)
    moved, n_moved = _sum_over_left_spaces(A + np.finfo(float).eps * noise)
    if n_moved != n_groups or np.abs(moved - values).max() > AGREEMENT * np.abs(values).max():
        raise SolverError(
            "modal controllability is undecided: the left eigenvectors change when A changes by "
            "rounding, because eigenvalues nearly coincide and A is far from normal",
            fix="average_controllability holds for such networks",
        )
    return values, n_groups


def _sum_over_left_spaces(A: np.ndarray) -> tuple[np.ndarray, int]:
    spaces = left_spaces(A)
    weights = [(1 - abs(one.eigenvalue) ** 2) * (np.abs(one.basis) ** 2).sum(1) for one in spaces]
    return np.sum(weights, axis=0), len(spaces)
