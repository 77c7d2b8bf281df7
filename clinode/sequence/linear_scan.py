"""z_k = A_k z_{k-1} + b_k along every record of a packed batch, by a loop or in log depth.

A and b do not depend on z, so the recurrence is associative (Blelloch 1990, CMU-CS-90-190): rows
can be joined with those 1, 2, 4, ... steps before them, all at once. That is about log2(steps)
passes over all rows instead of one small operation a step, which pays where launching an operation
costs more than its arithmetic: on a GPU. On a CPU the loop is faster. The slope of a scan is a scan
in the other direction, so one autograd function serves any order of derivatives.
"""

from typing import Any

import torch
from jaxtyping import Complex, Int64
from torch import Tensor

Rows = Complex[Tensor, "row mode"]


def scan(A: Rows, b: Rows, sizes: list[int]) -> Rows:
    """States of all rows, from 0 before the first row of each record; differentiable.

    Args:
        A: Diagonal of the transition into each row; that of a first row is not used.
        b: What is added at each row.
        sizes: Records that still have a row at each step, as `IrregularBatch.sizes`.
    """
    run: Any = LinearScan.apply
    return run(A, b, sizes, False)


def previous(rows: Tensor, sizes: list[int]) -> Tensor:
    """What the record's previous row holds; 0 at its first."""
    return _from(rows, _neighbour(sizes, -1, rows.device))


class LinearScan(torch.autograd.Function):
    """The scan of `scan`, or the same from each record's last row to its first."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, b: Tensor, sizes: list[int], backwards: bool) -> Tensor:
        by = in_log_depth if A.is_cuda else in_turn
        z = by(A, b, sizes, backwards=backwards)
        ctx.save_for_backward(A, z)
        ctx.sizes, ctx.backwards = sizes, backwards
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        A, z = ctx.saved_tensors
        before = _neighbour(ctx.sizes, 1 if ctx.backwards else -1, z.device)
        after = _neighbour(ctx.sizes, -1 if ctx.backwards else 1, z.device)
        carried = LinearScan.apply(_from(A, after).conj(), grads[0], ctx.sizes, not ctx.backwards)
        return carried * _from(z, before).conj(), carried, None, None


def in_turn(A: Tensor, b: Tensor, sizes: list[int], *, backwards: bool = False) -> Tensor:
    """Step by step."""
    z = b.clone(memory_format=torch.contiguous_format)
    rows, gates = z.split(sizes), A.split(sizes)
    last = len(sizes) - 1
    if backwards:
        for step in range(last - 1, -1, -1):
            n = sizes[step + 1]
            rows[step][:n].addcmul_(gates[step][:n], rows[step + 1])
    else:
        for step in range(1, last + 1):
            rows[step].addcmul_(gates[step], rows[step - 1][: sizes[step]])
    return z


def in_log_depth(A: Tensor, b: Tensor, sizes: list[int], *, backwards: bool = False) -> Tensor:
    """By doubling: after pass p a row stands for itself and the 2^p - 1 rows before it."""
    direction = 1 if backwards else -1
    A = torch.where((_neighbour(sizes, direction, A.device) >= 0).unsqueeze(1), A, 0.0)
    z, distance = b, 1
    while distance < len(sizes):
        there = _neighbour(sizes, direction * distance, A.device)
        own = torch.arange(len(there), device=A.device)
        there = torch.where(there >= 0, there, own)  # where A is 0 by now: joining changes nothing
        z, A = torch.addcmul(z, A, z[there]), A * A[there]
        distance *= 2
    return z


def _neighbour(sizes: list[int], distance: int, device: torch.device) -> Int64[Tensor, " row"]:
    """Packed row of the same record this many steps on; -1 where there is none."""
    size = torch.tensor(sizes, device=device)
    offset = torch.cumsum(size, 0) - size
    step = torch.repeat_interleave(torch.arange(len(sizes), device=device), size)
    place = torch.arange(len(step), device=device) - offset[step]
    other = step + distance
    inside = (other >= 0) & (other < len(sizes))
    other = other.clamp(0, len(sizes) - 1)
    return torch.where(inside & (place < size[other]), offset[other] + place, -1)


def _from(rows: Tensor, index: Tensor) -> Tensor:
    return torch.where((index >= 0).unsqueeze(1), rows[index.clamp(min=0)], 0.0)
