"""The exact filter of a stationary linear-Gaussian state that is observed at irregular times.

The state obeys dz = A z dt + B u dt + dW in coordinates in which its stationary covariance is the
identity, so the noise is what A loses, E[dW dW'] = -(A + A') dt, and over a gap of t hours

    Phi = exp(A t),    m -> Phi m + Gamma B u,    P -> Phi P Phi' + 1 - Phi Phi'

hold exactly, without an integral for the noise (an exponential of A alone, not the block of Van
Loan). Every stationary linear-Gaussian model has such coordinates. At a row the variables that
were measured, y_v = c_v' z + noise of variance r_v, enter together, through

    J = sum_v c_v c_v' / r_v,    j = sum_v c_v y_v / r_v

of the measured ones alone: what is missing is left out, not filled. With P = L L' the update is
L -> L G^-T, where G G' = 1 + L' J L, a square root of the covariance afterwards, which nothing can
make indefinite. All is computed in float64: a covariance is a small difference of larger ones.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.cohort import IrregularBatch


class Filtered(NamedTuple):
    """Moments of the state at each row, float64.

    Args:
        before, after: Means just before and just after the observations of a row.
        root_before, root_after: Square roots L of the covariances L L'.
        log_likelihood: Log density of what was measured at a row, given what was before it.
    """

    before: Float[Tensor, "row state"]
    after: Float[Tensor, "row state"]
    root_before: Float[Tensor, "row state state"]
    root_after: Float[Tensor, "row state state"]
    log_likelihood: Float[Tensor, " row"]


def flows(
    A: Float[Tensor, "state state"], gap: Float[Tensor, "*place"]
) -> Float[Tensor, "*place state state"]:
    """exp(A gap) of every gap in hours; each distinct gap is computed once."""
    distinct, place = torch.unique(gap, return_inverse=True)
    # one more than needed: of a single matrix of norm .01 to .05 torch 2.13 is wrong by up to 2e-11
    distinct = torch.cat([distinct, distinct.new_zeros(1)])
    return torch.linalg.matrix_exp(A * distinct.view(-1, 1, 1))[place]


def driven_flows(
    A: Float[Tensor, "state state"], gap: Float[Tensor, "*place"]
) -> tuple[Float[Tensor, "*place state state"], Float[Tensor, "*place state state"]]:
    """exp(A gap), and its integral over the gap, which a constant drive is carried by.

    Both are blocks of one exponential (Van Loan 1978, IEEE Trans. Autom. Control 23:395-404), so
    slow modes lose no digits to a quotient.
    """
    n = len(A)
    top = torch.cat([A, torch.eye(n, dtype=A.dtype, device=A.device)], dim=1)
    block = torch.cat([top, torch.zeros_like(top)])
    both = flows(block, gap)
    return both[..., :n, :n], both[..., :n, n:]


def run_filter(
    Phi: Float[Tensor, "row state state"],
    moved: Float[Tensor, "row state"] | None,
    start: Float[Tensor, "batch state"],
    value: Float[Tensor, "row variable"],
    C: Float[Tensor, "variable state"],
    log_noise: Float[Tensor, " variable"],
    batch: IrregularBatch,
) -> Filtered:
    """Filter the records of a batch from the stationary covariance on.

    Args:
        Phi: Flow over the gap before each row; before a first row that since the start.
        moved: What treatments add to the mean over that gap, doses at the row included.
        start: Mean of each record at its start.
        value: What is to be explained by C z; only where `batch.mask` holds is it read.
        C: Observation map.
        log_noise: Log variance of each variable's noise.
        batch: Masks and packing; float32 is promoted.
    """
    mask = batch.mask.to(value.dtype)
    n_states = C.shape[1]
    weight = mask * torch.exp(-log_noise)
    J = (weight @ (C.unsqueeze(2) * C.unsqueeze(1)).flatten(1)).unflatten(1, (n_states, n_states))
    j = (weight * value) @ C
    eye = torch.eye(n_states, dtype=C.dtype, device=C.device)
    noise = eye - Phi @ Phi.mT
    mean, root = start, eye.expand(len(start), -1, -1)
    parts = [part.split(batch.sizes) for part in (Phi, noise, J, j)]
    pushes = moved.split(batch.sizes) if moved is not None else None
    kept = []
    for step, n in enumerate(batch.sizes):
        flow, lost, information, told = (part[step] for part in parts)
        mean, root = mean[:n], root[:n]
        mean = (flow @ mean.unsqueeze(2)).squeeze(2)
        carried = flow @ root
        root = _cholesky(torch.baddbmm(lost, carried, carried.mT))
        if pushes is not None:
            mean = mean + pushes[step]
        before, root_before = mean, root
        G = _cholesky(torch.baddbmm(eye.expand(n, -1, -1), root.mT, information @ root))
        root = torch.linalg.solve_triangular(G, root.mT, upper=False).mT
        surprise = told.unsqueeze(2) - information @ mean.unsqueeze(2)
        mean = mean + (root @ (root.mT @ surprise)).squeeze(2)
        kept.append((before, mean, root_before, root, G.diagonal(dim1=1, dim2=2).log().sum(dim=1)))
    columns = [torch.cat(part) for part in zip(*kept, strict=True)]
    before, after, root_before, root_after, log_det = columns
    # e' S^-1 e = r' R^-1 r + w' w with r the error afterwards and L w the move: no cancellation
    error = value - after @ C.T
    move = (after - before).unsqueeze(2)
    w = torch.linalg.solve_triangular(root_before, move, upper=False).squeeze(2)
    distance = (weight * error**2).sum(dim=1) + (w**2).sum(dim=1)
    spread = (mask * (log_noise + math.log(2 * math.pi))).sum(dim=1) + 2 * log_det
    return Filtered(before, after, root_before, root_after, -0.5 * (distance + spread))


def _cholesky(P: Float[Tensor, "batch state state"]) -> Float[Tensor, "batch state state"]:
    """Lower roots; NaN where there is none, after weights diverged: the loss will say so."""
    root, info = torch.linalg.cholesky_ex(P)
    return torch.where((info == 0).view(-1, 1, 1), root, torch.nan)
