"""The order in which visits are made: of records to their rows, in one step a gap or in several.

A visit is a step: to the next row of a record, or part of the way. Visits are packed like the rows
of a batch, round by round, those who make the most first, so a record that needs many small steps
adds rounds for itself and not for its batch mates. What is visited may also be part of a record, or
one record several times (`pack`).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from clinode.cohort import IrregularBatch


class Course(NamedTuple):
    """The visits of a batch, or of parts of its records.

    Args:
        sizes: Visits of each round, none larger than the one before.
        row: The row on the way to which a visit is, or at which it arrives.
        passed: The row before which the gap lies that is passed; where the way begins, that row.
        gap: Hours of the visit's step.
        is_arrival: Whether it ends at its row.
        arrives: Rounds in which any visit does.
        arrival: The visit that ends at each row of the way.
    """

    sizes: list[int]
    row: Int64[Tensor, " visit"]
    passed: Int64[Tensor, " visit"]
    gap: Float[Tensor, " visit"]
    is_arrival: Bool[Tensor, " visit"]
    arrives: list[bool]
    arrival: Int64[Tensor, " place"]


def course(batch: IrregularBatch, n_steps: Int64[Tensor, " row"]) -> Course:
    """The visits to all rows in time, when the way to each takes so many steps, at least 1."""
    rows = torch.arange(batch.n_rows, device=batch.time.device)
    if bool((n_steps == 1).all()):
        every = torch.ones_like(rows, dtype=torch.bool)
        arrives = [True] * len(batch.sizes)
        return Course(batch.sizes, rows, rows, batch.gap, every, arrives, rows)
    # record by record, each in the order in which it is read
    begin = torch.cumsum(batch.lengths, 0) - batch.lengths
    place = begin[batch.row_subject] + batch.steps
    in_order = torch.empty_like(rows).scatter_(0, place, rows)
    packed = pack(batch.row_subject[in_order], n_steps[in_order], len(batch))
    row = in_order[packed.item]
    arrival = torch.empty_like(rows).scatter_(0, in_order, packed.last)
    gap = (batch.gap / n_steps)[row]
    return Course(packed.sizes, row, row, gap, packed.is_last, packed.arrives, arrival)


class Packed(NamedTuple):
    """Visits of items, one item after the other for each owner, packed round by round.

    Args:
        sizes: Visits of each round, none larger than the one before.
        item: Of which item each visit is.
        nth: Which of its item's visits, from 0.
        is_last: Whether it is its item's last.
        arrives: Rounds in which any visit is.
        last: The last visit of each item.
        before: The round before the first visit of each item; -1 where the owner begins.
        lane: Place of each item's owner within a round.
        offsets: First visit of each round.
    """

    sizes: list[int]
    item: Int64[Tensor, " visit"]
    nth: Int64[Tensor, " visit"]
    is_last: Bool[Tensor, " visit"]
    arrives: list[bool]
    last: Int64[Tensor, " item"]
    before: Int64[Tensor, " item"]
    lane: Int64[Tensor, " item"]
    offsets: Int64[Tensor, " round"]

    def visit_before(
        self, item: Int64[Tensor, "*place"], nth: Int64[Tensor, "*place"]
    ) -> Int64[Tensor, "*place"]:
        """The visit of the same owner that comes before an item's n-th one."""
        return self.offsets[self.before[item] + nth] + self.lane[item]


def pack(owner: Int64[Tensor, " item"], n_visits: Int64[Tensor, " item"], n_owners: int) -> Packed:
    """Visits of items in the order in which each owner comes to them.

    Args:
        owner: Whose item it is, in ascending order; each has one at least.
        n_visits: Of each item, at least 1.
        n_owners: How many there are.
    """
    items = torch.arange(len(owner), device=owner.device)
    ends = torch.cumsum(n_visits, 0)
    total = torch.zeros(n_owners, dtype=torch.int64, device=owner.device)
    total.index_add_(0, owner, n_visits)
    begin = torch.cumsum(total, 0) - total
    lane = torch.argsort(torch.argsort(total, descending=True, stable=True))[owner]
    item = torch.repeat_interleave(items, n_visits)
    before = ends - n_visits - begin[owner] - 1
    nth = torch.arange(len(item), device=item.device) - (ends - n_visits)[item]
    round_of = before[item] + 1 + nth
    sizes = torch.bincount(round_of)
    offsets = torch.cumsum(sizes, 0) - sizes
    place = offsets[round_of] + lane[item]
    last = place[ends - 1]
    is_last = torch.zeros_like(item, dtype=torch.bool).index_fill_(0, last, True)
    arrives = torch.zeros_like(sizes).index_add_(0, round_of[ends - 1], torch.ones_like(items))
    return Packed(
        sizes.tolist(),
        torch.empty_like(item).scatter_(0, place, item),
        torch.empty_like(nth).scatter_(0, place, nth),
        is_last,
        (arrives > 0).tolist(),
        last,
        before,
        lane,
        offsets,
    )
