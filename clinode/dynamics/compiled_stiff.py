"""What the Rosenbrock step needs inside a compiled loop: Jacobians, small inverses.

Up to three states the inverse of W is written out and fuses with everything around it; above, the
library factorizes, one call a step. Longer eliminations written out take minutes to compile.
"""

import torch
from torch import Tensor

from .rosenbrock import Solve, lu
from .runge_kutta import Rate

WRITTEN_OUT = 3  # states


def jacobian_rows(rate: Rate, t: Tensor, x: Tensor, drifts: bool) -> tuple[Tensor, Tensor]:
    """df/dx (row, state, state) and df/dt (row, state), one backward derivative a component.

    Forward derivatives would fix the number of rows: their check of sizes is not symbolic.

    Args:
        rate: The field with its input bound.
        t: (row,).
        x: (row, state).
        drifts: Whether it depends on time at all.
    """
    zero, one, n_states = torch.zeros_like(x[..., :1]), torch.ones_like(x[..., :1]), x.shape[-1]
    back = torch.func.vjp(rate, t, x)[1]
    unit = ([one if j == i else zero for j in range(n_states)] for i in range(n_states))
    rows = [back(torch.cat(parts, dim=-1)) for parts in unit]
    jacobian = torch.stack([in_state for _, in_state in rows], dim=1)
    if not drifts:
        return jacobian, torch.zeros_like(x)
    return jacobian, torch.stack([in_time for in_time, _ in rows], dim=-1).to(x.dtype)


def small_inverse(W: Tensor) -> Solve:
    """The solver of W by its adjugate, rows scaled first; not finite where W is singular."""
    n = W.shape[-1]
    if n > WRITTEN_OUT:
        return lu(W)
    size = W.abs().amax(dim=-1, keepdim=True)
    scaled = W / size
    m = [[scaled[..., i, j] for j in range(n)] for i in range(n)]
    if n == 1:
        rows = [[torch.ones_like(m[0][0])]]
        determinant = m[0][0]
    elif n == 2:
        rows = [[m[1][1], -m[0][1]], [-m[1][0], m[0][0]]]
        determinant = m[0][0] * m[1][1] - m[0][1] * m[1][0]
    else:
        rows = [[_cofactor(m, j, i) for j in range(3)] for i in range(3)]
        determinant = sum(m[0][j] * rows[j][0] for j in range(3))

    def solve(right: Tensor) -> Tensor:
        b = [right[..., i] / size[..., i, 0] for i in range(n)]
        found = [sum(rows[i][j] * b[j] for j in range(n)) / determinant for i in range(n)]
        return torch.stack([torch.as_tensor(part) for part in found], dim=-1)

    return solve


def _cofactor(m: list[list[Tensor]], i: int, j: int) -> Tensor:
    """Of a 3 x 3 matrix, sign included by cyclic indices."""
    a, b = (i + 1) % 3, (i + 2) % 3
    c, d = (j + 1) % 3, (j + 2) % 3
    return m[a][c] * m[b][d] - m[a][d] * m[b][c]
