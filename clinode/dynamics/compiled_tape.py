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

BYTES = 2**20  # that a tape may have: a larger one is mapped anew by the system in every visit
FEWEST_PLACES = 64


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
    device = layout.device
    return Tape(
        torch.empty(size, dtype=torch.float64, device=device),
        torch.empty(size, dtype=torch.int64, device=device) if layout.pieces else None,
        torch.empty((n_parts, *size, width), dtype=layout.dtype, device=device),
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
    n_parts, first = layout.node_parts()[0], 0
    known, times, pieces = [], [], []
    for rows, attempts, tape in tapes:
        # A tape begins with the last place of the one before.
        places = slice(min(first, 1), attempts + 1)
        parts = tape.parts[:, places].unflatten(0, (-1, n_parts)).permute(0, 3, 2, 1, 4)
        known.append((rows, parts))
        times.append((rows, tape.t[places].T))
        if tape.piece is not None:
            pieces.append((rows, tape.piece[places].T))
        first += attempts
    return Log(
        _side_by_side(times, 0, n_all, math.inf),
        _side_by_side(pieces, 0, n_all, 0) if pieces else None,
        _side_by_side(known, 1, n_all, None).flatten(3),
    )


def _side_by_side(
    several: list[tuple[Tensor, Tensor]], axis: int, n_all: int, fill: float | int | None
) -> Tensor:
    """Values of some rows each, one after the other along the axis behind that of all rows."""
    if len(several) == 1:
        return several[0][1].contiguous()
    like = several[0][1]
    sizes = list(like.shape)
    sizes[axis : axis + 2] = n_all, sum(value.shape[axis + 1] for _, value in several)
    whole = like.new_empty(sizes) if fill is None else like.new_full(sizes, fill)
    first = 0
    for rows, value in several:
        length = value.shape[axis + 1]
        whole.narrow(axis + 1, first, length).index_copy_(axis, rows, value)
        first += length
    return whole


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
    count = good.sum(dim=1)
    slots = tries.unsqueeze(-1).repeat(1, int(count.max()) + 1)  # the last one, where none is left
    slots[row, (taken.cumsum(dim=1) - 1)[row, old]] = old
    rows = torch.arange(len(tries), device=good.device).unsqueeze(-1)
    piece = None if log.piece is None else log.piece.gather(1, slots)
    return count, Log(log.t.gather(1, slots), piece, log.known[:, rows, slots])
