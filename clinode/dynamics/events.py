"""Events of a system on the way: found on the curve between two steps, and what they do.

A guard has its own pace along the curve of a step, in pieces short enough that looks at it show
every time it crosses zero (`clinode.dynamics.crossings`); most guards take a step in one piece. The
first crossing is found by bracketing and the event ends the step there. Its reset may push other
guards across zero, whose events then happen at the same time. Where a solution starts beyond a
guard that resets the state, or leaves a refractory time there, the event happens at once.

Events that follow each other without end (a ball that comes to rest, a reset that does not leave
the guard) end the solution with the status "chattering".
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clinode.system import System, positions

from .crossings import GROWTH, LOOKS, N_LOOKS, Shape, bracketed

FINEST = 2.0**-20  # of a step: pieces are not halved further; what is in one is taken for a jump
MOST_PIECES = 1024  # tried in one step; then the step ends where they do
FLOOR = 64  # units of rounding of a guard's largest value so far, below which it counts as zero
FIRST = 1 / 16  # of the first step: its first piece, as nothing is known about a guard yet
AT_ONCE = 32  # rounds of events at one time
RUSH = 64  # events in a row, each within TIGHT of the whole time from the last
TIGHT = 1e-9
SPACINGS = 16  # of floating-point time: nearer events of one kind are at one time
RESOLUTION = 1e-12  # of a step: what is nearer to a guard counts as on it

Curve = Callable[[Tensor], Tensor]  # theta -> state
Look = Callable[[Tensor, Tensor], Tensor]  # (t, x) -> guards


class Found(NamedTuple):
    """What guards say about a step.

    Attributes:
        part: (row): the fraction at which the step must end; 1 where it may go on to its end.
        happens: (row, event): which events happen there; None where none does in any row.
        lost: (row): the guard is not a number before that.
    """

    part: Tensor
    happens: Tensor | None
    lost: Tensor


class Guards:
    """The events of a system over running trajectories, and on which side of them each one is.

    Attributes:
        side: (row, event): the sign of the guard; 0 while it is not looked at.
        release: (row, event): when it is looked at again, and its held states are free.
        lag: (row, event): zero in value, the gradient of the release time.
        floor: Of the largest value of a guard: what counts as zero between two looks.
        size: (row, event): that largest absolute value so far.
        pace: (row): width of the next piece of a step in which guards are looked at, in time
            units; negative before the first.
    """

    def __init__(self, system: System, t: Tensor):
        events, n = system.events, len(t)
        n_events, device = len(events), t.device
        self.events = events
        self.floor = FLOOR * torch.finfo(system.dtype).eps
        self.direction = torch.tensor([event.direction for event in events], device=device)
        self.resets = torch.tensor([event.reset is not None for event in events], device=device)
        self.held = torch.zeros(n_events, system.n_states, dtype=torch.bool, device=device)
        for k, event in enumerate(events):
            for name in event.held:
                self.held[k, positions(system.states, name, "held state")] = True
        self.side = torch.zeros(n, n_events, dtype=torch.int64, device=device)
        self.release = torch.full((n, n_events), -torch.inf, dtype=t.dtype, device=device)
        self.lag = torch.zeros(n, n_events, dtype=t.dtype, device=device)
        self.last = torch.full((n, n_events), -torch.inf, dtype=t.dtype, device=device)
        self.rush = torch.zeros(n, dtype=torch.int64, device=device)
        self.size = torch.zeros(n, n_events, dtype=torch.float64, device=device)
        self.pace = torch.full((n,), -1.0, dtype=t.dtype, device=device)

    def narrow(self, keep: Tensor) -> None:
        """Keep these rows."""
        for name in ("side", "release", "lag", "last", "rush", "size", "pace"):
            setattr(self, name, getattr(self, name)[keep])

    def look(self, system: System, t: Tensor, x: Tensor) -> Tensor:
        """The guards at times t and states x: (..., event), in float64."""
        values = [event.guard(system, t, x) for event in self.events]
        shape = torch.broadcast_shapes(x.shape[:-1], *(v.shape[:-1] for v in values))
        return torch.cat([v.expand(*shape, 1) for v in values], dim=-1).double()

    def free(self, t: Tensor) -> Tensor | None:
        """Which states move from t on, (row, state); None where all do."""
        resting = self.release > t.unsqueeze(-1)
        if not resting.any():
            return None
        return ~(resting.unsqueeze(-1) & self.held).any(dim=-2)

    def next_release(self, t: Tensor) -> Tensor:
        """The next end of a refractory time after t; infinity where there is none."""
        later = torch.where(self.release > t.unsqueeze(-1), self.release, torch.inf)
        return later.amin(dim=-1)

    def locate(self, look: Look, t: Tensor, h: Tensor, curve: Curve, good: Tensor) -> Found:
        """The first events of a step.

        Where nothing happens the sides are those at the end of the part.
        """
        way = _Way(self, t, h, good)
        for _ in range(MOST_PIECES):
            way.piece(look, curve)
            if not way.open.any():
                break
        self.pace = torch.where(good, way.width * h, self.pace)
        hit = way.hit.any(dim=-1)
        part = torch.where(way.open, way.begin, 1.0)  # the step ends where the looks do
        if not hit.any():
            return Found(part, None, way.lost)
        found = torch.full(self.side.shape, torch.inf, dtype=t.dtype, device=t.device)
        for k in way.hit.any(dim=0).nonzero().flatten().tolist():

            def value(theta: Tensor, k: int = k) -> Tensor:
                return way.sense[:, k] * look(t + theta * h, curve(theta))[:, k]

            zero = bracketed(value, way.low, way.high, way.hit[:, k])
            found[:, k] = torch.where(way.hit[:, k], zero, torch.inf)
        first = found.amin(dim=-1)
        happens = (found <= first.unsqueeze(-1) + RESOLUTION) & hit.unsqueeze(-1)
        return Found(torch.where(hit, first, part), happens, way.lost)

    def at_once(
        self,
        look: Look,
        t: Tensor,
        x: Tensor,
        slope: Tensor,
        width: Tensor,
        asked: Tensor,
        before: Tensor | None,
    ) -> Tensor:
        """Which of the events asked for (row, event) happen now; and sets the sides of all rows
        that ask.

        An event that resets happens where the state is beyond its guard, or on it and moving on;
        one that has just happened (`before`) only where its reset left the state beyond.
        """
        along = (torch.ones_like(t), slope.contiguous())
        both = torch.func.jvp(look, (t, x.contiguous()), along)
        value, speed = both[0], both[1]
        near = value.abs() <= speed.abs() * (RESOLUTION * width + 1e-15 * t.abs()).unsqueeze(-1)
        onward = torch.where(speed < 0, -1, 1)
        sign = torch.where(near, onward, value.sign().long())
        rows = asked.any(dim=-1, keepdim=True)
        resting = self.release > t.unsqueeze(-1)
        self.side = torch.where(rows, torch.where(resting, 0, sign), self.side)
        now = asked & self.resets & ~resting & (self.direction != 0) & (sign == self.direction)
        return now if before is None else now & ~(before & near)

    def apply(self, system: System, t: Tensor, x: Tensor, lag: Tensor, happens: Tensor) -> Tensor:
        """The states after the resets of what happens; refractory times begin."""
        for k, event in enumerate(self.events):
            mine = happens[:, k]
            if not mine.any():
                continue
            if event.reset is not None:
                x = torch.where(mine.unsqueeze(-1), event.reset(system, x), x)
            if event.refractory is not None:
                rest = getattr(system, event.refractory).squeeze(-1).to(t.dtype).expand_as(t)
                until = torch.where(mine, t + rest.detach(), self.release[:, k])
                later = torch.where(mine, lag + rest - rest.detach(), self.lag[:, k])
                self.release = _with_column(self.release, k, until)
                self.lag = _with_column(self.lag, k, later)
        return x

    def rushed(self, t: Tensor, span: Tensor, happens: Tensor, is_located: bool) -> Tensor:
        """Which rows have events without end, after those that happen at t.

        Many in a row within TIGHT of the span; or one that a step brings again before time, in
        floating point, has moved on.
        """
        any_ = happens.any(dim=-1)
        tight = t - self.last.amax(dim=-1) <= TIGHT * span
        spacing = torch.nextafter(t, torch.full_like(t, torch.inf)) - t
        again = happens & (t.unsqueeze(-1) - self.last <= SPACINGS * spacing.unsqueeze(-1))
        self.rush = torch.where(any_, torch.where(tight, self.rush + 1, 0), self.rush)
        self.last = torch.where(happens, t.unsqueeze(-1), self.last)
        return (self.rush > RUSH) | (again.any(dim=-1) & is_located)

    def alert(self, t: Tensor) -> Tensor:
        """Events whose guards must be looked at where a row stops: before them, or set free now."""
        return (self.side * self.direction < 0) | (self.release == t.unsqueeze(-1))

    def lag_at(self, t: Tensor) -> Tensor:
        """The lag of the refractory times that end at t, zero where none does."""
        return torch.where(self.release == t.unsqueeze(-1), self.lag, 0.0).sum(dim=-1)

    def moved(self, look: Look, t: Tensor, x: Tensor, slope: Tensor, happens: Tensor) -> Tensor:
        """Zero, with the gradient of the event's time: dt = -dg / (dg/dt), by the implicit rule."""
        with torch.no_grad():
            along = (torch.ones_like(t), slope.detach().contiguous())
            speed = torch.func.jvp(look, (t, x.detach().contiguous()), along)[1]
        first = happens.long().argmax(dim=-1, keepdim=True)
        value, speed = look(t, x).gather(-1, first), speed.gather(-1, first)
        some = happens.any(dim=-1, keepdim=True)
        lag = torch.where(some, -(value - value.detach()) / torch.where(some, speed, 1.0), 0.0)
        return lag.squeeze(-1)


