"""Gramians of all regions of an undirected network, each driven alone, over an infinite horizon.

They are so near singular that no inverse in double precision has a right digit from a dozen regions
on; but in the eigenvectors V of A = V diag(-x) V' each is D C D with D = diag(v_i1, ..., v_in) and
C_jk = 1 / (x_j + x_k), a Cauchy matrix, whose inverse and determinant are products. Everything here
is logarithms of those. Directed networks, several inputs or finite horizons: see the energies of
`clinode.control`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.sparse import csgraph
from torch import Tensor

from clinode.errors import ArgumentError

from .exact_dimension import reaches_all
from .gramian import check_eigenvalues
from .lyapunov import EIGENVALUE_ERROR
from .normalization import Normalization, Weights, read_network

MOST_EXACT = 600  # regions, ten seconds; their cube


@dataclass(frozen=True, eq=False)
class SingleNodeGramians:
    """What it takes to steer the whole network from each region.

    A region's share v_ik in mode k is known to rounding / gap, the distance to the next eigenvalue
    (Davis & Kahan 1970), and an eigenvalue to rounding, 16 eps |A|. A mode whose share may
    thus be 0, or whose eigenvalue may repeat, is in doubt. Without doubts the energy is "finite"
    and known to `error`. Doubts are settled in exact arithmetic: either the region misses modes,
    which are among those in doubt, and the energy is "infinite"; or it is finite but known no
    better than `log10_at_least`, "undecided". Networks too large for that stay undecided too.

    Attributes:
        regions: Labels.
        log10_trace_inverse: (region,): log10 trace W_i^-1, the mean energy to targets drawn from
            the unit sphere, times n; inf where infinite, NaN where undecided.
        log_det: (region,): natural logarithm of det W_i; -inf and NaN likewise.
        error: (region,): estimate of the error of the first, to first order in the rounding of the
            eigenvalues and eigenvectors; NaN where the value is not finite.
        log10_at_least: (region,): a lower bound of the first.
        verdicts: "finite", "infinite" or "undecided", one a region.
        eigenvalues: (mode,), of A, ascending.
        doubts: For each region the positions of modes in doubt.
        statement: What was computed, in words.
    """

    regions: tuple[str, ...]
    log10_trace_inverse: Float[Tensor, " region"]
    log_det: Float[Tensor, " region"]
    error: Float[Tensor, " region"]
    log10_at_least: Float[Tensor, " region"]
    verdicts: tuple[str, ...]
    eigenvalues: Float[Tensor, " mode"]
    doubts: tuple[tuple[int, ...], ...]
    statement: str

    def to_pandas(self) -> pd.DataFrame:
        """One row a region: region, log10_trace_inverse, log_det, error, verdict, doubts."""
        return pd.DataFrame(
            {
                "region": list(self.regions),
                "log10_trace_inverse": self.log10_trace_inverse.numpy(),
                "log_det": self.log_det.numpy(),
                "error": self.error.numpy(),
                "verdict": list(self.verdicts),
                "doubts": [len(modes) for modes in self.doubts],
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON; None where a number is not finite."""
        names = ("log10_trace_inverse", "log_det", "error", "log10_at_least")
        lists = {name: getattr(self, name).tolist() for name in names}
        numbers = {
            name: [value if math.isfinite(value) else None for value in values]
            for name, values in lists.items()
        }
        return {
            "regions": list(self.regions),
            **numbers,
            "verdicts": list(self.verdicts),
            "eigenvalues": self.eigenvalues.tolist(),
            "doubts": [list(modes) for modes in self.doubts],
            "statement": self.statement,
        }


def single_node_gramians(
    W: Weights, normalization: str = "nctpy", *, c: float = 1.0, step: float | int | None = None
) -> SingleNodeGramians:
    """log10 trace W_i^-1 and log det W_i of every region i of an undirected network at once.

    Args:
        W: Weights (region, region), symmetric, or a Connectome.
        normalization: "nctpy", "nctpy discrete" or "none", as in `average_controllability`.
        c: See there.
        step: Time between two states of the map that "none" stands for.

    Raises:
        ArgumentError: Weights that are not symmetric, square and finite; an unknown normalization;
            an A that is not stable.

    Example:
        >>> path = torch.diag(torch.ones(2), 1) + torch.diag(torch.ones(2), -1)
        >>> found = single_node_gramians(path)
        >>> found.verdicts
        ('finite', 'infinite', 'finite')
        >>> f"{found.log10_trace_inverse[0]:.6f}"
        '3.090237'
    """
    rule = Normalization(normalization, c, None if step is None else float(step))
    weights, regions = read_network(W)
    if not torch.equal(weights, weights.mT):
        raise ArgumentError(
            "the Gramians of single regions are in closed form for undirected networks only, and "
            "these weights are not symmetric",
            fix="ask controllability or control_energy of a LinearSystem with one input",
        )
    weights = weights.detach()
    eigenvalues, vectors = torch.linalg.eigh(weights)
    radius = eigenvalues.abs().amax() if rule.needs_radius else None
    rates = rule.apply(eigenvalues, 0.0 if radius is None else radius)
    check_eigenvalues(rates, rates.abs().amax(), is_map=rule.map_step is not None)
    modes = _Modes(rates, vectors, is_map=rule.map_step is not None)
    return modes.report(weights, regions, rule.describe(None if radius is None else float(radius)))


