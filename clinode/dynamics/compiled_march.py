"""The way of a compiled solution: into the loop and out of it, until every trajectory has ended.

Between two visits trajectories that are done leave the loop, and budgets and the clock are looked
at. Every visit has a tape of its own (`compiled_tape`).
"""

import math
import time
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .compiled_gradient import Backwards, reverse_function
from .compiled_loop import RUNNING, Layout, loop_function, nodes, parts
from .compiled_outputs import output_specs, states_between
from .compiled_rows import Flat, padded
from .compiled_tape import Log, Tape, log_of, new_tape, steps_of
from .compiled_trace import Compiled, Named, Spec
from .solvers import Limits, Status
from .walk import HOPELESS, PATIENCE

FEWEST_ROWS = 8  # a loop of fewer is not made smaller
SETTLE = 48  # attempts before trajectories that are done are dropped: an exit costs some, too
CHUNK = 1_000  # attempts before the budget is looked at
LOOK = 0.2  # seconds between looks at the clock where the wall time is limited

COMPILED: dict[Any, Compiled] = {}


def compiled_loop(flat: Flat, layout: Layout) -> Compiled:
    """The compiled loop of a field, made where there is none yet.

    Raises:
        NotCompiled: The field cannot be traced, or this machine compiles nothing.
    """
    key = ("loop", flat.field.operations, layout)
    if key not in COMPILED:
        specs = layout.specs().values()
        COMPILED[key] = Compiled(loop_function(layout, flat.field), tuple(specs))
    return COMPILED[key]


def compiled_reverse(flat: Flat, backwards: Backwards) -> Compiled:
    """The compiled reverse loop of a field, made where there is none yet."""
    key = ("reverse", flat.field.operations, backwards)
    if key not in COMPILED:
        specs = backwards.specs().values()
        COMPILED[key] = Compiled(reverse_function(backwards, flat.field), tuple(specs))
    return COMPILED[key]


def compiled_outputs(layout: Layout, back: bool = False) -> Compiled:
    """The compiled reading of a log, or its pullback; shared by all fields."""
    method, n_states = layout.method, layout.n_states
    key = ("outputs", back, method, n_states == 1, layout.dtype, layout.device)
    if key not in COMPILED:

        def read(times: Tensor, log_t: Tensor, count: Tensor, known: Tensor) -> tuple[Tensor, ...]:
            return (states_between(method, times, log_t, count, known.unbind()),)

        def read_back(*arguments: Tensor) -> tuple[Tensor, ...]:
            times, log_t, count, known, on_states = arguments
            back = torch.func.vjp(lambda known: read(times, log_t, count, known)[0], known)[1]
            return back(on_states)

        specs = output_specs(method, n_states, layout.dtype, layout.device)
        if back:
            state = specs[-1].shape[-1]
            specs.append(Spec(("row", "time", state), layout.dtype, layout.device))
        COMPILED[key] = Compiled(read_back if back else read, specs)
    return COMPILED[key]


