"""Exact flow of a diagonal complex linear system, and a gated filter that runs along it.

A state of n complex modes is kept as 2n reals, real parts first. Between rows each mode obeys
z' = lambda z + b with b constant, solved exactly over the row's own gap; at a row with
observations a gate moves the state towards what the observations say. The whole record is one
autograd function: its loop runs once forward and once back, weight gradients are taken for all
rows at the end.
"""

import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.sequence.rounds import again, heads_of_rounds, on_buffers


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
    A gate of -inf leaves a row without an update. A gradient of a gradient goes through
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
        # products are added to both: the gate, and what was expected less what was measured
        sides = torch.cat([gate, offset - value], dim=1)
        wanted = aim.clone()
        states, flowed = torch.empty_like(gate), torch.empty_like(gate)
        with on_buffers():
            across, minus_B = torch.cat([K, P]).T.contiguous(), -B.T.contiguous()
            rows = [
                torch.cat([cosine, cosine], dim=1),
                sine,
                *_with_parts(flowed),
                sides,
                *sides.split([n_states, len(P)], dim=1),
                mask,
                wanted,
                states,
            ]
            drives = None if drive is None else drive.split(sizes)
            before = _with_parts(gate.new_zeros(sizes[0], n_states))
            heads = zip(*(heads_of_rounds(p, sizes) for p in _with_parts(states)), strict=True)
            rounds = zip(*(part.split(sizes) for part in rows), heads, strict=True)
            for step, (c, s, zf, real, imaginary, side, k, e, m, d, z, head) in enumerate(rounds):
                torch.mul(before[0], c, out=zf)
                real.addcmul_(before[2], s, value=-1)
                imaginary.addcmul_(before[1], s)
                if drives is not None:
                    zf.add_(drives[step])
                side.addmm_(zf, across)
                k.sigmoid_()
                e.mul_(m)
                d.addmm_(e, minus_B)
                torch.lerp(zf, d, k, out=z)
                before = head
        ctx.sizes = sizes
        ctx.work = sides, wanted, states.detach(), flowed.detach()
        ctx.save_for_backward(cosine, sine, drive, gate, aim, value, mask, P, offset, K, B)
        return states, flowed

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # as torch wants it written
        ctx: Any, grad_states: Tensor, grad_flowed: Tensor
    ) -> tuple[Tensor | None, ...]:
        sizes, need = ctx.sizes, ctx.needs_input_grad
        if torch.is_grad_enabled():
            plainly = functools.partial(filter_by_autograd, sizes=sizes)
            grads = again(plainly, ctx.saved_tensors, need[:-1], (grad_states, grad_flowed))
            return (*grads, None)
        cosine, sine, drive, _, _, _, mask, P, _, K, B = ctx.saved_tensors
        sides, wanted, states, flowed = ctx.work
        widths = [states.shape[1], len(P)]
        total, into = grad_states.clone(), grad_flowed.clone()
        side, aim = torch.empty_like(sides), torch.empty_like(states)
        gates, minus_error = sides.split(widths, dim=1)
        on_gate, on_error = side.split(widths, dim=1)
        with on_buffers():
            weight, minus_B = torch.cat([K, P]), -B
            kept = 1 - gates
            rows = [
                torch.cat([cosine, cosine], dim=1),
                sine,
                *_with_parts(into),
                total,
                gates,
                kept,
                (wanted - flowed).mul_(gates).mul_(kept),
                mask,
                aim,
                side,
                on_gate,
                on_error,
            ]
            wide = side.new_empty(sizes[0], len(P))
            # of the round before: the states that flow on into this one
            nowhere = _with_parts(torch.zeros_like(total[: sizes[0]]))
            heads = zip(*(heads_of_rounds(p, sizes) for p in _with_parts(total)), strict=True)
            heads = [nowhere, *list(heads)[:-1]]
            rounds = list(zip(*(part.split(sizes) for part in rows), heads, strict=True))
            for c, s, gi, real, imaginary, g, k, rest, slope, m, a, both, ga, ge, head in reversed(
                rounds
            ):
                torch.mul(g, k, out=a)
                torch.mul(g, slope, out=ga)
                torch.mul(torch.mm(a, minus_B, out=wide[: len(a)]), m, out=ge)
                gi.addcmul_(g, rest).addmm_(both, weight)
                head[0].addcmul_(gi, c)
                head[1].addcmul_(imaginary, s)
                head[2].addcmul_(real, s, value=-1)
            rounds.clear()
        grad_cosine = grad_sine = None
        if need[0] or need[1]:
            start = torch.zeros_like(states[: sizes[0]])
            before = torch.cat([start, *heads_of_rounds(states, sizes)[:-1]])
            _, real, imaginary = _with_parts(before)
            _, on_real, on_imaginary = _with_parts(into)
            grad_cosine = (on_real * real).addcmul_(on_imaginary, imaginary)
            grad_sine = (on_imaginary * real).addcmul_(on_real, imaginary, value=-1)
        return (
            grad_cosine,
            grad_sine,
            into if drive is not None else None,
            on_gate,
            aim,
            -on_error if need[5] else None,
            None,
            on_error.T @ flowed if need[7] else None,
            on_error.sum(dim=0) if need[8] else None,
            on_gate.T @ flowed if need[9] else None,
            -(aim.T @ minus_error) if need[10] else None,
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


def _with_parts(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rows, and views of their real and imaginary parts."""
    modes = rows.shape[1] // 2
    return rows, rows[:, :modes], rows[:, modes:]
