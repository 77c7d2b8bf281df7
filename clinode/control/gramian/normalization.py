"""From the weights of a network to the linear dynamics that its controllability is asked of.

A[i, j] is the influence of region j on region i, as in `Connectome.weights`. Nothing is removed or
repaired on the way: self weights count as they stand.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity, Values
from clinode.system.quantity import nearest

from .gramian import check_step, real_numbers

NORMALIZATIONS = {
    "nctpy": "A = W / (c + l) - I, continuous time",
    "nctpy discrete": "A = W / (c + l), discrete time",
    "none": "A = W as given",
}  # l is the spectral radius of W; Parkes et al. 2024, Nat. Protoc.


@runtime_checkable
class Network(Protocol):
    """What has weights between labeled regions: a `Connectome`."""

    @property
    def weights(self) -> Tensor: ...

    @property
    def labels(self) -> tuple[str, ...]: ...


Weights = Network | Values


@dataclass(frozen=True)
class Normalization:
    """How weights become dynamics.

    Args:
        name: A key of `NORMALIZATIONS`.
        c: How far the spectral radius is kept from 1: l / (c + l).
        step: Time between two states of the map that "none" stands for; None is continuous time.
            The others state their time by themselves.

    Raises:
        ArgumentError: An unknown name, c or step not positive, a step beside another name.
    """

    name: str = "nctpy"
    c: float = 1.0
    step: float | None = None

    def __post_init__(self):
        if self.name not in NORMALIZATIONS:
            raise ArgumentError(
                f"there is no normalization '{self.name}': {nearest(self.name, NORMALIZATIONS)}"
            )
        if not (np.isfinite(self.c) and self.c > 0):
            raise ArgumentError(f"c must be positive and finite, got {self.c}")
        if self.step is None:
            return
        if self.name != "none":
            raise ArgumentError(
                f"normalization '{self.name}' states its time by itself, got step={self.step}",
                fix="leave step out, or give A itself with normalization='none'",
            )
        check_step(self.step)

    @property
    def map_step(self) -> float | None:
        """Time between two states where the dynamics are a map; None in continuous time."""
        return 1.0 if self.name == "nctpy discrete" else self.step

    @property
    def needs_radius(self) -> bool:
        """Whether the spectral radius of the weights enters."""
        return self.name != "none"

    def apply(self, values: Tensor, radius: float | Tensor) -> Tensor:
        """Eigenvalues of W to those of A."""
        if not self.needs_radius:
            return values
        return values / self._above(radius) - (1.0 if self.name == "nctpy" else 0.0)

    def matrix(self, W: Tensor, radius: float | Tensor) -> Tensor:
        """W to A."""
        if not self.needs_radius:
            return W
        A = W / self._above(radius)
        return A - torch.eye(len(W), dtype=W.dtype, device=W.device) if self.name == "nctpy" else A

    def _above(self, radius: float | Tensor) -> float | Tensor:
        """c + l, which nothing that comes from finite weights is divided by when it overflows."""
        total = self.c + radius
        if not math.isfinite(total.detach() if isinstance(total, Tensor) else total):
            raise ArgumentError(
                "the spectral radius of the weights exceeds 1e308",
                fix="divide them by their largest, and c with them",
            )
        return total

    def describe(self, radius: float | None) -> str:
        """In words, with its numbers."""
        if radius is None:
            time = "continuous time" if self.step is None else f"steps of {self.step:g}"
            return f"{NORMALIZATIONS[self.name]}, {time}"
        return f"{NORMALIZATIONS[self.name]}, c = {self.c:g}, l = {radius:.6g}"


def read_network(W: Weights) -> tuple[Tensor, tuple[str, ...]]:
    """Weights in float64 and the labels of the regions; "region_1", ... where there are none.

    Raises:
        ArgumentError: Not a square matrix of real, finite numbers.
    """
    weights = W.weights if isinstance(W, Network) else W
    weights = real_numbers(weights, "weights")
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or not len(weights):
        raise ArgumentError(
            f"weights have shape {tuple(weights.shape)}, expected a square matrix",
            fix="one row and one column for each region",
        )
    bad = ~weights.isfinite()
    if bad.any():
        row, column = (int(i) + 1 for i in bad.nonzero()[0])
        raise ArgumentError(
            f"weights have {int(bad.sum())} entries that are not finite, the first in row {row}, "
            f"column {column}"
        )
    if isinstance(W, Network):
        return weights, tuple(W.labels)
    return weights, tuple(f"region_{i + 1}" for i in range(len(weights)))


def spectral_radius(W: Tensor) -> Tensor:
    """Largest modulus of an eigenvalue; differentiable where it is simple."""
    if torch.equal(W, W.mT):
        return torch.linalg.eigvalsh(W).abs().amax()
    if not W.requires_grad and bool((W >= 0).all()):
        root = perron_root(sparse.csr_array(W.cpu().numpy()))
        if root is not None:
            return W.new_tensor(root)
    return torch.linalg.eigvals(W).abs().amax()


def perron_root(W: sparse.csr_array, n_steps: int = 300) -> float | None:
    """Spectral radius of nonnegative weights, to 1e-14, or None where the steps do not suffice.

    Of a strongly connected part min (W x)_i / x_i <= l <= max (W x)_i / x_i for every positive x
    (Collatz 1942, Wielandt 1950); x is improved until the two meet. The radius is the largest over
    the parts.
    """
    scale = math.ldexp(1.0, math.frexp(float(W.data.max(initial=0.0)))[1] - 1)
    W = sparse.csr_array(W / scale)  # sums of large weights would overflow
    n_parts, part = sparse.csgraph.connected_components(W, connection="strong")
    largest = float(W.diagonal().max(initial=0.0))  # all that a region by itself has
    for k in np.flatnonzero(np.bincount(part, minlength=n_parts) > 1):
        inside = np.flatnonzero(part == k)
        own = W if len(inside) == len(part) else W[inside][:, inside]
        shift = 0.05 * float(own.sum(axis=1).max())  # parts that alternate would not settle
        x = np.ones(len(inside))
        for _ in range(n_steps):
            y = own @ x + shift * x
            ratio = y / x
            low, high = float(ratio.min()), float(ratio.max())
            if high - low <= 1e-14 * high:
                break
            x = y / y.max()
        else:
            return None
        largest = max(largest, (low + high) / 2 - shift)
    return largest * scale


def linear_network(W: Weights, normalization: str = "nctpy", *, c: float = 1.0) -> LinearSystem:
    """x' = A x + u on a network, or x(k + 1) = A x(k) + u(k): an input of its own at every region.

    Args:
        W: Weights, (region, region), `W[i, j]` the influence of j on i; a Connectome keeps its
            labels.
        normalization: "nctpy" (A = W / (c + l) - I, continuous), "nctpy discrete"
            (A = W / (c + l), a map in steps of 1) or "none" (A = W, continuous), with l the
            spectral radius of W.
        c: See there.

    Returns:
        A system whose states are "x:label" and inputs "u:label".

    Raises:
        ArgumentError: Weights that are no square, finite matrix; an unknown normalization.

    Example:
        >>> linear_network([[0.0, 1.0], [1.0, 0.0]]).A
        tensor([[-1.0000,  0.5000],
                [ 0.5000, -1.0000]], dtype=torch.float64)
    """
    rule = Normalization(normalization, c)
    weights, regions = read_network(W)
    A = rule.matrix(weights, spectral_radius(weights) if rule.needs_radius else 0.0)
    return LinearSystem(
        A,
        torch.eye(len(A), dtype=A.dtype, device=A.device),
        step=rule.map_step,
        states=[Quantity("x", "1", labels=regions)],
        inputs=[Quantity("u", "1", labels=regions)],
    )
