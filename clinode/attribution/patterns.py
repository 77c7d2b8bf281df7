"""Records taken apart into what was ordered, when, and what it said, and put together otherwise.

A record is, for each variable, a series of measurements. How many each series has is the ordering,
the hours at which they stand the timing, what they said the values. Each of the three may be the
record's own, or that of its reference:

- ordering: the numbers of measurements of another subject, a donor, by its own prediction time;
- timing: each series spread evenly over the time from hour 0 (or the first measurement, where that
  is earlier) to the prediction time, so that no gap is longer than another; measurements of
  different variables made together stay together only where their series are equally long;
- values: those of a baseline.

A series that is asked for a number of measurements that it does not have keeps its first and its
last, and is read in equal steps between them: hours are interpolated, values are those of the
nearest measurement. One measurement alone stands for the last. Of a variable that the subject never
had, the values are the baseline's, and the hours the donor's, counted back from the prediction
time; of one that it had once, hours before that are as far back as the donor's.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from clinode.cohort import Cohort


@dataclass(frozen=True)
class Series:
    """The measurements of subjects up to their prediction times, by subject and variable.

    Args:
        until: Prediction time of each subject, hours.
        count: Measurements of each series.
        first: Where each series begins in `time` and `value`.
        time, value: Sorted by subject, variable and time; original units.
    """

    until: Float[np.ndarray, " subject"]
    count: Int64[np.ndarray, "subject variable"]
    first: Int64[np.ndarray, "subject variable"]
    time: Float[np.ndarray, " measurement"]
    value: Float[np.ndarray, " measurement"]

    @staticmethod
    def read(
        cohort: Cohort, until: Float[np.ndarray, " subject"], variables: tuple[str, ...]
    ) -> "Series":
        """Those of a cohort, of the variables that a model reads.

        Args:
            cohort: Whose.
            until: Prediction time of each of its subjects, hours.
            variables: Names; measurements of others are left out.
        """
        arrays = cohort.arrays()
        names = [variable.name for variable in cohort.schema.variables]
        place = np.array([variables.index(n) if n in variables else -1 for n in names], np.int64)
        variable = place[arrays.variable_index] if len(names) else np.empty(0, np.int64)
        subject = arrays.subject_index.astype(np.int64)
        keep = (variable >= 0) & (arrays.time <= until[subject])
        series = subject[keep] * len(variables) + variable[keep]
        order = np.argsort(series, kind="stable")  # within a subject rows come in order of time
        shape = (len(until), len(variables))
        count = np.bincount(series, minlength=shape[0] * shape[1])
        first = np.cumsum(count) - count
        time, value = arrays.time[keep][order], arrays.value[keep][order]
        return Series(until, count.reshape(shape), first.reshape(shape), time, value)

    @property
    def begin(self) -> Float[np.ndarray, " subject"]:
        """Hour 0 of each subject, or its first measurement where that is earlier."""
        first = np.where(self.count > 0, _taken(self.time, self.first), np.inf)
        return np.minimum(np.minimum(first.min(axis=1), 0.0), self.until)


@dataclass(frozen=True)
class Measurements:
    """Measurements of subjects: whose, of which variable, when, and what they said."""

    subject: Int64[np.ndarray, " measurement"]
    variable: Int64[np.ndarray, " measurement"]
    time: Float[np.ndarray, " measurement"]
    value: Float[np.ndarray, " measurement"]


def rearranged(
    own: Series,
    baseline: Float[np.ndarray, "subject variable"],
    donors: Series,
    donor: Int64[np.ndarray, " subject"],
    *,
    values: bool,
    ordering: bool,
    timing: bool,
) -> Measurements:
    """Records in which each of the three is the subject's own, or its reference.

    Args:
        own: Of the subjects.
        baseline: Value of each variable for each subject, original units.
        donors: Of those who lend the numbers of their measurements.
        donor: Which of them lends to each subject.
        values, ordering, timing: Which are the subject's own.
    """
    count = own.count if ordering else donors.count[donor]
    subject, variable = (
        np.repeat(part.ravel(), count.ravel()) for part in np.indices(count.shape, dtype=np.int64)
    )
    asked = count[subject, variable]
    nth = np.arange(len(asked)) - np.repeat(np.cumsum(count.ravel()) - count.ravel(), count.ravel())
    held, first = own.count[subject, variable], own.first[subject, variable]
    # where in the subject's own series a measurement stands: the last where there is one
    place = np.where(asked > 1, nth * (held - 1) / np.maximum(asked - 1, 1), held - 1.0)
    place = np.maximum(place, 0.0)
    value = baseline[subject, variable]
    if values:
        nearest = first + np.rint(place).astype(np.int64)
        value = np.where(held > 0, _taken(own.value, nearest), value)
    until, begin = own.until[subject], own.begin[subject]
    if not timing:
        time = begin + (nth + 0.5) / np.maximum(asked, 1) * (until - begin)
    else:
        low = np.floor(place).astype(np.int64)
        earlier, later = (
            _taken(own.time, first + one) for one in (low, np.ceil(place).astype(int))
        )
        time = earlier + (place - low) * (later - earlier)
    if timing and not ordering:
        lent = donors.first[donor[subject], variable]
        theirs = _taken(donors.time, lent + nth)
        last = _taken(donors.time, lent + asked - 1)
        behind = np.where(held == 0, donors.until[donor[subject]] - theirs, last - theirs)
        anchor = np.where(held == 0, until, _taken(own.time, first + np.maximum(held - 1, 0)))
        time = np.where(held < 2, np.maximum(anchor - behind, begin), time)
    return Measurements(subject, variable, time, value)


def _taken(array: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Entries of an array, 0 where there is none to take."""
    if not len(array):
        return np.zeros(len(place))
    return array[np.clip(place, 0, len(array) - 1)]
