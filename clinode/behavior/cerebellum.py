"""The vestibulo-ocular reflex and how the cerebellum adapts it.

The head turns with velocity H, the eye against it with E = -g H. What is left to slip over the
retina, against a goal G for the gain, is e = (G - g) H; it is what climbing fibers tell. The gain
is what the vestibular nuclei give without the cerebellum, less what Purkinje cells take away:

    E = -(k H - sum_j w_j p_j),    p_j = (kernel_j * H)

with parallel fibers p_j that see the head's movement through filters of their own. A parallel fiber
that is active while a climbing fiber fires is depressed (LTD), one that is active while it is
silent is potentiated (LTP):

    dw_j = -eta <e p_j>

which is a step down the gradient of <e^2> / 2 (Ito 1982, Annu. Rev. Neurosci. 5:275; Fujita 1982,
Biol. Cybern. 45:207). Movements are sums of sinusoids, so every mean over time is exact.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Complex, Float

from clinode.errors import ArgumentError, SolverError
from clinode.system import Values

MOST_GAIN = 1e12  # of weights, beyond which they have run away


@dataclass(frozen=True)
class HeadMovement:
    """A movement of the head: amplitudes and phases of sinusoids, deg/s, at frequencies in Hz.

    Args:
        frequency: (component,), positive, each once.
        amplitude: (component,), deg/s.
    """

    frequency: Values
    amplitude: Values

    def __post_init__(self):
        frequency, amplitude = (np.asarray(v, float) for v in (self.frequency, self.amplitude))
        if frequency.ndim != 1 or frequency.shape != amplitude.shape or not len(frequency):
            raise ArgumentError(
                "a movement has as many amplitudes as frequencies, and one at least"
            )
        if not (np.isfinite(frequency).all() and (frequency > 0).all()):
            raise ArgumentError("frequencies must be positive and finite, in Hz")
        if len(np.unique(frequency)) < len(frequency):
            raise ArgumentError("a frequency is given twice: add their amplitudes")
        if not np.isfinite(amplitude).all() or not amplitude.any():
            raise ArgumentError("amplitudes must be finite and not all 0, in deg/s")

    @property
    def power(self) -> Float[np.ndarray, " component"]:
        """Mean square of each component, (deg/s)^2."""
        return np.asarray(self.amplitude, dtype=np.float64) ** 2 / 2


def delay_lines(delays: Values) -> "ParallelFibers":
    """Parallel fibers that carry the head's velocity late, each by its own delay in seconds."""
    held = _times(delays, "delays")
    return ParallelFibers(
        lambda frequency: np.exp(-2j * math.pi * np.outer(held, frequency)), len(held)
    )


def low_passes(time_constants: Values) -> "ParallelFibers":
    """Parallel fibers that low-pass the head's velocity, each with its own time constant, s."""
    held = _times(time_constants, "time constants")
    return ParallelFibers(
        lambda frequency: 1 / (1 + 2j * math.pi * np.outer(held, frequency)), len(held)
    )


def _times(values: Values, kind: str) -> np.ndarray:
    held = np.asarray(values, dtype=np.float64)
    if held.ndim != 1 or not len(held) or not (np.isfinite(held) & (held >= 0)).all():
        raise ArgumentError(f"{kind} must be finite and not negative, in s, and one at least")
    return held


@dataclass(frozen=True)
class ParallelFibers:
    """What parallel fibers see of the head's movement.

    Args:
        response: Frequencies in Hz -> (fiber, component) complex, response to the head's velocity.
        n_fibers: Their number.
    """

    response: Callable[[np.ndarray], np.ndarray]
    n_fibers: int

    def __call__(
        self, frequency: Float[np.ndarray, " component"]
    ) -> Complex[np.ndarray, "fiber component"]:
        """Their responses at these frequencies."""
        return np.asarray(self.response(np.asarray(frequency, float)), dtype=np.complex128)


