"""Exact flow of a diagonal complex linear system, and a gated filter that runs along it.

A state of n complex modes is kept as 2n reals, real parts first. Between rows each mode obeys
z' = lambda z + b with b constant, solved exactly over the row's own gap; at a row with
observations a gate moves the state towards what the observations say. The whole record is one
autograd function: its loop runs once forward and once back, weight gradients are taken for all
rows at the end.
"""

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def transition(
    decay: Float[Tensor, " mode"], frequency: Float[Tensor, " mode"], gap: Float[Tensor, "*row"]
) -> tuple[Float[Tensor, "*row mode"], Float[Tensor, "*row mode"]]:
    """Real and imaginary part of exp(lambda gap), lambda = -decay + i frequency."""
    gap = gap.unsqueeze(-1)
    size = torch.exp(-decay * gap)
    angle = frequency * gap
    return size * torch.cos(angle), size * torch.sin(angle)


def response(
    decay: Float[Tensor, " mode"], frequency: Float[Tensor, " mode"], gap: Float[Tensor, "*row"]
) -> tuple[Float[Tensor, "*row mode"], Float[Tensor, "*row mode"]]:
    """Real and imaginary part of the integral of exp(lambda s), s from 0 to the gap.

    A Taylor series of six terms where |lambda gap| < 0.05, where the quotient would cancel.
    """
    gap = gap.unsqueeze(-1)
    x, y = -decay * gap, frequency * gap
    is_small = x**2 + y**2 < 0.05**2
    growth = torch.expm1(torch.where(is_small, 0.0, x))
    cosine, sine = torch.cos(y), torch.sin(y)
    top_re = (growth + 1) * cosine - 1
    top_im = (growth + 1) * sine
    square = torch.where(is_small, 1.0, decay**2 + frequency**2)
    far_re = (-top_re * decay + top_im * frequency) / square
    far_im = (-top_im * decay - top_re * frequency) / square
    term_re, term_im = torch.ones_like(x), torch.zeros_like(x)
    near_re, near_im = term_re, term_im
    for order in range(2, 9):  # sum of (lambda gap)^k / (k + 1)!
        term_re, term_im = (term_re * x - term_im * y) / order, (term_re * y + term_im * x) / order
        near_re, near_im = near_re + term_re, near_im + term_im
    return (
        torch.where(is_small, near_re * gap, far_re),
        torch.where(is_small, near_im * gap, far_im),
    )


def rotate(
    cosine: Float[Tensor, "*row mode"],
    sine: Float[Tensor, "*row mode"],
    state: Float[Tensor, "*row state"],
) -> Float[Tensor, "*row state"]:
    """(cosine + i sine) times the state."""
    real, imaginary = state.chunk(2, dim=-1)
    return torch.cat([cosine * real - sine * imaginary, sine * real + cosine * imaginary], dim=-1)


