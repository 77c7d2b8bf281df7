"""Impulses: a dose that arrives at once, and the jump of the state that it makes."""

import torch
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import FunctionSignal, Signal

from .solvers import Field

IMPULSE_STEPS = 16  # Runge-Kutta steps across an impulse; one is exact where B is constant


def jump(
    field: Field,
    signal: Signal | FunctionSignal,
    t: Tensor,
    x: Tensor,
    moves: Tensor | None = None,
) -> Tensor:
    """The state just after the impulses at t: the limit of ever shorter pulses of the same area.

    While a short pulse u = dose / width lasts, nothing but B(x) u of the field counts, so the state
    flows along B(x) dose for unit pseudo-time, with B = df/du. This is x + B dose where B does not
    depend on x. A field that is not affine in u has no such limit.

    Args:
        field: Maps t (...), x (..., state), u (..., input) to dx/dt.
        signal: The input, with its impulses.
        t: Now, (...).
        x: The state just before, (..., state).
        moves: Which trajectories are there; all of them by default.

    Raises:
        ArgumentError: An impulse on an input that enters the field nonlinearly.
    """
    if signal.impulses is None:
        return x
    times, amounts = signal.impulses
    now = (times.to(t) == t.unsqueeze(-1)).unsqueeze(-1)
    dose = torch.where(now, amounts, 0.0).sum(dim=-2).to(x.dtype)
    hit = (dose != 0).any(dim=-1) if moves is None else (dose != 0).any(dim=-1) & moves
    if not hit.any():
        return x
    base = signal(t).to(x.dtype)
    dose, base = (part.contiguous() for part in torch.broadcast_tensors(dose, base))

    def along(x: Tensor) -> Tensor:
        return torch.func.jvp(lambda u: field(t, x, u), (base,), (dose,))[1]

    slope = along(x)
    with torch.no_grad():
        found = field(t, x, base + dose) - field(t, x, base)
        scale = slope.abs().amax(dim=-1, keepdim=True)
        off = ((found - slope).abs() > 1e-4 * scale + 1e-9).any(dim=-1)
    if (off & hit).any():
        raise ArgumentError(
            "an impulse on an input that enters the vector field nonlinearly has no meaning: its "
            "effect depends on how long it lasts",
            fix="give it as a value over a short interval",
        )
    # B does not depend on x where it is the same at both ends of its own effect.
    straight = x + slope
    is_straight = ((along(straight) - slope).abs() <= 1e-12 * scale).all(dim=-1)
    if (is_straight | ~hit).all():
        return torch.where(hit.unsqueeze(-1), straight, x)
    curved, width = x, 1 / IMPULSE_STEPS
    for _ in range(IMPULSE_STEPS):
        curved = _rk4(along, width, curved)
    after = torch.where(is_straight.unsqueeze(-1), straight, curved)
    return torch.where(hit.unsqueeze(-1), after, x)


def _rk4(slope, width: float, x: Tensor) -> Tensor:
    k1 = slope(x)
    k2 = slope(x + width / 2 * k1)
    k3 = slope(x + width / 2 * k2)
    k4 = slope(x + width * k3)
    return x + width / 6 * (k1 + 2 * (k2 + k3) + k4)