@dataclass(frozen=True, kw_only=True)
class VOR:
    """The reflex: a path through the nuclei, and Purkinje cells that take from it.

    Args:
        brainstem: k, the gain without the cerebellum.
        fibers: What the Purkinje cells read; one fiber that carries the head's velocity by default.
        weights: (fiber,); zeros by default.
        error_delay: Seconds by which the climbing fibers are late.
        eligibility_delay: Seconds for which a synapse remembers that it was active; where it equals
            the delay of the error, both meet.
    """

    brainstem: float = 0.8
    fibers: ParallelFibers = field(default_factory=lambda: delay_lines([0.0]))
    weights: Values | None = None
    error_delay: float = 0.0
    eligibility_delay: float = 0.0

    def __post_init__(self):
        weights = np.zeros(self.fibers.n_fibers) if self.weights is None else self.weights
        weights = np.asarray(weights, dtype=np.float64)
        if weights.shape != (self.fibers.n_fibers,) or not np.isfinite(weights).all():
            raise ArgumentError(f"weights must be finite, one of {self.fibers.n_fibers} fibers")
        if not math.isfinite(self.brainstem):
            raise ArgumentError(f"the gain of the brainstem must be finite, got {self.brainstem}")
        for delay in (self.error_delay, self.eligibility_delay):
            if not (math.isfinite(delay) and delay >= 0):
                raise ArgumentError("delays must be finite and not negative, in seconds")
        object.__setattr__(self, "weights", weights)

    def gain(self, frequency: Values) -> np.ndarray:
        """Complex gain -E/H at frequencies in Hz: its modulus is the gain, its angle the phase."""
        asked = np.atleast_1d(np.asarray(frequency, dtype=np.float64))
        return self.brainstem - self.depth @ self.fibers(asked)

    @property
    def depth(self) -> Float[np.ndarray, " fiber"]:
        """The weights as numbers."""
        return np.asarray(self.weights, dtype=np.float64)

    def lesioned(self) -> "VOR":
        """Without Purkinje cells: what is left is what the nuclei have learned."""
        return replace(self, weights=np.zeros(self.fibers.n_fibers))


@dataclass(frozen=True, kw_only=True)
class CerebellarLearning:
    """How weights, and the nuclei, change with what slips.

    Args:
        eta: Per (deg/s)^2 and trial, positive.
        depresses, potentiates: Whether LTD and LTP are there; without one, weights go the other way
            only.
        consolidation: Share of the cerebellum's correction at the trained frequencies that the
            nuclei take over in each trial, in [0, 1).
    """

    eta: float
    depresses: bool = True
    potentiates: bool = True
    consolidation: float = 0.0

    def __post_init__(self):
        if not (math.isfinite(self.eta) and self.eta > 0):
            raise ArgumentError(f"eta must be positive, got {self.eta}")
        if not 0 <= self.consolidation < 1:
            raise ArgumentError(f"consolidation must lie in [0, 1), got {self.consolidation}")


@dataclass(frozen=True, eq=False)
class Adaptation:
    """The course of an adaptation.

    Args:
        reflex: As it is after the last trial.
        weights: After each trial, from before the first, (trial + 1, fiber).
        brainstem: Likewise, (trial + 1,).
        gain: Complex, at the trained frequencies, (trial + 1, component).
        slip: Root mean square of what slips in each trial, deg/s, (trial + 1,).
    """

    reflex: VOR
    weights: Float[np.ndarray, "trial fiber"]
    brainstem: Float[np.ndarray, " trial"]
    gain: Complex[np.ndarray, "trial component"]
    slip: Float[np.ndarray, " trial"]


def update(
    reflex: VOR, movement: HeadMovement, goal: float, rule: CerebellarLearning
) -> Float[np.ndarray, " fiber"]:
    """Change of the weights in one trial, -eta <e p_j>, with what of it is blocked left out.

    Args:
        reflex: As it is.
        movement: Of the trial.
        goal: Gain at which nothing slips: 1 for a world at rest, 2 behind magnifying glasses, -1
            where the world turns twice as fast as the head.
        rule: How synapses change.
    """
    frequency = np.asarray(movement.frequency, dtype=np.float64)
    fibers = reflex.fibers(frequency)
    late = np.exp(-2j * math.pi * frequency * (reflex.error_delay - reflex.eligibility_delay))
    slip = (goal - reflex.gain(frequency)) * late
    # <e p> of components that do not share a frequency; a weight lowers the gain, so what slips
    # when the gain is too low depresses
    change = -rule.eta * (movement.power * np.real(slip * fibers.conj())).sum(axis=1)
    if not rule.depresses:
        change = np.maximum(change, 0.0)
    if not rule.potentiates:
        change = np.minimum(change, 0.0)
    return change


