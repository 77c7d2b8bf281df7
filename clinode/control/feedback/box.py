"""Quadratic costs within limits: minimize q'z + z'Qz / 2 over low <= z <= high, many at once.

Projected Newton steps (Bertsekas 1982, SIAM J. Control Optim. 20:221-246): variables that a limit
holds are fixed, the others take the Newton step of what is left, shortened until the cost falls.
The answer is exact, up to rounding, once the set of held variables is right; it is checked.
"""

import torch
from torch import Tensor

from clinode.errors import SolverError

MOST_STEPS = 200
RIGHT = 1e-9  # largest gradient left among free variables, relative
FRACTIONS = tuple(0.5**i for i in range(20))


def box_minimum(Q: Tensor, q: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The minimum and which variables are free, (..., z) each.

    Args:
        Q: (..., z, z), positive definite.
        q: (..., z).
        low: (..., z), may be -inf.
        high: (..., z), not below `low`.

    Raises:
        SolverError: The optimality conditions were not met.

    Example:
        >>> one = torch.eye(2).double()
        >>> box_minimum(one, torch.tensor([-3.0, 0.5]).double(), -one[0] * 0 - 1, one[0] * 0 + 1)[0]
        tensor([ 1.0000, -0.5000], dtype=torch.float64)
    """
    low, high = low.expand_as(q), high.expand_as(q)
    z = torch.minimum(torch.maximum(-torch.linalg.solve(Q, q), low), high)
    fractions = torch.tensor(FRACTIONS, dtype=q.dtype).reshape(-1, *[1] * q.ndim)
    size = (q.abs() + _times(Q.abs(), z.abs())).amax(-1, keepdim=True) + 1e-300
    for _ in range(MOST_STEPS):
        slope = q + _times(Q, z)
        held = ((z <= low) & (slope > 0)) | ((z >= high) & (slope < 0)) | (low == high)
        left = torch.where(held, 0.0, slope)
        if bool((left.abs() <= 1e-13 * size).all()):
            break
        free = (~held).to(q.dtype)
        among = Q * free.unsqueeze(-1) * free.unsqueeze(-2) + torch.diag_embed(1 - free)
        step = -torch.linalg.solve(among, left)
        tried = torch.minimum(torch.maximum(z + fractions * step, low), high)
        cost = ((q + 0.5 * _times(Q, tried)) * tried).sum(-1)
        best = cost.argmin(0)
        chosen = tried.gather(0, best[None, ..., None].expand(1, *q.shape))[0]
        now = ((q + 0.5 * _times(Q, z)) * z).sum(-1)
        falls = (cost.amin(0) < now).unsqueeze(-1)
        if not bool(falls.any()):
            break
        z = torch.where(falls, chosen, z)
    slope = q + _times(Q, z)
    held = ((z <= low) & (slope >= 0)) | ((z >= high) & (slope <= 0))
    if bool((torch.where(held, 0.0, slope).abs() > RIGHT * size).any()):
        raise SolverError(
            "a quadratic cost within limits was not minimized to its optimality conditions",
            fix="scale the inputs alike, or a larger input_cost",
        )
    return z, ~held


def _times(M: Tensor, v: Tensor) -> Tensor:
    return (M @ v.unsqueeze(-1)).squeeze(-1)
