"""Witsenhausen's counterexample: linear, quadratic, Gaussian, and no linear controller is best.

    x0 ~ N(0, sigma^2),   x1 = x0 + u1(x0),   u2 = u2(x1 + v), v ~ N(0, 1)
    minimize  E k^2 u1^2 + (x1 - u2)^2

The second controller does not know what the first knew, so the first signals through x1:
separation fails with the information, not with the dynamics (Witsenhausen 1968, SIAM J. Control
6:131-147). The best second controller is the mean of x1 given its reading, by quadrature. The best
first one is not known; here it is sought among odd step functions with sloped steps (Lee, Lau & Ho
2001, IEEE Trans. Autom. Control 46:382-397), and the answer is the best found, no more.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from clinode.errors import ArgumentError

NODES_PER_STEP = 60
READING_NODES = 60
TAIL = 8.0  # standard deviations counted


@dataclass(frozen=True, eq=False)
class Signaling:
    """A first controller and what it costs, with the best second one.

    Attributes:
        cost: E k^2 u1^2 + (x1 - u2)^2.
        levels: x1 in the middle of each step for positive x0, increasing; it is odd.
        breaks: Where one step for positive x0 ends and the next begins.
        slope: dx1/dx0 on a step.
        linear_cost: Of the best linear controllers.
        verdict: "best found": that nothing is better is not known.
    """

    cost: float
    levels: tuple[float, ...]
    breaks: tuple[float, ...]
    slope: float
    linear_cost: float
    verdict: str = "best found"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "cost": self.cost,
            "levels": list(self.levels),
            "breaks": list(self.breaks),
            "slope": self.slope,
            "linear_cost": self.linear_cost,
            "verdict": self.verdict,
        }


def witsenhausen(k: float = 0.2, sigma: float = 5.0, n_levels: int = 3) -> Signaling:
    """The best step function found, beside the best linear controller.

    Args:
        k: What the first input costs.
        sigma: Standard deviation of the initial state.
        n_levels: Steps for positive x0; as many for negative. One is the sign of x0, signaled.

    Raises:
        ArgumentError: Numbers that are not positive.

    Example:
        >>> round(witsenhausen(n_levels=1).cost, 4) < 0.365
        True
    """
    if not (k > 0 and sigma > 0 and n_levels >= 1):
        raise ArgumentError(f"k, sigma, n_levels must be positive, got {k}, {sigma}, {n_levels}")
    levels, breaks, slope, cost = _improved(k, sigma, np.array([sigma]), np.zeros(0), 0.0)
    for n in range(2, n_levels + 1):  # each with one step more than the last
        wide = levels[-1] - levels[-2] if n > 2 else 2 * levels[0]
        breaks = np.append(breaks, levels[-1] + wide / 2)
        levels = np.append(levels, levels[-1] + wide)
        levels, breaks, slope, cost = _improved(k, sigma, levels, breaks, slope)
    return Signaling(
        cost, tuple(levels.tolist()), tuple(breaks.tolist()), slope, linear_cost(k, sigma)
    )


def _improved(
    k: float, sigma: float, levels: np.ndarray, breaks: np.ndarray, slope: float
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """A local optimum nearby: levels, breaks, slope and cost. Distances keep the order."""
    n = len(levels)

    def parted(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        return np.cumsum(np.abs(z[:n])), np.cumsum(np.abs(z[n:-1])), float(z[-1])

    start = np.concatenate([np.diff(levels, prepend=0.0), np.diff(breaks, prepend=0.0), [slope]])
    options = {"xatol": 1e-6, "fatol": 1e-10, "maxiter": 400 * len(start), "adaptive": True}
    found = minimize(
        lambda z: signaling_cost(k, sigma, *parted(z)), start, method="Nelder-Mead", options=options
    )
    return *parted(found.x), float(found.fun)


def signaling_cost(
    k: float, sigma: float, levels: np.ndarray, breaks: np.ndarray, slope: float = 0.0
) -> float:
    """Cost of a step function as the first controller, with the best second one.

    Args:
        k: What the first input costs.
        sigma: Standard deviation of the initial state.
        levels: x1 in the middle of each step for positive x0, (level).
        breaks: Ends of the steps but the last, (level - 1), increasing.
        slope: dx1/dx0 on a step, about the mean of x0 there.
    """
    edges = np.concatenate([[0.0], breaks, [max(TAIL * sigma, *breaks, 0.0) + sigma]])
    inner, weights = np.polynomial.legendre.leggauss(NODES_PER_STEP)
    half = np.diff(edges)[:, None] / 2
    x0 = edges[:-1, None] + half * (1 + inner)
    mass = half * weights * np.exp(-(x0**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    middle = (mass * x0).sum(1, keepdims=True) / np.maximum(mass.sum(1, keepdims=True), 1e-300)
    x1 = np.asarray(levels)[:, None] + slope * (x0 - middle)
    effort = 2 * k**2 * float((mass * (x1 - x0) ** 2).sum())
    both, masses = np.concatenate([x1.ravel(), -x1.ravel()]), np.concatenate([mass.ravel()] * 2)
    return effort + _unknown(both, masses)


def linear_cost(k: float, sigma: float) -> float:
    """Least cost of linear controllers: x1 = a x0, u2 the regression on the reading."""
    power = sigma**2
    bend = np.polymul([power, 0.0, 1.0], [power, 0.0, 1.0])  # (1 + a^2 sigma^2)^2
    slope = np.polyadd(k**2 * np.polymul([1.0, -1.0], bend), [1.0, 0.0])
    a = np.roots(slope)
    a = a[np.abs(a.imag) < 1e-9].real
    return float((k**2 * (1 - a) ** 2 * power + a**2 * power / (1 + a**2 * power)).min())


def _unknown(x: np.ndarray, mass: np.ndarray) -> float:
    """E (x - E[x | x + v])^2, v standard normal, for x at points of some mass; x is symmetric."""
    top = float(x.max()) + TAIL
    n_panels = max(8, math.ceil(top / 1.5))
    inner, weights = np.polynomial.legendre.leggauss(READING_NODES // 5)
    half = top / n_panels / 2
    y = (2 * half * np.arange(n_panels)[:, None] + half * (1 + inner)).ravel()
    measure = np.tile(half * weights, n_panels)
    density = np.exp(-((y[:, None] - x) ** 2) / 2) / math.sqrt(2 * math.pi)
    total, mean = density @ mass, density @ (mass * x)
    known = mean**2 / np.maximum(total, 1e-300)
    return float((mass * x**2).sum() - 2 * (measure * known).sum())
