"""The stimuli that a waveform can give within limits, as a least squares problem in coefficients.

`DesignSpace` turns waveform and limits into bounded coordinates whose squared length is the energy;
`effect_of_knots` says what each knot does to a linear system, exactly. Together they answer how
near a target the linear theory comes within the limits: `DesignSpace.nearest`.
"""

import math

import numpy as np
import torch
from jaxtyping import Float

from clinode.control.stimulation.bounded_least_squares import BoundedProblem
from clinode.control.stimulation.course import charge_weights
from clinode.control.stimulation.projection import Bounds
from clinode.control.stimulation.waveforms import Basis
from clinode.errors import ArgumentError
from clinode.system import LinearSystem

RIDGE = 1e-10  # price of energy beside the squared distance, relative to the squared effect


class DesignSpace:
    """Coordinates of the stimuli of a waveform within limits: values at knots = shapes @ c.

    Balance is built in, and |c|^2 is the energy, exact for steps and lines. Where a waveform fixes
    no phases, no stretch of time at all may deliver more than the charge of one phase: that is
    convex, and no phase then does.

    Args:
        basis: What the waveform can give.
        bounds: Of the inputs.

    Raises:
        ArgumentError: Limits that exclude every stimulus of this waveform.
    """

    def __init__(self, basis: Basis, bounds: Bounds):
        if basis.hold == "previous" and np.isfinite(bounds.slew).any():
            raise ArgumentError(
                "the slew limit excludes every stimulus with vertical edges",
                fix="Free(hold='linear'), Sine, or pulses with a ramp",
            )
        self.basis, self.bounds = basis, bounds
        shapes = basis.shapes
        if bounds.balanced:
            shapes = shapes @ _balancing(basis)
        mass = energy_matrix(basis.knots, basis.hold)
        factor = np.linalg.cholesky(shapes.T @ mass @ shapes)
        self.shapes = np.linalg.solve(factor, shapes.T).T
        self.problem = self._problem()

    @property
    def n_coefficients(self) -> int:
        """Coordinates of one input."""
        return self.shapes.shape[1]

    def values(self, c: Float[np.ndarray, "input coefficient"]) -> Float[np.ndarray, "knot input"]:
        """Deviations at the knots."""
        values = self.shapes @ c.T
        return values.clip(min=0.0) if self.bounds.one_sided else values

    def effect(
        self, of_knots: Float[np.ndarray, "target knot input"]
    ) -> Float[np.ndarray, "target input coefficient"]:
        """The effect of each coordinate from that of each knot."""
        return np.einsum("pji,jk->pik", of_knots, self.shapes)

    def nearest(
        self,
        S: Float[np.ndarray, "target input coefficient"],
        wanted: Float[np.ndarray, " target"],
        damping: float = 0.0,
        near: Float[np.ndarray, "input coefficient"] | None = None,
        ridge: float = RIDGE,
    ) -> tuple[Float[np.ndarray, "input coefficient"], float]:
        """Coordinates that bring S c nearest to what is wanted, of those the least energy.

        Args:
            S: From `effect`.
            wanted: Displacement of the targets.
            damping: Price of leaving `near`, relative to the squared effect.
            near: Coordinates to stay near.
            ridge: Price of energy beside the squared distance, relative to the squared effect: by
                default so small that only energies that buy nothing are saved.

        Returns:
            The coordinates, and the price of energy, to which an energy limit adds its own.
        """
        n = S.shape[2]
        strength = float(np.linalg.norm(S)) ** 2
        if not strength:
            return np.zeros(S.shape[1:]), 0.0
        extra = (0, len(self.problem.weights) - n)
        padded = np.pad(S, ((0, 0), (0, 0), extra))
        near = None if near is None else np.pad(near, ((0, 0), extra))
        c, price = self.problem.solve(padded, wanted, ridge * strength, damping * strength, near)
        return self._within(c[:, :n]), price

    def _within(self, c: np.ndarray) -> np.ndarray:
        """Scaled by what rounding left over."""
        rows, allowed = self.problem.rows[:, : c.shape[1]], self.problem.allowed
        own = ~self._is_running
        ratio = (c @ rows[own].T) / np.where(allowed[:, own] > 0, allowed[:, own], np.inf)
        return c / np.maximum(1.0, ratio.max(axis=1, initial=1.0))[:, None]

    def _problem(self) -> BoundedProblem:
        basis, bounds, shapes = self.basis, self.bounds, self.shapes
        n = shapes.shape[1]
        low = np.zeros_like(bounds.amplitude) if bounds.one_sided else bounds.amplitude
        at_knots = _distinct(shapes)
        groups = [(at_knots, bounds.amplitude), (-at_knots, low)]
        widths = np.diff(basis.knots)
        if np.isfinite(bounds.slew).any():
            rises = np.diff(shapes, axis=0)[widths > 0] / widths[widths > 0, None]
            rises = _distinct(rises)
            groups += [(rises, bounds.slew), (-rises, bounds.slew)]
        running = np.zeros((0, n))
        if np.isfinite(bounds.charge).any():
            charges = _charges(basis) @ shapes
            if len(basis.phases):
                sums = np.concatenate([np.zeros((1, n)), charges.cumsum(axis=0)])
                fixed = _distinct(sums[basis.phases[:, 1]] - sums[basis.phases[:, 0]])
                groups += [(fixed, bounds.charge), (-fixed, bounds.charge)]
            else:
                running = np.concatenate([np.zeros((1, n)), charges.cumsum(axis=0)])
                if basis.hold == "linear":
                    # Where a line crosses zero the charge lies beyond that at its knots, by less
                    # than that of half a piece at the value of either.
                    half = widths[:, None] / 2
                    beyond = [running[:-1] + half * shapes[:-1], running[1:] - half * shapes[1:]]
                    running = np.concatenate([running, *beyond])
                groups += [(running, bounds.charge / 2), (-running, bounds.charge / 2)]
        each = [np.repeat(bound[:, None], len(rows), axis=1) for rows, bound in groups]
        allowed = np.concatenate(each, axis=1)
        rows = np.concatenate([rows for rows, _ in groups])
        weights = np.ones(n)
        self._is_running = np.zeros(len(rows), dtype=bool)
        if len(running):
            # One more unknown: the middle of what the running charge may span.
            self._is_running[-2 * len(running) :] = True
            scale = np.abs(running).max()
            middle = np.where(self._is_running, -scale, 0.0)
            middle[-len(running) :] *= -1
            rows = np.concatenate([rows, middle[:, None]], axis=1)
            weights = np.append(weights, 0.0)
        return BoundedProblem(rows, allowed, weights, bounds.energy)


