"""Hankel singular values and balanced reduction of linear systems.

A Hankel value says how much a direction of the state both takes from past inputs and gives to later
outputs. Values, and what a reduced system answers, do not depend on the coordinates of the state,
so a learned (`latent`) system is asked like any other.

python-control finds the triangular factors of the Gramians; the values are the singular values of
their product, and the reduction follows from its singular vectors (Tombs & Postlethwaite 1987, Int.
J. Control 46:1319-1330). Its own `hsvd` takes roots of eigenvalues instead, which lose what is
below 1e-8 of the largest, and its `balred` reads a map as a flow.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import LinearSystem

from .gramian import check_stable, controllability_gramian, observability_gramian

EQUAL = 1e-8  # Hankel values nearer than this, relative, are not separated


@dataclass(frozen=True, eq=False)
class HankelValues:
    """How many directions of the state matter between inputs and outputs.

    Attributes:
        values: (state,), descending, output units per input unit.
        floor: Values below it are zero to rounding.
        inputs: Names of the inputs they hold for.
        outputs: Names of the outputs.
    """

    values: Float[Tensor, " state"]
    floor: float
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def order(self) -> int:
        """How many are above rounding: the states that any model of this behavior needs."""
        return int((self.values > self.floor).sum())

    def to_pandas(self) -> pd.DataFrame:
        """One row a value: value, bound of the error when it and all below are left out."""
        values = self.values.numpy()
        bound = 2 * np.cumsum(values[::-1])[::-1]
        above = values > self.floor
        return pd.DataFrame({"value": values, "error_without": bound, "above_rounding": above})

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return {
            "values": self.values.tolist(),
            "floor": self.floor,
            "order": self.order,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
        }


@dataclass(frozen=True, eq=False)
class BalancedReduction:
    """A system of fewer states that answers nearly the same.

    Attributes:
        system: The reduced system: the same inputs, outputs and operating point, balanced states.
        hankel_values: Of the full system.
        error_bound: Largest gain, over all frequencies, of the difference: twice the sum of the
            values left out. In units of one output per unit of one input.
    """

    system: LinearSystem
    hankel_values: HankelValues
    error_bound: float

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return {
            "order": self.system.n_states,
            "error_bound": self.error_bound,
            "hankel_values": self.hankel_values.to_dict(),
        }


def hankel_singular_values(system: LinearSystem) -> HankelValues:
    """Hankel singular values of a stable system, in continuous time or in steps.

    Args:
        system: One system, with inputs. Outputs in different units add up unscaled: choose them.

    Raises:
        ArgumentError: The system is not stable, has no inputs, or has batch axes.
        SolverError: Rounding could change a Gramian by 1e-6 of its norm.

    Example:
        >>> leak = LinearSystem([[-2.0]], [[1.0]], [[1.0]])
        >>> hankel_singular_values(leak).values
        tensor([0.2500], dtype=torch.float64)
    """
    reached, shown, rounding = _factors(system)
    values = np.linalg.svd(shown @ reached.T, compute_uv=False)
    return _hankel(system, values, rounding)


def balanced_reduction(system: LinearSystem, order: int) -> BalancedReduction:
    """The system without the directions of the smallest Hankel values.

    The reduced system is stable, and the gain of what it does otherwise is bounded (Glover 1984,
    Int. J. Control 39:1115-1193).

    Args:
        system: One stable system, with inputs.
        order: How many states to keep.

    Raises:
        ArgumentError: As `hankel_singular_values`; an order that is below 1 or above the number of
            values that rounding leaves; one that would separate equal values.
        SolverError: Rounding could change a Gramian by 1e-6 of its norm.

    Example:
        >>> chain = LinearSystem([[-1.0, 0.0], [1.0, -9.0]], [[1.0], [0.0]], [[0.0, 1.0]])
        >>> found = balanced_reduction(chain, 1)
        >>> found.system.n_states, round(found.error_bound, 3)
        (1, 0.009)
    """
    reached, shown, rounding = _factors(system)
    U, values, V = np.linalg.svd(shown @ reached.T)
    hankel = _hankel(system, values, rounding)
    _check_order(order, hankel)
    root = np.sqrt(values[:order])
    left = torch.from_numpy((U[:, :order] / root).T @ shown)
    right = torch.from_numpy(reached.T @ V[:order].T / root)
    A, B, C, D = (matrix.detach().double().cpu() for matrix in _matrices(system))
    reduced = LinearSystem(
        left @ A @ right,
        left @ B,
        C @ right,
        D,
        offset=(torch.zeros(order), system.u0.detach().cpu(), system.y0.detach().cpu()),
        step=system.step,
        latent=system.latent,
        states=[f"balanced{k + 1}" for k in range(order)],
        inputs=system.inputs,
        outputs=system.outputs or system.states,
        time_unit=system.time_unit,
    )
    left_out = np.maximum(values[order:], rounding)
    return BalancedReduction(reduced, hankel, float(2 * left_out.sum()))


def _matrices(system: LinearSystem) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return system.A, system.B, system.C, system.D


def _hankel(system: LinearSystem, values: np.ndarray, rounding: float) -> HankelValues:
    inputs, outputs = tuple(system.input_names), tuple(system.output_names)
    return HankelValues(torch.from_numpy(values), rounding, inputs, outputs)


def _check_order(order: int, hankel: HankelValues) -> None:
    if not 1 <= order <= hankel.order:
        raise ArgumentError(
            f"order must lie between 1 and {hankel.order}, the number of Hankel values above "
            f"rounding, got {order}"
        )
    values = hankel.values.numpy()
    ends = np.append(values[: hankel.order - 1] - values[1 : hankel.order], math.inf)
    separated = np.flatnonzero(ends > EQUAL * values[: hankel.order]) + 1
    if order in separated:
        return
    near = [*separated[separated < order][-1:].tolist(), *separated[separated > order][:1].tolist()]
    raise ArgumentError(
        f"Hankel values {order} and {order + 1} are equal, so no one of them can be left out",
        fix=f"ask for {' or '.join(str(one) for one in near)} states",
    )


def _factors(system: LinearSystem) -> tuple[np.ndarray, np.ndarray, float]:
    """R and S with controllability Gramian R' R and observability Gramian S' S.

    With how far rounding may move a singular value of S R'.
    """
    import control  # takes seconds to import

    if any(matrix.ndim > 2 for matrix in _matrices(system)):
        raise ArgumentError("the system has batch axes", fix="give one member of it")
    if not system.n_inputs:
        raise ArgumentError("the system has no inputs, so nothing has Hankel values")
    A, B, C, _ = (matrix.detach().double().cpu() for matrix in _matrices(system))
    check_stable(
        A,
        is_map=system.step is not None,
        what="a Hankel value",
        fix="reduce the stable part alone, or close a loop that stabilizes it first",
    )
    B, C = _at_most_square(B.numpy()), _at_most_square(C.numpy().T).T
    model = control.StateSpace(
        A.numpy(), B, C, np.zeros((len(C), B.shape[1])), 0 if system.step is None else system.step
    )
    reached, shown = (np.asarray(control.gram(model, which)) for which in ("cf", "of"))
    error = max(
        _relative_error(reached, controllability_gramian(A, B, math.inf, step=system.step)),
        _relative_error(shown, observability_gramian(A, C, math.inf, step=system.step)),
        len(A) * float(np.finfo(float).eps),
    )
    return reached, shown, error * float(np.linalg.norm(reached, 2) * np.linalg.norm(shown, 2))


def _relative_error(factor: np.ndarray, gramian: Tensor) -> float:
    """How far a factor is from the Gramian that knows its error."""
    W = gramian.numpy()
    error = float(np.linalg.norm(factor.T @ factor - W))
    return error / max(float(np.linalg.norm(W)), np.finfo(float).tiny)


def _at_most_square(B: np.ndarray) -> np.ndarray:
    """No more columns than rows, with the same B B': the routine behind takes no others."""
    if B.shape[1] <= B.shape[0]:
        return B
    return np.asarray(np.linalg.qr(B.T, mode="r")).T
