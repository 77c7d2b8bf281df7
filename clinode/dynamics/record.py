"""What a walk did, so that it can be walked again: the good steps of each row, and its events."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .solvers import Happenings


@dataclass(frozen=True, eq=False)
class Plan:
    """Steps to take again, (row, step), and events, by round: (row, steps taken, event).

    Attributes:
        width: Of each step as it was attempted.
        until: Where it ended; before its width where an event cut it short.
        part: The fraction of the width that was kept.
        events: What happened after so many steps, in each round of events at one time.
    """

    width: Tensor
    until: Tensor
    part: Tensor
    events: tuple[Tensor, ...]

    def happens(self, rows: Tensor, taken: int, round_: int) -> Tensor | None:
        """Which events happen to these rows; None where none does in this round to any row."""
        return self.events[round_][rows, taken] if round_ < len(self.events) else None


class Record:
    """Steps and events of a walk, in the order in which they came.

    Args:
        n_rows: Rows at the start.
        n_events: Events of the system.
        device: Where the walk is.
        keep_steps: Whether the walk will be walked again.
    """

    def __init__(self, n_rows: int, n_events: int, device: torch.device, keep_steps: bool = False):
        self.n_events, self.device, self.keep_steps = n_events, device, keep_steps
        self.taken = torch.zeros(n_rows, dtype=torch.int64, device=device)
        self.steps: list[tuple[Tensor, ...]] = []
        self.rounds: list[list[tuple[Tensor, Tensor, Tensor]]] = []
        self.happened: list[tuple[Tensor, Tensor, Tensor]] = []

    def step(self, rows: Tensor, width: Tensor, until: Tensor, part: Tensor) -> None:
        """Steps that these rows took."""
        if self.keep_steps:
            self.steps.append((rows, self.taken[rows], width, until, part))
            self.taken[rows] += 1

    def event(self, rows: Tensor, time: Tensor, happens: Tensor, round_: int) -> None:
        """Events (row, event) of these rows at these times."""
        while len(self.rounds) <= round_:
            self.rounds.append([])
        self.rounds[round_].append((rows, self.taken[rows], happens))
        which, kind = happens.nonzero(as_tuple=True)
        self.happened.append((rows[which], time[which], kind))

    def happenings(self) -> Happenings:
        """All events, by row and then in their order."""
        if not self.happened:
            none = torch.zeros(0, dtype=torch.int64, device=self.device)
            return Happenings(none, none.double(), none)
        rows, times, kinds = (torch.cat(parts) for parts in zip(*self.happened, strict=True))
        order = rows.argsort(stable=True)
        return Happenings(rows[order], times[order], kinds[order])

    def plan(self, chosen: Tensor) -> Plan:
        """The steps and events of the chosen rows, which are numbered anew."""
        longest = int(self.taken.max())
        n = len(self.taken)
        table = torch.zeros(3, n, longest, dtype=torch.float64, device=self.device)
        if self.steps:
            rows, slots, *values = (torch.cat(parts) for parts in zip(*self.steps, strict=True))
            table[:, rows, slots] = torch.stack(values)
        events = []
        for entries in self.rounds:
            happens = torch.zeros(
                n, longest + 1, self.n_events, dtype=torch.bool, device=self.device
            )
            for rows, slots, mask in entries:
                happens[rows, slots] = mask
            events.append(happens[chosen])
        width, until, part = table[:, chosen].unbind()
        return Plan(width, until, part, tuple(events))
