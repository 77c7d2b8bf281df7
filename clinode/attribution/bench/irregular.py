"""Irregular records whose kind of cause is known: value, ordering, timing, mixed.

Six variables are measured by a Poisson process, at most once an hour, over a day. What moves the
label is drawn event by event: how high two variables rise ("value"), that a test was ordered at
all ("ordering"), how short the gap between its last two measurements is ("timing"), or all three
with known shares. Values are Ornstein-Uhlenbeck processes of mean 0 and standard deviation 1.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from clinode.cohort import Cohort
from clinode.errors import ArgumentError

N_HOURS = 24
VARIABLES = ("a", "b", "c", "d", "e", "f")
KINDS = ("value", "ordering", "timing")
OUTCOME = "outcome"
_RISING, _TEST = (0, 1), 2  # whose values count; whose being ordered, and when, counts
_CORRELATION_HOURS = 4.0
_RATE = np.array([0.35, 0.35, 0.12, 0.35, 0.35, 0.35])  # measurements an hour
_LATE = 8  # hours before the end in which an order counts
_LOGIT_SD = 3.0


@dataclass(frozen=True, eq=False)
class IrregularRecords:
    """A day of each subject, hour by hour, and what each measurement adds to the logit.

    Args:
        value: NaN where nothing was measured.
        time: Hours, within the hour of the cell; NaN where nothing was measured.
        weight: Of each kind, what each cell adds to the logit, (subject, hour, variable).
        label: 0 or 1.
        logit: That the label was drawn from.
    """

    value: Float[np.ndarray, "subject hour variable"]
    time: Float[np.ndarray, "subject hour variable"]
    weight: dict[str, np.ndarray]
    label: Float[np.ndarray, " subject"]
    logit: Float[np.ndarray, " subject"]

    @property
    def measured(self) -> Bool[np.ndarray, "subject hour variable"]:
        """Where a value stands."""
        return ~np.isnan(self.value)

    @property
    def truth(self) -> Bool[np.ndarray, "subject hour variable"]:
        """Measurements that move the logit, of whatever kind."""
        return np.any([weight != 0 for weight in self.weight.values()], axis=0)

    def shares(self) -> dict[str, float]:
        """Of each kind, its share of the mean absolute contribution to a subject's logit.

        The contribution of a subject is taken from the mean over all subjects, as an attribution
        is from its baseline.
        """
        size = {}
        for kind, weight in self.weight.items():
            total = weight.sum(axis=(1, 2))
            size[kind] = float(np.abs(total - total.mean()).mean())
        whole = sum(size.values())
        return {kind: one / whole for kind, one in size.items()}

    def take(self, rows: np.ndarray | slice) -> "IrregularRecords":
        """Some of the subjects."""
        weight = {kind: one[rows] for kind, one in self.weight.items()}
        return IrregularRecords(
            self.value[rows], self.time[rows], weight, self.label[rows], self.logit[rows]
        )

    def cohort(self) -> Cohort:
        """The same records as a cohort that says what was planted."""
        subject, hour, variable = np.nonzero(self.measured)
        names = np.array(VARIABLES, dtype=object)
        observations = pd.DataFrame(
            {
                "subject_id": subject,
                "time": self.time[subject, hour, variable],
                "variable": names[variable],
                "value": self.value[subject, hour, variable],
            }
        )
        rows = []
        for kind, weight in self.weight.items():
            who, when, what = np.nonzero(weight)
            rows.append(
                pd.DataFrame(
                    {
                        "subject_id": who,
                        "kind": kind,
                        "time": self.time[who, when, what],
                        "variable": names[what],
                        "weight": weight[who, when, what],
                    }
                )
            )
        outcomes = pd.DataFrame(
            {
                "subject_id": np.arange(len(self.label)),
                "prediction_time": float(N_HOURS),
                OUTCOME: self.label.astype(int),
            }
        )
        return Cohort.from_tables(
            observations, outcomes=outcomes, planted=pd.concat(rows, ignore_index=True)
        )


def irregular_records(
    n_subjects: int, shares: dict[str, float], draw: np.random.Generator
) -> IrregularRecords:
    """Draw records whose logit has a standard deviation of 3, shared by kinds as told.

    Value: the excess over .5, at most 1.5, of measurements of "a" and "b" in the second half.
    Ordering: the first measurement of "c" within the last 8 hours, that it was made. Timing:
    1 - gap / 4 h, not below 0, of the last two measurements of "c", half of it given to each. The
    logit is centered over all subjects.

    Args:
        n_subjects: How many.
        shares: Of each kind of `KINDS`, its part of the sum of the standard deviations of the
            kinds, before they are put together. Kinds left out have none.
        draw: The generator.

    Raises:
        ArgumentError: A kind is unknown, a share is not positive, or they do not sum to 1.
    """
    if unknown := sorted(set(shares) - set(KINDS)):
        raise ArgumentError(f"unknown kinds {unknown}; there are: {', '.join(KINDS)}")
    if not shares or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise ArgumentError(f"shares must be positive and sum to 1, got {shares}")
    shape = (n_subjects, N_HOURS, len(VARIABLES))
    value = _processes(shape, draw)
    measured = draw.random(shape) < 1 - np.exp(-_RATE)
    time = np.where(measured, np.arange(N_HOURS)[:, None] + draw.random(shape), np.nan)
    value = np.where(measured, value, np.nan)
    made = {"value": _rises(value), "ordering": _orders(measured), "timing": _gaps(time)}
    weight = {}
    for kind, share in shares.items():
        spread = made[kind].sum(axis=(1, 2)).std()
        weight[kind] = made[kind] * (share / spread)
    total = np.sum([one.sum(axis=(1, 2)) for one in weight.values()], axis=0)
    factor = _LOGIT_SD / total.std()
    weight = {kind: one * factor for kind, one in weight.items()}
    logit = factor * (total - total.mean())
    label = (draw.random(n_subjects) < 1 / (1 + np.exp(-logit))).astype(np.float64)
    return IrregularRecords(value, time, weight, label, logit)


def _processes(shape: tuple[int, int, int], draw: np.random.Generator) -> np.ndarray:
    """Ornstein-Uhlenbeck processes in their stationary state, read once an hour."""
    kept = np.exp(-1 / _CORRELATION_HOURS)
    x = np.empty(shape)
    x[:, 0] = draw.normal(size=(shape[0], shape[2]))
    for hour in range(1, shape[1]):
        noise = draw.normal(size=(shape[0], shape[2]))
        x[:, hour] = kept * x[:, hour - 1] + np.sqrt(1 - kept**2) * noise
    return x


def _rises(value: np.ndarray) -> np.ndarray:
    weight = np.zeros(value.shape)
    late = value[:, N_HOURS // 2 :, _RISING]
    weight[:, N_HOURS // 2 :, _RISING] = np.nan_to_num(late - 0.5).clip(0, 1.5)
    return weight


def _orders(measured: np.ndarray) -> np.ndarray:
    weight = np.zeros(measured.shape)
    late = measured[:, -_LATE:, _TEST]
    first = late & (np.cumsum(late, axis=1) == 1)
    weight[:, -_LATE:, _TEST] = first
    return weight


def _gaps(time: np.ndarray) -> np.ndarray:
    weight = np.zeros(time.shape)
    for subject, times in enumerate(time[:, :, _TEST]):
        hours = np.flatnonzero(~np.isnan(times))[-2:]
        if len(hours) == 2:
            gap = times[hours[1]] - times[hours[0]]
            weight[subject, hours, _TEST] = max(1 - gap / 4.0, 0.0) / 2
    return weight
