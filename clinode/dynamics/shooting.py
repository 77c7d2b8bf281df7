"""Multiple shooting: recordings in segments with states of their own, and Gauss-Newton over all.

The linearized joints eliminate all states but the first of each recording, and an orthogonal
projection eliminates those, so that a step solves for as many unknowns as there are constants.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clinode.errors import ArgumentError, SolverError
from clinode.system import FunctionSignal, Quantity, Signal

from .field import scales
from .sensitivity import Variational
from .simulate import simulate

TIMES_A_SEGMENT = 5
LARGEST_LOG_STEP = 1.0  # of a constant fitted by its logarithm, in one step
GAP_TOLERANCE = 1e-7  # of a state's scale
STEP_TOLERANCE = 1e-9
GAIN_TOLERANCE = 1e-13  # of the sum of squares: a step is then below 1e-6 standard errors


@dataclass(frozen=True, eq=False)
class Unknowns:
    """What is fitted: states (segment, *batch, state), and constants or their logarithms."""

    states: Tensor
    theta: Tensor


@dataclass(frozen=True, eq=False)
class Linearization:
    """Everything at some unknowns that a step and a description need; rows are recordings.

    Attributes:
        residuals: Recording minus output, (segment, *batch, time, output), NaN where unmeasured.
        outputs: Likewise.
        errors: Weighted residuals once the joints close to first order, (row, measurement).
        of_start, of_theta: Derivatives of the weighted outputs, (row, measurement, state), (...,
            constant), along the closed joints.
        projected: of_theta without what the initial states can explain, (measurement, constant).
        projected_errors: errors likewise, (measurement,).
        shift, by_start, by_theta: Of each segment's state: (segment, row, state), (..., state),
            (..., constant).
        gap: Largest open joint as a fraction of the state's scale.
        joints: Sum of all open joints, in scales.
        cost: Half the sum of squares of the weighted residuals as they are.
    """

    residuals: Tensor
    outputs: Tensor
    errors: Tensor
    of_start: Tensor
    of_theta: Tensor
    projected: Tensor
    projected_errors: Tensor
    shift: Tensor
    by_start: Tensor
    by_theta: Tensor
    gap: float
    joints: float
    cost: float


class Shooting:
    """Recordings and the system that is fitted to them.

    Args:
        variational: The system with sensitivities to the constants that are fitted.
        times: (time,) or (*batch, time).
        data: (*batch, time, output); NaN where unmeasured.
        signal: The input.
        known_start: (*batch, state), or None where initial states are fitted.
        n_segments: None for one every five times.
        solver: Arguments of `simulate`.
    """

    def __init__(
        self,
        variational: Variational,
        times: Tensor,
        data: Tensor,
        signal: Signal | FunctionSignal,
        *,
        known_start: Tensor | None,
        n_segments: int | None,
        solver: dict[str, Any],
    ):
        self.variational, self.signal, self.solver = variational, signal, solver
        self.batch, n_times = data.shape[:-2], data.shape[-2]
        self.length, self.n_segments = _segments(n_times, n_segments)
        self.data, self.is_measured = data, ~data.isnan()
        index = torch.arange(n_times)
        self.segment = (index // self.length).clamp(max=self.n_segments - 1)
        self.place = index - self.segment * self.length
        self.times = self._folded_times(times)
        self.scale = torch.tensor(scales(variational.base.states))
        n = variational.n
        if known_start is not None:
            if known_start.shape[-1] != n:
                raise ArgumentError(f"x0 has {known_start.shape[-1]} states, the system has {n}")
            known_start = known_start.expand(*self.batch, n)
        self.known_start = known_start
        self.n_rows = self.batch.numel()
        self.n_measured = int(self.is_measured.sum())
        if self.n_measured <= self.count_unknowns():
            raise ArgumentError(
                f"{self.n_measured} measurements cannot determine {self.count_unknowns()} "
                "constants and initial states",
                fix="give x0 where initial states are known, or fit fewer constants",
            )

    def count_unknowns(self) -> int:
        """Constants, and initial states unless they are known."""
        starts = 0 if self.known_start is not None else self.n_rows * self.variational.n
        return len(self.variational.theta) + starts

    def first_weights(self) -> Tensor:
        """(output,): one over a tenth of how much each output varies."""
        spread = _per_output(self.data, self.is_measured, lambda v: v.std(unbiased=False))
        return 10 / torch.where(spread > 0, spread, 1.0)

    def noise(self, found: Linearization) -> Tensor:
        """(output,): standard deviation of the residuals, for the degrees of freedom left."""
        left = max(self.n_measured - self.count_unknowns(), 1) / self.n_measured
        square = _per_output(self.unfolded(found.residuals), self.is_measured, _mean_square)
        floor = 1e-9 / self.first_weights()  # recordings without noise
        return torch.maximum((square / left).sqrt(), floor)

    def start(self, is_log: Tensor) -> Unknowns:
        """Constants as they are, states from what was measured or else from a simulation."""
        base, theta = self.variational.base, self.variational.theta
        middle = torch.tensor(
            [_middle(q) for q in base.states for _ in q.names], dtype=torch.float64
        )
        first = self.known_start if self.known_start is not None else middle
        first = first.expand(*self.batch, len(middle))
        nodes = self.times[..., 0]
        states = first.expand(self.n_segments, *first.shape).clone()
        if self.n_segments > 1:
            times = nodes.movedim(0, -1)
            path = simulate(base, first, times, self.signal, keep_failed=True, **self.solver)
            simulated = path.states.detach().movedim(-2, 0)
            known = simulated.isfinite().all(-1, keepdim=True)
            states = torch.where(known.expand_as(states), simulated.expand_as(states), states)
        states = self._from_measurements(states)
        if self.known_start is not None:
            states[0] = self.known_start
        logs = torch.where(is_log, theta.clamp(min=1e-300).log(), theta)
        return Unknowns(states, logs)

    def solve(
        self, unknowns: Unknowns, weights: Tensor, is_log: Tensor, max_iterations: int
    ) -> tuple[Unknowns, Linearization, int]:
        """Gauss-Newton with Marquardt's damping, until steps and joints vanish.

        Raises:
            SolverError: No start, or no end within the iterations.
        """
        here = self.linearize(unknowns, weights, is_log)
        if here is None:
            raise SolverError(
                "the system could not be solved where the search starts",
                where=type(self.variational.base).__name__,
                fix="start from other constants, or cut recordings into more segments",
            )
        damping, length, penalty = 1e-3, 1.0, 0.0
        for iteration in range(max(max_iterations, 1)):
            theta_step, start_step = self._step(here, damping, is_log)
            ahead = self._cost_ahead(here, theta_step, start_step)
            if here.joints > 0:
                needed = 2 * max(ahead - here.cost, 0.0) / here.joints
                penalty = max(penalty, needed, 1e-3 * here.cost / max(here.joints, 1e-3))
            size = float((theta_step.abs() / (1 + unknowns.theta.abs())).max())
            is_joined = here.gap <= GAP_TOLERANCE
            is_flat = abs(here.cost - ahead) <= GAIN_TOLERANCE * here.cost
            if is_joined and (is_flat or size <= STEP_TOLERANCE):
                return unknowns, here, iteration
            trial = self._moved(unknowns, here, length, theta_step, start_step)
            there = self.linearize(trial, weights, is_log)
            before = here.cost + penalty * here.joints
            if there is not None and there.cost + penalty * there.joints < before:
                unknowns, here = trial, there
                damping, length = max(damping / 10, 1e-12), min(2 * length, 1.0)
            elif length < 1e-4 or damping > 1e12:
                if is_joined:  # nothing is left to gain but rounding
                    return unknowns, here, iteration
                break
            else:
                damping, length = damping * 10, length / 2
        raise SolverError(
            f"no fit was reached: joints between segments are open by {here.gap:.2g} of the "
            f"states' scale, and half the weighted sum of squares is {here.cost:.6g}",
            where=type(self.variational.base).__name__,
            fix="start from other constants, raise max_iterations, or cut into more segments",
        )

    def linearize(
        self, unknowns: Unknowns, weights: Tensor, is_log: Tensor
    ) -> Linearization | None:
        """Outputs, residuals and all derivatives; None where a trajectory fails."""
        theta = torch.where(is_log, unknowns.theta.exp(), unknowns.theta)
        system = self.variational.with_theta(theta)
        z0 = system.start(unknowns.states)
        path = simulate(system, z0, self.times, self.signal, keep_failed=True, **self.solver)
        z = path.states.detach()
        used = z[self.segment, ..., self.place, :]
        if not bool(used.isfinite().all()):
            return None
        z = torch.nan_to_num(z, posinf=0.0, neginf=0.0)  # beyond the end of a recording
        lead = z.movedim(-2, 0)
        times = self.times.movedim(-1, 0)
        u = self.signal(times).to(lead)
        y, slopes = system.read_out(times, lead, u)
        y = y.expand(*lead.shape[:-1], y.shape[-1])
        slopes = slopes.expand(*lead.shape[:-1], *slopes.shape[-2:])
        to_theta = torch.where(is_log, theta, torch.ones_like(theta))
        x, S = system.parts(z)
        ends = self._joined(x, S, unknowns.states, to_theta)
        return self._condensed(y.movedim(0, -2), slopes.movedim(0, -3), weights, to_theta, ends)

    def unfolded(self, values: Tensor) -> Tensor:
        """(segment, *batch, place, output) as (*batch, time, output)."""
        return values[self.segment, ..., self.place, :].movedim(0, -2)

    # Steps

    def _joined(
        self, x: Tensor, S: Tensor, states: Tensor, to_theta: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """How each segment's state follows from the first, to first order, and the open joints."""
        n, rows = self.variational.n, self.n_rows
        last, move = x[..., -1, :].reshape(-1, rows, n), S[..., -1, :, :].mT
        move = move.reshape(-1, rows, n, self.variational.n_directions)
        first = states.reshape(-1, rows, n)
        shift = [torch.zeros(rows, n, dtype=x.dtype)]
        by_start = [torch.eye(n, dtype=x.dtype).expand(rows, n, n)]
        by_theta = [torch.zeros(rows, n, len(to_theta), dtype=x.dtype)]
        for k in range(self.n_segments - 1):
            along, along_theta = move[k, ..., :n], move[k, ..., n:] * to_theta
            open_joint = last[k] - first[k + 1]
            shift.append(open_joint + (along @ shift[-1].unsqueeze(-1)).squeeze(-1))
            by_start.append(along @ by_start[-1])
            by_theta.append(along @ by_theta[-1] + along_theta)
        gaps = (last[:-1] - first[1:]) / self.scale
        return torch.stack(shift), torch.stack(by_start), torch.stack(by_theta), gaps

    def _condensed(
        self,
        y: Tensor,
        slopes: Tensor,
        weights: Tensor,
        to_theta: Tensor,
        ends: tuple[Tensor, Tensor, Tensor, Tensor],
    ) -> Linearization:
        n, rows = self.variational.n, self.n_rows
        shift, by_start, by_theta, gaps = ends
        outputs = self.unfolded(y)
        residuals = torch.where(self.is_measured, self.data - outputs, 0.0) * weights
        # (*batch, time, direction, output) -> (row, time, output, direction), in weights
        slopes = slopes[self.segment, ..., self.place, :, :].movedim(0, -3).mT
        slopes = torch.where(self.is_measured.unsqueeze(-1), slopes, 0.0) * weights.unsqueeze(-1)
        slopes = slopes.reshape(rows, *slopes.shape[-3:])
        of_state, of_theta = slopes[..., :n], slopes[..., n:] * to_theta
        at = self.segment
        of_start = of_state @ by_start[at].movedim(0, 1)
        of_theta = of_theta + of_state @ by_theta[at].movedim(0, 1)
        closing = (of_state @ shift[at].movedim(0, 1).unsqueeze(-1)).squeeze(-1)
        errors = residuals.reshape(rows, -1) - closing.reshape(rows, -1)
        of_start = of_start.reshape(rows, -1, n)
        if self.known_start is not None:
            of_start = of_start[..., :0]
        of_theta = of_theta.reshape(rows, -1, of_theta.shape[-1])
        projected, left = _without(of_start, of_theta), _without(of_start, errors.unsqueeze(-1))
        folded = torch.full_like(y, torch.nan)
        folded[self.segment, ..., self.place, :] = torch.where(
            self.is_measured, self.data - outputs, torch.nan
        ).movedim(-2, 0)
        return Linearization(
            residuals=folded,
            outputs=y,
            errors=errors,
            of_start=of_start,
            of_theta=of_theta,
            projected=projected.reshape(-1, projected.shape[-1]),
            projected_errors=left.reshape(-1),
            shift=shift,
            by_start=by_start,
            by_theta=by_theta,
            gap=float(gaps.abs().max()) if gaps.numel() else 0.0,
            joints=float(gaps.abs().sum()),
            cost=float(residuals.square().sum()) / 2,
        )

    def _step(self, here: Linearization, damping: float, is_log: Tensor) -> tuple[Tensor, Tensor]:
        """Steps of constants (constant,) and of first states (row, state)."""
        size = here.projected.square().sum(0).sqrt()
        size = torch.where(size > 0, size, 1.0)
        normed = here.projected / size
        U, S, Vh = torch.linalg.svd(normed, full_matrices=False)
        pulled = S / (S.square() + damping) * (U.T @ here.projected_errors)
        theta_step = (Vh.T @ pulled) / size
        longest = float(theta_step[is_log].abs().max()) if bool(is_log.any()) else 0.0
        if longest > LARGEST_LOG_STEP:
            theta_step = theta_step * (LARGEST_LOG_STEP / longest)
        rest = here.errors - here.of_theta @ theta_step
        start_step = _solved(here.of_start, rest)
        return theta_step, start_step

    def _cost_ahead(self, here: Linearization, theta_step: Tensor, start_step: Tensor) -> float:
        """The cost after a full step that also closes the joints, to first order."""
        rest = here.errors - here.of_theta @ theta_step
        rest = rest - (here.of_start @ start_step.unsqueeze(-1)).squeeze(-1)
        return float(rest.square().sum()) / 2

    def _moved(
        self,
        unknowns: Unknowns,
        here: Linearization,
        length: float,
        theta_step: Tensor,
        start_step: Tensor,
    ) -> Unknowns:
        if self.known_start is not None:
            start_step = torch.zeros(self.n_rows, self.variational.n, dtype=theta_step.dtype)
        change = here.shift + (here.by_start @ start_step.unsqueeze(-1)).squeeze(-1)
        change = change + here.by_theta @ theta_step
        states = unknowns.states + length * change.reshape(unknowns.states.shape)
        return Unknowns(states, unknowns.theta + length * theta_step)

    def _from_measurements(self, states: Tensor) -> Tensor:
        """States moved, as little as need be, to read out what was measured nearest in time."""
        n_times, n = self.data.shape[-2], self.variational.n
        places = torch.arange(n_times, dtype=torch.float64)
        begins = torch.arange(self.n_segments, dtype=torch.float64) * self.length
        distance = (places - begins.unsqueeze(-1)).abs()
        far = distance.reshape(-1, *[1] * len(self.batch), n_times, 1)
        far = torch.where(self.is_measured, far, torch.inf)
        nearest = far.argmin(dim=-2, keepdim=True)
        data = self.data.expand(self.n_segments, *self.data.shape)
        wanted = data.gather(-2, nearest).squeeze(-2)
        times = self.times[..., 0]
        u = self.signal(times).to(states)
        for _ in range(2):
            y, slopes = self.variational.read_out(times, self.variational.start(states), u)
            off = torch.nan_to_num((wanted - y) * self.first_weights())
            known = (~wanted.isnan()).to(off).unsqueeze(-1)
            slopes = slopes[..., :n, :].mT * self.first_weights().unsqueeze(-1) * known
            scaled = torch.linalg.pinv(slopes * self.scale, rtol=1e-6) @ off.unsqueeze(-1)
            states = states + scaled.squeeze(-1) * self.scale
        return states

    def _folded_times(self, times: Tensor) -> Tensor:
        """(segment, *batch, place): each segment's times and where the next begins."""
        missing = self.n_segments * self.length + 1 - times.shape[-1]
        pace = (times[..., -1:] - times[..., :1]) / (times.shape[-1] - 1)
        extra = times[..., -1:] + pace * torch.arange(1, missing + 1)
        padded = torch.cat([times, extra], dim=-1).expand(*self.batch, -1)
        pieces = [
            padded[..., k * self.length : (k + 1) * self.length + 1] for k in range(self.n_segments)
        ]
        return torch.stack(pieces)


