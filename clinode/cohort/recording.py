"""A recording of regions under stimulation, as a cohort and as arrays on a grid.

Sessions are subjects, regions are variables, and stimuli are inputs named by the region that they
enter. A cohort keeps hours; here all times are seconds.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from clinode.cohort.cohort import Cohort, CohortArrays
from clinode.cohort.schema import CohortSchema, Variable
from clinode.errors import ArgumentError

SECONDS = 3600.0  # in the cohort's time unit
ROUNDING = 0.02  # of a step: how far a sample may lie from the grid


@dataclass(frozen=True, eq=False)
class Recording:
    """Sessions on one grid of times from 0 s.

    Attributes:
        step: Seconds between two points of the grid.
        values: (session, point, region), NaN where nothing was recorded.
        stimulation: (session, point, stimulated region), mean over the step that begins at the
            point; 0 where no stimulus is told of.
        regions: Names of the regions.
        stimulated: Names of the regions that have an input, in the order of `stimulation`.
        unit: Of the values.

    Raises:
        ArgumentError: Shapes that do not fit each other or the names, a step that is not positive,
            repeated names, a stimulated region that is none of the regions.
    """

    step: float
    values: np.ndarray
    stimulation: np.ndarray
    regions: tuple[str, ...]
    stimulated: tuple[str, ...]
    unit: str = "1"

    def __post_init__(self):
        if not (np.isfinite(self.step) and self.step > 0):
            raise ArgumentError(f"the step must be positive and finite, got {self.step} s")
        shapes = (np.shape(self.values), np.shape(self.stimulation))
        if len(shapes[0]) != 3 or len(shapes[1]) != 3 or shapes[0][:2] != shapes[1][:2]:
            raise ArgumentError(
                f"values of shape {shapes[0]} and stimulation of shape {shapes[1]} do not fit: "
                "expected (session, point, region) and (session, point, stimulated region)"
            )
        for names, shape in zip((self.regions, self.stimulated), shapes, strict=True):
            if len(names) != shape[2] or len(set(names)) < len(names):
                raise ArgumentError(f"{shape[2]} columns need as many distinct names")
        unknown = [name for name in self.stimulated if name not in self.regions]
        if unknown:
            raise ArgumentError(
                f"the stimulus {unknown[0]!r} names none of the regions",
                fix="name each stimulus by the region that it enters",
            )

    @property
    def is_seen(self) -> np.ndarray:
        """(session, point): whether every region was recorded there."""
        return np.asarray(np.isfinite(self.values).all(axis=-1))

    @property
    def is_regular(self) -> bool:
        """Whether each session is whole: no point between its first and last is missing."""
        for seen in self.is_seen:
            places = np.flatnonzero(seen)
            if len(places) and len(places) != places[-1] - places[0] + 1:
                return False
        return True

    def cohort(self) -> Cohort:
        """The recording as a cohort, which `recording_of` reads; its regions may change places."""
        session, point, region = np.nonzero(np.isfinite(self.values))
        names = pd.Categorical.from_codes(region, categories=list(self.regions))
        observations = pd.DataFrame(
            {
                "subject_id": session,
                "time": point * (self.step / SECONDS),
                "variable": names,
                "value": self.values[session, point, region],
            }
        )
        schema = CohortSchema(
            variables=tuple(Variable(name=name, unit=self.unit) for name in self.regions),
            inputs=tuple(Variable(name=name) for name in self.stimulated),
        )
        return Cohort.from_tables(observations, inputs=self._levels(), schema=schema)

    def _levels(self) -> pd.DataFrame:
        """One row a level of the stimulation: runs of equal values, 0 left out."""
        rows = []
        for session, levels in enumerate(self.stimulation):
            for column, name in enumerate(self.stimulated):
                level = levels[:, column]
                starts = np.flatnonzero(np.diff(level, prepend=np.nan) != 0)
                ends = np.append(starts[1:], len(level))
                given = level[starts] != 0
                times = np.stack([starts, ends])[:, given] * (self.step / SECONDS)
                rows.append(
                    pd.DataFrame(
                        {
                            "subject_id": session,
                            "start": times[0],
                            "end": times[1],
                            "variable": name,
                            "value": level[starts][given],
                        }
                    )
                )
        names = ["subject_id", "start", "end", "variable", "value"]
        return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=names)


def recording_of(cohort: Cohort, step: float | None = None) -> Recording:
    """The arrays of a cohort whose variables are regions.

    Args:
        cohort: Times in hours; inputs named by regions, each with a start and an end.
        step: Of the grid, seconds; by default the smallest gap between two samples of a session.

    Raises:
        ArgumentError: No two samples, a sample off the grid, negative times, a stimulus without an
            end or that is named by no region, or values in different units.
    """
    arrays = cohort.arrays()
    time, session = arrays.time * SECONDS, arrays.subject_index
    if len(time) and time.min() < 0:
        raise ArgumentError("a recording's times begin at 0", fix="count from the session's start")
    if step is None:
        gaps = np.diff(time)[np.diff(session) == 0]
        gaps = gaps[gaps > 1e-6]
        if not len(gaps):
            raise ArgumentError("no session has two samples, so there is no step", fix="give step")
        step = float(np.median(gaps[gaps < 1.5 * gaps.min()]))
    point = np.rint(time / step).astype(int)
    off = np.abs(time / step - point)
    if len(off) and off.max() > ROUNDING:
        raise ArgumentError(
            f"{int((off > ROUNDING).sum())} samples lie off a grid of {step:g} s, by up to "
            f"{off.max():.2g} of a step",
            fix="give a step that divides all sample times",
        )
    regions = tuple(variable.name for variable in cohort.schema.variables)
    units = {variable.unit for variable in cohort.schema.variables}
    if len(units) > 1:
        raise ArgumentError(
            f"the regions are recorded in different units: {', '.join(sorted(units))}"
        )
    n_points = int(point.max()) + 1 if len(point) else 0
    values = np.full((len(cohort), n_points, len(regions)), np.nan)
    values[session, point, arrays.variable_index] = arrays.value
    stimulated = tuple(variable.name for variable in cohort.schema.inputs)
    levels = _on_grid(arrays, step, (len(cohort), n_points, len(stimulated)))
    return Recording(step, values, levels, regions, stimulated, unit=units.pop() if units else "1")


def _on_grid(arrays: CohortArrays, step: float, shape: tuple[int, int, int]) -> np.ndarray:
    """Mean of each stimulus over each step, (session, point, stimulated)."""
    n_sessions, n_points, n_stimulated = shape
    if np.isnan(arrays.input_end).any():
        raise ArgumentError(
            "a stimulus without an end is an impulse, which a recording's grid does not hold",
            fix="give each stimulus the time at which it ends",
        )
    session, column = arrays.input_subject_index, arrays.input_variable_index
    # An edge within a step acts on the rest of that step, and in whole on those after it.
    partial = np.zeros((n_sessions, n_points + 1, n_stimulated))
    whole = np.zeros((n_sessions, n_points + 2, n_stimulated))
    for edge, sign in ((arrays.input_start, 1.0), (arrays.input_end, -1.0)):
        place = np.clip(edge * (SECONDS / step), 0, n_points)
        place = np.where(np.abs(place - np.rint(place)) < 1e-6, np.rint(place), place)
        first = np.floor(place).astype(int)
        np.add.at(
            partial, (session, first, column), sign * arrays.input_value * (first + 1 - place)
        )
        np.add.at(whole, (session, first + 1, column), sign * arrays.input_value)
    return np.cumsum(whole, axis=1)[:, :n_points] + partial[:, :n_points]
