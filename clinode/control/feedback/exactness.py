"""Are beliefs truly Gaussian, and do they move as a filter computes? Seen at random states."""

import torch
from torch import Tensor
from torch.func import jacfwd, jacrev

from .belief import Filter
from .problem import ControlProblem
from .stages import Stages

STRAIGHT = 1e-9  # relative derivative that counts as none
N_LOOKS = 32  # random states at which it is looked for


def exactness(problem: ControlProblem, filter: Filter, seed: int = 0) -> tuple[bool, str]:
    """Whether beliefs are truly Gaussian and move as computed, and why.

    They do where, given the inputs and the states that are read without noise, the other states
    move linearly, under noise that does not depend on them. Looked for at random states.
    """
    if problem.is_linear and not len(problem.control_factors) and not len(problem.sensing_factors):
        return True, "the system is linear with additive Gaussian noise"
    stages, names = filter.stages, problem.system.state_names
    noisy = {n for n, v in zip(problem.sensor_names, _variances(problem), strict=True) if v}
    exact = [n in problem.sensor_names and n not in noisy for n in names]
    hidden = [i for i, seen in enumerate(exact) if not seen]
    if not bool((problem.spread[exact][:, exact] == 0).all()):
        hidden = list(range(len(names)))
    generator = torch.Generator().manual_seed(seed)
    scale = problem.start.abs() + problem.spread.diagonal().sqrt() + 1.0
    for _ in range(N_LOOKS):
        x = problem.start + scale * torch.randn(len(names), generator=generator).double()
        u = stages.rest + torch.randn(len(stages.rest), generator=generator).double()
        if not _is_straight(stages, x, u, hidden):
            return False, (
                "what is not seen exactly moves or is read nonlinearly, or changes the noise: "
                "means and covariances are those of a linearized filter"
            )
    return True, (
        f"given the inputs and what is read without noise, the rest is linear and Gaussian (at "
        f"{N_LOOKS} random states)"
    )


def _variances(problem: ControlProblem) -> list[float]:
    """Of each sensor's noise; infinite where it is a function of the state."""
    if problem.V is None or len(problem.sensing_factors):
        return [float("inf")] * problem.n_sensors
    return problem.V.diagonal().tolist()


def _is_straight(stages: Stages, x: Tensor, u: Tensor, hidden: list[int]) -> bool:
    """Whether motion and readings are linear in the hidden states, and the noise free of them."""

    def moved(part: Tensor) -> Tensor:
        whole = x.clone()
        whole = whole.index_put((torch.tensor(hidden),), part)
        return torch.cat([stages.move(0, whole, u), stages.read(0, whole)])

    def noise(part: Tensor) -> Tensor:
        whole = x.index_put((torch.tensor(hidden),), part)
        sensed = stages.sensing(0, whole).flatten()
        if stages.noise is None:
            return sensed
        return torch.cat([sensed, stages.noise(0, whole, u).flatten()])

    if not hidden:
        return True
    part = x[hidden]
    size = 1.0 + float(jacrev(moved)(part).abs().max()) + float(noise(part).abs().max())
    bend = float(jacfwd(jacrev(moved))(part).abs().max())
    return max(bend, float(jacrev(noise)(part).abs().max())) <= STRAIGHT * size