class FilterAlongFlow(torch.autograd.Function):
    """States of all rows of a packed batch.

    Row by row, with zf the state flowed to the row:
        zf = (cosine + i sine) z + drive
        e  = mask (value - offset - P zf)
        k  = sigmoid(gate + K zf)
        z  = zf + k (aim + B e - zf)
    A gate of -inf leaves a row without an update. Backward runs once; second derivatives need
    `filter_by_autograd`.
    """

    @staticmethod
    def forward(  # ty: all arguments are packed rows unless said otherwise
        ctx: Any,
        cosine: Tensor,
        sine: Tensor,
        drive: Tensor | None,
        gate: Tensor,
        aim: Tensor,
        value: Tensor,
        mask: Tensor,
        P: Tensor,
        offset: Tensor,
        K: Tensor,
        B: Tensor,
        sizes: list[int],
    ) -> tuple[Tensor, Tensor]:
        n_states = gate.shape[1]
        wide = torch.cat([cosine, cosine], dim=1)
        cross = torch.cat([-sine, sine], dim=1)
        target = value - offset
        weight = torch.cat([K, P]).T.contiguous()
        B_t = B.T.contiguous()
        states, flowed, gates = (torch.empty_like(gate) for _ in range(3))
        error = torch.empty_like(target)
        move = torch.empty_like(gate)
        product = gate.new_empty(sizes[0], weight.shape[1])
        rows = [part.split(sizes) for part in (wide, cross, gate, aim, target, mask)]
        outs = [part.split(sizes) for part in (states, flowed, gates, error, move)]
        drives = drive.split(sizes) if drive is not None else None
        before = gate.new_zeros(sizes[0], n_states)
        for step, n in enumerate(sizes):
            w, c, g, a, x, m = (part[step] for part in rows)
            z, zf, k, e, d = (part[step] for part in outs)
            before = before[:n]
            torch.mul(before, w, out=zf)
            zf.addcmul_(_swap(before), c)
            if drives is not None:
                zf.add_(drives[step])
            both = torch.mm(zf, weight, out=product[:n])
            torch.add(g, both[:, :n_states], out=k).sigmoid_()
            torch.sub(x, both[:, n_states:], out=e).mul_(m)
            torch.addmm(a, e, B_t, out=d).sub_(zf)
            torch.addcmul(zf, k, d, out=z)
            before = z
        ctx.sizes = sizes
        ctx.has_drive = drive is not None
        ctx.save_for_backward(wide, cross, mask, P, K, B, states, flowed, gates, error, move)
        return states, flowed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wide, cross, mask, P, K, B, states, flowed, gates, error, move = ctx.saved_tensors
        sizes, n_states = ctx.sizes, states.shape[1]
        grad_states, grad_flowed = grads
        # [gate | error] gradients side by side, so one product carries both back to the state
        side = states.new_empty(len(states), n_states + len(P))
        aim = torch.empty_like(states)
        into = torch.empty_like(states)  # gradient at the flowed state
        slope = gates * (1 - gates)
        weight = torch.cat([K, P])
        rows = [
            part.split(sizes)
            for part in (wide, cross, mask, gates, move, slope, grad_states, grad_flowed)
        ]
        outs = [part.split(sizes) for part in (side, aim, into)]
        carry = states.new_zeros(0, n_states)
        for step in range(len(sizes) - 1, -1, -1):
            w, c, m, k, d, s, gz, gf = (part[step] for part in rows)
            both, ga, gi = (part[step] for part in outs)
            total = gz.clone()
            total[: len(carry)] += carry
            torch.mul(total, k, out=ga)
            moved = total * d
            torch.mul(moved, s, out=both[:, :n_states])
            torch.mul(torch.mm(ga, B), m, out=both[:, n_states:]).neg_()
            torch.addmm(gf, both, weight, out=gi)
            gi.add_(total).sub_(ga)
            carry = gi * w
            carry += _swap(gi * c)
        before = _previous(states, sizes)
        need = ctx.needs_input_grad
        gate, minus_error = side[:, :n_states], side[:, n_states:]
        modes = n_states // 2
        grad_cosine = grad_sine = None
        if need[0] or need[1]:
            along, across = into * before, into * _swap(before)
            grad_cosine = along[:, :modes] + along[:, modes:]
            grad_sine = across[:, modes:] - across[:, :modes]
        return (
            grad_cosine,
            grad_sine,
            into if ctx.has_drive else None,
            gate,
            aim,
            -minus_error if need[5] else None,
            None,
            minus_error.T @ flowed if need[7] else None,
            minus_error.sum(dim=0) if need[8] else None,
            gate.T @ flowed if need[9] else None,
            aim.T @ error if need[10] else None,
            None,
        )


def filter_by_autograd(
    cosine: Tensor,
    sine: Tensor,
    drive: Tensor | None,
    gate: Tensor,
    aim: Tensor,
    value: Tensor,
    mask: Tensor,
    P: Tensor,
    offset: Tensor,
    K: Tensor,
    B: Tensor,
    sizes: list[int],
) -> tuple[Tensor, Tensor]:
    """What `FilterAlongFlow` computes, written plainly: slow, differentiable again and again."""
    parts = [part.split(sizes) for part in (cosine, sine, gate, aim, value, mask)]
    drives = drive.split(sizes) if drive is not None else None
    state = gate.new_zeros(sizes[0], gate.shape[1])
    states, flowed = [], []
    for step, n in enumerate(sizes):
        c, s, g, a, x, m = (part[step] for part in parts)
        before = rotate(c, s, state[:n])
        if drives is not None:
            before = before + drives[step]
        error = m * (x - offset - before @ P.T)
        gain = torch.sigmoid(g + before @ K.T)
        state = before + gain * (a + error @ B.T - before)
        states.append(state)
        flowed.append(before)
    return torch.cat(states), torch.cat(flowed)


def _swap(state: Tensor) -> Tensor:
    """Imaginary parts first."""
    modes = state.shape[1] // 2
    return torch.cat([state[:, modes:], state[:, :modes]], dim=1)


def _previous(states: Tensor, sizes: list[int]) -> Tensor:
    """The state after the subject's previous row; zero at its first."""
    before = torch.zeros_like(states)
    start = sizes[0]
    behind = 0
    for previous, n in pairwise(sizes):
        before[start : start + n] = states[behind : behind + n]
        start, behind = start + n, behind + previous
    return before
