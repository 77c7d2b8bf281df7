"""Log density of the time at which a diffusion between two bounds reaches one, with its slopes.

Navarro & Fuss 2009, J. Math. Psychol. 53:222-230: a series for short times or one for long ones.
Where they meet (.3 of the squared separation), five terms of either leave a relative error of
rounding, so the number of terms is fixed; both are summed relative to an exponent that is taken
out, so tails keep value and slopes.

Slopes are written out beside the value, and trials are taken in blocks that stay in a core's
cache: this is the inner loop of every fit. Second derivatives are those of the written slopes.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

MEETING = 0.3  # of a^2: where the series for short times hands over
BLOCK = 65_536  # trials: arrays of half a megabyte
_HALF_LOG_TAU = math.log(2 * math.pi) / 2
_RATE = math.pi**2 / 2  # of the slowest term, per a^2


def log_density(
    rt: Tensor, late: Tensor, upper: Tensor, v: Tensor, a: Tensor, w: Tensor, spread: Tensor
) -> Float[Tensor, "*trial"]:
    """Of first reaching the upper or the lower bound at these times; -inf until `late`.

    Args:
        rt: Seconds.
        late: When the diffusion begins, seconds.
        upper: Whether it is the upper bound.
        v: Drift, towards the upper bound, 1/s.
        a: Separation of the bounds.
        w: Start, a fraction of the separation from the lower one.
        spread: Standard deviation of a normal drift, 1/s.
    """
    given = (rt, late, upper, v, a, w, spread)
    is_sloped = torch.is_grad_enabled() and any(one.requires_grad for one in given)
    found: tuple[Tensor, Tensor] = _LogDensity.apply(is_sloped, *given)
    return found[0]


class _LogDensity(torch.autograd.Function):
    """The density as one node of the graph; beside it its slopes, which are kept for the way back.

    Torch's own transforms (`torch.func.grad`, `jacrev`) see through it; forward mode does not.
    """

    @staticmethod
    def forward(is_sloped: bool, rt: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        given = (rt, *others)
        shape = torch.broadcast_shapes(*(one.shape for one in given))
        # what is shared by all trials stays one number; the rest is cut into blocks
        flat = [one.expand(shape).reshape(-1) if one.ndim else one for one in given]
        flat[0] = rt.expand(shape).reshape(-1)
        is_spread = bool((flat[-1] != 0).any())
        value = torch.empty(math.prod(shape), dtype=torch.float64)
        slopes = torch.empty((5 if is_sloped else 0, len(value)), dtype=torch.float64)
        for first in range(0, len(value), BLOCK):
            block = slice(first, first + BLOCK)
            *own, spread = (x[block] if x.ndim else x for x in flat)
            parts = _value_and_slopes(own, spread if is_spread else None, is_sloped)
            for row, part in zip((value, *slopes), parts, strict=True):
                row[block] = part
        return value.reshape(shape), slopes

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs[1:], output[1])

    @staticmethod
    def backward(ctx: Any, *grown: Tensor) -> tuple[Tensor | None, ...]:
        *given, slopes = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody asks for second derivatives
            full = [one.expand(grown[0].shape).reshape(-1) for one in given]
            slopes = _value_and_slopes(full[:-1], full[-1], True)[1:]
        per_trial = grown[0].reshape(-1)

        def pulled(one: Tensor, slope: Tensor) -> Tensor:
            if one.numel() == 1:
                return torch.dot(per_trial, slope).reshape(one.shape)
            return (per_trial * slope).reshape(grown[0].shape).sum_to_size(one.shape)

        by_time, *rest = slopes
        all_slopes = (by_time, -by_time, None, *rest)
        found = [
            pulled(one, slope) if needed and slope is not None else None
            for one, slope, needed in zip(given, all_slopes, ctx.needs_input_grad[1:], strict=True)
        ]
        return (None, *found)


def _value_and_slopes(
    given: Sequence[Tensor], spread: Tensor | None, is_sloped: bool
) -> Sequence[Tensor]:
    """The log density, and with slopes those in rt, v, a, w and the spread.

    Without a spread its slope is 0, and has none of its own.
    """
    rt, late, upper, v, a, w = given
    t = rt - late
    possible = t > 0
    is_all_possible = bool(possible.all())
    if not is_all_possible:
        t = torch.where(possible, t, 1.0)
    # seen from the bound that is reached; products are several times as fast as torch.where
    side = upper.to(t.dtype)
    sign = 1.0 - 2.0 * side
    w, v = side + sign * w, sign * v
    per_square = 1.0 / (a * a)
    still = _still(t * per_square, w, is_sloped)
    tilted = _drifting(t, v, a * w) if spread is None else _spread_out(t, v, a * w, spread)
    value = still[0] + (tilted.value - 2.0 * torch.log(a))
    if not is_all_possible:
        value = torch.where(possible, value, -math.inf)
    if not is_sloped:
        return [value]
    by_time = still[1] * per_square
    slopes = [
        by_time + tilted.by_time,
        sign * tilted.by_drift,
        (1.0 + t * by_time) * (-2.0 / a) + w * tilted.by_distance,
        sign * (still[2] + a * tilted.by_distance),
        tilted.by_spread,
    ]
    if not is_all_possible:
        slopes = [torch.where(possible, slope, 0.0) for slope in slopes]
    return [value, *slopes]


class _Tilt(NamedTuple):
    """What a drift does to the log density, and its slopes."""

    value: Tensor
    by_time: Tensor
    by_drift: Tensor
    by_distance: Tensor
    by_spread: Tensor


def _drifting(t: Tensor, v: Tensor, distance: Tensor) -> _Tilt:
    moved = distance + v * t
    value = v * (distance + moved) * -0.5
    return _Tilt(value, v * v * -0.5, -moved, -v, torch.zeros_like(t))


def _spread_out(t: Tensor, v: Tensor, distance: Tensor, spread: Tensor) -> _Tilt:
    """A normal drift integrates in closed form (Tuerlinckx 2004, Behav. Res. Methods 36:702)."""
    square, moved = spread * spread, distance + v * t
    widened = 1.0 + square * t
    tilt = (square * distance * distance - v * (distance + moved)) / (2.0 * widened)
    return _Tilt(
        value=tilt - torch.log(widened) / 2.0,
        by_time=-(v * v + square + 2.0 * square * tilt) / (2.0 * widened),
        by_drift=-moved / widened,
        by_distance=(square * distance - v) / widened,
        by_spread=spread * ((distance * distance - t - 2.0 * tilt * t) / widened),
    )


def _still(u: Tensor, w: Tensor, is_sloped: bool) -> Sequence[Tensor]:
    """Log density of reaching 0 from w between 0 and 1 without drift; its slopes in u and w."""
    is_short = u < MEETING
    short, long = is_short.nonzero().squeeze(-1), (~is_short).nonzero().squeeze(-1)
    if not short.numel():
        return _long(u, w, is_sloped)
    if not long.numel():
        return _short(u, w, is_sloped)
    u, w = torch.broadcast_tensors(u, w)
    early, late = (
        series(u.index_select(0, own), w.index_select(0, own), is_sloped)
        for series, own in ((_short, short), (_long, long))
    )
    return [
        torch.empty_like(u).index_copy_(0, short, one).index_copy_(0, long, other)
        for one, other in zip(early, late, strict=True)
    ]


def _short(u: Tensor, w: Tensor, is_sloped: bool) -> Sequence[Tensor]:
    """By images of the start at w + 2 k: sum of (w + 2 k) exp(-2 k (k + w) / u), |k| < 3."""
    x = 1.0 / u
    from_start = w * x
    near = torch.exp(torch.sub(from_start, x) * 2.0)  # k = -1
    far = torch.exp(torch.add(from_start, x) * -2.0)  # k = 1
    both = near * far
    near2, far2 = near * near * both, far * far * both  # k = -2, 2
    even, odd, even2, odd2 = far + near, far - near, far2 + near2, far2 - near2
    all_images = even + even2 + 1.0
    total = (w * all_images).add(odd, alpha=2.0).add(odd2, alpha=4.0)
    value = torch.log(total).add(torch.log(x), alpha=1.5)
    value = value.addcmul(w, from_start, value=-0.5) - _HALF_LOG_TAU
    if not is_sloped:
        return [value]
    # derivatives of the sum in w and, but for a factor of -2, in x
    skew = w * odd.add(odd2, alpha=2.0)
    by_w = all_images.addcmul(x, skew.add(even, alpha=2.0).add(even2, alpha=8.0), value=-2.0)
    by_x = w * skew.add(even.add(even2, alpha=4.0), alpha=3.0)
    by_x = by_x.add(odd.add(odd2, alpha=8.0), alpha=2.0)
    per_total = 1.0 / total
    by_log_x = (x * by_x * per_total * 2.0).addcmul(w, from_start, value=0.5)
    return [value, x * (by_log_x - 1.5), by_w * per_total - from_start]


def _long(u: Tensor, w: Tensor, is_sloped: bool) -> Sequence[Tensor]:
    """By standing waves: pi sum of k sin(k pi w) exp(-k^2 pi^2 u / 2), k < 6."""
    fall = u * -_RATE
    q = torch.exp(fall)
    q2 = q * q
    q3 = q * q2
    q5 = q2 * q3
    q8 = q3 * q5
    q15, q24 = q5 * q2 * q8, q8 * q8 * q8
    y = math.pi * w
    sine, cosine = torch.sin(y), torch.cos(y)
    twice = 2.0 * cosine
    # sin(k y) / sin(y) by its recurrence, so that nothing cancels near the bound
    k3 = twice * twice - 1.0
    k4 = twice * (k3 - 1.0)
    k5 = twice * k4 - k3
    waves = ((twice, q3), (k3, q8), (k4, q15), (k5, q24))
    total = _summed(torch.ones_like(u), waves, (2.0, 3.0, 4.0, 5.0))
    scaled = sine * total
    value = torch.log(scaled) + fall + math.log(math.pi)
    if not is_sloped:
        return [value]
    by_u = _summed(total, waves, (6.0, 24.0, 60.0, 120.0)) / total
    c2 = cosine * twice - 1.0  # cos(k y), likewise
    c3 = twice * c2 - cosine
    c4 = twice * c3 - c2
    c5 = twice * c4 - c3
    waves = ((c2, q3), (c3, q8), (c4, q15), (c5, q24))
    by_w = _summed(cosine, waves, (4.0, 9.0, 16.0, 25.0)) / scaled
    return [value, by_u * -_RATE, by_w * math.pi]


def _summed(
    total: Tensor, pairs: Sequence[tuple[Tensor, Tensor]], factors: Sequence[float]
) -> Tensor:
    for (one, other), factor in zip(pairs, factors, strict=True):
        total = total.addcmul(one, other, value=factor)
    return total
