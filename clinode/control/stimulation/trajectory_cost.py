"""What a stimulus costs along its trajectory in a nonlinear model, and the exact gradient.

    J = terminal/2 |y(T) - y*|^2 + int running/2 |y - y*|^2 + energy/2 |v|^2 + sparsity |v| dt

over what the stimulus adds to the resting input, v, given at knots; a batch of problems at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.control.stimulation.course import charge_weights
from clinode.control.stimulation.goal import places_of
from clinode.control.stimulation.rollout import Stages, check_rolls, in_double, rollout
from clinode.dynamics.fixed_step import step_grid
from clinode.errors import ArgumentError
from clinode.system import FunctionSignal, Quantity, Signal, System, Values, positions


@dataclass(frozen=True, kw_only=True, eq=False)
class StimulationCost:
    """What a stimulus should do and what it may cost.

    Args:
        target: y*, (*batch, quantity), or a `Signal` of the quantities over time.
        on: Names of states and outputs, or blocks of them, in the order of the target; all states
            by default.
        terminal: Weight of the squared distance at the end.
        running: Weight of its integral over time.
        energy: Weight of the integral of v^2.
        sparsity: Weight of the integral of |v|: it silences inputs and times that do little.

    Raises:
        ArgumentError: A negative weight, or none for the distance.
    """

    target: Values | Signal | FunctionSignal
    on: Sequence[str] | None = None
    terminal: float = 1.0
    running: float = 0.0
    energy: float = 0.0
    sparsity: float = 0.0

    def __post_init__(self):
        for name in ("terminal", "running", "energy", "sparsity"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ArgumentError(f"{name} must not be negative, got {getattr(self, name)}")
        if not self.terminal and not self.running:
            raise ArgumentError(
                "a cost without distance is least without stimulus",
                fix="terminal=..., for the end, or running=..., for the way",
            )


class StimulationProblem:
    """Cost and gradient of stimuli given at knots, for a batch of problems.

    Args:
        system: A flow without delays or events; its constants may have batch axes.
        x0: States at the first knot, (*batch, state).
        knots: (knot,), increasing: where steps begin or lines bend; the last ends the stimulus.
        cost: What to minimise.
        inputs: Names of inputs or blocks that stimulate; all by default.
        u: The resting input, a number or (*batch, input).
        hold: "previous" or "linear".
        step: Largest step of the solver; by default a step a piece.
        method: "rk4", "heun", "midpoint" or "euler".

    Raises:
        ArgumentError: Shapes or names that do not fit, a system that the steps cannot follow.
    """

    def __init__(
        self,
        system: System,
        x0: Values,
        knots: Values,
        cost: StimulationCost,
        *,
        inputs: Sequence[str] | None = None,
        u: Values = 0.0,
        hold: str = "previous",
        step: float | None = None,
        method: str = "rk4",
    ):
        check_rolls(system)
        self.system, self.cost, self.hold, self.method = in_double(system), cost, hold, method
        self.knots = _knots(knots)
        ends = self.knots[[0, -1]]
        step = float(ends.diff()) if step is None else step
        self.nodes = step_grid(ends, self.knots, step).nodes
        self.stages = Stages(self.knots, hold, self.nodes)
        self.inputs, self.places = stimulating(system, inputs)
        self.reads = _read(system, cost.on)
        u = torch.as_tensor(u, dtype=torch.float64)
        self.u = u.expand(system.n_inputs) if u.ndim == 0 else u
        self.wanted = self._target()
        x0 = torch.as_tensor(x0, dtype=torch.float64)
        if x0.shape[-1:] != (system.n_states,) or self.u.shape[-1:] != (system.n_inputs,):
            raise ArgumentError(
                f"x0 and u have shapes {tuple(x0.shape)} and {tuple(self.u.shape)}, expected "
                f"(*batch, {system.n_states}) and (*batch, {system.n_inputs})"
            )
        with torch.no_grad():
            rate = self.system(0.0, x0, self.u)
        shapes = [x0.shape[:-1], self.u.shape[:-1], rate.shape[:-1], self.wanted.shape[1:-1]]
        self.batch = torch.broadcast_shapes(*shapes)
        self.x0 = x0.expand(*self.batch, -1).contiguous()
        n_missing = len(self.batch) - (self.wanted.ndim - 2)
        self.wanted = self.wanted[(slice(None), *[None] * n_missing)]  # nodes lead, then the batch
        self.weights = torch.tensor(charge_weights(self.knots.numpy(), hold)).unsqueeze(-1)
        self.node_weights = torch.tensor(charge_weights(self.nodes.numpy(), "linear"))

    @property
    def shape(self) -> torch.Size:
        """Of the stimuli, (*batch, knot, stimulating input)."""
        return torch.Size([*self.batch, len(self.knots), len(self.places)])

    def terms(
        self, v: Float[Tensor, "*batch knot input"]
    ) -> tuple[dict[str, Float[Tensor, "*batch"]], Float[Tensor, "node *batch state"]]:
        """The parts of the cost, and the states; gradients flow to the stimuli."""
        inputs = self._inputs(v)
        states = rollout(self.system, self.x0, self.nodes, inputs, self.method)
        cost, parts = self.cost, {}
        if cost.running:
            seen = self._readout(states, torch.cat([inputs[:, 0], inputs[-1:, -1]]), self.nodes)
            squares = ((seen - self.wanted) ** 2).sum(dim=-1)
            whole = torch.tensordot(self.node_weights, squares, 1)
            parts["running"] = cost.running / 2 * whole
        if cost.terminal:
            seen = self._readout(states[-1:], inputs[-1:, -1], self.nodes[-1:])[0]
            miss = ((seen - self.wanted[-1]) ** 2).sum(dim=-1)
            parts["terminal"] = cost.terminal / 2 * miss
        parts["energy"] = cost.energy / 2 * self._energy(v)
        parts["sparsity"] = cost.sparsity * self.absolute(v)
        return parts, states

    def smooth(self, v: Float[Tensor, "*batch knot input"]) -> Float[Tensor, "*batch"]:
        """The cost without the sparsity."""
        parts, _ = self.terms(v)
        return torch.stack([value for name, value in parts.items() if name != "sparsity"]).sum(0)

    def gradient(
        self, v: Float[Tensor, "*batch knot input"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch knot input"]]:
        """The smooth cost of each problem, and its derivative by each value at a knot."""
        live = v.detach().requires_grad_()
        with torch.enable_grad():
            value = self.smooth(live)
            (slope,) = torch.autograd.grad(value.sum(), live)
        return value.detach(), slope

    def absolute(self, v: Float[Tensor, "*batch knot input"]) -> Float[Tensor, "*batch"]:
        """Integral of |v|, each value standing for the time around its knot."""
        return (self.weights * v.abs()).sum(dim=(-2, -1))

    def signal(self, v: Float[Tensor, "*batch knot input"]) -> Signal:
        """All inputs of the system."""
        whole = self.u.unsqueeze(-2).repeat(*[1] * (self.u.ndim - 1), len(self.knots), 1)
        whole = whole.expand(*self.batch, -1, -1).clone()
        whole[..., self.places] += v
        return Signal(self.knots, whole, self.hold)

    def _inputs(self, v: Tensor) -> Float[Tensor, "step stage *batch input"]:
        given = self.stages(v.movedim(-2, 0).expand(-1, *self.batch, -1))
        if self.places == list(range(self.system.n_inputs)):
            return self.u + given
        place = torch.zeros(len(self.places), self.system.n_inputs, dtype=torch.float64)
        place[range(len(self.places)), self.places] = 1.0
        return self.u + given @ place

    def _energy(self, v: Tensor) -> Tensor:
        if self.hold == "previous":
            return (self.weights * v**2).sum(dim=(-2, -1))
        left, right = v[..., :-1, :], v[..., 1:, :]
        squares = (left**2 + left * right + right**2).sum(dim=-1)
        return (self.knots.diff() / 3 * squares).sum(dim=-1)

    def _readout(self, states: Tensor, inputs: Tensor, times: Tensor) -> Tensor:
        parts = []
        for role, places in self.reads:
            if role == "state":
                parts.append(states[..., places])
            else:
                t = times.view(-1, *[1] * (states.ndim - 2))
                parts.append(self.system.output(t, states, inputs)[..., places])
        return torch.cat(parts, dim=-1)

    def _target(self) -> Float[Tensor, "node *batch quantity"]:
        """What is wanted at each node; one node where it is the same at all."""
        target, n = self.cost.target, sum(len(places) for _, places in self.reads)
        if isinstance(target, Signal | FunctionSignal):
            wanted = target(self.nodes.view(-1, *[1] * len(target.batch_shape)))
        else:
            wanted = torch.as_tensor(target, dtype=torch.float64).unsqueeze(0)
        if wanted.ndim < 2 or wanted.shape[-1] != n:
            raise ArgumentError(
                f"the target has {tuple(wanted.shape[1:])} values, expected (*batch, {n})"
            )
        return wanted.double().detach()


def _knots(knots: Values) -> Tensor:
    times = torch.as_tensor(knots, dtype=torch.float64).detach()
    if times.ndim != 1 or len(times) < 2 or not times.isfinite().all() or (times.diff() <= 0).any():
        raise ArgumentError("knots are at least two finite times that increase")
    return times


def stimulating(
    system: System, names: Sequence[str] | None
) -> tuple[tuple[Quantity, ...], list[int]]:
    """Inputs or blocks of these names, as quantities and as positions in the system's order.

    Raises:
        ArgumentError: A system without inputs, or an unknown name.
    """
    if not system.n_inputs:
        raise ArgumentError(f"{type(system).__name__} has no inputs, so nothing stimulates it")
    if names is None:
        return system.inputs, list(range(system.n_inputs))
    names = [names] if isinstance(names, str) else names
    chosen = {i for name in names for i in positions(system.inputs, name, "input")}
    kept, offset = [], 0
    for quantity in system.inputs:
        members = [i for i in range(quantity.size) if offset + i in chosen]
        if members and quantity.labels:
            kept.append(replace(quantity, labels=tuple(quantity.labels[i] for i in members)))
        elif members:
            kept.append(quantity)
        offset += quantity.size
    return tuple(kept), sorted(chosen)


def _read(system: System, names: Sequence[str] | None) -> list[tuple[str, list[int]]]:
    """(state or output, positions) of each name, in order; all states by default."""
    if names is None:
        if system.latent:
            raise ArgumentError(
                "the states of a learned system have arbitrary coordinates, so they are no target",
                fix="on=[...], names of outputs",
            )
        return [("state", list(range(system.n_states)))]
    return [places_of(system, name) for name in ([names] if isinstance(names, str) else names)]
