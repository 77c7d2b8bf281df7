"""A linear control problem as matrices, about the resting point that its cost aims at.

    x(k + 1) = A x + B u + sum_i C_i u e_i + w,   y = H x + sum_i D_i x e_i + v     (a map; else x')

in deviations from a state and input at rest. Problems without a horizon have an answer only where
the inputs reach, and the cost and the sensors see, every mode that does not decay by itself; what
is missing is said in words.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import LinearSystem

from .problem import ControlProblem, Quadratic

AT_REST = 1e-9  # relative residual of a target that counts as a resting state
UNSEEN = 1e-10  # relative size of what reaches or sees a mode, below which nothing does


@dataclass(frozen=True, eq=False)
class Deviations:
    """Matrices of a linear control problem about its resting point.

    Attributes:
        A: (state, state).
        B: (state, input).
        H: What is read, (sensor, state).
        Q: Cost of the states, (state, state).
        R: Cost of the inputs, (input, input).
        final: Cost of the states at the horizon.
        W: Covariance, or spectral density, of what moves the states.
        V: Of the noise of the readings.
        C: Factors of control-dependent noise, (source, state, input).
        D: Factors of state-dependent sensing, (source, sensor, state).
        state: The resting state, absolute.
        input: The resting input, absolute.
        reading: What is read at rest.
        mean: Mean of the initial state, less the resting state.
        spread: Covariance of the initial state.
        is_map: Whether it moves in steps.
    """

    A: Tensor
    B: Tensor
    H: Tensor
    Q: Tensor
    R: Tensor
    final: Tensor
    W: Tensor
    V: Tensor
    C: Tensor
    D: Tensor
    state: Tensor
    input: Tensor
    reading: Tensor
    mean: Tensor
    spread: Tensor
    is_map: bool


def deviations(problem: ControlProblem) -> Deviations:
    """The matrices of a linear problem.

    Raises:
        ArgumentError: The system is not linear, noise is a function, what is weighed or read
            depends on the input at once, or the target is no resting state under any input.
    """
    system = problem.system
    if not isinstance(system, LinearSystem):
        raise ArgumentError(
            f"{type(system).__name__} is not linear",
            fix="linearize it at an equilibrium, or use ilqg or model_predictive",
        )
    if problem.W is None or problem.V is None:
        raise ArgumentError(
            "noise that is a function of the state has no constant covariance",
            fix="give its covariance as a matrix, or use ilqg or dual_control",
        )
    A, B, C, D = (matrix.double() for matrix in (system.A, system.B, system.C, system.D))
    state, rest_input, holds = resting_point(problem)
    if not holds:
        raise ArgumentError(
            "the target is no resting state under any constant input, so that it cannot be held",
            fix="ask for a target at rest, or let ilqg follow it to a horizon",
        )
    Q, final = (_weight_of_states(cost, C, D) for cost in (problem.stage, problem.final))
    return Deviations(
        A=A,
        B=B,
        H=_sensor_matrix(problem, C, D),
        Q=Q,
        R=problem.R,
        final=final,
        W=problem.W,
        V=problem.V,
        C=problem.control_factors,
        D=problem.sensing_factors,
        state=state,
        input=rest_input,
        reading=problem.read(0.0, state),
        mean=problem.start - state,
        spread=problem.spread,
        is_map=problem.is_map,
    )


def resting_point(problem: ControlProblem) -> tuple[Tensor, Tensor, bool]:
    """State and input from which costs count, and whether the system rests there at the target.

    Of a linear system: at rest at the target, with the input nearest to the operating one. Where
    nothing rests at the target, the operating point; of other systems zeros.
    """
    system = problem.system
    if not isinstance(system, LinearSystem):
        n, m = system.n_states, system.n_inputs
        return torch.zeros(n).double(), torch.zeros(m).double(), False
    x0, u0 = system.x0.double(), system.u0.double()
    if problem.stage.target is None and problem.final.target is None:
        return x0, u0, True
    A, B, C = system.A.detach().double(), system.B.detach().double(), system.C.detach().double()
    n, m = B.shape
    drift = A - torch.eye(n).double() if problem.is_map else A
    rows, wanted = [torch.cat([drift, B], dim=-1)], [torch.zeros(n).double()]
    for cost in (problem.stage, problem.final):
        seen = C if cost.of_outputs else torch.eye(n).double()
        here = system.y0.double() if cost.of_outputs else x0
        target = here if cost.target is None else cost.target
        rows.append(cost.weight.detach() @ torch.cat([seen, torch.zeros(len(seen), m)], dim=-1))
        wanted.append(cost.weight.detach() @ (target - here).detach())
    M, b = torch.cat(rows), torch.cat(wanted)
    particular = torch.linalg.lstsq(M, b.unsqueeze(-1), driver="gelsd").solution.squeeze(-1)
    residual = float((M @ particular - b).norm())
    if residual > AT_REST * (float(b.norm()) + 1e-300):
        return x0, u0, False
    _, sizes, V = torch.linalg.svd(M)
    rank = int((sizes > 1e-12 * sizes[0]).sum())
    free = V[rank:].T
    if free.shape[-1]:  # of all such points the one with the least change of input
        shift = torch.linalg.lstsq(free[n:], -particular[n:].unsqueeze(-1), driver="gelsd")
        particular = particular + (free @ shift.solution).squeeze(-1)
    return x0 + particular[:n], u0 + particular[n:], True


def check_stabilizable(d: Deviations) -> None:
    """Raise ArgumentError where a mode that does not decay is out of the inputs' reach."""
    _check_modes(d.A, d.B, d.is_map, "no input reaches", "an endless horizon has no finite cost")


