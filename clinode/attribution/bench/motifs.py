"""Sequences of four classes told by two ramps: SeqComb (Queen et al. 2023, NeurIPS, TimeX).

On NARMA channels two stretches in two different channels rise or fall through five times the range:
none (class 0), both fall (1), both rise (2), the earlier one rises and the other falls (3). In the
irregular set whole steps are missing, ramps or not, as in the only published irregular one.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from clinode.attribution.bench.sequences import narma

_RISES = {1: (False, False), 2: (True, True), 3: (True, False)}


@dataclass(frozen=True, eq=False)
class ClassedSequences:
    """Sequences with one class each.

    Args:
        x: Values; of a step that is missing the value nobody saw.
        label: The class.
        truth: Cells of the two ramps, where they were seen.
        seen: Steps that were measured.
    """

    x: Float[np.ndarray, "subject step variable"]
    label: Int64[np.ndarray, " subject"]
    truth: Bool[np.ndarray, "subject step variable"]
    seen: Bool[np.ndarray, "subject step"]


def ramp_sequences(
    n_subjects: int,
    n_steps: int,
    n_variables: int,
    draw: np.random.Generator,
    *,
    length: tuple[int, int] = (10, 20),
    missing: float = 0.0,
) -> ClassedSequences:
    """Draw sequences of four classes in equal numbers.

    A ramp is a straight line from -5 |min| to 5 |max| of its sequence, or back, with sin(k t) on
    it, k drawn from a Poisson distribution with mean 1.

    Args:
        n_subjects: How many.
        n_steps: Of each, at least twice the longest ramp.
        n_variables: Channels, at least two.
        draw: The generator.
        length: Of a ramp, from the first up to below the second.
        missing: Share of the steps that are missing, each by itself.
    """
    flat = narma(n_subjects * n_variables, n_steps, draw)
    x = flat.reshape(n_subjects, n_variables, n_steps).transpose(0, 2, 1).copy()
    x += 0.01 * draw.normal(size=x.shape)
    label = draw.permutation(np.arange(n_subjects) % 4).astype(np.int64)
    truth = np.zeros(x.shape, dtype=bool)
    for subject in np.flatnonzero(label):
        low, high = -5 * abs(x[subject].min()), 5 * abs(x[subject].max())
        channels = draw.choice(n_variables, size=2, replace=False)
        half = n_steps // 2  # one ramp in each half, so that they never touch
        for number, rises in enumerate(_RISES[int(label[subject])]):
            steps = int(draw.integers(*length))
            start = number * half + int(draw.integers(0, half - steps + 1))
            ends = (low, high) if rises else (high, low)
            wave = np.sin(draw.poisson(1.0) * np.arange(steps))
            here = slice(start, start + steps)
            x[subject, here, channels[number]] = np.linspace(*ends, steps) + wave
            truth[subject, here, channels[number]] = True
    seen = draw.random((n_subjects, n_steps)) >= missing
    return ClassedSequences(x, label, truth & seen[..., None], seen)
