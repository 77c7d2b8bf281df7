"""Average controllability of chosen regions in networks too large for dense matrices.

Undirected networks: the integral of |exp(A t) e_i|^2 is e_i' f(A) e_i, which Lanczos' recurrence
brackets. Directed networks over finite horizons: the series of exp(A t) e_i; maps over some steps:
powers of A. A few thousand regions or less: `average_controllability`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import sparse
from scipy.sparse import linalg
from torch import Tensor

from clinode.errors import ArgumentError, SolverError

from .gramian import (
    REAL,
    check_eigenvalues,
    checked_horizon,
    count_steps,
    expm1_ratio,
    real_numbers,
)
from .lanczos import Part, n_rows, quadrature_bounds
from .lyapunov import check_rates
from .normalization import Network, Normalization, Weights, perron_root

TERMS = 20  # of exp(A h) with |A| h <= 1; the next is 2e-20
MOST_PARTS = 1000  # of the horizon
MOST_STEPS = 10_000  # of a map, one product each
SMALL = 20  # rows, below which eigenvalues are those of the dense matrix
MOST_ERROR = 1e-6  # relative, of what has no bounds but those of rounding
BLOCK_BYTES = 2**28  # vectors kept at a time

SparseWeights = Weights | sparse.sparray | sparse.spmatrix


@dataclass(frozen=True, eq=False)
class NodeEstimates:
    """One number for each chosen region, between bounds.

    Attributes:
        values: (node,), the middle of the bounds.
        low: (node,), lower bound, rounding included.
        high: (node,), upper bound.
        nodes: Positions of the regions.
        regions: Their labels.
        statement: What was computed and how, in words.
    """

    values: Float[Tensor, " node"]
    low: Float[Tensor, " node"]
    high: Float[Tensor, " node"]
    nodes: tuple[int, ...]
    regions: tuple[str, ...]
    statement: str

    def to_pandas(self) -> pd.DataFrame:
        """One row a chosen region: region, value, low, high."""
        columns = {name: getattr(self, name).numpy() for name in ("values", "low", "high")}
        return pd.DataFrame({"region": list(self.regions), **columns}).rename(
            columns={"values": "value"}
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, for JSON."""
        return {
            "nodes": list(self.nodes),
            "regions": list(self.regions),
            "values": self.values.tolist(),
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "statement": self.statement,
        }


def sparse_average_controllability(
    W: SparseWeights,
    nodes: Sequence[int],
    normalization: str = "nctpy",
    horizon: float | int | None = None,
    *,
    c: float = 1.0,
    step: float | int | None = None,
    tolerance: float = 1e-10,
) -> NodeEstimates:
    """`average_controllability` of some regions, from products of a sparse matrix with vectors.

    Args:
        W: Sparse weights (region, region) of SciPy or torch, `W[i, j]` the influence of j on i;
            dense ones and a Connectome are taken too.
        nodes: Positions of regions, from 0.
        normalization: "nctpy", "nctpy discrete" or "none", as in `average_controllability`.
        horizon: T, likewise. Directed networks have finite ones only.
        c: See `average_controllability`.
        step: Likewise.
        tolerance: Largest width of the bounds relative to the value, for undirected networks.

    Raises:
        ArgumentError: Weights that are no square, finite matrix; a position that does not exist; an
            unknown normalization; an infinite horizon where A is not stable, or of a directed
            network.
        SolverError: The bounds do not close to the tolerance; over a finite horizon the value
            overflows, or rounding could change it by 1e-6.

    Example:
        >>> W = sparse.csr_array([[0.0, 1.0], [1.0, 0.0]])
        >>> sparse_average_controllability(W, [0], "nctpy discrete").values
        tensor([1.3333], dtype=torch.float64)
    """
    rule = Normalization(normalization, c, None if step is None else float(step))
    weights, labels = read_sparse(W)
    chosen = _checked_nodes(nodes, n_rows(weights))
    if horizon is None:
        horizon = 1.0 if rule.map_step is None else math.inf
    T = checked_horizon(horizon)
    A, radius = dynamics(weights, rule)
    if rule.map_step is not None and math.isfinite(T):
        n_steps, how = count_steps(T, rule.map_step), "powers of A"
        if n_steps > MOST_STEPS:
            raise ArgumentError(
                f"a horizon of {n_steps:.0e} steps takes as many products",
                fix="math.inf for an undirected network, a shorter one, or "
                "average_controllability of the dense matrix",
            )
        low, high = _with_rounding(lambda a: _by_steps(a, chosen, n_steps), A, n_steps, flow=False)
    elif is_symmetric(weights):
        low, high, n_steps = _by_lanczos(A, chosen, T, rule, radius, tolerance)
        how = f"between Gauss and Radau after {n_steps} steps of Lanczos"
    elif math.isfinite(T):
        parts = _n_parts(A, T)
        low, high = _with_rounding(
            lambda a: _by_series(a, chosen, T, parts), A, TERMS * parts, flow=True
        )
        how = f"series of exp(A t) over {parts} parts of the horizon"
    else:
        raise ArgumentError(
            "a large directed network has no infinite horizon here: nothing bounds the rest",
            fix="give a finite horizon, or ask average_controllability of the dense matrix",
        )
    names = [f"region_{i + 1}" for i in chosen] if labels is None else [labels[i] for i in chosen]
    return NodeEstimates(
        torch.from_numpy((low + high) / 2),
        torch.from_numpy(low),
        torch.from_numpy(high),
        tuple(int(i) for i in chosen),
        tuple(names),
        f"average controllability, {rule.describe(radius)}, horizon {T:g}; {how}",
    )


