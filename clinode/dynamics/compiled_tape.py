"""What the compiled loop writes down: a tape for each of its visits, at the end one log.

A tape has a place for each attempt and the rows of that visit side by side; good steps and rejected
ones alike. The log has all rows, and a slot for each attempt from the first to the last visit, as
no row enters late. A rejected attempt repeats the slot before it.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .compiled_loop import Layout

BYTES = 2**24  # that a tape may have
FEWEST_PLACES = 32


class Tape(NamedTuple):
    """A tape.

    Attributes:
        t: (place, row).
        piece: (place, row); None where the input has no pieces.
        parts: (part, place, row, width), as `Layout.node_parts` of the node and of the curve.
    """

    t: Tensor
    piece: Tensor | None
    parts: Tensor

    def arguments(self) -> list[Tensor]:
        """As `Layout.tape_specs`."""
        return [self.t, *([] if self.piece is None else [self.piece]), *self.parts.unbind()]


def new_tape(layout: Layout, n_rows: int, attempts: int) -> Tape:
    """A tape for so many attempts, or for fewer where it would be too long."""
    n_parts, _, width = layout.node_parts()
    n_parts *= layout.method.n_node + layout.method.n_curve
    place = n_rows * (8 + n_parts * width * layout.dtype.itemsize)
    size = (1 + min(attempts, max(FEWEST_PLACES, BYTES // place)), n_rows)
    on = {"device": layout.device}
    return Tape(
        torch.empty(size, dtype=torch.float64, **on),
        torch.empty(size, dtype=torch.int64, **on) if layout.pieces else None,
        torch.empty((n_parts, *size, width), dtype=layout.dtype, **on),
    )


class Log(NamedTuple):
    """What is known at the start and after each attempt.

    Attributes:
        t: (row, slot), +inf or the last one repeated after the end of a row.
        piece: (row, slot), of the input; None where that has none.
        known: (tensor, row, slot, state), the node and what the curve to it needs.
    """

    t: Tensor
    piece: Tensor | None
    known: Tensor


def log_of(layout: Layout, n_all: int, tapes: list[tuple[Tensor, int, Tape]]) -> Log:
    """The log of all rows.

    Args:
        layout: Of the loop.
        n_all: How many rows there are.
        tapes: Which rows were in the loop, for how many attempts, and what it wrote.
    """
    n_slots = 1 + sum(attempts for _, attempts, _ in tapes)
    like, n_parts = tapes[0][2], layout.node_parts()[0]
    t = like.t.new_full((n_all, n_slots), math.inf)
    piece = None if like.piece is None else like.piece.new_zeros((n_all, n_slots))
    n_tensors, width = len(like.parts) // n_parts, like.parts.shape[-1]
    known = like.parts.new_empty((n_tensors, n_all, n_slots, n_parts, width))
    first = 0
    for rows, attempts, tape in tapes:
        skipped = min(first, 1)  # a tape begins with the last place of the one before
        slots, places = slice(first + skipped, first + attempts + 1), slice(skipped, attempts + 1)
        t[:, slots].index_copy_(0, rows, tape.t[places].T)
        if piece is not None and tape.piece is not None:
            piece[:, slots].index_copy_(0, rows, tape.piece[places].T)
        parts = tape.parts[:, places].unflatten(0, (n_tensors, n_parts)).permute(0, 3, 2, 1, 4)
        known[:, :, slots].index_copy_(1, rows, parts)
        first += attempts
    return Log(t, piece, known.flatten(3))


def steps_of(layout: Layout, log: Log, tries: Tensor) -> tuple[Tensor, Log]:
    """How many steps each row took, and the log of these alone.

    Args:
        layout: Of the loop.
        log: Of all attempts.
        tries: (row,), attempts of each row.
    """
    good = log.t.diff(dim=1) > 0
    if log.piece is not None and layout.method.n_node > 1:  # in a new piece its slope was taken
        good[:, 1:] |= log.piece.diff(dim=1)[:, :-1] != 0
    slot = torch.arange(good.shape[1], device=good.device)
    good &= slot < tries.unsqueeze(-1)
    taken = pad(good, (1, 0), value=True)
    row, old = taken.nonzero(as_tuple=True)
    new = (taken.cumsum(dim=1) - 1)[row, old]
    count = good.sum(dim=1)
    shape = (len(tries), int(count.max()) + 1)
    t = log.t.new_full(shape, math.inf)
    t[row, new] = log.t[row, old]
    piece = None
    if log.piece is not None:
        piece = log.piece.new_zeros(shape)
        piece[row, new] = log.piece[row, old]
    known = log.known.new_zeros((len(log.known), *shape, log.known.shape[-1]))
    known[:, row, new] = log.known[:, row, old]
    return count, Log(t, piece, known)
