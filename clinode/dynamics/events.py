"""Events of a system on the way: found on the curve between two steps, and what they do.

The guard is looked at in four places of every step; where its sign turns, its zero is found on the
dense output by bracketing. An event ends the step there. Its reset may push other guards across
zero, whose events then happen at the same time. Where a solution starts beyond a guard that resets
the state, or leaves a refractory time there, the event happens at once.

Events that follow each other without end (a ball that comes to rest, a reset that does not leave
the guard) end the solution with the status "chattering".
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from clinode.system import System, positions

LOOKS = (0.25, 0.5, 0.75, 1.0)  # fractions of a step at which guards are looked at
AT_ONCE = 32  # rounds of events at one time
RUSH = 64  # events in a row, each within TIGHT of the whole time from the last
TIGHT = 1e-9
MOST_TRIALS = 120  # looks at a guard for its zero; ten are usual
SPACINGS = 16  # of floating-point time: nearer events of one kind are at one time
RESOLUTION = 1e-12  # of a step: what is nearer to a guard counts as on it

Curve = Callable[[Tensor], Tensor]  # theta -> state
Look = Callable[[Tensor, Tensor], Tensor]  # (t, x) -> guards


class Guards:
    """The events of a system over running trajectories, and on which side of them each one is.

    Attributes:
        side: (row, event): the sign of the guard; 0 while it is not looked at.
        release: (row, event): when it is looked at again, and its held states are free.
        lag: (row, event): zero in value, the gradient of the release time.
    """

    def __init__(self, system: System, t: Tensor):
        events, n = system.events, len(t)
        n_events, device = len(events), t.device
        self.events = events
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

    def narrow(self, keep: Tensor) -> None:
        """Keep these rows."""
        for name in ("side", "release", "lag", "last", "rush"):
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

    def locate(
        self, look: Look, t: Tensor, h: Tensor, curve: Curve, good: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """The first events of a step: its fraction (row) and which ones (row, event), or None.

        Where nothing happens the fraction is 1, and the sides are those at the end of the step.
        """
        fractions = t.new_tensor(LOOKS).unsqueeze(-1).expand(-1, len(t))
        seen = look(t + fractions * h, curve(fractions))
        sense = torch.where(self.direction == 0, -self.side, self.direction)
        toward = sense * seen
        resting = self.release > t.unsqueeze(-1)
        armed = (sense * self.side < 0) & ~resting & good.unsqueeze(-1)
        place = torch.full(self.side.shape, len(LOOKS), device=t.device)
        for k in range(len(LOOKS)):
            hit = armed & (toward[k] >= 0) & (place == len(LOOKS))
            place = torch.where(hit, k, place)
            armed = armed | ((toward[k] < 0) & ~resting & good.unsqueeze(-1) & (sense != 0))
        first = place.amin(dim=-1)
        if not (first < len(LOOKS)).any():
            sign = seen[-1].sign().long()
            self.side = torch.where(resting | (sign == 0) | ~good.unsqueeze(-1), self.side, sign)
            return None
        low, high = first * LOOKS[0], (first + 1) * LOOKS[0]
        found = torch.full(self.side.shape, torch.inf, dtype=t.dtype, device=t.device)
        for k in torch.nonzero((place == first.unsqueeze(-1)).any(dim=0)).flatten().tolist():

            def value(theta: Tensor, k: int = k) -> Tensor:
                return sense[:, k] * look(t + theta * h, curve(theta))[:, k]

            here = (place[:, k] == first) & (first < len(LOOKS))
            zero = bracketed(value, low.to(t.dtype), high.to(t.dtype), here)
            found[:, k] = torch.where(here, zero, torch.inf)
        fraction = found.amin(dim=-1)
        happens = found <= fraction.unsqueeze(-1) + RESOLUTION
        none = fraction.isinf()
        sign = seen[-1].sign().long()
        calm = none.unsqueeze(-1) & ~resting & (sign != 0) & good.unsqueeze(-1)
        self.side = torch.where(calm, sign, self.side)
        return torch.where(none, 1.0, fraction), happens & ~none.unsqueeze(-1)

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


def bracketed(
    value: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, where: Tensor
) -> Tensor:
    """Zeros between low (below zero) and high (not below), to the last bits.

    Inverse quadratic interpolation where it can be trusted, bisection elsewhere: Chandrupatla 1997,
    Adv. Eng. Softw. 28:145-149.
    """
    tiny = torch.finfo(low.dtype).tiny
    x1, f1 = high, value(high).abs()
    x2, f2 = low, -value(low).abs().clamp(min=tiny)
    part, best = torch.full_like(low, 0.5), high
    open_ = where & (f1 != 0)
    for _ in range(MOST_TRIALS):
        if not open_.any():
            break
        x = x1 + part * (x2 - x1)
        f = value(x)
        same = (f < 0) == (f1 < 0)
        x3, f3 = torch.where(same, x1, x2), torch.where(same, f1, f2)
        x2, f2 = torch.where(same, x2, x1), torch.where(same, f2, f1)
        x1, f1 = x, f
        best = torch.where(open_, torch.where(f1 < 0, x2, x1), best)  # where it is not below
        narrow = 4e-16 / (x2 - x1).abs()
        open_ = open_ & (narrow < 0.5) & (f != 0)
        xi, phi = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
        trusted = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
        inverse = f1 / (f2 - f1) * f3 / (f2 - f3)
        inverse = inverse + (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (f3 - f2)
        part = torch.where(trusted, inverse, 0.5).nan_to_num(0.5)
        part = torch.minimum(torch.maximum(part, narrow), 1 - narrow).clamp(0.0, 1.0)
    return best


def _with_column(table: Tensor, k: int, column: Tensor) -> Tensor:
    """The table with another column k, out of place."""
    columns: Sequence[Tensor] = [*table.unbind(dim=-1)]
    return torch.stack([column if i == k else old for i, old in enumerate(columns)], dim=-1)