def adapt(
    reflex: VOR,
    movement: HeadMovement,
    goal: float,
    rule: CerebellarLearning,
    n_trials: int,
) -> Adaptation:
    """Trials of one movement under one goal.

    With all of the rule and no consolidation the error of the weights follows e_n = (I - eta R)^n
    e_0 with R_jk = <p_j p_k>: see `learning_rates`.

    Args:
        reflex, movement, goal, rule: As of `update`.
        n_trials: At least 1.

    Raises:
        ArgumentError: No trial.
        SolverError: The weights ran away: eta is too large, or the error comes too late.
    """
    if not isinstance(n_trials, int) or n_trials < 1:
        raise ArgumentError(f"n_trials must be a whole number of at least 1, got {n_trials}")
    if not math.isfinite(goal):
        raise ArgumentError(f"the goal must be finite, got {goal}")
    frequency = np.asarray(movement.frequency, dtype=np.float64)
    power = movement.power / movement.power.sum()
    courses: list[VOR] = [reflex]
    for _ in range(n_trials):
        weights = reflex.depth + update(reflex, movement, goal, rule)
        if not np.abs(weights).max() < MOST_GAIN:
            raise SolverError(
                "the adaptation runs away",
                fix="lower eta, or let the eligibility delay meet that of the error; see "
                "learning_rates",
            )
        reflex = replace(reflex, weights=weights)
        if rule.consolidation:
            taken = rule.consolidation * np.real(weights @ reflex.fibers(frequency)) @ power
            own = _carried(reflex, movement, taken)
            reflex = replace(reflex, brainstem=reflex.brainstem - taken, weights=weights - own)
        courses.append(reflex)
    gain = np.stack([one.gain(frequency) for one in courses])
    return Adaptation(
        reflex=reflex,
        weights=np.stack([one.depth for one in courses]),
        brainstem=np.array([one.brainstem for one in courses]),
        gain=gain,
        slip=np.sqrt((np.abs(goal - gain) ** 2 * movement.power).sum(axis=1)),
    )


def learning_rates(
    reflex: VOR, movement: HeadMovement, rule: CerebellarLearning
) -> Complex[np.ndarray, " mode"]:
    """Factors by which the modes of the error shrink in a trial: eigenvalues of I - eta R.

    One outside of the unit circle runs away: eta above 2 over the largest eigenvalue of R, or an
    error that comes so late that it points the wrong way (a phase beyond 90 degrees at the trained
    frequency).
    """
    step = np.eye(reflex.fibers.n_fibers) - rule.eta * overlap(reflex, movement)
    return np.linalg.eigvals(step).astype(np.complex128)


def overlap(reflex: VOR, movement: HeadMovement) -> Float[np.ndarray, "fiber fiber"]:
    """R_jk = <p_j late p_k>, (deg/s)^2: how parallel fibers overlap over the movement.

    Symmetric where the eligibility meets the error.
    """
    frequency = np.asarray(movement.frequency, dtype=np.float64)
    fibers = reflex.fibers(frequency)
    late = np.exp(-2j * math.pi * frequency * (reflex.error_delay - reflex.eligibility_delay))
    return np.real((fibers.conj() * movement.power) @ (fibers * late).T)


def _carried(reflex: VOR, movement: HeadMovement, taken: float) -> np.ndarray:
    """Weights that do over the movement what the nuclei have taken over, and no longer need to."""
    frequency = np.asarray(movement.frequency, dtype=np.float64)
    fibers = reflex.fibers(frequency)
    root = np.sqrt(movement.power)
    wanted = np.concatenate([np.full(len(frequency), taken) * root, np.zeros(len(frequency))])
    seen = fibers * root
    shown = np.concatenate([np.real(seen), np.imag(seen)], axis=1)
    return np.linalg.lstsq(shown.T, wanted, rcond=None)[0]
