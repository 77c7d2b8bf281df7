"""Exponential Runge-Kutta steps of x' = -a x + N(x), exact for the decay.

Of fourth order (Cox & Matthews 2002, J. Comput. Phys. 176:430-455). Every row has a size and a
number of steps of its own, which depend on its gap and on the field, never on the batch.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.sequence.rounds import again

STEP_SIZE = 0.35  # of one step, times the steepness of N: error below 1e-5
MAX_STEPS = 256  # of one gap


class ExponentialSteps(NamedTuple):
    """Coefficients of one step of each row: x' = -a x + N(x), exact in a.

    With z = -a h and phi_k(z) = (phi_{k-1}(z) - 1/(k-1)!) / z, phi_0 = exp.
    """

    n_steps: Float[Tensor, " row"]
    whole: Float[Tensor, "row state"]  # exp(z)
    half: Float[Tensor, "row state"]  # exp(z/2)
    to_half: Float[Tensor, "row state"]  # h/2 phi_1(z/2)
    first: Float[Tensor, "row state"]  # h (phi_1 - 3 phi_2 + 4 phi_3)
    middle: Float[Tensor, "row state"]  # h (2 phi_2 - 4 phi_3), for both inner stages
    last: Float[Tensor, "row state"]  # h (4 phi_3 - phi_2)


class Solver(NamedTuple):
    """A field that is solved by exponential steps.

    Args:
        decay: a, per hour.
        steepness: A Lipschitz constant of N, per hour.
        flow: States after steps, from states before, the steps and a drive or None.
        drive: From treatments to what they add to the field.
    """

    decay: Float[Tensor, "... state"]
    steepness: Float[Tensor, ""]
    flow: Callable[[Tensor, ExponentialSteps, Tensor | None], Tensor]
    drive: Callable[[Tensor], Tensor]


def exponential_steps(
    decay: Float[Tensor, "... state"], size: Float[Tensor, " row"], n_steps: Float[Tensor, " row"]
) -> ExponentialSteps:
    """Coefficients for steps of these sizes; a size of 0 is the identity."""
    h = size.unsqueeze(1)
    is_transformed = torch._C._are_functorch_transforms_active()
    if is_transformed or torch.compiler.is_exporting() or size.requires_grad:
        return ExponentialSteps(n_steps, *_coefficients_plainly(decay, h))
    whole, half, to_half, first, middle, last = _Coefficients.apply(decay, h)  # pyright: ignore[reportGeneralTypeIssues]
    return ExponentialSteps(n_steps, whole, half, to_half, first, middle, last)


def _coefficients_plainly(
    decay: Float[Tensor, "... state"], h: Float[Tensor, "row 1"]
) -> tuple[Tensor, ...]:
    """In operations that autograd follows; also what the rest is tested against."""
    z = -decay * h
    one, two, three = _phi(z)[:3]
    return (
        torch.exp(z),
        torch.exp(z / 2),
        h / 2 * _phi(z / 2)[0],
        h * (one - 3 * two + 4 * three),
        h * (2 * two - 4 * three),
        h * (4 * three - two),
    )


class _Coefficients(torch.autograd.Function):
    """All six from one series, which is summed at half the step and doubled.

    Every pass over rows and states counts here, and a choice between two branches costs eight.
    """

    @staticmethod
    def forward(ctx: Any, decay: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        half, *near = _phi_at_half(decay * (h / -2))
        one, two, three, four = _doubled(half, *near)
        ctx.save_for_backward(decay, h, half, near[0], near[1], one, two, three, four)
        both = torch.sub(two, three, alpha=2)
        return (
            half * half,
            half.clone(),
            near[0] * (h / 2),
            torch.sub(one, both, alpha=2).sub_(two).mul_(h),
            both * (2 * h),
            torch.sub(three, two, alpha=0.25).mul_(4 * h),
        )

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # as torch wants it written
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, None]:
        decay, h, half, near, nearer, one, two, three, four = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated once more

            def plainly(decay: Tensor) -> tuple[Tensor, ...]:
                return _coefficients_plainly(decay, h)

            return again(plainly, [decay], [True], grads)[0], None
        on_whole, on_half, on_to_half, on_first, on_middle, on_last = grads
        # phi_k' = phi_k - k phi_{k+1}, taken first: for long steps these differences are small
        at = on_first * (one - two)
        share = torch.sub(on_middle, on_first, alpha=1.5).sub_(on_last, alpha=0.5)
        at.addcmul_(share, torch.sub(two, three, alpha=2), value=2)
        share = torch.sub(on_first, on_middle).add_(on_last)
        at.addcmul_(share, torch.sub(three, four, alpha=3), value=4)
        at.addcmul_(on_to_half, near - nearer, value=0.25).mul_(h)
        at.addcmul_(on_half, half, value=0.5)
        at.addcmul_(torch.mul(on_whole, half), half)
        if decay.ndim == 1:
            return -(h.T @ at).squeeze(0), None
        return (at * -h).sum_to_size(decay.shape), None


def _phi_at_half(w: Float[Tensor, "row state"]) -> list[Tensor]:
    """exp and phi_1 to phi_4 of w <= 0: a series where w >= -1, the recursion beyond."""
    near = w.clamp(min=-1.0)
    most = 19 if w.dtype == torch.float64 else 12  # terms that count
    term = w.new_tensor(1 / math.factorial(most))
    for order in range(most - 1, 3, -1):  # sum of w^k / (k + 4)!
        term = torch.addcmul(w.new_tensor(1 / math.factorial(order)), term, near)
    found = [term]
    for order in (3, 2, 1, 0):
        term = torch.addcmul(w.new_tensor(1 / math.factorial(order)), term, near)
        found.insert(0, term)
    is_far = w < -1
    if bool(is_far.any()):
        place = is_far.nonzero(as_tuple=True)
        far = w[place]
        term = torch.exp(far)
        for order, part in enumerate(found):
            part[place] = term
            term = (term - 1 / math.factorial(order)) / far
    return found


def _doubled(
    half: Tensor, one: Tensor, two: Tensor, three: Tensor, four: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """phi_1 to phi_4 of 2 w from those of w (Skaflestad & Wright 2009, Appl. Numer. Math. 59)."""
    return (
        (half + 1).mul_(one).mul_(0.5),
        torch.addcmul(two, one, one, value=0.5).mul_(0.5),
        torch.addcmul(two, one, two).add_(three, alpha=2).mul_(0.125),
        torch.addcmul(three, two, two, value=0.5).add_(four).mul_(0.125),
    )


def phi_functions(z: Float[Tensor, "*shape"]) -> tuple[Tensor, Tensor, Tensor]:
    """phi_1, phi_2 and phi_3 of z <= 0, differentiable."""
    if torch._C._are_functorch_transforms_active() or not z.requires_grad:
        return _phi(z)[:3]
    return _PhiFunctions.apply(z)  # pyright: ignore[reportReturnType]  # torch does not say


def _phi(z: Float[Tensor, "*shape"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """phi_1 to phi_4, in operations that autograd follows.

    By recursion from phi_1 where z <= -1; nearer to 0 that would cancel, so there a Taylor series
    of phi_4 is taken and the recursion run backwards.
    """
    is_small = z > -1
    near, far = torch.where(is_small, z, 0.0), torch.where(is_small, -1.0, z)
    most = 17 if z.dtype == torch.float64 else 12  # terms that count
    series = torch.full_like(z, 1 / math.factorial(most + 1))
    for order in range(most, 3, -1):  # sum of z^k / (k + 4)!
        series = torch.add(1 / math.factorial(order), series * near)
    one = torch.expm1(far) / far
    two = (one - 1) / far
    three = (two - 0.5) / far
    four = torch.where(is_small, series, (three - 1 / 6) / far)
    three = torch.where(is_small, series * near + 1 / 6, three)
    two = torch.where(is_small, three * near + 0.5, two)
    one = torch.where(is_small, two * near + 1, one)
    return one, two, three, four


class _PhiFunctions(torch.autograd.Function):
    """They are their own derivatives: phi_k' = phi_k - k phi_{k+1}."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        one, two, three, four = _phi(z)
        ctx.save_for_backward(z, one, two, three, four)
        return one, two, three

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # as torch wants it written
        ctx: Any, on_one: Tensor, on_two: Tensor, on_three: Tensor
    ) -> Tensor:
        z, one, two, three, four = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated once more
            own = z.view_as(z)
            found = torch.autograd.grad(
                _phi(own)[:3], own, (on_one, on_two, on_three), create_graph=True
            )
            return found[0]
        at = on_one * (one - two)
        at.addcmul_(on_two, torch.sub(two, three, alpha=2))
        return at.addcmul_(on_three, torch.sub(three, four, alpha=3))