def sparse_dynamics(
    W: SparseWeights, normalization: str = "nctpy", *, c: float = 1.0
) -> sparse.csr_array:
    """A of x' = A x + u, or of the map x(k + 1) = A x(k) + u(k), as `linear_network` makes it.

    Args:
        W: Sparse weights (region, region) of SciPy or torch.
        normalization: "nctpy", "nctpy discrete" or "none".
        c: See `average_controllability`.

    Raises:
        ArgumentError: Weights that are no square, finite matrix; an unknown normalization.
    """
    return dynamics(read_sparse(W)[0], Normalization(normalization, c))[0]


def read_sparse(W: SparseWeights) -> tuple[sparse.csr_array, tuple[str, ...] | None]:
    """Weights in float64 by rows, and labels where there are some.

    Raises:
        ArgumentError: Not a square matrix of real, finite numbers.
    """
    labels = tuple(W.labels) if isinstance(W, Network) else None
    given: Any = W.weights if isinstance(W, Network) else W
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        if given.layout != torch.strided:
            given = given.to_sparse_coo().coalesce()
            pair = (given.values().numpy(), tuple(given.indices().numpy()))
            given = sparse.coo_array(pair, shape=tuple(given.shape))
        else:
            given = given.numpy()
    if not sparse.issparse(given):
        given = real_numbers(given, "weights").numpy()
    if given.dtype.kind not in REAL:
        raise ArgumentError(f"weights must be real numbers, got {given.dtype}")
    if given.ndim != 2 or given.shape[0] != given.shape[1] or not given.shape[0]:
        raise ArgumentError(f"weights have shape {given.shape}, expected a square matrix")
    made = sparse.csr_array(given, dtype=np.float64)
    if not np.isfinite(made.data).all():
        count = int((~np.isfinite(made.data)).sum())
        raise ArgumentError(f"weights have {count} entries that are not finite")
    return made, labels


def is_symmetric(A: sparse.csr_array) -> bool:
    """Whether every entry is that of the way back, exactly."""
    return (A != A.T).nnz == 0


def dynamics(W: sparse.csr_array, rule: Normalization) -> tuple[sparse.csr_array, float | None]:
    """A and the spectral radius of W, None where that does not enter."""
    if not rule.needs_radius:
        return W, None
    radius = _radius(W)
    A = W / (rule.c + radius)
    if rule.map_step is None:
        A = A - sparse.eye_array(n_rows(W), format="csr")
    return sparse.csr_array(A), radius


def _checked_nodes(nodes: Sequence[int], n: int) -> np.ndarray:
    chosen = np.asarray(nodes)
    if chosen.ndim != 1 or not len(chosen) or not np.issubdtype(chosen.dtype, np.integer):
        raise ArgumentError("nodes is a list of positions, one at least")
    if chosen.min() < 0 or chosen.max() >= n:
        raise ArgumentError(f"nodes are positions from 0 to {n - 1}")
    return chosen


def _by_lanczos(
    A: sparse.csr_array,
    nodes: np.ndarray,
    horizon: float,
    rule: Normalization,
    radius: float | None,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray, int]:
    if radius is None:
        low, high = spectrum_ends(A)
    else:
        ends = rule.apply(torch.tensor([-radius, radius], dtype=torch.float64), radius)
        low, high = ends.tolist()
    if math.isinf(horizon):
        ends = torch.tensor([low, high], dtype=torch.float64)
        check_eigenvalues(ends, ends.abs().max(), is_map=rule.map_step is not None)
        check_rates(ends, horizon, is_map=rule.map_step is not None)
    slack = 1e-13 * max(abs(low), abs(high))
    low, high = low - slack, high + slack

    def spread(rates: np.ndarray) -> np.ndarray:
        return expm1_ratio(2 * torch.from_numpy(rates), horizon).numpy()

    if rule.map_step is None:
        parts = [Part(spread, high)]
    else:  # 1 / (1 - w^2)
        parts = [Part(lambda w: 0.5 / (1 - w), high), Part(lambda w: 0.5 / (1 + w), low)]
    return quadrature_bounds(A, nodes, parts, tolerance=tolerance)


def _by_steps(A: sparse.csr_array, nodes: np.ndarray, n_steps: int) -> np.ndarray:
    """Sum of |A^k e_i|^2 over the steps."""
    columns = _unit_columns(n_rows(A), nodes)
    total = np.ones(len(nodes))
    for _ in range(n_steps - 1):
        columns = A @ columns
        total += np.einsum("ij,ij->j", columns, columns)
    return total


