"""One input of a stimulus over time, in pieces of one sign: its charge, energy and steepness."""

import math

import numpy as np


class Course:
    """One input over time in pieces of one sign: lines are cut where they cross zero."""

    def __init__(self, knots: np.ndarray, values: np.ndarray, hold: str):
        self.knots, self.values, self.hold = knots, values, hold
        start, end = knots[:-1], knots[1:]
        left, right = values[:-1], values[1:] if hold == "linear" else values[:-1]
        crosses = left * right < 0
        share = np.where(crosses, left / np.where(crosses, left - right, 1.0), 1.0)
        middle = start + share * (end - start)
        self.start = np.stack([start, middle], axis=1).ravel()
        self.end = np.stack([middle, end], axis=1).ravel()
        at_middle = np.where(crosses, 0.0, right)
        self.left = np.stack([left, at_middle], axis=1).ravel()
        self.right = np.stack([at_middle, right], axis=1).ravel()
        self.charges = (self.end - self.start) * (self.left + self.right) / 2

    @property
    def energy(self) -> float:
        """Integral of the square."""
        squares = self.left**2 + self.left * self.right + self.right**2
        return float(((self.end - self.start) * squares).sum() / 3)

    @property
    def imbalance(self) -> float:
        """Net charge over all the charge moved; 0 where none is."""
        moved = np.abs(self.charges).sum()
        return float(abs(self.charges.sum()) / moved) if moved else 0.0

    def steepest(self) -> tuple[float, float]:
        """Largest rate of change and its time; infinite at a step or a start beside zero."""
        ends = {0: self.values[0], -1: self.values[-1]}
        for which, value in ends.items():
            if value != 0:
                return math.inf, float(self.knots[which])
        rise, width = np.abs(np.diff(self.values)), np.diff(self.knots)
        if self.hold == "previous":
            rates = np.where(rise > 0, np.inf, 0.0)
        else:
            rates = np.where(rise > 0, rise / np.where(width > 0, width, 1.0), 0.0)
            rates = np.where((width == 0) & (rise > 0), np.inf, rates)
        k = int(rates.argmax()) if len(rates) else 0
        at = self.knots[k + (self.hold == "previous")] if len(rates) else self.knots[0]
        return (float(rates[k]), float(at)) if len(rates) else (0.0, float(at))

    def phases(self) -> list[tuple[float, float, float]]:
        """Begin, end and charge of every phase."""
        moves = self.end > self.start
        sign = np.sign(self.charges)[moves]
        starts, ends, charges = (a[moves] for a in (self.start, self.end, self.charges))
        cuts = np.flatnonzero(np.diff(sign)) + 1
        groups = np.split(np.arange(len(sign)), cuts)
        return [
            (float(starts[g[0]]), float(ends[g[-1]]), float(charges[g].sum()))
            for g in groups
            if len(g) and sign[g[0]] != 0
        ]


def charge_weights(knots: np.ndarray, hold: str) -> np.ndarray:
    """By what each knot's value counts in the integral, (knot,)."""
    widths = np.diff(knots)
    weights = np.zeros(len(knots))
    if hold == "previous":
        weights[:-1] = widths
    else:
        weights[:-1] += widths / 2
        weights[1:] += widths / 2
    return weights


def balanced_by_scaling(values: np.ndarray, knots: np.ndarray, hold: str) -> np.ndarray:
    """Values (knot, input) whose stronger sign is scaled down until the integral is zero.

    Nothing grows, so every other limit that was kept is kept still.
    """
    charge = charge_weights(knots, hold)[:, None] * values
    above, below = charge.clip(min=0).sum(axis=0), -charge.clip(max=0).sum(axis=0)
    least = np.minimum(above, below)
    up, down = (least / np.where(side > 0, side, 1.0) for side in (above, below))
    return np.where(values > 0, values * up, values * down)
