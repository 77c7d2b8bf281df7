"""Minimum energies in ball arithmetic, in the coordinates of the modes.

There the Gramian is P_jk = (effects of inputs on j)(effects on k)* times the integral of
exp((l_j + l_k*) s), or the sum of (l_j l_k*)^s: a Cauchy-like matrix, eliminated by its generators
where inputs are few. With one input and an infinite horizon its inverse is known in closed form.
"""

import math
from collections.abc import Sequence

import numpy as np
from flint import arb, arb_mat, ctx

from clinode.errors import ArgumentError

from .ball_factor import Ball, Eliminated, Row, conjugate, eliminate, eliminate_cauchy, squared
from .ball_gramian import exact_matrix, exact_moves
from .ball_modes import Modes, spectrum_of
from .transfers import Transfers


def energies_by_modes(transfers: Transfers, bits: int) -> tuple[Eliminated, str] | None:
    """Energies from the modes that inputs certainly move, and their route.

    None where the eigenvalues cannot be told apart. The rank counts modes; a target that differs
    from what is reached in another mode too is not seen here.
    """
    spectrum = spectrum_of(transfers.A.tobytes(), transfers.n_states)
    modes = None if spectrum is None else spectrum.modes(bits)
    if modes is None:
        return None
    old = ctx.prec
    try:
        ctx.prec = modes.precision
        if transfers.is_endless and not _is_stable(transfers, modes.values):
            return Eliminated(0, [arb(0)] * len(transfers.starts)), "modes"
        effects, aims, flows = _modal(transfers, modes)
        sizes = [sum((squared(x) for x in row), arb(0)) for row in effects]
        kept = [j for j, size in enumerate(sizes) if size > 0]
        roots = [sizes[j].sqrt() for j in kept]
        effects = [[x / r for x in effects[j]] for j, r in zip(kept, roots, strict=True)]
        aims = [[x / r for x in aims[j]] for j, r in zip(kept, roots, strict=True)]
        ctx.prec = bits + 32
        values, flows = [modes.values[j] for j in kept], [flows[j] for j in kept]
        if not kept:
            return Eliminated(0, [arb(0)] * len(transfers.starts)), "modes"
        if transfers.is_endless and not transfers.is_map and len(effects[0]) == 1:
            return _cauchy(values, effects, aims), "Cauchy inverse"
        return _eliminated(transfers, values, effects, aims, flows), "modes"
    finally:
        ctx.prec = old


def _is_stable(transfers: Transfers, values: Row) -> bool:
    """Whether all modes certainly die out."""
    excess = [abs(v) - 1 if transfers.is_map else v.real for v in values]
    if any(e > 0 for e in excess):
        raise ArgumentError(
            "an infinite horizon needs a stable A, and A has an eigenvalue that just is not",
            fix="ask for a finite horizon",
        )
    return all(e < 0 for e in excess)


def _modal(transfers: Transfers, modes: Modes) -> tuple[Sequence[Row], Sequence[Row], Row]:
    """Of each mode: the effects of the inputs that act, the aims, and its flow over the horizon."""
    B = transfers.B[:, (transfers.B != 0).any(axis=0)]
    n_inputs, n_pairs = B.shape[1], len(transfers.starts)
    rest = np.broadcast_to(transfers.rest, transfers.ends.shape)
    ends = (exact_matrix(transfers.ends) - exact_matrix(rest)).transpose()
    blocks = [exact_matrix(B), ends, exact_moves(transfers)]
    joined = [[*b, *e, *s] for b, e, s in zip(*(x.tolist() for x in blocks), strict=True)]
    rows = modes.coordinates(arb_mat(joined))
    values = modes.values
    if transfers.is_endless:
        flows: Row = [v * 0 for v in values]
    elif transfers.is_map:
        flows = [v ** int(transfers.n_steps or 1) for v in values]
    else:
        flows = [(v * transfers.horizon).exp() for v in values]
    effects = [row[:n_inputs] for row in rows]
    aims = [
        [
            x - flow * y
            for x, y in zip(row[n_inputs:][:n_pairs], row[n_inputs + n_pairs :], strict=True)
        ]
        for row, flow in zip(rows, flows, strict=True)
    ]
    return effects, aims, flows


