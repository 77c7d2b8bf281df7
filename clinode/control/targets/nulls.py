"""Null networks: what a connectome would be if only some of its features were kept.

A null is a function of the weights and a generator. Whether a region is a good target because of
its wiring, or merely because it is strong, or near, is told by asking the same of nulls that keep
its strength, or its distances (Tu et al. 2018, NeuroImage 176:83-91). Weights are oriented as in a
connectome, weights[i, j] from j to i; a symmetric network stays symmetric; the diagonal stays.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from clinode.errors import ArgumentError, SolverError

Null = Callable[[Tensor, torch.Generator], Tensor]

ATTEMPTS_AN_EDGE = 10  # Milo et al. 2003, arXiv cond-mat/0312028: the chain has mixed by then
ATTEMPTS_IN_CLASSES = 200  # within classes of length most exchanges are refused
ROUNDS = 20  # in which weights are dealt out; more change the weights' ranks by under a percent
BALANCED = 1e-10  # largest relative error of a strength
SWEEPS = 100  # of balancing, in which the error must halve: one that can be met falls faster
DRAWS = 200  # of a wiring: in a small network few can carry the strengths of the original


def degree_preserving(
    weights: Tensor, generator: torch.Generator
) -> Tensor:  # shapes by our own words
    """A network with the same degrees and weights, wired anew and the weights dealt out at random.

    Pairs of edges exchange their ends (Maslov & Sneppen 2002, Science 296:910-913), which keeps the
    number of edges into and out of each region, of either sign.

    Args:
        weights: (region, region), finite.
        generator: Of the draws.

    Returns:
        The null's weights, as the original's in shape, dtype and symmetry.

    Raises:
        ArgumentError: Weights that are not square or not finite.

    Example:
        >>> ring = torch.eye(5).roll(1, 0) + torch.eye(5).roll(-1, 0)
        >>> degree_preserving(ring, torch.Generator().manual_seed(0)).sum(0)
        tensor([2., 2., 2., 2., 2.])
    """
    network, draws = _Network(weights), _numpy_generator(generator)
    target, source = network.rewired(draws)
    values = network.values.copy()
    for chosen in (values > 0, values < 0):
        values[chosen] = draws.permutation(values[chosen])
    return network.with_edges(target, source, values)


def strength_preserving(
    weights: Tensor, generator: torch.Generator
) -> Tensor:  # shapes by our own words
    """A network with the same degrees and the same strengths, in and out, wired anew.

    After the exchange of ends, weights are dealt out by rank where the strengths still want them
    (Rubinov & Sporns 2011, NeuroImage 56:2068-2079), then scaled by row and column until every
    strength is that of the original to 1e-10. The scaling moves the weights a little: their
    distribution is kept nearly, not exactly. Of weights of both signs, the degrees and strengths
    of either sign are kept.

    Args:
        weights: (region, region), finite.
        generator: Of the draws.

    Returns:
        The null's weights, as the original's in shape, symmetry and floating dtype; float64 where
        those are whole numbers.

    Raises:
        ArgumentError: Weights that are not square or not finite.
        SolverError: No wiring drawn could carry the strengths.
    """
    scaled, unit = _scaled(weights)
    network, draws = _Network(scaled), _numpy_generator(generator)
    for _ in range(DRAWS):
        target, source = network.rewired(draws)
        values = np.empty_like(network.values)
        found = True
        for sign in (1.0, -1.0):
            chosen = sign * network.values > 0  # a new edge has the sign of the one it comes from
            part = _Part(network, sign, target[chosen], source[chosen])
            balanced = part.balanced(part.dealt(sign * network.values[chosen], draws))
            found = found and balanced is not None
            if balanced is not None:
                values[chosen] = sign * balanced
        if found:
            return network.with_edges(target, source, values) * unit
    raise SolverError(
        f"none of {DRAWS} wirings with these degrees could carry these strengths",
        fix="take degree_preserving, or a null of your own",
    )


def geometry_preserving(distances: Tensor, n_classes: int = 10) -> Null:
    """A null that keeps degrees and how many edges, of which weights, there are at each length.

    Ends are exchanged only where both new edges fall into the classes of length of the two old
    ones, and a weight stays in its class (after Betzel & Bassett 2018, PNAS 115:E4880-E4889).

    Args:
        distances: (region, region), between centers or along tracts; where there is no tract, any
            finite distance will do.
        n_classes: Classes of length, each with as many edges of the original as another.

    Returns:
        The null, a function of (weights, generator).

    Raises:
        ArgumentError: Distances that are not square, not finite or below zero; fewer than one
            class; later, weights of another number of regions.
    """
    if n_classes < 1:
        raise ArgumentError(f"n_classes must be at least 1, got {n_classes}")
    lengths = _square("distances", distances)
    if (lengths < 0).any():
        raise ArgumentError("distances below zero")

    def null(weights: Tensor, generator: torch.Generator) -> Tensor:
        network, draws = _Network(weights), _numpy_generator(generator)
        if lengths.shape != network.matrix.shape:
            raise ArgumentError(
                f"distances of {len(lengths)} regions, weights of {len(network.matrix)}"
            )
        if not network.is_directed and not np.allclose(lengths, lengths.T):
            raise ArgumentError(
                "the weights are symmetric and the distances are not",
                fix="give distances between centers, or the mean of both ways",
            )
        symmetric = lengths if network.is_directed else (lengths + lengths.T) / 2
        of_edges = symmetric[network.target, network.source]
        if not len(of_edges):
            return weights.clone()
        inner = np.quantile(of_edges, np.linspace(0, 1, n_classes + 1)[1:-1])
        classes = np.searchsorted(inner, symmetric)
        target, source = network.rewired(draws, classes)
        values = np.empty_like(network.values)
        before, after = classes[network.target, network.source], classes[target, source]
        kinds = before * 2 + (network.values > 0), after * 2 + (network.values > 0)
        for kind in np.unique(kinds[0]):
            values[kinds[1] == kind] = draws.permutation(network.values[kinds[0] == kind])
        return network.with_edges(target, source, values)

    return null


class _Network:
    """Edges of a weight matrix: of an undirected one, each edge once."""

    def __init__(self, weights: Tensor):
        self.like = weights
        self.matrix = _square("weights", weights)
        self.is_directed = not np.array_equal(self.matrix, self.matrix.T)
        kept = self.matrix if self.is_directed else np.tril(self.matrix)
        self.target, self.source = np.nonzero(kept - np.diag(np.diag(kept)))
        self.values = self.matrix[self.target, self.source]

    def rewired(
        self, draws: np.random.Generator, classes: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Targets and sources after exchanges of ends, within classes of pairs if given.

        Edges exchange ends with those of their own sign. A refused exchange counts as a step: only
        then are all wirings equally likely.
        """
        target, source = self.target.tolist(), self.source.tolist()
        n_edges = len(target)
        if n_edges < 2:
            return self.target, self.source
        taken = self.matrix != 0
        np.fill_diagonal(taken, True)
        taken = taken.tolist()
        signs = np.sign(self.values).tolist()
        kinds = None if classes is None else classes.tolist()
        attempts = ATTEMPTS_AN_EDGE if classes is None else ATTEMPTS_IN_CLASSES
        for first, second, turned in self._proposals(draws, n_edges, attempts * n_edges):
            a, b, c, d = target[first], source[first], target[second], source[second]
            if turned:  # an undirected edge has no beginning
                c, d = d, c
            if taken[a][d] or taken[c][b] or (not self.is_directed and {a, d} == {c, b}):
                continue
            if signs[first] != signs[second]:
                continue
            if kinds is not None:
                old, new = {kinds[a][b], kinds[c][d]}, {kinds[a][d], kinds[c][b]}
                if old != new:
                    continue
            self._mark(taken, (a, b), (c, d), value=False)
            self._mark(taken, (a, d), (c, b), value=True)
            target[first], source[first], target[second], source[second] = a, d, c, b
        return np.array(target), np.array(source)

    def with_edges(self, target: np.ndarray, source: np.ndarray, values: np.ndarray) -> Tensor:
        """The matrix that has these edges and the original's diagonal."""
        made = np.zeros_like(self.matrix)
        made[target, source] = values
        if not self.is_directed:
            made[source, target] = values
        made += np.diag(np.diag(self.matrix))
        return torch.from_numpy(made).to(self.like)

    def _proposals(
        self, draws: np.random.Generator, n_edges: int, n: int
    ) -> Iterable[tuple[int, int, bool]]:
        pairs = draws.integers(n_edges, size=(n, 2))
        turned = np.zeros(n, bool) if self.is_directed else draws.integers(2, size=n).astype(bool)
        return zip(pairs[:, 0].tolist(), pairs[:, 1].tolist(), turned.tolist(), strict=True)

    def _mark(self, taken: list[list[bool]], *edges: tuple[int, int], value: bool) -> None:
        for target, source in edges:
            taken[target][source] = value
            if not self.is_directed:
                taken[source][target] = value