def _by_series(A: sparse.csr_array, nodes: np.ndarray, horizon: float, n_parts: int) -> np.ndarray:
    """Integral of |exp(A t) e_i|^2 by the Taylor series of exp(A t) over parts with |A| h <= 1."""
    h = horizon / n_parts
    points, weight = np.polynomial.legendre.leggauss(TERMS)  # exact for squares of the series
    powers, weight = ((1 + points[:, None]) / 2) ** np.arange(TERMS), h / 2 * weight
    at_once = max(1, BLOCK_BYTES // (16 * TERMS * n_rows(A)))
    total = []
    for start in range(0, len(nodes), at_once):
        columns = _unit_columns(n_rows(A), nodes[start : start + at_once])
        sums = np.zeros(columns.shape[1])
        for _ in range(n_parts):
            terms = [columns]
            for k in range(1, TERMS):
                terms.append(A @ terms[-1] * (h / k))
            stacked = np.stack(terms)
            inside = np.tensordot(powers, stacked, axes=1)
            sums += weight @ np.einsum("kni,kni->ki", inside, inside)
            columns = stacked.sum(0)
        total.append(sums)
    return np.concatenate(total)


def _n_parts(A: sparse.csr_array, horizon: float) -> int:
    size = math.sqrt(float(abs(A).sum(axis=0).max()) * float(abs(A).sum(axis=1).max()))
    n_parts = max(1, math.ceil(size * horizon))
    if n_parts > MOST_PARTS:
        raise ArgumentError(
            f"a horizon of {horizon:g} takes {n_parts} parts of the series",
            fix="a shorter one, or average_controllability of the dense matrix",
        )
    return n_parts


def _with_rounding(
    route: Callable[[sparse.csr_array], np.ndarray],
    A: sparse.csr_array,
    n_products: int,
    *,
    flow: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of what a route finds.

    Rounding travels no faster than it would if no two influences canceled, with |A| in place of A
    (of a flow, but for its diagonal).
    """
    values = route(A)
    diagonal = sparse.diags_array(A.diagonal() if flow else abs(A.diagonal()))
    free = abs(A) - sparse.diags_array(abs(A.diagonal())) + diagonal
    most = values if (A != free).nnz == 0 else route(sparse.csr_array(free))
    if not np.isfinite(values).all():
        raise SolverError(
            "average controllability over this horizon exceeds 1e308", fix="ask for a shorter one"
        )
    width = 4 * n_products * np.finfo(float).eps * most
    if not (width <= MOST_ERROR * values).all():
        raise SolverError(
            "rounding may move average controllability over this horizon by "
            f"{np.max(width / values):.0e} of its size, because influences cancel",
            fix="ask for a shorter horizon",
        )
    return values - width, values + width


def _unit_columns(n: int, nodes: np.ndarray) -> np.ndarray:
    columns = np.zeros((n, len(nodes)))
    columns[nodes, np.arange(len(nodes))] = 1.0
    return columns


def spectrum_ends(A: sparse.csr_array, tolerance: float = 1e-8) -> tuple[float, float]:
    """An interval that holds the eigenvalues of a symmetric A, wider by some tolerance |A|."""
    if n_rows(A) < SMALL:
        eigenvalues = np.linalg.eigvalsh(A.toarray())
        return float(eigenvalues[0]), float(eigenvalues[-1])
    low, vector = _eigenpair(A, "SA", tolerance)
    low -= float(np.linalg.norm(A @ vector - low * vector))
    high, vector = _eigenpair(A, "LA", tolerance)
    return low, high + float(np.linalg.norm(A @ vector - high * vector))


def _eigenpair(A: sparse.csr_array, which: str, tolerance: float) -> tuple[float, np.ndarray]:
    start = np.random.default_rng(0).uniform(0.5, 1.5, n_rows(A))
    tol: Any = tolerance  # SciPy's default is an int, which its annotation was taken from
    try:
        values, vectors = linalg.eigsh(A, k=1, which=which, v0=start, tol=tol)
    except linalg.ArpackNoConvergence as error:
        raise SolverError(
            "the ends of the spectrum were not found in the steps that Lanczos has",
            fix="give the dense matrix",
        ) from error
    return float(values[0]), vectors[:, 0]


def _radius(W: sparse.csr_array) -> float:
    if W.nnz == 0:
        return 0.0
    if W.data.min() >= 0:
        root = perron_root(W)
        if root is not None:
            return root
    if n_rows(W) < SMALL:
        return float(np.abs(np.linalg.eigvals(W.toarray())).max())
    if is_symmetric(W):
        return abs(_eigenpair(W, "LM", 0.0)[0])
    start = np.random.default_rng(0).uniform(0.5, 1.5, n_rows(W))
    try:
        found = linalg.eigs(W, k=1, which="LM", v0=start, return_eigenvectors=False)
    except linalg.ArpackNoConvergence as error:
        raise SolverError("the spectral radius of the weights was not found") from error
    return float(np.abs(found).max())
