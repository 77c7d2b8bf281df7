"""How well a task is done on what spikes tell: a linear read-out of many coded values.

Each value of a stimulus, as the light of a pixel, has a neuron of its own and is decoded alone. A
code says how often a value is taken for another, so the mean and the variance of each decoded value
are known, and those of the read-out's scores with them. A score is a sum over many neurons: it is
taken for Gaussian, which is all that is approximate here. With few neurons, draw from
`Code.confusion` instead.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import norm, qmc

from clinode.errors import ArgumentError
from clinode.system import Values

from .codes import Code, distinct_levels

_POINTS = 2**11  # of a Sobol sequence: errors of a probability near 1e-3


@dataclass(frozen=True)
class LinearReadout:
    """Takes the label with the largest score, values @ weights + offsets.

    Args:
        weights: (unit, label).
        offsets: (label,).

    Raises:
        ArgumentError: Shapes that do not fit, fewer than two labels, numbers that are not finite.
    """

    weights: Float[np.ndarray, "unit label"]
    offsets: Float[np.ndarray, " label"]

    def __post_init__(self):
        weights, offsets = np.asarray(self.weights), np.asarray(self.offsets)
        if weights.ndim != 2 or weights.shape[1] < 2 or offsets.shape != weights.shape[1:]:
            raise ArgumentError(
                "weights must be (unit, label) of two labels or more and offsets (label,), got "
                f"{weights.shape} and {offsets.shape}"
            )
        if not (np.isfinite(weights).all() and np.isfinite(offsets).all()):
            raise ArgumentError("a weight or an offset is not finite")

    def labels(self, values: Float[np.ndarray, "stimulus unit"]) -> Int[np.ndarray, " stimulus"]:
        """Of each stimulus, the number of the label."""
        return (values @ self.weights + self.offsets).argmax(axis=1)


@dataclass(frozen=True)
class ReadoutAccuracy:
    """The share of right labels that a code foretells.

    Attributes:
        accuracy: Mean over stimuli.
        by_stimulus: (stimulus,), how often each is labelled rightly.
        spread: Standard deviation of the share when each stimulus is read once.
        undisturbed: Share of right labels where every value is known.
        bits: Of each neuron's counter or clock.
    """

    accuracy: float
    by_stimulus: Float[np.ndarray, " stimulus"]
    spread: float
    undisturbed: float
    bits: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "by_stimulus": self.by_stimulus.tolist()}


def readout_accuracy(
    code: Code,
    values: Values,
    readout: LinearReadout,
    stimuli: Int[np.ndarray, "stimulus unit"],
    labels: Int[np.ndarray, " label_of_stimulus"],
    bits: int,
) -> ReadoutAccuracy:
    """How often a read-out of decoded values is right, from the code's confusions alone.

    Args:
        code: Of one neuron.
        values: (class,), what each of the code's classes stands for.
        readout: Of all neurons, fitted to such values.
        stimuli: Of each neuron, the number of its class.
        labels: The right ones.
        bits: Of each neuron's counter or clock.

    Raises:
        ArgumentError: Shapes or numbers that do not fit, bits not from 1 to 24.

    Example:
        >>> from clinode.coding import NoisyLevels
        >>> readout = LinearReadout(np.stack([-np.ones(50), np.ones(50)], axis=1), np.zeros(2))
        >>> dark, light = np.zeros(50, dtype=int), np.ones(50, dtype=int)
        >>> code = NoisyLevels([0.4, 0.6], 0.5)
        >>> round(code.accuracy(1), 3)
        0.579
        >>> found = readout_accuracy(
        ...     code, [-1.0, 1.0], readout, np.stack([dark, light]), np.array([0, 1]), bits=1
        ... )
        >>> round(found.accuracy, 2)
        0.87
    """
    worth = distinct_levels("values", values, negative=True)
    _check(code, worth, readout, stimuli, labels)
    confusion = code.confusion(bits)
    mean = confusion @ worth
    variance = (confusion @ worth**2 - mean**2).clip(min=0)
    right = np.take_along_axis(_probabilities(readout, mean, variance, stimuli), labels[:, None], 1)
    share = right[:, 0]
    return ReadoutAccuracy(
        accuracy=float(share.mean()),
        by_stimulus=share,
        spread=float(np.sqrt((share * (1 - share)).sum()) / len(share)),
        undisturbed=float((readout.labels(worth[stimuli]) == labels).mean()),
        bits=bits,
    )


def _probabilities(
    readout: LinearReadout,
    mean: Float[np.ndarray, " class"],
    variance: Float[np.ndarray, " class"],
    stimuli: Int[np.ndarray, "stimulus unit"],
) -> Float[np.ndarray, "stimulus label"]:
    """Of each label, from Gaussian scores at the points of one sequence for all stimuli."""
    W = readout.weights
    n_labels = W.shape[1]
    points = norm.ppf(qmc.Sobol(n_labels, rng=np.random.default_rng(0)).random(_POINTS))
    centre = mean[stimuli] @ W + readout.offsets
    found = np.empty((len(stimuli), n_labels))
    for row, classes in enumerate(stimuli):
        covariance = (W * variance[classes][:, None]).T @ W
        size, axes = np.linalg.eigh(covariance)
        root = axes * np.sqrt(size.clip(min=0))
        winner = (centre[row] + points @ root.T).argmax(axis=1)
        found[row] = np.bincount(winner, minlength=n_labels) / _POINTS
    return found


def _check(
    code: Code,
    worth: Float[np.ndarray, " class"],
    readout: LinearReadout,
    stimuli: Int[np.ndarray, "stimulus unit"],
    labels: Int[np.ndarray, " label_of_stimulus"],
) -> None:
    if len(worth) != code.n_classes:
        raise ArgumentError(f"{len(worth)} values for {code.n_classes} classes of the code")
    if stimuli.ndim != 2 or stimuli.shape[1] != len(readout.weights) or not len(stimuli):
        raise ArgumentError(
            f"stimuli must be (stimulus, {len(readout.weights)}), got {stimuli.shape}"
        )
    for name, given, most in (
        ("stimuli", stimuli, code.n_classes),
        ("labels", labels, readout.weights.shape[1]),
    ):
        if given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= most:
            raise ArgumentError(f"{name} must be whole numbers from 0 to {most - 1}")
    if labels.shape != (len(stimuli),):
        raise ArgumentError(f"{labels.shape} labels for {len(stimuli)} stimuli")
