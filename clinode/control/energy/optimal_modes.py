"""Optimal transfers in closed form where A is symmetric and every state has an input of its own.

Cost: integral of s |z - r|^2 + rho |v|^2 with B B' = c 1 and a constant reference r. In the
eigenvectors of A each mode is alone: y'' = o^2 y - (s c / rho) r with o^2 = w^2 + s c / rho, so
y = rest + (a sinh o(T - t) + b sinh o t) / sinh o T. Everything is written in exp(-o T), which no
long horizon overflows, and sums of what is never negative.
"""

from dataclasses import dataclass

import numpy as np

from .full_control import symmetric_modes
from .transfers import Array


@dataclass(frozen=True, eq=False)
class ModalPath:
    """Optimal paths of any number of pairs.

    Attributes:
        vectors: (state, mode), eigenvectors of A.
        values: (mode,), eigenvalues w.
        rates: (mode,), o.
        start: (pair, mode), y(0) - rest.
        end: (pair, mode), y(T) - rest.
        rest: (pair, mode), where a mode would stay in a long horizon.
        reference: (pair, mode).
        B: (state, input), with B B' = c 1.
        horizon: T.
    """

    vectors: Array
    values: Array
    rates: Array
    start: Array
    end: Array
    rest: Array
    reference: Array
    B: Array
    horizon: float

    @property
    def gain(self) -> float:
        """c."""
        return float((self.B[0] ** 2).sum())

    def energies(self) -> Array:
        """(pair,), integral of |v|^2 = |y' - w y|^2 / c."""
        a, b, w, T = self.start, self.end, self.values, self.horizon
        drift = w * self.rest
        moved = (b**2 - a**2) * w + 2 * drift * (b - a)
        squares = self._speed() + w**2 * self._square() + drift**2 * T
        whole = squares - moved + 2 * w * drift * self._sum()
        return np.maximum(whole, 0.0).sum(axis=1) / self.gain

    def squared_distances(self) -> Array:
        """(pair,), integral of |z - r|^2."""
        off = self.rest - self.reference
        each = self._square() + 2 * off * self._sum() + off**2 * self.horizon
        return np.maximum(each, 0.0).sum(axis=1)

    def squared_states(self) -> Array:
        """(pair,), integral of |z|^2."""
        each = self._square() + 2 * self.rest * self._sum() + self.rest**2 * self.horizon
        return np.maximum(each, 0.0).sum(axis=1)

    def at(self, times: Array) -> tuple[Array, Array]:
        """Deviations of states and inputs, (pair, time, state) and (pair, time, input)."""
        o, T = self.rates, self.horizon
        t = np.asarray(times, dtype=float)[:, None]
        down, up = _sinh_ratio(o, T - t, T), _sinh_ratio(o, t, T)
        fall, rise = _cosh_ratio(o, T - t, T), _cosh_ratio(o, t, T)
        a, b = self.start[:, None, :], self.end[:, None, :]
        y = self.rest[:, None, :] + a * down + b * up
        effort = b * rise - a * fall - self.values * y
        back = self.B / self.gain  # v = B'(z' - A z) / c
        return y @ self.vectors.T, effort @ self.vectors.T @ back

    def _square(self) -> Array:
        """Integral of (y - rest)^2."""
        a, b = self.start, self.end
        alone, crossed = _squares(self.rates * self.horizon)
        return self.horizon * ((a**2 + b**2) * alone + 2 * a * b * crossed)

    def _speed(self) -> Array:
        """Integral of y'^2: o^2 ((a - b)^2 J2 + (a^2 + b^2)(J1 - J2)), both never negative."""
        a, b = self.start, self.end
        crossed, rest = _speeds(self.rates, self.horizon)
        return (a - b) ** 2 * crossed + (a**2 + b**2) * rest

    def _sum(self) -> Array:
        """Integral of y - rest."""
        x = self.rates * self.horizon / 2
        safe = np.where(x == 0, 1.0, x)
        return (
            (self.start + self.end) * self.horizon / 2 * np.where(x == 0, 1.0, np.tanh(safe) / safe)
        )