class _Way:
    """Rows on the curves of their steps, piece by piece, as far as nothing happens.

    Attributes:
        begin: (row): where the piece begins, a fraction of the step.
        width: (row): of the next piece, a fraction of the step.
        open: (row): whether the row is still on its way.
        lost: (row): the guard is not a number.
        hit: (row, event): what crosses zero between `low` and `high`, (row), in the sense `sense`.
    """

    def __init__(self, guards: Guards, t: Tensor, h: Tensor, good: Tensor):
        self.guards, self.t, self.h = guards, t, h
        self.resting = guards.release > t.unsqueeze(-1)
        self.sense = torch.where(guards.direction == 0, -guards.side, guards.direction)
        pace = torch.where(guards.pace < 0, FIRST * h, guards.pace)
        self.begin, self.low, self.high = (torch.zeros_like(t) for _ in range(3))
        self.width = pace / h
        self.open, self.lost = good.clone(), torch.zeros_like(good)
        self.hit = torch.zeros_like(self.resting)

    def piece(self, look: Look, curve: Curve) -> None:
        """Look at the next piece of every row; halve it, go on behind it, or end in it."""
        left = 1 - self.begin
        is_last = self.width >= left
        width = torch.minimum(self.width, left)
        places = self.begin + LOOKS.to(width).unsqueeze(-1) * width
        places[-1] = torch.where(is_last, 1.0, places[-1])
        seen = look(self.t + places * self.h, curve(places)).detach()
        shape = Shape(seen)
        watched = self.open.unsqueeze(-1) & ~self.resting
        if (shape.is_apart(self.guards.side) | ~watched).all():
            passes = self.open
        else:
            settled = self._settled(seen, shape) | (width <= FINEST) | ~self.open
            passes = self._across(places, seen, self.open & settled)
            self.width = torch.where(settled, self.width, width / 2)
        self.begin = torch.where(passes, places[-1], self.begin)
        wider = torch.where(watched, shape.growth(), GROWTH).amin(dim=-1) * width
        wider = torch.where(is_last, torch.maximum(self.width, wider), wider)
        self.width = torch.where(passes, wider, self.width)
        self.open = self.open & (self.begin < 1) & ~self.hit.any(dim=-1) & ~self.lost

    def _settled(self, seen: Tensor, shape: Shape) -> Tensor:
        """(row): whether looks at all its guards show all that they do."""
        guards = self.guards
        size = seen.abs().nan_to_num(0.0, posinf=0.0).amax(dim=0)
        guards.size = torch.where(
            self.open.unsqueeze(-1), torch.maximum(guards.size, size), guards.size
        )
        clear = shape.shows_all(guards.side, guards.floor * guards.size)
        return (clear | self.resting).all(dim=-1)

    def _across(self, places: Tensor, seen: Tensor, done: Tensor) -> Tensor:
        """(row): which of the done rows go on; notes the others, and sides at the piece's end."""
        place = self._first_crossing(seen, done)
        first = place.amin(dim=-1)
        ends = done & (first < N_LOOKS)
        self.hit = torch.where(ends.unsqueeze(-1), place == first.unsqueeze(-1), self.hit)
        index = first.clamp(max=N_LOOKS - 1).unsqueeze(0)
        self.low = torch.where(ends, places.gather(0, index - 1).squeeze(0), self.low)
        self.high = torch.where(ends, places.gather(0, index).squeeze(0), self.high)
        unknown = (seen.isnan().any(dim=0) & ~self.resting).any(dim=-1)
        self.lost = self.lost | (done & ~ends & unknown)
        passes = done & ~ends
        sign = torch.nan_to_num(seen[-1]).sign().long()
        moved = passes.unsqueeze(-1) & ~self.resting & (sign != 0)
        self.guards.side = torch.where(moved, sign, self.guards.side)
        return passes

    def _first_crossing(self, seen: Tensor, rows: Tensor) -> Tensor:
        """(row, event): the first look at which a guard is across; `N_LOOKS` where none is."""
        toward = (self.sense * seen)[1:]
        may = rows.unsqueeze(-1) & ~self.resting & (self.sense != 0)
        armed = (self.sense * self.guards.side < 0).unsqueeze(0)
        before = torch.cat([armed, toward[:-1] < 0]).cumsum(dim=0) > 0
        hits = before & (toward >= 0) & may
        return torch.where(hits.any(dim=0), hits.long().argmax(dim=0) + 1, N_LOOKS)


def _with_column(table: Tensor, k: int, column: Tensor) -> Tensor:
    """The table with another column k, out of place."""
    columns: Sequence[Tensor] = [*table.unbind(dim=-1)]
    return torch.stack([column if i == k else old for i, old in enumerate(columns)], dim=-1)