class March:
    """One solution on its way: rows that still run, and what is known of all.

    Args:
        flat: The problem.
        layout: Of the loop.
        rtol: Relative tolerance.
        atol: Absolute tolerance, positive.
        limits: Steps and wall time.
        keep_steps: Whether steps are kept; else only the last state is known.
    """

    def __init__(
        self, flat: Flat, layout: Layout, rtol: float, atol: float, limits: Limits,
        keep_steps: bool = True,
    ):  # fmt: skip
        self.flat, self.layout, self.limits = flat, layout, limits
        self.loop = compiled_loop(flat, layout)
        self.keep_steps = keep_steps
        self.n_all = len(flat.x0)
        self.device = flat.x0.device
        self.tolerances = torch.tensor([rtol, atol], dtype=torch.float64, device=self.device)
        self.tapes: list[tuple[Tensor, int, Tape]] = []
        self.rows = torch.arange(self.n_all, device=self.device)
        self.state = self._first_state()
        self.final = self.state
        self.begun = ["h", *(name for name in self.state if name.startswith("node1_"))]
        self.since, self.passed = torch.zeros_like(self.rows), torch.ones_like(self.rows)
        self.rowwise = {"end", *flat.inputs}
        self.static = self.static_of_all = self._static()

    def run(self) -> "March":
        """Until every trajectory has a status."""
        deadline = time.monotonic() + self.limits.wall_time_seconds
        limit, fresh, unseen = CHUNK if math.isinf(deadline) else 16, True, 0
        while True:
            n_rows = len(self.rows)
            keep = n_rows // 2 if n_rows >= FEWEST_ROWS else 0
            began = time.monotonic()
            attempts = self._enter(fresh, keep, limit - unseen)
            fresh, now, unseen = False, time.monotonic(), unseen + attempts
            if unseen >= limit:
                self._give_up()
                unseen = 0
            runs = self.state["status"] == RUNNING
            n_running = int(runs.sum())
            if n_running and now > deadline:
                self.state["status"].masked_fill_(runs, Status.WALL_TIME.value)
                n_running = 0
            self._keep()
            if not n_running:
                break
            if not math.isinf(deadline) and attempts:
                affordable = attempts * min(LOOK, deadline - now) / (now - began)
                limit, unseen = max(1, min(CHUNK, int(affordable))), 0
            if n_running <= keep:
                self._drop(runs, n_running)
        return self

    def _give_up(self) -> None:
        """Rows without an output for too many attempts, or too slow by far; as `Walk` does."""
        t, tries, budget = self.state["t"], self.state["tries"], self.limits.max_steps
        times = self.flat.times[self.rows]
        passed = torch.searchsorted(times, t.unsqueeze(-1), right=True).squeeze(-1)
        moved = passed > self.passed[self.rows]
        since = torch.where(moved, tries, self.since[self.rows])
        self.passed[self.rows], self.since[self.rows] = passed, since
        place = passed.clamp(max=times.shape[-1] - 1).unsqueeze(-1)
        left = times.gather(-1, place).squeeze(-1) - t
        made = t - times.gather(-1, place - 1).squeeze(-1)
        waits = tries - since
        slow = (waits > PATIENCE) & (left * waits > HOPELESS * budget * made)
        spent = (self.state["status"] == RUNNING) & ((waits > budget) | slow)
        self.state["status"].masked_fill_(spent, Status.STEP_BUDGET.value)

    def states(self) -> Tensor:
        """(row, time, state) at the output times; NaN after the end of a trajectory that failed."""
        times, final = self.flat.times, self.final
        if not self.keep_steps:
            ends = torch.stack([self.flat.x0.detach(), nodes(self.layout, final)[0]], dim=1)
            unknown = times > final["t"].unsqueeze(-1)
            return ends.masked_fill(unknown.unsqueeze(-1), math.nan)
        read = compiled_outputs(self.layout)
        return read(times, self.log.t, final["tries"], self.log.known)[0]

    @cached_property
    def log(self) -> Log:
        """Of all attempts."""
        return log_of(self.layout, self.n_all, self.tapes)

    @cached_property
    def steps(self) -> tuple[Tensor, Log]:
        """How many steps each row took, and the log of these."""
        return steps_of(self.layout, self.log, self.final["tries"])

    def _enter(self, fresh: bool, keep: int, limit: int) -> int:
        """Visit the loop; the number of attempts made there."""
        tape = new_tape(self.layout, len(self.rows), limit if self.keep_steps else 1)
        places = len(tape.t) - 1 if self.keep_steps else limit
        counts = (keep, SETTLE, places, int(self.keep_steps), int(fresh))
        found, *begun = self.loop(
            torch.tensor(counts, device=self.device),
            self.tolerances,
            *self.state.values(),
            *tape.arguments(),
            *self.static.values(),
        )
        self.state |= dict(zip(self.begun, begun, strict=True))
        attempts = int(found)
        if self.keep_steps:
            self.tapes.append((self.rows, attempts, tape))
        return attempts

    def _keep(self) -> None:
        """The state of rows that are in the loop, into that of all."""
        if len(self.rows) == self.n_all:
            self.final = self.state
            return
        for name, value in self.state.items():
            self.final[name].index_copy_(0, self.rows, value)

    def _drop(self, runs: Tensor, n_running: int) -> None:
        """Leave in the loop only what runs, and at least two."""
        chosen = runs.nonzero().squeeze(-1)
        if n_running == 1:
            chosen = torch.cat([chosen, (~runs).nonzero().squeeze(-1)[:1]])
        self.rows = self.rows[chosen]
        self.state = {name: value[chosen] for name, value in self.state.items()}
        self.static = {
            name: value[chosen] if name in self.rowwise else value
            for name, value in self.static.items()
        }

    def _first_state(self) -> Named:
        x0, times = self.flat.x0.detach(), self.flat.times
        state = {name: _zeros(spec, self.n_all) for name, spec in self.layout.state_specs().items()}
        state["t"].copy_(times[:, 0])
        state["ratio"].fill_(1.0)
        state["wall"].fill_(math.inf)
        state["status"].fill_(RUNNING)
        state |= parts(self.layout, 0, x0)
        if self.layout.pieces:
            state["piece"].copy_((self.flat.inputs["stop"] <= times[:, :1]).sum(dim=-1))
            self.first_piece = state["piece"].clone()
        return state

    def _static(self) -> Named:
        field = self.flat.field
        made = {"end": self.flat.times[:, -1].contiguous()}
        made |= {name: value.detach() for name, value in self.flat.inputs.items()}
        for i, (tensor, spec) in enumerate(zip(field.tensors, field.specs, strict=True)):
            value, by_row = tensor.detach(), spec.shape[:1] == ("row",)
            made[f"tensor{i}"] = padded(value) if by_row else value.contiguous()
            self.rowwise |= {f"tensor{i}"} if by_row else set()
        return made


def _zeros(spec: Spec, n_rows: int) -> Tensor:
    own = [size for size in spec.shape[1:] if isinstance(size, int)]
    return torch.zeros((n_rows, *own), dtype=spec.dtype, device=spec.device)