def modal_path(
    A: Array,
    B: Array,
    starts: Array,
    ends: Array,
    references: Array,
    horizon: float,
    weight: float,
) -> ModalPath:
    """Optimal paths between deviations (pair, state).

    Args:
        A: Symmetric.
        B: With B B' = c 1.
        starts: z(0).
        ends: z(T).
        references: r.
        horizon: T.
        weight: s / rho.
    """
    values, vectors, _, _ = symmetric_modes(A)
    pull = weight * float((B[0] ** 2).sum())
    rates = np.sqrt(values**2 + pull)
    reference = references @ vectors
    share = np.where(rates == 0, 0.0, pull / np.where(rates == 0, 1.0, rates**2))
    rest = share * reference
    start, end = starts @ vectors - rest, ends @ vectors - rest
    return ModalPath(vectors, values, rates, start, end, rest, reference, B, horizon)


def _sinh_ratio(o: Array, t: Array, T: float) -> Array:
    """sinh(o t) / sinh(o T) for 0 <= t <= T; t / T at o = 0."""
    x = np.maximum(o * T, 1e-150)
    return np.exp(o * (t - T)) * np.expm1(-2 * x * (t / T)) / np.expm1(-2 * x)


def _cosh_ratio(o: Array, t: Array, T: float) -> Array:
    """o cosh(o t) / sinh(o T); 1 / T at o = 0."""
    x = np.maximum(o * T, 1e-150)
    return np.exp(o * (t - T)) * (1 + np.exp(-2 * x * (t / T))) * x / (-np.expm1(-2 * x) * T)


SMALL = 0.2  # below it series in x^2 replace differences of what is nearly equal
ALONE = (1 / 3, -2 / 45, 2 / 315, -4 / 4725, 2 / 18711, -2764 / 212837625, 4 / 2606175)
CROSSED = (
    1 / 6,
    -7 / 180,
    31 / 5040,
    -127 / 151200,
    73 / 684288,
    -1414477 / 108972864000,
    8191 / 5337446400,
)
TOGETHER = (1.0, 0.0, -7 / 360, 31 / 7560, -127 / 201600, 73 / 855360, -1414477 / 130767436800)
APART = (0.0, 0.0, 1 / 24, -1 / 120, 17 / 13440, -31 / 181440, 691 / 31933440)


def _squares(x: Array) -> tuple[Array, Array]:
    """Integrals over [0, 1] of sinh(x t)^2 and sinh(x t) sinh(x (1 - t)), over sinh(x)^2."""
    small, y = x < SMALL, np.where(x < SMALL, 1.0, x)
    coth, csch = 1 / np.tanh(y), 2 * np.exp(-y) / -np.expm1(-2 * y)
    alone, crossed = coth / (2 * y) - csch**2 / 2, coth * csch / 2 - csch / (2 * y)
    z = np.where(small, x, 0.0) ** 2
    alone = np.where(small, _series(z, ALONE), alone)
    return alone, np.where(small, _series(z, CROSSED), crossed)


def _speeds(rates: Array, T: float) -> tuple[Array, Array]:
    """o^2 J2 and o^2 (J1 - J2), integrals of cosh o t cosh o (T - t) and the like; x = o T."""
    x = rates * T
    small, y = x < SMALL, np.where(x < SMALL, 1.0, x)
    coth, csch = 1 / np.tanh(y), 2 * np.exp(-y) / -np.expm1(-2 * y)
    together = y**2 * (coth + 1 / y) * csch / 2
    apart = y**2 * np.tanh(y / 2) * (1 / y - csch) / 2
    z = np.where(small, x, 0.0) ** 2
    together = np.where(small, _series(z, TOGETHER), together)
    return together / T, np.where(small, _series(z, APART), apart) / T


def _series(z: Array, coefficients: tuple[float, ...]) -> Array:
    total = np.zeros_like(z)
    for c in reversed(coefficients):
        total = total * z + c
    return total
