"""Least squares within linear bounds and an energy, by an interior point method.

    minimize |S c - d|^2 + ridge |c|^2 + damping |c - near|^2
    over c with R c_i <= r_i for every input i, |c|^2 <= energy

Every input has the same rows R, so the Newton matrix is a small block an input plus the low rank of
S: many inputs cost what they must. Mehrotra's predictor and corrector (Mehrotra 1992, SIAM J Optim
2:575-601); the energy by its multiplier, which adds to the ridge.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from clinode.errors import SolverError

ITERATIONS = 80
PRECISE = 1e-13  # scaled residuals and complementarity at which the method stops
TINY = 1e-15  # of the largest entry of a matrix, added to its diagonal
PATIENCE = 8  # iterations without gain, at the end of what rounding allows
GOOD = 1e-8  # of both, what is taken where rounding allows no more
Block = Float[np.ndarray, "input coefficient"]


@dataclass(frozen=True, eq=False)
class BoundedProblem:
    """The bounds, which many least squares share.

    Attributes:
        rows: R, (row, coefficient).
        allowed: r, (input, row); infinite where there is no bound.
        weights: Of each coefficient in |c|^2, (coefficient,): 1, or 0 for one that costs nothing.
        energy: Largest weighted |c|^2; infinite for none.
    """

    rows: Float[np.ndarray, "row coefficient"]
    allowed: Float[np.ndarray, "input row"]
    weights: Float[np.ndarray, " coefficient"]
    energy: float

    def solve(
        self,
        S: Float[np.ndarray, "target input coefficient"],
        d: Float[np.ndarray, " target"],
        ridge: float,
        damping: float = 0.0,
        near: Block | None = None,
    ) -> tuple[Block, float]:
        """The best coefficients, and the ridge with the multiplier of the energy in it.

        Args:
            S: What each coefficient does to each target.
            d: What is wanted.
            ridge: Price of |c|^2, positive.
            damping: Price of leaving `near`.
            near: Where to stay near; zero by default.

        Raises:
            SolverError: The interior point method did not arrive.
        """
        pull = np.zeros(S.shape[1:]) if near is None else damping * near

        def within(price: float) -> Block:
            return self._within(S, d, price + damping, pull)

        found = within(ridge)
        if self._energy(found) <= self.energy:
            return found, ridge

        def excess(power: float) -> float:
            return math.log(self._energy(within(10**power)) / self.energy)

        low = high = math.log10(ridge)
        while excess(high) > 0:
            low, high = high, high + 2
        root: Any = brentq(excess, low, high, xtol=1e-4)
        price = 10 ** float(root)
        found = within(price)
        return found * min(1.0, math.sqrt(self.energy / self._energy(found))), price

    def _energy(self, c: Block) -> float:
        return float((self.weights * c**2).sum()) + 1e-300

    def _within(self, S: np.ndarray, d: np.ndarray, price: float, pull: Block) -> Block:
        """Least |S c - d|^2 + price |c|^2 - 2 pull . c within the rows, in scaled units.

        c of the size of the bounds, S c of that of d.
        """
        bounded = np.isfinite(self.allowed)
        reach = self.allowed / (np.linalg.norm(self.rows, axis=1) + 1e-300)
        sizes = reach[bounded & (reach > 0)]
        size = float(np.median(sizes)) if len(sizes) else 1.0
        effect = max(float(np.linalg.norm(S)) * size, float(np.linalg.norm(d)), 1e-300)
        newton = _Newton(S * (size / effect), price * (size / effect) ** 2 * self.weights)
        wanted = np.tensordot(d / effect, newton.S, 1) + pull * (size / effect**2)
        if not bounded.any():
            return size * newton.solved(wanted, np.zeros((*wanted.shape, wanted.shape[1])))
        scaled = np.where(bounded, self.allowed / size, 1.0)
        return size * _interior_point(newton, wanted, self.rows, scaled, bounded)


class _Newton:
    """Solves (blocks + ridge + S'S) x = b, the blocks (input, coefficient, coefficient)."""

    def __init__(self, S: np.ndarray, ridge: np.ndarray):
        self.S = S
        floor = 1e-6 * ridge.max()  # of a coefficient that costs nothing
        self.ridge = np.diag(np.maximum(ridge, floor))

    def solved(self, b: np.ndarray, blocks: np.ndarray) -> np.ndarray:
        """One solution with one step of refinement."""
        S, p = self.S, len(self.S)
        matrix = blocks + self.ridge
        right = np.concatenate([b[:, None], S.transpose(1, 0, 2)], axis=1).transpose(0, 2, 1)
        # Active bounds outweigh the ridge beyond all digits; the refinement takes this out again.
        size = TINY * np.abs(matrix).max(axis=(1, 2), keepdims=True)
        sturdy = matrix + size * np.eye(matrix.shape[1])
        inverse = np.linalg.solve(sturdy, right)
        over, through = inverse[:, :, 0], inverse[:, :, 1:]
        capacity = np.eye(p) + np.einsum("pik,ikq->pq", S, through)

        def corrected(over: np.ndarray) -> np.ndarray:
            effect = np.tensordot(S, over, 2)
            return over - through @ np.linalg.solve(capacity, effect)

        x = corrected(over)
        left = b - self.applied(x, matrix)
        return x + corrected(np.linalg.solve(sturdy, left[:, :, None])[:, :, 0])

    def applied(self, x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """(matrix + S'S) x."""
        low_rank = np.tensordot(np.tensordot(self.S, x, 2), self.S, 1)
        return (matrix @ x[:, :, None])[:, :, 0] + low_rank


def _interior_point(
    newton: _Newton, wanted: Block, R: np.ndarray, allowed: np.ndarray, bounded: np.ndarray
) -> Block:
    """The solution of the scaled problem."""
    point = _Point(newton, wanted, R, allowed, bounded)
    best, score, idle = point.c, math.inf, 0
    for _ in range(ITERATIONS):
        off = max(point.residual, point.gap)
        best, score, idle = (point.c, off, 0) if off < score else (best, score, idle + 1)
        if score < PRECISE or idle > PATIENCE:
            break
        point.advance()
    if score < GOOD:
        return best
    raise SolverError(
        f"the design within the limits did not settle: it is off by {score:.2g}, relative",
        fix="fewer targets or pieces, or a longer horizon",
    )


class _Point:
    """Where the method is: c, and the slack and price of every bound, both positive."""

    def __init__(
        self,
        newton: _Newton,
        wanted: Block,
        R: np.ndarray,
        allowed: np.ndarray,
        bounded: np.ndarray,
    ):
        self.newton, self.wanted = newton, wanted
        self.R, self.allowed, self.bounded = R, allowed, bounded
        n_inputs, n = newton.S.shape[1:]
        self.ridge = np.broadcast_to(newton.ridge, (n_inputs, n, n))
        self.c = np.zeros((n_inputs, n))
        self.slack = np.where(bounded, np.maximum(allowed, 1.0), 1.0)
        self.price = np.where(bounded, 1.0, 0.0)
        self._look()

    def advance(self) -> None:
        """One predictor and corrector, both with the Newton matrix of this point."""
        ratio = self.price / self.slack
        blocks = (self.R.T * ratio[:, None, :]) @ self.R
        product = self.slack * self.price
        _, on_slack, on_price = self._direction(product, ratio, blocks)
        length = min(_longest(self.slack, on_slack), _longest(self.price, on_price))
        ahead = (self.slack + length * on_slack) * (self.price + length * on_price)
        center = (self._mean(ahead) / self.gap) ** 3 * self.gap
        product = product + on_slack * on_price - center
        move, on_slack, on_price = self._direction(product, ratio, blocks)
        # One length for all: the objective ties the prices to c.
        length = 0.995 * min(_longest(self.slack, on_slack), _longest(self.price, on_price))
        self.c = self.c + length * move
        self.slack = self.slack + length * on_slack
        self.price = self.price + length * on_price
        self._look()

    def _look(self) -> None:
        self.dual = self.newton.applied(self.c, self.ridge) - self.wanted + self.price @ self.R
        primal = self.c @ self.R.T + self.slack - self.allowed
        self.primal = np.where(self.bounded, primal, 0.0)
        self.gap = self._mean(self.slack * self.price)
        self.residual = max(float(np.abs(self.dual).max()), float(np.abs(self.primal).max()))

    def _mean(self, products: np.ndarray) -> float:
        return float(products[self.bounded].mean())

    def _direction(
        self, product: np.ndarray, ratio: np.ndarray, blocks: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The Newton step that takes slack x price down by `product`."""
        shift = np.where(self.bounded, ratio * self.primal - product / self.slack, 0.0)
        move = self.newton.solved(-self.dual - shift @ self.R, blocks)
        on_slack = np.where(self.bounded, -self.primal - move @ self.R.T, 0.0)
        on_price = -(product + self.price * on_slack) / self.slack
        return move, on_slack, np.where(self.bounded, on_price, 0.0)


def _longest(values: np.ndarray, change: np.ndarray) -> float:
    """How far along the change all values stay positive, at most 1 / 0.995."""
    falls = change < 0
    if not falls.any():
        return 1 / 0.995
    return float(min(1 / 0.995, (-values[falls] / change[falls]).min()))
