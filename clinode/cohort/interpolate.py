"""Interpolation: values that were measured, hidden, and asked for from what lies on both sides."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer

from clinode.cohort.task import Task
from clinode.errors import ArgumentError


@dataclass(frozen=True)
class Interpolate(Task):
    """A share of what was measured in the observation window, from all the rest of it.

    The prediction time is the end of the window, so a value is asked for when what came after it is
    known: that is what filling a gap means, and the answer must not be taken for one that could
    have been given at the time of the gap. Nothing behind the prediction time is read.

    Which observations are hidden is a matter of seed, subject, time and variable alone: the same in
    every batch, cohort and machine. They are hidden where targets are asked for (fit and evaluate);
    to predict, everything is read.

    Args:
        fraction: Share of the observations that is hidden, within (0, 1).
        at: Prediction time in hours, inclusive; where the outcomes carry a `prediction_time` that
            is taken; without either, the last observation of the training part.
        seed: Another one hides others.
    """

    fraction: float
    at: float | int | None = None
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.fraction < 1:
            raise ArgumentError(f"fraction must lie in (0, 1), got {self.fraction}")
        if self.at is not None and not np.isfinite(self.at):
            raise ArgumentError(
                f"the prediction time must be a finite number of hours, got {self.at}"
            )
        object.__setattr__(self, "at", None if self.at is None else float(self.at))

    @property
    def asks_values(self) -> bool:
        return True

    @property
    def reads_behind(self) -> bool:
        return True

    def default_time(self, last_time: float) -> float:
        return last_time if self.at is None else float(self.at)

    def hidden(
        self,
        subjects: np.ndarray,
        variables: Sequence[str],
        subject_index: Integer[np.ndarray, " observation"],
        variable_index: Integer[np.ndarray, " observation"],
        time: Float[np.ndarray, " observation"],
    ) -> Bool[np.ndarray, " observation"]:
        subject_key = np.array([_key(f"{self.seed}|{s}") for s in subjects.tolist()], np.uint64)
        variable_key = np.array([_key(name) for name in variables], np.uint64)
        bits = (np.asarray(time, dtype=np.float64) + 0.0).view(np.uint64)  # -0.0 becomes 0.0
        mixed = _mix(bits ^ variable_key[variable_index])
        mixed = _mix(mixed ^ subject_key[subject_index])
        return mixed.astype(np.float64) / 2.0**64 < self.fraction

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "interpolate", **asdict(self)}


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _mix(value: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea & Flood 2014): every bit of it depends on all."""
    with np.errstate(over="ignore"):
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