def energy_matrix(knots: np.ndarray, hold: str) -> np.ndarray:
    """M with v' M v the integral of the square of what has values v at the knots."""
    widths, n = np.diff(knots), len(knots)
    left = np.arange(n - 1)
    matrix = np.zeros((n, n))
    if hold == "previous":
        matrix[left, left] = widths
        return matrix
    np.add.at(matrix, (left, left), widths / 3)
    np.add.at(matrix, (left + 1, left + 1), widths / 3)
    np.add.at(matrix, (left, left + 1), widths / 6)
    np.add.at(matrix, (left + 1, left), widths / 6)
    return matrix


def effect_of_knots(
    linear: LinearSystem,
    rows: Float[np.ndarray, "target state"],
    knots: Float[np.ndarray, " knot"],
    hold: str,
    horizon: float,
) -> Float[np.ndarray, "target knot input"]:
    """What each knot's value does to rows @ (x - x0) at the horizon, without error in time.

    Backward over the pieces with the exponential of the matrix that also integrates the input: Van
    Loan 1978, IEEE Trans Autom Control 23:395-404.
    """
    A, B = linear.A.detach().double(), linear.B.detach().double()
    n, m = B.shape
    known: dict[float, tuple[torch.Tensor, ...]] = {}

    def moved(width: float) -> tuple[torch.Tensor, ...]:
        """State transition, effect of a held input, and of one that rises from 0 to 1."""
        key = float(f"{width:.12e}")
        if key not in known:
            whole = torch.zeros(n + 2 * m, n + 2 * m, dtype=torch.float64)
            whole[:n, :n], whole[:n, n : n + m] = A * width, B * width
            whole[n : n + m, n + m :] = torch.eye(m, dtype=torch.float64)
            found = torch.linalg.matrix_exp(whole)[:n]
            known[key] = (found[:, :n], found[:, n : n + m], found[:, n + m :])
        return known[key]

    effect = np.zeros((len(rows), len(knots), m))
    back = torch.tensor(rows)
    if horizon > knots[-1]:
        back = back @ moved(horizon - knots[-1])[0]
    for k in range(len(knots) - 2, -1, -1):
        width = float(knots[k + 1] - knots[k])
        if width > 0:
            through, held, rising = moved(width)
            if hold == "previous":
                effect[:, k] += (back @ held).numpy()
            else:
                effect[:, k] += (back @ (held - rising)).numpy()
                effect[:, k + 1] += (back @ rising).numpy()
            back = back @ through
    return effect


def _balancing(basis: Basis) -> np.ndarray:
    """Orthonormal combinations of the coefficients whose charge is zero."""
    weights = charge_weights(basis.knots, basis.hold)
    charge = weights @ basis.shapes
    moved = weights @ np.abs(basis.shapes)
    if (np.abs(charge) <= 1e-12 * moved).all():
        return np.eye(len(charge))
    if len(charge) == 1:
        raise ArgumentError(
            "the demand for balance excludes every stimulus of this waveform: its one shape "
            "carries a net charge",
            fix="BiphasicPulses, or modulated=True so that pulses of both signs may cancel",
        )
    whole, _ = np.linalg.qr(charge[:, None], mode="complete")
    return whole[:, 1:]


def _charges(basis: Basis) -> np.ndarray:
    """Charge of each piece from the values at the knots, (piece, knot)."""
    widths = np.diff(basis.knots)
    pieces = np.arange(len(widths))
    matrix = np.zeros((len(widths), len(basis.knots)))
    if basis.hold == "previous":
        matrix[pieces, pieces] = widths
    else:
        matrix[pieces, pieces] = matrix[pieces, pieces + 1] = widths / 2
    return matrix


def _distinct(rows: np.ndarray) -> np.ndarray:
    """Rows that are not zero, each once."""
    rows = rows[np.abs(rows).max(axis=1) > 1e-12 * max(float(np.abs(rows).max()), 1e-300)]
    digits = 12 - math.ceil(math.log10(max(float(np.abs(rows).max(initial=0.0)), 1e-300)))
    _, first = np.unique(rows.round(digits), axis=0, return_index=True)
    return rows[np.sort(first)]