class _Part:
    """New edges of one sign, and the strengths that the original has by weights of that sign."""

    def __init__(self, network: _Network, sign: float, target: np.ndarray, source: np.ndarray):
        wanted = (sign * network.matrix).clip(0)
        np.fill_diagonal(wanted, 0.0)
        self.rows, self.columns = wanted.sum(axis=1), wanted.sum(axis=0)
        self.is_directed = network.is_directed
        self.target, self.source = target, source

    def dealt(self, weights: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        """Weights on the edges, each by its rank among what the strengths still want."""
        rows, columns = self.rows.copy(), self.columns.copy()
        weights, free = np.sort(weights), np.arange(len(weights))
        dealt = np.empty(len(weights))
        for remaining in range(ROUNDS, 0, -1):
            target, source = self.target[free], self.source[free]
            wanted = rows[target].clip(0) * columns[source].clip(0)
            free = free[np.argsort(wanted, kind="stable")]
            chosen = draws.choice(len(free), size=-(-len(free) // remaining), replace=False)
            edges, given = free[chosen], weights[chosen]
            dealt[edges] = given
            np.subtract.at(rows, self.target[edges], given)
            np.subtract.at(columns, self.source[edges], given)
            if not self.is_directed:
                np.subtract.at(rows, self.source[edges], given)
                np.subtract.at(columns, self.target[edges], given)
            weights, free = np.delete(weights, chosen), np.delete(free, chosen)
        return dealt

    def balanced(self, values: np.ndarray) -> np.ndarray | None:
        """Values scaled until rows and columns have their strengths; None where they cannot."""
        made = np.zeros((len(self.rows), len(self.columns)))
        made[self.target, self.source] = values
        if not self.is_directed:
            made[self.source, self.target] = values
        error = last = math.inf
        while True:
            for _ in range(SWEEPS):
                made *= _ratio(self.columns, made.sum(axis=0))
                made *= _ratio(self.rows, made.sum(axis=1))[:, None]
                error = np.abs(made.sum(axis=0) - self.columns).max(initial=0.0)
                if error <= 0.1 * BALANCED * self.columns.max(initial=0.0):
                    if not self.is_directed:
                        made = (made + made.T) / 2
                    return made[self.target, self.source]
            if not error <= last / 2:
                return None
            last = error


def _ratio(wanted: np.ndarray, present: np.ndarray) -> np.ndarray:
    return np.divide(wanted, present, out=np.ones_like(wanted), where=present > 0)


def _scaled(weights: Tensor) -> tuple[Tensor, float]:
    """Floating weights over a power of two, so that no sum of them overflows, and that power."""
    floating = weights if weights.is_floating_point() or weights.is_complex() else weights.double()
    largest = float(floating.detach().abs().max()) if floating.numel() else 0.0
    exponent = math.frexp(largest)[1] - 1 if math.isfinite(largest) else 0
    unit = math.ldexp(1.0, min(max(exponent, -1000), 1000))
    return floating / unit, unit


def _square(name: str, matrix: Tensor) -> np.ndarray:
    given = torch.as_tensor(matrix).detach()
    if given.is_complex():
        raise ArgumentError(f"{name} must be real, got complex ones")
    array = given.to(torch.float64).cpu().numpy().copy()
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ArgumentError(f"{name} must be square, got shape {tuple(array.shape)}")
    if not np.isfinite(array).all():
        raise ArgumentError(f"{name} has entries that are not finite")
    return array


def _numpy_generator(generator: torch.Generator) -> np.random.Generator:
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return np.random.default_rng(int(seed))
