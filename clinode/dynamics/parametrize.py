"""Structural priors on weight matrices, as parametrizations of torch.

`torch.nn.utils.parametrize.register_parametrization(module, "weight", DalesLaw(signs))` makes a
weight that keeps its structure whatever the optimizer does. A prior is a function from
unconstrained numbers onto the matrices that have the structure; where it can be undone,
`right_inverse` says from which numbers a given matrix comes, so that a weight can be assigned. It
refuses a matrix without the structure; `impose` makes one that has it out of any, to start from.

Matrices are (..., target, source): column j is what unit j sends.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from clinode.errors import ArgumentError

SMALLEST = 1e-6  # of a size to start from: softplus reaches 0 at minus infinity only
Matrix = Float[Tensor, "*batch target source"]


class DalesLaw(nn.Module):
    """Every unit excites or inhibits all that it sends to: a column has one sign.

    W = s_j softplus(V_ij), so no weight can change its sign, and 0 where there is no connection.

    Args:
        signs: (source,), +1 for excitatory and -1 for inhibitory units.
        mask: (target, source), whether there is a connection; None: all to all.

    Raises:
        ArgumentError: A sign that is neither.
    """

    signs: Tensor
    mask: Tensor | None

    def __init__(
        self,
        signs: Float[Tensor, " source"],
        mask: Bool[Tensor, "target source"] | None = None,
    ):
        super().__init__()
        if not bool((signs.abs() == 1).all()):
            raise ArgumentError("signs must be +1 (excitatory) or -1 (inhibitory)")
        self.register_buffer("signs", signs.clone())
        self.register_buffer("mask", None if mask is None else mask.clone())

    def forward(self, V: Matrix) -> Matrix:
        """Weights from unconstrained numbers."""
        W = self.signs.to(V) * nn.functional.softplus(V)
        return W if self.mask is None else torch.where(self.mask, W, 0.0)

    def right_inverse(self, W: Matrix) -> Matrix:
        """Numbers that give these weights.

        Raises:
            ArgumentError: A weight of the wrong sign, one that is 0 where there is a connection (no
                number gives it), or one that is not 0 where there is none.
        """
        size = self.signs.to(W) * W
        if self.mask is not None:
            _check_masked(W, self.mask)
            size = torch.where(self.mask, size, math.log(2.0))  # what V = 0 gives
        if not bool((size > 0).all()):
            raise ArgumentError(
                f"{int((size <= 0).sum())} of {W.numel()} weights are 0 or have not the sign of "
                "their source",
                fix="start from impose(weights), and mask those that are to be 0",
            )
        return _inverse_softplus(size)

    def impose(self, W: Matrix) -> Matrix:
        """Weights of these sizes and the right signs, to start from."""
        size = W.detach().abs().clamp(min=SMALLEST)
        signed = self.signs.to(W) * size
        return signed if self.mask is None else torch.where(self.mask, signed, 0.0)


class SparsityMask(nn.Module):
    """Weights are 0 where there is no connection.

    Args:
        mask: (target, source), whether there is one.
    """

    mask: Tensor

    def __init__(self, mask: Bool[Tensor, "target source"]):
        super().__init__()
        self.register_buffer("mask", mask.clone())

    def forward(self, V: Matrix) -> Matrix:
        """Weights from unconstrained numbers; those of no connection get no gradient."""
        return torch.where(self.mask, V, 0.0)

    def right_inverse(self, W: Matrix) -> Matrix:
        """The weights themselves.

        Raises:
            ArgumentError: A weight that is not 0 where there is no connection.
        """
        _check_masked(W, self.mask)
        return W

    def impose(self, W: Matrix) -> Matrix:
        """The weights where there is a connection, to start from."""
        return torch.where(self.mask, W.detach(), 0.0)


class LowRank(nn.Module):
    """Weights of at most a given rank: W = M N', loadings and inputs of `rank` modes.

    Mastrogiuseppe & Ostojic 2018, Neuron 99:609-623. The unconstrained numbers are M and N side by
    side in one matrix (target + source, rank).

    Args:
        n_targets: Rows of W.
        n_sources: Columns of W.
        rank: At most this, at least 1.

    Raises:
        ArgumentError: A rank below 1 or above what the shape allows.
    """

    def __init__(self, n_targets: int, n_sources: int, rank: int):
        super().__init__()
        if not 1 <= rank <= min(n_targets, n_sources):
            raise ArgumentError(
                f"rank must lie in 1..{min(n_targets, n_sources)} for weights "
                f"({n_targets}, {n_sources}), got {rank}"
            )
        self.n_targets, self.n_sources, self.rank = n_targets, n_sources, rank

    def forward(self, V: Float[Tensor, "*batch row rank"]) -> Matrix:
        """Weights from loadings and inputs."""
        M, N = V.split([self.n_targets, self.n_sources], dim=-2)
        return M @ N.mT

    def right_inverse(self, W: Matrix) -> Float[Tensor, "*batch row rank"]:
        """Loadings and inputs of the nearest weights of this rank (Eckart & Young 1936)."""
        U, S, Vh = torch.linalg.svd(W, full_matrices=False)
        root = S[..., : self.rank].sqrt()
        M = U[..., : self.rank] * root.unsqueeze(-2)
        N = Vh[..., : self.rank, :].mT * root.unsqueeze(-2)
        return torch.cat([M, N], dim=-2)


class Stable(nn.Module):
    """Matrices A of x' = A x whose modes all decay: every eigenvalue has Re < -margin.

    A = (S - R R' / 2 - eps) P^-1 - margin, with S skew and P = L L' positive: then A + margin
    satisfies the Lyapunov equation with P, so its spectrum lies in the open left half plane, and
    every matrix with such a spectrum is reached. The unconstrained numbers are S, R and L in one
    matrix (3 n, n).

    Args:
        n: States.
        margin: In 1 / time unit, not negative.

    Raises:
        ArgumentError: A negative margin, or no state.
    """

    FLOOR = 1e-6  # keeps R R' and L L' positive where R or L lose rank

    def __init__(self, n: int, margin: float = 0.0):
        super().__init__()
        if n < 1 or not (margin >= 0 and math.isfinite(margin)):
            raise ArgumentError(f"needs states and a margin of at least 0, got {n} and {margin}")
        self.n, self.margin = n, margin

    def forward(self, V: Float[Tensor, "*batch row state"]) -> Matrix:
        """A stable matrix from unconstrained numbers."""
        S, R, L = V.split(self.n, dim=-2)
        eye = torch.eye(self.n, dtype=V.dtype, device=V.device)
        Q = R @ R.mT + self.FLOOR * eye
        P = L @ L.mT + self.FLOOR * eye
        drift = S - S.mT - Q / 2
        return torch.linalg.solve(P, drift.mT).mT - self.margin * eye

    def right_inverse(self, A: Matrix) -> Float[Tensor, "*batch row state"]:
        """Numbers that give this matrix, from its Lyapunov equation A P + P A' = -1.

        Raises:
            ArgumentError: A matrix with an eigenvalue of Re >= -margin.
        """
        eye = torch.eye(self.n, dtype=A.dtype, device=A.device)
        shifted = A + self.margin * eye
        abscissa = torch.linalg.eigvals(shifted.detach()).real.amax()
        if not bool(abscissa < 0):
            raise ArgumentError(
                f"the matrix has an eigenvalue of real part {float(abscissa) - self.margin:.6g}, "
                f"not below -{self.margin:g}"
            )
        P = _lyapunov(shifted, eye)
        # The floors are taken off P and Q; a scale keeps both above them.
        scale = 1 + 2 * self.FLOOR / min(float(torch.linalg.eigvalsh(P.detach()).amin()), 1.0)
        P = P * scale
        L = torch.linalg.cholesky(P - self.FLOOR * eye)
        R = math.sqrt(scale - self.FLOOR) * eye.expand_as(A)
        S = shifted @ P + scale * eye / 2
        return torch.cat([(S - S.mT) / 4, R, L], dim=-2)


class ConductanceForm(nn.Module):
    """Input as a driving force: unit i receives sum_j g_ij s_j (E_j - V_i), with all g >= 0.

    A parametrization of the conductances g = softplus(V), whose unit is `unit_conductance`; the
    reversal potentials E belong to the source, so that the sign of an effect is that of E_j - V_i,
    and inputs saturate at E, as no current-based weight does.

    Args:
        reversal: (source,), reversal potentials, in the unit of V.
        unit_conductance: What softplus(V) = 1 stands for, positive.

    Raises:
        ArgumentError: A unit conductance that is not positive.
    """

    reversal: Tensor

    def __init__(self, reversal: Float[Tensor, " source"], unit_conductance: float = 1.0):
        super().__init__()
        if not unit_conductance > 0:
            raise ArgumentError(f"unit_conductance must be positive, got {unit_conductance}")
        self.register_buffer("reversal", reversal.clone())
        self.unit_conductance = unit_conductance

    def forward(self, V: Matrix) -> Matrix:
        """Conductances from unconstrained numbers."""
        return self.unit_conductance * nn.functional.softplus(V)

    def right_inverse(self, g: Matrix) -> Matrix:
        """Numbers that give these conductances.

        Raises:
            ArgumentError: A conductance that is not positive.
        """
        if not bool((g > 0).all()):
            raise ArgumentError("conductances must be positive", fix="mask those that are to be 0")
        return _inverse_softplus(g / self.unit_conductance)

    def impose(self, g: Matrix) -> Matrix:
        """Conductances of these sizes, to start from."""
        return g.detach().abs().clamp(min=SMALLEST)

    def current(
        self, g: Matrix, s: Float[Tensor, "... source"], V: Float[Tensor, "... target"]
    ) -> Float[Tensor, "... target"]:
        """What flows into each target, sum_j g_ij s_j (E_j - V_i).

        Args:
            g: Conductances, (target, source).
            s: Open fractions of the sources.
            V: Potentials of the targets.
        """
        driven = (s * self.reversal.to(s)).unsqueeze(-1)
        open_conductance = (g @ s.unsqueeze(-1)).squeeze(-1)
        return (g @ driven).squeeze(-1) - open_conductance * V


def _check_masked(W: Tensor, mask: Tensor) -> None:
    outside = int(((W != 0) & ~mask).sum())
    if outside:
        raise ArgumentError(
            f"{outside} weights are not 0 where the mask has no connection",
            fix="start from impose(weights)",
        )


def _inverse_softplus(y: Tensor) -> Tensor:
    """log(exp(y) - 1) without overflow."""
    return y + torch.log(-torch.expm1(-y))


def _lyapunov(A: Tensor, Q: Tensor) -> Tensor:
    """P of A P + P A' = -Q, by its Kronecker form."""
    n = A.shape[-1]
    eye = torch.eye(n, dtype=A.dtype, device=A.device)
    # For row-stacked P: (A P + P A')_ij = sum_kl (A_ik d_jl + d_ik A_jl) P_kl
    left = torch.einsum("...ik,jl->...ijkl", A, eye)
    right = torch.einsum("ik,...jl->...ijkl", eye, A)
    system = (left + right).reshape(*A.shape[:-2], n * n, n * n)
    flat = -Q.expand_as(A).reshape(*A.shape[:-2], n * n, 1)
    P = torch.linalg.solve(system, flat).reshape_as(A)
    return (P + P.mT) / 2
