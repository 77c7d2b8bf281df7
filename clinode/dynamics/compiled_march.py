"""The way of a compiled solution: into the loop and out of it, until every trajectory has ended.

Between two visits the log doubles where it is full, trajectories that are done leave the loop, and
budgets and the clock are looked at.
"""

import math
import time
from typing import Any

import torch
from torch import Tensor

from .compiled_gradient import Backwards, reverse_function
from .compiled_loop import RUNNING, Layout, group, loop_function
from .compiled_outputs import output_specs, states_between
from .compiled_rows import Flat, padded
from .compiled_trace import Compiled, Named, Spec
from .solvers import Limits, Status
from .walk import HOPELESS, PATIENCE

FEWEST_SLOTS = 32  # of a new log; it doubles when it is full
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

        def read(times: Tensor, log_t: Tensor, count: Tensor, *log: Tensor) -> tuple[Tensor, ...]:
            nodes, curves = log[: method.n_node], log[method.n_node :]
            return (states_between(method, times, log_t, count, nodes, curves),)

        def read_back(*arguments: Tensor) -> tuple[Tensor, ...]:
            *given, on_states = arguments
            clock, log = given[:3], given[3:]
            return torch.func.vjp(lambda *log: read(*clock, *log)[0], *log)[1](on_states)

        specs = output_specs(method, n_states, layout.dtype, layout.device)
        if back:
            state = specs[-1].shape[-1]
            specs.append(Spec(("row", "time", state), layout.dtype, layout.device))
        COMPILED[key] = Compiled(read_back if back else read, specs)
    return COMPILED[key]