def _segments(n_times: int, wanted: int | None) -> tuple[int, int]:
    """Intervals a segment, and segments."""
    intervals = n_times - 1
    if wanted is not None and not 1 <= wanted <= intervals:
        raise ArgumentError(f"n_segments must lie in 1..{intervals}, got {wanted}")
    count = wanted or max(1, round(n_times / TIMES_A_SEGMENT))
    length = -(-intervals // count)
    return length, -(-intervals // length)


def _without(of_start: Tensor, values: Tensor) -> Tensor:
    """Values (row, measurement, k) without what lies in the span of of_start's columns."""
    if not of_start.shape[-1]:
        return values
    U, S, _ = torch.linalg.svd(of_start, full_matrices=False)
    seen = (S > 1e-10 * S[..., :1].clamp(min=1e-300)).to(U.dtype)
    basis = U * seen.unsqueeze(-2)
    return values - basis @ (basis.mT @ values)


def _solved(of_start: Tensor, rest: Tensor) -> Tensor:
    """First states (row, state) that explain the rest best."""
    if not of_start.shape[-1]:
        return rest.new_zeros(rest.shape[0], 0)
    return (torch.linalg.pinv(of_start, rtol=1e-10) @ rest.unsqueeze(-1)).squeeze(-1)


def _per_output(
    values: Tensor, is_measured: Tensor, statistic: Callable[[Tensor], Tensor]
) -> Tensor:
    flat, mask = values.reshape(-1, values.shape[-1]), is_measured.reshape(-1, values.shape[-1])
    found = []
    for column, known in zip(flat.T, mask.T, strict=True):
        found.append(statistic(column[known]) if bool(known.any()) else torch.tensor(0.0).double())
    return torch.stack(found)


def _mean_square(values: Tensor) -> Tensor:
    return values.square().mean()


def _middle(quantity: Quantity) -> float:
    if quantity.default is not None:
        return quantity.default
    return sum(quantity.range) / 2 if quantity.range is not None else 0.0