def _eliminated(
    transfers: Transfers, values: Row, effects: Sequence[Row], aims: Sequence[Row], flows: Row
) -> Eliminated:
    n, m = len(values), len(effects[0])
    generators = m if transfers.is_endless else 2 * m
    diagonal = [_entry(transfers, values, effects, flows, j, j).real for j in range(n)]
    sums = [values[j] + conjugate(values[k]) for j in range(n) for k in range(j)]
    if not transfers.is_map and 8 * generators < n and all(s != 0 for s in sums):
        rows, signs = [list(row) for row in effects], [-1] * m
        if not transfers.is_endless:
            moved = [[f * x for x in row] for f, row in zip(flows, effects, strict=True)]
            rows, signs = [a + b for a, b in zip(moved, rows, strict=True)], [1] * m + signs
        return eliminate_cauchy(rows, signs, values, diagonal, aims)
    matrix = [
        [_entry(transfers, values, effects, flows, j, k) for k in range(j)] + [diagonal[j]]
        for j in range(n)
    ]
    return eliminate(matrix, aims)


def _entry(
    transfers: Transfers, values: Row, effects: Sequence[Row], flows: Row, j: int, k: int
) -> Ball:
    """Entry of the Gramian: (effects of j)(effects of k)* times the integral, or sum, over time."""
    product = sum((a * conjugate(b) for a, b in zip(effects[j], effects[k], strict=True)), arb(0))
    value, last = conjugate(values[k]), conjugate(flows[k])
    if transfers.is_map:
        return product * _geometric(values[j] * value, flows[j] * last, transfers.n_steps or 1)
    return product * _integral(values[j] + value, flows[j] * last, transfers.horizon)


def _integral(rate: Ball, growth: Ball, horizon: float) -> Ball:
    """(exp(r T) - 1) / r with exp(r T) given; about r = 0 from its series; -1 / r for ever."""
    if rate != 0:
        return (growth - 1) / rate
    if math.isinf(horizon):
        return rate / 0  # an eigenvalue on the boundary: nothing is certain
    x = (abs(rate) * horizon).abs_upper()
    return arb(horizon) * (1 + rate * horizon / 2 + _anywhere(rate, x**2 * x.exp() / 6))


def _geometric(ratio: Ball, power: Ball, n_steps: float) -> Ball:
    """sum_(k < N) r^k with r^N given; about r = 1 from its series."""
    if ratio != 1:
        return (1 - power) / (1 - ratio)
    if math.isinf(n_steps):
        return ratio / 0
    off = abs(ratio - 1).abs_upper()
    N = int(n_steps)
    return N * (1 + (ratio - 1) * (N - 1) / 2 + _anywhere(ratio, off**2 * (1 + off) ** N * N**2))


def _anywhere(like: Ball, radius: arb) -> Ball:
    """Zero up to a radius, in each part."""
    ball = arb(0, radius.abs_upper())
    return ball if isinstance(like, arb) else like * 0 + type(like)(ball, ball)


def _cauchy(values: Row, effects: Sequence[Row], aims: Sequence[Row]) -> Eliminated:
    """Energies from the inverse of C_jk = -1 / (l_j + l_k*), known in closed form.

    E = sum_jk g_j g_k* C_jk with g_j the aim over the effect of mode j, times
    prod_i (l_j + l_i*) / prod_(i != j) (l_j - l_i). Nothing is eliminated, so few bits do.
    """
    weights: Row = []
    for j, value in enumerate(values):
        product = -(value + conjugate(value))
        for i, other in enumerate(values):
            if i != j:
                product = product * (value + conjugate(other)) / (value - other)
        weights.append(product / effects[j][0])
    energies = []
    for pair in range(len(aims[0])):
        g = [w * row[pair] for w, row in zip(weights, aims, strict=True)]
        total = arb(0)
        for j, a in enumerate(g):
            inner = sum(
                (conjugate(b) / (values[j] + conjugate(v)) for b, v in zip(g, values, strict=True)),
                arb(0),
            )
            total = total - (a * inner).real
        energies.append(total)
    return Eliminated(len(values), energies)
