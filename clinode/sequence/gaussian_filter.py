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

import functools
import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.cohort import IrregularBatch
from clinode.sequence.linear_scan import previous
from clinode.sequence.rounds import again


class Filtered(NamedTuple):
    """Moments of the state at each row, float64.

    Args:
        before, after: Means just before and just after the observations of a row.
        covariance: Just after them.
        log_likelihood: Log density of what was measured at a row, given what was before it.
    """

    before: Float[Tensor, "row state"]
    after: Float[Tensor, "row state"]
    covariance: Float[Tensor, "row state state"]
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
    run: Any = FilterMoments.apply
    before, after, covariance, log_det = run(Phi, moved, start, J, j, batch.sizes)
    # e' S^-1 e = r' R^-1 r + (m+ - m-)' P^-1 (m+ - m-) with r the error afterwards: no cancellation
    error, move = value - after @ C.T, after - before
    surprise = j - (J @ before.unsqueeze(2)).squeeze(2)
    pulled = surprise - (J @ move.unsqueeze(2)).squeeze(2)  # P^-1 (m+ - m-)
    distance = (weight * error**2).sum(dim=1) + (move * pulled).sum(dim=1)
    spread = (mask * (log_noise + math.log(2 * math.pi))).sum(dim=1) + log_det
    return Filtered(before, after, covariance, -0.5 * (distance + spread))


class FilterMoments(torch.autograd.Function):
    """`moments_by_autograd` with its slopes written down: two products of matrices a step and side.

    With T = 1 - P+ J, d P+ = T dP- T' - P+ dJ P+ and d log det(1 + P- J) = tr(J T dP-) + tr(P+ dJ),
    so no root has to be differentiated; what belongs to the arguments is taken for all rows at the
    end. A gradient of a gradient goes through `moments_by_autograd`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        Phi: Tensor,
        moved: Tensor | None,
        start: Tensor,
        J: Tensor,
        j: Tensor,
        sizes: list[int],
    ) -> tuple[Tensor, ...]:
        found = moments_by_autograd(Phi, moved, start, J, j, sizes)
        ctx.sizes, ctx.found = sizes, found[:3]
        ctx.save_for_backward(Phi, moved, start, J, j)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        Phi, moved, start, J, j = ctx.saved_tensors
        sizes = ctx.sizes
        if torch.is_grad_enabled():
            plainly = functools.partial(moments_by_autograd, sizes=sizes)
            return (*again(plainly, ctx.saved_tensors, ctx.needs_input_grad[:-1], grads), None)
        before, after, P = ctx.found
        at_before, at_after, at_P, at_log_det = grads
        eye = torch.eye(P.shape[1], dtype=P.dtype, device=P.device)
        T = eye - P @ J
        surprise = (j.unsqueeze(2) - J @ before.unsqueeze(2)) / 2
        at_log_det = at_log_det.view(-1, 1, 1)
        fixed = at_log_det * (J @ T)
        total, total_P = at_after.unsqueeze(2), (at_P + at_P.mT) / 2
        parts = [part.split(sizes) for part in (Phi, T, surprise, fixed, total, total_P)]
        into = at_before.unsqueeze(2).split(sizes)
        carried, carried_P = total.new_zeros(0, *total.shape[1:]), P.new_zeros(0, *P.shape[1:])
        kept = []
        for step in range(len(sizes) - 1, -1, -1):
            flow, t, b, at_P_before, m, G = (part[step] for part in parts)
            n = len(carried)
            m, G = m.clone(), G.clone()
            m[:n] += carried
            G[:n] += carried_P
            outer = m @ b.mT
            G += outer + outer.mT
            m_before = torch.baddbmm(into[step], t.mT, m)
            G_before = torch.baddbmm(at_P_before, t.mT, G @ t)
            carried, carried_P = flow.mT @ m_before, flow.mT @ (G_before @ flow)
            kept.append((m, G, m_before, G_before))
        m, G, m_before, G_before = (torch.cat(part[::-1]) for part in zip(*kept, strict=True))
        earlier = torch.cat([start, previous(after, sizes)[len(start) :]]).unsqueeze(1)
        earlier_P = previous((P - eye).flatten(1), sizes).view_as(P)
        told = P @ m
        cross = told @ before.unsqueeze(1)
        return (
            m_before @ earlier + 2 * G_before @ Phi @ earlier_P,
            m_before.squeeze(2) if moved is not None else None,
            carried.squeeze(2),
            at_log_det * P - P @ G @ P - (cross + cross.mT) / 2,
            told.squeeze(2),
            None,
        )


def moments_by_autograd(
    Phi: Tensor, moved: Tensor | None, start: Tensor, J: Tensor, j: Tensor, sizes: list[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means before and after each row, covariance after it, and log det(1 + P J) before it."""
    eye = torch.eye(J.shape[1], dtype=J.dtype, device=J.device)
    noise = eye - Phi @ Phi.mT
    mean, root = start, eye.expand(len(start), -1, -1)
    parts = [part.split(sizes) for part in (Phi, noise, J, j)]
    pushes = moved.split(sizes) if moved is not None else None
    kept = []
    for step, n in enumerate(sizes):
        flow, lost, information, told = (part[step] for part in parts)
        mean, root = mean[:n], root[:n]
        mean = (flow @ mean.unsqueeze(2)).squeeze(2)
        if pushes is not None:
            mean = mean + pushes[step]
        carried = flow @ root
        root = _cholesky(torch.baddbmm(lost, carried, carried.mT))
        before = mean
        G = _cholesky(torch.baddbmm(eye.expand(n, -1, -1), root.mT, information @ root))
        root = torch.linalg.solve_triangular(G, root.mT, upper=False).mT
        surprise = told.unsqueeze(2) - information @ mean.unsqueeze(2)
        mean = mean + (root @ (root.mT @ surprise)).squeeze(2)
        kept.append((before, mean, root, G.diagonal(dim1=1, dim2=2)))
    before, after, root, diagonal = (torch.cat(part) for part in zip(*kept, strict=True))
    return before, after, root @ root.mT, 2 * diagonal.log().sum(dim=1)


def _cholesky(P: Float[Tensor, "batch state state"]) -> Float[Tensor, "batch state state"]:
    """Lower roots; NaN where there is none, after weights diverged: the loss will say so."""
    root, info = torch.linalg.cholesky_ex(P)
    return torch.where((info == 0).view(-1, 1, 1), root, torch.nan)
