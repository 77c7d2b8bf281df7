"""Minimum energies in ball arithmetic: as many digits as it takes, or what is certain until then.

In the coordinates of the modes where all eigenvalues are simple (`modal_energy`), else from the
Gramian itself (`ball_gramian`), by elimination (`ball_factor`). The precision grows until every
energy is a small ball. What no precision can settle, whether a target can be reached at all, is
settled exactly (`exact_span`).
"""

import math
import time
from dataclasses import dataclass, field

import numpy as np
from flint import arb, ctx

from .ball_factor import Eliminated, eliminate
from .ball_gramian import ball_gramian
from .ball_modes import spectrum_of
from .exact_span import Span, reachable_span, relations_kept
from .modal_energy import energies_by_modes
from .transfers import Array, Transfers

FIRST_BITS = 128
MOST_BITS = 2**19
MOST_BITS_TO_END = 2**12  # at which an infinite horizon that has not ended is taken not to
SLOWER = 1.7  # by which a round takes longer when its bits double, at least
SPECTRUM_SECONDS = 1.3e-9  # times n^4
GRAMIAN_SECONDS = 2e-6  # times n^2 (inputs + n / 8)


@dataclass(eq=False)
class Certified:
    """What is certain about the energies of some pairs.

    Attributes:
        balls: Energies; of a pair that is not settled, its best lower bound.
        verdicts: "reliable", "unreachable", or "" where only the lower bound is certain.
        reach_errors: Distance to the nearest state that can be reached; NaN where unknown.
        routes: How each was found.
    """

    balls: list[arb]
    verdicts: list[str]
    reach_errors: Array
    routes: list[str] = field(default_factory=list)


def certified_energies(transfers: Transfers, rtol: float, deadline: float) -> Certified:
    """Energies to a relative error of `rtol`, as far as time allows.

    Args:
        transfers: Pairs of one system.
        rtol: Largest relative radius of a ball that counts as settled.
        deadline: Value of `time.monotonic()` after which no round of higher precision begins.
    """
    n_pairs = len(transfers.starts)
    found = Certified(
        [arb(0)] * n_pairs, [""] * n_pairs, np.full(n_pairs, math.nan), [""] * n_pairs
    )
    open_pairs = np.arange(n_pairs)
    span: Span | None = None
    n_targets = transfers.ends.shape[1]
    bits, with_modes = FIRST_BITS, _has_modes(transfers, deadline)
    if not with_modes and time.monotonic() + _seconds_of_gramian(transfers) > deadline:
        return found
    while len(open_pairs) and bits <= MOST_BITS:
        began = time.monotonic()
        part = transfers.subset(open_pairs)
        tried = energies_by_modes(part, bits) if with_modes else None
        if tried is None:
            with_modes = False
            tried = _by_gramian(part, bits, span)
        if tried is None:
            break
        result, route = tried
        full = n_targets if span is None else span.rank
        settled = []
        for i, (pair, energy) in enumerate(zip(open_pairs, result.energies, strict=True)):
            if result.rank == full and _relative_radius(energy) <= rtol:
                found.balls[pair], found.verdicts[pair] = energy, "reliable"
                found.reach_errors[pair], found.routes[pair] = 0.0, f"{route}, {bits} bits"
                settled.append(i)
            elif energy.lower() > found.balls[pair]:
                found.balls[pair], found.routes[pair] = energy.lower(), f"{route}, {bits} bits"
        open_pairs = np.delete(open_pairs, settled)
        if result.rank < full and span is None and len(open_pairs):
            span = reachable_span(transfers)
            if not span.is_proven:
                break
            if span.bound:
                open_pairs = _sort_out(transfers, span, open_pairs, found)
            full = span.rank
        more = _next_bits(bits, result, full, rtol)
        took = time.monotonic() - began
        if time.monotonic() + took * (more / bits) ** math.log2(SLOWER) > deadline:
            break
        bits = more
    return found


def _has_modes(transfers: Transfers, deadline: float) -> bool:
    """Whether there are modes to work in, and time to find them; they are kept for later calls."""
    n = transfers.n_states
    if transfers.readout is not None or transfers.is_short:
        return False
    if time.monotonic() + SPECTRUM_SECONDS * n**4 > deadline:
        return False
    return spectrum_of(transfers.A.tobytes(), n) is not None


def _seconds_of_gramian(transfers: Transfers) -> float:
    """Roughly, of the first round without modes."""
    n, m = transfers.B.shape
    return GRAMIAN_SECONDS * n**2 * (m + n / 8)


def _next_bits(bits: int, result: Eliminated, full: int, rtol: float) -> int:
    """Bits that should do: pivots shrink about evenly, and a short ball lacks what it lacks."""
    if result.rank < full:
        wanted = 1.15 * bits * full / max(result.rank, 1) + 48
        return int(min(max(wanted, 1.25 * bits), 8 * bits))
    worst = min((e.rel_accuracy_bits() for e in result.energies), default=0)
    return bits + int(max(64 - worst - math.log2(rtol), bits // 8))


def _relative_radius(ball: arb) -> float:
    if ball == 0:
        return 0.0
    return float((ball.rad() / ball.abs_lower()).abs_upper()) if ball > 0 else math.inf


def _by_gramian(
    transfers: Transfers, bits: int, span: Span | None
) -> tuple[Eliminated, str] | None:
    """Energies from the Gramian of the free targets; None where an infinite one has no end."""
    try:
        W, aims = ball_gramian(transfers, bits)
    except ArithmeticError:  # not at this precision, or never
        nothing = Eliminated(0, [arb(0)] * len(transfers.starts)), "Gramian in balls"
        return nothing if bits < MOST_BITS_TO_END else None
    rows, columns = W.tolist(), aims.tolist()
    if span is not None:
        rows = [[rows[i][j] for j in span.free] for i in span.free]
        columns = [columns[i] for i in span.free]
    old = ctx.prec
    try:
        ctx.prec = bits + 32
        return eliminate(rows, columns), "Gramian in balls"
    finally:
        ctx.prec = old


def _sort_out(transfers: Transfers, span: Span, pairs: Array, found: Certified) -> Array:
    """Verdicts of the pairs that cannot be reached; the pairs that certainly can be, are left."""
    part = transfers.subset(pairs)
    misses, meets, aims = relations_kept(part, span)
    distances = span.distances(aims)
    left = []
    for i, pair in enumerate(pairs):
        if misses[i] and distances[i] > part.rounding[i]:
            found.balls[pair], found.verdicts[pair] = arb("inf"), "unreachable"
            found.reach_errors[pair], found.routes[pair] = distances[i], "exact span"
        elif meets[i]:
            left.append(pair)
        else:  # off by rounding only, or by what no precision can tell from nothing
            found.reach_errors[pair] = distances[i]
    return np.array(left, dtype=int)