def steps_over(
    decay: Float[Tensor, "... state"], gap: Float[Tensor, " row"], steepness: float | Tensor
) -> ExponentialSteps:
    """Steps over gaps: more where a gap is long or N is steep.

    Args:
        decay: a, per hour, positive.
        gap: Hours.
        steepness: A Lipschitz constant of N, per hour.
    """
    n_steps = number_of_steps(gap, steepness)
    return exponential_steps(decay, gap / n_steps, n_steps)


def number_of_steps(
    gap: Float[Tensor, " row"], steepness: float | Tensor, most: float = MAX_STEPS
) -> Float[Tensor, " row"]:
    """Steps that a gap is passed in, where N has this Lipschitz constant per hour."""
    with torch.no_grad():
        n_steps = torch.ceil(gap * steepness / STEP_SIZE).clamp(1, most)
        return n_steps.nan_to_num(nan=1.0)  # of weights that diverged: the loss will say so


def flow(
    bounded: Callable[[Tensor], Tensor], x: Float[Tensor, "row state"], steps: ExponentialSteps
) -> Float[Tensor, "row state"]:
    """The state after all steps of each row.

    Args:
        bounded: N, everything of the field but the decay, of all rows at once.
        x: States before.
        steps: Of each row.
    """
    for done in range(int(steps.n_steps.max()) if len(x) else 0):
        n1 = bounded(x)
        half = steps.half * x
        a = half + steps.to_half * n1
        n2 = bounded(a)
        b = half + steps.to_half * n2
        n3 = bounded(b)
        c = steps.half * a + steps.to_half * (2 * n3 - n1)
        n4 = bounded(c)
        new = steps.whole * x + steps.first * n1 + steps.middle * (n2 + n3) + steps.last * n4
        x = new if done == 0 else torch.where((steps.n_steps > done).unsqueeze(1), new, x)
    return x