def check_cost_detects(d: Deviations) -> None:
    """Raise ArgumentError where a mode that does not decay costs nothing."""
    _check_modes(
        d.A.T, d.Q, d.is_map, "the state cost does not see",
        "whether to stop it is then no question of cost: give it a weight, however small",
    )  # fmt: skip


def check_detectable(d: Deviations) -> None:
    """Raise ArgumentError where a mode that does not decay is not read."""
    _check_modes(d.A.T, d.H.T, d.is_map, "no sensor sees", "its estimate has no finite error")


def check_noise_excites(d: Deviations) -> None:
    """Raise ArgumentError where a mode that does not decay is moved by no noise."""
    _check_modes(
        d.A, d.W, d.is_map, "no process noise moves",
        "a filter would in time ignore its readings of it: give it noise, or a horizon",
    )  # fmt: skip


def _check_modes(A: Tensor, B: Tensor, is_map: bool, what: str, why: str) -> None:
    """PBH: [A - lambda, B] loses rank at a mode that B misses."""
    A, B = A.detach(), B.detach()
    eye = torch.eye(len(A), dtype=torch.complex128)
    size = float(torch.linalg.matrix_norm(A, 2)) + 1e-300
    scaled = B / (float(B.abs().max()) + 1e-300)
    for value in torch.linalg.eigvals(A):
        if (abs(value) < 1 - 1e-12) if is_map else (value.real < -1e-12 * size):
            continue
        pencil = torch.cat([(A - value * eye) / size, scaled.to(eye)], dim=-1)
        if float(torch.linalg.svdvals(pencil)[-1]) < UNSEEN:
            number = complex(value)
            shown = f"{number.real:.6g}" if not number.imag else f"{number:.6g}"
            raise ArgumentError(
                f"{what} the mode with eigenvalue {shown}, which does not decay: {why}"
            )


def _weight_of_states(cost: Quadratic, C: Tensor, D: Tensor) -> Tensor:
    if not cost.of_outputs:
        return cost.weight
    if (cost.weight @ D != 0).any():
        raise ArgumentError(
            "the cost weighs outputs that depend on the input at once",
            fix="weigh outputs without D, and the input in input_cost",
        )
    return C.T @ cost.weight @ C


def _sensor_matrix(problem: ControlProblem, C: Tensor, D: Tensor) -> Tensor:
    """H, by reading the unit states."""
    n = problem.system.n_states
    x0 = problem.system.x0.double()
    H = (problem.read(0.0, x0 + torch.eye(n).double()) - problem.read(0.0, x0)).T
    if bool((D[problem.read_rows] != 0).any()):
        raise ArgumentError(
            "what is read depends on the input at once",
            fix="read outputs without D, or give sensors as a matrix on the states",
        )
    return H
