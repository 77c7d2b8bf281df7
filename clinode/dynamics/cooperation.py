"""Equilibria bracketed by relaxation, where the slow states of a system cooperate.

A state is fast here when, the slow ones given, it has one rest in itself. Where the slow states do
not hinder each other, once the fast ones follow them, the way up from the bottom corner of a box
and the way down from the top are monotone and every equilibrium lies between their ends (Smith
1995, Monotone Dynamical Systems). Time constants play no part in where an equilibrium lies.
"""

from dataclasses import dataclass

import numpy as np

from .field import Field
from .newton import Rows

STEPS_A_CHECK = 20  # of relaxation, after which rows at rest leave the batch


def relax(
    rows: Rows, structure: "Structure", low: np.ndarray, high: np.ndarray, *, n_steps: int = 600
) -> np.ndarray:
    """Follow the slow states to rest with the fast ones always at theirs.

    The fast ones are put to rest once, and then follow by one Newton step after each of the slow
    ones: how well they follow decides the way, not the end.
    """
    x, slow, fast = rows.x.copy(), structure.slow, structure.fast
    x[:, fast] = (low + high)[fast] / 2
    marker = np.zeros(x.shape[-1])
    marker[fast] = 1.0
    _rest_fast(rows.own_field(), x, fast, low, high)
    step, before = np.tile(structure.step, (len(x), 1)), np.zeros_like(x[:, slow])
    active, left = np.arange(len(x)), n_steps
    while left > 0 and len(active):
        own, there = rows.take(active).own_field(), x[active]
        rate = before[active]
        for _ in range(min(left, STEPS_A_CHECK)):
            value, slopes = own.pull(there, marker)
            if len(fast):
                at_rest = there[:, fast] - value[:, fast] / np.minimum(slopes[:, fast], -1e-12)
                there[:, fast] = np.clip(at_rest, low[fast], high[fast])
                value = own.value(there)
            rate = value[:, slow]
            # A monotone path never turns round: one that does steps too far.
            step[active] = np.where(rate * before[active] < 0, 0.5, 1.0) * step[active]
            there[:, slow] += step[active] * rate
            before[active] = rate
        x[active], left = there, left - STEPS_A_CHECK
        moves = np.abs(step[active] * rate) > 1e-7 * (high - low)[slow]
        active = active[moves.any(axis=-1)]
    return x


def _rest_fast(
    own: Field, x: np.ndarray, fast: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Put the fast states of x to rest, in place, and return F there.

    Their block of the Jacobian is diagonal and negative: each has one root in itself, which
    Newton's method finds inside the bracket that the signs of F leave.
    """
    if not len(fast):
        return own.value(x)
    marker = np.zeros(x.shape[-1])
    marker[fast] = 1.0
    bottom, top = (np.broadcast_to(end[fast], x[:, fast].shape) for end in (low, high))
    width = (high - low)[fast]
    value, slopes = own.pull(x, marker)
    for _ in range(30):
        here, rate, slope = x[:, fast], value[:, fast], slopes[:, fast]
        bottom, top = np.where(rate > 0, here, bottom), np.where(rate > 0, top, here)
        there = here - rate / np.minimum(slope, -1e-12)
        there = np.where((there >= bottom) & (there <= top), there, (bottom + top) / 2)
        x[:, fast] = there
        value, slopes = own.pull(x, marker)
        if (np.abs(there - here) <= 1e-4 * width).all():
            break
    return value


@dataclass(frozen=True)
class Structure:
    """Fast states, each at rest in itself for given slow ones, and slow states that cooperate.

    Attributes:
        fast, slow: Indices of the states.
        step: (slow,), a time step that keeps relaxation monotone.
    """

    fast: np.ndarray
    slow: np.ndarray
    step: np.ndarray


def find_structure(jacobians: np.ndarray, candidates: list[np.ndarray]) -> Structure | None:
    """The first candidate for the fast states whose reduced slow system is cooperative.

    Args:
        jacobians: (sample, state, state), at sampled states: what is seen there is taken to hold.
        candidates: Sets of state indices.
    """
    n, size = jacobians.shape[-1], np.abs(jacobians).max(initial=0.0)
    for fast in candidates:
        slow = np.setdiff1d(np.arange(n), fast)
        inner = jacobians[:, fast[:, None], fast]
        own = np.diagonal(inner, axis1=1, axis2=2)  # of each fast state on itself
        coupled = inner - own[..., None] * np.eye(len(fast))
        if not (len(slow) and (own < 0).all() and np.abs(coupled).max(initial=0) <= 1e-12 * size):
            continue
        through = jacobians[:, slow[:, None], fast] / own[:, None, :]
        reduced = jacobians[:, slow[:, None], slow] - through @ jacobians[:, fast[:, None], slow]
        diagonal = np.diagonal(reduced, axis1=1, axis2=2)
        between = reduced - diagonal[..., None] * np.eye(len(slow))
        if (between >= -1e-12 * size).all():
            step = 0.8 / np.maximum(np.abs(diagonal).max(axis=0), 1e-12)
            return Structure(fast, slow, step)
    return None
