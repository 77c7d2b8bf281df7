"""Regulator and filter of a flow to a horizon, and what they cost."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clinode.errors import ArgumentError, SolverError

from .cost_split import CostSplit, number, start_cost
from .deviations import Deviations
from .problem import ControlProblem
from .riccati import flow_back, flow_rate

SETTLED = 1e-11  # relative change of a cost under twice as many panels
MOST_PANELS = 2**13


@dataclass(frozen=True, eq=False)
class FlowPath:
    """P, K, S, L and their rates at some times; S and L empty where nothing is estimated."""

    times: Tensor
    P: Tensor
    K: Tensor
    K_rate: Tensor
    S: Tensor
    L: Tensor
    L_rate: Tensor
    split: CostSplit


def flow_to_horizon(problem: ControlProblem, d: Deviations, V: Tensor | None) -> FlowPath:
    """Regulator and filter of a flow on Gauss-Legendre panels, doubled until the cost settles."""
    if len(d.C) or len(d.D):
        raise ArgumentError(
            "signal-dependent noise to a horizon is solved in steps",
            fix="sampled_problem(problem, step)",
        )
    horizon, n_panels, before = float(problem.horizon or 0.0), 8, None
    while n_panels <= MOST_PANELS:
        path = _on_panels(d, V, horizon, n_panels)
        if before is not None and abs(path.split.total - before) <= SETTLED * abs(before):
            return path
        n_panels, before = 2 * n_panels, path.split.total
    raise SolverError(
        f"the cost to the horizon did not settle on {MOST_PANELS} panels",
        fix="a shorter horizon: this one is long beside the fastest time constant",
    )


def _on_panels(d: Deviations, V: Tensor | None, horizon: float, n_panels: int) -> FlowPath:
    nodes, weights = (torch.from_numpy(part) for part in _gauss_legendre())
    width = horizon / n_panels
    starts = width * torch.arange(n_panels, dtype=torch.float64)
    inner = (starts[:, None] + width * nodes).flatten()
    ends = torch.tensor([0.0, horizon], dtype=torch.float64)
    times = torch.cat([ends[:1], inner, ends[1:]])
    measure = torch.nn.functional.pad((width * weights).repeat(n_panels), (1, 1))
    P = flow_back(d.A, d.B, d.Q, d.R, d.final, times)
    K = torch.linalg.solve(d.R, d.B.T @ P)
    K_rate = torch.linalg.solve(d.R, d.B.T @ flow_rate(d.A, d.B, d.Q, d.R, P))
    process = number((measure * (P * d.W).sum((-1, -2))).sum())
    if V is None:
        split = CostSplit(start_cost(d, P[0]), process, 0.0)
        none = P.new_zeros(0)
        return FlowPath(times, P, K, K_rate, none, none, none, split)
    A, H, W = d.A.T, d.H.T, d.W  # the filter is a regulator that runs forward
    S = flow_back(A, H, W, V, d.spread, horizon - times.flip(0)).flip(0)
    L = torch.linalg.solve(V, H.T @ S).mT
    L_rate = torch.linalg.solve(V, -H.T @ flow_rate(A, H, W, V, S)).mT
    unseen = number((measure * ((K.mT @ d.R @ K) * S).sum((-1, -2))).sum())
    split = CostSplit(start_cost(d, P[0]), process, unseen)
    return FlowPath(times, P, K, K_rate, S, L, L_rate, split)


def _gauss_legendre(order: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return (nodes + 1) / 2, weights / 2
