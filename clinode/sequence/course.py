"""The order in which records are read: in time or against it, in one step a gap or in several.

A visit is a step of a record: to its next row, or part of the way. Visits are packed like the rows
of a batch, round by round, the records with the most visits first, so a record that needs many
small steps adds rounds for itself and not for its batch mates.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from clinode.cohort import IrregularBatch


class Course(NamedTuple):
    """The visits of a batch.

    Args:
        sizes: Visits of each round, none larger than the one before.
        row: The row on the way to which a visit is, or at which it arrives.
        passed: The row before which the gap lies that is passed; where it is the record's first
            visit, that row.
        gap: Hours of the visit's step.
        is_arrival: Whether it ends at its row.
        arrives: Rounds in which any visit does.
        arrival: The visit that ends at each row.
    """

    sizes: list[int]
    row: Int64[Tensor, " visit"]
    passed: Int64[Tensor, " visit"]
    gap: Float[Tensor, " visit"]
    is_arrival: Bool[Tensor, " visit"]
    arrives: list[bool]
    arrival: Int64[Tensor, " row"]


def passed_row(batch: IrregularBatch, *, reverse: bool) -> Int64[Tensor, " row"]:
    """The row before which the gap lies that leads to each row: itself, or the one after it.

    Against time the last row of a record is its first: it stands for itself there, and its gap is
    none.
    """
    rows = torch.arange(batch.n_rows, device=batch.time.device)
    if not reverse:
        return rows
    sizes = torch.tensor(batch.sizes, device=rows.device)
    following = rows + torch.repeat_interleave(sizes, sizes)
    is_last = rows == batch.last_row[batch.row_subject]
    return torch.where(is_last, rows, following)


def passed_gap(batch: IrregularBatch, *, reverse: bool) -> Float[Tensor, " row"]:
    """Hours of the way to each row; 0 for the first one visited of a record."""
    if not reverse:
        return batch.gap
    passed = passed_row(batch, reverse=True)
    rows = torch.arange(batch.n_rows, device=passed.device)
    return torch.where(passed == rows, 0.0, batch.gap[passed])


def course(batch: IrregularBatch, n_steps: Int64[Tensor, " row"], *, reverse: bool) -> Course:
    """The visits when the way to each row takes so many steps, at least 1."""
    gap, passed = passed_gap(batch, reverse=reverse), passed_row(batch, reverse=reverse)
    rows = torch.arange(batch.n_rows, device=gap.device)
    is_simple = bool((n_steps == 1).all())
    if is_simple and not reverse:
        every = torch.ones_like(rows, dtype=torch.bool)
        arrives = [True] * len(batch.sizes)
        return Course(batch.sizes, rows, passed, gap, every, arrives, rows)
    # record by record, each in the order in which it is read
    place = torch.cumsum(batch.lengths, 0)[batch.row_subject]
    sizes = torch.tensor(batch.sizes, device=rows.device)
    step = torch.repeat_interleave(torch.arange(len(sizes), device=rows.device), sizes)
    length = batch.lengths[batch.row_subject]
    place = place - 1 - step if reverse else place - length + step
    in_order = torch.empty_like(rows).scatter_(0, place, rows)
    subject, taken = batch.row_subject[in_order], n_steps[in_order]
    n_visits = torch.zeros_like(batch.lengths).index_add_(0, subject, taken)
    start = torch.cumsum(n_visits, 0) - n_visits
    rank = torch.argsort(torch.argsort(n_visits, descending=True, stable=True))
    of_visit = torch.repeat_interleave(in_order, taken)
    round_of = torch.arange(len(of_visit), device=rows.device) - start[batch.row_subject[of_visit]]
    round_sizes = torch.bincount(round_of)
    offsets = torch.cumsum(round_sizes, 0) - round_sizes
    packed = offsets[round_of] + rank[batch.row_subject[of_visit]]
    row = torch.empty_like(of_visit).scatter_(0, packed, of_visit)
    ends = torch.cumsum(taken, 0) - 1
    arrival = torch.empty_like(rows).scatter_(0, in_order, packed[ends])
    is_arrival = torch.zeros_like(row, dtype=torch.bool).index_fill_(0, arrival, True)
    arrives = torch.zeros_like(round_sizes).index_add_(0, round_of[ends], torch.ones_like(ends))
    return Course(
        round_sizes.tolist(),
        row,
        passed[row],
        (gap / n_steps)[row],
        is_arrival,
        (arrives > 0).tolist(),
        arrival,
    )
