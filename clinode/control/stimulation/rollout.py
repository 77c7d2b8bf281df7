"""Many trajectories over one grid of steps, differentiable by their inputs at little cost.

The forward pass keeps the states at nodes only; the backward pass takes the steps again, a few at a
time, so that what a step needs for its gradient is still in the cache when it is used. The gradient
is the exact one of the discrete trajectory (discretize, then differentiate).
"""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.dynamics.fixed_step import FIXED_STEP
from clinode.errors import ArgumentError
from clinode.system import System

TOGETHER = 5  # steps whose graph is built at once


def check_rolls(system: System) -> None:
    """Refuse what the grid of steps cannot follow.

    Raises:
        ArgumentError: A map, delays or events.
    """
    name = type(system).__name__
    if system.step is not None:
        raise ArgumentError(
            f"{name} is a map; a stimulus is designed for a flow in continuous time",
            fix="give the system that it was sampled from",
        )
    if system.delays:
        raise ArgumentError(
            f"{name} has delays, which the search through the nonlinear model cannot follow",
            fix="refine=False designs at zero delay and checks with the delays",
        )
    if system.events:
        raise ArgumentError(
            f"{name} has events, and a design through resets is not offered",
            fix="a model whose spikes are part of its flow, or one of rates",
        )


def in_double(system: System) -> System:
    """The system in float64; a copy where it is not."""
    return system if system.dtype == torch.float64 else copy.deepcopy(system).double()


def rollout(
    system: System,
    x0: Float[Tensor, "*batch state"],
    nodes: Float[Tensor, " node"],
    inputs: Float[Tensor, "step stage *#batch input"],
    method: str = "rk4",
) -> Float[Tensor, "node *batch state"]:
    """States at all nodes; gradients flow to x0 and the inputs, not to constants.

    Args:
        system: A flow without delays or events; its noise is left out.
        x0: States at the first node, with all batch axes.
        nodes: Where steps begin and end, in time units.
        inputs: At the start, the middle and the end of each step (3 stages), or held through it
            (1 stage).
        method: A key of `FIXED_STEP`: "rk4", "heun", "midpoint" or "euler".

    Raises:
        ArgumentError: An unknown method.
    """
    if method not in FIXED_STEP:
        raise ArgumentError(f"method must be one of {', '.join(FIXED_STEP)}, got {method!r}")
    states: Tensor = _Rollout.apply(x0, inputs, system, nodes.tolist(), method)  # pyright: ignore
    return states


class _Rollout(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x0: Tensor, inputs: Tensor, system: System, nodes: list[float], method: str
    ) -> Tensor:
        states = x0.new_empty(len(nodes), *x0.shape)
        states[0] = x = x0
        for k in range(len(nodes) - 1):
            x = _step(system, nodes, method, k, x, inputs[k])
            states[k + 1] = x
        ctx.save_for_backward(states, inputs)
        ctx.held = (system, nodes, method)
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        states, inputs = ctx.saved_tensors
        system, nodes, method = ctx.held
        on_nodes = grads[0]
        pull, on_inputs = torch.zeros_like(states[0]), torch.empty_like(inputs)
        for end in range(len(nodes) - 1, 0, -TOGETHER):
            start = max(0, end - TOGETHER)
            with torch.enable_grad():
                x = first = states[start].detach().requires_grad_()
                live = inputs[start:end].detach().requires_grad_()
                found = []
                for k, u in enumerate(live.unbind(), start):
                    x = _step(system, nodes, method, k, x, u)
                    found.append(x)
            wanted = list(on_nodes[start + 1 : end + 1].unbind())
            wanted[-1] = wanted[-1] + pull
            pull, on_inputs[start:end] = torch.autograd.grad(found, [first, live], wanted)
        return pull + on_nodes[0], on_inputs, None, None, None


def _step(system: System, nodes: list[float], method: str, k: int, x: Tensor, u: Tensor) -> Tensor:
    start, width = nodes[k], nodes[k + 1] - nodes[k]
    if u.shape[0] == 1:
        held = u[0]

        def rate(fraction: float, x: Tensor) -> Tensor:
            return system(start + fraction * width, x, held)
    else:

        def rate(fraction: float, x: Tensor) -> Tensor:
            return system(start + fraction * width, x, u[round(2 * fraction)])

    one_step, _ = FIXED_STEP[method]
    return one_step(rate, x.new_tensor(width), x)


class Stages:
    """The inputs of `rollout` from values at knots, which no step crosses.

    Args:
        knots: Times, not decreasing.
        hold: "previous" (one stage) or "linear" (three).
        nodes: Every knot inside them is one of them.
    """

    def __init__(self, knots: Float[Tensor, " knot"], hold: str, nodes: Float[Tensor, " node"]):
        middle = (nodes[1:] + nodes[:-1]) / 2
        before = torch.searchsorted(knots, middle, right=True) - 1
        self.left, self.hold = before.clamp(min=0), hold
        self.right = (before + 1).clamp(max=len(knots) - 1)
        beyond = self.right == self.left  # outside the knots the nearest value holds
        width = torch.where(beyond, 1.0, knots[self.right] - knots[self.left])
        times = torch.stack([nodes[:-1], middle, nodes[1:]], dim=1)
        share = (times - knots[self.left].unsqueeze(1)) / width.unsqueeze(1)
        self.share = torch.where(beyond.unsqueeze(1), 0.0, share)

    def __call__(
        self, values: Float[Tensor, "knot *batch input"]
    ) -> Float[Tensor, "step stage *batch input"]:
        """Gradients flow to the values."""
        at_left = values[self.left].unsqueeze(1)
        if self.hold == "previous":
            return at_left
        share = self.share.to(values.dtype).view(*self.share.shape, *[1] * (values.ndim - 1))
        return at_left + share * (values[self.right].unsqueeze(1) - at_left)
