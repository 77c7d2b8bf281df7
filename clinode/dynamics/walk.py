"""The loop of the adaptive methods, and of every method through events: one row a trajectory.

All rows that still run try one step at once; each has its own time, width, input piece and status.
A row that is done leaves the loop with its constants, so the last ones run alone. Output times are
read off the curve of the step that passes them and bend no step. Steps end at the breakpoints of
the row's input, at its events and at the ends of its refractory times; the field is evaluated anew
behind them.

With a `Plan` the walk takes the recorded steps again, for gradients: no rejected attempt and no
failed batch mate is in the graph. Widths and output times are constants of the graph, times of
events are not: at an event at t(p) with rates f before and g after it, the state carries
(f - g) dt/dp, the saltation term (Aizerman & Gantmacher 1958, Quart. J. Mech. Appl. Math.
11:225-241). First derivatives are those of the discrete solution; second ones lack the curvature
of event times.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from clinode.system import Signal, System

from .events import AT_ONCE, Guards
from .impulses import jump
from .record import Plan, Record
from .runge_kutta import Rate, Step, error_ratio, initial_step, interpolate, step_factor
from .solvers import Limits, Problem, Solution, Status, select

SHRINKS = 10  # attempts that are not finite before a row is given up
FINEST = 10  # spacings of floating-point time below which a step is no step
UPSTROKE = 2_000  # steps in a row below it on the way to a reset, as where V' = exp(V) escapes
CUTS = 16  # of one fixed step, because its guards need more looks, before a row is given up
PATIENCE = 1_000  # attempts after which the pace is judged
HOPELESS = 2  # times max_steps that the rest of the way would take at that pace

PER_ROW = (
    *("rows", "times", "stops", "t", "x", "slope", "end", "h", "previous", "wall"),
    *("shrinks", "extra", "since", "passed", "part", "cuts", "lost", "fine"),
)


@dataclass(frozen=True)
class Method:
    """A one-step method.

    Attributes:
        attempt: (rate, t, h, x, slope) -> `Step`.
        curve: (h, x, after, stages) -> what `interpolate` needs; stages end with the last slope
            where the step itself does not know it.
        order: Of its error estimate, plus one; 0 where it has none and takes every step.
        n_evaluations: Evaluations of the field per attempt, that of the slope at its end included.
    """

    attempt: Callable[..., Step]
    curve: Callable[..., tuple[Tensor, ...]]
    order: int
    n_evaluations: int


@dataclass(frozen=True)
class Tolerance:
    """What an error is measured against."""

    rtol: float = 1e-6
    atol: float = 1e-9


class Walk:
    """Rows on their way, and what they left behind.

    Args:
        problem: With one batch axis, and a `System` as its field.
        method: How to step.
        stops: (row, stop), increasing: where steps must end; the last one is the end.
        tolerance: Not read by a method without an error estimate.
        limits: Steps and wall time.
        plan: The steps to take again; None to choose them.
        keep_steps: Whether this walk will be walked again.
    """

    def __init__(
        self,
        problem: Problem,
        method: Method,
        stops: Tensor,
        tolerance: Tolerance,
        limits: Limits,
        plan: Plan | None = None,
        keep_steps: bool = False,
    ):
        n, times = len(problem.x0), problem.times
        self.whole, self.problem, self.method = problem, problem, method
        self.tolerance, self.limits, self.plan = tolerance, limits, plan
        self.deadline = time.monotonic() + limits.wall_time_seconds
        count = torch.zeros(n, dtype=torch.int64, device=times.device)
        self.rows = torch.arange(n, device=times.device)
        self.times = times.expand(n, -1).contiguous()
        self.stops = stops.expand(n, -1).contiguous()
        self.x = self.slope = problem.x0
        self.t = self.end = self.times[:, 0].contiguous()
        self.h = self.previous = torch.ones_like(self.t)
        self.wall = torch.full_like(self.t, torch.inf)
        self.shrinks, self.extra, self.since = count, count, count
        self.passed = count + 1  # output times behind the row
        self.tried = 0
        self.last = torch.zeros_like(self.rows, dtype=torch.bool)  # the attempt ends at a stop
        self.part = torch.ones_like(self.t)  # of the attempt that is kept
        self.cuts = count  # of attempts in a row that end where the looks at guards do
        self.lost = torch.zeros_like(self.last)  # a guard is not a number
        self.fine = count  # steps in a row that time does not notice
        self.u: Tensor | None = None
        self.free: Tensor | None = None
        events = self.system.events
        self.guards = Guards(self.system, self.t) if events else None
        self.record = Record(n, len(events), times.device, keep_steps)
        self.read = [(self.rows, count, self.x)]
        self.status, self.evaluations = count.clone(), count.clone()
        self.reached, self.width = self.t.clone(), torch.zeros_like(self.t)

    @property
    def system(self) -> System:
        """The system with the constants of the rows."""
        return self.problem.system

    def run(self) -> Solution:
        """To the end of every row."""
        self._begin()
        while len(self.rows):
            self._attempt()
        rows, places, values = (torch.cat(parts) for parts in zip(*self.read, strict=True))
        n, n_times = len(self.whole.x0), self.whole.times.shape[-1]
        unknown = values.new_full((n, n_times, values.shape[-1]), torch.nan)
        states = unknown.index_put((rows, places), values)
        events = None if self.guards is None else self.record.happenings()
        return Solution(states, self.status, self.reached, self.evaluations, self.width, events)

    def _begin(self) -> None:
        here = torch.ones_like(self.rows, dtype=torch.bool)
        self._restart(here, None, first=True)
        if len(self.rows) and self.plan is None and self.method.order:
            rtol, atol, order = self.tolerance.rtol, self.tolerance.atol, self.method.order
            span = self.end - self.t
            self.h = initial_step(self._rate(), self.t, self.x, self.slope, span, rtol, atol, order)
            self.extra = self.extra + 1

    def _attempt(self) -> None:
        """One step of every row, and what follows from it."""
        h, until = self._widths()
        self.tried += 1
        step, slope, stages = self._stepped(h, until)
        good = self._judge(step, slope, h, until)
        curve, happens, after = None, None, step.x
        if self.guards is not None:
            curve = self.method.curve(h, self.x, after, stages)
            happens, until, after = self._locate(h, until, after, curve, good)
            good = good & ~self.lost
            if not self.method.order and (self.part < 1).any():
                # The rest of a fixed step, beyond a reset say, would spoil what comes before it.
                h, self.part = self.part * h, torch.ones_like(h)
                step, slope, stages = self._stepped(h, until)
                after, curve = step.x, self.method.curve(h, self.x, step.x, stages)
        self._read(h, until, step.x, stages, good, curve)
        self._move(good, until, after, slope, h)
        self._end(good, h, happens)

    def _stepped(self, h: Tensor, until: Tensor) -> tuple[Step, Tensor, tuple[Tensor, ...]]:
        """An attempt of this width, the slope at its end, and what its curve is made of."""
        rate = self._rate()
        step = self.method.attempt(rate, self.t, h, self.x, self.slope)
        if step.slope is not None:
            return step, step.slope, step.stages
        slope = rate(until, step.x)
        return step, slope, (*step.stages, slope)

    def _widths(self) -> tuple[Tensor, Tensor]:
        """The width of the next attempt, and where it ends."""
        if self.plan is not None:
            width = self.plan.width[self.rows, self.tried]
            return width, self.plan.until[self.rows, self.tried]
        left = self.end - self.t
        if not self.method.order:
            return left, self.end
        last = self.h >= left * (1 - 1e-10)
        self.last = last
        return torch.where(last, left, self.h), torch.where(last, self.end, self.t + self.h)

    def _judge(self, step: Step, slope: Tensor, h: Tensor, until: Tensor) -> Tensor:
        """Which attempts are good; the next widths are chosen."""
        finite = step.x.isfinite().all(dim=-1) & slope.isfinite().all(dim=-1)
        if self.plan is not None:
            return torch.ones_like(finite)
        if step.error is None or not self.method.order:
            return finite
        rtol, atol = self.tolerance.rtol, self.tolerance.atol
        ratio = error_ratio(step.error, self.x, step.x, rtol, atol)
        finite = finite & ratio.isfinite()
        ratio = torch.where(finite, ratio, torch.inf)
        good = ratio <= 1
        grown = h * step_factor(ratio, self.previous, self.method.order)
        # A step cut short by a stop says little about the next one.
        self.h = torch.where(good & self.last, torch.maximum(grown, self.h), grown)
        self.previous = torch.where(good, ratio, self.previous)
        if not finite.all():
            self.shrinks = self.shrinks + (~finite).long()
            self.wall = torch.where(finite, self.wall, torch.minimum(self.wall, until))
        return good

    def _locate(
        self, h: Tensor, until: Tensor, after: Tensor, curve: tuple[Tensor, ...], good: Tensor
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """The first events inside the step: what happens, where the step ends, its state there."""
        guards = cast(Guards, self.guards)
        t, x = self.t, self.x

        def along(theta: Tensor) -> Tensor:
            return interpolate(theta, x, after, curve)

        happens = self._found(guards, h, along, good)
        cut = self._cut(happens)
        if not cut.any():
            return happens, until, after
        if self.plan is None:
            until = torch.where(cut, torch.minimum(t + self.part * h, until), until)
        return happens, until, torch.where(cut.unsqueeze(-1), along(self.part), after)

    def _found(
        self, guards: Guards, h: Tensor, along: Callable[[Tensor], Tensor], good: Tensor
    ) -> Tensor | None:
        """What happens in the attempt, or did by the plan; sets the part of it that is kept."""
        if self.plan is not None:
            self.part = self.plan.part[self.rows, self.tried - 1]
            return self.plan.happens(self.rows, self.tried, 0)
        side = guards.side
        found = guards.locate(self._look, self.t, h, along, good)
        if found.happens is not None and not self.method.order:
            guards.side = side
            found = guards.locate(self._look, self.t, h, self._shorter(h), good)
        self.part, happens, self.lost = found
        if not self._cut(happens).any():
            self.cuts = torch.zeros_like(self.cuts)
            return None
        # At the very end an event is left to who goes on from there.
        late = self.t + self.part * h >= self.times[:, -1]
        self.part = torch.where(late, 1.0, self.part)
        short = self.part < 1
        if happens is not None:
            happens = happens & ~late.unsqueeze(-1)
            short = short & ~happens.any(dim=-1)
        self.cuts = torch.where(short, self.cuts + 1, 0)
        self.h = torch.where(short, torch.minimum(self.h, self.part * h), self.h)
        return happens

    def _shorter(self, h: Tensor) -> Callable[[Tensor], Tensor]:
        """Where shorter steps end: the curve of a method that is not smooth over its whole step."""
        rate = self._rate()

        def along(theta: Tensor) -> Tensor:
            return self.method.attempt(rate, self.t, theta * h, self.x, self.slope).x

        return along

    def _cut(self, happens: Tensor | None) -> Tensor:
        """Which attempts end before their width, or in an event."""
        short = self.part < 1
        return short if happens is None else short | happens.any(dim=-1)

    def _read(
        self,
        h: Tensor,
        until: Tensor,
        after: Tensor,
        stages: tuple[Tensor, ...],
        good: Tensor,
        curve: tuple[Tensor, ...] | None,
    ) -> None:
        """States at the output times that the good steps have passed."""
        passed = torch.searchsorted(self.times, until.unsqueeze(-1), right=True).squeeze(-1)
        count = torch.where(good, passed - self.passed, 0)
        total = int(count.sum())
        if not total:
            return
        row = torch.arange(len(count), device=h.device).repeat_interleave(count)
        first = count.cumsum(dim=0) - count
        place = self.passed[row] + torch.arange(total, device=h.device) - first[row]
        if curve is None and total >= len(count):
            curve = self.method.curve(h, self.x, after, stages)
        x, end, width = self.x[row], after[row], h[row]
        theta = ((self.times[row, place] - self.t[row]) / width).clamp(max=1.0)
        if curve is None:
            curve = self.method.curve(width, x, end, [stage[row] for stage in stages])
        else:
            curve = tuple(part[row] for part in curve)
        self.read.append((self.rows[row], place, interpolate(theta, x, end, curve)))
        self.passed = self.passed + count
        self.since = torch.where(count > 0, self.tried, self.since)

    def _move(self, good: Tensor, until: Tensor, after: Tensor, slope: Tensor, h: Tensor) -> None:
        """The good rows stand at the ends of their steps."""
        part = torch.ones_like(until) if self.guards is None else self.part
        if good.all():
            self.x, self.slope, self.t = after, slope, until
            self.record.step(self.rows, h, until, part)
            return
        stays = good.unsqueeze(-1)
        self.x, self.slope = (
            torch.where(stays, after, self.x),
            torch.where(stays, slope, self.slope),
        )
        self.t = torch.where(good, until, self.t)
        self.record.step(self.rows[good], h[good], until[good], part[good])

    def _end(self, good: Tensor, h: Tensor, happens: Tensor | None) -> None:
        """Rows that are done or have failed leave; rows at a stop or an event begin anew."""
        stops = good & (self.t >= self.end)
        if self.guards is not None:
            stops = stops | (good & self._cut(happens))
        done = good & (self.t >= self.times[:, -1])
        status = torch.where(done, Status.OK.value, -1)
        if self.plan is None:
            status = self._failures(status, good)
        leaves = status >= 0
        if leaves.any():
            self._leave(leaves, status, h)
            stays = ~leaves
            stops = stops[stays]
            happens = None if happens is None else happens[stays]
        if stops.any():
            self._restart(stops, happens)

    def _failures(self, status: Tensor, good: Tensor) -> Tensor:
        """The status (-1: goes on) with that of the rows that cannot go on."""

        def mark(status: Tensor, where: Tensor, word: Status) -> Tensor:
            return torch.where(where & (status < 0), word.value, status)

        status = mark(status, self.lost, Status.NOT_FINITE)
        if not self.method.order:
            status = mark(status, ~good, Status.NOT_FINITE)
            self.since = torch.where(self.t < self.end, self.since, self.tried)
            many = self.tried - self.since > self.limits.max_steps
            status = mark(status, many | (self.cuts > CUTS), Status.STEP_BUDGET)
        else:
            if self.shrinks.any():
                behind = self.t >= self.wall
                self.shrinks = torch.where(behind, 0, self.shrinks)
                self.wall = torch.where(behind, torch.inf, self.wall)
                status = mark(status, self.shrinks > SHRINKS, Status.NOT_FINITE)
            finest = FINEST * (torch.nextafter(self.t, torch.full_like(self.t, torch.inf)) - self.t)
            stuck = (self.h < finest) & ~(good & self.last)
            if stuck.any() and self.guards is not None and self.guards.resets.any():
                self.fine = torch.where(stuck, self.fine + 1, 0)
                stuck = self.fine > UPSTROKE
            status = mark(status, stuck, Status.STEP_UNDERFLOW)
        if self.tried > min(self.limits.max_steps, PATIENCE) and self.method.order:
            status = mark(status, self._hopeless(), Status.STEP_BUDGET)
        if time.monotonic() > self.deadline:
            status = mark(status, status < 0, Status.WALL_TIME)
        return status

    def _hopeless(self) -> Tensor:
        """Rows that have used up their steps, or will at the pace of those they have taken."""
        tries, budget = self.tried - self.since, self.limits.max_steps
        place = self.passed.clamp(max=self.times.shape[-1] - 1).unsqueeze(-1)
        before = self.times.gather(-1, place - 1).squeeze(-1)
        left = self.times.gather(-1, place).squeeze(-1) - self.t
        slow = left * tries > HOPELESS * budget * (self.t - before)
        return (tries > budget) | ((tries > PATIENCE) & slow)

    def _leave(self, leaves: Tensor, status: Tensor, h: Tensor) -> None:
        """Note how these rows ended and go on without them."""
        rows = self.rows[leaves]
        self.status[rows] = status[leaves]
        self.reached[rows], self.width[rows] = self.t[leaves], h[leaves]
        attempts = self.tried * self.method.n_evaluations
        self.evaluations[rows] = attempts + self.extra[leaves]
        stays = ~leaves
        for name in PER_ROW:
            setattr(self, name, getattr(self, name)[stays])
        self.u = None if self.u is None else self.u[stays]
        self.free = None if self.free is None else self.free[stays]
        if self.guards is not None:
            self.guards.narrow(stays)
        if len(self.rows):
            self.problem = select(self.whole.system, self.whole, self.rows)

    def _restart(self, here: Tensor, happens: Tensor | None, first: bool = False) -> None:
        """Impulses and events at the rows that are here; the pieces that begin behind them."""
        lag = self._lag(here, happens)
        if lag is not None:
            slope = self._rate()(self.t, self.x).detach()
            self.x = self.x + slope * lag.to(self.x.dtype).unsqueeze(-1)
        signal = self.problem.signal
        self.x = jump(self.problem.field, signal, self.t, self.x, here)
        endless = None
        if self.guards is None:
            self._piece(here)
            slope = self._rate()(self.t, self.x)
        else:
            slope, endless = self._happen(here, happens, lag, first)
        if lag is not None:
            self.x = self.x - slope.detach() * lag.to(self.x.dtype).unsqueeze(-1)
            slope = self._rate()(self.t, self.x)
        self.slope = torch.where(here.unsqueeze(-1), slope, self.slope)
        self.extra = self.extra + here.long()
        bad = here & ~(slope.isfinite() & self.x.isfinite()).all(dim=-1)
        status = torch.where(bad, Status.NOT_FINITE.value, -1)
        if endless is not None:
            status = torch.where(endless & ~bad, Status.CHATTERING.value, status)
        if self.plan is None and (status >= 0).any():
            self._leave(status >= 0, status, self.h)

    def _happen(
        self, here: Tensor, happens: Tensor | None, lag: Tensor | None, first: bool
    ) -> tuple[Tensor, Tensor]:
        """Rounds of events at one time; the slopes after them, and rows where they do not end."""
        guards = cast(Guards, self.guards)
        slot = self.tried
        shift = torch.zeros_like(self.t) if lag is None else lag
        span = self.times[:, -1] - self.times[:, 0]
        endless = torch.zeros_like(here)
        asked = guards.alert(self.t) & here.unsqueeze(-1)
        if first:
            asked = torch.ones_like(asked)
        slope, again = self.slope, torch.zeros_like(here)
        for round_ in range(AT_ONCE):
            if happens is not None and happens.any():
                some = happens.any(dim=-1)
                self.record.event(self.rows[some], (self.t + shift)[some], happens[some], round_)
                self.x = guards.apply(self.system, self.t, self.x, shift, happens)
                rushed = guards.rushed(self.t, span, happens, is_located=round_ == 0)
                endless = endless | rushed
                asked = asked | happens
            self._piece(here)
            slope = self._rate()(self.t, self.x)
            if self.plan is not None:
                happens = self.plan.happens(self.rows, slot, round_ + 1)
                if happens is None:
                    return slope, endless
                happens = happens & here.unsqueeze(-1)
            else:
                happens = guards.at_once(self._look, self.t, self.x, slope, self.h, asked, happens)
                if not happens.any():
                    return slope, endless
            again = happens.any(dim=-1)
        return slope, endless | again

    def _lag(self, here: Tensor, happens: Tensor | None) -> Tensor | None:
        """Zero, with the gradient of the time at which a row stands; None without gradients."""
        if self.plan is None or self.guards is None:
            return None
        lag = self.guards.lag_at(self.t)
        if happens is not None and happens.any():
            slope = self._rate()(self.t, self.x)
            moved = self.guards.moved(self._look, self.t, self.x, slope, happens)
            lag = torch.where(happens.any(dim=-1), moved, lag)
        return torch.where(here, lag, 0.0)

    def _piece(self, here: Tensor) -> None:
        """Where the next stop is, which input acts until then, and which states move."""
        place = torch.searchsorted(self.stops, self.t.unsqueeze(-1), right=True)
        end = self.stops.gather(-1, place.clamp(max=self.stops.shape[-1] - 1)).squeeze(-1)
        if self.guards is not None:
            end = torch.minimum(end, self.guards.next_release(self.t))
            self.free = self.guards.free(self.t)
        self.end = torch.where(here, end, self.end)
        signal = self.problem.signal
        if isinstance(signal, Signal) and signal.hold == "previous":
            middle = self.t + (self.end - self.t) / 2
            self.u = signal(middle).to(self.x.dtype).expand(len(self.t), signal.n_inputs)

    def _rate(self) -> Rate:
        """The field of the rows on their present pieces."""
        field, signal, u, free = self.problem.field, self.problem.signal, self.u, self.free
        middle = None if u is not None else self.t + (self.end - self.t) / 2

        def rate(t: Tensor, x: Tensor) -> Tensor:
            within = None if middle is None else middle.expand(t.shape)
            value = u if u is not None else signal(t, within=within).to(x.dtype)
            slope = field(t, x, value)
            return slope if free is None else slope * free

        return rate

    def _look(self, t: Tensor, x: Tensor) -> Tensor:
        return cast(Guards, self.guards).look(self.system, t, x)