class March:
    """One solution on its way: rows that still run, and the log of all.

    Args:
        flat: The problem.
        layout: Of the loop.
        rtol: Relative tolerance.
        atol: Absolute tolerance, positive.
        limits: Steps and wall time.
        keep_steps: Whether steps are logged; else only the last state is known.
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
        self.tolerances = [self.number(rtol, torch.float64), self.number(atol, torch.float64)]
        slots = self.loop.notes.get("slots", FEWEST_SLOTS) if keep_steps else 2
        self.log = self._new_log(slots)
        self.rows = torch.arange(self.n_all, device=self.device)
        self.state = self._first_state()
        self.final = self.state
        self.since, self.passed = torch.zeros_like(self.rows), torch.ones_like(self.rows)
        self.rowwise = {"end", *flat.inputs}
        self.static = self.static_of_all = self._static()

    def run(self) -> "March":
        """Until every trajectory has a status."""
        deadline = time.monotonic() + self.limits.wall_time_seconds
        limit, fresh = CHUNK if math.isinf(deadline) else 16, True
        while True:
            n_rows = len(self.rows)
            keep = n_rows // 2 if n_rows >= FEWEST_ROWS else 0
            began = time.monotonic()
            self._enter(fresh, keep, limit)
            fresh, now = False, time.monotonic()
            attempts = int(self.state["attempt"])
            if attempts >= limit:
                self._give_up()
            runs = self.state["status"] == RUNNING
            n_running = int(runs.sum())
            if n_running and now > deadline:
                self.state["status"] = torch.where(
                    runs, Status.WALL_TIME.value, self.state["status"]
                )
                n_running = 0
            self._keep()
            if not n_running:
                break
            if not math.isinf(deadline) and attempts:
                affordable = attempts * min(LOOK, deadline - now) / (now - began)
                limit = max(1, min(CHUNK, int(affordable)))
            if self.keep_steps and int(self.state["slot"].max()) >= self.log["log_t"].shape[1] - 1:
                self._double()
            if n_running <= keep:
                self._drop(runs, n_running)
        if self.keep_steps:
            self.loop.notes["slots"] = self.log["log_t"].shape[1]
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
        self.state["status"] = torch.where(spent, Status.STEP_BUDGET.value, self.state["status"])

    def states(self) -> Tensor:
        """(row, time, state) at the output times; NaN after the end of a trajectory that failed."""
        times, count = self.flat.times, self.final["slot"]
        nodes, curves = group(self.log, "log_node"), group(self.log, "log_curve")
        if not self.keep_steps:
            ends = torch.stack([self.flat.x0.detach(), self.final["node0"]], dim=1)
            unknown = times > self.final["t"].unsqueeze(-1)
            return ends.masked_fill(unknown.unsqueeze(-1), math.nan)
        read = compiled_outputs(self.layout)
        return read(times, self.log["log_t"], count, *nodes, *curves)[0]

    def _enter(self, fresh: bool, keep: int, limit: int) -> None:
        numbers = (keep, SETTLE, limit, int(self.keep_steps))
        out = self.loop(
            *(self.number(number, torch.int64) for number in numbers),
            self.number(fresh, torch.bool),
            *self.tolerances,
            *list(self.state.values())[1:],
            self.static["end"],
            self.rows,
            *self.log.values(),
            *list(self.static.values())[1:],
        )
        self.state = dict(zip(self.state, out, strict=True))

    def _keep(self) -> None:
        """The state of rows that are in the loop, into that of all."""
        if len(self.rows) == self.n_all:
            self.final = self.state
            return
        for name, value in self.state.items():
            if name != "attempt":
                self.final[name].index_copy_(0, self.rows, value)

    def _drop(self, runs: Tensor, n_running: int) -> None:
        """Leave in the loop only what runs, and at least two."""
        chosen = runs.nonzero().squeeze(-1)
        if n_running == 1:
            chosen = torch.cat([chosen, (~runs).nonzero().squeeze(-1)[:1]])
        if len(self.rows) == self.n_all:
            self.final = {name: value.clone() for name, value in self.state.items()}
        self.rows = self.rows[chosen]
        self.state = {
            name: value if name == "attempt" else value[chosen]
            for name, value in self.state.items()
        }
        self.static = {
            name: value[chosen] if name in self.rowwise else value
            for name, value in self.static.items()
        }

    def _double(self) -> None:
        old = self.log
        slots = old["log_t"].shape[1]
        self.log = self._new_log(2 * slots)
        for name, value in self.log.items():
            by_row = name in ("log_t", "log_piece")
            (value[:, :slots] if by_row else value[:slots]).copy_(old[name])

    def _new_log(self, slots: int) -> Named:
        sizes = {"slot": slots, "all": self.n_all}
        log = {
            name: torch.empty(
                [sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape],
                dtype=spec.dtype,
                device=spec.device,
            )
            for name, spec in self.layout.log_specs().items()
        }
        log["log_t"].fill_(math.inf)
        return log

    def _first_state(self) -> Named:
        x0, times, n = self.flat.x0.detach(), self.flat.times, self.n_all
        zeros = torch.zeros(n, dtype=torch.int64, device=self.device)
        piece = zeros
        if self.layout.pieces:
            piece = (self.flat.inputs["stop"] <= times[:, :1]).sum(dim=-1)
        self.first_piece = piece
        state = {
            "attempt": self.number(0, torch.int64),
            "t": times[:, 0].contiguous(),
            "h": torch.zeros_like(times[:, 0]),
            "ratio": torch.ones_like(times[:, 0]),
            "slot": zeros,
            "tries": zeros,
            "status": zeros + RUNNING,
            "piece": piece,
            "stale": zeros.bool(),
            "shrinks": zeros,
            "wall": torch.full_like(times[:, 0], math.inf),
        }
        return state | {f"node{i}": x0 for i in range(self.layout.method.n_node)}

    def _static(self) -> Named:
        field = self.flat.field
        made = {"end": self.flat.times[:, -1].contiguous()}
        made |= {name: value.detach() for name, value in self.flat.inputs.items()}
        for i, (tensor, spec) in enumerate(zip(field.tensors, field.specs, strict=True)):
            value, by_row = tensor.detach(), spec.shape[:1] == ("row",)
            made[f"tensor{i}"] = padded(value) if by_row else value.contiguous()
            self.rowwise |= {f"tensor{i}"} if by_row else set()
        return made

    def log_until(self, used: int) -> Named:
        """The log without its empty slots."""
        return {
            name: (value[:, :used] if name in ("log_t", "log_piece") else value[:used]).contiguous()
            for name, value in self.log.items()
        }

    def number(self, value: float | int, dtype: torch.dtype) -> Tensor:
        """A number as an argument of a compiled function."""
        return torch.tensor(value, dtype=dtype, device=self.device)
