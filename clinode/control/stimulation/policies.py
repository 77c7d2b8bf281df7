"""Rules of closed-loop stimulation: from what was measured so far to the next amplitudes.

A policy is any function of a `Measurement` that gives a number or one amplitude a stimulating
input. `adaptive_stimulation` asks it once an interval and keeps its answers within the limits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.control.stimulation.bounded_least_squares import BoundedProblem
from clinode.control.stimulation.limits import StimulusLimits
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Values
from clinode.system.quantity import nearest


@dataclass(frozen=True, eq=False)
class Measurement:
    """All that is known when a decision is due.

    Attributes:
        times: Of the samples so far, (sample,), the last one now.
        outputs: (sample, output), of the system.
        names: Flat names of the outputs.
        amplitudes: Applied in the intervals so far, (interval, input).
        interval: Time between two decisions.
    """

    times: Float[Tensor, " sample"]
    outputs: Float[Tensor, "sample output"]
    names: tuple[str, ...]
    amplitudes: Float[Tensor, "interval input"]
    interval: float

    def of(self, name: str, window: float = math.inf) -> Float[Tensor, " sample"]:
        """An output over the last stretch of time.

        Raises:
            ArgumentError: An unknown output.
        """
        if name not in self.names:
            raise ArgumentError(f"no output is called '{name}': {nearest(name, self.names)}")
        recent = self.times >= self.times[-1] - window * (1 + 1e-12)
        return self.outputs[recent, self.names.index(name)]


Biomarker = Callable[[Measurement], float]
Policy = Callable[[Measurement], Values]


@dataclass(frozen=True)
class Level:
    """The present value of an output."""

    output: str

    def __call__(self, measured: Measurement) -> float:
        return float(measured.of(self.output)[-1])


@dataclass(frozen=True)
class Oscillation:
    """Standard deviation of an output over a window of time: how strongly it oscillates.

    Zero until the window is full.
    """

    output: str
    window: float

    def __call__(self, measured: Measurement) -> float:
        if measured.times[-1] - measured.times[0] < self.window * (1 - 1e-9):
            return 0.0
        return float(measured.of(self.output, self.window).std(correction=0))


@dataclass(frozen=True, kw_only=True)
class OnDemand:
    """Stimulation while a biomarker is high: on at a threshold, off again at a lower one.

    Little et al. 2013, Ann Neurol 74:449-457, with the power of beta oscillations.

    Args:
        biomarker: `Oscillation`, `Level`, or any function of a measurement.
        threshold: From which on it stimulates.
        amplitude: With which, a number or one an input.
        release: Below which it stops; the threshold by default.
    """

    biomarker: Biomarker
    threshold: float
    amplitude: Values
    release: float | None = None

    def __post_init__(self):
        if self.release is not None and self.release > self.threshold:
            raise ArgumentError(f"release {self.release} lies above the threshold {self.threshold}")

    def __call__(self, measured: Measurement) -> Values:
        is_on = len(measured.amplitudes) > 0 and bool(measured.amplitudes[-1].any())
        bar = self.release if is_on and self.release is not None else self.threshold
        amplitude = torch.as_tensor(self.amplitude, dtype=torch.float64)
        return amplitude if self.biomarker(measured) >= bar else torch.zeros_like(amplitude)


@dataclass(frozen=True, kw_only=True)
class Proportional:
    """Stimulation in proportion to what a biomarker exceeds its setpoint by.

    Rosa et al. 2015, Mov Disord 30:1003-1005.

    Args:
        biomarker: As in `OnDemand`.
        setpoint: Up to which there is no stimulation; a biomarker with a sign (`two_sided`) is
            driven to it from either side.
        gain: Amplitude per excess, a number or one an input.
        two_sided: Whether to stimulate below the setpoint too, with the other sign.
    """

    biomarker: Biomarker
    setpoint: float
    gain: Values
    two_sided: bool = False

    def __call__(self, measured: Measurement) -> Values:
        excess = self.biomarker(measured) - self.setpoint
        excess = excess if self.two_sided else max(0.0, excess)
        return torch.as_tensor(self.gain, dtype=torch.float64) * excess


class RecedingHorizon:
    """Model-predictive stimulation: the best plan by the linear theory, its first step, and anew.

    Minimises sum x' Q x + energy int |v|^2 over a few intervals within the amplitude limit; beyond
    them the cost of the infinite horizon without limits counts (the Riccati solution), so that a
    plan without active limits is the linear-quadratic regulator. The state is estimated by least
    squares from the outputs at the last decisions.

    Args:
        linear: The system linearized at the equilibrium to be held, with the stimulating inputs.
        interval: Between decisions, as in `adaptive_stimulation`.
        n_intervals: Of a plan.
        weight: Of the squared deviation of each output, a number or one an output: Q = C' W C.
        energy: Price of the integral of the squared stimulus.
        limits: Of which a plan keeps amplitude and sign.
        memory: Decisions whose outputs estimate the state; as many as states by default.

    Raises:
        ArgumentError: A map, numbers that are not positive, a system that no input stabilises.
    """

    def __init__(
        self,
        linear: LinearSystem,
        *,
        interval: float,
        n_intervals: int = 20,
        weight: Values = 1.0,
        energy: float = 1.0,
        limits: StimulusLimits | None = None,
        memory: int | None = None,
    ):
        if linear.step is not None:
            raise ArgumentError("a linearization in continuous time is needed, this one is a map")
        if not (interval > 0 and n_intervals > 0 and energy > 0):
            raise ArgumentError("interval, n_intervals and energy must be positive")
        self.linear, self.interval, self.n = linear, interval, n_intervals
        self.memory = linear.n_states if memory is None else memory
        A, B, self.C = (m.detach().double().numpy() for m in (linear.A, linear.B, linear.C))
        n, m = B.shape
        whole = scipy.linalg.expm(np.block([[A, B], [np.zeros((m, n + m))]]) * interval)
        self.A, self.B = whole[:n, :n], whole[:n, n:]
        weights = np.broadcast_to(np.asarray(weight, dtype=np.float64), (len(self.C),))
        Q = self.C.T @ (weights[:, None] * self.C) * interval
        self.ridge = energy * interval
        try:
            P = scipy.linalg.solve_discrete_are(self.A, self.B, Q, self.ridge * np.eye(m))
        except np.linalg.LinAlgError as error:
            raise ArgumentError(
                "no regulator stabilises this linearization, so no plan has an end",
                fix="other inputs: controllability(linear) names the modes they do not move",
            ) from error
        self.free, self.effect = self._predictions(_root(Q), _root(P))
        bounds = (limits or StimulusLimits()).bounds(linear.inputs, linear.time_unit)
        low = np.zeros(m) if bounds.one_sided else bounds.amplitude
        allowed = np.concatenate(
            [np.repeat(side[:, None], self.n, axis=1) for side in (bounds.amplitude, low)], axis=1
        )
        rows = np.concatenate([np.eye(self.n), -np.eye(self.n)])
        self.problem = BoundedProblem(rows, allowed, np.ones(self.n), math.inf)

    def __call__(self, measured: Measurement) -> Values:
        x = self.state(measured)
        plan, _ = self.problem.solve(self.effect, -self.free @ x, self.ridge)
        return torch.tensor(plan[:, 0])

    def state(self, measured: Measurement) -> Float[np.ndarray, " state"]:
        """The deviation from the equilibrium that explains the outputs at the last decisions."""
        n_past = min(self.memory, len(measured.amplitudes))
        ends = measured.times[-1] - self.interval * torch.arange(n_past, -1, -1)
        at = (measured.times.unsqueeze(0) - ends.unsqueeze(1)).abs().argmin(dim=1)
        y = measured.outputs[at].detach().numpy() - self.linear.y0.detach().numpy()
        u = measured.amplitudes[len(measured.amplitudes) - n_past :].numpy()
        forced = np.zeros(len(self.A))
        power, rows, right = np.eye(len(self.A)), [self.C], [y[0]]
        for k in range(n_past):
            forced = self.A @ forced + self.B @ u[k]
            power = self.A @ power
            rows.append(self.C @ power)
            right.append(y[k + 1] - self.C @ forced)
        first = np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=1e-10)[0]
        return power @ first + forced

    def _predictions(self, each: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted states ahead: from the state now, and from each step of the plan."""
        n, m = self.B.shape
        powers = [np.eye(n)]
        for _ in range(self.n):
            powers.append(self.A @ powers[-1])
        free, effect = [], []
        for k in range(1, self.n + 1):
            root = last if k == self.n else each
            free.append(root @ powers[k])
            blocks = np.zeros((len(root), m, self.n))
            for i in range(k):
                blocks[:, :, i] = root @ powers[k - 1 - i] @ self.B
            effect.append(blocks)
        return np.concatenate(free), np.concatenate(effect)


def _root(matrix: np.ndarray) -> np.ndarray:
    """R with R' R the symmetric matrix, negative rounding taken as zero."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.sqrt(values.clip(min=0.0))[:, None] * vectors.T
