"""Trajectories of a batch of rate networks from many starts, with the gradient by hand.

One `autograd.Function` runs all steps of the classical Runge-Kutta method and back again: some
hundred small tensors a step would otherwise each have a node of their own. The gradient of W is one
product after the last step.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

PARTS = ("W", "wee", "wei", "wie", "wii", "bh", "tau", "tau_h", "inward", "own", "outward", "shift")
"""Weights in the order that `rollout` takes them; b and gain are in the drive."""


def rollout(
    x: Float[Tensor, "batch region"],
    h: Float[Tensor, "batch region"],
    drive: Float[Tensor, "step batch region"],
    weights: dict[str, Tensor],
    step: float,
) -> Float[Tensor, "step batch region"]:
    """The seen states after each step; one step a row of `drive`, which is constant within it.

    Args:
        x: Seen states at the start.
        h: Hidden ones.
        drive: b + gain u, dimensionless.
        weights: Those named in `PARTS`, as in `RateNetwork`.
        step: Seconds.
    """
    return _Rollout.apply(x, h, drive, step, *(weights[name] for name in PARTS))  # pyright: ignore


class _Rollout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, drive: Tensor, step: float, *parts: Tensor):
        stages = []
        seen = []
        keep = any(ctx.needs_input_grad)
        for row in drive:
            x1, h1, first = _field(x, h, row, parts)
            x2, h2, second = _field(x + step / 2 * x1, h + step / 2 * h1, row, parts)
            x3, h3, third = _field(x + step / 2 * x2, h + step / 2 * h2, row, parts)
            x4, h4, fourth = _field(x + step * x3, h + step * h3, row, parts)
            x = x + step / 6 * (x1 + 2 * (x2 + x3) + x4)
            h = h + step / 6 * (h1 + 2 * (h2 + h3) + h4)
            seen.append(x)
            if keep:
                stages += [first, second, third, fourth]
        ctx.stages, ctx.step, ctx.parts = stages, step, parts
        return torch.stack(seen)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor):
        step, parts = ctx.step, ctx.parts
        back, stages = _Back(parts), reversed(ctx.stages)
        upstream = gradients[0]
        gx, gh = torch.zeros_like(upstream[0]), torch.zeros_like(upstream[0])
        of_drive = torch.empty_like(upstream)
        for k in range(len(upstream) - 1, -1, -1):
            gx = gx + upstream[k]
            vx, vh, a4 = back(next(stages), step / 6 * gx, step / 6 * gh)
            tx, th = gx + vx, gh + vh
            vx, vh, a3 = back(next(stages), step / 3 * gx + step * vx, step / 3 * gh + step * vh)
            tx, th = tx + vx, th + vh
            half = step / 2
            vx, vh, a2 = back(next(stages), step / 3 * gx + half * vx, step / 3 * gh + half * vh)
            tx, th = tx + vx, th + vh
            vx, vh, a1 = back(next(stages), step / 6 * gx + half * vx, step / 6 * gh + half * vh)
            gx, gh = tx + vx, th + vh
            of_drive[k] = a1 + a2 + a3 + a4
        return (gx, gh, of_drive, None, *back.of_parts())


def _field(x: Tensor, h: Tensor, drive: Tensor, parts: tuple[Tensor, ...]):
    """The field at (batch, region), and what its gradient needs."""
    W, wee, wei, wie, wii, bh, tau, tau_h, inward, own, outward, shift = parts
    a = torch.addmm(drive, x, W.T)
    p = torch.addcmul(torch.addcmul(a, wee, x), wei, h).tanh_()
    q = torch.addcmul(torch.addcmul(bh, wie, x), wii, h).tanh_()
    read = torch.stack([x, h, a], dim=-1)
    z = (read.view(-1, 3) @ inward).view(*x.shape, -1).add_(own).tanh_()
    r = torch.addmm(shift, z.view(-1, z.shape[-1]), outward).view(*x.shape, 2)
    fx = (p - x + r[..., 0]) / tau
    fh = (q - h + r[..., 1]) / tau_h
    return fx, fh, (read, p, q, z, fx, fh)


class _Back:
    """Vector-Jacobian products of the field, and the gradients of its weights, gathered.

    Args:
        parts: In the order of `PARTS`.
    """

    def __init__(self, parts: tuple[Tensor, ...]):
        self.parts = parts
        self.sums = [torch.zeros_like(part) for part in parts]
        self.pushed: list[Tensor] = []
        self.seen: list[Tensor] = []

    def __call__(self, stage: tuple[Tensor, ...], gx: Tensor, gh: Tensor):
        """Cotangents of x, h and a for those of the two rates."""
        W, wee, wei, wie, wii, _, tau, tau_h, inward, _, outward, _ = self.parts
        read, p, q, z, fx, fh = stage
        x, h = read[..., 0], read[..., 1]
        sx, sh = gx / tau, gh / tau_h
        dp = torch.addcmul(sx, sx * p, p, value=-1)
        dq = torch.addcmul(sh, sh * q, q, value=-1)
        both = torch.stack([sx, sh], dim=-1).view(-1, 2)
        flat = z.view(-1, z.shape[-1])
        dz = both @ outward.T
        dz = torch.addcmul(dz, dz * flat, flat, value=-1)
        of_read = (dz @ inward.T).view(*x.shape, 3)
        da = dp + of_read[..., 2]
        of_x = torch.addcmul(torch.addcmul(of_read[..., 0], dp, wee), dq, wie).sub_(sx)
        of_x = torch.addmm(of_x, da, W)
        of_h = torch.addcmul(torch.addcmul(of_read[..., 1], dp, wei), dq, wii).sub_(sh)
        sums = self.sums
        sums[1] += (dp * x).sum(0)
        sums[2] += (dp * h).sum(0)
        sums[3] += (dq * x).sum(0)
        sums[4] += (dq * h).sum(0)
        sums[5] += dq.sum(0)
        sums[6] -= (sx * fx).sum(0)
        sums[7] -= (sh * fh).sum(0)
        sums[8].addmm_(read.view(-1, 3).T, dz)
        sums[9] += dz.view(*x.shape, -1).sum(0)
        sums[10].addmm_(flat.T, both)
        sums[11] += both.sum(0)
        self.pushed.append(da)
        self.seen.append(x)
        return of_x, of_h, da

    def of_parts(self) -> list[Tensor]:
        """Gradients of the weights, in the order of `PARTS`."""
        self.sums[0] = torch.cat(self.pushed).T @ torch.cat(self.seen)
        return self.sums