class _Modes:
    """Logarithms of the Cauchy matrix in the eigenvectors, and how well they are known."""

    def __init__(self, rates: Tensor, vectors: Tensor, *, is_map: bool):
        self.rates = rates  # ascending
        self.is_map = is_map
        self.rounding = EIGENVALUE_ERROR * torch.finfo(torch.float64).eps * float(rates.abs().max())
        gaps = torch.nn.functional.pad(rates.diff(), (1, 1), value=math.inf)
        nearest = torch.minimum(gaps[1:], gaps[:-1])
        self.shares = vectors.abs()
        self.share_error = self.rounding / nearest
        self.in_doubt = (self.shares <= self.share_error) | (nearest <= 2 * self.rounding)

    def sums(self) -> Tensor:
        """x_j + x_k; of a map, whose W_i is the sum of A^k e_i e_i' A^k, 1 - w_j w_k."""
        if self.is_map:
            return 1 - self.rates[:, None] * self.rates
        return -(self.rates[:, None] + self.rates)

    def gaps(self) -> Tensor:
        """|x_j - x_k|, without an end on the diagonal."""
        return (self.rates[:, None] - self.rates).abs_().fill_diagonal_(math.inf)

    def log_terms(self, *, widen: float = 0.0) -> tuple[Tensor, Tensor]:
        """log of (C^-1)_kk / v_ik^2, (region, mode), and log det W_i, (region,).

        Widened, the first is a lower bound: with sums as small, gaps and shares as large as
        rounding may have left them.
        """
        sums, shares = self.sums(), self.shares
        if widen:
            sums = (sums - 2 * widen).clamp(min=torch.finfo(torch.float64).tiny)
            shares = (shares + self.share_error).clamp(max=1.0)
        own = sums.diagonal().log()
        ratio = sums.div_(self.gaps().add_(2 * widen)).log_().fill_diagonal_(0.0).sum(0)
        terms = shares.log()
        log_det = 2 * terms.sum(1) - (ratio + own).sum()
        return terms.neg_().add_(ratio + own / 2).mul_(2), log_det

    def error(self, weight: Tensor) -> Tensor:
        """Of the natural logarithm of a sum of terms, (region,), whose exponentials are weight."""
        spread = self.sums().reciprocal_().add_(self.gaps().reciprocal_()).sum(0)
        moved = weight @ (4 * self.rounding * spread)
        return moved + 2 * (weight / self.shares) @ self.share_error

    def report(self, W: Tensor, regions: tuple[str, ...], dynamics: str) -> SingleNodeGramians:
        terms, log_det = self.log_terms()
        most = terms.amax(1)
        weight = terms.sub_(most[:, None]).exp_()
        total = weight.sum(1)
        value = (most + total.log()) / math.log(10)
        error = self.error(weight) / total / math.log(10)
        verdicts = self._verdicts(W)
        least = value - error
        infinite = torch.tensor([one == "infinite" for one in verdicts], device=W.device)
        undecided = torch.tensor([one == "undecided" for one in verdicts], device=W.device)
        if undecided.any():
            low = torch.logsumexp(self.log_terms(widen=self.rounding)[0], 1) / math.log(10)
            least = torch.where(undecided, low, least)
        open_ = torch.where(undecided, math.nan, math.inf)
        decided = ~(infinite | undecided)
        doubts = [()] * len(W)
        for row in self.in_doubt.any(1).nonzero().flatten().tolist():
            doubts[row] = tuple(self.in_doubt[row].nonzero().flatten().tolist())
        return SingleNodeGramians(
            regions=regions,
            log10_trace_inverse=torch.where(decided, value, open_).cpu(),
            log_det=torch.where(decided, log_det, -open_).cpu(),
            error=torch.where(decided, error, math.nan).cpu(),
            log10_at_least=torch.where(infinite, math.inf, least).cpu(),
            verdicts=verdicts,
            eigenvalues=self.rates.cpu(),
            doubts=tuple(doubts),
            statement=f"Gramian of each region alone, infinite horizon, {dynamics}",
        )

    def _verdicts(self, W: Tensor) -> tuple[str, ...]:
        doubtful = self.in_doubt.any(1).cpu().numpy()
        if not doubtful.any():
            return ("finite",) * len(W)
        weights = W.cpu().numpy()
        if csgraph.connected_components(weights != 0, directed=False)[0] > 1:
            return ("infinite",) * len(W)
        verdicts = np.where(doubtful, "undecided", "finite").astype(object)
        if len(W) <= MOST_EXACT:
            nodes = np.flatnonzero(doubtful)
            verdicts[nodes[~reaches_all(weights, nodes)]] = "infinite"
        return tuple(verdicts.tolist())
