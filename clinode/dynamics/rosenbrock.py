"""One step of RODAS, a Rosenbrock method of order 4 for stiff systems: pure functions of rows.

Hairer & Wanner 1996, Solving Ordinary Differential Equations II, IV.7 and VI.4: six stages, stiffly
accurate and L-stable, an error estimate of order 3, a cubic between two steps of order 3. On a
fast state that follows its input both ends of a step are right whatever its width; what is between
them is not. So the estimate is, state by state, the larger of that of the method and of the defect
of the cubic in the middle of the step, filtered by W^-1 (as in Shampine & Baca 1984, J. Comput.
Appl. Math. 11:197-207). Each step solves linear systems with W = 1 / (h gamma) - J and nothing
iterates, so gradients pass through it exactly; J = df/dx and df/dt are exact, by automatic
differentiation. As in `clinode.dynamics.runge_kutta`, rows share nothing and nothing branches on
values.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .runge_kutta import Rate, Step, combination

Solve = Callable[[Tensor], Tensor]  # right-hand sides (..., state) -> W^-1 of them

GAMMA = 0.25
NODES = (0.0, 0.386, 0.21, 0.63, 1.0, 1.0)
TIME = (0.25, -0.1043, 0.1035, -0.0362, 0.0, 0.0)  # weights of h df/dt
STAGES = (
    (1.544,),
    (0.9466785280815826, 0.2557011698983284),
    (3.314825187068521, 2.896124015972201, 0.9986419139977817),
    (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950),
    (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950, 1.0),
)
COUPLING = (
    (-5.6688,),
    (-2.430093356833875, -0.2063599157091915),
    (-0.1073529058151375, -9.594562251023355, -20.47028614809616),
    (7.496443313967647, -10.24680431464352, -33.99990352819905, 11.70890893206160),
    (
        8.083246795921522,
        -7.981132988064893,
        -31.52159432874371,
        16.31930543123136,
        -6.058818238834054,
    ),
)
CURVE = (
    (
        10.12623508344586,
        -7.487995877610167,
        -34.80091861555747,
        -7.992771707568823,
        1.025137723295662,
    ),
    (
        -0.6762803392301253,
        6.087714651680015,
        16.43084320892478,
        24.76722511418386,
        -6.594389125716872,
    ),
)


def rodas4(
    rate: Rate,
    t: Tensor,
    h: Tensor,
    x: Tensor,
    slope: Tensor,
    differentiate: Callable[[Rate, Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    factorize: Callable[[Tensor], Solve] | None = None,
) -> Step:
    """One step of RODAS; the slope at its end is not known.

    Args:
        rate: The field with its input bound; it may depend on time.
        t: Where the step begins, (...).
        h: Its width, (...), not zero.
        x: The state at t, (..., state).
        slope: rate(t, x).
        differentiate: Gives df/dx and df/dt; `derivatives` by default.
        factorize: From W (..., state, state) to its solver; LU by default.
    """
    width = h.to(x.dtype).unsqueeze(-1)
    jacobian, drift = (differentiate or derivatives)(rate, t, x)
    identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    solve = (factorize or lu)(identity / (GAMMA * width.unsqueeze(-1)) - jacobian)
    forced = width * drift
    stages = [solve(slope + TIME[0] * forced)]
    stage = x
    for i, (weights, coupling) in enumerate(zip(STAGES, COUPLING, strict=True), start=1):
        stage = x + combination(weights, stages)
        right = rate(t + NODES[i] * h, stage) + combination(coupling, stages) / width
        if TIME[i]:
            right = right + TIME[i] * forced
        stages.append(solve(right))
    after = stage + stages[-1]
    middle = _defect(rate, t, h, x, after, stages, solve)
    error = torch.where(middle.abs() > stages[-1].abs(), middle, stages[-1])
    return Step(after, None, error, tuple(stages))


def _defect(
    rate: Rate,
    t: Tensor,
    h: Tensor,
    x: Tensor,
    after: Tensor,
    stages: Sequence[Tensor],
    solve: Solve,
) -> Tensor:
    """W^-1 of what the curve misses of the rate in the middle of the step: its error there."""
    first, second = rodas4_curve(h, x, after, stages)
    rise = after - x
    middle = x + (rise + (first + second / 2) / 2) / 2
    moving = (rise + second / 4) / h.to(x.dtype).unsqueeze(-1)
    return solve(rate(t + h / 2, middle) - moving)


def rodas4_curve(
    h: Tensor, x: Tensor, after: Tensor, stages: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """What `clinode.dynamics.runge_kutta.interpolate` needs between x and `after`."""
    first, second = (combination(weights, stages[:5]) for weights in CURVE)
    return first, second


def derivatives(rate: Rate, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """df/dx (..., state, state) and df/dt (..., state) of rows that share nothing.

    One backward pass over a copy of all rows for each component of the rate: outside a compiler
    that costs a fifth of `forward_derivatives`. Differentiable where gradients are recorded.
    """
    n_states, recording = x.shape[-1], torch.is_grad_enabled()
    one = torch.eye(n_states, dtype=x.dtype, device=x.device)
    one = one.reshape(n_states, *[1] * (x.ndim - 1), n_states).expand(n_states, *x.shape)
    with torch.enable_grad():
        times = t.detach().repeat(n_states, *[1] * t.ndim).requires_grad_()
        states = x.repeat(n_states, *[1] * x.ndim)
        states = states if states.requires_grad else states.requires_grad_()
        rates = rate(times, states)
        if not rates.requires_grad:  # a field that is constant
            return torch.zeros_like(one).movedim(0, -2), torch.zeros_like(x)
        in_state, in_time = torch.autograd.grad(
            rates, (states, times), one, create_graph=recording, materialize_grads=True
        )
    return in_state.movedim(0, -2), in_time.movedim(0, -1).to(x.dtype)


def forward_derivatives(rate: Rate, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The same by forward mode with a leading axis, one copy a state and one for time.

    A compiler traces it without a tape.
    """
    n_states = x.shape[-1]
    along = torch.eye(n_states + 1, dtype=x.dtype, device=x.device)
    along = along.reshape(-1, *[1] * (x.ndim - 1), n_states + 1)
    times, states = t.repeat(n_states + 1, *[1] * t.ndim), x.repeat(n_states + 1, *[1] * x.ndim)
    in_time = along[..., -1].to(t.dtype).expand(times.shape).contiguous()
    in_state = along[..., :-1].expand(states.shape).contiguous()
    columns = torch.func.jvp(rate, (times, states), (in_time, in_state))[1]
    return columns[:-1].movedim(0, -1), columns[-1]


def lu(W: Tensor) -> Solve:
    """The solver of W by LU with partial pivoting; not finite where W is singular."""
    factors, pivots, _ = torch.linalg.lu_factor_ex(W)

    def solve(right: Tensor) -> Tensor:
        return torch.linalg.lu_solve(factors, pivots, right.unsqueeze(-1)).squeeze(-1)

    return solve
