"""Beginnings of records that are read by themselves.

The state of a Latent ODE at the start of a record is told from all of it. What was known earlier
takes a reading of its own, of the record up to then: a view.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from clinode.cohort import IrregularBatch
from clinode.sequence.inputs import observed_row


class Views(NamedTuple):
    """Records up to one of their rows, and the rows of all of them, each view's last row first.

    Args:
        subject: Position in the batch.
        last: Packed row with an observation that is read first; -1 where nothing is read.
        owner: Of each place, the position of its view among those that read something.
        row: Of each place, its packed row.
        is_first: Whether a place is the one where its view begins to read.
    """

    subject: Int64[Tensor, " view"]
    last: Int64[Tensor, " view"]
    owner: Int64[Tensor, " place"]
    row: Int64[Tensor, " place"]
    is_first: Bool[Tensor, " place"]

    @property
    def begins(self) -> Int64[Tensor, " reading"]:
        """Of each view that reads something, the place of the record's first row."""
        return torch.cumsum(torch.bincount(self.owner), 0) - 1


def views_of(
    batch: IrregularBatch, subject: Int64[Tensor, " view"], last: Int64[Tensor, " view"]
) -> Views:
    """Views of these subjects up to these rows.

    Args:
        batch: The records.
        subject: Position in the batch.
        last: Packed row with an observation, or -1 for none of the record.
    """
    reads = last >= 0
    from_step = batch.steps[last[reads]]
    length = from_step + 1
    owner = torch.repeat_interleave(torch.arange(len(length), device=last.device), length)
    place = torch.arange(len(owner), device=last.device)
    back = place - (torch.cumsum(length, 0) - length)[owner]
    offsets = torch.tensor(batch.offsets, device=last.device)
    row = offsets[from_step[owner] - back] + subject[reads][owner]
    return Views(subject, last, owner, row, back == 0)


def whole_records(batch: IrregularBatch) -> Views:
    """Views of every record up to its last row with an observation."""
    return views_of(
        batch,
        torch.arange(len(batch), device=batch.time.device),
        observed_row(batch, batch.last_row),
    )


def whole_and_growing(batch: IrregularBatch) -> tuple[Views, Int64[Tensor, " row"]]:
    """Views of every record: all of it, nothing of it, and its first 1, 2, 4, 8, ... observed rows.

    The first views are the whole records, in the order of the batch.

    Returns:
        The views, and for each row the longest of the growing ones that ends before it.
    """
    n = len(batch)
    subject = torch.arange(n, device=batch.time.device)
    rows = torch.arange(batch.n_rows, device=subject.device)
    count = batch.count(batch.is_observed)
    ends = batch.is_observed & ((count & (count - 1)) == 0)
    anchor = rows[ends]
    views = views_of(
        batch,
        torch.cat([subject, subject, batch.row_subject[anchor]]),
        torch.cat([observed_row(batch, batch.last_row), torch.full_like(subject, -1), anchor]),
    )
    bits = max(int(count.max()).bit_length(), 1)
    table = (n + subject).unsqueeze(1).repeat(1, bits + 1)  # by the bits of a count; 0 for none
    place = 2 * n + torch.arange(len(anchor), device=subject.device)
    table[batch.row_subject[anchor], _bits(count[anchor])] = place
    before = count - batch.is_observed.long()
    return views, table[batch.row_subject, _bits(before)]


def _bits(count: Int64[Tensor, "*place"]) -> Int64[Tensor, "*place"]:
    """Binary digits of counts: 0 of 0, 1 of 1, 2 of 2 and 3, ..."""
    _, exponent = torch.frexp(count.double())
    return torch.where(count > 0, exponent.long(), 0)
